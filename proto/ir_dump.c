/* The neutral form as text, one line a thing: what tests compare and people read. Strings are JSON strings; what is
 * absent is not written. The form is stable: golden files depend on it. */
#include "proto/ir.h"

static const char *const stop_names[] = { "unknown", "end",    "string",  "limit", "context",
                                          "tools",   "filter", "refusal", "pause", "model-error" };
static const char *const dialect_names[] = { "openai", "responses", "anthropic", "gemini" };
static const char *const part_names[] = { "text",  "refusal", "reasoning", "image", "audio",
                                          "video", "file",    "call",      "result" };
static const char *const role_names[] = { "system", "user", "assistant" };
static const char *const choice_names[] = { "", "auto", "none", "required", "one", "subset" };
static const char *const blob_names[] = { "", "signature", "redacted", "call" };
static const char *const meter_names[METER_COUNT] = {
    "input",  "cached_input", "cache_write",  "cache_write_1h", "audio_input", "image_input",
    "output", "reasoning",    "audio_output", "image_output",   "images",
};

const char *ir_stop_name(enum ir_stop stop) {
    return stop_names[stop];
}

const char *ir_dialect_name(enum ir_dialect d) {
    return dialect_names[d];
}

static void put(struct buf *out, const char *s) {
    buf_append_slice(out, slice_str(s));
}

/* " name "text"", if there is a text. */
static void put_text(struct buf *out, const char *name, struct slice s) {
    if (s.len == 0)
        return;
    struct json_writer w;
    buf_printf(out, " %s%s", name, *name ? " " : "");
    jw_init(&w, out);
    jw_str(&w, s);
}

static void put_blob(struct buf *out, const struct ir_blob *b) {
    if (b->kind == IR_BLOB_NONE)
        return;
    buf_printf(out, " %s=%s", blob_names[b->kind], dialect_names[b->maker]);
    if (b->origin)
        buf_printf(out, "@%u", b->origin);
    put_text(out, "", b->data);
}

static void put_parts(struct buf *out, const struct ir_part *p, int indent) {
    for (; p; p = p->next) {
        buf_printf(out, "%*s%s", indent, "", part_names[p->kind]);
        if (p->custom)
            put(out, " custom");
        if (p->is_error)
            put(out, " error");
        put_text(out, "id", p->id);
        put_text(out, "name", p->name);
        put_text(out, "title", p->title);
        put_text(out, "type", p->media_type);
        put_text(out, "url", p->url);
        put_text(out, "data", p->data);
        put_text(out, "detail", p->detail);
        put_text(out, "", p->text);
        put_blob(out, &p->blob);
        if (p->cache.ptr)
            buf_printf(out, " cache %.*s", SLICE_ARG(p->cache));
        put(out, "\n");
        put_parts(out, p->parts, indent + 2);
    }
}

static void put_line(struct buf *out, const char *name, struct slice s) {
    if (s.len > 0)
        buf_printf(out, "%s %.*s\n", name, SLICE_ARG(s));
}

static void put_tools(struct buf *out, const struct ir_request *r) {
    static const char *const kinds[] = { "function", "custom", "hosted" };
    for (const struct ir_tool *t = r->tools; t; t = t->next) {
        buf_printf(out, "tool %s %.*s", kinds[t->kind], SLICE_ARG(t->name));
        if (t->sent.len > 0)
            buf_printf(out, " as %.*s", SLICE_ARG(t->sent));
        put_text(out, "", t->description);
        if (t->schema.len > 0)
            buf_printf(out, " %.*s", SLICE_ARG(t->schema));
        put(out, t->strict ? " strict" : "");
        if (t->cache.ptr)
            buf_printf(out, " cache %.*s", SLICE_ARG(t->cache));
        put(out, "\n");
    }
    if (r->choice != IR_CHOICE_UNSET) {
        buf_printf(out, "choice %s%s", choice_names[r->choice], r->choice_required ? " required" : "");
        for (const struct ir_text *t = r->choice_names; t; t = t->next)
            buf_printf(out, " %.*s", SLICE_ARG(t->text));
        put(out, "\n");
    }
    if (r->parallel != IR_UNSET)
        buf_printf(out, "parallel %s\n", r->parallel == IR_YES ? "yes" : "no");
}

static void put_settings(struct buf *out, const struct ir_request *r) {
    if (r->has_limit)
        buf_printf(out, "limit %llu\n", (unsigned long long)r->limit);
    if (r->n > 1)
        buf_printf(out, "n %llu\n", (unsigned long long)r->n);
    put_line(out, "temperature", r->temperature);
    put_line(out, "top_p", r->top_p);
    put_line(out, "top_k", r->top_k);
    put_line(out, "seed", r->seed);
    put_line(out, "presence_penalty", r->presence_penalty);
    put_line(out, "frequency_penalty", r->frequency_penalty);
    for (const struct ir_text *t = r->stop; t; t = t->next) {
        put(out, "stop");
        put_text(out, "", t->text);
        put(out, "\n");
    }
    if (r->logprobs)
        buf_printf(out, "logprobs %.*s\n", SLICE_ARG(r->top_logprobs));
    put(out, r->audio_out ? "audio\n" : "");
    put(out, r->image_out ? "images\n" : "");
    if (r->format == IR_FORMAT_JSON)
        put(out, "format json\n");
    if (r->format == IR_FORMAT_SCHEMA)
        buf_printf(out, "format schema %.*s%s %.*s\n", SLICE_ARG(r->schema_name), r->schema_strict ? " strict" : "",
                   SLICE_ARG(r->schema));
    if (r->effort != IR_EFFORT_UNSET)
        buf_printf(out, "effort %s\n", ir_effort_name(r->effort));
    if (r->has_budget)
        buf_printf(out, "budget %lld\n", (long long)r->budget);
    put(out, r->adaptive ? "adaptive\n" : "");
    if (r->thoughts != IR_UNSET)
        buf_printf(out, "thoughts %s\n", r->thoughts == IR_YES ? "yes" : "no");
    put_line(out, "user", r->user);
    put_line(out, "service_tier", r->service_tier);
    put_line(out, "cache_key", r->cache_key);
    for (const struct ir_extra *x = r->extras; x; x = x->next)
        buf_printf(out, "extra %.*s %.*s\n", SLICE_ARG(x->name), SLICE_ARG(x->raw));
}

void ir_dump_request(const struct ir_request *r, struct buf *out) {
    buf_printf(out, "request %.*s%s%s%s\n", SLICE_ARG(r->model), r->stream ? " stream" : "",
               r->wants_usage ? " usage" : "", r->as_array ? " array" : "");
    put_settings(out, r);
    put_tools(out, r);
    for (const struct ir_turn *t = r->turns; t; t = t->next) {
        buf_printf(out, "%s\n", role_names[t->role]);
        put_parts(out, t->parts, 2);
    }
}

void ir_dump_usage(const struct ir_usage *u, struct buf *out) {
    put(out, "usage");
    for (int i = 0; i < METER_COUNT; i++)
        if (u->meters.n[i])
            buf_printf(out, " %s=%llu", meter_names[i], (unsigned long long)u->meters.n[i]);
    if (u->tool_prompt)
        buf_printf(out, " tool_prompt=%llu", (unsigned long long)u->tool_prompt);
    for (int i = 0; i < TOOL_KINDS; i++)
        if (u->tools.n[i])
            buf_printf(out, " %s=%u", tool_names[i], u->tools.n[i]);
    put(out, u->conflict ? " conflict\n" : "\n");
}

void ir_dump_event(const struct ir_event *ev, struct buf *out) {
    static const char *const names[] = { "start", "text",   "refusal",  "reasoning", "reasoning-end",
                                         "call",  "args",   "call-end", "image",     "citation",
                                         "logprobs", "usage", "finish", "error" };
    if (ev->kind == IR_EV_USAGE) {
        ir_dump_usage(ev->usage, out);
        return;
    }
    put(out, names[ev->kind]);
    if (ev->choice)
        buf_printf(out, " #%u", ev->choice);
    if (ev->kind == IR_EV_FINISH)
        buf_printf(out, " %s", ir_stop_name(ev->stop));
    if (ev->kind == IR_EV_ERROR)
        buf_printf(out, " %d %.*s", ev->fault->status, SLICE_ARG(ev->fault->code));
    put(out, ev->custom && ev->kind == IR_EV_CALL ? " custom" : "");
    put_text(out, "id", ev->id);
    put_text(out, "name", ev->name);
    put_text(out, "type", ev->media_type);
    put_text(out, "data", ev->data);
    put_text(out, "", ev->text);
    put_text(out, "said", ev->stop_text);
    put_blob(out, &ev->blob);
    put(out, "\n");
    if (ev->kind == IR_EV_START && ev->usage && ev->usage->seen)
        ir_dump_usage(ev->usage, out);
}
