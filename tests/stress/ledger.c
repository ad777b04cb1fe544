/* The stress test's ledger: LMDB for the truth, the real recovery for the words. One transaction for what it drained and the watermark. */
#include <lmdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/check.h"
#include "tests/stress/world.h"

struct store store;
static MDB_env *env;
static MDB_dbi dbi;

static void must(int r, const char *what) {
    if (r == 0) return;
    fprintf(stderr, "%s: %s\n", what, mdb_strerror(r));
    _exit(3);
}

/* ---- the store --------------------------------------------------------------------------------------------------- */

static void put(MDB_txn *t, const void *key, size_t key_len, const void *p, size_t n) {
    MDB_val k = { key_len, (void *)(uintptr_t)key }, v = { n, (void *)(uintptr_t)p };
    must(mdb_put(t, dbi, &k, &v, 0), "put");
}

static bool get(MDB_txn *t, const void *key, size_t key_len, void *p, size_t n) {
    MDB_val k = { key_len, (void *)(uintptr_t)key }, v;
    int r = mdb_get(t, dbi, &k, &v);
    if (r == MDB_NOTFOUND) return false;
    must(r, "get");
    CHECK(v.mv_size == n);
    memcpy(p, v.mv_data, n);
    return true;
}

/* Kills are of processes, not of power: what was committed is in the page cache, no sync is needed. */
void store_open(void) {
    MDB_txn *t;
    must(mdb_env_create(&env), "env");
    must(mdb_env_set_mapsize(env, 4ull << 30), "mapsize");
    must(mdb_env_open(env, store_path, MDB_NOSYNC, 0600), "open");
    must(mdb_txn_begin(env, NULL, 0, &t), "begin");
    must(mdb_dbi_open(t, NULL, 0, &dbi), "dbi");
    get(t, "store", 5, &store, sizeof store);
    must(mdb_txn_commit(t), "commit");
}

static MDB_txn *begin(void) {
    MDB_txn *t;
    must(mdb_txn_begin(env, NULL, 0, &t), "begin");
    return t;
}

static void commit(MDB_txn *t) {
    put(t, "store", 5, &store, sizeof store);
    SHM_STEP("db.put");
    must(mdb_txn_commit(t), "commit");
    atomic_fetch_add(&world->commits, 1);
    SHM_STEP("db.committed");
}

void store_make(void) {
    mkdir(store_path, 0700);
    store_open();
    for (int i = 0; i < ACCOUNTS; i++) store.account[i].balance = START;
    for (int i = 0; i < KEYS; i++) store.key[i] = (struct key_row){ .limit = KEY_LIMIT, .capped = i % 3 == 0 };
    for (int i = 0; i < WORKERS; i++) store.watermark[i] = 0;
    commit(begin());
    mdb_env_close(env);
}

bool store_usage(uint64_t id, struct usage_row *row) {
    static MDB_txn *t;
    if (!t) must(mdb_txn_begin(env, NULL, MDB_RDONLY, &t), "begin");
    uint64_t key = __builtin_bswap64(id);
    return get(t, &key, sizeof key, row, sizeof *row);
}

/* ---- the truth --------------------------------------------------------------------------------------------------- */

static int64_t account_committed(void *arg, uint32_t a) { (void)arg; return a < ACCOUNTS ? store.account[a].balance : 0; }
static int64_t key_committed(void *arg, uint32_t k) { (void)arg; return k < KEYS ? store.key[k].limit - store.key[k].spent : 0; }
static uint64_t watermark(void *arg, uint32_t range) { (void)arg; return range < WORKERS ? store.watermark[range] : 0; }
static bool quit(void *arg) { (void)arg; return getppid() == 1; }
static void hung(void *arg, uint32_t range) {
    (void)arg;
    atomic_fetch_add(&world->hung, 1);
    atomic_store(&world->kill_me[range], 1);
}
static const struct recover_truth truth = { NULL, account_committed, key_committed, watermark, quit, hung };
static struct recover_stats stats;

static void sample(enum sample kind, uint64_t ns) {
    uint32_t i = atomic_fetch_add(&world->samples[kind], 1);
    if (i < SAMPLES) world->sample_ns[kind][i] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

/* Adds what a recovery did to the counts that survive this process. */
static void note(enum sample kind, int result) {
    static struct recover_stats seen;
    if (result < 0) _exit(0);
    if (stats.pauses > seen.pauses) {
        sample(kind, stats.last_ns);
        atomic_fetch_add(&world->recoveries, 1);
    }
    atomic_fetch_add(&world->settled, stats.settled - seen.settled);
    atomic_fetch_add(&world->repaired, stats.repaired_words - seen.repaired_words);
    atomic_fetch_add(&world->no_room, stats.no_room - seen.no_room);
    seen = stats;
}

/* ---- what it does ------------------------------------------------------------------------------------------------ */

static void take_record(MDB_txn *t, const struct shm_record *r, uint64_t seq) {
    if (r->seq != seq || r->checksum != shm_record_checksum(r)) {
        atomic_fetch_add(&world->torn, 1);
        return;
    }
    struct exchange x = exchange_of(r->usage.exchange_id);
    if (r->usage.account != x.account || r->usage.key != x.key) atomic_fetch_add(&world->unpaired, 1);
    struct account_row *a = &store.account[r->usage.account % ACCOUNTS];
    struct key_row *k = &store.key[r->usage.key % KEYS];
    if (k->capped && !r->usage.capped) atomic_fetch_add(&world->unpaired, 1);
    a->balance -= r->charge;
    a->charges += r->charge;
    k->spent += r->charge;
    if (a->balance < 0) atomic_fetch_add(&world->negative, 1);
    uint64_t key = __builtin_bswap64(r->usage.exchange_id);
    struct usage_row row = { 0, 0 };
    get(t, &key, sizeof key, &row, sizeof row);
    row.times++;
    row.charge += r->charge;
    put(t, &key, sizeof key, &row, sizeof row);
}

static bool drain(void) {
    uint64_t head[WORKERS], n = 0;
    for (uint32_t i = 0; i < WORKERS; i++) {
        head[i] = atomic_load_explicit(&shm.ranges[i].head, memory_order_acquire);
        n += head[i] - store.watermark[i];
    }
    if (n == 0) return false;
    SHM_STEP("drain.read");
    MDB_txn *t = begin();
    for (uint32_t i = 0; i < WORKERS; i++) {
        for (; store.watermark[i] < head[i]; store.watermark[i]++) take_record(t, shm_ring(&shm, i, store.watermark[i]), store.watermark[i]);
    }
    commit(t);
    atomic_fetch_add(&world->records, n);
    for (uint32_t i = 0; i < WORKERS; i++) {
        atomic_store_explicit(&shm.ranges[i].tail, head[i], memory_order_release);
        SHM_STEP("drain.tail");
    }
    return true;
}

static void credit(uint32_t a) {
    int64_t amount = 500 + (int64_t)(rnd() % 4000);
    recover_name(&shm, a, UINT32_MAX);
    store.account[a].balance += amount;
    store.account[a].credits += amount;
    commit(begin());
    recover_credit(&shm, a, amount);
    recover_unname(&shm);
    atomic_fetch_add(&world->credited[a], amount);
    SHM_STEP("credit.acknowledged");
}

static void debit(uint32_t a) {
    int64_t amount = 1 + (int64_t)(rnd() % 50);
    recover_name(&shm, a, UINT32_MAX);
    if (recover_debit(&shm, a, amount, false)) {
        store.account[a].balance -= amount;
        store.account[a].debits += amount;
        commit(begin());
    }
    recover_unname(&shm);
}

static struct shm_key key_entry(uint32_t k) {
    struct shm_key e = { .status = KEY_ACTIVE, .id = k + 1, .account = k % ACCOUNTS, .capped = store.key[k].capped };
    memcpy(e.hash, &k, sizeof k);
    return e;
}

/* A limit is raised, taken away, or set on a key with calls in flight. */
static void change_limit(uint32_t k) {
    struct key_row *row = &store.key[k];
    int64_t more = 2000 + (int64_t)(rnd() % 2000);
    recover_name(&shm, UINT32_MAX, k);
    bool set = !row->capped, drop = row->capped && rnd() % 4 == 0;
    if (set) row->limit = row->spent + more;
    else row->limit += drop ? 0 : more;
    row->capped = !drop;
    commit(begin());
    struct shm_key e = key_entry(k);
    if (set) note(DRILL, recover_cap_key(&shm, &truth, &stats, k, &e));
    else if (drop) CHECK(shm_key_publish(&shm, k, &e));
    else recover_key_add(&shm, k, more);
    recover_unname(&shm);
}

static bool any_dead(void) {
    for (uint32_t i = 0; i < WORKERS; i++)
        if (atomic_load(&shm.ranges[i].state) == RANGE_DEAD) return true;
    return false;
}

/* All workers stop for a moment: every word against the truth. */
static void drill(void) {
    uint64_t start_ns = shm_clock_ns();
    int differ = recover_verify(&shm, &truth);
    if (differ < 0) _exit(0);
    sample(DRILL, shm_clock_ns() - start_ns);
    atomic_fetch_add(&world->drills, 1);
    atomic_fetch_add(&world->drift_words, (uint64_t)differ);
}

static void start(void) {
    store_open();
    if (SHM_MUTATE(MUT_DRAIN_FROM_TAIL))
        for (uint32_t i = 0; i < WORKERS; i++) store.watermark[i] = atomic_load(&shm.ranges[i].tail);
    SHM_STEP("ledger.opened");
    bool cold = !atomic_load(&world->ready) || rnd() % 4 == 0;
    if (!atomic_load(&world->ready)) {
        for (uint32_t k = 0; k < KEYS; k++) {
            struct shm_key e = key_entry(k);
            CHECK(shm_key_publish(&shm, k, &e));
        }
    }
    note(RESTART, cold ? recover_cold(&shm, &truth, &stats) : recover_restart(&shm, &truth, &stats));
    if (SHM_MUTATE(MUT_NO_RECOVERY) && !atomic_load(&world->ready)) {
        for (uint32_t a = 0; a < ACCOUNTS; a++) atomic_store(&shm.account_words[a].available, START);
        for (uint32_t k = 0; k < KEYS; k++) atomic_store(&shm.key_words[k].available, KEY_LIMIT);
    }
    for (uint32_t k = 0; k < KEYS; k++) { /* limits that a predecessor committed and did not come to publish */
        struct shm_key e = key_entry(k);
        if (shm.keys[k].capped == e.capped) continue;
        recover_name(&shm, UINT32_MAX, k);
        note(RESTART, recover_cap_key(&shm, &truth, &stats, k, &e));
        recover_unname(&shm);
    }
    atomic_store(&world->ready, 1);
}

static void sleep_until_woken(void) {
    uint64_t n;
    atomic_store(&shm.shared->ledger_asleep, 1);
    atomic_thread_fence(memory_order_seq_cst);
    bool more = false;
    for (uint32_t i = 0; i < WORKERS; i++) more |= atomic_load(&shm.ranges[i].head) != store.watermark[i];
    struct pollfd p = { .fd = wake_fd, .events = POLLIN };
    if (!more && poll(&p, 1, 2) > 0 && read(wake_fd, &n, sizeof n) < 0) { /* someone else's wake: fine */ }
    atomic_store(&shm.shared->ledger_asleep, 0);
}

_Noreturn void ledger_main(void) {
    start();
    uint64_t next_drill_ns = shm_clock_ns() + rnd() % 30000000;
    for (;;) {
        if (getppid() == 1) _exit(0);
        if (any_dead()) note(DEATH, recover_dead(&shm, &truth, &stats));
        bool idle = !drain();
        uint32_t a = (uint32_t)(rnd() % ACCOUNTS), k = (uint32_t)(rnd() % KEYS);
        if (!atomic_load(&world->stop)) {
            if (atomic_load(&shm.account_words[a].available) < 1000) credit(a);
            else if (rnd() % 16 == 0) debit(a);
            if (atomic_load(&shm.key_words[k].available) < 300 ? rnd() % 8 == 0 : rnd() % 512 == 0) change_limit(k);
        }
        if (shm_clock_ns() > next_drill_ns) {
            drill();
            next_drill_ns = shm_clock_ns() + 10000000 + rnd() % 30000000;
        }
        if (idle && atomic_load(&world->finish)) {
            drill();
            _exit(0);
        }
        if (idle) sleep_until_woken();
    }
}
