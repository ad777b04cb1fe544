/* Dialects beside their goldens: what is refused, what errors mean, the vendors' usage, cut and oversized streams,
 * what the translation repairs, and that a stream's memory does not grow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/dialect/translate.h"

static struct pages pages;
static struct arena arena, scratch;
static struct buf out;

static int begin(void **state) {
    (void)state;
    arena_init(&arena, &pages, 64 << 20);
    arena_init(&scratch, &pages, 64 << 20);
    buf_init(&out, &pages, 64 << 20);
    return 0;
}

static int end(void **state) {
    (void)state;
    buf_release(&out);
    arena_reset(&arena);
    arena_reset(&scratch);
    return pages.in_use != 0 || pages.big_bytes != 0;
}

static struct json *parse(const char *text) {
    struct json *j = arena_alloc(&arena, sizeof *j);
    if (!json_parse(j, &arena, text, strlen(text)))
        fail_msg("%s at %zu of %s", json_err_text(j->err), j->err_at, text);
    return j;
}

static bool has(const char *word) {
    const char *text = out.len > 0 ? buf_ptr(&out) : NULL;
    return text != NULL && memmem(text, out.len, word, strlen(word)) != NULL;
}

static void expect(const char *word) {
    if (!has(word))
        fail_msg("no %s in %.*s", word, (int)out.len, buf_ptr(&out));
}

static void expect_not(const char *word) {
    if (has(word))
        fail_msg("%s in %.*s", word, (int)out.len, buf_ptr(&out));
}

static void fresh(void) {
    buf_consume(&out, out.len);
}

/* ---- requests ---- */

static bool ask(uint32_t from, uint32_t to, const char *body, struct ir_target *t, struct ir_request *r,
                struct ir_fault *f, struct ir_dropped *d) {
    struct dialect_path path = { .model = SLICE("m"), .stream = true, .sse = true };
    *d = (struct ir_dropped){ 0 };
    *f = (struct ir_fault){ 0 };
    fresh();
    return translate_read(dialect_find(from), parse(body), &path, &arena, r, f) &&
           dialect_find(to)->write_request(r, t, d, &out, f);
}

static void refuses_what_cannot_be_said(void **state) {
    (void)state;
    static const struct { uint32_t from, to; const char *body, *param;
    } cases[] = {
        { IR_OPENAI, IR_ANTHROPIC, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"n\":2}",
          "n" },
        { IR_OPENAI, IR_RESPONSES,
          "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"stop\":\"x\"}", "stop" },
        { IR_OPENAI, IR_ANTHROPIC,
          "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"logprobs\":true}", "logprobs" },
        { IR_OPENAI, IR_GEMINI,
          "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"modalities\":[\"audio\"]}",
          "modalities" },
        { IR_OPENAI, IR_GEMINI, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "model" },
        { IR_OPENAI, IR_GEMINI, "{\"model\":\"m\",\"messages\":[]}", "messages" },
        { IR_OPENAI, IR_GEMINI,
          "{\"model\":\"m\",\"model\":\"n\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "model" },
        { IR_OPENAI, IR_GEMINI,
          "{\"model\":\"m\",\"temperature\":\"hot\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
          "temperature" },
        { IR_OPENAI, IR_ANTHROPIC,
          "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"hologram\"}]}]}",
          "messages[0].content[0]" },
        { IR_OPENAI, IR_ANTHROPIC,
          "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"file\",\"file\":{\"file_id\":"
          "\"f\"}}]}]}",
          "messages[0].content[0]" },
        { IR_OPENAI, IR_ANTHROPIC,
          "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"tool_"
          "calls\":[{\"id\":\"c1\","
          "\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},{\"role\":\"user\",\"content\":\"b\"}]}",
          "c1" },
        { IR_OPENAI, IR_ANTHROPIC,
          "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"tool\",\"tool_call_id\":"
          "\"c9\",\"content\":\"b\"}]}",
          "c9" },
        { IR_OPENAI, IR_ANTHROPIC,
          "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"tool_"
          "calls\":[{\"id\":\"c1\","
          "\"function\":{\"name\":\"f\",\"arguments\":\"[1]\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c1\","
          "\"content\":\"b\"}]}",
          "c1" },
        { IR_ANTHROPIC, IR_OPENAI, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
          "max_tokens" },
        { IR_ANTHROPIC, IR_OPENAI,
          "{\"model\":\"m\",\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\","
          "\"source\":"
          "{\"type\":\"file\",\"file_id\":\"f\"}}]}]}",
          "messages[0].content[0]" },
        { IR_ANTHROPIC, IR_OPENAI,
          "{\"model\":\"m\",\"max_tokens\":1,\"tools\":[{\"type\":\"bash_20250124\",\"name\":\"bash\"}],"
          "\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
          "tools[0]" },
        { IR_RESPONSES, IR_OPENAI, "{\"model\":\"m\",\"input\":\"a\",\"previous_response_id\":\"resp_1\"}",
          "previous_response_id" },
        { IR_RESPONSES, IR_OPENAI, "{\"model\":\"m\",\"input\":[{\"type\":\"item_reference\",\"id\":\"x\"}]}",
          "input[0]" },
        { IR_RESPONSES, IR_OPENAI, "{\"model\":\"m\",\"input\":[]}", "input" },
        { IR_GEMINI, IR_OPENAI,
          "{\"contents\":[{\"parts\":[{\"text\":\"a\"}]}],\"cachedContent\":\"cachedContents/1\"}", "cachedContent" },
        { IR_GEMINI, IR_OPENAI,
          "{\"contents\":[{\"parts\":[{\"fileData\":{\"fileUri\":\"gs://b/o\",\"mimeType\":\"image/png\"}}]}]}",
          "contents[0].parts" },
    };
    struct ir_target t = { .model = SLICE("x"), .origin = 7, .max_output = 1000 };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ir_request r;
        struct ir_fault f;
        struct ir_dropped d;
        if (ask(cases[i].from, cases[i].to, cases[i].body, &t, &r, &f, &d))
            fail_msg("not refused: %s", cases[i].body);
        assert_int_equal(f.status, 400);
        if (!slice_is(f.param, cases[i].param))
            fail_msg("%s: param %.*s (%.*s)", cases[i].body, SLICE_ARG(f.param), SLICE_ARG(f.message));
    }
}

/* Whatever is wished, budget_tokens is at least 1024 and below max_tokens, or there is none. */
static void thinking_budgets_are_valid_pairs(void **state) {
    (void)state;
    struct ir_target t = { .model = SLICE("claude-sonnet-4-5"), .origin = 7, .max_output = 64000 };
    static const char *const efforts[] = { "minimal", "low", "medium", "high", "xhigh", "max" };
    static const unsigned limits[] = { 1, 1000, 1024, 1366, 2000, 8192, 40000 };
    for (size_t e = 0; e < 6; e++)
        for (size_t l = 0; l < 7; l++) {
            char body[300];
            struct ir_request r;
            struct ir_fault f;
            struct ir_dropped d;
            snprintf(
                body, sizeof body,
                "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"reasoning_effort\":\"%s\","
                "\"max_tokens\":%u,\"temperature\":0.3}",
                efforts[e], limits[l]);
            assert_true(ask(IR_OPENAI, IR_ANTHROPIC, body, &t, &r, &f, &d));
            struct json *j = parse(arena_copy(&arena, buf_slice(&out)).ptr);
            uint64_t budget, max;
            assert_true(json_u64(j, json_get(j, 0, "max_tokens"), &max));
            assert_int_equal(max, limits[l]);
            if (json_u64(j, json_get(j, json_get(j, 0, "thinking"), "budget_tokens"), &budget)) {
                assert_true(budget >= 1024 && budget < max);
                assert_true(json_get(j, 0, "temperature") < 0);
            } else {
                assert_true(json_get(j, 0, "temperature") >= 0);
            }
        }
}

static void settings_follow_the_target(void **state) {
    (void)state;
    struct slice strip[] = { SLICE("temperature"), SLICE("output_config") }, allow[] = { SLICE("web_search") };
    struct ir_target t = { .model = SLICE("m"), .origin = 7, .max_output = 5000, .strip = strip, .strip_count = 2 };
    const char *body =
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"temperature\":0.5,\"response_"
        "format\":"
        "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":{\"type\":\"object\"}}}}";
    struct ir_request r;
    struct ir_fault f;
    struct ir_dropped d;
    assert_true(ask(IR_OPENAI, IR_ANTHROPIC, body, &t, &r, &f, &d));
    expect("\"max_tokens\":5000");
    expect("\"tool_choice\":{\"type\":\"tool\",\"name\":\"json_response\"}"); /* a model without output_config */
    expect_not("temperature");
    assert_true(r.json_tool);
    t = (struct ir_target){
        .model = SLICE("m"), .origin = 7, .set_limit = true, .limit = 77, .limit_field = SLICE("max_new")
    };
    assert_true(ask(IR_OPENAI, IR_OPENAI, body, &t, &r, &f, &d));
    expect("\"max_new\":77");
    body = "{\"model\":\"m\",\"input\":\"a\",\"tools\":[{\"type\":\"web_search_preview\"}]}";
    t = (struct ir_target){ .model = SLICE("m"), .origin = 7, .allow = allow, .allow_count = 1 };
    assert_true(ask(IR_RESPONSES, IR_ANTHROPIC, body, &t, &r, &f, &d));
    expect("web_search_20250305");
    assert_true(ask(IR_RESPONSES, IR_GEMINI, body, &t, &r, &f, &d));
    expect("googleSearch");
    t.allow_count = 0;
    assert_false(ask(IR_RESPONSES, IR_GEMINI, body, &t, &r, &f, &d));
}

static void carriers_return_what_they_hold(void **state) {
    (void)state;
    for (int kind = IR_BLOB_SIGNATURE; kind <= IR_BLOB_CALL; kind++)
        for (int maker = 0; maker < IR_DIALECTS; maker++) {
            struct ir_blob b = { (enum ir_blob_kind)kind, (enum ir_dialect)maker, 0xdeadbeef, SLICE("ab.c/+=") };
            struct slice s = ir_carrier(&arena, &b);
            struct ir_blob back = ir_blob_of(s, IR_BLOB_SIGNATURE, IR_OPENAI);
            struct json j;
            struct slice body = arena_printf(&arena, "{\"a\":[1,{\"signature\":\"%.*s\"}]}", SLICE_ARG(s));
            assert_true(json_parse(&j, &arena, body.ptr, body.len) && ir_has_carrier(&j));
            body = arena_printf(&arena, "{\"a\":[1,{\"%.*s\":\"x%.*s\"},\"tollgate1.\"]}", 9, s.ptr, SLICE_ARG(s));
            assert_true(json_parse(&j, &arena, body.ptr, body.len) && !ir_has_carrier(&j));
            assert_int_equal(back.kind, kind);
            assert_int_equal(back.maker, maker);
            assert_int_equal(back.origin, b.origin);
            assert_true(slice_eq(back.data, b.data));
            assert_true(ir_blob_fits(&back, b.maker, b.origin));
            assert_false(ir_blob_fits(&back, b.maker, 7));
        }
    struct ir_blob own = ir_blob_of(SLICE("EqoBCk"), IR_BLOB_REDACTED, IR_ANTHROPIC);
    assert_int_equal(own.maker, IR_ANTHROPIC);
    assert_false(ir_blob_fits(&own, IR_ANTHROPIC, 0));
    assert_int_equal(ir_blob_of(SLICE("tollgate1.zz00000007.x"), IR_BLOB_SIGNATURE, IR_GEMINI).origin, 0);
}

/* ---- errors ---- */

static void errors_mean_the_same_in_every_shape(void **state) {
    (void)state;
    static const struct { int status; const char *body; enum ir_blame blame; int to; const char *code;
    } cases[] = {
        { 400,
          "{\"error\":{\"message\":\"bad\",\"type\":\"invalid_request_error\",\"param\":\"x\",\"code\":\"invalid_"
          "value\"}}",
          IR_BLAME_CLIENT, 400, "invalid_value" },
        { 400, "{\"error\":{\"message\":\"This model's maximum context length is 8 tokens\"}}", IR_BLAME_CLIENT, 400,
          "context_length_exceeded" },
        { 400,
          "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"prompt is too long: 9 "
          "tokens > 8 maximum\"}}",
          IR_BLAME_CLIENT, 400, "context_length_exceeded" },
        { 422, "{\"detail\":[{\"loc\":[\"body\"],\"msg\":\"Field required\"}]}", IR_BLAME_CLIENT, 422, "" },
        { 401, "{\"error\":\"no\"}", IR_BLAME_KEY, 502, "" },
        { 400,
          "{\"error\":{\"code\":400,\"message\":\"API key not "
          "valid\",\"status\":\"INVALID_ARGUMENT\",\"details\":[{\"reason\":\"API_KEY_INVALID\"}]}}",
          IR_BLAME_KEY, 502, "" },
        { 429, "{\"error\":{\"message\":\"q\",\"type\":\"insufficient_quota\",\"code\":\"insufficient_quota\"}}",
          IR_BLAME_KEY, 429, "" },
        { 429,
          "[{\"error\":{\"code\":429,\"message\":\"slow\",\"status\":\"RESOURCE_EXHAUSTED\",\"details\":[{"
          "\"retryDelay\":\"34.4s\"}]}}]",
          IR_BLAME_RATE, 429, "" },
        { 404, "{\"error\":{\"message\":\"no model\",\"code\":\"model_not_found\"}}", IR_BLAME_ROUTE, 404,
          "model_not_found" },
        { 500, "<html>oops</html>", IR_BLAME_UPSTREAM, 502, "" },
        { 529, "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}",
          IR_BLAME_UPSTREAM, 502, "" },
        { 200, "{\"error\":{\"message\":\"late\",\"code\":429}}", IR_BLAME_RATE, 429, "" },
        { 200, "{\"error\":{\"message\":\"late\",\"type\":\"invalid_request_error\"}}", IR_BLAME_CLIENT, 400, "" },
        { 503, "", IR_BLAME_UPSTREAM, 502, "" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ir_fault f;
        dialect_read_error(cases[i].status, slice_str(cases[i].body), 0, &arena, &f);
        if (f.blame != cases[i].blame || f.status != cases[i].to || !slice_is(f.code, cases[i].code) ||
            f.message.len == 0)
            fail_msg("%d %s: blame %d status %d code %.*s", cases[i].status, cases[i].body, f.blame, f.status,
                     SLICE_ARG(f.code));
    }
    struct ir_fault f;
    dialect_read_error(429, slice_str(cases[7].body), 0, &arena, &f);
    assert_int_equal(f.retry_after_ms, 34400);
    dialect_read_error(400, SLICE("{\"error\":{\"message\":\"limit of org-abcdefghij and sk-proj1234567890 hit\"}}"),
                       0, &arena, &f);
    assert_true(slice_is(f.message, "limit of org-********** and sk-************** hit"));
}

static void errors_have_the_clients_shape(void **state) {
    (void)state;
    struct dialect_brand brand = { .request_id = SLICE("req_9") };
    struct ir_fault f = {
        .status = 429, .message = SLICE("slow \"down\""), .param = SLICE("tokens"), .retry_after_ms = 1500
    };
    dialect_openai.write_error(&f, &brand, &arena, &out);
    expect("{\"error\":{\"message\":\"slow "
           "\\\"down\\\"\",\"type\":\"rate_limit_error\",\"param\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}");
    fresh();
    dialect_anthropic.write_error(&f, &brand, &arena, &out);
    expect("{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\"");
    expect("\"error_code\":\"rate_limit_exceeded\"}},\"request_id\":\"req_9\"}");
    fresh();
    dialect_gemini.write_error(&f, &brand, &arena, &out);
    expect("{\"error\":{\"code\":429,");
    expect("\"status\":\"RESOURCE_EXHAUSTED\"");
    expect("\"retryDelay\":\"2s\"");
    fresh();
    brand.error_code = SLICE("HJL-%d");
    brand.error_detail = true;
    dialect_responses.write_error(&f, &brand, &arena, &out);
    expect("\"detail\":\"slow \\\"down\\\"\"");
    expect("\"code\":\"HJL-429\",\"reason\":\"rate_limit_exceeded\"");
    fresh();
    f = (struct ir_fault){ .status = 400, .code = SLICE("context_length_exceeded"), .message = SLICE("9 of 8") };
    dialect_anthropic.write_error(&f, &brand, &arena, &out);
    expect("prompt is too long: 9 of 8");
}

/* ---- usage ---- */

static void usage_obeys_each_vendor(void **state) {
    (void)state;
    static const struct { uint32_t d; const char *usage, *dump;
    } cases[] = {
        { IR_OPENAI,
          "{\"prompt_tokens\":100,\"completion_tokens\":20,\"total_tokens\":120,\"prompt_tokens_details\":{\"cached_"
          "tokens\":60,\"cache_write_tokens\":30,"
          "\"audio_tokens\":4}}",
          "usage input=6 cached_input=60 cache_write=30 audio_input=4 output=20\n" },
        { IR_OPENAI,
          "{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":115,\"completion_tokens_details\":{"
          "\"reasoning_tokens\":100}}",
          "usage input=10 output=5 reasoning=100\n" }, /* xAI */
        { IR_OPENAI, "{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":45}",
          "usage input=10 output=5 reasoning=30\n" }, /* Gemini's */
        { IR_OPENAI,
          "{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15,\"prompt_cache_hit_tokens\":8,\"prompt_"
          "cache_miss_tokens\":2}",
          "usage input=2 cached_input=8 output=5\n" }, /* DeepSeek */
        { IR_OPENAI,
          "{\"prompt_tokens\":10,\"completion_tokens\":5,\"prompt_tokens_details\":{\"cached_tokens\":12}}",
          "usage cached_input=10 output=5 conflict\n" }, /* xAI through Azure */
        { IR_OPENAI,
          "{\"prompt_tokens\":10,\"completion_tokens\":50,\"total_tokens\":360,\"prompt_audio_seconds\":24}",
          "usage input=10 audio_input=300 output=50\n" }, /* Mistral */
        { IR_RESPONSES,
          "{\"input_tokens\":2600,\"input_tokens_details\":{\"cached_tokens\":2000,\"cache_write_tokens\":400},"
          "\"output_tokens\":7,"
          "\"output_tokens_details\":{\"reasoning_tokens\":3}}",
          "usage input=200 cached_input=2000 cache_write=400 output=4 reasoning=3\n" },
        { IR_ANTHROPIC,
          "{\"input_tokens\":5,\"cache_creation_input_tokens\":30,\"cache_read_input_tokens\":7,\"cache_creation\":{"
          "\"ephemeral_5m_input_tokens\":10,"
          "\"ephemeral_1h_input_tokens\":20},\"output_tokens\":9}",
          "usage input=5 cached_input=7 cache_write=10 cache_write_1h=20 output=9\n" },
        { IR_GEMINI,
          "{\"promptTokenCount\":\"50\",\"cachedContentTokenCount\":20,\"candidatesTokenCount\":3,"
          "\"thoughtsTokenCount\":4,"
          "\"toolUsePromptTokenCount\":6,\"totalTokenCount\":63}",
          "usage input=36 cached_input=20 output=3 reasoning=4 tool_prompt=6\n" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ir_usage u = { 0 };
        fresh();
        assert_true(dialect_find(cases[i].d)->read_usage(parse(cases[i].usage), 0, &u));
        ir_dump_usage(&u, &out);
        if (!slice_is(buf_slice(&out), cases[i].dump))
            fail_msg("%s\nis %.*snot %s", cases[i].usage, (int)out.len, buf_ptr(&out), cases[i].dump);
    }
    struct ir_usage u = { 0 }; /* a later object replaces what it names and keeps the rest */
    fresh();
    dialect_anthropic.read_usage(parse("{\"input_tokens\":10,\"cache_read_input_tokens\":3,\"output_tokens\":1}"), 0,
                                 &u);
    dialect_anthropic.read_usage(parse("{\"input_tokens\":8,\"cache_read_input_tokens\":null,\"output_tokens\":40}"),
                                 0, &u);
    ir_dump_usage(&u, &out);
    expect("usage input=8 cached_input=3 output=40\n");
}

/* ---- streams ---- */

static struct translate t;

static void open_for(uint32_t client, uint32_t up, struct ir_request *r) {
    struct dialect_reader_settings rs = { .arena = &arena, .pages = &pages, .max_held = 4096, .origin = 7 };
    struct dialect_writer_settings ws = {
        .arena = &arena, .pages = &pages, .max_held = 4096, .id = SLICE("id"), .model = SLICE("m")
    };
    fresh();
    assert_true(translate_open(&t, dialect_find(client), dialect_find(up), r, &rs, &ws));
}

static enum dialect_result event(const char *data) {
    struct sse_event ev = { .data = slice_str(data), .has_data = true };
    enum dialect_result got = translate_event(&t, &ev, &scratch, &out);
    arena_reset(&scratch);
    return got;
}

static const char *const first_events[IR_DIALECTS] = {
    "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Half\"}}]}",
    "{\"type\":\"response.output_text.delta\",\"delta\":\"Half\"}",
    "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Half\"}}",
    "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Half\"}]}}]}",
};

static void cut_streams_never_look_whole(void **state) {
    (void)state;
    for (uint32_t up = 0; up < IR_DIALECTS; up++)
        for (uint32_t client = 0; client < IR_DIALECTS; client++) {
            struct ir_request r = { .arena = &arena, .from = (enum ir_dialect)client, .n = 1, .stream = true };
            open_for(client, up, &r);
            assert_int_equal(event(first_events[up]), DIALECT_OK);
            expect("Half");
            assert_int_equal(translate_end(&t, &scratch, &out), DIALECT_BAD);
            assert_int_equal(t.fault.status, 502);
            assert_true(translate_fail(&t, &t.fault, NULL, &scratch, &out));
            expect("error");
            expect_not("[DONE]");
            expect_not("message_stop");
            expect_not("response.completed");
            expect_not("\"STOP\"");
            assert_int_equal(t.text_bytes, 4);
            translate_close(&t);
            /* garbage, and an error of the provider's */
            open_for(client, up, &r);
            assert_int_equal(event("{\"choices\":[{"), DIALECT_BAD);
            translate_close(&t);
            open_for(client, up, &r);
            assert_int_equal(
                event("{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}"),
                DIALECT_ERROR);
            assert_int_equal(t.fault.status, 502);
            assert_false(t.started);
            translate_close(&t);
        }
}

/* One call of a tool, from a chat upstream, whatever its name and arguments. */
static void call(uint32_t client, struct ir_request *r, const char *name, const char *args) {
    char data[512];
    open_for(client, IR_OPENAI, r);
    snprintf(data, sizeof data,
             "{\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"%s\","
             "\"arguments\":\"%s\"}}]},"
             "\"finish_reason\":\"stop\"}]}",
             name, args);
    assert_int_equal(event(data), DIALECT_OK);
    assert_int_equal(event("[DONE]"), DIALECT_DONE);
    assert_int_equal(translate_end(&t, &scratch, &out), DIALECT_OK);
    assert_true(translate_finish(&t, &(struct ir_cost){ .show = true, .usd_nano = 5 }, &scratch, &out));
    translate_close(&t);
    arena_reset(&scratch);
}

static void calls_are_repaired(void **state) {
    (void)state;
    struct ir_tool patch = { .kind = IR_CUSTOM, .name = SLICE("patch") };
    struct ir_tool odd = { .kind = IR_FUNCTION, .name = SLICE("get.it"), .sent = SLICE("get_it_1"), .next = &patch };
    struct ir_request r = { .arena = &arena, .n = 1, .stream = true, .tools = &odd };
    call(IR_GEMINI, &r, "get_it_1", "");
    expect("\"name\":\"get.it\",\"args\":{}");
    expect("\"id\":\"call_id1\"");
    call(IR_RESPONSES, &r, "patch", "{\\\"input\\\":\\\"a\\\\nb\\\"}");
    expect("\"type\":\"custom_tool_call\"");
    expect("\"input\":\"a\\nb\"");
    expect("event: response.custom_tool_call_input.done");
    call(IR_ANTHROPIC, &r, "plain", "");
    expect("\"partial_json\":\"{}\"");
    expect("\"stop_reason\":\"tool_use\""); /* although the word was stop */
    call(IR_OPENAI, &r, "plain", "");
    expect("\"arguments\":\"{}\"");
    expect("\"finish_reason\":\"tool_calls\"");
    expect("\"cost_usd\":0.000000005");
    call(IR_GEMINI, &r, "plain", "{\\\"a\\\":");
    expect("MALFORMED_FUNCTION_CALL");
    expect_not("functionCall\"");
    r.json_tool = true;
    call(IR_OPENAI, &r, IR_JSON_TOOL, "{\\\"a\\\":1}");
    expect("\"content\":\"{\\\"a\\\":1}\"");
    expect("\"finish_reason\":\"stop\"");
    expect_not("tool_calls");
}

static void a_second_start_is_not_passed_on(void **state) {
    (void)state;
    struct ir_request r = { .arena = &arena, .from = IR_ANTHROPIC, .n = 1, .stream = true };
    const char *start = "{\"type\":\"message_start\",\"message\":{\"id\":\"a\",\"model\":\"m\",\"usage\":{\"input_"
                        "tokens\":5,\"output_tokens\":1}}}";
    open_for(IR_ANTHROPIC, IR_ANTHROPIC, &r);
    assert_int_equal(event(start), DIALECT_OK);
    expect("\"input_tokens\":5");
    fresh();
    assert_int_equal(event(start), DIALECT_OK);
    assert_int_equal(out.len, 0);
    translate_close(&t);
}

static void held_arguments_are_bounded(void **state) {
    (void)state;
    struct ir_request r = { .arena = &arena, .from = IR_GEMINI, .n = 1, .stream = true };
    open_for(IR_GEMINI, IR_ANTHROPIC, &r);
    event("{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"i\","
          "\"name\":\"f\",\"input\":{}}}");
    enum dialect_result got = DIALECT_OK;
    int n = 0;
    for (; got == DIALECT_OK && n < 1000; n++)
        got = event("{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\","
                    "\"partial_json\":\"0123456789012345\"}}");
    assert_int_equal(got, DIALECT_FULL);
    assert_int_equal(n, 4096 / 16 + 1);
    assert_int_equal(t.fault.status, 502);
    translate_close(&t);
}

/* Responses repeats the whole answer at its end; every other stream holds nothing of what has passed. */
static void memory_does_not_grow_with_the_stream(void **state) {
    (void)state;
    for (uint32_t up = 0; up < IR_DIALECTS; up++)
        for (uint32_t client = 0; client < IR_DIALECTS; client++) {
            struct ir_request r = { .arena = &arena, .from = (enum ir_dialect)client, .n = 1, .stream = true };
            if (client == IR_RESPONSES)
                continue;
            open_for(client, up, &r);
            event(first_events[up]);
            size_t before = arena.used_bytes;
            uint64_t held = pages.big_bytes;
            for (int i = 0; i < 5000; i++) {
                assert_int_equal(event(first_events[up]), DIALECT_OK);
                fresh();
            }
            assert_int_equal(arena.used_bytes, before);
            assert_true(pages.big_bytes <= held + 65536);
            translate_close(&t);
        }
}

static void arrays_are_json(void **state) {
    (void)state;
    struct ir_request r = { .arena = &arena, .from = IR_GEMINI, .n = 1, .stream = true, .as_array = true };
    for (int fail = 0; fail < 2; fail++) {
        open_for(IR_GEMINI, IR_OPENAI, &r);
        event(first_events[IR_OPENAI]);
        buf_append_slice(&out, translate_ping(&t));
        event(first_events[IR_OPENAI]);
        if (fail) {
            struct ir_fault f = { .status = 502, .message = SLICE("gone") };
            assert_true(translate_fail(&t, &f, NULL, &scratch, &out));
        } else {
            assert_int_equal(event("[DONE]"), DIALECT_DONE);
            assert_int_equal(translate_end(&t, &scratch, &out), DIALECT_OK);
            assert_true(translate_finish(&t, NULL, &scratch, &out));
        }
        struct json j;
        assert_true(json_parse(&j, &scratch, buf_ptr(&out), out.len));
        assert_true(json_is(&j, 0, JSON_ARRAY));
        assert_int_equal(json_size(&j, 0), 3);
        translate_close(&t);
    }
}

/* What a client of one dialect got of a provider's signatures, and returns, reaches that provider unchanged. */
static void signatures_come_home(void **state) {
    (void)state;
    static const char *const body =
        "{\"type\":\"message\",\"id\":\"msg\",\"model\":\"c\",\"content\":[{\"type\":\"thinking\",\"thinking\":"
        "\"Deep\",\"signature\":\"U0lH\"},"
        "{\"type\":\"redacted_thinking\",\"data\":\"UkVE\"},{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"f\","
        "\"input\":{\"a\":1}}],"
        "\"stop_reason\":\"tool_use\",\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}";
    for (uint32_t client = 0; client < IR_DIALECTS; client++) {
        struct ir_request r = { .arena = &arena, .from = (enum ir_dialect)client, .n = 1 }, again;
        struct ir_fault f;
        struct ir_dropped d;
        open_for(client, IR_ANTHROPIC, &r);
        assert_int_equal(translate_whole(&t, parse(body), &scratch, &out), DIALECT_OK);
        assert_int_equal(translate_end(&t, &scratch, &out), DIALECT_OK);
        assert_true(translate_finish(&t, NULL, &scratch, &out));
        translate_close(&t);
        struct json *j = parse(arena_copy(&arena, buf_slice(&out)).ptr);
        struct slice said = client == IR_OPENAI
                                ? json_span(j, json_get(j, json_first(j, json_get(j, 0, "choices")), "message"))
                            : client == IR_RESPONSES ? json_span(j, json_get(j, 0, "output"))
                            : client == IR_ANTHROPIC
                                ? json_span(j, json_get(j, 0, "content"))
                                : json_span(j, json_get(j, json_first(j, json_get(j, 0, "candidates")), "content"));
        static const char *const next[] = {
            "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"q\"},%.*s,{\"role\":\"tool\",\"tool_"
            "call_id\":\"toolu_1\",\"content\":\"r\"}]}",
            "{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":\"q\"},%.*s,{\"type\":\"function_call_"
            "output\",\"call_id\":\"toolu_1\",\"output\":\"r\"}]}",
            "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":"
            "\"assistant\",\"content\":%.*s},{\"role\":\"user\","
            "\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"toolu_1\",\"content\":\"r\"}]}]}",
            "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"q\"}]},%.*s,{\"role\":\"user\",\"parts\":[{"
            "\"functionResponse\":{\"name\":\"f\","
            "\"id\":\"toolu_1\",\"response\":{\"output\":\"r\"}}}]}]}",
        };
        if (client == IR_RESPONSES)
            said = slice_of(said.ptr + 1, said.len - 2); /* items stand in the list itself */
        struct slice turn = arena_printf(&arena, next[client], SLICE_ARG(said));
        struct ir_target home = { .model = SLICE("claude-sonnet-4-5"), .origin = 7 }, other = home;
        if (!ask(client, IR_ANTHROPIC, turn.ptr, &home, &again, &f, &d))
            fail_msg("%u: %.*s in %s", client, SLICE_ARG(f.message), turn.ptr);
        expect("{\"type\":\"thinking\",\"thinking\":\"Deep\",\"signature\":\"U0lH\"},{\"type\":\"redacted_thinking\","
               "\"data\":\"UkVE\"},"
               "{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"f\",\"input\":{\"a\":1}}");
        other.origin = 8;
        assert_true(ask(client, IR_ANTHROPIC, turn.ptr, &other, &again, &f, &d));
        expect_not("U0lH");
        expect_not("tollgate1");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(refuses_what_cannot_be_said, begin, end),
        cmocka_unit_test_setup_teardown(thinking_budgets_are_valid_pairs, begin, end),
        cmocka_unit_test_setup_teardown(settings_follow_the_target, begin, end),
        cmocka_unit_test_setup_teardown(carriers_return_what_they_hold, begin, end),
        cmocka_unit_test_setup_teardown(errors_mean_the_same_in_every_shape, begin, end),
        cmocka_unit_test_setup_teardown(errors_have_the_clients_shape, begin, end),
        cmocka_unit_test_setup_teardown(usage_obeys_each_vendor, begin, end),
        cmocka_unit_test_setup_teardown(cut_streams_never_look_whole, begin, end),
        cmocka_unit_test_setup_teardown(calls_are_repaired, begin, end),
        cmocka_unit_test_setup_teardown(a_second_start_is_not_passed_on, begin, end),
        cmocka_unit_test_setup_teardown(held_arguments_are_bounded, begin, end),
        cmocka_unit_test_setup_teardown(memory_does_not_grow_with_the_stream, begin, end),
        cmocka_unit_test_setup_teardown(arrays_are_json, begin, end),
        cmocka_unit_test_setup_teardown(signatures_come_home, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
