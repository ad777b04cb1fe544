/* The table of paths: what answers where, in which shape, and what it needs first. docs/openapi.yaml describes it. */
#include "worker/entry.h"
#include "worker/exchange.h"

#include <stdio.h>

static const struct endpoint endpoints[] = {
    { "POST", "/v1/chat/completions", SHAPE_OPENAI, DIALECT_OPENAI, NEEDS_KEY, true, call_run, NULL },
    { "POST", "/v1/responses", SHAPE_OPENAI, DIALECT_RESPONSES, NEEDS_KEY, true, call_run, NULL },
    { "POST", "/v1/messages", SHAPE_ANTHROPIC, DIALECT_ANTHROPIC, NEEDS_KEY, true, call_run, NULL },
    { "POST", "/v1/completions", SHAPE_OPENAI, DIALECT_OPENAI, NEEDS_KEY, true, completions_run, NULL },
    { "POST", "/v1/messages/count_tokens", SHAPE_ANTHROPIC, DIALECT_ANTHROPIC, NEEDS_KEY, true, count_run, NULL },
    { "POST", "/v1/embeddings", SHAPE_OPENAI, DIALECT_OPENAI, NEEDS_KEY, true, embeddings_run, NULL },
    { "POST", "/v1/images/generations", SHAPE_OPENAI, DIALECT_OPENAI, NEEDS_KEY, true, images_run, NULL },
    { "POST", "/v1beta/models/*", SHAPE_GEMINI, DIALECT_GEMINI, NEEDS_KEY, true, gemini_run, NULL },
    { "POST", "/v1/models/*:", SHAPE_GEMINI, DIALECT_GEMINI, NEEDS_KEY, true, gemini_run, NULL }, /* @google/genai 3 */
    { "GET", "/v1/models/*/cap", SHAPE_OPENAI, 0, NEEDS_NOTHING, false, accounts_run, "http.cap" },
    { "PUT", "/v1/models/*/cap", SHAPE_OPENAI, 0, NEEDS_NOTHING, true, accounts_run, "http.cap_set" },
    { "GET", "/v1/models", SHAPE_OPENAI, 0, NEEDS_KEY_UNLESS_PUBLIC, false, models_list, NULL },
    { "GET", "/v1/models/*", SHAPE_OPENAI, 0, NEEDS_KEY_UNLESS_PUBLIC, false, models_show, NULL },
    { "GET", "/v1beta/models", SHAPE_GEMINI, 0, NEEDS_KEY_UNLESS_PUBLIC, false, models_list, NULL },
    { "GET", "/v1beta/models/*", SHAPE_GEMINI, 0, NEEDS_KEY_UNLESS_PUBLIC, false, models_show, NULL },
    { "GET", "/v1/status", SHAPE_OPENAI, 0, NEEDS_NOTHING, false, status_show, NULL },
    { "GET", "/api/status", SHAPE_OPENAI, 0, NEEDS_NOTHING, false, status_show, NULL },
    { "GET", "/v1/key", SHAPE_OPENAI, 0, NEEDS_KEY, false, key_show, NULL },
    { "POST", "/auth/register", SHAPE_DETAIL, 0, NEEDS_NOTHING, true, accounts_run, "http.register" },
    { "POST", "/auth/login", SHAPE_DETAIL, 0, NEEDS_NOTHING, true, accounts_run, "http.login" },
    { "GET", "/api-keys", SHAPE_DETAIL, 0, NEEDS_NOTHING, false, accounts_run, "http.keys" },
    { "POST", "/api-keys", SHAPE_DETAIL, 0, NEEDS_NOTHING, true, accounts_run, "http.key_create" },
    { "DELETE", "/api-keys/*", SHAPE_DETAIL, 0, NEEDS_NOTHING, false, accounts_run, "http.key_revoke" },
    { "GET", "/billing/balance", SHAPE_DETAIL, 0, NEEDS_NOTHING, false, accounts_run, "http.balance" },
    { "GET", "/billing/usage", SHAPE_DETAIL, 0, NEEDS_NOTHING, false, accounts_run, "http.usage" },
};

static const struct endpoint admin_endpoints[] = {
    { "GET", "/healthz", SHAPE_DETAIL, 0, NEEDS_NOTHING, false, admin_healthz, NULL },
    { "GET", "/readyz", SHAPE_DETAIL, 0, NEEDS_NOTHING, false, admin_readyz, NULL },
    { "GET", "/metrics", SHAPE_DETAIL, 0, NEEDS_NOTHING, false, admin_metrics, NULL },
    { "GET", "/admin/accounts", SHAPE_DETAIL, 0, NEEDS_NOTHING, false, accounts_run, "http.admin_accounts" },
    { "POST", "/admin/accounts", SHAPE_DETAIL, 0, NEEDS_NOTHING, true, accounts_run, "http.admin_account_create" },
    { "GET", "/admin/accounts/*/balance", SHAPE_DETAIL, 0, NEEDS_NOTHING, false, accounts_run, "http.admin_balance" },
    { "GET", "/admin/accounts/*", SHAPE_DETAIL, 0, NEEDS_NOTHING, false, accounts_run, "http.admin_account" },
    { "POST", "/admin/accounts/*", SHAPE_DETAIL, 0, NEEDS_NOTHING, true, accounts_run, "http.admin_account_set" },
    { "GET", "/admin/keys", SHAPE_DETAIL, 0, NEEDS_NOTHING, false, accounts_run, "http.admin_keys" },
    { "POST", "/admin/keys", SHAPE_DETAIL, 0, NEEDS_NOTHING, true, accounts_run, "http.admin_key_create" },
    { "GET", "/admin/keys/*", SHAPE_DETAIL, 0, NEEDS_NOTHING, false, accounts_run, "http.admin_key" },
    { "POST", "/admin/keys/*", SHAPE_DETAIL, 0, NEEDS_NOTHING, true, accounts_run, "http.admin_key_set" },
    { "DELETE", "/admin/keys/*", SHAPE_DETAIL, 0, NEEDS_NOTHING, false, accounts_run, "http.admin_key_revoke" },
    { "POST", "/admin/credits", SHAPE_DETAIL, 0, NEEDS_NOTHING, true, accounts_run, "http.admin_credit" },
    { "POST", "/admin/debits", SHAPE_DETAIL, 0, NEEDS_NOTHING, true, accounts_run, "http.admin_debit" },
    { "GET", "/admin/usage", SHAPE_DETAIL, 0, NEEDS_NOTHING, false, accounts_run, "http.admin_usage" },
};

/* One `*` stands for the rest, or for what is between; `*:` for a rest that has a colon in it. */
static bool matches(const char *pattern, struct slice path, struct slice *rest) {
    const char *star = strchr(pattern, '*');
    *rest = SLICE_NONE;
    if (star == NULL)
        return slice_is(path, pattern);
    bool colon = strcmp(star, "*:") == 0;
    size_t before = (size_t)(star - pattern), behind = colon ? 0 : strlen(star + 1);
    if (path.len <= before + behind || memcmp(path.ptr, pattern, before) != 0 ||
        memcmp(path.ptr + path.len - behind, star + 1, behind) != 0)
        return false;
    *rest = slice_of(path.ptr + before, path.len - before - behind);
    return !colon || memchr(rest->ptr, ':', rest->len) != NULL || memmem(rest->ptr, rest->len, "%3A", 3) != NULL ||
           memmem(rest->ptr, rest->len, "%3a", 3) != NULL;
}

static const struct endpoint *find_in(const struct endpoint *table, size_t count, struct slice method,
                                      struct slice path, struct slice *rest, bool *other_method) {
    for (size_t i = 0; i < count; i++) {
        if (!matches(table[i].path, path, rest) || (table[i].run == models_show && gemini_calls(*rest)))
            continue;
        if (slice_is(method, table[i].method))
            return &table[i];
        *other_method = true;
    }
    return NULL;
}

const struct endpoint *endpoint_find(struct slice method, struct slice path, bool admin, struct slice *rest,
                                     bool *other_method) {
    const struct endpoint *e = NULL;
    *other_method = false;
    if (path.len > 1 && path.ptr[path.len - 1] == '/')
        path.len--;
    if (admin)
        return find_in(admin_endpoints, ARRAY_LEN(admin_endpoints), method, path, rest, other_method);
    e = find_in(endpoints, ARRAY_LEN(endpoints), method, path, rest, other_method);
    if (e == NULL && slice_starts(path, SLICE("/api/")))
        e = find_in(endpoints, ARRAY_LEN(endpoints), method, slice_from(path, 4), rest, other_method);
    return e;
}

void endpoint_methods(struct slice path, bool admin, char *out, size_t n) {
    static const char *const methods[] = { "GET", "POST", "PUT", "DELETE" };
    size_t at = 0;
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        struct slice rest;
        bool other;
        if (endpoint_find(slice_str(methods[i]), path, admin, &rest, &other) != NULL)
            at += (size_t)snprintf(out + at, n - at, "%s%s, ", methods[i], i == 0 ? ", HEAD" : "");
    }
    snprintf(out + at, n - at, "OPTIONS");
}

static void print(FILE *out, const char *listener, const struct endpoint *table, size_t count) {
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%s %s %s\n", listener, table[i].method, table[i].path);
}

void worker_routes(FILE *out) {
    print(out, "public", endpoints, ARRAY_LEN(endpoints));
    print(out, "admin", admin_endpoints, ARRAY_LEN(admin_endpoints));
}
