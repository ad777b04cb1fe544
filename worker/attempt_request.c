/* What an attempt sends: a head of our own, and the body as it came with splices, or written anew in the dialect of the
 * upstream. Nothing of the client's credentials or hops is in the head. Failures: a body that its target cannot express
 * is the client's to hear about (attempt_body answers it); a head that does not fit is the operator's. */
#include "worker/attempt.h"

#include "worker/seal.h"

enum { HEAD_MAX = 16384 };

/* What the upstream speaks; echo speaks OpenAI's. */
static const struct dialect *dialect_of(const struct snap_upstream *up) {
    const struct dialect *d = dialect_find(up->dialect == DIALECT_ECHO ? DIALECT_OPENAI : up->dialect);
    CHECK(d != NULL);
    return d;
}

/* ---- the head ---------------------------------------------------------------------------------------------------- */

static size_t put(char *out, size_t at, size_t cap, struct slice s) {
    if (at + s.len > cap)
        return cap + 1; /* sticky */
    memcpy(out + at, s.ptr, s.len);
    return at + s.len;
}

static size_t put_auth(const struct exchange *ex, char *out, size_t at, size_t cap) {
    static const struct slice names[] = { SLICE("Authorization: Bearer "), SLICE("api-key: "), SLICE("x-api-key: "),
                                          SLICE("x-goog-api-key: ") };
    const struct snap_upstream *up = ex->try.up;
    if (up->keys.count == 0)
        return at;
    at = put(out, at, cap, names[up->auth]);
    at = put(out, at, cap,
             snap_text(ex->snapshot->snap, *SNAP_AT(ex->snapshot->snap, up->keys, struct snap_str, ex->try.key)));
    return put(out, at, cap, SLICE("\r\n"));
}

static size_t put_query(const struct exchange *ex, char *out, size_t at, size_t cap, bool marked) {
    const struct snap *s = ex->snapshot->snap;
    SNAP_EACH(s, ex->try.up->query, struct snap_pair, q) {
        at = put(out, at, cap, marked ? SLICE("&") : SLICE("?"));
        at = put(out, at, cap, snap_text(s, q->name));
        at = put(out, at, cap, SLICE("="));
        at = put(out, at, cap, snap_text(s, q->value));
        marked = true;
    }
    return at;
}

static bool configured_header(const struct exchange *ex, struct slice name) {
    const struct snap *s = ex->snapshot->snap;
    SNAP_EACH(s, ex->try.up->headers, struct snap_pair, h)
        if (slice_ieq(snap_text(s, h->name), name))
            return true;
    return false;
}

/* The client's own, but what the configuration sets. A body that was written anew keeps the betas alone: its version is
 * the one it was written for. *version: the dialect's header was among them. */
static size_t put_forwarded(const struct exchange *ex, const char *header, char *out, size_t at, size_t cap,
                            bool *version) {
    struct slice rest = ex->forward;
    while (rest.len > 0) {
        const char *colon = memchr(rest.ptr, ':', rest.len), *end = memchr(rest.ptr, '\n', rest.len);
        struct slice name = slice_of(rest.ptr, (size_t)(colon - rest.ptr)),
                     line = slice_of(rest.ptr, (size_t)(end + 1 - rest.ptr));
        bool beta = name.len > 5 && slice_is(slice_from(name, name.len - 5), "-beta");
        rest = slice_from(rest, line.len);
        if (configured_header(ex, name) || (ex->plan == &plan_translate && !beta))
            continue;
        *version = *version || (header != NULL && slice_is(name, header));
        at = put(out, at, cap, line);
    }
    return at;
}

/* Versions and betas: the configuration's, else the client's where it speaks the same dialect, else what the dialect
 * needs. */
static size_t put_headers(const struct exchange *ex, char *out, size_t at, size_t cap) {
    const struct snap *s = ex->snapshot->snap;
    const struct dialect *d = dialect_of(ex->try.up);
    bool same = ex->task != NULL ? d->id == ex->call.client : d->id == (enum ir_dialect)ex->dialect, has = false;
    if (same)
        at = put_forwarded(ex, d->header_name, out, at, cap, &has);
    if (d->header_name != NULL && !has && !configured_header(ex, slice_str(d->header_name))) {
        at = put(out, at, cap, slice_str(d->header_name));
        at = put(out, at, cap, SLICE(": "));
        at = put(out, at, cap, slice_str(d->header_value));
        at = put(out, at, cap, SLICE("\r\n"));
    }
    SNAP_EACH(s, ex->try.up->headers, struct snap_pair, h) {
        at = put(out, at, cap, snap_text(s, h->name));
        at = put(out, at, cap, SLICE(": "));
        at = put(out, at, cap, snap_text(s, h->value));
        at = put(out, at, cap, SLICE("\r\n"));
    }
    return at;
}

static size_t put_path(struct exchange *ex, char *out, size_t at, size_t cap) {
    const struct snap *s = ex->snapshot->snap;
    struct buf path;
    buf_init(&path, &ex->worker->pages, PAGE_BYTES);
    at = put(out, at, cap, snap_text(s, ex->try.up->base_path));
    const struct dialect *d = ex->legacy && ex->plan == &plan_pass ? &dialect_completions : dialect_of(ex->try.up);
    if (ex->task != NULL ? !buf_append_slice(&path, ex->task_path)
                         : !d->write_path(ex->target_model, ex->req.stream, &path))
        at = cap + 1;
    bool query = path.len > 0 && memchr(buf_ptr(&path), '?', path.len) != NULL;
    at = put(out, at, cap, buf_slice(&path));
    buf_release(&path);
    return put_query(ex, out, at, cap, query);
}

bool attempt_head(struct exchange *ex) {
    static char head[HEAD_MAX];
    const struct snap *s = ex->snapshot->snap;
    size_t cap = sizeof head, at = 0;
    char number[48];
    at = put(head, at, cap, SLICE("POST "));
    at = put_path(ex, head, at, cap);
    at = put(head, at, cap, SLICE(" HTTP/1.1\r\nHost: "));
    at = put(head, at, cap, snap_text(s, ex->try.up->host_header));
    at = put(head, at, cap, SLICE("\r\n"));
    at = put_auth(ex, head, at, cap);
    at = put(head, at, cap,
             ex->req.stream
                 ? SLICE("Content-Type: application/json\r\nAccept: text/event-stream\r\nUser-Agent: tollgate\r\n")
                 : SLICE("Content-Type: application/json\r\nAccept: application/json\r\nUser-Agent: tollgate\r\n"));
    at = put_headers(ex, head, at, cap);
    at = put(head, at, cap, SLICE("Content-Length: "));
    at = put(head, at, cap, slice_of(number, fixed_format(number, (int64_t)ex->body_out.bytes, 0)));
    at = put(head, at, cap, SLICE("\r\n\r\n"));
    if (at > cap)
        return false;
    ex->try.head = arena_copy(&ex->arena, slice_of(head, at));
    return ex->try.head.ptr != NULL;
}

/* ---- the body ---------------------------------------------------------------------------------------------------- */

struct slice attempt_model(struct exchange *ex, const struct snap_route *route) {
    struct slice as = snap_text(ex->snapshot->snap, route->as);
    const char *star = ex->model->flags & MODEL_FAMILY ? memchr(as.ptr, '*', as.len) : NULL;
    if (star == NULL)
        return as;
    size_t before = (size_t)(star - as.ptr);
    return ARENA_JOIN(&ex->arena, slice_of(as.ptr, before), ex->family_rest, slice_from(as, before + 1));
}

static bool keep_pieces(struct exchange *ex, const struct pieces *p) {
    ex->body_out.at = arena_alloc(&ex->arena, p->count * sizeof *p->at);
    if (ex->body_out.at == NULL)
        return false;
    memcpy(ex->body_out.at, p->at, p->count * sizeof *p->at);
    ex->body_out.count = p->count;
    ex->body_out.bytes = p->bytes;
    return !ex->arena.overflow;
}

static uint32_t texts_of(const struct exchange *ex, struct snap_list list, struct slice *out, uint32_t max) {
    const struct snap *s = ex->snapshot->snap;
    uint32_t n = 0;
    SNAP_EACH(s, list, struct snap_str, text)
        if (n < max)
            out[n++] = snap_text(s, *text);
    return n;
}

/* The body as it came, with splices. */
static bool build_pass(struct exchange *ex, struct ir_fault *f) {
    static struct pieces pieces;
    struct slice strip[32];
    struct pass_edit e = { .model = ex->target_model,
                           .set_limit = ex->limit_cut,
                           .limit = ex->out_limit,
                           .limit_field = snap_text(ex->snapshot->snap, ex->model->limit_field),
                           .strip = strip,
                           .strip_count = texts_of(ex, ex->model->strip, strip, ARRAY_LEN(strip)),
                           .ask_usage = ex->req.stream,
                           .plain = ex->plain };
    if (slice_eq(e.model, ex->req.model))
        e.model = SLICE_NONE;
    if (ex->unsealed.ptr != NULL)
        return ir_refuse(f, "invalid_value", SLICE_NONE, seal_unknown(ex, ex->unsealed));
    pieces_reset(&pieces);
    if (!ex->pass->build(&ex->json, &ex->req, &e, &ex->arena, &pieces) || !keep_pieces(ex, &pieces))
        return false;
    for (uint32_t i = 0; i < e.strip_count; i++)
        if (e.stripped >> i & 1)
            reply_dropped(ex, strip[i]);
    for (uint32_t i = 0; i < ex->req.drops; i++)
        reply_dropped(ex, ex->req.drop_names[i]);
    return true;
}

/* Reads the request into the neutral form (once) and writes it for the target. 0 done; else ex was answered or the
 * route is out. */
static bool build_translation(struct exchange *ex, struct ir_fault *f) {
    struct slice strip[32], allow[32];
    struct ir_budget budgets[16];
    const struct snap *s = ex->snapshot->snap;
    struct ir_target t = { .model = ex->target_model,
                           .origin = ex->try.up->id,
                           .max_output = ex->model->max_output,
                           .set_limit = ex->limit_cut,
                           .limit = ex->out_limit,
                           .limit_field = snap_text(s, ex->model->limit_field),
                           .strip = strip,
                           .strip_count = texts_of(ex, ex->model->strip, strip, ARRAY_LEN(strip)),
                           .allow = allow,
                           .allow_count = texts_of(ex, ex->model->allow, allow, ARRAY_LEN(allow)),
                           .budgets = budgets,
                           .reasoning = ex->model->flags & MODEL_REASONING,
                           .no_reasoning = ex->model->capabilities.count > 0 && !(ex->model->flags & MODEL_REASONING) };
    SNAP_EACH(s, ex->model->budgets, struct snap_pair, b) {
        uint64_t tokens;
        if (t.budget_count < ARRAY_LEN(budgets) && slice_to_u64(snap_text(s, b->value), &tokens))
            budgets[t.budget_count++] = (struct ir_budget){ snap_text(s, b->name), tokens };
    }
    if (ex->ir == NULL) {
        struct dialect_path path = { .model = ex->path_model, .stream = ex->path_stream, .sse = !ex->as_array };
        ex->ir = arena_alloc(&ex->arena, sizeof *ex->ir);
        if (ex->ir == NULL || !translate_read(exchange_dialect(ex), &ex->json, &path, &ex->arena, ex->ir, f))
            return false;
    }
    struct ir_dropped dropped = { 0 };
    struct buf body;
    buf_init(&body, &ex->worker->pages, (size_t)s->max_body * 2);
    bool ok = dialect_of(ex->try.up)->write_request(ex->ir, &t, &dropped, &body, f);
    struct slice text = ok ? arena_copy(&ex->arena, buf_slice(&body)) : SLICE_NONE;
    buf_release(&body);
    if (!ok)
        return false;
    for (uint32_t i = 0; i < dropped.count; i++)
        reply_dropped(ex, dropped.names[i]);
    ex->body_out = (struct body_pieces){ arena_alloc(&ex->arena, sizeof(struct slice)), 1, text.len };
    if (text.ptr == NULL || ex->body_out.at == NULL)
        return ir_refuse(f, "body_too_large", SLICE_NONE, SLICE("The request is too large."));
    ex->body_out.at[0] = text;
    return true;
}

bool attempt_body(struct exchange *ex) {
    struct ir_fault f = { .status = 500,
                          .code = SLICE("internal"),
                          .message = SLICE("The request could not be prepared.") };
    bool same = dialect_of(ex->try.up)->id == (enum ir_dialect)ex->dialect && !ir_has_carrier(&ex->json);
    ex->plan = same ? &plan_pass : &plan_translate;
    ex->target_model = attempt_model(ex, ex->try.route);
    ex->dropped = SLICE("");
    enum task_go go = ex->task != NULL ? task_build(ex, &f) : TASK_REFUSED;
    if (go == TASK_ANSWERED)
        return false;
    if (ex->task != NULL ? go == TASK_GO : same ? build_pass(ex, &f) : build_translation(ex, &f))
        return true;
    struct reply_fault r = {
        .status = f.status, .code = dialect_status_of(f.status)->code, .param = f.param, .message = f.message,
        .provider_code = f.code
    };
    ex->status = r.status;
    meter_release(ex);
    reply_fault(ex, &r);
    return false;
}
