/* Bytes over a non-blocking descriptor, plain or TLS, with one signature. */
#ifndef TG_IO_H
#define TG_IO_H

#include <sys/types.h>
#include <sys/uio.h>
#include "proto/base/slice.h"

enum { /* results below zero */
    IO_AGAIN = -1, /* nothing now: an edge will come */
    IO_EOF = -2,   /* the peer ended properly (FIN; with TLS, close_notify) */
    IO_CUT = -3,   /* TLS ended without close_notify: a body that ends so is truncated */
    IO_ERROR = -4  /* reset, TLS alert, … : errno or tls text */
};

struct tls_conn;

struct io {
    int fd;
    struct tls_conn *tls; /* NULL: plain */
};

/* > 0: bytes. A read that fills less than cap has drained the socket, plain or TLS, unless io_more says otherwise.
 * Whoever was told of the peer's end (EPOLLRDHUP, EPOLLHUP, EPOLLERR) reads on until a result below zero that is not
 * IO_AGAIN. cap > 0. */
ssize_t io_read(struct io *io, void *p, size_t cap);
/* Whether a read would have an answer without the socket: bytes or an end that wait inside TLS. Never for a plain
 * one. */
bool io_more(const struct io *io);
/* > 0: bytes taken (with TLS they may still wait inside: io_unsent). IO_AGAIN: none; an edge will come. Any pointers
 * may be passed after IO_AGAIN: what TLS took it has copied. The sum of the lengths > 0, n <= IOV_MAX. Never raises
 * SIGPIPE. */
ssize_t io_writev(struct io *io, const struct iovec *iov, int n);
/* Whether TLS holds bytes that the socket did not take yet; io_flush tries again: 0 done, IO_AGAIN, IO_ERROR. */
bool io_unsent(const struct io *io);
int io_flush(struct io *io);
/* Best-effort close_notify, then close(2). fd becomes -1, tls NULL. A second call does nothing. */
void io_close(struct io *io);

/* ---- TLS (tls.c: the only user of mbedtls in the worker) --------------------------------------------------------- */

struct tls_client; /* configuration for upstreams with one CA bundle and version limit */
struct tls_server; /* configuration for `listen … tls` */

/* Once, after fork: seeds the random generator of this process (it must not share its parent's). 0 or -1. */
int tls_init(void);
/* Gives all back that tls_init took: for tests, which look for leaks. No connection and no configuration may be
 * left. */
void tls_exit(void);
/* pem: a CA bundle (the same bundle given twice is parsed once). tls_max: 12 or 13. NULL: err says why. */
struct tls_client *tls_client_new(struct slice ca_pem, unsigned tls_max, char *err, size_t err_len);
struct tls_server *tls_server_new(struct slice cert_pem, struct slice key_pem, char *err, size_t err_len);
/* Connections that still use it keep it alive. NULL is allowed. */
void tls_client_free(struct tls_client *c);
void tls_server_free(struct tls_server *s);
/* A connection; host: the name that the certificate must bear and SNI sends (an address: no SNI, matched against IP
 * SANs). The name check is always on (asserted: mbedtls 2.28 completes a handshake without one if none was set).
 * session_key names the cached session; one of another host is never offered. The descriptor stays the caller's.
 * NULL: out of memory. */
struct tls_conn *tls_connect(struct tls_client *c, int fd, struct slice host, uint64_t session_key);
struct tls_conn *tls_accept(struct tls_server *s, int fd);
/* 1 done; 0 wants an edge; IO_ERROR: tls_error says why. resumed (may be NULL) is set when it is done. Reading and
 * writing before it is done is a fault of the caller (CHECK). */
int tls_handshake(struct tls_conn *t, bool *resumed);
const char *tls_error(const struct tls_conn *t); /* "certificate has expired", … : for the operator's log */
void tls_free(struct tls_conn *t);
size_t tls_conn_bytes(void); /* memory of one connection, for the docs */
const char *tls_version(const struct tls_conn *t); /* "TLSv1.2", "TLSv1.3"; for logs */
void tls_library(char *out, size_t n);             /* "Mbed TLS 2.28.3" */

/* What io.c needs of it; everyone else calls io_*. */
ssize_t tls_read(struct tls_conn *t, void *p, size_t cap);
bool tls_more(const struct tls_conn *t);
ssize_t tls_writev(struct tls_conn *t, const struct iovec *iov, int n);
bool tls_unsent(const struct tls_conn *t);
int tls_flush(struct tls_conn *t);
void tls_close_notify(struct tls_conn *t);

#endif
