/* The module of Anthropic Messages: its functions in one struct. */
#include "proto/dialect/anthropic.h"

static bool write_path(struct slice model, bool stream, struct buf *out) {
    (void)model;
    (void)stream;
    return buf_append_slice(out, SLICE("/messages"));
}

static bool write_count_path(struct slice model, struct buf *out) {
    (void)model;
    return buf_append_slice(out, SLICE("/messages/count_tokens"));
}

static bool write_count(uint64_t tokens, struct buf *out) {
    return buf_printf(out, "{\"input_tokens\":%llu}", (unsigned long long)tokens);
}

static void close_writer(void *writer) {
    (void)writer;
}

const struct dialect dialect_anthropic = {
    .name = "anthropic",
    .id = IR_ANTHROPIC,
    .read_request = anthropic_read_request,
    .write_request = anthropic_write_request,
    .write_path = write_path,
    .header_name = "anthropic-version",
    .header_value = "2023-06-01",
    .reader = anthropic_reader,
    .event = anthropic_event,
    .whole = anthropic_whole,
    .end = anthropic_end,
    .close_reader = anthropic_close_reader,
    .writer = anthropic_writer,
    .put = anthropic_put,
    .finish = anthropic_finish,
    .fail = anthropic_fail,
    .close_writer = close_writer,
    .ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n",
    .array_ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n",
    .content_type = "text/event-stream",
    .write_answer = anthropic_write_answer,
    .write_error = anthropic_write_error,
    .write_count_path = write_count_path,
    .write_count = write_count,
    .read_usage = anthropic_read_usage,
};
