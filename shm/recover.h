/* The ledger's side: the pause, settling the dead, computing the words again (rules 9–15 of docs/recovery.md). */
#ifndef TG_RECOVER_H
#define TG_RECOVER_H

#include "shm/shm.h"

/* What only the ledger knows; all from memory (rule 15: no disk between raise and fall). */
struct recover_truth {
    void *arg;
    int64_t (*account_committed)(void *arg, uint32_t account);  /* balance, by account index */
    int64_t (*key_committed)(void *arg, uint32_t key);          /* what the key's limit leaves after committed spending */
    uint64_t (*watermark)(void *arg, uint32_t range);           /* next sequence number to commit of that ring */
    bool (*quit)(void *arg);   /* true: give up waiting, the process is to end */
    void (*hung)(void *arg, uint32_t range); /* a worker does not turn: the master is to kill it */
};

struct recover_stats { uint64_t pauses, settled, repaired_words, hung, last_ns, max_ns; };

/* At the ledger's start, all ranges as they are: sets tails to the watermarks, settles every DEAD range, computes ALL words again. */
int recover_cold(struct shm *s, const struct recover_truth *t, struct recover_stats *st);
/* Some range is DEAD: probe, raise, wait, settle, recompute what is named, fall, CLEAN. Returns the number of ranges cleaned. */
int recover_dead(struct shm *s, const struct recover_truth *t, struct recover_stats *st);
/* A pause that changes nothing and compares every word with the truth: the number that differ. For tests and `audit`. */
int recover_verify(struct shm *s, const struct recover_truth *t);

/* Credits and debits (rule 11), between which the ledger commits. Keys: UINT32_MAX for none.
 * credit: recover_name → commit → recover_credit (raises the words) → recover_unname.
 * debit: recover_name → recover_debit (false: not that much there; force: takes it anyway, may go below zero) → commit → recover_unname. */
void recover_name(struct shm *s, uint32_t account, uint32_t key);
void recover_credit(struct shm *s, uint32_t account, int64_t amount);
bool recover_debit(struct shm *s, uint32_t account, int64_t amount, bool force);
void recover_key_add(struct shm *s, uint32_t key, int64_t delta); /* a limit that was changed */
void recover_unname(struct shm *s);

#endif
