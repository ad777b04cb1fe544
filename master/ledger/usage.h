/* Reports of usage: what was asked, and the two ways to answer it: a list of records, or sums of them. All of it runs
 * in the ledger itself or in a forked reader, on the store that it is given. */
#ifndef TG_LEDGER_USAGE_H
#define TG_LEDGER_USAGE_H

#include "master/ledger/ledger.h"
#include "master/ledger/span.h"
#include "proto/json.h"

#define DAY_MS 86400000ll
enum by { BY_NONE, BY_DAY, BY_MODEL, BY_ACCOUNT };
struct usage_query {
    uint32_t account_id, key_id, model_id; /* 0: any */
    uint64_t account_head, key_head;       /* newest record of that account, key */
    uint32_t model_len;
    char model[SHM_MODEL_NAME + 1];        /* as asked for; len 0: any */
    int64_t since_ms, until_ms, late_ms;   /* [since, until) */
    uint64_t limit, cursor;                /* cursor: records below this id; 0: from the newest */
    enum by by;
    uint32_t numbers;                      /* amounts as JSON numbers */
    uint32_t family;                       /* the model asked for is one of a family: only records can tell */
};
/* Is it among what was asked for? A search (below) says so itself. */
bool usage_matches(const struct usage_query *q, const struct usage_item *u);

/* ---- usage.c: how they look; quoted: amounts as texts ---- */
void usage_write_item(const struct ledger *l, struct json_writer *w, const struct usage_item *u, bool quoted);
/* The members that a record and a sum have in common: tokens, images, amounts. */
void usage_write_sums(const struct ledger *l, struct json_writer *w, const struct row_daily *d, bool quoted);

/* ---- search.c: the records that match, newest first ---- */
/* Where it is: what it follows, and what the index says of the span that it is in. */
struct search {
    const struct ledger *l;
    const struct usage_query *q;
    struct store *s;
    struct usage_reader r;
    uint64_t top;            /* what is asked for is not above it */
    uint64_t next;           /* the next to look at; 0: none */
    uint64_t steps;          /* what it has cost so far: records, and spans left out */
    uint64_t span;           /* UINT64_MAX: in none yet */
    bool indexed;
    uint64_t low;            /* the oldest record in it of what the search follows */
    uint64_t model_low, model_high; /* between them all that can be of the model; high below low: none */
};
/* Within a read. search_end belongs to it, whatever comes back. */
enum store_err search_begin(struct search *w, const struct ledger *l, struct store *s, const struct usage_query *q);
/* The next record that matches. STORE_NONE: there is none; or, where w->steps is above max_steps, it is given up. */
enum store_err search_next(struct search *w, uint64_t max_steps, struct usage_item *u);
void search_end(struct search *w);

/* Writes {"usage":[…],"next_cursor"}. */
enum listed { LIST_DONE, LIST_LONG /* more than max_steps were needed */, LIST_BROKEN };
enum listed usage_list(const struct ledger *l, struct store *s, const struct usage_query *q, struct json_writer *out,
                       uint64_t max_steps);

/* ---- sum.c ---- */
/* Writes {"usage":[…]}, a sum for each day, model or account. Within a read, which it renews on the way.
 * *no_memory: not all is in it. */
enum store_err usage_sum(const struct ledger *l, struct store *s, const struct usage_query *q, struct json_writer *w,
                         bool *no_memory);

#endif
