/* The pass path of Gemini: both spellings, limits in generationConfig, running totals, the last chunk, streams as arrays. */
#include "pass_fixture.h"

static int begin(void **state) {
    (void)state;
    return fx_begin(&pass_gemini);
}

#define C "\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"hi\"}]}]"
#define FN "{\"functionDeclarations\":[{\"name\":\"f\"}]}"

static void scan_counts(void **state) {
    (void)state;
    struct pass_request r;
    fx_scan("{\"system_instruction\":{\"parts\":[{\"text\":\"abc\"}]},\"generation_config\":{\"max_output_tokens\":\"64\",\"candidateCount\":2,"
            "\"thinkingConfig\":{\"thinking_budget\":32}},\"contents\":[{\"parts\":[{\"text\":\"ab\\u00e9\"},{\"inlineData\":{\"data\":\"AAAA\"}},"
            "{\"inline_data\":{\"data\":\"AAAA\"}},{\"fileData\":{\"fileUri\":\"https://generativelanguage.googleapis.com/v1beta/files/abc\"}},"
            "{\"file_data\":{\"file_uri\":\"gs://x\"}},{\"fileData\":{\"fileUri\":\"https://www.youtube.com/watch?v=1\"}},"
            "{\"functionCall\":{\"a\":1}}]}]}",
            NULL, &r);
    assert_null(r.fault_code);
    assert_true(r.has_limit);
    assert_int_equal(r.limit, 64);
    assert_int_equal(r.n, 2);
    assert_int_equal(r.reasoning, 32);
    assert_int_equal(r.messages, 2);
    assert_int_equal(r.media, 2);
    assert_int_equal(r.references, 3);
    assert_int_equal(r.sealed_count, 1);
    assert_int_equal(r.prompt_bytes, 3 + 4 + strlen("{\"a\":1}"));
}

static void scan_refuses(void **state) {
    (void)state;
    fx_refuses("{}", "missing_field", "contents");
    fx_refuses("{\"contents\":[]}", "invalid_value", "contents");
    fx_refuses("{\"contents\":[7]}", "invalid_value", "contents");
    fx_refuses("{\"contents\":[{\"parts\":[7]}]}", "invalid_value", "contents");
    fx_refuses("{" C ",\"generationConfig\":{},\"generation_config\":{}}", "invalid_value", "generationConfig");
    fx_refuses("{" C ",\"generationConfig\":{\"maxOutputTokens\":5,\"max_output_tokens\":6}}", "invalid_value", "maxOutputTokens");
    fx_refuses("{" C ",\"generationConfig\":{\"maxOutputTokens\":0}}", "invalid_value", "generationConfig.maxOutputTokens");
    fx_refuses("{" C ",\"generationConfig\":{\"candidateCount\":9}}", "invalid_value", "generationConfig.candidateCount");
    fx_refuses("{" C ",\"generationConfig\":[]}", "invalid_value", "generationConfig");
    fx_refuses("{" C ",\"generationConfig\":{\"responseModalities\":[\"TEXT\",\"IMAGE\"]}}", "unsupported_parameter", "generationConfig.responseModalities");
    fx_refuses("{" C ",\"service_tier\":\"priority\"}", "unsupported_parameter", "serviceTier");
    fx_accepts("{" C ",\"generationConfig\":{\"responseModalities\":[\"IMAGE\"],\"thinkingConfig\":{\"thinkingBudget\":-1}},\"serviceTier\":\"x\"}",
               "image_generation service_tier");
    fx_accepts("{\"contents\":{\"parts\":{\"text\":\"x\"}},\"systemInstruction\":\"be brief\",\"generationConfig\":null}", NULL);
}

static void tools(void **state) {
    (void)state;
    struct pass_request r;
    const struct pass_edit none = { 0 };
    fx_refuses("{" C ",\"tools\":[{\"googleSearch\":{}}]}", "unsupported_parameter", "tools");
    fx_refuses("{" C ",\"tools\":[{\"google_search\":{},\"codeExecution\":{}}]}", "unsupported_parameter", "tools");
    fx_accepts("{" C ",\"tools\":[{\"googleSearch\":{}},{\"code_execution\":{}},{\"urlContext\":{}}]}", "web_search code_execution url_context");
    fx_scan("{" C ",\"tools\":[" FN ",{\"googleSearch\":{}}]}", NULL, &r);
    assert_null(r.fault_code);
    assert_int_equal(r.drops, 1);
    assert_true(slice_is(r.drop_names[0], "googleSearch"));
    fx_builds("{" C ",\"tools\":[{\"googleSearch\":{}}," FN ",{\"urlContext\":{},\"fileSearch\":{}}]}", NULL, none, "{" C ",\"tools\":[" FN "]}");
    fx_builds("{" C ",\"tools\":[{\"google_search\":{}, \"functionDeclarations\":[],\"urlContext\":{}}]}", NULL, none,
              "{" C ",\"tools\":[{\"functionDeclarations\":[]}]}");
    fx_builds("{" C ",\"tools\":{\"functionDeclarations\":[],\"urlContext\":{}}}", NULL, none, "{" C ",\"tools\":{\"functionDeclarations\":[]}}");
}

static void build(void **state) {
    (void)state;
    const struct pass_edit limit = { .set_limit = true, .limit = 9 };
    fx_builds("{" C "}", NULL, limit, "{\"generationConfig\":{\"maxOutputTokens\":9}," C "}");
    fx_builds("{" C ",\"generationConfig\":{}}", NULL, limit, "{" C ",\"generationConfig\":{\"maxOutputTokens\":9}}");
    fx_builds("{" C ",\"generationConfig\":null}", NULL, limit, "{" C ",\"generationConfig\":{\"maxOutputTokens\":9}}");
    fx_builds("{" C ",\"generationConfig\":{\"topP\":1}}", NULL, limit, "{" C ",\"generationConfig\":{\"maxOutputTokens\":9,\"topP\":1}}");
    fx_builds("{" C ",\"generation_config\":{\"max_output_tokens\":\"70\"}}", NULL, limit, "{" C ",\"generation_config\":{\"max_output_tokens\":9}}");
    fx_builds("{" C ",\"generationConfig\":{\"topP\":1,\"temperature\":0},\"labels\":{}}", NULL,
              EDIT(.set_limit = true, .limit = 9, STRIP(SLICE("temperature"), SLICE("top_p"), SLICE("labels"), SLICE("contents"))),
              "{" C ",\"generationConfig\":{\"maxOutputTokens\":9}}");
    fx_builds("{\"model\":\"models/a\"," C "}", NULL, EDIT(.model = SLICE("b")), "{\"model\":\"models/b\"," C "}");
    fx_builds("{" C "}", NULL, EDIT(.model = SLICE("b")), "{" C "}");
    fx_builds("{" C ",\"cachedContent\":\"s.1\"}", NULL, EDIT(PLAIN(SLICE("cachedContents/1"))), "{" C ",\"cachedContent\":\"cachedContents/1\"}");
}

#define CHUNK(text, rest) "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"" text "\"}]}" rest
#define GO(text, usage) CHUNK(text, "}]" usage "}")
#define END(text, usage) CHUNK(text, ",\"finishReason\":\"STOP\"}]" usage "}")
#define D(json) "data: " json "\r\n\r\n"
#define U(n) ",\"usageMetadata\":{\"promptTokenCount\":10,\"candidatesTokenCount\":" n ",\"totalTokenCount\":99}"
#define UC(n) ",\"usageMetadata\":{\"promptTokenCount\":10,\"candidatesTokenCount\":" n ",\"totalTokenCount\":99,\"costUsd\":0.0125}"

/* A stream whose line ends are CRLF is cut between them too: the LF may then begin the next event. */
static void fx_crlf(const char *stream, const char *want) {
    fx_stream(stream, PASS_OK, NULL);
    struct slice text = slice_str(stream);
    assert_int_equal(fx_stream_cut(text, (size_t[]){ text.len }, 1), PASS_OK);
    assert_string_equal(fx_out(), want);
}

static void stream(void **state) {
    (void)state;
    fx_crlf(D(GO("ab", U("1"))) D(GO("c", U("2"))) D(END("d", U("5"))), D(GO("ab", U("1"))) D(GO("c", U("2"))) D(END("d", UC("5"))));
    assert_int_equal(fx.a.text_bytes, 4);
    assert_int_equal(fx.asked, 1);
    fx_meters(10, 0, 0, 0, 5, 0);
    /* a chunk behind the one with the reason bears the cost; only then anything waits */
    fx_crlf(D(GO("ab", "")) D(END("c", U("3"))) D(GO("", U("5"))), D(GO("ab", "")) D(END("c", U("3"))) D(GO("", UC("5"))));
    /* the last one has no figures: they are repeated in it */
    fx_crlf(D(GO("ab", U("3"))) D(END("c", "")),
            D(GO("ab", U("3"))) D(END("c", ",\"usageMetadata\":{\"promptTokenCount\":10,\"candidatesTokenCount\":3,\"totalTokenCount\":13,\"costUsd\":0.0125}")));
    /* none anywhere: an estimate */
    fx_crlf(D(END("c", "")), D(END("c", ",\"usageMetadata\":{\"promptTokenCount\":7,\"candidatesTokenCount\":3,\"totalTokenCount\":10,\"costUsd\":0.0125}")));
    assert_true(fx.estimated);
    fx.tokens = true;
    fx_crlf(D("{\"promptFeedback\":{\"blockReason\":\"SAFETY\"},\"usageMetadata\":{\"promptTokenCount\":4}}"),
            D("{\"promptFeedback\":{\"blockReason\":\"SAFETY\"},\"usageMetadata\":{\"promptTokenCount\":4,\"costUsd\":0.0125,\"costTokens\":99}}"));
}

static void array(void **state) {
    (void)state;
    fx.as_array = true;
    fx_stream(D(GO("ab", U("1"))) D(GO("c", "")) D(END("d", U("5"))), PASS_OK,
              "[" GO("ab", U("1")) ",\r\n" GO("c", "") ",\r\n" END("d", UC("5")) "]");
    fx_stream(D(END("d", U("5"))), PASS_OK, "[" END("d", UC("5")) "]");
    fx_stream(D(GO("ab", "")), PASS_BAD, "[" GO("ab", ""));
    fx_fails("{\"error\":{\"code\":502}}", ",\r\n{\"error\":{\"code\":502}}]");
    assert_true(slice_is(fx.pass->ping(&fx.a), " "));
    assert_string_equal(fx.pass->content_type(&fx.a), "application/json; charset=utf-8");
    fx_answer();
    fx_fails("{\"error\":{\"code\":502}}", "[{\"error\":{\"code\":502}}]");
    fx.as_array = false;
    fx_answer();
    fx_fails("{\"error\":{\"code\":502}}", "data: {\"error\":{\"code\":502}}\r\n\r\n: failed\r\n");
}

static void failures(void **state) {
    (void)state;
    fx_stream(D(GO("ab", U("1"))), PASS_BAD, NULL);
    fx_stream(D(GO("ab", "")) "data: {\"candi", PASS_BAD, NULL);
    fx_stream(D("[1]"), PASS_BAD, "");
    fx_stream(D("{\"error\":{\"code\":429,\"message\":\"slow\",\"status\":\"RESOURCE_EXHAUSTED\"}}"), PASS_ERROR, "");
    assert_int_equal(fx.fault.status, 429);
    assert_string_equal(fx.fault_text, "slow");
    assert_int_equal(fx.a.events, 0);
    fx_stream(D(GO("ab", "")) D("{\"error\":{\"code\":503,\"message\":\"busy\"}}"), PASS_ERROR, NULL);
    assert_int_equal(fx.fault.status, 503);
}

static void whole(void **state) {
    (void)state;
    fx_whole(END("abc", U("5")), PASS_OK, END("abc", UC("5")));
    assert_int_equal(fx.a.text_bytes, 3);
    fx_whole("{\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"go\",\"args\":{\"a\":1}}},{\"functionCall\":{\"name\":\"x\",\"args\":{}}}]}}]}",
             PASS_OK, NULL);
    assert_int_equal(fx.a.text_bytes, 2 + 7 + 1);
    fx_whole("[{\"error\":{\"code\":400,\"message\":\"no\",\"status\":\"INVALID_ARGUMENT\",\"details\":[{\"reason\":\"API_KEY_INVALID\"}]}}]", PASS_ERROR, "");
    assert_int_equal(fx.fault.status, 400);
    assert_string_equal(fx.fault_code, "API_KEY_INVALID");
    fx_whole("{}", PASS_BAD, "");
    fx_whole("[]", PASS_BAD, "");
    fx_whole("7", PASS_BAD, "");
}

static void figures(void **state) {
    (void)state;
    fx_whole("{\"candidates\":[],\"usageMetadata\":{\"promptTokenCount\":100,\"cachedContentTokenCount\":60,\"toolUsePromptTokenCount\":7,"
             "\"candidatesTokenCount\":20,\"thoughtsTokenCount\":30,\"totalTokenCount\":157,"
             "\"promptTokensDetails\":[{\"modality\":\"TEXT\",\"tokenCount\":80},{\"modality\":\"AUDIO\",\"tokenCount\":20}],"
             "\"cacheTokensDetails\":[{\"modality\":\"AUDIO\",\"tokenCount\":15},{\"modality\":\"TEXT\",\"tokenCount\":45}],"
             "\"candidatesTokensDetails\":[{\"modality\":\"IMAGE\",\"tokenCount\":12}]}}", PASS_OK, NULL);
    fx_meters(47 - 5, 60, 0, 0, 8, 30);
    assert_int_equal(fx.a.meters.n[METER_AUDIO_INPUT], 5);
    assert_int_equal(fx.a.meters.n[METER_IMAGE_OUTPUT], 12);
    /* candidates left out, strings for numbers */
    fx_whole("{\"candidates\":[],\"usageMetadata\":{\"promptTokenCount\":\"10\",\"thoughtsTokenCount\":5,\"totalTokenCount\":\"18\"}}", PASS_OK, NULL);
    fx_meters(10, 0, 0, 0, 3, 5);
    /* the last one with counts, as a whole */
    fx_crlf(D(GO("a", ",\"usageMetadata\":{\"promptTokenCount\":10,\"candidatesTokenCount\":50,\"totalTokenCount\":60}"))
            D(END("b", ",\"usageMetadata\":{\"promptTokenCount\":12,\"totalTokenCount\":12}")),
            D(GO("a", ",\"usageMetadata\":{\"promptTokenCount\":10,\"candidatesTokenCount\":50,\"totalTokenCount\":60}"))
            D(END("b", ",\"usageMetadata\":{\"promptTokenCount\":12,\"totalTokenCount\":12,\"costUsd\":0.0125}")));
    fx_meters(12, 0, 0, 0, 0, 0);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, begin, fx_end)
    const struct CMUnitTest tests[] = {
        T(scan_counts), T(scan_refuses), T(tools), T(build), T(stream), T(array), T(failures), T(whole), T(figures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
