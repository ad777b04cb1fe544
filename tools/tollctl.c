/* tollctl: what an operator types, as calls over the control socket.
 *
 * The grammar is one table of words, operands and options; the server decides what they mean, so this program knows
 * no rule about money. One line of JSON goes out, one comes back (docs/rpc.md); long lists are fetched page by page.
 * Exit status: 0 done, 1 refused or nobody at the socket, 2 a usage error (nothing was sent). */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "proto/base/check.h"
#include "tools/tollctl.h"

enum { MAX_LINE = 64 << 20, PAGE = 5000, USAGE_PAGE = 10000, IMPORT_BATCH = 5000, MAX_OPERANDS = 3 };

enum shape { OBJECT, LIST, USAGE, STATUS, IMPORT, BACKUP, AUDIT, TOP };

#define KEY_OPTIONS "name models limit expires rpm tpm concurrency"
static const struct command {
    const char *words, *cmd;
    const char *operands; /* names of what follows, in order; one that ends in ? may be left out */
    const char *options;  /* names; ! must be there, ? is a flag without value */
    enum shape shape;
    const char *list, *columns; /* of a LIST */
    const char *help;
} commands[] = {
    { "account create", "account.create", "", "email! tier group credit", OBJECT, 0, 0, "make an account" },
    { "account list", "account.list", "", "", LIST, "accounts", "id,email,tier,group,status,balance,held,created_at",
      "all accounts" },
    { "account show", "account.show", "account", "", OBJECT, 0, 0, "one account" },
    { "account set", "account.set", "account", "tier group", OBJECT, 0, 0, "another tier or group" },
    { "account suspend", "account.suspend", "account", "", OBJECT, 0, 0, "refuse its keys" },
    { "account resume", "account.resume", "account", "", OBJECT, 0, 0, "take its keys again" },
    { "key create", "key.create", "", "account! " KEY_OPTIONS, OBJECT, 0, 0, "make a key; it is printed this once" },
    { "key set", "key.set", "key", KEY_OPTIONS, OBJECT, 0, 0, "change it; `none` takes a limit away" },
    { "key list", "key.list", "", "account", LIST, "keys",
      "id,account,name,prefix,status,models,limit,spent,expires_at,last_used_at", "keys" },
    { "key show", "key.show", "key", "", OBJECT, 0, 0, "one key" },
    { "key revoke", "key.revoke", "key", "", OBJECT, 0, 0, "from the next request on it is refused" },
    { "key import", "key.import", "file", "account!", IMPORT, 0, 0, "keys of another gateway, one a line" },
    { "cap set", "cap.set", "who model amount", "", OBJECT, 0, 0, "what one call may cost; who: an account or a key" },
    { "cap list", "cap.list", "who?", "", LIST, "caps", "who,model,amount", "all caps" },
    { "cap remove", "cap.remove", "who model", "", OBJECT, 0, 0, "take a cap away" },
    { "credit", "credit", "account amount", "reason idempotency-key", OBJECT, 0, 0, "add to a balance" },
    { "debit", "debit", "account amount", "reason idempotency-key force?", OBJECT, 0, 0, "take from a balance" },
    { "balance", "balance", "account", "", OBJECT, 0, 0, "what is there, held, available" },
    { "usage", "usage", "", "account key model since until limit by cursor csv?", USAGE, 0, 0,
      "calls, or sums --by day|model|account" },
    { "model list", "model.list", "", "", LIST, "models",
      "id,kind,owned_by,provider,context_length,max_output_tokens,call_cap", "models" },
    { "upstream list", "upstream.list", "", "", LIST, "upstreams",
      "name,dialect,state,host,keys,keys_cooling,failures,latency_ms", "upstreams" },
    { "upstream drain", "upstream.drain", "upstream", "", OBJECT, 0, 0, "no new calls to it" },
    { "upstream enable", "upstream.enable", "upstream", "", OBJECT, 0, 0, "calls to it again" },
    { "status", "status", "", "", STATUS, 0, 0, "processes, ledger, upstreams" },
    { "top", "status", "", "", TOP, 0, 0, "status, again and again" },
    { "reload", "reload", "", "", OBJECT, 0, 0, "read the configuration again" },
    { "upgrade", "upgrade", "", "", OBJECT, 0, 0, "to the binary now at the same path" },
    { "stop", "stop", "", "", OBJECT, 0, 0, "finish what is in flight and end" },
    { "audit", "audit", "", "file", AUDIT, 0, 0, "add everything up again; exit 1 on any difference" },
    { "backup", "backup", "file", "", BACKUP, 0, 0, "a consistent copy while running" },
};

static struct {
    const char *socket;
    bool json, csv;
    int fd;
    struct pages pages;
    struct arena arena;  /* of one answer */
    struct buf in;
} ctl = { .fd = -1 };

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static _Noreturn void usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static _Noreturn void usage_error(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "tollctl: ");
    vfprintf(stderr, fmt, args);
    va_end(args);
    fprintf(stderr, "\nusage: tollctl [-s SOCKET] [--json] COMMAND; `tollctl help` lists the commands\n");
    exit(2);
}

/* Exit 1; with --json the refusal is a document on standard output too. */
static _Noreturn void refuse(struct slice code, struct slice message) {
    if (ctl.json) {
        struct buf out;
        struct json_writer w;
        buf_init(&out, &ctl.pages, 1 << 20);
        jw_init(&w, &out);
        jw_object(&w);
        jw_key(&w, "error");
        jw_object(&w);
        jw_key(&w, "code");
        jw_str(&w, code);
        jw_key(&w, "message");
        jw_str(&w, message);
        jw_end_object(&w);
        jw_end_object(&w);
        printf("%.*s\n", SLICE_ARG(buf_slice(&out)));
        fflush(stdout);
    }
    fprintf(stderr, "tollctl: %.*s\n", SLICE_ARG(print_clean(message, &ctl.arena)));
    exit(1);
}
static _Noreturn void refuse_errno(const char *code, const char *what) {
    char text[512];
    int n = snprintf(text, sizeof text, "%.400s: %s", what, strerror(errno));
    refuse(slice_str(code), slice_of(text, (size_t)n));
}

/* ---- the socket -------------------------------------------------------------------------------------------------- */

static void connect_socket(void) {
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    if (strlen(ctl.socket) >= sizeof a.sun_path)
        usage_error("%s: the path of a socket has at most %zu bytes", ctl.socket, sizeof a.sun_path - 1);
    memcpy(a.sun_path, ctl.socket, strlen(ctl.socket));
    ctl.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (ctl.fd < 0 || connect(ctl.fd, (struct sockaddr *)&a, sizeof a) < 0)
        refuse_errno("unreachable", ctl.socket);
}

static void send_line(struct slice line) {
    while (line.len > 0) {
        ssize_t n = send(ctl.fd, line.ptr, line.len, MSG_NOSIGNAL);
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
        char *lf = ctl.in.len > seen ? memchr(buf_ptr(&ctl.in) + seen, '\n', ctl.in.len - seen) : NULL;
        if (lf)
            return slice_of(buf_ptr(&ctl.in), (size_t)(lf - buf_ptr(&ctl.in)));
        seen = ctl.in.len;
        size_t room;
        char *to = buf_reserve(&ctl.in, 4096, &room);
        if (!to)
            refuse(SLICE("too_large"), SLICE("the answer is too large"));
        ssize_t n = recv(ctl.fd, to, room, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            refuse_errno("unreachable", ctl.socket);
        if (n == 0)
            refuse(SLICE("unreachable"), SLICE("the server closed the connection before it answered"));
        buf_commit(&ctl.in, (size_t)n);
    }
}

/* One call; the answer lives until the next. A refusal ends the program. */
static void call(struct buf *line, struct answer *a) {
    if (!buf_append(line, "\n", 1))
        refuse(SLICE("too_large"), SLICE("the command is too large"));
    if (ctl.fd < 0)
        connect_socket();
    arena_reset(&ctl.arena);
    buf_release(&ctl.in);
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

/* ---- words → call ------------------------------------------------------------------------------------------------ */

struct words { char **at; int left; };
struct arguments {
    const struct command *command;
    const char *operand[MAX_OPERANDS];
    struct { const char *name, *value; } option[16];
    unsigned options;
};

/* The n-th word of a list "a b! c?" → its bare name's length, and its mark; NULL: there is none. */
static const char *nth(const char *list, unsigned n, size_t *len, char *mark) {
    while (*list) {
        size_t l = strcspn(list, " ");
        if (n-- == 0) {
            *mark = list[l - 1] == '!' || list[l - 1] == '?' ? list[l - 1] : 0;
            *len = l - (*mark != 0);
            return list;
        }
        list += l + (list[l] == ' ');
    }
    return NULL;
}

static const struct command *find_command(struct words *w) {
    char two[64];
    if (w->left > 1 && snprintf(two, sizeof two, "%s %s", w->at[0], w->at[1]) < (int)sizeof two)
        for (size_t i = 0; i < ARRAY_LEN(commands); i++)
            if (strcmp(commands[i].words, two) == 0) {
                w->at += 2, w->left -= 2;
                return &commands[i];
            }
    for (size_t i = 0; w->left > 0 && i < ARRAY_LEN(commands); i++)
        if (strcmp(commands[i].words, w->at[0]) == 0) {
            w->at++, w->left--;
            return &commands[i];
        }
    if (w->left == 0)
        usage_error("a command is missing");
    usage_error("there is no command \"%s%s%s\"", w->at[0], w->left > 1 ? " " : "", w->left > 1 ? w->at[1] : "");
}

static void take_option(struct arguments *a, struct words *w) {
    const char *word = w->at[0] + 2, *equals = strchr(word, '='), *name;
    size_t len = equals ? (size_t)(equals - word) : strlen(word), n;
    char mark = 0;
    for (unsigned i = 0; (name = nth(a->command->options, i, &n, &mark)); i++)
        if (n == len && memcmp(name, word, len) == 0)
            break;
    if (!name)
        usage_error("%s: there is no option \"%s\"", a->command->words, w->at[0]);
    w->at++, w->left--;
    const char *value = mark == '?' ? "true" : equals ? equals + 1 : w->left > 0 ? w->at[0] : NULL;
    if (!value)
        usage_error("%s: --%.*s needs a value", a->command->words, (int)n, name);
    if (mark != '?' && !equals)
        w->at++, w->left--;
    for (unsigned i = 0; i < a->options; i++)
        if (a->option[i].name == name)
            usage_error("%s: --%.*s stands twice", a->command->words, (int)n, name);
    CHECK(a->options < ARRAY_LEN(a->option));
    a->option[a->options].name = name;
    a->option[a->options++].value = value;
}

static const char *option(const struct arguments *a, const char *name) {
    size_t len = strlen(name);
    for (unsigned i = 0; i < a->options; i++)
        if (strcspn(a->option[i].name, " !?") == len && strncmp(a->option[i].name, name, len) == 0)
            return a->option[i].value;
    return NULL;
}

static void parse(struct arguments *a, struct words *w) {
    unsigned operands = 0;
    size_t len;
    char mark;
    const char *name;
    a->command = find_command(w);
    while (w->left > 0) {
        if (strcmp(w->at[0], "--json") == 0) {
            ctl.json = true;
            w->at++, w->left--;
        } else if (strncmp(w->at[0], "--", 2) == 0 && w->at[0][2]) {
            take_option(a, w);
        } else {
            if (!nth(a->command->operands, operands, &len, &mark))
                usage_error("%s: \"%s\" is one too many", a->command->words, w->at[0]);
            a->operand[operands++] = w->at[0];
            w->at++, w->left--;
        }
    }
    name = nth(a->command->operands, operands, &len, &mark);
    if (name && mark != '?')
        usage_error("%s: %.*s is missing", a->command->words, (int)len, name);
    for (unsigned i = 0; (name = nth(a->command->options, i, &len, &mark)); i++) {
        char bare[32];
        snprintf(bare, sizeof bare, "%.*s", (int)len, name);
        if (mark == '!' && !option(a, bare))
            usage_error("%s: --%s is missing", a->command->words, bare);
    }
}

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

/* The call's document, open for more members. */
static void begin_call(const struct arguments *a, struct buf *line, struct json_writer *w) {
    size_t len;
    char mark;
    buf_init(line, &ctl.pages, MAX_LINE);
    jw_init(w, line);
    jw_object(w);
    jw_key(w, "cmd");
    jw_cstr(w, a->command->cmd);
    for (unsigned i = 0; i < MAX_OPERANDS && a->operand[i]; i++) {
        const char *name = nth(a->command->operands, i, &len, &mark);
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

static void absolute(struct json_writer *w, const char *name, const char *path) {
    char cwd[4096];
    struct slice all = slice_str(path);
    if (path[0] != '/' && getcwd(cwd, sizeof cwd))
        all = arena_printf(&ctl.arena, "%s/%s", cwd, path);
    jw_key(w, name);
    jw_str(w, all);
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static void print_result(const struct answer *a) {
    struct slice all = json_span(&a->json, a->result);
    fwrite(all.ptr, 1, all.len, stdout);
    putchar('\n');
}

static void run_object(const struct arguments *a) {
    struct buf line;
    struct json_writer w;
    struct answer got;
    begin_call(a, &line, &w);
    if (a->command->shape == BACKUP)
        absolute(&w, "file", a->operand[0]);
    if (a->command->shape == AUDIT && option(a, "file"))
        absolute(&w, "file", option(a, "file"));
    jw_end_object(&w);
    call(&line, &got);
    int differences = json_get(&got.json, got.result, "differences");
    bool differ = a->command->shape == AUDIT && json_size(&got.json, differences) > 0;
    if (ctl.json)
        print_result(&got);
    else if (a->command->shape == STATUS || a->command->shape == AUDIT)
        print_status(&got.json, got.result, &ctl.arena);
    else
        print_object(&got.json, got.result, &ctl.arena);
    if (!ctl.json && json_get(&got.json, got.result, "key") >= 0)
        printf("\nKeep the key: it is not stored and cannot be shown again.\n");
    if (!ctl.json && a->command->shape == AUDIT && !differ)
        printf("none\n");
    if (differ)
        exit(1);
}

/* The items of a page in JSON, with commas between them and the pages. */
static void print_items(const struct json *j, int array, bool *first) {
    for (int t = json_first(j, array); t >= 0; t = json_next(j, array, t)) {
        struct slice item = json_span(j, t);
        if (!*first)
            putchar(',');
        fwrite(item.ptr, 1, item.len, stdout);
        *first = false;
    }
}

/* Whether there is another page; its cursor, as the JSON text it came as. */
static bool next_page(const struct answer *a, char *cursor, size_t n) {
    int t = json_get(&a->json, a->result, "next_cursor");
    if (t < 0 || json_is(&a->json, t, JSON_NULL))
        return false;
    struct slice s = json_span(&a->json, t);
    snprintf(cursor, n, "%.*s", SLICE_ARG(s));
    return true;
}

static void run_list(const struct arguments *a) {
    char cursor[64] = "";
    bool first = true;
    const struct command *c = a->command;
    for (bool more = true, head = true; more; head = false) {
        struct buf line;
        struct json_writer w;
        struct answer got;
        begin_call(a, &line, &w);
        if (cursor[0]) {
            jw_key(&w, "cursor");
            jw_raw(&w, slice_str(cursor));
        }
        jw_end_object(&w);
        call(&line, &got);
        int array = json_get(&got.json, got.result, c->list);
        if (ctl.json && head)
            printf("{\"%s\":[", c->list);
        if (ctl.json)
            print_items(&got.json, array, &first);
        else
            print_table(&got.json, array, c->columns, head, &ctl.arena);
        more = next_page(&got, cursor, sizeof cursor);
    }
    if (ctl.json)
        printf("]}\n");
}

/* ---- usage ------------------------------------------------------------------------------------------------------- */

#define SUMS                                                                                                           \
    "requests,input_tokens,cached_tokens,cache_write_tokens,output_tokens,reasoning_tokens,images,cost,uncollected"
#define USAGE_ALL                                                                                                      \
    "id,time,request_id,account,key,model,upstream,dialect,status,stream,input_tokens,cached_tokens,cache_write_"      \
    "tokens,output_tokens,"                                                                                            \
    "reasoning_tokens,images,cost,uncollected,estimated,ttfb_ms,duration_ms"
#define USAGE_SHORT                                                                                                    \
    "time,account,key,model,upstream,status,input_tokens,output_tokens,cost,estimated,ttfb_ms,duration_ms"

static const char *usage_columns(const char *by) {
    if (!by)
        return ctl.csv ? USAGE_ALL : USAGE_SHORT;
    return strcmp(by, "day") == 0 ? "day," SUMS : strcmp(by, "model") == 0 ? "model," SUMS : "account," SUMS;
}

static void usage_page(const struct arguments *a, uint64_t limit, const char *cursor, struct answer *got) {
    struct buf line;
    struct json_writer w;
    begin_call(a, &line, &w);
    if (limit) {
        jw_key(&w, "limit");
        jw_u64(&w, limit);
    }
    if (cursor[0]) {
        jw_key(&w, "cursor");
        jw_raw(&w, slice_str(cursor));
    }
    jw_end_object(&w);
    call(&line, got);
}

/* Without --limit: 50 records, or with --csv all of them. */
static void run_usage(const struct arguments *a) {
    const char *by = option(a, "by"), *given = option(a, "limit"), *from = option(a, "cursor");
    char cursor[64] = "";
    uint64_t left = 50;
    bool first = true, more = true;
    ctl.csv = option(a, "csv") != NULL;
    if (ctl.csv)
        left = UINT64_MAX;
    if (given && (!slice_to_u64(slice_str(given), &left) || left == 0))
        usage_error("usage: --limit %s is not a number above zero", given);
    if (from)
        snprintf(cursor, sizeof cursor, "\"%.40s\"", from);
    for (bool head = true; more && left > 0; head = false) {
        struct answer got;
        uint64_t n = left < USAGE_PAGE ? left : USAGE_PAGE;
        usage_page(a, by ? 0 : n, cursor, &got);
        int array = json_get(&got.json, got.result, "usage");
        if (ctl.json && head)
            printf("{\"usage\":[");
        if (ctl.json)
            print_items(&got.json, array, &first);
        else if (ctl.csv)
            print_csv(&got.json, array, usage_columns(by), head, &ctl.arena);
        else
            print_table(&got.json, array, usage_columns(by), head, &ctl.arena);
        left -= json_size(&got.json, array) < left ? json_size(&got.json, array) : left;
        more = next_page(&got, cursor, sizeof cursor);
    }
    if (ctl.json && by)
        printf("]}\n");
    else if (ctl.json)
        printf("],\"next_cursor\":%s}\n", more && cursor[0] ? cursor : "null");
    else if (more && !ctl.csv)
        fprintf(stderr, "more: --cursor %s\n", cursor);
}

/* ---- import ------------------------------------------------------------------------------------------------------ */

static uint64_t number(const struct answer *a, const char *name) {
    uint64_t v = 0;
    (void)json_u64(&a->json, json_get(&a->json, a->result, name), &v);
    return v;
}

/* Reads up to a batch of lines into the call. Returns how many; a blank line is none. */
static unsigned read_batch(FILE *f, struct json_writer *w, char **line, size_t *cap) {
    unsigned n = 0;
    ssize_t len;
    while (n < IMPORT_BATCH && (len = getline(line, cap, f)) >= 0) {
        struct slice s = slice_of(*line, (size_t)len);
        while (s.len > 0 && strchr(" \t\r\n", s.ptr[s.len - 1]))
            s.len--;
        s = slice_trim(s);
        if (s.len == 0)
            continue;
        jw_str(w, s);
        n++;
    }
    return n;
}

static void run_import(const struct arguments *a) {
    FILE *f = fopen(a->operand[0], "r");
    if (!f)
        refuse_errno("not_found", a->operand[0]);
    uint64_t imported = 0, skipped = 0;
    char *text = NULL;
    size_t cap = 0;
    for (unsigned n = IMPORT_BATCH; n == IMPORT_BATCH;) {
        struct buf line;
        struct json_writer w;
        struct answer got;
        begin_call(a, &line, &w);
        jw_key(&w, "keys");
        jw_array(&w);
        n = read_batch(f, &w, &text, &cap);
        jw_end_array(&w);
        jw_end_object(&w);
        if (n == 0)
            break;
        call(&line, &got);
        imported += number(&got, "imported");
        skipped += number(&got, "skipped");
    }
    if (ferror(f))
        refuse_errno("invalid_value", a->operand[0]);
    if (text)
        wipe(text, cap);
    free(text);
    fclose(f);
    if (ctl.json)
        printf("{\"imported\":%llu,\"skipped\":%llu}\n", (unsigned long long)imported, (unsigned long long)skipped);
    else
        printf("imported  %llu\nskipped   %llu\n", (unsigned long long)imported, (unsigned long long)skipped);
}

static void run_top(const struct arguments *a) {
    bool terminal = isatty(STDOUT_FILENO);
    do {
        if (terminal)
            printf("\033[H\033[2J");
        struct buf line;
        struct json_writer w;
        struct answer got;
        begin_call(a, &line, &w);
        jw_end_object(&w);
        call(&line, &got);
        if (ctl.json)
            print_result(&got);
        else
            print_status(&got.json, got.result, &ctl.arena);
        fflush(stdout);
    } while (terminal && !ctl.json && sleep(2) == 0);
}

/* ---- main -------------------------------------------------------------------------------------------------------- */

static void help(void) {
    printf("usage: tollctl [-s SOCKET] [--json] COMMAND\n\n"
           "SOCKET is the server's `control` (default: $TOLLGATE_CONTROL, else ./run/control.sock).\n"
           "An account is its id or email, a key its id or its whole text; a time is 2026-01-31, 2026-01-31T12:00:00Z "
           "or an age as 30d.\n\n");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        const struct command *c = &commands[i];
        char text[256];
        size_t at = (size_t)snprintf(text, sizeof text, "%s", c->words), len;
        char mark;
        const char *name;
        for (unsigned n = 0; (name = nth(c->operands, n, &len, &mark)); n++)
            at += (size_t)snprintf(text + at, sizeof text - at, mark ? " [%.*s]" : " %.*s", (int)len, name);
        for (unsigned n = 0; (name = nth(c->options, n, &len, &mark)); n++)
            at += (size_t)snprintf(text + at, sizeof text - at,
                                   mark == '!' ? " --%.*s V"
                                   : mark      ? " [--%.*s]"
                                               : " [--%.*s V]",
                                   (int)len, name);
        printf("  %s\n        %s\n", text, c->help);
    }
}

static void run(const struct arguments *a) {
    switch (a->command->shape) {
    case OBJECT: case STATUS: case BACKUP: case AUDIT: run_object(a); break;
    case LIST: run_list(a); break;
    case USAGE: run_usage(a); break;
    case IMPORT: run_import(a); break;
    case TOP: run_top(a); break;
    }
}

int main(int argc, char **argv) {
    struct arguments a = { 0 };
    struct words w = { argv + 1, argc - 1 };
    signal(SIGPIPE, SIG_IGN);
    ctl.socket = getenv("TOLLGATE_CONTROL");
    if (!ctl.socket || !*ctl.socket)
        ctl.socket = "./run/control.sock";
    pages_init(&ctl.pages, 64);
    arena_init(&ctl.arena, &ctl.pages, (size_t)1 << 30);
    buf_init(&ctl.in, &ctl.pages, MAX_LINE);
    for (;;) {
        if (w.left > 1 && strcmp(w.at[0], "-s") == 0)
            ctl.socket = w.at[1], w.at += 2, w.left -= 2;
        else if (w.left > 0 && strcmp(w.at[0], "--json") == 0)
            ctl.json = true, w.at++, w.left--;
        else
            break;
    }
    if (w.left > 0 && (strcmp(w.at[0], "help") == 0 || strcmp(w.at[0], "--help") == 0 || strcmp(w.at[0], "-h") == 0)) {
        help();
        return 0;
    }
    parse(&a, &w);
    run(&a);
    buf_release(&ctl.in);
    arena_reset(&ctl.arena);
    pages_clear(&ctl.pages);
    if (fflush(stdout) != 0)
        return 1;
    return 0;
}
