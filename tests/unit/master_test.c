/* The master's small parts, which need no worker and no ledger: timers, the throttle, the log, systemd's protocol, names,
 * the resolver helper, what a child is left with. */
#include "tests/unit/master_fixture.h"

/* ---- events ---------------------------------------------------------------------------------------------------------------------- */

struct ticker { struct events e; struct timer a, b; int fired; };
static void fire_b(struct timer *t) {
    struct ticker *k = CONTAINER_OF(t, struct ticker, b);
    k->fired += 10;
    k->e.stop = true;
}
static void fire_a(struct timer *t) {
    struct ticker *k = CONTAINER_OF(t, struct ticker, a);
    k->fired++;
    if (k->fired < 3) events_timer_set(&k->e, &k->a, 1, fire_a);
    else events_timer_set(&k->e, &k->b, 1, fire_b);
}
static void timers_fire_once_in_order(void **state) {
    (void)state;
    struct ticker k = { 0 };
    assert_int_equal(events_open(&k.e), 0);
    events_timer_set(&k.e, &k.b, 3600000, fire_b);
    events_timer_set(&k.e, &k.b, 3600000, fire_b); /* set again: still one */
    events_timer_set(&k.e, &k.a, 0, fire_a);
    events_run(&k.e);
    assert_int_equal(k.fired, 13);
    assert_null(k.e.timers);
    events_close(&k.e);
}

/* ---- throttle, log, notify ----------------------------------------------------------------------------------------------------- */

static void back_off_grows_and_is_forgotten(void **state) {
    (void)state;
    struct back_off b = { 0 };
    static const uint32_t expect[] = { 100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000 };
    assert_int_equal(spawn_back_off(&b, false), 0);
    for (size_t i = 0; i < ARRAY_LEN(expect); i++) assert_int_equal(spawn_back_off(&b, true), expect[i]);
    assert_int_equal(spawn_back_off(&b, false), 0);
    assert_int_equal(spawn_back_off(&b, true), 100);
}

static void log_lines_are_one_line(void **state) {
    (void)state;
    char line[256];
    size_t n = errlog_format(line, sizeof line, 1700000000123, LOG_WARN, 42, "a\nb\tc\x7f" "d\n");
    assert_string_equal((line[n] = '\0', line), "2023-11-14T22:13:20.123Z [warn] master (42): a b c d\n");
    n = errlog_format(line, 58, 0, LOG_ERROR, 1, "0123456789012345678901234567890123456789");
    assert_int_equal(n, 58);
    assert_int_equal(line[57], '\n');
}

static void log_appends_and_is_not_for_all(void **state) {
    (void)state;
    struct stat st;
    umask(022);
    for (int i = 0; i < 2; i++) {
        int fd = errlog_open(in_folder("log"), 0, 0);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, "x\n", 2), 2);
        assert_int_equal(fstat(fd, &st), 0);
        close(fd);
    }
    assert_int_equal(st.st_size, 4);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(errlog_open(in_folder("no/such"), 0, 0), -ENOENT);
}

static void expect_notified(const char *name) {
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    char got[512];
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    memcpy(a.sun_path, name, strlen(name));
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
    if (name[0] == '@') a.sun_path[0] = '\0';
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    notify("READY=1\nMAINPID=%d\n", 7);
    ssize_t n = recv(fd, got, sizeof got, MSG_DONTWAIT);
    assert_int_equal(n, 18);
    assert_memory_equal(got, "READY=1\nMAINPID=7\n", 18);
    notify_reloading();
    n = recv(fd, got, sizeof got - 1, MSG_DONTWAIT);
    assert_true(n > 30);
    got[n] = '\0';
    assert_int_equal(strncmp(got, "RELOADING=1\nMONOTONIC_USEC=", 27), 0);
    unsetenv("NOTIFY_SOCKET");
    notify("READY=1\n");
    assert_int_equal(recv(fd, got, sizeof got, MSG_DONTWAIT), -1);
    close(fd);
}

static void systemd_is_notified(void **state) {
    (void)state;
    char abstract[64];
    snprintf(abstract, sizeof abstract, "@tg-master-test-%d", (int)getpid());
    expect_notified(in_folder("notify"));
    expect_notified(abstract);
    setenv("WATCHDOG_USEC", "3000000", 1);
    unsetenv("WATCHDOG_PID");
    assert_int_equal(notify_watchdog_ms(), 1500);
    setenv("WATCHDOG_PID", "1", 1);
    assert_int_equal(notify_watchdog_ms(), 0);
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

/* ---- names --------------------------------------------------------------------------------------------------------------------------- */

static void names_are_of_a_kind(void **state) {
    (void)state;
    struct fixture *f = fixture_open();
    struct names **n = &f->m.reload.names;
    assert_int_equal(names_find(*n, NAME_MODEL, "a"), 0);
    assert_true(names_add(n, NAME_MODEL, "a", 3));
    assert_true(names_add(n, NAME_TIER, "a", 4));
    assert_int_equal(names_find(*n, NAME_MODEL, "a"), 3);
    assert_int_equal(names_find(*n, NAME_TIER, "a"), 4);
    assert_int_equal(names_find(*n, NAME_GROUP, "a"), 0);
    fixture_close(f);
}

/* ---- the resolver --------------------------------------------------------------------------------------------------------------------- */

static void literals_need_no_resolver(void **state) {
    (void)state;
    struct shm_address a;
    assert_true(resolve_literal(SLICE("127.0.0.1"), &a));
    assert_int_equal(a.family, 4);
    assert_memory_equal(a.bytes, "\x7f\0\0\1", 4);
    assert_true(resolve_literal(SLICE("::1"), &a));
    assert_int_equal(a.family, 6);
    assert_int_equal(a.bytes[15], 1);
    assert_false(resolve_literal(SLICE("localhost"), &a));
    assert_false(resolve_literal(SLICE("127.1"), &a));
    assert_false(resolve_literal(SLICE(""), &a));
}

static bool resolver_settled;
static void note_settled(struct master *m) {
    (void)m;
    resolver_settled = true;
}
static bool is_settled(void *arg) {
    (void)arg;
    return resolver_settled;
}
static bool is_gone(void *arg) {
    struct master *m = arg;
    int status;
    if (waitpid(m->resolver.pid, &status, WNOHANG) != m->resolver.pid) return false;
    resolve_reaped(m, status);
    return true;
}

struct fake_upstreams { struct snap snap; struct snap_upstream u[2]; char text[2][32]; };

static void names_are_resolved_by_the_helper(void **state) {
    (void)state;
    struct fixture *f = fixture_open();
    struct fake_upstreams s = { .text = { "localhost", "127.0.0.9" } };
    struct shm_addresses *table = calloc(SHM_MAX_UPSTREAMS, sizeof *table);
    s.snap.upstreams = (struct snap_list){ offsetof(struct fake_upstreams, u), 2 };
    for (unsigned i = 0; i < 2; i++) {
        s.u[i].id = i + 1;
        s.u[i].host = (struct snap_str){ (uint32_t)(offsetof(struct fake_upstreams, text) + i * 32), (uint32_t)strlen(s.text[i]) };
    }
    f->m.shm.addresses = table;
    resolve_start(&f->m);
    resolver_settled = false;
    assert_false(resolve_learn(&f->m, &s.snap));
    f->m.resolver.settled = note_settled;
    run_until(&f->m, is_settled, NULL);
    resolve_publish(&f->m, &s.snap);
    struct shm_addresses a;
    assert_true(shm_addresses_read(&f->m.shm, 1, &a));
    assert_true(a.count >= 1);
    assert_true(shm_addresses_read(&f->m.shm, 2, &a));
    assert_int_equal(a.count, 1);
    assert_memory_equal(a.address[0].bytes, "\x7f\0\0\x9", 4);
    assert_true(resolve_learn(&f->m, &s.snap)); /* known by now */
    kill(f->m.resolver.pid, SIGKILL);
    run_until(&f->m, is_gone, &f->m);
    f->m.stopping = STOP_LEDGER;
    resolve_stop(&f->m);
    if (f->m.resolver.pid > 0) waitpid(f->m.resolver.pid, NULL, 0);
    events_timer_clear(&f->m.events, &f->m.resolver.next);
    events_timer_clear(&f->m.events, &f->m.resolver.deadline);
    free(table);
    fixture_close(f);
}

/* ---- children ------------------------------------------------------------------------------------------------------------------------- */

static int look_around(int kept, int other) {
    if (fcntl(kept, F_GETFD) < 0) return 2;
    if (fcntl(other, F_GETFD) >= 0) return 3;
    if (getenv("TG_TEST_PROVIDER_KEY")) return 4;
    if (!getenv("PATH")) return 5;
    sigset_t set;
    sigprocmask(SIG_BLOCK, NULL, &set);
    if (sigismember(&set, SIGTERM)) return 6;
    for (int fd = 3; fd < 256; fd++) {
        if (fd != kept && fcntl(fd, F_GETFD) >= 0) return 7;
    }
    return 0;
}

static void a_child_keeps_only_what_it_is_given(void **state) {
    (void)state;
    struct fixture *f = fixture_open();
    sigset_t set, before;
    int p[2], status;
    setenv("TG_TEST_PROVIDER_KEY", "sk-secret", 1);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, &before);
    assert_int_equal(pipe(p), 0);
    pid_t pid = spawn_fork(&f->m, &p[1], 1, "tg-test");
    if (pid == 0) _exit(look_around(p[1], p[0]));
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    sigprocmask(SIG_SETMASK, &before, NULL);
    unsetenv("TG_TEST_PROVIDER_KEY");
    close(p[0]);
    close(p[1]);
    fixture_close(f);
}

static void causes_are_told(void **state) {
    (void)state;
    char text[96];
    assert_string_equal(spawn_cause(3 << 8, text, sizeof text), "exit status 3");
    assert_string_equal(spawn_cause(SIGKILL, text, sizeof text), "killed by signal 9 (Killed)");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_once_in_order),
        cmocka_unit_test(back_off_grows_and_is_forgotten),
        cmocka_unit_test(log_lines_are_one_line),
        cmocka_unit_test(log_appends_and_is_not_for_all),
        cmocka_unit_test(systemd_is_notified),
        cmocka_unit_test(names_are_of_a_kind),
        cmocka_unit_test(literals_need_no_resolver),
        cmocka_unit_test(names_are_resolved_by_the_helper),
        cmocka_unit_test(a_child_keeps_only_what_it_is_given),
        cmocka_unit_test(causes_are_told),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
