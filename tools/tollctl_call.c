/* tollctl's calls: one line of JSON to the control socket, one back (docs/rpc.md); and how a refusal ends. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "proto/base/check.h"
#include "tools/tollctl.h"

enum { MAX_LINE = 64 << 20 };

static int fd = -1;
static struct buf in; /* what came */

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

/* A refused configuration has an error a line. */
static void say(struct slice message) {
    while (message.len > 0) {
        const char *end = memchr(message.ptr, '\n', message.len);
        size_t len = end ? (size_t)(end - message.ptr) : message.len;
        fprintf(stderr, "tollctl: %.*s\n", SLICE_ARG(print_clean(slice_of(message.ptr, len), &ctl.arena)));
        message = slice_from(message, len + (end != NULL));
    }
}

_Noreturn void refuse(struct slice code, struct slice message) {
    if (ctl.json) {
        struct buf out;
        struct json_writer w;
        buf_init(&out, &ctl.pages, 1 << 20);
        jw_init(&w, &out);
        ipc_write_error(&w, code, message);
        printf("%.*s\n", SLICE_ARG(buf_slice(&out)));
        fflush(stdout);
    }
    say(message);
    exit(1);
}
_Noreturn void refuse_errno(const char *code, const char *what) {
    char text[512];
    int n = snprintf(text, sizeof text, "%.400s: %s", what, strerror(errno));
    refuse(slice_str(code), slice_of(text, (size_t)n));
}

/* ---- the document ------------------------------------------------------------------------------------------------ */

static void write_member(struct json_writer *w, const char *name, size_t len, const char *value, bool flag) {
    char key[32];
    snprintf(key, sizeof key, "%.*s", (int)len, name);
    for (char *p = key; *p; p++)
        *p = *p == '-' ? '_' : *p;
    jw_key(w, key);
    if (flag)
        jw_bool(w, true);
    else
        jw_cstr(w, value);
}

void call_begin(const struct arguments *a, struct buf *line, struct json_writer *w) {
    size_t len;
    char mark;
    buf_init(line, &ctl.pages, MAX_LINE);
    jw_init(w, line);
    jw_object(w);
    jw_key(w, "cmd");
    jw_cstr(w, a->command->cmd);
    for (unsigned i = 0; i < MAX_OPERANDS && a->operand[i]; i++) {
        const char *name = words_nth(a->command->operands, i, &len, &mark);
        if (a->command->shape != BACKUP && a->command->shape != IMPORT)
            write_member(w, name, len, a->operand[i], false);
    }
    for (unsigned i = 0; i < a->options; i++) {
        size_t n = strcspn(a->option[i].name, " !?");
        bool ours = a->command->shape == USAGE &&
                    (strncmp(a->option[i].name, "csv", n) == 0 || strncmp(a->option[i].name, "limit", n) == 0 ||
                     strncmp(a->option[i].name, "cursor", n) == 0);
        if (!ours && a->command->shape != AUDIT)
            write_member(w, a->option[i].name, n, a->option[i].value, a->option[i].name[n] == '?');
    }
}

/* ---- the socket -------------------------------------------------------------------------------------------------- */

static void connect_socket(void) {
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    if (strlen(ctl.socket) >= sizeof a.sun_path)
        usage_error("%s: the path of a socket has at most %zu bytes", ctl.socket, sizeof a.sun_path - 1);
    memcpy(a.sun_path, ctl.socket, strlen(ctl.socket));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        refuse_errno("unreachable", ctl.socket);
}

static void send_line(struct slice line) {
    while (line.len > 0) {
        ssize_t n = send(fd, line.ptr, line.len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            refuse_errno("unreachable", ctl.socket);
        line = slice_from(line, (size_t)n);
    }
}

static struct slice receive_line(void) {
    size_t seen = 0;
    for (;;) {
        char *lf = in.len > seen ? memchr(buf_ptr(&in) + seen, '\n', in.len - seen) : NULL;
        if (lf)
            return slice_of(buf_ptr(&in), (size_t)(lf - buf_ptr(&in)));
        seen = in.len;
        size_t room;
        char *to = buf_reserve(&in, 4096, &room);
        if (!to)
            refuse(SLICE("too_large"), SLICE("the answer is too large"));
        ssize_t n = recv(fd, to, room, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            refuse_errno("unreachable", ctl.socket);
        if (n == 0)
            refuse(SLICE("unreachable"), SLICE("the server closed the connection before it answered"));
        buf_commit(&in, (size_t)n);
    }
}

void call_send(struct buf *line, struct json_writer *w, struct answer *a) {
    jw_end_object(w);
    if (!buf_append(line, "\n", 1))
        refuse(SLICE("too_large"), SLICE("the command is too large"));
    if (fd < 0) {
        connect_socket();
        buf_init(&in, &ctl.pages, MAX_LINE);
    }
    arena_reset(&ctl.arena);
    buf_release(&in);
    send_line(buf_slice(line));
    wipe(buf_ptr(line), line->len);
    buf_release(line);
    struct slice text = receive_line();
    if (!json_parse(&a->json, &ctl.arena, text.ptr, text.len))
        refuse(SLICE("unreachable"), SLICE("the server's answer is not JSON"));
    a->result = json_get(&a->json, 0, "result");
    int error = json_get(&a->json, 0, "error");
    if (a->result < 0)
        refuse(json_str(&a->json, json_get(&a->json, error, "code"), &ctl.arena),
               json_str(&a->json, json_get(&a->json, error, "message"), &ctl.arena));
}

void call_end(void) {
    if (fd >= 0)
        buf_release(&in);
}
