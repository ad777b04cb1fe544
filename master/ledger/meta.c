/* What the database says of itself: format, owner, pepper, unit, and where its numbers stand. */
#include <stdio.h>
#include <sys/random.h>
#include "master/ledger/ledger.h"

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

/* false: what must be there is not. */
static bool take_numbers(struct ledger *l) {
    struct store *s = &l->store;
    struct usage_reader r;
    l->next_usage = 1;
    (void)store_meta(s, "late_ms", &l->late_ms, sizeof l->late_ms); /* from the first checkpoint on */
    l->next_account_id = (uint32_t)store_last_id(s, DB_ACCOUNT) + 1;
    l->next_key_id = (uint32_t)store_last_id(s, DB_KEY) + 1;
    l->next_entry = store_last_id(s, DB_ENTRY) + 1;
    l->next_quarantine = store_last_id(s, DB_QUARANTINE) + 1;
    l->count.quarantined = l->next_quarantine - 1;
    if (usage_open(&r, s) == STORE_OK) {
        l->next_usage = usage_last_id(&r) + 1;
        l->last_committed_ms = r.open ? r.block.committed_ms : 0;
    }
    usage_close(&r);
    return store_meta(s, "ledger_id", &l->ledger_id, sizeof l->ledger_id) == STORE_OK &&
           store_meta(s, "applied", &l->applied, sizeof l->applied) == STORE_OK && l->applied <= l->next_usage;
}

static bool take_meta(struct ledger *l, char *err, size_t err_len) {
    uint32_t format = 0;
    uint8_t pepper[32];
    struct store *s = &l->store;
    if (store_meta(s, "format", &format, sizeof format) != STORE_OK || format != STORE_FORMAT) {
        snprintf(err, err_len, "the database has format %u, this program knows %u", format, (unsigned)STORE_FORMAT);
        return false;
    }
    bool same = store_meta(s, "pepper", pepper, sizeof pepper) == STORE_OK &&
                slice_eq_secret(slice_of((char *)pepper, 32), slice_of((const char *)l->heritage->pepper, 32));
    wipe(pepper, sizeof pepper);
    if (!same) {
        snprintf(err, err_len,
                 "state_dir/pepper does not belong to this database: no key would be known. Remove the file, and it is "
                 "made again from the database");
        return false;
    }
    bool whole = take_numbers(l);
    if (whole && ledger_names_load(l) == STORE_OK)
        return true;
    snprintf(err, err_len, "the database is damaged (%s): restore a backup",
             whole ? "names" : "usage records are missing");
    return false;
}

enum store_err ledger_meta_load(struct ledger *l, char *err, size_t err_len) {
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
    bool ok = take_meta(l, err, err_len);
    store_read_end(&l->store);
    return ok ? STORE_OK : STORE_NONE;
}

static enum store_err write_unit(struct store *s, void *arg) {
    return store_put(s, DB_META, SLICE("unit"), slice_of(arg, sizeof(uint32_t)));
}

enum store_err ledger_meta_unit(struct ledger *l) {
    uint32_t unit = l->conf->unit_tokens;
    enum store_err err = store_read_begin(&l->store);
    if (err != STORE_OK)
        return err;
    err = store_meta(&l->store, "unit", &unit, sizeof unit);
    store_read_end(&l->store);
    if (err != STORE_OK && err != STORE_NONE)
        return err;
    if (err == STORE_NONE && (err = store_write(&l->store, write_unit, &unit)) != STORE_OK)
        ledger_store_failed(l, err);
    l->unit_tokens = unit;
    return unit == l->conf->unit_tokens ? STORE_OK : STORE_NONE;
}
