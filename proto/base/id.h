/* Ids as the outside sees them: a prefix and the permanent number in base 36, at least eight digits: acct_0000002s,
 * key_000000zz. */
#ifndef TG_ID_H
#define TG_ID_H

#include <stddef.h>
#include <stdint.h>

enum { ID_BYTES = 24 };

/* Writes the text (not NUL-terminated) and returns its length; prefix has at most 8 characters. */
size_t id_write(char out[ID_BYTES], const char *prefix, uint64_t id);

#endif
