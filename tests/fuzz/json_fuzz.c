/* Any bytes as JSON. What parses must be a well-nested tape within the text; written again from the tape it must parse
 * to the same tape and the same decoded strings. Any bytes as a string must be written as JSON that parses. */
#include <stdlib.h>

#include "proto/base/check.h"
#include "proto/base/cpu.h"
#include "proto/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct pages pages;
static struct arena arena;

static void check_token(const struct json *j, uint32_t t, uint32_t start, uint32_t end) {
    const struct json_tok *tok = &j->tok[t];
    CHECK(tok->start >= start && tok->start <= tok->end && tok->end <= end);
    CHECK(tok->next > t && tok->next <= j->count);
    struct slice span = json_span(j, (int)t);
    CHECK(span.len >= 1);
    char first = span.ptr[0], last = span.ptr[span.len - 1];
    switch (tok->type) {
    case JSON_OBJECT: CHECK(first == '{' && last == '}'); break;
    case JSON_ARRAY: CHECK(first == '[' && last == ']'); break;
    case JSON_STRING:
        CHECK(first == '"' && last == '"' && tok->escaped == (memchr(span.ptr, '\\', span.len) != NULL));
        break;
    case JSON_NUMBER: CHECK(first == '-' || (first >= '0' && first <= '9')); break;
    case JSON_TRUE: CHECK(slice_is(span, "true")); break;
    case JSON_FALSE: CHECK(slice_is(span, "false")); break;
    default: CHECK(tok->type == JSON_NULL && slice_is(span, "null"));
    }
    if (tok->type > JSON_ARRAY)
        CHECK(tok->next == t + 1);
}

/* Depth is at most JSON_MAX_DEPTH, so recursion is bounded. */
static void check_value(const struct json *j, uint32_t t, uint32_t start, uint32_t end) {
    check_token(j, t, start, end);
    const struct json_tok *tok = &j->tok[t];
    uint32_t at = tok->start + 1, child = t + 1;
    while (child < tok->next) {
        if (tok->type == JSON_OBJECT) {
            CHECK(j->tok[child].type == JSON_STRING);
            check_token(j, child, at, tok->end);
            at = j->tok[child].end + 1;
            child++;
        }
        CHECK(child < tok->next);
        check_value(j, child, at, tok->end);
        at = j->tok[child].end;
        child = j->tok[child].next;
    }
    CHECK(child == tok->next);
}

static void write_value(struct json_writer *w, const struct json *j, int t) {
    switch (json_type_of(j, t)) {
    case JSON_OBJECT:
        jw_object(w);
        for (int k = json_first(j, t); k >= 0; k = json_next(j, t, k)) {
            jw_key_slice(w, json_str(j, k, &arena));
            write_value(w, j, k + 1);
        }
        jw_end_object(w);
        break;
    case JSON_ARRAY:
        jw_array(w);
        for (int k = json_first(j, t); k >= 0; k = json_next(j, t, k))
            write_value(w, j, k);
        jw_end_array(w);
        break;
    case JSON_STRING:
        jw_str(w, json_str(j, t, &arena));
        break;
    default:
        jw_raw(w, json_raw(j, t));
    }
}

static void check_scalars(const struct json *j, int t) {
    struct slice s = json_str(j, t, &arena);
    CHECK((s.ptr != NULL) == json_is(j, t, JSON_STRING) && json_str_len(j, t) == s.len);
    if (s.ptr) {
        size_t decoded;
        const char *end = json_string_end(json_raw(j, t).ptr, j->text + j->len, &decoded);
        if (end == NULL)
            CHECK(memmem(json_raw(j, t).ptr, json_raw(j, t).len, "\\u", 2) != NULL);
        else
            CHECK(end == j->text + j->tok[t].end && decoded == s.len);
    }
    if (s.ptr && !memchr(s.ptr, 0, s.len))
        CHECK(json_str_is(j, t, arena_copy(&arena, s).ptr));
    uint64_t u = 0;
    int64_t i = 0, f = 0;
    bool is_u = json_u64(j, t, &u), is_i = json_i64(j, t, &i);
    if (is_u && is_i)
        CHECK(i >= 0 && (uint64_t)i == u);
    if (is_i && !is_u)
        CHECK(i < 0);
    if (json_fixed(j, t, 9, &f) && is_i)
        CHECK(f / 1000000000 == i && f % 1000000000 == 0);
    char text[24];
    int64_t again;
    CHECK(fixed_parse(slice_of(text, fixed_format(text, f, 9)), 9, &again) && again == f);
    if (json_is(j, t, JSON_OBJECT))
        for (int k = json_first(j, t); k >= 0; k = json_next(j, t, k)) {
            struct slice name = json_str(j, k, &arena);
            if (!memchr(name.ptr ? name.ptr : "", 0, name.len))
                CHECK(json_get(j, t, arena_copy(&arena, name).ptr) >= k + 1);
        }
}

static void check_written(const struct json *j, struct buf *out) {
    struct json_writer w;
    struct json again;
    jw_init(&w, out);
    write_value(&w, j, 0);
    CHECK(!w.failed);
    CHECK(json_parse(&again, &arena, buf_ptr(out), out->len));
    CHECK(again.count == j->count);
    for (uint32_t t = 0; t < j->count; t++) {
        CHECK(again.tok[t].type == j->tok[t].type && again.tok[t].next == j->tok[t].next);
        if (json_is(j, (int)t, JSON_STRING))
            CHECK(slice_eq(json_str(j, (int)t, &arena), json_str(&again, (int)t, &arena)));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!arena.pages) {
        pages_init(&pages, 4);
        arena_init(&arena, &pages, 256 << 20);
    }
    struct json j, k;
    struct json_tok tape[40];
    struct buf out;
    buf_init(&out, &pages, 64 << 20);
    bool ok = json_parse(&j, &arena, (const char *)data, size);
    CHECK(ok == (j.err == JSON_OK) && j.err_at <= size);
    cpu_portable_only = true;
    bool into = json_parse_into(&k, tape, ARRAY_LEN(tape), (const char *)data, size);
    cpu_portable_only = false;
    CHECK(k.err == JSON_TOO_MANY || (k.err == j.err && k.err_at == j.err_at));
    CHECK(into == ok || k.err == JSON_TOO_MANY);
    if (ok) {
        check_value(&j, 0, 0, (uint32_t)size);
        CHECK(j.tok[0].next == j.count);
        for (uint32_t t = 0; t < j.count; t++)
            check_scalars(&j, (int)t);
        check_written(&j, &out);
    }
    buf_consume(&out, out.len);
    struct json_writer w;
    jw_init(&w, &out);
    jw_str(&w, slice_of(size ? (const char *)data : "", size));
    CHECK(!w.failed && json_parse(&k, &arena, buf_ptr(&out), out.len) && k.count == 1);
    int64_t v;
    (void)fixed_parse(slice_of((const char *)data, size), 9, &v);
    buf_release(&out);
    arena_reset(&arena);
    CHECK(pages.in_use == 0 && pages.big_bytes == 0);
    return 0;
}
