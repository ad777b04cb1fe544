/* Audits that must find what is wrong, backups that must be whole. */
#include "tests/unit/ledger_asserts.h"

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

/* The lock file that an audit makes beside a copy goes with it; one that was there before belongs to somebody. */
static void audits_leave_no_lock_and_take_none(void **state) {
    struct rig *r = *state;
    char live[128], lock[160], nothing[128];
    struct stat before, after;
    rig_tenant(r, "a@a.a", "1", NULL);
    snprintf(live, sizeof live, "%s/ledger.mdb", r->state);
    snprintf(lock, sizeof lock, "%s-lock", live);
    assert_int_equal(stat(lock, &before), 0);
    struct json j = rig_call(r, "{'cmd':'audit','file':'%s'}", live);
    IS(j, "result.difference_count", "0");
    assert_int_equal(stat(lock, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    snprintf(nothing, sizeof nothing, "%s/nothing", r->dir);
    j = rig_call(r, "{'cmd':'audit','file':'%s'}", nothing);
    REFUSED(j, "not_found");
    snprintf(lock, sizeof lock, "%s-lock", nothing);
    assert_int_equal(access(lock, F_OK), -1);
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

/* Not over what the ledger itself lives on, and one at a time: two would write the same FILE.tmp. */
static void backups_that_are_refused(void **state) {
    static const char *const own[] = { "ledger.mdb", "ledger.mdb-lock", "pepper" };
    struct rig *r = *state;
    struct stat before, after;
    char path[160], link[160];
    rig_tenant(r, "a@a.a", "1", NULL);
    snprintf(link, sizeof link, "%s/backup", r->dir);
    for (size_t i = 0; i < ARRAY_LEN(own); i++) {
        snprintf(path, sizeof path, "%s/%s", r->state, own[i]);
        assert_int_equal(stat(path, &before), 0);
        struct json j = rig_call(r, "{'cmd':'backup','file':'%s/../state/%s'}", r->state, own[i]);
        REFUSED(j, "invalid_value");
        assert_int_equal(symlink(path, link), 0);
        j = rig_call(r, "{'cmd':'backup','file':'%s'}", link);
        REFUSED(j, "invalid_value");
        unlink(link);
        assert_int_equal(stat(path, &after), 0);
        assert_int_equal(before.st_ino, after.st_ino);
    }
    char text[256];
    int n = snprintf(text, sizeof text, "{\"cmd\":\"backup\",\"file\":\"%s\"}", link);
    struct ipc_header h = { .type = IPC_CALL, .id = 1000, .origin = IPC_FROM_CONTROL };
    assert_int_equal(ipc_send(&r->master, &h, slice_of(text, (size_t)n), NULL, 0), 0);
    struct json j = rig_send(r, IPC_FROM_CONTROL, slice_of(text, (size_t)n));
    REFUSED(j, "busy");
    for (int i = 0; i < 2000 && r->l.readers; i++) ledger_turn(&r->l, 5);
    j = rig_call(r, "{'cmd':'audit','file':'%s'}", link);
    IS(j, "result.difference_count", "0");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(audit_finds_it),
        TEST(audits_leave_no_lock_and_take_none),
        TEST(backup_and_restore),
        TEST(backups_that_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
