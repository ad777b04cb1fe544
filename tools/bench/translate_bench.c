/* What translating costs beside passing: CPU per event of a stream, per request, and memory per stream, in process
 * (no sockets: at the server a read, a write and the rest come on top of both alike). usage: translate_bench [EVENTS]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "proto/dialect/translate.h"
#include "proto/pass/pass.h"

static struct pages pages;

static double now_ns(void) { /* not money */
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec; /* not money */
}

static const char *const events[IR_DIALECTS] = {
    "{\"id\":\"chatcmpl-ABCDEFGHIJ\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt-"
    "4o\","
    "\"system_fingerprint\":\"fp\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" and then\"},\"logprobs\":null,"
    "\"finish_reason\":null}],\"usage\":null}",
    "{\"type\":\"response.output_text.delta\",\"sequence_number\":5,\"item_id\":\"msg_1234567890\",\"output_index\":"
    "0,"
    "\"content_index\":0,\"delta\":\" and then\",\"logprobs\":[]}",
    "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" and then\"}}",
    "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\" and "
    "then\"}],\"role\":\"model\"},\"index\":0}],\"usageMetadata\":"
    "{\"promptTokenCount\":9,\"candidatesTokenCount\":4,\"totalTokenCount\":13},\"modelVersion\":\"gemini-2.5-"
    "flash\"}",
};
static const char *const names[IR_DIALECTS] = { NULL, "response.output_text.delta", "content_block_delta", NULL };

static struct sse_event event_of(uint32_t d) {
    struct sse_event ev = { .data = slice_str(events[d]), .has_data = true, .name = slice_str(names[d]) };
    ev.raw = ev.data;
    return ev;
}

static double pass_stream(uint32_t d, int n) { /* not money */
    static const struct pass *const modules[] = { &pass_openai_chat, &pass_responses, &pass_anthropic, &pass_gemini };
    static struct pieces out;
    struct pass_answer a = { .wants_usage = true };
    struct buf held;
    struct arena scratch;
    struct sse_event ev = event_of(d);
    struct pass_fault f;
    arena_init(&scratch, &pages, 1 << 20);
    buf_init(&held, &pages, 1 << 20);
    a.held = &held;
    double start = now_ns(); /* not money */
    for (int i = 0; i < n; i++) {
        pieces_reset(&out);
        if (modules[d]->event(&a, &ev, &scratch, &out, &f) != PASS_OK)
            exit(1);
        arena_reset(&scratch);
    }
    double took = (now_ns() - start) / n; /* not money */
    buf_release(&held);
    return took;
}

static double translated_stream(uint32_t client, uint32_t up, int n, size_t *memory) { /* not money */
    struct arena arena, scratch;
    struct buf out;
    struct translate t;
    struct ir_request r = { .arena = &arena, .from = (enum ir_dialect)client, .n = 1, .stream = true };
    struct sse_event ev = event_of(up);
    arena_init(&arena, &pages, 256 << 20);
    arena_init(&scratch, &pages, 1 << 20);
    buf_init(&out, &pages, 1 << 20);
    struct dialect_reader_settings rs = { .arena = &arena, .pages = &pages, .max_held = 1 << 20, .origin = 7 };
    struct dialect_writer_settings ws = { .arena = &arena,
                                          .pages = &pages,
                                          .max_held = 1 << 20,
                                          .model = SLICE("gpt-4o"),
                                          .id = SLICE("abcdefghijklmnopqrstuvwx") };
    if (!translate_open(&t, dialect_find(client), dialect_find(up), &r, &rs, &ws))
        exit(1);
    double start = now_ns(); /* not money */
    for (int i = 0; i < n; i++) {
        if (translate_event(&t, &ev, &scratch, &out) != DIALECT_OK)
            exit(1);
        buf_consume(&out, out.len);
        arena_reset(&scratch);
    }
    double took = (now_ns() - start) / n; /* not money */
    *memory = arena.used_bytes + t.held.cap;
    translate_close(&t);
    buf_release(&out);
    arena_reset(&arena);
    arena_reset(&scratch);
    return took;
}

/* A request of some 20 KB: an agent's, with ten tools and twenty turns. */
static struct slice big_request(struct arena *arena) {
    struct buf b;
    buf_init(&b, &pages, 1 << 20);
    buf_printf(&b, "{\"model\":\"m\",\"stream\":true,\"max_tokens\":1000,\"tools\":[");
    for (int i = 0; i < 10; i++)
        buf_printf(&b,
                   "%s{\"type\":\"function\",\"function\":{\"name\":\"tool_%d\",\"description\":\"%0500d\","
                   "\"parameters\":{\"type\":"
                   "\"object\",\"properties\":{\"path\":{\"type\":\"string\"},\"n\":{\"type\":\"integer\"}},"
                   "\"required\":[\"path\"]}}}",
                   i ? "," : "", i, 0);
    buf_printf(&b, "],\"messages\":[{\"role\":\"system\",\"content\":\"%04000d\"}", 0);
    for (int i = 0; i < 20; i++)
        buf_printf(&b, ",{\"role\":\"user\",\"content\":\"%0200d\"},{\"role\":\"assistant\",\"content\":\"%0200d\"}",
                   0, 0);
    buf_printf(&b, ",{\"role\":\"user\",\"content\":\"go\"}]}");
    struct slice s = arena_copy(arena, buf_slice(&b));
    buf_release(&b);
    return s;
}

static double request(struct slice body, int to, int n) { /* not money; to < 0: passed */
    struct arena arena;
    struct json j;
    static struct pieces pieces;
    arena_init(&arena, &pages, 64 << 20);
    double start = now_ns(); /* not money */
    for (int i = 0; i < n; i++) {
        if (!json_parse(&j, &arena, body.ptr, body.len))
            exit(1);
        struct pass_request p;
        pass_openai_chat.scan(&j, &p, &arena, NULL, 0); /* admission needs it either way */
        if (to < 0) {
            struct pass_edit e = { .model = SLICE("other") };
            pieces_reset(&pieces);
            pass_openai_chat.build(&j, &p, &e, &arena, &pieces);
        } else {
            struct ir_request r;
            struct ir_fault f;
            struct ir_dropped d = { 0 };
            struct dialect_path path = { .stream = true };
            struct ir_target t = { .model = SLICE("other"), .origin = 7, .max_output = 8192 };
            struct buf out;
            buf_init(&out, &pages, 1 << 20);
            if (!translate_read(&dialect_openai, &j, &path, &arena, &r, &f) ||
                !dialect_find((uint32_t)to)->write_request(&r, &t, &d, &out, &f))
                exit(1);
            buf_release(&out);
        }
        arena_reset(&arena);
    }
    return (now_ns() - start) / n; /* not money */
}

int main(int argc, char **argv) {
    int n = argc > 1 ? atoi(argv[1]) : 200000;
    struct arena arena;
    pages_init(&pages, 64);
    arena_init(&arena, &pages, 1 << 20);
    printf("ns per event            client: ");
    for (uint32_t c = 0; c < IR_DIALECTS; c++)
        printf("%12s", dialect_find(c)->name);
    printf("\n");
    for (uint32_t up = 0; up < IR_DIALECTS; up++) {
        size_t memory[IR_DIALECTS];
        printf("%-12s passed %5.0f  translated", dialect_find(up)->name, pass_stream(up, n));
        for (uint32_t c = 0; c < IR_DIALECTS; c++)
            printf("%12.0f", translated_stream(c, up, n, &memory[c]));
        printf("\n%-12s bytes held after %d events", "", n);
        for (uint32_t c = 0; c < IR_DIALECTS; c++)
            printf("%12zu", memory[c]);
        printf("\n");
    }
    struct slice body = big_request(&arena);
    printf("request of %zu bytes, us: passed %.1f", body.len, request(body, -1, 2000) / 1000);
    for (int to = 0; to < IR_DIALECTS; to++)
        printf(", to %s %.1f", dialect_find((uint32_t)to)->name, request(body, to, 2000) / 1000);
    printf("\n");
    arena_reset(&arena);
    pages_clear(&pages);
    return 0;
}
