/* A value that satisfies a JSON Schema, as small as it may be: what the echo upstream answers with where a tool or a
 * response_format asks for structure.
 *
 * The schema is a stranger's: recursion, items and lengths are bounded (struct sampler), and a schema that
 * contradicts itself gets a value that satisfies as much of it as was read first. Nothing here fails but the buffer.
 */
#include "proto/echo.h"

enum { MAX_DEPTH = 32, MAX_VALUES = 4096, MAX_ITEMS = 64, MAX_STRING = 1024, MAX_STEPS = 1 << 20 };

struct sampler {
    const struct json *j;
    struct arena *arena;
    struct json_writer w;
    int root; /* the schema that `#/…` starts from */
    uint32_t values;
    uint32_t steps; /* of lookups by name, which cost a product: past MAX_STEPS nothing is found */
};

static void sample(struct sampler *s, int schema, int depth);

/* The member of an object whose decoded name equals the slice, or -1. */
static int member(struct sampler *s, int obj, struct slice name) {
    if (!json_is(s->j, obj, JSON_OBJECT))
        return -1;
    for (int k = json_first(s->j, obj); k >= 0 && s->steps++ < MAX_STEPS; k = json_next(s->j, obj, k))
        if (slice_eq(json_str(s->j, k, s->arena), name))
            return k + 1;
    return -1;
}

/* A local reference, `#` or `#/a/b` (RFC 6901 in a fragment; ~0 and ~1 as they come). -1: elsewhere or nowhere. */
static int resolve(struct sampler *s, struct slice ref) {
    if (ref.len == 0 || ref.ptr[0] != '#')
        return -1;
    int at = s->root;
    size_t i = 1;
    while (i < ref.len && at >= 0) {
        if (ref.ptr[i] != '/')
            return -1;
        size_t end = ++i;
        while (end < ref.len && ref.ptr[end] != '/')
            end++;
        at = member(s, at, slice_of(ref.ptr + i, end - i));
        i = end;
    }
    return at;
}

/* Follows $ref and the first branch of anyOf and oneOf until a schema that says something itself. */
static int settle(struct sampler *s, int schema) {
    for (int hops = 0; hops < MAX_DEPTH; hops++) {
        int next = -1, t = json_get(s->j, schema, "$ref");
        if (json_is(s->j, t, JSON_STRING))
            next = resolve(s, json_str(s->j, t, s->arena));
        static const char *const branches[] = { "anyOf", "oneOf" };
        for (size_t i = 0; next < 0 && i < 2; i++) {
            t = json_get(s->j, schema, branches[i]);
            if (json_is(s->j, t, JSON_ARRAY) && json_get(s->j, schema, "properties") < 0)
                next = json_first(s->j, t);
        }
        if (next < 0)
            return schema;
        schema = next;
    }
    return schema;
}

static uint64_t bound(const struct sampler *s, int schema, const char *name, uint64_t otherwise, uint64_t most) {
    uint64_t v;
    if (!json_u64(s->j, json_get(s->j, schema, name), &v))
        return otherwise;
    return v < most ? v : most;
}

/* Numbers are chosen as integers, which satisfy both `integer` and `number`; a fraction is needed only where the
 * bounds leave no integer between them, and then the minimum itself (or the maximum) serves as it is spelt. */
static void sample_number(struct sampler *s, int schema) {
    int min = json_get(s->j, schema, "minimum"), max = json_get(s->j, schema, "maximum");
    int over = json_get(s->j, schema, "exclusiveMinimum"), under = json_get(s->j, schema, "exclusiveMaximum");
    int64_t v = 1, low, high, step;
    if (json_i64(s->j, over, &low) && low < INT64_MAX)
        v = low + 1;
    else if (json_i64(s->j, min, &low))
        v = low > 1 ? low : 1;
    else if (json_is(s->j, min, JSON_NUMBER)) {
        jw_raw(&s->w, json_raw(s->j, min));
        return;
    }
    bool least = over >= 0 || min >= 0;
    if (json_i64(s->j, under, &high) && high > INT64_MIN && v >= high)
        v = high - 1;
    else if (json_i64(s->j, max, &high) && v > high)
        v = high;
    else if (json_is(s->j, max, JSON_NUMBER) && !json_i64(s->j, max, &high) && !least) {
        jw_raw(&s->w, json_raw(s->j, max));
        return;
    }
    if (json_i64(s->j, json_get(s->j, schema, "multipleOf"), &step) && step > 1 && v % step != 0) {
        int64_t down = v % step; /* rounds up; where that overflows, the value stays */
        if (v <= INT64_MAX - step)
            v += v > 0 ? step - down : -down;
    }
    jw_i64(&s->w, v);
}

static void sample_string(struct sampler *s, int schema) {
    static const struct { const char *format, *text;
    } formats[] = {
        { "date-time", "2025-01-01T00:00:00Z" },
        { "date", "2025-01-01" },
        { "time", "00:00:00Z" },
        { "duration", "PT1S" },
        { "email", "echo@example.com" },
        { "hostname", "example.com" },
        { "ipv4", "192.0.2.1" },
        { "ipv6", "2001:db8::1" },
        { "uri", "https://example.com/" },
        { "uuid", "00000000-0000-4000-8000-000000000000" },
    };
    int format = json_get(s->j, schema, "format");
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (json_str_is(s->j, format, formats[i].format)) {
            jw_cstr(&s->w, formats[i].text);
            return;
        }
    uint64_t least = bound(s, schema, "minLength", 0, MAX_STRING),
             most = bound(s, schema, "maxLength", MAX_STRING, MAX_STRING);
    uint64_t n = least > 4 ? least : 4;
    if (n > most)
        n = most;
    jw_str_begin(&s->w);
    for (uint64_t i = 0; i < n; i += 4)
        jw_str_part(&s->w, slice_of("echo", n - i < 4 ? n - i : 4));
    jw_str_end(&s->w);
}

static void sample_array(struct sampler *s, int schema, int depth) {
    int items = json_get(s->j, schema, "items"), fixed = json_get(s->j, schema, "prefixItems");
    uint64_t n = bound(s, schema, "minItems", 0, MAX_ITEMS);
    int at = json_items(s->j, fixed);
    jw_array(&s->w);
    for (uint64_t i = 0; (i < n || at >= 0) && i < MAX_ITEMS && s->values < MAX_VALUES; i++) {
        sample(s, at >= 0 ? at : items, depth + 1);
        if (at >= 0)
            at = json_next(s->j, fixed, at);
    }
    jw_end_array(&s->w);
}

/* The required members of one schema, and of the schemas it joins by allOf. */
static void required_members(struct sampler *s, int schema, int depth) {
    int required = json_get(s->j, schema, "required"), properties = json_get(s->j, schema, "properties");
    if (json_is(s->j, required, JSON_ARRAY))
        for (int t = json_first(s->j, required); t >= 0 && s->values < MAX_VALUES; t = json_next(s->j, required, t)) {
            struct slice name = json_str(s->j, t, s->arena);
            if (!name.ptr)
                continue;
            jw_key_slice(&s->w, name);
            sample(s, member(s, properties, name), depth + 1);
        }
    int all = json_get(s->j, schema, "allOf");
    if (json_is(s->j, all, JSON_ARRAY) && depth < MAX_DEPTH)
        for (int t = json_first(s->j, all); t >= 0 && s->values++ < MAX_VALUES; t = json_next(s->j, all, t))
            required_members(s, settle(s, t), depth + 1);
}

/* The type that a schema names, the first of several that is not null, or the one its other words imply. */
static struct slice type_of(struct sampler *s, int schema, int depth) {
    int t = json_get(s->j, schema, "type");
    if (json_is(s->j, t, JSON_ARRAY)) {
        int list = t;
        t = json_first(s->j, list);
        for (int i = t; i >= 0; i = json_next(s->j, list, i))
            if (!json_str_is(s->j, i, "null")) {
                t = i;
                break;
            }
    }
    if (json_is(s->j, t, JSON_STRING))
        return json_str(s->j, t, s->arena);
    if (json_get(s->j, schema, "properties") >= 0 || json_get(s->j, schema, "required") >= 0)
        return SLICE("object");
    if (json_get(s->j, schema, "items") >= 0 || json_get(s->j, schema, "prefixItems") >= 0)
        return SLICE("array");
    int all = json_get(s->j, schema, "allOf");
    if (json_is(s->j, all, JSON_ARRAY) && json_first(s->j, all) >= 0 && depth < MAX_DEPTH)
        return type_of(s, settle(s, json_first(s->j, all)), depth + 1);
    if (json_get(s->j, schema, "minimum") >= 0 || json_get(s->j, schema, "maximum") >= 0)
        return SLICE("number");
    return SLICE("string");
}

/* Gemini's schema spells types in capitals, so they compare without case. */
static void sample(struct sampler *s, int schema, int depth) {
    s->values++;
    if (depth > MAX_DEPTH) {
        jw_null(&s->w);
        return;
    }
    schema = settle(s, schema);
    int given = json_get(s->j, schema, "const");
    if (given < 0) {
        int list = json_get(s->j, schema, "enum");
        given = json_items(s->j, list);
    }
    if (given >= 0) {
        jw_raw(&s->w, json_span(s->j, given));
        return;
    }
    struct slice type = type_of(s, schema, depth);
    if (slice_ieq(type, SLICE("object"))) {
        jw_object(&s->w);
        required_members(s, schema, depth);
        jw_end_object(&s->w);
    } else if (slice_ieq(type, SLICE("array")))
        sample_array(s, schema, depth);
    else if (slice_ieq(type, SLICE("number")) || slice_ieq(type, SLICE("integer")))
        sample_number(s, schema);
    else if (slice_ieq(type, SLICE("boolean")))
        jw_bool(&s->w, true);
    else if (slice_ieq(type, SLICE("null")))
        jw_null(&s->w);
    else
        sample_string(s, schema);
}

bool echo_sample(const struct json *j, int t, struct arena *arena, struct buf *out) {
    struct sampler s = { .j = j, .arena = arena, .root = t };
    jw_init(&s.w, out);
    if (json_is(j, t, JSON_OBJECT) && json_size(j, t) > 0)
        sample(&s, t, 0);
    else {
        jw_object(&s.w);
        jw_end_object(&s.w);
    }
    return !s.w.failed && !arena->overflow;
}
