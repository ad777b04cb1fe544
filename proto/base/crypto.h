/* SHA-256 and HMAC-SHA256 (FIPS 180-4, RFC 2104), base64 and random text.
 * Ours because the pepper's HMAC state is computed once: a key then costs two compressions. */
#ifndef TG_CRYPTO_H
#define TG_CRYPTO_H

#include "proto/base/arena.h"

struct sha256 {
    uint32_t h[8];
    uint64_t bytes;
    uint8_t block[64];
};
void sha256_init(struct sha256 *s);
void sha256_update(struct sha256 *s, const void *p, size_t n);
void sha256_final(struct sha256 *s, uint8_t out[32]);

struct hmac_key { struct sha256 inner, outer; }; /* midstates */
void hmac_key_init(struct hmac_key *k, const void *key, size_t n);
void hmac_sign(const struct hmac_key *k, const void *p, size_t n, uint8_t out[32]);

/* RFC 4648. url: the -_ alphabet without padding. Encoding appends to out; decoding takes both
 * alphabets, optional padding, and whitespace only if `loose`. false: malformed, or out is full. */
bool base64_encode(struct buf *out, const void *p, size_t n, bool url);
bool base64_decode(struct buf *out, struct slice text, bool loose);
/* A character's six bits; 64 for what is in neither alphabet. */
static inline unsigned base64_sextet(unsigned char c) {
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26u;
    if (c >= '0' && c <= '9')
        return c - '0' + 52u;
    return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : 64;
}
/* n characters of [0-9A-Za-z] from random bytes by rejection; false when the bytes run out (give 2n). */
bool alnum_from_random(char *out, size_t n, const uint8_t *random, size_t random_bytes);

uint32_t crc32c(uint32_t crc, const void *p, size_t n); /* Castagnoli; start with 0 */
uint64_t hash64(const void *p, size_t n, uint64_t seed); /* not for secrets: hash tables and checksums */

#endif
