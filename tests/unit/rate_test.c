/* The rate word against a reference in big integers, and what it promises: exact headers, and never more than limit + burst. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/rate.h"

typedef unsigned __int128 u128;
#define W ((u128)60 * RATE_TICKS_PER_S)

static uint64_t seed = 88172645463325252ull;
static uint64_t rnd(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}
/* Of every order of magnitude up to top. */
static uint64_t rnd_log(uint64_t top) {
    uint64_t v = rnd() >> (rnd() % 64);
    return v % top + 1;
}

/* The reference keeps the debt as an exact fraction: debt × limit, in ticks × tokens. Each charge is rounded up to a whole tick as the
 * word's is, everything else is exact. */
struct reference { u128 tat; };
static bool reference_take(struct reference *f, const struct rate *r, uint64_t n, uint64_t now, uint64_t *wait) {
    u128 debt = f->tat > now ? f->tat - now : 0;
    u128 room = (u128)(r->burst - n) * W; /* in ticks × limit */
    if (debt * r->limit > room) {
        *wait = (uint64_t)(debt - room / r->limit);
        return false;
    }
    u128 ticks = 0, whole = (u128)n * W;
    ticks = whole / r->limit;
    if (ticks * r->limit < whole) ticks++;
    f->tat = now + debt + ticks;
    return true;
}

static void test_against_reference(void **state) {
    (void)state;
    for (int round = 0; round < 3000; round++) {
        struct rate r = { .limit = rnd_log(1000000000000ull) };
        r.burst = rnd() % 3 ? r.limit : rnd() % r.limit + 1;
        _Atomic uint64_t word = 0;
        struct reference f = { 0 };
        uint64_t now = rnd() % (1ull << 56), set;
        for (int i = 0; i < 200; i++) {
            uint64_t n = rnd_log(r.burst), wait = 0;
            struct rate_view v;
            enum rate_result got = rate_take(&word, &r, n, now, &set, &v);
            bool want = reference_take(&f, &r, n, now, &wait);
            assert_int_equal(got, want ? RATE_OK : RATE_WAIT);
            if (want) assert_true(set == (uint64_t)f.tat);
            else assert_int_equal(v.retry_after_ticks, wait);
            u128 debt = f.tat > now ? f.tat - now : 0;
            assert_int_equal(v.reset_ticks, (uint64_t)debt);
            u128 left = (u128)r.burst * W > debt * r.limit ? ((u128)r.burst * W - debt * r.limit) / W : 0;
            assert_int_equal(v.remaining, (uint64_t)left);
            now += rnd() % 4 ? rnd_log((uint64_t)(W / 8)) : 0;
        }
    }
}

/* What the headers say is so: `remaining` is admitted and one more is not; after Retry-After it is, a tick before it is not. */
static void test_headers_are_exact(void **state) {
    (void)state;
    for (int round = 0; round < 20000; round++) {
        struct rate r = { .limit = rnd_log(1000000000000ull) };
        r.burst = rnd() % r.limit + 1;
        _Atomic uint64_t word = 0;
        uint64_t now = 1000000 + rnd() % (1ull << 50), set;
        struct rate_view v, after;
        for (int i = 0; i < 5; i++) {
            rate_take(&word, &r, rnd_log(r.burst), now, &set, NULL);
            now += rnd_log((uint64_t)(W / 4));
        }
        rate_peek(&word, &r, now, &v);
        uint64_t was = atomic_load(&word);
        if (v.remaining < r.burst) assert_int_equal(rate_take(&word, &r, v.remaining + 1, now, &set, &after), RATE_WAIT);
        if (v.remaining < r.burst) {
            assert_int_equal(rate_take(&word, &r, v.remaining + 1, now + after.retry_after_ticks - 1, &set, NULL), RATE_WAIT);
            assert_int_equal(rate_take(&word, &r, v.remaining + 1, now + after.retry_after_ticks, &set, NULL), RATE_OK);
        }
        atomic_store(&word, was);
        assert_int_equal(rate_take(&word, &r, v.remaining, now, &set, NULL), RATE_OK);
        atomic_store(&word, was);
        rate_peek(&word, &r, now + v.reset_ticks, &after);
        assert_int_equal(after.remaining, r.burst);
        if (v.reset_ticks) rate_peek(&word, &r, now + v.reset_ticks - 1, &after);
        if (v.reset_ticks) assert_true(after.remaining < r.burst);
    }
}

/* Greedy and random clients: the sum over any window is at most limit + burst; and a greedy one gets what it may. */
enum { EVENTS = 4000 };
static void test_never_above(void **state) {
    (void)state;
    static uint64_t at[EVENTS], sum[EVENTS + 1];
    for (int round = 0; round < 300; round++) {
        struct rate r = { .limit = rnd_log(round % 2 ? 1000 : 1000000000000ull) };
        r.burst = round % 3 ? r.limit : rnd() % r.limit + 1;
        _Atomic uint64_t word = 0;
        uint64_t now = 12345, set;
        int n = 0;
        bool greedy = round % 4 != 0;
        sum[0] = 0;
        while (n < EVENTS) {
            struct rate_view v;
            uint64_t want = rnd_log(r.burst < 64 ? r.burst : r.burst / 32);
            rate_peek(&word, &r, now, &v);
            if (greedy && v.remaining > 0 && v.remaining < want) want = v.remaining;
            if (rate_take(&word, &r, want, now, &set, &v) == RATE_OK) {
                at[n] = now;
                sum[n + 1] = sum[n] + want;
                n++;
            } else {
                now += greedy ? v.retry_after_ticks : rnd_log((uint64_t)W / 100);
            }
            if (rnd() % 200 == 0) now += rnd_log((uint64_t)W);
        }
        for (int i = 0, j = 0; i < n; i++) { /* the windows that begin with a charge, both ends in */
            while (j < n && at[j] - at[i] <= (uint64_t)W) j++;
            assert_true((u128)(sum[j] - sum[i]) <= (u128)r.limit + r.burst);
        }
    }
}

/* Rounding up costs less than a tick a charge: a client that takes all it can gets at least that much in a long time. */
static void test_no_drift(void **state) {
    (void)state;
    static const uint64_t limits[] = { 7, 60, 999, 1000003, 999999999, 1000000000, 999999999989ull, 1000000000000ull };
    for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
        struct rate r = { limits[l], limits[l] };
        _Atomic uint64_t word = 0;
        uint64_t start = 1 << 20, now = start, set, got = 0, charges = 0, n = limits[l] > 1000 ? limits[l] / 1000 : 1;
        struct rate_view v;
        while (now - start < (uint64_t)W * 20) {
            if (rate_take(&word, &r, n, now, &set, &v) != RATE_OK) now += v.retry_after_ticks;
            else got += n, charges++;
        }
        u128 ideal = (u128)r.burst + (u128)(now - start) * r.limit / W;
        assert_true(got <= ideal);
        u128 lost = (u128)charges * r.limit / W + 1; /* a tick each, in tokens */
        assert_true(got + n + lost >= ideal);
    }
}

static void test_edges(void **state) {
    (void)state;
    _Atomic uint64_t word = 0;
    uint64_t set;
    struct rate_view v;
    struct rate none = { UINT64_MAX, UINT64_MAX }, nothing = { 0, 0 }, ten = { 10, 10 }, small = { 10, 2 };
    assert_int_equal(rate_take(&word, &none, UINT64_MAX, 5, &set, &v), RATE_OK);
    assert_true(v.remaining == UINT64_MAX && v.reset_ticks == 0 && atomic_load(&word) == 0);
    assert_int_equal(rate_take(&word, &nothing, 1, 5, &set, &v), RATE_NEVER);
    assert_int_equal(v.remaining, 0);
    assert_int_equal(rate_take(&word, &ten, 11, 5, &set, &v), RATE_NEVER);
    assert_int_equal(rate_take(&word, &small, 3, 5, &set, &v), RATE_NEVER);
    assert_int_equal(v.remaining, 2);
    assert_int_equal(rate_take(&word, &ten, 10, 5, &set, &v), RATE_OK);
    assert_int_equal(v.remaining, 0);
    assert_int_equal(v.reset_ticks, 60 * RATE_TICKS_PER_S);
    assert_int_equal(rate_take(&word, &ten, 1, 5, &set, &v), RATE_WAIT);
    assert_int_equal(v.retry_after_ticks, 6 * RATE_TICKS_PER_S);
    assert_int_equal(rate_take(&word, &ten, 1, 5 + 6 * RATE_TICKS_PER_S, &set, &v), RATE_OK);
}

static void test_corrections(void **state) {
    (void)state;
    _Atomic uint64_t word = 0;
    struct rate r = { 60, 60 }; /* one a second */
    uint64_t s = RATE_TICKS_PER_S, now = 100 * s, set, other;
    struct rate_view v;
    /* a charge that is undone at once leaves the word as it was */
    assert_int_equal(rate_take(&word, &r, 7, now, &other, NULL), RATE_OK);
    assert_int_equal(rate_take(&word, &r, 20, now, &set, NULL), RATE_OK);
    rate_correct(&word, &r, 20, 0, set, now);
    assert_int_equal(atomic_load(&word), now + 7 * s);
    /* upwards whole, even into debt beyond the burst; the debt melts */
    rate_correct(&word, &r, 7, 80, other, now);
    rate_peek(&word, &r, now, &v);
    assert_int_equal(v.remaining, 0);
    assert_int_equal(v.reset_ticks, 80 * s);
    rate_peek(&word, &r, now + 30 * s, &v);
    assert_int_equal(v.remaining, 10);
    /* downwards no more than what still lies in the future of that charge */
    atomic_store(&word, 0);
    assert_int_equal(rate_take(&word, &r, 40, now, &set, NULL), RATE_OK);
    rate_correct(&word, &r, 40, 10, set, now + 25 * s);
    rate_peek(&word, &r, now + 25 * s, &v);
    assert_int_equal(v.remaining, 60); /* 15 s were owed, 30 would have been given */
    assert_int_equal(atomic_load(&word), now + 25 * s);
    rate_correct(&word, &r, 40, 10, set, now + 50 * s);
    assert_int_equal(atomic_load(&word), now + 25 * s);
    /* ... whatever came on top of it */
    atomic_store(&word, 0);
    assert_int_equal(rate_take(&word, &r, 20, now, &set, NULL), RATE_OK);
    assert_int_equal(rate_take(&word, &r, 30, now, &other, NULL), RATE_OK);
    rate_correct(&word, &r, 20, 0, set, now + 15 * s);
    assert_int_equal(atomic_load(&word), now + 45 * s);
    /* an absurd figure does not wrap around */
    rate_correct(&word, &r, 0, UINT64_MAX, now, now);
    rate_correct(&word, &r, 0, UINT64_MAX, now, now);
    assert_int_equal(rate_take(&word, &r, 1, now, &set, &v), RATE_WAIT);
    assert_true(v.retry_after_ticks > 1000 * s);
}

/* With corrections: what a window admitted, in actual figures, is at most limit + burst + what was given back in it for earlier charges. */
static void test_corrected_windows(void **state) {
    (void)state;
    static struct { uint64_t at, charged, actual, set, done_at, gave; } e[EVENTS];
    for (int round = 0; round < 60; round++) {
        struct rate r = { 6000, 6000 };
        _Atomic uint64_t word = 0;
        uint64_t now = 1000;
        int n = 0, open = 0;
        while (n < EVENTS / 4) {
            uint64_t est = rnd() % 500 + 1;
            if (rate_take(&word, &r, est, now, &e[n].set, NULL) == RATE_OK) {
                e[n].at = now;
                e[n].charged = est;
                e[n].actual = rnd() % 3 ? rnd() % (est + 1) : est;
                e[n].done_at = now + rnd() % (10 * RATE_TICKS_PER_S);
                e[n++].gave = UINT64_MAX;
            }
            now += rnd() % (RATE_TICKS_PER_S / 2);
            for (int i = open; i < n; i++) {
                if (e[i].gave != UINT64_MAX || e[i].done_at > now) continue;
                uint64_t before = atomic_load(&word);
                rate_correct(&word, &r, e[i].charged, e[i].actual, e[i].set, now);
                e[i].gave = before - atomic_load(&word);
                e[i].done_at = now;
            }
            while (open < n && e[open].gave != UINT64_MAX) open++;
        }
        for (int i = 0; i < n; i++) {
            uint64_t got = 0, given = 0;
            for (int j = 0; j < n && e[j].at <= e[i].at + (uint64_t)W; j++) {
                if (j >= i) got += e[j].actual;
                else if (e[j].gave != UINT64_MAX && e[j].done_at >= e[i].at && e[j].done_at <= e[i].at + (uint64_t)W) given += e[j].gave;
            }
            assert_true(got <= r.limit + r.burst + given / (uint64_t)(W / r.limit) + 1);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference), cmocka_unit_test(test_headers_are_exact), cmocka_unit_test(test_never_above),
        cmocka_unit_test(test_no_drift), cmocka_unit_test(test_edges), cmocka_unit_test(test_corrections),
        cmocka_unit_test(test_corrected_windows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
