/* Writes a Responses request, always stateless: store is false and nothing refers to an earlier answer. Reasoning
 * that this very upstream made goes back encrypted, before what it led to; ids of items are left out, only call ids
 * are kept. */
#include "proto/dialect/responses.h"

static bool refuse_media(const struct ir_request *r, struct ir_fault *f, const char *what) {
    return ir_refuse(f, "unsupported_parameter", ir_member(r, "turns"),
                     arena_printf(r->arena, "%s cannot be sent to this model's provider.", what));
}

/* A call id within the length that the API checks; a longer one keeps its head and gets a hash of the whole. */
static struct slice sent_id(struct arena *arena, struct slice id) {
    uint64_t h = 1469598103934665603u;
    if (id.len <= RESPONSES_ID_MAX)
        return id;
    for (size_t i = 0; i < id.len; i++)
        h = (h ^ (unsigned char)id.ptr[i]) * 1099511628211u;
    return arena_printf(arena, "%.*s_%016llx", RESPONSES_ID_MAX - 17, id.ptr, (unsigned long long)h);
}

static void write_text_part(struct json_writer *w, const char *type, const char *member, struct slice text) {
    jw_object(w);
    common_word(w, "type", type);
    common_member(w, member, text.ptr ? text : SLICE(""));
    jw_end_object(w);
}

static bool write_part(struct json_writer *w, const struct ir_request *r, const struct ir_part *p, struct ir_fault *f) {
    switch (p->kind) {
    case IR_TEXT: case IR_REFUSAL:
        write_text_part(w, "input_text", "text", p->text);
        return true;
    case IR_IMAGE:
        jw_object(w);
        common_word(w, "type", "input_image");
        common_data_url(w, "image_url", p);
        common_member(w, "detail", p->detail.len > 0 ? p->detail : SLICE("auto"));
        jw_end_object(w);
        return true;
    case IR_FILE: {
        struct slice head = common_file_head(p, p->text.len > 0, r->arena);
        if (head.len > 0)
            write_text_part(w, "input_text", "text", head);
        if (p->text.len > 0) {
            write_text_part(w, "input_text", "text", p->text);
            return true;
        }
        jw_object(w);
        common_word(w, "type", "input_file");
        if (p->url.len > 0)
            common_member(w, "file_url", p->url);
        else {
            common_member(w, "filename", common_file_name(p, r->arena));
            common_data_url(w, "file_data", p);
        }
        if (p->detail.len > 0)
            common_member(w, "detail", p->detail);
        jw_end_object(w);
        return true;
    }
    case IR_AUDIO: return refuse_media(r, f, "Audio");
    case IR_VIDEO: return refuse_media(r, f, "Video");
    default: return true;
    }
}

static bool write_result(struct json_writer *w, const struct ir_request *r, const struct ir_part *p,
                         struct ir_fault *f) {
    bool media = false;
    for (const struct ir_part *q = p->parts; q; q = q->next)
        media = media || (q->kind != IR_TEXT && q->kind != IR_REFUSAL);
    jw_object(w);
    common_word(w, "type", p->custom ? "custom_tool_call_output" : "function_call_output");
    common_member(w, "call_id", sent_id(r->arena, p->id));
    jw_key(w, "output");
    if (!media) {
        jw_str_begin(w);
        if (p->is_error)
            jw_str_part(w, SLICE("[error] "));
        jw_str_part(w, ir_join_text(r->arena, p->parts, "\n"));
        jw_str_end(w);
    } else {
        jw_array(w);
        if (p->is_error)
            write_text_part(w, "input_text", "text", SLICE("[error]"));
        for (const struct ir_part *q = p->parts; q; q = q->next)
            if (!write_part(w, r, q, f))
                return false;
        jw_end_array(w);
    }
    jw_end_object(w);
    return true;
}

static bool write_user(struct json_writer *w, const struct ir_request *r, const struct ir_turn *turn,
                       struct ir_fault *f) {
    const struct ir_part *p = turn->parts;
    for (; p && p->kind == IR_RESULT; p = p->next)
        if (!write_result(w, r, p, f))
            return false;
    if (!p)
        return true;
    jw_object(w);
    common_word(w, "type", "message");
    common_word(w, "role", "user");
    jw_key(w, "content");
    jw_array(w);
    for (; p; p = p->next)
        if (!write_part(w, r, p, f))
            return false;
    jw_end_array(w);
    jw_end_object(w);
    return true;
}

static void write_reasoning(struct json_writer *w, const struct ir_part *p, const struct ir_target *t) {
    if (!ir_blob_fits(&p->blob, IR_RESPONSES, t->origin) || p->blob.data.len == 0)
        return;
    jw_object(w);
    common_word(w, "type", "reasoning");
    jw_key(w, "summary");
    jw_array(w);
    if (p->text.len > 0)
        write_text_part(w, "summary_text", "text", p->text);
    jw_end_array(w);
    common_member(w, "encrypted_content", p->blob.data);
    jw_end_object(w);
}

static void write_call(struct json_writer *w, struct ir_request *r, const struct ir_part *p) {
    jw_object(w);
    common_word(w, "type", p->custom ? "custom_tool_call" : "function_call");
    common_member(w, "call_id", sent_id(r->arena, p->id));
    common_member(w, "name", ir_sent_name(r, p->name, 64, NULL));
    if (p->custom)
        common_member(w, "input", p->text.ptr ? p->text : SLICE(""));
    else
        common_member(w, "arguments", p->text.len > 0 ? p->text : SLICE("{}"));
    jw_end_object(w);
}

/* What an assistant said goes as a plain string: items of the API's own kind need an id. */
static bool write_assistant(struct json_writer *w, struct ir_request *r, const struct ir_turn *turn,
                            const struct ir_target *t, struct ir_fault *f) {
    for (const struct ir_part *p = turn->parts; p; p = p->next) {
        if (p->kind == IR_REASONING)
            write_reasoning(w, p, t);
        else if (p->kind == IR_CALL)
            write_call(w, r, p);
        else if (p->kind != IR_TEXT && p->kind != IR_REFUSAL)
            return refuse_media(r, f, "What a model made that is no text");
        else {
            jw_object(w);
            common_word(w, "type", "message");
            common_word(w, "role", "assistant");
            common_member(w, "content", p->text);
            if (p->phase.len > 0)
                common_member(w, "phase", p->phase);
            jw_end_object(w);
        }
    }
    return true;
}

static bool write_input(struct json_writer *w, struct ir_request *r, const struct ir_target *t, struct ir_fault *f) {
    const struct ir_turn *turn = r->turns;
    if (turn->role == IR_SYSTEM) {
        common_member(w, "instructions", ir_join_text(r->arena, turn->parts, "\n\n"));
        turn = turn->next;
    }
    jw_key(w, "input");
    jw_array(w);
    for (; turn; turn = turn->next) {
        if (turn->role != IR_SYSTEM) {
            if (turn->role == IR_ASSISTANT ? !write_assistant(w, r, turn, t, f) : !write_user(w, r, turn, f))
                return false;
        } else {
            jw_object(w);
            common_word(w, "type", "message");
            common_word(w, "role", "developer");
            common_member(w, "content", ir_join_text(r->arena, turn->parts, "\n\n"));
            jw_end_object(w);
        }
    }
    jw_end_array(w);
    return true;
}

static void write_tool(struct json_writer *w, struct ir_request *r, const struct ir_tool *tool) {
    bool custom = tool->kind == IR_CUSTOM;
    jw_object(w);
    common_word(w, "type", custom ? "custom" : "function");
    common_member(w, "name", ir_sent_name(r, tool->name, 64, NULL));
    if (tool->description.len > 0)
        common_member(w, "description", tool->description);
    if (custom) {
        struct common_grammar g = common_grammar_of(tool, r->arena);
        if (g.definition.len > 0) {
            jw_key(w, "format");
            jw_object(w);
            common_word(w, "type", "grammar");
            common_member(w, "syntax", g.syntax.ptr ? g.syntax : SLICE("lark"));
            common_member(w, "definition", g.definition);
            jw_end_object(w);
        }
    } else {
        jw_key(w, "parameters");
        common_schema(w, r->arena, tool->schema, "{\"type\":\"object\",\"properties\":{}}");
        jw_key(w, "strict"); /* the API's own default is true, which not every schema satisfies */
        jw_bool(w, tool->strict);
    }
    jw_end_object(w);
}

static void write_choice(struct json_writer *w, struct ir_request *r) {
    if (r->choice == IR_CHOICE_UNSET)
        return;
    bool must = r->choice == IR_CHOICE_REQUIRED || (r->choice == IR_CHOICE_SUBSET && r->choice_required);
    jw_key(w, "tool_choice");
    if (r->choice != IR_CHOICE_ONE) {
        jw_cstr(w, r->choice == IR_CHOICE_NONE ? "none" : must ? "required" : "auto");
        return;
    }
    const struct ir_tool *tool = ir_tool_named(r, r->choice_names->text);
    jw_object(w);
    if (tool && tool->kind == IR_HOSTED) { /* this kind cannot be named alone */
        common_word(w, "type", "allowed_tools");
        common_word(w, "mode", "required");
        jw_key(w, "tools");
        jw_raw(w, SLICE("[{\"type\":\"web_search\"}]"));
        jw_end_object(w);
        return;
    }
    common_word(w, "type", tool && tool->kind == IR_CUSTOM ? "custom" : "function");
    common_member(w, "name", ir_sent_name(r, r->choice_names->text, 64, NULL));
    jw_end_object(w);
}

/* The one search tool, as far as it can be said here. */
static bool write_search(struct json_writer *w, const struct ir_request *r, struct ir_fault *f) {
    const struct ir_tool *tool = common_search_tool(r);
    const struct ir_search *s = &tool->search;
    if (r->from == IR_RESPONSES) {
        jw_raw(w, tool->raw);
        return true;
    }
    if (s->blocked.len > 0)
        return common_unsearchable(r, tool, f);
    jw_object(w);
    common_word(w, "type", "web_search");
    if (s->allowed.len > 0) {
        jw_key(w, "filters");
        jw_object(w);
        jw_key(w, "allowed_domains");
        jw_raw(w, s->allowed);
        jw_end_object(w);
    }
    if (s->depth.len > 0)
        common_member(w, "search_context_size", s->depth);
    common_place(w, s->place, r->arena);
    jw_end_object(w);
    return true;
}

static bool write_tools(struct json_writer *w, struct ir_request *r, const struct ir_target *t, struct ir_dropped *d,
                        struct ir_fault *f) {
    bool search = common_web_search(r, t);
    if (!ir_check_hosted(r, search ? "web_search" : NULL, d, f))
        return false;
    if (!ir_has_functions(r) && !search)
        return true;
    jw_key(w, "tools");
    jw_array(w);
    for (const struct ir_tool *tool = r->tools; tool; tool = tool->next)
        if (tool->kind != IR_HOSTED && (r->choice != IR_CHOICE_SUBSET || ir_chosen(r, tool->name)))
            write_tool(w, r, tool);
    if (search && !write_search(w, r, f))
        return false;
    jw_end_array(w);
    write_choice(w, r);
    if (r->parallel != IR_UNSET) {
        jw_key(w, "parallel_tool_calls");
        jw_bool(w, r->parallel == IR_YES);
    }
    return true;
}

static void write_text(struct json_writer *w, const struct ir_request *r) {
    if (r->format == IR_FORMAT_TEXT && r->verbosity.len == 0)
        return;
    jw_key(w, "text");
    jw_object(w);
    if (r->verbosity.len > 0)
        common_member(w, "verbosity", r->verbosity);
    if (r->format == IR_FORMAT_TEXT) {
        jw_end_object(w);
        return;
    }
    jw_key(w, "format");
    jw_object(w);
    common_word(w, "type", r->format == IR_FORMAT_JSON ? "json_object" : "json_schema");
    if (r->format == IR_FORMAT_SCHEMA) {
        common_member(w, "name", r->schema_name.len > 0 ? r->schema_name : SLICE("response"));
        if (r->schema_description.len > 0)
            common_member(w, "description", r->schema_description);
        jw_key(w, "schema");
        jw_raw(w, r->schema);
        jw_key(w, "strict");
        jw_bool(w, r->schema_strict);
    }
    jw_end_object(w);
    jw_end_object(w);
}

/* Whether the model reasons, by the configuration or its name: others refuse the wish, and the request for encrypted
 * reasoning. */
static bool may_reason(const struct ir_target *t) {
    static const char *const names[] = { "gpt-5", "gpt-6", "codex", "o1", "o3", "o4", NULL };
    if (t->no_reasoning || ir_stripped(t, "reasoning"))
        return false;
    return t->reasoning || (common_named(t->model, names) && !memmem(t->model.ptr, t->model.len, "-chat-", 6));
}

static void write_include(struct json_writer *w, const struct ir_request *r, bool encrypted) {
    if (!encrypted && !r->logprobs)
        return;
    jw_key(w, "include");
    jw_array(w);
    if (encrypted)
        jw_cstr(w, "reasoning.encrypted_content");
    if (r->logprobs)
        jw_cstr(w, "message.output_text.logprobs");
    jw_end_array(w);
}

static void write_reasoning_wish(struct json_writer *w, const struct ir_request *r, const struct ir_target *t,
                                 struct ir_dropped *d) {
    enum ir_effort effort = r->effort != IR_EFFORT_UNSET ? r->effort
                            : r->has_budget              ? ir_effort_of(r->budget)
                                                         : IR_EFFORT_UNSET;
    bool wished = effort != IR_EFFORT_UNSET || r->adaptive, think = effort != IR_EFFORT_NONE;
    bool show = think && (r->thoughts == IR_YES || (wished && r->from == IR_ANTHROPIC && r->thoughts != IR_NO));
    if (!may_reason(t)) {
        ir_drop_if(d, r, wished && think, "effort");
        write_include(w, r, false);
        return;
    }
    if (effort != IR_EFFORT_UNSET || show) {
        jw_key(w, "reasoning");
        jw_object(w);
        if (effort != IR_EFFORT_UNSET)
            common_word(w, "effort", ir_effort_name(effort));
        if (show)
            common_word(w, "summary", "auto");
        jw_end_object(w);
    }
    write_include(w, r, true);
}

static void write_settings(struct json_writer *w, const struct ir_request *r, const struct ir_target *t,
                           struct ir_dropped *d) {
    uint64_t limit;
    if (ir_limit(r, t, &limit))
        common_count_member(w, "max_output_tokens", limit < 16 ? 16 : limit); /* the API's own least */
    common_number(w, r, t, d, "temperature", "temperature", r->temperature);
    common_number(w, r, t, d, "top_p", "top_p", r->top_p);
    if (r->logprobs)
        common_number(w, r, t, d, "logprobs", "top_logprobs", r->top_logprobs);
    ir_drop_if(d, r, r->top_k.len > 0, "top_k");
    ir_drop_if(d, r, r->seed.len > 0, "seed");
    ir_drop_if(d, r, r->presence_penalty.len > 0, "presence_penalty");
    ir_drop_if(d, r, r->frequency_penalty.len > 0, "frequency_penalty");
    write_text(w, r);
    write_reasoning_wish(w, r, t, d);
    if (r->cache_key.len > 0)
        common_member(w, "prompt_cache_key", r->cache_key);
    if (common_sister(r->from, IR_RESPONSES) && r->user.len > 0)
        common_member(w, "user", r->user);
    if (r->service_tier.len > 0 && ir_allowed(t, "service_tier"))
        common_member(w, "service_tier", r->service_tier);
}

bool responses_write_request(struct ir_request *r, const struct ir_target *t, struct ir_dropped *d, struct buf *out,
                             struct ir_fault *f) {
    /* of Chat Completions' */
    static const char *const shared[] = { "metadata", "safety_identifier", "prompt_cache_retention",
                                          "prompt_cache_options", "moderation", NULL };
    struct json_writer w;
    *f = (struct ir_fault){ 0 };
    if (r->n > 1)
        return ir_unsupported(r, f, "n");
    if (r->stop)
        return ir_unsupported(r, f, "stop");
    if (r->audio_out || r->image_out)
        return ir_unsupported(r, f, "audio");
    jw_init(&w, out);
    jw_object(&w);
    if (!common_rest(&w, r, IR_RESPONSES, r->from == IR_OPENAI ? shared : NULL, d, f))
        return false;
    common_member(&w, "model", t->model);
    if (!write_input(&w, r, t, f) || !write_tools(&w, r, t, d, f))
        return false;
    write_settings(&w, r, t, d);
    jw_key(&w, "store");
    jw_bool(&w, false);
    if (r->stream) {
        jw_key(&w, "stream");
        jw_bool(&w, true);
    }
    jw_end_object(&w);
    return (!w.failed && !r->arena->overflow) || common_full(f);
}
