/* The neutral form between dialects: what a conversation is (struct ir_request) and what an answer says (struct
 * ir_event).
 *
 * Each dialect reads into it and writes from it; none knows another. Slices borrow from the text that was read or lie
 * in the arena that was handed in. Numbers keep the spelling of the client (slices), JSON that is only carried keeps
 * its bytes. */
#ifndef TG_IR_H
#define TG_IR_H

#include "proto/json.h"
#include "proto/price.h"

/* In the order of the configuration's dialect ids. */
enum ir_dialect { IR_OPENAI, IR_RESPONSES, IR_ANTHROPIC, IR_GEMINI, IR_DIALECTS };

/* ---- what a provider binds to itself ---- */

/* A signature, encrypted reasoning, or anything else a provider wants back byte for byte. `maker` is the dialect
 * whose bytes data are, origin the upstream's permanent id: it goes back to exactly that one and is left out
 * elsewhere. */
enum ir_blob_kind {
    IR_BLOB_NONE,
    IR_BLOB_SIGNATURE, /* signs the reasoning text it stands with, or stands for it (encrypted reasoning) */
    IR_BLOB_REDACTED,  /* is the reasoning: there is no text */
    IR_BLOB_CALL       /* belongs to a tool call */
};
struct ir_blob {
    enum ir_blob_kind kind;
    enum ir_dialect maker;
    uint32_t origin;
    struct slice data;
};
/* A blob as a string that a client of any dialect can hold and return (letters, digits, '.', and data's own bytes). */
struct slice ir_carrier(struct arena *arena, const struct ir_blob *blob);
/* How a carrier begins where a dialect's clients hold such things as base64 (Gemini's). */
#define IR_CARRIER_BASE64 "dG9sbGdhdGUx"
/* The other way. What is no carrier is the reading dialect's own: kind, maker `own`, origin 0, data all of it. */
struct ir_blob ir_blob_of(struct slice carrier, enum ir_blob_kind kind, enum ir_dialect own);
/* Whether a string of the body is a carrier: then even a request for its own dialect must be translated. */
bool ir_has_carrier(const struct json *j);
/* Whether the blob may go to that upstream. A client's own blob (origin 0) never passes a translation. */
static inline bool ir_blob_fits(const struct ir_blob *b, enum ir_dialect maker, uint32_t origin) {
    return b->kind != IR_BLOB_NONE && b->maker == maker && b->origin != 0 && b->origin == origin;
}

/* ---- requests ---- */

enum ir_part_kind {
    IR_TEXT,      /* text */
    IR_REFUSAL,   /* text */
    IR_REASONING, /* text, blob */
    IR_IMAGE,     /* media_type + data (base64), or url; detail */
    IR_AUDIO,     /* media_type + data */
    IR_VIDEO,     /* media_type + data, or url */
    IR_FILE,      /* media_type + data or url, or text (media_type text/…); name: file name; title */
    IR_CALL,      /* id, name, text: the arguments as JSON text, or free text if custom; blob */
    IR_RESULT     /* id, name (may be empty), parts: text, images, files; is_error */
};

struct ir_part {
    struct ir_part *next, *tail; /* tail: of a list's first, its last, while it is built */
    enum ir_part_kind kind;
    bool custom, is_error;
    struct slice text;
    struct slice id, name;
    struct slice media_type, data, url, detail, title;
    struct slice context;       /* of a file: what the client says about it */
    struct slice phase;         /* of an assistant's text: Responses' word for what it is to the turn */
    struct slice cache;         /* a cache mark behind this part: its time to live ("5m", "1h"); ptr NULL: none */
    struct ir_blob blob;
    struct ir_part *parts;      /* of a result */
};

enum ir_role { IR_SYSTEM, IR_USER, IR_ASSISTANT };

/* Tool results stand in user turns. After ir_settle no two neighbours have the same role, and results come first in a
 * turn. */
struct ir_turn {
    struct ir_turn *next;
    enum ir_role role;
    struct ir_part *parts;
};

enum ir_tool_kind { IR_FUNCTION, IR_CUSTOM, IR_HOSTED };

/* What a web search is told, raw JSON where not empty. Domains bind, the rest tunes. */
struct ir_search {
    struct slice allowed, blocked; /* lists of domains */
    struct slice place;            /* an object of city, country, region, timezone */
    struct slice depth;            /* OpenAI's search_context_size */
};

struct ir_tool {
    struct ir_tool *next, *tail;
    enum ir_tool_kind kind;
    struct slice name;        /* of a hosted tool: its type ("web_search") */
    struct slice description;
    struct slice schema;      /* raw JSON; empty: no parameters */
    struct slice grammar;     /* of a custom tool: its format object, raw */
    bool strict;
    bool found;               /* by a search among tools: may be offered already */
    struct slice raw;         /* of a hosted tool: itself, for a target of the client's own dialect */
    struct ir_search search;  /* of web_search */
    struct slice cache;
    uint32_t index;           /* in the client's list, for messages */
    struct slice sent;        /* the name as the target got it, where it had to differ; empty: name */
};

enum ir_choice { IR_CHOICE_UNSET, IR_CHOICE_AUTO, IR_CHOICE_NONE, IR_CHOICE_REQUIRED, IR_CHOICE_ONE, IR_CHOICE_SUBSET };
enum ir_format { IR_FORMAT_TEXT, IR_FORMAT_JSON, IR_FORMAT_SCHEMA };
enum ir_effort { IR_EFFORT_UNSET, IR_EFFORT_NONE, IR_EFFORT_MINIMAL, IR_EFFORT_LOW, IR_EFFORT_MEDIUM, IR_EFFORT_HIGH,
                 IR_EFFORT_XHIGH, IR_EFFORT_MAX };
enum ir_tri { IR_UNSET, IR_NO, IR_YES };

struct ir_text { struct ir_text *next, *tail; struct slice text; };

/* A member that the neutral form has no place for. It only tunes: a writer that knows it carries it, the others drop
 * it and say so. */
struct ir_extra { struct ir_extra *next, *tail; struct slice name, raw; };

struct ir_request {
    struct arena *arena;
    enum ir_dialect from;
    struct slice model;
    bool stream;
    bool wants_usage;          /* OpenAI: stream_options.include_usage */
    bool as_array;             /* Gemini: the stream is one JSON array, not SSE */
    struct ir_turn *turns, *newest;
    struct ir_tool *tools;
    enum ir_choice choice;
    bool choice_required;      /* of a subset: one of them must be called */
    struct ir_text *choice_names; /* one, or the subset */
    enum ir_tri parallel;
    bool has_limit;
    uint64_t limit;
    uint64_t n;                /* at least 1 */
    struct slice temperature, top_p, top_k, seed, presence_penalty,
        frequency_penalty; /* numbers as spelt; empty: absent */
    struct ir_text *stop;
    bool logprobs;
    struct slice top_logprobs;
    bool audio_out;
    bool image_out;
    bool no_text;              /* pictures alone */
    bool must_moderate;        /* a moderation policy of the request blocks */
    bool validated;            /* Gemini: a call must fit its schema */
    enum ir_format format;
    struct slice schema, schema_name, schema_description; /* of IR_FORMAT_SCHEMA */
    bool schema_strict;
    enum ir_effort effort;
    bool has_budget;
    int64_t budget;            /* reasoning tokens; -1: the model decides */
    bool adaptive;             /* thinking on, how much is the model's affair */
    enum ir_tri thoughts;      /* whether the client wants to see reasoning */
    struct slice user;         /* an id of the end user */
    struct slice service_tier;
    struct slice cache_key;    /* prompt_cache_key */
    struct slice verbosity;
    struct ir_extra *extras;
    struct ir_extra *echo;     /* Responses: members that its answers repeat, raw */
    /* filled while a target's request is written, read while its answer is */
    bool renamed;              /* some tool's `sent` is set */
    bool json_tool;            /* the schema went out as a forced tool: its arguments are the answer's text */
};
#define IR_JSON_TOOL "json_response"

/* Why a request cannot be served, or what a provider (or the way to it) did. */
enum ir_blame {
    IR_BLAME_CLIENT,     /* the request is wrong: passed on */
    IR_BLAME_KEY,        /* 401, 402, 403, insufficient_quota: this key of ours is not served */
    IR_BLAME_ROUTE,      /* 404 of a model that we list */
    IR_BLAME_RATE,       /* 429 */
    IR_BLAME_UPSTREAM    /* everything else */
};
struct ir_fault {
    int status;            /* what the client gets */
    enum ir_blame blame;
    struct slice code;     /* our code, or the provider's own where it is passed on */
    struct slice type;     /* OpenAI's type; empty: the one of the status */
    struct slice param, message;
    struct slice detail;   /* the provider's own words where message does not repeat them: for the log */
    uint64_t retry_after_ms; /* 0: unknown */
};
/* Sets a 400 and returns false, for `return ir_refuse(…)`. param is static text or lies in the arena. */
bool ir_refuse(struct ir_fault *f, const char *code, struct slice param, struct slice message);
bool ir_missing(struct ir_fault *f, const char *param);

/* What was left out or bent on the way to a target: names of the client's members, each once. */
enum { IR_DROPPED_MAX = 48 };
struct ir_dropped { uint32_t count; struct slice names[IR_DROPPED_MAX]; };
void ir_drop(struct ir_dropped *d, struct slice name);

/* Where a request goes. */
struct ir_budget { struct slice effort; uint64_t tokens; };
struct ir_target {
    struct slice model;         /* the name that the provider knows */
    uint32_t origin;            /* the upstream's permanent id, not 0 */
    uint64_t max_output;        /* of the model; 0: unknown */
    bool set_limit;             /* send `limit` as the output limit whatever the client said */
    uint64_t limit;
    struct slice limit_field;   /* of OpenAI: max_completion_tokens (default) or max_tokens */
    const struct slice *strip;  /* members, by their names in the target's dialect, that the model does not take */
    uint32_t strip_count;
    const struct slice *allow;  /* price-changing members that are let through */
    uint32_t allow_count;
    const struct ir_budget *budgets; /* reasoning effort → tokens; what is missing has the default bands */
    uint32_t budget_count;
    bool reasoning;             /* the model is known to reason */
    bool no_reasoning;          /* or known not to: wishes for it are dropped. Neither: judged by its name */
};
bool ir_stripped(const struct ir_target *t, const char *name);
bool ir_allowed(const struct ir_target *t, const char *name);
/* The effort nearest to a budget, and the budget of an effort (none: 0). */
enum ir_effort ir_effort_of(int64_t budget);
uint64_t ir_budget_of(enum ir_effort effort, const struct ir_target *t);
const char *ir_effort_name(enum ir_effort effort); /* "none" … "max"; unset: "" */
enum ir_effort ir_effort_named(struct slice name); /* unknown: IR_EFFORT_UNSET */

/* What the client calls a member that the neutral form calls `name` ("stop" is stop_sequences for Anthropic's). */
struct slice ir_member(const struct ir_request *r, const char *name);
/* Drops the member, by the client's word for it, if it was there. */
static inline void ir_drop_if(struct ir_dropped *d, const struct ir_request *r, bool present, const char *name) {
    if (present)
        ir_drop(d, ir_member(r, name));
}
/* Refuses it likewise: the target cannot express it. */
bool ir_unsupported(const struct ir_request *r, struct ir_fault *f, const char *name);
/* The output limit to send, if any. */
static inline bool ir_limit(const struct ir_request *r, const struct ir_target *t, uint64_t *limit) {
    *limit = t->set_limit ? t->limit : r->limit;
    return t->set_limit || r->has_limit;
}

/* Builders: append to lists in the request's arena. NULL only when memory is out (the arena's overflow is sticky). */
struct ir_turn *ir_add_turn(struct ir_request *r, enum ir_role role);
/* Before all that are there: of a system prompt, wherever its member stands in the body. */
struct ir_turn *ir_add_first_turn(struct ir_request *r, enum ir_role role);
struct ir_part *ir_add_part(struct ir_request *r, struct ir_part **list, enum ir_part_kind kind);
struct ir_tool *ir_add_tool(struct ir_request *r, enum ir_tool_kind kind);
void ir_add_text(struct ir_request *r, struct ir_text **list, struct slice text);
void ir_add_extra(struct ir_request *r, const struct json *j, int key);
void ir_add_echo(struct ir_request *r, const struct json *j, int key);
/* An extra without a value: something that was left out already, to be reported as dropped. */
void ir_note(struct ir_request *r, struct slice name);

/* After a reader: joins neighbours of one role, puts results first, drops empty texts and turns, gives results the
 * names of their calls and calls the blobs that stood before them, and refuses calls without a result, results
 * without a call, and a conversation without a turn. */
bool ir_settle(struct ir_request *r, struct ir_fault *f);
/* data: URL → media type and base64 without line breaks (in the arena); false: not one. */
bool ir_data_url(struct arena *arena, struct slice url, struct slice *media_type, struct slice *data);
/* The tool with that name (as the client knows it), or as it was sent. */
struct ir_tool *ir_tool_named(const struct ir_request *r, struct slice name);
struct ir_tool *ir_tool_sent(const struct ir_request *r, struct slice sent);
/* The name to send for a tool, and for calls of it in the history: where the target takes only [A-Za-z0-9_-] up to
 * max_len bytes, another one is made and kept in the tool. */
struct slice ir_sent_name(struct ir_request *r, struct slice name, size_t max_len, const char *also_allowed);
/* Whether one of a subset choice's (or the one chosen) names is this; true for the other choices. */
bool ir_chosen(const struct ir_request *r, struct slice name);
/* Functions and custom tools offered, after a subset is applied by the writer. */
bool ir_has_functions(const struct ir_request *r);
/* Hosted tools: dropped and reported where functions stand beside them and none is forced; else refused. `taken`
 * names one kind that the writer carries itself, or NULL. A choice among tools of which none is left is refused where
 * it must be one of them, and none else. */
bool ir_check_hosted(struct ir_request *r, const char *taken, struct ir_dropped *d, struct ir_fault *f);
/* The arguments of a call in the history as a JSON object: empty → {}; what is no object is refused. */
bool ir_call_object(struct ir_request *r, const struct ir_part *call, struct slice *object, struct ir_fault *f);
/* Appends to text that grows in place, *cap bytes of it ours (0: borrowed); by doubling, so that many pieces cost
 * their sum. */
bool ir_append(struct arena *arena, struct slice *text, size_t *cap, struct slice more);
/* All text of a list of parts, joined by `between`; a slice of the part where there is one. */
struct slice ir_join_text(struct arena *arena, const struct ir_part *parts, const char *between);


/* ---- answers ---- */

struct ir_usage {
    bool seen;              /* the provider gave figures */
    struct meters meters;   /* disjoint */
    uint64_t tool_prompt;   /* part of METER_INPUT: results of the provider's own tools */
    struct tool_calls tools; /* uses of the provider's own tools, which cost apiece */
    bool conflict;          /* the figures contradict each other by the vendor's own rule */
};

enum ir_stop {
    IR_STOP_UNKNOWN, IR_STOP_END, IR_STOP_STRING, IR_STOP_LIMIT, IR_STOP_CONTEXT, IR_STOP_TOOLS, IR_STOP_FILTER,
    IR_STOP_REFUSAL, IR_STOP_PAUSE, IR_STOP_MODEL_ERROR
};

/* Order in each choice: START first; then blocks, one after the other, never mixed: runs of TEXT, of REFUSAL;
 * REASONING… REASONING_END; CALL, ARGS…, CALL_END; IMAGE; CITATION and LOGPROBS (of the text just before). Then FINISH.
 * USAGE anywhere: the last one seen stands as a whole. ERROR ends all. */
enum ir_event_kind {
    IR_EV_START,
    IR_EV_TEXT,
    IR_EV_REFUSAL,
    IR_EV_REASONING,
    IR_EV_REASONING_END,
    IR_EV_CALL,
    IR_EV_ARGS,
    IR_EV_CALL_END,
    IR_EV_IMAGE,
    IR_EV_CITATION,
    IR_EV_LOGPROBS,
    IR_EV_USAGE,
    IR_EV_FINISH,
    IR_EV_ERROR
};

struct ir_event {
    enum ir_event_kind kind;
    uint32_t choice;
    struct slice text; /* TEXT, REFUSAL, REASONING, ARGS: what is added; FINISH: the stop string, if known; CITATION:
                          cited text; LOGPROBS: a list as OpenAI's chat has it, raw JSON */
    struct slice id, name;   /* START: the provider's id, model; CALL: id (may be empty), name; CITATION: url, title */
    struct slice media_type, data; /* IMAGE */
    struct ir_blob blob;     /* REASONING_END, CALL */
    bool custom;             /* CALL, ARGS: free text */
    bool bound;              /* REASONING: a signature over this text will follow */
    int64_t created_s;       /* START: 0 if unknown */
    enum ir_stop stop;
    struct slice stop_text;  /* FINISH: the provider's explanation */
    const struct ir_usage *usage; /* START (what is known of the input), USAGE */
    const struct ir_fault *fault;
};

/* Where events go. false: the receiver is full or out of memory; the giver stops. */
struct ir_sink {
    bool (*put)(void *arg, const struct ir_event *ev);
    void *arg;
};
static inline bool ir_put(struct ir_sink *s, const struct ir_event *ev) { return s->put(s->arg, ev); }

/* An answer folded from events: what a whole body is written from. */
enum ir_block_kind { IR_BLOCK_TEXT, IR_BLOCK_REFUSAL, IR_BLOCK_REASONING, IR_BLOCK_CALL, IR_BLOCK_IMAGE };
struct ir_citation {
    struct ir_citation *next;
    struct slice url, title, text;
    size_t start, end; /* characters of the block */
};
struct ir_block {
    struct ir_block *next;
    enum ir_block_kind kind;
    bool custom, bound, closed;
    struct slice text;       /* of a call: its arguments */
    size_t cap;              /* bytes that text may grow in place to; 0: borrowed */
    struct slice id, name, media_type;
    struct ir_blob blob;
    struct ir_citation *citations;
    struct slice logprobs;   /* of text: the members of one list, raw JSON */
    size_t logprobs_cap;
};
/* All log probabilities of a text as one list; empty: none. */
struct slice ir_logprobs(const struct ir_block *b, struct arena *arena);
struct ir_answer {
    struct arena *arena;
    bool copy;               /* events' bytes die: copy them */
    struct slice id, model;
    int64_t created_s;
    uint32_t count;          /* choices */
    struct ir_choice_answer {
        struct ir_block *blocks, *last;
        enum ir_stop stop;
        struct slice stop_string, stop_text;
        bool finished;
    } *choices;
};
enum { IR_CHOICES_MAX = 128 };
void ir_fold_init(struct ir_answer *a, struct arena *arena, bool copy);
/* An ir_sink's put. */
bool ir_fold(void *answer, const struct ir_event *ev);
/* Whether a call's arguments are a JSON object (empty counts: *object is then {}). */
bool ir_args_object(struct arena *arena, struct slice args, struct slice *object);

/* ---- usage ---- */

/* Figures as providers give them, before containment is resolved; UINT64_MAX stands for absent. */
#define IR_ABSENT UINT64_MAX
struct ir_counts {
    uint64_t input, cached, cache_write, cache_write_1h, audio_in, image_in; /* parts of input, which is all of it */
    uint64_t output, reasoning, audio_out, image_out;                        /* parts of output, which is all of it */
};
static inline struct ir_counts ir_counts_absent(void) {
    return (struct ir_counts){ IR_ABSENT, IR_ABSENT, IR_ABSENT, IR_ABSENT, IR_ABSENT,
                               IR_ABSENT, IR_ABSENT, IR_ABSENT, IR_ABSENT, IR_ABSENT };
}
/* Disjoint meters; parts that exceed their whole are clamped (and set u->conflict). cache_write holds all writes, the
 * 1h ones too. */
void ir_usage_from(struct ir_usage *u, const struct ir_counts *c);
/* Uses of a tool as one object counts them; IR_ABSENT leaves what is there. */
static inline void ir_tool_uses(struct ir_usage *u, enum tool_kind kind, uint64_t n) {
    if (n != IR_ABSENT)
        u->tools.n[kind] = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}
static inline uint64_t ir_writes(const struct ir_usage *u) {
    return u->meters.n[METER_CACHE_WRITE] + u->meters.n[METER_CACHE_WRITE_1H];
}

/* What a cost looks like in an answer. */
struct ir_cost {
    bool show;
    int64_t usd_nano;
    bool tokens;             /* the unit is tokens: cost_tokens too */
    int64_t cost_tokens;
};
/* Members cost_usd (and cost_tokens), or costUsd and costTokens, of the object that is open. */
void ir_write_cost(struct json_writer *w, const struct ir_cost *cost, bool camel);

/* ---- dumps: one line a thing, for tests and for people ---- */
void ir_dump_request(const struct ir_request *r, struct buf *out);
void ir_dump_event(const struct ir_event *ev, struct buf *out);
void ir_dump_usage(const struct ir_usage *u, struct buf *out);
const char *ir_stop_name(enum ir_stop stop);
const char *ir_dialect_name(enum ir_dialect d);

#endif
