/* Reads a Responses request: its members and tools; the items of `input` are in responses_items.c.
 *
 * What needs state at the provider (previous_response_id, conversation, prompt, background) is refused. What only
 * tunes or belongs to an agent's own bookkeeping is kept as an extra. Members that answers repeat are kept raw
 * beside. */
#include "proto/dialect/responses.h"

#define AT(member) offsetof(struct ir_request, member)
enum {
    INPUT,
    INSTRUCTIONS,
    TOOLS,
    TOOL_CHOICE,
    PARALLEL,
    TEXT,
    REASONING,
    PREVIOUS,
    CONVERSATION,
    PROMPT,
    BACKGROUND,
    INCLUDE,
    STORE,
    STREAM_OPTIONS,
    CACHE_OPTIONS
};
static const struct field fields[] = {
    [INPUT] = { "input", FIELD_KNOWN, 0 }, [INSTRUCTIONS] = { "instructions", FIELD_KNOWN, 0 },
    [TOOLS] = { "tools", FIELD_KNOWN, 0 }, [TOOL_CHOICE] = { "tool_choice", FIELD_KNOWN, 0 },
    [PARALLEL] = { "parallel_tool_calls", FIELD_KNOWN, 0 }, [TEXT] = { "text", FIELD_KNOWN, 0 },
    [REASONING] = { "reasoning", FIELD_KNOWN, 0 }, [PREVIOUS] = { "previous_response_id", FIELD_KNOWN, 0 },
    [CONVERSATION] = { "conversation", FIELD_KNOWN, 0 }, [PROMPT] = { "prompt", FIELD_KNOWN, 0 },
    [BACKGROUND] = { "background", FIELD_KNOWN, 0 }, [INCLUDE] = { "include", FIELD_KNOWN, 0 },
    [STORE] = { "store", FIELD_KNOWN, 0 }, [STREAM_OPTIONS] = { "stream_options", FIELD_KNOWN, 0 },
    [CACHE_OPTIONS] = { "prompt_cache_options", FIELD_KNOWN, 0 },
    { "model", FIELD_STRING, AT(model) }, { "stream", FIELD_BOOL, AT(stream) }, { "max_output_tokens", FIELD_LIMIT, 0 },
    { "temperature", FIELD_NUMBER, AT(temperature) }, { "top_p", FIELD_NUMBER, AT(top_p) },
    { "top_logprobs", FIELD_NUMBER, AT(top_logprobs) }, { "user", FIELD_STRING, AT(user) },
    { "service_tier", FIELD_STRING, AT(service_tier) },
    { "prompt_cache_key", FIELD_STRING, AT(cache_key) },
};

static const char *const echoed[] = {
    "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "temperature", "top_p",
    "max_output_tokens", "metadata", "truncation", "user", "safety_identifier", "prompt_cache_key",
};

struct slice responses_full_name(const struct json *j, int t, struct arena *arena) {
    struct slice name = json_str(j, json_get(j, t, "name"), arena),
                 space = json_str(j, json_get(j, t, "namespace"), arena);
    return name.ptr && space.len > 0 ? arena_printf(arena, "%.*s.%.*s", SLICE_ARG(space), SLICE_ARG(name)) : name;
}

/* What a search of the web is told. */
static void read_search(const struct json *j, int t, struct ir_request *r, struct ir_search *s) {
    static const char *const known[] = { "type", "filters", "search_context_size", "user_location", NULL };
    static const char *const filters[] = { "allowed_domains", "blocked_domains", NULL };
    int filter = json_get(j, t, "filters"), allowed = json_get(j, filter, "allowed_domains"),
        blocked = json_get(j, filter, "blocked_domains"), place = json_get(j, t, "user_location");
    s->allowed = json_is(j, allowed, JSON_ARRAY) ? json_raw(j, allowed) : SLICE_NONE;
    s->blocked = json_is(j, blocked, JSON_ARRAY) ? json_raw(j, blocked) : SLICE_NONE;
    s->place = json_is(j, place, JSON_OBJECT) ? json_raw(j, place) : SLICE_NONE;
    s->depth = json_str(j, json_get(j, t, "search_context_size"), r->arena);
    common_others(r, j, t, "tools.web_search", known);
    common_others(r, j, filter, "tools.web_search.filters", filters);
    if (json_is(j, json_get(j, t, "external_web_access"), JSON_FALSE))
        ir_note(r, SLICE("tools.web_search.external_web_access"));
}

static bool read_tool(const struct json *j, int t, struct slice space, uint32_t index, struct ir_request *r,
                      struct ir_fault *f) {
    struct arena *a = r->arena;
    struct slice type = json_str(j, json_get(j, t, "type"), a), name = json_str(j, json_get(j, t, "name"), a);
    static const char *const grammar[] = { "type", "syntax", "definition", NULL };
    static const char *const group[] = { "type", "name", "tools", NULL };
    static const char *const known[] = { "type", "name", "description", "parameters", "strict", "format", NULL };
    int inner = json_get(j, t, "tools");
    if (slice_is(type, "namespace") && json_is(j, inner, JSON_ARRAY) && space.len == 0) {
        common_others(r, j, t, "tools.namespace", group);
        return responses_read_tools(j, inner, name.ptr ? name : SLICE(""), r, f);
    }
    bool function = slice_is(type, "function"), custom = slice_is(type, "custom");
    if (type.len == 0 || ((function || custom) && name.len == 0))
        return common_wrong(r, f, arena_printf(a, "tools[%u]", index), "a tool with type and name");
    struct slice full = space.len > 0 ? arena_printf(a, "%.*s.%.*s", SLICE_ARG(space), SLICE_ARG(name)) : name;
    struct ir_tool *x = ir_add_tool(r, function ? IR_FUNCTION : custom ? IR_CUSTOM : IR_HOSTED);
    if (!x)
        return true;
    int schema = json_get(j, t, "parameters"), format = json_get(j, t, "format");
    x->index = index;
    x->name = function || custom ? full : type;
    if (x->kind != IR_HOSTED) {
        common_others(r, j, t, "tools", known);
        common_others(r, j, format, "tools.format", grammar);
    } else
        x->raw = json_raw(j, t);
    if (slice_starts(x->name, SLICE("web_search")) && x->kind == IR_HOSTED) {
        x->name = SLICE("web_search"); /* web_search_preview and dated names */
        read_search(j, t, r, &x->search);
    }
    x->description = json_str(j, json_get(j, t, "description"), a);
    x->schema = json_is(j, schema, JSON_OBJECT) ? json_raw(j, schema) : SLICE_NONE;
    x->grammar = custom && json_is(j, format, JSON_OBJECT) ? json_raw(j, format) : SLICE_NONE;
    json_bool(j, json_get(j, t, "strict"), &x->strict);
    return true;
}

bool responses_read_tools(const struct json *j, int t, struct slice space, struct ir_request *r, struct ir_fault *f) {
    if (!json_is(j, t, JSON_ARRAY))
        return common_wrong(r, f, SLICE("tools"), "a list");
    uint32_t index = 0;
    for (int i = json_first(j, t); i >= 0; i = json_next(j, t, i))
        if (!read_tool(j, i, space, index++, r, f))
            return false;
    return true;
}

/* The name of a function or custom tool, or the kind of a hosted one, as read_tool has it. */
static struct slice chosen_name(const struct json *j, int t, struct arena *arena) {
    struct slice type = json_str(j, json_get(j, t, "type"), arena), name = responses_full_name(j, t, arena);
    if (name.ptr && (slice_is(type, "function") || slice_is(type, "custom")))
        return name;
    return slice_starts(type, SLICE("web_search")) ? SLICE("web_search") : type;
}

static bool read_choice(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    int type = json_get(j, t, "type"), list = json_get(j, t, "tools");
    static const char *const known[] = { "type", "mode", "tools", "name", "namespace", NULL };
    common_others(r, j, t, "tool_choice", known);
    if (json_is(j, t, JSON_STRING)) {
        r->choice = json_str_is(j, t, "auto") ? IR_CHOICE_AUTO : json_str_is(j, t, "none") ? IR_CHOICE_NONE :
                    json_str_is(j, t, "required") ? IR_CHOICE_REQUIRED : IR_CHOICE_UNSET;
        return r->choice != IR_CHOICE_UNSET ||
               common_wrong(r, f, SLICE("tool_choice"), "none, auto, required, or a tool");
    }
    if (json_str_is(j, type, "allowed_tools") && json_is(j, list, JSON_ARRAY)) {
        r->choice = IR_CHOICE_SUBSET;
        r->choice_required = json_str_is(j, json_get(j, t, "mode"), "required");
        for (int i = json_first(j, list); i >= 0; i = json_next(j, list, i))
            ir_add_text(r, &r->choice_names, chosen_name(j, i, r->arena));
        return true;
    }
    if (!json_is(j, type, JSON_STRING))
        return common_wrong(r, f, SLICE("tool_choice"), "none, auto, required, or a tool");
    r->choice = IR_CHOICE_ONE;
    ir_add_text(r, &r->choice_names, chosen_name(j, t, r->arena));
    return true;
}

static bool read_text(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    int format = json_get(j, t, "format"), type = json_get(j, format, "type"), schema = json_get(j, format, "schema");
    static const char *const known[] = { "format", "verbosity", NULL };
    static const char *const inner[] = { "type", "name", "schema", "description", "strict", NULL };
    if (json_is(j, json_get(j, t, "verbosity"), JSON_STRING))
        r->verbosity = json_str(j, json_get(j, t, "verbosity"), r->arena);
    common_others(r, j, t, "text", known);
    common_others(r, j, format, "text.format", inner);
    if (format < 0 || json_is(j, format, JSON_NULL) || json_str_is(j, type, "text"))
        return true;
    if (json_str_is(j, type, "json_object")) {
        r->format = IR_FORMAT_JSON;
        return true;
    }
    if (!json_str_is(j, type, "json_schema") || !json_is(j, schema, JSON_OBJECT))
        return common_wrong(r, f, SLICE("text.format"), "of type text, json_object, or json_schema with a schema");
    r->format = IR_FORMAT_SCHEMA;
    r->schema = json_raw(j, schema);
    r->schema_name = json_str(j, json_get(j, format, "name"), r->arena);
    r->schema_description = json_str(j, json_get(j, format, "description"), r->arena);
    json_bool(j, json_get(j, format, "strict"), &r->schema_strict);
    return true;
}

static void read_reasoning(const struct json *j, int t, struct ir_request *r) {
    static const char *const known[] = { "effort", "summary", "generate_summary", NULL };
    int summary = json_get(j, t, "summary");
    if (summary < 0)
        summary = json_get(j, t, "generate_summary");
    common_others(r, j, t, "reasoning", known);
    common_effort(r, json_str(j, json_get(j, t, "effort"), r->arena));
    r->thoughts = json_is(j, summary, JSON_STRING) && !json_str_is(j, summary, "none") ? IR_YES : IR_NO;
}

static bool read_input(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    if (json_is(j, t, JSON_STRING)) {
        struct ir_turn *turn = ir_add_turn(r, IR_USER);
        struct ir_part *p = turn ? ir_add_part(r, &turn->parts, IR_TEXT) : NULL;
        if (p)
            p->text = json_str(j, t, r->arena);
        return true;
    }
    if (!json_is(j, t, JSON_ARRAY))
        return common_wrong(r, f, SLICE("input"), "a string or a list of items");
    uint32_t index = 0;
    for (int i = json_first(j, t); i >= 0; i = json_next(j, t, i))
        if (!responses_read_item(j, i, index++, r, f))
            return false;
    return true;
}

static bool read_instructions(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    if (!json_is(j, t, JSON_STRING))
        return common_wrong(r, f, SLICE("instructions"), "a string");
    struct ir_turn *turn = ir_add_first_turn(r, IR_SYSTEM);
    struct ir_part *p = turn ? ir_add_part(r, &turn->parts, IR_TEXT) : NULL;
    if (p)
        p->text = json_str(j, t, r->arena);
    return true;
}

static bool refuse_state(uint32_t which, struct ir_fault *f) {
    return ir_refuse(f, "unsupported_parameter", slice_str(fields[which].name),
                     SLICE("This model's provider keeps no state: send the whole conversation in input."));
}

/* Encrypted reasoning always comes; what else may be asked for belongs to the provider's own tools. */
static void read_include(const struct json *j, int t, struct ir_request *r) {
    for (int i = json_items(j, t); i >= 0; i = json_next(j, t, i))
        if (json_str_is(j, i, "message.output_text.logprobs"))
            r->logprobs = true;
        else if (!json_str_is(j, i, "reasoning.encrypted_content"))
            ir_note(r, arena_printf(r->arena, "include.%.*s", SLICE_ARG(json_str(j, i, r->arena))));
}

/* Items that change the settings from their place on: the last one's are those of the answer that is asked for. */
static bool read_updates(const struct json *j, int input, struct ir_request *r, struct ir_fault *f) {
    static const char *const known[] = { "type", "id", "reasoning", "text", NULL };
    static const char *const effort_alone[] = { "effort", NULL };
    for (int i = json_items(j, input); i >= 0; i = json_next(j, input, i)) {
        int effort = json_get(j, json_get(j, i, "reasoning"), "effort"), text = json_get(j, i, "text");
        if (!json_str_is(j, json_get(j, i, "type"), "configuration_update"))
            continue;
        common_others(r, j, i, "input.configuration_update", known);
        common_others(r, j, json_get(j, i, "reasoning"), "input.configuration_update.reasoning", effort_alone);
        if (json_is(j, effort, JSON_STRING))
            common_effort(r, json_str(j, effort, r->arena));
        if (json_is(j, text, JSON_OBJECT)) {
            r->format = IR_FORMAT_TEXT;
            if (!read_text(j, text, r, f))
                return false;
        }
    }
    return true;
}

static bool read_known(const struct json *j, int t, uint32_t which, struct ir_request *r, struct ir_fault *f) {
    static const char *const none[] = { NULL };
    bool on = false;
    switch (which) {
    case INPUT: return read_input(j, t, r, f);
    case INSTRUCTIONS: return read_instructions(j, t, r, f);
    case TOOLS: return responses_read_tools(j, t, SLICE_NONE, r, f);
    case TOOL_CHOICE: return read_choice(j, t, r, f);
    case PARALLEL:
        if (!json_bool(j, t, &on))
            return common_wrong(r, f, SLICE("parallel_tool_calls"), "true or false");
        r->parallel = on ? IR_YES : IR_NO;
        return true;
    case TEXT: return read_text(j, t, r, f);
    case REASONING: read_reasoning(j, t, r); return true;
    case BACKGROUND:
        return (json_bool(j, t, &on) && !on) || refuse_state(which, f);
    case PREVIOUS: case CONVERSATION: case PROMPT: return refuse_state(which, f);
    case INCLUDE: read_include(j, t, r); return true;
    case STORE:
        if (json_is(j, t, JSON_TRUE))
            ir_note(r, SLICE("store"));
        return true;
    case STREAM_OPTIONS: common_others(r, j, t, "stream_options", none); return true;
    case CACHE_OPTIONS:
        if (json_is(j, json_get(j, t, "prewarm"), JSON_TRUE))
            return ir_refuse(f, "unsupported_parameter", SLICE("prompt_cache_options.prewarm"),
                             SLICE("This model's provider cannot fill its cache without an answer."));
        ir_add_extra(r, j, t - 1);
        return true;
    default: return true;
    }
}

bool responses_read_request(const struct json *j, const struct dialect_path *path, struct ir_request *r,
                            struct ir_fault *f) {
    uint32_t seen = 0;
    (void)path;
    for (int key = json_first(j, 0); key >= 0; key = json_next(j, 0, key))
        for (size_t i = 0; i < sizeof echoed / sizeof *echoed; i++)
            if (json_str_is(j, key, echoed[i]))
                ir_add_echo(r, j, key);
    if (!common_members(j, fields, sizeof fields / sizeof *fields, read_known, r, f, &seen))
        return false;
    if (r->model.len == 0)
        return ir_missing(f, "model");
    return ((seen & 1u << INPUT) || ir_missing(f, "input")) && read_updates(j, json_get(j, 0, "input"), r, f);
}
