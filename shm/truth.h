/* What the words must be: available = committed − charges in the rings − holds in the slots; concurrency = slots in
 * use. For recover.c only, while a pause is up and every worker stands still. */
#ifndef TG_TRUTH_H
#define TG_TRUTH_H

#include "shm/recover.h"

/* Memory for the sums, kept for the life of the process; nothing is named afterwards. False: out of memory. */
bool truth_prepare(const struct shm *s);
/* Says whose words are to be computed. Indices out of range are ignored (they come from slots that a stranger may have
 * filled). */
void truth_name(const struct shm *s, uint32_t account, uint32_t key);
void truth_name_all(const struct shm *s);
/* Adds up rings and slots for those named. dead: ranges whose slots do not count, because their holds are given back;
 * adopt: makes slots and records of a capped key count for the key's limit although they were admitted before it had
 * one. */
void truth_sum(struct shm *s, const struct recover_truth *t, const bool *dead, bool adopt);
/* Compares the words of those named, stores what differs if `repair`; the number that differ. */
uint64_t truth_compare(struct shm *s, const struct recover_truth *t, bool repair);
/* Records of a range that no commit has covered: [*from, *to). At most a ring's worth, whatever head says. */
void truth_pending(const struct shm *s, const struct recover_truth *t, uint32_t range, uint64_t *from, uint64_t *to);

#ifdef SHM_STEPS
/* For the model, which saves and restores them: the sums, and what is known about them. */
void *truth_memory(size_t *bytes);
void *truth_state(size_t *bytes);
#endif

#endif
