/* How a provider counts what goes in: what it adds to the text. See counter.c. */
#ifndef TG_COUNTER_H
#define TG_COUNTER_H

#include "proto/task/task.h"
#include "proto/task/weigh.h"

/* How tools are shown to the model, and pictures and reasoning counted. */
enum counter_manner {
    COUNTER_OPENAI, /* tools as TypeScript: names and descriptions; pictures by tiles or patches */
    COUNTER_CLAUDE, /* tools as the JSON that came; pictures by area */
    COUNTER_GEMINI, /* tools as a text of its own; pictures at a flat rate */
    COUNTER_VERTEX  /* the same, but of tools, calls and results the bare words are counted */
};

/* Tokens of a picture of unknown size, of one at most (OpenAI: patches), of a document's page, of a second of audio. */
struct counter_media {
    uint32_t picture, picture_max, page, second;
};

/* Tokens, beside the weight of the texts. */
struct counter {
    enum counter_manner manner;
    enum weigh_by by;
    const struct counter_media *media;
    uint32_t request, message;                  /* around all, and around each message */
    uint32_t thinking, adaptive;                /* where thinking is on: with a budget, or as the model likes */
    uint32_t tools, forced;                     /* where there are tools, and where one of them must be called */
    uint32_t tool, property, described, nested; /* a declaration; of its schema a property, a description, a schema */
    uint32_t call, result;
    uint32_t format;                            /* an answer bound to a schema */
    uint32_t hosted;                            /* a tool of the provider's own of which no more is known */
    uint32_t patch_percent, tile_percent;       /* OpenAI's pictures: by patches, if not 0, or by tiles */
    uint32_t version;                           /* ten times the model's (45: Claude 4.5); 0: the name does not tell */
};

/* By the model's name (the provider's before the client's), else by the dialect that the provider speaks. */
struct counter counter_of(const struct task_provider *provider);

#endif
