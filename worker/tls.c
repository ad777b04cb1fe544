/* TLS over a non-blocking descriptor, with plain I/O's signature (io.h).
 *
 * Between mbedtls and the socket stand two buffers of the process (never more than one connection is worked on at a
 * time): what one recv gives is handed to mbedtls in the pieces it asks for, and what it writes during one call goes
 * out in one send. So a record costs one system call, not two, and a handshake's flight one, not four. What is left
 * over at the end of a call (a socket that takes no more, a caller whose buffer is full) is kept in the connection,
 * in memory that exists only then. mbedtls never sees a full socket, so the rule that an interrupted ssl_write must
 * be repeated with the same arguments cannot be broken: what it took, it has sent.
 *
 * Ends: close_notify is IO_EOF, an end of the socket without it IO_CUT, all else IO_ERROR; each is final. The peer's
 * name is checked always: mbedtls compares DNS names, address_matches compares addresses with the certificate's. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "proto/base/crypto.h"
#include "worker/tls.h"

enum { IN_BYTES = TLS_RECORD + 2048, OUT_BYTES = 4 * (TLS_RECORD + 256), SPIN_MAX = 1000 };

static unsigned char in_mem[IN_BYTES], out_mem[OUT_BYTES], stage[TLS_RECORD];
/* empty between calls */
static struct tls_bytes in_now = { in_mem, 0, 0, IN_BYTES }, out_now = { out_mem, 0, 0, OUT_BYTES };

/* ---- the socket's side ------------------------------------------------------------------------------------------- */

bool tls_bytes_append(struct tls_bytes *b, const unsigned char *p, size_t n) {
    if (b->off + b->len + n > b->cap) {
        size_t cap = b->len + n;
        unsigned char *mem = malloc(cap);
        if (!mem)
            return false;
        if (b->len)
            memcpy(mem, b->mem + b->off, b->len);
        free(b->mem);
        *b = (struct tls_bytes){ mem, 0, b->len, cap };
    }
    memcpy(b->mem + b->off + b->len, p, n);
    b->len += n;
    return true;
}

void tls_bytes_release(struct tls_bytes *b) {
    free(b->mem);
    *b = (struct tls_bytes){ 0 };
}

static size_t bytes_take(struct tls_bytes *b, unsigned char *p, size_t n) {
    if (n > b->len)
        n = b->len;
    memcpy(p, b->mem + b->off, n);
    b->off += n;
    b->len -= n;
    return n;
}

/* One recv into in_mem. > 0: bytes; else what mbedtls is to be told. */
static int fill(struct tls_conn *t) {
    if (t->drained) {
        t->starved = true;
        return MBEDTLS_ERR_SSL_WANT_READ;
    }
    ssize_t got;
    do
        got = recv(t->fd, in_mem, IN_BYTES, 0);
    while (got < 0 && errno == EINTR);
    if (got == 0)
        return MBEDTLS_ERR_SSL_CONN_EOF;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        t->starved = true;
        return MBEDTLS_ERR_SSL_WANT_READ;
    }
    if (got < 0) {
        t->sys_errno = errno;
        return errno == ECONNRESET || errno == EPIPE ? MBEDTLS_ERR_NET_CONN_RESET : MBEDTLS_ERR_NET_RECV_FAILED;
    }
    t->drained = got < IN_BYTES;
    return (int)got;
}

/* mbedtls asks for exactly what it needs next: a record's header, its body. */
static int bio_recv(void *ctx, unsigned char *p, size_t n) {
    struct tls_conn *t = ctx;
    while (!t->in.len && !in_now.len) {
        int got = fill(t);
        if (got <= 0)
            return got;
        if (!t->merging)
            in_now = (struct tls_bytes){ in_mem, 0, (size_t)got, IN_BYTES };
        else if (!tls_merge(t, in_mem, (size_t)got))
            return MBEDTLS_ERR_SSL_ALLOC_FAILED;
    }
    if (!t->in.len)
        return (int)bytes_take(&in_now, p, n);
    size_t taken = bytes_take(&t->in, p, n);
    if (!t->in.len)
        tls_bytes_release(&t->in);
    return (int)taken;
}

/* To the socket what it takes; b keeps the rest. 0, IO_AGAIN or IO_ERROR. */
static int push(struct tls_conn *t, struct tls_bytes *b) {
    while (b->len) {
        ssize_t n = send(t->fd, b->mem + b->off, b->len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return IO_AGAIN;
        if (n < 0) {
            t->unwritable = true;
            t->sys_errno = errno;
            b->len = 0;
            return IO_ERROR;
        }
        b->off += (size_t)n;
        b->len -= (size_t)n;
    }
    return 0;
}

/* Sends what this call produced, behind what earlier ones left; keeps the rest in the connection. */
static int push_out(struct tls_conn *t) {
    int r = t->unwritable ? IO_ERROR : t->out.len ? push(t, &t->out) : 0;
    if (r == 0)
        r = push(t, &out_now);
    if (r == IO_AGAIN && out_now.len && !tls_bytes_append(&t->out, out_mem + out_now.off, out_now.len)) {
        t->unwritable = true;
        t->sys_errno = ENOMEM;
        r = IO_ERROR;
    }
    out_now.off = out_now.len = 0;
    if (!t->out.len || r == IO_ERROR)
        tls_bytes_release(&t->out);
    return r;
}

static int bio_send(void *ctx, const unsigned char *p, size_t n) {
    struct tls_conn *t = ctx;
    CHECK(n <= OUT_BYTES);
    if (out_now.off + out_now.len + n > OUT_BYTES)
        push_out(t);
    if (t->unwritable)
        return MBEDTLS_ERR_NET_SEND_FAILED;
    memcpy(out_mem + out_now.off + out_now.len, p, n);
    out_now.len += n;
    return (int)n;
}

/* Around every call into mbedtls. */
static void enter(struct tls_conn *t) {
    CHECK(in_now.len == 0 && out_now.len == 0);
    in_now.off = out_now.off = 0;
    t->drained = false;
}

static void leave(struct tls_conn *t) {
    push_out(t);
    if (in_now.len && !tls_bytes_append(&t->in, in_mem + in_now.off, in_now.len)) {
        t->end = IO_ERROR; /* bytes are lost */
        t->error = MBEDTLS_ERR_SSL_ALLOC_FAILED;
    }
    in_now.len = in_now.off = 0;
}

/* ---- the peer's name --------------------------------------------------------------------------------------------- */

static bool address_matches(const struct tls_conn *t, const mbedtls_x509_crt *crt) {
    for (const mbedtls_x509_sequence *s = &crt->subject_alt_names; s; s = s->next) {
        bool is_address = (s->buf.tag & 0x1f) == 7; /* iPAddress [7] of GeneralName, RFC 5280 section 4.2.1.6 */
        if (is_address && s->buf.len == t->address_len && memcmp(s->buf.p, t->address, t->address_len) == 0)
            return true;
    }
    return false;
}

static int on_certificate(void *ctx, mbedtls_x509_crt *crt, int depth, uint32_t *flags) {
    struct tls_conn *t = ctx;
    if (depth == 0) {
        t->verified = true;
        if (t->address_len && !address_matches(t, crt))
            *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
    }
    t->verify_flags |= *flags;
    return 0;
}

static bool set_name(struct tls_conn *t, struct slice host) {
    char name[256];
    if (host.len == 0 || host.len >= sizeof name || memchr(host.ptr, 0, host.len))
        return false;
    memcpy(name, host.ptr, host.len);
    name[host.len] = 0;
    if (inet_pton(AF_INET, name, t->address) == 1)
        t->address_len = 4;
    else if (inet_pton(AF_INET6, name, t->address) == 1)
        t->address_len = 16;
    /* An address is not sent as SNI (RFC 6066 section 3), and on_certificate compares it. 3.6 wants to hear that no
     * name is meant. */
    t->named = mbedtls_ssl_set_hostname(&t->ssl, t->address_len ? NULL : name) == 0;
    return t->named;
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

static struct tls_conn *conn_new(int fd, const mbedtls_ssl_config *conf) {
    struct tls_conn *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->fd = fd;
    t->merging = MBEDTLS_VERSION_MAJOR < 3;
    mbedtls_ssl_init(&t->ssl);
    if (mbedtls_ssl_setup(&t->ssl, conf) != 0) {
        mbedtls_ssl_free(&t->ssl);
        free(t);
        return NULL;
    }
    mbedtls_ssl_set_bio(&t->ssl, t, bio_send, bio_recv, NULL);
    return t;
}

struct tls_conn *tls_connect(struct tls_client *c, int fd, struct slice host, uint64_t session_key) {
    struct tls_conn *t = conn_new(fd, &c->conf);
    if (!t)
        return NULL;
    t->client = c;
    tls_client_hold(c);
    t->session_key = hash64(host.ptr, host.len, session_key);
    if (t->session_key == 0)
        t->session_key = 1;
    mbedtls_ssl_set_verify(&t->ssl, on_certificate, t);
    if (!set_name(t, host)) {
        tls_free(t);
        return NULL;
    }
    tls_session_offer(t);
    return t;
}

struct tls_conn *tls_accept(struct tls_server *s, int fd) {
    struct tls_conn *t = conn_new(fd, &s->conf);
    if (!t)
        return NULL;
    t->server = s;
    tls_server_hold(s);
    return t;
}

void tls_free(struct tls_conn *t) {
    if (!t)
        return;
    tls_bytes_release(&t->in);
    tls_bytes_release(&t->out);
    tls_bytes_release(&t->raw);
    tls_bytes_release(&t->messages);
    mbedtls_ssl_free(&t->ssl);
    tls_client_free(t->client);
    tls_server_free(t->server);
    free(t);
}

/* Two buffers of a record and its overhead each, and what stands in the structs (measured: see
 * tests/unit/tls_test.c). */
size_t tls_conn_bytes(void) {
    return sizeof(struct tls_conn) + 2 * (TLS_RECORD + 350) + 3072;
}

const char *tls_version(const struct tls_conn *t) {
    return mbedtls_ssl_get_version(&t->ssl);
}

/* ---- handshake --------------------------------------------------------------------------------------------------- */

static int handshake_done(struct tls_conn *t, bool *resumed) {
    t->done = true;
    if (t->client) {
        /* Whatever mbedtls thinks: no client connection without a name, and none whose certificate was not found
         * good, now or when the session was made. */
        CHECK(t->named && (t->verified || t->offered));
        CHECK(t->verify_flags == 0 && mbedtls_ssl_get_verify_result(&t->ssl) == 0);
        if (!compat_is_tls13(&t->ssl))
            tls_session_save(t);
    }
    if (resumed)
        *resumed = t->client && !t->verified;
    return 1;
}

int tls_handshake(struct tls_conn *t, bool *resumed) {
    if (t->done)
        return 1;
    if (t->end)
        return IO_ERROR;
    enter(t);
    int r, spins = 0;
    do {
        t->starved = false;
        r = mbedtls_ssl_handshake(&t->ssl);
    } while (r == MBEDTLS_ERR_SSL_WANT_READ && !t->starved && ++spins < SPIN_MAX);
    leave(t);
    if (r == 0 && t->unwritable)
        r = MBEDTLS_ERR_NET_SEND_FAILED;
    if (r == MBEDTLS_ERR_SSL_WANT_READ && !t->end)
        return t->unwritable ? (t->end = IO_ERROR) : 0;
    if (r == 0 && !t->end)
        return handshake_done(t, resumed);
    if (!t->end)
        t->error = r;
    t->end = IO_ERROR;
    if (t->client)
        tls_session_drop(t);
    return IO_ERROR;
}

const char *tls_error(const struct tls_conn *t) {
    static char text[160]; /* until the next call: for a log line */
    uint32_t f = t->verify_flags;
    if (f & MBEDTLS_X509_BADCERT_EXPIRED)
        return "certificate has expired";
    if (f & MBEDTLS_X509_BADCERT_FUTURE)
        return "certificate is not valid yet";
    if (f & MBEDTLS_X509_BADCERT_REVOKED)
        return "certificate has been revoked";
    if (f & MBEDTLS_X509_BADCERT_CN_MISMATCH)
        return "certificate is for another name";
    if (f & MBEDTLS_X509_BADCERT_NOT_TRUSTED)
        return "certificate is not signed by a trusted authority";
    if (f & (MBEDTLS_X509_BADCERT_BAD_MD | MBEDTLS_X509_BADCERT_BAD_PK | MBEDTLS_X509_BADCERT_BAD_KEY))
        return "certificate uses an algorithm or a key that is too weak";
    if (f)
        return "certificate is not valid for a server";
    if (t->sys_errno)
        return strerror(t->sys_errno);
    if (t->error == MBEDTLS_ERR_SSL_CONN_EOF)
        return "closed by the peer";
    if (t->error == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE)
        return "the peer refused with an alert";
    if (t->error == 0)
        return "no error";
    mbedtls_strerror(t->error, text, sizeof text);
    return text;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

/* What mbedtls says of an end, in io.h's words; it is final. */
static int note_end(struct tls_conn *t, int r) {
    if (r == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) {
        t->end = IO_EOF;
    } else if (r == 0 || r == MBEDTLS_ERR_SSL_CONN_EOF) {
        t->end = IO_CUT;
    } else {
        t->end = IO_ERROR;
        t->error = r;
    }
    return t->end;
}

ssize_t tls_read(struct tls_conn *t, void *p, size_t cap) {
    CHECK(t->done);
    if (t->end)
        return t->end;
    enter(t);
    size_t got = 0;
    int spins = 0;
    while (got < cap) {
        t->starved = false;
        int r = mbedtls_ssl_read(&t->ssl, (unsigned char *)p + got, cap - got);
        if (r > 0) {
            got += (size_t)r;
        } else if (compat_is_new_ticket(r)) {
            if (t->client)
                tls_session_save(t);
        } else if (r == MBEDTLS_ERR_SSL_WANT_READ) {
            /* 3.6 says so too when it has only stopped at a ticket: then more may wait inside, and no edge would
             * come for it. */
            if (t->starved || ++spins == SPIN_MAX)
                break;
        } else {
            note_end(t, r);
            break;
        }
    }
    leave(t);
    if (got)
        return (ssize_t)got; /* an end is told by the next call */
    return t->end ? t->end : IO_AGAIN;
}

bool tls_more(const struct tls_conn *t) {
    return t->end || t->in.len || (t->done && mbedtls_ssl_get_bytes_avail(&t->ssl) > 0);
}

/* One record: plain bytes n, all of which mbedtls takes unless it fails. */
static bool write_record(struct tls_conn *t, const unsigned char *p, size_t n) {
    while (n) {
        int r = mbedtls_ssl_write(&t->ssl, p, n);
        if (r <= 0) {
            t->error = r;
            t->unwritable = true;
            return false;
        }
        p += r;
        n -= (size_t)r;
    }
    return true;
}

/* The next at most TLS_RECORD bytes of the vector: in place when one piece has them, else gathered in `stage`. */
static const unsigned char *gather(const struct iovec **iov, int *n, size_t *off, size_t *len) {
    while (*n && (*iov)->iov_len == *off) {
        (*iov)++, (*n)--;
        *off = 0;
    }
    *len = 0;
    if (!*n)
        return NULL;
    size_t first = (*iov)->iov_len - *off;
    if (first >= TLS_RECORD || *n == 1) {
        const unsigned char *p = (const unsigned char *)(*iov)->iov_base + *off;
        *len = first < TLS_RECORD ? first : TLS_RECORD;
        *off += *len;
        return p;
    }
    while (*n && *len < TLS_RECORD) {
        size_t piece = (*iov)->iov_len - *off, room = TLS_RECORD - *len;
        if (piece > room)
            piece = room;
        if (piece)
            memcpy(stage + *len, (const unsigned char *)(*iov)->iov_base + *off, piece);
        *len += piece;
        *off += piece;
        if (*off == (*iov)->iov_len) {
            (*iov)++, (*n)--;
            *off = 0;
        }
    }
    return stage;
}

ssize_t tls_writev(struct tls_conn *t, const struct iovec *iov, int n) {
    CHECK(t->done);
    if (t->unwritable)
        return IO_ERROR;
    enter(t);
    int r = t->out.len ? push_out(t) : 0;
    if (r != 0)
        return r;
    size_t off = 0, taken = 0, len;
    for (int records = 0; records < TLS_RECORDS_A_WRITE; records++) {
        const unsigned char *p = gather(&iov, &n, &off, &len);
        if (!p || !write_record(t, p, len))
            break;
        taken += len;
    }
    leave(t);
    return t->unwritable ? IO_ERROR : (ssize_t)taken;
}

bool tls_unsent(const struct tls_conn *t) {
    return t->out.len > 0;
}

int tls_flush(struct tls_conn *t) {
    if (t->unwritable)
        return IO_ERROR;
    return t->out.len ? push_out(t) : 0;
}

void tls_close_notify(struct tls_conn *t) {
    if (!t->done || t->unwritable || t->out.len || t->end == IO_ERROR)
        return;
    enter(t);
    mbedtls_ssl_close_notify(&t->ssl);
    push_out(t);
    in_now.len = 0;
}
