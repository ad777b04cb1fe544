/* See chacha.h. ChaCha20 keeps a row of two blocks in one vector of eight words and works on two such sets at a time,
 * so four blocks are under way and the shuffles between rounds stay within a lane. The compiler makes two instructions
 * of each where the machine has 16-byte vectors only. Poly1305 computes in radix 2^64 and reduces by 2^130 = 5. */
#include "proto/base/chacha.h"

#include <string.h>

#include "proto/base/cpu.h"
#include "proto/base/slice.h"

typedef uint32_t rows __attribute__((vector_size(32)));
typedef uint8_t row_bytes __attribute__((vector_size(32)));

enum { SET = 2, SETS = 2 }; /* blocks of a set */

#define ROTATE(x, n) ((x) << (n) | (x) >> (32 - (n)))
/* with a byte shuffle, where there is one */
#define BYTES(x, a, b, c, d)                                                                                           \
    (rows) __builtin_shufflevector((row_bytes)(x), (row_bytes)(x), a, b, c, d, a + 4, b + 4, c + 4, d + 4, a + 8,      \
                                   b + 8, c + 8, d + 8, a + 12, b + 12, c + 12, d + 12, a + 16, b + 16, c + 16,        \
                                   d + 16, a + 20, b + 20, c + 20, d + 20, a + 24, b + 24, c + 24, d + 24, a + 28,     \
                                   b + 28, c + 28, d + 28)

#define QUARTERS(a, b, c, d, ROT16, ROT8)                                                                              \
    (a += b, d ^= a, d = ROT16(d), c += d, b ^= c, b = ROTATE(b, 12), a += b, d ^= a, d = ROT8(d), c += d, b ^= c,     \
     b = ROTATE(b, 7))
#define TURN(x, p, q, r, s) (x = __builtin_shufflevector(x, x, p, q, r, s, p + 4, q + 4, r + 4, s + 4))
#define DOUBLE_ROUND(a, b, c, d, ROT16, ROT8)                                                                          \
    (QUARTERS(a, b, c, d, ROT16, ROT8), TURN(b, 1, 2, 3, 0), TURN(c, 2, 3, 0, 1), TURN(d, 3, 0, 1, 2),                 \
     QUARTERS(a, b, c, d, ROT16, ROT8), TURN(b, 3, 0, 1, 2), TURN(c, 2, 3, 0, 1), TURN(d, 1, 2, 3, 0))

#define SHIFT_16(x) ROTATE(x, 16)
#define SHIFT_8(x) ROTATE(x, 8)
#define BYTES_16(x) BYTES(x, 2, 3, 0, 1)
#define BYTES_8(x) BYTES(x, 3, 0, 1, 2)

/* The four blocks of key stream at the state's counter, one behind the other. */
#define KEY_STREAM(name, attribute, ROT16, ROT8)                                                                       \
    attribute static void name(const uint32_t s[16], rows out[SETS * SET * CHACHA_BLOCK / sizeof(rows)]) {            \
        const rows a = { s[0], s[1], s[2], s[3], s[0], s[1], s[2], s[3] };                                             \
        const rows b = { s[4], s[5], s[6], s[7], s[4], s[5], s[6], s[7] };                                             \
        const rows c = { s[8], s[9], s[10], s[11], s[8], s[9], s[10], s[11] };                                         \
        const rows d = { s[12], s[13], s[14], s[15], s[12] + 1, s[13], s[14], s[15] };                                 \
        const rows e = { s[12] + 2, s[13], s[14], s[15], s[12] + 3, s[13], s[14], s[15] };                             \
        rows a0 = a, b0 = b, c0 = c, d0 = d, a1 = a, b1 = b, c1 = c, d1 = e;                                           \
        for (int i = 0; i < 10; i++) {                                                                                 \
            DOUBLE_ROUND(a0, b0, c0, d0, ROT16, ROT8);                                                                 \
            DOUBLE_ROUND(a1, b1, c1, d1, ROT16, ROT8);                                                                 \
        }                                                                                                              \
        a0 += a, b0 += b, c0 += c, d0 += d, a1 += a, b1 += b, c1 += c, d1 += e;                                        \
        out[0] = __builtin_shufflevector(a0, b0, 0, 1, 2, 3, 8, 9, 10, 11);                                            \
        out[1] = __builtin_shufflevector(c0, d0, 0, 1, 2, 3, 8, 9, 10, 11);                                            \
        out[2] = __builtin_shufflevector(a0, b0, 4, 5, 6, 7, 12, 13, 14, 15);                                          \
        out[3] = __builtin_shufflevector(c0, d0, 4, 5, 6, 7, 12, 13, 14, 15);                                          \
        out[4] = __builtin_shufflevector(a1, b1, 0, 1, 2, 3, 8, 9, 10, 11);                                            \
        out[5] = __builtin_shufflevector(c1, d1, 0, 1, 2, 3, 8, 9, 10, 11);                                            \
        out[6] = __builtin_shufflevector(a1, b1, 4, 5, 6, 7, 12, 13, 14, 15);                                          \
        out[7] = __builtin_shufflevector(c1, d1, 4, 5, 6, 7, 12, 13, 14, 15);                                          \
    }

KEY_STREAM(key_stream, , SHIFT_16, SHIFT_8)
#if defined(__x86_64__)
KEY_STREAM(key_stream_avx2, __attribute__((target("avx2"))), BYTES_16, BYTES_8)
#endif

void chacha20_blocks(uint32_t state[16], const uint8_t *in, uint8_t *out, size_t blocks) {
    rows stream[SETS * SET * CHACHA_BLOCK / sizeof(rows)];
    void (*make)(const uint32_t *, rows *) = key_stream;
#if defined(__x86_64__)
    if (cpu_features() & CPU_AVX2)
        make = key_stream_avx2;
#endif
    while (blocks > 0) {
        size_t n = blocks < SETS * SET ? blocks : SETS * SET;
        make(state, stream);
        for (size_t i = 0; i < n * CHACHA_BLOCK / sizeof(rows); i++) {
            rows text;
            memcpy(&text, in + i * sizeof text, sizeof text);
            text ^= stream[i];
            memcpy(out + i * sizeof text, &text, sizeof text);
        }
        state[12] += (uint32_t)n;
        in += n * CHACHA_BLOCK;
        out += n * CHACHA_BLOCK;
        blocks -= n;
    }
    wipe(stream, sizeof stream);
}

__extension__ typedef unsigned __int128 u128;

static inline uint64_t load64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v; /* the machines we know are little-endian */
}

void poly1305_blocks(uint64_t h[3], const uint64_t r[2], const uint8_t *p, size_t blocks, unsigned top) {
    const uint64_t r0 = r[0], r1 = r[1], s1 = r1 + (r1 >> 2); /* s1 = 5/4 r1: r1's low two bits are clear */
    uint64_t h0 = h[0], h1 = h[1], h2 = h[2];
    for (; blocks > 0; blocks--, p += POLY_BLOCK) {
        u128 t0 = (u128)h0 + load64(p), t1 = (u128)h1 + load64(p + 8) + (uint64_t)(t0 >> 64);
        h0 = (uint64_t)t0;
        h1 = (uint64_t)t1;
        h2 += (uint64_t)(t1 >> 64) + top;
        t0 = (u128)h0 * r0 + (u128)h1 * s1;
        t1 = (u128)h0 * r1 + (u128)h1 * r0 + h2 * s1 + (uint64_t)(t0 >> 64);
        uint64_t t2 = h2 * r0 + (uint64_t)(t1 >> 64);
        u128 low = (u128)(uint64_t)t0 + (t2 & ~(uint64_t)3) + (t2 >> 2); /* what is past 2^130 comes back five times */
        u128 mid = (u128)(uint64_t)t1 + (uint64_t)(low >> 64);
        h0 = (uint64_t)low;
        h1 = (uint64_t)mid;
        h2 = (t2 & 3) + (uint64_t)(mid >> 64);
    }
    h[0] = h0;
    h[1] = h1;
    h[2] = h2;
}
