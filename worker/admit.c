/* Admission: model and plan, then concurrency, requests, tokens, room in the ring, and the hold. A refusal undoes what
 * came before it.
 *
 * The hold bounds what the call can cost: input by its bytes at the dearest input rate, output by the limit sent
 * upstream. Where the client named no limit, hold_share of what is available pays; where it named one, the whole may. A
 * limit that money cut goes upstream and is told in X-Tollgate-Max-Tokens; below a floor the answer is 402. */
#include "worker/exchange.h"

#include <stdio.h>

enum { PER_MESSAGE = 8, PER_TOOL = 16, PER_CALL = 64, FLOOR_TOKENS = 256, TPM_OUTPUT_MAX = 1024, HOLD_TRIES = 64 };

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static struct shm_key_words *words(const struct exchange *ex) { return &ex->worker->shm.key_words[ex->key_index]; }
static _Atomic uint64_t *rpm_word(const struct exchange *ex) {
    return ex->image_call ? &words(ex)->images_tat : &words(ex)->rpm_tat;
}
static uint64_t ticks(const struct exchange *ex) { return rate_now(&ex->worker->shm, ex->worker->loop.now_ns); }

static void view(struct limit_view *v, _Atomic uint64_t *word, const struct rate *r, const struct exchange *ex) {
    struct rate_view now;
    v->limit = r->limit;
    if (r->limit == SNAP_NO_LIMIT)
        return;
    rate_peek(word, r, ticks(ex), &now);
    v->remaining = now.remaining;
    uint64_t reset_ms = now.reset_ticks / (RATE_TICKS_PER_S / 1000) + 1;
    v->reset_s = now.reset_ticks == 0 ? (uint64_t)(ex->worker->loop.wall_ms + 999) / 1000
                                      : ((uint64_t)ex->worker->loop.wall_ms + reset_ms + 999) / 1000;
}

void admit_limits_view(struct exchange *ex) {
    view(&ex->rpm_view, rpm_word(ex), &ex->rpm, ex);
    view(&ex->tpm_view, &words(ex)->tpm_tat, &ex->tpm, ex);
    ex->limits_shown = true;
}

static void give_back(struct exchange *ex) {
    if (ex->rpm_taken)
        rate_correct(rpm_word(ex), &ex->rpm, 1, 0, ex->rpm_set, ticks(ex));
    if (ex->tpm_taken)
        rate_correct(&words(ex)->tpm_tat, &ex->tpm, ex->tpm_charged, 0, ex->tpm_set, ticks(ex));
    ex->rpm_taken = ex->tpm_taken = false;
    admit_limits_view(ex);
}

static void refuse_rate(struct exchange *ex, const char *which, bool never, uint64_t wait_ticks) {
    enum { TICKS_PER_MS = RATE_TICKS_PER_S / 1000 };
    char text[160];
    COUNT(ex->worker->counters, requests_limited, 1);
    if (never)
        snprintf(text, sizeof text, "This request alone is larger than the limit of %s per minute.", which);
    else
        snprintf(text, sizeof text,
                 "Rate limit reached for %s per minute. Please slow down and retry after the time in Retry-After.",
                 which);
    struct reply_fault f = { .status = 429,
                             .code = "rate_limit_exceeded",
                             .param = slice_str(which),
                             .message = slice_str(text),
                             .never = never,
                             .retry_after_ms = never ? 0 : (wait_ticks + TICKS_PER_MS - 1) / TICKS_PER_MS };
    reply_fault(ex, &f);
}

static bool take_rates(struct exchange *ex) {
    struct rate_view v = { 0 };
    enum rate_result r = RATE_OK;
    if (ex->rpm.limit != SNAP_NO_LIMIT) {
        r = rate_take(rpm_word(ex), &ex->rpm, 1, ticks(ex), &ex->rpm_set, &v);
        ex->rpm_taken = r == RATE_OK;
    }
    if (r != RATE_OK) {
        refuse_rate(ex, "requests", r == RATE_NEVER, v.retry_after_ticks);
        return false;
    }
    if (ex->image_call || ex->task == &task_count)
        return true; /* pictures have a limit of their own, counting costs nobody tokens */
    uint64_t output = ex->req.has_limit ? (ex->req.limit < TPM_OUTPUT_MAX ? ex->req.limit : TPM_OUTPUT_MAX) : 0;
    ex->tpm_charged = (ex->req.prompt_bytes + 3) / 4 + output;
    if (ex->tpm.limit != SNAP_NO_LIMIT) {
        r = rate_take(&words(ex)->tpm_tat, &ex->tpm, ex->tpm_charged, ticks(ex), &ex->tpm_set, &v);
        ex->tpm_taken = r == RATE_OK;
    }
    if (r != RATE_OK) {
        give_back(ex);
        refuse_rate(ex, "tokens", r == RATE_NEVER, v.retry_after_ticks);
        return false;
    }
    return true;
}

/* ---- model ------------------------------------------------------------------------------------------------------- */

const struct snap_group *admit_group(const struct exchange *ex) {
    const struct snap *s = ex->snapshot->snap;
    return ex->known_key ? ex->group : snap_group_by_id(s, s->signup_group_id);
}

/* Lists name models by their own names or by an alias: a model is allowed by either. A family has many names and is
 * allowed by the one it is called by. */
bool admit_globs(const struct exchange *ex, const struct snap_model *m, struct slice name, bool *plan) {
    const struct snap *s = ex->snapshot->snap;
    struct slice own = m->flags & MODEL_FAMILY ? name : snap_text(s, m->name);
    struct snap_str group = admit_group(ex)->models;
    *plan = true;
    if (!snap_globs_allow(s, group, name) && !snap_globs_allow(s, group, own))
        return false;
    if (!ex->known_key)
        return true;
    struct snap_str tier = ex->tier->models;
    const char *key = ex->key.models == 0 ? NULL : shm_text(&ex->worker->shm, ex->key.models);
    *plan = (snap_globs_allow(s, tier, name) || snap_globs_allow(s, tier, own)) &&
            (key == NULL || shm_globs_allow(key, name) || shm_globs_allow(key, own));
    return true;
}

/* A model answers at the path of its kind. */
static bool fits(struct exchange *ex, const struct snap_model *m) {
    static const char *const said[] = { [MODEL_CHAT] = "is for conversations: use /v1/chat/completions",
                                        [MODEL_EMBEDDING] = "makes embeddings: use /v1/embeddings",
                                        [MODEL_IMAGE] = "makes pictures: use /v1/images/generations",
                                        [MODEL_OTHER] = "cannot be used at this path" };
    bool ok = ex->task == &task_embeddings ? m->kind == MODEL_EMBEDDING
              : ex->task == &task_images   ? m->kind == MODEL_IMAGE
                                           : m->kind != MODEL_EMBEDDING && m->kind != MODEL_IMAGE;
    if (!ok)
        reply_error(ex, 400, "invalid_value", "model", "This model %s.", said[m->kind]);
    return ok;
}

/* A name as a sentence shows it: not too long, and not ended by a NUL in it. */
struct shown { char text[100]; };

static struct shown shown(struct slice name) {
    struct shown s = { "" };
    for (size_t i = 0; i < name.len && i < sizeof s.text - 1; i++)
        s.text[i] = name.ptr[i] ? name.ptr[i] : '?';
    return s;
}

const struct snap_model *admit_find(struct exchange *ex, struct slice name) {
    const struct snap_model *m = snap_find_model(ex->snapshot->snap, name);
    bool plan;
    if (m == NULL || m->routes.count == 0 || !admit_globs(ex, m, name, &plan)) {
        reply_error(ex, 404, "model_not_found", "model",
                    "The model '%s' does not exist or you do not have access to it.", shown(name).text);
        return NULL;
    }
    if (!plan) {
        reply_error(ex, 403, "model_not_allowed", "model", "The model '%s' is not available on your plan.",
                    shown(name).text);
        return NULL;
    }
    return m;
}

bool admit_model(struct exchange *ex, struct slice name) {
    const struct snap_model *m = admit_find(ex, name);
    if (m == NULL || !fits(ex, m))
        return false;
    ex->model = m;
    ex->model_len = (uint16_t)(name.len < SHM_MODEL_NAME ? name.len : SHM_MODEL_NAME);
    memcpy(ex->model_name, name.ptr, ex->model_len);
    if (m->flags & MODEL_FAMILY)
        ex->family_rest = slice_from(name, m->name.len);
    return true;
}

/* ---- the hold ---------------------------------------------------------------------------------------------------- */

struct bound {
    uint64_t in, n;       /* input tokens at most; answers */
    uint64_t pictures;
    struct prices dear;   /* METER_INPUT and METER_OUTPUT at the dearest rates */
    uint32_t ratio;
    bool tokens;
};

static int64_t amount(const struct bound *b, uint64_t out) {
    struct meters m = { { 0 } };
    m.n[METER_INPUT] = b->in;
    m.n[METER_IMAGES] = b->pictures;
    m.n[METER_OUTPUT] = out > UINT64_MAX / b->n ? UINT64_MAX : out * b->n;
    return b->tokens ? price_cost_tokens(&m, &b->dear, b->ratio) : price_cost_nano(&m, &b->dear, 0, b->ratio);
}

/* The most output tokens that the money pays, at most `most`; 0 if not even the input. */
static uint64_t affordable(const struct bound *b, int64_t money, uint64_t most) {
    if (amount(b, most) <= money)
        return most;
    if (amount(b, 0) > money)
        return 0;
    uint64_t low = 0, high = most;
    while (low < high) { /* amount grows with its argument: bisect */
        uint64_t mid = low + (high - low + 1) / 2;
        if (amount(b, mid) <= money)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

static struct bound bound_of(const struct exchange *ex, bool tokens) {
    const struct snap_model *m = ex->model;
    const struct pass_request *r = &ex->req;
    struct bound b = { .n = r->n, .ratio = ex->group->ratio_millionths, .tokens = tokens };
    const struct prices *p = b.tokens ? &m->weights : &m->prices;
    b.in = r->prompt_bytes + (uint64_t)r->messages * PER_MESSAGE + (uint64_t)r->tools * PER_TOOL + PER_CALL;
    if (ex->task == &task_count)
        return b; /* free */
    uint64_t context = m->context;
    uint64_t inputs = ex->task == &task_embeddings ? ex->call.inputs : ex->legacy ? r->messages : 1;
    if (__builtin_mul_overflow(context, inputs, &context))
        context = 0; /* each input has one of its own */
    if (context > 0 && (r->media > 0 || r->references > 0 || b.in > context))
        b.in = context; /* what a picture or a link becomes is the provider's to say: the model's context bounds it */
    b.dear.per_million[METER_INPUT] = price_dearest_input(p);
    b.dear.per_million[METER_OUTPUT] = price_dearest_output(p);
    b.pictures = ex->image_call ? ex->call.n : 0;
    b.dear.per_million[METER_IMAGES] = ex->by_picture && !b.tokens ? ex->picture_price : p->per_million[METER_IMAGES];
    return b;
}

struct purse {
    int64_t available;   /* the least of account, key limit and cap */
    int64_t share;       /* what a call without a limit of its own may take */
    const char *code, *text; /* text NULL: it is the cap */
};

int64_t admit_cap(const struct exchange *ex, const struct snap_model *m, const char **whose) {
    const struct shm *shm = &ex->worker->shm;
    int64_t cap = ex->snapshot->snap->unit_tokens ? SNAP_NO_AMOUNT : m->call_cap_nano, own;
    *whose = "by the operator";
    if (!ex->account.has_caps)
        return cap;
    if (shm_cap_find(shm, ex->key.account, m->id, &own) && own < cap) {
        cap = own;
        *whose = "for this account";
    }
    if (shm_cap_find(shm, ex->key_index | SHM_CAP_KEY, m->id, &own) && own < cap) {
        cap = own;
        *whose = "for this API key";
    }
    return cap;
}

static struct purse purse_of(const struct exchange *ex) {
    const struct shm *shm = &ex->worker->shm;
    struct purse p = { .code = "insufficient_balance",
                       .text = "You have insufficient balance for this request. Please add credit to your account." };
    p.available = atomic_load_explicit(&shm->account_words[ex->key.account].available, memory_order_relaxed);
    int64_t key = ex->key.capped ? atomic_load_explicit(&words(ex)->available, memory_order_relaxed) : INT64_MAX;
    if (key < p.available) {
        p.available = key;
        p.code = "key_limit_exceeded";
        p.text = "The spending limit of this API key does not allow this request.";
    }
    p.share = (int64_t)((__int128)p.available * ex->snapshot->snap->hold_share_millionths / 1000000);
    if (ex->cap < p.available) {
        p.available = ex->cap;
        p.code = "call_cap_exceeded";
        p.text = NULL;
    }
    if (ex->cap < p.share)
        p.share = ex->cap;
    return p;
}

/* Says which of the caps it is, and how high. */
static void refuse_cap(struct exchange *ex) {
    bool tokens = ex->snapshot->snap->unit_tokens;
    const char *whose;
    char amount[48];
    int64_t cap = admit_cap(ex, ex->model, &whose);
    if (cap == SNAP_NO_AMOUNT) { /* dollars_pay's: the operator's, in dollars */
        cap = ex->model->call_cap_nano;
        tokens = false;
    }
    size_t n = fixed_format(amount, cap, tokens ? 0 : 9);
    reply_error(ex, 402, "call_cap_exceeded", NULL,
                "The cost cap per call for this model, %s%.*s%s set %s, does not allow this request.",
                tokens ? "" : "$", (int)n, amount, tokens ? " tokens" : "", whose);
}

static void refuse_money(struct exchange *ex, const struct purse *p) {
    COUNT(ex->worker->counters, requests_unpaid, 1);
    if (p->text == NULL)
        refuse_cap(ex);
    else
        reply_error(ex, 402, p->code, NULL, "%s", p->text);
}

/* The operator's call_cap is in dollars: where the unit is tokens it bounds the output apart from the purse. */
static uint64_t dollars_pay(const struct exchange *ex, uint64_t most) {
    if (!ex->snapshot->snap->unit_tokens || ex->model->call_cap_nano == SNAP_NO_AMOUNT)
        return most;
    struct bound dollars = bound_of(ex, false);
    return affordable(&dollars, ex->model->call_cap_nano, most);
}

/* Finds the output limit and takes the hold; a race for the last money is run again with what is left. */
static bool take_hold(struct exchange *ex) {
    const struct snap_model *m = ex->model;
    struct bound b = bound_of(ex, ex->snapshot->snap->unit_tokens);
    bool free_call = amount(&b, 1000000) == 0;
    uint64_t most = m->max_output > 0 ? m->max_output : 1000000;
    if (ex->req.has_limit && (ex->req.limit < most || ex->task != NULL)) /* several pictures are a limit each */
        most = ex->req.limit;
    uint64_t floor = FLOOR_TOKENS + ex->req.reasoning;
    floor = floor < most && ex->task == NULL ? floor : most;
    const char *whose;
    ex->cap = admit_cap(ex, ex->model, &whose);
    /* What is held is what goes up: a limit beyond the model's own is cut like one beyond the money. */
    uint64_t wanted = ex->req.has_limit && m->max_output > 0 ? ex->req.limit : most;
    struct purse p = { .code = "call_cap_exceeded" };
    most = dollars_pay(ex, most);
    for (int i = 0; i < HOLD_TRIES && most >= floor; i++) {
        p = purse_of(ex);
        uint64_t limit = most;
        if (!free_call) {
            limit = affordable(&b, ex->req.has_limit ? p.available : p.share, most);
            if (limit < floor && affordable(&b, p.available, floor) >= floor)
                limit = floor; /* a small balance is still good for a small call */
            if (limit < floor || p.available <= 0 || amount(&b, limit) > p.available)
                break;
        }
        int64_t hold = free_call ? 0 : amount(&b, limit);
        if (money_hold(&ex->worker->money, ex->slot, hold) == MONEY_OK) {
            ex->out_limit = limit;
            ex->limit_cut = limit < wanted;
            return true;
        }
    }
    money_refuse(&ex->worker->money, ex->slot, true);
    ex->slot = NULL;
    give_back(ex);
    refuse_money(ex, &p);
    return false;
}

static void fill_usage(const struct exchange *ex, struct shm_usage *u) {
    const struct snap_model *m = ex->model;
    bool tokens = ex->snapshot->snap->unit_tokens;
    memset(u, 0, offsetof(struct shm_usage, request_id));
    u->account = ex->key.account;
    u->key = ex->key_index;
    u->account_id = ex->account.id;
    u->key_id = ex->key.id;
    u->model_id = m->id;
    u->capped = ex->key.capped;
    u->dialect = (uint8_t)ex->dialect;
    u->stream = ex->req.stream;
    u->unit_tokens = tokens;
    u->started_at_ms = ex->started_ms;
    u->prompt_tokens = (ex->req.prompt_bytes + 3) / 4;
    u->price_input = (tokens ? &m->weights : &m->prices)->per_million[METER_INPUT];
    u->price_output = (tokens ? &m->weights : &m->prices)->per_million[METER_OUTPUT];
    u->ratio_millionths = ex->group->ratio_millionths;
    u->request_id_len = ex->request_id_len;
    memcpy(u->request_id, ex->request_id, ex->request_id_len);
    u->model_len = ex->model_len;
    memcpy(u->model, ex->model_name, ex->model_len);
}

static void set_active(struct worker *w, int by) {
    w->active = (uint32_t)((int)w->active + by);
    atomic_store_explicit(&w->shm.ranges[w->heritage.range].active, w->active, memory_order_relaxed);
    COUNT(w->counters, exchanges_active, by);
}

bool admit_call(struct exchange *ex) {
    struct worker *w = ex->worker;
    if (w->draining && ex->conn != NULL && ex->conn->requests == 0) {
        reply_error(ex, 503, "shutting_down", NULL, "The server is shutting down.");
        return false;
    }
    enum shm_shed shed = worker_shed(w);
    if (shed != SHED_NO || !money_has_room(&w->money)) {
        COUNT(w->counters, requests_shed, 1);
        reply_error(ex, 503, "overloaded", NULL,
                    "The server is temporarily unable to take this request. Please try again shortly.");
        return false;
    }
    struct shm_usage usage;
    fill_usage(ex, &usage);
    ex->slot = money_begin(&w->money, &usage);
    CHECK(ex->slot != NULL);
    if (!money_concurrency(&w->money, ex->slot, ex->concurrency)) {
        money_refuse(&w->money, ex->slot, false);
        ex->slot = NULL;
        COUNT(w->counters, requests_limited, 1);
        struct reply_fault f = { .status = 429,
                                 .code = "rate_limit_exceeded",
                                 .param = SLICE("concurrency"),
                                 .retry_after_ms = 1000,
                                 .message = SLICE("Too many requests at the same time for this API key.") };
        reply_fault(ex, &f);
        return false;
    }
    struct shm_slot *slot = ex->slot;
    ex->slot = NULL; /* an error answer settles nothing */
    if (!take_rates(ex)) {
        money_refuse(&w->money, slot, true);
        return false;
    }
    ex->slot = slot;
    if (!take_hold(ex))
        return false;
    admit_limits_view(ex);
    set_active(w, 1);
    COUNT(w->counters, holds_nano, atomic_load_explicit(&ex->slot->hold, memory_order_relaxed));
    if (ex->req.stream)
        COUNT(w->counters, streams_active, 1);
    return true;
}

void admit_end(struct exchange *ex, int64_t held) {
    set_active(ex->worker, -1);
    COUNT(ex->worker->counters, holds_nano, -held);
    if (ex->req.stream)
        COUNT(ex->worker->counters, streams_active, -1);
}
