/* Usage records as they lie in the database: blocks of packed records, and how they are found again.
 *
 * A block is one value of DB_USAGE, keyed by its first record's id: a header, an array of offsets, the records, each
 * a run of varints and its two texts. A record names the one before it of the same account and of the same key, so
 * listings by either follow a chain and no index is written. Ids are consecutive. */
#ifndef TG_LEDGER_PACK_H
#define TG_LEDGER_PACK_H

#include "master/ledger/store.h"
#include "proto/price.h"
#include "shm/shm.h"

enum { PACK_BLOCK = 16000, PACK_BLOCK_RECORDS = 512, PACK_MAX_RECORD = 512 };

struct usage_item {
    uint64_t id, exchange_id;
    uint64_t prev_account, prev_key;  /* ids; 0: none */
    uint32_t account_id, key_id, model_id, upstream_id;
    int64_t charge, uncollected, cost_usd_nano;
    int64_t time_ms;                  /* when it ended, at most MAX_LATE_MS before it was committed */
    int64_t committed_ms;             /* of its block */
    struct meters meters;
    uint32_t status, flags, ttfb_ms, duration_ms;
    uint8_t dialect, stream, unit_tokens;
    struct slice request_id, model;
};

/* Collects records into blocks. */
struct packer {
    uint64_t first_id;
    uint32_t count;
    size_t bytes;
    int64_t committed_ms;
    uint16_t offset[PACK_BLOCK_RECORDS];
    uint8_t data[PACK_BLOCK];
};
void pack_begin(struct packer *p, uint64_t first_id, int64_t committed_ms);
bool pack_add(struct packer *p, const struct usage_item *u); /* u->id must be the next; false: the block is full */
size_t pack_end(struct packer *p, uint8_t *out); /* writes the block (at most PACK_BLOCK + 2 KiB), returns its length */

struct block { uint64_t first_id; uint32_t count; int64_t committed_ms; struct slice value; };
bool block_open(struct block *b, struct slice key, struct slice value);
bool block_get(const struct block *b, uint32_t i, struct usage_item *u); /* false: not a record */

/* Reads records by id within a read transaction; the block at hand is kept. */
struct usage_reader { struct store_cursor cursor; struct block block; bool open; };
enum store_err usage_open(struct usage_reader *r, struct store *s);
void usage_close(struct usage_reader *r);
enum store_err usage_get(struct usage_reader *r, uint64_t id, struct usage_item *u);
uint64_t usage_last_id(struct usage_reader *r); /* 0: there is none */
/* The id of the first record whose block was committed at or after that time; one behind the last if there is none. */
uint64_t usage_first_committed(struct usage_reader *r, int64_t time_ms);

#endif
