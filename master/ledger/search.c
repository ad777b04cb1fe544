/* Searches: the records of an account, a key, a model, newest first.
 *
 * A search follows the chain of its account or key, or walks back through all records, and leaves out what the index of
 * spans (span.h) says holds nothing for it; `until` is found by a search in the blocks' commit times (which
 * never fall), and where they pass `since` it ends. */
#include "master/ledger/usage.h"
#include "master/ledger/call.h"

bool usage_matches(const struct usage_query *q, const struct usage_item *u) {
    if ((q->account_id && u->account_id != q->account_id) || (q->key_id && u->key_id != q->key_id))
        return false;
    if (u->time_ms < q->since_ms || u->time_ms >= q->until_ms)
        return false;
    if (q->model_len == 0 || (q->model_id && !q->family && u->model_id == q->model_id))
        return true;
    return slice_eq(u->model, slice_of(q->model, q->model_len));
}

/* ---- where it begins --------------------------------------------------------------------------------------------- */

/* The newest record of an account that can have ended before `until`, by the roll-ups of that day and those before it;
 * 0: they do not say. A record is committed at most a day late, so the last day that has any and the day before it
 * tell: no earlier day can have a newer one. */
static uint64_t account_start(struct store *s, const struct usage_query *q) {
    if (q->until_ms > ledger_wall_ms() - 2 * DAY_MS)
        return 0;
    struct store_cursor c;
    uint64_t newest = 0;
    uint32_t day = day_of(q->until_ms), first = day > 3 ? day - 3 : 0, last = first;
    struct id_key from = daily_key(q->account_id, first, 0);
    enum store_err err = store_cursor_open(s, DB_DAILY, &c);
    for (err = err == STORE_OK ? store_seek(&c, ID_SLICE(from)) : err; err == STORE_OK; err = store_next(&c)) {
        struct row_daily row;
        if (be32_get(c.key.ptr) != q->account_id || be32_get(c.key.ptr + 4) > day)
            break;
        last = be32_get(c.key.ptr + 4);
        if (row_read(c.value, &row, sizeof row, NULL) && row.last_usage > newest)
            newest = row.last_usage;
    }
    store_cursor_close(&c);
    return last > first ? newest : 0;
}

static uint64_t before(const struct usage_query *q, const struct usage_item *u) {
    return q->key_id ? u->prev_key : q->account_id ? u->prev_account : u->id - 1;
}

static uint64_t start_of(struct usage_reader *r, const struct usage_query *q) {
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

/* ---- what the index says ----------------------------------------------------------------------------------------- */

static bool can_be_model(const struct search *w, uint32_t model_id) {
    if (w->q->model_id)
        return model_id == w->q->model_id;
    struct slice name = slice_str(ledger_name(w->l, NAME_MODEL, model_id));
    return name.len > 0 && name.ptr[name.len - 1] == '*'; /* a name that none has: a family's, if any */
}

static void enter_span(struct search *w, uint64_t span) {
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

/* ---- going on ---------------------------------------------------------------------------------------------------- */

enum store_err search_begin(struct search *w, const struct ledger *l, struct store *s, const struct usage_query *q) {
    *w = (struct search){
        .l = l, .q = q, .s = s, .top = q->cursor ? q->cursor - 1 : UINT64_MAX, .span = UINT64_MAX
    };
    enum store_err err = usage_open(&w->r, s);
    if (err != STORE_OK)
        return err;
    w->next = start_of(&w->r, q);
    if (w->next > 0 && q->until_ms < INT64_MAX - q->late_ms) {
        uint64_t end = usage_first_committed(&w->r, q->until_ms + q->late_ms + 1) - 1;
        w->top = end < w->top ? end : w->top;
    }
    return STORE_OK;
}

/* Nothing more in this span: to what is behind the first one that the search follows in it. */
static enum store_err leave_span(struct search *w) {
    struct usage_item u;
    enum store_err err = usage_get(&w->r, w->low, &u);
    w->next = err == STORE_OK && u.committed_ms >= w->q->since_ms ? before(w->q, &u) : 0;
    return err;
}

/* Moves w->next down to one that is worth a look, or to 0. */
static enum store_err skip(struct search *w) {
    bool all = !w->q->account_id && !w->q->key_id;
    enum store_err err = STORE_OK;
    while (w->next > 0 && err == STORE_OK) {
        if (w->next / SPAN_RECORDS != w->span)
            enter_span(w, w->next / SPAN_RECORDS);
        if (all && w->next > w->top) {
            w->next = w->top;
            continue;
        }
        if (!w->indexed)
            break;
        if (w->model_high >= w->model_low && w->next >= w->model_low && w->low <= w->top) {
            if (w->next > w->model_high && !w->q->key_id)
                w->next = w->model_high; /* it is the account's own, so the chain goes through it */
            break;
        }
        w->steps++;
        if (all)
            w->next = w->span > 0 ? w->span * SPAN_RECORDS - 1 : 0;
        else
            err = leave_span(w);
    }
    return err;
}

enum store_err search_next(struct search *w, uint64_t max_steps, struct usage_item *u) {
    enum store_err err;
    while ((err = skip(w)) == STORE_OK && w->next > 0) {
        if (++w->steps > max_steps)
            return STORE_NONE;
        err = usage_get(&w->r, w->next, u);
        if (err != STORE_OK || u->committed_ms < w->q->since_ms)
            break;
        w->next = before(w->q, u);
        if (u->id <= w->top && usage_matches(w->q, u))
            return STORE_OK;
    }
    w->next = 0;
    return err == STORE_OK ? STORE_NONE : err;
}

void search_end(struct search *w) { usage_close(&w->r); }

/* ---- a list ------------------------------------------------------------------------------------------------------ */

enum listed usage_list(const struct ledger *l, struct store *s, const struct usage_query *q, struct json_writer *out,
                       uint64_t max_steps) {
    struct search w;
    struct usage_item u;
    uint64_t found = 0, last = 0;
    enum store_err err = search_begin(&w, l, s, q);
    jw_object(out);
    jw_key(out, "usage");
    jw_array(out);
    while (err == STORE_OK && (err = search_next(&w, max_steps, &u)) == STORE_OK && found < q->limit) {
        usage_write_item(l, out, &u, !q->numbers);
        found++;
        last = u.id;
    }
    search_end(&w);
    jw_end_array(out);
    jw_key(out, "next_cursor");
    if (err == STORE_OK) /* one more was found */
        jw_id(out, ID_USAGE, last);
    else
        jw_null(out);
    jw_end_object(out);
    if (err == STORE_OK || err == STORE_NONE)
        return w.steps > max_steps ? LIST_LONG : LIST_DONE;
    return LIST_BROKEN;
}
