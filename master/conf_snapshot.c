/* The tree → the immutable blob of shm/snapshot.h.
 *
 * A blob grows at its end and may move, so nothing keeps a pointer into it: arrays are made on the side and appended
 * whole. A failed allocation is sticky and shows at the end. Padding is zero: the same configuration makes the same
 * bytes, but for generation and time. */
#include "master/conf_tree.h"

#include <stdlib.h>
#include <time.h>
#include "proto/base/crypto.h"

struct build {
    const struct conf *conf;
    const struct conf_ids *ids;
    bool for_ledger, failed;
    char *mem;
    size_t len, cap;
    struct snap_str nothing; /* "" with its NUL */
};

static uint32_t append(struct build *b, const void *p, size_t n, size_t align) {
    size_t at = (b->len + align - 1) & ~(align - 1);
    if (b->failed || at + n > UINT32_MAX / 2) {
        b->failed = true;
        return 0;
    }
    if (at + n > b->cap) {
        size_t cap = (at + n) * 2;
        char *mem = calloc(1, cap); /* no realloc: what it leaves behind holds secrets */
        if (!mem) {
            b->failed = true;
            return 0;
        }
        if (b->mem) {
            memcpy(mem, b->mem, b->len);
            wipe(b->mem, b->len);
        }
        free(b->mem);
        b->mem = mem;
        b->cap = cap;
    }
    if (n) memcpy(b->mem + at, p, n);
    b->len = at + n;
    return (uint32_t)at;
}

static struct snap_str put_bytes(struct build *b, const char *s, size_t n) {
    if (!n) return b->nothing;
    uint32_t off = append(b, s, n, 1);
    append(b, "", 1, 1);
    return (struct snap_str){ off, (uint32_t)n };
}
static struct snap_str put_text(struct build *b, const char *s) { return s ? put_bytes(b, s, strlen(s)) : b->nothing; }

static struct snap_list put_list(struct build *b, const void *items, uint32_t count, size_t size) {
    uint32_t off = append(b, items, (size_t)count * size, 8);
    return (struct snap_list){ off, b->failed ? 0 : count };
}

/* A zeroed array on the side. */
static void *side(struct build *b, uint32_t count, size_t size) {
    void *p = calloc(count ? count : 1, size);
    if (!p) b->failed = true;
    return p;
}
#define SIDE(b, type, var, n) \
    type *var = side(b, n, sizeof(type)); \
    if (!var) return (struct snap_list) { \
            0, 0 \
        }

static struct snap_list done(struct build *b, void *items, uint32_t count, size_t size) {
    struct snap_list l = put_list(b, items, count, size);
    wipe(items, count * size);
    free(items);
    return l;
}

static uint32_t id_of(struct build *b, enum name_kind kind, const char *name) {
    return b->ids->id_of(b->ids->arg, kind, name);
}

/* ---- lists ---- */

static struct snap_list put_words(struct build *b, const struct conf_list *words) {
    SIDE(b, struct snap_str, a, words->count);
    for (uint32_t i = 0; i < words->count; i++) a[i] = put_text(b, ((const struct conf_word *)words->items[i])->text);
    return done(b, a, words->count, sizeof *a);
}

static struct snap_list put_pairs(struct build *b, const struct conf_list *pairs) {
    SIDE(b, struct snap_pair, a, pairs->count);
    for (uint32_t i = 0; i < pairs->count; i++) {
        const struct conf_pair *p = pairs->items[i];
        a[i] = (struct snap_pair){ put_text(b, p->name), put_text(b, p->value.value) };
    }
    return done(b, a, pairs->count, sizeof *a);
}

/* Globs joined by commas; none: everything. */
static struct snap_str put_globs(struct build *b, const struct conf_list *globs) {
    if (!globs->count) return put_text(b, "*");
    struct snap_str first = { 0, 0 };
    for (uint32_t i = 0; i < globs->count; i++) {
        const struct conf_word *w = globs->items[i];
        if (i) append(b, ",", 1, 1);
        uint32_t off = append(b, w->text, w->len, 1);
        if (!i) first.off = off;
    }
    first.len = b->failed ? 0 : (uint32_t)b->len - first.off;
    append(b, "", 1, 1);
    return first;
}

static struct snap_list put_listens(struct build *b) {
    const struct conf_list *l = &b->conf->main.listens;
    SIDE(b, struct snap_listen, a, l->count);
    for (uint32_t i = 0; i < l->count; i++) {
        const struct conf_listen *from = l->items[i];
        uint64_t options = (uint64_t)from->tls | (uint64_t)from->proxy_protocol << 1 | (uint64_t)from->admin << 2;
        a[i] = (struct snap_listen){ hash64(from->address, strlen(from->address), options + 1),
                                     put_text(b, from->address), from->tls, from->proxy_protocol, from->admin };
    }
    return done(b, a, l->count, sizeof *a);
}

static struct snap_list put_cidrs(struct build *b) {
    const struct conf_list *l = &b->conf->main.trusted_proxies;
    SIDE(b, struct snap_cidr, a, l->count);
    for (uint32_t i = 0; i < l->count; i++) a[i] = *(const struct snap_cidr *)l->items[i];
    return done(b, a, l->count, sizeof *a);
}

static struct rate rate_of(const struct conf_limit *l) { return (struct rate){ l->limit, l->burst }; }

static struct snap_list put_tiers(struct build *b) {
    const struct conf_list *l = &b->conf->tiers;
    SIDE(b, struct snap_tier, a, l->count);
    for (uint32_t i = 0; i < l->count; i++) {
        const struct conf_tier *t = l->items[i];
        a[i] = (struct snap_tier){ .id = id_of(b, NAME_TIER, t->block.name),
                                   .name = put_text(b, t->block.name),
                                   .rpm = rate_of(&t->rpm),
                                   .tpm = rate_of(&t->tpm),
                                   .images_rpm = rate_of(&t->images_rpm),
                                   .concurrency = t->concurrency,
                                   .models = put_globs(b, &t->models) };
    }
    return done(b, a, l->count, sizeof *a);
}

static struct snap_list put_groups(struct build *b) {
    const struct conf_list *l = &b->conf->groups;
    SIDE(b, struct snap_group, a, l->count);
    for (uint32_t i = 0; i < l->count; i++) {
        const struct conf_group *g = l->items[i];
        a[i] = (struct snap_group){ id_of(b, NAME_GROUP, g->block.name), put_text(b, g->block.name),
                                    put_globs(b, &g->models), (uint32_t)g->ratio };
    }
    return done(b, a, l->count, sizeof *a);
}

static struct snap_list put_cas(struct build *b) {
    const struct conf_list *l = &b->conf->cas;
    SIDE(b, struct snap_ca, a, l->count);
    for (uint32_t i = 0; i < l->count; i++) {
        const struct conf_ca *ca = l->items[i];
        a[i] = (struct snap_ca){ ca->hash, b->for_ledger ? b->nothing : put_bytes(b, ca->pem, ca->len) };
    }
    return done(b, a, l->count, sizeof *a);
}

/* ---- upstreams ---- */

static struct snap_list put_keys(struct build *b, const struct conf_upstream *u) {
    uint32_t count = b->for_ledger ? 0 : u->keys.count;
    SIDE(b, struct snap_str, a, count);
    for (uint32_t i = 0; i < count; i++) a[i] = put_text(b, ((const struct conf_secret *)u->keys.items[i])->value);
    return done(b, a, count, sizeof *a);
}

static uint32_t auth_of(const struct conf_upstream *u) {
    static const uint32_t usual[DIALECT_COUNT] = { [DIALECT_OPENAI] = AUTH_BEARER,
                                                   [DIALECT_RESPONSES] = AUTH_BEARER,
                                                   [DIALECT_ANTHROPIC] = AUTH_X_API_KEY,
                                                   [DIALECT_GEMINI] = AUTH_X_GOOG_API_KEY,
                                                   [DIALECT_ECHO] = AUTH_BEARER };
    return conf_where(&u->block, "auth").file ? (uint32_t)u->auth : usual[u->dialect];
}

static struct snap_str put_host_header(struct build *b, const struct conf_url *url) {
    char text[300];
    if (!url->host) return b->nothing;
    bool v6 = strchr(url->host, ':');
    int n = snprintf(text, sizeof text, "%s%s%s", v6 ? "[" : "", url->host, v6 ? "]" : "");
    if (url->port != (url->tls ? 443 : 80)) snprintf(text + n, sizeof text - (size_t)n, ":%u", url->port);
    return put_text(b, text);
}

static struct snap_list put_upstreams(struct build *b) {
    const struct conf_list *l = &b->conf->upstreams;
    static const struct conf_list none;
    SIDE(b, struct snap_upstream, a, l->count);
    for (uint32_t i = 0; i < l->count; i++) {
        const struct conf_upstream *u = l->items[i];
        a[i] = (struct snap_upstream){ .id = id_of(b, NAME_UPSTREAM, u->block.name),
                                       .name = put_text(b, u->block.name),
                                       .dialect = (uint32_t)u->dialect,
                                       .tls = u->url.tls,
                                       .host = put_text(b, u->url.host),
                                       .port = u->url.port,
                                       .host_is_address = u->url.is_address,
                                       .host_header = put_host_header(b, &u->url),
                                       .base_path = put_text(b, u->url.path),
                                       .auth = auth_of(u),
                                       .keys = put_keys(b, u),
                                       .headers = put_pairs(b, b->for_ledger ? &none : &u->headers),
                                       .query = put_pairs(b, b->for_ledger ? &none : &u->query),
                                       .ca = u->ca,
                                       .tls_max = u->tls_max ? 13 : 12,
                                       .connect_timeout_ms = (uint32_t)u->connect_timeout_ms,
                                       .first_byte_timeout_ms = (uint32_t)u->first_byte_timeout_ms,
                                       .idle_timeout_ms = (uint32_t)u->idle_timeout_ms,
                                       .max_connections = (uint32_t)u->max_connections,
                                       .keepalive = (uint32_t)u->keepalive,
                                       .retries = (uint32_t)u->retries,
                                       .cooldown_ms = (uint32_t)u->cooldown_ms,
                                       .probe_ms = (uint32_t)u->probe_ms };
    }
    return done(b, a, l->count, sizeof *a);
}

/* ---- models ---- */

/* By priority, in the file's order within one. */
static struct snap_list put_routes(struct build *b, const struct conf_model *m, uint32_t model_id) {
    uint32_t count = m->routes.count;
    SIDE(b, struct snap_route, a, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct conf_route *r = m->routes.items[i];
        const struct conf_upstream *u = b->conf->upstreams.items[r->index];
        uint32_t at = i;
        for (; at && a[at - 1].priority > r->priority; at--) a[at] = a[at - 1];
        a[at] = (struct snap_route){ r->index, put_text(b, r->as), r->weight, r->priority,
                                     b->ids->series_of(b->ids->arg, model_id, id_of(b, NAME_UPSTREAM, u->block.name)) };
    }
    return done(b, a, count, sizeof *a);
}

/* Most specific first: size and quality, size, quality, neither. */
static struct snap_list put_image_prices(struct build *b, const struct conf_model *m) {
    const struct conf_list *l = &m->price.images;
    SIDE(b, struct snap_image_price, a, l->count);
    uint32_t n = 0;
    for (int specific = 3; specific >= 0; specific--)
        CONF_EACH(*l, const struct conf_image_price, p)
            if ((*p->size ? 2 : 0) + (*p->quality ? 1 : 0) == specific)
                a[n++] = (struct snap_image_price){ put_text(b, p->size), put_text(b, p->quality),
                                                    p->usd_millionths * 1000000 };
    CHECK(n == l->count);
    return done(b, a, n, sizeof *a);
}

static uint32_t flags_of(const struct conf_model *m) {
    uint32_t flags = (m->price.free ? MODEL_FREE : 0) | (m->family ? MODEL_FAMILY : 0) |
                     (m->kind == MODEL_CHAT ? MODEL_STREAMING : 0);
    CONF_EACH(m->capabilities, const struct conf_word, w) {
        if (strcmp(w->text, "tools") == 0) flags |= MODEL_TOOLS;
        if (strcmp(w->text, "vision") == 0) flags |= MODEL_VISION;
        if (strcmp(w->text, "reasoning") == 0) flags |= MODEL_REASONING;
        if (strcmp(w->text, "streaming") == 0) flags |= MODEL_STREAMING;
    }
    return flags;
}

static void put_model(struct build *b, const struct conf_model *m, struct snap_model *to) {
    char name[132], word[32];
    snprintf(name, sizeof name, "%s%s", m->block.name, m->family ? "*" : "");
    const char *owner = m->owned_by ? m->owned_by : ((const struct conf_route *)m->routes.items[0])->upstream.text;
    bool limit_field = conf_where(&m->block, "limit_field").file;
    *to = (struct snap_model){
        .id = id_of(b, NAME_MODEL, name),
        .name = put_text(b, m->block.name),
        .owned_by = put_text(b, owner),
        .provider = put_text(b, m->provider ? m->provider : owner),
        .kind = m->kind < MODEL_OTHER ? (uint32_t)m->kind : MODEL_OTHER,
        .flags = flags_of(m),
        .price_given = m->price.given,
        .max_output = m->max_output,
        .context = m->context,
        .call_cap_nano = (int64_t)m->call_cap_nano,
        .created = (int64_t)m->created,
        .strip = put_words(b, &m->strip),
        .allow = put_words(b, &m->allow),
        .capabilities = put_words(b, &m->capabilities),
        .limit_field = put_text(
            b, limit_field ? conf_enum_word(conf_find(CONF_MODEL, "limit_field"), m->limit_field, word) : NULL),
        .image_prices = put_image_prices(b, m),
        .sizes = put_words(b, &m->sizes),
        .qualities = put_words(b, &m->qualities),
        .budgets = put_pairs(b, &m->budgets),
        .n_max = (uint32_t)m->n_max,
        .prompt_max = (uint32_t)m->prompt_max
    };
    for (int k = 0; k < TOOL_KINDS; k++)
        to->tool_per_million[k] = m->price.tools[k] * 1000000;
    to->routes = put_routes(b, m, to->id);
    conf_prices_fill(m, &to->prices, &to->weights);
}

static struct snap_list put_models(struct build *b) {
    const struct conf_list *l = &b->conf->models;
    SIDE(b, struct snap_model, a, l->count);
    for (uint32_t i = 0; i < l->count; i++) put_model(b, l->items[i], &a[i]);
    return done(b, a, l->count, sizeof *a);
}

/* Places and hashes are those of shm/snapshot.c's snap_find_model. */
static struct snap_list put_names(struct build *b) {
    uint32_t places = b->conf->names_mask + 1;
    SIDE(b, struct snap_name, a, places);
    for (uint32_t i = 0; i < places; i++) {
        const struct conf_name *n = &b->conf->names[i];
        if (!n->name) continue;
        uint64_t hash = snap_name_hash(slice_str(n->name)), at = hash;
        while (a[at & b->conf->names_mask].hash) at++;
        a[at & b->conf->names_mask] = (struct snap_name){ hash, n->model, 0, put_text(b, n->name) };
    }
    return done(b, a, places, sizeof *a);
}

static struct snap_list put_families(struct build *b) {
    const struct conf_list *l = &b->conf->models;
    SIDE(b, uint32_t, a, l->count);
    uint32_t n = 0;
    for (uint32_t i = 0; i < l->count; i++) {
        const struct conf_model *m = l->items[i];
        if (!m->family) continue;
        uint32_t at = n++;
        for (; at && strlen(((const struct conf_model *)l->items[a[at - 1]])->block.name) < strlen(m->block.name); at--)
            a[at] = a[at - 1];
        a[at] = i;
    }
    return done(b, a, n, sizeof *a);
}

/* ---- the whole ---- */

static uint32_t index_of(const struct conf_list *blocks, const char *name) {
    for (uint32_t i = 0; i < blocks->count; i++)
        if (strcmp(((const struct conf_block *)blocks->items[i])->name, name) == 0) return i;
    CHECK(false); /* conf_check saw to it */
    return 0;
}

static void put_main(struct build *b, struct snap *s) {
    const struct conf_main *m = &b->conf->main;
    s->trusted_proxies = put_cidrs(b);
    s->certificate_pem = put_text(b, b->for_ledger ? NULL : b->conf->certificate_pem);
    s->certificate_key_pem = put_text(b, b->for_ledger ? NULL : b->conf->certificate_key_pem);
    s->cors_origin = put_text(b, m->cors_origin);
    s->access_log = put_text(b, m->access_log.path);
    s->error_log = put_text(b, m->error_log.path);
    s->log_level = m->error_log.level;
    s->admin_token = put_text(b, b->for_ledger ? m->admin_token.value : NULL);
    s->max_body = m->max_body;
    s->max_connections = (uint32_t)m->max_connections;
    s->max_active = (uint32_t)m->max_active;
    s->client_timeout_ms = (uint32_t)m->client_timeout_ms;
    s->keepalive_timeout_ms = (uint32_t)m->keepalive_timeout_ms;
    s->drain_timeout_ms = (uint32_t)m->drain_timeout_ms;
    s->stream_ping_ms = (uint32_t)m->stream_ping_ms;
    s->abort_finish = (uint32_t)m->on_client_abort;
}

static void put_brand_and_billing(struct build *b, struct snap *s) {
    const struct conf_brand *brand = &b->conf->brand;
    const struct conf_billing *bill = &b->conf->billing;
    s->key_prefix = put_text(b, brand->key_prefix);
    s->id_prefix = put_text(b, brand->id_prefix);
    s->error_code = put_text(b, brand->error_code);
    s->error_detail = (uint32_t)brand->error_detail;
    s->upstream_error_status = brand->upstream_error_status ? 503 : 502;
    s->revoked_key_status = brand->revoked_key_status ? 401 : 403;
    s->usage_cost = (uint32_t)brand->usage_cost;
    s->status_upstreams = (uint32_t)brand->status_upstreams;
    s->unit_tokens = (uint32_t)bill->unit;
    s->hold_share_millionths = (uint32_t)bill->hold_share;
    s->signup = (uint32_t)bill->signup;
    s->models_public = (uint32_t)bill->models_public;
    s->signup_credit = (int64_t)(bill->unit ? bill->signup_credit_nano / 1000000000 : bill->signup_credit_nano);
    s->signup_tier_id = id_of(b, NAME_TIER, bill->signup_tier);
    s->signup_group_id = id_of(b, NAME_GROUP, bill->signup_group);
    s->signup_rate_per_h = (uint32_t)bill->signup_rate_per_h;
    s->jwt_secret = put_text(b, b->for_ledger ? bill->jwt_secret.value : NULL);
    s->jwt_ttl_s = bill->jwt_ttl_ms / 1000;
    s->default_tier = index_of(&b->conf->tiers, "default");
    s->default_group = index_of(&b->conf->groups, "default");
}

void *conf_snapshot(const struct conf *c, const struct conf_ids *ids, uint64_t generation, bool for_ledger,
                    size_t *bytes) {
    struct build b = { .conf = c, .ids = ids, .for_ledger = for_ledger };
    struct timespec now;
    struct snap s;
    memset(&s, 0, sizeof s); /* padding too */
    append(&b, &s, sizeof s, 8);
    b.nothing = (struct snap_str){ append(&b, "", 1, 1), 0 };
    clock_gettime(CLOCK_REALTIME, &now);
    s.magic = SNAP_MAGIC;
    s.layout = SNAP_LAYOUT;
    s.generation = generation;
    s.loaded_at_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    s.listens = put_listens(&b);
    s.tiers = put_tiers(&b);
    s.groups = put_groups(&b);
    s.cas = put_cas(&b);
    s.upstreams = put_upstreams(&b);
    s.models = put_models(&b);
    s.names = put_names(&b);
    s.families = put_families(&b);
    put_main(&b, &s);
    put_brand_and_billing(&b, &s);
    s.bytes = b.len;
    if (b.failed) {
        if (b.mem) wipe(b.mem, b.len);
        free(b.mem);
        return NULL;
    }
    memcpy(b.mem, &s, sizeof s);
    *bytes = b.len;
    return b.mem;
}
