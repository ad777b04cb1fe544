/* Database → mirrors → shared tables, at every start.
 *
 * A place in a table (index) is good for the life of a segment: slots and rings name accounts and keys by it. So what
 * the segment's tables hold already keeps its place, and only the rest is given free ones. Every entry is published
 * again all the same (a predecessor may have died while it wrote one), where it differs. Revoked keys take places
 * after the active ones, the latest revoked first. Failures are sentences: a table too small for what is in the
 * database, a segment that belongs to another ledger. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include "master/ledger_int.h"

/* ---- meta and names ---------------------------------------------------------------------------------------------- */

static bool meta_get(struct store *s, const char *name, void *out, size_t n) {
    struct slice v;
    if (store_get(s, DB_META, slice_str(name), &v) != STORE_OK || v.len != n)
        return false;
    memcpy(out, v.ptr, n);
    return true;
}

static enum store_err write_first_meta(struct store *s, void *arg) {
    const struct ledger *l = arg;
    uint32_t format = STORE_FORMAT;
    uint64_t applied = 1, id = 0;
    if (getrandom(&id, sizeof id, 0) != (ssize_t)sizeof id || id == 0)
        id = (uint64_t)ledger_wall_ms();
    enum store_err err = store_put(s, DB_META, SLICE("format"), ROW_SLICE(format));
    if (err == STORE_OK)
        err = store_put(s, DB_META, SLICE("ledger_id"), ROW_SLICE(id));
    if (err == STORE_OK)
        err = store_put(s, DB_META, SLICE("applied"), ROW_SLICE(applied));
    if (err == STORE_OK)
        err = store_put(s, DB_META, SLICE("pepper"), slice_of((const char *)l->heritage->pepper, 32));
    return err;
}

static uint64_t last_key(struct store *s, enum store_db db) {
    struct store_cursor c;
    uint64_t id = 0;
    if (store_cursor_open(s, db, &c) == STORE_OK && store_last(&c) == STORE_OK)
        id = c.key.len == 8 ? be64_get(c.key.ptr) : be32_get(c.key.ptr);
    store_cursor_close(&c);
    return id;
}

static bool name_remember(struct ledger *l, unsigned kind, uint32_t id, struct slice name) {
    if (kind >= NAME_KINDS || id > 1 << 24)
        return false;
    if (id > l->name_count[kind] || !l->names[kind]) {
        char **grown = realloc(l->names[kind], (id + 1ul) * sizeof *grown);
        if (!grown)
            return false;
        for (uint32_t i = l->names[kind] ? l->name_count[kind] + 1 : 0; i <= id; i++)
            grown[i] = NULL;
        l->names[kind] = grown;
        l->name_count[kind] = id;
    }
    free(l->names[kind][id]);
    l->names[kind][id] = strndup(name.ptr, name.len);
    return l->names[kind][id] != NULL;
}

static bool load_names(struct ledger *l) {
    struct store_cursor c;
    bool ok = store_cursor_open(&l->store, DB_NAME, &c) == STORE_OK;
    for (enum store_err err = ok ? store_first(&c) : STORE_NONE; err == STORE_OK && ok; err = store_next(&c)) {
        uint32_t id;
        ok = c.key.len > 1 && row_read(c.value, &id, sizeof id, NULL) &&
             name_remember(l, (uint8_t)c.key.ptr[0], id, slice_from(c.key, 1));
    }
    store_cursor_close(&c);
    return ok;
}

const char *ledger_name(const struct ledger *l, unsigned kind, uint32_t id) {
    return id > 0 && id <= l->name_count[kind] && l->names[kind] && l->names[kind][id] ? l->names[kind][id] : "";
}

uint32_t ledger_name_id(struct ledger *l, unsigned kind, struct slice name) {
    for (uint32_t id = 1; id <= l->name_count[kind]; id++)
        if (l->names[kind][id] && slice_is(name, l->names[kind][id]))
            return id;
    return 0;
}

struct intern { struct ledger *l; unsigned kind; struct slice name; uint32_t id; };
static enum store_err write_name(struct store *s, void *arg) {
    struct intern *in = arg;
    char key[1 + 512];
    key[0] = (char)in->kind;
    memcpy(key + 1, in->name.ptr, in->name.len);
    return store_put(s, DB_NAME, slice_of(key, in->name.len + 1), ROW_SLICE(in->id));
}

/* {"names":[{"kind","name"}…]} → {"ids":[…]}: permanent numbers, one series a kind, from 1. A kind is its name or its
 * number. */
static bool intern_one(struct call *c, int t, uint32_t *id) {
    static const char *const kinds[NAME_KINDS] = { "model", "upstream", "tier", "group" };
    struct ledger *l = c->l;
    struct intern in = { .l = l, .kind = NAME_KINDS };
    int kind = json_get(&c->json, t, "kind");
    uint64_t number;
    if (json_u64(&c->json, kind, &number) && number < NAME_KINDS)
        in.kind = (unsigned)number;
    for (unsigned i = 0; i < NAME_KINDS && kind >= 0; i++)
        if (json_str_is(&c->json, kind, kinds[i]))
            in.kind = i;
    in.name = json_str(&c->json, json_get(&c->json, t, "name"), c->arena);
    if (in.kind == NAME_KINDS || !in.name.ptr || in.name.len == 0 || in.name.len > 500) {
        call_refuse(c, "invalid_value",
                    "names: each needs a kind (model, upstream, tier, group) and a name of 1 to 500 bytes");
        return false;
    }
    *id = ledger_name_id(l, in.kind, in.name);
    if (*id)
        return true;
    in.id = *id = l->name_count[in.kind] + 1;
    enum store_err err = store_write(&l->store, write_name, &in);
    if (err != STORE_OK) {
        call_store_failed(c, err);
        return false;
    }
    CHECK(name_remember(l, in.kind, in.id, in.name));
    return true;
}

void call_names_intern(struct call *c) {
    int names = json_get(&c->json, 0, "names");
    if (!json_is(&c->json, names, JSON_ARRAY)) {
        call_refuse(c, "missing_field", "names is missing");
        return;
    }
    jw_object(c->w);
    jw_key(c->w, "ids");
    jw_array(c->w);
    for (int t = json_first(&c->json, names); t >= 0; t = json_next(&c->json, names, t)) {
        uint32_t id;
        if (!intern_one(c, t, &id))
            return;
        jw_u64(c->w, id);
    }
    jw_end_array(c->w);
    jw_end_object(c->w);
}

static bool check_meta(struct ledger *l, char *err, size_t err_len) {
    uint32_t format = 0;
    uint8_t pepper[32];
    struct store *s = &l->store;
    if (!meta_get(s, "format", &format, sizeof format) || format != STORE_FORMAT) {
        snprintf(err, err_len, "the database has format %u, this program knows %u", format, (unsigned)STORE_FORMAT);
        return false;
    }
    bool same = meta_get(s, "pepper", pepper, sizeof pepper) &&
                slice_eq_secret(slice_of((char *)pepper, 32), slice_of((const char *)l->heritage->pepper, 32));
    wipe(pepper, sizeof pepper);
    if (!same) {
        snprintf(
            err, err_len,
            "state_dir/pepper does not belong to this database: no key would be known. Remove the file, and it is made "
            "again from the database");
        return false;
    }
    l->applied = 1;
    (void)meta_get(s, "ledger_id", &l->ledger_id, sizeof l->ledger_id);
    (void)meta_get(s, "applied", &l->applied, sizeof l->applied);
    (void)meta_get(s, "late_ms", &l->late_ms, sizeof l->late_ms);
    l->next_account_id = (uint32_t)last_key(s, DB_ACCOUNT) + 1;
    l->next_key_id = (uint32_t)last_key(s, DB_KEY) + 1;
    l->next_entry = last_key(s, DB_ENTRY) + 1;
    l->next_quarantine = last_key(s, DB_QUARANTINE) + 1;
    l->count.quarantined = l->next_quarantine - 1;
    struct usage_reader r;
    l->next_usage = 1;
    if (usage_open(&r, s) == STORE_OK) {
        l->next_usage = usage_last_id(&r) + 1;
        l->last_committed_ms = r.open ? r.block.committed_ms : 0;
    }
    usage_close(&r);
    if (l->applied > l->next_usage || !load_names(l)) {
        snprintf(err, err_len, "the database is damaged (%s): restore a backup",
                 l->applied > l->next_usage ? "usage records are missing" : "names");
        return false;
    }
    return true;
}

enum store_err ledger_load_meta(struct ledger *l, char *err, size_t err_len) {
    enum store_err e = store_read_begin(&l->store);
    if (e != STORE_OK) {
        snprintf(err, err_len, "%s", l->store.message);
        return e;
    }
    uint64_t any = store_count(&l->store, DB_META);
    store_read_end(&l->store);
    if (any == 0)
        e = store_write(&l->store, write_first_meta, l);
    if (e == STORE_OK)
        e = store_read_begin(&l->store);
    if (e != STORE_OK) {
        snprintf(err, err_len, "%s", l->store.message);
        return e;
    }
    bool ok = check_meta(l, err, err_len);
    store_read_end(&l->store);
    return ok ? STORE_OK : STORE_NONE;
}

/* ---- places ------------------------------------------------------------------------------------------------------ */

uint32_t ledger_account_index(const struct ledger *l, uint32_t id) {
    return id < l->account_of_size ? l->account_of[id] : NO_INDEX;
}
uint32_t ledger_key_index(const struct ledger *l, uint32_t id) {
    return id < l->key_of_size ? l->key_of[id] : NO_INDEX;
}

static bool map_id(uint32_t **map, uint32_t *size, uint32_t id, uint32_t index) {
    if (id >= *size) {
        uint32_t n = id + id / 2 + 1024;
        uint32_t *grown = realloc(*map, n * sizeof *grown);
        if (!grown)
            return false;
        memset(grown + *size, 0xff, (n - *size) * sizeof *grown);
        *map = grown;
        *size = n;
    }
    (*map)[id] = index;
    return true;
}

static bool place_account(struct ledger *l, uint32_t id, uint32_t index) {
    if (!map_id(&l->account_of, &l->account_of_size, id, index))
        return false;
    l->accounts[index].id = id;
    l->account_count++;
    return true;
}
static bool place_key(struct ledger *l, uint32_t id, uint32_t index) {
    if (!map_id(&l->key_of, &l->key_of_size, id, index))
        return false;
    l->keys[index].id = id;
    l->key_count++;
    return true;
}

uint32_t ledger_account_place(struct ledger *l, uint32_t id) {
    uint32_t max = l->shm->header->max_accounts;
    while (l->next_account_place < max && l->accounts[l->next_account_place].id)
        l->next_account_place++;
    uint32_t index = l->next_account_place;
    if (index >= max || !place_account(l, id, index))
        return NO_INDEX;
    atomic_store(&l->shm->account_words[index].available, 0);
    return index;
}

/* Keys whose places slots or uncommitted records name: they must stay. */
static uint8_t *keys_in_use(const struct ledger *l) {
    const struct shm *s = l->shm;
    uint8_t *used = calloc(s->header->max_keys, 1);
    if (!used)
        return NULL;
    for (uint32_t i = 0; i < s->header->max_ranges; i++) {
        for (uint32_t j = 0; j < s->header->max_active; j++) {
            const struct shm_slot *slot = shm_slot(s, i, j);
            uint32_t key = slot->usage.key;
            if (atomic_load(&((struct shm_slot *)(uintptr_t)slot)->state) != SLOT_FREE && key < s->header->max_keys)
                used[key] = 1;
        }
        uint64_t head = atomic_load(&s->ranges[i].head);
        for (uint64_t q = l->watermark[i]; q < head && q - l->watermark[i] < s->header->ring_size; q++)
            if (shm_ring(s, i, q)->usage.key < s->header->max_keys)
                used[shm_ring(s, i, q)->usage.key] = 1;
    }
    return used;
}

/* The table is full: the key that was revoked longest ago, at least an hour, makes room; from then on it is an unknown
 * key. */
static void evict_revoked(struct ledger *l) {
    int64_t before_s = ledger_wall_ms() / 1000 - 3600;
    if (l->checkpoint_ns &&
        checkpoint_commit(l) != STORE_OK) /* its row in the database must be whole before the mirror forgets it */
        return;
    uint8_t *used = keys_in_use(l);
    uint32_t found = NO_INDEX;
    for (uint32_t i = 0; used && i < l->shm->header->max_keys; i++) {
        const struct key_mem *k = &l->keys[i];
        if (k->id && k->status == KEY_REVOKED && k->revoked_at_s <= before_s && !used[i] &&
            (found == NO_INDEX || k->revoked_at_s < l->keys[found].revoked_at_s))
            found = i;
    }
    free(used);
    if (found != NO_INDEX)
        ledger_key_forget(l, found);
}

void ledger_key_forget(struct ledger *l, uint32_t index) {
    CHECK(l->keys[index].id && !l->keys[index].dirty);
    struct account_mem *a = &l->accounts[l->keys[index].account];
    for (uint32_t i = 0; a->caps > 0 && i <= l->shm->cap_mask; i++)
        if (l->shm->caps[i].model_id && l->shm->caps[i].who == (index | SHM_CAP_KEY)) {
            shm_cap_publish(l->shm, index | SHM_CAP_KEY, l->shm->caps[i].model_id, -1);
            a->caps--;
        }
    shm_key_remove(l->shm, index);
    l->key_of[l->keys[index].id] = NO_INDEX;
    l->keys[index] = (struct key_mem){ 0 };
    l->key_count--;
    l->free_keys[l->free_key_count++] = index;
}

uint32_t ledger_key_place(struct ledger *l, uint32_t id) {
    if (l->free_key_count == 0)
        evict_revoked(l);
    if (l->free_key_count == 0)
        return NO_INDEX;
    uint32_t index = l->free_keys[--l->free_key_count];
    if (!place_key(l, id, index)) {
        l->free_keys[l->free_key_count++] = index;
        return NO_INDEX;
    }
    struct shm_key_words *w = &l->shm->key_words[index];
    atomic_store(&w->available, 0);
    atomic_store(&w->concurrency, 0);
    atomic_store(&w->rpm_tat, 0);
    atomic_store(&w->tpm_tat, 0);
    atomic_store(&w->images_tat, 0);
    atomic_store(&w->last_used_s, 0);
    return index;
}

/* ---- publishing -------------------------------------------------------------------------------------------------- */

void ledger_account_publish(struct ledger *l, uint32_t index) {
    const struct account_mem *a = &l->accounts[index];
    struct shm_account want = { .status = a->status,
                                .id = a->id,
                                .tier_id = a->tier_id,
                                .group_id = a->group_id,
                                .has_caps = a->caps > 0 },
                       is;
    if (shm_account_read(l->shm, index, &is) && is.status == want.status && is.id == want.id &&
        is.tier_id == want.tier_id && is.group_id == want.group_id && is.has_caps == want.has_caps)
        return;
    shm_account_publish(l->shm, index, &want);
    atomic_fetch_add(&l->shm->header->credits_epoch, 1);
}

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

static bool same_key(const struct shm_key *a, const struct shm_key *b) {
    return memcmp((const char *)a + sizeof a->version, (const char *)b + sizeof b->version,
                  sizeof *a - sizeof a->version) == 0;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

/* Gives the places that the segment's tables name to accounts and keys that exist; the rest of the tables is cleared.
 */
static bool keep_places(struct ledger *l) {
    const struct shm_header *h = l->shm->header;
    for (uint32_t i = 0; i < h->max_accounts; i++) {
        const struct shm_account *a = &l->shm->accounts[i];
        if (a->id == 0)
            continue;
        if (a->id < l->next_account_id && ledger_account_index(l, a->id) == NO_INDEX) {
            if (!place_account(l, a->id, i))
                return false;
        } else {
            shm_account_publish(l->shm, i, &(struct shm_account){ .status = ACCOUNT_NONE });
        }
    }
    for (uint32_t i = 0; i < h->max_keys; i++) {
        const struct shm_key *k = &l->shm->keys[i];
        if (k->id == 0)
            continue;
        if (k->status != KEY_NONE && k->id < l->next_key_id && ledger_key_index(l, k->id) == NO_INDEX) {
            if (!place_key(l, k->id, i))
                return false;
        } else {
            shm_key_remove(l->shm, i);
        }
    }
    return true;
}

static bool load_accounts(struct ledger *l, char *err, size_t err_len) {
    struct store_cursor c, b;
    bool ok = store_cursor_open(&l->store, DB_ACCOUNT, &c) == STORE_OK;
    ok = store_cursor_open(&l->store, DB_BALANCE, &b) == STORE_OK && ok;
    enum store_err more = ok ? store_first(&c) : STORE_NONE, balance = ok ? store_first(&b) : STORE_NONE;
    for (; ok && more == STORE_OK; more = store_next(&c), balance = store_next(&b)) {
        struct row_account row;
        struct row_balance money;
        ok = balance == STORE_OK && slice_eq(c.key, b.key) && row_read(c.value, &row, sizeof row, NULL) &&
             row_read(b.value, &money, sizeof money, NULL);
        if (!ok) {
            snprintf(err, err_len, "the database is damaged (accounts and balances differ): restore a backup");
            break;
        }
        uint32_t id = be32_get(c.key.ptr), index = ledger_account_index(l, id);
        if (index == NO_INDEX)
            index = ledger_account_place(l, id);
        if (index == NO_INDEX) {
            ok = false;
            snprintf(err, err_len, "there are more accounts than max_accounts (%u): raise it",
                     l->shm->header->max_accounts);
            break;
        }
        struct account_mem *a = &l->accounts[index];
        *a = (struct account_mem){ .id = id, .status = row.status, .tier_id = row.tier_id, .group_id = row.group_id,
                                   .balance = money.balance, .floor = money.floor, .last_usage = money.last_usage,
                                   .last_entry = money.last_entry };
    }
    store_cursor_close(&c);
    store_cursor_close(&b);
    return ok;
}

struct revoked { int64_t at_s; uint32_t id; };
static int later_first(const void *a, const void *b) {
    const struct revoked *x = a, *y = b;
    return x->at_s < y->at_s ? 1 : x->at_s > y->at_s ? -1 : 0;
}

/* Fills a key's mirror and publishes it. 0, or what is wrong. */
static const char *load_key(struct ledger *l, uint32_t id, uint32_t index, struct slice value,
                            struct slice spent_value) {
    struct row_key row;
    struct row_spent spent;
    struct slice text;
    if (!row_read(value, &row, sizeof row, &text) || !row_read(spent_value, &spent, sizeof spent, NULL) ||
        text.len != (size_t)row.name_len + row.models_len + row.shown_len + row.last_len)
        return "the database is damaged (keys): restore a backup";
    uint32_t account = ledger_account_index(l, row.account_id);
    if (account == NO_INDEX)
        return "the database is damaged (a key without account): restore a backup";
    l->keys[index] = (struct key_mem){ .id = id,
                                       .account = account,
                                       .status = row.status,
                                       .capped = row.capped,
                                       .limit = row.limit,
                                       .spent = spent.spent,
                                       .last_usage = spent.last_usage,
                                       .last_used_s = spent.last_used_s,
                                       .revoked_at_s = row.revoked_at_s,
                                       .models_len = row.models_len };
    if (row.status == KEY_ACTIVE) {
        l->accounts[account].active_keys++;
        l->accounts[account].models_bytes += row.models_len;
    }
    struct shm_key want, is;
    if (!ledger_key_shape(l, &row, slice_of(text.ptr + row.name_len, row.models_len), id, account, &want))
        return "the keys' model lists do not fit the shared memory: raise max_keys";
    bool there = shm_key_read(l->shm, index, &is) && same_key(&is, &want);
    uint32_t found;
    if (there && shm_key_find(l->shm, row.hash, &found) && found == index)
        return NULL;
    if (!shm_key_publish(l->shm, index, &want))
        return "the key table is full: raise max_keys";
    return NULL;
}

/* One walk over all keys: active ones and those that have a place; the others are noted for later. */
static const char *load_keys(struct ledger *l, struct revoked **revoked, size_t *count) {
    struct store_cursor c, p;
    const char *wrong = NULL;
    size_t cap = 0;
    bool ok = store_cursor_open(&l->store, DB_KEY, &c) == STORE_OK;
    ok = store_cursor_open(&l->store, DB_SPENT, &p) == STORE_OK && ok;
    enum store_err more = ok ? store_first(&c) : STORE_NONE, spent = ok ? store_first(&p) : STORE_NONE;
    for (; !wrong && more == STORE_OK; more = store_next(&c), spent = store_next(&p)) {
        struct row_key row;
        if (spent != STORE_OK || !slice_eq(c.key, p.key) || !row_read(c.value, &row, sizeof row, NULL)) {
            wrong = "the database is damaged (keys and their spending differ): restore a backup";
            break;
        }
        uint32_t id = be32_get(c.key.ptr), index = ledger_key_index(l, id);
        if (index == NO_INDEX && row.status != KEY_ACTIVE) {
            if (*count == cap) {
                cap = cap ? cap * 2 : 1024;
                struct revoked *grown = realloc(*revoked, cap * sizeof *grown);
                if (!grown)
                    return "out of memory";
                *revoked = grown;
            }
            (*revoked)[(*count)++] = (struct revoked){ row.revoked_at_s, id };
            continue;
        }
        if (index == NO_INDEX && (index = ledger_key_place(l, id)) == NO_INDEX)
            wrong = "there are more keys than max_keys: raise it";
        else
            wrong = load_key(l, id, index, c.value, p.value);
    }
    store_cursor_close(&c);
    store_cursor_close(&p);
    return wrong;
}

static const char *load_revoked(struct ledger *l, struct revoked *revoked, size_t count) {
    const char *wrong = NULL;
    if (count > 1)
        qsort(revoked, count, sizeof *revoked, later_first);
    for (size_t i = 0; i < count && l->free_key_count > 0 && !wrong; i++) {
        struct id_key key = key32(revoked[i].id);
        struct slice row, spent;
        if (store_get(&l->store, DB_KEY, ID_SLICE(key), &row) != STORE_OK ||
            store_get(&l->store, DB_SPENT, ID_SLICE(key), &spent) != STORE_OK)
            return "the database is damaged (keys): restore a backup";
        uint32_t index = ledger_key_place(l, revoked[i].id);
        wrong = index == NO_INDEX ? "out of memory" : load_key(l, revoked[i].id, index, row, spent);
    }
    return wrong;
}

/* Caps in the segment that are not in the database. */
static void remove_stale_caps(struct ledger *l) {
    for (uint32_t i = 0; i <= l->shm->cap_mask; i++) {
        uint32_t who = l->shm->caps[i].who, model = l->shm->caps[i].model_id, index = who & ~SHM_CAP_KEY;
        if (model == 0)
            continue;
        bool of_key = who & SHM_CAP_KEY,
             known = index < (of_key ? l->shm->header->max_keys : l->shm->header->max_accounts);
        struct id_key key = cap_key(of_key, !known ? 0 : of_key ? l->keys[index].id : l->accounts[index].id, model);
        if (store_get(&l->store, DB_CAP, ID_SLICE(key), NULL) != STORE_OK)
            shm_cap_publish(l->shm, who, model, -1);
    }
}

/* Caps: published, and counted for their accounts. */
static const char *load_caps(struct ledger *l) {
    struct store_cursor c;
    const char *wrong = NULL;
    remove_stale_caps(l);
    bool ok = store_cursor_open(&l->store, DB_CAP, &c) == STORE_OK;
    for (enum store_err e = ok ? store_first(&c) : STORE_NONE; e == STORE_OK && !wrong; e = store_next(&c)) {
        int64_t amount;
        if (c.key.len != 9 || !row_read(c.value, &amount, sizeof amount, NULL))
            return "the database is damaged (caps): restore a backup";
        bool of_key = c.key.ptr[0] == 'k';
        uint32_t id = be32_get(c.key.ptr + 1), model = be32_get(c.key.ptr + 5);
        uint32_t who = of_key ? ledger_key_index(l, id) : ledger_account_index(l, id);
        if (who == NO_INDEX)
            continue;
        l->accounts[of_key ? l->keys[who].account : who].caps++;
        if (!shm_cap_publish(l->shm, of_key ? who | SHM_CAP_KEY : who, model, amount))
            wrong = "the cap table is full: raise max_keys";
    }
    store_cursor_close(&c);
    return wrong;
}

static bool load_watermark(struct ledger *l) {
    struct id_key segment = key64(l->shm->header->segment_id);
    struct slice v;
    size_t n = l->shm->header->max_ranges * sizeof *l->watermark;
    memset(l->watermark, 0, n);
    if (store_get(&l->store, DB_WATERMARK, ID_SLICE(segment), &v) == STORE_OK)
        memcpy(l->watermark, v.ptr, v.len < n ? v.len : n);
    return true;
}

/* Whose segment is it? A segment without an owner is ours from now on. */
static bool claim_segment(struct ledger *l, char *err, size_t err_len) {
    struct shm_header *h = l->shm->header;
    if (h->ledger_id == 0)
        h->ledger_id = l->ledger_id;
    if (h->ledger_id == l->ledger_id)
        return true;
    snprintf(err, err_len,
             "the shared memory (shm_file) belongs to another ledger than the one in state_dir, and may hold charges "
             "that only that one "
             "can book. If state_dir was restored from a backup on purpose, remove the shm_file and start again");
    return false;
}

static bool allocate(struct ledger *l) {
    const struct shm_header *h = l->shm->header;
    l->accounts = calloc(h->max_accounts, sizeof *l->accounts);
    l->keys = calloc(h->max_keys, sizeof *l->keys);
    l->free_keys = malloc(h->max_keys * sizeof *l->free_keys);
    l->dirty_accounts = malloc(h->max_accounts * sizeof *l->dirty_accounts);
    l->dirty_keys = malloc(h->max_keys * sizeof *l->dirty_keys);
    l->watermark = calloc(h->max_ranges, sizeof *l->watermark);
    return l->accounts && l->keys && l->free_keys && l->dirty_accounts && l->dirty_keys && l->watermark &&
           drain_init(l);
}

static const char *load_all(struct ledger *l, char *err, size_t err_len) {
    if (!keep_places(l))
        return "out of memory";
    load_watermark(l);
    for (uint32_t i = l->shm->header->max_keys; i-- > 0;)
        if (!l->keys[i].id)
            l->free_keys[l->free_key_count++] = i;
    if (!load_accounts(l, err, err_len))
        return err;
    struct revoked *revoked = NULL;
    size_t count = 0;
    const char *wrong = load_keys(l, &revoked, &count);
    if (!wrong)
        wrong = load_revoked(l, revoked, count);
    free(revoked);
    if (!wrong)
        wrong = load_caps(l);
    for (uint32_t i = 0; !wrong && i < l->shm->header->max_accounts; i++)
        if (l->accounts[i].id)
            ledger_account_publish(l, i);
    return wrong;
}

/* A database made before accounts had a list of their keys gets one. */
static enum store_err write_owned(struct store *s, void *arg) {
    struct store_cursor c;
    struct row_key row;
    (void)arg;
    enum store_err err = store_cursor_open(s, DB_KEY, &c);
    for (err = err == STORE_OK ? store_first(&c) : err; err == STORE_OK; err = store_next(&c)) {
        if (c.key.len != 4 || !row_read(c.value, &row, sizeof row, NULL))
            continue;
        struct id_key owned = owned_key(row.account_id, be32_get(c.key.ptr));
        err = store_put(s, DB_OWNED, ID_SLICE(owned), SLICE(""));
        if (err != STORE_OK)
            break;
    }
    store_cursor_close(&c);
    return err == STORE_NONE ? STORE_OK : err;
}

bool ledger_load(struct ledger *l, char *err, size_t err_len) {
    if (!claim_segment(l, err, err_len))
        return false;
    if (!allocate(l)) {
        snprintf(err, err_len, "out of memory");
        return false;
    }
    enum store_err e = store_read_begin(&l->store);
    const char *wrong = e == STORE_OK ? load_all(l, err, err_len) : l->store.message;
    bool unlisted = e == STORE_OK && store_count(&l->store, DB_OWNED) < store_count(&l->store, DB_KEY);
    if (e == STORE_OK)
        store_read_end(&l->store);
    if (!wrong && unlisted && store_write(&l->store, write_owned, NULL) != STORE_OK)
        wrong = l->store.message;
    if (!wrong && checkpoint_replay(l, true) != STORE_OK)
        wrong = "the database is damaged (usage records): restore a backup";
    if (wrong && wrong != err)
        snprintf(err, err_len, "%s", wrong);
    if (wrong)
        return false;
    int dead = recover_cold(l->shm, &l->truth, &l->recover);
    if (dead < 0)
        snprintf(err, err_len, dead == -EINTR ? "told to stop" : "out of memory");
    return dead >= 0;
}

void ledger_unload(struct ledger *l) {
    drain_free(l);
    free(l->accounts);
    free(l->keys);
    free(l->free_keys);
    free(l->dirty_accounts);
    free(l->dirty_keys);
    free(l->watermark);
    free(l->account_of);
    free(l->key_of);
    for (unsigned kind = 0; kind < NAME_KINDS; kind++) {
        for (uint32_t id = 0; l->names[kind] && id <= l->name_count[kind]; id++)
            free(l->names[kind][id]);
        free(l->names[kind]);
    }
}
