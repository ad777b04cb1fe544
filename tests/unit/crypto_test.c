/* Published vectors: FIPS 180-4's examples, RFC 4231, RFC 4648 §10, RFC 3720 §B.4 (CRC-32C); each by instruction and by
 * portable code, whole and in pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/base/check.h"
#include "proto/base/cpu.h"
#include "proto/base/crypto.h"

static struct pages pages;

static const char *hex(const uint8_t *p, size_t n) {
    static char text[2 * 64 + 1];
    for (size_t i = 0; i < n; i++)
        snprintf(text + 2 * i, 3, "%02x", p[i]);
    return text;
}

static size_t unhex(uint8_t *out, const char *s) {
    size_t n = 0;
    for (; s[0]; s += 2)
        out[n++] = (uint8_t)strtoul((char[]){ s[0], s[1], 0 }, NULL, 16);
    return n;
}

static const struct { const char *text, *digest;
} SHA[] = {
    { "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
    { "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
    { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
    { "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrst"
      "u",
      "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1" },
};

static void sha256_vectors(void **state) {
    (void)state;
    uint8_t out[32];
    for (size_t i = 0; i < ARRAY_LEN(SHA); i++) {
        size_t n = strlen(SHA[i].text);
        for (size_t cut = 0; cut <= n; cut++) {
            struct sha256 s;
            sha256_init(&s);
            sha256_update(&s, SHA[i].text, cut);
            sha256_update(&s, SHA[i].text + cut, n - cut);
            sha256_final(&s, out);
            assert_string_equal(hex(out, 32), SHA[i].digest);
        }
    }
    char *million = malloc(1000000);
    memset(million, 'a', 1000000);
    struct sha256 s;
    sha256_init(&s);
    sha256_update(&s, million, 1000000);
    sha256_final(&s, out);
    assert_string_equal(hex(out, 32), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

/* Every length across two blocks, by instruction against portable code. */
static void sha256_both_ways(void **state) {
    (void)state;
    uint8_t data[200], a[32], b[32];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 37 + 11);
    for (size_t n = 0; n <= sizeof data; n++)
        for (size_t cut = 0; cut <= n; cut += 13) {
            struct sha256 s;
            cpu_portable_only = true;
            sha256_init(&s);
            sha256_update(&s, data, n);
            sha256_final(&s, a);
            cpu_portable_only = false;
            sha256_init(&s);
            sha256_update(&s, data, cut);
            sha256_update(&s, data + cut, n - cut);
            sha256_final(&s, b);
            assert_memory_equal(a, b, 32);
        }
}

static const struct { const char *key, *data, *mac;
} HMAC[] = {
    /* RFC 4231 §4.2–4.8 without 4.6 (truncation) */
    { "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "4869205468657265",
      "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7" },
    { "4a656665", "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" },
    { "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
      "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd",
      "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe" },
    { "0102030405060708090a0b0c0d0e0f10111213141516171819",
      "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
      "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b" },
    { "LONG",
      "54657374205573696e67204c6172676572205468616e20426c6f636b2d53697a65204b6579202d2048617368204b6579204669727374",
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54" },
    { "LONG",
      "5468697320697320612074657374207573696e672061206c6172676572207468616e20626c6f636b2d73697a65206b657920616e64206120"
      "6c61"
      "72676572207468616e20626c6f636b2d73697a6520646174612e20546865206b6579206e6565647320746f20626520686173686564206265"
      "66"
      "6f7265206265696e6720757365642062792074686520484d414320616c676f726974686d2e",
      "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2" },
};

static void hmac_vectors(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(HMAC); i++) {
        uint8_t key[256], data[256], out[32];
        size_t k, n = unhex(data, HMAC[i].data);
        if (strcmp(HMAC[i].key, "LONG") == 0)
            memset(key, 0xaa, k = 131);
        else
            k = unhex(key, HMAC[i].key);
        struct hmac_key hk;
        hmac_key_init(&hk, key, k);
        for (int again = 0; again < 2; again++) { /* the midstates must survive */
            hmac_sign(&hk, data, n, out);
            assert_string_equal(hex(out, 32), HMAC[i].mac);
        }
    }
}

/* Keys around the block's size, where they begin to be hashed first; the codes are Python's hmac's. */
static void hmac_key_sizes(void **state) {
    (void)state;
    static const struct { size_t n; const char *mac; } keys[] = {
        { 63, "4f17645dd45ee57c684ba39da29e8e1cbb2ff4e027c4585a2e1dccee69d157d0" },
        { 64, "ce3c639dcb9d8baae5d44c3b8b5e233faab4d1860e07489af5c84f213998bd79" },
        { 65, "c2b9a0a013df029c7d812c5ac18388feef0194ee64fcc5f321d149c06137caa3" },
        { 100, "6229c9e2c7d9863a0cfd7e8e03268a67e6e4bb0c3e0810b50eefc7bfd63a93d8" },
    };
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        uint8_t key[100], out[32];
        struct hmac_key hk;
        memset(key, 0xaa, sizeof key);
        hmac_key_init(&hk, key, keys[i].n);
        hmac_sign(&hk, "x", 1, out);
        assert_string_equal(hex(out, 32), keys[i].mac);
    }
}

static void portable_vectors(void **state) {
    cpu_portable_only = true;
    sha256_vectors(state);
    hmac_vectors(state);
    cpu_portable_only = false;
}

static bool decodes(const char *text, bool loose, const char *want) {
    struct buf b;
    buf_init(&b, &pages, 1000);
    assert_true(buf_append(&b, "x", 1));
    bool ok = base64_decode(&b, slice_str(text), loose);
    if (ok && want) {
        assert_int_equal(b.len, strlen(want) + 1);
        assert_memory_equal(buf_ptr(&b) + 1, want, strlen(want));
    }
    if (!ok)
        assert_int_equal(b.len, 1);
    buf_release(&b);
    return ok;
}

static void base64_vectors(void **state) {
    (void)state;
    static const char *const pairs[][2] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" },
                                            { "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" }, { "foobar", "Zm9vYmFy" },
                                            { "\xfb\xff\xfe", "+//+" } };
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++)
        for (int url = 0; url < 2; url++) {
            char want[32];
            strcpy(want, pairs[i][1]);
            for (char *c = want; url && *c; c++)
                *c = *c == '+' ? '-' : *c == '/' ? '_' : *c == '=' ? '\0' : *c;
            struct buf b;
            buf_init(&b, &pages, 1000);
            assert_true(base64_encode(&b, pairs[i][0], strlen(pairs[i][0]), url));
            assert_int_equal(b.len, strlen(want));
            assert_memory_equal(buf_ptr(&b), want, b.len);
            buf_release(&b);
            assert_true(decodes(want, false, pairs[i][0]));
            assert_true(decodes(want, true, pairs[i][0]));
        }
}

static void base64_malformed(void **state) {
    (void)state;
    static const char *const bad[] = { "Z",     "Zm9vY",    "Zg=",  "Zg===", "=",        "====",   "Zm8==",
                                       "Zm9v=", "Zg==Zg==", "Zm=v", "Zm9*",  "Zm9v\x80", "Zm 9v=", "Zm9v====" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(decodes(bad[i], false, NULL));
        assert_false(decodes(bad[i], true, NULL));
    }
    assert_false(decodes("Zm9v\nYmFy", false, NULL));
    assert_true(decodes(" Zm9v\r\nYm E=\t", true, "fooba"));
    assert_false(decodes("Zh==", false, NULL)); /* a second spelling of "f" */
    assert_true(decodes("Zh==", true, "f"));
    /* the ceiling: exactly what fits is taken, one byte more is not, and nothing stays behind */
    struct buf b;
    buf_init(&b, &pages, 5);
    assert_true(base64_decode(&b, SLICE("Zm9vYmE="), false));
    assert_int_equal(b.len, 5);
    buf_release(&b);
    assert_false(base64_decode(&b, SLICE("Zm9vYmFy"), false));
    assert_int_equal(b.len, 0);
    assert_false(base64_encode(&b, "foob", 4, false));
    assert_true(base64_encode(&b, "foo", 3, false));
    buf_release(&b);
}

static void random_text(void **state) {
    (void)state;
    char out[4];
    assert_true(alnum_from_random(out, 4, (const uint8_t[]){ 255, 0, 248, 61, 62, 247 }, 6));
    assert_memory_equal(out, "0z0z", 4);
    assert_false(alnum_from_random(out, 4, (const uint8_t[]){ 255, 0, 248, 61, 62 }, 5));
    assert_true(alnum_from_random(out, 0, NULL, 0));
}

static void crc_vectors(void **state) {
    (void)state;
    uint8_t data[32];
    for (int portable = 0; portable < 2; portable++) {
        cpu_portable_only = portable;
        assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
        assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
        memset(data, 0, sizeof data);
        assert_int_equal(crc32c(0, data, 32), 0x8a9136aa);
        memset(data, 0xff, sizeof data);
        assert_int_equal(crc32c(0, data, 32), 0x62a8ab43);
        for (uint8_t i = 0; i < 32; i++)
            data[i] = i;
        assert_int_equal(crc32c(0, data, 32), 0x46dd794e);
        assert_int_equal(crc32c(7, data, 0), 7);
    }
    cpu_portable_only = false;
}

static void hash_spreads(void **state) {
    (void)state;
    uint32_t seen[256] = { 0 };
    for (uint32_t i = 0; i < 65536; i++)
        seen[hash64(&i, sizeof i, 1) & 255]++;
    for (int i = 0; i < 256; i++)
        assert_in_range(seen[i], 150, 370); /* 256 expected, sigma 16 */
    uint8_t z[40] = { 0 };
    for (size_t n = 0; n < sizeof z; n++)
        assert_int_not_equal(hash64(z, n, 0), hash64(z, n + 1, 0));
    assert_int_not_equal(hash64(z, 8, 0), hash64(z, 8, 1));
    assert_int_equal(hash64("abc", 3, 5), hash64("abc", 3, 5));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_vectors),   cmocka_unit_test(sha256_both_ways), cmocka_unit_test(hmac_vectors),
        cmocka_unit_test(hmac_key_sizes),   cmocka_unit_test(portable_vectors), cmocka_unit_test(base64_vectors),
        cmocka_unit_test(base64_malformed), cmocka_unit_test(random_text),      cmocka_unit_test(crc_vectors),
        cmocka_unit_test(hash_spreads),
    };
    pages_init(&pages, 4);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pages_clear(&pages);
    return failed + (pages.in_use != 0 || pages.big_bytes != 0);
}
