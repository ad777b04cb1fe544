/* The pass path of Gemini: POST models/M:generateContent and :streamGenerateContent. The model and whether to stream
 * are in the path, so the relay sets them; the body may name the model too. proto3's JSON takes each name in camelCase
 * and in snake_case, and integers as strings: so does the scan, and both spellings of one member are one member twice.
 * The answer is gemini_answer.c. Source: npm `@google/genai` 3.3 types, ai.google.dev. */
#include "proto/pass/gemini.h"
#include "proto/pass/edits.h"
#include "proto/pass/scan.h"

enum { MAX_CANDIDATES = 8 };

static struct slice key_text(const struct scan *s, int k) { return scan_key(s->j, k, s->arena); }

static bool key_is(const struct scan *s, int k, const char *name) { return scan_is_camel(key_text(s, k), name); }

/* obj's member in either spelling; the value, or -1. Twice: refused, for it is read. */
static int get(struct scan *s, int obj, const char *name) {
    int found = -1;
    if (!json_is(s->j, obj, JSON_OBJECT))
        return -1;
    for (int k = json_first(s->j, obj); k >= 0; k = json_next(s->j, obj, k)) {
        if (!key_is(s, k, name))
            continue;
        if (found >= 0)
            scan_refuse(s, "invalid_value", name, "This member stands twice.");
        found = k + 1;
    }
    return found;
}

/* An integer, or a string that holds one. */
static bool integer(const struct scan *s, int v, int64_t *out) {
    uint64_t u;
    if (json_i64(s->j, v, out))
        return true;
    if (!json_is(s->j, v, JSON_STRING))
        return false;
    struct slice text = json_raw(s->j, v);
    bool minus = text.len > 0 && text.ptr[0] == '-';
    if (!slice_to_u64(minus ? slice_from(text, 1) : text, &u) || u > INT64_MAX)
        return false;
    *out = minus ? -(int64_t)u : (int64_t)u;
    return true;
}

/* ---- scan: contents ---- */

static void scan_part(struct scan *s, int part) {
    const struct json *j = s->j;
    if (!json_is(j, part, JSON_OBJECT)) {
        scan_refuse(s, "invalid_value", "contents", "Each part must be an object.");
        return;
    }
    for (int k = json_first(j, part); k >= 0; k = json_next(j, part, k)) {
        int v = k + 1;
        if (key_is(s, k, "text"))
            scan_string(s, v);
        else if (key_is(s, k, "inlineData"))
            s->r->media++;
        else if (key_is(s, k, "fileData"))
            s->r->references++;
        else if (key_is(s, k, "functionResponse")) {
            int parts = get(s, v, "parts");
            scan_raw(s, get(s, v, "response"));
            for (int p = json_items(j, parts); p >= 0; p = json_next(j, parts, p))
                scan_part(s, p);
        } else if (json_is(j, v, JSON_OBJECT) || json_is(j, v, JSON_STRING)) {
            scan_raw(s, v); /* calls, their signatures, code and what it gave, what is new */
        }
    }
}

/* {role, parts}; system instructions may be a plain string or part too. */
static void scan_content(struct scan *s, int content) {
    const struct json *j = s->j;
    int parts = get(s, content, "parts");
    s->r->messages++;
    if (json_is(j, content, JSON_STRING))
        scan_string(s, content);
    else if (!json_is(j, content, JSON_OBJECT))
        scan_refuse(s, "invalid_value", "contents", "Each content must be an object.");
    else if (json_is(j, parts, JSON_ARRAY))
        for (int p = json_first(j, parts); p >= 0; p = json_next(j, parts, p))
            scan_part(s, p);
    else if (json_is(j, parts, JSON_OBJECT))
        scan_part(s, parts);
    else
        scan_part(s, content);
}

static void scan_contents(struct scan *s, int v) {
    if (json_is(s->j, v, JSON_OBJECT)) {
        scan_content(s, v); /* proto3 readers take one for a list of one */
        return;
    }
    if (!json_is(s->j, v, JSON_ARRAY) || json_first(s->j, v) < 0) {
        scan_refuse(s, "invalid_value", "contents", "'contents' must be an array with at least one content.");
        return;
    }
    for (int c = json_first(s->j, v); c >= 0; c = json_next(s->j, v, c))
        scan_content(s, c);
}

/* ---- scan: tools ---- */

/* What model configurations call a hosted tool. */
static bool allowed(const struct scan *s, struct slice name) {
    static const struct {
        const char *name, *word;
    } words[] = {
        { "googleSearch", "web_search" },
        { "googleSearchRetrieval", "web_search" },
        { "enterpriseWebSearch", "web_search" },
        { "codeExecution", "code_execution" },
        { "urlContext", "web_fetch" },
        { "urlContext", "url_context" },
        { "fileSearch", "file_search" },
        { "googleMaps", "google_maps" },
        { "retrieval", "retrieval" },
        { "mcpServers", "mcp" },
    };
    if (scan_allows_tool(s, name))
        return true;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (scan_is_camel(name, words[i].name) && (scan_allows(s, words[i].word) || scan_allows(s, words[i].name)))
            return true;
    return false;
}

/* A tool is an object with a member a kind: hosted ones can stand beside functions in one. drop holds the member's
 * value. */
static void scan_tool(struct scan *s, int t) {
    const struct json *j = s->j;
    if (!json_is(j, t, JSON_OBJECT)) {
        scan_refuse(s, "invalid_value", "tools", "Each tool must be an object.");
        return;
    }
    for (int k = json_first(j, t); k >= 0; k = json_next(j, t, k)) {
        struct slice name = key_text(s, k);
        s->r->tools += key_is(s, k, "functionDeclarations") && json_is(j, k + 1, JSON_ARRAY) ? json_size(j, k + 1) : 1;
        if (json_is(j, k + 1, JSON_NULL) || key_is(s, k, "computerUse")) /* the client runs it */
            continue;
        if (key_is(s, k, "functionDeclarations") || allowed(s, name))
            s->others++;
        else
            scan_hosted(s, k + 1, name);
    }
}

static void scan_tools(struct scan *s, int v) {
    scan_raw(s, v);
    if (json_is(s->j, v, JSON_OBJECT)) {
        scan_tool(s, v);
        return;
    }
    for (int t = scan_tool_list(s, v); t >= 0; t = json_next(s->j, v, t))
        scan_tool(s, t);
}

/* ---- scan: the rest ---- */

static void scan_limit_member(struct scan *s, int v) {
    int64_t limit;
    s->r->t_limit = v;
    if (v < 0 || json_is(s->j, v, JSON_NULL))
        return;
    if (!integer(s, v, &limit) || limit <= 0) {
        scan_refuse(s, "invalid_value", "generationConfig.maxOutputTokens",
                    "The output limit must be a positive integer.");
        return;
    }
    s->r->has_limit = true;
    s->r->limit = (uint64_t)limit;
}

static void scan_modalities(struct scan *s, int v) {
    const struct json *j = s->j;
    for (int t = json_items(j, v); t >= 0; t = json_next(j, v, t)) {
        bool image = json_str_is(j, t, "IMAGE") && (scan_allows(s, "image") || scan_allows(s, "image_generation"));
        bool audio = json_str_is(j, t, "AUDIO") && scan_allows(s, "audio");
        if (!json_str_is(j, t, "TEXT") && !image && !audio)
            scan_refuse(s, "unsupported_parameter", "generationConfig.responseModalities",
                        "Only text answers are available for this model.");
    }
}

static void scan_config(struct scan *s, int config) {
    int64_t n;
    if (json_is(s->j, config, JSON_NULL))
        return;
    if (!json_is(s->j, config, JSON_OBJECT)) {
        scan_refuse(s, "invalid_value", "generationConfig", "'generationConfig' must be an object.");
        return;
    }
    int count = get(s, config, "candidateCount"), budget = get(s, get(s, config, "thinkingConfig"), "thinkingBudget");
    scan_limit_member(s, get(s, config, "maxOutputTokens"));
    scan_modalities(s, get(s, config, "responseModalities"));
    scan_raw(s, get(s, config, "responseSchema"));
    scan_raw(s, get(s, config, "responseJsonSchema"));
    if (count >= 0 && !json_is(s->j, count, JSON_NULL)) {
        if (!integer(s, count, &n) || n < 1 || n > MAX_CANDIDATES)
            scan_refuse(s, "invalid_value", "generationConfig.candidateCount",
                        "'candidateCount' must be an integer from 1 to 8.");
        else
            s->r->n = (uint64_t)n;
    }
    if (budget >= 0 && !json_is(s->j, budget, JSON_NULL)) {
        if (!integer(s, budget, &n) || n < -1)
            scan_refuse(s, "invalid_value", "generationConfig.thinkingConfig.thinkingBudget",
                        "The thinking budget must be an integer.");
        else
            s->r->reasoning = n > 0 ? (uint64_t)n : 0; /* -1: the model decides */
    }
}

enum member {
    M_OTHER, M_MODEL, M_CONTENTS, M_SYSTEM, M_TOOLS, M_CONFIG, M_CACHED, M_SERVICE_TIER
};
static const struct scan_member members[] = {
    { "model", M_MODEL }, { "contents", M_CONTENTS }, { "systemInstruction", M_SYSTEM }, { "tools", M_TOOLS },
    { "generationConfig", M_CONFIG }, { "cachedContent", M_CACHED }, { "serviceTier", M_SERVICE_TIER },
};

static void scan_service(struct scan *s, int v) {
    static const char *const plain[] = { "standard", "STANDARD",    "default",
                                         "DEFAULT",  "unspecified", "SERVICE_TIER_UNSPECIFIED" };
    bool ok = json_is(s->j, v, JSON_NULL) || scan_allows(s, "service_tier");
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        ok |= json_str_is(s->j, v, plain[i]);
    if (!ok)
        scan_refuse(s, "unsupported_parameter", "serviceTier", "This service tier is not available for this model.");
}

static void scan_member(struct scan *s, int is, int v) {
    switch (is) {
    case M_MODEL: s->r->t_model = v; break;
    case M_CONTENTS: scan_contents(s, v); break;
    case M_SYSTEM:
        if (!json_is(s->j, v, JSON_NULL))
            scan_content(s, v);
        break;
    case M_TOOLS: scan_tools(s, v); break;
    case M_CONFIG:
        s->r->t_options = v;
        scan_config(s, v);
        break;
    case M_CACHED: s->r->references += !json_is(s->j, v, JSON_NULL); break; /* its length is not known here */
    case M_SERVICE_TIER: scan_service(s, v); break;
    default: break;
    }
}

/* ---- scan: state ---- */

#define OPAQUE                                                                                                         \
    { SLICE("args"), SLICE("response"), SLICE("parameters"), SLICE("parametersJsonSchema"), SLICE("responseSchema"),   \
      SLICE("responseJsonSchema"), SLICE("labels") }
static const struct scan_state kept = { .names = { SLICE("cachedContent") }, .opaque = OPAQUE, .camel = true };
static const struct scan_state files = { .names = { SLICE("fileUri") }, .opaque = OPAQUE, .camel = true };
static const struct scan_state stores = { .names = { SLICE("fileSearchStoreNames") }, .opaque = OPAQUE, .camel = true };

/* A file of the Files API is state that someone put there; gs:// and the web are not. */
static void seal_file(void *arg, int uri) {
    struct scan *s = arg;
    static const char host[] = "generativelanguage";
    struct slice text = json_str(s->j, uri, s->arena);
    bool web = slice_starts(text, SLICE("http://")) || slice_starts(text, SLICE("https://"));
    bool ours = text.len == 0 || memmem(text.ptr, text.len, "/files/", 7) != NULL;
    for (size_t i = 0; i + sizeof host - 1 <= text.len && !ours; i++)
        ours = slice_ieq(slice_of(text.ptr + i, sizeof host - 1), slice_str(host));
    if (ours || !(web || slice_starts(text, SLICE("gs://"))))
        scan_seal(s, uri, PASS_STATE);
}

static void scan_ids(struct scan *s) {
    scan_state(s, &kept);
    scan_walk(s->j, 0, &files, s->arena, seal_file, s);
    if (!scan_allows(s, "vector_stores")) /* the operator's own, for whom he likes */
        scan_state(s, &stores);
}

static void gemini_state_ids(const struct json *j, struct pass_request *r, struct arena *arena) {
    struct scan s = { .j = j, .r = r, .arena = arena };
    scan_ids(&s);
}

static void gemini_scan(const struct json *j, struct pass_request *r, struct arena *arena, const struct slice *allow,
                        uint32_t allow_count) {
    struct scan s = { .j = j, .r = r, .arena = arena, .allow = allow, .allow_count = allow_count };
    if (!scan_begin(&s))
        return;
    for (int k = json_first(j, 0); k >= 0; k = json_next(j, 0, k))
        scan_member(&s, scan_which(&s, k, members, sizeof members / sizeof *members, true), k + 1);
    if (!(s.seen & 1u << M_CONTENTS))
        scan_refuse(&s, "missing_field", "contents", "GenerateContentRequest.contents: contents is not specified");
    scan_tools_end(&s, false);
    scan_ids(&s);
}

/* ---- build ---- */

/* tools (one or a list): members that go; an entry of which nothing is left goes too. */
static void edit_tools(struct edits *e, const struct pass_request *r, int tools) {
    int empty[PASS_DROPS];
    uint32_t empties = 0;
    if (json_is(e->j, tools, JSON_OBJECT)) {
        edits_drop(e, tools, r);
        return;
    }
    for (int t = json_first(e->j, tools); t >= 0; t = json_next(e->j, tools, t)) {
        uint32_t gone = 0;
        for (int k = json_is(e->j, t, JSON_OBJECT) ? json_first(e->j, t) : -1; k >= 0; k = json_next(e->j, t, k))
            for (uint32_t i = 0; i < r->drops; i++)
                gone += r->drop[i] == k + 1;
        if (gone > 0 && gone == json_size(e->j, t) && empties < PASS_DROPS)
            empty[empties++] = t;
        else if (gone > 0)
            edits_drop(e, t, r);
    }
    edits_cut(e, tools, empty, empties);
}

/* generationConfig.maxOutputTokens: in the place of the client's, or a new member, or a new generationConfig. */
static void edit_limit(struct edits *e, const struct pass_request *r, uint64_t limit) {
    struct slice member = arena_printf(e->arena, "\"maxOutputTokens\":%llu", (unsigned long long)limit);
    if (r->t_limit >= 0)
        edits_set_number(e, r->t_limit, limit);
    else if (json_is(e->j, r->t_options, JSON_OBJECT))
        edits_prepend(e, r->t_options, member);
    else if (r->t_options >= 0)
        edits_set(e, r->t_options, arena_printf(e->arena, "{%.*s}", SLICE_ARG(member)));
    else
        edits_prepend(e, 0, arena_printf(e->arena, "\"generationConfig\":{%.*s}", SLICE_ARG(member)));
}

static bool gemini_build(const struct json *j, const struct pass_request *r, struct pass_edit *pe, struct arena *arena,
                         struct pieces *out) {
    struct edits e;
    int keep[5] = { r->t_model, r->t_options, r->t_limit, -1, -1 }, tools = -1;
    uint32_t keeps = 3;
    for (int k = json_first(j, 0); k >= 0; k = json_next(j, 0, k)) {
        if (json_str_is(j, k, "contents"))
            keep[3] = k + 1, keeps = 4;
        else if (json_str_is(j, k, "tools"))
            tools = k + 1;
    }
    edits_begin(&e, j, arena);
    pe->stripped = 0;
    edits_strip(&e, 0, pe, keep, keeps, true);
    edits_strip(&e, r->t_options, pe, keep, keeps, true);
    if (r->drops > 0)
        edit_tools(&e, r, tools);
    edits_unseal(&e, r, pe);
    if (pe->model.ptr != NULL && json_is(j, r->t_model, JSON_STRING)) {
        bool prefix = slice_starts(json_raw(j, r->t_model), SLICE("models/"));
        edits_set_string(&e, r->t_model, prefix ? arena_printf(arena, "models/%.*s", SLICE_ARG(pe->model)) : pe->model);
    }
    if (pe->set_limit)
        edit_limit(&e, r, pe->limit);
    return edits_put(&e, out);
}

const struct pass pass_gemini = {
    .scan = gemini_scan,
    .state = gemini_state_ids,
    .build = gemini_build,
    .whole = pass_gemini_whole,
    .event = pass_gemini_event,
    .end = pass_gemini_end,
    .error = pass_gemini_error,
    .fail = pass_gemini_fail,
    .ping = pass_gemini_ping,
    .content_type = pass_gemini_content_type,
};
