/* The admin listener: /healthz, /readyz, /metrics (Prometheus text). All from shared memory: they answer while the
 * ledger is stuck. Label values come from the configuration alone, so their number is bounded. Floats are seconds, not
 * money. */
#include "worker/exchange.h"

#include <stdio.h>

enum { METRICS_MAX = 32 << 20 };

void admin_healthz(struct exchange *ex) { reply_text(ex, 200, SLICE("text/plain"), SLICE("ok")); }

void admin_readyz(struct exchange *ex) {
    struct worker *w = ex->worker;
    if (w->draining || atomic_load(&w->shm.header->draining))
        reply_text(ex, 503, SLICE("text/plain"), SLICE("draining"));
    else if (worker_shed(w) != SHED_NO)
        reply_text(ex, 503, SLICE("text/plain"), SLICE("ledger stuck"));
    else
        reply_text(ex, 200, SLICE("text/plain"), SLICE("ok"));
}

/* ---- /metrics ---------------------------------------------------------------------------------------------------- */

static uint64_t sum_counter(const struct shm *shm, unsigned i) {
    uint64_t sum = 0;
    for (uint32_t r = 0; r < shm->header->max_ranges; r++)
        sum +=
            atomic_load_explicit(&((const _Atomic uint64_t *)(const void *)&shm->counters[r])[i], memory_order_relaxed);
    return sum;
}

static void put_counters(struct buf *b, const struct shm *shm) {
    for (unsigned i = 0; i < counter_count; i++) {
        const struct counter_info *c = &counter_infos[i];
        bool gauge = strcmp(c->kind, "GAUGE") == 0;
        const char *total = gauge ? "" : "_total";
        int64_t v = (int64_t)sum_counter(shm, i);
        buf_printf(b, "# HELP tollgate_%s%s %s\n# TYPE tollgate_%s%s %s\ntollgate_%s%s %lld\n", c->name, total, c->text,
                   c->name, total, gauge ? "gauge" : "counter", c->name, total, (long long)(gauge && v < 0 ? 0 : v));
    }
}

/* Sums one series over all stripes. */
static void sum_series(const struct shm *shm, uint32_t index, struct series *out) {
    enum { WORDS = sizeof(struct series) / sizeof(uint64_t) };
    _Atomic uint64_t *to = (_Atomic uint64_t *)(void *)out;
    memset(out, 0, sizeof *out);
    for (uint32_t r = 0; r < shm->header->max_ranges; r++) {
        const _Atomic uint64_t *from =
            (const _Atomic uint64_t *)(const void *)&shm->series[(size_t)r * SHM_MAX_SERIES + index];
        for (size_t i = 0; i < WORDS; i++)
            to[i] += atomic_load_explicit(&from[i], memory_order_relaxed);
    }
}

/* Prometheus label values: backslash, quote and line feed are escaped. */
static struct slice label(struct exchange *ex, struct slice text) {
    char *out = arena_alloc(&ex->arena, text.len * 2 + 1);
    size_t n = 0;
    for (size_t i = 0; out != NULL && i < text.len; i++) {
        if (text.ptr[i] == '\\' || text.ptr[i] == '"' || text.ptr[i] == '\n')
            out[n++] = '\\';
        out[n++] = text.ptr[i] == '\n' ? 'n' : text.ptr[i];
    }
    return slice_of(out, out != NULL ? n : 0);
}

struct line { struct buf *b; struct slice labels; };

static void put_histogram(const struct line *l, const char *name, const char *more, const double *bounds,
                          const uint64_t *whole, unsigned count, const _Atomic uint64_t *buckets, double sum) {
    uint64_t seen = 0;
    for (unsigned i = 0; i <= count; i++) {
        seen += buckets[i];
        if (i == count)
            buf_printf(l->b, "%s_bucket{%.*s%s,le=\"+Inf\"} %llu\n", name, SLICE_ARG(l->labels), more,
                       (unsigned long long)seen);
        else if (whole != NULL)
            buf_printf(l->b, "%s_bucket{%.*s%s,le=\"%llu\"} %llu\n", name, SLICE_ARG(l->labels), more,
                       (unsigned long long)whole[i], (unsigned long long)seen);
        else
            buf_printf(l->b, "%s_bucket{%.*s%s,le=\"%g\"} %llu\n", name, SLICE_ARG(l->labels), more, bounds[i],
                       (unsigned long long)seen);
    }
    buf_printf(l->b, "%s_sum{%.*s%s} %.9g\n%s_count{%.*s%s} %llu\n", name, SLICE_ARG(l->labels), more, sum, name,
               SLICE_ARG(l->labels), more, (unsigned long long)seen);
}

enum family { FAMILY_REQUESTS, FAMILY_TOKENS, FAMILY_COST, FAMILY_DURATION, FAMILY_TTFB, FAMILY_COUNT };
static const char *const family_heads[FAMILY_COUNT] = {
    "# HELP tollgate_model_requests_total Model calls by status class\n# TYPE tollgate_model_requests_total counter\n",
    "# HELP gen_ai_client_token_usage Tokens by type\n# TYPE gen_ai_client_token_usage histogram\n",
    "# HELP tollgate_model_cost_nano_usd_total Cost in nano-dollars\n# TYPE tollgate_model_cost_nano_usd_total "
    "counter\n",
    "# HELP gen_ai_server_request_duration_seconds Time from head to the end of the answer\n"
    "# TYPE gen_ai_server_request_duration_seconds histogram\n",
    "# HELP gen_ai_server_time_to_first_token_seconds Time from head to the provider's first byte\n"
    "# TYPE gen_ai_server_time_to_first_token_seconds histogram\n",
};

static void put_series(const struct line *l, const struct series *s, enum family family) {
    static const char *const classes[6] = { "client_gone", "1xx", "2xx", "3xx", "4xx", "5xx" };
    switch (family) {
    case FAMILY_REQUESTS:
        for (int i = 0; i < 6; i++)
            if (s->status[i] > 0)
                buf_printf(l->b, "tollgate_model_requests_total{%.*s,status=\"%s\"} %llu\n", SLICE_ARG(l->labels),
                           classes[i], (unsigned long long)s->status[i]);
        break;
    case FAMILY_TOKENS:
        put_histogram(l, "gen_ai_client_token_usage", ",gen_ai_token_type=\"input\"", NULL, series_token_bounds,
                      SERIES_TOKEN_BUCKETS, s->input_hist, (double)s->input_tokens);
        put_histogram(l, "gen_ai_client_token_usage", ",gen_ai_token_type=\"output\"", NULL, series_token_bounds,
                      SERIES_TOKEN_BUCKETS, s->output_hist, (double)s->output_tokens);
        break;
    case FAMILY_COST:
        buf_printf(l->b, "tollgate_model_cost_nano_usd_total{%.*s} %llu\n", SLICE_ARG(l->labels),
                   (unsigned long long)s->cost_nano);
        break;
    case FAMILY_DURATION:
        put_histogram(l, "gen_ai_server_request_duration_seconds", "", series_duration_bounds_s, NULL,
                      SERIES_DURATION_BUCKETS, s->duration, (double)s->duration_us / 1e6);
        break;
    case FAMILY_TTFB:
        put_histogram(l, "gen_ai_server_time_to_first_token_seconds", "", series_ttfb_bounds_s, NULL,
                      SERIES_TTFB_BUCKETS, s->ttfb, (double)s->ttfb_us / 1e6);
        break;
    case FAMILY_COUNT: break;
    }
}

static void put_all_series(struct buf *b, struct exchange *ex) {
    const struct snap *snap = ex->snapshot->snap;
    for (int family = 0; family < FAMILY_COUNT; family++) {
        buf_append_slice(b, slice_str(family_heads[family]));
        SNAP_EACH(snap, snap->models, struct snap_model, m) {
            SNAP_EACH(snap, m->routes, struct snap_route, r) {
                struct series s;
                if (r->series >= SHM_MAX_SERIES)
                    continue;
                sum_series(&ex->worker->shm, r->series, &s);
                struct slice name = label(ex, snap_text(snap, m->name));
                const struct snap_upstream *up = SNAP_AT(snap, snap->upstreams, struct snap_upstream, r->upstream);
                struct slice upstream = label(ex, snap_text(snap, up->name));
                struct line l = { b, arena_printf(&ex->arena, "gen_ai_request_model=\"%.*s%s\",upstream=\"%.*s\"",
                                                  SLICE_ARG(name), m->flags & MODEL_FAMILY ? "*" : "",
                                                  SLICE_ARG(upstream)) };
                put_series(&l, &s, (enum family)family);
            }
        }
    }
}

static void put_gauge(struct buf *b, const char *name, const char *help, uint64_t v) {
    buf_printf(b, "# HELP %s %s\n# TYPE %s gauge\n%s %llu\n", name, help, name, name, (unsigned long long)v);
}

static void put_ledger(struct buf *b, const struct shm *shm, struct worker *w) {
    const struct shm_header *h = shm->header;
    uint64_t depth = 0, live = 0;
    for (uint32_t r = 0; r < h->max_ranges; r++) {
        const struct shm_range *range = &shm->ranges[r];
        depth += atomic_load(&range->head) - atomic_load(&range->tail);
        live += atomic_load(&range->state) == RANGE_LIVE;
    }
    put_gauge(b, "tollgate_workers", "Live workers", live);
    put_gauge(b, "tollgate_ring_depth", "Finished calls that the ledger has not committed yet", depth);
    put_gauge(b, "tollgate_shed", "Why new billable work is refused (0: it is not)", (uint64_t)worker_shed(w));
    put_gauge(b, "tollgate_commit_last_nanoseconds", "Time of the ledger's last commit",
              atomic_load(&h->commit_ns_last));
    put_gauge(b, "tollgate_commit_max_nanoseconds", "Longest commit of the ledger", atomic_load(&h->commit_ns_max));
    buf_printf(b,
               "# HELP tollgate_commits_total Commits of the ledger\n# TYPE tollgate_commits_total "
               "counter\ntollgate_commits_total %llu\n",
               (unsigned long long)atomic_load(&h->commits));
}

static void put_upstreams(struct buf *b, struct exchange *ex) {
    const struct snap *s = ex->snapshot->snap;
    buf_append_slice(b, SLICE("# HELP tollgate_upstream_circuit Circuit state: 0 closed, 1 open, 2 half-open\n"
                              "# TYPE tollgate_upstream_circuit gauge\n"));
    SNAP_EACH(s, s->upstreams, struct snap_upstream, up)
        buf_printf(b, "tollgate_upstream_circuit{upstream=\"%.*s\"} %u\n", SLICE_ARG(label(ex, snap_text(s, up->name))),
                   up->id < SHM_MAX_UPSTREAMS ? atomic_load(&ex->worker->shm.upstreams[up->id].circuit) : 0);
    buf_append_slice(b, SLICE("# HELP tollgate_upstream_latency_microseconds Moving average of the time to first byte\n"
                              "# TYPE tollgate_upstream_latency_microseconds gauge\n"));
    SNAP_EACH(s, s->upstreams, struct snap_upstream, up2)
        buf_printf(b, "tollgate_upstream_latency_microseconds{upstream=\"%.*s\"} %llu\n",
                   SLICE_ARG(label(ex, snap_text(s, up2->name))),
                   up2->id < SHM_MAX_UPSTREAMS
                       ? (unsigned long long)atomic_load(&ex->worker->shm.upstreams[up2->id].latency_us)
                       : 0ull);
}

void admin_metrics(struct exchange *ex) {
    struct buf b;
    buf_init(&b, &ex->worker->pages, METRICS_MAX);
    put_counters(&b, &ex->worker->shm);
    put_ledger(&b, &ex->worker->shm, ex->worker);
    put_upstreams(&b, ex);
    put_all_series(&b, ex);
    reply_text(ex, 200, SLICE("text/plain; version=0.0.4; charset=utf-8"), buf_slice(&b));
    buf_release(&b);
}
