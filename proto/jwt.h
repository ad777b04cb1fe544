/* JSON Web Tokens (RFC 7519) with HMAC-SHA256 (RFC 7515, "HS256") and nothing else.
 *
 * The algorithm is pinned: what the token's head says is compared with it, never obeyed, so "none" and a public key
 * taken for a secret (RFC 8725 §2.1) are refused before any signature is looked at. Pure: the time comes from the
 * caller. */
#ifndef TG_JWT_H
#define TG_JWT_H

#include "proto/base/crypto.h"

enum { JWT_MAX = 2048, JWT_SUBJECT_MAX = 64, JWT_EARLY_S = 60 };

struct jwt_claims { struct slice sub, jti; int64_t iat_s, exp_s; };
enum jwt_err { JWT_OK, JWT_MALFORMED, JWT_ALGORITHM, JWT_SIGNATURE, JWT_EXPIRED, JWT_TOO_EARLY };

/* Appends the token; false: out is full. */
bool jwt_sign(struct buf *out, const struct hmac_key *key, const struct jwt_claims *c);
/* Texts of *out lie in the arena. Only JWT_OK fills it. A clock may differ from the signer's by JWT_EARLY_S. */
enum jwt_err jwt_verify(struct arena *arena, const struct hmac_key *key, struct slice token, int64_t now_s,
                        struct jwt_claims *out);
/* Three parts of the right letters: what a token looks like, true or not. */
bool jwt_looks_like(struct slice text);

#endif
