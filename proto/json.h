/* JSON (RFC 8259): one strict, bounded parse into a tape of tokens; navigation; a writer.
 *
 * The parse validates everything (UTF-8, escapes incl. lone surrogates refused as RFC 8259 §8.2 warns,
 * numbers, nesting, one value, nothing behind it) and copies nothing: a token is a span of the text. */
#ifndef TG_JSON_H
#define TG_JSON_H

#include "proto/base/arena.h"

enum json_type { JSON_OBJECT, JSON_ARRAY, JSON_STRING, JSON_NUMBER, JSON_TRUE, JSON_FALSE, JSON_NULL };

struct json_tok {
    uint32_t start, end; /* span in the text; a string's span is without its quotes */
    uint32_t next;       /* index of the token behind this value and all within it */
    uint8_t type;        /* enum json_type */
    uint8_t escaped;     /* string: has a backslash, so its text must be decoded */
};
/* An object's tokens follow it as key, value, key, value…; an array's as its values. */

enum json_err {
    JSON_OK, JSON_SYNTAX, JSON_BAD_UTF8, JSON_BAD_ESCAPE, JSON_TOO_DEEP, JSON_TOO_MANY, JSON_TRAILING, JSON_EMPTY,
    JSON_NO_MEMORY, JSON_TOO_LONG /* text of 4 GiB or more */
};

struct json {
    const char *text;
    size_t len;
    struct json_tok *tok;
    uint32_t count;
    enum json_err err;
    size_t err_at; /* byte offset of the fault */
};

enum { JSON_MAX_DEPTH = 128, JSON_MAX_TOKENS = 4 << 20 };

/* Parses text into j, the tape from the arena. false: j->err and j->err_at say why.
 * Token 0 is the root. The text must outlive j. */
bool json_parse(struct json *j, struct arena *arena, const char *text, size_t len);
/* The same with a caller's tape of cap tokens and no allocation: JSON_TOO_MANY when it is full. */
bool json_parse_into(struct json *j, struct json_tok *tape, uint32_t cap, const char *text, size_t len);
const char *json_err_text(enum json_err err); /* "unexpected character", … */

/* Index of obj's member `name` (its value), or -1; obj may be -1 or not an object (then -1).
 * With duplicates the last one wins, as most parsers do; json_duplicate tells. Escaped keys compare decoded. */
int json_member(const struct json *j, int obj, struct slice name);
static inline int json_get(const struct json *j, int obj, const char *name) {
    return json_member(j, obj, slice_str(name));
}
bool json_duplicate(const struct json *j, int obj, const char *name);
/* Iteration:  for (int t = json_first(j, arr); t >= 0; t = json_next(j, arr, t)) …
 * over an array's values, or over an object's keys (the value is t + 1). */
static inline int json_first(const struct json *j, int container) {
    if (container < 0 || j->tok[container].type > JSON_ARRAY)
        return -1;
    uint32_t first = (uint32_t)container + 1;
    return first < j->tok[container].next ? (int)first : -1;
}
static inline int json_next(const struct json *j, int container, int t) {
    if (container < 0 || t < 0 || j->tok[container].type > JSON_ARRAY)
        return -1;
    uint32_t next = j->tok[j->tok[container].type == JSON_OBJECT ? t + 1 : t].next;
    return next < j->tok[container].next ? (int)next : -1;
}
/* The first value of an array; -1 where it is empty, or no array: what should be a list often is none. */
static inline int json_items(const struct json *j, int t) {
    return t >= 0 && j->tok[t].type == JSON_ARRAY ? json_first(j, t) : -1;
}
uint32_t json_size(const struct json *j, int container); /* values or members */

static inline enum json_type json_type_of(const struct json *j, int t) { return (enum json_type)j->tok[t].type; }
static inline bool json_is(const struct json *j, int t, enum json_type type) {
    return t >= 0 && j->tok[t].type == type;
}
/* A value's raw text; a string's without quotes, escapes as they stand. */
static inline struct slice json_raw(const struct json *j, int t) {
    return slice_of(j->text + j->tok[t].start, j->tok[t].end - j->tok[t].start);
}
/* A value's raw text with a string's quotes. */
struct slice json_span(const struct json *j, int t);
struct slice json_decoded(const struct json *j, int t, struct arena *arena); /* json_str's, of what is escaped */
/* A string's decoded text: a slice of the text where nothing is escaped, else in the arena.
 * t of another type or -1: ptr NULL. */
static inline struct slice json_str(const struct json *j, int t, struct arena *arena) {
    return !json_is(j, t, JSON_STRING) ? SLICE_NONE : j->tok[t].escaped ? json_decoded(j, t, arena) : json_raw(j, t);
}
/* p behind an opening quote: the closing one, and the string's decoded bytes. NULL: no well-formed string, or one with
 * escapes of \u, which only the parser reads. */
const char *json_string_end(const char *p, const char *end, size_t *decoded);
bool json_str_is(const struct json *j, int t, const char *s); /* a string equal to s, decoded */
size_t json_str_len(const struct json *j, int t);             /* decoded bytes of a string, else 0 */
bool json_u64(const struct json *j, int t, uint64_t *out);    /* a non-negative integer (1, 1.0 and 1e2 too) */
bool json_i64(const struct json *j, int t, int64_t *out);
bool json_bool(const struct json *j, int t, bool *out);
/* A number as decimal fixed point, exact: value × 10^places; false if it has more digits or overflows. */
bool json_fixed(const struct json *j, int t, int places, int64_t *out);

/* Writer: appends to a buf, puts commas itself. Overflow of the buf is sticky (w.failed). */
struct json_writer {
    struct buf *out;
    bool failed, comma;
};
void jw_init(struct json_writer *w, struct buf *out);
void jw_object(struct json_writer *w);
void jw_end_object(struct json_writer *w);
void jw_array(struct json_writer *w);
void jw_end_array(struct json_writer *w);
void jw_key_plain(struct json_writer *w, struct slice name); /* plain ASCII, written as it is */
static inline void jw_key(struct json_writer *w, const char *name) { jw_key_plain(w, slice_str(name)); }
void jw_key_slice(struct json_writer *w, struct slice name); /* escaped as a string */
void jw_str(struct json_writer *w,
            struct slice s); /* escapes what must be; bad UTF-8 becomes U+FFFD; ptr NULL writes null */
void jw_cstr(struct json_writer *w, const char *s);
void jw_u64(struct json_writer *w, uint64_t v);
void jw_i64(struct json_writer *w, int64_t v);
void jw_bool(struct json_writer *w, bool v);
void jw_null(struct json_writer *w);
void jw_raw(struct json_writer *w, struct slice json); /* one value, already JSON; empty: null. Written as one line */
/* value / 10^places as a plain decimal: no exponent, no trailing zeros (places ≤ 18). quoted: as a string. */
void jw_fixed(struct json_writer *w, int64_t value, int places, bool quoted);
bool json_plain(struct slice s); /* ASCII of which nothing must be escaped within a string */
/* An opened string whose parts come in pieces: begin, any number of parts (escaped), end. */
void jw_str_begin(struct json_writer *w);
void jw_str_part(struct json_writer *w, struct slice s);
void jw_str_end(struct json_writer *w);

/* The same decimal as text, into out (≥ 24 bytes); returns its length. */
size_t fixed_format(char *out, int64_t value, int places);
/* "12.5" → value × 10^places, exact; false: not a plain decimal, too many digits, overflow. A leading '-' is taken. */
bool fixed_parse(struct slice text, int places, int64_t *out);

#endif
