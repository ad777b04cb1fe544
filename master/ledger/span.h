/* Where in the usage records an account's, a key's and a model's are: for every run of SPAN_RECORDS ids (a span) that
 * is complete, one row for each account that has SPAN_LEAST of them at least, and one for all accounts together. A
 * search uses the rows to leave out the spans that cannot hold what it looks for. Without a row it walks: an account
 * without one has few records there. */
#ifndef TG_LEDGER_SPAN_H
#define TG_LEDGER_SPAN_H

#include "master/ledger/pack.h"

enum { SPAN_RECORDS = 16384, SPAN_LEAST = 32 };

/* Ids are counted from the span's beginning. A row is followed by its models, then its keys, each by id. */
struct row_span { uint32_t models, keys; uint16_t first, last; uint32_t count; };
struct span_part { uint32_t id; uint16_t first, last; };

/* What a span's records come to. Zero-initialised; span_free gives the memory back. */
struct spans { struct span_count *at; uint32_t used; };
struct span_count { uint32_t account_id, kind, id, count; uint16_t first, last; };
bool span_take(struct spans *s, const struct usage_item *u); /* false: no memory */
/* Calls each with every row, in order of accounts, and begins anew; stops where it does not return STORE_OK. */
enum store_err span_rows(struct spans *s, uint64_t span,
                         enum store_err (*each)(void *arg, struct id_key key, struct slice row), void *arg);
void span_clear(struct spans *s);
void span_free(struct spans *s);

/* Writes the rows of the spans that records below `applied` complete, and which none have yet; at most a few at a
 * time, within a write. */
enum store_err span_write(struct store *s, uint64_t applied);
uint64_t span_written(struct store *s); /* spans below this number have their rows; within a transaction */

/* The row of an account (0: all) and span, within a transaction; false: there is none. */
struct span_view { struct row_span row; const uint8_t *parts; uint64_t base; };
bool span_find(struct store *s, uint32_t account_id, uint64_t span, struct span_view *v);
struct span_part span_model(const struct span_view *v, uint32_t i);
bool span_key(const struct span_view *v, uint32_t key_id, struct span_part *p); /* false: not in this span */

#endif
