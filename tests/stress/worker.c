/* A worker that does nothing but money: admits, delivers, lowers, settles exchanges at random on its slots, and sleeps now and then. */
#include <poll.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/check.h"
#include "tests/stress/world.h"

static struct money money;

static _Atomic uint8_t *fact_of(uint64_t id) {
    uint64_t n = id - world->first_id[money.range];
    CHECK(n < MAX_EXCHANGES);
    return &world->fact[money.range][n];
}

struct exchange exchange_of(uint64_t id) {
    uint64_t h = id * 0x9e3779b97f4a7c15ull;
    h ^= h >> 29;
    struct exchange x = { .key = (uint32_t)(h % KEYS), .price = (int64_t)(h >> 8 & 7) + 1, .hold = (int64_t)(h >> 16 & 63) + 1 };
    x.account = x.key % ACCOUNTS;
    return x;
}

static void admit(void) {
    struct exchange x = exchange_of(atomic_load(&shm.ranges[money.range].next_exchange_id));
    struct shm_key key;
    if (!money_has_room(&money) || !shm_key_read(&shm, x.key, &key)) return;
    struct shm_usage u = { .account = x.account, .key = x.key, .capped = key.capped, .prompt_tokens = 1, .ratio_millionths = RATIO_ONE,
                           .price_input = (uint64_t)x.price * 1000, .price_output = (uint64_t)x.price * 1000,
                           .request_id_len = 9, .request_id = "req-12345" };
    struct shm_slot *slot = money_begin(&money, &u);
    if (!money_concurrency(&money, slot, 40)) money_refuse(&money, slot, false);
    else if (money_hold(&money, slot, x.hold) != MONEY_OK) money_refuse(&money, slot, true);
}

/* A chunk of four bytes goes to the client. */
static void deliver(struct shm_slot *slot) {
    _Atomic uint8_t *fact = fact_of(slot->usage.exchange_id);
    uint64_t bytes = atomic_load(&slot->delivered_bytes) + 4;
    bool late = SHM_MUTATE(MUT_DELIVERED_LATE);
    atomic_store(fact, *fact | INTENDED);
    if (!late) money_delivered(slot, bytes);
    SHM_STEP("deliver.slot");
    atomic_store(fact, *fact | RECEIVED);
    SHM_STEP("deliver.client");
    if (late) money_delivered(slot, bytes);
}

static void finish(struct shm_slot *slot) {
    struct exchange x = exchange_of(slot->usage.exchange_id);
    struct shm_record r = { .status = 200 };
    if (atomic_load(&slot->delivered)) r.charge = x.price * (int64_t)(1 + atomic_load(&slot->delivered_bytes) / 4);
    if (money_settle(&money, slot, &r)) {
        uint64_t one = 1;
        if (write(wake_fd, &one, sizeof one) < 0) { /* full: it is awake */ }
    }
    atomic_fetch_add_explicit(&world->exchanges, 1, memory_order_relaxed);
}

static void act(void) {
    struct shm_slot *slot = shm_slot(&shm, money.range, (uint32_t)(rnd() % SLOTS));
    bool stopping = atomic_load_explicit(&world->stop, memory_order_relaxed);
    if (atomic_load(&slot->state) == SLOT_FREE) {
        if (!stopping) admit();
        return;
    }
    uint64_t what = rnd() % 8;
    if (stopping || what < 2) finish(slot);
    else if (what < 7) deliver(slot);
    else money_lower(&money, slot, atomic_load(&slot->hold) - atomic_load(&slot->hold) / 4); /* never to nothing */
}

_Noreturn void worker_main(int range) {
    CHECK(money_attach(&money, &shm, (uint32_t)range) == 0);
    for (;;) {
        money_top(&money, shm_clock_ns());
        uint64_t n = rnd() % 24;
        for (uint64_t i = 0; i < n; i++) act();
        if (rnd() % 4) continue;
        money_idle(&money);
        SHM_STEP("epoll");
        poll(NULL, 0, rnd() % 8 == 0); /* mostly events wait already */
        money_wake(&money);
        if (atomic_load(&world->stop) && money.live == 0) poll(NULL, 0, 1);
        act(); /* the events of this wake-up come before the next top */
    }
}
