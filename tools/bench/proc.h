/* What a tree of processes has used, from /proc: the kernel's own count of nanoseconds, and memory in which a page that
 * several share counts once in all. */
#ifndef TG_BENCH_PROC_H
#define TG_BENCH_PROC_H

#include <stdint.h>

struct proc_use {
    uint64_t cpu_ns;   /* run time of all threads (schedstat) */
    uint64_t pss_kb;   /* proportional set size: all user-space memory, shared segments too */
    uint64_t anon_kb;  /* of it what is no file and no shared segment: heap and stacks */
    uint32_t processes, descriptors;
};

/* Adds up root and its descendants. A process that ends meanwhile is left out. memory: pss, anon and descriptors too,
 * which takes milliseconds a process. */
void proc_sample(struct proc_use *use, int root, int memory);

#endif
