/* The answers of mock.c: for each dialect a whole one and a stream, every event that the vendor's own streams have, in
 * their order (docs of the four APIs; tests/dialect holds recorded ones). A stream is chunked, one event a chunk and a
 * write; its head goes out with the first event, as providers do it. */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/base/check.h"
#include "tools/bench/mock.h"

enum { SCRIPT_MAX_BYTES = 64 << 20, PROMPT_TOKENS = 256, CACHED_TOKENS = 64, WHOLE_TOKENS = 48 };

/* ---- names ------------------------------------------------------------------------------------------------------- */

static void spec_word(struct spec *s, struct slice word) {
    static const struct { const char *name; enum mock_fault fault; } faults[] = {
        { "reset", FAULT_RESET }, { "close", FAULT_CLOSE }, { "hang", FAULT_HANG }, { "garbage", FAULT_GARBAGE },
    };
    for (size_t i = 0; i < ARRAY_LEN(faults); i++)
        if (slice_is(word, faults[i].name)) {
            s->fault = faults[i].fault;
            return;
        }
    uint64_t n = 0;
    if (slice_to_u64(word, &n) && n >= 400 && n < 600) {
        s->fault = FAULT_STATUS;
        s->status = (int)n;
    } else if (slice_starts(word, SLICE("every")) && slice_to_u64(slice_from(word, 5), &n) && n > 0) {
        s->every = (uint32_t)n;
    } else if (word.len > 1 && slice_to_u64(slice_from(word, 1), &n) && n <= 1000000) {
        uint32_t *field = word.ptr[0] == 'e'   ? &s->events
                          : word.ptr[0] == 't' ? &s->text_bytes
                          : word.ptr[0] == 'd' ? &s->delay_ms
                          : word.ptr[0] == 'f' ? &s->first_ms
                                               : NULL;
        if (field)
            *field = (uint32_t)n;
    }
}

void spec_parse(struct spec *s, struct slice model) {
    *s = (struct spec){ .events = 64, .every = 1 };
    while (model.len > 0) {
        const char *dash = memchr(model.ptr, '-', model.len);
        size_t n = dash ? (size_t)(dash - model.ptr) : model.len;
        spec_word(s, slice_of(model.ptr, n));
        model = slice_from(model, n + 1);
    }
}

/* ---- rendering --------------------------------------------------------------------------------------------------- */

struct render {
    struct script *script;
    struct buf *event; /* the one that is written */
    struct pages *pages;
    char *text;        /* of one event */
};

static const char stream_head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
                                  "Transfer-Encoding: chunked\r\n\r\n";

static void add_piece(struct script *s, struct slice bytes) {
    s->pieces = realloc(s->pieces, (s->count + 1) * sizeof *s->pieces);
    char *copy = malloc(bytes.len + 1);
    CHECK(s->pieces && copy);
    memcpy(copy, bytes.ptr, bytes.len);
    s->pieces[s->count++] = slice_of(copy, bytes.len);
}

/* One event: `event: NAME` where the dialect names them, its data, as a chunk of its own. */
static void event(struct render *r, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void event(struct render *r, const char *name, const char *fmt, ...) {
    struct buf *data = r->event, all;
    va_list args, again;
    buf_consume(data, data->len);
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    char *p = buf_reserve(data, (size_t)n + 1, NULL);
    CHECK(n >= 0 && p);
    vsnprintf(p, (size_t)n + 1, fmt, again);
    buf_commit(data, (size_t)n);
    va_end(again);
    va_end(args);
    size_t frame = (name ? strlen("event: \n") + strlen(name) : 0) + strlen("data: \n\n") + data->len;
    buf_init(&all, r->pages, SCRIPT_MAX_BYTES);
    buf_printf(&all, "%s%zx\r\n%s%s%sdata: ", r->script->count == 0 ? stream_head : "", frame, name ? "event: " : "",
               name ? name : "", name ? "\n" : "");
    buf_append_slice(&all, buf_slice(data));
    buf_printf(&all, "\n\n\r\n");
    add_piece(r->script, buf_slice(&all));
    buf_release(&all);
}

/* The end of the chunked body goes out with the last event. */
static void end_stream(struct render *r) {
    static const char end[] = "0\r\n\r\n";
    struct slice *last = &r->script->pieces[r->script->count - 1];
    char *p = realloc((char *)(uintptr_t)last->ptr, last->len + sizeof end);
    CHECK(p);
    memcpy(p + last->len, end, sizeof end);
    *last = slice_of(p, last->len + sizeof end - 1);
}

static void chat_stream(struct render *r) {
    const struct script *s = r->script;
    char chunk[400];
    snprintf(chunk, sizeof chunk,
             "{\"id\":\"chatcmpl-mock00000001\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":"
             "\"%s\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_mock\"",
             s->model);
    event(r, NULL,
          "%s,\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"
          "\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}",
          chunk);
    for (uint32_t i = 0; i < s->spec.events; i++)
        event(r, NULL,
              "%s,\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"logprobs\":null,\"finish_reason\":null}],"
              "\"usage\":null}",
              chunk, r->text);
    event(r, NULL,
          "%s,\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":null}",
          chunk);
    event(r, NULL,
          "%s,\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%u,\"total_tokens\":%u,"
          "\"prompt_tokens_details\":{\"cached_tokens\":%d,\"audio_tokens\":0},\"completion_tokens_details\":"
          "{\"reasoning_tokens\":0,\"audio_tokens\":0}}}",
          chunk, PROMPT_TOKENS, s->spec.events, PROMPT_TOKENS + s->spec.events, CACHED_TOKENS);
    event(r, NULL, "[DONE]");
}

static void messages_stream(struct render *r) {
    const struct script *s = r->script;
    event(r, "message_start",
          "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_mock00000001\",\"type\":\"message\",\"role\":"
          "\"assistant\",\"model\":\"%s\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":"
          "{\"input_tokens\":%d,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":%d,"
          "\"output_tokens\":1}}}",
          s->model, PROMPT_TOKENS - CACHED_TOKENS, CACHED_TOKENS);
    event(r, "content_block_start",
          "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}");
    event(r, "ping", "{\"type\":\"ping\"}");
    for (uint32_t i = 0; i < s->spec.events; i++)
        event(r, "content_block_delta",
              "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"%s\"}}",
              r->text);
    event(r, "content_block_stop", "{\"type\":\"content_block_stop\",\"index\":0}");
    event(r, "message_delta",
          "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":"
          "{\"output_tokens\":%u}}",
          s->spec.events);
    event(r, "message_stop", "{\"type\":\"message_stop\"}");
}

static void responses_object(struct buf *b, const struct script *s, const char *status, const char *output,
                             uint32_t tokens) {
    buf_printf(b,
               "{\"id\":\"resp_mock00000001\",\"object\":\"response\",\"created_at\":1700000000,\"status\":\"%s\","
               "\"error\":null,\"incomplete_details\":null,\"instructions\":null,\"max_output_tokens\":256,\"model\":"
               "\"%s\",\"output\":[",
               status, s->model);
    buf_append(b, output, strlen(output));
    buf_printf(b, "],\"parallel_tool_calls\":true,\"temperature\":1,\"tool_choice\":\"auto\",\"tools\":[],\"usage\":");
    if (tokens == 0)
        buf_printf(b, "null}");
    else
        buf_printf(b,
                   "{\"input_tokens\":%d,\"input_tokens_details\":{\"cached_tokens\":%d},\"output_tokens\":%u,"
                   "\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":%u}}",
                   PROMPT_TOKENS, CACHED_TOKENS, tokens, PROMPT_TOKENS + tokens);
}

/* A message item of the Responses API with so many copies of the text. */
static char *responses_item(struct render *r, const char *status, const char *text, uint32_t times) {
    struct buf b;
    buf_init(&b, r->pages, SCRIPT_MAX_BYTES);
    buf_printf(&b, "{\"id\":\"msg_mock00000001\",\"type\":\"message\",\"status\":\"%s\",\"role\":\"assistant\",",
               status);
    buf_printf(&b, "\"content\":[%s", times ? "{\"type\":\"output_text\",\"annotations\":[],\"text\":\"" : "");
    for (uint32_t i = 0; i < times; i++)
        buf_append(&b, text, strlen(text));
    buf_printf(&b, "%s", times ? "\"}]}" : "]}");
    char *item = strndup(buf_ptr(&b), b.len);
    CHECK(item);
    buf_release(&b);
    return item;
}

static void responses_event(struct render *r, const char *name, unsigned number, const char *status, const char *output,
                            uint32_t tokens) {
    struct buf b;
    buf_init(&b, r->pages, SCRIPT_MAX_BYTES);
    responses_object(&b, r->script, status, output, tokens);
    event(r, name, "{\"type\":\"%s\",\"sequence_number\":%u,\"response\":%.*s}", name, number, (int)b.len, buf_ptr(&b));
    buf_release(&b);
}

static void responses_stream(struct render *r) {
    const struct script *s = r->script;
    static const char place[] = "\"item_id\":\"msg_mock00000001\",\"output_index\":0,\"content_index\":0";
    unsigned n = 0;
    char *empty = responses_item(r, "in_progress", "", 0);
    char *whole = responses_item(r, "completed", r->text, s->spec.events);
    responses_event(r, "response.created", n++, "in_progress", "", 0);
    responses_event(r, "response.in_progress", n++, "in_progress", "", 0);
    event(r, "response.output_item.added",
          "{\"type\":\"response.output_item.added\",\"sequence_number\":%u,\"output_index\":0,\"item\":%s}", n++,
          empty);
    event(r, "response.content_part.added",
          "{\"type\":\"response.content_part.added\",\"sequence_number\":%u,%s,\"part\":{\"type\":\"output_text\","
          "\"annotations\":[],\"text\":\"\"}}",
          n++, place);
    for (uint32_t i = 0; i < s->spec.events; i++)
        event(r, "response.output_text.delta",
              "{\"type\":\"response.output_text.delta\",\"sequence_number\":%u,%s,\"delta\":\"%s\",\"logprobs\":[]}",
              n++, place, r->text);
    const char *text = strstr(whole, "\"text\":\""); /* up to the part's closing brace */
    int text_len = text ? (int)(strrchr(text, '}') - text) - 2 : 0;
    event(r, "response.output_text.done",
          "{\"type\":\"response.output_text.done\",\"sequence_number\":%u,%s,%.*s,\"logprobs\":[]}", n++, place,
          text_len, text ? text : "");
    event(r, "response.content_part.done",
          "{\"type\":\"response.content_part.done\",\"sequence_number\":%u,%s,\"part\":{\"type\":\"output_text\","
          "\"annotations\":[],%.*s}}",
          n++, place, text_len, text ? text : "");
    event(r, "response.output_item.done",
          "{\"type\":\"response.output_item.done\",\"sequence_number\":%u,\"output_index\":0,\"item\":%s}", n++,
          whole);
    responses_event(r, "response.completed", n, "completed", whole, s->spec.events);
    free(empty);
    free(whole);
}

static void gemini_stream(struct render *r) {
    const struct script *s = r->script;
    for (uint32_t i = 0; i < s->spec.events; i++)
        event(r, NULL,
              "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"%s\"}],\"role\":\"model\"},%s\"index\":0}],"
              "\"usageMetadata\":{\"promptTokenCount\":%d,\"cachedContentTokenCount\":%d,\"candidatesTokenCount\":%u,"
              "\"totalTokenCount\":%u},\"modelVersion\":\"%s\",\"responseId\":\"mock00000001\"}",
              r->text, i + 1 == s->spec.events ? "\"finishReason\":\"STOP\"," : "", PROMPT_TOKENS, CACHED_TOKENS, i + 1,
              PROMPT_TOKENS + i + 1, s->model);
}

/* A whole answer's body. */
static void whole(struct render *r, struct buf *b) {
    const struct script *s = r->script;
    switch (s->dialect) {
    case MOCK_CHAT:
        buf_printf(b,
                   "{\"id\":\"chatcmpl-mock00000001\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":"
                   "\"%s\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\","
                   "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":%d,"
                   "\"completion_tokens\":%d,\"total_tokens\":%d,\"prompt_tokens_details\":{\"cached_tokens\":%d}}}",
                   s->model, r->text, PROMPT_TOKENS, WHOLE_TOKENS, PROMPT_TOKENS + WHOLE_TOKENS, CACHED_TOKENS);
        break;
    case MOCK_MESSAGES:
        buf_printf(b,
                   "{\"id\":\"msg_mock00000001\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"%s\","
                   "\"content\":[{\"type\":\"text\",\"text\":\"%s\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":"
                   "null,\"usage\":{\"input_tokens\":%d,\"cache_creation_input_tokens\":0,"
                   "\"cache_read_input_tokens\":%d,\"output_tokens\":%d}}",
                   s->model, r->text, PROMPT_TOKENS - CACHED_TOKENS, CACHED_TOKENS, WHOLE_TOKENS);
        break;
    case MOCK_RESPONSES: {
        char *item = responses_item(r, "completed", r->text, 1);
        responses_object(b, s, "completed", item, WHOLE_TOKENS);
        free(item);
        break;
    }
    case MOCK_GEMINI:
        buf_printf(b,
                   "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"%s\"}],\"role\":\"model\"},\"finishReason\":"
                   "\"STOP\",\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":%d,\"cachedContentTokenCount\":%d,"
                   "\"candidatesTokenCount\":%d,\"totalTokenCount\":%d},\"modelVersion\":\"%s\",\"responseId\":"
                   "\"mock00000001\"}",
                   r->text, PROMPT_TOKENS, CACHED_TOKENS, WHOLE_TOKENS, PROMPT_TOKENS + WHOLE_TOKENS, s->model);
        break;
    case MOCK_EMBEDDINGS:
        buf_printf(b,
                   "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[0.25,-0.5,"
                   "0.125,1,0.75,-0.0625,0.5,-1]}],"
                   "\"model\":\"%s\",\"usage\":{\"prompt_tokens\":%d,\"total_tokens\":%d}}",
                   s->model, PROMPT_TOKENS, PROMPT_TOKENS);
        break;
    case MOCK_NOTHING: buf_printf(b, "{\"error\":{\"message\":\"no such path\"}}"); break;
    }
}

static void add_whole(struct render *r, int status, struct slice body) {
    struct buf all;
    buf_init(&all, r->pages, SCRIPT_MAX_BYTES);
    buf_printf(&all, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n%s\r\n", status,
               status == 200 ? "OK" : "Error", body.len, status == 429 ? "Retry-After: 1\r\n" : "");
    buf_append_slice(&all, body);
    add_piece(r->script, buf_slice(&all));
    buf_release(&all);
}

static void render_body(struct render *r) {
    struct script *s = r->script;
    struct buf b;
    buf_init(&b, r->pages, SCRIPT_MAX_BYTES);
    int status = 200;
    if (s->failing && s->spec.fault == FAULT_GARBAGE) {
        buf_printf(&b, "{\"id\":]]} this is no JSON");
    } else if (s->failing && s->spec.fault == FAULT_STATUS) {
        status = s->spec.status;
        buf_printf(&b, "{\"error\":{\"message\":\"mock fault %d\",\"type\":\"mock\",\"code\":null}}", status);
    } else {
        status = s->dialect == MOCK_NOTHING ? 404 : 200;
        whole(r, &b);
        s->tokens = s->dialect == MOCK_EMBEDDINGS || s->dialect == MOCK_NOTHING ? 0 : WHOLE_TOKENS;
    }
    add_whole(r, status, buf_slice(&b));
    buf_release(&b);
}

static void render(struct render *r) {
    static void (*const streams[])(struct render *) = { chat_stream, messages_stream, responses_stream, gemini_stream };
    struct script *s = r->script;
    bool body_fault = s->failing && (s->spec.fault == FAULT_GARBAGE || s->spec.fault == FAULT_STATUS);
    if (!s->stream || s->dialect >= ARRAY_LEN(streams) || body_fault) {
        render_body(r);
        return;
    }
    streams[s->dialect](r);
    end_stream(r);
    s->tokens = s->spec.events;
}

const struct script *script_find(struct pages *pages, enum mock_dialect dialect, bool stream, bool failing,
                                 struct slice model) {
    static struct script *scripts;
    for (struct script *s = scripts; s; s = s->next)
        if (s->dialect == dialect && s->stream == stream && s->failing == failing && slice_is(model, s->model))
            return s;
    struct script *s = calloc(1, sizeof *s);
    if (!s || model.len >= sizeof s->model)
        return NULL;
    s->dialect = dialect;
    s->stream = stream;
    s->failing = failing;
    memcpy(s->model, model.ptr, model.len);
    spec_parse(&s->spec, model);
    uint32_t text_bytes = s->spec.text_bytes ? s->spec.text_bytes : stream ? 9 : 260;
    struct buf event_data;
    buf_init(&event_data, pages, SCRIPT_MAX_BYTES);
    struct render r = { .script = s, .event = &event_data, .pages = pages, .text = malloc(text_bytes + 1) };
    if (!r.text)
        return NULL;
    for (uint32_t i = 0; i < text_bytes; i++)
        r.text[i] = " and then"[i % 9];
    r.text[text_bytes] = '\0';
    render(&r);
    free(r.text);
    buf_release(&event_data);
    s->next = scripts;
    scripts = s;
    return s;
}
