/* Counters: declared once here; the struct, /metrics, tollctl and the docs are made from the table. A stripe a worker
 * range: its owner adds with plain relaxed stores, any process sums the stripes. X(name, kind, "one sentence"): kind
 * COUNTER or GAUGE. Floats are seconds, not money. */
#ifndef TG_COUNTERS_H
#define TG_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

#define COUNTERS(X) \
    X(connections_accepted, COUNTER, "Client connections accepted") \
    X(connections_refused, COUNTER, "Client connections refused at max_connections") \
    X(connections_open, GAUGE, "Client connections open now") \
    X(requests, COUNTER, "Requests whose head was complete") \
    X(requests_bad, COUNTER, "Requests refused as malformed") \
    X(requests_unauthorized, COUNTER, "Requests without a known key") \
    X(requests_limited, COUNTER, "Requests refused by a rate, token or concurrency limit") \
    X(requests_unpaid, COUNTER, "Requests refused for lack of balance, key limit or cap") \
    X(requests_shed, COUNTER, "Requests refused because the server was overloaded or the ledger stuck") \
    X(exchanges_active, GAUGE, "Model calls in flight") \
    X(streams_active, GAUGE, "Streams in flight") \
    X(stream_events, COUNTER, "Stream events delivered") \
    X(client_aborts, COUNTER, "Clients that left before their answer was whole") \
    X(bytes_in, COUNTER, "Bytes read from clients") \
    X(bytes_out, COUNTER, "Bytes written to clients") \
    X(upstream_connects, COUNTER, "Connections opened to upstreams") \
    X(upstream_reuses, COUNTER, "Upstream requests on a kept-alive connection") \
    X(upstream_open, GAUGE, "Upstream connections open now") \
    X(upstream_idle, GAUGE, "Upstream connections idle in the pool") \
    X(upstream_retries, COUNTER, "Attempts after the first") \
    X(upstream_failures, COUNTER, "Attempts that failed") \
    X(tls_full_handshakes, COUNTER, "Full TLS handshakes with upstreams") \
    X(tls_resumed, COUNTER, "Resumed TLS handshakes with upstreams") \
    X(cost_nano, COUNTER, "Cost charged, in nano-units") \
    X(uncollected_nano, COUNTER, "Cost that could not be collected, in nano-units") \
    X(estimates, COUNTER, "Calls charged by an estimate") \
    X(holds_nano, GAUGE, "Held for calls in flight, in nano-units") \
    X(log_dropped, COUNTER, "Access log lines lost because the disk did not take them") \
    X(loop_turns, COUNTER, "Event loop turns") \
    X(memory_pages, GAUGE, "16 KiB pages handed out")

struct counters {
    _Alignas(64)
#define X(name, kind, text) _Atomic uint64_t name;
    COUNTERS(X)
#undef X
};

struct counter_info { const char *name, *kind, *text; };
extern const struct counter_info counter_infos[];
extern const unsigned counter_count;

/* Owner only: no locked instruction. */
#define COUNT(c, name, n) \
    atomic_store_explicit(&(c)->name, atomic_load_explicit(&(c)->name, memory_order_relaxed) + (uint64_t)(n), \
                          memory_order_relaxed)

/* Per (model, upstream): label values come from the configuration only. Histogram bounds: counters.c. */
enum { SERIES_DURATION_BUCKETS = 14, SERIES_TTFB_BUCKETS = 16, SERIES_TOKEN_BUCKETS = 14 };
struct series {
    _Alignas(64) _Atomic uint64_t status[6];   /* by class; [0]: client gone */
    _Atomic uint64_t input_tokens, output_tokens, cached_tokens, reasoning_tokens, cost_nano;
    _Atomic uint64_t duration_us, ttfb_us, ttfb_count;
    _Atomic uint64_t duration[SERIES_DURATION_BUCKETS + 1], ttfb[SERIES_TTFB_BUCKETS + 1];
    _Atomic uint64_t input_hist[SERIES_TOKEN_BUCKETS + 1], output_hist[SERIES_TOKEN_BUCKETS + 1];
};
extern const double
    series_duration_bounds_s[SERIES_DURATION_BUCKETS]; /* OpenTelemetry's for gen_ai.server.request.duration */
extern const double series_ttfb_bounds_s[SERIES_TTFB_BUCKETS];
extern const uint64_t series_token_bounds[SERIES_TOKEN_BUCKETS];       /* 1, 4, 16, … 67108864 */

struct series_sample {
    int status_class; /* 1–5, 0 client gone */
    uint64_t input_tokens, output_tokens, cached_tokens, reasoning_tokens, cost_nano, duration_us, ttfb_us;
    int has_ttfb;
};
void series_add(struct series *s, const struct series_sample *sample);

#endif
