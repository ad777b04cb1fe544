/* proto/ipc.h's frames over sockets (the system calls): used by master, ledger and workers alike. */
#ifndef TG_IPC_IO_H
#define TG_IPC_IO_H

#include "proto/ipc.h"

/* A SOCK_SEQPACKET pair, non-blocking, close-on-exec. 0 or -errno. */
int ipc_pair(int fds[2]);
void ipc_open(struct ipc *c, int fd, struct pages *pages, size_t out_max);
void ipc_close(struct ipc *c);
/* Sends now if it can, else queues. Descriptors are duplicated (the caller keeps his). 0, -EAGAIN (queued: watch for
 * writability), -ENOBUFS (queue full, not sent), or another -errno (the peer is gone). */
int ipc_send(struct ipc *c, const struct ipc_header *h, struct slice payload, const int *fds, unsigned fd_count);
/* Sends what is queued. 0: nothing left; -EAGAIN; or -errno. */
int ipc_flush(struct ipc *c);
/* The next whole frame: 1; 0: none now; -errno: the peer is gone (-EPIPE) or broke the protocol (-EPROTO). */
int ipc_recv(struct ipc *c, struct ipc_frame *f);

#endif
