/* Chat Completions, the answer: usage is found wherever the vendors put it (a last chunk without choices, the finish
 * chunk, every chunk), cost is spliced into it, and where the client did not ask for the extra chunk the figures ride
 * on the chunk that bears the (last) finish_reason, which alone waits for them. */
#include "proto/dialect/openai.h"

#include "proto/pass/alike.h"
#include "proto/pass/edits.h"
#include "proto/pass/openai.h"

/* What one chunk, or a whole answer, holds. Token indices, -1 absent. */
struct chunk {
    int id, created, model, choices, usage, error;
    bool finish;     /* some choice says why it ended */
    bool audio;      /* some choice speaks */
    bool no_choices; /* choices is there and empty */
    uint64_t text_bytes;
    struct alike_holes holes; /* its words */
};

/* Text the model made, wherever vendors put it: every string in a delta or message but its role, ids and types. */
static uint64_t generated_bytes(const struct json *j, int v, struct alike_holes *holes) {
    uint64_t bytes = 0;
    if (json_is(j, v, JSON_STRING)) {
        alike_add(holes, v, ALIKE_TEXT);
        return json_str_len(j, v);
    }
    if (json_is(j, v, JSON_ARRAY)) {
        for (int t = json_first(j, v); t >= 0; t = json_next(j, v, t))
            bytes += generated_bytes(j, t, holes);
    } else if (json_is(j, v, JSON_OBJECT)) {
        for (int k = json_first(j, v); k >= 0; k = json_next(j, v, k)) {
            struct slice name = json_raw(j, k);
            if (!slice_is(name, "role") && !slice_is(name, "id") && !slice_is(name, "type"))
                bytes += generated_bytes(j, k + 1, holes);
        }
    }
    return bytes;
}

static void look_at_choices(const struct json *j, struct arena *arena, struct chunk *c) {
    int first = json_first(j, c->choices);
    c->no_choices = json_is(j, c->choices, JSON_ARRAY) && first < 0;
    for (int t = first; t >= 0; t = json_next(j, c->choices, t)) {
        if (!json_is(j, t, JSON_OBJECT))
            continue;
        for (int k = json_first(j, t); k >= 0; k = json_next(j, t, k)) {
            struct slice name = json_str(j, k, arena);
            if (slice_is(name, "delta") || slice_is(name, "message") || slice_is(name, "text")) {
                c->text_bytes += generated_bytes(j, k + 1, &c->holes);
                c->audio |= json_get(j, k + 1, "audio") >= 0;
            } else if (slice_is(name, "finish_reason")) {
                c->finish |= json_is(j, k + 1, JSON_STRING) && json_raw(j, k + 1).len > 0;
            }
        }
    }
}

static void look_at(const struct json *j, struct arena *arena, struct chunk *c) {
    *c = (struct chunk){ .id = -1, .created = -1, .model = -1, .choices = -1, .usage = -1, .error = -1 };
    for (int k = json_first(j, 0); k >= 0; k = json_next(j, 0, k)) {
        struct slice name = json_str(j, k, arena);
        switch (name.len) {
        case 2:
            if (slice_is(name, "id"))
                c->id = k + 1;
            break;
        case 5:
            if (slice_is(name, "model"))
                c->model = k + 1;
            else if (slice_is(name, "usage"))
                c->usage = k + 1;
            else if (slice_is(name, "error") && !json_is(j, k + 1, JSON_NULL) && !json_is(j, k + 1, JSON_FALSE))
                c->error = k + 1;
            break;
        case 7:
            if (slice_is(name, "created"))
                c->created = k + 1;
            else if (slice_is(name, "choices"))
                c->choices = k + 1;
            break;
        case 11:
            if (slice_is(name, "obfuscation") && json_is(j, k + 1, JSON_STRING))
                alike_add(&c->holes, k + 1, ALIKE_STRING);
            break;
        default: break;
        }
    }
    look_at_choices(j, arena, c);
}

/* id_prefix replaces `chatcmpl-` and `cmpl-`, and nothing else. */
static struct slice shown_id(const struct pass_answer *a, struct slice id, struct slice *prefix) {
    size_t len = slice_starts(id, SLICE("chatcmpl-")) ? 9 : slice_starts(id, SLICE("cmpl-")) ? 5 : 0;
    *prefix = a->id_prefix.len > 0 && len > 0 ? a->id_prefix : SLICE("");
    return prefix->len > 0 ? slice_from(id, len) : id;
}

static void edit_id(struct edits *e, const struct pass_answer *a, int id) {
    struct slice prefix;
    if (!json_is(e->j, id, JSON_STRING))
        return;
    struct slice rest = shown_id(a, json_raw(e->j, id), &prefix);
    if (prefix.len > 0)
        edits_set(e, id, ARENA_JOIN(e->arena, SLICE("\""), prefix, rest, SLICE("\"")));
}

/* Spoken answers are kept by the provider under an id that a later request may name. */
static void edit_audio(struct edits *e, const struct pass_answer *a, const struct chunk *c) {
    if (a->seal == NULL || !c->audio)
        return;
    for (int t = json_first(e->j, c->choices); t >= 0; t = json_next(e->j, c->choices, t)) {
        edits_seal(e, a, json_get(e->j, json_get(e->j, json_get(e->j, t, "message"), "audio"), "id"));
        edits_seal(e, a, json_get(e->j, json_get(e->j, json_get(e->j, t, "delta"), "audio"), "id"));
    }
}

static void remember_ident(struct pass_answer *a, const struct json *j, const struct chunk *c, struct arena *scratch) {
    if (a->ident_len > 0 || c->id < 0)
        return;
    struct slice prefix, id = shown_id(a, json_raw(j, c->id), &prefix);
    struct slice created = c->created >= 0 ? json_span(j, c->created) : SLICE("0");
    struct slice model = c->model >= 0 ? json_span(j, c->model) : SLICE("\"\"");
    struct slice t = arena_printf(
        scratch, "\"id\":\"%.*s%.*s\",\"object\":\"chat.completion.chunk\",\"created\":%.*s,\"model\":%.*s",
        SLICE_ARG(prefix), SLICE_ARG(id), SLICE_ARG(created), SLICE_ARG(model));
    if (t.ptr == NULL || t.len >= sizeof a->ident)
        return;
    memcpy(a->ident, t.ptr, t.len);
    a->ident_len = (uint16_t)t.len;
}

/* The last figures count, wherever they stand: Moonshot's in a choice, Groq's under x_groq. */
static bool take_usage(struct pass_answer *a, const struct json *j, const struct chunk *c) {
    struct ir_usage u = { .tools = a->tools };
    for (int t = json_first(j, c->choices); t >= 0; t = json_next(j, c->choices, t))
        openai_read_usage(j, json_get(j, t, "usage"), &u);
    openai_read_usage(j, json_get(j, json_get(j, 0, "x_groq"), "usage"), &u);
    openai_read_usage(j, c->usage, &u);
    if (u.seen)
        edits_take(a, &u);
    return u.seen;
}

static void edit_figure(struct edits *e, int usage, const char *name, uint64_t figure) {
    int v = json_get(e->j, usage, name);
    uint64_t said;
    if (v >= 0 && (!json_u64(e->j, v, &said) || said != figure))
        edits_set_number(e, v, figure);
}

/* A part that the vendor names elsewhere, or not at all, in the place where clients look for it. */
static void edit_detail(struct edits *e, int usage, const char *details, const char *name, uint64_t figure) {
    int object = json_get(e->j, usage, details), v = json_get(e->j, object, name);
    uint64_t said = 0;
    json_u64(e->j, v, &said);
    if (said >= figure)
        return; /* nearly always */
    struct slice member = arena_printf(e->arena, "\"%s\":%llu", name, (unsigned long long)figure);
    if (v >= 0)
        edits_set_number(e, v, figure);
    else if (json_is(e->j, object, JSON_OBJECT))
        edits_append(e, object, member);
    else if (object >= 0)
        edits_set(e, object, arena_printf(e->arena, "{%.*s}", SLICE_ARG(member)));
    else
        edits_append(e, usage, arena_printf(e->arena, "\"%s\":{%.*s}", details, SLICE_ARG(member)));
}

/* Where a vendor leaves something out of its counts (xAI's reasoning, thoughts behind Google's compatible endpoint) the
 * client sees what it pays for. */
static void edit_figures(struct edits *e, const struct pass_answer *a, int usage) {
    uint64_t in = meters_input(&a->meters), out = meters_output(&a->meters);
    if (!a->usage_seen)
        return;
    edit_figure(e, usage, "prompt_tokens", in);
    edit_figure(e, usage, "completion_tokens", out);
    edit_figure(e, usage, "total_tokens", in + out);
    edit_detail(e, usage, "prompt_tokens_details", "cached_tokens", a->meters.n[METER_CACHED_INPUT]);
    edit_detail(e, usage, "completion_tokens_details", "reasoning_tokens", a->meters.n[METER_REASONING]);
}

/* The usage object as the provider gave it, with the cost; or from our meters where it gave none. */
static struct slice usage_object(struct pass_answer *a, const struct json *j, int usage, struct arena *arena) {
    if (json_is(j, usage, JSON_OBJECT) && json_first(j, usage) >= 0) {
        struct edits e;
        struct json part;
        struct slice span = json_span(j, usage);
        if (!json_parse(&part, arena, span.ptr, span.len))
            return SLICE_NONE;
        edits_begin(&e, &part, arena);
        edit_figures(&e, a, 0);
        edits_cost(&e, &a->cost, 0, false);
        return edits_line(&e);
    }
    return edits_made_usage(a, openai_write_usage, arena);
}

enum pass_result pass_chat_whole(struct pass_answer *a, const struct json *j, struct arena *arena, struct pieces *out,
                                 struct pass_fault *fault) {
    struct chunk c;
    if (!json_is(j, 0, JSON_OBJECT))
        return PASS_BAD;
    look_at(j, arena, &c);
    if (c.error >= 0) {
        pass_read_error(j, arena, fault);
        return PASS_ERROR;
    }
    if (!json_is(j, c.choices, JSON_ARRAY))
        return PASS_BAD;
    a->text_bytes = c.text_bytes;
    a->finished = true;
    take_usage(a, j, &c);
    edits_settle(a);
    struct edits e;
    edits_begin(&e, j, arena);
    edit_id(&e, a, c.id);
    edit_audio(&e, a, &c);
    if (json_is(j, c.usage, JSON_OBJECT) && a->usage_seen) {
        edit_figures(&e, a, c.usage);
        edits_cost(&e, &a->cost, c.usage, false);
    } else {
        edits_member(&e, 0, "usage", c.usage, usage_object(a, j, -1, arena));
    }
    a->usage_sent = true;
    return edits_put(&e, out) ? PASS_OK : PASS_BAD;
}

/* Lets the waiting finish chunk go. last: with the figures, from the usage object at `usage` of a later chunk, else of
 * its own. */
static void flush_held(struct pass_answer *a, const struct json *usage_from, int usage, bool last,
                       struct arena *scratch, struct pieces *out) {
    if (a->held->len == 0)
        return;
    struct sse_event ev = { .data = arena_copy(scratch, buf_slice(a->held)) };
    struct json j;
    struct chunk c;
    struct edits e;
    buf_release(a->held);
    if (ev.data.ptr == NULL || !json_parse(&j, scratch, ev.data.ptr, ev.data.len))
        return; /* it parsed when it came: only memory can fail here, and the arena's overflow is seen by the caller */
    look_at(&j, scratch, &c);
    edits_begin(&e, &j, scratch);
    edit_id(&e, a, c.id);
    edit_audio(&e, a, &c);
    if (last) {
        bool later = usage_from != NULL && json_is(usage_from, usage, JSON_OBJECT);
        edits_settle(a);
        edits_member(&e, 0, "usage", c.usage,
                     later ? usage_object(a, usage_from, usage, scratch) : usage_object(a, &j, c.usage, scratch));
        a->usage_sent = true;
    } else if (c.usage >= 0) {
        edits_cut(&e, 0, &c.usage, 1);
    }
    edits_put_event(&e, &ev, SLICE(""), out);
}

/* The stream ends well: what waits goes out, the figures too, then the terminator. */
static enum pass_result finish_stream(struct pass_answer *a, struct arena *scratch, struct pieces *out) {
    if (a->done)
        return PASS_OK;
    a->done = true;
    struct json kept;
    bool has_kept = a->wants_usage && a->held->len > 0 && json_parse(&kept, scratch, buf_ptr(a->held), a->held->len);
    if (!a->wants_usage)
        flush_held(a, NULL, -1, true, scratch, out);
    edits_settle(a);
    if (!a->usage_sent) { /* no chunk to put them on: one of our own, and with a choice where the client did not ask for
                             one without */
        struct slice usage = has_kept ? usage_object(a, &kept, 0, scratch) : usage_object(a, NULL, -1, scratch);
        const char *choices = a->wants_usage ? "" : "{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}";
        pieces_add(out, arena_printf(scratch, "data: {%.*s%s\"choices\":[%s],\"usage\":%.*s}\n\n", (int)a->ident_len,
                                     a->ident, a->ident_len > 0 ? "," : "", choices, SLICE_ARG(usage)));
        a->usage_sent = true;
    }
    pieces_add(out, SLICE("data: [DONE]\n\n"));
    return scratch->overflow || out->full ? PASS_BAD : PASS_OK;
}

/* A client that asked for the standard last chunk gets it at the end, with these figures unless others come. */
static void keep_usage(struct pass_answer *a, const struct json *j, int usage, struct arena *scratch) {
    buf_release(a->held);
    scratch->overflow |= !buf_append_slice(a->held, json_span(j, usage));
}

/* The chunk without choices that only brings the figures. */
static void usage_chunk(struct pass_answer *a, const struct sse_event *ev, const struct json *j, const struct chunk *c,
                        struct arena *scratch, struct pieces *out) {
    if (!a->wants_usage) {
        if (a->held->len > 0)
            flush_held(a, j, c->usage, true, scratch, out);
        return;
    }
    struct edits e;
    if (!a->finished) { /* the last figures count: they wait for others, or for the end */
        keep_usage(a, j, c->usage, scratch);
        return;
    }
    edits_begin(&e, j, scratch);
    edit_id(&e, a, c->id);
    edits_settle(a);
    edit_figures(&e, a, c->usage);
    edits_cost(&e, &a->cost, c->usage, false);
    a->usage_sent = true;
    edits_put_event(&e, ev, SLICE(""), out);
}

enum pass_result pass_chat_event(struct pass_answer *a, const struct sse_event *ev, struct arena *scratch,
                                 struct pieces *out, struct pass_fault *fault) {
    if (!ev->has_data || a->done)
        return PASS_OK; /* comments are not passed on: our own pings keep the line alive */
    if (slice_is(slice_trim(ev->data), "[DONE]"))
        return a->finished || a->events > 0 ? finish_stream(a, scratch, out) : PASS_BAD;
    struct alike_found found;
    if (alike_take(&a->alike, ev, scratch, out, &found)) {
        a->events++;
        a->text_bytes += found.text_bytes;
        return PASS_OK;
    }
    struct json_tok tape[EDITS_TAPE];
    struct json j;
    struct edits e;
    if (!edits_parse_event(&j, tape, ev, scratch))
        return PASS_BAD;
    struct chunk c;
    look_at(&j, scratch, &c);
    bool figures = take_usage(a, &j, &c); /* of an error too: what failed late may have cost */
    if (c.error >= 0 || slice_is(ev->name, "error")) {
        pass_read_error(&j, scratch, fault);
        return PASS_ERROR;
    }
    a->events++;
    a->text_bytes += c.text_bytes;
    remember_ident(a, &j, &c, scratch);
    if (c.finish && !a->wants_usage) {
        flush_held(a, NULL, -1, false, scratch, out);
        a->finished = true;
        if (!buf_append_slice(a->held, ev->data))
            return PASS_BAD;
        return scratch->overflow ? PASS_BAD : PASS_OK;
    }
    a->finished |= c.finish;
    if (c.no_choices && json_is(&j, c.usage, JSON_OBJECT)) {
        usage_chunk(a, ev, &j, &c, scratch, out);
        return scratch->overflow || out->full ? PASS_BAD : PASS_OK;
    }
    edits_begin(&e, &j, scratch);
    edit_id(&e, a, c.id);
    edit_audio(&e, a, &c);
    if (c.usage >= 0 && !a->wants_usage)
        edits_cut(&e, 0, &c.usage, 1);
    if (json_is(&j, c.usage, JSON_OBJECT) && a->wants_usage) {
        keep_usage(a, &j, c.usage, scratch);
        edits_set(&e, c.usage, SLICE("null")); /* the figures come in the standard last chunk */
    }
    uint32_t first = out->count;
    if (!edits_put_event(&e, ev, SLICE(""), out))
        return PASS_BAD;
    if (!figures && !c.finish)
        alike_keep(&a->alike, ev, &j, &c.holes, out, first);
    return PASS_OK;
}

enum pass_result pass_chat_end(struct pass_answer *a, struct arena *scratch, struct pieces *out) {
    return a->finished || a->done ? finish_stream(a, scratch, out) : PASS_BAD;
}

bool pass_chat_fail(struct pass_answer *a, int status, const char *code, struct slice message, struct slice error,
                    struct arena *arena, struct pieces *out) {
    (void)a, (void)status, (void)code, (void)message;
    pieces_add(out, arena_printf(arena, "data: %.*s\n\n", SLICE_ARG(error)));
    return !arena->overflow && !out->full;
}
