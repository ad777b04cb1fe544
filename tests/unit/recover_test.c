/* The ledger's side: what a dead worker left, settled and computed again; the pause; credits, debits and limits. */
#include "tests/unit/shm_fixture.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>

#include "shm/counters.h"
#include "shm/money.h"
#include "shm/recover.h"
#include "shm/steps.h"

/* ---- a ledger's memory ------------------------------------------------------------------------------------------- */

static struct {
    int64_t balance[16], key_left[32];
    uint64_t watermark[4];
    int hung, quit_after, asked;
} book;

static int64_t account_committed(void *arg, uint32_t a) { (void)arg; return book.balance[a]; }
static int64_t key_committed(void *arg, uint32_t k) { (void)arg; return book.key_left[k]; }
static uint64_t watermark(void *arg, uint32_t r) { (void)arg; return book.watermark[r]; }
static bool quit(void *arg) { (void)arg; return book.quit_after && ++book.asked > book.quit_after; }
static void hung(void *arg, uint32_t range) {
    struct shm *s = arg;
    book.hung++;
    atomic_store(&s->ranges[range].state, RANGE_DEAD); /* killed and reaped at once */
}

static struct recover_truth truth;
static struct recover_stats stats;
static struct shm *s;
static struct money m;

static int setup(void **state) {
    fixture_setup(state);
    s = &((struct fixture *)*state)->shm;
    memset(&book, 0, sizeof book);
    memset(&stats, 0, sizeof stats);
    truth = (struct recover_truth){ s, account_committed, key_committed, watermark, quit, hung };
    for (int i = 0; i < 16; i++) book.balance[i] = 1000;
    for (uint32_t i = 0; i < 32; i++) {
        struct shm_key k = { .status = KEY_ACTIVE, .id = i, .account = i % 16, .capped = i % 2 };
        memcpy(k.hash, &i, sizeof i);
        assert_true(shm_key_publish(s, i, &k));
        book.key_left[i] = i % 2 ? 500 : -7;
    }
    assert_int_equal(recover_cold(s, &truth, &stats), 0);
    assert_int_equal(stats.repaired_words, 16 + 16);
    atomic_store(&s->ranges[0].state, RANGE_LIVE);
    return money_attach(&m, s, 0);
}

static int teardown(void **state) {
    money_detach(&m);
    return fixture_teardown(state);
}

static int64_t available(uint32_t a) { return atomic_load(&s->account_words[a].available); }
static int64_t key_available(uint32_t k) { return atomic_load(&s->key_words[k].available); }

static struct shm_slot *admitted(uint32_t key, int64_t hold) {
    struct shm_usage u = { .account = key % 16, .key = key, .capped = key % 2, .prompt_tokens = 10, .price_input = 1000, .price_output = 1000,
                           .ratio_millionths = RATIO_ONE, .request_id_len = 3, .request_id = "abc" };
    struct shm_slot *slot = money_begin(&m, &u);
    assert_true(money_concurrency(&m, slot, UINT64_MAX));
    if (hold >= 0) assert_int_equal(money_hold(&m, slot, hold), MONEY_OK);
    return slot;
}

static int die_and_recover(void) {
    atomic_store(&s->ranges[0].state, RANGE_DEAD);
    return recover_dead(s, &truth, &stats);
}

/* What the ledger does with the rings of a range. */
static void commit_ring(uint32_t range) {
    for (; book.watermark[range] < atomic_load(&s->ranges[range].head); book.watermark[range]++) {
        const struct shm_record *r = shm_ring(s, range, book.watermark[range]);
        assert_int_equal(r->checksum, shm_record_checksum(r));
        book.balance[r->usage.account] -= r->charge;
        book.key_left[r->usage.key] -= r->charge;
    }
    atomic_store(&s->ranges[range].tail, book.watermark[range]);
}

/* ---- the dead ---------------------------------------------------------------------------------------------------- */

static void test_settles_by_what_the_slots_say(void **state) {
    (void)state;
    struct shm_slot *half = admitted(1, -1);                       /* PREP: its place was taken */
    struct shm_slot *quiet = admitted(1, 100), *told = admitted(1, 100), *much = admitted(3, 20);
    money_delivered(told, 9);                                      /* 10 + 3 tokens */
    money_delivered(much, 4000);                                   /* far beyond its hold */
    COUNT(&s->counters[0], connections_open, 5);
    COUNT(&s->counters[0], requests, 6);
    atomic_store(&s->ranges[0].connections, 5);
    assert_int_equal(die_and_recover(), 1);
    assert_int_equal(atomic_load(&s->ranges[0].state), RANGE_CLEAN);
    assert_int_equal(atomic_load(&s->header->pause) & 1, 0);
    assert_int_equal(stats.settled, 3);
    struct shm_slot *all[] = { half, quiet, told, much };
    for (int i = 0; i < 4; i++) assert_int_equal(atomic_load(&all[i]->state), SLOT_FREE);
    assert_int_equal(available(1), 1000 - 13);
    assert_int_equal(key_available(1), 500 - 13);
    assert_int_equal(available(3), 1000 - 20);
    assert_int_equal(atomic_load(&s->key_words[1].concurrency), 0);
    assert_int_equal(atomic_load(&s->ranges[0].head), 3);
    int estimated = 0;
    for (uint64_t q = 0; q < 3; q++) {
        const struct shm_record *r = shm_ring(s, 0, q);
        assert_int_equal(r->seq, q);
        assert_int_equal(r->checksum, shm_record_checksum(r));
        assert_true(r->flags & RECORD_DEAD_WORKER);
        estimated += (r->flags & RECORD_ESTIMATED) != 0;
        if (r->usage.key == 3) assert_int_equal(r->uncollected, 10 + 1000 - 20);
    }
    assert_int_equal(estimated, 2);
    assert_int_equal(atomic_load(&s->counters[0].connections_open), 0); /* gauges of the dead are gone, counters stay */
    assert_int_equal(atomic_load(&s->counters[0].requests), 6);
    assert_int_equal(atomic_load(&s->ranges[0].connections), 0);
    assert_int_equal(recover_verify(s, &truth), 0);
    commit_ring(0);
    assert_int_equal(recover_verify(s, &truth), 0);
    assert_int_equal(die_and_recover(), 1); /* a second time there is nothing */
    assert_int_equal(stats.settled, 3);
    assert_int_equal(recover_dead(s, &truth, &stats), 0);
}

/* Rule 4: the record is in the ring, committed even, but words and slot were not touched. Rule 5: another one is half pushed. */
static void test_pushed_or_not(void **state) {
    (void)state;
    struct shm_slot *pushed = admitted(2, 50), *half = admitted(2, 60), *other = admitted(2, 70);
    money_delivered(pushed, 4);
    money_delivered(half, 4);
    money_delivered(other, 4);
    money_settle(&m, pushed, &(struct shm_record){ .charge = 30 });
    commit_ring(0);
    atomic_store(&pushed->state, SLOT_HELD); /* as before its last two steps */
    atomic_fetch_sub(&s->account_words[2].available, 20);
    atomic_fetch_add(&s->key_words[2].concurrency, 1);
    atomic_store(&half->seq, 1); /* head was 1: it had only noted it */
    assert_int_equal(die_and_recover(), 1);
    assert_int_equal(stats.settled, 2);
    assert_int_equal(atomic_load(&s->ranges[0].head), 3);
    assert_int_equal(available(2), 1000 - 30 - 11 - 11);
    assert_int_equal(atomic_load(&s->key_words[2].concurrency), 0);
    assert_int_equal(recover_verify(s, &truth), 0);
}

/* The live keep their holds; words that nobody names are left alone (and a full comparison sees what is wrong with them). */
static void test_named_only(void **state) {
    (void)state;
    struct money other;
    atomic_store(&s->ranges[2].state, RANGE_LIVE);
    assert_int_equal(money_attach(&other, s, 2), 0);
    struct money dead = m;
    m = other;
    admitted(4, 333);
    money_idle(&m);
    m = dead;
    admitted(4, 100);
    atomic_fetch_add(&s->account_words[9].available, 5); /* as if by a bug */
    atomic_fetch_add(&s->account_words[4].available, 5);
    assert_int_equal(die_and_recover(), 1);
    assert_int_equal(available(4), 1000 - 333);
    assert_int_equal(atomic_load(&s->key_words[4].concurrency), 1);
    assert_int_equal(available(9), 1005);
    assert_int_equal(recover_verify(s, &truth), 1);
    assert_int_equal(recover_cold(s, &truth, &stats), 0);
    assert_int_equal(available(9), 1000);
    assert_int_equal(available(4), 1000 - 333);
    money_detach(&other);
}

/* What a stranger may have written into slots and heads does not take the ledger with it. */
static void test_garbage(void **state) {
    (void)state;
    struct shm_slot *a = admitted(2, 10), *b = admitted(2, 10), *c = admitted(2, 10);
    a->usage.account = 4000000000u;
    a->usage.key = 4000000000u;
    a->usage.request_id_len = 60000;
    atomic_store(&b->hold, INT64_MIN);
    money_delivered(b, UINT64_MAX);
    atomic_store(&c->state, 12345);
    assert_int_equal(die_and_recover(), 1);
    assert_int_equal(recover_cold(s, &truth, &stats), 0);
    assert_int_equal(recover_verify(s, &truth), 0);
    atomic_store(&s->ranges[0].head, 1ull << 60);
    atomic_store(&s->ranges[0].state, RANGE_LIVE);
    money_detach(&m);
    assert_int_equal(money_attach(&m, s, 0), 0);
    atomic_store(&s->ranges[0].slots_used, UINT32_MAX);
    shm_slot(s, 0, 0)->usage.account = 1;
    atomic_store(&shm_slot(s, 0, 0)->seq, SLOT_SEQ_NONE);
    atomic_store(&shm_slot(s, 0, 0)->state, SLOT_HELD);
    assert_int_equal(die_and_recover(), 1);
    assert_int_equal(stats.no_room, 1);
}

/* ---- the pause --------------------------------------------------------------------------------------------------- */

static void turn_for_ever(struct fixture *f) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (shm_drop_writable(&f->shm, f->ro_fd) != 0) _exit(1);
    for (;;) {
        money_top(&m, 0);
        struct shm_usage u = { .account = 5, .key = 5, .capped = 1, .ratio_millionths = RATIO_ONE };
        struct shm_slot *slot = money_begin(&m, &u);
        if (!slot) continue; /* the ring is full */
        bool ok = money_concurrency(&m, slot, UINT64_MAX) && money_hold(&m, slot, 7) == MONEY_OK;
        if (ok) money_settle(&m, slot, &(struct shm_record){ .charge = 3 });
        else money_refuse(&m, slot, true);
    }
}

/* A busy worker stands still for each pause, so that words can be compared while it moves them a million times a second. */
static void test_waits_for_a_busy_worker(void **state) {
    struct fixture *f = *state;
    pid_t pid = fork();
    if (pid == 0) turn_for_ever(f);
    /* Until the worker has been busy indeed: on a crowded machine it may not have had its turn in 300 rounds. */
    for (int i = 0; i < 300 || (i < 1000000 && atomic_load(&s->ranges[0].head) <= 300); i++) {
        assert_int_equal(recover_verify(s, &truth), 0);
        if (i % 8 == 0) book.balance[5] += 1000, recover_credit(s, 5, 1000);
        if (i % 8 == 1) book.key_left[5] += 1000, recover_key_add(s, 5, 1000);
        commit_ring(0);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(die_and_recover(), 1);
    assert_int_equal(recover_verify(s, &truth), 0);
    assert_true(atomic_load(&s->ranges[0].head) > 300);
}

static void test_hung_worker_is_reported(void **state) {
    (void)state;
    atomic_store(&s->ranges[3].state, RANGE_DEAD);
    assert_int_equal(recover_dead(s, &truth, &stats), 2); /* range 0 does not turn: reported, killed, settled as well */
    assert_int_equal(book.hung, 1);
    assert_int_equal(stats.hung, 1);
}

static void test_quits_while_it_waits(void **state) {
    (void)state;
    book.quit_after = 1;
    atomic_store(&s->ranges[3].state, RANGE_DEAD);
    assert_int_equal(recover_dead(s, &truth, &stats), -EINTR);
    assert_int_equal(recover_verify(s, &truth), -EINTR);
    assert_int_equal(atomic_load(&s->header->pause) & 1, 0); /* nothing was changed, so nobody has to wait for a successor */
    assert_int_equal(atomic_load(&s->ranges[3].state), RANGE_DEAD);
}

/* Rule 14, and the rest of a pause in which a ledger died. */
static void test_new_ledger_finds_the_flag_up(void **state) {
    (void)state;
    struct shm_slot *slot = admitted(6, 100);
    money_delivered(slot, 4);
    atomic_store(&s->ranges[0].state, RANGE_DEAD);
    atomic_store(&s->header->pause, 41);
    atomic_store(&slot->seq, 0); /* it had noted the place and written nothing */
    book.quit_after = 1;
    atomic_store(&s->ranges[3].state, RANGE_LIVE);
    assert_int_equal(recover_restart(s, &truth, &stats), -EINTR);
    assert_int_equal(atomic_load(&s->header->pause), 43); /* stays up: the words are not whole */
    book.quit_after = 0;
    atomic_store(&s->ranges[3].state, RANGE_CLEAN);
    assert_int_equal(recover_restart(s, &truth, &stats), 1);
    assert_int_equal(atomic_load(&s->header->pause), 46);
    assert_int_equal(available(6), 1000 - 11);
    atomic_store(&s->header->pause, 47);
    recover_let_fall(s);
    assert_int_equal(atomic_load(&s->header->pause), 48);
    recover_let_fall(s);
    assert_int_equal(atomic_load(&s->header->pause), 48);
}

/* ---- rule 11 and limits ------------------------------------------------------------------------------------------ */

static void test_half_done_credits(void **state) {
    (void)state;
    atomic_store(&s->ranges[0].state, RANGE_CLEAN);
    recover_name(s, 7, UINT32_MAX);
    recover_name(s, UINT32_MAX, 9);
    book.balance[7] += 50; /* committed, and the ledger died */
    book.key_left[9] += 20;
    assert_int_equal(recover_restart(s, &truth, &stats), 0);
    assert_int_equal(available(7), 1050);
    assert_int_equal(key_available(9), 520);
    assert_int_equal(atomic_load(&s->header->touched_count), 0);
    recover_name(s, 7, UINT32_MAX);
    assert_false(recover_debit(s, 7, 1051, false));
    assert_true(recover_debit(s, 7, 1050, false)); /* taken, and the ledger died before the commit */
    assert_int_equal(recover_restart(s, &truth, &stats), 0);
    assert_int_equal(available(7), 1050);
    assert_true(recover_debit(s, 7, 2000, true));
    assert_int_equal(available(7), -950);
}

/* A limit for a key that had none, with a call in flight, one in the ring and one committed; and its end. */
static void test_limit_set_on_the_way(void **state) {
    (void)state;
    struct shm_slot *committed = admitted(2, 40), *ring = admitted(2, 40), *flight = admitted(2, 40);
    money_settle(&m, committed, &(struct shm_record){ .charge = 5 });
    commit_ring(0);
    money_settle(&m, ring, &(struct shm_record){ .charge = 7 });
    money_idle(&m);
    struct shm_key k;
    assert_true(shm_key_read(s, 2, &k));
    k.capped = 1;
    book.key_left[2] = 100 - 5;
    recover_name(s, UINT32_MAX, 2);
    assert_int_equal(recover_cap_key(s, &truth, &stats, 2, &k), 0);
    recover_unname(s);
    assert_int_equal(key_available(2), 100 - 5 - 7 - 40);
    assert_int_equal(flight->usage.capped, 1);
    assert_int_equal(recover_verify(s, &truth), 0);
    money_wake(&m);
    commit_ring(0); /* checks the checksum of the record that was changed, too */
    money_settle(&m, flight, &(struct shm_record){ .charge = 9 });
    assert_int_equal(key_available(2), 100 - 5 - 7 - 9);
    money_idle(&m);
    assert_int_equal(recover_verify(s, &truth), 0);
    money_wake(&m);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_settles_by_what_the_slots_say), T(test_pushed_or_not), T(test_named_only), T(test_garbage), T(test_waits_for_a_busy_worker),
        T(test_hung_worker_is_reported), T(test_quits_while_it_waits), T(test_new_ledger_finds_the_flag_up), T(test_half_done_credits),
        T(test_limit_set_on_the_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
