/* The plan of two dialects: the upstream's events through the neutral form into the client's. */
#include "worker/exchange.h"

enum { HELD_MAX = 16 << 20, OUT_MAX = 128 << 20 };

static const struct dialect *upstream_dialect(const struct exchange *ex) {
    return dialect_find(ex->try.up->dialect == DIALECT_ECHO ? DIALECT_OPENAI : ex->try.up->dialect);
}

static struct dialect_brand brand_of(const struct exchange *ex) {
    const struct snap *s = ex->snapshot->snap;
    return (struct dialect_brand){ .error_code = snap_text(s, s->error_code), .error_detail = s->error_detail,
                                   .request_id = exchange_request_id(ex) };
}

/* Text from which the answer's ids are made. */
static struct slice fresh_id(struct exchange *ex) {
    enum { LENGTH = 24 };
    uint8_t random[4 * LENGTH];
    char *id = arena_alloc(&ex->arena, LENGTH);
    do
        worker_random(ex->worker, random, sizeof random);
    while (id != NULL && !alnum_from_random(id, LENGTH, random, sizeof random));
    return slice_of(id, id != NULL ? LENGTH : 0);
}

static bool translate_begin(struct exchange *ex) {
    const struct snap *s = ex->snapshot->snap;
    struct dialect_reader_settings reading = { .arena = &ex->arena, .pages = &ex->worker->pages, .max_held = HELD_MAX,
                                               .origin = ex->try.up->id, .vendor = snap_text(s, ex->try.up->host) };
    struct dialect_writer_settings writing = { .arena = &ex->arena,
                                               .pages = &ex->worker->pages,
                                               .max_held = HELD_MAX,
                                               .id = fresh_id(ex),
                                               .id_prefix = snap_text(s, s->id_prefix),
                                               .model = slice_of(ex->model_name, ex->model_len),
                                               .now_s = ex->worker->loop.wall_ms / 1000,
                                               .input_estimate = (ex->req.prompt_bytes + 3) / 4,
                                               .request = ex->ir };
    memset(&ex->answer, 0, offsetof(struct pass_answer, ident));
    if (ex->tr_open)
        translate_close(&ex->tr);
    ex->tr_open = translate_open(&ex->tr, exchange_dialect(ex), upstream_dialect(ex), ex->ir, &reading, &writing);
    return ex->tr_open;
}

/* What the meter and the estimate of a broken answer look at. */
static void note(struct exchange *ex) {
    ex->answer.text_bytes = ex->tr.text_bytes;
    ex->answer.usage_seen = ex->tr.usage.seen;
    if (ex->tr.usage.seen) {
        ex->answer.meters = ex->tr.usage.meters;
        ex->answer.tools = ex->tr.usage.tools;
    }
}

/* The upstream has said all: figures, price, the last bytes. */
static enum plan_result finish(struct exchange *ex, struct ir_fault *f) {
    enum dialect_result r = translate_end(&ex->tr, &ex->worker->scratch, &ex->tr_out);
    note(ex);
    if (r != DIALECT_OK && r != DIALECT_DONE) {
        *f = ex->tr.fault;
        return r == DIALECT_ERROR ? PLAN_ERROR : PLAN_BAD;
    }
    struct ir_cost cost;
    if (ex->status == 0)
        ex->status = 200;
    meter_settle(ex, !ex->answer.usage_seen);
    meter_cost(ex, &ex->answer.meters, &cost);
    ex->tr.usage.meters = ex->answer.meters; /* an estimate, where the provider gave nothing */
    ex->tr.usage.seen = true;
    return translate_finish(&ex->tr, &cost, &ex->worker->scratch, &ex->tr_out) ? PLAN_DONE : PLAN_BAD;
}

static enum plan_result result_of(struct exchange *ex, enum dialect_result r, struct ir_fault *f) {
    note(ex);
    switch (r) {
    case DIALECT_OK: return PLAN_OK;
    case DIALECT_DONE: return finish(ex, f);
    case DIALECT_ERROR: *f = ex->tr.fault; return PLAN_ERROR;
    case DIALECT_BAD: case DIALECT_FULL: break;
    }
    return PLAN_BAD;
}

static enum plan_result translate_one(struct exchange *ex, const struct sse_event *ev, struct pieces *out,
                                      struct ir_fault *f) {
    (void)out;
    return result_of(ex, translate_event(&ex->tr, ev, &ex->worker->scratch, &ex->tr_out), f);
}

static enum plan_result translate_ended(struct exchange *ex, struct pieces *out, struct ir_fault *f) {
    (void)out;
    return finish(ex, f);
}

/* Whether the provider said why the answer ended is known to the reader alone: its end tells. */
static bool translate_finished(const struct exchange *ex) { return ex->tr_open; }

static void translate_failed(struct exchange *ex, const struct ir_fault *f, struct pieces *out) {
    struct dialect_brand brand = brand_of(ex);
    (void)out;
    translate_fail(&ex->tr, f, &brand, &ex->worker->scratch, &ex->tr_out);
}

static enum plan_result translate_body(struct exchange *ex, const struct json *j, struct pieces *out,
                                       struct ir_fault *f) {
    arena_reset(&ex->worker->scratch);
    enum plan_result r = result_of(ex, translate_whole(&ex->tr, j, &ex->arena, &ex->tr_out), f);
    if (r == PLAN_OK)
        r = finish(ex, f);
    if (r == PLAN_DONE)
        pieces_add(out, buf_slice(&ex->tr_out));
    return r;
}

static struct slice translate_silent(const struct exchange *ex) { return translate_ping(&ex->tr); }
static const char *translate_type(const struct exchange *ex) {
    return ex->as_array ? "application/json" : exchange_dialect(ex)->content_type;
}

const struct plan plan_translate = {
    .begin = translate_begin,
    .event = translate_one,
    .end = translate_ended,
    .finished = translate_finished,
    .fail = translate_failed,
    .whole = translate_body,
    .ping = translate_silent,
    .content_type = translate_type,
};
