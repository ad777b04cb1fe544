/* Names of models, upstreams, tiers and groups, and their permanent ids, as far as the ledger has told them.
 *
 * Ids are the ledger's to give and never change, so what is known is never asked again. The request and its answer go
 * by order: the ids come in the order of the unknown names. */
#include "master/names.h"

#include <stdlib.h>

#include "proto/json.h"

enum { JSON_BYTES = 16 << 20 };

struct names {
    struct names *next;
    enum name_kind kind;
    uint32_t id;
    char name[];
};

uint32_t names_find(const struct names *n, enum name_kind kind, const char *name) {
    while (n && (n->kind != kind || strcmp(n->name, name) != 0)) n = n->next;
    return n ? n->id : 0;
}

bool names_add(struct names **n, enum name_kind kind, const char *name, uint32_t id) {
    size_t len = strlen(name) + 1;
    struct names *add = malloc(sizeof *add + len);
    if (!add) return false;
    add->next = *n;
    add->kind = kind;
    add->id = id;
    memcpy(add->name, name, len);
    *n = add;
    return true;
}

void names_free(struct names **n) {
    while (*n) {
        struct names *gone = *n;
        *n = gone->next;
        free(gone);
    }
}

struct asking { const struct names *known; struct json_writer w; int count; };

static void ask_one(void *arg, enum name_kind kind, const char *name) {
    static const char *const kinds[] = { "model", "upstream", "tier", "group" };
    struct asking *a = arg;
    if (names_find(a->known, kind, name)) return;
    a->count++;
    jw_object(&a->w);
    jw_key(&a->w, "kind");
    jw_cstr(&a->w, kinds[kind]);
    jw_key(&a->w, "name");
    jw_cstr(&a->w, name);
    jw_end_object(&a->w);
}

int names_request(const struct names *known, const struct conf *conf, struct pages *pages, struct buf *out) {
    struct asking a = { .known = known };
    buf_init(out, pages, JSON_BYTES);
    jw_init(&a.w, out);
    jw_object(&a.w);
    jw_key(&a.w, "cmd");
    jw_cstr(&a.w, "names.intern");
    jw_key(&a.w, "names");
    jw_array(&a.w);
    conf_each_name(conf, ask_one, &a);
    jw_end_array(&a.w);
    jw_end_object(&a.w);
    return a.w.failed ? -1 : a.count;
}

struct taking { const struct names *known; struct names *learnt; const struct json *j; int array, at; bool ok; };

static void take_one(void *arg, enum name_kind kind, const char *name) {
    struct taking *t = arg;
    uint64_t id = 0;
    if (names_find(t->known, kind, name)) return;
    t->ok = t->ok && t->at >= 0 && json_u64(t->j, t->at, &id) && id > 0 && id <= UINT32_MAX &&
            names_add(&t->learnt, kind, name, (uint32_t)id);
    if (t->ok) t->at = json_next(t->j, t->array, t->at);
}

bool names_take(struct names **known, const struct conf *conf, struct pages *pages, struct slice answer) {
    struct arena arena;
    struct json j;
    arena_init(&arena, pages, JSON_BYTES);
    bool parsed = json_parse(&j, &arena, answer.ptr, answer.len);
    struct taking t = { .known = *known, .j = &j, .array = parsed ? json_get(&j, json_get(&j, 0, "result"), "ids")
                       : -1 };
    t.ok = json_is(&j, t.array, JSON_ARRAY);
    if (t.ok) {
        t.at = json_first(&j, t.array);
        conf_each_name(conf, take_one, &t);
    }
    if (t.ok && t.learnt) {
        struct names *last = t.learnt;
        while (last->next) last = last->next;
        last->next = *known;
        *known = t.learnt;
        t.learnt = NULL;
    }
    names_free(&t.learnt);
    arena_reset(&arena);
    return t.ok;
}
