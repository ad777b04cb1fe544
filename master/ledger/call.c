/* Calls: one table of commands, who may send them, and what their arguments look like. docs/rpc.md is the list for
 * readers.
 *
 * A command writes its result, one JSON value, or refuses with a code and a sentence; never both. A call from a
 * worker may only name what the table lets workers send, whatever the document says: the origin is the master's
 * stamp, not the worker's word. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include "master/ledger/http.h"
#include "master/ledger/text.h"

enum { OPERATOR = 1, MASTER = 2, WORKER = 4, EARLY = 8 /* served before the tables are loaded */ };
enum { MAX_ARGUMENTS = 8 << 20, MAX_RESULT = IPC_MAX_PAYLOAD - 4096 };

static const struct command { const char *name; unsigned who; void (*fn)(struct call *c); } commands[] = {
    { "account.create", OPERATOR, call_account_create },   { "account.list", OPERATOR, call_account_list },
    { "account.show", OPERATOR, call_account_show },       { "account.set", OPERATOR, call_account_set },
    { "account.suspend", OPERATOR, call_account_suspend }, { "account.resume", OPERATOR, call_account_resume },
    { "key.create", OPERATOR, call_key_create },           { "key.set", OPERATOR, call_key_set },
    { "key.show", OPERATOR, call_key_show },               { "key.revoke", OPERATOR, call_key_revoke },
    { "key.self", WORKER, call_key_show }, /* of the key that a request brought */
    { "key.list", OPERATOR, call_key_list },               { "key.import", OPERATOR, call_key_import },
    { "cap.set", OPERATOR, call_cap_set },                 { "cap.list", OPERATOR, call_cap_list },
    { "cap.remove", OPERATOR, call_cap_remove },
    { "credit", OPERATOR, call_credit },                   { "debit", OPERATOR, call_debit },
    { "balance", OPERATOR, call_balance },                 { "usage", OPERATOR, call_usage },
    { "audit", OPERATOR, call_audit },                     { "backup", OPERATOR, call_backup },
    { "ledger.status", OPERATOR | MASTER, call_ledger_status },
    { "names.intern", MASTER | EARLY, call_names_intern },
    /* What clients asked for over HTTP. The worker is believed nothing: each looks at the credential itself. */
    { "http.register", WORKER, call_http_register },       { "http.login", WORKER, call_http_login },
    { "http.keys", WORKER, call_http_keys },               { "http.key_create", WORKER, call_http_key_create },
    { "http.key_revoke", WORKER, call_http_key_revoke },   { "http.balance", WORKER, call_http_balance },
    { "http.usage", WORKER, call_http_usage },             { "http.cap", WORKER, call_http_cap },
    { "http.cap_set", WORKER, call_http_cap_set },
    { "http.admin_accounts", WORKER, call_http_admin },    { "http.admin_account_create", WORKER, call_http_admin },
    { "http.admin_account", WORKER, call_http_admin },     { "http.admin_account_set", WORKER, call_http_admin },
    { "http.admin_keys", WORKER, call_http_admin },        { "http.admin_key_create", WORKER, call_http_admin },
    { "http.admin_key_set", WORKER, call_http_admin },     { "http.admin_key_revoke", WORKER, call_http_admin },
    { "http.admin_credit", WORKER, call_http_admin },      { "http.admin_debit", WORKER, call_http_admin },
    { "http.admin_key", WORKER, call_http_admin },         { "http.admin_balance", WORKER, call_http_admin },
    { "http.admin_usage", WORKER, call_http_admin },
};

void call_refuse(struct call *c, const char *code, const char *fmt, ...) {
    if (c->refused)
        return;
    va_list args;
    va_start(args, fmt);
    c->refused = true;
    snprintf(c->code, sizeof c->code, "%s", code);
    vsnprintf(c->message, sizeof c->message, fmt, args);
    va_end(args);
}

void call_store_failed(struct call *c, enum store_err err) {
    if (err == STORE_DISK_FULL)
        call_refuse(c, "disk_full", "the ledger's disk is full; nothing was changed");
    else
        call_refuse(c, "internal", "the ledger's database failed: %s", c->l->store.message);
    ledger_store_failed(c->l, err);
}

void call_answer(struct ledger *l, uint32_t id, uint32_t origin, struct slice document) {
    struct ipc_header h = { .type = IPC_ANSWER, .id = id, .origin = origin };
    int err = ipc_send(&l->channel, &h, document, NULL, 0);
    if (err == -ENOBUFS) /* the master does not read: whoever waits will time out, and no other answer is better */
        ledger_alert(l, "an answer was lost: the master does not take what the ledger sends");
}

static void error_document(struct buf *out, const char *code, const char *message) {
    struct json_writer w;
    buf_consume(out, out->len);
    jw_init(&w, out);
    ipc_write_error(&w, slice_str(code), slice_str(message));
}

static const struct command *find_command(const struct call *c) {
    int cmd = json_get(&c->json, 0, "cmd");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (json_str_is(&c->json, cmd, commands[i].name))
            return &commands[i];
    return NULL;
}

static unsigned bit_of(uint32_t origin) {
    return origin == IPC_FROM_CONTROL ? OPERATOR : origin == IPC_FROM_MASTER ? MASTER : WORKER;
}

static void run(struct call *c, void *arg) {
    struct slice text = *(struct slice *)arg;
    if (text.len > MAX_ARGUMENTS || !json_parse(&c->json, c->arena, text.ptr, text.len) ||
        !json_is(&c->json, 0, JSON_OBJECT)) {
        call_refuse(c, "invalid_json", "a call is one JSON object");
        return;
    }
    const struct command *cmd = find_command(c);
    if (!cmd)
        call_refuse(c, "unknown_command", "there is no such command");
    else if (!(cmd->who & bit_of(c->origin)))
        call_refuse(c, "forbidden", "%s is not for this caller", cmd->name);
    else if (!c->l->ready && !(cmd->who & EARLY))
        call_refuse(c, "starting", "the ledger is starting; try again in a moment");
    else
        cmd->fn(c);
}

void call_take(struct ledger *l, uint32_t id, uint32_t origin, struct slice json) {
    call_perform(l, id, origin, run, &json);
}

void call_perform(struct ledger *l, uint32_t id, uint32_t origin, void (*fn)(struct call *c, void *arg), void *arg) {
    struct arena arena;
    struct buf out;
    struct json_writer w;
    arena_init(&arena, &l->pages, (size_t)MAX_ARGUMENTS * 16);
    buf_init(&out, &l->pages, IPC_MAX_PAYLOAD);
    struct call c = { .l = l, .id = id, .origin = origin, .arena = &arena, .w = &w };
    jw_init(&w, &out);
    jw_object(&w);
    jw_key(&w, "result");
    fn(&c, arg);
    if (!c.refused && !c.later) {
        jw_end_object(&w);
        if (w.failed || arena.overflow)
            call_refuse(&c, "too_large", "the answer is too large; ask for less at a time");
    }
    if (c.refused)
        error_document(&out, c.code, c.message);
    if (!c.later || c.refused)
        call_answer(l, id, origin, buf_slice(&out));
    if (out.len > 0)
        wipe(buf_ptr(&out), out.len); /* it may hold a new key */
    buf_release(&out);
    arena_reset(&arena);
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

enum arg call_text(struct call *c, const char *name, size_t max, struct slice *out) {
    int t = json_get(&c->json, 0, name);
    *out = SLICE_NONE;
    if (t < 0 || json_is(&c->json, t, JSON_NULL))
        return ARG_ABSENT;
    if (json_is(&c->json, t, JSON_STRING))
        *out = json_str(&c->json, t, c->arena);
    else if (json_is(&c->json, t, JSON_NUMBER))
        *out = json_raw(&c->json, t);
    if (!out->ptr || out->len > max || memchr(out->ptr, 0, out->len)) {
        call_refuse(c, "invalid_value", "%s: a text of at most %zu bytes is expected", name, max);
        return ARG_BAD;
    }
    return ARG_OK;
}

bool call_amount_at(struct call *c, int t, int64_t *out) {
    int places = ledger_places(c->l);
    struct slice text;
    if (json_is(&c->json, t, JSON_NUMBER))
        return json_fixed(&c->json, t, places, out) && *out >= 0;
    return json_is(&c->json, t, JSON_STRING) && (text = json_str(&c->json, t, c->arena)).ptr &&
           fixed_parse(text, places, out) && *out >= 0;
}

enum arg call_amount(struct call *c, const char *name, int64_t *out) {
    struct slice text;
    enum arg got = call_text(c, name, 64, &text);
    if (got == ARG_OK && !call_amount_at(c, json_get(&c->json, 0, name), out)) {
        call_refuse(c, "invalid_value", "%s: \"%.*s\" is not an amount (a plain decimal%s)", name, SLICE_ARG(text),
                    c->l->unit_tokens ? " without fraction" : " of at most 9 fractional digits");
        return ARG_BAD;
    }
    return got;
}

enum arg call_count(struct call *c, const char *name, uint64_t *out) {
    struct slice text;
    enum arg got = call_text(c, name, 64, &text);
    if (got == ARG_OK && !slice_to_u64(text, out)) {
        call_refuse(c, "invalid_value", "%s: \"%.*s\" is not a whole number", name, SLICE_ARG(text));
        return ARG_BAD;
    }
    return got;
}

enum arg call_flag(struct call *c, const char *name, bool *out) {
    int t = json_get(&c->json, 0, name);
    if (t < 0 || json_is(&c->json, t, JSON_NULL))
        return ARG_ABSENT;
    if (json_bool(&c->json, t, out))
        return ARG_OK;
    if (json_str_is(&c->json, t, "true") || json_str_is(&c->json, t, "false")) {
        *out = json_str_is(&c->json, t, "true");
        return ARG_OK;
    }
    call_refuse(c, "invalid_value", "%s: true or false is expected", name);
    return ARG_BAD;
}

enum arg call_time(struct call *c, const char *name, int64_t *out_ms) {
    struct slice text;
    enum arg got = call_text(c, name, 64, &text);
    if (got == ARG_OK && !time_parse(text, ledger_wall_ms(), out_ms)) {
        call_refuse(c, "invalid_value",
                    "%s: \"%.*s\" is not a time (2026-01-31, 2026-01-31T12:00:00Z, or an age as 30d)", name,
                    SLICE_ARG(text));
        return ARG_BAD;
    }
    return got;
}

bool call_need(struct call *c, enum arg got, const char *name) {
    if (got == ARG_ABSENT)
        call_refuse(c, "missing_field", "%s is missing", name);
    return got == ARG_OK;
}

bool find_account(struct ledger *l, struct slice text, uint32_t *index) {
    uint64_t id;
    char email[STORE_EMAIL + 1];
    if (id_read(text, ID_ACCOUNT, &id) && id < UINT32_MAX) {
        *index = ledger_account_index(l, (uint32_t)id);
        return *index != NO_INDEX;
    }
    if (!email_normalise(text, email) || store_read_begin(&l->store) != STORE_OK)
        return false;
    struct slice v;
    uint32_t found = 0;
    if (store_get(&l->store, DB_EMAIL, slice_str(email), &v) == STORE_OK)
        (void)row_read(v, &found, sizeof found, NULL);
    store_read_end(&l->store);
    *index = found ? ledger_account_index(l, found) : NO_INDEX;
    return *index != NO_INDEX;
}

bool find_secret(struct ledger *l, struct slice text, uint32_t *id) {
    uint8_t hash[32];
    struct slice v;
    if (text.len == 0 || store_read_begin(&l->store) != STORE_OK)
        return false;
    hmac_sign(&l->pepper, text.ptr, text.len, hash);
    bool ok = store_get(&l->store, DB_KEYHASH, slice_of((char *)hash, sizeof hash), &v) == STORE_OK &&
              row_read(v, id, sizeof *id, NULL);
    store_read_end(&l->store);
    return ok;
}

bool find_key(struct ledger *l, struct slice text, uint32_t *id) {
    uint64_t number;
    if (!id_read(text, ID_KEY, &number) || number == 0 || number >= l->next_key_id)
        return find_secret(l, text, id);
    *id = (uint32_t)number;
    return true;
}

uint32_t call_account(struct call *c, const char *name) {
    struct slice text;
    uint32_t index = NO_INDEX;
    if (!call_need(c, call_text(c, name, 512, &text), name))
        return NO_INDEX;
    if (!find_account(c->l, text, &index))
        call_refuse(c, "not_found", "there is no account \"%.*s\"", SLICE_ARG(text));
    return index;
}

bool call_key(struct call *c, const char *name, uint32_t *id, uint32_t *index) {
    struct slice text;
    if (!call_need(c, call_text(c, name, 512, &text), name))
        return false;
    if (!find_key(c->l, text, id)) {
        call_refuse(c, "not_found", "there is no such key"); /* without its text: it may be a secret */
        return false;
    }
    *index = ledger_key_index(c->l, *id);
    return true;
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

bool call_read(struct call *c) {
    enum store_err err = store_read_begin(&c->l->store);
    if (err != STORE_OK)
        call_store_failed(c, err);
    return err == STORE_OK;
}

void jw_amount(struct call *c, int64_t amount) {
    jw_fixed(c->w, amount, ledger_places(c->l), true);
}

void jw_count(struct json_writer *w, const char *name, uint64_t v) {
    jw_key(w, name);
    jw_u64(w, v);
}

void jw_id(struct json_writer *w, enum id_kind kind, uint64_t id) {
    char text[ID_TEXT];
    jw_str(w, slice_of(text, id_write(text, kind, id)));
}

void jw_time(struct json_writer *w, int64_t time_ms, bool with_ms) {
    char text[40];
    time_format(text, time_ms, with_ms);
    jw_cstr(w, text);
}

void call_page(struct call *c, const char *name, uint32_t end, bool (*each)(struct call *c, uint32_t id, void *arg),
               void *arg) {
    uint64_t limit = PAGE_MAX, after = 0, n = 0;
    if (call_count(c, "limit", &limit) == ARG_BAD || call_count(c, "cursor", &after) == ARG_BAD)
        return;
    if (limit == 0 || limit > PAGE_MAX)
        limit = PAGE_MAX;
    if (!call_read(c))
        return;
    jw_object(c->w);
    jw_key(c->w, name);
    jw_array(c->w);
    uint64_t id = after + 1;
    for (; id < end && n < limit; id++)
        n += each(c, (uint32_t)id, arg);
    store_read_end(&c->l->store);
    jw_end_array(c->w);
    jw_key(c->w, "next_cursor");
    if (id < end)
        jw_u64(c->w, id - 1);
    else
        jw_null(c->w);
    jw_end_object(c->w);
}
