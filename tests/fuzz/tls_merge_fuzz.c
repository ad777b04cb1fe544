/* tls_merge under any bytes in any pieces: it keeps every byte of the handshake messages in order, holds back only what
 * is not whole, and changes nothing once it has stopped. The first byte is the size of the pieces. */
#include <stdlib.h>

#include "worker/tls.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct text { uint8_t *p; size_t n; };

static void add(struct text *t, const uint8_t *p, size_t n) {
    memcpy(t->p + t->n, p, n);
    t->n += n;
}

/* What the records say without their headers, up to the first that is none; *rest: where that begins. */
static struct text payload(const uint8_t *p, size_t n, size_t *rest) {
    struct text t = { malloc(n + 1), 0 };
    size_t at = 0;
    while (n - at >= 5 && p[at] == 22) {
        size_t len = (size_t)p[at + 3] << 8 | p[at + 4];
        if (len == 0 || len > TLS_RECORD + 2048 || n - at < 5 + len)
            break;
        add(&t, p + at + 5, len);
        at += 5 + len;
    }
    *rest = at;
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    size_t piece = (size_t)data[0] + 1, rest_in, rest_out;
    data++, size--;
    struct tls_conn t = { .merging = true };
    for (size_t at = 0; at < size;) {
        size_t n = size - at < piece ? size - at : piece;
        if (t.merging)
            CHECK(tls_merge(&t, data + at, n));
        else
            CHECK(tls_bytes_append(&t.in, data + at, n));
        at += n;
    }
    struct text in = payload(data, size, &rest_in);
    const uint8_t *out_mem = t.in.len ? t.in.mem + t.in.off : (const uint8_t *)"";
    struct text out = payload(out_mem, t.in.len, &rest_out);
    /* Records behind a stop pass as they came, so their payload shows in both; what is still held is a message that is
     * not whole, and raw bytes of a record that is not. */
    size_t held = t.messages.len;
    CHECK(out.n + held == in.n);
    CHECK(memcmp(in.p, out.p, out.n) == 0);
    CHECK(held == 0 || memcmp(in.p + out.n, t.messages.mem + t.messages.off, held) == 0);
    CHECK(t.merging || held == 0);
    const struct tls_bytes *rest = t.merging ? &t.raw : &t.in;
    size_t from = t.merging ? 0 : rest_out;
    CHECK(rest->len - from == size - rest_in);
    CHECK(size == rest_in || memcmp(rest->mem + rest->off + from, data + rest_in, size - rest_in) == 0);
    free(in.p), free(out.p);
    tls_bytes_release(&t.in);
    tls_bytes_release(&t.raw);
    tls_bytes_release(&t.messages);
    return 0;
}
