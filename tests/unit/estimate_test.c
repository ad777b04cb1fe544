/* How near the estimate of a count comes: texts against real tokenizers' counts of them, conversations against the
 * providers' own counts; what is read off pictures and documents; whose count is meant; and hostile input. */
#include "task_fixture.h"

#include <stdio.h>

#include "proto/base/check.h"
#include "proto/base/crypto.h"
#include "proto/task/counter.h"
#include "proto/task/media.h"
#include "proto/task/weigh.h"

static uint64_t estimate(enum ir_dialect client, struct slice body, const struct task_provider *p) {
    struct json j;
    assert_true(json_parse(&j, &arena, body.ptr, body.len));
    uint64_t n = task_estimate(&j, client, p);
    arena_reset(&arena);
    return n;
}

static void near(uint64_t guess, uint64_t truth, const char *what) {
    if (guess * 100 < truth * 75 || guess * 100 > truth * 125)
        fail_msg("%s: %llu for %llu", what, (unsigned long long)guess, (unsigned long long)truth);
}

/* ---- texts ------------------------------------------------------------------------------------------------------- */

/* Written for this test; counted by o200k, by reconstructions of both of Claude's tokenizers, and by Gemma's. */
static void texts_weigh_what_tokenizers_count(void **state) {
    (void)state;
    static const struct {
        const char *what, *text;
        uint64_t tokens[WEIGH_KINDS];
    } known[] = {
        { "prose",
          "The gateway reads each request once, finds the model and the limit in it, and decides whether the account "
          "can pay before a single byte goes to the provider. What the provider answers is sent on as it comes; only "
          "the last event, the one that bears the usage, waits for its price.",
          { 60, 61, 78, 60 } },
        { "code",
          "static int parse(const char *s, size_t n) {\\n    for (size_t i = 0; i < n; i++) {\\n        if (s[i] == "
          "'{' || s[i] == '}')\\n            depth += s[i] == '{' ? 1 : -1;\\n    }\\n    return depth == 0 ? OK : "
          "ERROR_UNBALANCED;\\n}\\n",
          { 79, 96, 111, 93 } },
        { "json",
          "{\"type\":\"object\",\"properties\":{\"latitude\":{\"type\":\"number\",\"description\":\"Degrees "
          "north\"},\"unit\":{\"type\":\"string\",\"enum\":[\"celsius\",\"fahrenheit\"]}},\"required\":[\"latitude\"]}",
          { 40, 45, 72, 39 } },
        { "markdown",
          "## Install\\n\\n1. Run `make install PREFIX=/usr/local`\\n2. Edit `gateway.conf`\\n\\n| name | default "
          "|\\n|---|---|\\n| workers | auto |\\n\\n- **fast**: no copy\\n- *small*: one file\\n",
          { 51, 55, 75, 55 } },
        { "numbers",
          "2024-11-30 18:04:11, 42, 3.14159, 1000000, 192.168.1.254, 0.000125, 65536",
          { 45, 46, 45, 73 } },
        { "base64",
          "iVBORw0KGgoAAAANSUhEUgAAAJYAAACWCAMAAAAL34HQAAAAMFBMVEX3yPL5dbrQ0aXvW2kZ8TqHn4Yt6sUoBxFhVc7EwKpR9DfGmJ1N0b",
          { 74, 89, 106, 75 } },
        { "German",
          "Die Würde des Menschen ist unantastbar. Sie zu achten und zu schützen ist Verpflichtung aller staatlichen "
          "Gewalt.",
          { 25, 36, 53, 26 } },
        { "French",
          "Les repr\\u00e9sentants du peuple ont r\\u00e9solu d'exposer, dans une d\\u00e9claration solennelle, les "
          "droits naturels de l'homme.",
          { 25, 34, 44, 27 } },
        { "Russian",
          "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.",
          { 25, 38, 38, 24 } },
        { "Chinese",
          "网关只读取一次请求,找到其中的模型和限额,然后决定账户是否付得起。",
          { 23, 34, 33, 22 } },
        { "Korean",
          "나라의 말이 중국과 달라 한자와는 서로 통하지 아니하므로 어리석은 백성이 말하고자 하는 바가 있어도",
          { 32, 56, 55, 28 } },
        { "Arabic",
          "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق وقد وهبوا عقلا وضميرا",
          { 25, 46, 46, 25 } },
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        for (int by = 0; by < WEIGH_KINDS; by++)
            near(weigh_text(slice_str(known[i].text), (enum weigh_by)by), known[i].tokens[by] * WEIGH_TOKEN,
                 known[i].what);
}

/* Wherever a text is cut, within an escape or a character too, and whatever its bytes are. */
static void texts_may_be_anything(void **state) {
    (void)state;
    static const char text[] = "a\\u00e9\\ud83d\\ude00\\n\\\\ \xc3\xa9\xe4\xb8\x96\xf0\x9f\x98\x80 "
                               "\\u4e16HTTPServer\xff\x80\\";
    uint64_t last = 0;
    for (size_t n = 0; n < sizeof text; n++) {
        char *exact = test_malloc(n + 1); /* its own block, so that an overrun is seen */
        memcpy(exact, text, n);
        uint64_t w = weigh_text(slice_of(exact, n), WEIGH_OPENAI);
        assert_true(n == 0 ? w == 0 : w > 0);
        assert_true(w < n * 4 * WEIGH_TOKEN + 1);
        last = w;
        test_free(exact);
    }
    assert_true(last > 10 * WEIGH_TOKEN);
    for (int by = 0; by < WEIGH_KINDS; by++)
        assert_true(weigh_text(SLICE("\\u00e9t\\u00e9 \\u4e16"), (enum weigh_by)by) ==
                    weigh_text(SLICE("\xc3\xa9t\xc3\xa9 \xe4\xb8\x96"), (enum weigh_by)by));
}

/* ---- conversations ----------------------------------------------------------------------------------------------- */

#define ADD_AND_MULTIPLY "You are a helpful assistant. Always use both add and multiply at the same time."
#define NUMBERS(integer, object)                                                                                       \
    "\"properties\":{\"a\":{\"description\":\"first number\",\"type\":\"" integer                                      \
    "\"},\"b\":{\"description\":\"second number\",\"type\":\"" integer                                                 \
    "\"}},\"required\":[\"a\",\"b\"],\"type\":\"" object "\""
static const char by_anthropic[] =
    "{\"system\":[{\"type\":\"text\",\"text\":\"" ADD_AND_MULTIPLY "\"}],\"messages\":[{\"role\":\"user\",\"content\":"
    "\"Add and multiply the number 2 and 3\"}],\"tools\":[{\"name\":\"add\",\"description\":\"Add two numbers\","
    "\"input_schema\":{" NUMBERS("integer", "object") "}},{\"name\":\"multiply\",\"description\":\"Multiply two "
    "numbers\",\"input_schema\":{" NUMBERS("integer", "object") "}}]}";
static const char by_gemini[] =
    "{\"systemInstruction\":{\"parts\":[{\"text\":\"" ADD_AND_MULTIPLY "\"}]},\"contents\":[{\"role\":\"user\","
    "\"parts\":[{\"text\":\"Add and multiply the number 2 and 3\"}]}],\"tools\":[{\"functionDeclarations\":[{\"name\":"
    "\"add\",\"description\":\"Add two numbers\",\"parameters\":{" NUMBERS("INTEGER", "OBJECT") "}},{\"name\":"
    "\"multiply\",\"description\":\"Multiply two numbers\",\"parameters\":{" NUMBERS("INTEGER", "OBJECT") "}}]}]}";

/* What twelve models count for one conversation, whichever dialect it is asked in. */
static void one_conversation_counts_as_its_provider_counts(void **state) {
    (void)state;
    static const struct {
        struct task_provider provider;
        uint64_t tokens;
    } known[] = {
        { { .dialect = IR_ANTHROPIC, .model = SLICE("claude-sonnet-4-20250514") }, 502 },
        { { .dialect = IR_ANTHROPIC, .model = SLICE("claude-haiku-4.5") }, 685 },
        { { .dialect = IR_OPENAI, .model = SLICE("anthropic/claude-haiku-4.5") }, 685 },
        { { .dialect = IR_GEMINI, .model = SLICE("gemini-2.5-flash") }, 121 },
        { { .dialect = IR_GEMINI, .model = SLICE("gemini-3-pro-preview") }, 157 },
        { { .dialect = IR_GEMINI, .host = SLICE("us-east5-aiplatform.googleapis.com"),
            .model = SLICE("gemini-2.5-flash") },
          57 },
        { { .dialect = IR_OPENAI, .host = SLICE("api.openai.com"), .model = SLICE("gpt-4o") }, 106 },
        { { .dialect = IR_OPENAI, .host = SLICE("api.openai.com"), .model = SLICE("gpt-5") }, 190 },
        { { .dialect = IR_RESPONSES, .host = SLICE("api.openai.com"), .model = SLICE("gpt-5") }, 109 },
        { { .dialect = IR_OPENAI, .host = SLICE("api.x.ai"), .model = SLICE("grok-4-fast") }, 432 },
        { { .dialect = IR_OPENAI, .host = SLICE("api.z.ai"), .model = SLICE("glm-4.7-flash") }, 275 },
        { { .dialect = IR_OPENAI, .host = SLICE("api.avian.io"), .model = SLICE("moonshotai/kimi-k2.5") }, 154 },
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        const struct task_provider *p = &known[i].provider;
        near(estimate(IR_ANTHROPIC, slice_str(by_anthropic), p), known[i].tokens, p->model.ptr);
        near(estimate(IR_GEMINI, slice_str(by_gemini), p), known[i].tokens, p->model.ptr);
    }
}

/* Other conversations, with the providers' own counts. */
static void conversations_are_near(void **state) {
    (void)state;
    static const struct {
        enum ir_dialect client;
        const char *model, *text;
        uint64_t tokens;
    } known[] = {
        { IR_ANTHROPIC, "claude-3-haiku-20240307",
          "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a joke about OpenTelemetry\"}]}", 17 },
        { IR_ANTHROPIC, "claude-haiku-4-5-20251001",
          "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"What's the best language to "
          "learn?\"}]}],\"tools\":[{\"name\":\"best_language_to_learn\",\"description\":\"Gets the best language to "
          "learn\",\"input_schema\":{\"type\":\"object\",\"properties\":{},\"required\":[],\"additionalProperties\":"
          "false,\"strict\":true}}],\"system\":[{\"type\":\"text\",\"text\":\"You must use tools whenever "
          "possible.\"}]}",
          579 },
        { IR_ANTHROPIC, "claude-haiku-4-5", /* a call and its result */
          "{\"messages\":[{\"role\":\"user\",\"content\":\"What's the weather in Berlin? (52.5200, 13.4050)\"},"
          "{\"role\":"
          "\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"weather\",\"input\":{\"latitude\":"
          "\"52.5200\",\"longitude\":\"13.4050\"}}]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\","
          "\"tool_use_id\":\"t\",\"content\":[{\"type\":\"text\",\"text\":\"Current weather at 52.5200, 13.4050: "
          "15\\u00b0C, Wind: 10 km/h\"}]}]},{\"role\":\"assistant\",\"content\":\"The weather in Berlin is "
          "currently:\\n"
          "- **Temperature:** 15\\u00b0C\\n- **Wind:** 10 km/h\\n\\nIt's relatively mild with a light breeze. Perfect "
          "for a walk around the city!\"},{\"role\":\"user\",\"content\":\"What's the weather in Paris? (48.8575, "
          "2.3514)\"}],\"tools\":[{\"name\":\"weather\",\"description\":\"Gets current weather for a location\","
          "\"input_schema\":{\"type\":\"object\",\"properties\":{\"latitude\":{\"type\":\"string\",\"description\":"
          "\"Latitude (e.g., 52.5200)\"},\"longitude\":{\"type\":\"string\",\"description\":\"Longitude (e.g., "
          "13.4050)\"}},\"required\":[\"latitude\",\"longitude\"],\"additionalProperties\":false,\"strict\":true}}]}",
          819 },
        { IR_ANTHROPIC, "claude-sonnet-4-20250514", /* thinking */
          "{\"messages\":[{\"role\":\"user\",\"content\":\"What's the weather in Florence, Italy?\"}],\"system\":\"You "
          "are a helpful assistant\",\"thinking\":{\"budget_tokens\":4000,\"type\":\"enabled\"},\"tools\":[{"
          "\"input_schema\":{\"properties\":{\"location\":{\"description\":\"the city\",\"type\":\"string\"}},"
          "\"required\":[\"location\"],\"type\":\"object\"},\"name\":\"weather\",\"description\":\"Get weather "
          "information for a location\"}]}",
          424 },
        { IR_ANTHROPIC, "claude-opus-4-6", /* a tool of its own */
          "{\"messages\":[{\"role\":\"user\",\"content\":\"Take a screenshot of the desktop\"}],\"system\":\"You are a "
          "helpful assistant\",\"tools\":[{\"display_height_px\":1080,\"display_width_px\":1920,\"name\":\"computer\","
          "\"type\":\"computer_20251124\"}]}",
          1842 },
        { IR_GEMINI, "gemini-2.0-flash",
          "{\"contents\":[{\"parts\":[{\"text\":\"What is the capital of France?\"}],\"role\":\"user\"}],"
          "\"systemInstruction\":{\"parts\":[{\"text\":\"You are a helpful chatbot.\"}]}}",
          13 },
        { IR_GEMINI, "gemini-2.5-flash", /* within the request that it is a count of */
          "{\"generateContentRequest\":{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"Call the array params "
          "tool with tags [\\\"red\\\",\\\"blue\\\"] and tell me the combined tags.\"}]},{\"role\":\"model\","
          "\"parts\":[{"
          "\"functionCall\":{\"name\":\"array_params\",\"args\":{\"tags\":[\"red\",\"blue\"]}}}]},{\"role\":\"user\","
          "\"parts\":[{\"functionResponse\":{\"name\":\"array_params\",\"response\":{\"result\":\"red,blue\"}}}]}],"
          "\"tools\":[{\"functionDeclarations\":[{\"name\":\"array_params\",\"description\":\"Uses params DSL array "
          "support\",\"parameters\":{\"type\":\"OBJECT\",\"properties\":{\"tags\":{\"type\":\"ARRAY\",\"description\":"
          "\"List of tags to combine\",\"items\":{\"type\":\"STRING\"}}},\"required\":[\"tags\"]}}]}]}}",
          105 },
        { IR_ANTHROPIC, "gpt-4o", "{\"messages\":[{\"role\":\"user\",\"content\":\"What is the capital of France?\"}]}",
          14 },
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        struct task_provider p = { .dialect = known[i].client, .model = slice_str(known[i].model) };
        near(estimate(known[i].client, slice_str(known[i].text), &p), known[i].tokens, known[i].model);
    }
}

/* What counts and what does not: more and less of it, for the same provider. */
static void only_what_is_shown_counts(void **state) {
    (void)state;
    static const struct task_provider claude = { .dialect = IR_ANTHROPIC, .model = SLICE("claude-sonnet-4-5") };
#define TURNS(more)                                                                                                    \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Go\"},{\"role\":\"assistant\",\"content\":[{\"type\":"            \
    "\"thinking\",\"thinking\":\"one two three four five six seven eight nine ten\",\"signature\":\"s\"},"             \
    "{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{}}]},{\"role\":\"user\",\"content\":[{\"type\":"    \
    "\"tool_result\",\"tool_use_id\":\"t\",\"content\":\"ok\"}" more "]}]}"
    uint64_t open = estimate(IR_ANTHROPIC, SLICE(TURNS("")), &claude);
    uint64_t over = estimate(IR_ANTHROPIC,
                             SLICE("{\"messages\":[{\"role\":\"user\",\"content\":\"Go\"},{\"role\":\"assistant\","
                                   "\"content\":[{\"type\":\"thinking\",\"thinking\":\"one two three four five six seven "
                                   "eight nine ten\",\"signature\":\"s\"},{\"type\":\"text\",\"text\":\"a\"}]},{\"role\":"
                                   "\"user\",\"content\":\"b\"}]}"),
                             &claude);
    assert_in_range(open, 60, 90); /* a call, its result, and the thinking that led to it */
    assert_in_range(over, 13, 20); /* thinking of a turn that is over is taken out */
#define DEFERRED(yes)                                                                                                  \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Go\"}],\"tools\":[{\"name\":\"search\",\"input_schema\":{}},"     \
    "{\"name\":\"found_later\",\"description\":\"a b c d e f g h i j k l m n o p q r s t u v w x y z\","               \
    "\"input_schema\":{},\"defer_loading\":" yes "}]}"
    assert_true(estimate(IR_ANTHROPIC, SLICE(DEFERRED("true")), &claude) + 20 <
                estimate(IR_ANTHROPIC, SLICE(DEFERRED("false")), &claude));
}

/* ---- whose count ------------------------------------------------------------------------------------------------- */

static struct counter counter(enum ir_dialect dialect, const char *host, const char *path, const char *model,
                              const char *alias) {
    struct task_provider p = { .dialect = dialect,
                               .host = slice_str(host),
                               .path = slice_str(path),
                               .model = slice_str(model),
                               .alias = slice_str(alias) };
    return counter_of(&p);
}

static void names_and_hosts_tell_whose(void **state) {
    (void)state;
    static const struct {
        const char *model;
        uint32_t version;
    } versions[] = {
        { "claude-3-5-sonnet-20241022", 35 }, { "claude-sonnet-4-20250514", 40 }, { "claude-opus-4-8", 48 },
        { "anthropic/claude-4.6-sonnet-20260217", 46 }, { "claude-fable-5", 50 }, { "claude-3-haiku-20240307", 30 },
        { "claude-haiku-4-5@20251001", 45 }, { "claude", 0 }, { "claude-latest", 0 }, { "claude-sonnet-20250514", 0 },
        { "gemini-2.5-pro-preview-05-06", 25 }, { "gemini-3-flash-preview", 30 }, { "gemini-3.1-pro", 31 },
        { "gemini-flash-latest", 0 }, { "gpt-4o", 40 }, { "gpt-5.4-mini-2026-03-17", 54 }, { "gpt-oss-120b", 0 },
        { "claude-99999999999999999999", 0 }, { "claude-", 0 }, { "claude-4-", 40 },
    };
    for (size_t i = 0; i < ARRAY_LEN(versions); i++)
        if (counter(IR_OPENAI, "h", "/v1", versions[i].model, "").version != versions[i].version)
            fail_msg("%s", versions[i].model);
    /* the name before the dialect, the provider's name before the client's */
    assert_int_equal(counter(IR_OPENAI, "h", "/v1", "claude-opus-4-8", "gpt-4o").manner, COUNTER_CLAUDE);
    assert_int_equal(counter(IR_OPENAI, "h", "/v1", "*", "claude-opus-4-8").by, WEIGH_CLAUDE_NEW);
    assert_int_equal(counter(IR_ANTHROPIC, "h", "/v1", "house-model", "x").manner, COUNTER_CLAUDE);
    assert_int_equal(counter(IR_GEMINI, "h", "/v1", "house-model", "x").manner, COUNTER_GEMINI);
    assert_int_equal(counter(IR_RESPONSES, "h", "/v1", "", "").manner, COUNTER_OPENAI);
    /* Vertex AI, by its host, by the path of a proxy before it, by a name */
    assert_int_equal(counter(IR_GEMINI, "aiplatform.googleapis.com", "/v1", "gemini-3-pro", "").manner, COUNTER_VERTEX);
    assert_int_equal(counter(IR_GEMINI, "h", "/v1/projects/p/locations/l/publishers/google", "gemini-2.5-pro",
                             "")
                         .manner,
                     COUNTER_VERTEX);
    assert_int_equal(counter(IR_GEMINI, "h", "/v1", "vertex_ai/gemini-2.5-pro", "").manner, COUNTER_VERTEX);
    struct task_provider named = { .dialect = IR_GEMINI, .upstream = SLICE("vertex-eu"),
                                   .model = SLICE("gemini-3-pro") };
    assert_int_equal(counter_of(&named).manner, COUNTER_VERTEX);
    assert_int_equal(counter(IR_OPENAI, "aiplatform.googleapis.com", "/v1", "claude-sonnet-4", "").manner,
                     COUNTER_CLAUDE);
}

/* ---- pictures and documents -------------------------------------------------------------------------------------- */

static struct slice base64(const void *p, size_t n) {
    struct buf b;
    buf_init(&b, &pages, 8 << 20);
    assert_true(base64_encode(&b, p, n, false));
    struct slice text = arena_copy(&arena, buf_slice(&b));
    buf_release(&b);
    return text;
}

static void pictures_show_their_size(void **state) {
    (void)state;
    static const struct {
        const char *what;
        struct slice head;
        uint32_t width, height;
    } known[] = {
        { "PNG", SLICE("\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x07\x80\0\0\x04\x38\x08\x02\0\0\0....\0\0\0\x0aIDAT"),
          1920, 1080 },
        { "GIF", SLICE("GIF89a\x2c\x01\xc8\0\xf7\0\0........................"), 300, 200 },
        { "JPEG",
          SLICE("\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xc2\0\x11\x08\x01\x2c\x01\x90\x03\x01"),
          400, 300 },
        { "JPEG cut in its metadata", SLICE("\xff\xd8\xff\xe1\xff\xff.............................."), 0, 0 },
        { "WebP", SLICE("RIFF....WEBPVP8 ....\x30\x01\0\x9d\x01\x2a\x26\x02\x70\x01...."), 550, 368 },
        { "lossless WebP", SLICE("RIFF....WEBPVP8L....\x2f\x8f\x41\x3f\x10............"), 400, 254 },
        { "extended WebP", SLICE("RIFF....WEBPVP8X....\x10\0\0\0\x8f\x01\0\x2b\x01\0...."), 400, 300 },
        { "nothing", SLICE("................................"), 0, 0 },
        { "too little", SLICE("\x89PNG"), 0, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        struct media_size s = media_size(base64(known[i].head.ptr, known[i].head.len));
        if (s.width != known[i].width || s.height != known[i].height)
            fail_msg("%s: %u x %u", known[i].what, s.width, s.height);
    }
}

static void pictures_cost_by_their_size(void **state) {
    (void)state;
    /* 1,092 pixels square: Anthropic's page on vision says about 1,590 tokens */
    static const char head[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x04\x44\0\0\x04\x44\x08\x02\0\0\0....\0\0\0\x0aIDAT";
    static const struct {
        struct task_provider provider;
        uint64_t tokens;
    } known[] = {
        { { .dialect = IR_ANTHROPIC, .model = SLICE("claude-sonnet-4-5") }, 1590 },
        { { .dialect = IR_OPENAI, .model = SLICE("gpt-4o") }, 765 },         /* 768 pixels square: four tiles */
        { { .dialect = IR_OPENAI, .model = SLICE("gpt-4.1-mini") }, 1984 },  /* 35 by 35 patches, 1.62 tokens each */
        { { .dialect = IR_GEMINI, .model = SLICE("gemini-2.5-flash") }, 258 },
        { { .dialect = IR_GEMINI, .model = SLICE("gemini-3-pro") }, 1089 },
    };
    struct slice picture = base64(head, sizeof head - 1);
    char anthropic[512], gemini[512];
    snprintf(anthropic, sizeof anthropic,
             "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"source\":{\"type\":\"base64\","
             "\"media_type\":\"image/png\",\"data\":\"%.*s\"}}]}]}",
             SLICE_ARG(picture));
    snprintf(gemini, sizeof gemini,
             "{\"contents\":[{\"parts\":[{\"inlineData\":{\"mimeType\":\"image/png\",\"data\":\"%.*s\"}}]}]}",
             SLICE_ARG(picture));
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        const struct task_provider *p = &known[i].provider;
        assert_in_range(estimate(IR_ANTHROPIC, slice_str(anthropic), p), known[i].tokens, known[i].tokens + 12);
        assert_in_range(estimate(IR_GEMINI, slice_str(gemini), p), known[i].tokens, known[i].tokens + 12);
    }
}

/* A lone picture by Vertex AI: 960 by 600 pixels are six tiles of 400 and the whole; of two each is one. */
static void lone_pictures_are_tiled(void **state) {
    (void)state;
    static const char head[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x03\xc0\0\0\x02\x58\x08\x02\0\0\0....\0\0\0\x0aIDAT";
    static const struct task_provider vertex = { .dialect = IR_GEMINI, .model = SLICE("vertex_ai/gemini-2.5-pro") },
                                      gemini = { .dialect = IR_GEMINI, .model = SLICE("gemini-2.5-pro") };
    struct slice picture = base64(head, sizeof head - 1);
    char one[512], two[512];
    snprintf(one, sizeof one,
             "{\"contents\":[{\"parts\":[{\"inlineData\":{\"mimeType\":\"image/png\",\"data\":\"%.*s\"}}]}]}",
             SLICE_ARG(picture));
    snprintf(two, sizeof two,
             "{\"contents\":[{\"parts\":[{\"inlineData\":{\"mimeType\":\"image/png\",\"data\":\"%.*s\"}},"
             "{\"inlineData\":{\"mimeType\":\"application/pdf\",\"data\":\"JVBERi0x\"}}]}]}",
             SLICE_ARG(picture));
    assert_int_equal(estimate(IR_GEMINI, slice_str(one), &vertex), 7 * 258);
    assert_int_equal(estimate(IR_GEMINI, slice_str(two), &vertex), 2 * 258);
    assert_int_equal(estimate(IR_GEMINI, slice_str(one), &gemini), 258 + 1);
}

static void documents_have_pages(void **state) {
    (void)state;
    static const char three[] = "%PDF-1.4 1 0 obj << /Type /Pages /Count 3 >> 2 0 obj << /Type /Page /Parent 1 0 R >> "
                                "3 0 obj <</Type/Page/Parent 1 0 R>> 4 0 obj << /Type\n/Page >> %%EOF";
    size_t budget = 1 << 20;
    struct slice text = base64(three, sizeof three - 1);
    assert_int_equal(media_pages(text, &budget), 3);
    assert_int_equal(budget, (1 << 20) - text.len);
    assert_int_equal(media_pages(SLICE(""), &budget), 1);
    /* beyond the budget in proportion: of a megabyte half is searched */
    char *big = test_malloc(1 << 20);
    memset(big, ' ', 1 << 20);
    for (size_t at = 0; at + 64 < 1 << 20; at += 1 << 14)
        memcpy(big + at, "<</Type /Page>>", 15);
    text = base64(big, 1 << 20);
    budget = text.len / 2;
    assert_in_range(media_pages(text, &budget), 62, 66);
    assert_int_equal(budget, 0);
    assert_in_range(media_pages(text, &budget), 20, 22); /* nothing searched: by its length */
    test_free(big);
}

/* ---- hostile ----------------------------------------------------------------------------------------------------- */

static void long_texts_are_weighed_in_part(void **state) {
    (void)state;
    static const struct task_provider gpt = { .dialect = IR_OPENAI, .model = SLICE("gpt-4o") };
    enum { WORDS = 2000000 };
    struct buf b;
    buf_init(&b, &pages, 32 << 20);
    assert_true(buf_append_slice(&b, SLICE("{\"messages\":[{\"role\":\"user\",\"content\":\"")));
    for (int i = 0; i < WORDS; i++)
        assert_true(buf_append_slice(&b, SLICE("words ")));
    assert_true(buf_append_slice(&b, SLICE("\"}]}")));
    near(estimate(IR_ANTHROPIC, buf_slice(&b), &gpt), WORDS, "long");
    buf_release(&b);
}

/* Members of the wrong type, and nested as deep as the parser lets them: an answer, whatever it is. */
static void odd_bodies_are_counted_too(void **state) {
    (void)state;
    static const char *const odd[] = {
        "{\"messages\":[1,null,[],{\"content\":5},{\"content\":[7,{},[],{\"type\":3,\"text\":[]},null]}],\"system\":{},"
        "\"tools\":[4,{\"input_schema\":7,\"name\":[]},{\"type\":{}}],\"thinking\":2,\"tool_choice\":[],"
        "\"output_config\":{\"format\":3}}",
        "{\"messages\":[{\"content\":[{\"type\":\"image\"},{\"type\":\"image\",\"source\":{\"data\":\"!!\"}},{\"type\":"
        "\"document\",\"source\":3,\"citations\":{\"enabled\":1}},{\"type\":\"tool_use\",\"input\":\"x\"},{\"type\":"
        "\"tool_result\",\"content\":{\"type\":\"text\"}},{\"type\":\"thinking\"}]}]}",
        "{\"contents\":{\"parts\":{\"text\":\"one\"}},\"systemInstruction\":\"text\",\"tools\":{}}",
        "{\"contents\":[{\"parts\":[{\"functionCall\":7},{\"functionResponse\":{\"parts\":[{\"functionResponse\":{}}]}}"
        ","
        "{\"inlineData\":{\"mimeType\":\"application/pdf\",\"data\":\"A\"}},{\"thoughtSignature\":\"C\"},"
        "{\"thought\":true,\"text\":\"x\"}]}],\"tools\":[{\"functionDeclarations\":{\"a\":1}},"
        "{\"functionDeclarations\":"
        "[3,{\"parameters\":{\"properties\":[1],\"items\":[[]],\"anyOf\":{\"required\":4},\"enum\":{}}}]}]}",
        "{\"generateContentRequest\":7}",
    };
    static const enum ir_dialect all[] = { IR_OPENAI, IR_ANTHROPIC, IR_GEMINI };
    for (size_t i = 0; i < ARRAY_LEN(odd); i++)
        for (size_t k = 0; k < ARRAY_LEN(all); k++) {
            struct task_provider p = { .dialect = all[k] };
            assert_true(estimate(IR_ANTHROPIC, slice_str(odd[i]), &p) < 20000);
            assert_true(estimate(IR_GEMINI, slice_str(odd[i]), &p) < 20000);
        }
    struct buf b;
    buf_init(&b, &pages, 1 << 20);
    assert_true(buf_append_slice(&b, SLICE("{\"messages\":[{\"content\":")));
    for (int i = 0; i < 40; i++)
        assert_true(buf_append_slice(&b, SLICE("[{\"type\":\"tool_result\",\"content\":")));
    assert_true(buf_append_slice(&b, SLICE("\"x\"")));
    for (int i = 0; i < 40; i++)
        assert_true(buf_append_slice(&b, SLICE("}]")));
    assert_true(buf_append_slice(&b, SLICE("}]}")));
    struct task_provider p = { .dialect = IR_ANTHROPIC };
    assert_in_range(estimate(IR_ANTHROPIC, buf_slice(&b), &p), 100, 1000);
    buf_release(&b);
}

int main(void) {
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(texts_weigh_what_tokenizers_count),
        T(texts_may_be_anything),
        T(one_conversation_counts_as_its_provider_counts),
        T(conversations_are_near),
        T(only_what_is_shown_counts),
        T(names_and_hosts_tell_whose),
        T(pictures_show_their_size),
        T(pictures_cost_by_their_size),
        T(lone_pictures_are_tiled),
        T(documents_have_pages),
        T(long_texts_are_weighed_in_part),
        T(odd_bodies_are_counted_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
