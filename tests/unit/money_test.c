/* A worker's side of money: what each call does to words, slots and ring. */
#include "tests/unit/shm_fixture.h"

#include "shm/money.h"
#include "shm/steps.h"

static struct money m;

static int setup(void **state) {
    fixture_setup(state);
    struct shm *s = &((struct fixture *)*state)->shm;
    atomic_store(&s->ranges[1].state, RANGE_LIVE);
    atomic_store(&s->account_words[2].available, 1000);
    atomic_store(&s->key_words[3].available, 600);
    return money_attach(&m, s, 1);
}

static int teardown(void **state) {
    money_detach(&m);
    return fixture_teardown(state);
}

static struct shm_usage usage(bool capped) {
    return (struct shm_usage){ .account = 2, .key = 3, .account_id = 20, .key_id = 30, .capped = capped, .prompt_tokens = 100,
                               .price_input = 1000, .price_output = 2000, .ratio_millionths = RATIO_ONE, .request_id_len = 5,
                               .request_id = "req-5", .model_len = 6, .model = "modelX" };
}

static int64_t available(void) { return atomic_load(&m.shm->account_words[2].available); }
static int64_t key_available(void) { return atomic_load(&m.shm->key_words[3].available); }
static int64_t concurrency(void) { return atomic_load(&m.shm->key_words[3].concurrency); }

static struct shm_slot *admitted(bool capped, int64_t hold) {
    struct shm_usage u = usage(capped);
    struct shm_slot *slot = money_begin(&m, &u);
    assert_non_null(slot);
    assert_true(money_concurrency(&m, slot, UINT64_MAX));
    assert_int_equal(money_hold(&m, slot, hold), MONEY_OK);
    return slot;
}

static void test_hold_and_settle(void **state) {
    (void)state;
    struct shm_slot *slot = admitted(false, 300);
    uint64_t id = slot->usage.exchange_id;
    assert_int_equal(id >> 48, 1); /* ids of different ranges never meet */
    assert_int_equal(atomic_load(&slot->state), SLOT_HELD);
    assert_int_equal(available(), 700);
    assert_int_equal(key_available(), 600); /* not capped: untouched */
    assert_int_equal(concurrency(), 1);
    struct shm_record r = { .charge = 120, .status = 200, .meters.n[METER_OUTPUT] = 7 };
    assert_false(money_settle(&m, slot, &r));
    assert_int_equal(atomic_load(&slot->state), SLOT_FREE);
    assert_int_equal(available(), 880);
    assert_int_equal(concurrency(), 0);
    assert_int_equal(atomic_load(&m.shm->ranges[1].head), 1);
    const struct shm_record *pushed = shm_ring(m.shm, 1, 0);
    assert_int_equal(pushed->seq, 0);
    assert_int_equal(pushed->charge, 120);
    assert_int_equal(pushed->uncollected, 0);
    assert_int_equal(pushed->meters.n[METER_OUTPUT], 7);
    assert_int_equal(pushed->usage.exchange_id, id);
    assert_int_equal(pushed->checksum, shm_record_checksum(pushed));
    assert_memory_equal(pushed->usage.request_id, "req-5", 5);
    assert_memory_equal(pushed->usage.model, "modelX", 6);
    assert_int_equal(r.usage.exchange_id, id); /* the caller sees what was pushed */
    assert_int_equal(atomic_load(&slot->seq), 0);
    struct shm_record torn = *pushed;
    torn.usage.model[2] ^= 1;
    assert_true(shm_record_checksum(&torn) != pushed->checksum);
    torn = *pushed;
    torn.charge++;
    assert_true(shm_record_checksum(&torn) != pushed->checksum);
    assert_true(admitted(false, 1)->usage.exchange_id > id);
}

static void test_refusals_undo_everything(void **state) {
    (void)state;
    struct shm_usage u = usage(true);
    struct shm_slot *a = admitted(true, 500), *slot = money_begin(&m, &u);
    assert_true(money_concurrency(&m, slot, 2));
    struct shm_slot *third = money_begin(&m, &u);
    assert_false(money_concurrency(&m, third, 2));
    money_refuse(&m, third, false);
    assert_int_equal(money_hold(&m, slot, 101), MONEY_NO_KEY_LIMIT);
    money_refuse(&m, slot, true);
    assert_int_equal(available(), 500);
    assert_int_equal(key_available(), 100);
    assert_int_equal(concurrency(), 1);
    /* enough in the key, not in the account: the key gets its part back */
    atomic_store(&m.shm->key_words[3].available, 5000);
    slot = money_begin(&m, &u);
    assert_true(money_concurrency(&m, slot, UINT64_MAX));
    assert_int_equal(money_hold(&m, slot, 501), MONEY_NO_BALANCE);
    assert_int_equal(key_available(), 5000);
    assert_int_equal(money_hold(&m, slot, 500), MONEY_OK); /* a caller may ask for less */
    assert_int_equal(available(), 0);
    assert_int_equal(m.live, 2);
    (void)a;
    /* limits of nothing */
    struct shm_slot *none = money_begin(&m, &u);
    assert_false(money_concurrency(&m, none, 0));
    money_refuse(&m, none, false);
    /* an account in debt does not even start what costs nothing */
    atomic_store(&m.shm->account_words[2].available, -1);
    none = money_begin(&m, &u);
    assert_int_equal(money_hold(&m, none, 0), MONEY_NO_BALANCE);
    money_refuse(&m, none, false);
    assert_int_equal(concurrency(), 2);
}

static void test_lower(void **state) {
    (void)state;
    struct shm_slot *slot = admitted(true, 500);
    money_lower(&m, slot, 200);
    assert_int_equal(atomic_load(&slot->hold), 200);
    assert_int_equal(available(), 800);
    assert_int_equal(key_available(), 400);
    money_lower(&m, slot, 300); /* never raises */
    assert_int_equal(atomic_load(&slot->hold), 200);
    struct shm_record r = { .charge = 200 };
    money_settle(&m, slot, &r);
    assert_int_equal(available(), 800);
    assert_int_equal(key_available(), 400);
}

/* A call that cost more than its hold: what account and key have, both, and the rest is uncollected. */
static void test_beyond_the_hold(void **state) {
    (void)state;
    static const struct { bool capped; int64_t account, key, hold, cost, charge; } cases[] = {
        { false, 1000, 0, 100, 250, 250 },  { false, 150, 0, 100, 250, 150 }, { false, 100, 0, 100, 250, 100 },
        { true, 1000, 600, 100, 250, 250 }, { true, 1000, 160, 100, 250, 160 }, { true, 130, 600, 100, 250, 130 },
        { true, 1000, 100, 100, 101, 100 }, { true, 100, 600, 100, 250, 100 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        atomic_store(&m.shm->account_words[2].available, cases[i].account);
        atomic_store(&m.shm->key_words[3].available, cases[i].key);
        struct shm_slot *slot = admitted(cases[i].capped, cases[i].hold);
        struct shm_record r = { .charge = cases[i].cost };
        money_settle(&m, slot, &r);
        assert_int_equal(r.charge, cases[i].charge);
        assert_int_equal(r.uncollected, cases[i].cost - cases[i].charge);
        assert_int_equal(available(), cases[i].account - cases[i].charge);
        assert_int_equal(key_available(), cases[i].key - (cases[i].capped ? cases[i].charge : 0));
    }
    /* in debt meanwhile (an operator's forced debit): nothing more is taken */
    atomic_store(&m.shm->account_words[2].available, 100);
    struct shm_slot *slot = admitted(false, 100);
    atomic_store(&m.shm->account_words[2].available, -50);
    struct shm_record r = { .charge = 300 };
    money_settle(&m, slot, &r);
    assert_int_equal(r.charge, 100);
    assert_int_equal(available(), -50);
}

static void test_room(void **state) {
    (void)state;
    struct shm_slot *slots[8];
    struct shm_usage u = usage(false);
    for (int i = 0; i < 8; i++) slots[i] = admitted(false, 1);
    assert_false(money_has_room(&m)); /* no slot */
    assert_null(money_begin(&m, &u));
    for (int i = 0; i < 8; i++) money_settle(&m, slots[i], &(struct shm_record){ .charge = 1 });
    /* the ring: 1024 places, and each live slot has one */
    for (int i = 8; i < 1020; i++) money_settle(&m, admitted(false, 0), &(struct shm_record){ 0 });
    for (int i = 0; i < 4; i++) slots[i] = admitted(false, 0);
    assert_false(money_has_room(&m));
    assert_null(money_begin(&m, &u));
    for (int i = 0; i < 4; i++) money_settle(&m, slots[i], &(struct shm_record){ 0 });
    assert_int_equal(atomic_load(&m.shm->ranges[1].head), 1024);
    atomic_store(&m.shm->ranges[1].tail, 1);
    assert_true(money_has_room(&m));
    money_settle(&m, admitted(false, 0), &(struct shm_record){ 0 });
    assert_int_equal(shm_ring(m.shm, 1, 1024)->seq, 1024);
    assert_ptr_equal(shm_ring(m.shm, 1, 1024), shm_ring(m.shm, 1, 0));
}

/* A worker that follows a dead one: goes on with head and ids, sees only what is free. */
static void test_attach_continues(void **state) {
    struct shm *s = &((struct fixture *)*state)->shm;
    struct shm_slot *slot = admitted(false, 5);
    money_settle(&m, slot, &(struct shm_record){ .charge = 5 });
    uint64_t id = atomic_load(&s->ranges[1].next_exchange_id);
    atomic_store(&s->ranges[1].ack, RANGE_IDLE);
    atomic_store(&shm_slot(s, 1, 0)->state, SLOT_HELD);
    money_detach(&m);
    assert_int_equal(money_attach(&m, s, 1), 0);
    assert_int_equal(m.live, 1);
    assert_int_equal(m.free_count, 7);
    assert_int_equal(atomic_load(&s->ranges[1].ack), 0);
    slot = admitted(false, 5);
    assert_ptr_not_equal(slot, shm_slot(s, 1, 0));
    assert_int_equal(slot->usage.exchange_id, id);
    assert_int_equal(atomic_load(&s->ranges[1].head), 1);
}

static void test_wake_the_ledger_once(void **state) {
    struct shm *s = &((struct fixture *)*state)->shm;
    atomic_store(&s->shared->ledger_asleep, 1);
    assert_true(money_settle(&m, admitted(false, 1), &(struct shm_record){ 0 }));
    assert_false(money_settle(&m, admitted(false, 1), &(struct shm_record){ 0 }));
}

static void test_estimate(void **state) {
    (void)state;
    struct shm_usage u = usage(false);
    struct meters x;
    assert_int_equal(money_estimate(&u, false, 4000, &x), 0);
    assert_int_equal(x.n[METER_INPUT] + x.n[METER_OUTPUT], 0);
    assert_int_equal(money_estimate(&u, true, 0, &x), 102); /* something was delivered: at least a token */
    assert_int_equal(money_estimate(&u, true, 5, &x), 104);
    assert_int_equal(x.n[METER_INPUT], 100);
    assert_int_equal(x.n[METER_OUTPUT], 2);
    u.ratio_millionths = 2 * RATIO_ONE;
    assert_int_equal(money_estimate(&u, true, 5, &x), 208);
    u.ratio_millionths = RATIO_ONE;
    u.unit_tokens = 1;
    u.price_input = 1000000; /* a weight of one */
    u.price_output = 3000000;
    assert_int_equal(money_estimate(&u, true, 5, &x), 106);
    assert_true(money_estimate(&u, true, UINT64_MAX, &x) > 0); /* saturates */
}

static void test_names_are_cut_to_their_length(void **state) {
    (void)state;
    struct shm_usage u = usage(false);
    u.request_id_len = SHM_REQUEST_ID;
    memset(u.request_id, 'a', SHM_REQUEST_ID);
    struct shm_slot *slot = money_begin(&m, &u);
    assert_memory_equal(slot->usage.request_id, u.request_id, SHM_REQUEST_ID);
    money_refuse(&m, slot, false);
    slot = admitted(false, 1); /* the next one: its five bytes only are its own */
    assert_int_equal(slot->usage.request_id_len, 5);
    assert_memory_equal(slot->usage.request_id, "req-5aa", 7);
}

/* ---- the pause --------------------------------------------------------------------------------------------------- */

static void test_top_answers_and_passes(void **state) {
    struct shm *s = &((struct fixture *)*state)->shm;
    atomic_store(&s->header->probe, 9);
    money_top(&m, 1234);
    assert_int_equal(atomic_load(&s->ranges[1].turn_ns), 1234);
    assert_int_equal(atomic_load(&s->ranges[1].probe_ack), 9);
    assert_int_equal(atomic_load(&s->ranges[1].ack), 0);
    money_idle(&m);
    assert_true(atomic_load(&s->ranges[1].ack) == RANGE_IDLE);
    atomic_store(&s->header->probe, 10);
    money_wake(&m);
    assert_int_equal(atomic_load(&s->ranges[1].ack), 0);
    assert_int_equal(atomic_load(&s->ranges[1].probe_ack), 10);
}

/* A worker with the header read-only meets pause 1, is told of pause 3 without a fall between, and goes on after the fall. */
static void sleeper(struct fixture *f) {
    if (shm_drop_writable(&f->shm, f->ro_fd) != 0) _exit(1);
    m.shm = &f->shm;
    money_top(&m, 0);
    if (atomic_load(&f->shm.header->pause) != 4) _exit(2);
    atomic_store(&f->shm.ranges[1].active, 77);
}

static void test_sleeps_through_a_pause(void **state) {
    struct fixture *f = *state;
    struct shm *s = &f->shm;
    atomic_store(&s->header->pause, 1);
    pid_t pid = fork();
    if (pid == 0) {
        sleeper(f);
        _exit(0);
    }
    unsigned tries = 0;
    for (uint32_t epoch = 1; epoch <= 3; epoch += 2) {
        atomic_store(&s->header->pause, epoch);
        shm_futex_wake(&s->header->pause);
        while (atomic_load(&s->ranges[1].ack) != epoch && tries < 500000) shm_relax(&tries);
        assert_int_equal(atomic_load(&s->ranges[1].ack), epoch);
        assert_int_equal(atomic_load(&s->ranges[1].active), 0);
    }
    atomic_store(&s->header->pause, 4);
    shm_futex_wake(&s->header->pause);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(atomic_load(&s->ranges[1].active), 77);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_hold_and_settle), T(test_refusals_undo_everything), T(test_lower), T(test_beyond_the_hold), T(test_room),
        T(test_attach_continues), T(test_wake_the_ledger_once), T(test_estimate), T(test_names_are_cut_to_their_length),
        T(test_top_answers_and_passes), T(test_sleeps_through_a_pause),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
