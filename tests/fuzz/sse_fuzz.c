/* Any bytes as an event stream, whole and in pieces whose sizes the first byte chooses: the same events, every byte
 * accounted for. */
#include <stdlib.h>

#include "proto/base/check.h"
#include "proto/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct pages pages;

static bool in(struct slice part, struct slice whole) {
    return part.len == 0 || (part.ptr >= whole.ptr && part.ptr + part.len <= whole.ptr + whole.len);
}

static void events_of(struct slice text, size_t step, size_t max, struct buf *out) {
    struct sse s;
    struct arena scratch;
    size_t begin = 0;
    sse_init(&s, max);
    arena_init(&scratch, &pages, 1 << 20);
    for (size_t have = step < text.len ? step : text.len;; have = have + step < text.len ? have + step : text.len) {
        size_t len = have - begin;
        char *exact = malloc(len ? len : 1);
        memcpy(exact, text.ptr + begin, len);
        struct slice rest = slice_of(exact, len);
        struct sse_event ev;
        size_t used;
        enum sse_result r;
        while ((r = sse_next(&s, rest, &scratch, &ev, &used)) == SSE_EVENT) {
            CHECK(used > 0 && used <= rest.len && ev.raw.ptr == rest.ptr && ev.raw.len == used && in(ev.name, ev.raw));
            CHECK(used <= max + 3 + 1 + 1); /* the mark, an LF in front, an LF behind */
            CHECK(buf_printf(out, "%d|", ev.has_data) && buf_append_slice(out, ev.name) && buf_append(out, "|", 1) &&
                  buf_append_slice(out, ev.data) && buf_append(out, "\n", 1));
            rest = slice_from(rest, used);
            begin += used;
            arena_reset(&scratch);
        }
        CHECK(used == 0);
        bool end = have == text.len || r == SSE_TOO_LONG;
        if (end)
            CHECK(buf_printf(out, "%d %d", r, r == SSE_MORE && sse_pending(&s, rest)));
        free(exact);
        if (end)
            break;
    }
    arena_reset(&scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct buf whole, pieces;
    if (size < 2)
        return 0;
    size_t step = data[0] % 16 + 1, max = data[1] < 128 ? data[1] : 4096;
    struct slice text = slice_of((const char *)data + 2, size - 2);
    pages_init(&pages, 4);
    buf_init(&whole, &pages, 1 << 22);
    buf_init(&pieces, &pages, 1 << 22);
    events_of(text, SIZE_MAX / 2, max, &whole);
    events_of(text, step, max, &pieces);
    CHECK(slice_eq(buf_slice(&whole), buf_slice(&pieces)));
    buf_release(&whole);
    buf_release(&pieces);
    CHECK(pages.in_use == 0 && pages.big_bytes == 0);
    pages_clear(&pages);
    return 0;
}
