/* Rate limits: one limit is ONE 64-bit word, the GCRA's theoretical arrival time (TAT) in 1/16 ns of CLOCK_MONOTONIC
 * since the segment was made. One compare-and-swap admits and charges any weight and yields Remaining, Reset and
 * Retry-After exactly. */
#ifndef TG_RATE_H
#define TG_RATE_H

#include "shm/shm.h"

#define RATE_TICKS_PER_S 16000000000ull

struct rate { uint64_t limit, burst; }; /* a minute; burst ≤ limit; limit UINT64_MAX: no limit */

struct rate_view {
    uint64_t remaining;
    uint64_t reset_ticks;       /* from now until the limit is whole again */
    uint64_t retry_after_ticks; /* refused: waiting that long is enough if nothing else comes */
};

static inline uint64_t rate_now(const struct shm *s, uint64_t mono_ns) {
    return (mono_ns - s->header->mono_base_ns) * 16;
}

enum rate_result { RATE_OK, RATE_WAIT, RATE_NEVER /* n exceeds the whole burst */ };
/* Charges n. *set gets the TAT it stored, for rate_correct. */
enum rate_result rate_take(_Atomic uint64_t *word, const struct rate *r, uint64_t n, uint64_t now, uint64_t *set,
                           struct rate_view *view);
void rate_peek(_Atomic uint64_t *word, const struct rate *r, uint64_t now, struct rate_view *view);
/* Gives a charge of n back (a later check of the same admission refused), or corrects an estimate to the actual figure:
 * upwards whole, downwards at most what the word still owes of it (set: what rate_take stored). */
void rate_correct(_Atomic uint64_t *word, const struct rate *r, uint64_t charged, uint64_t actual, uint64_t set,
                  uint64_t now);

#endif
