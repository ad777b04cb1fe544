/* Helpers of the dialects' readers and writers. */
#include "proto/dialect/common.h"

bool common_wrong(struct ir_request *r, struct ir_fault *f, struct slice param, const char *want) {
    return ir_refuse(f, "invalid_value", param, arena_printf(r->arena, "%.*s must be %s.", SLICE_ARG(param), want));
}

enum field_result { FIELD_READ, FIELD_OTHER, FIELD_WRONG };

static enum field_result wrong(struct ir_request *r, struct ir_fault *f, const char *name, const char *want) {
    common_wrong(r, f, slice_str(name), want);
    return FIELD_WRONG;
}

static enum field_result read_field(const struct json *j, int t, const struct field *x, struct ir_request *r,
                                    struct ir_fault *f) {
    void *at = (char *)r + x->at;
    uint64_t n;
    switch (x->kind) {
    case FIELD_NUMBER:
        if (!json_is(j, t, JSON_NUMBER))
            return wrong(r, f, x->name, "a number");
        *(struct slice *)at = json_raw(j, t);
        return FIELD_READ;
    case FIELD_STRING:
        if (!json_is(j, t, JSON_STRING))
            return wrong(r, f, x->name, "a string");
        *(struct slice *)at = json_str(j, t, r->arena);
        return FIELD_READ;
    case FIELD_BOOL:
        return json_bool(j, t, at) ? FIELD_READ : wrong(r, f, x->name, "true or false");
    case FIELD_COUNT:
        if (!json_u64(j, t, &n) || n < 1 || n > IR_CHOICES_MAX)
            return wrong(r, f, x->name, "a whole number from 1 to 128");
        *(uint64_t *)at = n;
        return FIELD_READ;
    case FIELD_LIMIT:
        if (!json_u64(j, t, &r->limit))
            return wrong(r, f, x->name, "a whole number, not negative");
        r->has_limit = true;
        return FIELD_READ;
    default:
        return FIELD_OTHER;
    }
}

/* key: the member's key token. FIELD_OTHER: not in the table, or FIELD_KNOWN (then *which is its place, else count). */
static enum field_result member(const struct json *j, int key, const struct field *table, uint32_t count,
                                struct ir_request *r, struct ir_fault *f, uint32_t *which) {
    for (*which = 0; *which < count; ++*which) {
        const struct field *x = &table[*which];
        if (!json_str_is(j, key, x->name))
            continue;
        if (json_get(j, 0, x->name) != key + 1 && r->n > 0 && json_duplicate(j, 0, x->name)) {
            ir_refuse(f, "invalid_value", slice_str(x->name), SLICE("A member stands twice in the body."));
            return FIELD_WRONG;
        }
        if (json_is(j, key + 1, JSON_NULL))
            return FIELD_READ;
        return read_field(j, key + 1, x, r, f);
    }
    return FIELD_OTHER;
}

/* Whether a moderation member of OpenAI's dialects has a policy that blocks: it decides whether there is an answer,
 * while scores only come beside one. */
static bool blocks(const struct json *j, int t) {
    int policy = json_get(j, t, "policy");
    return json_str_is(j, json_get(j, json_get(j, policy, "input"), "mode"), "block") ||
           json_str_is(j, json_get(j, json_get(j, policy, "output"), "mode"), "block");
}

static void keep_extra(struct ir_request *r, const struct json *j, int key) {
    ir_add_extra(r, j, key);
    if (json_str_is(j, key, "moderation"))
        r->must_moderate = r->must_moderate || blocks(j, key + 1);
}

bool common_members(const struct json *j, const struct field *table, uint32_t count, common_read *read,
                    struct ir_request *r, struct ir_fault *f, uint32_t *seen) {
    for (int key = json_first(j, 0); key >= 0; key = json_next(j, 0, key)) {
        uint32_t which;
        enum field_result got = member(j, key, table, count, r, f, &which);
        if (got == FIELD_WRONG)
            return false;
        if (got == FIELD_READ)
            continue;
        if (which == count) {
            keep_extra(r, j, key);
            continue;
        }
        *seen |= 1u << which;
        if (!read(j, key + 1, which, r, f))
            return false;
    }
    return true;
}

bool common_strings(const struct json *j, int t, struct ir_request *r, struct ir_text **list) {
    if (json_is(j, t, JSON_STRING)) {
        ir_add_text(r, list, json_str(j, t, r->arena));
        return true;
    }
    if (!json_is(j, t, JSON_ARRAY))
        return false;
    for (int i = json_first(j, t); i >= 0; i = json_next(j, t, i)) {
        if (!json_is(j, i, JSON_STRING))
            return false;
        ir_add_text(r, list, json_str(j, i, r->arena));
    }
    return true;
}

void common_effort(struct ir_request *r, struct slice word) {
    r->effort = ir_effort_named(word);
    if (word.len > 0 && r->effort == IR_EFFORT_UNSET)
        ir_note(r, ir_member(r, "effort"));
}

struct slice common_cache_mark(const struct json *j, int t, struct arena *arena) {
    if (!json_is(j, t, JSON_OBJECT))
        return SLICE_NONE;
    struct slice ttl = json_str(j, json_get(j, t, "ttl"), arena);
    return ttl.ptr ? ttl : SLICE("5m");
}

struct slice common_mark_of(const struct json *j, int obj, struct arena *arena) {
    struct slice mark = common_cache_mark(j, json_get(j, obj, "cache_control"), arena);
    return mark.ptr ? mark : common_cache_mark(j, json_get(j, obj, "prompt_cache_breakpoint"), arena);
}

/* Nor does {"type":"direct"}: the model itself made the call. */
static bool asks_nothing(const struct json *j, int t) {
    return json_str_is(j, json_get(j, t, "type"), "direct") || json_is(j, t, JSON_NULL) || json_is(j, t, JSON_FALSE) ||
           (json_is(j, t, JSON_STRING) && json_str_len(j, t) == 0) ||
           ((json_is(j, t, JSON_ARRAY) || json_is(j, t, JSON_OBJECT)) && json_size(j, t) == 0);
}

void common_others_as(struct ir_request *r, const struct json *j, int obj, const char *where, const char *const *known,
                      common_is *is) {
    for (int k = json_is(j, obj, JSON_OBJECT) ? json_first(j, obj) : -1; k >= 0; k = json_next(j, obj, k)) {
        const char *const *name = known;
        while (*name && !is(j, k, *name))
            name++;
        if (!*name && !asks_nothing(j, k + 1))
            ir_note(r, arena_printf(r->arena, "%s.%.*s", where, SLICE_ARG(json_str(j, k, r->arena))));
    }
}

void common_set_url(struct ir_request *r, struct ir_part *p, struct slice url) {
    if (!p)
        return;
    if (!ir_data_url(r->arena, url, &p->media_type, &p->data))
        p->url = url;
    else if (slice_ieq(p->media_type, SLICE("image/jpg")))
        p->media_type = SLICE("image/jpeg");
}

const char *common_audio_type(struct slice format) {
    static const struct { const char *format, *type;
    } types[] = {
        { "wav", "audio/wav" },   { "mp3", "audio/mpeg" },  { "flac", "audio/flac" },
        { "ogg", "audio/ogg" },   { "m4a", "audio/mp4" },   { "aac", "audio/aac" },
        { "opus", "audio/opus" }, { "aiff", "audio/aiff" }, { "webm", "audio/webm" },
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (slice_ieq(format, slice_str(types[i].format)))
            return types[i].type;
    return "audio/wav";
}

uint64_t common_count(const struct json *j, int obj, const char *name) {
    uint64_t v;
    int t = json_get(j, obj, name);
    if (json_u64(j, t, &v))
        return v;
    if (json_is(j, t, JSON_STRING) && slice_to_u64(json_raw(j, t), &v)) /* proto3 writes 64-bit integers as strings */
        return v;
    return IR_ABSENT;
}

/* ---- writing ---- */

const char common_custom_schema[] =
    "{\"type\":\"object\",\"properties\":{\"input\":{\"type\":\"string\"}},\"required\":[\"input\"]}";

void common_number(struct json_writer *w, const struct ir_request *r, const struct ir_target *t, struct ir_dropped *d,
                   const char *neutral, const char *name, struct slice value) {
    if (value.len == 0)
        return;
    if (ir_stripped(t, name) || ir_stripped(t, neutral)) { /* in the provider's spelling, or as everybody says */
        ir_drop(d, ir_member(r, neutral));
        return;
    }
    jw_key(w, name);
    jw_raw(w, value);
}

void common_data_url(struct json_writer *w, const char *name, const struct ir_part *p) {
    jw_key(w, name);
    if (p->url.len > 0) {
        jw_str(w, p->url);
        return;
    }
    jw_str_begin(w);
    jw_str_part(w, SLICE("data:"));
    jw_str_part(w, p->media_type.ptr ? p->media_type : SLICE("application/octet-stream"));
    jw_str_part(w, SLICE(";base64,"));
    jw_str_part(w, p->data.ptr ? p->data : SLICE(""));
    jw_str_end(w);
}

/* Chat nests it in a member that Responses does without. */
struct common_grammar common_grammar_of(const struct ir_tool *tool, struct arena *arena) {
    struct common_grammar g = { SLICE_NONE, SLICE_NONE };
    struct json j;
    if (tool->grammar.len > 0 && json_parse(&j, arena, tool->grammar.ptr, tool->grammar.len)) {
        int inner = json_get(&j, 0, "grammar"), body = inner >= 0 ? inner : 0;
        g.definition = json_str(&j, json_get(&j, body, "definition"), arena);
        g.syntax = json_str(&j, json_get(&j, body, "syntax"), arena);
    }
    return g;
}

void common_description(struct json_writer *w, const struct ir_tool *tool, struct arena *arena) {
    struct common_grammar g = common_grammar_of(tool, arena);
    struct slice grammar = g.definition, syntax = g.syntax;
    if (tool->description.len == 0 && grammar.len == 0)
        return;
    jw_key(w, "description");
    jw_str_begin(w);
    jw_str_part(w, tool->description.ptr ? tool->description : SLICE(""));
    if (grammar.len > 0) {
        jw_str_part(w, tool->description.len > 0 ? SLICE("\n\n") : SLICE(""));
        jw_str_part(w, SLICE("The member `input` holds free text that must follow this grammar ("));
        jw_str_part(w, syntax.ptr ? syntax : SLICE("lark"));
        jw_str_part(w, SLICE("):\n"));
        jw_str_part(w, grammar);
    }
    jw_str_end(w);
}

void common_schema(struct json_writer *w, struct arena *arena, struct slice schema, const char *fallback) {
    struct json j;
    if (schema.len == 0 || !json_parse(&j, arena, schema.ptr, schema.len) || !json_is(&j, 0, JSON_OBJECT) ||
        json_size(&j, 0) == 0) {
        if (fallback)
            jw_raw(w, slice_str(fallback));
        return;
    }
    if (json_get(&j, 0, "type") >= 0 || json_get(&j, 0, "$ref") >= 0 || json_get(&j, 0, "anyOf") >= 0) {
        jw_raw(w, schema);
        return;
    }
    jw_object(w);
    common_word(w, "type", "object");
    for (int k = json_first(&j, 0); k >= 0; k = json_next(&j, 0, k)) {
        jw_key_slice(w, json_str(&j, k, arena));
        jw_raw(w, json_span(&j, k + 1));
    }
    jw_end_object(w);
}

bool common_full(struct ir_fault *f) {
    if (f->status == 0) {
        ir_refuse(f, "body_too_large", SLICE_NONE, SLICE("The request is too large."));
        f->status = 413;
    }
    return false;
}

/* What stands on parts anywhere that not every target takes: marks for a prompt cache, phases, wishes for detail. */
struct on_parts { bool mark, phase, detail, file_detail; };

static void look(const struct ir_part *p, struct on_parts *on) {
    for (; p; p = p->next) {
        on->mark = on->mark || p->cache.ptr;
        on->phase = on->phase || p->phase.len > 0;
        bool detail = p->detail.len > 0 && !slice_is(p->detail, "auto");
        on->detail = on->detail || detail;
        on->file_detail = on->file_detail || (detail && p->kind == IR_FILE);
        look(p->parts, on); /* the parts of a result: one level */
    }
}

static struct on_parts look_at(const struct ir_request *r) {
    struct on_parts on = { false, false, false, false };
    for (const struct ir_tool *t = r->tools; t; t = t->next)
        on.mark = on.mark || t->cache.ptr;
    for (const struct ir_turn *t = r->turns; t; t = t->next)
        look(t->parts, &on);
    return on;
}

static bool is_standard(struct slice tier) {
    static const char *const words[] = { "auto", "default", "standard", "standard_only", "unspecified" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (slice_ieq(tier, slice_str(words[i])))
            return true;
    return tier.len == 0;
}

/* What only tunes a search and has no place at the target. That it does not go at all is reported elsewhere. */
static void report_search(const struct ir_request *r, enum ir_dialect target, struct ir_dropped *d) {
    const struct ir_tool *tool = r->from == target ? NULL : common_search_tool(r);
    if (!tool)
        return;
    if (tool->search.depth.len > 0 && target != IR_RESPONSES)
        ir_drop(d, SLICE("search_context_size"));
    if (tool->search.place.len > 0 && target == IR_GEMINI)
        ir_drop(d, SLICE("user_location"));
}

bool common_rest(struct json_writer *w, const struct ir_request *r, enum ir_dialect target, const char *const *list,
                 struct ir_dropped *d, struct ir_fault *f) {
    struct on_parts on = look_at(r);
    bool moderated = false;
    for (const struct ir_extra *x = r->extras; x; x = x->next) {
        bool carried = x->raw.len > 0 && r->from == target;
        for (const char *const *name = list; name && *name && x->raw.len > 0 && !carried; name++)
            carried = slice_is(x->name, *name);
        if (!carried) {
            ir_drop(d, x->name);
            continue;
        }
        moderated = moderated || slice_is(x->name, "moderation");
        jw_key_slice(w, x->name);
        jw_raw(w, x->raw);
    }
    if (r->must_moderate && !moderated)
        return ir_unsupported(r, f, "moderation");
    ir_drop_if(d, r, r->user.len > 0 && !common_sister(r->from, target), "user");
    ir_drop_if(d, r, on.mark && target != IR_ANTHROPIC, "cache");
    ir_drop_if(d, r, on.phase && target != IR_RESPONSES, "input.phase");
    ir_drop_if(d, r, (target == IR_OPENAI ? on.file_detail : on.detail && target != IR_RESPONSES) && r->from != target,
               "detail");
    ir_drop_if(d, r, r->verbosity.len > 0 && target > IR_RESPONSES, "verbosity");
    ir_drop_if(d, r, r->schema_description.len > 0 && target > IR_RESPONSES, "format_description");
    ir_drop_if(d, r, r->validated && target != IR_GEMINI, "strict");
    report_search(r, target, d);
    ir_drop_if(d, r, !is_standard(r->service_tier), "service_tier");
    ir_drop_if(d, r, !r->logprobs && r->top_logprobs.len > 0, "top_logprobs");
    bool forced = r->choice == IR_CHOICE_REQUIRED || r->choice == IR_CHOICE_ONE || r->choice == IR_CHOICE_SUBSET;
    ir_drop_if(d, r, forced && !r->tools, "choice");
    return true;
}

struct slice common_file_name(const struct ir_part *p, struct arena *arena) {
    static const struct { const char *type, *tail; } kinds[] = {
        { "application/pdf", ".pdf" }, { "text/csv", ".csv" },         { "text/html", ".html" },
        { "text/markdown", ".md" },    { "application/json", ".json" }, { "text/", ".txt" },
    };
    const char *tail = "";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && !*tail; i++)
        if (slice_starts(p->media_type, slice_str(kinds[i].type)))
            tail = kinds[i].tail;
    if (p->name.len > 0 && memchr(p->name.ptr, '.', p->name.len))
        return p->name;
    return arena_printf(arena, "%.*s%s", SLICE_ARG(p->name.len > 0 ? p->name : SLICE("file")), tail);
}

struct slice common_file_head(const struct ir_part *p, bool titled, struct arena *arena) {
    struct slice title = titled ? p->title : SLICE_NONE;
    if (title.len + p->context.len == 0)
        return SLICE_NONE;
    return arena_printf(arena, "%.*s%s%.*s\n", SLICE_ARG(title), title.len > 0 && p->context.len > 0 ? "\n" : "",
                        SLICE_ARG(p->context));
}

bool common_named(struct slice model, const char *const *list) {
    const char *slash = model.len > 0 ? memrchr(model.ptr, '/', model.len) : NULL;
    if (slash)
        model = slice_from(model, (size_t)(slash + 1 - model.ptr));
    for (; *list; list++)
        if (slice_starts(model, slice_str(*list)))
            return true;
    return false;
}

const struct ir_tool *common_search_tool(const struct ir_request *r) {
    for (const struct ir_tool *x = r->tools; x; x = x->next)
        if (x->kind == IR_HOSTED && slice_is(x->name, "web_search"))
            return x;
    return NULL;
}

bool common_web_search(const struct ir_request *r, const struct ir_target *t) {
    return common_search_tool(r) && ir_allowed(t, "web_search");
}

bool common_unsearchable(const struct ir_request *r, const struct ir_tool *tool, struct ir_fault *f) {
    return ir_refuse(f, "unsupported_parameter", arena_printf(r->arena, "tools[%u]", tool->index),
                     SLICE("The web search of this model's provider cannot be held to these domains."));
}

void common_place(struct json_writer *w, struct slice place, struct arena *arena) {
    static const char *const names[] = { "city", "country", "region", "timezone" };
    struct json j;
    if (place.len == 0 || !json_parse(&j, arena, place.ptr, place.len))
        return;
    jw_key(w, "user_location");
    jw_object(w);
    common_word(w, "type", "approximate");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int t = json_get(&j, 0, names[i]);
        if (json_is(&j, t, JSON_STRING))
            common_member(w, names[i], json_str(&j, t, arena));
    }
    jw_end_object(w);
}

void common_event_begin(struct buf *out, const char *name) {
    if (name) {
        buf_append(out, "event: ", 7);
        buf_append_slice(out, slice_str(name));
        buf_append(out, "\n", 1);
    }
    buf_append(out, "data: ", 6);
}

bool common_event_end(struct buf *out, const struct json_writer *w) {
    return buf_append(out, "\n\n", 2) && !w->failed;
}
