/* One answer on its way from an upstream of one dialect to a client of another: all that a relay calls. It holds no
 * `if` about a dialect: it reads events, repairs what no reader should have to (order, ids, renamed tools, free-text
 * tools, the schema that went out as a tool), and writes them, or folds them into a whole answer. */
#ifndef TG_TRANSLATE_H
#define TG_TRANSLATE_H

#include "proto/dialect/dialect.h"

/* The request: reads the client's, settles it. `r` is zeroed here and lives in the arena. */
bool translate_read(const struct dialect *client, const struct json *j, const struct dialect_path *path,
                    struct arena *arena, struct ir_request *r, struct ir_fault *f);

struct translate {
    const struct dialect *client, *upstream;
    struct ir_request *request;
    struct dialect_writer_settings writing;
    void *reader, *writer;
    bool stream;                /* the client gets a stream; else the answer is folded */
    struct ir_answer answer;    /* folded */
    struct ir_usage usage;      /* the last that was seen */
    struct ir_fault fault;      /* after DIALECT_ERROR, DIALECT_BAD, DIALECT_FULL */
    /* for billing a stream that breaks */
    uint64_t text_bytes;        /* of text, reasoning and arguments delivered */
    bool started;               /* something of the answer was written or folded */
    bool finished;              /* a finish word was seen */
    struct slice served_model;  /* the provider's word for what answered (may differ from the one asked) */
    /* repair; see translate.c */
    struct buf *out;
    struct arena *scratch;
    uint32_t calls, origin;
    bool saw_start, args, custom, in_custom, in_wrap, in_json, saw_call[8], full, model_error;
    struct buf held;
};

/* reading->origin etc. as in dialect.h. false: memory. */
bool translate_open(struct translate *t, const struct dialect *client, const struct dialect *upstream,
                    struct ir_request *request, const struct dialect_reader_settings *reading,
                    const struct dialect_writer_settings *writing);
/* One event of the upstream's stream → bytes for the client (none, or several events). After DIALECT_DONE call
 * translate_end. */
enum dialect_result translate_event(struct translate *t, const struct sse_event *ev, struct arena *scratch,
                                    struct buf *out);
/* The upstream's whole body; out gets bytes only where the client wants a stream. Then translate_end. */
enum dialect_result translate_whole(struct translate *t, const struct json *j, struct arena *scratch, struct buf *out);
/* The upstream's stream ended properly (DONE, or the end of its body). DIALECT_BAD: it was cut. Then t->usage is
 * final. */
enum dialect_result translate_end(struct translate *t, struct arena *scratch, struct buf *out);
/* The last bytes: finish, usage and cost; or the whole answer. false: t->fault (nothing of a whole answer was
 * written). */
bool translate_finish(struct translate *t, const struct ir_cost *cost, struct arena *scratch, struct buf *out);
/* An error in the stream, and its end. Before the first byte use client->write_error instead. */
bool translate_fail(struct translate *t, const struct ir_fault *f, const struct dialect_brand *brand,
                    struct arena *scratch, struct buf *out);
/* The bytes that keep a silent stream alive. */
struct slice translate_ping(const struct translate *t);
/* Always, once. */
void translate_close(struct translate *t);

#endif
