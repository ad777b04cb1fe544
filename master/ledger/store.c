/* LMDB behind store.h: the only file that includes lmdb.h.
 *
 * Default sync, two a commit: the pages, then the meta page that makes them count (MDB_NOSYNC can corrupt, so it is
 * out of the question). Groups of charges leave the second to the next sync (MDB_NOMETASYNC for that transaction
 * alone). MDB_NOTLS, so that a read may go on beside a write in the one thread and nothing of ours runs when a forked
 * reader exits. The map is large and sparse; when it is full all the same it doubles. Errors fall into three classes:
 * the disk is full (nothing happened, try again), the disk failed (stop), anything else (open anew). */
#include "master/ledger/store.h"

#include <errno.h>
#include <lmdb.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "proto/base/check.h"
#include "shm/steps.h"

enum { MAX_READERS = 64, LOW_SPACE = 4 << 20 };
#define DEFAULT_MAP ((size_t)64 << 30)

static const char *const db_names[DB_COUNT] = {
    "meta",  "name", "account", "email", "balance", "key",       "keyhash",    "spent",
    "entry", "idem", "cap",     "usage", "daily",   "watermark", "quarantine",
    "login", "owned", "span",
};

const char *store_version(void) {
    return mdb_version(NULL, NULL, NULL);
}

/* Was there no room to write? By what the file system says, or by trying behind the file's end, where LMDB has no page
 * yet: a quota or a limit of a file's size shows only so. */
static bool no_room(const struct store *s) {
    static const char zeros[65536];
    struct statvfs v;
    struct stat st;
    if (s->fd < 0 || fstat(s->fd, &st) < 0)
        return false;
    if (fstatvfs(s->fd, &v) == 0 && (uint64_t)v.f_bavail * v.f_frsize < LOW_SPACE)
        return true;
    ssize_t n = pwrite(s->fd, zeros, sizeof zeros, (st.st_size + 4095) & ~(off_t)4095);
    return n < 0 ? errno == ENOSPC || errno == EDQUOT || errno == EFBIG : n < (ssize_t)sizeof zeros;
}

/* LMDB turns a short write into EIO (mdb_page_flush: "short write, filesystem full?"), so a full disk may come as
 * either. */
static enum store_err error_of(struct store *s, int rc, const char *what) {
    if (rc == 0)
        return STORE_OK;
    if (rc == MDB_NOTFOUND)
        return STORE_NONE;
    snprintf(s->message, sizeof s->message, "%s: %s", what, mdb_strerror(rc));
    if (rc == ENOSPC || rc == EDQUOT || rc == EFBIG || (rc == EIO && no_room(s)))
        return STORE_DISK_FULL;
    return rc == EIO ? STORE_IO : STORE_BROKEN;
}

static void assert_mine(const struct store *s) {
    CHECK(s->env && s->pid == getpid()); /* an environment that came over a fork seems to work, and corrupts */
}

static int open_tables(struct store *s, const struct store_options *o) {
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, o->read_only ? MDB_RDONLY : 0, &txn);
    if (rc)
        return rc;
    for (int i = 0; i < DB_COUNT && rc == 0; i++)
        rc = mdb_dbi_open(txn, db_names[i], o->create ? MDB_CREATE : 0, &s->dbi[i]);
    if (rc) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

static int open_env(struct store *s, const char *path, const struct store_options *o) {
    int rc = mdb_env_create(&s->env);
    if (rc)
        return rc;
    s->pid = getpid();
    if ((rc = mdb_env_set_maxdbs(s->env, DB_COUNT)) || (rc = mdb_env_set_maxreaders(s->env, MAX_READERS)) ||
        (rc = mdb_env_set_mapsize(s->env, o->map_bytes ? o->map_bytes : DEFAULT_MAP)))
        return rc;
    struct stat st;
    char file[4096];
    bool is_dir = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    if (snprintf(file, sizeof file, is_dir ? "%s/ledger.mdb" : "%s", path) >= (int)sizeof file)
        return ENAMETOOLONG;
    rc = mdb_env_open(s->env, file, MDB_NOSUBDIR | MDB_NOTLS | (o->read_only ? MDB_RDONLY : 0), 0600);
    if (rc)
        return rc;
    (void)mdb_env_get_fd(s->env, &s->fd);
    return open_tables(s, o);
}

enum store_err store_open(struct store *s, const char *path, const struct store_options *o) {
    *s = (struct store){ .fd = -1 };
    int rc = open_env(s, path, o);
    if (rc == 0)
        return STORE_OK;
    enum store_err err = error_of(s, rc, path);
    snprintf(s->message, sizeof s->message, "%.120s: %s", path, mdb_strerror(rc));
    if (s->env)
        mdb_env_close(s->env);
    s->env = NULL;
    return err == STORE_NONE ? STORE_BROKEN : err;
}

void store_close(struct store *s) {
    if (!s->env)
        return;
    assert_mine(s);
    CHECK(!s->txn);
    if (s->reader)
        mdb_txn_abort(s->reader);
    mdb_env_close(s->env);
    s->env = NULL;
    s->reader = NULL;
}

/* The map is full: twice as large. No transaction is open (a parked reader holds no snapshot, but LMDB wants it
 * gone). */
static int grow(struct store *s) {
    MDB_envinfo info;
    if (s->reader)
        mdb_txn_abort(s->reader);
    s->reader = NULL;
    int rc = mdb_env_info(s->env, &info);
    return rc ? rc : mdb_env_set_mapsize(s->env, info.me_mapsize * 2);
}

static int commit(struct store *s) {
    MDB_txn *txn = s->txn;
    s->txn = NULL;
    int fault = SHM_FAULT("commit");
    if (s->fail_commits > 0) {
        s->fail_commits--;
        fault = s->fail_with;
    }
    if (fault) {
        mdb_txn_abort(txn);
        return fault;
    }
    SHM_STEP("commit.written");
    int rc = mdb_txn_commit(txn);
    SHM_STEP("commit.done");
    return rc;
}

enum { MAP_FULL = STORE_BROKEN + 1 }; /* never leaves this file */

/* The flag is the environment's: as a transaction's own, lmdb 0.9 takes it and does not heed it. */
static int begin(struct store *s, bool relaxed) {
    int rc = mdb_env_set_flags(s->env, MDB_NOMETASYNC, relaxed);
    return rc ? rc : mdb_txn_begin(s->env, NULL, 0, &s->txn);
}

static int try_write(struct store *s, enum store_err (*fn)(struct store *s, void *arg), void *arg, bool relaxed) {
    int rc = begin(s, relaxed);
    if (rc == MDB_MAP_RESIZED) { /* a reader process of a later binary grew it */
        rc = mdb_env_set_mapsize(s->env, 0);
        if (rc == 0)
            rc = begin(s, relaxed);
    }
    if (rc) {
        s->txn = NULL;
        return (int)error_of(s, rc, "begin");
    }
    int err = (int)fn(s, arg);
    if (err != STORE_OK) {
        mdb_txn_abort(s->txn);
        s->txn = NULL;
        return err;
    }
    rc = commit(s);
    if (rc == 0)
        s->unsynced = relaxed;
    return rc == MDB_MAP_FULL ? MAP_FULL : (int)error_of(s, rc, "commit");
}

static enum store_err write_with(struct store *s, enum store_err (*fn)(struct store *s, void *arg), void *arg,
                                 bool relaxed) {
    assert_mine(s);
    CHECK(!s->txn);
    for (int tries = 0;; tries++) {
        int err = try_write(s, fn, arg, relaxed);
        if (err != MAP_FULL)
            return (enum store_err)err;
        int rc = tries < 20 ? grow(s) : MDB_MAP_FULL;
        if (rc)
            return error_of(s, rc, "grow");
    }
}

enum store_err store_write(struct store *s, enum store_err (*fn)(struct store *s, void *arg), void *arg) {
    return write_with(s, fn, arg, false);
}
enum store_err store_write_relaxed(struct store *s, enum store_err (*fn)(struct store *s, void *arg), void *arg) {
    return write_with(s, fn, arg, true);
}

enum store_err store_sync(struct store *s) {
    assert_mine(s);
    if (!s->unsynced)
        return STORE_OK;
    int rc = SHM_FAULT("sync");
    if (rc == 0)
        rc = mdb_env_sync(s->env, 1);
    if (rc == 0)
        s->unsynced = false;
    return error_of(s, rc, "sync");
}

enum store_err store_read_begin(struct store *s) {
    assert_mine(s);
    CHECK(!s->txn);
    int rc = s->reader ? mdb_txn_renew(s->reader) : mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->reader);
    if (rc == MDB_MAP_RESIZED) {
        if (s->reader)
            mdb_txn_abort(s->reader);
        s->reader = NULL;
        rc = mdb_env_set_mapsize(s->env, 0);
        if (rc == 0)
            rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->reader);
    }
    if (rc)
        return error_of(s, rc, "read");
    s->txn = s->reader;
    return STORE_OK;
}

void store_read_end(struct store *s) {
    assert_mine(s);
    CHECK(s->txn && s->txn == s->reader);
    mdb_txn_reset(s->reader);
    s->txn = NULL;
}

static MDB_val val(struct slice s) {
    return (MDB_val){ s.len, (void *)(uintptr_t)s.ptr };
}
static struct slice slice_val(MDB_val v) {
    return slice_of(v.mv_data, v.mv_size);
}

/* The fault that a test has ordered for this read; else 0. */
static int read_fault(struct store *s) {
    return s->fail_read > 0 && --s->fail_read == 0 ? s->fail_with : 0;
}

enum store_err store_get(struct store *s, enum store_db db, struct slice key, struct slice *value) {
    assert_mine(s);
    MDB_val k = val(key), v;
    int rc = read_fault(s);
    if (rc == 0)
        rc = key.len ? mdb_get(s->txn, s->dbi[db], &k, &v) : MDB_NOTFOUND;
    if (rc == 0 && value)
        *value = slice_val(v);
    return error_of(s, rc, db_names[db]);
}

static enum store_err put(struct store *s, enum store_db db, struct slice key, struct slice value, unsigned flags) {
    assert_mine(s);
    MDB_val k = val(key), v = val(value);
    int rc = mdb_put(s->txn, s->dbi[db], &k, &v, flags);
    return rc == MDB_MAP_FULL ? (enum store_err)MAP_FULL : error_of(s, rc, db_names[db]);
}
enum store_err store_put(struct store *s, enum store_db db, struct slice key, struct slice value) {
    return put(s, db, key, value, 0);
}
enum store_err store_append(struct store *s, enum store_db db, struct slice key, struct slice value) {
    return put(s, db, key, value, MDB_APPEND);
}
enum store_err store_delete(struct store *s, enum store_db db, struct slice key) {
    assert_mine(s);
    MDB_val k = val(key);
    int rc = mdb_del(s->txn, s->dbi[db], &k, NULL);
    return rc == MDB_MAP_FULL ? (enum store_err)MAP_FULL : error_of(s, rc, db_names[db]);
}

uint64_t store_count(struct store *s, enum store_db db) {
    assert_mine(s);
    MDB_stat st;
    return mdb_stat(s->txn, s->dbi[db], &st) == 0 ? st.ms_entries : 0;
}

enum store_err store_cursor_open(struct store *s, enum store_db db, struct store_cursor *c) {
    assert_mine(s);
    *c = (struct store_cursor){ .store = s };
    MDB_cursor *cursor = NULL;
    int rc = mdb_cursor_open(s->txn, s->dbi[db], &cursor);
    c->cursor = cursor;
    return error_of(s, rc, db_names[db]);
}

static enum store_err move(struct store_cursor *c, MDB_cursor_op op, struct slice key) {
    MDB_val k = val(key), v = { 0, NULL };
    int rc = read_fault(c->store);
    if (rc == 0)
        rc = mdb_cursor_get(c->cursor, &k, &v, op);
    if (rc == 0) {
        c->key = slice_val(k);
        c->value = slice_val(v);
    }
    return error_of(c->store, rc, "cursor");
}
enum store_err store_seek(struct store_cursor *c, struct slice key) { return move(c, MDB_SET_RANGE, key); }
enum store_err store_first(struct store_cursor *c) { return move(c, MDB_FIRST, SLICE_NONE); }
enum store_err store_last(struct store_cursor *c) { return move(c, MDB_LAST, SLICE_NONE); }
enum store_err store_next(struct store_cursor *c) { return move(c, MDB_NEXT, SLICE_NONE); }
enum store_err store_prev(struct store_cursor *c) { return move(c, MDB_PREV, SLICE_NONE); }
void store_cursor_close(struct store_cursor *c) {
    if (c->cursor)
        mdb_cursor_close(c->cursor);
    c->cursor = NULL;
}

enum store_err store_meta(struct store *s, const char *name, void *out, size_t n) {
    struct slice v;
    enum store_err err = store_get(s, DB_META, slice_str(name), &v);
    if (err == STORE_OK && v.len != n)
        err = STORE_BROKEN;
    if (err == STORE_OK)
        memcpy(out, v.ptr, n);
    return err;
}

uint64_t store_last_id(struct store *s, enum store_db db) {
    struct store_cursor c;
    uint64_t id = 0;
    if (store_cursor_open(s, db, &c) == STORE_OK && store_last(&c) == STORE_OK)
        id = c.key.len == 8 ? be64_get(c.key.ptr) : be32_get(c.key.ptr);
    store_cursor_close(&c);
    return id;
}

enum store_err store_each(struct store *s, enum store_db db,
                          enum store_err (*each)(void *arg, struct slice key, struct slice value), void *arg) {
    struct store_cursor c;
    enum store_err err = store_cursor_open(s, db, &c);
    if (err == STORE_OK)
        err = store_first(&c);
    while (err == STORE_OK) {
        err = each(arg, c.key, c.value);
        if (err != STORE_OK) {
            store_cursor_close(&c);
            return err;
        }
        err = store_next(&c);
    }
    store_cursor_close(&c);
    return err == STORE_NONE ? STORE_OK : err;
}

enum store_err store_copy(struct store *s, const char *path) {
    assert_mine(s);
    return error_of(s, mdb_env_copy2(s->env, path, MDB_CP_COMPACT), path);
}

uint64_t store_file_bytes(struct store *s) {
    struct stat st;
    return s->fd >= 0 && fstat(s->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

void store_check_readers(struct store *s) {
    assert_mine(s);
    int dead = 0;
    (void)mdb_reader_check(s->env, &dead);
}
