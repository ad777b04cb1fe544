/* POST /v1/chat/completions: parse, look, admit, go. And the echo upstream, which answers from within. */
#include "worker/exchange.h"

#include <stdio.h>

#include "proto/echo.h"

static void bad_json(struct exchange *ex) {
    if (ex->body.len == 0)
        reply_error(ex, 400, "invalid_json", NULL, "The request has no body.");
    else
        reply_error(ex, 400, "invalid_json", NULL, "The body is not valid JSON: %s at byte %zu.", json_err_text(ex->json.err), ex->json.err_at);
}

void chat_run(struct exchange *ex) {
    ex->pass = &pass_openai_chat;
    if (!json_parse(&ex->json, &ex->arena, ex->body.ptr, ex->body.len)) {
        bad_json(ex);
        return;
    }
    struct slice allow[32];
    uint32_t allows = 0;
    struct pass_request *r = &ex->req;
    ex->pass->scan(&ex->json, r, &ex->arena, NULL, 0);
    if (r->fault_code == NULL || strcmp(r->fault_code, "unsupported_parameter") == 0) {
        if (!auth_refresh(ex) || !admit_model(ex, r->model))
            return;
        const struct snap *s = ex->snapshot->snap;
        SNAP_EACH(s, ex->model->allow, struct snap_str, word)
            if (allows < ARRAY_LEN(allow))
                allow[allows++] = snap_text(s, *word);
        if (allows > 0)
            ex->pass->scan(&ex->json, r, &ex->arena, allow, allows);
    }
    if (r->fault_code != NULL) {
        reply_error(ex, 400, r->fault_code, r->fault_param, "%s", r->fault_text);
        return;
    }
    if (admit_call(ex))
        attempt_start(ex);
}

/* The edited body, as the upstream would get it, in one piece. */
static bool flatten(struct exchange *ex, struct json *j) {
    char *text = arena_alloc(&ex->arena, ex->pieces->bytes + 1);
    size_t at = 0;
    if (text == NULL)
        return false;
    for (uint32_t i = 0; i < ex->pieces->count; at += ex->pieces->at[i].len, i++)
        memcpy(text + at, ex->pieces->at[i].ptr, ex->pieces->at[i].len);
    return json_parse(j, &ex->arena, text, at);
}

void chat_echo(struct exchange *ex) {
    struct buf out;
    struct json j;
    bool stream = false;
    uint8_t random[8];
    char id[40];
    worker_random(ex->worker, random, sizeof random);
    int n = snprintf(id, sizeof id, "chatcmpl-%02x%02x%02x%02x%02x%02x%02x%02x", random[0], random[1], random[2], random[3], random[4], random[5],
                     random[6], random[7]);
    buf_init(&out, &ex->worker->pages, 64 << 20);
    if (!flatten(ex, &j) || !echo_answer(&j, slice_of(ex->model_name, ex->model_len), ex->worker->loop.wall_ms / 1000, slice_of(id, (size_t)n),
                                         &ex->arena, &out, &stream)) {
        buf_release(&out);
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
