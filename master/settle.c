/* Before a segment of other sizes is made: what the earlier one still holds is committed.
 *
 * A server that ended by itself left nothing. One that was killed left records in the rings and holds in the slots,
 * and a new size (max_keys, workers, …) would throw them away with the segment. So a ledger is run on the old segment
 * until it says that all is settled, and told to stop. This happens before the loop turns: the master waits here, for
 * a minute at most. A failure leaves the old segment as it is, and the server does not start. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "master/master.h"
#include "proto/base/check.h"

enum { SETTLE_MS = 60000, POLL_MS = 50, QUEUE_BYTES = 32 << 20 };

struct settling { struct master *m; const struct conf *conf; struct ipc ipc; };

static void send_frame(struct settling *s, uint32_t type, uint32_t id, struct slice payload, const int *fd) {
    struct ipc_header h = { .type = type, .id = id, .origin = type == IPC_CALL ? IPC_FROM_MASTER : 0 };
    ipc_send(&s->ipc, &h, payload, fd, fd ? 1 : 0); /* what does not fit is queued, and flushed as it answers */
}

static void ask_for_names(struct settling *s) {
    struct buf text;
    if (names_request(s->m->reload.names, s->conf, &s->m->pages, &text) >= 0)
        send_frame(s, IPC_CALL, 1, buf_slice(&text), NULL);
    buf_release(&text);
}

/* The ledger works under the configuration that is to come. */
static void send_config(struct settling *s) {
    struct conf_ids ids = reload_ids(s->m);
    size_t n = 0;
    void *blob = conf_snapshot(s->conf, &ids, ++s->m->reload.last_generation, true, &n);
    int fd = reload_seal(blob, n, "tollgate-ledger-snapshot");
    uint64_t bytes = n;
    if (fd < 0) return;
    send_frame(s, IPC_LEDGER_CONF, 0, slice_of((const char *)&bytes, sizeof bytes), &fd);
    close(fd);
}

/* Frames of the ledger at work; false: its channel is closed. */
static bool listen_to(struct settling *s) {
    struct ipc_frame f;
    int rc;
    (void)ipc_flush(&s->ipc);
    while ((rc = ipc_recv(&s->ipc, &f)) == 1) {
        if (f.h.type == IPC_ALERT) master_log(LOG_ERROR, "ledger: %.*s", SLICE_ARG(f.payload));
        if (f.h.type == IPC_ANSWER && names_take(&s->m->reload.names, s->conf, &s->m->pages, f.payload)) send_config(s);
        if (f.h.type == IPC_LEDGER_READY) send_frame(s, IPC_STOP, 0, SLICE(""), NULL);
        for (unsigned i = 0; i < f.fd_count; i++) close(f.fds[i]);
    }
    return rc == 0;
}

/* Until the ledger has ended; its status, or -1 when it took too long and was killed. */
static int see_it_through(struct settling *s, pid_t pid) {
    uint64_t give_up_ns = events_mono_ns() + (uint64_t)SETTLE_MS * 1000000u;
    bool open = true;
    int status;
    for (;;) {
        struct pollfd p = { .fd = open ? s->ipc.fd : -1, .events = POLLIN };
        poll(&p, 1, POLL_MS);
        if (open) open = listen_to(s);
        if (waitpid(pid, &status, WNOHANG) == pid) return status;
        if (events_mono_ns() < give_up_ns) continue;
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        return -1;
    }
}

static int run_ledger(struct master *m, const struct conf *conf) {
    int fds[2];
    struct settling s = { .m = m, .conf = conf };
    if (ipc_pair(fds) != 0) return -1;
    int keep[] = { fds[1], m->wake_fd, m->lock_fd };
    pid_t pid = spawn_fork(m, keep, ARRAY_LEN(keep), "tg-ledger");
    if (pid == 0) ledgerd_be(m, fds[1]);
    close(fds[1]);
    ipc_open(&s.ipc, fds[0], &m->pages, QUEUE_BYTES);
    if (pid > 0) ask_for_names(&s);
    int status = pid < 0 ? -1 : see_it_through(&s, pid);
    ipc_close(&s.ipc);
    return status;
}

bool settle_old_segment(struct master *m, const struct conf *conf) {
    const struct shm_sizes *next = &conf_server(conf)->sizes;
    struct shm_sizes old;
    char err[512] = "";
    bool fresh = false;
    if (!shm_peek(m->shm_file, &old) || memcmp(&old, next, sizeof old) == 0) return true;
    if (shm_open_segment(&m->shm, m->shm_file, &old, &m->shm_rw_fd, &m->shm_ro_fd, &fresh, err, sizeof err) != 0) {
        master_log(LOG_ERROR, "the earlier segment cannot be opened: %s", err);
        return false;
    }
    int status = 0;
    if (!fresh) {
        master_log(LOG_INFO, "the shared memory changes its size: settling what the earlier one holds");
        master_take_over_segment(m);
        status = run_ledger(m, conf);
    }
    shm_close(&m->shm);
    close(m->shm_rw_fd);
    close(m->shm_ro_fd);
    m->shm_rw_fd = m->shm_ro_fd = -1;
    if (status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
    master_log(LOG_ERROR,
               "what %s holds of an earlier server could not be settled; see the ledger's messages above. Nothing was "
               "lost: start again with the earlier max_accounts, max_keys, max_active and workers", m->shm_file);
    return false;
}
