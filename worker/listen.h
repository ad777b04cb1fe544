/* The accept side: the shared listeners, whether this worker listens just now, and the certificate of `listen …
 * tls`. */
#ifndef TG_LISTEN_H
#define TG_LISTEN_H

#include "worker/io.h"
#include "worker/worker.h"

void listeners_init(struct worker *w);
/* Replaces the whole set (IPC_LISTENERS): ids that stay keep their descriptor, the others' are closed. Takes over
 * all of fds. ids may be unaligned. */
void listeners_set(struct worker *w, const uint64_t *ids, const int *fds, unsigned n);
/* After a new snapshot became the current one: what its listeners say counts from the next connection on. */
void listeners_snapshot(struct worker *w);
/* No connection is taken any more; but where the server as a whole ends, its admin listener tells so until it has. */
void listeners_drain(struct worker *w);
/* None at all. */
void listeners_close(struct worker *w);
/* The current certificate's configuration; NULL: there is none (it could not be used; the log says why). */
struct tls_server *listeners_tls(struct worker *w);
void listeners_free(struct worker *w);

#endif
