/* OpenAI's usage object, chat shape, with the oddities of those who imitate it → meters. */
#ifndef TG_OPENAI_USAGE_H
#define TG_OPENAI_USAGE_H

#include "proto/json.h"
#include "proto/price.h"

/* false: no token figure in it (then meters are untouched). */
bool openai_usage_read(const struct json *j, int usage, struct meters *m);

#endif
