/* Memory from a page cache: arenas (free all at once) and bounded buffers.
 *
 * No malloc on the hot path: a `struct pages` keeps freed pages of PAGE_BYTES for reuse, up to a number.
 * An allocation larger than a page goes to malloc. Built with -DARENA_EMULATE every arena block is its
 * own malloc, so that a sanitizer sees an overrun of one byte. One thread only. */
#ifndef TG_ARENA_H
#define TG_ARENA_H

#include "proto/base/slice.h"

enum { PAGE_BYTES = 16384 };

struct pages {
    void *free_list;
    uint32_t free_count;
    uint32_t keep;      /* at most so many freed pages are kept */
    uint64_t in_use;    /* pages handed out now */
    uint64_t big_bytes; /* bytes handed out by malloc because they exceed a page */
};

void pages_init(struct pages *p, uint32_t keep);
void pages_clear(struct pages *p);
void *pages_get(struct pages *p); /* PAGE_BYTES, not zeroed; NULL when memory is out */
void pages_put(struct pages *p, void *page);
/* Memory of any other size, counted in big_bytes; NULL when memory is out. It goes back with the same n. */
void *pages_get_big(struct pages *p, size_t n);
void pages_put_big(struct pages *p, void *mem, size_t n);

/* An arena: everything in it goes at once. Its overflow is sticky: once an allocation failed (the
 * limit or the machine), every later one fails too, so a caller may check once at the end. */
struct arena {
    struct pages *pages;
    struct arena_block *blocks;
    char *at, *end;
    size_t used_bytes, limit_bytes;
    bool overflow;
};

void arena_init(struct arena *a, struct pages *pages, size_t limit_bytes);
/* 16-byte aligned, not zeroed; NULL on overflow. n may be 0. */
void *arena_alloc(struct arena *a, size_t n);
void *arena_zalloc(struct arena *a, size_t n);
/* The newest allocation p of old bytes made n bytes: in place where it can be, else copied (or, shrinking, left). NULL
 * on overflow. */
void *arena_resize(struct arena *a, void *p, size_t old, size_t n);
/* A NUL-terminated copy (the NUL is not counted in len); ptr NULL on overflow. */
struct slice arena_copy(struct arena *a, struct slice s);
/* The parts one behind the other, NUL-terminated likewise: what arena_printf would take a format for. */
struct slice arena_join(struct arena *a, const struct slice *parts, size_t n);
#define ARENA_JOIN(a, ...)                               \
    arena_join(a, (const struct slice[]){ __VA_ARGS__ }, \
               sizeof((const struct slice[]){ __VA_ARGS__ }) / sizeof(struct slice))
struct slice arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Releases all; the arena can be used again (overflow cleared). */
void arena_reset(struct arena *a);

/* A bounded growable byte queue: bytes are appended behind and consumed in front. */
struct buf {
    struct pages *pages;
    char *mem;
    size_t off, len; /* readable: mem + off, len bytes */
    size_t cap, max; /* max: the ceiling it was born with */
};

void buf_init(struct buf *b, struct pages *pages, size_t max_bytes);
static inline char *buf_ptr(const struct buf *b) { return b->mem ? b->mem + b->off : NULL; }
static inline struct slice buf_slice(const struct buf *b) { return slice_of(b->mem ? b->mem + b->off : "", b->len); }
/* Room for at least n more bytes behind the readable ones; NULL past the ceiling or out of memory.
 * *room (may be NULL) gets the room there is. Moves or grows the memory: earlier pointers die. */
char *buf_reserve(struct buf *b, size_t n, size_t *room);
void buf_commit(struct buf *b, size_t n);       /* n bytes were written at buf_reserve's pointer */
void buf_consume(struct buf *b, size_t n);      /* drops n readable bytes in front */
bool buf_append(struct buf *b, const void *p, size_t n);
bool buf_append_slice(struct buf *b, struct slice s);
bool buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Returns the memory; the buffer stays usable and empty. An idle connection holds none. */
void buf_release(struct buf *b);

#endif
