/* How many tokens a conversation has, without its provider: its texts by their weight (weigh.c), and around them what
 * the provider adds (counter.c): to messages, tools, calls and results, its hidden prompt for tools, pictures by their
 * size. Who would be asked decides how much that is, not whose dialect the client speaks.
 *
 * What cannot be seen from the request is not in it: pages of a document behind a URL, what the provider's own tools
 * find. docs/counting.md has the error. Sums are in hundredths of a token. */
#include "proto/base/check.h"
#include "proto/base/crypto.h"
#include "proto/task/counter.h"
#include "proto/task/media.h"

enum {
    TOKEN = WEIGH_TOKEN,
    TEXT_WEIGHED = 2 << 20, /* bytes; what is beyond weighs as these did, so that a count takes some milliseconds */
    PDF_SEARCHED = 4 << 20, /* bytes of base64, of all documents */
    NESTED_MAX = 32,        /* schemas in schemas, results in results: deeper ones are not looked at */
    CITATIONS = 600,        /* what Claude is told of citing */
    PACKED = 100,           /* a document that is neither text nor PDF: its text cannot be seen */
    DOCUMENT = 45,          /* around a document of text */
    REFERENCE = 60          /* the declaration of a tool that was found by a search */
};

struct sum {
    const struct json *j;
    struct counter c;
    uint64_t n;
    uint64_t seen, weighed; /* of the texts so far: bytes, and what they weighed */
    size_t pdf_budget;
    uint64_t pictures, tiles; /* so far, pages too; the last one's */
    bool citations, now; /* now: within the turn that is not over, whose reasoning counts */
    int depth;
};

static void add_tokens(struct sum *s, uint64_t tokens) { s->n += tokens * TOKEN; }

static void add_text(struct sum *s, struct slice text) {
    size_t room = s->seen < TEXT_WEIGHED ? TEXT_WEIGHED - s->seen : 0, take = text.len < room ? text.len : room;
    uint64_t weight = weigh_text(slice_of(text.ptr, take), s->c.by);
    s->seen += take;
    s->weighed += weight;
    s->n += weight;
    if (text.len > take)
        s->n += (text.len - take) * s->weighed / s->seen;
}

static void add_string(struct sum *s, int v) {
    if (json_is(s->j, v, JSON_STRING))
        add_text(s, json_raw(s->j, v));
}

static void add_json(struct sum *s, int v) {
    if (v >= 0)
        add_text(s, json_span(s->j, v));
}

/* Google's providers count the names and texts in a JSON value, and Vertex AI nothing else of it. */
static void add_words(struct sum *s, int v) {
    const struct json *j = s->j;
    uint32_t end = v >= 0 ? j->tok[v].next : 0;
    for (uint32_t t = v >= 0 ? (uint32_t)v : 0; t < end; t++)
        if (j->tok[t].type == JSON_STRING || (j->tok[t].type > JSON_STRING && s->c.manner == COUNTER_GEMINI))
            add_text(s, json_raw(j, (int)t));
}

static bool is_google(const struct sum *s) { return s->c.manner == COUNTER_GEMINI || s->c.manner == COUNTER_VERTEX; }

static void add_arguments(struct sum *s, int v) {
    if (is_google(s))
        add_words(s, v);
    else
        add_json(s, v);
}

/* ---- pictures and documents -------------------------------------------------------------------------------------- */

/* Anthropic: fitted to a longest edge (1,568 pixels, 2,576 since Claude 4.7), an area of 750 pixels is a token. */
static uint64_t claude_picture(const struct counter *c, uint64_t w, uint64_t h) {
    uint64_t edge = c->version >= 47 ? 2576 : 1568, longest = w > h ? w : h;
    if (longest > edge) {
        w = w * edge / longest;
        h = h * edge / longest;
    }
    return w * h / 750 + 4;
}

/* OpenAI: fitted into 2,048 pixels square, then to a shortest edge of 768; 85 tokens and 170 for each tile of 512. The
 * small models: patches of 32 pixels. */
static uint64_t openai_picture(const struct counter *c, uint64_t w, uint64_t h) {
    if (c->patch_percent > 0) {
        uint64_t patches = ((w + 31) / 32) * ((h + 31) / 32);
        return (patches < c->media->picture_max ? patches : c->media->picture_max) * c->patch_percent / 100;
    }
    uint64_t longest = w > h ? w : h;
    if (longest > 2048) {
        w = w * 2048 / longest;
        h = h * 2048 / longest;
    }
    uint64_t shortest = w < h ? w : h;
    if (shortest > 768) {
        w = w * 768 / shortest;
        h = h * 768 / shortest;
    }
    return (85 + 170 * ((w + 511) / 512) * ((h + 511) / 512)) * c->tile_percent / 100;
}

/* Google: up to 384 pixels square at one rate; what is larger is cut into tiles and shown as a whole besides. Seen of
 * Vertex AI, and of the API up to 2.0, where there is but one picture or page; since then the rate is flat. */
static void note_picture(struct sum *s, uint64_t w, uint64_t h) {
    uint64_t shortest = w < h ? w : h, tile = shortest * 2 / 3;
    tile = tile < 256 ? 256 : tile > 768 ? 768 : tile;
    s->pictures++;
    s->tiles = w > 384 || h > 384 ? ((w + tile - 1) / tile) * ((h + tile - 1) / tile) : 0;
}

/* base64: empty where the picture is elsewhere. */
static void add_picture(struct sum *s, struct slice base64) {
    struct media_size size = media_size(base64);
    uint64_t n = s->c.media->picture;
    if (size.width > 0 && size.height > 0 && s->c.manner == COUNTER_CLAUDE)
        n = claude_picture(&s->c, size.width, size.height);
    else if (size.width > 0 && size.height > 0 && s->c.manner == COUNTER_OPENAI)
        n = openai_picture(&s->c, size.width, size.height);
    note_picture(s, size.width, size.height);
    bool capped = s->c.manner != COUNTER_OPENAI && n > s->c.media->picture_max;
    add_tokens(s, capped ? s->c.media->picture_max : n);
}

static void add_pages(struct sum *s, uint64_t pages) {
    add_tokens(s, pages * s->c.media->page);
    note_picture(s, 612, 792); /* points: a letter */
    s->pictures += pages - 1;
}

/* Audio is counted by its seconds: 128 kbit a second in a compressed file, 24,000 samples of 16 bits in a bare one.
 * Of a film one picture a second (Gemini: 258 tokens, since 3 about 70), at about a megabit. */
static void add_media(struct sum *s, struct slice type, struct slice base64) {
    uint64_t bytes = base64.len / 4 * 3;
    if (slice_starts(type, SLICE("image/")))
        add_picture(s, base64);
    else if (slice_starts(type, SLICE("audio/")))
        add_tokens(s, bytes * s->c.media->second / (slice_is(type, "audio/wav") ? 48000 : 16000) + 1);
    else if (slice_starts(type, SLICE("video/")))
        add_tokens(s, bytes * (s->c.version >= 30 ? 70 : 258) / 100000 + 1);
    else if (slice_starts(type, SLICE("text/")))
        add_tokens(s, bytes / 4 + 1);
    else if (base64.len == 0 || slice_is(type, "application/pdf"))
        add_pages(s, media_pages(base64, &s->pdf_budget));
    else
        add_tokens(s, PACKED);
}

/* ---- Anthropic's parts ------------------------------------------------------------------------------------------- */

static void add_part(struct sum *s, int p);

static void add_content(struct sum *s, int content) {
    add_string(s, content);
    if (s->depth >= NESTED_MAX)
        return;
    s->depth++;
    if (json_is(s->j, content, JSON_ARRAY))
        for (int p = json_first(s->j, content); p >= 0; p = json_next(s->j, content, p))
            add_part(s, p);
    else if (json_is(s->j, content, JSON_OBJECT))
        add_part(s, content);
    s->depth--;
}

static struct slice raw_string(const struct json *j, int v) {
    return json_is(j, v, JSON_STRING) ? json_raw(j, v) : SLICE("");
}

/* An image, a document or a search result. */
static void add_source(struct sum *s, int p, bool image) {
    const struct json *j = s->j;
    int source = json_get(j, p, "source"), data = json_get(j, source, "data"), inner = json_get(j, source, "content");
    bool cited = false;
    if (json_bool(j, json_get(j, json_get(j, p, "citations"), "enabled"), &cited))
        s->citations |= cited;
    add_string(s, json_get(j, p, "title"));
    add_string(s, json_get(j, p, "context"));
    if (image) {
        add_picture(s, raw_string(j, data));
    } else if (json_str_is(j, json_get(j, source, "type"), "text") || inner >= 0) {
        add_tokens(s, DOCUMENT);
        add_content(s, inner >= 0 ? inner : data);
    } else if (json_is(j, source, JSON_STRING)) { /* of a search result: where it is from */
        add_tokens(s, DOCUMENT);
        add_string(s, source);
        add_content(s, json_get(j, p, "content"));
    } else {
        add_media(s, raw_string(j, json_get(j, source, "media_type")), raw_string(j, data));
    }
}

static void add_call(struct sum *s, int name, int arguments) {
    add_tokens(s, s->c.call);
    add_string(s, name);
    add_arguments(s, arguments);
}

static bool type_ends(const struct json *j, int type, struct slice end) {
    struct slice t = raw_string(j, type);
    return t.len >= end.len && slice_eq(slice_from(t, t.len - end.len), end);
}

static void add_part(struct sum *s, int p) {
    const struct json *j = s->j;
    int type = json_get(j, p, "type"), text = json_get(j, p, "text");
    if (json_is(j, p, JSON_STRING)) {
        add_string(s, p);
    } else if (json_is(j, text, JSON_STRING)) {
        add_string(s, text);
    } else if (json_str_is(j, type, "thinking") || json_str_is(j, type, "redacted_thinking")) {
        if (s->now && s->c.manner == COUNTER_CLAUDE) /* that of earlier turns is taken out, another's is not sent */
            add_string(s, json_get(j, p, "thinking"));
    } else if (json_str_is(j, type, "image")) {
        add_source(s, p, true);
    } else if (json_str_is(j, type, "document") || json_str_is(j, type, "search_result")) {
        add_source(s, p, false);
    } else if (type_ends(j, type, SLICE("tool_use"))) {
        add_call(s, json_get(j, p, "name"), json_get(j, p, "input"));
    } else if (json_str_is(j, type, "tool_reference")) {
        add_tokens(s, REFERENCE);
    } else {
        if (type_ends(j, type, SLICE("tool_result")))
            add_tokens(s, s->c.result);
        add_content(s, json_get(j, p, "content"));
    }
}

/* Whether a turn only brings results: the turn before it goes on. */
static bool only_results(const struct sum *s, int parts) {
    int first = json_items(s->j, parts);
    return json_str_is(s->j, json_get(s->j, first, "type"), "tool_result") ||
           task_get(s->j, first, "functionResponse", "function_response") >= 0;
}

/* ---- Gemini's parts ---------------------------------------------------------------------------------------------- */

/* Sealed reasoning counts when it comes back within its turn. Gemini 3's (field 2 of a message) always; that of 2.5
 * where it was streamed, in several sealed pieces: the first one's length, the second byte, is not the whole; Vertex AI
 * counts 2.5's either way, and 3's only where it is bare. */
static void add_signature(struct sum *s, struct slice base64) {
    enum { SEAL = 200, PERCENT_3 = 21, PERCENT_2 = 14 }; /* characters of base64 that seal, tokens for a hundred more */
    if (base64.len < SEAL || base64.ptr[0] != 'C') {
        s->n += base64.len < SEAL ? 0 : (base64.len - SEAL) * PERCENT_3;
    } else if (s->c.manner == COUNTER_VERTEX) {
        s->n += s->c.version >= 30 ? 0 : base64.len * PERCENT_2;
    } else {
        unsigned second = (base64_sextet((unsigned char)base64.ptr[1]) & 15) << 4 |
                          base64_sextet((unsigned char)base64.ptr[2]) >> 2;
        s->n += second < 0x80 && second + 8 < base64.len / 4 * 3 ? base64.len * PERCENT_2 : 0;
    }
}

static void add_gemini_part(struct sum *s, int p) {
    const struct json *j = s->j;
    int call = task_get(j, p, "functionCall", "function_call"),
        result = task_get(j, p, "functionResponse", "function_response"),
        data = task_get(j, p, "inlineData", "inline_data"), file = task_get(j, p, "fileData", "file_data"),
        code = task_get(j, p, "executableCode", "executable_code"),
        output = task_get(j, p, "codeExecutionResult", "code_execution_result");
    bool thought = false;
    if (s->now && is_google(s))
        add_signature(s, raw_string(j, task_get(j, p, "thoughtSignature", "thought_signature")));
    if (!json_bool(j, json_get(j, p, "thought"), &thought) || !thought)
        add_string(s, json_get(j, p, "text"));
    if (call >= 0)
        add_call(s, json_get(j, call, "name"), json_get(j, call, "args"));
    if (result >= 0) {
        int parts = json_get(j, result, "parts");
        add_tokens(s, s->c.result);
        add_string(s, json_get(j, result, "name"));
        add_arguments(s, json_get(j, result, "response"));
        for (int t = json_first(j, parts); t >= 0; t = json_next(j, parts, t))
            if (task_get(j, t, "functionResponse", "function_response") < 0) /* such a part holds media alone */
                add_gemini_part(s, t);
    }
    int media = data >= 0 ? data : file;
    if (media >= 0)
        add_media(s, raw_string(j, task_get(j, media, "mimeType", "mime_type")),
                  raw_string(j, json_get(j, media, "data")));
    add_string(s, json_get(j, code, "code"));
    add_string(s, json_get(j, output, "output"));
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

static void add_parts(struct sum *s, int list, bool gemini) {
    if (!gemini)
        add_content(s, list);
    else if (json_is(s->j, list, JSON_OBJECT))
        add_gemini_part(s, list);
    else if (json_is(s->j, list, JSON_ARRAY))
        for (int p = json_first(s->j, list); p >= 0; p = json_next(s->j, list, p))
            add_gemini_part(s, p);
    else
        add_string(s, list);
}

static bool is_model(const struct json *j, int role) {
    return json_str_is(j, role, "assistant") || json_str_is(j, role, "model");
}

static void add_messages(struct sum *s, int list, bool gemini) {
    const struct json *j = s->j;
    const char *name = gemini ? "parts" : "content";
    int last = -1; /* the message that the turn that goes on began with */
    if (json_is(j, list, JSON_OBJECT)) {
        add_tokens(s, s->c.message);
        add_parts(s, json_get(j, list, name), gemini);
    }
    if (!json_is(j, list, JSON_ARRAY))
        return;
    for (int m = json_first(j, list); m >= 0; m = json_next(j, list, m))
        if (!is_model(j, json_get(j, m, "role")) && !only_results(s, json_get(j, m, name)))
            last = m;
    for (int m = json_first(j, list); m >= 0; m = json_next(j, list, m)) {
        s->now = m > last;
        add_tokens(s, s->c.message);
        add_parts(s, json_get(j, m, name), gemini);
    }
}

/* ---- tools ------------------------------------------------------------------------------------------------------- */

enum keyword { KEYWORD_NONE, KEYWORD_TEXT, KEYWORD_VALUES, KEYWORD_REQUIRED, KEYWORD_PROPERTIES, KEYWORD_SCHEMAS };

static enum keyword keyword_of(const struct json *j, int key) {
    static const struct {
        const char *name;
        enum keyword keyword;
    } known[] = { { "description", KEYWORD_TEXT },  { "enum", KEYWORD_VALUES },
                  { "required", KEYWORD_REQUIRED }, { "properties", KEYWORD_PROPERTIES },
                  { "items", KEYWORD_SCHEMAS },     { "additionalProperties", KEYWORD_SCHEMAS },
                  { "anyOf", KEYWORD_SCHEMAS },     { "oneOf", KEYWORD_SCHEMAS },
                  { "allOf", KEYWORD_SCHEMAS },     { "$defs", KEYWORD_PROPERTIES },
                  { "definitions", KEYWORD_PROPERTIES } };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (json_str_is(j, key, known[i].name))
            return known[i].keyword;
    return KEYWORD_NONE;
}

static void add_schema(struct sum *s, int schema, int depth);

static void add_nested(struct sum *s, int schema, int depth) {
    add_tokens(s, s->c.nested);
    add_schema(s, schema, depth);
}

/* A schema's words, as the model is shown them: descriptions, names of properties, values to choose from. */
static void add_schema(struct sum *s, int schema, int depth) {
    const struct json *j = s->j;
    if (!json_is(j, schema, JSON_OBJECT) || depth > NESTED_MAX)
        return;
    for (int k = json_first(j, schema); k >= 0; k = json_next(j, schema, k)) {
        int v = k + 1;
        switch (keyword_of(j, k)) {
        case KEYWORD_NONE: break;
        case KEYWORD_TEXT:
            add_tokens(s, s->c.described);
            add_string(s, v);
            break;
        case KEYWORD_REQUIRED:
            if (s->c.manner == COUNTER_VERTEX)
                add_words(s, v);
            break;
        case KEYWORD_VALUES: add_words(s, v); break;
        case KEYWORD_PROPERTIES:
            for (int p = json_first(j, v); p >= 0 && json_is(j, v, JSON_OBJECT); p = json_next(j, v, p)) {
                add_tokens(s, s->c.property);
                add_string(s, p);
                add_schema(s, p + 1, depth + 1);
            }
            break;
        case KEYWORD_SCHEMAS:
            if (json_is(j, v, JSON_OBJECT))
                add_nested(s, v, depth + 1);
            for (int t = json_first(j, v); t >= 0 && json_is(j, v, JSON_ARRAY); t = json_next(j, v, t))
                add_nested(s, t, depth + 1);
        }
    }
}

static void add_declaration(struct sum *s, int schema) {
    if (s->c.manner == COUNTER_CLAUDE)
        add_json(s, schema);
    else
        add_schema(s, schema, 0);
}

static void add_function(struct sum *s, int function, int schema) {
    add_tokens(s, s->c.tool);
    add_string(s, json_get(s->j, function, "name"));
    add_string(s, json_get(s->j, function, "description"));
    add_declaration(s, schema);
}

/* Definitions that Anthropic puts in for its own tools, as seen in recordings before any of them was used. */
static uint64_t hosted_tokens(const struct sum *s, int tool) {
    static const struct {
        struct slice begin;
        uint64_t tokens;
    } known[] = { { SLICE("computer"), 1300 },       { SLICE("bash"), 245 },
                  { SLICE("text_editor"), 700 },     { SLICE("memory"), 1050 },
                  { SLICE("web_search"), 1750 },     { SLICE("web_fetch"), 500 },
                  { SLICE("code_execution"), 1800 }, { SLICE("tool_search"), 200 } };
    struct slice type = raw_string(s->j, json_get(s->j, tool, "type"));
    for (size_t i = 0; i < ARRAY_LEN(known) && s->c.manner == COUNTER_CLAUDE; i++)
        if (slice_starts(type, known[i].begin))
            return known[i].tokens;
    return s->c.hosted;
}

static void add_tools(struct sum *s, int tools) {
    const struct json *j = s->j;
    bool any = false, deferred;
    for (int t = json_first(j, tools); t >= 0 && json_is(j, tools, JSON_ARRAY); t = json_next(j, tools, t)) {
        int list = task_get(j, t, "functionDeclarations", "function_declarations");
        int own = json_get(j, t, "input_schema");
        for (int d = json_first(j, list); d >= 0 && json_is(j, list, JSON_ARRAY); d = json_next(j, list, d)) {
            int schema = task_get(j, d, "parametersJsonSchema", "parameters_json_schema");
            add_function(s, d, schema >= 0 ? schema : json_get(j, d, "parameters"));
            any = true;
        }
        if (own >= 0 && json_bool(j, json_get(j, t, "defer_loading"), &deferred) && deferred)
            continue; /* not shown until a search finds it */
        if (own >= 0)
            add_function(s, t, own);
        else if (list < 0)
            add_tokens(s, hosted_tokens(s, t));
        any |= list < 0;
    }
    if (any)
        add_tokens(s, s->c.tools);
}

static void add_settings(struct sum *s, int root) {
    const struct json *j = s->j;
    int choice = json_get(j, json_get(j, root, "tool_choice"), "type");
    int format = json_get(j, json_get(j, root, "output_config"), "format");
    if (format < 0)
        format = json_get(j, root, "output_format"); /* its name in a beta */
    int thinking = json_get(j, json_get(j, root, "thinking"), "type");
    if (json_str_is(j, thinking, "enabled"))
        add_tokens(s, s->c.thinking);
    else if (json_str_is(j, thinking, "adaptive"))
        add_tokens(s, s->c.adaptive);
    if (json_str_is(j, choice, "any") || json_str_is(j, choice, "tool"))
        add_tokens(s, s->c.forced);
    if (format >= 0 && !is_google(s)) {
        add_tokens(s, s->c.format);
        add_declaration(s, json_get(j, format, "schema"));
    }
}

uint64_t task_estimate(const struct json *j, enum ir_dialect client, const struct task_provider *provider) {
    bool gemini = client == IR_GEMINI;
    struct sum s = { .j = j, .c = counter_of(provider), .pdf_budget = PDF_SEARCHED };
    int root = task_count_root(j, client);
    int system = gemini ? task_get(j, root, "systemInstruction", "system_instruction") : json_get(j, root, "system");
    add_tokens(&s, s.c.request);
    add_messages(&s, json_get(j, root, gemini ? "contents" : "messages"), gemini);
    add_parts(&s, json_is(j, system, JSON_OBJECT) && gemini ? json_get(j, system, "parts") : system, gemini);
    add_tools(&s, json_get(j, root, "tools"));
    add_settings(&s, root);
    if (s.pictures == 1 && s.c.manner == COUNTER_VERTEX && s.c.version < 30)
        add_tokens(&s, s.tiles * s.c.media->picture);
    if (s.citations && s.c.manner == COUNTER_CLAUDE)
        add_tokens(&s, CITATIONS);
    return (s.n + TOKEN - 1) / TOKEN;
}
