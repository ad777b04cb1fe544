/* What happens when an assertion fails: the last words, one line on standard error, abort.
 * Nothing here allocates, for the heap may be what is broken. A failing CHECK is always a fault of this program. */
#include "proto/base/check.h"

#include <stdio.h>
#include <stdlib.h>

void (*check_last_words)(const char *text);

_Noreturn void check_failed(const char *expr, const char *file, int line) {
    char text[512];
    int n = snprintf(text, sizeof text, "assertion failed: %s (%s:%d)\n", expr, file, line);
    if (n >= (int)sizeof text)
        text[sizeof text - 2] = '\n';
    void (*hook)(const char *) = check_last_words;
    check_last_words = NULL; /* an assertion that fails within the hook must not come back here */
    if (hook)
        hook(text);
    fputs(text, stderr); /* unbuffered */
    abort();
}
