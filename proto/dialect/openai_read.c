/* Reads a Chat Completions request.
 *
 * What is not understood in a message's content is refused by name, because leaving it out would change the answer;
 * top-level members that are not known are kept as extras, which only tune. Legacy functions and function_call are
 * read as tools. */
#include "proto/dialect/openai.h"

#define AT(member) offsetof(struct ir_request, member)
enum {
    MESSAGES,
    TOOLS,
    TOOL_CHOICE,
    PARALLEL,
    FORMAT,
    EFFORT,
    STOP,
    STREAM_OPTIONS,
    MODALITIES,
    FUNCTIONS,
    FUNCTION_CALL,
    REASONING,
    THINKING,
    WEB_SEARCH,
    IGNORED
};
static const struct field fields[] = {
    [MESSAGES] = { "messages", FIELD_KNOWN, 0 },
    [TOOLS] = { "tools", FIELD_KNOWN, 0 },
    [TOOL_CHOICE] = { "tool_choice", FIELD_KNOWN, 0 },
    [PARALLEL] = { "parallel_tool_calls", FIELD_KNOWN, 0 },
    [FORMAT] = { "response_format", FIELD_KNOWN, 0 },
    [EFFORT] = { "reasoning_effort", FIELD_KNOWN, 0 },
    [STOP] = { "stop", FIELD_KNOWN, 0 },
    [STREAM_OPTIONS] = { "stream_options", FIELD_KNOWN, 0 },
    [MODALITIES] = { "modalities", FIELD_KNOWN, 0 },
    [FUNCTIONS] = { "functions", FIELD_KNOWN, 0 },
    [FUNCTION_CALL] = { "function_call", FIELD_KNOWN, 0 },
    [REASONING] = { "reasoning", FIELD_KNOWN, 0 },
    [THINKING] = { "thinking", FIELD_KNOWN, 0 },
    [WEB_SEARCH] = { "web_search_options", FIELD_KNOWN, 0 },
    [IGNORED] = { "audio", FIELD_KNOWN, 0 },
    { "model", FIELD_STRING, AT(model) },
    { "stream", FIELD_BOOL, AT(stream) },
    { "n", FIELD_COUNT, AT(n) },
    { "max_completion_tokens", FIELD_LIMIT, 0 },
    { "max_tokens", FIELD_LIMIT, 0 },
    { "temperature", FIELD_NUMBER, AT(temperature) },
    { "top_p", FIELD_NUMBER, AT(top_p) },
    { "top_k", FIELD_NUMBER, AT(top_k) },
    { "seed", FIELD_NUMBER, AT(seed) },
    { "presence_penalty", FIELD_NUMBER, AT(presence_penalty) },
    { "frequency_penalty", FIELD_NUMBER, AT(frequency_penalty) },
    { "logprobs", FIELD_BOOL, AT(logprobs) },
    { "top_logprobs", FIELD_NUMBER, AT(top_logprobs) },
    { "user", FIELD_STRING, AT(user) },
    { "service_tier", FIELD_STRING, AT(service_tier) },
    { "prompt_cache_key", FIELD_STRING, AT(cache_key) },
    { "verbosity", FIELD_STRING, AT(verbosity) },
};

/* messages[i].content[k] for error messages. */
static struct slice place(struct ir_request *r, uint32_t message, int part, const char *member) {
    if (part < 0)
        return arena_printf(r->arena, "messages[%u].%s", message, member);
    return arena_printf(r->arena, "messages[%u].content[%d]%s%s", message, part, *member ? "." : "", member);
}

static bool read_media(const struct json *j, int t, struct slice type, struct ir_request *r, struct ir_part **list,
                       struct slice where, struct ir_fault *f) {
    struct arena *a = r->arena;
    int body = json_get(j, t, slice_is(type, "image_url") ? "image_url" : slice_is(type, "video_url") ? "video_url" :
                              slice_is(type, "input_audio") ? "input_audio" : "file");
    struct slice url = json_str(j, json_is(j, body, JSON_STRING) ? body : json_get(j, body, "url"), a);
    static const char *const known[] = { "url", "detail", "data", "format", "file_data", "file_id", "filename", NULL };
    struct ir_part *p;
    common_others(r, j, body, "messages.content", known);
    if (slice_is(type, "image_url") || slice_is(type, "video_url")) {
        if (!url.ptr)
            return common_wrong(r, f, where, "an image_url with a url");
        if ((p = ir_add_part(r, list, type.ptr[0] == 'i' ? IR_IMAGE : IR_VIDEO))) {
            common_set_url(r, p, url);
            p->detail = json_str(j, json_get(j, body, "detail"), a);
            p->cache = common_mark_of(j, t, a);
        }
        return true;
    }
    if (slice_is(type, "input_audio")) {
        struct slice data = json_str(j, json_get(j, body, "data"), a);
        if (!data.ptr)
            return common_wrong(r, f, where, "an input_audio with data and format");
        if ((p = ir_add_part(r, list, IR_AUDIO))) {
            p->data = data;
            p->media_type = slice_str(common_audio_type(json_str(j, json_get(j, body, "format"), a)));
            p->cache = common_mark_of(j, t, a);
        }
        return true;
    }
    struct slice data = json_str(j, json_get(j, body, "file_data"), a);
    if (json_is(j, json_get(j, body, "file_id"), JSON_STRING))
        return ir_refuse(f, "unsupported_parameter", where,
                         SLICE("A file id of another provider cannot be used with this model."));
    if (!data.ptr)
        return common_wrong(r, f, where, "a file with file_data");
    if ((p = ir_add_part(r, list, IR_FILE))) {
        if (!ir_data_url(a, data, &p->media_type, &p->data)) {
            p->data = data;
            p->media_type = SLICE("application/pdf");
        }
        p->name = json_str(j, json_get(j, body, "filename"), a);
        p->cache = common_mark_of(j, t, a);
    }
    return true;
}

static bool read_part(const struct json *j, int t, struct ir_request *r, struct ir_part **list, struct slice where,
                      struct ir_fault *f) {
    static const char *const known[] = { "type",        "text", "refusal",       "image_url",               "video_url",
                                         "input_audio", "file", "cache_control", "prompt_cache_breakpoint", NULL };
    struct slice type = json_str(j, json_get(j, t, "type"), r->arena),
                 text = json_str(j, json_get(j, t, "text"), r->arena);
    if (!slice_is(type, "thinking") && !slice_is(type, "reasoning"))
        common_others(r, j, t, "messages.content", known);
    if (slice_is(type, "text") || slice_is(type, "input_text") || slice_is(type, "output_text") ||
        slice_is(type, "refusal")) {
        bool refusal = slice_is(type, "refusal");
        if (refusal)
            text = json_str(j, json_get(j, t, "refusal"), r->arena);
        if (!text.ptr)
            return common_wrong(r, f, where, "a part with text");
        struct ir_part *p = ir_add_part(r, list, refusal ? IR_REFUSAL : IR_TEXT);
        if (p) {
            p->text = text;
            p->cache = common_mark_of(j, t, r->arena);
        }
        return true;
    }
    if (slice_is(type, "image_url") || slice_is(type, "video_url") || slice_is(type, "input_audio") ||
        slice_is(type, "file"))
        return read_media(j, t, type, r, list, where, f);
    if (slice_is(type, "thinking") || slice_is(type, "reasoning"))
        return true; /* a compatible server's own reasoning: no other provider takes it */
    return ir_refuse(f, "invalid_value", where,
                     arena_printf(r->arena, "Unknown content part type: %.*s.", SLICE_ARG(type)));
}

static bool read_content(const struct json *j, int t, struct ir_request *r, struct ir_part **list, uint32_t at,
                         struct ir_fault *f) {
    if (t < 0 || json_is(j, t, JSON_NULL))
        return true;
    if (json_is(j, t, JSON_STRING)) {
        struct ir_part *p = ir_add_part(r, list, IR_TEXT);
        if (p)
            p->text = json_str(j, t, r->arena);
        return true;
    }
    if (!json_is(j, t, JSON_ARRAY))
        return common_wrong(r, f, place(r, at, -1, "content"), "a string or a list of parts");
    int k = 0;
    for (int i = json_first(j, t); i >= 0; i = json_next(j, t, i), k++)
        if (!read_part(j, i, r, list, place(r, at, k, ""), f))
            return false;
    return true;
}

static struct slice signature_of(const struct json *j, int call, struct arena *a) {
    int extra = json_get(j, call, "extra_content");
    return json_str(j, json_get(j, json_get(j, extra, "google"), "thought_signature"), a);
}

static bool read_calls(const struct json *j, int calls, struct ir_request *r, struct ir_turn *turn, uint32_t at,
                       struct ir_fault *f) {
    if (!json_is(j, calls, JSON_ARRAY))
        return true;
    for (int c = json_first(j, calls); c >= 0; c = json_next(j, calls, c)) {
        int custom = json_get(j, c, "custom"), body = custom >= 0 ? custom : json_get(j, c, "function");
        int args = json_get(j, body, custom >= 0 ? "input" : "arguments");
        struct slice name = json_str(j, json_get(j, body, "name"), r->arena),
                     id = json_str(j, json_get(j, c, "id"), r->arena);
        if (!name.ptr || !id.ptr)
            return common_wrong(r, f, place(r, at, -1, "tool_calls"),
                                "a list of calls with id, function.name and arguments");
        struct ir_part *p = ir_add_part(r, &turn->parts, IR_CALL);
        struct slice signature = signature_of(j, c, r->arena);
        static const char *const outer[] = { "id", "type", "function", "custom", "index", "extra_content", NULL };
        static const char *const inner[] = { "name", "arguments", "input", NULL };
        common_others(r, j, c, "messages.tool_calls", outer);
        common_others(r, j, body, "messages.tool_calls", inner);
        if (!p)
            return true;
        p->id = id;
        p->name = name;
        p->custom = custom >= 0;
        p->text = json_is(j, args, JSON_OBJECT) ? json_raw(j, args) : json_str(j, args, r->arena);
        if (signature.ptr)
            p->blob = ir_blob_of(signature, IR_BLOB_CALL, IR_OPENAI);
    }
    return true;
}

/* Reasoning that the client returns: details (texts of one index joined until their signature comes), else the plain
 * text. */
static void read_reasoning(const struct json *j, int m, struct ir_request *r, struct ir_turn *turn) {
    int details = json_get(j, m, "reasoning_details");
    struct ir_part *open = NULL;
    size_t cap = 0;
    bool texts = false;
    if (json_is(j, details, JSON_ARRAY))
        for (int t = json_first(j, details); t >= 0; t = json_next(j, details, t)) {
            struct slice text = json_str(j, json_get(j, t, "text"), r->arena),
                         data = json_str(j, json_get(j, t, "data"), r->arena);
            struct slice signature = json_str(j, json_get(j, t, "signature"), r->arena);
            if (data.ptr) {
                open = ir_add_part(r, &turn->parts, IR_REASONING);
                if (open)
                    open->blob = ir_blob_of(data, IR_BLOB_SIGNATURE, IR_OPENAI);
                open = NULL;
                continue;
            }
            if (!open && !(open = ir_add_part(r, &turn->parts, IR_REASONING)))
                return;
            texts = texts || text.len > 0;
            if (open->text.len == 0) {
                open->text = text;
                cap = 0;
            } else if (!ir_append(r->arena, &open->text, &cap, text)) {
                return;
            }
            if (signature.len > 0) {
                open->blob = ir_blob_of(signature, IR_BLOB_SIGNATURE, IR_OPENAI);
                open = NULL;
            }
        }
    int plain = json_get(j, m, "reasoning_content");
    if (!json_is(j, plain, JSON_STRING))
        plain = json_get(j, m, "reasoning");
    if (!texts && json_is(j, plain, JSON_STRING) && (open = ir_add_part(r, &turn->parts, IR_REASONING)))
        open->text = json_str(j, plain, r->arena);
}

/* Pictures that the model made: a member beside content, of servers that make some. */
static bool read_pictures(const struct json *j, int list, struct ir_request *r, struct ir_turn *turn, uint32_t at,
                          struct ir_fault *f) {
    for (int t = json_items(j, list); t >= 0; t = json_next(j, list, t))
        if (!read_media(j, t, SLICE("image_url"), r, &turn->parts, place(r, at, -1, "images"), f))
            return false;
    return true;
}

static bool read_assistant(const struct json *j, int m, struct ir_request *r, struct ir_turn *turn, uint32_t at,
                           struct ir_fault *f) {
    struct slice refusal = json_str(j, json_get(j, m, "refusal"), r->arena);
    int legacy = json_get(j, m, "function_call");
    struct ir_part *p;
    if (json_is(j, json_get(j, m, "audio"), JSON_OBJECT))
        return ir_refuse(f, "unsupported_parameter", place(r, at, -1, "audio"),
                         SLICE("A spoken answer that another provider keeps cannot be used with this model."));
    read_reasoning(j, m, r, turn);
    if (!read_content(j, json_get(j, m, "content"), r, &turn->parts, at, f))
        return false;
    if (!read_pictures(j, json_get(j, m, "images"), r, turn, at, f))
        return false;
    if (refusal.len > 0 && (p = ir_add_part(r, &turn->parts, IR_REFUSAL)))
        p->text = refusal;
    if (json_is(j, legacy, JSON_OBJECT) && (p = ir_add_part(r, &turn->parts, IR_CALL))) {
        p->name = json_str(j, json_get(j, legacy, "name"), r->arena);
        p->text = json_str(j, json_get(j, legacy, "arguments"), r->arena);
        p->id = arena_printf(r->arena, "call_%.*s", SLICE_ARG(p->name));
    }
    return read_calls(j, json_get(j, m, "tool_calls"), r, turn, at, f);
}

static bool read_message(const struct json *j, int m, struct ir_request *r, uint32_t at, struct ir_fault *f) {
    int role = json_get(j, m, "role"), content = json_get(j, m, "content");
    bool system = json_str_is(j, role, "system") || json_str_is(j, role, "developer"),
         assistant = json_str_is(j, role, "assistant");
    bool tool = json_str_is(j, role, "tool"), function = json_str_is(j, role, "function");
    static const char *const known[] = { "role", "content", "tool_calls", "tool_call_id", "function_call", "refusal",
                                         "reasoning_content", "reasoning", "reasoning_details", "audio", "images",
                                         NULL };
    if (!system && !assistant && !tool && !function && !json_str_is(j, role, "user"))
        return common_wrong(r, f, place(r, at, -1, "role"), "one of system, developer, user, assistant, tool");
    struct ir_turn *turn = ir_add_turn(r, system ? IR_SYSTEM : assistant ? IR_ASSISTANT : IR_USER);
    if (!turn)
        return true;
    if (!function) /* whose name is that of its call */
        common_others(r, j, m, "messages", known);
    if (assistant)
        return read_assistant(j, m, r, turn, at, f);
    if (!tool && !function)
        return read_content(j, content, r, &turn->parts, at, f);
    struct slice id = json_str(j, json_get(j, m, "tool_call_id"), r->arena);
    if (function)
        id = arena_printf(r->arena, "call_%.*s", SLICE_ARG(json_str(j, json_get(j, m, "name"), r->arena)));
    if (!id.ptr)
        return ir_refuse(f, "missing_field", place(r, at, -1, "tool_call_id"),
                         SLICE("A tool message needs the id of its call."));
    struct ir_part *p = ir_add_part(r, &turn->parts, IR_RESULT);
    if (!p)
        return true;
    p->id = id;
    return read_content(j, content, r, &p->parts, at, f);
}

static bool read_format(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    int type = json_get(j, t, "type"), body = json_get(j, t, "json_schema"), schema = json_get(j, body, "schema");
    static const char *const outer[] = { "type", "json_schema", NULL };
    static const char *const known[] = { "name", "description", "schema", "strict", NULL };
    common_others(r, j, t, "response_format", outer);
    if (json_str_is(j, type, "text"))
        return true;
    if (json_str_is(j, type, "json_object")) {
        r->format = IR_FORMAT_JSON;
        return true;
    }
    if (!json_str_is(j, type, "json_schema") || !json_is(j, schema, JSON_OBJECT))
        return common_wrong(r, f, SLICE("response_format"), "of type text, json_object, or json_schema with a schema");
    common_others(r, j, body, "response_format.json_schema", known);
    r->format = IR_FORMAT_SCHEMA;
    r->schema = json_raw(j, schema);
    r->schema_name = json_str(j, json_get(j, body, "name"), r->arena);
    r->schema_description = json_str(j, json_get(j, body, "description"), r->arena);
    json_bool(j, json_get(j, body, "strict"), &r->schema_strict);
    return true;
}

/* A word, or OpenRouter's {effort, max_tokens, exclude}. */
static void read_effort(const struct json *j, int t, struct ir_request *r) {
    static const char *const known[] = { "effort", "max_tokens", "exclude", "enabled", NULL };
    int effort = json_is(j, t, JSON_STRING) ? t : json_get(j, t, "effort");
    common_effort(r, json_str(j, effort, r->arena));
    if (json_i64(j, json_get(j, t, "max_tokens"), &r->budget) && r->budget >= 0)
        r->has_budget = true;
    if (json_is(j, json_get(j, t, "exclude"), JSON_TRUE))
        r->thoughts = IR_NO;
    if (json_is(j, json_get(j, t, "enabled"), JSON_TRUE))
        r->adaptive = true;
    else if (json_is(j, json_get(j, t, "enabled"), JSON_FALSE))
        r->effort = IR_EFFORT_NONE;
    common_others(r, j, t, "reasoning", known);
}

/* What other dialects have as a tool. */
static void read_search(const struct json *j, int t, struct ir_request *r) {
    static const char *const known[] = { "search_context_size", "user_location", NULL };
    int place = json_get(j, json_get(j, t, "user_location"), "approximate"),
        depth = json_get(j, t, "search_context_size");
    struct ir_tool *x = ir_add_tool(r, IR_HOSTED);
    if (!x)
        return;
    x->name = SLICE("web_search");
    x->search.place = json_is(j, place, JSON_OBJECT) ? json_raw(j, place) : SLICE_NONE;
    x->search.depth = json_str(j, depth, r->arena);
    common_others(r, j, t, "web_search_options", known);
}

static bool read_known(const struct json *j, int t, uint32_t which, struct ir_request *r, struct ir_fault *f) {
    static const char *const options[] = { "include_usage", NULL };
    uint32_t index = 0, texts = 0;
    bool on;
    switch (which) {
    case MESSAGES:
        if (!json_is(j, t, JSON_ARRAY) || json_size(j, t) == 0)
            return common_wrong(r, f, SLICE("messages"), "a list of at least one message");
        for (int m = json_first(j, t); m >= 0; m = json_next(j, t, m))
            if (!read_message(j, m, r, index++, f))
                return false;
        return true;
    case TOOLS: return openai_read_tools(j, t, false, r, f);
    case FUNCTIONS: return openai_read_tools(j, t, true, r, f);
    case TOOL_CHOICE: case FUNCTION_CALL: return openai_read_choice(j, t, r, f);
    case PARALLEL:
        if (!json_bool(j, t, &on))
            return common_wrong(r, f, SLICE("parallel_tool_calls"), "true or false");
        r->parallel = on ? IR_YES : IR_NO;
        return true;
    case FORMAT: return read_format(j, t, r, f);
    case EFFORT: case REASONING: read_effort(j, t, r); return true;
    case THINKING:
        if (json_str_is(j, json_get(j, t, "type"), "disabled"))
            r->effort = IR_EFFORT_NONE;
        else if (json_is(j, t, JSON_OBJECT))
            r->adaptive = true;
        if (json_i64(j, json_get(j, t, "budget_tokens"), &r->budget) && r->budget >= 0)
            r->has_budget = true;
        return true;
    case STOP:
        return common_strings(j, t, r, &r->stop) ||
               common_wrong(r, f, SLICE("stop"), "a string or a list of strings");
    case STREAM_OPTIONS:
        json_bool(j, json_get(j, t, "include_usage"), &r->wants_usage);
        common_others(r, j, t, "stream_options", options);
        return true;
    case MODALITIES:
        for (int i = json_items(j, t); i >= 0; i = json_next(j, t, i)) {
            bool text = json_str_is(j, i, "text"), image = json_str_is(j, i, "image");
            r->audio_out = r->audio_out || (!text && !image);
            r->image_out = r->image_out || image;
            texts += text;
        }
        r->no_text = texts == 0 && r->image_out;
        return true;
    case WEB_SEARCH: read_search(j, t, r); return true;
    default: return true;
    }
}

bool openai_read_request(const struct json *j, const struct dialect_path *path, struct ir_request *r,
                         struct ir_fault *f) {
    uint32_t seen = 0;
    (void)path;
    if (!common_members(j, fields, sizeof fields / sizeof *fields, read_known, r, f, &seen))
        return false;
    if (r->model.len == 0)
        return ir_missing(f, "model");
    return (seen & 1u << MESSAGES) || ir_missing(f, "messages");
}
