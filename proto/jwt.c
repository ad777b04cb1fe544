/* See jwt.h. A token is HEAD.CLAIMS.SIGNATURE, each base64url without padding. */
#include "proto/jwt.h"

#include "proto/json.h"

static const struct slice head = { "{\"alg\":\"HS256\",\"typ\":\"JWT\"}", 27 };

enum { PARTS = 3, SIGNATURE_BYTES = 32 };

static bool split(struct slice token, struct slice part[PARTS]) {
    size_t n = 0, start = 0;
    if (token.len == 0 || token.len > JWT_MAX)
        return false;
    for (size_t i = 0; i <= token.len; i++) {
        char c = i < token.len ? token.ptr[i] : '.';
        if (c == '.') {
            if (n == PARTS || i == start)
                return false;
            part[n++] = slice_of(token.ptr + start, i - start);
            start = i + 1;
        } else if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                     c == '_')) {
            return false; /* the other alphabet and padding are no base64url */
        }
    }
    return n == PARTS;
}

bool jwt_looks_like(struct slice text) {
    struct slice part[PARTS];
    return split(text, part);
}

/* The part's bytes, copied to the arena. */
static bool decode(struct arena *arena, struct slice part, struct slice *out) {
    struct buf b;
    buf_init(&b, arena->pages, JWT_MAX);
    bool ok = base64_decode(&b, part, false);
    *out = ok ? arena_copy(arena, buf_slice(&b)) : SLICE_NONE;
    buf_release(&b);
    return ok && out->ptr;
}

static bool parse(struct arena *arena, struct slice part, struct json *j) {
    struct slice text;
    return decode(arena, part, &text) && json_parse(j, arena, text.ptr, text.len) && json_is(j, 0, JSON_OBJECT);
}

static enum jwt_err read_claims(struct arena *arena, const struct json *j, int64_t now_s, struct jwt_claims *out) {
    struct jwt_claims c = { 0 };
    int iat = json_get(j, 0, "iat"), nbf = json_get(j, 0, "nbf"), jti = json_get(j, 0, "jti");
    int64_t from_s;
    c.sub = json_str(j, json_get(j, 0, "sub"), arena);
    if (!c.sub.ptr || c.sub.len == 0 || c.sub.len > JWT_SUBJECT_MAX || json_duplicate(j, 0, "sub") ||
        json_duplicate(j, 0, "exp"))
        return JWT_MALFORMED;
    if (!json_is(j, json_get(j, 0, "exp"), JSON_NUMBER) || !json_i64(j, json_get(j, 0, "exp"), &c.exp_s))
        return JWT_MALFORMED; /* a token without an end is none of ours */
    if (!json_is(j, iat, JSON_NUMBER) || !json_i64(j, iat, &c.iat_s))
        return JWT_MALFORMED;
    if (nbf >= 0 && (!json_is(j, nbf, JSON_NUMBER) || !json_i64(j, nbf, &from_s)))
        return JWT_MALFORMED;
    if (jti >= 0)
        c.jti = json_str(j, jti, arena);
    if (c.exp_s <= now_s)
        return JWT_EXPIRED;
    if (c.iat_s - JWT_EARLY_S > now_s || (nbf >= 0 && from_s > now_s && from_s - now_s > JWT_EARLY_S))
        return JWT_TOO_EARLY;
    *out = c;
    return JWT_OK;
}

enum jwt_err jwt_verify(struct arena *arena, const struct hmac_key *key, struct slice token, int64_t now_s,
                        struct jwt_claims *out) {
    struct slice part[PARTS], given;
    struct json j;
    uint8_t mac[SIGNATURE_BYTES];
    if (!split(token, part) || !parse(arena, part[0], &j))
        return JWT_MALFORMED;
    if (!json_str_is(&j, json_get(&j, 0, "alg"), "HS256") || json_duplicate(&j, 0, "alg"))
        return JWT_ALGORITHM;
    if (json_get(&j, 0, "crit") >= 0) /* RFC 7515 §4.1.11: what is critical must be understood; nothing is */
        return JWT_ALGORITHM;
    if (!decode(arena, part[2], &given))
        return JWT_MALFORMED;
    hmac_sign(key, token.ptr, part[0].len + 1 + part[1].len, mac);
    bool same = slice_eq_secret(given, slice_of((const char *)mac, sizeof mac));
    wipe(mac, sizeof mac);
    if (!same)
        return JWT_SIGNATURE;
    if (!parse(arena, part[1], &j))
        return JWT_MALFORMED;
    return read_claims(arena, &j, now_s, out);
}

static bool write_claims(struct buf *out, const struct jwt_claims *c) {
    struct json_writer w;
    jw_init(&w, out);
    jw_object(&w);
    jw_key(&w, "sub");
    jw_str(&w, c->sub);
    jw_key(&w, "iat");
    jw_i64(&w, c->iat_s);
    jw_key(&w, "exp");
    jw_i64(&w, c->exp_s);
    jw_key(&w, "jti");
    jw_str(&w, c->jti);
    jw_end_object(&w);
    return !w.failed;
}

bool jwt_sign(struct buf *out, const struct hmac_key *key, const struct jwt_claims *c) {
    struct buf claims, token;
    uint8_t mac[SIGNATURE_BYTES];
    buf_init(&claims, out->pages, JWT_MAX);
    buf_init(&token, out->pages, JWT_MAX);
    bool ok = write_claims(&claims, c) && base64_encode(&token, head.ptr, head.len, true) &&
              buf_append(&token, ".", 1) && base64_encode(&token, buf_ptr(&claims), claims.len, true);
    if (ok) {
        hmac_sign(key, buf_ptr(&token), token.len, mac);
        ok = buf_append(&token, ".", 1) && base64_encode(&token, mac, sizeof mac, true) &&
             buf_append_slice(out, buf_slice(&token));
        wipe(mac, sizeof mac);
    }
    buf_release(&claims);
    buf_release(&token);
    return ok;
}
