/* The library's ChaCha20 and Poly1305 by ours (proto/base/chacha.h), which are five times as fast: in a call over TLS
 * they were a third of what the processor did outside the kernel.
 *
 * mbedtls foresees such replacements (MBEDTLS_CHACHA20_ALT), but only where it is compiled. Here the linker does it:
 * the library calls these two through its own table of symbols, and the program's come first. Where a library is
 * linked in a way that does not ask, its own code runs, and all is as before. The contexts are laid out alike in 2.28
 * and in 3.6; tls_self_test, before the first connection, shows that they still are. */
#include <mbedtls/chachapoly.h>

#include "proto/base/chacha.h"
#include "worker/tls.h"

#if defined(MBEDTLS_CHACHA20_ALT) || defined(MBEDTLS_POLY1305_ALT)
#error "this mbedtls has implementations of its own: leave this file out"
#endif

enum { COUNTER = 12 };
_Static_assert(offsetof(mbedtls_chacha20_context, COMPAT_PRIVATE(keystream8)) == 64 &&
                   sizeof(mbedtls_poly1305_context) == 80,
               "the contexts of mbedtls 2.28 and 3.6");

/* A block of key stream into the context, of which the caller has used none yet. */
static void next_block(mbedtls_chacha20_context *c) {
    static const uint8_t zeros[CHACHA_BLOCK];
    chacha20_blocks(c->COMPAT_PRIVATE(state), zeros, c->COMPAT_PRIVATE(keystream8), 1);
}

int mbedtls_chacha20_update(mbedtls_chacha20_context *c, size_t n, const unsigned char *in, unsigned char *out) {
    uint8_t *stream = c->COMPAT_PRIVATE(keystream8);
    size_t used = c->COMPAT_PRIVATE(keystream_bytes_used);
    for (; n > 0 && used < CHACHA_BLOCK; n--)
        *out++ = *in++ ^ stream[used++];
    size_t blocks = n / CHACHA_BLOCK;
    chacha20_blocks(c->COMPAT_PRIVATE(state), in, out, blocks);
    in += blocks * CHACHA_BLOCK;
    out += blocks * CHACHA_BLOCK;
    n %= CHACHA_BLOCK;
    if (n > 0) {
        next_block(c);
        for (used = 0; used < n; used++)
            out[used] = in[used] ^ stream[used];
    }
    c->COMPAT_PRIVATE(keystream_bytes_used) = used;
    return 0;
}

static void absorb(mbedtls_poly1305_context *c, const unsigned char *p, size_t blocks) {
    const uint32_t *r = c->COMPAT_PRIVATE(r);
    uint32_t *acc = c->COMPAT_PRIVATE(acc);
    uint64_t h[3] = { acc[0] | (uint64_t)acc[1] << 32, acc[2] | (uint64_t)acc[3] << 32, acc[4] };
    poly1305_blocks(h, (uint64_t[]){ r[0] | (uint64_t)r[1] << 32, r[2] | (uint64_t)r[3] << 32 }, p, blocks, 1);
    for (int i = 0; i < 4; i++)
        acc[i] = (uint32_t)(h[i / 2] >> i % 2 * 32);
    acc[4] = (uint32_t)h[2];
}

int mbedtls_poly1305_update(mbedtls_poly1305_context *c, const unsigned char *in, size_t n) {
    unsigned char *queue = c->COMPAT_PRIVATE(queue);
    size_t queued = c->COMPAT_PRIVATE(queue_len);
    if (queued > 0) {
        size_t part = n < POLY_BLOCK - queued ? n : POLY_BLOCK - queued;
        memcpy(queue + queued, in, part);
        queued += part;
        in += part;
        n -= part;
        if (queued == POLY_BLOCK) {
            absorb(c, queue, 1);
            queued = 0;
        }
    }
    if (n >= POLY_BLOCK) {
        absorb(c, in, n / POLY_BLOCK);
        in += n - n % POLY_BLOCK;
        n %= POLY_BLOCK;
    }
    if (n > 0) {
        memcpy(queue, in, n);
        queued = n;
    }
    c->COMPAT_PRIVATE(queue_len) = queued;
    return 0;
}

/* RFC 8439 section 2.8.2, through the library as TLS uses it. */
bool tls_self_test(void) {
    static const unsigned char nonce[12] = { 7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47 };
    static const unsigned char aad[12] = { 0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7 };
    static const unsigned char tag_wanted[16] = { 0x1a, 0xe1, 0x0b, 0x59, 0x4f, 0x09, 0xe2, 0x6a,
                                                  0x7e, 0x90, 0x2e, 0xcb, 0xd0, 0x60, 0x06, 0x91 };
    static const char text[] = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
                               "future, sunscreen would be it.";
    unsigned char key[32], out[sizeof text - 1], tag[16];
    mbedtls_chachapoly_context c;
    for (int i = 0; i < 32; i++)
        key[i] = (unsigned char)(0x80 + i);
    mbedtls_chachapoly_init(&c);
    bool ok = mbedtls_chachapoly_setkey(&c, key) == 0 &&
              mbedtls_chachapoly_encrypt_and_tag(&c, sizeof out, nonce, aad, sizeof aad, (const unsigned char *)text,
                                                 out, tag) == 0 &&
              memcmp(tag, tag_wanted, sizeof tag) == 0 && out[0] == 0xd3 && out[sizeof out - 1] == 0x16;
    mbedtls_chachapoly_free(&c);
    return ok;
}
