/* What the parts of the ledger process share. Only master/ledger*.c includes it.
 *
 *     ledger.c                     the process: hygiene, loop, frames
 *     ledger_boot.c                pepper, version, probe
 *     ledger_load.c                database → mirrors → shared tables
 *     ledger_models.c              lists of models in shared memory
 *     ledger_drain.c               rings → group commits
 *     ledger_checkpoint.c          stored balances, spending and roll-ups catch up with them
 *     ledger_rollups.c             what was used by account, day and model
 *     ledger_call.c                calls: table, arguments, answers
 *     ledger_text.c                times, emails
 *     ledger_account.c, _key.c, _money.c, _cap.c, _usage.c          the calls
 *     ledger_reader.c              forked readers for what takes long
 *     ledger_audit.c, _backup.c    two of those
 *
 * The mirrors hold every account's and key's committed state by table index, so that nothing between raise and fall
 * of a pause, and nothing while records are drained, reads the database. */
#ifndef TG_LEDGER_INT_H
#define TG_LEDGER_INT_H

#include "master/ledger.h"
#include "master/ledger_rollups.h"
#include "master/ledger_store.h"
#include "proto/base/check.h"
#include "proto/base/crypto.h"
#include "proto/base/id.h"
#include "proto/json.h"
#include "shm/ipc_io.h"
#include "shm/recover.h"
#include "shm/snapshot.h"

#define NO_INDEX UINT32_MAX
enum { NAME_KINDS = 4 }; /* enum name_kind of conf.h: model, upstream, tier, group */
enum { LEDGER_NAME_MODEL, LEDGER_NAME_UPSTREAM, LEDGER_NAME_TIER, LEDGER_NAME_GROUP };

struct account_mem {
    uint32_t id;                    /* 0: no account at this index */
    uint32_t status, tier_id, group_id;
    int64_t balance;                /* committed, charges of all committed records taken out */
    int64_t floor; /* how far below zero records may take it: where a forced debit left it; at most 0 */
    uint64_t last_usage, last_entry;
    uint32_t active_keys, caps;
    uint32_t models_bytes;          /* the lists of models of its active keys, together */
    uint32_t dirty, touched;        /* place + 1 in ledger.dirty_accounts / the group's undo list; 0: not there */
};
struct key_mem {
    uint32_t id;                    /* 0: no key at this index */
    uint32_t account;               /* index */
    uint32_t status, capped;
    int64_t limit, spent;
    uint64_t last_usage;
    int64_t last_used_s, revoked_at_s;
    uint32_t models_len;            /* bytes of its list of models */
    uint32_t dirty, touched;
};

struct group;  /* ledger_drain.c */
struct reader; /* ledger_reader.c */
struct passwords; /* ledger_password.c */
struct auth;      /* ledger_auth.c */

struct ledger {
    const struct ledger_heritage *heritage;
    struct shm *shm;
    struct store store;
    struct pages pages;
    struct ipc channel;
    int epfd;
    struct hmac_key pepper;
    struct recover_truth truth;
    struct recover_stats recover;
    const struct snap *conf;        /* the newest IPC_LEDGER_CONF; NULL: not yet */
    size_t conf_bytes;
    bool ready, stop;
    bool channel_full;              /* frames are queued: the loop waits for room too */
    int exit_status;                /* with stop */
    uint64_t ledger_id;
    uint32_t unit_tokens;

    struct account_mem *accounts;   /* by index: shm->header->max_accounts */
    struct key_mem *keys;           /* max_keys */
    uint32_t *account_of, *key_of;  /* id → index */
    uint32_t account_of_size, key_of_size;
    uint32_t *free_keys, free_key_count, account_count, key_count; /* counts: places in use */
    uint32_t next_account_place;
    uint32_t next_account_id, next_key_id;
    uint64_t next_usage, next_entry, next_quarantine;
    char **names[NAME_KINDS];       /* by id; [0] unused */
    uint32_t name_count[NAME_KINDS]; /* highest id */

    uint64_t *watermark;            /* by range: next sequence number to commit */
    struct group *group;
    uint64_t pending_since_ns;      /* when the oldest uncommitted record was first seen; 0: none */
    uint64_t retry_ns;              /* after a full disk: not before */
    uint64_t sleep_after_ns;        /* nothing came until then: sleep */
    int64_t last_committed_ms;      /* of the newest block: blocks' times never fall */
    int64_t late_ms; /* how long before its commit a record may have ended, at most (for searches by time) */

    uint32_t *dirty_accounts, *dirty_keys, dirty_account_count, dirty_key_count;
    struct rollups rollups;         /* since the last checkpoint */
    uint64_t applied;               /* usage records below this id are in the stored balances and roll-ups */
    uint64_t checkpoint_ns;         /* when the next is due; 0: nothing is dirty */

    struct reader *readers;         /* running and waiting */
    uint32_t reader_count, reader_waiting;
    struct passwords *passwords;    /* NULL: none was needed yet */
    struct auth *auth;
    struct { uint64_t groups, records, quarantined, commit_failures, checkpoints; } count;
    uint64_t alerted_ns[4];         /* by kind: when it was last said */
    uint64_t readers_checked_ns;
};

/* ---- ledger.c ---- */
bool ledger_setup(struct ledger *l, const struct ledger_heritage *h, const struct store_options *o);
void ledger_close(struct ledger *l);
/* One turn of the loop: frames, records, due work; sleeps at most max_wait_ms. false: it is to end. */
bool ledger_turn(struct ledger *l, int max_wait_ms);
void ledger_alert(struct ledger *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
enum alert_kind { ALERT_DISK, ALERT_QUARANTINE, ALERT_HUNG, ALERT_OTHER };
/* The same, at most every ten seconds of its kind. */
bool ledger_alert_due(struct ledger *l, enum alert_kind kind);
/* A write failed for good or for now: sets shed, alerts, ends the process where it must. */
void ledger_store_failed(struct ledger *l, enum store_err err);
uint64_t ledger_now_ns(void);
int64_t ledger_wall_ms(void);
int ledger_take_conf(struct ledger *l, int fd, size_t bytes);

/* ---- ledger_load.c ---- */
enum store_err ledger_load_meta(struct ledger *l, char *err, size_t err_len); /* meta, names, next ids */
bool ledger_load(struct ledger *l, char *err, size_t err_len);                /* mirrors, tables, replay, words */
void ledger_unload(struct ledger *l);
uint32_t ledger_account_place(struct ledger *l, uint32_t id); /* a place for a new account; NO_INDEX: full */
uint32_t ledger_key_place(struct ledger *l, uint32_t id);
uint32_t ledger_account_index(const struct ledger *l, uint32_t id); /* NO_INDEX: none */
uint32_t ledger_key_index(const struct ledger *l, uint32_t id);
void ledger_key_forget(struct ledger *l, uint32_t index); /* the place is free again */
void ledger_account_publish(struct ledger *l, uint32_t index);
/* false: key table or text pool is full. */
bool ledger_key_shape(struct ledger *l, const struct row_key *row, struct slice models, uint32_t id, uint32_t account,
                      struct shm_key *out);
const char *ledger_name(const struct ledger *l, unsigned kind, uint32_t id); /* "" if unknown */
uint32_t ledger_name_id(struct ledger *l, unsigned kind, struct slice name); /* 0: unknown; within a read */

static inline struct id_key cap_key(bool of_key, uint32_t id, uint32_t model_id) {
    struct id_key k = { .len = 9 };
    k.bytes[0] = of_key ? 'k' : 'a';
    be32_put(k.bytes + 1, id);
    be32_put(k.bytes + 5, model_id);
    return k;
}

/* ---- ledger_models.c ---- */
uint32_t models_place(struct ledger *l, struct slice models); /* where the list stands in shared memory; 0: no room */

/* ---- ledger_drain.c ---- */
bool drain_init(struct ledger *l);
void drain_free(struct ledger *l);
uint64_t drain_waiting(const struct ledger *l); /* records in the rings, not committed */
/* Commits one group of what waits. STORE_OK: all or part of it; else nothing changed. */
enum store_err drain_commit(struct ledger *l);

/* ---- ledger_checkpoint.c ---- */
void checkpoint_mark_account(struct ledger *l, uint32_t index); /* its stored balance is behind */
void checkpoint_mark_key(struct ledger *l, uint32_t index);     /* its stored spending is behind */
void checkpoint_if_much(struct ledger *l);                      /* makes it due at once where much is behind */
enum store_err checkpoint_commit(struct ledger *l);
/* Adds the usage records from l->applied on to mirrors (if balances) and roll-ups; within no transaction. */
enum store_err checkpoint_replay(struct ledger *l, bool balances);

/* ---- ledger_call.c ---- */
struct call {
    struct ledger *l;
    uint32_t id, origin;
    struct json json;
    struct arena *arena;
    struct json_writer *w;   /* the result: one JSON value */
    bool refused, later;     /* later: a reader or a password helper will answer */
    uint8_t http;            /* enum http_shape of ledger_http.h: 0: not HTTP's */
    bool numbers;            /* amounts as JSON numbers, not as texts */
    uint32_t self_id;        /* the account that asks for itself over HTTP; 0: an operator does */
    char code[48], message[400];
};
void call_take(struct ledger *l, uint32_t id, uint32_t origin, struct slice json);
/* The same for work that was put off: fn writes the result of call `id`, or refuses it, and it is answered. */
void call_perform(struct ledger *l, uint32_t id, uint32_t origin, void (*fn)(struct call *c, void *arg), void *arg);
void call_refuse(struct call *c, const char *code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The write that the call needed failed: says so to the caller, and does what the failure asks for. */
void call_store_failed(struct call *c, enum store_err err);
void call_answer(struct ledger *l, uint32_t id, uint32_t origin, struct slice document);
enum arg { ARG_ABSENT, ARG_OK, ARG_BAD /* the call is refused */ };
enum arg call_text(struct call *c, const char *name, size_t max,
                   struct slice *out);                                /* strings, and numbers as their text */
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
bool find_key(struct ledger *l, struct slice text, uint32_t *id);
void jw_amount(struct call *c, int64_t amount);
static inline int ledger_places(const struct ledger *l) { return l->unit_tokens ? 0 : 9; }

void call_account_create(struct call *c);
void call_account_list(struct call *c);
void call_account_show(struct call *c);
void call_account_set(struct call *c);
void call_account_suspend(struct call *c);
void call_account_resume(struct call *c);
void call_key_create(struct call *c);     void call_key_set(struct call *c);       void call_key_show(struct call *c);
void call_key_revoke(struct call *c);     void call_key_list(struct call *c);      void call_key_import(struct call *c);
void call_cap_set(struct call *c);        void call_cap_list(struct call *c);      void call_cap_remove(struct call *c);
void call_credit(struct call *c);         void call_debit(struct call *c);         void call_balance(struct call *c);
void call_usage(struct call *c);          void call_audit(struct call *c);         void call_backup(struct call *c);
void call_names_intern(struct call *c);   void call_ledger_status(struct call *c);

/* ledger_key.c, for others: a key's row and the texts behind it, as they are edited. */
struct key_draft {
    struct row_key row;
    struct slice name, models, shown, last;
    uint32_t id, index; /* index: NO_INDEX: it has no place */
    struct shm_key shape;
};
bool key_draft_load(struct call *c, uint32_t id, struct key_draft *d); /* false: refused */
/* The first key of an account that is being made: begin takes a place (false: refused), write belongs into the
 * account's transaction; then done, or undo. *secret: the whole key. */
bool key_first_begin(struct call *c, uint32_t account, struct key_draft *d, struct slice *secret);
enum store_err key_first_write(struct store *s, struct ledger *l, struct key_draft *d);
void key_first_done(struct ledger *l, struct key_draft *d);
void key_first_undo(struct ledger *l, struct key_draft *d);
/* Commits and publishes it; nothing is written to the call. Once more changes nothing. */
void key_put_revoked(struct call *c, struct key_draft *d);
/* What its owner sees: the key masked, or whole where secret is given. */
void key_write_own(struct call *c, const struct key_draft *d, struct slice secret);
/* Writes {"keys":[…]} of one account, from the key behind `after` on. */
void key_list_own(struct call *c, uint32_t account_id, uint32_t after, uint32_t limit);

/* ledger_cap.c, for others: an account's cap, amount < 0 removes it; nothing is written to the call. */
void cap_put_account(struct call *c, uint32_t account, uint32_t model_id, int64_t amount);

/* ledger_account.c, for others */
/* An account that signs up: the account, its opening credit, its password and its first key are one transaction. */
struct account_opening {
    char email[STORE_EMAIL + 1]; /* normalised, not taken */
    uint32_t tier_id, group_id;
    int64_t credit;
    struct slice password_hash;
    uint32_t index;              /* out */
    struct slice secret;         /* out: the whole key, in the call's arena */
};
bool account_open(struct call *c, struct account_opening *o); /* false: refused */
bool account_row(struct ledger *l, uint32_t index, struct row_account *row, struct slice *email); /* within a read */
/* Changes a committed balance by an entry and moves the word; *entry_id gets its number. Within no transaction. */
struct money_move {
    uint32_t account;       /* index */
    int64_t amount;         /* signed */
    enum entry_kind kind;
    bool force;
    struct slice reason, idempotency_key;
    uint64_t entry;         /* out */
    bool repeated;          /* out: the key was used before; entry is the first one */
};
enum money_outcome { MOVE_OK, MOVE_TOO_MUCH, MOVE_CONFLICT, MOVE_OVERFLOW, MOVE_FAILED /* see *err */ };
enum money_outcome ledger_move(struct ledger *l, struct money_move *m, enum store_err *err);

/* ---- ledger_text.c ---- */
void time_format(char out[40], int64_t time_ms, bool with_ms); /* RFC 3339, UTC */
/* RFC 3339, a date (midnight UTC), or an age before now: 90s 15m 12h 30d 2w. */
bool time_parse(struct slice text, int64_t now_ms, int64_t *out_ms);
bool email_normalise(struct slice text, char out[STORE_EMAIL + 1]);
/* What of a key may be shown: its beginning and its last characters. */
void key_shown(struct slice key, struct slice prefix, struct slice *begin, struct slice *end);

/* ---- ledger_reader.c ---- */
/* Runs fn in a forked child with a database of its own; what it writes is the call's answer. NULL job text: none. */
struct reader_job {
    void (*fn)(struct reader_job *job);
    struct ledger *l;         /* the parent's state at the fork: mirrors may be read, its store not */
    struct store store;       /* the child's, opened read-only (no transaction is open) */
    struct buf out;           /* the result's JSON, or a refusal's code and message */
    bool refused;
    char code[48], message[400];
    uint8_t args[512];
    char text[4096];          /* a path */
    bool verify_words;        /* afterwards, in the ledger: compare the words and add what differs to "differences" */
};
void reader_start(struct call *c, const struct reader_job *job);
bool reader_input(struct ledger *l, int fd); /* the loop: something came from that pipe; false: not a reader's */
void readers_end(struct ledger *l);          /* kills them */
void job_refuse(struct reader_job *job, const char *code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
