/* See key.h.
 *
 * A key's text exists in the answer to its creation and nowhere else: the database has its HMAC, its beginning and
 * its last characters. A change is committed, published, then answered: from the next request on no worker takes a key
 * that was revoked. */
#include "master/ledger/key.h"

#include <sys/random.h>
#include "master/ledger/text.h"

enum { KEY_RANDOM = 32 };

/* ---- its row ----------------------------------------------------------------------------------------------------- */

bool key_draft_read(struct slice value, struct key_draft *d) {
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
            err = v.ptr && key_draft_read(v, d) ? STORE_OK : STORE_BROKEN;
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

/* ---- its entry in the shared table ------------------------------------------------------------------------------- */

bool ledger_key_shape(struct ledger *l, const struct row_key *row, struct slice models, uint32_t id, uint32_t account,
                      struct shm_key *out) {
    *out = (struct shm_key){ .status = row->status,
                             .id = id,
                             .account = account,
                             .expires_at_s = row->expires_at_s,
                             .rpm = row->rpm,
                             .tpm = row->tpm,
                             .concurrency = row->concurrency,
                             .capped = row->capped };
    memcpy(out->hash, row->hash, 32);
    /* a revoked key is refused before anyone asks for its list */
    return models.len == 0 || row->status != KEY_ACTIVE || (out->models = models_place(l, models)) != 0;
}

/* ---- making keys ------------------------------------------------------------------------------------------------- */

void key_draft_new(struct ledger *l, uint32_t account, struct slice key, struct slice name, struct key_draft *d) {
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

bool key_text_new(struct call *c, struct slice *out) {
    struct slice prefix = snap_text(c->l->conf, c->l->conf->key_prefix);
    uint8_t random[KEY_RANDOM * 2];
    char *text = arena_alloc(c->arena, prefix.len + KEY_RANDOM);
    if (text && prefix.len)
        memcpy(text, prefix.ptr, prefix.len);
    do
        if (!text || getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
            call_refuse(c, "internal", "no random bytes are to be had");
            return false;
        }
    while (!alnum_from_random(text + prefix.len, KEY_RANDOM, random, sizeof random));
    wipe(random, sizeof random);
    *out = slice_of(text, prefix.len + KEY_RANDOM);
    return true;
}

static enum store_err write_new(struct store *s, const struct key_draft *d) {
    struct row_spent none = { 0 };
    struct id_key key = key32(d->id), owned = owned_key(d->row.account_id, d->id);
    enum store_err err = draft_put(s, d, true);
    if (err == STORE_OK)
        err = store_put(s, DB_KEYHASH, slice_of((const char *)d->row.hash, 32), ROW_SLICE(d->id));
    if (err == STORE_OK)
        err = store_append(s, DB_SPENT, ID_SLICE(key), ROW_SLICE(none));
    return err == STORE_OK ? store_put(s, DB_OWNED, ID_SLICE(owned), SLICE("")) : err;
}

struct batch { const struct key_draft *drafts; size_t count; };
static enum store_err write_batch(struct store *s, void *arg) {
    const struct batch *b = arg;
    enum store_err err = STORE_OK;
    for (size_t i = 0; i < b->count && err == STORE_OK; i++)
        err = write_new(s, &b->drafts[i]);
    return err;
}

static void give_back_places(struct ledger *l, const struct key_draft *drafts, size_t n) {
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

bool key_create(struct call *c, uint32_t account, struct key_draft *drafts, size_t n) {
    struct ledger *l = c->l;
    for (size_t i = 0; i < n; i++)
        if (!take_place(c, account, &drafts[i], l->next_key_id + (uint32_t)i)) {
            give_back_places(l, drafts, i);
            return false;
        }
    struct batch b = { drafts, n };
    enum store_err err = store_write(&l->store, write_batch, &b);
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

bool key_first_begin(struct call *c, uint32_t account, struct key_draft *d, struct slice *secret) {
    if (!key_text_new(c, secret))
        return false;
    key_draft_new(c->l, account, *secret, SLICE("default"), d);
    return take_place(c, account, d, c->l->next_key_id);
}

enum store_err key_first_write(struct store *s, const struct key_draft *d) { return write_new(s, d); }

void key_first_done(struct ledger *l, const struct key_draft *d) {
    l->next_key_id++;
    activate(l, d);
    atomic_fetch_add(&l->shm->header->credits_epoch, 1);
}

void key_first_undo(struct ledger *l, const struct key_draft *d) { ledger_key_forget(l, d->index); }

/* ---- changing ---------------------------------------------------------------------------------------------------- */

static enum store_err write_old(struct store *s, void *arg) { return draft_put(s, arg, false); }

void key_change(struct call *c, struct key_draft *d) {
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

void key_revoke(struct call *c, struct key_draft *d) {
    if (d->row.status == KEY_REVOKED)
        return;
    d->row.status = KEY_REVOKED;
    d->row.revoked_at_s = ledger_wall_ms() / 1000;
    key_change(c, d);
}
