/* Sums of usage by day, model or account.
 *
 * Whole days come from the roll-ups, with the records that no checkpoint has covered added; records are read only for
 * the broken days at the ends, for a key, and for one model of a family. */
#include <stdlib.h>
#include "master/ledger/call.h"
#include "master/ledger/text.h"
#include "master/ledger/usage.h"

enum { RENEW_EVERY = 200000 };

struct sums { const struct usage_query *q; struct rollups groups; bool no_memory; };

static struct row_daily *group_of(struct sums *t, uint32_t account_id, uint32_t day, uint32_t model_id) {
    enum by by = t->q->by;
    struct rollup *g = rollups_at(&t->groups, by == BY_ACCOUNT ? account_id : 0, by == BY_DAY ? day : 0,
                                  by == BY_MODEL ? model_id : 0);
    t->no_memory |= !g;
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
        if (err == STORE_OK && u.time_ms >= since_ms && u.time_ms < until_ms && usage_matches(t->q, &u))
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

/* Where only records can tell, one by one: a key's, or those of one model of a family. */
static enum store_err sum_found(struct sums *t, const struct ledger *l, struct store *s) {
    struct usage_query q = *t->q;
    struct search w;
    struct usage_item u;
    q.cursor = 0; /* a sum has no pages */
    enum store_err err = search_begin(&w, l, s, &q);
    while (err == STORE_OK && (err = search_next(&w, UINT64_MAX, &u)) == STORE_OK)
        sum_item(t, &u);
    search_end(&w);
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

/* Days [first, end), all of one snapshot: the roll-ups, and what no checkpoint has covered from the records. */
static enum store_err sum_whole_days(struct sums *t, struct store *s, int64_t first, int64_t end) {
    struct usage_reader r;
    uint64_t applied = 1, last = 0;
    (void)store_meta(s, "applied", &applied, sizeof applied);
    enum store_err err = sum_days(t, s, (uint32_t)first, (uint32_t)end - 1);
    if (err == STORE_OK && (err = usage_open(&r, s)) == STORE_OK) {
        last = usage_last_id(&r);
        usage_close(&r);
    }
    return err == STORE_OK ? sum_records(t, s, applied, last, first * DAY_MS, end * DAY_MS) : err;
}

static enum store_err sum_all(struct sums *t, const struct ledger *l, struct store *s) {
    const struct usage_query *q = t->q;
    if (q->key_id || q->family)
        return sum_found(t, l, s);
    int64_t now_ms = ledger_wall_ms(), since = q->since_ms < 0 ? 0 : q->since_ms;
    int64_t until = q->until_ms < now_ms + DAY_MS ? q->until_ms : now_ms + DAY_MS;
    int64_t first = (since + DAY_MS - 1) / DAY_MS, end = until > 0 ? until / DAY_MS : 0; /* whole days: [first, end) */
    if (first >= end)
        return sum_between(t, s, since, q->until_ms);
    enum store_err err = sum_whole_days(t, s, first, end);
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
    char at[40];
    jw_object(w);
    if (by == BY_DAY) {
        time_format(at, (int64_t)g->day * DAY_MS, false);
        jw_key(w, "day");
        jw_str(w, slice_of(at, 10));
    } else if (by == BY_MODEL) {
        jw_key(w, "model");
        jw_cstr(w, ledger_name(l, NAME_MODEL, g->model_id));
    } else {
        jw_key(w, "account");
        jw_id(w, ID_ACCOUNT, g->account_id);
    }
    jw_count(w, "requests", g->add.requests);
    usage_write_sums(l, w, &g->add, true);
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

enum store_err usage_sum(const struct ledger *l, struct store *s, const struct usage_query *q, struct json_writer *w,
                         bool *no_memory) {
    struct sums t = { .q = q };
    enum store_err err = sum_all(&t, l, s);
    write_groups(l, w, &t);
    *no_memory = t.no_memory;
    free(t.groups.at);
    return err == STORE_NONE ? STORE_OK : err;
}
