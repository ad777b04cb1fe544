/* tollctl's parts: tollctl.c (main, and what each shape of command does), tollctl_words.c (the grammar), tollctl_call.c
 * (calls and refusals), tollctl_print.c (tables, CSV). */
#ifndef TG_TOLLCTL_H
#define TG_TOLLCTL_H

#include "proto/ipc.h"

struct ctl {
    const char *socket;
    bool json;
    struct pages pages;
    struct arena arena; /* of one answer */
};
extern struct ctl ctl;

/* ---- tollctl_words.c ---- */
enum shape { OBJECT, LIST, USAGE, STATUS, IMPORT, BACKUP, AUDIT, TOP };
struct command {
    const char *words, *cmd;
    const char *operands; /* names of what follows, in order; one that ends in ? may be left out */
    const char *options;  /* names; ! must be there, ? is a flag without value */
    enum shape shape;
    const char *list, *columns; /* of a LIST */
    const char *help;
};
struct words { char **at; int left; };
enum { MAX_OPERANDS = 3 };
struct arguments {
    const struct command *command;
    const char *operand[MAX_OPERANDS];
    struct { const char *name, *value; } option[16]; /* name: where it stands in the command's list */
    unsigned options;
};
/* Fills arguments; a command line that is none ends the program. */
void words_parse(struct arguments *a, struct words *w);
const char *words_option(const struct arguments *a, const char *name); /* its value; NULL: not given */
/* The n-th word of a list "a b! c?" → its bare name's length, and its mark; NULL: there is none. */
const char *words_nth(const char *list, unsigned n, size_t *len, char *mark);
void words_help(void);
/* Exit 2: nothing was sent. */
_Noreturn void usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- tollctl_call.c ---- */
/* One parsed answer; the text and the tape live until the next call. */
struct answer {
    struct json json;
    int result; /* token of the result */
};
/* A command's document, open for more members. */
void call_begin(const struct arguments *a, struct buf *line, struct json_writer *w);
/* Closes and sends it, takes the answer. A refusal ends the program. */
void call_send(struct buf *line, struct json_writer *w, struct answer *a);
void call_end(void);
/* Exit 1; with --json the refusal is a document on standard output too. */
_Noreturn void refuse(struct slice code, struct slice message);
_Noreturn void refuse_errno(const char *code, const char *what);

/* ---- tollctl_print.c ---- */
/* The text without what a terminal would act on. */
struct slice print_clean(struct slice s, struct arena *arena);
/* An object as lines "name  value". */
void print_object(const struct json *j, int object, struct arena *arena);
/* An array of objects as a table of these columns ("a,b,c"), which are members; prints a heading if `head`. */
void print_table(const struct json *j, int array, const char *columns, bool head, struct arena *arena);
void print_csv(const struct json *j, int array, const char *columns, bool head, struct arena *arena);
/* status: lines, then what is an array of objects as a table of its own. */
void print_status(const struct json *j, int object, struct arena *arena);

#endif
