/* Server-sent events: each stream is read whole, cut at every byte, and one byte at a time; the events must be the
 * same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/base/check.h"
#include "proto/sse.h"

static struct pages pages;

static int teardown(void **state) {
    (void)state;
    return pages.in_use != 0 || pages.big_bytes != 0;
}

/* Feeds text up to each mark in `cuts` (ascending, the last one the length) and writes what comes out as text:
 * "name|data;" an event, "name;" one without data; then "!" if it was too long, "+" if something unfinished was left.
 */
static void events_of(struct slice text, const size_t *cuts, size_t ncuts, size_t max, struct buf *out) {
    struct sse s;
    struct arena scratch;
    size_t begin = 0, raw = 0;
    sse_init(&s, max);
    arena_init(&scratch, &pages, 1 << 20);
    for (size_t c = 0; c < ncuts; c++) {
        size_t have = cuts[c] - begin;
        char *exact = malloc(have ? have : 1); /* a sanitizer sees a read past what is there */
        memcpy(exact, text.ptr + begin, have);
        struct slice rest = slice_of(exact, have);
        for (;;) {
            struct sse_event ev;
            size_t used;
            enum sse_result r = sse_next(&s, rest, &scratch, &ev, &used);
            if (r == SSE_TOO_LONG) {
                assert_true(buf_append(out, "!", 1));
                free(exact);
                arena_reset(&scratch);
                return;
            }
            if (r == SSE_MORE) {
                assert_int_equal(used, 0);
                break;
            }
            assert_int_equal(ev.raw.len, used);
            assert_ptr_equal(ev.raw.ptr, rest.ptr);
            assert_true(used > 0);
            assert_true(buf_printf(out, ev.has_data ? "%.*s|%.*s;" : "%.*s;", SLICE_ARG(ev.name), SLICE_ARG(ev.data)));
            rest = slice_from(rest, used);
            begin += used;
            raw += used;
            arena_reset(&scratch);
        }
        if (c + 1 == ncuts && sse_pending(&s, rest))
            assert_true(buf_append(out, "+", 1));
        free(exact);
    }
    assert_true(raw <= text.len);
}

static void check(struct slice text, size_t max, const char *want) {
    struct buf out;
    size_t *cuts = malloc((text.len + 1) * sizeof *cuts);
    for (size_t i = 0; i < text.len; i++)
        cuts[i] = i + 1;
    for (size_t cut = 0; cut <= text.len + 1; cut++) {
        buf_init(&out, &pages, 1 << 20);
        if (cut <= text.len)
            events_of(text, (size_t[]){ cut, text.len }, 2, max, &out);
        else
            events_of(text, cuts, text.len, max, &out);
        if (!slice_is(buf_slice(&out), want))
            fail_msg("cut at %zu: got %.*s want %s", cut, (int)out.len, buf_ptr(&out), want);
        buf_release(&out);
    }
    free(cuts);
}

static const struct { const char *text, *want;
} STREAMS[] = {
    { "data: a\n\n", "|a;" },
    { "data: a\r\n\r\n", "|a;" },
    { "data: a\r\r", "|a;" },
    { "data: a\n\ndata: b\n\n", "|a;|b;" },
    { "data: a\r\n\r\ndata: b\r\n\r\n", "|a;|b;" },
    { "data: a\r\rdata: b\r\r", "|a;|b;" },
    { "data: a\n\r\ndata: b\r\n\ndata: c\n\r", "|a;|b;|c;" }, /* line ends may be mixed */
    { "data: a\r\r\ndata: b\n\n", "|a;|b;" },
    { "data: a\r\r\n\ndata: b\n\n", "|a;;|b;" },
    { "data: a\n\n\n", "|a;;" },
    { "\n\n", ";;" },
    { "data:a\ndata: b\ndata:  c\n\n", "|a\nb\n c;" },
    { "data:a\rdata:b\r\ndata:c\n\n", "|a\nb\nc;" },
    { "data\n\n", "|;" },
    { "data:\n\n", "|;" },
    { "data\ndata\n\n", "|\n;" },
    { "data:\ndata:x\ndata\n\n", "|\nx\n;" },
    { "event: ping\n\n", "ping;" },
    { "event: ping\ndata: {}\n\n", "ping|{};" },
    { "data: {}\nevent: late\n\n", "late|{};" },
    { "event: a\nevent: b\ndata:x\n\n", "b|x;" },
    { "event\ndata:x\n\n", "|x;" },
    { ": comment\n\n", ";" },
    { ":\n\ndata: x\n\n", ";|x;" },
    { ": OPENROUTER PROCESSING\n\ndata: x\n\n", ";|x;" },
    { ":c\ndata: x\n:c\n\n", "|x;" },
    { "id: 1\nretry: 5\nfoo\nfoo: bar\ndata: x\n\n", "|x;" },
    { "Data: x\n\n", ";" },
    { "data : x\n\n", ";" },
    { " data: x\n\n", ";" },
    { "datax: y\ndat: z\n\n", ";" },
    { "data:: x\n\n", "|: x;" },
    { "data: a:b\n\n", "|a:b;" },
    { "\xef\xbb\xbf"
      "data: a\n\n",
      "|a;" },
    { "\xef\xbb\xbf\n"
      "data: a\n\n",
      ";|a;" },
    { "\xef\xbb"
      "data: a\n\n",
      ";" },
    { "\xef\xbb\xbf\xef\xbb\xbf"
      "data: a\n\n",
      ";" }, /* only one mark is a mark */
    { "data: a\n\n\xef\xbb\xbf"
      "data: b\n\n",
      "|a;;" },
    { "data: [DONE]\n\n", "|[DONE];" },
    { "data: a", "+" },
    { "data: a\n", "+" },
    { "data: a\r", "+" },
    { "data: a\r\n", "+" },
    { "data: a\n\ndat", "|a;+" },
    { "data: a\n\ndata: b\r\n", "|a;+" },
    { "data: a\n\nevent: b", "|a;+" },
    { "data: a\n\n: ping", "|a;" },
    { "data: a\n\n: ping\n: pong\r\n", "|a;" },
    { "data: a\r\n\r\n:", "|a;" },
    { "data: a\r\r\n", "|a;" },
    { "data: a\r\r\nx", "|a;+" },
    { "\xef\xbb", "" },
    { "\xef\xbb\xbf", "" },
    { "", "" },
    { "data: \xff\xfe\x01\n\n", "|\xff\xfe\x01;" },
    { "event: message_delta\ndata: {\"a\":\"0123456789abcdef0123456789abcdef0123456789\"}\n\n",
      "message_delta|{\"a\":\"0123456789abcdef0123456789abcdef0123456789\"};" },
};

static void streams(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(STREAMS); i++)
        check(slice_str(STREAMS[i].text), 1000, STREAMS[i].want);
}

/* Random sequences of line ends and fragments against a plain reading of the standard. */
static void against_model(void **state) {
    (void)state;
    static const char *const bits[] = { "\n",   "\r", "\r\n",    "\n\n", "data:", "data: x",
                                        "data", ":c", "event:n", "\n",   "\r\n",  "x" };
    unsigned seed = 3;
    for (int round = 0; round < 1500; round++) {
        char text[200] = "", want[800] = "", name[100] = "", data[400] = "";
        size_t lines = 0;
        for (int i = 0; i < 14; i++) {
            seed = seed * 1103515245 + 12345;
            strcat(text, bits[(seed >> 10) % ARRAY_LEN(bits)]);
        }
        const char *p = text;
        for (;;) {
            size_t n = strcspn(p, "\r\n");
            char line[200];
            snprintf(line, sizeof line, "%.*s", (int)n, p);
            if (!p[n])
                break; /* what is unfinished is judged by the other tests */
            p += n + (p[n] == '\r' && p[n + 1] == '\n' ? 2 : 1);
            if (n == 0) {
                sprintf(want + strlen(want), lines ? "%s|%s;" : "%s;", name, data);
                name[0] = data[0] = '\0';
                lines = 0;
                continue;
            }
            char *value = strchr(line, ':');
            if (value)
                *value++ = '\0';
            value = value ? value + (*value == ' ') : (char[]){ "" };
            if (strcmp(line, "data") == 0)
                sprintf(data + strlen(data), "%s%s", lines++ ? "\n" : "", value);
            else if (strcmp(line, "event") == 0)
                strcpy(name, value);
        }
        strcat(text, "\n"); /* so that nothing but a line is pending */
        struct buf out;
        buf_init(&out, &pages, 10000);
        size_t n = (size_t)(p - text);
        events_of(slice_of(text, n), (size_t[]){ n }, 1, 1000, &out);
        while (out.len > 0 && buf_ptr(&out)[out.len - 1] == '+')
            out.len--;
        if (!slice_is(buf_slice(&out), want))
            fail_msg("got %.*s want %s", (int)out.len, buf_ptr(&out), want);
        char seen[900];
        snprintf(seen, sizeof seen, "%.*s", (int)out.len, buf_ptr(&out));
        buf_release(&out);
        for (size_t cut = 0; cut < n; cut++) {
            buf_init(&out, &pages, 10000);
            events_of(slice_of(text, n), (size_t[]){ cut, n }, 2, 1000, &out);
            while (out.len > 0 && buf_ptr(&out)[out.len - 1] == '+')
                out.len--;
            assert_true(slice_is(buf_slice(&out), seen));
            buf_release(&out);
        }
    }
}

static void too_long(void **state) {
    (void)state;
    check(SLICE("data: 0123\n\n"), 12, "|0123;");
    check(SLICE("data: 0123\n\n"), 11, "!");
    check(SLICE("data: 0123\n\ndata: 01234\n\n"), 12, "|0123;!");
    check(SLICE("data: 0123456789"), 15, "!");
    check(SLICE("data: 0123456789"), 16, "!");
    check(SLICE("data: 0123456789"), 17, "+");
    check(SLICE("\xef\xbb\xbf" "data: 0123\n\n"), 12, "|0123;");
    check(SLICE("data: 01\r\n\r\n"), 11, "|01;"); /* the last LF is not counted: it may come later */
    check(SLICE("data: 01\r\n\r\n"), 10, "!");
    check(SLICE(":\n:\n:\n:\n:\n:\n"), 10, "!"); /* a comment that never ends */
    check(SLICE("data: x\n\n"), SIZE_MAX, "|x;");
    /* data in several lines that the scratch arena cannot hold */
    struct sse s;
    struct arena scratch;
    struct sse_event ev;
    size_t used;
    sse_init(&s, 1000);
    arena_init(&scratch, &pages, 2);
    assert_int_equal(sse_next(&s, SLICE("data:a\ndata:b\n\n"), &scratch, &ev, &used), SSE_TOO_LONG);
    arena_reset(&scratch);
}

/* A long event in small pieces is searched once: no byte before s.scanned is looked at again. */
static void searched_once(void **state) {
    (void)state;
    size_t n = 1 << 20;
    char *text = malloc(n);
    memset(text, 'x', n);
    memcpy(text, "data: ", 6);
    struct sse s;
    struct sse_event ev;
    size_t used;
    sse_init(&s, n);
    for (size_t have = 1000; have < n; have += 1000) {
        assert_int_equal(sse_next(&s, slice_of(text, have), NULL, &ev, &used), SSE_MORE);
        assert_int_equal(s.scanned, have);
        text[have / 2] = '\n'; /* a second look would see this */
    }
    memcpy(text + n - 2, "\n\n", 2);
    assert_int_equal(sse_next(&s, slice_of(text, n), NULL, &ev, &used), SSE_EVENT);
    assert_int_equal(used, n);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(streams, teardown), cmocka_unit_test_teardown(against_model, teardown),
        cmocka_unit_test_teardown(too_long, teardown), cmocka_unit_test_teardown(searched_once, teardown),
    };
    pages_init(&pages, 4);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pages_clear(&pages);
    return failed;
}
