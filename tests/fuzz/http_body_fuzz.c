/* Any bytes as a body: whole and in pieces it must yield the same data, end at the same byte, or be refused for the
 * same reason. A chunked body that ended is decoded a second way, by a plain reading of the grammar. */
#include <stdlib.h>

#include "proto/base/check.h"
#include "proto/http/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    char *data;
    size_t len, used;
    enum http_result result;
    enum http_fault fault;
};

static struct outcome read_body(enum http_body kind, uint64_t length, struct slice in, size_t step) {
    struct http_reader r;
    struct outcome o = { .data = malloc(in.len + 1) };
    size_t have = step < in.len ? step : in.len;
    http_reader_init(&r, kind, length);
    for (;;) {
        size_t n = have - o.used, used;
        char *exact = malloc(n ? n : 1);
        struct slice run;
        memcpy(exact, in.ptr + o.used, n);
        o.result = http_reader_next(&r, slice_of(exact, n), &run, &used);
        CHECK(used <= n);
        if (o.result != HTTP_BAD && run.len > 0) {
            CHECK(run.ptr >= exact && run.ptr + run.len <= exact + used);
            memcpy(o.data + o.len, run.ptr, run.len);
            o.len += run.len;
        }
        free(exact);
        o.used += used;
        o.fault = r.fault;
        CHECK(r.done == (o.result == HTTP_OK));
        if (o.result != HTTP_MORE || (used == 0 && have == in.len))
            return o;
        if (used == 0)
            have = have + step < in.len ? have + step : in.len;
    }
}

/* The chunks of a body that is known to be good, the plain way. */
static void check_chunks(const struct outcome *o, const char *text) {
    const char *p = text;
    size_t at = 0;
    for (;;) {
        size_t n = strtoul(p, NULL, 16);
        p = strstr(p, "\r\n") + 2;
        if (n == 0)
            break;
        CHECK(n <= o->len - at && memcmp(o->data + at, p, n) == 0 && memcmp(p + n, "\r\n", 2) == 0);
        at += n;
        p += n + 2;
    }
    CHECK(at == o->len);
    while (strncmp(p, "\r\n", 2) != 0)
        p = strstr(p, "\r\n") + 2;
    CHECK((size_t)(p + 2 - text) == o->used);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    enum http_body kind = data[0] % 8 ? HTTP_BODY_CHUNKED : data[0] & 8 ? HTTP_BODY_SIZED : HTTP_BODY_TO_EOF;
    struct slice in = slice_of((const char *)data + 2, size - 2);
    struct outcome a = read_body(kind, data[1], in, SIZE_MAX / 2), b = read_body(kind, data[1], in, data[0] / 8 + 1u);
    CHECK(a.result == b.result && a.fault == b.fault);
    if (a.result != HTTP_BAD)
        CHECK(a.used == b.used && a.len == b.len && memcmp(a.data, b.data, a.len) == 0);
    if (a.result == HTTP_OK && kind == HTTP_BODY_CHUNKED) {
        char *text = calloc(1, a.used + 1);
        memcpy(text, in.ptr, a.used);
        check_chunks(&a, text);
        free(text);
    }
    free(a.data);
    free(b.data);
    return 0;
}
