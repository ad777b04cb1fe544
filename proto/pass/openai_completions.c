/* The pass path of the legacy completions: POST …/completions, a prompt and no messages. Its answers have text in the
 * place of a message and are otherwise those of Chat Completions, usage rules and all, so openai_answer.c does them;
 * here are the request and the name of the chunks that the gateway makes itself.
 *
 * The provider writes an answer per prompt and `n`, and as many in secret as `best_of` says: all of them are billed, so
 * all are held. */
#include "proto/pass/edits.h"
#include "proto/pass/openai.h"
#include "proto/pass/scan.h"

enum { MAX_CHOICES = 128, MAX_PROMPTS = 2048 };
enum member {
    M_OTHER,
    M_MODEL,
    M_PROMPT,
    M_SUFFIX,
    M_STREAM,
    M_STREAM_OPTIONS,
    M_MAX_TOKENS,
    M_N,
    M_BEST_OF,
    M_SERVICE_TIER
};
static const struct scan_member members[] = {
    { "model", M_MODEL },
    { "prompt", M_PROMPT },
    { "suffix", M_SUFFIX },
    { "stream", M_STREAM },
    { "stream_options", M_STREAM_OPTIONS },
    { "max_tokens", M_MAX_TOKENS },
    { "n", M_N },
    { "best_of", M_BEST_OF },
    { "service_tier", M_SERVICE_TIER },
};

/* A list of token ids: each is one token, four bytes where bytes are counted. false: something else is in it. */
static bool scan_ids(struct scan *s, int list) {
    uint64_t id;
    for (int t = json_first(s->j, list); t >= 0; t = json_next(s->j, list, t), s->r->prompt_bytes += 4)
        if (!json_u64(s->j, t, &id))
            return false;
    return json_is(s->j, list, JSON_ARRAY) && json_first(s->j, list) >= 0;
}

/* A string, strings, token ids, or lists of those. Counts the prompts in r->messages. */
static void scan_prompt(struct scan *s, int v) {
    const struct json *j = s->j;
    int first = json_first(j, v);
    bool ok = true;
    s->r->messages = 1;
    if (json_is(j, v, JSON_STRING)) {
        scan_string(s, v);
    } else if (json_is(j, v, JSON_ARRAY) && json_is(j, first, JSON_NUMBER)) {
        ok = scan_ids(s, v);
    } else if (json_is(j, v, JSON_ARRAY) && first >= 0) {
        s->r->messages = json_size(j, v);
        for (int t = first; t >= 0 && ok; t = json_next(j, v, t)) {
            ok = json_is(j, t, JSON_STRING) || scan_ids(s, t);
            scan_string(s, t);
        }
    } else {
        ok = false;
    }
    if (!ok || s->r->messages > MAX_PROMPTS)
        scan_refuse(s, "invalid_value", "prompt",
                    "'prompt' must be a string, an array of strings, of token ids, or of arrays of token ids.");
}

static uint64_t scan_count(struct scan *s, int v, const char *param) {
    uint64_t n = 1;
    if (!json_is(s->j, v, JSON_NULL) && (!json_u64(s->j, v, &n) || n == 0 || n > MAX_CHOICES)) {
        scan_refuse(s, "invalid_value", param, "This member must be an integer from 1 to 128.");
        return 1;
    }
    return n;
}

/* Nothing new may be asked for: max_tokens 0 with echo gives the prompt's own figures. */
static void scan_max_tokens(struct scan *s, int v) {
    uint64_t limit;
    s->r->t_limit = v;
    if (json_u64(s->j, v, &limit) && limit == 0)
        s->r->has_limit = true;
    else
        scan_limit(s, v, "max_tokens");
}

static void completions_scan(const struct json *j, struct pass_request *r, struct arena *arena,
                             const struct slice *allow, uint32_t allow_count) {
    struct scan s = { .j = j, .r = r, .arena = arena, .allow = allow, .allow_count = allow_count };
    uint64_t n = 1, best_of = 1;
    if (!scan_begin(&s))
        return;
    for (int k = json_first(j, 0); k >= 0; k = json_next(j, 0, k)) {
        int v = k + 1;
        switch (scan_which(&s, k, members, sizeof members / sizeof *members, false)) {
        case M_MODEL: r->t_model = v; break;
        case M_PROMPT: scan_prompt(&s, v); break;
        case M_SUFFIX: scan_string(&s, v); break;
        case M_STREAM: scan_stream(&s, v); break;
        case M_STREAM_OPTIONS: scan_stream_options(&s, v); break;
        case M_MAX_TOKENS: scan_max_tokens(&s, v); break;
        case M_N: n = scan_count(&s, v, "n"); break;
        case M_BEST_OF: best_of = scan_count(&s, v, "best_of"); break;
        case M_SERVICE_TIER: scan_tier(&s, v); break;
        default: break;
        }
    }
    scan_model(&s, r->t_model);
    if (!(s.seen & 1u << M_PROMPT))
        scan_refuse(&s, "missing_field", "prompt", "Missing required parameter: 'prompt'.");
    r->n = (n > best_of ? n : best_of) * (r->messages > 0 ? r->messages : 1);
}

static bool completions_build(const struct json *j, const struct pass_request *r, struct pass_edit *pe,
                              struct arena *arena, struct pieces *out) {
    struct edits e;
    const int keep[] = { r->t_model, r->t_limit, r->t_options, json_get(j, 0, "prompt"), json_get(j, 0, "stream") };
    edits_request(&e, j, r, pe, keep, sizeof keep / sizeof *keep, arena);
    if (pe->set_limit)
        edits_limit(&e, r->t_limit, SLICE("max_tokens"), pe->limit);
    if (pe->ask_usage && r->stream)
        edits_ask_usage(&e, r);
    return edits_put(&e, out);
}

/* Chunks of our own take their object from the first chunk's members as kept there. */
static void rename_own(struct pass_answer *a) {
    static const struct slice chat = SLICE("\"object\":\"chat.completion.chunk\""),
                              text = SLICE("\"object\":\"text_completion\"");
    char *at = a->ident_len > 0 ? memmem(a->ident, a->ident_len, chat.ptr, chat.len) : NULL;
    if (at == NULL)
        return;
    memcpy(at, text.ptr, text.len);
    memmove(at + text.len, at + chat.len, (size_t)(a->ident + a->ident_len - at) - chat.len);
    a->ident_len = (uint16_t)(a->ident_len - (chat.len - text.len));
}

static enum pass_result completions_event(struct pass_answer *a, const struct sse_event *ev, struct arena *scratch,
                                          struct pieces *out, struct pass_fault *fault) {
    enum pass_result r = pass_chat_event(a, ev, scratch, out, fault);
    rename_own(a);
    return r;
}

const struct pass pass_completions = {
    .scan = completions_scan,
    .build = completions_build,
    .whole = pass_chat_whole,
    .event = completions_event,
    .end = pass_chat_end,
    .error = pass_read_error,
    .fail = pass_chat_fail,
    .ping = pass_sse_ping,
    .content_type = pass_sse_content_type,
};
