/* Gemini, the answer. Every chunk of a stream is a whole response with only the new parts; usageMetadata is a running
 * total, of which the last one counts, as a whole. Nothing ends a stream but its end, so from the first finishReason on
 * one chunk at a time waits: the last one bears the cost. The upstream is always asked for server-sent events; a client
 * that did not ask for them gets the same chunks as one JSON array. */
#include "proto/dialect/gemini.h"

#include "proto/pass/edits.h"
#include "proto/pass/gemini.h"

/* What is noted in a->own. */
enum { OWN_OPEN /* the array was begun */ };

/* ---- usage ---- */

/* A running total: the last object counts, and a search that was named once stays. */
static void take_usage(struct pass_answer *a, const struct json *j, int usage) {
    struct ir_usage u = { .tools = a->tools };
    if (dialect_gemini.read_usage(j, usage, &u))
        edits_take(a, &u);
}

static void write_usage(struct json_writer *w, const struct meters *m, const struct ir_cost *cost) {
    gemini_write_usage(w, &(struct ir_usage){ .meters = *m }, cost);
}

/* Cost into the usageMetadata there, or one of our own. */
static void edit_usage(struct edits *e, struct pass_answer *a, int usage) {
    if (json_is(e->j, usage, JSON_OBJECT) && a->usage_seen && json_first(e->j, usage) >= 0) {
        edits_cost(e, &a->cost, usage, true);
        a->usage_sent = true;
        return;
    }
    edits_member(e, 0, "usageMetadata", usage, edits_made_usage(a, write_usage, e->arena));
    a->usage_sent = true;
}

/* ---- chunks ---- */

struct chunk {
    int usage, error;
    bool known;  /* it has something that a response has */
    bool finish; /* a candidate says why it ended, or the prompt was blocked */
    uint64_t text_bytes;
};

/* Text that the model made: text, thoughts, calls, code; not what code or searches gave. */
static uint64_t part_bytes(const struct json *j, int part) {
    int call = json_get(j, part, "functionCall"), args = json_get(j, call, "args"),
        pieces = json_get(j, call, "partialArgs");
    uint64_t bytes = json_str_len(j, json_get(j, part, "text")) + json_str_len(j, json_get(j, call, "name")) +
                     json_str_len(j, json_get(j, json_get(j, part, "executableCode"), "code"));
    if (json_is(j, args, JSON_OBJECT) && json_first(j, args) >= 0)
        bytes += json_raw(j, args).len;
    for (int p = json_items(j, pieces); p >= 0; p = json_next(j, pieces, p))
        bytes += json_str_len(j, json_get(j, p, "stringValue"));
    return bytes;
}

static void look_at(struct pass_answer *a, const struct json *j, struct chunk *c) {
    int candidates = json_get(j, 0, "candidates"),
        blocked = json_get(j, json_get(j, 0, "promptFeedback"), "blockReason");
    int error = json_get(j, 0, "error");
    *c = (struct chunk){ .usage = json_get(j, 0, "usageMetadata"),
                         .error = json_is(j, error, JSON_OBJECT) || json_is(j, error, JSON_STRING) ? error : -1 };
    c->known = json_is(j, candidates, JSON_ARRAY) || json_is(j, c->usage, JSON_OBJECT) ||
               json_is(j, json_get(j, 0, "promptFeedback"), JSON_OBJECT);
    c->finish = json_is(j, blocked, JSON_STRING) && json_raw(j, blocked).len > 0;
    if (c->finish && json_is(j, c->usage, JSON_OBJECT))
        a->usage_seen = true; /* counts of zero are left out: what is not asked of the model costs nothing */
    for (int t = json_items(j, candidates); t >= 0; t = json_next(j, candidates, t)) {
        int reason = json_get(j, t, "finishReason"), parts = json_get(j, json_get(j, t, "content"), "parts");
        gemini_count_tools(j, t, &a->tools);
        c->finish |= json_is(j, reason, JSON_STRING) && json_raw(j, reason).len > 0 &&
                     !json_str_is(j, reason, "FINISH_REASON_UNSPECIFIED");
        for (int p = json_items(j, parts); p >= 0; p = json_next(j, parts, p))
            c->text_bytes += part_bytes(j, p);
    }
}

/* {"error":{code,message,status,details}}, also as the only element of an array. code: Google's reason
 * (API_KEY_INVALID), where there is one. */
void pass_gemini_error(const struct json *j, struct arena *arena, struct pass_fault *fault) {
    int root = json_is(j, 0, JSON_ARRAY) ? json_first(j, 0) : 0;
    memset(fault, 0, sizeof *fault);
    if (root < 0)
        return;
    pass_read_error_at(j, root, arena, fault);
    int error = json_get(j, root, "error"), status = json_get(j, error, "status"),
        details = json_get(j, error, "details");
    fault->code = SLICE_NONE;
    if (json_is(j, status, JSON_STRING))
        fault->type = json_str(j, status, arena);
    for (int d = json_items(j, details); d >= 0; d = json_next(j, details, d))
        if (json_is(j, json_get(j, d, "reason"), JSON_STRING))
            fault->code = json_str(j, json_get(j, d, "reason"), arena);
}

enum pass_result pass_gemini_whole(struct pass_answer *a, const struct json *j, struct arena *arena, struct pieces *out,
                                   struct pass_fault *fault) {
    struct chunk c;
    struct edits e;
    int first = json_items(j, 0);
    look_at(a, j, &c);
    if (c.error >= 0 || json_get(j, first, "error") >= 0) {
        pass_gemini_error(j, arena, fault);
        return PASS_ERROR;
    }
    if (!json_is(j, 0, JSON_OBJECT) || !c.known)
        return PASS_BAD;
    a->text_bytes = c.text_bytes;
    a->finished = true;
    take_usage(a, j, c.usage);
    edits_settle(a);
    edits_begin(&e, j, arena);
    edit_usage(&e, a, c.usage);
    return edits_put(&e, out) ? PASS_OK : PASS_BAD;
}

/* A chunk goes out: as the event that it came in, or as one more element of the array. */
static bool put(struct pass_answer *a, struct edits *e, const struct sse_event *ev, struct pieces *out) {
    if (a->as_array) {
        pieces_add(out, a->own[OWN_OPEN] ? SLICE(",\r\n") : SLICE("["));
        a->own[OWN_OPEN] = 1;
        return edits_put(e, out);
    }
    if (ev->raw.len > 0)
        return edits_put_event(e, ev, SLICE(""), out);
    pieces_add(out, SLICE("data: "));
    pieces_add(out, edits_line(e));
    pieces_add(out, SLICE("\r\n\r\n"));
    return !e->full && !e->arena->overflow && !out->full;
}

/* Lets the waiting chunk go; last: with usage and cost. */
static bool flush_held(struct pass_answer *a, bool last, struct arena *scratch, struct pieces *out) {
    struct sse_event ev = { 0 };
    struct json j;
    struct edits e;
    if (a->held->len == 0)
        return true;
    ev.data = arena_copy(scratch, buf_slice(a->held));
    buf_release(a->held);
    if (ev.data.ptr == NULL || !json_parse(&j, scratch, ev.data.ptr, ev.data.len))
        return false; /* it parsed when it came: memory */
    edits_begin(&e, &j, scratch);
    if (last) {
        edits_settle(a);
        edit_usage(&e, a, json_get(&j, 0, "usageMetadata"));
    }
    return put(a, &e, &ev, out);
}

enum pass_result pass_gemini_event(struct pass_answer *a, const struct sse_event *ev, struct arena *scratch,
                                   struct pieces *out, struct pass_fault *fault) {
    struct json_tok tape[EDITS_TAPE];
    struct json j;
    struct chunk c;
    struct edits e;
    if (!ev->has_data || a->done || slice_is(slice_trim(ev->data), "[DONE]"))
        return PASS_OK;
    if (!edits_parse_event(&j, tape, ev, scratch))
        return PASS_BAD;
    look_at(a, &j, &c);
    if (c.error >= 0) {
        pass_gemini_error(&j, scratch, fault);
        return PASS_ERROR;
    }
    if (!flush_held(a, false, scratch, out))
        return PASS_BAD;
    a->events++;
    a->text_bytes += c.text_bytes;
    take_usage(a, &j, c.usage);
    a->finished |= c.finish;
    if (a->finished)
        return buf_append_slice(a->held, ev->data) ? PASS_OK : PASS_BAD;
    edits_begin(&e, &j, scratch);
    return put(a, &e, ev, out) ? PASS_OK : PASS_BAD;
}

enum pass_result pass_gemini_end(struct pass_answer *a, struct arena *scratch, struct pieces *out) {
    if (a->done)
        return PASS_OK;
    if (!a->finished || !flush_held(a, true, scratch, out))
        return PASS_BAD;
    edits_settle(a);
    if (a->as_array)
        pieces_add(out, a->own[OWN_OPEN] ? SLICE("]") : SLICE("[]"));
    a->done = true;
    return scratch->overflow || out->full ? PASS_BAD : PASS_OK;
}

/* The comment: some of Google's SDKs notice an end within a line, but no error (proto/dialect/gemini_answer.c). */
bool pass_gemini_fail(struct pass_answer *a, int status, const char *code, struct slice message, struct slice error,
                      struct arena *arena, struct pieces *out) {
    (void)status, (void)code, (void)message;
    pieces_add(out, !a->as_array ? SLICE("data: ") : a->own[OWN_OPEN] ? SLICE(",\r\n") : SLICE("["));
    a->own[OWN_OPEN] = 1;
    pieces_add(out, arena_copy(arena, error));
    pieces_add(out, a->as_array ? SLICE("]") : SLICE("\r\n\r\n: failed\r\n"));
    return !arena->overflow && !out->full;
}

struct slice pass_gemini_ping(const struct pass_answer *a) {
    return a->as_array ? SLICE(" ") : pass_sse_ping(a);
}

const char *pass_gemini_content_type(const struct pass_answer *a) {
    return a->as_array ? "application/json; charset=utf-8" : pass_sse_content_type(a);
}
