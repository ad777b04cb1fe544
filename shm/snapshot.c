/* Reading a snapshot: is it whole, and what is in it. Nothing here allocates or changes anything. */
#include "shm/snapshot.h"

#include "proto/base/check.h"
#include "proto/base/crypto.h"

/* ---- whole? ---- */

struct whole {
    const struct snap *s;
    size_t bytes;
    bool ok;
};

static void str(struct whole *w, struct snap_str t) {
    if (!w->ok) return;
    w->ok = (uint64_t)t.off + t.len < w->bytes && ((const char *)w->s)[(uint64_t)t.off + t.len] == 0;
}

static bool list(struct whole *w, struct snap_list l, size_t size, size_t align) {
    if (w->ok) w->ok = l.off % align == 0 && (uint64_t)l.off + (uint64_t)l.count * size <= w->bytes;
    return w->ok;
}
#define LIST(w, l, type) list(w, l, sizeof(type), _Alignof(type))

static void strs(struct whole *w, struct snap_list l) {
    if (LIST(w, l, struct snap_str))
        SNAP_EACH(w->s, l, struct snap_str, t) str(w, *t);
}
static void pairs(struct whole *w, struct snap_list l) {
    if (LIST(w, l, struct snap_pair))
        SNAP_EACH(w->s, l, struct snap_pair, p) {
            str(w, p->name);
            str(w, p->value);
        }
}

static void upstream(struct whole *w, const struct snap_upstream *u) {
    str(w, u->name);
    str(w, u->host);
    str(w, u->host_header);
    str(w, u->base_path);
    strs(w, u->keys);
    pairs(w, u->headers);
    pairs(w, u->query);
    w->ok = w->ok && u->dialect < DIALECT_COUNT && u->auth <= AUTH_X_GOOG_API_KEY &&
            (!u->tls || u->ca < w->s->cas.count);
}

static void model(struct whole *w, const struct snap_model *m) {
    str(w, m->name);
    str(w, m->owned_by);
    str(w, m->provider);
    str(w, m->limit_field);
    strs(w, m->strip);
    strs(w, m->allow);
    strs(w, m->capabilities);
    strs(w, m->sizes);
    strs(w, m->qualities);
    pairs(w, m->budgets);
    if (LIST(w, m->routes, struct snap_route))
        SNAP_EACH(w->s, m->routes, struct snap_route, r) {
            str(w, r->as);
            w->ok = w->ok && r->upstream < w->s->upstreams.count && r->weight && r->series < SHM_MAX_SERIES;
        }
    if (LIST(w, m->image_prices, struct snap_image_price))
        SNAP_EACH(w->s, m->image_prices, struct snap_image_price, p) {
            str(w, p->size);
            str(w, p->quality);
        }
    w->ok = w->ok && m->kind <= MODEL_OTHER && m->routes.count;
}

/* A table that a search can end in: a power of two of places, at least one empty. */
static void names(struct whole *w) {
    const struct snap *s = w->s;
    uint32_t empty = 0;
    w->ok = w->ok && s->names.count && (s->names.count & (s->names.count - 1)) == 0;
    if (!LIST(w, s->names, struct snap_name)) return;
    SNAP_EACH(s, s->names, struct snap_name, n) {
        empty += n->hash == 0;
        if (!n->hash) continue;
        str(w, n->name);
        w->ok = w->ok && n->model < s->models.count;
    }
    w->ok = w->ok && empty;
}

bool snap_valid(const void *blob, size_t bytes) {
    const struct snap *s = blob;
    if (!blob || (uintptr_t)blob % _Alignof(struct snap) || bytes < sizeof *s || s->magic != SNAP_MAGIC ||
        s->layout != SNAP_LAYOUT || s->bytes != bytes)
        return false;
    struct whole w = { s, bytes, true };
    if (LIST(&w, s->listens, struct snap_listen))
        SNAP_EACH(s, s->listens, struct snap_listen, l) str(&w, l->address);
    if (LIST(&w, s->tiers, struct snap_tier))
        SNAP_EACH(s, s->tiers, struct snap_tier, t) {
            str(&w, t->name);
            str(&w, t->models);
        }
    if (LIST(&w, s->groups, struct snap_group))
        SNAP_EACH(s, s->groups, struct snap_group, g) {
            str(&w, g->name);
            str(&w, g->models);
        }
    if (LIST(&w, s->cas, struct snap_ca))
        SNAP_EACH(s, s->cas, struct snap_ca, c) str(&w, c->pem);
    if (LIST(&w, s->upstreams, struct snap_upstream))
        SNAP_EACH(s, s->upstreams, struct snap_upstream, u) upstream(&w, u);
    if (LIST(&w, s->models, struct snap_model))
        SNAP_EACH(s, s->models, struct snap_model, m) model(&w, m);
    names(&w);
    if (LIST(&w, s->families, uint32_t))
        SNAP_EACH(s, s->families, uint32_t, f) w.ok = w.ok && *f < s->models.count;
    if (LIST(&w, s->trusted_proxies, struct snap_cidr))
        SNAP_EACH(s, s->trusted_proxies, struct snap_cidr, c)
            w.ok = w.ok && (c->family == 4 ? c->bits <= 32 : c->family == 6 && c->bits <= 128);
    const struct snap_str texts[] = { s->certificate_pem, s->certificate_key_pem, s->cors_origin, s->access_log,
                                      s->error_log,       s->admin_token,         s->key_prefix,  s->id_prefix,
                                      s->error_code,      s->jwt_secret };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) str(&w, texts[i]);
    return w.ok && s->default_tier < s->tiers.count && s->default_group < s->groups.count;
}

/* ---- what is in it ---- */

uint64_t snap_name_hash(struct slice name) {
    uint64_t h = hash64(name.ptr, name.len, 0);
    return h ? h : 1; /* 0 is an empty place */
}

const struct snap_model *snap_find_model(const struct snap *s, struct slice name) {
    uint32_t mask = s->names.count - 1;
    uint64_t hash = snap_name_hash(name);
    for (uint64_t at = hash;; at++) {
        const struct snap_name *n = SNAP_AT(s, s->names, struct snap_name, at & mask);
        if (!n->hash) break;
        if (n->hash == hash && slice_eq(snap_text(s, n->name), name))
            return SNAP_AT(s, s->models, struct snap_model, n->model);
    }
    SNAP_EACH(s, s->families, uint32_t, f) {
        const struct snap_model *m = SNAP_AT(s, s->models, struct snap_model, *f);
        if (slice_starts(name, snap_text(s, m->name))) return m;
    }
    return NULL;
}

const struct snap_tier *snap_tier_by_id(const struct snap *s, uint32_t id) {
    SNAP_EACH(s, s->tiers, struct snap_tier, t)
        if (t->id == id) return t;
    return SNAP_AT(s, s->tiers, struct snap_tier, s->default_tier);
}

const struct snap_group *snap_group_by_id(const struct snap *s, uint32_t id) {
    SNAP_EACH(s, s->groups, struct snap_group, g)
        if (g->id == id) return g;
    return SNAP_AT(s, s->groups, struct snap_group, s->default_group);
}

const struct snap_upstream *snap_upstream_by_id(const struct snap *s, uint32_t id) {
    SNAP_EACH(s, s->upstreams, struct snap_upstream, u)
        if (u->id == id) return u;
    return NULL;
}

const struct snap_model *snap_model_by_id(const struct snap *s, uint32_t id) {
    SNAP_EACH(s, s->models, struct snap_model, m)
        if (m->id == id) return m;
    return NULL;
}

bool snap_globs_allow(const struct snap *s, struct snap_str globs, struct slice name) {
    struct slice rest = snap_text(s, globs);
    while (rest.len) {
        const char *comma = memchr(rest.ptr, ',', rest.len);
        size_t n = comma ? (size_t)(comma - rest.ptr) : rest.len;
        if (slice_glob(slice_trim(slice_of(rest.ptr, n)), name)) return true;
        rest = slice_from(rest, n + 1);
    }
    return false;
}

static bool prefix_matches(const uint8_t *a, const uint8_t *b, unsigned bits) {
    if (memcmp(a, b, bits / 8) != 0) return false;
    unsigned rest = bits % 8;
    return rest == 0 || ((a[bits / 8] ^ b[bits / 8]) >> (8 - rest)) == 0;
}

bool snap_cidr_match(const struct snap *s, struct snap_list cidrs, uint8_t family, const uint8_t *bytes) {
    static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
    if (family == 6 &&
        memcmp(bytes, mapped, sizeof mapped) == 0) { /* an IPv4 client on an IPv6 socket (RFC 4291, 2.5.5.2) */
        family = 4;
        bytes += sizeof mapped;
    }
    SNAP_EACH(s, cidrs, struct snap_cidr, c)
        if (c->family == family && prefix_matches(c->bytes, bytes, c->bits)) return true;
    return false;
}

bool snap_image_price(const struct snap *s, const struct snap_model *m, struct slice size, struct slice quality,
                      uint64_t *per_million) {
    SNAP_EACH(s, m->image_prices, struct snap_image_price, p) {
        struct slice of_size = snap_text(s, p->size), of_quality = snap_text(s, p->quality);
        if ((of_size.len && !slice_eq(of_size, size)) || (of_quality.len && !slice_eq(of_quality, quality))) continue;
        *per_million = p->per_million;
        return true;
    }
    return false;
}
