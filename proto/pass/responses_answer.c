/* OpenAI Responses, the answer: usage stands in the terminal event (response.completed, .incomplete, .failed) alone,
 * and there the cost goes. A stream without a terminal event was cut. Where the relay seals, what a later request can
 * name (responses, items, files, containers) is sealed wherever the provider writes it, so that a client sees one id
 * throughout. An error after the first event is told by
 * an `error` event and a response.failed, for agents retry a turn whose stream just stops. */
#include "proto/dialect/responses.h"
#include "proto/pass/alike.h"
#include "proto/pass/edits.h"
#include "proto/pass/responses.h"

/* What is noted in a->own. */
enum {
    OWN_SEQUENCE /* of the next event */,
    OWN_ITEM_BYTES /* of text that deltas brought for the item that is open */
};

/* ---- usage ---- */

static void take_usage(struct pass_answer *a, const struct json *j, int usage) {
    struct ir_usage u = { .tools = a->tools };
    if (dialect_responses.read_usage(j, usage, &u))
        edits_take(a, &u);
}

/* Cost into the response's usage, or a usage of our own. */
static void edit_usage(struct edits *e, struct pass_answer *a, int response) {
    int usage = json_get(e->j, response, "usage");
    if (json_is(e->j, usage, JSON_OBJECT) && a->usage_seen && json_first(e->j, usage) >= 0) {
        edits_cost(e, &a->cost, usage, false);
        return;
    }
    edits_member(e, response, "usage", usage, edits_made_usage(a, responses_write_usage, e->arena));
    a->usage_sent = true;
}

/* Text that the model made, in an item: messages, calls, reasoning; not what hosted tools found. */
static uint64_t item_bytes(const struct json *j, int item) {
    static const char *const texts[] = { "arguments", "name", "input", "code", "text", "refusal", "transcript" };
    uint64_t bytes = 0;
    if (json_is(j, item, JSON_OBJECT))
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
            bytes += json_str_len(j, json_get(j, item, texts[i]));
    int lists[2] = { json_get(j, item, "content"), json_get(j, item, "summary") };
    for (int i = 0; i < 2; i++)
        for (int p = json_items(j, lists[i]); p >= 0; p = json_next(j, lists[i], p))
            bytes += json_str_len(j, json_get(j, p, "text")) + json_str_len(j, json_get(j, p, "refusal"));
    return bytes;
}

static uint64_t output_bytes(const struct json *j, int output) {
    uint64_t bytes = 0;
    for (int item = json_items(j, output); item >= 0; item = json_next(j, output, item))
        bytes += item_bytes(j, item);
    return bytes;
}

static void count_tools(struct pass_answer *a, const struct json *j, int output) {
    for (int item = json_items(j, output); item >= 0; item = json_next(j, output, item))
        responses_count_tool(j, item, &a->tools);
}

/* ---- ids ---- */

static const struct scan_state handed_out = {
    .names = { SLICE("response_id"), SLICE("previous_response_id"), SLICE("conversation"), SLICE("item_id"),
               SLICE("file_id"), SLICE("file_ids"), SLICE("container"), SLICE("container_id"),
               SLICE("approval_request_id") },
    .opaque = { SLICE("parameters"), SLICE("schema"), SLICE("input_schema"), SLICE("metadata"), SLICE("filters"),
                SLICE("attributes") },
};

static void seal_response(struct edits *e, const struct pass_answer *a, int response) {
    if (a->seal == NULL)
        return;
    int output = json_get(e->j, response, "output");
    edits_seal(e, a, json_get(e->j, response, "id"));
    for (int t = json_items(e->j, output); t >= 0; t = json_next(e->j, output, t))
        edits_seal(e, a, json_get(e->j, t, "id"));
    edits_seal_all(e, a, response, &handed_out);
}

/* An event within a response. Deltas, of which there are many, have nothing but the item's id. */
static void seal_event(struct edits *e, const struct pass_answer *a, struct slice type) {
    edits_seal(e, a, json_get(e->j, json_get(e->j, 0, "item"), "id"));
    if (slice_ends(type, SLICE(".delta")))
        edits_seal(e, a, json_get(e->j, 0, "item_id"));
    else
        edits_seal_all(e, a, 0, &handed_out);
}

/* For a response.failed of our own. */
static void remember_ident(struct pass_answer *a, struct edits *e, int response) {
    const struct json *j = e->j;
    int id = json_get(j, response, "id"), created = json_get(j, response, "created_at"),
        model = json_get(j, response, "model");
    if (a->ident_len > 0 || !json_is(j, id, JSON_STRING))
        return;
    struct slice shown = json_span(j, id);
    for (uint32_t i = 0; i < e->n; i++)
        if (e->at[i].len == shown.len && j->text + e->at[i].at == shown.ptr)
            shown = e->at[i].with;
    struct slice t =
        arena_printf(e->arena, "\"id\":%.*s,\"object\":\"response\",\"created_at\":%.*s,\"model\":%.*s",
                     SLICE_ARG(shown), SLICE_ARG(json_is(j, created, JSON_NUMBER) ? json_span(j, created) : SLICE("0")),
                     SLICE_ARG(json_is(j, model, JSON_STRING) ? json_span(j, model) : SLICE("\"\"")));
    if (t.ptr == NULL || t.len > sizeof a->ident)
        return;
    memcpy(a->ident, t.ptr, t.len);
    a->ident_len = (uint16_t)t.len;
}

/* ---- errors ---- */

/* {"error":{…}} as a body or event, the flat `error` event, and a failed response's {code, message}. */
static void read_fault(const struct json *j, int root, struct arena *arena, struct pass_fault *f) {
    static const struct {
        const char *code;
        int status;
    } table[] = {
        { "rate_limit_exceeded", 429 },     { "insufficient_quota", 429 }, { "invalid_prompt", 400 },
        { "context_length_exceeded", 400 }, { "server_error", 500 },       { "server_is_overloaded", 503 },
    };
    pass_read_error_at(j, root, arena, f);
    if (slice_is(f->type, "error"))
        f->type = SLICE_NONE; /* the event's own type */
    for (size_t i = 0; i < sizeof table / sizeof *table && f->status == 0; i++)
        if (slice_is(f->code, table[i].code))
            f->status = table[i].status;
    if (f->status == 0 && (slice_starts(f->code, SLICE("invalid_")) || slice_starts(f->code, SLICE("image_"))))
        f->status = 400;
}

void pass_responses_error(const struct json *j, struct arena *arena, struct pass_fault *fault) {
    read_fault(j, 0, arena, fault);
}

/* ---- whole ---- */

/* Nothing is charged for an answer that failed before anything of it was made, unless the provider names figures. */
static void settle_response(struct pass_answer *a, const struct json *j, int response, bool failed) {
    static const struct tool_calls none;
    if (a->usage_final)
        return;
    if (memcmp(&a->tools, &none, sizeof none) == 0) /* no item told of one */
        count_tools(a, j, json_get(j, response, "output"));
    take_usage(a, j, json_get(j, response, "usage"));
    if (failed && !a->usage_seen && a->text_bytes == 0) {
        memset(&a->meters, 0, sizeof a->meters);
        a->usage_seen = true;
    }
    edits_settle(a);
}

enum pass_result pass_responses_whole(struct pass_answer *a, const struct json *j, struct arena *arena,
                                      struct pieces *out, struct pass_fault *fault) {
    struct edits e;
    int error = json_get(j, 0, "error"), output = json_get(j, 0, "output"), status = json_get(j, 0, "status");
    bool failed = json_str_is(j, status, "failed");
    if (!json_is(j, 0, JSON_OBJECT))
        return PASS_BAD;
    if (json_is(j, error, JSON_STRING) ||
        (json_is(j, error, JSON_OBJECT) && (failed || !json_is(j, output, JSON_ARRAY)))) {
        pass_responses_error(j, arena, fault);
        return PASS_ERROR;
    }
    if (!json_is(j, output, JSON_ARRAY))
        return PASS_BAD;
    a->text_bytes = output_bytes(j, output);
    a->finished = true;
    settle_response(a, j, 0, failed);
    edits_begin(&e, j, arena);
    edit_usage(&e, a, 0);
    seal_response(&e, a, 0);
    return edits_put(&e, out) ? PASS_OK : PASS_BAD;
}

/* ---- stream ---- */

static bool is_delta(struct slice type) {
    return slice_ends(type, SLICE(".delta")) && !slice_is(type, "response.audio.delta");
}

static void count_delta(struct pass_answer *a, uint64_t bytes) {
    a->text_bytes += bytes;
    a->own[OWN_ITEM_BYTES] += bytes;
}

/* Deltas count as they come; what an item says beyond its deltas counts when it is done, for some servers send no
 * deltas. */
static void count_text(struct pass_answer *a, const struct json *j, struct slice type) {
    if (is_delta(type)) {
        count_delta(a, json_str_len(j, json_get(j, 0, "delta")));
    } else if (slice_is(type, "response.output_item.done")) {
        uint64_t whole = item_bytes(j, json_get(j, 0, "item"));
        if (whole > a->own[OWN_ITEM_BYTES])
            a->text_bytes += whole - a->own[OWN_ITEM_BYTES];
        a->own[OWN_ITEM_BYTES] = 0;
        responses_count_tool(j, json_get(j, 0, "item"), &a->tools);
    }
}

static enum pass_result terminal(struct pass_answer *a, struct edits *e, const struct sse_event *ev, struct slice type,
                                 int response, struct pieces *out, struct pass_fault *fault) {
    bool failed = slice_is(type, "response.failed");
    if (!json_is(e->j, response, JSON_OBJECT))
        return PASS_BAD;
    if (failed && a->events == 0) {
        read_fault(e->j, response, e->arena, fault);
        return PASS_ERROR;
    }
    if (a->text_bytes == 0)
        a->text_bytes = output_bytes(e->j, json_get(e->j, response, "output"));
    a->events++;
    settle_response(a, e->j, response, failed);
    edit_usage(e, a, response);
    seal_response(e, a, response);
    a->finished = a->done = true;
    return edits_put_event(e, ev, type, out) ? PASS_OK : PASS_BAD;
}

/* Deltas of one item differ in their number, their text and some padding. */
static void keep_delta(struct pass_answer *a, const struct sse_event *ev, const struct json *j,
                       const struct pieces *out, uint32_t first) {
    int delta = json_get(j, 0, "delta"), number = json_get(j, 0, "sequence_number"),
        padding = json_get(j, 0, "obfuscation");
    struct alike_holes holes = { 0 };
    if (!json_is(j, delta, JSON_STRING) || !json_is(j, number, JSON_NUMBER))
        return;
    alike_add(&holes, delta, ALIKE_TEXT);
    alike_add(&holes, number, ALIKE_NUMBER);
    if (json_is(j, padding, JSON_STRING))
        alike_add(&holes, padding, ALIKE_STRING);
    alike_keep(&a->alike, ev, j, &holes, out, first);
}

enum pass_result pass_responses_event(struct pass_answer *a, const struct sse_event *ev, struct arena *scratch,
                                      struct pieces *out, struct pass_fault *fault) {
    struct json_tok tape[EDITS_TAPE];
    struct json j;
    struct edits e;
    struct alike_found found;
    if (!ev->has_data || a->done || slice_is(slice_trim(ev->data), "[DONE]"))
        return PASS_OK; /* some servers end as Chat does; what counts is the terminal event */
    if (alike_take(&a->alike, ev, scratch, out, &found)) {
        count_delta(a, found.text_bytes);
        a->own[OWN_SEQUENCE] = found.number + 1;
        a->events++;
        return PASS_OK;
    }
    if (!edits_parse_event(&j, tape, ev, scratch))
        return PASS_BAD;
    int t = json_get(&j, 0, "type"), response = json_get(&j, 0, "response");
    struct slice type = json_is(&j, t, JSON_STRING) ? json_str(&j, t, scratch) : ev->name;
    if (slice_is(type, "error") || slice_is(ev->name, "error") || (type.len == 0 && json_get(&j, 0, "error") >= 0)) {
        read_fault(&j, 0, scratch, fault);
        return PASS_ERROR;
    }
    uint64_t sequence;
    if (json_u64(&j, json_get(&j, 0, "sequence_number"), &sequence) && sequence < UINT64_MAX)
        a->own[OWN_SEQUENCE] = sequence;
    a->own[OWN_SEQUENCE]++;
    edits_begin(&e, &j, scratch);
    if (slice_is(type, "response.completed") || slice_is(type, "response.incomplete") ||
        slice_is(type, "response.failed"))
        return terminal(a, &e, ev, type, response, out, fault);
    a->events++;
    count_text(a, &j, type);
    if (json_is(&j, response, JSON_OBJECT)) {
        seal_response(&e, a, response);
        remember_ident(a, &e, response);
    } else {
        seal_event(&e, a, type);
    }
    uint32_t first = out->count;
    if (!edits_put_event(&e, ev, type, out))
        return PASS_BAD;
    if (is_delta(type) && !json_is(&j, response, JSON_OBJECT))
        keep_delta(a, ev, &j, out, first);
    return PASS_OK;
}

enum pass_result pass_responses_end(struct pass_answer *a, struct arena *scratch, struct pieces *out) {
    (void)scratch, (void)out;
    return a->done ? PASS_OK : PASS_BAD;
}

bool pass_responses_fail(struct pass_answer *a, int status, const char *code, struct slice message, struct slice error,
                         struct arena *arena, struct pieces *out) {
    (void)status;
    struct buf b;
    struct json_writer w;
    struct json j;
    unsigned long long n = a->own[OWN_SEQUENCE];
    int shown = json_parse(&j, arena, error.ptr, error.len) ? json_get(&j, json_get(&j, 0, "error"), "code")
                                                            : -1; /* with the brand */
    buf_init(&b, arena->pages, 64 << 10);
    jw_init(&w, &b);
    jw_object(&w);
    jw_key(&w, "code");
    if (shown >= 0)
        jw_raw(&w, json_span(&j, shown));
    else
        jw_cstr(&w, code);
    jw_key(&w, "message");
    jw_str(&w, message);
    jw_end_object(&w);
    struct slice fault = arena_copy(arena, buf_slice(&b));
    bool ok = !w.failed && fault.len > 2;
    buf_release(&b);
    if (!ok)
        return false;
    struct slice inner = slice_of(fault.ptr + 1, fault.len - 2);
    a->own[OWN_SEQUENCE] += 2;
    pieces_add(out,
               arena_printf(arena,
                            "event: error\ndata: {\"type\":\"error\",\"sequence_number\":%llu,%.*s,\"param\":null}\n\n",
                            n, SLICE_ARG(inner)));
    pieces_add(
        out,
        arena_printf(
            arena,
            "event: response.failed\ndata: {\"type\":\"response.failed\",\"sequence_number\":%llu,\"response\":{%.*s%s"
            "\"status\":\"failed\",\"error\":%.*s,\"incomplete_details\":null,\"output\":[],\"usage\":null}}\n\n",
            n + 1, (int)a->ident_len, a->ident, a->ident_len > 0 ? "," : "", SLICE_ARG(fault)));
    return !arena->overflow && !out->full;
}
