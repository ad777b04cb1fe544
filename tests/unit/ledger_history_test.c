/* Histories of a ledger, at random: what a model says must be there after each; and kills in mid-commit. */
#include "tests/unit/ledger_asserts.h"
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

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

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(killed_while_committing),
        TEST(random_histories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
