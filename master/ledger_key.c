/* Keys: create, import, set, show, list, revoke.
 *
 * A key's text exists in the answer to its creation and nowhere else: the database has its HMAC, its beginning and
 * its last characters. A revocation is committed, published, then answered: from the next request on no worker takes
 * the key. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include "master/ledger_int.h"

enum { LIST_PAGE = 5000, KEY_RANDOM = 32, KEY_TEXT_MIN = 8, KEY_TEXT_MAX = 256, IMPORT_MAX = 20000,
       OWN_MODELS_BYTES = 64 << 10 };

static bool draft_read(struct slice value, struct key_draft *d) {
    struct slice t;
    if (!row_read(value, &d->row, sizeof d->row, &t) ||
        t.len != (size_t)d->row.name_len + d->row.models_len + d->row.shown_len + d->row.last_len)
        return false;
    d->name = slice_of(t.ptr, d->row.name_len);
    d->models = slice_of(d->name.ptr + d->name.len, d->row.models_len);
    d->shown = slice_of(d->models.ptr + d->models.len, d->row.shown_len);
    d->last = slice_of(d->shown.ptr + d->shown.len, d->row.last_len);
    return true;
}

/* Reads a key into d; its texts are copied to the call's arena. */
bool key_draft_load(struct call *c, uint32_t id, struct key_draft *d) {
    struct id_key key = key32(id);
    struct slice v;
    enum store_err err = store_read_begin(&c->l->store);
    if (err == STORE_OK) {
        err = store_get(&c->l->store, DB_KEY, ID_SLICE(key), &v);
        if (err == STORE_OK) {
            v = arena_copy(c->arena, v);
            err = v.ptr && draft_read(v, d) ? STORE_OK : STORE_BROKEN;
        }
        store_read_end(&c->l->store);
    }
    d->id = id;
    d->index = ledger_key_index(c->l, id);
    if (err != STORE_OK)
        call_refuse(c, "internal", "key %u cannot be read", id);
    return err == STORE_OK;
}

static enum store_err draft_put(struct store *s, const struct key_draft *d, bool new) {
    char value[sizeof d->row + STORE_NAME * 4 + STORE_MODELS + KEY_TEXT_MAX], *at = value + sizeof d->row;
    struct row_key row = d->row;
    row.name_len = (uint16_t)d->name.len;
    row.models_len = (uint16_t)d->models.len;
    row.shown_len = (uint16_t)d->shown.len;
    row.last_len = (uint16_t)d->last.len;
    memcpy(value, &row, sizeof row);
    const struct slice *texts[] = { &d->name, &d->models, &d->shown, &d->last };
    for (unsigned i = 0; i < ARRAY_LEN(texts); i++) {
        CHECK(texts[i]->len <= (size_t)(value + sizeof value - at));
        if (texts[i]->len)
            memcpy(at, texts[i]->ptr, texts[i]->len);
        at += texts[i]->len;
    }
    struct id_key key = key32(d->id);
    struct slice v = slice_of(value, (size_t)(at - value));
    return new ? store_append(s, DB_KEY, ID_SLICE(key), v) : store_put(s, DB_KEY, ID_SLICE(key), v);
}

/* ---- as JSON ----------------------------------------------------------------------------------------------------- */

static void write_limit(struct call *c, const char *name, uint64_t v) {
    jw_key(c->w, name);
    if (v == LIMIT_OF_TIER)
        jw_null(c->w);
    else
        jw_u64(c->w, v);
}

static void write_time(struct call *c, const char *name, int64_t at_s) {
    char text[40];
    jw_key(c->w, name);
    time_format(text, at_s * 1000, false);
    if (at_s)
        jw_cstr(c->w, text);
    else
        jw_null(c->w);
}

static void write_models(struct call *c, struct slice models) {
    jw_key(c->w, "models");
    if (models.len == 0) {
        jw_null(c->w);
        return;
    }
    jw_array(c->w);
    while (models.len > 0) {
        const char *comma = memchr(models.ptr, ',', models.len);
        size_t n = comma ? (size_t)(comma - models.ptr) : models.len;
        jw_str(c->w, slice_of(models.ptr, n));
        models = slice_from(models, comma ? n + 1 : n);
    }
    jw_end_array(c->w);
}

static const char *status_text(const struct row_key *row) {
    if (row->status == KEY_REVOKED)
        return "revoked";
    return row->expires_at_s && row->expires_at_s <= ledger_wall_ms() / 1000 ? "expired" : "active";
}

/* Within a read. */
static void read_spent(struct ledger *l, const struct key_draft *d, int64_t *spent, int64_t *used_s) {
    *spent = *used_s = 0;
    if (d->index != NO_INDEX) {
        int64_t seen_s = (int64_t)atomic_load(&l->shm->key_words[d->index].last_used_s);
        *spent = l->keys[d->index].spent;
        *used_s = l->keys[d->index].last_used_s > seen_s ? l->keys[d->index].last_used_s : seen_s;
        return;
    }
    struct id_key key = key32(d->id);
    struct row_spent row = { 0 };
    struct slice v;
    if (store_get(&l->store, DB_SPENT, ID_SLICE(key), &v) == STORE_OK && row_read(v, &row, sizeof row, NULL))
        *spent = row.spent, *used_s = row.last_used_s;
}

/* secret: the whole key, at its creation; else ptr NULL. Within a read. */
static void write_key(struct call *c, const struct key_draft *d, struct slice secret) {
    struct ledger *l = c->l;
    char id[ID_TEXT], account[ID_TEXT];
    int64_t spent, used_s;
    read_spent(l, d, &spent, &used_s);
    id_write(id, ID_KEY, d->id);
    id_write(account, ID_ACCOUNT, d->row.account_id);
    jw_object(c->w);
    jw_key(c->w, "id");
    jw_cstr(c->w, id);
    jw_key(c->w, "account");
    jw_cstr(c->w, account);
    jw_key(c->w, "name");
    jw_str(c->w, d->name);
    jw_key(c->w, "prefix");
    jw_str(c->w, d->shown);
    jw_key(c->w, "status");
    jw_cstr(c->w, status_text(&d->row));
    write_models(c, d->models);
    jw_key(c->w, "limit");
    if (d->row.capped)
        jw_amount(c, d->row.limit);
    else
        jw_null(c->w);
    jw_key(c->w, "spent");
    jw_amount(c, spent);
    write_limit(c, "rpm", d->row.rpm);
    write_limit(c, "tpm", d->row.tpm);
    write_limit(c, "concurrency", d->row.concurrency);
    write_time(c, "expires_at", d->row.expires_at_s);
    write_time(c, "created_at", d->row.created_at_s);
    write_time(c, "last_used_at", used_s);
    if (secret.ptr) {
        jw_key(c->w, "key");
        jw_str(c->w, secret);
    }
    jw_end_object(c->w);
}

void key_write_own(struct call *c, const struct key_draft *d, struct slice secret) {
    int places = ledger_places(c->l);
    char id[ID_TEXT];
    int64_t spent, used_s;
    read_spent(c->l, d, &spent, &used_s);
    id_write(id, ID_KEY, d->id);
    jw_object(c->w);
    jw_key(c->w, "id");
    jw_cstr(c->w, id);
    jw_key(c->w, "name");
    jw_str(c->w, d->name);
    jw_key(c->w, "key");
    jw_str_begin(c->w);
    if (secret.ptr) {
        jw_str_part(c->w, secret);
    } else {
        jw_str_part(c->w, d->shown);
        jw_str_part(c->w, SLICE("..."));
        jw_str_part(c->w, d->last);
    }
    jw_str_end(c->w);
    jw_key(c->w, "status");
    jw_cstr(c->w, status_text(&d->row));
    write_models(c, d->models);
    jw_key(c->w, "limit");
    d->row.capped ? jw_fixed(c->w, d->row.limit, places, false) : jw_null(c->w);
    jw_key(c->w, "spent");
    jw_fixed(c->w, spent, places, false);
    write_time(c, "expires_at", d->row.expires_at_s);
    write_time(c, "created_at", d->row.created_at_s);
    write_time(c, "last_used_at", used_s);
    jw_end_object(c->w);
}

static void show(struct call *c, const struct key_draft *d, struct slice secret) {
    enum store_err err = store_read_begin(&c->l->store);
    if (err != STORE_OK) {
        call_store_failed(c, err);
        return;
    }
    if (c->numbers) /* its owner asked, over HTTP */
        key_write_own(c, d, secret);
    else
        write_key(c, d, secret);
    store_read_end(&c->l->store);
}

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

static bool options(struct call *c, struct key_draft *d) {
    struct slice name;
    enum arg got = call_text(c, "name", STORE_NAME * 4, &name);
    if (got == ARG_OK)
        d->name = name;
    return got != ARG_BAD && models_option(c, d) && limit_option(c, d) && expires_option(c, d) &&
           count_option(c, "rpm", &d->row.rpm) && count_option(c, "tpm", &d->row.tpm) &&
           count_option(c, "concurrency", &d->row.concurrency);
}

/* ---- making keys ------------------------------------------------------------------------------------------------- */

static enum store_err write_one(struct store *s, const struct key_draft *d) {
    struct row_spent none = { 0 };
    struct id_key key = key32(d->id), owned = owned_key(d->row.account_id, d->id);
    enum store_err err = draft_put(s, d, true);
    if (err == STORE_OK)
        err = store_put(s, DB_KEYHASH, slice_of((const char *)d->row.hash, 32), ROW_SLICE(d->id));
    if (err == STORE_OK)
        err = store_append(s, DB_SPENT, ID_SLICE(key), ROW_SLICE(none));
    return err == STORE_OK ? store_put(s, DB_OWNED, ID_SLICE(owned), SLICE("")) : err;
}

struct batch { struct ledger *l; struct key_draft *drafts; size_t count; };
static enum store_err write_new(struct store *s, void *arg) {
    struct batch *b = arg;
    enum store_err err = STORE_OK;
    for (size_t i = 0; i < b->count && err == STORE_OK; i++)
        err = write_one(s, &b->drafts[i]);
    return err;
}

static void give_back_places(struct ledger *l, struct key_draft *drafts, size_t n) {
    for (size_t i = 0; i < n; i++)
        ledger_key_forget(l, drafts[i].index);
}

static void activate(struct ledger *l, const struct key_draft *d) {
    struct key_mem *k = &l->keys[d->index];
    *k = (struct key_mem){
        .id = d->id, .account = d->shape.account, .status = KEY_ACTIVE, .capped = d->row.capped, .limit = d->row.limit,
        .models_len = (uint32_t)d->models.len
    };
    l->accounts[k->account].active_keys++;
    l->accounts[k->account].models_bytes += k->models_len;
    atomic_store(&l->shm->key_words[d->index].available,
                 d->row.capped ? d->row.limit : 0);      /* nobody knows the key yet */
    CHECK(shm_key_publish(l->shm, d->index, &d->shape)); /* the hash index has room for all places */
}

/* A place for the key; false: refused, and none is taken. */
static bool take_place(struct call *c, uint32_t account, struct key_draft *d, uint32_t id) {
    struct ledger *l = c->l;
    d->id = id;
    d->index = ledger_key_place(l, id);
    if (d->index != NO_INDEX && ledger_key_shape(l, &d->row, d->models, id, account, &d->shape))
        return true;
    call_refuse(c, "table_full",
                d->index == NO_INDEX ? "there is no room for more keys: raise max_keys"
                                     : "there is no room for more lists of models: raise max_keys");
    if (d->index != NO_INDEX)
        ledger_key_forget(l, d->index);
    return false;
}

/* All of them in one transaction, or none. */
static bool create_keys(struct call *c, uint32_t account, struct key_draft *drafts, size_t n) {
    struct ledger *l = c->l;
    for (size_t i = 0; i < n; i++)
        if (!take_place(c, account, &drafts[i], l->next_key_id + (uint32_t)i)) {
            give_back_places(l, drafts, i);
            return false;
        }
    struct batch b = { l, drafts, n };
    enum store_err err = store_write(&l->store, write_new, &b);
    if (err != STORE_OK) {
        give_back_places(l, drafts, n);
        call_store_failed(c, err);
        return false;
    }
    l->next_key_id += (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        activate(l, &drafts[i]);
    atomic_fetch_add(&l->shm->header->credits_epoch, 1);
    return true;
}

static void draft_new(struct ledger *l, uint32_t account, struct slice key, struct slice name, struct key_draft *d) {
    *d = (struct key_draft){ .name = name };
    d->row = (struct row_key){ .account_id = l->accounts[account].id,
                               .status = KEY_ACTIVE,
                               .created_at_s = ledger_wall_ms() / 1000,
                               .rpm = LIMIT_OF_TIER,
                               .tpm = LIMIT_OF_TIER,
                               .concurrency = LIMIT_OF_TIER };
    hmac_sign(&l->pepper, key.ptr, key.len, d->row.hash);
    key_shown(key, snap_text(l->conf, l->conf->key_prefix), &d->shown, &d->last);
}

static bool new_key_text(struct call *c, struct slice *out) {
    struct slice prefix = snap_text(c->l->conf, c->l->conf->key_prefix);
    uint8_t random[KEY_RANDOM * 2];
    char *text = arena_alloc(c->arena, prefix.len + KEY_RANDOM);
    if (!text)
        return false;
    if (prefix.len)
        memcpy(text, prefix.ptr, prefix.len);
    do
        if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
            return false;
    while (!alnum_from_random(text + prefix.len, KEY_RANDOM, random, sizeof random));
    wipe(random, sizeof random);
    *out = slice_of(text, prefix.len + KEY_RANDOM);
    return true;
}

bool key_first_begin(struct call *c, uint32_t account, struct key_draft *d, struct slice *secret) {
    if (!new_key_text(c, secret)) {
        call_refuse(c, "internal", "no random bytes are to be had");
        return false;
    }
    draft_new(c->l, account, *secret, SLICE("default"), d);
    return take_place(c, account, d, c->l->next_key_id);
}

enum store_err key_first_write(struct store *s, struct ledger *l, struct key_draft *d) {
    (void)l;
    return write_one(s, d);
}

void key_first_done(struct ledger *l, struct key_draft *d) {
    l->next_key_id++;
    activate(l, d);
    atomic_fetch_add(&l->shm->header->credits_epoch, 1);
}

void key_first_undo(struct ledger *l, struct key_draft *d) { ledger_key_forget(l, d->index); }

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
    if (account == NO_INDEX)
        return;
    if (!new_key_text(c, &secret)) {
        call_refuse(c, "internal", "no random bytes are to be had");
        return;
    }
    struct key_draft d;
    draft_new(c->l, account, secret, SLICE("default"), &d);
    if (options(c, &d) && own_models_fit(c, account, &d) && create_keys(c, account, &d, 1))
        show(c, &d, secret);
    wipe((char *)(uintptr_t)secret.ptr, secret.len);
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
            draft_new(l, account, key, SLICE("imported"), &drafts[n++]);
    }
    n = drop_known(l, drafts, n);
    store_read_end(&l->store);
    if (n == 0 || create_keys(c, account, drafts, n)) {
        jw_object(c->w);
        jw_key(c->w, "imported");
        jw_u64(c->w, n);
        jw_key(c->w, "skipped");
        jw_u64(c->w, given - n);
        jw_end_object(c->w);
    }
    free(drafts);
}

/* ---- changing ---------------------------------------------------------------------------------------------------- */

static enum store_err write_old(struct store *s, void *arg) { return draft_put(s, arg, false); }

/* Commits d and publishes it; the key's own word follows a limit that came, went or changed (recover.h tells the
 * order). */
static void change(struct call *c, struct key_draft *d) {
    struct ledger *l = c->l;
    struct key_mem was = { 0 }, *k = d->index == NO_INDEX ? NULL : &l->keys[d->index];
    if (k) {
        was = *k;
        if (!ledger_key_shape(l, &d->row, d->models, d->id, k->account, &d->shape)) {
            call_refuse(c, "table_full", "there is no room for more lists of models: raise max_keys");
            return;
        }
        recover_name(l->shm, k->account, d->index);
    }
    enum store_err err = store_write(&l->store, write_old, d);
    if (err != STORE_OK) {
        recover_unname(l->shm);
        call_store_failed(c, err);
        return;
    }
    if (!k)
        return;
    k->status = d->row.status;
    k->revoked_at_s = d->row.revoked_at_s;
    k->capped = d->row.capped;
    k->limit = d->row.limit;
    k->models_len = (uint32_t)d->models.len;
    l->accounts[k->account].models_bytes += (k->status == KEY_ACTIVE ? k->models_len : 0) -
                                            (was.status == KEY_ACTIVE ? was.models_len : 0);
    if (was.status == KEY_ACTIVE && k->status != KEY_ACTIVE)
        l->accounts[k->account].active_keys--;
    if (k->capped && !was.capped) {
        if (recover_cap_key(l->shm, &l->truth, &l->recover, d->index, &d->shape) < 0)
            call_refuse(c, "unavailable", "the ledger is stopping; the limit counts when it runs again");
    } else {
        if (k->capped && k->limit != was.limit)
            recover_key_add(l->shm, d->index, (int64_t)((uint64_t)k->limit - (uint64_t)was.limit));
        CHECK(shm_key_publish(l->shm, d->index, &d->shape));
    }
    recover_unname(l->shm);
    atomic_fetch_add(&l->shm->header->credits_epoch, 1);
}

void call_key_set(struct call *c) {
    struct key_draft d;
    uint32_t id, index;
    if (!call_key(c, "key", &id, &index) || !key_draft_load(c, id, &d) || !options(c, &d))
        return;
    change(c, &d);
    if (!c->refused)
        show(c, &d, SLICE_NONE);
}

void key_put_revoked(struct call *c, struct key_draft *d) {
    if (d->row.status == KEY_REVOKED)
        return;
    d->row.status = KEY_REVOKED;
    d->row.revoked_at_s = ledger_wall_ms() / 1000;
    change(c, d);
}

void call_key_revoke(struct call *c) {
    struct key_draft d;
    uint32_t id, index;
    if (!call_key(c, "key", &id, &index) || !key_draft_load(c, id, &d))
        return;
    key_put_revoked(c, &d);
    if (!c->refused)
        show(c, &d, SLICE_NONE);
}

void call_key_show(struct call *c) {
    struct key_draft d;
    uint32_t id, index;
    if (call_key(c, "key", &id, &index) && key_draft_load(c, id, &d))
        show(c, &d, SLICE_NONE);
}

/* One key of a list; false: it is another account's. Within a read. */
static bool list_one(struct call *c, uint32_t id, uint32_t account_id) {
    struct ledger *l = c->l;
    struct key_draft d = { .id = id, .index = ledger_key_index(l, id) };
    struct id_key key = key32(id);
    struct slice v;
    if (d.index != NO_INDEX && account_id && l->accounts[l->keys[d.index].account].id != account_id)
        return false;
    if (store_get(&l->store, DB_KEY, ID_SLICE(key), &v) != STORE_OK || !draft_read(v, &d))
        return false;
    if (account_id && d.row.account_id != account_id)
        return false;
    write_key(c, &d, SLICE_NONE);
    return true;
}

/* Pages: "limit" (5000) keys with ids above "cursor". */
void call_key_list(struct call *c) {
    struct ledger *l = c->l;
    uint64_t limit = LIST_PAGE, after = 0, n = 0;
    uint32_t account = NO_INDEX;
    if (json_get(&c->json, 0, "account") >= 0 && (account = call_account(c, "account")) == NO_INDEX)
        return;
    if (call_count(c, "limit", &limit) == ARG_BAD || call_count(c, "cursor", &after) == ARG_BAD)
        return;
    if (limit == 0 || limit > LIST_PAGE)
        limit = LIST_PAGE;
    enum store_err err = store_read_begin(&l->store);
    if (err != STORE_OK) {
        call_store_failed(c, err);
        return;
    }
    jw_object(c->w);
    jw_key(c->w, "keys");
    jw_array(c->w);
    uint64_t id = after + 1;
    for (; id < l->next_key_id && n < limit; id++)
        n += list_one(c, (uint32_t)id, account == NO_INDEX ? 0 : l->accounts[account].id);
    store_read_end(&l->store);
    jw_end_array(c->w);
    jw_key(c->w, "next_cursor");
    if (id < l->next_key_id)
        jw_u64(c->w, id - 1);
    else
        jw_null(c->w);
    jw_end_object(c->w);
}

/* What stands in DB_OWNED behind `after`. One more than asked for tells whether there is a next page. */
void key_list_own(struct call *c, uint32_t account_id, uint32_t after, uint32_t limit) {
    struct ledger *l = c->l;
    struct store_cursor cur;
    uint32_t n = 0, last = after;
    bool more = false;
    enum store_err err = store_read_begin(&l->store);
    if (err != STORE_OK) {
        call_store_failed(c, err);
        return;
    }
    struct id_key from = owned_key(account_id, after + 1);
    jw_object(c->w);
    jw_key(c->w, "keys");
    jw_array(c->w);
    err = store_cursor_open(&l->store, DB_OWNED, &cur);
    for (err = err == STORE_OK ? store_seek(&cur, ID_SLICE(from)) : err; err == STORE_OK; err = store_next(&cur)) {
        struct slice v;
        if (cur.key.len != from.len || be32_get(cur.key.ptr) != account_id)
            break;
        if ((more = n == limit))
            break;
        struct key_draft d = { .id = be32_get(cur.key.ptr + 4) };
        struct id_key key = key32(d.id);
        d.index = ledger_key_index(l, d.id);
        if (store_get(&l->store, DB_KEY, ID_SLICE(key), &v) == STORE_OK && draft_read(v, &d) &&
            d.row.account_id == account_id)
            key_write_own(c, &d, SLICE_NONE);
        last = d.id;
        n++;
    }
    store_cursor_close(&cur);
    store_read_end(&l->store);
    jw_end_array(c->w);
    if (more) {
        char text[ID_TEXT];
        id_write(text, ID_KEY, last);
        jw_key(c->w, "next_cursor");
        jw_cstr(c->w, text);
    }
    jw_end_object(c->w);
}
