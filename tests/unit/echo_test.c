/* The echo upstream: shapes of its answers, limits, and that sampled values satisfy what their schema requires. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/echo.h"
#include "proto/sse.h"

static struct pages pages;
static struct arena arena;
static struct buf out;
static bool stream;

static int begin(void **state) {
    (void)state;
    arena_init(&arena, &pages, 4 << 20);
    buf_init(&out, &pages, 4 << 20);
    return 0;
}

static int end(void **state) {
    (void)state;
    buf_release(&out);
    arena_reset(&arena);
    return pages.in_use != 0 || pages.big_bytes != 0;
}

static struct json parse(const char *text, size_t len) {
    struct json j;
    if (!json_parse(&j, &arena, text, len))
        fail_msg("%s at %zu of %.*s", json_err_text(j.err), j.err_at, (int)len, text);
    return j;
}

static void ask(const char *request) {
    struct json j = parse(request, strlen(request));
    buf_consume(&out, out.len);
    assert_true(echo_answer(&j, SLICE("m"), 7, SLICE("chatcmpl-1"), &arena, &out, &stream));
}

/* The value at a path of names and indexes of the whole answer, as raw text. */
static struct slice at(struct json *j, const char *path) {
    int t = 0;
    char step[32];
    while (*path) {
        size_t n = strcspn(path, ".");
        snprintf(step, sizeof step, "%.*s", (int)n, path);
        path += n + (path[n] == '.');
        if (json_is(j, t, JSON_ARRAY)) {
            int i = atoi(step), list = t;
            for (t = json_first(j, list); t >= 0 && i > 0; i--)
                t = json_next(j, list, t);
        } else
            t = json_get(j, t, step);
        if (t < 0)
            return SLICE("(none)");
    }
    return json_is(j, t, JSON_STRING) ? json_str(j, t, &arena) : json_raw(j, t);
}

static void expect(const char *path, const char *value) {
    struct json j = parse(buf_ptr(&out), out.len);
    struct slice got = at(&j, path);
    if (!slice_is(got, value))
        fail_msg("%s is %.*s, not %s", path, SLICE_ARG(got), value);
}

static void answers_the_last_user_message(void **state) {
    (void)state;
    ask("{\"messages\":[{\"role\":\"user\",\"content\":\"no\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\","
        "\"text\":\"Hi \\u00e9\"}]}]}");
    assert_false(stream);
    expect("choices.0.message.content", "Echo: Hi \xc3\xa9");
    expect("choices.0.finish_reason", "stop");
    expect("usage.prompt_tokens", "2"); /* 2 + 5 bytes */
    expect("usage.completion_tokens", "3");
    expect("usage.total_tokens", "5");
    expect("id", "chatcmpl-1");
    expect("created", "7");
    expect("model", "m");
    expect("object", "chat.completion");
}

static void honours_limit_stop_and_n(void **state) {
    (void)state;
    ask("{\"messages\":[{\"role\":\"user\",\"content\":\"0123456789\"}],\"max_tokens\":2,\"n\":3}");
    expect("choices.0.message.content", "Echo: 01");
    expect("choices.2.finish_reason", "length");
    expect("choices.2.index", "2");
    expect("choices.3", "(none)");
    expect("usage.completion_tokens", "6");
    ask("{\"messages\":[{\"role\":\"user\",\"content\":\"0123456789\"}],\"stop\":[\"9\",\"56\"],\"max_completion_"
        "tokens\":100}");
    expect("choices.0.message.content", "Echo: 01234");
    expect("choices.0.finish_reason", "stop");
    ask("{\"messages\":[{\"role\":\"user\",\"content\":\"\xc3\xa9\xc3\xa9\xc3\xa9\"}],\"max_completion_tokens\":2}");
    expect("choices.0.message.content", "Echo: \xc3\xa9");
    ask("{\"prompt\":\"Once\",\"max_tokens\":1}");
    expect("choices.0.text", "Echo");
    expect("object", "text_completion");
}

#define TOOLS                                                                                                        \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a\"}},{\"type\":\"function\",\"function\":{"         \
    "\"name\":\"b\",\"parameters\":"                                                                                 \
    "{\"type\":\"object\",\"required\":[\"q\",\"n\"],\"properties\":{\"q\":{\"enum\":[\"x\",\"y\"]},\"n\":{"         \
    "\"type\":\"integer\",\"minimum\":5},\"opt\":{\"type\":\"string\"}}}}}]"

static void calls_tools(void **state) {
    (void)state;
    ask("{\"messages\":[{\"role\":\"user\",\"content\":\"go\"}]," TOOLS "}");
    expect("choices.0.message.tool_calls.0.function.name", "a");
    expect("choices.0.message.tool_calls.0.function.arguments", "{}");
    expect("choices.0.message.content", "null");
    expect("choices.0.finish_reason", "tool_calls");
    ask("{\"messages\":[{\"role\":\"user\",\"content\":\"go\"}],\"tool_choice\":{\"type\":\"function\",\"function\":{"
        "\"name\":\"b\"}}," TOOLS "}");
    expect("choices.0.message.tool_calls.0.function.arguments", "{\"q\":\"x\",\"n\":5}");
    ask("{\"messages\":[{\"role\":\"user\",\"content\":\"go\"}],\"tool_choice\":\"none\"," TOOLS "}");
    expect("choices.0.message.content", "Echo: go");
    ask("{\"messages\":[{\"role\":\"user\",\"content\":\"go\"},{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\","
        "\"function\":{\"name\":\"a\","
        "\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"42 degrees\"}]," TOOLS "}");
    expect("choices.0.message.content", "The tool answered: 42 degrees");
    expect("choices.0.finish_reason", "stop");
}

static void writes_json_where_asked(void **state) {
    (void)state;
    ask("{\"messages\":[{\"role\":\"user\",\"content\":\"a "
        "\\\"b\\\"\"}],\"response_format\":{\"type\":\"json_object\"}}");
    expect("choices.0.message.content", "{\"echo\":\"a \\\"b\\\"\"}");
    ask("{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"response_format\":{\"type\":\"json_schema\",\"json_"
        "schema\":{\"name\":\"r\","
        "\"schema\":{\"type\":\"object\",\"required\":[\"ok\"],\"properties\":{\"ok\":{\"type\":\"boolean\"}}}}}}");
    expect("choices.0.message.content", "{\"ok\":true}");
}

/* Reads the stream back: content and arguments joined, and the number of chunks of each kind. */
static void streams(void **state) {
    (void)state;
    ask("{\"messages\":[{\"role\":\"user\",\"content\":\"one two  "
        "three\"}],\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    assert_true(stream);
    struct sse s;
    struct sse_event ev;
    size_t used;
    char text[256] = "", finish[32] = "";
    int chunks = 0, usages = 0;
    bool done = false;
    sse_init(&s, 65536);
    while (sse_next(&s, buf_slice(&out), &arena, &ev, &used) == SSE_EVENT) {
        assert_false(done);
        if (slice_is(ev.data, "[DONE]"))
            done = true;
        else {
            struct json j = parse(ev.data.ptr, ev.data.len);
            struct slice part = at(&j, "choices.0.delta.content"), fin = at(&j, "choices.0.finish_reason");
            if (!slice_is(part, "(none)") && !slice_is(part, "null"))
                strncat(text, part.ptr, part.len);
            if (!slice_is(fin, "null") && !slice_is(fin, "(none)"))
                snprintf(finish, sizeof finish, "%.*s", SLICE_ARG(fin));
            usages += !slice_is(at(&j, "usage"), "null");
            chunks++;
        }
        buf_consume(&out, used);
    }
    assert_true(done);
    assert_int_equal(out.len, 0);
    assert_string_equal(text, "Echo: one two  three");
    assert_string_equal(finish, "stop");
    assert_int_equal(chunks, 1 + 4 + 1 + 1);
    assert_int_equal(usages, 1);
}

static void sample_is(const char *schema, const char *value) {
    struct json j = parse(schema, strlen(schema));
    buf_consume(&out, out.len);
    assert_true(echo_sample(&j, 0, &arena, &out));
    if (!slice_is(buf_slice(&out), value))
        fail_msg("%s gives %.*s, not %s", schema, (int)out.len, buf_ptr(&out), value);
}

static void samples_satisfy_their_schema(void **state) {
    (void)state;
    sample_is("{}", "{}");
    sample_is("{\"type\":\"string\",\"minLength\":6}", "\"echoec\"");
    sample_is("{\"type\":\"string\",\"maxLength\":2}", "\"ec\"");
    sample_is("{\"type\":\"string\",\"format\":\"date\"}", "\"2025-01-01\"");
    sample_is("{\"type\":\"integer\",\"minimum\":0,\"maximum\":0}", "0");
    sample_is("{\"type\":\"integer\",\"exclusiveMinimum\":3}", "4");
    sample_is("{\"type\":\"number\",\"maximum\":-2}", "-2");
    sample_is("{\"type\":\"number\",\"minimum\":0.5,\"maximum\":0.7}", "0.5");
    sample_is("{\"type\":\"integer\",\"minimum\":7,\"multipleOf\":5}", "10");
    sample_is("{\"type\":[\"null\",\"boolean\"]}", "true");
    sample_is("{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":2}", "[1,1]");
    sample_is("{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}", "[]");
    sample_is("{\"anyOf\":[{\"const\":3},{\"type\":\"string\"}]}", "3");
    sample_is(
        "{\"$defs\":{\"p\":{\"type\":\"object\",\"required\":[\"x\"],\"properties\":{\"x\":{\"type\":\"null\"}}}},"
        "\"type\":\"object\",\"required\":[\"p\",\"free\"],\"properties\":{\"p\":{\"$ref\":\"#/$defs/p\"}}}",
        "{\"p\":{\"x\":null},\"free\":\"echo\"}");
    sample_is("{\"allOf\":[{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{\"a\":{\"enum\":[1]}}},{"
              "\"required\":[\"b\"],"
              "\"properties\":{\"b\":{\"enum\":[2]}}}]}",
              "{\"a\":1,\"b\":2}");
}

/* Schemas that would never end: the answer is bounded and still JSON. */
static void hostile_schemas_end(void **state) {
    (void)state;
    static const char *const schemas[] = {
        "{\"$ref\":\"#\"}",
        "{\"allOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#\"}]}",
        "{\"type\":\"object\",\"required\":[\"a\",\"b\"],\"properties\":{\"a\":{\"$ref\":\"#\"},\"b\":{\"$ref\":\"#\"}}}",
        "{\"type\":\"array\",\"minItems\":1000000000,\"items\":{\"$ref\":\"#\"}}",
        "{\"type\":\"string\",\"minLength\":1000000000}",
    };
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        struct json j = parse(schemas[i], strlen(schemas[i]));
        buf_consume(&out, out.len);
        assert_true(echo_sample(&j, 0, &arena, &out));
        assert_true(out.len < 2 << 20);
        parse(buf_ptr(&out), out.len);
    }
}

static void reports_a_full_buffer(void **state) {
    (void)state;
    struct buf small;
    const char *request = "{\"messages\":[{\"role\":\"user\",\"content\":\"one two three\"}],\"stream\":true}";
    struct json j = parse(request, strlen(request));
    buf_init(&small, &pages, 300);
    assert_false(echo_answer(&j, SLICE("m"), 7, SLICE("i"), &arena, &small, &stream));
    buf_release(&small);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answers_the_last_user_message, begin, end),
        cmocka_unit_test_setup_teardown(honours_limit_stop_and_n, begin, end),
        cmocka_unit_test_setup_teardown(calls_tools, begin, end),
        cmocka_unit_test_setup_teardown(writes_json_where_asked, begin, end),
        cmocka_unit_test_setup_teardown(streams, begin, end),
        cmocka_unit_test_setup_teardown(samples_satisfy_their_schema, begin, end),
        cmocka_unit_test_setup_teardown(hostile_schemas_end, begin, end),
        cmocka_unit_test_setup_teardown(reports_a_full_buffer, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
