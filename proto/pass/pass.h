/* The pass path: a request whose client and upstream speak the same dialect is not rebuilt. One parse finds the few
 * members that matter; the body goes out as pieces of what came in with a few splices; the answer comes back likewise,
 * tapped for usage. Unknown members survive untouched. One module a dialect behind one small interface; the relay
 * contains no `if` about a dialect. Pure: no I/O, no clock. */
#ifndef TG_PASS_H
#define TG_PASS_H

#include "proto/ir.h"
#include "proto/sse.h"

/* Output as a list of borrowed runs; a full list is sticky. The memory behind each run lives until the list is sent. */
enum { PIECES_MAX = 512 };
struct pieces {
    struct slice at[PIECES_MAX];
    uint32_t count;
    bool full;
    size_t bytes;
};
static inline void pieces_reset(struct pieces *p) {
    p->count = 0;
    p->bytes = 0;
    p->full = false;
}
static inline void pieces_add(struct pieces *p, struct slice s) {
    if (s.len == 0)
        return;
    if (p->count == PIECES_MAX) {
        p->full = true;
        return;
    }
    p->at[p->count++] = s;
    p->bytes += s.len;
}

enum { PASS_DROPS = 16, PASS_SEALED = 4096 };

/* What an id in a request may open at the provider. */
enum pass_state {
    PASS_STATE, /* a stored object: only sealed, and the request goes where it lives */
    PASS_KEPT,  /* of an item without its content, which the provider would look up: the same where it passes */
    PASS_ITEM   /* of an item that is all there: a name; the seal comes off, one without a seal stays as it is */
};
struct pass_sealed {
    int value; /* its token */
    enum pass_state is;
};

/* What a request asks, as far as a gateway must know. */
struct pass_request {
    struct slice model; /* decoded; empty where the path names it */
    bool stream;
    bool wants_usage; /* the client asked for the usage chunk of its own accord */
    uint64_t n;       /* answers asked for, at least 1 */
    bool has_limit;
    uint64_t limit;        /* output tokens, as the client named it */
    uint64_t reasoning;    /* part of the output that a reasoning budget takes; 0: none named */
    uint64_t prompt_bytes; /* of text: messages, tools, schemas */
    uint32_t messages, tools;
    uint32_t media;      /* images, audio, files whose bytes are in the body */
    uint32_t references; /* content the body only refers to: URLs, ids */
    bool searches;       /* the provider will search the web, whether or not its figures say so */
    /* refused: what is wrong and where */
    const char *fault_code; /* missing_field, invalid_value, unsupported_parameter; NULL: none */
    const char *fault_param;
    const char *fault_text;
    /* hosted tools that the model does not allow and can do without: taken out by build and reported */
    int drop[PASS_DROPS]; /* value tokens in their array (Gemini: of members of a tool) */
    uint32_t drops;
    struct slice drop_names[PASS_DROPS];
    /* ids that the provider handed out and the client brings back (previous_response_id, file ids, ids of items); in
     * the arena, at most PASS_SEALED */
    struct pass_sealed *sealed;
    uint32_t sealed_count, sealed_room;
    /* the dialect's own notes for pass_build: token indices, -1 absent */
    int t_model, t_limit, t_limit2, t_options, t_include_usage;
};

/* How the body is changed on its way. */
struct pass_edit {
    struct slice model; /* name to send; ptr NULL: leave it */
    bool set_limit;
    uint64_t limit;            /* output limit to send when set_limit */
    struct slice limit_field;  /* member to send a limit in; empty: as the client did, else the dialect's default */
    const struct slice *strip; /* top-level members to take out */
    uint32_t strip_count;
    bool ask_usage;                /* make the upstream send usage at the end of a stream */
    const struct slice *plain;     /* of request.sealed[i]: the provider's own id; ptr NULL: it stays. NULL: all stay */
    uint32_t stripped;             /* out: bit i: strip[i] was there */
};

/* The last event of a stream that was like many (alike.h). */
enum { ALIKE_HOLES = 4, ALIKE_BYTES = 704 };
struct alike {
    uint16_t in, out; /* bytes of the event as it came; of what was put out for it, 0: the same. in 0: nothing kept */
    uint8_t holes;
    struct alike_at {
        uint16_t in, out;
        uint8_t is;
    } hole[ALIKE_HOLES];
    char text[ALIKE_BYTES]; /* both, one behind the other, without what stood in the holes */
};

/* The life of one answer. Embedded in the exchange. */
struct pass_answer {
    /* set by the relay before the first byte */
    struct slice id_prefix; /* empty: ids stay */
    bool wants_usage;
    bool as_array; /* Gemini without alt=sse: the stream is one JSON array */
    /* Seals an id that the provider hands out for later use (response ids, file ids); NULL: ids stay. */
    struct slice (*seal)(void *arg, struct slice id, struct arena *arena);
    void *arg;
    /* Asked exactly once, when the figures are final (usage_seen tells whether the provider gave them) and before the
     * bytes that show them go out: prices, settles, answers the cost. */
    void (*on_usage)(void *arg, struct pass_answer *a, struct ir_cost *cost);
    struct buf *held; /* a chunk that waits for the figures; owned by the exchange */
    /* the tap */
    struct meters meters;
    struct tool_calls tools; /* uses of the provider's own tools */
    bool usage_seen;
    bool usage_final; /* on_usage was called */
    bool finished;    /* the answer said why it ended */
    bool done;        /* the stream's terminator came */
    bool usage_sent;
    uint64_t text_bytes; /* of answer text that came so far */
    uint64_t events;
    uint64_t own[16]; /* the dialect's own notes */
    char ident[320];  /* members id, created, model of the last chunk, raw, for chunks of our own */
    uint16_t ident_len;
    struct ir_cost cost;
    struct alike alike; /* the last member: its text is not cleared */
};

enum pass_result {
    PASS_OK,
    PASS_ERROR, /* the provider reports an error: `fault` says which; nothing of it was put out */
    PASS_BAD    /* not what the dialect promises */
};

/* A provider's error, from a body of an error status, a 200 that holds one, or an event. */
struct pass_fault {
    struct slice message, type, code, param; /* decoded; ptr NULL where absent */
    int status;                              /* that the body names; 0 none */
};

struct pass {
    /* Fills r from a parsed body; r->fault_code set when it must be refused. allow: price-changing members let through.
     */
    void (*scan)(const struct json *j, struct pass_request *r, struct arena *arena, const struct slice *allow,
                 uint32_t allow_count);
    /* Only r->sealed, of a body that is no conversation for us (a count of tokens). */
    void (*state)(const struct json *j, struct pass_request *r, struct arena *arena);
    /* The body with its edits, as pieces; new text from the arena. false: no memory. */
    bool (*build)(const struct json *j, const struct pass_request *r, struct pass_edit *e, struct arena *arena,
                  struct pieces *out);
    /* A whole answer. out: the body to send. */
    enum pass_result (*whole)(struct pass_answer *a, const struct json *j, struct arena *arena, struct pieces *out,
                              struct pass_fault *fault);
    /* One event of a stream; pieces lie in the event, the held buffer or the scratch arena. */
    enum pass_result (*event)(struct pass_answer *a, const struct sse_event *ev, struct arena *scratch,
                              struct pieces *out, struct pass_fault *fault);
    /* The upstream ended properly. PASS_BAD: not at an end the dialect knows: the answer is cut. */
    enum pass_result (*end)(struct pass_answer *a, struct arena *scratch, struct pieces *out);
    /* Reads an error body of any shape providers use. */
    void (*error)(const struct json *j, struct arena *arena, struct pass_fault *fault);
    /* An error after the first byte, in the dialect's grammar, and the stream's end. error: the body that the same
     * error has as a whole answer. */
    bool (*fail)(struct pass_answer *a, int status, const char *code, struct slice message, struct slice error,
                 struct arena *arena, struct pieces *out);
    /* What a silent stream shows from time to time. */
    struct slice (*ping)(const struct pass_answer *a);
    /* Content-Type of a stream. */
    const char *(*content_type)(const struct pass_answer *a);
};

extern const struct pass pass_completions;
extern const struct pass pass_openai_chat, pass_responses, pass_anthropic, pass_gemini;

/* Shared helpers (pass.c). */
struct splice {
    uint32_t at, len;
    struct slice with;
};
/* text with the splices (sorted here by place) into pieces; a splice of len 0 inserts; one that lies in another is left
 * out. */
void pass_splice(struct slice text, struct splice *s, uint32_t n, struct pieces *out);
/* The same as one text in the arena; ptr NULL: no memory. */
struct slice pass_splice_text(struct slice text, struct splice *s, uint32_t n, struct arena *arena);
/* The splice that puts a string in the place of a value. with.ptr NULL: no memory. */
struct splice pass_string(const struct json *j, int value, struct slice text, struct arena *arena);
/* Splices that take members (by their value tokens) out of an object, or values out of an array, with their commas; out
 * has room for n. Returns how many. */
uint32_t pass_cut_members(const struct json *j, int object, const int *values, uint32_t n, struct splice *out);
/* What silence shows in server-sent events, a comment, and their Content-Type. */
struct slice pass_sse_ping(const struct pass_answer *a);
const char *pass_sse_content_type(const struct pass_answer *a);
/* An error object of OpenAI's shape and its many cousins. */
void pass_read_error(const struct json *j, struct arena *arena, struct pass_fault *fault);
/* The same where it is a member of `root`, or root itself. */
void pass_read_error_at(const struct json *j, int root, struct arena *arena, struct pass_fault *fault);

#endif
