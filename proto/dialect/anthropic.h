/* Anthropic Messages. Private to the module's files. Source: npm `@anthropic-ai/sdk` 1.14 types, platform.claude.com.
 */
#ifndef TG_DIALECT_ANTHROPIC_H
#define TG_DIALECT_ANTHROPIC_H

#include "proto/dialect/common.h"

bool anthropic_read_request(const struct json *j, const struct dialect_path *path, struct ir_request *r,
                            struct ir_fault *f);
bool anthropic_write_request(struct ir_request *r, const struct ir_target *t, struct ir_dropped *d, struct buf *out,
                             struct ir_fault *f);
/* The messages alone (anthropic_messages.c) and the system blocks; *marks counts cache marks already written. */
bool anthropic_write_messages(struct json_writer *w, struct ir_request *r, const struct ir_target *t, uint32_t *marks,
                              struct ir_fault *f);
void anthropic_write_mark(struct json_writer *w, struct slice cache, uint32_t *marks);

/* The value of output_config.format.schema (anthropic_schema.c). */
void anthropic_write_schema(struct json_writer *w, struct slice schema, struct arena *arena, bool *bent);

void *anthropic_reader(const struct dialect_reader_settings *s);
enum dialect_result anthropic_event(void *reader, const struct sse_event *ev, struct arena *scratch,
                                    struct ir_sink *sink, struct ir_fault *f);
enum dialect_result anthropic_whole(void *reader, const struct json *j, struct arena *scratch, struct ir_sink *sink,
                                    struct ir_fault *f);
enum dialect_result anthropic_end(void *reader, struct arena *scratch, struct ir_sink *sink, struct ir_fault *f);
void anthropic_close_reader(void *reader);

/* The figures of one answer so far; each non-null field of a later object replaces the earlier one. */
struct anthropic_counts {
    uint64_t input, read, written, written_1h, output, thinking, searches, fetches;
    struct { uint64_t input, read, written, written_1h, output; } compaction;
    bool seen;
};
void anthropic_counts_take(struct anthropic_counts *c, const struct json *j, int t);
void anthropic_counts_usage(const struct anthropic_counts *c, struct ir_usage *u);
bool anthropic_read_usage(const struct json *j, int t, struct ir_usage *u);

void *anthropic_writer(const struct dialect_writer_settings *s);
bool anthropic_put(void *writer, const struct ir_event *ev, struct arena *scratch, struct buf *out);
bool anthropic_finish(void *writer, const struct ir_usage *u, const struct ir_cost *cost, struct arena *scratch,
                      struct buf *out);
bool anthropic_fail(void *writer, const struct ir_fault *f, const struct dialect_brand *brand, struct arena *scratch,
                    struct buf *out);
bool anthropic_write_answer(const struct ir_answer *a, const struct dialect_writer_settings *s,
                            const struct ir_usage *u, const struct ir_cost *cost, struct buf *out, struct ir_fault *f);
bool anthropic_write_error(const struct ir_fault *f, const struct dialect_brand *brand, struct arena *arena,
                           struct buf *out);
#endif
