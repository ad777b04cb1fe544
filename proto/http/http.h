/* HTTP/1.1 heads and bodies (RFC 9110, 9112): incremental, bounded, strict. Results are slices of the input.
 *
 * What is ambiguous is refused, for it is how requests are smuggled: Content-Length with Transfer-Encoding, two lengths
 * (equal ones too), a length that is not 1*DIGIT, a transfer-encoding other than one `chunked`, bare CR or LF,
 * obs-fold, space before the colon, a control byte in a value, a missing or second Host in 1.1, a chunk extension or
 * trailer past its limit. */
#ifndef TG_HTTP_H
#define TG_HTTP_H

#include "proto/base/slice.h"

enum { HTTP_MAX_HEADERS = 100, HTTP_MAX_HEAD = 32768, HTTP_MAX_TARGET = 8192 };

enum http_result { HTTP_OK, HTTP_MORE, HTTP_BAD };

/* Why a message was refused; http_fault_text gives the sentence, the caller the status. */
enum http_fault {
    HTTP_FAULT_NONE,
    HTTP_FAULT_SYNTAX,        /* 400 */
    HTTP_FAULT_TARGET_LONG,   /* 414 */
    HTTP_FAULT_HEAD_LONG,     /* 431: head or a count of headers */
    HTTP_FAULT_VERSION,       /* 505 */
    HTTP_FAULT_LENGTH,        /* 400: bad, double or contradictory body length */
    HTTP_FAULT_CODING,        /* 501: transfer-encoding other than chunked */
    HTTP_FAULT_HOST,          /* 400 */
    HTTP_FAULT_CHUNK,         /* 400: malformed chunk */
    HTTP_FAULT_TRAILER_LONG   /* 431 */
};
const char *http_fault_text(enum http_fault f);

enum http_body { HTTP_BODY_NONE, HTTP_BODY_SIZED, HTTP_BODY_CHUNKED, HTTP_BODY_TO_EOF /* responses only */ };

struct http_header { struct slice name, value; }; /* value trimmed */

struct http_head {
    size_t bytes;              /* of the whole head, its blank line included */
    /* request */
    struct slice method, target; /* target as sent */
    struct slice path, query;    /* of an origin-form or absolute-form target; query without '?' (ptr NULL if none) */
    /* response */
    int status;
    struct slice reason;
    /* both */
    int minor;                 /* HTTP/1.minor: 0 or 1 */
    bool keep_alive;           /* as version and Connection say */
    bool expect_continue;      /* Expect: 100-continue; another expectation: expect_other */
    bool expect_other;
    bool upgrade;
    enum http_body body;
    uint64_t content_length;   /* for HTTP_BODY_SIZED */
    struct slice content_encoding; /* ptr NULL if absent or identity */
    struct slice host;
    uint32_t header_count;
    struct http_header headers[HTTP_MAX_HEADERS];
    enum http_fault fault;     /* after HTTP_BAD */
};

/* text begins at the message's first byte (leading empty lines are skipped: RFC 9112 §2.2; they count in head->bytes).
 * scanned: 0 at first, kept by the caller between calls on the same message, so that no byte is searched twice. */
enum http_result http_parse_request(struct http_head *h, struct slice text, size_t *scanned);
/* head_request: the answer to a HEAD has no body whatever it says. 1xx, 204 and 304 have none either. */
enum http_result http_parse_response(struct http_head *h, struct slice text, size_t *scanned, bool head_request);

/* First header of that name (ASCII case-insensitive), or NULL. */
const struct http_header *http_find(const struct http_head *h, struct slice name);
/* Whether a comma-separated list value holds the token. */
bool http_has_token(struct slice list, struct slice token);
/* Value of a query parameter, percent- and plus-decoded into out (cap bytes); false: absent, malformed or too long. */
bool http_query_get(struct slice query, struct slice name, char *out, size_t cap, size_t *len);
/* %XX decoded into out; false on a malformed escape, a NUL, or when it does not fit. plus: '+' is a space. */
bool http_percent_decode(struct slice in, bool plus, char *out, size_t cap, size_t *len);
/* A date of HTTP in any of its three forms (RFC 9110 §5.6.7), as seconds since 1970; false: it is none. */
bool http_date(struct slice text, int64_t *epoch_s);
const char *http_reason(int status); /* "OK", "Bad Request", … */

/* Body framing, in place: fed with what has come, it says how many of those bytes are body. */
struct http_reader {
    enum http_body kind;
    uint64_t left;      /* sized: bytes to come; chunked: bytes left of this chunk */
    uint32_t state;     /* chunked: where in the grammar */
    uint32_t line_bytes; /* of the size line or the trailers so far */
    bool done;
    enum http_fault fault;
};
void http_reader_init(struct http_reader *r, enum http_body kind, uint64_t content_length);
/* Looks at in (which begins where the last call stopped). *used: bytes to consume; *data: the run of body bytes within
 * them (may be empty). HTTP_OK: done, the body is complete; HTTP_MORE: call again with what is behind *used or comes
 * later; HTTP_BAD: fault. For HTTP_BODY_TO_EOF it never ends by itself: the caller knows the end of the connection. */
enum http_result http_reader_next(struct http_reader *r, struct slice in, struct slice *data, size_t *used);

#endif
