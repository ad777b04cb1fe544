/* Sets one directive by the shape its row names, and reads secrets from where they are. A wrong value is an error at
 * the value's place; the field then keeps its default, so that what comes after can still be checked. */
#include "master/conf_tree.h"

#include <inttypes.h>
#include <stdlib.h>

enum { MAX_SECRET = 65536 };

static void *field(struct conf_args *a) { return (char *)a->block + a->directive->offset; }

/* A bound as the operator would write it. */
static const char *bound(struct conf *c, const struct conf_directive *d, uint64_t n) {
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    if (!f) return "its bound";
    if (d->shape == SHAPE_SIZE) conf_put_size(f, n);
    else if (d->shape == SHAPE_TIME) conf_put_time(f, n);
    else if (d->shape == SHAPE_RATIO) conf_put_decimal(f, n, 6);
    else if (d->shape == SHAPE_NANO) conf_put_decimal(f, n, 9);
    else if (d->shape == SHAPE_PER_H) fprintf(f, "%" PRIu64 "/h", n);
    else fprintf(f, "%" PRIu64, n);
    fclose(f);
    const char *copy = "its bound";
    if (text && len < 64) {
        char mem[64]; /* freed before the pool may leave */
        memcpy(mem, text, len + 1);
        free(text);
        copy = conf_copy(c, mem, len);
    } else free(text);
    return copy;
}

static const char *read_number(enum conf_shape shape, const char *s, uint64_t *n) {
    switch (shape) {
    case SHAPE_SIZE: return conf_size(s, n);
    case SHAPE_TIME: return conf_time(s, n);
    case SHAPE_RATIO: return conf_decimal(s, 6, n);
    case SHAPE_NANO: return conf_decimal(s, 9, n);
    case SHAPE_PER_H: return conf_rate_per_h(s, n);
    default: return conf_number(s, n);
    }
}

static bool number(struct conf_args *a, const struct conf_word *w, uint64_t *out) {
    const struct conf_directive *d = a->directive;
    uint64_t n;
    const char *bad = read_number(d->shape, w->text, &n);
    if (bad) conf_error(a->conf, w->pos, "`%s`: %s", w->text, bad);
    else if (n < d->min)
        conf_error(a->conf, w->pos, "`%s`: %s is at least %s", w->text, d->name, bound(a->conf, d, d->min));
    else if (n > d->max)
        conf_error(a->conf, w->pos, "`%s`: %s is at most %s", w->text, d->name, bound(a->conf, d, d->max));
    else {
        *out = n;
        return true;
    }
    return false;
}

static void set_limit(struct conf_args *a) {
    struct conf_limit *l = field(a);
    uint64_t n, burst;
    if (!number(a, &a->at[0], &n)) return;
    *l = (struct conf_limit){ n, n };
    if (a->count == 1) return;
    if (strcmp(a->at[1].text, "burst") != 0) {
        conf_error(a->conf, a->at[1].pos, "`%s`: `burst` is expected here", a->at[1].text);
        return;
    }
    if (a->count != 3) {
        conf_error(a->conf, a->at[a->count > 3 ? 3 : 1].pos, "%s takes %s", a->directive->name, a->directive->args);
        return;
    }
    if (!number(a, &a->at[2], &burst)) return;
    if (burst > n)
        conf_error(a->conf, a->at[2].pos, "a burst of %" PRIu64 " is more than the limit, %" PRIu64, burst, n);
    else if (burst == 0 && n > 0) conf_error(a->conf, a->at[2].pos, "a burst of 0 would let nothing through");
    else l->burst = burst;
}

const char *conf_enum_word(const struct conf_directive *d, uint64_t value, char buf[32]) {
    const char *p = d->words;
    while (value-- && p) {
        p = strchr(p, ' ');
        if (p) p++;
    }
    CHECK(p);
    size_t n = strcspn(p, " ");
    CHECK(n < 32);
    memcpy(buf, p, n);
    buf[n] = 0;
    return buf;
}

static void set_enum(struct conf_args *a) {
    char word[32], nearest[32] = "";
    unsigned least = 3, count = 1;
    for (const char *p = a->directive->words; *p; p++) count += *p == ' ';
    for (unsigned i = 0; i < count; i++) {
        conf_enum_word(a->directive, i, word);
        if (strcmp(word, a->at[0].text) == 0) {
            *(uint64_t *)field(a) = i;
            return;
        }
        unsigned distance = conf_distance(word, a->at[0].text);
        if (distance < least && distance < strlen(word)) {
            least = distance;
            memcpy(nearest, word, sizeof nearest);
        }
    }
    if (*nearest)
        conf_error(a->conf, a->at[0].pos, "`%s` is no %s; did you mean `%s`?", a->at[0].text, a->directive->name,
                   nearest);
    else
        conf_error(a->conf, a->at[0].pos, "`%s` is no %s; there are: %s", a->at[0].text, a->directive->name,
                   a->directive->words);
}

/* Words, each once; globs are also split at commas, as tollctl writes them. */
static void set_words(struct conf_args *a) {
    struct conf_list *list = field(a);
    bool globs = a->directive->shape == SHAPE_GLOBS;
    for (uint32_t i = 0; i < a->count; i++) {
        const struct conf_word *w = &a->at[i];
        for (const char *p = w->text;; p++) {
            size_t n = globs ? strcspn(p, ",") : strlen(p);
            struct conf_word *one = conf_alloc(a->conf, sizeof *one);
            *one = *w;
            one->text = conf_copy(a->conf, p, n);
            one->len = n;
            const char *bad = n == 0 ? "an empty word" : a->directive->check ? a->directive->check(one->text) : NULL;
            CONF_EACH(*list, struct conf_word, other)
                if (!bad && strcmp(other->text, one->text) == 0) bad = "this stands here twice";
            if (bad) conf_error(a->conf, w->pos, "`%s`: %s", one->text, bad);
            else conf_add(a->conf, list, one);
            p += n;
            if (!*p) break;
        }
    }
}

/* ---- secrets ---- */

static const char *secret_of_env(struct conf *c, const struct conf_word *w, const char *name) {
    size_t n = strlen(name);
    if (n == 0 || strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") != n ||
        (*name >= '0' && *name <= '9')) {
        conf_error(c, w->pos, "`%s`: this is not the name of an environment variable", w->text);
        return NULL;
    }
    if (c->offline) return "offline";
    const char *value = getenv(name);
    if (!value) conf_error(c, w->pos, "the environment variable %s is not set", name);
    else if (!*value) conf_error(c, w->pos, "the environment variable %s is empty", name);
    return value && *value ? conf_copy(c, value, strlen(value)) : NULL;
}

static const char *secret_of_file(struct conf *c, const struct conf_word *w, const char *path) {
    if (c->offline) return "offline";
    size_t len;
    const char *why;
    char *text = conf_read_file(c, path, MAX_SECRET, &len, &why);
    if (!text) {
        conf_error(c, w->pos, "%s cannot be read: %s", path, why);
        return NULL;
    }
    if (strlen(text) != len) {
        conf_error(c, w->pos, "%s holds a NUL byte", path);
        return NULL;
    }
    while (len && (text[len - 1] == '\n' || text[len - 1] == '\r')) text[--len] = 0; /* editors end files so */
    if (!len) {
        conf_error(c, w->pos, "%s is empty", path);
        return NULL;
    }
    return text;
}

/* Errors never show the value: not even a literal's. */
void conf_set_secret(struct conf *c, const struct conf_word *w, struct conf_secret *out,
                     const char *(*check)(const char *)) {
    *out = (struct conf_secret){ .pos = w->pos, .value = "" };
    const char *value;
    if (strncmp(w->text, "env:", 4) == 0) {
        out->kind = SECRET_ENV;
        out->source = w->text;
        value = secret_of_env(c, w, w->text + 4);
    } else if (strncmp(w->text, "file:", 5) == 0) {
        out->kind = SECRET_FILE;
        const char *path = conf_path(c, w->pos.file, w->text + 5);
        out->source = conf_format(c, "file:%s", path);
        value = secret_of_file(c, w, path);
    } else {
        out->kind = SECRET_LITERAL;
        value = w->text;
        if (!*value) conf_error(c, w->pos, "this is empty");
        if (strcmp(value, "********") == 0)
            conf_warning(c, w->pos, "this is what -T prints for a secret, not the secret");
    }
    if (!value || !*value) return;
    const char *bad = check ? check(value) : NULL;
    if (bad) conf_error(c, w->pos, "%s%s%s", out->source ? out->source : "", out->source ? ": " : "", bad);
    else out->value = value;
}

void conf_set(struct conf_args *a) {
    const struct conf_directive *d = a->directive;
    const struct conf_word *w = &a->at[0];
    const char *bad;
    switch (d->shape) {
    case SHAPE_FLAG:
        if (strcmp(w->text, "on") != 0 && strcmp(w->text, "off") != 0)
            conf_error(a->conf, w->pos, "`%s`: on or off is expected", w->text);
        else *(uint64_t *)field(a) = strcmp(w->text, "on") == 0;
        return;
    case SHAPE_COUNT:
    case SHAPE_SIZE:
    case SHAPE_TIME:
    case SHAPE_RATIO:
    case SHAPE_NANO:
    case SHAPE_PER_H: number(a, w, field(a)); return;
    case SHAPE_LIMIT: set_limit(a); return;
    case SHAPE_ENUM: set_enum(a); return;
    case SHAPE_TEXT:
        bad = d->check ? d->check(w->text) : NULL;
        if (bad) conf_error(a->conf, w->pos, "`%s`: %s", w->text, bad);
        else *(const char **)field(a) = w->text;
        return;
    case SHAPE_PATH:
        bad = !*w->text ? "a path is expected" : d->check ? d->check(w->text) : NULL;
        if (bad) conf_error(a->conf, w->pos, "`%s`: %s", w->text, bad);
        else *(const char **)field(a) = conf_path(a->conf, w->pos.file, w->text);
        return;
    case SHAPE_SECRET: conf_set_secret(a->conf, w, field(a), d->check); return;
    case SHAPE_SECRETS: {
        struct conf_list *list = field(a);
        if (d->max && list->count == d->max) {
            conf_error(a->conf, a->pos, "%s may stand %" PRIu64 " times at most", d->name, d->max);
            return;
        }
        struct conf_secret *s = conf_alloc(a->conf, sizeof *s);
        conf_set_secret(a->conf, w, s, d->check);
        conf_add(a->conf, list, s);
        return;
    }
    case SHAPE_WORDS:
    case SHAPE_GLOBS: set_words(a); return;
    case SHAPE_OTHER: d->set(a); return;
    }
}
