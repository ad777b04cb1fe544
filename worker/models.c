/* GET /v1/models, /v1/models/M, /v1beta/models, /v1beta/models/M: what can be called, at the prices this key will pay.
 *
 * One list, three shapes: OpenAI's with pricing; Anthropic's where the client sends `anthropic-version`; Gemini's under
 * v1beta. */
#include "worker/exchange.h"

#include <stdio.h>
#include <time.h>

enum { BODY_MAX = 16 << 20, NAME_MAX_BYTES = 512 };

/* A price times the group's ratio (millionths). What no price comes near is the largest number, not a wrong one. */
static int64_t paid(const struct exchange *ex, uint64_t price) {
    int64_t v;
    return __builtin_mul_overflow(price, admit_group(ex)->ratio_millionths, &v) ? INT64_MAX : v;
}

/* A price in dollars per token: micro-dollars per million × ratio = 10^-18 dollars. */
static void put_price(struct json_writer *w, const struct exchange *ex, const char *name, uint64_t per_million) {
    jw_key(w, name);
    jw_fixed(w, paid(ex, per_million), 18, true);
}

/* What a call gets that asks for nothing: `word`, or the first of the model's list. */
static struct slice usual(const struct snap *s, struct snap_list list, struct slice word) {
    struct slice first = SLICE_NONE;
    SNAP_EACH(s, list, struct snap_str, text) {
        if (slice_eq(snap_text(s, *text), word))
            return word;
        first = first.ptr == NULL ? snap_text(s, *text) : first;
    }
    return first.ptr == NULL ? word : first;
}

/* A usual picture's, where pictures have a price: micro-dollars, kept for a million, × ratio = 10^-12 dollars. */
static void put_image_price(struct json_writer *w, const struct exchange *ex, const struct snap_model *m) {
    const struct snap *s = ex->snapshot->snap;
    struct slice size = usual(s, m->sizes, SLICE("1024x1024")), quality = usual(s, m->qualities, SLICE("standard"));
    uint64_t per_million;
    if (!snap_image_price(s, m, size, quality, &per_million))
        return;
    jw_key(w, "image");
    jw_fixed(w, paid(ex, per_million / 1000000), 12, true);
}

static void put_pricing(struct json_writer *w, const struct exchange *ex, const struct snap_model *m) {
    const uint64_t *p = m->prices.per_million;
    jw_key(w, "pricing");
    jw_object(w);
    put_price(w, ex, "prompt", p[METER_INPUT]);
    put_price(w, ex, "completion", p[METER_OUTPUT]);
    put_price(w, ex, "input_cache_read", p[METER_CACHED_INPUT]);
    put_price(w, ex, "input_cache_write", p[METER_CACHE_WRITE]);
    if (m->kind == MODEL_IMAGE)
        put_image_price(w, ex, m);
    jw_key(w, "input_per_1m");
    jw_fixed(w, paid(ex, p[METER_INPUT]), 12, false);
    jw_key(w, "output_per_1m");
    jw_fixed(w, paid(ex, p[METER_OUTPUT]), 12, false);
    jw_end_object(w);
}

static void put_flag(struct json_writer *w, const char *name, bool on) {
    jw_key(w, name);
    jw_bool(w, on);
}

static void put_openai(struct json_writer *w, const struct exchange *ex, const struct snap_model *m, struct slice id) {
    static const char *const kinds[] = { "chat", "embedding", "image", "other" };
    const struct snap *s = ex->snapshot->snap;
    jw_object(w);
    jw_key(w, "id");
    jw_str(w, id);
    jw_key(w, "object");
    jw_cstr(w, "model");
    jw_key(w, "created");
    jw_i64(w, m->created);
    jw_key(w, "owned_by");
    jw_str(w, snap_text(s, m->owned_by));
    jw_key(w, "provider");
    jw_str(w, snap_text(s, m->provider.len > 0 ? m->provider : m->owned_by));
    jw_key(w, "kind");
    jw_cstr(w, kinds[m->kind]);
    jw_key(w, "capabilities");
    jw_object(w);
    put_flag(w, "streaming", m->kind == MODEL_CHAT || m->flags & MODEL_STREAMING);
    put_flag(w, "tools", m->flags & MODEL_TOOLS);
    put_flag(w, "vision", m->flags & MODEL_VISION);
    put_flag(w, "reasoning", m->flags & MODEL_REASONING);
    jw_end_object(w);
    put_pricing(w, ex, m);
    jw_key(w, "context_length");
    m->context > 0 ? jw_u64(w, m->context) : jw_null(w);
    jw_key(w, "max_output_tokens");
    m->max_output > 0 ? jw_u64(w, m->max_output) : jw_null(w);
    const char *whose;
    int64_t cap = ex->known_key && !s->unit_tokens ? admit_cap(ex, m, &whose) : m->call_cap_nano;
    jw_key(w, "call_cap");
    cap != SNAP_NO_AMOUNT ? jw_fixed(w, cap, 9, false) : jw_null(w);
    jw_end_object(w);
}

static void put_anthropic(struct json_writer *w, const struct snap_model *m, struct slice id) {
    char at[40];
    time_t s = (time_t)m->created;
    struct tm tm;
    gmtime_r(&s, &tm);
    size_t n = strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", &tm);
    jw_object(w);
    jw_key(w, "type");
    jw_cstr(w, "model");
    jw_key(w, "id");
    jw_str(w, id);
    jw_key(w, "display_name");
    jw_str(w, id);
    jw_key(w, "created_at");
    jw_str(w, slice_of(at, n));
    jw_end_object(w);
}

static void put_gemini(struct json_writer *w, const struct snap_model *m, struct slice id) {
    jw_object(w);
    jw_key(w, "name");
    jw_str_begin(w);
    jw_str_part(w, SLICE("models/"));
    jw_str_part(w, id);
    jw_str_end(w);
    jw_key(w, "version");
    jw_cstr(w, "001");
    jw_key(w, "displayName");
    jw_str(w, id);
    jw_key(w, "inputTokenLimit");
    jw_u64(w, m->context);
    jw_key(w, "outputTokenLimit");
    jw_u64(w, m->max_output);
    jw_key(w, "supportedGenerationMethods");
    jw_array(w);
    if (m->kind == MODEL_EMBEDDING) {
        jw_cstr(w, "embedContent");
        jw_cstr(w, "batchEmbedContents");
    } else if (m->kind != MODEL_IMAGE) {
        jw_cstr(w, "generateContent");
        jw_cstr(w, "streamGenerateContent");
        jw_cstr(w, "countTokens");
    }
    jw_end_array(w);
    jw_end_object(w);
}

static void put_model(struct json_writer *w, const struct exchange *ex, const struct snap_model *m, struct slice id) {
    if (ex->shape == SHAPE_GEMINI)
        put_gemini(w, m, id);
    else if (ex->shape == SHAPE_ANTHROPIC)
        put_anthropic(w, m, id);
    else
        put_openai(w, ex, m, id);
}

static bool may_call(const struct exchange *ex, const struct snap_model *m, struct slice name) {
    bool plan;
    return m->routes.count > 0 && admit_globs(ex, m, name, &plan) && plan;
}

static void send_body(struct exchange *ex, struct buf *body, const struct json_writer *w) {
    if (w->failed)
        reply_error(ex, 500, "internal", NULL, "The list could not be made.");
    else
        reply_json(ex, 200, buf_slice(body));
    buf_release(body);
}

void models_list(struct exchange *ex) {
    const struct snap *s = ex->snapshot->snap;
    struct slice first = SLICE_NONE, last = SLICE_NONE;
    struct json_writer w;
    struct buf body;
    buf_init(&body, &ex->worker->pages, BODY_MAX);
    jw_init(&w, &body);
    jw_object(&w);
    if (ex->shape == SHAPE_OPENAI) {
        jw_key(&w, "object");
        jw_cstr(&w, "list");
    }
    jw_key(&w, ex->shape == SHAPE_GEMINI ? "models" : "data");
    jw_array(&w);
    SNAP_EACH(s, s->models, struct snap_model, m) {
        struct slice name = snap_text(s, m->name);
        if (m->flags & MODEL_FAMILY || !may_call(ex, m, name))
            continue;
        put_model(&w, ex, m, name);
        first = first.ptr == NULL ? name : first;
        last = name;
    }
    jw_end_array(&w);
    if (ex->shape == SHAPE_ANTHROPIC) {
        jw_key(&w, "has_more");
        jw_bool(&w, false);
        jw_key(&w, "first_id");
        jw_str(&w, first);
        jw_key(&w, "last_id");
        jw_str(&w, last);
    }
    jw_end_object(&w);
    send_body(ex, &body, &w);
}

void models_show(struct exchange *ex) {
    char text[NAME_MAX_BYTES];
    size_t n = 0;
    bool ok = http_percent_decode(ex->path_rest, false, text, sizeof text, &n);
    struct slice name = ok ? slice_of(text, n) : ex->path_rest;
    const struct snap_model *m = admit_find(ex, name);
    if (m == NULL)
        return;
    struct json_writer w;
    struct buf body;
    buf_init(&body, &ex->worker->pages, BODY_MAX);
    jw_init(&w, &body);
    put_model(&w, ex, m, m->flags & MODEL_FAMILY ? name : snap_text(ex->snapshot->snap, m->name));
    send_body(ex, &body, &w);
}
