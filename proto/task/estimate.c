/* How many tokens a conversation has, without its provider's tokenizer. Text is weighed by its script: a short Latin word is one token and a
 * long one several, digits go two or three to a token, signs of punctuation are nearly one each, an ideograph is about one, other letters
 * three to two. On top of that come what a provider wraps around a message, a tool, a call and a result, and its hidden prompt for tools.
 *
 * The constants were fitted to recorded exchanges with Anthropic and Gemini (their counts of whole requests); docs/counting.md gives the
 * error. What cannot be seen from the request (pages of a document behind a URL, results of the provider's own tools) is not in it. Sums are
 * in hundredths of a token. */
#include "proto/task/task.h"

#include "proto/base/crypto.h"

enum {
    TOKEN = 100,
    IMAGE_UNKNOWN = 1200 * TOKEN, /* a picture whose size is not seen (Anthropic: pixels / 750, at most about 1,600) */
    ANTHROPIC_IMAGE_MAX = 1600 * TOKEN, ANTHROPIC_PIXELS = 750, GEMINI_IMAGE = 258 * TOKEN,
    HEAD_BYTES = 4096             /* of a picture that are decoded to find its size */
};

/* What a provider adds, and what its tools' definitions cost beside their text. */
struct frame {
    uint64_t request, message, system, tools, tool, call, result;
    uint64_t tool_percent;        /* of the text of a tool's definition */
    uint64_t hosted;              /* a tool of the provider's own */
    uint64_t signature_percent;   /* of a token per byte of an opaque block that travels with reasoning */
};
static const struct frame frames[IR_DIALECTS] = {
    [IR_OPENAI] = { 3 * TOKEN, 4 * TOKEN, 0, 0, 8 * TOKEN, 4 * TOKEN, 4 * TOKEN, 75, 0, 0 },
    [IR_RESPONSES] = { 3 * TOKEN, 4 * TOKEN, 0, 0, 8 * TOKEN, 4 * TOKEN, 4 * TOKEN, 75, 0, 0 },
    [IR_ANTHROPIC] = { 4 * TOKEN, 4 * TOKEN, 0, 390 * TOKEN, 10 * TOKEN, 40 * TOKEN, 25 * TOKEN, 100, 600 * TOKEN, 0 },
    [IR_GEMINI] = { 0, 1 * TOKEN, 0, 0, 8 * TOKEN, 5 * TOKEN, 5 * TOKEN, 175, 0, 10 },
};

/* ---- text ---- */

static bool is_letter(unsigned char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_digit(unsigned char c) { return c >= '0' && c <= '9'; }

/* A run of Latin letters: up to seven are one token; a run in capitals, or one without vowels enough, is no word and takes more. */
static uint64_t weigh_word(const char *p, size_t n) {
    size_t upper = 0;
    for (size_t i = 0; i < n; i++)
        upper += p[i] < 'a';
    if (n <= 2)
        return TOKEN;
    if (upper > n / 2)
        return n * TOKEN * 2 / 5;
    return n <= 8 ? TOKEN : n * TOKEN / 6;
}

/* A character beyond ASCII: its bytes in *bytes. */
static uint64_t weigh_wide(const unsigned char *p, size_t left, size_t *bytes) {
    *bytes = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (*bytes > left)
        *bytes = left;
    if (p[0] >= 0xf0)
        return 2 * TOKEN;         /* emoji and rare signs */
    if (p[0] >= 0xe3)
        return 95;                /* ideographs, kana, hangul */
    return p[0] >= 0xe0 ? 80 : 60; /* other scripts; accented, Greek and Cyrillic letters */
}

static uint64_t weigh(struct slice s) {
    uint64_t sum = 0;
    size_t i = 0, n;
    while (i < s.len) {
        unsigned char c = (unsigned char)s.ptr[i];
        for (n = 0; i + n < s.len && is_letter((unsigned char)s.ptr[i + n]);)
            n++;
        if (n > 0) {
            sum += weigh_word(s.ptr + i, n);
        } else if (is_digit(c)) {
            for (n = 1; i + n < s.len && is_digit((unsigned char)s.ptr[i + n]);)
                n++;
            sum += (n + 1) / 2 * (TOKEN * 4 / 5);
        } else if (c == '\\') { /* JSON's escapes, as they stand */
            n = i + 1 < s.len && s.ptr[i + 1] == 'u' ? 6 : 2;
            sum += n == 6 ? TOKEN * 4 / 5 : TOKEN / 2;
        } else if (c >= 0x80) {
            sum += weigh_wide((const unsigned char *)s.ptr + i, s.len - i, &n);
        } else {
            n = 1;
            sum += c == ' ' ? 0 : c < ' ' ? TOKEN / 2 : TOKEN * 7 / 10;
        }
        i += n;
    }
    return sum;
}

static uint64_t weigh_json(const struct json *j, int v) { return v >= 0 ? weigh(json_span(j, v)) : 0; }

/* A JSON string with its quotes off; escapes are weighed as they stand. */
static uint64_t weigh_string(const struct json *j, int v) { return json_is(j, v, JSON_STRING) ? weigh(json_raw(j, v)) : 0; }

/* ---- pictures ---- */

static uint32_t be(const uint8_t *p, int n) {
    uint32_t v = 0;
    for (int i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

/* Width × height of a PNG, GIF or JPEG from its first bytes; 0: not seen. */
static uint64_t pixels(const uint8_t *p, size_t n) {
    if (n >= 24 && memcmp(p, "\x89PNG", 4) == 0)
        return (uint64_t)be(p + 16, 4) * be(p + 20, 4);
    if (n >= 10 && memcmp(p, "GIF8", 4) == 0)
        return (uint64_t)(p[6] | p[7] << 8) * (unsigned)(p[8] | p[9] << 8);
    if (n < 4 || p[0] != 0xff || p[1] != 0xd8)
        return 0;
    for (size_t at = 2; at + 9 < n && p[at] == 0xff;) { /* ITU T.81, annex B: segments up to a frame header */
        uint8_t marker = p[at + 1];
        if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc)
            return (uint64_t)be(p + at + 5, 2) * be(p + at + 7, 2);
        at += 2 + be(p + at + 2, 2);
    }
    return 0;
}

static uint64_t weigh_image(struct slice base64, enum ir_dialect client) {
    uint8_t head[HEAD_BYTES / 4 * 3];
    size_t n = 0, take = base64.len < HEAD_BYTES ? base64.len / 4 * 4 : HEAD_BYTES;
    uint32_t bits = 0;
    if (client == IR_GEMINI)
        return GEMINI_IMAGE;
    for (size_t i = 0; i < take && n + 1 < sizeof head; i++) {
        unsigned char c = (unsigned char)base64.ptr[i];
        unsigned v = c >= 'A' && c <= 'Z' ? c - 'A' + 0u : c >= 'a' && c <= 'z' ? c - 'a' + 26u : is_digit(c) ? c - '0' + 52u : c == '+' || c == '-' ? 62u : 63u;
        bits = bits << 6 | v;
        if (i % 4 == 3)
            for (int k = 2; k >= 0; k--)
                head[n++] = (uint8_t)(bits >> (8 * k));
    }
    uint64_t seen = pixels(head, n) * TOKEN / ANTHROPIC_PIXELS + 10 * TOKEN;
    return pixels(head, n) == 0 ? IMAGE_UNKNOWN : seen < ANTHROPIC_IMAGE_MAX ? seen : ANTHROPIC_IMAGE_MAX;
}

/* ---- parts, messages, tools ---- */

struct sum { const struct json *j; const struct frame *f; enum ir_dialect client; uint64_t n; int depth; };

static void add_part(struct sum *s, int p);

static void add_content(struct sum *s, int content) {
    if (json_is(s->j, content, JSON_STRING))
        s->n += weigh_string(s->j, content);
    else if (json_is(s->j, content, JSON_ARRAY) && s->depth < 8)
        for (int p = json_first(s->j, content); p >= 0; p = json_next(s->j, content, p)) {
            s->depth++;
            add_part(s, p);
            s->depth--;
        }
}

static bool add_gemini_part(struct sum *s, int p) {
    const struct json *j = s->j;
    int call = task_get(j, p, "functionCall", "function_call"), result = task_get(j, p, "functionResponse", "function_response");
    int data = task_get(j, p, "inlineData", "inline_data"), signature = task_get(j, p, "thoughtSignature", "thought_signature");
    if (json_is(j, signature, JSON_STRING))
        s->n += json_raw(j, signature).len * s->f->signature_percent;
    if (call >= 0)
        s->n += s->f->call + weigh_string(j, json_get(j, call, "name")) + weigh_json(j, json_get(j, call, "args"));
    else if (result >= 0)
        s->n += s->f->result + weigh_string(j, json_get(j, result, "name")) + weigh_json(j, json_get(j, result, "response"));
    else if (data >= 0 || task_get(j, p, "fileData", "file_data") >= 0)
        s->n += GEMINI_IMAGE;
    return call >= 0 || result >= 0 || data >= 0;
}

static void add_part(struct sum *s, int p) {
    const struct json *j = s->j;
    int type = json_get(j, p, "type"), source = json_get(j, p, "source"), text = json_get(j, p, "text");
    if (json_is(j, p, JSON_STRING)) {
        s->n += weigh_string(j, p);
    } else if (s->client == IR_GEMINI) {
        if (!add_gemini_part(s, p))
            s->n += weigh_string(j, text);
    } else if (json_is(j, text, JSON_STRING)) {
        s->n += weigh_string(j, text);
    } else if (json_str_is(j, type, "tool_use") || json_str_is(j, type, "server_tool_use")) {
        s->n += s->f->call + weigh_string(j, json_get(j, p, "name")) + weigh_json(j, json_get(j, p, "input"));
    } else if (json_str_is(j, type, "image") || json_str_is(j, type, "document")) {
        int inner = json_get(j, source, "content");
        if (inner >= 0 || json_str_is(j, json_get(j, source, "type"), "text"))
            add_content(s, inner >= 0 ? inner : json_get(j, source, "data"));
        else
            s->n += weigh_image(json_is(j, json_get(j, source, "data"), JSON_STRING) ? json_raw(j, json_get(j, source, "data")) : SLICE(""), s->client);
    } else if (!json_str_is(j, type, "thinking") && !json_str_is(j, type, "redacted_thinking")) { /* earlier thinking is taken out */
        if (json_str_is(j, type, "tool_result"))
            s->n += s->f->result;
        add_content(s, json_get(j, p, "content"));
    }
}

static void add_messages(struct sum *s, int list) {
    const struct json *j = s->j;
    const char *name = s->client == IR_GEMINI ? "parts" : "content";
    for (int m = json_first(j, list); m >= 0 && json_is(j, list, JSON_ARRAY); m = json_next(j, list, m)) {
        s->n += s->f->message;
        add_content(s, json_get(j, m, name));
    }
    if (json_is(j, list, JSON_OBJECT))
        add_content(s, json_get(j, list, name));
}

/* The words of a declaration without its braces and the names that every schema has. */
static uint64_t weigh_schema(const struct json *j, int v, int depth) {
    static const char *const free_names[] = { "type", "properties", "required", "description", "name", "parameters", "items", "enum" };
    uint64_t sum = 0;
    if (json_is(j, v, JSON_STRING))
        return weigh_string(j, v);
    if (depth > 32)
        return 0;
    if (json_is(j, v, JSON_ARRAY))
        for (int t = json_first(j, v); t >= 0; t = json_next(j, v, t))
            sum += weigh_schema(j, t, depth + 1);
    if (json_is(j, v, JSON_OBJECT))
        for (int k = json_first(j, v); k >= 0; k = json_next(j, v, k)) {
            bool free_name = false;
            for (size_t i = 0; i < sizeof free_names / sizeof *free_names; i++)
                free_name |= json_str_is(j, k, free_names[i]);
            sum += (free_name ? 0 : weigh_string(j, k)) + weigh_schema(j, k + 1, depth + 1);
        }
    return sum;
}

/* Definitions that Anthropic puts in for its own tools (its documentation gives some of the figures). */
static uint64_t weigh_hosted(const struct sum *s, int tool) {
    static const struct { struct slice begin; uint64_t tokens; } known[] = {
        { SLICE("computer"), 1400 * TOKEN }, { SLICE("bash"), 245 * TOKEN }, { SLICE("text_editor"), 700 * TOKEN }
    };
    int type = json_get(s->j, tool, "type");
    for (size_t i = 0; i < sizeof known / sizeof *known && s->f->hosted > 0 && json_is(s->j, type, JSON_STRING); i++)
        if (slice_starts(json_raw(s->j, type), known[i].begin))
            return known[i].tokens;
    return s->f->hosted;
}

static void add_tools(struct sum *s, int tools) {
    const struct json *j = s->j;
    bool any = false;
    for (int t = json_first(j, tools); t >= 0 && json_is(j, tools, JSON_ARRAY); t = json_next(j, tools, t)) {
        int list = task_get(j, t, "functionDeclarations", "function_declarations");
        bool own = json_get(j, t, "input_schema") >= 0;
        for (int d = json_first(j, list); d >= 0; d = json_next(j, list, d), any = true)
            s->n += s->f->tool + weigh_schema(j, d, 0) * s->f->tool_percent / 100;
        if (own)
            s->n += s->f->tool + (weigh_string(j, json_get(j, t, "name")) + weigh_string(j, json_get(j, t, "description")) +
                                  weigh_json(j, json_get(j, t, "input_schema"))) * s->f->tool_percent / 100;
        else if (list < 0)
            s->n += weigh_hosted(s, t);
        any |= s->client != IR_GEMINI;
    }
    s->n += any ? s->f->tools : 0;
}

uint64_t task_estimate(const struct json *j, int root, enum ir_dialect client) {
    struct sum s = { .j = j, .f = &frames[client], .client = client, .n = frames[client].request };
    int system = client == IR_GEMINI ? json_get(j, task_get(j, root, "systemInstruction", "system_instruction"), "parts") : json_get(j, root, "system");
    add_messages(&s, json_get(j, root, client == IR_GEMINI ? "contents" : "messages"));
    if (system >= 0)
        s.n += s.f->system;
    add_content(&s, system);
    add_tools(&s, json_get(j, root, "tools"));
    return (s.n + TOKEN - 1) / TOKEN;
}
