/* Accepting: fair shares among processes, the gate, max_connections, replacing the set; and a worker's privileges. */
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>

#include "tests/unit/upstream_fixture.h"
#include "worker/conn.h"
#include "worker/listen.h"
#include "worker/sandbox.h"
#include "worker/tls.h"

enum { LISTEN_ID = 77 };

struct place {
    struct fixture *shm;
    struct worker w;
    struct snap snap;
    struct snap_listen listen[2];
    struct snapshot snapshot;
    int fd;
    uint16_t port;
};

static int open_listener(uint16_t *port) {
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 500), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

static int dial(const struct place *p) {
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(p->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static void start(struct place *p, uint32_t range) {
    worker_start(&p->w, &p->shm->shm, range);
    p->w.snapshot = &p->snapshot;
    listeners_init(&p->w);
    atomic_store(&p->w.shm.ranges[range].state, RANGE_LIVE);
    listeners_snapshot(&p->w);
}

static void hand_over(struct place *p, uint64_t id) {
    int fd = dup(p->fd);
    listeners_set(&p->w, &id, &fd, 1);
}

static int setup(void **state) {
    struct place *p = calloc(1, sizeof *p);
    fixture_setup((void **)&p->shm);
    p->fd = open_listener(&p->port);
    p->snap.listens.off = (uint32_t)(offsetof(struct place, listen) - offsetof(struct place, snap));
    p->snap.listens.count = 1;
    p->snap.max_connections = 1000;
    p->snap.client_timeout_ms = p->snap.keepalive_timeout_ms = 60000;
    p->listen[0].id = LISTEN_ID;
    p->snapshot = (struct snapshot){ .snap = &p->snap, .refs = 1 };
    *state = p;
    start(p, 0);
    return 0;
}

static int teardown(void **state) {
    struct place *p = *state;
    conn_close_all(&p->w);
    assert_int_equal(p->w.conn_count, 0);
    listeners_free(&p->w);
    worker_end(&p->w);
    close(p->fd);
    fixture_teardown((void **)&p->shm);
    free(p);
    return 0;
}

static void turns(struct place *p, int n) {
    for (int i = 0; i < n; i++)
        loop_turn(&p->w.loop, 3);
}

/* ---- one worker -------------------------------------------------------------------------------------------------- */

static void test_accepts(void **state) {
    struct place *p = *state;
    int c[3];
    for (int i = 0; i < 3; i++)
        c[i] = dial(p);
    hand_over(p, LISTEN_ID + 1); /* the snapshot does not know it yet */
    turns(p, 3);
    assert_int_equal(p->w.conn_count, 0);
    p->listen[0].id = LISTEN_ID + 1;
    listeners_snapshot(&p->w);
    turns(p, 5);
    assert_int_equal(p->w.conn_count, 3);
    assert_int_equal(p->w.counters->connections_accepted, 3);
    listeners_close(&p->w);
    int late = dial(p);
    turns(p, 3);
    assert_int_equal(p->w.conn_count, 3);
    for (int i = 0; i < 3; i++)
        close(c[i]);
    close(late);
}

static unsigned open_descriptors(void) {
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void test_set(void **state) {
    struct place *p = *state;
    unsigned before = open_descriptors();
    hand_over(p, LISTEN_ID);
    assert_int_equal(open_descriptors(), before + 1);
    for (int i = 0; i < 5; i++)
        hand_over(p, LISTEN_ID); /* the same again: the old descriptor stays, the new one is closed */
    assert_int_equal(open_descriptors(), before + 1);
    int c = dial(p);
    turns(p, 3);
    assert_int_equal(p->w.conn_count, 1);
    uint16_t port;
    int other = open_listener(&port);
    uint64_t id = LISTEN_ID;
    listeners_set(&p->w, &id, &other, 1); /* the same id, another socket: it is taken */
    p->port = port;
    int d = dial(p);
    turns(p, 3);
    assert_int_equal(p->w.conn_count, 2);
    listeners_set(&p->w, NULL, NULL, 0);
    assert_int_equal(open_descriptors(), before + 4); /* two connections, both ends */
    close(c), close(d);
}

static void test_full(void **state) {
    struct place *p = *state;
    p->snap.max_connections = 2;
    hand_over(p, LISTEN_ID);
    int c[3];
    for (int i = 0; i < 3; i++)
        c[i] = dial(p);
    turns(p, 5);
    assert_int_equal(p->w.conn_count, 2);
    assert_int_equal(p->w.counters->connections_refused, 1); /* nobody else has room: it is told at once */
    char byte;
    assert_int_equal(recv(c[2], &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    p->listen[0].admin = 1; /* the operator always gets in */
    int admin = dial(p);
    turns(p, 3);
    assert_int_equal(p->w.conn_count, 3);
    for (int i = 0; i < 3; i++)
        close(c[i]);
    close(admin);
}

/* ---- the gate ---------------------------------------------------------------------------------------------------- */

/* A second worker that does not really exist: asleep, with so many exchanges. */
static struct shm_range *pretend(struct place *p, uint32_t active, uint32_t ack) {
    struct shm_range *r = &p->w.shm.ranges[1];
    atomic_store(&r->state, RANGE_LIVE);
    atomic_store(&r->retiring, 0);
    atomic_store(&r->active, active);
    atomic_store(&r->connections, 0);
    atomic_store(&r->ack, ack);
    atomic_store(&r->turn_ns, 0);
    return r;
}

static void set_load(struct place *p, uint32_t active) {
    atomic_store(&p->w.shm.ranges[0].active, active);
}

static void test_gate(void **state) {
    struct place *p = *state;
    struct shm_range *other = pretend(p, 0, RANGE_IDLE);
    int c[8], n = 0;
    set_load(p, 1); /* the mean is a half: within the slack of 1 */
    hand_over(p, LISTEN_ID);
    c[n++] = dial(p);
    turns(p, 4);
    assert_int_equal(p->w.conn_count, 1);
    set_load(p, 20); /* mean 10: too much */
    c[n++] = dial(p);
    turns(p, 4);     /* the place in the queue was taken before: this one it serves */
    assert_int_equal(p->w.conn_count, 2);
    c[n++] = dial(p);
    turns(p, 10);
    assert_int_equal(p->w.conn_count, 2); /* the other one is to take it */
    set_load(p, 1);
    turns(p, 10);
    assert_int_equal(p->w.conn_count, 3); /* back within milliseconds */
    set_load(p, 20);
    c[n++] = dial(p), turns(p, 4);
    c[n++] = dial(p), turns(p, 10);
    assert_int_equal(p->w.conn_count, 4);
    atomic_store(&other->ack, 0); /* the other one hangs: its heart does not beat */
    turns(p, 15);
    assert_int_equal(p->w.conn_count, 5);
    atomic_store(&other->ack, RANGE_IDLE);
    c[n++] = dial(p), turns(p, 4);
    c[n++] = dial(p), turns(p, 10);
    assert_int_equal(p->w.conn_count, 6);
    atomic_store(&other->retiring, 1); /* it drains: nobody else is left */
    turns(p, 15);
    assert_int_equal(p->w.conn_count, 7);
    while (n)
        close(c[--n]);
}

/* Full, and another has room: the connection is left to it. */
static void test_full_among_others(void **state) {
    struct place *p = *state;
    struct shm_range *other = pretend(p, 0, RANGE_IDLE);
    p->snap.max_connections = 1;
    hand_over(p, LISTEN_ID);
    int a = dial(p), b = dial(p);
    turns(p, 10);
    assert_int_equal(p->w.conn_count, 1);
    assert_int_equal(p->w.counters->connections_refused, 0);
    atomic_store(&other->connections, 1);
    turns(p, 15);
    assert_int_equal(p->w.counters->connections_refused, 1);
    close(a), close(b);
}

/* ---- several processes ------------------------------------------------------------------------------------------- */

enum { CHILDREN = 4, EACH = 50 };

static void idle_hook(struct loop *l) {
    struct worker *w = CONTAINER_OF(l, struct worker, loop);
    atomic_store(&w->shm.ranges[w->heritage.range].ack, RANGE_IDLE);
}

static void wake_hook(struct loop *l) {
    struct worker *w = CONTAINER_OF(l, struct worker, loop);
    atomic_store(&w->shm.ranges[w->heritage.range].ack, 0);
    atomic_store(&w->shm.ranges[w->heritage.range].turn_ns, l->now_ns);
}

static void child(struct place *p, uint32_t range) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    start(p, range);
    p->w.loop.on_idle = idle_hook;
    p->w.loop.on_wake = wake_hook;
    hand_over(p, LISTEN_ID);
    loop_run(&p->w.loop);
    _exit(0);
}

static unsigned spread(struct place *p, unsigned *least, unsigned *most) {
    unsigned sum = 0;
    *least = UINT32_MAX, *most = 0;
    for (uint32_t i = 0; i < CHILDREN; i++) {
        unsigned n = atomic_load(&p->w.shm.ranges[i].connections);
        sum += n;
        *least = n < *least ? n : *least;
        *most = n > *most ? n : *most;
    }
    return sum;
}

/* Connections that come one by one, the case in which the kernel alone gives all of them to one process. */
static void test_fair(void **state) {
    struct place *p = *state;
    pid_t pids[CHILDREN];
    int fds[CHILDREN * EACH];
    unsigned least, most;
    for (uint32_t i = 0; i < CHILDREN; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0)
            child(p, i);
    }
    for (uint32_t i = 0; i < CHILDREN; i++)
        while (atomic_load(&p->w.shm.ranges[i].ack) != RANGE_IDLE)
            sched_yield();
    for (unsigned i = 0; i < CHILDREN * EACH; i++) {
        fds[i] = dial(p);
        while (spread(p, &least, &most) <= i)
            sched_yield(); /* until someone has it */
    }
    assert_int_equal(spread(p, &least, &most), CHILDREN * EACH);
    assert_true(least >= EACH / 2 && most <= EACH * 2);
    for (uint32_t i = 0; i < CHILDREN; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    for (unsigned i = 0; i < CHILDREN * EACH; i++)
        close(fds[i]);
}

/* ---- privileges -------------------------------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__)
#define FILTERED false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FILTERED false
#endif
#endif
#ifndef FILTERED
#define FILTERED true
#endif

/* 0: as it should be; else the line that was wrong. */
#define DEMAND(condition) do { if (!(condition)) return __LINE__ - 300; } while (0)
#define DENIED(call) ((call) == -1 && errno == EPERM)

static int in_sandbox(struct place *p) {
    bool root = getuid() == 0;
    int before = open("/dev/null", O_RDONLY | O_CLOEXEC), fds[2];
    p->w.heritage.uid = root ? 65534 : 0, p->w.heritage.gid = 65534;
    p->w.heritage.master_pid = getppid();
    p->w.heritage.allow_sandbox = true;
    DEMAND(worker_sandbox(&p->w) == 0);
    struct rlimit core = { 1, 1 };
    DEMAND(!root || (getuid() == 65534 && getegid() == 65534));
    DEMAND(!FILTERED || DENIED(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)));
    DEMAND(FILTERED || (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && prctl(PR_GET_DUMPABLE) == 0));
    DEMAND(FILTERED || (getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_max == 0));
    if (!FILTERED)
        return 0;
    /* refused */
    DEMAND(DENIED(open("/etc/passwd", O_RDONLY)));
    DEMAND(DENIED(open("/dev/null", O_RDONLY)));
    DEMAND(DENIED(unlink("/tmp/nothing")));
    DEMAND(DENIED(execl("/bin/true", "true", (char *)NULL)));
    DEMAND(DENIED(fork()));
    DEMAND(DENIED(kill(getppid(), 0)));
    DEMAND(DENIED(kill(getpid(), 0)));
    DEMAND(DENIED(ptrace(PTRACE_TRACEME, 0, NULL, NULL)));
    DEMAND(DENIED(socket(AF_UNIX, SOCK_STREAM, 0)));
    DEMAND(DENIED(socket(AF_INET, SOCK_DGRAM, 0)));
    DEMAND(DENIED(socket(AF_NETLINK, SOCK_STREAM, 0)));
    DEMAND(DENIED(bind(p->fd, NULL, 0)));
    DEMAND(DENIED(listen(p->fd, 1)));
    DEMAND(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EPERM);
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    DEMAND(page != MAP_FAILED);
    DEMAND(DENIED(mprotect(page, 4096, PROT_READ | PROT_EXEC)));
    /* what a worker does */
    DEMAND(mprotect(page, 4096, PROT_READ) == 0 && munmap(page, 4096) == 0);
    DEMAND((fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) >= 0);
    DEMAND((fds[1] = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0 || errno == EAFNOSUPPORT);
    struct stat st;
    DEMAND(fstat(before, &st) == 0);
    void *big = malloc(10 << 20); /* mmap and its end */
    DEMAND(big != NULL);
    free(big);
    hand_over(p, LISTEN_ID);
    DEMAND(p->w.listeners != NULL);
    turns(p, 3);
    DEMAND(p->w.conn_count == 1);
    uint8_t drawn[16];
    DEMAND(tls_init() == 0 && mbedtls_ctr_drbg_random(&tls_random, drawn, sizeof drawn) == 0);
    return 0;
}

static void test_sandbox(void **state) {
    struct place *p = *state;
    int c = dial(p), status;
    pid_t pid = fork();
    if (pid == 0) {
        start(p, 1); /* an epoll of its own */
        _exit(in_sandbox(p));
    }
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    close(c);
}

/* abort() in the sandbox still ends the process: its last words count on it. */
static void test_sandbox_abort(void **state) {
    struct place *p = *state;
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 2);
        p->w.heritage.master_pid = getppid();
        p->w.heritage.allow_sandbox = true;
        if (worker_sandbox(&p->w) == 0)
            abort();
        _exit(1);
    }
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* A worker whose master died before PDEATHSIG was set must not serve. */
static void test_orphan(void **state) {
    struct place *p = *state;
    p->w.heritage.master_pid = getppid() + 12345;
    p->w.heritage.allow_sandbox = false;
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(worker_sandbox(&p->w) == -ESRCH ? 0 : 1);
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
}

#define PLACE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        PLACE_TEST(test_accepts), PLACE_TEST(test_set), PLACE_TEST(test_full), PLACE_TEST(test_gate),
        PLACE_TEST(test_full_among_others),
        PLACE_TEST(test_fair), PLACE_TEST(test_sandbox), PLACE_TEST(test_sandbox_abort), PLACE_TEST(test_orphan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
