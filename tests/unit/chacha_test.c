/* ChaCha20 and Poly1305: the vectors of RFC 8439, every length and cut against a plain reading of the RFC, with and
 * without the processor's wide vectors; and the library's functions, which run over them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <mbedtls/chacha20.h>
#include <mbedtls/poly1305.h>

#include "proto/base/chacha.h"
#include "proto/base/cpu.h"
#include "worker/tls.h"

static uint64_t seed = 0x9e3779b97f4a7c15u;
static uint8_t chance(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint8_t)(seed >> 56);
}

/* ---- ChaCha20 as section 2.3 says it ----------------------------------------------------------------------------- */

static uint32_t turned(uint32_t v, int n) { return v << n | v >> (32 - n); }

static void quarter(uint32_t *s, int a, int b, int c, int d) {
    s[a] += s[b], s[d] = turned(s[d] ^ s[a], 16), s[c] += s[d], s[b] = turned(s[b] ^ s[c], 12);
    s[a] += s[b], s[d] = turned(s[d] ^ s[a], 8), s[c] += s[d], s[b] = turned(s[b] ^ s[c], 7);
}

static void plain_block(const uint32_t state[16], uint8_t out[64]) {
    uint32_t s[16];
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 10; i++) {
        for (int k = 0; k < 4; k++)
            quarter(s, k, 4 + k, 8 + k, 12 + k);
        for (int k = 0; k < 4; k++)
            quarter(s, k, 4 + (k + 1) % 4, 8 + (k + 2) % 4, 12 + (k + 3) % 4);
    }
    for (int i = 0; i < 16; i++) {
        s[i] += state[i];
        memcpy(out + 4 * i, &s[i], 4);
    }
}

static void blocks_are_as_the_rfc_computes_them(void **context) {
    (void)context;
    enum { MOST = 13 };
    uint32_t state[16], ours[16];
    uint8_t in[MOST * 64], want[MOST * 64], got[MOST * 64];
    for (size_t blocks = 0; blocks <= MOST; blocks++) {
        for (size_t i = 0; i < sizeof state; i++)
            ((uint8_t *)state)[i] = chance();
        state[12] = blocks % 3 ? state[12] : UINT32_MAX - 1; /* the counter wraps within a word */
        memcpy(ours, state, sizeof ours);
        for (size_t i = 0; i < sizeof in; i++)
            in[i] = chance();
        for (size_t b = 0; b < blocks; b++) {
            plain_block(state, want + b * 64);
            for (size_t i = b * 64; i < b * 64 + 64; i++)
                want[i] ^= in[i];
            state[12]++;
        }
        chacha20_blocks(ours, in, got, blocks);
        assert_memory_equal(got, want, blocks * 64);
        assert_memory_equal(ours, state, sizeof state);
    }
}

/* Section 2.3.2. */
static void the_block_of_the_rfc(void **context) {
    (void)context;
    uint32_t s[16] = { 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x09000000,
                       0x4a000000, 0 };
    const uint8_t zero[64] = { 0 }, begins[16] = { 0x10, 0xf1, 0xe7, 0xe4, 0xd1, 0x3b, 0x59, 0x15,
                                                   0x50, 0x0f, 0xdd, 0x1f, 0xa3, 0x20, 0x71, 0xc4 };
    uint8_t out[64];
    for (int i = 0; i < 32; i++)
        ((uint8_t *)&s[4])[i] = (uint8_t)i;
    chacha20_blocks(s, zero, out, 1);
    assert_memory_equal(out, begins, sizeof begins);
    assert_int_equal(out[63], 0x4e);
}

/* However the text is cut, the library's stream is the same. */
static void any_cut_gives_the_same_stream(void **context) {
    (void)context;
    enum { ALL = 700 };
    uint8_t key[32], nonce[12] = { 1 }, in[ALL], whole[ALL], cut[ALL];
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = chance();
    for (size_t i = 0; i < ALL; i++)
        in[i] = chance();
    assert_int_equal(mbedtls_chacha20_crypt(key, nonce, 5, ALL, in, whole), 0);
    for (int round = 0; round < 200; round++) {
        mbedtls_chacha20_context c;
        mbedtls_chacha20_init(&c);
        assert_int_equal(mbedtls_chacha20_setkey(&c, key) | mbedtls_chacha20_starts(&c, nonce, 5), 0);
        for (size_t at = 0, n; at < ALL; at += n) {
            n = 1 + chance() % (round % 2 ? 200 : 20);
            n = n < ALL - at ? n : ALL - at;
            assert_int_equal(mbedtls_chacha20_update(&c, n, in + at, cut + at), 0);
        }
        mbedtls_chacha20_free(&c);
        assert_memory_equal(cut, whole, ALL);
    }
}

/* ---- Poly1305 ---------------------------------------------------------------------------------------------------- */

static size_t bytes_of(const char *hex, uint8_t *out) {
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)strtoul((char[]){ hex[2 * i], hex[2 * i + 1], 0 }, NULL, 16);
    return n;
}

/* Section 2.5.2 and what appendix A.3 has for carries: numbers 7 to 11. */
static const struct { const char *key, *text, *tag; } vectors[] = {
    { "85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b",
      "43727970746f6772617068696320466f72756d2052657365617263682047726f7570", "a8061dc1305136c6c22b8baf0c0127a9" },
    { "0200000000000000000000000000000000000000000000000000000000000000", "ffffffffffffffffffffffffffffffff",
      "03000000000000000000000000000000" },
    { "02000000000000000000000000000000ffffffffffffffffffffffffffffffff", "02000000000000000000000000000000",
      "03000000000000000000000000000000" },
    { "0100000000000000000000000000000000000000000000000000000000000000",
      "fffffffffffffffffffffffffffffffff0ffffffffffffffffffffffffffffff11000000000000000000000000000000",
      "05000000000000000000000000000000" },
    { "0100000000000000000000000000000000000000000000000000000000000000",
      "fffffffffffffffffffffffffffffffffbfefefefefefefefefefefefefefefe01010101010101010101010101010101",
      "00000000000000000000000000000000" },
    { "0200000000000000000000000000000000000000000000000000000000000000", "fdffffffffffffffffffffffffffffff",
      "faffffffffffffffffffffffffffffff" },
    { "0100000000000000040000000000000000000000000000000000000000000000",
      "e33594d7505e43b900000000000000003394d7505e4379cd01000000000000000000000000000000000000000000000001000000000000"
      "000000000000000000",
      "14000000000000005500000000000000" },
    { "0100000000000000040000000000000000000000000000000000000000000000",
      "e33594d7505e43b900000000000000003394d7505e4379cd010000000000000000000000000000000000000000000000",
      "13000000000000000000000000000000" },
};

static void tags_are_those_of_the_rfc_however_cut(void **context) {
    (void)context;
    for (size_t v = 0; v < sizeof vectors / sizeof *vectors; v++) {
        uint8_t key[32], text[128], want[16], tag[16];
        size_t n = bytes_of(vectors[v].text, text);
        bytes_of(vectors[v].key, key);
        bytes_of(vectors[v].tag, want);
        for (size_t first = 0; first <= n; first++)
            for (size_t second = first; second <= n; second++) {
                mbedtls_poly1305_context c;
                mbedtls_poly1305_init(&c);
                assert_int_equal(mbedtls_poly1305_starts(&c, key), 0);
                assert_int_equal(mbedtls_poly1305_update(&c, text, first), 0);
                assert_int_equal(mbedtls_poly1305_update(&c, text + first, second - first), 0);
                assert_int_equal(mbedtls_poly1305_update(&c, text + second, n - second), 0);
                assert_int_equal(mbedtls_poly1305_finish(&c, tag), 0);
                mbedtls_poly1305_free(&c);
                assert_memory_equal(tag, want, sizeof tag);
            }
    }
}

static void the_library_passes(void **context) {
    (void)context;
    assert_true(tls_self_test());
}

static int portable(void **context) {
    (void)context;
    cpu_portable_only = true;
    return 0;
}
static int any(void **context) {
    (void)context;
    cpu_portable_only = false;
    return 0;
}

int main(void) {
#define BOTH(test) cmocka_unit_test(test), cmocka_unit_test_setup_teardown(test, portable, any)
    const struct CMUnitTest tests[] = {
        BOTH(the_block_of_the_rfc),
        BOTH(blocks_are_as_the_rfc_computes_them),
        BOTH(any_cut_gives_the_same_stream),
        cmocka_unit_test(tags_are_those_of_the_rfc_however_cut),
        cmocka_unit_test(the_library_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
