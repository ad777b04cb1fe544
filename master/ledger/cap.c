/* Cost caps per call: for an account or a key, and one model. The lowest of the operator's, the account's and the
 * key's applies; that is for the worker to see, who finds these in the cap table. */
#include "master/ledger/account.h"

struct cap { bool of_key; uint32_t id, index, account, model_id; int64_t amount; };

/* "who": an account or a key. */
static bool who_argument(struct call *c, struct cap *cap) {
    struct slice text;
    if (!call_need(c, call_text(c, "who", 512, &text), "who"))
        return false;
    if (find_account(c->l, text, &cap->index)) {
        cap->of_key = false;
        cap->account = cap->index;
        cap->id = c->l->accounts[cap->index].id;
        return true;
    }
    cap->of_key = true;
    if (!find_key(c->l, text, &cap->id) || (cap->index = ledger_key_index(c->l, cap->id)) == NO_INDEX) {
        call_refuse(c, "not_found", "who: there is no such account or key");
        return false;
    }
    cap->account = c->l->keys[cap->index].account;
    return true;
}

/* A model by its configured name, or an alias. */
static bool model_argument(struct call *c, struct cap *cap) {
    struct slice text;
    if (!call_need(c, call_text(c, "model", 500, &text), "model"))
        return false;
    cap->model_id = ledger_name_id(c->l, NAME_MODEL, text);
    const struct snap_model *m = cap->model_id ? NULL : snap_find_model(c->l->conf, text);
    if (m && !(m->flags & MODEL_FAMILY))
        cap->model_id = m->id;
    if (!cap->model_id)
        call_refuse(c, "not_found", "model: the configuration has no model \"%.*s\"", SLICE_ARG(text));
    return cap->model_id != 0;
}

static enum store_err write_cap(struct store *s, void *arg) {
    const struct cap *cap = arg;
    struct id_key key = cap_key(cap->of_key, cap->id, cap->model_id);
    if (cap->amount >= 0)
        return store_put(s, DB_CAP, ID_SLICE(key), ROW_SLICE(cap->amount));
    enum store_err err = store_delete(s, DB_CAP, ID_SLICE(key));
    return err == STORE_NONE ? STORE_OK : err;
}

static void cap_json(struct call *c, const struct cap *cap) {
    jw_object(c->w);
    jw_key(c->w, "who");
    jw_id(c->w, cap->of_key ? ID_KEY : ID_ACCOUNT, cap->id);
    jw_key(c->w, "model");
    jw_cstr(c->w, ledger_name(c->l, NAME_MODEL, cap->model_id));
    jw_key(c->w, "amount");
    if (cap->amount >= 0)
        jw_amount(c, cap->amount);
    else
        jw_null(c->w);
    jw_end_object(c->w);
}

/* amount < 0 removes. The table first, as its room may be wanting; a crash before the commit leaves one cap too many
 * until the next start. */
static bool put(struct call *c, struct cap *cap) {
    struct ledger *l = c->l;
    uint32_t who = cap->of_key ? cap->index | SHM_CAP_KEY : cap->index;
    int64_t was;
    bool had = shm_cap_find(l->shm, who, cap->model_id, &was);
    if (cap->amount >= 0 && !shm_cap_publish(l->shm, who, cap->model_id, cap->amount)) {
        call_refuse(c, "table_full", "there is no room for more caps: raise max_keys");
        return false;
    }
    enum store_err err = store_write(&l->store, write_cap, cap);
    if (err != STORE_OK) {
        shm_cap_publish(l->shm, who, cap->model_id, had ? was : -1);
        call_store_failed(c, err);
        return false;
    }
    if (cap->amount < 0)
        shm_cap_publish(l->shm, who, cap->model_id, -1);
    l->accounts[cap->account].caps += (cap->amount >= 0) - had;
    ledger_account_publish(l, cap->account);
    return true;
}

static void apply(struct call *c, struct cap *cap) {
    if (put(c, cap))
        cap_json(c, cap);
}

void cap_put_account(struct call *c, uint32_t account, uint32_t model_id, int64_t amount) {
    struct cap cap = { .id = c->l->accounts[account].id, .index = account, .account = account, .model_id = model_id,
                       .amount = amount };
    (void)put(c, &cap);
}

void call_cap_set(struct call *c) {
    struct cap cap = { .amount = -1 };
    if (who_argument(c, &cap) && model_argument(c, &cap) &&
        call_need(c, call_amount(c, "amount", &cap.amount), "amount"))
        apply(c, &cap);
}

void call_cap_remove(struct call *c) {
    struct cap cap = { .amount = -1 };
    if (who_argument(c, &cap) && model_argument(c, &cap))
        apply(c, &cap);
}

struct listing { struct call *c; bool all; struct cap only; };
static enum store_err list_one(void *arg, struct slice key, struct slice value) {
    const struct listing *n = arg;
    struct cap cap = { .of_key = key.ptr[0] == 'k', .id = be32_get(key.ptr + 1), .model_id = be32_get(key.ptr + 5) };
    (void)row_read(value, &cap.amount, sizeof cap.amount, NULL);
    if (n->all || (cap.of_key == n->only.of_key && cap.id == n->only.id))
        cap_json(n->c, &cap);
    return STORE_OK;
}

void call_cap_list(struct call *c) {
    struct listing n = { .c = c, .all = json_get(&c->json, 0, "who") < 0 };
    if ((!n.all && !who_argument(c, &n.only)) || !call_read(c))
        return;
    jw_object(c->w);
    jw_key(c->w, "caps");
    jw_array(c->w);
    (void)store_each(&c->l->store, DB_CAP, list_one, &n);
    store_read_end(&c->l->store);
    jw_end_array(c->w);
    jw_end_object(c->w);
}
