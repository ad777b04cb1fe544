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
#include "proto/base/line.h"
#include "worker/exchange.h"

/* A line is at most its names, an address, ids, and two names of SHM_MODEL_NAME bytes or less, escaped sixfold. */
enum { LOG_FLUSH_BYTES = 60 << 10, LOG_MAX_BYTES = 4 << 20, LOG_LINE_MAX = 4096 };

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

/* A string's inside: what need not be escaped, as configured names and most models, goes as it is. */
static void put_string(struct line *t, struct worker *w, struct slice s) {
    if (json_plain(s)) {
        line_slice(t, s);
        return;
    }
    struct buf b;
    struct json_writer j;
    buf_init(&b, &w->pages, LOG_LINE_MAX);
    jw_init(&j, &b);
    jw_str_part(&j, s);
    line_slice(t, buf_slice(&b));
    buf_release(&b);
}

static void put_call(struct line *t, const struct exchange *ex) {
    const struct snap *s = ex->snapshot->snap;
    char cost[32];
    LINE(t, ",\"model\":\"");
    put_string(t, ex->worker, slice_of(ex->model_name, ex->model_len));
    if (ex->try.up != NULL) {
        LINE(t, "\",\"upstream\":\"");
        put_string(t, ex->worker, snap_text(s, ex->try.up->name));
    }
    LINE(t, "\"");
    if (!ex->settled)
        return;
    LINE(t, ",\"tries\":");
    line_u64(t, ex->tries);
    LINE(t, ",\"input_tokens\":");
    line_u64(t, meters_input(&ex->meters));
    LINE(t, ",\"cached_tokens\":");
    line_u64(t, ex->meters.n[METER_CACHED_INPUT]);
    LINE(t, ",\"output_tokens\":");
    line_u64(t, meters_output(&ex->meters));
    LINE(t, ",\"cost\":\"");
    line_put(t, cost, fixed_format(cost, ex->cost_amount, s->unit_tokens ? 0 : 9));
    LINE(t, "\",\"estimated\":");
    line_slice(t, ex->record_flags & RECORD_ESTIMATED ? SLICE("true") : SLICE("false"));
}

static void put_line(struct line *t, const struct exchange *ex) {
    char at[32], id[ID_TEXT];
    bool gone = ex->record_flags & RECORD_CLIENT_GONE;
    LINE(t, "{\"time\":\"");
    line_put(t, at, put_time(at, ex->worker->loop.wall_ms));
    LINE(t, "\",\"request_id\":\"");
    line_put(t, ex->request_id, ex->request_id_len);
    LINE(t, "\",\"path\":\"");
    line_slice(t, slice_str(ex->endpoint != NULL ? ex->endpoint->path : ""));
    if (ex->client[0] != 0) {
        LINE(t, "\",\"client\":\"");
        put_string(t, ex->worker, slice_str(ex->client));
    }
    if (ex->known_key) {
        LINE(t, "\",\"account\":\"");
        line_put(t, id, id_write(id, ID_ACCOUNT, ex->account.id));
        LINE(t, "\",\"key\":\"");
        line_put(t, id, id_write(id, ID_KEY, ex->key.id));
    }
    LINE(t, "\",\"status\":");
    line_u64(t, gone && !ex->head_sent ? 499 : (uint64_t)ex->status);
    if (gone)
        LINE(t, ",\"client_gone\":true");
    if (ex->model != NULL)
        put_call(t, ex);
    if (ex->first_byte_ns != 0) {
        LINE(t, ",\"ttfb_ms\":");
        line_u64(t, (ex->first_byte_ns - ex->started_ns) / 1000000);
    }
    LINE(t, ",\"duration_ms\":");
    line_u64(t, (ex->worker->loop.now_ns - ex->started_ns) / 1000000);
    LINE(t, "}\n");
}

/* One line. Text from the client (its address, the model) is escaped where it must be; a request id cannot hold what
 * must be. */
void access_log_exchange(struct exchange *ex) {
    struct worker *w = ex->worker;
    struct access_log *l = w->access_log;
    if (l->access_fd < 0 || (ex->endpoint != NULL && ex->conn != NULL && ex->conn->admin))
        return;
    char *line = buf_reserve(&l->lines, LOG_LINE_MAX, NULL);
    if (line == NULL) {
        COUNT(w->counters, log_dropped, 1);
        return;
    }
    struct line t = { line, line + LOG_LINE_MAX };
    put_line(&t, ex);
    buf_commit(&l->lines, (size_t)(t.at - line));
    if (l->lines.len >= LOG_FLUSH_BYTES)
        access_log_flush(w);
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
