/* Writes answers of generateContent: chunks as events come (SSE, or one JSON array piece by piece), and whole
 * responses.
 *
 * Every chunk is a response with what is new. A call is written when it is complete, because its args are an object;
 * what is held for that is one call, bounded by max_held. Arguments that are no object: left out where a limit cut
 * them, else the finish says MALFORMED_FUNCTION_CALL. The last chunk has the finishReason of each candidate and
 * usageMetadata with the cost. */
#include "proto/dialect/gemini.h"

#include "proto/base/crypto.h"

enum { MAX_SOURCES = 64 };

struct choice { enum ir_stop stop; struct slice said; bool seen, bad_call; };

struct writer {
    struct dialect_writer_settings s;
    struct choice choices[8];
    uint32_t count;
    bool array, first;
    struct slice id, name; /* of the open call */
    struct ir_blob blob;
    struct buf args;
    struct { struct slice uri, title; } sources[MAX_SOURCES];
    uint32_t source_count;
};

void *gemini_writer(const struct dialect_writer_settings *s) {
    struct writer *w = arena_zalloc(s->arena, sizeof *w);
    if (!w)
        return NULL;
    w->s = *s;
    w->first = true;
    w->array = s->request && s->request->as_array;
    buf_init(&w->args, s->pages, s->max_held);
    return w;
}

void gemini_close_writer(void *writer) {
    buf_release(&((struct writer *)writer)->args);
}

static const char *finish_word(enum ir_stop stop, bool bad_call) {
    switch (stop) {
    case IR_STOP_LIMIT: case IR_STOP_CONTEXT: return "MAX_TOKENS";
    case IR_STOP_FILTER: case IR_STOP_REFUSAL: return "SAFETY";
    default: return bad_call ? "MALFORMED_FUNCTION_CALL" : "STOP";
    }
}

void gemini_write_usage(struct json_writer *j, const struct ir_usage *u, const struct ir_cost *cost) {
    uint64_t in = meters_input(&u->meters), out = meters_output(&u->meters), thoughts = u->meters.n[METER_REASONING];
    uint64_t tool = u->tool_prompt < in ? u->tool_prompt : 0;
    jw_object(j);
    common_count_member(j, "promptTokenCount", in - tool);
    common_count_member(j, "candidatesTokenCount", out - thoughts);
    common_count_member(j, "totalTokenCount", in + out);
    if (u->meters.n[METER_CACHED_INPUT] > 0)
        common_count_member(j, "cachedContentTokenCount", u->meters.n[METER_CACHED_INPUT]);
    if (thoughts > 0)
        common_count_member(j, "thoughtsTokenCount", thoughts);
    if (tool > 0)
        common_count_member(j, "toolUsePromptTokenCount", tool);
    ir_write_cost(j, cost, true);
    jw_end_object(j);
}

static void write_tail(struct json_writer *j, const struct dialect_writer_settings *s) {
    common_member(j, "modelVersion", s->model);
    common_member(j, "responseId", s->id);
}

static void write_sources_begin(struct json_writer *j) {
    jw_key(j, "groundingMetadata");
    jw_object(j);
    jw_key(j, "groundingChunks");
    jw_array(j);
}

static void write_source(struct json_writer *j, struct slice uri, struct slice title) {
    jw_object(j);
    jw_key(j, "web");
    jw_object(j);
    common_member(j, "uri", uri);
    common_member(j, "title", title.ptr ? title : SLICE(""));
    jw_end_object(j);
    jw_end_object(j);
}

/* As base64: clients of typed languages decode it, and encode it again when they return it. */
static void write_signature(struct json_writer *j, const struct ir_blob *blob, struct arena *arena) {
    struct slice carrier = ir_carrier(arena, blob);
    struct buf b;
    buf_init(&b, arena->pages, carrier.len * 2 + 8);
    if (base64_encode(&b, carrier.ptr, carrier.len, false))
        common_member(j, "thoughtSignature", buf_slice(&b));
    buf_release(&b);
}

static void write_call_part(struct json_writer *j, struct slice id, struct slice name, struct slice args,
                            const struct ir_blob *blob, struct arena *arena) {
    jw_object(j);
    jw_key(j, "functionCall");
    jw_object(j);
    common_member(j, "id", id);
    common_member(j, "name", name);
    jw_key(j, "args");
    jw_raw(j, args);
    jw_end_object(j);
    if (blob->kind != IR_BLOB_NONE)
        write_signature(j, blob, arena);
    jw_end_object(j);
}

static void write_data_part(struct json_writer *j, struct slice type, struct slice data) {
    jw_object(j);
    jw_key(j, "inlineData");
    jw_object(j);
    common_member(j, "mimeType", type);
    common_member(j, "data", data);
    jw_end_object(j);
    jw_end_object(j);
}

static void write_thought_part(struct json_writer *j, struct slice text, const struct ir_blob *blob,
                               struct arena *arena) {
    jw_object(j);
    common_member(j, "text", text.ptr ? text : SLICE(""));
    jw_key(j, "thought");
    jw_bool(j, true);
    if (blob && blob->kind != IR_BLOB_NONE)
        write_signature(j, blob, arena);
    jw_end_object(j);
}

/* ---- chunks ---- */

static void frame_begin(struct writer *w, struct buf *out) {
    if (!w->array)
        buf_append(out, "data: ", 6);
    else
        buf_append_slice(out, w->first ? SLICE("[") : SLICE(",\r\n"));
    w->first = false;
}

static bool frame_end(const struct writer *w, const struct json_writer *j, struct buf *out) {
    return (w->array || buf_append(out, "\r\n\r\n", 4)) && !j->failed;
}

static void candidate_begin(struct json_writer *j) {
    jw_object(j);
    jw_key(j, "content");
    jw_object(j);
    jw_key(j, "parts");
    jw_array(j);
}

static void candidate_middle(struct json_writer *j) {
    jw_end_array(j);
    common_word(j, "role", "model");
    jw_end_object(j);
}

static void chunk_begin(struct writer *w, struct json_writer *j, struct buf *out) {
    frame_begin(w, out);
    jw_init(j, out);
    jw_object(j);
    jw_key(j, "candidates");
    jw_array(j);
    candidate_begin(j);
}

static bool chunk_tail(struct writer *w, struct json_writer *j, uint32_t choice, struct buf *out) {
    common_count_member(j, "index", choice);
    jw_end_object(j);
    jw_end_array(j);
    write_tail(j, &w->s);
    jw_end_object(j);
    return frame_end(w, j, out);
}

static bool chunk_end(struct writer *w, struct json_writer *j, uint32_t choice, struct buf *out) {
    candidate_middle(j);
    return chunk_tail(w, j, choice, out);
}

static bool put_call_end(struct writer *w, const struct ir_event *ev, struct choice *c, struct arena *scratch,
                         struct buf *out) {
    struct slice args;
    struct json_writer j;
    bool object = ir_args_object(scratch, buf_slice(&w->args), &args), ok = true;
    if (object) {
        chunk_begin(w, &j, out);
        write_call_part(&j, w->id, w->name, args, &w->blob, scratch);
        ok = chunk_end(w, &j, ev->choice, out);
    } else {
        c->bad_call = true;
    }
    buf_release(&w->args);
    return ok;
}

static bool put_call(struct writer *w, const struct ir_event *ev) {
    w->id = arena_copy(w->s.arena, ev->id);
    w->name = arena_copy(w->s.arena, ev->name);
    w->blob = ev->blob;
    w->blob.data = arena_copy(w->s.arena, ev->blob.data);
    return !w->s.arena->overflow;
}

bool gemini_put(void *writer, const struct ir_event *ev, struct arena *scratch, struct buf *out) {
    struct writer *w = writer;
    struct json_writer j;
    if (ev->choice >= sizeof w->choices / sizeof *w->choices)
        return true;
    struct choice *c = &w->choices[ev->choice];
    if (ev->choice >= w->count)
        w->count = ev->choice + 1;
    switch (ev->kind) {
    case IR_EV_TEXT: case IR_EV_REFUSAL:
        chunk_begin(w, &j, out);
        jw_object(&j);
        common_member(&j, "text", ev->text);
        jw_end_object(&j);
        return chunk_end(w, &j, ev->choice, out);
    case IR_EV_REASONING: case IR_EV_REASONING_END:
        if (ev->kind == IR_EV_REASONING_END && ev->blob.kind == IR_BLOB_NONE)
            return true;
        chunk_begin(w, &j, out);
        write_thought_part(&j, ev->text, &ev->blob, scratch);
        return chunk_end(w, &j, ev->choice, out);
    case IR_EV_LOGPROBS:
        chunk_begin(w, &j, out);
        jw_object(&j);
        common_word(&j, "text", "");
        jw_end_object(&j);
        candidate_middle(&j);
        gemini_write_logprobs(&j, ev->text, scratch);
        return chunk_tail(w, &j, ev->choice, out);
    case IR_EV_CALL: return put_call(w, ev);
    case IR_EV_ARGS: return buf_append_slice(&w->args, ev->text);
    case IR_EV_CALL_END: return put_call_end(w, ev, c, scratch, out);
    case IR_EV_IMAGE:
        chunk_begin(w, &j, out);
        write_data_part(&j, ev->media_type, ev->data);
        return chunk_end(w, &j, ev->choice, out);
    case IR_EV_CITATION:
        if (w->source_count == MAX_SOURCES)
            return true;
        w->sources[w->source_count].uri = arena_copy(w->s.arena, ev->id);
        w->sources[w->source_count++].title = arena_copy(w->s.arena, ev->name);
        return true;
    case IR_EV_FINISH:
        c->seen = true;
        c->stop = ev->stop;
        c->said = arena_copy(w->s.arena, ev->stop_text);
        return true;
    default: return true;
    }
}

bool gemini_finish(void *writer, const struct ir_usage *u, const struct ir_cost *cost, struct arena *scratch,
                   struct buf *out) {
    struct writer *w = writer;
    struct json_writer j;
    (void)scratch;
    frame_begin(w, out);
    jw_init(&j, out);
    jw_object(&j);
    jw_key(&j, "candidates");
    jw_array(&j);
    for (uint32_t i = 0; i < w->count; i++) {
        const struct choice *c = &w->choices[i];
        candidate_begin(&j);
        jw_object(&j);
        common_word(&j, "text", ""); /* as the provider's own last chunk: some clients expect parts */
        jw_end_object(&j);
        candidate_middle(&j);
        common_word(&j, "finishReason", finish_word(c->stop, c->bad_call));
        if (c->said.len > 0)
            common_member(&j, "finishMessage", c->said);
        common_count_member(&j, "index", i);
        if (i == 0 && w->source_count > 0) {
            write_sources_begin(&j);
            for (uint32_t k = 0; k < w->source_count; k++)
                write_source(&j, w->sources[k].uri, w->sources[k].title);
            jw_end_array(&j);
            jw_end_object(&j);
        }
        jw_end_object(&j);
    }
    jw_end_array(&j);
    jw_key(&j, "usageMetadata");
    gemini_write_usage(&j, u, cost);
    write_tail(&j, &w->s);
    jw_end_object(&j);
    return frame_end(w, &j, out) && (!w->array || buf_append(out, "]", 1));
}

/* ---- errors ---- */

bool gemini_write_error(const struct ir_fault *f, const struct dialect_brand *brand, struct arena *arena,
                        struct buf *out) {
    struct json_writer j;
    (void)brand;
    jw_init(&j, out);
    jw_object(&j);
    jw_key(&j, "error");
    jw_object(&j);
    common_count_member(&j, "code", (uint64_t)f->status);
    common_member(&j, "message", f->message.ptr ? f->message : SLICE(""));
    common_word(&j, "status", dialect_status_of(f->status)->gemini);
    jw_key(&j, "details");
    jw_array(&j);
    jw_object(&j);
    common_word(&j, "@type", "type.googleapis.com/google.rpc.ErrorInfo");
    common_member(&j, "reason", dialect_code(f));
    common_word(&j, "domain", "tollgate");
    if (f->param.len > 0) {
        jw_key(&j, "metadata");
        jw_object(&j);
        common_member(&j, "param", f->param);
        jw_end_object(&j);
    }
    jw_end_object(&j);
    if (f->status == 429 && f->retry_after_ms > 0) {
        jw_object(&j);
        common_word(&j, "@type", "type.googleapis.com/google.rpc.RetryInfo");
        common_member(&j, "retryDelay",
                      arena_printf(arena, "%llus", (unsigned long long)(f->retry_after_ms + 999) / 1000));
        jw_end_object(&j);
    }
    jw_end_array(&j);
    jw_end_object(&j);
    jw_end_object(&j);
    return !j.failed;
}

/* The comment behind the error stands on no SSE reader's way. Google's SDK for JavaScript before its version 3 takes an
 * error in a stream for an empty chunk, but not a stream that ends within a line for a whole one. */
bool gemini_fail(void *writer, const struct ir_fault *f, const struct dialect_brand *brand, struct arena *scratch,
                 struct buf *out) {
    struct writer *w = writer;
    frame_begin(w, out);
    return gemini_write_error(f, brand, scratch, out) &&
           buf_append_slice(out, w->array ? SLICE("]") : SLICE("\r\n\r\n: failed\r\n"));
}

/* ---- whole ---- */

static void write_block(struct json_writer *j, const struct ir_block *b, struct arena *arena, bool *bad_call) {
    struct slice args;
    switch (b->kind) {
    case IR_BLOCK_TEXT: case IR_BLOCK_REFUSAL:
        jw_object(j);
        common_member(j, "text", b->text);
        jw_end_object(j);
        break;
    case IR_BLOCK_REASONING: write_thought_part(j, b->text, &b->blob, arena); break;
    case IR_BLOCK_CALL:
        if (ir_args_object(arena, b->text, &args))
            write_call_part(j, b->id, b->name, args, &b->blob, arena);
        else
            *bad_call = true;
        break;
    case IR_BLOCK_IMAGE: write_data_part(j, b->media_type, b->text); break;
    }
}

static void write_candidate(struct json_writer *j, const struct ir_answer *a, uint32_t i) {
    const struct ir_choice_answer *c = &a->choices[i];
    bool bad_call = false, sources = false;
    candidate_begin(j);
    for (const struct ir_block *b = c->blocks; b; b = b->next)
        write_block(j, b, a->arena, &bad_call);
    candidate_middle(j);
    common_word(j, "finishReason", finish_word(c->stop, bad_call));
    if (c->stop_text.len > 0)
        common_member(j, "finishMessage", c->stop_text);
    common_count_member(j, "index", i);
    for (const struct ir_block *b = c->blocks; b; b = b->next)
        if (b->logprobs.len > 0) {
            gemini_write_logprobs(j, ir_logprobs(b, a->arena), a->arena);
            break;
        }
    for (const struct ir_block *b = c->blocks; b; b = b->next)
        for (const struct ir_citation *x = b->citations; x; x = x->next) {
            if (!sources)
                write_sources_begin(j);
            sources = true;
            write_source(j, x->url, x->title);
        }
    if (sources) {
        jw_end_array(j);
        jw_end_object(j);
    }
    jw_end_object(j);
}

bool gemini_write_answer(const struct ir_answer *a, const struct dialect_writer_settings *s, const struct ir_usage *u,
                         const struct ir_cost *cost, struct buf *out, struct ir_fault *f) {
    struct json_writer j;
    (void)f;
    jw_init(&j, out);
    jw_object(&j);
    jw_key(&j, "candidates");
    jw_array(&j);
    for (uint32_t i = 0; i < a->count; i++)
        write_candidate(&j, a, i);
    jw_end_array(&j);
    jw_key(&j, "usageMetadata");
    gemini_write_usage(&j, u, cost);
    write_tail(&j, s);
    jw_end_object(&j);
    return !j.failed && !a->arena->overflow;
}
