/* The ledger as a process: starts, restarts at bad moments, starts that are refused, who may ask what, names, the pepper. */
#include "tests/unit/ledger_asserts.h"

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
        rig_settle(r, i % 2, slot, i);
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
        char email[32];
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

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(restarts),
        TEST(places_stay),
        TEST(starts_that_are_refused),
        TEST(starts_that_cannot_read),
        TEST(origins),
        TEST(names_are_for_ever),
        TEST(pepper),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
