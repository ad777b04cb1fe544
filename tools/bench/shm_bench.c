/* What the calls of shm/ cost, in processor time of one process; and a whole recovery of large tables. */
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include "shm/money.h"
#include "shm/rate.h"
#include "shm/recover.h"

enum { ACCOUNTS = 100000, KEYS = 100000, ROUNDS = 2000000 };

static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int64_t rich(void *arg, uint32_t index) {
    (void)arg;
    (void)index;
    return 1ll << 60;
}
static uint64_t watermark(void *arg, uint32_t range) { return atomic_load(&((struct shm *)arg)->ranges[range].tail); }

static struct shm shm;
static struct money money;
static uint64_t since;

static void begin(void) { since = cpu_ns(); }
static void end(const char *what, double n) { printf("%-58s %8.1f ns\n", what, (double)(cpu_ns() - since) / n); }

static struct shm_slot *admit(int64_t hold) {
    static const struct shm_usage usage = {
        .account = 5, .key = 6, .request_id_len = 36, .model_len = 12, .ratio_millionths = RATIO_ONE
    };
    struct shm_slot *slot = money_begin(&money, &usage);
    money_concurrency(&money, slot, 100);
    money_hold(&money, slot, hold);
    return slot;
}

static void bench_money(void) {
    begin();
    for (uint64_t i = 0; i < ROUNDS; i++) money_refuse(&money, admit(0), true);
    end("admission: slot, concurrency, hold; and its refusal", ROUNDS);
    begin();
    for (uint64_t i = 0; i < ROUNDS; i++) {
        struct shm_record r = { .charge = 10 };
        money_settle(&money, admit(1000), &r);
        atomic_store(&shm.ranges[0].tail, i + 1);
    }
    end("a whole exchange: admission, record, words", ROUNDS);
    begin();
    for (uint64_t i = 0; i < ROUNDS * 5; i++) money_top(&money, i);
    end("the top of a turn", ROUNDS * 5);
    begin();
    for (uint64_t i = 0; i < ROUNDS * 5; i++) {
        money_idle(&money);
        money_wake(&money);
    }
    end("falling asleep and waking", ROUNDS * 5);
}

static void bench_rate(void) {
    struct rate r = { 1000000000, 1000000000 };
    _Atomic uint64_t word = 0;
    struct rate_view view;
    uint64_t set;
    begin();
    for (uint64_t i = 0; i < ROUNDS * 5; i++) rate_take(&word, &r, 10, i * 100, &set, &view);
    end("a rate limit, with what the headers say", ROUNDS * 5);
}

static void key_hash(uint64_t n, uint8_t hash[32]) {
    uint64_t h = n * 0x9e3779b97f4a7c15ull;
    memset(hash, 0, 32);
    memcpy(hash, &h, sizeof h);
}

static void bench_keys(void) {
    struct shm_key k = { .status = KEY_ACTIVE };
    begin();
    for (uint32_t i = 0; i < KEYS; i++) {
        key_hash(i, k.hash);
        shm_key_publish(&shm, i, &k);
    }
    end("publishing a key", KEYS);
    uint64_t found = 0;
    begin();
    for (uint64_t i = 0; i < ROUNDS; i++) {
        uint8_t hash[32];
        uint32_t index;
        key_hash(i * 7919 % KEYS, hash);
        found += shm_key_find(&shm, hash, &index) && shm_key_read(&shm, index, &k);
    }
    end("finding and reading one of 100,000 keys", ROUNDS);
    if (found != ROUNDS) printf("keys were not found\n");
}

static void bench_recovery(const struct recover_truth *truth) {
    struct recover_stats stats = { 0 };
    recover_cold(&shm, truth, &stats);
    begin();
    for (int i = 0; i < 10; i++) recover_cold(&shm, truth, &stats);
    end("all words of 100,000 accounts and 100,000 keys", 10);
    begin();
    for (int i = 0; i < 1000; i++) {
        atomic_store(&shm.ranges[3].state, RANGE_DEAD);
        recover_dead(&shm, truth, &stats);
    }
    end("a pause for a worker that held nothing", 1000);
}

int main(void) {
    const struct shm_sizes sizes = { ACCOUNTS, KEYS, 4096, 8 };
    char path[64], err[256];
    int rw_fd, ro_fd;
    bool fresh;
    snprintf(path, sizeof path, "/dev/shm/tollgate-bench.%d", (int)getpid());
    if (shm_open_segment(&shm, path, &sizes, &rw_fd, &ro_fd, &fresh, err, sizeof err) != 0) {
        fprintf(stderr, "%s\n", err);
        return 1;
    }
    unlink(path);
    const struct recover_truth truth = {
        .arg = &shm, .account_committed = rich, .key_committed = rich, .watermark = watermark
    };
    struct recover_stats stats = { 0 };
    recover_cold(&shm, &truth, &stats);
    atomic_store(&shm.ranges[0].state, RANGE_LIVE);
    if (money_attach(&money, &shm, 0) != 0) return 1;
    bench_money();
    bench_rate();
    bench_keys();
    money_idle(&money);
    bench_recovery(&truth);
    return 0;
}
