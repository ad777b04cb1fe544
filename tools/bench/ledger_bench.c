/* What the ledger costs: CPU a record in group commits of 100 and 1,000, for one account and for many; a start with
 * many keys; an audit and reports over many records. usage: ledger_bench [KEYS [RECORDS]] (1,000,000 each; KEYS 0
 * leaves the start-up part out)
 *
 * ledger_bench leave DIR RECORDS: makes the records by the ledger's own code, as if they had come over the last 30
 * days, and leaves DIR as the state_dir of a server (tools/bench/usage.mjs starts one on it). Half of them are one
 * account's. */
#include <sys/syscall.h>
#include <time.h>
#include "tests/unit/ledger_fixture.h"

static int64_t behind_s; /* how far the wall clock of this program is behind */

/* Stands before libc's for the whole program, so that the ledger's own clock goes as `behind_s` says. */
int clock_gettime(clockid_t id, struct timespec *ts) {
    long r = syscall(SYS_clock_gettime, id, ts);
    if (id == CLOCK_REALTIME)
        ts->tv_sec -= behind_s;
    return (int)r;
}

static double cpu_us(void) { /* microseconds */
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}
static double wall_s(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Accounts 1..n with a key each, straight through the calls. */
static void make_tenants(struct rig *r, uint32_t n) {
    for (uint32_t i = r->l.next_account_id; i <= n; i++) {
        rig_call(r, "{'cmd':'account.create','email':'n%u@x.y','credit':'1000000'}", i);
        rig_call(r, "{'cmd':'key.create','account':'n%u@x.y'}", i);
        arena_reset(&r->arena);
    }
}

/* A call of that account's key, with a request id as long as the gateway's own. */
static void push(struct rig *r, uint32_t account_id, uint32_t key_id, const char *model, uint32_t n, int64_t charge) {
    struct tenant t = { .account = ledger_account_index(&r->l, account_id), .key = ledger_key_index(&r->l, key_id) };
    struct shm_usage u = rig_usage(r, &t, model);
    char id[32];
    u.request_id_len = (uint16_t)snprintf(id, sizeof id, "req_hf13s8eumddgirea%08x", n);
    memcpy(u.request_id, id, u.request_id_len);
    struct shm_slot *slot = rig_admit(r, n % 2, &u, charge);
    CHECK(slot);
    rig_settle(r, n % 2, slot, charge);
}

static uint32_t random_of(uint32_t *seed) { return *seed = *seed * 1664525 + 1013904223; }

static void commits(struct rig *r, uint32_t batch, uint32_t tenants, uint32_t records) {
    double cpu = 0, wall = 0, checkpoint = 0;
    uint32_t seed = 1, checkpoints = 0;
    for (uint32_t n = 0; n < records; n += batch) {
        for (uint32_t i = 0; i < batch; i++) {
            uint32_t tenant = 1 + (random_of(&seed) >> 8) % tenants;
            push(r, tenant, tenant, tenant % 2 ? "mini" : "gpt-4o", tenant, 1000 + (seed & 1023));
        }
        double c = cpu_us(), w = wall_s();
        CHECK(drain_commit(&r->l) == STORE_OK);
        cpu += cpu_us() - c;
        wall += wall_s() - w;
        if (r->l.checkpoint_ns == 1 ||
            (n + batch) % 100000 < batch) { /* at 20,000 records a second: every five seconds */
            c = cpu_us();
            CHECK(checkpoint_commit(&r->l) == STORE_OK);
            checkpoint += cpu_us() - c;
            checkpoints++;
        }
    }
    printf("groups of %4u, %5u accounts: %.2f us CPU a record (and %.2f for %u checkpoints), %.0f us a commit, %.0f "
           "records/s\n",
           batch, tenants, cpu / records, checkpoint / records, checkpoints, wall * 1e6 * batch / records,
           records / wall);
}

static void timed_call(struct rig *r, const char *what, const char *call) {
    double w = wall_s();
    struct json j = rig_call(r, call);
    printf("%-46s %.3f s  (%zu bytes)\n", what, wall_s() - w, j.len);
    if (json_get(&j, 0, "error") >= 0)
        printf("  %.*s\n", (int)(j.len < 300 ? j.len : 300), j.text);
    arena_reset(&r->arena);
}

static void reports(struct rig *r) {
    timed_call(r, "audit", "{'cmd':'audit'}");
    timed_call(r, "usage, newest 50", "{'cmd':'usage'}");
    timed_call(r, "usage of an account, newest 50", "{'cmd':'usage','account':'n7@x.y'}");
    timed_call(r, "usage, newest 10,000", "{'cmd':'usage','limit':10000}");
    timed_call(r, "usage by model", "{'cmd':'usage','by':'model'}");
    timed_call(r, "usage by account, last 30 days", "{'cmd':'usage','by':'account','since':'30d'}");
    timed_call(r, "usage by day of a key", "{'cmd':'usage','by':'day','key':'key_00000007'}");
    char text[200];
    snprintf(text, sizeof text, "{'cmd':'backup','file':'%s/backup'}", r->dir);
    timed_call(r, "backup, audited", text);
}

static void start_up(struct rig *r, uint32_t keys) {
    double w = wall_s();
    char *text = malloc(8 << 20);
    for (uint32_t n = 0; n < keys;) {
        size_t at = (size_t)sprintf(text, "{\"cmd\":\"key.import\",\"account\":\"n1@x.y\",\"keys\":[");
        for (uint32_t i = 0; i < 20000 && n < keys; i++, n++)
            at += (size_t)sprintf(text + at, "%s\"old-%08x-abcdefghijklmnopqrstuvwx\"", i ? "," : "", n);
        at += (size_t)sprintf(text + at, "]}");
        rig_send(r, IPC_FROM_CONTROL, slice_of(text, at));
        arena_reset(&r->arena);
    }
    free(text);
    printf("import of %u keys: %.2f s\n", keys, wall_s() - w);
    rig_stop(r, true);
    unlink(r->segment);
    w = wall_s();
    CHECK(rig_start(r));
    printf("start with %u keys, new segment: %.2f s\n", r->l.key_count, wall_s() - w);
    rig_stop(r, true);
    w = wall_s();
    CHECK(rig_start(r));
    printf("start with %u keys, segment kept: %.2f s\n", r->l.key_count, wall_s() - w);
}

/* ---- a state_dir to leave ---------------------------------------------------------------------------------------- */

enum { PERIOD_S = 30 * 86400, TENANTS = 2000, BATCH = 1000, RARE_KEY = 50000, RARE_MODEL = 500000 };

/* One more key of account 1; its id. The secret is printed. */
static uint32_t heavy_key(struct rig *r, const char *name) {
    struct json j = rig_call(r, "{'cmd':'key.create','account':'n1@x.y','name':'%s'}", name);
    uint64_t id = rig_id(rig_at(r, &j, "result.id"));
    printf("%s %.*s %.*s\n", name, SLICE_ARG(rig_at(r, &j, "result.id")), SLICE_ARG(rig_at(r, &j, "result.key")));
    arena_reset(&r->arena);
    return (uint32_t)id;
}

static void leave(struct rig *r, const char *dir, uint32_t records) {
    uint32_t seed = 1;
    behind_s = PERIOD_S;
    snprintf(r->state, sizeof r->state, "%s", dir);
    CHECK(mkdir(dir, 0700) == 0 || errno == EEXIST);
    CHECK(rig_start(r));
    make_tenants(r, TENANTS);
    uint32_t main_key = heavy_key(r, "main"), rare = heavy_key(r, "rare"), old = heavy_key(r, "old");
    for (uint32_t n = 0; n < records; n++) {
        uint32_t other = 2 + (random_of(&seed) >> 8) % (TENANTS - 1);
        bool heavy = seed >> 31;
        uint32_t key = n % RARE_KEY < 2 ? rare : n < records / 20 ? old : main_key;
        const char *model = n % RARE_MODEL < 2 ? "fam/rare" : (seed >> 12) % 200 == 0 ? "mini" : "gpt-4o";
        push(r, heavy ? 1 : other, heavy ? key : other, model, n, 1000 + n % 1000);
        if (n % BATCH == BATCH - 1 || n + 1 == records) {
            CHECK(drain_commit(&r->l) == STORE_OK);
            behind_s = PERIOD_S - (int64_t)PERIOD_S * n / records;
        }
        if (n % 100000 == 99999)
            CHECK(checkpoint_commit(&r->l) == STORE_OK);
    }
    CHECK(rig_audit(r) == 0);
    printf("%llu records, database %.1f MB\n", (unsigned long long)r->l.next_usage - 1,
           (double)store_file_bytes(&r->l.store) / 1e6);
    rig_stop(r, true);
    unlink(r->segment);
    (void)rmdir(r->dir);
}

int main(int argc, char **argv) {
    static struct rig r;
    if (argc == 4 && strcmp(argv[1], "leave") == 0) {
        rig_init(&r);
        (void)rmdir(r.state);
        r.map_bytes = (size_t)64 << 30;
        r.sizes = (struct shm_sizes){ .max_accounts = 20000, .max_keys = 40000, .max_active = 4096, .max_ranges = 4 };
        leave(&r, argv[2], (uint32_t)strtoul(argv[3], NULL, 10));
        return 0;
    }
    uint32_t keys = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000000;
    uint32_t records = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1000000;
    rig_init(&r);
    r.map_bytes = (size_t)16 << 30;
    r.sizes =
        (struct shm_sizes){ .max_accounts = 20000, .max_keys = keys + 20000, .max_active = 4096, .max_ranges = 4 };
    CHECK(rig_start(&r));
    make_tenants(&r, 2000);
    commits(&r, 10, 1, records / 20);
    commits(&r, 100, 1, records / 4);
    commits(&r, 1000, 1, records / 4);
    commits(&r, 100, 2000, records / 4);
    commits(&r, 1000, 2000, records / 5);
    printf("%llu records, database %.1f MB\n", (unsigned long long)r.l.next_usage - 1,
           (double)store_file_bytes(&r.l.store) / 1e6);
    reports(&r);
    if (keys)
        start_up(&r, keys);
    rig_stop(&r, true);
    rig_remove(&r);
    return 0;
}
