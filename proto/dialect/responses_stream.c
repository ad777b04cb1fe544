/* Reads answers of the Responses API, streamed and whole.
 *
 * The neutral form wants one block after the other, and items mostly come so. Where a server begins one before another
 * is done (xAI), it waits, bounded by max_held, until those before it are; output_index says which is meant. Items of
 * the provider's own tools take no part in it. What a server leaves out of the deltas is taken from the `.done` events,
 * and from the terminal event's output where no item event came at all. A stream without its terminal event is cut,
 * whatever stood in it before. */
#include "proto/dialect/responses.h"

enum item { ITEM_NONE, ITEM_MESSAGE, ITEM_CALL, ITEM_REASONING, ITEM_OTHER };
enum { MAX_WAITING = 256 };

/* An item that was begun while another is open. */
struct waiting {
    struct waiting *next;
    uint64_t index;
    enum item kind;
    enum ir_event_kind says; /* what its text is */
    bool custom, done;
    struct slice id, name, blob;
    struct buf held;
};

struct reader {
    struct dialect_reader_settings s;
    bool started, ended, items;  /* items: an item was seen, so the terminal output repeats it */
    bool spoke;                  /* a delta of the open item came */
    bool summary;                /* and the next summary part is not its first */
    enum item open;
    uint64_t open_index;         /* its place; IR_ABSENT: the server names none */
    struct waiting *first;
    uint32_t waiting_count;
    enum ir_stop stop;
    struct ir_usage usage;
    struct ir_sink *sink;
    struct arena *scratch;
};

void *responses_reader(const struct dialect_reader_settings *s) {
    struct reader *r = arena_zalloc(s->arena, sizeof *r);
    if (r)
        r->s = *s;
    return r;
}

void responses_close_reader(void *reader) {
    for (struct waiting *w = ((struct reader *)reader)->first; w; w = w->next)
        buf_release(&w->held);
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
    c.image_out = common_count(j, out, "image_tokens");
    ir_usage_from(u, &c);
    static const struct { const char *name; enum tool_kind kind; } uses[] = {
        { "web_search_calls", TOOL_WEB_SEARCH }, { "x_search_calls", TOOL_X_SEARCH },
        { "file_search_calls", TOOL_FILE_SEARCH }, { "code_interpreter_calls", TOOL_CODE_EXECUTION },
        { "image_generation_calls", TOOL_IMAGE_GENERATION },
    };
    int tools = json_get(j, t, "server_side_tool_usage_details"); /* xAI: its items do not tell all */
    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++)
        ir_tool_uses(u, uses[i].kind, common_count(j, tools, uses[i].name));
    return true;
}

void responses_count_tool(const struct json *j, int item, struct tool_calls *tools) {
    int type = json_get(j, item, "type"), action = json_get(j, json_get(j, item, "action"), "type");
    if (!json_is(j, type, JSON_STRING) || json_raw(j, type).len < 5)
        return;
    struct slice word = json_raw(j, type);
    word.len -= 5;
    if (!slice_eq(slice_from(json_raw(j, type), word.len), SLICE("_call")))
        return;
    enum tool_kind kind = tool_named(word);
    if (kind == TOOL_WEB_SEARCH && json_is(j, action, JSON_STRING) && !json_str_is(j, action, "search"))
        return; /* opening a page that was found costs nothing apart */
    if (kind != TOOL_KINDS && tools->n[kind] < UINT32_MAX)
        tools->n[kind]++;
}

/* ---- items ---- */

static enum item kind_of(const struct json *j, int t, bool *custom) {
    int type = json_get(j, t, "type");
    *custom = json_str_is(j, type, "custom_tool_call");
    return *custom || json_str_is(j, type, "function_call") ? ITEM_CALL
           : json_str_is(j, type, "message")                ? ITEM_MESSAGE
           : json_str_is(j, type, "reasoning")              ? ITEM_REASONING
                                                            : ITEM_OTHER;
}

static bool begin(struct reader *r, enum item kind, uint64_t index, struct slice id, struct slice name, bool custom) {
    struct ir_event ev = { .kind = IR_EV_CALL, .id = id, .name = name, .custom = custom };
    r->open = kind;
    r->open_index = index;
    r->spoke = r->summary = false;
    return kind != ITEM_CALL || ir_put(r->sink, &ev);
}

static bool end_open(struct reader *r, struct slice blob) {
    struct ir_event ev = { .kind = r->open == ITEM_CALL ? IR_EV_CALL_END : IR_EV_REASONING_END };
    bool ends = r->open == ITEM_CALL || r->open == ITEM_REASONING;
    if (r->open == ITEM_REASONING && blob.ptr)
        ev.blob = (struct ir_blob){ IR_BLOB_SIGNATURE, IR_RESPONSES, 0, blob };
    r->open = ITEM_NONE;
    return !ends || ir_put(r->sink, &ev);
}

static void forget(struct reader *r) {
    struct waiting *w = r->first;
    r->first = w->next;
    r->waiting_count--;
    buf_release(&w->held);
}

/* What is open is over: those that waited go out, up to one that is not done itself. */
static bool advance(struct reader *r) {
    while (r->open == ITEM_NONE && r->first) {
        struct waiting *w = r->first;
        bool ok = begin(r, w->kind, w->index, w->id, w->name, w->custom);
        r->spoke = w->held.len > 0;
        ok = ok && give(r, w->says, buf_slice(&w->held));
        if (w->done)
            ok = ok && end_open(r, w->blob);
        forget(r);
        if (!ok)
            return false;
    }
    return true;
}

static bool close_item(struct reader *r, struct slice blob) {
    return end_open(r, blob) && advance(r);
}

/* Everything that is still begun, in its order. */
static bool close_all(struct reader *r) {
    while (r->open != ITEM_NONE)
        if (!close_item(r, SLICE_NONE))
            return false;
    return true;
}

static struct waiting *waiting_at(const struct reader *r, uint64_t index) {
    for (struct waiting *w = r->first; w && index != IR_ABSENT; w = w->next)
        if (w->index == index)
            return w;
    return NULL;
}

static bool wait(struct reader *r, enum item kind, uint64_t index, struct slice id, struct slice name, bool custom) {
    struct waiting **at = &r->first, *w = r->waiting_count < MAX_WAITING ? arena_zalloc(r->s.arena, sizeof *w) : NULL;
    if (!w)
        return false;
    while (*at)
        at = &(*at)->next;
    *at = w;
    r->waiting_count++;
    w->index = index;
    w->kind = kind;
    w->says = kind == ITEM_CALL ? IR_EV_ARGS : kind == ITEM_REASONING ? IR_EV_REASONING : IR_EV_TEXT;
    w->id = arena_copy(r->s.arena, id);
    w->name = arena_copy(r->s.arena, name);
    w->custom = custom;
    buf_init(&w->held, r->s.pages, r->s.max_held);
    return true;
}

static bool open_item(struct reader *r, const struct json *j, int t, uint64_t index) {
    bool custom;
    enum item kind = kind_of(j, t, &custom);
    struct slice id = str(r, j, t, "call_id"), name = responses_full_name(j, t, r->scratch);
    r->items = true;
    if (kind == ITEM_OTHER)
        return true;
    if (r->open != ITEM_NONE && index != IR_ABSENT && r->open_index != IR_ABSENT && index != r->open_index)
        return wait(r, kind, index, id, name, custom);
    return close_all(r) && begin(r, kind, index, id, name, custom);
}

static bool read_logprobs(struct reader *r, const struct json *j, int list) {
    struct ir_event ev = { .kind = IR_EV_LOGPROBS };
    if (!json_is(j, list, JSON_ARRAY) || json_size(j, list) == 0)
        return true;
    ev.text = json_span(j, list);
    return ir_put(r->sink, &ev);
}

static bool read_annotation(struct reader *r, const struct json *j, int t) {
    struct ir_event ev = { .kind = IR_EV_CITATION, .id = str(r, j, t, "url"), .name = str(r, j, t, "title") };
    return ev.id.len == 0 || ir_put(r->sink, &ev);
}

/* The parts of a message item, as the events of deltas that did not come. */
static bool read_content(struct reader *r, const struct json *j, int list) {
    for (int p = json_items(j, list); p >= 0; p = json_next(j, list, p)) {
        int notes = json_get(j, p, "annotations");
        if (!give(r, IR_EV_TEXT, str(r, j, p, "text")) || !read_logprobs(r, j, json_get(j, p, "logprobs")) ||
            !give(r, IR_EV_REFUSAL, str(r, j, p, "refusal")))
            return false;
        for (int n = json_items(j, notes); n >= 0; n = json_next(j, notes, n))
            if (!read_annotation(r, j, n))
                return false;
    }
    return true;
}

static bool read_summary(struct reader *r, const struct json *j, int list) {
    for (int p = json_items(j, list); p >= 0; p = json_next(j, list, p)) {
        if ((r->summary && !give(r, IR_EV_REASONING, SLICE("\n\n"))) || !give(r, IR_EV_REASONING, str(r, j, p, "text")))
            return false;
        r->summary = true;
    }
    return true;
}

/* A picture that the provider's own tool made. */
static bool read_picture(struct reader *r, const struct json *j, int t) {
    struct slice picture = str(r, j, t, "result"), format = str(r, j, t, "output_format");
    struct ir_event ev = { .kind = IR_EV_IMAGE, .data = picture };
    if (!json_str_is(j, json_get(j, t, "type"), "image_generation_call") || picture.len == 0)
        return true;
    ev.media_type = slice_is(format, "jpeg") ? SLICE("image/jpeg") : slice_is(format, "webp") ? SLICE("image/webp")
                                                                                              : SLICE("image/png");
    return close_all(r) && ir_put(r->sink, &ev);
}

static bool finish_waiting(struct reader *r, struct waiting *w, const struct json *j, int t) {
    struct slice all = str(r, j, t, w->custom ? "input" : "arguments"), blob = str(r, j, t, "encrypted_content");
    int content = json_get(j, t, w->kind == ITEM_REASONING ? "summary" : "content");
    w->done = true;
    w->blob = w->kind == ITEM_REASONING ? arena_copy(r->s.arena, blob.ptr ? blob : SLICE("")) : SLICE_NONE;
    if (w->held.len > 0)
        return true;
    if (w->kind == ITEM_CALL)
        return buf_append_slice(&w->held, all);
    for (int p = json_items(j, content); p >= 0; p = json_next(j, content, p))
        if (!buf_append_slice(&w->held, str(r, j, p, "text")))
            return false;
    return true;
}

/* An item's end: what no delta brought comes from here. */
static bool finish_item(struct reader *r, const struct json *j, int t, uint64_t index) {
    bool custom;
    enum item kind = kind_of(j, t, &custom);
    struct waiting *w = waiting_at(r, index);
    if (kind == ITEM_OTHER) {
        responses_count_tool(j, t, &r->usage.tools);
        return read_picture(r, j, t);
    }
    if (w)
        return finish_waiting(r, w, j, t);
    if (r->open == ITEM_NONE && !open_item(r, j, t, index)) /* no .added came */
        return false;
    if (r->open == ITEM_MESSAGE)
        return (r->spoke || read_content(r, j, json_get(j, t, "content"))) && close_item(r, SLICE_NONE);
    if (r->open == ITEM_CALL) {
        struct slice args = str(r, j, t, custom ? "input" : "arguments");
        return (r->spoke || give(r, IR_EV_ARGS, args)) && close_item(r, SLICE_NONE);
    }
    if (!r->spoke && (!read_summary(r, j, json_get(j, t, "summary")) ||
                      (!r->summary && !read_summary(r, j, json_get(j, t, "content")))))
        return false;
    struct slice blob = str(r, j, t, "encrypted_content");
    return close_item(r, blob.ptr ? blob : SLICE(""));
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
    if (!start(r, j, response) || !close_all(r))
        return DIALECT_FULL;
    if (!r->items && json_is(j, output, JSON_ARRAY))
        for (int t = json_first(j, output); t >= 0; t = json_next(j, output, t))
            if (!open_item(r, j, t, IR_ABSENT) || !finish_item(r, j, t, IR_ABSENT))
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

static bool read_delta(struct reader *r, const struct json *j, struct slice type, uint64_t index) {
    struct slice delta = str(r, j, 0, "delta");
    struct waiting *w = waiting_at(r, index);
    if (slice_is(type, "response.reasoning_summary_part.added")) {
        bool later = w ? w->held.len > 0 : r->summary && r->spoke;
        r->summary = r->summary || !w;
        if (w)
            return !later || buf_append_slice(&w->held, SLICE("\n\n"));
        return !later || give(r, IR_EV_REASONING, SLICE("\n\n"));
    }
    if (slice_is(type, "response.output_text.annotation.added"))
        return w || read_annotation(r, j, json_get(j, 0, "annotation"));
    enum ir_event_kind kind = IR_EV_ARGS;
    if (slice_is(type, "response.output_text.delta"))
        kind = IR_EV_TEXT;
    else if (slice_is(type, "response.refusal.delta"))
        kind = IR_EV_REFUSAL;
    else if (slice_is(type, "response.reasoning_summary_text.delta") || slice_is(type, "response.reasoning_text.delta"))
        kind = IR_EV_REASONING;
    else if (!slice_is(type, "response.function_call_arguments.delta") &&
             !slice_is(type, "response.custom_tool_call_input.delta"))
        return true;
    if (w) {
        w->says = kind;
        return buf_append_slice(&w->held, delta);
    }
    if (kind == IR_EV_ARGS ? r->open != ITEM_CALL : r->open == ITEM_CALL && !close_all(r))
        return kind == IR_EV_ARGS;
    r->items = true;
    r->spoke = r->spoke || delta.len > 0;
    return give(r, kind, delta) && (kind != IR_EV_TEXT || read_logprobs(r, j, json_get(j, 0, "logprobs")));
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
    uint64_t index = common_count(j, 0, "output_index");
    if (slice_is(type, "response.created") || slice_is(type, "response.in_progress"))
        ok = start(r, j, response);
    else if (slice_is(type, "response.output_item.added"))
        ok = open_item(r, j, item, index);
    else if (slice_is(type, "response.output_item.done"))
        ok = finish_item(r, j, item, index);
    else
        ok = read_delta(r, j, type, index);
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
    return (!r->usage.seen || ir_put(sink, &usage)) && ir_put(sink, &end) ? DIALECT_OK : DIALECT_FULL;
}
