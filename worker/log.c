/* Logs: one JSON object a request, buffered and written in batches; the error log, a line at once.
 *
 * No secret can reach either: what is logged is ids, names of the configuration, figures. The query string (which may
 * hold a key) is not. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/id.h"
#include "worker/exchange.h"

enum { LOG_FLUSH_BYTES = 60 << 10, LOG_MAX_BYTES = 4 << 20 };

struct access_log {
    int access_fd, error_fd;
    struct buf lines;
};

struct access_log *access_log_new(struct worker *w) {
    struct access_log *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    l->access_fd = -1;
    l->error_fd = STDERR_FILENO;
    buf_init(&l->lines, &w->pages, LOG_MAX_BYTES);
    return l;
}

void access_log_flush(struct worker *w) {
    struct access_log *l = w->access_log;
    while (l->access_fd >= 0 && l->lines.len > 0) {
        ssize_t n = write(l->access_fd, buf_ptr(&l->lines), l->lines.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break; /* a full disk: lines stay until the buffer is full, then the newest are dropped and counted */
        buf_consume(&l->lines, (size_t)n);
    }
    if (l->lines.len == 0)
        buf_release(&l->lines);
}

void access_log_reopen(struct worker *w, int access_fd, int error_fd) {
    struct access_log *l = w->access_log;
    access_log_flush(w);
    if (l->access_fd >= 0)
        close(l->access_fd);
    if (l->error_fd != STDERR_FILENO)
        close(l->error_fd);
    l->access_fd = access_fd;
    l->error_fd = error_fd;
    if (access_fd < 0)
        buf_release(&l->lines);
}

static const char *endpoint_name(const struct exchange *ex) { return ex->endpoint != NULL ? ex->endpoint->path : ""; }

/* RFC 3339 with milliseconds; the part to the second is made once a second. */
static size_t put_time(char *out, int64_t ms) {
    static int64_t made_s;
    static char text[24];
    if (ms / 1000 != made_s) {
        time_t s = (time_t)(ms / 1000);
        struct tm tm;
        gmtime_r(&s, &tm);
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
        made_s = ms / 1000;
    }
    unsigned part = (unsigned)(ms % 1000);
    memcpy(out, text, 19);
    out[19] = '.';
    out[20] = (char)('0' + part / 100);
    out[21] = (char)('0' + part / 10 % 10);
    out[22] = (char)('0' + part % 10);
    out[23] = 'Z';
    out[24] = 0;
    return 24;
}

static void key_number(struct json_writer *w, const char *name, uint64_t v) {
    jw_key(w, name);
    jw_u64(w, v);
}

static void write_call(struct json_writer *w, const struct exchange *ex) {
    const struct snap *s = ex->snapshot->snap;
    jw_key(w, "model");
    jw_str(w, slice_of(ex->model_name, ex->model_len));
    if (ex->try.up != NULL) {
        jw_key(w, "upstream");
        jw_str(w, snap_text(s, ex->try.up->name));
    }
    if (!ex->settled)
        return;
    key_number(w, "tries", ex->tries);
    key_number(w, "input_tokens", meters_input(&ex->meters));
    key_number(w, "cached_tokens", ex->meters.n[METER_CACHED_INPUT]);
    key_number(w, "output_tokens", meters_output(&ex->meters));
    jw_key(w, "cost");
    jw_fixed(w, ex->cost_amount, s->unit_tokens ? 0 : 9, true);
    jw_key(w, "estimated");
    jw_bool(w, ex->record_flags & RECORD_ESTIMATED);
}

/* One line. Text from the client (id, model) is escaped by the writer. */
void access_log_exchange(struct exchange *ex) {
    struct worker *worker = ex->worker;
    struct access_log *l = worker->access_log;
    struct json_writer w;
    char id[24], at[32];
    if (l->access_fd < 0 || (ex->endpoint != NULL && ex->conn != NULL && ex->conn->admin))
        return;
    size_t before = l->lines.len;
    jw_init(&w, &l->lines);
    jw_object(&w);
    jw_key(&w, "time");
    jw_str(&w, slice_of(at, put_time(at, worker->loop.wall_ms)));
    jw_key(&w, "request_id");
    jw_str(&w, exchange_request_id(ex));
    jw_key(&w, "path");
    jw_cstr(&w, endpoint_name(ex));
    if (ex->client[0] != 0) {
        jw_key(&w, "client");
        jw_cstr(&w, ex->client);
    }
    if (ex->known_key) {
        jw_key(&w, "account");
        jw_str(&w, slice_of(id, id_write(id, "acct_", ex->account.id)));
        jw_key(&w, "key");
        jw_str(&w, slice_of(id, id_write(id, "key_", ex->key.id)));
    }
    key_number(&w, "status", ex->record_flags & RECORD_CLIENT_GONE && !ex->head_sent ? 499 : (uint64_t)ex->status);
    if (ex->record_flags & RECORD_CLIENT_GONE) {
        jw_key(&w, "client_gone");
        jw_bool(&w, true);
    }
    if (ex->model != NULL)
        write_call(&w, ex);
    if (ex->first_byte_ns != 0)
        key_number(&w, "ttfb_ms", (ex->first_byte_ns - ex->started_ns) / 1000000);
    key_number(&w, "duration_ms", (worker->loop.now_ns - ex->started_ns) / 1000000);
    jw_end_object(&w);
    if (w.failed || !buf_append(&l->lines, "\n", 1)) {
        l->lines.len = before;
        COUNT(worker->counters, log_dropped, 1);
    }
    if (l->lines.len >= LOG_FLUSH_BYTES)
        access_log_flush(worker);
}

void worker_log(struct worker *w, enum log_level level, const char *fmt, ...) {
    static const char *const names[] = { "error", "warn", "info", "debug" };
    char line[1024], at[32];
    va_list ap;
    if (w->snapshot != NULL && (uint32_t)level > worker_snap(w)->log_level)
        return;
    put_time(at, w->loop.wall_ms);
    int n = snprintf(line, sizeof line, "%s [%s] worker %u (%d): ", at, names[level], w->heritage.range, (int)getpid());
    va_start(ap, fmt);
    n += vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
    va_end(ap);
    n = n < (int)sizeof line - 1 ? n : (int)sizeof line - 2;
    line[n++] = '\n';
    int fd = w->access_log != NULL ? w->access_log->error_fd : STDERR_FILENO;
    if (write(fd, line, (size_t)n) < 0)
        return; /* there is nowhere left to say it */
}
