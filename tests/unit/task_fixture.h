/* What the tests of tasks share: an arena to parse in, empty again behind each test. */
#ifndef TG_TASK_FIXTURE_H
#define TG_TASK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "proto/task/task.h"

static struct pages pages;
static struct arena arena;

static int setup(void **state) {
    (void)state;
    pages_init(&pages, 8);
    arena_init(&arena, &pages, 64 << 20);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    arena_reset(&arena);
    pages_clear(&pages);
    return 0;
}

#endif
