/* See seal.h. A sealed id is the provider's own, then "_tg", then base64url of: upstream id (4 bytes), the provider
 * key's mark (4), an HMAC-SHA256 over account, both of these and the id (12 bytes of it). */
#include "worker/seal.h"

enum {
    BOUND = 8,
    TAG = 12,
    SEAL_BYTES = BOUND + TAG,
    SEAL_TEXT = 27 /* base64url of 20 bytes */,
    MARK = 3,
    ID_MAX = 1024 /* of a provider's own; larger ones are not handed out */
};

/* Names a provider key without holding it: a key that moved in the configuration keeps its mark. */
static uint32_t key_mark(const struct exchange *ex, const struct snap_upstream *up, uint32_t i) {
    const struct snap *s = ex->snapshot->snap;
    uint8_t sum[32];
    uint32_t mark = 0;
    if (i >= up->keys.count)
        return 0;
    struct slice key = snap_text(s, *SNAP_AT(s, up->keys, struct snap_str, i));
    hmac_sign(&ex->worker->seal, key.ptr, key.len, sum);
    memcpy(&mark, sum, sizeof mark);
    return mark;
}

static void tag_of(const struct exchange *ex, const uint8_t bound[BOUND], struct slice id, uint8_t tag[32]) {
    char text[4 + BOUND + ID_MAX];
    memcpy(text, &ex->account.id, 4);
    memcpy(text + 4, bound, BOUND);
    memcpy(text + 4 + BOUND, id.ptr, id.len);
    hmac_sign(&ex->worker->seal, text, 4 + BOUND + id.len, tag);
}

struct slice seal_id(void *arg, struct slice id, struct arena *arena) {
    struct exchange *ex = arg;
    uint8_t seal[SEAL_BYTES], tag[32];
    struct buf text;
    uint32_t upstream = ex->try.up->id, mark = key_mark(ex, ex->try.up, (uint32_t)ex->try.key);
    if (id.len == 0 || id.len > ID_MAX)
        return SLICE("");
    memcpy(seal, &upstream, 4);
    memcpy(seal + 4, &mark, 4);
    tag_of(ex, seal, id, tag);
    memcpy(seal + BOUND, tag, TAG);
    buf_init(&text, arena->pages, PAGE_BYTES);
    bool ok = base64_encode(&text, seal, sizeof seal, true);
    struct slice sealed =
        ok ? arena_printf(arena, "%.*s_tg%.*s", SLICE_ARG(id), SLICE_ARG(buf_slice(&text))) : SLICE("");
    buf_release(&text);
    return sealed;
}

static bool has_seal(struct slice id) {
    return id.len > MARK + SEAL_TEXT && slice_is(slice_of(id.ptr + id.len - MARK - SEAL_TEXT, MARK), "_tg");
}

/* Checks one sealed id of this account. */
static bool open_one(struct exchange *ex, struct slice sealed, struct slice *plain, uint8_t bound[BOUND]) {
    uint8_t tag[32];
    struct buf seal;
    bool ok = false;
    if (!has_seal(sealed) || sealed.len > ID_MAX + MARK + SEAL_TEXT)
        return false;
    *plain = slice_of(sealed.ptr, sealed.len - MARK - SEAL_TEXT);
    struct slice text = slice_from(sealed, plain->len + MARK);
    buf_init(&seal, &ex->worker->pages, PAGE_BYTES);
    if (base64_decode(&seal, text, false) && seal.len == SEAL_BYTES) {
        memcpy(bound, buf_ptr(&seal), BOUND);
        tag_of(ex, bound, *plain, tag);
        ok = slice_eq_secret(slice_of(buf_ptr(&seal) + BOUND, TAG), slice_of((const char *)tag, TAG));
    }
    buf_release(&seal);
    return ok;
}

/* The route and key that the state lives at: every other route counts as tried. */
static bool pin(struct exchange *ex, const uint8_t bound[BOUND]) {
    const struct snap *s = ex->snapshot->snap;
    uint32_t upstream, mark, i = 0;
    bool found = false;
    memcpy(&upstream, bound, 4);
    memcpy(&mark, bound + 4, 4);
    SNAP_EACH(s, ex->model->routes, struct snap_route, r) {
        const struct snap_upstream *up = SNAP_AT(s, s->upstreams, struct snap_upstream, r->upstream);
        bool here = up->id == upstream;
        for (uint32_t k = 0; here && k < up->keys.count; k++)
            if (key_mark(ex, up, k) == mark)
                ex->pinned_key = (int)k;
        here = here && (up->keys.count == 0 || ex->pinned_key >= 0);
        if (!here)
            ex->tried_routes |= i < 64 ? 1ull << i : 0;
        found |= here;
        i++;
    }
    return found;
}

struct slice seal_unknown(struct exchange *ex, struct slice id) {
    struct slice shown = slice_of(id.ptr, id.len < 80 ? id.len : 80);
    return arena_printf(&ex->arena, "The request refers to an id that is unknown, or not this account's: '%.*s'.",
                        SLICE_ARG(shown));
}

/* One id; pinned: where the ones before it live, once there is one. */
static bool open_id(struct exchange *ex, uint32_t i, uint8_t pinned[BOUND], bool *has_pin) {
    enum pass_state is = ex->req.sealed[i].is;
    struct slice id = json_str(&ex->json, ex->req.sealed[i].value, &ex->arena);
    uint8_t bound[BOUND];
    if (id.ptr == NULL)
        return false;
    if (is != PASS_STATE && !has_seal(id)) {
        if (is == PASS_KEPT && ex->unsealed.ptr == NULL)
            ex->unsealed = id;
        return true;
    }
    if (!open_one(ex, id, &ex->plain[i], bound))
        return false;
    if (is == PASS_ITEM)
        return true;
    if (*has_pin)
        return memcmp(pinned, bound, BOUND) == 0;
    memcpy(pinned, bound, BOUND);
    *has_pin = true;
    return pin(ex, bound);
}

bool seal_open_all(struct exchange *ex) {
    uint8_t pinned[BOUND];
    bool has_pin = false;
    size_t room = ex->req.sealed_count * sizeof *ex->plain;
    ex->pinned_key = -1;
    if (ex->req.sealed_count == 0)
        return true;
    ex->plain = arena_alloc(&ex->arena, room);
    if (ex->plain == NULL) {
        reply_error(ex, 413, "body_too_large", NULL, "The request is too large.");
        return false;
    }
    memset(ex->plain, 0, room);
    for (uint32_t i = 0; i < ex->req.sealed_count; i++)
        if (!open_id(ex, i, pinned, &has_pin)) {
            struct slice id = json_str(&ex->json, ex->req.sealed[i].value, &ex->arena);
            reply_error(ex, 400, "invalid_value", NULL, "%.*s", SLICE_ARG(seal_unknown(ex, id)));
            return false;
        }
    return true;
}
