/* What the modules do alike when they look at a request. Private to proto/pass. */
#ifndef TG_PASS_SCAN_H
#define TG_PASS_SCAN_H

#include "proto/pass/pass.h"

struct scan {
    const struct json *j;
    struct pass_request *r;
    struct arena *arena;
    const struct slice *allow; /* price-changing members and hosted tools that the model prices */
    uint32_t allow_count;
    uint32_t seen;   /* bit per member of the table that came already */
    uint32_t others; /* tools that stay: functions, the client's own kinds, allowed hosted ones */
};

/* A table of members that a module reads; is ≥ 1, at most 31. proto3 names (Gemini) match in snake_case too. */
struct scan_member {
    const char *name;
    int is;
};

/* false: the body is no object, which is the request's fault; nothing more is to be looked at. */
bool scan_begin(struct scan *s);
/* The first fault counts. */
void scan_refuse(struct scan *s, const char *code, const char *param, const char *text);
/* Whether the model's configuration lets a word through. */
bool scan_allows(const struct scan *s, const char *word);
/* Which member a key is, 0 none of the table; a member that stands twice is refused (another reader might take the
 * other one). */
int scan_which(struct scan *s, int key, const struct scan_member *table, uint32_t count, bool snake);
/* Whether a key, decoded, is that camelCase name or its snake_case spelling. */
bool scan_is_camel(struct slice key, const char *name);
/* Whether two names are the same but for underscores and case: what a configuration calls top_p is Gemini's topP. */
bool scan_same_word(struct slice a, struct slice b);

void scan_model(struct scan *s, int v); /* call once after the members: its presence and type */
void scan_stream(struct scan *s, int v);
void scan_limit(struct scan *s, int v, const char *param);
/* A member that makes a call dearer than its tokens' prices but for two values: let through only where the model prices
 * it. */
void scan_dear(struct scan *s, int v, const char *name, const char *plain1, const char *plain2, const char *text);
/* OpenAI's service_tier, and stream_options, which edits_ask_usage edits. */
void scan_tier(struct scan *s, int v);
void scan_stream_options(struct scan *s, int v);
/* Decoded bytes of every string in a value, member names left out. */
uint64_t scan_strings(const struct json *j, int v);
/* The raw text of a value counts: schemas, arguments, things we do not know. */
void scan_raw(struct scan *s, int v);
void scan_string(struct scan *s, int v);
/* The key's text, decoded. */
struct slice scan_key(const struct json *j, int key, struct arena *arena);

/* Where a dialect names what its provider keeps. An id stands in a member of that name as a string, as one of a list of
 * strings, or as the `id` of an object; wherever in the body, twice or escaped, for nobody knows which of them a
 * provider reads. What is the client's own (a tool's arguments, a schema) is not looked into. */
struct scan_state {
    struct slice names[12], opaque[12]; /* empty: the end */
    bool camel;                         /* proto3 names, in either spelling */
};
void scan_walk(const struct json *j, int value, const struct scan_state *table, struct arena *arena,
               void (*found)(void *arg, int value), void *arg);
/* An id that the provider knows. */
void scan_seal(struct scan *s, int v, enum pass_state is);
/* Every id of the body that the table names. */
void scan_state(struct scan *s, const struct scan_state *table);

/* The first of a list of tools; -1 where there is none. What is neither a list nor null is refused. */
int scan_tool_list(struct scan *s, int tools);
/* A hosted tool that is not allowed: value is its token. It goes if the rest can do without (decided by
 * scan_tools_end). */
void scan_hosted(struct scan *s, int value, struct slice name);
/* A word of `allow` covers a hosted tool's type where it is the type or its beginning up to a `_` (web_search:
 * web_search_20250305). */
bool scan_allows_tool(const struct scan *s, struct slice type);
/* forced: the choice of tool asks for one that would go. */
void scan_tools_end(struct scan *s, bool forced);
/* Whether OpenAI's choice of tool, {"type":"web_search"} or one of {"type":"allowed_tools"} with that list, names one
 * that would go. */
bool scan_forces(const struct scan *s, int choice, int list);

#endif
