/* An exchange's life, from a request's head to the record of what it cost.
 *
 *   EX_BODY → (endpoint runs) → EX_CONNECT → EX_REQUEST → EX_HEAD → EX_WHOLE | EX_STREAM → EX_DONE
 *
 * A local endpoint answers at once and ends. exchange_finish is the only way out: it settles what was not settled,
 * logs, frees, and gives the connection back. When the client leaves, the exchange goes on without a connection only
 * where the operator asked for the provider's exact figures (on_client_abort finish). */
#include "worker/exchange.h"

#include <stdio.h>
#include <stdlib.h>

#include "worker/call.h"

enum { EXCHANGE_MAGIC = 0x45584348, KEEP_FREE = 256 };

static struct exchange *free_exchanges; /* linked through `conn`'s place; a worker is one thread */
static unsigned free_count;

static struct exchange *exchange_new(void) {
    struct exchange *ex = free_exchanges;
    if (ex == NULL)
        return calloc(1, sizeof *ex);
    free_exchanges = (struct exchange *)(void *)ex->conn;
    free_count--;
    memset(ex, 0, offsetof(struct exchange, last_text));
    return ex;
}

static void exchange_free(struct exchange *ex) {
    ex->magic = 0;
    if (free_count >= KEEP_FREE) {
        free(ex);
        return;
    }
    ex->conn = (struct conn *)(void *)free_exchanges;
    free_exchanges = ex;
    free_count++;
}

struct slice exchange_request_id(const struct exchange *ex) { return slice_of(ex->request_id, ex->request_id_len); }

static bool valid_request_id(struct slice s) {
    if (s.len == 0 || s.len > SHM_REQUEST_ID)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        char ch = s.ptr[i];
        bool ok = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '.' ||
                  ch == '_' || ch == '-';
        if (!ok)
            return false;
    }
    return true;
}

static void set_request_id(struct exchange *ex, const struct http_head *head) {
    const struct http_header *h = http_find(head, SLICE("x-request-id"));
    if (h != NULL && valid_request_id(h->value)) {
        memcpy(ex->request_id, h->value.ptr, h->value.len);
        ex->request_id_len = (uint8_t)h->value.len;
        return;
    }
    uint64_t random[2];
    static const char digits[] = "0123456789abcdefghijklmnopqrstuv";
    worker_random(ex->worker, random, sizeof random);
    memcpy(ex->request_id, "req_", 4);
    for (int i = 0; i < 12; i++) { /* five bits a character */
        ex->request_id[4 + i] = digits[random[0] >> 5 * i & 31];
        ex->request_id[16 + i] = digits[random[1] >> 5 * i & 31];
    }
    ex->request_id_len = 28;
}

/* A client behind a trusted proxy: the last address in X-Forwarded-For that is not itself a proxy of ours. */
static void set_client(struct exchange *ex, const struct http_head *head) {
    const struct http_header *h = http_find(head, SLICE("x-forwarded-for"));
    struct conn *c = ex->conn;
    memcpy(ex->client, c->peer, sizeof ex->client);
    if (h == NULL || !proxy_trusted(ex->worker, c->peer))
        return;
    struct slice list = h->value;
    while (list.len > 0) {
        size_t at = list.len;
        while (at > 0 && list.ptr[at - 1] != ',')
            at--;
        struct slice one = slice_trim(slice_of(list.ptr + at, list.len - at));
        char text[48];
        if (one.len == 0 || one.len >= sizeof text)
            return;
        memcpy(text, one.ptr, one.len);
        text[one.len] = 0;
        memcpy(ex->client, text, one.len + 1);
        if (!proxy_trusted(ex->worker, text))
            return;
        list.len = at > 0 ? at - 1 : 0;
    }
}

/* A body that nobody reads: if all of it is here it is dropped, else the connection ends with the answer. */
static void discard_body(struct exchange *ex) {
    struct conn *c = ex->conn;
    if (ex->body_reader.done)
        return;
    if (ex->body_reader.kind == HTTP_BODY_SIZED && ex->content_length <= c->in.len && ex->body_buf.len == 0) {
        buf_consume(&c->in, (size_t)ex->content_length);
        ex->body_reader.done = true;
    } else {
        ex->keep = false;
    }
}

static bool refuse_head(struct exchange *ex, const struct http_head *head) {
    if (head->content_encoding.ptr != NULL) {
        reply_error(ex, 415, "unsupported_encoding", NULL, "A compressed request body is not supported.");
        return true;
    }
    if (head->body == HTTP_BODY_SIZED && head->content_length > ex->snapshot->snap->max_body) {
        reply_error(ex, 413, "body_too_large", NULL, "The request body is larger than %llu bytes.",
                    (unsigned long long)ex->snapshot->snap->max_body);
        return true;
    }
    if (head->expect_other) {
        reply_error(ex, 417, "invalid_value", NULL, "This expectation cannot be met.");
        return true;
    }
    return false;
}

static void reply_options(struct exchange *ex, const struct http_head *head) {
    char allow[128];
    if (!ex->cors && !ex->cors_any) {
        endpoint_methods(head->path, ex->conn->admin, allow, sizeof allow);
        reply_empty(ex, 204, arena_printf(&ex->arena, "Allow: %s\r\n", allow));
        return;
    }
    const struct http_header *asked = http_find(head, SLICE("access-control-request-headers"));
    struct slice names = asked != NULL ? asked->value : SLICE("Authorization, Content-Type");
    struct slice lines = arena_printf(&ex->arena,
                                      "Access-Control-Allow-Methods: GET, POST, PUT, DELETE, HEAD, OPTIONS\r\n"
                                      "Access-Control-Allow-Headers: %.*s\r\nAccess-Control-Max-Age: 86400\r\n",
                                      SLICE_ARG(names));
    reply_empty(ex, 204, lines);
}

static void reply_no_endpoint(struct exchange *ex, const struct http_head *head, bool other_method) {
    char allow[128];
    endpoint_methods(head->path, ex->conn->admin, allow, sizeof allow);
    if (other_method) {
        struct reply_fault f = { .status = 405, .code = "method_not_allowed", .allow = allow,
                                 .message = SLICE("This method is not allowed at this path.") };
        reply_fault(ex, &f);
    } else {
        reply_error(ex, 404, "unknown_path", NULL, "Unknown request path: %.*s",
                    (int)(head->path.len < 200 ? head->path.len : 200), head->path.ptr);
    }
}

/* The dialect in which even an unknown path is answered. */
static enum shape shape_of_path(struct slice path) {
    if (slice_starts(path, SLICE("/api/")))
        path = slice_from(path, 4);
    if (slice_starts(path, SLICE("/v1beta/")))
        return SHAPE_GEMINI;
    if (slice_starts(path, SLICE("/v1/messages")))
        return SHAPE_ANTHROPIC;
    if (slice_starts(path, SLICE("/auth/")) || slice_starts(path, SLICE("/api-keys")) ||
        slice_starts(path, SLICE("/billing/")))
        return SHAPE_DETAIL;
    return SHAPE_OPENAI;
}

/* Three vendors' SDKs ask for /v1/models: Anthropic's name a version, Google's name themselves. */
static enum shape shape_of(const struct endpoint *e, const struct http_head *head) {
    if (e->shape != SHAPE_OPENAI || (e->run != models_list && e->run != models_show))
        return e->shape;
    return http_find(head, SLICE("anthropic-version")) != NULL   ? SHAPE_ANTHROPIC
           : http_find(head, SLICE("x-goog-api-client")) != NULL ? SHAPE_GEMINI
                                                                 : e->shape;
}

static bool needs_key(const struct endpoint *e, const struct snap *s) {
    return e != NULL && (e->needs == NEEDS_KEY || (e->needs == NEEDS_KEY_UNLESS_PUBLIC && !s->models_public));
}

static struct exchange *exchange_open(struct conn *c, const struct http_head *head) {
    struct worker *w = c->worker;
    struct exchange *ex = exchange_new();
    if (ex == NULL)
        return NULL;
    ex->magic = EXCHANGE_MAGIC;
    ex->worker = w;
    ex->conn = c;
    ex->snapshot = snapshot_hold(w->snapshot);
    const struct snap *s = ex->snapshot->snap;
    arena_init(&ex->arena, &w->pages, (size_t)s->max_body * 6 + (1 << 20));
    buf_init(&ex->body_buf, &w->pages, (size_t)s->max_body);
    buf_init(&ex->reply, &w->pages, (size_t)64 << 20);
    buf_init(&ex->held, &w->pages, (size_t)16 << 20);
    ex->started_ns = w->loop.now_ns;
    ex->started_ms = w->loop.wall_ms;
    ex->head_request = slice_is(head->method, "HEAD");
    ex->http10 = head->minor == 0;
    ex->keep = head->keep_alive && !c->close_after && !w->draining;
    ex->expect_continue = head->expect_continue;
    ex->content_length = head->body == HTTP_BODY_SIZED ? head->content_length : 0;
    http_reader_init(&ex->body_reader, head->body, ex->content_length);
    ex->body_reader.done = head->body == HTTP_BODY_NONE;
    ex->cors = s->cors_origin.len > 0 && !c->admin; /* no page has business with the admin listener */
    ex->shape = c->admin ? SHAPE_DETAIL : shape_of_path(head->path);
    ex->last_text[0] = ex->up_text[0] = 0;
    c->exchange = ex;
    set_request_id(ex, head);
    set_client(ex, head);
    return ex;
}

/* What a provider of the client's own dialect must hear too: versions and betas, never credentials or hops. */
static void keep_headers(struct exchange *ex, const struct http_head *head) {
    static const struct slice names[] = { SLICE("anthropic-version"), SLICE("anthropic-beta"), SLICE("openai-beta"),
                                          SLICE("x-openai-internal-codex-responses-lite") };
    enum { VALUE_MAX = 4096 };
    ex->forward = SLICE("");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const struct http_header *h = http_find(head, names[i]);
        if (h != NULL && h->value.len <= VALUE_MAX)
            ex->forward = arena_printf(&ex->arena, "%.*s%.*s: %.*s\r\n", SLICE_ARG(ex->forward), SLICE_ARG(names[i]),
                                       SLICE_ARG(h->value));
    }
}

/* Runs what the head asks for. The head's slices die with the first byte read after it. */
static void dispatch(struct exchange *ex, const struct http_head *head) {
    bool other_method = false;
    struct slice rest;
    const struct snap *s = ex->snapshot->snap;
    bool options = slice_is(head->method, "OPTIONS");
    const struct endpoint *e = endpoint_find(ex->head_request || options ? SLICE("GET") : head->method, head->path,
                                             ex->conn->admin, &rest, &other_method);
    if (e != NULL) {
        ex->endpoint = e;
        ex->shape = shape_of(e, head);
        ex->path_rest = arena_copy(&ex->arena, rest);
        ex->query = arena_copy(&ex->arena, head->query);
    }
    if (!ex->conn->admin && !auth_request(ex, head, !options && needs_key(e, s))) /* limits are told to any known key */
        return;
    if (options) {
        ex->cors_any = e != NULL && e->run == status_show; /* open to every page, whatever is configured */
        reply_options(ex, head);
        return;
    }
    if (refuse_head(ex, head))
        return;
    if (e == NULL) {
        reply_no_endpoint(ex, head, other_method);
        return;
    }
    if (e->command != NULL)
        auth_keep(ex, head);
    if (!e->body) {
        buf_consume(&ex->conn->in, head->bytes);
        ex->head_consumed = true;
        discard_body(ex);
        e->run(ex);
        return;
    }
    keep_headers(ex, head);
    ex->state = EX_BODY;
}

void exchange_begin(struct conn *c, const struct http_head *head) {
    struct exchange *ex = exchange_open(c, head);
    size_t head_bytes = head->bytes;
    if (ex == NULL) {
        c->close_after = true;
        conn_done(c, false);
        return;
    }
    ex->head_bytes = head_bytes;
    ex->state = EX_DONE;
    dispatch(ex, head);
    if (c->exchange != ex || ex->state != EX_BODY) /* answered, and perhaps gone */
        return;
    buf_consume(&c->in, head_bytes);
    ex->head_consumed = true;
    if (ex->expect_continue && !ex->body_reader.done)
        conn_continue(c);
    exchange_body(ex);
}

/* The path in the first line of a head that could not be read, as far as it is there. */
static struct slice path_begun(struct slice text) {
    size_t from = 0, to;
    while (from < text.len && (text.ptr[from] == '\r' || text.ptr[from] == '\n'))
        from++;
    while (from < text.len && text.ptr[from] != ' ' && text.ptr[from] != '\n')
        from++;
    for (to = from + 1; to < text.len && memchr(" ?\r\n", text.ptr[to], 4) == NULL; to++)
        ;
    return from < text.len && text.ptr[from] == ' ' ? slice_of(text.ptr + from + 1, to - from - 1) : SLICE("");
}

void exchange_refuse(struct conn *c, int status, const char *code, const char *text) {
    struct http_head head = { .path = path_begun(buf_slice(&c->in)), .minor = 1, .body = HTTP_BODY_NONE };
    struct exchange *ex = exchange_open(c, &head);
    if (ex == NULL) {
        conn_done(c, false);
        return;
    }
    ex->state = EX_DONE;
    reply_error(ex, status, code, NULL, "%s", text);
}

static const char *body_code(int status) {
    switch (status) {
    case 413: return "body_too_large";
    case 431: return "headers_too_large";
    case 503: return "overloaded";
    default: return "invalid_value";
    }
}

void exchange_body(struct exchange *ex) {
    int status = 0;
    const char *text = "";
    CHECK_MAGIC(ex, EXCHANGE_MAGIC);
    if (!ex->body_reader.done) {
        int r = conn_read_body(ex->conn, &status, &text);
        if (r == 0)
            return;
        if (r < 0) {
            ex->keep = false;
            if (status == 0)
                exchange_finish(ex);
            else
                reply_error(ex, status, body_code(status), NULL, "%s", text);
            return;
        }
    }
    ex->state = EX_DONE;
    loop_timer_off(&ex->worker->loop, &ex->conn->timer);
    ex->endpoint->run(ex);
}

void exchange_forget_request(struct exchange *ex) {
    if (ex->tr_open) { /* its reader and writer live in the arena and point into the request */
        translate_close(&ex->tr);
        ex->tr_open = false;
    }
    if (ex->conn != NULL && ex->body_in_place > 0) {
        buf_consume(&ex->conn->in, ex->body_in_place);
        if (ex->conn->in.len == 0)
            buf_release(&ex->conn->in);
    }
    ex->body_in_place = 0;
    ex->body = SLICE_NONE;
    ex->body_out = (struct body_pieces){ NULL, 0, 0 };
    ex->ir = NULL;
    ex->json = (struct json){ 0 };
    buf_release(&ex->body_buf);
    arena_reset(&ex->arena);
}

/* The record of what nobody settled: an estimate of what was delivered, or nothing. A head that told of an error
 * delivered nothing. */
static void settle_rest(struct exchange *ex) {
    if (ex->slot == NULL || ex->settled)
        return;
    bool begun = ex->head_sent && ex->status < 400;
    if (ex->text_delivered > 0 || ex->answer.usage_seen || begun)
        meter_settle(ex, !ex->answer.usage_seen);
    else
        meter_release(ex);
}

void exchange_finish(struct exchange *ex) {
    CHECK_MAGIC(ex, EXCHANGE_MAGIC);
    struct worker *w = ex->worker;
    struct conn *c = ex->conn;
    if (ex->call_id != 0)
        call_forget(ex);
    attempt_abandon(ex);
    settle_rest(ex);
    access_log_exchange(ex);
    loop_timer_off(&w->loop, &ex->timer);
    loop_timer_off(&w->loop, &ex->ping);
    if (c != NULL) {
        if (!ex->head_consumed)
            buf_consume(&c->in, ex->head_bytes);
        discard_body(ex);
    }
    exchange_forget_request(ex);
    buf_release(&ex->reply);
    if (ex->tr_out.mem != NULL)
        buf_release(&ex->tr_out);
    buf_release(&ex->held);
    snapshot_release(ex->snapshot);
    bool keep = ex->keep && ex->body_reader.done;
    exchange_free(ex);
    if (c != NULL)
        conn_done(c, keep);
}

void exchange_drained(struct exchange *ex) {
    CHECK_MAGIC(ex, EXCHANGE_MAGIC);
    if (!ex->paused)
        return;
    ex->paused = false;
    attempt_read(ex);
}

void exchange_client_gone(struct exchange *ex) {
    CHECK_MAGIC(ex, EXCHANGE_MAGIC);
    struct snapshot *s = ex->snapshot;
    COUNT(ex->worker->counters, client_aborts, 1);
    ex->body_in_place = 0; /* it lay in the connection's buffer */
    ex->conn = NULL;
    ex->record_flags |= RECORD_CLIENT_GONE;
    bool running =
        ex->slot != NULL && !ex->settled && (ex->state == EX_HEAD || ex->state == EX_WHOLE || ex->state == EX_STREAM);
    if (running && s->snap->abort_finish && !ex->worker->quitting) {
        if (ex->paused) {
            ex->paused = false;
            attempt_read(ex);
        }
        return;
    }
    exchange_finish(ex);
}
