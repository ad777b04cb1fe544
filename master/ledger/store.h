/* The database behind the ledger: the one place that knows LMDB (store.c).
 *
 * Tables are named by enum store_db; keys and values are bytes. Numbers in keys are big-endian, so that they sort;
 * rows are the structs below in the machine's own order, read by copy (LMDB aligns to two bytes only). docs/ledger.md
 * has the schema and what is durable when. An environment is opened once in a process and never used across a fork:
 * every call asserts the pid. */
#ifndef TG_LEDGER_STORE_H
#define TG_LEDGER_STORE_H

#include <stdio.h>
#include <sys/types.h>
#include "proto/base/slice.h"

enum {
    STORE_FORMAT = 1,
    STORE_EMAIL = 254,
    STORE_NAME = 64,
    STORE_MODELS = 2000,
    STORE_REASON = 500,
    STORE_IDEM = 255
};

enum store_db {
    DB_META,       /* text → value: format, ledger_id, pepper, unit, applied, late_ms, jwt_secret, spans */
    DB_NAME,       /* kind byte, name → u32 permanent id */
    DB_ACCOUNT,    /* be32 id → row_account, email */
    DB_EMAIL,      /* normalised email → u32 account id */
    DB_BALANCE,    /* be32 account id → row_balance */
    DB_KEY,        /* be32 id → row_key, name, models, shown, last */
    DB_KEYHASH,    /* HMAC → u32 key id */
    DB_SPENT,      /* be32 key id → row_spent */
    DB_ENTRY,      /* be64 id → row_entry, reason, idempotency key */
    DB_IDEM,       /* idempotency key → u64 entry id */
    DB_CAP,        /* 'a' or 'k', be32 id, be32 model id → i64 amount */
    DB_USAGE,      /* be64 id of the first record → block (pack.h) */
    DB_DAILY,      /* be32 account id (0: all), be32 day, be32 model id → row_daily */
    DB_WATERMARK,  /* be64 segment id → u64 next sequence number of each range */
    DB_QUARANTINE, /* be64 number → row_quarantine */
    DB_LOGIN,      /* be32 account id → password hash, crypt(5)'s text */
    DB_OWNED,      /* be32 account id, be32 key id → nothing: an account's keys */
    DB_SPAN,       /* be32 account id (0: all), be64 number of a run of records → row_span (span.h) */
    DB_COUNT
};

struct row_account { uint32_t status, tier_id, group_id, email_len; int64_t created_at_s; };
/* As of usage record meta.applied: what came later is added by reading the usage records behind it. */
struct row_balance { int64_t balance, floor; uint64_t last_usage, last_entry; };
struct row_key {
    uint32_t account_id, status, capped, pad;
    uint8_t hash[32];
    int64_t created_at_s, expires_at_s, revoked_at_s, limit;
    uint64_t rpm, tpm, concurrency;
    uint16_t name_len, models_len, shown_len, last_len;
};
struct row_spent { int64_t spent; uint64_t last_usage; int64_t last_used_s; };
enum entry_kind { ENTRY_CREDIT = 1, ENTRY_DEBIT };
struct row_entry {
    uint32_t account_id, kind;
    int64_t amount;             /* signed: a debit's is negative */
    int64_t balance;            /* after it */
    int64_t time_ms;
    uint64_t prev_entry;        /* of the same account; 0: none */
    uint64_t usage_seen;        /* usage records below this id are in `balance` */
    uint16_t reason_len, idem_len;
    uint32_t pad;
};
struct row_daily {
    uint64_t requests, input, cached, cache_write, output, reasoning, images;
    int64_t cost, uncollected;
    uint64_t last_usage;        /* newest record of that account, day and model */
};
struct row_quarantine { int64_t time_ms; uint32_t range, why; uint64_t seq; /* the record follows */ };

enum store_err {
    STORE_OK,
    STORE_NONE,      /* no such key; the cursor is at an end */
    STORE_DISK_FULL, /* nothing was written; try again later */
    STORE_IO,        /* the disk failed: what is on it is unknown, stop */
    STORE_BROKEN     /* anything else: the environment is of no use any more, open it anew */
};

struct store {
    struct MDB_env *env;
    struct MDB_txn *txn;      /* the open one: of store_write or between store_read_begin and store_read_end */
    struct MDB_txn *reader;   /* parked between reads */
    unsigned dbi[DB_COUNT];
    pid_t pid;
    int fd;                   /* of the data file: for statvfs */
    bool unsynced;            /* the last transaction was a relaxed one */
    char message[200];        /* of the last error */
    int fail_commits;         /* tests: so many commits end in fail_with (an errno) */
    int fail_with;
    int fail_read;            /* tests: that many reads on, one ends in fail_with; 0: none */
};

/* Opens DIR/ledger.mdb, or the file itself when `path` names one. create makes it and its tables; read_only opens as
 * a reader. map_bytes 0: the default of 64 GiB, sparse. */
struct store_options { bool create, read_only; size_t map_bytes; };
enum store_err store_open(struct store *s, const char *path, const struct store_options *o);
void store_close(struct store *s);
const char *store_version(void);

/* Runs fn within one write transaction and commits it; fn's error aborts. When the map is full it grows and fn runs
 * again from the start, so fn must change nothing but the database. */
enum store_err store_write(struct store *s, enum store_err (*fn)(struct store *s, void *arg), void *arg);
/* The same with one sync instead of two: the page that makes the transaction count is written, but on the disk for
 * certain only with the next sync. Whatever happens the database stays whole; a power cut may lose the last such
 * transaction, and that one alone. */
enum store_err store_write_relaxed(struct store *s, enum store_err (*fn)(struct store *s, void *arg), void *arg);
/* Puts the last relaxed transaction on the disk, if there is one that no later sync has covered. */
enum store_err store_sync(struct store *s);
/* A consistent view for reading, until store_read_end. Keep it short: pages freed meanwhile are not used again. */
enum store_err store_read_begin(struct store *s);
void store_read_end(struct store *s);

/* Within a transaction. Slices that come out are valid until the next write or the transaction's end. */
enum store_err store_get(struct store *s, enum store_db db, struct slice key, struct slice *value);
enum store_err store_put(struct store *s, enum store_db db, struct slice key, struct slice value);
enum store_err store_append(struct store *s, enum store_db db, struct slice key,
                            struct slice value); /* key above all others */
enum store_err store_delete(struct store *s, enum store_db db, struct slice key);
uint64_t store_count(struct store *s, enum store_db db);
/* A number or bytes of DB_META that have that length; STORE_BROKEN: another. */
enum store_err store_meta(struct store *s, const char *name, void *out, size_t n);
/* The number that a table's highest key begins with; 0: the table is empty. */
uint64_t store_last_id(struct store *s, enum store_db db);
/* Calls each for every row, in the order of keys, as long as it returns STORE_OK; returns what it returned last, or
 * why the table cannot be read to its end. */
enum store_err store_each(struct store *s, enum store_db db,
                          enum store_err (*each)(void *arg, struct slice key, struct slice value), void *arg);

struct store_cursor { struct store *store; void *cursor; struct slice key, value; };
enum store_err store_cursor_open(struct store *s, enum store_db db, struct store_cursor *c);
enum store_err store_seek(struct store_cursor *c, struct slice key); /* the first at or behind key */
enum store_err store_first(struct store_cursor *c);
enum store_err store_last(struct store_cursor *c);
enum store_err store_next(struct store_cursor *c);
enum store_err store_prev(struct store_cursor *c);
void store_cursor_close(struct store_cursor *c);

/* A consistent, compacted copy to path (which must not exist), made and synced by this process, whose own environment
 * s is. */
enum store_err store_copy(struct store *s, const char *path);
uint64_t store_file_bytes(struct store *s);
void store_check_readers(struct store *s); /* frees the places of readers that died */

static inline void be32_put(uint8_t *p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }
static inline void be64_put(uint8_t *p, uint64_t v) { v = __builtin_bswap64(v); memcpy(p, &v, 8); }
static inline uint32_t be32_get(const void *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
static inline uint64_t be64_get(const void *p) { uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }
struct id_key { uint8_t bytes[16]; uint32_t len; };
static inline struct id_key key32(uint32_t v) { struct id_key k = { .len = 4 }; be32_put(k.bytes, v); return k; }
static inline struct id_key key64(uint64_t v) { struct id_key k = { .len = 8 }; be64_put(k.bytes, v); return k; }
static inline struct id_key owned_key(uint32_t account_id, uint32_t key_id) {
    struct id_key k = { .len = 8 };
    be32_put(k.bytes, account_id);
    be32_put(k.bytes + 4, key_id);
    return k;
}
static inline struct id_key cap_key(bool of_key, uint32_t id, uint32_t model_id) {
    struct id_key k = { .len = 9 };
    k.bytes[0] = of_key ? 'k' : 'a';
    be32_put(k.bytes + 1, id);
    be32_put(k.bytes + 5, model_id);
    return k;
}
#define ID_SLICE(k) slice_of((const char *)(k).bytes, (k).len)
#define ROW_SLICE(row) slice_of((const char *)&(row), sizeof(row))
/* Copies a row's fixed part; false: too short. *rest gets what follows. */
static inline bool row_read(struct slice value, void *row, size_t n, struct slice *rest) {
    if (value.len < n)
        return false;
    memcpy(row, value.ptr, n);
    if (rest)
        *rest = slice_of(value.ptr + n, value.len - n);
    return true;
}

#endif
