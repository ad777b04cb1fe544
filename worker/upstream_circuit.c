/* Circuit and provider keys: what one worker learns of an upstream, all know, through shm_upstream.
 *
 * Closed: everything passes. Five failures in a row open it for `cooldown`; then it is half open: one request a
 * window (a compare-and-swap on half_open_until_ns, over all workers) goes there, and its end decides. No order
 * between the words is needed: each is right alone, and a race costs one request more or less on a failing upstream.
 * Only a whole answer ends the row of failures; a stream that has begun closes an open circuit (it may last for long),
 * but where it breaks the circuit opens again at once: an upstream that breaks all it begins is found out.
 * A health check proves that connections can be made and no more: it closes a circuit only if connecting is what
 * failed last. Success is written at most every 20 ms a worker, so that the line is not fought over. */
#include "worker/upstream_pool.h"

enum { FAILURES_OPEN = 5, SUCCESS_EVERY_NS = 20000000, LATENCY_SHIFT = 3 };

static struct shm_upstream *upstream_words(struct worker *w, uint32_t id) {
    CHECK(id < SHM_MAX_UPSTREAMS);
    return &w->shm.upstreams[id];
}

bool upstream_usable(struct worker *w, const struct snap_upstream *up) {
    struct shm_upstream *s = upstream_words(w, up->id);
    if (atomic_load_explicit(&s->drained, memory_order_relaxed))
        return false;
    uint32_t circuit = atomic_load_explicit(&s->circuit, memory_order_relaxed);
    if (up->dialect == DIALECT_ECHO || circuit == CIRCUIT_CLOSED)
        return true;
    uint64_t now = w->loop.now_ns;
    if (circuit == CIRCUIT_OPEN && now < atomic_load_explicit(&s->open_until_ns, memory_order_relaxed))
        return false;
    uint64_t until = atomic_load_explicit(&s->half_open_until_ns, memory_order_relaxed);
    if (now < until)
        return false;
    uint64_t next = now + ((uint64_t)up->connect_timeout_ms + 5000) * 1000000u;
    if (!atomic_compare_exchange_strong(&s->half_open_until_ns, &until, next))
        return false;
    uint32_t open = CIRCUIT_OPEN;
    atomic_compare_exchange_strong(&s->circuit, &open, CIRCUIT_HALF_OPEN); /* a success may just have closed it */
    return true;
}

/* Who changes the state says so; others find it changed. */
static bool change_circuit(struct shm_upstream *s, uint32_t from, uint32_t to) {
    return atomic_compare_exchange_strong(&s->circuit, &from, to);
}

static const char *name_of(struct worker *w, uint32_t id) {
    for (const struct pool *p = w->upstreams ? w->upstreams->pools : NULL; p; p = p->next)
        if (p->upstream_id == id)
            return p->name;
    return "?";
}

/* It works; how often it failed before stays known. */
static void report_working(struct worker *w, uint32_t id, uint64_t first_byte_us) {
    struct shm_upstream *s = upstream_words(w, id);
    uint64_t now = w->loop.now_ns;
    if (now - atomic_load_explicit(&s->last_success_ns, memory_order_relaxed) >= SUCCESS_EVERY_NS) {
        atomic_store_explicit(&s->last_success_ns, now, memory_order_relaxed);
        if (first_byte_us) {
            uint64_t old = atomic_load_explicit(&s->latency_us, memory_order_relaxed);
            uint64_t mean = old ? old - (old >> LATENCY_SHIFT) + (first_byte_us >> LATENCY_SHIFT) : first_byte_us;
            atomic_store_explicit(&s->latency_us, mean ? mean : 1, memory_order_relaxed);
        }
    }
    if (atomic_load_explicit(&s->circuit, memory_order_relaxed) == CIRCUIT_CLOSED)
        return;
    atomic_store_explicit(&s->half_open_until_ns, 0, memory_order_relaxed);
    if (change_circuit(s, CIRCUIT_HALF_OPEN, CIRCUIT_CLOSED) || change_circuit(s, CIRCUIT_OPEN, CIRCUIT_CLOSED))
        worker_log(w, LOG_INFO, "upstream %s: works again", name_of(w, id));
}

static void report_success(struct worker *w, uint32_t id, uint64_t first_byte_us) {
    struct shm_upstream *s = upstream_words(w, id);
    if (atomic_load_explicit(&s->failures, memory_order_relaxed))
        atomic_store_explicit(&s->failures, 0, memory_order_relaxed);
    report_working(w, id, first_byte_us);
}

static void report_failure(struct worker *w, uint32_t id, uint32_t cooldown_ms) {
    struct shm_upstream *s = upstream_words(w, id);
    uint64_t now = w->loop.now_ns;
    atomic_store_explicit(&s->last_failure_ns, now, memory_order_relaxed);
    uint32_t failures = atomic_fetch_add_explicit(&s->failures, 1, memory_order_relaxed) + 1;
    uint32_t circuit = atomic_load_explicit(&s->circuit, memory_order_relaxed);
    if (circuit == CIRCUIT_OPEN || (circuit == CIRCUIT_CLOSED && failures < FAILURES_OPEN))
        return;
    atomic_store_explicit(&s->open_until_ns, now + (uint64_t)cooldown_ms * 1000000u, memory_order_relaxed);
    if (!change_circuit(s, circuit, CIRCUIT_OPEN))
        return;
    atomic_store_explicit(&s->half_open_until_ns, 0, memory_order_relaxed);
    if (circuit == CIRCUIT_CLOSED)
        worker_log(w, LOG_WARN, "upstream %s: failed repeatedly, not used for %u ms", name_of(w, id), cooldown_ms);
}

void upstream_report(struct worker *w, const struct snap_upstream *up, bool success, uint64_t first_byte_us) {
    if (up->dialect == DIALECT_ECHO)
        return;
    if (success)
        report_success(w, up->id, first_byte_us);
    else
        report_failure(w, up->id, up->cooldown_ms);
}

void upstream_begun(struct worker *w, const struct snap_upstream *up, uint64_t first_byte_us) {
    if (up->dialect != DIALECT_ECHO)
        report_working(w, up->id, first_byte_us);
}

void circuit_report(struct pool *p, bool success, uint64_t first_byte_us) {
    if (success)
        report_success(p->worker, p->upstream_id, first_byte_us);
    else
        report_failure(p->worker, p->upstream_id, p->cooldown_ms);
}

void circuit_connected(struct pool *p, bool probe) {
    struct shm_upstream *s = upstream_words(p->worker, p->upstream_id);
    bool was = false;
    if (atomic_load_explicit(&s->unreachable, memory_order_relaxed))
        was = atomic_exchange_explicit(&s->unreachable, 0, memory_order_relaxed);
    if (probe && (was || atomic_load_explicit(&s->circuit, memory_order_relaxed) == CIRCUIT_CLOSED))
        circuit_report(p, true, 0);
}

void circuit_unreachable(struct pool *p, bool refused, bool probe) {
    struct shm_upstream *s = upstream_words(p->worker, p->upstream_id);
    atomic_store_explicit(&s->unreachable, 1, memory_order_relaxed);
    if (refused) /* counts twice with the report that follows it */
        atomic_fetch_add_explicit(&s->failures, 1, memory_order_relaxed);
    if (probe)
        circuit_report(p, false, 0);
}

/* ---- provider keys ----------------------------------------------------------------------------------------------- */

int upstream_pick_key(struct worker *w, const struct snap_upstream *up, uint32_t *rotation, uint64_t *until_ns) {
    const struct shm_upstream *s = upstream_words(w, up->id);
    uint32_t n = up->keys.count < SHM_MAX_UPSTREAM_KEYS ? up->keys.count : SHM_MAX_UPSTREAM_KEYS;
    uint64_t first_back = n ? UINT64_MAX : 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t key = (*rotation)++ % n;
        uint64_t until = atomic_load_explicit(&s->key_until_ns[key], memory_order_relaxed);
        if (until <= w->loop.now_ns)
            return (int)key;
        if (until < first_back)
            first_back = until;
    }
    if (until_ns)
        *until_ns = first_back;
    return -1;
}

void upstream_cool_key(struct worker *w, const struct snap_upstream *up, int key, uint64_t for_ms) {
    if (key < 0 || key >= SHM_MAX_UPSTREAM_KEYS)
        return;
    _Atomic uint64_t *word = &upstream_words(w, up->id)->key_until_ns[key];
    uint64_t until = w->loop.now_ns + for_ms * 1000000u, old = atomic_load_explicit(word, memory_order_relaxed);
    while (old < until && !atomic_compare_exchange_weak(word, &old, until)) {
    }
}
