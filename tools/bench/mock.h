/* Private to mock*.c: a provider whose answers are rendered once and then only sent. */
#ifndef TG_BENCH_MOCK_H
#define TG_BENCH_MOCK_H

#include "proto/base/arena.h"

enum mock_dialect { MOCK_CHAT, MOCK_MESSAGES, MOCK_RESPONSES, MOCK_GEMINI, MOCK_EMBEDDINGS, MOCK_NOTHING };

enum mock_fault {
    FAULT_NONE,
    FAULT_STATUS,  /* an error with spec.status */
    FAULT_RESET,   /* RST in the middle of the answer */
    FAULT_CLOSE,   /* FIN in the middle of the answer */
    FAULT_HANG,    /* no answer at all */
    FAULT_GARBAGE  /* bytes that are no JSON */
};

/* What a model's name asks for: mock[-eEVENTS][-tTEXT_BYTES][-dDELAY_MS][-fFIRST_MS][-everyN][-STATUS | -reset | …] */
struct spec {
    uint32_t events;     /* of text, in a stream */
    uint32_t text_bytes; /* of each; of a whole answer's text: all of it */
    uint32_t delay_ms;   /* between events */
    uint32_t first_ms;   /* before the answer */
    uint32_t every;      /* only each Nth request fails; 1: all */
    int status;
    enum mock_fault fault;
};
void spec_parse(struct spec *s, struct slice model);

struct script { /* an answer, in the pieces in which it is written */
    struct script *next;
    enum mock_dialect dialect;
    bool stream, failing;
    char model[128];
    struct spec spec;
    struct slice *pieces;
    uint32_t count;
    uint64_t tokens; /* that its usage states as output */
};
/* Rendered at the first call, then found; NULL: out of memory. */
const struct script *script_find(struct pages *pages, enum mock_dialect dialect, bool stream, bool failing,
                                 struct slice model);

#endif
