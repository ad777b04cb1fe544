/* mbedtls' ChaCha20-Poly1305 by libsodium's, which is three to four times as fast on records of a call's size: mbedtls
 * has it in portable C only, and in a call over TLS that was a third of what the processor did outside the kernel.
 *
 * mbedtls foresees other implementations, but only where it is compiled. Here the linker does it: the library calls
 * these two through its table of symbols, and the program's come first. Where a library is linked in a way that does
 * not ask, its own code runs and all is as before. What is relied on beside the interface is that the key stands in the
 * context as RFC 8439 §2.3 lays out the state, in words 4 to 11: so it is in 2.28 and 3.6, and tls_self_test, before
 * the first connection, shows that it is so in the library at hand. */
#include <mbedtls/chachapoly.h>
#include <sodium.h>

#include "worker/tls.h"

enum { KEY_AT = 4, KEY_BYTES = crypto_aead_chacha20poly1305_ietf_KEYBYTES };

static const unsigned char *key_of(mbedtls_chachapoly_context *c) {
    return (const unsigned char *)&c->COMPAT_PRIVATE(chacha20_ctx).COMPAT_PRIVATE(state)[KEY_AT];
}

int mbedtls_chachapoly_encrypt_and_tag(mbedtls_chachapoly_context *c, size_t n, const unsigned char nonce[12],
                                       const unsigned char *aad, size_t aad_len, const unsigned char *in,
                                       unsigned char *out, unsigned char tag[16]) {
    crypto_aead_chacha20poly1305_ietf_encrypt_detached(out, tag, NULL, in, n, aad, aad_len, NULL, nonce, key_of(c));
    return 0;
}

/* Nothing is decrypted before the tag was found right; else `out` is cleared. */
int mbedtls_chachapoly_auth_decrypt(mbedtls_chachapoly_context *c, size_t n, const unsigned char nonce[12],
                                    const unsigned char *aad, size_t aad_len, const unsigned char tag[16],
                                    const unsigned char *in, unsigned char *out) {
    int bad = crypto_aead_chacha20poly1305_ietf_decrypt_detached(out, NULL, in, n, tag, aad, aad_len, nonce, key_of(c));
    return bad ? MBEDTLS_ERR_CHACHAPOLY_AUTH_FAILED : 0;
}

/* RFC 8439 §2.8.2, as TLS calls it: there and back, and not back with a bit of the tag turned. */
bool tls_self_test(void) {
    static const unsigned char nonce[12] = { 7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47 };
    static const unsigned char aad[12] = { 0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7 };
    static const unsigned char tag_wanted[16] = { 0x1a, 0xe1, 0x0b, 0x59, 0x4f, 0x09, 0xe2, 0x6a,
                                                  0x7e, 0x90, 0x2e, 0xcb, 0xd0, 0x60, 0x06, 0x91 };
    static const char text[] = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
                               "future, sunscreen would be it.";
    enum { TEXT = sizeof text - 1 };
    unsigned char key[KEY_BYTES], bytes[TEXT], waste[TEXT], tag[16];
    mbedtls_chachapoly_context c;
    for (int i = 0; i < KEY_BYTES; i++)
        key[i] = (unsigned char)(0x80 + i);
    memcpy(bytes, text, TEXT);
    mbedtls_chachapoly_init(&c);
    bool ok = mbedtls_chachapoly_setkey(&c, key) == 0 &&
              mbedtls_chachapoly_encrypt_and_tag(&c, TEXT, nonce, aad, sizeof aad, bytes, bytes, tag) == 0 &&
              memcmp(tag, tag_wanted, sizeof tag) == 0 && bytes[0] == 0xd3 && bytes[TEXT - 1] == 0x16;
    tag[15] ^= 1;
    ok = ok && mbedtls_chachapoly_auth_decrypt(&c, TEXT, nonce, aad, sizeof aad, tag, bytes, waste) != 0;
    tag[15] ^= 1;
    ok = ok && mbedtls_chachapoly_auth_decrypt(&c, TEXT, nonce, aad, sizeof aad, tag, bytes, bytes) == 0 &&
         memcmp(bytes, text, TEXT) == 0;
    mbedtls_chachapoly_free(&c);
    return ok;
}
