/* The module of OpenAI Responses: its functions in one struct. */
#include "proto/dialect/responses.h"

static bool write_path(struct slice model, bool stream, struct buf *out) {
    (void)model;
    (void)stream;
    return buf_append_slice(out, SLICE("/responses"));
}

static void close_nothing(void *writer) {
    (void)writer;
}

const struct dialect dialect_responses = {
    .name = "responses",
    .id = IR_RESPONSES,
    .read_request = responses_read_request,
    .write_request = responses_write_request,
    .write_path = write_path,
    .reader = responses_reader,
    .event = responses_event,
    .whole = responses_whole,
    .end = responses_end,
    .close_reader = responses_close_reader,
    .writer = responses_writer,
    .put = responses_put,
    .finish = responses_finish,
    .fail = responses_fail,
    .close_writer = close_nothing,
    .ping = ": ping\n\n",
    .array_ping = ": ping\n\n",
    .content_type = "text/event-stream",
    .write_answer = responses_write_answer,
    .write_error = dialect_write_openai_error,
    .read_usage = responses_read_usage,
    .free_text = true,
};
