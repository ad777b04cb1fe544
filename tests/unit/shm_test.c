/* The segment's life, the read-only region, the published tables, the counters. */
#include "tests/unit/shm_fixture.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "shm/counters.h"
#include "shm/money.h"
#include "shm/steps.h"

static struct shm_key key_numbered(uint32_t n, uint32_t id) {
    struct shm_key k = { .status = KEY_ACTIVE, .id = id, .account = n % 16, .rpm = LIMIT_OF_TIER };
    for (int i = 0; i < 32; i++) k.hash[i] = (uint8_t)(n * 2654435761u >> (i % 4 * 8)) ^ (uint8_t)(i / 4 * 17);
    return k;
}

static void test_made_and_attached(void **state) {
    struct fixture *f = *state;
    struct stat st;
    assert_true(f->fresh);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(st.st_size, shm_bytes(&fixture_sizes));
    assert_true((size_t)st.st_blocks * 512 >= (size_t)st.st_size); /* allocated, not sparse */
    assert_int_equal(f->shm.header->ring_size, 1024);
    assert_int_equal(atomic_load(&f->shm.header->shed), SHED_STARTING);
    uint64_t id = f->shm.header->segment_id;
    atomic_store(&f->shm.account_words[3].available, 42);
    fixture_close(f);
    fixture_open(f, &fixture_sizes);
    assert_false(f->fresh);
    assert_int_equal(f->shm.header->segment_id, id);
    assert_int_equal(atomic_load(&f->shm.account_words[3].available), 42);

    struct shm_sizes found, other = fixture_sizes;
    assert_true(shm_peek(f->path, &found));
    assert_memory_equal(&found, &fixture_sizes, sizeof found);
    other.max_active = 1000;
    fixture_close(f);
    fixture_open(f, &other);
    assert_true(f->fresh);
    assert_int_equal(f->shm.header->ring_size, 2048);
    assert_true(f->shm.header->segment_id != id);
    assert_int_equal(atomic_load(&f->shm.account_words[3].available), 0);

    /* a maker that died before the magic number; another boot; another layout */
    f->shm.header->magic = 0;
    assert_false(shm_peek(f->path, &found));
    fixture_close(f);
    fixture_open(f, &other);
    assert_true(f->fresh);
    f->shm.header->boot_id[0] ^= 1;
    fixture_close(f);
    fixture_open(f, &other);
    assert_true(f->fresh);
    /* another layout: kept for the version that made it, unless that has ended with nothing left in it */
    struct shm s;
    int rw, ro;
    bool fresh;
    char err[256] = "";
    atomic_store(&f->shm.ranges[1].head, 1);
    shm_note_settled(&f->shm);
    f->shm.header->layout++;
    assert_int_equal(shm_open_segment(&s, f->path, &other, &rw, &ro, &fresh, err, sizeof err), -EBUSY);
    assert_non_null(strstr(err, "start that version"));
    atomic_store(&f->shm.ranges[1].tail, 1);
    shm_note_settled(&f->shm);
    fixture_close(f);
    fixture_open(f, &other);
    assert_true(f->fresh);
}

static void test_errors_are_sentences(void **state) {
    struct fixture *f = *state;
    struct shm s;
    int rw, ro;
    bool fresh;
    char err[256] = "";
    struct shm_sizes zero = { 0 }, huge = { 1u << 26, 1u << 26, 1 << 20, 1024 };
    assert_int_equal(shm_open_segment(&s, f->path, &zero, &rw, &ro, &fresh, err, sizeof err), -EINVAL);
    assert_int_equal(shm_open_segment(&s, "/no/such/folder/x", &fixture_sizes, &rw, &ro, &fresh, err, sizeof err), -ENOENT);
    assert_non_null(strstr(err, "/no/such/folder/x: "));
    assert_int_equal(shm_open_segment(&s, "/dev/null", &fixture_sizes, &rw, &ro, &fresh, err, sizeof err), -EPERM);
    char path[80];
    snprintf(path, sizeof path, "%s.huge", f->path);
    int r = shm_open_segment(&s, path, &huge, &rw, &ro, &fresh, err, sizeof err);
    assert_true(r == -ENOSPC || r == -EFBIG || r == -ENOMEM); /* half a terabyte: no room, and nothing is left behind */
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(symlink(f->path, path), 0); /* not through a link that somebody laid there */
    assert_int_equal(shm_open_segment(&s, path, &fixture_sizes, &rw, &ro, &fresh, err, sizeof err), -ELOOP);
    unlink(path);
}

/* ---- read-only --------------------------------------------------------------------------------------------------- */

static void write_header(struct fixture *f) {
    signal(SIGSEGV, SIG_DFL); /* a sanitizer would catch it */
    shm_drop_writable(&f->shm, f->ro_fd);
    atomic_store(&f->shm.header->pause, 9);
}

static void drop_and_try(struct fixture *f) {
    if (shm_drop_writable(&f->shm, f->ro_fd) != 0) _exit(1);
    if (mprotect(f->shm.ro_map, f->shm.ro_bytes, PROT_READ | PROT_WRITE) == 0 || errno != EACCES) _exit(2);
    if (atomic_load(&f->shm.header->pause) != 4) _exit(3);
    atomic_store(&f->shm.account_words[0].available, 5); /* the other region is writable still */
}

static void test_workers_map_read_only(void **state) {
    struct fixture *f = *state;
    atomic_store(&f->shm.header->pause, 4);
    assert_int_equal(in_child(drop_and_try, f), 0);
    assert_int_equal(atomic_load(&f->shm.account_words[0].available), 5);
    assert_int_equal(in_child(write_header, f), 256 + SIGSEGV);
    assert_int_equal(atomic_load(&f->shm.header->pause), 4);
}

/* The pause word is waited for through the read-only mapping, without a timeout: only the wake can end it. */
static void wait_read_only(struct fixture *f) {
    if (shm_drop_writable(&f->shm, f->ro_fd) != 0) _exit(1);
    while (atomic_load(&f->shm.header->pause) == 7) shm_futex_wait(&f->shm.header->pause, 7, 0);
}

static bool asleep_in_futex(pid_t pid) {
    char path[64], text[64] = "";
    snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0) return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 && strtol(text, NULL, 10) == SYS_futex;
}

static void test_futex_through_read_only(void **state) {
    struct fixture *f = *state;
    atomic_store(&f->shm.header->pause, 7);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        wait_read_only(f);
        _exit(0);
    }
    for (int i = 0; i < 100000 && !asleep_in_futex(pid); i++) sched_yield();
    assert_true(asleep_in_futex(pid));
    atomic_store(&f->shm.header->pause, 8);
    assert_true(asleep_in_futex(pid));
    shm_futex_wake(&f->shm.header->pause);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

static void test_keys(void **state) {
    struct fixture *f = *state;
    struct shm *s = &f->shm;
    uint32_t index;
    struct shm_key out;
    for (uint32_t i = 0; i < 32; i++) {
        struct shm_key k = key_numbered(i, 100 + i);
        assert_false(shm_key_find(s, k.hash, &index));
        assert_true(shm_key_publish(s, i, &k));
    }
    for (uint32_t i = 0; i < 32; i++) {
        struct shm_key k = key_numbered(i, 0);
        assert_true(shm_key_find(s, k.hash, &index));
        assert_int_equal(index, i);
        assert_true(shm_key_read(s, i, &out));
        assert_int_equal(out.id, 100 + i);
    }
    assert_false(shm_key_read(s, 32, &out));
    /* a change without a new hash; then the place becomes another key's */
    struct shm_key k = key_numbered(5, 105), next = key_numbered(77, 177);
    k.status = KEY_REVOKED;
    assert_true(shm_key_publish(s, 5, &k));
    assert_true(shm_key_find(s, k.hash, &index) && shm_key_read(s, index, &out) && out.status == KEY_REVOKED);
    assert_true(shm_key_publish(s, 5, &next));
    assert_false(shm_key_find(s, k.hash, &index));
    assert_true(shm_key_find(s, next.hash, &index) && index == 5);
    shm_key_remove(s, 5);
    assert_false(shm_key_find(s, next.hash, &index));
    assert_false(shm_key_read(s, 5, &out));
    /* a writer that died half way: not there, and whole again once published */
    struct shm_key six = key_numbered(6, 106);
    atomic_fetch_add(&s->keys[6].version, 1);
    assert_false(shm_key_find(s, six.hash, &index));
    assert_false(shm_key_read(s, 6, &out));
    assert_true(shm_key_publish(s, 6, &six));
    assert_true(shm_key_find(s, six.hash, &index) && shm_key_read(s, 6, &out));
}

/* Keys come and go for ever: the index never fills with tombstones, and always says what a plain list says. */
static void test_key_churn(void **state) {
    struct fixture *f = *state;
    struct shm *s = &f->shm;
    uint32_t has[32] = { 0 }, next = 1000, index;
    unsigned seed = 7;
    for (int round = 0; round < 20000; round++) {
        uint32_t i = (uint32_t)rand_r(&seed) % 32;
        if (has[i] && rand_r(&seed) % 2) {
            shm_key_remove(s, i);
            has[i] = 0;
        } else {
            struct shm_key k = key_numbered(has[i] = next, next);
            next++;
            assert_true(shm_key_publish(s, i, &k));
        }
        uint32_t j = (uint32_t)rand_r(&seed) % 32;
        struct shm_key k = key_numbered(has[j], 0);
        if (has[j]) assert_true(shm_key_find(s, k.hash, &index) && index == j);
        uint32_t old = (uint32_t)rand_r(&seed) % next;
        bool there = false;
        for (int n = 0; n < 32; n++) there |= has[n] == old && old != 0;
        k = key_numbered(old, 0);
        assert_int_equal(shm_key_find(s, k.hash, &index), there);
    }
    uint32_t deleted = 0;
    for (uint32_t i = 0; i < 32; i++) shm_key_remove(s, i);
    for (uint32_t i = 0; i <= s->key_mask; i++) deleted += atomic_load(&s->key_index[i]) != 0;
    assert_int_equal(deleted, 0);
}

/* One process writes all the time; every copy that another reads is whole. */
static void test_reads_are_whole(void **state) {
    struct fixture *f = *state;
    struct shm *s = &f->shm;
    struct shm_key k = key_numbered(1, 0), out;
    k.rpm = 0;
    assert_true(shm_key_publish(s, 1, &k));
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (uint32_t i = 0;; i++) {
            k.id = i;
            k.rpm = k.tpm = k.concurrency = i;
            shm_key_publish(s, 1, &k);
            shm_account_publish(s, 2, &(struct shm_account){ .status = ACCOUNT_ACTIVE, .id = i, .tier_id = i, .group_id = i });
        }
    }
    int whole = 0;
    for (int i = 0; i < 300000; i++) {
        struct shm_account a;
        if (shm_key_read(s, 1, &out)) {
            assert_true(out.id == (uint32_t)out.rpm && out.rpm == out.tpm && out.tpm == out.concurrency);
            whole++;
        }
        if (shm_account_read(s, 2, &a)) assert_true(a.id == a.tier_id && a.id == a.group_id);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_true(whole > 0);
}

/* Keys come and go in one process; another always finds those that stay. */
static void test_found_while_others_move(void **state) {
    struct fixture *f = *state;
    struct shm *s = &f->shm;
    for (uint32_t i = 0; i < 16; i++) {
        struct shm_key k = key_numbered(i, i);
        assert_true(shm_key_publish(s, i, &k));
    }
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (uint32_t n = 100;; n++) {
            struct shm_key k = key_numbered(n, n);
            if (n % 3) shm_key_publish(s, 16 + n % 16, &k);
            else shm_key_remove(s, 16 + (n / 3) % 16);
        }
    }
    uint32_t index, missed = 0, absent = 0;
    for (uint32_t i = 0; i < 1000000; i++) {
        struct shm_key k = key_numbered(i % 16, 0), none = key_numbered(50, 0);
        missed += !shm_key_find(s, k.hash, &index) || index != i % 16;
        absent += shm_key_find(s, none.hash, &index);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(missed, 0);
    assert_int_equal(absent, 0);
}

static void test_caps(void **state) {
    struct shm *s = &((struct fixture *)*state)->shm;
    int64_t amount;
    assert_false(shm_cap_find(s, 1, 1, &amount));
    for (uint32_t i = 0; i < 700; i++) assert_true(shm_cap_publish(s, i % 16 | (i % 2 ? SHM_CAP_KEY : 0), i + 1, i * 10));
    for (uint32_t i = 0; i < 700; i++) {
        assert_true(shm_cap_find(s, i % 16 | (i % 2 ? SHM_CAP_KEY : 0), i + 1, &amount));
        assert_int_equal(amount, i * 10);
        assert_false(shm_cap_find(s, i % 16 | (i % 2 ? 0 : SHM_CAP_KEY), i + 1, &amount));
    }
    assert_true(shm_cap_publish(s, 0, 1, 77));
    assert_true(shm_cap_find(s, 0, 1, &amount) && amount == 77);
    for (uint32_t i = 0; i < 700; i++) assert_true(shm_cap_publish(s, i % 16 | (i % 2 ? SHM_CAP_KEY : 0), i + 1, -1));
    for (uint32_t i = 0; i <= s->cap_mask; i++) assert_int_equal(s->caps[i].model_id, 0);
    for (uint32_t i = 0; i < 50000; i++) { /* come and go: every place stays of use */
        assert_true(shm_cap_publish(s, i % 16, i + 1, i));
        if (i >= 500) assert_true(shm_cap_find(s, (i - 500) % 16, i - 499, &amount) && amount == i - 500);
        if (i >= 500) assert_true(shm_cap_publish(s, (i - 500) % 16, i - 499, -1));
        if (i >= 500) assert_false(shm_cap_find(s, (i - 500) % 16, i - 499, &amount));
    }
    for (uint32_t i = 49500; i < 50000; i++) assert_true(shm_cap_publish(s, i % 16, i + 1, -1));
    uint32_t n = 0;
    while (shm_cap_publish(s, 3, n + 1, n)) n++; /* full is an answer */
    assert_true(n > 512);
    for (uint32_t i = 0; i < n; i++) assert_true(shm_cap_find(s, 3, i + 1, &amount) && amount == i);
}

static void test_texts_and_globs(void **state) {
    struct shm *s = &((struct fixture *)*state)->shm;
    uint32_t a = shm_text_intern(s, SLICE("gpt-*, claude-3*"));
    assert_true(a > 0);
    assert_int_equal(shm_text_intern(s, SLICE("gpt-*, claude-3*")), a);
    assert_int_equal(shm_text_intern(s, SLICE("")), 0);
    assert_string_equal(shm_text(s, a), "gpt-*, claude-3*");
    assert_string_equal(shm_text(s, 0), "");
    assert_true(shm_globs_allow(shm_text(s, a), SLICE("claude-3-opus")));
    assert_true(shm_globs_allow(shm_text(s, a), SLICE("gpt-")));
    assert_false(shm_globs_allow(shm_text(s, a), SLICE("claude-2")));
    assert_false(shm_globs_allow(shm_text(s, a), SLICE("")));
    assert_true(shm_globs_allow("", SLICE("anything")));
    assert_false(shm_globs_allow("a,,b", SLICE("c")));
    char text[32];
    uint32_t n = 0, first = 0, off;
    for (;; n++, first = first ? first : off) {
        int len = snprintf(text, sizeof text, "model-%u-*", n);
        if ((off = shm_text_intern(s, slice_of(text, (size_t)len))) == 0) break;
    }
    assert_true(n > 10000);
    assert_int_equal(shm_text_intern(s, SLICE("model-0-*")), first); /* what is there is found though the pool is full */
    shm_text_turn(s, 7);
    assert_int_equal(s->header->text_turned_ns, 7);
    assert_string_equal(shm_text(s, first), "model-0-*"); /* until the next turn */
    uint32_t again = shm_text_intern(s, slice_str(shm_text(s, first)));
    assert_true(again > s->text_bytes / 2 && again != first);
    assert_string_equal(shm_text(s, again), "model-0-*");
    uint32_t n2 = 1;
    for (; shm_text_intern(s, slice_of(text, (size_t)snprintf(text, sizeof text, "model-%u-*", n2))) != 0; n2++) {}
    assert_in_range(n2, n - 1, n + 1); /* as much room as the first half has */
    shm_text_turn(s, 8);
    assert_int_equal(shm_text_intern(s, SLICE("model-0-*")), a);
}

static void test_addresses(void **state) {
    struct shm *s = &((struct fixture *)*state)->shm;
    struct shm_addresses out;
    struct shm_address a[20] = { { 4, { 127, 0, 0, 1 } }, { 6, { 0 } } };
    assert_false(shm_addresses_read(s, 3, &out));
    shm_addresses_publish(s, 3, a, 2, 99);
    assert_true(shm_addresses_read(s, 3, &out));
    assert_int_equal(out.count, 2);
    assert_int_equal(out.resolved_at_ns, 99);
    assert_memory_equal(out.address, a, 2 * sizeof *a);
    shm_addresses_publish(s, 3, a, 20, 100);
    assert_true(shm_addresses_read(s, 3, &out) && out.count == SHM_MAX_ADDRESSES);
    assert_false(shm_addresses_read(s, SHM_MAX_UPSTREAMS, &out));
}

/* ---- counters ---------------------------------------------------------------------------------------------------- */

static void test_counters(void **state) {
    struct shm *s = &((struct fixture *)*state)->shm;
    assert_string_equal(counter_infos[0].name, "connections_accepted");
    assert_string_equal(counter_infos[0].kind, "COUNTER");
    assert_int_equal(counter_count * 8, (char *)&s->counters->memory_pages - (char *)s->counters + 8);
    COUNT(&s->counters[1], requests, 3);
    COUNT(&s->counters[1], requests, 4);
    assert_int_equal(atomic_load(&s->counters[1].requests), 7);
    struct series *r = &s->series[5];
    struct series_sample x = { .status_class = 2, .input_tokens = 17, .output_tokens = 4, .duration_us = 10000, .ttfb_us = 10001, .has_ttfb = 1 };
    series_add(r, &x);
    assert_int_equal(atomic_load(&r->duration[0]), 1); /* bounds belong to their bucket */
    assert_int_equal(atomic_load(&r->ttfb[3]), 1);
    assert_int_equal(atomic_load(&r->input_hist[3]), 1);
    assert_int_equal(atomic_load(&r->output_hist[1]), 1);
    assert_int_equal(atomic_load(&r->status[2]), 1);
    x = (struct series_sample){ .status_class = 9, .duration_us = 1000000000, .input_tokens = 1ull << 40 };
    series_add(r, &x);
    assert_int_equal(atomic_load(&r->duration[SERIES_DURATION_BUCKETS]), 1);
    assert_int_equal(atomic_load(&r->input_hist[SERIES_TOKEN_BUCKETS]), 1);
    assert_int_equal(atomic_load(&r->status[0]), 1);
    assert_int_equal(atomic_load(&r->ttfb_count), 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_made_and_attached), T(test_errors_are_sentences), T(test_workers_map_read_only), T(test_futex_through_read_only), T(test_keys),
        T(test_key_churn), T(test_reads_are_whole),
        T(test_found_while_others_move), T(test_caps), T(test_texts_and_globs), T(test_addresses), T(test_counters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
