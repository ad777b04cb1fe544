/* Any bytes as a token: without the key none is taken; and as the claims of a token that is rightly signed: what is taken
 * has an end that lies ahead and a subject, and signed again it is taken again with the same claims. */
#include <stdlib.h>

#include "proto/base/check.h"
#include "proto/jwt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct pages pages;
static struct arena arena;
enum { NOW = 1800000000 };

static struct slice signed_token(const struct hmac_key *key, const uint8_t *claims, size_t n) {
    static const char head[] = "eyJhbGciOiJIUzI1NiJ9.";
    struct buf b;
    uint8_t mac[32];
    buf_init(&b, &pages, 1 << 20);
    CHECK(buf_append(&b, head, sizeof head - 1) && base64_encode(&b, claims, n, true));
    hmac_sign(key, buf_ptr(&b), b.len, mac);
    CHECK(buf_append(&b, ".", 1) && base64_encode(&b, mac, sizeof mac, true));
    struct slice out = arena_copy(&arena, buf_slice(&b));
    buf_release(&b);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct hmac_key key;
    struct jwt_claims c, again;
    if (pages.keep == 0)
        pages_init(&pages, 16);
    if (size > 4096)
        return 0;
    arena_init(&arena, &pages, 1 << 22);
    hmac_key_init(&key, "a key that nobody knows", 23);
    CHECK(jwt_verify(&arena, &key, slice_of((const char *)data, size), NOW, &c) != JWT_OK);
    if (jwt_verify(&arena, &key, signed_token(&key, data, size), NOW, &c) == JWT_OK) {
        struct buf b;
        CHECK(c.exp_s > NOW && c.sub.len > 0 && c.sub.len <= JWT_SUBJECT_MAX);
        buf_init(&b, &pages, JWT_MAX);
        if (jwt_sign(&b, &key, &c)) {
            CHECK(jwt_verify(&arena, &key, buf_slice(&b), NOW, &again) == JWT_OK);
            CHECK(slice_eq(c.sub, again.sub) && c.exp_s == again.exp_s && c.iat_s == again.iat_s);
        }
        buf_release(&b);
    }
    arena_reset(&arena);
    return 0;
}
