/* Most events of a stream are the one before with another word in it. One that was parsed, and changed nothing but the
 * counts of text and events, is kept with holes where its words stood; what matches it needs no parser: the same bytes
 * around the holes and a well-formed string in each mean the same tokens, so the same members, edits and figures.
 * What does not match takes the long way and is kept in its place. Private to proto/pass. */
#ifndef TG_PASS_ALIKE_H
#define TG_PASS_ALIKE_H

#include "proto/pass/pass.h"

/* What may stand at a hole. */
enum alike_hole {
    ALIKE_TEXT,   /* a string that counts as text of the answer */
    ALIKE_STRING, /* a string that is nobody's affair: padding */
    ALIKE_NUMBER  /* a plain integer of at most 18 digits */
};

/* The holes that a dialect finds in an event, in the order of its text. */
struct alike_holes {
    uint32_t n; /* more than ALIKE_HOLES: the event is not kept */
    int value[ALIKE_HOLES];
    uint8_t is[ALIKE_HOLES];
};
void alike_add(struct alike_holes *h, int value, enum alike_hole is);
/* The event has something that counts and is no hole. */
static inline void alike_refuse(struct alike_holes *h) { h->n = ALIKE_HOLES + 1; }

struct alike_found {
    uint64_t text_bytes; /* decoded */
    uint64_t number;     /* of the last ALIKE_NUMBER */
};

/* Keeps an event that was put out as the pieces from `first` on. What cannot be kept leaves nothing kept. */
void alike_keep(struct alike *k, const struct sse_event *ev, const struct json *j, const struct alike_holes *h,
                const struct pieces *out, uint32_t first);
/* true: the event is as the kept one; it was put out as that was. */
bool alike_take(const struct alike *k, const struct sse_event *ev, struct arena *scratch, struct pieces *out,
                struct alike_found *found);

#endif
