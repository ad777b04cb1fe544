/* The table of directives: everything gateway.conf may hold. It drives parsing, the bounds and defaults, what an error
 * suggests, and printing; nothing else lists directives.
 *
 * How to add a directive
 *   1. a field in the block's struct (conf_tree.h): uint64_t for numbers, flags and enums, const char * for texts;
 *   2. a row here: name, what it takes, shape, field, bounds, default. A grammar of its own: SHAPE_OTHER with set and
 * print;
 *   3. what it means together with others: conf_check.c. If it cannot change while running: conf_can_follow (conf.c);
 *   4. if workers or the ledger need it: a field in shm/snapshot.h (raise SNAP_LAYOUT), a line in conf_snapshot.c, and
 * for a string or a list a line in snap_valid (shm/snapshot.c);
 *   5. gateway.conf.example (a test fails while it is missing there) and a case in tests/conf/good (and bad, for each
 * new error). */
#include "master/conf_tree.h"

#include <arpa/inet.h>
#include <inttypes.h>

/* ---- checks of single words ---- */

#define ALNUM "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

static const char *check_key_prefix(const char *s) {
    return strlen(s) <= 32 && strspn(s, ALNUM "_-") == strlen(s) ? NULL
                                                                 : "a key prefix is up to 32 letters, digits, _ and -";
}
static const char *check_id_prefix(const char *s) {
    return strlen(s) <= 32 && strspn(s, ALNUM "_.-") == strlen(s)
               ? NULL
               : "an id prefix is up to 32 letters, digits, _, . and -";
}
static const char *check_error_code(const char *s) {
    const char *percent = strchr(s, '%');
    if (!*s) return NULL;
    if (!percent || percent[1] != 'd' || strchr(percent + 1, '%') || strlen(s) > 32)
        return "an error code holds %d once, like HJL-%d";
    return strspn(s, ALNUM "_.-%") == strlen(s) ? NULL : "an error code is of letters, digits, _, . and -";
}
static const char *check_origin(const char *s) {
    const char *at = strncmp(s, "https://", 8) == 0 ? s + 8 : strncmp(s, "http://", 7) == 0 ? s + 7 : NULL;
    if (strcmp(s, "*") == 0) return NULL;
    return at && *at && strspn(at, ALNUM "-._:[]") == strlen(at)
               ? NULL
               : "an origin is expected, like https://app.example.com, or *";
}
static const char *check_visible(const char *s) {
    for (; *s; s++)
        if ((uint8_t)*s <= 0x20 || (uint8_t)*s >= 0x7f) return "a key may hold visible ASCII characters only";
    return NULL;
}
static const char *check_text(const char *s) {
    for (; *s; s++)
        if ((uint8_t)*s < 0x20) return "no control character may stand here";
    return NULL;
}
static const char *check_query(const char *s) { /* goes out as it is (RFC 3986, 3.4) */
    for (; *s; s++)
        if (!strchr(ALNUM "-._~!$'()*,;:@/?%+", *s)) return "this must be percent-encoded";
    return NULL;
}
const char *conf_name(const char *s) {
    return *s && strlen(s) <= 64 && strspn(s, ALNUM "_.-") == strlen(s)
               ? NULL
               : "a name is up to 64 letters, digits, _, . and -";
}
const char *conf_model_name(const char *s, bool family) {
    size_t n = strlen(s), plain = strspn(s, ALNUM "_.-/:@+~");
    if (n > 128) return "a model's name has 128 characters at most";
    if (family && n && s[n - 1] == '*') n--;
    else if (!n) return "a name is expected";
    return plain == n ? NULL
           : family   ? "a model's name is of letters, digits and _.-/:@+~, and may end in * for a family"
                      : "a name here is of letters, digits and _.-/:@+~";
}
static const char *check_alias(const char *s) { return conf_model_name(s, false); }
static const char *check_file_path(const char *s) { return s[strlen(s) - 1] == '/' ? "this is a folder" : NULL; }

/* ---- main ---- */

static void set_workers(struct conf_args *a) {
    uint64_t n = 0;
    const char *bad = strcmp(a->at[0].text, "auto") == 0 ? NULL : conf_number(a->at[0].text, &n);
    if (bad || (n == 0 && strcmp(a->at[0].text, "auto") != 0) || n > 256)
        conf_error(a->conf, a->at[0].pos, "`%s`: auto or 1 to 256 is expected", a->at[0].text);
    else ((struct conf_main *)a->block)->workers = n;
}
static void print_workers(const struct conf_directive *d, const void *block, FILE *out) {
    const struct conf_main *m = block;
    if (m->workers) fprintf(out, "%s %" PRIu64 ";\n", d->name, m->workers);
    else fprintf(out, "%s auto;\n", d->name);
}

static void set_listen(struct conf_args *a) {
    struct conf_main *m = (struct conf_main *)a->block;
    struct conf_listen *l = conf_alloc(a->conf, sizeof *l);
    l->pos = a->at[0].pos;
    l->admin = strcmp(a->directive->name, "admin_listen") == 0;
    const char *bad = conf_address(a->conf, a->at[0].pos.file, a->at[0].text, &l->address);
    if (bad) {
        conf_error(a->conf, l->pos, "`%s`: %s", a->at[0].text, bad);
        return;
    }
    for (uint32_t i = 1; i < a->count; i++) {
        const struct conf_word *w = &a->at[i];
        bool *option = strcmp(w->text, "tls") == 0              ? &l->tls
                       : strcmp(w->text, "proxy_protocol") == 0 ? &l->proxy_protocol
                                                                : NULL;
        if (!option) conf_error(a->conf, w->pos, "`%s`: an option of listen is tls or proxy_protocol", w->text);
        else if (*option) conf_error(a->conf, w->pos, "`%s` stands twice", w->text);
        else *option = true;
    }
    CONF_EACH(m->listens, struct conf_listen, other)
        if (strcmp(other->address, l->address) == 0) {
            conf_error(a->conf, l->pos, "%s already stands %s", l->address, conf_at(a->conf, other->pos, l->pos.file));
            return;
        }
    conf_add(a->conf, &m->listens, l);
}
static void print_listen(const struct conf_directive *d, const void *block, FILE *out) {
    bool admin = strcmp(d->name, "admin_listen") == 0;
    CONF_EACH(((const struct conf_main *)block)->listens, const struct conf_listen, l) {
        if (l->admin != admin || !l->pos.file) continue;
        fprintf(out, "%s ", d->name);
        conf_put_word(out, l->address);
        fprintf(out, "%s%s;\n", l->tls ? " tls" : "", l->proxy_protocol ? " proxy_protocol" : "");
    }
}

#define LEVELS "error warn info debug" /* as enum log_level */
static void set_log(struct conf_args *a) {
    struct conf_log *l = (void *)((char *)a->block + a->directive->offset);
    bool access = strcmp(a->directive->name, "access_log") == 0;
    if (access && strcmp(a->at[0].text, "off") == 0) {
        l->path = NULL;
        return;
    }
    if (!access && strcmp(a->at[0].text, "stderr") == 0) l->path = NULL;
    else if (!*a->at[0].text || check_file_path(a->at[0].text)) {
        conf_error(a->conf, a->at[0].pos, "a path is expected");
        return;
    } else l->path = conf_path(a->conf, a->at[0].pos.file, a->at[0].text);
    if (a->count == 1) return;
    static const char *const levels[] = { "error", "warn", "info", "debug" };
    for (uint32_t i = 0; i < ARRAY_LEN(levels); i++)
        if (strcmp(levels[i], a->at[1].text) == 0) {
            l->level = i;
            return;
        }
    conf_error(a->conf, a->at[1].pos, "`%s` is no level; there are: " LEVELS, a->at[1].text);
}
static void print_log(const struct conf_directive *d, const void *block, FILE *out) {
    const struct conf_log *l = (const void *)((const char *)block + d->offset);
    bool access = strcmp(d->name, "access_log") == 0;
    fprintf(out, "%s ", d->name);
    conf_put_word(out, l->path ? l->path : access ? "off" : "stderr");
    static const char *const levels[] = { "error", "warn", "info", "debug" };
    fprintf(out, "%s%s;\n", access ? "" : " ", access ? "" : levels[l->level]);
}

static void set_proxies(struct conf_args *a) {
    struct conf_main *m = (struct conf_main *)a->block;
    for (uint32_t i = 0; i < a->count; i++) {
        struct snap_cidr *cidr = conf_alloc(a->conf, sizeof *cidr);
        const char *bad = conf_cidr(a->at[i].text, cidr);
        if (bad) conf_error(a->conf, a->at[i].pos, "`%s`: %s", a->at[i].text, bad);
        else conf_add(a->conf, &m->trusted_proxies, cidr);
    }
}
static void print_proxies(const struct conf_directive *d, const void *block, FILE *out) {
    const struct conf_main *m = block;
    if (!m->trusted_proxies.count) return;
    fputs(d->name, out);
    CONF_EACH(m->trusted_proxies, const struct snap_cidr, cidr) {
        char text[INET6_ADDRSTRLEN];
        inet_ntop(cidr->family == 4 ? AF_INET : AF_INET6, cidr->bytes, text, sizeof text);
        fprintf(out, " %s/%u", text, cidr->bits);
    }
    fputs(";\n", out);
}

#define AT(type, field) .offset = offsetof(struct type, field)
#define MS(s) ((s)*1000ull)
enum { DAY_S = 86400 };
#define LONGEST MS(30 * DAY_S) /* fits the snapshot's 32 bits of milliseconds */

static const struct conf_directive main_directives[] = {
    { "workers", "auto or a number", SHAPE_OTHER, .offset = 0, 1, 1, .initial = "auto", .set = set_workers,
      .print = print_workers },
    { "listen", "ADDRESS [tls] [proxy_protocol]", SHAPE_OTHER, .offset = 0, 1, 3, .repeat = true, .set = set_listen,
      .print = print_listen },
    { "certificate", "PATH", SHAPE_PATH, AT(conf_main, certificate), .check = check_file_path },
    { "certificate_key", "PATH", SHAPE_PATH, AT(conf_main, certificate_key), .check = check_file_path },
    { "admin_listen", "ADDRESS", SHAPE_OTHER, .offset = 0, 1, 1, .repeat = true, .set = set_listen,
      .print = print_listen },
    { "admin_token", "env:NAME, file:PATH or a string", SHAPE_SECRET, AT(conf_main, admin_token),
      .check = check_visible },
    { "control", "PATH", SHAPE_PATH, AT(conf_main, control), .check = check_file_path },
    { "state_dir", "PATH", SHAPE_PATH, AT(conf_main, state_dir) },
    { "shm_file", "PATH", SHAPE_PATH, AT(conf_main, shm_file), .check = check_file_path },
    { "max_accounts", "NUMBER", SHAPE_COUNT, AT(conf_main, max_accounts), 1, 16777216, .initial = "100000" },
    { "max_keys", "NUMBER", SHAPE_COUNT, AT(conf_main, max_keys), 1, 33554432, .initial = "200000" },
    { "max_active", "NUMBER", SHAPE_COUNT, AT(conf_main, max_active), 1, 65536, .initial = "4096" },
    { "access_log", "PATH or off", SHAPE_OTHER, AT(conf_main, access_log), 1, 1, .initial = "off", .set = set_log,
      .print = print_log },
    { "error_log", "PATH [error|warn|info|debug]", SHAPE_OTHER, AT(conf_main, error_log), 1, 2, .set = set_log,
      .print = print_log },
    { "user", "NAME", SHAPE_TEXT, AT(conf_main, user), .check = check_text },
    { "trusted_proxies", "ADDRESS...", SHAPE_OTHER, .offset = 0, 1, 256, .set = set_proxies, .print = print_proxies },
    { "cors_origin", "ORIGIN or *", SHAPE_TEXT, AT(conf_main, cors_origin), .check = check_origin },
    { "max_body", "SIZE", SHAPE_SIZE, AT(conf_main, max_body), 1024, 1u << 30, .initial = "32m" },
    { "client_timeout", "TIME", SHAPE_TIME, AT(conf_main, client_timeout_ms), 1, LONGEST, .initial = "60s" },
    { "keepalive_timeout", "TIME", SHAPE_TIME, AT(conf_main, keepalive_timeout_ms), 0, LONGEST, .initial = "75s" },
    { "drain_timeout", "TIME", SHAPE_TIME, AT(conf_main, drain_timeout_ms), 0, LONGEST, .initial = "10m" },
    { "stream_ping", "TIME (0 is off)", SHAPE_TIME, AT(conf_main, stream_ping_ms), 0, LONGEST, .initial = "15s" },
    { "on_client_abort", "cancel or finish", SHAPE_ENUM, AT(conf_main, on_client_abort), .words = "cancel finish",
      .initial = "cancel" },
    { "max_connections", "NUMBER", SHAPE_COUNT, AT(conf_main, max_connections), 1, 1000000, .initial = "10000" },
};

static const struct conf_directive brand_directives[] = {
    { "key_prefix", "TEXT", SHAPE_TEXT, AT(conf_brand, key_prefix), .initial = "sk-", .check = check_key_prefix },
    { "id_prefix", "TEXT", SHAPE_TEXT, AT(conf_brand, id_prefix), .initial = "", .check = check_id_prefix },
    { "error_code", "TEXT with %d", SHAPE_TEXT, AT(conf_brand, error_code), .initial = "", .check = check_error_code },
    { "error_detail", "on or off", SHAPE_FLAG, AT(conf_brand, error_detail) },
    { "upstream_error_status", "502 or 503", SHAPE_ENUM, AT(conf_brand, upstream_error_status), .words = "502 503",
      .initial = "502" },
    { "revoked_key_status", "403 or 401", SHAPE_ENUM, AT(conf_brand, revoked_key_status), .words = "403 401",
      .initial = "403" },
    { "usage_cost", "on or off", SHAPE_FLAG, AT(conf_brand, usage_cost), .initial = "on" },
    { "status_upstreams", "on or off", SHAPE_FLAG, AT(conf_brand, status_upstreams) },
};

#define MAX_AMOUNT_NANO 1000000000000000000ull /* a billion dollars */
static const struct conf_directive billing_directives[] = {
    { "unit", "usd or tokens", SHAPE_ENUM, AT(conf_billing, unit), .words = "usd tokens", .initial = "usd" },
    { "hold_share", "a share of 1", SHAPE_RATIO, AT(conf_billing, hold_share), 1, 1000000, .initial = "0.5" },
    { "signup", "on or off", SHAPE_FLAG, AT(conf_billing, signup) },
    { "signup_credit", "AMOUNT", SHAPE_NANO, AT(conf_billing, signup_credit_nano), 0, MAX_AMOUNT_NANO, .initial = "0" },
    { "signup_tier", "NAME", SHAPE_TEXT, AT(conf_billing, signup_tier), .initial = "default" },
    { "signup_group", "NAME", SHAPE_TEXT, AT(conf_billing, signup_group), .initial = "default" },
    { "signup_rate", "RATE", SHAPE_PER_H, AT(conf_billing, signup_rate_per_h), 1, 1000000, .initial = "5/h" },
    { "jwt_secret", "env:NAME, file:PATH or a string", SHAPE_SECRET, AT(conf_billing, jwt_secret) },
    { "jwt_ttl", "TIME", SHAPE_TIME, AT(conf_billing, jwt_ttl_ms), MS(1), MS(3650ull * DAY_S), .initial = "24h" },
    { "models_public", "on or off", SHAPE_FLAG, AT(conf_billing, models_public) },
};

/* ---- tier, group ---- */

#define MOST_A_MINUTE 1000000000000ull
static const struct conf_directive tier_directives[] = {
    { "rpm", "NUMBER [burst NUMBER]", SHAPE_LIMIT, AT(conf_tier, rpm), 0, MOST_A_MINUTE },
    { "tpm", "NUMBER [burst NUMBER]", SHAPE_LIMIT, AT(conf_tier, tpm), 0, MOST_A_MINUTE },
    { "concurrency", "NUMBER", SHAPE_COUNT, AT(conf_tier, concurrency), 0, 1000000000 },
    { "images_rpm", "NUMBER [burst NUMBER]", SHAPE_LIMIT, AT(conf_tier, images_rpm), 0, MOST_A_MINUTE },
    { "models", "GLOB...", SHAPE_GLOBS, AT(conf_tier, models), .check = check_text },
};
static const struct conf_directive group_directives[] = {
    { "models", "GLOB...", SHAPE_GLOBS, AT(conf_group, models), .check = check_text },
    { "ratio", "a factor", SHAPE_RATIO, AT(conf_group, ratio), 0, 1000000000, .initial = "1" },
};

/* ---- upstream ---- */

static void set_base_url(struct conf_args *a) {
    struct conf_url url;
    const char *bad = conf_url(a->conf, a->at[0].text, &url);
    /* Never the text: what is wrong with it may be a password. */
    if (bad) conf_error(a->conf, a->at[0].pos, "%s", bad);
    else ((struct conf_upstream *)a->block)->url = url;
}
static void print_base_url(const struct conf_directive *d, const void *block, FILE *out) {
    const struct conf_url *u = &((const struct conf_upstream *)block)->url;
    if (!u->host) return;
    fprintf(out, "    %s ", d->name);
    conf_put_word(out, u->text);
    fputs(";\n", out);
}

static void set_pair(struct conf_args *a) {
    struct conf_list *list = (void *)((char *)a->block + a->directive->offset);
    bool header = strcmp(a->directive->name, "header") == 0;
    const struct conf_word *name = &a->at[0];
    const char *bad = header         ? conf_header_name(name->text)
                      : !*name->text ? "a name is expected"
                                     : check_query(name->text);
    CONF_EACH(*list, struct conf_pair, other)
        if (!bad &&
            (header ? slice_ieq(slice_str(other->name), slice_str(name->text)) : strcmp(other->name, name->text) == 0))
            bad = "this stands twice";
    if (bad) {
        conf_error(a->conf, name->pos, "`%s`: %s", name->text, bad);
        return;
    }
    struct conf_pair *p = conf_alloc(a->conf, sizeof *p);
    p->pos = name->pos;
    p->name = name->text;
    if (*a->at[1].text || !header)
        conf_set_secret(a->conf, &a->at[1], &p->value, header ? conf_header_value : check_query);
    else p->value = (struct conf_secret){ .kind = SECRET_LITERAL, .pos = a->at[1].pos, .value = "" };
    conf_add(a->conf, list, p);
}

/* A header's name that says its value is a secret: then a literal is not printed. */
static bool names_a_secret(const char *name) {
    static const char *const words[] = {
        "key", "secret", "token", "auth", "passw", "credential", "signature", "cookie"
    };
    char low[256];
    size_t n = strlen(name) < sizeof low ? strlen(name) : sizeof low - 1;
    for (size_t i = 0; i < n; i++) low[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] | 0x20) : name[i];
    low[n] = 0;
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strstr(low, words[i])) return true;
    return false;
}
static void print_pair(const struct conf_directive *d, const void *block, FILE *out) {
    const struct conf_list *list = (const void *)((const char *)block + d->offset);
    CONF_EACH(*list, const struct conf_pair, p) {
        fprintf(out, "    %s ", d->name);
        conf_put_word(out, p->name);
        fputc(' ', out);
        if (p->value.source || names_a_secret(p->name)) conf_print_secret(out, &p->value);
        else {
            conf_put_word(out, p->value.value);
            fputs(";\n", out);
        }
    }
}

static const struct conf_directive upstream_directives[] = {
    { "dialect", "NAME", SHAPE_ENUM, AT(conf_upstream, dialect),
      .words = "openai openai-responses anthropic gemini echo" }, /* enum dialect_id */
    { "base_url", "URL", SHAPE_OTHER, .offset = 0, 1, 1, .set = set_base_url, .print = print_base_url },
    { "api_key", "env:NAME, file:PATH or a string", SHAPE_SECRETS, AT(conf_upstream, keys), 0, SHM_MAX_UPSTREAM_KEYS,
      .repeat = true, .check = check_visible },
    { "auth", "NAME", SHAPE_ENUM, AT(conf_upstream, auth),
      .words = "bearer api-key x-api-key x-goog-api-key" }, /* enum auth_kind */
    { "header", "NAME VALUE", SHAPE_OTHER, AT(conf_upstream, headers), 2, 2, .repeat = true, .set = set_pair,
      .print = print_pair },
    { "query", "NAME VALUE", SHAPE_OTHER, AT(conf_upstream, query), 2, 2, .repeat = true, .set = set_pair,
      .print = print_pair },
    { "ca_file", "PATH", SHAPE_PATH, AT(conf_upstream, ca_file), .initial = "/etc/ssl/certs/ca-certificates.crt",
      .check = check_file_path },
    { "tls_max", "1.2 or 1.3", SHAPE_ENUM, AT(conf_upstream, tls_max), .words = "1.2 1.3", .initial = "1.3" },
    { "connect_timeout", "TIME", SHAPE_TIME, AT(conf_upstream, connect_timeout_ms), 1, LONGEST, .initial = "5s" },
    { "first_byte_timeout", "TIME", SHAPE_TIME, AT(conf_upstream, first_byte_timeout_ms), 1, LONGEST,
      .initial = "120s" },
    { "idle_timeout", "TIME", SHAPE_TIME, AT(conf_upstream, idle_timeout_ms), 1, LONGEST, .initial = "120s" },
    { "max_connections", "NUMBER", SHAPE_COUNT, AT(conf_upstream, max_connections), 1, 1000000, .initial = "512" },
    { "keepalive", "NUMBER", SHAPE_COUNT, AT(conf_upstream, keepalive), 0, 1000000, .initial = "64" },
    { "retries", "NUMBER", SHAPE_COUNT, AT(conf_upstream, retries), 0, 16, .initial = "2" },
    { "cooldown", "TIME", SHAPE_TIME, AT(conf_upstream, cooldown_ms), 0, LONGEST, .initial = "30s" },
    { "probe", "TIME (0 is off)", SHAPE_TIME, AT(conf_upstream, probe_ms), 0, LONGEST, .initial = "10s" },
};

/* ---- model ---- */

static const struct conf_directive model_directives[] = {
    { "owned_by", "NAME", SHAPE_TEXT, AT(conf_model, owned_by), .check = check_text },
    { "provider", "NAME", SHAPE_TEXT, AT(conf_model, provider), .check = check_text },
    { "kind", "NAME", SHAPE_ENUM, AT(conf_model, kind),
      .words = "chat embedding image audio video rerank moderation other",
      .initial = "chat" }, /* enum model_kind; the rest MODEL_OTHER */
    { "route", "UPSTREAM [as NAME] [weight N] [priority N]", SHAPE_OTHER, .offset = 0, 1, 7, .repeat = true,
      .set = conf_set_route, .print = conf_print_route },
    { "price", "METER AMOUNT... or free", SHAPE_OTHER, AT(conf_model, price), 1, 64, .repeat = true,
      .set = conf_set_price, .print = conf_print_price },
    { "tokens", "METER AMOUNT...", SHAPE_OTHER, AT(conf_model, tokens), 2, 64, .repeat = true, .set = conf_set_price,
      .print = conf_print_price },
    { "max_output", "TOKENS", SHAPE_COUNT, AT(conf_model, max_output), 1, 1000000000 },
    { "context", "TOKENS", SHAPE_COUNT, AT(conf_model, context), 1, 1000000000 },
    { "call_cap", "AMOUNT", SHAPE_NANO, AT(conf_model, call_cap_nano), 0, MAX_AMOUNT_NANO },
    { "capabilities", "WORD...", SHAPE_WORDS, AT(conf_model, capabilities), .check = check_text },
    { "created", "SECONDS since 1970", SHAPE_COUNT, AT(conf_model, created), 0, 253402300799ull /* the year 9999 */ },
    { "alias", "NAME...", SHAPE_WORDS, AT(conf_model, aliases), .repeat = true, .check = check_alias },
    { "strip", "MEMBER...", SHAPE_WORDS, AT(conf_model, strip), .check = check_text },
    { "limit_field", "max_completion_tokens or max_tokens", SHAPE_ENUM, AT(conf_model, limit_field),
      .words = "max_completion_tokens max_tokens" },
    { "allow", "MEMBER...", SHAPE_WORDS, AT(conf_model, allow), .check = check_text },
    { "sizes", "SIZE...", SHAPE_WORDS, AT(conf_model, sizes), .check = check_text },
    { "qualities", "WORD...", SHAPE_WORDS, AT(conf_model, qualities), .check = check_text },
    { "n_max", "NUMBER", SHAPE_COUNT, AT(conf_model, n_max), 1, 1000 },
    { "prompt_max", "CHARACTERS", SHAPE_COUNT, AT(conf_model, prompt_max), 1, 1u << 30 },
    { "budgets", "EFFORT TOKENS...", SHAPE_OTHER, .offset = 0, 2, 16, .set = conf_set_budgets,
      .print = conf_print_budgets },
};

#define TABLE(rows) rows, ARRAY_LEN(rows)
const struct conf_block_info conf_blocks[CONF_KINDS] = {
    [CONF_MAIN] = { "", false, TABLE(main_directives), sizeof(struct conf_main) },
    [CONF_BRAND] = { "brand", false, TABLE(brand_directives), sizeof(struct conf_brand) },
    [CONF_BILLING] = { "billing", false, TABLE(billing_directives), sizeof(struct conf_billing) },
    [CONF_TIER] = { "tier", true, TABLE(tier_directives), sizeof(struct conf_tier) },
    [CONF_GROUP] = { "group", true, TABLE(group_directives), sizeof(struct conf_group) },
    [CONF_UPSTREAM] = { "upstream", true, TABLE(upstream_directives), sizeof(struct conf_upstream) },
    [CONF_MODEL] = { "model", true, TABLE(model_directives), sizeof(struct conf_model) },
};
_Static_assert(ARRAY_LEN(main_directives) <= CONF_MAX_DIRECTIVES && ARRAY_LEN(model_directives) <= CONF_MAX_DIRECTIVES,
               "raise CONF_MAX_DIRECTIVES");

const struct conf_directive *conf_find(enum conf_kind kind, const char *name) {
    for (uint32_t i = 0; i < conf_blocks[kind].count; i++)
        if (strcmp(conf_blocks[kind].directives[i].name, name) == 0) return &conf_blocks[kind].directives[i];
    return NULL;
}

struct conf_pos conf_where(const struct conf_block *b, const char *name) {
    const struct conf_directive *d = conf_find(b->kind, name);
    CHECK(d);
    return b->set[d - conf_blocks[b->kind].directives];
}

/* A default is read as if it stood in the file; it must be right. */
void conf_block_init(struct conf *c, struct conf_block *b, enum conf_kind kind, const char *name, struct conf_pos pos) {
    b->kind = kind;
    b->name = name;
    b->pos = pos;
    const struct conf_block_info *info = &conf_blocks[kind];
    uint32_t errors = c->error_count;
    for (uint32_t i = 0; i < info->count; i++) {
        const struct conf_directive *d = &info->directives[i];
        if (d->shape == SHAPE_LIMIT)
            *(struct conf_limit *)(void *)((char *)b + d->offset) = (struct conf_limit){ SNAP_NO_LIMIT, SNAP_NO_LIMIT };
        if (!d->initial) continue;
        struct conf_word w = { .text = d->initial, .len = strlen(d->initial) };
        struct conf_args a = { .conf = c, .block = b, .directive = d, .at = &w, .count = 1 };
        conf_set(&a);
    }
    CHECK(c->error_count == errors);
    if (kind == CONF_TIER) ((struct conf_tier *)b)->concurrency = SNAP_NO_LIMIT;
    if (kind == CONF_MODEL) ((struct conf_model *)b)->call_cap_nano = SNAP_NO_AMOUNT;
    if (kind == CONF_MAIN) ((struct conf_main *)b)->error_log.level = LOG_INFO;
}
