/* Names of the configuration and their permanent ids. */
#ifndef TG_NAMES_H
#define TG_NAMES_H

#include "master/conf.h"
#include "proto/base/arena.h"

struct names; /* a list; NULL is the empty one */

uint32_t names_find(const struct names *n, enum name_kind kind, const char *name); /* 0: unknown */
bool names_add(struct names **n, enum name_kind kind, const char *name, uint32_t id);
void names_free(struct names **n);
/* Writes the names.intern call for what is unknown into out (initialised here, the caller releases it). How many
 * names that are; -1: too many. */
int names_request(const struct names *known, const struct conf *conf, struct pages *pages, struct buf *out);
/* Learns from the answer to exactly that request. False: it is none; nothing is learnt. */
bool names_take(struct names **known, const struct conf *conf, struct pages *pages, struct slice answer);

#endif
