/* The objects of a Responses answer: items, parts, and the response itself with every member that strict clients
 * expect. */
#include "proto/dialect/responses.h"

void responses_write_name(struct json_writer *w, struct slice name) {
    const char *dot = name.len > 0 ? memchr(name.ptr, '.', name.len) : NULL;
    if (!dot) {
        common_member(w, "name", name);
        return;
    }
    size_t n = (size_t)(dot - name.ptr);
    common_member(w, "name", slice_from(name, n + 1));
    common_member(w, "namespace", slice_of(name.ptr, n));
}

/* Ids are the answer's with the item's place: msg_ID1, fc_ID2. */
void responses_write_item_id(struct json_writer *w, const char *name, const struct dialect_writer_settings *s,
                             const struct ir_block *b, uint32_t index) {
    static const char *const heads[] = { "msg_", "msg_", "rs_", "fc_", "ig_" };
    char place[12];
    size_t n = fixed_format(place, index, 0);
    jw_key(w, name);
    jw_str_begin(w);
    jw_str_part(w, slice_str(b->kind == IR_BLOCK_CALL && b->custom ? "ctc_" : heads[b->kind]));
    jw_str_part(w, s->id);
    jw_str_part(w, slice_of(place, n));
    jw_str_end(w);
}

void responses_write_annotation(struct json_writer *w, const struct ir_citation *c) {
    jw_object(w);
    common_word(w, "type", "url_citation");
    common_member(w, "url", c->url);
    common_member(w, "title", c->title.ptr ? c->title : SLICE(""));
    common_count_member(w, "start_index", c->start);
    common_count_member(w, "end_index", c->end);
    jw_end_object(w);
}

void responses_write_logprobs(struct json_writer *w, struct slice list) {
    jw_key(w, "logprobs");
    jw_raw(w, list.len > 0 ? list : SLICE("[]"));
}

/* A part of a message or of a summary; before its end without the text. */
void responses_write_part(struct json_writer *w, const struct ir_block *b, bool done, struct arena *arena) {
    bool text = b->kind == IR_BLOCK_TEXT, refusal = b->kind == IR_BLOCK_REFUSAL;
    jw_object(w);
    common_word(w, "type", text ? "output_text" : refusal ? "refusal" : "summary_text");
    common_member(w, refusal ? "refusal" : "text", done ? b->text : SLICE(""));
    if (text) {
        jw_key(w, "annotations");
        jw_array(w);
        for (const struct ir_citation *c = done ? b->citations : NULL; c; c = c->next)
            responses_write_annotation(w, c);
        jw_end_array(w);
        responses_write_logprobs(w, done ? ir_logprobs(b, arena) : SLICE_NONE);
    }
    jw_end_object(w);
}

static void write_list_of_part(struct json_writer *w, const char *name, const struct ir_block *b, bool done,
                               struct arena *arena) {
    jw_key(w, name);
    jw_array(w);
    if (done && b->text.len > 0)
        responses_write_part(w, b, true, arena);
    jw_end_array(w);
}

void responses_write_item(struct json_writer *w, const struct dialect_writer_settings *s, const struct ir_block *b,
                          uint32_t index, bool done, struct arena *arena) {
    static const char *const types[] = { "message", "message", "reasoning", "function_call", "image_generation_call" };
    bool custom = b->kind == IR_BLOCK_CALL && b->custom;
    jw_object(w);
    responses_write_item_id(w, "id", s, b, index);
    common_word(w, "type", custom ? "custom_tool_call" : types[b->kind]);
    if (b->kind == IR_BLOCK_REASONING) {
        write_list_of_part(w, "summary", b, done, arena);
        if (done && b->blob.kind != IR_BLOB_NONE)
            common_member(w, "encrypted_content", ir_carrier(arena, &b->blob));
        jw_end_object(w);
        return;
    }
    common_word(w, "status", done ? "completed" : "in_progress");
    if (b->kind == IR_BLOCK_TEXT || b->kind == IR_BLOCK_REFUSAL) {
        common_word(w, "role", "assistant");
        write_list_of_part(w, "content", b, done, arena);
    } else if (b->kind == IR_BLOCK_CALL) {
        common_member(w, "call_id", b->id);
        responses_write_name(w, b->name);
        common_member(w, custom ? "input" : "arguments",
                      !done                       ? SLICE("")
                      : b->text.len > 0 || custom ? b->text
                                                  : SLICE("{}"));
    } else {
        common_member(w, "result", done ? b->text : SLICE_NONE);
    }
    jw_end_object(w);
}

void responses_write_usage(struct json_writer *w, const struct meters *m, const struct ir_cost *cost) {
    uint64_t in = meters_input(m), out = meters_output(m);
    jw_object(w);
    common_count_member(w, "input_tokens", in);
    jw_key(w, "input_tokens_details");
    jw_object(w);
    common_count_member(w, "cached_tokens", m->n[METER_CACHED_INPUT]);
    common_count_member(w, "cache_write_tokens", m->n[METER_CACHE_WRITE] + m->n[METER_CACHE_WRITE_1H]);
    jw_end_object(w);
    common_count_member(w, "output_tokens", out);
    jw_key(w, "output_tokens_details");
    jw_object(w);
    common_count_member(w, "reasoning_tokens", m->n[METER_REASONING]);
    jw_end_object(w);
    common_count_member(w, "total_tokens", in + out);
    ir_write_cost(w, cost, false);
    jw_end_object(w);
}

static const struct ir_choice_answer *first_choice(const struct ir_answer *a) {
    static const struct ir_choice_answer nothing;
    return a && a->count > 0 ? &a->choices[0] : &nothing;
}

/* Members that repeat the request, or the API's defaults. */
static void write_echo(struct json_writer *w, const struct ir_request *r) {
    static const struct { const char *name, *otherwise;
    } members[] = {
        { "instructions", "null" },
        { "max_output_tokens", "null" },
        { "metadata", "{}" },
        { "parallel_tool_calls", "true" },
        { "reasoning", "{\"effort\":null,\"summary\":null}" },
        { "temperature", "null" },
        { "text", "{\"format\":{\"type\":\"text\"}}" },
        { "tool_choice", "\"auto\"" },
        { "tools", "[]" },
        { "top_p", "null" },
        { "truncation", "\"disabled\"" },
        { "user", "null" },
        { "prompt_cache_key", "null" },
        { "safety_identifier", "null" },
    };
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        struct slice raw = slice_str(members[i].otherwise);
        for (const struct ir_extra *x = r ? r->echo : NULL; x; x = x->next)
            if (slice_is(x->name, members[i].name) && !slice_is(x->raw, "null"))
                raw = x->raw;
        jw_key(w, members[i].name);
        jw_raw(w, raw);
    }
}

static void write_status(struct json_writer *w, const struct responses_object *o) {
    enum ir_stop stop = first_choice(o->answer)->stop;
    bool filter = stop == IR_STOP_FILTER || stop == IR_STOP_REFUSAL,
         limit = stop == IR_STOP_LIMIT || stop == IR_STOP_CONTEXT;
    bool incomplete = o->status == RESPONSES_ENDED && (filter || limit);
    common_word(w, "status",
                o->status == RESPONSES_IN_PROGRESS ? "in_progress"
                : o->status == RESPONSES_FAILED    ? "failed"
                : incomplete                       ? "incomplete"
                                                   : "completed");
    jw_key(w, "error");
    if (o->status == RESPONSES_FAILED) {
        struct slice code = dialect_code(o->fault);
        jw_object(w);
        common_member(w, "code", o->fault->status == 429 || o->fault->status < 500 ? code : SLICE("server_error"));
        common_member(w, "message", o->fault->message.ptr ? o->fault->message : SLICE(""));
        jw_end_object(w);
    } else {
        jw_null(w);
    }
    jw_key(w, "incomplete_details");
    if (incomplete)
        jw_raw(w, filter ? SLICE("{\"reason\":\"content_filter\"}") : SLICE("{\"reason\":\"max_output_tokens\"}"));
    else
        jw_null(w);
}

void responses_write_object(struct json_writer *w, const struct responses_object *o, struct arena *arena) {
    const struct dialect_writer_settings *s = o->s;
    int64_t created = o->answer && o->answer->created_s > 0 ? o->answer->created_s : s->now_s;
    uint32_t index = 0;
    jw_object(w);
    jw_key(w, "id");
    jw_str_begin(w);
    jw_str_part(w, SLICE("resp_"));
    jw_str_part(w, s->id);
    jw_str_end(w);
    common_word(w, "object", "response");
    jw_key(w, "created_at");
    jw_i64(w, created);
    write_status(w, o);
    common_member(w, "model", s->model);
    jw_key(w, "output");
    jw_array(w);
    const struct ir_block *b = o->status == RESPONSES_IN_PROGRESS ? NULL : first_choice(o->answer)->blocks;
    for (; b; b = b->next)
        responses_write_item(w, s, b, index++, true, arena);
    jw_end_array(w);
    write_echo(w, s->request);
    jw_key(w, "background");
    jw_bool(w, false);
    jw_key(w, "previous_response_id");
    jw_null(w);
    jw_key(w, "access_programs");
    jw_null(w);
    jw_key(w, "store");
    jw_bool(w, false);
    common_word(w, "service_tier", "default");
    jw_key(w, "usage");
    if (o->usage)
        responses_write_usage(w, &o->usage->meters, o->cost);
    else
        jw_null(w);
    jw_end_object(w);
}
