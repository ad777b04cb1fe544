/* Ids as the outside sees them: a prefix that tells what it is, and the permanent number in base 36 with leading zeros:
 * acct_0000002s, key_000000zz, use_00000000k3. */
#ifndef TG_ID_H
#define TG_ID_H

#include <stddef.h>
#include <stdint.h>

#include "proto/base/slice.h"

enum id_kind { ID_ACCOUNT, ID_KEY, ID_ENTRY, ID_USAGE };
enum { ID_TEXT = 32 };

/* Writes the text and a NUL; returns the length without it. */
size_t id_write(char out[ID_TEXT], enum id_kind kind, uint64_t id);
/* The number of a text that id_write could have written, but for the count of leading zeros; false: it is none. */
bool id_read(struct slice text, enum id_kind kind, uint64_t *id);

#endif
