/* Anthropic Messages, the answer. message_start shows figures of the input and a provisional count of the output;
 * message_delta repeats them as totals and is where the cost goes, so nothing ever waits. Events pass as they came but
 * for: an `event:` line where one is missing (the SDK skips events without), a second message_start (the SDK fails on
 * it), pings before the first. Only message_stop ends a stream. */
#include "proto/dialect/anthropic.h"
#include "proto/pass/alike.h"
#include "proto/pass/anthropic.h"
#include "proto/pass/edits.h"

/* What is noted in a->own. */
struct notes {
    struct anthropic_counts counts;
    uint64_t input_known : 1, output_known : 1, started : 1;
};
_Static_assert(sizeof(struct notes) <= sizeof((struct pass_answer *)0)->own, "notes fit");

static struct notes notes_of(const struct pass_answer *a) {
    struct notes n;
    memcpy(&n, a->own, sizeof n);
    return n;
}
static void notes_keep(struct pass_answer *a, const struct notes *n) { memcpy(a->own, n, sizeof *n); }

static bool has_count(const struct json *j, int usage, const char *name) {
    uint64_t v;
    return json_u64(j, json_get(j, usage, name), &v);
}

/* Figures count as given only when both sides were: some servers leave one out, and a total with a hole is worse than
 * an estimate. final: not the provisional ones of a beginning. */
static void take_usage(struct pass_answer *a, const struct json *j, int usage, bool final) {
    struct notes n = notes_of(a);
    struct ir_usage u = { 0 };
    if (!json_is(j, usage, JSON_OBJECT))
        return;
    anthropic_counts_take(&n.counts, j, usage);
    n.input_known |= has_count(j, usage, "input_tokens");
    n.output_known |= final && has_count(j, usage, "output_tokens");
    notes_keep(a, &n);
    anthropic_counts_usage(&n.counts, &u);
    u.seen = n.input_known && n.output_known;
    edits_take(a, &u);
}

/* Strings that the model made, in a block or a delta. */
static uint64_t made_bytes(const struct json *j, int v, struct alike_holes *holes) {
    uint64_t bytes = 0;
    if (json_is(j, v, JSON_STRING)) {
        alike_add(holes, v, ALIKE_TEXT);
        return json_str_len(j, v);
    }
    if (json_is(j, v, JSON_ARRAY)) {
        for (int t = json_first(j, v); t >= 0; t = json_next(j, v, t))
            bytes += made_bytes(j, t, holes);
    } else if (json_is(j, v, JSON_OBJECT)) {
        int type = json_get(j, v, "type");
        if (json_is(j, type, JSON_STRING) && slice_ends(json_raw(j, type), SLICE("_tool_result")))
            return 0; /* found, not written, by the model */
        for (int k = json_first(j, v); k >= 0; k = json_next(j, v, k)) {
            struct slice name = json_raw(j, k);
            if (slice_is(name, "input")) {
                alike_refuse(holes);
                bytes += json_raw(j, k + 1).len > 2 ? json_raw(j, k + 1).len : 0;
            } else if (!slice_is(name, "type") && !slice_is(name, "id") && !slice_is(name, "signature") &&
                     !slice_is(name, "data") && !slice_is(name, "citation") && !slice_is(name, "citations") &&
                     !slice_is(name, "caller")) {
                bytes += made_bytes(j, k + 1, holes);
            }
        }
    }
    return bytes;
}

/* Cost into the usage object there, or one of our own. */
static void edit_usage(struct edits *e, struct pass_answer *a, int object, int usage) {
    if (json_is(e->j, usage, JSON_OBJECT) && a->usage_seen) {
        edits_cost(e, &a->cost, usage, false);
        return;
    }
    const uint64_t *m = a->meters.n;
    uint64_t read = m[METER_CACHED_INPUT], written = m[METER_CACHE_WRITE] + m[METER_CACHE_WRITE_1H];
    struct slice cost = edits_cost_members(&a->cost, false, e->arena);
    struct slice made =
        arena_printf(e->arena,
                     "{\"input_tokens\":%llu,\"cache_creation_input_tokens\":%llu,\"cache_read_input_tokens\":%llu,"
                     "\"output_tokens\":%llu%s%.*s}",
                     (unsigned long long)(meters_input(&a->meters) - read - written), (unsigned long long)written,
                     (unsigned long long)read, (unsigned long long)meters_output(&a->meters), cost.len > 0 ? "," : "",
                     SLICE_ARG(cost));
    edits_member(e, object, "usage", usage, made);
    a->usage_sent = true;
}

void pass_anthropic_error(const struct json *j, struct arena *arena, struct pass_fault *fault) {
    static const struct {
        const char *type;
        int status;
    } table[] = {
        { "invalid_request_error", 400 }, { "authentication_error", 401 }, { "billing_error", 402 },
        { "permission_error", 403 },      { "not_found_error", 404 },      { "conflict_error", 409 },
        { "request_too_large", 413 },     { "rate_limit_error", 429 },     { "api_error", 500 },
        { "timeout_error", 504 },         { "overloaded_error", 529 },
    };
    pass_read_error(j, arena, fault);
    for (size_t i = 0; i < sizeof table / sizeof *table && fault->status == 0; i++)
        if (slice_is(fault->type, table[i].type))
            fault->status = table[i].status;
    int code = json_get(j, json_get(j, json_get(j, 0, "error"), "details"), "error_code");
    if (fault->code.ptr == NULL && json_is(j, code, JSON_STRING))
        fault->code = json_str(j, code, arena);
}

enum pass_result pass_anthropic_whole(struct pass_answer *a, const struct json *j, struct arena *arena,
                                      struct pieces *out, struct pass_fault *fault) {
    struct edits e;
    int content = json_get(j, 0, "content"), usage = json_get(j, 0, "usage"), error = json_get(j, 0, "error");
    if (json_is(j, 0, JSON_OBJECT) &&
        (json_str_is(j, json_get(j, 0, "type"), "error") || json_is(j, error, JSON_OBJECT))) {
        pass_anthropic_error(j, arena, fault);
        return PASS_ERROR;
    }
    if (!json_is(j, content, JSON_ARRAY))
        return PASS_BAD;
    a->text_bytes = made_bytes(j, content, &(struct alike_holes){ 0 });
    a->finished = true;
    take_usage(a, j, usage, true);
    edits_settle(a);
    edits_begin(&e, j, arena);
    edit_usage(&e, a, 0, usage);
    edits_seal_all(&e, a, 0, &anthropic_state); /* containers and the files in them can be named by a later request */
    return edits_put(&e, out) ? PASS_OK : PASS_BAD;
}

static enum pass_result message_start(struct pass_answer *a, struct edits *e, const struct sse_event *ev,
                                      struct pieces *out) {
    int message = json_get(e->j, 0, "message");
    struct notes n = notes_of(a);
    take_usage(a, e->j, json_get(e->j, message, "usage"), false);
    if (n.started)
        return PASS_OK;
    n = notes_of(a);
    n.started = true;
    notes_keep(a, &n);
    edits_seal_all(e, a, message, &anthropic_state);
    return edits_put_event(e, ev, SLICE("message_start"), out) ? PASS_OK : PASS_BAD;
}

/* Totals so far. The one that says why the answer ended has the final ones, so there the money is settled. */
static enum pass_result message_delta(struct pass_answer *a, struct edits *e, const struct sse_event *ev,
                                      struct pieces *out) {
    int delta = json_get(e->j, 0, "delta"), usage = json_get(e->j, 0, "usage"),
        reason = json_get(e->j, delta, "stop_reason");
    bool last = json_is(e->j, reason, JSON_STRING) && json_raw(e->j, reason).len > 0;
    if (!a->usage_final)
        take_usage(a, e->j, usage, true);
    if (last)
        edits_settle(a);
    if (a->usage_final)
        edit_usage(e, a, 0, usage);
    edits_seal_all(e, a, delta, &anthropic_state);
    return edits_put_event(e, ev, SLICE("message_delta"), out) ? PASS_OK : PASS_BAD;
}

static enum pass_result content_delta(struct pass_answer *a, struct edits *e, const struct sse_event *ev,
                                      struct slice type, struct pieces *out) {
    struct alike_holes holes = { 0 };
    uint32_t first = out->count;
    a->text_bytes += made_bytes(e->j, json_get(e->j, 0, "delta"), &holes);
    if (!edits_put_event(e, ev, type, out))
        return PASS_BAD;
    alike_keep(&a->alike, ev, e->j, &holes, out, first);
    return PASS_OK;
}

enum pass_result pass_anthropic_event(struct pass_answer *a, const struct sse_event *ev, struct arena *scratch,
                                      struct pieces *out, struct pass_fault *fault) {
    struct json_tok tape[EDITS_TAPE];
    struct json j;
    struct edits e;
    struct alike_found found;
    if (!ev->has_data || a->done || slice_is(slice_trim(ev->data), "[DONE]"))
        return PASS_OK; /* some servers end as OpenAI does; what counts is message_stop */
    if (alike_take(&a->alike, ev, scratch, out, &found)) {
        a->events++;
        a->text_bytes += found.text_bytes;
        return PASS_OK;
    }
    if (!edits_parse_event(&j, tape, ev, scratch))
        return PASS_BAD;
    int t = json_get(&j, 0, "type");
    struct slice type = json_is(&j, t, JSON_STRING) ? json_str(&j, t, scratch) : ev->name;
    if (slice_is(type, "error") || slice_is(ev->name, "error")) {
        pass_anthropic_error(&j, scratch, fault);
        return PASS_ERROR;
    }
    edits_begin(&e, &j, scratch);
    if (slice_is(type, "ping"))
        return a->events == 0 || edits_put_event(&e, ev, type, out) ? PASS_OK : PASS_BAD;
    a->events++;
    if (slice_is(type, "message_start"))
        return message_start(a, &e, ev, out);
    if (slice_is(type, "message_delta"))
        return message_delta(a, &e, ev, out);
    if (slice_is(type, "content_block_delta"))
        return content_delta(a, &e, ev, type, out);
    if (slice_is(type, "content_block_start")) {
        int block = json_get(&j, 0, "content_block");
        a->text_bytes += made_bytes(&j, block, &(struct alike_holes){ 0 });
        edits_seal_all(&e, a, block, &anthropic_state);
    } else if (slice_is(type, "message_stop")) {
        edits_settle(a); /* where no delta said why it ended */
        a->finished = a->done = true;
    }
    return edits_put_event(&e, ev, type, out) ? PASS_OK : PASS_BAD;
}

enum pass_result pass_anthropic_end(struct pass_answer *a, struct arena *scratch, struct pieces *out) {
    (void)scratch, (void)out;
    return a->done ? PASS_OK : PASS_BAD;
}

bool pass_anthropic_fail(struct pass_answer *a, int status, const char *code, struct slice message, struct slice error,
                         struct arena *arena, struct pieces *out) {
    (void)a, (void)status, (void)code, (void)message;
    pieces_add(out, SLICE("event: error\ndata: "));
    pieces_add(out, arena_copy(arena, error));
    pieces_add(out, SLICE("\n\n"));
    return !arena->overflow && !out->full;
}

struct slice pass_anthropic_ping(const struct pass_answer *a) {
    (void)a;
    return SLICE("event: ping\ndata: {\"type\": \"ping\"}\n\n");
}
