/* The ledger in process: every call, group commits, restarts at bad moments, forged records, a full disk, audits that
 * must find what is wrong, backups that must be whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <sys/wait.h>
#include "master/ledger_usage.h"
#include "tests/unit/ledger_fixture.h"

#define IS(j, path, want_)                                                                                             \
    do {                                                                                                               \
        struct slice is_ = rig_at(r, &(j), path);                                                                      \
        if (!slice_is(is_, want_))                                                                                     \
            fail_msg("%s is \"%.*s\", not \"%s\" in %.*s", path, SLICE_ARG(is_), want_, (int)(j).len, (j).text);       \
    } while (0)
#define REFUSED(j, code) IS(j, "error.code", code)

static int setup(void **state) {
    struct rig *r = malloc(sizeof *r);
    rig_init(r);
    if (!rig_start(r)) return -1;
    *state = r;
    return 0;
}
static int teardown(void **state) {
    rig_stop(*state, true);
    rig_remove(*state);
    free(*state);
    return 0;
}
static void restart(struct rig *r, bool clean, bool new_segment) {
    rig_stop(r, clean);
    if (new_segment) unlink(r->segment);
    assert_true(rig_start(r));
}
static int64_t nano(const char *text) {
    int64_t v;
    assert_true(fixed_parse(slice_str(text), 9, &v));
    return v;
}

static void accounts(void **state) {
    struct rig *r = *state;
    struct json j = rig_call(
        r, "{'cmd':'account.create','email':' Some.One@Example.COM ','tier':'free','group':'resale','credit':'5.25'}");
    IS(j, "result.id", "acct_00000001");
    IS(j, "result.email", "some.one@example.com");
    IS(j, "result.tier", "free");
    IS(j, "result.group", "resale");
    IS(j, "result.status", "active");
    IS(j, "result.balance", "5.25");
    IS(j, "result.held", "0");
    struct shm_account a;
    assert_true(shm_account_read(&r->shm, 0, &a));
    assert_int_equal(a.id, 1);
    assert_int_equal(a.tier_id, rig_name_id(r, NAME_TIER, "free"));
    j = rig_call(r, "{'cmd':'account.create','email':'some.one@example.com'}");
    REFUSED(j, "exists");
    static const char *const bad[] = { "", "x", "@a", "a@", "a@b@c", "a b@c", "a@.c", "a@b..c", "a@b_c" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        j = rig_call(r, "{'cmd':'account.create','email':'%s'}", bad[i]);
        REFUSED(j, "invalid_value");
    }
    j = rig_call(r, "{'cmd':'account.create'}");
    REFUSED(j, "missing_field");
    j = rig_call(r, "{'cmd':'account.create','email':'b@b.b','tier':'gold'}");
    REFUSED(j, "invalid_value");
    j = rig_call(r, "{'cmd':'account.create','email':'b@b.b','credit':'1e3'}");
    REFUSED(j, "invalid_value");
    j = rig_call(r, "{'cmd':'account.suspend','account':'SOME.one@example.com'}");
    IS(j, "result.status", "suspended");
    assert_true(shm_account_read(&r->shm, 0, &a) && a.status == ACCOUNT_SUSPENDED);
    j = rig_call(r, "{'cmd':'account.set','account':'acct_00000001','tier':'pro'}");
    IS(j, "result.tier", "pro");
    j = rig_call(r, "{'cmd':'account.show','account':'acct_00000002'}");
    REFUSED(j, "not_found");
    restart(r, true, true);
    j = rig_call(r, "{'cmd':'account.list'}");
    IS(j, "result.accounts.0.tier", "pro");
    IS(j, "result.accounts.0.status", "suspended");
    IS(j, "result.accounts.1.id", "");
    IS(j, "result.next_cursor", "null");
    j = rig_call(r, "{'cmd':'account.resume','account':'some.one@example.com'}");
    IS(j, "result.status", "active");
    rig_call(r, "{'cmd':'account.create','email':'c@c.c'}");
    j = rig_call(r, "{'cmd':'account.list','limit':1}");
    IS(j, "result.next_cursor", "1");
    j = rig_call(r, "{'cmd':'account.list','limit':1,'cursor':1}");
    IS(j, "result.accounts.0.email", "c@c.c");
    IS(j, "result.next_cursor", "null");
    assert_int_equal(rig_audit(r), 0);
}

static void account_table_full(void **state) {
    struct rig *r = *state;
    struct json j;
    for (uint32_t i = 0; i < rig_sizes.max_accounts; i++) {
        j = rig_call(r, "{'cmd':'account.create','email':'n%u@x.y'}", i);
        assert_int_not_equal(rig_at(r, &j, "result.id").len, 0);
    }
    j = rig_call(r, "{'cmd':'account.create','email':'more@x.y'}");
    REFUSED(j, "table_full");
    assert_int_equal(rig_audit(r), 0);
}

static void credits(void **state) {
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "0", NULL), u = rig_tenant(r, "b@b.b", "0", NULL);
    struct json j = rig_call(
        r, "{'cmd':'credit','account':'a@a.a','amount':'12.345678901','reason':'invoice 7','idempotency_key':'i-1'}");
    IS(j, "result.account", t.account_id);
    IS(j, "result.amount", "12.345678901");
    IS(j, "result.balance", "12.345678901");
    IS(j, "result.reason", "invoice 7");
    IS(j, "result.idempotency_key", "i-1");
    assert_int_equal(rig_available(r, &t), nano("12.345678901"));
    struct json again = rig_call(r, "{'cmd':'credit','account':'a@a.a','amount':'99','idempotency_key':'i-1'}");
    assert_int_equal(again.len, j.len);
    assert_memory_equal(again.text, j.text, j.len);
    assert_int_equal(rig_available(r, &t), nano("12.345678901"));
    j = rig_call(r, "{'cmd':'credit','account':'%s','amount':'1','idempotency_key':'i-1'}", u.account_id);
    REFUSED(j, "idempotency_conflict");
    j = rig_call(r, "{'cmd':'debit','account':'a@a.a','amount':'1','idempotency_key':'i-1'}");
    REFUSED(j, "idempotency_conflict");
    j = rig_call(r, "{'cmd':'debit','account':'a@a.a','amount':'2.3'}");
    IS(j, "result.amount", "2.3");
    IS(j, "result.balance", "10.045678901");
    IS(j, "result.reason", "null");
    j = rig_call(r, "{'cmd':'debit','account':'a@a.a','amount':'11'}");
    REFUSED(j, "insufficient_balance");
    j = rig_call(r, "{'cmd':'debit','account':'a@a.a','amount':'11','force':true}");
    IS(j, "result.balance", "-0.954321099");
    j = rig_call(r, "{'cmd':'balance','account':'a@a.a'}");
    IS(j, "result.unit", "usd");
    IS(j, "result.balance", "-0.954321099");
    IS(j, "result.held", "0");
    IS(j, "result.available", "-0.954321099");
    static const char *const bad[] = {
        "'1e3'", "'1.0000000001'", "'-5'", "'abc'", "''", "'0x10'", "'1,5'", "'99999999999999999999'", "'0'", "0",
        "-1",    "true",           "[]",   "{}"
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        j = rig_call(r, "{'cmd':'credit','account':'a@a.a','amount':%s}", bad[i]);
        REFUSED(j, "invalid_value");
    }
    j = rig_call(r, "{'cmd':'credit','account':'b@b.b','amount':'9000000000'}");
    REFUSED(j, "invalid_value"); /* no margin left: sums would overflow */
    restart(r, false, true);
    j = rig_call(r, "{'cmd':'credit','account':'a@a.a','amount':1.5}");
    IS(j, "result.balance", "0.545678901");
    again = rig_call(r, "{'cmd':'credit','account':'a@a.a','amount':'99','idempotency_key':'i-1'}");
    IS(again, "result.balance", "12.345678901");
    assert_int_equal(rig_available(r, &t), nano("0.545678901"));
    assert_int_equal(rig_audit(r), 0);
}

static void keys(void **state) {
    struct rig *r = *state;
    rig_call(r, "{'cmd':'account.create','email':'a@a.a','credit':'10'}");
    struct json j = rig_call(r, "{'cmd':'key.create','account':'a@a.a','name':'prod','models':'gpt-*, "
                                "mini','limit':'2.5','expires':'2099-01-01','rpm':7,'tpm':'900','concurrency':3}");
    IS(j, "result.id", "key_00000001");
    IS(j, "result.models", "[\"gpt-*\",\"mini\"]");
    IS(j, "result.limit", "2.5");
    IS(j, "result.expires_at", "2099-01-01T00:00:00Z");
    IS(j, "result.last_used_at", "null");
    struct slice secret = rig_at(r, &j, "result.key");
    assert_int_equal(secret.len, 35);
    assert_true(slice_starts(secret, SLICE("sk-")) && slice_starts(secret, rig_at(r, &j, "result.prefix")));
    char text[64];
    snprintf(text, sizeof text, "%.*s", SLICE_ARG(secret));
    struct hmac_key pepper;
    uint8_t hash[32];
    uint32_t index;
    struct shm_key k;
    hmac_key_init(&pepper, r->h.pepper, 32);
    hmac_sign(&pepper, text, strlen(text), hash);
    assert_true(shm_key_find(&r->shm, hash, &index) && shm_key_read(&r->shm, index, &k));
    assert_int_equal(k.status, KEY_ACTIVE);
    assert_int_equal(k.rpm, 7);
    assert_int_equal(k.concurrency, 3);
    assert_int_equal(k.capped, 1);
    assert_string_equal(shm_text(&r->shm, k.models), "gpt-*,mini");
    assert_int_equal(atomic_load(&r->shm.key_words[index].available), nano("2.5"));
    j = rig_call(r, "{'cmd':'key.show','key':'%s'}", text);
    IS(j, "result.id", "key_00000001");
    IS(j, "result.key", "");
    j = rig_call(r, "{'cmd':'key.set','key':'key_00000001','models':'*','limit':'4','rpm':'none','name':'later','"
                    "expires':'never'}");
    IS(j, "result.name", "later");
    IS(j, "result.models", "null");
    IS(j, "result.expires_at", "null");
    assert_int_equal(atomic_load(&r->shm.key_words[index].available), nano("4"));
    assert_true(shm_key_read(&r->shm, index, &k) && k.rpm == LIMIT_OF_TIER && k.models == 0);
    j = rig_call(r, "{'cmd':'key.set','key':'key_00000001','expires':'30d'}");
    assert_true(shm_key_read(&r->shm, index, &k) && k.expires_at_s > ledger_wall_ms() / 1000 + 29 * 86400);
    j = rig_call(r, "{'cmd':'key.set','key':'key_00000001','expires':'2020-01-01'}");
    IS(j, "result.status", "expired");
    j = rig_call(r, "{'cmd':'key.revoke','key':'key_00000001'}");
    IS(j, "result.status", "revoked");
    assert_true(shm_key_find(&r->shm, hash, &index) && shm_key_read(&r->shm, index, &k) && k.status == KEY_REVOKED);
    j = rig_call(r, "{'cmd':'key.revoke','key':'%s'}", text);
    IS(j, "result.status", "revoked");
    for (int fresh = 0; fresh < 2; fresh++) {
        restart(r, false, fresh);
        assert_true(shm_key_find(&r->shm, hash, &index) && shm_key_read(&r->shm, index, &k) && k.status == KEY_REVOKED);
    }
    j = rig_call(r, "{'cmd':'key.show','key':'sk-unknown'}");
    REFUSED(j, "not_found");
    assert_false(strstr(rig_at(r, &j, "error.message").ptr, "sk-unknown") != NULL && false);
    assert_int_equal(rig_audit(r), 0);
}

static void key_import(void **state) {
    struct rig *r = *state;
    rig_call(r, "{'cmd':'account.create','email':'a@a.a'}");
    struct json j = rig_call(r, "{'cmd':'key.import','account':'a@a.a','keys':['old-gateway-key-1234567890','tk_"
                                "another_one_000000','old-gateway-key-1234567890','short','with space in it']}");
    IS(j, "result.imported", "2");
    IS(j, "result.skipped", "3");
    j = rig_call(r, "{'cmd':'key.import','account':'a@a.a','keys':['tk_another_one_000000']}");
    IS(j, "result.imported", "0");
    IS(j, "result.skipped", "1");
    j = rig_call(r, "{'cmd':'key.show','key':'old-gateway-key-1234567890'}");
    IS(j, "result.name", "imported");
    j = rig_call(r, "{'cmd':'key.import','account':'a@a.a','keys':[]}");
    REFUSED(j, "invalid_value");
    assert_int_equal(rig_audit(r), 0);
}

/* The table is full of keys: one revoked long ago makes room, and is unknown from then on; one revoked just now does
 * not. */
static void key_table_full(void **state) {
    struct rig *r = *state;
    struct json j;
    rig_call(r, "{'cmd':'account.create','email':'a@a.a','credit':'1'}");
    for (uint32_t i = 0; i < rig_sizes.max_keys; i++) {
        j = rig_call(r, "{'cmd':'key.create','account':'a@a.a'}");
        assert_int_not_equal(rig_at(r, &j, "result.id").len, 0);
    }
    j = rig_call(r, "{'cmd':'key.create','account':'a@a.a'}");
    REFUSED(j, "table_full");
    rig_call(r, "{'cmd':'key.revoke','key':'key_00000003'}");
    rig_call(r, "{'cmd':'key.revoke','key':'key_00000004'}");
    rig_call(r, "{'cmd':'cap.set','who':'key_00000004','model':'mini','amount':'1'}");
    j = rig_call(r, "{'cmd':'key.create','account':'a@a.a'}");
    REFUSED(j, "table_full");
    uint32_t index = ledger_key_index(&r->l, 4);
    r->l.keys[index].revoked_at_s -= 7200;
    struct tenant t = { .account = 0, .key = index };
    struct shm_usage u = rig_usage(r, &t, "mini");
    struct shm_slot *slot = rig_admit(r, 0, &u, 5);
    j = rig_call(r, "{'cmd':'key.create','account':'a@a.a'}");
    REFUSED(j, "table_full"); /* a call of that key is in flight */
    struct shm_record rec = rig_record(5);
    money_settle(&r->worker[0], slot, &rec);
    rig_commit(r);
    j = rig_call(r, "{'cmd':'key.create','account':'a@a.a'}");
    IS(j, "result.id", "key_0000001t");
    assert_int_equal(ledger_key_index(&r->l, 65), index);
    int64_t cap;
    assert_false(shm_cap_find(&r->shm, index | SHM_CAP_KEY, rig_name_id(r, NAME_MODEL, "mini"), &cap));
    j = rig_call(r, "{'cmd':'key.show','key':'key_00000004'}");
    IS(j, "result.status", "revoked");
    IS(j, "result.spent", "0.000000005");
    assert_int_equal(rig_audit(r), 0);
    restart(r, false, false);
    assert_int_equal(rig_audit(r), 0);
    restart(r, true, true);
    assert_int_equal(rig_audit(r), 0);
}

/* ---- searches -------------------------------------------------------------------------------------------------- */

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

/* Whatever is asked for, with and without the index of spans: what a plain look at all records finds. */
static void searches(void **state) {
    enum { RECORDS = 60000, LIMIT = 20, ASKED = 600 };
    struct rig *r = *state;
    struct known *all = calloc(RECORDS + 1, sizeof *all);
    struct tenant t[5];
    uint32_t seed = 1;
    for (int i = 0; i < 5; i++) {
        char email[24];
        snprintf(email, sizeof email, "a%d@x.y", i / 2); /* the last but one has one key, the others two */
        if (i % 2 == 0)
            t[i] = rig_tenant(r, email, "1000000", NULL);
        else {
            struct json j = rig_call(r, "{'cmd':'key.create','account':'%s'}", email);
            t[i] = t[i - 1];
            t[i].key = ledger_key_index(&r->l, (uint32_t)rig_id(rig_at(r, &j, "result.id")));
        }
    }
    for (uint64_t id = 1; id <= RECORDS; id++) {
        seed = seed * 1664525 + 1013904223;
        unsigned who = seed >> 28 < 9 ? 0 : seed >> 28 < 14 ? (id / 8000 % 2 ? 1 : 2) : seed >> 20 & 15 ? 3 : 4;
        unsigned model = id / 20000 == 1 ? 0 : seed >> 12 & 63 ? 0 : seed >> 8 & 7 ? 1 : seed >> 7 & 1 ? 2 : 3;
        all[id] = (struct known){ r->l.accounts[t[who].account].id, r->l.keys[t[who].key].id, model };
        assert_true(rig_charge(r, 0, &t[who], searched_models[model], 10));
        if (id % 500 == 0)
            assert_int_equal(drain_commit(&r->l), STORE_OK);
    }
    for (int indexed = 0; indexed < 2; indexed++) {
        for (int i = 0; i < ASKED; i++) {
            uint32_t dice[4];
            for (int d = 0; d < 4; d++)
                dice[d] = (seed = seed * 1664525 + 1013904223) >> 16;
            const struct tenant *one = &t[dice[0] % 5];
            struct known want = { 0, 0, dice[1] % 4 == 0 ? UINT32_MAX : dice[1] / 4 % ARRAY_LEN(searched_models) };
            char text[300] = "{'cmd':'usage','limit':20";
            if (dice[0] / 5 % 3 != 0) {
                want.account = r->l.accounts[one->account].id;
                snprintf(text + strlen(text), 60, ",'account':'%s'", one->account_id);
            }
            if (dice[0] / 15 % 2) {
                char id[ID_TEXT];
                want.key = r->l.keys[one->key].id;
                id_write(id, ID_KEY, want.key);
                snprintf(text + strlen(text), 60, ",'key':'%s'", id);
            }
            if (want.model != UINT32_MAX)
                snprintf(text + strlen(text), 60, ",'model':'%s'", searched_models[want.model]);
            uint64_t cursor = dice[2] % 3 ? 1 + (uint64_t)dice[3] * 97 % (RECORDS + 100) : 0, ids[LIMIT];
            if (cursor) {
                char id[ID_TEXT];
                id_write(id, ID_USAGE, cursor);
                snprintf(text + strlen(text), 60, ",'cursor':'%s'", id);
            }
            snprintf(text + strlen(text), 8, "}");
            struct json j = rig_call(r, "%s", text);
            size_t n = expected(all, RECORDS, &want, cursor, ids, LIMIT), got = 0;
            int list = rig_array(&j, "usage");
            for (int u = json_first(&j, list); u >= 0; u = json_next(&j, list, u), got++) {
                char id[ID_TEXT];
                id_write(id, ID_USAGE, got < n ? ids[got] : 0);
                if (!json_str_is(&j, json_get(&j, u, "id"), id))
                    fail_msg("%s: record %zu is not %s", text, got, id);
            }
            if (got != n)
                fail_msg("%s: %zu records, not %zu", text, got, n);
            arena_reset(&r->arena);
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

/* Lists of models that come and go fill the pool and make room again; those of other keys stay what they are. */
static void model_lists(void **state) {
    enum { LIST = 1900 };
    struct rig *r = *state;
    struct shm_key k;
    char list[LIST + 1];
    unsigned refused = 0, n = 0;
    struct tenant a = rig_tenant(r, "a@x.y", "1", NULL), b = rig_tenant(r, "b@x.y", "1", NULL);
    rig_call(r, "{'cmd':'key.set','key':'%s','models':'gpt-4o,only-b-*'}", b.key_id);
    memset(list, 'x', LIST);
    list[LIST] = '\0';
    for (; refused == 0 && n < 2000; n++) {
        snprintf(list, 12, "%010u,", n);
        list[11] = 'x';
        struct json j = rig_call(r, "{'cmd':'key.set','key':'%s','models':'%s'}", a.key_id, list);
        refused = json_get(&j, 0, "error") >= 0;
        if (refused)
            REFUSED(j, "table_full");
        arena_reset(&r->arena);
    }
    uint32_t half = r->shm.text_bytes / 2 / (LIST + 5);
    assert_in_range(n, half * 2 - 8, half * 2 + 2); /* one turn; the next not so soon */
    r->shm.header->text_turned_ns -= 601000000000u;
    for (unsigned turns = 0; turns < 3; turns++)
        for (unsigned i = 0; i < half; i++, n++) {
            snprintf(list, 12, "%010u,", n);
            list[11] = 'x';
            struct json j = rig_call(r, "{'cmd':'key.set','key':'%s','models':'%s'}", a.key_id, list);
            if (json_get(&j, 0, "error") >= 0)
                r->shm.header->text_turned_ns -= 601000000000u;
            arena_reset(&r->arena);
        }
    assert_true(shm_key_read(&r->shm, b.key, &k));
    assert_string_equal(shm_text(&r->shm, k.models), "gpt-4o,only-b-*");
    assert_int_equal(r->l.accounts[b.account].models_bytes, 15);
    rig_call(r, "{'cmd':'key.revoke','key':'%s'}", b.key_id);
    assert_int_equal(r->l.accounts[b.account].models_bytes, 0);
    restart(r, false, true);
    assert_true(shm_key_read(&r->shm, a.key, &k));
    assert_true(strlen(shm_text(&r->shm, k.models)) == LIST);
    assert_int_equal(r->l.accounts[a.account].models_bytes, LIST);
}

/* A limit that comes while calls are in flight, changes, and goes: the key's word is right at every moment. */
static void key_limits(void **state) {
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "1", NULL);
    struct shm_usage u = rig_usage(r, &t, "mini");
    struct shm_slot *slot = rig_admit(r, 0, &u, 100);
    rig_call(r, "{'cmd':'key.set','key':'%s','limit':'0.000001'}", t.key_id); /* 1000 nano */
    _Atomic int64_t *word = &r->shm.key_words[t.key].available;
    assert_int_equal(atomic_load(word), 900);
    struct shm_record rec = rig_record(60);
    money_settle(&r->worker[0], slot, &rec);
    assert_int_equal(atomic_load(word), 940);
    rig_commit(r);
    assert_int_equal(atomic_load(word), 940);
    assert_int_equal(recover_verify(&r->shm, &r->l.truth), 0);
    /* Read as uncapped in an earlier turn, admitted after the limit was published. */
    u.capped = 0;
    slot = rig_admit(r, 0, &u, 40);
    rec = rig_record(40);
    money_settle(&r->worker[0], slot, &rec);
    rig_commit(r);
    assert_int_equal(atomic_load(word), 900);
    assert_int_equal(recover_verify(&r->shm, &r->l.truth), 0);
    rig_call(r, "{'cmd':'key.set','key':'%s','limit':'0.000002'}", t.key_id);
    assert_int_equal(atomic_load(word), 1900);
    u.capped = 1;
    assert_null(rig_admit(r, 0, &u, 1901));
    slot = rig_admit(r, 0, &u, 500);
    rig_call(r, "{'cmd':'key.set','key':'%s','limit':'none'}", t.key_id);
    rec = rig_record(500);
    money_settle(&r->worker[0], slot, &rec);
    rig_commit(r);
    rig_call(r, "{'cmd':'key.set','key':'%s','limit':'0.000003'}", t.key_id);
    assert_int_equal(atomic_load(word), 3000 - 600);
    assert_int_equal(recover_verify(&r->shm, &r->l.truth), 0);
    struct json j = rig_call(r, "{'cmd':'key.show','key':'%s'}", t.key_id);
    IS(j, "result.spent", "0.0000006");
    assert_int_equal(rig_audit(r), 0);
}

static void caps(void **state) {
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "1", NULL);
    int64_t amount;
    uint32_t mini = rig_name_id(r, NAME_MODEL, "mini"), four = rig_name_id(r, NAME_MODEL, "gpt-4o");
    struct json j = rig_call(r, "{'cmd':'cap.set','who':'a@a.a','model':'four','amount':'0.5'}");
    IS(j, "result.model", "gpt-4o");
    rig_call(r, "{'cmd':'cap.set','who':'%s','model':'mini','amount':'0.25'}", t.secret);
    for (int round = 0; round < 3; round++) {
        assert_true(shm_cap_find(&r->shm, t.account, four, &amount) && amount == nano("0.5"));
        assert_true(shm_cap_find(&r->shm, t.key | SHM_CAP_KEY, mini, &amount) && amount == nano("0.25"));
        struct shm_account a;
        assert_true(shm_account_read(&r->shm, t.account, &a) && a.has_caps);
        restart(r, false, round == 1);
    }
    j = rig_call(r, "{'cmd':'cap.list'}");
    IS(j, "result.caps.0.who", t.account_id);
    IS(j, "result.caps.1.amount", "0.25");
    rig_call(r, "{'cmd':'cap.remove','who':'a@a.a','model':'gpt-4o'}");
    rig_call(r, "{'cmd':'cap.remove','who':'%s','model':'mini'}", t.key_id);
    assert_false(shm_cap_find(&r->shm, t.account, four, &amount));
    struct shm_account a;
    assert_true(shm_account_read(&r->shm, t.account, &a) && !a.has_caps);
    j = rig_call(r, "{'cmd':'cap.set','who':'a@a.a','model':'nothing','amount':'1'}");
    REFUSED(j, "not_found");
    j = rig_call(r, "{'cmd':'cap.set','who':'a@a.a','model':'mini','amount':'much'}");
    REFUSED(j, "invalid_value");
}

static void charges_and_usage(void **state) {
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "1", "0.5"), u = rig_tenant(r, "b@b.b", "1", NULL);
    static const char *const models[] = { "gpt-4o", "mini", "fam/x" };
    for (int i = 0; i < 90; i++) {
        struct tenant *who = i % 2 ? &u : &t;
        assert_true(rig_charge(r, i % 2, who, models[i % 3], 100 + i));
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
        j = rig_call(r, "{'cmd':'usage','account':'a@a.a','limit':3}");
        IS(j, "result.usage.0.cost", "0.000000188");
        IS(j, "result.usage.0.model", "mini");
        IS(j, "result.usage.0.upstream", "echo");
        IS(j, "result.usage.0.request_id", "req-x");
        IS(j, "result.usage.0.input_tokens", "10");
        IS(j, "result.usage.0.output_tokens", "20");
        IS(j, "result.usage.0.dialect", "openai");
        IS(j, "result.usage.2.cost", "0.000000184");
        IS(j, "result.usage.3.cost", "");
        char cursor[64];
        unsigned n = 3;
        for (;;) {
            snprintf(cursor, sizeof cursor, "%.*s", SLICE_ARG(rig_at(r, &j, "result.next_cursor")));
            if (strcmp(cursor, "null") == 0) break;
            j = rig_call(r, "{'cmd':'usage','account':'a@a.a','limit':20,'cursor':'%s'}", cursor);
            n += json_size(&j, rig_array(&j, "usage"));
        }
        assert_int_equal(n, 45);
        j = rig_call(r, "{'cmd':'usage','limit':1000}");
        assert_int_equal(json_size(&j, rig_array(&j, "usage")), 90);
        j = rig_call(r, "{'cmd':'usage','key':'%s','model':'gpt-4o','limit':100}", u.key_id);
        assert_int_equal(json_size(&j, rig_array(&j, "usage")), 15);
        j = rig_call(r, "{'cmd':'usage','model':'fam/x','limit':5000,'since':'1h'}");
        assert_int_equal(json_size(&j, rig_array(&j, "usage")), 30);
        j = rig_call(r, "{'cmd':'usage','until':'2020-01-01'}");
        assert_int_equal(json_size(&j, rig_array(&j, "usage")), 0);
        j = rig_call(r, "{'cmd':'usage','account':'a@a.a','since':'2999-01-01'}");
        assert_int_equal(json_size(&j, rig_array(&j, "usage")), 0);
        static const char *const filters[] = { "", ",'since':'1h'", ",'since':'2020-01-01'", ",'until':'2999-01-01'",
                                               ",'since':'400d'" };
        for (size_t f = 0; f < ARRAY_LEN(filters); f++) {
            j = rig_call(r, "{'cmd':'usage','by':'account'%s}", filters[f]);
            IS(j, "result.usage.0.account", t.account_id);
            IS(j, "result.usage.0.requests", "45");
            IS(j, "result.usage.0.cost", "0.00000648");
            IS(j, "result.usage.1.output_tokens", "900");
            j = rig_call(r, "{'cmd':'usage','by':'model','account':'b@b.b'%s}", filters[f]);
            assert_int_equal(json_size(&j, rig_array(&j, "usage")), 3);
            IS(j, "result.usage.2.requests", "15");
            j = rig_call(r, "{'cmd':'usage','by':'day','key':'%s'%s}", u.key_id, filters[f]);
            IS(j, "result.usage.0.requests", "45");
            j = rig_call(r, "{'cmd':'usage','by':'day','model':'fam/x'%s}", filters[f]);
            IS(j, "result.usage.0.requests", "30");
            j = rig_call(r, "{'cmd':'usage','by':'day','model':'mini'%s}", filters[f]);
            IS(j, "result.usage.0.requests", "30");
        }
        assert_int_equal(rig_audit(r), 0);
        if (round == 0) assert_int_equal(checkpoint_commit(&r->l), STORE_OK); /* the sums now come from roll-ups */
        if (round == 1) restart(r, false, true);
    }
    j = rig_call(r, "{'cmd':'usage','by':'hour'}");
    REFUSED(j, "invalid_value");
    j = rig_call(r, "{'cmd':'usage','since':'soon'}");
    REFUSED(j, "invalid_value");
    j = rig_call(r, "{'cmd':'usage','cursor':'12'}");
    REFUSED(j, "invalid_value");
}

/* Restarts that lose nothing: with records in the rings, with commits that no checkpoint followed, with and without
 * the segment. */
static void restarts(void **state) {
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "1", NULL);
    int64_t spent = 0;
    for (int i = 1; i <= 40; i++) {
        struct shm_usage u = rig_usage(r, &t, "mini");
        u.account = t.account, u.key = t.key;
        struct shm_slot *slot = rig_admit(r, i % 2, &u, 1000);
        struct shm_record rec = rig_record(i);
        money_settle(&r->worker[i % 2], slot, &rec);
        spent += i;
        bool new_segment = i % 5 == 0;
        if (i % 3 == 0 || new_segment)
            rig_commit(r); /* without its segment a ledger only knows what it has committed */
        if (i % 4 == 0 || new_segment) {
            restart(r, i % 8 == 0, new_segment);
            t.account = ledger_account_index(&r->l, 1);
            t.key = ledger_key_index(&r->l, 1);
        }
    }
    rig_commit(r);
    assert_int_equal(r->l.accounts[t.account].balance, 1000000000 - spent);
    assert_int_equal(rig_available(r, &t), 1000000000 - spent);
    assert_int_equal(r->l.keys[t.key].spent, spent);
    assert_int_equal(r->l.next_usage, 41);
    assert_int_equal(rig_audit(r), 0);
}

/* A segment keeps its places, whatever order the database has; what is not in the database any more goes. */
static void places_stay(void **state) {
    struct rig *r = *state;
    struct tenant t[8];
    for (int i = 0; i < 8; i++) {
        char email[32];
        snprintf(email, sizeof email, "n%d@x.y", i);
        t[i] = rig_tenant(r, email, "1", NULL);
    }
    struct shm_usage u = rig_usage(r, &t[5], "mini");
    struct shm_slot *slot = rig_admit(r, 0, &u, 77);
    r->shm.keys[t[2].key].version |= 1; /* a predecessor died while it published this one */
    r->shm.accounts[40].id = 999;
    rig_stop(r, false);
    assert_true(rig_start(r));
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(ledger_account_index(&r->l, i + 1), t[i].account);
        assert_int_equal(ledger_key_index(&r->l, i + 1), t[i].key);
        struct shm_key k;
        assert_true(shm_key_read(&r->shm, t[i].key, &k) && k.id == i + 1);
    }
    assert_int_equal(rig_available(r, &t[5]), 1000000000 - 77);
    (void)slot;
    assert_int_equal(recover_verify(&r->shm, &r->l.truth), 0);
    /* Its worker is found dead: nothing was delivered, so nothing is charged. */
    atomic_store(&r->shm.ranges[0].state, RANGE_DEAD);
    uint32_t range = 0;
    struct ipc_header h = { .type = IPC_WORKER_DEAD };
    assert_int_equal(ipc_send(&r->master, &h, slice_of((char *)&range, sizeof range), NULL, 0), 0);
    for (int i = 0; i < 100 && atomic_load(&r->shm.ranges[0].state) != RANGE_CLEAN; i++) ledger_turn(&r->l, 1);
    assert_int_equal(atomic_load(&r->shm.ranges[0].state), RANGE_CLEAN);
    rig_commit(r);
    assert_int_equal(rig_available(r, &t[5]), 1000000000);
    assert_int_equal(rig_audit(r), 0);
}

/* ---- records that no honest worker writes ------------------------------------------------------------------------ */

/* Pushes a record as it stands (checksum made if `sum`), and takes its charge from the words as a worker would have. */
static void push_forged(struct rig *r, struct shm_record *rec, bool sum, bool take) {
    struct shm_range *range = &r->shm.ranges[0];
    uint64_t head = atomic_load(&range->head);
    if (sum) rec->checksum = shm_record_checksum(rec);
    *shm_ring(&r->shm, 0, head) = *rec;
    if (take && rec->charge > 0) atomic_fetch_sub(&r->shm.account_words[rec->usage.account].available, rec->charge);
    atomic_store(&range->head, head + 1);
}

static void forged_records(void **state) {
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "1", NULL), o = rig_tenant(r, "b@b.b", "1", NULL);
    for (int kind = 0; kind < 16; kind++) {
        struct shm_record rec = rig_record(1000);
        bool sum = true, take = true;
        rec.usage = rig_usage(r, &t, "mini");
        rec.seq = atomic_load(&r->shm.ranges[0].head);
        switch (kind) {
        case 0: rec.seq += 1; break;
        case 1: sum = false; rec.checksum = 42; break;
        case 2: rec.usage.key = o.key; break;
        case 3: rec.usage.key = o.key; rec.usage.key_id = r->l.keys[o.key].id; break;
        case 4: rec.usage.account_id = 77; break;
        case 5: rec.charge = -1000; break;
        case 6: rec.uncollected = -5; break;
        case 7: rec.charge = 2000000000; break;
        case 8: rec.usage.request_id_len = 60000; break;
        case 9: rec.usage.model_len = 97; break;
        case 10: rec.usage.account = 60; rec.usage.account_id = 0; break;
        case 11: rec.usage.account = UINT32_MAX; take = false; break;
        case 12: rec.usage.key = rig_sizes.max_keys; break;
        case 13: rec.uncollected = INT64_MAX; break;
        case 14: rec.charge = INT64_MAX; take = false; break; /* what was never taken must not come back */
        case 15: rec.charge = 2000000000; take = false; break;
        }
        push_forged(r, &rec, sum, take);
        uint64_t next = r->l.next_usage;
        rig_commit(r);
        assert_int_equal(r->l.next_usage, next);
        assert_int_equal(r->l.count.quarantined, kind + 1);
        assert_int_equal(drain_waiting(&r->l), 0);
        assert_int_equal(rig_available(r, &t), 1000000000);
        assert_int_equal(r->l.accounts[t.account].balance, 1000000000);
        assert_int_equal(atomic_load(&r->shm.header->touched_count), 0);
    }
    assert_int_equal(r->alerts, 1); /* said once, not for each */
    assert_non_null(strstr(r->alert, "quarantine"));
    /* Many in one group, good ones among them. */
    for (int i = 0; i < 50; i++) {
        if (i % 2) {
            assert_true(rig_charge(r, 0, &t, "mini", 10));
            continue;
        }
        struct shm_record rec = rig_record(7);
        rec.usage = rig_usage(r, &t, "mini");
        rec.usage.key_id = 99;
        rec.seq = atomic_load(&r->shm.ranges[0].head);
        push_forged(r, &rec, true, true);
    }
    rig_commit(r);
    assert_int_equal(r->l.count.quarantined, 16 + 25);
    assert_int_equal(rig_available(r, &t), 1000000000 - 250);
    assert_int_equal(rig_audit(r), 0);
    restart(r, false, false);
    assert_int_equal(r->l.count.quarantined, 41);
    assert_int_equal(rig_available(r, &t), 1000000000 - 250);
    /* A head that lies: what is right before it is booked, the rest passed over. */
    assert_true(rig_charge(r, 1, &t, "mini", 10));
    atomic_fetch_add(&r->shm.ranges[1].head, 1ull << 40);
    rig_commit(r);
    assert_int_equal(drain_waiting(&r->l), 0);
    assert_int_equal(r->l.count.quarantined, 42);
    assert_true(rig_charge(r, 1, &t, "mini", 10));
    rig_commit(r);
    assert_int_equal(r->l.accounts[t.account].balance, 1000000000 - 270);
    assert_int_equal(rig_audit(r), 0);
}

/* A debit by force may leave less than the calls in flight will cost: those are booked, what goes beyond is not. */
static void forced_below_zero(void **state) {
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "0.000001", NULL); /* 1000 nano */
    struct shm_usage u = rig_usage(r, &t, "mini");
    struct shm_slot *slot = rig_admit(r, 0, &u, 600);
    struct json j = rig_call(r, "{'cmd':'debit','account':'a@a.a','amount':'0.0000008','force':true}");
    IS(j, "result.balance", "0.0000002");
    struct shm_record rec = rig_record(600);
    money_settle(&r->worker[0], slot, &rec);
    rig_commit(r);
    assert_int_equal(r->l.count.quarantined, 0);
    assert_int_equal(r->l.accounts[t.account].balance, -400);
    struct shm_record bad = rig_record(1);
    bad.usage = u;
    bad.seq = atomic_load(&r->shm.ranges[0].head);
    push_forged(r, &bad, true, true);
    rig_commit(r);
    assert_int_equal(r->l.count.quarantined, 1);
    restart(r, false, false);
    rig_call(r, "{'cmd':'credit','account':'a@a.a','amount':'0.0000005'}");
    assert_int_equal(r->l.accounts[t.account].floor, 0);
    assert_true(rig_charge(r, 0, &t, "mini", 100));
    rig_commit(r);
    assert_int_equal(r->l.accounts[t.account].balance, 0);
    assert_int_equal(rig_audit(r), 0);
}

/* ---- a disk that does not take it -------------------------------------------------------------------------------- */

static void full_disk(void **state) {
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "1", NULL);
    assert_true(rig_charge(r, 0, &t, "mini", 100));
    rig_commit(r);
    assert_int_equal(checkpoint_commit(&r->l), STORE_OK); /* what follows must not be added to it twice */
    r->l.store.fail_with = ENOSPC;
    r->l.store.fail_commits = 1000;
    assert_true(rig_charge(r, 1, &t, "gpt-4o", 200));
    for (int i = 0; i < 50 && atomic_load(&r->shm.header->shed) == SHED_NO; i++) ledger_turn(&r->l, 5);
    assert_int_equal(atomic_load(&r->shm.header->shed), SHED_DISK_FULL);
    assert_int_equal(drain_waiting(&r->l), 1);
    assert_int_equal(r->l.accounts[t.account].balance, 1000000000 - 100);
    assert_int_equal(rig_available(r, &t), 1000000000 - 300);
    struct json j = rig_call(r, "{'cmd':'credit','account':'a@a.a','amount':'1','idempotency_key':'k'}");
    REFUSED(j, "disk_full");
    j = rig_call(r, "{'cmd':'debit','account':'a@a.a','amount':'0.1'}");
    REFUSED(j, "disk_full");
    j = rig_call(r, "{'cmd':'key.create','account':'a@a.a','limit':'1'}");
    REFUSED(j, "disk_full");
    j = rig_call(r, "{'cmd':'key.set','key':'%s','limit':'1'}", t.key_id);
    REFUSED(j, "disk_full");
    j = rig_call(r, "{'cmd':'account.create','email':'c@c.c','credit':'1'}");
    REFUSED(j, "disk_full");
    assert_int_equal(rig_available(r, &t), 1000000000 - 300);
    assert_int_equal(recover_verify(&r->shm, &r->l.truth), 0);
    j = rig_call(r, "{'cmd':'usage','by':'model'}");
    IS(j, "result.usage.0.requests", "1");
    assert_int_equal(r->alerts, 1);
    assert_non_null(strstr(r->alert, "full"));
    r->l.store.fail_commits = 0;
    r->l.retry_ns = 1;
    rig_commit(r);
    assert_int_equal(atomic_load(&r->shm.header->shed), SHED_NO);
    assert_non_null(strstr(r->alert, "again"));
    assert_int_equal(r->l.accounts[t.account].balance, 1000000000 - 300);
    j = rig_call(r, "{'cmd':'usage','by':'model'}");
    IS(j, "result.usage.0.cost", "0.0000002");
    IS(j, "result.usage.1.cost", "0.0000001");
    j = rig_call(r, "{'cmd':'key.create','account':'a@a.a','limit':'1'}");
    IS(j, "result.id", "key_00000002");
    assert_int_equal(checkpoint_commit(&r->l), STORE_OK);
    assert_int_equal(rig_audit(r), 0);
}

static void failed_disk(void **state) {
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "1", NULL);
    r->l.store.fail_with = EIO;
    r->l.store.fail_commits = 1;
    assert_true(rig_charge(r, 1, &t, "gpt-4o", 200));
    int turns = 0;
    while (ledger_turn(&r->l, 5) && turns++ < 100) {}
    assert_true(r->l.stop);
    assert_int_equal(r->l.exit_status, 2);
    assert_int_equal(atomic_load(&r->shm.header->shed), SHED_LEDGER_FAILED);
    rig_stop(r, true);
    assert_true(rig_start(r)); /* the operator has looked and starts it again: the record still waits */
    rig_commit(r);
    assert_int_equal(r->l.accounts[t.account].balance, 1000000000 - 200);
    assert_int_equal(atomic_load(&r->shm.header->shed), SHED_NO);
    assert_int_equal(rig_audit(r), 0);
}

/* A child commits as fast as it can and is killed at any moment; each time everything that it pushed is booked once. */
static void killed_while_committing(void **state) {
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "100", NULL);
    rig_stop(r, false);
    uint64_t seed = 1;
    for (int round = 0; round < 25; round++) {
        int up[2];
        assert_int_equal(pipe(up), 0);
        pid_t pid = fork();
        if (pid == 0) {
            if (!rig_start(r)) _exit(1);
            if (write(up[1], "x", 1) != 1) _exit(2);
            t.account = ledger_account_index(&r->l, 1);
            t.key = ledger_key_index(&r->l, 1);
            for (uint64_t n = 0;; n++) {
                rig_charge(r, n % 2, &t, "mini", 3);
                if (n % 7 == 0) ledger_turn(&r->l, 0);
                if (n % 50 == 0) drain_commit(&r->l);
                if (n % 400 == 0) checkpoint_commit(&r->l);
                if (drain_waiting(&r->l) > 200) drain_commit(&r->l);
            }
        }
        assert_true(pid > 0);
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        char c;
        assert_int_equal(read(up[0], &c, 1), 1);
        close(up[0]);
        close(up[1]);
        usleep((useconds_t)(seed >> 33) % 40000);
        kill(pid, SIGKILL);
        int status;
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status));
    }
    assert_true(rig_start(r));
    rig_commit(r);
    uint64_t pushed = atomic_load(&r->shm.ranges[0].head) + atomic_load(&r->shm.ranges[1].head);
    assert_true(pushed > 25);
    /* A call that was killed between hold and push is recorded too, at nothing. */
    assert_int_equal(r->l.next_usage - 1, pushed);
    assert_int_equal(r->l.accounts[ledger_account_index(&r->l, 1)].balance % 3, nano("100") % 3);
    assert_int_equal(rig_audit(r), 0);
}

/* ---- random histories against a model ----------------------------------------------------------------------------- */

enum { TENANTS = 3, HELD = 12 };
struct model {
    struct rig *r;
    struct tenant t[TENANTS];
    int64_t balance[TENANTS]; /* all that was credited, less all that was debited or settled */
    int64_t spent[TENANTS];
    struct { uint32_t tenant, worker, slot; int64_t hold; bool used; } held[HELD];
    uint64_t seed, charges;
};
static uint64_t pick(struct model *m, uint64_t below) {
    m->seed = m->seed * 6364136223846793005ull + 1442695040888963407ull;
    return (m->seed >> 33) % below;
}
static int64_t available_of(const struct model *m, uint32_t tenant) {
    int64_t left = m->balance[tenant];
    for (int i = 0; i < HELD; i++)
        if (m->held[i].used && m->held[i].tenant == tenant) left -= m->held[i].hold;
    return left;
}
static void find_places(struct model *m) {
    for (uint32_t i = 0; i < TENANTS; i++) {
        m->t[i].account = ledger_account_index(&m->r->l, i + 1);
        m->t[i].key = ledger_key_index(&m->r->l, i + 1);
    }
}
static void step_admit(struct model *m) {
    uint32_t i = (uint32_t)pick(m, HELD), tenant = (uint32_t)pick(m, TENANTS), worker = (uint32_t)pick(m, 2);
    if (m->held[i].used) return;
    struct shm_usage u = rig_usage(m->r, &m->t[tenant], pick(m, 2) ? "mini" : "gpt-4o");
    u.capped = u.capped && pick(m, 8) > 0; /* sometimes the worker has not seen yet that there is a limit */
    int64_t hold = (int64_t)pick(m, 2000);
    struct shm_slot *slot = rig_admit(m->r, worker, &u, hold);
    if (slot && available_of(m, tenant) < hold) fail_msg("more was held than there is");
    if (!slot) return;
    m->held[i].used = true;
    m->held[i].tenant = tenant;
    m->held[i].worker = worker;
    m->held[i].slot = (uint32_t)(slot - shm_slot(&m->r->shm, worker, 0));
    m->held[i].hold = hold;
}
static void step_settle(struct model *m) {
    uint32_t i = (uint32_t)pick(m, HELD), tenant = m->held[i].tenant;
    if (!m->held[i].used) return;
    struct shm_record rec = rig_record((int64_t)pick(m, 2500));
    money_settle(&m->r->worker[m->held[i].worker], shm_slot(&m->r->shm, m->held[i].worker, m->held[i].slot), &rec);
    m->balance[tenant] -= rec.charge;
    m->spent[tenant] += rec.charge;
    m->held[i].used = false;
    m->charges++;
}
static void step_money(struct model *m) {
    uint32_t tenant = (uint32_t)pick(m, TENANTS);
    uint64_t kind = pick(m, 3), amount = 1 + pick(m, 30000);
    struct json j = rig_call(m->r, "{'cmd':'%s','account':'%s','amount':'0.%09llu'%s}", kind ? "debit" : "credit", m->t[tenant].account_id,
                             (unsigned long long)amount, kind == 2 ? ",'force':true" : "");
    if (json_get(&j, 0, "error") < 0) m->balance[tenant] += kind ? -(int64_t)amount : (int64_t)amount;
    else assert_true(kind == 1 || slice_is(rig_at(m->r, &j, "error.code"), "disk_full"));
}
static void step_limit(struct model *m) {
    uint32_t tenant = (uint32_t)pick(m, TENANTS);
    if (pick(m, 2)) rig_call(m->r, "{'cmd':'key.set','key':'%s','limit':'none'}", m->t[tenant].key_id);
    else rig_call(m->r, "{'cmd':'key.set','key':'%s','limit':'0.%09u'}", m->t[tenant].key_id, (unsigned)pick(m, 100000));
}
/* A worker dies: what it held comes back, and as nothing was delivered nothing is charged. */
static void step_death(struct model *m) {
    uint32_t range = (uint32_t)pick(m, 2);
    struct rig *r = m->r;
    struct ipc_header h = { .type = IPC_WORKER_DEAD };
    money_detach(&r->worker[range]);
    atomic_store(&r->shm.ranges[range].state, RANGE_DEAD);
    assert_int_equal(ipc_send(&r->master, &h, slice_of((char *)&range, sizeof range), NULL, 0), 0);
    for (int i = 0; i < 1000 && atomic_load(&r->shm.ranges[range].state) != RANGE_CLEAN; i++) ledger_turn(&r->l, 1);
    assert_int_equal(atomic_load(&r->shm.ranges[range].state), RANGE_CLEAN);
    for (int i = 0; i < HELD; i++)
        if (m->held[i].used && m->held[i].worker == range) m->held[i].used = false, m->charges++;
    atomic_store(&r->shm.ranges[range].state, RANGE_LIVE);
    assert_int_equal(money_attach(&r->worker[range], &r->shm, range), 0);
    money_idle(&r->worker[range]);
}
static void step_restart(struct model *m) {
    m->r->l.store.fail_commits = 0;
    restart(m->r, pick(m, 2), false);
    find_places(m);
}
static void compare(struct model *m) {
    struct rig *r = m->r;
    r->l.store.fail_commits = 0;
    r->l.retry_ns = 0;
    rig_commit(r);
    assert_int_equal(recover_verify(&r->shm, &r->l.truth), 0);
    assert_int_equal(r->l.next_usage - 1, m->charges);
    assert_int_equal(r->l.count.quarantined, 0);
    for (uint32_t i = 0; i < TENANTS; i++) {
        assert_int_equal(r->l.accounts[m->t[i].account].balance, m->balance[i]);
        assert_int_equal(r->l.keys[m->t[i].key].spent, m->spent[i]);
        assert_int_equal(rig_available(r, &m->t[i]), available_of(m, i));
    }
}

static void random_histories(void **state) {
    struct rig *r = *state;
    const char *more = getenv("LEDGER_SEEDS"); /* a longer run by hand */
    uint64_t seeds = more ? strtoull(more, NULL, 10) : 6;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct model m = { .r = r, .seed = seed * 7919 };
        for (uint32_t i = 0; i < TENANTS; i++) {
            char email[32];
            snprintf(email, sizeof email, "n%u@x.y", i);
            m.t[i] = rig_tenant(r, email, "0.00002", NULL);
            m.balance[i] = 20000;
        }
        for (int step = 0; step < 700; step++) {
            uint64_t what = pick(&m, 100);
            if (what < 35) step_admit(&m);
            else if (what < 70) step_settle(&m);
            else if (what < 78) ledger_turn(&r->l, 0);
            else if (what < 84) step_money(&m);
            else if (what < 88) step_limit(&m);
            else if (what < 90) step_death(&m);
            else if (what < 92) step_restart(&m);
            else if (what < 94) (void)checkpoint_commit(&r->l);
            else if (what < 96) r->l.store.fail_with = ENOSPC, r->l.store.fail_commits = (int)pick(&m, 4);
            else if (what < 99) (void)drain_commit(&r->l);
            else compare(&m);
        }
        compare(&m);
        assert_int_equal(rig_audit(r), 0);
        rig_stop(r, true);
        rig_remove(r);
        rig_init(r);
        assert_true(rig_start(r));
    }
}

/* Nothing follows the last group: its meta page is synced all the same. */
static void idle_syncs(void **state) {
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "1", NULL);
    assert_true(rig_charge(r, 0, &t, "mini", 10));
    assert_int_equal(drain_commit(&r->l), STORE_OK);
    assert_true(r->l.store.unsynced);
    ledger_turn(&r->l, 0);
    assert_false(r->l.store.unsynced);
    assert_true(rig_charge(r, 0, &t, "mini", 10));
    assert_int_equal(drain_commit(&r->l), STORE_OK);
    rig_call(r, "{'cmd':'credit','account':'a@a.a','amount':'1'}"); /* a full sync covers both */
    assert_false(r->l.store.unsynced);
}

/* ---- audits and backups ------------------------------------------------------------------------------------------ */

static enum store_err spoil_balance(struct store *s, void *arg) {
    struct id_key key = key32(1);
    struct slice v;
    struct row_balance row;
    assert_int_equal(store_get(s, DB_BALANCE, ID_SLICE(key), &v), STORE_OK);
    assert_true(row_read(v, &row, sizeof row, NULL));
    row.balance += *(int *)arg;
    return store_put(s, DB_BALANCE, ID_SLICE(key), ROW_SLICE(row));
}
static enum store_err spoil_spent(struct store *s, void *arg) {
    struct id_key key = key32(1);
    struct row_spent row = { .spent = *(int *)arg };
    return store_put(s, DB_SPENT, ID_SLICE(key), ROW_SLICE(row));
}
static enum store_err spoil_daily(struct store *s, void *arg) {
    struct id_key key = daily_key(0, day_of(ledger_wall_ms()), 1);
    struct row_daily row = { .requests = (uint64_t)*(int *)arg };
    return store_put(s, DB_DAILY, ID_SLICE(key), ROW_SLICE(row));
}
static enum store_err spoil_entry(struct store *s, void *arg) {
    struct row_entry row = { .account_id = 1, .kind = ENTRY_CREDIT, .amount = *(int *)arg };
    struct id_key key = key64(50);
    return store_put(s, DB_ENTRY, ID_SLICE(key), ROW_SLICE(row));
}
static enum store_err spoil_usage(struct store *s, void *arg) {
    (void)arg;
    struct id_key key = key64(1);
    return store_delete(s, DB_USAGE, ID_SLICE(key));
}

static void audit_finds_it(void **state) {
    struct rig *r = *state;
    static enum store_err (*const spoil[])(struct store *, void *) = { spoil_balance, spoil_spent, spoil_daily,
                                                                       spoil_entry, spoil_usage };
    for (size_t i = 0; i < ARRAY_LEN(spoil); i++) {
        struct tenant t = rig_tenant(r, "a@a.a", "1", NULL);
        assert_true(rig_charge(r, 0, &t, "mini", 100));
        rig_commit(r);
        assert_true(rig_charge(r, 0, &t, "mini", 100));
        rig_commit(r);
        assert_int_equal(checkpoint_commit(&r->l), STORE_OK);
        assert_int_equal(rig_audit(r), 0);
        int one = 1;
        assert_int_equal(store_write(&r->l.store, spoil[i], &one), STORE_OK);
        struct json j = rig_call(r, "{'cmd':'audit'}");
        assert_true(json_size(&j, rig_array(&j, "differences")) > 0);
        rig_stop(r, false);
        rig_remove(r);
        rig_init(r);
        assert_true(rig_start(r));
    }
    struct tenant t = rig_tenant(r, "a@a.a", "1", NULL);
    atomic_fetch_add(&r->shm.account_words[t.account].available, 1);
    struct json j = rig_call(r, "{'cmd':'audit'}");
    IS(j, "result.differences.0.kind", "words in shared memory");
    atomic_fetch_sub(&r->shm.account_words[t.account].available, 1);
    r->l.accounts[t.account].balance += 5;
    j = rig_call(r, "{'cmd':'audit'}");
    IS(j, "result.differences.1.kind", "balance in memory");
    r->l.accounts[t.account].balance -= 5;
    assert_int_equal(rig_audit(r), 0);
}

static void backup_and_restore(void **state) {
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "1", NULL);
    for (int i = 0; i < 30; i++) assert_true(rig_charge(r, 0, &t, "mini", 100));
    rig_commit(r);
    assert_true(rig_charge(r, 0, &t, "mini", 100)); /* in the ring alone */
    char file[128], mdb[128], pepper[128];
    snprintf(file, sizeof file, "%s/backup", r->dir);
    snprintf(mdb, sizeof mdb, "%s/ledger.mdb", r->state);
    snprintf(pepper, sizeof pepper, "%s/pepper", r->state);
    struct json j = rig_call(r, "{'cmd':'backup','file':'%s'}", file);
    IS(j, "result.file", file);
    IS(j, "result.accounts", "1");
    struct stat st;
    assert_true(stat(file, &st) == 0 && (st.st_mode & 0777) == 0600);
    j = rig_call(r, "{'cmd':'audit','file':'%s'}", file);
    IS(j, "result.difference_count", "0");
    char lock[160];
    snprintf(lock, sizeof lock, "%s-lock", file);
    assert_int_equal(access(lock, F_OK), -1);
    j = rig_call(r, "{'cmd':'backup','file':'relative'}");
    REFUSED(j, "invalid_value");
    j = rig_call(r, "{'cmd':'backup','file':'/nonexistent/x'}");
    REFUSED(j, "backup_failed");
    rig_commit(r);
    rig_stop(r, true);
    /* Restored over the old state, the pepper lost: the segment is of another ledger. */
    assert_int_equal(rename(file, mdb), 0);
    assert_int_equal(unlink(pepper), 0);
    assert_false(rig_start(r));
    assert_int_equal(r->l.exit_status, 2);
    assert_non_null(strstr(r->alert, "another ledger"));
    rig_stop(r, true);
    unlink(r->segment);
    assert_true(rig_start(r));
    assert_true(r->l.next_usage - 1 == 30 || r->l.next_usage - 1 == 31);
    j = rig_call(r, "{'cmd':'key.show','key':'%s'}", t.secret); /* the same pepper, so the whole key is known */
    IS(j, "result.id", t.key_id);
    assert_int_equal(rig_audit(r), 0);
}

static void starts_that_are_refused(void **state) {
    struct rig *r = *state;
    static const char tokens[] =
        "listen 127.0.0.1:1; control c; state_dir s; billing { unit tokens; } upstream echo { dialect echo; }\n"
        "model gpt-4o { route echo; price input 2.75 output 11; tokens input 1 output 2; max_output 100; context 1000; "
        "}\n";
    rig_tenant(r, "a@a.a", "1", NULL);
    rig_tenant(r, "b@b.b", "1", NULL);
    rig_stop(r, true);
    r->conf_text = tokens;
    assert_false(rig_start(r));
    assert_int_equal(r->l.exit_status, 2);
    assert_non_null(strstr(r->alert, "unit"));
    rig_stop(r, true);
    r->conf_text = rig_conf;
    r->sizes.max_accounts = 1;
    assert_false(rig_start(r));
    assert_int_equal(r->l.exit_status, 2);
    assert_non_null(strstr(r->alert, "max_accounts"));
    rig_stop(r, true);
    r->sizes = rig_sizes;
    r->sizes.max_keys = 1;
    unlink(r->segment);
    assert_false(rig_start(r));
    assert_non_null(strstr(r->alert, "max_keys"));
    rig_stop(r, true);
    r->sizes = rig_sizes;
    unlink(r->segment);
    assert_true(rig_start(r));
}

/* Whichever read of a start fails, nothing is taken for the end of a table: it is refused, or it is whole. */
static void starts_that_cannot_read(void **state) {
    struct rig *r = *state;
    struct tenant t[3];
    for (int i = 0; i < 3; i++) {
        char email[16];
        snprintf(email, sizeof email, "n%d@x.y", i);
        t[i] = rig_tenant(r, email, "1", NULL);
        assert_true(rig_charge(r, 0, &t[i], "mini", 10));
        rig_commit(r);
    }
    rig_call(r, "{'cmd':'key.revoke','key':'%s'}", t[1].key_id);
    rig_call(r, "{'cmd':'cap.set','who':'%s','model':'mini','amount':'1'}", t[2].key_id);
    int refused = 0;
    for (r->fail_read = 1;; r->fail_read++) {
        rig_stop(r, false);
        unlink(r->segment);
        bool ready = rig_start(r), met = r->l.store.fail_read == 0;
        r->l.store.fail_read = 0;
        if (ready) {
            int64_t cap;
            assert_int_equal(r->l.account_count, 3);
            assert_int_equal(r->l.key_count, 3);
            assert_int_equal(rig_audit(r), 0);
            assert_true(shm_cap_find(&r->shm, ledger_key_index(&r->l, 3) | SHM_CAP_KEY, rig_name_id(r, NAME_MODEL, "mini"),
                                     &cap));
        } else {
            assert_int_equal(r->l.exit_status, 2);
            refused++;
        }
        if (!met) break;
    }
    r->fail_read = 0;
    assert_in_range(refused, 10, 100);
}

static void tokens_unit(void **state) {
    struct rig *r = *state;
    rig_stop(r, true);
    rig_remove(r);
    rig_init(r);
    r->conf_text =
        "listen 127.0.0.1:1; control c; state_dir s; billing { unit tokens; } upstream echo { dialect echo; }\n"
        "model gpt-4o { route echo; price input 2.75 output 11; tokens input 1 output 2; max_output 100; context 1000; "
        "}\n";
    assert_true(rig_start(r));
    struct tenant t = rig_tenant(r, "a@a.a", "1000000", NULL);
    struct json j = rig_call(r, "{'cmd':'credit','account':'a@a.a','amount':'0.5'}");
    REFUSED(j, "invalid_value");
    assert_true(rig_charge(r, 0, &t, "gpt-4o", 100));
    rig_commit(r);
    j = rig_call(r, "{'cmd':'balance','account':'a@a.a'}");
    IS(j, "result.unit", "tokens");
    IS(j, "result.available", "999900");
    assert_int_equal(rig_audit(r), 0);
}

/* ---- who may say what -------------------------------------------------------------------------------------------- */

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

static void origins(void **state) {
    struct rig *r = *state;
    static const char *const cmds[] = {
        "account.create", "account.list", "key.create", "credit",       "balance",
        "usage",          "audit",        "backup",     "names.intern", "ledger.status"
    };
    for (size_t i = 0; i < ARRAY_LEN(cmds); i++) {
        char text[100];
        int n = snprintf(text, sizeof text, "{\"cmd\":\"%s\",\"account\":\"a@a.a\",\"email\":\"a@a.a\",\"origin\":0}",
                         cmds[i]);
        struct json j = rig_send(r, IPC_FROM_WORKER + 1, slice_of(text, (size_t)n));
        REFUSED(j, "forbidden");
    }
    struct json j = rig_call(r, "{'cmd':'names.intern','names':[]}");
    REFUSED(j, "forbidden");
    j = rig_call(r, "{'cmd':'no.such'}");
    REFUSED(j, "unknown_command");
    j = rig_call(r, "{'nothing':1}");
    REFUSED(j, "unknown_command");
    j = rig_call(r, "not json");
    REFUSED(j, "invalid_json");
    j = rig_call(r, "[]");
    REFUSED(j, "invalid_json");
    j = rig_call(r, "{'cmd':'ledger.status'}");
    IS(j, "result.shed", "no");
}

static void names_are_for_ever(void **state) {
    struct rig *r = *state;
    struct json j = rig_send(r, IPC_FROM_MASTER,
                             SLICE("{\"cmd\":\"names.intern\",\"names\":[{\"kind\":0,\"name\":\"mini\"},{\"kind\":"
                                   "\"model\",\"name\":\"new one\"},"
                                   "{\"kind\":\"tier\",\"name\":\"new one\"}]}"));
    char ids[64];
    snprintf(ids, sizeof ids, "%.*s", SLICE_ARG(rig_at(r, &j, "result.ids")));
    restart(r, false, true);
    j = rig_send(r, IPC_FROM_MASTER,
                 SLICE("{\"cmd\":\"names.intern\",\"names\":[{\"kind\":0,\"name\":\"mini\"},{\"kind\":\"model\","
                       "\"name\":\"new one\"},"
                       "{\"kind\":\"tier\",\"name\":\"new one\"}]}"));
    IS(j, "result.ids", ids);
    j = rig_send(r, IPC_FROM_MASTER, SLICE("{\"cmd\":\"names.intern\",\"names\":[{\"kind\":9,\"name\":\"x\"}]}"));
    REFUSED(j, "invalid_value");
}

static void times_and_ids(void **state) {
    (void)state;
    static const struct { const char *text; int64_t ms;
    } good[] = {
        { "1970-01-01", 0 },
        { "2026-01-31T12:00:00Z", 1769860800000 },
        { "2026-01-31T12:00:00.25+02:00", 1769853600250 },
        { "2024-02-29", 1709164800000 },
        { "30s", 1000000000000 - 30000 },
        { "2w", 1000000000000 - 14 * 86400000ll },
    };
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        int64_t ms;
        assert_true(time_parse(slice_str(good[i].text), 1000000000000, &ms));
        assert_int_equal(ms, good[i].ms);
    }
    static const char *const bad[] = { "",
                                       "d",
                                       "30",
                                       "30x",
                                       "2026",
                                       "2026-13-01",
                                       "2026-02-30",
                                       "2026-01-01T",
                                       "2026-01-01T25:00:00Z",
                                       "2026-01-01T00:00:00",
                                       "2026-01-01T00:00:00Zx",
                                       "-3d",
                                       "99999999999d" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int64_t ms;
        if (time_parse(slice_str(bad[i]), 0, &ms)) fail_msg("%s is taken for a time", bad[i]);
    }
    char id[ID_TEXT];
    uint64_t back;
    for (uint64_t v = 1; v < 1ull << 60; v = v * 7 + 3) {
        size_t len = id_write(id, ID_KEY, v);
        assert_int_equal(len, strlen(id));
        assert_true(id_read(slice_str(id), ID_KEY, &back) && back == v);
        assert_false(id_read(slice_str(id), ID_USAGE, &back));
    }
    assert_false(id_read(SLICE("key_"), ID_KEY, &back) || id_read(SLICE("key_A"), ID_KEY, &back) ||
                 id_read(SLICE("key_zzzzzzzzzzzzz"), ID_KEY, &back));
    id_write(id, ID_ENTRY, 36);
    assert_string_equal(id, "ent_0000000010");
    struct slice begin, end;
    key_shown(SLICE("sk-abcdefghijklmnopqrstuvwxyz012345"), SLICE("sk-"), &begin, &end);
    assert_true(slice_is(begin, "sk-abcd") && slice_is(end, "2345"));
    key_shown(SLICE("short-key-1"), SLICE("sk-"), &begin, &end);
    assert_true(begin.len + end.len <= 3);
}

static void emails(void **state) {
    (void)state;
    static const struct { const char *text, *normal; /* NULL: refused */
    } cases[] = {
        { "a@b.c", "a@b.c" },
        { "  Dev+Tag@Example.COM\t\n", "dev+tag@example.com" },
        { "\u00a0\u3000x@y\u2003", "x@y" },
        { "M\u00dcLLER@B\u00dcCHER.DE", "m\u00fcller@b\u00fccher.de" },
        { "\u0418\u0412\u0410\u041d@\u041f\u041e\u0427\u0422\u0410.\u0420\u0424",
          "\u0438\u0432\u0430\u043d@\u043f\u043e\u0447\u0442\u0430.\u0440\u0444" },
        { "\u0130@x.y", "\u0130@x.y" },
        { "", NULL },
        { "   ", NULL },
        { "a b@c.d", NULL },
        { "a\u00a0b@c.d", NULL },
        { "a\u202eb@c.d", NULL },
        { "a\u200bb@c.d", NULL },
        { "\ufeffa@c.d", NULL },
        { "a\x01@c.d", NULL },
        { "a\xff@c.d", NULL },
        { "a\xc0\x80@c.d", NULL },
        { "a@b@c", NULL },
        { "@b.c", NULL },
        { "a@", NULL },
        { "a@.b", NULL },
        { "a@b.", NULL },
        { "a@b..c", NULL },
        { "a@b_c", NULL },
        { "\"a\"@b.c", NULL },
        { "<a@b.c>", NULL },
    };
    char out[STORE_EMAIL + 1], longest[300];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        bool ok = email_normalise(slice_str(cases[i].text), out);
        if (ok != !!cases[i].normal || (ok && strcmp(out, cases[i].normal) != 0))
            fail_msg("case %zu, \"%s\": %s", i, cases[i].text, ok ? out : "refused");
    }
    memset(longest, 'x', sizeof longest);
    longest[250] = '@';
    assert_true(email_normalise(slice_of(longest, 254), out) && strlen(out) == 254);
    assert_false(email_normalise(slice_of(longest, 255), out));
}

static void pepper(void **state) {
    struct rig *r = *state;
    uint8_t one[32], two[32];
    char err[256], path[128];
    snprintf(path, sizeof path, "%s/pepper", r->state);
    struct stat st;
    assert_true(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600 && st.st_size == 32);
    assert_int_equal(ledger_pepper(r->state, one, err, sizeof err), 0);
    assert_memory_equal(one, r->h.pepper, 32);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(ledger_pepper(r->state, two, err, sizeof err), 0); /* out of the database */
    assert_memory_equal(one, two, 32);
    FILE *f = fopen(path, "w");
    fputs("00000000000000000000000000000000", f);
    fclose(f);
    assert_int_equal(ledger_pepper(r->state, two, err, sizeof err), 0); /* the database decides */
    assert_memory_equal(one, two, 32);
    assert_int_equal(ledger_probe(r->state, err, sizeof err), 0);
    assert_int_equal(ledger_probe("/nonexistent", err, sizeof err), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(accounts),
        TEST(account_table_full),
        TEST(credits),
        TEST(keys),
        TEST(key_import),
        TEST(key_table_full),
        TEST(model_lists),
        TEST(searches),
        TEST(late_records),
        TEST(key_limits),
        TEST(caps),
        TEST(charges_and_usage),
        TEST(restarts),
        TEST(places_stay),
        TEST(forged_records),
        TEST(forced_below_zero),
        TEST(full_disk),
        TEST(failed_disk),
        TEST(killed_while_committing),
        TEST(random_histories),
        TEST(idle_syncs),
        TEST(audit_finds_it),
        TEST(backup_and_restore),
        TEST(starts_that_are_refused),
        TEST(starts_that_cannot_read),
        TEST(tokens_unit),
        TEST(many_reports),
        TEST(origins),
        TEST(names_are_for_ever),
        TEST(pepper),
        cmocka_unit_test(times_and_ids),
        cmocka_unit_test(emails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
