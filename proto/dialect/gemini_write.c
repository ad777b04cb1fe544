/* Writes a generateContent request: its settings and tools; contents are written by gemini_messages.c.
 *
 * Models differ by generation, read from their names: 3 and later take a thinking level, 2.5 a budget, earlier ones
 * neither; up to 2.5 JSON mode and functions exclude each other, so the schema becomes an instruction there. */
#include "proto/dialect/gemini.h"

static bool has(struct slice s, const char *word) {
    return s.len > 0 && memmem(s.ptr, s.len, word, strlen(word)) != NULL;
}

/* 1 to 2.0: 20, 2.5: 25, 3 and later (and names that say nothing): 30. */
static int generation(struct slice model) {
    if (has(model, "gemini-1") || has(model, "gemini-2.0") || has(model, "gemma"))
        return 20;
    return has(model, "gemini-2.5") || has(model, "gemini-2-5") ? 25 : 30;
}

static void write_system(struct json_writer *w, const struct ir_request *r, bool json_by_words) {
    bool open = false;
    for (const struct ir_turn *turn = r->turns; turn || json_by_words; turn = turn->next) {
        const struct ir_part *p = turn && turn->role == IR_SYSTEM ? turn->parts : NULL;
        bool last = !turn;
        if ((p || last) && !open) {
            jw_key(w, "systemInstruction");
            jw_object(w);
            jw_key(w, "parts");
            jw_array(w);
            open = true;
        }
        for (; p; p = p->next) {
            jw_object(w);
            common_member(w, "text", p->text.ptr ? p->text : SLICE(""));
            jw_end_object(w);
        }
        if (last) {
            jw_object(w);
            jw_key(w, "text");
            jw_str_begin(w);
            jw_str_part(w, SLICE("When you answer without calling a function, answer with one valid JSON object and "
                                 "nothing else."));
            if (r->schema.len > 0) {
                jw_str_part(w, SLICE(" It must satisfy this JSON Schema: "));
                jw_str_part(w, r->schema);
            }
            jw_str_end(w);
            jw_end_object(w);
            break;
        }
    }
    if (open) {
        jw_end_array(w);
        jw_end_object(w);
    }
}

static void write_function(struct json_writer *w, struct ir_request *r, const struct ir_tool *tool,
                           struct ir_dropped *d) {
    bool bent = false;
    struct slice schema = tool->kind == IR_CUSTOM ? slice_str(common_custom_schema) : tool->schema;
    jw_object(w);
    common_member(w, "name", ir_sent_name(r, tool->name, 64, ".:"));
    common_description(w, tool, r->arena);
    struct slice sent = gemini_schema_write(schema, r->arena, &bent);
    if (sent.len > 0 && has(sent, "\"properties\"")) { /* a function without parameters leaves the member out */
        jw_key(w, "parameters");
        jw_raw(w, sent);
    }
    ir_drop_if(d, r, bent, "tools");
    ir_drop_if(d, r, tool->strict, "strict");
    ir_drop_if(d, r, common_grammar_of(tool, r->arena).definition.len > 0, "grammar");
    jw_end_object(w);
}

static void write_choice(struct json_writer *w, struct ir_request *r) {
    if (r->choice == IR_CHOICE_UNSET)
        return;
    bool must = r->choice == IR_CHOICE_REQUIRED || r->choice == IR_CHOICE_ONE ||
                (r->choice == IR_CHOICE_SUBSET && r->choice_required);
    jw_key(w, "toolConfig");
    jw_object(w);
    jw_key(w, "functionCallingConfig");
    jw_object(w);
    common_word(w, "mode", r->choice == IR_CHOICE_NONE ? "NONE" : must ? "ANY" : r->validated ? "VALIDATED" : "AUTO");
    if (must && r->choice != IR_CHOICE_REQUIRED) {
        jw_key(w, "allowedFunctionNames");
        jw_array(w);
        for (const struct ir_text *t = r->choice_names; t; t = t->next)
            jw_str(w, ir_sent_name(r, t->text, 64, ".:"));
        jw_end_array(w);
    }
    jw_end_object(w);
    jw_end_object(w);
}

static bool write_tools(struct json_writer *w, struct ir_request *r, const struct ir_target *t, struct ir_dropped *d,
                        struct ir_fault *f) {
    bool subset = r->choice == IR_CHOICE_SUBSET && !r->choice_required; /* AUTO takes no list of names */
    bool search = common_web_search(r, t) && !ir_has_functions(r);      /* the two exclude each other */
    if (!ir_check_hosted(r, search ? "web_search" : NULL, d, f))
        return false;
    if (search) {
        const struct ir_tool *tool = common_search_tool(r);
        if (r->from != IR_GEMINI && tool->search.allowed.len + tool->search.blocked.len > 0)
            return common_unsearchable(r, tool, f);
        jw_key(w, "tools");
        jw_array(w);
        jw_object(w);
        jw_key(w, "googleSearch");
        jw_raw(w, r->from == IR_GEMINI ? tool->raw : SLICE("{}"));
        jw_end_object(w);
        jw_end_array(w);
        return true;
    }
    if (!ir_has_functions(r))
        return true;
    jw_key(w, "tools");
    jw_array(w);
    jw_object(w);
    jw_key(w, "functionDeclarations");
    jw_array(w);
    for (const struct ir_tool *tool = r->tools; tool; tool = tool->next)
        if (tool->kind != IR_HOSTED && (!subset || ir_chosen(r, tool->name)))
            write_function(w, r, tool, d);
    jw_end_array(w);
    jw_end_object(w);
    jw_end_array(w);
    write_choice(w, r);
    ir_drop_if(d, r, r->parallel == IR_NO, "parallel");
    return true;
}

/* Budgets of 2.5: its own bands; the top ones are the most that its Flash takes, which its Pro takes too. */
static uint64_t budget_of(enum ir_effort e, const struct ir_target *t) {
    static const uint64_t bands[] = { 0, 0, 512, 1024, 8192, 24576, 24576, 24576 };
    return t->budget_count > 0 ? ir_budget_of(e, t) : bands[e];
}

static void write_thinking(struct json_writer *w, const struct ir_request *r, const struct ir_target *t,
                           struct ir_dropped *d) {
    int gen = generation(t->model);
    enum ir_effort e = r->effort != IR_EFFORT_UNSET ? r->effort
                       : r->has_budget              ? ir_effort_of(r->budget)
                                                    : IR_EFFORT_UNSET;
    bool wished = e != IR_EFFORT_UNSET || r->adaptive, think = e != IR_EFFORT_NONE;
    bool show = think && (r->thoughts == IR_YES || (wished && r->thoughts == IR_UNSET));
    if (!wished && !show)
        return;
    if (gen < 25 || t->no_reasoning || ir_stripped(t, "thinkingConfig")) {
        ir_drop_if(d, r, think, "effort");
        return;
    }
    jw_key(w, "thinkingConfig");
    jw_object(w);
    if (show) {
        jw_key(w, "includeThoughts");
        jw_bool(w, true);
    }
    if (gen == 25 && (wished || r->has_budget)) {
        bool pro = has(t->model, "pro"); /* cannot be off there: 128 is the least */
        jw_key(w, "thinkingBudget");
        if (e == IR_EFFORT_UNSET)
            jw_i64(w, -1);
        else
            jw_u64(w, r->has_budget && r->effort == IR_EFFORT_UNSET ? (uint64_t)r->budget
                      : !think                                      ? pro ? 128 : 0
                                                                    : budget_of(e, t));
    } else if (gen > 25 && e != IR_EFFORT_UNSET) {
        bool two = has(t->model, "gemini-3-pro"); /* knows LOW and HIGH alone */
        common_word(w, "thinkingLevel", e <= IR_EFFORT_MINIMAL ? two ? "LOW" : "MINIMAL" : e == IR_EFFORT_LOW ? "LOW" :
                                        e == IR_EFFORT_MEDIUM && !two                      ? "MEDIUM" :
                                        e == IR_EFFORT_XHIGH && r->from == IR_GEMINI       ? "XHIGH" : "HIGH");
    }
    jw_end_object(w);
}

static void write_format(struct json_writer *w, const struct ir_request *r, const struct ir_target *t,
                         struct ir_dropped *d) {
    bool bent = false;
    common_word(w, "responseMimeType", "application/json");
    if (r->format != IR_FORMAT_SCHEMA)
        return;
    if (generation(t->model) > 20) {
        jw_key(w, "responseJsonSchema");
        jw_raw(w, r->schema);
        return;
    }
    struct slice schema = gemini_schema_write(r->schema, r->arena, &bent);
    jw_key(w, "responseSchema");
    jw_raw(w, schema.len > 0 ? schema : SLICE("{\"type\":\"object\"}"));
    ir_drop_if(d, r, bent, "format");
}

static void write_config(struct json_writer *w, const struct ir_request *r, const struct ir_target *t,
                         struct ir_dropped *d, bool json_by_words) {
    uint64_t limit;
    jw_key(w, "generationConfig");
    jw_object(w);
    if (ir_limit(r, t, &limit))
        common_count_member(w, "maxOutputTokens", limit);
    common_number(w, r, t, d, "temperature", "temperature", r->temperature);
    common_number(w, r, t, d, "top_p", "topP", r->top_p);
    common_number(w, r, t, d, "top_k", "topK", r->top_k);
    common_number(w, r, t, d, "seed", "seed", r->seed);
    common_number(w, r, t, d, "presence_penalty", "presencePenalty", r->presence_penalty);
    common_number(w, r, t, d, "frequency_penalty", "frequencyPenalty", r->frequency_penalty);
    if (r->n > 1)
        common_count_member(w, "candidateCount", r->n);
    if (r->logprobs) {
        jw_key(w, "responseLogprobs");
        jw_bool(w, true);
        common_number(w, r, t, d, "logprobs", "logprobs", r->top_logprobs);
    }
    if (r->stop) {
        jw_key(w, "stopSequences");
        jw_array(w);
        for (const struct ir_text *s = r->stop; s; s = s->next)
            jw_str(w, s->text);
        jw_end_array(w);
    }
    if (r->image_out) {
        jw_key(w, "responseModalities");
        jw_raw(w, r->no_text ? SLICE("[\"IMAGE\"]") : SLICE("[\"TEXT\",\"IMAGE\"]"));
    }
    if (r->format != IR_FORMAT_TEXT && !json_by_words)
        write_format(w, r, t, d);
    write_thinking(w, r, t, d);
    jw_end_object(w);
}

bool gemini_write_request(struct ir_request *r, const struct ir_target *t, struct ir_dropped *d, struct buf *out,
                          struct ir_fault *f) {
    struct json_writer w;
    uint32_t stops = 0;
    *f = (struct ir_fault){ 0 };
    for (const struct ir_text *s = r->stop; s; s = s->next)
        stops++;
    if (stops > 5)
        return ir_unsupported(r, f, "stop");
    if (r->audio_out)
        return ir_unsupported(r, f, "audio");
    if (r->n > 8)
        return ir_unsupported(r, f, "n");
    ir_drop_if(d, r, r->cache_key.len > 0, "cache_key");
    bool by_words = r->format != IR_FORMAT_TEXT && ir_has_functions(r) && generation(t->model) <= 25;
    ir_drop_if(d, r, by_words, "format");
    jw_init(&w, out);
    jw_object(&w);
    if (!common_rest(&w, r, IR_GEMINI, NULL, d, f))
        return false;
    write_system(&w, r, by_words);
    if (!gemini_write_contents(&w, r, t, f) || !write_tools(&w, r, t, d, f))
        return false;
    write_config(&w, r, t, d, by_words);
    jw_end_object(&w);
    return (!w.failed && !r->arena->overflow) || common_full(f);
}
