/* Tasks: what a body asks, and how it crosses to another wire. */
#include "task_fixture.h"

static struct json parse(const char *text) {
    struct json j;
    assert_true(json_parse(&j, &arena, text, strlen(text)));
    return j;
}

static void scanned(const struct task_module *m, enum ir_dialect client, const char *text, struct json *j,
                    struct task_call *c, struct pass_request *r) {
    *j = parse(text);
    *c = (struct task_call){ .client = client, .model = SLICE("shown") };
    *r = (struct pass_request){ .n = 1 };
    m->scan(j, c, r, &arena);
}

/* Body and path for a provider, or the fault's member. */
static void built(const struct task_module *m, const struct json *j, const struct task_call *c, enum ir_dialect to,
                  const char *path, const char *body) {
    struct task_target t = { .dialect = to, .model = SLICE("inner") };
    struct ir_dropped d = { 0 };
    struct ir_fault f = { 0 };
    struct buf p, b;
    buf_init(&p, &pages, PAGE_BYTES);
    buf_init(&b, &pages, 1 << 20);
    assert_true(m->build(j, c, &t, &d, &arena, &p, &b, &f));
    assert_string_equal(arena_copy(&arena, buf_slice(&p)).ptr, path);
    assert_string_equal(arena_copy(&arena, buf_slice(&b)).ptr, body);
    buf_release(&p);
    buf_release(&b);
}

static void embeddings_cross(void **state) {
    (void)state;
    struct json j;
    struct task_call c;
    struct pass_request r;
    scanned(&task_embeddings, IR_OPENAI, "{\"input\":[\"a\\u00e9\",\"b\"],\"x\":1.50,\"model\":\"m\"}", &j, &c, &r);
    assert_null(r.fault_code);
    assert_int_equal(c.inputs, 2);
    assert_int_equal(r.prompt_bytes, 4);
    built(&task_embeddings, &j, &c, IR_OPENAI, "/embeddings",
          "{\"input\":[\"a\\u00e9\",\"b\"],\"x\":1.50,\"model\":\"inner\"}");
    built(&task_embeddings, &j, &c, IR_GEMINI, "/models/inner:batchEmbedContents",
          "{\"requests\":[{\"model\":\"models/inner\",\"content\":{\"parts\":[{\"text\":\"a\\u00e9\"}]}},"
          "{\"model\":\"models/inner\",\"content\":{\"parts\":[{\"text\":\"b\"}]}}]}");
}

static void embeddings_answers_keep_their_bits(void **state) {
    (void)state;
    struct json j, a = parse("{\"embedding\":{\"values\":[0.1,-1.5,3.4028235e38,1e-45]}}");
    struct task_call c;
    struct pass_request r;
    struct task_figures fig = { 0 };
    struct ir_fault f = { 0 };
    struct ir_cost cost = { .show = true, .usd_nano = 1500 };
    struct buf out;
    buf_init(&out, &pages, 1 << 20);
    scanned(&task_embeddings, IR_OPENAI, "{\"model\":\"m\",\"input\":\"abcdefgh\",\"encoding_format\":\"base64\"}", &j,
            &c, &r);
    assert_int_equal(task_embeddings.read(&a, &c, IR_GEMINI, &arena, &fig, &f), TASK_OK);
    assert_false(fig.seen);
    assert_int_equal(fig.meters.n[METER_INPUT], 2);
    assert_true(task_embeddings.write(&a, &c, IR_GEMINI, &fig, &cost, &arena, &out));
    assert_string_equal(
        arena_copy(&arena, buf_slice(&out)).ptr,
        "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":\"zczMPQAAwL///39/"
        "AQAAAA==\"}],"
        "\"model\":\"shown\",\"usage\":{\"prompt_tokens\":2,\"total_tokens\":2,\"cost_usd\":0.0000015}}");
    buf_release(&out);
    a = parse("{\"data\":[{\"index\":0,\"embedding\":\"zczMPQAAwL///39/"
              "AQAAAA==\"}],\"usage\":{\"prompt_tokens\":3,\"total_tokens\":3}}");
    scanned(&task_embeddings, IR_GEMINI, "{\"content\":{\"parts\":[{\"text\":\"x\"}]}}", &j, &c, &r);
    assert_int_equal(task_embeddings.read(&a, &c, IR_OPENAI, &arena, &fig, &f), TASK_OK);
    assert_true(task_embeddings.write(&a, &c, IR_OPENAI, &fig, &cost, &arena, &out));
    assert_string_equal(arena_copy(&arena, buf_slice(&out)).ptr,
                        "{\"embedding\":{\"values\":[0.100000001,-1.5,3.40282347e+38,1.40129846e-45]},"
                        "\"usageMetadata\":{\"promptTokenCount\":3,\"costUsd\":0.0000015}}");
    buf_release(&out);
    a = parse("{\"data\":[{\"index\":0,\"embedding\":\"AADAfw==\"}]}"); /* NaN has no word in JSON */
    assert_false(task_embeddings.write(&a, &c, IR_OPENAI, &fig, &cost, &arena, &out));
    buf_release(&out);
}

static void pictures_have_defaults(void **state) {
    (void)state;
    static const struct slice sizes[] = { SLICE("512x512"), SLICE("256x256") };
    struct task_model m = { .sizes = sizes, .size_count = 2, .prompt_max = 2 };
    struct json j;
    struct task_call c;
    struct pass_request r;
    scanned(&task_images, IR_OPENAI, "{\"model\":\"m\",\"prompt\":\"\\u00e9a\"}", &j, &c, &r);
    task_images.check(&j, &c, &m, &r);
    assert_null(r.fault_code);
    built(&task_images, &j, &c, IR_OPENAI, "/images/generations",
          "{\"size\":\"512x512\",\"model\":\"inner\",\"prompt\":\"\\u00e9a\"}");
    built(&task_images, &j, &c, IR_GEMINI, "/models/inner:generateContent",
          "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"\\u00e9a\"}]}],\"generationConfig\":{"
          "\"responseModalities\":"
          "[\"TEXT\",\"IMAGE\"],\"imageConfig\":{\"aspectRatio\":\"1:1\"}}}");
    scanned(&task_images, IR_OPENAI, "{\"model\":\"m\",\"prompt\":\"abc\"}", &j, &c, &r);
    task_images.check(&j, &c, &m, &r);
    assert_string_equal(r.fault_param, "prompt");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(embeddings_cross, setup, teardown),
        cmocka_unit_test_setup_teardown(embeddings_answers_keep_their_bits, setup, teardown),
        cmocka_unit_test_setup_teardown(pictures_have_defaults, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
