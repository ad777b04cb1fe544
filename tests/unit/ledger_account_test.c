/* Accounts in the ledger: their life, credits and debits, cost caps, a deployment that counts in tokens. */
#include "tests/unit/ledger_asserts.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(accounts),
        TEST(account_table_full),
        TEST(credits),
        TEST(caps),
        TEST(tokens_unit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
