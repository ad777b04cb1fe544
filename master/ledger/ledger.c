/* The ledger process: hygiene, the loop, the frames from the master.
 *
 * Start: drop privileges, die with the master, open the database; serve names.intern at once, because the master
 * needs the permanent ids to build the ledger's own configuration; when that has come, load and publish the tables,
 * recover, say IPC_LEDGER_READY. A turn: look at the rings; commit when a group is large or old enough; else wait for
 * frames, the wake of a worker, or the group's time. When nothing has come for a while it says that it sleeps, looks
 * at the rings once more, and waits long. Ends: 0 when told to (or when the master is gone) and everything is
 * committed, 2 when a restart would not help (said in an IPC_ALERT and on standard error), else 1. */
#include "master/ledger/entry.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include "master/ledger/http.h"
#include "master/ledger/reader.h"

enum { GROUP_WAIT_MS = 8, GROUP_FULL = 512, IDLE_WAIT_MS = 400, OUT_MAX = 64 << 20 };
#define MAP_ALONE (1 << 20)  /* tables for a moment, as a span's counts: given back to the kernel when they are freed */
#define LINGER_NS 20000000u  /* after the last record: polls so long, then sleeps (and costs workers a wake) */
#define RETRY_NS 500000000u  /* after a full disk */
#define ALERT_EVERY_NS 10000000000u

uint64_t ledger_now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}
int64_t ledger_wall_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- alerts ------------------------------------------------------------------------------------------------------ */

void ledger_alert(struct ledger *l, const char *fmt, ...) {
    char text[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    struct ipc_header h = { .type = IPC_ALERT };
    (void)ipc_send(&l->channel, &h, slice_of(text, n < (int)sizeof text ? (size_t)n : sizeof text - 1), NULL, 0);
}

bool ledger_alert_due(struct ledger *l, enum alert_kind kind) {
    uint64_t now = ledger_now_ns();
    if (l->alerted_ns[kind] && now - l->alerted_ns[kind] < ALERT_EVERY_NS)
        return false;
    l->alerted_ns[kind] = now;
    return true;
}

static void set_shed(struct ledger *l, enum shm_shed why) {
    atomic_store(&l->shm->header->shed, (uint32_t)why);
}

static void fail(struct ledger *l, int status, const char *text) {
    fprintf(stderr, "ledger: %s\n", text);
    ledger_alert(l, "ledger: %s", text);
    l->stop = true;
    l->exit_status = status;
}

void ledger_store_failed(struct ledger *l, enum store_err err) {
    char text[512];
    switch (err) {
    case STORE_OK:
    case STORE_NONE:
        return;
    case STORE_DISK_FULL:
        set_shed(l, SHED_DISK_FULL);
        l->retry_ns = ledger_now_ns() + RETRY_NS;
        if (ledger_alert_due(l, ALERT_DISK))
            ledger_alert(l,
                         "the disk of state_dir is full (%s): new billable requests get 503 until there is room; "
                         "nothing is lost. Free some "
                         "space; the ledger tries again twice a second",
                         l->store.message);
        return;
    case STORE_IO:
        set_shed(l, SHED_LEDGER_FAILED);
        snprintf(
            text, sizeof text,
            "the disk of state_dir failed (%s): what reached it is unknown, and a later success would prove nothing. "
            "Billable requests get 503. Check the disk, stop tollgate, start it again, run `tollctl audit`; if that "
            "finds "
            "differences, restore a backup",
            l->store.message);
        fail(l, 2, text);
        return;
    case STORE_BROKEN:
        snprintf(text, sizeof text, "the database failed (%s); opening it anew", l->store.message);
        fail(l, 1, text);
        return;
    }
}

/* ---- what a recomputation of the words asks ---------------------------------------------------------------------- */

static int64_t account_committed(void *arg, uint32_t account) {
    return ((struct ledger *)arg)->accounts[account].balance;
}
static int64_t key_committed(void *arg, uint32_t key) {
    const struct key_mem *k = &((struct ledger *)arg)->keys[key];
    return k->capped ? (int64_t)((uint64_t)k->limit - (uint64_t)k->spent) : 0;
}
static uint64_t watermark(void *arg, uint32_t range) { return ((struct ledger *)arg)->watermark[range]; }
static bool quit(void *arg) {
    const struct ledger *l = arg;
    return l->heritage->master_pid > 0 && getppid() != l->heritage->master_pid;
}
static void hung(void *arg, uint32_t range) {
    struct ledger *l = arg;
    struct ipc_header h = { .type = IPC_WORKER_HUNG };
    (void)ipc_send(&l->channel, &h, slice_of((char *)&range, sizeof range), NULL, 0);
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

int ledger_take_conf(struct ledger *l, int fd, size_t bytes) {
    struct stat st;
    if (fstat(fd, &st) < 0 || (size_t)st.st_size < bytes || bytes < sizeof(struct snap))
        return -EINVAL;
    void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    if (!snap_valid(map, bytes)) {
        munmap(map, bytes);
        return -EINVAL;
    }
    if (l->conf)
        munmap((void *)(uintptr_t)l->conf, l->conf_bytes);
    l->conf = map;
    l->conf_bytes = bytes;
    return 0;
}

static void become_ready(struct ledger *l) {
    char err[400];
    enum store_err unit = ledger_meta_unit(l);
    if (unit == STORE_NONE)
        fail(l, 2,
             "billing { unit } differs from the unit that the database was made with: it cannot be changed. Put it "
             "back");
    if (unit != STORE_OK) {
        ledger_store_failed(l, unit);
        return;
    }
    if (!ledger_load(l, err, sizeof err)) {
        fail(l, quit(l) ? 1 : 2, err);
        return;
    }
    uint32_t shed = atomic_load(&l->shm->header->shed);
    if (shed != SHED_NO && shed != SHED_LEDGER_STUCK)
        set_shed(l, SHED_NO);
    l->ready = true;
    struct ipc_header h = { .type = IPC_LEDGER_READY };
    (void)ipc_send(&l->channel, &h, SLICE_NONE, NULL, 0);
}

static void conf_came(struct ledger *l, const struct ipc_frame *f) {
    uint64_t bytes = 0;
    if (f->payload.len == sizeof bytes)
        memcpy(&bytes, f->payload.ptr, sizeof bytes);
    int err = f->fd_count == 1 ? ledger_take_conf(l, f->fds[0], bytes) : -EINVAL;
    if (err) {
        fail(l, 1, "the configuration that came from the master cannot be read");
        return;
    }
    if (!l->ready)
        become_ready(l);
    else if (l->conf->unit_tokens != l->unit_tokens)
        ledger_alert(l, "billing { unit } cannot be changed while there is money in the other unit: the ledger goes on "
                        "with the old one");
}

static void take_frame(struct ledger *l, const struct ipc_frame *f) {
    switch (f->h.type) {
    case IPC_CALL:
        call_take(l, f->h.id, f->h.origin, f->payload);
        break;
    case IPC_LEDGER_CONF:
        conf_came(l, f);
        break;
    case IPC_WORKER_DEAD:
        if (l->ready && recover_dead(l->shm, &l->truth, &l->recover) < 0 && !quit(l))
            fail(l, 1, "out of memory while a dead worker was settled");
        break;
    case IPC_STOP:
        l->stop = true;
        break;
    default:
        break;
    }
    for (unsigned i = 0; i < f->fd_count; i++)
        close(f->fds[i]);
}

static void take_frames(struct ledger *l) {
    struct ipc_frame f;
    int got = 0;
    while (!l->stop && (got = ipc_recv(&l->channel, &f)) == 1)
        take_frame(l, &f);
    if (got < 0) /* the master is gone: commit what there is */
        l->stop = true;
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

static bool watch(struct ledger *l, int fd, uint32_t events, bool add) {
    struct epoll_event e = { .events = events, .data.fd = fd };
    return epoll_ctl(l->epfd, add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &e) == 0;
}

static void healed(struct ledger *l) {
    set_shed(l, SHED_NO);
    ledger_alert(l, "the disk of state_dir takes writes again: everything that waited is committed");
    l->retry_ns = 0;
    l->alerted_ns[ALERT_DISK] = 0;
}

/* Says how old the oldest uncommitted record is, before a commit may block. */
static void note_pending(struct ledger *l, uint64_t waiting, uint64_t now_ns) {
    if (waiting == 0)
        l->pending_since_ns = 0;
    else if (l->pending_since_ns == 0)
        l->pending_since_ns = now_ns;
    atomic_store_explicit(&l->shm->header->oldest_pending_ns, l->pending_since_ns, memory_order_release);
}

/* After the records: a checkpoint that is due (or that shows whether a full disk takes writes again), else the sync
 * that the last group left to whoever comes next. */
static void settle_down(struct ledger *l, bool idle) {
    bool full = atomic_load(&l->shm->header->shed) == SHED_DISK_FULL;
    enum store_err err = STORE_OK;
    if (full || (l->checkpoint_ns && ledger_now_ns() >= l->checkpoint_ns))
        err = checkpoint_commit(l);
    else if (idle)
        err = store_sync(&l->store);
    if (err != STORE_OK)
        ledger_store_failed(l, err);
    else if (full)
        healed(l);
}

/* Commits if a group is due, or if somebody waits for it. Returns how long the loop may wait at most, in ms. */
static int drain(struct ledger *l, bool awaited) {
    uint64_t now_ns = ledger_now_ns(), waiting = drain_waiting(l);
    note_pending(l, waiting, now_ns);
    if (l->retry_ns > now_ns)
        return (int)((l->retry_ns - now_ns) / 1000000) + 1;
    if (waiting == 0) {
        settle_down(l, true);
        return now_ns < l->sleep_after_ns ? GROUP_WAIT_MS : IDLE_WAIT_MS;
    }
    l->sleep_after_ns = now_ns + LINGER_NS;
    uint64_t age_ns = now_ns - l->pending_since_ns;
    if (waiting < GROUP_FULL && age_ns < GROUP_WAIT_MS * 1000000ull && !l->stop && !awaited)
        return (int)(GROUP_WAIT_MS - age_ns / 1000000);
    enum store_err err = drain_commit(l);
    if (err != STORE_OK) {
        ledger_store_failed(l, err);
        return RETRY_NS / 1000000;
    }
    if (atomic_load(&l->shm->header->shed) == SHED_DISK_FULL)
        healed(l);
    l->pending_since_ns = 0;
    settle_down(l, false);
    note_pending(l, drain_waiting(l), ledger_now_ns());
    return GROUP_WAIT_MS;
}

/* Announces sleep and looks once more: a worker that pushes now either is seen here or sees the flag. */
static bool fall_asleep(struct ledger *l) {
    atomic_store(&l->shm->shared->ledger_asleep, 1);
    atomic_thread_fence(memory_order_seq_cst);
    if (drain_waiting(l) == 0)
        return true;
    atomic_store(&l->shm->shared->ledger_asleep, 0);
    return false;
}

static void housekeeping(struct ledger *l) {
    uint64_t now_ns = ledger_now_ns();
    if (now_ns - l->readers_checked_ns < 5000000000u)
        return;
    l->readers_checked_ns = now_ns;
    store_check_readers(&l->store);
}

/* Who asks finds in the answer what it was charged before: one commit for all that ask at a time. */
static void handle(struct ledger *l, const struct epoll_event *e) {
    if (e->data.fd == l->channel.fd) {
        if ((e->events & EPOLLIN) && l->ready && drain_waiting(l) > 0)
            (void)drain(l, true);
        if (e->events & EPOLLOUT)
            (void)ipc_flush(&l->channel);
        take_frames(l);
    } else if (e->data.fd == l->heritage->wake_fd) {
        uint64_t n;
        ssize_t ignored = read(l->heritage->wake_fd, &n, sizeof n);
        (void)ignored;
    } else {
        if (!reader_input(l, e->data.fd))
            (void)password_input(l, e->data.fd);
    }
}

bool ledger_turn(struct ledger *l, int max_wait_ms) {
    struct epoll_event events[16];
    atomic_store_explicit(&l->shm->header->ledger_turn_ns, ledger_now_ns(), memory_order_relaxed);
    int wait_ms = l->ready ? drain(l, false) : IDLE_WAIT_MS;
    if (l->stop)
        return false;
    bool asleep = l->ready && wait_ms == IDLE_WAIT_MS && fall_asleep(l);
    if (l->ready && wait_ms == IDLE_WAIT_MS && !asleep)
        wait_ms = 0;
    if (l->checkpoint_ns && asleep) {
        uint64_t now_ns = ledger_now_ns();
        uint64_t left_ms = l->checkpoint_ns > now_ns ? (l->checkpoint_ns - now_ns) / 1000000 + 1 : 0;
        wait_ms = left_ms < (uint64_t)wait_ms ? (int)left_ms : wait_ms;
    }
    bool queued = l->channel.out_first != NULL;
    if (queued != l->channel_full && watch(l, l->channel.fd, queued ? EPOLLIN | EPOLLOUT : EPOLLIN, false))
        l->channel_full = queued;
    int n = epoll_wait(l->epfd, events, (int)ARRAY_LEN(events), wait_ms < max_wait_ms ? wait_ms : max_wait_ms);
    if (asleep)
        atomic_store(&l->shm->shared->ledger_asleep, 0);
    for (int i = 0; i < n; i++)
        handle(l, &events[i]);
    housekeeping(l);
    return true;
}

/* The last turn: everything that is in the rings, and a checkpoint, so that the next start has nothing to read twice.
 */
static void finish(struct ledger *l) {
    readers_end(l);
    passwords_end(l);
    auth_end(l);
    if (!l->ready || l->exit_status != 0)
        return;
    enum store_err err = STORE_OK;
    uint64_t until =
        l->count.records + drain_waiting(l); /* what a worker that still lives adds is for the next start */
    while (drain_waiting(l) > 0 && l->count.records < until && (err = drain_commit(l)) == STORE_OK)
        ;
    if (err == STORE_OK)
        err = checkpoint_commit(l);
    if (err != STORE_OK) {
        ledger_alert(l,
                     "the ledger stops with records that could not be committed (%s): they stay in shared memory and "
                     "are booked at the next start",
                     l->store.message);
        l->exit_status = err == STORE_IO ? 2 : drain_waiting(l) > 0 ? 1 : 0;
    }
    atomic_store(&l->shm->header->oldest_pending_ns, drain_waiting(l) ? ledger_now_ns() : 0);
}

bool ledger_setup(struct ledger *l, const struct ledger_heritage *h, const struct store_options *o) {
    char err[400] = "";
    *l = (struct ledger){ .heritage = h, .shm = h->shm, .epfd = -1 };
    pages_init(&l->pages, 64);
    ipc_open(&l->channel, h->channel_fd, &l->pages, OUT_MAX);
    hmac_key_init(&l->pepper, h->pepper, sizeof h->pepper);
    l->truth = (struct recover_truth){ .arg = l, .account_committed = account_committed, .key_committed = key_committed,
                                       .watermark = watermark, .quit = quit, .hung = hung };
    l->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (l->epfd < 0 || !watch(l, h->channel_fd, EPOLLIN, true) ||
        (h->wake_fd >= 0 && !watch(l, h->wake_fd, EPOLLIN, true))) {
        fail(l, 1, "no descriptors for the loop");
        return false;
    }
    if (store_open(&l->store, h->state_dir, o) != STORE_OK) {
        snprintf(err, sizeof err, "the database cannot be opened: %s", l->store.message);
        fail(l, 2, err);
        return false;
    }
    enum store_err e = ledger_meta_load(l, err, sizeof err);
    if (e != STORE_OK)
        fail(l, e == STORE_DISK_FULL ? 1 : 2, err);
    return e == STORE_OK;
}

void ledger_close(struct ledger *l) {
    finish(l);
    store_close(&l->store);
    (void)ipc_flush(&l->channel);
    ipc_close(&l->channel);
    if (l->conf)
        munmap((void *)(uintptr_t)l->conf, l->conf_bytes);
    if (l->epfd >= 0)
        close(l->epfd);
    ledger_unload(l);
    pages_clear(&l->pages);
}

/* ---- the process ------------------------------------------------------------------------------------------------- */

/* The state belongs to the user that the ledger drops to; root may have made it. */
static void hand_over(const struct ledger_heritage *h) {
    static const char *const files[] = { "", "/pepper", "/ledger.mdb", "/ledger.mdb-lock" };
    char path[4096];
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        if (snprintf(path, sizeof path, "%s%s", h->state_dir, files[i]) < (int)sizeof path)
            (void)!lchown(path, h->uid, h->gid);
}

static bool drop(const struct ledger_heritage *h) {
    if (h->uid == 0)
        return true;
    if (geteuid() == 0) {
        hand_over(h);
        if (setgroups(0, NULL) < 0 || setresgid(h->gid, h->gid, h->gid) < 0 || setresuid(h->uid, h->uid, h->uid) < 0)
            return false;
    }
    return geteuid() == h->uid;
}

_Noreturn void ledger_main(const struct ledger_heritage *h) {
    static struct ledger l;
    signal(SIGINT, SIG_IGN); /* the terminal's and systemd's are for the master, which sends IPC_STOP when it is time */
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk, not a death */
    umask(077);
    mallopt(M_MMAP_THRESHOLD, MAP_ALONE);
    if (!drop(h)) {
        fprintf(stderr, "ledger: cannot become user %u\n", h->uid);
        _exit(2);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* after the drop, which clears it */
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (h->master_pid > 0 && getppid() != h->master_pid)
        _exit(0);
    struct store_options o = { .create = true };
    if (ledger_setup(&l, h, &o))
        while (ledger_turn(&l, IDLE_WAIT_MS))
            ;
    ledger_close(&l);
    _exit(l.exit_status);
}
