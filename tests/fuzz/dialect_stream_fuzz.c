/* Any bytes as an upstream's answer (the first byte chooses its dialect, the client's, and whether it is a stream or
 * a body). What the client gets is well formed whatever came: each event's data is JSON, and an answer that did not
 * end properly never looks as if it had. */
#include "proto/base/check.h"
#include "proto/dialect/translate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct pages pages;

/* Every event of what was written; true: one of them says that all ended well. */
static bool check_events(struct slice text, struct arena *arena) {
    struct sse s;
    struct sse_event ev;
    struct json j;
    size_t used;
    bool ended = false;
    sse_init(&s, 32 << 20);
    while (sse_next(&s, text, arena, &ev, &used) == SSE_EVENT) {
        CHECK(ev.has_data);
        if (slice_is(ev.data, "[DONE]") || slice_is(ev.name, "message_stop") || slice_is(ev.name, "response.completed"))
            ended = true;
        CHECK(slice_is(ev.data, "[DONE]") || json_parse(&j, arena, ev.data.ptr, ev.data.len) || j.err == JSON_TOO_DEEP);
        text = slice_from(text, used);
    }
    CHECK(text.len == 0 || slice_is(text, ": failed\r\n")); /* how Gemini's clients are told of a break */
    return ended;
}

static enum dialect_result feed(struct translate *t, struct slice body, struct arena *scratch, struct buf *out) {
    enum dialect_result got = DIALECT_OK;
    struct sse s;
    struct sse_event ev;
    size_t used;
    sse_init(&s, 1 << 20);
    while (got == DIALECT_OK && sse_next(&s, body, scratch, &ev, &used) == SSE_EVENT) {
        got = translate_event(t, &ev, scratch, out);
        body = slice_from(body, used);
        arena_reset(scratch);
    }
    return got;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1)
        return 0;
    const struct dialect *up = dialect_find(data[0] & 3), *client = dialect_find(data[0] >> 2 & 3);
    bool stream = data[0] & 16, array = data[0] & 32;
    struct slice body = slice_of((const char *)data + 1, size - 1);
    struct arena arena, scratch;
    struct buf out;
    struct json j;
    struct translate t;
    arena_init(&arena, &pages, 32 << 20);
    arena_init(&scratch, &pages, 32 << 20);
    buf_init(&out, &pages, 32 << 20);
    struct ir_tool patch = { .kind = IR_CUSTOM, .name = SLICE("patch") };
    struct ir_tool odd = { .kind = IR_FUNCTION, .name = SLICE("get.it"), .sent = SLICE("go"), .next = &patch };
    struct ir_request r = { .arena = &arena,
                            .from = client->id,
                            .n = data[0] & 64 ? 2 : 1,
                            .stream = stream,
                            .tools = &odd,
                            .wants_usage = data[0] & 128,
                            .as_array = array && client->id == IR_GEMINI,
                            .json_tool = data[0] & 128 };
    struct dialect_reader_settings rs = { .arena = &arena, .pages = &pages, .max_held = 1 << 16, .origin = 7 };
    struct dialect_writer_settings ws = { .arena = &arena, .pages = &pages, .max_held = 1 << 16, .id = SLICE("abcdef"),
                                          .model = SLICE("m"), .now_s = 1 };
    struct ir_cost cost = { .show = true, .usd_nano = 1 };
    CHECK(translate_open(&t, client, up, &r, &rs, &ws));
    enum dialect_result got = DIALECT_BAD;
    if (stream)
        got = feed(&t, body, &scratch, &out);
    else if (json_parse(&j, &arena, body.ptr, body.len))
        got = translate_whole(&t, &j, &arena, &out);
    if (got == DIALECT_OK || got == DIALECT_DONE)
        got = translate_end(&t, &scratch, &out);
    CHECK(got == DIALECT_OK || t.fault.status >= 400 || !stream);
    bool fine = got == DIALECT_OK && translate_finish(&t, &cost, &scratch, &out);
    if (!fine && t.fault.status == 0)
        t.fault.status = 502;
    if (!fine && stream)
        translate_fail(&t, &t.fault, NULL, &scratch, &out);
    arena_reset(&scratch);
    if (stream && !r.as_array)
        CHECK(check_events(buf_slice(&out), &scratch)
                  ? fine
                  : !fine || client->id == IR_GEMINI || client->id == IR_RESPONSES);
    else if (fine || stream)
        CHECK(json_parse(&j, &scratch, buf_ptr(&out), out.len) || j.err == JSON_TOO_DEEP);
    translate_close(&t);
    buf_release(&out);
    arena_reset(&arena);
    arena_reset(&scratch);
    CHECK(pages.in_use == 0 && pages.big_bytes == 0);
    return 0;
}
