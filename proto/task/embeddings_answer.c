/* Embeddings, the answer. A vector is a JSON array of numbers or, for OpenAI's clients that ask so (the official SDKs
 * do by themselves), the base64 of its little-endian float32s. Numbers are copied as they stand; where base64 is made
 * of them, or numbers of base64, each keeps all its bits: nine significant digits name a float32 uniquely. The floats
 * here are coordinates, not money. */
#include "proto/task/embeddings.h"

#include <stdio.h>
#include <stdlib.h>

#include "proto/base/crypto.h"
#include "proto/dialect/dialect.h"

enum { FLOAT_BYTES = 4, NUMBER_MAX = 63, ECHO_DIMENSIONS = 256, ECHO_DIMENSIONS_MAX = 4096 };

/* ---- vectors ---- */

static void put_le(uint8_t *to, float v) { /* not money */
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    for (int i = 0; i < FLOAT_BYTES; i++)
        to[i] = (uint8_t)(bits >> (8 * i));
}

/* The base64 of a JSON array of numbers, as a string value. */
static bool put_base64(struct json_writer *w, const struct json *j, int array, struct arena *arena) {
    uint32_t n = json_size(j, array), i = 0;
    uint8_t *bytes = arena_alloc(arena, (size_t)n * FLOAT_BYTES + 1);
    struct buf text;
    if (bytes == NULL)
        return false;
    for (int t = json_first(j, array); t >= 0; t = json_next(j, array, t), i++) {
        char number[NUMBER_MAX + 1];
        struct slice raw = json_raw(j, t);
        if (!json_is(j, t, JSON_NUMBER) || raw.len > NUMBER_MAX)
            return false;
        memcpy(number, raw.ptr, raw.len);
        number[raw.len] = 0;
        put_le(bytes + (size_t)i * FLOAT_BYTES, strtof(number, NULL)); /* not money */
    }
    buf_init(&text, arena->pages, (size_t)n * 6 + PAGE_BYTES);
    bool ok = base64_encode(&text, bytes, (size_t)n * FLOAT_BYTES, false);
    jw_str(w, buf_slice(&text));
    buf_release(&text);
    return ok;
}

/* The numbers behind a base64 string, as an array. */
static bool put_numbers(struct json_writer *w, const struct json *j, int string, struct arena *arena) {
    struct buf bytes;
    struct slice text = json_str(j, string, arena);
    buf_init(&bytes, arena->pages, text.len + PAGE_BYTES);
    bool ok = base64_decode(&bytes, text, false) && bytes.len % FLOAT_BYTES == 0;
    jw_array(w);
    for (size_t at = 0; ok && at < bytes.len; at += FLOAT_BYTES) {
        const uint8_t *p = (const uint8_t *)buf_ptr(&bytes) + at;
        uint32_t bits = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        char number[32];
        float v; /* not money */
        memcpy(&v, &bits, sizeof v);
        ok = (bits >> 23 & 0xff) != 0xff; /* neither infinite nor NaN: JSON has no word for them */
        int n = snprintf(number, sizeof number, "%.9g", (double)v); /* not money */
        jw_raw(w, slice_of(number, (size_t)n));
    }
    jw_end_array(w);
    buf_release(&bytes);
    return ok;
}

static bool put_vector(struct json_writer *w, const struct json *j, int v, bool base64, struct arena *arena) {
    if (json_is(j, v, JSON_STRING)) {
        if (!base64)
            return put_numbers(w, j, v, arena);
        jw_raw(w, json_span(j, v));
        return true;
    }
    if (base64)
        return put_base64(w, j, v, arena);
    jw_raw(w, json_span(j, v));
    return true;
}

/* ---- read ---- */

static bool is_vector(const struct json *j, int v) { return json_is(j, v, JSON_ARRAY) || json_is(j, v, JSON_STRING); }

static bool read_openai_usage(const struct json *j, struct meters *m) {
    int usage = json_get(j, 0, "usage");
    struct ir_usage u = { 0 };
    if (dialect_openai.read_usage(j, usage, &u)) {
        *m = u.meters;
        return true;
    }
    return json_u64(j, json_get(j, usage, "total_tokens"), &m->n[METER_INPUT]); /* some vendors name nothing else */
}

enum task_result embeddings_read(const struct json *j, const struct task_call *c, enum ir_dialect from,
                                 struct arena *arena, struct task_figures *fig, struct ir_fault *f) {
    uint64_t n = 0;
    if (task_is_error(j, arena, f))
        return TASK_ERROR;
    if (from == IR_GEMINI) {
        int one = json_get(j, 0, "embedding"), list = json_get(j, 0, "embeddings");
        struct ir_usage u = { 0 };
        for (int t = json_first(j, list); t >= 0; t = json_next(j, list, t), n++)
            if (!is_vector(j, json_get(j, t, "values")))
                return TASK_BAD;
        n += is_vector(j, json_get(j, one, "values"));
        fig->seen = dialect_gemini.read_usage(j, task_get(j, 0, "usageMetadata", "usage_metadata"), &u);
        fig->meters = u.meters;
    } else {
        int data = json_get(j, 0, "data");
        for (int t = json_first(j, data); t >= 0; t = json_next(j, data, t), n++)
            if (!is_vector(j, json_get(j, t, "embedding")))
                return TASK_BAD;
        fig->seen = read_openai_usage(j, &fig->meters);
    }
    if (!fig->seen)
        fig->meters = (struct meters){ .n[METER_INPUT] = c->input_tokens };
    return n == c->inputs ? TASK_OK : TASK_BAD;
}

/* ---- write ---- */

/* The vectors of an OpenAI answer in the order of their index; -1 where one is missing. */
static int *by_index(const struct json *j, const struct task_call *c, struct arena *arena) {
    int data = json_get(j, 0, "data"), *at = arena_alloc(arena, c->inputs * sizeof *at);
    uint64_t n = 0;
    if (at == NULL)
        return NULL;
    for (uint64_t i = 0; i < c->inputs; i++)
        at[i] = -1;
    for (int t = json_first(j, data); t >= 0; t = json_next(j, data, t), n++) {
        uint64_t index = n;
        json_u64(j, json_get(j, t, "index"), &index);
        if (index < c->inputs)
            at[index] = json_get(j, t, "embedding");
    }
    return at;
}

static bool openai_to_gemini(const struct json *j, const struct task_call *c, const struct task_figures *fig,
                             const struct ir_cost *cost, struct arena *arena, struct buf *out) {
    struct json_writer w;
    int *at = by_index(j, c, arena);
    bool ok = at != NULL;
    jw_init(&w, out);
    jw_object(&w);
    jw_key(&w, c->batch ? "embeddings" : "embedding");
    if (c->batch)
        jw_array(&w);
    for (uint64_t i = 0; i < c->inputs && ok; i++) {
        ok = at[i] >= 0;
        jw_object(&w);
        jw_key(&w, "values");
        ok = ok && put_vector(&w, j, at[i], false, arena);
        jw_end_object(&w);
    }
    if (c->batch)
        jw_end_array(&w);
    jw_key(&w, "usageMetadata");
    jw_object(&w);
    jw_key(&w, "promptTokenCount");
    jw_u64(&w, meters_input(&fig->meters));
    task_put_cost(&w, cost, true);
    jw_end_object(&w);
    jw_end_object(&w);
    return ok && !w.failed;
}

static bool put_openai_vector(struct json_writer *w, const struct json *j, int embedding, uint64_t index, bool base64,
                              struct arena *arena) {
    jw_object(w);
    jw_key(w, "object");
    jw_cstr(w, "embedding");
    jw_key(w, "index");
    jw_u64(w, index);
    jw_key(w, "embedding");
    bool ok = put_vector(w, j, json_get(j, embedding, "values"), base64, arena);
    jw_end_object(w);
    return ok;
}

static void put_openai_usage(struct json_writer *w, const struct task_figures *fig, const struct ir_cost *cost) {
    jw_object(w);
    jw_key(w, "prompt_tokens");
    jw_u64(w, meters_input(&fig->meters));
    jw_key(w, "total_tokens");
    jw_u64(w, meters_input(&fig->meters));
    task_put_cost(w, cost, false);
    jw_end_object(w);
}

static bool gemini_to_openai(const struct json *j, const struct task_call *c, const struct task_figures *fig,
                             const struct ir_cost *cost, struct arena *arena, struct buf *out) {
    struct json_writer w;
    int one = json_get(j, 0, "embedding"), list = json_get(j, 0, "embeddings");
    uint64_t index = 0;
    bool ok = true;
    jw_init(&w, out);
    jw_object(&w);
    jw_key(&w, "object");
    jw_cstr(&w, "list");
    jw_key(&w, "data");
    jw_array(&w);
    if (json_get(j, one, "values") >= 0)
        ok = put_openai_vector(&w, j, one, index++, c->base64, arena);
    for (int t = json_first(j, list); t >= 0 && ok; t = json_next(j, list, t))
        ok = put_openai_vector(&w, j, t, index++, c->base64, arena);
    jw_end_array(&w);
    jw_key(&w, "model");
    jw_str(&w, c->model);
    jw_key(&w, "usage");
    put_openai_usage(&w, fig, cost);
    jw_end_object(&w);
    return ok && !w.failed;
}

/* The answer as it came, with the cost in its usage; with a usage where it had none. */
static bool pass(const struct json *j, const struct task_call *c, const struct task_figures *fig,
                 const struct ir_cost *cost, struct arena *arena, struct buf *out) {
    bool camel = c->client == IR_GEMINI;
    const char *name = camel && json_get(j, 0, "usage_metadata") >= 0 ? "usage_metadata"
                       : camel                                        ? "usageMetadata"
                                                                      : "usage";
    int usage = json_get(j, 0, name);
    if (json_is(j, usage, JSON_OBJECT) && fig->seen)
        return task_write_usage(j, name, task_usage(j, usage, cost, camel, arena), out);
    struct buf b;
    struct json_writer w;
    buf_init(&b, arena->pages, PAGE_BYTES);
    jw_init(&w, &b);
    if (camel) {
        jw_object(&w);
        jw_key(&w, "promptTokenCount");
        jw_u64(&w, meters_input(&fig->meters));
        task_put_cost(&w, cost, true);
        jw_end_object(&w);
    } else {
        put_openai_usage(&w, fig, cost);
    }
    bool ok = !w.failed && task_write_usage(j, name, buf_slice(&b), out);
    buf_release(&b);
    return ok;
}

bool embeddings_write(const struct json *j, const struct task_call *c, enum ir_dialect from,
                      const struct task_figures *fig, const struct ir_cost *cost, struct arena *arena,
                      struct buf *out) {
    if (from == c->client)
        return pass(j, c, fig, cost, arena, out);
    return c->client == IR_GEMINI ? openai_to_gemini(j, c, fig, cost, arena, out)
                                  : gemini_to_openai(j, c, fig, cost, arena, out);
}

/* ---- echo ---- */

/* A square root without libm, by Newton's rule: plenty for a length that is about 1 afterwards. */
static double root(double v) { /* not money */
    double r = v > 1 ? v : 1;  /* not money */
    for (int i = 0; i < 60; i++)
        r = (r + v / r) / 2;
    return r;
}

/* A unit vector that depends on the input alone. */
static bool put_echo_vector(struct json_writer *w, struct slice input, uint64_t dimensions, bool base64,
                            struct arena *arena) {
    uint8_t *bytes = arena_alloc(arena, dimensions * FLOAT_BYTES);
    double *x = arena_alloc(arena, dimensions * sizeof *x), sum = 0; /* not money */
    uint64_t seed = hash64(input.ptr, input.len, 0);
    struct buf text;
    if (bytes == NULL || x == NULL)
        return false;
    for (uint64_t i = 0; i < dimensions; i++) {
        x[i] = (double)(int32_t)(hash64(&seed, sizeof seed, i + 1) & 0xffffff) / 0x800000 - 1; /* not money */
        sum += x[i] * x[i];
    }
    double length = root(sum); /* not money */
    for (uint64_t i = 0; i < dimensions; i++)
        put_le(bytes + i * FLOAT_BYTES, (float)(length > 0 ? x[i] / length : 1)); /* not money */
    buf_init(&text, arena->pages, dimensions * 6 + PAGE_BYTES);
    bool ok = base64_encode(&text, bytes, dimensions * FLOAT_BYTES, false);
    if (base64) {
        jw_str(w, buf_slice(&text));
    } else {
        struct json v;
        struct slice quoted = task_quoted(arena, SLICE(""), buf_slice(&text));
        ok = ok && json_parse(&v, arena, quoted.ptr, quoted.len) && put_numbers(w, &v, 0, arena);
    }
    buf_release(&text);
    return ok;
}

/* Text of an input: a string, or a list of token ids as it stands. */
static struct slice echo_input(const struct json *j, int v, struct arena *arena) {
    return json_is(j, v, JSON_STRING) ? json_str(j, v, arena) : json_raw(j, v);
}

bool embeddings_echo(const struct json *j, const struct task_call *c, struct arena *arena, struct buf *out) {
    struct json_writer w;
    int input = json_get(j, 0, "input"),
        one = json_is(j, input, JSON_STRING) || json_is(j, json_first(j, input), JSON_NUMBER) ? input : -1;
    uint64_t dimensions = c->dimensions == 0                    ? ECHO_DIMENSIONS
                          : c->dimensions < ECHO_DIMENSIONS_MAX ? c->dimensions
                                                                : ECHO_DIMENSIONS_MAX;
    bool base64 = json_str_is(j, json_get(j, 0, "encoding_format"), "base64"), ok = true;
    uint64_t index = 0;
    jw_init(&w, out);
    jw_object(&w);
    jw_key(&w, "object");
    jw_cstr(&w, "list");
    jw_key(&w, "data");
    jw_array(&w);
    for (int v = one >= 0 ? one : json_first(j, input); v >= 0 && ok; v = one >= 0 ? -1 : json_next(j, input, v)) {
        jw_object(&w);
        jw_key(&w, "object");
        jw_cstr(&w, "embedding");
        jw_key(&w, "index");
        jw_u64(&w, index++);
        jw_key(&w, "embedding");
        ok = put_echo_vector(&w, echo_input(j, v, arena), dimensions, base64, arena);
        jw_end_object(&w);
    }
    jw_end_array(&w);
    jw_key(&w, "model");
    jw_str(&w, c->model);
    struct task_figures fig = { .meters.n[METER_INPUT] = c->input_tokens };
    struct ir_cost none = { 0 };
    jw_key(&w, "usage");
    put_openai_usage(&w, &fig, &none);
    jw_end_object(&w);
    return ok && !w.failed && !arena->overflow;
}
