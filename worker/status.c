/* GET /api/status and /v1/status: public health, from traffic and probes, without a key and with CORS for every page.
 * Always 200: whoever reads it wants the word, not a status. */
#include "worker/exchange.h"

#include <stdio.h>
#include <time.h>

#include "proto/base/version.h"

enum { BODY_MAX = 1 << 20 };

static const char *state_of(const struct worker *w, const struct snap_upstream *up) {
    if (up->id >= SHM_MAX_UPSTREAMS)
        return "up";
    const struct shm_upstream *u = &w->shm.upstreams[up->id];
    if (atomic_load_explicit(&u->drained, memory_order_relaxed))
        return "draining";
    switch (atomic_load_explicit(&u->circuit, memory_order_relaxed)) {
    case CIRCUIT_OPEN: return "down";
    case CIRCUIT_HALF_OPEN: return "degraded";
    default: return atomic_load_explicit(&u->failures, memory_order_relaxed) > 0 ? "degraded" : "up";
    }
}

struct health { uint32_t all, up, down; };

static struct health look(const struct worker *w, const struct snap *s) {
    struct health h = { 0 };
    SNAP_EACH(s, s->upstreams, struct snap_upstream, up) {
        const char *state = state_of(w, up);
        h.all++;
        h.up += strcmp(state, "up") == 0;
        h.down += strcmp(state, "down") == 0;
    }
    return h;
}

static const char *word_of(struct worker *w, const struct health *h) {
    if (worker_shed(w) != SHED_NO || (h->all > 0 && h->down == h->all))
        return "down";
    return h->up == h->all ? "ok" : "degraded";
}

static void put_upstreams(struct json_writer *j, const struct worker *w, const struct snap *s) {
    jw_key(j, "upstreams");
    jw_array(j);
    SNAP_EACH(s, s->upstreams, struct snap_upstream, up) {
        jw_object(j);
        if (s->status_upstreams) {
            jw_key(j, "name");
            jw_str(j, snap_text(s, up->name));
        }
        jw_key(j, "state");
        jw_cstr(j, state_of(w, up));
        jw_end_object(j);
    }
    jw_end_array(j);
}

void status_show(struct exchange *ex) {
    struct worker *w = ex->worker;
    const struct snap *s = ex->snapshot->snap;
    int64_t started_ms = (int64_t)w->heritage.server_started_at_ms;
    struct health h = look(w, s);
    uint64_t models = 0;
    struct json_writer j;
    struct buf body;
    char at[40];
    struct tm tm;
    time_t started_s = (time_t)(started_ms / 1000);
    SNAP_EACH(s, s->models, struct snap_model, m)
        models += !(m->flags & MODEL_FAMILY) && m->routes.count > 0;
    gmtime_r(&started_s, &tm);
    size_t n = strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", &tm);
    buf_init(&body, &ex->worker->pages, BODY_MAX);
    jw_init(&j, &body);
    jw_object(&j);
    jw_key(&j, "status");
    jw_cstr(&j, word_of(w, &h));
    jw_key(&j, "version");
    jw_cstr(&j, TOLLGATE_VERSION);
    jw_key(&j, "uptime_seconds");
    jw_i64(&j, (w->loop.wall_ms - started_ms) / 1000);
    jw_key(&j, "started_at");
    jw_str(&j, slice_of(at, n));
    jw_key(&j, "models");
    jw_u64(&j, models);
    put_upstreams(&j, w, s);
    jw_end_object(&j);
    ex->cors_any = true;
    reply_json(ex, 200, buf_slice(&body));
    buf_release(&body);
}
