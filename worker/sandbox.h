/* Privileges of a worker. */
#ifndef TG_SANDBOX_H
#define TG_SANDBOX_H

#include "worker/worker.h"

/* Drops to the heritage's user, sets PDEATHSIG and checks the parent, forbids new privileges and core dumps,
 * installs the system call filter. 0 or -errno. */
int worker_sandbox(struct worker *w);

#endif
