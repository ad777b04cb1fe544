/* The pass path of OpenAI's Chat Completions (and of the many servers that speak it): POST …/chat/completions.
 *
 * Request: one look at the top-level members. Answer: usage is found wherever the vendors put it (a last chunk without choices, the finish
 * chunk, every chunk), cost is spliced into it, and where the client did not ask for the extra chunk the figures ride on the chunk that
 * bears the (last) finish_reason, which alone waits for them. */
#include "proto/pass/pass.h"
#include "proto/pass/openai_usage.h"

enum { EVENT_TAPE = 384, MAX_CHOICES = 128, MAX_STRIP = 32, MAX_SPLICES = MAX_STRIP + 8 };

/* ---- request ---------------------------------------------------------------------------------------------------------------------- */

static void refuse(struct pass_request *r, const char *code, const char *param, const char *text) {
    if (r->fault_code != NULL)
        return;
    r->fault_code = code;
    r->fault_param = param;
    r->fault_text = text;
}

static bool allowed(const struct slice *allow, uint32_t n, const char *word) {
    for (uint32_t i = 0; i < n; i++)
        if (slice_is(allow[i], word))
            return true;
    return false;
}

/* A part of a message's content: text counts by its bytes; what carries bytes of its own, or only refers to some, is counted. */
static void scan_part(const struct json *j, int part, struct pass_request *r) {
    int type = json_get(j, part, "type");
    int image = json_get(j, part, "image_url"), audio = json_get(j, part, "input_audio"), file = json_get(j, part, "file");
    if (image >= 0) {
        int url = json_is(j, image, JSON_OBJECT) ? json_get(j, image, "url") : image;
        if (json_is(j, url, JSON_STRING) && slice_starts(json_raw(j, url), SLICE("data:")))
            r->media++;
        else
            r->references++;
    } else if (audio >= 0) {
        r->media++;
    } else if (file >= 0) {
        if (json_get(j, file, "file_data") >= 0)
            r->media++;
        else
            r->references++;
    } else if (json_get(j, part, "text") >= 0) {
        r->prompt_bytes += json_str_len(j, json_get(j, part, "text"));
    } else if (json_get(j, part, "refusal") >= 0) {
        r->prompt_bytes += json_str_len(j, json_get(j, part, "refusal"));
    } else if (type < 0 || !json_str_is(j, type, "text")) {
        r->references++; /* a kind we do not know: assume the worst of it */
    }
}

static void scan_message(const struct json *j, int m, struct pass_request *r) {
    r->messages++;
    if (!json_is(j, m, JSON_OBJECT)) {
        refuse(r, "invalid_value", "messages", "Each message must be an object.");
        return;
    }
    bool role = false;
    for (int k = json_first(j, m); k >= 0; k = json_next(j, m, k)) {
        struct slice name = json_raw(j, k);
        int v = k + 1;
        if (slice_is(name, "role")) {
            role = json_is(j, v, JSON_STRING);
        } else if (slice_is(name, "content") && json_is(j, v, JSON_ARRAY)) {
            for (int p = json_first(j, v); p >= 0; p = json_next(j, v, p))
                scan_part(j, p, r);
        } else if (json_is(j, v, JSON_STRING)) {
            r->prompt_bytes += json_str_len(j, v);
        } else if (json_is(j, v, JSON_OBJECT) || json_is(j, v, JSON_ARRAY)) {
            r->prompt_bytes += json_raw(j, v).len; /* tool_calls, audio, reasoning_details … */
        }
    }
    if (!role)
        refuse(r, "missing_field", "messages", "Each message must have a role.");
}

static void scan_tools(const struct json *j, int tools, struct pass_request *r, const struct slice *allow, uint32_t n) {
    if (!json_is(j, tools, JSON_ARRAY)) {
        refuse(r, "invalid_value", "tools", "'tools' must be an array.");
        return;
    }
    r->prompt_bytes += json_raw(j, tools).len;
    for (int t = json_first(j, tools); t >= 0; t = json_next(j, tools, t)) {
        r->tools++;
        int type = json_get(j, t, "type");
        if (json_is(j, type, JSON_STRING) && !json_str_is(j, type, "function") && !json_str_is(j, type, "custom")) {
            bool let = false;
            for (uint32_t i = 0; i < n; i++)
                let |= slice_eq(allow[i], json_raw(j, type));
            if (!let)
                refuse(r, "unsupported_parameter", "tools", "This kind of hosted tool is not available for this model.");
        }
    }
}

static void scan_limit(const struct json *j, int v, const char *param, struct pass_request *r) {
    uint64_t limit;
    if (json_is(j, v, JSON_NULL))
        return;
    if (!json_u64(j, v, &limit) || limit == 0) {
        refuse(r, "invalid_value", param, "The output limit must be a positive integer.");
        return;
    }
    if (!r->has_limit || limit < r->limit)
        r->limit = limit;
    r->has_limit = true;
}

static void scan_stream(const struct json *j, int v, struct pass_request *r) {
    if (json_is(j, v, JSON_NULL))
        return;
    if (!json_bool(j, v, &r->stream))
        refuse(r, "invalid_value", "stream", "'stream' must be true or false.");
}

static void scan_n(const struct json *j, int v, struct pass_request *r) {
    if (json_is(j, v, JSON_NULL))
        return;
    if (!json_u64(j, v, &r->n) || r->n == 0 || r->n > MAX_CHOICES)
        refuse(r, "invalid_value", "n", "'n' must be an integer from 1 to 128.");
}

/* Members that make a call dearer than its tokens' prices: let through only where the model prices them. */
static void scan_dear(const struct json *j, int v, const char *name, struct pass_request *r, const struct slice *allow, uint32_t n) {
    if (json_is(j, v, JSON_NULL) || allowed(allow, n, name))
        return;
    if (strcmp(name, "service_tier") == 0) {
        if (!json_str_is(j, v, "auto") && !json_str_is(j, v, "default"))
            refuse(r, "unsupported_parameter", "service_tier", "This service tier is not available for this model.");
    } else if (strcmp(name, "modalities") == 0) {
        for (int t = json_first(j, v); t >= 0; t = json_next(j, v, t))
            if (!json_str_is(j, t, "text") && !allowed(allow, n, "audio"))
                refuse(r, "unsupported_parameter", "modalities", "Only text answers are available for this model.");
    } else if (!allowed(allow, n, "web_search")) {
        refuse(r, "unsupported_parameter", name, "Web search is not available for this model.");
    }
}

enum member {
    M_OTHER, M_MODEL, M_MESSAGES, M_STREAM, M_STREAM_OPTIONS, M_MAX_TOKENS, M_MAX_COMPLETION_TOKENS, M_N, M_TOOLS, M_SERVICE_TIER,
    M_WEB_SEARCH, M_MODALITIES, M_FUNCTIONS, M_RESPONSE_FORMAT, M_PROMPT
};
static const struct { const char *name; enum member is; } members[] = {
    { "model", M_MODEL }, { "messages", M_MESSAGES }, { "stream", M_STREAM }, { "stream_options", M_STREAM_OPTIONS },
    { "max_tokens", M_MAX_TOKENS }, { "max_completion_tokens", M_MAX_COMPLETION_TOKENS }, { "n", M_N }, { "tools", M_TOOLS },
    { "service_tier", M_SERVICE_TIER }, { "web_search_options", M_WEB_SEARCH }, { "modalities", M_MODALITIES },
    { "functions", M_FUNCTIONS }, { "response_format", M_RESPONSE_FORMAT }, { "prompt", M_PROMPT },
};

static enum member member_of(const struct json *j, int key, struct arena *arena) {
    struct slice name = j->tok[key].escaped ? json_str(j, key, arena) : json_raw(j, key);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        if (slice_is(name, members[i].name))
            return members[i].is;
    return M_OTHER;
}

static void scan_messages(const struct json *j, int v, struct pass_request *r) {
    if (!json_is(j, v, JSON_ARRAY) || json_first(j, v) < 0) {
        refuse(r, "invalid_value", "messages", "'messages' must be an array with at least one message.");
        return;
    }
    for (int m = json_first(j, v); m >= 0; m = json_next(j, v, m))
        scan_message(j, m, r);
}

static void scan_member(const struct json *j, enum member is, int v, struct pass_request *r, struct arena *arena, const struct slice *allow,
                        uint32_t n) {
    switch (is) {
    case M_MODEL: r->t_model = v; r->model = json_str(j, v, arena); break;
    case M_MESSAGES: scan_messages(j, v, r); break;
    case M_STREAM: scan_stream(j, v, r); break;
    case M_STREAM_OPTIONS:
        r->t_options = v;
        r->t_include_usage = json_get(j, v, "include_usage");
        r->wants_usage = r->t_include_usage >= 0 && json_is(j, r->t_include_usage, JSON_TRUE);
        break;
    case M_MAX_TOKENS: r->t_limit = v; scan_limit(j, v, "max_tokens", r); break;
    case M_MAX_COMPLETION_TOKENS: r->t_limit2 = v; scan_limit(j, v, "max_completion_tokens", r); break;
    case M_N: scan_n(j, v, r); break;
    case M_TOOLS:
        if (!json_is(j, v, JSON_NULL))
            scan_tools(j, v, r, allow, n);
        break;
    case M_SERVICE_TIER: scan_dear(j, v, "service_tier", r, allow, n); break;
    case M_WEB_SEARCH: scan_dear(j, v, "web_search_options", r, allow, n); break;
    case M_MODALITIES: scan_dear(j, v, "modalities", r, allow, n); break;
    case M_FUNCTIONS: case M_RESPONSE_FORMAT: r->prompt_bytes += json_raw(j, v).len; break;
    case M_PROMPT: case M_OTHER: break;
    }
}

static void chat_scan(const struct json *j, struct pass_request *r, struct arena *arena, const struct slice *allow, uint32_t allow_count) {
    memset(r, 0, sizeof *r);
    r->n = 1;
    r->t_model = r->t_limit = r->t_limit2 = r->t_options = r->t_include_usage = -1;
    if (!json_is(j, 0, JSON_OBJECT)) {
        refuse(r, "invalid_value", NULL, "The body must be a JSON object.");
        return;
    }
    uint32_t seen = 0;
    for (int k = json_first(j, 0); k >= 0; k = json_next(j, 0, k)) {
        enum member is = member_of(j, k, arena);
        if (is == M_OTHER)
            continue;
        if (seen & 1u << is)
            refuse(r, "invalid_value", members[is - 1].name, "This member stands twice.");
        seen |= 1u << is;
        scan_member(j, is, k + 1, r, arena, allow, allow_count);
    }
    if (r->t_model < 0)
        refuse(r, "missing_field", "model", "You must provide a model parameter.");
    else if (!json_is(j, r->t_model, JSON_STRING) || r->model.len == 0)
        refuse(r, "invalid_value", "model", "'model' must be a non-empty string.");
    if (!(seen & 1u << M_MESSAGES))
        refuse(r, "missing_field", "messages", "Missing required parameter: 'messages'.");
}

static void set_span(struct splice *s, uint32_t *n, const struct json *j, int value, struct slice with) {
    struct slice span = json_span(j, value);
    s[(*n)++] = (struct splice){ (uint32_t)(span.ptr - j->text), (uint32_t)span.len, with };
}

static struct slice quoted(struct arena *arena, struct slice text) {
    struct buf b;
    buf_init(&b, arena->pages, PAGE_BYTES);
    struct json_writer w;
    jw_init(&w, &b);
    jw_str(&w, text);
    struct slice s = arena_copy(arena, buf_slice(&b));
    buf_release(&b);
    return s;
}

/* A limit that money cut: into every limit member the client sent, or into a new one. */
static void edit_limit(const struct json *j, const struct pass_request *r, const struct pass_edit *e, struct arena *arena, struct splice *s,
                       uint32_t *n, struct slice *front) {
    struct slice number = arena_printf(arena, "%llu", (unsigned long long)e->limit);
    bool there = false;
    if (r->t_limit >= 0 && !json_is(j, r->t_limit, JSON_NULL)) {
        set_span(s, n, j, r->t_limit, number);
        there = true;
    }
    if (r->t_limit2 >= 0 && !json_is(j, r->t_limit2, JSON_NULL)) {
        set_span(s, n, j, r->t_limit2, number);
        there = true;
    }
    if (!there) {
        struct slice field = e->limit_field.len > 0 ? e->limit_field : SLICE("max_completion_tokens");
        int null_member = json_get(j, 0, slice_is(field, "max_tokens") ? "max_tokens" : "max_completion_tokens");
        if (null_member >= 0)
            set_span(s, n, j, null_member, number);
        else
            *front = arena_printf(arena, "%.*s\"%.*s\":%llu,", SLICE_ARG(*front), SLICE_ARG(field), (unsigned long long)e->limit);
    }
}

/* The configured name of the limit member, where the client used the other one. */
static void edit_limit_name(const struct json *j, const struct pass_request *r, const struct pass_edit *e, struct splice *s, uint32_t *n) {
    int from = slice_is(e->limit_field, "max_tokens") ? r->t_limit2 : slice_is(e->limit_field, "max_completion_tokens") ? r->t_limit : -1;
    int to = slice_is(e->limit_field, "max_tokens") ? r->t_limit : r->t_limit2;
    if (from < 0 || to >= 0)
        return;
    struct slice key = json_raw(j, from - 1);
    s[(*n)++] = (struct splice){ (uint32_t)(key.ptr - j->text), (uint32_t)key.len, e->limit_field };
}

static void edit_usage_option(const struct json *j, const struct pass_request *r, struct splice *s, uint32_t *n, struct slice *front,
                              struct arena *arena) {
    if (r->t_include_usage >= 0) {
        if (!json_is(j, r->t_include_usage, JSON_TRUE))
            set_span(s, n, j, r->t_include_usage, SLICE("true"));
    } else if (json_is(j, r->t_options, JSON_OBJECT)) {
        bool empty = json_first(j, r->t_options) < 0;
        s[(*n)++] = (struct splice){ j->tok[r->t_options].start + 1, 0, empty ? SLICE("\"include_usage\":true") : SLICE("\"include_usage\":true,") };
    } else if (r->t_options >= 0) {
        set_span(s, n, j, r->t_options, SLICE("{\"include_usage\":true}"));
    } else {
        *front = arena_printf(arena, "%.*s\"stream_options\":{\"include_usage\":true},", SLICE_ARG(*front));
    }
}

static bool chat_build(const struct json *j, const struct pass_request *r, struct pass_edit *e, struct arena *arena, struct pieces *out) {
    struct splice s[MAX_SPLICES];
    uint32_t n = 0;
    struct slice front = SLICE("");
    int cut[MAX_STRIP];
    uint32_t cuts = 0;
    e->stripped = 0;
    for (uint32_t i = 0; i < e->strip_count && cuts < MAX_STRIP; i++) {
        char name[64];
        if (e->strip[i].len >= sizeof name)
            continue;
        memcpy(name, e->strip[i].ptr, e->strip[i].len);
        name[e->strip[i].len] = 0;
        int v = json_get(j, 0, name);
        if (v >= 0 && v != r->t_model && v != r->t_limit && v != r->t_limit2 && v != r->t_options) {
            cut[cuts++] = v;
            e->stripped |= 1u << i;
        }
    }
    n = pass_cut_members(j, 0, cut, cuts, s);
    if (e->model.ptr != NULL)
        set_span(s, &n, j, r->t_model, quoted(arena, e->model));
    if (e->set_limit)
        edit_limit(j, r, e, arena, s, &n, &front);
    if (e->limit_field.len > 0)
        edit_limit_name(j, r, e, s, &n);
    if (e->ask_usage && r->stream)
        edit_usage_option(j, r, s, &n, &front, arena);
    if (front.len > 0) /* the body has at least a model member, so a comma may follow */
        s[n++] = (struct splice){ j->tok[0].start + 1, 0, front };
    pass_splice(slice_of(j->text, j->len), s, n, out);
    return !arena->overflow && !out->full;
}

/* ---- answer ----------------------------------------------------------------------------------------------------------------------- */

/* What one chunk, or a whole answer, holds. Token indices, -1 absent. */
struct chunk {
    int id, created, model, choices, usage, error;
    bool finish;      /* some choice says why it ended */
    bool no_choices;  /* choices is there and empty */
    uint64_t text_bytes;
};

/* Text the model made, wherever vendors put it: every string in a delta or message but its role, ids and types. */
static uint64_t generated_bytes(const struct json *j, int v) {
    uint64_t bytes = 0;
    if (json_is(j, v, JSON_STRING))
        return json_str_len(j, v);
    if (json_is(j, v, JSON_ARRAY)) {
        for (int t = json_first(j, v); t >= 0; t = json_next(j, v, t))
            bytes += generated_bytes(j, t);
    } else if (json_is(j, v, JSON_OBJECT)) {
        for (int k = json_first(j, v); k >= 0; k = json_next(j, v, k)) {
            struct slice name = json_raw(j, k);
            if (!slice_is(name, "role") && !slice_is(name, "id") && !slice_is(name, "type"))
                bytes += generated_bytes(j, k + 1);
        }
    }
    return bytes;
}

static void look_at_choices(const struct json *j, struct chunk *c) {
    int first = json_first(j, c->choices);
    c->no_choices = json_is(j, c->choices, JSON_ARRAY) && first < 0;
    for (int t = first; t >= 0; t = json_next(j, c->choices, t)) {
        if (!json_is(j, t, JSON_OBJECT))
            continue;
        for (int k = json_first(j, t); k >= 0; k = json_next(j, t, k)) {
            struct slice name = json_raw(j, k);
            if (slice_is(name, "delta") || slice_is(name, "message") || slice_is(name, "text"))
                c->text_bytes += generated_bytes(j, k + 1);
            else if (slice_is(name, "finish_reason"))
                c->finish |= json_is(j, k + 1, JSON_STRING) && json_raw(j, k + 1).len > 0;
        }
    }
}

static void look_at(const struct json *j, struct chunk *c) {
    *c = (struct chunk){ .id = -1, .created = -1, .model = -1, .choices = -1, .usage = -1, .error = -1 };
    for (int k = json_first(j, 0); k >= 0; k = json_next(j, 0, k)) {
        struct slice name = json_raw(j, k);
        switch (name.len) {
        case 2: if (slice_is(name, "id")) c->id = k + 1; break;
        case 5: if (slice_is(name, "model")) c->model = k + 1;
                else if (slice_is(name, "usage")) c->usage = k + 1;
                else if (slice_is(name, "error") && !json_is(j, k + 1, JSON_NULL) && !json_is(j, k + 1, JSON_FALSE)) c->error = k + 1;
                break;
        case 7: if (slice_is(name, "created")) c->created = k + 1;
                else if (slice_is(name, "choices")) c->choices = k + 1;
                break;
        default: break;
        }
    }
    look_at_choices(j, c);
}

/* id_prefix replaces `chatcmpl-` and `cmpl-`, and nothing else. */
static void splice_id(const struct pass_answer *a, const struct json *j, int id, struct splice *s, uint32_t *n) {
    if (a->id_prefix.len == 0 || !json_is(j, id, JSON_STRING))
        return;
    struct slice text = json_raw(j, id);
    uint32_t len = slice_starts(text, SLICE("chatcmpl-")) ? 9 : slice_starts(text, SLICE("cmpl-")) ? 5 : 0;
    if (len > 0)
        s[(*n)++] = (struct splice){ j->tok[id].start, len, a->id_prefix };
}

static void remember_ident(struct pass_answer *a, const struct json *j, const struct chunk *c, struct arena *scratch) {
    if (a->ident_len > 0 || c->id < 0)
        return;
    struct slice id = json_raw(j, c->id);
    struct slice prefix = SLICE("");
    if (a->id_prefix.len > 0 && (slice_starts(id, SLICE("chatcmpl-")) || slice_starts(id, SLICE("cmpl-")))) {
        prefix = a->id_prefix;
        id = slice_from(id, slice_starts(id, SLICE("chatcmpl-")) ? 9 : 5);
    }
    struct slice created = c->created >= 0 ? json_span(j, c->created) : SLICE("0");
    struct slice model = c->model >= 0 ? json_span(j, c->model) : SLICE("\"\"");
    struct slice t = arena_printf(scratch, "\"id\":\"%.*s%.*s\",\"object\":\"chat.completion.chunk\",\"created\":%.*s,\"model\":%.*s",
                                  SLICE_ARG(prefix), SLICE_ARG(id), SLICE_ARG(created), SLICE_ARG(model));
    if (t.ptr == NULL || t.len >= sizeof a->ident)
        return;
    memcpy(a->ident, t.ptr, t.len);
    a->ident_len = (uint16_t)t.len;
}

static void take_usage(struct pass_answer *a, const struct json *j, int usage) {
    if (json_is(j, usage, JSON_OBJECT) && openai_usage_read(j, usage, &a->meters))
        a->usage_seen = true;
}

static void final_usage(struct pass_answer *a) {
    if (a->usage_final)
        return;
    a->usage_final = true;
    a->on_usage(a->arg, a, &a->cost);
}

/* Cost into a usage object: before its closing brace. */
static void splice_cost(const struct pass_answer *a, const struct json *j, int usage, struct arena *arena, struct splice *s, uint32_t *n) {
    struct slice cost = pass_cost_members(&a->cost, arena);
    if (cost.len == 0)
        return;
    struct slice own[2] = { SLICE("cost_usd"), SLICE("cost_tokens") };
    bool empty = json_first(j, usage) < 0;
    int cut[2];
    uint32_t cuts = 0;
    for (int i = 0; i < 2; i++) { /* a gateway behind us may have written the same member: ours stands alone */
        int v = json_get(j, usage, own[i].ptr);
        if (v >= 0)
            cut[cuts++] = v;
    }
    if (cuts > 0) {
        *n += pass_cut_members(j, usage, cut, cuts, s + *n);
        empty = json_size(j, usage) == cuts;
    }
    struct slice with = empty ? cost : arena_printf(arena, ",%.*s", SLICE_ARG(cost));
    s[(*n)++] = (struct splice){ j->tok[usage].end - 1, 0, with };
}

/* `"usage":{…}` as the provider gave it, or from our meters where it gave none. */
static struct slice usage_member(struct pass_answer *a, const struct json *j, int usage, struct arena *arena) {
    struct slice cost = pass_cost_members(&a->cost, arena);
    if (json_is(j, usage, JSON_OBJECT) && json_first(j, usage) >= 0) {
        struct splice s[4];
        uint32_t n = 0;
        struct pieces p;
        pieces_reset(&p);
        splice_cost(a, j, usage, arena, s, &n);
        struct slice span = json_span(j, usage);
        for (uint32_t i = 0; i < n; i++)
            s[i].at -= (uint32_t)(span.ptr - j->text);
        pass_splice(span, s, n, &p);
        char *text = arena_alloc(arena, p.bytes + 9);
        if (text == NULL)
            return SLICE_NONE;
        memcpy(text, "\"usage\":", 8);
        size_t at = 8;
        for (uint32_t i = 0; i < p.count; at += p.at[i].len, i++)
            memcpy(text + at, p.at[i].ptr, p.at[i].len);
        return slice_of(text, at);
    }
    uint64_t in = meters_input(&a->meters), out = meters_output(&a->meters);
    return arena_printf(arena, "\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu%s%.*s}", (unsigned long long)in,
                        (unsigned long long)out, (unsigned long long)(in + out), cost.len > 0 ? "," : "", SLICE_ARG(cost));
}

static enum pass_result chat_whole(struct pass_answer *a, const struct json *j, struct arena *arena, struct pieces *out, struct pass_fault *fault) {
    struct chunk c;
    if (!json_is(j, 0, JSON_OBJECT))
        return PASS_BAD;
    look_at(j, &c);
    if (c.error >= 0) {
        pass_read_error(j, arena, fault);
        return PASS_ERROR;
    }
    if (!json_is(j, c.choices, JSON_ARRAY))
        return PASS_BAD;
    a->text_bytes = c.text_bytes;
    a->finished = true;
    take_usage(a, j, c.usage);
    final_usage(a);
    struct splice s[8];
    uint32_t n = 0;
    splice_id(a, j, c.id, s, &n);
    if (json_is(j, c.usage, JSON_OBJECT) && a->usage_seen) {
        splice_cost(a, j, c.usage, arena, s, &n);
    } else {
        struct slice member = usage_member(a, j, -1, arena);
        if (c.usage >= 0)
            set_span(s, &n, j, c.usage, slice_from(member, 8));
        else
            s[n++] = (struct splice){ j->tok[0].end - 1, 0, arena_printf(arena, ",%.*s", SLICE_ARG(member)) };
    }
    pass_splice(slice_of(j->text, j->len), s, n, out);
    a->usage_sent = true;
    return arena->overflow || out->full ? PASS_BAD : PASS_OK;
}

/* An event with its data spliced; the rest of the event as it came where its data lies in it. */
static void put_event(const struct sse_event *ev, struct splice *s, uint32_t n, struct pieces *out) {
    if (n == 0 && ev->raw.len > 0) {
        pieces_add(out, ev->raw);
        return;
    }
    bool inside = ev->raw.len > 0 && ev->data.ptr >= ev->raw.ptr && ev->data.ptr + ev->data.len <= ev->raw.ptr + ev->raw.len;
    pieces_add(out, inside ? slice_of(ev->raw.ptr, (size_t)(ev->data.ptr - ev->raw.ptr)) : SLICE("data: "));
    pass_splice(ev->data, s, n, out);
    const char *end = ev->data.ptr + ev->data.len;
    pieces_add(out, inside ? slice_of(end, (size_t)(ev->raw.ptr + ev->raw.len - end)) : SLICE("\n\n"));
}

/* Lets the waiting finish chunk go; usage_from: where the usage object stands (another chunk), or NULL. last: with the figures. */
static void flush_held(struct pass_answer *a, const struct json *usage_from, int usage, bool last, struct arena *scratch, struct pieces *out) {
    if (a->held->len == 0)
        return;
    struct sse_event ev = { .data = arena_copy(scratch, buf_slice(a->held)) };
    buf_release(a->held);
    struct json j;
    if (ev.data.ptr == NULL || !json_parse(&j, scratch, ev.data.ptr, ev.data.len))
        return; /* it parsed when it came: only memory can fail here, and the arena's overflow is seen by the caller */
    struct chunk c;
    look_at(&j, &c);
    struct splice s[10];
    uint32_t n = 0;
    splice_id(a, &j, c.id, s, &n);
    if (last) {
        final_usage(a);
        bool own = json_is(&j, c.usage, JSON_OBJECT);
        struct slice member = own ? usage_member(a, &j, c.usage, scratch) : usage_member(a, usage_from, usage, scratch);
        if (c.usage >= 0)
            set_span(s, &n, &j, c.usage, slice_from(member, 8));
        else
            s[n++] = (struct splice){ j.tok[0].end - 1, 0, arena_printf(scratch, ",%.*s", SLICE_ARG(member)) };
        a->usage_sent = true;
    } else if (c.usage >= 0) {
        n += pass_cut_members(&j, 0, &c.usage, 1, s + n);
    }
    put_event(&ev, s, n, out);
}

/* The stream ends well: what waits goes out, the figures too, then the terminator. */
static enum pass_result finish_stream(struct pass_answer *a, struct arena *scratch, struct pieces *out) {
    if (a->done)
        return PASS_OK;
    a->done = true;
    flush_held(a, NULL, -1, true, scratch, out);
    final_usage(a);
    if (a->wants_usage && !a->sep_usage_sent) {
        struct slice member = usage_member(a, NULL, -1, scratch);
        pieces_add(out, arena_printf(scratch, "data: {%.*s,\"choices\":[],%.*s}\n\n", (int)a->ident_len, a->ident, SLICE_ARG(member)));
        a->sep_usage_sent = a->usage_sent = true;
    }
    pieces_add(out, SLICE("data: [DONE]\n\n"));
    return scratch->overflow || out->full ? PASS_BAD : PASS_OK;
}

/* The chunk without choices that only brings the figures. */
static void usage_chunk(struct pass_answer *a, const struct sse_event *ev, const struct json *j, const struct chunk *c, struct arena *scratch,
                        struct pieces *out) {
    if (!a->wants_usage) {
        if (a->held->len > 0)
            flush_held(a, j, c->usage, true, scratch, out);
        return;
    }
    struct splice s[8];
    uint32_t n = 0;
    if (!a->finished) { /* figures before the end: the last ones count */
        put_event(ev, s, n, out);
        return;
    }
    final_usage(a);
    splice_id(a, j, c->id, s, &n);
    splice_cost(a, j, c->usage, scratch, s, &n);
    put_event(ev, s, n, out);
    a->sep_usage_sent = a->usage_sent = true;
}

static enum pass_result chat_event(struct pass_answer *a, const struct sse_event *ev, struct arena *scratch, struct pieces *out,
                                   struct pass_fault *fault) {
    if (!ev->has_data || a->done)
        return PASS_OK; /* comments are not passed on: our own pings keep the line alive */
    if (slice_is(slice_trim(ev->data), "[DONE]"))
        return a->finished || a->events > 0 ? finish_stream(a, scratch, out) : PASS_BAD;
    struct json_tok tape[EVENT_TAPE];
    struct json j;
    if (!json_parse_into(&j, tape, EVENT_TAPE, ev->data.ptr, ev->data.len) &&
        (j.err != JSON_TOO_MANY || !json_parse(&j, scratch, ev->data.ptr, ev->data.len)))
        return PASS_BAD;
    if (!json_is(&j, 0, JSON_OBJECT))
        return PASS_BAD;
    struct chunk c;
    look_at(&j, &c);
    if (c.error >= 0 || slice_is(ev->name, "error")) {
        pass_read_error(&j, scratch, fault);
        return PASS_ERROR;
    }
    a->events++;
    a->text_bytes += c.text_bytes;
    remember_ident(a, &j, &c, scratch);
    take_usage(a, &j, c.usage);
    struct splice s[10];
    uint32_t n = 0;
    if (c.finish && !a->wants_usage) {
        flush_held(a, NULL, -1, false, scratch, out);
        a->finished = true;
        if (!buf_append_slice(a->held, ev->data))
            return PASS_BAD;
        return scratch->overflow ? PASS_BAD : PASS_OK;
    }
    a->finished |= c.finish;
    if (c.no_choices && json_is(&j, c.usage, JSON_OBJECT)) {
        usage_chunk(a, ev, &j, &c, scratch, out);
        return scratch->overflow || out->full ? PASS_BAD : PASS_OK;
    }
    splice_id(a, &j, c.id, s, &n);
    if (c.usage >= 0 && !a->wants_usage)
        n += pass_cut_members(&j, 0, &c.usage, 1, s + n);
    else if (c.usage >= 0 && c.finish && json_is(&j, c.usage, JSON_OBJECT))
        set_span(s, &n, &j, c.usage, SLICE("null")); /* the figures come in the standard last chunk */
    put_event(ev, s, n, out);
    return scratch->overflow || out->full ? PASS_BAD : PASS_OK;
}

static enum pass_result chat_end(struct pass_answer *a, struct arena *scratch, struct pieces *out) {
    return a->finished || a->done ? finish_stream(a, scratch, out) : PASS_BAD;
}

static bool chat_fail(struct pass_answer *a, int status, const char *code, struct slice message, struct slice error, struct arena *arena,
                      struct pieces *out) {
    (void)a, (void)status, (void)code, (void)message;
    pieces_add(out, arena_printf(arena, "data: %.*s\n\n", SLICE_ARG(error)));
    return !arena->overflow && !out->full;
}

static struct slice chat_ping(const struct pass_answer *a) {
    (void)a;
    return SLICE(": ping\n\n");
}

static const char *chat_content_type(const struct pass_answer *a) {
    (void)a;
    return "text/event-stream; charset=utf-8";
}

const struct pass pass_openai_chat = {
    .scan = chat_scan, .build = chat_build, .whole = chat_whole, .event = chat_event, .end = chat_end, .error = pass_read_error,
    .fail = chat_fail, .ping = chat_ping, .content_type = chat_content_type,
};
