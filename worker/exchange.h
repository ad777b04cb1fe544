/* An exchange is one request and its answer: one struct, one state machine, made when a request's head is complete. */
#ifndef TG_EXCHANGE_H
#define TG_EXCHANGE_H

#include "proto/http/http.h"
#include "proto/dialect/translate.h"
#include "proto/pass/pass.h"
#include "proto/sse.h"
#include "proto/task/task.h"
#include "worker/conn.h"
#include "worker/proxy.h"
#include "worker/upstream.h"

enum exchange_state {
    EX_BODY,     /* the request's body comes in */
    EX_CONNECT,  /* waits for an upstream connection */
    EX_REQUEST,  /* the request goes out */
    EX_HEAD,     /* the answer's head is awaited */
    EX_WHOLE,    /* a whole answer is collected */
    EX_STREAM,   /* a stream is relayed */
    EX_DRAIN,    /* the client has all of it; only the end of the upstream's body is awaited, to keep the connection */
    EX_DONE
};

struct exchange;
enum shape { SHAPE_OPENAI, SHAPE_ANTHROPIC, SHAPE_GEMINI, SHAPE_DETAIL /* accounts, keys, billing */ };

/* What answers at a path. */
struct endpoint {
    const char *method;
    const char *path;              /* a trailing * takes the rest as ex->path_rest */
    enum shape shape;
    enum dialect_id dialect;       /* of a model call */
    enum { NEEDS_NOTHING, NEEDS_KEY, NEEDS_KEY_UNLESS_PUBLIC } needs;
    bool body;                     /* reads a body first */
    void (*run)(struct exchange *ex);
    const char *command;           /* of the ledger, where it is forwarded */
};

struct limit_view { uint64_t limit, remaining, reset_s; }; /* reset: epoch */

struct attempt { /* one try at one upstream */
    const struct snap_route *route;
    const struct snap_upstream *up;
    int key;                       /* of the upstream's keys */
    struct up_ticket ticket;
    bool waiting;                  /* the ticket is out */
    struct upconn *conn;
    struct slice head;             /* of the request, in the arena */
    size_t sent;         /* bytes of head and body gone out */
    struct http_reader reader;
    size_t head_scanned;
    bool keep_alive;
    bool got_bytes;                /* of the answer */
    bool event_stream;
    int status;
    uint64_t started_ns, first_byte_us;
    uint64_t retry_after_ms;       /* of a 429 or 503; 0: none named */
    uint64_t body_length;          /* sized */
    uint32_t route_index;
    bool write_failed;             /* it closed before it had the whole request */
    bool hangup;
    bool complete;                 /* the answer was read to its end: the connection can serve again */
};

/* How an answer gets from its upstream's dialect to the client's: pass (the same) or translate. Bytes go onto the
 * relay's batch. */
enum plan_result {
    PLAN_OK,
    PLAN_DONE /* all of it is on the batch, figures settled */,
    PLAN_ERROR /* the provider's; fault says which */,
    PLAN_BAD
};
struct plan {
    bool (*begin)(struct exchange *ex);
    enum plan_result (*event)(struct exchange *ex, const struct sse_event *ev, struct pieces *out, struct ir_fault *f);
    enum plan_result (*end)(struct exchange *ex, struct pieces *out,
                            struct ir_fault *f); /* the upstream ended properly */
    bool (*finished)(const struct exchange *ex); /* it said why the answer ended */
    void (*fail)(struct exchange *ex, const struct ir_fault *f, struct pieces *out);
    /* A whole answer. PLAN_DONE: its body is on out. */
    enum plan_result (*whole)(struct exchange *ex, const struct json *j, struct pieces *out, struct ir_fault *f);
    struct slice (*ping)(const struct exchange *ex);
    const char *(*content_type)(const struct exchange *ex);
};
extern const struct plan plan_pass, plan_translate, plan_task;
extern const struct pass *const passes[DIALECT_COUNT]; /* generate.c */

struct body_pieces { struct slice *at; uint32_t count; size_t bytes; };

struct exchange {
    uint32_t magic;
    enum exchange_state state;
    struct worker *worker;
    struct conn *conn;             /* NULL: the client is gone */
    struct snapshot *snapshot;
    struct arena arena;            /* the request's: reset once its answer streams and nothing can be tried again */
    const struct endpoint *endpoint;
    enum shape shape;

    /* the request */
    uint8_t request_id_len;
    bool head_request, http10, keep, expect_continue;
    bool cors;                     /* configured */
    bool cors_any;                 /* this answer is for every page */
    bool head_consumed;
    size_t head_bytes;
    struct slice path_rest, query; /* in the arena */
    struct http_reader body_reader;
    uint64_t content_length;
    struct buf body_buf;
    struct slice body;
    size_t body_in_place;          /* bytes of conn->in that the body is */
    uint64_t started_ns;
    int64_t started_ms;

    /* who */
    struct slice credentials[4];   /* of a forwarded request: the ledger looks at them */
    uint32_t credential_count;
    bool known_key;
    uint32_t key_index;
    struct shm_key key;
    struct shm_account account;
    const struct snap_tier *tier;
    const struct snap_group *group;
    struct rate rpm, tpm;          /* that hold for this call */
    uint64_t concurrency;
    bool image_call;
    struct limit_view rpm_view, tpm_view; /* for the headers */
    struct slice dropped;          /* X-Tollgate-Dropped: members the target cannot carry */

    /* what */
    const struct snap_model *model;
    uint16_t model_len;
    struct slice family_rest;      /* of a family model: what the * matched */
    const struct pass *pass;
    struct pass_request req;
    struct json json;
    struct body_pieces body_out;   /* the body to send; in the arena */
    enum dialect_id dialect;       /* of the client */
    bool legacy;                   /* /v1/completions: a prompt and no messages */
    struct slice path_model;       /* where the path names it (Gemini) */
    bool path_stream, as_array;
    struct slice forward; /* header lines of the client that a provider of the same dialect gets (versions, betas) */
    const struct plan *plan;
    struct slice target_model;     /* the model's name at this attempt's provider */
    struct slice *plain;           /* unsealed ids of req.sealed, in the arena */
    struct slice unsealed;         /* an id without a seal that only a translation may leave out; ptr NULL: none */
    struct ir_request *ir;         /* read when a route needs a translation */
    bool tr_open;
    struct buf tr_out;             /* translated bytes on their way */
    const struct task_module *task;       /* NULL: a conversation */
    struct task_call call;
    struct slice task_path;
    bool by_picture;               /* pictures have a price each: */
    uint64_t picture_price;        /* per million of them */
    uint64_t out_limit;            /* output tokens a single answer may have; 0: none known */
    int64_t cap;                   /* what the call may cost, in the unit: the lowest cap; SNAP_NO_AMOUNT: none */
    bool limit_cut;

    /* money and limits */
    struct shm_slot *slot;         /* NULL: nothing is held */
    uint64_t rpm_set, tpm_set, tpm_charged;
    bool rpm_taken, tpm_taken;
    struct meters meters;
    int64_t cost_amount;           /* charged, in the unit */
    int64_t cost_usd_nano;
    bool settled;
    uint32_t record_flags;

    /* the attempts */
    struct attempt try;
    uint32_t tries;
    uint64_t tried_routes;         /* bit per route of the model */
    uint32_t key_rotation;
    int pinned_key;                /* of the upstream where the request's provider-side state lives; -1: any */
    int last_status;               /* of the last failed attempt, as the client shall see it */
    const char *last_code;
    uint64_t last_retry_after_ms;
    uint32_t reuse_failures;
    size_t body_in_upconn;         /* bytes of try.conn->in that the answer's body is */
    struct timer timer;            /* first byte, idle */

    /* the answer */
    struct pass_answer answer;
    struct sse sse;
    struct buf reply;              /* a whole body that came in pieces; of a stream: the unfinished event */
    struct buf held;
    bool head_sent, chunked, paused;
    bool stream_ready;
    bool answer_done;              /* all of the answer is out */
    bool limits_shown;
    int status;                    /* sent to the client */
    uint64_t first_byte_ns, last_sent_ns;
    struct timer ping;
    uint64_t text_delivered;

    /* a call to the ledger that it waits for (call.c) */
    uint32_t call_id;
    struct exchange *next_call;
    void (*on_answer)(struct exchange *ex, const struct json *j);

    /* From here on nothing is cleared for a new exchange: each is read only as far as something above says so. */
    char last_text[200];           /* with last_status */
    char up_text[160];
    char request_id[SHM_REQUEST_ID + 1];
    char client[48];               /* address: of the peer, or of who is behind a trusted proxy */
    char model_name[SHM_MODEL_NAME];
    struct translate tr;           /* while tr_open */
};

/* ---- exchange.c: life -------------------------------------------------------------------------------------------- */
/* conn has a whole head (slices into conn->in, consumed when this returns). */
void exchange_begin(struct conn *c, const struct http_head *head);
/* A request that could not be read: this error in the shape of the path it names, then the connection ends. */
void exchange_refuse(struct conn *c, int status, const char *code, const char *text);
void exchange_body(struct exchange *ex);        /* more of the body may be there */
void exchange_drained(struct exchange *ex);     /* the client took what was queued */
void exchange_client_gone(struct exchange *ex);
void exchange_finish(struct exchange *ex);      /* the answer is sent: settle what is not, log, free; conn_done */
struct slice exchange_request_id(const struct exchange *ex);
/* Gives the request's memory back once nothing can be tried again. */
void exchange_forget_request(struct exchange *ex);

/* ---- endpoint.c -------------------------------------------------------------------------------------------------- */
const struct endpoint *endpoint_find(struct slice method, struct slice path, bool admin, struct slice *rest,
                                     bool *other_method);
void endpoint_methods(struct slice path, bool admin, char *out, size_t n); /* for Allow */

/* What the client speaks, for a translation. */
static inline const struct dialect *exchange_dialect(const struct exchange *ex) {
    return ex->legacy ? &dialect_completions : dialect_find(ex->dialect);
}

/* ---- auth.c ------------------------------------------------------------------------------------------------------ */
/* Finds the key among the places a client may put it. False: an error was sent (unless optional). */
bool auth_request(struct exchange *ex, const struct http_head *head, bool required);
/* Keeps what the request brings as credentials, for the ledger to look at. */
void auth_keep(struct exchange *ex, const struct http_head *head);
/* Reads the key's, account's and limits' present state again (after the body came). False: an error was sent. */
bool auth_refresh(struct exchange *ex);

/* ---- admit.c ----------------------------------------------------------------------------------------------------- */
/* Model, plan, limits, room, hold; sets out_limit and limit_cut. False: an error was sent and nothing is held. */
bool admit_model(struct exchange *ex, struct slice name);
bool admit_call(struct exchange *ex);
/* The model of that name if this key may call it; NULL: an error was sent (404; 403 where tier or key forbid it). */
const struct snap_model *admit_find(struct exchange *ex, struct slice name);
/* Whether the group has it; *plan: tier and key allow it too. */
bool admit_globs(const struct exchange *ex, const struct snap_model *m, struct slice name, bool *plan);
/* The key's group; where there is no key (a public list) that of whoever signs up. */
const struct snap_group *admit_group(const struct exchange *ex);
/* The lowest cap of a call in the unit: the operator's (where that is dollars), the account's, the key's. */
int64_t admit_cap(const struct exchange *ex, const struct snap_model *m, const char **whose);
void admit_limits_view(struct exchange *ex);    /* current rate headers of the key */
void admit_end(struct exchange *ex, int64_t held); /* the slot was settled: gauges */

/* ---- meter.c ----------------------------------------------------------------------------------------------------- */
/* Settles from figures (estimated false) or by estimate; pushes the record, corrects the rate words, counts. Once. */
void meter_settle(struct exchange *ex, bool estimated);
void meter_release(struct exchange *ex);        /* nothing was delivered: charge nothing */
void meter_cost(const struct exchange *ex, const struct meters *m, struct ir_cost *cost);

/* ---- attempt.c --------------------------------------------------------------------------------------------------- */
void attempt_start(struct exchange *ex);        /* picks a route and goes; or sends the error when none is left */
void attempt_abandon(struct exchange *ex);      /* lets go of ticket or connection, unusable */
void attempt_release(struct exchange *ex, bool reusable);
void attempt_failed(struct exchange *ex, int status, const char *code, const char *text, bool other_upstream_only);
/* The name under which that route's provider knows the model that was asked for. */
struct slice attempt_model(struct exchange *ex, const struct snap_route *route);
void attempt_read(struct exchange *ex);         /* bytes may be there: call when a paused stream goes on */

/* ---- relay.c ----------------------------------------------------------------------------------------------------- */
void relay_stream_begin(struct exchange *ex);
/* Body bytes of a stream. false: the exchange or the attempt is over. */
bool relay_stream_bytes(struct exchange *ex, struct slice bytes);
void relay_stream_end(struct exchange *ex);     /* the upstream ended properly; the exchange is over afterwards */
void relay_stream_cut(struct exchange *ex, int status, const char *code,
                      const char *text);                 /* after bytes went out: an error event, the end */
void relay_body(struct exchange *ex, struct slice body); /* a whole answer; the exchange is over afterwards */
/* A provider's error before anything went out: passed on where the request is at fault, else a failed attempt. */
void relay_fault(struct exchange *ex, const struct ir_fault *f);

/* ---- reply.c ----------------------------------------------------------------------------------------------------- */
/* A whole answer with a JSON (or other) body; the body may lie anywhere until this returns. */
void reply_json(struct exchange *ex, int status, struct slice body);
void reply_text(struct exchange *ex, int status, struct slice type, struct slice body);
void reply_pieces(struct exchange *ex, int status, const struct pieces *p);
void reply_empty(struct exchange *ex, int status, struct slice extra_headers);
/* A member for X-Tollgate-Dropped. */
void reply_dropped(struct exchange *ex, struct slice name);
/* An error in the shape of the endpoint's dialect; code and type by the contract's table. extra: more headers, whole
 * lines. */
void reply_error(struct exchange *ex, int status, const char *code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
struct reply_fault {
    int status;
    const char *code;
    struct slice param;
    struct slice message;
    struct slice provider_code; /* the provider's own code, or the ledger's: wins over code */
    uint64_t retry_after_ms;    /* 0: no Retry-After */
    bool never;                 /* 429 that waiting does not help */
    const char *allow;          /* of a 405 */
};
void reply_fault(struct exchange *ex, const struct reply_fault *f);
/* The error's body, as reply_fault would send it. */
struct slice reply_error_body(struct exchange *ex, const struct reply_fault *f, struct arena *arena);
/* The head of a stream. */
size_t reply_stream_head(struct exchange *ex, char *out, size_t cap);

/* ---- log.c ------------------------------------------------------------------------------------------------------- */
struct access_log *access_log_new(struct worker *w);
void access_log_exchange(struct exchange *ex);
void access_log_flush(struct worker *w);
void access_log_reopen(struct worker *w, int access_fd, int error_fd);

/* ---- endpoints elsewhere ----------------------------------------------------------------------------------------- */
void call_run(struct exchange *ex);             /* generate.c: a model call in any dialect */
bool call_parse(struct exchange *ex);           /* the body into ex->json. False: an error was sent */
void gemini_run(struct exchange *ex);           /* the same, its model and method in the path */
bool gemini_calls(struct slice rest);           /* …/models/REST is a call, not a model's own path */
void echo_run(struct exchange *ex);             /* the built-in upstream answers */
void task_run(struct exchange *ex, const struct task_module *task); /* task.c: what is no conversation */
void completions_run(struct exchange *ex);       /* generate.c */
void embeddings_run(struct exchange *ex);
void images_run(struct exchange *ex);
void count_run(struct exchange *ex);
/* Path and body for this route. */
enum task_go { TASK_GO, TASK_REFUSED /* f says why */, TASK_ANSWERED };
enum task_go task_build(struct exchange *ex, struct ir_fault *f);
bool task_guess(struct exchange *ex);           /* a count that nobody answers is estimated. False: it is no count */
void task_echo(struct exchange *ex, const struct json *j);
void models_list(struct exchange *ex);          /* models.c */
void models_show(struct exchange *ex);
void key_show(struct exchange *ex);             /* key.c */
void status_show(struct exchange *ex);          /* status.c */
void accounts_run(struct exchange *ex);         /* accounts.c: forwarded to the ledger */
void admin_healthz(struct exchange *ex);        /* admin.c */
void admin_readyz(struct exchange *ex);
void admin_metrics(struct exchange *ex);
/* Why new billable work cannot be taken now, or SHED_NO; reads what the ledger publishes, so it sees a stuck one too.
 */
enum shm_shed worker_shed(struct worker *w);

#endif
