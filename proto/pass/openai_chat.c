/* The pass path of OpenAI's Chat Completions (and of the many servers that speak it): POST …/chat/completions. The
 * request: one look at the top-level members, then the body as it came with a few splices. The answer is
 * openai_answer.c. */
#include "proto/pass/edits.h"
#include "proto/pass/openai.h"
#include "proto/pass/scan.h"

enum { MAX_CHOICES = 128 };

/* ---- scan ---- */

/* Bytes in the body, or a word about where they are. */
static void count_media(struct pass_request *r, bool inside) {
    if (inside)
        r->media++;
    else
        r->references++;
}

/* A part of a message's content: text counts by its bytes; what carries bytes of its own, or only refers to some, is
 * counted. */
static void scan_part(struct scan *s, int part) {
    const struct json *j = s->j;
    int image = json_get(j, part, "image_url"), audio = json_get(j, part, "input_audio"),
        file = json_get(j, part, "file");
    if (image >= 0) {
        int url = json_is(j, image, JSON_OBJECT) ? json_get(j, image, "url") : image;
        count_media(s->r, json_is(j, url, JSON_STRING) && slice_starts(json_raw(j, url), SLICE("data:")));
    } else if (audio >= 0) {
        s->r->media++;
    } else if (file >= 0) {
        count_media(s->r, json_get(j, file, "file_data") >= 0);
    } else if (json_get(j, part, "text") >= 0) {
        scan_string(s, json_get(j, part, "text"));
    } else if (json_get(j, part, "refusal") >= 0) {
        scan_string(s, json_get(j, part, "refusal"));
    } else if (!json_str_is(j, json_get(j, part, "type"), "text")) {
        s->r->references++; /* a kind we do not know: assume the worst of it */
    }
}

static void scan_message(struct scan *s, int m) {
    const struct json *j = s->j;
    bool role = false;
    s->r->messages++;
    if (!json_is(j, m, JSON_OBJECT)) {
        scan_refuse(s, "invalid_value", "messages", "Each message must be an object.");
        return;
    }
    for (int k = json_first(j, m); k >= 0; k = json_next(j, m, k)) {
        struct slice name = scan_key(j, k, s->arena);
        int v = k + 1;
        if (slice_is(name, "role")) {
            role = json_is(j, v, JSON_STRING);
        } else if (slice_is(name, "content") && json_is(j, v, JSON_ARRAY)) {
            for (int p = json_first(j, v); p >= 0; p = json_next(j, v, p))
                scan_part(s, p);
        } else if (json_is(j, v, JSON_STRING)) {
            scan_string(s, v);
        } else if (json_is(j, v, JSON_OBJECT) || json_is(j, v, JSON_ARRAY)) {
            scan_raw(s, v); /* tool_calls, audio, reasoning_details … */
            s->r->references += slice_is(name, "audio") && json_get(j, v, "id") >= 0; /* an earlier spoken answer */
        }
    }
    if (!role)
        scan_refuse(s, "missing_field", "messages", "Each message must have a role.");
}

static void scan_messages(struct scan *s, int v) {
    if (!json_is(s->j, v, JSON_ARRAY) || json_first(s->j, v) < 0) {
        scan_refuse(s, "invalid_value", "messages", "'messages' must be an array with at least one message.");
        return;
    }
    for (int m = json_first(s->j, v); m >= 0; m = json_next(s->j, v, m))
        scan_message(s, m);
}

static void scan_tools(struct scan *s, int tools) {
    const struct json *j = s->j;
    scan_raw(s, tools);
    for (int t = scan_tool_list(s, tools); t >= 0; t = json_next(j, tools, t)) {
        int type = json_get(j, t, "type");
        s->r->tools++;
        if (!json_is(j, type, JSON_STRING) || json_str_is(j, type, "function") || json_str_is(j, type, "custom") ||
            scan_allows_tool(s, json_raw(j, type)))
            s->others++;
        else
            scan_hosted(s, t, json_raw(j, type));
    }
}

static void scan_n(struct scan *s, int v) {
    struct pass_request *r = s->r;
    if (!json_is(s->j, v, JSON_NULL) && (!json_u64(s->j, v, &r->n) || r->n == 0 || r->n > MAX_CHOICES)) {
        r->n = 1;
        scan_refuse(s, "invalid_value", "n", "'n' must be an integer from 1 to 128.");
    }
}

static void scan_modalities(struct scan *s, int v) {
    for (int t = json_first(s->j, v); t >= 0; t = json_next(s->j, v, t))
        if (!json_str_is(s->j, t, "text") && !scan_allows(s, "audio") && !scan_allows(s, "modalities"))
            scan_refuse(s, "unsupported_parameter", "modalities", "Only text answers are available for this model.");
}

enum member {
    M_OTHER, M_MODEL, M_MESSAGES, M_STREAM, M_STREAM_OPTIONS, M_MAX_TOKENS, M_MAX_COMPLETION_TOKENS, M_N, M_TOOLS,
    M_TOOL_CHOICE, M_SERVICE_TIER, M_WEB_SEARCH, M_MODALITIES, M_FUNCTIONS, M_RESPONSE_FORMAT
};
static const struct scan_member members[] = {
    { "model", M_MODEL }, { "messages", M_MESSAGES }, { "stream", M_STREAM }, { "stream_options", M_STREAM_OPTIONS },
    { "max_tokens", M_MAX_TOKENS }, { "max_completion_tokens", M_MAX_COMPLETION_TOKENS }, { "n", M_N },
    { "tools", M_TOOLS }, { "tool_choice", M_TOOL_CHOICE }, { "service_tier", M_SERVICE_TIER },
    { "web_search_options", M_WEB_SEARCH }, { "modalities", M_MODALITIES }, { "functions", M_FUNCTIONS },
    { "response_format", M_RESPONSE_FORMAT },
};

static void scan_member(struct scan *s, int is, int v, int *choice) {
    switch (is) {
    case M_MODEL: s->r->t_model = v; break;
    case M_MESSAGES: scan_messages(s, v); break;
    case M_STREAM: scan_stream(s, v); break;
    case M_STREAM_OPTIONS: scan_stream_options(s, v); break;
    case M_MAX_TOKENS:
        s->r->t_limit = v;
        scan_limit(s, v, "max_tokens");
        break;
    case M_MAX_COMPLETION_TOKENS:
        s->r->t_limit2 = v;
        scan_limit(s, v, "max_completion_tokens");
        break;
    case M_N: scan_n(s, v); break;
    case M_TOOLS: scan_tools(s, v); break;
    case M_TOOL_CHOICE: *choice = v; break;
    case M_SERVICE_TIER: scan_tier(s, v); break;
    case M_WEB_SEARCH:
        if (!json_is(s->j, v, JSON_NULL) && !scan_allows(s, "web_search") && !scan_allows(s, "web_search_options"))
            scan_refuse(s, "unsupported_parameter", "web_search_options",
                        "Web search is not available for this model.");
        s->r->searches = !json_is(s->j, v, JSON_NULL);
        break;
    case M_MODALITIES: scan_modalities(s, v); break;
    case M_FUNCTIONS:
    case M_RESPONSE_FORMAT: scan_raw(s, v); break;
    default: break;
    }
}

/* Files, and spoken answers that the provider keeps. */
static const struct scan_state chat_state = {
    .names = { SLICE("file_id"), SLICE("audio") },
    .opaque = { SLICE("parameters"), SLICE("schema"), SLICE("metadata"), SLICE("arguments") },
};

static void chat_scan(const struct json *j, struct pass_request *r, struct arena *arena, const struct slice *allow,
                      uint32_t allow_count) {
    struct scan s = { .j = j, .r = r, .arena = arena, .allow = allow, .allow_count = allow_count };
    int choice = -1;
    if (!scan_begin(&s))
        return;
    for (int k = json_first(j, 0); k >= 0; k = json_next(j, 0, k))
        scan_member(&s, scan_which(&s, k, members, sizeof members / sizeof *members, false), k + 1, &choice);
    scan_model(&s, r->t_model);
    if (!(s.seen & 1u << M_MESSAGES))
        scan_refuse(&s, "missing_field", "messages", "Missing required parameter: 'messages'.");
    scan_tools_end(&s, scan_forces(&s, choice, json_get(j, json_get(j, choice, "allowed_tools"), "tools")));
    scan_state(&s, &chat_state);
}

static void chat_state_ids(const struct json *j, struct pass_request *r, struct arena *arena) {
    struct scan s = { .j = j, .r = r, .arena = arena };
    scan_state(&s, &chat_state);
}

/* ---- build ---- */

/* A limit that money cut: into every limit member the client sent, or into a new one. */
static void edit_limit(struct edits *e, const struct pass_request *r, const struct pass_edit *pe) {
    bool first = r->t_limit >= 0 && !json_is(e->j, r->t_limit, JSON_NULL);
    bool second = r->t_limit2 >= 0 && !json_is(e->j, r->t_limit2, JSON_NULL);
    if (first)
        edits_set_number(e, r->t_limit, pe->limit);
    if (second)
        edits_set_number(e, r->t_limit2, pe->limit);
    if (first || second)
        return;
    struct slice field = pe->limit_field.len > 0 ? pe->limit_field : SLICE("max_completion_tokens");
    edits_limit(e, slice_is(field, "max_tokens") ? r->t_limit : r->t_limit2, field, pe->limit); /* a null at most */
}

/* The configured name of the limit member, where the client used the other one. */
static void edit_limit_name(struct edits *e, const struct pass_request *r, const struct pass_edit *pe) {
    bool old = slice_is(pe->limit_field, "max_tokens");
    int from = old ? r->t_limit2 : slice_is(pe->limit_field, "max_completion_tokens") ? r->t_limit : -1;
    int to = old ? r->t_limit : r->t_limit2;
    if (from >= 0 && to < 0 && !json_is(e->j, from, JSON_NULL))
        edits_set(e, from - 1, arena_printf(e->arena, "\"%.*s\"", SLICE_ARG(pe->limit_field)));
}

static bool chat_build(const struct json *j, const struct pass_request *r, struct pass_edit *pe, struct arena *arena,
                       struct pieces *out) {
    struct edits e;
    const int keep[] = {
        r->t_model, r->t_limit, r->t_limit2, r->t_options, json_get(j, 0, "messages"), json_get(j, 0, "stream")
    };
    edits_request(&e, j, r, pe, keep, sizeof keep / sizeof *keep, arena);
    if (pe->set_limit)
        edit_limit(&e, r, pe);
    if (pe->limit_field.len > 0)
        edit_limit_name(&e, r, pe);
    if (pe->ask_usage && r->stream)
        edits_ask_usage(&e, r);
    return edits_put(&e, out);
}

const struct pass pass_openai_chat = {
    .scan = chat_scan,
    .state = chat_state_ids,
    .build = chat_build,
    .whole = pass_chat_whole,
    .event = pass_chat_event,
    .end = pass_chat_end,
    .error = pass_read_error,
    .fail = pass_chat_fail,
    .ping = pass_sse_ping,
    .content_type = pass_sse_content_type,
};
