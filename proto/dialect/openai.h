/* OpenAI Chat Completions and its many compatible servers. Private to the module's files. Source: npm `openai` 7.57
 * types. */
#ifndef TG_DIALECT_OPENAI_H
#define TG_DIALECT_OPENAI_H

#include "proto/dialect/common.h"

bool openai_read_request(const struct json *j, const struct dialect_path *path, struct ir_request *r,
                         struct ir_fault *f);
/* Its tools (legacy: functions) and the choice among them (openai_tools.c). */
bool openai_read_tools(const struct json *j, int t, bool legacy, struct ir_request *r, struct ir_fault *f);
bool openai_read_choice(const struct json *j, int t, struct ir_request *r, struct ir_fault *f);
bool openai_write_request(struct ir_request *r, const struct ir_target *t, struct ir_dropped *d, struct buf *out,
                          struct ir_fault *f);

void *openai_reader(const struct dialect_reader_settings *s);
enum dialect_result openai_event(void *reader, const struct sse_event *ev, struct arena *scratch,
                                 struct ir_sink *sink, struct ir_fault *f);
enum dialect_result openai_whole(void *reader, const struct json *j, struct arena *scratch, struct ir_sink *sink,
                                 struct ir_fault *f);
enum dialect_result openai_end(void *reader, struct arena *scratch, struct ir_sink *sink, struct ir_fault *f);
void openai_close_reader(void *reader);
bool openai_read_usage(const struct json *j, int t, struct ir_usage *u);
void openai_write_usage(struct json_writer *j, const struct meters *m, const struct ir_cost *cost); /* an object */

void *openai_writer(const struct dialect_writer_settings *s);
bool openai_put(void *writer, const struct ir_event *ev, struct arena *scratch, struct buf *out);
bool openai_finish(void *writer, const struct ir_usage *u, const struct ir_cost *cost, struct arena *scratch,
                   struct buf *out);
bool openai_fail(void *writer, const struct ir_fault *f, const struct dialect_brand *brand, struct arena *scratch,
                 struct buf *out);
bool openai_write_answer(const struct ir_answer *a, const struct dialect_writer_settings *s, const struct ir_usage *u,
                         const struct ir_cost *cost, struct buf *out, struct ir_fault *f);
#endif
