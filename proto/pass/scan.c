/* Looking at a request: faults, members that must stand once, limits, counted text, hosted tools, ids of provider-side
 * state. Nothing fails here but into r->fault_code; memory is taken only to decode what is escaped. */
#include "proto/pass/scan.h"

bool scan_begin(struct scan *s) {
    memset(s->r, 0, sizeof *s->r);
    s->r->n = 1;
    s->r->t_model = s->r->t_limit = s->r->t_limit2 = s->r->t_options = s->r->t_include_usage = -1;
    s->seen = s->others = 0;
    if (!json_is(s->j, 0, JSON_OBJECT))
        scan_refuse(s, "invalid_value", NULL, "The body must be a JSON object.");
    return s->r->fault_code == NULL;
}

void scan_refuse(struct scan *s, const char *code, const char *param, const char *text) {
    if (s->r->fault_code != NULL)
        return;
    s->r->fault_code = code;
    s->r->fault_param = param;
    s->r->fault_text = text;
}

bool scan_allows(const struct scan *s, const char *word) {
    for (uint32_t i = 0; i < s->allow_count; i++)
        if (slice_is(s->allow[i], word))
            return true;
    return false;
}

bool scan_is_camel(struct slice key, const char *name) {
    size_t at = 0;
    for (; *name != 0; name++, at++) {
        bool upper = *name >= 'A' && *name <= 'Z';
        if (at >= key.len)
            return false;
        if (upper && key.ptr[at] == '_') {
            if (++at >= key.len || key.ptr[at] != *name - 'A' + 'a')
                return false;
        } else if (key.ptr[at] != *name) {
            return false;
        }
    }
    return at == key.len;
}

static char folded(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

bool scan_same_word(struct slice a, struct slice b) {
    size_t i = 0, k = 0;
    for (;;) {
        while (i < a.len && a.ptr[i] == '_')
            i++;
        while (k < b.len && b.ptr[k] == '_')
            k++;
        if (i == a.len || k == b.len)
            return i == a.len && k == b.len;
        if (folded(a.ptr[i++]) != folded(b.ptr[k++]))
            return false;
    }
}

int scan_which(struct scan *s, int key, const struct scan_member *table, uint32_t count, bool snake) {
    struct slice name = scan_key(s->j, key, s->arena);
    for (uint32_t i = 0; i < count; i++) {
        if (name.len == 0 || name.ptr[0] != table[i].name[0])
            continue; /* neither form of a name changes its first letter */
        if (!(snake ? scan_is_camel(name, table[i].name) : slice_is(name, table[i].name)))
            continue;
        if (s->seen & 1u << table[i].is)
            scan_refuse(s, "invalid_value", table[i].name, "This member stands twice.");
        s->seen |= 1u << table[i].is;
        return table[i].is;
    }
    return 0;
}

void scan_model(struct scan *s, int v) {
    if (v < 0)
        scan_refuse(s, "missing_field", "model", "You must provide a model parameter.");
    else if (!json_is(s->j, v, JSON_STRING) || (s->r->model = json_str(s->j, v, s->arena)).len == 0)
        scan_refuse(s, "invalid_value", "model", "'model' must be a non-empty string.");
}

void scan_stream(struct scan *s, int v) {
    if (!json_is(s->j, v, JSON_NULL) && !json_bool(s->j, v, &s->r->stream))
        scan_refuse(s, "invalid_value", "stream", "'stream' must be true or false.");
}

void scan_limit(struct scan *s, int v, const char *param) {
    uint64_t limit;
    if (json_is(s->j, v, JSON_NULL))
        return;
    if (!json_u64(s->j, v, &limit) || limit == 0) {
        scan_refuse(s, "invalid_value", param, "The output limit must be a positive integer.");
        return;
    }
    if (!s->r->has_limit || limit < s->r->limit)
        s->r->limit = limit;
    s->r->has_limit = true;
}

void scan_dear(struct scan *s, int v, const char *name, const char *plain1, const char *plain2, const char *text) {
    if (!json_is(s->j, v, JSON_NULL) && !json_str_is(s->j, v, plain1) && !json_str_is(s->j, v, plain2) &&
        !scan_allows(s, name))
        scan_refuse(s, "unsupported_parameter", name, text);
}

void scan_tier(struct scan *s, int v) {
    scan_dear(s, v, "service_tier", "auto", "default", "This service tier is not available for this model.");
}

void scan_stream_options(struct scan *s, int v) {
    s->r->t_options = v;
    s->r->t_include_usage = json_get(s->j, v, "include_usage");
    s->r->wants_usage = json_is(s->j, s->r->t_include_usage, JSON_TRUE);
}

/* A tape is flat: strings are found without descending. A key is a string whose value follows it, so an object's
 * keys must be told from strings by their place. Depth is bounded by the parser. */
uint64_t scan_strings(const struct json *j, int v) {
    uint64_t bytes = 0;
    if (json_is(j, v, JSON_STRING))
        return json_str_len(j, v);
    if (json_is(j, v, JSON_ARRAY))
        for (int t = json_first(j, v); t >= 0; t = json_next(j, v, t))
            bytes += scan_strings(j, t);
    else if (json_is(j, v, JSON_OBJECT))
        for (int k = json_first(j, v); k >= 0; k = json_next(j, v, k))
            bytes += scan_strings(j, k + 1);
    return bytes;
}

void scan_raw(struct scan *s, int v) {
    if (v >= 0 && !json_is(s->j, v, JSON_NULL))
        s->r->prompt_bytes += json_raw(s->j, v).len;
}

void scan_string(struct scan *s, int v) { s->r->prompt_bytes += json_str_len(s->j, v); }

struct slice scan_key(const struct json *j, int key, struct arena *arena) {
    return j->tok[key].escaped ? json_str(j, key, arena) : json_raw(j, key);
}

static bool named(struct slice key, const struct slice *names, bool camel) {
    for (; names->len > 0; names++)
        if (camel ? scan_is_camel(key, names->ptr) : slice_eq(key, *names))
            return true;
    return false;
}

/* The strings that a member of such a name holds. */
static void found_in(const struct json *j, int v, void (*found)(void *arg, int value), void *arg) {
    if (json_is(j, v, JSON_STRING)) {
        found(arg, v);
    } else if (json_is(j, v, JSON_ARRAY)) {
        for (int t = json_first(j, v); t >= 0; t = json_next(j, v, t))
            if (json_is(j, t, JSON_STRING))
                found(arg, t);
    } else if (json_is(j, v, JSON_OBJECT)) {
        for (int k = json_first(j, v); k >= 0; k = json_next(j, v, k))
            if (json_str_is(j, k, "id") && json_is(j, k + 1, JSON_STRING))
                found(arg, k + 1);
    }
}

/* Depth is bounded by the parser. */
void scan_walk(const struct json *j, int value, const struct scan_state *table, struct arena *arena,
               void (*found)(void *arg, int value), void *arg) {
    if (json_is(j, value, JSON_ARRAY)) {
        for (int t = json_first(j, value); t >= 0; t = json_next(j, value, t))
            if (!json_is(j, t, JSON_STRING))
                scan_walk(j, t, table, arena, found, arg);
    } else if (json_is(j, value, JSON_OBJECT)) {
        for (int k = json_first(j, value); k >= 0; k = json_next(j, value, k)) {
            struct slice key = scan_key(j, k, arena);
            if (named(key, table->opaque, table->camel))
                continue;
            if (named(key, table->names, table->camel))
                found_in(j, k + 1, found, arg);
            scan_walk(j, k + 1, table, arena, found, arg);
        }
    }
}

/* The list grows in the arena; what it had before is given back with the rest. */
void scan_seal(struct scan *s, int v, enum pass_state is) {
    struct pass_request *r = s->r;
    if (!json_is(s->j, v, JSON_STRING))
        return;
    if (r->sealed_count == r->sealed_room) {
        uint32_t room = r->sealed_room > 0 ? 2 * r->sealed_room : 16;
        struct pass_sealed *moved = room <= PASS_SEALED ? arena_alloc(s->arena, room * sizeof *moved) : NULL;
        if (moved == NULL) {
            scan_refuse(s, "invalid_value", NULL, "The request names too many stored objects.");
            return;
        }
        if (r->sealed_count > 0)
            memcpy(moved, r->sealed, r->sealed_count * sizeof *moved);
        r->sealed = moved;
        r->sealed_room = room;
    }
    r->sealed[r->sealed_count++] = (struct pass_sealed){ v, is };
}

static void seal_state(void *arg, int value) { scan_seal(arg, value, PASS_STATE); }

void scan_state(struct scan *s, const struct scan_state *table) {
    scan_walk(s->j, 0, table, s->arena, seal_state, s);
}

/* Names go out in a header. */
static bool plain_word(struct slice name) {
    if (name.len == 0 || name.len > 64)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
              c == '.'))
            return false;
    }
    return true;
}

int scan_tool_list(struct scan *s, int tools) {
    if (tools >= 0 && !json_is(s->j, tools, JSON_ARRAY) && !json_is(s->j, tools, JSON_NULL))
        scan_refuse(s, "invalid_value", "tools", "'tools' must be an array.");
    return json_items(s->j, tools);
}

void scan_hosted(struct scan *s, int value, struct slice name) {
    struct pass_request *r = s->r;
    if (r->drops == PASS_DROPS) {
        scan_refuse(s, "unsupported_parameter", "tools",
                    "Too many hosted tools that are not available for this model.");
        return;
    }
    r->drop_names[r->drops] = plain_word(name) ? name : SLICE("tool");
    r->drop[r->drops++] = value;
}

bool scan_allows_tool(const struct scan *s, struct slice type) {
    for (uint32_t i = 0; i < s->allow_count; i++)
        if (s->allow[i].len > 0 && slice_starts(type, s->allow[i]) &&
            (type.len == s->allow[i].len || type.ptr[s->allow[i].len] == '_'))
            return true;
    return false;
}

static bool names_dropped(const struct scan *s, int tool) {
    int type = json_get(s->j, tool, "type");
    for (uint32_t i = 0; i < s->r->drops && json_is(s->j, type, JSON_STRING); i++)
        if (slice_eq(s->r->drop_names[i], json_raw(s->j, type)))
            return true;
    return false;
}

bool scan_forces(const struct scan *s, int choice, int list) {
    bool forced = names_dropped(s, choice);
    for (int t = json_first(s->j, list); t >= 0 && !forced; t = json_next(s->j, list, t))
        forced = names_dropped(s, t);
    return forced;
}

void scan_tools_end(struct scan *s, bool forced) {
    if (s->r->drops > 0 && (s->others == 0 || forced))
        scan_refuse(s, "unsupported_parameter", "tools", "This kind of hosted tool is not available for this model.");
}
