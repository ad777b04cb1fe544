/* See id.h. */
#include "proto/base/id.h"

#include <string.h>

#include "proto/base/check.h"

size_t id_write(char out[ID_BYTES], const char *prefix, uint64_t id) {
    enum { WIDTH = 8, MOST = 13 };
    char digits[MOST];
    size_t n = 0, at = strlen(prefix);
    CHECK(at + MOST <= ID_BYTES);
    do
        digits[n++] = "0123456789abcdefghijklmnopqrstuvwxyz"[id % 36];
    while ((id /= 36) != 0);
    memcpy(out, prefix, at);
    for (size_t pad = n; pad < WIDTH; pad++)
        out[at++] = '0';
    while (n > 0)
        out[at++] = digits[--n];
    return at;
}
