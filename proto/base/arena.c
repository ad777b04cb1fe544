/* The page cache, arenas over it, and bounded buffers over it.
 *
 * An arena bumps a pointer through pages; what does not fit a page is a malloc of its own, chained with the pages. A
 * buffer is one page until it needs more, then one malloc that doubles. Memory that cannot be had is never fatal:
 * arenas turn their sticky overflow on, buffers return NULL or false, and what they held stays as it was.
 *
 * With -DARENA_EMULATE pages are not kept and each arena_alloc is its own malloc of exactly its size: a sanitizer then
 * sees an overrun of one byte and every use after a reset. */
#include "proto/base/arena.h"

#include "proto/base/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef ARENA_EMULATE
enum { EMULATED = 1 };
#else
enum { EMULATED = 0 };
#endif

/* Heads every block of an arena. 16 bytes, so that what follows is aligned as malloc's. */
struct arena_block {
    struct arena_block *next;
    size_t big; /* bytes with the header if it is a malloc of its own; 0: a page */
};
_Static_assert(sizeof(struct arena_block) == 16, "arena blocks keep 16-byte alignment");

void pages_init(struct pages *p, uint32_t keep) {
    *p = (struct pages){ .keep = keep };
}

void pages_clear(struct pages *p) {
    while (p->free_list) {
        void *page = p->free_list;
        memcpy(&p->free_list, page, sizeof p->free_list);
        p->free_count--;
        free(page);
    }
    CHECK(p->free_count == 0);
}

void *pages_get(struct pages *p) {
    void *page = p->free_list;
    if (page) {
        memcpy(&p->free_list, page, sizeof p->free_list);
        p->free_count--;
    } else {
        page = malloc(PAGE_BYTES);
        if (!page)
            return NULL;
    }
    p->in_use++;
    return page;
}

void pages_put(struct pages *p, void *page) {
    CHECK(p->in_use > 0);
    p->in_use--;
    if (!EMULATED && p->free_count < p->keep) {
        memcpy(page, &p->free_list, sizeof p->free_list);
        p->free_list = page;
        p->free_count++;
        return;
    }
    free(page);
}

void *pages_get_big(struct pages *p, size_t n) {
    void *mem = malloc(n);
    p->big_bytes += mem ? n : 0;
    return mem;
}

void pages_put_big(struct pages *p, void *mem, size_t n) {
    CHECK(p->big_bytes >= n);
    p->big_bytes -= n;
    free(mem);
}

void arena_init(struct arena *a, struct pages *pages, size_t limit_bytes) {
    *a = (struct arena){ .pages = pages, .limit_bytes = limit_bytes };
}

static void *overflowed(struct arena *a) {
    a->overflow = true;
    a->at = a->end = NULL; /* the inline part of arena_alloc then always misses */
    return NULL;
}

/* A malloc of its own for n bytes, chained behind the head block so that the page in use stays in use. */
static void *alloc_big(struct arena *a, size_t n) {
    struct arena_block *b = pages_get_big(a->pages, sizeof *b + n);
    if (!b)
        return overflowed(a);
    b->big = sizeof *b + n;
    b->next = a->blocks;
    a->blocks = b;
    return b + 1;
}

static void *alloc_in_new_page(struct arena *a, size_t n) {
    struct arena_block *b = pages_get(a->pages);
    if (!b)
        return overflowed(a);
    b->big = 0;
    b->next = a->blocks;
    a->blocks = b;
    a->at = (char *)(b + 1) + n;
    a->end = (char *)b + PAGE_BYTES;
    return b + 1;
}

static inline size_t rounded(size_t n) {
    return (n + 15) & ~(size_t)15;
}

void *arena_alloc(struct arena *a, size_t n) {
    if (a->overflow || n > a->limit_bytes || rounded(n) > a->limit_bytes - a->used_bytes)
        return overflowed(a);
    a->used_bytes += rounded(n);
    if (EMULATED)
        return alloc_big(a, n);
    n = rounded(n);
    if (n <= (size_t)(a->end - a->at)) {
        void *p = a->at;
        a->at += n;
        if (p)
            return p;
    }
    return n > PAGE_BYTES - sizeof(struct arena_block) ? alloc_big(a, n) : alloc_in_new_page(a, n);
}

void *arena_zalloc(struct arena *a, size_t n) {
    void *p = arena_alloc(a, n);
    if (p)
        memset(p, 0, n);
    return p;
}

void *arena_resize(struct arena *a, void *p, size_t old, size_t n) {
    size_t was = rounded(old), is = rounded(n);
    if (!EMULATED && !a->overflow && p && (char *)p + was == a->at && n <= PAGE_BYTES &&
        is <= (size_t)(a->end - (char *)p) && (is <= was || is - was <= a->limit_bytes - a->used_bytes)) {
        a->at = (char *)p + is;
        a->used_bytes = a->used_bytes - was + is;
        return p;
    }
    if (n <= old)
        return p;
    void *q = arena_alloc(a, n);
    if (q && old > 0)
        memcpy(q, p, old);
    return q;
}

struct slice arena_copy(struct arena *a, struct slice s) {
    char *p = s.len < SIZE_MAX ? arena_alloc(a, s.len + 1) : NULL;
    if (!p)
        return SLICE_NONE;
    if (s.len > 0)
        memcpy(p, s.ptr, s.len);
    p[s.len] = '\0';
    return slice_of(p, s.len);
}

struct slice arena_join(struct arena *a, const struct slice *parts, size_t n) {
    size_t len = 0, at = 0;
    for (size_t i = 0; i < n; i++)
        len += parts[i].len;
    char *p = arena_alloc(a, len + 1);
    if (!p)
        return SLICE_NONE;
    for (size_t i = 0; i < n; at += parts[i].len, i++)
        if (parts[i].len > 0)
            memcpy(p + at, parts[i].ptr, parts[i].len);
    p[len] = '\0';
    return slice_of(p, len);
}

struct slice arena_printf(struct arena *a, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    char *p = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
    if (p)
        vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(args);
    return p ? slice_of(p, (size_t)n) : SLICE_NONE;
}

void arena_reset(struct arena *a) {
    struct arena_block *b = a->blocks;
    while (b) {
        struct arena_block *next = b->next;
        if (b->big)
            pages_put_big(a->pages, b, b->big);
        else
            pages_put(a->pages, b);
        b = next;
    }
    *a = (struct arena){ .pages = a->pages, .limit_bytes = a->limit_bytes };
}
