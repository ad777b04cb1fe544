/* Schemas. Gemini's `parameters` and `responseSchema` take a subset of OpenAPI 3.0 and answer 400 to every other
 * word, so what is written is an allow-list: $ref is replaced by what it names (recursion is cut with a plain
 * object), const becomes an enum of one, oneOf and allOf become anyOf and their first branch's members, [T,"null"]
 * becomes nullable, enums become strings, required names that have no property vanish. What is read is the other way:
 * types in small letters, nullable as a type of two. */
#include "proto/dialect/gemini.h"

enum { MAX_DEPTH = 24, MAX_NODES = 20000, MAX_STEPS = 1 << 18 };

struct copy {
    const struct json *j;
    struct arena *arena;
    struct json_writer w;
    uint32_t nodes;
    uint32_t steps; /* of lookups by name, which cost a product: past MAX_STEPS nothing is found */
    bool bent;
    /* For the only branch of an anyOf: it is written into the object that is open, with what stood around it. */
    bool inside, inner_nullable;
    int inner_text;
    int active[32]; /* what references on the way here resolved to: one that comes again is a recursion */
    uint32_t active_count;
};

static struct slice lower(struct arena *arena, struct slice s) {
    struct slice c = arena_copy(arena, s);
    char *p = (char *)(uintptr_t)c.ptr;
    for (size_t i = 0; p && i < c.len; i++)
        if (p[i] >= 'A' && p[i] <= 'Z')
            p[i] = (char)(p[i] - 'A' + 'a');
    return c;
}

/* ---- Gemini → JSON Schema ---- */

static void read_schema(struct copy *c, int t, int depth);

static void read_map(struct copy *c, int t, int depth) {
    jw_object(&c->w);
    for (int k = json_first(c->j, t); k >= 0; k = json_next(c->j, t, k)) {
        jw_key_slice(&c->w, json_str(c->j, k, c->arena));
        read_schema(c, k + 1, depth + 1);
    }
    jw_end_object(&c->w);
}

static void read_member(struct copy *c, int key, bool nullable, int depth) {
    const struct json *j = c->j;
    uint64_t number;
    int t = key + 1;
    if (gemini_is(j, key, "nullable") || gemini_is(j, key, "propertyOrdering") || gemini_is(j, key, "example"))
        return;
    if (gemini_is(j, key, "type") && json_is(j, t, JSON_STRING)) {
        struct slice type = lower(c->arena, json_str(j, t, c->arena));
        jw_key(&c->w, "type");
        if (nullable) {
            jw_array(&c->w);
            jw_str(&c->w, type);
            jw_cstr(&c->w, "null");
            jw_end_array(&c->w);
        } else {
            jw_str(&c->w, type);
        }
        return;
    }
    /* 64-bit integers, which proto3 writes as strings. */
    static const char *const counts[] = { "minItems",  "maxItems",      "minLength",
                                          "maxLength", "minProperties", "maxProperties" };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (gemini_is(j, key, counts[i])) {
            jw_key(&c->w, counts[i]);
            jw_raw(&c->w, json_is(j, t, JSON_STRING) && slice_to_u64(json_raw(j, t), &number) ? json_raw(j, t)
                                                                                             : json_span(j, t));
            return;
        }
    jw_key_slice(&c->w, gemini_is(j, key, "anyOf") ? SLICE("anyOf") : json_str(j, key, c->arena));
    if (gemini_is(j, key, "properties") && json_is(j, t, JSON_OBJECT)) {
        read_map(c, t, depth);
    } else if (gemini_is(j, key, "items") && json_is(j, t, JSON_OBJECT)) {
        read_schema(c, t, depth + 1);
    } else if (gemini_is(j, key, "anyOf") && json_is(j, t, JSON_ARRAY)) {
        jw_array(&c->w);
        for (int i = json_first(j, t); i >= 0; i = json_next(j, t, i))
            read_schema(c, i, depth + 1);
        jw_end_array(&c->w);
    } else {
        jw_raw(&c->w, json_span(j, t));
    }
}

static void read_schema(struct copy *c, int t, int depth) {
    bool nullable = false;
    jw_object(&c->w);
    if (json_is(c->j, t, JSON_OBJECT) && depth < MAX_DEPTH && c->nodes++ < MAX_NODES) {
        json_bool(c->j, json_get(c->j, t, "nullable"), &nullable);
        for (int k = json_first(c->j, t); k >= 0; k = json_next(c->j, t, k))
            read_member(c, k, nullable, depth);
    }
    jw_end_object(&c->w);
}

static struct slice take(struct copy *c, struct buf *b) {
    struct slice s = c->w.failed ? SLICE_NONE : arena_copy(c->arena, buf_slice(b));
    buf_release(b);
    return s;
}

struct slice gemini_schema_read(const struct json *j, int t, struct arena *arena) {
    struct copy c = { .j = j, .arena = arena };
    struct buf b;
    buf_init(&b, arena->pages, 8 << 20);
    jw_init(&c.w, &b);
    read_schema(&c, t, 0);
    return take(&c, &b);
}

/* ---- JSON Schema → Gemini ---- */

static void write_schema(struct copy *c, int t, int depth);

/* `#/$defs/Name` and `#/definitions/Name`: the only ones that are about. */
static int resolve(struct copy *c, struct slice ref) {
    static const char *const places[] = { "$defs", "definitions" };
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(places[i]) + 3;
        if (ref.len <= n || memcmp(ref.ptr, "#/", 2) != 0 || memcmp(ref.ptr + 2, places[i], n - 3) != 0)
            continue;
        struct slice name = slice_from(ref, n);
        int defs = json_get(c->j, 0, places[i]);
        for (int k = json_is(c->j, defs, JSON_OBJECT) ? json_first(c->j, defs) : -1;
             k >= 0 && c->steps++ < MAX_STEPS; k = json_next(c->j, defs, k))
            if (slice_eq(json_str(c->j, k, c->arena), name))
                return k + 1;
    }
    return -1;
}

/* Words that go over as they are. */
static bool kept(const struct json *j, int key) {
    static const char *const words[] = { "title",         "description",   "minItems",  "maxItems",
                                         "minimum",       "maximum",       "minLength", "maxLength",
                                         "minProperties", "maxProperties", "pattern" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (json_str_is(j, key, words[i]))
            return true;
    return false;
}

static void write_format(struct copy *c, int t, struct slice type) {
    static const char *const strings[] = { "date-time", "enum" }, *const numbers[] = { "float", "double", "int32",
                                                                                       "int64" };
    bool string = slice_is(type, "string");
    for (size_t i = 0; i < (string ? 2 : 4); i++)
        if (json_str_is(c->j, t, string ? strings[i] : numbers[i])) {
            jw_key(&c->w, "format");
            jw_raw(&c->w, json_span(c->j, t));
            return;
        }
    c->bent = true;
}

/* Enums of strings alone are known; other values become their text. */
static void write_enum(struct copy *c, int t, bool list) {
    jw_key(&c->w, "enum");
    jw_array(&c->w);
    for (int i = list ? json_first(c->j, t) : t; i >= 0; i = list ? json_next(c->j, t, i) : -1) {
        if (json_is(c->j, i, JSON_NULL))
            continue;
        jw_str(&c->w, json_is(c->j, i, JSON_STRING) ? json_str(c->j, i, c->arena) : json_raw(c->j, i));
    }
    jw_end_array(&c->w);
}

static bool has_property(struct copy *c, int properties, struct slice name) {
    for (int k = json_is(c->j, properties, JSON_OBJECT) ? json_first(c->j, properties) : -1;
         k >= 0 && c->steps++ < MAX_STEPS; k = json_next(c->j, properties, k))
        if (slice_eq(json_str(c->j, k, c->arena), name))
            return true;
    return false;
}

static void write_object_words(struct copy *c, int t, int depth) {
    const struct json *j = c->j;
    int properties = json_get(j, t, "properties"), required = json_get(j, t, "required");
    if (json_is(j, properties, JSON_OBJECT) && json_size(j, properties) > 0) {
        jw_key(&c->w, "properties");
        jw_object(&c->w);
        for (int k = json_first(j, properties); k >= 0; k = json_next(j, properties, k)) {
            jw_key_slice(&c->w, json_str(j, k, c->arena));
            write_schema(c, k + 1, depth + 1);
        }
        jw_end_object(&c->w);
    }
    bool open = false;
    for (int i = json_items(j, required); i >= 0; i = json_next(j, required, i)) {
        struct slice name = json_str(j, i, c->arena);
        if (c->nodes++ >= MAX_NODES || !has_property(c, properties, name))
            continue;
        if (!open) {
            jw_key(&c->w, "required");
            jw_array(&c->w);
        }
        open = true;
        jw_str(&c->w, name);
    }
    if (open)
        jw_end_array(&c->w);
}

/* anyOf stands alone: siblings are refused. A branch that is null makes it nullable; one branch left is no choice. */
static void write_any(struct copy *c, int t, int list, int depth) {
    const struct json *j = c->j;
    bool nullable = false;
    int branches = 0, only = -1, text = json_get(j, t, "description");
    for (int i = json_first(j, list); i >= 0; i = json_next(j, list, i)) {
        bool null = json_str_is(j, json_get(j, i, "type"), "null");
        nullable = nullable || null;
        branches += !null;
        only = null ? only : i;
    }
    if (branches == 1) {
        jw_object(&c->w);
        c->inner_nullable = nullable;
        c->inner_text = text;
        c->inside = true;
        write_schema(c, only, depth + 1);
        jw_end_object(&c->w);
        return;
    }
    jw_object(&c->w);
    jw_key(&c->w, "anyOf");
    jw_array(&c->w);
    for (int i = json_first(j, list); i >= 0; i = json_next(j, list, i))
        if (!json_str_is(j, json_get(j, i, "type"), "null"))
            write_schema(c, i, depth + 1);
    jw_end_array(&c->w);
    if (nullable) {
        jw_key(&c->w, "nullable");
        jw_bool(&c->w, true);
    }
    jw_end_object(&c->w);
}

/* The one type that is not null of a type that may be a list; *nullable: null was among them. */
static struct slice type_of(const struct copy *c, int t, bool *nullable) {
    const struct json *j = c->j;
    int type = json_get(j, t, "type"), given = json_get(j, t, "const"), list = json_get(j, t, "enum");
    if (json_is(j, type, JSON_ARRAY)) {
        int found = -1;
        for (int i = json_first(j, type); i >= 0; i = json_next(j, type, i)) {
            if (json_str_is(j, i, "null"))
                *nullable = true;
            else if (found < 0)
                found = i;
        }
        type = found;
    }
    if (given >= 0 || json_is(j, list, JSON_ARRAY))
        return SLICE("string");
    if (json_is(j, type, JSON_STRING))
        return lower(c->arena, json_str(j, type, c->arena));
    if (json_get(j, t, "items") >= 0)
        return SLICE("array");
    return json_get(j, t, "properties") >= 0 || json_get(j, t, "additionalProperties") >= 0 ? SLICE("object")
                                                                                            : SLICE("");
}

static void write_words(struct copy *c, int t, int depth, bool nullable, int text) {
    const struct json *j = c->j;
    struct slice type = type_of(c, t, &nullable);
    common_member(&c->w, "type", type.len > 0 ? type : SLICE("string"));
    if (nullable) {
        jw_key(&c->w, "nullable");
        jw_bool(&c->w, true);
    }
    if (json_is(j, text, JSON_STRING) && json_get(j, t, "description") < 0) {
        jw_key(&c->w, "description");
        jw_raw(&c->w, json_span(j, text));
    }
    for (int k = json_first(j, t); k >= 0; k = json_next(j, t, k)) {
        if (kept(j, k)) {
            jw_key_slice(&c->w, json_str(j, k, c->arena));
            jw_raw(&c->w, json_span(j, k + 1));
        } else if (json_str_is(j, k, "format")) {
            write_format(c, k + 1, type);
        } else if (json_str_is(j, k, "enum") || json_str_is(j, k, "const")) {
            write_enum(c, k + 1, json_is(j, k + 1, JSON_ARRAY) && json_str_is(j, k, "enum"));
        } else if (!json_str_is(j, k, "type") && !json_str_is(j, k, "properties") && !json_str_is(j, k, "required") &&
                   !json_str_is(j, k, "items") && !json_str_is(j, k, "additionalProperties") &&
                   !json_str_is(j, k, "$schema") && !json_str_is(j, k, "$defs") &&
                   !json_str_is(j, k, "definitions") && !json_str_is(j, k, "default")) {
            c->bent = true;
        }
    }
    if (slice_is(type, "object"))
        write_object_words(c, t, depth);
    if (slice_is(type, "array")) { /* items are required here */
        int items = json_get(j, t, "items");
        jw_key(&c->w, "items");
        if (json_is(j, items, JSON_OBJECT))
            write_schema(c, items, depth + 1);
        else
            jw_raw(&c->w, SLICE("{\"type\":\"string\"}"));
    }
}

/* The schema that a reference names; -1: nothing, or a recursion. */
static int enter(struct copy *c, struct slice ref) {
    int t = resolve(c, ref);
    for (uint32_t i = 0; i < c->active_count; i++)
        if (c->active[i] == t)
            t = -1;
    if (t < 0 || c->active_count >= sizeof c->active / sizeof *c->active) {
        c->bent = true;
        return -1;
    }
    c->active[c->active_count++] = t;
    return t;
}

static void write_settled(struct copy *c, int t, int depth) {
    const struct json *j = c->j;
    bool inside = c->inside, nullable = c->inner_nullable;
    int text = c->inner_text, list = -1;
    c->inside = c->inner_nullable = false;
    c->inner_text = -1;
    for (int hops = 0; hops < 8; hops++) { /* references, and the first of allOf where it is all there is */
        int ref = json_get(j, t, "$ref"), all = json_get(j, t, "allOf"), next = -1;
        if (json_is(j, ref, JSON_STRING)) {
            t = next = enter(c, json_str(j, ref, c->arena));
        } else if (json_is(j, all, JSON_ARRAY) && json_get(j, t, "properties") < 0)
            next = json_first(j, all);
        if (next < 0)
            break;
        c->bent = c->bent || all >= 0;
        t = next;
    }
    if (depth > MAX_DEPTH || c->nodes++ > MAX_NODES || !json_is(j, t, JSON_OBJECT)) {
        c->bent = true;
        if (!inside)
            jw_object(&c->w);
        common_word(&c->w, "type", "object");
        if (!inside)
            jw_end_object(&c->w);
        return;
    }
    list = json_get(j, t, "anyOf");
    if (!json_is(j, list, JSON_ARRAY))
        list = json_get(j, t, "oneOf");
    if (json_is(j, list, JSON_ARRAY) && json_first(j, list) >= 0 && json_get(j, t, "properties") < 0 && !inside) {
        write_any(c, t, list, depth);
        return;
    }
    if (!inside)
        jw_object(&c->w);
    write_words(c, t, depth, nullable, text);
    if (!inside)
        jw_end_object(&c->w);
}

static void write_schema(struct copy *c, int t, int depth) {
    uint32_t active = c->active_count;
    write_settled(c, t, depth);
    c->active_count = active;
}

struct slice gemini_schema_write(struct slice schema, struct arena *arena, bool *bent) {
    struct json j;
    struct copy c = { .j = &j, .arena = arena, .inner_text = -1 };
    struct buf b;
    if (schema.len == 0 || !json_parse(&j, arena, schema.ptr, schema.len))
        return SLICE_NONE;
    buf_init(&b, arena->pages, 8 << 20);
    jw_init(&c.w, &b);
    write_schema(&c, 0, 0);
    *bent = *bent || c.bent;
    return take(&c, &b);
}
