/* Sums for the words that are to be computed again.
 *
 * Named are usually a handful of accounts; so the sums are taken in one walk over all slots and pending records, into
 * arrays by index, and only what is named is looked at afterwards. Nothing is trusted that a worker could have written:
 * an index out of range is passed over, a negative hold or charge counts as none, sums wrap instead of trapping. */
#include "shm/truth.h"

#include <stdlib.h>

#include "shm/steps.h"

static struct {
    void *memory;
    size_t bytes;
    uint32_t max_accounts, max_keys, accounts, keys; /* accounts, keys: how many are named */
    uint64_t *account_sum, *key_sum, *key_calls;
    uint32_t *account_list, *key_list;
    uint8_t *account_named, *key_named;
} sums;

bool truth_prepare(const struct shm *s) {
    size_t a = s->header->max_accounts, k = s->header->max_keys;
    if (!sums.memory || sums.max_accounts != a || sums.max_keys != k) {
        free(sums.memory);
        sums.bytes = a * (8 + 4 + 1) + k * (8 + 8 + 4 + 1);
        sums.memory = calloc(1, sums.bytes);
        if (!sums.memory) return false;
        sums.max_accounts = (uint32_t)a;
        sums.max_keys = (uint32_t)k;
        sums.account_sum = sums.memory;
        sums.key_sum = sums.account_sum + a;
        sums.key_calls = sums.key_sum + k;
        sums.account_list = (uint32_t *)(sums.key_calls + k);
        sums.key_list = sums.account_list + a;
        sums.account_named = (uint8_t *)(sums.key_list + k);
        sums.key_named = sums.account_named + a;
    }
    memset(sums.account_named, 0, a);
    memset(sums.key_named, 0, k);
    sums.accounts = sums.keys = 0;
    return true;
}

void truth_name(const struct shm *s, uint32_t account, uint32_t key) {
    if (account < s->header->max_accounts && !sums.account_named[account]) {
        sums.account_named[account] = 1;
        sums.account_sum[account] = 0;
        sums.account_list[sums.accounts++] = account;
    }
    if (key < s->header->max_keys && !sums.key_named[key]) {
        sums.key_named[key] = 1;
        sums.key_sum[key] = sums.key_calls[key] = 0;
        sums.key_list[sums.keys++] = key;
    }
}

void truth_name_all(const struct shm *s) {
    for (uint32_t i = 0; i < s->header->max_accounts; i++) truth_name(s, i, UINT32_MAX);
    for (uint32_t i = 0; i < s->header->max_keys; i++) truth_name(s, UINT32_MAX, i);
}

void truth_pending(const struct shm *s, const struct recover_truth *t, uint32_t range, uint64_t *from, uint64_t *to) {
    const struct shm_range *r = &s->ranges[range];
    *from = SHM_MUTATE(MUT_PENDING_BY_TAIL) ? atomic_load(&r->tail) : t->watermark(t->arg, range);
    *to = atomic_load_explicit(&r->head, memory_order_acquire);
    if (*to < *from) *to = *from;
    if (*to - *from > s->header->ring_size) *to = *from + s->header->ring_size;
}

/* Takes an amount that a slot or a record says out of the sums of its account and key. */
static void subtract(const struct shm *s, const struct shm_usage *u, int64_t amount) {
    if (amount <= 0) return;
    if (u->account < s->header->max_accounts && sums.account_named[u->account])
        sums.account_sum[u->account] -= (uint64_t)amount;
    if (u->capped && u->key < s->header->max_keys && sums.key_named[u->key]) sums.key_sum[u->key] -= (uint64_t)amount;
}

static bool must_adopt(const struct shm *s, const struct shm_usage *u) {
    return !u->capped && u->key < s->header->max_keys && sums.key_named[u->key] && s->keys[u->key].capped;
}

void truth_sum(struct shm *s, const struct recover_truth *t, const bool *dead, bool adopt) {
    for (uint32_t i = 0; i < s->header->max_ranges; i++) {
        uint64_t q, end;
        for (truth_pending(s, t, i, &q, &end); q < end; q++) {
            struct shm_record *r = shm_ring(s, i, q);
            if (adopt && must_adopt(s, &r->usage)) {
                r->usage.capped = 1;
                r->checksum = shm_record_checksum(r);
                SHM_STEP("recompute.adopt_record");
            }
            subtract(s, &r->usage, r->charge);
        }
        if (dead[i] || atomic_load_explicit(&s->ranges[i].state, memory_order_relaxed) == RANGE_CLEAN) continue;
        for (uint32_t j = 0; j < shm_slots_used(s, i); j++) {
            struct shm_slot *slot = shm_slot(s, i, j);
            if (atomic_load_explicit(&slot->state, memory_order_acquire) == SLOT_FREE) continue;
            if (adopt && must_adopt(s, &slot->usage)) {
                slot->usage.capped = 1;
                SHM_STEP("recompute.adopt_slot");
            }
            subtract(s, &slot->usage, atomic_load_explicit(&slot->hold, memory_order_relaxed));
            if (slot->usage.key < s->header->max_keys && sums.key_named[slot->usage.key])
                sums.key_calls[slot->usage.key]++;
        }
    }
}

static uint64_t settle_word(_Atomic int64_t *word, uint64_t truth, bool repair) {
    if ((uint64_t)atomic_load_explicit(word, memory_order_relaxed) == truth) return 0;
    if (repair) {
        atomic_store(word, (int64_t)truth);
        SHM_STEP("recompute.word");
    }
    return 1;
}

uint64_t truth_compare(struct shm *s, const struct recover_truth *t, bool repair) {
    uint64_t differ = 0;
    for (uint32_t i = 0; i < sums.accounts; i++) {
        uint32_t a = sums.account_list[i];
        uint64_t committed = (uint64_t)t->account_committed(t->arg, a);
        differ += settle_word(&s->account_words[a].available, committed + sums.account_sum[a], repair);
    }
    for (uint32_t i = 0; i < sums.keys; i++) {
        uint32_t k = sums.key_list[i];
        differ += settle_word(&s->key_words[k].concurrency, sums.key_calls[k], repair);
        if (!s->keys[k].capped) continue;
        uint64_t committed = (uint64_t)t->key_committed(t->arg, k);
        differ += settle_word(&s->key_words[k].available, committed + sums.key_sum[k], repair);
    }
    return differ;
}

#ifdef SHM_STEPS
void *truth_memory(size_t *bytes) {
    *bytes = sums.bytes;
    return sums.memory;
}

void *truth_state(size_t *bytes) {
    *bytes = sizeof sums;
    return &sums;
}
#endif
