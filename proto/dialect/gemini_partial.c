/* Arguments of a call that come piece by piece: {jsonPath:"$.a.b[0]", stringValue|numberValue|boolValue|nullValue}.
 * Pieces of text for one path are joined. The pieces of one call may take max_bytes together; then gemini_partial_add
 * says false. */
#include "proto/dialect/gemini.h"

enum { MAX_DEPTH = 32, MAX_INDEX = 4096 };
enum kind { NODE_NONE, NODE_OBJECT, NODE_ARRAY, NODE_STRING, NODE_RAW };

struct node {
    struct node *next, *children;
    enum kind kind;
    struct slice key;  /* in an object */
    uint32_t index;    /* in an array: its children count up without gaps when written */
    struct slice text;
    size_t cap;
};

struct gemini_partial {
    struct arena *arena;
    size_t used, max;
    struct node root;
};

struct gemini_partial *gemini_partial_new(struct arena *arena, size_t max_bytes) {
    struct gemini_partial *p = arena_zalloc(arena, sizeof *p);
    if (!p)
        return NULL;
    p->arena = arena;
    p->max = max_bytes;
    p->root.kind = NODE_OBJECT;
    return p;
}

static bool charge(struct gemini_partial *p, size_t n) {
    if (n > p->max - p->used)
        return false;
    p->used += n;
    return true;
}

static struct node *child(struct gemini_partial *p, struct node *parent, struct slice key, uint32_t index) {
    struct node **at = &parent->children;
    for (; *at; at = &(*at)->next)
        if (parent->kind == NODE_OBJECT ? slice_eq((*at)->key, key) : (*at)->index == index)
            return *at;
    if (!charge(p, sizeof **at + key.len) || !(*at = arena_zalloc(p->arena, sizeof **at)))
        return NULL;
    (*at)->key = parent->kind == NODE_OBJECT ? arena_copy(p->arena, key) : SLICE_NONE;
    (*at)->index = index;
    return *at;
}

/* One step of a path: a name, or an index in brackets (a quoted name in brackets too). false: no path. */
static bool step(struct slice *path, struct slice *key, bool *is_index, uint32_t *index) {
    size_t n = 0;
    uint64_t number;
    *is_index = false;
    if (path->len > 0 && path->ptr[0] == '[') {
        while (n < path->len && path->ptr[n] != ']')
            n++;
        if (n == path->len)
            return false;
        *key = slice_of(path->ptr + 1, n - 1);
        *path = slice_from(*path, n + 1);
        if (key->len >= 2 && (key->ptr[0] == '\'' || key->ptr[0] == '"')) {
            *key = slice_of(key->ptr + 1, key->len - 2);
            return true;
        }
        *is_index = slice_to_u64(*key, &number) && number < MAX_INDEX;
        *index = *is_index ? (uint32_t)number : 0;
        return *is_index;
    }
    if (path->len > 0 && path->ptr[0] == '.')
        *path = slice_from(*path, 1);
    while (n < path->len && path->ptr[n] != '.' && path->ptr[n] != '[')
        n++;
    *key = slice_of(path->ptr, n);
    *path = slice_from(*path, n);
    return n > 0;
}

static struct node *walk(struct gemini_partial *p, struct slice path) {
    struct node *at = &p->root;
    if (path.len > 0 && path.ptr[0] == '$')
        path = slice_from(path, 1);
    for (int depth = 0; path.len > 0 && depth < MAX_DEPTH; depth++) {
        struct slice key;
        bool is_index;
        uint32_t index = 0;
        if (!step(&path, &key, &is_index, &index))
            return NULL;
        if (at->kind == NODE_NONE)
            at->kind = is_index ? NODE_ARRAY : NODE_OBJECT;
        if (at->kind != (is_index ? NODE_ARRAY : NODE_OBJECT) || !(at = child(p, at, key, index)))
            return NULL;
    }
    return at == &p->root ? NULL : at;
}

static bool add_text(struct gemini_partial *p, struct node *n, struct slice s) {
    if (!charge(p, s.len))
        return false;
    if (n->kind != NODE_STRING) { /* a value that was a number is now a text: the text alone stands */
        n->text = SLICE_NONE;
        n->cap = 0;
    }
    n->kind = NODE_STRING;
    if (n->text.len + s.len > n->cap) {
        size_t cap = (n->text.len + s.len) * 2 + 64;
        char *mem = arena_alloc(p->arena, cap);
        if (!mem)
            return false;
        if (n->text.len > 0)
            memcpy(mem, n->text.ptr, n->text.len);
        n->text.ptr = mem;
        n->cap = cap;
    }
    if (s.len > 0)
        memcpy((char *)(uintptr_t)n->text.ptr + n->text.len, s.ptr, s.len);
    n->text.len += s.len;
    return true;
}

/* Adds a list of partialArgs. Pieces with a path that leads nowhere are passed over. false: full. */
bool gemini_partial_add(struct gemini_partial *p, const struct json *j, int list, struct arena *scratch) {
    static const char *const values[] = { "numberValue", "boolValue" };
    for (int t = json_items(j, list); t >= 0; t = json_next(j, list, t)) {
        struct node *n = walk(p, json_str(j, gemini_get(j, t, "jsonPath"), scratch));
        int text = gemini_get(j, t, "stringValue"), value = -1;
        if (!n && p->used >= p->max)
            return false;
        if (!n || n->kind == NODE_OBJECT || n->kind == NODE_ARRAY)
            continue;
        if (json_is(j, text, JSON_STRING)) {
            if (!add_text(p, n, json_str(j, text, scratch)))
                return false;
            continue;
        }
        for (int i = 0; i < 2 && value < 0; i++)
            value = gemini_get(j, t, values[i]);
        n->kind = NODE_RAW;
        n->cap = 0; /* the text is not ours to write into */
        n->text = value >= 0 ? arena_copy(p->arena, json_raw(j, value)) : SLICE("null");
        if (!charge(p, n->text.len))
            return false;
    }
    return !p->arena->overflow;
}

static void write_node(struct json_writer *w, const struct node *n) {
    switch (n->kind) {
    case NODE_OBJECT:
        jw_object(w);
        for (const struct node *c = n->children; c; c = c->next) {
            jw_key_slice(w, c->key);
            write_node(w, c);
        }
        jw_end_object(w);
        break;
    case NODE_ARRAY:
        jw_array(w);
        for (const struct node *c = n->children; c; c = c->next)
            write_node(w, c);
        jw_end_array(w);
        break;
    case NODE_STRING: jw_str(w, n->text.ptr ? n->text : SLICE("")); break;
    case NODE_RAW: jw_raw(w, n->text); break;
    default: jw_null(w); break;
    }
}

bool gemini_partial_write(const struct gemini_partial *p, struct json_writer *w) {
    write_node(w, &p->root);
    return !w->failed;
}
