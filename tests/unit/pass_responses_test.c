/* The pass path of Responses: items and tools, state that comes back sealed, the terminal event, one id for a client throughout. */
#include "pass_fixture.h"

static int begin(void **state) {
    (void)state;
    return fx_begin(&pass_responses);
}

#define FN "{\"type\":\"function\",\"name\":\"f\"}"

static void scan_counts(void **state) {
    (void)state;
    struct pass_request r;
    fx_scan("{\"model\":\"m\",\"input\":\"ab\\u00e9\",\"instructions\":\"xyz\",\"stream\":true,\"max_output_tokens\":64}", NULL, &r);
    assert_null(r.fault_code);
    assert_int_equal(r.prompt_bytes, 7);
    assert_true(r.stream && r.has_limit);
    assert_int_equal(r.limit, 64);
    assert_int_equal(r.messages, 1);
    fx_scan("{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":\"abc\"},"
            "{\"type\":\"message\",\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"de\"},{\"type\":\"input_image\",\"image_url\":\"data:x\"},"
            "{\"type\":\"input_image\",\"image_url\":\"https://x\"},{\"type\":\"input_image\",\"file_id\":\"file-1\"},{\"type\":\"input_file\",\"file_data\":\"x\"}]},"
            "{\"type\":\"function_call\",\"id\":\"fc_1\",\"call_id\":\"c\",\"name\":\"f\",\"arguments\":\"{}\"},"
            "{\"type\":\"function_call_output\",\"call_id\":\"c\",\"output\":\"four\"},"
            "{\"type\":\"reasoning\",\"id\":\"rs_1\",\"summary\":[],\"encrypted_content\":\"e\"},"
            "{\"type\":\"item_reference\",\"id\":\"msg_1\"}]}",
            NULL, &r);
    assert_null(r.fault_code);
    assert_int_equal(r.messages, 6);
    assert_int_equal(r.media, 2);
    assert_int_equal(r.references, 3);
    assert_int_equal(r.sealed_count, 4);
    assert_int_equal(r.sealed[0].is, PASS_ITEM); /* the call and the reasoning are all there */
    assert_int_equal(r.sealed[1].is, PASS_ITEM);
    assert_int_equal(r.sealed[2].is, PASS_STATE); /* the reference */
    assert_int_equal(r.sealed[3].is, PASS_STATE); /* the file */
    assert_int_equal(r.prompt_bytes, 3 + 2 + 4 + strlen("{\"type\":\"function_call\",\"id\":\"fc_1\",\"call_id\":\"c\",\"name\":\"f\",\"arguments\":\"{}\"}") +
                     strlen("{\"type\":\"reasoning\",\"id\":\"rs_1\",\"summary\":[],\"encrypted_content\":\"e\"}"));
}

static void scan_refuses(void **state) {
    (void)state;
    fx_refuses("{\"input\":\"x\"}", "missing_field", "model");
    fx_refuses("{\"model\":\"m\"}", "missing_field", "input");
    fx_refuses("{\"model\":\"m\",\"input\":7}", "invalid_value", "input");
    fx_refuses("{\"model\":\"m\",\"input\":[7]}", "invalid_value", "input");
    fx_refuses("{\"model\":\"m\",\"input\":\"x\",\"input\":\"y\"}", "invalid_value", "input");
    fx_refuses("{\"model\":\"m\",\"input\":\"x\",\"max_output_tokens\":0}", "invalid_value", "max_output_tokens");
    fx_refuses("{\"model\":\"m\",\"input\":\"x\",\"background\":true}", "unsupported_parameter", "background");
    fx_refuses("{\"model\":\"m\",\"input\":\"x\",\"service_tier\":\"flex\"}", "unsupported_parameter", "service_tier");
    fx_refuses("{\"model\":\"m\",\"prompt\":{\"id\":\"p\"}}", "unsupported_parameter", "prompt");
    fx_accepts("{\"model\":\"m\",\"prompt\":{\"id\":\"p\"}}", "prompt");
    fx_accepts("{\"model\":\"m\",\"previous_response_id\":\"r\"}", NULL);
    fx_accepts("{\"model\":\"m\",\"input\":\"x\",\"background\":false,\"service_tier\":\"auto\",\"store\":false}", NULL);
}

static void tools(void **state) {
    (void)state;
    struct pass_request r;
    fx_accepts("{\"model\":\"m\",\"input\":\"x\",\"tools\":[" FN ",{\"type\":\"custom\",\"name\":\"apply_patch\"},{\"type\":\"local_shell\"},{\"type\":\"shell\"},"
               "{\"type\":\"apply_patch\"},{\"type\":\"tool_search\"},{\"type\":\"namespace\",\"tools\":[" FN "]}]}", NULL);
    fx_refuses("{\"model\":\"m\",\"input\":\"x\",\"tools\":[{\"type\":\"web_search\"}]}", "unsupported_parameter", "tools");
    fx_refuses("{\"model\":\"m\",\"input\":\"x\",\"tools\":[{\"type\":\"shell\",\"environment\":{\"type\":\"container_auto\"}}]}", "unsupported_parameter", "tools");
    fx_refuses("{\"model\":\"m\",\"input\":\"x\",\"tools\":[{\"type\":\"namespace\",\"tools\":[{\"type\":\"mcp\"}]}]}", "unsupported_parameter", "tools");
    fx_refuses("{\"model\":\"m\",\"input\":\"x\",\"tools\":[" FN ",{\"type\":\"web_search\"}],\"tool_choice\":{\"type\":\"web_search\"}}",
               "unsupported_parameter", "tools");
    fx_refuses("{\"model\":\"m\",\"input\":\"x\",\"tools\":[" FN ",{\"type\":\"mcp\"}],\"tool_choice\":{\"type\":\"allowed_tools\",\"tools\":[{\"type\":\"mcp\"}]}}",
               "unsupported_parameter", "tools");
    fx_accepts("{\"model\":\"m\",\"input\":\"x\",\"tools\":[{\"type\":\"web_search_preview\"},{\"type\":\"code_interpreter\",\"container\":{\"type\":\"auto\"}}]}",
               "web_search code_execution");
    fx_scan("{\"model\":\"m\",\"input\":\"x\",\"tools\":[" FN ",{\"type\":\"web_search\"},{\"type\":\"image_generation\"}]}", NULL, &r);
    assert_null(r.fault_code);
    assert_int_equal(r.drops, 2);
    assert_true(slice_is(r.drop_names[1], "image_generation"));
    fx_builds("{\"model\":\"m\",\"input\":[{\"type\":\"additional_tools\",\"tools\":[{\"type\":\"web_search\"}," FN "]}],\"tools\":[" FN ",{\"type\":\"web_search\"}]}",
              NULL, EDIT(.model = SLICE("n")),
              "{\"model\":\"n\",\"input\":[{\"type\":\"additional_tools\",\"tools\":[" FN "]}],\"tools\":[" FN "]}");
}

static void build(void **state) {
    (void)state;
    fx_builds("{\"model\":\"m\",\"input\":\"x\"}", NULL, EDIT(.set_limit = true, .limit = 9), "{\"max_output_tokens\":9,\"model\":\"m\",\"input\":\"x\"}");
    fx_builds("{\"model\":\"m\",\"input\":\"x\",\"max_output_tokens\":null}", NULL, EDIT(.set_limit = true, .limit = 9),
              "{\"model\":\"m\",\"input\":\"x\",\"max_output_tokens\":9}");
    fx_builds("{\"top_p\":1,\"model\":\"m\",\"temperature\":0,\"input\":\"x\"}", NULL, EDIT(STRIP(SLICE("temperature"), SLICE("top_p"))),
              "{\"model\":\"m\",\"input\":\"x\"}");
    fx_builds("{\"model\":\"m\",\"previous_response_id\":\"s.1\",\"conversation\":{\"id\":\"s.2\"},\"input\":[{\"id\":\"s.0\",\"type\":\"reasoning\"},"
              "{\"type\":\"code_interpreter_call\",\"container_id\":\"s.3\"}],\"tools\":[{\"type\":\"code_interpreter\",\"container\":\"s.4\"}]}",
              "code_interpreter", EDIT(PLAIN(SLICE("rs_1"), SLICE("resp_1"), SLICE("conv_1"), SLICE("cntr_1"), SLICE("cntr_2"))),
              "{\"model\":\"m\",\"previous_response_id\":\"resp_1\",\"conversation\":{\"id\":\"conv_1\"},\"input\":[{\"id\":\"rs_1\",\"type\":\"reasoning\"},"
              "{\"type\":\"code_interpreter_call\",\"container_id\":\"cntr_1\"}],\"tools\":[{\"type\":\"code_interpreter\",\"container\":\"cntr_2\"}]}");
}

#define EV(type, n, rest) "event: " type "\ndata: {\"type\":\"" type "\",\"sequence_number\":" n rest "}\n\n"
#define RESP(id, status, usage) ",\"response\":{\"id\":\"" id "\",\"created_at\":5,\"model\":\"m\",\"status\":\"" status "\",\"output\":[],\"usage\":" usage "}"
#define CREATED(id) EV("response.created", "0", RESP(id, "in_progress", "null"))
#define DELTA(n) EV("response.output_text.delta", n, ",\"delta\":\"ab\"")
#define FIGURES "\"input_tokens\":10,\"input_tokens_details\":{\"cached_tokens\":4},\"output_tokens\":6,\"output_tokens_details\":{\"reasoning_tokens\":2},\"total_tokens\":16"
#define MADE "{\"input_tokens\":7,\"input_tokens_details\":{\"cached_tokens\":0,\"cache_write_tokens\":0},\"output_tokens\":3," \
             "\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":10,\"cost_usd\":0.0125}"

static void stream(void **state) {
    (void)state;
    fx_stream(CREATED("r1") DELTA("1") EV("response.completed", "2", RESP("r1", "completed", "{" FIGURES "}")), PASS_OK,
              CREATED("r1") DELTA("1") EV("response.completed", "2", RESP("r1", "completed", "{" FIGURES ",\"cost_usd\":0.0125}")));
    fx_meters(6, 4, 0, 0, 4, 2);
    assert_int_equal(fx.asked, 1);
    assert_int_equal(fx.a.text_bytes, 2);
    assert_true(fx.a.done);
    fx_stream(CREATED("r1") DELTA("1") EV("response.incomplete", "2", RESP("r1", "incomplete", "null")) "data: [DONE]\n\n", PASS_OK,
              CREATED("r1") DELTA("1") EV("response.incomplete", "2", RESP("r1", "incomplete", MADE)));
    assert_true(fx.estimated);
    /* an item without deltas counts when it is done; one with them only once */
    fx_stream(DELTA("1") EV("response.output_item.done", "2", ",\"item\":{\"type\":\"message\",\"content\":[{\"text\":\"ab\"}]}")
              EV("response.output_item.done", "3", ",\"item\":{\"type\":\"function_call\",\"name\":\"f\",\"arguments\":\"{}\"}")
              EV("response.completed", "4", RESP("r1", "completed", "{" FIGURES "}")), PASS_OK, NULL);
    assert_int_equal(fx.a.text_bytes, 2 + 3);
    fx_stream(DELTA("1") EV("response.output_item.done", "2", ",\"item\":{\"type\":\"message\",\"content\":[{\"text\":\"a\"}]}"), PASS_BAD, NULL);
    assert_int_equal(fx.a.text_bytes, 2);
}

/* Deltas like the one before: numbered on, sealed alike, counted; fx_stream compares with a parser for each. */
static void deltas_alike(void **state) {
    (void)state;
#define NUMBERED(n, id, text) "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"" id "\",\"delta\":\"" text "\",\"sequence_number\":" n ",\"obfuscation\":\"x\"}\n\n"
    fx.seal = true;
    fx_stream(CREATED("r1") NUMBERED("9", "m1", "a") NUMBERED("10", "m1", "bc") NUMBERED("100", "m1", "") NUMBERED("101", "m2", "d") NUMBERED("102", "m2", "e"), PASS_BAD, NULL);
    assert_int_equal(fx.a.text_bytes, 5);
    assert_non_null(strstr(fx_out(), NUMBERED("10", "sealed.m1", "bc") NUMBERED("100", "sealed.m1", "") NUMBERED("101", "sealed.m2", "d") NUMBERED("102", "sealed.m2", "e")));
    fx_stream(NUMBERED("1", "m1", "a") NUMBERED("02", "m1", "b"), PASS_BAD, NULL); /* no number: the parser refuses it */
    fx.seal = false;
}

/* What must come back sealed is found wherever it stands; what only looks like an id is left alone. */
static void states(void **state) {
    (void)state;
    static const struct { const char *input; int is; } rows[] = {
        { "{\"type\":\"item_reference\",\"id\":\"x\"}", PASS_STATE },
        { "{\"type\":\"item\\u005freference\",\"id\":\"x\"}", PASS_STATE },
        { "{\"id\":\"x\"}", PASS_KEPT }, /* a reference in short */
        { "{\"role\":\"user\",\"content\":[],\"id\":\"x\"}", PASS_KEPT },
        { "{\"type\":\"image_generation_call\",\"id\":\"x\"}", PASS_KEPT },
        { "{\"type\":\"image_generation_call\",\"id\":\"x\",\"result\":null}", PASS_KEPT },
        { "{\"type\":\"reasoning\",\"id\":\"x\",\"summary\":[{\"text\":\"t\"}]}", PASS_KEPT },
        { "{\"type\":\"web_search_call\",\"id\":\"x\",\"status\":\"completed\"}", PASS_KEPT },
        { "{\"type\":\"of a later day\",\"id\":\"x\"}", PASS_KEPT },
        { "{\"type\":\"image_generation_call\",\"id\":\"x\",\"result\":\"AA\"}", PASS_ITEM },
        { "{\"type\":\"reasoning\",\"id\":\"x\",\"encrypted_content\":\"e\",\"summary\":[]}", PASS_ITEM },
        { "{\"type\":\"reasoning\",\"id\":\"x\",\"content\":[{\"type\":\"reasoning_text\",\"text\":\"t\"}]}", PASS_ITEM },
        { "{\"type\":\"message\",\"role\":\"assistant\",\"id\":\"x\",\"content\":[{\"type\":\"output_text\",\"text\":\"t\"}]}", PASS_ITEM },
        { "{\"type\":\"custom_tool_call\",\"id\":\"x\",\"input\":\"i\"}", PASS_ITEM },
        { "{\"type\":\"function_call_output\",\"id\":\"x\",\"output\":\"o\"}", PASS_ITEM },
        { "{\"role\":\"user\",\"content\":[{\"type\":\"input_file\",\"file\\u005fid\":\"x\"}]}", PASS_STATE },
        { "{\"type\":\"of a later day\",\"deep\":[{\"file_id\":\"x\"}]}", PASS_STATE },
        { "{\"type\":\"mcp_approval_response\",\"approval_request_id\":\"x\"}", PASS_STATE },
        { "{\"type\":\"function_call\",\"name\":\"f\",\"arguments\":\"{\\\"file_id\\\":1}\"}", -1 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct pass_request r;
        char body[400];
        snprintf(body, sizeof body, "{\"model\":\"m\",\"input\":[%s]}", rows[i].input);
        fx_scan(body, NULL, &r);
        assert_null(r.fault_code);
        if (r.sealed_count != (rows[i].is >= 0) || (r.sealed_count > 0 && (int)r.sealed[0].is != rows[i].is))
            fail_msg("%u found, the first %d: %s", r.sealed_count, r.sealed_count ? (int)r.sealed[0].is : -1, body);
    }
    /* twice: both must be the client's own, or the request goes no further */
    struct pass_request r;
    fx_scan("{\"model\":\"m\",\"input\":[{\"content\":[{\"type\":\"input_file\",\"file_id\":\"x\",\"file_id\":\"y\"}]}]}", NULL, &r);
    assert_int_equal(r.sealed_count, 2);
    fx_refuses("{\"model\":\"m\",\"input\":[{\"type\":\"message\",\"type\":\"item_reference\",\"id\":\"x\",\"content\":\"c\"}]}", "invalid_value", "input");
    fx_refuses("{\"model\":\"m\",\"input\":[{\"type\":\"reasoning\",\"id\":\"x\",\"encrypted_content\":\"\",\"encrypted_content\":\"e\"}]}", "invalid_value", "input");
    /* a tool's schema is the client's own; the operator's stores are for those he lets */
    fx_scan("{\"model\":\"m\",\"input\":\"x\",\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"parameters\":{\"default\":{\"file_id\":\"x\"}}}]}", NULL, &r);
    assert_int_equal(r.sealed_count, 0);
    fx_scan("{\"model\":\"m\",\"input\":\"x\",\"tools\":[{\"type\":\"file_search\",\"vector_store_ids\":[\"a\",\"b\"]}]}", "file_search", &r);
    assert_int_equal(r.sealed_count, 2);
    fx_scan("{\"model\":\"m\",\"input\":\"x\",\"tools\":[{\"type\":\"file_search\",\"vector_store_ids\":[\"a\",\"b\"]}]}", "file_search vector_stores", &r);
    assert_int_equal(r.sealed_count, 0);
}

static void seals(void **state) {
    (void)state;
    fx.seal = true;
    fx_stream(CREATED("r1") EV("response.output_item.done", "1", ",\"item\":{\"id\":\"ci_1\",\"container_id\":\"c1\"}")
              EV("response.completed", "2", ",\"response\":{\"id\":\"r1\",\"previous_response_id\":\"r0\",\"conversation\":{\"id\":\"v\"},\"output\":"
                 "[{\"id\":\"rs_1\",\"encrypted_content\":\"e\"},{\"id\":\"ci_1\",\"container_id\":\"c1\"}],\"usage\":{" FIGURES "}}"), PASS_OK,
              CREATED("sealed.r1") EV("response.output_item.done", "1", ",\"item\":{\"id\":\"sealed.ci_1\",\"container_id\":\"sealed.c1\"}")
              EV("response.completed", "2", ",\"response\":{\"id\":\"sealed.r1\",\"previous_response_id\":\"sealed.r0\",\"conversation\":{\"id\":\"sealed.v\"},\"output\":"
                 "[{\"id\":\"sealed.rs_1\",\"encrypted_content\":\"e\"},{\"id\":\"sealed.ci_1\",\"container_id\":\"sealed.c1\"}],\"usage\":{" FIGURES ",\"cost_usd\":0.0125}}"));
    fx_stream(EV("response.output_text.delta", "1", ",\"item_id\":\"m\",\"delta\":\"ab\"")
              EV("response.output_text.annotation.added", "2", ",\"item_id\":\"m\",\"annotation\":{\"type\":\"file_citation\",\"file_id\":\"f\"}"), PASS_BAD,
              EV("response.output_text.delta", "1", ",\"item_id\":\"sealed.m\",\"delta\":\"ab\"")
              EV("response.output_text.annotation.added", "2", ",\"item_id\":\"sealed.m\",\"annotation\":{\"type\":\"file_citation\",\"file_id\":\"sealed.f\"}"));
    fx_whole("{\"id\":\"r1\",\"output\":[],\"previous_response_id\":null,\"usage\":{" FIGURES "}}", PASS_OK,
             "{\"id\":\"sealed.r1\",\"output\":[],\"previous_response_id\":null,\"usage\":{" FIGURES ",\"cost_usd\":0.0125}}");
    fx_stream(CREATED("r1") DELTA("7"), PASS_BAD, CREATED("sealed.r1") DELTA("7"));
    fx_fails("{\"error\":{\"code\":\"HJL-502\"}}",
             "event: error\ndata: {\"type\":\"error\",\"sequence_number\":8,\"code\":\"HJL-502\",\"message\":\"It \\\"broke\\\".\",\"param\":null}\n\n"
             "event: response.failed\ndata: {\"type\":\"response.failed\",\"sequence_number\":9,\"response\":{\"id\":\"sealed.r1\",\"object\":\"response\","
             "\"created_at\":5,\"model\":\"m\",\"status\":\"failed\",\"error\":{\"code\":\"HJL-502\",\"message\":\"It \\\"broke\\\".\"},"
             "\"incomplete_details\":null,\"output\":[],\"usage\":null}}\n\n");
}

static void failures(void **state) {
    (void)state;
#define FAILED(n, usage) EV("response.failed", n, ",\"response\":{\"id\":\"r1\",\"status\":\"failed\",\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"slow\"},\"usage\":" usage "}")
    fx_stream(FAILED("0", "null"), PASS_ERROR, "");
    assert_int_equal(fx.a.events, 0);
    assert_int_equal(fx.fault.status, 429);
    assert_string_equal(fx.fault_text, "slow");
    /* after the beginning it is the client's to read; nothing was made, so nothing is paid */
    fx_stream(CREATED("r1") FAILED("1", "null"), PASS_OK, NULL);
    assert_false(fx.estimated);
    assert_int_equal(fx.asked, 1);
    fx_meters(0, 0, 0, 0, 0, 0);
    assert_non_null(strstr(fx_out(), "\"usage\":{\"input_tokens\":0,"));
    fx_stream(CREATED("r1") DELTA("1") FAILED("2", "null"), PASS_OK, NULL);
    assert_true(fx.estimated);
    fx_stream("event: error\ndata: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"no\",\"sequence_number\":0}\n\n", PASS_ERROR, "");
    assert_int_equal(fx.fault.status, 500);
    assert_null(fx.fault.type.ptr);
    fx_stream(CREATED("r1") "event: error\ndata: {\"type\":\"error\",\"error\":{\"message\":\"nested\"}}\n\n", PASS_ERROR, NULL);
    assert_string_equal(fx.fault_text, "nested");
    fx_stream(CREATED("r1") DELTA("1"), PASS_BAD, NULL);
    fx_stream(CREATED("r1") "data: [DONE]\n\n", PASS_BAD, NULL);
    fx_stream("data: {\"type\":\"response.completed\"}\n\n", PASS_BAD, "");
}

static void whole(void **state) {
    (void)state;
    fx_whole("{\"id\":\"r1\",\"output\":[{\"type\":\"message\",\"content\":[{\"type\":\"output_text\",\"text\":\"abc\"}]}],\"error\":null}", PASS_OK,
             "{\"id\":\"r1\",\"output\":[{\"type\":\"message\",\"content\":[{\"type\":\"output_text\",\"text\":\"abc\"}]}],\"error\":null,\"usage\":" MADE "}");
    assert_int_equal(fx.a.text_bytes, 3);
    fx_whole("{\"error\":{\"message\":\"no\",\"code\":\"x\"}}", PASS_ERROR, "");
    fx_whole("{\"status\":\"failed\",\"output\":[],\"error\":{\"message\":\"no\",\"code\":\"invalid_prompt\"}}", PASS_ERROR, "");
    assert_int_equal(fx.fault.status, 400);
    fx_whole("{}", PASS_BAD, "");
    fx_whole("[]", PASS_BAD, "");
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, begin, fx_end)
    const struct CMUnitTest tests[] = {
        T(scan_counts), T(scan_refuses), T(tools), T(build), T(stream), T(deltas_alike), T(states), T(seals), T(failures), T(whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
