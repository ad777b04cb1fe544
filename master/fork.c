/* Making a child: what every one of them must and must not have.
 *
 * A child is forked, not exec'ed, so it starts as a copy of the master. Before its own code runs it gives up: every
 * descriptor but stdio and those named; the configuration, the environment and the control socket's buffers, which hold
 * secrets that are none of its business; the blocked signals. It dies with the master (PDEATHSIG). A child that
 * cannot be made safe exits at once; the master sees that as a death at birth. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "master/master.h"

extern char **environ;

static int by_number(const void *a, const void *b) {
    return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

/* Closes all from 3 on that keep does not name. */
static void close_others(const int *keep, unsigned n) {
    int sorted[16];
    if (n > 16) _exit(70);
    memcpy(sorted, keep, n * sizeof *keep);
    qsort(sorted, n, sizeof *sorted, by_number);
    unsigned from = 3;
    for (unsigned i = 0; i < n; i++) {
        if (sorted[i] < (int)from) continue;
        if (sorted[i] > (int)from) close_range(from, (unsigned)sorted[i] - 1, 0);
        from = (unsigned)sorted[i] + 1;
    }
    close_range(from, ~0u, 0);
}

/* The environment holds provider keys (env:NAME): only what libraries read stays. */
static void wipe_environment(void) {
    static const char *const stays[] = { "PATH=", "TZ=", "LANG=", "LC_", "ASAN_", "UBSAN_", "LSAN_", "TMPDIR=",
                                        "RES_" };
    char **to = environ;
    for (char **from = environ; *from; from++) {
        bool keep = false;
        for (size_t i = 0; i < sizeof stays / sizeof *stays; i++)
            keep = keep || strncmp(*from, stays[i], strlen(stays[i])) == 0;
        if (keep) *to++ = *from;
        else wipe(*from, strlen(*from));
    }
    *to = NULL;
}

/* What ps shows: the command line's own memory is overwritten, as far as it goes. */
static void set_title(struct master *m, const char *title) {
    prctl(PR_SET_NAME, title);
    if (m->argc < 1) return;
    char *start = m->argv[0], *end = start;
    for (int i = 0; i < m->argc && m->argv[i] == end; i++) end += strlen(end) + 1;
    if (end - start < 2) return;
    memset(start, 0, (size_t)(end - start));
    snprintf(start, (size_t)(end - start), "tollgate: %s", title + (strncmp(title, "tg-", 3) == 0 ? 3 : 0));
}

pid_t spawn_fork(struct master *m, const int *keep, unsigned n, const char *title) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) return -errno;
    if (pid > 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != m->pid) _exit(70); /* the master died before PDEATHSIG was set */
    close_others(keep, n);
    control_forget(m);
    reload_forget(m);
    wipe_environment();
    set_title(m, title);
    /* The terminal sends these to all of the group: they are for the master, which tells its children what to do. */
    static const int masters[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };
    for (size_t i = 0; i < sizeof masters / sizeof masters[0]; i++) signal(masters[i], SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    return 0;
}

void spawn_drop(const struct master *m) {
    uid_t uid = m->uid;
    gid_t gid = m->gid;
    if (!uid) return;
    struct passwd *pw = getpwuid(uid);
    if ((pw ? initgroups(pw->pw_name, gid) : setgroups(0, NULL)) != 0 || setgid(gid) != 0 || setuid(uid) != 0)
        _exit(71);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* changing the user clears it */
    if (getppid() != m->pid) _exit(70);
}
