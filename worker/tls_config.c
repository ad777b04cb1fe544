/* TLS configurations: the random generator of the process, CA bundles, sessions, certificates.
 *
 * Clients always verify the chain and the name; versions from 1.2; ECDHE with AEAD alone, ChaCha20 (tls_aead.c: 1.5
 * GB/s) before AES-GCM (which mbedtls does block by block even with AES-NI: 280 MB/s); ALPN http/1.1. A bundle of 140
 * certificates takes 5 ms and 0.45 MB, so it is parsed once, however many upstreams name it. Sessions are cached a
 * configuration; they hold secrets and stay in this process.
 *
 * Secrets: the copy of a private key's PEM is wiped; mbedtls wipes its own. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "proto/base/crypto.h"
#include "worker/entry.h"
#include "worker/tls.h"

mbedtls_ctr_drbg_context tls_random;
static mbedtls_entropy_context entropy;
static bool ready;
static struct tls_ca *bundles;

static const int suites[] = {
#if defined(COMPAT_TLS13)
    MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256, MBEDTLS_TLS1_3_AES_128_GCM_SHA256, MBEDTLS_TLS1_3_AES_256_GCM_SHA384,
#endif
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, 0
};
static const char *alpn[] = { "http/1.1", NULL };

int tls_init(void) {
    CHECK(!ready);
    char personal[64];
    int n = snprintf(personal, sizeof personal, "tollgate worker %d", (int)getpid());
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&tls_random);
    const unsigned char *bytes = (const unsigned char *)personal;
    if (mbedtls_ctr_drbg_seed(&tls_random, mbedtls_entropy_func, &entropy, bytes, (size_t)n) != 0 ||
        compat_crypto_init() != 0 || sodium_init() < 0 || !tls_self_test())
        return -1;
    ready = true;
    return 0;
}

void tls_exit(void) {
    CHECK(ready && !bundles);
    mbedtls_ctr_drbg_free(&tls_random);
    mbedtls_entropy_free(&entropy);
    compat_crypto_free();
    ready = false;
}

static void say(char *err, size_t err_len, const char *what, int code) {
    char text[120] = "";
    if (code)
        mbedtls_strerror(code, text, sizeof text);
    snprintf(err, err_len, "%s%s%s", what, code ? ": " : "", text);
}

/* mbedtls wants the NUL behind a PEM and counts it. */
static unsigned char *pem_copy(struct slice pem) {
    unsigned char *p = malloc(pem.len + 1);
    if (p) {
        memcpy(p, pem.len ? pem.ptr : "", pem.len);
        p[pem.len] = 0;
    }
    return p;
}

static int parse_certificates(mbedtls_x509_crt *chain, struct slice pem) {
    unsigned char *copy = pem_copy(pem);
    if (!copy)
        return MBEDTLS_ERR_X509_ALLOC_FAILED;
    int r = mbedtls_x509_crt_parse(chain, copy, pem.len + 1);
    free(copy);
    return r;
}

/* ---- CA bundles -------------------------------------------------------------------------------------------------- */

static struct tls_ca *ca_get(struct slice pem, char *err, size_t err_len) {
    uint64_t hash = hash64(pem.ptr, pem.len, 0x6361);
    for (struct tls_ca *ca = bundles; ca; ca = ca->next)
        if (ca->hash == hash && ca->len == pem.len) {
            ca->refs++;
            return ca;
        }
    struct tls_ca *ca = calloc(1, sizeof *ca);
    if (!ca) {
        say(err, err_len, "out of memory", 0);
        return NULL;
    }
    mbedtls_x509_crt_init(&ca->chain);
    int r = parse_certificates(&ca->chain, pem);
    if (r < 0 || ca->chain.version == 0) { /* r > 0: so many could not be read (an old algorithm), the others can */
        say(err, err_len, "the CA bundle has no usable certificate", r < 0 ? r : 0);
        mbedtls_x509_crt_free(&ca->chain);
        free(ca);
        return NULL;
    }
    ca->hash = hash;
    ca->len = pem.len;
    ca->refs = 1;
    ca->next = bundles;
    bundles = ca;
    return ca;
}

static void ca_put(struct tls_ca *ca) {
    if (!ca || --ca->refs)
        return;
    for (struct tls_ca **p = &bundles; *p; p = &(*p)->next)
        if (*p == ca) {
            *p = ca->next;
            break;
        }
    mbedtls_x509_crt_free(&ca->chain);
    free(ca);
}

/* ---- client ------------------------------------------------------------------------------------------------------ */

static int configure(mbedtls_ssl_config *conf, int endpoint, unsigned tls_max) {
    int r = mbedtls_ssl_config_defaults(conf, endpoint, MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    if (r != 0)
        return r;
    mbedtls_ssl_conf_rng(conf, mbedtls_ctr_drbg_random, &tls_random);
    compat_versions(conf, tls_max);
    compat_algorithms(conf);
    mbedtls_ssl_conf_ciphersuites(conf, suites);
    return mbedtls_ssl_conf_alpn_protocols(conf, alpn);
}

struct tls_client *tls_client_new(struct slice ca_pem, unsigned tls_max, char *err, size_t err_len) {
    CHECK(ready);
    struct tls_client *c = calloc(1, sizeof *c);
    if (!c) {
        say(err, err_len, "out of memory", 0);
        return NULL;
    }
    c->refs = 1;
    mbedtls_ssl_config_init(&c->conf);
    c->ca = ca_get(ca_pem, err, err_len);
    if (!c->ca) {
        tls_client_free(c);
        return NULL;
    }
    int r = configure(&c->conf, MBEDTLS_SSL_IS_CLIENT, tls_max);
    if (r != 0) {
        say(err, err_len, "TLS cannot be configured", r);
        tls_client_free(c);
        return NULL;
    }
    mbedtls_ssl_conf_authmode(&c->conf, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_ca_chain(&c->conf, &c->ca->chain, NULL);
    mbedtls_ssl_conf_session_tickets(&c->conf, MBEDTLS_SSL_SESSION_TICKETS_ENABLED);
    compat_tickets(&c->conf);
    return c;
}

void tls_client_hold(struct tls_client *c) {
    c->refs++;
}

void tls_client_free(struct tls_client *c) {
    if (!c || --c->refs)
        return;
    for (unsigned i = 0; i < TLS_SESSIONS; i++)
        if (c->sessions[i].key)
            mbedtls_ssl_session_free(&c->sessions[i].session);
    mbedtls_ssl_config_free(&c->conf);
    ca_put(c->ca);
    free(c);
}

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

static struct tls_session *session_place(struct tls_conn *t) {
    return &t->client->sessions[t->session_key % TLS_SESSIONS];
}

void tls_session_offer(struct tls_conn *t) {
    struct tls_session *s = session_place(t);
    t->offered = s->key == t->session_key && mbedtls_ssl_set_session(&t->ssl, &s->session) == 0;
}

static void session_clear(struct tls_session *s) {
    if (s->key)
        mbedtls_ssl_session_free(&s->session);
    s->key = 0;
}

/* After a handshake (1.2) or with each ticket (1.3). A failure costs the next connection a full handshake. */
void tls_session_save(struct tls_conn *t) {
    struct tls_session *s = session_place(t);
    session_clear(s);
    mbedtls_ssl_session_init(&s->session);
    if (mbedtls_ssl_get_session(&t->ssl, &s->session) == 0)
        s->key = t->session_key;
    else
        mbedtls_ssl_session_free(&s->session);
}

/* A handshake with it failed: the next one is a full one. */
void tls_session_drop(struct tls_conn *t) {
    struct tls_session *s = session_place(t);
    if (s->key == t->session_key)
        session_clear(s);
}

/* ---- server ------------------------------------------------------------------------------------------------------ */

static int parse_key(struct tls_server *s, struct slice pem) {
    unsigned char *copy = pem_copy(pem);
    if (!copy)
        return MBEDTLS_ERR_PK_ALLOC_FAILED;
    int r = compat_pk_parse_key(&s->key, copy, pem.len + 1, &tls_random);
    wipe(copy, pem.len + 1);
    free(copy);
    return r;
}

static const char *server_setup(struct tls_server *s, struct slice cert_pem, struct slice key_pem, int *r) {
    *r = parse_certificates(&s->cert, cert_pem);
    if (*r != 0)
        return *r > 0 ? "a certificate of the chain cannot be read" : "the certificate cannot be read";
    if ((*r = parse_key(s, key_pem)) != 0)
        return "the certificate's key cannot be read";
    if ((*r = compat_pk_check_pair(&s->cert.pk, &s->key, &tls_random)) != 0)
        return "certificate and key do not belong together";
    if ((*r = configure(&s->conf, MBEDTLS_SSL_IS_SERVER, 13)) != 0)
        return "TLS cannot be configured";
    mbedtls_ssl_conf_authmode(&s->conf, MBEDTLS_SSL_VERIFY_NONE);
    if ((*r = mbedtls_ssl_conf_own_cert(&s->conf, &s->cert, &s->key)) != 0)
        return "TLS cannot be configured";
    if ((*r = mbedtls_ssl_ticket_setup(&s->tickets, mbedtls_ctr_drbg_random, &tls_random, MBEDTLS_CIPHER_AES_256_GCM,
                                       TLS_TICKET_SECONDS)) != 0)
        return "TLS tickets cannot be configured";
    mbedtls_ssl_conf_session_tickets_cb(&s->conf, mbedtls_ssl_ticket_write, mbedtls_ssl_ticket_parse, &s->tickets);
    return NULL;
}

struct tls_server *tls_server_new(struct slice cert_pem, struct slice key_pem, char *err, size_t err_len) {
    CHECK(ready);
    struct tls_server *s = calloc(1, sizeof *s);
    if (!s) {
        say(err, err_len, "out of memory", 0);
        return NULL;
    }
    s->refs = 1;
    mbedtls_ssl_config_init(&s->conf);
    mbedtls_x509_crt_init(&s->cert);
    mbedtls_pk_init(&s->key);
    mbedtls_ssl_ticket_init(&s->tickets);
    int r = 0;
    const char *what = server_setup(s, cert_pem, key_pem, &r);
    if (what) {
        say(err, err_len, what, r < 0 ? r : 0);
        tls_server_free(s);
        return NULL;
    }
    return s;
}

void tls_server_hold(struct tls_server *s) {
    s->refs++;
}

void tls_server_free(struct tls_server *s) {
    if (!s || --s->refs)
        return;
    mbedtls_ssl_config_free(&s->conf);
    mbedtls_ssl_ticket_free(&s->tickets);
    mbedtls_pk_free(&s->key);
    mbedtls_x509_crt_free(&s->cert);
    free(s);
}

void tls_library(char *out, size_t n) {
    char text[18]; /* the size that its documentation asks for */
    mbedtls_version_get_string_full(text);
    snprintf(out, n, "%s", text);
}

void worker_versions(char *out, size_t n) {
    char text[24] = "";
    mbedtls_version_get_string_full(text); /* at most 18 bytes */
    snprintf(out, n, "%s", text);
}
