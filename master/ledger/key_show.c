/* How a key looks: to an operator, to its owner; and the lists of both. */
#include "master/ledger/key.h"

static void write_limit(struct call *c, const char *name, uint64_t v) {
    jw_key(c->w, name);
    if (v == LIMIT_OF_TIER)
        jw_null(c->w);
    else
        jw_u64(c->w, v);
}

static void write_time(struct call *c, const char *name, int64_t at_s) {
    jw_key(c->w, name);
    if (at_s)
        jw_time(c->w, at_s * 1000, false);
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
    int64_t spent, used_s;
    read_spent(c->l, d, &spent, &used_s);
    jw_object(c->w);
    jw_key(c->w, "id");
    jw_id(c->w, ID_KEY, d->id);
    jw_key(c->w, "account");
    jw_id(c->w, ID_ACCOUNT, d->row.account_id);
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

/* What its owner sees: masked where there is no secret. Within a read. */
static void write_own(struct call *c, const struct key_draft *d, struct slice secret) {
    int places = ledger_places(c->l);
    int64_t spent, used_s;
    read_spent(c->l, d, &spent, &used_s);
    jw_object(c->w);
    jw_key(c->w, "id");
    jw_id(c->w, ID_KEY, d->id);
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

void key_answer(struct call *c, const struct key_draft *d, struct slice secret) {
    if (!call_read(c))
        return;
    if (c->numbers) /* its owner asked, over HTTP */
        write_own(c, d, secret);
    else
        write_key(c, d, secret);
    store_read_end(&c->l->store);
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

/* One key of a list, of this account alone where *arg is not 0. */
static bool list_one(struct call *c, uint32_t id, void *arg) {
    struct ledger *l = c->l;
    uint32_t account_id = *(const uint32_t *)arg;
    struct key_draft d = { .id = id, .index = ledger_key_index(l, id) };
    struct id_key key = key32(id);
    struct slice v;
    if (d.index != NO_INDEX && account_id && l->accounts[l->keys[d.index].account].id != account_id)
        return false;
    if (store_get(&l->store, DB_KEY, ID_SLICE(key), &v) != STORE_OK || !key_draft_read(v, &d))
        return false;
    if (account_id && d.row.account_id != account_id)
        return false;
    write_key(c, &d, SLICE_NONE);
    return true;
}

void call_key_list(struct call *c) {
    uint32_t account_id = 0;
    if (json_get(&c->json, 0, "account") >= 0) {
        uint32_t account = call_account(c, "account");
        if (account == NO_INDEX)
            return;
        account_id = c->l->accounts[account].id;
    }
    call_page(c, "keys", c->l->next_key_id, list_one, &account_id);
}

/* One of its owner's list. Within a read. */
static void list_own(struct call *c, uint32_t id, uint32_t account_id) {
    struct key_draft d = { .id = id, .index = ledger_key_index(c->l, id) };
    struct id_key key = key32(id);
    struct slice v;
    if (store_get(&c->l->store, DB_KEY, ID_SLICE(key), &v) == STORE_OK && key_draft_read(v, &d) &&
        d.row.account_id == account_id)
        write_own(c, &d, SLICE_NONE);
}

/* What stands in DB_OWNED behind `after`. One more than asked for tells whether there is a next page. */
void key_list_own(struct call *c, uint32_t account_id, uint32_t after, uint32_t limit) {
    struct store_cursor cur;
    uint32_t n = 0, last = after;
    bool more = false;
    if (!call_read(c))
        return;
    struct id_key from = owned_key(account_id, after + 1);
    jw_object(c->w);
    jw_key(c->w, "keys");
    jw_array(c->w);
    enum store_err err = store_cursor_open(&c->l->store, DB_OWNED, &cur);
    for (err = err == STORE_OK ? store_seek(&cur, ID_SLICE(from)) : err; err == STORE_OK; err = store_next(&cur)) {
        if (cur.key.len != from.len || be32_get(cur.key.ptr) != account_id || (more = n == limit))
            break;
        last = be32_get(cur.key.ptr + 4);
        list_own(c, last, account_id);
        n++;
    }
    store_cursor_close(&cur);
    store_read_end(&c->l->store);
    jw_end_array(c->w);
    if (more) {
        jw_key(c->w, "next_cursor");
        jw_id(c->w, ID_KEY, last);
    }
    jw_end_object(c->w);
}
