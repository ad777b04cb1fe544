/* What the master's test programs share: a folder of their own, a master with nothing but its loop, turns of the loop
 * until something is so. */
#ifndef TG_TEST_MASTER_FIXTURE_H
#define TG_TEST_MASTER_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "master/master.h"
#include "proto/base/check.h"

static char folder[64]; /* of this test alone */

static inline int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/tg-master-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state) {
    (void)state;
    DIR *d = opendir(folder);
    char path[512];
    for (struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        unlink(path);
    }
    if (d) closedir(d);
    return rmdir(folder);
}

static inline const char *in_folder(const char *name) {
    static char path[4][128];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

/* A master with nothing but its loop, and a ledger that is the other end of a pair. */
struct fixture { struct master m; struct ipc ledger; struct pages pages; };

static inline void on_ledger_frame(struct wire *c, const struct ipc_frame *f) {
    if (f->h.type == IPC_ANSWER) calls_answered(c->m, f);
}

static inline struct fixture *fixture_open(void) {
    struct fixture *f = calloc(1, sizeof *f);
    int fds[2];
    assert_non_null(f);
    f->m.pid = getpid();
    f->m.control_fd = f->m.signal_fd = f->m.access_log_fd = -1;
    pages_init(&f->m.pages, 8);
    pages_init(&f->pages, 8);
    assert_int_equal(events_open(&f->m.events), 0);
    assert_int_equal(ipc_pair(fds), 0);
    f->m.ledger.m = &f->m;
    f->m.ledger.channel.on_frame = on_ledger_frame;
    f->m.ledger.pid = 1;
    f->m.ledger.ready = true;
    assert_int_equal(wire_open(&f->m.ledger.channel, &f->m, fds[0], 1 << 20), 0);
    ipc_open(&f->ledger, fds[1], &f->pages, 1 << 20);
    reload_init(&f->m);
    f->m.shm.header = calloc(1, sizeof *f->m.shm.header);
    errlog_to(-1, LOG_ERROR);
    return f;
}

static inline void fixture_close(struct fixture *f) {
    control_close_listener(&f->m);
    control_close_all(&f->m);
    calls_fail_all(&f->m);
    wire_close(&f->m.ledger.channel);
    ipc_close(&f->ledger);
    reload_forget(&f->m);
    events_close(&f->m.events);
    pages_clear(&f->m.pages);
    pages_clear(&f->pages);
    free(f->m.shm.header);
    free(f->m.control_path);
    free(f);
}

static inline void stop_loop(struct timer *t) {
    (void)t;
    fail_msg("the loop turned for 10 s and what was awaited did not come");
}

struct until { struct timer timer; struct master *m; bool (*fn)(void *arg); void *arg; };
static inline void check_until(struct timer *t) {
    struct until *u = CONTAINER_OF(t, struct until, timer);
    if (u->fn(u->arg)) u->m->events.stop = true;
    else events_timer_set(&u->m->events, &u->timer, 1, check_until);
}

/* Turns the loop until fn says so; it is asked every millisecond. */
static inline void run_until(struct master *m, bool (*fn)(void *arg), void *arg) {
    struct until u = { .m = m, .fn = fn, .arg = arg };
    struct timer limit = { 0 };
    events_timer_set(&m->events, &u.timer, 0, check_until);
    events_timer_set(&m->events, &limit, 10000, stop_loop);
    m->events.stop = false;
    events_run(&m->events);
    events_timer_clear(&m->events, &limit);
}

#endif
