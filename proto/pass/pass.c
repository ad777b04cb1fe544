/* Helpers that the pass modules share: splicing a text, cutting a member, cost members, reading the errors of
 * providers. */
#include "proto/pass/pass.h"

#include <stdlib.h>

/* By place; at one place insertions first, then the longest: what lies in a text that goes, goes with it. */
static int by_place(const void *a, const void *b) {
    const struct splice *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    if ((x->len == 0) != (y->len == 0))
        return x->len == 0 ? -1 : 1;
    return x->len > y->len ? -1 : x->len < y->len;
}

void pass_splice(struct slice text, struct splice *s, uint32_t n, struct pieces *out) {
    if (n > 1)
        qsort(s, n, sizeof *s, by_place);
    size_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (s[i].at < at)
            continue;
        pieces_add(out, slice_of(text.ptr + at, s[i].at - at));
        pieces_add(out, s[i].with);
        at = s[i].at + s[i].len;
    }
    pieces_add(out, slice_of(text.ptr + at, text.len - at));
}

struct slice pass_splice_text(struct slice text, struct splice *s, uint32_t n, struct arena *arena) {
    size_t room = text.len, at = 0, len = 0;
    for (uint32_t i = 0; i < n; i++)
        room += s[i].with.len;
    char *out = arena_alloc(arena, room + 1);
    if (out == NULL)
        return SLICE_NONE;
    if (n > 1)
        qsort(s, n, sizeof *s, by_place);
    for (uint32_t i = 0; i <= n; i++) {
        size_t stop = i < n ? s[i].at : text.len;
        if (stop < at)
            continue;
        memcpy(out + len, text.ptr + at, stop - at);
        len += stop - at;
        if (i == n)
            break;
        if (s[i].with.len > 0)
            memcpy(out + len, s[i].with.ptr, s[i].with.len);
        len += s[i].with.len;
        at = s[i].at + s[i].len;
    }
    return slice_of(out, len);
}

struct splice pass_string(const struct json *j, int value, struct slice text, struct arena *arena) {
    struct slice span = json_span(j, value);
    struct splice s = { (uint32_t)(span.ptr - j->text), (uint32_t)span.len, SLICE_NONE };
    struct buf b;
    struct json_writer w;
    buf_init(&b, arena->pages, 8 * text.len + PAGE_BYTES);
    jw_init(&w, &b);
    jw_str(&w, text);
    if (!w.failed)
        s.with = arena_copy(arena, buf_slice(&b));
    buf_release(&b);
    return s;
}

static uint32_t start_of(const struct json *j, int t) { return (uint32_t)(json_span(j, t).ptr - j->text); }

/* With a kept member before it a member goes with the comma in front, else with the comma behind: so any set of them
 * can go. */
uint32_t pass_cut_members(const struct json *j, int object, const int *values, uint32_t n, struct splice *out) {
    uint32_t cut = 0, kept = 0, before_end = 0;
    int value = json_is(j, object, JSON_OBJECT) ? 1 : 0; /* behind its key, or itself */
    if (n == 0)
        return 0;
    for (int k = json_first(j, object); k >= 0; k = json_next(j, object, k)) {
        struct slice v = json_span(j, k + value);
        uint32_t end = (uint32_t)(v.ptr + v.len - j->text);
        bool goes = false;
        for (uint32_t i = 0; i < n; i++)
            goes |= values[i] == k + value;
        int next = json_next(j, object, k);
        if (!goes) {
            kept++;
        } else if (kept > 0) {
            out[cut++] = (struct splice){ before_end, end - before_end, SLICE_NONE };
        } else {
            uint32_t start = start_of(j, k), stop = next >= 0 ? start_of(j, next) : end;
            out[cut++] = (struct splice){ start, stop - start, SLICE_NONE };
        }
        before_end = end;
    }
    return cut;
}

static struct slice text_or_number(const struct json *j, int t, struct arena *arena) {
    if (json_is(j, t, JSON_STRING))
        return json_str(j, t, arena);
    if (json_is(j, t, JSON_NUMBER))
        return json_raw(j, t);
    return SLICE_NONE;
}

/* {"error":{message,type,param,code}} (OpenAI, Anthropic, Gemini with status), {"error":"text"}, {"detail":…},
 * {"message":…}. */
void pass_read_error(const struct json *j, struct arena *arena, struct pass_fault *f) {
    pass_read_error_at(j, 0, arena, f);
}

void pass_read_error_at(const struct json *j, int root, struct arena *arena, struct pass_fault *f) {
    memset(f, 0, sizeof *f);
    int e = json_get(j, root, "error");
    if (json_is(j, e, JSON_STRING)) {
        f->message = json_str(j, e, arena);
        f->code = text_or_number(j, json_get(j, root, "code"), arena);
        return;
    }
    int from = json_is(j, e, JSON_OBJECT) ? e : root;
    f->message = text_or_number(j, json_get(j, from, "message"), arena);
    f->type = text_or_number(j, json_get(j, from, "type"), arena);
    f->param = text_or_number(j, json_get(j, from, "param"), arena);
    f->code = text_or_number(j, json_get(j, from, "code"), arena);
    uint64_t status;
    if (json_u64(j, json_get(j, from, "code"), &status) && status >= 400 && status < 600)
        f->status = (int)status;
    if (f->message.ptr == NULL)
        f->message = text_or_number(j, json_get(j, root, "detail"), arena);
    if (f->message.ptr == NULL && json_is(j, json_get(j, root, "errors"), JSON_ARRAY))
        f->message = json_span(j, json_get(j, root, "errors"));
}

struct slice pass_sse_ping(const struct pass_answer *a) {
    (void)a;
    return SLICE(": ping\n\n");
}

const char *pass_sse_content_type(const struct pass_answer *a) {
    (void)a;
    return "text/event-stream; charset=utf-8";
}
