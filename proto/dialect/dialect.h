/* A dialect: how one family of clients and providers spells requests and answers. N dialects are N modules behind
 * this struct, each reading into and writing from the neutral form (proto/ir.h); no dialect knows another and no
 * relay knows any.
 *
 * Everything is pure: memory comes from the arenas, buffers and page caches handed in, and time and randomness from
 * the settings. A whole answer is the same events as a stream, folded; so there is one path. */
#ifndef TG_DIALECT_H
#define TG_DIALECT_H

#include "proto/ir.h"
#include "proto/sse.h"

/* What a path says that the body does not (Gemini: the model and whether to stream). */
struct dialect_path {
    struct slice model;   /* decoded; empty where the body names it */
    bool stream, sse;     /* :streamGenerateContent, alt=sse */
    bool counting;        /* only the input is counted: what an answer needs may be missing */
};

/* ---- reading an upstream's stream ---- */

enum dialect_result {
    DIALECT_OK,    /* go on */
    DIALECT_DONE,  /* the stream said that it ended */
    DIALECT_ERROR, /* the provider reports an error; the fault says which */
    DIALECT_BAD,   /* not what the dialect promises: garbage, or cut */
    DIALECT_FULL   /* the receiver, a limit or memory: nothing more can be taken */
};

struct dialect_reader_settings {
    struct arena *arena;     /* of the exchange: the reader's state */
    struct pages *pages;     /* for buffers that grow and shrink */
    size_t max_held;         /* bytes of one call's arguments (or other whole thing) that may be held back */
    uint32_t origin;         /* the upstream's permanent id */
    struct slice vendor;     /* a word for vendors' oddities: the upstream's host name; may be empty */
};

/* ---- writing to a client ---- */

struct dialect_writer_settings {
    struct arena *arena;
    struct pages *pages;
    size_t max_held;
    struct slice id; /* unique text [0-9A-Za-z], about 24: ids are made from it; the request id for errors is apart */
    struct slice id_prefix;  /* brand: replaces chatcmpl- ; empty: none */
    struct slice model;      /* the name that the client asked for */
    int64_t now_s;
    uint64_t input_estimate; /* tokens, for a start that must show some (Anthropic) */
    const struct ir_request *request;
};

struct dialect_brand {       /* how errors look */
    struct slice error_code; /* "HJL-%d": replaces code, which moves to reason; empty: off */
    bool error_detail;       /* a top-level detail beside error */
    struct slice request_id;
};

struct dialect {
    const char *name;
    enum ir_dialect id;

    /* Requests. read fills r (arena set by the caller before) from a body that parsed; false: fault. The caller then
     * settles it. */
    bool (*read_request)(const struct json *j, const struct dialect_path *path, struct ir_request *r,
                         struct ir_fault *f);
    /* The body for a target. false: fault (a member that cannot be expressed), or out full (f->status 413). */
    bool (*write_request)(struct ir_request *r, const struct ir_target *t, struct ir_dropped *d, struct buf *out,
                          struct ir_fault *f);
    /* Path behind the upstream's base, with its query: "/chat/completions". */
    bool (*write_path)(struct slice model, bool stream, struct buf *out);
    const char *header_name, *header_value; /* one that every request needs, or NULL */

    /* Answers in. reader: state; event: one event's data; whole: one body; end: after DONE or at the proper end of
     * the body: gives what was held and FINISH, or DIALECT_BAD if the answer is cut. close: always, returns its
     * pages. */
    void *(*reader)(const struct dialect_reader_settings *s);
    enum dialect_result (*event)(void *reader, const struct sse_event *ev, struct arena *scratch, struct ir_sink *sink,
                                 struct ir_fault *f);
    enum dialect_result (*whole)(void *reader, const struct json *j, struct arena *scratch, struct ir_sink *sink,
                                 struct ir_fault *f);
    enum dialect_result (*end)(void *reader, struct arena *scratch, struct ir_sink *sink, struct ir_fault *f);
    void (*close_reader)(void *reader);

    /* Answers out. put: one event's bytes; finish: finish words, usage, cost and the terminator; fail: an error after
     * the first byte, and the end. scratch may be reset after each call. */
    void *(*writer)(const struct dialect_writer_settings *s);
    bool (*put)(void *writer, const struct ir_event *ev, struct arena *scratch, struct buf *out);
    bool (*finish)(void *writer, const struct ir_usage *u, const struct ir_cost *cost, struct arena *scratch,
                   struct buf *out);
    bool (*fail)(void *writer, const struct ir_fault *f, const struct dialect_brand *brand, struct arena *scratch,
                 struct buf *out);
    void (*close_writer)(void *writer);
    const char *ping;        /* what a silent stream shows from time to time */
    const char *array_ping;  /* the same where the stream is a JSON array */
    const char *content_type;/* of a stream */
    /* A whole answer. false: out full, or an answer that the dialect cannot say (fault). */
    bool (*write_answer)(const struct ir_answer *a, const struct dialect_writer_settings *s, const struct ir_usage *u,
                         const struct ir_cost *cost, struct buf *out, struct ir_fault *f);
    bool (*write_error)(const struct ir_fault *f, const struct dialect_brand *brand, struct arena *arena,
                        struct buf *out);
    /* A call's blob stands on the call itself; else it goes before it as reasoning of its own. */
    bool call_blobs;
    /* Calls may hold free text; else it is wrapped as the arguments of a function. */
    bool free_text;

    /* Counting input: the path behind an upstream's base, and the answer. NULL: the dialect has no such thing. A
     * relay forwards where client and upstream are of one dialect, else answers with an estimate. */
    bool (*write_count_path)(struct slice model, struct buf *out);
    bool (*write_count)(uint64_t tokens, struct buf *out);

    /* The usage object of an answer (or of an event) at token t into u; counts that are absent keep what u has where
     * the dialect's figures are cumulative. false: none there. For the relay that passes and only observes. */
    bool (*read_usage)(const struct json *j, int t, struct ir_usage *u);
};

extern const struct dialect dialect_openai, dialect_responses, dialect_anthropic, dialect_gemini;
/* Clients of the legacy POST /v1/completions; nobody speaks it upstream but by passing. */
extern const struct dialect dialect_completions;
/* By the configuration's id; NULL: it has no module (echo speaks OpenAI's: the caller says so). */
const struct dialect *dialect_find(uint32_t id);

/* ---- errors, common to all ---- */

/* A provider's error of any shape (JSON of each dialect, vendors' own, HTML, nothing): what it means and what the
 * client gets. status: of the answer (200 where an error stood in it). retry_after_s: of its header, 0 none. */
void dialect_read_error(int status, struct slice body, uint64_t retry_after_s, struct arena *arena, struct ir_fault *f);
/* The same for a parsed body; t: the error object or the object that holds it. */
void dialect_fault_of(const struct json *j, int t, int status, struct arena *arena, struct ir_fault *f);
/* OpenAI's type, Anthropic's type and Gemini's status of an HTTP status. */
struct dialect_status { int status; const char *openai, *code, *anthropic, *gemini; };
const struct dialect_status *dialect_status_of(int status);
/* The member `code` with the brand applied, and its symbolic word. */
struct slice dialect_code(const struct ir_fault *f);
/* {"error":{message,type,param,code}} as both of OpenAI's dialects write it. */
bool dialect_write_openai_error(const struct ir_fault *f, const struct dialect_brand *brand, struct arena *arena,
                                struct buf *out);

#endif
