/* The ledger's side: rules 9 to 15 of docs/recovery.md.
 *
 * One function, in_pause, for every occasion: raise the flag, wait until nobody moves a word, settle what dead workers
 * left, compute the words that may be wrong, let the flag fall, hand the ranges back. Each step can be repeated,
 * because a ledger may die in any of them: its successor finds the flag up (or not), raises the next epoch and starts
 * from the beginning. A worker that does not answer is reported to the caller (hung), who has it killed; nothing is
 * touched before it is reaped. */
#include "shm/recover.h"

#include <errno.h>
#include <time.h>

#include "proto/base/check.h"
#include "shm/counters.h"
#include "shm/money.h"
#include "shm/steps.h"
#include "shm/truth.h"

enum { PROBE_ROUNDS = 5 };
#define HUNG_AFTER_NS 500000000u /* a crowded machine gives a busy process no time for hundreds of milliseconds */
#define PROBE_CALM_NS 20000000u  /* a probe that took longer is repeated: a pause now would take as long */

enum scope { SCOPE_NAMED, SCOPE_ALL, SCOPE_VERIFY };

struct pause {
    struct shm *s;
    const struct recover_truth *t;
    struct recover_stats *st;
    enum scope scope;
    uint32_t key;                  /* recover_cap_key: published while all stand still */
    const struct shm_key *publish; /* NULL: none */
    bool dead[SHM_MAX_RANGES];     /* the dead of this pause, fixed when all had acknowledged */
    uint32_t dead_count;
    uint64_t differ;
};

static uint32_t state_of(const struct shm *s, uint32_t range) { return atomic_load(&s->ranges[range].state); }

static bool asked_to_quit(const struct recover_truth *t) { return t->quit && t->quit(t->arg); }

/* A worker does not turn: has it killed, again and again until it is dead. */
static void report_hung(const struct pause *p, uint32_t range, uint64_t *deadline_ns) {
    if (shm_clock_ns() < *deadline_ns) return;
    if (p->t->hung) p->t->hung(p->t->arg, range);
    p->st->hung++;
    *deadline_ns = shm_clock_ns() + HUNG_AFTER_NS;
}

/* ---- raise and wait ---------------------------------------------------------------------------------------------- */

/* Asks every worker to show that it turns, while all go on working: a hung one is killed before the others stand still
 * for it. */
static bool probe(const struct pause *p) {
    struct shm *s = p->s;
    for (int round = 0; round < PROBE_ROUNDS; round++) {
        uint64_t start_ns = shm_clock_ns(), deadline_ns = start_ns + HUNG_AFTER_NS;
        uint32_t q = atomic_load_explicit(&s->header->probe, memory_order_relaxed) + 1;
        unsigned tries = 0;
        atomic_store(&s->header->probe, q);
        atomic_thread_fence(memory_order_seq_cst);
        SHM_STEP("recover.probe");
        for (uint32_t i = 0; i < s->header->max_ranges;) {
            struct shm_range *r = &s->ranges[i];
            if (state_of(s, i) != RANGE_LIVE || atomic_load(&r->probe_ack) == q || atomic_load(&r->ack) == RANGE_IDLE) {
                i++;
                continue;
            }
            if (asked_to_quit(p->t)) return false;
            report_hung(p, i, &deadline_ns);
            shm_relax(&tries);
        }
        if (shm_clock_ns() - start_ns <= PROBE_CALM_NS) break;
    }
    return true;
}

static uint32_t raise_flag(struct shm *s) {
    uint32_t was = atomic_load(&s->header->pause), epoch = (was & 1) ? was + 2 : was + 1;
    if (epoch == RANGE_IDLE) epoch = 1; /* after two thousand million pauses */
    if (SHM_MUTATE(MUT_PAUSE_FLAG)) epoch = 1;
    atomic_store(&s->header->pause, epoch);
    atomic_thread_fence(memory_order_seq_cst); /* either we see a waking worker run, or it sees the flag (money_wake) */
    shm_futex_wake(&s->header->pause);         /* who waits in the pause of a dead ledger acknowledges this one too */
    SHM_STEP("recover.raised");
    return epoch;
}

static void let_fall(struct shm *s, uint32_t epoch) {
    atomic_store(&s->header->pause, SHM_MUTATE(MUT_PAUSE_FLAG) ? 0 : epoch + 1);
    SHM_STEP("recover.fallen");
    shm_futex_wake(&s->header->pause);
}

/* Waits until each live worker has acknowledged, sleeps in epoll, or is reaped, and fixes the set of the dead in the
 * same look at all. Who dies after that counts as live, with its holds, until the next pause. */
static bool wait_for_all(struct pause *p, uint32_t epoch) {
    struct shm *s = p->s;
    uint64_t deadline_ns = shm_clock_ns() + HUNG_AFTER_NS;
    unsigned tries = 0;
    for (;;) {
        bool all = true;
        p->dead_count = 0;
        for (uint32_t i = 0; i < s->header->max_ranges; i++) {
            uint32_t state = state_of(s, i), ack = atomic_load(&s->ranges[i].ack);
            bool moves = state == RANGE_LIVE && ack != epoch && ack != RANGE_IDLE;
            p->dead[i] = state == RANGE_DEAD || (moves && SHM_MUTATE(MUT_TOUCH_UNREAPED));
            p->dead_count += p->dead[i];
            if (!moves || p->dead[i]) continue;
            all = false;
            report_hung(p, i, &deadline_ns);
        }
        if (all || SHM_MUTATE(MUT_NO_ACK_WAIT)) return true;
        if (asked_to_quit(p->t)) return false;
        shm_relax(&tries);
    }
}

/* ---- the dead ---------------------------------------------------------------------------------------------------- */

/* Rule 4: its record is in the ring, committed or not. */
static bool settled(const struct pause *p, uint32_t range, const struct shm_slot *slot) {
    if (SHM_MUTATE(MUT_SETTLED_BY_SEARCH)) {
        uint64_t q, end;
        for (truth_pending(p->s, p->t, range, &q, &end); q < end; q++)
            if (shm_ring(p->s, range, q)->usage.exchange_id == slot->usage.exchange_id) return true;
        return false;
    }
    return atomic_load(&slot->seq) < atomic_load(&p->s->ranges[range].head);
}

/* Rule 5, and the names of the accounts and keys that may be wrong. */
static void reset_dead(struct pause *p, uint32_t range) {
    for (uint32_t j = 0; j < shm_slots_used(p->s, range); j++) {
        struct shm_slot *slot = shm_slot(p->s, range, j);
        if (atomic_load_explicit(&slot->state, memory_order_acquire) == SLOT_FREE) continue;
        truth_name(p->s, slot->usage.account, slot->usage.key);
        if (atomic_load(&slot->seq) == SLOT_SEQ_NONE || settled(p, range, slot) || SHM_MUTATE(MUT_NO_RESET)) continue;
        atomic_store(&slot->seq, SLOT_SEQ_NONE);
        SHM_STEP("recover.reset");
    }
}

static int64_t epoch_ms(void) {
#ifdef SHM_STEPS
    if (shm_clock_hook) return 0;
#endif
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* What a dead worker's exchange is charged, from what its slot says: nothing if nothing was delivered, never more than
 * it held. A call without answer is recorded too, at nothing, as the worker would have done. */
static void dead_record(const struct shm_slot *slot, struct shm_record *r) {
    bool delivered = atomic_load(&slot->delivered) != 0;
    int64_t hold = atomic_load(&slot->hold), now_ms = epoch_ms();
    *r = (struct shm_record){ .ended_at_us = now_ms * 1000 };
    shm_usage_copy(&r->usage, &slot->usage);
    if (r->usage.request_id_len > SHM_REQUEST_ID) r->usage.request_id_len = 0;
    if (r->usage.model_len > SHM_MODEL_NAME) r->usage.model_len = 0;
    int64_t cost = money_estimate(&r->usage, delivered || SHM_MUTATE(MUT_SETTLE_UNDELIVERED),
                                  atomic_load(&slot->delivered_bytes), &r->meters);
    if (hold < 0) hold = 0;
    r->charge = cost < hold || SHM_MUTATE(MUT_DEAD_CHARGE_UNBOUND) ? cost : hold;
    r->uncollected = cost - r->charge;
    r->cost_usd_nano = r->usage.unit_tokens ? 0 : cost;
    r->status = delivered ? 200 : 0;
    r->flags = RECORD_DEAD_WORKER | (delivered ? RECORD_ESTIMATED | RECORD_CUT : 0);
    int64_t lasted_ms = now_ms - r->usage.started_at_ms;
    r->duration_ms = lasted_ms > 0 && lasted_ms < UINT32_MAX ? (uint32_t)lasted_ms : 0;
}

static void settle_slot(struct pause *p, uint32_t range, struct shm_slot *slot) {
    struct shm_range *r = &p->s->ranges[range];
    struct shm_record record;
    uint64_t head = atomic_load(&r->head), from, to;
    truth_pending(p->s, p->t, range, &from, &to);
    if (to - from >= p->s->header->ring_size) { /* rule 7 keeps this from happening */
        p->st->no_room++;
        return;
    }
    dead_record(slot, &record);
    record.seq = head;
    record.checksum = shm_record_checksum(&record);
    atomic_store(&slot->seq, head);
    SHM_STEP("recover.seq");
    *shm_ring(p->s, range, head) = record;
    SHM_STEP("recover.payload");
    atomic_store_explicit(&r->head, head + 1, memory_order_release);
    if (SHM_MUTATE(MUT_FREE_AT_SETTLE)) atomic_store(&slot->state, SLOT_FREE);
    SHM_STEP("recover.pushed");
    p->st->settled++;
}

static void settle_dead(struct pause *p, uint32_t range) {
    for (uint32_t j = 0; j < shm_slots_used(p->s, range); j++) {
        struct shm_slot *slot = shm_slot(p->s, range, j);
        if (atomic_load_explicit(&slot->state, memory_order_acquire) == SLOT_HELD && !settled(p, range, slot))
            settle_slot(p, range, slot);
    }
}

static void free_dead(struct pause *p, uint32_t range) {
    for (uint32_t j = 0; j < shm_slots_used(p->s, range); j++) {
        struct shm_slot *slot = shm_slot(p->s, range, j);
        if (atomic_load_explicit(&slot->state, memory_order_relaxed) == SLOT_FREE) continue;
        atomic_store_explicit(&slot->state, SLOT_FREE, memory_order_release);
        SHM_STEP("recover.freed");
    }
}

/* What a dead worker counted as present is gone with it. */
static void zero_gauges(struct shm *s, uint32_t range) {
    atomic_store(&s->ranges[range].connections, 0);
    atomic_store(&s->ranges[range].active, 0);
    if (!s->counters) return;
    struct counters *c = &s->counters[range];
    enum { COUNTER, GAUGE };
#define X(name, kind, text) if (kind == GAUGE) atomic_store_explicit(&c->name, 0, memory_order_relaxed);
    COUNTERS(X)
#undef X
}

static void mark_clean(struct pause *p) {
    for (uint32_t i = 0; i < p->s->header->max_ranges; i++) {
        if (!p->dead[i]) continue;
        zero_gauges(p->s, i);
        if (!SHM_MUTATE(MUT_CLEAN_BEFORE_FALL))
            atomic_store(&p->s->ranges[i].slots_used, 0); /* all of them are free now */
        uint32_t dead = RANGE_DEAD;
        atomic_compare_exchange_strong(&p->s->ranges[i].state, &dead, RANGE_CLEAN);
        SHM_STEP("recover.clean");
    }
}

/* ---- one pause --------------------------------------------------------------------------------------------------- */

static void for_dead(struct pause *p, void (*each)(struct pause *, uint32_t)) {
    for (uint32_t i = 0; i < p->s->header->max_ranges; i++)
        if (p->dead[i]) each(p, i);
}

static void name_touched(const struct shm *s) {
    uint32_t n = atomic_load(&s->header->touched_count);
    for (uint32_t i = 0; i < n && i < ARRAY_LEN(s->header->touched_account); i++)
        truth_name(s, s->header->touched_account[i], s->header->touched_key[i]);
}

/* Everything between raise and fall, while no worker moves. */
static void settle_and_compute(struct pause *p) {
    for_dead(p, reset_dead);
    for_dead(p, settle_dead);
    if (p->publish) CHECK(shm_key_publish(p->s, p->key, p->publish));
    if (p->publish) SHM_STEP("recover.published");
    name_touched(p->s);
    if (p->scope == SCOPE_ALL) truth_name_all(p->s);
    truth_sum(p->s, p->t, p->dead, !SHM_MUTATE(MUT_NO_ADOPT));
    p->st->repaired_words += truth_compare(p->s, p->t, true);
    if (SHM_MUTATE(MUT_CLEAN_BEFORE_FALL)) mark_clean(p);
    for_dead(p, free_dead);
}

static int in_pause(struct pause *p) {
    if (!truth_prepare(p->s)) return -ENOMEM;
    bool was_up = atomic_load(&p->s->header->pause) & 1;
    uint64_t start_ns = shm_clock_ns();
    uint32_t epoch = raise_flag(p->s);
    if (!wait_for_all(p, epoch)) {
        if (!was_up)
            let_fall(p->s, epoch); /* nothing was changed yet; in a predecessor's unfinished pause the flag stays */
        return -EINTR;
    }
    if (p->scope == SCOPE_VERIFY) {
        truth_name_all(p->s);
        if (p->dead_count == 0) truth_sum(p->s, p->t, p->dead, false);
        if (p->dead_count == 0) p->differ = truth_compare(p->s, p->t, false);
    } else {
        settle_and_compute(p);
    }
    let_fall(p->s, epoch);
    if (p->scope != SCOPE_VERIFY) mark_clean(p);
    p->st->pauses++;
    p->st->last_ns = shm_clock_ns() - start_ns;
    if (p->st->last_ns > p->st->max_ns) p->st->max_ns = p->st->last_ns;
    return (int)p->dead_count;
}

static int start(struct shm *s, const struct recover_truth *t, struct recover_stats *st, enum scope scope) {
    struct pause p = { .s = s, .t = t, .st = st, .scope = scope };
    if (!SHM_MUTATE(MUT_DRAIN_FROM_TAIL) && !SHM_MUTATE(MUT_PENDING_BY_TAIL)) {
        /* rule 9: what the database says it reached, not what a dead ledger published */
        for (uint32_t i = 0; i < s->header->max_ranges; i++) {
            atomic_store_explicit(&s->ranges[i].tail, t->watermark(t->arg, i), memory_order_release);
            SHM_STEP("recover.tail");
        }
    }
    if (SHM_MUTATE(MUT_NO_RECOVERY)) return 0;
    int r = in_pause(&p);
    if (r >= 0) recover_unname(s); /* what a dead ledger left half done is committed or not, and the words say so now */
    return r;
}

int recover_cold(struct shm *s, const struct recover_truth *t, struct recover_stats *st) {
    return start(s, t, st, SCOPE_ALL);
}
int recover_restart(struct shm *s, const struct recover_truth *t, struct recover_stats *st) {
    return start(s, t, st, SCOPE_NAMED);
}

int recover_dead(struct shm *s, const struct recover_truth *t, struct recover_stats *st) {
    struct pause p = { .s = s, .t = t, .st = st, .scope = SCOPE_NAMED };
    bool any = false;
    for (uint32_t i = 0; i < s->header->max_ranges; i++) {
        p.dead[i] = state_of(s, i) == RANGE_DEAD;
        any |= p.dead[i];
    }
    if (!any) return 0;
    if (SHM_MUTATE(MUT_NO_RECOVERY)) {
        for_dead(&p, free_dead);
        mark_clean(&p);
        return 0;
    }
    if (!probe(&p)) return -EINTR;
    return in_pause(&p);
}

int recover_verify(struct shm *s, const struct recover_truth *t) {
    struct recover_stats unused = { 0 };
    for (;;) { /* words that a dead worker left cannot be compared: it is settled first */
        struct pause p = { .s = s, .t = t, .st = &unused, .scope = SCOPE_VERIFY };
        int r = in_pause(&p);
        if (r == 0) return p.differ > INT32_MAX ? INT32_MAX : (int)p.differ;
        if (r > 0) r = recover_dead(s, t, &unused);
        if (r < 0) return r;
    }
}

int recover_cap_key(struct shm *s, const struct recover_truth *t, struct recover_stats *st, uint32_t key,
                    const struct shm_key *k) {
    CHECK(atomic_load(&s->header->touched_count) > 0 || SHM_MUTATE(MUT_NOT_NAMED));
    struct pause p = { .s = s, .t = t, .st = st, .scope = SCOPE_NAMED, .key = key, .publish = k };
    return in_pause(&p);
}

int recover_named(struct shm *s, const struct recover_truth *t, struct recover_stats *st) {
    struct pause p = { .s = s, .t = t, .st = st, .scope = SCOPE_NAMED };
    return probe(&p) ? in_pause(&p) : -EINTR;
}

void recover_let_fall(struct shm *s) {
    uint32_t epoch = atomic_load(&s->header->pause);
    if (epoch & 1) let_fall(s, epoch);
}

/* ---- rule 11 ----------------------------------------------------------------------------------------------------- */

void recover_name(struct shm *s, uint32_t account, uint32_t key) {
    struct shm_header *h = s->header;
    uint32_t n = atomic_load(&h->touched_count);
    CHECK(n < ARRAY_LEN(h->touched_account));
    h->touched_account[n] = account;
    h->touched_key[n] = key;
    if (SHM_MUTATE(MUT_NOT_NAMED)) return;
    atomic_store(&h->touched_count, n + 1);
    SHM_STEP("credit.named");
}

void recover_credit(struct shm *s, uint32_t account, int64_t amount) {
    atomic_fetch_add(&s->account_words[account].available, amount);
    SHM_STEP("credit.word");
}

bool recover_debit(struct shm *s, uint32_t account, int64_t amount, bool force) {
    _Atomic int64_t *word = &s->account_words[account].available;
    int64_t v = atomic_load(word);
    do {
        if (v < amount && !force) return false;
    } while (!atomic_compare_exchange_weak(word, &v, v - amount));
    SHM_STEP("debit.word");
    return true;
}

void recover_key_add(struct shm *s, uint32_t key, int64_t delta) {
    atomic_fetch_add(&s->key_words[key].available, delta);
    SHM_STEP("credit.key");
}

void recover_unname(struct shm *s) {
    atomic_store(&s->header->touched_count, 0);
    SHM_STEP("credit.unnamed");
}
