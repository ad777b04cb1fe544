/* How many tokens a text has, without its tokenizer. See weigh.c. */
#ifndef TG_WEIGH_H
#define TG_WEIGH_H

#include "proto/base/slice.h"

enum { WEIGH_TOKEN = 100 }; /* weights are in hundredths of a token */

/* Whose tokenizer. */
enum weigh_by {
    WEIGH_OPENAI,     /* o200k: GPT-4o and later */
    WEIGH_CLAUDE,     /* Claude 3 to 4.6 */
    WEIGH_CLAUDE_NEW, /* Claude 4.7 and later */
    WEIGH_GEMINI,     /* Gemini's, which is Gemma's */
    WEIGH_KINDS
};

/* The weight of a JSON string as it stands in its text (json_raw: checked UTF-8, escapes not undone) or of any piece of
 * JSON. Linear, no memory. */
uint64_t weigh_text(struct slice text, enum weigh_by by);

#endif
