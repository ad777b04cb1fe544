/* Reads answers of the Responses API, streamed and whole.
 *
 * Items come one after the other. What a server leaves out of the deltas is taken from the `.done` events, and from
 * the terminal event's output where no item event came at all. A stream without its terminal event is cut, whatever
 * stood in it before. */
#include "proto/dialect/responses.h"

enum item { ITEM_NONE, ITEM_MESSAGE, ITEM_CALL, ITEM_REASONING, ITEM_OTHER };

struct reader {
    struct dialect_reader_settings s;
    bool started, ended, items;  /* items: an item was seen, so the terminal output repeats it */
    bool spoke;                  /* a delta of the open item came */
    bool summary;                /* and the next summary part is not its first */
    enum item open;
    enum ir_stop stop;
    struct ir_usage usage;
    uint64_t searches;
    struct ir_sink *sink;
    struct arena *scratch;
};

void *responses_reader(const struct dialect_reader_settings *s) {
    struct reader *r = arena_zalloc(s->arena, sizeof *r);
    if (r)
        r->s = *s;
    return r;
}

static struct slice str(struct reader *r, const struct json *j, int obj, const char *name) {
    return json_str(j, json_get(j, obj, name), r->scratch);
}

static bool give(struct reader *r, enum ir_event_kind kind, struct slice text) {
    struct ir_event ev = { .kind = kind, .text = text };
    return text.len == 0 || ir_put(r->sink, &ev);
}

bool responses_read_usage(const struct json *j, int t, struct ir_usage *u) {
    struct ir_counts c = ir_counts_absent();
    int in = json_get(j, t, "input_tokens_details"), out = json_get(j, t, "output_tokens_details");
    if (!json_is(j, t, JSON_OBJECT))
        return false;
    c.input = common_count(j, t, "input_tokens");
    c.output = common_count(j, t, "output_tokens");
    if (c.input == IR_ABSENT && c.output == IR_ABSENT)
        return false;
    c.cached = common_count(j, in, "cached_tokens");
    c.cache_write = common_count(j, in, "cache_write_tokens");
    c.audio_in = common_count(j, in, "audio_tokens");
    c.image_in = common_count(j, in, "image_tokens");
    c.reasoning = common_count(j, out, "reasoning_tokens");
    c.audio_out = common_count(j, out, "audio_tokens");
    ir_usage_from(u, &c);
    return true;
}

/* ---- items ---- */

static bool close_item(struct reader *r) {
    struct ir_event ev = { .kind = r->open == ITEM_CALL ? IR_EV_CALL_END : IR_EV_REASONING_END };
    bool call_or_reasoning = r->open == ITEM_CALL || r->open == ITEM_REASONING;
    r->open = ITEM_NONE;
    return !call_or_reasoning || ir_put(r->sink, &ev);
}

static bool open_item(struct reader *r, const struct json *j, int t) {
    int type = json_get(j, t, "type");
    bool custom = json_str_is(j, type, "custom_tool_call");
    if (!close_item(r))
        return false;
    r->items = true;
    r->spoke = r->summary = false;
    if (json_str_is(j, type, "message"))
        r->open = ITEM_MESSAGE;
    else if (json_str_is(j, type, "reasoning"))
        r->open = ITEM_REASONING;
    else if (custom || json_str_is(j, type, "function_call")) {
        struct ir_event ev = { .kind = IR_EV_CALL, .id = str(r, j, t, "call_id"), .custom = custom,
                               .name = responses_full_name(j, t, r->scratch) };
        r->open = ITEM_CALL;
        return ir_put(r->sink, &ev);
    } else {
        r->open = ITEM_OTHER;
        r->searches += json_str_is(j, type, "web_search_call");
    }
    return true;
}

static bool read_annotation(struct reader *r, const struct json *j, int t) {
    struct ir_event ev = { .kind = IR_EV_CITATION, .id = str(r, j, t, "url"), .name = str(r, j, t, "title") };
    return ev.id.len == 0 || ir_put(r->sink, &ev);
}

/* The parts of a message item, as the events of deltas that did not come. */
static bool read_content(struct reader *r, const struct json *j, int list) {
    for (int p = json_is(j, list, JSON_ARRAY) ? json_first(j, list) : -1; p >= 0; p = json_next(j, list, p)) {
        int notes = json_get(j, p, "annotations");
        if (!give(r, IR_EV_TEXT, str(r, j, p, "text")) || !give(r, IR_EV_REFUSAL, str(r, j, p, "refusal")))
            return false;
        for (int n = json_is(j, notes, JSON_ARRAY) ? json_first(j, notes) : -1; n >= 0; n = json_next(j, notes, n))
            if (!read_annotation(r, j, n))
                return false;
    }
    return true;
}

static bool read_summary(struct reader *r, const struct json *j, int list) {
    for (int p = json_is(j, list, JSON_ARRAY) ? json_first(j, list) : -1; p >= 0; p = json_next(j, list, p)) {
        if ((r->summary && !give(r, IR_EV_REASONING, SLICE("\n\n"))) || !give(r, IR_EV_REASONING, str(r, j, p, "text")))
            return false;
        r->summary = true;
    }
    return true;
}

/* An item's end: what no delta brought comes from here. */
static bool finish_item(struct reader *r, const struct json *j, int t) {
    int type = json_get(j, t, "type");
    struct ir_event ev = { 0 };
    if (r->open == ITEM_NONE && !open_item(r, j, t)) /* no .added came */
        return false;
    if (r->open == ITEM_MESSAGE)
        return (r->spoke || read_content(r, j, json_get(j, t, "content"))) && close_item(r);
    if (r->open == ITEM_CALL) {
        struct slice args = str(r, j, t, json_str_is(j, type, "custom_tool_call") ? "input" : "arguments");
        return (r->spoke || give(r, IR_EV_ARGS, args)) && close_item(r);
    }
    if (r->open == ITEM_REASONING) {
        if (!r->spoke && (!read_summary(r, j, json_get(j, t, "summary")) ||
                          (!r->summary && !read_summary(r, j, json_get(j, t, "content")))))
            return false;
        struct slice blob = str(r, j, t, "encrypted_content");
        ev.kind = IR_EV_REASONING_END;
        ev.blob = (struct ir_blob){ IR_BLOB_SIGNATURE, IR_RESPONSES, 0, blob.ptr ? blob : SLICE("") };
        r->open = ITEM_NONE;
        return ir_put(r->sink, &ev);
    }
    r->open = ITEM_NONE;
    struct slice picture = str(r, j, t, "result"), format = str(r, j, t, "output_format");
    if (!json_str_is(j, type, "image_generation_call") || picture.len == 0)
        return true;
    ev.kind = IR_EV_IMAGE;
    ev.data = picture;
    ev.media_type = slice_is(format, "jpeg") ? SLICE("image/jpeg") : slice_is(format, "webp") ? SLICE("image/webp")
                                                                                              : SLICE("image/png");
    return ir_put(r->sink, &ev);
}

/* ---- the response object ---- */

static bool start(struct reader *r, const struct json *j, int response) {
    struct ir_event ev = { .kind = IR_EV_START, .id = str(r, j, response, "id"), .name = str(r, j, response, "model") };
    if (r->started)
        return true;
    json_i64(j, json_get(j, response, "created_at"), &ev.created_s);
    r->started = true;
    return ir_put(r->sink, &ev);
}

static enum dialect_result finish(struct reader *r, const struct json *j, int response, struct ir_fault *f) {
    int status = json_get(j, response, "status"), output = json_get(j, response, "output"),
        error = json_get(j, response, "error");
    int reason = json_get(j, json_get(j, response, "incomplete_details"), "reason");
    if (json_is(j, error, JSON_OBJECT) || json_str_is(j, status, "failed") || json_str_is(j, status, "cancelled")) {
        responses_read_usage(j, json_get(j, response, "usage"), &r->usage);
        dialect_fault_of(j, json_is(j, error, JSON_OBJECT) ? error : response, 200, r->scratch, f);
        return DIALECT_ERROR;
    }
    if (!start(r, j, response) || !close_item(r))
        return DIALECT_FULL;
    if (!r->items && json_is(j, output, JSON_ARRAY))
        for (int t = json_first(j, output); t >= 0; t = json_next(j, output, t))
            if (!open_item(r, j, t) || !finish_item(r, j, t))
                return DIALECT_FULL;
    responses_read_usage(j, json_get(j, response, "usage"), &r->usage);
    r->ended = true;
    r->stop = IR_STOP_END;
    if (json_str_is(j, status, "queued") || json_str_is(j, status, "in_progress"))
        r->stop = IR_STOP_PAUSE; /* in the background, which is never asked for: nothing is there yet */
    if (json_str_is(j, status, "incomplete"))
        r->stop = json_str_is(j, reason, "content_filter") ? IR_STOP_FILTER : IR_STOP_LIMIT;
    return DIALECT_DONE;
}

static bool read_delta(struct reader *r, const struct json *j, struct slice type) {
    struct slice delta = str(r, j, 0, "delta");
    if (slice_is(type, "response.reasoning_summary_part.added")) {
        bool later = r->summary;
        r->summary = true;
        return !later || !r->spoke || give(r, IR_EV_REASONING, SLICE("\n\n"));
    }
    if (slice_is(type, "response.output_text.annotation.added"))
        return read_annotation(r, j, json_get(j, 0, "annotation"));
    enum ir_event_kind kind = IR_EV_ARGS;
    if (slice_is(type, "response.output_text.delta"))
        kind = IR_EV_TEXT;
    else if (slice_is(type, "response.refusal.delta"))
        kind = IR_EV_REFUSAL;
    else if (slice_is(type, "response.reasoning_summary_text.delta") || slice_is(type, "response.reasoning_text.delta"))
        kind = IR_EV_REASONING;
    else if ((!slice_is(type, "response.function_call_arguments.delta") &&
              !slice_is(type, "response.custom_tool_call_input.delta")) || r->open != ITEM_CALL)
        return true;
    r->items = true;
    r->spoke = r->spoke || delta.len > 0;
    return give(r, kind, delta);
}

static enum dialect_result read_event(struct reader *r, const struct json *j, struct slice name, struct ir_fault *f) {
    struct slice type = str(r, j, 0, "type");
    int response = json_get(j, 0, "response"), item = json_get(j, 0, "item");
    if (type.len == 0)
        type = name; /* some servers put it in the event's name alone */
    if (response < 0 && json_get(j, 0, "status") >= 0)
        response = 0; /* and the response beside it */
    if (slice_is(type, "error") || (type.len == 0 && json_is(j, json_get(j, 0, "error"), JSON_OBJECT))) {
        dialect_fault_of(j, 0, 200, r->scratch, f);
        return DIALECT_ERROR;
    }
    if (slice_is(type, "response.completed") || slice_is(type, "response.incomplete") ||
        slice_is(type, "response.failed"))
        return finish(r, j, response, f);
    bool ok = true;
    if (slice_is(type, "response.created") || slice_is(type, "response.in_progress"))
        ok = start(r, j, response);
    else if (slice_is(type, "response.output_item.added"))
        ok = open_item(r, j, item);
    else if (slice_is(type, "response.output_item.done"))
        ok = finish_item(r, j, item);
    else
        ok = read_delta(r, j, type);
    return ok ? DIALECT_OK : DIALECT_FULL;
}

enum dialect_result responses_event(void *reader, const struct sse_event *ev, struct arena *scratch,
                                    struct ir_sink *sink, struct ir_fault *f) {
    struct reader *r = reader;
    struct json j;
    r->sink = sink;
    r->scratch = scratch;
    if (slice_is(slice_trim(ev->data), "[DONE]"))
        return DIALECT_DONE;
    if (!json_parse(&j, scratch, ev->data.ptr, ev->data.len))
        return DIALECT_BAD;
    return read_event(r, &j, ev->name, f);
}

enum dialect_result responses_whole(void *reader, const struct json *j, struct arena *scratch, struct ir_sink *sink,
                                    struct ir_fault *f) {
    struct reader *r = reader;
    r->sink = sink;
    r->scratch = scratch;
    if (!json_is(j, json_get(j, 0, "output"), JSON_ARRAY)) {
        if (!json_is(j, json_get(j, 0, "error"), JSON_OBJECT) && !json_is(j, json_get(j, 0, "error"), JSON_STRING))
            return DIALECT_BAD;
        dialect_fault_of(j, 0, 200, scratch, f);
        return DIALECT_ERROR;
    }
    enum dialect_result got = finish(r, j, 0, f);
    return got == DIALECT_DONE ? DIALECT_OK : got;
}

enum dialect_result responses_end(void *reader, struct arena *scratch, struct ir_sink *sink, struct ir_fault *f) {
    struct reader *r = reader;
    (void)f;
    r->sink = sink;
    r->scratch = scratch;
    if (!r->ended)
        return DIALECT_BAD;
    struct ir_event usage = { .kind = IR_EV_USAGE, .usage = &r->usage },
                    end = { .kind = IR_EV_FINISH, .stop = r->stop };
    r->usage.searches = r->searches;
    return (!r->usage.seen || ir_put(sink, &usage)) && ir_put(sink, &end) ? DIALECT_OK : DIALECT_FULL;
}
