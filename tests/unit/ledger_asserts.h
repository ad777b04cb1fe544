/* What the ledger's test programs share beside the rig itself: one for each test, started and taken away; what answers
 * must hold. */
#ifndef TG_TEST_LEDGER_ASSERTS_H
#define TG_TEST_LEDGER_ASSERTS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "tests/unit/ledger_fixture.h"

/* The member of that path is this text. They expect the rig in `r`. */
#define IS(j, path, want_)                                                                                             \
    do {                                                                                                               \
        struct slice is_ = rig_at(r, &(j), path);                                                                      \
        if (!slice_is(is_, want_))                                                                                     \
            fail_msg("%s is \"%.*s\", not \"%s\" in %.*s", path, SLICE_ARG(is_), want_, (int)(j).len, (j).text);       \
    } while (0)
#define REFUSED(j, code) IS(j, "error.code", code)

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
static inline int setup(void **state) {
    struct rig *r = malloc(sizeof *r);
    rig_init(r);
    if (!rig_start(r)) return -1;
    *state = r;
    return 0;
}
static inline int teardown(void **state) {
    rig_stop(*state, true);
    rig_remove(*state);
    free(*state);
    return 0;
}
/* clean: as rig_stop has it; new_segment: shared memory does not survive. */
static inline void restart(struct rig *r, bool clean, bool new_segment) {
    rig_stop(r, clean);
    if (new_segment) unlink(r->segment);
    assert_true(rig_start(r));
}
/* An amount of dollars in nano-dollars. */
static inline int64_t nano(const char *text) {
    int64_t v;
    assert_true(fixed_parse(slice_str(text), 9, &v));
    return v;
}

#endif
