/* Reads a generateContent request: its members, tools and settings. The model and whether to stream come with the
 * path. */
#include "proto/dialect/gemini.h"

static bool number(const struct json *j, int key, struct slice *at, struct ir_request *r, struct ir_fault *f) {
    if (json_is(j, key + 1, JSON_NUMBER)) {
        *at = json_raw(j, key + 1);
        return true;
    }
    return json_is(j, key + 1, JSON_NULL) ||
           common_wrong(r, f, arena_printf(r->arena, "generationConfig.%.*s", SLICE_ARG(json_raw(j, key))), "a number");
}

static bool read_thinking(const struct json *j, int t, struct ir_request *r) {
    static const char *const known[] = { "thinkingLevel", "includeThoughts", "thinkingBudget", NULL };
    struct slice level = json_str(j, gemini_get(j, t, "thinkingLevel"), r->arena);
    bool show = false;
    static const char *const levels[] = { "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH" };
    for (int i = 0; i < 5; i++)
        if (slice_ieq(level, slice_str(levels[i])))
            r->effort = (enum ir_effort)(IR_EFFORT_MINIMAL + i);
    if (level.len > 0 && r->effort == IR_EFFORT_UNSET && !slice_ieq(level, SLICE("THINKING_LEVEL_UNSPECIFIED")))
        ir_note(r, SLICE("generationConfig.thinkingConfig.thinkingLevel"));
    gemini_others(r, j, t, "generationConfig.thinkingConfig", known);
    if (json_bool(j, gemini_get(j, t, "includeThoughts"), &show))
        r->thoughts = show ? IR_YES : IR_NO;
    if (json_i64(j, gemini_get(j, t, "thinkingBudget"), &r->budget)) {
        if (r->budget == 0)
            r->effort = IR_EFFORT_NONE;
        else if (r->budget < 0)
            r->adaptive = true;
        else
            r->has_budget = true;
    }
    return true;
}

/* What is neither text nor a picture (sound, video) no other dialect has. */
static void read_modalities(const struct json *j, int t, struct ir_request *r) {
    bool any = false;
    for (int i = json_items(j, t); i >= 0; i = json_next(j, t, i)) {
        struct slice word = json_str(j, i, r->arena);
        bool text = slice_ieq(word, SLICE("TEXT")), image = slice_ieq(word, SLICE("IMAGE"));
        any = any || text;
        r->image_out = r->image_out || image;
        r->audio_out = r->audio_out || (!text && !image && !slice_ieq(word, SLICE("MODALITY_UNSPECIFIED")));
    }
    r->no_text = r->image_out && !any;
}

static bool cannot(struct ir_request *r, struct ir_fault *f, const char *member) {
    return ir_refuse(f, "unsupported_parameter", slice_str(member),
                     arena_printf(r->arena, "%s cannot be expressed for this model's provider.", member));
}

static bool read_schema(const struct json *j, int t, bool raw, struct ir_request *r, struct ir_fault *f) {
    r->format = IR_FORMAT_SCHEMA;
    r->schema = raw ? json_raw(j, t) : gemini_schema_read(j, t, r->arena);
    return json_is(j, t, JSON_OBJECT) || common_wrong(r, f, SLICE("generationConfig.responseSchema"), "an object");
}

/* Text and JSON are known elsewhere; a bare word out of an enum, XML and YAML are not. */
static bool read_type(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    struct slice type = json_str(j, t, r->arena);
    if (slice_ieq(type, SLICE("application/json")) || slice_ieq(type, SLICE("APPLICATION_JSON"))) {
        if (r->format == IR_FORMAT_TEXT)
            r->format = IR_FORMAT_JSON;
        return true;
    }
    return type.len == 0 || slice_ieq(type, SLICE("text/plain")) || slice_ieq(type, SLICE("TEXT_PLAIN")) ||
           cannot(r, f, "generationConfig.responseMimeType");
}

/* Vertex's newer form of the same: a list with an entry for each kind of output. */
static bool read_formats(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    for (int i = json_items(j, t); i >= 0; i = json_next(j, t, i)) {
        int text = gemini_get(j, i, "text"), schema = gemini_get(j, text, "schema");
        if (!json_is(j, text, JSON_OBJECT))
            return cannot(r, f, "generationConfig.responseFormat");
        if (!read_type(j, gemini_get(j, text, "mimeType"), r, f) ||
            (json_is(j, schema, JSON_OBJECT) && !read_schema(j, schema, true, r, f)))
            return false;
    }
    return true;
}

/* A member of generationConfig. The order of a format's members does not matter: a schema wins over the bare type. */
static bool read_config(const struct json *j, int key, struct ir_request *r, struct ir_fault *f) {
    static const struct { const char *name; size_t at; } numbers[] = {
        { "temperature", offsetof(struct ir_request, temperature) }, { "topP", offsetof(struct ir_request, top_p) },
        { "topK", offsetof(struct ir_request, top_k) }, { "seed", offsetof(struct ir_request, seed) },
        { "presencePenalty", offsetof(struct ir_request, presence_penalty) },
        { "frequencyPenalty", offsetof(struct ir_request, frequency_penalty) },
        { "logprobs", offsetof(struct ir_request, top_logprobs) },
    };
    int t = key + 1;
    if (json_is(j, t, JSON_NULL))
        return true;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (gemini_is(j, key, numbers[i].name))
            return number(j, key, (struct slice *)(void *)((char *)r + numbers[i].at), r, f);
    if (gemini_is(j, key, "candidateCount"))
        return (json_u64(j, t, &r->n) && r->n >= 1 && r->n <= IR_CHOICES_MAX) ||
               common_wrong(r, f, SLICE("generationConfig.candidateCount"), "a whole number from 1 to 128");
    if (gemini_is(j, key, "maxOutputTokens")) {
        r->has_limit = json_u64(j, t, &r->limit);
        return r->has_limit || common_wrong(r, f, SLICE("generationConfig.maxOutputTokens"), "a whole number");
    }
    if (gemini_is(j, key, "stopSequences"))
        return common_strings(j, t, r, &r->stop) ||
               common_wrong(r, f, SLICE("generationConfig.stopSequences"), "a list of strings");
    if (gemini_is(j, key, "responseLogprobs"))
        return json_bool(j, t, &r->logprobs) ||
               common_wrong(r, f, SLICE("generationConfig.responseLogprobs"), "true or false");
    if (gemini_is(j, key, "thinkingConfig"))
        return read_thinking(j, t, r);
    if (gemini_is(j, key, "responseModalities")) {
        read_modalities(j, t, r);
        return true;
    }
    if (gemini_is(j, key, "responseMimeType"))
        return read_type(j, t, r, f);
    if (gemini_is(j, key, "responseFormat"))
        return read_formats(j, t, r, f);
    bool raw = gemini_is(j, key, "responseJsonSchema");
    if (raw || gemini_is(j, key, "responseSchema"))
        return read_schema(j, t, raw, r, f);
    if (gemini_is(j, key, "translationConfig"))
        return cannot(r, f, "generationConfig.translationConfig");
    ir_note(r, arena_printf(r->arena, "generationConfig.%.*s", SLICE_ARG(json_raw(j, key))));
    return true;
}

static bool read_function(const struct json *j, int t, uint32_t index, struct ir_request *r, struct ir_fault *f) {
    struct slice name = json_str(j, gemini_get(j, t, "name"), r->arena);
    int raw = gemini_get(j, t, "parametersJsonSchema"), parameters = gemini_get(j, t, "parameters");
    if (name.len == 0)
        return common_wrong(r, f, arena_printf(r->arena, "tools[%u]", index), "functionDeclarations with names");
    static const char *const known[] = { "name", "description", "parameters", "parametersJsonSchema", NULL };
    gemini_others(r, j, t, "tools.functionDeclarations", known);
    struct ir_tool *x = ir_add_tool(r, IR_FUNCTION);
    if (!x)
        return true;
    x->index = index;
    x->name = name;
    x->description = json_str(j, gemini_get(j, t, "description"), r->arena);
    if (json_is(j, raw, JSON_OBJECT))
        x->schema = json_raw(j, raw);
    else if (json_is(j, parameters, JSON_OBJECT))
        x->schema = gemini_schema_read(j, parameters, r->arena);
    return true;
}

static void read_search(const struct json *j, int t, struct ir_request *r, struct ir_tool *x) {
    static const char *const known[] = { "excludeDomains", NULL };
    int blocked = gemini_get(j, t, "excludeDomains");
    x->search.blocked = json_is(j, blocked, JSON_ARRAY) ? json_raw(j, blocked) : SLICE_NONE;
    gemini_others(r, j, t, "tools.googleSearch", known);
}

static bool read_tools(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    uint32_t index = 0;
    if (!json_is(j, t, JSON_ARRAY))
        return common_wrong(r, f, SLICE("tools"), "a list");
    for (int i = json_first(j, t); i >= 0; i = json_next(j, t, i), index++)
        for (int k = json_is(j, i, JSON_OBJECT) ? json_first(j, i) : -1; k >= 0; k = json_next(j, i, k)) {
            if (gemini_is(j, k, "functionDeclarations")) {
                for (int d = json_items(j, k + 1); d >= 0; d = json_next(j, k + 1, d))
                    if (!read_function(j, d, index, r, f))
                        return false;
                continue;
            }
            struct ir_tool *x = ir_add_tool(r, IR_HOSTED);
            if (!x)
                return true;
            x->index = index;
            x->raw = json_raw(j, k + 1);
            x->name = gemini_is(j, k, "googleSearch") ? SLICE("web_search") : json_str(j, k, r->arena);
            if (gemini_is(j, k, "googleSearch"))
                read_search(j, k + 1, r, x);
        }
    return true;
}

static bool read_choice(const struct json *j, int t, struct ir_request *r) {
    static const char *const outer[] = { "functionCallingConfig", NULL };
    static const char *const known[] = { "mode", "allowedFunctionNames", NULL };
    int config = gemini_get(j, t, "functionCallingConfig"), names = gemini_get(j, config, "allowedFunctionNames");
    struct slice mode = json_str(j, gemini_get(j, config, "mode"), r->arena);
    bool any = slice_ieq(mode, SLICE("ANY")), none = slice_ieq(mode, SLICE("NONE"));
    r->validated = slice_ieq(mode, SLICE("VALIDATED"));
    gemini_others(r, j, t, "toolConfig", outer);
    gemini_others(r, j, config, "toolConfig.functionCallingConfig", known);
    if (!any && !r->validated && json_size(j, names) > 0) /* the API heeds names in these modes alone */
        ir_note(r, SLICE("toolConfig.functionCallingConfig.allowedFunctionNames"));
    if (config < 0 || mode.len == 0)
        return true;
    r->choice = any ? IR_CHOICE_REQUIRED : none ? IR_CHOICE_NONE : IR_CHOICE_AUTO;
    if (!json_is(j, names, JSON_ARRAY) || json_size(j, names) == 0 || (!any && !r->validated))
        return true;
    common_strings(j, names, r, &r->choice_names);
    r->choice = any && json_size(j, names) == 1 ? IR_CHOICE_ONE : IR_CHOICE_SUBSET;
    r->choice_required = any;
    return true;
}

bool gemini_read_request(const struct json *j, const struct dialect_path *path, struct ir_request *r,
                         struct ir_fault *f) {
    bool contents = false, ok = true;
    int root = path->counting ? gemini_get(j, 0, "generateContentRequest") : -1; /* counting takes either form */
    root = json_is(j, root, JSON_OBJECT) ? root : 0;
    r->model = path->model;
    r->stream = path->stream;
    r->as_array = path->stream && !path->sse;
    for (int key = json_first(j, root); key >= 0 && ok; key = json_next(j, root, key)) {
        int t = key + 1;
        if (json_is(j, t, JSON_NULL) || gemini_is(j, key, "model"))
            continue;
        if (gemini_is(j, key, "contents")) {
            if (contents)
                return ir_refuse(f, "invalid_value", SLICE("contents"), SLICE("A member stands twice in the body."));
            contents = true;
            ok = gemini_read_contents(j, t, r, f);
        } else if (gemini_is(j, key, "systemInstruction")) {
            ok = gemini_read_system(j, t, r, f);
        } else if (gemini_is(j, key, "tools")) {
            ok = read_tools(j, t, r, f);
        } else if (gemini_is(j, key, "toolConfig")) {
            ok = read_choice(j, t, r);
        } else if (gemini_is(j, key, "generationConfig") && json_is(j, t, JSON_OBJECT)) {
            for (int k = json_first(j, t); k >= 0 && ok; k = json_next(j, t, k))
                ok = read_config(j, k, r, f);
        } else if (gemini_is(j, key, "serviceTier")) {
            r->service_tier = json_str(j, t, r->arena);
        } else if (gemini_is(j, key, "cachedContent")) {
            return ir_unsupported(r, f, "cache");
        } else if (gemini_is(j, key, "modelArmorConfig") || gemini_is(j, key, "continuationToken") ||
                   gemini_is(j, key, "generationOutputConfig")) { /* what blocks, goes on with, or keeps an answer */
            return cannot(r, f, gemini_is(j, key, "modelArmorConfig")    ? "modelArmorConfig"
                                : gemini_is(j, key, "continuationToken") ? "continuationToken"
                                                                         : "generationOutputConfig");
        } else {
            ir_add_extra(r, j, key);
        }
    }
    if (!ok)
        return false;
    return contents || ir_missing(f, "contents");
}
