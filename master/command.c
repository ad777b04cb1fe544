/* The commands of the control socket that are the master's own; all others go to the ledger as they are.
 *
 * What status shows of workers and upstreams is read from shared memory as it stands; the ledger's part is asked for
 * and left out when it does not come within a second. `upstream drain` lasts as long as the segment (a reboot forgets
 * it). */
#include <arpa/inet.h>
#include <unistd.h>

#include "master/master.h"
#include "proto/base/check.h"
#include "proto/base/version.h"
#include "proto/json.h"

enum { STATUS_WAIT_MS = 1000, RESULT_BYTES = 16 << 20, PARSE_BYTES = 192 << 20 };

static void key_str(struct json_writer *w, const char *key, struct slice value) {
    jw_key(w, key);
    jw_str(w, value);
}

static void key_u64(struct json_writer *w, const char *key, uint64_t value) {
    jw_key(w, key);
    jw_u64(w, value);
}

/* ---- upstreams ------------------------------------------------------------------------------------------------- */

/* up; degraded: some key cools down or a probe is awaited; down: the circuit is open or every key cools down;
 * draining. */
static const char *upstream_state(const struct shm_upstream *u, uint32_t keys, uint32_t *cooling) {
    uint64_t now = events_mono_ns();
    *cooling = 0;
    for (uint32_t i = 0; i < keys && i < SHM_MAX_UPSTREAM_KEYS; i++) *cooling += atomic_load(&u->key_until_ns[i]) > now;
    uint32_t circuit = atomic_load(&u->circuit);
    if (atomic_load(&u->drained)) return "draining";
    if (keys > 0 && *cooling >= keys) return "down";
    if (circuit == CIRCUIT_OPEN) return atomic_load(&u->open_until_ns) > now ? "down" : "degraded";
    return circuit == CIRCUIT_HALF_OPEN || *cooling > 0 ? "degraded" : "up";
}

static void write_addresses(struct json_writer *w, const struct shm *shm, uint32_t id) {
    struct shm_addresses a;
    char text[INET6_ADDRSTRLEN];
    jw_key(w, "addresses");
    jw_array(w);
    if (shm_addresses_read(shm, id, &a)) {
        for (uint32_t i = 0; i < a.count && i < SHM_MAX_ADDRESSES; i++) {
            int family = a.address[i].family == 4 ? AF_INET : AF_INET6;
            if (inet_ntop(family, a.address[i].bytes, text, sizeof text)) jw_cstr(w, text);
        }
    }
    jw_end_array(w);
}

static void write_upstream(struct json_writer *w, struct master *m, const struct snap_upstream *u) {
    static const char *const dialects[] = { "openai", "openai-responses", "anthropic", "gemini", "echo" };
    const struct snap *snap = m->config->snap;
    const struct shm_upstream *s = &m->shm.upstreams[u->id];
    uint32_t cooling;
    jw_object(w);
    key_str(w, "name", snap_text(snap, u->name));
    key_str(w, "dialect", slice_str(u->dialect < DIALECT_COUNT ? dialects[u->dialect] : "?"));
    key_str(w, "state", slice_str(upstream_state(s, u->keys.count, &cooling)));
    key_str(w, "host", snap_text(snap, u->host_header));
    write_addresses(w, &m->shm, u->id);
    key_u64(w, "keys", u->keys.count);
    key_u64(w, "keys_cooling", cooling);
    key_u64(w, "failures", atomic_load(&s->failures));
    key_u64(w, "latency_ms", atomic_load(&s->latency_us) / 1000);
    jw_end_object(w);
}

static void write_upstreams(struct json_writer *w, struct master *m) {
    jw_key(w, "upstreams");
    jw_array(w);
    if (m->config) {
        SNAP_EACH(m->config->snap, m->config->snap->upstreams, struct snap_upstream, u) write_upstream(w, m, u);
    }
    jw_end_array(w);
}

/* ---- models ---------------------------------------------------------------------------------------------------- */

static void write_pricing(struct json_writer *w, const struct snap_model *model) {
    static const struct { enum meter meter; const char *name; } prices[] = {
        { METER_INPUT, "input_per_1m" }, { METER_CACHED_INPUT, "cached_input_per_1m" },
            { METER_OUTPUT, "output_per_1m" },
        { METER_IMAGES, "image" },
    };
    jw_key(w, "pricing");
    jw_object(w);
    for (size_t i = 0; i < sizeof prices / sizeof *prices; i++) {
        if (!(model->price_given & 1u << prices[i].meter)) continue;
        uint64_t price = model->prices.per_million[prices[i].meter];
        jw_key(w, prices[i].name);
        /* micro-dollars per million; a picture's price is told for one */
        jw_fixed(w, (int64_t)price, prices[i].meter == METER_IMAGES ? 12 : 6, true);
    }
    jw_end_object(w);
}

static void write_routes(struct json_writer *w, const struct snap *snap, const struct snap_model *model) {
    jw_key(w, "routes");
    jw_array(w);
    SNAP_EACH(snap, model->routes, struct snap_route, r) {
        jw_object(w);
        key_str(w, "upstream", snap_text(snap, SNAP_AT(snap, snap->upstreams, struct snap_upstream,
                                                       r->upstream)->name));
        key_str(w, "as", snap_text(snap, r->as));
        key_u64(w, "weight", r->weight);
        key_u64(w, "priority", r->priority);
        jw_end_object(w);
    }
    jw_end_array(w);
}

static void write_model(struct json_writer *w, const struct snap *snap, const struct snap_model *model) {
    static const char *const kinds[] = { "chat", "embedding", "image", "other" };
    jw_object(w);
    jw_key(w, "id");
    jw_str_begin(w);
    jw_str_part(w, snap_text(snap, model->name));
    if (model->flags & MODEL_FAMILY) jw_str_part(w, SLICE("*"));
    jw_str_end(w);
    key_str(w, "kind", slice_str(kinds[model->kind <= MODEL_OTHER ? model->kind : MODEL_OTHER]));
    key_str(w, "owned_by", snap_text(snap, model->owned_by));
    key_str(w, "provider", snap_text(snap, model->provider));
    key_u64(w, "context_length", model->context);
    key_u64(w, "max_output_tokens", model->max_output);
    jw_key(w, "call_cap");
    if (model->call_cap_nano == SNAP_NO_AMOUNT) jw_null(w);
    else jw_fixed(w, model->call_cap_nano, 9, true);
    jw_key(w, "free");
    jw_bool(w, model->flags & MODEL_FREE);
    write_pricing(w, model);
    write_routes(w, snap, model);
    jw_end_object(w);
}

/* ---- status ---------------------------------------------------------------------------------------------------- */

static void write_workers(struct json_writer *w, struct master *m) {
    jw_key(w, "workers");
    jw_array(w);
    for (uint32_t i = 0; i < m->shm.header->max_ranges; i++) {
        const struct worker *worker = m->workers;
        while (worker && worker->range != i) worker = worker->next;
        if (!worker) continue;
        const struct shm_range *r = &m->shm.ranges[i];
        jw_object(w);
        key_u64(w, "pid", (uint64_t)worker->pid);
        key_u64(w, "generation", worker->generation);
        key_u64(w, "connections", atomic_load(&r->connections));
        key_u64(w, "in_flight", atomic_load(&r->active));
        key_u64(w, "range", i);
        key_str(w, "state", slice_str(worker->retiring ? "draining" : worker->ready ? "up" : "starting"));
        jw_end_object(w);
    }
    jw_end_array(w);
}

/* What the ledger said of itself, beside what the master knows. answer: its whole answer, or empty. */
static void write_ledger(struct json_writer *w, struct master *m, struct slice answer) {
    struct arena arena;
    struct json j;
    arena_init(&arena, &m->pages, 1 << 20);
    int result = answer.len && json_parse(&j, &arena, answer.ptr, answer.len) ? json_get(&j, 0, "result") : -1;
    jw_key(w, "ledger");
    jw_object(w);
    key_str(w, "state", slice_str(answer.len == 0 && m->ledger.ready ? "stuck" : ledgerd_state(m)));
    key_u64(w, "pid", (uint64_t)m->ledger.pid);
    if (result >= 0 && json_is(&j, result, JSON_OBJECT)) {
        for (int t = json_first(&j, result); t >= 0; t = json_next(&j, result, t)) {
            if (json_str_is(&j, t, "state") || json_str_is(&j, t, "pid")) continue;
            jw_key_slice(w, json_str(&j, t, &arena));
            jw_raw(w, json_span(&j, t + 1));
        }
    }
    jw_end_object(w);
    arena_reset(&arena);
}

static void write_status(struct json_writer *w, struct master *m, struct slice ledger) {
    key_str(w, "version", SLICE(TOLLGATE_VERSION));
    key_u64(w, "pid", (uint64_t)m->pid);
    key_u64(w, "uptime_seconds", (events_mono_ns() - m->started_mono_ns) / 1000000000u);
    key_u64(w, "generation", m->config ? m->config->generation : 0);
    key_str(w, "state", slice_str(m->stopping ? "stopping" : m->announced ? "up" : "starting"));
    write_workers(w, m);
    write_ledger(w, m, ledger);
    write_upstreams(w, m);
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

struct reply { struct buf buf; struct json_writer w; };

static void reply_begin(struct reply *r, struct control *c) {
    buf_init(&r->buf, &c->m->pages, RESULT_BYTES);
    jw_init(&r->w, &r->buf);
    jw_object(&r->w);
    jw_key(&r->w, "result");
    jw_object(&r->w);
}

static void reply_end(struct reply *r, struct control *c) {
    jw_end_object(&r->w);
    jw_end_object(&r->w);
    if (r->w.failed) control_error(c, "internal", "the answer is too long");
    else control_answer(c, buf_slice(&r->buf));
    buf_release(&r->buf);
}

static void answer_status(struct control *c, struct slice ledger) {
    struct reply r;
    reply_begin(&r, c);
    write_status(&r.w, c->m, ledger);
    reply_end(&r, c);
}

static void status_answered(struct call *call, struct slice answer) {
    answer_status(call->owner, answer);
}

void command_timeout(struct timer *t) {
    struct control *c = CONTAINER_OF(t, struct control, timeout);
    calls_drop(c->m, c);
    answer_status(c, SLICE(""));
}

static void run_status(struct control *c) {
    if (!calls_send(c->m, IPC_FROM_MASTER, SLICE("{\"cmd\":\"ledger.status\"}"), c, 0, status_answered)) {
        answer_status(c, SLICE(""));
        return;
    }
    events_timer_set(&c->m->events, &c->timeout, STATUS_WAIT_MS, command_timeout);
}

static void run_model_list(struct control *c) {
    struct reply r;
    reply_begin(&r, c);
    jw_key(&r.w, "models");
    jw_array(&r.w);
    if (c->m->config) {
        const struct snap *snap = c->m->config->snap;
        SNAP_EACH(snap, snap->models, struct snap_model, model) write_model(&r.w, snap, model);
    }
    jw_end_array(&r.w);
    reply_end(&r, c);
}

static void run_upstream_list(struct control *c) {
    struct reply r;
    reply_begin(&r, c);
    write_upstreams(&r.w, c->m);
    reply_end(&r, c);
}

static void run_upstream_drain(struct control *c, struct slice name, uint32_t drained) {
    struct master *m = c->m;
    const struct snap_upstream *found = NULL;
    if (m->config) {
        SNAP_EACH(m->config->snap, m->config->snap->upstreams, struct snap_upstream, u) {
            if (slice_eq(snap_text(m->config->snap, u->name), name)) found = u;
        }
    }
    if (!found) {
        control_error(c, "not_found", "no upstream has this name");
        return;
    }
    atomic_store(&m->shm.upstreams[found->id].drained, drained);
    master_log(LOG_INFO, "upstream %.*s is %s by the operator", SLICE_ARG(name), drained ? "drained" : "enabled");
    struct buf b;
    struct json_writer w;
    buf_init(&b, &m->pages, 1 << 20);
    jw_init(&w, &b);
    jw_object(&w);
    jw_key(&w, "result");
    write_upstream(&w, m, found);
    jw_end_object(&w);
    control_answer(c, buf_slice(&b));
    buf_release(&b);
}

static void run_reload(struct control *c) {
    if (c->m->stopping != STOP_NO) {
        control_error(c, "unavailable", "the server is stopping");
        return;
    }
    c->reload_wait = 2;
    reload_request(c->m);
}

static void run_stop(struct control *c) {
    control_answer(c, SLICE("{\"result\":{\"stopping\":true}}"));
    stop_graceful(c->m);
}

/* The answer comes from the new binary: the connection leaves this one's hands. */
static void run_upgrade(struct control *c) {
    int fd = dup(c->watch.fd);
    c->gone = true;
    if (fd >= 0) upgrade_request(c->m, fd);
}

static void relay_answered(struct call *call, struct slice answer) {
    control_answer(call->owner, answer);
}

static void relay(struct control *c, struct slice line) {
    const struct ledgerd *l = &c->m->ledger;
    if (!l->ready && !l->failed && c->m->stopping == STOP_NO) control_hold(c);
    else if (!calls_send(c->m, IPC_FROM_CONTROL, line, c, 0, relay_answered)) control_answer(c, CALLS_UNAVAILABLE);
}

void command_run(struct control *c, struct slice line) {
    struct arena arena;
    struct json j;
    arena_init(&arena, &c->m->pages, PARSE_BYTES);
    bool parsed = json_parse(&j, &arena, line.ptr, line.len);
    int cmd = parsed ? json_get(&j, 0, "cmd") : -1;
    struct slice upstream = parsed ? json_str(&j, json_get(&j, 0, "upstream"), &arena) : SLICE_NONE;
    if (!parsed) control_error(c, "invalid_json", json_err_text(j.err));
    else if (!json_is(&j, cmd, JSON_STRING)) control_error(c, "missing_field", "cmd");
    else if (json_str_is(&j, cmd, "status")) run_status(c);
    else if (json_str_is(&j, cmd, "reload")) run_reload(c);
    else if (json_str_is(&j, cmd, "stop")) run_stop(c);
    else if (json_str_is(&j, cmd, "upgrade")) run_upgrade(c);
    else if (json_str_is(&j, cmd, "model.list")) run_model_list(c);
    else if (json_str_is(&j, cmd, "upstream.list")) run_upstream_list(c);
    else if (json_str_is(&j, cmd, "upstream.drain")) run_upstream_drain(c, upstream, 1);
    else if (json_str_is(&j, cmd, "upstream.enable")) run_upstream_drain(c, upstream, 0);
    else if (json_str_is(&j, cmd, "names.intern")) control_error(c, "unknown_command",
                                                                 "names.intern is the master's own");
    else relay(c, line);
    arena_reset(&arena);
}
