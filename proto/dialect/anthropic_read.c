/* Reads a Messages request.
 *
 * Agents send beta members on every call; at the top level whatever is not known is kept as an extra, which only
 * tunes. Blocks that hold what the provider's own tools did (server_tool_use and its results) are left out and
 * reported: no other provider has their state, and the text that came of them stands beside. Files by id are another
 * provider's and are refused. */
#include "proto/dialect/anthropic.h"

#define AT(member) offsetof(struct ir_request, member)
enum {
    MESSAGES,
    SYSTEM,
    STOP,
    TOOLS,
    TOOL_CHOICE,
    THINKING,
    OUTPUT_CONFIG,
    OUTPUT_FORMAT,
    METADATA,
    CONTAINER,
    MCP,
    CACHE,
    THREAD,
    COMPACTION
};
static const struct field fields[] = {
    [MESSAGES] = { "messages", FIELD_KNOWN, 0 }, [SYSTEM] = { "system", FIELD_KNOWN, 0 },
    [STOP] = { "stop_sequences", FIELD_KNOWN, 0 }, [TOOLS] = { "tools", FIELD_KNOWN, 0 },
    [TOOL_CHOICE] = { "tool_choice", FIELD_KNOWN, 0 }, [THINKING] = { "thinking", FIELD_KNOWN, 0 },
    [OUTPUT_CONFIG] = { "output_config", FIELD_KNOWN, 0 }, [OUTPUT_FORMAT] = { "output_format", FIELD_KNOWN, 0 },
    [METADATA] = { "metadata", FIELD_KNOWN, 0 }, [CONTAINER] = { "container", FIELD_KNOWN, 0 },
    [MCP] = { "mcp_servers", FIELD_KNOWN, 0 }, [CACHE] = { "cache_control", FIELD_KNOWN, 0 },
    [THREAD] = { "thread", FIELD_KNOWN, 0 }, [COMPACTION] = { "compaction", FIELD_KNOWN, 0 },
    { "model", FIELD_STRING, AT(model) }, { "stream", FIELD_BOOL, AT(stream) }, { "max_tokens", FIELD_LIMIT, 0 },
    { "temperature", FIELD_NUMBER, AT(temperature) }, { "top_p", FIELD_NUMBER, AT(top_p) },
    { "top_k", FIELD_NUMBER, AT(top_k) }, { "service_tier", FIELD_STRING, AT(service_tier) },
};

/* Where something stands, for messages: messages[3].content[1]. */
struct place { uint32_t message; int block; };

static struct slice where(struct ir_request *r, struct place at) {
    if (at.block < 0)
        return arena_printf(r->arena, "messages[%u].content", at.message);
    return arena_printf(r->arena, "messages[%u].content[%d]", at.message, at.block);
}

static struct slice str(const struct json *j, int obj, const char *name, struct ir_request *r) {
    return json_str(j, json_get(j, obj, name), r->arena);
}

static bool read_blocks(const struct json *j, int t, struct ir_request *r, struct ir_part **list, struct place at,
                        struct ir_fault *f);

/* The source of an image or a document. */
static bool read_source(const struct json *j, int t, struct ir_request *r, struct ir_part *p, struct place at,
                        struct ir_fault *f) {
    int source = json_get(j, t, "source"), type = json_get(j, source, "type"), content = json_get(j, source, "content");
    if (!p)
        return true;
    if (json_str_is(j, type, "base64")) {
        p->media_type = str(j, source, "media_type", r);
        p->data = str(j, source, "data", r);
    } else if (json_str_is(j, type, "url")) {
        common_set_url(r, p, str(j, source, "url", r));
    } else if (json_str_is(j, type, "text")) {
        p->media_type = SLICE("text/plain");
        p->text = str(j, source, "data", r);
    } else if (json_str_is(j, type, "content")) {
        p->media_type = SLICE("text/plain");
        struct ir_part *inner = NULL;
        if (json_is(j, content, JSON_STRING))
            p->text = json_str(j, content, r->arena);
        else if (!read_blocks(j, content, r, &inner, at, f))
            return false;
        else
            p->text = ir_join_text(r->arena, inner, "\n");
    } else {
        return ir_refuse(f, "unsupported_parameter", where(r, at),
                         SLICE("A file of another provider cannot be used with this model."));
    }
    if (p->data.len + p->url.len + p->text.len == 0)
        return common_wrong(r, f, where(r, at), "a block with a source");
    return true;
}

static void read_thinking_block(const struct json *j, int t, bool redacted, struct ir_request *r,
                                struct ir_part **list) {
    struct ir_part *p = ir_add_part(r, list, IR_REASONING);
    struct slice blob = str(j, t, redacted ? "data" : "signature", r);
    if (!p)
        return;
    p->text = redacted ? SLICE_NONE : str(j, t, "thinking", r);
    if (blob.len > 0)
        p->blob = ir_blob_of(blob, redacted ? IR_BLOB_REDACTED : IR_BLOB_SIGNATURE, IR_ANTHROPIC);
}

static bool read_result(const struct json *j, int t, struct ir_request *r, struct ir_part **list, struct place at,
                        struct ir_fault *f) {
    struct slice id = str(j, t, "tool_use_id", r);
    if (!id.ptr)
        return common_wrong(r, f, where(r, at), "a tool_result with a tool_use_id");
    struct ir_part *p = ir_add_part(r, list, IR_RESULT);
    if (!p)
        return true;
    p->id = id;
    json_bool(j, json_get(j, t, "is_error"), &p->is_error);
    p->cache = common_cache_mark(j, json_get(j, t, "cache_control"), r->arena);
    return read_blocks(j, json_get(j, t, "content"), r, &p->parts, at, f);
}

static bool read_call(const struct json *j, int t, struct ir_request *r, struct ir_part **list, struct place at,
                      struct ir_fault *f) {
    struct slice id = str(j, t, "id", r), name = str(j, t, "name", r);
    int input = json_get(j, t, "input");
    if (!id.ptr || !name.ptr)
        return common_wrong(r, f, where(r, at), "a tool_use with id, name and input");
    struct ir_part *p = ir_add_part(r, list, IR_CALL);
    if (!p)
        return true;
    p->id = id;
    p->name = name;
    p->text = json_is(j, input, JSON_OBJECT) ? json_raw(j, input) : SLICE("{}");
    p->cache = common_cache_mark(j, json_get(j, t, "cache_control"), r->arena);
    return true;
}

/* Whether a document's content holds more than text. */
static bool has_pictures(const struct json *j, int content) {
    for (int i = json_items(j, content); i >= 0; i = json_next(j, content, i))
        if (!json_str_is(j, json_get(j, i, "type"), "text"))
            return true;
    return false;
}

/* Such a document goes as what it holds, behind its title and context. */
static bool read_illustrated(const struct json *j, int t, struct ir_request *r, struct ir_part **list, struct place at,
                             struct ir_fault *f) {
    const struct ir_part about = { .title = str(j, t, "title", r), .context = str(j, t, "context", r) };
    struct slice head = common_file_head(&about, true, r->arena);
    struct ir_part *p = head.len > 0 ? ir_add_part(r, list, IR_TEXT) : NULL;
    if (p)
        p->text = head;
    return read_blocks(j, json_get(j, json_get(j, t, "source"), "content"), r, list, at, f);
}

static bool read_document(const struct json *j, int t, struct ir_request *r, struct ir_part **list, struct place at,
                          struct ir_fault *f) {
    if (has_pictures(j, json_get(j, json_get(j, t, "source"), "content")))
        return read_illustrated(j, t, r, list, at, f);
    struct ir_part *p = ir_add_part(r, list, IR_FILE);
    if (!p)
        return true;
    p->title = p->name = str(j, t, "title", r);
    p->context = str(j, t, "context", r);
    p->cache = common_mark_of(j, t, r->arena);
    p->media_type = SLICE("application/pdf");
    return read_source(j, t, r, p, at, f);
}

/* A search result that the client's own tool found: its source, title and text. */
static bool read_search_result(const struct json *j, int t, struct ir_request *r, struct ir_part **list,
                               struct place at, struct ir_fault *f) {
    struct ir_part *inner = NULL, *p = ir_add_part(r, list, IR_TEXT);
    if (p)
        p->cache = common_mark_of(j, t, r->arena);
    if (!read_blocks(j, json_get(j, t, "content"), r, &inner, at, f))
        return false;
    struct slice title = str(j, t, "title", r), source = str(j, t, "source", r),
                 text = ir_join_text(r->arena, inner, "\n");
    if (p)
        p->text = arena_printf(r->arena, "%.*s (%.*s)\n%.*s", SLICE_ARG(title), SLICE_ARG(source), SLICE_ARG(text));
    return true;
}

/* Blocks about what the provider's own tools did. */
static bool provider_made(struct slice type) {
    return slice_is(type, "server_tool_use") || slice_starts(type, SLICE("mcp_tool_")) ||
           slice_ends(type, SLICE("_tool_result")) || slice_is(type, "fallback") || slice_is(type, "tool_reference");
}

static bool read_block(const struct json *j, int t, struct ir_request *r, struct ir_part **list, struct place at,
                       struct ir_fault *f) {
    static const char *const known[] = { "type",        "text",    "content", "source",   "title",
                                         "context",     "id",      "name",    "input",    "tool_use_id",
                                         "is_error",    "thinking", "signature", "data",  "cache_control",
                                         NULL };
    struct slice type = str(j, t, "type", r), text;
    struct ir_part *p;
    if (!provider_made(type))
        common_others(r, j, t, "messages.content", known);
    if (slice_is(type, "text") || slice_is(type, "compaction")) {
        text = str(j, t, slice_is(type, "text") ? "text" : "content", r);
        if (!text.ptr && slice_is(type, "text"))
            return common_wrong(r, f, where(r, at), "a block with text");
        if (!text.ptr)
            return ir_refuse(f, "unsupported_parameter", where(r, at),
                             SLICE("This model's provider cannot read what only its maker can."));
        if ((p = ir_add_part(r, list, IR_TEXT))) {
            p->text = text;
            p->cache = common_cache_mark(j, json_get(j, t, "cache_control"), r->arena);
        }
        return true;
    }
    if (slice_is(type, "image")) {
        if (!(p = ir_add_part(r, list, IR_IMAGE)))
            return true;
        p->cache = common_mark_of(j, t, r->arena);
        return read_source(j, t, r, p, at, f);
    }
    if (slice_is(type, "document"))
        return read_document(j, t, r, list, at, f);
    if (slice_is(type, "tool_use"))
        return read_call(j, t, r, list, at, f);
    if (slice_is(type, "tool_result"))
        return read_result(j, t, r, list, at, f);
    if (slice_is(type, "thinking") || slice_is(type, "redacted_thinking")) {
        read_thinking_block(j, t, slice_is(type, "redacted_thinking"), r, list);
        return true;
    }
    if (slice_is(type, "search_result"))
        return read_search_result(j, t, r, list, at, f);
    if (provider_made(type)) {
        ir_note(r, arena_printf(r->arena, "messages.%.*s", SLICE_ARG(type)));
        return true;
    }
    return ir_refuse(f, "invalid_value", where(r, at),
                     arena_printf(r->arena, "This model takes no block of type %.*s.", SLICE_ARG(type)));
}

static bool read_blocks(const struct json *j, int t, struct ir_request *r, struct ir_part **list, struct place at,
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
        return common_wrong(r, f, where(r, at), "a string or a list of blocks");
    int k = 0;
    for (int i = json_first(j, t); i >= 0; i = json_next(j, t, i), k++) {
        struct place inner = { at.message, at.block < 0 ? k : at.block };
        if (!read_block(j, i, r, list, inner, f))
            return false;
    }
    return true;
}

static bool read_messages(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    if (!json_is(j, t, JSON_ARRAY) || json_size(j, t) == 0)
        return common_wrong(r, f, SLICE("messages"), "a list of at least one message");
    static const char *const known[] = { "role", "content", NULL };
    uint32_t i = 0;
    for (int m = json_first(j, t); m >= 0; m = json_next(j, t, m), i++) {
        int role = json_get(j, m, "role");
        bool user = json_str_is(j, role, "user"), assistant = json_str_is(j, role, "assistant");
        if (!user && !assistant && !json_str_is(j, role, "system"))
            return common_wrong(r, f, arena_printf(r->arena, "messages[%u].role", i), "user, assistant or system");
        struct ir_turn *turn = ir_add_turn(r, user ? IR_USER : assistant ? IR_ASSISTANT : IR_SYSTEM);
        struct place at = { i, -1 };
        common_others(r, j, m, "messages", known);
        if (turn && !read_blocks(j, json_get(j, m, "content"), r, &turn->parts, at, f))
            return false;
    }
    return true;
}

/* An agent's own billing line is not meant
 * for other providers, and it changes with every call, which would spoil their caches. */
static bool read_system(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    struct ir_turn *turn = ir_add_first_turn(r, IR_SYSTEM);
    struct place at = { 0, -1 };
    if (!turn)
        return true;
    if (!read_blocks(j, t, r, &turn->parts, at, f)) {
        f->param = SLICE("system");
        return false;
    }
    for (struct ir_part *p = turn->parts; p; p = p->next)
        if (slice_starts(p->text, SLICE("x-anthropic-billing-header:")))
            p->text = SLICE_NONE;
    return true;
}

static void read_hosted(const struct json *j, int t, struct ir_request *r, struct ir_tool *x) {
    static const char *const known[] = { "type", "name", "allowed_domains", "blocked_domains", "user_location",
                                         "cache_control", NULL };
    int allowed = json_get(j, t, "allowed_domains"), blocked = json_get(j, t, "blocked_domains"),
        place = json_get(j, t, "user_location");
    x->raw = json_raw(j, t);
    if (!slice_is(x->name, "web_search"))
        return;
    x->search.allowed = json_is(j, allowed, JSON_ARRAY) ? json_raw(j, allowed) : SLICE_NONE;
    x->search.blocked = json_is(j, blocked, JSON_ARRAY) ? json_raw(j, blocked) : SLICE_NONE;
    x->search.place = json_is(j, place, JSON_OBJECT) ? json_raw(j, place) : SLICE_NONE;
    common_others(r, j, t, "tools.web_search", known);
}

static bool read_tools(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    if (!json_is(j, t, JSON_ARRAY))
        return common_wrong(r, f, SLICE("tools"), "a list");
    static const char *const known[] = { "type", "name", "description", "input_schema", "strict", "cache_control",
                                         NULL };
    uint32_t index = 0;
    for (int i = json_first(j, t); i >= 0; i = json_next(j, t, i), index++) {
        struct slice type = str(j, i, "type", r), name = str(j, i, "name", r);
        bool hosted = type.len > 0 && !slice_is(type, "custom");
        if (!name.ptr && !hosted)
            return common_wrong(r, f, arena_printf(r->arena, "tools[%u]", index), "a tool with a name");
        struct ir_tool *x = ir_add_tool(r, hosted ? IR_HOSTED : IR_FUNCTION);
        if (!x)
            return true;
        int schema = json_get(j, i, "input_schema");
        x->index = index;
        x->name = slice_starts(type, SLICE("web_search_")) ? SLICE("web_search") : name.ptr ? name : type;
        if (hosted)
            read_hosted(j, i, r, x);
        else
            common_others(r, j, i, "tools", known);
        x->description = str(j, i, "description", r);
        x->schema = json_is(j, schema, JSON_OBJECT) ? json_raw(j, schema) : SLICE_NONE;
        json_bool(j, json_get(j, i, "strict"), &x->strict);
        x->cache = common_cache_mark(j, json_get(j, i, "cache_control"), r->arena);
    }
    return true;
}

static bool read_choice(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    static const char *const known[] = { "type", "name", "disable_parallel_tool_use", NULL };
    int type = json_get(j, t, "type");
    bool off;
    common_others(r, j, t, "tool_choice", known);
    if (json_bool(j, json_get(j, t, "disable_parallel_tool_use"), &off) && off)
        r->parallel = IR_NO;
    if (json_str_is(j, type, "auto"))
        r->choice = IR_CHOICE_AUTO;
    else if (json_str_is(j, type, "none"))
        r->choice = IR_CHOICE_NONE;
    else if (json_str_is(j, type, "any"))
        r->choice = IR_CHOICE_REQUIRED;
    else if (json_str_is(j, type, "tool") && json_is(j, json_get(j, t, "name"), JSON_STRING)) {
        r->choice = IR_CHOICE_ONE;
        ir_add_text(r, &r->choice_names, str(j, t, "name", r));
    } else
        return common_wrong(r, f, SLICE("tool_choice"), "of type auto, any, tool (with a name) or none");
    return true;
}

static bool read_thinking(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    static const char *const known[] = { "type", "budget_tokens", "display", NULL };
    int type = json_get(j, t, "type"), display = json_get(j, t, "display");
    if (json_str_is(j, type, "enabled")) {
        if (!json_i64(j, json_get(j, t, "budget_tokens"), &r->budget) || r->budget < 0)
            return common_wrong(r, f, SLICE("thinking.budget_tokens"), "a whole number");
        r->has_budget = true;
    } else if (json_str_is(j, type, "disabled"))
        r->effort = IR_EFFORT_NONE;
    else if (json_str_is(j, type, "adaptive"))
        r->adaptive = true;
    else if (t >= 0 && !json_is(j, t, JSON_NULL)) { /* between_tools, and what is new: how, not whether, it thinks */
        r->adaptive = true;
        ir_note(r, SLICE("thinking.type"));
    }
    common_others(r, j, t, "thinking", known);
    r->thoughts = json_str_is(j, display, "omitted")      ? IR_NO
                  : json_str_is(j, display, "summarized") ? IR_YES
                                                          : IR_UNSET;
    return true;
}

static bool read_format(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    int schema = json_get(j, t, "schema");
    if (t < 0 || json_is(j, t, JSON_NULL))
        return true;
    static const char *const known[] = { "type", "schema", NULL };
    common_others(r, j, t, "output_config.format", known);
    if (!json_is(j, schema, JSON_OBJECT))
        return common_wrong(r, f, SLICE("output_config.format"), "of type json_schema with a schema");
    r->format = IR_FORMAT_SCHEMA;
    r->schema = json_raw(j, schema);
    return true;
}

static bool read_known(const struct json *j, int t, uint32_t which, struct ir_request *r, struct ir_fault *f) {
    static const char *const config[] = { "effort", "format", NULL }, *const metadata[] = { "user_id", NULL };
    switch (which) {
    case MESSAGES: return read_messages(j, t, r, f);
    case SYSTEM: return read_system(j, t, r, f);
    case STOP:
        return common_strings(j, t, r, &r->stop) || common_wrong(r, f, SLICE("stop_sequences"), "a list of strings");
    case TOOLS: return read_tools(j, t, r, f);
    case TOOL_CHOICE: return read_choice(j, t, r, f);
    case THINKING: return read_thinking(j, t, r, f);
    case OUTPUT_CONFIG:
        if (r->effort != IR_EFFORT_NONE)
            common_effort(r, str(j, t, "effort", r));
        common_others(r, j, t, "output_config", config);
        return read_format(j, json_get(j, t, "format"), r, f);
    case OUTPUT_FORMAT: return read_format(j, t, r, f);
    case METADATA:
        r->user = str(j, t, "user_id", r);
        common_others(r, j, t, "metadata", metadata);
        return true;
    case CACHE:
        ir_add_extra(r, j, t - 1);
        return true;
    case CONTAINER: case MCP: case THREAD: case COMPACTION: /* the last asks for no answer but a summary */
        if (json_is(j, t, JSON_ARRAY) && json_size(j, t) == 0)
            return true;
        return ir_refuse(f, "unsupported_parameter", slice_str(fields[which].name),
                         SLICE("This model's provider has no such state, servers or service."));
    default: return true;
    }
}

bool anthropic_read_request(const struct json *j, const struct dialect_path *path, struct ir_request *r,
                            struct ir_fault *f) {
    uint32_t seen = 0;
    if (!common_members(j, fields, sizeof fields / sizeof *fields, read_known, r, f, &seen))
        return false;
    if (r->model.len == 0)
        return ir_missing(f, "model");
    if (!r->has_limit && !path->counting)
        return ir_missing(f, "max_tokens");
    return (seen & 1u << MESSAGES) || ir_missing(f, "messages");
}
