/* What the readers and writers of several dialects do alike. Private to proto/dialect. */
#ifndef TG_DIALECT_COMMON_H
#define TG_DIALECT_COMMON_H

#include "proto/dialect/dialect.h"

#include <stddef.h>

/* ---- reading ---- */

/* Members that are read straight into a field of struct ir_request. A null is as if absent. */
enum field_kind {
    FIELD_NUMBER,
    FIELD_STRING,
    FIELD_BOOL,
    FIELD_COUNT /* uint64_t, at least 1 */,
    FIELD_LIMIT,
    FIELD_KNOWN
};
struct field { const char *name; enum field_kind kind; size_t at; };
enum field_result { FIELD_READ, FIELD_OTHER, FIELD_WRONG };
/* key: the member's key token. FIELD_OTHER: not in the table, or FIELD_KNOWN (then *which is its place, else count). */
enum field_result common_field(const struct json *j, int key, const struct field *table, uint32_t count,
                               struct ir_request *r, struct ir_fault *f, uint32_t *which);
bool common_wrong(struct ir_request *r, struct ir_fault *f, struct slice param, const char *want);
/* A string, or a list of strings, appended. */
bool common_strings(const struct json *j, int t, struct ir_request *r, struct ir_text **list);
/* {type:"ephemeral",ttl?} as a mark; ptr NULL: none. */
struct slice common_cache_mark(const struct json *j, int t, struct arena *arena);
/* An image or file by a URL that may be a data: URL. */
void common_set_url(struct ir_request *r, struct ir_part *p, struct slice url);
/* An audio or file media type by a short format word or a file name. */
const char *common_audio_type(struct slice format);
/* A raw count, or IR_ABSENT. */
uint64_t common_count(const struct json *j, int obj, const char *name);

/* ---- writing ---- */

static inline void common_member(struct json_writer *w, const char *name, struct slice s) {
    jw_key(w, name);
    jw_str(w, s);
}
static inline void common_word(struct json_writer *w, const char *name, const char *s) {
    jw_key(w, name);
    jw_cstr(w, s);
}
static inline void common_count_member(struct json_writer *w, const char *name, uint64_t v) {
    jw_key(w, name);
    jw_u64(w, v);
}
/* A number as the client spelt it, unless it is absent or the target strips it (then reported). */
void common_number(struct json_writer *w, const struct ir_request *r, const struct ir_target *t, struct ir_dropped *d,
                   const char *neutral, const char *name, struct slice value);
/* `name`: data:TYPE;base64,DATA or the URL. */
void common_data_url(struct json_writer *w, const char *name, const struct ir_part *p);
/* The parameters of a function that stands for a free-text tool. */
extern const char common_custom_schema[];
/* `description` of a tool; of a free-text tool with the grammar that its text must follow, so that a model that is
 * not held to it can keep to it. */
void common_description(struct json_writer *w, const struct ir_tool *tool, struct arena *arena);
/* A schema with "type":"object" put in where it names no type; empty: fallback (may be NULL: nothing is written). */
void common_schema(struct json_writer *w, struct arena *arena, struct slice schema, const char *fallback);
/* The most recent text of the fault for a full output. */
bool common_full(struct ir_fault *f);
/* Extras: carried raw where the client's dialect is the target's and the name is on the list (what changes no price),
 * else reported; and the user id and tiers that are not the standard one reported. list ends with NULL. */
void common_rest(struct json_writer *w, const struct ir_request *r, enum ir_dialect target, const char *const *list,
                 struct ir_dropped *d);
/* Whether the last part of a model's name (behind the last slash) begins with one of the words; list ends with NULL. */
bool common_named(struct slice model, const char *const *list);
/* Whether web search by the provider is offered by the client and allowed for the model. */
bool common_web_search(const struct ir_request *r, const struct ir_target *t);

/* SSE framing: `data: ` and, with a name, `event: NAME` before it. */
void common_event_begin(struct buf *out, const char *name);
bool common_event_end(struct buf *out, const struct json_writer *w);

#endif
