/* usage: what was called, newest first, or summed by day, model or account. A short list is answered in the ledger
 * itself; one that turns out long, and every sum, runs in a forked reader. */
#include "master/ledger/usage.h"
#include "master/ledger/key.h"
#include "master/ledger/reader.h"

enum { LIMIT_DEFAULT = 50, LIMIT_MAX = 10000, STEPS_IN_PLACE = 4000 };
_Static_assert(sizeof(struct usage_query) <= sizeof ((struct reader_job *)0)->args, "a query fits a job");

/* ---- as JSON ----------------------------------------------------------------------------------------------------- */

static const char *const dialect_names[DIALECT_COUNT] = { "openai", "openai-responses", "anthropic", "gemini", "echo" };

static struct slice model_text(const struct ledger *l, const struct usage_item *u) {
    struct slice name = slice_str(ledger_name(l, NAME_MODEL, u->model_id));
    return name.len == 0 || name.ptr[name.len - 1] == '*' ? u->model : name;
}

/* cost: what was charged; uncollected: what it cost beyond that. So the costs of an account add up to what left its
 * balance. */
void usage_write_sums(const struct ledger *l, struct json_writer *w, const struct row_daily *d, bool quoted) {
    jw_count(w, "input_tokens", d->input);
    jw_count(w, "cached_tokens", d->cached);
    jw_count(w, "cache_write_tokens", d->cache_write);
    jw_count(w, "output_tokens", d->output);
    jw_count(w, "reasoning_tokens", d->reasoning);
    jw_count(w, "images", d->images);
    jw_key(w, "cost");
    jw_fixed(w, d->cost, ledger_places(l), quoted);
    jw_key(w, "uncollected");
    jw_fixed(w, d->uncollected, ledger_places(l), quoted);
}

void usage_write_item(const struct ledger *l, struct json_writer *w, const struct usage_item *u, bool quoted) {
    struct row_daily sums = { 0 };
    daily_add_item(&sums, u);
    jw_object(w);
    jw_key(w, "id");
    jw_id(w, ID_USAGE, u->id);
    jw_key(w, "time");
    jw_time(w, u->time_ms, true);
    jw_key(w, "request_id");
    jw_str(w, u->request_id);
    jw_key(w, "account");
    jw_id(w, ID_ACCOUNT, u->account_id);
    jw_key(w, "key");
    jw_id(w, ID_KEY, u->key_id);
    jw_key(w, "model");
    jw_str(w, model_text(l, u));
    jw_key(w, "upstream");
    if (u->upstream_id)
        jw_cstr(w, ledger_name(l, NAME_UPSTREAM, u->upstream_id));
    else
        jw_null(w);
    jw_key(w, "dialect");
    jw_cstr(w, u->dialect < DIALECT_COUNT ? dialect_names[u->dialect] : "");
    jw_count(w, "status", u->status);
    jw_key(w, "stream");
    jw_bool(w, u->stream);
    usage_write_sums(l, w, &sums, quoted);
    jw_key(w, "estimated");
    jw_bool(w, (u->flags & RECORD_ESTIMATED) != 0);
    jw_count(w, "ttfb_ms", u->ttfb_ms);
    jw_count(w, "duration_ms", u->duration_ms);
    jw_end_object(w);
}

/* ---- what is asked for ------------------------------------------------------------------------------------------- */

static bool model_filter(struct call *c, struct usage_query *q) {
    struct slice text;
    enum arg got = call_text(c, "model", SHM_MODEL_NAME, &text);
    if (got != ARG_OK)
        return got == ARG_ABSENT;
    const struct snap_model *m;
    q->model_id = ledger_name_id(c->l, NAME_MODEL, text);
    if (!q->model_id && (m = snap_find_model(c->l->conf, text))) {
        q->model_id = m->id;
        q->family = m->flags & MODEL_FAMILY ? 1 : 0;
    }
    if (!q->model_id)
        q->family = 1; /* one that is configured no more, or never was: by its name in the records */
    q->model_len = (uint32_t)text.len;
    memcpy(q->model, text.ptr, text.len);
    return true;
}

/* The newest record of a key that has no place: nothing has come since its row was written. */
static uint64_t stored_head(struct ledger *l, uint32_t key_id) {
    struct id_key key = key32(key_id);
    struct row_spent spent = { 0 };
    struct slice v;
    if (store_read_begin(&l->store) != STORE_OK)
        return 0;
    if (store_get(&l->store, DB_SPENT, ID_SLICE(key), &v) == STORE_OK)
        (void)row_read(v, &spent, sizeof spent, NULL);
    store_read_end(&l->store);
    return spent.last_usage;
}

static bool who_filter(struct call *c, struct usage_query *q) {
    uint32_t index;
    if (json_get(&c->json, 0, "account") >= 0) {
        if ((index = call_account(c, "account")) == NO_INDEX)
            return false;
        q->account_id = c->l->accounts[index].id;
        q->account_head = c->l->accounts[index].last_usage;
    }
    if (json_get(&c->json, 0, "key") < 0)
        return true;
    if (!call_key(c, "key", &q->key_id, &index))
        return false;
    struct key_draft d;
    if (!key_draft_load(c, q->key_id, &d))
        return false;
    if (q->account_id && q->account_id != d.row.account_id)
        return true; /* none: there is no head to begin at */
    q->account_id = d.row.account_id;
    q->key_head = index != NO_INDEX ? c->l->keys[index].last_usage : stored_head(c->l, q->key_id);
    return true;
}

static bool page_arguments(struct call *c, struct usage_query *q) {
    struct slice text;
    if (call_count(c, "limit", &q->limit) == ARG_BAD)
        return false;
    if (q->limit == 0 || q->limit > LIMIT_MAX)
        q->limit = LIMIT_MAX;
    enum arg got = call_text(c, "cursor", ID_TEXT, &text);
    if (got == ARG_OK && !id_read(text, ID_USAGE, &q->cursor)) {
        call_refuse(c, "invalid_value", "cursor: give the next_cursor of the page before");
        return false;
    }
    return got != ARG_BAD;
}

static bool by_argument(struct call *c, struct usage_query *q) {
    struct slice by;
    enum arg got = call_text(c, "by", 16, &by);
    if (got != ARG_OK)
        return got == ARG_ABSENT;
    q->by = slice_is(by, "day")       ? BY_DAY
            : slice_is(by, "model")   ? BY_MODEL
            : slice_is(by, "account") ? BY_ACCOUNT
                                      : BY_NONE;
    if (q->by == BY_NONE)
        call_refuse(c, "invalid_value", "by: day, model or account");
    return q->by != BY_NONE;
}

/* ---- the call ---------------------------------------------------------------------------------------------------- */

static void usage_job(struct reader_job *job) {
    struct usage_query q;
    struct json_writer w;
    memcpy(&q, job->args, sizeof q);
    jw_init(&w, &job->out);
    bool no_memory = false;
    enum store_err err = store_read_begin(&job->store);
    if (err == STORE_OK) {
        if (q.by != BY_NONE)
            err = usage_sum(job->l, &job->store, &q, &w, &no_memory);
        else if (usage_list(job->l, &job->store, &q, &w, UINT64_MAX) == LIST_BROKEN)
            err = STORE_BROKEN;
        store_read_end(&job->store);
    }
    if (no_memory)
        job_refuse(job, "internal", "out of memory");
    if (err != STORE_OK)
        job_refuse(job, "internal", "the usage records cannot be read: %s", job->store.message);
    if (w.failed)
        job_refuse(job, "too_large", "the answer is too large; ask for less at a time");
}

/* false: it is long. */
static bool list_in_place(struct call *c, const struct usage_query *q) {
    struct buf out;
    struct json_writer w;
    if (!call_read(c))
        return true;
    buf_init(&out, &c->l->pages, IPC_MAX_PAYLOAD);
    jw_init(&w, &out);
    enum listed got = usage_list(c->l, &c->l->store, q, &w, STEPS_IN_PLACE);
    store_read_end(&c->l->store);
    if (got == LIST_DONE && !w.failed)
        jw_raw(c->w, buf_slice(&out));
    if (got == LIST_BROKEN)
        call_refuse(c, "internal", "the usage records cannot be read: %s", c->l->store.message);
    buf_release(&out);
    return got != LIST_LONG;
}

void call_usage(struct call *c) {
    struct reader_job job = { .fn = usage_job };
    struct usage_query q = {
        .limit = LIMIT_DEFAULT, .since_ms = INT64_MIN, .until_ms = INT64_MAX, .late_ms = c->l->late_ms,
        .numbers = c->numbers
    };
    if (!who_filter(c, &q) || !model_filter(c, &q) || !by_argument(c, &q) || !page_arguments(c, &q) ||
        call_time(c, "since", &q.since_ms) == ARG_BAD || call_time(c, "until", &q.until_ms) == ARG_BAD)
        return;
    if (q.by == BY_NONE && q.limit <= STEPS_IN_PLACE / 2 && list_in_place(c, &q))
        return;
    memcpy(job.args, &q, sizeof q);
    reader_start(c, &job);
}
