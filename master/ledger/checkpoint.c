/* Checkpoints: stored balances, keys' spending and roll-ups catch up with the usage records.
 *
 * The records are the charges (drain.c); those rows are as of record meta.applied. What has changed since is
 * marked here, and a checkpoint writes it and moves `applied` on, in one transaction, every few seconds or when there
 * is much of it. A start, and a commit that failed, read the records behind `applied` once more. */
#include "master/ledger/ledger.h"
#include "master/ledger/span.h"

#define EVERY_NS 5000000000u
enum { MANY_ROWS = 16384 };

/* ---- what has changed -------------------------------------------------------------------------------------------- */

static void checkpoint_soon(struct ledger *l) {
    if (l->checkpoint_ns == 0)
        l->checkpoint_ns = ledger_now_ns() + EVERY_NS;
}
void checkpoint_mark_account(struct ledger *l, uint32_t index) {
    if (l->accounts[index].dirty)
        return;
    l->dirty_accounts[l->dirty_account_count++] = index;
    l->accounts[index].dirty = l->dirty_account_count;
    checkpoint_soon(l);
}
void checkpoint_mark_key(struct ledger *l, uint32_t index) {
    if (l->keys[index].dirty)
        return;
    l->dirty_keys[l->dirty_key_count++] = index;
    l->keys[index].dirty = l->dirty_key_count;
    checkpoint_soon(l);
}

void checkpoint_if_much(struct ledger *l) {
    if (l->dirty_account_count + l->dirty_key_count + l->rollups.count > MANY_ROWS)
        l->checkpoint_ns = 1;
}

/* ---- writing it -------------------------------------------------------------------------------------------------- */

static enum store_err write_rollups(struct store *s, const struct rollups *r) {
    enum store_err err = STORE_OK;
    for (uint32_t i = 0; r->count > 0 && i <= r->mask && err == STORE_OK; i++) {
        if (!r->at[i].used)
            continue;
        struct id_key key = daily_key(r->at[i].account_id, r->at[i].day, r->at[i].model_id);
        struct row_daily row = r->at[i].add, was;
        struct slice value;
        err = store_get(s, DB_DAILY, ID_SLICE(key), &value);
        if (err == STORE_OK && row_read(value, &was, sizeof was, NULL))
            daily_add(&row, &was);
        if (err == STORE_OK || err == STORE_NONE)
            err = store_put(s, DB_DAILY, ID_SLICE(key), ROW_SLICE(row));
    }
    return err;
}

static enum store_err write_checkpoint(struct store *s, void *arg) {
    struct ledger *l = arg;
    enum store_err err = STORE_OK;
    for (uint32_t i = 0; i < l->dirty_account_count && err == STORE_OK; i++) {
        const struct account_mem *a = &l->accounts[l->dirty_accounts[i]];
        struct row_balance row = { a->balance, a->floor, a->last_usage, a->last_entry };
        struct id_key key = key32(a->id);
        err = store_put(s, DB_BALANCE, ID_SLICE(key), ROW_SLICE(row));
    }
    for (uint32_t i = 0; i < l->dirty_key_count && err == STORE_OK; i++) {
        const struct key_mem *k = &l->keys[l->dirty_keys[i]];
        struct row_spent row = { k->spent, k->last_usage, k->last_used_s };
        struct id_key key = key32(k->id);
        err = store_put(s, DB_SPENT, ID_SLICE(key), ROW_SLICE(row));
    }
    if (err == STORE_OK)
        err = write_rollups(s, &l->rollups);
    if (err == STORE_OK)
        err = store_put(s, DB_META, SLICE("applied"), ROW_SLICE(l->next_usage));
    if (err == STORE_OK)
        err = store_put(s, DB_META, SLICE("late_ms"), ROW_SLICE(l->late_ms));
    return err == STORE_OK ? span_write(s, l->next_usage) : err;
}

enum store_err checkpoint_commit(struct ledger *l) {
    enum store_err err = store_write(&l->store, write_checkpoint, l);
    if (err != STORE_OK) {
        l->checkpoint_ns = ledger_now_ns() + EVERY_NS;
        return err;
    }
    for (uint32_t i = 0; i < l->dirty_account_count; i++)
        l->accounts[l->dirty_accounts[i]].dirty = 0;
    for (uint32_t i = 0; i < l->dirty_key_count; i++)
        l->keys[l->dirty_keys[i]].dirty = 0;
    l->dirty_account_count = l->dirty_key_count = 0;
    rollups_clear(&l->rollups);
    l->applied = l->next_usage;
    l->checkpoint_ns = 0;
    l->count.checkpoints++;
    return STORE_OK;
}

/* ---- reading it again -------------------------------------------------------------------------------------------- */

static void replay_item(struct ledger *l, const struct usage_item *u, bool balances) {
    CHECK(rollups_add(&l->rollups, u)); /* no memory: of no use any more; a start reads the records again */
    checkpoint_soon(l);
    if (u->committed_ms - u->time_ms > l->late_ms)
        l->late_ms = u->committed_ms - u->time_ms;
    if (!balances)
        return;
    uint32_t a = ledger_account_index(l, u->account_id), k = ledger_key_index(l, u->key_id);
    if (a != NO_INDEX) {
        l->accounts[a].balance -= u->charge;
        l->accounts[a].last_usage = u->id;
        checkpoint_mark_account(l, a);
    }
    if (k != NO_INDEX) {
        l->keys[k].spent += u->charge;
        l->keys[k].last_usage = u->id;
        if (u->time_ms / 1000 > l->keys[k].last_used_s)
            l->keys[k].last_used_s = u->time_ms / 1000;
        checkpoint_mark_key(l, k);
    }
}

enum store_err checkpoint_replay(struct ledger *l, bool balances) {
    struct usage_reader r;
    struct usage_item u;
    enum store_err err = store_read_begin(&l->store);
    if (err != STORE_OK)
        return err;
    err = usage_open(&r, &l->store);
    for (uint64_t id = l->applied; err == STORE_OK && id < l->next_usage; id++) {
        err = usage_get(&r, id, &u);
        if (err == STORE_OK)
            replay_item(l, &u, balances);
    }
    usage_close(&r);
    store_read_end(&l->store);
    return err == STORE_NONE ? STORE_BROKEN : err;
}
