/* Characters of UTF-8 text that people type and read: one at a time, in lower case, fit to be shown. */
#ifndef TG_TEXT_H
#define TG_TEXT_H

#include "proto/base/slice.h"

/* The first character and its bytes (1 to 4); what is no UTF-8 counts as one byte, with character TEXT_BAD. s is not
 * empty. */
#define TEXT_BAD UINT32_MAX
size_t text_char(struct slice s, uint32_t *character);
size_t text_put(char out[4], uint32_t character); /* bytes written */
/* Whether it moves a cursor or other characters, or is not there to be seen: controls (C0, DEL, C1), joiners and marks
 * without width, what turns the direction (UAX #9), separators of lines, tags; TEXT_BAD too. */
bool text_hidden(uint32_t character);
bool text_space(uint32_t character); /* blanks of every width */
/* Simple lower case of Latin, Greek and Cyrillic letters (Unicode's one-to-one mappings); others as they are. The same
 * on every machine, whatever its locale. */
uint32_t text_lower(uint32_t character);

#endif
