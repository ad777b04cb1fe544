/* The pass path of Anthropic Messages: POST …/messages. The request: members that matter are looked at, the rest goes
 * as it came, thinking and its signatures byte for byte. The answer is anthropic_answer.c. Source: npm
 * `@anthropic-ai/sdk` 1.14 types, platform.claude.com. */
#include "proto/pass/anthropic.h"
#include "proto/pass/edits.h"
#include "proto/pass/scan.h"

/* Files and containers of the provider's own tools; handed out in answers, so the same table seals there. */
const struct scan_state anthropic_state = {
    .names = { SLICE("file_id"), SLICE("container") },
    .opaque = { SLICE("input"), SLICE("input_schema"), SLICE("metadata") },
};

/* ---- scan ---- */

static void scan_content(struct scan *s, int v);

/* {type: base64 | url | file | text | content, …} of an image or document. */
static void scan_source(struct scan *s, int source) {
    const struct json *j = s->j;
    int type = json_get(j, source, "type");
    if (json_str_is(j, type, "base64")) {
        s->r->media++;
    } else if (json_str_is(j, type, "text")) {
        scan_string(s, json_get(j, source, "data"));
    } else if (json_str_is(j, type, "content")) {
        scan_content(s, json_get(j, source, "content"));
    } else {
        s->r->references++;
    }
}

static void scan_block(struct scan *s, int block) {
    static const char *const whole[] = { "text",          "thinking",        "redacted_thinking",
                                         "tool_use",      "server_tool_use", "mcp_tool_use",
                                         "search_result", "compaction",      "fallback",
                                         "tool_reference" };
    const struct json *j = s->j;
    int type = json_get(j, block, "type");
    if (!json_is(j, type, JSON_STRING)) {
        scan_refuse(s, "invalid_value", "messages", "Each content block must be an object with a type.");
    } else if (json_str_is(j, type, "image") || json_str_is(j, type, "document")) {
        scan_string(s, json_get(j, block, "title"));
        scan_string(s, json_get(j, block, "context"));
        scan_source(s, json_get(j, block, "source"));
    } else if (json_str_is(j, type, "tool_result") || json_str_is(j, type, "mcp_tool_result")) {
        scan_content(s, json_get(j, block, "content"));
    } else if (json_str_is(j, type, "container_upload")) {
        s->r->references++;
    } else if (slice_ends(json_raw(j, type), SLICE("_tool_result"))) {
        scan_raw(s, block);
    } else {
        bool known = false;
        for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
            known |= json_str_is(j, type, whole[i]);
        scan_raw(s, block);
        s->r->references += !known; /* a kind we do not know: assume the worst of it */
    }
}

/* A string, or a list of blocks. */
static void scan_content(struct scan *s, int v) {
    if (json_is(s->j, v, JSON_STRING))
        scan_string(s, v);
    else if (json_is(s->j, v, JSON_ARRAY))
        for (int b = json_first(s->j, v); b >= 0; b = json_next(s->j, v, b))
            scan_block(s, b);
}

static void scan_messages(struct scan *s, int v) {
    const struct json *j = s->j;
    if (!json_is(j, v, JSON_ARRAY) || json_first(j, v) < 0) {
        scan_refuse(s, "invalid_value", "messages", "'messages' must be an array with at least one message.");
        return;
    }
    for (int m = json_first(j, v); m >= 0; m = json_next(j, v, m)) {
        int content = json_get(j, m, "content");
        s->r->messages++;
        if (!json_is(j, m, JSON_OBJECT))
            scan_refuse(s, "invalid_value", "messages", "Each message must be an object.");
        else if (!json_is(j, json_get(j, m, "role"), JSON_STRING))
            scan_refuse(s, "missing_field", "messages", "Each message must have a role.");
        else if (!json_is(j, content, JSON_STRING) && !json_is(j, content, JSON_ARRAY))
            scan_refuse(s, content < 0 ? "missing_field" : "invalid_value", "messages",
                        "Each message must have content: a string or an array.");
        else if (json_duplicate(j, m, "content"))
            scan_refuse(s, "invalid_value", "messages", "A member of a message stands twice.");
        scan_content(s, content);
    }
}

/* Kinds that the client runs itself, and the search among the request's own tools, which costs nothing but tokens.
 * Kinds are dated. */
static bool client_tool(struct slice type) {
    static const char *const kinds[] = { "bash_", "text_editor_", "computer_", "browser_", "memory_",
                                         "tool_search_tool_" };
    if (slice_is(type, "custom"))
        return true;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (slice_starts(type, slice_str(kinds[i])))
            return true;
    return false;
}

static void scan_tools(struct scan *s, int tools) {
    const struct json *j = s->j;
    scan_raw(s, tools);
    for (int t = scan_tool_list(s, tools); t >= 0; t = json_next(j, tools, t)) {
        int type = json_get(j, t, "type");
        s->r->tools++;
        if (json_duplicate(j, t, "type"))
            scan_refuse(s, "invalid_value", "tools", "A member of a tool stands twice.");
        if (!json_is(j, type, JSON_STRING) || client_tool(json_raw(j, type)) ||
            scan_allows_tool(s, json_raw(j, type)) || (json_str_is(j, type, "mcp_toolset") && scan_allows(s, "mcp")))
            s->others++;
        else
            scan_hosted(s, t, json_raw(j, type));
    }
}

/* {"type":"tool","name":…} that names a tool which would go. */
static bool forces(const struct scan *s, int choice) {
    int name = json_get(s->j, choice, "name");
    if (!json_is(s->j, name, JSON_STRING))
        return false;
    for (uint32_t i = 0; i < s->r->drops; i++) {
        int own = json_get(s->j, s->r->drop[i], "name");
        if (json_is(s->j, own, JSON_STRING) && slice_eq(json_raw(s->j, own), json_raw(s->j, name)))
            return true;
    }
    return false;
}

/* 0 only fills the cache; a hold still wants a token to stand for. */
static void scan_max_tokens(struct scan *s, int v) {
    uint64_t limit;
    s->r->t_limit = v;
    if (!json_u64(s->j, v, &limit)) {
        scan_refuse(s, "invalid_value", "max_tokens", "'max_tokens' must be a non-negative integer.");
        return;
    }
    s->r->has_limit = true;
    s->r->limit = limit > 0 ? limit : 1;
}

static void scan_thinking(struct scan *s, int v) {
    int budget = json_get(s->j, v, "budget_tokens");
    if (budget < 0 || json_is(s->j, budget, JSON_NULL))
        return;
    if (!json_u64(s->j, budget, &s->r->reasoning) || json_duplicate(s->j, v, "budget_tokens"))
        scan_refuse(s, "invalid_value", "thinking.budget_tokens",
                    "The thinking budget must be an integer, named once.");
}

static void scan_hosted_member(struct scan *s, int v, const char *name, const char *word) {
    if (!json_is(s->j, v, JSON_NULL) && !(json_is(s->j, v, JSON_ARRAY) && json_first(s->j, v) < 0) &&
        !scan_allows(s, name) && !scan_allows(s, word))
        scan_refuse(s, "unsupported_parameter", name, "This hosted feature is not available for this model.");
}

enum member {
    M_OTHER, M_MODEL, M_MESSAGES, M_MAX_TOKENS, M_SYSTEM, M_STREAM, M_TOOLS, M_TOOL_CHOICE, M_THINKING,
    M_OUTPUT_CONFIG, M_OUTPUT_FORMAT, M_SERVICE_TIER, M_SPEED, M_GEO, M_MCP, M_CONTAINER, M_FALLBACKS,
    M_THREAD, M_BILLING
};
static const struct scan_member members[] = {
    { "model", M_MODEL }, { "messages", M_MESSAGES }, { "max_tokens", M_MAX_TOKENS }, { "system", M_SYSTEM },
    { "stream", M_STREAM }, { "tools", M_TOOLS }, { "tool_choice", M_TOOL_CHOICE }, { "thinking", M_THINKING },
    { "output_config", M_OUTPUT_CONFIG }, { "output_format", M_OUTPUT_FORMAT }, { "service_tier", M_SERVICE_TIER },
    { "speed", M_SPEED }, { "inference_geo", M_GEO }, { "mcp_servers", M_MCP }, { "container", M_CONTAINER },
    { "fallbacks", M_FALLBACKS }, { "thread", M_THREAD }, { "billing_policy", M_BILLING },
};

static void scan_member(struct scan *s, int is, int v, int *choice) {
    switch (is) {
    case M_MODEL: s->r->t_model = v; break;
    case M_MESSAGES: scan_messages(s, v); break;
    case M_MAX_TOKENS: scan_max_tokens(s, v); break;
    case M_SYSTEM: scan_content(s, v); break;
    case M_STREAM: scan_stream(s, v); break;
    case M_TOOLS: scan_tools(s, v); break;
    case M_TOOL_CHOICE: *choice = v; break;
    case M_THINKING: scan_thinking(s, v); break;
    case M_OUTPUT_CONFIG:
    case M_OUTPUT_FORMAT: scan_raw(s, v); break;
    case M_SERVICE_TIER:
        scan_dear(s, v, "service_tier", "auto", "standard_only", "This service tier is not available for this model.");
        break;
    case M_SPEED:
        scan_dear(s, v, "speed", "standard", "standard", "This speed is not available for this model.");
        break;
    case M_GEO:
        scan_dear(s, v, "inference_geo", "global", "global", "This region is not available for this model.");
        break;
    case M_MCP: scan_hosted_member(s, v, "mcp_servers", "mcp"); break;
    case M_CONTAINER: scan_hosted_member(s, v, "container", "code_execution"); break; /* an id, or {id, skills} */
    case M_FALLBACKS:
        scan_hosted_member(s, v, "fallbacks", "fallback");
        break; /* another model would serve, at its price */
    case M_THREAD: /* a conversation that the provider keeps, by the id of a message, whoever's it was */
        if (!json_is(s->j, v, JSON_NULL))
            scan_refuse(s, "unsupported_parameter", "thread", "Threads that the provider keeps are not available.");
        break;
    case M_BILLING: /* another customer of the operator's would be billed */
        if (!json_is(s->j, v, JSON_NULL))
            scan_refuse(s, "unsupported_parameter", "billing_policy", "Nobody else can be billed for a call.");
        break;
    default: break;
    }
}

static void anthropic_scan(const struct json *j, struct pass_request *r, struct arena *arena, const struct slice *allow,
                           uint32_t allow_count) {
    struct scan s = { .j = j, .r = r, .arena = arena, .allow = allow, .allow_count = allow_count };
    int choice = -1;
    if (!scan_begin(&s))
        return;
    for (int k = json_first(j, 0); k >= 0; k = json_next(j, 0, k))
        scan_member(&s, scan_which(&s, k, members, sizeof members / sizeof *members, false), k + 1, &choice);
    scan_model(&s, r->t_model);
    if (r->t_limit < 0)
        scan_refuse(&s, "missing_field", "max_tokens", "max_tokens: Field required");
    if (!(s.seen & 1u << M_MESSAGES))
        scan_refuse(&s, "missing_field", "messages", "messages: Field required");
    scan_tools_end(&s, forces(&s, choice));
    scan_state(&s, &anthropic_state);
}

static void anthropic_state_ids(const struct json *j, struct pass_request *r, struct arena *arena) {
    struct scan s = { .j = j, .r = r, .arena = arena };
    scan_state(&s, &anthropic_state);
}

/* ---- build ---- */

static bool anthropic_build(const struct json *j, const struct pass_request *r, struct pass_edit *pe,
                            struct arena *arena, struct pieces *out) {
    struct edits e;
    const int keep[] = { r->t_model, r->t_limit, json_get(j, 0, "messages"), json_get(j, 0, "stream") };
    edits_request(&e, j, r, pe, keep, sizeof keep / sizeof *keep, arena);
    if (pe->set_limit)
        edits_set_number(&e, r->t_limit, pe->limit);
    return edits_put(&e, out);
}

const struct pass pass_anthropic = {
    .scan = anthropic_scan,
    .state = anthropic_state_ids,
    .build = anthropic_build,
    .whole = pass_anthropic_whole,
    .event = pass_anthropic_event,
    .end = pass_anthropic_end,
    .error = pass_anthropic_error,
    .fail = pass_anthropic_fail,
    .ping = pass_anthropic_ping,
    .content_type = pass_sse_content_type,
};
