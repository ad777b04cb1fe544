/* The module of Gemini generateContent: its functions in one struct. */
#include "proto/dialect/gemini.h"

/* A model name that came from configuration; what a path cannot hold is percent-encoded. */
static bool write_model(struct slice model, struct buf *out) {
    static const char hex[] = "0123456789ABCDEF";
    bool ok = buf_append_slice(out, SLICE("/models/"));
    for (size_t i = 0; i < model.len && ok; i++) {
        unsigned char c = (unsigned char)model.ptr[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~/@", c);
        char code[3] = { '%', hex[c >> 4], hex[c & 15] };
        ok = plain ? buf_append(out, model.ptr + i, 1) : buf_append(out, code, 3);
    }
    return ok;
}

static bool write_path(struct slice model, bool stream, struct buf *out) {
    return write_model(model, out) &&
           buf_append_slice(out, stream ? SLICE(":streamGenerateContent?alt=sse") : SLICE(":generateContent"));
}

static bool write_count_path(struct slice model, struct buf *out) {
    return write_model(model, out) && buf_append_slice(out, SLICE(":countTokens"));
}

static bool write_count(uint64_t tokens, struct buf *out) {
    return buf_printf(out, "{\"totalTokens\":%llu}", (unsigned long long)tokens);
}

static void close_reader(void *reader) {
    (void)reader;
}

const struct dialect dialect_gemini = {
    .name = "gemini",
    .id = IR_GEMINI,
    .read_request = gemini_read_request,
    .write_request = gemini_write_request,
    .write_path = write_path,
    .reader = gemini_reader,
    .event = gemini_event,
    .whole = gemini_whole,
    .end = gemini_end,
    .close_reader = close_reader,
    .writer = gemini_writer,
    .put = gemini_put,
    .finish = gemini_finish,
    .fail = gemini_fail,
    .close_writer = gemini_close_writer,
    .ping = ": ping\r\n\r\n",
    .array_ping = " ",
    .content_type = "text/event-stream",
    .write_answer = gemini_write_answer,
    .write_error = gemini_write_error,
    .call_blobs = true,
    .write_count_path = write_count_path,
    .write_count = write_count,
    .read_usage = gemini_read_usage,
};
