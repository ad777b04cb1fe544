/* Permanent ids of what a configuration names: models, upstreams, tiers, groups. One series a kind, from 1; an id is
 * never used again, so that a record tells for ever what it was about. The master asks for them by names.intern before
 * it makes a configuration's snapshots. */
#include <stdlib.h>
#include "master/ledger/call.h"

static bool remember(struct ledger *l, unsigned kind, uint32_t id, struct slice name) {
    if (kind >= NAME_KINDS || id > 1 << 24)
        return false;
    if (id > l->name_count[kind] || !l->names[kind]) {
        char **grown = realloc(l->names[kind], (id + 1ul) * sizeof *grown);
        if (!grown)
            return false;
        for (uint32_t i = l->names[kind] ? l->name_count[kind] + 1 : 0; i <= id; i++)
            grown[i] = NULL;
        l->names[kind] = grown;
        l->name_count[kind] = id;
    }
    free(l->names[kind][id]);
    l->names[kind][id] = strndup(name.ptr, name.len);
    return l->names[kind][id] != NULL;
}

static enum store_err take_name(void *arg, struct slice key, struct slice value) {
    uint32_t id;
    bool ok = key.len > 1 && row_read(value, &id, sizeof id, NULL) &&
              remember(arg, (uint8_t)key.ptr[0], id, slice_from(key, 1));
    return ok ? STORE_OK : STORE_BROKEN;
}

enum store_err ledger_names_load(struct ledger *l) { return store_each(&l->store, DB_NAME, take_name, l); }

void ledger_names_free(struct ledger *l) {
    for (unsigned kind = 0; kind < NAME_KINDS; kind++) {
        for (uint32_t id = 0; l->names[kind] && id <= l->name_count[kind]; id++)
            free(l->names[kind][id]);
        free(l->names[kind]);
    }
}

const char *ledger_name(const struct ledger *l, enum name_kind kind, uint32_t id) {
    return id > 0 && id <= l->name_count[kind] && l->names[kind] && l->names[kind][id] ? l->names[kind][id] : "";
}

uint32_t ledger_name_id(const struct ledger *l, enum name_kind kind, struct slice name) {
    for (uint32_t id = 1; id <= l->name_count[kind]; id++)
        if (l->names[kind][id] && slice_is(name, l->names[kind][id]))
            return id;
    return 0;
}

struct intern { struct ledger *l; unsigned kind; struct slice name; uint32_t id; };
static enum store_err write_name(struct store *s, void *arg) {
    struct intern *in = arg;
    char key[1 + 512];
    key[0] = (char)in->kind;
    memcpy(key + 1, in->name.ptr, in->name.len);
    return store_put(s, DB_NAME, slice_of(key, in->name.len + 1), ROW_SLICE(in->id));
}

/* {"names":[{"kind","name"}…]} → {"ids":[…]}: permanent numbers, one series a kind, from 1. A kind is its name or its
 * number. */
static bool intern_one(struct call *c, int t, uint32_t *id) {
    static const char *const kinds[NAME_KINDS] = { "model", "upstream", "tier", "group" };
    struct ledger *l = c->l;
    struct intern in = { .l = l, .kind = NAME_KINDS };
    int kind = json_get(&c->json, t, "kind");
    uint64_t number;
    if (json_u64(&c->json, kind, &number) && number < NAME_KINDS)
        in.kind = (unsigned)number;
    for (unsigned i = 0; i < NAME_KINDS && kind >= 0; i++)
        if (json_str_is(&c->json, kind, kinds[i]))
            in.kind = i;
    in.name = json_str(&c->json, json_get(&c->json, t, "name"), c->arena);
    if (in.kind == NAME_KINDS || !in.name.ptr || in.name.len == 0 || in.name.len > 500) {
        call_refuse(c, "invalid_value",
                    "names: each needs a kind (model, upstream, tier, group) and a name of 1 to 500 bytes");
        return false;
    }
    *id = ledger_name_id(l, in.kind, in.name);
    if (*id)
        return true;
    in.id = *id = l->name_count[in.kind] + 1;
    enum store_err err = store_write(&l->store, write_name, &in);
    if (err != STORE_OK) {
        call_store_failed(c, err);
        return false;
    }
    CHECK(remember(l, in.kind, in.id, in.name));
    return true;
}

void call_names_intern(struct call *c) {
    int names = json_get(&c->json, 0, "names");
    if (!json_is(&c->json, names, JSON_ARRAY)) {
        call_refuse(c, "missing_field", "names is missing");
        return;
    }
    jw_object(c->w);
    jw_key(c->w, "ids");
    jw_array(c->w);
    for (int t = json_first(&c->json, names); t >= 0; t = json_next(&c->json, names, t)) {
        uint32_t id;
        if (!intern_one(c, t, &id))
            return;
        jw_u64(c->w, id);
    }
    jw_end_array(c->w);
    jw_end_object(c->w);
}
