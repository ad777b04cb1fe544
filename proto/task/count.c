/* Counting a request's tokens: POST /v1/messages/count_tokens (Anthropic) and :countTokens (Gemini). Where the provider
 * speaks the client's dialect the request passes and so does the answer; else the gateway estimates (estimate.c). A
 * count is never billed. */
#include "proto/task/task.h"

int task_count_root(const struct json *j, enum ir_dialect client) {
    int inner = client == IR_GEMINI ? task_get(j, 0, "generateContentRequest", "generate_content_request") : -1;
    return inner >= 0 ? inner : 0;
}

static void scan(const struct json *j, struct task_call *c, struct pass_request *r, struct arena *arena) {
    static const char *const once[] = { "model", "messages", "contents" };
    if (!task_scan_object(j, r, once, 3))
        return;
    bool gemini = c->client == IR_GEMINI;
    int list = json_get(j, task_count_root(j, c->client), gemini ? "contents" : "messages");
    if (!gemini)
        task_scan_model(j, r, arena);
    if (list < 0)
        task_refuse(r, "missing_field", gemini ? "contents" : "messages", "The request has no conversation to count.");
    else if (!(json_is(j, list, JSON_ARRAY) && json_first(j, list) >= 0) && !(gemini && json_is(j, list, JSON_OBJECT)))
        task_refuse(r, "invalid_value", gemini ? "contents" : "messages",
                    "The conversation must be an array with at least one message.");
}

static bool build(const struct json *j, const struct task_call *c, const struct task_target *t, struct ir_dropped *d,
                  struct arena *arena, struct buf *path, struct buf *out, struct ir_fault *f) {
    struct splice s[1];
    uint32_t n = 0;
    (void)f;
    if (c->client != IR_GEMINI)
        return buf_append_slice(path, SLICE("/messages/count_tokens")) && task_pass_body(j, t, d, NULL, 0, arena, out);
    int model = json_get(j, task_count_root(j, c->client), "model");
    if (model >= 0) {
        struct slice span = json_span(j, model);
        s[n++] = (struct splice){ (uint32_t)(span.ptr - j->text), (uint32_t)span.len,
                                  task_quoted(arena, SLICE("models/"), t->model) };
    }
    return task_gemini_path(t->model, "countTokens", path) && task_pass_body(j, t, d, s, n, arena, out);
}

static enum task_result read_answer(const struct json *j, const struct task_call *c, enum ir_dialect from,
                                    struct arena *arena, struct task_figures *fig, struct ir_fault *f) {
    (void)from;
    if (task_is_error(j, arena, f))
        return TASK_ERROR;
    fig->seen = true;
    return json_get(j, 0, c->client == IR_GEMINI ? "totalTokens" : "input_tokens") >= 0 ? TASK_OK : TASK_BAD;
}

static bool write_answer(const struct json *j, const struct task_call *c, enum ir_dialect from,
                         const struct task_figures *fig, const struct ir_cost *cost, struct arena *arena,
                         struct buf *out) {
    (void)c, (void)from, (void)fig, (void)cost, (void)arena;
    return buf_append(out, j->text, j->len);
}

bool task_write_count(enum ir_dialect client, uint64_t tokens, struct buf *out) {
    return buf_printf(out, client == IR_GEMINI ? "{\"totalTokens\":%llu}" : "{\"input_tokens\":%llu}",
                      (unsigned long long)tokens);
}

const struct task_module task_count = {
    .name = "count", .scan = scan, .build = build, .read = read_answer, .write = write_answer
};
