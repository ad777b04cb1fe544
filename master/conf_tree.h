/* The configuration as parsed: what the files conf_*.c share and nobody else includes.
 *
 * Way of a file: conf_lex.c (bytes → words with positions) → conf_parse.c (words → directives, found in the table of
 * conf_table.c, whose rows know shape, bounds, default and place) → struct conf → conf_check.c (what no single
 * directive can know: unknown upstreams, clashes, what is missing) → conf_print.c (text again) or conf_snapshot.c (the
 * blob for the workers).
 *
 * Memory: everything hangs on conf.pool and goes with it, wiped, because secrets are among it. An allocation that fails
 * leaves by longjmp to conf_load, which frees the pool: so no code here checks for NULL, and none may hold a resource
 * of its own across an allocation. */
#ifndef TG_CONF_TREE_H
#define TG_CONF_TREE_H

#include <setjmp.h>
#include <stdarg.h>
#include "master/conf.h"
#include "proto/base/check.h"

/* ---- memory, positions, errors (conf_base.c) ---- */

struct conf_pool {
    struct conf_chunk *chunks;
    jmp_buf *escape; /* where an allocation that fails goes */
    uint64_t budget; /* allocations until one is made to fail; UINT64_MAX: never. For the tests */
};
/* path as errors show it; folder absolute, for relative paths in it */
struct conf_file {
    const char *path, *folder;
};
/* file NULL: nowhere (not set, a default) */
struct conf_pos {
    const struct conf_file *file;
    uint32_t line, column;
};
/* text NUL-terminated, no NUL inside */
struct conf_word {
    struct conf_pos pos;
    const char *text;
    size_t len;
    uint32_t end_column;
    bool quoted;
};
struct conf_list {
    void **items;
    uint32_t count, cap;
};
#define CONF_EACH(list, type, var) \
    for (uint32_t var##_i = 0; var##_i < (list).count; var##_i++) \
        for (type *var = (list).items[var##_i]; var; var = NULL)

struct conf_error {
    struct conf_pos pos;
    uint32_t order;
    bool warning;
    const char *text;
};

void *conf_alloc(struct conf *c, size_t n); /* zeroed; never NULL */
char *conf_copy(struct conf *c, const char *p, size_t n);
char *conf_format(struct conf *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void conf_add(struct conf *c, struct conf_list *l, void *item);
void conf_pool_wipe(struct conf_pool *p);
void conf_error(struct conf *c, struct conf_pos pos, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void conf_warning(struct conf *c, struct conf_pos pos, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* "on line 8", with the file where it is not `from`. */
const char *conf_at(struct conf *c, struct conf_pos pos, const struct conf_file *from);
bool conf_errors_full(const struct conf *c); /* further ones will not be shown */
/* Writes all, by file and line. */
void conf_report(struct conf *c, FILE *err);
/* path made absolute against the folder of the file it stands in; "." and doubled slashes removed. */
const char *conf_path(struct conf *c, const struct conf_file *in, const char *path);
/* The whole file, NUL-terminated, in the pool; NULL: *why is a sentence. */
char *conf_read_file(struct conf *c, const char *path, size_t max_bytes, size_t *len, const char **why);
void conf_loose_wipe(struct conf *c);
/* Edit distance with transpositions (optimal string alignment). */
unsigned conf_distance(const char *a, const char *b);

/* ---- words (conf_lex.c) ---- */

enum conf_token { TOKEN_WORD, TOKEN_SEMICOLON, TOKEN_OPEN, TOKEN_CLOSE, TOKEN_END, TOKEN_BAD /* reported; go on */ };
struct conf_lexer {
    struct conf *conf;
    const struct conf_file *file;
    const char *at, *end;
    uint32_t line, column;
};
void conf_lex_init(struct conf_lexer *l, struct conf *c, const struct conf_file *file, struct slice text);
enum conf_token conf_lex(struct conf_lexer *l, struct conf_word *out);

/* ---- values (conf_value.c): each returns NULL, or what is wrong with the text ---- */

const char *conf_number(const char *s, uint64_t *out);
const char *conf_size(const char *s, uint64_t *bytes);
const char *conf_time(const char *s, uint64_t *ms);
const char *conf_decimal(const char *s, unsigned decimals, uint64_t *scaled); /* × 10^decimals, exact */
const char *conf_rate_per_h(const char *s, uint64_t *per_h);
void conf_put_size(FILE *out, uint64_t bytes);
void conf_put_time(FILE *out, uint64_t ms);
void conf_put_decimal(FILE *out, uint64_t scaled, unsigned decimals);
void conf_put_word(FILE *out, const char *s); /* bare where that reads back the same, else quoted */

/* host NULL: none; text: canonical */
struct conf_url {
    bool tls, is_address;
    const char *host, *path, *text;
    uint32_t port;
};
const char *conf_url(struct conf *c, const char *s, struct conf_url *out);
/* Canonical "address:port" or "unix:/absolute/path". */
const char *conf_address(struct conf *c, const struct conf_file *in, const char *s, const char **out);
const char *conf_cidr(const char *s, struct snap_cidr *out);
const char *conf_header_name(const char *s); /* what an operator may add to upstream requests */
const char *conf_header_value(const char *s);

/* ---- the tree ---- */

enum conf_kind { CONF_MAIN, CONF_BRAND, CONF_BILLING, CONF_TIER, CONF_GROUP, CONF_UPSTREAM, CONF_MODEL, CONF_KINDS };
enum { CONF_MAX_DIRECTIVES = 40 }; /* in one kind of block */

/* Every block begins with this. */
struct conf_block {
    enum conf_kind kind;
    const char *name;                         /* "" for main, brand and billing */
    struct conf_pos pos;                      /* of its name */
    bool implicit;                            /* not in the file: the tier and group `default`; not printed */
    struct conf_pos set[CONF_MAX_DIRECTIVES]; /* where each directive of the block's table stands */
};

enum conf_secret_kind { SECRET_NONE, SECRET_ENV, SECRET_FILE, SECRET_LITERAL };
struct conf_secret {
    enum conf_secret_kind kind;
    struct conf_pos pos;
    const char *source; /* env:NAME or file:/absolute/path; NULL for a literal */
    const char *value;  /* "" when it could not be read (an error was recorded) */
};
/* a plain value is SECRET_LITERAL */
struct conf_pair {
    struct conf_pos pos;
    const char *name;
    struct conf_secret value;
};
struct conf_listen {
    struct conf_pos pos;
    const char *address;
    bool tls, proxy_protocol, admin;
};
/* path NULL: off, or standard error */
struct conf_log {
    const char *path;
    uint32_t level;
};
struct conf_route {
    struct conf_word upstream;
    const char *as;
    struct conf_pos as_pos;
    uint32_t weight, priority;
    uint32_t index;
};
struct conf_image_price {
    const char *size, *quality;
    uint64_t usd_millionths;
};
struct conf_prices {
    bool free;
    uint32_t given;                    /* bit per enum meter */
    uint64_t per_million[METER_COUNT]; /* as given: USD (tokens) in millionths; METER_IMAGES per picture */
    struct conf_list images;           /* struct conf_image_price */
    uint32_t tools_given;              /* bit per enum tool_kind */
    uint64_t tools[TOOL_KINDS];        /* USD a use in millionths */
};
/* SNAP_NO_LIMIT: none */
struct conf_limit {
    uint64_t limit, burst;
};

struct conf_tier {
    struct conf_block block;
    struct conf_limit rpm, tpm, images_rpm;
    uint64_t concurrency;
    struct conf_list models;
};
struct conf_group {
    struct conf_block block;
    struct conf_list models;
    uint64_t ratio;
};
struct conf_upstream {
    struct conf_block block;
    uint64_t dialect, auth, tls_max; /* enum_words' positions */
    struct conf_url url;
    struct conf_list keys, headers, query; /* struct conf_secret; struct conf_pair */
    const char *ca_file;
    uint32_t ca; /* index into conf.cas; set by the check when it is needed */
    uint64_t connect_timeout_ms, first_byte_timeout_ms, idle_timeout_ms;
    uint64_t max_connections, keepalive, retries, cooldown_ms, probe_ms;
};
struct conf_model {
    struct conf_block block;
    bool family;
    const char *owned_by, *provider;
    uint64_t kind;
    struct conf_list routes; /* struct conf_route */
    struct conf_prices price, tokens;
    uint64_t max_output, context, call_cap_nano, created, limit_field, n_max, prompt_max;
    struct conf_list capabilities, aliases, strip, allow, sizes, qualities; /* struct conf_word */
    struct conf_list budgets;                                               /* struct conf_pair: effort, tokens */
};
struct conf_brand {
    struct conf_block block;
    const char *key_prefix, *id_prefix, *error_code;
    uint64_t error_detail, upstream_error_status, revoked_key_status, usage_cost, status_upstreams;
};
struct conf_billing {
    struct conf_block block;
    uint64_t unit, hold_share, signup, signup_credit_nano, signup_rate_per_h, jwt_ttl_ms, models_public;
    const char *signup_tier, *signup_group;
    struct conf_secret jwt_secret;
};
struct conf_main {
    struct conf_block block;
    uint64_t workers;                          /* 0: auto */
    struct conf_list listens, trusted_proxies; /* struct conf_listen, struct snap_cidr */
    const char *certificate, *certificate_key, *control, *state_dir, *shm_file, *user, *cors_origin;
    struct conf_secret admin_token;
    struct conf_log access_log, error_log;
    uint64_t max_accounts, max_keys, max_active, max_connections, max_body;
    uint64_t client_timeout_ms, keepalive_timeout_ms, drain_timeout_ms, stream_ping_ms, on_client_abort;
};
/* name NULL: an empty place; a family's is not here */
struct conf_name {
    const char *name;
    struct conf_pos pos;
    uint32_t model;
};
struct conf_ca {
    const char *path, *pem;
    size_t len;
    uint64_t hash;
};

struct conf {
    struct conf_pool pool;
    struct conf_list errors;
    uint32_t error_count;
    bool offline; /* the text alone: secrets, certificates and users are not looked up, include is refused (the fuzzer)
                   */
    const struct conf_file *top; /* the file of conf_load */
    struct conf_main main;
    struct conf_brand brand;
    struct conf_billing billing;
    struct conf_list tiers, groups, upstreams, models;
    struct conf_name *names; /* every model's name and alias: open addressing, names_mask + 1 places */
    uint32_t names_mask;
    struct conf_list cas;                              /* struct conf_ca */
    const char *certificate_pem, *certificate_key_pem; /* NULL: none */
    struct conf_server server;
    char *loose; /* a file just read, on its way into the pool */
    size_t loose_bytes;
    void *outer; /* struct conf_includes: the files being read, while conf_parse.c runs */
};

/* ---- the table (conf_table.c) ---- */

struct conf_directive;
struct conf_args {
    struct conf *conf;
    struct conf_block *block;
    const struct conf_directive *directive;
    const struct conf_word *at;
    uint32_t count;
    struct conf_pos pos; /* of the directive's name */
};

enum conf_shape {
    SHAPE_FLAG,    /* on, off → uint64_t */
    SHAPE_COUNT,   /* whole number, min…max → uint64_t */
    SHAPE_SIZE,    /* bytes → uint64_t */
    SHAPE_TIME,    /* milliseconds → uint64_t */
    SHAPE_RATIO,   /* decimal in millionths → uint64_t */
    SHAPE_NANO,    /* decimal in 10^-9 → uint64_t */
    SHAPE_PER_H,   /* 5/h, 10/m → uint64_t an hour */
    SHAPE_LIMIT,   /* N [burst M] → struct conf_limit */
    SHAPE_ENUM,    /* one of `words` → its position, uint64_t */
    SHAPE_TEXT,    /* one word → const char * */
    SHAPE_PATH,    /* one word, made absolute → const char * */
    SHAPE_SECRET,  /* env:, file:, literal → struct conf_secret */
    SHAPE_SECRETS, /* the same, repeated → list of struct conf_secret */
    SHAPE_WORDS,   /* any number of words, one at least, each once → list of struct conf_word */
    SHAPE_GLOBS,   /* the same, of model globs; also separated by commas */
    SHAPE_OTHER    /* `set` and `print` know */
};

struct conf_directive {
    const char *name;
    const char *args; /* what it takes, for people: "SIZE", "NAME [weight N]" */
    enum conf_shape shape;
    size_t offset;     /* of its field in the block's struct */
    uint64_t min, max; /* SHAPE_COUNT, SIZE, TIME, RATIO, NANO, PER_H, LIMIT: bounds of the number; SHAPE_OTHER: of the
                          number of arguments */
    const char *words; /* SHAPE_ENUM: the words, separated by spaces */
    const char *initial;              /* the default as it would be written; NULL: none (zero, empty) */
    bool repeat;                      /* may stand more than once */
    void (*set)(struct conf_args *a); /* SHAPE_OTHER */
    void (*print)(const struct conf_directive *d, const void *block, FILE *out); /* SHAPE_OTHER: whole lines */
    const char *(*check)(
        const char *value); /* SHAPE_TEXT, SECRET, SECRETS, WORDS: what is wrong with a value; NULL: any will do */
};
struct conf_block_info {
    const char *name;
    bool named;
    const struct conf_directive *directives;
    uint32_t count;
    size_t bytes;
};
extern const struct conf_block_info conf_blocks[CONF_KINDS];

const struct conf_directive *conf_find(enum conf_kind kind, const char *name); /* NULL: unknown there */
/* Where the directive stands in that block; pos.file NULL: it does not. */
struct conf_pos conf_where(const struct conf_block *b, const char *name);
/* Fills the block's fields with the table's defaults. */
void conf_block_init(struct conf *c, struct conf_block *b, enum conf_kind kind, const char *name, struct conf_pos pos);
void conf_set(struct conf_args *a); /* one directive by its shape (conf_set.c) */
void conf_set_secret(struct conf *c, const struct conf_word *w, struct conf_secret *out,
                     const char *(*check)(const char *));
const char *conf_enum_word(const struct conf_directive *d, uint64_t value, char buf[32]);
void conf_print_secret(
    FILE *out, const struct conf_secret *s); /* its source, `;` and the line's end; never the value of a literal */
const char *conf_name(const char *s);        /* of an upstream, a tier, a group */
const char *conf_model_name(const char *s, bool family);
extern const char *const conf_meter_names[METER_COUNT];

/* conf_model.c: the directives of a model with a grammar of their own. */
void conf_set_route(struct conf_args *a);
void conf_print_route(const struct conf_directive *d, const void *block, FILE *out);
void conf_set_price(struct conf_args *a);
void conf_print_price(const struct conf_directive *d, const void *block, FILE *out);
void conf_set_budgets(struct conf_args *a);
void conf_print_budgets(const struct conf_directive *d, const void *block, FILE *out);

/* conf_check.c: what was not given costs as its plain side does; micro-dollars (millionths of a token) per million. */
void conf_prices_fill(const struct conf_model *m, struct prices *usd, struct prices *weights);
struct conf_upstream *conf_upstream_named(const struct conf *c, const char *name, uint32_t *index); /* NULL: unknown */

/* conf_parse.c: path's statements into c->main and the lists. */
void conf_parse(struct conf *c, const struct conf_file *file, struct slice text);
void conf_includes_close(struct conf *c);
/* conf_check.c: what no single directive knows; fills conf.server, cas, certificates. */
void conf_check(struct conf *c);

/* A configuration from memory, nothing outside it touched. name: as errors show it. */
struct conf *conf_load_text(const char *name, struct slice text, FILE *err);
/* As conf_load; the allocation after `budget` others fails. For the tests. */
struct conf *conf_load_budget(const char *path, FILE *err, uint64_t budget);

#endif
