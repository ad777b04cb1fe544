/* Forked readers: what takes long (an audit, a report over many records, a backup) runs in a child with an
 * environment of its own, so that no commit waits for it. The child inherits the ledger's database by fork and must
 * never touch it: the first thing it does is to close every descriptor but its pipe and to open the file anew. Its
 * answer comes through the pipe: a byte R or E, then the result's JSON, or code NUL message. A child that dies has no
 * answer, and the caller is told. A few run at a time, a few more wait, the rest is refused; of one account's own only
 * so many that the others' find room. They are nice: calls come first. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "master/ledger/http.h"
#include "master/ledger/reader.h"

enum { MAX_RUNNING = 3, MAX_WAITING = 32, MAX_OF_ACCOUNT = 2, PIPE_READ = 65536, NICE = 10 };

struct reader {
    struct reader *next;
    struct reader_job job;
    uint32_t id, origin;
    bool http; /* the call's */
    uint32_t self_id; /* likewise */
    pid_t pid; /* 0: waits */
    int fd;
    char *text;
    size_t len, cap;
};

void job_refuse(struct reader_job *job, const char *code, const char *fmt, ...) {
    va_list args;
    if (job->refused)
        return;
    va_start(args, fmt);
    job->refused = true;
    snprintf(job->code, sizeof job->code, "%s", code);
    vsnprintf(job->message, sizeof job->message, fmt, args);
    va_end(args);
}

static void put(int fd, const void *p, size_t n) {
    for (size_t at = 0; at < n;) {
        ssize_t r = write(fd, (const char *)p + at, n - at);
        if (r < 0 && errno != EINTR)
            _exit(1);
        at += r > 0 ? (size_t)r : 0;
    }
}

static void close_others(int keep) {
    if (keep != 3) {
        dup2(keep, 3);
        keep = 3;
    }
    (void)fcntl(keep, F_SETFD, FD_CLOEXEC);
    if (close_range(4, ~0u, 0) < 0)
        for (int fd = 4; fd < 4096; fd++)
            close(fd);
}

static _Noreturn void child(struct ledger *l, struct reader_job *job, int fd, pid_t parent) {
    struct pages pages;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    close_others(fd);
    fd = 3;
    (void)setpriority(PRIO_PROCESS, 0, NICE);
    pages_init(&pages, 16);
    buf_init(&job->out, &pages, IPC_MAX_PAYLOAD);
    job->l = l;
    struct store_options o = { .read_only = true };
    if (store_open(&job->store, l->heritage->state_dir, &o) != STORE_OK)
        job_refuse(job, "internal", "the database cannot be read: %s", job->store.message);
    else
        job->fn(job);
    if (job->refused) {
        put(fd, "E", 1);
        put(fd, job->code, strlen(job->code) + 1);
        put(fd, job->message, strlen(job->message));
    } else {
        put(fd, "R", 1);
        put(fd, buf_slice(&job->out).ptr, job->out.len);
    }
    _exit(0);
}

static bool spawn(struct ledger *l, struct reader *r) {
    int fds[2];
    pid_t parent = getpid();
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return false;
    (void)fcntl(fds[1], F_SETFL, 0); /* the child's end blocks */
    struct epoll_event e = { .events = EPOLLIN, .data.fd = fds[0] };
    pid_t pid = epoll_ctl(l->epfd, EPOLL_CTL_ADD, fds[0], &e) == 0 ? fork() : -1;
    if (pid == 0)
        child(l, &r->job, fds[1], parent);
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        return false;
    }
    r->pid = pid;
    r->fd = fds[0];
    return true;
}

static void answer(struct ledger *l, const struct reader *r) {
    struct buf out;
    struct json_writer w;
    buf_init(&out, &l->pages, IPC_MAX_PAYLOAD);
    jw_init(&w, &out);
    jw_object(&w);
    size_t code_len = r->len > 1 ? strnlen(r->text + 1, r->len - 1) : 0;
    bool done = r->len > 1 && r->text[0] == 'R';
    bool said = r->len > 1 && r->text[0] == 'E' && code_len + 2 <= r->len;
    struct slice result = done ? slice_of(r->text + 1, r->len - 1) : SLICE_NONE;
    struct slice code = said ? slice_of(r->text + 1, code_len) : SLICE("internal");
    struct slice message = said ? slice_of(r->text + code_len + 2, r->len - code_len - 2)
                                : SLICE("the reader process died");
    jw_key(&w, done || r->http ? "result" : "error");
    if (r->http) {
        http_write(&w, result, code, message);
    } else if (done) {
        jw_raw(&w, result);
    } else {
        jw_object(&w);
        jw_key(&w, "code");
        jw_str(&w, code);
        jw_key(&w, "message");
        jw_str(&w, message);
        jw_end_object(&w);
    }
    jw_end_object(&w);
    if (w.failed)
        call_answer(l, r->id, r->origin,
                    SLICE("{\"error\":{\"code\":\"too_large\",\"message\":\"the answer is too large; ask for less at a "
                          "time\"}}"));
    else
        call_answer(l, r->id, r->origin, buf_slice(&out));
    buf_release(&out);
}

/* Unlinks and frees; starts one that waits. */
static void retire(struct ledger *l, struct reader *r) {
    for (struct reader **at = &l->readers; *at; at = &(*at)->next)
        if (*at == r) {
            *at = r->next;
            break;
        }
    if (r->pid) {
        close(r->fd);
        while (waitpid(r->pid, NULL, 0) < 0 && errno == EINTR)
            ;
        store_check_readers(&l->store); /* it left its place in the database's table of readers behind */
        l->reader_count--;
    }
    free(r->text);
    free(r);
    for (r = l->readers; r && l->reader_count < MAX_RUNNING; r = r->next)
        if (r->pid == 0 && spawn(l, r)) {
            l->reader_waiting--;
            l->reader_count++;
        }
}

static uint32_t readers_of(const struct ledger *l, uint32_t account_id) {
    uint32_t n = 0;
    for (const struct reader *r = l->readers; r; r = r->next)
        n += r->self_id == account_id;
    return n;
}

bool reader_runs(const struct ledger *l, void (*fn)(struct reader_job *job)) {
    const struct reader *r = l->readers;
    while (r && r->job.fn != fn)
        r = r->next;
    return r;
}

void reader_start(struct call *c, const struct reader_job *job) {
    struct ledger *l = c->l;
    if (c->self_id && readers_of(l, c->self_id) >= MAX_OF_ACCOUNT) {
        call_refuse(c, "busy", "%d long searches of this account are under way; try again in a moment", MAX_OF_ACCOUNT);
        return;
    }
    struct reader *r = l->reader_waiting < MAX_WAITING ? calloc(1, sizeof *r) : NULL;
    if (!r) {
        call_refuse(c, "busy", "too many reports are under way; try again in a moment");
        return;
    }
    r->job = *job;
    r->id = c->id;
    r->origin = c->origin;
    r->http = c->http;
    r->self_id = c->self_id;
    r->fd = -1;
    if (l->reader_count < MAX_RUNNING && !spawn(l, r)) {
        free(r);
        call_refuse(c, "busy", "no process for the report can be started: %s", strerror(errno));
        return;
    }
    if (r->pid)
        l->reader_count++;
    else
        l->reader_waiting++;
    struct reader **at = &l->readers;
    while (*at)
        at = &(*at)->next;
    *at = r;
    c->later = true;
}

bool reader_input(struct ledger *l, int fd) {
    struct reader *r = l->readers;
    while (r && (r->pid == 0 || r->fd != fd))
        r = r->next;
    if (!r)
        return false;
    for (;;) {
        if (r->cap - r->len < PIPE_READ) {
            size_t cap = r->cap ? r->cap * 2 : PIPE_READ * 2;
            char *grown = r->cap < (size_t)IPC_MAX_PAYLOAD * 2 ? realloc(r->text, cap) : NULL;
            if (!grown) {
                kill(r->pid, SIGKILL);
                r->len = 0;
                break;
            }
            r->text = grown;
            r->cap = cap;
        }
        ssize_t n = read(fd, r->text + r->len, r->cap - r->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n <= 0)
            break;
        r->len += (size_t)n;
    }
    answer(l, r);
    retire(l, r);
    return true;
}

void readers_end(struct ledger *l) {
    while (l->readers) {
        struct reader *r = l->readers;
        l->readers = r->next;
        if (r->pid) {
            kill(r->pid, SIGKILL);
            while (waitpid(r->pid, NULL, 0) < 0 && errno == EINTR)
                ;
            close(r->fd);
        }
        free(r->text);
        free(r);
    }
    l->reader_count = l->reader_waiting = 0;
}
