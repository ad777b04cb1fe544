/* /admin on the admin listener: what tollctl can do with accounts, keys, credits and usage, by the commands behind
 * it, with their arguments and answers. The operator's token is looked at first; without one configured there is
 * nothing here. A table says which command an HTTP command is, and where its arguments come from. */
#include "master/ledger/http.h"

static void account_status(struct call *c);
static void keys_post(struct call *c);

static const struct admin {
    const char *name;
    void (*fn)(struct call *c);
    const char *rest;         /* the argument that the path's * is; NULL: none */
    bool from_query;          /* else from the body */
    const char *arguments[12]; /* taken over if there */
} table[] = {
    { "http.admin_accounts", call_account_list, NULL, true, { "limit", "cursor" } },
    { "http.admin_account_create", call_account_create, NULL, false, { "email", "tier", "group", "credit" } },
    { "http.admin_account", call_account_show, "account", true, { NULL } },
    { "http.admin_account_set", account_status, "account", false, { "tier", "group", "status" } },
    { "http.admin_keys", call_key_list, NULL, true, { "account", "limit", "cursor" } },
    { "http.admin_balance", call_balance, "account", true, { NULL } },
    { "http.admin_key_create", keys_post, NULL, false,
      { "account", "name", "models", "limit", "expires", "expires_at", "rpm", "tpm", "concurrency", "keys" } },
    { "http.admin_key", call_key_show, "key", true, { NULL } },
    { "http.admin_key_set", call_key_set, "key", false,
      { "name", "models", "limit", "expires", "expires_at", "rpm", "tpm", "concurrency", "status" } },
    { "http.admin_key_revoke", call_key_revoke, "key", true, { NULL } },
    { "http.admin_credit", call_credit, NULL, false, { "account", "amount", "reason", "idempotency_key" } },
    { "http.admin_debit", call_debit, NULL, false, { "account", "amount", "reason", "idempotency_key", "force" } },
    { "http.admin_usage", call_usage, NULL, true,
      { "account", "key", "model", "since", "until", "limit", "by", "cursor" } },
};

/* set, and suspend or resume with it: each is a commit of its own, the plan's first. */
static void account_status(struct call *c) {
    struct slice status;
    enum arg got = call_text(c, "status", 16, &status);
    bool suspend = got == ARG_OK && slice_is(status, "suspended");
    if (got == ARG_BAD)
        return;
    if (got == ARG_OK && !suspend && !slice_is(status, "active")) {
        call_refuse(c, "invalid_value", "status: active or suspended");
        return;
    }
    if (got == ARG_ABSENT) {
        call_account_set(c);
        return;
    }
    if (json_get(&c->json, 0, "tier") >= 0 || json_get(&c->json, 0, "group") >= 0) {
        struct buf ignored;
        struct json_writer w, *outer = c->w;
        buf_init(&ignored, &c->l->pages, PAGE_BYTES);
        jw_init(&w, &ignored);
        c->w = &w;
        call_account_set(c);
        c->w = outer;
        buf_release(&ignored);
    }
    if (!c->refused)
        suspend ? call_account_suspend(c) : call_account_resume(c);
}

/* A new key, or with `keys` those of another gateway. */
static void keys_post(struct call *c) {
    int keys = json_get(&c->json, 0, "keys");
    if (keys >= 0 && !json_is(&c->json, keys, JSON_NULL))
        call_key_import(c);
    else
        call_key_create(c);
}

static void run(struct call *c, const struct admin *a) {
    struct http_doc d;
    struct slice text;
    if (!a->from_query && !http_models_are_texts(c))
        return;
    http_doc_init(c, &d);
    if (a->rest) {
        jw_key(&d.w, a->rest);
        jw_str(&d.w, http_rest(c));
    }
    for (size_t i = 0; i < ARRAY_LEN(a->arguments) && a->arguments[i]; i++) {
        int t = a->from_query ? -1 : http_body(c, a->arguments[i]);
        if (t >= 0) {
            http_put(c, &d, a->arguments[i], t);
        } else if (a->from_query && http_query(c, a->arguments[i], &text) && text.len > 0) {
            jw_key(&d.w, a->arguments[i]);
            jw_str(&d.w, text);
        }
    }
    http_inner(c, a->fn, &d);
}

void call_http_admin(struct call *c) {
    int cmd = json_get(&c->json, 0, "cmd");
    c->http = true;
    if (!auth_admin(c))
        return;
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (json_str_is(&c->json, cmd, table[i].name)) {
            run(c, &table[i]);
            return;
        }
    http_fail(c, 404, "unknown_path", 0, "Not found.");
}
