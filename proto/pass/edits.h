/* The splices of one text, collected and applied: for requests on their way and for answers. Private to proto/pass. */
#ifndef TG_PASS_EDITS_H
#define TG_PASS_EDITS_H

#include "proto/pass/scan.h"

/* Beyond EDITS_FIRST the list moves to the arena: a long conversation has an id an item. EDITS_FLAT and more leave as
 * one text, for pieces are few. */
enum { EDITS_FIRST = 96, EDITS_MAX = 16384, EDITS_FLAT = 96, EDITS_STRIP = 32, EDITS_TAPE = 384 };

struct edits {
    const struct json *j;
    struct arena *arena;
    uint32_t n, room;
    bool full;
    struct splice *at;
    struct splice first[EDITS_FIRST];
};

void edits_begin(struct edits *e, const struct json *j, struct arena *arena);
void edits_insert(struct edits *e, uint32_t at, struct slice with);
void edits_set(struct edits *e, int value, struct slice with);        /* a whole value, a string with its quotes */
void edits_set_string(struct edits *e, int value, struct slice text); /* text is quoted and escaped */
void edits_set_number(struct edits *e, int value, uint64_t number);
void edits_cut(struct edits *e, int container, const int *values, uint32_t n);
/* `member` (no comma) as the first, or last, of an object. */
void edits_prepend(struct edits *e, int object, struct slice member);
void edits_append(struct edits *e, int object, struct slice member);

/* Request: members of an object that the configuration strips, but those at `keep` (value tokens). */
void edits_strip(struct edits *e, int object, struct pass_edit *pe, const int *keep, uint32_t keeps, bool snake);
void edits_drop(struct edits *e, int array,
                const struct pass_request *r); /* the dropped tools that lie in this array or object */
void edits_unseal(struct edits *e, const struct pass_request *r, const struct pass_edit *pe);
/* Begins the edits of a body that names its model: what is stripped, the tools that go, ids as the provider knows them,
 * the model. What hangs on being stripped (edits_prepend) comes behind it. */
void edits_request(struct edits *e, const struct json *j, const struct pass_request *r, struct pass_edit *pe,
                   const int *keep, uint32_t keeps, struct arena *arena);
/* The output limit: in the place of the client's (-1: it sent none), or as a first member of that name. */
void edits_limit(struct edits *e, int value, struct slice name, uint64_t limit);
/* stream_options.include_usage of OpenAI's streams, on. */
void edits_ask_usage(struct edits *e, const struct pass_request *r);

/* Answer: cost into a usage object, ours alone. camel: costUsd, costTokens. */
void edits_cost(struct edits *e, const struct ir_cost *c, int usage, bool camel);
/* An id that the provider hands out, sealed where the relay seals. */
void edits_seal(struct edits *e, const struct pass_answer *a, int value);
/* Every id within a value that the table names. */
void edits_seal_all(struct edits *e, const struct pass_answer *a, int value, const struct scan_state *table);

/* false: the pieces are full, or memory is out. */
bool edits_put(struct edits *e, struct pieces *out);
/* An event with its data edited, otherwise as it came. name: written where the event has none of its own (empty: none).
 */
bool edits_put_event(struct edits *e, const struct sse_event *ev, struct slice name, struct pieces *out);
/* The edited text as one line in the arena; ptr NULL: full. */
struct slice edits_line(struct edits *e);

/* Cost members without a leading comma; empty when not shown. */
struct slice edits_cost_members(const struct ir_cost *c, bool camel, struct arena *arena);
/* The data of an event: the tape where it fits, else the scratch arena. */
bool edits_parse_event(struct json *j, struct json_tok *tape, const struct sse_event *ev, struct arena *scratch);
/* A usage object of our own, from the meters, as a dialect writes it; ptr NULL: no memory. */
typedef void edits_usage_writer(struct json_writer *w, const struct meters *m, const struct ir_cost *cost);
struct slice edits_made_usage(const struct pass_answer *a, edits_usage_writer *write, struct arena *arena);
/* A member of an object: in the place of its value (-1: there is none), or as the last. ptr NULL: the edits fail. */
void edits_member(struct edits *e, int object, const char *name, int value, struct slice with);
/* Figures that a dialect read from an answer. */
void edits_take(struct pass_answer *a, const struct ir_usage *u);
/* Prices and settles, once. */
void edits_settle(struct pass_answer *a);

#endif
