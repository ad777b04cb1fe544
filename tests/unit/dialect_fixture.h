/* What the tests over tests/dialect share: the fixtures of a folder, and arenas that are empty again behind each test. */
#ifndef TG_DIALECT_FIXTURE_H
#define TG_DIALECT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <dirent.h>
#include <unistd.h>

#include "proto/dialect/translate.h"

enum { MOST = 64 };
static struct pages pages;
static struct arena arena, scratch;
static struct buf text;

static int begin(void **state) {
    (void)state;
    if (access("tests/dialect/requests", R_OK) != 0)
        fail_msg("run from the root of the tree");
    arena_init(&arena, &pages, 64 << 20);
    arena_init(&scratch, &pages, 64 << 20);
    buf_init(&text, &pages, 16 << 20);
    return 0;
}

static int end(void **state) {
    (void)state;
    buf_release(&text);
    arena_reset(&arena);
    arena_reset(&scratch);
    return pages.in_use != 0 || pages.big_bytes != 0;
}

static struct slice read_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f)
        return SLICE_NONE;
    fseek(f, 0, SEEK_END);
    size_t size = (size_t)ftell(f);
    rewind(f);
    char *b = arena_alloc(&arena, size + 1);
    size_t n = fread(b, 1, size, f);
    fclose(f);
    return slice_of(b, n);
}

/* Fixtures of a folder: NAME.DIALECT.json or .sse, in no order. */
struct fixture { char path[160]; const struct dialect *d; bool sse; };
static int fixtures(const char *folder, struct fixture *out) {
    char path[96];
    int n = 0;
    snprintf(path, sizeof path, "tests/dialect/%s", folder);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) && n < MOST;) {
        const char *end_dot = strrchr(e->d_name, '.');
        if (!end_dot || (strcmp(end_dot, ".json") != 0 && strcmp(end_dot, ".sse") != 0) || strlen(e->d_name) > 60)
            continue;
        for (uint32_t i = 0; i < IR_DIALECTS; i++) {
            char tail[32];
            int len = snprintf(tail, sizeof tail, ".%s%s", dialect_find(i)->name, end_dot);
            size_t all = strlen(e->d_name);
            if (all <= (size_t)len || strcmp(e->d_name + all - (size_t)len, tail) != 0)
                continue;
            snprintf(out[n].path, sizeof out[n].path, "%s/%.60s", path, e->d_name);
            out[n].d = dialect_find(i);
            out[n++].sse = end_dot[1] == 's';
        }
    }
    closedir(dir);
    assert_true(n >= 4);
    return n;
}

#endif
