/* How processes wait for each other.
 *
 * A worker that meets a pause sleeps on the header's pause word, which it maps read-only: FUTEX_WAIT needs no more than
 * to read, and the key of a shared futex is the page of the file, so the ledger's wake through its own writable mapping
 * finds it. The ledger polls the workers' acknowledgements instead: they come within a turn of a loop, and a worker
 * that wakes nobody has nothing to forget. */
#include "shm/steps.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void shm_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns) {
#ifdef SHM_STEPS
    if (shm_wait_hook) { shm_wait_hook(word, value); return; }
#endif
    struct timespec ts = { (time_t)(timeout_ns / 1000000000u), (long)(timeout_ns % 1000000000u) };
    syscall(SYS_futex, word, FUTEX_WAIT, value, timeout_ns ? &ts : NULL, NULL, 0);
}

void shm_futex_wake(_Atomic uint32_t *word) {
#ifdef SHM_STEPS
    if (shm_wait_hook) return;
#endif
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void shm_relax(unsigned *tries) {
#ifdef SHM_STEPS
    if (shm_wait_hook) { *tries = 0; shm_wait_hook(NULL, 0); return; }
#endif
    unsigned n = ++*tries;
    if (n < 100) return;
    if (n < 2000) { sched_yield(); return; }
    nanosleep(&(struct timespec){ 0, 20000 }, NULL);
}

uint64_t shm_clock_ns(void) {
#ifdef SHM_STEPS
    if (shm_clock_hook) return shm_clock_hook();
#endif
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}
