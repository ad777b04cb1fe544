/* The master's parts that need no worker and no ledger process: sockets, calls and their way back, the control socket, the
 * resolver helper, what a child is left with, the log, systemd's protocol, the throttle. */
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

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/tg-master-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
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

static const char *in_folder(const char *name) {
    static char path[4][128];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

/* A master with nothing but its loop, and a ledger that is the other end of a pair: ledger_end. */
struct fixture { struct master m; struct ipc ledger; struct pages pages; };

static void on_ledger_frame(struct wire *c, const struct ipc_frame *f) {
    if (f->h.type == IPC_ANSWER) calls_answered(c->m, f);
}

static struct fixture *fixture_open(void) {
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

static void fixture_close(struct fixture *f) {
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

static void stop_loop(struct timer *t) {
    (void)t;
    fail_msg("the loop turned for 10 s and what was awaited did not come");
}

struct until { struct timer timer; struct master *m; bool (*fn)(void *arg); void *arg; };
static void check_until(struct timer *t) {
    struct until *u = CONTAINER_OF(t, struct until, timer);
    if (u->fn(u->arg)) u->m->events.stop = true;
    else events_timer_set(&u->m->events, &u->timer, 1, check_until);
}

/* Turns the loop until fn says so; it is asked every millisecond. */
static void run_until(struct master *m, bool (*fn)(void *arg), void *arg) {
    struct until u = { .m = m, .fn = fn, .arg = arg };
    struct timer limit = { 0 };
    events_timer_set(&m->events, &u.timer, 0, check_until);
    events_timer_set(&m->events, &limit, 10000, stop_loop);
    m->events.stop = false;
    events_run(&m->events);
    events_timer_clear(&m->events, &limit);
}

/* ---- events ---------------------------------------------------------------------------------------------------------------------- */

struct ticker { struct events e; struct timer a, b; int fired; };
static void fire_b(struct timer *t) {
    struct ticker *k = CONTAINER_OF(t, struct ticker, b);
    k->fired += 10;
    k->e.stop = true;
}
static void fire_a(struct timer *t) {
    struct ticker *k = CONTAINER_OF(t, struct ticker, a);
    k->fired++;
    if (k->fired < 3) events_timer_set(&k->e, &k->a, 1, fire_a);
    else events_timer_set(&k->e, &k->b, 1, fire_b);
}
static void timers_fire_once_in_order(void **state) {
    (void)state;
    struct ticker k = { 0 };
    assert_int_equal(events_open(&k.e), 0);
    events_timer_set(&k.e, &k.b, 3600000, fire_b);
    events_timer_set(&k.e, &k.b, 3600000, fire_b); /* set again: still one */
    events_timer_set(&k.e, &k.a, 0, fire_a);
    events_run(&k.e);
    assert_int_equal(k.fired, 13);
    assert_null(k.e.timers);
    events_close(&k.e);
}

/* ---- throttle, log, notify ----------------------------------------------------------------------------------------------------- */

static void back_off_grows_and_is_forgotten(void **state) {
    (void)state;
    struct back_off b = { 0 };
    static const uint32_t expect[] = { 100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000 };
    assert_int_equal(spawn_back_off(&b, false), 0);
    for (size_t i = 0; i < ARRAY_LEN(expect); i++) assert_int_equal(spawn_back_off(&b, true), expect[i]);
    assert_int_equal(spawn_back_off(&b, false), 0);
    assert_int_equal(spawn_back_off(&b, true), 100);
}

static void log_lines_are_one_line(void **state) {
    (void)state;
    char line[256];
    size_t n = errlog_format(line, sizeof line, 1700000000123, LOG_WARN, 42, "a\nb\tc\x7f" "d\n");
    assert_string_equal((line[n] = '\0', line), "2023-11-14T22:13:20.123Z [warn] master (42): a b c d\n");
    n = errlog_format(line, 58, 0, LOG_ERROR, 1, "0123456789012345678901234567890123456789");
    assert_int_equal(n, 58);
    assert_int_equal(line[57], '\n');
}

static void log_appends_and_is_not_for_all(void **state) {
    (void)state;
    struct stat st;
    umask(022);
    for (int i = 0; i < 2; i++) {
        int fd = errlog_open(in_folder("log"), 0, 0);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, "x\n", 2), 2);
        assert_int_equal(fstat(fd, &st), 0);
        close(fd);
    }
    assert_int_equal(st.st_size, 4);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(errlog_open(in_folder("no/such"), 0, 0), -ENOENT);
}

static void expect_notified(const char *name) {
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    char got[512];
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    memcpy(a.sun_path, name, strlen(name));
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
    if (name[0] == '@') a.sun_path[0] = '\0';
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    notify("READY=1\nMAINPID=%d\n", 7);
    ssize_t n = recv(fd, got, sizeof got, MSG_DONTWAIT);
    assert_int_equal(n, 18);
    assert_memory_equal(got, "READY=1\nMAINPID=7\n", 18);
    notify_reloading();
    n = recv(fd, got, sizeof got - 1, MSG_DONTWAIT);
    assert_true(n > 30);
    got[n] = '\0';
    assert_int_equal(strncmp(got, "RELOADING=1\nMONOTONIC_USEC=", 27), 0);
    unsetenv("NOTIFY_SOCKET");
    notify("READY=1\n");
    assert_int_equal(recv(fd, got, sizeof got, MSG_DONTWAIT), -1);
    close(fd);
}

static void systemd_is_notified(void **state) {
    (void)state;
    char abstract[64];
    snprintf(abstract, sizeof abstract, "@tg-master-test-%d", (int)getpid());
    expect_notified(in_folder("notify"));
    expect_notified(abstract);
    setenv("WATCHDOG_USEC", "3000000", 1);
    unsetenv("WATCHDOG_PID");
    assert_int_equal(notify_watchdog_ms(), 1500);
    setenv("WATCHDOG_PID", "1", 1);
    assert_int_equal(notify_watchdog_ms(), 0);
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

/* ---- sockets ---------------------------------------------------------------------------------------------------------------------- */

static unsigned port_of(int fd) {
    struct sockaddr_in6 a;
    socklen_t len = sizeof a;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    return ntohs(a.sin6_port); /* at the same place as sin_port */
}

/* A port nobody has just now. */
static unsigned free_port(void) {
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    unsigned port = port_of(fd);
    close(fd);
    return port;
}

static void sockets_of_all_kinds(void **state) {
    (void)state;
    char address[128], err[256];
    unsigned port = free_port();
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    int v4 = sockets_open(address, 0666, err, sizeof err);
    assert_true(v4 >= 0);
    assert_int_equal(port_of(v4), port);
    assert_true(fcntl(v4, F_GETFL) & O_NONBLOCK);
    assert_int_equal(sockets_open(address, 0666, err, sizeof err), -EADDRINUSE);
    assert_non_null(strstr(err, address));
    snprintf(address, sizeof address, "[::]:%u", port); /* beside 127.0.0.1: IPV6_V6ONLY */
    int v6 = sockets_open(address, 0666, err, sizeof err);
    assert_true(v6 >= 0 || v6 == -EAFNOSUPPORT || v6 == -EADDRNOTAVAIL);
    if (v6 >= 0) close(v6);
    close(v4);
    static const char *const bad[] = { "", "x", "1.2.3.4", "1.2.3.4:0", "1.2.3.4:65536", "::1:80", "[::1:80", "example.com:80", "unix:",
                                       "1.2.3.4:80x" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        err[0] = '\0';
        assert_true(sockets_open(bad[i], 0666, err, sizeof err) < 0);
        assert_true(err[0] != '\0');
    }
}

static void unix_sockets_replace_only_the_dead(void **state) {
    (void)state;
    char address[160], err[256];
    struct stat st;
    snprintf(address, sizeof address, "unix:%s", in_folder("web.sock"));
    int fd = sockets_open(address, 0600, err, sizeof err);
    assert_true(fd >= 0);
    assert_int_equal(stat(address + 5, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(sockets_open(address, 0666, err, sizeof err), -EADDRINUSE); /* somebody answers */
    close(fd);
    fd = sockets_open(address, 0666, err, sizeof err); /* nobody does any more */
    assert_true(fd >= 0);
    assert_int_equal(stat(address + 5, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0666);
    close(fd);
    snprintf(address, sizeof address, "unix:%s", in_folder("log"));
    close(open(address + 5, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(sockets_open(address, 0666, err, sizeof err), -EEXIST); /* a file is never removed */
    assert_int_equal(access(address + 5, F_OK), 0);
}

/* A snapshot with nothing but these listeners. */
struct fake { struct snap snap; struct snap_listen listens[4]; char text[4][64]; };
static const struct snap *fake_snap(struct fake *f, unsigned n, ...) {
    va_list ap;
    memset(f, 0, sizeof *f);
    f->snap.listens = (struct snap_list){ offsetof(struct fake, listens), n };
    va_start(ap, n);
    for (unsigned i = 0; i < n; i++) {
        f->listens[i].id = va_arg(ap, unsigned);
        snprintf(f->text[i], sizeof f->text[i], "%s", va_arg(ap, const char *));
        f->listens[i].address = (struct snap_str){ (uint32_t)(offsetof(struct fake, text) + i * sizeof f->text[0]),
                                                   (uint32_t)strlen(f->text[i]) };
    }
    va_end(ap);
    return &f->snap;
}

static ino_t inode(int fd) {
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

static void listeners_change_in_two_phases(void **state) {
    (void)state;
    struct fake f;
    struct listener *one, *two, *none;
    char a[64], b[64], err[256];
    snprintf(a, sizeof a, "127.0.0.1:%u", free_port());
    snprintf(b, sizeof b, "unix:%s", in_folder("b.sock"));
    assert_true(sockets_prepare(fake_snap(&f, 2, 1u, a, 2u, b), NULL, &one, err, sizeof err));
    ino_t socket_a = inode(one->fd);
    /* One that cannot be opened: nothing changes, and the old ones go on. */
    assert_false(sockets_prepare(fake_snap(&f, 3, 1u, a, 9u, "unix:/no/such/folder/x", 2u, b), one, &none, err, sizeof err));
    assert_null(none);
    assert_int_equal(access(b + 5, F_OK), 0);
    /* The same address with other options (another id) keeps its socket; what is not named goes. */
    assert_true(sockets_prepare(fake_snap(&f, 1, 77u, a), one, &two, err, sizeof err));
    assert_int_equal(two->id, 77);
    assert_int_equal(inode(two->fd), socket_a);
    sockets_close(one, two);
    assert_int_equal(access(b + 5, F_OK), -1);
    sockets_close(two, NULL);
}

/* ---- names --------------------------------------------------------------------------------------------------------------------------- */

static void names_are_of_a_kind(void **state) {
    (void)state;
    struct fixture *f = fixture_open();
    struct names **n = &f->m.reload.names;
    assert_int_equal(names_find(*n, NAME_MODEL, "a"), 0);
    assert_true(names_add(n, NAME_MODEL, "a", 3));
    assert_true(names_add(n, NAME_TIER, "a", 4));
    assert_int_equal(names_find(*n, NAME_MODEL, "a"), 3);
    assert_int_equal(names_find(*n, NAME_TIER, "a"), 4);
    assert_int_equal(names_find(*n, NAME_GROUP, "a"), 0);
    fixture_close(f);
}

/* ---- calls ----------------------------------------------------------------------------------------------------------------------------- */

static struct ipc_frame ledger_gets(struct fixture *f) {
    struct ipc_frame frame;
    assert_int_equal(ipc_recv(&f->ledger, &frame), 1);
    return frame;
}

static char got_answer[256];
static unsigned got_answers;
static void note_answer(struct call *c, struct slice answer) {
    (void)c;
    got_answers++;
    snprintf(got_answer, sizeof got_answer, "%.*s", SLICE_ARG(answer));
}

static void calls_find_their_way_back(void **state) {
    (void)state;
    struct fixture *f = fixture_open();
    int me, other;
    got_answers = 0;
    assert_non_null(calls_send(&f->m, IPC_FROM_CONTROL, SLICE("{1}"), &me, 0, note_answer));
    struct ipc_frame one = ledger_gets(f);
    assert_int_equal(one.h.origin, IPC_FROM_CONTROL);
    assert_int_equal(one.h.type, IPC_CALL);
    uint32_t id = one.h.id;
    assert_non_null(calls_send(&f->m, IPC_FROM_MASTER, SLICE("{2}"), &other, 0, note_answer));
    struct ipc_frame two = ledger_gets(f);
    assert_int_not_equal(two.h.id, id);
    calls_drop(&f->m, &other);
    struct ipc_frame answer = { .h = { .type = IPC_ANSWER, .id = two.h.id }, .payload = SLICE("late") };
    calls_answered(&f->m, &answer); /* its owner is gone */
    assert_int_equal(got_answers, 0);
    answer.h.id = id;
    calls_answered(&f->m, &answer);
    calls_answered(&f->m, &answer); /* once only */
    assert_int_equal(got_answers, 1);
    assert_string_equal(got_answer, "late");
    assert_non_null(calls_send(&f->m, IPC_FROM_CONTROL, SLICE("{3}"), &me, 0, note_answer));
    calls_fail_all(&f->m);
    assert_int_equal(got_answers, 2);
    assert_non_null(strstr(got_answer, "\"unavailable\""));
    wire_close(&f->m.ledger.channel);
    assert_null(calls_send(&f->m, IPC_FROM_CONTROL, SLICE("{4}"), &me, 0, note_answer));
    fixture_close(f);
}

static void a_worker_cannot_choose_its_origin_nor_flood(void **state) {
    (void)state;
    struct fixture *f = fixture_open();
    struct worker w = { .range = 5 };
    struct ipc far;
    int fds[2];
    assert_int_equal(ipc_pair(fds), 0);
    assert_int_equal(wire_open(&w.channel, &f->m, fds[0], 1 << 20), 0);
    ipc_open(&far, fds[1], &f->pages, 1 << 20);
    struct ipc_frame call = { .h = { .type = IPC_CALL, .id = 99, .origin = IPC_FROM_CONTROL }, .payload = SLICE("{}") };
    calls_from_worker(&w, &call);
    struct ipc_frame seen = ledger_gets(f);
    assert_int_equal(seen.h.origin, IPC_FROM_WORKER + 5);
    struct ipc_frame answer = { .h = { .type = IPC_ANSWER, .id = seen.h.id }, .payload = SLICE("ok") };
    calls_answered(&f->m, &answer);
    struct ipc_frame back;
    assert_int_equal(ipc_recv(&far, &back), 1);
    assert_int_equal(back.h.id, 99);
    assert_true(slice_is(back.payload, "ok"));
    for (unsigned i = 0; i < CALLS_PER_WORKER; i++) {
        calls_from_worker(&w, &call);
        ledger_gets(f);
    }
    assert_int_equal(ipc_recv(&far, &back), 0);
    calls_from_worker(&w, &call); /* one too many */
    assert_int_equal(ipc_recv(&far, &back), 1);
    assert_int_equal(back.h.id, 99);
    assert_true(slice_starts(back.payload, SLICE("{\"error\"")));
    struct ipc_frame none;
    assert_int_equal(ipc_recv(&f->ledger, &none), 0);
    calls_drop(&f->m, &w);
    wire_close(&w.channel);
    ipc_close(&far);
    fixture_close(f);
}

static void a_ledger_that_commits_nothing_is_noticed(void **state) {
    (void)state;
    struct fixture *f = fixture_open();
    struct shm_range ranges[2];
    memset(ranges, 0, sizeof ranges);
    f->m.shm.ranges = ranges;
    f->m.shm.header->max_ranges = 2;
    _Atomic uint32_t *shed = &f->m.shm.header->shed;
    for (int i = 0; i < 10; i++) ledgerd_watch(&f->m, 500); /* nothing to do is no trouble */
    assert_int_equal(atomic_load(shed), SHED_NO);
    for (int i = 0; i < 10; i++) { /* always behind, but it moves */
        ranges[1].head += 5;
        ranges[1].tail += 4;
        ledgerd_watch(&f->m, 500);
    }
    assert_int_equal(atomic_load(shed), SHED_NO);
    for (int i = 0; i < 3; i++) ledgerd_watch(&f->m, 500);
    assert_int_equal(atomic_load(shed), SHED_NO);
    ledgerd_watch(&f->m, 500); /* two seconds */
    assert_int_equal(atomic_load(shed), SHED_LEDGER_STUCK);
    f->m.ledger.ready = false;
    ranges[1].tail++;
    ledgerd_watch(&f->m, 500); /* no ledger yet: it stays */
    assert_int_equal(atomic_load(shed), SHED_LEDGER_STUCK);
    f->m.ledger.ready = true;
    ranges[1].tail++;
    ledgerd_watch(&f->m, 500);
    assert_int_equal(atomic_load(shed), SHED_NO);
    atomic_store(shed, SHED_DISK_FULL); /* the ledger's own word is not touched */
    for (int i = 0; i < 10; i++) ledgerd_watch(&f->m, 500);
    ranges[1].tail++;
    ledgerd_watch(&f->m, 500);
    assert_int_equal(atomic_load(shed), SHED_DISK_FULL);
    fixture_close(f);
}

/* ---- the control socket --------------------------------------------------------------------------------------------------------------- */

struct caller { int fd; char got[8192]; size_t len; unsigned lines; };

static struct caller call_in(struct fixture *f) {
    struct caller c = { .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0) };
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    snprintf(a.sun_path, sizeof a.sun_path, "%s", f->m.control_path);
    assert_int_equal(connect(c.fd, (struct sockaddr *)&a, sizeof a), 0);
    return c;
}

static void say(const struct caller *c, const char *text) {
    assert_int_equal(send(c->fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static bool has_lines(void *arg) {
    struct caller *c = arg;
    ssize_t n = recv(c->fd, c->got + c->len, sizeof c->got - 1 - c->len, MSG_DONTWAIT);
    if (n > 0) c->len += (size_t)n;
    c->got[c->len] = '\0';
    unsigned lines = 0;
    for (size_t i = 0; i < c->len; i++) lines += c->got[i] == '\n';
    return lines >= c->lines;
}

static void expect_lines(struct fixture *f, struct caller *c, unsigned n) {
    c->lines = n;
    run_until(&f->m, has_lines, c);
}

struct echoing { struct fixture *f; unsigned seen, until; };
/* The ledger answers each call with its own text. */
static bool ledger_has_seen(void *arg) {
    struct echoing *e = arg;
    struct ipc_frame frame;
    while (ipc_recv(&e->f->ledger, &frame) == 1) {
        struct ipc_header h = { .type = IPC_ANSWER, .id = frame.h.id, .origin = frame.h.origin };
        assert_int_equal(ipc_send(&e->f->ledger, &h, frame.payload, NULL, 0), 0);
        e->seen++;
    }
    return e->seen >= e->until;
}

static struct fixture *control_fixture(void) {
    struct fixture *f = fixture_open();
    char err[256];
    f->m.control_path = strdup(in_folder("control.sock"));
    assert_true(control_listen(&f->m, f->m.control_path, err, sizeof err) >= 0);
    return f;
}

static void control_answers_in_order(void **state) {
    (void)state;
    struct fixture *f = control_fixture();
    struct stat st;
    assert_int_equal(stat(f->m.control_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    struct caller c = call_in(f);
    say(&c, "{\"cmd\":\"balance\",\"n\":1}\n\n{\"cmd\":\"balance\",\"n\":2}\n{bad\n{\"cmd\":5}\n{\"cmd\":\"names.intern\"}\r\n"
            "{\"cmd\":\"model.list\"}\n{\"cmd\":\"upstream.drain\",\"upstream\":\"x\"}\n{\"cmd\":\"bal");
    struct echoing e = { .f = f, .until = 2 };
    run_until(&f->m, ledger_has_seen, &e);
    expect_lines(f, &c, 7);
    say(&c, "ance\",\"n\":3}\n");
    e.until = 3;
    run_until(&f->m, ledger_has_seen, &e);
    expect_lines(f, &c, 8);
    assert_string_equal(c.got,
        "{\"cmd\":\"balance\",\"n\":1}\n{\"cmd\":\"balance\",\"n\":2}\n"
        "{\"error\":{\"code\":\"invalid_json\",\"message\":\"unexpected character or end\"}}\n"
        "{\"error\":{\"code\":\"missing_field\",\"message\":\"cmd\"}}\n"
        "{\"error\":{\"code\":\"unknown_command\",\"message\":\"names.intern is the master's own\"}}\n"
        "{\"result\":{\"models\":[]}}\n"
        "{\"error\":{\"code\":\"not_found\",\"message\":\"no upstream has this name\"}}\n"
        "{\"cmd\":\"balance\",\"n\":3}\n");
    close(c.fd);
    fixture_close(f);
}

static bool no_controls(void *arg) {
    return ((struct fixture *)arg)->m.controls == NULL;
}

static bool one_call(void *arg) {
    struct fixture *f = arg;
    struct ipc_frame frame;
    return ipc_recv(&f->ledger, &frame) == 1;
}

static void control_survives_callers_that_leave(void **state) {
    (void)state;
    struct fixture *f = control_fixture();
    struct caller c = call_in(f), half = call_in(f);
    say(&c, "{\"cmd\":\"audit\"}\n");
    run_until(&f->m, one_call, f);
    close(c.fd); /* before the answer */
    say(&half, "{\"cmd\":\"audit\"}\n");
    shutdown(half.fd, SHUT_WR); /* still reads */
    struct echoing e = { .f = f, .until = 1 };
    run_until(&f->m, ledger_has_seen, &e);
    expect_lines(f, &half, 1);
    assert_string_equal(half.got, "{\"cmd\":\"audit\"}\n");
    run_until(&f->m, no_controls, f);
    close(half.fd);
    fixture_close(f);
}

static void control_says_when_the_ledger_is_away(void **state) {
    (void)state;
    struct fixture *f = control_fixture();
    struct caller c = call_in(f);
    say(&c, "{\"cmd\":\"audit\"}\n{\"cmd\":\"balance\"}\n");
    run_until(&f->m, one_call, f);
    wire_close(&f->m.ledger.channel);
    calls_fail_all(&f->m);
    expect_lines(f, &c, 2);
    char *second = strchr(c.got, '\n') + 1;
    assert_non_null(strstr(second, "\"unavailable\""));
    second[-1] = '\0';
    assert_non_null(strstr(c.got, "\"unavailable\""));
    close(c.fd);
    fixture_close(f);
}

static void status_does_not_wait_for_a_stuck_ledger(void **state) {
    (void)state;
    struct fixture *f = control_fixture();
    struct caller c = call_in(f);
    say(&c, "{\"cmd\":\"status\"}\n");
    run_until(&f->m, one_call, f); /* never answered */
    uint64_t from_ns = events_mono_ns();
    expect_lines(f, &c, 1);
    assert_true(events_mono_ns() - from_ns < 5000000000u);
    assert_non_null(strstr(c.got, "\"ledger\":{\"state\":\"stuck\""));
    close(c.fd);
    fixture_close(f);
}

/* ---- the resolver --------------------------------------------------------------------------------------------------------------------- */

static void literals_need_no_resolver(void **state) {
    (void)state;
    struct shm_address a;
    assert_true(resolve_literal(SLICE("127.0.0.1"), &a));
    assert_int_equal(a.family, 4);
    assert_memory_equal(a.bytes, "\x7f\0\0\1", 4);
    assert_true(resolve_literal(SLICE("::1"), &a));
    assert_int_equal(a.family, 6);
    assert_int_equal(a.bytes[15], 1);
    assert_false(resolve_literal(SLICE("localhost"), &a));
    assert_false(resolve_literal(SLICE("127.1"), &a));
    assert_false(resolve_literal(SLICE(""), &a));
}

static bool resolver_settled;
static void note_settled(struct master *m) {
    (void)m;
    resolver_settled = true;
}
static bool is_settled(void *arg) {
    (void)arg;
    return resolver_settled;
}
static bool is_gone(void *arg) {
    struct master *m = arg;
    int status;
    if (waitpid(m->resolver.pid, &status, WNOHANG) != m->resolver.pid) return false;
    resolve_reaped(m, status);
    return true;
}

struct fake_upstreams { struct snap snap; struct snap_upstream u[2]; char text[2][32]; };

static void names_are_resolved_by_the_helper(void **state) {
    (void)state;
    struct fixture *f = fixture_open();
    struct fake_upstreams s = { .text = { "localhost", "127.0.0.9" } };
    struct shm_addresses *table = calloc(SHM_MAX_UPSTREAMS, sizeof *table);
    s.snap.upstreams = (struct snap_list){ offsetof(struct fake_upstreams, u), 2 };
    for (unsigned i = 0; i < 2; i++) {
        s.u[i].id = i + 1;
        s.u[i].host = (struct snap_str){ (uint32_t)(offsetof(struct fake_upstreams, text) + i * 32), (uint32_t)strlen(s.text[i]) };
    }
    f->m.shm.addresses = table;
    resolve_start(&f->m);
    resolver_settled = false;
    assert_false(resolve_learn(&f->m, &s.snap));
    f->m.resolver.settled = note_settled;
    run_until(&f->m, is_settled, NULL);
    resolve_publish(&f->m, &s.snap);
    struct shm_addresses a;
    assert_true(shm_addresses_read(&f->m.shm, 1, &a));
    assert_true(a.count >= 1);
    assert_true(shm_addresses_read(&f->m.shm, 2, &a));
    assert_int_equal(a.count, 1);
    assert_memory_equal(a.address[0].bytes, "\x7f\0\0\x9", 4);
    assert_true(resolve_learn(&f->m, &s.snap)); /* known by now */
    kill(f->m.resolver.pid, SIGKILL);
    run_until(&f->m, is_gone, &f->m);
    f->m.stopping = STOP_LEDGER;
    resolve_stop(&f->m);
    if (f->m.resolver.pid > 0) waitpid(f->m.resolver.pid, NULL, 0);
    events_timer_clear(&f->m.events, &f->m.resolver.next);
    events_timer_clear(&f->m.events, &f->m.resolver.deadline);
    free(table);
    fixture_close(f);
}

/* ---- children ------------------------------------------------------------------------------------------------------------------------- */

static int look_around(int kept, int other) {
    if (fcntl(kept, F_GETFD) < 0) return 2;
    if (fcntl(other, F_GETFD) >= 0) return 3;
    if (getenv("TG_TEST_PROVIDER_KEY")) return 4;
    if (!getenv("PATH")) return 5;
    sigset_t set;
    sigprocmask(SIG_BLOCK, NULL, &set);
    if (sigismember(&set, SIGTERM)) return 6;
    for (int fd = 3; fd < 256; fd++) {
        if (fd != kept && fcntl(fd, F_GETFD) >= 0) return 7;
    }
    return 0;
}

static void a_child_keeps_only_what_it_is_given(void **state) {
    (void)state;
    struct fixture *f = fixture_open();
    sigset_t set, before;
    int p[2], status;
    setenv("TG_TEST_PROVIDER_KEY", "sk-secret", 1);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, &before);
    assert_int_equal(pipe(p), 0);
    pid_t pid = spawn_fork(&f->m, &p[1], 1, "tg-test");
    if (pid == 0) _exit(look_around(p[1], p[0]));
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    sigprocmask(SIG_SETMASK, &before, NULL);
    unsetenv("TG_TEST_PROVIDER_KEY");
    close(p[0]);
    close(p[1]);
    fixture_close(f);
}

static void causes_are_told(void **state) {
    (void)state;
    char text[96];
    assert_string_equal(spawn_cause(3 << 8, text, sizeof text), "exit status 3");
    assert_string_equal(spawn_cause(SIGKILL, text, sizeof text), "killed by signal 9 (Killed)");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_once_in_order),
        cmocka_unit_test(back_off_grows_and_is_forgotten),
        cmocka_unit_test(log_lines_are_one_line),
        cmocka_unit_test(log_appends_and_is_not_for_all),
        cmocka_unit_test(systemd_is_notified),
        cmocka_unit_test(sockets_of_all_kinds),
        cmocka_unit_test(unix_sockets_replace_only_the_dead),
        cmocka_unit_test(listeners_change_in_two_phases),
        cmocka_unit_test(names_are_of_a_kind),
        cmocka_unit_test(calls_find_their_way_back),
        cmocka_unit_test(a_worker_cannot_choose_its_origin_nor_flood),
        cmocka_unit_test(a_ledger_that_commits_nothing_is_noticed),
        cmocka_unit_test(control_answers_in_order),
        cmocka_unit_test(control_survives_callers_that_leave),
        cmocka_unit_test(control_says_when_the_ledger_is_away),
        cmocka_unit_test(status_does_not_wait_for_a_stuck_ledger),
        cmocka_unit_test(literals_need_no_resolver),
        cmocka_unit_test(names_are_resolved_by_the_helper),
        cmocka_unit_test(a_child_keeps_only_what_it_is_given),
        cmocka_unit_test(causes_are_told),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
