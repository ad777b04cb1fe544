/* Reads answers of Chat Completions, streamed and whole (a message is one delta), from OpenAI and some thirty
 * compatible servers.
 *
 * What they do differently, and is taken: calls without index, that start at 1, share an index with new ids, come
 * whole in one chunk, repeat id and name, or give arguments as an object; calls that interleave; content as parts;
 * reasoning under two names; usage on any chunk, in a choice, or under x_groq; choices that are empty; no [DONE];
 * errors as events or inside a 200.
 *
 * The neutral form wants one block after the other. A call whose arguments form a whole JSON value is complete when
 * the next begins; while it is not, what comes for others is held (bounded by max_held a call), so nothing waits in
 * the common case. */
#include "proto/dialect/openai.h"

/* Follows JSON text just far enough to know whether one value is complete. */
struct json_end { uint32_t depth; bool in_string, escaped, any; };

struct call {
    struct call *next;
    uint32_t index;
    bool given, closed, custom; /* CALL was put; CALL_END was put */
    struct slice id, name, signature;
    struct json_end end;
    struct buf held;
};

struct choice {
    struct choice *next;
    uint32_t index;
    bool reasoning;             /* a reasoning block is open */
    bool finished;              /* a finish word came */
    enum ir_stop stop;
    struct call *calls, *open;
};

struct reader {
    struct dialect_reader_settings s;
    bool started, done, any_choice;
    struct choice *choices;
    uint32_t choice_count, call_count;
    struct ir_usage usage;
    struct ir_sink *sink;
    struct arena *scratch;
};

void *openai_reader(const struct dialect_reader_settings *s) {
    struct reader *r = arena_zalloc(s->arena, sizeof *r);
    if (r)
        r->s = *s;
    return r;
}

void openai_close_reader(void *reader) {
    struct reader *r = reader;
    for (struct choice *c = r->choices; c; c = c->next)
        for (struct call *k = c->calls; k; k = k->next)
            buf_release(&k->held);
}

static void follow(struct json_end *e, struct slice s) {
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (e->in_string) {
            if (e->escaped)
                e->escaped = false;
            else if (c == '\\')
                e->escaped = true;
            else if (c == '"')
                e->in_string = false;
        } else if (c == '"') {
            e->in_string = e->any = true;
        } else if (c == '{' || c == '[') {
            e->depth++;
            e->any = true;
        } else if ((c == '}' || c == ']') && e->depth > 0) {
            e->depth--;
        }
    }
}

static bool whole_value(const struct call *k) {
    return k->custom || (k->end.any && k->end.depth == 0 && !k->end.in_string);
}

static struct choice *choice_at(struct reader *r, uint32_t index) {
    struct choice **at = &r->choices;
    for (; *at; at = &(*at)->next)
        if ((*at)->index == index)
            return *at;
    if (r->choice_count >= IR_CHOICES_MAX || !(*at = arena_zalloc(r->s.arena, sizeof **at)))
        return NULL;
    r->choice_count++;
    (*at)->index = index;
    return *at;
}

static bool give(struct reader *r, const struct choice *c, enum ir_event_kind kind, struct slice text) {
    struct ir_event ev = { .kind = kind, .choice = c->index, .text = text };
    return ir_put(r->sink, &ev);
}

/* ---- calls ---- */

static bool close_call(struct reader *r, struct choice *c) {
    struct call *k = c->open;
    c->open = NULL;
    if (!k || k->closed)
        return true;
    k->closed = true;
    return give(r, c, IR_EV_CALL_END, SLICE_NONE);
}

static bool open_call(struct reader *r, struct choice *c, struct call *k) {
    struct ir_event ev = { .kind = IR_EV_CALL, .choice = c->index, .id = k->id, .name = k->name, .custom = k->custom };
    if (k->signature.len > 0)
        ev.blob = (struct ir_blob){ IR_BLOB_CALL, IR_OPENAI, 0, k->signature };
    k->given = true;
    c->open = k;
    bool ok = ir_put(r->sink, &ev);
    if (ok && k->held.len > 0)
        ok = give(r, c, IR_EV_ARGS, buf_slice(&k->held));
    buf_release(&k->held);
    return ok;
}

/* Everything that is still held, call after call. */
static bool flush_calls(struct reader *r, struct choice *c) {
    if (!close_call(r, c))
        return false;
    for (struct call *k = c->calls; k; k = k->next)
        if (!k->given && (!open_call(r, c, k) || !close_call(r, c)))
            return false;
    return true;
}

/* What is open is complete: the next held call, and all complete ones behind it, may go. */
static bool advance_calls(struct reader *r, struct choice *c) {
    while (c->open && whole_value(c->open)) {
        struct call *next = c->calls;
        while (next && next->given)
            next = next->next;
        if (!next)
            return true;
        if (!close_call(r, c) || !open_call(r, c, next))
            return false;
    }
    return true;
}

enum { MAX_CALLS = 1024 };

static struct call *call_at(struct reader *r, struct choice *c, uint32_t index, struct slice id, struct slice name) {
    struct call *found = NULL, **at = &c->calls;
    for (; *at; at = &(*at)->next)
        if ((*at)->index == index)
            found = *at; /* the last one of that index */
    bool again = found && ((id.len > 0 && found->id.len > 0 && !slice_eq(id, found->id)) ||
                           (id.len == 0 && name.len > 0 && found->id.len == 0 && found->name.len > 0 &&
                            found->end.any && whole_value(found)));
    if (found && !again) {
        if (found->id.len == 0 && id.len > 0)
            found->id = arena_copy(r->s.arena, id);
        if (found->name.len == 0 && name.len > 0)
            found->name = arena_copy(r->s.arena, name);
        return found;
    }
    struct call *k = r->call_count < MAX_CALLS ? arena_zalloc(r->s.arena, sizeof *k) : NULL;
    if (!k)
        return NULL;
    r->call_count++;
    *at = k;
    k->index = index;
    k->id = arena_copy(r->s.arena, id.ptr ? id : SLICE(""));
    k->name = arena_copy(r->s.arena, name.ptr ? name : SLICE(""));
    buf_init(&k->held, r->s.pages, r->s.max_held);
    return k;
}

static bool end_reasoning_with(struct reader *r, struct choice *c, struct slice detail) {
    struct ir_event ev = { .kind = IR_EV_REASONING_END,
                           .choice = c->index,
                           .blob = { IR_BLOB_SIGNATURE, IR_OPENAI, 0, detail } };
    c->reasoning = false;
    return ir_put(r->sink, &ev);
}

static bool end_reasoning(struct reader *r, struct choice *c) {
    return !c->reasoning || end_reasoning_with(r, c, SLICE(""));
}

static bool read_call(struct reader *r, struct choice *c, const struct json *j, int t, uint32_t place) {
    int function = json_get(j, t, "function"), body = json_get(j, t, "custom");
    bool custom = body >= 0 && (json_str_is(j, json_get(j, t, "type"), "custom") || !json_is(j, function, JSON_OBJECT));
    body = custom ? body : function; /* some servers write an empty one of each kind beside the other */
    int args = json_get(j, body, custom ? "input" : "arguments");
    uint64_t index;
    if (!json_u64(j, json_get(j, t, "index"), &index) || index > UINT32_MAX)
        index = place;
    struct slice id = json_str(j, json_get(j, t, "id"), r->scratch),
                 name = json_str(j, json_get(j, body, "name"), r->scratch);
    struct call *k = call_at(r, c, (uint32_t)index, id, name);
    if (!k || !end_reasoning(r, c))
        return false;
    if (!k->given) {
        int google = json_get(j, json_get(j, t, "extra_content"), "google");
        struct slice signature = json_str(j, json_get(j, google, "thought_signature"), r->scratch);
        if (signature.len > 0)
            k->signature = arena_copy(r->s.arena, signature);
        k->custom = custom;
    }
    struct slice part = json_is(j, args, JSON_OBJECT) ? json_raw(j, args) : json_str(j, args, r->scratch);
    bool wait = c->open && c->open != k && !whole_value(c->open);
    if (!k->given && !wait && k->name.len > 0 && (!close_call(r, c) || !open_call(r, c, k)))
        return false;
    if (part.len > 0 && !k->closed) {
        follow(&k->end, part);
        if (!(k->given ? give(r, c, IR_EV_ARGS, part) : buf_append_slice(&k->held, part)))
            return false;
    }
    return advance_calls(r, c);
}

/* ---- a delta or a message ---- */

static bool text_event(struct reader *r, struct choice *c, enum ir_event_kind kind, struct slice text) {
    if (text.len == 0)
        return true;
    if (kind == IR_EV_REASONING)
        c->reasoning = true;
    else if (!end_reasoning(r, c))
        return false;
    return (!c->open || flush_calls(r, c)) && give(r, c, kind, text);
}

/* OpenRouter's and others' reasoning_details: what is signed or encrypted must come back as it was, so the detail
 * itself is the blob. Their texts stand in `reasoning` as well, or, with Snowflake, here alone. */
static bool read_details(struct reader *r, struct choice *c, const struct json *j, int list, bool said) {
    for (int t = json_items(j, list); t >= 0; t = json_next(j, list, t)) {
        struct slice text = json_str(j, json_get(j, t, "text"), r->scratch);
        if (!said && !text_event(r, c, IR_EV_REASONING, text.ptr ? text : SLICE("")))
            return false;
        if (json_str_len(j, json_get(j, t, "signature")) + json_str_len(j, json_get(j, t, "data")) > 0 &&
            ((c->open && !flush_calls(r, c)) || !end_reasoning_with(r, c, json_span(j, t))))
            return false;
    }
    return true;
}

/* content as parts: text, and Mistral's thinking. */
static bool read_parts(struct reader *r, struct choice *c, const struct json *j, int list) {
    for (int p = json_first(j, list); p >= 0; p = json_next(j, list, p)) {
        int type = json_get(j, p, "type"), inner = json_get(j, p, "thinking");
        bool ok = true;
        if (json_is(j, inner, JSON_ARRAY)) {
            for (int q = json_first(j, inner); q >= 0 && ok; q = json_next(j, inner, q))
                ok = text_event(r, c, IR_EV_REASONING, json_str(j, json_get(j, q, "text"), r->scratch));
        } else if (json_is(j, inner, JSON_STRING)) {
            ok = text_event(r, c, IR_EV_REASONING, json_str(j, inner, r->scratch));
        } else if (json_str_is(j, type, "text") || type < 0) {
            ok = text_event(r, c, IR_EV_TEXT, json_str(j, json_get(j, p, "text"), r->scratch));
        }
        if (!ok)
            return false;
    }
    return true;
}

static bool read_extras(struct reader *r, struct choice *c, const struct json *j, int d) {
    int list = json_get(j, d, "annotations");
    if (json_is(j, list, JSON_ARRAY))
        for (int t = json_first(j, list); t >= 0; t = json_next(j, list, t)) {
            int body = json_get(j, t, "url_citation");
            struct ir_event ev = { .kind = IR_EV_CITATION,
                                   .choice = c->index,
                                   .id = json_str(j, json_get(j, body, "url"), r->scratch),
                                   .name = json_str(j, json_get(j, body, "title"), r->scratch) };
            if (ev.id.len > 0 && !ir_put(r->sink, &ev))
                return false;
        }
    list = json_get(j, d, "images");
    if (json_is(j, list, JSON_ARRAY))
        for (int t = json_first(j, list); t >= 0; t = json_next(j, list, t)) {
            struct ir_event ev = { .kind = IR_EV_IMAGE, .choice = c->index };
            struct slice url = json_str(j, json_get(j, json_get(j, t, "image_url"), "url"), r->scratch);
            if (ir_data_url(r->scratch, url, &ev.media_type, &ev.data) &&
                (!end_reasoning(r, c) || !ir_put(r->sink, &ev)))
                return false;
        }
    return true;
}

static bool read_delta(struct reader *r, struct choice *c, const struct json *j, int d) {
    int content = json_get(j, d, "content"), reasoning = json_get(j, d, "reasoning_content");
    if (!json_is(j, reasoning, JSON_STRING) || json_str_len(j, reasoning) == 0)
        reasoning = json_get(j, d, "reasoning");
    if (!text_event(r, c, IR_EV_REASONING, json_str(j, reasoning, r->scratch)) ||
        !read_details(r, c, j, json_get(j, d, "reasoning_details"), json_str_len(j, reasoning) > 0))
        return false;
    if (json_is(j, content, JSON_ARRAY) ? !read_parts(r, c, j, content)
                                        : !text_event(r, c, IR_EV_TEXT, json_str(j, content, r->scratch)))
        return false;
    if (!text_event(r, c, IR_EV_REFUSAL, json_str(j, json_get(j, d, "refusal"), r->scratch)) ||
        !read_extras(r, c, j, d))
        return false;
    int calls = json_get(j, d, "tool_calls"), legacy = json_get(j, d, "function_call");
    uint32_t place = 0;
    if (json_is(j, calls, JSON_ARRAY))
        for (int t = json_first(j, calls); t >= 0; t = json_next(j, calls, t))
            if (!read_call(r, c, j, t, place++))
                return false;
    if (json_str_len(j, json_get(j, legacy, "name")) + json_str_len(j, json_get(j, legacy, "arguments")) > 0) {
        struct call *k = call_at(r, c, 0, SLICE_NONE, json_str(j, json_get(j, legacy, "name"), r->scratch));
        struct slice args = json_str(j, json_get(j, legacy, "arguments"), r->scratch);
        if (!k || (!k->given && k->name.len > 0 && !open_call(r, c, k)) ||
            (k->given && args.len > 0 && !give(r, c, IR_EV_ARGS, args)))
            return false;
    }
    return true;
}

static enum ir_stop stop_of(struct slice word) {
    static const struct { const char *word; enum ir_stop stop; } words[] = {
        { "stop", IR_STOP_END }, { "eos", IR_STOP_END }, { "length", IR_STOP_LIMIT }, { "max_tokens", IR_STOP_LIMIT },
        { "tool_calls", IR_STOP_TOOLS }, { "function_call", IR_STOP_TOOLS }, { "content_filter", IR_STOP_FILTER },
        { "model_length", IR_STOP_LIMIT },
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (slice_is(word, words[i].word))
            return words[i].stop;
    return IR_STOP_UNKNOWN;
}

static bool read_choice(struct reader *r, const struct json *j, int t, bool whole) {
    uint64_t index;
    if (!json_u64(j, json_get(j, t, "index"), &index) || index >= IR_CHOICES_MAX)
        index = 0;
    struct choice *c = choice_at(r, (uint32_t)index);
    int finish = json_get(j, t, "finish_reason"), body = json_get(j, t, whole ? "message" : "delta");
    if (!c)
        return false;
    if (body < 0)
        body = json_get(j, t, whole ? "delta" : "message");
    struct ir_event list = { .kind = IR_EV_LOGPROBS, .choice = (uint32_t)index };
    int logprobs = json_get(j, json_get(j, t, "logprobs"), "content");
    r->any_choice = true;
    if (!read_delta(r, c, j, body))
        return false;
    if (json_is(j, logprobs, JSON_ARRAY) && json_size(j, logprobs) > 0) {
        list.text = json_span(j, logprobs);
        if (!ir_put(r->sink, &list))
            return false;
    }
    openai_read_usage(j, json_get(j, t, "usage"), &r->usage);
    if (!json_is(j, finish, JSON_STRING) || json_str_len(j, finish) == 0)
        return true;
    c->finished = true;
    c->stop = stop_of(json_str(j, finish, r->scratch));
    return end_reasoning(r, c) && flush_calls(r, c);
}

/* ---- the interface ---- */

static bool truthy(const struct json *j, int t) {
    return t >= 0 && !json_is(j, t, JSON_NULL) && !json_is(j, t, JSON_FALSE) &&
           !(json_is(j, t, JSON_STRING) && json_str_len(j, t) == 0);
}

static enum dialect_result read_object(struct reader *r, const struct json *j, bool whole, struct ir_fault *f) {
    int choices = json_get(j, 0, "choices");
    openai_read_usage(j, json_get(j, json_get(j, 0, "x_groq"), "usage"), &r->usage);
    openai_read_usage(j, json_get(j, 0, "usage"), &r->usage);
    if (truthy(j, json_get(j, 0, "error")) || json_str_is(j, json_get(j, 0, "object"), "error")) {
        struct ir_event cost = { .kind = IR_EV_USAGE, .usage = &r->usage };
        dialect_fault_of(j, 0, 200, r->scratch, f); /* what failed late may have cost */
        return !r->usage.seen || ir_put(r->sink, &cost) ? DIALECT_ERROR : DIALECT_FULL;
    }
    if (!json_is(j, choices, JSON_ARRAY))
        return whole ? DIALECT_BAD : DIALECT_OK;
    if (!r->started && json_first(j, choices) >= 0) { /* Azure's first chunk has no choices, and neither id nor model */
        struct ir_event ev = { .kind = IR_EV_START, .id = json_str(j, json_get(j, 0, "id"), r->scratch),
                               .name = json_str(j, json_get(j, 0, "model"), r->scratch) };
        json_i64(j, json_get(j, 0, "created"), &ev.created_s);
        r->started = true;
        if (!ir_put(r->sink, &ev))
            return DIALECT_FULL;
    }
    for (int t = json_first(j, choices); t >= 0; t = json_next(j, choices, t))
        if (!read_choice(r, j, t, whole))
            return DIALECT_FULL;
    return DIALECT_OK;
}

enum dialect_result openai_event(void *reader, const struct sse_event *ev, struct arena *scratch,
                                 struct ir_sink *sink, struct ir_fault *f) {
    struct reader *r = reader;
    struct json j;
    r->sink = sink;
    r->scratch = scratch;
    if (slice_is(slice_trim(ev->data), "[DONE]")) {
        r->done = true;
        return DIALECT_DONE;
    }
    if (!json_parse(&j, scratch, ev->data.ptr, ev->data.len))
        return DIALECT_BAD;
    if (slice_is(ev->name, "error")) {
        dialect_fault_of(&j, 0, 200, scratch, f);
        return DIALECT_ERROR;
    }
    return read_object(r, &j, false, f);
}

enum dialect_result openai_whole(void *reader, const struct json *j, struct arena *scratch, struct ir_sink *sink,
                                 struct ir_fault *f) {
    struct reader *r = reader;
    r->sink = sink;
    r->scratch = scratch;
    enum dialect_result got = read_object(r, j, true, f);
    r->done = got == DIALECT_OK;
    return got;
}

enum dialect_result openai_end(void *reader, struct arena *scratch, struct ir_sink *sink, struct ir_fault *f) {
    struct reader *r = reader;
    (void)f;
    r->sink = sink;
    r->scratch = scratch;
    if (!r->any_choice)
        return DIALECT_BAD;
    for (struct choice *c = r->choices; c; c = c->next)
        if (!c->finished && !r->done)
            return DIALECT_BAD;
    struct ir_event usage = { .kind = IR_EV_USAGE, .usage = &r->usage };
    if (r->usage.seen && !ir_put(sink, &usage))
        return DIALECT_FULL;
    for (struct choice *c = r->choices; c; c = c->next) {
        struct ir_event finish = { .kind = IR_EV_FINISH, .choice = c->index, .stop = c->stop };
        if (!end_reasoning(r, c) || !flush_calls(r, c) || !ir_put(sink, &finish))
            return DIALECT_FULL;
    }
    return DIALECT_OK;
}
