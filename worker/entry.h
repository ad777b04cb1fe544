/* The master's only view of a worker. */
#ifndef TG_WORKER_ENTRY_H
#define TG_WORKER_ENTRY_H

#include <stdio.h>

#include "shm/shm.h"

/* What crosses fork, all of it. The worker owns the descriptors from here on. */
struct worker_heritage {
    struct shm shm;          /* still with the writable mapping: the worker drops it */
    int shm_ro_fd;
    uint32_t range;          /* its own; state LIVE, ack 0 */
    uint32_t generation;
    int channel_fd;          /* SOCK_SEQPACKET to the master: snapshot, listeners and log files come through it first */
    int ledger_wake_fd;      /* eventfd: written when shm_shared.ledger_asleep was taken */
    uint8_t pepper[32];      /* for the HMAC of client keys */
    uint8_t seal_key[32];    /* for sealed provider ids (derived from the pepper by the master) */
    uint32_t uid, gid;       /* to drop to; 0: stay */
    uint64_t server_started_at_ms;
    int master_pid;
    bool allow_sandbox;      /* install the seccomp filter */
};

/* Runs the worker to its end; never returns. Exit status 0: drained or told to quit. */
_Noreturn void worker_main(const struct worker_heritage *h);

/* Prints the versions of libraries only the worker knows (mbedtls) into out. */
void worker_versions(char *out, size_t n);

/* Prints every path that is answered, a line each: public or admin (the listener), the method, the path (`*` stands
 * for a part of it, `*:` for one with a colon in it). */
void worker_routes(FILE *out);

#endif
