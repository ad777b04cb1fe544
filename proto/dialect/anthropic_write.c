/* Writes a Messages request.
 *
 * The version sent with it is 2023-06-01, which takes sampling members; models that do not are told by the target's
 * strip list. max_tokens is required: without a wish it is the model's own maximum. Thinking comes in two kinds:
 * newer Claude models take `adaptive` with an effort, older ones and other vendors a budget, which must be at least
 * 1024, below max_tokens, and excludes a forced tool, temperature and history whose thinking is not ours; an invalid
 * pair is never sent, thinking is given up for it. */
#include "proto/dialect/anthropic.h"

enum { MIN_BUDGET = 1024, DEFAULT_MAX_TOKENS = 8192 };

enum thinking { THINK_UNSET, THINK_OFF, THINK_ADAPTIVE, THINK_BUDGET };

struct plan {
    enum thinking thinking;
    enum ir_effort effort;
    uint64_t budget, max_tokens;
};

static bool contains(struct slice s, const char *word) {
    return s.len > 0 && memmem(s.ptr, s.len, word, strlen(word)) != NULL;
}

/* Whether the model takes adaptive thinking and an effort. By name, unless the configuration gives budgets. */
static bool is_adaptive(const struct ir_target *t) {
    static const char *const older[] = { "claude-2", "claude-3", "claude-instant", "-4-0", "-4-1", "-4-2025", "-4-5" };
    if (t->budget_count > 0 || !contains(t->model, "claude"))
        return false;
    for (size_t i = 0; i < sizeof older / sizeof *older; i++)
        if (contains(t->model, older[i]))
            return false;
    return true;
}

static bool forced(const struct ir_request *r) {
    return r->choice == IR_CHOICE_REQUIRED || r->choice == IR_CHOICE_ONE ||
           (r->choice == IR_CHOICE_SUBSET && r->choice_required) || r->json_tool;
}

/* Inside a tool loop the assistant's turn must still hold its thinking; if it came from elsewhere, it cannot. */
static bool loop_without_thinking(const struct ir_request *r, const struct ir_target *t) {
    const struct ir_turn *assistant = NULL;
    bool pending = false;
    for (const struct ir_turn *turn = r->turns; turn; turn = turn->next) {
        if (turn->role == IR_ASSISTANT)
            assistant = turn;
        if (turn->role == IR_USER)
            pending = turn->parts && turn->parts->kind == IR_RESULT;
    }
    if (!assistant || !pending)
        return false;
    for (const struct ir_part *p = assistant->parts; p; p = p->next) {
        if (p->kind == IR_REASONING && p->blob.data.len > 0 && ir_blob_fits(&p->blob, IR_ANTHROPIC, t->origin))
            return false;
        if (p->kind == IR_CALL)
            return true;
    }
    return false;
}

static void plan_thinking(const struct ir_request *r, const struct ir_target *t, struct ir_dropped *d, struct plan *p) {
    bool wished = r->adaptive || r->has_budget || r->effort != IR_EFFORT_UNSET;
    bool adaptive = is_adaptive(t);
    ir_drop_if(d, r, r->thoughts == IR_YES && !wished, "thoughts"); /* there are none to show */
    p->effort = r->effort != IR_EFFORT_UNSET ? r->effort : r->has_budget ? ir_effort_of(r->budget) : IR_EFFORT_UNSET;
    if (!wished)
        return;
    static const char *const plain[] = {
        "claude-2", "claude-instant", "claude-3-haiku", "claude-3-sonnet", "claude-3-opus", "claude-3-5", NULL
    };
    if (t->no_reasoning || ir_stripped(t, "thinking") || (!t->reasoning && common_named(t->model, plain))) {
        ir_drop_if(d, r, p->effort != IR_EFFORT_NONE, "effort");
        p->effort = IR_EFFORT_UNSET;
        return;
    }
    if (p->effort == IR_EFFORT_NONE) {
        p->thinking = THINK_OFF;
        p->effort = IR_EFFORT_UNSET;
        return;
    }
    if (r->from == IR_ANTHROPIC && !r->adaptive && !r->has_budget)
        return; /* an effort of its own does not ask for thinking */
    if (adaptive && !(r->from == IR_ANTHROPIC && r->has_budget)) {
        p->thinking = THINK_ADAPTIVE;
        return;
    }
    if (r->has_budget && r->budget > 0)
        p->budget = (uint64_t)r->budget;
    else
        p->budget = ir_budget_of(p->effort == IR_EFFORT_UNSET ? IR_EFFORT_MEDIUM : p->effort, t);
    p->effort = IR_EFFORT_UNSET;
    if (p->budget < MIN_BUDGET)
        p->budget = MIN_BUDGET;
    if (p->budget > p->max_tokens / 4 * 3) /* leaves room for an answer */
        p->budget = p->max_tokens / 4 * 3;
    p->thinking = THINK_BUDGET;
    if (p->budget < MIN_BUDGET || forced(r) || loop_without_thinking(r, t)) {
        p->thinking = THINK_UNSET;
        ir_drop(d, ir_member(r, "effort"));
    }
}

static void write_thinking(struct json_writer *w, const struct ir_request *r, const struct plan *p) {
    if (p->thinking == THINK_UNSET)
        return;
    jw_key(w, "thinking");
    jw_object(w);
    common_word(w, "type",
                p->thinking == THINK_OFF        ? "disabled"
                : p->thinking == THINK_ADAPTIVE ? "adaptive"
                                                : "enabled");
    if (p->thinking == THINK_BUDGET)
        common_count_member(w, "budget_tokens", p->budget);
    if (p->thinking == THINK_ADAPTIVE && (r->from != IR_ANTHROPIC || r->thoughts != IR_UNSET))
        common_word(w, "display", r->thoughts == IR_NO ? "omitted" : "summarized");
    jw_end_object(w);
}

static void write_output_config(struct json_writer *w, const struct ir_request *r, const struct ir_target *t,
                                struct ir_dropped *d, const struct plan *p) {
    bool schema = r->format == IR_FORMAT_SCHEMA && !r->json_tool, effort = p->effort != IR_EFFORT_UNSET, bent = false;
    if (effort && ir_stripped(t, "effort")) {
        ir_drop(d, ir_member(r, "effort"));
        effort = false;
    }
    if (!schema && !effort)
        return;
    jw_key(w, "output_config");
    jw_object(w);
    if (effort)
        common_word(w, "effort", p->effort == IR_EFFORT_MINIMAL ? "low" : ir_effort_name(p->effort));
    if (schema) {
        jw_key(w, "format");
        jw_object(w);
        common_word(w, "type", "json_schema");
        jw_key(w, "schema");
        anthropic_write_schema(w, r->schema, r->arena, &bent);
        ir_drop_if(d, r, bent, "format");
        jw_end_object(w);
    }
    jw_end_object(w);
}

/* temperature is 0–1 here, 0–2 elsewhere; and it must be left out under a thinking budget. */
static void write_sampling(struct json_writer *w, const struct ir_request *r, const struct ir_target *t,
                           struct ir_dropped *d, const struct plan *p) {
    int64_t millionths;
    bool warm = r->temperature.len > 0, thinking = p->thinking == THINK_BUDGET || p->thinking == THINK_ADAPTIVE;
    if (warm && (thinking || ir_stripped(t, "temperature"))) {
        ir_drop(d, ir_member(r, "temperature"));
        warm = false;
    }
    if (warm) {
        struct json j;
        struct json_tok tape[2];
        bool above = json_parse_into(&j, tape, 2, r->temperature.ptr, r->temperature.len) &&
                     json_fixed(&j, 0, 6, &millionths) && millionths > 1000000;
        if (above)
            ir_drop(d, ir_member(r, "temperature"));
        jw_key(w, "temperature");
        jw_raw(w, above ? SLICE("1") : r->temperature);
    }
    if (r->top_p.len > 0 && (warm || thinking)) /* newer models take one of the two */
        ir_drop(d, ir_member(r, "top_p"));
    else
        common_number(w, r, t, d, "top_p", "top_p", r->top_p);
    if (thinking)
        ir_drop_if(d, r, r->top_k.len > 0, "top_k");
    else
        common_number(w, r, t, d, "top_k", "top_k", r->top_k);
    ir_drop_if(d, r, r->seed.len > 0, "seed");
    ir_drop_if(d, r, r->presence_penalty.len > 0, "presence_penalty");
    ir_drop_if(d, r, r->frequency_penalty.len > 0, "frequency_penalty");
    ir_drop_if(d, r, r->cache_key.len > 0, "cache_key");
}

/* All system turns, wherever they stand: the place in mid-conversation is known to few models. */
static void write_system(struct json_writer *w, const struct ir_request *r, uint32_t *marks) {
    bool open = false;
    for (const struct ir_turn *turn = r->turns; turn; turn = turn->next)
        for (const struct ir_part *p = turn->role == IR_SYSTEM ? turn->parts : NULL; p; p = p->next) {
            if (p->kind != IR_TEXT || p->text.len == 0)
                continue;
            if (!open) {
                jw_key(w, "system");
                jw_array(w);
            }
            open = true;
            jw_object(w);
            common_word(w, "type", "text");
            common_member(w, "text", p->text);
            anthropic_write_mark(w, p->cache, marks);
            jw_end_object(w);
        }
    if (r->format == IR_FORMAT_JSON) {
        if (!open) {
            jw_key(w, "system");
            jw_array(w);
        }
        open = true;
        jw_object(w);
        common_word(w, "type", "text");
        common_word(w, "text", "Answer with one valid JSON object and nothing else.");
        jw_end_object(w);
    }
    if (open)
        jw_end_array(w);
}

static void write_tool(struct json_writer *w, struct ir_request *r, struct slice name, const struct ir_tool *tool,
                       uint32_t *marks) {
    bool custom = tool && tool->kind == IR_CUSTOM;
    jw_object(w);
    common_member(w, "name", name);
    if (tool)
        common_description(w, tool, r->arena);
    jw_key(w, "input_schema");
    common_schema(w, r->arena, custom || !tool ? SLICE_NONE : tool->schema,
                  custom ? common_custom_schema : "{\"type\":\"object\",\"properties\":{}}");
    if (tool && tool->strict) {
        jw_key(w, "strict");
        jw_bool(w, true);
    }
    if (tool)
        anthropic_write_mark(w, tool->cache, marks);
    jw_end_object(w);
}

/* Calls in the history of a request that offers no tools: the API wants tools beside them. */
static void declare_history(struct json_writer *w, struct ir_request *r, uint32_t *marks) {
    enum { MOST = 64 };
    struct slice seen[MOST];
    uint32_t count = 0;
    for (const struct ir_turn *turn = r->turns; turn; turn = turn->next)
        for (const struct ir_part *p = turn->parts; p; p = p->next) {
            bool known = p->kind != IR_CALL || count == MOST;
            for (uint32_t i = 0; i < count && !known; i++)
                known = slice_eq(seen[i], p->name);
            if (known)
                continue;
            seen[count++] = p->name;
            write_tool(w, r, ir_sent_name(r, p->name, 64, NULL), NULL, marks);
        }
}

static bool has_calls(const struct ir_request *r) {
    for (const struct ir_turn *turn = r->turns; turn; turn = turn->next)
        for (const struct ir_part *p = turn->parts; p; p = p->next)
            if (p->kind == IR_CALL)
                return true;
    return false;
}

static void write_choice(struct json_writer *w, struct ir_request *r, bool functions) {
    if (r->json_tool) {
        jw_key(w, "tool_choice");
        jw_raw(w, SLICE("{\"type\":\"tool\",\"name\":\"" IR_JSON_TOOL "\"}"));
        return;
    }
    if (!functions || (r->choice == IR_CHOICE_UNSET && r->parallel != IR_NO))
        return;
    bool must = r->choice == IR_CHOICE_REQUIRED || (r->choice == IR_CHOICE_SUBSET && r->choice_required);
    jw_key(w, "tool_choice");
    jw_object(w);
    common_word(w, "type",
                r->choice == IR_CHOICE_ONE    ? "tool"
                : r->choice == IR_CHOICE_NONE ? "none"
                : must                        ? "any"
                                              : "auto");
    if (r->choice == IR_CHOICE_ONE)
        common_member(w, "name", ir_sent_name(r, r->choice_names->text, 64, NULL));
    if (r->parallel == IR_NO && r->choice != IR_CHOICE_NONE) {
        jw_key(w, "disable_parallel_tool_use");
        jw_bool(w, true);
    }
    jw_end_object(w);
}

/* The one search tool, as far as it can be said here. */
static bool write_search(struct json_writer *w, const struct ir_request *r, struct ir_fault *f) {
    const struct ir_tool *tool = common_search_tool(r);
    const struct ir_search *s = &tool->search;
    if (r->from == IR_ANTHROPIC) {
        jw_raw(w, tool->raw);
        return true;
    }
    if (s->allowed.len > 0 && s->blocked.len > 0)
        return common_unsearchable(r, tool, f); /* one of them alone */
    jw_object(w);
    common_word(w, "type", "web_search_20250305");
    common_word(w, "name", "web_search");
    if (s->allowed.len + s->blocked.len > 0) {
        jw_key(w, s->allowed.len > 0 ? "allowed_domains" : "blocked_domains");
        jw_raw(w, s->allowed.len > 0 ? s->allowed : s->blocked);
    }
    common_place(w, s->place, r->arena);
    jw_end_object(w);
    return true;
}

static bool write_tools(struct json_writer *w, struct ir_request *r, const struct ir_target *t, struct ir_dropped *d,
                        uint32_t *marks, struct ir_fault *f) {
    bool functions = ir_has_functions(r), search = common_web_search(r, t),
         history = !functions && !search && has_calls(r);
    if (!ir_check_hosted(r, search ? "web_search" : NULL, d, f))
        return false;
    if (!functions && !history && !search && !r->json_tool)
        return true;
    jw_key(w, "tools");
    jw_array(w);
    for (const struct ir_tool *tool = r->tools; tool; tool = tool->next)
        if (tool->kind != IR_HOSTED && (r->choice != IR_CHOICE_SUBSET || ir_chosen(r, tool->name))) {
            write_tool(w, r, ir_sent_name(r, tool->name, 64, NULL), tool, marks);
            ir_drop_if(d, r, common_grammar_of(tool, r->arena).definition.len > 0, "grammar");
        }
    if (search && !write_search(w, r, f))
        return false;
    if (history)
        declare_history(w, r, marks);
    if (r->json_tool) {
        const struct ir_tool answer = { .schema = r->schema, .description = SLICE("Gives the answer in this form.") };
        write_tool(w, r, SLICE(IR_JSON_TOOL), &answer, marks);
    }
    jw_end_array(w);
    write_choice(w, r, functions || search);
    return true;
}

static bool refuse(const struct ir_request *r, struct ir_fault *f) {
    if (r->n > 1)
        return ir_unsupported(r, f, "n");
    if (r->logprobs)
        return ir_unsupported(r, f, "logprobs");
    if (r->audio_out || r->image_out)
        return ir_unsupported(r, f, "audio");
    for (const struct ir_text *s = r->stop; s; s = s->next) {
        size_t blank = 0;
        while (blank < s->text.len && strchr(" \t\r\n", s->text.ptr[blank]))
            blank++;
        if (blank == s->text.len)
            return ir_refuse(f, "invalid_value", ir_member(r, "stop"),
                             SLICE("This model's provider takes no stop string of white space alone."));
    }
    return true;
}

bool anthropic_write_request(struct ir_request *r, const struct ir_target *t, struct ir_dropped *d, struct buf *out,
                             struct ir_fault *f) {
    struct json_writer w;
    struct plan plan = { 0 };
    uint32_t marks = 0;
    *f = (struct ir_fault){ 0 };
    if (!refuse(r, f))
        return false;
    ir_drop_if(d, r, r->format == IR_FORMAT_JSON, "format");
    r->json_tool = r->format == IR_FORMAT_SCHEMA && ir_stripped(t, "output_config");
    if (!ir_limit(r, t, &plan.max_tokens))
        plan.max_tokens = t->max_output > 0 ? t->max_output : DEFAULT_MAX_TOKENS;
    plan_thinking(r, t, d, &plan);
    jw_init(&w, out);
    jw_object(&w);
    common_member(&w, "model", t->model);
    common_count_member(&w, "max_tokens", plan.max_tokens);
    if (!common_rest(&w, r, IR_ANTHROPIC, NULL, d, f))
        return false;
    if (!write_tools(&w, r, t, d, &marks, f)) /* the order in which the provider caches: tools, system, messages */
        return false;
    write_system(&w, r, &marks);
    if (!anthropic_write_messages(&w, r, t, &marks, f))
        return false;
    write_thinking(&w, r, &plan);
    write_output_config(&w, r, t, d, &plan);
    write_sampling(&w, r, t, d, &plan);
    if (r->stop) {
        jw_key(&w, "stop_sequences");
        jw_array(&w);
        for (const struct ir_text *s = r->stop; s; s = s->next)
            jw_str(&w, s->text);
        jw_end_array(&w);
    }
    if (r->from == IR_ANTHROPIC && r->user.len > 0) {
        jw_key(&w, "metadata");
        jw_object(&w);
        common_member(&w, "user_id", r->user);
        jw_end_object(&w);
    }
    if (r->service_tier.len > 0 && ir_allowed(t, "service_tier"))
        common_member(&w, "service_tier", r->service_tier);
    if (r->stream) {
        jw_key(&w, "stream");
        jw_bool(&w, true);
    }
    jw_end_object(&w);
    return (!w.failed && !r->arena->overflow) || common_full(f);
}
