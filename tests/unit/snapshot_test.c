/* The snapshot: what conf_snapshot puts in and the readers of shm/snapshot.c find, who gets which secret, and that no damaged blob is taken
 * for a whole one (under the sanitizers a read past its end would show). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <stdlib.h>
#include "master/conf_tree.h"

struct names { char name[64][80]; uint32_t count; };
static struct names names;

/* Ids as the ledger gives them: by name, for ever; 1, 2, 3. */
static uint32_t id_of(void *arg, enum name_kind kind, const char *name) {
    struct names *n = arg;
    char key[80];
    snprintf(key, sizeof key, "%d:%s", kind, name);
    for (uint32_t i = 0; i < n->count; i++) if (strcmp(n->name[i], key) == 0) return i + 1;
    assert_true(n->count < 64);
    strcpy(n->name[n->count++], key);
    return n->count;
}
static uint32_t series_of(void *arg, uint32_t model_id, uint32_t upstream_id) { (void)arg; return (model_id * 16 + upstream_id) % SHM_MAX_SERIES; }
static const struct conf_ids ids = { &names, id_of, series_of };

static struct snap *make(const char *path, const char *text, bool for_ledger, size_t *bytes) {
    char *errors;
    size_t len, n;
    FILE *f = open_memstream(&errors, &len);
    struct conf *c = path ? conf_load(path, f) : conf_load_text("text", slice_str(text), f);
    fclose(f);
    if (!c) fail_msg("%s", errors);
    free(errors);
    struct snap *s = conf_snapshot(c, &ids, 42, for_ledger, bytes ? bytes : &n);
    assert_non_null(s);
    assert_true(snap_valid(s, bytes ? *bytes : n));
    conf_free(c);
    return s;
}

static bool text_is(const struct snap *s, struct snap_str t, const char *expected) {
    return slice_is(snap_text(s, t), expected) && ((const char *)s)[t.off + t.len] == 0;
}
#define assert_text(s, t, expected) do { if (!text_is(s, t, expected)) fail_msg("`%.*s` is not `%s`", SLICE_ARG(snap_text(s, t)), expected); } while (0)

static int set_up(void **state) {
    (void)state;
    setenv("CONF_TEST_TOKEN", "token-hunter3", 1);
    setenv("CONF_TEST_KEY", "sk-hunter3", 1);
    return 0;
}

static void test_everything(void **state) {
    (void)state;
    struct snap *s = make("tests/conf/good/everything.conf", NULL, false, NULL);
    assert_int_equal(s->generation, 42);
    assert_true(s->loaded_at_ms > 1700000000000);
    assert_int_equal(s->listens.count, 6);
    const struct snap_listen *l = SNAP_AT(s, s->listens, struct snap_listen, 2);
    assert_text(s, l->address, "[::]:8082");
    assert_true(l->tls && l->proxy_protocol && !l->admin);
    assert_true(SNAP_AT(s, s->listens, struct snap_listen, 5)->admin);
    assert_int_equal(s->max_body, 65536);
    assert_int_equal(s->keepalive_timeout_ms, 120000);
    assert_int_equal(s->stream_ping_ms, 0);
    assert_int_equal(s->abort_finish, 1);
    assert_int_equal(s->log_level, LOG_DEBUG);
    assert_text(s, s->error_log, "/var/log/e.log");
    assert_text(s, s->key_prefix, "hjl_sk_");
    assert_text(s, s->error_code, "HJL-%d");
    assert_int_equal(s->upstream_error_status, 503);
    assert_int_equal(s->revoked_key_status, 401);
    assert_int_equal(s->usage_cost, 0);
    assert_int_equal(s->unit_tokens, 1);
    assert_int_equal(s->hold_share_millionths, 250000);
    assert_int_equal(s->signup_credit, 1000000);
    assert_int_equal(s->signup_rate_per_h, 600);
    assert_int_equal(s->jwt_ttl_s, 30 * 86400);
    const struct snap_tier *t = snap_tier_by_id(s, s->signup_tier_id);
    assert_text(s, t->name, "free");
    assert_true(t->rpm.limit == 20 && t->rpm.burst == 5 && t->tpm.burst == 40000 && t->images_rpm.limit == 0 && t->concurrency == 5);
    assert_text(s, t->models, "gpt-*,claude-*,o3,llama*");
    assert_text(s, snap_tier_by_id(s, 60)->name, "default");
    assert_int_equal(snap_group_by_id(s, s->signup_group_id)->ratio_millionths, 850000);
    assert_int_equal(snap_group_by_id(s, 60)->ratio_millionths, 1000000);
    assert_text(s, snap_group_by_id(s, 60)->models, "*");
    free(s);
}

static void test_upstreams(void **state) {
    (void)state;
    struct snap *s = make("tests/conf/good/everything.conf", NULL, false, NULL);
    const struct snap_upstream *u = SNAP_AT(s, s->upstreams, struct snap_upstream, 0);
    assert_ptr_equal(snap_upstream_by_id(s, u->id), u);
    assert_null(snap_upstream_by_id(s, 200));
    assert_int_equal(u->dialect, DIALECT_GEMINI);
    assert_int_equal(u->tls, 1);
    assert_text(s, u->host, "api.example.com");
    assert_text(s, u->host_header, "api.example.com:8443");
    assert_text(s, u->base_path, "/v1beta");
    assert_int_equal(u->port, 8443);
    assert_int_equal(u->auth, AUTH_API_KEY);
    assert_int_equal(u->keys.count, 2);
    assert_text(s, *SNAP_AT(s, u->keys, struct snap_str, 1), "sk-from-file");
    assert_text(s, SNAP_AT(s, u->headers, struct snap_pair, 1)->value, "token-hunter3");
    assert_int_equal(u->tls_max, 12);
    assert_true(SNAP_AT(s, s->cas, struct snap_ca, u->ca)->pem.len > 0);
    u = SNAP_AT(s, s->upstreams, struct snap_upstream, 1);
    assert_text(s, u->host, "2001:db8::1");
    assert_text(s, u->host_header, "[2001:db8::1]");
    assert_int_equal(u->host_is_address, 1);
    assert_int_equal(u->port, 80);
    assert_int_equal(u->tls_max, 13);
    assert_int_equal(u->auth, AUTH_BEARER);
    free(s);
    s = make(NULL, "upstream a { dialect anthropic; base_url http://h:80/x/; } upstream g { dialect gemini; base_url https://1.2.3.4:443; }", false, NULL);
    u = SNAP_AT(s, s->upstreams, struct snap_upstream, 0);
    assert_int_equal(u->auth, AUTH_X_API_KEY);
    assert_text(s, u->host_header, "h");
    assert_text(s, u->base_path, "/x");
    u = SNAP_AT(s, s->upstreams, struct snap_upstream, 1);
    assert_int_equal(u->auth, AUTH_X_GOOG_API_KEY);
    assert_int_equal(u->host_is_address, 1);
    assert_text(s, u->host_header, "1.2.3.4");
    assert_text(s, u->base_path, "");
    free(s);
}

static void test_model(void **state) {
    (void)state;
    struct snap *s = make("tests/conf/good/everything.conf", NULL, false, NULL);
    const struct snap_model *m = snap_find_model(s, SLICE("gpt-4o"));
    assert_non_null(m);
    assert_ptr_equal(m, snap_find_model(s, SLICE("gpt4o")));
    assert_ptr_equal(m, snap_find_model(s, SLICE("gpt-4o@x")));
    assert_ptr_equal(m, snap_model_by_id(s, m->id));
    assert_null(snap_find_model(s, SLICE("gpt-4")));
    assert_null(snap_find_model(s, SLICE("")));
    static const uint64_t prices[METER_COUNT] = { [METER_INPUT] = 2750000, [METER_CACHED_INPUT] = 1375000, [METER_CACHE_WRITE] = 3000000, [METER_CACHE_WRITE_1H] = 4000000,
        [METER_AUDIO_INPUT] = 5000000, [METER_IMAGE_INPUT] = 7000000, [METER_OUTPUT] = 11000000, [METER_REASONING] = 9000000, [METER_AUDIO_OUTPUT] = 6000000,
        [METER_IMAGE_OUTPUT] = 8000000, [METER_IMAGES] = 0 };
    assert_memory_equal(m->prices.per_million, prices, sizeof prices);
    assert_int_equal(m->weights.per_million[METER_CACHED_INPUT], 1000000);
    assert_int_equal(m->weights.per_million[METER_REASONING], 4500000);
    assert_int_equal(m->weights.per_million[METER_IMAGES], 1000000000);
    assert_int_equal(m->tool_per_million[TOOL_WEB_SEARCH], 10000000000); /* 0.01 USD each */
    assert_int_equal(m->tool_per_million[TOOL_CODE_EXECUTION], 30000000000);
    assert_int_equal(m->tool_per_million[TOOL_FILE_SEARCH], 0);
    assert_int_equal(m->call_cap_nano, 1);
    assert_int_equal(m->flags, MODEL_TOOLS | MODEL_VISION | MODEL_REASONING | MODEL_STREAMING);
    assert_text(s, m->limit_field, "max_tokens");
    assert_int_equal(m->routes.count, 3);
    static const struct { const char *as; uint32_t upstream, weight, priority; } routes[] = { { "gpt-4o-2024", 0, 10, 0 }, { "gpt-4o", 1, 3, 2 }, { "od d", 2, 1, 9 } };
    for (uint32_t i = 0; i < 3; i++) {
        const struct snap_route *r = SNAP_AT(s, m->routes, struct snap_route, i);
        assert_text(s, r->as, routes[i].as);
        assert_true(r->upstream == routes[i].upstream && r->weight == routes[i].weight && r->priority == routes[i].priority);
        assert_int_equal(r->series, series_of(NULL, m->id, SNAP_AT(s, s->upstreams, struct snap_upstream, r->upstream)->id));
    }
    assert_text(s, *SNAP_AT(s, m->strip, struct snap_str, 1), "top_p");
    assert_text(s, SNAP_AT(s, m->budgets, struct snap_pair, 1)->value, "4000");
    free(s);
}

static void test_prices_fill(void **state) {
    (void)state;
    struct snap *s = make(NULL, "upstream e { dialect echo; } model m { route e; price input 2 output 8 cache_write 3; context 9; max_output 9; }"
                                "model f { route e priority 2 as b; route e priority 1 as a; route e priority 2 as c; price free; }", false, NULL);
    const struct snap_model *m = snap_find_model(s, SLICE("m"));
    for (unsigned i = 0; i < METER_COUNT; i++)
        assert_int_equal(m->prices.per_million[i], i == METER_IMAGES ? 0 : i == METER_CACHE_WRITE ? 3000000 : i < METER_OUTPUT ? 2000000 : 8000000);
    assert_int_equal(m->price_given, 1 << METER_INPUT | 1 << METER_OUTPUT | 1 << METER_CACHE_WRITE);
    assert_int_equal(m->weights.per_million[METER_INPUT], 1000000);
    assert_true(m->call_cap_nano == SNAP_NO_AMOUNT);
    assert_text(s, m->owned_by, "e");
    m = snap_find_model(s, SLICE("f"));
    assert_true(m->flags & MODEL_FREE);
    for (unsigned i = 0; i < METER_COUNT; i++) assert_true(m->prices.per_million[i] == 0 && m->weights.per_million[i] == 0);
    assert_text(s, SNAP_AT(s, m->routes, struct snap_route, 0)->as, "a"); /* by priority, then as written */
    assert_text(s, SNAP_AT(s, m->routes, struct snap_route, 1)->as, "b");
    assert_text(s, SNAP_AT(s, m->routes, struct snap_route, 2)->as, "c");
    free(s);
}

static void test_image_prices(void **state) {
    (void)state;
    struct snap *s = make("tests/conf/good/everything.conf", NULL, false, NULL);
    const struct snap_model *m = snap_find_model(s, SLICE("pictures"));
    static const struct { const char *size, *quality; uint64_t usd_millionths; } cases[] = {
        { "1024x1792", "hd", 120000 }, { "1024x1792", "standard", 40000 }, { "1024x1792", "", 40000 }, { "512x512", "hd", 20000 }, { "256x256", "hd", 80000 }, { "", "", 40000 } };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t n = 0;
        assert_true(snap_image_price(s, m, slice_str(cases[i].size), slice_str(cases[i].quality), &n));
        assert_int_equal(n, cases[i].usd_millionths * 1000000);
    }
    assert_int_equal(m->prices.per_million[METER_IMAGES], 40000000000);
    uint64_t n;
    assert_false(snap_image_price(s, snap_find_model(s, SLICE("gpt-4o")), SLICE("1x1"), SLICE("hd"), &n));
    assert_int_equal(m->kind, MODEL_IMAGE);
    assert_true(m->n_max == 4 && m->prompt_max == 4000 && m->sizes.count == 2 && m->qualities.count == 2);
    free(s);
}

static void test_families(void **state) {
    (void)state;
    struct snap *s = make("tests/conf/good/families.conf", NULL, false, NULL);
    const struct snap_model *any = snap_find_model(s, SLICE("whatever")), *router = snap_find_model(s, SLICE("openrouter/x/y")), *vendor = snap_find_model(s, SLICE("vendor/"));
    assert_text(s, any->name, "");
    assert_text(s, router->name, "openrouter/");
    assert_text(s, vendor->name, "vendor/");
    assert_true(any->flags & MODEL_FAMILY);
    assert_ptr_equal(snap_find_model(s, SLICE("vendor")), any);
    assert_ptr_equal(snap_find_model(s, SLICE("")), any);
    assert_text(s, SNAP_AT(s, router->routes, struct snap_route, 0)->as, "*");
    assert_text(s, SNAP_AT(s, vendor->routes, struct snap_route, 0)->as, "vendor/*"); /* without `as` the whole name goes on */
    free(s);
}

/* For more names than the test's little table holds. */
static uint32_t id_one(void *arg, enum name_kind kind, const char *name) { (void)arg; (void)kind; (void)name; return 1; }

/* Many names: each found, by the hash the builder used. */
static void test_many_names(void **state) {
    (void)state;
    char *text, *errors;
    size_t len, n;
    FILE *f = open_memstream(&text, &len), *e = open_memstream(&errors, &n);
    fputs("upstream e { dialect echo; }\n", f);
    for (int i = 0; i < 3000; i++) fprintf(f, "model m%d { route e; price free; alias a%d b/%d; }\n", i, i, i);
    fclose(f);
    struct conf *c = conf_load_text("text", slice_of(text, len), e);
    fclose(e);
    assert_non_null(c);
    free(text);
    free(errors);
    static const struct conf_ids same = { NULL, id_one, series_of };
    struct snap *s = conf_snapshot(c, &same, 1, false, &n);
    assert_true(snap_valid(s, n));
    for (uint32_t i = 0; i < 3000; i++) {
        char name[3][16];
        snprintf(name[0], sizeof name[0], "m%u", i);
        snprintf(name[1], sizeof name[1], "a%u", i);
        snprintf(name[2], sizeof name[2], "b/%u", i);
        for (int k = 0; k < 3; k++) assert_ptr_equal(snap_find_model(s, slice_str(name[k])), SNAP_AT(s, s->models, struct snap_model, i));
    }
    assert_null(snap_find_model(s, SLICE("m3000")));
    free(s);
    conf_free(c);
}
static bool holds(const void *blob, size_t n, const char *text) { return memmem(blob, n, text, strlen(text)) != NULL; }

static void test_who_gets_secrets(void **state) {
    (void)state;
    size_t n;
    struct snap *s = make("tests/conf/good/literal_secrets.conf", NULL, false, &n);
    assert_true(holds(s, n, "sk-hunter2"));
    assert_false(holds(s, n, "hunter2 with spaces")); /* jwt_secret */
    assert_int_equal(s->jwt_secret.len, 0);
    assert_int_equal(s->admin_token.len, 0);
    free(s);
    s = make("tests/conf/good/literal_secrets.conf", NULL, true, &n);
    assert_false(holds(s, n, "sk-hunter2"));
    assert_true(holds(s, n, "hunter2 with spaces"));
    assert_text(s, s->jwt_secret, "hunter2 with spaces");
    assert_text(s, s->admin_token, "hunter2hunter2");
    free(s);
    s = make("tests/conf/good/everything.conf", NULL, true, &n);
    assert_false(holds(s, n, "PRIVATE KEY"));
    assert_false(holds(s, n, "BEGIN CERTIFICATE"));
    assert_false(holds(s, n, "sk-hunter3"));
    free(s);
    s = make("tests/conf/good/everything.conf", NULL, false, &n);
    assert_true(holds(s, n, "PRIVATE KEY"));
    free(s);
}

static void test_globs(void **state) {
    (void)state;
    struct snap *s = make("tests/conf/good/everything.conf", NULL, false, NULL);
    struct snap_str globs = snap_tier_by_id(s, s->signup_tier_id)->models; /* gpt-*,claude-*,o3,llama* */
    assert_true(snap_globs_allow(s, globs, SLICE("gpt-4o")));
    assert_true(snap_globs_allow(s, globs, SLICE("o3")));
    assert_true(snap_globs_allow(s, globs, SLICE("llama")));
    assert_false(snap_globs_allow(s, globs, SLICE("o3-mini")));
    assert_false(snap_globs_allow(s, globs, SLICE("")));
    free(s);
}

static bool trusted(const struct snap *s, const char *address) {
    uint8_t bytes[16];
    bool v6 = strchr(address, ':');
    assert_int_equal(inet_pton(v6 ? AF_INET6 : AF_INET, address, bytes), 1);
    return snap_cidr_match(s, s->trusted_proxies, v6 ? 6 : 4, bytes);
}
static void test_cidrs(void **state) {
    (void)state;
    struct snap *s = make(NULL, "trusted_proxies 127.0.0.1 10.1.2.3/8 192.168.5.128/25 fd00::1/9 2001:db8::7;", false, NULL);
    static const char *const in[] = { "127.0.0.1", "10.255.0.1", "192.168.5.128", "192.168.5.255", "fd00::", "fd7f::1", "2001:db8::7", "::ffff:10.0.0.1" };
    static const char *const out[] = { "127.0.0.2", "11.0.0.1", "192.168.5.127", "fd80::", "fc00::1", "2001:db8::8", "::ffff:11.0.0.1", "::1" };
    for (size_t i = 0; i < ARRAY_LEN(in); i++) if (!trusted(s, in[i])) fail_msg("%s is not trusted", in[i]);
    for (size_t i = 0; i < ARRAY_LEN(out); i++) if (trusted(s, out[i])) fail_msg("%s is trusted", out[i]);
    free(s);
    s = make(NULL, "trusted_proxies 0.0.0.0/0;", false, NULL);
    assert_true(trusted(s, "8.8.8.8"));
    assert_false(trusted(s, "::1"));
    free(s);
    s = make(NULL, "", false, NULL);
    assert_false(trusted(s, "127.0.0.1"));
    free(s);
}

/* A listener keeps its id over a reload; another option makes another listener. */
static void test_listener_ids(void **state) {
    (void)state;
    struct snap *a = make(NULL, "listen 80; listen 81 proxy_protocol; admin_listen 82;", false, NULL);
    struct snap *b = make(NULL, "listen 81; listen 0.0.0.0:80; listen 82;", false, NULL);
    uint64_t id[2][3];
    for (uint32_t i = 0; i < 3; i++) { id[0][i] = SNAP_AT(a, a->listens, struct snap_listen, i)->id; id[1][i] = SNAP_AT(b, b->listens, struct snap_listen, i)->id; }
    assert_true(id[0][0] == id[1][1]);
    assert_true(id[0][1] != id[1][0]);
    assert_true(id[0][2] != id[1][2]);
    free(a);
    free(b);
    a = make(NULL, "", false, NULL);
    assert_int_equal(a->listens.count, 1);
    assert_text(a, SNAP_AT(a, a->listens, struct snap_listen, 0)->address, "127.0.0.1:8080");
    free(a);
}

/* ---- damage ---- */

/* Everything a reader may follow. */
static void read_all(const struct snap *s) {
    uint64_t n;
    snap_find_model(s, SLICE("gpt-4o"));
    snap_find_model(s, SLICE("openrouter/x"));
    SNAP_EACH(s, s->models, struct snap_model, m) snap_image_price(s, m, SLICE("1x1"), SLICE("hd"), &n);
    SNAP_EACH(s, s->tiers, struct snap_tier, t) snap_globs_allow(s, t->models, SLICE("a"));
    SNAP_EACH(s, s->upstreams, struct snap_upstream, u) SNAP_EACH(s, u->keys, struct snap_str, k) slice_eq(snap_text(s, *k), SLICE("sk-hunter3"));
    snap_cidr_match(s, s->trusted_proxies, 6, (const uint8_t[16]){ 0xfd });
    snap_tier_by_id(s, 1);
    snap_group_by_id(s, 1);
}

static void test_damage(void **state) {
    (void)state;
    size_t bytes;
    struct snap *whole = make("tests/conf/good/everything.conf", NULL, false, &bytes);
    assert_false(snap_valid(NULL, 0));
    for (size_t n = 0; n < bytes; n++) { /* cut, and said to be as long as it was cut to */
        struct snap *cut = malloc(n ? n : 1);
        assert_non_null(cut);
        memcpy(cut, whole, n);
        assert_false(snap_valid(cut, n));
        if (n >= sizeof *cut) cut->bytes = n;
        if (n >= sizeof *cut && snap_valid(cut, n)) read_all(cut);
        free(cut);
    }
    static const uint32_t wrong[] = { 0, 1, 7, 0xfffffff8, 0xffffffff, 0x7fffffff };
    char *copy = malloc(bytes);
    assert_non_null(copy);
    unsigned refused = 0;
    for (size_t at = 0; at + 4 <= bytes; at += 4)
        for (size_t w = 0; w < ARRAY_LEN(wrong); w++) {
            uint32_t value = wrong[w] == 7 ? (uint32_t)bytes - 1 : wrong[w];
            memcpy(copy, whole, bytes);
            memcpy(copy + at, &value, 4);
            if (snap_valid(copy, bytes)) read_all((const struct snap *)(const void *)copy);
            else refused++;
        }
    assert_true(refused > 500);
    struct snap *s = (struct snap *)(void *)copy;
    memcpy(copy, whole, bytes);
    s->layout++;
    assert_false(snap_valid(copy, bytes));
    memcpy(copy, whole, bytes); /* a table without an empty place: a search would not end */
    for (uint32_t i = 0; i < s->names.count; i++) {
        struct snap_name *n = (struct snap_name *)(void *)(copy + s->names.off) + i;
        if (!n->hash) *n = (struct snap_name){ i + 1, 0, 0, s->key_prefix };
    }
    assert_false(snap_valid(copy, bytes));
    free(copy);
    free(whole);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything), cmocka_unit_test(test_upstreams), cmocka_unit_test(test_model), cmocka_unit_test(test_prices_fill),
        cmocka_unit_test(test_image_prices), cmocka_unit_test(test_families), cmocka_unit_test(test_many_names), cmocka_unit_test(test_who_gets_secrets),
        cmocka_unit_test(test_globs), cmocka_unit_test(test_cidrs), cmocka_unit_test(test_listener_ids), cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
