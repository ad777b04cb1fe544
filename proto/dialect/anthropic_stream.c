/* Reads answers of the Messages API, streamed and whole.
 *
 * Unknown events, blocks, deltas and stop reasons are passed over: within a version the provider may add them. One
 * block is open at a time; what the provider's own tools do (server_tool_use, results) is not part of the neutral
 * answer. A second message_start counts for its usage alone. The stream may end without message_stop once a stop
 * reason came, not before. */
#include "proto/dialect/anthropic.h"

enum block { BLOCK_NONE, BLOCK_TEXT, BLOCK_THINKING, BLOCK_CALL, BLOCK_OTHER };

struct reader {
    struct dialect_reader_settings s;
    bool started, stopped, args_seen;
    enum block open;
    enum ir_stop stop;
    struct slice stop_string, stop_text;
    struct buf signature; /* of the open thinking block */
    struct buf input;     /* of the open call: what its start held, used where no delta follows */
    struct anthropic_counts counts;
    struct ir_usage usage;
    struct ir_sink *sink;
    struct arena *scratch;
};

void *anthropic_reader(const struct dialect_reader_settings *s) {
    struct reader *r = arena_zalloc(s->arena, sizeof *r);
    if (!r)
        return NULL;
    r->s = *s;
    buf_init(&r->signature, s->pages, s->max_held);
    buf_init(&r->input, s->pages, s->max_held);
    return r;
}

void anthropic_close_reader(void *reader) {
    struct reader *r = reader;
    buf_release(&r->signature);
    buf_release(&r->input);
}

static struct slice str(struct reader *r, const struct json *j, int obj, const char *name) {
    return json_str(j, json_get(j, obj, name), r->scratch);
}

static bool give(struct reader *r, enum ir_event_kind kind, struct slice text) {
    struct ir_event ev = { .kind = kind, .text = text };
    return ir_put(r->sink, &ev);
}

static bool close_block(struct reader *r) {
    enum block open = r->open;
    bool ok = true;
    r->open = BLOCK_NONE;
    if (open == BLOCK_THINKING) {
        struct ir_event ev = { .kind = IR_EV_REASONING_END, .bound = true };
        ev.blob = (struct ir_blob){ IR_BLOB_SIGNATURE, IR_ANTHROPIC, 0, buf_slice(&r->signature) };
        if (r->signature.len == 0)
            ev.blob.kind = IR_BLOB_NONE;
        ok = ir_put(r->sink, &ev);
        buf_release(&r->signature);
    } else if (open == BLOCK_CALL) {
        if (!r->args_seen && r->input.len > 2) /* more than {} */
            ok = give(r, IR_EV_ARGS, buf_slice(&r->input));
        buf_release(&r->input);
        ok = ok && give(r, IR_EV_CALL_END, SLICE_NONE);
    }
    return ok;
}

static bool read_citation(struct reader *r, const struct json *j, int t) {
    struct ir_event ev = { .kind = IR_EV_CITATION, .id = str(r, j, t, "url"), .name = str(r, j, t, "title"),
                           .text = str(r, j, t, "cited_text") };
    return ev.id.len == 0 || ir_put(r->sink, &ev); /* places within documents have no equal elsewhere */
}

/* A block's start, in a stream, or a whole block. */
static bool open_block(struct reader *r, const struct json *j, int t) {
    int type = json_get(j, t, "type"), citations = json_get(j, t, "citations");
    if (!close_block(r))
        return false;
    r->open = BLOCK_OTHER;
    r->args_seen = false;
    if (json_str_is(j, type, "text")) {
        r->open = BLOCK_TEXT;
        if (!give(r, IR_EV_TEXT, str(r, j, t, "text")))
            return false;
        for (int c = json_items(j, citations); c >= 0; c = json_next(j, citations, c))
            if (!read_citation(r, j, c))
                return false;
    } else if (json_str_is(j, type, "thinking")) {
        struct ir_event ev = { .kind = IR_EV_REASONING, .text = str(r, j, t, "thinking"), .bound = true };
        r->open = BLOCK_THINKING;
        return ir_put(r->sink, &ev) && buf_append_slice(&r->signature, str(r, j, t, "signature"));
    } else if (json_str_is(j, type, "redacted_thinking")) {
        struct ir_event ev = { .kind = IR_EV_REASONING_END };
        ev.blob = (struct ir_blob){ IR_BLOB_REDACTED, IR_ANTHROPIC, 0, str(r, j, t, "data") };
        return ir_put(r->sink, &ev);
    } else if (json_str_is(j, type, "tool_use")) {
        struct ir_event ev = { .kind = IR_EV_CALL, .id = str(r, j, t, "id"), .name = str(r, j, t, "name") };
        int input = json_get(j, t, "input");
        r->open = BLOCK_CALL;
        return ir_put(r->sink, &ev) && (!json_is(j, input, JSON_OBJECT) || json_size(j, input) == 0 ||
                                        buf_append_slice(&r->input, json_raw(j, input)));
    }
    return true;
}

static bool read_delta(struct reader *r, const struct json *j, int d) {
    int type = json_get(j, d, "type");
    if (json_str_is(j, type, "text_delta"))
        return give(r, IR_EV_TEXT, str(r, j, d, "text"));
    if (json_str_is(j, type, "thinking_delta")) {
        struct ir_event ev = { .kind = IR_EV_REASONING, .text = str(r, j, d, "thinking"), .bound = true };
        return ir_put(r->sink, &ev);
    }
    if (json_str_is(j, type, "signature_delta"))
        return r->open != BLOCK_THINKING || buf_append_slice(&r->signature, str(r, j, d, "signature"));
    if (json_str_is(j, type, "citations_delta"))
        return read_citation(r, j, json_get(j, d, "citation"));
    if (!json_str_is(j, type, "input_json_delta") || r->open != BLOCK_CALL)
        return true;
    struct slice part = str(r, j, d, "partial_json");
    r->args_seen = r->args_seen || part.len > 0;
    return part.len == 0 || give(r, IR_EV_ARGS, part);
}

static enum ir_stop stop_of(struct slice word) {
    static const struct { const char *word; enum ir_stop stop; } words[] = {
        { "end_turn", IR_STOP_END }, { "max_tokens", IR_STOP_LIMIT }, { "stop_sequence", IR_STOP_STRING },
        { "tool_use", IR_STOP_TOOLS }, { "pause_turn", IR_STOP_PAUSE }, { "compaction", IR_STOP_PAUSE },
        { "refusal", IR_STOP_REFUSAL }, { "model_context_window_exceeded", IR_STOP_CONTEXT },
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (slice_is(word, words[i].word))
            return words[i].stop;
    return IR_STOP_UNKNOWN;
}

/* The members that say why it ended: of a message, or of a message_delta's delta. */
static void read_stop(struct reader *r, const struct json *j, int t) {
    struct slice word = str(r, j, t, "stop_reason"), said = str(r, j, json_get(j, t, "stop_details"), "explanation");
    struct slice string = str(r, j, t, "stop_sequence");
    if (word.ptr) {
        r->stopped = true;
        r->stop = stop_of(word);
    }
    if (string.len > 0)
        r->stop_string = arena_copy(r->s.arena, string);
    if (said.len > 0)
        r->stop_text = arena_copy(r->s.arena, said);
}

static bool start(struct reader *r, const struct json *j, int message) {
    struct ir_event ev = { .kind = IR_EV_START, .id = str(r, j, message, "id"), .name = str(r, j, message, "model"),
                           .usage = &r->usage };
    anthropic_counts_take(&r->counts, j, json_get(j, message, "usage"));
    anthropic_counts_usage(&r->counts, &r->usage);
    if (r->started)
        return true;
    r->started = true;
    return ir_put(r->sink, &ev);
}

static enum dialect_result read_event(struct reader *r, const struct json *j, struct ir_fault *f) {
    int type = json_get(j, 0, "type");
    bool ok = true;
    if (json_str_is(j, type, "message_start"))
        ok = start(r, j, json_get(j, 0, "message"));
    else if (json_str_is(j, type, "content_block_start"))
        ok = open_block(r, j, json_get(j, 0, "content_block"));
    else if (json_str_is(j, type, "content_block_delta"))
        ok = read_delta(r, j, json_get(j, 0, "delta"));
    else if (json_str_is(j, type, "content_block_stop"))
        ok = close_block(r);
    else if (json_str_is(j, type, "message_delta")) {
        read_stop(r, j, json_get(j, 0, "delta"));
        anthropic_counts_take(&r->counts, j, json_get(j, 0, "usage"));
        ok = close_block(r);
    } else if (json_str_is(j, type, "message_stop"))
        return close_block(r) ? DIALECT_DONE : DIALECT_FULL;
    else if (json_str_is(j, type, "error") || json_is(j, json_get(j, 0, "error"), JSON_OBJECT)) {
        dialect_fault_of(j, 0, 200, r->scratch, f);
        return DIALECT_ERROR;
    }
    return ok ? DIALECT_OK : DIALECT_FULL;
}

enum dialect_result anthropic_event(void *reader, const struct sse_event *ev, struct arena *scratch,
                                    struct ir_sink *sink, struct ir_fault *f) {
    struct reader *r = reader;
    struct json j;
    r->sink = sink;
    r->scratch = scratch;
    if (slice_is(slice_trim(ev->data), "[DONE]")) /* some compatible servers */
        return DIALECT_DONE;
    if (!json_parse(&j, scratch, ev->data.ptr, ev->data.len))
        return DIALECT_BAD;
    return read_event(r, &j, f);
}

enum dialect_result anthropic_whole(void *reader, const struct json *j, struct arena *scratch, struct ir_sink *sink,
                                    struct ir_fault *f) {
    struct reader *r = reader;
    int content = json_get(j, 0, "content");
    r->sink = sink;
    r->scratch = scratch;
    if (json_str_is(j, json_get(j, 0, "type"), "error") || json_is(j, json_get(j, 0, "error"), JSON_OBJECT)) {
        dialect_fault_of(j, 0, 200, scratch, f);
        return DIALECT_ERROR;
    }
    if (!json_is(j, content, JSON_ARRAY))
        return DIALECT_BAD;
    if (!start(r, j, 0))
        return DIALECT_FULL;
    for (int b = json_first(j, content); b >= 0; b = json_next(j, content, b))
        if (!open_block(r, j, b) || !close_block(r))
            return DIALECT_FULL;
    read_stop(r, j, 0);
    r->stopped = true;
    return DIALECT_OK;
}

enum dialect_result anthropic_end(void *reader, struct arena *scratch, struct ir_sink *sink, struct ir_fault *f) {
    struct reader *r = reader;
    (void)f;
    r->sink = sink;
    r->scratch = scratch;
    if (!r->stopped)
        return DIALECT_BAD;
    struct ir_event usage = { .kind = IR_EV_USAGE, .usage = &r->usage };
    struct ir_event finish = {
        .kind = IR_EV_FINISH, .stop = r->stop, .text = r->stop_string, .stop_text = r->stop_text
    };
    anthropic_counts_usage(&r->counts, &r->usage);
    bool ok = close_block(r) && (!r->usage.seen || ir_put(sink, &usage)) && ir_put(sink, &finish);
    return ok ? DIALECT_OK : DIALECT_FULL;
}
