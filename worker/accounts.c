/* Accounts, keys and billing over HTTP, and /admin: the worker forwards what the client sent, credential and all; the
 * ledger decides and says status and body. Nothing of a password or token is looked at, kept or logged here.
 *
 * The call: {"cmd":"http.NAME","credentials":["…"],"client":"ADDRESS","id":"PATH REST","query":"RAW","body":{…}}
 * The answer's result: {"status":200,"body":{…}}, or {"status":404,"code":"…","message":"…","retry_after_s":N?}. */
#include "worker/call.h"

enum { CALL_MAX = 1 << 20, BODY_MAX = 256 << 10 };

static void answered(struct exchange *ex, const struct json *j) {
    int result = j != NULL ? json_get(j, 0, "result") : -1;
    uint64_t status, wait_s = 0;
    if (!json_u64(j, json_get(j, result, "status"), &status) || status < 200 || status > 599) {
        reply_error(ex, 503, "overloaded", NULL,
                    "The server is temporarily unable to take this request. Please try again shortly.");
        return;
    }
    int body = json_get(j, result, "body"), code = json_get(j, result, "code"), said = json_get(j, result, "message");
    if (body >= 0) {
        reply_json(ex, (int)status, json_span(j, body));
        return;
    }
    json_u64(j, json_get(j, result, "retry_after_s"), &wait_s);
    reply_fault(ex, &(struct reply_fault){ .status = (int)status,
                                           .code = "internal",
                                           .provider_code = json_str(j, code, &ex->arena),
                                           .message = json_str(j, said, &ex->arena),
                                           .retry_after_ms = wait_s * 1000 });
}

static bool parse_body(struct exchange *ex, struct json *j) {
    if (ex->body.len > BODY_MAX) {
        reply_error(ex, 413, "body_too_large", NULL, "The request body is too large.");
        return false;
    }
    if (!json_parse(j, &ex->arena, ex->body.ptr, ex->body.len) || !json_is(j, 0, JSON_OBJECT)) {
        reply_error(ex, 400, "invalid_json", NULL, "The body must be a JSON object.");
        return false;
    }
    return true;
}

void accounts_run(struct exchange *ex) {
    struct json j;
    struct json_writer w;
    struct buf call;
    bool body = ex->body.len > 0;
    if (body && !parse_body(ex, &j))
        return;
    buf_init(&call, &ex->worker->pages, CALL_MAX);
    jw_init(&w, &call);
    jw_object(&w);
    jw_key(&w, "cmd");
    jw_cstr(&w, ex->endpoint->command);
    jw_key(&w, "credentials");
    jw_array(&w);
    for (uint32_t i = 0; i < ex->credential_count; i++)
        jw_str(&w, ex->credentials[i]);
    jw_end_array(&w);
    jw_key(&w, "client");
    jw_cstr(&w, ex->client);
    jw_key(&w, "id");
    jw_str(&w, ex->path_rest);
    jw_key(&w, "query");
    jw_str(&w, ex->query);
    if (body) {
        jw_key(&w, "body");
        jw_raw(&w, ex->body);
    }
    jw_end_object(&w);
    if (w.failed)
        reply_error(ex, 413, "body_too_large", NULL, "The request is too large.");
    else
        call_ledger(ex, buf_slice(&call), answered);
    if (call.len > 0)
        wipe(buf_ptr(&call), call.len); /* it holds a credential, perhaps a password */
    buf_release(&call);
}
