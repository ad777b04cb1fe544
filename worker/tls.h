/* Private to tls*.c: the process's random generator, configurations, a connection. */
#ifndef TG_TLS_H
#define TG_TLS_H

#include "proto/base/check.h"
#include "worker/io.h"
#include "worker/tls_compat.h"

enum {
    TLS_SESSIONS = 8,           /* cached a client configuration: one pool has one key */
    TLS_RECORD = 16384,         /* plain bytes of one record */
    TLS_RECORDS_A_WRITE = 3,    /* taken by one io_writev: what a peer that does not read can make us keep */
    TLS_TICKET_SECONDS = 43200  /* of our own server side: the keys behind the tickets change twice as often as this */
};

struct tls_ca {                 /* a parsed bundle, shared by the configurations that name it */
    struct tls_ca *next;
    uint64_t hash;
    size_t len;
    uint32_t refs;
    mbedtls_x509_crt chain;
};

struct tls_session {
    uint64_t key;               /* 0: empty */
    mbedtls_ssl_session session;
};

struct tls_client {
    uint32_t refs;              /* its owner and its connections */
    struct tls_ca *ca;
    mbedtls_ssl_config conf;
    struct tls_session sessions[TLS_SESSIONS];
};

struct tls_server {
    uint32_t refs;
    mbedtls_ssl_config conf;
    mbedtls_x509_crt cert;
    mbedtls_pk_context key;
    mbedtls_ssl_ticket_context tickets;
};

struct tls_bytes {              /* malloc'ed while there are some */
    unsigned char *mem;
    size_t off, len, cap;
};

struct tls_conn {
    mbedtls_ssl_context ssl;
    struct tls_client *client;  /* one of the two */
    struct tls_server *server;
    int fd;
    uint64_t session_key;
    struct tls_bytes in, out;   /* read from the socket, not yet decrypted; encrypted, not yet taken by the socket */
    struct tls_bytes raw, messages; /* tls_merge.c: no whole record yet; no whole message yet */
    int end;                    /* IO_EOF, IO_CUT, IO_ERROR: what every read answers from now on; 0: none */
    int error;                  /* mbedtls's, for the text */
    int sys_errno;
    uint32_t verify_flags;
    uint8_t address[16];        /* the peer's name is an address: its SAN is compared here */
    uint8_t address_len;        /* 0, 4, 16 */
    bool named;                 /* a name or an address to check was set */
    bool verified;              /* the chain and the name were looked at in this handshake: not so in a resumed one */
    bool offered;               /* a cached session */
    bool done;                  /* with the handshake */
    bool merging;               /* in the clear part of a handshake, where mbedtls needs its messages whole */
    bool drained;               /* the socket gave less than was asked for in this call */
    bool starved;               /* mbedtls was told that there is nothing to read */
    bool unwritable;            /* the socket failed on writing */
};

extern mbedtls_ctr_drbg_context tls_random; /* of this process, after tls_init */

/* tls.c */
bool tls_bytes_append(struct tls_bytes *b, const unsigned char *p, size_t n); /* false: out of memory */
void tls_bytes_release(struct tls_bytes *b);

/* tls_merge.c: takes what came from the socket, hands on to t->in what mbedtls can digest. false: out of memory. */
bool tls_merge(struct tls_conn *t, const unsigned char *p, size_t n);

/* tls_aead.c: whether ChaCha20-Poly1305 computes what RFC 8439 says, whoever computes it. */
bool tls_self_test(void);

/* tls_config.c */
void tls_client_hold(struct tls_client *c);
void tls_server_hold(struct tls_server *s);
void tls_session_offer(struct tls_conn *t);
void tls_session_save(struct tls_conn *t);
void tls_session_drop(struct tls_conn *t);

#endif
