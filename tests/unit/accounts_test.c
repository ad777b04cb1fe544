/* Accounts over HTTP within the ledger: what a worker may send, what it cannot gain, and the password helpers: their
 * bound, their deaths. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <dirent.h>

#include <cmocka.h>

#include "tests/unit/ledger_fixture.h"
#include "master/ledger/http.h"

static const char conf[] =
    "listen 127.0.0.1:1; control c; state_dir s; admin_token \"0123456789abcdef\"; upstream echo { dialect echo; }\n"
    "model gpt-4o { route echo; price input 2.75 output 11; max_output 100; context 1000; }\n"
    "billing { signup on; signup_credit 1234.5; signup_rate 1000/h; }\n";

static struct json worker_call(struct rig *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static uint32_t post(struct rig *r, uint32_t origin, const char *text) {
    char copy[4096];
    struct ipc_header h = { .type = IPC_CALL, .id = ++r->call_id, .origin = origin };
    size_t n = strlen(text);
    assert_true(n < sizeof copy);
    for (size_t i = 0; i <= n; i++)
        copy[i] = text[i] == '\'' ? '"' : text[i];
    int err = ipc_send(&r->master, &h, slice_of(copy, n), NULL, 0);
    assert_true(err == 0 || err == -EAGAIN);
    return h.id;
}
static struct json worker_call(struct rig *r, const char *fmt, ...) {
    char text[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return rig_wait(r, post(r, IPC_FROM_WORKER, text));
}
#define STATUS(r, j, want) assert_string_equal(text_of(r, j, "result.status"), want)
static const char *text_of(struct rig *r, struct json j, const char *path) {
    static char out[4][600];
    static unsigned i;
    struct slice s = rig_at(r, &j, path);
    char *at = out[i++ % 4];
    snprintf(at, 600, "%.*s", SLICE_ARG(s));
    return at;
}

static void begin(struct rig *r) {
    rig_init(r);
    r->conf_text = conf;
    assert_true(rig_start(r));
}
static void end(struct rig *r) {
    rig_stop(r, true);
    rig_remove(r);
}

static void test_register_and_login(void **state) {
    struct rig r;
    (void)state;
    begin(&r);
    struct json j = worker_call(&r, "{'cmd':'http.register','client':'10.0.0.1','body':{'email':' A@Ex.org','password':'secret'}}");
    STATUS(&r, j, "200");
    assert_string_equal(text_of(&r, j, "result.body.message"), "Registration successful! $1,234.50 free credit granted.");
    assert_string_equal(text_of(&r, j, "result.body.balance"), "1234.5");
    char token[1024], key[128];
    snprintf(token, sizeof token, "%s", text_of(&r, j, "result.body.token"));
    snprintf(key, sizeof key, "%s", text_of(&r, j, "result.body.api_key"));
    j = worker_call(&r, "{'cmd':'http.login','client':'10.0.0.1','body':{'email':'a@ex.org','password':'secret'}}");
    STATUS(&r, j, "200");
    j = worker_call(&r, "{'cmd':'http.login','client':'10.0.0.1','body':{'email':'a@ex.org','password':'Secret'}}");
    STATUS(&r, j, "401");
    j = worker_call(&r, "{'cmd':'http.balance','credentials':['nothing','%s']}", key);
    assert_string_equal(text_of(&r, j, "result.body.email"), "a@ex.org");
    j = worker_call(&r, "{'cmd':'http.keys','credentials':['%s']}", token);
    STATUS(&r, j, "200");
    rig_stop(&r, false);
    assert_true(rig_start(&r));
    j = worker_call(&r, "{'cmd':'http.keys','credentials':['%s']}", token);
    assert_string_equal(text_of(&r, j, "result.body.keys.0.id"), "key_00000001");
    j = rig_call(&r, "{'cmd':'audit'}");
    assert_string_equal(text_of(&r, j, "result.differences"), "[]");
    end(&r);
}

/* Neither the operator's commands, nor these without a credential, nor an id or an account's name as one. */
static void test_a_worker_gains_nothing(void **state) {
    static const char *const commands[] = {
        "http.keys", "http.key_create", "http.key_revoke", "http.balance", "http.usage", "http.cap", "http.cap_set",
        "http.admin_accounts", "http.admin_account_create", "http.admin_account", "http.admin_account_set",
        "http.admin_keys", "http.admin_key_create", "http.admin_key_set", "http.admin_key_revoke",
        "http.admin_credit", "http.admin_usage", "http.admin_debit", "http.admin_key", "http.admin_balance" };
    struct rig r;
    (void)state;
    begin(&r);
    rig_call(&r, "{'cmd':'account.create','email':'a@ex.org'}");
    rig_call(&r, "{'cmd':'key.create','account':'a@ex.org'}");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        static const char *const credentials[] = { "", "'credentials':[],", "'credentials':{},", "'credentials':[1,null,{}],",
            "'credentials':['acct_00000001','a@ex.org','key_00000001','',''],", "'credentials':'0123456789abcdef',",
            "'credentials':['0123456789abcde','0123456789abcdeg'],'account':'acct_00000001'," };
        for (size_t k = 0; k < sizeof credentials / sizeof *credentials; k++) {
            struct json j = worker_call(&r, "{%s'cmd':'%s','id':'gpt-4o','body':{'account':'a@ex.org','amount':'5','cap':1}}",
                                        credentials[k], commands[i]);
            STATUS(&r, j, "401");
        }
        struct json j = rig_call(&r, "{'cmd':'%s','credentials':['0123456789abcdef']}", commands[i]);
        assert_string_equal(text_of(&r, j, "error.code"), "forbidden");
    }
    static const char *const others[] = { "account.create", "account.list", "key.create", "key.list", "credit", "balance",
                                          "usage", "backup", "audit", "cap.set", "names.intern" };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct json j = worker_call(&r, "{'cmd':'%s','credentials':['0123456789abcdef'],'account':'a@ex.org'}", others[i]);
        assert_string_equal(text_of(&r, j, "error.code"), "forbidden");
    }
    struct json j = worker_call(&r, "{'cmd':'http.admin_accounts','credentials':['x','0123456789abcdef']}");
    STATUS(&r, j, "200");
    assert_string_equal(text_of(&r, j, "result.body.accounts.0.balance"), "0");
    end(&r);
}

/* More at once than run and wait: some are done, the rest is told to come again, none is lost; the loop goes on. */
static void test_too_many_at_once(void **state) {
    enum { MANY = 90 };
    struct rig r;
    struct ipc_frame f;
    unsigned done = 0, refused = 0, answers = 0;
    char text[256];
    (void)state;
    begin(&r);
    uint32_t first = r.call_id + 1;
    for (int i = 0; i < MANY; i++) {
        snprintf(text, sizeof text, "{'cmd':'http.login','client':'10.0.0.%d','body':{'email':'%d@ex.org','password':'secret'}}", i, i);
        post(&r, IPC_FROM_WORKER, text);
    }
    for (int turns = 0; answers < MANY && turns < 20000; turns++) {
        while (ipc_recv(&r.master, &f) == 1) {
            if (f.h.type != IPC_ANSWER || f.h.id < first)
                continue;
            struct json j = rig_parse(&r, f.payload);
            answers++;
            done += strcmp(text_of(&r, j, "result.status"), "401") == 0;
            refused += strcmp(text_of(&r, j, "result.status"), "503") == 0;
        }
        (void)ipc_flush(&r.master);
        (void)ledger_turn(&r.l, 1);
    }
    assert_int_equal(answers, MANY);
    assert_int_equal(done + refused, MANY);
    assert_true(done >= 60 && refused >= 10);
    end(&r);
}

static int find_helpers(pid_t *out, int max) {
    char path[300], name[64];
    int n = 0;
    DIR *d = opendir("/proc");
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) && n < max;) {
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10), parent = 0;
        if (pid <= 0 || snprintf(path, sizeof path, "/proc/%d/stat", (int)pid) < 0)
            continue;
        FILE *f = fopen(path, "r");
        if (f && fscanf(f, "%*d (%60[^)]) %*c %d", name, &parent) == 2 && parent == getpid() &&
            strcmp(name, "tg-password") == 0)
            out[n++] = pid;
        if (f)
            fclose(f);
    }
    closedir(d);
    return n;
}

static void test_a_helper_dies(void **state) {
    static const char login[] = "{'cmd':'http.login','client':'10.0.0.1','body':{'email':'a@ex.org','password':'secret'}}";
    struct rig r;
    pid_t helpers[8];
    (void)state;
    begin(&r);
    struct json j = worker_call(&r, "{'cmd':'http.register','client':'10.0.0.1','body':{'email':'a@ex.org','password':'secret'}}");
    STATUS(&r, j, "200");
    assert_int_equal(find_helpers(helpers, 8), 1);
    assert_int_equal(kill(helpers[0], SIGKILL), 0); /* idle: the next call gets a new one, or is told to come again */
    j = worker_call(&r, "%s", login);
    j = worker_call(&r, "%s", login);
    STATUS(&r, j, "200");
    assert_int_equal(find_helpers(helpers, 8), 1);
    uint32_t id = post(&r, IPC_FROM_WORKER, login);
    assert_int_equal(kill(helpers[0], SIGSTOP), 0); /* at work */
    for (int i = 0; i < 20; i++) {
        (void)ipc_flush(&r.master);
        (void)ledger_turn(&r.l, 1);
    }
    assert_int_equal(kill(helpers[0], SIGKILL), 0);
    j = rig_wait(&r, id);
    STATUS(&r, j, "503");
    j = worker_call(&r, "%s", login);
    STATUS(&r, j, "200");
    end(&r);
    assert_int_equal(find_helpers(helpers, 8), 0);
}

static void test_password_rules(void **state) {
    (void)state;
    char long_one[PASSWORD_MAX + 1];
    memset(long_one, 'x', sizeof long_one);
    assert_false(password_fits(SLICE("")));
    assert_false(password_fits(SLICE("12345")));
    assert_true(password_fits(SLICE("123456")));
    assert_false(password_fits(SLICE("\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9")));
    assert_true(password_fits(SLICE("\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9")));
    assert_true(password_fits(slice_of(long_one, PASSWORD_MAX)));
    assert_false(password_fits(slice_of(long_one, PASSWORD_MAX + 1)));
}

static void test_counting(void **state) {
    struct rig r;
    uint64_t wait_s = 0;
    (void)state;
    begin(&r);
    for (int i = 0; i < 3; i++)
        assert_true(auth_count(&r.l, COUNT_SIGNUPS, SLICE("a"), 3, 60000, &wait_s));
    assert_false(auth_count(&r.l, COUNT_SIGNUPS, SLICE("a"), 3, 60000, &wait_s));
    assert_in_range(wait_s, 59, 61);
    assert_true(auth_count(&r.l, COUNT_SIGNUPS, SLICE("b"), 3, 60000, &wait_s));
    assert_true(auth_count(&r.l, COUNT_LOGIN_ADDRESS, SLICE("a"), 3, 60000, &wait_s));
    auth_uncount(&r.l, COUNT_SIGNUPS, SLICE("a"));
    assert_true(auth_count(&r.l, COUNT_SIGNUPS, SLICE("a"), 3, 60000, &wait_s));
    assert_false(auth_count(&r.l, COUNT_SIGNUPS, SLICE("a"), 3, 60000, &wait_s));
    assert_true(auth_count(&r.l, COUNT_SIGNUPS, SLICE("a"), 3, 0, &wait_s)); /* the window is over */
    end(&r);
}

/* Who is counted as one: an IPv4 address, however a proxy writes it; an IPv6 address with its whole /64. */
static void test_clients(void **state) {
    static const char *const cases[][2] = {
        { "10.0.0.1", "10.0.0.1" },
        { "::ffff:10.0.0.1", "10.0.0.1" },
        { "::FFFF:0a00:2", "10.0.0.2" },
        { "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::" },
        { "2001:db8:1:2::9", "2001:db8:1:2::" },
        { "unix", "unix" },
    };
    struct rig r;
    (void)state;
    begin(&r);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[100];
        int n = snprintf(text, sizeof text, "{\"client\":\"%s\"}", cases[i][0]);
        struct call c = { .l = &r.l, .arena = &r.arena, .json = rig_parse(&r, slice_of(text, (size_t)n)) };
        struct slice got = auth_client(&c);
        if (!slice_is(got, cases[i][1])) fail_msg("%s is counted as %.*s", cases[i][0], SLICE_ARG(got));
    }
    end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_register_and_login), cmocka_unit_test(test_a_worker_gains_nothing),
        cmocka_unit_test(test_too_many_at_once),   cmocka_unit_test(test_a_helper_dies),
        cmocka_unit_test(test_password_rules),     cmocka_unit_test(test_counting),
        cmocka_unit_test(test_clients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
