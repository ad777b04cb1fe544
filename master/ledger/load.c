/* Database → mirrors → shared tables, at every start.
 *
 * What the segment's tables hold already keeps its place (place.c), and only the rest is given free ones. Every
 * entry is published again all the same (a predecessor may have died while it wrote one), where it differs. Revoked
 * keys take places after the active ones, the latest revoked first. Failures are sentences: a table too small for what
 * is in the database, a segment that belongs to another ledger. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "master/ledger/account.h"
#include "master/ledger/key.h"

struct revoked { int64_t at_s; uint32_t id; };
struct loading {
    struct ledger *l;
    struct revoked *revoked; /* keys that get the places that the others leave */
    size_t revoked_count, revoked_size;
    char *err;               /* the sentence, if something is wrong */
    size_t err_len;
};

static bool wrong(struct loading *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool wrong(struct loading *o, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(o->err, o->err_len, fmt, args);
    va_end(args);
    return false;
}
static bool damaged(struct loading *o, const char *what) {
    return wrong(o, "the database is damaged (%s): restore a backup", what);
}

static bool unreadable(struct loading *o) {
    return wrong(o, "the database cannot be read (%s): restore a backup", o->l->store.message);
}

/* Calls each for the rows of two tables that have the same keys: ids. */
static bool each_pair(struct loading *o, enum store_db first, enum store_db second, const char *unequal,
                      bool (*each)(struct loading *o, uint32_t id, struct slice row, struct slice other)) {
    struct store_cursor a, b;
    enum store_err err = store_cursor_open(&o->l->store, first, &a);
    enum store_err other = store_cursor_open(&o->l->store, second, &b);
    bool ok = true;
    if (err == STORE_OK && other == STORE_OK) {
        err = store_first(&a);
        other = store_first(&b);
    }
    while (ok && err == STORE_OK && (other == STORE_OK || other == STORE_NONE)) {
        ok = other == STORE_OK && slice_eq(a.key, b.key) ? each(o, be32_get(a.key.ptr), a.value, b.value)
                                                         : damaged(o, unequal);
        err = store_next(&a);
        other = store_next(&b);
    }
    store_cursor_close(&a);
    store_cursor_close(&b);
    if (ok && err != STORE_NONE) /* not the end: what was not seen is not to be taken for what is not there */
        return unreadable(o);
    return ok;
}

/* ---- accounts ---------------------------------------------------------------------------------------------------- */

static bool load_account(struct loading *o, uint32_t id, struct slice value, struct slice balance) {
    struct ledger *l = o->l;
    struct row_account row;
    struct row_balance money;
    if (!row_read(value, &row, sizeof row, NULL) || !row_read(balance, &money, sizeof money, NULL))
        return damaged(o, "accounts and balances differ");
    uint32_t index = ledger_account_index(l, id);
    if (index == NO_INDEX)
        index = ledger_account_place(l, id);
    if (index == NO_INDEX)
        return wrong(o, "there are more accounts than max_accounts (%u): raise it", l->shm->header->max_accounts);
    l->accounts[index] = (struct account_mem){
        .id = id, .status = row.status, .tier_id = row.tier_id, .group_id = row.group_id, .balance = money.balance,
        .floor = money.floor, .last_usage = money.last_usage, .last_entry = money.last_entry
    };
    return true;
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static bool same_key(const struct shm_key *a, const struct shm_key *b) {
    return memcmp((const char *)a + sizeof a->version, (const char *)b + sizeof b->version,
                  sizeof *a - sizeof a->version) == 0;
}

static bool publish_key(struct ledger *l, uint32_t index, const struct shm_key *want) {
    struct shm_key is;
    uint32_t found;
    if (shm_key_read(l->shm, index, &is) && same_key(&is, want) && shm_key_find(l->shm, want->hash, &found) &&
        found == index)
        return true;
    return shm_key_publish(l->shm, index, want);
}

/* Fills a key's mirror and publishes it. */
static bool load_key_at(struct loading *o, uint32_t index, uint32_t id, struct slice value, struct slice spent_value) {
    struct ledger *l = o->l;
    struct key_draft d;
    struct row_spent spent;
    if (!key_draft_read(value, &d) || !row_read(spent_value, &spent, sizeof spent, NULL))
        return damaged(o, "keys");
    uint32_t account = ledger_account_index(l, d.row.account_id);
    if (account == NO_INDEX)
        return damaged(o, "a key without account");
    l->keys[index] = (struct key_mem){
        .id = id, .account = account, .status = d.row.status, .capped = d.row.capped, .limit = d.row.limit,
        .spent = spent.spent, .last_usage = spent.last_usage, .last_used_s = spent.last_used_s,
        .revoked_at_s = d.row.revoked_at_s, .models_len = d.row.models_len
    };
    if (d.row.status == KEY_ACTIVE) {
        l->accounts[account].active_keys++;
        l->accounts[account].models_bytes += d.row.models_len;
    }
    if (!ledger_key_shape(l, &d.row, d.models, id, account, &d.shape))
        return wrong(o, "the keys' model lists do not fit the shared memory: raise max_keys");
    return publish_key(l, index, &d.shape) || wrong(o, "the key table is full: raise max_keys");
}

static bool remember_revoked(struct loading *o, uint32_t id, int64_t at_s) {
    if (o->revoked_count == o->revoked_size) {
        size_t size = o->revoked_size ? o->revoked_size * 2 : 1024;
        struct revoked *grown = realloc(o->revoked, size * sizeof *grown);
        if (!grown)
            return wrong(o, "out of memory");
        o->revoked = grown;
        o->revoked_size = size;
    }
    o->revoked[o->revoked_count++] = (struct revoked){ at_s, id };
    return true;
}

/* Active ones and those that have a place; the others are noted for later. */
static bool load_key(struct loading *o, uint32_t id, struct slice value, struct slice spent) {
    struct row_key row;
    if (!row_read(value, &row, sizeof row, NULL))
        return damaged(o, "keys and their spending differ");
    uint32_t index = ledger_key_index(o->l, id);
    if (index == NO_INDEX && row.status != KEY_ACTIVE)
        return remember_revoked(o, id, row.revoked_at_s);
    if (index == NO_INDEX)
        index = ledger_key_place(o->l, id);
    if (index == NO_INDEX)
        return wrong(o, "there are more keys than max_keys: raise it");
    return load_key_at(o, index, id, value, spent);
}

static int later_first(const void *a, const void *b) {
    const struct revoked *x = a, *y = b;
    return x->at_s < y->at_s ? 1 : x->at_s > y->at_s ? -1 : 0;
}

static bool load_revoked(struct loading *o) {
    struct ledger *l = o->l;
    if (o->revoked_count > 1)
        qsort(o->revoked, o->revoked_count, sizeof *o->revoked, later_first);
    for (size_t i = 0; i < o->revoked_count && l->free_key_count > 0; i++) {
        uint32_t id = o->revoked[i].id;
        struct id_key key = key32(id);
        struct slice row, spent;
        if (store_get(&l->store, DB_KEY, ID_SLICE(key), &row) != STORE_OK ||
            store_get(&l->store, DB_SPENT, ID_SLICE(key), &spent) != STORE_OK)
            return damaged(o, "keys");
        uint32_t index = ledger_key_place(l, id);
        if (index == NO_INDEX)
            return wrong(o, "out of memory");
        if (!load_key_at(o, index, id, row, spent))
            return false;
    }
    return true;
}

/* ---- caps -------------------------------------------------------------------------------------------------------- */

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

static enum store_err load_cap(void *arg, struct slice key, struct slice value) {
    struct loading *o = arg;
    struct ledger *l = o->l;
    int64_t amount;
    if (key.len != 9 || !row_read(value, &amount, sizeof amount, NULL)) {
        damaged(o, "caps");
        return STORE_BROKEN;
    }
    bool of_key = key.ptr[0] == 'k';
    uint32_t id = be32_get(key.ptr + 1), model = be32_get(key.ptr + 5);
    uint32_t who = of_key ? ledger_key_index(l, id) : ledger_account_index(l, id);
    if (who == NO_INDEX)
        return STORE_OK;
    l->accounts[of_key ? l->keys[who].account : who].caps++;
    if (shm_cap_publish(l->shm, of_key ? who | SHM_CAP_KEY : who, model, amount))
        return STORE_OK;
    wrong(o, "the cap table is full: raise max_keys");
    return STORE_BROKEN;
}

/* Published, and counted for their accounts. */
static bool load_caps(struct loading *o) {
    remove_stale_caps(o->l);
    enum store_err err = store_each(&o->l->store, DB_CAP, load_cap, o);
    if (err != STORE_OK && !o->err[0])
        unreadable(o);
    return err == STORE_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

/* Without it the rings' records would be booked once more. */
static bool load_watermark(struct loading *o) {
    struct ledger *l = o->l;
    struct id_key segment = key64(l->shm->header->segment_id);
    struct slice v;
    size_t n = l->shm->header->max_ranges * sizeof *l->watermark;
    enum store_err err = store_get(&l->store, DB_WATERMARK, ID_SLICE(segment), &v);
    memset(l->watermark, 0, n);
    if (err == STORE_OK)
        memcpy(l->watermark, v.ptr, v.len < n ? v.len : n);
    return err == STORE_OK || err == STORE_NONE || unreadable(o);
}

/* Whose segment is it? A segment without an owner is ours from now on. */
static bool claim_segment(struct loading *o) {
    struct ledger *l = o->l;
    struct shm_header *h = l->shm->header;
    if (h->ledger_id == 0)
        h->ledger_id = l->ledger_id;
    if (h->ledger_id == l->ledger_id)
        return true;
    return wrong(o, "the shared memory (shm_file) belongs to another ledger than the one in state_dir, and may hold "
                    "charges that only that one can book. If state_dir was restored from a backup on purpose, remove "
                    "the shm_file and start again");
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

static bool load_all(struct loading *o) {
    struct ledger *l = o->l;
    if (!ledger_places_keep(l))
        return wrong(o, "out of memory");
    if (!load_watermark(o))
        return false;
    for (uint32_t i = l->shm->header->max_keys; i-- > 0;)
        if (!l->keys[i].id)
            l->free_keys[l->free_key_count++] = i;
    if (!each_pair(o, DB_ACCOUNT, DB_BALANCE, "accounts and balances differ", load_account) ||
        !each_pair(o, DB_KEY, DB_SPENT, "keys and their spending differ", load_key) || !load_revoked(o) ||
        !load_caps(o))
        return false;
    for (uint32_t i = 0; i < l->shm->header->max_accounts; i++)
        if (l->accounts[i].id)
            ledger_account_publish(l, i);
    return true;
}

/* A database made before accounts had a list of their keys gets one. */
static enum store_err write_owned(void *arg, struct slice key, struct slice value) {
    struct row_key row;
    if (key.len != 4 || !row_read(value, &row, sizeof row, NULL))
        return STORE_OK;
    struct id_key owned = owned_key(row.account_id, be32_get(key.ptr));
    return store_put(arg, DB_OWNED, ID_SLICE(owned), SLICE(""));
}
static enum store_err write_all_owned(struct store *s, void *arg) {
    (void)arg;
    return store_each(s, DB_KEY, write_owned, s);
}

/* From the database alone; nothing between the words and the truth yet. */
static bool load_tables(struct loading *o) {
    struct store *s = &o->l->store;
    if (store_read_begin(s) != STORE_OK)
        return wrong(o, "%s", s->message);
    bool ok = load_all(o), unlisted = store_count(s, DB_OWNED) < store_count(s, DB_KEY);
    store_read_end(s);
    free(o->revoked);
    if (ok && unlisted && store_write(s, write_all_owned, NULL) != STORE_OK)
        return wrong(o, "%s", s->message);
    return ok;
}

bool ledger_load(struct ledger *l, char *err, size_t err_len) {
    struct loading o = { .l = l, .err = err, .err_len = err_len };
    err[0] = '\0';
    if (!claim_segment(&o))
        return false;
    if (!allocate(l))
        return wrong(&o, "out of memory");
    if (!load_tables(&o))
        return false;
    if (checkpoint_replay(l, true) != STORE_OK)
        return damaged(&o, "usage records");
    int dead = recover_cold(l->shm, &l->truth, &l->recover);
    return dead >= 0 || wrong(&o, dead == -EINTR ? "told to stop" : "out of memory");
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
    ledger_names_free(l);
}
