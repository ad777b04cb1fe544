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
/* All members of the body: fields of the table are read, those of kind FIELD_KNOWN, which come first in it, by `read`
 * (which: the place; t: the value), and the others kept as extras. *seen: a bit for each known one that was there. */
typedef bool common_read(const struct json *j, int t, uint32_t which, struct ir_request *r, struct ir_fault *f);
bool common_members(const struct json *j, const struct field *table, uint32_t count, common_read *read,
                    struct ir_request *r, struct ir_fault *f, uint32_t *seen);
bool common_wrong(struct ir_request *r, struct ir_fault *f, struct slice param, const char *want);
/* A string, or a list of strings, appended. */
bool common_strings(const struct json *j, int t, struct ir_request *r, struct ir_text **list);
/* A word for effort; one that is not known is reported. */
void common_effort(struct ir_request *r, struct slice word);
/* {type:"ephemeral",ttl?} as a mark; ptr NULL: none. */
struct slice common_cache_mark(const struct json *j, int t, struct arena *arena);
/* A cache mark of OpenAI's or Anthropic's spelling on an object. */
struct slice common_mark_of(const struct json *j, int obj, struct arena *arena);
/* An image or file by a URL that may be a data: URL. */
void common_set_url(struct ir_request *r, struct ir_part *p, struct slice url);
/* An audio or file media type by a short format word or a file name. */
const char *common_audio_type(struct slice format);
/* The members of an object that no reader takes, reported as `where`.NAME; known ends with NULL. What is null, false or
 * empty asks for nothing. `is` compares a key's token with a name, as json_str_is does. */
typedef bool common_is(const struct json *j, int key, const char *name);
void common_others_as(struct ir_request *r, const struct json *j, int obj, const char *where, const char *const *known,
                      common_is *is);
static inline void common_others(struct ir_request *r, const struct json *j, int obj, const char *where,
                                 const char *const *known) {
    common_others_as(r, j, obj, where, known, json_str_is);
}
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
/* A tool's grammar: what its text must follow, and in which syntax; definition empty: none. */
struct common_grammar { struct slice definition, syntax; };
struct common_grammar common_grammar_of(const struct ir_tool *tool, struct arena *arena);
/* `description` of a tool; of a free-text tool with the grammar that its text must follow, so that a model that is
 * not held to it can keep to it. */
void common_description(struct json_writer *w, const struct ir_tool *tool, struct arena *arena);
/* A schema with "type":"object" put in where it names no type; empty: fallback (may be NULL: nothing is written). */
void common_schema(struct json_writer *w, struct arena *arena, struct slice schema, const char *fallback);
/* The most recent text of the fault for a full output. */
bool common_full(struct ir_fault *f);
/* The same dialect, or both of OpenAI's, which share many members. */
static inline bool common_sister(enum ir_dialect a, enum ir_dialect b) {
    return a == b || (a <= IR_RESPONSES && b <= IR_RESPONSES);
}
/* Extras: carried raw where the client's dialect is the target's (what would change the price was refused before), or
 * where the client's is a sister of it and the name is on the list; else reported. And what all writers report alike:
 * the user id, tiers that are not the standard one, cache marks, log probabilities that were not asked for. list ends
 * with NULL, or is NULL. false: a moderation policy that blocks cannot be carried. */
bool common_rest(struct json_writer *w, const struct ir_request *r, enum ir_dialect target, const char *const *list,
                 struct ir_dropped *d, struct ir_fault *f);
/* A name that says what kind of file it is, which OpenAI judges by its end. */
struct slice common_file_name(const struct ir_part *p, struct arena *arena);
/* What a file's text is introduced with, where the target has no place for its title or context: empty, or a text. */
struct slice common_file_head(const struct ir_part *p, bool titled, struct arena *arena);
/* Whether the last part of a model's name (behind the last slash) begins with one of the words; list ends with NULL. */
bool common_named(struct slice model, const char *const *list);
/* The client's search tool, NULL: none; the refusal of one whose domains cannot be said; user_location of one. */
const struct ir_tool *common_search_tool(const struct ir_request *r);
bool common_unsearchable(const struct ir_request *r, const struct ir_tool *tool, struct ir_fault *f);
void common_place(struct json_writer *w, struct slice place, struct arena *arena);
/* Whether web search by the provider is offered by the client and allowed for the model. */
bool common_web_search(const struct ir_request *r, const struct ir_target *t);

/* SSE framing: `data: ` and, with a name, `event: NAME` before it. */
void common_event_begin(struct buf *out, const char *name);
bool common_event_end(struct buf *out, const struct json_writer *w);

#endif
