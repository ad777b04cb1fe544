/* Reads answers of generateContent, streamed (each chunk a whole response with what is new) and whole.
 *
 * A call comes whole in one part, or in pieces (partialArgs, willContinue) until a part without willContinue or the
 * end. There is no finish word for calls. usageMetadata is a running total: the last one with counts stands, whole.
 * content, parts and candidates may each be missing; a blocked prompt has no candidate at all. A stream without any
 * finishReason was cut. */
#include "proto/dialect/gemini.h"

struct choice {
    bool reasoning, call, finished;
    enum ir_stop stop;
    struct slice said;
    struct gemini_partial *partial;
};

struct reader {
    struct dialect_reader_settings s;
    bool started, any, whole;
    uint32_t count;
    struct choice choices[8]; /* candidateCount is at most 8 */
    struct ir_usage usage;
    struct ir_sink *sink;
    struct arena *scratch;
};

void *gemini_reader(const struct dialect_reader_settings *s) {
    struct reader *r = arena_zalloc(s->arena, sizeof *r);
    if (r)
        r->s = *s;
    return r;
}

static struct slice str(struct reader *r, const struct json *j, int obj, const char *name) {
    return json_str(j, gemini_get(j, obj, name), r->scratch);
}

/* Tokens of a modality in a list of details. */
static uint64_t modality(const struct json *j, int obj, const char *list, const char *word) {
    int t = gemini_get(j, obj, list);
    uint64_t sum = 0;
    for (int i = json_items(j, t); i >= 0; i = json_next(j, t, i)) {
        uint64_t n = common_count(j, i, "tokenCount");
        if (n != IR_ABSENT && json_str_is(j, gemini_get(j, i, "modality"), word))
            sum += n;
    }
    return sum;
}

static uint64_t or_zero(uint64_t n) {
    return n == IR_ABSENT ? 0 : n;
}

/* Of the uncached input: the cached part of a modality is paid as cached. */
static uint64_t input_of(const struct json *j, int t, const char *word) {
    uint64_t in = modality(j, t, "promptTokensDetails", word) + modality(j, t, "toolUsePromptTokensDetails", word);
    uint64_t cached = modality(j, t, "cacheTokensDetails", word);
    return in > cached ? in - cached : 0;
}

/* promptTokenCount holds the cached part but not what the provider's own tools fed back; candidatesTokenCount not the
 * thoughts. A count of zero is left out, so a total that says more than the parts means candidates. */
bool gemini_read_usage(const struct json *j, int t, struct ir_usage *u) {
    if (!json_is(j, t, JSON_OBJECT))
        return false;
    uint64_t prompt = common_count(j, t, "promptTokenCount"), total = common_count(j, t, "totalTokenCount");
    uint64_t tool = or_zero(common_count(j, t, "toolUsePromptTokenCount")),
             thoughts = or_zero(common_count(j, t, "thoughtsTokenCount"));
    uint64_t visible = common_count(j, t, "candidatesTokenCount");
    if (visible == IR_ABSENT)
        visible = common_count(j, t, "responseTokenCount"); /* Gemini's Live API */
    if (prompt == IR_ABSENT && visible == IR_ABSENT && total == IR_ABSENT)
        return false; /* early chunks of Vertex name the traffic type alone */
    uint64_t known = or_zero(prompt) + tool + thoughts;
    if (visible == IR_ABSENT)
        visible = total != IR_ABSENT && total > known ? total - known : 0;
    struct ir_counts c = ir_counts_absent();
    c.input = or_zero(prompt) + tool;
    c.cached = or_zero(common_count(j, t, "cachedContentTokenCount"));
    c.output = visible + thoughts;
    c.reasoning = thoughts;
    c.audio_in = input_of(j, t, "AUDIO");
    c.image_in = input_of(j, t, "IMAGE");
    c.audio_out = modality(j, t, "candidatesTokensDetails", "AUDIO");
    c.image_out = modality(j, t, "candidatesTokensDetails", "IMAGE");
    ir_usage_from(u, &c);
    u->tool_prompt = tool;
    return true;
}

/* ---- parts ---- */

static bool give(struct reader *r, uint32_t at, enum ir_event_kind kind, struct slice text) {
    struct ir_event ev = { .kind = kind, .choice = at, .text = text };
    return text.len == 0 ? kind == IR_EV_CALL_END ? ir_put(r->sink, &ev) : true : ir_put(r->sink, &ev);
}

static bool end_reasoning(struct reader *r, uint32_t at, struct slice signature) {
    struct ir_event ev = { .kind = IR_EV_REASONING_END, .choice = at };
    if (!r->choices[at].reasoning)
        return true;
    r->choices[at].reasoning = false;
    ev.blob = (struct ir_blob){ IR_BLOB_SIGNATURE, IR_GEMINI, 0, signature.ptr ? signature : SLICE("") };
    return ir_put(r->sink, &ev);
}

/* The open call's end: what came in pieces goes out whole. */
static bool end_call(struct reader *r, uint32_t at) {
    struct choice *c = &r->choices[at];
    bool ok = true;
    if (!c->call)
        return true;
    c->call = false;
    if (c->partial) {
        struct buf b;
        struct json_writer w;
        buf_init(&b, r->s.pages, r->s.max_held * 6 + 64);
        jw_init(&w, &b);
        ok = gemini_partial_write(c->partial, &w) && give(r, at, IR_EV_ARGS, buf_slice(&b));
        buf_release(&b);
        c->partial = NULL;
    }
    return ok && give(r, at, IR_EV_CALL_END, SLICE_NONE);
}

static bool read_call(struct reader *r, uint32_t at, const struct json *j, int t, struct slice signature) {
    struct choice *c = &r->choices[at];
    int args = gemini_get(j, t, "args"), pieces = gemini_get(j, t, "partialArgs");
    struct slice name = str(r, j, t, "name");
    bool more = false;
    json_bool(j, gemini_get(j, t, "willContinue"), &more);
    if (!end_reasoning(r, at, SLICE_NONE))
        return false;
    if (name.len > 0) {
        struct ir_event ev = { .kind = IR_EV_CALL, .choice = at, .id = str(r, j, t, "id"), .name = name };
        if (signature.len > 0)
            ev.blob = (struct ir_blob){ IR_BLOB_CALL, IR_GEMINI, 0, signature };
        if (!end_call(r, at) || !ir_put(r->sink, &ev))
            return false;
        c->call = true;
    }
    if (!c->call)
        return true; /* the closing part of a call that is closed */
    if (json_is(j, args, JSON_OBJECT) && json_size(j, args) > 0 && !c->partial &&
        !give(r, at, IR_EV_ARGS, json_raw(j, args)))
        return false;
    if (json_is(j, pieces, JSON_ARRAY)) {
        if (!c->partial)
            c->partial = gemini_partial_new(r->s.arena, r->s.max_held);
        if (!c->partial || !gemini_partial_add(c->partial, j, pieces, r->scratch))
            return false;
    }
    return more || end_call(r, at);
}

static bool read_part(struct reader *r, uint32_t at, const struct json *j, int t) {
    struct slice text = str(r, j, t, "text"), signature = str(r, j, t, "thoughtSignature");
    int call = gemini_get(j, t, "functionCall"), data = gemini_get(j, t, "inlineData");
    bool thought = false;
    json_bool(j, gemini_get(j, t, "thought"), &thought);
    if (json_is(j, call, JSON_OBJECT))
        return read_call(r, at, j, call, signature);
    if (json_is(j, data, JSON_OBJECT)) {
        struct ir_event ev = { .kind = IR_EV_IMAGE, .choice = at, .media_type = str(r, j, data, "mimeType"),
                               .data = str(r, j, data, "data") };
        return !slice_starts(ev.media_type, SLICE("image/")) || thought ||
               (end_reasoning(r, at, SLICE_NONE) && end_call(r, at) && ir_put(r->sink, &ev));
    }
    if (thought) {
        r->choices[at].reasoning = r->choices[at].reasoning || text.len > 0 || signature.len > 0;
        return end_call(r, at) && give(r, at, IR_EV_REASONING, text) &&
               (signature.len == 0 || end_reasoning(r, at, signature));
    }
    if (text.len == 0)
        return true;
    return end_reasoning(r, at, SLICE_NONE) && end_call(r, at) && give(r, at, IR_EV_TEXT, text);
}

/* ---- candidates ---- */

static enum ir_stop stop_of(struct slice word) {
    static const struct { const char *word; enum ir_stop stop;
    } words[] = {
        { "STOP", IR_STOP_END },
        { "MAX_TOKENS", IR_STOP_LIMIT },
        { "SAFETY", IR_STOP_FILTER },
        { "RECITATION", IR_STOP_FILTER },
        { "LANGUAGE", IR_STOP_FILTER },
        { "BLOCKLIST", IR_STOP_FILTER },
        { "PROHIBITED_CONTENT", IR_STOP_FILTER },
        { "SPII", IR_STOP_FILTER },
        { "IMAGE_SAFETY", IR_STOP_FILTER },
        { "IMAGE_PROHIBITED_CONTENT", IR_STOP_FILTER },
        { "IMAGE_RECITATION", IR_STOP_FILTER },
        { "MODEL_ARMOR", IR_STOP_FILTER },
        { "IMAGE_OTHER", IR_STOP_FILTER },
        { "NO_IMAGE", IR_STOP_FILTER },
        { "ESCALATION", IR_STOP_FILTER },
        { "PUP_LIMITED_DISABLED", IR_STOP_FILTER },
        { "CONTINUATION", IR_STOP_LIMIT },
        { "MALFORMED_FUNCTION_CALL", IR_STOP_MODEL_ERROR },
        { "MALFORMED_RESPONSE", IR_STOP_MODEL_ERROR },
        { "MISSING_THOUGHT_SIGNATURE", IR_STOP_MODEL_ERROR },
        { "UNEXPECTED_TOOL_CALL", IR_STOP_MODEL_ERROR },
        { "TOO_MANY_TOOL_CALLS", IR_STOP_MODEL_ERROR },
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (slice_is(word, words[i].word))
            return words[i].stop;
    return IR_STOP_UNKNOWN;
}

void gemini_count_tools(const struct json *j, int candidate, struct tool_calls *tools) {
    int queries = gemini_get(j, gemini_get(j, candidate, "groundingMetadata"), "webSearchQueries");
    if (json_is(j, queries, JSON_ARRAY))
        tools->n[TOOL_WEB_SEARCH] = json_size(j, queries);
}

static bool cite(struct reader *r, uint32_t at, const struct json *j, int source) {
    struct ir_event ev = {
        .kind = IR_EV_CITATION, .choice = at, .id = str(r, j, source, "uri"), .name = str(r, j, source, "title")
    };
    return ev.id.len == 0 || ir_put(r->sink, &ev);
}

/* What the answer repeats word by word. */
static bool read_citations(struct reader *r, uint32_t at, const struct json *j, int t) {
    int list = gemini_get(j, t, "citations");
    if (list < 0)
        list = gemini_get(j, t, "citationSources"); /* as the API says it; its own SDK has the other word */
    for (int c = json_items(j, list); c >= 0; c = json_next(j, list, c))
        if (!cite(r, at, j, c))
            return false;
    return true;
}

/* Sources that the answer rests on. */
static bool read_grounding(struct reader *r, uint32_t at, const struct json *j, int t) {
    int chunks = gemini_get(j, t, "groundingChunks");
    for (int c = json_items(j, chunks); c >= 0; c = json_next(j, chunks, c)) {
        if (!cite(r, at, j, gemini_get(j, c, "web")))
            return false;
    }
    return true;
}

static bool read_candidate(struct reader *r, const struct json *j, int t) {
    uint64_t index;
    if (!json_u64(j, gemini_get(j, t, "index"), &index))
        index = 0;
    if (index >= sizeof r->choices / sizeof *r->choices)
        return true;
    uint32_t at = (uint32_t)index;
    int parts = gemini_get(j, gemini_get(j, t, "content"), "parts");
    struct slice word = str(r, j, t, "finishReason"), said = str(r, j, t, "finishMessage");
    r->any = true;
    if (at >= r->count)
        r->count = at + 1;
    for (int p = json_items(j, parts); p >= 0; p = json_next(j, parts, p))
        if (!read_part(r, at, j, p))
            return false;
    struct ir_event list = { .kind = IR_EV_LOGPROBS, .choice = at };
    list.text = gemini_read_logprobs(j, gemini_get(j, t, "logprobsResult"), r->scratch);
    if (list.text.len > 0 && !ir_put(r->sink, &list))
        return false;
    gemini_count_tools(j, t, &r->usage.tools);
    if (!read_citations(r, at, j, gemini_get(j, t, "citationMetadata")) ||
        !read_grounding(r, at, j, gemini_get(j, t, "groundingMetadata")))
        return false;
    if (word.len == 0)
        return true;
    struct choice *c = &r->choices[at];
    c->finished = true;
    c->stop = stop_of(word);
    if (said.len > 0)
        c->said = arena_copy(r->s.arena, said);
    return end_reasoning(r, at, SLICE_NONE) && end_call(r, at);
}

static enum dialect_result read_chunk(struct reader *r, const struct json *j, int t, struct ir_fault *f) {
    int candidates = gemini_get(j, t, "candidates"), feedback = gemini_get(j, t, "promptFeedback");
    if (json_is(j, gemini_get(j, t, "error"), JSON_OBJECT)) {
        dialect_fault_of(j, t, 200, r->scratch, f);
        return DIALECT_ERROR;
    }
    gemini_read_usage(j, gemini_get(j, t, "usageMetadata"), &r->usage);
    if (!r->started && (candidates >= 0 || feedback >= 0)) {
        struct ir_event ev = { .kind = IR_EV_START,
                               .id = str(r, j, t, "responseId"),
                               .name = str(r, j, t, "modelVersion"),
                               .usage = &r->usage };
        r->started = true;
        if (!ir_put(r->sink, &ev))
            return DIALECT_FULL;
    }
    if (json_is(j, gemini_get(j, feedback, "blockReason"), JSON_STRING)) {
        r->any = true;
        r->count = r->count ? r->count : 1;
        r->choices[0].finished = true;
        r->choices[0].stop = IR_STOP_FILTER;
        if (json_is(j, gemini_get(j, t, "usageMetadata"), JSON_OBJECT))
            r->usage.seen = true; /* counts of zero are left out: what is not asked of the model costs nothing */
        struct slice said = str(r, j, feedback, "blockReasonMessage");
        r->choices[0].said = arena_copy(r->s.arena, said.len > 0 ? said : str(r, j, feedback, "blockReason"));
    }
    for (int c = json_items(j, candidates); c >= 0; c = json_next(j, candidates, c))
        if (!read_candidate(r, j, c))
            return DIALECT_FULL;
    return DIALECT_OK;
}

enum dialect_result gemini_event(void *reader, const struct sse_event *ev, struct arena *scratch, struct ir_sink *sink,
                                 struct ir_fault *f) {
    struct reader *r = reader;
    struct json j;
    r->sink = sink;
    r->scratch = scratch;
    if (slice_is(slice_trim(ev->data), "[DONE]"))
        return DIALECT_DONE;
    if (!json_parse(&j, scratch, ev->data.ptr, ev->data.len))
        return DIALECT_BAD;
    return read_chunk(r, &j, json_is(&j, 0, JSON_ARRAY) ? json_first(&j, 0) : 0, f);
}

/* A body may be one response or, where a stream was asked for without SSE, an array of them. */
enum dialect_result gemini_whole(void *reader, const struct json *j, struct arena *scratch, struct ir_sink *sink,
                                 struct ir_fault *f) {
    struct reader *r = reader;
    enum dialect_result got = DIALECT_BAD;
    r->sink = sink;
    r->scratch = scratch;
    r->whole = true;
    if (!json_is(j, 0, JSON_ARRAY))
        return read_chunk(r, j, 0, f);
    for (int t = json_first(j, 0); t >= 0; t = json_next(j, 0, t))
        if ((got = read_chunk(r, j, t, f)) != DIALECT_OK)
            break;
    return got;
}

enum dialect_result gemini_end(void *reader, struct arena *scratch, struct ir_sink *sink, struct ir_fault *f) {
    struct reader *r = reader;
    (void)f;
    r->sink = sink;
    r->scratch = scratch;
    if (!r->any)
        return DIALECT_BAD;
    bool finished = r->whole;
    for (uint32_t i = 0; i < r->count; i++)
        finished = finished || r->choices[i].finished;
    if (!finished)
        return DIALECT_BAD;
    struct ir_event usage = { .kind = IR_EV_USAGE, .usage = &r->usage };
    if (r->usage.seen && !ir_put(sink, &usage))
        return DIALECT_FULL;
    for (uint32_t i = 0; i < r->count; i++) {
        struct ir_event finish = {
            .kind = IR_EV_FINISH, .choice = i, .stop = r->choices[i].stop, .stop_text = r->choices[i].said
        };
        if (!end_reasoning(r, i, SLICE_NONE) || !end_call(r, i) || !ir_put(sink, &finish))
            return DIALECT_FULL;
    }
    return DIALECT_OK;
}
