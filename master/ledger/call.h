/* Calls: what somebody asks of the ledger, as one JSON object, and its answer (docs/rpc.md). */
#ifndef TG_LEDGER_CALL_H
#define TG_LEDGER_CALL_H

#include "master/ledger/ledger.h"
#include "proto/base/id.h"
#include "proto/json.h"

struct call {
    struct ledger *l;
    uint32_t id, origin;
    struct json json;
    struct arena *arena;
    struct json_writer *w;   /* the result: one JSON value */
    bool refused, later;     /* later: a reader or a password helper will answer */
    bool http;               /* its answer is HTTP's (http.h) */
    bool numbers;            /* amounts as JSON numbers, not as texts */
    uint32_t self_id;        /* the account that asks for itself over HTTP; 0: an operator does */
    char code[48], message[400];
};
void call_take(struct ledger *l, uint32_t id, uint32_t origin, struct slice json);
/* The same for work that was put off: fn writes the result of call `id`, or refuses it, and it is answered. */
void call_perform(struct ledger *l, uint32_t id, uint32_t origin, void (*fn)(struct call *c, void *arg), void *arg);
void call_refuse(struct call *c, const char *code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* What the call needed of the database failed: says so to the caller, and does what the failure asks for. */
void call_store_failed(struct call *c, enum store_err err);
void call_answer(struct ledger *l, uint32_t id, uint32_t origin, struct slice document);

/* ---- arguments ---- */
enum arg { ARG_ABSENT, ARG_OK, ARG_BAD /* the call is refused */ };
enum arg call_text(struct call *c, const char *name, size_t max,
                   struct slice *out);                                /* strings, and numbers as their text */
/* Of the value at t, a number (an exponent is as good as any other way to write it) or a plain decimal as text. */
bool call_amount_at(struct call *c, int t, int64_t *out);
enum arg call_amount(struct call *c, const char *name, int64_t *out); /* ≥ 0, in the unit */
enum arg call_count(struct call *c, const char *name, uint64_t *out);
enum arg call_flag(struct call *c, const char *name, bool *out);
enum arg call_time(struct call *c, const char *name, int64_t *out_ms);
bool call_need(struct call *c, enum arg got, const char *name);     /* refuses what is absent */
/* The account (id or email) or key (id or whole key) that an argument names; NO_INDEX and refused otherwise. */
uint32_t call_account(struct call *c, const char *name);
/* A key may have lost its place in the table: its id then, and index NO_INDEX. false: refused. */
bool call_key(struct call *c, const char *name, uint32_t *id, uint32_t *index);
bool find_account(struct ledger *l, struct slice text, uint32_t *index);
bool find_key(struct ledger *l, struct slice text, uint32_t *id);    /* by its id or the whole key */
bool find_secret(struct ledger *l, struct slice text, uint32_t *id); /* by the whole key alone */

/* ---- answers ---- */
/* A read of the database, which store_read_end ends; false: refused. */
bool call_read(struct call *c);
static inline int ledger_places(const struct ledger *l) { return l->unit_tokens ? 0 : 9; }
void jw_amount(struct call *c, int64_t amount);
void jw_count(struct json_writer *w, const char *name, uint64_t v); /* with its name */
void jw_id(struct json_writer *w, enum id_kind kind, uint64_t id);
void jw_time(struct json_writer *w, int64_t time_ms, bool with_ms);
/* A page of what is numbered, {"NAME":[…],"next_cursor"}: at most "limit" (PAGE_MAX) of those with ids above "cursor"
 * and below `end`. Each writes one, within a read; false: it is none of this list. */
enum { PAGE_MAX = 5000 };
void call_page(struct call *c, const char *name, uint32_t end, bool (*each)(struct call *c, uint32_t id, void *arg),
               void *arg);

/* ---- the commands ---- */
void call_account_create(struct call *c); void call_account_list(struct call *c);
void call_account_show(struct call *c);   void call_account_set(struct call *c);
void call_account_suspend(struct call *c); void call_account_resume(struct call *c);
void call_key_create(struct call *c);     void call_key_set(struct call *c);       void call_key_show(struct call *c);
void call_key_revoke(struct call *c);     void call_key_list(struct call *c);      void call_key_import(struct call *c);
void call_cap_set(struct call *c);        void call_cap_list(struct call *c);      void call_cap_remove(struct call *c);
void call_credit(struct call *c);         void call_debit(struct call *c);         void call_balance(struct call *c);
void call_usage(struct call *c);          void call_audit(struct call *c);         void call_backup(struct call *c);
void call_names_intern(struct call *c);   void call_ledger_status(struct call *c);

#endif
