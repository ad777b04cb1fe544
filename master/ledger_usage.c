/* usage: what was called, newest first, or summed by day, model or account.
 *
 * A list follows the chain of its account or key, or walks back through all records, and leaves out what the index of
 * spans (ledger_span.h) says holds nothing for it; `until` is found by a search in the blocks' commit times (which
 * never fall), and where they pass `since` it ends. A short list is answered in the ledger itself; one that turns out
 * long, and every sum, runs in a forked reader. A sum takes whole days from the roll-ups, adds the records that no
 * checkpoint has covered, and reads records only for the broken days at its ends, for a key, or for one model of a
 * family. */
#include <stdio.h>
#include <stdlib.h>
#include "master/ledger_key.h"
#include "master/ledger_reader.h"
#include "master/ledger_text.h"
#include "master/ledger_span.h"

enum { LIMIT_DEFAULT = 50, LIMIT_MAX = 10000, STEPS_IN_PLACE = 4000, RENEW_EVERY = 200000 };
enum by { BY_NONE, BY_DAY, BY_MODEL, BY_ACCOUNT };
#define DAY_MS 86400000ll

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
    uint64_t applied_hint;
};
_Static_assert(sizeof(struct usage_query) <= sizeof ((struct reader_job *)0)->args, "a query fits a job");

static bool matches(const struct usage_query *q, const struct usage_item *u) {
    if ((q->account_id && u->account_id != q->account_id) || (q->key_id && u->key_id != q->key_id))
        return false;
    if (u->time_ms < q->since_ms || u->time_ms >= q->until_ms)
        return false;
    if (q->model_len == 0 || (q->model_id && !q->family && u->model_id == q->model_id))
        return true;
    return slice_eq(u->model, slice_of(q->model, q->model_len));
}

/* ---- one record as JSON ------------------------------------------------------------------------------------------ */

static const char *const dialect_names[DIALECT_COUNT] = { "openai", "openai-responses", "anthropic", "gemini", "echo" };

static struct slice model_text(const struct ledger *l, const struct usage_item *u) {
    struct slice name = slice_str(ledger_name(l, NAME_MODEL, u->model_id));
    return name.len == 0 || name.ptr[name.len - 1] == '*' ? u->model : name;
}

static void tokens(struct json_writer *w, const struct row_daily *d) {
    jw_key(w, "input_tokens");
    jw_u64(w, d->input);
    jw_key(w, "cached_tokens");
    jw_u64(w, d->cached);
    jw_key(w, "cache_write_tokens");
    jw_u64(w, d->cache_write);
    jw_key(w, "output_tokens");
    jw_u64(w, d->output);
    jw_key(w, "reasoning_tokens");
    jw_u64(w, d->reasoning);
    jw_key(w, "images");
    jw_u64(w, d->images);
}

/* cost: what was charged; uncollected: what it cost beyond that. So the costs of an account add up to what left its
 * balance. */
static void amounts(const struct ledger *l, struct json_writer *w, const struct row_daily *d, bool quoted) {
    jw_key(w, "cost");
    jw_fixed(w, d->cost, ledger_places(l), quoted);
    jw_key(w, "uncollected");
    jw_fixed(w, d->uncollected, ledger_places(l), quoted);
}

static void write_item(const struct ledger *l, struct json_writer *w, const struct usage_item *u, bool quoted) {
    char text[ID_TEXT], at[40];
    struct row_daily sums = { 0 };
    daily_add_item(&sums, u);
    jw_object(w);
    id_write(text, ID_USAGE, u->id);
    jw_key(w, "id");
    jw_cstr(w, text);
    time_format(at, u->time_ms, true);
    jw_key(w, "time");
    jw_cstr(w, at);
    jw_key(w, "request_id");
    jw_str(w, u->request_id);
    id_write(text, ID_ACCOUNT, u->account_id);
    jw_key(w, "account");
    jw_cstr(w, text);
    id_write(text, ID_KEY, u->key_id);
    jw_key(w, "key");
    jw_cstr(w, text);
    jw_key(w, "model");
    jw_str(w, model_text(l, u));
    jw_key(w, "upstream");
    if (u->upstream_id)
        jw_cstr(w, ledger_name(l, NAME_UPSTREAM, u->upstream_id));
    else
        jw_null(w);
    jw_key(w, "dialect");
    jw_cstr(w, u->dialect < DIALECT_COUNT ? dialect_names[u->dialect] : "");
    jw_key(w, "status");
    jw_u64(w, u->status);
    jw_key(w, "stream");
    jw_bool(w, u->stream);
    tokens(w, &sums);
    amounts(l, w, &sums, quoted);
    jw_key(w, "estimated");
    jw_bool(w, (u->flags & RECORD_ESTIMATED) != 0);
    jw_key(w, "ttfb_ms");
    jw_u64(w, u->ttfb_ms);
    jw_key(w, "duration_ms");
    jw_u64(w, u->duration_ms);
    jw_end_object(w);
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

/* The newest record of an account that can have ended before `until`, by the roll-ups of that day and two before (a
 * record is committed at most a day late); 0: they do not say. */
static uint64_t account_start(struct store *s, const struct usage_query *q) {
    if (q->until_ms > ledger_wall_ms() - 2 * DAY_MS)
        return 0;
    struct store_cursor c;
    uint64_t newest = 0;
    uint32_t day = day_of(q->until_ms), first = day > 2 ? day - 2 : 0;
    struct id_key from = daily_key(q->account_id, first, 0);
    enum store_err err = store_cursor_open(s, DB_DAILY, &c);
    for (err = err == STORE_OK ? store_seek(&c, ID_SLICE(from)) : err; err == STORE_OK; err = store_next(&c)) {
        struct row_daily row;
        if (be32_get(c.key.ptr) != q->account_id || be32_get(c.key.ptr + 4) > day)
            break;
        if (row_read(c.value, &row, sizeof row, NULL) && row.last_usage > newest)
            newest = row.last_usage;
    }
    store_cursor_close(&c);
    return newest;
}

static uint64_t before(const struct usage_query *q, const struct usage_item *u) {
    return q->key_id ? u->prev_key : q->account_id ? u->prev_account : u->id - 1;
}

static uint64_t list_start(struct usage_reader *r, const struct usage_query *q) {
    struct usage_item u;
    if (q->cursor) { /* a cursor is the last record of the page before: its own chain leads on */
        if (usage_get(r, q->cursor, &u) == STORE_OK && (!q->key_id || u.key_id == q->key_id) &&
            (q->key_id || !q->account_id || u.account_id == q->account_id))
            return before(q, &u);
    }
    if (q->key_id)
        return q->key_head;
    uint64_t start = 0;
    if (q->account_id) {
        start = account_start(r->cursor.store, q);
        return start ? start : q->account_head;
    }
    return usage_last_id(r);
}

/* Where a search is: what it follows, and what the index says of the span that it is in. */
struct walk {
    const struct ledger *l;
    const struct usage_query *q;
    struct store *s;
    struct usage_reader r;
    uint64_t top;            /* what is listed is not above it */
    uint64_t span;           /* UINT64_MAX: in none yet */
    bool indexed;
    uint64_t low;            /* the oldest record in it of what the search follows */
    uint64_t model_low, model_high; /* between them all that can be of the model; high below low: none */
};

static bool can_be_model(const struct walk *w, uint32_t model_id) {
    if (w->q->model_id)
        return model_id == w->q->model_id;
    struct slice name = slice_str(ledger_name(w->l, NAME_MODEL, model_id));
    return name.len > 0 && name.ptr[name.len - 1] == '*'; /* a name that none has: a family's, if any */
}

static void enter_span(struct walk *w, uint64_t span) {
    struct span_view v;
    struct span_part p;
    w->span = span;
    w->indexed = (!w->q->key_id || w->q->account_id) && span_find(w->s, w->q->account_id, span, &v) &&
                 (!w->q->key_id || span_key(&v, w->q->key_id, &p));
    if (!w->indexed)
        return;
    w->low = v.base + (w->q->key_id ? p.first : v.row.first);
    w->model_low = w->low;
    w->model_high = v.base + v.row.last;
    if (w->q->model_len == 0)
        return;
    w->model_low = UINT64_MAX;
    w->model_high = 0;
    for (uint32_t i = 0; i < v.row.models; i++) {
        struct span_part m = span_model(&v, i);
        if (!can_be_model(w, m.id))
            continue;
        w->model_low = v.base + m.first < w->model_low ? v.base + m.first : w->model_low;
        w->model_high = v.base + m.last > w->model_high ? v.base + m.last : w->model_high;
    }
}

/* *id: where to begin, 0: nowhere. usage_close belongs to it, whatever comes back. */
static enum store_err walk_begin(struct walk *w, const struct ledger *l, struct store *s, const struct usage_query *q,
                                 uint64_t *id) {
    *w = (struct walk){
        .l = l, .q = q, .s = s, .top = q->cursor ? q->cursor - 1 : UINT64_MAX, .span = UINT64_MAX
    };
    enum store_err err = usage_open(&w->r, s);
    *id = err == STORE_OK ? list_start(&w->r, q) : 0;
    if (*id > 0 && q->until_ms < INT64_MAX - q->late_ms) {
        uint64_t end = usage_first_committed(&w->r, q->until_ms + q->late_ms + 1) - 1;
        w->top = end < w->top ? end : w->top;
    }
    return err;
}

/* The next record at or below id that is worth a look, going down the chain; 0: none. *err: the records cannot be
 * read. */
static uint64_t walk_on(struct walk *w, uint64_t id, uint64_t *steps, enum store_err *err) {
    struct usage_item u;
    while (id > 0) {
        if (id / SPAN_RECORDS != w->span)
            enter_span(w, id / SPAN_RECORDS);
        bool chain_of_all = !w->q->account_id && !w->q->key_id;
        if (chain_of_all && id > w->top) {
            id = w->top;
            continue;
        }
        if (!w->indexed)
            return id;
        bool some = w->model_high >= w->model_low && id >= w->model_low && w->low <= w->top;
        if (some && id > w->model_high && !w->q->key_id)
            id = w->model_high; /* it is the account's own, so the chain goes through it */
        if (some)
            return id;
        ++*steps; /* nothing more in this span: behind its first one */
        if (chain_of_all) {
            id = w->span * SPAN_RECORDS;
            id = id > 0 ? id - 1 : 0;
            continue;
        }
        if ((*err = usage_get(&w->r, w->low, &u)) != STORE_OK)
            return 0;
        if (u.committed_ms < w->q->since_ms)
            return 0;
        id = before(w->q, &u);
    }
    return 0;
}

enum listed { LIST_DONE, LIST_LONG /* more than max_steps were needed */, LIST_BROKEN };

static enum listed list(const struct ledger *l, struct store *s, const struct usage_query *q, struct json_writer *out,
                        uint64_t max_steps) {
    struct walk w;
    struct usage_item u;
    uint64_t found = 0, steps = 0, last = 0, id;
    bool more = false;
    enum store_err err = walk_begin(&w, l, s, q, &id);
    jw_object(out);
    jw_key(out, "usage");
    jw_array(out);
    while (err == STORE_OK && !more && (id = walk_on(&w, id, &steps, &err)) > 0) {
        if (++steps > max_steps)
            break;
        err = usage_get(&w.r, id, &u);
        if (err != STORE_OK || u.committed_ms < q->since_ms)
            break;
        if (id <= w.top && matches(q, &u)) {
            if (found == q->limit) {
                more = true;
                break;
            }
            write_item(l, out, &u, !q->numbers);
            found++;
            last = id;
        }
        id = before(q, &u);
    }
    usage_close(&w.r);
    jw_end_array(out);
    jw_key(out, "next_cursor");
    char text[ID_TEXT];
    id_write(text, ID_USAGE, last);
    if (more)
        jw_cstr(out, text);
    else
        jw_null(out);
    jw_end_object(out);
    return err != STORE_OK && err != STORE_NONE ? LIST_BROKEN : steps > max_steps ? LIST_LONG : LIST_DONE;
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

struct sums { const struct usage_query *q; struct rollups groups; bool failed; };

static struct row_daily *group_of(struct sums *t, uint32_t account_id, uint32_t day, uint32_t model_id) {
    enum by by = t->q->by;
    struct rollup *g = rollups_at(&t->groups, by == BY_ACCOUNT ? account_id : 0, by == BY_DAY ? day : 0,
                                  by == BY_MODEL ? model_id : 0);
    t->failed |= !g;
    return g ? &g->add : NULL;
}

static void sum_item(struct sums *t, const struct usage_item *u) {
    struct row_daily *d = group_of(t, u->account_id, day_of(u->time_ms), u->model_id);
    if (d)
        daily_add_item(d, u);
}

/* Records whose id is in [from, to] and whose time is in [since, until) of the query. The snapshot is renewed on the
 * way: records never change. */
static enum store_err sum_records(struct sums *t, struct store *s, uint64_t from, uint64_t to, int64_t since_ms,
                                  int64_t until_ms) {
    struct usage_reader r;
    struct usage_item u;
    enum store_err err = usage_open(&r, s);
    for (uint64_t id = from, n = 1; err == STORE_OK && id <= to; id++, n++) {
        if (n % RENEW_EVERY == 0) {
            usage_close(&r);
            store_read_end(s);
            if ((err = store_read_begin(s)) != STORE_OK)
                return err;
            if ((err = usage_open(&r, s)) != STORE_OK)
                break;
        }
        err = usage_get(&r, id, &u);
        if (err == STORE_OK && u.time_ms >= since_ms && u.time_ms < until_ms && matches(t->q, &u))
            sum_item(t, &u);
    }
    usage_close(&r);
    return err;
}

static enum store_err sum_between(struct sums *t, struct store *s, int64_t since_ms, int64_t until_ms) {
    struct usage_reader r;
    if (since_ms >= until_ms)
        return STORE_OK;
    enum store_err err = usage_open(&r, s);
    if (err != STORE_OK)
        return err;
    uint64_t to = until_ms < INT64_MAX - t->q->late_ms ? usage_first_committed(&r, until_ms + t->q->late_ms + 1) - 1
                                                       : usage_last_id(&r);
    uint64_t from = usage_first_committed(&r, since_ms);
    usage_close(&r);
    return sum_records(t, s, from, to, since_ms, until_ms);
}

static enum store_err sum_key(struct sums *t, struct store *s) {
    struct usage_reader r;
    struct usage_item u;
    enum store_err err = usage_open(&r, s);
    for (uint64_t id = t->q->key_head; err == STORE_OK && id > 0; id = u.prev_key) {
        err = usage_get(&r, id, &u);
        if (err != STORE_OK || u.committed_ms < t->q->since_ms)
            break;
        if (matches(t->q, &u))
            sum_item(t, &u);
    }
    usage_close(&r);
    return err;
}

/* One model of a family: the records that can be its own, newest first. */
static enum store_err sum_family(struct sums *t, const struct ledger *l, struct store *s) {
    struct walk w;
    struct usage_item u;
    uint64_t steps = 0, id;
    enum store_err err = walk_begin(&w, l, s, t->q, &id);
    while (err == STORE_OK && (id = walk_on(&w, id, &steps, &err)) > 0) {
        err = usage_get(&w.r, id, &u);
        if (err != STORE_OK || u.committed_ms < t->q->since_ms)
            break;
        if (matches(t->q, &u))
            sum_item(t, &u);
        id = before(t->q, &u);
    }
    usage_close(&w.r);
    return err;
}

/* Roll-ups of whole days [first, last]. */
static enum store_err sum_days(struct sums *t, struct store *s, uint32_t first, uint32_t last) {
    const struct usage_query *q = t->q;
    struct store_cursor c;
    bool each_account = q->by == BY_ACCOUNT && !q->account_id;
    struct id_key from = daily_key(each_account ? 1 : q->account_id, first, 0);
    enum store_err err = store_cursor_open(s, DB_DAILY, &c);
    for (err = err == STORE_OK ? store_seek(&c, ID_SLICE(from)) : err; err == STORE_OK;) {
        uint32_t account = be32_get(c.key.ptr), day = be32_get(c.key.ptr + 4), model = be32_get(c.key.ptr + 8);
        struct row_daily row;
        if (!each_account && account != q->account_id)
            break;
        if (day < first || day > last) { /* on to the next account, or to the first day of this one */
            if (!each_account)
                break;
            struct id_key next = day < first ? daily_key(account, first, 0) : daily_key(account + 1, first, 0);
            err = store_seek(&c, ID_SLICE(next));
            continue;
        }
        struct row_daily *d = !q->model_id || q->model_id == model ? group_of(t, account, day, model) : NULL;
        if (d && row_read(c.value, &row, sizeof row, NULL))
            daily_add(d, &row);
        err = store_next(&c);
    }
    store_cursor_close(&c);
    return err == STORE_NONE ? STORE_OK : err;
}

static enum store_err sum_all(struct sums *t, const struct ledger *l, struct store *s) {
    const struct usage_query *q = t->q;
    if (q->key_id)
        return sum_key(t, s);
    if (q->family)
        return sum_family(t, l, s);
    int64_t now_ms = ledger_wall_ms(), since = q->since_ms < 0 ? 0 : q->since_ms;
    int64_t until = q->until_ms < now_ms + DAY_MS ? q->until_ms : now_ms + DAY_MS;
    int64_t first = (since + DAY_MS - 1) / DAY_MS,
            end = until > 0 ? until / DAY_MS : 0; /* whole days: first … end − 1 */
    if (first >= end)
        return sum_between(t, s, since, q->until_ms);
    struct slice v;
    uint64_t applied = 1;
    if (store_get(s, DB_META, SLICE("applied"), &v) == STORE_OK)
        (void)row_read(v, &applied, sizeof applied, NULL);
    enum store_err err = sum_days(t, s, (uint32_t)first, (uint32_t)end - 1);
    struct usage_reader r;
    uint64_t last = err == STORE_OK && (err = usage_open(&r, s)) == STORE_OK ? usage_last_id(&r) : 0;
    if (err == STORE_OK)
        usage_close(&r);
    if (err == STORE_OK) /* all of one snapshot so far: what no checkpoint had covered is read from the records */
        err = sum_records(t, s, applied, last, first * DAY_MS, end * DAY_MS);
    if (err == STORE_OK)
        err = sum_between(t, s, since, first * DAY_MS);
    return err == STORE_OK ? sum_between(t, s, end * DAY_MS, q->until_ms) : err;
}

static int by_group(const void *a, const void *b) {
    const struct rollup *x = a, *y = b;
    if (x->day != y->day)
        return x->day < y->day ? -1 : 1;
    if (x->account_id != y->account_id)
        return x->account_id < y->account_id ? -1 : 1;
    return x->model_id < y->model_id ? -1 : x->model_id > y->model_id;
}

static void write_group(const struct ledger *l, struct json_writer *w, enum by by, const struct rollup *g) {
    char text[ID_TEXT], at[40];
    jw_object(w);
    if (by == BY_DAY) {
        time_format(at, (int64_t)g->day * DAY_MS, false);
        jw_key(w, "day");
        jw_str(w, slice_of(at, 10));
    } else if (by == BY_MODEL) {
        jw_key(w, "model");
        jw_cstr(w, ledger_name(l, NAME_MODEL, g->model_id));
    } else {
        id_write(text, ID_ACCOUNT, g->account_id);
        jw_key(w, "account");
        jw_cstr(w, text);
    }
    jw_key(w, "requests");
    jw_u64(w, g->add.requests);
    tokens(w, &g->add);
    amounts(l, w, &g->add, true);
    jw_end_object(w);
}

static void write_groups(const struct ledger *l, struct json_writer *w, struct sums *t) {
    struct rollup *all = t->groups.at;
    uint32_t n = 0;
    for (uint32_t i = 0; all && i <= t->groups.mask; i++)
        if (all[i].used && all[i].add.requests > 0)
            all[n++] = all[i];
    if (n > 1)
        qsort(all, n, sizeof *all, by_group);
    jw_object(w);
    jw_key(w, "usage");
    jw_array(w);
    for (uint32_t i = 0; i < n; i++)
        write_group(l, w, t->q->by, &all[i]);
    jw_end_array(w);
    jw_end_object(w);
}

/* ---- the call ---------------------------------------------------------------------------------------------------- */

static void usage_job(struct reader_job *job) {
    struct usage_query q;
    struct json_writer w;
    memcpy(&q, job->args, sizeof q);
    jw_init(&w, &job->out);
    enum store_err err = store_read_begin(&job->store);
    if (err == STORE_OK && q.by == BY_NONE) {
        err = list(job->l, &job->store, &q, &w, UINT64_MAX) == LIST_BROKEN ? STORE_BROKEN : STORE_OK;
        store_read_end(&job->store);
    } else if (err == STORE_OK) {
        struct sums t = { .q = &q };
        err = sum_all(&t, job->l, &job->store);
        if (err == STORE_NONE)
            err = STORE_OK;
        store_read_end(&job->store);
        write_groups(job->l, &w, &t);
        if (t.failed)
            job_refuse(job, "internal", "out of memory");
        free(t.groups.at);
    }
    if (err != STORE_OK)
        job_refuse(job, "internal", "the usage records cannot be read: %s", job->store.message);
    if (w.failed)
        job_refuse(job, "too_large", "the answer is too large; ask for less at a time");
}

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
    struct id_key key = key32(q->key_id);
    struct row_spent spent = { 0 };
    struct slice v;
    if (index != NO_INDEX) {
        q->key_head = c->l->keys[index].last_usage;
    } else if (store_read_begin(&c->l->store) == STORE_OK) {
        if (store_get(&c->l->store, DB_SPENT, ID_SLICE(key), &v) == STORE_OK)
            (void)row_read(v, &spent, sizeof spent, NULL);
        store_read_end(&c->l->store);
        q->key_head = spent.last_usage;
    }
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

static bool list_in_place(struct call *c, const struct usage_query *q) {
    struct buf out;
    struct json_writer w;
    enum store_err err = store_read_begin(&c->l->store);
    if (err != STORE_OK) {
        call_store_failed(c, err);
        return true;
    }
    buf_init(&out, &c->l->pages, IPC_MAX_PAYLOAD);
    jw_init(&w, &out);
    enum listed got = list(c->l, &c->l->store, q, &w, STEPS_IN_PLACE);
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
