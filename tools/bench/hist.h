/* A histogram of times: log-linear, 64 steps an octave, so a quantile is right to 1.6%. */
#ifndef TG_BENCH_HIST_H
#define TG_BENCH_HIST_H

#include <stdint.h>
#include <string.h>

enum { HIST_BITS = 6, HIST_STEPS = 1 << HIST_BITS, HIST_PLACES = (64 - HIST_BITS) * HIST_STEPS };

struct hist { uint64_t count, max, place[HIST_PLACES]; };

static inline void hist_reset(struct hist *h) { memset(h, 0, sizeof *h); }

static inline void hist_add(struct hist *h, uint64_t value) {
    unsigned at = (unsigned)value;
    if (value >= HIST_STEPS) {
        unsigned octave = 63 - (unsigned)__builtin_clzll(value) - HIST_BITS;
        at = (octave + 1) * HIST_STEPS + (unsigned)((value >> octave) - HIST_STEPS);
    }
    h->place[at]++;
    h->count++;
    if (value > h->max)
        h->max = value;
}

/* The value below which per_mille thousandths lie; 0 if nothing was counted. */
static inline uint64_t hist_quantile(const struct hist *h, unsigned per_mille) {
    uint64_t wanted = (h->count * per_mille + 999) / 1000, seen = 0;
    for (unsigned at = 0; at < HIST_PLACES && wanted > 0; at++) {
        seen += h->place[at];
        if (seen < wanted)
            continue;
        if (at < HIST_STEPS)
            return at;
        unsigned octave = at / HIST_STEPS - 1;
        return ((uint64_t)(at % HIST_STEPS + HIST_STEPS) << octave) + ((uint64_t)1 << octave) / 2;
    }
    return h->count ? h->max : 0;
}

#endif
