/* Errors: what a provider's mean, whatever their shape, and the table of what clients get.
 *
 * Sources: the vendors' error pages and the bodies that compatible servers send ({"error":"text"}, {"detail":…},
 * numeric codes, HTML). A message goes to the client only where the error is about its request or its rate; keys and
 * organisation ids are blacked out of it. Nothing here fails. */
#include "proto/dialect/dialect.h"

#include <stdio.h>

static const struct dialect_status statuses[] = {
    { 400, "invalid_request_error", "invalid_value", "invalid_request_error", "INVALID_ARGUMENT" },
    { 401, "authentication_error", "invalid_api_key", "authentication_error", "UNAUTHENTICATED" },
    { 402, "insufficient_quota", "insufficient_balance", "billing_error", "RESOURCE_EXHAUSTED" },
    { 403, "permission_error", "model_not_allowed", "permission_error", "PERMISSION_DENIED" },
    { 404, "not_found_error", "model_not_found", "not_found_error", "NOT_FOUND" },
    { 405, "invalid_request_error", "method_not_allowed", "invalid_request_error", "INVALID_ARGUMENT" },
    { 408, "invalid_request_error", "request_timeout", "invalid_request_error", "INVALID_ARGUMENT" },
    { 413, "invalid_request_error", "body_too_large", "request_too_large", "INVALID_ARGUMENT" },
    { 414, "invalid_request_error", "uri_too_long", "invalid_request_error", "INVALID_ARGUMENT" },
    { 415, "invalid_request_error", "unsupported_encoding", "invalid_request_error", "INVALID_ARGUMENT" },
    { 422, "invalid_request_error", "invalid_value", "invalid_request_error", "INVALID_ARGUMENT" },
    { 429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED" },
    { 431, "invalid_request_error", "headers_too_large", "invalid_request_error", "INVALID_ARGUMENT" },
    { 500, "internal_server_error", "internal", "api_error", "INTERNAL" },
    { 501, "invalid_request_error", "not_implemented", "invalid_request_error", "INVALID_ARGUMENT" },
    { 502, "upstream_error", "upstream_failed", "api_error", "UNAVAILABLE" },
    { 503, "service_unavailable_error", "overloaded", "overloaded_error", "UNAVAILABLE" },
    { 504, "upstream_error", "upstream_timeout", "timeout_error", "DEADLINE_EXCEEDED" },
    { 505, "invalid_request_error", "http_version", "invalid_request_error", "INVALID_ARGUMENT" },
};

const struct dialect_status *dialect_status_of(int status) {
    const struct dialect_status *best = &statuses[0];
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        if (statuses[i].status == status)
            return &statuses[i];
        if (statuses[i].status == 500 && status >= 500)
            best = &statuses[i];
    }
    return best;
}

struct slice dialect_code(const struct ir_fault *f) {
    return f->code.len > 0 ? f->code : slice_str(dialect_status_of(f->status)->code);
}

/* ---- what a provider says ---- */

static bool contains(struct slice text, const char *word) {
    return text.len > 0 && memmem(text.ptr, text.len, word, strlen(word)) != NULL;
}

static bool too_long(struct slice message) {
    static const char *const words[] = {
        "prompt is too long", "maximum context length", "context_length_exceeded", "context length", "context window",
        "input token count", "exceeds the maximum number of tokens", "too many tokens", "reduce the length",
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (contains(message, words[i]))
            return true;
    return false;
}

/* The HTTP status that an error names by a word: OpenAI's and Anthropic's types, Gemini's statuses. 0: no such word. */
static int status_of_word(struct slice word) {
    static const struct { const char *word; int status;
    } words[] = {
        { "invalid_request_error", 400 },
        { "INVALID_ARGUMENT", 400 },
        { "FAILED_PRECONDITION", 400 },
        { "invalid_prompt", 400 },
        { "authentication_error", 401 },
        { "UNAUTHENTICATED", 401 },
        { "invalid_api_key", 401 },
        { "billing_error", 402 },
        { "permission_error", 403 },
        { "PERMISSION_DENIED", 403 },
        { "not_found_error", 404 },
        { "NOT_FOUND", 404 },
        { "request_too_large", 413 },
        { "rate_limit_error", 429 },
        { "rate_limit_exceeded", 429 },
        { "RESOURCE_EXHAUSTED", 429 },
        { "requests", 429 },
        { "tokens", 429 },
        { "insufficient_quota", 402 },
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (slice_is(word, words[i].word))
            return words[i].status;
    return 0;
}

static bool word_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* Blacks out what looks like a key or an organisation, in a copy. */
static struct slice scrub(struct slice text, struct arena *arena) {
    static const char *const heads[] = { "sk-", "org-", "proj_", "AIza", "key-", "xai-", "gsk_" };
    struct slice copy = arena_copy(arena, text);
    if (!copy.ptr)
        return SLICE("");
    char *p = (char *)(uintptr_t)copy.ptr;
    for (size_t i = 0; i < copy.len;) {
        size_t end = i, head = 0;
        while (end < copy.len && word_char(p[end]))
            end++;
        for (size_t k = 0; k < sizeof heads / sizeof *heads; k++)
            if (slice_starts(slice_of(p + i, end - i), slice_str(heads[k])))
                head = strlen(heads[k]);
        if (head && end - i >= head + 8)
            memset(p + i + head, '*', end - i - head);
        i = end + (end == i);
    }
    return copy;
}

static struct slice text_at(const struct json *j, int t, struct arena *arena) {
    if (json_is(j, t, JSON_STRING))
        return json_str(j, t, arena);
    return json_is(j, t, JSON_NUMBER) ? json_raw(j, t) : SLICE_NONE;
}

/* Gemini's google.rpc details: a wait, and whether it is our key that is wrong. */
static void read_details(const struct json *j, int details, struct arena *arena, struct ir_fault *f, bool *bad_key) {
    if (!json_is(j, details, JSON_ARRAY))
        return;
    for (int t = json_first(j, details); t >= 0; t = json_next(j, details, t)) {
        *bad_key = *bad_key || json_str_is(j, json_get(j, t, "reason"), "API_KEY_INVALID");
        struct slice wait = json_str(j, json_get(j, t, "retryDelay"), arena);
        int64_t ms;
        if (wait.len > 1 && wait.ptr[wait.len - 1] == 's' && fixed_parse(slice_of(wait.ptr, wait.len - 1), 9, &ms) &&
            ms > 0)
            f->retry_after_ms = ((uint64_t)ms + 999999) / 1000000;
    }
}

/* What the status and the words mean to the client (and to the relay, which tries elsewhere by the blame). */
static void judge(struct ir_fault *f, int status, bool bad_key, struct slice said, struct slice code,
                  struct slice type) {
    bool quota = slice_is(code, "insufficient_quota") || slice_is(type, "insufficient_quota");
    f->detail = said;
    f->code = SLICE_NONE;
    f->message = SLICE("The provider of this model failed to answer.");
    f->blame = IR_BLAME_UPSTREAM;
    f->status = 502;
    if (bad_key || status == 401 || status == 402 || status == 403 || quota) {
        f->blame = IR_BLAME_KEY;
        f->status = status == 429 ? 429 : 502;
    } else if (status == 404 || slice_is(code, "model_not_found")) {
        f->blame = IR_BLAME_ROUTE;
        f->status = status == 400 ? 400 : 404;
        f->code = SLICE("model_not_found");
        f->message = SLICE("The provider does not know this model.");
    } else if (status == 429) {
        f->blame = IR_BLAME_RATE;
        f->status = 429;
        f->message = said.len > 0 ? said : SLICE("The provider of this model is at its limit.");
    } else if (status == 400 || status == 413 || status == 422) {
        f->blame = IR_BLAME_CLIENT;
        f->status = status;
        f->message = said.len > 0 ? said : SLICE("The provider of this model refused the request.");
        f->code = code;
        if (too_long(said) || slice_is(code, "context_length_exceeded")) {
            f->status = 400;
            f->code = SLICE("context_length_exceeded");
        }
    }
}

/* The text of an error in the shapes that are about: an object with message, a string, Mistral's list of {msg}. */
static struct slice said_by(const struct json *j, int t, struct arena *arena) {
    if (json_is(j, t, JSON_STRING))
        return json_str(j, t, arena);
    if (json_is(j, t, JSON_ARRAY))
        return said_by(j, json_get(j, json_first(j, t), "msg"), arena);
    static const char *const names[] = { "message", "detail", "msg", "error", "error_message" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int m = json_get(j, t, names[i]);
        if (json_is(j, m, JSON_STRING))
            return json_str(j, m, arena);
        if (json_is(j, m, JSON_ARRAY) && i == 1)
            return said_by(j, m, arena);
    }
    return SLICE_NONE;
}

void dialect_fault_of(const struct json *j, int t, int status, struct arena *arena, struct ir_fault *f) {
    bool bad_key = false;
    *f = (struct ir_fault){ 0 };
    if (json_is(j, t, JSON_ARRAY))
        t = json_first(j, t);
    int inner = json_get(j, t, "error"), outer = t;
    if (json_is(j, inner, JSON_OBJECT))
        t = inner;
    struct slice code = text_at(j, json_get(j, t, "code"), arena), type = text_at(j, json_get(j, t, "type"), arena);
    struct slice said = said_by(j, t, arena), word = text_at(j, json_get(j, t, "status"), arena);
    if (said.len == 0)
        said = said_by(j, outer, arena);
    read_details(j, json_get(j, t, "details"), arena, f, &bad_key);
    uint64_t number;
    if (status < 400) {
        status = slice_to_u64(code, &number) && number >= 400 && number < 600 ? (int)number : 0;
        if (!status && slice_to_u64(word, &number) && number >= 400 && number < 600)
            status = (int)number;
        status = status                 ? status
                 : status_of_word(code) ? status_of_word(code)
                 : status_of_word(type) ? status_of_word(type)
                                        : status_of_word(word);
    }
    if (slice_to_u64(code, &number))
        code = SLICE_NONE;
    struct slice details_code = text_at(j, json_get(j, json_get(j, t, "details"), "error_code"), arena);
    judge(f, status, bad_key, scrub(said, arena), code.len > 0 ? code : details_code, type);
    if (f->blame == IR_BLAME_CLIENT)
        f->param = text_at(j, json_get(j, t, "param"), arena);
}

void dialect_read_error(int status, struct slice body, uint64_t retry_after_s, struct arena *arena,
                        struct ir_fault *f) {
    struct json j;
    if (body.len > 0 && json_parse(&j, arena, body.ptr, body.len))
        dialect_fault_of(&j, 0, status, arena, f);
    else {
        *f = (struct ir_fault){ 0 };
        judge(f, status, false, SLICE_NONE, SLICE_NONE, SLICE_NONE);
    }
    if (retry_after_s > 0)
        f->retry_after_ms = retry_after_s * 1000;
}

/* ---- OpenAI's shape, which two dialects share ---- */

bool dialect_write_openai_error(const struct ir_fault *f, const struct dialect_brand *brand, struct arena *arena,
                                struct buf *out) {
    const struct dialect_status *s = dialect_status_of(f->status);
    struct json_writer w;
    jw_init(&w, out);
    jw_object(&w);
    if (brand && brand->error_detail) {
        jw_key(&w, "detail");
        jw_str(&w, f->message);
    }
    jw_key(&w, "error");
    jw_object(&w);
    jw_key(&w, "message");
    jw_str(&w, f->message.ptr ? f->message : SLICE(""));
    jw_key(&w, "type");
    jw_str(&w, f->type.len > 0 ? f->type : slice_str(s->openai));
    jw_key(&w, "param");
    jw_str(&w, f->param.len > 0 ? f->param : SLICE_NONE);
    jw_key(&w, "code");
    const char *at = brand && brand->error_code.len > 0
                         ? memmem(brand->error_code.ptr, brand->error_code.len, "%d", 2)
                         : NULL;
    if (at) {
        struct slice head = slice_of(brand->error_code.ptr, (size_t)(at - brand->error_code.ptr));
        struct slice tail = slice_from(brand->error_code, head.len + 2);
        jw_str(&w, arena_printf(arena, "%.*s%d%.*s", SLICE_ARG(head), f->status, SLICE_ARG(tail)));
        jw_key(&w, "reason");
    }
    jw_str(&w, dialect_code(f));
    jw_end_object(&w);
    jw_end_object(&w);
    return !w.failed;
}
