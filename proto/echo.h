/* The `echo` upstream: a provider of OpenAI chat completions inside the worker, so that a new user sees the whole
 * path work without an account anywhere. Deterministic: the same request gives the same answer. */
#ifndef TG_ECHO_H
#define TG_ECHO_H

#include "proto/json.h"

/* Answers a chat request (or one with `prompt`, as /v1/completions takes it) that has passed validation; what is
 * still odd in it is ignored. model, created_s and id stand in the answer as given. *stream: the request asked for a
 * stream, and out holds the SSE bytes of all of it; else one JSON body. Everything is appended to out; scratch comes
 * from the arena. false: out is full or memory is out (what was appended is then cut). */
bool echo_answer(const struct json *req, struct slice model, int64_t created_s, struct slice id, struct arena *arena,
                 struct buf *out, bool *stream);

/* Appends a small JSON value that satisfies the schema at token t (-1: any object): required members, types, enum and
 * const, bounds of numbers, lengths and items, the first of anyOf/oneOf, allOf joined, local $ref. Patterns are not
 * honoured. Bounded whatever the schema says: depth 32, about 4096 values, strings and arrays cut at 1024 and 64.
 * false: out is full. */
bool echo_sample(const struct json *j, int t, struct arena *arena, struct buf *out);

#endif
