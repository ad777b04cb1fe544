/* A JSON Schema for output_config.format, which takes less than JSON Schema says: every object must forbid other
 * members, and bounds of numbers, strings and lists are refused. What is left out only narrows, so an answer may
 * satisfy less than was asked: *bent. */
#include "proto/dialect/anthropic.h"

enum { MAX_DEPTH = 64 };

static bool unknown(const struct json *j, int key) {
    static const char *const words[] = {
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "patternProperties",
        "propertyNames",
        "not",
        "if",
        "then",
        "else",
        "dependentRequired",
        "contains",
        "$schema",
        "$id",
        "examples",
        "propertyOrdering",
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (json_str_is(j, key, words[i]))
            return true;
    return false;
}

/* minItems is known up to one. */
static bool many_items(const struct json *j, int key) {
    uint64_t n;
    return json_str_is(j, key, "minItems") && (!json_u64(j, key + 1, &n) || n > 1);
}

static bool has_type(const struct json *j, int t, const char *word) {
    if (!json_is(j, t, JSON_ARRAY))
        return json_str_is(j, t, word);
    for (int i = json_first(j, t); i >= 0; i = json_next(j, t, i))
        if (json_str_is(j, i, word))
            return true;
    return false;
}

static void write_schema(struct json_writer *w, const struct json *j, int t, struct arena *arena, int depth,
                         bool *bent);

static void write_map(struct json_writer *w, const struct json *j, int t, struct arena *arena, int depth, bool *bent) {
    jw_object(w);
    for (int k = json_first(j, t); k >= 0; k = json_next(j, t, k)) {
        jw_key_slice(w, json_str(j, k, arena));
        write_schema(w, j, k + 1, arena, depth + 1, bent);
    }
    jw_end_object(w);
}

static void write_list(struct json_writer *w, const struct json *j, int t, struct arena *arena, int depth, bool *bent) {
    jw_array(w);
    for (int i = json_first(j, t); i >= 0; i = json_next(j, t, i))
        write_schema(w, j, i, arena, depth + 1, bent);
    jw_end_array(w);
}

static void write_schema(struct json_writer *w, const struct json *j, int t, struct arena *arena, int depth,
                         bool *bent) {
    if (!json_is(j, t, JSON_OBJECT) || depth > MAX_DEPTH) {
        jw_raw(w, json_span(j, t));
        return;
    }
    bool object = has_type(j, json_get(j, t, "type"), "object") || json_get(j, t, "properties") >= 0;
    jw_object(w);
    for (int k = json_first(j, t); k >= 0; k = json_next(j, t, k)) {
        bool open = json_str_is(j, k, "additionalProperties");
        if (open && object) {
            *bent = *bent || !json_is(j, k + 1, JSON_FALSE);
            continue;
        }
        if (unknown(j, k) || many_items(j, k)) {
            *bent = *bent || (!json_str_is(j, k, "$schema") && !json_str_is(j, k, "$id"));
            continue;
        }
        bool map = json_str_is(j, k, "properties") || json_str_is(j, k, "$defs") || json_str_is(j, k, "definitions");
        bool list = json_str_is(j, k, "anyOf") || json_str_is(j, k, "oneOf") || json_str_is(j, k, "allOf");
        jw_key_slice(w, json_str_is(j, k, "oneOf") ? SLICE("anyOf") : json_str(j, k, arena));
        if (map && json_is(j, k + 1, JSON_OBJECT))
            write_map(w, j, k + 1, arena, depth, bent);
        else if (list && json_is(j, k + 1, JSON_ARRAY))
            write_list(w, j, k + 1, arena, depth, bent);
        else if (json_str_is(j, k, "items"))
            write_schema(w, j, k + 1, arena, depth + 1, bent);
        else
            jw_raw(w, json_span(j, k + 1));
    }
    if (object) {
        jw_key(w, "additionalProperties");
        jw_bool(w, false);
    }
    jw_end_object(w);
}

void anthropic_write_schema(struct json_writer *w, struct slice schema, struct arena *arena, bool *bent) {
    struct json j;
    if (json_parse(&j, arena, schema.ptr, schema.len))
        write_schema(w, &j, 0, arena, 0, bent);
    else
        jw_raw(w, schema);
}
