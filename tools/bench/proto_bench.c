/* Micro-benchmarks of proto: nanoseconds an operation, the best of several rounds, on one core.
 * Prints a line each; -q runs a hundredth of the rounds (to see that it works). Not part of the tests: figures depend
 * on the machine. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "proto/base/check.h"
#include "proto/base/crypto.h"
#include "proto/http/http.h"
#include "proto/json.h"
#include "proto/price.h"
#include "proto/sse.h"

static struct pages pages;
static struct arena arena;
static struct slice chat_1k, chat_100k, chat_cjk, many_numbers, chunk, head;
static uint64_t sink;

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* A chat body of about `size` bytes: a few messages, then one long string of `fill`. */
static struct slice chat_body(size_t size, const char *fill) {
    struct buf b;
    buf_init(&b, &pages, 1 << 20);
    buf_printf(&b, "{\"model\":\"gpt-4o-mini\",\"temperature\":0.7,\"max_tokens\":512,\"stream\":true,\"stream_"
                   "options\":{\"include_usage\":true},"
                   "\"user\":\"u-12345\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant. "
                   "Answer briefly.\"},"
                   "{\"role\":\"user\",\"content\":\"What is the capital of "
                   "France?\"},{\"role\":\"assistant\",\"content\":\"Paris.\"},"
                   "{\"role\":\"user\",\"content\":\"Now summarise this text for me:\\n\\n");
    while (b.len + 5 < size)
        buf_append(&b, fill, strlen(fill));
    buf_append(&b, "\"}]}", 4);
    char *copy = malloc(b.len);
    memcpy(copy, buf_ptr(&b), b.len);
    struct slice s = slice_of(copy, b.len);
    buf_release(&b);
    return s;
}

static void setup(void) {
    pages_init(&pages, 64);
    arena_init(&arena, &pages, 64 << 20);
    chat_1k = chat_body(1024, "the quick brown fox jumps over the lazy dog, ");
    chat_100k = chat_body(100 * 1024, "the quick brown fox jumps over the lazy dog, ");
    chat_cjk =
        chat_body(100 * 1024, "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe3\x81\xae\xe6\x96\x87\xe7\xab\xa0\xe3\x80\x82");
    char *numbers = malloc(110000), *p = numbers;
    *p++ = '[';
    for (unsigned i = 1; p - numbers < 100 * 1024; i++)
        p += snprintf(p, 16, "-0.0%u,", i * 2654435761u % 1000000);
    p[-1] = ']';
    many_numbers = slice_of(numbers, (size_t)(p - numbers));
    chunk = SLICE(
        "data: "
        "{\"id\":\"chatcmpl-9xYzAbCdEfGhIjKlMnOpQrStUvWx\",\"object\":\"chat.completion.chunk\",\"created\":1715367049,"
        "\"model\":\"gpt-4o-mini-2024-07-18\",\"system_fingerprint\":\"fp_a1b2c3d4e5\",\"choices\":[{\"index\":0,"
        "\"delta\":{\"content\":\" token\"},\"finish_reason\":null}]}\n\n");
    head = SLICE("POST /v1/chat/completions HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: OpenAI/Python 1.51.0\r\n"
                 "Authorization: Bearer sk-abcdefghijklmnopqrstuvwxyz012345\r\nAccept: "
                 "application/json\r\nContent-Type: application/json\r\n"
                 "Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nContent-Length: 1024\r\n\r\n");
}

static void parse_json(struct slice s) {
    struct json j;
    CHECK(json_parse(&j, &arena, s.ptr, s.len));
    sink += j.count;
    arena_reset(&arena);
}

static void bench_1k(void) { parse_json(chat_1k); }
static void bench_100k(void) { parse_json(chat_100k); }
static void bench_cjk(void) { parse_json(chat_cjk); }
static void bench_numbers(void) { parse_json(many_numbers); }
static void bench_chunk_json(void) { parse_json(slice_of(chunk.ptr + 6, chunk.len - 8)); }

static void bench_chunk_into(void) {
    struct json_tok tape[64];
    struct json j;
    CHECK(json_parse_into(&j, tape, 64, chunk.ptr + 6, chunk.len - 8));
    sink += j.count;
}

static void bench_gets(void) {
    static struct json j;
    static struct json_tok tape[64];
    if (!j.count)
        CHECK(json_parse_into(&j, tape, 64, chat_1k.ptr, chat_1k.len));
    static const char *const names[] = {
        "model", "messages", "stream", "max_tokens", "stream_options", "n", "max_completion_tokens", "tools"
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        sink += (uint64_t)json_get(&j, 0, names[i]);
}

static void bench_sse(void) {
    struct sse s;
    struct sse_event ev;
    size_t used;
    sse_init(&s, 1 << 20);
    CHECK(sse_next(&s, chunk, &arena, &ev, &used) == SSE_EVENT && used == chunk.len);
    sink += ev.data.len;
}

static void bench_head(void) {
    static struct http_head h;
    size_t scanned = 0;
    CHECK(http_parse_request(&h, head, &scanned) == HTTP_OK && h.content_length == 1024);
    sink += h.header_count;
}

static void bench_hmac(void) {
    static struct hmac_key k;
    static bool ready;
    uint8_t out[32];
    if (!ready)
        hmac_key_init(&k, "pepper", 6);
    ready = true;
    hmac_sign(&k, "sk-abcdefghijklmnopqrstuvwxyz012345", 35, out);
    sink += out[0];
}

static void bench_sha_100k(void) {
    struct sha256 s;
    uint8_t out[32];
    sha256_init(&s);
    sha256_update(&s, chat_100k.ptr, chat_100k.len);
    sha256_final(&s, out);
    sink += out[0];
}

static void bench_write(void) {
    struct buf b;
    struct json_writer w;
    buf_init(&b, &pages, 1 << 20);
    jw_init(&w, &b);
    jw_object(&w);
    jw_key(&w, "id");
    jw_cstr(&w, "chatcmpl-9xYzAbCdEfGhIjKlMnOpQrStUvWx");
    jw_key(&w, "created");
    jw_u64(&w, 1715367049);
    jw_key(&w, "choices");
    jw_array(&w);
    jw_object(&w);
    jw_key(&w, "delta");
    jw_cstr(&w, "some \"text\"\n with escapes");
    jw_end_object(&w);
    jw_end_array(&w);
    jw_key(&w, "cost_usd");
    jw_fixed(&w, 123456, 9, false);
    jw_end_object(&w);
    CHECK(!w.failed);
    sink += b.len;
    buf_release(&b);
}

static void bench_price(void) {
    static struct meters m = { { [METER_INPUT] = 1000, [METER_OUTPUT] = 300 } };
    static const struct prices p = { { [METER_INPUT] = 150000, [METER_OUTPUT] = 600000 } };
    m.n[METER_INPUT] ^= sink & 1;
    sink += (uint64_t)price_cost_nano(&m, &p, 0, RATIO_ONE);
}

static void measure(const char *name, void (*op)(void), unsigned times, size_t bytes) {
    double best = 1e18;
    for (int round = 0; round < 7; round++) {
        double t = now_ns();
        for (unsigned i = 0; i < times; i++)
            op();
        t = (now_ns() - t) / times;
        best = t < best ? t : best;
    }
    printf("%-24s %10.1f ns", name, best);
    if (bytes)
        printf("   %7zu bytes   %6.2f GB/s", bytes, (double)bytes / best);
    putchar('\n');
}

int main(int argc, char **argv) {
    unsigned k = argc > 1 && strcmp(argv[1], "-q") == 0 ? 1 : 100;
    setup();
    measure("json chat 1 KB", bench_1k, 2000 * k, chat_1k.len);
    measure("json chat 100 KB", bench_100k, 50 * k, chat_100k.len);
    measure("json chat 100 KB, CJK", bench_cjk, 20 * k, chat_cjk.len);
    measure("json 100 KB of numbers", bench_numbers, 20 * k, many_numbers.len);
    measure("json chunk", bench_chunk_json, 4000 * k, chunk.len - 8);
    measure("json chunk, own tape", bench_chunk_into, 4000 * k, chunk.len - 8);
    measure("json_get, 8 names", bench_gets, 4000 * k, 0);
    measure("json write", bench_write, 4000 * k, 0);
    measure("sse event", bench_sse, 4000 * k, chunk.len);
    measure("http request head", bench_head, 4000 * k, head.len);
    measure("hmac of a key", bench_hmac, 4000 * k, 35);
    measure("sha256 100 KB", bench_sha_100k, 10 * k, chat_100k.len);
    measure("price", bench_price, 10000 * k, 0);
    free((void *)(uintptr_t)chat_1k.ptr);
    free((void *)(uintptr_t)chat_100k.ptr);
    free((void *)(uintptr_t)chat_cjk.ptr);
    free((void *)(uintptr_t)many_numbers.ptr);
    pages_clear(&pages);
    return sink == 42;
}
