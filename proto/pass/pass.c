/* Helpers that the pass modules share: splicing a text, cutting a member, cost members, reading the errors of providers. */
#include "proto/pass/pass.h"

#include <stdlib.h>

static int by_place(const void *a, const void *b) {
    const struct splice *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

void pass_splice(struct slice text, struct splice *s, uint32_t n, struct pieces *out) {
    if (n > 1)
        qsort(s, n, sizeof *s, by_place);
    size_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (s[i].at > at)
            pieces_add(out, slice_of(text.ptr + at, s[i].at - at));
        pieces_add(out, s[i].with);
        if (s[i].at + s[i].len > at)
            at = s[i].at + s[i].len;
    }
    pieces_add(out, slice_of(text.ptr + at, text.len - at));
}

/* With a kept member before it a member goes with the comma in front, else with the comma behind: so any set of them can go. */
uint32_t pass_cut_members(const struct json *j, int object, const int *values, uint32_t n, struct splice *out) {
    uint32_t cut = 0, kept = 0, before_end = 0;
    for (int k = json_first(j, object); k >= 0; k = json_next(j, object, k)) {
        struct slice v = json_span(j, k + 1);
        uint32_t end = (uint32_t)(v.ptr + v.len - j->text);
        bool goes = false;
        for (uint32_t i = 0; i < n; i++)
            goes |= values[i] == k + 1;
        int next = json_next(j, object, k);
        if (!goes) {
            kept++;
        } else if (kept > 0) {
            out[cut++] = (struct splice){ before_end, end - before_end, SLICE_NONE };
        } else {
            uint32_t start = j->tok[k].start - 1, stop = next >= 0 ? j->tok[next].start - 1 : end;
            out[cut++] = (struct splice){ start, stop - start, SLICE_NONE };
        }
        before_end = end;
    }
    return cut;
}

struct slice pass_cost_members(const struct pass_cost *c, struct arena *arena) {
    if (!c->show)
        return SLICE_NONE;
    char *text = arena_alloc(arena, 96);
    if (text == NULL)
        return SLICE_NONE;
    size_t n = 0;
    memcpy(text, "\"cost_usd\":", 11);
    n = 11 + fixed_format(text + 11, c->usd_nano, 9);
    if (c->tokens) {
        memcpy(text + n, ",\"cost_tokens\":", 15);
        n += 15;
        n += fixed_format(text + n, c->cost_tokens, 0);
    }
    return slice_of(text, n);
}

static struct slice text_or_number(const struct json *j, int t, struct arena *arena) {
    if (json_is(j, t, JSON_STRING))
        return json_str(j, t, arena);
    if (json_is(j, t, JSON_NUMBER))
        return json_raw(j, t);
    return SLICE_NONE;
}

/* {"error":{message,type,param,code}} (OpenAI, Anthropic, Gemini with status), {"error":"text"}, {"detail":…}, {"message":…}. */
void pass_read_error(const struct json *j, struct arena *arena, struct pass_fault *f) {
    memset(f, 0, sizeof *f);
    int e = json_get(j, 0, "error");
    if (json_is(j, e, JSON_STRING)) {
        f->message = json_str(j, e, arena);
        f->code = text_or_number(j, json_get(j, 0, "code"), arena);
        return;
    }
    int from = json_is(j, e, JSON_OBJECT) ? e : 0;
    f->message = text_or_number(j, json_get(j, from, "message"), arena);
    f->type = text_or_number(j, json_get(j, from, "type"), arena);
    f->param = text_or_number(j, json_get(j, from, "param"), arena);
    f->code = text_or_number(j, json_get(j, from, "code"), arena);
    uint64_t status;
    if (json_u64(j, json_get(j, from, "code"), &status) && status >= 400 && status < 600)
        f->status = (int)status;
    if (f->message.ptr == NULL)
        f->message = text_or_number(j, json_get(j, 0, "detail"), arena);
    if (f->message.ptr == NULL && json_is(j, json_get(j, 0, "errors"), JSON_ARRAY))
        f->message = json_span(j, json_get(j, 0, "errors"));
}
