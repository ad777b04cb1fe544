/* See http.h: what the HTTP commands share. Refusals of the commands beneath become statuses by one table. */
#include "master/ledger/http.h"

#include <stdarg.h>
#include <stdio.h>

enum { DOC_MAX = 1 << 20, QUERY_MAX = 64 << 10 };

/* ---- answers ----------------------------------------------------------------------------------------------------- */

/* What a code means in HTTP. A code that is not here is the server's fault. */
static const struct { const char *code; int status; uint32_t retry_after_s; } statuses[] = {
    { "invalid_value", 400, 0 },        { "missing_field", 400, 0 }, { "invalid_json", 400, 0 },
    { "too_large", 400, 0 },            { "not_found", 404, 0 },     { "exists", 409, 0 },
    { "idempotency_conflict", 409, 0 }, { "busy", 503, 1 },          { "unavailable", 503, 1 },
    { "disk_full", 503, 5 },            { "table_full", 503, 60 },   { "insufficient_balance", 402, 0 },
};

static void write_answer(struct json_writer *w, int status, uint64_t retry_after_s, struct slice body,
                         struct slice code, struct slice message) {
    jw_object(w);
    jw_key(w, "status");
    jw_u64(w, (uint64_t)status);
    if (retry_after_s) {
        jw_key(w, "retry_after_s");
        jw_u64(w, retry_after_s);
    }
    if (body.ptr) {
        jw_key(w, "body");
        jw_raw(w, body);
    } else {
        jw_key(w, "code");
        jw_str(w, code);
        jw_key(w, "message");
        jw_str(w, message);
    }
    jw_end_object(w);
}

void http_write(struct json_writer *w, struct slice result, struct slice code, struct slice message) {
    if (result.ptr) {
        write_answer(w, 200, 0, result, code, message);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(statuses); i++)
        if (slice_is(code, statuses[i].code)) {
            write_answer(w, statuses[i].status, statuses[i].retry_after_s, SLICE_NONE, code, message);
            return;
        }
    write_answer(w, 500, 0, SLICE_NONE, SLICE("internal"), SLICE("An internal error occurred."));
}

void http_refused(struct call *c, const struct call *inner) {
    http_write(c->w, SLICE_NONE, slice_str(inner->code), slice_str(inner->message));
}

void http_ok(struct call *c, struct slice body) {
    if (body.ptr)
        write_answer(c->w, 200, 0, body, SLICE_NONE, SLICE_NONE);
    else
        http_fail(c, 500, "internal", 0, "An internal error occurred.");
}

void http_fail(struct call *c, int status, const char *code, uint64_t retry_after_s, const char *fmt, ...) {
    char message[600];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    write_answer(c->w, status, retry_after_s, SLICE_NONE, slice_str(code), slice_str(message));
}

void http_doc_init(struct call *c, struct http_doc *d) {
    buf_init(&d->buf, &c->l->pages, DOC_MAX);
    jw_init(&d->w, &d->buf);
    jw_object(&d->w);
}

struct slice http_doc_end(struct http_doc *d) {
    jw_end_object(&d->w);
    return d->w.failed ? SLICE_NONE : buf_slice(&d->buf);
}

void http_doc_free(struct http_doc *d) {
    if (d->buf.len > 0)
        wipe(buf_ptr(&d->buf), d->buf.len); /* it may hold a key or a token */
    buf_release(&d->buf);
}

void http_put(struct call *c, struct http_doc *d, const char *name, int token) {
    jw_key(&d->w, name);
    if (!json_is(&c->json, token, JSON_ARRAY) || strcmp(name, "models") != 0) {
        jw_raw(&d->w, json_span(&c->json, token));
        return;
    }
    bool first = true;
    jw_str_begin(&d->w);
    for (int m = json_first(&c->json, token); m >= 0; m = json_next(&c->json, token, m), first = false) {
        struct slice text = json_str(&c->json, m, c->arena);
        if (!first)
            jw_str_part(&d->w, SLICE(","));
        if (text.ptr)
            jw_str_part(&d->w, text);
    }
    jw_str_end(&d->w);
}

bool http_models_are_texts(struct call *c) {
    int t = http_body(c, "models");
    if (!json_is(&c->json, t, JSON_ARRAY))
        return true;
    for (int m = json_first(&c->json, t); m >= 0; m = json_next(&c->json, t, m))
        if (!json_is(&c->json, m, JSON_STRING) || json_str_len(&c->json, m) == 0) {
            http_fail(c, 400, "invalid_value", 0, "models: a list of model names is expected");
            return false;
        }
    return true;
}

void http_inner(struct call *c, void (*fn)(struct call *c), struct http_doc *arguments) {
    struct buf out;
    struct json_writer w;
    struct call inner = *c;
    struct slice text = http_doc_end(arguments);
    buf_init(&out, &c->l->pages, IPC_MAX_PAYLOAD);
    jw_init(&w, &out);
    inner.w = &w;
    if (!text.ptr || !json_parse(&inner.json, c->arena, text.ptr, text.len))
        call_refuse(&inner, "too_large", "the request is too large");
    else
        fn(&inner);
    if (inner.refused)
        http_refused(c, &inner);
    else if (w.failed)
        http_write(c->w, SLICE_NONE, SLICE("too_large"),
                   SLICE("the answer is too large; ask for less at a time"));
    else if (inner.later)
        c->later = true;
    else
        http_write(c->w, buf_slice(&out), SLICE_NONE, SLICE_NONE);
    if (out.len > 0)
        wipe(buf_ptr(&out), out.len);
    buf_release(&out);
    http_doc_free(arguments);
}

/* ---- what was asked ---------------------------------------------------------------------------------------------- */

static int hex(char ch) {
    return ch >= '0' && ch <= '9' ? ch - '0' : (ch | 0x20) >= 'a' && (ch | 0x20) <= 'f' ? (ch | 0x20) - 'a' + 10 : -1;
}

/* Percent-decoding; a sequence that is none stays as it is. form: + is a blank. */
static struct slice decode(struct call *c, struct slice text, bool form) {
    char *out = arena_alloc(c->arena, text.len + 1);
    size_t n = 0;
    if (!out)
        return SLICE_NONE;
    for (size_t i = 0; i < text.len; i++) {
        char ch = text.ptr[i];
        if (ch == '%' && i + 2 < text.len && hex(text.ptr[i + 1]) >= 0 && hex(text.ptr[i + 2]) >= 0) {
            out[n++] = (char)(hex(text.ptr[i + 1]) << 4 | hex(text.ptr[i + 2]));
            i += 2;
        } else {
            out[n++] = form && ch == '+' ? ' ' : ch;
        }
    }
    return slice_of(out, n);
}

bool http_query(struct call *c, const char *name, struct slice *out) {
    struct slice rest = json_str(&c->json, json_get(&c->json, 0, "query"), c->arena);
    if (!rest.ptr || rest.len > QUERY_MAX)
        return false;
    while (rest.len > 0) {
        const char *amp = memchr(rest.ptr, '&', rest.len);
        struct slice pair = slice_of(rest.ptr, amp ? (size_t)(amp - rest.ptr) : rest.len);
        rest = slice_from(rest, amp ? pair.len + 1 : pair.len);
        const char *eq = pair.len ? memchr(pair.ptr, '=', pair.len) : NULL;
        size_t n = eq ? (size_t)(eq - pair.ptr) : pair.len;
        if (slice_is(slice_of(pair.ptr, n), name)) {
            *out = decode(c, eq ? slice_from(pair, n + 1) : SLICE(""), true);
            return out->ptr != NULL;
        }
    }
    return false;
}

struct slice http_rest(struct call *c) {
    struct slice raw = json_str(&c->json, json_get(&c->json, 0, "id"), c->arena);
    struct slice text = raw.ptr ? decode(c, raw, false) : SLICE_NONE;
    return text.ptr && !memchr(text.ptr, 0, text.len) ? text : SLICE("");
}

int http_body(const struct call *c, const char *name) {
    return json_get(&c->json, json_get(&c->json, 0, "body"), name);
}

uint64_t http_now_ms(void) { return ledger_now_ns() / 1000000; }
