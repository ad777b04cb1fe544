/* Each reader against the neutral dump and each writer against its bytes, for the fixtures in tests/dialect.
 *
 * requests/NAME.DIALECT.json: NAME.DIALECT.dump is what is read, NAME.DIALECT.to.D what is sent to each dialect (or
 * the refusal). answers/NAME.DIALECT.(json|sse): .events is what is read, .as.D what a client of each dialect gets,
 * streamed where it came so. With GOLDEN=write the files are written instead: read the difference before keeping it.
 * Run from the root of the tree. */
#include "dialect_fixture.h"

/* Fails with what stands around the first difference. */
static void differ(const char *what, struct slice made, struct slice kept) {
    size_t at = 0;
    while (at < made.len && at < kept.len && made.ptr[at] == kept.ptr[at])
        at++;
    at = at > 60 ? at - 60 : 0;
    made = slice_from(made, at);
    kept = slice_from(kept, at);
    fail_msg("%s differs at %zu:\nmade %.*s\nkept %.*s", what, at, (int)(made.len > 200 ? 200 : made.len), made.ptr,
             (int)(kept.len > 200 ? 200 : kept.len), kept.ptr);
}

/* The text that was made against the file; GOLDEN=write makes the file. */
static void golden(const char *path) {
    const char *mode = getenv("GOLDEN");
    struct slice made = buf_slice(&text), kept;
    if (mode && strcmp(mode, "write") == 0) {
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        fwrite(made.ptr, 1, made.len, f);
        fclose(f);
    }
    kept = read_file(path);
    if (!kept.ptr)
        fail_msg("%s is missing", path);
    if (!slice_eq(made, kept))
        differ(path, made, kept);
    buf_consume(&text, text.len);
}

static const char *beside(const struct fixture *x, const char *what, const char *dialect) {
    static char path[224];
    const char *dot = strrchr(x->path, '.');
    snprintf(path, sizeof path, "%.*s.%s%s%s", (int)(dot - x->path), x->path, what, *dialect ? "." : "", dialect);
    return path;
}

static const struct dialect_path in_path = { .model = { "m", 1 }, .stream = true, .sse = true };

static bool read_request(const struct fixture *x, struct slice body, struct ir_request *r, struct ir_fault *f) {
    struct json *j = arena_alloc(&arena, sizeof *j);
    if (!json_parse(j, &arena, body.ptr, body.len))
        fail_msg("%s: %s at %zu", x->path, json_err_text(j->err), j->err_at);
    return translate_read(x->d, j, &in_path, &arena, r, f);
}

static struct ir_target target_for(const struct dialect *d) {
    static const char *const models[] = { "gpt-5", "gpt-5", "claude-sonnet-4-5", "gemini-2.5-flash" };
    return (struct ir_target){ .model = slice_str(models[d->id]), .origin = 7, .max_output = 8192 };
}

static void requests_read_and_written(void **state) {
    (void)state;
    struct fixture all[MOST];
    int n = fixtures("requests", all);
    for (int i = 0; i < n; i++) {
        struct ir_request r;
        struct ir_fault f = { 0 };
        if (!read_request(&all[i], read_file(all[i].path), &r, &f))
            fail_msg("%s refused: %.*s", all[i].path, SLICE_ARG(f.message));
        ir_dump_request(&r, &text);
        golden(beside(&all[i], "dump", ""));
        for (uint32_t k = 0; k < IR_DIALECTS; k++) {
            const struct dialect *to = dialect_find(k);
            struct ir_target t = target_for(to);
            struct ir_dropped d = { 0 };
            struct json j;
            if (!to->write_request(&r, &t, &d, &text, &f)) {
                buf_consume(&text, text.len);
                buf_printf(&text, "refused %d %.*s", f.status, SLICE_ARG(f.param));
            } else if (!json_parse(&j, &arena, buf_ptr(&text), text.len)) {
                fail_msg("%s to %s: %s at %zu", all[i].path, to->name, json_err_text(j.err), j.err_at);
            }
            for (uint32_t m = 0; m < d.count; m++)
                buf_printf(&text, "%s%.*s", m ? "," : "\ndropped ", SLICE_ARG(d.names[m]));
            buf_append(&text, "\n", 1);
            golden(beside(&all[i], "to", to->name));
        }
    }
}

/* Lines that a round trip through the own dialect keeps: not what is a hint, and not what belongs to other providers.
 */
static void keep_meaning(struct buf *out, struct slice dump) {
    static const char *const left[] = { "extra ",   "user ",        "cache_key ",  "service_tier ",
                                        "request ", "tool hosted ", "  reasoning " };
    while (dump.len > 0) {
        const char *nl = memchr(dump.ptr, '\n', dump.len);
        size_t n = nl ? (size_t)(nl - dump.ptr) + 1 : dump.len;
        bool keep = true;
        for (size_t i = 0; i < sizeof left / sizeof *left; i++)
            keep = keep && !slice_starts(slice_of(dump.ptr, n), slice_str(left[i]));
        const char *blob = memmem(dump.ptr, n, " call=", 6); /* its carrier is taken off on the way out */
        if (keep)
            buf_append(out, dump.ptr, blob ? (size_t)(blob - dump.ptr) : n);
        dump = slice_from(dump, n);
    }
}

static void requests_mean_the_same_after_their_own_writer(void **state) {
    (void)state;
    struct fixture all[MOST];
    int n = fixtures("requests", all);
    for (int i = 0; i < n; i++) {
        if (!strstr(all[i].path, "/same"))
            continue;
        struct ir_request r, again;
        struct ir_fault f = { 0 };
        struct ir_dropped d = { 0 };
        struct ir_target t = target_for(all[i].d);
        struct buf one, two;
        buf_init(&one, &pages, 1 << 20);
        buf_init(&two, &pages, 1 << 20);
        assert_true(read_request(&all[i], read_file(all[i].path), &r, &f));
        ir_dump_request(&r, &text);
        keep_meaning(&one, buf_slice(&text));
        buf_consume(&text, text.len);
        if (!all[i].d->write_request(&r, &t, &d, &text, &f))
            fail_msg("%s refused by its own writer: %.*s", all[i].path, SLICE_ARG(f.message));
        struct slice sent = arena_copy(&arena, buf_slice(&text));
        buf_consume(&text, text.len);
        assert_true(read_request(&all[i], sent, &again, &f));
        ir_dump_request(&again, &text);
        keep_meaning(&two, buf_slice(&text));
        buf_consume(&text, text.len);
        if (!slice_eq(buf_slice(&one), buf_slice(&two)))
            differ(all[i].path, buf_slice(&one), buf_slice(&two));
        buf_release(&one);
        buf_release(&two);
    }
}

/* ---- answers ---- */

static bool dump_event(void *arg, const struct ir_event *ev) {
    ir_dump_event(ev, arg);
    return true;
}

/* The events of an answer as text, the stream given in two pieces parted at `split`. */
static void read_answer(const struct fixture *x, struct slice body, size_t split, struct buf *out) {
    struct dialect_reader_settings s = { .arena = &arena, .pages = &pages, .max_held = 1 << 20, .origin = 7 };
    struct ir_sink sink = { dump_event, out };
    struct ir_fault f = { 0 };
    void *reader = x->d->reader(&s);
    enum dialect_result got = DIALECT_OK;
    if (!x->sse) {
        struct json j;
        assert_true(json_parse(&j, &arena, body.ptr, body.len));
        got = x->d->whole(reader, &j, &scratch, &sink, &f);
    }
    struct sse sse;
    struct buf in;
    sse_init(&sse, 1 << 20);
    buf_init(&in, &pages, 1 << 20);
    for (int piece = 0; piece < 2 && x->sse; piece++) {
        buf_append_slice(&in, piece ? slice_from(body, split) : slice_of(body.ptr, split));
        struct sse_event ev;
        size_t used;
        while (in.len > 0 && got == DIALECT_OK && sse_next(&sse, buf_slice(&in), &scratch, &ev, &used) == SSE_EVENT) {
            if (ev.has_data)
                got = x->d->event(reader, &ev, &scratch, &sink, &f);
            buf_consume(&in, used);
            arena_reset(&scratch);
        }
    }
    buf_release(&in);
    if (got == DIALECT_OK || got == DIALECT_DONE)
        got = x->d->end(reader, &scratch, &sink, &f);
    buf_printf(out, "%s\n", got == DIALECT_OK ? "ok" : got == DIALECT_BAD ? "bad" : "error");
    x->d->close_reader(reader);
    arena_reset(&scratch);
}

/* What a client of that dialect gets; `ask` was read from its own full request, without tools that would rename
 * anything. */
static void translate_answer(const struct fixture *x, const struct dialect *client, struct slice body, size_t split,
                             struct buf *out) {
    struct dialect_reader_settings rs = { .arena = &arena, .pages = &pages, .max_held = 1 << 20, .origin = 7 };
    struct dialect_writer_settings ws = { .arena = &arena,
                                          .pages = &pages,
                                          .max_held = 1 << 20,
                                          .model = SLICE("asked"),
                                          .id = SLICE("IdIdIdIdIdIdIdIdIdIdIdId"),
                                          .now_s = 1600000000,
                                          .input_estimate = 9 };
    struct ir_request r = { .arena = &arena, .from = client->id, .n = strstr(x->path, "/two") ? 2 : 1, .stream = x->sse,
                            .wants_usage = true, .logprobs = strstr(x->path, "/probs") != NULL };
    struct ir_cost cost = { .show = true, .usd_nano = 1500000 };
    struct translate t;
    enum dialect_result got = DIALECT_OK;
    struct json j;
    assert_true(translate_open(&t, client, x->d, &r, &rs, &ws));
    if (!x->sse) {
        assert_true(json_parse(&j, &arena, body.ptr, body.len));
        got = translate_whole(&t, &j, &arena, out);
    }
    struct sse sse;
    struct buf in;
    sse_init(&sse, 1 << 20);
    buf_init(&in, &pages, 1 << 20);
    for (int piece = 0; piece < 2 && x->sse; piece++) {
        buf_append_slice(&in, piece ? slice_from(body, split) : slice_of(body.ptr, split));
        struct sse_event ev;
        size_t used;
        while (in.len > 0 && got == DIALECT_OK && sse_next(&sse, buf_slice(&in), &scratch, &ev, &used) == SSE_EVENT) {
            got = translate_event(&t, &ev, &scratch, out);
            buf_consume(&in, used);
            arena_reset(&scratch);
        }
    }
    buf_release(&in);
    if (got == DIALECT_OK || got == DIALECT_DONE)
        got = translate_end(&t, &scratch, out);
    if (got != DIALECT_OK || !translate_finish(&t, &cost, &scratch, out)) {
        if (t.stream && t.started)
            translate_fail(&t, &t.fault, NULL, &scratch, out);
        else
            client->write_error(&t.fault, NULL, &scratch, out);
    }
    translate_close(&t);
    arena_reset(&scratch);
}

static void answers_read_and_written(void **state) {
    (void)state;
    struct fixture all[MOST];
    int n = fixtures("answers", all);
    for (int i = 0; i < n; i++) {
        struct slice body = read_file(all[i].path);
        read_answer(&all[i], body, body.len, &text);
        golden(beside(&all[i], "events", ""));
        for (uint32_t k = 0; k < IR_DIALECTS; k++) {
            translate_answer(&all[i], dialect_find(k), body, body.len, &text);
            golden(beside(&all[i], "as", dialect_find(k)->name));
        }
    }
}

static void streams_say_the_same_at_every_split(void **state) {
    (void)state;
    struct fixture all[MOST];
    int n = fixtures("answers", all);
    for (int i = 0; i < n; i++) {
        if (!all[i].sse)
            continue;
        struct slice body = read_file(all[i].path);
        struct buf whole;
        buf_init(&whole, &pages, 1 << 20);
        read_answer(&all[i], body, body.len, &whole);
        for (size_t split = 0; split < body.len; split++) {
            struct arena kept = arena; /* the readers' states of thousands of runs go at once */
            arena_init(&arena, &pages, 64 << 20);
            read_answer(&all[i], body, split, &text);
            arena_reset(&arena);
            arena = kept;
            if (!slice_eq(buf_slice(&whole), buf_slice(&text)))
                differ(all[i].path, buf_slice(&whole), buf_slice(&text));
            buf_consume(&text, text.len);
        }
        buf_release(&whole);
    }
}

/* What a writer says, its own reader understands: text, calls, reasoning and finish survive. */
static void answers_survive_their_own_reader(void **state) {
    (void)state;
    struct fixture all[MOST];
    int n = fixtures("answers", all);
    for (int i = 0; i < n; i++)
        for (uint32_t k = 0; k < IR_DIALECTS; k++) {
            struct fixture own = { .d = dialect_find(k), .sse = all[i].sse };
            struct buf first, second;
            if (own.d == all[i].d && strstr(all[i].path, "blocked"))
                continue;
            buf_init(&first, &pages, 1 << 20);
            buf_init(&second, &pages, 1 << 20);
            struct slice body = read_file(all[i].path);
            translate_answer(&all[i], own.d, body, body.len, &first);
            struct slice once = arena_copy(&arena, buf_slice(&first));
            memcpy(own.path, all[i].path, sizeof own.path);
            translate_answer(&own, own.d, once, once.len, &second);
            read_answer(&own, once, once.len, &text);
            if (!strstr(all[i].path, "error") && memmem(buf_ptr(&text), text.len, "\nok\n", 4) == NULL)
                fail_msg("%s as %s is not understood:\n%.*s", all[i].path, own.d->name, (int)text.len, buf_ptr(&text));
            struct slice said = arena_copy(&arena, buf_slice(&text));
            buf_consume(&text, text.len);
            struct slice twice = arena_copy(&arena, buf_slice(&second));
            read_answer(&own, twice, twice.len, &text);
            struct buf a, b;
            buf_init(&a, &pages, 1 << 20);
            buf_init(&b, &pages, 1 << 20);
            static const char *const left[] = { "start", "reasoning-end", "citation", "image" };
            struct slice dumps[2] = { said, buf_slice(&text) };
            for (int m = 0; m < 2; m++)
                for (struct slice s = dumps[m]; s.len > 0;) {
                    const char *nl = memchr(s.ptr, '\n', s.len);
                    size_t len = nl ? (size_t)(nl - s.ptr) + 1 : s.len;
                    bool keep = true;
                    for (int q = 0; q < 4; q++)
                        keep = keep && !slice_starts(s, slice_str(left[q]));
                    const char *blob = memmem(s.ptr, len, " call=", 6); /* a carrier in a carrier */
                    if (keep)
                        buf_append(m ? &b : &a, s.ptr, blob ? (size_t)(blob - s.ptr) : len);
                    s = slice_from(s, len);
                }
            if (!slice_eq(buf_slice(&a), buf_slice(&b)))
                differ(all[i].path, buf_slice(&a), buf_slice(&b));
            buf_release(&a);
            buf_release(&b);
            buf_consume(&text, text.len);
            buf_release(&first);
            buf_release(&second);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests_read_and_written, begin, end),
        cmocka_unit_test_setup_teardown(requests_mean_the_same_after_their_own_writer, begin, end),
        cmocka_unit_test_setup_teardown(answers_read_and_written, begin, end),
        cmocka_unit_test_setup_teardown(streams_say_the_same_at_every_split, begin, end),
        cmocka_unit_test_setup_teardown(answers_survive_their_own_reader, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
