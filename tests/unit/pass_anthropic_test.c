/* The pass path of Anthropic Messages: what is counted and refused, cumulative figures, cost in message_delta, what ends a stream. */
#include "pass_fixture.h"

static int begin(void **state) {
    (void)state;
    return fx_begin(&pass_anthropic);
}

#define BASE "\"model\":\"m\",\"max_tokens\":100"
#define M "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define FN "{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"}}"

static void scan_counts(void **state) {
    (void)state;
    struct pass_request r;
    fx_scan("{\"model\":\"m\",\"max_tokens\":100,\"stream\":true,\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":64},"
            "\"system\":[{\"type\":\"text\",\"text\":\"abc\"}],\"messages\":["
            "{\"role\":\"user\",\"content\":\"ab\\u00e9\"},"
            "{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"data\":\"AAAA\"}},"
            "{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"https://x\"}},"
            "{\"type\":\"document\",\"title\":\"tt\",\"source\":{\"type\":\"text\",\"data\":\"ddd\"}},"
            "{\"type\":\"document\",\"source\":{\"type\":\"file\",\"file_id\":\"file_1\"}},"
            "{\"type\":\"tool_result\",\"tool_use_id\":\"t\",\"content\":[{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"data\":\"AAAA\"}}]},"
            "{\"type\":\"brand_new\"}]}]}",
            NULL, &r);
    assert_null(r.fault_code);
    assert_true(slice_is(r.model, "m") && r.stream && r.has_limit);
    assert_int_equal(r.limit, 100);
    assert_int_equal(r.reasoning, 64);
    assert_int_equal(r.n, 1);
    assert_int_equal(r.messages, 2);
    assert_int_equal(r.media, 2);
    assert_int_equal(r.references, 3);
    assert_int_equal(r.sealed_count, 1);
    assert_int_equal(r.prompt_bytes, strlen("{\"type\":\"text\",\"text\":\"abc\"}") + 4 + 2 + 3 + strlen("{\"type\":\"brand_new\"}"));
    fx_scan("{\"model\":\"m\",\"max_tokens\":0," M "}", NULL, &r);
    assert_null(r.fault_code);
    assert_int_equal(r.limit, 1); /* it only fills the cache */
}

static void scan_refuses(void **state) {
    (void)state;
    fx_refuses("[]", "invalid_value", NULL);
    fx_refuses("{\"max_tokens\":1," M "}", "missing_field", "model");
    fx_refuses("{\"model\":\"m\"," M "}", "missing_field", "max_tokens");
    fx_refuses("{" BASE "}", "missing_field", "messages");
    fx_refuses("{" BASE ",\"messages\":[]}", "invalid_value", "messages");
    fx_refuses("{" BASE ",\"messages\":[{\"role\":\"user\"}]}", "missing_field", "messages");
    fx_refuses("{" BASE ",\"messages\":[{\"content\":\"x\"}]}", "missing_field", "messages");
    fx_refuses("{" BASE ",\"messages\":[{\"role\":\"user\",\"content\":[\"x\"]}]}", "invalid_value", "messages");
    fx_refuses("{" BASE ",\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"content\":\"y\"}]}", "invalid_value", "messages");
    fx_refuses("{\"model\":\"m\",\"max_tokens\":-1," M "}", "invalid_value", "max_tokens");
    fx_refuses("{" BASE ",\"max_tokens\":5," M "}", "invalid_value", "max_tokens");
    fx_refuses("{" BASE "," M ",\"thinking\":{\"budget_tokens\":1,\"budget_tokens\":2}}", "invalid_value", "thinking.budget_tokens");
    fx_refuses("{" BASE "," M ",\"service_tier\":\"priority\"}", "unsupported_parameter", "service_tier");
    fx_refuses("{" BASE "," M ",\"speed\":\"fast\"}", "unsupported_parameter", "speed");
    fx_refuses("{" BASE "," M ",\"inference_geo\":\"us\"}", "unsupported_parameter", "inference_geo");
    fx_refuses("{" BASE "," M ",\"mcp_servers\":[{}]}", "unsupported_parameter", "mcp_servers");
    fx_refuses("{" BASE "," M ",\"container\":\"c\"}", "unsupported_parameter", "container");
    fx_refuses("{" BASE "," M ",\"thread\":{\"type\":\"continue\",\"previous_message_id\":\"msg_1\"}}", "unsupported_parameter",
               "thread");
    fx_refuses("{" BASE "," M ",\"billing_policy\":{\"type\":\"billing_policy\",\"bill_to\":\"user_profile\"}}",
               "unsupported_parameter", "billing_policy");
    fx_accepts("{" BASE "," M ",\"thread\":null,\"tools\":[{\"type\":\"browser_toolset_20260801\"}]}", NULL);
    fx_accepts("{" BASE "," M ",\"service_tier\":\"standard_only\",\"speed\":\"standard\",\"inference_geo\":null,\"mcp_servers\":[]}", NULL);
    fx_accepts("{" BASE "," M ",\"service_tier\":\"x\",\"speed\":\"fast\",\"mcp_servers\":[{}],\"container\":{\"id\":\"c\"}}",
               "service_tier speed mcp code_execution");
    fx_accepts("{" BASE "," M ",\"context_management\":{},\"metadata\":{},\"thinking\":{\"type\":\"adaptive\",\"display\":\"omitted\"}}", NULL);
}

static void tools(void **state) {
    (void)state;
    struct pass_request r;
    fx_accepts("{" BASE "," M ",\"tools\":[{\"type\":\"bash_20250124\",\"name\":\"bash\"},{\"type\":\"text_editor_20250728\",\"name\":\"e\"},"
               "{\"type\":\"memory_20250818\",\"name\":\"m\"},{\"type\":\"computer_20251124\",\"name\":\"c\"},{\"type\":\"custom\",\"name\":\"x\"},"
               "{\"type\":\"tool_search_tool_bm25_20251119\",\"name\":\"s\"}," FN "]}", NULL);
    fx_refuses("{" BASE "," M ",\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}]}", "unsupported_parameter", "tools");
    fx_refuses("{" BASE "," M ",\"tools\":[" FN ",{\"type\":\"web_search_20250305\",\"name\":\"ws\"}],\"tool_choice\":{\"type\":\"tool\",\"name\":\"ws\"}}",
               "unsupported_parameter", "tools");
    fx_accepts("{" BASE "," M ",\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}]}", "web_search");
    fx_refuses("{" BASE "," M ",\"tools\":[{\"type\":\"webber\",\"name\":\"web_search\"}]}", "unsupported_parameter", "tools");
    fx_scan("{" BASE "," M ",\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"ws\"}," FN ",{\"type\":\"code_execution_20250825\",\"name\":\"c\"}],"
            "\"tool_choice\":{\"type\":\"tool\",\"name\":\"f\"}}", NULL, &r);
    assert_null(r.fault_code);
    assert_int_equal(r.drops, 2);
    assert_int_equal(r.tools, 3);
    assert_true(slice_is(r.drop_names[0], "web_search_20250305"));
    fx_builds("{" BASE "," M ",\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"ws\"} , " FN ",{\"type\":\"advisor_20260301\",\"name\":\"c\"} ]}",
              NULL, EDIT(.model = SLICE("x")), "{\"model\":\"x\",\"max_tokens\":100," M ",\"tools\":[" FN " ]}");
}

static void build(void **state) {
    (void)state;
    fx_builds("{" BASE "," M ",\"temperature\":1,\"top_p\":0.5}", NULL,
              EDIT(.set_limit = true, .limit = 7, STRIP(SLICE("temperature"), SLICE("top_p"), SLICE("max_tokens"))),
              "{\"model\":\"m\",\"max_tokens\":7," M "}");
    fx_builds("{\"temperature\":1,\"top_k\":1," BASE "," M "}", NULL, EDIT(STRIP(SLICE("temperature"), SLICE("top_k"))), "{" BASE "," M "}");
    fx_builds("{" BASE ",\"container\":{\"id\":\"sealed.c\"},\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"container_upload\",\"file_id\":\"s.f\"},"
              "{\"type\":\"bash_code_execution_tool_result\",\"content\":{\"content\":[{\"file_id\":\"s.g\"}]}}]}]}",
              "container", EDIT(PLAIN(SLICE("c"), SLICE("f"), SLICE("g"))),
              "{" BASE ",\"container\":{\"id\":\"c\"},\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"container_upload\",\"file_id\":\"f\"},"
              "{\"type\":\"bash_code_execution_tool_result\",\"content\":{\"content\":[{\"file_id\":\"g\"}]}}]}]}");
    /* without provider-side state nothing changes */
    fx_builds("{" BASE "," M ",\"container\":\"x\"}", "container", EDIT(.model = SLICE_NONE), "{" BASE "," M ",\"container\":\"x\"}");
}

static void too_many_files(void **state) {
    (void)state;
    static char body[64 * (PASS_SEALED + 2)];
    int n = snprintf(body, sizeof body, "{" BASE ",\"messages\":[{\"role\":\"user\",\"content\":[");
    for (int i = 0; i < PASS_SEALED + 1; i++)
        n += snprintf(body + n, sizeof body - (size_t)n, "%s{\"type\":\"container_upload\",\"file_id\":\"f%d\"}", i ? "," : "", i);
    snprintf(body + n, sizeof body - (size_t)n, "]}]}");
    fx_refuses(body, "invalid_value", NULL);
}

#define EV(type, rest) "event: " type "\ndata: {\"type\":\"" type "\"" rest "}\n\n"
#define START(usage) EV("message_start", ",\"message\":{\"id\":\"msg_1\",\"content\":[],\"usage\":" usage "}")
#define OPEN EV("content_block_start", ",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}")
#define PING EV("ping", "")
#define TEXT(t) EV("content_block_delta", ",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"" t "\"}")
#define CLOSE EV("content_block_stop", ",\"index\":0")
#define DELTA(usage) EV("message_delta", ",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":" usage)
#define STOP EV("message_stop", "")

static void stream(void **state) {
    (void)state;
    const char *head = START("{\"input_tokens\":10,\"cache_read_input_tokens\":20,\"cache_creation_input_tokens\":30,\"cache_creation\":"
                             "{\"ephemeral_5m_input_tokens\":20,\"ephemeral_1h_input_tokens\":10},\"output_tokens\":1}");
    char in[2048], want[2048];
    snprintf(in, sizeof in, "%s%s", head, OPEN PING TEXT("ab") TEXT("c") CLOSE DELTA("{\"output_tokens\":5}") STOP);
    snprintf(want, sizeof want, "%s%s", head, OPEN PING TEXT("ab") TEXT("c") CLOSE DELTA("{\"output_tokens\":5,\"cost_usd\":0.0125}") STOP);
    fx_stream(in, PASS_OK, want);
    assert_int_equal(fx.asked, 1);
    assert_false(fx.estimated);
    fx_meters(10, 20, 20, 10, 5, 0);
    assert_int_equal(fx.a.text_bytes, 3);
    assert_true(fx.a.done);
    /* totals replace, an explicit zero too; thinking is a part of the output */
    snprintf(in, sizeof in, "%s%s", head, DELTA("{\"input_tokens\":12,\"cache_read_input_tokens\":0,\"output_tokens\":9,\"output_tokens_details\":"
                                                "{\"thinking_tokens\":4}}") STOP);
    fx_stream(in, PASS_OK, NULL);
    fx_meters(12, 0, 20, 10, 5, 4);
    /* several deltas: the last one counts */
    snprintf(in, sizeof in, "%s%s", head, EV("message_delta", ",\"delta\":{\"stop_reason\":null},\"usage\":{\"output_tokens\":100}")
             DELTA("{\"output_tokens\":7}") STOP);
    fx_stream(in, PASS_OK, NULL);
    fx_meters(10, 20, 20, 10, 7, 0);
    assert_null(strstr(strstr(fx_out(), "100"), "100,\"cost"));
}

static void stream_oddities(void **state) {
    (void)state;
    /* no figures at all: made; half of them: an estimate is better */
    fx_stream(START("null") DELTA("null") STOP, PASS_OK,
              START("null") DELTA("{\"input_tokens\":7,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":3,\"cost_usd\":0.0125}") STOP);
    assert_true(fx.estimated);
    fx_stream(START("null") DELTA("{\"output_tokens\":9}") STOP, PASS_OK, NULL);
    assert_true(fx.estimated);
    fx_stream(START("{\"input_tokens\":10,\"output_tokens\":1}") EV("message_delta", ",\"delta\":{\"stop_reason\":\"end_turn\"}") STOP, PASS_OK, NULL);
    assert_true(fx.estimated);
    assert_non_null(strstr(fx_out(), "},\"usage\":{\"input_tokens\":7,"));
    /* an event without its line; a second start; a ping before the first; OpenAI's terminator; what is unknown */
    fx_stream(PING "data: {\"type\":\"message_start\",\"message\":{}}\n\n" START("{}") EV("novelty", ",\"x\":1")
              DELTA("{\"input_tokens\":1,\"output_tokens\":1}") "data: [DONE]\n\n" STOP, PASS_OK,
              "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{}}\n\n" EV("novelty", ",\"x\":1")
              DELTA("{\"input_tokens\":1,\"output_tokens\":1,\"cost_usd\":0.0125}") STOP);
    /* a compaction step is in no top-level figure */
    fx_stream(START("{\"input_tokens\":10,\"output_tokens\":1}")
              DELTA("{\"input_tokens\":10,\"output_tokens\":5,\"iterations\":[{\"type\":\"compaction\",\"input_tokens\":100,\"output_tokens\":50},"
                    "{\"type\":\"message\",\"input_tokens\":10,\"output_tokens\":5}]}") STOP, PASS_OK, NULL);
    fx_meters(110, 0, 0, 0, 55, 0);
    fx.no_cost = true;
    fx_stream(START("{}") DELTA("{\"input_tokens\":1,\"output_tokens\":1}") STOP, PASS_OK, START("{}") DELTA("{\"input_tokens\":1,\"output_tokens\":1}") STOP);
}

static void text_is_counted(void **state) {
    (void)state;
    fx_stream(EV("content_block_delta", ",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"1234\"}")
              EV("content_block_delta", ",\"delta\":{\"type\":\"signature_delta\",\"signature\":\"zzzzzzzz\"}")
              EV("content_block_start", ",\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"go\",\"input\":{}}")
              EV("content_block_delta", ",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"a\\\"\"}")
              EV("content_block_start", ",\"content_block\":{\"type\":\"web_search_tool_result\",\"content\":[{\"title\":\"long\"}]}") STOP,
              PASS_OK, NULL);
    assert_int_equal(fx.a.text_bytes, 4 + 2 + 4);
}

static void stream_fails(void **state) {
    (void)state;
    fx_stream(START("{}") TEXT("a"), PASS_BAD, START("{}") TEXT("a"));
    fx_stream(START("{}") DELTA("{\"input_tokens\":1,\"output_tokens\":1}"), PASS_BAD, NULL); /* only message_stop ends it */
    fx_stream("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n", PASS_ERROR, "");
    assert_int_equal(fx.fault.status, 529);
    assert_string_equal(fx.fault_text, "busy");
    assert_int_equal(fx.a.events, 0);
    fx_stream(START("{}") "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"slow\"}}\n\n", PASS_ERROR,
              START("{}"));
    assert_int_equal(fx.fault.status, 429);
    fx_stream("data: nope\n\n", PASS_BAD, "");
    fx_fails("{\"type\":\"error\",\"error\":{}}", "event: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n");
    assert_true(slice_is(fx.pass->ping(&fx.a), "event: ping\ndata: {\"type\": \"ping\"}\n\n"));
}

static void whole(void **state) {
    (void)state;
    fx_whole("{\"type\":\"message\",\"content\":[{\"type\":\"text\",\"text\":\"abc\"}],\"usage\":{\"input_tokens\":3,\"output_tokens\":2}}", PASS_OK,
             "{\"type\":\"message\",\"content\":[{\"type\":\"text\",\"text\":\"abc\"}],\"usage\":{\"input_tokens\":3,\"output_tokens\":2,\"cost_usd\":0.0125}}");
    fx_meters(3, 0, 0, 0, 2, 0);
    assert_int_equal(fx.a.text_bytes, 3);
    fx_whole("{\"content\":[]}", PASS_OK, "{\"content\":[],\"usage\":{\"input_tokens\":7,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,"
             "\"output_tokens\":3,\"cost_usd\":0.0125}}");
    fx_whole("{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"no\",\"details\":{\"error_code\":\"ec\"}}}", PASS_ERROR, "");
    assert_int_equal(fx.fault.status, 400);
    assert_string_equal(fx.fault_code, "ec");
    fx_whole("{\"type\":\"message\"}", PASS_BAD, "");
    fx.seal = true;
    fx_whole("{\"content\":[{\"type\":\"bash_code_execution_tool_result\",\"content\":{\"content\":[{\"file_id\":\"f1\"}]}}],\"container\":{\"id\":\"c1\"},"
             "\"usage\":{\"input_tokens\":3,\"output_tokens\":2}}", PASS_OK,
             "{\"content\":[{\"type\":\"bash_code_execution_tool_result\",\"content\":{\"content\":[{\"file_id\":\"sealed.f1\"}]}}],"
             "\"container\":{\"id\":\"sealed.c1\"},\"usage\":{\"input_tokens\":3,\"output_tokens\":2,\"cost_usd\":0.0125}}");
    fx_stream(EV("message_start", ",\"message\":{\"id\":\"msg_1\",\"container\":{\"id\":\"c1\"}}") STOP, PASS_OK,
              EV("message_start", ",\"message\":{\"id\":\"msg_1\",\"container\":{\"id\":\"sealed.c1\"}}") STOP);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, begin, fx_end)
    const struct CMUnitTest tests[] = {
        T(scan_counts), T(scan_refuses), T(tools), T(build), T(too_many_files), T(stream), T(stream_oddities), T(text_is_counted), T(stream_fails),
        T(whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
