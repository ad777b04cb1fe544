/* Reports of usage: lists and sums against what was charged, before and after checkpoints and restarts. */
#include "tests/unit/ledger_asserts.h"
#include "master/ledger/usage.h"

struct known { uint32_t account, key, model; };
static const char *const searched_models[] = { "gpt-4o", "mini", "fam/a", "fam/b", "fam/never", "nowhere" };

/* What a search must give: ids of the newest `limit` records below the cursor that fit. */
static size_t expected(const struct known *all, uint64_t newest, const struct known *want, uint64_t cursor, uint64_t *out,
                       size_t limit) {
    size_t n = 0;
    for (uint64_t id = cursor && cursor <= newest ? cursor - 1 : newest; id > 0 && n < limit; id--)
        if ((!want->account || all[id].account == want->account) && (!want->key || all[id].key == want->key) &&
            (want->model == UINT32_MAX || all[id].model == want->model))
            out[n++] = id;
    return n;
}

enum { RECORDS = 60000, LIMIT = 20, ASKED = 600, KEYS = 5 };
static uint32_t dice(uint32_t *seed) { return *seed = *seed * 1664525 + 1013904223; }

/* Five keys: two of the first account, two of the second, one of the third. */
static void make_keys(struct rig *r, struct tenant *t) {
    for (int i = 0; i < KEYS; i++) {
        char email[24];
        snprintf(email, sizeof email, "a%d@x.y", i / 2);
        if (i % 2 == 0) {
            t[i] = rig_tenant(r, email, "1000000", NULL);
            continue;
        }
        struct json j = rig_call(r, "{'cmd':'key.create','account':'%s'}", email);
        t[i] = t[i - 1];
        t[i].key = ledger_key_index(&r->l, (uint32_t)rig_id(rig_at(r, &j, "result.id")));
    }
}

/* Calls of all of them, some keys and models often, some rarely, some for a while only. */
static void make_calls(struct rig *r, const struct tenant *t, struct known *all, uint32_t *seed) {
    for (uint64_t id = 1; id <= RECORDS; id++) {
        uint32_t d = dice(seed);
        unsigned who = d >> 28 < 9 ? 0 : d >> 28 < 14 ? (id / 8000 % 2 ? 1 : 2) : d >> 20 & 15 ? 3 : 4;
        unsigned model = id / 20000 == 1 ? 0 : d >> 12 & 63 ? 0 : d >> 8 & 7 ? 1 : d >> 7 & 1 ? 2 : 3;
        all[id] = (struct known){ r->l.accounts[t[who].account].id, r->l.keys[t[who].key].id, model };
        assert_true(rig_charge(r, 0, &t[who], searched_models[model], 10));
        if (id % 500 == 0) assert_int_equal(drain_commit(&r->l), STORE_OK);
    }
}

/* A search for anything; *want and *cursor: what it is for. */
static void make_search(struct rig *r, const struct tenant *t, uint32_t *seed, struct known *want, uint64_t *cursor,
                        char *text, size_t n) {
    uint32_t d[4];
    char id[ID_TEXT];
    for (int i = 0; i < 4; i++) d[i] = dice(seed) >> 16;
    const struct tenant *one = &t[d[0] % KEYS];
    *want = (struct known){ 0, 0, d[1] % 4 == 0 ? UINT32_MAX : d[1] / 4 % ARRAY_LEN(searched_models) };
    size_t at = (size_t)snprintf(text, n, "{'cmd':'usage','limit':%d", LIMIT);
    if (d[0] / 5 % 3 != 0) {
        want->account = r->l.accounts[one->account].id;
        at += (size_t)snprintf(text + at, n - at, ",'account':'%s'", one->account_id);
    }
    if (d[0] / 15 % 2) {
        want->key = r->l.keys[one->key].id;
        id_write(id, ID_KEY, want->key);
        at += (size_t)snprintf(text + at, n - at, ",'key':'%s'", id);
    }
    if (want->model != UINT32_MAX)
        at += (size_t)snprintf(text + at, n - at, ",'model':'%s'", searched_models[want->model]);
    *cursor = d[2] % 3 ? 1 + (uint64_t)d[3] * 97 % (RECORDS + 100) : 0;
    if (*cursor) {
        id_write(id, ID_USAGE, *cursor);
        at += (size_t)snprintf(text + at, n - at, ",'cursor':'%s'", id);
    }
    snprintf(text + at, n - at, "}");
}

static void expect_found(struct rig *r, const char *text, const uint64_t *ids, size_t n) {
    struct json j = rig_call(r, "%s", text);
    int list = rig_array(&j, "usage");
    size_t got = 0;
    for (int u = json_first(&j, list); u >= 0; u = json_next(&j, list, u), got++) {
        char id[ID_TEXT];
        id_write(id, ID_USAGE, got < n ? ids[got] : 0);
        if (!json_str_is(&j, json_get(&j, u, "id"), id)) fail_msg("%s: record %zu is not %s", text, got, id);
    }
    if (got != n) fail_msg("%s: %zu records, not %zu", text, got, n);
    arena_reset(&r->arena);
}

/* Whatever is asked for, with and without the index of spans: what a plain look at all records finds. */
static void searches(void **state) {
    struct rig *r = *state;
    struct known *all = calloc(RECORDS + 1, sizeof *all), want;
    struct tenant t[KEYS];
    uint32_t seed = 1;
    make_keys(r, t);
    make_calls(r, t, all, &seed);
    for (int indexed = 0; indexed < 2; indexed++) {
        for (int i = 0; i < ASKED; i++) {
            char text[300];
            uint64_t cursor, ids[LIMIT];
            make_search(r, t, &seed, &want, &cursor, text, sizeof text);
            expect_found(r, text, ids, expected(all, RECORDS, &want, cursor, ids, LIMIT));
        }
        assert_int_equal(checkpoint_commit(&r->l), STORE_OK);
    }
    assert_int_equal(store_read_begin(&r->l.store), STORE_OK);
    assert_int_equal(span_written(&r->l.store), RECORDS / SPAN_RECORDS);
    store_read_end(&r->l.store);
    assert_int_equal(rig_audit(r), 0);
    free(all);
}

static enum store_err append_block(struct store *s, void *arg) {
    struct packer *p = arg;
    static uint8_t out[PACK_BLOCK + 2048];
    struct id_key key = key64(p->first_id);
    size_t len = pack_end(p, out);
    return store_append(s, DB_USAGE, ID_SLICE(key), slice_of((char *)out, len));
}

/* Books a call of the first account and key that ended then, as if it had been committed then. */
static void book_in_the_past(struct rig *r, int64_t time_ms, int64_t committed_ms) {
    static struct packer p;
    struct usage_item u = { .id = r->l.next_usage, .prev_account = r->l.next_usage - 1, .prev_key = r->l.next_usage - 1,
                            .account_id = 1, .key_id = 1, .model_id = 1, .upstream_id = 1, .charge = 1,
                            .cost_usd_nano = 1, .time_ms = time_ms, .status = 200, .model = SLICE("mini") };
    pack_begin(&p, u.id, committed_ms);
    assert_true(pack_add(&p, &u));
    assert_int_equal(store_write(&r->l.store, append_block, &p), STORE_OK);
    r->l.next_usage++;
    assert_int_equal(checkpoint_replay(&r->l, true), STORE_OK);
    assert_int_equal(checkpoint_commit(&r->l), STORE_OK);
}

/* A record that was committed after midnight and ended before it is found, wherever the roll-ups say that the search
 * begins: here the next record by time is an older one by number. */
static void late_records(void **state) {
    enum { MINUTE = 60000 };
    struct rig *r = *state;
    int64_t midnight = (int64_t)day_of(ledger_wall_ms() - 10 * DAY_MS) * DAY_MS;
    (void)rig_tenant(r, "a@a.a", "1", NULL);
    book_in_the_past(r, midnight + 5 * MINUTE, midnight + 5 * MINUTE);
    book_in_the_past(r, midnight - 10 * MINUTE, midnight + 10 * MINUTE);
    for (int days = 0; days < 5; days++) {
        char until[40];
        time_format(until, midnight + days * DAY_MS, false);
        struct json j = rig_call(r, "{'cmd':'usage','account':'a@a.a','until':'%s'}", until);
        IS(j, "result.usage.0.id", "use_0000000002");
        IS(j, "result.usage.1.id", days ? "use_0000000001" : "");
    }
    restart(r, false, true); /* the words know of it too */
    assert_int_equal(rig_audit(r), 0);
}

static void expect_count(struct rig *r, unsigned n, const char *call) {
    struct json j = rig_call(r, "%s", call);
    if (json_size(&j, rig_array(&j, "usage")) != n) fail_msg("%s: not %u in %.*s", call, n, (int)j.len, j.text);
}

static void expect_lists(struct rig *r, const struct tenant *u) {
    struct json j = rig_call(r, "{'cmd':'usage','account':'a@a.a','limit':3}");
    IS(j, "result.usage.0.cost", "0.000000188");
    IS(j, "result.usage.0.model", "mini");
    IS(j, "result.usage.0.upstream", "echo");
    IS(j, "result.usage.0.request_id", "req-x");
    IS(j, "result.usage.0.input_tokens", "10");
    IS(j, "result.usage.0.output_tokens", "20");
    IS(j, "result.usage.0.dialect", "openai");
    IS(j, "result.usage.2.cost", "0.000000184");
    IS(j, "result.usage.3.cost", "");
    char cursor[64], call[128];
    unsigned n = 3;
    for (;;) {
        snprintf(cursor, sizeof cursor, "%.*s", SLICE_ARG(rig_at(r, &j, "result.next_cursor")));
        if (strcmp(cursor, "null") == 0) break;
        j = rig_call(r, "{'cmd':'usage','account':'a@a.a','limit':20,'cursor':'%s'}", cursor);
        n += json_size(&j, rig_array(&j, "usage"));
    }
    assert_int_equal(n, 45);
    expect_count(r, 90, "{'cmd':'usage','limit':1000}");
    snprintf(call, sizeof call, "{'cmd':'usage','key':'%s','model':'gpt-4o','limit':100}", u->key_id);
    expect_count(r, 15, call);
    expect_count(r, 30, "{'cmd':'usage','model':'fam/x','limit':5000,'since':'1h'}");
    expect_count(r, 0, "{'cmd':'usage','until':'2020-01-01'}");
    expect_count(r, 0, "{'cmd':'usage','account':'a@a.a','since':'2999-01-01'}");
}

/* Whatever part of the days the filter leaves whole. */
static void expect_sums(struct rig *r, const struct tenant *t, const struct tenant *u, const char *filter) {
    struct json j = rig_call(r, "{'cmd':'usage','by':'account'%s}", filter);
    IS(j, "result.usage.0.account", t->account_id);
    IS(j, "result.usage.0.requests", "45");
    IS(j, "result.usage.0.cost", "0.00000648");
    IS(j, "result.usage.1.output_tokens", "900");
    j = rig_call(r, "{'cmd':'usage','by':'model','account':'b@b.b'%s}", filter);
    assert_int_equal(json_size(&j, rig_array(&j, "usage")), 3);
    IS(j, "result.usage.2.requests", "15");
    j = rig_call(r, "{'cmd':'usage','by':'day','key':'%s'%s}", u->key_id, filter);
    IS(j, "result.usage.0.requests", "45");
    j = rig_call(r, "{'cmd':'usage','by':'day','model':'fam/x'%s}", filter);
    IS(j, "result.usage.0.requests", "30");
    j = rig_call(r, "{'cmd':'usage','by':'day','model':'mini'%s}", filter);
    IS(j, "result.usage.0.requests", "30");
}

static void charges_and_usage(void **state) {
    static const char *const models[] = { "gpt-4o", "mini", "fam/x" };
    static const char *const filters[] = { "", ",'since':'1h'", ",'since':'2020-01-01'", ",'until':'2999-01-01'",
                                           ",'since':'400d'" };
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "1", "0.5"), u = rig_tenant(r, "b@b.b", "1", NULL);
    for (int i = 0; i < 90; i++) {
        assert_true(rig_charge(r, i % 2, i % 2 ? &u : &t, models[i % 3], 100 + i));
        if (i % 17 == 0) rig_commit(r);
    }
    rig_commit(r);
    struct json j = rig_call(r, "{'cmd':'balance','account':'a@a.a'}");
    IS(j, "result.balance", "0.99999352"); /* 1 − Σ (100 + even i) nano */
    IS(j, "result.held", "0");
    j = rig_call(r, "{'cmd':'key.show','key':'%s'}", t.key_id);
    IS(j, "result.spent", "0.00000648");
    assert_int_equal(atomic_load(&r->shm.key_words[t.key].available), 500000000 - 6480);
    for (int round = 0; round < 3; round++) {
        expect_lists(r, &u);
        for (size_t f = 0; f < ARRAY_LEN(filters); f++) expect_sums(r, &t, &u, filters[f]);
        assert_int_equal(rig_audit(r), 0);
        if (round == 0) assert_int_equal(checkpoint_commit(&r->l), STORE_OK); /* the sums now come from roll-ups */
        if (round == 1) restart(r, false, true);
    }
    static const char *const bad[] = { "'by':'hour'", "'since':'soon'", "'cursor':'12'" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        j = rig_call(r, "{'cmd':'usage',%s}", bad[i]);
        REFUSED(j, "invalid_value");
    }
}

/* A reader process that ends leaves its place in the database's table of readers: that must not fill up. */
static void many_reports(void **state) {
    struct rig *r = *state;
    (void)rig_tenant(r, "a@x.y", "1", NULL);
    for (int i = 0; i < 150; i++) {
        struct json j = rig_call(r, "{'cmd':'usage','by':'day'}");
        if (rig_array(&j, "usage") < 0)
            fail_msg("report %d: %.*s", i, (int)j.len, j.text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(searches),
        TEST(late_records),
        TEST(charges_and_usage),
        TEST(many_reports),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
