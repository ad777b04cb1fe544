/* tollctl: what an operator types, as calls over the control socket.
 *
 * The server decides what a command means, so this program knows no rule about money. A command is one call, but for
 * long lists, which are fetched page by page, and imports, which go in batches. Exit status: 0 done, 1 refused or
 * nobody at the socket, 2 a usage error (nothing was sent). */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "proto/base/check.h"
#include "tools/tollctl.h"

enum { USAGE_PAGE = 10000, IMPORT_BATCH = 5000 };

struct ctl ctl;

/* ---- one answer -------------------------------------------------------------------------------------------------- */

static void absolute(struct json_writer *w, const char *name, const char *path) {
    char cwd[4096];
    struct slice all = slice_str(path);
    if (path[0] != '/' && getcwd(cwd, sizeof cwd))
        all = arena_printf(&ctl.arena, "%s/%s", cwd, path);
    jw_key(w, name);
    jw_str(w, all);
}

static void print_result(const struct answer *a) {
    struct slice all = json_span(&a->json, a->result);
    fwrite(all.ptr, 1, all.len, stdout);
    putchar('\n');
}

static void run_object(const struct arguments *a) {
    struct buf line;
    struct json_writer w;
    struct answer got;
    call_begin(a, &line, &w);
    if (a->command->shape == BACKUP)
        absolute(&w, "file", a->operand[0]);
    if (a->command->shape == AUDIT && words_option(a, "file"))
        absolute(&w, "file", words_option(a, "file"));
    call_send(&line, &w, &got);
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

/* ---- lists ------------------------------------------------------------------------------------------------------- */

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
        call_begin(a, &line, &w);
        if (cursor[0]) {
            jw_key(&w, "cursor");
            jw_raw(&w, slice_str(cursor));
        }
        call_send(&line, &w, &got);
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

static const char *usage_columns(const char *by, bool csv) {
    if (!by)
        return csv ? USAGE_ALL : USAGE_SHORT;
    return strcmp(by, "day") == 0 ? "day," SUMS : strcmp(by, "model") == 0 ? "model," SUMS : "account," SUMS;
}

static void usage_page(const struct arguments *a, uint64_t limit, const char *cursor, struct answer *got) {
    struct buf line;
    struct json_writer w;
    call_begin(a, &line, &w);
    if (limit) {
        jw_key(&w, "limit");
        jw_u64(&w, limit);
    }
    if (cursor[0]) {
        jw_key(&w, "cursor");
        jw_raw(&w, slice_str(cursor));
    }
    call_send(&line, &w, got);
}

/* Without --limit: 50 records, or with --csv all of them. */
static void run_usage(const struct arguments *a) {
    const char *by = words_option(a, "by"), *given = words_option(a, "limit"), *from = words_option(a, "cursor");
    char cursor[64] = "";
    uint64_t left = 50;
    bool first = true, more = true, csv = words_option(a, "csv");
    if (csv)
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
        else if (csv)
            print_csv(&got.json, array, usage_columns(by, csv), head, &ctl.arena);
        else
            print_table(&got.json, array, usage_columns(by, csv), head, &ctl.arena);
        left -= json_size(&got.json, array) < left ? json_size(&got.json, array) : left;
        more = next_page(&got, cursor, sizeof cursor);
    }
    if (ctl.json && by)
        printf("]}\n");
    else if (ctl.json)
        printf("],\"next_cursor\":%s}\n", more && cursor[0] ? cursor : "null");
    else if (more && !csv)
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
        call_begin(a, &line, &w);
        jw_key(&w, "keys");
        jw_array(&w);
        n = read_batch(f, &w, &text, &cap);
        jw_end_array(&w);
        if (n == 0) {
            buf_release(&line);
            break;
        }
        call_send(&line, &w, &got);
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
        call_begin(a, &line, &w);
        call_send(&line, &w, &got);
        if (ctl.json)
            print_result(&got);
        else
            print_status(&got.json, got.result, &ctl.arena);
        fflush(stdout);
    } while (terminal && !ctl.json && sleep(2) == 0);
}

/* ---- main -------------------------------------------------------------------------------------------------------- */

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
    for (;;) {
        if (w.left > 1 && strcmp(w.at[0], "-s") == 0)
            ctl.socket = w.at[1], w.at += 2, w.left -= 2;
        else if (w.left > 0 && strcmp(w.at[0], "--json") == 0)
            ctl.json = true, w.at++, w.left--;
        else
            break;
    }
    if (w.left > 0 && (strcmp(w.at[0], "help") == 0 || strcmp(w.at[0], "--help") == 0 || strcmp(w.at[0], "-h") == 0)) {
        words_help();
        return 0;
    }
    words_parse(&a, &w);
    run(&a);
    call_end();
    arena_reset(&ctl.arena);
    pages_clear(&ctl.pages);
    if (fflush(stdout) != 0)
        return 1;
    return 0;
}
