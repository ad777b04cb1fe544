/* The JSON parser against tables of good and bad texts (RFC 8259, and the traps collected in "Parsing JSON is a
 * minefield"), navigation, numbers and the writer. Every text is parsed from an allocation of exactly its size, so that
 * a sanitizer sees a read past it; each good text is also cut at every byte, which must never be taken for whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/base/check.h"
#include "proto/base/cpu.h"
#include "proto/json.h"

static struct pages pages;
static struct arena arena;

static int teardown(void **state) {
    (void)state;
    arena_reset(&arena);
    return pages.in_use != 0 || pages.big_bytes != 0;
}

/* Parses a copy of exactly that size, which lives in the arena's neighbour malloc; both ways of parsing must agree. */
static enum json_err parse_err(const char *text, size_t len, size_t *at) {
    char *exact = malloc(len ? len : 1);
    memcpy(exact, text, len);
    struct json j, k;
    static struct json_tok tape[4096];
    bool ok = json_parse(&j, &arena, exact, len);
    assert_int_equal(ok, j.err == JSON_OK);
    bool ok2 = json_parse_into(&k, tape, ARRAY_LEN(tape), exact, len);
    if (k.err != JSON_TOO_MANY) {
        assert_int_equal(ok, ok2);
        assert_int_equal(j.err, k.err);
        assert_int_equal(j.err_at, k.err_at);
        if (ok) {
            assert_int_equal(j.count, k.count);
            for (uint32_t i = 0; i < j.count; i++) {
                assert_int_equal(j.tok[i].start, k.tok[i].start);
                assert_int_equal(j.tok[i].end, k.tok[i].end);
                assert_int_equal(j.tok[i].next, k.tok[i].next);
                assert_int_equal(j.tok[i].type, k.tok[i].type);
            }
        }
    }
    if (at)
        *at = j.err_at;
    assert_true(j.err_at <= len);
    free(exact);
    arena_reset(&arena);
    return j.err;
}

static struct json parsed(const char *text) {
    struct json j;
    assert_true(json_parse(&j, &arena, text, strlen(text)));
    return j;
}

static const char *const GOOD[] = {
    "{}",
    "[]",
    " [ ] ",
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-1",
    "0.1",
    "-0.0",
    "1e1",
    "1E+2",
    "1e-2",
    "12.50e007",
    "\"\"",
    "\"a\"",
    "123456789012345678901234567890",
    "[1,2,3]",
    "[[],{},[[]]]",
    "{\"a\":1}",
    "{\"a\":{\"b\":[null,true,false]},\"c\":\"d\"}",
    "\t\r\n {\"a\" : 1 , \"b\" : [ 1 , 2 ] } \r\n",
    "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
    "\"\\u0041\\u00e9\\u20ac\\ud83d\\ude00\\u0000\"",
    "\"\\uD800\\uDC00\\uDBFF\\uDFFF\"",
    "\"\x7f\"",
    "\"/\"",
    "\"\xc2\x80\xdf\xbf\"",
    "\"\xe0\xa0\x80\xe2\x82\xac\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\"",
    "\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"",
    "\"\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82, \xd0\xbc\xd0\xb8\xd1\x80 \\n\xd1\x82 a \xd1\x82\"",
    "{\"\":0}",
    "{\"a\":1,\"a\":2}",
    "[0,-1.5e3,\"x\",{}]",
    "\"0123456789abcdef\"",
    "\"0123456789abcde\"",
    "\"0123456789abcdefg\"",
    "\"0123456789abcdef0123456789abcdef\\n\"",
    "{\"0123456789abcdef\\u0030\":[\"0123456789abcde\xc3\xa9\"]}",
};

static const struct { const char *text; enum json_err err; size_t at;
} BAD[] = {
    { "", JSON_EMPTY, 0 },
    { "  \n", JSON_EMPTY, 3 },
    { "[", JSON_SYNTAX, 1 },
    { "]", JSON_SYNTAX, 0 },
    { "{", JSON_SYNTAX, 1 },
    { "}", JSON_SYNTAX, 0 },
    { "[1", JSON_SYNTAX, 2 },
    { "[1,", JSON_SYNTAX, 3 },
    { "[1,]", JSON_SYNTAX, 3 },
    { "[,1]", JSON_SYNTAX, 1 },
    { "[1 2]", JSON_SYNTAX, 3 },
    { "[1:2]", JSON_SYNTAX, 2 },
    { "[1}", JSON_SYNTAX, 2 },
    { "{]", JSON_SYNTAX, 1 },
    { "{\"a\"", JSON_SYNTAX, 4 },
    { "{\"a\":", JSON_SYNTAX, 5 },
    { "{\"a\":}", JSON_SYNTAX, 5 },
    { "{\"a\":1,}", JSON_SYNTAX, 7 },
    { "{\"a\",1}", JSON_SYNTAX, 4 },
    { "{1:1}", JSON_SYNTAX, 1 },
    { "{a:1}", JSON_SYNTAX, 1 },
    { "{'a':1}", JSON_SYNTAX, 1 },
    { "{\"a\":1 \"b\":2}", JSON_SYNTAX, 7 },
    { "{\"a\" 1}", JSON_SYNTAX, 5 },
    { "{\"a\":1]", JSON_SYNTAX, 6 },
    { "{,}", JSON_SYNTAX, 1 },
    { "{\"a\"::1}", JSON_SYNTAX, 5 },
    { "{null:1}", JSON_SYNTAX, 1 },
    { "{[]:1}", JSON_SYNTAX, 1 },
    { "tru", JSON_SYNTAX, 3 },
    { "True", JSON_SYNTAX, 0 },
    { "truE", JSON_SYNTAX, 3 },
    { "nul", JSON_SYNTAX, 3 },
    { "fals", JSON_SYNTAX, 4 },
    { "nan", JSON_SYNTAX, 1 },
    { "NaN", JSON_SYNTAX, 0 },
    { "Infinity", JSON_SYNTAX, 0 },
    { "-Infinity", JSON_SYNTAX, 1 },
    { "undefined", JSON_SYNTAX, 0 },
    { "truefalse", JSON_TRAILING, 4 },
    { "nullx", JSON_TRAILING, 4 },
    { "-", JSON_SYNTAX, 1 },
    { "+1", JSON_SYNTAX, 0 },
    { ".5", JSON_SYNTAX, 0 },
    { "1.", JSON_SYNTAX, 2 },
    { "1.e1", JSON_SYNTAX, 2 },
    { "1e", JSON_SYNTAX, 2 },
    { "1e+", JSON_SYNTAX, 3 },
    { "1E-", JSON_SYNTAX, 3 },
    { "01", JSON_TRAILING, 1 },
    { "-01", JSON_TRAILING, 2 },
    { "[01]", JSON_SYNTAX, 2 },
    { "0x10", JSON_TRAILING, 1 },
    { "1.5.2", JSON_TRAILING, 3 },
    { "1e5.2", JSON_TRAILING, 3 },
    { "--1", JSON_SYNTAX, 1 },
    { "-a", JSON_SYNTAX, 1 },
    { "1_000", JSON_TRAILING, 1 },
    { "\xef\xbc\x91", JSON_SYNTAX, 0 },
    { "\"", JSON_SYNTAX, 1 },
    { "\"a", JSON_SYNTAX, 2 },
    { "\"\\", JSON_SYNTAX, 2 },
    { "\"\\\"", JSON_SYNTAX, 3 },
    { "\"\n\"", JSON_SYNTAX, 1 },
    { "\"a\tb\"", JSON_SYNTAX, 2 },
    { "\"\x1f\"", JSON_SYNTAX, 1 },
    { "\"0123456789abcdef\x01\"", JSON_SYNTAX, 17 },
    { "\"\\a\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\x41\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\'\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\u\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\u12\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\u123\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\u12g4\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\U0041\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\u004", JSON_BAD_ESCAPE, 1 },
    { "\"\\\n\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\u00 0\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\u-001\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\ud800\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\udc00\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\ud800a\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\ud800\\n\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\ud800\\u0041\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\ud800\\ud800\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\udbff\\ue000\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\udfff\\ud800\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\udc00\\udc00\"", JSON_BAD_ESCAPE, 1 },
    { "\"\\ud83d\\ude0\"", JSON_BAD_ESCAPE, 1 },
    { "\"a\\ud83d", JSON_BAD_ESCAPE, 2 },
    { "\"\x80\"", JSON_BAD_UTF8, 1 },
    { "\"\xbf\"", JSON_BAD_UTF8, 1 },
    { "\"\xc0\x80\"", JSON_BAD_UTF8, 1 },
    { "\"\xc1\xbf\"", JSON_BAD_UTF8, 1 },
    { "\"\xc3\"", JSON_BAD_UTF8, 1 },
    { "\"\xc3\x28\"", JSON_BAD_UTF8, 1 },
    { "\"\xe0\x9f\xbf\"", JSON_BAD_UTF8, 1 },
    { "\"\xe2\x82\"", JSON_BAD_UTF8, 1 },
    { "\"\xed\xa0\x80\"", JSON_BAD_UTF8, 1 },
    { "\"\xed\xbf\xbf\"", JSON_BAD_UTF8, 1 },
    { "\"\xf0\x8f\xbf\xbf\"", JSON_BAD_UTF8, 1 },
    { "\"\xf4\x90\x80\x80\"", JSON_BAD_UTF8, 1 },
    { "\"\xf5\x80\x80\x80\"", JSON_BAD_UTF8, 1 },
    { "\"\xff\"", JSON_BAD_UTF8, 1 },
    { "\"\xfe\"", JSON_BAD_UTF8, 1 },
    { "\"\xf0\x9f\x98\"", JSON_BAD_UTF8, 1 },
    { "\"\xe2\x82\xac\xe2\x28\xa1\"", JSON_BAD_UTF8, 4 },
    { "\"\xc3\xa9 \xa9\"", JSON_BAD_UTF8, 4 },
    { "\"\xc3\xa9\"\x80", JSON_TRAILING, 4 },
    { "1 2", JSON_TRAILING, 2 },
    { "{} {}", JSON_TRAILING, 3 },
    { "[],", JSON_TRAILING, 2 },
    { "\"a\"x", JSON_TRAILING, 3 },
    { "{}//c", JSON_TRAILING, 2 },
    { "/**/1", JSON_SYNTAX, 0 },
    { "[1]#", JSON_TRAILING, 3 },
    { "\xef\xbb\xbf{}", JSON_SYNTAX, 0 },
    { "\f1", JSON_SYNTAX, 0 },
    { "\v1", JSON_SYNTAX, 0 },
    { "1\xc2\xa0", JSON_TRAILING, 1 },
    { "[\"a\"\"b\"]", JSON_SYNTAX, 4 },
    { "[\"a\",\n\"b\"", JSON_SYNTAX, 9 },
};

static void good_texts(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(GOOD); i++) {
        size_t len = strlen(GOOD[i]);
        if (parse_err(GOOD[i], len, NULL) != JSON_OK)
            fail_msg("refused: %s", GOOD[i]);
        for (size_t cut = 0; cut < len;
             cut++) /* a prefix is whole only where it is a number or has shed its last space */
            if (parse_err(GOOD[i], cut, NULL) == JSON_OK && !strchr("-0123456789. \r\n", GOOD[i][cut]) &&
                !strchr("0123456789", GOOD[i][cut - 1]))
                fail_msg("taken for whole: %.*s", (int)cut, GOOD[i]);
        for (size_t at = 0; at <= len && strchr("[{", GOOD[i][0]); at++) { /* a NUL fits nowhere */
            char *with = malloc(len + 1);
            memcpy(with, GOOD[i], at);
            with[at] = '\0';
            memcpy(with + at + 1, GOOD[i] + at, len - at);
            if (parse_err(with, len + 1, NULL) == JSON_OK)
                fail_msg("NUL at %zu of %s", at, GOOD[i]);
            free(with);
        }
    }
}

static void bad_texts(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
        size_t at;
        enum json_err err = parse_err(BAD[i].text, strlen(BAD[i].text), &at);
        if (err != BAD[i].err || at != BAD[i].at)
            fail_msg("%s: got %s at %zu, want %s at %zu", BAD[i].text, json_err_text(err), at,
                     json_err_text(BAD[i].err), BAD[i].at);
    }
    assert_int_equal(parse_err("\"a\0b\"", 5, NULL), JSON_SYNTAX);
    struct json j;
    if (sizeof(size_t) > 4) /* refused by its length alone: the text is not touched */
        assert_false(json_parse(&j, &arena, "1", (size_t)UINT32_MAX + 1) || j.err != JSON_TOO_LONG);
}

/* Every bad text at every distance from the end of a 16-byte window, in a string's neighbourhood. */
static void bad_texts_shifted(void **state) {
    (void)state;
    static const char *const inner[] = { "\x01", "\\q", "\\ud800", "\x80", "\xed\xa0\x80", "\xc3", "\"x", "\\-" };
    char text[256];
    for (size_t i = 0; i < ARRAY_LEN(inner); i++)
        for (size_t before = 0; before < 40; before++)
            for (size_t after = 0; after < 36; after += 5) {
                int n = snprintf(text, sizeof text, "[\"%.*s%s%.*s\"]", (int)before,
                                 "the quick brown fox jumps over the lazy dog", inner[i], (int)after,
                                 "the quick brown fox jumps over the lazy dog");
                if (parse_err(text, (size_t)n, NULL) == JSON_OK)
                    fail_msg("taken: %s", text);
            }
}

/* Sequences of all lengths, good and broken at their borders, at every place of a block: by instructions and byte by
 * byte alike. */
static void utf8_both_ways(void **state) {
    (void)state;
    static const char *const bits[] = { "a",
                                        " ",
                                        "\xc2\x80",
                                        "\xdf\xbf",
                                        "\xe0\xa0\x80",
                                        "\xe2\x82\xac",
                                        "\xed\x9f\xbf",
                                        "\xee\x80\x80",
                                        "\xef\xbf\xbf",
                                        "\xf0\x90\x80\x80",
                                        "\xf4\x8f\xbf\xbf",
                                        "\xf1\xbf\x80\xbf",
                                        "\xe6\x97\xa5",
                                        "\xd0\x9f" };
    char text[200];
    unsigned seed = 11, refused = 0;
    for (int round = 0; round < 60000; round++) {
        size_t n = 1;
        text[0] = '"';
        while (n < 60 + (size_t)round % 40) {
            seed = seed * 1103515245 + 12345;
            const char *bit = bits[(seed >> 16) % ARRAY_LEN(bits)];
            memcpy(text + n, bit, strlen(bit));
            n += strlen(bit);
        }
        if (round % 4) { /* one byte changed, to one of those that matter */
            static const unsigned char changes[] = { 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf,
                                                     0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff, 'x',  '\\', '\n' };
            seed = seed * 1103515245 + 12345;
            text[1 + (seed >> 16) % (n - 1)] = (char)changes[(seed >> 8) % ARRAY_LEN(changes)];
        }
        text[n++] = '"';
        size_t at, at_portable;
        enum json_err err = parse_err(text, n, &at);
        cpu_portable_only = true;
        assert_int_equal(err, parse_err(text, n, &at_portable));
        cpu_portable_only = false;
        assert_int_equal(at, at_portable);
        refused += err != JSON_OK;
        if (round % 4 == 0)
            assert_int_equal(err, JSON_OK);
    }
    assert_in_range(refused, 20000, 44999);
}

static void depth(void **state) {
    (void)state;
    char text[4 * JSON_MAX_DEPTH];
    for (int n = 1; n <= JSON_MAX_DEPTH + 1; n++) {
        memset(text, '[', (size_t)n);
        memset(text + n, ']', (size_t)n);
        assert_int_equal(parse_err(text, 2 * (size_t)n, NULL), n <= JSON_MAX_DEPTH ? JSON_OK : JSON_TOO_DEEP);
    }
    size_t huge = 4 << 20;
    char *hostile = malloc(huge);
    memset(hostile, '[', huge);
    assert_int_equal(parse_err(hostile, huge, NULL), JSON_TOO_DEEP);
    for (size_t i = 0; i + 5 <= huge; i += 5)
        memcpy(hostile + i, "{\"a\":", 5);
    assert_int_equal(parse_err(hostile, huge, NULL), JSON_TOO_DEEP);
    free(hostile);
}

static void bounds(void **state) {
    (void)state;
    struct json_tok tape[3];
    struct json j;
    assert_true(json_parse_into(&j, tape, 3, "[1,2]", 5));
    assert_false(json_parse_into(&j, tape, 3, "[1,2,3]", 7));
    assert_int_equal(j.err, JSON_TOO_MANY);
    assert_false(json_parse_into(&j, tape, 0, "1", 1));
    /* a tape past JSON_MAX_TOKENS, and one past the arena */
    size_t n = 2 * (size_t)JSON_MAX_TOKENS + 2;
    char *many = malloc(n);
    for (size_t i = 0; i < n; i++)
        many[i] = i % 2 ? '1' : ',';
    many[0] = '[';
    many[n - 1] = ']';
    struct arena wide;
    arena_init(&wide, &pages, 1 << 30);
    assert_false(json_parse(&j, &wide, many, n));
    assert_int_equal(j.err, JSON_TOO_MANY);
    arena_reset(&wide);
    many[2 * (JSON_MAX_TOKENS - 2) + 2] = ']';
    assert_true(json_parse(&j, &wide, many, 2 * (JSON_MAX_TOKENS - 2) + 3));
    assert_int_equal(j.count, JSON_MAX_TOKENS);
    arena_reset(&wide);
    struct arena small;
    arena_init(&small, &pages, 20000);
    assert_false(json_parse(&j, &small, many, n));
    assert_int_equal(j.err, JSON_NO_MEMORY);
    assert_true(small.overflow);
    arena_reset(&small);
    arena_init(&small, &pages, 10);
    assert_false(json_parse(&j, &small, "1", 1));
    assert_int_equal(j.err, JSON_NO_MEMORY);
    arena_reset(&small);
    free(many);
}

static void navigation(void **state) {
    (void)state;
    struct json j = parsed(
        "{\"a\":1,\"b\":[10,[20,21],{\"c\":30}],\"a\\u0062\":\"x\\ny\",\"o\":{},\"e\":[],\"a\":2,\"n\\u0000\":3}");
    assert_int_equal(json_size(&j, 0), 7);
    assert_true(json_duplicate(&j, 0, "a"));
    assert_false(json_duplicate(&j, 0, "b") || json_duplicate(&j, 0, "zz"));
    assert_true(slice_is(json_raw(&j, json_get(&j, 0, "a")), "2"));
    assert_true(slice_is(json_raw(&j, json_get(&j, 0, "ab")), "x\\ny"));
    assert_true(slice_is(json_span(&j, json_get(&j, 0, "ab")), "\"x\\ny\""));
    assert_true(slice_is(json_span(&j, json_get(&j, 0, "b")), "[10,[20,21],{\"c\":30}]"));
    assert_int_equal(json_get(&j, 0, "zz"), -1);
    assert_int_equal(json_get(&j, 0, "n"), -1); /* its name has a NUL behind the n */
    assert_int_equal(json_get(&j, -1, "a"), -1);
    assert_int_equal(json_get(&j, json_get(&j, 0, "b"), "a"), -1);
    assert_int_equal(json_first(&j, json_get(&j, 0, "o")), -1);
    assert_int_equal(json_first(&j, json_get(&j, 0, "e")), -1);
    assert_int_equal(json_first(&j, json_get(&j, 0, "a")), -1);
    assert_int_equal(json_first(&j, -1), -1);
    int arr = json_get(&j, 0, "b"), seen = 0;
    static const char *const want[] = { "10", "[20,21]", "{\"c\":30}" };
    for (int t = json_first(&j, arr); t >= 0; t = json_next(&j, arr, t))
        assert_true(slice_is(json_span(&j, t), want[seen++]));
    assert_int_equal(seen, 3);
    static const char *const keys[] = { "a", "b", "a\\u0062", "o", "e", "a", "n\\u0000" };
    seen = 0;
    for (int t = json_first(&j, 0); t >= 0; t = json_next(&j, 0, t))
        assert_true(slice_is(json_raw(&j, t), keys[seen++]));
    assert_int_equal(seen, 7);
    bool b = false;
    struct json k = parsed("[true,false,1]");
    assert_true(json_bool(&k, 1, &b) && b && json_bool(&k, 2, &b) && !b);
    assert_false(json_bool(&k, 3, &b) || json_bool(&k, -1, &b));
}

static void strings(void **state) {
    (void)state;
    static const struct { const char *json, *text;
    } pairs[] = {
        { "\"\"", "" },
        { "\"plain\"", "plain" },
        { "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t" },
        { "\"\\u0041\\u007f\\u0080\\u07ff\\u0800\\uffff\"", "A\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf" },
        { "\"x\\uD83D\\uDE00y\"", "x\xf0\x9f\x98\x80y" },
        { "\"\\udbff\\udfff\"", "\xf4\x8f\xbf\xbf" },
        { "\"\\ud800\\udc00\"", "\xf0\x90\x80\x80" },
        { "\"\xc3\xa9\\n\xc3\xa9\"", "\xc3\xa9\n\xc3\xa9" },
        { "\"\\u00E9\\u00e9\"", "\xc3\xa9\xc3\xa9" },
    };
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        struct json j = parsed(pairs[i].json);
        struct slice s = json_str(&j, 0, &arena);
        assert_non_null(s.ptr);
        assert_true(slice_is(s, pairs[i].text));
        assert_int_equal(json_str_len(&j, 0), s.len);
        size_t decoded = 0;
        const char *text = pairs[i].json, *behind = json_string_end(text + 1, text + strlen(text), &decoded);
        if (strstr(text, "\\u") != NULL) {
            assert_null(behind); /* for the parser alone */
        } else {
            assert_ptr_equal(behind, text + strlen(text) - 1);
            assert_int_equal(decoded, s.len);
        }
        assert_true(json_str_is(&j, 0, pairs[i].text));
        assert_false(json_str_is(&j, 0, "other"));
        char longer[64];
        snprintf(longer, sizeof longer, "%sx", pairs[i].text);
        assert_false(json_str_is(&j, 0, longer));
        if (s.len > 0) {
            longer[s.len - 1] = '\0';
            assert_false(json_str_is(&j, 0, longer));
        }
    }
    struct json j = parsed("[\"a\\u0000b\",1]");
    struct slice s = json_str(&j, 1, &arena);
    assert_int_equal(s.len, 3);
    assert_memory_equal(s.ptr, "a\0b", 3);
    assert_false(json_str_is(&j, 1, "a"));
    assert_null(json_str(&j, 2, &arena).ptr);
    assert_null(json_str(&j, -1, &arena).ptr);
    assert_int_equal(json_str_len(&j, 2) + json_str_len(&j, -1), 0);
    assert_false(json_str_is(&j, -1, "") || json_str_is(&j, 2, "1"));
    struct arena full;
    arena_init(&full, &pages, 0);
    assert_null(json_str(&j, 1, &full).ptr);
}

static const struct { const char *text; int places; bool ok; int64_t value;
} FIXED[] = {
    { "0", 0, true, 0 },
    { "-0", 9, true, 0 },
    { "1", 9, true, 1000000000 },
    { "0.5", 0, false, 0 },
    { "0.5", 1, true, 5 },
    { "1.0", 0, true, 1 },
    { "1e2", 0, true, 100 },
    { "1.5e1", 0, true, 15 },
    { "-12.345", 3, true, -12345 },
    { "-12.345", 2, false, 0 },
    { "12.3450000", 3, true, 12345 },
    { "0.000000001", 9, true, 1 },
    { "0.0000000001", 9, false, 0 },
    { "1E-9", 9, true, 1 },
    { "9223372036854775807", 0, true, INT64_MAX },
    { "9223372036854775808", 0, false, 0 },
    { "-9223372036854775808", 0, true, INT64_MIN },
    { "-9223372036854775809", 0, false, 0 },
    { "92233720368547758.07", 2, true, INT64_MAX },
    { "9223372036.854775807", 9, true, INT64_MAX },
    { "9223372036.854775808", 9, false, 0 },
    { "18446744073709551616", 0, false, 0 },
    { "1e18", 0, true, 1000000000000000000 },
    { "1e19", 0, false, 0 },
    { "1e999999999999999999999", 0, false, 0 },
    { "0e999999999999999999999", 0, true, 0 },
    { "0.0e-99999999999999999999", 3, true, 0 },
    { "1e-999999999999999999999", 18, false, 0 },
    { "100000000000000000000000000000e-28", 0, true, 10 },
    { "0.00000000000000000000000001e26", 0, true, 1 },
    { "10e-1", 0, true, 1 },
    { "5e-1", 0, false, 0 },
    { "123456789012345678901234567890", 0, false, 0 },
    { "0.1234567890123456789", 18, false, 0 },
    { "1e+3", 0, true, 1000 },
    { "70", 0, true, 70 },
    { "70.070", 2, true, 7007 },
    { "1.10e1", 0, true, 11 },
};

static void numbers(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(FIXED); i++) {
        struct json j = parsed(FIXED[i].text);
        int64_t v = 77;
        bool ok = json_fixed(&j, 0, FIXED[i].places, &v);
        if (ok != FIXED[i].ok || v != (ok ? FIXED[i].value : 77))
            fail_msg("%s to %d places: %d, %lld", FIXED[i].text, FIXED[i].places, ok, (long long)v);
        int64_t p = 77;
        bool plain = !strpbrk(FIXED[i].text, "eE") && ok;
        assert_int_equal(fixed_parse(slice_str(FIXED[i].text), FIXED[i].places, &p), plain);
        assert_int_equal(p, plain ? FIXED[i].value : 77);
    }
    struct json j = parsed("[18446744073709551615,18446744073709551616,-1,-0,1.0,1e2,1.5,\"1\",true,"
                           "184467440737095516150e-1,-5,1e19,1e20]");
    static const struct {
        bool ok;
        uint64_t v;
    } want[] = { { true, UINT64_MAX }, { false, 0 },         { false, 0 }, { true, 0 },
                 { true, 1 },          { true, 100 },        { false, 0 }, { false, 0 },
                 { false, 0 },         { true, UINT64_MAX }, { false, 0 }, { true, 10000000000000000000u },
                 { false, 0 } };
    for (int i = 0; i < (int)ARRAY_LEN(want); i++) {
        uint64_t v = 77;
        assert_int_equal(json_u64(&j, i + 1, &v), want[i].ok);
        assert_int_equal(v, want[i].ok ? want[i].v : 77);
    }
    int64_t v;
    assert_true(json_i64(&j, 11, &v) && v == -5);
    uint64_t u;
    assert_false(json_u64(&j, -1, &u) || json_i64(&j, -1, &v) || json_i64(&j, 0, &v) || json_fixed(&j, 8, 0, &v));
}

static void fixed_texts(void **state) {
    (void)state;
    static const char *const bad[] = { "",   "-",  ".",  ".5",  "5.",  "-.5", "1.2.3", "1e2",
                                       "+1", " 1", "1 ", "0x1", "1,5", "--1", "1-",    "\xd9\xa1" };
    int64_t v;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (fixed_parse(slice_str(bad[i]), 3, &v))
            fail_msg("taken: %s", bad[i]);
    assert_false(fixed_parse(slice_of("1\0", 2), 0, &v) || fixed_parse(SLICE_NONE, 0, &v));
    assert_true(fixed_parse(SLICE("007.50"), 2, &v) && v == 750);
    static const struct { int64_t v; int places; const char *text;
    } out[] = {
        { 0, 0, "0" },
        { 0, 9, "0" },
        { 1, 9, "0.000000001" },
        { -1, 9, "-0.000000001" },
        { 1500000000, 9, "1.5" },
        { 1000000000, 9, "1" },
        { 100, 0, "100" },
        { -12345, 3, "-12.345" },
        { 12300, 3, "12.3" },
        { INT64_MAX, 0, "9223372036854775807" },
        { INT64_MIN, 0, "-9223372036854775808" },
        { INT64_MAX, 18, "9.223372036854775807" },
        { INT64_MIN, 18, "-9.223372036854775808" },
        { 10, 18, "0.00000000000000001" },
        { 50, 1, "5" },
    };
    for (size_t i = 0; i < ARRAY_LEN(out); i++) {
        char text[24];
        assert_true(slice_is(slice_of(text, fixed_format(text, out[i].v, out[i].places)), out[i].text));
        assert_true(fixed_parse(slice_str(out[i].text), out[i].places, &v) && v == out[i].v);
    }
}

static bool written_is(struct buf *b, const char *want) {
    bool same = slice_is(buf_slice(b), want);
    if (!same)
        print_message("wrote %.*s\n want %s\n", (int)b->len, buf_ptr(b), want);
    buf_release(b);
    return same;
}

static void writer(void **state) {
    (void)state;
    struct buf b;
    struct json_writer w;
    buf_init(&b, &pages, 1 << 20);
    jw_init(&w, &b);
    jw_object(&w);
    jw_key(&w, "s"), jw_cstr(&w, "a\"b\\c/\b\f\n\r\t\x01\x1f\x7f");
    jw_key(&w, "none"), jw_str(&w, SLICE_NONE);
    jw_key(&w, "empty"), jw_str(&w, SLICE(""));
    jw_key_slice(&w, SLICE("k\"\n")), jw_u64(&w, UINT64_MAX);
    jw_key(&w, "a"), jw_array(&w);
    jw_i64(&w, -1), jw_i64(&w, INT64_MIN), jw_bool(&w, true), jw_bool(&w, false), jw_null(&w), jw_u64(&w, 0);
    jw_array(&w), jw_end_array(&w);
    jw_object(&w), jw_end_object(&w);
    jw_raw(&w, SLICE("[1,\n\r\n 2]")), jw_raw(&w, SLICE_NONE);
    jw_fixed(&w, 1234500, 6, false), jw_fixed(&w, -5, 2, true);
    jw_end_array(&w);
    jw_key(&w, "p"), jw_str_begin(&w);
    jw_str_part(&w, SLICE("one\n")), jw_str_part(&w, SLICE_NONE), jw_str_part(&w, SLICE("\"two\""));
    jw_str_end(&w);
    jw_key(&w, "z"), jw_bool(&w, true);
    jw_end_object(&w);
    assert_false(w.failed);
    assert_true(written_is(
        &b, "{\"s\":\"a\\\"b\\\\c/"
            "\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\",\"none\":null,\"empty\":\"\",\"k\\\"\\n\":18446744073709551615,"
            "\"a\":[-1,-9223372036854775808,true,false,null,0,[],{},[1,    "
            "2],null,1.2345,\"-0.05\"],\"p\":\"one\\n\\\"two\\\"\",\"z\":true}"));
}

static void writer_utf8(void **state) {
    (void)state;
#define FFFD "\xef\xbf\xbd"
    static const struct { const char *in, *out;
    } pairs[] = {
        { "\xc3\xa9t\xc3\xa9", "\xc3\xa9t\xc3\xa9" },
        { "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80" },
        { "a\x80z", "a" FFFD "z" },
        { "\xc3", FFFD },
        { "\xc3\xa9\xc3", "\xc3\xa9" FFFD },
        { "\xed\xa0\x80", FFFD FFFD FFFD },
        { "\xc0\xaf", FFFD FFFD },
        { "\xe2\x82\n", FFFD FFFD "\\n" },
        { "\xf4\x90\x80\x80", FFFD FFFD FFFD FFFD },
        { "0123456789abcdef\xff", "0123456789abcdef" FFFD },
        { "0123456789abcdef\"", "0123456789abcdef\\\"" },
    };
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        struct buf b;
        struct json_writer w;
        char want[100];
        buf_init(&b, &pages, 1000);
        jw_init(&w, &b);
        jw_cstr(&w, pairs[i].in);
        snprintf(want, sizeof want, "\"%s\"", pairs[i].out);
        struct json j;
        assert_true(json_parse(&j, &arena, buf_ptr(&b), b.len));
        assert_true(written_is(&b, want));
    }
}

static void writer_overflow(void **state) {
    (void)state;
    for (size_t max = 0; max < 40; max++) {
        struct buf b;
        struct json_writer w;
        buf_init(&b, &pages, max);
        jw_init(&w, &b);
        jw_object(&w);
        jw_key(&w, "key");
        jw_cstr(&w, "a\nlong enough value");
        jw_end_object(&w);
        assert_int_equal(w.failed, max < 30);
        assert_true(b.len <= max);
        if (!w.failed)
            assert_int_equal(b.len, 30);
        buf_release(&b);
    }
}

/* All bytes a string can have survive writing, parsing and decoding. */
static void round_trip(void **state) {
    (void)state;
    char text[4096];
    unsigned seed = 7;
    for (int round = 0; round < 300; round++) {
        size_t n = 0, want = (seed >> 8) % 200;
        while (n < want) {
            seed = seed * 1103515245 + 12345;
            unsigned c = (seed >> 8) % 4 == 0 ? (seed >> 12) % 0x110000 : (seed >> 12) % 0x80;
            if (c >= 0xd800 && c < 0xe000)
                continue;
            if (c < 0x80)
                text[n++] = (char)c;
            else if (c < 0x800)
                text[n++] = (char)(0xc0 | c >> 6), text[n++] = (char)(0x80 | (c & 63));
            else if (c < 0x10000)
                text[n++] = (char)(0xe0 | c >> 12), text[n++] = (char)(0x80 | (c >> 6 & 63)),
                text[n++] = (char)(0x80 | (c & 63));
            else
                text[n++] = (char)(0xf0 | c >> 18), text[n++] = (char)(0x80 | (c >> 12 & 63)),
                text[n++] = (char)(0x80 | (c >> 6 & 63)), text[n++] = (char)(0x80 | (c & 63));
        }
        struct buf b;
        struct json_writer w;
        struct json j;
        buf_init(&b, &pages, 1 << 16);
        jw_init(&w, &b);
        jw_str(&w, slice_of(text, n));
        assert_true(json_parse(&j, &arena, buf_ptr(&b), b.len));
        assert_true(slice_eq(json_str(&j, 0, &arena), slice_of(text, n)));
        buf_release(&b);
        arena_reset(&arena);
    }
}

/* Long strings are searched in wide blocks: whatever ends or spoils one is found at every place, with and without the
 * processor's widest. The text ends where its memory does. */
static void long_strings(void **state) {
    (void)state;
    enum { ALL = 300 };
    static const struct { const char *put; bool good; } specials[] = {
        { "\"", true },   { "\\n", true },  { "\xc3\xa4", true }, { "\x01", false },
        { "\x7f", true }, { "\x80", false }, { "\\", false },
    };
    for (int both = 0; both < 2; both++) {
        cpu_portable_only = both;
        for (size_t len = 1; len <= ALL; len += len < 140 ? 1 : 37)
            for (size_t at = 0; at < len; at++)
                for (size_t k = 0; k < sizeof specials / sizeof *specials; k++) {
                    struct json j;
                    size_t n = strlen(specials[k].put);
                    bool ends = specials[k].put[0] == '"';
                    char *text = malloc(at + n + (ends ? 0 : len - at) + 2);
                    text[0] = '"';
                    memset(text + 1, 'a', at);
                    memcpy(text + 1 + at, specials[k].put, n);
                    size_t all = 1 + at + n;
                    if (!ends) {
                        memset(text + all, specials[k].put[0] == '\\' && n == 1 ? 'x' : 'b', len - at);
                        all += len - at;
                        text[all++] = '"';
                    }
                    assert_int_equal(json_parse(&j, &arena, text, all), specials[k].good);
                    if (specials[k].good)
                        assert_int_equal(json_raw(&j, 0).len, all - 2);
                    free(text);
                    arena_reset(&arena);
                }
    }
    cpu_portable_only = false;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(long_strings, teardown),
        cmocka_unit_test_teardown(good_texts, teardown),
        cmocka_unit_test_teardown(bad_texts, teardown),
        cmocka_unit_test_teardown(bad_texts_shifted, teardown),
        cmocka_unit_test_teardown(utf8_both_ways, teardown), cmocka_unit_test_teardown(depth, teardown),
        cmocka_unit_test_teardown(bounds, teardown),
        cmocka_unit_test_teardown(navigation, teardown),
        cmocka_unit_test_teardown(strings, teardown),
        cmocka_unit_test_teardown(numbers, teardown),
        cmocka_unit_test_teardown(fixed_texts, teardown),
        cmocka_unit_test_teardown(writer, teardown),
        cmocka_unit_test_teardown(writer_utf8, teardown),
        cmocka_unit_test_teardown(writer_overflow, teardown),
        cmocka_unit_test_teardown(round_trip, teardown),
    };
    pages_init(&pages, 4);
    arena_init(&arena, &pages, 256 << 20);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pages_clear(&pages);
    return failed;
}
