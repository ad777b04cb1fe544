/* Credits, debits, balances: every change of a balance that is not a charge is an entry, and this is the only place
 * that writes one (an account's opening credit aside, which is written with the account).
 *
 * Rule 11: a credit names the account in shared memory, commits, raises the word; a debit lowers the word first, so
 * that no call can spend what is about to go. An idempotency key is remembered for ever, for all accounts: used again
 * for the same account and direction it answers as the first time; used for something else it is refused, because
 * somebody is mistaken. */
#include "master/ledger/call.h"

/* Changes a committed balance by an entry, and moves the word. */
struct money_move {
    uint32_t account;       /* index */
    int64_t amount;         /* signed */
    enum entry_kind kind;
    bool force;
    struct slice reason, idempotency_key;
    uint64_t entry;         /* out: its number, or that of the first one that had the idempotency key */
};
enum money_outcome { MOVE_OK, MOVE_TOO_MUCH, MOVE_CONFLICT, MOVE_OVERFLOW, MOVE_FAILED /* see *err */ };

struct entry_write {
    struct ledger *l;
    const struct money_move *m;
    struct row_entry row;
    int64_t floor;
};

static enum store_err write_entry(struct store *s, void *arg) {
    struct entry_write *w = arg;
    const struct money_move *m = w->m;
    char value[sizeof w->row + STORE_REASON + STORE_IDEM];
    memcpy(value, &w->row, sizeof w->row);
    if (m->reason.len)
        memcpy(value + sizeof w->row, m->reason.ptr, m->reason.len);
    if (m->idempotency_key.len)
        memcpy(value + sizeof w->row + m->reason.len, m->idempotency_key.ptr, m->idempotency_key.len);
    size_t len = sizeof w->row + m->reason.len + m->idempotency_key.len;
    struct id_key key = key64(w->l->next_entry), account = key32(w->row.account_id);
    enum store_err err = store_append(s, DB_ENTRY, ID_SLICE(key), slice_of(value, len));
    if (err == STORE_OK && m->idempotency_key.len)
        err = store_put(s, DB_IDEM, m->idempotency_key, ROW_SLICE(w->l->next_entry));
    struct slice v;
    struct row_balance money; /* as of the last checkpoint: charges since are not in it, and stay out */
    if (err == STORE_OK)
        err = store_get(s, DB_BALANCE, ID_SLICE(account), &v);
    if (err != STORE_OK || !row_read(v, &money, sizeof money, NULL))
        return err == STORE_OK || err == STORE_NONE ? STORE_BROKEN : err;
    if (__builtin_add_overflow(money.balance, w->row.amount, &money.balance))
        return STORE_BROKEN;
    money.floor = w->floor;
    money.last_entry = w->l->next_entry;
    return store_put(s, DB_BALANCE, ID_SLICE(account), ROW_SLICE(money));
}

/* Was the key used before? *entry gets the first one's id, 0: no. */
static enum store_err find_entry(struct ledger *l, struct slice idempotency_key, uint64_t *entry,
                                 struct row_entry *row) {
    struct slice v;
    *entry = 0;
    if (idempotency_key.len == 0)
        return STORE_OK;
    enum store_err err = store_read_begin(&l->store);
    if (err != STORE_OK)
        return err;
    err = store_get(&l->store, DB_IDEM, idempotency_key, &v);
    if (err == STORE_OK && !row_read(v, entry, sizeof *entry, NULL))
        err = STORE_BROKEN;
    if (err == STORE_OK) {
        struct id_key key = key64(*entry);
        err = store_get(&l->store, DB_ENTRY, ID_SLICE(key), &v);
        if (err != STORE_OK || !row_read(v, row, sizeof *row, NULL))
            err = STORE_BROKEN;
    }
    store_read_end(&l->store);
    return err == STORE_NONE ? STORE_OK : err;
}

/* How far below zero records may take the account from now on: what a forced debit left, until credits fill it. */
static int64_t floor_after(const struct ledger *l, const struct money_move *m) {
    int64_t lowest = l->accounts[m->account].floor;
    if (m->amount > 0)
        return lowest < 0 && lowest + m->amount < 0 ? lowest + m->amount : 0;
    int64_t available = atomic_load(&l->shm->account_words[m->account].available);
    return available < lowest ? available : lowest;
}

static enum money_outcome make_move(struct ledger *l, struct money_move *m, enum store_err *err) {
    struct account_mem *a = &l->accounts[m->account];
    struct row_entry first;
    *err = find_entry(l, m->idempotency_key, &m->entry, &first);
    if (*err != STORE_OK)
        return MOVE_FAILED;
    if (m->entry)
        return first.account_id == a->id && first.kind == m->kind ? MOVE_OK : MOVE_CONFLICT;
    int64_t after, half;
    if (__builtin_add_overflow(a->balance, m->amount, &after) || __builtin_add_overflow(after, m->amount, &half))
        return MOVE_OVERFLOW; /* a margin, so that sums on the way cannot either */
    recover_name(l->shm, m->account, NO_INDEX);
    if (m->amount < 0 && !recover_debit(l->shm, m->account, -m->amount, m->force)) {
        recover_unname(l->shm);
        return MOVE_TOO_MUCH;
    }
    struct entry_write w = { .l = l, .m = m, .floor = floor_after(l, m) };
    w.row = (struct row_entry){ .account_id = a->id,
                                .kind = m->kind,
                                .amount = m->amount,
                                .balance = after,
                                .time_ms = ledger_wall_ms(),
                                .prev_entry = a->last_entry,
                                .usage_seen = l->next_usage,
                                .reason_len = (uint16_t)m->reason.len,
                                .idem_len = (uint16_t)m->idempotency_key.len };
    *err = store_write(&l->store, write_entry, &w);
    if (*err == STORE_OK) {
        a->balance = after;
        a->floor = w.floor;
        a->last_entry = m->entry = l->next_entry++;
    }
    if (m->amount > 0 && *err == STORE_OK)
        recover_credit(l->shm, m->account, m->amount);
    else if (m->amount < 0 && *err != STORE_OK)
        recover_credit(l->shm, m->account, -m->amount);
    recover_unname(l->shm);
    return *err == STORE_OK ? MOVE_OK : MOVE_FAILED;
}

/* An entry as the contract's credit (or debit: the amount is positive there too). */
static void write_entry_json(struct call *c, uint64_t entry) {
    struct row_entry row;
    struct slice v, text = SLICE_NONE;
    struct id_key key = key64(entry);
    if (store_get(&c->l->store, DB_ENTRY, ID_SLICE(key), &v) != STORE_OK || !row_read(v, &row, sizeof row, &text) ||
        text.len < (size_t)row.reason_len + row.idem_len) {
        call_refuse(c, "internal", "entry %llu cannot be read", (unsigned long long)entry);
        return;
    }
    jw_object(c->w);
    jw_key(c->w, "id");
    jw_id(c->w, ID_ENTRY, entry);
    jw_key(c->w, "account");
    jw_id(c->w, ID_ACCOUNT, row.account_id);
    jw_key(c->w, "amount");
    jw_amount(c, row.kind == ENTRY_DEBIT ? -row.amount : row.amount);
    jw_key(c->w, "balance");
    jw_amount(c, row.balance);
    jw_key(c->w, "reason");
    jw_str(c->w, row.reason_len ? slice_of(text.ptr, row.reason_len) : SLICE_NONE);
    jw_key(c->w, "idempotency_key");
    jw_str(c->w, row.idem_len ? slice_of(text.ptr + row.reason_len, row.idem_len) : SLICE_NONE);
    jw_key(c->w, "created_at");
    jw_time(c->w, row.time_ms, false);
    jw_end_object(c->w);
}

static void refuse_too_much(struct call *c, const struct money_move *m) {
    char have[32], want[32];
    int64_t available = atomic_load(&c->l->shm->account_words[m->account].available);
    have[fixed_format(have, available, ledger_places(c->l))] = '\0';
    want[fixed_format(want, -m->amount, ledger_places(c->l))] = '\0';
    call_refuse(c, "insufficient_balance", "%s is available, %s was to be taken; force takes it all the same", have,
                want);
}

static void move(struct call *c, enum entry_kind kind) {
    struct money_move m = { .kind = kind };
    int64_t amount = 0;
    m.account = call_account(c, "account");
    if (m.account == NO_INDEX || !call_need(c, call_amount(c, "amount", &amount), "amount") ||
        call_text(c, "reason", STORE_REASON, &m.reason) == ARG_BAD ||
        call_text(c, "idempotency_key", STORE_IDEM, &m.idempotency_key) == ARG_BAD ||
        call_flag(c, "force", &m.force) == ARG_BAD)
        return;
    if (m.idempotency_key.ptr && m.idempotency_key.len == 0) {
        call_refuse(c, "invalid_value", "idempotency_key: must not be empty");
        return;
    }
    if (amount == 0) {
        call_refuse(c, "invalid_value", "amount: must be above zero");
        return;
    }
    m.amount = kind == ENTRY_DEBIT ? -amount : amount;
    enum store_err err;
    switch (make_move(c->l, &m, &err)) {
    case MOVE_OK: break;
    case MOVE_TOO_MUCH: refuse_too_much(c, &m); return;
    case MOVE_CONFLICT:
        call_refuse(c, "idempotency_conflict",
                    "the idempotency key was used for another account or the other direction");
        return;
    case MOVE_OVERFLOW: call_refuse(c, "invalid_value", "amount: the balance would exceed what can be counted"); return;
    case MOVE_FAILED: call_store_failed(c, err); return;
    }
    if (!call_read(c))
        return;
    write_entry_json(c, m.entry);
    store_read_end(&c->l->store);
}

void call_credit(struct call *c) { move(c, ENTRY_CREDIT); }
void call_debit(struct call *c) { move(c, ENTRY_DEBIT); }

void call_balance(struct call *c) {
    uint32_t index = call_account(c, "account");
    if (index == NO_INDEX)
        return;
    const struct account_mem *a = &c->l->accounts[index];
    int64_t available = atomic_load(&c->l->shm->account_words[index].available);
    jw_object(c->w);
    jw_key(c->w, "account");
    jw_id(c->w, ID_ACCOUNT, a->id);
    jw_key(c->w, "unit");
    jw_cstr(c->w, c->l->unit_tokens ? "tokens" : "usd");
    jw_key(c->w, "balance");
    jw_amount(c, a->balance);
    jw_key(c->w, "held");
    jw_amount(c, (int64_t)((uint64_t)a->balance - (uint64_t)available));
    jw_key(c->w, "available");
    jw_amount(c, available);
    jw_end_object(c->w);
}
