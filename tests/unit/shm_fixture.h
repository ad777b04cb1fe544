/* A small segment in a file of its own for the tests of shm/. */
#ifndef TG_TEST_SHM_FIXTURE_H
#define TG_TEST_SHM_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/shm.h"

struct fixture {
    struct shm shm;
    char path[64];
    int rw_fd, ro_fd;
    bool fresh;
};

static const struct shm_sizes fixture_sizes = { .max_accounts = 16, .max_keys = 32, .max_active = 8, .max_ranges = 4 };

static inline void fixture_open(struct fixture *f, const struct shm_sizes *sizes) {
    char err[256] = "";
    int r = shm_open_segment(&f->shm, f->path, sizes, &f->rw_fd, &f->ro_fd, &f->fresh, err, sizeof err);
    if (r != 0) fail_msg("%s", err);
}

static inline void fixture_close(struct fixture *f) {
    shm_close(&f->shm);
    close(f->rw_fd);
    close(f->ro_fd);
}

static inline int fixture_setup(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->path, sizeof f->path, "/dev/shm/tollgate-test.%d", (int)getpid());
    unlink(f->path);
    fixture_open(f, &fixture_sizes);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state) {
    struct fixture *f = *state;
    fixture_close(f);
    unlink(f->path);
    free(f);
    return 0;
}

/* Runs in a child; its exit status, or 256 + the signal that ended it. */
static inline int in_child(void (*body)(struct fixture *), struct fixture *f) {
    pid_t pid = fork();
    if (pid == 0) {
        body(f);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

#endif
