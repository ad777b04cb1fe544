/* SIGUSR2: the binary now at the same path takes over, in place: the same process, the same children, the same sockets.
 *
 * The old side: the new binary is run as --probe (configuration, shared layout, database format) by a child; then the
 * master comes to rest (no call under way, nothing queued in a channel), writes what it holds into a memfd, and
 * execs. The new side: descriptors and children are taken from that memfd instead of being made; the old ledger is
 * told to stop and reaped before the new one opens the database (meanwhile the rings take what is finished); new
 * workers start on spare ranges; when all serve, the old ones drain. Until then everything can be undone: whatever
 * refuses (the configuration, the ledger, a worker) makes the new master exec the old binary back from a descriptor
 * that was kept, with the same memfd turned round: then the new binary's workers are the ones that drain. Workers of
 * the other binary never get a snapshot from this one: its layout may differ. A refusal before the first exec costs
 * nothing. One after the last way back (the old binary cannot start either) ends the server as any failed start does:
 * the money is in shared memory. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "master/master.h"
#include "proto/base/check.h"
#include "proto/base/version.h"

#define STATE_VARIABLE "TOLLGATE_UPGRADE"
#define STATE_MAGIC 0x3165746174537054ull

enum { MAX_WORKERS = 1024, PROBE_MS = 30000, REST_MS = 5000, REST_POLL_MS = 5, TAKE_OVER_MS = 60000,
       YOUNG_DEATHS = 5 };

/* What crosses the exec. The first four fields stand for ever, so that any binary can find the way back. */
struct upgrade_state {
    uint64_t magic;
    uint32_t bytes;     /* of this struct: another size is another binary's */
    int32_t back_fd;    /* the binary that wrote this */
    uint32_t returning; /* the new one could not: this is the way back */
    int32_t lock_fd, shm_rw_fd, shm_ro_fd, wake_fd, control_fd, reply_fd;
    uint64_t started_wall_ms, started_mono_ns, config_generation;
    uint32_t last_generation;
    int32_t ledger_pid, ledger_fd; /* 0, -1: none */
    char exe_path[4096];
    uint32_t listeners, workers, series_count;
    struct { uint64_t id; int32_t fd; char address[256]; } listener[IPC_MAX_FDS];
    struct { int32_t pid, fd; uint32_t range, generation, ready, retiring, foreign; } worker[MAX_WORKERS];
    struct series_pair series[SHM_MAX_SERIES];
};

/* ---- descriptors over exec -------------------------------------------------------------------------------------- */

static void keep_over_exec(int fd, bool keep) {
    if (fd >= 0) fcntl(fd, F_SETFD, keep ? 0 : FD_CLOEXEC);
}

static void each_descriptor(const struct upgrade_state *s, bool keep) {
    const int one[] = { s->back_fd, s->lock_fd, s->shm_rw_fd, s->shm_ro_fd, s->wake_fd, s->control_fd, s->reply_fd,
                        s->ledger_fd };
    for (size_t i = 0; i < ARRAY_LEN(one); i++) keep_over_exec(one[i], keep);
    for (uint32_t i = 0; i < s->listeners; i++) keep_over_exec(s->listener[i].fd, keep);
    for (uint32_t i = 0; i < s->workers; i++) keep_over_exec(s->worker[i].fd, keep);
}

static struct upgrade_state *describe(struct master *m, bool returning) {
    struct upgrade_state *s = calloc(1, sizeof *s);
    CHECK(s);
    *s = (struct upgrade_state){
        .magic = STATE_MAGIC, .bytes = sizeof *s, .back_fd = m->upgrade.exe_fd, .returning = returning,
        .lock_fd = m->lock_fd, .shm_rw_fd = m->shm_rw_fd, .shm_ro_fd = m->shm_ro_fd, .wake_fd = m->wake_fd,
        .control_fd = m->control_fd, .reply_fd = m->upgrade.reply_fd, .started_wall_ms = m->started_wall_ms,
        .started_mono_ns = m->started_mono_ns, .config_generation = m->reload.last_generation,
        .last_generation = m->last_generation, .ledger_pid = m->ledger.pid,
        .ledger_fd = m->ledger.channel.open ? m->ledger.channel.ipc.fd : -1, .series_count = m->reload.series_count,
    };
    snprintf(s->exe_path, sizeof s->exe_path, "%s", m->upgrade.exe_path);
    memcpy(s->series, m->reload.series, sizeof s->series);
    for (const struct listener *l = m->listeners; l && s->listeners < IPC_MAX_FDS; l = l->next, s->listeners++) {
        s->listener[s->listeners].id = l->id;
        s->listener[s->listeners].fd = l->fd;
        memcpy(s->listener[s->listeners].address, l->address, sizeof l->address);
    }
    for (const struct worker *w = m->workers; w && s->workers < MAX_WORKERS; w = w->next, s->workers++) {
        s->worker[s->workers].pid = w->pid;
        s->worker[s->workers].fd = w->channel.open ? w->channel.ipc.fd : -1;
        s->worker[s->workers].range = w->range;
        s->worker[s->workers].generation = w->generation;
        s->worker[s->workers].ready = w->ready;
        s->worker[s->workers].retiring = w->retiring;
        s->worker[s->workers].foreign = returning ? !w->foreign : 1; /* as the other binary sees it */
    }
    return s;
}

/* Execs fd (or path, where it is not NULL) with the state; returns only when that failed: -errno. */
static int exec_with(struct upgrade_state *s, char **argv, const char *path, int fd) {
    char number[16];
    int state_fd = memfd_create("tollgate-upgrade", 0), error = errno;
    if (state_fd < 0) return -error;
    if (write(state_fd, s, sizeof *s) != (ssize_t)sizeof *s) {
        error = errno;
        close(state_fd);
        return -error;
    }
    snprintf(number, sizeof number, "%d", state_fd);
    setenv(STATE_VARIABLE, number, 1);
    each_descriptor(s, true);
    fflush(NULL);
    if (path) execv(path, argv);
    else fexecve(fd, argv, environ);
    error = errno;
    each_descriptor(s, false);
    unsetenv(STATE_VARIABLE);
    close(state_fd);
    return -error;
}

/* ---- the old side ---------------------------------------------------------------------------------------------- */

static void answer(struct master *m, const char *json) {
    if (m->upgrade.reply_fd < 0) return;
    char line[512];
    int n = snprintf(line, sizeof line, "%s\n", json);
    send(m->upgrade.reply_fd, line, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(m->upgrade.reply_fd);
    m->upgrade.reply_fd = -1;
}

static void rest_channels(struct master *m, bool rest) {
    for (struct worker *w = m->workers; w; w = w->next) wire_pause(&w->channel, rest);
}

static void give_up(struct master *m, const char *why) {
    struct upgrade *u = &m->upgrade;
    u->phase = UPGRADE_NO;
    events_timer_clear(&m->events, &u->timer);
    rest_channels(m, false);
    resolve_start(m);
    if (m->announced && m->stopping == STOP_NO) notify("READY=1\nSTATUS=Serving\n");
    master_log(LOG_ERROR, "upgrade refused: %s; this server goes on", why);
    answer(m, "{\"error\":{\"code\":\"upgrade_refused\",\"message\":\"see the error log\"}}");
}

static bool at_rest(const struct master *m) {
    for (unsigned i = 0; i < CALLS_BUCKETS; i++) {
        if (m->calls.bucket[i]) return false;
    }
    for (const struct worker *w = m->workers; w; w = w->next) {
        if (w->channel.open && (w->channel.ipc.out_first || w->channel.ipc.partial)) return false;
    }
    const struct ipc *ledger = &m->ledger.channel.ipc;
    return m->ledger.ready && !ledger->out_first && !ledger->partial && m->reload.phase == RELOAD_IDLE;
}

static void hand_over(struct master *m) {
    struct upgrade *u = &m->upgrade;
    master_log(LOG_INFO, "upgrade: handing over to %s", u->exe_path);
    resolve_end(m);
    struct upgrade_state *s = describe(m, false);
    int rc = exec_with(s, m->argv, u->exe_path, -1);
    free(s);
    give_up(m, strerror(-rc));
}

static void come_to_rest(struct timer *t) {
    struct upgrade *u = CONTAINER_OF(t, struct upgrade, timer);
    struct master *m = CONTAINER_OF(u, struct master, upgrade);
    if (m->stopping != STOP_NO) give_up(m, "the server is stopping");
    else if (at_rest(m)) hand_over(m);
    else if (events_mono_ns() > u->deadline_ns) give_up(m, "a call to the ledger is still under way (an audit?)");
    else events_timer_set(&m->events, &u->timer, REST_POLL_MS, come_to_rest);
}

static void probe_too_slow(struct timer *t) {
    struct upgrade *u = CONTAINER_OF(t, struct upgrade, timer);
    if (u->probe_pid > 0) kill(u->probe_pid, SIGKILL);
}

bool upgrade_reaped(struct master *m, pid_t pid, int status) {
    struct upgrade *u = &m->upgrade;
    char cause[96], why[160];
    if (u->probe_pid != pid || pid == 0) return false;
    u->probe_pid = 0;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        snprintf(why, sizeof why, "the new binary's probe says no (%s)", spawn_cause(status, cause, sizeof cause));
        give_up(m, why);
        return true;
    }
    u->phase = UPGRADE_RESTING;
    u->deadline_ns = events_mono_ns() + (uint64_t)REST_MS * 1000000u;
    rest_channels(m, true);
    events_timer_set(&m->events, &u->timer, 0, come_to_rest);
    return true;
}

/* The probe is told what runs as the new binary would be, and only looks. It needs the environment as it is
 * (env:NAME): it is the same program under the same rights. */
static _Noreturn void be_probe(struct master *m) {
    sigset_t none;
    char *argv[] = { m->upgrade.exe_path, (char *)(uintptr_t)"--probe", (char *)(uintptr_t)"-c",
                     (char *)(uintptr_t)m->conf_path, NULL };
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    dup2(m->error_log_fd, STDOUT_FILENO);
    dup2(m->error_log_fd, STDERR_FILENO);
    int rc = exec_with(describe(m, false), argv, m->upgrade.exe_path, -1);
    fprintf(stderr, "tollgate: %s: %s\n", m->upgrade.exe_path, strerror(-rc));
    fflush(stderr);
    _exit(127);
}

void upgrade_request(struct master *m, int reply_fd) {
    struct upgrade *u = &m->upgrade;
    if (u->phase != UPGRADE_NO || !m->announced || m->stopping != STOP_NO || u->exe_fd < 0) {
        static const char no[] =
            "{\"error\":{\"code\":\"unavailable\",\"message\":\"starting, stopping or upgrading\"}}\n";
        master_log(LOG_WARN, "upgrade refused: the server is starting, stopping or upgrading");
        if (reply_fd >= 0) send(reply_fd, no, sizeof no - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (reply_fd >= 0) close(reply_fd);
        return;
    }
    u->reply_fd = reply_fd;
    if (spawn_clean_ranges(m) < m->workers_wanted) {
        give_up(m, "the workers of an earlier upgrade or reload still drain, so there is no room for new ones yet");
        return;
    }
    u->phase = UPGRADE_PROBING;
    notify_reloading();
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) be_probe(m);
    if (pid < 0) {
        give_up(m, strerror(errno));
        return;
    }
    u->probe_pid = pid;
    events_timer_set(&m->events, &u->timer, PROBE_MS, probe_too_slow);
}

/* ---- the new side ---------------------------------------------------------------------------------------------- */

static void find_myself(struct master *m) {
    struct upgrade *u = &m->upgrade;
    u->reply_fd = u->back_fd = -1;
    u->exe_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    ssize_t n = readlink("/proc/self/exe", u->exe_path, sizeof u->exe_path - 1);
    u->exe_path[n > 0 ? n : 0] = '\0';
}

/* A state that this binary cannot read: the one that wrote it can, and it is told by returning. */
static _Noreturn void not_mine(char **argv, const struct upgrade_state *s, const char *variable, bool probing) {
    fprintf(stderr, "tollgate: this binary cannot take over from the running one: this needs a restart\n");
    if (probing) exit(1);
    setenv(STATE_VARIABLE, variable, 1);
    fexecve(s->back_fd, argv, environ);
    _exit(1);
}

bool upgrade_inherit(struct master *m, bool probing) {
    const char *variable = getenv(STATE_VARIABLE);
    uint64_t fd;
    find_myself(m);
    if (!variable || !slice_to_u64(slice_str(variable), &fd)) return false;
    struct upgrade_state *s = calloc(1, sizeof *s);
    CHECK(s);
    ssize_t n = pread((int)fd, s, sizeof *s, 0);
    if (n < (ssize_t)offsetof(struct upgrade_state, lock_fd) || s->magic != STATE_MAGIC) {
        free(s);
        return false;
    }
    if (s->bytes != sizeof *s || n != (ssize_t)sizeof *s) {
        static const uint32_t yes = 1;
        CHECK(pwrite((int)fd, &yes, sizeof yes, offsetof(struct upgrade_state, returning)) == sizeof yes);
        not_mine(m->argv, s, variable, probing);
    }
    close((int)fd);
    unsetenv(STATE_VARIABLE);
    each_descriptor(s, false);
    m->upgrade.inherited = s;
    m->upgrade.phase = s->returning ? UPGRADE_NO : UPGRADE_TAKING_OVER;
    m->upgrade.reply_fd = s->reply_fd;
    m->upgrade.back_fd = s->returning ? -1 : s->back_fd;
    if (s->returning) close(s->back_fd);
    snprintf(m->upgrade.exe_path, sizeof m->upgrade.exe_path, "%s", s->exe_path); /* the link may say "(deleted)" */
    m->started_wall_ms = s->started_wall_ms;
    m->started_mono_ns = s->started_mono_ns;
    m->lock_fd = s->lock_fd;
    m->shm_rw_fd = s->shm_rw_fd;
    m->shm_ro_fd = s->shm_ro_fd;
    m->wake_fd = s->wake_fd;
    m->control_fd = s->control_fd;
    m->last_generation = s->last_generation;
    return true;
}

/* On the way back there is nobody to go back to, so this binary waits until the file is one that it can use. */
bool upgrade_waits(struct master *m) {
    static bool said;
    sigset_t ending;
    struct timespec second = { .tv_sec = 1 };
    if (!m->upgrade.inherited || !m->upgrade.inherited->returning) return false;
    if (!said)
        master_log(LOG_ERROR, "the old binary cannot use the configuration as it is now either: put it right. The "
                   "workers go on serving; it is read again every second");
    said = true;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGQUIT);
    return sigtimedwait(&ending, NULL, &second) < 0;
}

void upgrade_worker_died_young(struct master *m) {
    struct upgrade *u = &m->upgrade;
    if (u->phase != UPGRADE_TAKING_OVER || ++u->young_deaths < YOUNG_DEATHS) return;
    master_log(LOG_ERROR, "the new workers die as they start");
    upgrade_back(m);
}

static void take_over_too_slow(struct timer *t) {
    struct upgrade *u = CONTAINER_OF(t, struct upgrade, timer);
    struct master *m = CONTAINER_OF(u, struct master, upgrade);
    master_log(LOG_ERROR, "the new workers do not serve after %d s", TAKE_OVER_MS / 1000);
    upgrade_back(m);
}

static void take_worker(struct master *m, const struct upgrade_state *s, uint32_t i) {
    struct worker *w = calloc(1, sizeof *w);
    CHECK(w);
    w->pid = s->worker[i].pid;
    w->range = s->worker[i].range;
    w->generation = s->worker[i].generation;
    w->ready = s->worker[i].ready;
    w->retiring = s->worker[i].retiring;
    w->foreign = s->worker[i].foreign;
    w->started_ns = events_mono_ns();
    w->next = m->workers;
    m->workers = w;
    spawn_adopt(w, m, s->worker[i].fd);
    wire_pause(&w->channel, true); /* until there is a ledger to ask: upgrade_ledger_ready */
}

void upgrade_adopt(struct master *m) {
    struct upgrade_state *s = m->upgrade.inherited;
    m->reload.last_generation = s->config_generation;
    m->reload.series_count = s->series_count;
    memcpy(m->reload.series, s->series, sizeof s->series);
    struct listener **last = &m->listeners;
    for (uint32_t i = 0; i < s->listeners; i++) {
        struct listener *l = calloc(1, sizeof *l);
        CHECK(l);
        l->id = s->listener[i].id;
        l->fd = s->listener[i].fd;
        memcpy(l->address, s->listener[i].address, sizeof l->address);
        *last = l;
        last = &l->next;
    }
    for (uint32_t i = 0; i < s->workers; i++) take_worker(m, s, i);
    ledgerd_take_over(m, s->ledger_pid, s->ledger_fd);
    m->upgrade.returned = s->returning;
    free(s);
    m->upgrade.inherited = NULL;
    if (m->upgrade.phase == UPGRADE_TAKING_OVER)
        events_timer_set(&m->events, &m->upgrade.timer, TAKE_OVER_MS, take_over_too_slow);
}

void upgrade_ledger_ready(struct master *m) {
    rest_channels(m, false);
}

void upgrade_back(struct master *m) {
    struct upgrade *u = &m->upgrade;
    if (u->phase != UPGRADE_TAKING_OVER || u->back_fd < 0) return;
    master_log(LOG_ERROR, "upgrade failed: back to the old binary");
    struct upgrade_state *s = u->inherited;
    if (s) {
        s->returning = 1;
        s->back_fd = u->exe_fd;
        for (uint32_t i = 0; i < s->workers; i++) s->worker[i].foreign = 0; /* all of them are the old binary's */
    } else {
        calls_fail_all(m);
        resolve_end(m);
        s = describe(m, true);
    }
    int rc = exec_with(s, m->argv, NULL, u->back_fd);
    master_log(LOG_ERROR, "the old binary cannot be started again: %s", strerror(-rc));
    u->phase = UPGRADE_NO;
}

void upgrade_announced(struct master *m) {
    struct upgrade *u = &m->upgrade;
    unsigned old = 0;
    for (struct worker *w = m->workers; w; w = w->next) {
        if (!w->foreign || w->retiring) continue;
        spawn_retire(w);
        old++;
    }
    if (u->returned) {
        master_log(LOG_ERROR, "the new binary could not take over; this one goes on: see the lines above for why");
        answer(m,
               "{\"error\":{\"code\":\"upgrade_failed\",\"message\":\"the old binary goes on: see the error log\"}}");
    } else if (u->phase == UPGRADE_TAKING_OVER) {
        master_log(LOG_INFO, "upgraded to " TOLLGATE_VERSION "; %u workers of the old binary drain", old);
        answer(m, "{\"result\":{\"upgraded\":true,\"version\":\"" TOLLGATE_VERSION "\"}}");
    }
    events_timer_clear(&m->events, &u->timer);
    if (u->back_fd >= 0) close(u->back_fd);
    u->back_fd = -1;
    u->returned = false;
    u->phase = UPGRADE_NO;
}
