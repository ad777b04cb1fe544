/* One face for the two mbedtls that we build against: 2.28 (Debian 12) and 3.6 (Debian 13). Included by tls*.c alone.
 * A function of 3.6 that 2.28 lacks gets a namesake here; what differs in more than the name is wrapped. */
#ifndef TG_TLS_COMPAT_H
#define TG_TLS_COMPAT_H

#include <mbedtls/version.h>

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/net_sockets.h> /* error numbers only */
#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_ticket.h>
#include <mbedtls/x509_crt.h>
#if MBEDTLS_VERSION_MAJOR >= 3
#include <psa/crypto.h>
#endif

#if !defined(MBEDTLS_SSL_ALPN) || !defined(MBEDTLS_SSL_SERVER_NAME_INDICATION) || \
    !defined(MBEDTLS_SSL_SESSION_TICKETS) || !defined(MBEDTLS_X509_CRT_PARSE_C) || \
    !defined(MBEDTLS_PEM_PARSE_C) || !defined(MBEDTLS_HAVE_TIME_DATE)
#error "this mbedtls was built without what TLS needs: ALPN, SNI, tickets, X.509 in PEM, dates"
#endif

#if MBEDTLS_VERSION_MAJOR >= 3
#define COMPAT_PRIVATE(member) MBEDTLS_PRIVATE(member)
#else
#define COMPAT_PRIVATE(member) member
#endif

#if MBEDTLS_VERSION_MAJOR >= 3

#if defined(MBEDTLS_SSL_PROTO_TLS1_3)
#define COMPAT_TLS13 1
#endif

static inline int compat_pk_parse_key(mbedtls_pk_context *pk, const unsigned char *pem, size_t n,
                                      mbedtls_ctr_drbg_context *rng) {
    return mbedtls_pk_parse_key(pk, pem, n, NULL, 0, mbedtls_ctr_drbg_random, rng);
}
static inline int compat_pk_check_pair(const mbedtls_pk_context *pub, const mbedtls_pk_context *prv,
                                       mbedtls_ctr_drbg_context *rng) {
    return mbedtls_pk_check_pair(pub, prv, mbedtls_ctr_drbg_random, rng);
}

/* tls_max: 12 or 13. */
static inline void compat_versions(mbedtls_ssl_config *conf, unsigned tls_max) {
    mbedtls_ssl_conf_min_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_2);
#if defined(COMPAT_TLS13)
    mbedtls_ssl_conf_max_tls_version(conf, tls_max >= 13 ? MBEDTLS_SSL_VERSION_TLS1_3 : MBEDTLS_SSL_VERSION_TLS1_2);
#else
    (void)tls_max;
    mbedtls_ssl_conf_max_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_2);
#endif
}

/* P-256 first: every server has it, so TLS 1.3 needs no second round. PKCS#1 v1.5 before PSS: with PSS first 3.6.6
 * rejects servers that speak TLS 1.2 alone with an RSA certificate. */
static inline void compat_algorithms(mbedtls_ssl_config *conf) {
    static const uint16_t groups[] = { MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1, MBEDTLS_SSL_IANA_TLS_GROUP_X25519,
                                       MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1, MBEDTLS_SSL_IANA_TLS_GROUP_SECP521R1,
                                       MBEDTLS_SSL_IANA_TLS_GROUP_NONE };
    static const uint16_t signatures[] = {
        MBEDTLS_TLS1_3_SIG_ECDSA_SECP256R1_SHA256, MBEDTLS_TLS1_3_SIG_ECDSA_SECP384R1_SHA384,
        MBEDTLS_TLS1_3_SIG_ECDSA_SECP521R1_SHA512,
        MBEDTLS_TLS1_3_SIG_RSA_PKCS1_SHA256, MBEDTLS_TLS1_3_SIG_RSA_PKCS1_SHA384, MBEDTLS_TLS1_3_SIG_RSA_PKCS1_SHA512,
        MBEDTLS_TLS1_3_SIG_RSA_PSS_RSAE_SHA256, MBEDTLS_TLS1_3_SIG_RSA_PSS_RSAE_SHA384,
        MBEDTLS_TLS1_3_SIG_RSA_PSS_RSAE_SHA512,
        MBEDTLS_TLS1_3_SIG_NONE
    };
    mbedtls_ssl_conf_groups(conf, groups);
    mbedtls_ssl_conf_sig_algs(conf, signatures);
}

/* Tickets of TLS 1.3 come whenever the server likes; since 3.6.1 the library keeps quiet about them unless asked. */
static inline void compat_tickets(mbedtls_ssl_config *conf) {
#if defined(COMPAT_TLS13) && MBEDTLS_VERSION_NUMBER >= 0x03060100
    mbedtls_ssl_conf_tls13_enable_signal_new_session_tickets(conf,
                                                             MBEDTLS_SSL_TLS1_3_SIGNAL_NEW_SESSION_TICKETS_ENABLED);
#else
    (void)conf;
#endif
}
static inline bool compat_is_new_ticket(int r) {
#if defined(COMPAT_TLS13)
    return r == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET;
#else
    (void)r;
    return false;
#endif
}
static inline bool compat_is_tls13(const mbedtls_ssl_context *ssl) {
    return mbedtls_ssl_get_version_number(ssl) == MBEDTLS_SSL_VERSION_TLS1_3;
}

static inline int compat_crypto_init(void) { return psa_crypto_init() == PSA_SUCCESS ? 0 : -1; }
static inline void compat_crypto_free(void) { mbedtls_psa_crypto_free(); }

#else /* 2.28 */

static inline int compat_pk_parse_key(mbedtls_pk_context *pk, const unsigned char *pem, size_t n,
                                      mbedtls_ctr_drbg_context *rng) {
    (void)rng;
    return mbedtls_pk_parse_key(pk, pem, n, NULL, 0);
}
static inline int compat_pk_check_pair(const mbedtls_pk_context *pub, const mbedtls_pk_context *prv,
                                       mbedtls_ctr_drbg_context *rng) {
    (void)rng;
    return mbedtls_pk_check_pair(pub, prv);
}

/* Debian compiles TLS 1.0 and 1.1 in. */
static inline void compat_versions(mbedtls_ssl_config *conf, unsigned tls_max) {
    (void)tls_max;
    mbedtls_ssl_conf_min_version(conf, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
    mbedtls_ssl_conf_max_version(conf, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
}

/* P-256 first halves the client's handshake: its own order begins with the dearest curve. */
static inline void compat_algorithms(mbedtls_ssl_config *conf) {
    static const mbedtls_ecp_group_id groups[] = { MBEDTLS_ECP_DP_SECP256R1, MBEDTLS_ECP_DP_CURVE25519,
                                                   MBEDTLS_ECP_DP_SECP384R1, MBEDTLS_ECP_DP_SECP521R1,
                                                   MBEDTLS_ECP_DP_NONE };
    static const int hashes[] = { MBEDTLS_MD_SHA256, MBEDTLS_MD_SHA384, MBEDTLS_MD_SHA512, MBEDTLS_MD_NONE };
    mbedtls_ssl_conf_curves(conf, groups);
    mbedtls_ssl_conf_sig_hashes(conf, hashes);
}

static inline void compat_tickets(mbedtls_ssl_config *conf) { (void)conf; }
static inline bool compat_is_new_ticket(int r) { (void)r; return false; }
static inline bool compat_is_tls13(const mbedtls_ssl_context *ssl) { (void)ssl; return false; }
static inline int compat_crypto_init(void) { return 0; }
static inline void compat_crypto_free(void) {}

#endif

#endif
