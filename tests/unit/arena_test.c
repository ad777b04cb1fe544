/* Pages, arenas, buffers and slices: limits, sticky overflow, alignment, and that all memory comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/base/arena.h"
#include "proto/base/check.h"

static struct pages pages;

static int all_returned(void **state) {
    (void)state;
    return pages.in_use != 0 || pages.big_bytes != 0;
}

static void arena_aligns_and_returns(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, &pages, 1 << 20);
    char *last = NULL;
    for (size_t n = 0; n < 600; n++) {
        char *p = arena_alloc(&a, n);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p & 15, 0);
        memset(p, (int)n, n);
        assert_true(p != last || n == 1); /* distinct but for one behind an empty one */
        last = p;
    }
    char *big = arena_alloc(&a, 3 * PAGE_BYTES), *small = arena_zalloc(&a, 100);
    memset(big, 1, 3 * PAGE_BYTES);
    for (int i = 0; i < 100; i++)
        assert_int_equal(small[i], 0);
    assert_true(pages.big_bytes >= 3 * PAGE_BYTES);
    arena_reset(&a);
    assert_int_equal(pages.in_use + pages.big_bytes, 0);
    assert_int_equal(a.used_bytes, 0);
}

static void arena_overflow_is_sticky(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, &pages, 1024);
    assert_non_null(arena_alloc(&a, 1008));
    assert_false(a.overflow);
    assert_null(arena_alloc(&a, 17));
    assert_true(a.overflow);
    assert_null(arena_alloc(&a, 1));
    assert_null(arena_alloc(&a, 0));
    assert_null(arena_copy(&a, SLICE("x")).ptr);
    assert_null(arena_printf(&a, "x").ptr);
    arena_reset(&a);
    assert_false(a.overflow);
    assert_non_null(arena_alloc(&a, 1024));
    arena_reset(&a);
    assert_null(arena_alloc(&a, SIZE_MAX));
    arena_reset(&a);
    assert_null(arena_alloc(&a, SIZE_MAX - 8));
    arena_reset(&a);
}

static void arena_texts(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, &pages, 1 << 20);
    struct slice s = arena_copy(&a, SLICE("hello"));
    assert_int_equal(s.len, 5);
    assert_string_equal(s.ptr, "hello");
    assert_string_equal(arena_copy(&a, SLICE_NONE).ptr, "");
    struct slice f = arena_printf(&a, "%s-%d", "x", 42);
    assert_int_equal(f.len, 4);
    assert_string_equal(f.ptr, "x-42");
    arena_reset(&a);
}

static void arena_resizes(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, &pages, 1 << 20);
    char *p = arena_alloc(&a, 100);
    memset(p, 7, 100);
    size_t old = 100;
    for (size_t n = 200; n < 200000; n *= 2) {
        p = arena_resize(&a, p, old, n);
        for (size_t i = 0; i < 100; i++)
            assert_int_equal(p[i], 7);
        memset(p, 7, n);
        old = n;
    }
    p = arena_alloc(&a, 1000);
    size_t used = a.used_bytes;
    assert_ptr_equal(arena_resize(&a, p, 1000, 16), p);
    assert_true(a.used_bytes <= used);
    arena_reset(&a);
    arena_init(&a, &pages, 1000);
    p = arena_alloc(&a, 900);
    assert_null(arena_resize(&a, p, 900, 1100));
    assert_true(a.overflow);
    arena_reset(&a);
}

/* A queue of numbered bytes against a plain model. */
static void buf_is_a_queue(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, &pages, 100000);
    unsigned in = 0, out = 0, seed = 1;
    for (int step = 0; step < 20000; step++) {
        seed = seed * 1103515245 + 12345;
        size_t n = (seed >> 8) % 700;
        if (seed >> 31 || in - out > 60000) {
            n = n < b.len ? n : b.len;
            for (size_t i = 0; i < n; i++)
                assert_int_equal((uint8_t)buf_ptr(&b)[i], (uint8_t)(out + i));
            buf_consume(&b, n);
            out += (unsigned)n;
        } else {
            size_t room;
            char *p = buf_reserve(&b, n, &room);
            assert_non_null(p);
            assert_true(room >= n);
            for (size_t i = 0; i < room; i++)
                p[i] = (char)(in + i);
            buf_commit(&b, n);
            in += (unsigned)n;
        }
        assert_int_equal(b.len, in - out);
    }
    buf_release(&b);
    assert_null(b.mem);
}

static void buf_ceiling(void **state) {
    (void)state;
    static const size_t ceilings[] = { 1, 10, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1, 100000 };
    char *zeros = calloc(1, 100001);
    for (size_t i = 0; i < ARRAY_LEN(ceilings); i++) {
        size_t max = ceilings[i];
        struct buf b;
        buf_init(&b, &pages, max);
        assert_false(buf_append(&b, zeros, max + 1));
        assert_int_equal(b.len, 0);
        assert_true(buf_append(&b, zeros, max));
        assert_null(buf_reserve(&b, 1, NULL));
        assert_false(buf_printf(&b, "x"));
        buf_consume(&b, 1);
        assert_true(buf_append(&b, "y", 1));
        assert_int_equal(buf_ptr(&b)[max - 1], 'y');
        buf_consume(&b, max);
        assert_int_equal(b.off, 0);
        buf_release(&b);
    }
    free(zeros);
    struct buf none;
    buf_init(&none, &pages, 0);
    assert_null(buf_reserve(&none, 1, NULL));
    assert_true(buf_append(&none, "", 0));
    buf_release(&none);
}

static void buf_prints(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, &pages, 10);
    assert_true(buf_printf(&b, "%s", ""));
    assert_true(buf_printf(&b, "%d", 12345));
    assert_true(buf_printf(&b, "%s", "abcde")); /* exactly full: vsnprintf's NUL has no room */
    assert_int_equal(b.len, 10);
    assert_memory_equal(buf_ptr(&b), "12345abcde", 10);
    assert_false(buf_printf(&b, "%s", "f"));
    buf_release(&b);
    buf_init(&b, &pages, 1 << 20);
    for (int i = 0; i < 10000; i++)
        assert_true(buf_printf(&b, "%07d", i));
    assert_int_equal(b.len, 70000);
    assert_memory_equal(buf_ptr(&b) + 7 * 9999, "0009999", 7);
    buf_release(&b);
}

/* Dropping few bytes and adding few on a nearly full page must not move the page each time. */
static void buf_moves_seldom(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, &pages, 1 << 20);
    int moves = 0;
    char zeros[100] = { 0 };
    for (int i = 0; i < 160; i++)
        assert_true(buf_append(&b, zeros, 100));
    char *mem = buf_ptr(&b) + 1;
    for (int i = 0; i < 10000; i++) {
        buf_consume(&b, 100);
        assert_true(buf_append(&b, zeros, 100));
        moves += buf_ptr(&b) < mem || buf_ptr(&b) > mem + 100;
        mem = buf_ptr(&b);
    }
    assert_in_range(moves, 1, 200);
    assert_true(b.cap <= 2 * PAGE_BYTES); /* nor make it grow */
    buf_release(&b);
}

static void pages_keep(void **state) {
    (void)state;
    struct pages p;
    pages_init(&p, 2);
    void *a[4];
    for (int i = 0; i < 4; i++)
        a[i] = pages_get(&p);
    assert_int_equal(p.in_use, 4);
    for (int i = 0; i < 4; i++)
        pages_put(&p, a[i]);
    assert_int_equal(p.in_use, 0);
    assert_true(p.free_count <= 2);
    pages_clear(&p);
    assert_int_equal(p.free_count, 0);
}

static bool glob(const char *g, const char *n) {
    return slice_glob(slice_str(g), slice_str(n));
}

static void slices(void **state) {
    (void)state;
    assert_true(glob("*", "") && glob("*", "a/b") && glob("a*c", "abbc") && glob("a*b*c", "aXbYbZc") &&
                glob("**", "x") && glob("", ""));
    assert_true(glob("openrouter/*", "openrouter/x/y") && glob("*-mini", "gpt-4o-mini") && glob("abc", "abc"));
    assert_false(glob("a*c", "abcb") || glob("", "a") || glob("a", "") || glob("*-mini", "gpt-mini-4") ||
                 glob("abc", "abcd") || glob("A", "a"));
    char many[201], deep[201]; /* would take forever if it backtracked from every star */
    memset(many, 'a', 200);
    for (int i = 0; i < 200; i++)
        deep[i] = i % 2 ? '*' : 'a';
    many[200] = deep[200] = '\0';
    deep[198] = 'b';
    assert_false(glob(deep, many));
    uint64_t v;
    assert_true(slice_to_u64(SLICE("18446744073709551615"), &v) && v == UINT64_MAX);
    assert_true(slice_to_u64(SLICE("007"), &v) && v == 7);
    assert_false(slice_to_u64(SLICE("18446744073709551616"), &v) || slice_to_u64(SLICE(""), &v) ||
                 slice_to_u64(SLICE("-1"), &v) || slice_to_u64(SLICE("+1"), &v) || slice_to_u64(SLICE("1 "), &v) ||
                 slice_to_u64(SLICE("99999999999999999999"), &v));
    assert_true(slice_ieq(SLICE("Content-Length"), SLICE("cONTENT-lENGTH")));
    assert_false(slice_ieq(SLICE("a"), SLICE("b")) || slice_ieq(SLICE("["), SLICE("{")) ||
                 slice_ieq(SLICE("@"), SLICE("`")) || slice_ieq(SLICE("a"), SLICE("aa")));
    assert_true(slice_eq(slice_trim(SLICE(" \t a b\t ")), SLICE("a b")) && slice_trim(SLICE(" \t")).len == 0);
    assert_true(slice_eq_secret(SLICE("abc"), SLICE("abc")) && slice_eq_secret(SLICE(""), SLICE_NONE));
    assert_false(slice_eq_secret(SLICE("abc"), SLICE("abd")) || slice_eq_secret(SLICE("abc"), SLICE("ab")) ||
                 slice_eq_secret(SLICE("xbc"), SLICE("abc")));
    assert_int_equal(slice_from(SLICE("abc"), 5).len, 0);
    char secret[40];
    memset(secret, 'x', sizeof secret);
    wipe(secret, sizeof secret);
    for (size_t i = 0; i < sizeof secret; i++)
        assert_int_equal(secret[i], 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(arena_aligns_and_returns, all_returned),
        cmocka_unit_test_teardown(arena_overflow_is_sticky, all_returned),
        cmocka_unit_test_teardown(arena_texts, all_returned),
        cmocka_unit_test_teardown(arena_resizes, all_returned),
        cmocka_unit_test_teardown(buf_is_a_queue, all_returned),
        cmocka_unit_test_teardown(buf_ceiling, all_returned),
        cmocka_unit_test_teardown(buf_prints, all_returned),
        cmocka_unit_test_teardown(buf_moves_seldom, all_returned),
        cmocka_unit_test(pages_keep),
        cmocka_unit_test(slices),
    };
    pages_init(&pages, 4);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pages_clear(&pages);
    return failed;
}
