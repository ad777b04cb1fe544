/* The shared memory of one deployment: the segment, its tables, and who may write what.
 *
 * One named file on tmpfs, allocated at its full size, survives the death of every process. Everything in it is of
 * fixed size, indexed, without pointers, locks or secrets. Two regions: `ro` is written by master and ledger and mapped
 * read-only by workers (through a read-only descriptor, so that mprotect cannot undo it); `rw` is written by all. Two
 * writers never share a cache line. Terms: an *index* is a place in a table, valid within the segment; an *id* is a
 * number the ledger assigned for ever. */
#ifndef TG_SHM_H
#define TG_SHM_H

#include <stdatomic.h>
#include <sys/types.h>
#include "proto/base/slice.h"
#include "proto/price.h"

enum {
    SHM_LAYOUT = 3,         /* raise with every change of a struct here or of its meaning */
    SHM_MAX_UPSTREAMS = 256,
    SHM_MAX_UPSTREAM_KEYS = 16,
    SHM_MAX_ADDRESSES = 16, /* of one upstream name */
    SHM_MAX_SERIES = 1024,  /* (model, upstream) pairs with counters of their own */
    SHM_MAX_RANGES = 1024,
    SHM_MAX_ACTIVE = 1 << 20,
    SHM_TEXT_BUCKETS = 4096,
    SHM_REQUEST_ID = 128,
    SHM_MODEL_NAME = 96
};

/* ---- read-only to workers ---------------------------------------------------------------------------------------- */

struct shm_header {
    uint64_t magic; /* magic, layout, boot_id and settled keep their places in every layout (shm_open_segment) */
    uint32_t layout, max_accounts, max_keys, max_active, max_ranges, ring_size;
    uint64_t bytes;
    char boot_id[40];
    uint64_t segment_id;          /* random: names this segment in the ledger's watermarks */
    uint64_t ledger_id;           /* of the LMDB environment that this segment caches */
    uint64_t mono_base_ns;        /* CLOCK_MONOTONIC when the segment was made: origin of the rate words */
    _Atomic uint32_t settled;     /* 1: a server ended and left nothing in rings and slots */
    /* the pause (see recover.h): monotonic epoch, odd while raised; a futex */
    _Alignas(64) _Atomic uint32_t pause;
    _Atomic uint32_t probe;       /* asks every worker to show that it turns, without stopping any */
    /* what the ledger tells the world, once a turn */
    _Alignas(64) _Atomic uint64_t commits;
    _Atomic uint64_t ledger_turn_ns;     /* CLOCK_MONOTONIC at the top of its loop */
    _Atomic uint64_t oldest_pending_ns;  /* age origin of the oldest uncommitted record it saw; 0: none */
    _Atomic uint32_t shed;               /* enum shm_shed: why new billable work is refused; 0: it is not */
    _Atomic uint32_t draining;           /* master: the whole server drains (readyz) */
    _Atomic uint64_t commit_ns_last, commit_ns_max;
    _Atomic uint64_t credits_epoch;      /* grows with each change the ledger published to the ro tables */
    _Alignas(64) _Atomic uint32_t touched_count; /* rule 11: accounts with a credit or debit half done */
    uint32_t touched_account[8];
    uint32_t touched_key[8];             /* UINT32_MAX: none */
    _Alignas(64) uint32_t text_used;     /* where the next text goes, in the half of the pool that is in use */
    _Atomic uint32_t moves; /* odd while entries of a hash table move: a miss is looked for again (tables.c) */
    uint64_t text_turned_ns; /* CLOCK_MONOTONIC when the other half of the text pool was begun; 0: never */
};
enum shm_shed { SHED_NO, SHED_LEDGER_STUCK, SHED_DISK_FULL, SHED_LEDGER_FAILED, SHED_STARTING };

enum key_status { KEY_NONE, KEY_ACTIVE, KEY_REVOKED };
enum account_status { ACCOUNT_NONE, ACCOUNT_ACTIVE, ACCOUNT_SUSPENDED };
#define LIMIT_OF_TIER UINT64_MAX /* the key sets none of its own: the tier's counts */

/* Written by the ledger alone, under `version` (odd while it writes). Readers copy by shm_key_read. */
struct shm_key {
    _Atomic uint32_t version;
    uint32_t status;         /* enum key_status */
    uint32_t id;             /* of the key: key_<id> */
    uint32_t account;        /* index */
    uint8_t hash[32];        /* HMAC-SHA256 of the key under the pepper */
    int64_t expires_at_s;    /* epoch; 0: never */
    uint64_t rpm, tpm;       /* LIMIT_OF_TIER or a limit a minute; 0 is a limit of nothing */
    uint64_t concurrency;
    uint32_t capped;         /* 1: has a spending limit, shm_key_words.available counts */
    uint32_t models;         /* offset of its model globs in the text pool; 0: no list of its own */
};

struct shm_account {
    _Atomic uint32_t version;
    uint32_t status;         /* enum account_status */
    uint32_t id;             /* acct_<id> */
    uint32_t tier_id, group_id;
    uint32_t has_caps;       /* 1: the cap table has entries for it or one of its keys */
};

/* A cost cap per call: who is an account or a key. Open-addressed; written by the ledger; empty: model_id 0. */
struct shm_cap {
    _Atomic uint32_t version;
    uint32_t model_id;
    uint32_t who;            /* account index, or key index | SHM_CAP_KEY */
    uint32_t pad;
    int64_t amount;          /* in the unit */
};
#define SHM_CAP_KEY 0x80000000u

/* Addresses of an upstream's host, written by the master from what its resolver answers. */
struct shm_addresses {
    _Atomic uint32_t version;
    uint32_t count;
    uint64_t resolved_at_ns;
    struct shm_address { uint8_t family; /* 4, 6 */ uint8_t bytes[16]; } address[SHM_MAX_ADDRESSES];
};

/* ---- written by workers too -------------------------------------------------------------------------------------- */

struct shm_account_words {
    _Alignas(64) _Atomic int64_t available; /* nano-dollars or tokens: committed − charges in rings − holds */
};

struct shm_key_words {
    _Alignas(64) _Atomic int64_t available; /* of the key's own limit, if capped */
    _Atomic int64_t concurrency;            /* exchanges now */
    _Atomic uint64_t rpm_tat, tpm_tat, images_tat; /* GCRA words: see rate.h */
    _Atomic uint64_t last_used_s;           /* epoch */
};

enum slot_state { SLOT_FREE, SLOT_PREP, SLOT_HELD };
#define SLOT_SEQ_NONE UINT64_MAX

/* Who and what an exchange is: stored in the slot at admission, copied into the usage record, settled from when its
 * worker died. */
struct shm_usage {
    uint64_t exchange_id;
    uint32_t account, key;         /* indices */
    uint32_t account_id, key_id;
    uint32_t model_id, upstream_id; /* upstream_id: of the last attempt; 0 none yet */
    uint32_t capped;               /* the key's own limit is held and charged too */
    uint8_t dialect, stream, unit_tokens, pad;
    int64_t started_at_ms;         /* epoch */
    uint64_t prompt_tokens;        /* estimate: ⌈prompt bytes / 4⌉ */
    uint64_t price_input, price_output; /* per million, in the unit's scale (prices or weights), for estimates */
    uint32_t ratio_millionths;
    uint16_t request_id_len, model_len;
    char request_id[SHM_REQUEST_ID];
    char model[SHM_MODEL_NAME];    /* as the client named it (cut) */
};

struct shm_slot {
    _Alignas(64) _Atomic uint32_t state;    /* enum slot_state */
    _Atomic uint32_t delivered;             /* 1: something of the answer was (about to be) written to the client */
    _Atomic int64_t hold;                   /* never more than what was taken from the words */
    _Atomic uint64_t delivered_bytes;       /* of answer text, stored before the write */
    _Atomic uint64_t seq;                   /* ring head at which its record is pushed; SLOT_SEQ_NONE before */
    _Alignas(64) struct shm_usage usage;
};

enum record_flags {
    RECORD_ESTIMATED = 1,
    RECORD_CLIENT_GONE = 2,
    RECORD_DEAD_WORKER = 4,
    RECORD_UPSTREAM_FAILED = 8,
    RECORD_CUT = 16
};

/* A finished exchange, on its way to the ledger. */
struct shm_record {
    _Alignas(64) uint64_t seq;     /* its place: ring head when pushed */
    int64_t charge;                /* what it costs the account, in the unit; what the words lost */
    int64_t uncollected;           /* cost beyond the charge */
    int64_t cost_usd_nano; /* the same cost in nano-dollars (equal to charge + uncollected where the unit is usd) */
    struct meters meters;
    uint32_t status;               /* HTTP status sent to the client */
    uint32_t flags;                /* enum record_flags */
    uint32_t ttfb_ms, duration_ms;
    int64_t ended_at_us;           /* epoch; so fine that one answer and the next call of its client differ */
    uint32_t checksum;             /* crc32c of all before it and of usage */
    uint32_t pad;
    struct shm_usage usage;
};

enum range_state { RANGE_CLEAN, RANGE_LIVE, RANGE_DEAD };
#define RANGE_IDLE UINT32_MAX      /* in ack: asleep in epoll, counts as acknowledged */

/* What one worker owns. state: master (LIVE at fork, DEAD after waitpid), ledger (CLEAN). */
struct shm_range {
    _Alignas(64) _Atomic uint32_t state;
    _Atomic uint32_t pid, generation;
    _Atomic uint32_t retiring;              /* drains: takes no new connections */
    _Alignas(64) _Atomic uint32_t ack;      /* worker: last pause epoch seen, or RANGE_IDLE */
    _Atomic uint32_t probe_ack;
    _Atomic uint64_t turn_ns;               /* worker: CLOCK_MONOTONIC at the top of its loop: the heartbeat */
    _Atomic uint64_t next_exchange_id;      /* never reused; survives the worker */
    _Atomic uint32_t connections, active;   /* load, for the accept gate */
    _Atomic uint32_t slots_used; /* slots from here on were never in use since the range was clean: not looked at */
    _Alignas(64) _Atomic uint64_t head;     /* worker (ledger when the worker is dead) */
    _Alignas(64) _Atomic uint64_t tail;     /* ledger, after the commit */
    _Alignas(64) char last_words[256];      /* a failed assertion's text */
};

enum circuit { CIRCUIT_CLOSED, CIRCUIT_OPEN, CIRCUIT_HALF_OPEN };

/* One upstream, by its permanent id. What one worker learns, all know. */
struct shm_upstream {
    _Alignas(64) _Atomic uint32_t circuit;          /* enum circuit */
    _Atomic uint32_t failures;                      /* in a row */
    _Atomic uint64_t open_until_ns;                 /* CLOCK_MONOTONIC */
    _Atomic uint64_t half_open_until_ns;            /* a probe is under way until then */
    _Atomic uint64_t last_success_ns, last_failure_ns, latency_us; /* latency: moving average to first byte */
    _Atomic uint32_t drained;                       /* by tollctl */
    _Atomic uint32_t unreachable;                   /* the last attempt to connect failed */
    _Atomic uint64_t probe_ns; /* CLOCK_MONOTONIC: the last health check; who moves it on makes the next */
    _Alignas(64) _Atomic uint64_t key_until_ns[SHM_MAX_UPSTREAM_KEYS]; /* each provider key's cool-down */
};

struct shm_shared {
    _Alignas(64) _Atomic uint32_t
        ledger_asleep; /* 1: whoever pushes a record must wake it (exchange to 0, then eventfd) */
};

/* ---- the handle (process-private) -------------------------------------------------------------------------------- */

struct shm_sizes { uint32_t max_accounts, max_keys, max_active, max_ranges; };

struct shm {
    struct shm_header *header;          /* const to workers by mapping */
    struct shm_key *keys;
    _Atomic uint32_t *key_index;        /* open addressing, key_mask + 1 places; 0 empty, else key index + 1 */
    uint32_t key_mask;
    struct shm_account *accounts;
    struct shm_cap *caps; uint32_t cap_mask;
    char *text; uint32_t text_bytes;    /* pool: NUL-terminated, comma-separated globs; [0] is "" */
    uint32_t *text_index;               /* SHM_TEXT_BUCKETS chains through the pool, ledger only */
    struct shm_addresses *addresses;    /* by upstream id */

    struct shm_shared *shared;
    struct shm_account_words *account_words;
    struct shm_key_words *key_words;
    struct shm_range *ranges;
    struct shm_slot *slots;             /* max_ranges × max_active */
    struct shm_record *records;         /* max_ranges × ring_size */
    struct shm_upstream *upstreams;     /* by id */
    struct counters *counters;          /* a stripe a range, see counters.h */
    struct series *series;              /* max_ranges × SHM_MAX_SERIES */

    void *ro_map, *rw_map; size_t ro_bytes, rw_bytes;
};

/* Bytes the segment takes; `tollgate -t` prints it. */
size_t shm_bytes(const struct shm_sizes *sizes);
/* Makes (posix_fallocate, 0600) or attaches the file at path, everything writable: for the master before it forks;
 * children inherit. Attaches when layout, boot id and sizes agree, else makes it anew; *fresh tells. One of another
 * layout that is not settled may hold what only the version that made it can book: -EBUSY. 0, or -errno with
 * a sentence in err. *rw_fd and *ro_fd are two descriptors of it, the second opened O_RDONLY. */
int shm_open_segment(struct shm *s, const char *path, const struct shm_sizes *sizes, int *rw_fd, int *ro_fd,
                     bool *fresh, char *err, size_t err_len);
/* Maps a segment that is in use, through a descriptor of it that was kept over an exec: nothing in it changes. 0 or
 * -errno (another layout). */
int shm_attach(struct shm *s, int rw_fd);
/* In a worker after fork: the ro region again through ro_fd, read-only; the writable mapping of it goes. */
int shm_drop_writable(struct shm *s, int ro_fd);
void shm_close(struct shm *s);
/* At a server's end: notes whether rings and slots are empty. */
void shm_note_settled(struct shm *s);
/* What lies at path: true, and its sizes, if it is a whole segment of this boot and this layout. A cold start with
 * other sizes opens it with these first and has the ledger drain it (recover_cold, then commit the rings):
 * shm_open_segment with other sizes replaces it. */
bool shm_peek(const char *path, struct shm_sizes *sizes);

static inline struct shm_slot *shm_slot(const struct shm *s, uint32_t range, uint32_t i) {
    return &s->slots[(size_t)range * s->header->max_active + i];
}
/* How many of a range's slots are worth looking at. */
static inline uint32_t shm_slots_used(const struct shm *s, uint32_t range) {
    uint32_t n = atomic_load_explicit(&s->ranges[range].slots_used, memory_order_acquire);
    return n < s->header->max_active ? n : s->header->max_active;
}
static inline struct shm_record *shm_ring(const struct shm *s, uint32_t range, uint64_t seq) {
    return &s->records[(size_t)range * s->header->ring_size + (seq & (s->header->ring_size - 1))];
}

/* A record's checksum: its fixed part and the used lengths of its names. Whoever pushes stores it, the ledger compares.
 */
uint32_t shm_record_checksum(const struct shm_record *r);
/* Copies a usage: the fixed part and only so much of the names as is used (what is behind stays as it was, and means
 * nothing). */
void shm_usage_copy(struct shm_usage *to, const struct shm_usage *from);

/* Tables that the ledger publishes (tables.c). Writers: the ledger alone. */
bool shm_key_find(const struct shm *s, const uint8_t hash[32], uint32_t *index);
bool shm_key_read(const struct shm *s, uint32_t index, struct shm_key *out); /* a consistent copy; false: none there */
bool shm_account_read(const struct shm *s, uint32_t index, struct shm_account *out);
bool shm_key_publish(struct shm *s, uint32_t index,
                     const struct shm_key *k);      /* inserts into the hash index when new; false: table full */
void shm_key_remove(struct shm *s, uint32_t index); /* out of the hash index; the place may be used again */
void shm_account_publish(struct shm *s, uint32_t index, const struct shm_account *a);
bool shm_cap_find(const struct shm *s, uint32_t who, uint32_t model_id, int64_t *amount);
bool shm_cap_publish(struct shm *s, uint32_t who, uint32_t model_id, int64_t amount); /* amount < 0 removes */
/* Interns a comma-separated list of globs; 0: the pool is full (or the list is empty). A list that is not empty and
 * gets 0 must not be published: 0 in a key means that it has no list of its own. Equal lists are stored once. */
uint32_t shm_text_intern(struct shm *s, struct slice text);
/* Begins the other half of the pool: whoever publishes lists interns those that are in use anew and publishes them
 * before the next turn, which overwrites the half that was in use until now. */
void shm_text_turn(struct shm *s, uint64_t now_ns);
static inline const char *shm_text(const struct shm *s, uint32_t off) { return s->text + off; }
/* Whether a comma-separated list of globs (as in shm_text) allows the name. An empty list restricts nothing. */
bool shm_globs_allow(const char *globs, struct slice name);
void shm_addresses_publish(struct shm *s, uint32_t upstream_id, const struct shm_address *a, uint32_t n,
                           uint64_t now_ns);
bool shm_addresses_read(const struct shm *s, uint32_t upstream_id, struct shm_addresses *out);

#endif
