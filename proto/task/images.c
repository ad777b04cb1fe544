/* Pictures from a prompt, the request: POST /v1/images/generations. To servers that speak OpenAI's wire it passes; to
 * Gemini's image models it becomes a generateContent that asks for a picture. The answer is images_answer.c.
 *
 * Checked before anything is held: the prompt and its length, size and quality against the model's lists, n,
 * response_format. Size and quality decide the price, so where the client names none the default is 1024x1024 and
 * standard (the providers' own), else the first of the model's list, which is then sent along.
 *
 * To Gemini: one picture a call; the size becomes the nearest aspect ratio; pictures always come as b64_json, for there
 * is no place to serve a URL from. What falls away is reported. */
#include "proto/task/images.h"

#include <string.h>

/* ---- scan and check ---- */

/* Code points: what people and providers call characters. */
static uint64_t characters(struct slice s) {
    uint64_t n = 0;
    for (size_t i = 0; i < s.len; i++)
        n += ((unsigned char)s.ptr[i] & 0xc0) != 0x80;
    return n;
}

/* A member that is absent or null is not there. */
static int present(const struct json *j, const char *name) {
    int v = json_get(j, 0, name);
    return json_is(j, v, JSON_NULL) ? -1 : v;
}

static struct slice word(const struct json *j, const char *name, struct pass_request *r, struct arena *arena) {
    int v = present(j, name);
    if (v >= 0 && (!json_is(j, v, JSON_STRING) || json_str_len(j, v) == 0))
        task_refuse(r, "invalid_value", name, "This member must be a non-empty string.");
    return json_str(j, v, arena);
}

static void scan_format(const struct json *j, struct task_call *c, struct pass_request *r) {
    int format = present(j, "response_format");
    c->b64 = json_str_is(j, format, "b64_json");
    c->url = json_str_is(j, format, "url");
    if (format >= 0 && !c->b64 && !c->url)
        task_refuse(r, "invalid_value", "response_format", "'response_format' must be url or b64_json.");
}

/* A picture's price is that of one still picture: animations are many, and drawings come from another model, which the
 * request names. */
static void scan_still(const struct json *j, struct pass_request *r) {
    static const char *const members[] = { "frame_count", "svg" };
    int format = present(j, "output_format");
    if (json_str_is(j, format, "gif") || json_str_is(j, format, "svg"))
        task_refuse(r, "unsupported_parameter", "output_format", "Only still pictures of pixels are made here.");
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        if (present(j, members[i]) >= 0)
            task_refuse(r, "unsupported_parameter", members[i], "Only still pictures of pixels are made here.");
}

static void scan(const struct json *j, struct task_call *c, struct pass_request *r, struct arena *arena) {
    static const char *const once[] = { "model", "prompt", "n", "size", "quality", "response_format", "output_format" };
    bool stream = false;
    if (!task_scan_object(j, r, once, 7))
        return;
    int prompt = present(j, "prompt"), n = present(j, "n");
    task_scan_model(j, r, arena);
    if (prompt < 0)
        task_refuse(r, "missing_field", "prompt", "Missing required parameter: 'prompt'.");
    else if (json_str_len(j, prompt) == 0)
        task_refuse(r, "invalid_value", "prompt", "'prompt' must be a non-empty string.");
    r->prompt_bytes = json_str_len(j, prompt);
    c->prompt_characters = characters(json_str(j, prompt, arena));
    c->n = 1;
    if (n >= 0 && (!json_u64(j, n, &c->n) || c->n == 0))
        task_refuse(r, "invalid_value", "n", "'n' must be a positive integer.");
    c->size = word(j, "size", r, arena);
    c->quality = word(j, "quality", r, arena);
    scan_format(j, c, r);
    if (json_bool(j, present(j, "stream"), &stream) && stream)
        task_refuse(r, "unsupported_parameter", "stream", "Pictures are not streamed here: leave 'stream' out.");
    scan_still(j, r);
    c->input_tokens = (r->prompt_bytes + 3) / 4;
}

static bool listed(const struct slice *list, uint32_t n, struct slice word) {
    for (uint32_t i = 0; i < n; i++)
        if (slice_eq(list[i], word))
            return true;
    return n == 0;
}

/* The word in effect. *add: it must be sent, for the provider would take another. */
static struct slice in_effect(struct slice asked, const struct slice *list, uint32_t n, struct slice usual, bool *add) {
    *add = false;
    if (asked.ptr != NULL || listed(list, n, usual))
        return asked.ptr != NULL ? asked : usual;
    *add = true;
    return list[0];
}

static void check(const struct json *j, struct task_call *c, const struct task_model *m, struct pass_request *r) {
    (void)j;
    c->size = in_effect(c->size, m->sizes, m->size_count, SLICE("1024x1024"), &c->add_size);
    c->quality = in_effect(c->quality, m->qualities, m->quality_count, SLICE("standard"), &c->add_quality);
    if (m->prompt_max > 0 && c->prompt_characters > m->prompt_max)
        task_refuse(r, "invalid_value", "prompt", "The prompt is longer than this model takes.");
    if (!listed(m->sizes, m->size_count, c->size))
        task_refuse(r, "invalid_value", "size", "This size is not available for this model.");
    if (!listed(m->qualities, m->quality_count, c->quality))
        task_refuse(r, "invalid_value", "quality", "This quality is not available for this model.");
    if (c->n > (m->n_max > 0 ? m->n_max : TASK_N_DEFAULT))
        task_refuse(r, "invalid_value", "n", "This model does not make so many pictures in one call.");
}

uint64_t task_image_tokens(struct slice size, struct slice quality) {
    int row = slice_is(quality, "low") ? 0 : slice_is(quality, "medium") ? 1 : 2;
    static const uint64_t tokens[3][3] = { { 272, 408, 400 }, { 1056, 1584, 1568 }, { 4160, 6240, 6208 } };
    return tokens[row][slice_is(size, "1024x1024") ? 0 : slice_is(size, "1536x1024") ? 2 : 1];
}

/* ---- build ---- */

static const struct aspect {
    unsigned w, h;
} aspects[] = { { 1, 1 }, { 2, 3 }, { 3, 2 }, { 3, 4 }, { 4, 3 }, { 4, 5 }, { 5, 4 }, { 9, 16 }, { 16, 9 }, { 21, 9 } };

/* The aspect nearest to WxH, by how many times one is wider than the other; NULL: not such a size. */
static const struct aspect *nearest(struct slice size) {
    const char *x = memchr(size.ptr, 'x', size.len);
    uint64_t w, h, best_over = 0, best_under = 1;
    const struct aspect *best = NULL;
    if (x == NULL || !slice_to_u64(slice_of(size.ptr, (size_t)(x - size.ptr)), &w) ||
        !slice_to_u64(slice_from(size, (size_t)(x - size.ptr) + 1), &h) || w == 0 || h == 0 || w > 100000 || h > 100000)
        return NULL;
    for (size_t i = 0; i < sizeof aspects / sizeof *aspects; i++) {
        uint64_t a = w * aspects[i].h, b = h * aspects[i].w, over = a > b ? a : b, under = a > b ? b : a;
        if (best == NULL || over * best_under < best_over * under) {
            best = &aspects[i];
            best_over = over;
            best_under = under;
        }
    }
    return best;
}

static void put_generation(struct json_writer *w, const struct task_call *c, bool sized) {
    char ratio[16];
    const struct aspect *a = sized ? nearest(c->size) : NULL;
    jw_key(w, "generationConfig");
    jw_object(w);
    jw_key(w, "responseModalities");
    jw_array(w);
    jw_cstr(w, "TEXT");
    jw_cstr(w, "IMAGE");
    jw_end_array(w);
    if (a != NULL) {
        size_t n = fixed_format(ratio, a->w, 0);
        ratio[n++] = ':';
        n += fixed_format(ratio + n, a->h, 0);
        jw_key(w, "imageConfig");
        jw_object(w);
        jw_key(w, "aspectRatio");
        jw_str(w, slice_of(ratio, n));
        jw_end_object(w);
    }
    jw_end_object(w);
}

static bool to_gemini(const struct json *j, const struct task_call *c, const struct task_target *t,
                      struct ir_dropped *d, struct arena *arena, struct buf *path, struct buf *out,
                      struct ir_fault *f) {
    struct json_writer w;
    if (c->n > 1)
        return ir_refuse(f, "unsupported_parameter", SLICE("n"),
                         SLICE("This model makes one picture a call: 'n' must be 1."));
    for (int k = json_first(j, 0); k >= 0; k = json_next(j, 0, k)) {
        bool kept = json_str_is(j, k, "model") || json_str_is(j, k, "prompt") || json_str_is(j, k, "n") ||
                    (json_str_is(j, k, "response_format") && !c->url);
        if (!kept && !json_is(j, k + 1, JSON_NULL))
            ir_drop(d, json_str(j, k, arena));
    }
    jw_init(&w, out);
    jw_object(&w);
    jw_key(&w, "contents");
    jw_array(&w);
    jw_object(&w);
    jw_key(&w, "role");
    jw_cstr(&w, "user");
    jw_key(&w, "parts");
    jw_array(&w);
    jw_object(&w);
    jw_key(&w, "text");
    jw_raw(&w, json_span(j, json_get(j, 0, "prompt")));
    jw_end_object(&w);
    jw_end_array(&w);
    jw_end_object(&w);
    jw_end_array(&w);
    put_generation(&w, c, present(j, "size") >= 0 || c->add_size);
    jw_end_object(&w);
    return !w.failed && task_gemini_path(t->model, "generateContent", path);
}

/* A default that must be sent: in the place of a null, else in front. */
static void add_word(const struct json *j, const char *name, struct slice word, struct arena *arena, struct splice *s,
                     uint32_t *n) {
    int v = json_get(j, 0, name);
    struct slice quoted = task_quoted(arena, SLICE(""), word);
    if (v >= 0) {
        struct slice span = json_span(j, v);
        s[(*n)++] = (struct splice){ (uint32_t)(span.ptr - j->text), (uint32_t)span.len, quoted };
    } else {
        s[(*n)++] =
            (struct splice){ j->tok[0].start + 1, 0, arena_printf(arena, "\"%s\":%.*s,", name, SLICE_ARG(quoted)) };
    }
}

static bool build(const struct json *j, const struct task_call *c, const struct task_target *t, struct ir_dropped *d,
                  struct arena *arena, struct buf *path, struct buf *out, struct ir_fault *f) {
    struct splice s[2];
    uint32_t n = 0;
    if (t->dialect == IR_GEMINI)
        return to_gemini(j, c, t, d, arena, path, out, f);
    if (t->dialect == IR_ANTHROPIC)
        return ir_refuse(f, "unsupported_parameter", SLICE("model"),
                         SLICE("The provider of this model makes no pictures."));
    if (c->add_size)
        add_word(j, "size", c->size, arena, s, &n);
    if (c->add_quality)
        add_word(j, "quality", c->quality, arena, s, &n);
    return buf_append_slice(path, SLICE("/images/generations")) && task_pass_body(j, t, d, s, n, arena, out);
}

const struct task_module task_images = {
    .name = "images",
    .scan = scan,
    .check = check,
    .build = build,
    .read = images_read,
    .write = images_write,
    .echo = images_echo,
};
