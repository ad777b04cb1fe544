/* A ledger in this process, on a folder and a segment of its own, with this process as its master and its workers.
 * Used by the tests and by tools/bench; failures of the rig itself are assertions. */
#ifndef TG_TEST_LEDGER_FIXTURE_H
#define TG_TEST_LEDGER_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "master/conf_tree.h"
#include "master/ledger/reader.h"
#include "master/ledger/text.h"
#include "shm/money.h"

struct rig {
    struct ledger l;
    struct ledger_heritage h;
    struct shm shm;
    struct shm_sizes sizes;
    char dir[64], segment[64], state[80];
    const char *conf_text;
    size_t map_bytes;
    int fail_read;          /* of a start: that many reads on, the loading meets one that fails */
    int rw_fd, ro_fd, wake_fd;
    struct pages pages;
    struct ipc master;
    struct arena arena;     /* of answers */
    struct money worker[2];
    uint32_t call_id, ids[4][64];
    char names[4][64][64];
    bool ready, fresh;
    char alert[1200];       /* the last one */
    unsigned alerts;
    bool attached;
};

static const char rig_conf[] =
    "listen 127.0.0.1:1; control c; state_dir s; upstream echo { dialect echo; }\n"
    "model gpt-4o { route echo; price input 2.75 output 11; max_output 100; context 1000; alias four; }\n"
    "model mini { route echo; price input 1 output 2; max_output 100; context 1000; }\n"
    "model fam/* { route echo as *; price input 1 output 2; max_output 100; context 1000; }\n"
    "tier free { rpm 20; } tier pro { } group resale { models *; ratio 2; }\n";
static const struct shm_sizes rig_sizes = { .max_accounts = 64, .max_keys = 64, .max_active = 64, .max_ranges = 4 };

static inline struct json rig_parse(struct rig *r, struct slice text) {
    struct json j;
    struct slice copy = arena_copy(&r->arena, text);
    CHECK(json_parse(&j, &r->arena, copy.ptr, copy.len));
    return j;
}

/* Turns until an answer with that id came (or, id 0, READY); its document. */
static inline struct json rig_wait(struct rig *r, uint32_t id) {
    struct ipc_frame f;
    for (int turns = 0; turns < 20000; turns++) {
        while (ipc_recv(&r->master, &f) == 1) {
            if (f.h.type == IPC_LEDGER_READY)
                r->ready = true;
            if (f.h.type == IPC_ALERT) {
                snprintf(r->alert, sizeof r->alert, "%.*s", SLICE_ARG(f.payload));
                r->alerts++;
            }
            if (f.h.type == IPC_ANSWER && f.h.id == id && id)
                return rig_parse(r, f.payload);
        }
        if (id == 0 && (r->ready || r->l.stop))
            return (struct json){ 0 };
        (void)ipc_flush(&r->master);
        (void)ledger_turn(&r->l, 1);
    }
    CHECK(!"no answer");
    return (struct json){ 0 };
}

static inline struct json rig_send(struct rig *r, uint32_t origin, struct slice text) {
    struct ipc_header h = { .type = IPC_CALL, .id = ++r->call_id, .origin = origin };
    int err = ipc_send(&r->master, &h, text, NULL, 0);
    CHECK(err == 0 || err == -EAGAIN);
    return rig_wait(r, r->call_id);
}

/* A call by the operator, single quotes standing for double ones. */
static inline struct json rig_call(struct rig *r, const char *fmt, ...) {
    char text[4096];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    CHECK(n < (int)sizeof text);
    for (char *p = text; *p; p++)
        *p = *p == '\'' ? '"' : *p;
    return rig_send(r, IPC_FROM_CONTROL, slice_of(text, (size_t)n));
}

/* A member by path: "result.usage.0.cost". Texts without quotes; "" if it is not there. */
static inline struct slice rig_at(struct rig *r, const struct json *j, const char *path) {
    int t = 0;
    char part[64];
    while (*path && t >= 0) {
        size_t n = strcspn(path, ".");
        snprintf(part, sizeof part, "%.*s", (int)n, path);
        path += n + (path[n] == '.');
        if (json_is(j, t, JSON_ARRAY)) {
            int array = t, want = (int)strtol(part, NULL, 10);
            t = json_first(j, array);
            for (int i = 0; t >= 0 && i < want; i++)
                t = json_next(j, array, t);
        } else {
            t = json_get(j, t, part);
        }
    }
    if (t < 0)
        return SLICE("");
    return json_is(j, t, JSON_STRING) ? json_str(j, t, &r->arena) : json_span(j, t);
}
static inline int rig_array(const struct json *j, const char *name) {
    return json_get(j, json_get(j, 0, "result"), name);
}

static inline uint32_t rig_name_id(void *arg, enum name_kind kind, const char *name) {
    struct rig *r = arg;
    for (uint32_t id = 1; id < 64; id++)
        if (strcmp(r->names[kind][id], name) == 0)
            return id;
    return 0;
}
static inline uint32_t rig_series(void *arg, uint32_t model_id, uint32_t upstream_id) {
    (void)arg;
    return (model_id * 16 + upstream_id) % SHM_MAX_SERIES;
}

static inline void rig_intern(void *arg, enum name_kind kind, const char *name) {
    static const char *const kinds[] = { "model", "upstream", "tier", "group" };
    struct rig *r = arg;
    char text[256];
    int n = snprintf(text, sizeof text, "{\"cmd\":\"names.intern\",\"names\":[{\"kind\":\"%s\",\"name\":\"%s\"}]}",
                     kinds[kind], name);
    struct json j = rig_send(r, IPC_FROM_MASTER, slice_of(text, (size_t)n));
    uint64_t id = 0;
    CHECK(json_u64(&j, json_first(&j, rig_array(&j, "ids")), &id) && id > 0 && id < 64);
    snprintf(r->names[kind][id], sizeof r->names[kind][id], "%s", name);
}

static inline void rig_send_conf(struct rig *r) {
    char *errors = NULL;
    size_t len, bytes;
    FILE *err = open_memstream(&errors, &len);
    struct conf *c = conf_load_text("rig", slice_str(r->conf_text), err);
    fclose(err);
    if (!c)
        fprintf(stderr, "%s\n", errors);
    CHECK(c);
    free(errors);
    conf_each_name(c, rig_intern, r);
    struct conf_ids ids = { r, rig_name_id, rig_series };
    void *blob = conf_snapshot(c, &ids, 1, true, &bytes);
    CHECK(blob);
    int fd = memfd_create("conf", MFD_CLOEXEC);
    CHECK(write(fd, blob, bytes) == (ssize_t)bytes);
    uint64_t n = bytes;
    struct ipc_header h = { .type = IPC_LEDGER_CONF };
    CHECK(ipc_send(&r->master, &h, slice_of((char *)&n, sizeof n), &fd, 1) == 0);
    close(fd);
    free(blob);
    conf_free(c);
}

/* Starts the ledger; true: it is ready. False: it ended (r->alert says why). */
static inline bool rig_start(struct rig *r) {
    int fds[2];
    char err[256] = "";
    CHECK(ipc_pair(fds) == 0);
    pages_init(&r->pages, 16);
    arena_init(&r->arena, &r->pages, 64 << 20);
    ipc_open(&r->master, fds[1], &r->pages, 64 << 20);
    int rc = shm_open_segment(&r->shm, r->segment, &r->sizes, &r->rw_fd, &r->ro_fd, &r->fresh, err, sizeof err);
    if (rc)
        fprintf(stderr, "%s\n", err);
    CHECK(rc == 0);
    r->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    r->h =
        (struct ledger_heritage){ .shm = &r->shm, .state_dir = r->state, .channel_fd = fds[0], .wake_fd = r->wake_fd };
    rc = ledger_pepper(r->state, r->h.pepper, err, sizeof err);
    if (rc)
        fprintf(stderr, "%s\n", err);
    CHECK(rc == 0);
    struct store_options o = { .create = true, .map_bytes = r->map_bytes };
    r->ready = r->attached = false;
    if (ledger_setup(&r->l, &r->h, &o)) {
        rig_send_conf(r);
        r->l.store.fail_with = EIO;
        r->l.store.fail_read = r->fail_read;
    }
    rig_wait(r, 0);
    for (uint32_t i = 0; r->ready && i < 2; i++) {
        atomic_store(&r->shm.ranges[i].state, RANGE_LIVE);
        CHECK(money_attach(&r->worker[i], &r->shm, i) == 0);
        money_idle(&r->worker[i]);
        r->attached = true;
    }
    return r->ready;
}

static inline void rig_init(struct rig *r) {
    *r = (struct rig){ .sizes = rig_sizes, .conf_text = rig_conf, .map_bytes = 1 << 26 };
    static unsigned serial;
    snprintf(r->dir, sizeof r->dir, "/tmp/tollgate-ledger-XXXXXX");
    CHECK(mkdtemp(r->dir));
    snprintf(r->state, sizeof r->state, "%s/state", r->dir);
    CHECK(mkdir(r->state, 0700) == 0);
    snprintf(r->segment, sizeof r->segment, "/dev/shm/tollgate-ledger.%d.%u", (int)getpid(), serial++);
    unlink(r->segment);
}

/* clean: as IPC_STOP would; else as a kill -9 leaves it: nothing is written any more. */
static inline void rig_stop(struct rig *r, bool clean) {
    for (int i = 0; i < 2 && r->attached; i++)
        money_detach(&r->worker[i]);
    if (!clean)
        r->l.ready = false;
    readers_end(&r->l);
    ledger_close(&r->l);
    ipc_close(&r->master);
    arena_reset(&r->arena);
    pages_clear(&r->pages);
    shm_close(&r->shm);
    close(r->rw_fd);
    close(r->ro_fd);
    close(r->wake_fd);
}

static inline void rig_remove(struct rig *r) {
    static const char *const files[] = {
        "state/ledger.mdb", "state/ledger.mdb-lock", "state/pepper", "backup", "backup.tmp", "state", ""
    };
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char path[160];
        snprintf(path, sizeof path, "%s/%s", r->dir, files[i]);
        if (unlink(path) < 0)
            (void)rmdir(path);
    }
    unlink(r->segment);
}

/* Turns until everything that was pushed is committed. */
static inline void rig_commit(struct rig *r) {
    for (int turns = 0; drain_waiting(&r->l) > 0 && turns < 5000; turns++)
        (void)ledger_turn(&r->l, 1);
    struct ipc_frame f;
    while (ipc_recv(&r->master, &f) == 1)
        if (f.h.type == IPC_ALERT) {
            snprintf(r->alert, sizeof r->alert, "%.*s", SLICE_ARG(f.payload));
            r->alerts++;
        }
}

static inline uint64_t rig_id(struct slice text) {
    uint64_t id = 0;
    CHECK(id_read(text, ID_ACCOUNT, &id) || id_read(text, ID_KEY, &id));
    return id;
}

/* A tenant: account and key, as indices. */
struct tenant { uint32_t account, key; char account_id[ID_TEXT], key_id[ID_TEXT], secret[128]; };
static inline struct tenant rig_tenant(struct rig *r, const char *email, const char *credit, const char *limit) {
    struct tenant t;
    struct json j = rig_call(r, "{'cmd':'account.create','email':'%s','credit':'%s'}", email, credit);
    snprintf(t.account_id, sizeof t.account_id, "%.*s", SLICE_ARG(rig_at(r, &j, "result.id")));
    j = rig_call(r, limit ? "{'cmd':'key.create','account':'%s','limit':'%s'}" : "{'cmd':'key.create','account':'%s'}",
                 t.account_id, limit);
    snprintf(t.key_id, sizeof t.key_id, "%.*s", SLICE_ARG(rig_at(r, &j, "result.id")));
    snprintf(t.secret, sizeof t.secret, "%.*s", SLICE_ARG(rig_at(r, &j, "result.key")));
    t.account = ledger_account_index(&r->l, (uint32_t)rig_id(slice_str(t.account_id)));
    t.key = ledger_key_index(&r->l, (uint32_t)rig_id(slice_str(t.key_id)));
    CHECK(t.account != NO_INDEX && t.key != NO_INDEX);
    return t;
}

static inline struct shm_usage rig_usage(struct rig *r, const struct tenant *t, const char *model) {
    struct shm_usage u = { .account = t->account,
                           .key = t->key,
                           .account_id = r->l.accounts[t->account].id,
                           .key_id = r->l.keys[t->key].id,
                           .capped = r->l.keys[t->key].capped,
                           .upstream_id = 1,
                           .ratio_millionths = RATIO_ONE,
                           .started_at_ms = ledger_wall_ms() };
    u.model_id = rig_name_id(r, NAME_MODEL, strncmp(model, "fam/", 4) == 0 ? "fam/*" : model);
    u.model_len = (uint16_t)strlen(model);
    memcpy(u.model, model, u.model_len);
    u.request_id_len = 5;
    memcpy(u.request_id, "req-x", 5);
    return u;
}

/* Admits a call that holds `hold`; NULL: refused. */
static inline struct shm_slot *rig_admit(struct rig *r, uint32_t worker, const struct shm_usage *u, int64_t hold) {
    struct shm_slot *slot = money_begin(&r->worker[worker], u);
    CHECK(slot && money_concurrency(&r->worker[worker], slot, UINT64_MAX));
    if (money_hold(&r->worker[worker], slot, hold) == MONEY_OK)
        return slot;
    money_refuse(&r->worker[worker], slot, true);
    return NULL;
}
static inline struct shm_record rig_record(int64_t charge) {
    struct shm_record rec = { .charge = charge,
                              .cost_usd_nano = charge,
                              .status = 200,
                              .ttfb_ms = 5,
                              .duration_ms = 9,
                              .ended_at_us = ledger_wall_ms() * 1000 };
    rec.meters.n[METER_INPUT] = 10;
    rec.meters.n[METER_OUTPUT] = 20;
    return rec;
}
/* Ends the call of a slot with that charge. */
static inline void rig_settle(struct rig *r, uint32_t worker, struct shm_slot *slot, int64_t charge) {
    struct shm_record rec = rig_record(charge);
    money_settle(&r->worker[worker], slot, &rec);
}
/* A whole call; false: refused, for want of money. */
static inline bool rig_charge(struct rig *r, uint32_t worker, const struct tenant *t, const char *model,
                              int64_t charge) {
    struct shm_usage u = rig_usage(r, t, model);
    struct shm_slot *slot = rig_admit(r, worker, &u, charge);
    if (!slot)
        return false;
    rig_settle(r, worker, slot, charge);
    return true;
}
static inline int64_t rig_available(struct rig *r, const struct tenant *t) {
    return atomic_load(&r->shm.account_words[t->account].available);
}

/* The number of differences that an audit finds. */
static inline uint64_t rig_audit(struct rig *r) {
    struct json j = rig_call(r, "{'cmd':'audit'}");
    uint64_t n = UINT64_MAX;
    (void)json_u64(&j, rig_array(&j, "difference_count"), &n);
    if (n != 0)
        fprintf(stderr, "%.*s\n", (int)j.len, j.text);
    return n;
}

#endif
