/* The state of the ledger process, and what works on it. README.md says which file does what.
 *
 * The mirrors hold every account's and key's committed state by table index, so that nothing between raise and fall
 * of a pause, and nothing while records are drained, reads the database. */
#ifndef TG_LEDGER_H
#define TG_LEDGER_H

#include "master/conf.h"
#include "master/ledger/entry.h"
#include "master/ledger/rollups.h"
#include "proto/base/check.h"
#include "proto/base/crypto.h"
#include "shm/ipc_io.h"
#include "shm/recover.h"
#include "shm/snapshot.h"

#define NO_INDEX UINT32_MAX
enum { NAME_KINDS = NAME_GROUP + 1 };

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

enum alert_kind { ALERT_DISK, ALERT_QUARANTINE, ALERT_KINDS };

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
    struct group *group;            /* drain.c */
    uint64_t pending_since_ns;      /* when the oldest uncommitted record was first seen; 0: none */
    uint64_t retry_ns;              /* after a full disk: not before */
    uint64_t sleep_after_ns;        /* nothing came until then: sleep */
    int64_t last_committed_ms;      /* of the newest block: blocks' times never fall */
    int64_t late_ms; /* how long before its commit a record may have ended, at most (for searches by time) */

    uint32_t *dirty_accounts, *dirty_keys, dirty_account_count, dirty_key_count;
    struct rollups rollups;         /* since the last checkpoint */
    uint64_t applied;               /* usage records below this id are in the stored balances and roll-ups */
    uint64_t checkpoint_ns;         /* when the next is due; 0: nothing is dirty */

    struct reader *readers;         /* reader.c: running and waiting */
    uint32_t reader_count, reader_waiting;
    struct passwords *passwords;    /* password.c; NULL: none was needed yet */
    struct auth *auth;              /* auth.c; likewise */
    struct { uint64_t records, quarantined, commit_failures, checkpoints; } count;
    uint64_t alerted_ns[ALERT_KINDS]; /* when it was last said */
    uint64_t readers_checked_ns;
};

/* ---- ledger.c ---- */
bool ledger_setup(struct ledger *l, const struct ledger_heritage *h, const struct store_options *o);
void ledger_close(struct ledger *l);
/* One turn of the loop: frames, records, due work; sleeps at most max_wait_ms. false: it is to end. */
bool ledger_turn(struct ledger *l, int max_wait_ms);
void ledger_alert(struct ledger *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* May one of this kind be said again? Notes that it is: at most every ten seconds. */
bool ledger_alert_due(struct ledger *l, enum alert_kind kind);
/* A write failed for good or for now: sets shed, alerts, ends the process where it must. */
void ledger_store_failed(struct ledger *l, enum store_err err);
uint64_t ledger_now_ns(void);
int64_t ledger_wall_ms(void);
int ledger_take_conf(struct ledger *l, int fd, size_t bytes);

/* ---- meta.c ---- */
/* Makes it in a new database; else takes where the numbers stand, and the names. err: a sentence. */
enum store_err ledger_meta_load(struct ledger *l, char *err, size_t err_len);
/* The unit is the deployment's for ever: an amount stored in one means nothing in the other. STORE_NONE: l->conf has
 * another; else why it cannot be read. */
enum store_err ledger_meta_unit(struct ledger *l);

/* ---- names.c ---- */
enum store_err ledger_names_load(struct ledger *l); /* within a read */
void ledger_names_free(struct ledger *l);
const char *ledger_name(const struct ledger *l, enum name_kind kind, uint32_t id); /* "" if unknown */
uint32_t ledger_name_id(const struct ledger *l, enum name_kind kind, struct slice name); /* 0: unknown */

/* ---- load.c ---- */
bool ledger_load(struct ledger *l, char *err, size_t err_len); /* mirrors, tables, replay, words. err: a sentence */
void ledger_unload(struct ledger *l);

/* ---- place.c ---- */
uint32_t ledger_account_index(const struct ledger *l, uint32_t id); /* NO_INDEX: none */
uint32_t ledger_key_index(const struct ledger *l, uint32_t id);
uint32_t ledger_account_place(struct ledger *l, uint32_t id); /* a place for a new one; NO_INDEX: full */
uint32_t ledger_key_place(struct ledger *l, uint32_t id);
void ledger_account_forget(struct ledger *l, uint32_t index); /* the place is free again: nobody has seen it there */
void ledger_key_forget(struct ledger *l, uint32_t index);     /* the same, also of one that was published */
/* At a start: gives accounts and keys that exist the places that the segment's tables name, and clears the rest of the
 * tables. false: no memory. */
bool ledger_places_keep(struct ledger *l);

/* ---- models.c ---- */
uint32_t models_place(struct ledger *l, struct slice models); /* where the list stands in shared memory; 0: no room */

/* ---- drain.c ---- */
bool drain_init(struct ledger *l);
void drain_free(struct ledger *l);
uint64_t drain_waiting(const struct ledger *l); /* records in the rings, not committed */
/* Commits one group of what waits. STORE_OK: all or part of it; else nothing changed. */
enum store_err drain_commit(struct ledger *l);

/* ---- checkpoint.c ---- */
void checkpoint_mark_account(struct ledger *l, uint32_t index); /* its stored balance is behind */
void checkpoint_mark_key(struct ledger *l, uint32_t index);     /* its stored spending is behind */
void checkpoint_if_much(struct ledger *l);                      /* makes it due at once where much is behind */
enum store_err checkpoint_commit(struct ledger *l);
/* Adds the usage records from l->applied on to mirrors (if balances) and roll-ups; within no transaction. */
enum store_err checkpoint_replay(struct ledger *l, bool balances);

#endif
