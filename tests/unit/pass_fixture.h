/* What the tests of the pass modules share: scanning and building a body, sending a stream through a module cut at every byte. The figures
 * that the relay would price cost 0.0125 here; where the provider gave none the estimate is 7 in, 3 out. */
#ifndef TG_PASS_FIXTURE_H
#define TG_PASS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/pass/pass.h" /* its `fail` is called in parentheses: cmocka has a macro of that name */

struct fixture {
    struct pages pages;
    struct arena arena, scratch;
    struct buf held, out;
    struct pass_answer a;
    uint32_t asked;        /* how often the figures were asked for */
    size_t out_when_asked; /* bytes that had gone out by then */
    bool estimated;
    struct pass_fault fault;
    char fault_text[200], fault_code[100];
    /* settings */
    const struct pass *pass;
    bool wants_usage, as_array, seal, no_cost, tokens;
    bool long_way; /* no event is taken as like the one before */
    const char *id_prefix;
};
static struct fixture fx;

static inline void fx_usage(void *arg, struct pass_answer *a, struct ir_cost *cost) {
    (void)arg;
    fx.asked++;
    fx.out_when_asked = fx.out.len;
    fx.estimated = !a->usage_seen;
    if (fx.estimated) {
        memset(&a->meters, 0, sizeof a->meters);
        a->meters.n[METER_INPUT] = 7;
        a->meters.n[METER_OUTPUT] = 3;
    }
    *cost = (struct ir_cost){ .show = !fx.no_cost, .usd_nano = 12500000, .tokens = fx.tokens, .cost_tokens = 99 };
}

static inline struct slice fx_seal(void *arg, struct slice id, struct arena *arena) {
    (void)arg;
    return arena_printf(arena, "sealed.%.*s", SLICE_ARG(id));
}

static inline int fx_begin(const struct pass *pass) {
    memset(&fx, 0, sizeof fx);
    fx.pass = pass;
    arena_init(&fx.arena, &fx.pages, 64 << 20);
    arena_init(&fx.scratch, &fx.pages, 16 << 20);
    buf_init(&fx.held, &fx.pages, 8 << 20);
    buf_init(&fx.out, &fx.pages, 8 << 20);
    return 0;
}

static inline int fx_end(void **state) {
    (void)state;
    arena_reset(&fx.arena);
    arena_reset(&fx.scratch);
    buf_release(&fx.held);
    buf_release(&fx.out);
    return fx.pages.in_use != 0 || fx.pages.big_bytes != 0;
}

static inline struct json fx_json(const char *text) {
    struct json j;
    if (!json_parse(&j, &fx.arena, text, strlen(text)))
        fail_msg("%s at %zu of %s", json_err_text(j.err), j.err_at, text);
    return j;
}

/* allow: words with blanks between them, or NULL. */
static inline struct json fx_scan(const char *body, const char *allow, struct pass_request *r) {
    struct json j = fx_json(body);
    struct slice words[8];
    uint32_t n = 0;
    while (allow && *allow) {
        size_t len = strcspn(allow, " ");
        words[n++] = slice_of(allow, len);
        allow += len + (allow[len] == ' ');
    }
    memset(r, 0xab, sizeof *r);
    fx.pass->scan(&j, r, &fx.arena, words, n);
    return j;
}

static inline void fx_accepts(const char *body, const char *allow) {
    struct pass_request r;
    fx_scan(body, allow, &r);
    if (r.fault_code != NULL)
        fail_msg("refused with %s (%s): %s", r.fault_code, r.fault_param ? r.fault_param : "-", body);
}

static inline void fx_refuses(const char *body, const char *code, const char *param) {
    struct pass_request r;
    fx_scan(body, NULL, &r);
    if (r.fault_code == NULL || strcmp(r.fault_code, code) != 0 || (param == NULL) != (r.fault_param == NULL) ||
        (param != NULL && strcmp(param, r.fault_param) != 0))
        fail_msg("wanted %s %s, got %s %s: %s", code, param ? param : "-", r.fault_code ? r.fault_code : "nothing",
                 r.fault_param ? r.fault_param : "-", body);
}

static inline struct slice fx_flat(const struct pieces *p) {
    char *text = arena_alloc(&fx.arena, p->bytes + 1);
    size_t at = 0;
    assert_non_null(text);
    for (uint32_t i = 0; i < p->count; at += p->at[i].len, i++)
        memcpy(text + at, p->at[i].ptr, p->at[i].len);
    text[at] = 0;
    return slice_of(text, at);
}

/* The body as it goes to the upstream; it must be JSON. */
static inline const char *fx_build(const char *body, const char *allow, struct pass_edit *e) {
    static struct pieces out;
    struct pass_request r;
    struct json again, j = fx_scan(body, allow, &r);
    if (r.fault_code != NULL)
        fail_msg("refused with %s (%s): %s", r.fault_code, r.fault_param ? r.fault_param : "-", body);
    memset(&out, 0, sizeof out);
    assert_true(fx.pass->build(&j, &r, e, &fx.arena, &out));
    struct slice text = fx_flat(&out);
    if (!json_parse(&again, &fx.arena, text.ptr, text.len))
        fail_msg("built no JSON: %s", text.ptr);
    return text.ptr;
}

static inline void fx_builds(const char *body, const char *allow, struct pass_edit e, const char *want) {
    const char *got = fx_build(body, allow, &e);
    if (strcmp(got, want) != 0)
        fail_msg("built\n%s\nnot\n%s", got, want);
}

static inline void fx_answer(void) {
    memset(&fx.a, 0, sizeof fx.a);
    buf_release(&fx.held);
    buf_release(&fx.out);
    fx.asked = 0;
    fx.fault_text[0] = fx.fault_code[0] = 0;
    fx.a.wants_usage = fx.wants_usage;
    fx.a.as_array = fx.as_array;
    fx.a.id_prefix = slice_str(fx.id_prefix);
    fx.a.seal = fx.seal ? fx_seal : NULL;
    fx.a.on_usage = fx_usage;
    fx.a.held = &fx.held;
}

static inline void fx_keep_fault(const struct pass_fault *f) {
    fx.fault = *f; /* its slices may not outlive the scratch: the texts are copies */
    snprintf(fx.fault_text, sizeof fx.fault_text, "%.*s", (int)f->message.len, f->message.ptr ? f->message.ptr : "");
    snprintf(fx.fault_code, sizeof fx.fault_code, "%.*s", (int)f->code.len, f->code.ptr ? f->code.ptr : "");
}

static inline void fx_take(const struct pieces *p) {
    for (uint32_t i = 0; i < p->count; i++)
        assert_true(buf_append_slice(&fx.out, p->at[i]));
}

/* One stream, what is there growing to each of the cuts. *events: how many were worked off. The bytes lie in memory of their exact size. */
static inline enum pass_result fx_stream_cut(struct slice text, const size_t *cuts, size_t ncuts) {
    static struct pieces out;
    struct sse s;
    size_t begin = 0;
    fx_answer();
    sse_init(&s, 1 << 20);
    for (size_t c = 0; c < ncuts; c++) {
        size_t have = cuts[c] - begin, used, at = 0;
        char *exact = malloc(have ? have : 1);
        struct sse_event ev;
        memcpy(exact, text.ptr + begin, have);
        while (sse_next(&s, slice_of(exact + at, have - at), &fx.scratch, &ev, &used) == SSE_EVENT) {
            struct pass_fault fault;
            memset(&out, 0, sizeof out);
            fx.a.alike.in = fx.long_way ? 0 : fx.a.alike.in;
            enum pass_result r = fx.pass->event(&fx.a, &ev, &fx.scratch, &out, &fault);
            fx_take(&out);
            if (r == PASS_ERROR)
                fx_keep_fault(&fault);
            at += used;
            arena_reset(&fx.scratch);
            if (r != PASS_OK) {
                free(exact);
                return r;
            }
        }
        begin += at;
        if (c + 1 == ncuts && sse_pending(&s, slice_of(exact + at, have - at))) {
            free(exact);
            return PASS_BAD;
        }
        free(exact);
    }
    memset(&out, 0, sizeof out);
    enum pass_result r = fx.pass->end(&fx.a, &fx.scratch, &out);
    fx_take(&out);
    arena_reset(&fx.scratch);
    return r;
}

/* The stream cut at every byte, byte by byte, and with the parser for each event must always give the same. What it gave is in fx.out. */
static inline void fx_stream(const char *stream, enum pass_result want, const char *want_out) {
    struct slice text = slice_str(stream);
    size_t *cuts = malloc((text.len + 1) * sizeof *cuts);
    fx.long_way = true;
    enum pass_result parsed = fx_stream_cut(text, &text.len, 1);
    struct pass_answer want_a = fx.a;
    fx.long_way = false;
    if (parsed != want || (want_out && !slice_is(buf_slice(&fx.out), want_out)))
        fail_msg("parsed: result %d, not %d, out: %.*s", parsed, want, (int)fx.out.len, buf_slice(&fx.out).ptr);
    for (size_t i = 0; i < text.len; i++)
        cuts[i] = i + 1;
    for (size_t cut = 0; cut <= text.len + 1; cut++) {
        enum pass_result got = cut <= text.len ? fx_stream_cut(text, (size_t[]){ cut, text.len }, 2) : fx_stream_cut(text, cuts, text.len);
        if (got != want)
            fail_msg("cut at %zu: result %d, not %d, out: %.*s", cut, got, want, (int)fx.out.len, buf_slice(&fx.out).ptr);
        if (want_out && !slice_is(buf_slice(&fx.out), want_out))
            fail_msg("cut at %zu: got\n%.*s\nnot\n%s", cut, (int)fx.out.len, buf_slice(&fx.out).ptr, want_out);
        assert_int_equal(fx.a.text_bytes, want_a.text_bytes);
        assert_int_equal(fx.a.events, want_a.events);
        assert_memory_equal(fx.a.own, want_a.own, sizeof want_a.own);
    }
    free(cuts);
    assert_true(fx.asked <= 1);
}

static inline const char *fx_out(void) {
    struct slice s = arena_copy(&fx.arena, buf_slice(&fx.out));
    return s.ptr;
}

/* A whole answer. */
static inline void fx_whole(const char *body, enum pass_result want, const char *want_out) {
    static struct pieces out;
    struct json j = fx_json(body), again;
    struct pass_fault fault;
    fx_answer();
    memset(&out, 0, sizeof out);
    enum pass_result r = fx.pass->whole(&fx.a, &j, &fx.arena, &out, &fault);
    fx_take(&out);
    if (r != want)
        fail_msg("result %d, not %d: %s", r, want, body);
    if (r == PASS_ERROR)
        fx_keep_fault(&fault);
    if (want_out && !slice_is(buf_slice(&fx.out), want_out))
        fail_msg("got\n%s\nnot\n%s", fx_out(), want_out);
    if (r == PASS_OK && !json_parse(&again, &fx.arena, buf_slice(&fx.out).ptr, fx.out.len))
        fail_msg("no JSON: %s", fx_out());
    assert_true(fx.asked <= 1);
}

static inline void fx_fails(const char *error, const char *want) {
    static struct pieces out;
    memset(&out, 0, sizeof out);
    assert_true((fx.pass->fail)(&fx.a, 502, "upstream_failed", SLICE("It \"broke\"."), slice_str(error), &fx.arena, &out));
    const char *got = fx_flat(&out).ptr;
    if (strcmp(got, want) != 0)
        fail_msg("got\n%s\nnot\n%s", got, want);
}

static inline void fx_meters(uint64_t in, uint64_t cached, uint64_t written, uint64_t written_1h, uint64_t out, uint64_t reasoning) {
    const uint64_t *n = fx.a.meters.n;
    assert_int_equal(n[METER_INPUT], in);
    assert_int_equal(n[METER_CACHED_INPUT], cached);
    assert_int_equal(n[METER_CACHE_WRITE], written);
    assert_int_equal(n[METER_CACHE_WRITE_1H], written_1h);
    assert_int_equal(n[METER_OUTPUT], out);
    assert_int_equal(n[METER_REASONING], reasoning);
}

#define EDIT(...) ((struct pass_edit){ __VA_ARGS__ })
#define PLAIN(...) .plain = (struct slice[]){ __VA_ARGS__ }
#define STRIP(...) .strip = (struct slice[]){ __VA_ARGS__ }, .strip_count = sizeof((struct slice[]){ __VA_ARGS__ }) / sizeof(struct slice)

#endif
