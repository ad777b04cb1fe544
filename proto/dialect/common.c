/* Helpers of the dialects' readers and writers. */
#include "proto/dialect/common.h"

bool common_wrong(struct ir_request *r, struct ir_fault *f, struct slice param, const char *want) {
    return ir_refuse(f, "invalid_value", param, arena_printf(r->arena, "%.*s must be %s.", SLICE_ARG(param), want));
}

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

enum field_result common_field(const struct json *j, int key, const struct field *table, uint32_t count,
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

struct slice common_cache_mark(const struct json *j, int t, struct arena *arena) {
    if (!json_is(j, t, JSON_OBJECT))
        return SLICE_NONE;
    struct slice ttl = json_str(j, json_get(j, t, "ttl"), arena);
    return ttl.ptr ? ttl : SLICE("5m");
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

void common_description(struct json_writer *w, const struct ir_tool *tool, struct arena *arena) {
    struct json j;
    struct slice grammar = SLICE_NONE, syntax = SLICE_NONE;
    if (tool->grammar.len > 0 && json_parse(&j, arena, tool->grammar.ptr, tool->grammar.len)) {
        int inner = json_get(&j, 0, "grammar"), body = inner >= 0 ? inner : 0;
        grammar = json_str(&j, json_get(&j, body, "definition"), arena);
        syntax = json_str(&j, json_get(&j, body, "syntax"), arena);
    }
    if (tool->description.len == 0 && grammar.len == 0)
        return;
    jw_key(w, "description");
    jw_str_begin(w);
    jw_str_part(w, tool->description.ptr ? tool->description : SLICE(""));
    if (grammar.len > 0) {
        jw_str_part(w, SLICE("\n\nThe member `input` holds free text that must follow this grammar ("));
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

/* Marks for a prompt cache, anywhere. */
static bool has_marks(const struct ir_request *r) {
    for (const struct ir_tool *t = r->tools; t; t = t->next)
        if (t->cache.ptr)
            return true;
    for (const struct ir_turn *t = r->turns; t; t = t->next)
        for (const struct ir_part *p = t->parts; p; p = p->next)
            if (p->cache.ptr)
                return true;
    return false;
}

void common_rest(struct json_writer *w, const struct ir_request *r, enum ir_dialect target, const char *const *list,
                 struct ir_dropped *d) {
    for (const struct ir_extra *x = r->extras; x; x = x->next) {
        bool carried = false;
        for (const char *const *name = list; *name && r->from == target && x->raw.len > 0 && !carried; name++)
            carried = slice_is(x->name, *name);
        if (!carried) {
            ir_drop(d, x->name);
            continue;
        }
        jw_key_slice(w, x->name);
        jw_raw(w, x->raw);
    }
    ir_drop_if(d, r, r->user.len > 0 && r->from != target, "user");
    ir_drop_if(d, r, target != IR_ANTHROPIC && has_marks(r), "cache");
    bool standard = slice_is(r->service_tier, "auto") || slice_is(r->service_tier, "default") ||
                    slice_is(r->service_tier, "standard_only");
    ir_drop_if(d, r, r->service_tier.len > 0 && !standard, "service_tier");
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

bool common_web_search(const struct ir_request *r, const struct ir_target *t) {
    for (const struct ir_tool *x = r->tools; x; x = x->next)
        if (x->kind == IR_HOSTED && slice_is(x->name, "web_search"))
            return ir_allowed(t, "web_search");
    return false;
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
