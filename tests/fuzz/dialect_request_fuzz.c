/* Any bytes as a request of each dialect (the first byte chooses which, and for what model): what is read is dumped
 * and written for every dialect; each body written is JSON and is read again by its own dialect; what is refused has
 * a status and a message. */
#include "proto/base/check.h"
#include "proto/dialect/translate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct pages pages;

static void write_for(const struct dialect *to, struct ir_request *r, struct ir_target *t, struct arena *arena) {
    struct ir_dropped dropped = { 0 };
    struct ir_fault f = { 0 };
    struct buf out;
    struct json j;
    buf_init(&out, &pages, 16 << 20);
    if (!to->write_request(r, t, &dropped, &out, &f))
        CHECK(f.status >= 400 && f.message.len > 0);
    else if (!arena->overflow) {
        struct arena own;
        struct ir_request again;
        struct dialect_path path = { .model = SLICE("m"), .stream = r->stream, .sse = true };
        arena_init(&own, &pages, 64 << 20);
        CHECK(json_parse(&j, &own, buf_ptr(&out), out.len) || j.err == JSON_TOO_DEEP);
        if (j.err == JSON_OK)
            translate_read(to, &j, &path, &own, &again, &f);
        arena_reset(&own);
    }
    CHECK(dropped.count <= IR_DROPPED_MAX);
    buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const models[] = { "gpt-5",          "claude-sonnet-5", "claude-3-haiku",
                                          "gemini-2.5-pro", "gemini-3-pro",    "x" };
    if (size < 1)
        return 0;
    const struct dialect *from = dialect_find(data[0] & 3);
    struct slice strip[] = { SLICE("temperature"), SLICE("output_config"), SLICE("thinking") };
    struct slice allow[] = { SLICE("web_search"), SLICE("service_tier") };
    struct ir_target t = { .model = slice_str(models[(data[0] >> 2) % 6]),
                           .origin = 7,
                           .max_output = 8192,
                           .strip = strip,
                           .strip_count = data[0] & 64 ? 3 : 0,
                           .allow = allow,
                           .allow_count = data[0] & 128 ? 2 : 0 };
    struct arena arena;
    struct json j;
    struct ir_request r;
    struct ir_fault f = { 0 };
    struct dialect_path path = { .model = SLICE("m"), .stream = true, .sse = data[0] & 16 };
    arena_init(&arena, &pages, 32 << 20);
    if (json_parse(&j, &arena, (const char *)data + 1, size - 1)) {
        if (!translate_read(from, &j, &path, &arena, &r, &f)) {
            CHECK(f.status >= 400 && f.message.len > 0);
        } else {
            struct buf dump;
            buf_init(&dump, &pages, 16 << 20);
            ir_dump_request(&r, &dump);
            buf_release(&dump);
            for (uint32_t i = 0; i < IR_DIALECTS; i++)
                write_for(dialect_find(i), &r, &t, &arena);
        }
    }
    arena_reset(&arena);
    CHECK(pages.in_use == 0 && pages.big_bytes == 0);
    return 0;
}
