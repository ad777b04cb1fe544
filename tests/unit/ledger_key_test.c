/* Keys in the ledger: their life, import, a full table, lists of models, limits that come and go under calls. */
#include "tests/unit/ledger_asserts.h"

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
    assert_null(memmem(j.text, j.len, "sk-unknown", 10)); /* it may be a secret */
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
    rig_settle(r, 0, slot, 5);
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
    rig_settle(r, 0, slot, 60);
    assert_int_equal(atomic_load(word), 940);
    rig_commit(r);
    assert_int_equal(atomic_load(word), 940);
    assert_int_equal(recover_verify(&r->shm, &r->l.truth), 0);
    /* Read as uncapped in an earlier turn, admitted after the limit was published. */
    u.capped = 0;
    slot = rig_admit(r, 0, &u, 40);
    rig_settle(r, 0, slot, 40);
    rig_commit(r);
    assert_int_equal(atomic_load(word), 900);
    assert_int_equal(recover_verify(&r->shm, &r->l.truth), 0);
    rig_call(r, "{'cmd':'key.set','key':'%s','limit':'0.000002'}", t.key_id);
    assert_int_equal(atomic_load(word), 1900);
    u.capped = 1;
    assert_null(rig_admit(r, 0, &u, 1901));
    slot = rig_admit(r, 0, &u, 500);
    rig_call(r, "{'cmd':'key.set','key':'%s','limit':'none'}", t.key_id);
    rig_settle(r, 0, slot, 500);
    rig_commit(r);
    rig_call(r, "{'cmd':'key.set','key':'%s','limit':'0.000003'}", t.key_id);
    assert_int_equal(atomic_load(word), 3000 - 600);
    assert_int_equal(recover_verify(&r->shm, &r->l.truth), 0);
    struct json j = rig_call(r, "{'cmd':'key.show','key':'%s'}", t.key_id);
    IS(j, "result.spent", "0.0000006");
    assert_int_equal(rig_audit(r), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(keys),
        TEST(key_import),
        TEST(key_table_full),
        TEST(model_lists),
        TEST(key_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
