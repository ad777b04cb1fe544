/* Registering and logging in.
 *
 * Registering may tell that an address is known (there is no other honest answer), so it is counted per client.
 * Logging in tells nothing: an unknown address costs the same hash, counts the same, and gets the same answer as a
 * wrong password. An attempt is counted before its hash is made and given back if it succeeded, so that attempts in
 * parallel cannot outrun the limit. */
#include <stdio.h>
#include "master/ledger/account.h"
#include "master/ledger/http.h"
#include "master/ledger/text.h"

enum { LOGIN_WINDOW_MS = 60000, LOGIN_PER_ADDRESS = 10, LOGIN_PER_ACCOUNT = 5, SIGNUP_WINDOW_MS = 3600000 };

/* The body's email and password, as texts; false: answered. The password's bytes are the caller's to wipe. */
static bool read_body(struct call *c, struct slice *email, struct slice *password) {
    static const char *const names[] = { "email", "password" };
    struct slice *out[] = { email, password };
    for (unsigned i = 0; i < 2; i++) {
        int t = http_body(c, names[i]);
        if (t < 0 || json_is(&c->json, t, JSON_NULL)) {
            http_fail(c, 400, "missing_field", 0, "%s is required.", names[i]);
            return false;
        }
        *out[i] = json_str(&c->json, t, c->arena);
        if (!out[i]->ptr) {
            http_fail(c, 400, "invalid_value", 0, "%s must be a string.", names[i]);
            return false;
        }
    }
    return true;
}

/* Out of the request and out of what was decoded from it; both are this process's own memory. */
static void wipe_password(struct call *c, struct slice password) {
    int t = http_body(c, "password");
    if (t >= 0) {
        struct slice raw = json_raw(&c->json, t);
        wipe((char *)(uintptr_t)raw.ptr, raw.len);
    }
    if (password.len)
        wipe((char *)(uintptr_t)password.ptr, password.len);
}

static void too_busy(struct call *c) {
    http_fail(c, 503, "overloaded", 1,
              "The server is temporarily unable to take this request. Please try again shortly.");
}

static void too_often(struct call *c, uint64_t wait_s) {
    http_fail(c, 429, "rate_limit_exceeded", wait_s, "Too many attempts. Please try again in %llu seconds.",
              (unsigned long long)wait_s);
}

/* ---- register ---------------------------------------------------------------------------------------------------- */

/* 1234567 → 1,234,567; in dollars at least cents. */
static void grant_text(const struct ledger *l, int64_t amount, char *out, size_t n) {
    char plain[32], grouped[64];
    size_t len = fixed_format(plain, amount, ledger_places(l)), at = 0;
    const char *dot = memchr(plain, '.', len);
    size_t whole = dot ? (size_t)(dot - plain) : len;
    plain[len] = '\0';
    for (size_t i = 0; i < whole; i++) {
        if (i > 0 && (whole - i) % 3 == 0)
            grouped[at++] = ',';
        grouped[at++] = plain[i];
    }
    grouped[at] = '\0';
    if (l->unit_tokens)
        snprintf(out, n, "%s free tokens", grouped);
    else
        snprintf(out, n, "$%s%s%s free credit", grouped, dot ? dot : ".00", dot && len - whole == 2 ? "0" : "");
}

static void answer_registered(struct call *c, const struct account_opening *o) {
    struct http_doc d;
    struct buf token;
    char grant[96], message[160] = "Registration successful!";
    buf_init(&token, &c->l->pages, JWT_MAX);
    if (!auth_token(c, c->l->accounts[o->index].id, &token)) {
        buf_release(&token);
        http_fail(c, 500, "internal", 0, "The account was made, but no token could be. Please log in.");
        return;
    }
    if (o->credit) {
        grant_text(c->l, o->credit, grant, sizeof grant);
        snprintf(message, sizeof message, "Registration successful! %s granted.", grant);
    }
    http_doc_init(c, &d);
    jw_key(&d.w, "token");
    jw_str(&d.w, buf_slice(&token));
    jw_key(&d.w, "api_key");
    jw_str(&d.w, o->secret);
    jw_key(&d.w, "balance");
    jw_fixed(&d.w, o->credit, ledger_places(c->l), false);
    jw_key(&d.w, "message");
    jw_cstr(&d.w, message);
    http_ok(c, http_doc_end(&d));
    http_doc_free(&d);
    buf_release(&token);
}

static void known(struct call *c) {
    http_fail(c, 400, "exists", 0, "This email is already registered.");
}

static void registered(struct call *c, const struct password_job *job, const char *got, bool failed) {
    const struct snap *s = c->l->conf;
    struct account_opening o = { .tier_id = s->signup_tier_id, .group_id = s->signup_group_id,
                                 .credit = s->signup_credit, .password_hash = slice_str(got) };
    uint32_t index;
    memcpy(o.email, job->email, sizeof o.email);
    if (failed || !got) {
        too_busy(c);
    } else if (find_account(c->l, slice_str(job->email), &index)) { /* meanwhile */
        known(c);
    } else if (account_open(c, &o)) {
        answer_registered(c, &o);
        wipe((char *)(uintptr_t)o.secret.ptr, o.secret.len);
    } else {
        c->refused = false;
        http_refused(c, c);
    }
}

static bool register_checks(struct call *c, struct slice email, struct slice password, struct password_job *job) {
    uint64_t wait_s;
    uint32_t index;
    if (!email_normalise(email, job->email)) {
        http_fail(c, 400, "invalid_value", 0, "This is not a valid email address.");
        return false;
    }
    if (!password_fits(password)) {
        http_fail(c, 400, "invalid_value", 0, "The password must have at least %d characters (and at most %d bytes).",
                  PASSWORD_MIN, PASSWORD_MAX);
        return false;
    }
    if (!auth_count(c->l, COUNT_SIGNUPS, auth_client(c), c->l->conf->signup_rate_per_h, SIGNUP_WINDOW_MS, &wait_s)) {
        too_often(c, wait_s);
        return false;
    }
    if (find_account(c->l, slice_str(job->email), &index)) {
        known(c);
        return false;
    }
    return true;
}

void call_http_register(struct call *c) {
    struct password_job job = { .done = registered };
    struct slice email, password = SLICE_NONE;
    c->http = true;
    if (!c->l->conf->signup) {
        http_fail(c, 403, "signup_off", 0, "Registration is closed.");
        return;
    }
    if (!read_body(c, &email, &password))
        return;
    if (register_checks(c, email, password, &job) && !password_start(c, &job, password))
        too_busy(c);
    wipe_password(c, password);
}

/* ---- login ------------------------------------------------------------------------------------------------------- */

static void uncount_login(struct call *c, const struct password_job *job) {
    auth_uncount(c->l, COUNT_LOGIN_ADDRESS, slice_str(job->client));
    if (job->email[0])
        auth_uncount(c->l, COUNT_LOGIN_ACCOUNT, slice_str(job->email));
}

static void logged_in(struct call *c, const struct password_job *job, const char *got, bool failed) {
    struct http_doc d;
    struct buf token;
    uint32_t index = job->account_id ? ledger_account_index(c->l, job->account_id) : NO_INDEX;
    if (!failed && (!got || index == NO_INDEX)) {
        http_fail(c, 401, "invalid_credentials", 0, "Invalid email or password.");
        return;
    }
    uncount_login(c, job);
    if (failed) {
        too_busy(c);
        return;
    }
    if (c->l->accounts[index].status == ACCOUNT_SUSPENDED) { /* whoever knows the password may know this */
        http_fail(c, 403, "account_suspended", 0, "This account is suspended.");
        return;
    }
    buf_init(&token, &c->l->pages, JWT_MAX);
    if (auth_token(c, job->account_id, &token)) {
        http_doc_init(c, &d);
        jw_key(&d.w, "token");
        jw_str(&d.w, buf_slice(&token));
        jw_key(&d.w, "balance");
        jw_fixed(&d.w, atomic_load(&c->l->shm->account_words[index].available), ledger_places(c->l), false);
        http_ok(c, http_doc_end(&d));
        http_doc_free(&d);
    } else {
        too_busy(c);
    }
    buf_release(&token);
}

/* Which account and hash it is about; where there is none, one that cannot be right. false: no database, no memory. */
static bool find_login(struct call *c, struct password_job *job) {
    struct ledger *l = c->l;
    const char *dummy = password_dummy(l);
    struct slice v;
    uint32_t id = 0;
    if (!dummy || store_read_begin(&l->store) != STORE_OK)
        return false;
    if (store_get(&l->store, DB_EMAIL, slice_str(job->email), &v) == STORE_OK)
        (void)row_read(v, &id, sizeof id, NULL);
    struct id_key key = key32(id);
    bool found = store_get(&l->store, DB_LOGIN, ID_SLICE(key), &v) == STORE_OK && v.len < sizeof job->hash;
    if (found) {
        memcpy(job->hash, v.ptr, v.len);
        job->account_id = id;
    } else {
        memcpy(job->hash, dummy, sizeof job->hash);
    }
    store_read_end(&l->store);
    return true;
}

/* Counts the attempt for its address and its email; false: answered. */
static bool count_login(struct call *c, const struct password_job *job) {
    uint64_t wait_s;
    struct slice client = slice_str(job->client), email = slice_str(job->email);
    if (!auth_count(c->l, COUNT_LOGIN_ADDRESS, client, LOGIN_PER_ADDRESS, LOGIN_WINDOW_MS, &wait_s)) {
        too_often(c, wait_s);
        return false;
    }
    if (email.len == 0 || auth_count(c->l, COUNT_LOGIN_ACCOUNT, email, LOGIN_PER_ACCOUNT, LOGIN_WINDOW_MS, &wait_s))
        return true;
    auth_uncount(c->l, COUNT_LOGIN_ADDRESS, client); /* nothing was tried */
    too_often(c, wait_s);
    return false;
}

void call_http_login(struct call *c) {
    struct password_job job = { .done = logged_in };
    struct slice email, password = SLICE_NONE, client = auth_client(c);
    c->http = true;
    if (!read_body(c, &email, &password))
        return;
    if (!email_normalise(email, job.email))
        job.email[0] = '\0'; /* nobody's */
    snprintf(job.client, sizeof job.client, "%.*s", SLICE_ARG(client));
    if (count_login(c, &job)) {
        if (password.len > PASSWORD_MAX)
            password.len = 0; /* nobody's either */
        if (!find_login(c, &job) || !password_start(c, &job, password)) {
            uncount_login(c, &job);
            too_busy(c);
        }
    }
    wipe_password(c, password);
}
