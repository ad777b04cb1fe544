/* From figures to money: the cost of a call, its record, the corrected token limit, the counters. Each exchange is
 * settled exactly once. */
#include "worker/exchange.h"

/* What the provider's own tools cost beside the tokens. Figures that do not tell of the one search that a request
 * asked for leave it to the request. */
static uint64_t tools_cost(const struct exchange *ex) {
    uint64_t sum = 0;
    for (int k = 0; k < TOOL_KINDS; k++) {
        uint64_t uses = ex->answer.tools.n[k], cost;
        if (k == TOOL_WEB_SEARCH && uses == 0 && ex->req.searches && ex->answer.finished)
            uses = 1;
        if (__builtin_mul_overflow(uses, ex->model->tool_per_million[k], &cost) ||
            __builtin_add_overflow(sum, cost, &sum))
            return UINT64_MAX;
    }
    return sum;
}

void meter_cost(const struct exchange *ex, const struct meters *m, struct ir_cost *cost) {
    const struct snap *s = ex->snapshot->snap;
    uint32_t ratio = ex->group->ratio_millionths;
    struct prices prices = ex->model->prices;
    if (ex->by_picture)
        prices.per_million[METER_IMAGES] = ex->picture_price;
    cost->show = s->usage_cost;
    cost->tokens = s->unit_tokens;
    cost->usd_nano = price_cost_nano(m, &prices, tools_cost(ex), ratio);
    cost->cost_tokens = s->unit_tokens ? price_cost_tokens(m, &ex->model->weights, ratio) : 0;
}

static void correct_tokens(struct exchange *ex, uint64_t actual) {
    struct shm *shm = &ex->worker->shm;
    if (ex->tpm_taken)
        rate_correct(&shm->key_words[ex->key_index].tpm_tat, &ex->tpm, ex->tpm_charged, actual, ex->tpm_set,
                     rate_now(shm, ex->worker->loop.now_ns));
    ex->tpm_taken = false;
}

static void count(struct exchange *ex, const struct shm_record *r) {
    struct worker *w = ex->worker;
    COUNT(w->counters, cost_nano, r->charge);
    COUNT(w->counters, uncollected_nano, r->uncollected);
    if (r->flags & RECORD_ESTIMATED)
        COUNT(w->counters, estimates, 1);
    if (ex->try.route == NULL || ex->try.route->series >= SHM_MAX_SERIES)
        return;
    struct series_sample sample = {
        .status_class = r->flags & RECORD_CLIENT_GONE ? 0 : ex->status / 100,
        .input_tokens = meters_input(&r->meters),
        .output_tokens = meters_output(&r->meters),
        .cached_tokens = r->meters.n[METER_CACHED_INPUT],
        .reasoning_tokens = r->meters.n[METER_REASONING],
        .cost_nano = (uint64_t)r->cost_usd_nano,
        .duration_us = (w->loop.now_ns - ex->started_ns) / 1000,
        .has_ttfb = ex->first_byte_ns != 0,
        .ttfb_us = ex->first_byte_ns ? (ex->first_byte_ns - ex->started_ns) / 1000 : 0,
    };
    series_add(&w->series[ex->try.route->series], &sample);
}

static void push(struct exchange *ex, struct shm_record *r) {
    struct worker *w = ex->worker;
    struct shm_slot *slot = ex->slot;
    int64_t held = atomic_load_explicit(&slot->hold, memory_order_relaxed);
    r->flags |= ex->record_flags;
    r->status = r->flags & RECORD_CLIENT_GONE && !ex->head_sent ? 499 : (uint32_t)ex->status; /* as the access log */
    r->ended_at_us = w->loop.wall_us;
    r->duration_ms = (uint32_t)((w->loop.now_ns - ex->started_ns) / 1000000);
    r->ttfb_ms = ex->first_byte_ns ? (uint32_t)((ex->first_byte_ns - ex->started_ns) / 1000000) : 0;
    ex->settled = true;
    ex->slot = NULL;
    bool wake = money_settle(&w->money, slot, r);
    admit_end(ex, held);
    ex->meters = r->meters;
    ex->cost_amount = r->charge;
    ex->cost_usd_nano = r->cost_usd_nano;
    ex->record_flags = r->flags;
    count(ex, r);
    if (wake)
        worker_wake_ledger(w);
}

void meter_settle(struct exchange *ex, bool estimated) {
    struct shm_record r = { 0 };
    if (ex->settled || ex->slot == NULL)
        return;
    struct meters *m = &ex->answer.meters;
    if (estimated) {
        if (ex->task == NULL) /* a task has its own */
            money_estimate(&ex->slot->usage, true, ex->answer.text_bytes, m);
        r.flags |= RECORD_ESTIMATED;
    }
    struct ir_cost cost;
    meter_cost(ex, m, &cost);
    r.charge = cost.tokens ? cost.cost_tokens : cost.usd_nano;
    if (r.charge > ex->cap) { /* the provider used more than it was allowed */
        r.uncollected = r.charge - ex->cap;
        r.charge = ex->cap;
    }
    r.cost_usd_nano = cost.usd_nano;
    r.meters = *m;
    correct_tokens(ex, meters_input(m) + meters_output(m));
    push(ex, &r);
}

void meter_release(struct exchange *ex) {
    struct shm_record r = { 0 };
    if (ex->settled || ex->slot == NULL)
        return;
    correct_tokens(ex, 0);
    push(ex, &r);
}
