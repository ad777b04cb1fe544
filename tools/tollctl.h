/* tollctl's parts: tollctl.c (grammar, calls), tollctl_print.c (tables, CSV). */
#ifndef TG_TOLLCTL_H
#define TG_TOLLCTL_H

#include "proto/json.h"

/* One parsed answer; the text and the tape live in the arena. */
struct answer {
    struct json json;
    int result; /* token of the result; -1: refused */
};

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
