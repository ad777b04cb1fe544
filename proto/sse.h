/* Server-sent events (WHATWG HTML §9.2.6): bytes in, events out. Line ends LF, CRLF and CR; a BOM; comments;
 * data of several lines; fields without a colon or without the space behind it. */
#ifndef TG_SSE_H
#define TG_SSE_H

#include "proto/base/arena.h"

enum sse_result {
    SSE_EVENT,    /* one event (or one comment block) was taken: ev is filled */
    SSE_MORE,     /* all that is there is the beginning of one: read more */
    SSE_TOO_LONG  /* the event exceeds max_bytes */
};

struct sse_event {
    struct slice raw;  /* the event as it came, its blank line included: forward this to pass it untouched */
    struct slice name; /* `event:` field, empty if none */
    struct slice data; /* data lines joined by LF; in raw itself when there is one line, else in the scratch arena */
    bool has_data;     /* false: a comment or an event without data */
};

struct sse {
    size_t max_bytes;  /* an event may have so many bytes, its line ends included */
    size_t scanned;    /* bytes of the pending event already searched: no byte is searched twice */
    bool started;      /* the BOM was looked for */
    bool skip_lf;      /* the last event ended in CR: one LF that follows belongs to it */
    /* further state of the scanner, none of it a pointer */
    size_t line_start;
};

void sse_init(struct sse *s, size_t max_bytes);
/* Looks for one event in text, which must begin where the last event ended and grow only at its end.
 * On SSE_EVENT *used bytes belong to it (consume them). scratch: for joined data. A lone CR at the end of what is there
 * is taken as a line end at once when it completes a blank line (the LF that may follow is skipped later). */
enum sse_result sse_next(struct sse *s, struct slice text, struct arena *scratch, struct sse_event *ev, size_t *used);
/* At the end of input: an unfinished last event with data counts as cut (the standard discards it); true if one was
 * pending. */
bool sse_pending(const struct sse *s, struct slice rest);

#endif
