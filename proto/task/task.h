/* Tasks: what a model is asked beside a conversation: embeddings, pictures, and how many tokens a request has. One
 * module a task behind one small interface; each knows how the wires of the providers spell that task. A task's answer
 * is always whole, never a stream.
 *
 * The order of calls: scan (the client's body), check (what the model's configuration allows), build (for each provider
 * tried), read (the figures of the provider's answer: the caller prices and settles), write (the client's body, with
 * the cost). Pure: no I/O, no clock. Faults of the request go into pass_request (before the model is known) or ir_fault
 * (when a provider cannot express it). */
#ifndef TG_TASK_H
#define TG_TASK_H

#include "proto/ir.h"
#include "proto/pass/pass.h"

enum { TASK_INPUTS_MAX = 2048, TASK_DIMENSIONS_MAX = 65536, TASK_N_DEFAULT = 10 };

/* What is known of one call. The caller zeroes it and sets the first four. */
struct task_call {
    enum ir_dialect client;
    bool batch; /* Gemini's :batchEmbedContents */
    int64_t now_s;
    struct slice model; /* the name that the client used */
    /* embeddings */
    bool single, ids, base64;    /* one input and no list; token ids instead of text; vectors as base64 */
    uint64_t inputs, dimensions; /* dimensions 0: the model's own */
    uint64_t input_tokens;       /* estimate, for providers that give no figures */
    /* pictures */
    uint64_t n, prompt_characters;
    struct slice size, quality; /* in effect, decoded */
    bool add_size, add_quality; /* the client named none and the provider's own default is not ours */
    bool b64, url;              /* response_format, where the client named one */
};

/* What the configuration says of the model. */
struct task_model {
    const struct slice *sizes, *qualities; /* empty: any */
    uint32_t size_count, quality_count;
    uint64_t n_max, prompt_max; /* 0: none */
};

struct task_target {
    enum ir_dialect dialect;
    struct slice model;
    const struct slice *strip; /* top-level members to take out where the body passes */
    uint32_t strip_count;
    const struct splice *unsealed; /* ids that the provider handed out, as it knows them, where the body passes */
    uint32_t unsealed_count;
};

struct task_figures {
    struct meters meters;
    bool seen; /* the provider gave them; else they are an estimate */
};

enum task_result {
    TASK_OK,
    TASK_ERROR /* the fault says which */,
    TASK_BAD /* not what the provider's dialect promises */
};

struct task_module {
    const char *name;
    void (*scan)(const struct json *j, struct task_call *c, struct pass_request *r, struct arena *arena);
    void (*check)(const struct json *j, struct task_call *c, const struct task_model *m,
                  struct pass_request *r); /* may be NULL */
    /* Path behind the upstream's base, and body. false: fault. */
    bool (*build)(const struct json *j, const struct task_call *c, const struct task_target *t, struct ir_dropped *d,
                  struct arena *arena, struct buf *path, struct buf *out, struct ir_fault *f);
    enum task_result (*read)(const struct json *j, const struct task_call *c, enum ir_dialect from, struct arena *arena,
                             struct task_figures *fig, struct ir_fault *f);
    bool (*write)(const struct json *j, const struct task_call *c, enum ir_dialect from, const struct task_figures *fig,
                  const struct ir_cost *cost, struct arena *arena, struct buf *out);
    /* The built-in provider's answer, in OpenAI's words, to a body built for OpenAI. NULL: it has none. */
    bool (*echo)(const struct json *j, const struct task_call *c, struct arena *arena, struct buf *out);
};

extern const struct task_module task_embeddings, task_images, task_count;

/* The provider that a request would go to, as far as the configuration tells: whose tokens are meant. */
struct task_provider {
    enum ir_dialect dialect;
    struct slice upstream;     /* the operator's word for it */
    struct slice host, path;   /* of its base URL */
    struct slice model, alias; /* the model's name there, and the client's for it */
};
/* Tokens that a request has for that provider, estimated (estimate.c). client: the dialect of the body, Anthropic's or
 * Gemini's. Takes some milliseconds at most. */
uint64_t task_estimate(const struct json *j, enum ir_dialect client, const struct task_provider *provider);
/* The object that holds the conversation to count: Gemini takes it whole, or within generateContentRequest. */
int task_count_root(const struct json *j, enum ir_dialect client);
/* The answer to a count when nobody could be asked. */
bool task_write_count(enum ir_dialect client, uint64_t tokens, struct buf *out);
/* Output tokens that one picture takes at most where pictures are priced by tokens (gpt-image's published table). */
uint64_t task_image_tokens(struct slice size, struct slice quality);

/* ---- shared by the modules (task.c) ---- */
void task_refuse(struct pass_request *r, const char *code, const char *param,
                 const char *text); /* the first fault stays */
/* The member, or its snake_case spelling (proto3 JSON takes both); -1: neither. */
int task_get(const struct json *j, int object, const char *camel, const char *snake);
/* Refuses a body in which a member that counts stands twice (another reader might take the other one); the model: there
 * and a text. */
bool task_scan_object(const struct json *j, struct pass_request *r, const char *const *once, uint32_t count);
void task_scan_model(const struct json *j, struct pass_request *r, struct arena *arena);
/* text with its splices, into a buffer. */
bool task_splice(struct slice text, struct splice *s, uint32_t n, struct buf *out);
/* The body with another model's name and without the stripped members; more: splices of the module's own. */
bool task_pass_body(const struct json *j, const struct task_target *t, struct ir_dropped *d, const struct splice *more,
                    uint32_t count, struct arena *arena, struct buf *out);
struct slice task_quoted(struct arena *arena, struct slice prefix, struct slice text);
/* Gemini: /models/M:method. */
bool task_gemini_path(struct slice model, const char *method, struct buf *out);
/* The usage object at token t with the cost in it, ours alone. */
struct slice task_usage(const struct json *j, int t, const struct ir_cost *cost, bool camel, struct arena *arena);
/* The whole answer with `usage` in the place of (or beside) what it has under that name. */
bool task_write_usage(const struct json *j, const char *name, struct slice usage, struct buf *out);
/* Writes the cost members into the open object. */
void task_put_cost(struct json_writer *w, const struct ir_cost *cost, bool camel);
/* An answer that is an error though its status said otherwise. */
bool task_is_error(const struct json *j, struct arena *arena, struct ir_fault *f);

#endif
