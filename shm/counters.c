/* The counters' names and sentences, the histograms' bounds, and how a finished call is added to its series.
 * The floats are seconds, not money. */
#include "shm/counters.h"

const struct counter_info counter_infos[] = {
#define X(name, kind, text) { #name, #kind, text },
    COUNTERS(X)
#undef X
};
const unsigned counter_count = sizeof counter_infos / sizeof counter_infos[0];

/* OpenTelemetry, semantic conventions for generative AI metrics: gen_ai.server.request.duration, .time_to_first_token,
 * token usage. */
const double series_duration_bounds_s[SERIES_DURATION_BUCKETS] = {
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92
};
const double series_ttfb_bounds_s[SERIES_TTFB_BUCKETS] = {
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0
};
const uint64_t series_token_bounds[SERIES_TOKEN_BUCKETS] = {
    1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864
};

/* The bucket of a value: the first whose bound is not below it; the last one has no bound. */
static unsigned bucket_s(const double *bounds, unsigned n, uint64_t us) {
    unsigned i = 0;
    while (i < n && (double)us > bounds[i] * 1e6) i++;
    return i;
}

static unsigned bucket_tokens(uint64_t tokens) {
    unsigned i = 0;
    while (i < SERIES_TOKEN_BUCKETS && tokens > series_token_bounds[i]) i++;
    return i;
}

void series_add(struct series *s, const struct series_sample *x) {
    unsigned class = x->status_class >= 1 && x->status_class <= 5 ? (unsigned)x->status_class : 0;
    COUNT(s, status[class], 1);
    COUNT(s, input_tokens, x->input_tokens);
    COUNT(s, output_tokens, x->output_tokens);
    COUNT(s, cached_tokens, x->cached_tokens);
    COUNT(s, reasoning_tokens, x->reasoning_tokens);
    COUNT(s, cost_nano, x->cost_nano);
    COUNT(s, duration_us, x->duration_us);
    COUNT(s, duration[bucket_s(series_duration_bounds_s, SERIES_DURATION_BUCKETS, x->duration_us)], 1);
    COUNT(s, input_hist[bucket_tokens(x->input_tokens)], 1);
    COUNT(s, output_hist[bucket_tokens(x->output_tokens)], 1);
    if (!x->has_ttfb) return;
    COUNT(s, ttfb_us, x->ttfb_us);
    COUNT(s, ttfb_count, 1);
    COUNT(s, ttfb[bucket_s(series_ttfb_bounds_s, SERIES_TTFB_BUCKETS, x->ttfb_us)], 1);
}
