/* OpenAI Responses. Private to the module's files. Source: npm `openai` 7.57 types, openai/openai-openapi. */
#ifndef TG_DIALECT_RESPONSES_H
#define TG_DIALECT_RESPONSES_H

#include "proto/dialect/common.h"

/* A tool of a namespace is called NAMESPACE.NAME in the neutral form; no plain tool's name has a dot here. */
enum { RESPONSES_ID_MAX = 64 }; /* bytes of a call id */

bool responses_read_request(const struct json *j, const struct dialect_path *path, struct ir_request *r,
                            struct ir_fault *f);
/* One of `input` (responses_items.c). */
bool responses_read_item(const struct json *j, int t, uint32_t index, struct ir_request *r, struct ir_fault *f);
/* A list of tools, in the request or in an additional_tools item (responses_read.c). */
bool responses_read_tools(const struct json *j, int t, struct slice space, struct ir_request *r, struct ir_fault *f);
struct slice responses_full_name(const struct json *j, int t, struct arena *arena); /* namespace and name */

bool responses_write_request(struct ir_request *r, const struct ir_target *t, struct ir_dropped *d, struct buf *out,
                             struct ir_fault *f);

void *responses_reader(const struct dialect_reader_settings *s);
enum dialect_result responses_event(void *reader, const struct sse_event *ev, struct arena *scratch,
                                    struct ir_sink *sink, struct ir_fault *f);
enum dialect_result responses_whole(void *reader, const struct json *j, struct arena *scratch, struct ir_sink *sink,
                                    struct ir_fault *f);
enum dialect_result responses_end(void *reader, struct arena *scratch, struct ir_sink *sink, struct ir_fault *f);
void responses_close_reader(void *reader);
bool responses_read_usage(const struct json *j, int t, struct ir_usage *u);
/* Counts an item that is a use of one of the provider's own tools. */
void responses_count_tool(const struct json *j, int item, struct tool_calls *tools);

/* What an answer's object says of itself (responses_object.c). */
enum responses_status { RESPONSES_IN_PROGRESS, RESPONSES_ENDED, RESPONSES_FAILED };
struct responses_object {
    const struct dialect_writer_settings *s;
    const struct ir_answer *answer;
    enum responses_status status;
    const struct ir_usage *usage;
    const struct ir_cost *cost;
    const struct ir_fault *fault;
};
void responses_write_usage(struct json_writer *w, const struct meters *m, const struct ir_cost *cost); /* an object */
void responses_write_object(struct json_writer *w, const struct responses_object *o, struct arena *arena);
void responses_write_item(struct json_writer *w, const struct dialect_writer_settings *s, const struct ir_block *b,
                          uint32_t index, bool done, struct arena *arena);
void responses_write_item_id(struct json_writer *w, const char *name, const struct dialect_writer_settings *s,
                             const struct ir_block *b, uint32_t index);
void responses_write_part(struct json_writer *w, const struct ir_block *b, bool done, struct arena *arena);
void responses_write_logprobs(struct json_writer *w, struct slice list);
void responses_write_annotation(struct json_writer *w, const struct ir_citation *c);
void responses_write_name(struct json_writer *w, struct slice name);

void *responses_writer(const struct dialect_writer_settings *s);
bool responses_put(void *writer, const struct ir_event *ev, struct arena *scratch, struct buf *out);
bool responses_finish(void *writer, const struct ir_usage *u, const struct ir_cost *cost, struct arena *scratch,
                      struct buf *out);
bool responses_fail(void *writer, const struct ir_fault *f, const struct dialect_brand *brand, struct arena *scratch,
                    struct buf *out);
bool responses_write_answer(const struct ir_answer *a, const struct dialect_writer_settings *s,
                            const struct ir_usage *u, const struct ir_cost *cost, struct buf *out, struct ir_fault *f);
#endif
