/* See rollups.h. */
#include "master/ledger/rollups.h"

#include <stdlib.h>

void daily_add(struct row_daily *to, const struct row_daily *from) {
    to->requests += from->requests;
    to->input += from->input;
    to->cached += from->cached;
    to->cache_write += from->cache_write;
    to->output += from->output;
    to->reasoning += from->reasoning;
    to->images += from->images;
    to->cost = (int64_t)((uint64_t)to->cost + (uint64_t)from->cost);
    to->uncollected = (int64_t)((uint64_t)to->uncollected + (uint64_t)from->uncollected);
    if (from->last_usage > to->last_usage)
        to->last_usage = from->last_usage;
}

void daily_add_item(struct row_daily *d, const struct usage_item *u) {
    const uint64_t *n = u->meters.n;
    daily_add(d, &(struct row_daily){
        .requests = 1, .input = meters_input(&u->meters), .cached = n[METER_CACHED_INPUT],
        .cache_write = n[METER_CACHE_WRITE] + n[METER_CACHE_WRITE_1H], .output = meters_output(&u->meters),
        .reasoning = n[METER_REASONING], .images = n[METER_IMAGES], .cost = u->charge, .uncollected = u->uncollected,
        .last_usage = u->id,
    });
}

static struct rollup *rollup_place(struct rollup *at, uint32_t mask, uint32_t account_id, uint32_t day,
                                   uint32_t model_id) {
    uint64_t h =
        ((uint64_t)account_id << 32 | model_id) * 0x9e3779b97f4a7c15ull ^ (uint64_t)day * 0xc2b2ae3d27d4eb4full;
    uint32_t i = (uint32_t)(h >> 32) & mask;
    while (at[i].used && (at[i].account_id != account_id || at[i].day != day || at[i].model_id != model_id))
        i = (i + 1) & mask;
    return &at[i];
}

static bool rollups_grow(struct rollups *r) {
    uint32_t mask = r->at ? r->mask * 2 + 1 : 4095;
    struct rollup *at = calloc((size_t)mask + 1, sizeof *at);
    if (!at)
        return false;
    for (uint32_t i = 0; r->at && i <= r->mask; i++)
        if (r->at[i].used)
            *rollup_place(at, mask, r->at[i].account_id, r->at[i].day, r->at[i].model_id) = r->at[i];
    free(r->at);
    r->at = at;
    r->mask = mask;
    return true;
}

struct rollup *rollups_at(struct rollups *r, uint32_t account_id, uint32_t day, uint32_t model_id) {
    if ((!r->at || r->count > r->mask / 2) && !rollups_grow(r))
        return NULL;
    struct rollup *u = rollup_place(r->at, r->mask, account_id, day, model_id);
    if (!u->used) {
        *u = (struct rollup){ .account_id = account_id, .day = day, .model_id = model_id, .used = 1 };
        r->count++;
    }
    return u;
}

void rollups_clear(struct rollups *r) {
    if (r->mask > 65535) { /* one burst should not be paid for ever after */
        free(r->at);
        *r = (struct rollups){ 0 };
    } else if (r->count > 0) {
        memset(r->at, 0, ((size_t)r->mask + 1) * sizeof *r->at);
    }
    r->count = 0;
}

struct id_key daily_key(uint32_t account_id, uint32_t day, uint32_t model_id) {
    struct id_key k = { .len = 12 };
    be32_put(k.bytes, account_id);
    be32_put(k.bytes + 4, day);
    be32_put(k.bytes + 8, model_id);
    return k;
}

bool rollups_add(struct rollups *r, const struct usage_item *u) {
    uint32_t day = day_of(u->time_ms);
    struct rollup *own = rollups_at(r, u->account_id, day, u->model_id);
    if (own)
        daily_add_item(&own->add, u);
    struct rollup *all = own ? rollups_at(r, 0, day, u->model_id) : NULL; /* which may move `own` */
    if (all)
        daily_add_item(&all->add, u);
    return all;
}
