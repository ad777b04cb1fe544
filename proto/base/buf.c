/* Bounded growable byte queues (their interface is in arena.h, beside the page cache they live from).
 *
 * The readable bytes lie somewhere in one piece of memory: a page up to PAGE_BYTES, else a malloc. Making room either
 * slides them to the front or doubles the memory; it slides only when that frees a quarter at least, so that appending
 * stays linear however small the bites are in which the front is consumed. A failure leaves the buffer as it was. */
#include "proto/base/arena.h"

#include "proto/base/check.h"

#include <stdarg.h>
#include <stdio.h>

void buf_init(struct buf *b, struct pages *pages, size_t max_bytes) {
    *b = (struct buf){ .pages = pages, .max = max_bytes };
}

static void mem_free(struct pages *pages, char *mem, size_t cap) {
    if (mem && cap <= PAGE_BYTES)
        pages_put(pages, mem);
    else if (mem)
        pages_put_big(pages, mem, cap);
}

/* Moves the readable bytes to new memory of cap bytes. */
static bool move_to(struct buf *b, size_t cap) {
    char *mem = cap <= PAGE_BYTES ? pages_get(b->pages) : pages_get_big(b->pages, cap);
    if (!mem)
        return false;
    if (b->len > 0)
        memcpy(mem, b->mem + b->off, b->len);
    mem_free(b->pages, b->mem, b->cap);
    b->mem = mem;
    b->off = 0;
    b->cap = cap;
    return true;
}

static bool make_room(struct buf *b, size_t n) {
    if (n > b->max - b->len)
        return false;
    size_t need = b->len + n;
    if (b->mem && need <= b->cap && (b->off >= b->cap / 4 || b->cap == b->max)) {
        memmove(b->mem, b->mem + b->off, b->len);
        b->off = 0;
        return true;
    }
    size_t cap = b->cap ? b->cap : PAGE_BYTES / 2;
    do
        cap = cap > b->max / 2 ? b->max : cap * 2;
    while (cap < need);
    return move_to(b, cap);
}

char *buf_reserve(struct buf *b, size_t n, size_t *room) {
    CHECK(b->off + b->len <= b->cap && b->cap <= b->max);
    if (n > b->cap - b->off - b->len || !b->mem)
        if (!make_room(b, n))
            return NULL;
    if (room)
        *room = b->cap - b->off - b->len;
    return b->mem + b->off + b->len;
}

void buf_commit(struct buf *b, size_t n) {
    CHECK(n <= b->cap - b->off - b->len);
    b->len += n;
}

void buf_consume(struct buf *b, size_t n) {
    CHECK(n <= b->len);
    b->len -= n;
    b->off = b->len ? b->off + n : 0;
}

bool buf_append(struct buf *b, const void *p, size_t n) {
    if (n == 0)
        return true;
    char *to = buf_reserve(b, n, NULL);
    if (!to)
        return false;
    memcpy(to, p, n);
    b->len += n;
    return true;
}

bool buf_append_slice(struct buf *b, struct slice s) {
    return buf_append(b, s.ptr, s.len);
}

/* vsnprintf wants a byte for its NUL. Where the ceiling leaves room for the text but not for that byte, the text is
 * made elsewhere. */
static bool print_exact(struct buf *b, size_t n, const char *fmt, va_list args) {
    char *text = pages_get_big(b->pages, n + 1);
    if (!text)
        return false;
    vsnprintf(text, n + 1, fmt, args);
    bool ok = buf_append(b, text, n);
    pages_put_big(b->pages, text, n + 1);
    return ok;
}

bool buf_printf(struct buf *b, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    size_t room = b->mem ? b->cap - b->off - b->len : 0;
    int got = vsnprintf(room ? b->mem + b->off + b->len : NULL, room, fmt, args);
    bool ok = got >= 0;
    size_t n = ok ? (size_t)got : 0;
    if (ok && n >= room && n > 0) {
        char *to = buf_reserve(b, n, &room);
        if (to && room > n)
            vsnprintf(to, room, fmt, again);
        else
            ok = to && print_exact(b, n, fmt, again);
        if (ok && room <= n)
            n = 0; /* print_exact has committed it */
    }
    if (ok)
        b->len += n;
    va_end(again);
    va_end(args);
    return ok;
}

void buf_release(struct buf *b) {
    mem_free(b->pages, b->mem, b->cap);
    buf_init(b, b->pages, b->max);
}
