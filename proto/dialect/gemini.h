/* Gemini generateContent. Private to the module's files. Sources: npm `@google/genai` 3.3 types, ai.google.dev.
 * proto3's JSON takes members in camelCase and in snake_case: so do the readers here; camelCase is written. */
#ifndef TG_DIALECT_GEMINI_H
#define TG_DIALECT_GEMINI_H

#include "proto/dialect/common.h"

/* obj's member by its camelCase name, or by the snake_case one; -1. */
int gemini_get(const struct json *j, int obj, const char *name);
/* Whether a key is that name, in either case. */
bool gemini_is(const struct json *j, int key, const char *name);
static inline void gemini_others(struct ir_request *r, const struct json *j, int obj, const char *where,
                                 const char *const *known) {
    common_others_as(r, j, obj, where, known, gemini_is);
}

bool gemini_read_request(const struct json *j, const struct dialect_path *path, struct ir_request *r,
                         struct ir_fault *f);
/* Contents and their parts (gemini_contents.c). */
bool gemini_read_contents(const struct json *j, int t, struct ir_request *r, struct ir_fault *f);
bool gemini_read_system(const struct json *j, int t, struct ir_request *r, struct ir_fault *f);

bool gemini_write_request(struct ir_request *r, const struct ir_target *t, struct ir_dropped *d, struct buf *out,
                          struct ir_fault *f);
bool gemini_write_contents(struct json_writer *w, struct ir_request *r, const struct ir_target *t, struct ir_fault *f);

/* Schemas (gemini_schema.c): Gemini's OpenAPI subset as JSON Schema, and JSON Schema cut down to that subset (*bent:
 * something was left out that the subset cannot say). Empty: memory. */
struct slice gemini_schema_read(const struct json *j, int t, struct arena *arena);
struct slice gemini_schema_write(struct slice schema, struct arena *arena, bool *bent);

void *gemini_reader(const struct dialect_reader_settings *s);
enum dialect_result gemini_event(void *reader, const struct sse_event *ev, struct arena *scratch, struct ir_sink *sink,
                                 struct ir_fault *f);
enum dialect_result gemini_whole(void *reader, const struct json *j, struct arena *scratch, struct ir_sink *sink,
                                 struct ir_fault *f);
enum dialect_result gemini_end(void *reader, struct arena *scratch, struct ir_sink *sink, struct ir_fault *f);
bool gemini_read_usage(const struct json *j, int t, struct ir_usage *u);
void gemini_write_usage(struct json_writer *j, const struct ir_usage *u, const struct ir_cost *cost); /* an object */
/* logprobsResult as the neutral list, in the arena (empty: none), and back as a member of a candidate. */
struct slice gemini_read_logprobs(const struct json *j, int result, struct arena *arena);
void gemini_write_logprobs(struct json_writer *w, struct slice list, struct arena *arena);
/* How often the provider searched for a candidate, where it says so: the latest word counts. */
void gemini_count_tools(const struct json *j, int candidate, struct tool_calls *tools);

/* Arguments that come piece by piece with their JSON paths (gemini_partial.c): a tree that is written when the call
 * closes. */
struct gemini_partial;
struct gemini_partial *gemini_partial_new(struct arena *arena, size_t max_bytes);
bool gemini_partial_add(struct gemini_partial *p, const struct json *j, int list, struct arena *scratch);
bool gemini_partial_write(const struct gemini_partial *p, struct json_writer *w);

void *gemini_writer(const struct dialect_writer_settings *s);
bool gemini_put(void *writer, const struct ir_event *ev, struct arena *scratch, struct buf *out);
bool gemini_finish(void *writer, const struct ir_usage *u, const struct ir_cost *cost, struct arena *scratch,
                   struct buf *out);
bool gemini_fail(void *writer, const struct ir_fault *f, const struct dialect_brand *brand, struct arena *scratch,
                 struct buf *out);
void gemini_close_writer(void *writer);
bool gemini_write_answer(const struct ir_answer *a, const struct dialect_writer_settings *s, const struct ir_usage *u,
                         const struct ir_cost *cost, struct buf *out, struct ir_fault *f);
bool gemini_write_error(const struct ir_fault *f, const struct dialect_brand *brand, struct arena *arena,
                        struct buf *out);
#endif
