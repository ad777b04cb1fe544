/* Named steps: every store to shared memory whose place in the order matters is followed (or preceded) by
 * SHM_STEP("name"), and what the outside may refuse asks SHM_FAULT("name") first.
 *
 * Nothing in a normal build. With -DSHM_STEPS the hook is called there: the model switches between its actors, the
 * stress test and a build of the server for tests die. That build takes orders from the environment (steps.c), a list
 * with commas; passages of a step are counted over all processes since the program started:
 *     TOLLGATE_STEPS="settle.pushed:3"       the process that passes this step for the third time gets SIGKILL
 *                    "settle.pushed:3+"      every third time
 *                    "hold.key:1~20"         stands still there for 20 ms, from the first passage on
 *                    "free:40!"              runs in a circle there for ever
 *     TOLLGATE_FAULTS="commit:5:30-60"       from the 30th to the 60th time a commit fails with errno 5
 * Each death, hang and first failure is a line "steps: killed at settle.pushed" on standard error. A mutation leaves a
 * rule of docs/recovery.md out, so that the tests can show that they would notice. */
#ifndef TG_STEPS_H
#define TG_STEPS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum shm_mutation {
    MUT_NONE,
    MUT_CAS_BEFORE_SLOT,      /* rule 2: the words move before the slot names them */
    MUT_ID_REUSED,            /* rule 2: exchange ids start over in a replacement worker */
    MUT_REFUSE_FREE_FIRST,    /* rule 2: a refusal frees the slot before it undoes the words */
    MUT_WORDS_BEFORE_PUSH,    /* rule 3 */
    MUT_FREE_BEFORE_PUSH,     /* rule 3 */
    MUT_FREE_BEFORE_WORDS,    /* rule 3 */
    MUT_SETTLED_BY_SEARCH,    /* rule 4: looks for the exchange id in the uncommitted part of the ring */
    MUT_NO_RESET,             /* rule 5 */
    MUT_DELIVERED_LATE,       /* rule 6: stored after the write to the client */
    MUT_LOWER_GIVES_FIRST,    /* rule 6 */
    MUT_DEAD_CHARGE_UNBOUND,  /* rule 6: a dead exchange is charged its estimate, whatever the hold */
    MUT_NO_ROOM_CHECK,        /* rule 7 */
    MUT_ROOM_WITHOUT_LIVE,    /* rule 7: head - tail alone */
    MUT_PAUSE_FLAG,           /* rule 8: the pause is a flag, not an epoch */
    MUT_NO_ACK_WAIT,          /* rule 8, 13 */
    MUT_WAKE_UNCHECKED,       /* rule 8: waking from idle does not look at the pause */
    MUT_WAKE_STORE,           /* rule 8: a plain store instead of the exchange (needs a real machine to fail) */
    MUT_WATERMARK_APART,      /* rule 9: watermark in a transaction of its own */
    MUT_TAIL_FIRST,           /* rule 9 */
    MUT_DRAIN_FROM_TAIL,      /* rule 9 */
    MUT_PENDING_BY_TAIL,      /* rule 10 */
    MUT_NOT_NAMED,            /* rule 11: credits and debits do not name what they touch */
    MUT_CREDIT_WORD_FIRST,    /* rule 11: the word rises before the commit */
    MUT_DEBIT_WORD_LAST,      /* rule 11: the word falls after the commit */
    MUT_TOUCH_UNREAPED,       /* rule 12: a worker that does not answer is taken for dead */
    MUT_CLEAN_BEFORE_FALL,    /* rule 12: the range is used again too early */
    MUT_FREE_AT_SETTLE,       /* rule 13: dead slots are freed before the words are computed */
    MUT_SETTLE_UNDELIVERED,   /* promise 1: charges a dead exchange that delivered nothing */
    MUT_NO_ADOPT,             /* a limit set on the way: calls in flight do not come to count for it */
    MUT_NO_RECOVERY,
    MUT_COUNT
};

#ifdef SHM_STEPS
extern void (*shm_step_hook)(const char *name);
extern uint64_t (*shm_clock_hook)(void);                               /* instead of CLOCK_MONOTONIC */
extern void (*shm_wait_hook)(_Atomic uint32_t *word,
                             uint32_t value); /* instead of every futex wait and every back-off */
extern enum shm_mutation shm_mutation;
#define SHM_STEP(name) (shm_step_hook ? shm_step_hook(name) : (void)0)
#define SHM_MUTATE(m) (shm_mutation == (m))
#define SHM_FAULT(name) shm_fault(name)
int shm_fault(const char *name); /* 0, or the errno to fail with */
#else
#define SHM_STEP(name) ((void)0)
#define SHM_MUTATE(m) 0
#define SHM_FAULT(name) 0
#endif

/* Waiting (pause.c). A futex between processes; the word may be in a read-only mapping. timeout_ns 0: none. */
void shm_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns);
void shm_futex_wake(_Atomic uint32_t *word);
/* One try more of a polling loop: spins, then yields, then sleeps 20 microseconds at a time. */
void shm_relax(unsigned *tries);
uint64_t shm_clock_ns(void);

#endif
