/* The module of OpenAI Chat Completions: its functions in one struct. */
#include "proto/dialect/openai.h"

static bool write_path(struct slice model, bool stream, struct buf *out) {
    (void)model;
    (void)stream;
    return buf_append_slice(out, SLICE("/chat/completions"));
}

static void close_writer(void *writer) {
    (void)writer;
}

const struct dialect dialect_openai = {
    .name = "openai",
    .id = IR_OPENAI,
    .read_request = openai_read_request,
    .write_request = openai_write_request,
    .write_path = write_path,
    .reader = openai_reader,
    .event = openai_event,
    .whole = openai_whole,
    .end = openai_end,
    .close_reader = openai_close_reader,
    .writer = openai_writer,
    .put = openai_put,
    .finish = openai_finish,
    .fail = openai_fail,
    .close_writer = close_writer,
    .ping = ": ping\n\n",
    .array_ping = ": ping\n\n",
    .content_type = "text/event-stream",
    .write_answer = openai_write_answer,
    .write_error = dialect_write_openai_error,
    .call_blobs = true,
    .read_usage = openai_read_usage,
    .free_text = true,
};
