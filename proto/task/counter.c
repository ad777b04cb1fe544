/* Whose tokens are estimated, and what that provider adds to a text.
 *
 * The figures were read off some 2,700 recorded exchanges, public in the test suites of open-source clients: the
 * provider's own count of a request, less the tokens of its texts by that provider's tokenizer (or the best public
 * reconstruction of it). docs/counting.md says what was found. Providers change their hidden prompts now and then;
 * these are of 2025 and 2026. */
#include "proto/task/counter.h"

#include "proto/base/check.h"

enum { OPENAI, GPT_5_CHAT, CLAUDE, CLAUDE_3, CLAUDE_4_5, CLAUDE_4_7, GEMINI, GEMINI_2, GEMINI_3, VERTEX, VERTEX_3 };

/* As the vendors document them, but for OpenAI's pages (of the documents that were seen 50 to 800 tokens a page). */
static const struct counter_media of_openai = { .picture = 765, .picture_max = 1536, .page = 400, .second = 10 };
static const struct counter_media of_claude = { .picture = 900, .picture_max = 1600, .page = 2000, .second = 25 };
static const struct counter_media of_claude_4_7 = { .picture = 900, .picture_max = 4784, .page = 2000, .second = 25 };
static const struct counter_media of_gemini = { .picture = 258, .picture_max = 258, .page = 258, .second = 32 };
static const struct counter_media of_gemini_3 = { .picture = 1090, .picture_max = 1090, .page = 530, .second = 25 };

/* GPT-5 has a longer prompt for tools on OpenAI's own chat endpoint, though not on that of responses. Claude's was of
 * some 310 tokens up to 4.1, and with 4.5 in its first months, and is of 500 since; Gemini's declarations got longer
 * between 2.5 and 3. Where the version is not known a middle is taken. The Gemini API counted as Vertex AI does up to
 * 2.0. */
static const struct counter counters[] = {
    /* request, message, thinking, adaptive, tools, forced, tool, property, described, nested, call, result, format */
    [OPENAI] = { COUNTER_OPENAI, WEIGH_OPENAI, &of_openai,
        3, 4,  0,  0,  12,  0,  7,  5, 1, 12,  8,  6,  20, .hosted = 300 },
    [GPT_5_CHAT] = { COUNTER_OPENAI, WEIGH_OPENAI, &of_openai,
        3, 4,  0,  0,  95,  0,  7,  5, 1, 12,  8,  6,  20, .hosted = 300 },
    [CLAUDE] = { COUNTER_CLAUDE, WEIGH_CLAUDE, &of_claude,
        4, 3, 28, 17, 420,  0, 15,  0, 0,  0, 30, 20, 160, .hosted = 600 },
    [CLAUDE_3] = { COUNTER_CLAUDE, WEIGH_CLAUDE, &of_claude,
        4, 3, 28,  0, 313,  0, 15,  0, 0,  0, 30, 20, 160, .hosted = 600 },
    [CLAUDE_4_5] = { COUNTER_CLAUDE, WEIGH_CLAUDE, &of_claude,
        4, 3, 28, 17, 496, 95, 15,  0, 0,  0, 30, 20, 160, .hosted = 600 },
    [CLAUDE_4_7] = { COUNTER_CLAUDE, WEIGH_CLAUDE_NEW, &of_claude_4_7,
        3, 3,  0,  0, 290,  0, 15,  0, 0,  0, 30, 20, 160, .hosted = 600 },
    [GEMINI] = { COUNTER_GEMINI, WEIGH_GEMINI, &of_gemini,
        1, 0,  0,  0,   0,  0, 16, 14, 3, 14, 11, 11,   0, .hosted = 0 },
    [GEMINI_2] = { COUNTER_GEMINI, WEIGH_GEMINI, &of_gemini,
        1, 0,  0,  0,   0,  0, 18,  9, 0, 19, 11, 11,   0, .hosted = 0 },
    [GEMINI_3] = { COUNTER_GEMINI, WEIGH_GEMINI, &of_gemini_3,
        1, 0,  0,  0,   0,  0, 14, 20, 6,  9, 12, 12,   0, .hosted = 0 },
    [VERTEX] = { COUNTER_VERTEX, WEIGH_GEMINI, &of_gemini,
        0, 0,  0,  0,   0,  0,  0,  0, 0,  0,  0,  0,   0, .hosted = 0 },
    [VERTEX_3] = { COUNTER_VERTEX, WEIGH_GEMINI, &of_gemini_3,
        0, 0,  0,  0,   0,  0,  0,  0, 0,  0,  0,  0,   0, .hosted = 0 },
};

/* Words in models' names, and whose they are; of other vendors behind OpenAI's dialect, what their templates say more
 * than OpenAI's. The first that fits counts. */
static const struct family {
    const char *word;
    enum ir_dialect dialect;
    uint32_t request, tools, tool;
} families[] = {
    { "claude", IR_ANTHROPIC, 0, 0, 0 }, { "gemini", IR_GEMINI, 0, 0, 0 },   { "gpt-oss", IR_OPENAI, 60, 20, 20 },
    { "gpt-", IR_OPENAI, 0, 0, 0 },      { "grok", IR_OPENAI, 145, 60, 40 }, { "deepseek", IR_OPENAI, 0, 210, 50 },
    { "glm", IR_OPENAI, 0, 85, 40 },     { "qwen", IR_OPENAI, 0, 110, 45 },  { "kimi", IR_OPENAI, 0, 0, 30 },
    { "mistral", IR_OPENAI, 4, 0, 35 },
};

static bool has(struct slice s, const char *word) {
    return s.len > 0 && memmem(s.ptr, s.len, word, strlen(word)) != NULL;
}

static const struct family *family_of(struct slice name) {
    for (size_t i = 0; i < ARRAY_LEN(families); i++)
        if (has(name, families[i].word))
            return &families[i];
    return NULL;
}

/* Ten times the first number behind the word, and the one right behind it: claude-3-5-sonnet, claude-opus-4-8,
 * gemini-2.5-pro. One of more than two digits is a date. */
static uint32_t version_of(struct slice name, const char *word) {
    const char *p = memmem(name.ptr, name.len, word, strlen(word)), *end = name.ptr + name.len;
    uint32_t version = 0;
    for (int numbers = 0; p < end && numbers < 2; p++) { /* over the sign between two, or a letter of the name */
        uint32_t n = 0, digits = 0;
        for (; p < end && *p >= '0' && *p <= '9'; p++, digits++)
            n = n * 10 + (uint32_t)(*p - '0');
        if (digits > 2 || (digits == 0 && numbers > 0))
            break;
        if (digits > 0)
            version += numbers++ == 0 ? n * 10 : n < 10 ? n : 9;
    }
    return version;
}

static int row(enum ir_dialect dialect, uint32_t version, bool vertex, bool openai_chat) {
    switch (dialect) {
    case IR_ANTHROPIC: return version == 0 ? CLAUDE : version < 45 ? CLAUDE_3 : version < 47 ? CLAUDE_4_5 : CLAUDE_4_7;
    case IR_GEMINI:
        if (vertex)
            return version < 30 ? VERTEX : VERTEX_3;
        return version == 0 ? GEMINI : version < 25 ? VERTEX : version < 30 ? GEMINI_2 : GEMINI_3;
    default: return openai_chat && version >= 50 ? GPT_5_CHAT : OPENAI;
    }
}

struct counter counter_of(const struct task_provider *p) {
    const struct family *f = family_of(p->model);
    struct slice name = f != NULL ? p->model : p->alias;
    f = f != NULL ? f : family_of(name);
    enum ir_dialect dialect = f != NULL ? f->dialect : p->dialect;
    uint32_t version = f != NULL ? version_of(name, f->word) : 0;
    bool vertex = has(p->host, "aiplatform.googleapis.com") || has(p->path, "/publishers/") ||
                  has(p->upstream, "vertex") || has(name, "vertex");
    struct counter c = counters[row(dialect, version, vertex, p->dialect == IR_OPENAI && has(p->host, "openai"))];
    c.version = version;
    c.request += f != NULL ? f->request : 0;
    c.tools += f != NULL ? f->tools : 0;
    c.tool += f != NULL ? f->tool : 0;
    /* OpenAI's page on images and vision; GPT-4o mini's tiles cost as much as GPT-4o's though its tokens are cheap */
    c.patch_percent = has(name, "nano") ? 246 : has(name, "mini") && !has(name, "4o-mini") ? 162 : 0;
    c.tile_percent = has(name, "4o-mini") ? 3333 : 100;
    return c;
}
