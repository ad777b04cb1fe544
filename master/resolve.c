/* Names of upstreams → addresses in shared memory, by a helper process.
 *
 * The helper runs getaddrinfo (which blocks, and parses what strangers' name servers send), one name at a time, as the
 * unprivileged user and without the shared memory. The master keeps the list of hosts, asks for the one that is due
 * longest, and kills a helper that takes longer than a lookup may. Old addresses stay while new ones cannot be had.
 * Frames on its pair: IPC_CALL with the name, IPC_ANSWER with the addresses (17 bytes each; none: it failed). */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "master/master.h"
#include "proto/base/check.h"

enum { REFRESH_MS = 30000, RETRY_MS = 5000, URGENT_MS = 1000, LOOKUP_MS = 10000, RESTART_MS = 1000,
      QUEUE_BYTES = 65536 };

struct host {
    struct host *next;
    bool named, tried, failing;  /* named: by the configuration in use or the next */
    uint64_t due_ns, tried_ns, resolved_ns;
    uint32_t count;
    struct shm_address address[SHM_MAX_ADDRESSES];
    char name[256];
};

bool resolve_literal(struct slice host, struct shm_address *out) {
    char text[64];
    if (host.len == 0 || host.len >= sizeof text) return false;
    memcpy(text, host.ptr, host.len);
    text[host.len] = '\0';
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, text, out->bytes) == 1) out->family = 4;
    else if (inet_pton(AF_INET6, text, out->bytes) == 1) out->family = 6;
    return out->family != 0;
}

/* ---- the helper ------------------------------------------------------------------------------------------------ */

static uint32_t lookup(const char *name, struct shm_address *out) {
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    uint32_t n = 0;
    if (getaddrinfo(name, NULL, &hints, &list) != 0) return 0;
    for (const struct addrinfo *ai = list; ai && n < SHM_MAX_ADDRESSES; ai = ai->ai_next) {
        struct shm_address a = { 0 };
        if (ai->ai_family == AF_INET) {
            a.family = 4;
            memcpy(a.bytes, &((const struct sockaddr_in *)(const void *)ai->ai_addr)->sin_addr, 4);
        } else if (ai->ai_family == AF_INET6) {
            a.family = 6;
            memcpy(a.bytes, &((const struct sockaddr_in6 *)(const void *)ai->ai_addr)->sin6_addr, 16);
        } else {
            continue;
        }
        out[n++] = a;
    }
    freeaddrinfo(list);
    return n;
}

static void answer_one(struct ipc *ipc, const struct ipc_frame *f) {
    char name[256];
    struct shm_address found[SHM_MAX_ADDRESSES];
    if (f->payload.len >= sizeof name) _exit(1);
    memcpy(name, f->payload.ptr, f->payload.len);
    name[f->payload.len] = '\0';
    uint32_t n = lookup(name, found);
    struct ipc_header h = { .type = IPC_ANSWER, .id = f->h.id };
    if (ipc_send(ipc, &h, slice_of((const char *)found, n * sizeof *found), NULL, 0) != 0) _exit(1);
}

static _Noreturn void be_resolver(struct master *m, int channel_fd) {
    struct pages pages;
    struct ipc ipc;
    struct ipc_frame f;
    shm_close(&m->shm);
    spawn_drop(m);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    pages_init(&pages, 4);
    ipc_open(&ipc, channel_fd, &pages, QUEUE_BYTES);
    for (;;) {
        struct pollfd p = { .fd = channel_fd, .events = POLLIN };
        if (poll(&p, 1, -1) < 0 && errno != EINTR) _exit(1);
        int rc;
        while ((rc = ipc_recv(&ipc, &f)) == 1) answer_one(&ipc, &f);
        if (rc < 0) _exit(0);
    }
}

/* ---- the master's side ----------------------------------------------------------------------------------------- */

static void ask_next(struct master *m);

static bool all_tried(const struct master *m) {
    for (const struct host *h = m->resolver.hosts; h; h = h->next) {
        if (h->named && !h->tried) return false;
    }
    return true;
}

static void tell_settled(struct master *m) {
    if (!m->resolver.settled || !all_tried(m)) return;
    void (*fn)(struct master *) = m->resolver.settled;
    m->resolver.settled = NULL;
    fn(m);
}

/* The outcome for the host that was asked about: n addresses, 0 when it failed. */
static void outcome(struct master *m, const struct shm_address *a, uint32_t n) {
    struct host *h = m->resolver.asked;
    if (!h) return;
    m->resolver.asked = NULL;
    events_timer_clear(&m->events, &m->resolver.deadline);
    uint64_t now = events_mono_ns();
    h->tried = true;
    h->tried_ns = now;
    if (n > 0) {
        memcpy(h->address, a, n * sizeof *a);
        h->count = n;
        h->resolved_ns = now;
        if (h->failing) master_log(LOG_INFO, "%s resolves again", h->name);
    } else if (!h->failing) {
        master_log(LOG_ERROR, "cannot resolve %s; %s", h->name, h->count ? "the addresses known so far stay in use"
                   : "its upstream cannot be reached until it can: check the name and the machine's name servers");
    }
    h->failing = n == 0;
    h->due_ns = now + (uint64_t)(n ? REFRESH_MS : RETRY_MS) * 1000000u;
    if (n > 0 && m->config) resolve_publish(m, m->config->snap);
    tell_settled(m);
    ask_next(m);
}

static void on_frame(struct wire *c, const struct ipc_frame *f) {
    struct shm_address found[SHM_MAX_ADDRESSES];
    uint32_t n = (uint32_t)(f->payload.len / sizeof *found);
    if (f->h.type != IPC_ANSWER || f->payload.len % sizeof *found != 0 || n > SHM_MAX_ADDRESSES) return;
    if (n) memcpy(found, f->payload.ptr, f->payload.len);
    outcome(c->m, found, n);
}

static void lookup_too_slow(struct timer *t) {
    struct resolver *r = CONTAINER_OF(t, struct resolver, deadline);
    if (r->pid > 0) kill(r->pid, SIGKILL); /* resolve_reaped goes on */
    else outcome(r->m, NULL, 0);
}

static void next_due(struct timer *t) {
    ask_next(CONTAINER_OF(t, struct resolver, next)->m);
}

static struct host *longest_due(struct master *m) {
    struct host *best = NULL;
    for (struct host *h = m->resolver.hosts; h; h = h->next) {
        if (h->named && (!best || h->due_ns < best->due_ns)) best = h;
    }
    return best;
}

static void ask_next(struct master *m) {
    struct resolver *r = &m->resolver;
    if (r->asked || !r->channel.open) return;
    struct host *h = longest_due(m);
    if (!h) return;
    uint64_t now = events_mono_ns();
    if (h->due_ns > now) {
        events_timer_set(&m->events, &r->next, (h->due_ns - now) / 1000000 + 1, next_due);
        return;
    }
    struct ipc_header head = { .type = IPC_CALL };
    if (wire_send(&r->channel, &head, slice_str(h->name), NULL, 0) != 0) return; /* it is dying: resolve_reaped */
    r->asked = h;
    events_timer_set(&m->events, &r->deadline, LOOKUP_MS, lookup_too_slow);
}

static void restart(struct timer *t) {
    resolve_start(CONTAINER_OF(t, struct resolver, next)->m);
}

void resolve_start(struct master *m) {
    struct resolver *r = &m->resolver;
    if (r->pid > 0) return;
    int fds[2], rc = ipc_pair(fds);
    r->m = m;
    r->channel.on_frame = on_frame;
    r->last_start_ns = events_mono_ns();
    pid_t pid = rc == 0 ? spawn_fork(m, &fds[1], 1, "tg-resolver") : rc;
    if (pid == 0) be_resolver(m, fds[1]);
    if (rc == 0) close(fds[1]);
    if (pid < 0) {
        master_log(LOG_ERROR, "cannot start the resolver: %s", strerror(-pid));
        if (rc == 0) close(fds[0]);
        events_timer_set(&m->events, &r->next, RESTART_MS, restart);
        return;
    }
    r->pid = pid;
    CHECK(wire_open(&r->channel, m, fds[0], QUEUE_BYTES) == 0);
    ask_next(m);
}

void resolve_reaped(struct master *m, int status) {
    struct resolver *r = &m->resolver;
    char cause[96];
    r->pid = 0;
    wire_close(&r->channel);
    if (m->stopping == STOP_LEDGER) return;
    if (r->asked) master_log(LOG_WARN, "looking up %s ended with the resolver: %s", r->asked->name,
                             spawn_cause(status, cause, sizeof cause));
    else master_log(LOG_WARN, "the resolver ended: %s; it is restarted", spawn_cause(status, cause, sizeof cause));
    if (events_mono_ns() - r->last_start_ns > (uint64_t)RESTART_MS * 1000000u) resolve_start(m);
    else events_timer_set(&m->events, &r->next, RESTART_MS, restart);
    outcome(m, NULL, 0);
}

static struct host *find(struct master *m, struct slice name) {
    struct host *h = m->resolver.hosts;
    while (h && !slice_is(name, h->name)) h = h->next;
    return h;
}

static void learn_one(struct master *m, struct slice name) {
    struct shm_address literal;
    if (name.len == 0 || name.len >= sizeof ((struct host *)0)->name || resolve_literal(name, &literal)) return;
    struct host *h = find(m, name);
    if (!h) {
        h = calloc(1, sizeof *h);
        CHECK(h);
        memcpy(h->name, name.ptr, name.len);
        h->next = m->resolver.hosts;
        m->resolver.hosts = h;
    }
    h->named = true;
}

bool resolve_learn(struct master *m, const struct snap *snap) {
    SNAP_EACH(snap, snap->upstreams, struct snap_upstream, u) {
        if (u->dialect != DIALECT_ECHO) learn_one(m, snap_text(snap, u->host));
    }
    events_timer_clear(&m->events, &m->resolver.next);
    resolve_start(m);
    ask_next(m);
    return all_tried(m);
}

void resolve_forget_others(struct master *m, const struct snap *snap) {
    for (struct host **at = &m->resolver.hosts; *at;) {
        struct host *h = *at;
        h->named = false;
        SNAP_EACH(snap, snap->upstreams, struct snap_upstream, u) {
            h->named = h->named || slice_is(snap_text(snap, u->host), h->name);
        }
        if (h->named || h == m->resolver.asked) {
            at = &h->next;
            continue;
        }
        *at = h->next;
        free(h);
    }
}

void resolve_publish(struct master *m, const struct snap *snap) {
    uint64_t now = events_mono_ns();
    SNAP_EACH(snap, snap->upstreams, struct snap_upstream, u) {
        struct shm_address literal;
        struct slice name = snap_text(snap, u->host);
        if (u->dialect == DIALECT_ECHO || u->id >= SHM_MAX_UPSTREAMS) continue;
        if (resolve_literal(name, &literal)) {
            shm_addresses_publish(&m->shm, u->id, &literal, 1, now);
            continue;
        }
        const struct host *h = find(m, name);
        shm_addresses_publish(&m->shm, u->id, h ? h->address : NULL, h ? h->count : 0, h ? h->resolved_ns : now);
    }
}

void resolve_now(struct master *m, uint32_t upstream_id) {
    const struct snap_upstream *u = m->config ? snap_upstream_by_id(m->config->snap, upstream_id) : NULL;
    struct host *h = u ? find(m, snap_text(m->config->snap, u->host)) : NULL;
    uint64_t now = events_mono_ns();
    if (!h || h == m->resolver.asked || now - h->tried_ns < (uint64_t)URGENT_MS * 1000000u) return;
    h->due_ns = now;
    ask_next(m);
}

void resolve_end(struct master *m) {
    struct resolver *r = &m->resolver;
    if (r->pid > 0) kill(r->pid, SIGKILL);
    r->pid = 0; /* reaped as a stranger */
    r->asked = NULL;
    wire_close(&r->channel);
    events_timer_clear(&m->events, &r->next);
    events_timer_clear(&m->events, &r->deadline);
}

void resolve_stop(struct master *m) {
    resolve_end(m);
    while (m->resolver.hosts) {
        struct host *h = m->resolver.hosts;
        m->resolver.hosts = h->next;
        free(h);
    }
}
