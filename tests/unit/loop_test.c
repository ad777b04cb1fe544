/* The event loop: timers fire in order and in time, lazily moved ones too; what is taken out within a batch of
 * events stays silent; tasks. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/base/check.h"
#include "worker/loop.h"

static struct loop loop;

static int setup(void **state) {
    (void)state;
    return loop_init(&loop);
}

static int teardown(void **state) {
    (void)state;
    loop_close(&loop);
    return 0;
}

/* ---- descriptors ------------------------------------------------------------------------------------------------- */

struct end {
    struct watch watch;
    int count;
    uint32_t events;
    struct end *takes_out; /* on its first event */
    bool forgets;
};

static void end_event(struct watch *w, uint32_t events) {
    struct end *e = CONTAINER_OF(w, struct end, watch);
    e->count++;
    e->events = events;
    if (!e->takes_out)
        return;
    if (e->forgets)
        loop_forget(&loop, &e->takes_out->watch);
    else
        loop_unwatch(&loop, &e->takes_out->watch);
    memset(e->takes_out, 0xee, sizeof *e->takes_out); /* its memory may go at once */
    e->takes_out = NULL;
}

static void pair(int fds[2]) {
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

static void test_edges(void **state) {
    (void)state;
    int fds[2];
    pair(fds);
    struct end e = { .watch = { .fn = end_event, .fd = fds[0] } };
    assert_int_equal(loop_watch(&loop, &e.watch, 0), 0);
    assert_int_equal(loop_watch(&loop, &e.watch, 0), -EEXIST);
    loop_turn(&loop, 0);
    assert_int_equal(e.count, 1); /* writable */
    assert_true(e.events & EPOLLOUT);
    loop_turn(&loop, 0);
    assert_int_equal(e.count, 1); /* no new edge */
    assert_int_equal(write(fds[1], "x", 1), 1);
    loop_turn(&loop, -1);
    assert_int_equal(e.count, 2);
    assert_true(e.events & EPOLLIN);
    close(fds[1]);
    loop_turn(&loop, -1);
    assert_true(e.events & EPOLLRDHUP);
    loop_unwatch(&loop, &e.watch);
    close(fds[0]);
}

/* Two descriptors become ready at once; whichever is served first takes the other out, whose event is already
 * fetched. */
static void take_out(bool forgets) {
    int a[2], b[2];
    pair(a);
    pair(b);
    struct end *x = calloc(1, sizeof *x), *y = calloc(1, sizeof *y);
    *x = (struct end){ .watch = { .fn = end_event, .fd = a[0] }, .takes_out = y, .forgets = forgets };
    *y = (struct end){ .watch = { .fn = end_event, .fd = b[0] }, .takes_out = x, .forgets = forgets };
    assert_int_equal(loop_watch(&loop, &x->watch, EPOLLIN), 0);
    assert_int_equal(loop_watch(&loop, &y->watch, EPOLLIN), 0);
    assert_int_equal(write(a[1], "x", 1), 1);
    assert_int_equal(write(b[1], "x", 1), 1);
    loop_turn(&loop, 0);
    assert_true((x->count == 1) != (y->count == 1));
    struct end *alive = x->count == 1 ? x : y;
    if (forgets)
        close(alive == x ? b[0] : a[0]);
    loop_turn(&loop, 0); /* level-triggered: the one that is left speaks again */
    assert_int_equal(alive->count, 2);
    loop_unwatch(&loop, &alive->watch);
    close(a[1]), close(b[1]), close(alive == x ? a[0] : b[0]);
    if (!forgets)
        close(alive == x ? b[0] : a[0]);
    free(x), free(y);
}

static void test_unwatch_in_dispatch(void **state) {
    (void)state;
    take_out(false);
    take_out(true);
}

static void test_change(void **state) {
    (void)state;
    int fds[2];
    pair(fds);
    struct end e = { .watch = { .fn = end_event, .fd = fds[0] } };
    assert_int_equal(loop_watch(&loop, &e.watch, EPOLLIN), 0);
    loop_turn(&loop, 0);
    assert_int_equal(e.count, 0);
    assert_int_equal(loop_change(&loop, &e.watch, EPOLLOUT), 0);
    loop_turn(&loop, 0);
    assert_int_equal(e.count, 1);
    loop_unwatch(&loop, &e.watch);
    loop_unwatch(&loop, &e.watch); /* again: nothing */
    close(fds[0]), close(fds[1]);
}

/* ---- timers ------------------------------------------------------------------------------------------------------ */

struct alarm {
    struct timer timer;
    uint64_t due_ns, fired_ns;
    int count;
    struct alarm *turns_off, *sets;
    uint64_t sets_ms;
};

static void alarm_fired(struct timer *t) {
    struct alarm *a = CONTAINER_OF(t, struct alarm, timer);
    a->count++;
    a->fired_ns = loop.now_ns;
    if (a->turns_off)
        loop_timer_off(&loop, &a->turns_off->timer);
    if (a->sets) {
        struct alarm *other = a->sets;
        other->due_ns = loop.now_ns + a->sets_ms * 1000000;
        loop_timer(&loop, &other->timer, a->sets_ms);
    }
}

static void set(struct alarm *a, uint64_t ms) {
    a->timer.fn = alarm_fired;
    a->due_ns = loop.now_ns + ms * 1000000;
    loop_timer(&loop, &a->timer, ms);
}

/* Moves the loop's clock without waiting: what was read last counts until the next turn; here the wheel is turned by
 * hand. */
static void pass(uint64_t ms) {
    uint64_t until = loop.now_ns + ms * 1000000;
    while (loop.now_ns < until)
        loop_turn(&loop, (int)((until - loop.now_ns) / 1000000 + 1));
}

static void test_timer_order(void **state) {
    (void)state;
    enum { N = 200 };
    static struct alarm a[N];
    memset(a, 0, sizeof a);
    for (int i = 0; i < N; i++)
        set(&a[i], (uint64_t)((i * 37) % 100));
    assert_int_equal(loop.timers, N);
    pass(150);
    for (int i = 0; i < N; i++) {
        assert_int_equal(a[i].count, 1);
        assert_true(a[i].fired_ns >= a[i].due_ns);
        assert_true(a[i].fired_ns < a[i].due_ns + 40000000); /* a busy machine may be late, never early */
    }
    assert_int_equal(loop.timers, 0);
}

static void test_timer_moves(void **state) {
    (void)state;
    struct alarm later = { 0 }, sooner = { 0 }, off = { 0 };
    set(&later, 10);
    set(&later, 60); /* lazily: keeps its place, must not fire there */
    set(&sooner, 20000);
    set(&sooner, 5);
    set(&off, 5);
    loop_timer_off(&loop, &off.timer);
    loop_timer_off(&loop, &off.timer);
    assert_int_equal(off.timer.deadline_ns, 0);
    pass(30);
    assert_int_equal(sooner.count, 1);
    assert_int_equal(later.count, 0);
    pass(50);
    assert_int_equal(later.count, 1);
    assert_true(later.fired_ns >= later.due_ns);
    assert_int_equal(off.count, 0);
    assert_int_equal(later.timer.deadline_ns, 0);
}

/* Beyond the wheel's 8 s a timer waits in the last place. The clock is set back instead of waited for. */
static void test_timer_far(void **state) {
    (void)state;
    struct alarm far = { 0 }, near = { 0 };
    loop.now_ns -= 20000000000ull; /* as if it had been set 20 s ago */
    loop.wheel_tick = loop.now_ns / LOOP_TICK_NS;
    set(&far, 20050);
    set(&near, 19990);
    loop_turn(&loop, 0);
    assert_int_equal(near.count, 1);
    assert_int_equal(far.count, 0);
    pass(80);
    assert_int_equal(far.count, 1);
    assert_true(far.fired_ns >= far.due_ns);
}

static void test_timer_in_timer(void **state) {
    (void)state;
    struct alarm a = { 0 }, b = { 0 }, c = { 0 };
    set(&a, 3);
    set(&b, 3);
    a.turns_off = &b; /* of two that are due together the first may take the other out */
    b.turns_off = &a;
    c.sets = &c; /* sets itself again at 0 ms: once a turn, not for ever */
    set(&c, 0);
    loop_turn(&loop, -1);
    assert_int_equal(c.count, 1);
    loop_turn(&loop, -1);
    assert_int_equal(c.count, 2);
    c.sets = NULL;
    pass(10);
    assert_int_equal(a.count + b.count, 1);
    assert_int_equal(c.count, 3);
    assert_int_equal(loop.timers, 0);
}

/* A thousand random settings, moves and cancellations against a list that is looked through whole. */
static void test_timer_random(void **state) {
    (void)state;
    enum { N = 64 };
    static struct alarm a[N];
    memset(a, 0, sizeof a);
    unsigned seed = 7, fired = 0, expected = 0;
    for (int step = 0; step < 400; step++) {
        int i = rand_r(&seed) % N;
        if (rand_r(&seed) % 4 == 0)
            loop_timer_off(&loop, &a[i].timer), a[i].due_ns = 0;
        else
            set(&a[i], (uint64_t)rand_r(&seed) % 30);
        int before[N];
        for (int k = 0; k < N; k++)
            before[k] = a[k].count;
        loop_turn(&loop, 1);
        for (int k = 0; k < N; k++) {
            bool due = a[k].due_ns && a[k].due_ns <= loop.now_ns;
            assert_int_equal(a[k].count - before[k], due);
            if (due)
                a[k].due_ns = 0, expected++;
        }
    }
    for (int k = 0; k < N; k++)
        fired += (unsigned)a[k].count, loop_timer_off(&loop, &a[k].timer);
    assert_int_equal(fired, expected);
    assert_true(fired > 50);
    assert_int_equal(loop.timers, 0);
}

/* ---- tasks and hooks --------------------------------------------------------------------------------------------- */

struct job {
    struct task task;
    int count;
    bool again;
    struct job *unposts;
};

static void job_run(struct task *t) {
    struct job *j = CONTAINER_OF(t, struct job, task);
    j->count++;
    if (j->again)
        loop_post(&loop, t);
    if (j->unposts)
        loop_unpost(&loop, &j->unposts->task);
}

static void test_tasks(void **state) {
    (void)state;
    struct job a = { .task.fn = job_run, .again = true }, b = { .task.fn = job_run }, c = { .task.fn = job_run };
    loop_post(&loop, &a.task);
    loop_post(&loop, &a.task); /* once */
    loop_post(&loop, &b.task);
    loop_post(&loop, &c.task);
    loop_unpost(&loop, &c.task);
    loop_unpost(&loop, &c.task);
    loop_turn(&loop, -1); /* does not block: tasks are pending */
    assert_int_equal(a.count, 1);
    assert_int_equal(b.count, 1);
    assert_int_equal(c.count, 0);
    a.unposts = &b; /* b is taken out of the turn's own list by a, which runs first */
    loop_post(&loop, &b.task);
    loop_turn(&loop, -1);
    assert_int_equal(a.count, 2);
    assert_int_equal(b.count, 1);
    a.again = false;
    loop_post(&loop, &c.task); /* behind one that was the tail when it went */
    loop_turn(&loop, -1);
    assert_int_equal(c.count, 1);
    assert_int_equal(a.count, 3);
    assert_null(loop.tasks);
}

static int idles, wakes, tops;
static uint64_t top_saw_ns;
static void on_idle(struct loop *l) { (void)l; idles++; }
static void on_wake(struct loop *l) { (void)l; wakes++; assert_int_equal(idles, wakes); }
static void on_top(struct loop *l) { tops++; top_saw_ns = l->now_ns; }

static void test_hooks(void **state) {
    (void)state;
    struct job j = { .task.fn = job_run };
    struct alarm a = { 0 };
    loop.on_idle = on_idle, loop.on_wake = on_wake, loop.on_top = on_top;
    idles = wakes = tops = 0;
    loop_post(&loop, &j.task);
    loop_turn(&loop, -1);
    assert_int_equal(idles, 0); /* a turn that does not block is none in which one is asleep */
    assert_int_equal(tops, 1);
    set(&a, 3);
    loop_turn(&loop, -1);
    assert_int_equal(idles, 1);
    assert_int_equal(wakes, 1);
    assert_int_equal(tops, 2);
    assert_int_equal(top_saw_ns, loop.now_ns);
}

static void stop_it(struct timer *t) { (void)t; loop.stop = true; }

static void test_run(void **state) {
    (void)state;
    struct timer t = { .fn = stop_it };
    loop_timer(&loop, &t, 1);
    loop_run(&loop);
    assert_true(loop.stop);
}

static void stop_when_idle(struct loop *l) { l->stop = true; }

static void test_stop_when_idle(void **state) {
    (void)state;
    loop.on_idle = stop_when_idle;
    alarm(5); /* a turn that blocks would block for ever */
    loop_run(&loop);
    alarm(0);
    assert_true(loop.stop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_edges, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unwatch_in_dispatch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_far, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_in_timer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_random, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tasks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hooks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_run, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_when_idle, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
