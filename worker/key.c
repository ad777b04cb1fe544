/* GET /v1/key: the key's own limits and spending. Limits and rates are known here; what was spent the ledger says. */
#include "worker/call.h"

#include "proto/base/id.h"

static void put_rate(struct json_writer *w, const char *name, const struct limit_view *v) {
    jw_key(w, name);
    if (v->limit == SNAP_NO_LIMIT) {
        jw_null(w);
        return;
    }
    jw_object(w);
    jw_key(w, "limit");
    jw_u64(w, v->limit);
    jw_key(w, "remaining");
    jw_u64(w, v->remaining);
    jw_key(w, "reset");
    jw_u64(w, v->reset_s);
    jw_end_object(w);
}

static void put_limits(struct json_writer *w, const struct exchange *ex) {
    int64_t in_flight =
        atomic_load_explicit(&ex->worker->shm.key_words[ex->key_index].concurrency, memory_order_relaxed);
    jw_key(w, "rate_limits");
    jw_object(w);
    put_rate(w, "requests", &ex->rpm_view);
    put_rate(w, "tokens", &ex->tpm_view);
    jw_key(w, "concurrency");
    if (ex->concurrency == SNAP_NO_LIMIT) {
        jw_null(w);
    } else {
        jw_object(w);
        jw_key(w, "limit");
        jw_u64(w, ex->concurrency);
        jw_key(w, "in_flight");
        jw_i64(w, in_flight);
        jw_end_object(w);
    }
    jw_end_object(w);
}

static void answered(struct exchange *ex, const struct json *j) {
    int result = j != NULL ? json_get(j, 0, "result") : -1;
    const struct snap *s = ex->snapshot->snap;
    struct json_writer w;
    struct buf body;
    if (!json_is(j, result, JSON_OBJECT)) {
        reply_error(ex, 503, "overloaded", NULL,
                    "The key's record cannot be read right now. Please try again shortly.");
        return;
    }
    buf_init(&body, &ex->worker->pages, 1 << 20);
    jw_init(&w, &body);
    jw_object(&w);
    for (int k = json_first(j, result); k >= 0; k = json_next(j, result, k)) {
        jw_key_slice(&w, json_str(j, k, &ex->arena));
        jw_raw(&w, json_span(j, k + 1));
    }
    jw_key(&w, "tier");
    jw_str(&w, snap_text(s, ex->tier->name));
    jw_key(&w, "group");
    jw_str(&w, snap_text(s, ex->group->name));
    put_limits(&w, ex);
    jw_end_object(&w);
    if (w.failed)
        reply_error(ex, 500, "internal", NULL, "The key's record could not be written.");
    else
        reply_json(ex, 200, buf_slice(&body));
    buf_release(&body);
}

void key_show(struct exchange *ex) {
    char id[ID_TEXT];
    size_t n = id_write(id, ID_KEY, ex->key.id);
    call_ledger(ex, arena_printf(&ex->arena, "{\"cmd\":\"key.self\",\"key\":\"%.*s\"}", (int)n, id), answered);
}
