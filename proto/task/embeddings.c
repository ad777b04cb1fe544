/* Embeddings, the request: POST /v1/embeddings of OpenAI (and of many servers like it), :embedContent and
 * :batchEmbedContents of Gemini. The same wire on both sides passes with a few splices; between the two the inputs are
 * written anew. The answer is embeddings_answer.c.
 *
 * What cannot cross: token ids to Gemini (nobody can turn them into text), pictures to OpenAI. All but inputs and
 * dimensions is dropped, and reported. */
#include "proto/task/embeddings.h"

/* ---- OpenAI in front ---- */

/* One input: a text (not empty), or a list of token ids. false: neither. */
static bool scan_input(const struct json *j, int v, struct task_call *c, struct pass_request *r) {
    if (json_is(j, v, JSON_STRING)) {
        r->prompt_bytes += json_str_len(j, v);
        return json_str_len(j, v) > 0;
    }
    uint64_t id, n = 0;
    for (int t = json_first(j, v); t >= 0; t = json_next(j, v, t), n++)
        if (!json_u64(j, t, &id))
            return false;
    c->ids = true;
    r->prompt_bytes += 4 * n; /* a token each, at the four bytes that estimates take for one */
    return json_is(j, v, JSON_ARRAY) && n > 0;
}

static void scan_inputs(const struct json *j, int input, struct task_call *c, struct pass_request *r) {
    int first = json_first(j, input);
    if (input < 0 || json_is(j, input, JSON_NULL)) {
        task_refuse(r, "missing_field", "input", "You must provide an 'input' parameter.");
        return;
    }
    c->single = json_is(j, input, JSON_STRING) || json_is(j, first, JSON_NUMBER);
    bool ok = c->single ? scan_input(j, input, c, r) : json_is(j, input, JSON_ARRAY) && first >= 0;
    bool texts = json_is(j, first, JSON_STRING);
    c->inputs = c->single ? 1 : 0;
    for (int t = c->single ? -1 : first; t >= 0 && ok; t = json_next(j, input, t), c->inputs++)
        ok = json_is(j, t, JSON_STRING) == texts && scan_input(j, t, c, r);
    if (!ok)
        task_refuse(r, "invalid_value", "input",
                    "'input' must be a string, an array of strings, an array of token ids or an array of such arrays; "
                    "none may be empty.");
    else if (c->inputs > TASK_INPUTS_MAX)
        task_refuse(r, "invalid_value", "input", "'input' holds more than 2048 entries.");
}

static void scan_dimensions(const struct json *j, int v, struct task_call *c, struct pass_request *r,
                            const char *name) {
    if (v >= 0 && !json_is(j, v, JSON_NULL) &&
        (!json_u64(j, v, &c->dimensions) || c->dimensions == 0 || c->dimensions > TASK_DIMENSIONS_MAX))
        task_refuse(r, "invalid_value", name, "The number of dimensions must be a positive integer.");
}

static void scan_openai(const struct json *j, struct task_call *c, struct pass_request *r, struct arena *arena) {
    static const char *const once[] = { "model", "input", "encoding_format", "dimensions" };
    if (!task_scan_object(j, r, once, 4))
        return;
    int format = json_get(j, 0, "encoding_format");
    task_scan_model(j, r, arena);
    scan_inputs(j, json_get(j, 0, "input"), c, r);
    scan_dimensions(j, json_get(j, 0, "dimensions"), c, r, "dimensions");
    c->base64 = json_str_is(j, format, "base64");
    if (format >= 0 && !json_is(j, format, JSON_NULL) && !c->base64 && !json_str_is(j, format, "float"))
        task_refuse(r, "invalid_value", "encoding_format", "'encoding_format' must be float or base64.");
}

/* ---- Gemini in front ---- */

static int content_parts(const struct json *j, int request) {
    return json_get(j, json_get(j, request, "content"), "parts");
}

static void scan_content(const struct json *j, int request, struct task_call *c, struct pass_request *r) {
    int parts = content_parts(j, request);
    uint64_t seen = 0;
    for (int p = json_first(j, parts); p >= 0; p = json_next(j, parts, p), seen++) {
        int text = json_get(j, p, "text");
        if (json_is(j, text, JSON_STRING))
            r->prompt_bytes += json_str_len(j, text);
        else if (task_get(j, p, "inlineData", "inline_data") >= 0)
            r->media++;
        else
            r->references++;
    }
    if (seen == 0)
        task_refuse(r, "missing_field", "content", "Each request must have a 'content' with at least one part.");
    scan_dimensions(j, task_get(j, request, "outputDimensionality", "output_dimensionality"), c, r,
                    "outputDimensionality");
    c->inputs++;
}

static void scan_gemini(const struct json *j, struct task_call *c, struct pass_request *r) {
    static const char *const once[] = { "content", "requests", "outputDimensionality", "output_dimensionality" };
    if (!task_scan_object(j, r, once, 4))
        return;
    c->single = !c->batch;
    if (!c->batch) {
        scan_content(j, 0, c, r);
        return;
    }
    int requests = json_get(j, 0, "requests");
    for (int t = json_first(j, requests); t >= 0; t = json_next(j, requests, t))
        scan_content(j, t, c, r);
    if (!json_is(j, requests, JSON_ARRAY) || c->inputs == 0)
        task_refuse(r, "missing_field", "requests", "'requests' must be an array with at least one request.");
    else if (c->inputs > TASK_INPUTS_MAX)
        task_refuse(r, "invalid_value", "requests", "'requests' holds more than 2048 entries.");
}

static void scan(const struct json *j, struct task_call *c, struct pass_request *r, struct arena *arena) {
    if (c->client == IR_GEMINI)
        scan_gemini(j, c, r);
    else
        scan_openai(j, c, r, arena);
    c->input_tokens = (r->prompt_bytes + 3) / 4;
}

/* ---- build ---- */

static void put_gemini_text(struct json_writer *w, const struct json *j, int text) {
    jw_key(w, "content");
    jw_object(w);
    jw_key(w, "parts");
    jw_array(w);
    jw_object(w);
    jw_key(w, "text");
    jw_raw(w, json_span(j, text));
    jw_end_object(w);
    jw_end_array(w);
    jw_end_object(w);
}

static void put_gemini_dimensions(struct json_writer *w, const struct task_call *c) {
    if (c->dimensions == 0)
        return;
    jw_key(w, "outputDimensionality");
    jw_u64(w, c->dimensions);
}

static bool openai_to_gemini(const struct json *j, const struct task_call *c, const struct task_target *t,
                             struct ir_dropped *d, struct arena *arena, struct buf *path, struct buf *out,
                             struct ir_fault *f) {
    struct json_writer w;
    int input = json_get(j, 0, "input");
    if (c->ids)
        return ir_refuse(f, "unsupported_parameter", SLICE("input"),
                         SLICE("This model takes text: token ids cannot be sent to its provider."));
    for (int k = json_first(j, 0); k >= 0; k = json_next(j, 0, k)) {
        static const char *const known[] = { "model", "input", "encoding_format", "dimensions" };
        bool kept = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            kept |= json_str_is(j, k, known[i]);
        if (!kept && !json_is(j, k + 1, JSON_NULL))
            ir_drop(d, json_str(j, k, arena));
    }
    jw_init(&w, out);
    jw_object(&w);
    if (c->single) {
        put_gemini_text(&w, j, input);
        put_gemini_dimensions(&w, c);
    } else {
        struct slice model = task_quoted(arena, SLICE("models/"), t->model);
        jw_key(&w, "requests");
        jw_array(&w);
        for (int v = json_first(j, input); v >= 0; v = json_next(j, input, v)) {
            jw_object(&w);
            jw_key(&w, "model");
            jw_raw(&w, model);
            put_gemini_text(&w, j, v);
            put_gemini_dimensions(&w, c);
            jw_end_object(&w);
        }
        jw_end_array(&w);
    }
    jw_end_object(&w);
    return !w.failed && task_gemini_path(t->model, c->single ? "embedContent" : "batchEmbedContents", path);
}

/* What OpenAI's has no place for, of a request or of a batch. */
static void drop_others(const struct json *j, int object, struct ir_dropped *d, struct arena *arena) {
    static const char *const known[] = { "model", "content", "requests", "outputDimensionality",
                                         "output_dimensionality" };
    for (int k = json_first(j, object); k >= 0; k = json_next(j, object, k)) {
        bool kept = json_is(j, k + 1, JSON_NULL);
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            kept |= json_str_is(j, k, known[i]);
        if (!kept)
            ir_drop(d, json_str_is(j, k, "task_type") ? SLICE("taskType") : json_str(j, k, arena));
    }
}

/* The texts of a content are one input. */
static bool put_openai_input(struct json_writer *w, const struct json *j, int request, struct ir_dropped *d,
                             struct arena *arena, struct ir_fault *f) {
    int parts = content_parts(j, request);
    drop_others(j, request, d, arena);
    jw_str_begin(w);
    for (int p = json_first(j, parts); p >= 0; p = json_next(j, parts, p)) {
        int text = json_get(j, p, "text");
        if (!json_is(j, text, JSON_STRING))
            return ir_refuse(f, "unsupported_parameter", SLICE("content.parts"), SLICE("This model embeds text only."));
        if (p != json_first(j, parts))
            jw_str_part(w, SLICE("\n"));
        jw_str_part(w, json_str(j, text, arena));
    }
    jw_str_end(w);
    return true;
}

static bool gemini_to_openai(const struct json *j, const struct task_call *c, const struct task_target *t,
                             struct ir_dropped *d, struct arena *arena, struct buf *path, struct buf *out,
                             struct ir_fault *f) {
    struct json_writer w;
    int requests = json_get(j, 0, "requests");
    bool ok = true;
    jw_init(&w, out);
    jw_object(&w);
    jw_key(&w, "model");
    jw_str(&w, t->model);
    jw_key(&w, "input");
    if (!c->batch) {
        ok = put_openai_input(&w, j, 0, d, arena, f);
    } else {
        drop_others(j, 0, d, arena);
        jw_array(&w);
        for (int v = json_first(j, requests); v >= 0 && ok; v = json_next(j, requests, v))
            ok = put_openai_input(&w, j, v, d, arena, f);
        jw_end_array(&w);
    }
    jw_key(&w, "encoding_format");
    jw_cstr(&w, "float");
    if (c->dimensions > 0) {
        jw_key(&w, "dimensions");
        jw_u64(&w, c->dimensions);
    }
    jw_end_object(&w);
    return ok && !w.failed && buf_append_slice(path, SLICE("/embeddings"));
}

/* A splice that gives a Gemini object the target's model; where it names none, one where it must. */
static void gemini_model(const struct json *j, int object, bool must, struct slice name, struct arena *arena,
                         struct splice *s, uint32_t *n) {
    int model = json_get(j, object, "model");
    if (model >= 0) {
        struct slice span = json_span(j, model);
        s[(*n)++] = (struct splice){ (uint32_t)(span.ptr - j->text), (uint32_t)span.len, name };
    } else if (must) {
        s[(*n)++] =
            (struct splice){ j->tok[object].start + 1, 0, arena_printf(arena, "\"model\":%.*s,", SLICE_ARG(name)) };
    }
}

static bool gemini_pass(const struct json *j, const struct task_call *c, const struct task_target *t,
                        struct ir_dropped *d, struct arena *arena, struct buf *path, struct buf *out) {
    struct splice *s = arena_alloc(arena, (c->inputs + 1) * sizeof *s);
    struct slice name = task_quoted(arena, SLICE("models/"), t->model);
    int requests = json_get(j, 0, "requests");
    uint32_t n = 0;
    if (s == NULL)
        return false;
    gemini_model(j, 0, false, name, arena, s, &n);
    for (int v = c->batch ? json_first(j, requests) : -1; v >= 0; v = json_next(j, requests, v))
        gemini_model(j, v, true, name, arena, s, &n);
    return task_gemini_path(t->model, c->batch ? "batchEmbedContents" : "embedContent", path) &&
           task_pass_body(j, t, d, s, n, arena, out);
}

static bool build(const struct json *j, const struct task_call *c, const struct task_target *t, struct ir_dropped *d,
                  struct arena *arena, struct buf *path, struct buf *out, struct ir_fault *f) {
    if (t->dialect != IR_OPENAI && t->dialect != IR_GEMINI)
        return ir_refuse(f, "unsupported_parameter", SLICE("model"),
                         SLICE("The provider of this model has no embeddings."));
    if (c->client == IR_GEMINI)
        return t->dialect == IR_GEMINI ? gemini_pass(j, c, t, d, arena, path, out)
                                       : gemini_to_openai(j, c, t, d, arena, path, out, f);
    if (t->dialect == IR_GEMINI)
        return openai_to_gemini(j, c, t, d, arena, path, out, f);
    return buf_append_slice(path, SLICE("/embeddings")) && task_pass_body(j, t, d, NULL, 0, arena, out);
}

const struct task_module task_embeddings = {
    .name = "embeddings",
    .scan = scan,
    .build = build,
    .read = embeddings_read,
    .write = embeddings_write,
    .echo = embeddings_echo,
};
