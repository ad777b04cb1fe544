/* Writes the messages of a Messages request: turns as blocks, in the order that the API checks (results first in a
 * user message, thinking unchanged and only where its signature is this provider's own). */
#include "proto/dialect/anthropic.h"

#include "proto/base/crypto.h"

enum { MAX_MARKS = 4 }; /* cache breakpoints that the API takes */

void anthropic_write_mark(struct json_writer *w, struct slice cache, uint32_t *marks) {
    if (!cache.ptr || *marks >= MAX_MARKS)
        return;
    ++*marks;
    jw_key(w, "cache_control");
    jw_object(w);
    common_word(w, "type", "ephemeral");
    if (slice_is(cache, "1h") || slice_is(cache, "12h")) /* 12h is OpenAI's */
        common_word(w, "ttl", "1h");
    jw_end_object(w);
}

static bool refuse_media(const struct ir_request *r, struct ir_fault *f, const char *what) {
    return ir_refuse(f, "unsupported_parameter", ir_member(r, "turns"),
                     arena_printf(r->arena, "%s cannot be sent to this model's provider.", what));
}

/* Ids are [A-Za-z0-9_-]+ here; what else stands in one becomes '_', alike for the call and its result. */
static struct slice sent_id(struct arena *arena, struct slice id) {
    struct slice copy = arena_copy(arena, id);
    char *p = (char *)(uintptr_t)copy.ptr;
    for (size_t i = 0; p && i < copy.len; i++) {
        char c = p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-'))
            p[i] = '_';
    }
    return copy.len > 0 ? copy : SLICE("call");
}

static void write_text(struct json_writer *w, struct slice text, struct slice cache, uint32_t *marks) {
    jw_object(w);
    common_word(w, "type", "text");
    common_member(w, "text", text.ptr ? text : SLICE(""));
    anthropic_write_mark(w, cache, marks);
    jw_end_object(w);
}

static void write_source(struct json_writer *w, const struct ir_part *p, const char *type) {
    jw_key(w, "source");
    jw_object(w);
    common_word(w, "type", type);
    if (strcmp(type, "url") == 0)
        common_member(w, "url", p->url);
    else {
        common_member(w, "media_type", p->media_type);
        common_member(w, "data", *type == 't' ? p->text : p->data);
    }
    jw_end_object(w);
}

static bool write_image(struct json_writer *w, const struct ir_request *r, const struct ir_part *p, uint32_t *marks,
                        struct ir_fault *f) {
    static const char *const types[] = { "image/jpeg", "image/png", "image/gif", "image/webp" };
    bool taken = p->url.len > 0;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        taken = taken || slice_is(p->media_type, types[i]);
    if (!taken)
        return refuse_media(r, f, "Images other than JPEG, PNG, GIF and WebP");
    if (p->url.len > 0 && !slice_starts(p->url, SLICE("http://")) && !slice_starts(p->url, SLICE("https://")))
        return refuse_media(r, f, "An image by this URL");
    jw_object(w);
    common_word(w, "type", "image");
    write_source(w, p, p->url.len > 0 ? "url" : "base64");
    anthropic_write_mark(w, p->cache, marks);
    jw_end_object(w);
    return true;
}

/* PDFs by bytes or URL, and texts; a text file that came as base64 is decoded. */
static bool write_file(struct json_writer *w, struct ir_request *r, const struct ir_part *given, uint32_t *marks,
                       struct ir_fault *f) {
    struct ir_part p = *given;
    bool pdf = slice_is(p.media_type, "application/pdf");
    if (p.data.len > 0 && slice_starts(p.media_type, SLICE("text/"))) {
        struct buf b;
        buf_init(&b, r->arena->pages, p.data.len);
        if (!base64_decode(&b, p.data, true)) {
            buf_release(&b);
            return ir_refuse(f, "invalid_value", ir_member(r, "turns"), SLICE("A file is not valid base64."));
        }
        p.text = arena_copy(r->arena, buf_slice(&b));
        p.data = SLICE_NONE;
        buf_release(&b);
    }
    if (p.url.len == 0 && p.text.len == 0 && !pdf)
        return refuse_media(r, f, "Files other than PDF and text");
    if (p.text.len > 0)
        p.media_type = SLICE("text/plain");
    jw_object(w);
    common_word(w, "type", "document");
    write_source(w, &p, p.text.len > 0 ? "text" : p.url.len > 0 ? "url" : "base64");
    if (p.name.len + p.title.len > 0)
        common_member(w, "title", p.title.len > 0 ? p.title : p.name);
    if (p.context.len > 0)
        common_member(w, "context", p.context);
    anthropic_write_mark(w, p.cache, marks);
    jw_end_object(w);
    return true;
}

static bool write_part(struct json_writer *w, struct ir_request *r, const struct ir_part *p, uint32_t *marks,
                       struct ir_fault *f) {
    switch (p->kind) {
    case IR_TEXT: case IR_REFUSAL:
        if (p->text.len > 0)
            write_text(w, p->text, p->cache, marks);
        return true;
    case IR_IMAGE: return write_image(w, r, p, marks, f);
    case IR_FILE: return write_file(w, r, p, marks, f);
    case IR_AUDIO: return refuse_media(r, f, "Audio");
    case IR_VIDEO: return refuse_media(r, f, "Video");
    default: return true;
    }
}

static bool write_result(struct json_writer *w, struct ir_request *r, const struct ir_part *p, uint32_t *marks,
                         struct ir_fault *f) {
    jw_object(w);
    common_word(w, "type", "tool_result");
    common_member(w, "tool_use_id", sent_id(r->arena, p->id));
    if (p->parts) {
        jw_key(w, "content");
        jw_array(w);
        for (const struct ir_part *q = p->parts; q; q = q->next)
            if (!write_part(w, r, q, marks, f))
                return false;
        jw_end_array(w);
    }
    if (p->is_error) {
        jw_key(w, "is_error");
        jw_bool(w, true);
    }
    anthropic_write_mark(w, p->cache, marks);
    jw_end_object(w);
    return true;
}

static bool write_call(struct json_writer *w, struct ir_request *r, const struct ir_part *p, uint32_t *marks,
                       struct ir_fault *f) {
    struct slice input;
    if (!ir_call_object(r, p, &input, f))
        return false;
    jw_object(w);
    common_word(w, "type", "tool_use");
    common_member(w, "id", sent_id(r->arena, p->id));
    common_member(w, "name", ir_sent_name(r, p->name, 64, NULL));
    jw_key(w, "input");
    jw_raw(w, input);
    anthropic_write_mark(w, p->cache, marks);
    jw_end_object(w);
    return true;
}

static void write_thinking(struct json_writer *w, const struct ir_part *p, const struct ir_target *t) {
    if (!ir_blob_fits(&p->blob, IR_ANTHROPIC, t->origin) || p->blob.data.len == 0)
        return;
    jw_object(w);
    if (p->blob.kind == IR_BLOB_REDACTED) {
        common_word(w, "type", "redacted_thinking");
        common_member(w, "data", p->blob.data);
    } else {
        common_word(w, "type", "thinking");
        common_member(w, "thinking", p->text.ptr ? p->text : SLICE(""));
        common_member(w, "signature", p->blob.data);
    }
    jw_end_object(w);
}

/* Whether anything of the turn will be written: a message may not be empty. */
static bool says_something(const struct ir_turn *turn, const struct ir_target *t) {
    for (const struct ir_part *p = turn->parts; p; p = p->next)
        if (p->kind != IR_REASONING || (ir_blob_fits(&p->blob, IR_ANTHROPIC, t->origin) && p->blob.data.len > 0))
            return true;
    return false;
}

bool anthropic_write_messages(struct json_writer *w, struct ir_request *r, const struct ir_target *t, uint32_t *marks,
                              struct ir_fault *f) {
    jw_key(w, "messages");
    jw_array(w);
    for (const struct ir_turn *turn = r->turns; turn; turn = turn->next) {
        if (turn->role == IR_SYSTEM || !says_something(turn, t))
            continue;
        jw_object(w);
        common_word(w, "role", turn->role == IR_USER ? "user" : "assistant");
        jw_key(w, "content");
        jw_array(w);
        for (const struct ir_part *p = turn->parts; p; p = p->next) {
            bool ok = true;
            if (p->kind == IR_RESULT)
                ok = write_result(w, r, p, marks, f);
            else if (p->kind == IR_CALL)
                ok = write_call(w, r, p, marks, f);
            else if (p->kind == IR_REASONING)
                write_thinking(w, p, t);
            else if (turn->role == IR_ASSISTANT && p->kind != IR_TEXT && p->kind != IR_REFUSAL)
                ok = refuse_media(r, f, "What a model made that is no text");
            else
                ok = write_part(w, r, p, marks, f);
            if (!ok)
                return false;
        }
        jw_end_array(w);
        jw_end_object(w);
    }
    jw_end_array(w);
    return true;
}
