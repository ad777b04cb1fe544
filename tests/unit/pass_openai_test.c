/* The pass path of Chat Completions: what a scan finds and refuses, what a build changes, where usage and cost go. */
#include "pass_fixture.h"

#include "proto/pass/alike.h"

static int begin(void **state) {
    (void)state;
    return fx_begin(&pass_openai_chat);
}

#define M "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define FN "{\"type\":\"function\",\"function\":{\"name\":\"f\"}}"

static void scan_counts(void **state) {
    (void)state;
    struct pass_request r;
    fx_scan("{\"model\":\"m\",\"n\":2,\"stream\":true,\"max_tokens\":50,\"max_completion_tokens\":40,\"messages\":["
            "{\"role\":\"system\",\"content\":\"ab\\u00e9\"},"
            "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"abc\"},{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:x\"}},"
            "{\"type\":\"image_url\",\"image_url\":{\"url\":\"https://x\"}},{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"x\"}},"
            "{\"type\":\"file\",\"file\":{\"file_id\":\"file-1\"}}]}]}",
            NULL, &r);
    assert_null(r.fault_code);
    assert_true(slice_is(r.model, "m"));
    assert_int_equal(r.n, 2);
    assert_true(r.stream && r.has_limit);
    assert_int_equal(r.limit, 40);
    assert_int_equal(r.prompt_bytes, 4 + 3);
    assert_int_equal(r.messages, 2);
    assert_int_equal(r.media, 2);
    assert_int_equal(r.references, 2);
    assert_int_equal(r.sealed_count, 1);
}

static void scan_refuses(void **state) {
    (void)state;
    fx_refuses("[]", "invalid_value", NULL);
    fx_refuses("{" M "}", "missing_field", "model");
    fx_refuses("{\"model\":\"\"," M "}", "invalid_value", "model");
    fx_refuses("{\"model\":7," M "}", "invalid_value", "model");
    fx_refuses("{\"model\":\"m\"}", "missing_field", "messages");
    fx_refuses("{\"model\":\"m\",\"messages\":[]}", "invalid_value", "messages");
    fx_refuses("{\"model\":\"m\",\"messages\":[{}]}", "missing_field", "messages");
    fx_refuses("{\"model\":\"m\"," M ",\"model\":\"n\"}", "invalid_value", "model");
    fx_refuses("{\"model\":\"m\"," M ",\"m\\u0061x_tokens\":1,\"max_tokens\":2}", "invalid_value", "max_tokens");
    fx_refuses("{\"model\":\"m\"," M ",\"max_tokens\":0}", "invalid_value", "max_tokens");
    fx_refuses("{\"model\":\"m\"," M ",\"max_tokens\":1.5}", "invalid_value", "max_tokens");
    fx_refuses("{\"model\":\"m\"," M ",\"n\":129}", "invalid_value", "n");
    fx_refuses("{\"model\":\"m\"," M ",\"stream\":1}", "invalid_value", "stream");
    fx_refuses("{\"model\":\"m\"," M ",\"service_tier\":\"priority\"}", "unsupported_parameter", "service_tier");
    fx_refuses("{\"model\":\"m\"," M ",\"modalities\":[\"text\",\"audio\"]}", "unsupported_parameter", "modalities");
    fx_refuses("{\"model\":\"m\"," M ",\"web_search_options\":{}}", "unsupported_parameter", "web_search_options");
    fx_refuses("{\"model\":\"m\"," M ",\"tools\":{}}", "invalid_value", "tools");
    fx_accepts("{\"model\":\"m\"," M ",\"service_tier\":\"priority\",\"web_search_options\":{},\"modalities\":[\"audio\"]}",
               "service_tier web_search audio");
    fx_accepts("{\"model\":\"m\"," M ",\"max_tokens\":null,\"n\":null,\"stream\":null,\"tools\":null,\"service_tier\":null}", NULL);
}

static void hosted_tools(void **state) {
    (void)state;
    struct pass_request r;
    const struct pass_edit none = { 0 };
    fx_refuses("{\"model\":\"m\"," M ",\"tools\":[{\"type\":\"web_search\"}]}", "unsupported_parameter", "tools");
    fx_refuses("{\"model\":\"m\"," M ",\"tools\":[" FN ",{\"type\":\"web_search\"}],\"tool_choice\":{\"type\":\"web_search\"}}",
               "unsupported_parameter", "tools");
    fx_refuses("{\"model\":\"m\",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"auto\",\"tools\":[{\"type\":\"web_search\"}]}},"
               M ",\"tools\":[" FN ",{\"type\":\"web_search\"}]}", "unsupported_parameter", "tools");
    fx_accepts("{\"model\":\"m\"," M ",\"tools\":[{\"type\":\"web_search_2026\"}]}", "web_search");
    fx_scan("{\"model\":\"m\"," M ",\"tools\":[{\"type\":\"web_search\"}," FN ",{\"type\":\"image generation\"}]}", NULL, &r);
    assert_null(r.fault_code);
    assert_int_equal(r.drops, 2);
    assert_true(slice_is(r.drop_names[0], "web_search") && slice_is(r.drop_names[1], "tool"));
    fx_builds("{\"model\":\"m\"," M ",\"tools\":[{\"type\":\"web_search\"}," FN ",{\"type\":\"x\"} , {\"type\":\"y\"}]}", NULL, none,
              "{\"model\":\"m\"," M ",\"tools\":[" FN "]}");
    fx_builds("{\"model\":\"m\"," M ",\"tools\":[ " FN " ,{\"type\":\"x\"}," FN "]}", NULL, none,
              "{\"model\":\"m\"," M ",\"tools\":[ " FN "," FN "]}");
}

static void build_edits(void **state) {
    (void)state;
    fx_builds("{\"model\":\"m\"," M ",\"odd\":1e400}", NULL, EDIT(.model = SLICE("a\"b")), "{\"model\":\"a\\\"b\"," M ",\"odd\":1e400}");
    fx_builds("{ \"model\" : \"m\"," M "}", NULL, EDIT(.set_limit = true, .limit = 9), "{\"max_completion_tokens\":9, \"model\" : \"m\"," M "}");
    fx_builds("{\"model\":\"m\"," M "}", NULL, EDIT(.set_limit = true, .limit = 9, .limit_field = SLICE("max_tokens")),
              "{\"max_tokens\":9,\"model\":\"m\"," M "}");
    fx_builds("{\"model\":\"m\",\"max_tokens\":50," M ",\"max_completion_tokens\":60}", NULL, EDIT(.set_limit = true, .limit = 9),
              "{\"model\":\"m\",\"max_tokens\":9," M ",\"max_completion_tokens\":9}");
    fx_builds("{\"model\":\"m\",\"max_completion_tokens\":null," M "}", NULL, EDIT(.set_limit = true, .limit = 9),
              "{\"model\":\"m\",\"max_completion_tokens\":9," M "}");
    fx_builds("{\"model\":\"m\",\"max_tokens\":50," M "}", NULL, EDIT(.limit_field = SLICE("max_completion_tokens")),
              "{\"model\":\"m\",\"max_completion_tokens\":50," M "}");
}

static void build_usage_option(void **state) {
    (void)state;
    const struct pass_edit ask = { .ask_usage = true };
    fx_builds("{\"model\":\"m\"," M "}", NULL, ask, "{\"model\":\"m\"," M "}");
    fx_builds("{\"model\":\"m\",\"stream\":true," M "}", NULL, ask,
              "{\"stream_options\":{\"include_usage\":true},\"model\":\"m\",\"stream\":true," M "}");
    fx_builds("{\"model\":\"m\",\"stream\":true," M ",\"stream_options\":{}}", NULL, ask,
              "{\"model\":\"m\",\"stream\":true," M ",\"stream_options\":{\"include_usage\":true}}");
    fx_builds("{\"model\":\"m\",\"stream\":true," M ",\"stream_options\":null}", NULL, ask,
              "{\"model\":\"m\",\"stream\":true," M ",\"stream_options\":{\"include_usage\":true}}");
    fx_builds("{\"model\":\"m\",\"stream\":true," M ",\"stream_options\":{\"x\":1}}", NULL, ask,
              "{\"model\":\"m\",\"stream\":true," M ",\"stream_options\":{\"include_usage\":true,\"x\":1}}");
    fx_builds("{\"model\":\"m\",\"stream\":true," M ",\"stream_options\":{\"include_usage\":false}}", NULL, ask,
              "{\"model\":\"m\",\"stream\":true," M ",\"stream_options\":{\"include_usage\":true}}");
    fx_builds("{\"model\":\"m\",\"stream\":true," M ",\"stream_options\":{\"include_usage\":true}}", NULL, ask,
              "{\"model\":\"m\",\"stream\":true," M ",\"stream_options\":{\"include_usage\":true}}");
}

static void build_strips(void **state) {
    (void)state;
    struct pass_edit e = EDIT(STRIP(SLICE("seed"), SLICE("top_p"), SLICE("absent"), SLICE("user"), SLICE("model")));
    const char *got = fx_build("{\"seed\":1 , \"model\":\"m\",\"top_p\":0.5,\"user\":\"u\"," M ",\"us\\u0065r\":\"v\"}", NULL, &e);
    assert_string_equal(got, "{\"model\":\"m\"," M "}");
    assert_int_equal(e.stripped, 1 | 2 | 8);
    /* what lies in a stripped member goes with it */
    e = EDIT(STRIP(SLICE("tools")));
    got = fx_build("{\"model\":\"m\"," M ",\"tools\":[" FN ",{\"type\":\"x\"}]}", NULL, &e);
    assert_string_equal(got, "{\"model\":\"m\"," M "}");
}

static void build_unseals(void **state) {
    (void)state;
    fx_builds("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"file\",\"file\":{\"file_id\":\"sealed.1\"}}]}]}", NULL,
              EDIT(PLAIN(SLICE("file-1"))),
              "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"file\",\"file\":{\"file_id\":\"file-1\"}}]}]}");
}

#define ID "\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":\"m\""
#define TEXT(t) "data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" t "\"}}]}\n\n"
#define FINISH "data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
#define USAGE "\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15}"
#define DETAILS "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0}," \
    "\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0}"
#define MADE "\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"total_tokens\":10," DETAILS ",\"cost_usd\":0.0125}"
#define COSTED "\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15,\"cost_usd\":0.0125}"
#define EXTRA(u) "data: {" ID ",\"choices\":[]," u "}\n\n"
#define DONE "data: [DONE]\n\n"

static void stream_with_the_extra_chunk(void **state) {
    (void)state;
    fx.wants_usage = true;
    fx_stream(TEXT("ab") FINISH EXTRA(USAGE) DONE, PASS_OK, TEXT("ab") FINISH EXTRA(COSTED) DONE);
    assert_int_equal(fx.asked, 1);
    assert_false(fx.estimated);
    assert_int_equal(fx.a.text_bytes, 2);
    fx_meters(10, 0, 0, 0, 5, 0);
    /* on the finish chunk alone, as some vendors do: moved to the standard place */
    fx_stream(TEXT("ab") "data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]," USAGE "}\n\n" DONE, PASS_OK,
              TEXT("ab") "data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n" EXTRA(COSTED) DONE);
    /* none at all: made */
    fx_stream(TEXT("ab") FINISH DONE, PASS_OK,
              TEXT("ab") FINISH EXTRA(MADE) DONE);
    assert_true(fx.estimated);
    /* figures before the reason wait for it; where none comes they go before the terminator */
    fx_stream(TEXT("ab") EXTRA(USAGE) FINISH DONE, PASS_OK, TEXT("ab") FINISH EXTRA(COSTED) DONE);
    fx_stream(TEXT("ab") EXTRA(USAGE) DONE, PASS_OK, TEXT("ab") EXTRA(COSTED) DONE);
}

static void stream_without(void **state) {
    (void)state;
    const char *want = TEXT("ab") "data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]," COSTED "}\n\n" DONE;
    fx_stream(TEXT("ab") FINISH EXTRA(USAGE) DONE, PASS_OK, want);
    assert_true(fx.a.usage_sent);
    /* a null usage in every chunk is not shown; figures on the finish chunk stay there */
    fx_stream("data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ab\"}}],\"usage\":null}\n\n"
              "data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]," USAGE "}\n\n" DONE, PASS_OK, want);
    /* the provider's own object, whatever else is in it */
    fx_stream(FINISH EXTRA("\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"x\":{}}") DONE, PASS_OK,
              "data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,"
              "\"completion_tokens\":5,\"x\":{},\"cost_usd\":0.0125}}\n\n" DONE);
    /* the terminator is missing, but the answer said why it ended */
    fx_stream(TEXT("ab") FINISH EXTRA(USAGE), PASS_OK, want);
    /* no reason at all: a chunk of ours bears the figures, with a choice */
    fx_stream(TEXT("ab") EXTRA(USAGE) DONE, PASS_OK,
              TEXT("ab") "data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,"
              "\"completion_tokens\":5,\"total_tokens\":15," DETAILS ",\"cost_usd\":0.0125}}\n\n" DONE);
    fx.tokens = true;
    fx_stream(FINISH EXTRA(USAGE) DONE, PASS_OK,
              "data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,"
              "\"total_tokens\":15,\"cost_usd\":0.0125,\"cost_tokens\":99}}\n\n" DONE);
    fx.no_cost = true;
    fx_stream(FINISH EXTRA(USAGE) DONE, PASS_OK,
              "data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]," USAGE "}\n\n" DONE);
}

/* Figures where vendors put them: under x_groq, in a choice, beside an empty delta behind the reason. */
static void stream_usage_places(void **state) {
    (void)state;
    const char *fin = "data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"%s}]%s}\n\n" DONE;
    char in[600];
    snprintf(in, sizeof in, fin, "", ",\"x_groq\":{" USAGE "}");
    fx_stream(in, PASS_OK,
              "data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"x_groq\":{" USAGE "},"
              "\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15," DETAILS ",\"cost_usd\":0.0125}}\n\n" DONE);
    fx_meters(10, 0, 0, 0, 5, 0);
    snprintf(in, sizeof in, fin, "," USAGE, "");
    fx_stream(in, PASS_OK,
              "data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"," USAGE "}],"
              "\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15," DETAILS ",\"cost_usd\":0.0125}}\n\n" DONE);
    fx_meters(10, 0, 0, 0, 5, 0);
    fx.wants_usage = true;
    fx_stream(FINISH "data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":null}]," USAGE "}\n\n" DONE,
              PASS_OK,
              FINISH "data: {" ID ",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n"
              EXTRA(COSTED) DONE);
    fx_meters(10, 0, 0, 0, 5, 0);
}

#define FIN(i) "{" ID ",\"choices\":[{\"index\":" i ",\"delta\":{},\"finish_reason\":\"stop\"}]"

static void stream_of_two_answers(void **state) {
    (void)state;
    fx_stream("data: " FIN("0") "}\n\n" TEXT("c") "data: " FIN("1") "}\n\n" EXTRA(USAGE) DONE, PASS_OK,
              TEXT("c") "data: " FIN("0") "}\n\n" "data: " FIN("1") "," COSTED "}\n\n" DONE);
}

static void stream_fails(void **state) {
    (void)state;
    fx_stream(TEXT("ab"), PASS_BAD, TEXT("ab"));
    fx_stream(TEXT("ab") "data: {\"id\":", PASS_BAD, TEXT("ab"));
    fx_stream("data: <html>\n\n", PASS_BAD, "");
    fx_stream(DONE, PASS_BAD, "");
    fx_stream(TEXT("ab") "data: {\"error\":{\"message\":\"no\",\"code\":429,\"type\":\"rate_limit_error\"}}\n\n", PASS_ERROR, TEXT("ab"));
    assert_string_equal(fx.fault_text, "no");
    assert_int_equal(fx.fault.status, 429);
    fx_stream("event: error\ndata: {\"message\":\"no\"}\n\n", PASS_ERROR, "");
    assert_int_equal(fx.a.events, 0);
    fx_fails("{\"error\":{\"message\":\"x\"}}", "data: {\"error\":{\"message\":\"x\"}}\n\n");
}

static void ids(void **state) {
    (void)state;
    fx.id_prefix = "hjl-";
    fx_whole("{\"id\":\"chatcmpl-1\",\"choices\":[]," USAGE "}", PASS_OK, "{\"id\":\"hjl-1\",\"choices\":[]," COSTED "}");
    fx_whole("{\"id\":\"gen-1\",\"choices\":[]," USAGE "}", PASS_OK, "{\"id\":\"gen-1\",\"choices\":[]," COSTED "}");
    fx_stream("data: {\"id\":\"cmpl-1\",\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}]}\n\n" DONE, PASS_OK,
              "data: {\"id\":\"hjl-1\",\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}]," MADE "}\n\n" DONE);
    fx.seal = true;
    fx_whole("{\"id\":\"chatcmpl-1\",\"choices\":[{\"message\":{\"audio\":{\"id\":\"audio_1\"}}}]," USAGE "}", PASS_OK,
             "{\"id\":\"hjl-1\",\"choices\":[{\"message\":{\"audio\":{\"id\":\"sealed.audio_1\"}}}]," COSTED "}");
}

static void whole(void **state) {
    (void)state;
    fx_whole("{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"abc\"}}]}", PASS_OK,
             "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"abc\"}}]," MADE "}");
    assert_int_equal(fx.a.text_bytes, 3);
    /* a gateway behind us wrote a cost: ours stands alone */
    fx_whole("{\"choices\":[],\"usage\":{\"cost_usd\":1,\"prompt_tokens\":1,\"completion_tokens\":1,\"cost_tokens\":4}}", PASS_OK,
             "{\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"cost_usd\":0.0125}}");
    fx_whole("{\"choices\":[],\"usage\":null}", PASS_OK,
             "{\"choices\":[]," MADE "}");
    fx_whole("{\"error\":{\"message\":\"no\",\"code\":\"context_length_exceeded\"}}", PASS_ERROR, "");
    assert_string_equal(fx.fault_code, "context_length_exceeded");
    fx_whole("{}", PASS_BAD, "");
    fx_whole("[]", PASS_BAD, "");
}

static void lines_and_ends(void **state) {
    (void)state;
    /* CRLF, a comment, data of two lines: what is not edited goes as it came, what is edited stays one line */
    fx_stream(": hello\r\n\r\ndata: {\"choices\":\r\ndata: [{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\r\n\r\ndata:{\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\r\n\r\n" FINISH
              DONE, PASS_OK, NULL);
    assert_non_null(strstr(fx_out(), "data: {\"choices\": [{\"delta\":{\"content\":\"a\"}}]}\n\n"));
    assert_non_null(strstr(fx_out(), "\ndata:{\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\r\n\r"));
}

#define CHUNK(content, more) "data: {\"id\":\"c-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" content "\"},\"finish_reason\":null}]" more "}\n\n"

/* Whether the event is taken as like the last one that was kept, and what comes of it. */
static bool alike(const char *event, uint64_t text_bytes, const char *want_out) {
    static struct pieces out;
    struct sse_event ev = { .raw = slice_str(event) };
    struct alike_found found;
    memset(&out, 0, sizeof out);
    bool taken = alike_take(&fx.a.alike, &ev, &fx.scratch, &out, &found);
    if (taken) {
        assert_int_equal(found.text_bytes, text_bytes);
        assert_string_equal(fx_flat(&out).ptr, want_out);
    } else {
        assert_int_equal(out.count, 0);
    }
    arena_reset(&fx.scratch);
    return taken;
}
#define SAME(event, text_bytes) assert_true(alike(event, text_bytes, event))
#define OTHER(event) assert_false(alike(event, 0, ""))

/* (fx_stream compares with a stream of which every event is parsed.) */
static void events_like_the_one_before(void **state) {
    (void)state;
    fx_stream(CHUNK("a", "") CHUNK("bcd", "") CHUNK("", "") CHUNK("\xe4\xbd\xa0", "") CHUNK("\\n\\\"", "") CHUNK("\\u00e9", "") FINISH DONE, PASS_OK, NULL);
    assert_int_equal(fx.a.text_bytes, 1 + 3 + 3 + 2 + 2);
    SAME(CHUNK("a", ""), 1);
    SAME(CHUNK("", ""), 0);
    SAME(CHUNK("\xe4\xbd\xa0\\n\\\\", ""), 5);
    OTHER(CHUNK("\\u00e9", "")); /* only the parser reads these */
    OTHER(CHUNK("\\x", ""));
    OTHER(CHUNK("\t", ""));
    OTHER(CHUNK("\xe4\xbd", ""));
    OTHER(CHUNK("a\":\"b", ""));
    OTHER(CHUNK("a", "") "\n");
    OTHER(CHUNK("a", ",\"usage\":null"));
    OTHER("data: {\"id\":\"c-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a");
    OTHER("");
    /* what ends it, an error, figures, another choice: each is seen behind any number of alike events */
    fx_stream(CHUNK("a", "") CHUNK("b", "") "data: {\"error\":{\"message\":\"no\"}}\n\n", PASS_ERROR, CHUNK("a", "") CHUNK("b", ""));
    fx_stream(CHUNK("a", "") CHUNK("b", "") CHUNK("\xff", ""), PASS_BAD, CHUNK("a", "") CHUNK("b", ""));
    fx_stream(CHUNK("a", "") CHUNK("b", "") CHUNK("c", ",\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}") CHUNK("d", "") FINISH DONE, PASS_OK, NULL);
    fx_meters(1, 0, 0, 0, 2, 0);
    /* two texts and padding, whose members may stand anywhere */
    fx_stream("data: {\"obfuscation\":\"xx\",\"choices\":[{\"delta\":{\"content\":\"a\",\"reasoning\":\"bc\"}}]}\n\n"
              "data: {\"obfuscation\":\"\",\"choices\":[{\"delta\":{\"content\":\"dd\",\"reasoning\":\"\"}}]}\n\n" FINISH DONE, PASS_OK, NULL);
    assert_int_equal(fx.a.text_bytes, 5);
    SAME("data: {\"obfuscation\":\"yyy\",\"choices\":[{\"delta\":{\"content\":\"e\",\"reasoning\":\"f\"}}]}\n\n", 2);
    /* edited alike: what is cut out of one is cut out of all */
    fx_stream(CHUNK("a", ",\"usage\":null") CHUNK("bcd", ",\"usage\":null") CHUNK("e", ",\"usage\":null") FINISH DONE, PASS_OK, NULL);
    assert_memory_equal(fx_out(), CHUNK("a", "") CHUNK("bcd", "") CHUNK("e", ""), strlen(CHUNK("a", "") CHUNK("bcd", "") CHUNK("e", "")));
    assert_true(alike(CHUNK("xyz", ",\"usage\":null"), 3, CHUNK("xyz", "")));
    /* too many texts, or too long between them: not kept */
    fx_stream("data: {\"choices\":[{\"delta\":{\"a\":\"1\",\"b\":\"2\",\"c\":\"3\",\"d\":\"4\",\"e\":\"5\"}}]}\n\n" FINISH DONE, PASS_OK, NULL);
    assert_int_equal(fx.a.alike.in, 0);
    fx_stream(arena_printf(&fx.arena, "data: {\"id\":\"%0*d\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n" FINISH DONE, ALIKE_BYTES, 1).ptr, PASS_OK, NULL);
    assert_int_equal(fx.a.alike.in, 0);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, begin, fx_end)
    const struct CMUnitTest tests[] = {
        T(scan_counts), T(scan_refuses), T(hosted_tools), T(build_edits), T(build_usage_option), T(build_strips), T(build_unseals),
        T(stream_with_the_extra_chunk), T(stream_without), T(stream_usage_places), T(stream_of_two_answers), T(stream_fails), T(ids), T(whole), T(lines_and_ends),
        T(events_like_the_one_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
