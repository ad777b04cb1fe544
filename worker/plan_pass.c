/* The plan of the same dialect on both sides: bytes as they came, tapped for figures. */
#include "worker/seal.h"

/* The figures are final: price and settle before the bytes that show them go out. */
static void on_usage(void *arg, struct pass_answer *a, struct ir_cost *cost) {
    struct exchange *ex = arg;
    if (ex->status == 0)
        ex->status = 200;
    meter_settle(ex, !a->usage_seen);
    meter_cost(ex, &a->meters, cost);
}

static bool pass_begin(struct exchange *ex) {
    struct pass_answer *a = &ex->answer;
    memset(a, 0, offsetof(struct pass_answer, ident));
    a->ident_len = 0;
    a->alike.in = 0;
    a->id_prefix = snap_text(ex->snapshot->snap, ex->snapshot->snap->id_prefix);
    a->wants_usage = ex->req.wants_usage;
    a->as_array = ex->as_array;
    a->seal = seal_id;
    a->arg = ex;
    a->on_usage = on_usage;
    a->held = &ex->held;
    return true;
}

/* The tap's fault in the words of all faults. */
static enum plan_result fault_of(const struct exchange *ex, const struct pass_fault *p, struct ir_fault *f) {
    bool client =
        p->status == 400 || p->status == 413 || p->status == 422 || slice_is(p->type, "invalid_request_error");
    bool rate = p->status == 429 || slice_starts(p->type, SLICE("rate_limit"));
    (void)ex;
    *f = (struct ir_fault){ .status = client ? (p->status ? p->status : 400)
                                      : rate ? 429
                                             : 502,
                            .code = p->code,
                            .param = p->param,
                            .message = p->message,
                            .blame = client ? IR_BLAME_CLIENT
                                     : rate ? IR_BLAME_RATE
                                            : IR_BLAME_UPSTREAM };
    return PLAN_ERROR;
}

static enum plan_result pass_event(struct exchange *ex, const struct sse_event *ev, struct pieces *out,
                                   struct ir_fault *f) {
    struct pass_fault p = { 0 };
    switch (ex->pass->event(&ex->answer, ev, &ex->worker->scratch, out, &p)) {
    case PASS_OK: return ex->answer.done ? PLAN_DONE : PLAN_OK;
    case PASS_ERROR: return fault_of(ex, &p, f);
    case PASS_BAD: break;
    }
    return PLAN_BAD;
}

static enum plan_result pass_end(struct exchange *ex, struct pieces *out, struct ir_fault *f) {
    (void)f;
    return ex->pass->end(&ex->answer, &ex->worker->scratch, out) == PASS_OK ? PLAN_DONE : PLAN_BAD;
}

static bool pass_finished(const struct exchange *ex) { return ex->answer.finished; }

static void pass_fail(struct exchange *ex, const struct ir_fault *f, struct pieces *out) {
    struct arena *arena = &ex->worker->scratch;
    struct slice code = arena_copy(arena, f->code);
    struct reply_fault r = { .status = f->status, .code = code.ptr, .message = f->message };
    ex->pass->fail(&ex->answer, f->status, code.ptr, f->message, reply_error_body(ex, &r, arena), arena, out);
}

static enum plan_result pass_whole(struct exchange *ex, const struct json *j, struct pieces *out, struct ir_fault *f) {
    struct pass_fault p = { 0 };
    if (ex->req.stream)
        return PLAN_BAD; /* a stream was asked for */
    switch (ex->pass->whole(&ex->answer, j, &ex->arena, out, &p)) {
    case PASS_OK: return PLAN_DONE;
    case PASS_ERROR: return fault_of(ex, &p, f);
    case PASS_BAD: break;
    }
    return PLAN_BAD;
}

static struct slice pass_ping(const struct exchange *ex) { return ex->pass->ping(&ex->answer); }
static const char *pass_content_type(const struct exchange *ex) { return ex->pass->content_type(&ex->answer); }

const struct plan plan_pass = {
    .begin = pass_begin,
    .event = pass_event,
    .end = pass_end,
    .finished = pass_finished,
    .fail = pass_fail,
    .whole = pass_whole,
    .ping = pass_ping,
    .content_type = pass_content_type,
};
