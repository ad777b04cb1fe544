/* What an account may do for itself over HTTP: its keys, its balance and usage, its caps. The account is always the
 * credential's; what a client names is looked up within it, and what is another's is not found. */
#include <stdio.h>
#include "master/ledger/account.h"
#include "master/ledger/http.h"
#include "master/ledger/key.h"

enum { KEYS_MAX = 1000, NEW_KEYS_PER_DAY = 3000, DAY_WINDOW_MS = 86400000, KEYS_PAGE = 2000, USAGE_MAX = 1000,
       USAGE_DEFAULT = 50 };

static void account_argument(struct call *c, struct http_doc *d, uint32_t account) {
    jw_key(&d->w, "account");
    jw_id(&d->w, ID_ACCOUNT, c->l->accounts[account].id);
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

void call_http_keys(struct call *c) {
    struct http_who who;
    struct slice text;
    uint64_t after = 0;
    struct buf out;
    struct json_writer w, *outer = c->w;
    c->http = true;
    if (!auth_who(c, false, &who))
        return;
    if (http_query(c, "cursor", &text) && (!id_read(text, ID_KEY, &after) || after >= UINT32_MAX)) {
        http_fail(c, 400, "invalid_value", 0, "cursor: give the next_cursor of the page before");
        return;
    }
    buf_init(&out, &c->l->pages, IPC_MAX_PAYLOAD / 2);
    jw_init(&w, &out);
    c->w = &w;
    key_list_own(c, c->l->accounts[who.account].id, (uint32_t)after, KEYS_PAGE);
    c->w = outer;
    if (!c->refused)
        http_ok(c, w.failed ? SLICE_NONE : buf_slice(&out));
    buf_release(&out);
}

/* Only what an owner may choose: a key's own rates would lift it above the plan. */
static void key_arguments(struct call *c, struct http_doc *d) {
    static const char *const names[] = { "name", "limit", "expires", "expires_at", "models" };
    struct slice name;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        int t = http_body(c, names[i]);
        if (t >= 0)
            http_put(c, d, names[i], t);
    }
    if (http_body(c, "name") < 0 && http_query(c, "name", &name) && name.len > 0) {
        jw_key(&d->w, "name");
        jw_str(&d->w, name);
    }
}

void call_http_key_create(struct call *c) {
    struct http_who who;
    struct http_doc d;
    char id[ID_TEXT];
    uint64_t wait_s;
    c->http = true;
    if (!auth_who(c, false, &who) || !http_models_are_texts(c))
        return;
    if (c->l->accounts[who.account].active_keys >= KEYS_MAX) {
        http_fail(c, 400, "too_many_keys", 0, "This account has %d active keys, which is the most it can have. Revoke "
                  "some first.", KEYS_MAX);
        return;
    }
    id_write(id, ID_ACCOUNT, c->l->accounts[who.account].id);
    if (!auth_count(c->l, COUNT_NEW_KEYS, slice_str(id), NEW_KEYS_PER_DAY, DAY_WINDOW_MS, &wait_s)) {
        http_fail(c, 429, "rate_limit_exceeded", wait_s, "Too many keys were created today.");
        return;
    }
    http_doc_init(c, &d);
    account_argument(c, &d, who.account);
    key_arguments(c, &d);
    c->numbers = true;
    c->self_id = c->l->accounts[who.account].id;
    http_inner(c, call_key_create, &d);
}

/* The key of that id, if it is the account's. */
static bool own_key(struct call *c, const struct http_who *who, struct slice text, struct key_draft *d) {
    uint64_t id;
    bool own = id_read(text, ID_KEY, &id) && id > 0 && id < c->l->next_key_id && key_draft_load(c, (uint32_t)id, d) &&
               d->row.account_id == c->l->accounts[who->account].id;
    c->refused = false; /* a key that cannot be read is none */
    if (!own)
        http_fail(c, 404, "not_found", 0, "There is no such API key.");
    return own;
}

void call_http_key_revoke(struct call *c) {
    struct http_who who;
    struct http_doc d;
    struct key_draft key;
    c->http = true;
    if (!auth_who(c, false, &who) || !own_key(c, &who, http_rest(c), &key))
        return;
    struct call inner = *c;
    key_revoke(&inner, &key);
    if (inner.refused) {
        http_refused(c, &inner);
        return;
    }
    http_doc_init(c, &d);
    jw_key(&d.w, "id");
    jw_id(&d.w, ID_KEY, key.id);
    jw_key(&d.w, "status");
    jw_cstr(&d.w, "revoked");
    jw_key(&d.w, "message");
    jw_cstr(&d.w, "The API key was revoked.");
    http_ok(c, http_doc_end(&d));
    http_doc_free(&d);
}

/* ---- billing ----------------------------------------------------------------------------------------------------- */

void call_http_balance(struct call *c) {
    struct http_who who;
    struct http_doc d;
    struct row_account row;
    struct slice email = SLICE_NONE;
    struct ledger *l = c->l;
    c->http = true;
    if (!auth_who(c, true, &who))
        return;
    if (store_read_begin(&l->store) != STORE_OK) {
        http_fail(c, 503, "unavailable", 1, "The server is temporarily unable to take this request.");
        return;
    }
    http_doc_init(c, &d);
    jw_key(&d.w, "balance");
    jw_fixed(&d.w, atomic_load(&l->shm->account_words[who.account].available), ledger_places(l), false);
    jw_key(&d.w, "email");
    if (account_row(l, who.account, &row, &email))
        jw_str(&d.w, email);
    else
        jw_null(&d.w);
    store_read_end(&l->store);
    http_ok(c, http_doc_end(&d));
    http_doc_free(&d);
}

/* limit: 1 … 1000, more is 1000; false: answered. */
static bool limit_argument(struct call *c, struct http_doc *d) {
    struct slice text;
    uint64_t limit = USAGE_DEFAULT;
    if (http_query(c, "limit", &text) && (!slice_to_u64(text, &limit) || limit == 0)) {
        http_fail(c, 400, "invalid_value", 0, "limit: a whole number from 1 to %d is expected", USAGE_MAX);
        return false;
    }
    jw_key(&d->w, "limit");
    jw_u64(&d->w, limit > USAGE_MAX ? USAGE_MAX : limit);
    return true;
}

void call_http_usage(struct call *c) {
    static const char *const names[] = { "since", "until", "model", "cursor" };
    struct http_who who;
    struct http_doc d;
    struct key_draft key;
    struct slice text;
    c->http = true;
    if (!auth_who(c, true, &who))
        return;
    http_doc_init(c, &d);
    account_argument(c, &d, who.account);
    bool right = limit_argument(c, &d);
    for (size_t i = 0; right && i < ARRAY_LEN(names); i++)
        if (http_query(c, names[i], &text) && text.len > 0) {
            jw_key(&d.w, names[i]);
            jw_str(&d.w, text);
        }
    /* ?key= is a place for a credential too: an id is a filter, anything else was that */
    if (right && http_query(c, "key", &text) && slice_starts(text, SLICE("key_"))) {
        right = own_key(c, &who, text, &key);
        if (right) {
            jw_key(&d.w, "key");
            jw_id(&d.w, ID_KEY, key.id);
        }
    }
    if (!right) {
        http_doc_free(&d);
        return;
    }
    c->numbers = true;
    c->self_id = c->l->accounts[who.account].id;
    http_inner(c, call_usage, &d);
}

/* ---- caps -------------------------------------------------------------------------------------------------------- */

/* The model of the path, if this account may know it; NULL: answered. */
static const struct snap_model *cap_model(struct call *c, const struct http_who *who) {
    struct slice name = http_rest(c);
    const struct snap *s = c->l->conf;
    const struct snap_model *m = name.len ? snap_find_model(s, name) : NULL;
    const struct snap_group *g = snap_group_by_id(s, c->l->accounts[who->account].group_id);
    if (m && !(m->flags & MODEL_FAMILY) && snap_globs_allow(s, g->models, snap_text(s, m->name)))
        return m;
    http_fail(c, 404, "model_not_found", 0, "The model '%.*s' does not exist.", name.len > 200 ? 200 : (int)name.len,
              name.ptr);
    return NULL;
}

/* cap: the account's own; call_cap: what applies to it, the lower of that and the operator's. */
static void answer_cap(struct call *c, const struct http_who *who, const struct snap_model *m) {
    struct http_doc d;
    int64_t own, lowest = m->call_cap_nano;
    int places = ledger_places(c->l);
    bool has = shm_cap_find(c->l->shm, who->account, m->id, &own);
    if (has && own < lowest)
        lowest = own;
    http_doc_init(c, &d);
    jw_key(&d.w, "model");
    jw_str(&d.w, snap_text(c->l->conf, m->name));
    jw_key(&d.w, "cap");
    has ? jw_fixed(&d.w, own, places, false) : jw_null(&d.w);
    jw_key(&d.w, "call_cap");
    lowest != SNAP_NO_AMOUNT ? jw_fixed(&d.w, lowest, places, false) : jw_null(&d.w);
    http_ok(c, http_doc_end(&d));
    http_doc_free(&d);
}

void call_http_cap(struct call *c) {
    struct http_who who;
    const struct snap_model *m;
    c->http = true;
    if (auth_who(c, false, &who) && (m = cap_model(c, &who)))
        answer_cap(c, &who, m);
}

/* "cap": a number (or its text), null: none. *amount −1: remove. false: answered. */
static bool cap_argument(struct call *c, int64_t *amount) {
    int t = http_body(c, "cap");
    *amount = -1;
    if (t < 0) {
        http_fail(c, 400, "missing_field", 0, "cap is required: an amount, or null for none.");
        return false;
    }
    if (json_is(&c->json, t, JSON_NULL))
        return true;
    if (call_amount_at(c, t, amount))
        return true;
    http_fail(c, 400, "invalid_value", 0, "cap: an amount of at most %d fractional digits, not below zero, or null.",
              ledger_places(c->l));
    return false;
}

void call_http_cap_set(struct call *c) {
    struct http_who who;
    const struct snap_model *m;
    int64_t amount;
    c->http = true;
    if (!auth_who(c, false, &who) || !(m = cap_model(c, &who)) || !cap_argument(c, &amount))
        return;
    struct call inner = *c;
    cap_put_account(&inner, who.account, m->id, amount);
    if (inner.refused)
        http_refused(c, &inner);
    else
        answer_cap(c, &who, m);
}
