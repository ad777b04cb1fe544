/* Writes answers of the Messages API: events as they come, and whole messages from a folded answer.
 *
 * Blocks count up without gaps, one open at a time; an empty block is never opened. message_start goes out at once
 * and shows the input as far as it is known, else the estimate (clients display it; the bill uses the final figures,
 * which message_delta carries with the stop reason). Thinking always ends with a signature the client can return: a
 * carrier. */
#include "proto/dialect/anthropic.h"

enum open { OPEN_NONE, OPEN_TEXT, OPEN_THINKING, OPEN_CALL };

struct writer {
    struct dialect_writer_settings s;
    enum open open;
    uint32_t index; /* of the open block, or of the next one */
    enum ir_stop stop;
    struct slice stop_string, stop_text;
};

void *anthropic_writer(const struct dialect_writer_settings *s) {
    struct writer *w = arena_zalloc(s->arena, sizeof *w);
    if (w)
        w->s = *s;
    return w;
}

static const char *stop_word(enum ir_stop stop, bool has_string) {
    switch (stop) {
    case IR_STOP_LIMIT: return "max_tokens";
    case IR_STOP_CONTEXT: return "model_context_window_exceeded";
    case IR_STOP_TOOLS: return "tool_use";
    case IR_STOP_FILTER: case IR_STOP_REFUSAL: return "refusal";
    case IR_STOP_PAUSE: return "pause_turn";
    case IR_STOP_STRING: return has_string ? "stop_sequence" : "end_turn";
    default: return "end_turn";
    }
}

static void write_null(struct json_writer *j, const char *name) {
    jw_key(j, name);
    jw_null(j);
}

static void write_stop(struct json_writer *j, enum ir_stop stop, struct slice string, struct slice said) {
    common_word(j, "stop_reason", stop_word(stop, string.len > 0));
    common_member(j, "stop_sequence", stop == IR_STOP_STRING && string.len > 0 ? string : SLICE_NONE);
    jw_key(j, "stop_details");
    if (stop != IR_STOP_REFUSAL && stop != IR_STOP_FILTER) {
        jw_null(j);
        return;
    }
    jw_object(j);
    common_word(j, "type", "refusal");
    write_null(j, "category");
    common_member(j, "explanation", said);
    jw_end_object(j);
}

/* whole: of a message, else of its delta. input_tokens is the plain part alone; audio and pictures that went in are
 * part of it here. */
static void write_usage(struct json_writer *j, const struct ir_usage *u, const struct ir_cost *cost, uint64_t estimate,
                        bool final, bool whole) {
    const uint64_t *n = u->meters.n;
    uint64_t plain = meters_input(&u->meters) - n[METER_CACHED_INPUT] - ir_writes(u);
    jw_key(j, "usage");
    jw_object(j);
    common_count_member(j, "input_tokens", u->seen ? plain : estimate);
    common_count_member(j, "cache_creation_input_tokens", ir_writes(u));
    common_count_member(j, "cache_read_input_tokens", n[METER_CACHED_INPUT]);
    jw_key(j, "cache_creation");
    jw_object(j);
    common_count_member(j, "ephemeral_5m_input_tokens", n[METER_CACHE_WRITE]);
    common_count_member(j, "ephemeral_1h_input_tokens", n[METER_CACHE_WRITE_1H]);
    jw_end_object(j);
    common_count_member(j, "output_tokens", final ? meters_output(&u->meters) : 0);
    jw_key(j, "output_tokens_details");
    if (final && n[METER_REASONING] > 0) {
        jw_object(j);
        common_count_member(j, "thinking_tokens", n[METER_REASONING]);
        jw_end_object(j);
    } else {
        jw_null(j);
    }
    uint32_t searches = u->tools.n[TOOL_WEB_SEARCH], fetches = u->tools.n[TOOL_WEB_FETCH];
    jw_key(j, "server_tool_use");
    if (searches + fetches > 0) {
        jw_object(j);
        common_count_member(j, "web_search_requests", searches);
        common_count_member(j, "web_fetch_requests", fetches);
        jw_end_object(j);
    } else {
        jw_null(j);
    }
    if (whole) { /* what is known of Anthropic's own servers alone */
        write_null(j, "inference_geo");
        write_null(j, "service_tier");
        write_null(j, "speed");
    }
    if (final)
        ir_write_cost(j, cost, false);
    jw_end_object(j);
}

static void write_head(struct json_writer *j, const struct dialect_writer_settings *s) {
    jw_key(j, "id");
    jw_str_begin(j);
    jw_str_part(j, SLICE("msg_"));
    jw_str_part(j, s->id);
    jw_str_end(j);
    common_word(j, "type", "message");
    common_word(j, "role", "assistant");
    common_member(j, "model", s->model);
    write_null(j, "container");
    write_null(j, "diagnostics");
}

static void write_caller(struct json_writer *j) {
    jw_key(j, "caller");
    jw_raw(j, SLICE("{\"type\":\"direct\"}"));
}

/* ---- events ---- */

static void begin(struct json_writer *j, struct buf *out, const char *type) {
    common_event_begin(out, type);
    jw_init(j, out);
    jw_object(j);
    common_word(j, "type", type);
}

static bool end(struct json_writer *j, struct buf *out) {
    jw_end_object(j);
    return common_event_end(out, j);
}

static bool close_block(struct writer *w, struct buf *out) {
    struct json_writer j;
    if (w->open == OPEN_NONE)
        return true;
    w->open = OPEN_NONE;
    begin(&j, out, "content_block_stop");
    common_count_member(&j, "index", w->index++);
    return end(&j, out);
}

static void block_begin(struct json_writer *j, const struct writer *w, struct buf *out, const char *type) {
    begin(j, out, "content_block_start");
    common_count_member(j, "index", w->index);
    jw_key(j, "content_block");
    jw_object(j);
    common_word(j, "type", type);
}

static bool block_end(struct json_writer *j, struct buf *out) {
    jw_end_object(j);
    return end(j, out);
}

static bool delta(const struct writer *w, struct buf *out, const char *type, const char *name, struct slice text) {
    struct json_writer j;
    begin(&j, out, "content_block_delta");
    common_count_member(&j, "index", w->index);
    jw_key(&j, "delta");
    jw_object(&j);
    common_word(&j, "type", type);
    common_member(&j, name, text.ptr ? text : SLICE(""));
    jw_end_object(&j);
    return end(&j, out);
}

static bool open_run(struct writer *w, enum open kind, struct buf *out) {
    struct json_writer j;
    if (w->open == kind)
        return true;
    if (!close_block(w, out))
        return false;
    w->open = kind;
    block_begin(&j, w, out, kind == OPEN_TEXT ? "text" : "thinking");
    common_word(&j, kind == OPEN_TEXT ? "text" : "thinking", "");
    if (kind == OPEN_THINKING)
        common_word(&j, "signature", "");
    else
        write_null(&j, "citations");
    return block_end(&j, out);
}

static bool put_start(const struct writer *w, const struct ir_event *ev, struct buf *out) {
    static const struct ir_usage unknown;
    struct json_writer j;
    begin(&j, out, "message_start");
    jw_key(&j, "message");
    jw_object(&j);
    write_head(&j, &w->s);
    jw_key(&j, "content");
    jw_array(&j);
    jw_end_array(&j);
    write_null(&j, "stop_reason");
    write_null(&j, "stop_sequence");
    write_null(&j, "stop_details");
    write_usage(&j, ev->usage && ev->usage->seen ? ev->usage : &unknown, NULL, w->s.input_estimate, false, true);
    jw_end_object(&j);
    return end(&j, out);
}

static bool put_reasoning_end(struct writer *w, const struct ir_event *ev, struct arena *scratch, struct buf *out) {
    struct json_writer j;
    if (ev->blob.kind == IR_BLOB_NONE)
        return w->open != OPEN_THINKING || close_block(w, out);
    struct slice carrier = ir_carrier(scratch, &ev->blob);
    if (ev->blob.kind != IR_BLOB_REDACTED)
        return (w->open == OPEN_THINKING || open_run(w, OPEN_THINKING, out)) &&
               delta(w, out, "signature_delta", "signature", carrier) && close_block(w, out);
    if (!close_block(w, out))
        return false;
    block_begin(&j, w, out, "redacted_thinking");
    common_member(&j, "data", carrier);
    w->open = OPEN_TEXT; /* so that it is closed */
    return block_end(&j, out) && close_block(w, out);
}

static bool put_call(struct writer *w, const struct ir_event *ev, struct buf *out) {
    struct json_writer j;
    if (!close_block(w, out))
        return false;
    w->open = OPEN_CALL;
    block_begin(&j, w, out, "tool_use");
    common_member(&j, "id", ev->id);
    common_member(&j, "name", ev->name);
    jw_key(&j, "input");
    jw_object(&j);
    jw_end_object(&j);
    write_caller(&j);
    return block_end(&j, out);
}

static void write_citation(struct json_writer *j, struct slice url, struct slice title, struct slice text) {
    jw_object(j);
    common_word(j, "type", "web_search_result_location");
    common_member(j, "url", url);
    common_member(j, "title", title.ptr ? title : SLICE(""));
    common_member(j, "cited_text", text.ptr ? text : SLICE(""));
    common_word(j, "encrypted_index", "");
    jw_end_object(j);
}

static bool put_citation(const struct writer *w, const struct ir_event *ev, struct buf *out) {
    struct json_writer j;
    if (w->open != OPEN_TEXT)
        return true;
    begin(&j, out, "content_block_delta");
    common_count_member(&j, "index", w->index);
    jw_key(&j, "delta");
    jw_object(&j);
    common_word(&j, "type", "citations_delta");
    jw_key(&j, "citation");
    write_citation(&j, ev->id, ev->name, ev->text);
    jw_end_object(&j);
    return end(&j, out);
}

bool anthropic_put(void *writer, const struct ir_event *ev, struct arena *scratch, struct buf *out) {
    struct writer *w = writer;
    switch (ev->kind) {
    case IR_EV_START: return put_start(w, ev, out);
    case IR_EV_TEXT: case IR_EV_REFUSAL:
        return open_run(w, OPEN_TEXT, out) && delta(w, out, "text_delta", "text", ev->text);
    case IR_EV_REASONING:
        return open_run(w, OPEN_THINKING, out) && delta(w, out, "thinking_delta", "thinking", ev->text);
    case IR_EV_REASONING_END: return put_reasoning_end(w, ev, scratch, out);
    case IR_EV_CALL: return put_call(w, ev, out);
    case IR_EV_ARGS: return w->open != OPEN_CALL || delta(w, out, "input_json_delta", "partial_json", ev->text);
    case IR_EV_CALL_END: return close_block(w, out);
    case IR_EV_CITATION: return put_citation(w, ev, out);
    case IR_EV_FINISH:
        w->stop = ev->stop;
        w->stop_string = arena_copy(w->s.arena, ev->text);
        w->stop_text = arena_copy(w->s.arena, ev->stop_text);
        return close_block(w, out);
    default: return true; /* pictures have no block in an answer */
    }
}

bool anthropic_finish(void *writer, const struct ir_usage *u, const struct ir_cost *cost, struct arena *scratch,
                      struct buf *out) {
    struct writer *w = writer;
    struct json_writer j;
    (void)scratch;
    if (!close_block(w, out))
        return false;
    begin(&j, out, "message_delta");
    jw_key(&j, "delta");
    jw_object(&j);
    write_stop(&j, w->stop, w->stop_string, w->stop_text);
    write_null(&j, "container");
    jw_end_object(&j);
    write_usage(&j, u, cost, 0, true, false);
    if (!end(&j, out))
        return false;
    begin(&j, out, "message_stop");
    return end(&j, out);
}

/* ---- errors ---- */

bool anthropic_write_error(const struct ir_fault *f, const struct dialect_brand *brand, struct arena *arena,
                           struct buf *out) {
    struct json_writer j;
    struct slice message = f->message.ptr ? f->message : SLICE("");
    if (slice_is(f->code, "context_length_exceeded") &&
        (message.len == 0 || !memmem(message.ptr, message.len, "prompt is too long", 18)))
        message = arena_printf(arena, "prompt is too long: %.*s", SLICE_ARG(message)); /* the words clients look for */
    jw_init(&j, out);
    jw_object(&j);
    common_word(&j, "type", "error");
    jw_key(&j, "error");
    jw_object(&j);
    common_word(&j, "type", dialect_status_of(f->status)->anthropic);
    common_member(&j, "message", message);
    jw_key(&j, "details");
    jw_object(&j);
    common_member(&j, "error_code", dialect_code(f));
    jw_end_object(&j);
    jw_end_object(&j);
    if (brand && brand->request_id.len > 0)
        common_member(&j, "request_id", brand->request_id);
    jw_end_object(&j);
    return !j.failed;
}

bool anthropic_fail(void *writer, const struct ir_fault *f, const struct dialect_brand *brand, struct arena *scratch,
                    struct buf *out) {
    (void)writer;
    common_event_begin(out, "error");
    return anthropic_write_error(f, brand, scratch, out) && buf_append(out, "\n\n", 2);
}

/* ---- whole ---- */

static void write_text_block(struct json_writer *j, const struct ir_block *b) {
    jw_object(j);
    common_word(j, "type", "text");
    common_member(j, "text", b->text);
    if (!b->citations)
        write_null(j, "citations");
    else {
        jw_key(j, "citations");
        jw_array(j);
        for (const struct ir_citation *c = b->citations; c; c = c->next)
            write_citation(j, c->url, c->title, c->text);
        jw_end_array(j);
    }
    jw_end_object(j);
}

static void write_thinking_block(struct json_writer *j, const struct ir_block *b, struct arena *arena) {
    bool redacted = b->blob.kind == IR_BLOB_REDACTED;
    struct slice carrier = b->blob.kind == IR_BLOB_NONE ? SLICE("") : ir_carrier(arena, &b->blob);
    jw_object(j);
    common_word(j, "type", redacted ? "redacted_thinking" : "thinking");
    if (!redacted)
        common_member(j, "thinking", b->text);
    common_member(j, redacted ? "data" : "signature", carrier);
    jw_end_object(j);
}

/* false: arguments that are no object although nothing cut them. Cut ones are left out: the stop reason tells. */
static bool write_call_block(struct json_writer *j, const struct ir_block *b, const struct ir_answer *a,
                             struct ir_fault *f) {
    struct slice input;
    if (!ir_args_object(a->arena, b->text, &input)) {
        if (a->choices[0].stop == IR_STOP_LIMIT || a->choices[0].stop == IR_STOP_CONTEXT)
            return true;
        *f = (struct ir_fault){ .status = 502, .blame = IR_BLAME_UPSTREAM,
                                .message = SLICE("The model made a tool call whose arguments are not a JSON object.") };
        return false;
    }
    jw_object(j);
    common_word(j, "type", "tool_use");
    common_member(j, "id", b->id);
    common_member(j, "name", b->name);
    jw_key(j, "input");
    jw_raw(j, input);
    write_caller(j);
    jw_end_object(j);
    return true;
}

bool anthropic_write_answer(const struct ir_answer *a, const struct dialect_writer_settings *s,
                            const struct ir_usage *u, const struct ir_cost *cost, struct buf *out, struct ir_fault *f) {
    static const struct ir_choice_answer nothing;
    const struct ir_choice_answer *c = a->count > 0 ? &a->choices[0] : &nothing;
    struct json_writer j;
    jw_init(&j, out);
    jw_object(&j);
    write_head(&j, s);
    jw_key(&j, "content");
    jw_array(&j);
    for (const struct ir_block *b = c->blocks; b; b = b->next) {
        if ((b->kind == IR_BLOCK_TEXT || b->kind == IR_BLOCK_REFUSAL) && b->text.len > 0)
            write_text_block(&j, b);
        else if (b->kind == IR_BLOCK_REASONING)
            write_thinking_block(&j, b, a->arena);
        else if (b->kind == IR_BLOCK_CALL && !write_call_block(&j, b, a, f))
            return false;
    }
    jw_end_array(&j);
    write_stop(&j, c->stop, c->stop_string, c->stop_text);
    write_usage(&j, u, cost, s->input_estimate, true, true);
    jw_end_object(&j);
    return !j.failed && !a->arena->overflow;
}
