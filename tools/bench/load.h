/* Private to load*.c: one generator of traffic. */
#ifndef TG_BENCH_LOAD_H
#define TG_BENCH_LOAD_H

#include <netinet/in.h>

#include "proto/base/arena.h"
#include "proto/http/http.h"
#include "tools/bench/hist.h"

struct kind { /* of request: a front end */
    const char *name, *path, *stream_path; /* %s: the model */
    const char *before, *after;            /* of the body, around what fills it; %s: model, then true or false */
    const char *end_mark;                  /* how a stream's last event begins, or (in_event) what stands in it */
    bool in_event;
};
const struct kind *kind_find(const char *name);

struct options {
    const char *host, *model, *key_file, *key;
    int port;
    const struct kind *kind;
    uint32_t connections, each, abort_after, body_bytes, ramp;
    double rate, warm_s, seconds, drain_s, wait_s; /* rate 0: closed loop */
    bool stream, fresh;
    int root;                                      /* of the process tree that is measured; 0: none */
};

struct requests { /* ready to send, one a key */
    struct slice *at;
    uint32_t count;
};
bool requests_make(struct requests *r, const struct options *o);

struct tally { /* all sums */
    uint64_t started, done, ok, events, bytes;
    uint64_t refused, cut, garbled, unfinished, aborted, reconnects;
    uint64_t status[600];
};

enum client_state { CLIENT_OFF /* or idle with its connection open */, CLIENT_CONNECTING, CLIENT_SENDING, CLIENT_HEAD,
                    CLIENT_BODY };

struct client {
    int fd; /* -1: none */
    enum client_state state;
    bool reused, retried, answered /* ever */, event_stream, ended /* the stream's end mark came */, keep;
    uint32_t request, events, made;
    size_t sent, head_scanned;
    struct buf head; /* an unfinished one */
    struct http_reader reader;
    int status;
    uint64_t start_ns, event_ns;
    /* the event that comes in: how it begins, and whether the last byte ended a line */
    char begin[32];
    uint8_t begin_len;
    bool newline;
    struct client *next_idle;
};

struct load {
    struct options o;
    struct requests requests;
    struct sockaddr_in address;
    struct pages pages;
    int epfd;
    struct client *clients;
    uint32_t launched, answered, finished; /* clients: begun, had an answer's head, have made `each` requests */
    struct client *idle, **idle_tail;      /* free for the next arrival, or (closed loop) the next turn */
    struct tally t;
    struct hist latency, first, gap;       /* ns; of the window */
    bool measuring;
};

uint64_t load_now_ns(void);

/* load_client.c */
void client_start(struct load *l, struct client *c, uint64_t start_ns);
void client_event(struct load *l, struct client *c, uint32_t events);
void client_close(struct client *c);
/* load.c: the client's request is over, however it went. */
void load_next(struct load *l, struct client *c);

#endif
