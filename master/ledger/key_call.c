/* What may be asked about keys: create, import, set, revoke, show (their lists: key_show.c). */
#include <stdlib.h>
#include "master/ledger/key.h"
#include "master/ledger/text.h"

enum { IMPORT_MAX = 20000, OWN_MODELS_BYTES = 64 << 10 };

/* ---- options ----------------------------------------------------------------------------------------------------- */

/* Model globs, comma-separated: blanks go; "*" or "none" alone mean no list. */
static bool models_option(struct call *c, struct key_draft *d) {
    struct slice text;
    enum arg got = call_text(c, "models", STORE_MODELS, &text);
    if (got != ARG_OK)
        return got == ARG_ABSENT;
    char *out = arena_alloc(c->arena, text.len + 1);
    size_t n = 0;
    if (!out)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char ch = text.ptr[i];
        if (ch == ' ' || ch == '\t' || (ch == ',' && (n == 0 || out[n - 1] == ',')))
            continue;
        if ((unsigned char)ch < 0x20) {
            call_refuse(c, "invalid_value", "models: names or globs, separated by commas");
            return false;
        }
        out[n++] = ch;
    }
    while (n > 0 && out[n - 1] == ',')
        n--;
    if (text.len > 0 && n == 0) { /* not a key that may call everything by oversight */
        call_refuse(c, "invalid_value", "models: the list names none");
        return false;
    }
    d->models = slice_of(out, n);
    if (slice_is(d->models, "*") || slice_is(d->models, "none"))
        d->models = SLICE("");
    return true;
}

/* A whole number, or "none": the tier's counts. */
static bool count_option(struct call *c, const char *name, uint64_t *out) {
    struct slice text;
    enum arg got = call_text(c, name, 32, &text);
    if (got != ARG_OK)
        return got == ARG_ABSENT;
    if (slice_is(text, "none"))
        *out = LIMIT_OF_TIER;
    else if (!slice_to_u64(text, out) || *out == LIMIT_OF_TIER) {
        call_refuse(c, "invalid_value", "%s: \"%.*s\" is not a whole number (\"none\" leaves it to the tier)", name,
                    SLICE_ARG(text));
        return false;
    }
    return true;
}

static bool limit_option(struct call *c, struct key_draft *d) {
    struct slice text;
    int64_t limit;
    enum arg got = call_text(c, "limit", 64, &text);
    if (got != ARG_OK)
        return got == ARG_ABSENT;
    if (slice_is(text, "none")) {
        d->row.capped = 0;
        d->row.limit = 0;
        return true;
    }
    if (call_amount(c, "limit", &limit) != ARG_OK)
        return false;
    d->row.capped = 1;
    d->row.limit = limit;
    return true;
}

/* A time, an age from now on (30d), or "never". */
static bool expires_option(struct call *c, struct key_draft *d) {
    struct slice text;
    int64_t at_ms, now_ms = ledger_wall_ms();
    enum arg got = call_text(c, "expires", 64, &text);
    if (got == ARG_ABSENT)
        got = call_text(c, "expires_at", 64, &text);
    if (got != ARG_OK)
        return got == ARG_ABSENT;
    if (slice_is(text, "never") || slice_is(text, "none")) {
        d->row.expires_at_s = 0;
        return true;
    }
    if (!time_parse(text, now_ms, &at_ms)) {
        call_refuse(c, "invalid_value",
                    "expires: \"%.*s\" is not a time (2026-01-31, 2026-01-31T12:00:00Z, 30d from now, never)",
                    SLICE_ARG(text));
        return false;
    }
    if (!memchr(text.ptr, '-', text.len)) /* an age counts forward here */
        at_ms = now_ms + (now_ms - at_ms);
    d->row.expires_at_s = at_ms > 1000 ? at_ms / 1000 : 1;
    return true;
}

static bool take_options(struct call *c, struct key_draft *d) {
    struct slice name;
    enum arg got = call_text(c, "name", STORE_NAME * 4, &name);
    if (got == ARG_OK)
        d->name = name;
    return got != ARG_BAD && models_option(c, d) && limit_option(c, d) && expires_option(c, d) &&
           count_option(c, "rpm", &d->row.rpm) && count_option(c, "tpm", &d->row.tpm) &&
           count_option(c, "concurrency", &d->row.concurrency);
}

/* ---- the calls --------------------------------------------------------------------------------------------------- */

/* What an account makes for itself leaves room for the others in the pool of lists. */
static bool own_models_fit(struct call *c, uint32_t account, const struct key_draft *d) {
    if (!c->self_id || d->models.len == 0 || c->l->accounts[account].models_bytes + d->models.len <= OWN_MODELS_BYTES)
        return true;
    call_refuse(c, "invalid_value", "models: the lists of all active keys of an account have at most %d bytes together",
                OWN_MODELS_BYTES);
    return false;
}

void call_key_create(struct call *c) {
    uint32_t account = call_account(c, "account");
    struct slice secret;
    if (account == NO_INDEX || !key_text_new(c, &secret))
        return;
    struct key_draft d;
    key_draft_new(c->l, account, secret, SLICE("default"), &d);
    if (take_options(c, &d) && own_models_fit(c, account, &d) && key_create(c, account, &d, 1))
        key_answer(c, &d, secret);
    wipe((char *)(uintptr_t)secret.ptr, secret.len);
}

/* "status" as keys show it: what the key is already, or revoked, which is for ever. */
static bool status_option(struct call *c, const struct key_draft *d, bool *revoke) {
    struct slice status;
    enum arg got = call_text(c, "status", 16, &status);
    *revoke = got == ARG_OK && slice_is(status, "revoked");
    if (got != ARG_OK || *revoke)
        return got != ARG_BAD;
    if (d->row.status != KEY_REVOKED && (slice_is(status, "active") || slice_is(status, "expired")))
        return true;
    call_refuse(c, "invalid_value", "status: a key can be revoked, and stays so");
    return false;
}

void call_key_set(struct call *c) {
    struct key_draft d;
    uint32_t id, index;
    bool revoke;
    if (!call_key(c, "key", &id, &index) || !key_draft_load(c, id, &d) || !take_options(c, &d) ||
        !status_option(c, &d, &revoke))
        return;
    key_change(c, &d);
    if (!c->refused && revoke)
        key_revoke(c, &d);
    if (!c->refused)
        key_answer(c, &d, SLICE_NONE);
}

void call_key_revoke(struct call *c) {
    struct key_draft d;
    uint32_t id, index;
    if (!call_key(c, "key", &id, &index) || !key_draft_load(c, id, &d))
        return;
    key_revoke(c, &d);
    if (!c->refused)
        key_answer(c, &d, SLICE_NONE);
}

void call_key_show(struct call *c) {
    struct key_draft d;
    uint32_t id, index;
    if (call_key(c, "key", &id, &index) && key_draft_load(c, id, &d))
        key_answer(c, &d, SLICE_NONE);
}

/* ---- importing --------------------------------------------------------------------------------------------------- */

static bool importable(struct slice key) {
    if (key.len < KEY_TEXT_MIN || key.len > KEY_TEXT_MAX)
        return false;
    for (size_t i = 0; i < key.len; i++)
        if ((unsigned char)key.ptr[i] <= ' ' || (unsigned char)key.ptr[i] >= 0x7f)
            return false;
    return true;
}

static int by_hash(const void *a, const void *b) {
    return memcmp(((const struct key_draft *)a)->row.hash, ((const struct key_draft *)b)->row.hash, 32);
}

/* Drops those that exist or stand twice; what is left moves to the front. */
static size_t drop_known(struct ledger *l, struct key_draft *d, size_t n) {
    if (n > 1)
        qsort(d, n, sizeof *d, by_hash);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        bool twice = kept > 0 && memcmp(d[kept - 1].row.hash, d[i].row.hash, 32) == 0;
        if (!twice && store_get(&l->store, DB_KEYHASH, slice_of((char *)d[i].row.hash, 32), NULL) == STORE_NONE)
            d[kept++] = d[i];
    }
    return kept;
}

void call_key_import(struct call *c) {
    struct ledger *l = c->l;
    uint32_t account = call_account(c, "account");
    int keys = json_get(&c->json, 0, "keys");
    if (account == NO_INDEX)
        return;
    size_t given = json_is(&c->json, keys, JSON_ARRAY) ? json_size(&c->json, keys) : 0, n = 0;
    if (given == 0 || given > IMPORT_MAX) {
        call_refuse(c, "invalid_value", "keys: an array of 1 to %d texts is expected", IMPORT_MAX);
        return;
    }
    struct key_draft *drafts = calloc(given, sizeof *drafts);
    enum store_err err = drafts ? store_read_begin(&l->store) : STORE_BROKEN;
    if (err != STORE_OK) {
        free(drafts);
        call_store_failed(c, err);
        return;
    }
    for (int t = json_first(&c->json, keys); t >= 0; t = json_next(&c->json, keys, t)) {
        struct slice key = json_str(&c->json, t, c->arena);
        if (key.ptr && importable(key))
            key_draft_new(l, account, key, SLICE("imported"), &drafts[n++]);
    }
    n = drop_known(l, drafts, n);
    store_read_end(&l->store);
    if (n == 0 || key_create(c, account, drafts, n)) {
        jw_object(c->w);
        jw_count(c->w, "imported", n);
        jw_count(c->w, "skipped", given - n);
        jw_end_object(c->w);
    }
    free(drafts);
}
