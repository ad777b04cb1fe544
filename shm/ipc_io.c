/* proto/ipc.h's frames over SOCK_SEQPACKET pairs.
 *
 * A frame is sent at once while the socket takes it; what it does not take is copied to a queue that has a ceiling,
 * and ipc_flush sends on when the socket is writable again. Frames never overtake each other. Descriptors ride on a
 * frame's first packet; a queued frame owns duplicates of them. Fragments (IPC_MORE) are put together by (type, id,
 * origin); what a peer may leave unfinished is bounded in number and in bytes, because a worker is not trusted.
 * Failures: -EPIPE when the peer is gone, -EPROTO when it sends what no frame is (the caller closes), -ENOMEM.
 * Nothing here is fatal. */
#include "shm/ipc_io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "proto/base/check.h"

enum { MAX_PARTIAL = 4, SOCKET_BUFFER = 1 << 20 };

struct ipc_out {
    struct ipc_out *next;
    struct ipc_header header;
    size_t len, sent;
    int fds[IPC_MAX_FDS];
    unsigned fd_count; /* 0 once they are on their way */
    bool begun;        /* a packet of it has gone out (an empty payload needs one too) */
    char payload[];
};

struct ipc_in {
    struct ipc_in *next;
    struct ipc_header header;
    size_t len, cap;
    char *payload;
    int fds[IPC_MAX_FDS];
    unsigned fd_count;
    bool delivered; /* the caller has it; goes with the next ipc_recv */
};

int ipc_pair(int fds[2]) {
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    for (int i = 0; i < 2; i++) {
        int bytes = SOCKET_BUFFER; /* the kernel cuts it to wmem_max, whose default holds three packets */
        (void)setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    }
    return 0;
}

void ipc_open(struct ipc *c, int fd, struct pages *pages, size_t out_max) {
    *c = (struct ipc){ .fd = fd, .pages = pages, .out_max = out_max };
}

static void close_all(int *fds, unsigned n) {
    for (unsigned i = 0; i < n; i++)
        close(fds[i]);
}

static void in_free(struct ipc_in *in) {
    if (!in->delivered)
        close_all(in->fds, in->fd_count);
    free(in->payload);
    free(in);
}

static void out_drop_first(struct ipc *c) {
    struct ipc_out *o = c->out_first;
    c->out_first = o->next;
    if (!c->out_first)
        c->out_last = NULL;
    CHECK(c->out_bytes >= o->len);
    c->out_bytes -= o->len;
    close_all(o->fds, o->fd_count);
    free(o);
}

void ipc_close(struct ipc *c) {
    while (c->out_first)
        out_drop_first(c);
    while (c->partial) {
        struct ipc_in *in = c->partial;
        c->partial = in->next;
        in_free(in);
    }
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

/* One packet of at most IPC_CHUNK bytes from p. Returns 0 or -errno. */
static int send_packet(int fd, struct ipc_header h, const char *p, size_t n, bool more, const int *fds,
                       unsigned fd_count) {
    union { struct cmsghdr align; char room[CMSG_SPACE(sizeof(int) * IPC_MAX_FDS)]; } control;
    h.flags = more ? h.flags | IPC_MORE : h.flags & ~(uint32_t)IPC_MORE;
    struct iovec iov[2] = { { &h, sizeof h }, { (void *)(uintptr_t)p, n } };
    struct msghdr m = { .msg_iov = iov, .msg_iovlen = n ? 2 : 1 };
    if (fd_count > 0) {
        memset(&control, 0, sizeof control);
        m.msg_control = &control;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *cm = CMSG_FIRSTHDR(&m);
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(cm), fds, sizeof(int) * fd_count);
    }
    ssize_t got;
    do
        got = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got >= 0)
        return 0;
    if (errno == EAGAIN || errno == ENOBUFS ||
        errno == ETOOMANYREFS) /* the last two: too much is under way; it drains */
        return -EAGAIN;
    return errno == ECONNRESET || errno == EPIPE ? -EPIPE : -errno;
}

/* Sends payload from *sent on, packet by packet. 0: all of it; -EAGAIN; another -errno. */
static int send_from(int fd, const struct ipc_header *h, const char *p, size_t len, size_t *sent, bool *begun,
                     const int *fds, unsigned fd_count) {
    while (!*begun || *sent < len) {
        size_t n = len - *sent < IPC_CHUNK ? len - *sent : IPC_CHUNK;
        const char *from = n ? p + *sent : p; /* an empty payload may be NULL */
        int err = send_packet(fd, *h, from, n, *sent + n < len, fds, *begun ? 0 : fd_count);
        if (err)
            return err;
        *begun = true;
        *sent += n;
    }
    return 0;
}

static int queue(struct ipc *c, const struct ipc_header *h, struct slice payload, size_t sent, bool begun,
                 const int *fds, unsigned fd_count) {
    struct ipc_out *o = malloc(sizeof *o + payload.len - sent);
    if (!o)
        return -ENOMEM;
    *o = (struct ipc_out){ .header = *h, .len = payload.len - sent, .begun = begun };
    for (unsigned i = 0; i < fd_count && !begun; i++) {
        int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (fd < 0) {
            int err = -errno;
            close_all(o->fds, o->fd_count);
            free(o);
            return err;
        }
        o->fds[o->fd_count++] = fd;
    }
    if (o->len > 0)
        memcpy(o->payload, payload.ptr + sent, o->len);
    *(c->out_last ? &c->out_last->next : &c->out_first) = o;
    c->out_last = o;
    c->out_bytes += o->len;
    return -EAGAIN;
}

int ipc_send(struct ipc *c, const struct ipc_header *h, struct slice payload, const int *fds, unsigned fd_count) {
    CHECK(fd_count <= IPC_MAX_FDS);
    if (c->fd < 0)
        return -EPIPE;
    if (payload.len > IPC_MAX_PAYLOAD || payload.len > c->out_max || c->out_bytes > c->out_max - payload.len)
        return -ENOBUFS;
    size_t sent = 0;
    bool begun = false;
    int err = c->out_first ? -EAGAIN : send_from(c->fd, h, payload.ptr, payload.len, &sent, &begun, fds, fd_count);
    return err == -EAGAIN ? queue(c, h, payload, sent, begun, fds, fd_count) : err;
}

int ipc_flush(struct ipc *c) {
    while (c->out_first) {
        struct ipc_out *o = c->out_first;
        int err = send_from(c->fd, &o->header, o->payload, o->len, &o->sent, &o->begun, o->fds, o->fd_count);
        if (o->begun) {
            close_all(o->fds, o->fd_count);
            o->fd_count = 0;
        }
        if (err)
            return err;
        out_drop_first(c);
    }
    return 0;
}

/* The unfinished frame that a packet belongs to, unlinked; a new one if there is none; NULL: too many, or no memory. */
static struct ipc_in *take_partial(struct ipc *c, const struct ipc_header *h) {
    unsigned n = 0;
    for (struct ipc_in **at = &c->partial; *at; at = &(*at)->next, n++) {
        struct ipc_in *in = *at;
        if (in->header.type == h->type && in->header.id == h->id && in->header.origin == h->origin) {
            *at = in->next;
            return in;
        }
    }
    struct ipc_in *in = n < MAX_PARTIAL ? calloc(1, sizeof *in) : NULL;
    if (in)
        in->header = *h;
    return in;
}

static bool in_append(struct ipc_in *in, const char *p, size_t n) {
    if (in->len + n > IPC_MAX_PAYLOAD)
        return false;
    if (in->len + n + 1 > in->cap) {
        size_t cap = in->cap ? in->cap * 2 : n + 1;
        while (cap < in->len + n + 1)
            cap *= 2;
        char *grown = realloc(in->payload, cap);
        if (!grown)
            return false;
        in->payload = grown;
        in->cap = cap;
    }
    if (n > 0)
        memcpy(in->payload + in->len, p, n);
    in->len += n;
    in->payload[in->len] = '\0'; /* for those who print it; not counted */
    return true;
}

/* Takes the descriptors out of a message. false: more than fit, or cut off by the kernel (those that came are
 * closed). */
static bool take_fds(struct msghdr *m, int *fds, unsigned *count) {
    bool ok = !(m->msg_flags & (MSG_CTRUNC | MSG_TRUNC));
    for (struct cmsghdr *cm = CMSG_FIRSTHDR(m); cm; cm = CMSG_NXTHDR(m, cm)) {
        if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(cm) + i * sizeof fd, sizeof fd);
            if (*count < IPC_MAX_FDS)
                fds[(*count)++] = fd;
            else
                close(fd), ok = false;
        }
    }
    return ok;
}

/* Adds one packet to its frame: 1 when that is whole (linked first, delivered), 0 when more follows, -EPROTO. */
static int accept_packet(struct ipc *c, const char *packet, size_t n, const int *fds, unsigned fd_count) {
    struct ipc_header h;
    if (n < sizeof h)
        return -EPROTO;
    memcpy(&h, packet, sizeof h);
    struct ipc_in *in = take_partial(c, &h);
    if (!in)
        return -EPROTO;
    if (in->fd_count + fd_count > IPC_MAX_FDS || !in_append(in, packet + sizeof h, n - sizeof h)) {
        in_free(in);
        return -EPROTO;
    }
    if (fd_count > 0)
        memcpy(in->fds + in->fd_count, fds, fd_count * sizeof *fds);
    in->fd_count += fd_count;
    in->delivered = !(h.flags & IPC_MORE);
    in->next = c->partial;
    c->partial = in;
    return in->delivered;
}

int ipc_recv(struct ipc *c, struct ipc_frame *f) {
    static char packet[sizeof(struct ipc_header) + IPC_CHUNK]; /* one thread a process */
    union { struct cmsghdr align; char room[CMSG_SPACE(sizeof(int) * IPC_MAX_FDS)]; } control;
    if (c->partial && c->partial->delivered) {
        struct ipc_in *in = c->partial;
        c->partial = in->next;
        in_free(in);
    }
    for (;;) {
        struct iovec iov = { packet, sizeof packet };
        struct msghdr m = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control
        };
        ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0 && (errno == EINTR || errno == ECONNRESET))
            continue; /* reset: it closed with frames of ours unread, said once and before what it had sent */
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n <= 0)
            return n < 0 ? -errno : -EPIPE;
        int fds[IPC_MAX_FDS];
        unsigned fd_count = 0;
        int got = take_fds(&m, fds, &fd_count) ? accept_packet(c, packet, (size_t)n, fds, fd_count) : -EPROTO;
        if (got < 0)
            close_all(fds, fd_count);
        if (got <= 0) {
            if (got < 0)
                return got;
            continue;
        }
        struct ipc_in *in = c->partial;
        *f = (struct ipc_frame){ .h = in->header, .payload = slice_of(in->payload, in->len), .fd_count = in->fd_count };
        f->h.flags &= ~(uint32_t)IPC_MORE;
        if (in->fd_count > 0)
            memcpy(f->fds, in->fds, in->fd_count * sizeof *f->fds);
        return 1;
    }
}
