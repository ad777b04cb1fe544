/* The ledger's side: the pause, settling the dead, computing the words again (rules 9–15 of docs/recovery.md). */
#ifndef TG_RECOVER_H
#define TG_RECOVER_H

#include "shm/shm.h"

/* What only the ledger knows; all from memory (rule 15: no disk between raise and fall). The first two are asked for
 * every index that the segment has, used or not (0 then); key_committed counts only where the published key is capped.
 */
struct recover_truth {
    void *arg;
    int64_t (*account_committed)(void *arg, uint32_t account);  /* balance, by account index */
    int64_t (*key_committed)(void *arg,
                             uint32_t key); /* what the key's limit leaves after ALL its committed spending */
    uint64_t (*watermark)(void *arg, uint32_t range);           /* next sequence number to commit of that ring */
    bool (*quit)(void *arg);   /* true: give up waiting, the process is to end */
    void (*hung)(void *arg, uint32_t range); /* a worker does not turn: the master is to kill it */
};

/* no_room: dead exchanges that no ring place was left for (a worker broke rule 7); they stay unsettled and uncharged.
 */
struct recover_stats { uint64_t pauses, settled, repaired_words, hung, last_ns, max_ns, no_room; };

/* At the ledger's start, all ranges as they are: sets tails to the watermarks, settles every DEAD range, computes ALL
 * words again. */
int recover_cold(struct shm *s, const struct recover_truth *t, struct recover_stats *st);
/* The same, but computes only the words that dead slots or rule 11's list name: enough when the segment was whole under
 * a predecessor. */
int recover_restart(struct shm *s, const struct recover_truth *t, struct recover_stats *st);
/* Some range is DEAD: probe, raise, wait, settle, recompute what is named, fall, CLEAN. Returns the number of ranges
 * cleaned. */
int recover_dead(struct shm *s, const struct recover_truth *t, struct recover_stats *st);
/* A pause that changes nothing and compares every word with the truth: the number that differ. For tests and `audit`.
 */
int recover_verify(struct shm *s, const struct recover_truth *t);

/* All of these return a negative number when truth->quit said so while they waited (-EINTR) or at once for -ENOMEM. */

/* The capped flag of a key. Removing a limit: publish the key with capped 0; calls in flight go on moving the key's
 * word, which nobody looks at. Setting the first limit: calls in flight and records in the rings have not moved that
 * word, so it cannot be computed in passing: recover_name(account, key) → commit → recover_cap_key (publishes *k in a
 * pause, makes slots and uncommitted records of that key count for it from now on, computes the word, which may be
 * negative) → recover_unname. A limit that merely changes: recover_name → commit → recover_key_add(new − old) → publish
 * → recover_unname. A record that still arrives with capped 0 for a key that is capped (the worker had read the key in
 * an earlier turn) did not move the key's word: whoever commits it names the key and adds −charge to it. */
int recover_cap_key(struct shm *s, const struct recover_truth *t, struct recover_stats *st, uint32_t key,
                    const struct shm_key *k);

/* Computes the words of what recover_name named, in a pause: for when nobody can say what a worker did to them. Then
 * recover_unname. */
int recover_named(struct shm *s, const struct recover_truth *t, struct recover_stats *st);

/* The master, when no ledger can be started while the flag is up: lets it fall for requests that cost nothing, under a
 * `shed` that refuses all others. The next ledger computes every word again (recover_cold). */
void recover_let_fall(struct shm *s);

/* Credits and debits (rule 11), between which the ledger commits.
 * credit: recover_name → commit → recover_credit (raises the words) → recover_unname.
 * debit: recover_name → recover_debit (false: not that much there; force: takes it anyway, may go below zero) → commit
 * → recover_unname. */
void recover_name(struct shm *s, uint32_t account, uint32_t key); /* either may be UINT32_MAX; at most 8 at a time */
void recover_credit(struct shm *s, uint32_t account, int64_t amount);
bool recover_debit(struct shm *s, uint32_t account, int64_t amount, bool force);
void recover_key_add(struct shm *s, uint32_t key, int64_t delta); /* a limit that was changed */
void recover_unname(struct shm *s);

#endif
