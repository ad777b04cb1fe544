/* Calls of a model beside conversations: embeddings, pictures, counts of tokens. The same way as a conversation's
 * (parse, look, admit, go), with a task module (proto/task) in the place of a pass or a translation.
 *
 * A picture's price depends on its size and quality, so it is found here and held for all pictures asked for; those
 * that came are charged. A count is free: it takes a place among the requests of the minute and nothing else, and where
 * no provider of the client's dialect can be asked, or none answers, it is estimated. */
#include "worker/seal.h"

enum { LIST_MAX = 64 };

static enum ir_dialect upstream_dialect(const struct exchange *ex) {
    return ex->try.up->dialect == DIALECT_ECHO ? IR_OPENAI : (enum ir_dialect)ex->try.up->dialect;
}

/* ---- taking a call ----------------------------------------------------------------------------------------------- */

static bool refused(struct exchange *ex) {
    if (ex->req.fault_code == NULL)
        return false;
    reply_error(ex, 400, ex->req.fault_code, ex->req.fault_param, "%s", ex->req.fault_text);
    return true;
}

static uint32_t words_of(const struct exchange *ex, struct snap_list list, struct slice *out) {
    const struct snap *s = ex->snapshot->snap;
    uint32_t n = 0;
    SNAP_EACH(s, list, struct snap_str, text)
    if (n < LIST_MAX)
        out[n++] = snap_text(s, *text);
    return n;
}

/* What one picture costs, and what the call may make at most. */
static bool price_pictures(struct exchange *ex) {
    const struct snap_model *m = ex->model;
    ex->by_picture = m->image_prices.count > 0;
    if (ex->by_picture &&
        !snap_image_price(ex->snapshot->snap, m, ex->call.size, ex->call.quality, &ex->picture_price)) {
        reply_error(ex, 400, "invalid_value", "size",
                    "Pictures of this size and quality are not available for this model.");
        return false;
    }
    uint64_t most = m->max_output > 0 ? m->max_output : task_image_tokens(ex->call.size, ex->call.quality);
    ex->req.limit = ex->by_picture ? 0 : most * ex->call.n;
    return true;
}

static bool look(struct exchange *ex) {
    struct slice sizes[LIST_MAX], qualities[LIST_MAX];
    struct pass_request *r = &ex->req;
    memset(r, 0, sizeof *r);
    r->n = 1;
    r->has_limit = true; /* of no output at all, but for pictures priced by tokens */
    r->t_model = r->t_limit = r->t_limit2 = r->t_options = r->t_include_usage = -1;
    ex->task->scan(&ex->json, &ex->call, r, &ex->arena);
    if (r->fault_code == NULL)
        passes[ex->dialect]->state(&ex->json, r, &ex->arena);
    if (ex->path_model.len > 0)
        r->model = ex->path_model;
    if (refused(ex) || !auth_refresh(ex) || !admit_model(ex, r->model))
        return false;
    ex->call.model = slice_of(ex->model_name, ex->model_len);
    const struct snap_model *m = ex->model;
    struct task_model known = {
        .sizes = sizes, .qualities = qualities, .n_max = m->n_max, .prompt_max = m->prompt_max
    };
    known.size_count = words_of(ex, m->sizes, sizes);
    known.quality_count = words_of(ex, m->qualities, qualities);
    if (ex->task->check != NULL)
        ex->task->check(&ex->json, &ex->call, &known, r);
    return !refused(ex) && (ex->task != &task_images || price_pictures(ex));
}

void task_run(struct exchange *ex, const struct task_module *task) {
    ex->task = task;
    ex->dialect = ex->endpoint->dialect;
    ex->call.client = (enum ir_dialect)ex->dialect;
    ex->call.now_s = ex->worker->loop.wall_ms / 1000;
    buf_init(&ex->tr_out, &ex->worker->pages, (size_t)128 << 20);
    if (call_parse(ex) && look(ex) && seal_open_all(ex) && admit_call(ex))
        attempt_start(ex);
}

void embeddings_run(struct exchange *ex) { task_run(ex, &task_embeddings); }
void images_run(struct exchange *ex) { task_run(ex, &task_images); }
void count_run(struct exchange *ex) { task_run(ex, &task_count); }

/* ---- an attempt -------------------------------------------------------------------------------------------------- */

/* Who would serve the model: its first route, for a provider that did not answer is meant too. */
static struct task_provider provider_of(struct exchange *ex) {
    const struct snap *s = ex->snapshot->snap;
    const struct snap_route *r = SNAP_AT(s, ex->model->routes, struct snap_route, 0);
    const struct snap_upstream *up = SNAP_AT(s, s->upstreams, struct snap_upstream, r->upstream);
    bool none = up->dialect == DIALECT_ECHO; /* it has no tokens of its own: the client's dialect tells whose */
    return (struct task_provider){ .dialect = none ? ex->call.client : (enum ir_dialect)up->dialect,
                                   .upstream = snap_text(s, up->name),
                                   .host = snap_text(s, up->host),
                                   .path = snap_text(s, up->base_path),
                                   .model = attempt_model(ex, r),
                                   .alias = ex->call.model };
}

bool task_guess(struct exchange *ex) {
    struct buf b;
    if (ex->task != &task_count || ex->conn == NULL)
        return false;
    ex->status = 200;
    meter_release(ex);
    buf_init(&b, &ex->worker->pages, PAGE_BYTES);
    struct task_provider provider = provider_of(ex);
    task_write_count(ex->call.client, task_estimate(&ex->json, ex->call.client, &provider), &b);
    reply_json(ex, 200, buf_slice(&b));
    buf_release(&b);
    return true;
}

/* The provider's own ids in the place of the sealed ones. */
static bool unseal(struct exchange *ex, struct task_target *t) {
    struct splice *s = arena_alloc(&ex->arena, (ex->req.sealed_count + 1) * sizeof *s);
    if (s == NULL)
        return false;
    for (uint32_t i = 0; i < ex->req.sealed_count; i++)
        if (ex->plain[i].ptr != NULL)
            s[t->unsealed_count++] = pass_string(&ex->json, ex->req.sealed[i].value, ex->plain[i], &ex->arena);
    t->unsealed = s;
    return !ex->arena.overflow;
}

enum task_go task_build(struct exchange *ex, struct ir_fault *f) {
    struct slice strip[LIST_MAX];
    struct task_target t = { .dialect = upstream_dialect(ex),
                             .model = ex->target_model,
                             .strip = strip,
                             .strip_count = words_of(ex, ex->model->strip, strip) };
    struct ir_dropped dropped = { 0 };
    struct buf path, body;
    if (!unseal(ex, &t))
        return TASK_REFUSED;
    ex->plan = &plan_task;
    if (ex->task == &task_count && t.dialect != ex->call.client)
        return task_guess(ex) ? TASK_ANSWERED : TASK_REFUSED;
    buf_init(&path, &ex->worker->pages, PAGE_BYTES);
    buf_init(&body, &ex->worker->pages, (size_t)ex->snapshot->snap->max_body * 2 + PAGE_BYTES);
    bool ok = ex->task->build(&ex->json, &ex->call, &t, &dropped, &ex->arena, &path, &body, f);
    ex->body_out = (struct body_pieces){ arena_alloc(&ex->arena, sizeof(struct slice)), 1, body.len };
    if (ok && ex->body_out.at != NULL) {
        ex->task_path = arena_copy(&ex->arena, buf_slice(&path));
        ex->body_out.at[0] = arena_copy(&ex->arena, buf_slice(&body));
        for (uint32_t i = 0; i < dropped.count; i++)
            reply_dropped(ex, dropped.names[i]);
    }
    buf_release(&path);
    buf_release(&body);
    return ok && !ex->arena.overflow ? TASK_GO : TASK_REFUSED;
}

void task_echo(struct exchange *ex, const struct json *j) {
    struct buf out;
    buf_init(&out, &ex->worker->pages, 64 << 20);
    if (ex->task->echo != NULL && ex->task->echo(j, &ex->call, &ex->arena, &out)) {
        ex->first_byte_ns = ex->worker->loop.now_ns;
        relay_body(ex, buf_slice(&out));
    } else {
        ex->status = 500;
        meter_release(ex);
        reply_error(ex, 500, "internal", NULL, "The answer could not be prepared.");
    }
    buf_release(&out);
}

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

static bool begin(struct exchange *ex) {
    memset(&ex->answer, 0, offsetof(struct pass_answer, ident));
    buf_release(&ex->tr_out);
    return true;
}

static void settle(struct exchange *ex, const struct task_figures *fig) {
    struct meters *m = &ex->answer.meters;
    *m = fig->meters;
    if (ex->task == &task_count) {
        meter_release(ex);
        return;
    }
    if (ex->by_picture && !fig->seen) /* pictures are counted, not guessed: nothing here is an estimate */
        *m = (struct meters){ .n[METER_IMAGES] = m->n[METER_IMAGES] };
    ex->answer.usage_seen = fig->seen || ex->by_picture;
    meter_settle(ex, !ex->answer.usage_seen);
}

static enum plan_result whole(struct exchange *ex, const struct json *j, struct pieces *out, struct ir_fault *f) {
    struct task_figures fig = { 0 };
    struct ir_cost cost;
    enum ir_dialect from = upstream_dialect(ex);
    switch (ex->task->read(j, &ex->call, from, &ex->arena, &fig, f)) {
    case TASK_OK: break;
    case TASK_ERROR: return PLAN_ERROR;
    case TASK_BAD: return PLAN_BAD;
    }
    settle(ex, &fig);
    meter_cost(ex, &ex->answer.meters, &cost);
    if (!ex->task->write(j, &ex->call, from, &fig, &cost, &ex->arena, &ex->tr_out))
        return PLAN_BAD;
    pieces_add(out, buf_slice(&ex->tr_out));
    return PLAN_DONE;
}

/* A task's answer is never a stream: one that comes as events is not what was asked for. */
static enum plan_result no_event(struct exchange *ex, const struct sse_event *ev, struct pieces *out,
                                 struct ir_fault *f) {
    (void)ex, (void)ev, (void)out, (void)f;
    return PLAN_BAD;
}
static enum plan_result no_end(struct exchange *ex, struct pieces *out, struct ir_fault *f) {
    (void)ex, (void)out, (void)f;
    return PLAN_BAD;
}
static bool never_finished(const struct exchange *ex) { return ex == NULL; }
static void no_fail(struct exchange *ex, const struct ir_fault *f, struct pieces *out) { (void)ex, (void)f, (void)out; }
static struct slice no_ping(const struct exchange *ex) {
    (void)ex;
    return SLICE("");
}
static const char *json_type(const struct exchange *ex) {
    (void)ex;
    return "application/json";
}

const struct plan plan_task = {
    .begin = begin,
    .event = no_event,
    .end = no_end,
    .finished = never_finished,
    .fail = no_fail,
    .whole = whole,
    .ping = no_ping,
    .content_type = json_type,
};
