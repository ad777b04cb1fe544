/* Bytes over a non-blocking descriptor: read and gathered write, plain here, TLS by tls.c.
 *
 * A plain operation is one system call, and the cheaper one of its kind: recv rather than read, and send of a short
 * message put together here rather than sendmsg, which fetches and checks a vector. MSG_NOSIGNAL: a peer that is gone
 * is an error, never a signal. A failure leaves errno as the system call set it. */
#include <errno.h>
#include <limits.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/base/check.h"
#include "worker/io.h"

enum { JOIN_BYTES = 4096 };

ssize_t io_read(struct io *io, void *p, size_t cap) {
    CHECK(io->fd >= 0 && cap > 0);
    if (io->tls)
        return tls_read(io->tls, p, cap);
    for (;;) {
        ssize_t n = recv(io->fd, p, cap, 0);
        if (n > 0)
            return n;
        if (n == 0)
            return IO_EOF;
        if (errno != EINTR)
            return errno == EAGAIN || errno == EWOULDBLOCK ? IO_AGAIN : IO_ERROR;
    }
}

bool io_more(const struct io *io) {
    return io->tls && tls_more(io->tls);
}

/* A vector of few bytes as one piece, in `one`. */
static bool join(const struct iovec *iov, int n, struct iovec *one) {
    static char bytes[JOIN_BYTES];
    size_t at = 0;
    for (int i = 0; i < n; i++)
        if ((at += iov[i].iov_len) > sizeof bytes)
            return false;
    at = 0;
    for (int i = 0; i < n; at += iov[i].iov_len, i++)
        if (iov[i].iov_len > 0)
            memcpy(bytes + at, iov[i].iov_base, iov[i].iov_len);
    *one = (struct iovec){ bytes, at };
    return true;
}

static ssize_t plain_writev(int fd, const struct iovec *iov, int n) {
    struct iovec one;
    struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n };
    if (n > 1 && join(iov, n, &one)) {
        iov = &one;
        n = 1;
    }
    for (;;) {
        ssize_t sent = n == 1 ? send(fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL) : sendmsg(fd, &m, MSG_NOSIGNAL);
        if (sent >= 0)
            return sent;
        if (errno != EINTR)
            return errno == EAGAIN || errno == EWOULDBLOCK ? IO_AGAIN : IO_ERROR;
    }
}

ssize_t io_writev(struct io *io, const struct iovec *iov, int n) {
    CHECK(io->fd >= 0 && n > 0 && n <= IOV_MAX);
    return io->tls ? tls_writev(io->tls, iov, n) : plain_writev(io->fd, iov, n);
}

bool io_unsent(const struct io *io) {
    return io->tls && tls_unsent(io->tls);
}

int io_flush(struct io *io) {
    return io->tls ? tls_flush(io->tls) : 0;
}

void io_close(struct io *io) {
    if (io->tls) {
        tls_close_notify(io->tls);
        tls_free(io->tls);
        io->tls = NULL;
    }
    if (io->fd >= 0)
        close(io->fd);
    io->fd = -1;
}
