/* A worker's side of money: rules 1 to 8 of docs/recovery.md, in the order of the stores.
 *
 * Every word of an account or key moves only while one of this worker's slots names it, so that whoever finds this
 * worker dead knows from the slots which words may be wrong, and computes just these again. Nothing here needs to know
 * how far a dead predecessor had come. All amounts are in the unit of the account; none of the sums can overflow: words
 * hold what was credited, at most INT64_MAX. */
#include "shm/money.h"

#include <errno.h>
#include <stdlib.h>

#include "proto/base/check.h"
#include "shm/steps.h"

static struct shm_range *range_of(const struct money *m) { return &m->shm->ranges[m->range]; }
static uint32_t slot_index(const struct money *m, const struct shm_slot *slot) {
    return (uint32_t)(slot - shm_slot(m->shm, m->range, 0));
}
static _Atomic int64_t *account_word(const struct money *m, const struct shm_slot *slot) {
    return &m->shm->account_words[slot->usage.account].available;
}
static struct shm_key_words *key_words(const struct money *m, const struct shm_slot *slot) {
    return &m->shm->key_words[slot->usage.key];
}

static uint32_t state_of(const struct shm_slot *slot) {
    return atomic_load_explicit(&slot->state, memory_order_relaxed);
}
static void set_state(struct shm_slot *slot, uint32_t state) {
    atomic_store_explicit(&slot->state, state, memory_order_release);
}

/* Takes the whole amount or nothing; never below zero. */
static bool take(_Atomic int64_t *word, int64_t amount) {
    int64_t v = atomic_load_explicit(word, memory_order_relaxed);
    do {
        if (v < amount) return false;
    } while (!atomic_compare_exchange_weak(word, &v, v - amount));
    return true;
}

/* Takes what is there, at most the amount. */
static int64_t take_up_to(_Atomic int64_t *word, int64_t amount) {
    int64_t v = atomic_load_explicit(word, memory_order_relaxed), part;
    do {
        part = v < amount ? v : amount;
        if (part <= 0) return 0;
    } while (!atomic_compare_exchange_weak(word, &v, v - part));
    return part;
}

static void give(_Atomic int64_t *word, int64_t amount) {
    if (amount) atomic_fetch_add(word, amount);
}

void money_attach_in(struct money *m, struct shm *shm, uint32_t range, uint32_t *free_slots) {
    CHECK(range < shm->header->max_ranges);
    uint32_t n = shm->header->max_active;
    *m = (struct money){ .shm = shm, .range = range, .free_slots = free_slots };
    for (uint32_t i = n; i-- > 0;) { /* the first ones on top: a quiet worker stays on few pages */
        if (state_of(shm_slot(shm, range, i)) == SLOT_FREE) m->free_slots[m->free_count++] = i;
    }
    m->live = n - m->free_count;
    if (SHM_MUTATE(MUT_ID_REUSED)) atomic_store(&range_of(m)->next_exchange_id, (uint64_t)range << 48);
    money_wake(m); /* the predecessor may have left "idle" there */
}

int money_attach(struct money *m, struct shm *shm, uint32_t range) {
    uint32_t *free_slots = malloc(shm->header->max_active * sizeof *free_slots);
    if (!free_slots) return -ENOMEM;
    money_attach_in(m, shm, range, free_slots);
    return 0;
}

void money_detach(struct money *m) {
    free(m->free_slots);
    *m = (struct money){ 0 };
}

bool money_has_room(const struct money *m) {
    if (m->free_count == 0) return false;
    if (SHM_MUTATE(MUT_NO_ROOM_CHECK)) return true;
    struct shm_range *r = range_of(m);
    uint64_t pending =
        atomic_load_explicit(&r->head, memory_order_relaxed) - atomic_load_explicit(&r->tail, memory_order_acquire);
    return pending + (SHM_MUTATE(MUT_ROOM_WITHOUT_LIVE) ? 0 : m->live) < m->shm->header->ring_size;
}

struct shm_slot *money_begin(struct money *m, const struct shm_usage *usage) {
    CHECK(usage->account < m->shm->header->max_accounts && usage->key < m->shm->header->max_keys);
    CHECK(usage->request_id_len <= SHM_REQUEST_ID && usage->model_len <= SHM_MODEL_NAME);
    if (!money_has_room(m)) return NULL;
    struct shm_slot *slot = shm_slot(m->shm, m->range, m->free_slots[--m->free_count]);
    struct shm_range *r = range_of(m);
    m->live++;
    uint32_t used = slot_index(m, slot) + 1;
    if (used > atomic_load_explicit(&r->slots_used, memory_order_relaxed)) {
        atomic_store_explicit(&r->slots_used, used, memory_order_release);
        SHM_STEP("hold.used");
    }
    uint64_t id = atomic_load_explicit(&r->next_exchange_id, memory_order_relaxed);
    atomic_store_explicit(&r->next_exchange_id, id + 1, memory_order_relaxed);
    SHM_STEP("hold.id");
    shm_usage_copy(&slot->usage, usage);
    slot->usage.exchange_id = id;
    atomic_store_explicit(&slot->delivered, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->delivered_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->hold, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->seq, SLOT_SEQ_NONE, memory_order_relaxed);
    if (!SHM_MUTATE(MUT_CAS_BEFORE_SLOT)) set_state(slot, SLOT_PREP);
    SHM_STEP("hold.prep"); /* the exchanges that move words release: none is seen before the slot names it */
    return slot;
}

bool money_concurrency(struct money *m, struct shm_slot *slot, uint64_t limit) {
    _Atomic int64_t *word = &key_words(m, slot)->concurrency;
    int64_t v = atomic_load_explicit(word, memory_order_relaxed);
    do {
        if (v >= 0 && (uint64_t)v >= limit) return false;
    } while (!atomic_compare_exchange_weak(word, &v, v + 1));
    SHM_STEP("hold.concurrency");
    return true;
}

enum money_result money_hold(struct money *m, struct shm_slot *slot, int64_t amount) {
    CHECK(amount >= 0);
    bool capped = slot->usage.capped != 0;
    if (capped && !take(&key_words(m, slot)->available, amount)) return MONEY_NO_KEY_LIMIT;
    if (capped) SHM_STEP("hold.key");
    if (!take(account_word(m, slot), amount)) {
        SHM_STEP("hold.refused");
        if (capped) give(&key_words(m, slot)->available, amount);
        return MONEY_NO_BALANCE;
    }
    SHM_STEP("hold.account");
    atomic_store_explicit(&slot->hold, amount, memory_order_release);
    SHM_STEP("hold.stored");
    set_state(slot, SLOT_HELD);
    SHM_STEP("hold.held");
    return MONEY_OK;
}

/* The slot's end: the worker forgets it. */
static void free_slot(struct money *m, struct shm_slot *slot) {
    set_state(slot, SLOT_FREE);
    m->free_slots[m->free_count++] = slot_index(m, slot);
    m->live--;
    SHM_STEP("free");
}

void money_refuse(struct money *m, struct shm_slot *slot, bool concurrency_taken) {
    if (SHM_MUTATE(MUT_REFUSE_FREE_FIRST)) free_slot(m, slot);
    if (concurrency_taken) {
        atomic_fetch_sub(&key_words(m, slot)->concurrency, 1);
        SHM_STEP("refuse.concurrency");
    }
    if (!SHM_MUTATE(MUT_REFUSE_FREE_FIRST)) free_slot(m, slot);
}

void money_lower(struct money *m, struct shm_slot *slot, int64_t hold) {
    int64_t was = atomic_load_explicit(&slot->hold, memory_order_relaxed);
    CHECK(hold >= 0);
    if (hold >= was) return;
    if (!SHM_MUTATE(MUT_LOWER_GIVES_FIRST)) {
        atomic_store(&slot->hold, hold);
        SHM_STEP("lower.stored");
    }
    give(account_word(m, slot), was - hold);
    SHM_STEP("lower.account");
    if (slot->usage.capped) {
        give(&key_words(m, slot)->available, was - hold);
        SHM_STEP("lower.key");
    }
    if (SHM_MUTATE(MUT_LOWER_GIVES_FIRST)) atomic_store(&slot->hold, hold);
}

/* What a call costs beyond its hold: as much as account and key have, both the same. The slot's hold stays as it is: a
 * death now leaves more taken than the slot says, and the recomputation returns it. */
static int64_t take_beyond(struct money *m, struct shm_slot *slot, int64_t amount) {
    int64_t part = amount;
    if (slot->usage.capped) {
        part = take_up_to(&key_words(m, slot)->available, amount);
        SHM_STEP("settle.extra_key");
    }
    int64_t got = take_up_to(account_word(m, slot), part);
    SHM_STEP("settle.extra_account");
    if (slot->usage.capped && got < part) {
        give(&key_words(m, slot)->available, part - got);
        SHM_STEP("settle.extra_back");
    }
    return got;
}

/* Rule 3: the slot notes the head, the record is written, the head moves on. */
static void push(struct money *m, struct shm_slot *slot, struct shm_record *r) {
    struct shm_range *range = range_of(m);
    uint64_t head = atomic_load_explicit(&range->head, memory_order_relaxed);
    struct shm_record *to = shm_ring(m->shm, m->range, head);
    atomic_store_explicit(&slot->seq, head, memory_order_relaxed);
    SHM_STEP("settle.seq");
    r->seq = head;
    shm_usage_copy(&r->usage, &slot->usage);
    r->checksum = shm_record_checksum(r);
    r->pad = 0;
    memcpy(to, r, offsetof(struct shm_record, usage));
    shm_usage_copy(&to->usage, &r->usage);
    SHM_STEP("settle.payload");
    atomic_store_explicit(&range->head, head + 1, memory_order_release);
    SHM_STEP("settle.pushed");
}

/* The ledger announced that it sleeps and looked at the heads once more; this fence and its own make one of the two see
 * the other. */
static bool ledger_sleeps(const struct money *m) {
    _Atomic uint32_t *asleep = &m->shm->shared->ledger_asleep;
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(asleep, memory_order_relaxed) && atomic_exchange(asleep, 0);
}

bool money_settle(struct money *m, struct shm_slot *slot, struct shm_record *r) {
    CHECK(state_of(slot) == SLOT_HELD && r->charge >= 0);
    int64_t hold = atomic_load_explicit(&slot->hold, memory_order_relaxed);
    int64_t beyond = r->charge > hold ? take_beyond(m, slot, r->charge - hold) : 0;
    int64_t charge = r->charge < hold + beyond ? r->charge : hold + beyond;
    int64_t back = hold + beyond - charge;
    r->uncollected += r->charge - charge;
    r->charge = charge;
    if (SHM_MUTATE(MUT_FREE_BEFORE_PUSH)) {
        set_state(slot, SLOT_FREE);
        SHM_STEP("free");
    }
    if (SHM_MUTATE(MUT_WORDS_BEFORE_PUSH)) {
        give(account_word(m, slot), back);
        SHM_STEP("settle.account");
    }
    push(m, slot, r);
    if (SHM_MUTATE(MUT_FREE_BEFORE_WORDS)) {
        set_state(slot, SLOT_FREE);
        SHM_STEP("free");
    }
    if (!SHM_MUTATE(MUT_WORDS_BEFORE_PUSH)) {
        give(account_word(m, slot), back);
        SHM_STEP("settle.account");
    }
    if (slot->usage.capped) {
        give(&key_words(m, slot)->available, back);
        SHM_STEP("settle.key");
    }
    atomic_fetch_sub(&key_words(m, slot)->concurrency, 1);
    SHM_STEP("settle.concurrency");
    free_slot(m, slot);
    return ledger_sleeps(m);
}

/* ---- the pause, as the loop sees it ------------------------------------------------------------------------------ */

enum { RUNNING = 0 };

/* Acknowledges the pause and sleeps until it has fallen. The ledger may raise the next epoch without a fall between (a
 * new ledger does), and wakes us for that too. The timeout keeps the heartbeat going, and heals a wake that a dying
 * ledger owed. */
static void wait_for_fall(struct money *m, uint32_t pause) {
    struct shm_range *r = range_of(m);
    _Atomic uint32_t *word = &m->shm->header->pause;
    while (pause & 1) {
        atomic_store(&r->ack, SHM_MUTATE(MUT_PAUSE_FLAG) ? 1 : pause);
        SHM_STEP("pause.ack");
        shm_futex_wait(word, pause, 100000000);
        atomic_store_explicit(&r->turn_ns, shm_clock_ns(), memory_order_relaxed);
        pause = atomic_load(word);
    }
    if (SHM_MUTATE(MUT_PAUSE_FLAG)) {
        SHM_STEP("pause.over");
        atomic_store(&r->ack, RUNNING);
    }
}

static void answer_probe(struct money *m) {
    struct shm_range *r = range_of(m);
    uint32_t probe = atomic_load_explicit(&m->shm->header->probe, memory_order_relaxed);
    if (atomic_load_explicit(&r->probe_ack, memory_order_relaxed) != probe)
        atomic_store_explicit(&r->probe_ack, probe, memory_order_relaxed);
}

void money_top(struct money *m, uint64_t now_ns) {
    atomic_store_explicit(&range_of(m)->turn_ns, now_ns, memory_order_relaxed);
    answer_probe(m);
    uint32_t pause = atomic_load_explicit(&m->shm->header->pause, memory_order_acquire);
    if (pause & 1) wait_for_fall(m, pause);
}

void money_idle(struct money *m) {
    atomic_store_explicit(&range_of(m)->ack, RANGE_IDLE, memory_order_release);
    SHM_STEP("pause.idle");
}

void money_wake(struct money *m) {
    /* The exchange and the ledger's fence make sure that either it sees us running or we see its flag. */
    if (SHM_MUTATE(MUT_WAKE_STORE)) atomic_store_explicit(&range_of(m)->ack, RUNNING, memory_order_relaxed);
    else atomic_exchange(&range_of(m)->ack, RUNNING);
    SHM_STEP("pause.wake");
    answer_probe(m);
    uint32_t pause = atomic_load(&m->shm->header->pause);
    if ((pause & 1) && !SHM_MUTATE(MUT_WAKE_UNCHECKED)) wait_for_fall(m, pause);
}

/* ---- estimates --------------------------------------------------------------------------------------------------- */

int64_t money_estimate(const struct shm_usage *u, bool delivered, uint64_t delivered_bytes, struct meters *meters) {
    *meters = (struct meters){ { 0 } };
    if (!delivered) return 0;
    uint64_t output = delivered_bytes / 4 + (delivered_bytes % 4 != 0);
    meters->n[METER_INPUT] = u->prompt_tokens;
    meters->n[METER_OUTPUT] = output ? output : 1;
    struct prices p = { { 0 } };
    p.per_million[METER_INPUT] = u->price_input;
    p.per_million[METER_OUTPUT] = u->price_output;
    return u->unit_tokens ? price_cost_tokens(meters, &p, u->ratio_millionths)
                          : price_cost_nano(meters, &p, 0, u->ratio_millionths);
}
