/* From the file to what workers use: read, intern names, build, resolve, commit. The start is the first reload.
 *
 * Each step may refuse, and nothing is changed before the last: until then the running configuration is whole. Names
 * get their permanent ids from the ledger; those known already are not asked for again, so a reload without new names
 * needs no ledger. SIGHUPs that come while one is under way are answered by one more reload behind it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "master/master.h"
#include "proto/base/check.h"

enum { RESOLVE_MS = 2000, INTERN_MS = 30000 };

/* ---- the two blobs ----------------------------------------------------------------------------------------------- */

static uint32_t id_of(void *arg, enum name_kind kind, const char *name) {
    return names_find(((struct master *)arg)->reload.names, kind, name);
}

/* A pair keeps its place as long as the segment lives. Past the table's end all share the last one. */
static uint32_t series_of(void *arg, uint32_t model_id, uint32_t upstream_id) {
    struct reload *r = &((struct master *)arg)->reload;
    for (uint32_t i = 0; i < r->series_count; i++) {
        if (r->series[i].model_id == model_id && r->series[i].upstream_id == upstream_id) return i;
    }
    if (r->series_count == SHM_MAX_SERIES) return SHM_MAX_SERIES - 1;
    r->series[r->series_count] = (struct series_pair){ model_id, upstream_id };
    return r->series_count++;
}

static void config_free(struct config *c) {
    if (!c) return;
    if (c->snap) munmap((void *)(uintptr_t)c->snap, c->worker_bytes);
    if (c->worker_fd >= 0) close(c->worker_fd);
    if (c->ledger_fd >= 0) close(c->ledger_fd);
    if (c->conf) conf_free(c->conf);
    free(c);
}

/* A sealed memfd with these bytes, or -errno. The bytes are wiped and freed: they hold secrets. */
int reload_seal(void *blob, size_t bytes, const char *name) {
    int fd = blob ? memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING) : -1, error = blob ? errno : ENOMEM;
    for (size_t done = 0; fd >= 0 && done < bytes;) {
        ssize_t n = write(fd, (const char *)blob + done, bytes - done);
        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        if (n < 0 && errno == EINTR) continue;
        error = n < 0 ? errno : EIO;
        close(fd);
        fd = -1;
    }
    if (fd >= 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0) {
        error = errno;
        close(fd);
        fd = -1;
    }
    if (blob) wipe(blob, bytes);
    free(blob);
    return fd >= 0 ? fd : -error;
}

/* What the configuration may ask of this segment and of this process. */
static bool fits(const struct master *m, const struct config *c, char *err, size_t err_len) {
    SNAP_EACH(c->snap, c->snap->upstreams, struct snap_upstream, u) {
        if (u->id < SHM_MAX_UPSTREAMS) continue;
        snprintf(err, err_len,
                 "upstream %.*s: more than %u upstreams have had a name here; use one of the earlier names",
                 SLICE_ARG(snap_text(c->snap, u->name)), (unsigned)SHM_MAX_UPSTREAMS - 1);
        return false;
    }
    uint32_t ranges = m->shm.header->max_ranges, workers = conf_server(c->conf)->workers;
    if (workers + 1 < ranges) return true;
    snprintf(err, err_len, "workers %u needs a restart: the shared memory was made for at most %u", workers,
             ranges - 2);
    return false;
}

struct conf_ids reload_ids(struct master *m) {
    return (struct conf_ids){ m, id_of, series_of };
}

static bool build(struct master *m, struct config *c, char *err, size_t err_len) {
    struct conf_ids ids = reload_ids(m);
    void *worker = conf_snapshot(c->conf, &ids, c->generation, false, &c->worker_bytes);
    void *ledger = conf_snapshot(c->conf, &ids, c->generation, true, &c->ledger_bytes);
    c->worker_fd = reload_seal(worker, c->worker_bytes, "tollgate-snapshot");
    c->ledger_fd = reload_seal(ledger, c->ledger_bytes, "tollgate-ledger-snapshot");
    int error = c->worker_fd < 0 ? -c->worker_fd : c->ledger_fd < 0 ? -c->ledger_fd : 0;
    void *map = error ? MAP_FAILED : mmap(NULL, c->worker_bytes, PROT_READ, MAP_SHARED, c->worker_fd, 0);
    if (map == MAP_FAILED) {
        snprintf(err, err_len, "cannot build the snapshot: %s", strerror(error ? error : errno));
        return false;
    }
    c->snap = map;
    CHECK(snap_valid(map, c->worker_bytes));
    return fits(m, c, err, err_len);
}

/* ---- the steps ------------------------------------------------------------------------------------------------- */

static void start_reading(struct master *m);

static void end(struct master *m, const char *errors) {
    struct reload *r = &m->reload;
    r->phase = RELOAD_IDLE;
    events_timer_clear(&m->events, &r->deadline);
    calls_drop(m, r);
    if (m->announced) notify("READY=1\nSTATUS=Serving\n"); /* ends RELOADING */
    control_reload_done(m, errors);
    if (!r->again) return;
    r->again = false;
    control_reload_starts(m);
    start_reading(m);
}

static void log_lines(const char *errors) {
    while (*errors) {
        size_t n = strcspn(errors, "\n");
        if (n) master_log(LOG_ERROR, "%.*s", (int)n, errors);
        errors += n + (errors[n] == '\n');
    }
}

static void refuse(struct master *m, const char *errors) {
    struct reload *r = &m->reload;
    log_lines(errors);
    master_log(LOG_ERROR, "the configuration is refused%s", m->config ? "; the old one stays in use" : "");
    config_free(r->next);
    r->next = NULL;
    sockets_close(r->next_listeners, m->listeners);
    r->next_listeners = NULL;
    if (m->config) resolve_forget_others(m, m->config->snap);
    bool first = !m->config && m->stopping == STOP_NO;
    if (first) upgrade_back(m);
    if (first) r->again = false;
    end(m, errors);
    if (!first) return;
    m->exit_code = 1;
    stop_fast(m);
}

/* Each connection is up to two sockets; the rest is the worker's own. */
static void warn_of_descriptors(const struct master *m) {
    struct rlimit limit;
    uint64_t wanted = 2ull * m->config->snap->max_connections + 256;
    if (m->announced || getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
    master_log(LOG_WARN,
               "a process may open %llu descriptors, max_connections %u may need %llu: raise the limit (LimitNOFILE=)",
               (unsigned long long)limit.rlim_cur, m->config->snap->max_connections, (unsigned long long)wanted);
}

/* Nothing from here on can fail. */
static void commit(struct master *m) {
    struct reload *r = &m->reload;
    if (m->stopping != STOP_NO) {
        refuse(m, "the server is stopping");
        return;
    }
    struct config *old = m->config;
    struct listener *old_listeners = m->listeners;
    m->config = r->next;
    r->next = NULL;
    m->listeners = r->next_listeners;
    r->next_listeners = NULL;
    m->workers_wanted = conf_server(m->config->conf)->workers;
    resolve_publish(m, m->config->snap);
    resolve_forget_others(m, m->config->snap);
    master_open_logs(m);
    warn_of_descriptors(m);
    if (old) ledgerd_send_config(m);
    for (struct worker *w = m->workers; w; w = w->next) {
        if (w->retiring || w->foreign) continue;
        spawn_send_logs(w);
        spawn_send_config(w);
        spawn_send_listeners(w);
    }
    sockets_close(old_listeners, m->listeners);
    config_free(old);
    master_log(LOG_INFO, "configuration %llu is in use: %u models, %u upstreams, %u workers",
               (unsigned long long)m->config->generation, m->config->snap->models.count,
                   m->config->snap->upstreams.count,
               m->workers_wanted);
    spawn_reconcile(m);
    master_announce(m); /* after a failed upgrade the workers are there already */
    end(m, NULL);
}

static void commit_or_wait(struct master *m) {
    if (m->ledger.ever_ready) commit(m);
    else m->reload.phase = RELOAD_WAITING_LEDGER;
}

static void settled(struct master *m) {
    if (m->reload.phase == RELOAD_RESOLVING) commit_or_wait(m);
}

static void out_of_time(struct timer *t) {
    struct master *m = CONTAINER_OF(t, struct reload, deadline)->m;
    if (m->reload.phase == RELOAD_RESOLVING) {
        m->resolver.settled = NULL;
        commit_or_wait(m); /* names that are late are published when they come */
    } else if (m->reload.phase == RELOAD_INTERNING) {
        refuse(m, "the ledger does not answer: new names cannot be registered; try again");
    }
}

/* Every name has its id. */
static void names_known(struct master *m) {
    struct reload *r = &m->reload;
    char err[512] = "";
    r->next->generation = ++r->last_generation;
    if (!build(m, r->next, err, sizeof err) || !sockets_prepare(r->next->snap, m->listeners, &r->next_listeners, err,
                                                                sizeof err)) {
        refuse(m, err);
        return;
    }
    r->phase = RELOAD_RESOLVING;
    if (!m->config) ledgerd_send_config(m); /* it is not ready before it has one */
    if (resolve_learn(m, r->next->snap)) {
        commit_or_wait(m);
        return;
    }
    m->resolver.settled = settled;
    events_timer_set(&m->events, &r->deadline, RESOLVE_MS, out_of_time);
}

/* ---- interning ------------------------------------------------------------------------------------------------- */

static void interned(struct call *call, struct slice answer) {
    struct master *m = CONTAINER_OF((struct reload *)call->owner, struct master, reload);
    struct reload *r = &m->reload;
    if (names_take(&r->names, r->next->conf, &m->pages, answer)) {
        events_timer_clear(&m->events, &r->deadline);
        names_known(m);
    } else if (!slice_eq(answer, CALLS_UNAVAILABLE)) {
        char text[256];
        snprintf(text, sizeof text, "the ledger refuses new names: %.*s", (int)(answer.len > 160 ? 160 : answer.len),
                 answer.ptr);
        refuse(m, text);
    } /* else: the next ledger is asked, reload_ledger_up */
}

static void intern(struct master *m) {
    struct reload *r = &m->reload;
    struct buf text;
    int unknown = names_request(r->names, r->next->conf, &m->pages, &text);
    if (unknown < 0) {
        refuse(m, "too many names for one reload");
    } else if (unknown == 0) {
        events_timer_clear(&m->events, &r->deadline);
        names_known(m);
    } else if (m->ledger.failed) {
        refuse(m, "the ledger has stopped for good, so new names cannot be registered: restart the server");
    } else {
        calls_send(m, IPC_FROM_MASTER, buf_slice(&text), r, 0, interned); /* not sent: reload_ledger_up asks again */
    }
    buf_release(&text);
}

void reload_ledger_up(struct master *m) {
    if (m->reload.phase == RELOAD_INTERNING) intern(m);
}

void reload_ledger_ready(struct master *m) {
    if (m->reload.phase == RELOAD_WAITING_LEDGER) commit(m);
}

void reload_ledger_gone(struct master *m, bool for_good) {
    if (for_good && m->reload.phase == RELOAD_INTERNING)
        refuse(m, "the ledger has stopped for good: restart the server");
}

/* ---- beginning ------------------------------------------------------------------------------------------------- */

static void go_on_with(struct master *m, struct conf *conf) {
    struct reload *r = &m->reload;
    r->next = calloc(1, sizeof *r->next);
    CHECK(r->next);
    *r->next = (struct config){ .conf = conf, .worker_fd = -1, .ledger_fd = -1 };
    r->phase = RELOAD_INTERNING;
    if (m->config) events_timer_set(&m->events, &r->deadline, INTERN_MS, out_of_time);
    intern(m);
}

static void start_reading(struct master *m) {
    char *errors = NULL;
    size_t n = 0;
    FILE *err = open_memstream(&errors, &n);
    CHECK(err);
    notify_reloading();
    struct conf *conf = conf_load(m->conf_path, err);
    bool ok = conf && conf_can_follow(m->config->conf, conf, err);
    fclose(err);
    if (n > 0 && errors[n - 1] == '\n') errors[n - 1] = '\0'; /* a line each, as lines of one text */
    if (ok) {
        go_on_with(m, conf);
    } else {
        if (conf) conf_free(conf);
        refuse(m, errors);
    }
    free(errors);
}

void reload_init(struct master *m) {
    m->reload = (struct reload){ .m = m };
    m->reload.series = calloc(SHM_MAX_SERIES, sizeof *m->reload.series);
    CHECK(m->reload.series);
}

void reload_first(struct master *m, struct conf *conf) {
    go_on_with(m, conf);
}

void reload_request(struct master *m) {
    if (m->stopping != STOP_NO) return;
    if (!m->config || m->reload.phase != RELOAD_IDLE) {
        m->reload.again = true;
        return;
    }
    control_reload_starts(m);
    start_reading(m);
}

void reload_forget(struct master *m) {
    config_free(m->config);
    config_free(m->reload.next);
    m->config = m->reload.next = NULL;
    names_free(&m->reload.names);
    free(m->reload.series);
    m->reload.series = NULL;
}
