/* The master: one struct, and what its files offer each other.
 *
 * main.c      the command line              start.c    lock, limits, user, segment, first forks; signals; the end
 * events.c    epoll, timers                 wire.c     a child's socket pair
 * fork.c      a child, made safe            spawn.c    workers: heartbeat, deaths, throttle
 * ledgerd.c   the ledger as a child         settle.c   what an earlier segment of another size still holds
 * reload.c    file → names → snapshot → workers; the start is the first reload      names.c    permanent ids
 * sockets.c   listening sockets             resolve.c  the helper that resolves names; addresses into shared memory
 * calls.c     calls on their way to the ledger
 * control.c   the control socket            command.c  the commands that are the master's own
 * upgrade.c   another binary takes over
 * stop.c      drain and quit                notify.c   systemd             errlog.c   the error log
 *
 * Ownership: the master owns every descriptor that children get copies of. Nothing here waits for a disk or for another
 * process once the loop turns; before that (start.c) it may. */
#ifndef TG_MASTER_H
#define TG_MASTER_H

#include <stdio.h>
#include <sys/types.h>

#include "master/conf.h"
#include "master/ledger/entry.h"
#include "master/events.h"
#include "master/names.h"
#include "shm/ipc_io.h"
#include "shm/shm.h"
#include "shm/snapshot.h"

struct master;

/* ---- errlog.c -------------------------------------------------------------------------------------------------- */

/* One line: time, level, pid, text. What an operator must do, never a secret. Control characters become spaces. */
void master_log(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* From here on lines go to fd (the caller keeps it open) when they are at most as detailed as level. */
void errlog_to(int fd, enum log_level level);
/* While the server starts errors go to standard error too: whoever typed the command sees why it failed. */
void errlog_mirror(bool on);
/* Formats a line into out; returns its length (LF included). For tests. */
size_t errlog_format(char *out, size_t cap, uint64_t wall_ms, enum log_level level, int pid, const char *text);
/* Opens for appending, created 0640 and given to uid:gid (0: stays). A descriptor or -errno. */
int errlog_open(const char *path, uid_t uid, gid_t gid);

/* ---- notify.c -------------------------------------------------------------------------------------------------- */

/* Sends "NAME=value\n…" to NOTIFY_SOCKET if there is one. Never blocks, never fails loudly. */
void notify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void notify_reloading(void);
/* Half of systemd's watchdog interval in ms; 0: none is asked for. */
uint64_t notify_watchdog_ms(void);

/* ---- a channel to a child (wire.c) ----------------------------------------------------------------------------- */

struct wire {
    struct master *m;
    bool open, paused;
    struct ipc ipc;
    struct watch watch;
    void (*on_frame)(struct wire *c, const struct ipc_frame *f);
    void (*on_gone)(struct wire *c, int error); /* closed already */
};
int wire_open(struct wire *c, struct master *m, int fd, size_t out_max);
void wire_close(struct wire *c);
/* The child was reaped: what it had sent is taken, then the wire is closed. */
void wire_finish(struct wire *c);
/* 0, or -errno: not sent. -ENOBUFS: the child does not read. */
int wire_send(struct wire *c, const struct ipc_header *h, struct slice payload, const int *fds, unsigned n);
/* Paused: frames that come wait in the socket. */
void wire_pause(struct wire *c, bool paused);

/* ---- fork.c, spawn.c ------------------------------------------------------------------------------------------- */

struct worker {
    struct wire channel; /* first: a channel of a worker is a worker */
    struct worker *next;
    pid_t pid;
    uint32_t range, generation;
    bool ready, retiring, killed, stopped; /* stopped: by SIGSTOP */
    bool foreign;                          /* of another binary (an upgrade): it drains once ours serve */
    uint64_t started_ns, seen_turn_ns;     /* what the last heartbeat saw */
    unsigned missed;                       /* heartbeats without a turn */
    uint32_t calls;                        /* outstanding */
};

struct back_off { uint32_t ms; };
/* How long to wait before the next start: 0 after a child that lived, else 100 ms, doubled each time up to 10 s. */
uint32_t spawn_back_off(struct back_off *b, bool died_young);

/* Forks; the child keeps stdio and keep[], has its signals back, dies with the master, and has forgotten what it must
 * not know. 0 in the child; -errno. */
pid_t spawn_fork(struct master *m, const int *keep, unsigned n, const char *title);
/* In the child, as root: becomes that user. Exits on failure. */
void spawn_drop(const struct master *m);
/* As many workers as wanted: forks, drains the surplus. */
void spawn_reconcile(struct master *m);
void spawn_children_changed(struct master *m); /* SIGCHLD */
void spawn_adopt(struct worker *w, struct master *m, int channel_fd); /* one that another binary started */
void spawn_heartbeat_start(struct master *m);
void spawn_worker_kill(struct worker *w, const char *why);
void spawn_retire(struct worker *w);            /* drains */
void spawn_quit(struct worker *w);              /* ends at once; what was delivered is billed */
void spawn_hung(struct master *m, uint32_t range);
const char *spawn_cause(int status, char *out, size_t n);
void spawn_send_config(struct worker *w);
void spawn_send_listeners(struct worker *w);
void spawn_send_logs(struct worker *w);
unsigned spawn_count(const struct master *m, bool with_retiring);
unsigned spawn_clean_ranges(const struct master *m);

/* ---- ledgerd.c ------------------------------------------------------------------------------------------------- */

struct ledgerd {
    struct wire channel; /* first */
    struct master *m;
    pid_t pid;            /* 0: none */
    bool ready;           /* IPC_LEDGER_READY came from this one */
    bool ever_ready, failed, stopping;
    bool handing_over;    /* it is another binary's, told to stop: ours starts when it is reaped */
    unsigned young_deaths, stop_attempts;
    uint64_t started_ns;
    struct back_off back_off;
    struct timer restart, stuck;
    uint64_t seen_tails;    /* what the last heartbeat saw of the rings' tails, added up */
    unsigned stalled_ticks; /* heartbeats with records waiting and no tail that moved */
};
void ledgerd_start(struct master *m);
_Noreturn void ledgerd_be(struct master *m, int channel_fd); /* in the child */
void ledgerd_take_over(struct master *m, pid_t pid, int channel_fd); /* pid 0: there is none */
void ledgerd_reaped(struct master *m, int status);
/* The configuration in use, or, before the first is, the one that is about to be. */
void ledgerd_send_config(struct master *m);
void ledgerd_worker_dead(struct master *m, uint32_t range);
/* IPC_STOP; the loop ends when it is reaped. */
void ledgerd_stop(struct master *m);
/* Once a heartbeat: sheds while records wait for two seconds and none is committed, for whatever reason. */
void ledgerd_watch(struct master *m, unsigned tick_ms);
const char *ledgerd_state(const struct master *m); /* "up", "starting", "down", "failed" */

/* ---- calls.c --------------------------------------------------------------------------------------------------- */

/* A call under way to the ledger. done gets the answer's JSON, exactly once, unless the call is dropped. */
struct call {
    struct call *next;
    uint32_t id, their_id;
    void *owner;
    void (*done)(struct call *c, struct slice answer);
};
enum { CALLS_PER_WORKER = 256, CALLS_BUCKETS = 256 };
struct calls {
    uint32_t last_id;
    struct call *bucket[CALLS_BUCKETS];
};
#define CALLS_UNAVAILABLE \
    SLICE("{\"error\":{\"code\":\"unavailable\",\"message\":\"the ledger is not running; try again in a moment\"}}")
/* NULL: the ledger cannot take it (done is not called). */
struct call *calls_send(struct master *m, uint32_t origin, struct slice json, void *owner, uint32_t their_id,
                        void (*done)(struct call *c, struct slice answer));
void calls_answered(struct master *m, const struct ipc_frame *f);
void calls_drop(struct master *m, void *owner); /* forgets all calls of that owner */
void calls_fail_all(struct master *m);          /* the ledger died: each is answered as unavailable */
void calls_from_worker(struct worker *w, const struct ipc_frame *f);

/* ---- sockets.c ------------------------------------------------------------------------------------------------- */

struct listener {
    struct listener *next;
    uint64_t id;
    int fd;
    char address[256];
};
/* "127.0.0.1:80", "[::1]:80", "*:80", "80", "localhost:80", "unix:/path" → a listening, non-blocking descriptor, or
 * -errno with a sentence in err. */
int sockets_open(const char *address, unsigned unix_mode, char *err, size_t err_len);
/* The set that snap asks for: what old has is taken over (by id, or by address), the rest is opened. NULL and false:
 * nothing changed. */
bool sockets_prepare(const struct snap *snap, const struct listener *old, struct listener **out, char *err,
                     size_t err_len);
/* Frees a list and closes its descriptors; removes the paths of unix sockets that kept does not hold. */
void sockets_close(struct listener *list, const struct listener *kept);

/* ---- resolve.c ------------------------------------------------------------------------------------------------- */

struct host;
struct resolver {
    struct wire channel; /* first */
    struct master *m;
    pid_t pid;
    struct host *hosts, *asked;
    struct timer next, deadline;
    uint64_t last_start_ns;
    void (*settled)(struct master *m); /* called once when each host has been tried */
};
void resolve_start(struct master *m);
void resolve_reaped(struct master *m, int status);
/* Learns the hosts of snap. True: all have addresses or have been tried; else m->resolver.settled is called when so. */
bool resolve_learn(struct master *m, const struct snap *snap);
/* Writes what is known into shared memory for the upstreams of snap. */
void resolve_publish(struct master *m, const struct snap *snap);
/* Hosts that snap does not name are not refreshed any more. */
void resolve_forget_others(struct master *m, const struct snap *snap);
void resolve_now(struct master *m, uint32_t upstream_id);
/* An IPv4 or IPv6 literal → address. */
bool resolve_literal(struct slice host, struct shm_address *out);
/* Ends the helper and does not start another. */
void resolve_end(struct master *m);
void resolve_stop(struct master *m);

/* ---- reload.c -------------------------------------------------------------------------------------------------- */

/* A configuration in use: parsed, and as the two blobs that go to workers and ledger. */
struct config {
    struct conf *conf;
    uint64_t generation;
    int worker_fd, ledger_fd;
    size_t worker_bytes, ledger_bytes;
    const struct snap *snap; /* the workers' blob, mapped */
};
enum reload_phase { RELOAD_IDLE, RELOAD_INTERNING, RELOAD_RESOLVING, RELOAD_WAITING_LEDGER };
struct reload {
    struct master *m;
    enum reload_phase phase;
    bool again;
    struct config *next;
    struct listener *next_listeners;
    struct timer deadline;
    struct names *names;
    uint64_t last_generation;
    struct series_pair { uint32_t model_id, upstream_id; } *series;
    uint32_t series_count;
};
void reload_init(struct master *m);
/* Reads the file again. Where one is under way, another follows it. */
void reload_request(struct master *m);
/* The start: with what main has parsed. */
void reload_first(struct master *m, struct conf *conf);
void reload_ledger_up(struct master *m);     /* started: asks again what was asked */
void reload_ledger_ready(struct master *m);
void reload_ledger_gone(struct master *m, bool for_good);
void reload_forget(struct master *m);        /* in a child: wipes and frees */
/* A sealed memfd with the blob's bytes, or -errno. Wipes and frees the blob: it holds secrets. NULL is out of memory.
 * */
int reload_seal(void *blob, size_t bytes, const char *name);
/* Ids from what is known of names, and series by the master's own table: for conf_snapshot. */
struct conf_ids reload_ids(struct master *m);

/* ---- control.c, command.c -------------------------------------------------------------------------------------- */

struct control {
    struct control *next;
    struct master *m;
    struct watch watch;
    struct buf in, out;
    size_t scanned;      /* bytes of `in` known to hold no LF */
    bool busy, held, eof, gone; /* held: its line waits for a ledger */
    unsigned reload_wait; /* 1: for the reload under way, 2: for the one after it */
    struct timer timeout;
};
int control_listen(struct master *m, const char *path, char *err, size_t err_len);
int control_adopt(struct master *m); /* m->control_fd listens already */
void control_close_listener(struct master *m);
void control_close_all(struct master *m);
/* The one answer to the line under way. */
void control_answer(struct control *c, struct slice json);
void control_error(struct control *c, const char *code, const char *message);
/* The line under way waits until the ledger is ready, for a bounded time, and is then run again. */
void control_hold(struct control *c);
void control_release(struct master *m);
/* The reload ended: text NULL: done; else why not. */
void control_reload_done(struct master *m, const char *errors);
void control_reload_starts(struct master *m); /* those who wait for the next now wait for this one */
void control_forget(struct master *m);  /* in a child: wipes what was read */
/* Answers line, now or later. */
void command_run(struct control *c, struct slice line);
void command_timeout(struct timer *t);

/* ---- stop.c ---------------------------------------------------------------------------------------------------- */

enum stop_phase { STOP_NO, STOP_DRAINING, STOP_QUITTING, STOP_LEDGER };
void stop_graceful(struct master *m);
void stop_fast(struct master *m);
uint32_t master_drain_ms(const struct master *m); /* drain_timeout */
/* A child is gone: what comes next? */
void stop_progress(struct master *m);

/* ---- upgrade.c ------------------------------------------------------------------------------------------------- */

enum upgrade_phase { UPGRADE_NO, UPGRADE_PROBING, UPGRADE_RESTING, UPGRADE_TAKING_OVER };
struct upgrade_state;
struct upgrade {
    enum upgrade_phase phase;
    int exe_fd;           /* this binary, whatever happens to its file */
    char exe_path[4096];  /* where the next one is looked for */
    int back_fd;          /* the old binary, until ours serves; -1 */
    int reply_fd;         /* who asked on the control socket; -1 */
    pid_t probe_pid;
    unsigned young_deaths; /* of workers while it takes over */
    bool returned;        /* the new binary gave up, and this is the old one again */
    uint64_t deadline_ns;
    struct timer timer;
    struct upgrade_state *inherited; /* from upgrade_inherit to upgrade_adopt */
};
/* SIGUSR2 or tollctl (reply_fd ≥ 0: gets one line, and is closed). */
void upgrade_request(struct master *m, int reply_fd);
bool upgrade_reaped(struct master *m, pid_t pid, int status); /* true: it was the probe */
/* At the very start: true where another binary handed over to this one; its descriptors are in m then. Probing: it only
 * asks whether this one could. */
bool upgrade_inherit(struct master *m, bool probing);
/* No configuration can be used: true after a second if that is to be tried again. */
bool upgrade_waits(struct master *m);
void upgrade_worker_died_young(struct master *m);
/* Its children and listeners become ours. */
void upgrade_adopt(struct master *m);
void upgrade_ledger_ready(struct master *m);
void upgrade_announced(struct master *m);
/* Something failed before ours served: execs the old binary. Returns where there is no way back. */
void upgrade_back(struct master *m);

/* ---- start.c --------------------------------------------------------------------------------------------------- */

struct master {
    struct events events;
    struct pages pages;
    const char *conf_path;     /* as given */
    int argc;
    char **argv;

    /* fixed from the start on */
    char *state_dir, *control_path, *shm_file;
    int pid;
    uid_t uid;                 /* to drop to; 0: stay */
    gid_t gid;
    uint8_t pepper[32], seal_key[32];
    uint64_t started_wall_ms, started_mono_ns;
    int lock_fd, shm_rw_fd, shm_ro_fd, wake_fd;
    struct shm shm;

    struct watch signals, control_watch;
    int signal_fd, control_fd;
    struct config *config;     /* in use; NULL before the first */
    struct listener *listeners;
    int access_log_fd, error_log_fd; /* access -1: off; error 2: standard error */

    struct ledgerd ledger;
    struct worker *workers;
    unsigned workers_wanted;
    uint32_t last_generation;  /* of workers */
    struct back_off back_off;
    uint64_t spawn_not_before_ns, no_range_since_ns; /* the second: since when a worker waits for a clean range; 0 */
    struct timer respawn, heartbeat, watchdog, stop_deadline;
    struct resolver resolver;
    struct reload reload;
    struct calls calls;
    struct control *controls;
    struct upgrade upgrade;
    enum stop_phase stopping;
    bool announced;            /* READY=1 was said */
    int exit_code;
};

/* m is zeroed but for conf_path, argc, argv. */
void master_init(struct master *m);
/* Runs the server to its end; the exit status. */
int master_run(struct master *m, struct conf *conf);
/* Says READY=1 once all the first workers serve. */
void master_announce(struct master *m);
/* The lock is held: ranges that look alive are not. Prepares an attached segment for a ledger. */
/* Why a server with this configuration cannot take over, live, from the one whose descriptors m has; NULL: it can. */
const char *master_cannot_follow(const struct master *m, const struct conf *conf);
void master_take_over_segment(struct master *m);
/* settle.c: a segment of other sizes is about to be replaced: commits what it holds. False: it could not be, and must
 * stay. */
bool settle_old_segment(struct master *m, const struct conf *conf);
/* Opens the log files of the configuration in use again; what cannot be opened stays as it is. */
void master_open_logs(struct master *m);

#endif
