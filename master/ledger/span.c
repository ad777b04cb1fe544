/* See span.h. Rows are written once, from the records themselves, by the checkpoint that finds a span complete:
 * a record costs nothing at its commit, and some 0.1 µs there. */
#include "master/ledger/span.h"

#include <stdlib.h>
#include "proto/base/check.h"

enum { PLACES = 1 << 17, PARTS_OF_RECORD = 5, AT_A_TIME = 16 };
_Static_assert(SPAN_RECORDS <= UINT16_MAX + 1 && PLACES / 2 + PLACES / 4 > PARTS_OF_RECORD * SPAN_RECORDS, "it fits");
enum part_kind { PART_ALL = 1, PART_MODEL, PART_KEY };

static uint32_t place_of(const struct spans *s, uint32_t account_id, enum part_kind kind, uint32_t id) {
    uint64_t h = ((uint64_t)account_id << 32 | id) * 0x9e3779b97f4a7c15ull ^ (uint64_t)kind * 0xc2b2ae3d27d4eb4full;
    uint32_t i = (uint32_t)(h >> 40) & (PLACES - 1);
    while (s->at[i].count && (s->at[i].account_id != account_id || s->at[i].kind != kind || s->at[i].id != id))
        i = (i + 1) & (PLACES - 1);
    return i;
}

static bool count(struct spans *s, uint32_t account_id, enum part_kind kind, uint32_t id, uint16_t at) {
    struct span_count *c = &s->at[place_of(s, account_id, kind, id)];
    if (c->count == 0) {
        *c = (struct span_count){ .account_id = account_id, .kind = kind, .id = id, .first = at };
        s->used++;
    }
    c->count++;
    c->last = at;
    return s->used < PLACES / 2 + PLACES / 4;
}

bool span_take(struct spans *s, const struct usage_item *u) {
    uint16_t at = (uint16_t)(u->id % SPAN_RECORDS);
    if (!s->at && !(s->at = calloc(PLACES, sizeof *s->at)))
        return false;
    return count(s, 0, PART_ALL, 0, at) && count(s, 0, PART_MODEL, u->model_id, at) &&
           count(s, u->account_id, PART_ALL, 0, at) && count(s, u->account_id, PART_MODEL, u->model_id, at) &&
           count(s, u->account_id, PART_KEY, u->key_id, at);
}

void span_clear(struct spans *s) {
    if (s->used)
        memset(s->at, 0, PLACES * sizeof *s->at);
    s->used = 0;
}

void span_free(struct spans *s) {
    free(s->at);
    *s = (struct spans){ 0 };
}

static int in_order(const void *a, const void *b) {
    const struct span_count *x = a, *y = b;
    if (x->account_id != y->account_id)
        return x->account_id < y->account_id ? -1 : 1;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static struct id_key row_key_of(uint32_t account_id, uint64_t span) {
    struct id_key k = { .len = 12 };
    be32_put(k.bytes, account_id);
    be64_put(k.bytes + 4, span);
    return k;
}

/* The counts of accounts that get a row, in order; *n: how many. NULL: no memory. */
static struct span_count *worth_a_row(const struct spans *s, uint32_t *n) {
    struct span_count *kept = malloc((s->used + 1) * sizeof *kept);
    *n = 0;
    for (uint32_t i = 0; kept && s->at && i < PLACES; i++) {
        const struct span_count *c = &s->at[i];
        if (c->count && (c->account_id == 0 || s->at[place_of(s, c->account_id, PART_ALL, 0)].count >= SPAN_LEAST))
            kept[(*n)++] = *c;
    }
    if (*n > 1)
        qsort(kept, *n, sizeof *kept, in_order); /* PART_ALL is the first of its account */
    return kept;
}

enum store_err span_rows(struct spans *s, uint64_t span,
                         enum store_err (*each)(void *arg, struct id_key key, struct slice row), void *arg) {
    uint32_t n;
    struct span_count *c = worth_a_row(s, &n);
    uint8_t *row = malloc(sizeof(struct row_span) + (size_t)n * sizeof(struct span_part));
    enum store_err err = c && row ? STORE_OK : STORE_BROKEN;
    for (uint32_t i = 0; i < n && err == STORE_OK;) {
        const struct span_count *all = &c[i];
        struct row_span head = { .first = all->first, .last = all->last, .count = all->count };
        size_t len = sizeof head;
        for (i++; i < n && c[i].kind != PART_ALL; i++) {
            struct span_part p = { c[i].id, c[i].first, c[i].last };
            head.models += c[i].kind == PART_MODEL;
            head.keys += c[i].kind == PART_KEY;
            memcpy(row + len, &p, sizeof p);
            len += sizeof p;
        }
        memcpy(row, &head, sizeof head);
        err = each(arg, row_key_of(all->account_id, span), slice_of((const char *)row, len));
    }
    free(row);
    free(c);
    span_clear(s);
    return err;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static enum store_err put_row(void *arg, struct id_key key, struct slice row) {
    return store_put(arg, DB_SPAN, ID_SLICE(key), row);
}

uint64_t span_written(struct store *s) {
    uint64_t n = 0;
    (void)store_meta(s, "spans", &n, sizeof n);
    return n;
}

static enum store_err write_one(struct store *s, struct spans *counts, uint64_t span) {
    struct usage_reader r;
    struct usage_item u;
    enum store_err err = usage_open(&r, s);
    for (uint64_t id = span * SPAN_RECORDS, end = id + SPAN_RECORDS; err == STORE_OK && id < end; id++) {
        err = id == 0 ? STORE_OK : usage_get(&r, id, &u);
        if (err == STORE_OK && id > 0 && !span_take(counts, &u))
            err = STORE_BROKEN;
    }
    usage_close(&r);
    return err == STORE_OK ? span_rows(counts, span, put_row, s) : err;
}

enum store_err span_write(struct store *s, uint64_t applied) {
    struct spans counts = { 0 };
    uint64_t first = span_written(s), n = first;
    enum store_err err = STORE_OK;
    while (err == STORE_OK && n < first + AT_A_TIME && (n + 1) * SPAN_RECORDS <= applied)
        err = write_one(s, &counts, n++);
    span_free(&counts);
    if (err == STORE_OK && n > first)
        err = store_put(s, DB_META, SLICE("spans"), ROW_SLICE(n));
    return err;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

bool span_find(struct store *s, uint32_t account_id, uint64_t span, struct span_view *v) {
    struct id_key key = row_key_of(account_id, span);
    struct slice value, parts;
    if (store_get(s, DB_SPAN, ID_SLICE(key), &value) != STORE_OK || !row_read(value, &v->row, sizeof v->row, &parts) ||
        parts.len != ((size_t)v->row.models + v->row.keys) * sizeof(struct span_part))
        return false;
    v->parts = (const uint8_t *)parts.ptr;
    v->base = span * SPAN_RECORDS;
    return true;
}

static struct span_part part_at(const struct span_view *v, uint32_t i) {
    struct span_part p;
    memcpy(&p, v->parts + (size_t)i * sizeof p, sizeof p);
    return p;
}

struct span_part span_model(const struct span_view *v, uint32_t i) {
    CHECK(i < v->row.models);
    return part_at(v, i);
}

bool span_key(const struct span_view *v, uint32_t key_id, struct span_part *p) {
    uint32_t low = v->row.models, high = low + v->row.keys;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        *p = part_at(v, middle);
        if (p->id == key_id)
            return true;
        if (p->id < key_id)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}
