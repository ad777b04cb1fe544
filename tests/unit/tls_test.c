/* TLS: against itself over a socket pair, and against openssl's s_server and s_client. Certificates are made here,
 * at the start. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/tls_fixture.h"
#include "worker/tls.h"

/* ---- certificates ------------------------------------------------------------------------------------------------ */

static int group_setup(void **state) {
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    return make_certificate_dir() == 0 ? tls_init() : -1;
}

static int group_teardown(void **state) {
    (void)state;
    tls_exit(); /* fails where a bundle is left */
    return drop_certificate_dir();
}

static struct tls_client *client_for(const char *ca, unsigned tls_max) {
    char err[200] = "";
    struct slice pem = load_file(ca);
    struct tls_client *c = tls_client_new(pem, tls_max, err, sizeof err);
    free((char *)pem.ptr);
    assert_string_equal(err, "");
    assert_non_null(c);
    return c;
}

static struct tls_server *server_for(const char *name) {
    char err[200] = "", file[20];
    snprintf(file, sizeof file, "%s.pem", name);
    struct slice cert = load_file(file);
    snprintf(file, sizeof file, "%s.key", name);
    struct slice key = load_file(file);
    struct tls_server *s = tls_server_new(cert, key, err, sizeof err);
    free((char *)cert.ptr), free((char *)key.ptr);
    assert_string_equal(err, "");
    assert_non_null(s);
    return s;
}

/* ---- both ends in this process ----------------------------------------------------------------------------------- */

struct both {
    struct io client, server;
    int result;   /* of the client's handshake */
    bool resumed;
    char why[160];
};

static void shake(struct both *b, struct tls_client *c, struct tls_server *s, const char *host, uint64_t key) {
    int fds[2], r = 0, q = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    *b = (struct both){ .client = { fds[0], tls_connect(c, fds[0], slice_str(host), key) },
                        .server = { fds[1], tls_accept(s, fds[1]) } };
    assert_true(b->client.tls && b->server.tls);
    for (int i = 0; i < 20 && r == 0; i++) {
        r = tls_handshake(b->client.tls, &b->resumed);
        if (q >= 0)
            q = tls_handshake(b->server.tls, NULL);
    }
    if (r == 1)
        assert_int_equal(q, 1);
    b->result = r;
    snprintf(b->why, sizeof b->why, "%s", tls_error(b->client.tls));
}

static void hang_up(struct both *b) {
    io_close(&b->client);
    io_close(&b->server);
    assert_int_equal(b->client.fd, -1);
    assert_null(b->client.tls);
    io_close(&b->client);
}

static void send_text(struct io *io, const char *text) {
    struct iovec v = { (char *)text, strlen(text) };
    assert_int_equal(io_writev(io, &v, 1), strlen(text));
}

static void expect_text(struct io *io, const char *text) {
    char got[200];
    ssize_t n = io_read(io, got, sizeof got - 1);
    assert_true(n > 0);
    got[n] = 0;
    assert_string_equal(got, text);
}

static void test_names(void **state) {
    (void)state;
    static const struct { const char *host; bool good; } cases[] = {
        { "good.test", true }, { "GOOD.test", true }, { "a.wild.test", true }, { "127.0.0.1", true }, { "::1", true },
        { "bad.test", false }, { "a.b.wild.test", false }, { "wild.test", false }, { "127.0.0.2", false },
        { "::2", false }, { "good.test.evil", false },
    };
    static const char *const certificates[] = { "ec", "rsa" };
    struct tls_client *c = client_for("ca.pem", 13);
    for (size_t k = 0; k < ARRAY_LEN(certificates); k++) {
        struct tls_server *s = server_for(certificates[k]);
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
            struct both b;
            shake(&b, c, s, cases[i].host, 100 * k + i);
            assert_int_equal(b.result, cases[i].good ? 1 : IO_ERROR);
            assert_string_equal(b.why, cases[i].good ? "no error" : "certificate is for another name");
            assert_false(b.resumed);
            if (cases[i].good) {
                send_text(&b.client, "hello");
                expect_text(&b.server, "hello");
            }
            hang_up(&b);
        }
        tls_server_free(s);
    }
    struct tls_conn *none = tls_connect(c, 0, SLICE(""), 1);
    assert_null(none); /* no name, no connection */
    tls_client_free(c);
}

/* A middle that passes what both ends write, `piece` bytes at a time. */
static void relay(int from, int to, size_t piece) {
    char p[64];
    ssize_t n;
    for (int i = 0; i < 50 && (n = recv(from, p, piece, 0)) > 0; i++)
        assert_int_equal(send(to, p, (size_t)n, 0), n);
}

/* Every record arrives in pieces, down to single bytes, and a turn may bring any number of them. */
static void test_trickle(void **state) {
    (void)state;
    struct tls_client *c = client_for("ca.pem", 13);
    struct tls_server *s = server_for("ec");
    int left[2], right[2];
    for (int one_at_a_time = 0; one_at_a_time < 2; one_at_a_time++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, left), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, right), 0);
        struct io a = { left[0], tls_connect(c, left[0], SLICE("good.test"), 50 + (uint64_t)one_at_a_time) };
        struct io b = { right[0], tls_accept(s, right[0]) };
        int r = 0, q = 0;
        for (int i = 0; i < 100000 && (r != 1 || q != 1); i++) {
            char byte;
            r = tls_handshake(a.tls, NULL);
            q = tls_handshake(b.tls, NULL);
            assert_true(r >= 0 && q >= 0);
            if (one_at_a_time) {
                if (recv(left[1], &byte, 1, 0) == 1)
                    assert_int_equal(send(right[1], &byte, 1, 0), 1);
                if (recv(right[1], &byte, 1, 0) == 1)
                    assert_int_equal(send(left[1], &byte, 1, 0), 1);
            } else {
                relay(left[1], right[1], 7), relay(right[1], left[1], 3);
            }
        }
        assert_true(r == 1 && q == 1);
        send_text(&a, "hello");
        relay(left[1], right[1], 64);
        expect_text(&b, "hello");
        io_close(&a), io_close(&b), close(left[1]), close(right[1]);
    }
    tls_client_free(c), tls_server_free(s);
}

static void test_bad_certificates(void **state) {
    (void)state;
    struct both b;
    struct tls_client *c = client_for("ca.pem", 13), *other = client_for("other.pem", 13);
    struct tls_server *old = server_for("old"), *good = server_for("ec");
    shake(&b, c, old, "good.test", 1);
    assert_int_equal(b.result, IO_ERROR);
    assert_string_equal(b.why, "certificate has expired");
    hang_up(&b);
    shake(&b, other, good, "good.test", 1);
    assert_int_equal(b.result, IO_ERROR);
    assert_string_equal(b.why, "certificate is not signed by a trusted authority");
    hang_up(&b);
    tls_client_free(c), tls_client_free(other), tls_server_free(old), tls_server_free(good);
}

static void test_configuration_errors(void **state) {
    (void)state;
    char err[200] = "";
    struct slice cert = load_file("ec.pem"), key = load_file("rsa.key");
    assert_null(tls_client_new(SLICE("no certificate"), 13, err, sizeof err));
    assert_non_null(strstr(err, "no usable certificate"));
    assert_null(tls_client_new(SLICE_NONE, 13, err, sizeof err));
    assert_null(tls_server_new(cert, key, err, sizeof err));
    assert_non_null(strstr(err, "do not belong together"));
    assert_null(tls_server_new(key, key, err, sizeof err));
    assert_null(tls_server_new(cert, cert, err, sizeof err));
    free((char *)cert.ptr), free((char *)key.ptr);
    /* The same bundle is parsed once; another configuration of it keeps it alive. */
    struct tls_client *a = client_for("both.pem", 13), *b = client_for("both.pem", 12), *c = client_for("ca.pem", 12);
    assert_ptr_equal(a->ca, b->ca);
    assert_ptr_not_equal(a->ca, c->ca);
    tls_client_free(a);
    struct both x;
    struct tls_server *s = server_for("ec");
    shake(&x, b, s, "good.test", 1);
    assert_int_equal(x.result, 1);
    assert_string_equal(tls_version(x.client.tls), "TLSv1.2");
    tls_client_free(b); /* the connection still uses it */
    send_text(&x.client, "hello");
    expect_text(&x.server, "hello");
    hang_up(&x);
    tls_client_free(c), tls_server_free(s);
}

/* A session is used again for the same key and host, and for no other. */
static void resumption(unsigned tls_max) {
    struct tls_client *c = client_for("ca.pem", tls_max);
    struct tls_server *s = server_for("rsa");
    static const struct { const char *host; uint64_t key; bool resumed; } steps[] = {
        { "good.test", 7, false }, { "good.test", 7, true }, { "good.test", 7, true }, { "good.test", 8, false },
        { "a.wild.test", 7, false }, { "bad.test", 7, false }, { "good.test", 7, true },
    };
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        struct both b;
        shake(&b, c, s, steps[i].host, steps[i].key);
        assert_int_equal(b.result, strcmp(steps[i].host, "bad.test") ? 1 : IO_ERROR);
        assert_int_equal(b.resumed, steps[i].resumed);
        if (b.result == 1) { /* with 1.3 the ticket comes with what is read first */
            send_text(&b.server, "answer");
            expect_text(&b.client, "answer");
        }
        hang_up(&b);
    }
    tls_client_free(c), tls_server_free(s);
}

static void test_resumption(void **state) {
    (void)state;
    resumption(12);
    resumption(13);
}

/* Only a ticket waits: a read says AGAIN, takes it in, and does not end the connection. */
static void test_ticket_alone(void **state) {
    (void)state;
    struct tls_client *c = client_for("ca.pem", 13);
    struct tls_server *s = server_for("ec");
    struct both b;
    char byte;
    shake(&b, c, s, "good.test", 3);
    assert_int_equal(b.result, 1);
    assert_int_equal(io_read(&b.client, &byte, 1), IO_AGAIN);
    assert_false(io_more(&b.client));
    send_text(&b.server, "!");
    expect_text(&b.client, "!");
    hang_up(&b);
    shake(&b, c, s, "good.test", 3);
    assert_true(b.resumed);
    hang_up(&b);
    tls_client_free(c), tls_server_free(s);
}

static void test_ends(void **state) {
    (void)state;
    struct tls_client *c = client_for("ca.pem", 13);
    struct tls_server *s = server_for("ec");
    struct both b;
    char got[100];
    shake(&b, c, s, "good.test", 1);
    assert_int_equal(io_read(&b.server, got, sizeof got), IO_AGAIN);
    send_text(&b.server, "last");
    io_close(&b.server);
    expect_text(&b.client, "last");
    assert_true(io_more(&b.client)); /* the end came with the bytes */
    assert_int_equal(io_read(&b.client, got, sizeof got), IO_EOF);
    assert_int_equal(io_read(&b.client, got, sizeof got), IO_EOF);
    hang_up(&b);

    shake(&b, c, s, "good.test", 1);
    send_text(&b.server, "half");
    close(b.server.fd); /* without close_notify */
    b.server.fd = -1;
    expect_text(&b.client, "half");
    assert_int_equal(io_read(&b.client, got, sizeof got), IO_CUT);
    struct iovec v = { "x", 1 };
    assert_int_equal(io_writev(&b.client, &v, 1), IO_ERROR); /* and no signal */
    assert_int_equal(io_writev(&b.client, &v, 1), IO_ERROR);
    tls_free(b.server.tls);
    b.server.tls = NULL;
    hang_up(&b);

    shake(&b, c, s, "good.test", 1);
    assert_int_equal(write(b.server.fd, "garbage that is no record", 25), 25);
    assert_int_equal(io_read(&b.client, got, sizeof got), IO_ERROR);
    assert_int_equal(io_read(&b.client, got, sizeof got), IO_ERROR);
    hang_up(&b);

    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    struct io io = { fds[0], tls_connect(c, fds[0], SLICE("good.test"), 99) };
    assert_int_equal(tls_handshake(io.tls, NULL), 0);
    close(fds[1]);
    assert_int_equal(tls_handshake(io.tls, NULL), IO_ERROR);
    assert_int_equal(tls_handshake(io.tls, NULL), IO_ERROR);
    assert_true(strstr(tls_error(io.tls), "closed") || strstr(tls_error(io.tls), "reset"));
    io_close(&io);
    tls_client_free(c), tls_server_free(s);
}

static uint8_t pattern(size_t at) {
    return (uint8_t)(at * 167 + (at >> 8) * 13 + (at >> 16));
}

/* Bytes in random pieces through a socket that takes little, each time from other memory; what arrives is what was
 * taken. */
static void pump(struct io *from, struct io *to, size_t total, unsigned *seed) {
    static uint8_t source[80000], sink[40000];
    size_t sent = 0, arrived = 0;
    int idle = 0, unsent = 0;
    while (arrived < total) {
        assert_true(idle++ < 1000);
        if (io_unsent(from)) {
            unsent++;
            assert_true(io_flush(from) != IO_ERROR);
        }
        if (sent < total) {
            struct iovec v[7];
            size_t want = 0, move = (size_t)rand_r(seed) % 1000;
            for (int i = 0; i < 7; i++) {
                size_t n = rand_r(seed) % 3 == 0 ? (size_t)rand_r(seed) % 10000 : (size_t)rand_r(seed) % 40;
                if (want + n > total - sent)
                    n = total - sent - want;
                v[i] = (struct iovec){ source + move + want, n };
                want += n;
            }
            for (size_t i = 0; i < want; i++)
                source[move + i] = pattern(sent + i);
            ssize_t n = want ? io_writev(from, v, 7) : IO_AGAIN;
            assert_true(n == IO_AGAIN || (n > 0 && (size_t)n <= want));
            memset(source, 0, move + want); /* what was taken is copied */
            if (n > 0)
                sent += (size_t)n, idle = 0;
        }
        size_t cap = 1 + (size_t)rand_r(seed) % sizeof sink;
        ssize_t n = io_read(to, sink, cap);
        assert_true(n == IO_AGAIN || n > 0);
        if (n > 0 && (size_t)n == cap && io_more(to))
            idle = 0;
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(sink[i], pattern(arrived + (size_t)i));
        if (n > 0)
            arrived += (size_t)n, idle = 0;
    }
    assert_true(unsent > 0 || total < 100000);
    assert_int_equal(arrived, sent);
}

static void test_bytes(void **state) {
    (void)state;
    struct tls_client *c = client_for("ca.pem", 13);
    struct tls_server *s = server_for("ec");
    struct both b;
    unsigned seed = 3;
    shake(&b, c, s, "good.test", 1);
    int small = 4000;
    setsockopt(b.client.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    setsockopt(b.server.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    pump(&b.client, &b.server, 2000000, &seed);
    pump(&b.server, &b.client, 2000000, &seed);
    pump(&b.client, &b.server, 5, &seed);
    hang_up(&b);
    tls_client_free(c), tls_server_free(s);
}

/* Pieces become one record: with ChaCha20 or GCM at most 29 bytes more than they have. */
static void test_coalescing(void **state) {
    (void)state;
    struct tls_client *c = client_for("ca.pem", 12);
    struct tls_server *s = server_for("ec");
    struct both b;
    shake(&b, c, s, "good.test", 1);
    struct iovec v[100];
    for (int i = 0; i < 100; i++)
        v[i] = (struct iovec){ "0123456789", 10 };
    char raw[2000];
    assert_int_equal(io_writev(&b.client, v, 100), 1000);
    ssize_t n = recv(b.server.fd, raw, sizeof raw, MSG_PEEK);
    assert_true(n > 1000 && n <= 1029);
    assert_int_equal(io_read(&b.server, raw, sizeof raw), 1000);
    assert_false(io_more(&b.server));
    assert_int_equal(io_read(&b.server, raw, sizeof raw), IO_AGAIN);
    hang_up(&b);
    tls_client_free(c), tls_server_free(s);
}

/* The random generator of a worker is its own: two children of one parent draw different numbers. */
static void test_children_differ(void **state) {
    (void)state;
    uint8_t drawn[2][16];
    for (int i = 0; i < 2; i++) {
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            uint8_t r[16];
            tls_exit();
            bool ok = tls_init() == 0 && mbedtls_ctr_drbg_random(&tls_random, r, sizeof r) == 0 &&
                      write(fds[1], r, sizeof r) == sizeof r;
            _exit(!ok);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(read(fds[0], drawn[i], 16), 16);
        close(fds[0]), close(fds[1]);
    }
    assert_memory_not_equal(drawn[0], drawn[1], 16);
}

/* ---- against openssl --------------------------------------------------------------------------------------------- */

struct program { pid_t pid; int in, out, port; };

/* Runs `openssl ARGS` in the folder of the certificates; waits for the port that s_server says it listens on. */
static struct program run_openssl(const char *args, bool server) {
    struct program p = { .port = 0 };
    int in[2], out[2];
    char command[600];
    snprintf(command, sizeof command, "cd %s && exec openssl %s", certificate_dir, args);
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    p.pid = fork();
    assert_true(p.pid >= 0);
    if (p.pid == 0) {
        dup2(in[0], 0), dup2(out[1], 1);
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 2);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(in[0]), close(out[1]);
    p.in = in[1], p.out = out[0];
    char text[2000] = "";
    size_t n = 0;
    while (server && p.port == 0) {
        ssize_t r = read(p.out, text + n, sizeof text - 1 - n);
        assert_true(r > 0);
        text[n += (size_t)r] = 0;
        const char *at = strstr(text, "ACCEPT ");
        const char *colon = at ? strrchr(at, ':') : NULL;
        if (colon && strchr(colon, '\n'))
            p.port = (int)strtol(colon + 1, NULL, 10);
    }
    return p;
}

static void end_program(struct program *p) {
    close(p->in);
    close(p->out);
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
}

static int dial(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static void await(int fd) {
    struct pollfd f = { fd, POLLIN, 0 };
    assert_int_equal(poll(&f, 1, 10000), 1);
}

static int shake_alone(struct io *io, bool *resumed) {
    int r;
    while ((r = tls_handshake(io->tls, resumed)) == 0)
        await(io->fd);
    return r;
}

/* One line there and, reversed (s_server -rev), back. */
static void ask(struct io *io) {
    char got[100];
    size_t n = 0;
    send_text(io, "abcdef\n");
    while (n < 7) {
        ssize_t r = io_read(io, got + n, sizeof got - n);
        assert_true(r > 0 || r == IO_AGAIN);
        if (r == IO_AGAIN)
            await(io->fd);
        else
            n += (size_t)r;
    }
    assert_memory_equal(got, "fedcba\n", 7);
}

static void with_s_server(const char *cert, const char *options, unsigned tls_max, int expected, bool resumes) {
    char args[300];
    snprintf(args, sizeof args, "s_server -accept 127.0.0.1:0 -cert %s.pem -key %s.key -rev %s", cert, cert, options);
    struct program p = run_openssl(args, true);
    struct tls_client *c = client_for("ca.pem", tls_max);
    for (int i = 0; i < (expected == 1 ? 3 : 1); i++) {
        bool resumed = false;
        int fd = dial(p.port);
        struct io io = { fd, tls_connect(c, fd, SLICE("good.test"), 5) };
        int r = shake_alone(&io, &resumed);
        if (r != expected)
            print_error("s_server %s %s: %s\n", cert, options, tls_error(io.tls));
        assert_int_equal(r, expected);
        if (r == 1) {
            assert_int_equal(resumed, i > 0 && resumes);
            ask(&io);
        }
        io_close(&io);
    }
    tls_client_free(c);
    end_program(&p);
}

static void test_openssl_servers(void **state) {
    (void)state;
    with_s_server("rsa", "-tls1_2", 12, 1, true);
    with_s_server("ec", "-tls1_2", 12, 1, true);
    with_s_server("rsa", "-tls1_2", 13, 1, true); /* 3.6.6 fails here with its own order of signature algorithms */
    with_s_server("rsa", "", 13, 1, true);
    with_s_server("ec", "", 13, 1, true);
    with_s_server("ec", "", 12, 1, true);
    with_s_server("ec", "-no_ticket -no_cache -tls1_2", 12, 1, false);
    with_s_server("ec", "-alpn http/1.1", 13, 1, true);
    with_s_server("ec", "-curves P-384", 13, 1, true); /* 1.3: by a second ClientHello */
    with_s_server("ec", "-tls1_1 -cipher ALL:@SECLEVEL=0", 13, IO_ERROR, false);
    with_s_server("rsa", "-tls1_2 -cipher AES128-SHA", 12, IO_ERROR, false); /* neither ECDHE nor AEAD */
    with_s_server("old", "", 13, IO_ERROR, false);
}

static void test_openssl_fragments(void **state) {
    (void)state;
    with_s_server("rsa", "-max_send_frag 512 -tls1_2", 12, 1, true);
    with_s_server("rsa", "-max_send_frag 512", 13, 1, true);
}

static void with_s_client(const char *options, bool good) {
    char args[300], got[100];
    struct tls_server *s = server_for("rsa");
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof a;
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(listener, 4), 0);
    getsockname(listener, (struct sockaddr *)&a, &len);
    snprintf(args, sizeof args, "s_client -connect 127.0.0.1:%d -CAfile ca.pem -verify_return_error "
             "-verify_hostname good.test -servername good.test -quiet -no_ign_eof %s", ntohs(a.sin_port), options);
    struct program p = run_openssl(args, false);
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct io io = { fd, tls_accept(s, fd) };
    assert_int_equal(shake_alone(&io, NULL), good ? 1 : IO_ERROR);
    if (good) {
        assert_int_equal(write(p.in, "question\n", 9), 9);
        ssize_t n;
        while ((n = io_read(&io, got, sizeof got)) == IO_AGAIN)
            await(fd);
        assert_int_equal(n, 9);
        assert_memory_equal(got, "question\n", 9);
        send_text(&io, "answer\n");
        assert_int_equal(read(p.out, got, sizeof got), 7);
        assert_memory_equal(got, "answer\n", 7);
        close(p.in); /* it ends with close_notify */
        p.in = open("/dev/null", O_WRONLY);
        while ((n = io_read(&io, got, sizeof got)) == IO_AGAIN)
            await(fd);
        assert_int_equal(n, IO_EOF);
    }
    io_close(&io);
    close(listener);
    end_program(&p);
    tls_server_free(s);
}

static void test_openssl_clients(void **state) {
    (void)state;
    with_s_client("-tls1_2", true);
    with_s_client("", true);
    with_s_client("-alpn h2,http/1.1", true);
    with_s_client("-tls1_1 -cipher ALL:@SECLEVEL=0", false);
    with_s_client("-alpn h2", false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_trickle),
        cmocka_unit_test(test_bad_certificates),
        cmocka_unit_test(test_configuration_errors),
        cmocka_unit_test(test_resumption),
        cmocka_unit_test(test_ticket_alone),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_coalescing),
        cmocka_unit_test(test_children_differ),
        cmocka_unit_test(test_openssl_servers),
        cmocka_unit_test(test_openssl_fragments),
        cmocka_unit_test(test_openssl_clients),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
