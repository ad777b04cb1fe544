/* Accounts: create, show, list, set, suspend, resume. Every change is committed, published to the shared tables, then
 * answered. */
#include <stdio.h>
#include "master/ledger/account.h"
#include "master/ledger/key.h"
#include "master/ledger/text.h"

void ledger_account_publish(struct ledger *l, uint32_t index) {
    const struct account_mem *a = &l->accounts[index];
    struct shm_account want = { .status = a->status,
                                .id = a->id,
                                .tier_id = a->tier_id,
                                .group_id = a->group_id,
                                .has_caps = a->caps > 0 },
                       is;
    if (shm_account_read(l->shm, index, &is) && is.status == want.status && is.id == want.id &&
        is.tier_id == want.tier_id && is.group_id == want.group_id && is.has_caps == want.has_caps)
        return;
    shm_account_publish(l->shm, index, &want);
    atomic_fetch_add(&l->shm->header->credits_epoch, 1);
}

bool account_row(struct ledger *l, uint32_t index, struct row_account *row, struct slice *email) {
    struct id_key key = key32(l->accounts[index].id);
    struct slice v;
    if (store_get(&l->store, DB_ACCOUNT, ID_SLICE(key), &v) != STORE_OK || !row_read(v, row, sizeof *row, email))
        return false;
    if (email->len > row->email_len)
        email->len = row->email_len;
    return true;
}

static void write_account(struct call *c, uint32_t index) {
    struct ledger *l = c->l;
    const struct account_mem *a = &l->accounts[index];
    struct row_account row = { 0 };
    struct slice email = SLICE_NONE;
    (void)account_row(l, index, &row, &email);
    int64_t available = atomic_load(&l->shm->account_words[index].available);
    jw_object(c->w);
    jw_key(c->w, "id");
    jw_id(c->w, ID_ACCOUNT, a->id);
    jw_key(c->w, "email");
    jw_str(c->w, email);
    jw_key(c->w, "tier");
    jw_cstr(c->w, ledger_name(l, NAME_TIER, a->tier_id));
    jw_key(c->w, "group");
    jw_cstr(c->w, ledger_name(l, NAME_GROUP, a->group_id));
    jw_key(c->w, "status");
    jw_cstr(c->w, a->status == ACCOUNT_SUSPENDED ? "suspended" : "active");
    jw_key(c->w, "balance");
    jw_amount(c, a->balance);
    jw_key(c->w, "held");
    jw_amount(c, (int64_t)((uint64_t)a->balance - (uint64_t)available));
    jw_key(c->w, "created_at");
    jw_time(c->w, row.created_at_s * 1000, false);
    jw_end_object(c->w);
}

static void show(struct call *c, uint32_t index) {
    if (!call_read(c))
        return;
    write_account(c, index);
    store_read_end(&c->l->store);
}

/* The permanent id of a tier or group that the configuration has. */
static enum arg plan_id(struct call *c, const char *name, uint32_t *id) {
    struct slice text;
    enum arg got = call_text(c, name, STORE_NAME, &text);
    if (got != ARG_OK)
        return got;
    const struct snap *s = c->l->conf;
    if (strcmp(name, "tier") == 0) {
        SNAP_EACH(s, s->tiers, struct snap_tier, t)
            if (slice_eq(snap_text(s, t->name), text)) {
                *id = t->id;
                return ARG_OK;
            }
    } else {
        SNAP_EACH(s, s->groups, struct snap_group, g)
            if (slice_eq(snap_text(s, g->name), text)) {
                *id = g->id;
                return ARG_OK;
            }
    }
    call_refuse(c, "invalid_value", "%s: the configuration has no %s \"%.*s\"", name, name, SLICE_ARG(text));
    return ARG_BAD;
}

struct creation {
    struct ledger *l;
    uint32_t id;
    struct row_account row;
    char email[STORE_EMAIL + 1];
    int64_t credit;
    int64_t now_ms;
    struct slice reason, password_hash;
    struct key_draft *first_key; /* NULL: none */
};
static enum store_err write_creation(struct store *s, void *arg) {
    struct creation *n = arg;
    char value[sizeof n->row + STORE_EMAIL];
    struct id_key key = key32(n->id), entry_key = key64(n->l->next_entry);
    memcpy(value, &n->row, sizeof n->row);
    memcpy(value + sizeof n->row, n->email, n->row.email_len);
    struct row_balance money = { .balance = n->credit, .last_entry = n->credit ? n->l->next_entry : 0 };
    struct row_entry row = { .account_id = n->id, .kind = ENTRY_CREDIT, .amount = n->credit, .balance = n->credit,
                             .time_ms = n->now_ms, .usage_seen = n->l->next_usage,
                             .reason_len = (uint16_t)n->reason.len };
    char entry[sizeof row + 16];
    CHECK(n->reason.len <= sizeof entry - sizeof row);
    memcpy(entry, &row, sizeof row);
    memcpy(entry + sizeof row, n->reason.ptr, n->reason.len);
    enum store_err err = store_append(s, DB_ACCOUNT, ID_SLICE(key), slice_of(value, sizeof n->row + n->row.email_len));
    if (err == STORE_OK)
        err = store_put(s, DB_EMAIL, slice_of(n->email, n->row.email_len), ROW_SLICE(n->id));
    if (err == STORE_OK)
        err = store_append(s, DB_BALANCE, ID_SLICE(key), ROW_SLICE(money));
    if (err == STORE_OK && n->credit)
        err = store_append(s, DB_ENTRY, ID_SLICE(entry_key), slice_of(entry, sizeof row + n->reason.len));
    if (err == STORE_OK && n->password_hash.len)
        err = store_put(s, DB_LOGIN, ID_SLICE(key), n->password_hash);
    if (err == STORE_OK && n->first_key)
        err = key_first_write(s, n->first_key);
    return err;
}

/* The new account gets a place first (a full table refuses), and gives it back if the commit fails. */
static uint32_t commit_creation(struct call *c, struct creation *n, struct slice *secret) {
    struct ledger *l = c->l;
    n->id = l->next_account_id;
    uint32_t index = ledger_account_place(l, n->id);
    if (index == NO_INDEX) {
        call_refuse(c, "table_full", "there is no room for another account: raise max_accounts");
        return NO_INDEX;
    }
    if (n->first_key && !key_first_begin(c, index, n->first_key, secret)) {
        ledger_account_forget(l, index);
        return NO_INDEX;
    }
    recover_name(l->shm, index, NO_INDEX);
    enum store_err err = store_write(&l->store, write_creation, n);
    struct account_mem *a = &l->accounts[index];
    if (err != STORE_OK) {
        recover_unname(l->shm);
        if (n->first_key)
            key_first_undo(l, n->first_key);
        ledger_account_forget(l, index);
        call_store_failed(c, err);
        return NO_INDEX;
    }
    l->next_account_id++;
    *a = (struct account_mem){ .id = n->id,
                               .status = n->row.status,
                               .tier_id = n->row.tier_id,
                               .group_id = n->row.group_id,
                               .balance = n->credit,
                               .last_entry = n->credit ? l->next_entry : 0 };
    l->next_entry += n->credit ? 1 : 0;
    recover_credit(l->shm, index, n->credit);
    ledger_account_publish(l, index);
    recover_unname(l->shm);
    if (n->first_key)
        key_first_done(l, n->first_key);
    return index;
}

bool account_open(struct call *c, struct account_opening *o) {
    struct key_draft key;
    struct creation n = { .l = c->l, .now_ms = ledger_wall_ms(), .credit = o->credit, .reason = SLICE("signup"),
                          .password_hash = o->password_hash, .first_key = &key };
    n.row = (struct row_account){ .status = ACCOUNT_ACTIVE, .created_at_s = n.now_ms / 1000, .tier_id = o->tier_id,
                                  .group_id = o->group_id, .email_len = (uint32_t)strlen(o->email) };
    memcpy(n.email, o->email, sizeof n.email);
    o->index = commit_creation(c, &n, &o->secret);
    return o->index != NO_INDEX;
}

void call_account_create(struct call *c) {
    struct ledger *l = c->l;
    struct slice email;
    struct creation n = { .l = l, .now_ms = ledger_wall_ms(), .reason = SLICE("opening") };
    const struct snap *s = l->conf;
    n.row = (struct row_account){ .status = ACCOUNT_ACTIVE, .created_at_s = n.now_ms / 1000,
                                  .tier_id = SNAP_AT(s, s->tiers, struct snap_tier, s->default_tier)->id,
                                  .group_id = SNAP_AT(s, s->groups, struct snap_group, s->default_group)->id };
    if (!call_need(c, call_text(c, "email", 1000, &email), "email"))
        return;
    if (!email_normalise(email, n.email)) {
        call_refuse(c, "invalid_value", "email: \"%.*s\" is not an email address", SLICE_ARG(email));
        return;
    }
    n.row.email_len = (uint32_t)strlen(n.email);
    if (plan_id(c, "tier", &n.row.tier_id) == ARG_BAD || plan_id(c, "group", &n.row.group_id) == ARG_BAD ||
        call_amount(c, "credit", &n.credit) == ARG_BAD)
        return;
    uint32_t known;
    if (find_account(l, slice_str(n.email), &known)) {
        call_refuse(c, "exists", "there is an account with the email %s already", n.email);
        return;
    }
    uint32_t index = commit_creation(c, &n, NULL);
    if (index != NO_INDEX)
        show(c, index);
}

void call_account_show(struct call *c) {
    uint32_t index = call_account(c, "account");
    if (index != NO_INDEX)
        show(c, index);
}

static bool list_one(struct call *c, uint32_t id, void *arg) {
    uint32_t index = ledger_account_index(c->l, id);
    (void)arg;
    if (index != NO_INDEX)
        write_account(c, index);
    return index != NO_INDEX;
}

void call_account_list(struct call *c) { call_page(c, "accounts", c->l->next_account_id, list_one, NULL); }

struct change { struct ledger *l; uint32_t index, status, tier_id, group_id; };
static enum store_err write_change(struct store *s, void *arg) {
    struct change *n = arg;
    struct row_account row;
    struct slice email;
    if (!account_row(n->l, n->index, &row, &email))
        return STORE_BROKEN;
    char value[sizeof row + STORE_EMAIL];
    row.status = n->status;
    row.tier_id = n->tier_id;
    row.group_id = n->group_id;
    memcpy(value, &row, sizeof row);
    memcpy(value + sizeof row, email.ptr, email.len);
    struct id_key key = key32(n->l->accounts[n->index].id);
    return store_put(s, DB_ACCOUNT, ID_SLICE(key), slice_of(value, sizeof row + email.len));
}

static void change(struct call *c, struct change *n) {
    struct account_mem *a = &c->l->accounts[n->index];
    if (n->status != a->status || n->tier_id != a->tier_id || n->group_id != a->group_id) {
        enum store_err err = store_write(&c->l->store, write_change, n);
        if (err != STORE_OK) {
            call_store_failed(c, err);
            return;
        }
        a->status = n->status;
        a->tier_id = n->tier_id;
        a->group_id = n->group_id;
        ledger_account_publish(c->l, n->index);
    }
    show(c, n->index);
}

static bool begin_change(struct call *c, struct change *n) {
    uint32_t index = call_account(c, "account");
    if (index == NO_INDEX)
        return false;
    const struct account_mem *a = &c->l->accounts[index];
    *n = (struct change){ c->l, index, a->status, a->tier_id, a->group_id };
    return true;
}

void call_account_set(struct call *c) {
    struct change n;
    if (begin_change(c, &n) && plan_id(c, "tier", &n.tier_id) != ARG_BAD && plan_id(c, "group", &n.group_id) != ARG_BAD)
        change(c, &n);
}
void call_account_suspend(struct call *c) {
    struct change n;
    if (begin_change(c, &n)) {
        n.status = ACCOUNT_SUSPENDED;
        change(c, &n);
    }
}
void call_account_resume(struct call *c) {
    struct change n;
    if (begin_change(c, &n)) {
        n.status = ACCOUNT_ACTIVE;
        change(c, &n);
    }
}
