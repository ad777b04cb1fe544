/* Pictures, the answer: how many came, what their tokens were, and the body with its cost. A picture is counted where
 * data has a url or b64_json, never more than were asked for. And the built-in provider: a small PNG (ISO/IEC 15948)
 * whose colours depend on the prompt. */
#include "proto/task/images.h"

#include "proto/base/crypto.h"
#include "proto/dialect/dialect.h"

enum { ECHO_SIDE = 16, BYTES_A_PIXEL = 3, PNG_MAX = 4096 };

/* ---- read ---- */

static uint64_t count_at(const struct json *j, int object, const char *name) {
    uint64_t v = 0;
    return json_u64(j, json_get(j, object, name), &v) ? v : 0;
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* gpt-image: text and image tokens in, image (and perhaps text) tokens out, each at a price of its own. */
static bool read_usage(const struct json *j, int usage, struct meters *m) {
    uint64_t in, out;
    if (!json_u64(j, json_get(j, usage, "input_tokens"), &in) ||
        !json_u64(j, json_get(j, usage, "output_tokens"), &out))
        return false;
    int in_details = json_get(j, usage, "input_tokens_details"),
        out_details = json_get(j, usage, "output_tokens_details");
    m->n[METER_CACHED_INPUT] = least(count_at(j, in_details, "cached_tokens"), in);
    in -= m->n[METER_CACHED_INPUT];
    m->n[METER_IMAGE_INPUT] = least(count_at(j, in_details, "image_tokens"), in);
    m->n[METER_INPUT] = in - m->n[METER_IMAGE_INPUT];
    m->n[METER_OUTPUT] = least(count_at(j, out_details, "text_tokens"), out);
    m->n[METER_IMAGE_OUTPUT] = out - m->n[METER_OUTPUT];
    return in + out > 0;
}

static bool is_picture(const struct json *j, int part) {
    int data = task_get(j, part, "inlineData", "inline_data");
    bool thought = false;
    json_bool(j, json_get(j, part, "thought"), &thought);
    return !thought && json_is(j, json_get(j, data, "data"), JSON_STRING);
}

/* The next picture in a Gemini answer behind *candidate and *part (-1, -1: the first), or -1. */
static int next_picture(const struct json *j, int *candidate, int *part) {
    int list = json_get(j, 0, "candidates");
    if (*candidate < 0)
        *candidate = json_first(j, list);
    while (*candidate >= 0) {
        int parts = json_get(j, json_get(j, *candidate, "content"), "parts");
        for (*part = *part < 0 ? json_first(j, parts) : json_next(j, parts, *part); *part >= 0;
             *part = json_next(j, parts, *part))
            if (is_picture(j, *part))
                return *part;
        *candidate = json_next(j, list, *candidate);
    }
    return -1;
}

/* A 200 without a picture: the provider's filter, or words instead. Either way the prompt is what must change. */
static enum task_result no_picture(const struct json *j, struct arena *arena, struct ir_fault *f) {
    int candidate = json_first(j, json_get(j, 0, "candidates")),
        parts = json_get(j, json_get(j, candidate, "content"), "parts");
    struct slice why = json_str(j, json_get(j, json_get(j, 0, "promptFeedback"), "blockReason"), arena);
    struct slice said = json_str(j, json_get(j, json_first(j, parts), "text"), arena);
    if (why.ptr == NULL)
        why = json_str(j, json_get(j, candidate, "finishReason"), arena);
    if (said.len > 500)
        said.len = 500;
    *f = (struct ir_fault){
        .status = 400, .blame = IR_BLAME_CLIENT, .code = SLICE("content_policy_violation"), .param = SLICE("prompt")
    };
    f->message = said.len > 0 ? arena_printf(arena, "The model made no picture. It said: %.*s", SLICE_ARG(said))
                              : arena_printf(arena, "The model made no picture (%.*s).",
                                             why.ptr ? (int)least(why.len, 60) : 7, why.ptr ? why.ptr : "no word");
    return TASK_ERROR;
}

enum task_result images_read(const struct json *j, const struct task_call *c, enum ir_dialect from, struct arena *arena,
                             struct task_figures *fig, struct ir_fault *f) {
    uint64_t pictures = 0;
    if (task_is_error(j, arena, f))
        return TASK_ERROR;
    if (from == IR_GEMINI) {
        struct ir_usage u = { 0 };
        for (int candidate = -1, part = -1; next_picture(j, &candidate, &part) >= 0;)
            pictures++;
        if (pictures == 0)
            return no_picture(j, arena, f);
        fig->seen = dialect_gemini.read_usage(j, task_get(j, 0, "usageMetadata", "usage_metadata"), &u);
        fig->meters = u.meters;
    } else {
        int data = json_get(j, 0, "data");
        if (!json_is(j, data, JSON_ARRAY))
            return TASK_BAD;
        for (int t = json_first(j, data); t >= 0; t = json_next(j, data, t))
            pictures +=
                json_is(j, json_get(j, t, "url"), JSON_STRING) || json_is(j, json_get(j, t, "b64_json"), JSON_STRING);
        fig->seen = read_usage(j, json_get(j, 0, "usage"), &fig->meters);
    }
    if (!fig->seen) {
        fig->meters = (struct meters){ .n[METER_INPUT] = c->input_tokens };
        fig->meters.n[METER_IMAGE_OUTPUT] = least(pictures, c->n) * task_image_tokens(c->size, c->quality);
    }
    fig->meters.n[METER_IMAGES] = least(pictures, c->n);
    return TASK_OK;
}

/* ---- write ---- */

static void put_usage(struct json_writer *w, const struct meters *m, bool tokens, const struct ir_cost *cost) {
    uint64_t in = meters_input(m), out = meters_output(m);
    jw_object(w);
    if (tokens) {
        jw_key(w, "input_tokens");
        jw_u64(w, in);
        jw_key(w, "input_tokens_details");
        jw_object(w);
        jw_key(w, "text_tokens");
        jw_u64(w, in - m->n[METER_IMAGE_INPUT]);
        jw_key(w, "image_tokens");
        jw_u64(w, m->n[METER_IMAGE_INPUT]);
        jw_end_object(w);
        jw_key(w, "output_tokens");
        jw_u64(w, out);
        jw_key(w, "total_tokens");
        jw_u64(w, in + out);
    } else {
        jw_key(w, "images");
        jw_u64(w, m->n[METER_IMAGES]);
    }
    task_put_cost(w, cost, false);
    jw_end_object(w);
}

static bool pass(const struct json *j, const struct task_figures *fig, const struct ir_cost *cost,
                 struct arena *arena, struct buf *out) {
    int usage = json_get(j, 0, "usage");
    if (json_is(j, usage, JSON_OBJECT))
        return task_write_usage(j, "usage", task_usage(j, usage, cost, false, arena), out);
    if (!cost->show)
        return buf_append(out, j->text, j->len);
    struct buf b;
    struct json_writer w;
    buf_init(&b, arena->pages, PAGE_BYTES);
    jw_init(&w, &b);
    put_usage(&w, &fig->meters, false, cost);
    bool ok = !w.failed && task_write_usage(j, "usage", buf_slice(&b), out);
    buf_release(&b);
    return ok;
}

static bool from_gemini(const struct json *j, const struct task_call *c, const struct task_figures *fig,
                        const struct ir_cost *cost, struct arena *arena, struct buf *out) {
    struct json_writer w;
    struct slice type = SLICE_NONE;
    uint64_t n = 0;
    jw_init(&w, out);
    jw_object(&w);
    jw_key(&w, "created");
    jw_i64(&w, c->now_s);
    jw_key(&w, "data");
    jw_array(&w);
    for (int candidate = -1, part = -1; n < c->n && next_picture(j, &candidate, &part) >= 0; n++) {
        int data = task_get(j, part, "inlineData", "inline_data");
        type = json_str(j, task_get(j, data, "mimeType", "mime_type"), arena);
        jw_object(&w);
        jw_key(&w, "b64_json");
        jw_raw(&w, json_span(j, json_get(j, data, "data")));
        jw_end_object(&w);
    }
    jw_end_array(&w);
    if (slice_starts(type, SLICE("image/"))) {
        jw_key(&w, "output_format");
        jw_str(&w, slice_from(type, 6));
    }
    jw_key(&w, "usage");
    put_usage(&w, &fig->meters, fig->seen, cost);
    jw_end_object(&w);
    return !w.failed;
}

bool images_write(const struct json *j, const struct task_call *c, enum ir_dialect from, const struct task_figures *fig,
                  const struct ir_cost *cost, struct arena *arena, struct buf *out) {
    return from == IR_GEMINI ? from_gemini(j, c, fig, cost, arena, out) : pass(j, fig, cost, arena, out);
}

/* ---- echo ---- */

struct png {
    uint8_t at[PNG_MAX];
    size_t n;
};

static void put_byte(struct png *p, unsigned v) {
    if (p->n < PNG_MAX)
        p->at[p->n++] = (uint8_t)v;
}

static void put_u32(struct png *p, uint32_t v) {
    for (int i = 3; i >= 0; i--)
        put_byte(p, v >> (8 * i) & 0xff);
}

static uint32_t crc32_of(const uint8_t *p, size_t n) { /* ISO/IEC 15948, annex D, without its table */
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

static size_t chunk_begin(struct png *p, uint32_t length, const char *type) {
    put_u32(p, length);
    for (int i = 0; i < 4; i++)
        put_byte(p, (unsigned char)type[i]);
    return p->n - 4;
}

static void chunk_end(struct png *p, size_t from) { put_u32(p, crc32_of(p->at + from, p->n - from)); }

/* One stored deflate block in a zlib wrapper (RFC 1950, RFC 1951 §3.2.4). */
static void put_pixels(struct png *p, uint64_t seed) {
    enum { ROW = 1 + ECHO_SIDE * BYTES_A_PIXEL, RAW = ROW * ECHO_SIDE };
    uint32_t a = 1, b = 0;
    size_t chunk = chunk_begin(p, 2 + 5 + RAW + 4, "IDAT");
    put_byte(p, 0x78);
    put_byte(p, 0x01);
    put_byte(p, 1);
    put_byte(p, RAW & 0xff);
    put_byte(p, RAW >> 8);
    put_byte(p, ~RAW & 0xff);
    put_byte(p, ~RAW >> 8 & 0xff);
    for (unsigned i = 0; i < RAW; i++) {
        unsigned row = i / ROW, column = i % ROW; /* the first byte of a row is its filter: none */
        unsigned v = column == 0 ? 0 : ((unsigned)(seed >> (8 * (column % 3))) + row * 5 + column) & 0xff;
        put_byte(p, v);
        a = (a + v) % 65521;
        b = (b + a) % 65521;
    }
    put_u32(p, b << 16 | a);
    chunk_end(p, chunk);
}

static void make_png(struct png *p, uint64_t seed) {
    static const uint8_t signature[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
    p->n = 0;
    for (size_t i = 0; i < sizeof signature; i++)
        put_byte(p, signature[i]);
    size_t chunk = chunk_begin(p, 13, "IHDR");
    put_u32(p, ECHO_SIDE);
    put_u32(p, ECHO_SIDE);
    put_byte(p, 8); /* bits a sample */
    put_byte(p, 2); /* true colour */
    put_byte(p, 0);
    put_byte(p, 0);
    put_byte(p, 0);
    chunk_end(p, chunk);
    put_pixels(p, seed);
    chunk_end(p, chunk_begin(p, 0, "IEND"));
}

bool images_echo(const struct json *j, const struct task_call *c, struct arena *arena, struct buf *out) {
    struct slice prompt = json_str(j, json_get(j, 0, "prompt"), arena);
    struct json_writer w;
    struct png *png = arena_alloc(arena, sizeof *png);
    bool ok = png != NULL;
    jw_init(&w, out);
    jw_object(&w);
    jw_key(&w, "created");
    jw_i64(&w, c->now_s);
    jw_key(&w, "data");
    jw_array(&w);
    for (uint64_t i = 0; i < c->n && ok; i++) {
        struct buf b64;
        buf_init(&b64, arena->pages, 2 * PNG_MAX);
        make_png(png, hash64(prompt.ptr, prompt.len, i));
        ok = base64_encode(&b64, png->at, png->n, false);
        jw_object(&w);
        jw_key(&w, c->b64 ? "b64_json" : "url");
        jw_str_begin(&w);
        jw_str_part(&w, c->b64 ? SLICE("") : SLICE("data:image/png;base64,"));
        jw_str_part(&w, buf_slice(&b64));
        jw_str_end(&w);
        jw_key(&w, "revised_prompt");
        jw_str(&w, prompt);
        jw_end_object(&w);
        buf_release(&b64);
    }
    jw_end_array(&w);
    jw_end_object(&w);
    return ok && !w.failed && !arena->overflow;
}
