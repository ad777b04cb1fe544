/* Frames over a socket pair: fragments, descriptors, a full queue, a peer that breaks the rules. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "shm/ipc_io.h"

struct pair { struct ipc a, b; struct pages pages; };

static void open_pair(struct pair *p, size_t out_max) {
    int fds[2];
    assert_int_equal(ipc_pair(fds), 0);
    pages_init(&p->pages, 4);
    ipc_open(&p->a, fds[0], &p->pages, out_max);
    ipc_open(&p->b, fds[1], &p->pages, out_max);
}
static void close_pair(struct pair *p) {
    ipc_close(&p->a);
    ipc_close(&p->b);
    pages_clear(&p->pages);
}
static char *pattern(size_t n, unsigned seed) {
    char *p = malloc(n + 1);
    for (size_t i = 0; i < n; i++)
        p[i] = (char)(i * 31 + i / 251 + seed);
    return p;
}
static struct ipc_header head(uint32_t type, uint32_t id, uint32_t origin) {
    return (struct ipc_header){ .type = type, .id = id, .origin = origin };
}
static unsigned open_fds(void) {
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void small_frames_in_order(void **state) {
    (void)state;
    struct pair p;
    open_pair(&p, 1 << 20);
    struct ipc_frame f;
    assert_int_equal(ipc_recv(&p.b, &f), 0);
    for (uint32_t i = 0; i < 10; i++) {
        struct ipc_header h = head(IPC_CALL, i, IPC_FROM_WORKER + i);
        char text[16];
        int n = snprintf(text, sizeof text, "frame %u", i);
        assert_int_equal(ipc_send(&p.a, &h, slice_of(text, i ? (size_t)n : 0), NULL, 0), 0);
    }
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(ipc_recv(&p.b, &f), 1);
        assert_int_equal(f.h.type, IPC_CALL);
        assert_int_equal(f.h.id, i);
        assert_int_equal(f.h.origin, IPC_FROM_WORKER + i);
        assert_int_equal(f.payload.len, i ? 7 : 0);
        assert_int_equal(f.fd_count, 0);
    }
    assert_int_equal(ipc_recv(&p.b, &f), 0);
    close_pair(&p);
}

/* Payloads around the packet size and far beyond what the socket holds: the sender queues, both pump until all is
 * there. */
static void fragments(void **state) {
    (void)state;
    static const size_t sizes[] = { 1, IPC_CHUNK - 1, IPC_CHUNK, IPC_CHUNK + 1, 2 * IPC_CHUNK, 5000000 };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct pair p;
        open_pair(&p, IPC_MAX_PAYLOAD);
        char *text = pattern(sizes[i], (unsigned)i);
        struct ipc_header h = head(IPC_ANSWER, 7, 2), h2 = head(IPC_ANSWER, 8, 2);
        int sent = ipc_send(&p.a, &h, slice_of(text, sizes[i]), NULL, 0);
        assert_true(sent == 0 || sent == -EAGAIN);
        int next = ipc_send(&p.a, &h2, SLICE("behind"), NULL, 0);
        assert_int_equal(next, sent == 0 ? 0 : -EAGAIN);
        struct ipc_frame f;
        int got;
        while ((got = ipc_recv(&p.b, &f)) == 0)
            assert_true(ipc_flush(&p.a) <= 0);
        assert_int_equal(got, 1);
        assert_int_equal(f.h.id, 7);
        assert_int_equal(f.h.flags, 0);
        assert_int_equal(f.payload.len, sizes[i]);
        assert_memory_equal(f.payload.ptr, text, sizes[i]);
        while ((got = ipc_recv(&p.b, &f)) == 0)
            assert_true(ipc_flush(&p.a) <= 0);
        assert_int_equal(f.h.id, 8);
        assert_true(slice_is(f.payload, "behind"));
        assert_int_equal(ipc_flush(&p.a), 0);
        assert_int_equal(p.a.out_bytes, 0);
        free(text);
        close_pair(&p);
    }
}

/* Fragments of two frames mixed by the sender are kept apart. */
static void interleaved(void **state) {
    (void)state;
    struct pair p;
    open_pair(&p, 1 << 20);
    for (uint32_t part = 0; part < 3; part++)
        for (uint32_t id = 1; id <= 2; id++) {
            struct { struct ipc_header h; char c; } packet = { head(IPC_CALL, id, 0), (char)('a' + part + 3 * id) };
            packet.h.flags = part < 2 ? IPC_MORE : 0;
            size_t n = sizeof packet.h + 1;
            assert_int_equal(send(p.a.fd, &packet, n, 0), n);
        }
    struct ipc_frame f;
    assert_int_equal(ipc_recv(&p.b, &f), 1);
    assert_true(f.h.id == 1 && slice_is(f.payload, "def"));
    assert_int_equal(ipc_recv(&p.b, &f), 1);
    assert_true(f.h.id == 2 && slice_is(f.payload, "ghi"));
    close_pair(&p);
}

static void descriptors(void **state) {
    (void)state;
    unsigned before = open_fds();
    struct pair p;
    open_pair(&p, 8 << 20);
    int pipes[IPC_MAX_FDS / 2][2], fds[IPC_MAX_FDS];
    for (unsigned i = 0; i < IPC_MAX_FDS / 2; i++) {
        assert_int_equal(pipe2(pipes[i], O_CLOEXEC), 0);
        fds[2 * i] = pipes[i][0], fds[2 * i + 1] = pipes[i][1];
    }
    /* Queued behind more than the socket takes, so they are duplicated; then the sender closes his. */
    char *text = pattern(3000000, 1);
    struct ipc_header h = head(IPC_CALL, 1, 0), h2 = head(IPC_LISTENERS, 2, 0);
    assert_int_equal(ipc_send(&p.a, &h, slice_of(text, 3000000), NULL, 0), -EAGAIN);
    assert_int_equal(ipc_send(&p.a, &h2, slice_of(text, 200000), fds, IPC_MAX_FDS), -EAGAIN);
    for (unsigned i = 0; i < IPC_MAX_FDS; i++)
        close(fds[i]);
    struct ipc_frame f;
    int got = 0, frames = 0;
    while (frames < 2) {
        got = ipc_recv(&p.b, &f);
        assert_true(got >= 0);
        if (got == 0)
            assert_true(ipc_flush(&p.a) <= 0);
        frames += got;
    }
    assert_int_equal(f.h.id, 2);
    assert_int_equal(f.fd_count, IPC_MAX_FDS);
    assert_int_equal(f.payload.len, 200000);
    for (unsigned i = 0; i < IPC_MAX_FDS; i += 2) {
        char c = (char)i, back = 0;
        assert_int_equal(write(f.fds[i + 1], &c, 1), 1);
        assert_int_equal(read(f.fds[i], &back, 1), 1);
        assert_int_equal(back, c);
        assert_int_equal(fcntl(f.fds[i], F_GETFD), FD_CLOEXEC);
        close(f.fds[i]);
        close(f.fds[i + 1]);
    }
    /* Sent at once: the caller keeps his. A frame that nobody takes out closes what it holds. */
    struct ipc_header more = head(IPC_CALL, 9, 0);
    assert_int_equal(ipc_send(&p.a, &more, SLICE("x"), (int[]){ 0 }, 1), 0);
    assert_true(fcntl(0, F_GETFD) >= 0);
    free(text);
    close_pair(&p);
    assert_int_equal(open_fds(), before);
}

static void full_queue(void **state) {
    (void)state;
    struct pair p;
    open_pair(&p, 300000);
    char *text = pattern(100000, 3);
    struct ipc_header h = head(IPC_CALL, 1, 0);
    assert_int_equal(ipc_send(&p.a, &h, slice_of(text, 300001), NULL, 0), -ENOBUFS);
    unsigned taken = 0;
    int err;
    while ((err = ipc_send(&p.a, &h, slice_of(text, 100000), NULL, 0)) != -ENOBUFS) {
        assert_true(err == 0 || err == -EAGAIN);
        assert_true(++taken < 1000);
    }
    assert_true(p.a.out_bytes <= 300000);
    struct ipc_frame f;
    unsigned got = 0;
    for (int r; got < taken; got += (unsigned)r) {
        r = ipc_recv(&p.b, &f);
        assert_true(r >= 0);
        if (r == 0)
            assert_true(ipc_flush(&p.a) <= 0);
        else
            assert_memory_equal(f.payload.ptr, text, 100000);
    }
    assert_int_equal(ipc_flush(&p.a), 0);
    assert_int_equal(p.a.out_bytes, 0);
    assert_int_equal(ipc_send(&p.a, &h, slice_of(text, 10), NULL, 0), 0);
    free(text);
    close_pair(&p);
}

static void peer_gone(void **state) {
    (void)state;
    struct pair p;
    open_pair(&p, 1 << 20);
    struct ipc_header h = head(IPC_CALL, 1, 0);
    assert_int_equal(ipc_send(&p.a, &h, SLICE("last"), NULL, 0), 0);
    ipc_close(&p.a);
    assert_int_equal(ipc_send(&p.b, &h, SLICE("x"), NULL, 0), -EPIPE);
    struct ipc_frame f;
    assert_int_equal(ipc_recv(&p.b, &f), 1);
    assert_true(slice_is(f.payload, "last"));
    assert_int_equal(ipc_recv(&p.b, &f), -EPIPE);
    assert_int_equal(ipc_send(&p.a, &h, SLICE("x"), NULL, 0), -EPIPE);
    close_pair(&p);
}

/* A worker is not trusted: short packets, floods of unfinished frames and frames without end are refused. */
static void broken_protocol(void **state) {
    (void)state;
    struct pair p;
    struct ipc_frame f;
    open_pair(&p, 1 << 20);
    assert_int_equal(send(p.a.fd, "short", 5, 0), 5);
    assert_int_equal(ipc_recv(&p.b, &f), -EPROTO);
    close_pair(&p);
    open_pair(&p, 1 << 20);
    int got = 0;
    for (uint32_t id = 0; id < 100 && got == 0; id++) {
        struct ipc_header h = head(IPC_CALL, id, 0);
        h.flags = IPC_MORE;
        assert_int_equal(send(p.a.fd, &h, sizeof h, 0), sizeof h);
        got = ipc_recv(&p.b, &f);
    }
    assert_int_equal(got, -EPROTO);
    close_pair(&p);
    open_pair(&p, 1 << 20);
    char *packet = calloc(1, sizeof(struct ipc_header) + IPC_CHUNK);
    struct ipc_header endless = head(IPC_CALL, 1, 0);
    endless.flags = IPC_MORE;
    memcpy(packet, &endless, sizeof endless);
    size_t sent = 0;
    for (got = 0; got == 0 && sent < (size_t)2 * IPC_MAX_PAYLOAD; sent += IPC_CHUNK) {
        assert_true(send(p.a.fd, packet, sizeof(struct ipc_header) + IPC_CHUNK, 0) > 0);
        got = ipc_recv(&p.b, &f);
    }
    assert_int_equal(got, -EPROTO);
    free(packet);
    close_pair(&p);
}

/* Its last frame says why it ends, and is read though frames of ours were not. */
static void last_words(void **state) {
    (void)state;
    struct pair p;
    struct ipc_frame f;
    struct ipc_header h = head(IPC_ALERT, 0, 0);
    open_pair(&p, 1 << 20);
    assert_int_equal(ipc_send(&p.a, &h, slice_str("never read"), NULL, 0), 0);
    assert_int_equal(ipc_send(&p.b, &h, slice_str("the disk"), NULL, 0), 0);
    ipc_close(&p.b);
    assert_int_equal(ipc_recv(&p.a, &f), 1);
    assert_true(slice_eq(f.payload, slice_str("the disk")));
    assert_int_equal(ipc_recv(&p.a, &f), -EPIPE);
    close_pair(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_frames_in_order), cmocka_unit_test(fragments), cmocka_unit_test(interleaved),
        cmocka_unit_test(descriptors), cmocka_unit_test(full_queue), cmocka_unit_test(peer_gone),
        cmocka_unit_test(last_words),
        cmocka_unit_test(broken_protocol),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
