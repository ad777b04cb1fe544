/* The pass path of OpenAI Responses: POST responses. The request: what costs, what is hosted, what refers to state at
 * the provider; items with their ids and encrypted reasoning go as they came. The answer is responses_answer.c. Source:
 * npm `openai` 7.57 types.
 *
 * State: previous_response_id, conversation, file and container ids come back sealed, and so do the ids of items (rs_,
 * msg_, fc_): an item_reference, and an item without its content (a picture's id alone), is looked up by the provider
 * among what all tenants stored. An item that is all there may bear any id: agents that store nothing make their own.
 */
#include "proto/pass/responses.h"
#include "proto/pass/edits.h"
#include "proto/pass/scan.h"

/* ---- scan: input ---- */

static bool is_type(const struct scan *s, int item, const char *type) {
    return json_str_is(s->j, json_get(s->j, item, "type"), type);
}

/* Parts of a message, or of a tool's output. */
static void scan_part(struct scan *s, int part) {
    const struct json *j = s->j;
    bool image = is_type(s, part, "input_image") || is_type(s, part, "computer_screenshot");
    if (image || is_type(s, part, "input_file")) {
        int url = json_get(j, part, "image_url");
        bool inside = json_is(j, url, JSON_STRING) && slice_starts(json_raw(j, url), SLICE("data:"));
        if (inside || json_is(j, json_get(j, part, "file_data"), JSON_STRING))
            s->r->media++;
        else
            s->r->references++;
    } else if (is_type(s, part, "input_audio")) {
        s->r->media++;
    } else if (is_type(s, part, "input_text") || is_type(s, part, "output_text") || is_type(s, part, "text")) {
        scan_string(s, json_get(j, part, "text"));
    } else if (is_type(s, part, "refusal")) {
        scan_string(s, json_get(j, part, "refusal"));
    } else {
        scan_raw(s, part);
        s->r->references++; /* a kind we do not know: assume the worst of it */
    }
}

static void scan_content(struct scan *s, int v) {
    if (json_is(s->j, v, JSON_STRING))
        scan_string(s, v);
    else if (json_is(s->j, v, JSON_OBJECT))
        scan_part(s, v);
    else
        for (int p = json_first(s->j, v); p >= 0; p = json_next(s->j, v, p))
            scan_part(s, p);
}

static void scan_tools(struct scan *s, int tools, bool nested);

static bool filled(const struct json *j, int item, const char *name) {
    int v = json_get(j, item, name);
    return (json_is(j, v, JSON_STRING) && json_str_len(j, v) > 0) || json_first(j, v) >= 0;
}

/* Whether the provider needs nothing of what it keeps to understand the item. */
static bool all_there(const struct scan *s, int item, int type) {
    static const char *const kinds[] = { "function_call", "custom_tool_call", "local_shell_call", "shell_call",
                                         "apply_patch_call", "computer_call", "tool_search_call",
                                         "mcp_approval_response", "additional_tools" };
    const struct json *j = s->j;
    if (type < 0 || json_str_is(j, type, "message") || json_str_is(j, type, "reasoning"))
        return filled(j, item, "content") || (type >= 0 && filled(j, item, "encrypted_content"));
    if (json_str_is(j, type, "image_generation_call"))
        return filled(j, item, "result");
    struct slice kind = json_is(j, type, JSON_STRING) ? json_raw(j, type) : SLICE("");
    bool known = slice_ends(kind, SLICE("_output"));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        known |= slice_is(kind, kinds[i]);
    return known || filled(j, item, "encrypted_content");
}

static void scan_item_id(struct scan *s, int item, int type) {
    static const char *const once[] = { "type", "id", "content", "encrypted_content", "result" };
    const struct json *j = s->j;
    for (size_t i = 0; i < sizeof once / sizeof *once; i++)
        if (json_duplicate(j, item, once[i]))
            scan_refuse(s, "invalid_value", "input", "A member of an input item stands twice.");
    enum pass_state is = json_str_is(j, type, "item_reference") ? PASS_STATE
                         : all_there(s, item, type)             ? PASS_ITEM
                                                                : PASS_KEPT;
    scan_seal(s, json_get(j, item, "id"), is);
}

static void scan_item(struct scan *s, int item) {
    const struct json *j = s->j;
    int type = json_get(j, item, "type");
    s->r->messages++;
    if (json_is(j, item, JSON_OBJECT))
        scan_item_id(s, item, type);
    if (!json_is(j, item, JSON_OBJECT)) {
        scan_refuse(s, "invalid_value", "input", "Each input item must be an object.");
    } else if (type < 0 || json_str_is(j, type, "message")) {
        s->r->references += type < 0 && json_get(j, item, "content") < 0; /* an id alone is a reference too */
        scan_content(s, json_get(j, item, "content"));
    } else if (json_str_is(j, type, "item_reference")) {
        s->r->references++;
    } else if (json_str_is(j, type, "additional_tools")) {
        scan_tools(s, json_get(j, item, "tools"), false);
    } else if (json_str_is(j, type, "function_call_output") || json_str_is(j, type, "custom_tool_call_output") ||
               json_str_is(j, type, "computer_call_output")) {
        scan_content(s, json_get(j, item, "output"));
    } else if (json_str_is(j, type, "image_generation_call")) {
        s->r->media++; /* its picture, or its id alone */
        s->r->references++;
    } else {
        scan_raw(s, item); /* calls, reasoning, results of hosted tools, compaction, what is new */
    }
}

static void scan_input(struct scan *s, int v) {
    const struct json *j = s->j;
    if (json_is(j, v, JSON_STRING)) {
        s->r->messages++;
        scan_string(s, v);
    } else if (json_is(j, v, JSON_ARRAY)) {
        for (int item = json_first(j, v); item >= 0; item = json_next(j, v, item))
            scan_item(s, item);
    } else {
        scan_refuse(s, "invalid_value", "input", "'input' must be a string or an array of items.");
    }
}

/* ---- scan: tools ---- */

/* Kinds that the client runs itself. `shell` is one where its environment is the client's own; the search among the
 * request's own tools costs nothing but tokens. */
static bool client_tool(const struct scan *s, int tool, struct slice type) {
    static const char *const kinds[] = { "function",  "custom",      "local_shell", "apply_patch",
                                         "namespace", "tool_search", "computer",    "computer_use_preview" };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (slice_is(type, kinds[i]))
            return true;
    int environment = json_get(s->j, json_get(s->j, tool, "environment"), "type");
    return slice_is(type, "shell") && (environment < 0 || json_str_is(s->j, environment, "local"));
}

static bool allowed(const struct scan *s, struct slice type) {
    bool code = slice_is(type, "code_interpreter") || slice_is(type, "shell");
    return scan_allows_tool(s, type) ||
           (code && (scan_allows(s, "code_execution") || scan_allows(s, "code_interpreter")));
}

static void scan_tool(struct scan *s, int t, bool nested) {
    const struct json *j = s->j;
    int type = json_get(j, t, "type");
    s->r->tools++;
    if (!json_is(j, type, JSON_STRING) || json_duplicate(j, t, "type")) {
        scan_refuse(s, "invalid_value", "tools", "Each tool must be an object with one type.");
    } else if (client_tool(s, t, json_raw(j, type))) {
        s->others++;
        if (json_str_is(j, type, "namespace") && !nested)
            scan_tools(s, json_get(j, t, "tools"), true);
    } else if (allowed(s, json_raw(j, type))) {
        s->others++;
    } else if (nested) {
        scan_refuse(s, "unsupported_parameter", "tools", "This kind of hosted tool is not available for this model.");
    } else {
        scan_hosted(s, t, json_raw(j, type));
    }
}

/* nested: the tools of a namespace, already counted with it. */
static void scan_tools(struct scan *s, int tools, bool nested) {
    if (!nested)
        scan_raw(s, tools);
    for (int t = scan_tool_list(s, tools); t >= 0; t = json_next(s->j, tools, t))
        scan_tool(s, t, nested);
}

/* ---- scan: the rest ---- */

enum member {
    M_OTHER, M_MODEL, M_INPUT, M_INSTRUCTIONS, M_STREAM, M_LIMIT, M_TOOLS, M_TOOL_CHOICE, M_TEXT, M_PREVIOUS,
    M_CONVERSATION, M_PROMPT, M_BACKGROUND, M_SERVICE_TIER
};
static const struct scan_member members[] = {
    { "model", M_MODEL }, { "input", M_INPUT }, { "instructions", M_INSTRUCTIONS }, { "stream", M_STREAM },
    { "max_output_tokens", M_LIMIT }, { "tools", M_TOOLS }, { "tool_choice", M_TOOL_CHOICE }, { "text", M_TEXT },
    { "previous_response_id", M_PREVIOUS }, { "conversation", M_CONVERSATION }, { "prompt", M_PROMPT },
    { "background", M_BACKGROUND }, { "service_tier", M_SERVICE_TIER },
};

/* A template of the operator's account, with tools of its own perhaps. */
static void scan_prompt(struct scan *s, int v) {
    if (json_is(s->j, v, JSON_NULL))
        return;
    scan_raw(s, v);
    s->r->references++;
    if (!scan_allows(s, "prompt"))
        scan_refuse(s, "unsupported_parameter", "prompt", "Stored prompts are not available for this model.");
}

static void scan_member(struct scan *s, int is, int v, int *choice) {
    switch (is) {
    case M_MODEL: s->r->t_model = v; break;
    case M_INPUT:
        if (!json_is(s->j, v, JSON_NULL))
            scan_input(s, v);
        break;
    case M_INSTRUCTIONS:
        if (json_is(s->j, v, JSON_STRING))
            scan_string(s, v);
        else
            scan_raw(s, v);
        break;
    case M_STREAM: scan_stream(s, v); break;
    case M_LIMIT:
        s->r->t_limit = v;
        scan_limit(s, v, "max_output_tokens");
        break;
    case M_TOOLS: scan_tools(s, v, false); break;
    case M_TOOL_CHOICE: *choice = v; break;
    case M_TEXT: scan_raw(s, v); break; /* a schema */
    case M_PREVIOUS:
    case M_CONVERSATION: s->r->references += !json_is(s->j, v, JSON_NULL); break; /* its length is not known here */
    case M_PROMPT: scan_prompt(s, v); break;
    case M_BACKGROUND:
        if (!json_is(s->j, v, JSON_NULL) && !json_is(s->j, v, JSON_FALSE))
            scan_refuse(s, "unsupported_parameter", "background", "Background answers are not available.");
        break;
    case M_SERVICE_TIER: scan_tier(s, v); break;
    default: break;
    }
}

#define OPAQUE                                                                                                         \
    { SLICE("parameters"), SLICE("schema"), SLICE("input_schema"), SLICE("metadata"), SLICE("filters"),                \
      SLICE("attributes") }
static const struct scan_state kept = {
    .names = { SLICE("previous_response_id"), SLICE("conversation"), SLICE("file_id"), SLICE("file_ids"),
               SLICE("container"), SLICE("container_id"), SLICE("approval_request_id"),
               SLICE("comparison_response_id") },
    .opaque = OPAQUE,
};
static const struct scan_state stores = { .names = { SLICE("vector_store_ids") }, .opaque = OPAQUE };

static void scan_ids(struct scan *s) {
    scan_state(s, &kept);
    if (!scan_allows(s, "vector_stores")) /* the operator's own, for whom he likes */
        scan_state(s, &stores);
}

static void responses_state_ids(const struct json *j, struct pass_request *r, struct arena *arena) {
    struct scan s = { .j = j, .r = r, .arena = arena };
    scan_ids(&s);
}

static void responses_scan(const struct json *j, struct pass_request *r, struct arena *arena, const struct slice *allow,
                           uint32_t allow_count) {
    struct scan s = { .j = j, .r = r, .arena = arena, .allow = allow, .allow_count = allow_count };
    int choice = -1;
    if (!scan_begin(&s))
        return;
    for (int k = json_first(j, 0); k >= 0; k = json_next(j, 0, k))
        scan_member(&s, scan_which(&s, k, members, sizeof members / sizeof *members, false), k + 1, &choice);
    scan_model(&s, r->t_model);
    if (!(s.seen & (1u << M_INPUT | 1u << M_PROMPT | 1u << M_PREVIOUS | 1u << M_CONVERSATION)))
        scan_refuse(&s, "missing_field", "input", "Missing required parameter: 'input'.");
    scan_tools_end(&s, scan_forces(&s, choice, json_get(j, choice, "tools")));
    scan_ids(&s);
}

/* ---- build ---- */

static bool responses_build(const struct json *j, const struct pass_request *r, struct pass_edit *pe,
                            struct arena *arena, struct pieces *out) {
    struct edits e;
    int input = json_get(j, 0, "input");
    const int keep[] = { r->t_model, r->t_limit, input, json_get(j, 0, "stream") };
    edits_request(&e, j, r, pe, keep, sizeof keep / sizeof *keep, arena);
    for (int t = r->drops > 0 ? json_items(j, input) : -1; t >= 0; t = json_next(j, input, t))
        edits_drop(&e, json_get(j, t, "tools"), r); /* of additional_tools */
    if (pe->set_limit)
        edits_limit(&e, r->t_limit, SLICE("max_output_tokens"), pe->limit);
    return edits_put(&e, out);
}

const struct pass pass_responses = {
    .scan = responses_scan,
    .state = responses_state_ids,
    .build = responses_build,
    .whole = pass_responses_whole,
    .event = pass_responses_event,
    .end = pass_responses_end,
    .error = pass_responses_error,
    .fail = pass_responses_fail,
    .ping = pass_sse_ping,
    .content_type = pass_sse_content_type,
};
