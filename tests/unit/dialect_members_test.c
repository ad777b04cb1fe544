/* What becomes of a request's members on their way to another dialect: carried, bent, reported or refused, never lost
 * in silence. The first test puts an unknown member into every object of the fixtures and looks for a word about it;
 * the second is a table of decisions that changed an answer, or a provider's mind, when they were other ones; the third
 * is about the words for an answer's end. Run from the root of the tree. */
#include "dialect_fixture.h"

static const struct dialect *named(const char *name) {
    for (uint32_t i = 0; i < IR_DIALECTS; i++)
        if (strcmp(dialect_find(i)->name, name) == 0)
            return dialect_find(i);
    fail_msg("no dialect %s", name);
    return NULL;
}

/* The body that goes out, then a line of what was dropped; or "refused PARAM". */
static struct slice sent(const struct dialect *from, const struct dialect *to, struct slice body, const char *model) {
    static const char *const models[] = { "gpt-5", "gpt-5", "claude-sonnet-4-6", "gemini-3-flash" };
    static const struct slice allow[] = { { "web_search", 10 }, { "service_tier", 12 } };
    const struct dialect_path path = { .model = { "m", 1 }, .sse = true };
    const struct ir_target t = { .model = slice_str(*model ? model : models[to->id]), .origin = 7, .max_output = 8192,
                                 .allow = allow, .allow_count = 2 };
    struct json *j = arena_alloc(&arena, sizeof *j);
    struct ir_request r;
    struct ir_fault f = { 0 };
    struct ir_dropped d = { 0 };
    struct json out;
    buf_consume(&text, text.len);
    if (!json_parse(j, &arena, body.ptr, body.len))
        fail_msg("%.*s: %s at %zu", SLICE_ARG(body), json_err_text(j->err), j->err_at);
    if (!translate_read(from, j, &path, &arena, &r, &f) || !to->write_request(&r, &t, &d, &text, &f)) {
        buf_consume(&text, text.len);
        buf_printf(&text, "refused %d %.*s", f.status, SLICE_ARG(f.param));
        return buf_slice(&text);
    }
    if (!json_parse(&out, &arena, buf_ptr(&text), text.len))
        fail_msg("%.*s becomes no JSON: %.*s", SLICE_ARG(body), SLICE_ARG(buf_slice(&text)));
    for (uint32_t i = 0; i < d.count; i++)
        buf_printf(&text, "%s%.*s", i ? "," : "\ndropped ", SLICE_ARG(d.names[i]));
    return buf_slice(&text);
}

static bool has(struct slice s, const char *word) {
    return memmem(s.ptr, s.len, word, strlen(word)) != NULL;
}

/* ---- nothing is lost in silence ---- */

/* Whose inside is the client's own, or goes as a whole: schemas, arguments, results, names it gives. */
static bool own_inside(struct slice key) {
    static const char *const keys[] = { "parameters", "parametersJsonSchema", "input_schema", "schema", "responseSchema",
                                        "responseJsonSchema", "input", "args", "response", "logit_bias", "metadata",
                                        "labels", "safetySettings", "context_management", "client_metadata",
                                        "prompt_cache_options" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (slice_is(key, keys[i]))
            return true;
    return false;
}

/* Marks and words that are read for one thing, and members that are read as a whole. */
static bool whole(struct slice key) {
    static const char *const keys[] = { "cache_control", "prompt_cache_breakpoint", "extra_content", "summary",
                                        "reasoning_details", "action", "actions", "output", "source", "grammar",
                                        "caller", "mediaResolution" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (slice_is(key, keys[i]))
            return true;
    return false;
}

struct file { const char *path; const struct dialect *d, *to; struct slice body, dropped; };

/* Whether that member, or item or tool of that type, is itself in the line of what was dropped. */
static bool reported(const struct file *x, struct slice word) {
    for (size_t at = 0; word.len > 0 && at + word.len <= x->dropped.len; at++) {
        bool starts = at > 0 && strchr(" ,.", x->dropped.ptr[at - 1]);
        bool ends = at + word.len == x->dropped.len || x->dropped.ptr[at + word.len] == ',';
        if (starts && ends && memcmp(x->dropped.ptr + at, word.ptr, word.len) == 0)
            return true;
    }
    return false;
}

static bool of_dropped_type(const struct file *x, const struct json *j, int object) {
    int type = json_get(j, object, "type");
    if (!json_is(j, object, JSON_OBJECT) || !json_is(j, type, JSON_STRING))
        return false;
    return json_str_is(j, type, "web_search_20250305") || json_str_is(j, type, "reasoning") || /* by other names */
           reported(x, json_raw(j, type));
}

static void try_object(const struct file *x, const struct json *j, int object) {
    size_t at = j->tok[object].start + 1;
    const char *member = json_size(j, object) > 0 ? "\"zzz\":1," : "\"zzz\":1";
    struct slice with = arena_printf(&arena, "%.*s%s%.*s", (int)at, x->body.ptr, member, (int)(x->body.len - at),
                                     x->body.ptr + at);
    struct slice out = sent(x->d, x->to, with, "");
    if (!slice_starts(out, SLICE("refused")) && !has(out, "zzz"))
        fail_msg("%s to %s: a member of %.*s is lost in silence", x->path, x->to->name, 60, x->body.ptr + at - 1);
}

static void walk(const struct file *x, const struct json *j, int t) {
    bool object = json_is(j, t, JSON_OBJECT), choice = object && json_get(j, t, "mode") >= 0;
    if (of_dropped_type(x, j, t))
        return;
    if (object)
        try_object(x, j, t);
    for (int i = json_first(j, t); i >= 0; i = json_next(j, t, i)) {
        int v = object ? i + 1 : i;
        struct slice key = object ? json_raw(j, i) : SLICE("");
        bool names = choice && slice_is(key, "tools"); /* of tools that are offered elsewhere */
        bool inside = own_inside(key) && (json_is(j, v, JSON_OBJECT) || !slice_is(key, "input"));
        if ((json_is(j, v, JSON_OBJECT) || json_is(j, v, JSON_ARRAY)) && !names && !inside && !whole(key) &&
            !(object && reported(x, key)))
            walk(x, j, v);
    }
}

static void walk_to(const char *path, const struct dialect *d, struct slice body, const struct dialect *to) {
    struct file x = { path, d, to, body, SLICE("") };
    struct slice out = sent(d, to, body, "");
    const char *line = memmem(out.ptr, out.len, "\ndropped ", 9);
    struct json j;
    if (slice_starts(out, SLICE("refused")))
        return;
    if (line)
        x.dropped = arena_copy(&arena, slice_from(out, (size_t)(line - out.ptr)));
    assert_true(json_parse(&j, &arena, body.ptr, body.len));
    walk(&x, &j, 0);
}

static void an_unknown_member_is_reported_wherever_it_stands(void **state) {
    (void)state;
    struct fixture all[MOST];
    int n = fixtures("requests", all);
    for (int i = 0; i < n; i++)
        for (uint32_t k = 0; k < IR_DIALECTS; k++)
            if (dialect_find(k) != all[i].d)
                walk_to(all[i].path, all[i].d, read_file(all[i].path), dialect_find(k));
    assert_true(n >= 12);
}

/* ---- decisions ---- */

#define C "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define R "{\"model\":\"m\",\"input\":\"hi\""
#define A "{\"model\":\"m\",\"max_tokens\":100,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define G "{\"contents\":[{\"parts\":[{\"text\":\"hi\"}]}]"

/* want: in the body, in the line of the dropped, or "refused STATUS PARAM"; "!…": not there. */
static const struct row { const char *from, *to, *body, *want[3], *model; } rows[] = {
    /* asked for, and no target of these kinds has it */
    { "openai", "anthropic", C ",\"moderation\":{\"model\":\"x\",\"policy\":{\"input\":{\"mode\":\"block\"}}}}",
      { "refused 400 moderation" }, "" },
    { "openai", "gemini", C ",\"moderation\":{\"model\":\"x\"}}", { "dropped moderation" }, "" },
    { "openai", "openai", C ",\"modalities\":[\"text\",\"audio\"]}", { "refused 400 modalities" }, "" },
    { "gemini", "openai", G ",\"generationConfig\":{\"responseModalities\":[\"IMAGE\"]}}",
      { "refused 400 generationConfig.responseModalities" }, "" },
    { "gemini", "openai", G ",\"generationConfig\":{\"responseModalities\":[\"IMAGE\"]}}",
      { "\"modalities\":[\"image\"]" }, "vendor/painter" },
    { "gemini", "anthropic", G ",\"generationConfig\":{\"responseModalities\":[\"VIDEO\"]}}",
      { "refused 400 generationConfig.responseModalities" }, "" },
    { "gemini", "openai", G ",\"generationConfig\":{\"responseMimeType\":\"text/x.enum\"}}",
      { "refused 400 generationConfig.responseMimeType" }, "" },
    { "gemini", "responses", G ",\"generationConfig\":{\"responseFormat\":[{\"text\":{\"mimeType\":\"application/json\","
                               "\"schema\":{\"type\":\"object\"}}}]}}", { "\"type\":\"json_schema\"" }, "" },
    { "gemini", "openai", G ",\"modelArmorConfig\":{\"promptTemplateName\":\"x\"}}", { "refused 400 modelArmorConfig" },
      "" },
    { "anthropic", "openai", A ",\"thread\":{\"type\":\"continue\",\"previous_message_id\":\"m\"}}",
      { "refused 400 thread" }, "" },
    { "anthropic", "openai", A ",\"compaction\":{\"type\":\"summarize\"}}", { "refused 400 compaction" }, "" },
    { "responses", "gemini", R ",\"prompt_cache_options\":{\"prewarm\":true}}",
      { "refused 400 prompt_cache_options.prewarm" }, "" },
    { "openai", "anthropic", "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":"
                             "\"assistant\",\"audio\":{\"id\":\"x\"}},{\"role\":\"user\",\"content\":\"b\"}]}",
      { "refused 400 messages[1].audio" }, "" },
    { "openai", "gemini", "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"image_url\","
                          "\"image_url\":{\"url\":\"https://x/y.png\"}}]},{\"role\":\"user\",\"content\":\"b\"}]}",
      { "refused 400 messages" }, "" },
    { "gemini", "openai", "{\"contents\":[{\"parts\":[{\"text\":\"a\"}]},{\"role\":\"model\",\"parts\":[{\"inlineData\":"
                          "{\"mimeType\":\"image/png\",\"data\":\"AA==\"}}]},{\"parts\":[{\"text\":\"b\"}]}]}",
      { "refused 400 contents" }, "" },
    { "anthropic", "openai", "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"assistant\",\"content\":[{"
                             "\"type\":\"compaction\",\"content\":null,\"encrypted_content\":\"x\"}]},{\"role\":\"user\","
                             "\"content\":\"c\"}]}", { "refused 400 messages[0].content[0]" }, "" },
    /* tuned, reported */
    { "openai", "responses", C ",\"verbosity\":\"low\"}", { "\"text\":{\"verbosity\":\"low\"}", "!dropped" }, "" },
    { "responses", "openai", R ",\"text\":{\"verbosity\":\"low\"}}", { "\"verbosity\":\"low\"", "!dropped" }, "" },
    { "responses", "openai", R ",\"text\":{\"verbosity\":\"low\"}}", { "dropped text.verbosity" }, "vendor/other" },
    { "openai", "responses", C ",\"safety_identifier\":\"u\",\"metadata\":{\"a\":\"b\"}}",
      { "\"safety_identifier\":\"u\"", "\"metadata\":{\"a\":\"b\"}", "!dropped" }, "" },
    { "responses", "anthropic", R ",\"safety_identifier\":\"u\"}", { "dropped safety_identifier" }, "" },
    { "openai", "anthropic", C ",\"reasoning_effort\":\"ultra\"}", { "dropped reasoning_effort" }, "" },
    { "openai", "gemini", C ",\"top_logprobs\":3}", { "dropped top_logprobs" }, "" },
    { "responses", "openai", R ",\"reasoning\":{\"mode\":\"pro\"}}", { "dropped reasoning.mode" }, "" },
    { "responses", "openai", R ",\"store\":true,\"include\":[\"file_search_call.results\"]}",
      { "dropped store,include.file_search_call.results" }, "" },
    { "anthropic", "gemini", A ",\"cache_control\":{\"type\":\"ephemeral\"}}", { "dropped cache_control" }, "" },
    { "anthropic", "anthropic", A ",\"cache_control\":{\"type\":\"ephemeral\"}}",
      { "\"cache_control\":{\"type\":\"ephemeral\"}", "!dropped" }, "" },
    { "anthropic", "anthropic", A ",\"output_config\":{\"effort\":\"low\"}}", { "\"effort\":\"low\"", "!thinking" }, "" },
    { "gemini", "openai", G ",\"serviceTier\":\"standard\"}", { "!dropped" }, "" },
    { "gemini", "openai", G ",\"generationConfig\":{\"thinkingConfig\":{\"thinkingLevel\":\"XHIGH\"}}}",
      { "\"reasoning_effort\":\"xhigh\"" }, "" },
    { "gemini", "anthropic", G ",\"generationConfig\":{\"thinkingConfig\":{\"includeThoughts\":true}}}",
      { "dropped generationConfig.thinkingConfig.includeThoughts" }, "" },
    { "openai", "gemini", C ",\"tool_choice\":\"required\",\"tools\":[]}", { "dropped tool_choice" }, "" },
    { "anthropic", "openai", A ",\"system\":[{\"type\":\"text\",\"text\":\"a\",\"cache_control\":{\"type\":\"ephemeral\"}}]}",
      { "dropped cache_control" }, "" },
    /* tools */
    { "openai", "responses", C ",\"tools\":[{\"type\":\"custom\",\"custom\":{\"name\":\"c\",\"format\":{\"type\":"
                             "\"grammar\",\"grammar\":{\"syntax\":\"regex\",\"definition\":\"a+\"}}}}]}",
      { "\"format\":{\"type\":\"grammar\",\"syntax\":\"regex\",\"definition\":\"a+\"}", "!dropped" }, "" },
    { "responses", "anthropic", R ",\"tools\":[{\"type\":\"custom\",\"name\":\"c\",\"format\":{\"type\":\"grammar\","
                                "\"syntax\":\"regex\",\"definition\":\"a+\"}}]}", { "(regex):\\na+", "dropped tools.format" },
      "" },
    { "openai", "gemini", C ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true}}]}",
      { "dropped tools.strict" }, "" },
    { "gemini", "openai", G ",\"tools\":[{\"functionDeclarations\":[{\"name\":\"f\"}]}],\"toolConfig\":{"
                          "\"functionCallingConfig\":{\"mode\":\"VALIDATED\"}}}",
      { "dropped toolConfig.functionCallingConfig.mode" }, "" },
    { "responses", "responses", R ",\"tools\":[{\"type\":\"function\",\"name\":\"f\"},{\"type\":\"web_search_preview\"}],"
                                "\"tool_choice\":{\"type\":\"web_search_preview\"}}",
      { "\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":\"required\",\"tools\":[{\"type\":\"web_search\"}]}" }, "" },
    { "responses", "openai", R ",\"tools\":[{\"type\":\"function\",\"name\":\"f\"},{\"type\":\"web_search\"}],\"tool_choice\""
                             ":{\"type\":\"allowed_tools\",\"mode\":\"required\",\"tools\":[{\"type\":\"web_search\"}]}}",
      { "refused 400 tool_choice" }, "" },
    { "responses", "openai", R ",\"tools\":[{\"type\":\"function\",\"name\":\"f\"},{\"type\":\"web_search\"}],\"tool_choice\""
                             ":{\"type\":\"allowed_tools\",\"mode\":\"auto\",\"tools\":[{\"type\":\"function\",\"name\":\"f\"},"
                             "{\"type\":\"web_search\"}]}}", { "\"tool_choice\":\"auto\"", "dropped tools.web_search" }, "" },
    { "responses", "anthropic", R ",\"tools\":[{\"type\":\"web_search\",\"filters\":{\"allowed_domains\":[\"a.b\"]},"
                                "\"search_context_size\":\"low\",\"user_location\":{\"city\":\"Z\"}}]}",
      { "\"allowed_domains\":[\"a.b\"],\"user_location\":{\"type\":\"approximate\",\"city\":\"Z\"}",
        "dropped search_context_size" }, "" },
    { "anthropic", "responses", A ",\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"web_search\","
                                "\"blocked_domains\":[\"a.b\"]}]}", { "refused 400 tools[0]" }, "" },
    { "anthropic", "gemini", A ",\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"web_search\","
                             "\"allowed_domains\":[\"a.b\"]}]}", { "refused 400 tools[0]" }, "" },
    { "openai", "responses", C ",\"web_search_options\":{\"search_context_size\":\"low\",\"user_location\":{\"type\":"
                             "\"approximate\",\"approximate\":{\"city\":\"Z\"}}}}",
      { "{\"type\":\"web_search\",\"search_context_size\":\"low\",\"user_location\":{\"type\":\"approximate\",\"city\":\"Z\"}}" },
      "" },
    /* items, blocks and parts */
    { "openai", "responses", "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
                             "\"content\":\"b\"},{\"role\":\"user\",\"content\":\"c\"}]}",
      { "{\"type\":\"message\",\"role\":\"assistant\",\"content\":\"b\"}" }, "" },
    { "responses", "responses", "{\"model\":\"m\",\"input\":[{\"role\":\"assistant\",\"content\":\"b\",\"phase\":"
                                "\"commentary\"},{\"role\":\"user\",\"content\":\"c\"}]}",
      { "\"content\":\"b\",\"phase\":\"commentary\"", "!dropped" }, "" },
    { "responses", "openai", "{\"model\":\"m\",\"input\":[{\"role\":\"assistant\",\"content\":\"b\",\"phase\":"
                             "\"commentary\"},{\"role\":\"user\",\"content\":\"c\"}]}", { "dropped input.phase" }, "" },
    { "responses", "anthropic", "{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":\"a\"},{\"type\":\"shell_call\","
                                "\"call_id\":\"c\",\"action\":{\"commands\":[\"ls\"]}},{\"type\":\"shell_call_output\","
                                "\"call_id\":\"c\",\"output\":[{\"stdout\":\"x\"}]}]}",
      { "\"name\":\"shell\",\"input\":{\"commands\":[\"ls\"]}", "[{\\\"stdout\\\":\\\"x\\\"}]" }, "" },
    { "responses", "openai", "{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":\"a\"},{\"type\":"
                             "\"configuration_update\",\"reasoning\":{\"effort\":\"high\"}}],\"reasoning\":{\"effort\":\"low\"}}",
      { "\"reasoning_effort\":\"high\"", "!dropped" }, "" },
    { "responses", "openai", "{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":\"a\"},{\"type\":\"tool_search_output\","
                             "\"tools\":[{\"type\":\"function\",\"name\":\"f\"},{\"type\":\"function\",\"name\":\"g\"}]}],"
                             "\"tools\":[{\"type\":\"function\",\"name\":\"f\"}]}",
      { "\"name\":\"g\"", "!\"name\":\"f\"}},{\"type\":\"function\",\"function\":{\"name\":\"f\"" }, "" },
    { "anthropic", "gemini", "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
                             "\"document\",\"title\":\"T\",\"context\":\"X\",\"source\":{\"type\":\"text\",\"media_type\":"
                             "\"text/plain\",\"data\":\"body\"}}]}]}", { "{\"text\":\"T\\nX\\n\"},{\"text\":\"body\"}" }, "" },
    { "anthropic", "openai", "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
                             "\"document\",\"source\":{\"type\":\"content\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
                             "{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"https://x/y.png\"}}]}}]}]}",
      { "\"text\":\"a\"", "https://x/y.png" }, "" },
    { "gemini", "gemini", "{\"contents\":[{\"parts\":[{\"fileData\":{\"fileUri\":\"https://www.youtube.com/watch?v=x\"}}]}]}",
      { "{\"fileData\":{\"fileUri\":\"https://www.youtube.com/watch?v=x\"}}" }, "" },
    { "gemini", "anthropic", "{\"contents\":[{\"parts\":[{\"fileData\":{\"fileUri\":\"https://youtu.be/x\"}}]}]}",
      { "refused 400 contents" }, "" },
    { "gemini", "openai", "{\"contents\":[{\"parts\":[{\"inlineData\":{\"mimeType\":\"text/csv\",\"data\":\"YQ==\"}}]}]}",
      { "\"filename\":\"file.csv\"" }, "" },
    { "gemini", "openai", "{\"contents\":[{\"parts\":[{\"inlineData\":{\"mimeType\":\"image/png\",\"data\":\"YQ==\"},"
                          "\"mediaResolution\":{\"level\":\"MEDIA_RESOLUTION_LOW\"}}]}]}", { "\"detail\":\"low\"" }, "" },
    { "openai", "anthropic", "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"name\":\"bob\",\"content\":[{\"type\":"
                             "\"image_url\",\"image_url\":{\"url\":\"https://x/y.png\",\"detail\":\"high\"},"
                             "\"prompt_cache_breakpoint\":{\"mode\":\"explicit\"}}]}]}",
      { "\"cache_control\":{\"type\":\"ephemeral\"}", "messages.name", "messages.content.image_url.detail" }, "" },
};

static void decisions_stand(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *x = &rows[i];
        struct slice out = sent(named(x->from), named(x->to), slice_str(x->body), x->model);
        for (size_t k = 0; k < 3 && x->want[k]; k++) {
            bool not = *x->want[k] == '!';
            if (has(out, x->want[k] + not) == not)
                fail_msg("%s to %s: %s\n%s %s:\n%.*s", x->from, x->to, x->body, not ? "has" : "lacks", x->want[k] + not,
                         SLICE_ARG(out));
        }
    }
}

/* ---- why an answer ended ---- */

static bool keep_stop(void *arg, const struct ir_event *ev) {
    if (ev->kind == IR_EV_FINISH)
        *(enum ir_stop *)arg = ev->stop;
    return true;
}

static void finish_words_are_understood(void **state) {
    (void)state;
    static const struct { const char *dialect, *word; enum ir_stop stop; } words[] = {
        { "gemini", "STOP", IR_STOP_END },
        { "gemini", "NO_IMAGE", IR_STOP_FILTER },
        { "gemini", "IMAGE_OTHER", IR_STOP_FILTER },
        { "gemini", "ESCALATION", IR_STOP_FILTER },
        { "gemini", "CONTINUATION", IR_STOP_LIMIT },
        { "gemini", "MALFORMED_RESPONSE", IR_STOP_MODEL_ERROR },
        { "gemini", "MISSING_THOUGHT_SIGNATURE", IR_STOP_MODEL_ERROR },
        { "gemini", "OTHER", IR_STOP_UNKNOWN },
        { "anthropic", "compaction", IR_STOP_PAUSE },
        { "anthropic", "model_context_window_exceeded", IR_STOP_CONTEXT },
        { "anthropic", "of_a_later_day", IR_STOP_UNKNOWN },
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const struct dialect *d = named(words[i].dialect);
        const struct dialect_reader_settings s = { .arena = &arena, .pages = &pages, .max_held = 4096, .origin = 7 };
        struct slice body = arena_printf(
            &arena, d->id == IR_GEMINI ? "{\"candidates\":[{\"finishReason\":\"%s\"}]}"
                                       : "{\"type\":\"message\",\"content\":[],\"stop_reason\":\"%s\"}", words[i].word);
        enum ir_stop stop = IR_STOP_END;
        struct ir_sink sink = { keep_stop, &stop };
        struct ir_fault f = { 0 };
        struct json j;
        void *reader = d->reader(&s);
        assert_true(json_parse(&j, &arena, body.ptr, body.len));
        assert_int_equal(d->whole(reader, &j, &arena, &sink, &f), DIALECT_OK);
        assert_int_equal(d->end(reader, &arena, &sink, &f), DIALECT_OK);
        d->close_reader(reader);
        if (stop != words[i].stop)
            fail_msg("%s is read as %s", words[i].word, ir_stop_name(stop));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_unknown_member_is_reported_wherever_it_stands, begin, end),
        cmocka_unit_test_setup_teardown(decisions_stand, begin, end),
        cmocka_unit_test_setup_teardown(finish_words_are_understood, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
