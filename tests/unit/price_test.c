/* Prices: by hand, against values computed with Python's fractions.Fraction (tests/unit/price_vectors.py makes
 * price_vectors.h), saturation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "proto/base/check.h"
#include "proto/price.h"
#include "tests/unit/price_vectors.h"

static int64_t nano(uint64_t tokens, uint64_t per_million, uint32_t ratio) {
    struct meters m = { .n = { [METER_INPUT] = tokens } };
    struct prices p = { .per_million = { [METER_INPUT] = per_million } };
    return price_cost_nano(&m, &p, 0, ratio);
}

static void by_hand(void **state) {
    (void)state;
    /* 1,000 tokens at $2.75 a million are $0.00275 = 2,750,000 n$ */
    assert_int_equal(nano(1000, 2750000, RATIO_ONE), 2750000);
    assert_int_equal(nano(1000, 2750000, RATIO_ONE / 2), 1375000);
    assert_int_equal(nano(1000, 2750000, 0), 0);
    assert_int_equal(nano(0, 2750000, RATIO_ONE), 0);
    /* one token at $0.0005 a million is 0.5 n$: half to even */
    assert_int_equal(nano(1, 500, RATIO_ONE), 0);
    assert_int_equal(nano(1, 1500, RATIO_ONE), 2);
    assert_int_equal(nano(1, 2500, RATIO_ONE), 2);
    assert_int_equal(nano(1, 3500, RATIO_ONE), 4);
    assert_int_equal(nano(1, 501, RATIO_ONE), 1);
    assert_int_equal(nano(1, 499, RATIO_ONE), 0);
    assert_int_equal(nano(1, 500, RATIO_ONE + 1), 1); /* a millionth decides */
    /* rounded once, not each meter: 0.4 + 0.4 + 0.4 n$ */
    struct meters m = { .n = { [METER_INPUT] = 1, [METER_OUTPUT] = 1, [METER_REASONING] = 1 } };
    struct prices p = { .per_million = { [METER_INPUT] = 400, [METER_OUTPUT] = 400, [METER_REASONING] = 400 } };
    assert_int_equal(price_cost_nano(&m, &p, 0, RATIO_ONE), 1);
    /* and with them what uses of tools cost: three at $0.01 and 0.3 n$ more of a half-priced one */
    assert_int_equal(price_cost_nano(&m, &p, 30000000000 + 300, RATIO_ONE), 30000002);
    assert_int_equal(price_cost_nano(&m, &p, 30000000000, RATIO_ONE / 2), 15000001);
    assert_int_equal(price_cost_nano(&m, &p, UINT64_MAX, UINT32_MAX), COST_MAX / 1);
    /* two pictures at $0.04 */
    struct meters pictures = { .n = { [METER_IMAGES] = 2 } };
    struct prices each = { .per_million = { [METER_IMAGES] = 40000000000 } };
    assert_int_equal(price_cost_nano(&pictures, &each, 0, RATIO_ONE), 80000000);
    /* tokens: 10 at weight 1, 3 at weight 1.5 → 14.5 → 14 */
    struct meters t = { .n = { [METER_INPUT] = 10, [METER_OUTPUT] = 3 } };
    struct prices weights = { .per_million = { [METER_INPUT] = 1000000, [METER_OUTPUT] = 1500000 } };
    assert_int_equal(price_cost_tokens(&t, &weights, RATIO_ONE), 14);
    t.n[METER_OUTPUT] = 1; /* 11.5 → 12 */
    assert_int_equal(price_cost_tokens(&t, &weights, RATIO_ONE), 12);
}

static void tools_by_name(void **state) {
    (void)state;
    static const struct { const char *word; enum tool_kind kind; } words[] = {
        { "web_search", TOOL_WEB_SEARCH }, { "web_search_preview_2025_03_11", TOOL_WEB_SEARCH },
        { "web_fetch_20250910", TOOL_WEB_FETCH }, { "code_interpreter", TOOL_CODE_EXECUTION },
        { "code_execution_20250825", TOOL_CODE_EXECUTION }, { "web_searching", TOOL_KINDS }, { "web", TOOL_KINDS },
        { "", TOOL_KINDS }, { "x_search", TOOL_X_SEARCH },
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        assert_int_equal(tool_named(slice_str(words[i].word)), words[i].kind);
}

static void saturates(void **state) {
    (void)state;
    assert_int_equal(nano(UINT64_MAX, UINT64_MAX, RATIO_ONE), COST_MAX);
    assert_int_equal(nano(UINT64_MAX, UINT64_MAX, 1), COST_MAX);
    assert_int_equal(nano(UINT64_MAX, UINT64_MAX, 0), 0);
    struct meters m;
    struct prices p;
    for (int i = 0; i < METER_COUNT; i++)
        m.n[i] = p.per_million[i] = UINT64_MAX;
    assert_int_equal(price_cost_nano(&m, &p, 0, UINT32_MAX), COST_MAX);
    assert_int_equal(price_cost_tokens(&m, &p, UINT32_MAX), COST_MAX);
    assert_int_equal(price_cost_nano(&m, &p, 0, 0), 0);
    assert_int_equal(meters_input(&m), UINT64_MAX);
    assert_int_equal(meters_output(&m), UINT64_MAX);
    /* the last value that fits, and the next */
    assert_int_equal(nano(INT64_MAX, 1000, RATIO_ONE), COST_MAX);
    assert_int_equal(nano((uint64_t)INT64_MAX - 1, 1000, RATIO_ONE), COST_MAX - 1);
    assert_int_equal(nano((uint64_t)INT64_MAX + 1, 1000, RATIO_ONE), COST_MAX);
}

static void against_fractions(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(PRICE_VECTORS); i++) {
        struct meters m;
        struct prices p;
        for (int k = 0; k < METER_COUNT; k++) {
            m.n[k] = PRICE_VECTORS[i].n[k];
            p.per_million[k] = PRICE_VECTORS[i].p[k];
        }
        assert_int_equal(price_cost_nano(&m, &p, 0, PRICE_VECTORS[i].ratio), PRICE_VECTORS[i].nano);
        assert_int_equal(price_cost_tokens(&m, &p, PRICE_VECTORS[i].ratio), PRICE_VECTORS[i].tokens);
    }
}

static void sides(void **state) {
    (void)state;
    for (int i = 0; i < METER_COUNT; i++) {
        struct prices p = { .per_million = { [METER_INPUT] = 1, [METER_OUTPUT] = 2 } };
        struct meters m = { .n = { 0 } };
        p.per_million[i] = 1000;
        m.n[i] = 7;
        bool in = i <= METER_IMAGE_INPUT, out = !in && i <= METER_IMAGE_OUTPUT;
        assert_int_equal(price_dearest_input(&p), in ? 1000 : 1);
        assert_int_equal(price_dearest_output(&p), out ? 1000 : 2);
        assert_int_equal(meters_input(&m), in ? 7 : 0);
        assert_int_equal(meters_output(&m), out ? 7 : 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(by_hand), cmocka_unit_test(tools_by_name), cmocka_unit_test(saturates),
                                        cmocka_unit_test(against_fractions), cmocka_unit_test(sides) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
