/* ChaCha20-Poly1305 as TLS calls it against mbedtls' own, which is still behind the calls that take a text in pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <mbedtls/chachapoly.h>
#include <sodium.h>

#include "worker/tls.h"

enum { MOST = 1100, AAD_MOST = 40 };

static mbedtls_chachapoly_context ctx;
static unsigned char key[32], nonce[12], aad[AAD_MOST], text[MOST], want[MOST], got[MOST], back[MOST];
static unsigned char want_tag[16], got_tag[16];

static int setup(void **state) {
    (void)state;
    uint64_t seed = 0x9e3779b97f4a7c15u;
    unsigned char *all[] = { key, nonce, aad, text };
    size_t sizes[] = { sizeof key, sizeof nonce, sizeof aad, sizeof text };
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < sizes[i]; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            all[i][k] = (unsigned char)(seed >> 56);
        }
    mbedtls_chachapoly_init(&ctx);
    return sodium_init() < 0 || mbedtls_chachapoly_setkey(&ctx, key);
}

static int teardown(void **state) {
    (void)state;
    mbedtls_chachapoly_free(&ctx);
    return 0;
}

static void in_pieces(size_t n, size_t aad_len) {
    assert_int_equal(mbedtls_chachapoly_starts(&ctx, nonce, MBEDTLS_CHACHAPOLY_ENCRYPT), 0);
    assert_int_equal(mbedtls_chachapoly_update_aad(&ctx, aad, aad_len), 0);
    assert_int_equal(mbedtls_chachapoly_update(&ctx, n, text, want), 0);
    assert_int_equal(mbedtls_chachapoly_finish(&ctx, want_tag), 0);
}

static void every_length_is_encrypted_as_the_library_does(void **state) {
    (void)state;
    for (size_t n = 0; n <= MOST; n++) {
        size_t aad_len = n % AAD_MOST;
        nonce[0]++;
        in_pieces(n, aad_len);
        assert_int_equal(mbedtls_chachapoly_encrypt_and_tag(&ctx, n, nonce, aad, aad_len, text, got, got_tag), 0);
        assert_memory_equal(got, want, n);
        assert_memory_equal(got_tag, want_tag, sizeof got_tag);
        memcpy(back, text, n); /* in place, as a record is */
        assert_int_equal(mbedtls_chachapoly_encrypt_and_tag(&ctx, n, nonce, aad, aad_len, back, back, got_tag), 0);
        assert_memory_equal(back, want, n);
        assert_int_equal(mbedtls_chachapoly_auth_decrypt(&ctx, n, nonce, aad, aad_len, got_tag, back, back), 0);
        assert_memory_equal(back, text, n);
    }
}

static void a_turned_bit_is_found(void **state) {
    (void)state;
    const size_t n = 100, aad_len = 13;
    in_pieces(n, aad_len);
    unsigned char *at[] = { want_tag, want, aad, nonce };
    size_t sizes[] = { 16, n, aad_len, 12 };
    for (size_t i = 0; i < 4; i++)
        for (size_t bit = 0; bit < sizes[i] * 8; bit++) {
            at[i][bit / 8] ^= (unsigned char)(1 << bit % 8);
            assert_int_equal(mbedtls_chachapoly_auth_decrypt(&ctx, n, nonce, aad, aad_len, want_tag, want, back),
                             MBEDTLS_ERR_CHACHAPOLY_AUTH_FAILED);
            at[i][bit / 8] ^= (unsigned char)(1 << bit % 8);
        }
    assert_int_equal(mbedtls_chachapoly_auth_decrypt(&ctx, n, nonce, aad, aad_len, want_tag, want, back), 0);
}

static void the_self_test_passes(void **state) {
    (void)state;
    assert_true(tls_self_test());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_length_is_encrypted_as_the_library_does, setup, teardown),
        cmocka_unit_test_setup_teardown(a_turned_bit_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(the_self_test_passes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
