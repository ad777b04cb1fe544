/* ChaCha20 and Poly1305 (RFC 8439), whole blocks, as fast as vectors and 128-bit products make them. Who frames them
 * (keys, nonces, padding, lengths) is the caller. No branch and no address depends on a secret. */
#ifndef TG_CHACHA_H
#define TG_CHACHA_H

#include <stddef.h>
#include <stdint.h>

enum { CHACHA_BLOCK = 64, POLY_BLOCK = 16 };

/* out = in XOR key stream; state as in section 2.3, whose block counter (word 12) moves on by `blocks`. in == out may
 * be. */
void chacha20_blocks(uint32_t state[16], const uint8_t *in, uint8_t *out, size_t blocks);

/* h = (h + block) × r for each block (section 2.5): h of 130 bits in three words, reduced as far as keeps it below
 * 2^130 + 2^66; r clamped. top: 1 for a whole block's 129th bit, 0 where the caller has padded the last one itself. */
void poly1305_blocks(uint64_t h[3], const uint64_t r[2], const uint8_t *p, size_t blocks, unsigned top);

#endif
