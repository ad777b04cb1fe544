/* Records from the rings to the disk: those that no honest worker writes, disks that do not take them, syncs. */
#include "tests/unit/ledger_asserts.h"
#include <errno.h>

/* Pushes a record as it stands (checksum made if `sum`), and takes its charge from the words as a worker would have. */
static void push_forged(struct rig *r, struct shm_record *rec, bool sum, bool take) {
    struct shm_range *range = &r->shm.ranges[0];
    uint64_t head = atomic_load(&range->head);
    if (sum) rec->checksum = shm_record_checksum(rec);
    *shm_ring(&r->shm, 0, head) = *rec;
    if (take && rec->charge > 0) atomic_fetch_sub(&r->shm.account_words[rec->usage.account].available, rec->charge);
    atomic_store(&range->head, head + 1);
}

/* What is wrong with the record of that kind; false: its charge was not taken from the words. */
static bool forge(struct shm_record *rec, int kind, const struct tenant *other, uint32_t other_id) {
    switch (kind) {
    case 0: rec->seq += 1; break;
    case 1: rec->checksum = 42; break;
    case 2: rec->usage.key = other->key; break;
    case 3: rec->usage.key = other->key; rec->usage.key_id = other_id; break;
    case 4: rec->usage.account_id = 77; break;
    case 5: rec->charge = -1000; break;
    case 6: rec->uncollected = -5; break;
    case 7: rec->charge = 2000000000; break;
    case 8: rec->usage.request_id_len = 60000; break;
    case 9: rec->usage.model_len = 97; break;
    case 10: rec->usage.account = 60; rec->usage.account_id = 0; break;
    case 11: rec->usage.account = UINT32_MAX; return false;
    case 12: rec->usage.key = rig_sizes.max_keys; break;
    case 13: rec->uncollected = INT64_MAX; break;
    case 14: rec->charge = INT64_MAX; return false; /* what was never taken must not come back */
    case 15: rec->charge = 2000000000; return false;
    }
    return true;
}

static void forged_records(void **state) {
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "1", NULL), o = rig_tenant(r, "b@b.b", "1", NULL);
    for (int kind = 0; kind < 16; kind++) {
        struct shm_record rec = rig_record(1000);
        rec.usage = rig_usage(r, &t, "mini");
        rec.seq = atomic_load(&r->shm.ranges[0].head);
        bool taken = forge(&rec, kind, &o, r->l.keys[o.key].id);
        push_forged(r, &rec, kind != 1, taken);
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
}

/* Many in one group, good ones among them; and a head that lies. */
static void forged_among_good(void **state) {
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "1", NULL);
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
    assert_int_equal(r->l.count.quarantined, 25);
    assert_int_equal(rig_available(r, &t), 1000000000 - 250);
    assert_int_equal(rig_audit(r), 0);
    restart(r, false, false);
    assert_int_equal(r->l.count.quarantined, 25);
    assert_int_equal(rig_available(r, &t), 1000000000 - 250);
    /* A head that lies: what is right before it is booked, the rest passed over. */
    assert_true(rig_charge(r, 1, &t, "mini", 10));
    atomic_fetch_add(&r->shm.ranges[1].head, 1ull << 40);
    rig_commit(r);
    assert_int_equal(drain_waiting(&r->l), 0);
    assert_int_equal(r->l.count.quarantined, 26);
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
    rig_settle(r, 0, slot, 600);
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

/* Told to stop while the disk is full: not all is committed, and the exit status says so. */
static void full_disk_at_the_end(void **state) {
    struct rig *r = *state;
    struct tenant t = rig_tenant(r, "a@a.a", "1", NULL);
    assert_true(rig_charge(r, 0, &t, "mini", 100));
    r->l.store.fail_with = ENOSPC;
    r->l.store.fail_commits = 1000;
    rig_stop(r, true);
    assert_int_equal(r->l.exit_status, 1);
    assert_true(rig_start(r));
    rig_commit(r);
    assert_int_equal(r->l.accounts[t.account].balance, 1000000000 - 100);
    assert_int_equal(checkpoint_commit(&r->l), STORE_OK);
    assert_true(rig_charge(r, 0, &t, "mini", 100));
    rig_commit(r);
    r->l.store.fail_with = ENOSPC;
    r->l.store.fail_commits = 1000;
    rig_stop(r, true);
    assert_int_equal(r->l.exit_status, 0); /* only the checkpoint failed: all charges are committed */
    assert_true(rig_start(r));
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

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(forged_records),
        TEST(forged_among_good),
        TEST(forced_below_zero),
        TEST(full_disk),
        TEST(full_disk_at_the_end),
        TEST(failed_disk),
        TEST(idle_syncs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
