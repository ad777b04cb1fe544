/* SHA-256, HMAC-SHA256, base64, random text, CRC-32C and a hash for tables.
 *
 * Nothing here fails but base64 (malformed text, a full buffer) and alnum_from_random (too few random bytes). The
 * compression uses the processor's SHA instructions where it has them. The tests run both ways against the same
 * vectors.
 */
#include "proto/base/crypto.h"

#include "proto/base/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* FIPS 180-4 §4.2.2 */
static const uint32_t K[64] = { 0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
                                0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
                                0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
                                0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
                                0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
                                0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
                                0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
                                0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
                                0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
                                0xc67178f2 };

static inline uint32_t ror(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

static inline uint32_t load_be32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return __builtin_bswap32(v);
}

static inline void store_be32(uint8_t *p, uint32_t v) {
    v = __builtin_bswap32(v);
    memcpy(p, &v, sizeof v);
}

/* FIPS 180-4 §6.2.2 */
static void compress_portable(uint32_t h[8], const uint8_t *p, size_t blocks) {
    for (; blocks > 0; blocks--, p += 64) {
        uint32_t w[64], s[8];
        for (int i = 0; i < 16; i++)
            w[i] = load_be32(p + 4 * i);
        for (int i = 16; i < 64; i++) {
            uint32_t s0 = ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3;
            uint32_t s1 = ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        memcpy(s, h, sizeof s);
        for (int i = 0; i < 64; i++) {
            uint32_t t1 =
                s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[i] + w[i];
            uint32_t t2 =
                (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
            memmove(s + 1, s, 7 * sizeof s[0]);
            s[4] += t1;
            s[0] = t1 + t2;
        }
        for (int i = 0; i < 8; i++)
            h[i] += s[i];
    }
}

#if defined(__x86_64__)
/* Four rounds an instruction pair. The state lies as ABEF and CDGH, as the instructions want it. w0…w3 are the
 * schedule's window of sixteen words; each turn makes the four words that are needed sixteen rounds later. */
__attribute__((target("sha,sse4.1,ssse3"))) static void compress_sha(uint32_t h[8], const uint8_t *p, size_t blocks) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i t = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)h), 0xb1);       /* CDAB */
    __m128i s1 = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)(h + 4)), 0x1b); /* EFGH */
    __m128i s0 = _mm_alignr_epi8(t, s1, 8);                                                        /* ABEF */
    s1 = _mm_blend_epi16(s1, t, 0xf0);                                                             /* CDGH */
    for (; blocks > 0; blocks--, p += 64) {
        __m128i w[4], abef = s0, cdgh = s1;
        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i)), swap);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            __m128i now = w[i & 3];
            __m128i wk = _mm_add_epi32(now, _mm_loadu_si128((const __m128i *)(const void *)(K + 4 * i)));
            s1 = _mm_sha256rnds2_epu32(s1, s0, wk);
            s0 = _mm_sha256rnds2_epu32(s0, s1, _mm_shuffle_epi32(wk, 0x0e));
            if (i < 12) {
                __m128i n1 = w[(i + 1) & 3], n2 = w[(i + 2) & 3], n3 = w[(i + 3) & 3];
                __m128i m = _mm_add_epi32(_mm_sha256msg1_epu32(now, n1), _mm_alignr_epi8(n3, n2, 4));
                w[i & 3] = _mm_sha256msg2_epu32(m, n3);
            }
        }
        s0 = _mm_add_epi32(s0, abef);
        s1 = _mm_add_epi32(s1, cdgh);
    }
    t = _mm_shuffle_epi32(s0, 0x1b);                                    /* FEBA */
    s1 = _mm_shuffle_epi32(s1, 0xb1);                                   /* DCHG */
    _mm_storeu_si128((__m128i *)(void *)h, _mm_blend_epi16(t, s1, 0xf0));       /* DCBA */
    _mm_storeu_si128((__m128i *)(void *)(h + 4), _mm_alignr_epi8(s1, t, 8));    /* HGFE */
}
#endif

static void compress(uint32_t h[8], const uint8_t *p, size_t blocks) {
#if defined(__x86_64__)
    if (__builtin_expect(cpu_features() & CPU_SHA, 1)) {
        compress_sha(h, p, blocks);
        return;
    }
#endif
    compress_portable(h, p, blocks);
}

void sha256_init(struct sha256 *s) {
    static const uint32_t initial[8] = { /* FIPS 180-4 §5.3.3 */
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
    };
    memcpy(s->h, initial, sizeof initial);
    s->bytes = 0;
}

void sha256_update(struct sha256 *s, const void *data, size_t n) {
    const uint8_t *p = data;
    size_t have = s->bytes & 63;
    if (n == 0)
        return;
    s->bytes += n;
    if (have) {
        size_t take = n < 64 - have ? n : 64 - have;
        memcpy(s->block + have, p, take);
        if (have + take < 64)
            return;
        compress(s->h, s->block, 1);
        p += take;
        n -= take;
    }
    if (n >= 64) {
        compress(s->h, p, n / 64);
        p += n & ~(size_t)63;
        n &= 63;
    }
    memcpy(s->block, p, n);
}

void sha256_final(struct sha256 *s, uint8_t out[32]) {
    size_t have = s->bytes & 63;
    s->block[have++] = 0x80;
    if (have > 56) {
        memset(s->block + have, 0, 64 - have);
        compress(s->h, s->block, 1);
        have = 0;
    }
    memset(s->block + have, 0, 56 - have);
    store_be32(s->block + 56, (uint32_t)(s->bytes >> 29));
    store_be32(s->block + 60, (uint32_t)(s->bytes << 3));
    compress(s->h, s->block, 1);
    for (int i = 0; i < 8; i++)
        store_be32(out + 4 * i, s->h[i]);
}

/* RFC 2104 §2 */
void hmac_key_init(struct hmac_key *k, const void *key, size_t n) {
    uint8_t pad[64] = { 0 };
    if (n > sizeof pad) {
        struct sha256 s;
        sha256_init(&s);
        sha256_update(&s, key, n);
        sha256_final(&s, pad);
        wipe(&s, sizeof s);
    } else if (n > 0) {
        memcpy(pad, key, n);
    }
    for (size_t i = 0; i < sizeof pad; i++)
        pad[i] ^= 0x36;
    sha256_init(&k->inner);
    sha256_update(&k->inner, pad, sizeof pad);
    for (size_t i = 0; i < sizeof pad; i++)
        pad[i] ^= 0x36 ^ 0x5c;
    sha256_init(&k->outer);
    sha256_update(&k->outer, pad, sizeof pad);
    wipe(pad, sizeof pad);
}

void hmac_sign(const struct hmac_key *k, const void *p, size_t n, uint8_t out[32]) {
    struct sha256 s;
    memcpy(s.h, k->inner.h, sizeof s.h); /* the block is empty at a midstate: not copied */
    s.bytes = k->inner.bytes;
    sha256_update(&s, p, n);
    sha256_final(&s, out);
    memcpy(s.h, k->outer.h, sizeof s.h);
    s.bytes = k->outer.bytes;
    sha256_update(&s, out, 32);
    sha256_final(&s, out);
    wipe(&s, sizeof s);
}

bool alnum_from_random(char *out, size_t n, const uint8_t *random, size_t random_bytes) {
    static const char alphabet[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    size_t done = 0;
    for (size_t i = 0; i < random_bytes && done < n; i++)
        if (random[i] < 62 * 4) /* the rest would favour the first eight characters */
            out[done++] = alphabet[random[i] % 62];
    return done == n;
}

/* The Castagnoli polynomial, reflected, four bits at a time. */
static uint32_t crc32c_portable(uint32_t crc, const uint8_t *p, size_t n) {
    static const uint32_t table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
        0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75
    };
    for (; n > 0; n--) {
        crc ^= *p++;
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *p, size_t n) {
    uint64_t c = crc, v;
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&v, p, sizeof v);
        c = _mm_crc32_u64(c, v);
    }
    for (; n > 0; n--)
        c = _mm_crc32_u8((uint32_t)c, *p++);
    return (uint32_t)c;
}
#endif

uint32_t crc32c(uint32_t crc, const void *p, size_t n) {
#if defined(__x86_64__)
    if (cpu_features() & CPU_CRC)
        return ~crc32c_sse42(~crc, p, n);
#endif
    return ~crc32c_portable(~crc, p, n);
}

__extension__ typedef unsigned __int128 u128;

static inline uint64_t mix(uint64_t a, uint64_t b) {
    u128 m = (u128)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/* Multiply and fold, sixteen bytes a step. The constants are odd and random. */
uint64_t hash64(const void *data, size_t n, uint64_t seed) {
    const uint64_t c0 = 0xa0761d6478bd642fULL, c1 = 0xe7037ed1a0b428dbULL, c2 = 0x8ebc6af09c88c6e3ULL;
    const uint8_t *p = data;
    uint64_t h = seed ^ mix(seed ^ c0, n ^ c1), a, b;
    for (; n > 16; n -= 16, p += 16) {
        memcpy(&a, p, 8);
        memcpy(&b, p + 8, 8);
        h = mix(a ^ c1, b ^ h);
    }
    uint8_t tail[16] = { 0 };
    if (n > 0)
        memcpy(tail, p, n);
    memcpy(&a, tail, 8);
    memcpy(&b, tail + 8, 8);
    return mix(c2 ^ h, mix(a ^ c1, b ^ h));
}
