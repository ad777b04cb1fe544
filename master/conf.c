/* gateway.conf as the master sees it: load, compare, name. The parts: see conf_tree.h. */
#include "master/conf_tree.h"

#include <stdlib.h>
#include <unistd.h>

enum { MAX_FILE_BYTES = 16 << 20 };

/* Where relative paths of the file begin. */
static const char *folder_of(struct conf *c, const char *path) {
    const char *slash = strrchr(path, '/');
    const char *folder = slash ? conf_copy(c, path, (size_t)(slash - path) + 1) : "";
    if (*folder == '/') return conf_path(c, NULL, folder);
    char cwd[4096];
    if (!getcwd(cwd, sizeof cwd)) return "/";
    return conf_path(c, NULL, conf_format(c, "%s/%s", cwd, folder));
}

static void load(struct conf *c, const char *name, struct slice text) {
    struct conf_file *file = conf_alloc(c, sizeof *file);
    file->path = conf_copy(c, name, strlen(name));
    file->folder = c->offline ? "/" : folder_of(c, name);
    c->top = file;
    if (!c->offline) {
        const char *why;
        size_t len;
        char *read = conf_read_file(c, name, MAX_FILE_BYTES, &len, &why);
        if (!read) {
            conf_error(c, (struct conf_pos){ 0 }, "%s cannot be read: %s", name, why);
            return;
        }
        text = slice_of(read, len);
    }
    conf_block_init(c, &c->main.block, CONF_MAIN, "", (struct conf_pos){ 0 });
    conf_block_init(c, &c->brand.block, CONF_BRAND, "", (struct conf_pos){ 0 });
    conf_block_init(c, &c->billing.block, CONF_BILLING, "", (struct conf_pos){ 0 });
    conf_parse(c, file, text);
    conf_check(c);
}

/* false: an allocation failed. Of its own it holds nothing, so that leaving by longjmp loses nothing. */
static bool attempt(struct conf *c, const char *name, struct slice text, FILE *err) {
    jmp_buf escape;
    c->pool.escape = &escape;
    if (setjmp(escape) != 0) return false;
    load(c, name, text);
    c->pool.escape = NULL;
    conf_report(c, err);
    return true;
}

static struct conf *guarded(const char *name, struct slice text, bool offline, FILE *err, uint64_t budget) {
    struct conf *c = calloc(1, sizeof *c);
    bool whole = false;
    if (c) {
        c->pool.budget = budget;
        c->offline = offline;
        whole = attempt(c, name, text, err);
        if (whole && c->error_count == 0) return c;
        conf_includes_close(c);
        conf_loose_wipe(c);
        conf_free(c);
    }
    if (!whole) fprintf(err, "%s: out of memory\n", name);
    return NULL;
}

struct conf *conf_load(const char *path, FILE *err) {
    return guarded(path, SLICE_NONE, false, err, UINT64_MAX);
}
struct conf *conf_load_budget(const char *path, FILE *err, uint64_t budget) {
    return guarded(path, SLICE_NONE, false, err, budget);
}
struct conf *conf_load_text(const char *name, struct slice text, FILE *err) {
    return guarded(name, text, true, err, UINT64_MAX);
}

void conf_free(struct conf *c) {
    if (!c) return;
    conf_pool_wipe(&c->pool);
    wipe(c, sizeof *c);
    free(c);
}

const struct conf_server *conf_server(const struct conf *c) { return &c->server; }

static bool differ(const char *a, const char *b) { return (a == NULL) != (b == NULL) || (a && strcmp(a, b) != 0); }

bool conf_can_follow(const struct conf *running, const struct conf *next, FILE *err) {
    const struct conf_server *a = &running->server, *b = &next->server;
    const struct {
        const char *name;
        bool changed;
    } settings[] = {
        { "state_dir", differ(a->state_dir, b->state_dir) },
        { "shm_file", differ(a->shm_file, b->shm_file) },
        { "control", differ(a->control, b->control) },
        { "user", differ(a->user, b->user) },
        { "max_accounts", a->sizes.max_accounts != b->sizes.max_accounts },
        { "max_keys", a->sizes.max_keys != b->sizes.max_keys },
        { "max_active", a->sizes.max_active != b->sizes.max_active },
        { "unit", running->billing.unit != next->billing.unit }, /* balances are counted in it */
    };
    bool ok = true;
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
        if (!settings[i].changed) continue;
        fprintf(err, "%s needs a restart\n", settings[i].name);
        ok = false;
    }
    return ok;
}

void conf_each_name(const struct conf *c, void (*fn)(void *arg, enum name_kind kind, const char *name), void *arg) {
    CONF_EACH(c->tiers, const struct conf_block, b) fn(arg, NAME_TIER, b->name);
    CONF_EACH(c->groups, const struct conf_block, b) fn(arg, NAME_GROUP, b->name);
    CONF_EACH(c->upstreams, const struct conf_block, b) fn(arg, NAME_UPSTREAM, b->name);
    for (uint32_t i = 0; i < c->models.count; i++) {
        const struct conf_model *m = c->models.items[i];
        char name[132];
        snprintf(name, sizeof name, "%s%s", m->block.name, m->family ? "*" : "");
        fn(arg, NAME_MODEL, name);
    }
}
