/* The configuration as workers see it: one immutable blob in a sealed memfd, offsets instead of pointers.
 *
 * The master builds it from a configuration that is wholly right and sends the descriptor to the workers; each maps it
 * read-only. An exchange keeps the snapshot that admitted it; the last one to leave unmaps it. Models, upstreams, tiers
 * and groups have permanent ids (from the ledger); an index is good within one snapshot only. It holds secrets
 * (provider keys, TLS private keys): never log a snapshot. */
#ifndef TG_SNAPSHOT_H
#define TG_SNAPSHOT_H

#include "proto/base/slice.h"
#include "proto/price.h"
#include "shm/rate.h"

#define SNAP_MAGIC 0x31504e5347544c54ull
enum { SNAP_LAYOUT = 2 };
#define SNAP_NO_LIMIT UINT64_MAX
#define SNAP_NO_AMOUNT INT64_MAX

struct snap_str { uint32_t off, len; };       /* text within the blob, NUL behind it */
struct snap_list { uint32_t off, count; };    /* an array within the blob; element type named beside each field */

enum dialect_id { DIALECT_OPENAI, DIALECT_RESPONSES, DIALECT_ANTHROPIC, DIALECT_GEMINI, DIALECT_ECHO, DIALECT_COUNT };
enum auth_kind { AUTH_BEARER, AUTH_API_KEY, AUTH_X_API_KEY, AUTH_X_GOOG_API_KEY };
enum model_kind { MODEL_CHAT, MODEL_EMBEDDING, MODEL_IMAGE, MODEL_OTHER };
enum listen_kind { LISTEN_TCP, LISTEN_UNIX };
enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct snap_pair { struct snap_str name, value; };

struct snap_listen {
    uint64_t id;             /* hash of address and options: the same listener in two snapshots has the same id */
    struct snap_str address; /* as configured */
    uint32_t tls, proxy_protocol, admin;
};

struct snap_cidr { uint8_t family; /* 4, 6 */ uint8_t bits; uint8_t bytes[16]; };

struct snap_tier {
    uint32_t id;
    struct snap_str name;
    struct rate rpm, tpm, images_rpm; /* limit SNAP_NO_LIMIT: none; burst = limit unless configured */
    uint64_t concurrency;
    struct snap_str models;           /* comma-separated globs; "*" all */
};

struct snap_group {
    uint32_t id;
    struct snap_str name, models;
    uint32_t ratio_millionths;
};

struct snap_ca { uint64_t hash; struct snap_str pem; };

struct snap_upstream {
    uint32_t id;
    struct snap_str name;
    uint32_t dialect;        /* enum dialect_id */
    uint32_t tls;            /* scheme https */
    struct snap_str host;    /* without brackets */
    uint32_t port;
    uint32_t host_is_address;
    struct snap_str host_header; /* host[:port] for the Host field */
    struct snap_str base_path;   /* "/v1", without a trailing slash; may be empty */
    uint32_t auth;           /* enum auth_kind */
    struct snap_list keys;   /* struct snap_str: secrets */
    struct snap_list headers, query; /* struct snap_pair */
    uint32_t ca;             /* index into cas */
    uint32_t tls_max;        /* 12 or 13 */
    uint32_t connect_timeout_ms, first_byte_timeout_ms, idle_timeout_ms;
    uint32_t max_connections, keepalive, retries;
    uint32_t cooldown_ms, probe_ms; /* 0: no probe */
};

struct snap_route {
    uint32_t upstream;       /* index */
    struct snap_str as;      /* model name sent upstream; a family's may hold one '*' for what its own matched */
    uint32_t weight, priority; /* lower priority number first */
    uint32_t series;         /* index into the counters' series */
};

struct snap_image_price { struct snap_str size, quality; /* empty: any */ uint64_t per_million; };

enum model_flags {
    MODEL_FREE = 1,          /* `price free` */
    MODEL_FAMILY = 2,        /* name ends in *, name.len counts without it */
    MODEL_TOOLS = 4, MODEL_VISION = 8, MODEL_REASONING = 16, MODEL_STREAMING = 32
};

struct snap_model {
    uint32_t id;
    struct snap_str name;    /* of a family: the part before the '*' */
    struct snap_str owned_by, provider;
    uint32_t kind, flags;
    struct snap_list routes; /* struct snap_route, by priority */
    struct prices prices;    /* micro-dollars per million; what was not given is filled from its plain side */
    struct prices weights;   /* millionths of a token, where the unit is tokens */
    uint32_t price_given;    /* bit per enum meter: given in the configuration (for the model list) */
    uint64_t max_output, context; /* tokens; 0: none (free models) */
    int64_t call_cap_nano;   /* SNAP_NO_AMOUNT: none */
    int64_t created;
    struct snap_list strip;  /* struct snap_str: members taken out of the request */
    struct snap_list allow;  /* struct snap_str: price-changing members that are let through */
    struct snap_list capabilities; /* struct snap_str: all words of the directive */
    struct snap_str limit_field;   /* max_completion_tokens or max_tokens, or empty: as the client sent it */
    struct snap_list image_prices; /* struct snap_image_price, most specific first */
    uint64_t tool_per_million[TOOL_KINDS]; /* micro-dollars per million uses; 0: free, or not given */
    struct snap_list sizes, qualities; /* struct snap_str */
    struct snap_list budgets;      /* struct snap_pair: reasoning effort → tokens */
    uint32_t n_max, prompt_max;    /* 0: none */
};

/* names and aliases, hash table */
struct snap_name { uint64_t hash; uint32_t model; uint32_t pad; struct snap_str name; };

struct snap {
    uint64_t magic;
    uint32_t layout, pad;
    uint64_t bytes;
    uint64_t generation;     /* grows with each reload */
    int64_t loaded_at_ms;
    struct snap_list listens, tiers, groups, upstreams, models, cas;
    struct snap_list names;  /* struct snap_name, a power of two of places, hash 0: empty */
    struct snap_list families; /* uint32_t: model indices, longest name first */
    struct snap_list trusted_proxies; /* struct snap_cidr */
    struct snap_str certificate_pem, certificate_key_pem;
    struct snap_str cors_origin;    /* empty: no CORS */
    struct snap_str access_log, error_log; /* absolute paths; empty: off (error_log: stderr) */
    uint32_t log_level;
    struct snap_str admin_token;    /* secret; empty: /admin is off. Only the ledger gets it */
    uint64_t max_body;
    uint32_t max_connections, max_active;
    uint32_t client_timeout_ms, keepalive_timeout_ms, drain_timeout_ms, stream_ping_ms;
    uint32_t abort_finish;          /* on_client_abort finish */
    /* brand */
    struct snap_str key_prefix, id_prefix, error_code;
    uint32_t error_detail, upstream_error_status, revoked_key_status, usage_cost, status_upstreams;
    /* billing */
    uint32_t unit_tokens, hold_share_millionths, signup, models_public;
    int64_t signup_credit;          /* in the unit */
    uint32_t signup_tier_id, signup_group_id, signup_rate_per_h;
    struct snap_str jwt_secret;     /* empty: the ledger's own. Only the ledger gets it, not the workers */
    uint64_t jwt_ttl_s;
    uint32_t default_tier, default_group; /* indices */
};

/* Checks magic, layout, size and that every list and string lies within (for a blob that came over a descriptor). */
bool snap_valid(const void *blob, size_t bytes);

static inline struct slice snap_text(const struct snap *s, struct snap_str t) {
    return slice_of((const char *)s + t.off, t.len);
}
#define SNAP_AT(s, list, type, i) (&((const type *)(const void *)((const char *)(s) + (list).off))[i])
#define SNAP_EACH(s, list, type, var) \
    for (const type *var = SNAP_AT(s, list, type, 0), *var##_end = var + (list).count; var < var##_end; var++)

/* As it stands in snap_name; never 0. */
uint64_t snap_name_hash(struct slice name);
/* The model of that name: exact or alias first, then the family with the longest prefix. NULL: none. */
const struct snap_model *snap_find_model(const struct snap *s, struct slice name);
const struct snap_tier *snap_tier_by_id(const struct snap *s, uint32_t id);     /* the default one if unknown */
const struct snap_group *snap_group_by_id(const struct snap *s, uint32_t id);
const struct snap_upstream *snap_upstream_by_id(const struct snap *s, uint32_t id); /* NULL if unknown */
const struct snap_model *snap_model_by_id(const struct snap *s, uint32_t id);
/* Whether a comma-separated list of globs allows the name (same rules as shm_globs_allow). */
bool snap_globs_allow(const struct snap *s, struct snap_str globs, struct slice name);
bool snap_cidr_match(const struct snap *s, struct snap_list cidrs, uint8_t family, const uint8_t *bytes);
/* Price of one picture; false: that size and quality has none. */
bool snap_image_price(const struct snap *s, const struct snap_model *m, struct slice size, struct slice quality,
                      uint64_t *per_million);

#endif
