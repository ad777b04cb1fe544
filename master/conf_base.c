/* What the other conf_*.c stand on: memory that is wiped, errors with positions, paths, files. */
#include "master/conf_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_REPORTED = 100 };

struct conf_chunk {
    struct conf_chunk *next;
    size_t bytes;
};

void *conf_alloc(struct conf *c, size_t n) {
    struct conf_pool *p = &c->pool;
    /* 16 bytes of head keep malloc's alignment for what follows. */
    struct conf_chunk *k = p->budget && n < SIZE_MAX / 2 ? calloc(1, sizeof *k + n) : NULL;
    if (!k) longjmp(*p->escape, 1);
    if (p->budget != UINT64_MAX) p->budget--;
    k->bytes = n;
    k->next = p->chunks;
    p->chunks = k;
    return k + 1;
}

void conf_pool_wipe(struct conf_pool *p) {
    while (p->chunks) {
        struct conf_chunk *k = p->chunks;
        p->chunks = k->next;
        wipe(k + 1, k->bytes);
        free(k);
    }
}

char *conf_copy(struct conf *c, const char *p, size_t n) {
    char *s = conf_alloc(c, n + 1);
    if (n) memcpy(s, p, n);
    return s;
}

static char *format(struct conf *c, const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    CHECK(n >= 0);
    char *s = conf_alloc(c, (size_t)n + 1);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    return s;
}

char *conf_format(struct conf *c, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *s = format(c, fmt, ap);
    va_end(ap);
    return s;
}

/* The old array stays in the pool until the end: doubling bounds what that costs. */
void conf_add(struct conf *c, struct conf_list *l, void *item) {
    if (l->count == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 4;
        void **items = conf_alloc(c, cap * sizeof *items);
        if (l->count) memcpy(items, l->items, l->count * sizeof *items);
        l->items = items;
        l->cap = cap;
    }
    l->items[l->count++] = item;
}

bool conf_errors_full(const struct conf *c) { return c->errors.count > MAX_REPORTED; }

static void note(struct conf *c, struct conf_pos pos, bool warning, const char *fmt, va_list ap) {
    if (!warning) c->error_count++;
    if (conf_errors_full(c)) return;
    struct conf_error *e = conf_alloc(c, sizeof *e);
    e->pos = pos;
    e->order = c->errors.count;
    e->warning = warning;
    e->text = format(c, fmt, ap);
    conf_add(c, &c->errors, e);
}

void conf_error(struct conf *c, struct conf_pos pos, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    note(c, pos, false, fmt, ap);
    va_end(ap);
}

void conf_warning(struct conf *c, struct conf_pos pos, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    note(c, pos, true, fmt, ap);
    va_end(ap);
}

const char *conf_at(struct conf *c, struct conf_pos pos, const struct conf_file *from) {
    if (!pos.file) return "built in";
    return pos.file == from ? conf_format(c, "on line %u", pos.line)
                            : conf_format(c, "at %s:%u", pos.file->path, pos.line);
}

/* By file, then by place. */
static int by_place(const void *a, const void *b) {
    const struct conf_error *x = *(const struct conf_error *const *)a, *y = *(const struct conf_error *const *)b;
    if (x->pos.file != y->pos.file)
        return x->pos.file && y->pos.file ? strcmp(x->pos.file->path, y->pos.file->path) : x->pos.file ? 1 : -1;
    if (x->pos.line != y->pos.line) return x->pos.line < y->pos.line ? -1 : 1;
    if (x->pos.column != y->pos.column) return x->pos.column < y->pos.column ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

void conf_report(struct conf *c, FILE *err) {
    if (c->errors.count) qsort(c->errors.items, c->errors.count, sizeof(void *), by_place);
    for (uint32_t i = 0; i < c->errors.count && i < MAX_REPORTED; i++) {
        const struct conf_error *e = c->errors.items[i];
        if (e->pos.file) fprintf(err, "%s:%u:%u: ", e->pos.file->path, e->pos.line, e->pos.column);
        fprintf(err, "%s%s\n", e->warning ? "warning: " : "", e->text);
    }
    if (c->errors.count > MAX_REPORTED) fprintf(err, "more errors follow; these are the first %d\n", MAX_REPORTED);
}

const char *conf_path(struct conf *c, const struct conf_file *in, const char *path) {
    char *full = path[0] == '/' ? conf_copy(c, path, strlen(path))
                                : conf_format(c, "%s/%s", in ? in->folder : "", path);
    char *to = full;
    for (const char *at = full; *at;) { /* ".." stays: behind a symbolic link it is not what it looks like */
        while (*at == '/') at++;
        size_t n = strcspn(at, "/");
        if (n == 0) break;
        if (!(n == 1 && at[0] == '.')) {
            *to++ = '/';
            memmove(to, at, n);
            to += n;
        }
        at += n;
    }
    if (to == full) *to++ = '/';
    *to = 0;
    return full;
}

/* Twice the room; what the old memory held may be a secret. NULL: out of memory, the old is gone too. */
static char *more_room(char *mem, size_t *cap, size_t max) {
    size_t bigger = *cap < max / 2 ? *cap * 2 : max;
    char *fresh = malloc(bigger);
    if (fresh) memcpy(fresh, mem, *cap);
    wipe(mem, *cap);
    free(mem);
    *cap = bigger;
    return fresh;
}

/* Into malloc'd memory first: the descriptor must not be open across an allocation of the pool. It begins with the
 * size that the file has and grows, for a pipe has none. */
static char *read_all(const char *path, size_t max_bytes, size_t *len, const char **why) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        *why = strerror(errno);
        return NULL;
    }
    struct stat st;
    char *mem = NULL;
    size_t n = 0, cap = 4096;
    *why = "out of memory";
    if (fstat(fd, &st) != 0 || S_ISDIR(st.st_mode)) {
        *why = "it is not a file";
    } else {
        if (st.st_size > 0) cap = (uint64_t)st.st_size < max_bytes ? (size_t)st.st_size + 1 : max_bytes + 1;
        mem = malloc(cap);
    }
    while (mem && n <= max_bytes) {
        if (n == cap && !(mem = more_room(mem, &cap, max_bytes + 1))) break;
        ssize_t r = read(fd, mem + n, cap - n);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) {
            *why = strerror(errno);
            wipe(mem, n);
            free(mem);
            mem = NULL;
            break;
        }
        if (r == 0) break;
        n += (size_t)r;
    }
    close(fd);
    if (mem && n > max_bytes) {
        *why = "it is too large";
        wipe(mem, n);
        free(mem);
        mem = NULL;
    }
    *len = n;
    return mem;
}

char *conf_read_file(struct conf *c, const char *path, size_t max_bytes, size_t *len, const char **why) {
    c->loose = read_all(path, max_bytes, &c->loose_bytes, why);
    if (!c->loose) {
        *why = conf_copy(c, *why, strlen(*why));
        return NULL;
    }
    char *copy = conf_copy(c, c->loose, c->loose_bytes); /* if this leaves, conf_loose_wipe follows */
    *len = c->loose_bytes;
    conf_loose_wipe(c);
    return copy;
}

void conf_loose_wipe(struct conf *c) {
    if (c->loose) wipe(c->loose, c->loose_bytes);
    free(c->loose);
    c->loose = NULL;
}

unsigned conf_distance(const char *a, const char *b) {
    enum { MAX = 32 };
    size_t n = strlen(a), m = strlen(b);
    if (n >= MAX || m >= MAX) return MAX;
    unsigned d[MAX + 1][MAX + 1];
    for (size_t i = 0; i <= n; i++) d[i][0] = (unsigned)i;
    for (size_t j = 0; j <= m; j++) d[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++)
        for (size_t j = 1; j <= m; j++) {
            unsigned cost = a[i - 1] != b[j - 1], best = d[i - 1][j - 1] + cost;
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[n][m];
}
