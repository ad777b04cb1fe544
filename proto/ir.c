/* Requests in the neutral form: building, settling, and what writers of several dialects need alike.
 *
 * Everything lies in the request's arena. Memory that runs out makes builders return NULL and the arena's overflow
 * sticky; who reads or writes a request checks that flag once at the end. A request that no target could serve is
 * refused in ir_settle. */
#include "proto/ir.h"

/* ---- carriers ----
 * "tollgate1." maker kind origin(8 hex) "." data. Everything before data is letters, digits and dots. */

static const char carrier_head[] = "tollgate1.";
enum { HEAD_LEN = sizeof carrier_head - 1, TAG_LEN = HEAD_LEN + 2 + 8 + 1 };
static const char maker_letters[] = "crag", kind_letters[] = "-sxc";

struct slice ir_carrier(struct arena *arena, const struct ir_blob *b) {
    return arena_printf(arena, "%s%c%c%08x.%.*s", carrier_head, maker_letters[b->maker], kind_letters[b->kind],
                        b->origin, SLICE_ARG(b->data));
}

struct ir_blob ir_blob_of(struct slice s, enum ir_blob_kind kind, enum ir_dialect own) {
    struct ir_blob b = { kind, own, 0, s };
    if (s.len < TAG_LEN || memcmp(s.ptr, carrier_head, HEAD_LEN) != 0 || s.ptr[TAG_LEN - 1] != '.')
        return b;
    const char *m = memchr(maker_letters, s.ptr[HEAD_LEN], IR_DIALECTS),
               *k = memchr(kind_letters, s.ptr[HEAD_LEN + 1], 4);
    uint32_t origin = 0;
    for (int i = HEAD_LEN + 2; i < TAG_LEN - 1; i++) {
        static const char hex[] = "0123456789abcdef";
        const char *d = memchr(hex, s.ptr[i], 16);
        if (!d)
            return b;
        origin = origin << 4 | (uint32_t)(d - hex);
    }
    if (m && k && k != kind_letters)
        b = (struct ir_blob){ (enum ir_blob_kind)(k - kind_letters), (enum ir_dialect)(m - maker_letters), origin,
                              slice_from(s, TAG_LEN) };
    return b;
}

bool ir_has_carrier(const struct json *j) {
    enum { BASE64_LEN = sizeof IR_CARRIER_BASE64 - 1 };
    for (uint32_t t = 0; t < j->count; t++) {
        const char *s = j->text + j->tok[t].start;
        if (j->tok[t].type == JSON_STRING && j->tok[t].end - j->tok[t].start >= TAG_LEN &&
            (memcmp(s, carrier_head, HEAD_LEN) == 0 || memcmp(s, IR_CARRIER_BASE64, BASE64_LEN) == 0))
            return true;
    }
    return false;
}

/* ---- small words ---- */

bool ir_refuse(struct ir_fault *f, const char *code, struct slice param, struct slice message) {
    *f = (struct ir_fault){
        .status = 400, .blame = IR_BLAME_CLIENT, .code = slice_str(code), .param = param, .message = message
    };
    return false;
}

bool ir_missing(struct ir_fault *f, const char *param) {
    return ir_refuse(f, "missing_field", slice_str(param), SLICE("A required member is missing or of the wrong type."));
}

void ir_drop(struct ir_dropped *d, struct slice name) {
    for (uint32_t i = 0; i < d->count; i++)
        if (slice_eq(d->names[i], name))
            return;
    if (d->count < IR_DROPPED_MAX)
        d->names[d->count++] = name;
}

struct slice ir_member(const struct ir_request *r, const char *name) {
    static const struct { const char *name, *in[IR_DIALECTS];
    } words[] = {
        { "limit",
          { "max_completion_tokens", "max_output_tokens", "max_tokens", "generationConfig.maxOutputTokens" } },
        { "temperature", { "temperature", "temperature", "temperature", "generationConfig.temperature" } },
        { "top_p", { "top_p", "top_p", "top_p", "generationConfig.topP" } },
        { "top_k", { "top_k", "top_k", "top_k", "generationConfig.topK" } },
        { "seed", { "seed", "seed", "seed", "generationConfig.seed" } },
        { "presence_penalty",
          { "presence_penalty", "presence_penalty", "presence_penalty", "generationConfig.presencePenalty" } },
        { "frequency_penalty",
          { "frequency_penalty", "frequency_penalty", "frequency_penalty", "generationConfig.frequencyPenalty" } },
        { "stop", { "stop", "stop", "stop_sequences", "generationConfig.stopSequences" } },
        { "n", { "n", "n", "n", "generationConfig.candidateCount" } },
        { "logprobs", { "logprobs", "top_logprobs", "logprobs", "generationConfig.responseLogprobs" } },
        { "audio", { "modalities", "modalities", "modalities", "generationConfig.responseModalities" } },
        { "format",
          { "response_format", "text.format", "output_config.format", "generationConfig.responseMimeType" } },
        { "effort", { "reasoning_effort", "reasoning", "thinking", "generationConfig.thinkingConfig" } },
        { "user", { "user", "user", "metadata", "user" } },
        { "service_tier", { "service_tier", "service_tier", "service_tier", "serviceTier" } },
        { "tools", { "tools", "tools", "tools", "tools" } },
        { "choice", { "tool_choice", "tool_choice", "tool_choice", "toolConfig" } },
        { "top_logprobs", { "top_logprobs", "top_logprobs", "top_logprobs", "generationConfig.logprobs" } },
        { "thoughts", { "reasoning", "reasoning.summary", "thinking.display",
                        "generationConfig.thinkingConfig.includeThoughts" } },
        { "strict", { "tools.strict", "tools.strict", "tools.strict", "toolConfig.functionCallingConfig.mode" } },
        { "grammar", { "tools.custom.format", "tools.format", "tools.format", "tools.format" } },
        { "verbosity", { "verbosity", "text.verbosity", "verbosity", "verbosity" } },
        { "format_description", { "response_format.json_schema.description", "text.format.description",
                                  "output_config.format.description", "generationConfig.responseSchema.description" } },
        { "detail", { "messages.content.image_url.detail", "input.content.detail", "messages.content.detail",
                      "contents.parts.mediaResolution" } },
        { "parallel",
          { "parallel_tool_calls", "parallel_tool_calls", "tool_choice.disable_parallel_tool_use", "toolConfig" } },
        { "cache_key", { "prompt_cache_key", "prompt_cache_key", "prompt_cache_key", "prompt_cache_key" } },
        { "cache", { "prompt_cache_breakpoint", "prompt_cache_breakpoint", "cache_control", "cachedContent" } },
        { "turns", { "messages", "input", "messages", "contents" } },
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i].name, name) == 0)
            return slice_str(words[i].in[r->from]);
    return slice_str(name);
}

bool ir_unsupported(const struct ir_request *r, struct ir_fault *f, const char *name) {
    struct slice member = ir_member(r, name);
    return ir_refuse(f, "unsupported_parameter", member,
                     arena_printf(r->arena, "%.*s cannot be expressed for this model's provider.", SLICE_ARG(member)));
}

static bool listed(const struct slice *list, uint32_t count, const char *name) {
    for (uint32_t i = 0; i < count; i++)
        if (slice_is(list[i], name))
            return true;
    return false;
}

bool ir_stripped(const struct ir_target *t, const char *name) {
    return listed(t->strip, t->strip_count, name);
}

bool ir_allowed(const struct ir_target *t, const char *name) {
    return listed(t->allow, t->allow_count, name);
}

/* Default bands; a model's own come with the target. */
static const struct { const char *name; uint64_t budget;
} efforts[] = {
    [IR_EFFORT_UNSET] = { "", 0 },
    [IR_EFFORT_NONE] = { "none", 0 },
    [IR_EFFORT_MINIMAL] = { "minimal", 1024 },
    [IR_EFFORT_LOW] = { "low", 2048 },
    [IR_EFFORT_MEDIUM] = { "medium", 8192 },
    [IR_EFFORT_HIGH] = { "high", 16384 },
    [IR_EFFORT_XHIGH] = { "xhigh", 24576 },
    [IR_EFFORT_MAX] = { "max", 32000 },
};

const char *ir_effort_name(enum ir_effort e) {
    return efforts[e].name;
}

enum ir_effort ir_effort_named(struct slice name) {
    for (int i = IR_EFFORT_NONE; i <= IR_EFFORT_MAX; i++)
        if (slice_is(name, efforts[i].name))
            return (enum ir_effort)i;
    return IR_EFFORT_UNSET;
}

enum ir_effort ir_effort_of(int64_t budget) {
    if (budget < 0)
        return IR_EFFORT_UNSET;
    if (budget == 0)
        return IR_EFFORT_NONE;
    int best = IR_EFFORT_MINIMAL;
    for (int i = IR_EFFORT_MINIMAL; i <= IR_EFFORT_MAX; i++) {
        int64_t d = (int64_t)efforts[i].budget - budget, least = (int64_t)efforts[best].budget - budget;
        if ((d < 0 ? -d : d) < (least < 0 ? -least : least))
            best = i;
    }
    return (enum ir_effort)best;
}

uint64_t ir_budget_of(enum ir_effort e, const struct ir_target *t) {
    for (uint32_t i = 0; i < t->budget_count; i++)
        if (slice_is(t->budgets[i].effort, efforts[e].name))
            return t->budgets[i].tokens;
    return efforts[e].budget;
}

/* ---- builders ---- */

struct ir_turn *ir_add_turn(struct ir_request *r, enum ir_role role) {
    struct ir_turn **at = &r->turns, *t = arena_zalloc(r->arena, sizeof *t);
    if (!t)
        return NULL;
    t->role = role;
    if (r->newest)
        at = &r->newest->next;
    *at = r->newest = t;
    return t;
}

struct ir_turn *ir_add_first_turn(struct ir_request *r, enum ir_role role) {
    struct ir_turn *t = arena_zalloc(r->arena, sizeof *t);
    if (!t)
        return NULL;
    t->role = role;
    t->next = r->turns;
    r->turns = t;
    if (!r->newest)
        r->newest = t;
    return t;
}

/* Appends node to a list whose first member remembers the last: a hostile list of a million members costs a million
 * steps. */
#define APPEND(list, node) \
    do { \
        if (*(list)) \
            (*(list))->tail->next = (node); \
        else \
            *(list) = (node); \
        (*(list))->tail = (node); \
    } while (0)

struct ir_part *ir_add_part(struct ir_request *r, struct ir_part **list, enum ir_part_kind kind) {
    struct ir_part *p = arena_zalloc(r->arena, sizeof *p);
    if (!p)
        return NULL;
    p->kind = kind;
    APPEND(list, p);
    return p;
}

struct ir_tool *ir_add_tool(struct ir_request *r, enum ir_tool_kind kind) {
    struct ir_tool *t = arena_zalloc(r->arena, sizeof *t);
    if (!t)
        return NULL;
    t->kind = kind;
    APPEND(&r->tools, t);
    return t;
}

void ir_add_text(struct ir_request *r, struct ir_text **list, struct slice text) {
    struct ir_text *t = arena_zalloc(r->arena, sizeof *t);
    if (!t)
        return;
    t->text = text;
    APPEND(list, t);
}

static void add_extra(struct ir_request *r, struct ir_extra **list, const struct json *j, int key) {
    struct ir_extra *x = arena_zalloc(r->arena, sizeof *x);
    if (!x)
        return;
    x->name = json_str(j, key, r->arena);
    x->raw = json_span(j, key + 1);
    APPEND(list, x);
}

void ir_add_extra(struct ir_request *r, const struct json *j, int key) {
    if (!json_is(j, key + 1, JSON_NULL)) /* a member that is null was not given */
        add_extra(r, &r->extras, j, key);
}

void ir_add_echo(struct ir_request *r, const struct json *j, int key) {
    add_extra(r, &r->echo, j, key);
}

void ir_note(struct ir_request *r, struct slice name) {
    uint32_t n = 0;
    for (const struct ir_extra *x = r->extras; x; x = x->next)
        if (++n == IR_DROPPED_MAX || (x->raw.len == 0 && slice_eq(x->name, name)))
            return; /* known, or more than are reported */
    struct ir_extra *x = arena_zalloc(r->arena, sizeof *x);
    if (!x)
        return;
    x->name = name;
    APPEND(&r->extras, x);
}

/* ---- lookups ---- */

struct ir_tool *ir_tool_named(const struct ir_request *r, struct slice name) {
    for (struct ir_tool *t = r->tools; t; t = t->next)
        if (slice_eq(t->name, name))
            return t;
    return NULL;
}

struct ir_tool *ir_tool_sent(const struct ir_request *r, struct slice sent) {
    for (struct ir_tool *t = r->tools; t; t = t->next)
        if (t->sent.len > 0 && slice_eq(t->sent, sent))
            return t;
    return ir_tool_named(r, sent);
}

static bool name_char(char c, const char *also) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           (also && c && strchr(also, c));
}

/* FNV-1a: enough to tell names of one request apart that differ only in what was replaced. */
static uint32_t name_hash(struct slice s) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < s.len; i++)
        h = (h ^ (unsigned char)s.ptr[i]) * 16777619u;
    return h;
}

struct slice ir_sent_name(struct ir_request *r, struct slice name, size_t max_len, const char *also) {
    bool fits = name.len > 0 && name.len <= max_len;
    for (size_t i = 0; i < name.len && fits; i++)
        fits = name_char(name.ptr[i], also);
    if (fits)
        return name;
    struct ir_tool *tool = ir_tool_named(r, name);
    if (tool && tool->sent.len > 0)
        return tool->sent;
    char plain[160];
    size_t n = 0, room = max_len - 9 < sizeof plain ? max_len - 9 : sizeof plain;
    for (size_t i = 0; i < name.len && n < room; i++)
        plain[n++] = name_char(name.ptr[i], NULL) ? name.ptr[i] : '_';
    struct slice sent = arena_printf(r->arena, "%.*s_%08x", (int)n, plain, name_hash(name));
    if (tool) {
        tool->sent = sent;
        r->renamed = true;
    }
    return sent;
}

bool ir_chosen(const struct ir_request *r, struct slice name) {
    if (r->choice != IR_CHOICE_ONE && r->choice != IR_CHOICE_SUBSET)
        return true;
    for (const struct ir_text *t = r->choice_names; t; t = t->next)
        if (slice_eq(t->text, name))
            return true;
    return false;
}

bool ir_has_functions(const struct ir_request *r) {
    for (const struct ir_tool *t = r->tools; t; t = t->next)
        if (t->kind != IR_HOSTED)
            return true;
    return false;
}

/* Takes the names of hosted tools that do not go out of a choice among several. */
static bool choose_among(struct ir_request *r, const char *taken, struct ir_fault *f) {
    struct ir_text **at = &r->choice_names, *left = NULL;
    while (r->choice == IR_CHOICE_SUBSET && *at) {
        const struct ir_tool *t = ir_tool_named(r, (*at)->text);
        if (t && t->kind == IR_HOSTED && !(taken && slice_is(t->name, taken))) {
            *at = (*at)->next;
            continue;
        }
        left = *at;
        at = &left->next;
    }
    if (r->choice != IR_CHOICE_SUBSET || left)
        return true;
    if (r->choice_required)
        return ir_refuse(f, "unsupported_parameter", ir_member(r, "choice"),
                         SLICE("None of the tools that may be chosen is available with this model."));
    r->choice = IR_CHOICE_NONE;
    return true;
}

bool ir_check_hosted(struct ir_request *r, const char *taken, struct ir_dropped *d, struct ir_fault *f) {
    bool functions = ir_has_functions(r);
    for (const struct ir_tool *t = r->tools; t; t = t->next) {
        if (t->kind != IR_HOSTED || (taken && slice_is(t->name, taken)))
            continue;
        bool forced = (r->choice == IR_CHOICE_ONE && ir_chosen(r, t->name)) ||
                      (r->choice == IR_CHOICE_REQUIRED && !functions);
        if (!functions || forced)
            return ir_refuse(
                f, "unsupported_parameter", arena_printf(r->arena, "tools[%u]", t->index),
                arena_printf(r->arena, "The tool %.*s is not available with this model.", SLICE_ARG(t->name)));
        ir_drop(d, arena_printf(r->arena, "tools.%.*s", SLICE_ARG(t->name)));
    }
    return choose_among(r, taken, f);
}

bool ir_append(struct arena *arena, struct slice *text, size_t *cap, struct slice more) {
    size_t need = text->len + more.len;
    if (more.len == 0)
        return true;
    if (need > *cap) {
        char *p = arena_alloc(arena, need < 128 ? 256 : need * 2);
        if (!p)
            return false;
        if (text->len > 0)
            memcpy(p, text->ptr, text->len);
        text->ptr = p;
        *cap = need < 128 ? 256 : need * 2;
    }
    memcpy((char *)(uintptr_t)text->ptr + text->len, more.ptr, more.len);
    text->len = need;
    return true;
}

struct slice ir_join_text(struct arena *arena, const struct ir_part *parts, const char *between) {
    size_t n = 0, count = 0, sep = strlen(between);
    struct slice only = SLICE("");
    for (const struct ir_part *p = parts; p; p = p->next)
        if (p->kind == IR_TEXT || p->kind == IR_REFUSAL) {
            only = p->text;
            n += p->text.len + (count++ ? sep : 0);
        }
    if (count <= 1)
        return only;
    char *at = arena_alloc(arena, n), *to = at;
    if (!at)
        return SLICE("");
    for (const struct ir_part *p = parts; p; p = p->next)
        if (p->kind == IR_TEXT || p->kind == IR_REFUSAL) {
            if (to != at) {
                memcpy(to, between, sep);
                to += sep;
            }
            if (p->text.len > 0)
                memcpy(to, p->text.ptr, p->text.len);
            to += p->text.len;
        }
    return slice_of(at, (size_t)(to - at));
}

bool ir_data_url(struct arena *arena, struct slice url, struct slice *media_type, struct slice *data) {
    if (url.len < 5 || !slice_ieq(slice_of(url.ptr, 5), SLICE("data:")))
        return false;
    const char *comma = memchr(url.ptr, ',', url.len);
    if (!comma)
        return false;
    struct slice head = slice_of(url.ptr + 5, (size_t)(comma - url.ptr) - 5);
    const char *semi = head.len ? memchr(head.ptr, ';', head.len) : NULL;
    *media_type = semi ? slice_of(head.ptr, (size_t)(semi - head.ptr)) : head;
    if (!semi || !memmem(semi, (size_t)(comma - semi), ";base64", 7))
        return false;
    *data = slice_of(comma + 1, url.len - (size_t)(comma + 1 - url.ptr));
    size_t clean = 0;
    while (clean < data->len && data->ptr[clean] != '\n' && data->ptr[clean] != '\r' && data->ptr[clean] != ' ')
        clean++;
    if (clean == data->len)
        return true;
    char *copy = arena_alloc(arena, data->len);
    if (!copy)
        return false;
    size_t n = 0;
    for (size_t i = 0; i < data->len; i++)
        if (data->ptr[i] != '\n' && data->ptr[i] != '\r' && data->ptr[i] != ' ')
            copy[n++] = data->ptr[i];
    *data = slice_of(copy, n);
    return true;
}

bool ir_args_object(struct arena *arena, struct slice args, struct slice *object) {
    struct json j;
    size_t i = 0;
    while (i < args.len && (args.ptr[i] == ' ' || args.ptr[i] == '\n' || args.ptr[i] == '\r' || args.ptr[i] == '\t'))
        i++;
    *object = SLICE("{}");
    if (i == args.len || slice_is(args, "null"))
        return true;
    if (!json_parse(&j, arena, args.ptr, args.len) || !json_is(&j, 0, JSON_OBJECT))
        return false;
    *object = json_span(&j, 0);
    return true;
}

bool ir_call_object(struct ir_request *r, const struct ir_part *call, struct slice *object, struct ir_fault *f) {
    if (call->custom) { /* free text: the one property that custom tools are offered with */
        struct buf b;
        struct json_writer w;
        buf_init(&b, r->arena->pages, call->text.len * 6 + 64);
        jw_init(&w, &b);
        jw_object(&w);
        jw_key(&w, "input");
        jw_str(&w, call->text.ptr ? call->text : SLICE(""));
        jw_end_object(&w);
        *object = arena_copy(r->arena, buf_slice(&b));
        buf_release(&b);
        return true;
    }
    if (ir_args_object(r->arena, call->text, object))
        return true;
    return ir_refuse(
        f, "invalid_value", call->id,
        arena_printf(r->arena, "The arguments of the call %.*s are not a JSON object.", SLICE_ARG(call->id)));
}
