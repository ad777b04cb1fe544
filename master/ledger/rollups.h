/* Roll-ups: what an account (0: all together) used of a model on a day. Rows of DB_DAILY hold those up to the last
 * checkpoint; a table in memory what came since, or what a report or an audit adds up for itself. */
#ifndef TG_LEDGER_ROLLUPS_H
#define TG_LEDGER_ROLLUPS_H

#include "master/ledger/pack.h"

static inline uint32_t day_of(int64_t time_ms) { return time_ms > 0 ? (uint32_t)(time_ms / 86400000) : 0; }
struct id_key daily_key(uint32_t account_id, uint32_t day, uint32_t model_id); /* of DB_DAILY */
void daily_add(struct row_daily *to, const struct row_daily *from);
void daily_add_item(struct row_daily *d, const struct usage_item *u);

/* Open addressing. Zero-initialised; the owner frees `at`. */
struct rollup { uint32_t account_id, day, model_id, used; struct row_daily add; };
struct rollups { struct rollup *at; uint32_t mask, count; };
/* Found or made; NULL: no memory. Good until the next is made. */
struct rollup *rollups_at(struct rollups *r, uint32_t account_id, uint32_t day, uint32_t model_id);
/* Adds a record to its account's and to that of all; false: no memory. */
bool rollups_add(struct rollups *r, const struct usage_item *u);
void rollups_clear(struct rollups *r);

#endif
