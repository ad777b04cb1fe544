/* A worker's side of money: slots, holds, settling (rules 1–8 of docs/recovery.md).
 *
 * Order of an admission, all within one turn of the loop:
 *   money_begin → money_concurrency → (rate words) → money_hold     each may refuse; then money_refuse undoes what was
 * done then, while it runs:  money_delivered (before each write to the client), money_lower and at the end:
 * money_settle. */
#ifndef TG_MONEY_H
#define TG_MONEY_H

#include "shm/shm.h"

struct money {               /* process-private: one worker's access to its range */
    struct shm *shm;
    uint32_t range;
    uint32_t live;           /* slots that are not free */
    uint32_t *free_slots;    /* stack of indices */
    uint32_t free_count;
};

/* Attaches to a range that the master marked LIVE; continues its head and exchange counter. 0 or -ENOMEM. */
int money_attach(struct money *m, struct shm *shm, uint32_t range);
void money_detach(struct money *m);
/* The same with the caller's memory: max_active numbers. Not to be detached. */
void money_attach_in(struct money *m, struct shm *shm, uint32_t range, uint32_t *free_slots);

/* Room in slots and ring (rule 7)? */
bool money_has_room(const struct money *m);
/* Takes a slot, gives it an exchange id, stores usage (its exchange_id is set here), PREP. NULL: no room. */
struct shm_slot *money_begin(struct money *m, const struct shm_usage *usage);
/* Takes one place of the key's concurrency; false: limit reached (nothing taken). limit UINT64_MAX: none. */
bool money_concurrency(struct money *m, struct shm_slot *slot, uint64_t limit);
enum money_result { MONEY_OK, MONEY_NO_BALANCE, MONEY_NO_KEY_LIMIT };
/* Takes amount from the account (and the key, if usage.capped) by compare-and-swap that cannot pass zero; HELD. */
enum money_result money_hold(struct money *m, struct shm_slot *slot, int64_t amount);
/* Undoes an admission that did not reach HELD. */
void money_refuse(struct money *m, struct shm_slot *slot, bool concurrency_taken);
/* Gives back what of the hold is above `hold`. */
void money_lower(struct money *m, struct shm_slot *slot, int64_t hold);
/* Stored before the write: something, and so many bytes of text in all, go to the client. */
static inline void money_delivered(struct shm_slot *slot, uint64_t text_bytes) {
    atomic_store_explicit(&slot->delivered_bytes, text_bytes, memory_order_relaxed);
    atomic_store_explicit(&slot->delivered, 1, memory_order_release);
}
/* The answer's end. r: cost in r->charge (what it should cost), meters, status, flags, times; usage is copied from the
 * slot here. Charges at most the hold plus what one further compare-and-swap takes without passing zero (account, and
 * key if capped); the rest is added to r->uncollected, where the caller may have left out some already. Pushes the
 * record, moves the words, frees the slot. r holds what was pushed afterwards. Returns true if the ledger sleeps and
 * must be woken by the caller. */
bool money_settle(struct money *m, struct shm_slot *slot, struct shm_record *r);

/* The loop's side of the pause. top: at the top of each turn, every slot FREE or HELD; blocks while a pause is up.
 * idle/wake: around a blocking epoll_wait. */
void money_top(struct money *m, uint64_t now_ns);
void money_idle(struct money *m);
void money_wake(struct money *m);

/* The charge of an exchange whose worker died, or that ended without figures: input estimate plus ⌈bytes/4⌉ of what was
 * delivered; 0 if nothing was; at least 1 token of output once something was. Fills meters. In the unit of the usage.
 */
int64_t money_estimate(const struct shm_usage *u, bool delivered, uint64_t delivered_bytes, struct meters *meters);

#endif
