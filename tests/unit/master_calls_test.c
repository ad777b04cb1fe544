/* Calls and their way back, and the control socket on which most of them come; a ledger that does not answer. */
#include "tests/unit/master_fixture.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_find_their_way_back),
        cmocka_unit_test(a_worker_cannot_choose_its_origin_nor_flood),
        cmocka_unit_test(a_ledger_that_commits_nothing_is_noticed),
        cmocka_unit_test(control_answers_in_order),
        cmocka_unit_test(control_survives_callers_that_leave),
        cmocka_unit_test(control_says_when_the_ledger_is_away),
        cmocka_unit_test(status_does_not_wait_for_a_stuck_ledger),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
