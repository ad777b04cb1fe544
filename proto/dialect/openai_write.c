/* Writes a Chat Completions request for a model behind OpenAI or a compatible server.
 *
 * What changes the meaning and has no place here is refused (media that chat cannot carry, more than four stop
 * strings); what tunes is dropped and reported. Members that only OpenAI itself knows go to models of OpenAI's names
 * alone, because compatible servers answer 400 to what they do not know. */
#include "proto/dialect/openai.h"

static bool of_openai(struct slice model) {
    static const char *const names[] = { "gpt", "chatgpt", "o1", "o3", "o4", "codex", NULL };
    return common_named(model, names);
}

/* Servers answer 400 to a wish for reasoning that a model does not know, and agents wish for it on every call: it is
 * sent where the model is known to reason, by the configuration or by OpenAI's own names. */
static bool may_reason(const struct ir_target *t) {
    static const char *const plain[] = { "gpt-3", "gpt-4", "chatgpt", NULL };
    if (t->no_reasoning || ir_stripped(t, "reasoning_effort"))
        return false;
    return t->reasoning || (of_openai(t->model) && !common_named(t->model, plain));
}

static bool refuse_media(const struct ir_request *r, struct ir_fault *f, const char *what) {
    return ir_refuse(f, "unsupported_parameter", ir_member(r, "turns"),
                     arena_printf(r->arena, "%s cannot be sent to this model's provider.", what));
}

static void write_text_part(struct json_writer *w, struct slice text) {
    jw_object(w);
    common_word(w, "type", "text");
    common_member(w, "text", text.ptr ? text : SLICE(""));
    jw_end_object(w);
}

static bool write_part(struct json_writer *w, const struct ir_request *r, const struct ir_part *p, struct ir_fault *f) {
    switch (p->kind) {
    case IR_TEXT: case IR_REFUSAL:
        write_text_part(w, p->text);
        return true;
    case IR_IMAGE:
        jw_object(w);
        common_word(w, "type", "image_url");
        jw_key(w, "image_url");
        jw_object(w);
        common_data_url(w, "url", p);
        if (p->detail.len > 0)
            common_member(w, "detail", p->detail);
        jw_end_object(w);
        jw_end_object(w);
        return true;
    case IR_AUDIO:
        if (p->data.len == 0 || (!slice_is(p->media_type, "audio/mpeg") && !slice_is(p->media_type, "audio/mp3") &&
                                 !slice_is(p->media_type, "audio/wav") && !slice_is(p->media_type, "audio/x-wav")))
            return refuse_media(r, f, "Audio other than wav and mp3");
        jw_object(w);
        common_word(w, "type", "input_audio");
        jw_key(w, "input_audio");
        jw_object(w);
        common_member(w, "data", p->data);
        common_word(w, "format", memmem(p->media_type.ptr, p->media_type.len, "wav", 3) ? "wav" : "mp3");
        jw_end_object(w);
        jw_end_object(w);
        return true;
    case IR_FILE: {
        struct slice head = common_file_head(p, p->text.len > 0, r->arena);
        if (head.len > 0)
            write_text_part(w, head);
        if (p->text.len > 0) {
            write_text_part(w, p->text);
            return true;
        }
        if (p->data.len == 0)
            return refuse_media(r, f, "A file by its URL");
        jw_object(w);
        common_word(w, "type", "file");
        jw_key(w, "file");
        jw_object(w);
        common_member(w, "filename", common_file_name(p, r->arena));
        common_data_url(w, "file_data", p);
        jw_end_object(w);
        jw_end_object(w);
        return true;
    }
    case IR_VIDEO: return refuse_media(r, f, "Video");
    default: return true;
    }
}

static bool plain_text(const struct ir_part *p) {
    uint32_t n = 0;
    for (; p; p = p->next)
        if (p->kind != IR_RESULT && (n++ > 0 || (p->kind != IR_TEXT && p->kind != IR_REFUSAL)))
            return false;
    return true;
}

/* `content` of a user's message: a string where it is one text, which every server takes; else parts. */
static bool write_content(struct json_writer *w, const struct ir_request *r, const struct ir_part *p,
                          struct ir_fault *f) {
    jw_key(w, "content");
    while (p && p->kind == IR_RESULT)
        p = p->next;
    if (plain_text(p)) {
        jw_str(w, p ? p->text : SLICE(""));
        return true;
    }
    jw_array(w);
    for (; p; p = p->next)
        if (!write_part(w, r, p, f))
            return false;
    jw_end_array(w);
    return true;
}

static void message_begin(struct json_writer *w, const char *role) {
    jw_object(w);
    common_word(w, "role", role);
}

/* A tool message takes text alone: *rest counts what must follow in a user message. */
static void write_result(struct json_writer *w, const struct ir_request *r, const struct ir_part *p, uint32_t *rest) {
    struct slice text = ir_join_text(r->arena, p->parts, "\n");
    for (const struct ir_part *q = p->parts; q; q = q->next)
        *rest += q->kind != IR_TEXT && q->kind != IR_REFUSAL;
    message_begin(w, "tool");
    common_member(w, "tool_call_id", p->id);
    jw_key(w, "content");
    jw_str_begin(w);
    if (p->is_error)
        jw_str_part(w, SLICE("[error] "));
    jw_str_part(w, text);
    jw_str_end(w);
    jw_end_object(w);
}

/* Pictures and files of results, each behind a line that names the call, then the turn's own parts. */
static bool write_user_with_rest(struct json_writer *w, const struct ir_request *r, const struct ir_turn *t,
                                 struct ir_fault *f) {
    message_begin(w, "user");
    jw_key(w, "content");
    jw_array(w);
    for (const struct ir_part *p = t->parts; p; p = p->next) {
        bool named = false;
        for (const struct ir_part *q = p->kind == IR_RESULT ? p->parts : NULL; q; q = q->next) {
            if (q->kind == IR_TEXT || q->kind == IR_REFUSAL)
                continue;
            if (!named)
                write_text_part(w, arena_printf(r->arena, "Result of the tool call %.*s:", SLICE_ARG(p->id)));
            named = true;
            if (!write_part(w, r, q, f))
                return false;
        }
        if (p->kind != IR_RESULT && !write_part(w, r, p, f))
            return false;
    }
    jw_end_array(w);
    jw_end_object(w);
    return true;
}

static bool write_user(struct json_writer *w, const struct ir_request *r, const struct ir_turn *t, struct ir_fault *f) {
    uint32_t rest = 0;
    const struct ir_part *p = t->parts;
    for (; p && p->kind == IR_RESULT; p = p->next)
        write_result(w, r, p, &rest);
    if (rest > 0)
        return write_user_with_rest(w, r, t, f);
    if (!p)
        return true;
    message_begin(w, "user");
    if (!write_content(w, r, p, f))
        return false;
    jw_end_object(w);
    return true;
}

static void write_call(struct json_writer *w, struct ir_request *r, const struct ir_target *t,
                       const struct ir_part *p) {
    struct slice args = p->text;
    struct ir_fault unused;
    if (p->custom)
        ir_call_object(r, p, &args, &unused);
    jw_object(w);
    common_member(w, "id", p->id);
    common_word(w, "type", "function");
    jw_key(w, "function");
    jw_object(w);
    common_member(w, "name", ir_sent_name(r, p->name, 64, NULL));
    common_member(w, "arguments", args.len > 0 ? args : SLICE("{}"));
    jw_end_object(w);
    if (p->blob.data.len > 0 && ir_blob_fits(&p->blob, IR_OPENAI, t->origin)) {
        jw_key(w, "extra_content");
        jw_object(w);
        jw_key(w, "google");
        jw_object(w);
        common_member(w, "thought_signature", p->blob.data);
        jw_end_object(w);
        jw_end_object(w);
    }
    jw_end_object(w);
}

/* A detail as the server gave it; a text's signature came with a piece of the text alone, it goes with all of it. */
static void write_detail(struct json_writer *w, struct arena *arena, const struct ir_part *p) {
    struct json j;
    if (!json_parse(&j, arena, p->blob.data.ptr, p->blob.data.len) || !json_is(&j, 0, JSON_OBJECT))
        return;
    bool text = json_get(&j, 0, "text") >= 0;
    jw_object(w);
    for (int k = json_first(&j, 0); k >= 0; k = json_next(&j, 0, k)) {
        if (json_str_is(&j, k, "text"))
            continue;
        jw_key_slice(w, json_str(&j, k, arena));
        jw_raw(w, json_span(&j, k + 1));
    }
    if (text)
        common_member(w, "text", p->text.ptr ? p->text : SLICE(""));
    jw_end_object(w);
}

/* Reasoning goes back only to the server whose own it is (DeepSeek's thinking mode demands it); OpenAI knows no such
 * member. What that server signed or encrypted goes back as details, other texts as text. */
static void write_reasoning(struct json_writer *w, struct arena *arena, const struct ir_turn *turn,
                            const struct ir_target *t) {
    bool open = false, details = false;
    for (const struct ir_part *p = turn->parts; p; p = p->next) {
        if (p->kind != IR_REASONING || p->blob.data.len == 0 || !ir_blob_fits(&p->blob, IR_OPENAI, t->origin))
            continue;
        if (!details) {
            jw_key(w, "reasoning_details");
            jw_array(w);
        }
        details = true;
        write_detail(w, arena, p);
    }
    if (details)
        jw_end_array(w);
    for (const struct ir_part *p = details ? NULL : turn->parts; p; p = p->next) {
        if (p->kind != IR_REASONING || p->text.len == 0 || !ir_blob_fits(&p->blob, IR_OPENAI, t->origin))
            continue;
        if (!open) {
            jw_key(w, "reasoning_content");
            jw_str_begin(w);
        }
        open = true;
        jw_str_part(w, p->text);
    }
    if (open)
        jw_str_end(w);
}

static bool write_assistant(struct json_writer *w, struct ir_request *r, const struct ir_turn *turn,
                            const struct ir_target *t, struct ir_fault *f) {
    bool calls = false, text = false;
    for (const struct ir_part *p = turn->parts; p; p = p->next) {
        calls = calls || p->kind == IR_CALL;
        text = text || p->kind == IR_TEXT || p->kind == IR_REFUSAL;
        if (p->kind >= IR_IMAGE && p->kind <= IR_FILE)
            return refuse_media(r, f, "What a model made that is no text");
    }
    if (!calls && !text)
        return true;
    message_begin(w, "assistant");
    jw_key(w, "content");
    jw_str(w, text ? ir_join_text(r->arena, turn->parts, "") : SLICE_NONE);
    write_reasoning(w, r->arena, turn, t);
    if (calls) {
        jw_key(w, "tool_calls");
        jw_array(w);
        for (const struct ir_part *p = turn->parts; p; p = p->next)
            if (p->kind == IR_CALL)
                write_call(w, r, t, p);
        jw_end_array(w);
    }
    jw_end_object(w);
    return true;
}

static bool write_messages(struct json_writer *w, struct ir_request *r, const struct ir_target *t, struct ir_fault *f) {
    jw_key(w, "messages");
    jw_array(w);
    for (const struct ir_turn *turn = r->turns; turn; turn = turn->next) {
        if (turn->role == IR_SYSTEM) {
            message_begin(w, "system");
            common_member(w, "content", ir_join_text(r->arena, turn->parts, "\n\n"));
            jw_end_object(w);
        } else if (turn->role == IR_ASSISTANT ? !write_assistant(w, r, turn, t, f) : !write_user(w, r, turn, f)) {
            return false;
        }
    }
    jw_end_array(w);
    return true;
}

static void write_tool(struct json_writer *w, struct ir_request *r, const struct ir_tool *tool) {
    jw_object(w);
    common_word(w, "type", "function");
    jw_key(w, "function");
    jw_object(w);
    common_member(w, "name", ir_sent_name(r, tool->name, 64, NULL));
    common_description(w, tool, r->arena);
    if (tool->kind == IR_CUSTOM || tool->schema.len > 0) {
        jw_key(w, "parameters");
        common_schema(w, r->arena, tool->kind == IR_CUSTOM ? SLICE_NONE : tool->schema,
                      tool->kind == IR_CUSTOM ? common_custom_schema : "{\"type\":\"object\",\"properties\":{}}");
    }
    if (tool->strict) {
        jw_key(w, "strict");
        jw_bool(w, true);
    }
    jw_end_object(w);
    jw_end_object(w);
}

static void write_choice(struct json_writer *w, struct ir_request *r) {
    if (r->choice == IR_CHOICE_UNSET)
        return;
    jw_key(w, "tool_choice");
    if (r->choice == IR_CHOICE_ONE) {
        jw_object(w);
        common_word(w, "type", "function");
        jw_key(w, "function");
        jw_object(w);
        common_member(w, "name", ir_sent_name(r, r->choice_names->text, 64, NULL));
        jw_end_object(w);
        jw_end_object(w);
        return;
    }
    bool must = r->choice == IR_CHOICE_REQUIRED || (r->choice == IR_CHOICE_SUBSET && r->choice_required);
    jw_cstr(w, r->choice == IR_CHOICE_NONE ? "none" : must ? "required" : "auto");
}

/* A subset goes as the tools that it names: allowed_tools is known to OpenAI alone. */
static bool write_tools(struct json_writer *w, struct ir_request *r, struct ir_dropped *d, struct ir_fault *f) {
    if (!ir_check_hosted(r, NULL, d, f))
        return false;
    if (!ir_has_functions(r))
        return true;
    jw_key(w, "tools");
    jw_array(w);
    for (const struct ir_tool *tool = r->tools; tool; tool = tool->next)
        if (tool->kind != IR_HOSTED && (r->choice != IR_CHOICE_SUBSET || ir_chosen(r, tool->name))) {
            write_tool(w, r, tool);
            ir_drop_if(d, r, common_grammar_of(tool, r->arena).definition.len > 0, "grammar");
        }
    jw_end_array(w);
    write_choice(w, r);
    if (r->parallel != IR_UNSET) {
        jw_key(w, "parallel_tool_calls");
        jw_bool(w, r->parallel == IR_YES);
    }
    return true;
}

static void write_format(struct json_writer *w, const struct ir_request *r) {
    if (r->format == IR_FORMAT_TEXT)
        return;
    jw_key(w, "response_format");
    jw_object(w);
    common_word(w, "type", r->format == IR_FORMAT_JSON ? "json_object" : "json_schema");
    if (r->format == IR_FORMAT_SCHEMA) {
        jw_key(w, "json_schema");
        jw_object(w);
        common_member(w, "name", r->schema_name.len > 0 ? r->schema_name : SLICE("response"));
        if (r->schema_description.len > 0)
            common_member(w, "description", r->schema_description);
        jw_key(w, "schema");
        jw_raw(w, r->schema);
        if (r->schema_strict) {
            jw_key(w, "strict");
            jw_bool(w, true);
        }
        jw_end_object(w);
    }
    jw_end_object(w);
}

static void write_settings(struct json_writer *w, const struct ir_request *r, const struct ir_target *t,
                           struct ir_dropped *d) {
    uint64_t limit;
    bool own = of_openai(t->model);
    if (ir_limit(r, t, &limit)) {
        jw_key_slice(w, t->limit_field.len > 0 ? t->limit_field
                        : own                  ? SLICE("max_completion_tokens")
                                               : SLICE("max_tokens"));
        jw_u64(w, limit);
    }
    common_number(w, r, t, d, "temperature", "temperature", r->temperature);
    common_number(w, r, t, d, "top_p", "top_p", r->top_p);
    common_number(w, r, t, d, "seed", "seed", r->seed);
    common_number(w, r, t, d, "presence_penalty", "presence_penalty", r->presence_penalty);
    common_number(w, r, t, d, "frequency_penalty", "frequency_penalty", r->frequency_penalty);
    ir_drop_if(d, r, r->top_k.len > 0, "top_k");
    if (r->n > 1)
        common_count_member(w, "n", r->n);
    if (r->logprobs) {
        jw_key(w, "logprobs");
        jw_bool(w, true);
        common_number(w, r, t, d, "logprobs", "top_logprobs", r->top_logprobs);
    }
    enum ir_effort effort = r->effort != IR_EFFORT_UNSET ? r->effort
                            : r->has_budget              ? ir_effort_of(r->budget)
                                                         : IR_EFFORT_UNSET;
    bool wished = effort != IR_EFFORT_UNSET || r->adaptive;
    ir_drop_if(d, r, own && r->thoughts == IR_YES, "thoughts"); /* OpenAI's chat shows none */
    if (wished && !may_reason(t))
        ir_drop_if(d, r, effort != IR_EFFORT_NONE, "effort");
    else if (effort != IR_EFFORT_UNSET && (own || effort != IR_EFFORT_NONE))
        common_word(w, "reasoning_effort", ir_effort_name(effort));
    if (own && r->cache_key.len > 0)
        common_member(w, "prompt_cache_key", r->cache_key);
    else
        ir_drop_if(d, r, r->cache_key.len > 0, "cache_key");
    if (common_sister(r->from, IR_OPENAI) && r->user.len > 0)
        common_member(w, "user", r->user);
    if (r->verbosity.len > 0 && (own || r->from == IR_OPENAI))
        common_member(w, "verbosity", r->verbosity);
    else
        ir_drop_if(d, r, r->verbosity.len > 0, "verbosity");
    if (r->image_out) {
        jw_key(w, "modalities");
        jw_raw(w, r->no_text ? SLICE("[\"image\"]") : SLICE("[\"image\",\"text\"]"));
    }
    if (r->service_tier.len > 0 && ir_allowed(t, "service_tier"))
        common_member(w, "service_tier", r->service_tier);
    write_format(w, r);
}

bool openai_write_request(struct ir_request *r, const struct ir_target *t, struct ir_dropped *d, struct buf *out,
                          struct ir_fault *f) {
    /* of Responses' */
    static const char *const shared[] = { "metadata", "safety_identifier", "prompt_cache_retention", "moderation",
                                          NULL };
    bool sisters = r->from == IR_RESPONSES && of_openai(t->model);
    struct json_writer w;
    uint32_t stops = 0;
    *f = (struct ir_fault){ 0 };
    for (const struct ir_text *s = r->stop; s; s = s->next)
        stops++;
    if (stops > 4)
        return ir_unsupported(r, f, "stop");
    if (r->audio_out || (r->image_out && of_openai(t->model))) /* pictures come from compatible servers alone */
        return ir_unsupported(r, f, "audio");
    jw_init(&w, out);
    jw_object(&w);
    if (!common_rest(&w, r, IR_OPENAI, sisters ? shared : NULL, d, f))
        return false;
    common_member(&w, "model", t->model);
    if (!write_messages(&w, r, t, f) || !write_tools(&w, r, d, f))
        return false;
    write_settings(&w, r, t, d);
    if (r->stop && ir_stripped(t, "stop"))
        return ir_unsupported(r, f, "stop");
    if (r->stop) {
        jw_key(&w, "stop");
        jw_array(&w);
        for (const struct ir_text *s = r->stop; s; s = s->next)
            jw_str(&w, s->text);
        jw_end_array(&w);
    }
    if (r->stream) {
        jw_key(&w, "stream");
        jw_bool(&w, true);
        jw_key(&w, "stream_options");
        jw_object(&w);
        jw_key(&w, "include_usage");
        jw_bool(&w, true);
        jw_end_object(&w);
    }
    jw_end_object(&w);
    return (!w.failed && !r->arena->overflow) || common_full(f);
}
