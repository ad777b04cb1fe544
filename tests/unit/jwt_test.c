/* RFC 7515 appendix A.1's token, our own there and back, and every way a token can be wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/jwt.h"

static struct pages pages;
static struct arena arena;
static struct hmac_key key;
enum { NOW = 1800000000 };

static struct slice part(const char *json) {
    struct buf b;
    buf_init(&b, &pages, 8192);
    assert_true(base64_encode(&b, json, strlen(json), true));
    struct slice out = arena_copy(&arena, buf_slice(&b));
    buf_release(&b);
    return out;
}

/* A token of any head and claims, rightly signed. */
static struct slice forge(const char *head, const char *claims) {
    uint8_t mac[32];
    struct buf b;
    struct slice h = part(head), c = part(claims), text = arena_printf(&arena, "%.*s.%.*s", SLICE_ARG(h), SLICE_ARG(c));
    hmac_sign(&key, text.ptr, text.len, mac);
    buf_init(&b, &pages, 8192);
    assert_true(base64_encode(&b, mac, 32, true));
    struct slice out = arena_printf(&arena, "%.*s.%.*s", SLICE_ARG(text), SLICE_ARG(buf_slice(&b)));
    buf_release(&b);
    return out;
}

static enum jwt_err verify(struct slice token) {
    struct jwt_claims c;
    return jwt_verify(&arena, &key, token, NOW, &c);
}

static int setup(void **state) {
    (void)state;
    pages_init(&pages, 8);
    arena_init(&arena, &pages, 1 << 22);
    hmac_key_init(&key, "secret", 6);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    arena_reset(&arena);
    pages_clear(&pages);
    return 0;
}

#define HEAD "{\"alg\":\"HS256\",\"typ\":\"JWT\"}"
#define GOOD "{\"sub\":\"acct_1\",\"iat\":1800000000,\"exp\":1800000001,\"jti\":\"x\"}"

static void test_there_and_back(void **state) {
    (void)state;
    struct buf b;
    struct jwt_claims in = { .sub = SLICE("acct_00000001"), .jti = SLICE("j\"1"), .iat_s = NOW, .exp_s = NOW + 10 }, out;
    buf_init(&b, &pages, JWT_MAX);
    assert_true(jwt_sign(&b, &key, &in));
    assert_true(slice_starts(buf_slice(&b), SLICE("eyJhbGciOiJIUzI1NiIs")));
    assert_true(jwt_looks_like(buf_slice(&b)));
    assert_int_equal(jwt_verify(&arena, &key, buf_slice(&b), NOW, &out), JWT_OK);
    assert_true(slice_eq(out.sub, in.sub) && slice_eq(out.jti, in.jti));
    assert_true(out.iat_s == in.iat_s && out.exp_s == in.exp_s);
    assert_int_equal(jwt_verify(&arena, &key, buf_slice(&b), NOW + 9, &out), JWT_OK);
    assert_int_equal(jwt_verify(&arena, &key, buf_slice(&b), NOW + 10, &out), JWT_EXPIRED);
    assert_int_equal(jwt_verify(&arena, &key, buf_slice(&b), NOW - JWT_EARLY_S, &out), JWT_OK);
    assert_int_equal(jwt_verify(&arena, &key, buf_slice(&b), NOW - JWT_EARLY_S - 1, &out), JWT_TOO_EARLY);
    /* every changed byte and every cut is found out, but for the bits that base64's last letter leaves unused */
    for (size_t i = 0; i + 1 < b.len; i++) {
        char was = buf_ptr(&b)[i];
        buf_ptr(&b)[i] = was == 'A' ? 'B' : 'A';
        assert_int_not_equal(verify(buf_slice(&b)), JWT_OK);
        buf_ptr(&b)[i] = was;
        assert_int_not_equal(verify(slice_of(buf_ptr(&b), i)), JWT_OK);
    }
    struct hmac_key other;
    hmac_key_init(&other, "Secret", 6);
    assert_int_equal(jwt_verify(&arena, &other, buf_slice(&b), NOW, &out), JWT_SIGNATURE);
    buf_release(&b);
    buf_init(&b, &pages, 20);
    assert_false(jwt_sign(&b, &key, &in));
    buf_release(&b);
}

/* RFC 7515 §A.1: the signature is right, but the claims are not ours (no sub, no iat); changed, it is wrong first. */
static void test_vector(void **state) {
    (void)state;
    static const char text[] = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
                               "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
                               "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    static const char jwk[] = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    struct hmac_key k;
    struct jwt_claims c;
    struct buf b;
    buf_init(&b, &pages, 100);
    assert_true(base64_decode(&b, slice_str(jwk), false));
    hmac_key_init(&k, buf_ptr(&b), b.len);
    assert_int_equal(jwt_verify(&arena, &k, slice_str(text), NOW, &c), JWT_MALFORMED);
    assert_int_equal(jwt_verify(&arena, &key, slice_str(text), NOW, &c), JWT_SIGNATURE);
    buf_release(&b);
}

static void test_algorithm(void **state) {
    (void)state;
    static const char *const heads[] = {
        "{\"alg\":\"none\"}", "{\"alg\":\"RS256\"}", "{\"alg\":\"HS512\"}", "{\"alg\":\"hs256\"}", "{\"alg\":\"\"}",
        "{}", "{\"alg\":null}", "{\"alg\":[\"HS256\"]}", "{\"alg\":\"none\",\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\",\"alg\":\"none\"}", "{\"alg\":\"HS256\",\"crit\":[\"exp\"]}" };
    assert_int_equal(verify(forge(HEAD, GOOD)), JWT_OK);
    assert_int_equal(verify(forge("{\"alg\":\"HS256\"}", GOOD)), JWT_OK);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        assert_int_equal(verify(forge(heads[i], GOOD)), JWT_ALGORITHM);
    struct slice h = part("{\"alg\":\"none\"}"), c = part(GOOD);
    assert_int_not_equal(verify(arena_printf(&arena, "%.*s.%.*s.", SLICE_ARG(h), SLICE_ARG(c))), JWT_OK);
    assert_int_not_equal(verify(arena_printf(&arena, "%.*s.%.*s", SLICE_ARG(h), SLICE_ARG(c))), JWT_OK);
}

static void test_claims(void **state) {
    (void)state;
    static const struct { const char *claims; enum jwt_err want; } list[] = {
        { "{\"sub\":\"a\",\"iat\":1800000000}", JWT_MALFORMED },
        { "{\"sub\":\"a\",\"iat\":1800000000,\"exp\":\"1900000000\"}", JWT_MALFORMED },
        { "{\"sub\":\"a\",\"iat\":1800000000,\"exp\":null}", JWT_MALFORMED },
        { "{\"sub\":\"a\",\"iat\":1800000000,\"exp\":1900000000.5}", JWT_MALFORMED },
        { "{\"sub\":\"a\",\"iat\":1800000000,\"exp\":1e400}", JWT_MALFORMED },
        { "{\"sub\":\"a\",\"iat\":1800000000,\"exp\":1800000000}", JWT_EXPIRED },
        { "{\"sub\":\"a\",\"iat\":1800000000,\"exp\":-1}", JWT_EXPIRED },
        { "{\"sub\":\"a\",\"exp\":1900000000}", JWT_MALFORMED },
        { "{\"iat\":1800000000,\"exp\":1900000000}", JWT_MALFORMED },
        { "{\"sub\":7,\"iat\":1800000000,\"exp\":1900000000}", JWT_MALFORMED },
        { "{\"sub\":\"\",\"iat\":1800000000,\"exp\":1900000000}", JWT_MALFORMED },
        { "{\"sub\":\"a\",\"sub\":\"b\",\"iat\":1800000000,\"exp\":1900000000}", JWT_MALFORMED },
        { "{\"sub\":\"a\",\"iat\":1800000000,\"exp\":1,\"exp\":1900000000}", JWT_MALFORMED },
        { "{\"sub\":\"a\",\"iat\":1800000000,\"exp\":1900000000,\"nbf\":1800001000}", JWT_TOO_EARLY },
        { "{\"sub\":\"a\",\"iat\":1800000000,\"exp\":1900000000,\"nbf\":\"x\"}", JWT_MALFORMED },
        { "{\"sub\":\"a\",\"iat\":9000000000000000000,\"exp\":9000000000000000001}", JWT_TOO_EARLY },
        { "{\"sub\":\"a\",\"iat\":-9000000000000000000,\"exp\":1900000000}", JWT_OK },
        { "[]", JWT_MALFORMED }, { "", JWT_MALFORMED }, { "{", JWT_MALFORMED }, { "\"a\"", JWT_MALFORMED },
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (verify(forge(HEAD, list[i].claims)) != list[i].want)
            fail_msg("%s: %d, not %d", list[i].claims, verify(forge(HEAD, list[i].claims)), list[i].want);
}

static void test_form(void **state) {
    (void)state;
    struct slice good = forge(HEAD, GOOD);
    static const char *const bad[] = { "", ".", "..", "...", "a", "a.b", "a.b.c.d", ".b.c", "a..c", "a.b.", "a b.c.d",
                                       "=.=.=", "e30=.e30=.e30=", "e+/.e30.e30", "\xff.\xff.\xff" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(verify(slice_str(bad[i])), JWT_MALFORMED);
    char *huge = malloc(1 << 20);
    assert_non_null(huge);
    memset(huge, 'A', 1 << 20);
    assert_int_equal(verify(slice_of(huge, 1 << 20)), JWT_MALFORMED);
    huge[100] = huge[200] = '.';
    assert_int_equal(verify(slice_of(huge, 1 << 20)), JWT_MALFORMED);
    free(huge);
    struct slice padded = arena_printf(&arena, "%.*s=", SLICE_ARG(good));
    assert_int_equal(verify(padded), JWT_MALFORMED);
    assert_int_equal(verify(arena_printf(&arena, " %.*s", SLICE_ARG(good))), JWT_MALFORMED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_there_and_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vector, setup, teardown),
        cmocka_unit_test_setup_teardown(test_algorithm, setup, teardown),
        cmocka_unit_test_setup_teardown(test_claims, setup, teardown),
        cmocka_unit_test_setup_teardown(test_form, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
