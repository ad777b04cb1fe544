/* An OpenAI chat provider in process (contract: the `echo` upstream).
 *
 * What it answers, in this order: a quotation of the tool results when the conversation ends in one; a call of the
 * first or the chosen tool where `tools` is sent and tool_choice is not none; JSON where response_format asks for it;
 * else the last user message. The output limit is honoured at four bytes a token, stop strings and n as OpenAI does.
 * A stream is written whole: the caller decides how fast its events leave.
 *
 * The request was validated before; whatever is odd in it still is ignored here. The only failure is a full buffer or
 * arena. */
#include "proto/echo.h"

#include "proto/base/crypto.h"

enum { BYTES_PER_TOKEN = 4, MAX_CHOICES = 128, MAX_PIECES = 512, MAX_TEXT = 8 << 20 };

enum answer_kind { ANSWER_TEXT, ANSWER_CALL, ANSWER_CUSTOM_CALL };

struct answer {
    enum answer_kind kind;
    struct slice text; /* what is said, or the arguments of the call */
    struct slice tool;
    const char *finish;
    bool legacy; /* /v1/completions */
    uint64_t prompt_tokens, completion_tokens, n;
    struct slice model, id;
    int64_t created_s;
};

/* The text of a content: a string, or the text of its parts. */
static void add_text(const struct json *j, int content, struct arena *arena, struct buf *out) {
    if (json_is(j, content, JSON_STRING))
        buf_append_slice(out, json_str(j, content, arena));
    else if (json_is(j, content, JSON_ARRAY))
        for (int p = json_first(j, content); p >= 0; p = json_next(j, content, p)) {
            if (json_is(j, p, JSON_STRING)) /* `prompt` as a list */
                buf_append_slice(out, json_str(j, p, arena));
            else
                buf_append_slice(out, json_str(j, json_get(j, p, "text"), arena));
        }
}

/* Bytes of text that went in: contents and the arguments of earlier calls. */
static uint64_t prompt_bytes(const struct json *j, int messages) {
    uint64_t n = 0;
    for (int m = json_first(j, messages); m >= 0; m = json_next(j, messages, m)) {
        int content = json_get(j, m, "content"), calls = json_get(j, m, "tool_calls");
        n += json_str_len(j, content);
        if (json_is(j, content, JSON_ARRAY))
            for (int p = json_first(j, content); p >= 0; p = json_next(j, content, p))
                n += json_str_len(j, json_get(j, p, "text"));
        if (json_is(j, calls, JSON_ARRAY))
            for (int c = json_first(j, calls); c >= 0; c = json_next(j, calls, c))
                n += json_str_len(j, json_get(j, json_get(j, c, "function"), "arguments"));
    }
    return n;
}

/* The text of the last user message, or of all tool messages that end the conversation (*tool: it ends so). */
static void read_last(const struct json *j, int messages, struct arena *arena, struct buf *out, bool *tool) {
    int last_user = -1, first_tool = -1;
    for (int m = json_first(j, messages); m >= 0; m = json_next(j, messages, m)) {
        int role = json_get(j, m, "role");
        bool is_tool = json_str_is(j, role, "tool") || json_str_is(j, role, "function");
        if (json_str_is(j, role, "user"))
            last_user = m;
        first_tool = !is_tool ? -1 : first_tool < 0 ? m : first_tool;
    }
    *tool = first_tool >= 0;
    if (!*tool) {
        if (last_user >= 0)
            add_text(j, json_get(j, last_user, "content"), arena, out);
        return;
    }
    for (int m = first_tool; m >= 0; m = json_next(j, messages, m)) {
        if (m != first_tool)
            buf_append(out, " ", 1);
        add_text(j, json_get(j, m, "content"), arena, out);
    }
}

/* The definition inside a tools entry: {type:"function",function:{…}} or {type:"custom",custom:{…}}; -1: neither. */
static int tool_body(const struct json *j, int tool, bool *custom) {
    int body = json_get(j, tool, "custom");
    *custom = body >= 0;
    return body >= 0 ? body : json_get(j, tool, "function");
}

/* The name that a tool_choice object asks for: a named tool, or the first of allowed_tools. */
static int chosen_name(const struct json *j, int choice) {
    bool custom;
    int allowed = json_get(j, json_get(j, choice, "allowed_tools"), "tools");
    if (json_is(j, allowed, JSON_ARRAY) && json_first(j, allowed) >= 0)
        choice = json_first(j, allowed);
    return json_get(j, tool_body(j, choice, &custom), "name");
}

/* The tool to call: the chosen one, else the first; -1: none may be called. */
static int pick_tool(const struct json *j, struct arena *arena, bool *custom) {
    int tools = json_get(j, 0, "tools"), choice = json_get(j, 0, "tool_choice");
    if (!json_is(j, tools, JSON_ARRAY) || json_str_is(j, choice, "none"))
        return -1;
    struct slice want = json_str(j, chosen_name(j, choice), arena);
    for (int t = json_first(j, tools); t >= 0; t = json_next(j, tools, t)) {
        int body = tool_body(j, t, custom), name = json_get(j, body, "name");
        if (json_is(j, name, JSON_STRING) && (!want.ptr || slice_eq(json_str(j, name, arena), want)))
            return body;
    }
    return -1;
}

/* Cuts text to a number of bytes without breaking a UTF-8 character. */
static struct slice cut(struct slice s, size_t n) {
    if (s.len <= n)
        return s;
    while (n > 0 && ((unsigned char)s.ptr[n] & 0xc0) == 0x80)
        n--;
    return slice_of(s.ptr, n);
}

static struct slice cut_at_stop(struct slice text, struct slice stop) {
    const char *at = stop.len > 0 && text.len > 0 ? memmem(text.ptr, text.len, stop.ptr, stop.len) : NULL;
    return at ? slice_of(text.ptr, (size_t)(at - text.ptr)) : text;
}

static void apply_limits(const struct json *j, struct arena *arena, struct answer *a) {
    int stop = json_get(j, 0, "stop");
    if (a->kind == ANSWER_TEXT && json_is(j, stop, JSON_STRING))
        a->text = cut_at_stop(a->text, json_str(j, stop, arena));
    else if (a->kind == ANSWER_TEXT && json_is(j, stop, JSON_ARRAY))
        for (int t = json_first(j, stop); t >= 0; t = json_next(j, stop, t))
            a->text = cut_at_stop(a->text, json_str(j, t, arena));
    uint64_t limit;
    if (!json_u64(j, json_get(j, 0, "max_completion_tokens"), &limit) &&
        !json_u64(j, json_get(j, 0, "max_tokens"), &limit))
        return;
    if (limit < a->text.len / BYTES_PER_TOKEN + 1 && limit * BYTES_PER_TOKEN < a->text.len) {
        a->text = cut(a->text, (size_t)limit * BYTES_PER_TOKEN);
        a->finish = "length";
    }
}

/* Decides what is answered; its text is made in `text`, which must outlive the answer. */
static void compose(const struct json *j, struct arena *arena, struct buf *text, struct answer *a) {
    int messages = json_get(j, 0, "messages"), prompt = json_get(j, 0, "prompt");
    int format = json_get(j, 0, "response_format"), schema = json_get(j, json_get(j, format, "json_schema"), "schema");
    bool after_tool = false, custom = false;
    struct buf said;
    buf_init(&said, text->pages, MAX_TEXT);
    a->legacy = messages < 0 && prompt >= 0;
    if (a->legacy)
        add_text(j, prompt, arena, &said);
    else
        read_last(j, messages, arena, &said, &after_tool);
    a->prompt_tokens = ((a->legacy ? said.len : prompt_bytes(j, messages)) + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN;
    a->finish = "stop";
    int tool = a->legacy || after_tool ? -1 : pick_tool(j, arena, &custom);
    if (tool >= 0) {
        a->kind = custom ? ANSWER_CUSTOM_CALL : ANSWER_CALL;
        a->finish = "tool_calls";
        a->tool = json_str(j, json_get(j, tool, "name"), arena);
        if (custom)
            buf_append_slice(text, buf_slice(&said));
        else
            echo_sample(j, json_get(j, tool, "parameters"), arena, text);
    } else if (json_str_is(j, json_get(j, format, "type"), "json_schema") && schema >= 0) {
        echo_sample(j, schema, arena, text);
    } else if (json_str_is(j, json_get(j, format, "type"), "json_object")) {
        struct json_writer w;
        jw_init(&w, text);
        jw_object(&w);
        jw_key(&w, "echo");
        jw_str(&w, buf_slice(&said));
        jw_end_object(&w);
    } else {
        buf_append_slice(text, after_tool ? SLICE("The tool answered: ") : SLICE("Echo: "));
        buf_append_slice(text, buf_slice(&said));
    }
    a->text = buf_slice(text);
    buf_release(&said);
    apply_limits(j, arena, a);
    if (!json_u64(j, json_get(j, 0, "n"), &a->n) || a->n < 1)
        a->n = 1;
    if (a->n > MAX_CHOICES)
        a->n = MAX_CHOICES;
    a->completion_tokens = (a->text.len + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN * a->n;
}

/* ---- writing ---- */

static void write_head(struct json_writer *w, const struct answer *a, bool stream) {
    jw_object(w);
    jw_key(w, "id");
    jw_str(w, a->id);
    jw_key(w, "object");
    jw_cstr(w, a->legacy ? "text_completion" : stream ? "chat.completion.chunk" : "chat.completion");
    jw_key(w, "created");
    jw_i64(w, a->created_s);
    jw_key(w, "model");
    jw_str(w, a->model);
}

static void write_usage(struct json_writer *w, const struct answer *a) {
    jw_key(w, "usage");
    jw_object(w);
    jw_key(w, "prompt_tokens");
    jw_u64(w, a->prompt_tokens);
    jw_key(w, "completion_tokens");
    jw_u64(w, a->completion_tokens);
    jw_key(w, "total_tokens");
    jw_u64(w, a->prompt_tokens + a->completion_tokens);
    jw_end_object(w);
}

/* `tool_calls` with the one call; in a stream's first fragment without its arguments (args NULL ptr writes ""). */
static void write_call(struct json_writer *w, const struct answer *a, uint64_t choice, struct slice args, bool stream) {
    bool custom = a->kind == ANSWER_CUSTOM_CALL;
    uint64_t tag = hash64(a->id.ptr, a->id.len, choice);
    char id[32] = "call_";
    static const char digits[] = "0123456789abcdefghijklmnopqrstuv";
    for (int i = 0; i < 12; i++)
        id[5 + i] = digits[tag >> (5 * i) & 31];
    jw_key(w, "tool_calls");
    jw_array(w);
    jw_object(w);
    if (stream) {
        jw_key(w, "index");
        jw_u64(w, 0);
    }
    jw_key(w, "id");
    jw_cstr(w, id);
    jw_key(w, "type");
    jw_cstr(w, custom ? "custom" : "function");
    jw_key(w, custom ? "custom" : "function");
    jw_object(w);
    jw_key(w, "name");
    jw_str(w, a->tool);
    jw_key(w, custom ? "input" : "arguments");
    jw_str(w, args.ptr ? args : SLICE(""));
    jw_end_object(w);
    jw_end_object(w);
    jw_end_array(w);
}

static void write_whole(struct json_writer *w, const struct answer *a) {
    write_head(w, a, false);
    jw_key(w, "choices");
    jw_array(w);
    for (uint64_t i = 0; i < a->n; i++) {
        jw_object(w);
        jw_key(w, "index");
        jw_u64(w, i);
        if (a->legacy) {
            jw_key(w, "text");
            jw_str(w, a->text);
        } else {
            jw_key(w, "message");
            jw_object(w);
            jw_key(w, "role");
            jw_cstr(w, "assistant");
            jw_key(w, "content");
            jw_str(w, a->kind == ANSWER_TEXT ? a->text : SLICE_NONE);
            jw_key(w, "refusal");
            jw_null(w);
            if (a->kind != ANSWER_TEXT)
                write_call(w, a, i, a->text, false);
            jw_end_object(w);
        }
        jw_key(w, "logprobs");
        jw_null(w);
        jw_key(w, "finish_reason");
        jw_cstr(w, a->finish);
        jw_end_object(w);
    }
    jw_end_array(w);
    write_usage(w, a);
    jw_end_object(w);
}

enum piece { PIECE_ROLE, PIECE_CALL, PIECE_PART, PIECE_FINISH };

static void write_delta(struct json_writer *w, const struct answer *a, enum piece piece, uint64_t choice,
                        struct slice part) {
    jw_object(w);
    if (piece == PIECE_ROLE) {
        jw_key(w, "role");
        jw_cstr(w, "assistant");
        jw_key(w, "content");
        jw_str(w, a->kind == ANSWER_TEXT ? SLICE("") : SLICE_NONE);
        jw_key(w, "refusal");
        jw_null(w);
    } else if (piece == PIECE_CALL) {
        write_call(w, a, choice, SLICE_NONE, true);
    } else if (piece == PIECE_PART && a->kind == ANSWER_TEXT) {
        jw_key(w, "content");
        jw_str(w, part);
    } else if (piece == PIECE_PART) {
        bool custom = a->kind == ANSWER_CUSTOM_CALL;
        jw_key(w, "tool_calls");
        jw_array(w);
        jw_object(w);
        jw_key(w, "index");
        jw_u64(w, 0);
        jw_key(w, custom ? "custom" : "function");
        jw_object(w);
        jw_key(w, custom ? "input" : "arguments");
        jw_str(w, part);
        jw_end_object(w);
        jw_end_object(w);
        jw_end_array(w);
    }
    jw_end_object(w);
}

static bool write_chunk(struct buf *out, const struct answer *a, enum piece piece, uint64_t choice, struct slice part,
                        bool usage) {
    struct json_writer w;
    buf_append(out, "data: ", 6);
    jw_init(&w, out);
    write_head(&w, a, true);
    jw_key(&w, "choices");
    jw_array(&w);
    jw_object(&w);
    jw_key(&w, "index");
    jw_u64(&w, choice);
    if (a->legacy) {
        jw_key(&w, "text");
        jw_str(&w, part.ptr ? part : SLICE(""));
    } else {
        jw_key(&w, "delta");
        write_delta(&w, a, piece, choice, part);
    }
    jw_key(&w, "logprobs");
    jw_null(&w);
    jw_key(&w, "finish_reason");
    jw_str(&w, piece == PIECE_FINISH ? slice_str(a->finish) : SLICE_NONE);
    jw_end_object(&w);
    jw_end_array(&w);
    if (usage) {
        jw_key(&w, "usage");
        jw_null(&w);
    }
    jw_end_object(&w);
    return buf_append(out, "\n\n", 2) && !w.failed;
}

/* The next word with the white space behind it; at least `least` bytes, so that a long text does not become countless
 * chunks. */
static struct slice next_word(struct slice rest, size_t least) {
    size_t n = least < rest.len ? least : rest.len;
    while (n < rest.len && rest.ptr[n] != ' ' && rest.ptr[n] != '\n' && rest.ptr[n] != ',')
        n++;
    while (n < rest.len && (rest.ptr[n] == ' ' || rest.ptr[n] == '\n' || rest.ptr[n] == ','))
        n++;
    return cut(rest, n);
}

static bool write_stream(struct buf *out, const struct answer *a, bool usage) {
    size_t least = a->text.len / MAX_PIECES;
    bool ok = true;
    for (uint64_t i = 0; i < a->n && !a->legacy; i++)
        ok = ok && write_chunk(out, a, PIECE_ROLE, i, SLICE_NONE, usage);
    for (uint64_t i = 0; i < a->n; i++) {
        if (a->kind != ANSWER_TEXT)
            ok = ok && write_chunk(out, a, PIECE_CALL, i, SLICE_NONE, usage);
        for (struct slice rest = a->text; rest.len > 0 && ok;) {
            struct slice word = next_word(rest, least);
            ok = write_chunk(out, a, PIECE_PART, i, word, usage);
            rest = slice_from(rest, word.len);
        }
        ok = ok && write_chunk(out, a, PIECE_FINISH, i, SLICE_NONE, usage);
    }
    if (usage) {
        struct json_writer w;
        buf_append(out, "data: ", 6);
        jw_init(&w, out);
        write_head(&w, a, true);
        jw_key(&w, "choices");
        jw_array(&w);
        jw_end_array(&w);
        write_usage(&w, a);
        jw_end_object(&w);
        ok = ok && buf_append(out, "\n\n", 2) && !w.failed;
    }
    return ok && buf_append(out, "data: [DONE]\n\n", 14);
}

bool echo_answer(const struct json *req, struct slice model, int64_t created_s, struct slice id, struct arena *arena,
                 struct buf *out, bool *stream) {
    struct answer a = { .model = model, .id = id, .created_s = created_s };
    struct buf text;
    bool usage = false, ok;
    buf_init(&text, out->pages, MAX_TEXT);
    *stream = false;
    json_bool(req, json_get(req, 0, "stream"), stream);
    json_bool(req, json_get(req, json_get(req, 0, "stream_options"), "include_usage"), &usage);
    compose(req, arena, &text, &a);
    if (*stream)
        ok = write_stream(out, &a, usage);
    else {
        struct json_writer w;
        jw_init(&w, out);
        write_whole(&w, &a);
        ok = !w.failed;
    }
    buf_release(&text);
    return ok && !arena->overflow;
}
