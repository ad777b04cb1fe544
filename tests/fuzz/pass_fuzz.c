/* Any bytes as a request, a whole answer or a stream of each dialect that passes. The first byte chooses the dialect, the mode and the settings,
 * the second which members are stripped and how the stream is cut. A body that was accepted and built must be JSON, with the limit and the model
 * that were asked for; a stream gives the same however it is cut and whether or not events like the one before take the short way, asks for its figures at most once and leaves no memory. */
#include <stdlib.h>

#include "proto/base/check.h"
#include "proto/pass/pass.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct pages pages;
static struct arena arena, scratch;
static struct buf held;
static struct pieces pieces;
static unsigned asked;

static void on_usage(void *arg, struct pass_answer *a, struct ir_cost *cost) {
    (void)arg, (void)a;
    asked++;
    *cost = (struct ir_cost){ .show = true, .usd_nano = 12500000, .tokens = true, .cost_tokens = 9 };
}

static struct slice seal(void *arg, struct slice id, struct arena *into) {
    (void)arg;
    return arena_printf(into, "sealed.%.*s", (int)(id.len < 100 ? id.len : 100), id.ptr);
}

static struct slice flat(const struct pieces *p, struct arena *into) {
    char *text = arena_alloc(into, p->bytes + 1);
    size_t at = 0;
    CHECK(text != NULL);
    for (uint32_t i = 0; i < p->count; at += p->at[i].len, i++)
        memcpy(text + at, p->at[i].ptr, p->at[i].len);
    return slice_of(text, at);
}

static void request(const struct pass *pass, struct slice text, uint8_t how) {
    struct slice allow[] = { SLICE("web_search"), SLICE("code_execution"), SLICE("service_tier"), SLICE("image") };
    struct slice strip[] = { SLICE("temperature"), SLICE("top_p"), SLICE("tools"), SLICE("model"), SLICE("metadata"), SLICE("generationConfig") };
    struct json j, again;
    struct pass_request r;
    struct pass_edit e = { .strip = strip, .strip_count = how % 7, .ask_usage = true, .set_limit = how & 8, .limit = 7 };
    if (!json_parse(&j, &arena, text.ptr, text.len))
        return;
    pass->scan(&j, &r, &arena, allow, how >> 4 & 3);
    if (r.fault_code != NULL) {
        CHECK(r.fault_text != NULL);
        return;
    }
    CHECK(r.n >= 1 && r.drops <= PASS_DROPS && r.sealed_count <= PASS_SEALED);
    if (how & 64)
        e.model = SLICE("other \"model\"");
    struct slice *plain = arena_alloc(&arena, (r.sealed_count + 1) * sizeof *plain);
    for (uint32_t i = 0; i < r.sealed_count && plain != NULL; i++)
        plain[i] = SLICE("plain\n");
    e.plain = how & 128 ? plain : NULL;
    memset(&pieces, 0, sizeof pieces);
    if (!pass->build(&j, &r, &e, &arena, &pieces))
        return; /* more splices than there is room for */
    struct slice out = flat(&pieces, &arena);
    CHECK(json_parse(&again, &arena, out.ptr, out.len) && json_is(&again, 0, JSON_OBJECT));
    if (e.model.ptr != NULL && pass != &pass_gemini)
        CHECK(json_str_is(&again, json_get(&again, 0, "model"), "other \"model\""));
    if (e.set_limit) { /* seen again by another scan, which no hosted tool troubles any more */
        struct pass_request twice;
        pass->scan(&again, &twice, &arena, allow, how >> 4 & 3);
        CHECK(twice.fault_code == NULL && twice.has_limit && twice.limit == 7 && twice.drops == 0);
    }
}

static void begin(struct pass_answer *a, uint8_t how) {
    memset(a, 0, sizeof *a);
    buf_release(&held);
    asked = 0;
    a->wants_usage = how & 1;
    a->as_array = how & 2;
    a->seal = how & 4 ? seal : NULL;
    a->id_prefix = how & 8 ? SLICE("x-") : SLICE("");
    a->on_usage = on_usage;
    a->held = &held;
}

static void whole(const struct pass *pass, struct slice text, uint8_t how) {
    struct json j, again;
    struct pass_answer a;
    struct pass_fault fault;
    if (!json_parse(&j, &arena, text.ptr, text.len))
        return;
    begin(&a, how);
    memset(&pieces, 0, sizeof pieces);
    enum pass_result r = pass->whole(&a, &j, &arena, &pieces, &fault);
    CHECK(asked <= 1 && (r != PASS_ERROR || asked == 0));
    if (r != PASS_OK)
        return;
    struct slice out = flat(&pieces, &arena);
    CHECK(asked == 1 && json_parse(&again, &arena, out.ptr, out.len));
    pass->error(&j, &arena, &fault);
}

/* CRs and LFs may fall to one event or the next, as the stream is cut: they are left out of what is compared. */
static void keep(struct buf *out) {
    struct slice s = flat(&pieces, &scratch);
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] != '\r' && s.ptr[i] != '\n')
            CHECK(buf_append(out, s.ptr + i, 1));
}

/* long_way: no event is taken as like the one before. */
static enum pass_result stream(const struct pass *pass, struct slice text, size_t step, uint8_t how, bool long_way, struct buf *out, uint64_t *text_bytes) {
    struct pass_answer a;
    struct pass_fault fault;
    struct sse s;
    size_t begun = 0;
    enum pass_result r = PASS_OK;
    begin(&a, how);
    sse_init(&s, 1 << 16);
    for (size_t have = step < text.len ? step : text.len;; have = have + step < text.len ? have + step : text.len) {
        size_t len = have - begun, at = 0, used;
        char *exact = malloc(len ? len : 1);
        struct sse_event ev;
        memcpy(exact, text.ptr + begun, len);
        while (r == PASS_OK && sse_next(&s, slice_of(exact + at, len - at), &scratch, &ev, &used) == SSE_EVENT) {
            memset(&pieces, 0, sizeof pieces);
            a.alike.in = long_way ? 0 : a.alike.in;
            r = pass->event(&a, &ev, &scratch, &pieces, &fault);
            if (r != PASS_BAD)
                keep(out);
            at += used;
            arena_reset(&scratch);
        }
        free(exact);
        begun += at;
        if (have == text.len || r != PASS_OK)
            break;
    }
    memset(&pieces, 0, sizeof pieces);
    if (r == PASS_OK && (r = pass->end(&a, &scratch, &pieces)) == PASS_OK) {
        keep(out);
        CHECK(asked == 1 && a.usage_final && a.done);
    } else {
        memset(&pieces, 0, sizeof pieces);
        CHECK(pass->fail(&a, 502, "upstream_failed", SLICE("no"), SLICE("{\"error\":{\"code\":\"x\"}}"), &scratch, &pieces));
        keep(out);
    }
    *text_bytes = a.text_bytes;
    CHECK(asked <= 1 && pass->ping(&a).len > 0 && pass->content_type(&a) != NULL);
    arena_reset(&scratch);
    buf_release(&held);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct pass *const all[] = { &pass_openai_chat, &pass_anthropic, &pass_responses, &pass_gemini };
    if (size < 3 || size > 1 << 16)
        return 0;
    const struct pass *pass = all[data[0] & 3];
    struct slice text = slice_of((const char *)data + 3, size - 3);
    pages_init(&pages, 8);
    arena_init(&arena, &pages, 64 << 20);
    arena_init(&scratch, &pages, 64 << 20);
    buf_init(&held, &pages, 1 << 20);
    switch (data[0] >> 2 & 3) {
    case 0: request(pass, text, data[1]); break;
    case 1: whole(pass, text, data[1]); break;
    default: {
        struct buf once, cut;
        buf_init(&once, &pages, 16 << 20);
        buf_init(&cut, &pages, 16 << 20);
        uint64_t bytes, bytes_cut;
        enum pass_result a = stream(pass, text, SIZE_MAX / 2, data[1], true, &once, &bytes);
        enum pass_result b = stream(pass, text, data[2] % 32 + 1, data[1], false, &cut, &bytes_cut);
        CHECK(a == b && bytes == bytes_cut && slice_eq(buf_slice(&once), buf_slice(&cut)));
        buf_release(&once);
        buf_release(&cut);
    }
    }
    arena_reset(&arena);
    buf_release(&held);
    CHECK(pages.in_use == 0 && pages.big_bytes == 0);
    pages_clear(&pages);
    return 0;
}
