/* The legacy completions as a client's dialect: the prompt becomes a user's message, the rest reads as Chat
 * Completions; the answer's text goes out as choices[].text. It is only ever a client's: where an OpenAI-compatible
 * provider is behind, the request passes instead.
 *
 * What a conversation cannot express is refused: several prompts, token ids, suffix, echo. best_of and logprobs are
 * dropped and reported. Reasoning has no place in such an answer and is left out; a refusal's words are its text. */
#include "proto/dialect/openai.h"

struct choice {
    enum ir_stop stop;
    bool begun;
};

struct writer {
    struct dialect_writer_settings s;
    struct choice *choices;
    uint32_t count;
    int64_t created_s;
};

/* ---- request ---- */

static bool unsupported(struct ir_fault *f, const char *param, const char *text) {
    return ir_refuse(f, "unsupported_parameter", slice_str(param), slice_str(text));
}

/* The one text of a prompt: its token, or -1. */
static int one_prompt(const struct json *j, int prompt) {
    int first = json_first(j, prompt);
    if (json_is(j, prompt, JSON_STRING))
        return prompt;
    return json_is(j, prompt, JSON_ARRAY) && json_is(j, first, JSON_STRING) && json_next(j, prompt, first) < 0 ? first
                                                                                                               : -1;
}

/* The same request as a conversation, in the arena. */
static struct slice as_chat(const struct json *j, int prompt, struct ir_request *r) {
    struct buf b;
    struct json_writer w;
    buf_init(&b, r->arena->pages, 2 * j->len + PAGE_BYTES);
    jw_init(&w, &b);
    jw_object(&w);
    jw_key(&w, "messages");
    jw_array(&w);
    jw_object(&w);
    jw_key(&w, "role");
    jw_cstr(&w, "user");
    jw_key(&w, "content");
    jw_raw(&w, json_span(j, prompt));
    jw_end_object(&w);
    jw_end_array(&w);
    for (int k = json_first(j, 0); k >= 0; k = json_next(j, 0, k)) {
        if (json_str_is(j, k, "prompt") || json_str_is(j, k, "suffix") || json_str_is(j, k, "echo") ||
            json_str_is(j, k, "messages") || json_str_is(j, k, "logprobs"))
            continue;
        jw_key_slice(&w, json_str(j, k, r->arena));
        jw_raw(&w, json_span(j, k + 1));
    }
    jw_end_object(&w);
    struct slice text = w.failed ? SLICE_NONE : arena_copy(r->arena, buf_slice(&b));
    buf_release(&b);
    return text;
}

static bool read_request(const struct json *j, const struct dialect_path *path, struct ir_request *r,
                         struct ir_fault *f) {
    int prompt = one_prompt(j, json_get(j, 0, "prompt")), logprobs = json_get(j, 0, "logprobs");
    struct json *chat = arena_alloc(r->arena, sizeof *chat);
    if (prompt < 0)
        return unsupported(f, "prompt", "This model takes one prompt, as text.");
    if (json_is(j, json_get(j, 0, "echo"), JSON_TRUE))
        return unsupported(f, "echo", "This model cannot repeat its prompt.");
    if (json_str_len(j, json_get(j, 0, "suffix")) > 0)
        return unsupported(f, "suffix", "This model cannot fill in before a suffix.");
    struct slice text = as_chat(j, prompt, r);
    if (chat == NULL || text.ptr == NULL || !json_parse(chat, r->arena, text.ptr, text.len))
        return ir_refuse(f, "invalid_value", SLICE_NONE, SLICE("The request is too large."));
    if (logprobs >= 0 && !json_is(j, logprobs, JSON_NULL))
        ir_note(r, SLICE("logprobs"));
    return openai_read_request(chat, path, r, f);
}

static bool write_path(struct slice model, bool stream, struct buf *out) {
    (void)model, (void)stream;
    return buf_append_slice(out, SLICE("/completions"));
}

/* ---- answers ---- */

static void *open_writer(const struct dialect_writer_settings *s) {
    struct writer *w = arena_zalloc(s->arena, sizeof *w);
    if (w == NULL)
        return NULL;
    w->s = *s;
    w->created_s = s->now_s;
    w->count = s->request && s->request->n > 1 && s->request->n <= IR_CHOICES_MAX ? (uint32_t)s->request->n : 1;
    w->choices = arena_zalloc(s->arena, w->count * sizeof *w->choices);
    return w->choices ? w : NULL;
}

static void close_writer(void *writer) { (void)writer; }

static const char *finish_word(enum ir_stop stop) {
    switch (stop) {
    case IR_STOP_LIMIT:
    case IR_STOP_CONTEXT: return "length";
    case IR_STOP_FILTER:
    case IR_STOP_REFUSAL: return "content_filter";
    default: return "stop";
    }
}

static void write_head(struct json_writer *j, const struct dialect_writer_settings *s, int64_t created_s) {
    jw_object(j);
    jw_key(j, "id");
    jw_str_begin(j);
    jw_str_part(j, s->id_prefix.len > 0 ? s->id_prefix : SLICE("cmpl-"));
    jw_str_part(j, s->id);
    jw_str_end(j);
    common_word(j, "object", "text_completion");
    jw_key(j, "created");
    jw_i64(j, created_s);
    common_member(j, "model", s->model);
    jw_key(j, "choices");
    jw_array(j);
}

static void write_choice(struct json_writer *j, uint32_t index, const char *finish) {
    common_count_member(j, "index", index);
    jw_key(j, "logprobs");
    jw_null(j);
    jw_key(j, "finish_reason");
    jw_str(j, slice_str(finish));
    jw_end_object(j);
}

static void write_usage(struct json_writer *j, const struct ir_usage *u, const struct ir_cost *cost) {
    uint64_t in = meters_input(&u->meters), out = meters_output(&u->meters);
    jw_key(j, "usage");
    jw_object(j);
    common_count_member(j, "prompt_tokens", in);
    common_count_member(j, "completion_tokens", out);
    common_count_member(j, "total_tokens", in + out);
    ir_write_cost(j, cost, false);
    jw_end_object(j);
}

static bool put(void *writer, const struct ir_event *ev, struct arena *scratch, struct buf *out) {
    struct writer *w = writer;
    struct json_writer j;
    (void)scratch;
    if (ev->choice >= w->count)
        return true;
    if (ev->kind == IR_EV_START && ev->created_s > 0)
        w->created_s = ev->created_s;
    w->choices[ev->choice].begun = true;
    if (ev->kind == IR_EV_FINISH)
        w->choices[ev->choice].stop = ev->stop;
    if (ev->kind != IR_EV_TEXT && ev->kind != IR_EV_REFUSAL)
        return true;
    common_event_begin(out, NULL);
    jw_init(&j, out);
    write_head(&j, &w->s, w->created_s);
    jw_object(&j);
    common_member(&j, "text", ev->text);
    write_choice(&j, ev->choice, NULL);
    jw_end_array(&j);
    if (w->s.request && w->s.request->wants_usage) {
        jw_key(&j, "usage");
        jw_null(&j);
    }
    jw_end_object(&j);
    return common_event_end(out, &j);
}

static bool finish(void *writer, const struct ir_usage *u, const struct ir_cost *cost, struct arena *scratch,
                   struct buf *out) {
    struct writer *w = writer;
    struct json_writer j;
    bool asked = w->s.request && w->s.request->wants_usage, ok = true;
    uint32_t last = 0;
    (void)scratch;
    for (uint32_t i = 0; i < w->count; i++)
        last = w->choices[i].begun ? i : last;
    for (uint32_t i = 0; i <= last; i++) {
        common_event_begin(out, NULL);
        jw_init(&j, out);
        write_head(&j, &w->s, w->created_s);
        jw_object(&j);
        common_word(&j, "text", "");
        write_choice(&j, i, finish_word(w->choices[i].stop));
        jw_end_array(&j);
        if (i == last && !asked)
            write_usage(&j, u, cost);
        jw_end_object(&j);
        ok = common_event_end(out, &j) && ok;
    }
    if (asked) {
        common_event_begin(out, NULL);
        jw_init(&j, out);
        write_head(&j, &w->s, w->created_s);
        jw_end_array(&j);
        write_usage(&j, u, cost);
        jw_end_object(&j);
        ok = common_event_end(out, &j) && ok;
    }
    return buf_append(out, "data: [DONE]\n\n", 14) && ok;
}

static bool write_answer(const struct ir_answer *a, const struct dialect_writer_settings *s, const struct ir_usage *u,
                         const struct ir_cost *cost, struct buf *out, struct ir_fault *f) {
    struct json_writer j;
    (void)f;
    jw_init(&j, out);
    write_head(&j, s, a->created_s > 0 ? a->created_s : s->now_s);
    for (uint32_t i = 0; i < a->count; i++) {
        jw_object(&j);
        jw_key(&j, "text");
        jw_str_begin(&j);
        for (const struct ir_block *b = a->choices[i].blocks; b; b = b->next)
            if (b->kind == IR_BLOCK_TEXT || b->kind == IR_BLOCK_REFUSAL)
                jw_str_part(&j, b->text);
        jw_str_end(&j);
        write_choice(&j, i, finish_word(a->choices[i].stop));
    }
    jw_end_array(&j);
    write_usage(&j, u, cost);
    jw_end_object(&j);
    return !j.failed && !a->arena->overflow;
}

const struct dialect dialect_completions = {
    .name = "completions",
    .id = IR_OPENAI,
    .read_request = read_request,
    .write_request = openai_write_request,
    .write_path = write_path,
    .reader = openai_reader,
    .event = openai_event,
    .whole = openai_whole,
    .end = openai_end,
    .close_reader = openai_close_reader,
    .writer = open_writer,
    .put = put,
    .finish = finish,
    .fail = openai_fail,
    .close_writer = close_writer,
    .ping = ": ping\n\n",
    .array_ping = ": ping\n\n",
    .content_type = "text/event-stream",
    .write_answer = write_answer,
    .write_error = dialect_write_openai_error,
    .read_usage = openai_read_usage,
};
