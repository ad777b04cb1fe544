/* Who asks over HTTP: a JWT of ours, an API key, or the operator's token; and how often some things were tried.
 *
 * A token names an account by its id; whether the account still is and is not suspended is looked up each time. The
 * secret is the configuration's, or 32 random bytes that are made at the first need and kept in the database, so that
 * tokens outlive a restart and every copy of the database.
 *
 * Attempts are counted in windows that begin with the first one, in tables of fixed size: this process is the only one
 * that sees them all, whichever workers they came through. An entry is found by a keyed hash, so nobody can aim at
 * another's; where a bucket is full the oldest goes. A restart forgets them. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include "master/ledger/http.h"
#include "master/ledger/key.h"

enum { SECRET = 32, SLOTS = 1 << 14, WAYS = 8, JTI = 22 };

struct slot { uint64_t who, start_ms; uint32_t count; };
struct auth {
    uint8_t secret[SECRET];
    bool has_secret;
    struct slot counters[AUTH_COUNTERS][SLOTS];
};

static struct auth *state(struct ledger *l) {
    if (!l->auth)
        l->auth = calloc(1, sizeof *l->auth);
    return l->auth;
}

void auth_end(struct ledger *l) {
    if (l->auth)
        wipe(l->auth->secret, SECRET);
    free(l->auth);
    l->auth = NULL;
}

/* ---- the secret -------------------------------------------------------------------------------------------------- */

static enum store_err write_secret(struct store *s, void *arg) {
    return store_put(s, DB_META, SLICE("jwt_secret"), slice_of(arg, SECRET));
}

static enum store_err read_secret(struct ledger *l, struct auth *a) {
    enum store_err err = store_read_begin(&l->store);
    if (err != STORE_OK)
        return err;
    err = store_meta(&l->store, "jwt_secret", a->secret, SECRET);
    store_read_end(&l->store);
    return err;
}

/* false: there is none, and none can be made now. */
static bool token_key(struct ledger *l, struct hmac_key *key) {
    struct slice configured = snap_text(l->conf, l->conf->jwt_secret);
    struct auth *a = state(l);
    if (configured.len > 0) {
        hmac_key_init(key, configured.ptr, configured.len);
        return true;
    }
    if (!a)
        return false;
    if (!a->has_secret) {
        enum store_err err = read_secret(l, a);
        if (err == STORE_NONE && getrandom(a->secret, SECRET, 0) == SECRET)
            err = store_write(&l->store, write_secret, a->secret);
        if (err != STORE_OK) {
            ledger_store_failed(l, err);
            return false;
        }
        a->has_secret = true;
    }
    hmac_key_init(key, a->secret, SECRET);
    return true;
}

bool auth_token(struct call *c, uint32_t account_id, struct buf *out) {
    struct hmac_key key;
    uint8_t random[JTI * 2];
    char sub[ID_TEXT], jti[JTI];
    struct jwt_claims claims = { .iat_s = ledger_wall_ms() / 1000 };
    if (!token_key(c->l, &key))
        return false;
    do
        if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
            return false;
    while (!alnum_from_random(jti, JTI, random, sizeof random));
    id_write(sub, ID_ACCOUNT, account_id);
    claims.sub = slice_str(sub);
    claims.jti = slice_of(jti, JTI);
    claims.exp_s = claims.iat_s + (int64_t)c->l->conf->jwt_ttl_s;
    bool ok = jwt_sign(out, &key, &claims);
    wipe(&key, sizeof key);
    return ok;
}

/* ---- credentials ------------------------------------------------------------------------------------------------- */

static bool suspended(struct call *c, uint32_t account) {
    if (c->l->accounts[account].status != ACCOUNT_SUSPENDED)
        return false;
    http_fail(c, 403, "account_suspended", 0, "This account is suspended.");
    return true;
}

enum found { FOUND_NOTHING, FOUND, FOUND_EXPIRED };

static enum found by_token(struct call *c, struct slice text, uint32_t *account) {
    struct hmac_key key;
    struct jwt_claims claims;
    uint64_t id;
    if (!jwt_looks_like(text) || !token_key(c->l, &key))
        return FOUND_NOTHING;
    enum jwt_err err = jwt_verify(c->arena, &key, text, ledger_wall_ms() / 1000, &claims);
    wipe(&key, sizeof key);
    if (err == JWT_EXPIRED)
        return FOUND_EXPIRED;
    if (err != JWT_OK || !id_read(claims.sub, ID_ACCOUNT, &id) || id >= UINT32_MAX)
        return FOUND_NOTHING;
    *account = ledger_account_index(c->l, (uint32_t)id);
    return *account != NO_INDEX ? FOUND : FOUND_NOTHING;
}

/* A key's own state; false: answered. */
static bool key_serves(struct call *c, uint32_t id, struct http_who *who) {
    struct key_draft d;
    if (!key_draft_load(c, id, &d)) {
        c->refused = false;
        http_fail(c, 500, "internal", 0, "An internal error occurred.");
        return false;
    }
    who->account = ledger_account_index(c->l, d.row.account_id);
    who->key_id = id;
    int revoked = (int)c->l->conf->revoked_key_status;
    if (d.row.status == KEY_REVOKED || who->account == NO_INDEX)
        http_fail(c, revoked == 401 ? 401 : 403, revoked == 401 ? "invalid_api_key" : "key_revoked", 0,
                  "This API key has been revoked.");
    else if (d.row.expires_at_s && d.row.expires_at_s <= ledger_wall_ms() / 1000)
        http_fail(c, 403, "key_expired", 0, "This API key has expired.");
    else
        return !suspended(c, who->account);
    return false;
}

static int credentials(const struct call *c) {
    int t = json_get(&c->json, 0, "credentials");
    return json_is(&c->json, t, JSON_ARRAY) ? t : -1;
}

bool auth_who(struct call *c, bool keys_too, struct http_who *who) {
    int list = credentials(c);
    bool expired = false, key_seen = false;
    uint32_t id;
    *who = (struct http_who){ .account = NO_INDEX };
    for (int t = list < 0 ? -1 : json_first(&c->json, list); t >= 0; t = json_next(&c->json, list, t)) {
        struct slice text = json_str(&c->json, t, c->arena);
        enum found found = text.ptr ? by_token(c, text, &who->account) : FOUND_NOTHING;
        if (found == FOUND)
            return !suspended(c, who->account);
        expired |= found == FOUND_EXPIRED;
        if (found == FOUND_NOTHING && text.ptr && find_secret(c->l, text, &id)) { /* an id is no credential */
            if (keys_too)
                return key_serves(c, id, who);
            key_seen = true;
        }
    }
    http_fail(c, 401, "invalid_api_key", 0, "%s",
              expired    ? "The token has expired. Please log in again."
              : key_seen ? "An API key is not accepted here. Log in and send the token."
              : keys_too ? "Missing or invalid token or API key."
                         : "Missing or invalid token.");
    return false;
}

bool auth_admin(struct call *c) {
    struct slice token = snap_text(c->l->conf, c->l->conf->admin_token);
    int list = credentials(c);
    bool right = false;
    if (token.len == 0) {
        http_fail(c, 404, "unknown_path", 0, "Not found.");
        return false;
    }
    for (int t = list < 0 ? -1 : json_first(&c->json, list); t >= 0; t = json_next(&c->json, list, t)) {
        struct slice text = json_str(&c->json, t, c->arena);
        right |= text.ptr && slice_eq_secret(text, token);
    }
    if (!right)
        http_fail(c, 401, "invalid_api_key", 0, "Missing or invalid admin token.");
    return right;
}

/* ---- counting ---------------------------------------------------------------------------------------------------- */

static struct slot *bucket_of(struct ledger *l, enum auth_counter counter, struct slice who, uint64_t *hash) {
    uint8_t mac[32];
    struct auth *a = state(l);
    hmac_sign(&l->pepper, who.ptr, who.len, mac);
    memcpy(hash, mac, sizeof *hash);
    *hash |= 1; /* 0: free */
    return a ? &a->counters[counter][(*hash >> 8) % (SLOTS / WAYS) * WAYS] : NULL;
}

bool auth_count(struct ledger *l, enum auth_counter counter, struct slice who, uint32_t limit, uint32_t window_ms,
                uint64_t *wait_s) {
    uint64_t hash, now_ms = http_now_ms();
    struct slot *bucket = bucket_of(l, counter, who, &hash), *at = bucket;
    if (!bucket)
        return true; /* no memory: better than to lock everybody out */
    for (unsigned i = 0; i < WAYS; i++) {
        if (bucket[i].who == hash) {
            at = &bucket[i];
            break;
        }
        if (bucket[i].start_ms < at->start_ms)
            at = &bucket[i];
    }
    if (at->who != hash || now_ms - at->start_ms >= window_ms)
        *at = (struct slot){ .who = hash, .start_ms = now_ms };
    if (at->count >= limit) {
        *wait_s = (at->start_ms + window_ms - now_ms) / 1000 + 1;
        return false;
    }
    at->count++;
    return true;
}

void auth_uncount(struct ledger *l, enum auth_counter counter, struct slice who) {
    uint64_t hash;
    struct slot *bucket = bucket_of(l, counter, who, &hash);
    for (unsigned i = 0; bucket && i < WAYS; i++)
        if (bucket[i].who == hash && bucket[i].count > 0)
            bucket[i].count--;
}

struct slice auth_client(struct call *c) {
    struct slice text = json_str(&c->json, json_get(&c->json, 0, "client"), c->arena);
    struct in6_addr a;
    char address[64], net[INET6_ADDRSTRLEN];
    if (!text.ptr || text.len >= sizeof address)
        return SLICE("");
    memcpy(address, text.ptr, text.len);
    address[text.len] = '\0';
    if (inet_pton(AF_INET6, address, &a) != 1)
        return text;
    if (IN6_IS_ADDR_V4MAPPED(&a)) /* ::ffff:1.2.3.4, as proxies with one socket for both write it */
        return arena_copy(c->arena, slice_str(inet_ntop(AF_INET, a.s6_addr + 12, net, sizeof net)));
    memset(a.s6_addr + 8, 0, 8); /* whoever has one address of a /64 has them all */
    return inet_ntop(AF_INET6, &a, net, sizeof net) ? arena_copy(c->arena, slice_str(net)) : text;
}
