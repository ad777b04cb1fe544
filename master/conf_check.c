/* What no single directive can know: names that stand twice or nowhere, what is missing, what contradicts. Also reads
 * the files that a configuration names (CA bundles, certificates) and settles what the master needs of it (struct
 * conf_server). */
#include "master/conf_tree.h"

#include <inttypes.h>
#include <pwd.h>
#include <sched.h>
#include <sys/un.h>
#include "proto/base/crypto.h"

enum { MAX_PEM = 4 << 20 };

/* ---- names ---- */

static void check_twice(struct conf *c, const struct conf_list *blocks) {
    for (uint32_t i = 0; i < blocks->count; i++)
        for (uint32_t j = 0; j < i; j++) {
            const struct conf_block *b = blocks->items[i], *first = blocks->items[j];
            if (strcmp(b->name, first->name) != 0) continue;
            conf_error(c, b->pos, "%s `%s` stands twice; the first is %s", conf_blocks[b->kind].name, b->name,
                       conf_at(c, first->pos, b->pos.file));
            break;
        }
}

/* Enters a name of a model; false: taken, by *other. */
static bool enter_name(struct conf *c, const char *name, struct conf_pos pos, uint32_t model,
                       struct conf_name **other) {
    for (uint64_t h = hash64(name, strlen(name), 0);; h++) {
        struct conf_name *n = &c->names[h & c->names_mask];
        if (!n->name) {
            *n = (struct conf_name){ name, pos, model };
            return true;
        }
        if (strcmp(n->name, name) == 0) {
            *other = n;
            return false;
        }
    }
}

/* Names and aliases of models share one space; families' names one of their own. */
static void check_model_names(struct conf *c) {
    uint32_t count = 0, places = 16;
    CONF_EACH(c->models, struct conf_model, m) count += 1 + m->aliases.count;
    while (places < count * 2) places *= 2;
    c->names = conf_alloc(c, places * sizeof *c->names);
    c->names_mask = places - 1;
    struct conf_name *other;
    for (uint32_t i = 0; i < c->models.count; i++) {
        struct conf_model *m = c->models.items[i];
        if (!m->family && !enter_name(c, m->block.name, m->block.pos, i, &other))
            conf_error(c, m->block.pos, "model `%s` stands twice; the first is %s", m->block.name,
                       conf_at(c, other->pos, m->block.pos.file));
        for (uint32_t j = 0; m->family && j < i; j++) {
            const struct conf_model *first = c->models.items[j];
            if (first->family && strcmp(first->block.name, m->block.name) == 0)
                conf_error(c, m->block.pos, "model `%s*` stands twice; the first is %s", m->block.name,
                           conf_at(c, first->block.pos, m->block.pos.file));
        }
    }
    for (uint32_t i = 0; i < c->models.count; i++) { /* after the names, so that the alias is what the error is about */
        struct conf_model *m = c->models.items[i];
        CONF_EACH(m->aliases, struct conf_word, w) {
            if (m->family) conf_error(c, w->pos, "a family has no alias");
            else if (!enter_name(c, w->text, w->pos, i, &other))
                conf_error(c, w->pos, "alias `%s` clashes with a model or an alias %s", w->text,
                           conf_at(c, other->pos, w->pos.file));
        }
    }
}

/* Names that are referred to by a text: the nearest of them is suggested. */
static void unknown_name(struct conf *c, struct conf_pos pos, const char *what, const char *name,
                         const struct conf_list *blocks) {
    const char *best = NULL;
    unsigned least = (unsigned)strlen(name) / 3 + 2;
    CONF_EACH(*blocks, const struct conf_block, b) {
        unsigned d = conf_distance(b->name, name);
        if (d < least && d < strlen(b->name)) {
            least = d;
            best = b->name;
        }
    }
    if (best) conf_error(c, pos, "unknown %s `%s`; did you mean `%s`?", what, name, best);
    else conf_error(c, pos, "unknown %s `%s`", what, name);
}

struct conf_upstream *conf_upstream_named(const struct conf *c, const char *name, uint32_t *index) {
    for (uint32_t i = 0; i < c->upstreams.count; i++) {
        struct conf_upstream *u = c->upstreams.items[i];
        if (strcmp(u->block.name, name) != 0) continue;
        if (index) *index = i;
        return u;
    }
    return NULL;
}

/* A place to point at: the directive's, else the block's. */
static struct conf_pos place(const struct conf_block *b, const char *directive) {
    struct conf_pos pos = conf_where(b, directive);
    return pos.file ? pos : b->pos;
}

/* ---- defaults ---- */

static void add_default(struct conf *c, struct conf_list *blocks, enum conf_kind kind) {
    CONF_EACH(*blocks, struct conf_block, b)
        if (strcmp(b->name, "default") == 0) return;
    struct conf_block *b = conf_alloc(c, conf_blocks[kind].bytes);
    conf_block_init(c, b, kind, "default", (struct conf_pos){ 0 });
    b->implicit = true;
    conf_add(c, blocks, b);
}

static void add_defaults(struct conf *c) {
    add_default(c, &c->tiers, CONF_TIER);
    add_default(c, &c->groups, CONF_GROUP);
    bool listens = false;
    CONF_EACH(c->main.listens, struct conf_listen, l) listens |= !l->admin;
    if (listens || conf_where(&c->main.block, "listen").file) return;
    struct conf_listen *l = conf_alloc(c, sizeof *l);
    l->address = "127.0.0.1:8080";
    CONF_EACH(c->main.listens, struct conf_listen, other)
        if (strcmp(other->address, l->address) == 0)
            conf_error(c, other->pos, "%s is already the default of listen; add a `listen`", l->address);
    conf_add(c, &c->main.listens, l);
}

/* ---- files ---- */

static const char *read_pem(struct conf *c, struct conf_pos pos, const char *path, const char *label, const char *what,
                            size_t *len) {
    const char *why;
    char *text = conf_read_file(c, path, MAX_PEM, len, &why);
    if (!text) conf_error(c, pos, "%s cannot be read: %s", path, why);
    else if (strlen(text) != *len || !strstr(text, label)) {
        conf_error(c, pos, "%s holds no %s in PEM form", path, what);
        return NULL;
    }
    return text;
}

static void check_certificate(struct conf *c) {
    struct conf_main *m = &c->main;
    CONF_EACH(m->listens, struct conf_listen, l)
        if (l->tls && (!conf_where(&m->block, "certificate").file || !conf_where(&m->block, "certificate_key").file))
            conf_error(c, l->pos, "`tls` needs `certificate` and `certificate_key`");
    if (m->certificate && !conf_where(&m->block, "certificate_key").file)
        conf_error(c, conf_where(&m->block, "certificate"), "`certificate_key` is missing");
    if (m->certificate_key && !conf_where(&m->block, "certificate").file)
        conf_error(c, conf_where(&m->block, "certificate_key"), "`certificate` is missing");
    size_t len;
    if (c->offline) return;
    if (m->certificate)
        c->certificate_pem = read_pem(c, conf_where(&m->block, "certificate"), m->certificate,
                                      "-----BEGIN CERTIFICATE-----", "certificate", &len);
    if (m->certificate_key)
        c->certificate_key_pem = read_pem(c, conf_where(&m->block, "certificate_key"), m->certificate_key,
                                          "PRIVATE KEY-----", "private key", &len);
}

/* An https upstream without anchors to verify it by must not start. */
static void check_ca(struct conf *c, struct conf_upstream *u) {
    if (!u->url.host || !u->url.tls) return;
    for (uint32_t i = 0; i < c->cas.count; i++)
        if (strcmp(((struct conf_ca *)c->cas.items[i])->path, u->ca_file) == 0) {
            u->ca = i;
            return;
        }
    struct conf_ca *ca = conf_alloc(c, sizeof *ca);
    ca->path = u->ca_file;
    if (c->offline) ca->pem = "";
    else
        ca->pem = read_pem(
            c, conf_where(&u->block, "ca_file").file ? conf_where(&u->block, "ca_file") : place(&u->block, "base_url"),
            u->ca_file, "-----BEGIN CERTIFICATE-----", "certificate", &ca->len);
    if (!ca->pem) return;
    ca->hash = hash64(ca->pem, ca->len, 0);
    u->ca = c->cas.count;
    conf_add(c, &c->cas, ca);
}

/* ---- blocks ---- */

static void check_upstream(struct conf *c, struct conf_upstream *u) {
    if (!conf_where(&u->block, "dialect").file) {
        conf_error(c, u->block.pos, "upstream `%s` has no `dialect`; there are: %s", u->block.name,
                   conf_find(CONF_UPSTREAM, "dialect")->words);
        return;
    }
    if (u->dialect == DIALECT_ECHO) return;
    if (!conf_where(&u->block, "base_url").file)
        conf_error(c, u->block.pos, "upstream `%s` has no `base_url`", u->block.name);
    check_ca(c, u);
}

static bool image_priced(const struct conf_model *m, const char *size, const char *quality) {
    CONF_EACH(m->price.images, struct conf_image_price, p)
        if ((!*p->size || strcmp(p->size, size) == 0) && (!*p->quality || !quality || strcmp(p->quality, quality) == 0))
            return true;
    return false;
}

static void check_image(struct conf *c, const struct conf_model *m) {
    bool by_token = m->price.given & (1u << METER_OUTPUT | 1u << METER_IMAGE_OUTPUT);
    if (!m->price.images.count && !by_token) {
        conf_error(c, place(&m->block, "price"), "image model `%s` has no price of `image` or `output`", m->block.name);
        return;
    }
    if (c->billing.unit && !(m->tokens.given & 1u << METER_IMAGES) && !by_token)
        conf_error(c, m->block.pos, "the unit is tokens: model `%s` needs `tokens image N`", m->block.name);
    if (by_token) return;
    CONF_EACH(m->sizes, struct conf_word, size) {
        if (m->qualities.count == 0 && !image_priced(m, size->text, NULL))
            conf_error(c, size->pos, "pictures of size `%s` have no price", size->text);
        CONF_EACH(m->qualities, struct conf_word, quality)
            if (!image_priced(m, size->text, quality->text))
                conf_error(c, size->pos, "pictures of size `%s` and quality `%s` have no price", size->text,
                           quality->text);
    }
}

/* Nothing is served unpriced or unbounded by oversight. */
static void check_price(struct conf *c, const struct conf_model *m) {
    const char *star = m->family ? "*" : "";
    const struct conf_block *b = &m->block;
    if (!conf_where(b, "price").file) {
        conf_error(c, b->pos, "model `%s%s` has no price; `price free;` says so on purpose", b->name, star);
        return;
    }
    if (m->price.free) return;
    uint32_t given = m->price.given;
    bool chat = m->kind == MODEL_CHAT;
    if (m->kind == MODEL_IMAGE) check_image(c, m);
    else if (chat && (!(given & 1u << METER_INPUT) || !(given & 1u << METER_OUTPUT)) && given)
        conf_error(c, place(b, "price"), "chat model `%s%s` needs a price of `input` and of `output`", b->name, star);
    else if (m->kind == MODEL_EMBEDDING && given && !(given & 1u << METER_INPUT))
        conf_error(c, place(b, "price"), "embedding model `%s%s` needs a price of `input`", b->name, star);
    if (!chat) return;
    bool context = conf_where(b, "context").file, output = conf_where(b, "max_output").file;
    if (!context || !output)
        conf_error(c, b->pos, "priced chat model `%s%s` needs %s", b->name, star,
                   context  ? "`max_output`"
                   : output ? "`context`"
                            : "`context` and `max_output`");
}

static void check_model(struct conf *c, struct conf_model *m) {
    const struct conf_block *b = &m->block;
    if (!conf_where(b, "route").file)
        conf_error(c, b->pos, "model `%s%s` has no `route`", b->name, m->family ? "*" : "");
    CONF_EACH(m->routes, struct conf_route, r)
        if (!conf_upstream_named(c, r->upstream.text, &r->index))
            unknown_name(c, r->upstream.pos, "upstream", r->upstream.text, &c->upstreams);
    check_price(c, m);
    if (m->context && m->max_output > m->context)
        conf_error(c, place(b, "max_output"), "max_output %" PRIu64 " is more than context %" PRIu64, m->max_output,
                   m->context);
}

/* A glob that allows nothing is likely a slip. Families may hold any name: then nothing can be said. */
static void check_globs(struct conf *c, const struct conf_list *globs, const char *block) {
    CONF_EACH(*globs, const struct conf_word, w) {
        bool matches = false;
        for (uint32_t i = 0; i < c->models.count && !matches; i++) {
            const struct conf_model *m = c->models.items[i];
            matches = m->family || slice_glob(slice_str(w->text), slice_str(m->block.name));
            CONF_EACH(m->aliases, const struct conf_word, a)
                matches |= slice_glob(slice_str(w->text), slice_str(a->text));
        }
        if (!matches && c->models.count)
            conf_warning(c, w->pos, "`%s`: %s names no model that there is", w->text, block);
    }
}

static void check_billing(struct conf *c) {
    const struct conf_billing *b = &c->billing;
    const struct {
        const char *directive, *what, *name;
        const struct conf_list *blocks;
    } refs[] = { { "signup_tier", "tier", b->signup_tier, &c->tiers },
                 { "signup_group", "group", b->signup_group, &c->groups } };
    for (size_t i = 0; i < ARRAY_LEN(refs); i++) {
        bool known = false;
        CONF_EACH(*refs[i].blocks, const struct conf_block, t) known |= strcmp(t->name, refs[i].name) == 0;
        if (!known) unknown_name(c, place(&b->block, refs[i].directive), refs[i].what, refs[i].name, refs[i].blocks);
    }
    if (b->unit && b->signup_credit_nano % 1000000000)
        conf_error(c, place(&b->block, "signup_credit"), "the unit is tokens: signup_credit is a whole number");
}

/* ---- what the master needs ---- */

static uint32_t cpu_count(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : n > 256 ? 256 : (uint32_t)n;
}

static void settle_server(struct conf *c) {
    struct conf_main *m = &c->main;
    uint32_t cpus = c->offline ? 1 : cpu_count();
    struct conf_server *s = &c->server;
    s->workers = m->workers ? (uint32_t)m->workers : cpus;
    s->control = m->control ? m->control : conf_path(c, c->top, "run/control.sock");
    s->state_dir = m->state_dir ? m->state_dir : conf_path(c, c->top, "state");
    /* Two deployments on one machine must not share a segment: the name comes from where the ledger is. */
    s->shm_file = m->shm_file ? m->shm_file
                              : conf_format(c, "/dev/shm/tollgate-%016" PRIx64 ".mem",
                                            hash64(s->state_dir, strlen(s->state_dir), 0));
    s->user = m->user;
    s->error_log = m->error_log.path;
    s->access_log = m->access_log.path;
    s->drain_timeout_ms = (uint32_t)m->drain_timeout_ms;
    /* Each worker may have a draining predecessor; some room, so that a reload may raise the number of workers. */
    uint32_t room = cpus < 4 ? cpus : 4;
    s->sizes = (struct shm_sizes){ (uint32_t)m->max_accounts, (uint32_t)m->max_keys, (uint32_t)m->max_active,
                                   2 * (s->workers > room ? s->workers : room) + 2 };
    if (strlen(s->control) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        conf_error(c, place(&m->block, "control"), "the socket's path is too long (107 bytes at most): %s", s->control);
    if (m->user && !c->offline && !getpwnam(m->user))
        conf_error(c, place(&m->block, "user"), "there is no user `%s`", m->user);
}

void conf_check(struct conf *c) {
    check_twice(c, &c->tiers);
    check_twice(c, &c->groups);
    check_twice(c, &c->upstreams);
    check_model_names(c);
    add_defaults(c);
    check_certificate(c);
    if (c->upstreams.count >= SHM_MAX_UPSTREAMS)
        conf_error(c, ((struct conf_block *)c->upstreams.items[SHM_MAX_UPSTREAMS - 1])->pos, "more than %d upstreams",
                   SHM_MAX_UPSTREAMS - 1);
    CONF_EACH(c->upstreams, struct conf_upstream, u) check_upstream(c, u);
    CONF_EACH(c->models, struct conf_model, m) check_model(c, m);
    CONF_EACH(c->tiers, const struct conf_tier, t) check_globs(c, &t->models, "tier");
    CONF_EACH(c->groups, const struct conf_group, g) check_globs(c, &g->models, "group");
    check_billing(c);
    settle_server(c);
}

/* ---- prices ---- */

static void fill(const struct conf_prices *given, uint64_t plain, uint64_t image_factor, struct prices *out) {
    for (unsigned m = 0; m < METER_COUNT; m++) {
        uint64_t n = given->per_million[m];
        if (!(given->given & 1u << m) && m != METER_IMAGES)
            n = m < METER_OUTPUT ? (given->given & 1u << METER_INPUT ? given->per_million[METER_INPUT] : plain)
                                 : (given->given & 1u << METER_OUTPUT ? given->per_million[METER_OUTPUT] : plain);
        out->per_million[m] = m == METER_IMAGES ? n * image_factor : n;
    }
}

/* Dollars of a picture are given apiece, of tokens per million; weights are all apiece. */
void conf_prices_fill(const struct conf_model *m, struct prices *usd, struct prices *weights) {
    fill(&m->price, 0, 1000000, usd);
    fill(&m->tokens, m->price.free ? 0 : 1000000, 1, weights);
}
