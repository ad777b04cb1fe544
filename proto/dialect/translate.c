/* Reader → repair → writer (or fold). What is repaired here, so that neither side has to:
 *
 * - START comes first and once, whatever the provider sends before it or again (a second message_start would kill the
 * client);
 * - empty deltas vanish; events of choices that the client's dialect has no place for vanish;
 * - a call's id is made where there is none, or where the client's dialect would not take it; its name goes back to
 * the client's;
 * - a tool that the client offered as free text and that went out as a function with one string comes back as free
 * text;
 * - a schema that went out as a forced tool comes back as text;
 * - calls beat the finish word: a natural end after calls is IR_STOP_TOOLS, and so is a call that the provider found
 *   wrong but gave whole (an undeclared name): clients know how to answer those;
 * - a call without arguments has {};
 * - blobs get the upstream's id, and stand before a call where the client's calls cannot hold them.
 *
 * Failures: DIALECT_FULL when out, a limit or memory is full; what providers do wrong comes from the readers. */
#include "proto/dialect/translate.h"

#include <stdio.h>

bool translate_read(const struct dialect *client, const struct json *j, const struct dialect_path *path,
                    struct arena *arena, struct ir_request *r, struct ir_fault *f) {
    *r = (struct ir_request){ .arena = arena, .from = client->id, .n = 1 };
    if (!json_is(j, 0, JSON_OBJECT))
        return ir_refuse(f, "invalid_json", SLICE_NONE, SLICE("The body is not a JSON object."));
    if (!client->read_request(j, path, r, f) || !ir_settle(r, f))
        return false;
    if (!arena->overflow)
        return true;
    ir_refuse(f, "body_too_large", SLICE_NONE, SLICE("The request is too large."));
    f->status = 413;
    return false;
}

/* ---- repair ---- */

static bool give(struct translate *t, const struct ir_event *ev) {
    t->started = true;
    switch (ev->kind) {
    case IR_EV_TEXT: case IR_EV_REFUSAL: case IR_EV_REASONING: case IR_EV_ARGS: t->text_bytes += ev->text.len; break;
    default: break;
    }
    bool ok = t->stream ? t->client->put(t->writer, ev, t->scratch, t->out) : ir_fold(&t->answer, ev);
    t->full = t->full || !ok;
    return ok;
}

static bool give_start(struct translate *t, const struct ir_event *ev) {
    struct ir_event start = { .kind = IR_EV_START };
    if (t->saw_start)
        return true;
    if (ev) {
        start = *ev;
        if (ev->name.len > 0 && !t->served_model.ptr)
            t->served_model = arena_copy(t->writing.arena, ev->name);
    }
    t->saw_start = true;
    return give(t, &start);
}

static bool id_fits(struct slice id) {
    for (size_t i = 0; i < id.len; i++) {
        char c = id.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-'))
            return false;
    }
    return id.len > 0 && id.len <= 64;
}

static bool start_call(struct translate *t, const struct ir_event *given) {
    struct ir_event ev = *given;
    t->calls++;
    if (t->request->json_tool && slice_is(ev.name, IR_JSON_TOOL)) {
        t->in_json = true;
        return true;
    }
    struct ir_tool *tool = ir_tool_sent(t->request, ev.name);
    const char *dot = !tool && ev.name.len > 0 ? memchr(ev.name.ptr, '.', ev.name.len) : NULL;
    if (dot) { /* a namespace that the provider gave by itself */
        ev.name = slice_from(ev.name, (size_t)(dot + 1 - ev.name.ptr));
        tool = ir_tool_sent(t->request, ev.name);
    }
    if (tool)
        ev.name = tool->name;
    if (!id_fits(ev.id))
        ev.id = arena_printf(t->scratch, "call_%.*s%u", (int)(t->writing.id.len < 24 ? t->writing.id.len : 24),
                             t->writing.id.ptr, t->calls);
    if (ev.choice < sizeof t->saw_call)
        t->saw_call[ev.choice] = true;
    t->in_custom = tool && tool->kind == IR_CUSTOM && !ev.custom;
    t->in_wrap = ev.custom && !t->client->free_text;
    t->custom = ev.custom = (ev.custom && !t->in_wrap) || t->in_custom;
    t->args = false;
    if (ev.blob.kind != IR_BLOB_NONE && !t->client->call_blobs) {
        struct ir_event before = { .kind = IR_EV_REASONING_END, .choice = ev.choice, .blob = ev.blob };
        ev.blob = (struct ir_blob){ 0 };
        if (!give(t, &before))
            return false;
    }
    return give(t, &ev);
}

/* The text inside {"input": "…"}; arguments of another form as they are. */
static struct slice unwrap(struct translate *t, struct slice args) {
    struct json j;
    if (!json_parse(&j, t->scratch, args.ptr, args.len))
        return args;
    int input = json_get(&j, 0, "input");
    return json_is(&j, input, JSON_STRING) ? json_str(&j, input, t->scratch) : args;
}

/* And the other way: what a client without free-text calls gets. */
static struct slice wrap(struct translate *t, struct slice text) {
    struct buf b;
    struct json_writer w;
    buf_init(&b, t->held.pages, text.len * 6 + 64);
    jw_init(&w, &b);
    jw_object(&w);
    jw_key(&w, "input");
    jw_str(&w, text.ptr ? text : SLICE(""));
    jw_end_object(&w);
    struct slice args = arena_copy(t->scratch, buf_slice(&b));
    buf_release(&b);
    return args;
}

static bool more_args(struct translate *t, const struct ir_event *given) {
    struct ir_event ev = *given;
    if (t->in_custom || t->in_wrap) {
        bool ok = buf_append_slice(&t->held, ev.text);
        t->full = t->full || !ok;
        return ok;
    }
    if (t->in_json)
        ev.kind = IR_EV_TEXT;
    t->args = t->args || ev.text.len > 0;
    return ev.text.len == 0 || give(t, &ev);
}

static bool end_call(struct translate *t, const struct ir_event *ev) {
    if (t->in_json) {
        t->in_json = false;
        return true;
    }
    if (t->in_custom || t->in_wrap) {
        struct ir_event args = { .kind = IR_EV_ARGS, .choice = ev->choice, .custom = t->in_custom };
        args.text = t->in_custom ? unwrap(t, buf_slice(&t->held)) : wrap(t, buf_slice(&t->held));
        t->in_custom = t->in_wrap = false;
        bool ok = args.text.len == 0 || give(t, &args);
        buf_release(&t->held);
        if (!ok)
            return false;
    } else if (!t->args && !t->custom) {
        struct ir_event none = { .kind = IR_EV_ARGS, .choice = ev->choice, .text = SLICE("{}") };
        if (!give(t, &none))
            return false;
    }
    return give(t, ev);
}

static bool end_choice(struct translate *t, const struct ir_event *given) {
    struct ir_event ev = *given;
    bool calls = ev.choice < sizeof t->saw_call && t->saw_call[ev.choice];
    if (ev.stop == IR_STOP_UNKNOWN || ev.stop == IR_STOP_END || ev.stop == IR_STOP_TOOLS ||
        (calls && (ev.stop == IR_STOP_STRING || ev.stop == IR_STOP_MODEL_ERROR)))
        ev.stop = calls ? IR_STOP_TOOLS : IR_STOP_END;
    t->finished = true;
    t->model_error = t->model_error || ev.stop == IR_STOP_MODEL_ERROR;
    return give(t, &ev);
}

static bool repair(void *arg, const struct ir_event *given) {
    struct translate *t = arg;
    struct ir_event ev = *given;
    if (ev.blob.kind != IR_BLOB_NONE) {
        ev.blob.maker = t->upstream->id;
        ev.blob.origin = t->origin;
    }
    if (ev.kind == IR_EV_USAGE || (ev.kind == IR_EV_START && ev.usage && ev.usage->seen)) {
        t->usage = *ev.usage;
        if (ev.kind == IR_EV_USAGE)
            return true;
    }
    if (ev.choice > 0 && t->request->n <= 1)
        return true;
    if (ev.kind == IR_EV_START)
        return give_start(t, &ev);
    if (!give_start(t, NULL))
        return false;
    switch (ev.kind) {
    case IR_EV_TEXT: case IR_EV_REFUSAL: case IR_EV_REASONING: return ev.text.len == 0 || give(t, &ev);
    case IR_EV_LOGPROBS: return !t->request->logprobs || give(t, &ev);
    case IR_EV_CALL: return start_call(t, &ev);
    case IR_EV_ARGS: return more_args(t, &ev);
    case IR_EV_CALL_END: return end_call(t, &ev);
    case IR_EV_FINISH: return end_choice(t, &ev);
    default: return give(t, &ev);
    }
}

/* ---- what the relay calls ---- */

bool translate_open(struct translate *t, const struct dialect *client, const struct dialect *upstream,
                    struct ir_request *request, const struct dialect_reader_settings *reading,
                    const struct dialect_writer_settings *writing) {
    *t = (struct translate){ .client = client, .upstream = upstream, .request = request, .writing = *writing,
                             .stream = request->stream, .origin = reading->origin };
    t->writing.request = request;
    buf_init(&t->held, reading->pages, reading->max_held);
    t->reader = upstream->reader(reading);
    if (t->stream)
        t->writer = client->writer(&t->writing);
    else
        ir_fold_init(&t->answer, writing->arena, true);
    return t->reader && (t->writer || !t->stream);
}

/* What a reader says of an error borrows from the event; the fault must outlive it. */
static void keep_fault(struct translate *t) {
    struct slice *kept[] = { &t->fault.code, &t->fault.type, &t->fault.param, &t->fault.message, &t->fault.detail };
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (kept[i]->len > 0)
            *kept[i] = arena_copy(t->writing.arena, *kept[i]);
}

static enum dialect_result settle_result(struct translate *t, enum dialect_result r) {
    if (t->full)
        r = DIALECT_FULL;
    if (r == DIALECT_ERROR)
        keep_fault(t);
    if (r == DIALECT_FULL)
        t->fault = (struct ir_fault){ .status = 502, .blame = IR_BLAME_UPSTREAM,
                                      .message = SLICE("The answer is larger than this gateway takes.") };
    else if (r == DIALECT_BAD && t->fault.status == 0)
        t->fault = (struct ir_fault){ .status = 502, .blame = IR_BLAME_UPSTREAM,
                                      .message = SLICE("The provider's answer broke off or was not understood.") };
    return r;
}

enum dialect_result translate_event(struct translate *t, const struct sse_event *ev, struct arena *scratch,
                                    struct buf *out) {
    struct ir_sink sink = { repair, t };
    if (!ev->has_data)
        return DIALECT_OK;
    t->out = out;
    t->scratch = scratch;
    return settle_result(t, t->upstream->event(t->reader, ev, scratch, &sink, &t->fault));
}

enum dialect_result translate_whole(struct translate *t, const struct json *j, struct arena *scratch, struct buf *out) {
    struct ir_sink sink = { repair, t };
    t->out = out;
    t->scratch = scratch;
    return settle_result(t, t->upstream->whole(t->reader, j, scratch, &sink, &t->fault));
}

enum dialect_result translate_end(struct translate *t, struct arena *scratch, struct buf *out) {
    struct ir_sink sink = { repair, t };
    t->out = out;
    t->scratch = scratch;
    enum dialect_result r = t->upstream->end(t->reader, scratch, &sink, &t->fault);
    if (r == DIALECT_OK && !t->finished)
        r = DIALECT_BAD;
    if (r == DIALECT_OK && t->model_error) {
        t->fault = (struct ir_fault){ .status = 502,
                                      .blame = IR_BLAME_UPSTREAM,
                                      .message = SLICE(
                                          "The model gave something that its provider could not read.") };
        r = DIALECT_ERROR;
    }
    return settle_result(t, r);
}

bool translate_finish(struct translate *t, const struct ir_cost *cost, struct arena *scratch, struct buf *out) {
    bool ok;
    t->fault = (struct ir_fault){ 0 };
    if (t->stream)
        ok = t->client->finish(t->writer, &t->usage, cost, scratch, out);
    else
        ok = t->client->write_answer(&t->answer, &t->writing, &t->usage, cost, out, &t->fault);
    if (!ok && t->fault.status == 0)
        settle_result(t, DIALECT_FULL);
    return ok;
}

bool translate_fail(struct translate *t, const struct ir_fault *f, const struct dialect_brand *brand,
                    struct arena *scratch, struct buf *out) {
    return t->client->fail(t->writer, f, brand, scratch, out);
}

struct slice translate_ping(const struct translate *t) {
    return slice_str(t->request->as_array ? t->client->array_ping : t->client->ping);
}

void translate_close(struct translate *t) {
    if (t->reader)
        t->upstream->close_reader(t->reader);
    if (t->writer)
        t->client->close_writer(t->writer);
    t->reader = t->writer = NULL;
    buf_release(&t->held);
}
