/* A model call, in any dialect: parse, look, admit, go. And the echo upstream, which answers from within. */
#include "worker/seal.h"

#include <stdio.h>

#include "proto/echo.h"

const struct pass *const passes[DIALECT_COUNT] = {
    [DIALECT_OPENAI] = &pass_openai_chat,
    [DIALECT_RESPONSES] = &pass_responses,
    [DIALECT_ANTHROPIC] = &pass_anthropic,
    [DIALECT_GEMINI] = &pass_gemini,
};

bool call_parse(struct exchange *ex) {
    if (json_parse(&ex->json, &ex->arena, ex->body.ptr, ex->body.len))
        return true;
    if (ex->body.len == 0)
        reply_error(ex, 400, "invalid_json", NULL, "The request has no body.");
    else
        reply_error(ex, 400, "invalid_json", NULL, "The body is not valid JSON: %s at byte %zu.",
                    json_err_text(ex->json.err), ex->json.err_at);
    return false;
}

/* Looks at the request, once without the model's allowances (they are known only when the model is), then with them. */
static bool scan(struct exchange *ex) {
    struct pass_request *r = &ex->req;
    struct slice allow[32];
    uint32_t allows = 0;
    ex->pass->scan(&ex->json, r, &ex->arena, NULL, 0);
    if (ex->path_model.len > 0) {
        r->model = ex->path_model;
        r->stream = ex->path_stream;
    }
    if (r->fault_code == NULL || strcmp(r->fault_code, "unsupported_parameter") == 0) {
        if (!auth_refresh(ex) || !admit_model(ex, r->model))
            return false;
        const struct snap *s = ex->snapshot->snap;
        SNAP_EACH(s, ex->model->allow, struct snap_str, word)
            if (allows < ARRAY_LEN(allow))
                allow[allows++] = snap_text(s, *word);
        if (allows > 0)
            ex->pass->scan(&ex->json, r, &ex->arena, allow, allows);
        if (ex->path_model.len > 0) {
            r->model = ex->path_model;
            r->stream = ex->path_stream;
        }
    }
    if (r->fault_code == NULL)
        return true;
    reply_error(ex, 400, r->fault_code, r->fault_param, "%s", r->fault_text);
    return false;
}

void call_run(struct exchange *ex) {
    ex->dialect = ex->endpoint->dialect;
    ex->pass = ex->legacy ? &pass_completions : passes[ex->dialect];
    buf_init(&ex->tr_out, &ex->worker->pages, (size_t)128 << 20);
    if (call_parse(ex) && scan(ex) && seal_open_all(ex) && admit_call(ex))
        attempt_start(ex);
}

void completions_run(struct exchange *ex) {
    ex->legacy = true;
    call_run(ex);
}

/* …/models/M:method; M may hold slashes, and any of it may be escaped. False: it is not such a path. */
enum { GEMINI_PATH_MAX = 512 };

static bool gemini_split(struct slice rest, char text[GEMINI_PATH_MAX], struct slice *name, struct slice *method) {
    static const char *const methods[] = { "generateContent", "streamGenerateContent", "countTokens", "embedContent",
                                           "batchEmbedContents" };
    size_t n = 0, colon;
    bool ok = http_percent_decode(rest, false, text, GEMINI_PATH_MAX, &n), known = false;
    for (colon = n; colon > 0 && text[colon - 1] != ':'; colon--)
        ;
    *method = slice_of(text + colon, n - colon);
    *name = slice_of(text, colon > 0 ? colon - 1 : 0);
    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        known = known || slice_is(*method, methods[i]);
    return ok && known && name->len > 0;
}

bool gemini_calls(struct slice rest) {
    char text[GEMINI_PATH_MAX];
    struct slice name, method;
    return gemini_split(rest, text, &name, &method);
}

void gemini_run(struct exchange *ex) {
    char text[GEMINI_PATH_MAX];
    struct slice name, method;
    if (!gemini_split(ex->path_rest, text, &name, &method)) {
        reply_error(ex, 404, "unknown_path", NULL, "Unknown request path.");
        return;
    }
    bool stream = slice_is(method, "streamGenerateContent"), count = slice_is(method, "countTokens");
    bool embed = slice_is(method, "embedContent") || slice_is(method, "batchEmbedContents");
    char alt[16];
    size_t alt_len;
    bool sse =
        http_query_get(ex->query, SLICE("alt"), alt, sizeof alt, &alt_len) && slice_is(slice_of(alt, alt_len), "sse");
    ex->path_model = arena_copy(&ex->arena, name);
    ex->path_stream = stream;
    ex->as_array = stream && !sse;
    ex->call.batch = slice_is(method, "batchEmbedContents");
    if (embed || count)
        task_run(ex, embed ? &task_embeddings : &task_count);
    else
        call_run(ex);
}

/* ---- echo -------------------------------------------------------------------------------------------------------- */

/* The edited body, as the upstream would get it, in one piece. */
static bool flatten(struct exchange *ex, struct json *j) {
    char *text = arena_alloc(&ex->arena, ex->body_out.bytes + 1);
    size_t at = 0;
    if (text == NULL)
        return false;
    for (uint32_t i = 0; i < ex->body_out.count; at += ex->body_out.at[i].len, i++)
        memcpy(text + at, ex->body_out.at[i].ptr, ex->body_out.at[i].len);
    return json_parse(j, &ex->arena, text, at);
}

static struct slice echo_id(struct exchange *ex) {
    uint8_t random[12];
    worker_random(ex->worker, random, sizeof random);
    struct slice id = arena_printf(&ex->arena, ex->legacy ? "cmpl-" : "chatcmpl-");
    for (size_t i = 0; i < sizeof random; i++)
        id = arena_printf(&ex->arena, "%.*s%02x", SLICE_ARG(id), random[i]);
    return id;
}

void echo_run(struct exchange *ex) {
    struct buf out;
    struct json j;
    bool stream = false;
    buf_init(&out, &ex->worker->pages, 64 << 20);
    if (ex->task != NULL && flatten(ex, &j)) {
        task_echo(ex, &j);
        return;
    }
    if (!flatten(ex, &j) || !echo_answer(&j, slice_of(ex->model_name, ex->model_len), ex->worker->loop.wall_ms / 1000,
                                         echo_id(ex), &ex->arena, &out, &stream)) {
        buf_release(&out);
        ex->status = 500;
        meter_release(ex);
        reply_error(ex, 500, "internal", NULL, "The answer could not be prepared.");
        return;
    }
    ex->first_byte_ns = ex->worker->loop.now_ns;
    if (!stream) {
        relay_body(ex, buf_slice(&out));
    } else {
        ex->state = EX_STREAM;
        relay_stream_begin(ex);
        if (relay_stream_bytes(ex, buf_slice(&out)))
            exchange_finish(ex);
    }
    buf_release(&out);
}
