/* Who is it: the key in any of the places a client may put it, the account behind it, the limits that hold.
 *
 * A key is looked up by its HMAC under the pepper; on a kept-alive connection that brings the same key again, one
 * comparison in constant time replaces the HMAC. Its present state is read from shared memory with every request: a
 * revocation counts from the next one on. */
#include "worker/exchange.h"

enum { KEY_MAX = 512, CANDIDATES = 4 };

struct candidates {
    struct slice key[CANDIDATES];
    uint32_t count;
    char query_key[KEY_MAX];
};

static void add(struct candidates *c, struct slice key) {
    key = slice_trim(key);
    if (key.len > 0 && key.len <= KEY_MAX && c->count < CANDIDATES)
        c->key[c->count++] = key;
}

static void collect(const struct http_head *head, struct candidates *c) {
    const struct http_header *h = http_find(head, SLICE("authorization"));
    c->count = 0;
    if (h != NULL && h->value.len > 7 && slice_ieq(slice_of(h->value.ptr, 7), SLICE("bearer ")))
        add(c, slice_from(h->value, 7));
    h = http_find(head, SLICE("x-api-key"));
    if (h != NULL)
        add(c, h->value);
    h = http_find(head, SLICE("x-goog-api-key"));
    if (h != NULL)
        add(c, h->value);
    size_t len;
    if (head->query.len > 0 && http_query_get(head->query, SLICE("key"), c->query_key, sizeof c->query_key, &len))
        add(c, slice_of(c->query_key, len));
}

static bool find_key(struct exchange *ex, struct slice key, uint32_t *index) {
    struct conn *c = ex->conn;
    if (c->cached_key_len > 0 && slice_eq_secret(slice_of(c->cached_key, c->cached_key_len), key)) {
        *index = c->cached_key_index;
        return true;
    }
    uint8_t hash[32];
    hmac_sign(&ex->worker->pepper, key.ptr, key.len, hash);
    if (!shm_key_find(&ex->worker->shm, hash, index))
        return false;
    if (key.len <= CONN_KEY_CACHE) {
        memcpy(c->cached_key, key.ptr, key.len);
        c->cached_key_len = (uint16_t)key.len;
        c->cached_key_index = *index;
        memcpy(c->cached_key_hash, hash, sizeof hash);
    }
    return true;
}

static uint64_t own_or(uint64_t own, uint64_t of_tier) { return own == LIMIT_OF_TIER ? of_tier : own; }

static struct rate rate_of(uint64_t own, const struct rate *of_tier) {
    return own == LIMIT_OF_TIER ? *of_tier : (struct rate){ own, own };
}

/* Reads the key, its account and plan as they are now. */
static bool read_state(struct exchange *ex) {
    const struct shm *shm = &ex->worker->shm;
    const struct snap *s = ex->snapshot->snap;
    if (!shm_key_read(shm, ex->key_index, &ex->key) || ex->key.status == KEY_NONE ||
        !shm_account_read(shm, ex->key.account, &ex->account))
        return false;
    if (ex->conn != NULL && ex->conn->cached_key_len > 0 && ex->conn->cached_key_index == ex->key_index &&
        memcmp(ex->conn->cached_key_hash, ex->key.hash, 32) != 0) {
        ex->conn->cached_key_len = 0; /* the place was given to another key since */
        return false;
    }
    ex->tier = snap_tier_by_id(s, ex->account.tier_id);
    ex->group = snap_group_by_id(s, ex->account.group_id);
    ex->image_call = ex->endpoint != NULL && ex->endpoint->run == images_run;
    ex->rpm = rate_of(ex->key.rpm, ex->image_call ? &ex->tier->images_rpm : &ex->tier->rpm);
    if (ex->image_call && ex->key.rpm != LIMIT_OF_TIER)
        ex->rpm = ex->tier->images_rpm;
    ex->tpm = rate_of(ex->key.tpm, &ex->tier->tpm);
    ex->concurrency = own_or(ex->key.concurrency, ex->tier->concurrency);
    return true;
}

static bool check_state(struct exchange *ex) {
    int64_t now_s = ex->worker->loop.wall_ms / 1000;
    const struct snap *s = ex->snapshot->snap;
    if (ex->key.status == KEY_REVOKED) {
        reply_error(ex, (int)s->revoked_key_status, s->revoked_key_status == 401 ? "invalid_api_key" : "key_revoked",
                    NULL, "This API key has been revoked.");
        return false;
    }
    if (ex->key.expires_at_s != 0 && now_s >= ex->key.expires_at_s) {
        reply_error(ex, 403, "key_expired", NULL, "This API key has expired.");
        return false;
    }
    if (ex->account.status != ACCOUNT_ACTIVE) {
        reply_error(ex, 403, "account_suspended", NULL, "This account is suspended.");
        return false;
    }
    return true;
}

/* For last_used_at: at most one store a second and key, so that its line stays where it is. */
static void note_use(const struct exchange *ex) {
    _Atomic uint64_t *used = &ex->worker->shm.key_words[ex->key_index].last_used_s;
    uint64_t now_s = (uint64_t)(ex->worker->loop.wall_ms / 1000);
    if (atomic_load_explicit(used, memory_order_relaxed) != now_s)
        atomic_store_explicit(used, now_s, memory_order_relaxed);
}

bool auth_request(struct exchange *ex, const struct http_head *head, bool required) {
    struct candidates c;
    collect(head, &c);
    for (uint32_t i = 0; i < c.count; i++) {
        if (!find_key(ex, c.key[i], &ex->key_index))
            continue;
        if (!read_state(ex))
            continue;
        ex->known_key = true;
        note_use(ex);
        admit_limits_view(ex);
        break;
    }
    wipe(c.query_key, sizeof c.query_key);
    if (ex->known_key)
        return !required || check_state(ex);
    if (!required)
        return true;
    COUNT(ex->worker->counters, requests_unauthorized, 1);
    reply_error(ex, 401, "invalid_api_key", NULL,
                c.count == 0 ? "You didn't provide an API key. Send it as 'Authorization: Bearer YOUR_KEY'."
                             : "Invalid API key provided.");
    return false;
}

bool auth_refresh(struct exchange *ex) {
    if (!read_state(ex)) {
        reply_error(ex, 401, "invalid_api_key", NULL, "Invalid API key provided.");
        return false;
    }
    return check_state(ex);
}

void auth_keep(struct exchange *ex, const struct http_head *head) {
    struct candidates c;
    collect(head, &c);
    for (uint32_t i = 0; i < c.count; i++)
        ex->credentials[i] = arena_copy(&ex->arena, c.key[i]);
    ex->credential_count = ex->arena.overflow ? 0 : c.count;
    wipe(c.query_key, sizeof c.query_key);
}
