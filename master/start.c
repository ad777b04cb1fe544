/* The start, step by step, each with a sentence for the operator when it fails; the signals; and the end.
 *
 * Before the loop turns the master may wait: for the lock that says that every process of an earlier server is gone.
 * All children inherit the lock's descriptor, so it is free only when the last of them has ended, and then whatever
 * the segment says is LIVE is dead. Only after that is shared memory touched. */
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "master/master.h"
#include "proto/base/check.h"
#include "proto/base/crypto.h"
#include "proto/base/version.h"
#include "shm/counters.h"

enum { LOCK_WAIT_MS = 15000, LOCK_POLL_MS = 20, PAGES_KEPT = 64, WANTED_DESCRIPTORS = 1 << 20 };

static bool fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static bool fail(const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    master_log(LOG_ERROR, "%s", text);
    return false;
}

/* ---- folders, user, lock --------------------------------------------------------------------------------------- */

/* Makes the folders that lead to path; with_last: path itself too, for its owner alone. What leads there is for all, so
 * that processes which drop to another user can come through. */
static bool make_folders(const char *path, bool with_last) {
    char part[4096];
    size_t n = strlen(path);
    if (n >= sizeof part) return fail("%s: too long", path);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && !(i == n && with_last)) continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, i == n && with_last ? 0700 : 0755) != 0 && errno != EEXIST && errno != EROFS)
            return fail("cannot make the folder %s: %s", part, strerror(errno));
    }
    return true;
}

static bool find_user(struct master *m, const char *user) {
    if (!user) return true;
    struct passwd *pw = getpwnam(user);
    if (!pw) return fail("user %s does not exist: make it, or change `user`", user);
    if (geteuid() == 0) {
        m->uid = pw->pw_uid;
        m->gid = pw->pw_gid;
    } else if (pw->pw_uid != geteuid()) {
        master_log(LOG_WARN, "not started as root: `user %s` has no effect", user);
    }
    return true;
}

/* The ledger works as m->uid: what an earlier start left to root becomes its own. Only plain files with one name. */
static bool give_state(struct master *m) {
    int dir = open(m->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) return fail("state_dir %s: %s", m->state_dir, strerror(errno));
    if (m->uid && fchown(dir, m->uid, m->gid) != 0)
        return fail("cannot give %s to the user: %s", m->state_dir, strerror(errno));
    DIR *list = m->uid ? fdopendir(dir) : NULL;
    if (!list) {
        close(dir);
        return true;
    }
    for (struct dirent *e; (e = readdir(list));) {
        int fd = openat(dir, e->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        struct stat st;
        if (fd < 0) continue;
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1 && st.st_uid == 0 &&
            fchown(fd, m->uid, m->gid) != 0)
            master_log(LOG_WARN, "cannot give %s/%s to the user: %s", m->state_dir, e->d_name, strerror(errno));
        close(fd);
    }
    closedir(list);
    return true;
}

/* True: locked. A signal that ends the server ends the wait. */
static bool take_lock(struct master *m, const sigset_t *ending) {
    char path[4200];
    snprintf(path, sizeof path, "%s/lock", m->state_dir);
    m->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (m->lock_fd < 0) return fail("cannot open %s: %s", path, strerror(errno));
    uint64_t give_up_ns = events_mono_ns() + (uint64_t)LOCK_WAIT_MS * 1000000u;
    for (bool said = false; flock(m->lock_fd, LOCK_EX | LOCK_NB) != 0; said = true) {
        if (errno != EWOULDBLOCK && errno != EINTR) return fail("cannot lock %s: %s", path, strerror(errno));
        if (events_mono_ns() > give_up_ns)
            return fail("another tollgate holds %s: it is running, or its processes have not ended", path);
        if (!said) master_log(LOG_INFO, "waiting for the processes of another tollgate to end (%s)", path);
        struct timespec pause = { .tv_nsec = LOCK_POLL_MS * 1000000 };
        if (sigtimedwait(ending, NULL, &pause) > 0) return fail("told to stop while waiting for the lock");
    }
    return true;
}

static void raise_limit(void) {
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) != 0) return;
    if (geteuid() == 0 && l.rlim_max < WANTED_DESCRIPTORS) {
        struct rlimit more = { WANTED_DESCRIPTORS, WANTED_DESCRIPTORS };
        if (setrlimit(RLIMIT_NOFILE, &more) == 0) return;
    }
    l.rlim_cur = l.rlim_max < WANTED_DESCRIPTORS ? l.rlim_max : WANTED_DESCRIPTORS;
    setrlimit(RLIMIT_NOFILE, &l);
}

/* ---- secrets and shared memory --------------------------------------------------------------------------------- */

static bool take_pepper(struct master *m) {
    char err[512] = "";
    int rc = ledger_pepper(m->state_dir, m->pepper, err, sizeof err);
    if (rc != 0) return fail("the pepper of the key hashes: %s", err[0] ? err : strerror(-rc));
    struct hmac_key key;
    static const char purpose[] = "tollgate sealed provider ids 1";
    hmac_key_init(&key, m->pepper, sizeof m->pepper);
    hmac_sign(&key, purpose, sizeof purpose - 1, m->seal_key);
    wipe(&key, sizeof key);
    return true;
}

/* The lock is ours: nobody of an earlier server lives, so a LIVE range is a dead worker's. The ledger settles it as
 * it starts. Series get their places anew with each start, so their figures begin at zero, as a scraper expects of a
 * restart. */
void master_take_over_segment(struct master *m) {
    for (uint32_t i = 0; i < m->shm.header->max_ranges; i++) {
        uint32_t live = RANGE_LIVE;
        atomic_compare_exchange_strong(&m->shm.ranges[i].state, &live, RANGE_DEAD);
        if (m->last_generation < m->shm.ranges[i].generation) m->last_generation = m->shm.ranges[i].generation;
    }
    memset(m->shm.series, 0, sizeof *m->shm.series * SHM_MAX_SERIES * m->shm.header->max_ranges);
    atomic_store(&m->shm.header->draining, 0);
}

static bool open_segment(struct master *m, const struct conf *conf) {
    const struct shm_sizes *sizes = &conf_server(conf)->sizes;
    char err[512] = "";
    bool fresh = false;
    if (!settle_old_segment(m, conf)) return false;
    int rc = shm_open_segment(&m->shm, m->shm_file, sizes, &m->shm_rw_fd, &m->shm_ro_fd, &fresh, err, sizeof err);
    if (rc != 0) return fail("shared memory %s (%zu bytes): %s", m->shm_file, shm_bytes(sizes),
                             err[0] ? err : strerror(-rc));
    if (!fresh) master_take_over_segment(m);
    master_log(LOG_INFO, "shared memory %s: %zu bytes, %s", m->shm_file, shm_bytes(sizes),
               fresh ? "new" : "taken over");
    return true;
}

/* ---- logs ------------------------------------------------------------------------------------------------------ */

/* Opens one log; where that fails the old descriptor stays. */
static void reopen(struct master *m, int *fd, const char *path, int without) {
    int next = path && path[0] ? errlog_open(path, m->uid, m->gid) : without;
    if (path && path[0] && next < 0) {
        master_log(LOG_ERROR, "cannot open the log %s: %s; %s", path, strerror(-next),
                   *fd >= 0 ? "the old one stays in use" : "it is off");
        return;
    }
    if (*fd > STDERR_FILENO) close(*fd);
    *fd = next;
}

static void open_logs(struct master *m, const char *access, const char *error, enum log_level level) {
    int old = m->error_log_fd;
    m->error_log_fd = old > STDERR_FILENO ? fcntl(old, F_DUPFD_CLOEXEC, 3) : old; /* so that a failure can be logged */
    errlog_to(m->error_log_fd, level);
    if (old > STDERR_FILENO) close(old);
    reopen(m, &m->error_log_fd, error, STDERR_FILENO);
    errlog_to(m->error_log_fd, level);
    reopen(m, &m->access_log_fd, access, -1);
}

void master_open_logs(struct master *m) {
    const struct conf_server *s = conf_server(m->config->conf);
    open_logs(m, s->access_log, s->error_log, (enum log_level)m->config->snap->log_level);
}

/* ---- signals --------------------------------------------------------------------------------------------------- */

static void one_signal(struct master *m, int number) {
    switch (number) {
    case SIGCHLD:
        spawn_children_changed(m);
        break;
    case SIGHUP:
        reload_request(m);
        break;
    case SIGUSR1:
        if (!m->config) break;
        master_open_logs(m);
        for (struct worker *w = m->workers; w; w = w->next) spawn_send_logs(w);
        master_log(LOG_INFO, "log files reopened");
        break;
    case SIGUSR2:
        upgrade_request(m, -1);
        break;
    case SIGTERM:
    case SIGINT:
        stop_graceful(m);
        break;
    case SIGQUIT:
        stop_fast(m);
        break;
    }
}

static void signalled(struct watch *w, uint32_t events) {
    (void)events;
    struct master *m = CONTAINER_OF(w, struct master, signals);
    struct signalfd_siginfo s;
    if (read(w->fd, &s, sizeof s) == sizeof s) one_signal(m, (int)s.ssi_signo);
}

static void catch_signals(sigset_t *ending) {
    sigset_t all;
    sigemptyset(ending);
    sigaddset(ending, SIGTERM);
    sigaddset(ending, SIGINT);
    sigaddset(ending, SIGQUIT);
    all = *ending;
    sigaddset(&all, SIGCHLD);
    sigaddset(&all, SIGHUP);
    sigaddset(&all, SIGUSR1);
    sigaddset(&all, SIGUSR2);
    sigprocmask(SIG_BLOCK, &all, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static bool open_loop(struct master *m) {
    sigset_t all;
    sigprocmask(SIG_BLOCK, NULL, &all);
    m->signal_fd = signalfd(-1, &all, SFD_NONBLOCK | SFD_CLOEXEC);
    if (m->wake_fd < 0) m->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (m->signal_fd < 0 || m->wake_fd < 0 || events_open(&m->events) != 0 ||
        events_watch(&m->events, &m->signals, m->signal_fd, EPOLLIN, signalled) != 0)
        return fail("cannot make the event loop: %s", strerror(errno));
    return true;
}

/* ---- all of it ------------------------------------------------------------------------------------------------- */

static void feed_watchdog(struct timer *t) {
    struct master *m = CONTAINER_OF(t, struct master, watchdog);
    notify("WATCHDOG=1\n");
    events_timer_set(&m->events, &m->watchdog, notify_watchdog_ms(), feed_watchdog);
}

void master_announce(struct master *m) {
    unsigned ready = 0;
    for (const struct worker *w = m->workers; w; w = w->next) ready += w->ready && !w->retiring && !w->foreign;
    if (m->announced || m->stopping || ready < m->workers_wanted) return;
    m->announced = true;
    errlog_mirror(false);
    notify("READY=1\nMAINPID=%d\nSTATUS=Serving\n", m->pid);
    upgrade_announced(m);
    master_log(LOG_INFO, "tollgate " TOLLGATE_VERSION " serves: %u workers, ledger pid %d", ready, (int)m->ledger.pid);
}

static bool begin(struct master *m, const struct conf_server *s, sigset_t *ending) {
    catch_signals(ending);
    m->state_dir = strdup(s->state_dir);
    m->control_path = strdup(s->control);
    m->shm_file = strdup(s->shm_file);
    CHECK(m->state_dir && m->control_path && m->shm_file);
    raise_limit();
    return find_user(m, s->user) && make_folders(m->state_dir, true) &&
           make_folders(m->control_path, false) && (!s->error_log || make_folders(s->error_log, false)) &&
           (!s->access_log || make_folders(s->access_log, false));
}

static bool prepare(struct master *m, const struct conf *conf) {
    const struct conf_server *s = conf_server(conf);
    char err[512] = "";
    sigset_t ending;
    if (!begin(m, s, &ending) || !take_lock(m, &ending)) return false;
    open_logs(m, s->access_log, s->error_log, LOG_INFO);
    if (!take_pepper(m) || !give_state(m) || !open_loop(m) || !open_segment(m, conf)) return false;
    if (control_listen(m, m->control_path, err, sizeof err) < 0) return fail("control: %s", err);
    return true;
}

/* Whether path is the file that fd is open on. */
static bool same_file(const char *path, int fd) {
    struct stat a, b;
    return stat(path, &a) == 0 && fstat(fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

const char *master_cannot_follow(const struct master *m, const struct conf *conf) {
    const struct conf_server *s = conf_server(conf);
    char lock[4200];
    struct sockaddr_un control = { 0 };
    socklen_t len = sizeof control - 1;
    struct shm_sizes z;
    snprintf(lock, sizeof lock, "%s/lock", s->state_dir);
    if (!same_file(lock, m->lock_fd)) return "state_dir needs a restart";
    if (!same_file(s->shm_file, m->shm_rw_fd)) return "shm_file needs a restart";
    if (getsockname(m->control_fd, (struct sockaddr *)&control, &len) != 0 || strcmp(control.sun_path, s->control) != 0)
        return "control needs a restart";
    if (!shm_peek(s->shm_file, &z)) return "the shared memory has another layout: this needs a restart";
    if (z.max_accounts != s->sizes.max_accounts || z.max_keys != s->sizes.max_keys ||
        z.max_active != s->sizes.max_active)
        return "max_accounts, max_keys and max_active need a restart";
    return NULL;
}

/* After an upgrade: the lock, the segment and the control socket are ours already. */
static bool prepare_inherited(struct master *m, const struct conf *conf) {
    const struct conf_server *s = conf_server(conf);
    sigset_t ending;
    if (!begin(m, s, &ending)) return false;
    open_logs(m, s->access_log, s->error_log, LOG_INFO);
    const char *why = master_cannot_follow(m, conf);
    if (why) return fail("%s", why);
    if (shm_attach(&m->shm, m->shm_rw_fd) != 0) return fail("the shared memory cannot be mapped");
    if (!take_pepper(m) || !open_loop(m)) return false;
    if (control_adopt(m) != 0) return fail("the control socket cannot be watched");
    return true;
}

static void finish(struct master *m) {
    control_close_listener(m);
    control_close_all(m);
    resolve_stop(m);
    sockets_close(m->listeners, NULL);
    m->listeners = NULL;
    reload_forget(m);
    events_close(&m->events);
    if (m->signal_fd >= 0) close(m->signal_fd);
    if (m->shm.header) {
        shm_note_settled(&m->shm);
        shm_close(&m->shm);
    }
    wipe(m->pepper, sizeof m->pepper);
    wipe(m->seal_key, sizeof m->seal_key);
    pages_clear(&m->pages);
    free(m->state_dir);
    free(m->control_path);
    free(m->shm_file);
}

void master_init(struct master *m) {
    m->pid = getpid();
    m->started_wall_ms = events_wall_ms();
    m->started_mono_ns = events_mono_ns();
    m->lock_fd = m->shm_rw_fd = m->shm_ro_fd = m->wake_fd = -1;
    m->signal_fd = m->control_fd = m->access_log_fd = m->events.epoll_fd = -1;
    m->error_log_fd = STDERR_FILENO;
    m->resolver.m = m->ledger.m = m;
    pages_init(&m->pages, PAGES_KEPT);
    reload_init(m);
}

int master_run(struct master *m, struct conf *conf) {
    bool inherits = m->upgrade.inherited != NULL;
    errlog_mirror(true);
    if (!(inherits ? prepare_inherited(m, conf) : prepare(m, conf))) {
        upgrade_back(m);
        conf_free(conf);
        finish(m);
        return 1;
    }
    if (!inherits) notify("STATUS=Starting\n");
    if (inherits) upgrade_adopt(m);
    if (inherits) spawn_children_changed(m); /* who died around the exec: its signal may be gone */
    reload_first(m, conf); /* before the first fork: from here on children forget it */
    resolve_start(m);
    if (!inherits) ledgerd_start(m);
    spawn_heartbeat_start(m);
    if (notify_watchdog_ms()) feed_watchdog(&m->watchdog);
    events_run(&m->events);
    master_log(LOG_INFO, "ended");
    finish(m);
    return m->exit_code;
}
