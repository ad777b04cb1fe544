/* What the tasks share: looking at a body's members, splicing it, and writing the cost into a usage object. */
#include "proto/task/task.h"

#include <stdlib.h>

#include "proto/dialect/dialect.h"

enum { STRIP_MAX = 32 };

void task_refuse(struct pass_request *r, const char *code, const char *param, const char *text) {
    if (r->fault_code != NULL)
        return;
    r->fault_code = code;
    r->fault_param = param;
    r->fault_text = text;
}

int task_get(const struct json *j, int object, const char *camel, const char *snake) {
    int v = json_get(j, object, camel);
    return v >= 0 ? v : json_get(j, object, snake);
}

bool task_scan_object(const struct json *j, struct pass_request *r, const char *const *once, uint32_t count) {
    if (!json_is(j, 0, JSON_OBJECT)) {
        task_refuse(r, "invalid_value", NULL, "The body must be a JSON object.");
        return false;
    }
    for (uint32_t i = 0; i < count; i++)
        if (json_duplicate(j, 0, once[i]))
            task_refuse(r, "invalid_value", once[i], "This member stands twice.");
    return r->fault_code == NULL;
}

void task_scan_model(const struct json *j, struct pass_request *r, struct arena *arena) {
    r->t_model = json_get(j, 0, "model");
    r->model = json_str(j, r->t_model, arena);
    if (r->t_model < 0)
        task_refuse(r, "missing_field", "model", "You must provide a model parameter.");
    else if (r->model.len == 0)
        task_refuse(r, "invalid_value", "model", "'model' must be a non-empty string.");
}

/* ---- splicing ---- */

static int by_place(const void *a, const void *b) {
    const struct splice *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

bool task_splice(struct slice text, struct splice *s, uint32_t n, struct buf *out) {
    size_t at = 0;
    bool ok = true;
    if (n > 1)
        qsort(s, n, sizeof *s, by_place);
    for (uint32_t i = 0; i < n && ok; i++) {
        if (s[i].at < at)
            continue; /* it lies in what another one took out */
        ok = buf_append(out, text.ptr + at, s[i].at - at) && buf_append_slice(out, s[i].with);
        at = s[i].at + s[i].len;
    }
    return ok && buf_append(out, text.ptr + at, text.len - at);
}

struct slice task_quoted(struct arena *arena, struct slice prefix, struct slice text) {
    struct buf b;
    struct json_writer w;
    buf_init(&b, arena->pages, 8 * (text.len + prefix.len) + PAGE_BYTES);
    jw_init(&w, &b);
    jw_str_begin(&w);
    jw_str_part(&w, prefix);
    jw_str_part(&w, text);
    jw_str_end(&w);
    struct slice s = arena_copy(arena, buf_slice(&b));
    buf_release(&b);
    return w.failed ? SLICE_NONE : s;
}

static struct splice in_place(const struct json *j, int value, struct slice with) {
    struct slice span = json_span(j, value);
    return (struct splice){ (uint32_t)(span.ptr - j->text), (uint32_t)span.len, with };
}

/* Value tokens of the members that the configuration takes out; the model is never one. */
static uint32_t stripped(const struct json *j, const struct task_target *t, struct ir_dropped *d, int *cut) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->strip_count && n < STRIP_MAX; i++)
        for (int k = json_first(j, 0); k >= 0 && n < STRIP_MAX; k = json_next(j, 0, k))
            if (slice_eq(json_raw(j, k), t->strip[i]) && !slice_is(t->strip[i], "model")) {
                cut[n++] = k + 1;
                ir_drop(d, t->strip[i]);
            }
    return n;
}

bool task_pass_body(const struct json *j, const struct task_target *t, struct ir_dropped *d, const struct splice *more,
                    uint32_t count, struct arena *arena, struct buf *out) {
    int cut[STRIP_MAX], model = json_get(j, 0, "model");
    struct splice *s = arena_alloc(arena, (STRIP_MAX + count + t->unsealed_count + 1) * sizeof *s);
    if (s == NULL)
        return false;
    uint32_t cuts = stripped(j, t, d, cut), n = cuts > 0 ? pass_cut_members(j, 0, cut, cuts, s) : 0;
    if (t->dialect != IR_GEMINI && json_is(j, model, JSON_STRING))
        s[n++] = in_place(j, model, task_quoted(arena, SLICE(""), t->model));
    for (uint32_t i = 0; i < count; i++)
        s[n++] = more[i];
    for (uint32_t i = 0; i < t->unsealed_count; i++)
        s[n++] = t->unsealed[i];
    return !arena->overflow && task_splice(slice_of(j->text, j->len), s, n, out);
}

bool task_gemini_path(struct slice model, const char *method, struct buf *out) {
    static const struct slice tail = SLICE("generateContent");
    if (!dialect_gemini.write_path(model, false, out) || out->len < tail.len)
        return false;
    out->len -= tail.len; /* the same path but for the method behind the colon */
    return buf_append_slice(out, slice_str(method));
}

/* ---- usage and cost ---- */

void task_put_cost(struct json_writer *w, const struct ir_cost *cost, bool camel) {
    struct ir_cost c = { cost->show, cost->usd_nano, cost->tokens, cost->cost_tokens };
    ir_write_cost(w, &c, camel);
}

struct slice task_usage(const struct json *j, int t, const struct ir_cost *cost, bool camel, struct arena *arena) {
    struct buf b;
    struct json_writer w;
    buf_init(&b, arena->pages, json_raw(j, t).len + PAGE_BYTES);
    jw_init(&w, &b);
    jw_object(&w);
    for (int k = json_first(j, t); k >= 0; k = json_next(j, t, k)) {
        struct slice name = json_raw(j, k);
        /* a gateway behind us may have written the same member: ours stands alone */
        if (cost->show &&
            (slice_is(name, camel ? "costUsd" : "cost_usd") || slice_is(name, camel ? "costTokens" : "cost_tokens")))
            continue;
        jw_key_slice(&w, json_str(j, k, arena));
        jw_raw(&w, json_span(j, k + 1));
    }
    task_put_cost(&w, cost, camel);
    jw_end_object(&w);
    struct slice s = w.failed ? SLICE_NONE : arena_copy(arena, buf_slice(&b));
    buf_release(&b);
    return s;
}

bool task_write_usage(const struct json *j, const char *name, struct slice usage, struct buf *out) {
    int there = json_get(j, 0, name);
    struct slice text = slice_of(j->text, j->len);
    if (usage.ptr == NULL)
        return false;
    if (there >= 0) {
        struct splice s = in_place(j, there, usage);
        return task_splice(text, &s, 1, out);
    }
    size_t end = j->tok[0].end - 1;
    return buf_append(out, text.ptr, end) && buf_printf(out, "%s\"%s\":", json_first(j, 0) >= 0 ? "," : "", name) &&
           buf_append_slice(out, usage) && buf_append_slice(out, slice_from(text, end));
}

bool task_is_error(const struct json *j, struct arena *arena, struct ir_fault *f) {
    int e = json_get(j, 0, "error");
    if (e < 0 || json_is(j, e, JSON_NULL) || json_is(j, e, JSON_FALSE))
        return false;
    dialect_fault_of(j, 0, 200, arena, f);
    return true;
}
