/* What requests and responses have in common: finding the head's end, the field lines, the framing. Internal to
 * proto/http. */
#ifndef TG_HTTP_HEAD_H
#define TG_HTTP_HEAD_H

#include "proto/http/http.h"

/* What the field lines said, gathered before it is judged as a whole. */
struct http_seen {
    unsigned hosts, lengths, codings;
    bool length_bad, coding_bad, close, keep, connection_upgrade, upgrade;
};

/* Reads the start line at *at of text and moves *at behind its CRLF. HTTP_MORE: it is not all there. */
typedef enum http_result http_start_line(struct http_head *h, struct slice text, size_t *at);

/* Parses a head up to its blank line. On HTTP_OK `seen` is filled and the caller settles the framing. */
enum http_result http_head_parse(struct http_head *h, struct slice text, size_t *scanned, http_start_line *start_line,
                                 struct http_seen *seen);
enum http_result http_head_bad(struct http_head *h, enum http_fault fault);
/* Sets keep_alive, upgrade and a stated body; false: a fault is set. A body that is not stated is HTTP_BODY_NONE. */
bool http_head_framing(struct http_head *h, const struct http_seen *seen);
/* The version at p ("HTTP/1.1"), which has 8 bytes: sets minor, or says what is wrong with it. */
enum http_fault http_head_version(struct http_head *h, const char *p);
/* The first byte at or behind p that may not stand in a field value; end if there is none. */
const char *http_value_end(const char *p, const char *end);

#endif
