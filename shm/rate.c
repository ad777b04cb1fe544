/* The generic cell rate algorithm in one word (ITU-T I.371, as "virtual scheduling"), with weights.
 *
 * The word is the theoretical arrival time: what lies between now and it is the debt of the key, which melts away by
 * itself. A charge of n adds n × window / limit to it and is admitted if the debt does not come to exceed burst ×
 * window / limit. That quotient is computed for each charge in 128 bits and rounded up to a tick of 1/16 ns, so a
 * charge errs by less than a tick whatever its weight; a rounded "ticks a token" would err by up to 4 % at 10^12 a
 * minute. Rounding up means: within any window never more than limit + burst. The comparison itself is exact, and so
 * Remaining is: a charge of `remaining` is admitted, one of remaining + 1 is not.
 *
 * A correction downwards counts what of the charge lies in the future still. Gross charges keep to limit + burst; in
 * actual figures a window can exceed it by what was given back within it for charges made before it, so by the
 * estimates in flight at its start. Ticks since the segment was made fit 64 bits for 36 years; sums saturate far below
 * that. */
#include "shm/rate.h"

typedef unsigned __int128 u128;
#define WINDOW ((u128)60 * RATE_TICKS_PER_S)
#define COST_TOP (UINT64_MAX / 8) /* 4.5 years of debt */

static bool unlimited(const struct rate *r) { return r->limit == UINT64_MAX; }

/* n × window / limit, rounded up, saturated. limit > 0. */
static uint64_t cost(const struct rate *r, uint64_t n) {
    u128 c = ((u128)n * WINDOW + r->limit - 1) / r->limit;
    return c > COST_TOP ? COST_TOP : (uint64_t)c;
}

/* The debt up to which a charge of n is admitted: (burst - n) × window / limit, rounded down. n <= burst. */
static uint64_t ceiling(const struct rate *r, uint64_t n) {
    u128 c = (u128)(r->burst - n) * WINDOW / r->limit;
    return c > COST_TOP ? COST_TOP : (uint64_t)c;
}

static uint64_t debt_of(uint64_t tat, uint64_t now) { return tat > now ? tat - now : 0; }

static void view_of(const struct rate *r, uint64_t debt, struct rate_view *view) {
    u128 whole = (u128)r->burst * WINDOW, gone = (u128)debt * r->limit;
    view->remaining = gone >= whole ? 0 : (uint64_t)((whole - gone) / WINDOW);
    view->reset_ticks = debt;
    view->retry_after_ticks = 0;
}

static void view_without_limit(const struct rate *r, struct rate_view *view) {
    *view = (struct rate_view){ .remaining = unlimited(r) ? UINT64_MAX : 0 };
}

enum rate_result rate_take(_Atomic uint64_t *word, const struct rate *r, uint64_t n, uint64_t now, uint64_t *set,
                           struct rate_view *view) {
    struct rate_view unused;
    if (!view) view = &unused;
    *set = now;
    if (unlimited(r) || r->limit == 0) {
        view_without_limit(r, view);
        return unlimited(r) || n == 0 ? RATE_OK : RATE_NEVER;
    }
    uint64_t tat = atomic_load_explicit(word, memory_order_relaxed);
    if (n > r->burst) {
        view_of(r, debt_of(tat, now), view);
        return RATE_NEVER;
    }
    uint64_t add = cost(r, n), at_most = ceiling(r, n);
    for (;;) {
        uint64_t debt = debt_of(tat, now);
        if (debt > at_most) {
            view_of(r, debt, view);
            view->retry_after_ticks = debt - at_most;
            return RATE_WAIT;
        }
        uint64_t next = now + debt + add;
        if (!atomic_compare_exchange_weak_explicit(word, &tat, next, memory_order_relaxed, memory_order_relaxed))
            continue;
        *set = next;
        view_of(r, debt + add, view);
        return RATE_OK;
    }
}

void rate_peek(_Atomic uint64_t *word, const struct rate *r, uint64_t now, struct rate_view *view) {
    if (unlimited(r) || r->limit == 0) view_without_limit(r, view);
    else view_of(r, debt_of(atomic_load_explicit(word, memory_order_relaxed), now), view);
}

void rate_correct(_Atomic uint64_t *word, const struct rate *r, uint64_t charged, uint64_t actual, uint64_t set,
                  uint64_t now) {
    if (unlimited(r) || r->limit == 0 || charged == actual) return;
    uint64_t was = cost(r, charged), is = cost(r, actual);
    uint64_t tat = atomic_load_explicit(word, memory_order_relaxed), next;
    do {
        uint64_t debt = debt_of(tat, now);
        if (is >= was) {
            uint64_t more = debt + (is - was);
            next = now + (more > COST_TOP ? COST_TOP : more);
        } else {
            uint64_t back = was - is, owed = debt_of(set, now);
            if (back > owed) back = owed;
            if (back > debt) back = debt;
            if (back == 0) return;
            next = tat - back;
        }
    } while (!atomic_compare_exchange_weak_explicit(word, &tat, next, memory_order_relaxed, memory_order_relaxed));
}
