/* Writes answers of Chat Completions: chunks as events come, and whole bodies from a folded answer.
 *
 * The finish chunk of each choice waits for the end, because the last one may bear the usage: where the client asked
 * for include_usage it stands in a chunk of its own with no choices, else on the last chunk that has a finish_reason.
 * Nothing else waits. Reasoning goes out as reasoning_content; what a provider wants back goes in reasoning_details
 * (OpenRouter's form) and in a call's extra_content.google.thought_signature (Google's own form), as carriers that
 * clients return untouched. */
#include "proto/dialect/openai.h"

struct choice { enum ir_stop stop; bool begun, finished; uint32_t calls, blocks; size_t characters; /* of content */ };

struct writer {
    struct dialect_writer_settings s;
    struct choice *choices; /* as many as the request asked for */
    uint32_t count;
    int64_t created_s;
};

void *openai_writer(const struct dialect_writer_settings *s) {
    struct writer *w = arena_zalloc(s->arena, sizeof *w);
    if (!w)
        return NULL;
    w->s = *s;
    w->created_s = s->now_s;
    w->count = s->request && s->request->n > 1 && s->request->n <= IR_CHOICES_MAX ? (uint32_t)s->request->n : 1;
    w->choices = arena_zalloc(s->arena, w->count * sizeof *w->choices);
    return w->choices ? w : NULL;
}

static const char *finish_word(enum ir_stop stop) {
    switch (stop) {
    case IR_STOP_LIMIT: case IR_STOP_CONTEXT: return "length";
    case IR_STOP_TOOLS: return "tool_calls";
    case IR_STOP_FILTER: case IR_STOP_REFUSAL: return "content_filter";
    default: return "stop";
    }
}

static void write_id(struct json_writer *j, const struct dialect_writer_settings *s) {
    jw_key(j, "id");
    jw_str_begin(j);
    jw_str_part(j, s->id_prefix.len > 0 ? s->id_prefix : SLICE("chatcmpl-"));
    jw_str_part(j, s->id);
    jw_str_end(j);
}

void openai_write_usage(struct json_writer *j, const struct meters *m, const struct ir_cost *cost) {
    const uint64_t *n = m->n;
    uint64_t in = meters_input(m), out = meters_output(m), writes = n[METER_CACHE_WRITE] + n[METER_CACHE_WRITE_1H];
    jw_object(j);
    common_count_member(j, "prompt_tokens", in);
    common_count_member(j, "completion_tokens", out);
    common_count_member(j, "total_tokens", in + out);
    jw_key(j, "prompt_tokens_details");
    jw_object(j);
    common_count_member(j, "cached_tokens", n[METER_CACHED_INPUT]);
    if (writes > 0)
        common_count_member(j, "cache_write_tokens", writes);
    common_count_member(j, "audio_tokens", n[METER_AUDIO_INPUT]);
    jw_end_object(j);
    jw_key(j, "completion_tokens_details");
    jw_object(j);
    common_count_member(j, "reasoning_tokens", n[METER_REASONING]);
    common_count_member(j, "audio_tokens", n[METER_AUDIO_OUTPUT]);
    jw_end_object(j);
    ir_write_cost(j, cost, false);
    jw_end_object(j);
}

static void write_usage(struct json_writer *j, const struct ir_usage *u, const struct ir_cost *cost) {
    jw_key(j, "usage");
    openai_write_usage(j, &u->meters, cost);
}

/* ---- chunks ---- */

static void chunk_head(struct json_writer *j, const struct writer *w, struct buf *out) {
    common_event_begin(out, NULL);
    jw_init(j, out);
    jw_object(j);
    write_id(j, &w->s);
    common_word(j, "object", "chat.completion.chunk");
    jw_key(j, "created");
    jw_i64(j, w->created_s);
    common_member(j, "model", w->s.model);
    jw_key(j, "choices");
    jw_array(j);
}

static void chunk_begin(struct json_writer *j, struct writer *w, uint32_t choice, struct buf *out) {
    chunk_head(j, w, out);
    jw_object(j);
    common_count_member(j, "index", choice);
    jw_key(j, "delta");
    jw_object(j);
    if (!w->choices[choice].begun) {
        w->choices[choice].begun = true;
        common_word(j, "role", "assistant");
    }
}

/* `logprobs` of a choice; list empty: none. */
static void write_logprobs(struct json_writer *j, struct slice list) {
    jw_key(j, "logprobs");
    if (list.len == 0) {
        jw_null(j);
        return;
    }
    jw_object(j);
    jw_key(j, "content");
    jw_raw(j, list);
    jw_key(j, "refusal");
    jw_null(j);
    jw_end_object(j);
}

static bool chunk_end(struct json_writer *j, const struct writer *w, struct slice logprobs, struct buf *out) {
    jw_end_object(j);
    write_logprobs(j, logprobs);
    jw_key(j, "finish_reason");
    jw_null(j);
    jw_end_object(j);
    jw_end_array(j);
    if (w->s.request && w->s.request->wants_usage) {
        jw_key(j, "usage");
        jw_null(j);
    }
    jw_end_object(j);
    return common_event_end(out, j);
}

static void write_detail(struct json_writer *j, struct arena *arena, const struct ir_blob *blob, bool text,
                         struct slice said, uint32_t index) {
    jw_object(j);
    common_word(j, "type", text ? "reasoning.text" : "reasoning.encrypted");
    if (text)
        common_member(j, "text", said.ptr ? said : SLICE(""));
    if (blob && blob->kind != IR_BLOB_NONE)
        common_member(j, text ? "signature" : "data", ir_carrier(arena, blob));
    common_count_member(j, "index", index);
    jw_end_object(j);
}

static void write_call_head(struct json_writer *j, struct arena *arena, struct slice id, struct slice name, bool custom,
                            const struct ir_blob *blob, struct slice args) {
    common_member(j, "id", id);
    common_word(j, "type", custom ? "custom" : "function");
    if (blob->kind != IR_BLOB_NONE) {
        jw_key(j, "extra_content");
        jw_object(j);
        jw_key(j, "google");
        jw_object(j);
        common_member(j, "thought_signature", ir_carrier(arena, blob));
        jw_end_object(j);
        jw_end_object(j);
    }
    jw_key(j, custom ? "custom" : "function");
    jw_object(j);
    common_member(j, "name", name);
    common_member(j, custom ? "input" : "arguments", args);
    jw_end_object(j);
}

static void write_citation(struct json_writer *j, struct slice url, struct slice title, size_t start, size_t end) {
    jw_object(j);
    common_word(j, "type", "url_citation");
    jw_key(j, "url_citation");
    jw_object(j);
    common_member(j, "url", url);
    common_member(j, "title", title.ptr ? title : SLICE(""));
    common_count_member(j, "start_index", start);
    common_count_member(j, "end_index", end);
    jw_end_object(j);
    jw_end_object(j);
}

static void write_image(struct json_writer *j, struct slice type, struct slice data) {
    const struct ir_part p = { .media_type = type, .data = data };
    jw_object(j);
    common_word(j, "type", "image_url");
    jw_key(j, "image_url");
    jw_object(j);
    common_data_url(j, "url", &p);
    jw_end_object(j);
    jw_end_object(j);
}

/* One of the list members of a delta, with what is inside it. */
static void write_listed(struct json_writer *j, const struct ir_event *ev, struct choice *c, struct arena *scratch) {
    bool calls = ev->kind == IR_EV_CALL || ev->kind == IR_EV_ARGS;
    jw_key(j, calls                        ? "tool_calls"
              : ev->kind == IR_EV_CITATION ? "annotations"
              : ev->kind == IR_EV_IMAGE    ? "images"
                                           : "reasoning_details");
    jw_array(j);
    if (calls) {
        jw_object(j);
        common_count_member(j, "index", ev->kind == IR_EV_CALL ? c->calls++ : c->calls - 1);
        if (ev->kind == IR_EV_CALL)
            write_call_head(j, scratch, ev->id, ev->name, ev->custom, &ev->blob, SLICE(""));
        else {
            jw_key(j, ev->custom ? "custom" : "function");
            jw_object(j);
            common_member(j, ev->custom ? "input" : "arguments", ev->text);
            jw_end_object(j);
        }
        jw_end_object(j);
    } else if (ev->kind == IR_EV_CITATION)
        write_citation(j, ev->id, ev->name, 0, c->characters);
    else if (ev->kind == IR_EV_IMAGE)
        write_image(j, ev->media_type, ev->data);
    else
        write_detail(j, scratch, &ev->blob, ev->bound, ev->text, c->blocks);
    jw_end_array(j);
}

bool openai_put(void *writer, const struct ir_event *ev, struct arena *scratch, struct buf *out) {
    struct writer *w = writer;
    struct json_writer j;
    if (ev->choice >= w->count)
        return true;
    struct choice *c = &w->choices[ev->choice];
    bool signs = ev->kind == IR_EV_REASONING_END && ev->blob.kind != IR_BLOB_NONE &&
                 (ev->blob.data.len > 0 || ev->bound);
    switch (ev->kind) {
    case IR_EV_START:
        if (ev->created_s > 0)
            w->created_s = ev->created_s;
        chunk_begin(&j, w, ev->choice, out);
        common_member(&j, "content", SLICE(""));
        return chunk_end(&j, w, SLICE_NONE, out);
    case IR_EV_TEXT: case IR_EV_REFUSAL: case IR_EV_REASONING:
        for (size_t i = 0; i < ev->text.len && ev->kind == IR_EV_TEXT; i++)
            c->characters += ((unsigned char)ev->text.ptr[i] & 0xc0) != 0x80;
        chunk_begin(&j, w, ev->choice, out);
        common_member(&j,
                      ev->kind == IR_EV_TEXT      ? "content"
                      : ev->kind == IR_EV_REFUSAL ? "refusal"
                                                  : "reasoning_content",
                      ev->text);
        if (ev->bound)
            write_listed(&j, ev, c, scratch);
        return chunk_end(&j, w, SLICE_NONE, out);
    case IR_EV_REASONING_END:
        if (!signs)
            return true;
        chunk_begin(&j, w, ev->choice, out);
        write_listed(&j, ev, c, scratch);
        c->blocks++;
        return chunk_end(&j, w, SLICE_NONE, out);
    case IR_EV_CALL: case IR_EV_ARGS: case IR_EV_IMAGE: case IR_EV_CITATION:
        if (ev->kind == IR_EV_ARGS && c->calls == 0)
            return true;
        chunk_begin(&j, w, ev->choice, out);
        write_listed(&j, ev, c, scratch);
        return chunk_end(&j, w, SLICE_NONE, out);
    case IR_EV_LOGPROBS:
        chunk_begin(&j, w, ev->choice, out);
        return chunk_end(&j, w, ev->text, out);
    case IR_EV_FINISH:
        c->finished = true;
        c->stop = ev->stop;
        return true;
    default: return true;
    }
}

bool openai_finish(void *writer, const struct ir_usage *u, const struct ir_cost *cost, struct arena *scratch,
                   struct buf *out) {
    struct writer *w = writer;
    struct json_writer j;
    bool asked = w->s.request && w->s.request->wants_usage, ok = true;
    (void)scratch;
    for (uint32_t i = 0; i < w->count; i++) {
        if (!w->choices[i].begun && i > 0)
            continue;
        bool last = true;
        for (uint32_t k = i + 1; k < w->count; k++)
            last = last && !w->choices[k].begun;
        chunk_begin(&j, w, i, out);
        jw_end_object(&j);
        jw_key(&j, "logprobs");
        jw_null(&j);
        common_word(&j, "finish_reason", finish_word(w->choices[i].stop));
        jw_end_object(&j);
        jw_end_array(&j);
        if (last && !asked)
            write_usage(&j, u, cost);
        else if (asked) {
            jw_key(&j, "usage");
            jw_null(&j);
        }
        jw_end_object(&j);
        ok = common_event_end(out, &j) && ok;
    }
    if (asked) {
        chunk_head(&j, w, out);
        jw_end_array(&j);
        write_usage(&j, u, cost);
        jw_end_object(&j);
        ok = common_event_end(out, &j) && ok;
    }
    return buf_append(out, "data: [DONE]\n\n", 14) && ok;
}

bool openai_fail(void *writer, const struct ir_fault *f, const struct dialect_brand *brand, struct arena *scratch,
                 struct buf *out) {
    (void)writer;
    common_event_begin(out, NULL);
    return dialect_write_openai_error(f, brand, scratch, out) && buf_append(out, "\n\n", 2);
}

/* ---- whole ---- */

static struct slice joined(const struct ir_block *blocks, enum ir_block_kind kind, struct arena *arena) {
    size_t n = 0, count = 0;
    struct slice only = SLICE_NONE;
    for (const struct ir_block *b = blocks; b; b = b->next)
        if (b->kind == kind && b->text.len > 0) {
            only = b->text;
            n += b->text.len;
            count++;
        }
    char *at = count > 1 ? arena_alloc(arena, n) : NULL, *to = at;
    for (const struct ir_block *b = blocks; b && at; b = b->next)
        if (b->kind == kind && b->text.len > 0) {
            memcpy(to, b->text.ptr, b->text.len);
            to += b->text.len;
        }
    return at ? slice_of(at, n) : only;
}

/* The list that a message has of one kind of block; nothing where there is none. */
static void write_blocks(struct json_writer *j, const struct ir_block *blocks, enum ir_block_kind kind,
                         struct arena *arena) {
    static const char *const names[] = { "annotations", "", "reasoning_details", "tool_calls", "images" };
    uint32_t index = 0;
    for (const struct ir_block *b = blocks; b; b = b->next) {
        if (b->kind != kind || (kind == IR_BLOCK_TEXT && !b->citations) ||
            (kind == IR_BLOCK_REASONING && b->blob.data.len == 0))
            continue;
        if (index++ == 0) {
            jw_key(j, names[kind]);
            jw_array(j);
        }
        if (kind == IR_BLOCK_TEXT) {
            for (const struct ir_citation *x = b->citations; x; x = x->next)
                write_citation(j, x->url, x->title, x->start, x->end);
        } else if (kind == IR_BLOCK_REASONING)
            write_detail(j, arena, &b->blob, b->bound, b->text, index - 1);
        else if (kind == IR_BLOCK_IMAGE)
            write_image(j, b->media_type, b->text);
        else {
            jw_object(j);
            write_call_head(j, arena, b->id, b->name, b->custom, &b->blob, b->text);
            jw_end_object(j);
        }
    }
    if (index > 0)
        jw_end_array(j);
}

static void write_choice(struct json_writer *j, const struct ir_answer *a, uint32_t i) {
    const struct ir_choice_answer *c = &a->choices[i];
    struct slice text = joined(c->blocks, IR_BLOCK_TEXT, a->arena),
                 reasoning = joined(c->blocks, IR_BLOCK_REASONING, a->arena);
    struct slice refusal = joined(c->blocks, IR_BLOCK_REFUSAL, a->arena);
    if (c->stop == IR_STOP_REFUSAL && refusal.len == 0)
        refusal = c->stop_text;
    bool calls = false;
    struct slice logprobs = SLICE_NONE;
    for (const struct ir_block *b = c->blocks; b; b = b->next) {
        calls = calls || b->kind == IR_BLOCK_CALL;
        if (b->logprobs.len > 0 && logprobs.len == 0)
            logprobs = ir_logprobs(b, a->arena);
    }
    jw_object(j);
    common_count_member(j, "index", i);
    jw_key(j, "message");
    jw_object(j);
    common_word(j, "role", "assistant");
    jw_key(j, "content");
    jw_str(j, text.ptr || calls || refusal.len > 0 ? text : SLICE(""));
    jw_key(j, "refusal");
    jw_str(j, refusal.len > 0 ? refusal : SLICE_NONE);
    if (reasoning.ptr)
        common_member(j, "reasoning_content", reasoning);
    write_blocks(j, c->blocks, IR_BLOCK_REASONING, a->arena);
    write_blocks(j, c->blocks, IR_BLOCK_CALL, a->arena);
    write_blocks(j, c->blocks, IR_BLOCK_TEXT, a->arena);
    write_blocks(j, c->blocks, IR_BLOCK_IMAGE, a->arena);
    jw_end_object(j);
    write_logprobs(j, logprobs);
    common_word(j, "finish_reason", finish_word(c->stop));
    jw_end_object(j);
}

bool openai_write_answer(const struct ir_answer *a, const struct dialect_writer_settings *s, const struct ir_usage *u,
                         const struct ir_cost *cost, struct buf *out, struct ir_fault *f) {
    struct json_writer j;
    (void)f;
    jw_init(&j, out);
    jw_object(&j);
    write_id(&j, s);
    common_word(&j, "object", "chat.completion");
    jw_key(&j, "created");
    jw_i64(&j, a->created_s > 0 ? a->created_s : s->now_s);
    common_member(&j, "model", s->model);
    jw_key(&j, "choices");
    jw_array(&j);
    for (uint32_t i = 0; i < a->count; i++)
        write_choice(&j, a, i);
    jw_end_array(&j);
    write_usage(&j, u, cost);
    jw_end_object(&j);
    return !j.failed && !a->arena->overflow;
}
