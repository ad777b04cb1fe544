/* audit: balances from entries and charges, keys' spending from charges, roll-ups from records, chains and indices
 * from what they index, mirrors from the database, and the words in shared memory from all of it.
 *
 * It runs in a forked reader on one snapshot of the database. While it does, the ledger cannot reuse pages that it
 * frees, so the file may grow by what is committed meanwhile; it is bounded by the time one pass over the usage
 * records takes. The words are compared in the ledger before the fork, in a short pause. */
#include "master/ledger/audit.h"
#include "master/ledger/span.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct tally { /* by id */
    int64_t entries, charges, charges_after;  /* after: of records that no checkpoint has covered */
    uint64_t last_usage, last_entry, last_applied;
    uint32_t account_id;                      /* of a key */
    bool exists;
};
struct books {
    struct audit *a;
    struct store *s;
    struct tally *accounts, *keys;
    uint32_t account_count, key_count;        /* ids below */
    uint64_t applied, next_usage, next_entry;
    struct rollups daily;
    struct spans spans;
    uint64_t spans_written, span_rows;
};

void audit_difference(struct audit *a, const char *kind, const char *who, int64_t stored, int64_t computed) {
    if (a->differences++ >= AUDIT_SHOWN || !a->w)
        return;
    jw_object(a->w);
    jw_key(a->w, "kind");
    jw_cstr(a->w, kind);
    jw_key(a->w, "of");
    jw_cstr(a->w, who);
    jw_key(a->w, "stored");
    jw_fixed(a->w, stored, a->places, true);
    jw_key(a->w, "computed");
    jw_fixed(a->w, computed, a->places, true);
    jw_end_object(a->w);
}

static void differ_account(struct books *b, const char *kind, uint64_t id, int64_t stored, int64_t computed) {
    char who[ID_TEXT];
    id_write(who, ID_ACCOUNT, id);
    audit_difference(b->a, kind, who, stored, computed);
}
static void differ_key(struct books *b, const char *kind, uint64_t id, int64_t stored, int64_t computed) {
    char who[ID_TEXT];
    id_write(who, ID_KEY, id);
    audit_difference(b->a, kind, who, stored, computed);
}

/* Calls each for every row of a table; false: the database cannot be read, or each said so. */
static bool each_row(struct books *b, enum store_db db,
                     bool (*each)(struct books *b, struct slice key, struct slice value)) {
    struct store_cursor c;
    enum store_err err = store_cursor_open(b->s, db, &c);
    bool ok = err == STORE_OK;
    for (err = ok ? store_first(&c) : err; ok && err == STORE_OK; err = store_next(&c))
        ok = each(b, c.key, c.value);
    store_cursor_close(&c);
    if (err != STORE_NONE && ok)
        snprintf(b->a->message, sizeof b->a->message, "%s", b->s->message);
    return ok && err == STORE_NONE;
}

static bool take_account(struct books *b, struct slice key, struct slice value) {
    struct row_account row;
    uint32_t id = be32_get(key.ptr);
    if (row_read(value, &row, sizeof row, NULL) && id < b->account_count)
        b->accounts[id].exists = true;
    b->a->accounts++;
    return true;
}

static bool take_key(struct books *b, struct slice key, struct slice value) {
    struct row_key row;
    struct slice v;
    uint32_t id = be32_get(key.ptr), indexed = 0;
    b->a->keys++;
    if (!row_read(value, &row, sizeof row, NULL) || id >= b->key_count)
        return true;
    b->keys[id].exists = true;
    b->keys[id].account_id = row.account_id;
    if (row.account_id >= b->account_count || !b->accounts[row.account_id].exists)
        differ_key(b, "key without account", id, row.account_id, 0);
    if (store_get(b->s, DB_KEYHASH, slice_of((char *)row.hash, 32), &v) == STORE_OK)
        (void)row_read(v, &indexed, sizeof indexed, NULL);
    if (indexed != id)
        differ_key(b, "key index", id, indexed, id);
    return true;
}

static bool take_entry(struct books *b, struct slice key, struct slice value) {
    struct row_entry row;
    uint64_t id = be64_get(key.ptr);
    b->a->entries++;
    if (!row_read(value, &row, sizeof row, NULL) || row.account_id >= b->account_count ||
        !b->accounts[row.account_id].exists) {
        audit_difference(b->a, "entry without account", "", (int64_t)id, 0);
        return true;
    }
    struct tally *t = &b->accounts[row.account_id];
    if (id != b->next_entry)
        differ_account(b, "entry numbers", row.account_id, (int64_t)id, (int64_t)b->next_entry);
    if ((row.kind == ENTRY_CREDIT) != (row.amount > 0) || row.amount == 0)
        differ_account(b, "entry amount", row.account_id, row.amount, 0);
    if (row.prev_entry != t->last_entry)
        differ_account(b, "entry chain", row.account_id, (int64_t)row.prev_entry, (int64_t)t->last_entry);
    t->entries = (int64_t)((uint64_t)t->entries + (uint64_t)row.amount);
    t->last_entry = id;
    b->next_entry = id + 1;
    return true;
}

static bool take_record(struct books *b, const struct usage_item *u) {
    b->a->usage_records++;
    bool known = u->account_id < b->account_count && b->accounts[u->account_id].exists && u->key_id < b->key_count &&
                 b->keys[u->key_id].exists && b->keys[u->key_id].account_id == u->account_id;
    if (!known) {
        differ_account(b, "usage of unknown account or key", u->account_id, u->charge, 0);
        return true;
    }
    struct tally *both[2] = { &b->accounts[u->account_id], &b->keys[u->key_id] };
    if (u->prev_account != both[0]->last_usage)
        differ_account(b, "usage chain", u->account_id, (int64_t)u->prev_account, (int64_t)both[0]->last_usage);
    if (u->prev_key != both[1]->last_usage)
        differ_key(b, "usage chain", u->key_id, (int64_t)u->prev_key, (int64_t)both[1]->last_usage);
    for (int i = 0; i < 2; i++) {
        both[i]->last_usage = u->id;
        if (u->id >= b->applied) {
            both[i]->charges_after += u->charge;
            continue;
        }
        both[i]->charges += u->charge;
        both[i]->last_applied = u->id;
    }
    return u->id >= b->applied || rollups_add(&b->daily, u);
}

static enum store_err check_span_row(void *arg, struct id_key key, struct slice row) {
    struct books *b = arg;
    struct slice v;
    b->span_rows++;
    if (store_get(b->s, DB_SPAN, ID_SLICE(key), &v) != STORE_OK || !slice_eq(v, row))
        differ_account(b, "index of spans", be32_get(key.bytes), (int64_t)be64_get(key.bytes + 4), 0);
    return STORE_OK;
}

/* The index has rows of this record's span: what they must be. */
static bool take_span(struct books *b, const struct usage_item *u) {
    uint64_t span = u->id / SPAN_RECORDS;
    if (span >= b->spans_written)
        return true;
    if (!span_take(&b->spans, u))
        return false;
    return u->id % SPAN_RECORDS != SPAN_RECORDS - 1 || span_rows(&b->spans, span, check_span_row, b) == STORE_OK;
}

static bool take_block(struct books *b, struct slice key, struct slice value) {
    struct block block;
    struct usage_item u;
    if (!block_open(&block, key, value)) {
        audit_difference(b->a, "damaged usage block", "", key.len == 8 ? (int64_t)be64_get(key.ptr) : 0, 0);
        return true;
    }
    if (block.first_id != b->next_usage)
        audit_difference(b->a, "usage numbers", "", (int64_t)block.first_id, (int64_t)b->next_usage);
    for (uint32_t i = 0; i < block.count; i++) {
        if (!block_get(&block, i, &u))
            audit_difference(b->a, "damaged usage record", "", (int64_t)(block.first_id + i), 0);
        else if (!take_record(b, &u) || !take_span(b, &u))
            return false;
    }
    b->next_usage = block.first_id + block.count;
    return true;
}

static bool check_balance(struct books *b, struct slice key, struct slice value) {
    struct row_balance row;
    uint32_t id = be32_get(key.ptr);
    if (!row_read(value, &row, sizeof row, NULL) || id >= b->account_count || !b->accounts[id].exists) {
        differ_account(b, "balance without account", id, row.balance, 0);
        return true;
    }
    struct tally *t = &b->accounts[id];
    t->exists = false; /* seen: what is left has no balance */
    int64_t computed = t->entries - t->charges;
    if (row.balance != computed)
        differ_account(b, "balance", id, row.balance, computed);
    if (row.last_usage != t->last_applied)
        differ_account(b, "last usage", id, (int64_t)row.last_usage, (int64_t)t->last_applied);
    if (row.last_entry != t->last_entry)
        differ_account(b, "last entry", id, (int64_t)row.last_entry, (int64_t)t->last_entry);
    const struct ledger *l = b->a->l;
    uint32_t index =
        l && l->next_usage == b->next_usage && l->next_entry == b->next_entry ? ledger_account_index(l, id) : NO_INDEX;
    if (index != NO_INDEX && l->accounts[index].balance != computed - t->charges_after)
        differ_account(b, "balance in memory", id, l->accounts[index].balance, computed - t->charges_after);
    return true;
}

static bool check_spent(struct books *b, struct slice key, struct slice value) {
    struct row_spent row;
    uint32_t id = be32_get(key.ptr);
    if (!row_read(value, &row, sizeof row, NULL) || id >= b->key_count || !b->keys[id].exists) {
        differ_key(b, "spending without key", id, row.spent, 0);
        return true;
    }
    struct tally *t = &b->keys[id];
    t->exists = false;
    if (row.spent != t->charges)
        differ_key(b, "spent", id, row.spent, t->charges);
    const struct ledger *l = b->a->l;
    uint32_t index = l && l->next_usage == b->next_usage ? ledger_key_index(l, id) : NO_INDEX;
    if (index != NO_INDEX && l->keys[index].spent != t->charges + t->charges_after)
        differ_key(b, "spent in memory", id, l->keys[index].spent, t->charges + t->charges_after);
    return true;
}

static bool check_daily(struct books *b, struct slice key, struct slice value) {
    struct row_daily row;
    if (key.len != 12 || !row_read(value, &row, sizeof row, NULL)) {
        audit_difference(b->a, "damaged roll-up", "", 0, 0);
        return true;
    }
    struct rollup *r = rollups_at(&b->daily, be32_get(key.ptr), be32_get(key.ptr + 4), be32_get(key.ptr + 8));
    if (!r)
        return false;
    if (memcmp(&r->add, &row, sizeof row) != 0)
        differ_account(b, "roll-up", r->account_id, row.cost, r->add.cost);
    r->add.requests = 0; /* seen */
    return true;
}

static void check_left(struct books *b) {
    for (uint32_t i = 0; i < b->account_count; i++)
        if (b->accounts[i].exists)
            differ_account(b, "account without balance", i, 0, b->accounts[i].entries);
    for (uint32_t i = 0; i < b->key_count; i++)
        if (b->keys[i].exists)
            differ_key(b, "key without spending", i, 0, b->keys[i].charges);
    for (uint32_t i = 0; b->daily.at && i <= b->daily.mask; i++)
        if (b->daily.at[i].used && b->daily.at[i].add.requests > 0)
            differ_account(b, "missing roll-up", b->daily.at[i].account_id, 0, b->daily.at[i].add.cost);
    if (store_count(b->s, DB_EMAIL) != b->a->accounts)
        audit_difference(b->a, "email index", "", (int64_t)store_count(b->s, DB_EMAIL), (int64_t)b->a->accounts);
    if (store_count(b->s, DB_KEYHASH) != b->a->keys)
        audit_difference(b->a, "key index", "", (int64_t)store_count(b->s, DB_KEYHASH), (int64_t)b->a->keys);
    if (store_count(b->s, DB_SPAN) != b->span_rows)
        audit_difference(b->a, "index of spans", "", (int64_t)store_count(b->s, DB_SPAN), (int64_t)b->span_rows);
    if (b->applied > b->next_usage)
        audit_difference(b->a, "usage numbers", "", (int64_t)b->applied, (int64_t)b->next_usage);
}

bool audit_run(struct audit *a, struct store *s) {
    struct books b = { .a = a, .s = s, .applied = 1, .next_usage = 1, .next_entry = 1 };
    snprintf(a->message, sizeof a->message, "out of memory");
    b.account_count = (uint32_t)store_last_id(s, DB_ACCOUNT) + 1;
    b.key_count = (uint32_t)store_last_id(s, DB_KEY) + 1;
    b.accounts = calloc(b.account_count, sizeof *b.accounts);
    b.keys = calloc(b.key_count, sizeof *b.keys);
    (void)store_meta(s, "applied", &b.applied, sizeof b.applied);
    b.spans_written = span_written(s);
    a->quarantined = store_count(s, DB_QUARANTINE);
    bool ok = b.accounts && b.keys && each_row(&b, DB_ACCOUNT, take_account) && each_row(&b, DB_KEY, take_key) &&
              each_row(&b, DB_ENTRY, take_entry) && each_row(&b, DB_USAGE, take_block) &&
              each_row(&b, DB_BALANCE, check_balance) && each_row(&b, DB_SPENT, check_spent) &&
              each_row(&b, DB_DAILY, check_daily);
    if (ok)
        check_left(&b);
    free(b.accounts);
    free(b.keys);
    free(b.daily.at);
    span_free(&b.spans);
    return ok;
}

/* ---- the call ---------------------------------------------------------------------------------------------------- */

struct audit_args { uint64_t words, tails; bool file; };

static void write_audit(struct reader_job *job, struct store *s, const struct audit_args *args) {
    struct json_writer w;
    struct audit a = { .w = &w, .places = ledger_places(job->l), .l = args->file ? NULL : job->l };
    jw_init(&w, &job->out);
    jw_object(&w);
    jw_key(&w, "differences");
    jw_array(&w);
    if (args->words)
        audit_difference(&a, "words in shared memory", "", (int64_t)args->words, 0);
    if (args->tails)
        audit_difference(&a, "ring tails", "", (int64_t)args->tails, 0);
    bool ok = store_read_begin(s) == STORE_OK;
    if (ok) {
        ok = audit_run(&a, s);
        store_read_end(s);
    }
    jw_end_array(&w);
    jw_count(&w, "difference_count", a.differences);
    jw_count(&w, "accounts", a.accounts);
    jw_count(&w, "keys", a.keys);
    jw_count(&w, "entries", a.entries);
    jw_count(&w, "usage_records", a.usage_records);
    jw_count(&w, "quarantined", a.quarantined);
    jw_end_object(&w);
    if (!ok)
        job_refuse(job, "internal", "the database cannot be audited: %s", a.message);
}

/* LMDB makes a lock file beside what it opens. It goes again, unless it was there before: then somebody uses it, the
 * ledger itself where the file is its own database. */
static void audit_file(struct reader_job *job, const struct audit_args *args) {
    struct store_options o = { .read_only = true };
    struct store copy;
    char lock[sizeof job->text + 8];
    snprintf(lock, sizeof lock, "%s-lock", job->text);
    bool used = access(lock, F_OK) == 0;
    if (store_open(&copy, job->text, &o) == STORE_OK) {
        write_audit(job, &copy, args);
        store_close(&copy);
    } else {
        job_refuse(job, "not_found", "%s", copy.message);
    }
    if (!used)
        (void)unlink(lock);
}

static void audit_job(struct reader_job *job) {
    struct audit_args args;
    memcpy(&args, job->args, sizeof args);
    if (!args.file) {
        write_audit(job, &job->store, &args);
        return;
    }
    store_close(&job->store);
    audit_file(job, &args);
}

static uint64_t wrong_tails(const struct ledger *l) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < l->shm->header->max_ranges; i++)
        n += atomic_load(&l->shm->ranges[i].tail) != l->watermark[i];
    return n;
}

void call_audit(struct call *c) {
    struct reader_job job = { .fn = audit_job };
    struct audit_args args = { 0 };
    struct slice file;
    enum arg got = call_text(c, "file", sizeof job.text - 1, &file);
    if (got == ARG_BAD)
        return;
    args.file = got == ARG_OK;
    if (args.file) {
        memcpy(job.text, file.ptr, file.len);
    } else {
        int words = recover_verify(c->l->shm, &c->l->truth);
        if (words < 0) {
            call_refuse(c, "unavailable", "the ledger is stopping");
            return;
        }
        args.words = (uint64_t)words;
        args.tails = wrong_tails(c->l);
    }
    memcpy(job.args, &args, sizeof args);
    reader_start(c, &job);
}
