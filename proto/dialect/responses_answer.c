/* Writes answers of the Responses API: numbered events with every .added and .done, and whole objects.
 *
 * The grammar repeats each item whole when it is done and all of them in the terminal event, so the answer is folded
 * while it streams: the memory of such a stream is its text, bounded by the exchange's arena. There is always one
 * terminal event. */
#include "proto/dialect/responses.h"

struct writer {
    struct dialect_writer_settings s;
    struct ir_answer answer;
    struct ir_block *open; /* the block whose item is open */
    uint32_t index;        /* of the open item, or of the next */
    bool part;             /* its part was added */
    uint64_t sequence;
};

void *responses_writer(const struct dialect_writer_settings *s) {
    struct writer *w = arena_zalloc(s->arena, sizeof *w);
    if (!w)
        return NULL;
    w->s = *s;
    ir_fold_init(&w->answer, s->arena, true);
    return w;
}

static void begin(struct writer *w, struct json_writer *j, struct buf *out, const char *type) {
    common_event_begin(out, type);
    jw_init(j, out);
    jw_object(j);
    common_word(j, "type", type);
    common_count_member(j, "sequence_number", w->sequence++);
}

static bool end(struct json_writer *j, struct buf *out) {
    jw_end_object(j);
    return common_event_end(out, j);
}

/* An event about the open item: its id and places. */
static void begin_in_item(struct writer *w, struct json_writer *j, struct buf *out, const char *type) {
    begin(w, j, out, type);
    responses_write_item_id(j, "item_id", &w->s, w->open, w->index);
    common_count_member(j, "output_index", w->index);
    if (w->open->kind == IR_BLOCK_TEXT || w->open->kind == IR_BLOCK_REFUSAL)
        common_count_member(j, "content_index", 0);
    else if (w->open->kind == IR_BLOCK_REASONING)
        common_count_member(j, "summary_index", 0);
}

/* The names of the events of each kind of block. */
static const struct names { const char *part_added, *delta, *done, *part_done; } names[] = {
    [IR_BLOCK_TEXT] = { "response.content_part.added", "response.output_text.delta", "response.output_text.done",
                        "response.content_part.done" },
    [IR_BLOCK_REFUSAL] = { "response.content_part.added", "response.refusal.delta", "response.refusal.done",
                           "response.content_part.done" },
    [IR_BLOCK_REASONING] = { "response.reasoning_summary_part.added", "response.reasoning_summary_text.delta",
                             "response.reasoning_summary_text.done", "response.reasoning_summary_part.done" },
    [IR_BLOCK_CALL] = { NULL, "response.function_call_arguments.delta", "response.function_call_arguments.done", NULL },
    [IR_BLOCK_IMAGE] = { NULL, NULL, NULL, NULL },
};

static bool write_item_event(struct writer *w, struct buf *out, const char *type, bool done, struct arena *scratch) {
    struct json_writer j;
    begin(w, &j, out, type);
    common_count_member(&j, "output_index", w->index);
    jw_key(&j, "item");
    responses_write_item(&j, &w->s, w->open, w->index, done, scratch);
    return end(&j, out);
}

static bool write_part_event(struct writer *w, struct buf *out, const char *type, bool done, struct arena *scratch) {
    struct json_writer j;
    begin_in_item(w, &j, out, type);
    jw_key(&j, "part");
    responses_write_part(&j, w->open, done, scratch);
    return end(&j, out);
}

static bool write_done(struct writer *w, struct arena *scratch, struct buf *out) {
    const struct ir_block *b = w->open;
    bool custom = b->kind == IR_BLOCK_CALL && b->custom;
    struct json_writer j;
    begin_in_item(w, &j, out, custom ? "response.custom_tool_call_input.done" : names[b->kind].done);
    if (b->kind == IR_BLOCK_CALL && !custom)
        responses_write_name(&j, b->name);
    common_member(&j,
                  custom                        ? "input"
                  : b->kind == IR_BLOCK_CALL    ? "arguments"
                  : b->kind == IR_BLOCK_REFUSAL ? "refusal"
                                                : "text",
                  b->kind == IR_BLOCK_CALL && !custom && b->text.len == 0 ? SLICE("{}") : b->text);
    if (b->kind == IR_BLOCK_TEXT)
        responses_write_logprobs(&j, ir_logprobs(b, scratch));
    return end(&j, out);
}

static bool close_item(struct writer *w, struct arena *scratch, struct buf *out) {
    struct ir_block *b = w->open;
    if (!b)
        return true;
    bool ok = true;
    if (b->kind == IR_BLOCK_CALL)
        ok = write_done(w, scratch, out);
    else if (w->part)
        ok = write_done(w, scratch, out) && write_part_event(w, out, names[b->kind].part_done, true, scratch);
    ok = ok && write_item_event(w, out, "response.output_item.done", true, scratch);
    b->closed = true;
    w->open = NULL;
    w->part = false;
    w->index++;
    return ok;
}

static bool write_delta(struct writer *w, const struct ir_event *ev, struct arena *scratch, struct buf *out) {
    struct ir_block *b = w->open;
    bool custom = b->kind == IR_BLOCK_CALL && b->custom;
    struct json_writer j;
    if (!w->part && names[b->kind].part_added) {
        w->part = true;
        if (!write_part_event(w, out, names[b->kind].part_added, false, scratch))
            return false;
    }
    begin_in_item(w, &j, out, custom ? "response.custom_tool_call_input.delta" : names[b->kind].delta);
    common_member(&j, "delta", ev->kind == IR_EV_LOGPROBS ? SLICE("") : ev->text);
    if (b->kind == IR_BLOCK_TEXT)
        responses_write_logprobs(&j, ev->kind == IR_EV_LOGPROBS ? ev->text : SLICE_NONE);
    return end(&j, out);
}

static bool write_citation(struct writer *w, struct buf *out) {
    struct ir_citation *c = w->open->citations;
    uint32_t n = 0;
    struct json_writer j;
    for (; c && c->next; c = c->next)
        n++;
    if (!c)
        return true;
    begin_in_item(w, &j, out, "response.output_text.annotation.added");
    common_count_member(&j, "annotation_index", n);
    jw_key(&j, "annotation");
    responses_write_annotation(&j, c);
    return end(&j, out);
}

static bool write_response(struct writer *w, struct buf *out, const char *type, enum responses_status status,
                           const struct ir_usage *u, const struct ir_cost *cost, const struct ir_fault *f,
                           struct arena *scratch) {
    const struct responses_object o = { &w->s, &w->answer, status, u, cost, f };
    struct json_writer j;
    begin(w, &j, out, type);
    jw_key(&j, "response");
    responses_write_object(&j, &o, scratch);
    return end(&j, out);
}

bool responses_put(void *writer, const struct ir_event *ev, struct arena *scratch, struct buf *out) {
    struct writer *w = writer;
    bool about_text = ev->kind == IR_EV_CITATION || ev->kind == IR_EV_LOGPROBS;
    if (about_text && (!w->open || w->open->kind != IR_BLOCK_TEXT))
        return true; /* the item that it is about went out */
    if (!ir_fold(&w->answer, ev))
        return false;
    if (ev->kind == IR_EV_START)
        return write_response(w, out, "response.created", RESPONSES_IN_PROGRESS, NULL, NULL, NULL, scratch) &&
               write_response(w, out, "response.in_progress", RESPONSES_IN_PROGRESS, NULL, NULL, NULL, scratch);
    struct ir_block *last = w->answer.count > 0 ? w->answer.choices[0].last : NULL;
    if (last && last != w->open &&
        !(ev->kind == IR_EV_FINISH || ev->kind == IR_EV_CALL_END || ev->kind == IR_EV_CITATION ||
          ev->kind == IR_EV_LOGPROBS)) {
        if (last->closed && ev->kind != IR_EV_REASONING_END && ev->kind != IR_EV_IMAGE)
            return true;
        if (ev->kind == IR_EV_REASONING_END && ev->blob.kind == IR_BLOB_NONE)
            return true;
        if (!close_item(w, scratch, out))
            return false;
        w->open = last;
        if (!write_item_event(w, out, "response.output_item.added", false, scratch))
            return false;
    }
    if (!w->open)
        return true;
    switch (ev->kind) {
    case IR_EV_TEXT: case IR_EV_REFUSAL: case IR_EV_REASONING: case IR_EV_ARGS: return write_delta(w, ev, scratch, out);
    case IR_EV_CITATION: return w->open->kind != IR_BLOCK_TEXT || write_citation(w, out);
    case IR_EV_LOGPROBS: return w->open->kind != IR_BLOCK_TEXT || write_delta(w, ev, scratch, out);
    case IR_EV_REASONING_END:
    case IR_EV_CALL_END:
    case IR_EV_IMAGE:
    case IR_EV_FINISH: return close_item(w, scratch, out);
    default: return true;
    }
}

bool responses_finish(void *writer, const struct ir_usage *u, const struct ir_cost *cost, struct arena *scratch,
                      struct buf *out) {
    struct writer *w = writer;
    enum ir_stop stop = w->answer.count > 0 ? w->answer.choices[0].stop : IR_STOP_UNKNOWN;
    bool cut = stop == IR_STOP_LIMIT || stop == IR_STOP_CONTEXT || stop == IR_STOP_FILTER || stop == IR_STOP_REFUSAL;
    return close_item(w, scratch, out) && write_response(w, out, cut ? "response.incomplete" : "response.completed",
                                                         RESPONSES_ENDED, u, cost, NULL, scratch);
}

bool responses_fail(void *writer, const struct ir_fault *f, const struct dialect_brand *brand, struct arena *scratch,
                    struct buf *out) {
    (void)brand;
    return write_response(writer, out, "response.failed", RESPONSES_FAILED, NULL, NULL, f, scratch);
}

bool responses_write_answer(const struct ir_answer *a, const struct dialect_writer_settings *s,
                            const struct ir_usage *u, const struct ir_cost *cost, struct buf *out, struct ir_fault *f) {
    const struct responses_object o = { s, a, RESPONSES_ENDED, u, cost, NULL };
    struct json_writer j;
    (void)f;
    jw_init(&j, out);
    responses_write_object(&j, &o, a->arena);
    return !j.failed && !a->arena->overflow;
}
