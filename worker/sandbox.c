/* A worker's privileges: none that strangers could use.
 *
 * In this order: groups, gid, uid (if the master runs as root and `user` says so); then PDEATHSIG, because a change
 * of the uid clears it, and a look whether the parent is still the master, because it may have died before;
 * no_new_privs, no core dumps (they would hold keys), not dumpable (no ptrace by others of the same user); last the
 * filter of system calls.
 *
 * The filter is a list of what a worker needs. Everything else fails with EPERM and is audited
 * (SECCOMP_FILTER_FLAG_LOG): a library that tries something new loses that one call, and not the worker its
 * connections. Arguments are looked at where the call is wider than the need: no executable memory, sockets of TCP
 * alone, signals to this process alone, fstat without a path. What the filter refuses includes open, execve, clone,
 * ptrace, kill of others, bind, listen. Built with a sanitizer there is no filter: its runtime needs more than the
 * program.
 *
 * Failures: -errno, and the worker must not serve then. */
#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "worker/sandbox.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANDBOX_FILTER 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANDBOX_FILTER 0
#endif
#endif
#if defined(__x86_64__)
#define SANDBOX_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define SANDBOX_ARCH AUDIT_ARCH_AARCH64
#else
#define SANDBOX_FILTER 0
#endif
#ifndef SANDBOX_FILTER
#define SANDBOX_FILTER 1
#endif

#if SANDBOX_FILTER

/* Allowed whatever the arguments. */
static const int plain_calls[] = {
    /* bytes */
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_sendmsg, SYS_recvmsg, SYS_sendto, SYS_recvfrom, SYS_lseek,
    SYS_close, SYS_dup,
    /* sockets */
    SYS_accept4, SYS_connect, SYS_getsockopt, SYS_setsockopt, SYS_shutdown, SYS_getsockname, SYS_getpeername,
    /* waiting */
    SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_ppoll, SYS_futex, SYS_nanosleep,
    SYS_clock_nanosleep, SYS_eventfd2, SYS_timerfd_create, SYS_timerfd_settime, SYS_sched_yield, SYS_restart_syscall,
#if defined(SYS_epoll_wait)
    SYS_epoll_wait, SYS_poll,
#endif
    /* memory */
    SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk,
    /* time, chance, who am I */
    SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_getrandom, SYS_getpid, SYS_gettid, SYS_getppid,
    SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_fstat, SYS_getrusage,
#if defined(SYS_time)
    SYS_time,
#endif
    /* the end */
    SYS_exit, SYS_exit_group, SYS_rt_sigreturn, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_sigaltstack,
#if defined(SYS_rseq)
    SYS_rseq,
#endif
    SYS_set_robust_list,
};

enum { PROGRAM_MAX = 256 };

struct program {
    struct sock_filter code[PROGRAM_MAX];
    unsigned n;
};

static void emit(struct program *p, uint16_t code, uint32_t k, uint8_t yes, uint8_t no) {
    CHECK(p->n < PROGRAM_MAX);
    p->code[p->n++] = (struct sock_filter){ code, yes, no, k };
}

static void load(struct program *p, size_t offset) {
    emit(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void answer(struct program *p, uint32_t what) {
    emit(p, BPF_RET | BPF_K, what, 0, 0);
}

static void if_equal(struct program *p, uint32_t value, uint8_t yes, uint8_t no) {
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, value, yes, no);
}

/* The low half of an argument (the machines we know are little-endian); the number of the call is loaded again by
 * the next rule. */
static size_t argument(unsigned i) {
    return offsetof(struct seccomp_data, args) + i * 8;
}

/* Ends with a verdict when the call is this one, else falls through. `skip` instructions follow before the next
 * rule. */
static void when(struct program *p, int call, uint8_t skip) {
    load(p, offsetof(struct seccomp_data, nr));
    if_equal(p, (uint32_t)call, 0, skip);
}

static const uint32_t refused = SECCOMP_RET_ERRNO | EPERM;

/* Allowed if (argument & mask) == 0. */
static void allow_without(struct program *p, int call, unsigned arg, uint32_t mask) {
    when(p, call, 4);
    load(p, argument(arg));
    emit(p, BPF_JMP | BPF_JSET | BPF_K, mask, 1, 0);
    answer(p, SECCOMP_RET_ALLOW);
    answer(p, refused);
}

/* Allowed if the argument is one of two values. */
static void allow_values(struct program *p, int call, unsigned arg, uint32_t a, uint32_t b) {
    when(p, call, 5);
    load(p, argument(arg));
    if_equal(p, a, 1, 0);
    if_equal(p, b, 0, 1);
    answer(p, SECCOMP_RET_ALLOW);
    answer(p, refused);
}

/* socket(AF_INET or AF_INET6, SOCK_STREAM | flags, …) */
static void allow_tcp(struct program *p) {
    when(p, SYS_socket, 8);
    load(p, argument(0));
    if_equal(p, AF_INET, 1, 0);
    if_equal(p, AF_INET6, 0, 4);
    load(p, argument(1));
    emit(p, BPF_ALU | BPF_AND | BPF_K, ~(uint32_t)(SOCK_NONBLOCK | SOCK_CLOEXEC), 0, 0);
    if_equal(p, SOCK_STREAM, 0, 1);
    answer(p, SECCOMP_RET_ALLOW);
    answer(p, refused);
}

static void build(struct program *p) {
    load(p, offsetof(struct seccomp_data, arch));
    if_equal(p, SANDBOX_ARCH, 1, 0);
    answer(p, SECCOMP_RET_KILL_PROCESS);
    load(p, offsetof(struct seccomp_data, nr));
#if defined(__x86_64__)
    emit(p, BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1); /* the x32 numbers */
    answer(p, SECCOMP_RET_KILL_PROCESS);
#endif
    for (size_t i = 0; i < ARRAY_LEN(plain_calls); i++) {
        if_equal(p, (uint32_t)plain_calls[i], 0, 1);
        answer(p, SECCOMP_RET_ALLOW);
    }
    allow_without(p, SYS_mmap, 2, PROT_EXEC);
    allow_without(p, SYS_mprotect, 2, PROT_EXEC);
    allow_tcp(p);
    allow_values(p, SYS_tgkill, 0, (uint32_t)getpid(), (uint32_t)getpid()); /* abort */
    allow_values(p, SYS_fcntl, 1, 3 /* F_GETFL */, 4 /* F_SETFL */);
    allow_values(p, SYS_newfstatat, 3, 0x1000 /* AT_EMPTY_PATH: glibc's fstat */, 0x1000);
    answer(p, refused);
}

static int install_filter(void) {
    static struct program p;
    build(&p);
    struct sock_fprog prog = { .len = (unsigned short)p.n, .filter = p.code };
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG, &prog) == 0)
        return 0;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0 ? 0 : -errno; /* a kernel without the flag */
}

#else

static int install_filter(void) {
    return 0;
}

#endif

static int drop_user(const struct worker_heritage *h) {
    if (h->uid == 0)
        return 0;
    gid_t gid = h->gid;
    if (setgroups(1, &gid) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(h->uid, h->uid, h->uid) != 0)
        return -errno;
    CHECK(setuid(0) != 0 && getuid() == h->uid && geteuid() == h->uid); /* no way back */
    return 0;
}

int worker_sandbox(struct worker *w) {
    const struct worker_heritage *h = &w->heritage;
    struct rlimit none = { 0, 0 };
    tzset(); /* gmtime would look for the zone's file later */
    int r = drop_user(h);
    if (r != 0)
        return r;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return -errno;
    if (h->master_pid && getppid() != h->master_pid)
        return -ESRCH; /* the master is gone already */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || setrlimit(RLIMIT_CORE, &none) != 0 ||
        prctl(PR_SET_DUMPABLE, 0) != 0)
        return -errno;
    return h->allow_sandbox ? install_filter() : 0;
}
