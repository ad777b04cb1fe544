/* Handshake messages that a peer cuts over several records, put together again, for an mbedtls that cannot (2.28
 * fails with "feature not available"; 3.6 can). RFC 5246 section 6.2.1 allows the cut anywhere; peers with small
 * record buffers make use of it.
 *
 * Only the clear part of a handshake is looked at: from the first byte to the first record of another type
 * (ChangeCipherSpec, an alert); after it every byte passes as it came. What the hash over the handshake covers are
 * messages, not records, so nothing else changes. A message longer than a record is passed as it came, and mbedtls
 * refuses it; so is what does not look like TLS. */
#include <stdlib.h>

#include "worker/tls.h"

enum { HEADER = 5, HANDSHAKE = 22, MESSAGE_HEADER = 4, RECORD_MAX = TLS_RECORD + 2048 };

static size_t u16(const unsigned char *p) {
    return (size_t)p[0] << 8 | p[1];
}

/* How many bytes in front are whole messages, at most max. */
static size_t whole_messages(const unsigned char *p, size_t n, size_t max) {
    size_t at = 0;
    while (n - at >= MESSAGE_HEADER) {
        size_t len = MESSAGE_HEADER + ((size_t)p[at + 1] << 16 | u16(p + at + 2));
        if (len > n - at || at + len > max)
            break;
        at += len;
    }
    return at;
}

static bool put_record(struct tls_conn *t, const unsigned char *p, size_t n) {
    unsigned char head[HEADER] = { HANDSHAKE, 3, 3, (unsigned char)(n >> 8), (unsigned char)n };
    return tls_bytes_append(&t->in, head, sizeof head) && tls_bytes_append(&t->in, p, n);
}

/* Hands on the messages that are whole; with `all` the rest too. */
static bool put_messages(struct tls_conn *t, bool all) {
    bool ok = true;
    while (ok && t->messages.len) {
        const unsigned char *p = t->messages.mem + t->messages.off;
        size_t n = whole_messages(p, t->messages.len, TLS_RECORD);
        if (n == 0 && !all)
            break;
        if (n == 0)
            n = t->messages.len < TLS_RECORD ? t->messages.len : TLS_RECORD;
        ok = put_record(t, p, n);
        t->messages.off += n;
        t->messages.len -= n;
    }
    if (!t->messages.len)
        tls_bytes_release(&t->messages);
    return ok;
}

/* From here on bytes pass as they come. */
static bool stop(struct tls_conn *t) {
    t->merging = false;
    bool ok = put_messages(t, true) && tls_bytes_append(&t->in, t->raw.mem + t->raw.off, t->raw.len);
    tls_bytes_release(&t->raw);
    return ok;
}

bool tls_merge(struct tls_conn *t, const unsigned char *p, size_t n) {
    if (!tls_bytes_append(&t->raw, p, n))
        return false;
    while (t->raw.len) {
        const unsigned char *r = t->raw.mem + t->raw.off;
        if (r[0] != HANDSHAKE || t->messages.len > TLS_RECORD)
            return stop(t);
        if (t->raw.len < HEADER)
            break;
        size_t len = u16(r + 3);
        if (len == 0 || len > RECORD_MAX)
            return stop(t);
        if (t->raw.len < HEADER + len)
            break;
        if (!tls_bytes_append(&t->messages, r + HEADER, len))
            return false;
        t->raw.off += HEADER + len;
        t->raw.len -= HEADER + len;
        if (!put_messages(t, false))
            return false;
    }
    if (!t->raw.len)
        tls_bytes_release(&t->raw);
    return true;
}
