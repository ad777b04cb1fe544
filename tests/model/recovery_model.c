/* The recovery rules of docs/recovery.md, searched exhaustively with the real code of shm/money.c, shm/recover.c and shm/truth.c.
 *
 * Two workers, the ledger and its database (a struct that survives it), one account, one key. Each worker admits, delivers and settles
 * exchanges in any order; the ledger drains rings, credits, debits, sets the key's limit; any of them may die at any step, the ledger in
 * the middle of a recovery too, and is started again. What must hold is in check() and at_rest().
 *
 *     recovery_model               the clean searches and every mutation; fails if one of the latter is not found out
 *     recovery_model deep          larger ones, which take long
 *     recovery_model clean|NAME    one of them, with the way to the violation */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/check.h"
#include "shm/money.h"
#include "shm/recover.h"
#include "shm/steps.h"
#include "shm/truth.h"
#include "tests/model/explore.h"

enum { WORKERS = 2, LEDGER = 2, SLOTS = 2, RING = 2, EXCHANGES = 8, HOLD = 2, CREDIT = 2, DEBIT = 1 };

struct scenario {
    const char *name;
    int workers, slots, ring;   /* slots a worker, records a ring */
    int exchanges, crashes, credits, debits;
    int64_t start, key_limit;
    bool capped, set_cap;       /* the key has a limit from the start; gets one on the way */
    bool idle, cold;            /* workers sleep in epoll between turns; a new ledger computes every word */
    bool any_delivery;          /* exchanges may end without having delivered */
    bool lower;                 /* holds may be lowered on the way */
};

/* Everything that lives: shared memory, the database, and what workers and clients know. Saved and put back by the explorer. */
static struct world {
    struct shm_header header;
    struct shm_key keys[1];
    _Atomic uint32_t key_index[2];
    struct shm_account_words account_words[1];
    struct shm_key_words key_words[1];
    struct shm_range ranges[WORKERS];
    struct shm_shared shared;
    struct shm_slot slots[WORKERS * SLOTS];
    struct shm_record records[WORKERS * RING];
    struct {
        int64_t balance, key_spent, charged;
        uint64_t watermark[WORKERS];
        uint8_t count[EXCHANGES], paid[EXCHANGES]; /* records committed of each exchange; whether for money */
        uint32_t credits, debits, credits_left, debits_left;
        bool capped;
    } db;
    struct money money[WORKERS];
    uint32_t free_slots[WORKERS][SLOTS];
    uint32_t intended, received;    /* exchanges that the slot says delivered; whose client got something */
    uint32_t crashes;
    const char *wrong;
} w;
static struct shm shm;
static struct scenario sc;

/* Frames of their own, which are gone when the actor is back at its top: what they leave would make equal states look different. */
#define FRAME __attribute__((noinline))

static uint64_t first_id(int range) { return (uint64_t)range << 48; }
/* A small number for an exchange. */
static unsigned number_of(uint64_t id) { return (unsigned)(id >> 48) * (unsigned)sc.exchanges + (unsigned)(id & 0xffff); }
static void wrong(const char *what) {
    if (!w.wrong) w.wrong = what;
}

/* ---- the truth, as the ledger tells it --------------------------------------------------------------------------- */

static int64_t account_committed(void *arg, uint32_t account) { (void)arg; (void)account; return w.db.balance; }
static int64_t key_committed(void *arg, uint32_t key) { (void)arg; (void)key; return sc.key_limit - w.db.key_spent; }
static uint64_t watermark(void *arg, uint32_t range) {
    (void)arg;
    return SHM_MUTATE(MUT_DRAIN_FROM_TAIL) ? atomic_load(&w.ranges[range].tail) : w.db.watermark[range];
}
static const struct recover_truth truth = { NULL, account_committed, key_committed, watermark, NULL, NULL };
static struct recover_stats stats;

/* What the sums of a finished recovery left behind is of no meaning: equal states shall look equal. */
static void forget_sums(void) {
    size_t n;
    CHECK(truth_prepare(&shm));
    void *sums = truth_memory(&n);
    memset(sums, 0, n);
}

/* ---- a worker ---------------------------------------------------------------------------------------------------- */

static int64_t cost_of(uint64_t id) { return number_of(id) % 2 ? 1 : 3; } /* within the hold, and beyond it */

static FRAME void admit(struct money *m) {
    struct shm_key key;
    if (!shm_key_read(&shm, 0, &key)) return; /* a ledger died as it published: unknown until its successor does */
    struct shm_usage u = { .capped = key.capped, .prompt_tokens = 2, .price_input = 1000, .price_output = 1000, .ratio_millionths = RATIO_ONE };
    struct shm_slot *slot = money_begin(m, &u);
    if (!slot) return;
    if (!money_concurrency(m, slot, UINT64_MAX)) money_refuse(m, slot, false);
    else if (money_hold(m, slot, HOLD) != MONEY_OK) money_refuse(m, slot, true);
    else if (SHM_MUTATE(MUT_CAS_BEFORE_SLOT)) atomic_store(&slot->state, SLOT_HELD);
}

static FRAME void deliver(struct shm_slot *slot) {
    uint32_t bit = 1u << number_of(slot->usage.exchange_id);
    w.intended |= bit;
    if (!SHM_MUTATE(MUT_DELIVERED_LATE)) money_delivered(slot, 1);
    explore_step("deliver.1");
    w.received |= bit;
    if (!SHM_MUTATE(MUT_DELIVERED_LATE)) return;
    explore_step("deliver.2");
    money_delivered(slot, 1);
}

static FRAME void finish(struct money *m, struct shm_slot *slot) {
    uint64_t id = slot->usage.exchange_id;
    struct shm_record r = { .charge = atomic_load(&slot->delivered) ? cost_of(id) : 0 };
    money_settle(m, slot, &r);
    if (r.charge < 0 || r.uncollected < 0) wrong("a charge below zero");
}

enum what { ADMIT, DELIVER, LOWER, FINISH, SLEEP, NOTHING_TO_DO };
struct way { enum what what; int slot; };

/* What a worker can do now, the slots being free or held. */
static unsigned ways_of(int i, struct way *ways, bool sleep) {
    struct money *m = &w.money[i];
    unsigned n = 0;
    for (int j = 0; j < sc.slots; j++) {
        struct shm_slot *slot = shm_slot(&shm, (uint32_t)i, (uint32_t)j);
        if (atomic_load(&slot->state) == SLOT_FREE) continue;
        bool delivered = atomic_load(&slot->delivered);
        if (!delivered) ways[n++] = (struct way){ DELIVER, j };
        if (sc.lower && atomic_load(&slot->hold) == HOLD) ways[n++] = (struct way){ LOWER, j };
        if (delivered || sc.any_delivery) ways[n++] = (struct way){ FINISH, j };
    }
    if ((atomic_load(&w.ranges[i].next_exchange_id) & 0xffff) < (uint64_t)sc.exchanges && money_has_room(m)) ways[n++].what = ADMIT;
    if (sleep) ways[n++].what = SLEEP;
    if (n == 0) ways[n++].what = NOTHING_TO_DO; /* the ring is full */
    return n;
}

/* One turn of the loop, as the worker's: the pause is looked at on top, or on waking from epoll; then one thing with one slot. */
static FRAME void turn(int i) {
    struct money *m = &w.money[i];
    struct way ways[3 * SLOTS + 3] = { { 0, 0 } };
    if ((atomic_load(&w.ranges[i].next_exchange_id) & 0xffff) >= (uint64_t)sc.exchanges && m->live == 0) {
        money_idle(m); /* nothing will ever come again: asleep for good */
        for (;;) explore_step("epoll");
    }
    unsigned way = explore_choose("top", ways_of(i, ways, sc.idle));
    if (ways[way].what == SLEEP) {
        money_idle(m);
        explore_step("epoll");
        money_wake(m);
        way = explore_choose("woken", ways_of(i, ways, false));
    } else {
        money_top(m, 0);
    }
    struct shm_slot *slot = shm_slot(&shm, (uint32_t)i, (uint32_t)ways[way].slot);
    if (ways[way].what == ADMIT) admit(m);
    if (ways[way].what == DELIVER) deliver(slot);
    if (ways[way].what == LOWER) money_lower(m, slot, HOLD / 2);
    if (ways[way].what == FINISH) finish(m, slot);
}

static void worker(int i) {
    money_attach_in(&w.money[i], &shm, (uint32_t)i, w.free_slots[i]);
    for (;;) turn(i);
}

/* ---- the ledger -------------------------------------------------------------------------------------------------- */

static void commit_record(const struct shm_record *r, uint64_t seq) {
    if (r->seq != seq || r->checksum != shm_record_checksum(r)) { wrong("a torn or overwritten record"); return; }
    if (w.db.capped && !r->usage.capped) wrong("a record of a capped key that did not move its word");
    unsigned x = number_of(r->usage.exchange_id);
    if (++w.db.count[x % EXCHANGES] > 1) wrong("an exchange charged twice");
    if (r->charge > 0) w.db.paid[x % EXCHANGES] = 1;
    if (r->charge > 0 && !(w.intended & 1u << x)) wrong("charged, and nothing was delivered");
    w.db.balance -= r->charge;
    w.db.key_spent += r->charge;
    w.db.charged += r->charge;
    if (w.db.balance < 0) wrong("the committed balance is negative");
}

/* Rule 9: one transaction for what it read, then the tail. */
static FRAME void drain(int i) {
    struct shm_range *r = &w.ranges[i];
    uint64_t head = atomic_load(&r->head);
    if (SHM_MUTATE(MUT_TAIL_FIRST)) atomic_store(&r->tail, head);
    explore_step("drain.read");
    for (uint64_t q = watermark(NULL, (uint32_t)i); q < head; q++) commit_record(shm_ring(&shm, (uint32_t)i, q), q);
    if (SHM_MUTATE(MUT_WATERMARK_APART)) explore_step("drain.apart");
    w.db.watermark[i] = head;
    explore_step("drain.committed");
    atomic_store_explicit(&r->tail, head, memory_order_release);
    explore_step("drain.tail");
}

static void commit_credit(void) {
    w.db.balance += CREDIT;
    w.db.credits++;
    w.db.credits_left--;
    explore_step("credit.committed");
}

static FRAME void credit(void) {
    recover_name(&shm, 0, UINT32_MAX);
    if (SHM_MUTATE(MUT_CREDIT_WORD_FIRST)) recover_credit(&shm, 0, CREDIT);
    commit_credit();
    if (!SHM_MUTATE(MUT_CREDIT_WORD_FIRST)) recover_credit(&shm, 0, CREDIT);
    recover_unname(&shm);
}

static FRAME void debit(void) {
    bool late = SHM_MUTATE(MUT_DEBIT_WORD_LAST);
    recover_name(&shm, 0, UINT32_MAX);
    bool took = late ? atomic_load(&w.account_words[0].available) >= DEBIT : recover_debit(&shm, 0, DEBIT, false);
    explore_step("debit.taken");
    w.db.debits_left--;
    if (took) {
        w.db.balance -= DEBIT;
        w.db.debits++;
        explore_step("debit.committed");
        if (late) recover_debit(&shm, 0, DEBIT, true);
    }
    recover_unname(&shm);
}

static struct shm_key key_entry(void) {
    return (struct shm_key){ .status = KEY_ACTIVE, .id = 1, .capped = w.db.capped };
}

static FRAME void set_cap(void) {
    recover_name(&shm, UINT32_MAX, 0);
    w.db.capped = true;
    explore_step("cap.committed");
    struct shm_key k = key_entry();
    recover_cap_key(&shm, &truth, &stats, 0, &k);
    forget_sums();
    recover_unname(&shm);
}

/* A new ledger: first an entry that its predecessor left half written, then the words, then a limit that was committed
 * and not published. */
static FRAME void start_ledger(void) {
    struct shm_key k = key_entry(), is;
    if (!shm_key_read(&shm, 0, &is)) CHECK(shm_key_publish(&shm, 0, &k));
    if (sc.cold) recover_cold(&shm, &truth, &stats);
    else recover_restart(&shm, &truth, &stats);
    forget_sums();
    if (w.keys[0].capped == k.capped) return;
    recover_name(&shm, UINT32_MAX, 0);
    recover_cap_key(&shm, &truth, &stats, 0, &k);
    forget_sums();
    recover_unname(&shm);
}

static void ledger(void) {
    start_ledger();
    for (;;) {
        enum { DRAIN, DRAIN_OTHER, RECOVER, GIVE, TAKE, CAP, NOTHING } ways[8] = { 0 };
        unsigned n = 0;
        for (int i = 0; i < sc.workers; i++)
            if (atomic_load(&w.ranges[i].head) > watermark(NULL, (uint32_t)i)) ways[n++] = i ? DRAIN_OTHER : DRAIN;
        for (int i = 0; i < sc.workers; i++)
            if (atomic_load(&w.ranges[i].state) == RANGE_DEAD) { ways[n++] = RECOVER; break; }
        if (w.db.credits_left) ways[n++] = GIVE;
        if (w.db.debits_left) ways[n++] = TAKE;
        if (sc.set_cap && !w.db.capped) ways[n++] = CAP;
        if (n == 0) ways[n++] = NOTHING;
        switch (ways[explore_choose("ledger.top", n)]) {
        case DRAIN: drain(0); break;
        case DRAIN_OTHER: drain(1); break;
        case RECOVER: recover_dead(&shm, &truth, &stats); forget_sums(); break;
        case GIVE: credit(); break;
        case TAKE: debit(); break;
        case CAP: set_cap(); break;
        case NOTHING: break;
        }
    }
}

static void actor(int i) {
    if (i == LEDGER) ledger();
    else worker(i);
}

/* ---- what must hold ---------------------------------------------------------------------------------------------- */

static bool stands(int i, const char *step) { return explore_at(i) && strcmp(explore_at(i), step) == 0; }

/* Nobody is in the middle of anything: now every word must be what slots, rings and database say. */
static bool resting(void) {
    if (!stands(LEDGER, "ledger.top") || (atomic_load(&w.header.pause) & 1)) return false;
    for (int i = 0; i < sc.workers; i++)
        if (atomic_load(&w.ranges[i].state) != RANGE_LIVE || !(stands(i, "top") || stands(i, "epoll") || stands(i, "woken"))) return false;
    return true;
}

static const char *at_rest(void) {
    int64_t available = w.db.balance, key = sc.key_limit - w.db.key_spent, calls = 0;
    for (int i = 0; i < sc.workers; i++) {
        for (uint64_t q = w.db.watermark[i]; q < atomic_load(&w.ranges[i].head); q++) {
            available -= shm_ring(&shm, (uint32_t)i, q)->charge;
            key -= shm_ring(&shm, (uint32_t)i, q)->charge;
        }
        for (int j = 0; j < sc.slots; j++) {
            struct shm_slot *slot = shm_slot(&shm, (uint32_t)i, (uint32_t)j);
            if (atomic_load(&slot->state) == SLOT_FREE) continue;
            if (atomic_load(&slot->state) != SLOT_HELD) return "a slot half admitted at rest";
            available -= atomic_load(&slot->hold);
            key -= atomic_load(&slot->hold);
            calls++;
        }
    }
    if (atomic_load(&w.account_words[0].available) != available) return "the account's word is not the truth";
    if (available < 0) return "more was held than there is";
    if (w.keys[0].capped && atomic_load(&w.key_words[0].available) != key) return "the key's word is not the truth";
    if (sc.capped && key < 0) return "the key's limit was passed";
    if (atomic_load(&w.key_words[0].concurrency) != calls) return "the concurrency word is not the truth";
    return NULL;
}

/* Everything was done, recorded and committed. */
static bool done(void) {
    if (!resting() || w.db.credits_left || w.db.debits_left || (sc.set_cap && !w.keys[0].capped)) return false;
    for (int i = 0; i < sc.workers; i++) {
        if ((atomic_load(&w.ranges[i].next_exchange_id) & 0xffff) < (uint64_t)sc.exchanges) return false;
        if (atomic_load(&w.ranges[i].head) != w.db.watermark[i] || w.money[i].live) return false;
        for (int j = 0; j < sc.slots; j++)
            if (atomic_load(&shm_slot(&shm, (uint32_t)i, (uint32_t)j)->state) != SLOT_FREE) return false;
    }
    return true;
}

static const char *at_end(void) {
    for (unsigned x = 0; x < (unsigned)(sc.workers * sc.exchanges); x++)
        if ((w.received & 1u << x) && !(w.db.count[x] == 1 && w.db.paid[x])) return "delivered and not charged";
    if (w.db.balance != sc.start + CREDIT * w.db.credits - DEBIT * w.db.debits - w.db.charged) return "money appeared or vanished";
    return NULL;
}

static const char *check(void) {
    if (w.wrong) return w.wrong;
    const char *r = resting() ? at_rest() : NULL;
    return !r && done() ? at_end() : r;
}

/* ---- deaths, births, and what the explorer must know ------------------------------------------------------------- */

static bool may_die(int i) {
    return w.crashes < (uint32_t)sc.crashes && (i == LEDGER || (i < sc.workers && atomic_load(&w.ranges[i].state) == RANGE_LIVE));
}
static void died(int i) {
    w.crashes++;
    if (i == LEDGER) { forget_sums(); return; }
    memset(&w.money[i], 0, sizeof w.money[i]);
    memset(w.free_slots[i], 0, sizeof w.free_slots[i]);
    atomic_store(&w.ranges[i].state, RANGE_DEAD); /* the master, after waitpid */
}
static bool may_start(int i) { return i == LEDGER || (i < sc.workers && atomic_load(&w.ranges[i].state) == RANGE_CLEAN); }
static void started(int i) {
    if (i != LEDGER) atomic_store(&w.ranges[i].state, RANGE_LIVE);
}

/* The world without what nobody may look at: the rest of a free slot, records that are committed or not yet written. */
static uint64_t hash(uint64_t h) {
    h = explore_hash(h, &w, offsetof(struct world, slots));
    h = explore_hash(h, &w.db, sizeof w - offsetof(struct world, db));
    for (int i = 0; i < sc.workers; i++) {
        for (int j = 0; j < sc.slots; j++) {
            struct shm_slot *slot = shm_slot(&shm, (uint32_t)i, (uint32_t)j);
            bool in_use = atomic_load(&slot->state) != SLOT_FREE || explore_at(i) == NULL || strncmp(explore_at(i), "hold", 4) == 0;
            h = explore_hash(h, slot, in_use ? offsetof(struct shm_slot, usage.request_id) : sizeof slot->state);
        }
        uint64_t low = w.db.watermark[i], tail = atomic_load(&w.ranges[i].tail), head = atomic_load(&w.ranges[i].head);
        if (tail < low) low = tail;
        for (uint64_t q = low; q <= head && q < low + (uint64_t)sc.ring; q++)
            h = explore_hash(h, shm_ring(&shm, (uint32_t)i, q), offsetof(struct shm_record, usage.request_id));
    }
    size_t n;
    const void *sums = truth_memory(&n);
    h = explore_hash(h, sums, n);
    const void *state = truth_state(&n);
    return explore_hash(h, state, n);
}

static uint64_t no_clock(void) { return 0; }
static void waits(_Atomic uint32_t *word, uint32_t value) { (void)word; (void)value; explore_step("wait"); }

static void build_world(void) {
    memset(&w, 0, sizeof w);
    w.header = (struct shm_header){ .max_accounts = 1, .max_keys = 1, .max_active = (uint32_t)sc.slots, .max_ranges = (uint32_t)sc.workers,
                                    .ring_size = (uint32_t)sc.ring };
    shm = (struct shm){ .header = &w.header, .keys = w.keys, .key_index = w.key_index, .key_mask = 1, .account_words = w.account_words,
                        .key_words = w.key_words, .ranges = w.ranges, .shared = &w.shared, .slots = w.slots, .records = w.records };
    w.db.balance = sc.start;
    w.db.credits_left = (uint32_t)sc.credits;
    w.db.debits_left = (uint32_t)sc.debits;
    w.db.capped = sc.capped;
    struct shm_key k = key_entry();
    CHECK(shm_key_publish(&shm, 0, &k));
    for (int i = 0; i < WORKERS; i++) atomic_store(&w.ranges[i].next_exchange_id, first_id(i));
    forget_sums();
    /* the first ledger of the segment has computed the words already: the search begins with all at work */
    atomic_store(&w.account_words[0].available, sc.start);
    atomic_store(&w.key_words[0].available, sc.key_limit);
}

static void search(struct explore *e, const struct scenario *s, enum shm_mutation mutation, double max_seconds, bool trace) {
    sc = *s;
    shm_mutation = mutation;
    build_world();
    *e = (struct explore){ .actor = actor, .may_die = may_die, .died = died, .may_start = may_start, .started = started, .check = check,
                           .final = done, .hash = hash, .max_states = 200000000, .max_seconds = max_seconds, .trace = trace };
    e->region[e->regions].ptr = &w;
    e->region[e->regions++].bytes = sizeof w;
    size_t n;
    e->region[e->regions].ptr = truth_memory(&n);
    e->region[e->regions++].bytes = n;
    e->region[e->regions].ptr = truth_state(&n);
    e->region[e->regions++].bytes = n;
    explore_run(e);
}

/* ---- the searches ------------------------------------------------------------------------------------------------ */

/* Each is searched to the end. In every scenario a crash hits a worker, the ledger, or the ledger in the middle of a recovery. */
enum { TWO_WORKERS, IN_TURN, TWO_SLOTS, FULL_RING, LOWERED, CAPPED_KEY, SET_CAP, ASLEEP, SCENARIOS };
static const struct scenario clean[SCENARIOS] = {
    [TWO_WORKERS] = { .name = "two workers", .workers = 2, .slots = 1, .ring = 2, .exchanges = 1, .crashes = 1, .credits = 1,
                      .start = 3, .key_limit = 9 },
    [IN_TURN] = { .name = "exchanges in turn", .workers = 1, .slots = 1, .ring = 1, .exchanges = 3, .crashes = 2, .debits = 1,
                  .start = 4, .key_limit = 9, .any_delivery = true },
    [TWO_SLOTS] = { .name = "two slots", .workers = 1, .slots = 2, .ring = 2, .exchanges = 2, .crashes = 3, .start = 5, .key_limit = 9 },
    [FULL_RING] = { .name = "a full ring", .workers = 1, .slots = 2, .ring = 2, .exchanges = 3, .crashes = 1, .start = 7, .key_limit = 9 },
    [LOWERED] = { .name = "holds lowered", .workers = 2, .slots = 1, .ring = 1, .exchanges = 1, .crashes = 1, .start = 3, .key_limit = 9,
                  .lower = true },
    [CAPPED_KEY] = { .name = "a capped key", .workers = 2, .slots = 1, .ring = 2, .exchanges = 1, .crashes = 1, .start = 9,
                     .key_limit = 3, .capped = true },
    [SET_CAP] = { .name = "a cap set on the way", .workers = 1, .slots = 2, .ring = 2, .exchanges = 2, .crashes = 1, .start = 9,
                  .key_limit = 3, .set_cap = true },
    [ASLEEP] = { .name = "asleep", .workers = 2, .slots = 1, .ring = 2, .exchanges = 1, .crashes = 1, .start = 2, .key_limit = 9,
                 .idle = true, .cold = true },
};

/* crashes: more than the clean search of that scenario has, where one is not enough to show it. */
/* For a long evening: more deaths, more calls. */
static const struct scenario deep[] = {
    { .name = "two workers, two deaths", .workers = 2, .slots = 1, .ring = 2, .exchanges = 1, .crashes = 2, .credits = 1, .debits = 1,
      .start = 3, .key_limit = 9 },
    { .name = "two calls each", .workers = 2, .slots = 1, .ring = 2, .exchanges = 2, .crashes = 1, .start = 5, .key_limit = 9 },
    { .name = "two slots, four deaths", .workers = 1, .slots = 2, .ring = 2, .exchanges = 3, .crashes = 4, .start = 7, .key_limit = 9 },
    { .name = "a cap, two deaths", .workers = 2, .slots = 1, .ring = 2, .exchanges = 1, .crashes = 2, .start = 9, .key_limit = 3, .set_cap = true },
    { .name = "asleep, two deaths", .workers = 2, .slots = 1, .ring = 2, .exchanges = 1, .crashes = 2, .start = 2, .key_limit = 9, .idle = true },
};

#define M(m, rule, where) { m, #m, rule, where, 0 }
static const struct { enum shm_mutation mutation; const char *name; int rule, where, crashes; } mutations[] = {
    M(MUT_CAS_BEFORE_SLOT, 2, TWO_SLOTS), M(MUT_ID_REUSED, 2, TWO_SLOTS), M(MUT_REFUSE_FREE_FIRST, 2, TWO_WORKERS),
    M(MUT_WORDS_BEFORE_PUSH, 3, TWO_WORKERS), M(MUT_FREE_BEFORE_PUSH, 3, TWO_SLOTS), M(MUT_FREE_BEFORE_WORDS, 3, TWO_SLOTS),
    M(MUT_SETTLED_BY_SEARCH, 4, TWO_SLOTS), M(MUT_NO_RESET, 5, TWO_SLOTS), M(MUT_DELIVERED_LATE, 6, TWO_SLOTS),
    M(MUT_LOWER_GIVES_FIRST, 6, LOWERED), M(MUT_DEAD_CHARGE_UNBOUND, 6, TWO_SLOTS),
    M(MUT_NO_ROOM_CHECK, 7, IN_TURN), M(MUT_ROOM_WITHOUT_LIVE, 7, FULL_RING), { MUT_PAUSE_FLAG, "MUT_PAUSE_FLAG", 8, TWO_WORKERS, 2 },
    M(MUT_WAKE_UNCHECKED, 8, ASLEEP), M(MUT_WATERMARK_APART, 9, TWO_SLOTS), M(MUT_TAIL_FIRST, 9, IN_TURN),
    M(MUT_DRAIN_FROM_TAIL, 9, TWO_SLOTS), M(MUT_PENDING_BY_TAIL, 10, TWO_SLOTS), M(MUT_NOT_NAMED, 11, TWO_WORKERS),
    M(MUT_CREDIT_WORD_FIRST, 11, TWO_WORKERS), M(MUT_DEBIT_WORD_LAST, 11, IN_TURN), M(MUT_TOUCH_UNREAPED, 12, TWO_SLOTS),
    M(MUT_CLEAN_BEFORE_FALL, 12, TWO_SLOTS), M(MUT_NO_ACK_WAIT, 13, TWO_WORKERS), M(MUT_FREE_AT_SETTLE, 13, TWO_SLOTS),
    M(MUT_NO_ADOPT, 0, SET_CAP), M(MUT_SETTLE_UNDELIVERED, 0, IN_TURN), M(MUT_NO_RECOVERY, 0, TWO_SLOTS),
};

static void report(const char *name, const struct explore *e) {
    printf("%-24s %9llu states %10llu steps  depth %4u %6llu ends  %s\n", name, (unsigned long long)e->states,
           (unsigned long long)e->transitions, e->depth, (unsigned long long)e->finals,
           e->violation ? e->violation : e->complete ? "holds" : "not searched to the end");
}

static bool holds(const struct scenario *s, double max_seconds) {
    struct explore e;
    search(&e, s, MUT_NONE, max_seconds, true);
    report(s->name, &e);
    return !e.violation && e.complete && e.finals > 0;
}

int main(int argc, char **argv) {
    struct explore e;
    const char *only = argc > 1 ? argv[1] : NULL;
    bool ok = true;
    int found = 0, held = 0, tried = 0;
    shm_step_hook = explore_step;
    shm_clock_hook = no_clock;
    shm_wait_hook = waits;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < ARRAY_LEN(clean); i++)
        if (!only || strcmp(only, clean[i].name) == 0 || strcmp(only, "clean") == 0) held += holds(&clean[i], 200), tried++;
    for (size_t i = 0; i < ARRAY_LEN(deep) && only; i++)
        if (strcmp(only, deep[i].name) == 0 || strcmp(only, "deep") == 0) held += holds(&deep[i], 36000), tried++;
    ok = held == tried;
    tried = 0;
    for (size_t i = 0; i < ARRAY_LEN(mutations); i++) {
        if (only && strcmp(only, mutations[i].name) != 0 && strcmp(only, "mutations") != 0) continue;
        for (int j = 0; j < SCENARIOS; j++) {
            if (argc > 2 ? atoi(argv[2]) != j : mutations[i].where != j) continue;
            struct scenario s = clean[j];
            if (mutations[i].crashes) s.crashes = mutations[i].crashes;
            search(&e, &s, mutations[i].mutation, 60, only && strcmp(only, "mutations") != 0);
            char name[64];
            snprintf(name, sizeof name, "rule %d: %s", mutations[i].rule, mutations[i].name + 4);
            report(name, &e);
            ok &= e.violation != NULL;
            found += e.violation != NULL;
            tried++;
        }
    }
    printf("%s: %d searches hold, %d of %d mutations found\n", ok ? "ok" : "FAILED", held, found, tried);
    return ok ? 0 : 1;
}
