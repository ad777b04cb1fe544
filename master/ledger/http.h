/* What a client asked for over HTTP and a worker forwarded: accounts, keys, billing, caps, /admin.
 *
 * The call is {"cmd":"http.NAME","credentials":["…"],"client":"ADDRESS","id":"PATH REST","query":"RAW","body":{…}}, the
 * result {"status","body"}, or of a refusal {"status","code","message","retry_after_s"?}, to which the worker gives the
 * shape of the path. Every text in it is the client's, or that of whoever took a worker over: a
 * credential is looked at here, whatever the worker says. Nothing is written to the call before the answer is known. */
#ifndef TG_LEDGER_HTTP_H
#define TG_LEDGER_HTTP_H

#include "master/ledger/call.h"
#include "proto/jwt.h"

/* ---- http.c: answers and what was asked ---- */
void http_ok(struct call *c, struct slice body);
void http_fail(struct call *c, int status, const char *code, uint64_t retry_after_s, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
void http_refused(struct call *c, const struct call *inner); /* as inner was, which asked for the same caller */
/* The result of a command, or (result.ptr NULL) its refusal, as HTTP's. */
void http_write(struct json_writer *w, struct slice result, struct slice code, struct slice message);
/* A document being written, for an answer or for another command's arguments. */
struct http_doc { struct buf buf; struct json_writer w; };
void http_doc_init(struct call *c, struct http_doc *d); /* opens an object */
struct slice http_doc_end(struct http_doc *d);          /* closes it; ptr NULL: too large */
void http_doc_free(struct http_doc *d);                 /* and wipes it */
/* A member of the request taken over: a list of models becomes one text with commas, anything else stays what it is. */
bool http_models_are_texts(struct call *c); /* false: the body's list holds something else; it was answered */
void http_put(struct call *c, struct http_doc *d, const char *name, int token);
/* Runs another command with the document as its arguments (which it closes) and answers with what that answers. */
void http_inner(struct call *c, void (*fn)(struct call *c), struct http_doc *arguments);
/* A parameter of the query, decoded; false: it is not there. */
bool http_query(struct call *c, const char *name, struct slice *out);
struct slice http_rest(struct call *c);                 /* what the path's * stood for, decoded */
int http_body(const struct call *c, const char *name);  /* a member of the body; -1: none */
/* Milliseconds that only grow. */
uint64_t http_now_ms(void);

/* ---- auth.c: who asks, and how often ---- */
struct http_who { uint32_t account; /* index */ uint32_t key_id; /* 0: by a JWT */ };
/* false: it was answered (401, 403). */
bool auth_who(struct call *c, bool keys_too, struct http_who *who);
bool auth_admin(struct call *c);
bool auth_token(struct call *c, uint32_t account_id, struct buf *out); /* a new JWT */
enum auth_counter { COUNT_SIGNUPS, COUNT_LOGIN_ADDRESS, COUNT_LOGIN_ACCOUNT, COUNT_NEW_KEYS, AUTH_COUNTERS };
/* Counts one more of `who`; false: that would be more than limit in the window: *wait_s says when it is over. */
bool auth_count(struct ledger *l, enum auth_counter counter, struct slice who, uint32_t limit, uint32_t window_ms,
                uint64_t *wait_s);
void auth_uncount(struct ledger *l, enum auth_counter counter, struct slice who);
/* The client's address as counted: an IPv6 one by its /64, but an IPv4 one in its clothes is an IPv4 one. */
struct slice auth_client(struct call *c);
void auth_end(struct ledger *l);

/* ---- password.c: slow hashes in helper processes ---- */
enum { PASSWORD_HASH = 384, PASSWORD_PHRASE = 48, PASSWORD_MIN = 6, PASSWORD_MAX = 1024 };
struct password_job {
    char hash[PASSWORD_HASH];  /* what is stored; "": make a new one */
    char email[STORE_EMAIL + 1];
    char client[64];
    uint32_t account_id;       /* 0: there is none */
    /* got: the new hash, or the stored one if the password is right; NULL: it is wrong, or *failed. */
    void (*done)(struct call *c, const struct password_job *job, const char *got, bool failed);
};
/* Starts or queues it; false: too many wait. The call is answered later, by done. The password is read at once. */
bool password_start(struct call *c, const struct password_job *job, struct slice password);
/* At least PASSWORD_MIN characters, at most PASSWORD_MAX bytes. */
bool password_fits(struct slice password);
/* A hash that no password has, as slow as any other. */
const char *password_dummy(struct ledger *l);
bool password_input(struct ledger *l, int fd);
void passwords_end(struct ledger *l);

/* ---- the commands ---- */
void call_http_register(struct call *c);   void call_http_login(struct call *c);
void call_http_keys(struct call *c);       void call_http_key_create(struct call *c);
void call_http_key_revoke(struct call *c); void call_http_balance(struct call *c);
void call_http_usage(struct call *c);      void call_http_cap(struct call *c);
void call_http_cap_set(struct call *c);    void call_http_admin(struct call *c);

#endif
