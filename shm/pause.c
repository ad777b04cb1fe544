/* How processes wait for each other, and the hooks of a build with steps.
 *
 * A worker that meets a pause sleeps on the header's pause word, which it maps read-only: FUTEX_WAIT needs no more than
 * to read, and the key of a shared futex is the page of the file, so the ledger's wake through its own writable mapping
 * finds it. The ledger polls the workers' acknowledgements instead: they come within a turn of a loop, and a worker
 * that wakes nobody has nothing to forget. */
#include "shm/steps.h"

#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifdef SHM_STEPS
void (*shm_step_hook)(const char *name);
uint64_t (*shm_clock_hook)(void);
void (*shm_wait_hook)(_Atomic uint32_t *word, uint32_t value);
enum shm_mutation shm_mutation;

/* TOLLGATE_KILL_AT: the step, the passage, whether again and again; the count is shared by every process forked from
 * here. */
static struct { char name[64]; uint64_t at; bool every; _Atomic uint64_t *passed; } kill_at;

static void die_at_step(const char *name) {
    if (strcmp(name, kill_at.name) != 0) return;
    uint64_t n = atomic_fetch_add(kill_at.passed, 1) + 1;
    /* tgkill: a worker's sandbox refuses kill. */
    if (kill_at.every ? n % kill_at.at == 0 : n == kill_at.at)
        syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGKILL);
}

__attribute__((constructor)) static void read_kill_at(void) {
    const char *text = getenv("TOLLGATE_KILL_AT");
    if (!text) return;
    unsigned long long at = 0;
    char plus = 0;
    int n = sscanf(text, "%63[^:]:%llu%c", kill_at.name, &at, &plus);
    if (n < 2 || at == 0) {
        fprintf(stderr, "TOLLGATE_KILL_AT: \"%s\" is not step:count\n", text);
        exit(2);
    }
    kill_at.at = at;
    kill_at.every = plus == '+';
    void *page = mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) exit(2);
    kill_at.passed = page;
    shm_step_hook = die_at_step;
}
#endif

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
