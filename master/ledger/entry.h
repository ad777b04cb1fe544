/* The ledger process: the only one that opens the database. */
#ifndef TG_LEDGER_ENTRY_H
#define TG_LEDGER_ENTRY_H

#include "shm/shm.h"

struct ledger_heritage {
    struct shm *shm;          /* writable */
    const char *state_dir;
    int channel_fd;           /* SOCK_SEQPACKET to the master */
    int wake_fd;              /* eventfd workers write when they find the ledger asleep */
    int master_pid;
    uint32_t uid, gid;        /* to drop to; 0: stay */
    uint8_t pepper[32];
};

/* Opens the database (makes it), publishes the tables, runs the cold recovery, sends IPC_LEDGER_READY, serves calls,
 * drains the rings. Exit status 0: told to stop, and all is committed; 2: cannot go on and a restart will not help
 * (said in an IPC_ALERT and on stderr); else: restart me. */
_Noreturn void ledger_main(const struct ledger_heritage *h);

/* Before any fork: reads, or makes (0600), state_dir/pepper: 32 random bytes. 0 or -errno. */
int ledger_pepper(const char *state_dir, uint8_t out[32], char *err, size_t err_len);
/* lmdb's version text. */
const char *ledger_version(void);
/* `tollgate --probe`: database format and layout fit this binary? 0 or a sentence in err. */
int ledger_probe(const char *state_dir, char *err, size_t err_len);

#endif
