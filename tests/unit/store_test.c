/* The database and the packed usage records: round trips of random records, damaged blocks, searches by time, a map
 * that grows, errors of every class, an environment that came over a fork. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "master/ledger/pack.h"

struct place { struct store s; char dir[64]; };

static int setup(void **state) {
    struct place *p = calloc(1, sizeof *p);
    snprintf(p->dir, sizeof p->dir, "/tmp/tollgate-store-XXXXXX");
    if (!mkdtemp(p->dir)) return -1;
    struct store_options o = { .create = true, .map_bytes = 1 << 20 };
    assert_int_equal(store_open(&p->s, p->dir, &o), STORE_OK);
    *state = p;
    return 0;
}
static int teardown(void **state) {
    struct place *p = *state;
    char path[128];
    store_close(&p->s);
    static const char *const files[] = { "ledger.mdb", "ledger.mdb-lock", "copy", "copy-lock" };
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", p->dir, files[i]);
        unlink(path);
    }
    rmdir(p->dir);
    free(p);
    return 0;
}

/* The library's writes come by here, under either name: how many waited for the disk by themselves. */
static unsigned synced_writes;
#define COUNTED(name) \
    ssize_t name(int fd, const void *p, size_t n, off64_t at); \
    ssize_t name(int fd, const void *p, size_t n, off64_t at) { \
        ssize_t (*real)(int, const void *, size_t, off64_t); \
        *(void **)&real = dlsym(RTLD_NEXT, #name); \
        synced_writes += (fcntl(fd, F_GETFL) & O_DSYNC) != 0; \
        return real(fd, p, n, at); \
    }
COUNTED(pwrite)
COUNTED(pwrite64)

static uint64_t seed = 12345;
static uint64_t number(void) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    uint64_t r = seed ^ seed >> 29;
    return r >> (r % 64); /* of every magnitude */
}

static char texts[600];
static struct usage_item random_item(uint64_t id, int64_t committed_ms) {
    struct usage_item u = { .id = id,
                            .exchange_id = number(),
                            .account_id = (uint32_t)number(),
                            .key_id = (uint32_t)number(),
                            .model_id = (uint32_t)number(),
                            .upstream_id = (uint32_t)number(),
                            .committed_ms = committed_ms };
    u.prev_account = id > 1 && number() % 3 ? 1 + number() % (id - 1) : 0;
    u.prev_key = id > 1 && number() % 3 ? 1 + number() % (id - 1) : 0;
    u.charge = (int64_t)(number() >> 2);
    u.uncollected = (int64_t)(number() >> 2);
    u.cost_usd_nano = number() % 2 ? u.charge + u.uncollected : (int64_t)number();
    u.time_ms = committed_ms - (int64_t)(number() % 100000);
    for (unsigned i = 0; i < METER_COUNT; i++)
        u.meters.n[i] = number() % 2 ? number() : 0;
    u.status = (uint32_t)(number() % 600);
    u.flags = (uint32_t)(number() % 32);
    u.ttfb_ms = (uint32_t)number();
    u.duration_ms = (uint32_t)number();
    u.dialect = (uint8_t)(number() % 5);
    u.stream = number() % 2;
    u.unit_tokens = number() % 2;
    u.request_id = slice_of(texts + number() % 100, number() % (SHM_REQUEST_ID + 1));
    u.model = slice_of(texts + number() % 100, number() % (SHM_MODEL_NAME + 1));
    return u;
}
static void assert_same(const struct usage_item *a, const struct usage_item *b) {
    struct usage_item x = *a, y = *b;
    assert_true(slice_eq(x.request_id, y.request_id) && slice_eq(x.model, y.model));
    x.request_id = y.request_id = x.model = y.model = SLICE_NONE;
    assert_int_equal(x.id, y.id);
    assert_int_equal(x.time_ms, y.time_ms);
    assert_int_equal(x.charge, y.charge);
    assert_int_equal(x.cost_usd_nano, y.cost_usd_nano);
    assert_memory_equal(&x.meters, &y.meters, sizeof x.meters);
    assert_true(x.exchange_id == y.exchange_id && x.prev_account == y.prev_account && x.prev_key == y.prev_key &&
                x.account_id == y.account_id && x.key_id == y.key_id && x.model_id == y.model_id &&
                x.upstream_id == y.upstream_id && x.uncollected == y.uncollected && x.committed_ms == y.committed_ms &&
                x.status == y.status && x.flags == y.flags && x.ttfb_ms == y.ttfb_ms &&
                x.duration_ms == y.duration_ms && x.dialect == y.dialect && x.stream == y.stream &&
                x.unit_tokens == y.unit_tokens);
}

static void records_round_trip(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof texts; i++)
        texts[i] = (char)(i * 7);
    static struct packer p;
    static uint8_t block[PACK_BLOCK + 2048];
    static struct usage_item items[PACK_BLOCK_RECORDS];
    for (int round = 0; round < 300; round++) {
        uint64_t first = 1 + number() % 1000000;
        pack_begin(&p, first, 1700000000000 + round);
        uint32_t n = 0;
        for (;; n++) {
            items[n % PACK_BLOCK_RECORDS] = random_item(first + n, 1700000000000 + round);
            if (!pack_add(&p, &items[n % PACK_BLOCK_RECORDS]))
                break;
        }
        assert_true(n >= 30);
        size_t len = pack_end(&p, block);
        assert_true(len <= sizeof block);
        uint8_t key[8];
        be64_put(key, first);
        struct block b;
        assert_true(block_open(&b, slice_of((char *)key, 8), slice_of((char *)block, len)));
        assert_int_equal(b.count, n);
        for (uint32_t i = 0; i < n; i++) {
            struct usage_item u;
            assert_true(block_get(&b, i, &u));
            assert_same(&u, &items[i]);
        }
        struct usage_item u;
        assert_false(block_get(&b, n, &u));
    }
}

/* What is damaged is refused or gives other figures, but nothing is read outside the block (a sanitizer watches an
 * exact copy). */
static void damaged_blocks(void **state) {
    (void)state;
    static struct packer p;
    static uint8_t block[PACK_BLOCK + 2048];
    uint8_t key[8];
    be64_put(key, 1);
    pack_begin(&p, 1, 1700000000000);
    for (uint32_t i = 0; i < 20; i++) {
        struct usage_item u = random_item(1 + i, 1700000000000);
        assert_true(pack_add(&p, &u));
    }
    size_t len = pack_end(&p, block);
    for (int round = 0; round < 20000; round++) {
        size_t n = round % 3 == 0 ? number() % (len + 1) : len;
        uint8_t *copy = malloc(n ? n : 1);
        memcpy(copy, block, n);
        for (unsigned i = 0; n > 0 && i < 1 + number() % 4; i++)
            copy[number() % n] = (uint8_t)number();
        struct block b;
        if (block_open(&b, slice_of((char *)key, 8), slice_of((char *)copy, n)))
            for (uint32_t i = 0; i < b.count; i++) {
                struct usage_item u;
                if (!block_get(&b, i, &u))
                    continue;
                assert_true(u.charge >= 0 && u.prev_account < u.id && u.prev_key < u.id);
                for (size_t c = 0; c < u.model.len; c++)
                    (void)*(volatile const char *)&u.model.ptr[c];
            }
        free(copy);
    }
}

struct many { uint64_t first; uint32_t blocks, each; int64_t ms; };
static enum store_err write_blocks(struct store *s, void *arg) {
    struct many *m = arg;
    static struct packer p;
    static uint8_t block[PACK_BLOCK + 2048];
    uint64_t id = m->first;
    for (uint32_t i = 0; i < m->blocks; i++) {
        struct id_key key = key64(id);
        pack_begin(&p, id, m->ms + i * 1000);
        for (uint32_t n = 0; n < m->each; n++, id++) {
            struct usage_item u = {
                .id = id, .charge = (int64_t)id, .time_ms = m->ms + i * 1000, .request_id = SLICE("some-request-id")
            };
            assert_true(pack_add(&p, &u));
        }
        size_t len = pack_end(&p, block);
        enum store_err err = store_append(s, DB_USAGE, ID_SLICE(key), slice_of((char *)block, len));
        if (err != STORE_OK)
            return err;
    }
    return STORE_OK;
}

static void searches(void **state) {
    struct place *p = *state;
    struct usage_reader r;
    assert_int_equal(store_read_begin(&p->s), STORE_OK);
    assert_int_equal(usage_open(&r, &p->s), STORE_OK);
    assert_int_equal(usage_last_id(&r), 0);
    assert_int_equal(usage_first_committed(&r, 5), 1);
    usage_close(&r);
    store_read_end(&p->s);
    struct many m = { 1, 200, 7, 1000000 };
    assert_int_equal(store_write(&p->s, write_blocks, &m), STORE_OK);
    assert_int_equal(store_read_begin(&p->s), STORE_OK);
    assert_int_equal(usage_open(&r, &p->s), STORE_OK);
    assert_int_equal(usage_last_id(&r), 1400);
    struct usage_item u;
    for (uint64_t n = 0; n < 5000; n++) {
        uint64_t id = 1 + number() % 1400;
        assert_int_equal(usage_get(&r, id, &u), STORE_OK);
        assert_int_equal(u.id, id);
        assert_int_equal(u.charge, id);
    }
    assert_int_equal(usage_get(&r, 0, &u), STORE_NONE);
    assert_int_equal(usage_get(&r, 1401, &u), STORE_NONE);
    for (int64_t i = -2; i < 203; i++)
        for (int64_t off = -1; off <= 1; off++) {
            int64_t at = 1000000 + i * 1000 + off;
            int64_t block = at <= 1000000 ? 0 : (at - 1000000 + 999) / 1000;
            uint64_t want = block >= 200 ? 1401 : (uint64_t)block * 7 + 1;
            assert_int_equal(usage_first_committed(&r, at), want);
        }
    usage_close(&r);
    store_read_end(&p->s);
}

/* A map of a megabyte takes many: it grows while other data stays readable, and a reader of an earlier size follows. */
static void map_grows(void **state) {
    struct place *p = *state;
    struct store reader = { 0 };
    int pipes[2][2];
    assert_true(pipe(pipes[0]) == 0 && pipe(pipes[1]) == 0);
    pid_t pid = fork();
    if (pid == 0) { /* a reader process with the map as it was at its start */
        char c;
        struct store_options o = { .read_only = true, .map_bytes = 1 << 20 };
        if (store_open(&reader, p->dir, &o) != STORE_OK) _exit(1);
        if (write(pipes[1][1], "x", 1) != 1 || read(pipes[0][0], &c, 1) != 1) _exit(2);
        struct usage_reader r;
        if (store_read_begin(&reader) != STORE_OK || usage_open(&r, &reader) != STORE_OK) _exit(3);
        _exit(usage_last_id(&r) == 300 * 100 ? 0 : 4);
    }
    char c;
    assert_int_equal(read(pipes[1][0], &c, 1), 1);
    for (uint32_t i = 0; i < 10; i++) {
        struct many m = { 1 + i * 3000, 30, 100, 1000000 + i * 30000 };
        assert_int_equal((i % 2 ? store_write : store_write_relaxed)(&p->s, write_blocks, &m), STORE_OK);
    }
    assert_int_equal(store_sync(&p->s), STORE_OK);
    assert_true(store_file_bytes(&p->s) > 1 << 20);
    assert_int_equal(write(pipes[0][1], "x", 1), 1);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    for (int i = 0; i < 2; i++) close(pipes[i][0]), close(pipes[i][1]);
}

static enum store_err put_one(struct store *s, void *arg) {
    enum store_err err = store_put(s, DB_META, SLICE("k"), slice_str(arg));
    return err;
}
static enum store_err put_and_refuse(struct store *s, void *arg) {
    assert_int_equal(put_one(s, arg), STORE_OK);
    return STORE_NONE;
}
static bool holds(struct store *s, const char *want) {
    struct slice v;
    assert_int_equal(store_read_begin(s), STORE_OK);
    bool ok = store_get(s, DB_META, SLICE("k"), &v) == STORE_OK && slice_is(v, want);
    store_read_end(s);
    return ok;
}

static void errors(void **state) {
    struct place *p = *state;
    assert_int_equal(store_write(&p->s, put_one, "first"), STORE_OK);
    static const struct {
        int error;
        enum store_err err;
    } classes[] = {
        { ENOSPC, STORE_DISK_FULL }, { EDQUOT, STORE_DISK_FULL }, { EIO, STORE_IO }, { EINVAL, STORE_BROKEN }
    };
    for (size_t i = 0; i < 4; i++) {
        p->s.fail_commits = 1;
        p->s.fail_with = classes[i].error;
        assert_int_equal(store_write(&p->s, put_one, "lost"), classes[i].err);
        assert_true(holds(&p->s, "first"));
    }
    assert_int_equal(store_write(&p->s, put_and_refuse, "lost"), STORE_NONE);
    assert_true(holds(&p->s, "first"));
    assert_int_equal(store_write(&p->s, put_one, "second"), STORE_OK);
    assert_true(holds(&p->s, "second"));
    struct store other;
    struct store_options o = { .read_only = true };
    assert_int_equal(store_open(&other, "/nonexistent/x", &o), STORE_BROKEN);
    assert_int_not_equal(strlen(other.message), 0);
}

/* A real limit of the file's size, in the middle of a commit: nothing is written, and it goes on when there is room. */
static void file_size_limit(void **state) {
    struct place *p = *state;
    pid_t pid = fork();
    if (pid == 0) {
        struct store s;
        struct store_options o = { .create = true, .map_bytes = 64 << 20 };
        char dir[128];
        snprintf(dir, sizeof dir, "%s/copy", p->dir);
        signal(SIGXFSZ, SIG_IGN);
        if (store_open(&s, dir, &o) != STORE_OK) _exit(1);
        struct rlimit small = { 400000, RLIM_INFINITY }, large = { RLIM_INFINITY, RLIM_INFINITY };
        struct many m = { 1, 10, 100, 1000 };
        if (store_write(&s, write_blocks, &m) != STORE_OK) _exit(2);
        setrlimit(RLIMIT_FSIZE, &small);
        enum store_err err = STORE_OK;
        for (m.first = 1001; err == STORE_OK && m.first < 100000; m.first += err == STORE_OK ? 1000 : 0)
            err = store_write(&s, write_blocks, &m);
        if (err != STORE_DISK_FULL) _exit(3); /* though a short write is EIO to LMDB */
        if (store_write(&s, write_blocks, &m) != STORE_DISK_FULL) _exit(4);
        setrlimit(RLIMIT_FSIZE, &large);
        if (store_write(&s, write_blocks, &m) != STORE_OK) _exit(5);
        struct usage_reader r;
        struct usage_item u;
        if (store_read_begin(&s) != STORE_OK || usage_open(&r, &s) != STORE_OK) _exit(6);
        for (uint64_t id = 1; id < m.first + 1000; id++)
            if (usage_get(&r, id, &u) != STORE_OK || u.charge != (int64_t)id) _exit(7);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void not_across_a_fork(void **state) {
    struct place *p = *state;
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        fclose(stderr);
        (void)store_read_begin(&p->s);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void copies(void **state) {
    struct place *p = *state;
    char path[128];
    snprintf(path, sizeof path, "%s/copy", p->dir);
    struct many m = { 1, 50, 100, 1000 };
    assert_int_equal(store_write(&p->s, write_blocks, &m), STORE_OK);
    assert_int_equal(store_copy(&p->s, path), STORE_OK);
    struct stat st;
    assert_true(stat(path, &st) == 0 && (uint64_t)st.st_size <= store_file_bytes(&p->s));
    struct store copy;
    struct store_options o = { 0 };
    assert_int_equal(store_open(&copy, path, &o), STORE_OK);
    struct usage_reader r;
    assert_int_equal(store_read_begin(&copy), STORE_OK);
    assert_int_equal(usage_open(&r, &copy), STORE_OK);
    assert_int_equal(usage_last_id(&r), 5000);
    usage_close(&r);
    store_read_end(&copy);
    store_close(&copy);
}

static enum store_err write_entry(struct store *s, void *arg) {
    return store_put(s, DB_META, SLICE("test"), slice_of(arg, sizeof(int)));
}

/* A relaxed transaction syncs its pages and leaves its meta page to the next sync; the others do not. */
static void one_sync_a_group(void **state) {
    struct place *p = *state;
    for (int i = 0; i < 6; i++) {
        synced_writes = 0;
        assert_int_equal((i % 2 ? store_write : store_write_relaxed)(&p->s, write_entry, &i), STORE_OK);
        assert_int_equal(synced_writes, i % 2);
        assert_int_equal(p->s.unsynced, i % 2 == 0);
    }
    assert_int_equal(store_sync(&p->s), STORE_OK);
    assert_false(p->s.unsynced);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_round_trip),
        cmocka_unit_test(damaged_blocks),
        TEST(searches),
        TEST(map_grows),
        TEST(errors),
        TEST(file_size_limit),
        TEST(not_across_a_fork),
        TEST(copies),
        TEST(one_sync_a_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
