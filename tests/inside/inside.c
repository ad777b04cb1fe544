/* What someone could do who has taken over a worker: a library that tests/e2e/inside.test.mjs preloads into an unchanged
 * tollgate. It sleeps in every process and wakes in a worker, which it knows by its name when that begins to shut itself
 * in; from then on it runs whenever the worker would wait, as code that an attacker brought would.
 *
 * It talks with the test through a shared page (TG_INSIDE names the file): the test sets `go` to what is to be done, the
 * library writes lines into `text` and sets `done`. Nothing of the program is called and nothing of it was built for
 * this; what it knows of shared memory is in shm/, which an attacker can read too. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/ipc.h"
#include "shm/shm.c" /* its layout */

enum act { ACT_NONE, ACT_LOOK, ACT_CALLS, ACT_WRITE, ACT_FORGE, ACT_CALL, ACT_HEAD };
enum { PAGE_BYTES_ALL = 1 << 20, NEEDLES = 8 };

struct page {
    _Atomic uint32_t go, done;
    uint32_t text_len;
    char text[PAGE_BYTES_ALL - 12];
};

static struct page *page;
static bool in_worker;
static int maps_fd = -1;
static char needle[NEEDLES][128]; /* each byte changed, so that they are not found here */
static size_t needle_len[NEEDLES];
static sigjmp_buf after_fault;

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    size_t room = sizeof page->text - page->text_len;
    int n = vsnprintf(page->text + page->text_len, room, fmt, ap);
    if (n > 0 && (size_t)n < room)
        page->text_len += (uint32_t)n;
    va_end(ap);
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TG_INSIDE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *p = fd >= 0 ? mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (fd >= 0)
        close(fd);
    page = p != MAP_FAILED ? p : NULL;
    for (int i = 0; i < NEEDLES; i++) {
        char name[24];
        snprintf(name, sizeof name, "TG_NEEDLE_%d", i);
        const char *text = getenv(name);
        needle_len[i] = text ? strlen(text) : 0;
        for (size_t k = 0; k < needle_len[i] && k < sizeof needle[i]; k++)
            needle[i][k] = (char)(text[k] ^ 0x55);
    }
}

/* ---- looking around ---------------------------------------------------------------------------------------------- */

static char maps[256 << 10];

static void read_maps(void) {
    size_t at = 0;
    lseek(maps_fd, 0, SEEK_SET);
    for (ssize_t n; at < sizeof maps - 1 && (n = read(maps_fd, maps + at, sizeof maps - 1 - at)) > 0;)
        at += (size_t)n;
    maps[at] = 0;
}

struct region {
    char *from, *to;
    char mode[5], path[256];
};

/* The region of the line at *p; *p moves to the next. */
static bool next_region(const char **p, struct region *r) {
    unsigned long from, to, offset, inode;
    unsigned major, minor;
    r->path[0] = 0;
    if (**p == 0 || sscanf(*p, "%lx-%lx %4s %lx %x:%x %lu %255[^\n]", &from, &to, r->mode, &offset, &major, &minor,
                           &inode, r->path) < 7)
        return false;
    r->from = (char *)from;
    r->to = (char *)to;
    const char *end = strchr(*p, '\n');
    *p = end ? end + 1 : *p + strlen(*p);
    return true;
}

static void on_fault(int sig) {
    (void)sig;
    siglongjmp(after_fault, 1);
}

static void catch_faults(void) {
    struct sigaction sa = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };
    sigaction(SIGSEGV, &sa, NULL);
    sigaction(SIGBUS, &sa, NULL);
}

static bool found_at(const char *p, int i) {
    for (size_t k = 0; k < needle_len[i]; k++)
        if ((char)(p[k] ^ 0x55) != needle[i][k])
            return false;
    return true;
}

static unsigned count_needle(int i) {
    struct region r;
    volatile unsigned found = 0;
    for (const char *p = maps; next_region(&p, &r);) {
        if (r.mode[0] != 'r' || strcmp(r.path, "[vvar]") == 0 || strcmp(r.path, "[vvar_vclock]") == 0)
            continue;
        if (sigsetjmp(after_fault, 1) != 0)
            continue;
        char first = (char)(needle[i][0] ^ 0x55);
        for (const char *at = r.from; (at = memchr(at, first, (size_t)(r.to - at))) != NULL; at++)
            if ((size_t)(r.to - at) >= needle_len[i] && found_at(at, i))
                found++;
    }
    return found;
}

static void look(void) {
    struct region r;
    for (const char *p = maps; next_region(&p, &r);)
        say("map %s %s\n", r.mode, r.path[0] ? r.path : "-");
    for (int fd = 0; fd < 4096; fd++) {
        struct stat st;
        struct sockaddr_un name = { 0 }, peer = { 0 };
        socklen_t n = sizeof name, m = sizeof peer;
        if (fstat(fd, &st) != 0)
            continue;
        if (!S_ISSOCK(st.st_mode)) {
            say("fd %d %s %lu:%lu %o\n", fd, S_ISREG(st.st_mode) ? "file" : S_ISDIR(st.st_mode) ? "dir" : "other",
                (unsigned long)st.st_dev, (unsigned long)st.st_ino, (unsigned)fcntl(fd, F_GETFL) & O_ACCMODE);
            continue;
        }
        getsockname(fd, (void *)&name, &n);
        getpeername(fd, (void *)&peer, &m);
        say("fd %d socket family %d name '%.100s' peer '%.100s'\n", fd, name.sun_family,
            name.sun_family == AF_UNIX ? name.sun_path : "", name.sun_family == AF_UNIX ? peer.sun_path : "");
    }
    catch_faults();
    for (int i = 0; i < NEEDLES; i++)
        if (needle_len[i] > 0)
            say("needle %d %u\n", i, count_needle(i));
    say("who %u %u\n", (unsigned)getuid(), (unsigned)getgid());
}

/* ---- system calls ------------------------------------------------------------------------------------------------ */

#define TRY(name, call)                                                                                               \
    do {                                                                                                              \
        errno = 0;                                                                                                    \
        long result = (long)(call);                                                                                   \
        say("call %s %ld %d\n", name, result, result < 0 ? errno : 0);                                                \
    } while (0)
#define RAW(name, ...) TRY(#name, syscall(SYS_##name, __VA_ARGS__))

static void calls(void) {
    static char path[] = "/etc/passwd", stack[4096];
    char *argv[] = { path, NULL };
    struct sockaddr_in any = { .sin_family = AF_INET };
    struct iovec iov = { stack, sizeof stack };
    int parent = getppid();
#ifdef SYS_open
    RAW(open, path, O_RDONLY);
    RAW(creat, "/tmp/x", 0600);
    RAW(fork, 0);
    RAW(vfork, 0);
    RAW(unlink, "/tmp/x");
    RAW(rename, "/tmp/x", "/tmp/y");
    RAW(mkdir, "/tmp/x", 0700);
    RAW(chmod, "/tmp/x", 0700);
    RAW(access, path, R_OK);
    RAW(stat, path, stack);
    RAW(readlink, "/proc/self/exe", stack, sizeof stack);
#endif
    RAW(openat, AT_FDCWD, path, O_RDONLY);
    RAW(openat2, AT_FDCWD, path, stack, 24);
    RAW(newfstatat, AT_FDCWD, path, stack, 0);
    RAW(getdents64, 0, stack, sizeof stack);
    RAW(execve, "/bin/true", argv, argv);
    RAW(execveat, AT_FDCWD, "/bin/true", argv, argv, 0);
    RAW(clone, 0, 0, 0, 0, 0);
    RAW(clone3, stack, 64);
    RAW(ptrace, PTRACE_ATTACH, parent, 0, 0);
    RAW(process_vm_readv, parent, &iov, 1, &iov, 1, 0);
    RAW(process_vm_writev, parent, &iov, 1, &iov, 1, 0);
    RAW(pidfd_open, parent, 0);
    RAW(pidfd_getfd, 0, 0, 0);
    RAW(kill, parent, 0);
    RAW(kill, getpid(), 0);
    RAW(tgkill, parent, parent, 0);
    RAW(tkill, parent, 0);
    RAW(rt_sigqueueinfo, parent, 0, stack);
    RAW(setuid, 0);
    RAW(setresuid, 0, 0, 0);
    RAW(setgroups, 0, NULL);
    RAW(capset, stack, stack);
    RAW(prctl, PR_SET_DUMPABLE, 1);
    RAW(seccomp, 0, 0, 0);
    RAW(unshare, CLONE_NEWUSER);
    RAW(setns, 0, 0);
    RAW(mount, "x", "/", "tmpfs", 0, 0);
    RAW(chroot, "/");
    RAW(chdir, "/");
    RAW(socket, AF_UNIX, SOCK_STREAM, 0);
    RAW(socket, AF_INET, SOCK_DGRAM, 0);
    RAW(socket, AF_INET, SOCK_RAW, 1);
    RAW(socket, AF_INET6, SOCK_DGRAM, 0);
    RAW(socket, AF_NETLINK, SOCK_RAW, 0);
    RAW(socket, AF_PACKET, SOCK_RAW, 0);
    RAW(socket, 40 /* AF_VSOCK */, SOCK_STREAM, 0);
    RAW(socketpair, AF_UNIX, SOCK_STREAM, 0, stack);
    RAW(bind, 0, &any, sizeof any);
    RAW(listen, 0, 1);
    RAW(flock, 3, 8);
    RAW(ioctl, 0, 0x5412 /* TIOCSTI */, stack);
    RAW(fcntl, 0, F_SETOWN, parent);
    RAW(fcntl, 0, F_DUPFD, 100);
    RAW(mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    RAW(mprotect, (uintptr_t)stack & ~4095ul, 4096, PROT_READ | PROT_EXEC);
    RAW(memfd_create, "x", 0);
    RAW(ftruncate, 3, 0);
    RAW(fallocate, 3, 0, 0, 1);
    RAW(shmget, 0, 4096, 0);
    RAW(io_uring_setup, 1, stack);
    RAW(bpf, 0, stack, 8);
    RAW(perf_event_open, stack, 0, 0, 0, 0);
    RAW(userfaultfd, 0);
    RAW(keyctl, 0, 0);
    RAW(name_to_handle_at, AT_FDCWD, path, stack, stack, 0);
    RAW(open_by_handle_at, AT_FDCWD, stack, 0);
    RAW(personality, 0xffffffff);
    RAW(prlimit64, parent, 0, 0, stack);
    RAW(sched_setaffinity, parent, 8, stack);
    RAW(reboot, 0, 0, 0, 0);
    int tcp = (int)syscall(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* this it may: providers are there */
    say("may socket %d\n", tcp >= 0 ? 0 : errno);
    if (tcp >= 0)
        close(tcp);
}

/* ---- shared memory ----------------------------------------------------------------------------------------------- */

static struct shm shm;

static bool find_shm(void) {
    struct region r;
    char *ro = NULL, *rw = NULL;
    for (const char *p = maps; next_region(&p, &r);) {
        bool ours = strstr(r.path, "/dev/shm/") != NULL;
        if (ours && strncmp(r.mode, "r--s", 4) == 0)
            ro = r.from;
        if (ours && strncmp(r.mode, "rw-s", 4) == 0)
            rw = r.from;
    }
    if (ro == NULL || rw == NULL)
        return false;
    const struct shm_header *h = (const void *)ro;
    struct layout l =
        layout_of(&(struct shm_sizes){ h->max_accounts, h->max_keys, h->max_active, h->max_ranges });
    shm.ro_map = ro;
    shm.rw_map = rw;
    set_pointers(&shm, &l);
    shm.ro_bytes = l.ro_bytes;
    return true;
}

static void write_to(const char *what, void *at) {
    volatile uint8_t *p = at;
    if (sigsetjmp(after_fault, 1) != 0) {
        say("write %s faults\n", what);
        return;
    }
    *p = *p;
    say("write %s DONE\n", what);
}

static void write_tables(void) {
    catch_faults();
    write_to("header", shm.header);
    write_to("keys", shm.keys);
    write_to("key_index", shm.key_index);
    write_to("accounts", shm.accounts);
    write_to("caps", shm.caps);
    write_to("text", shm.text);
    write_to("addresses", shm.addresses);
    write_to("end of the tables", (char *)shm.ro_map + shm.ro_bytes - 1);
    TRY("mprotect-tables", mprotect(shm.ro_map, shm.ro_bytes, PROT_READ | PROT_WRITE));
    struct region r;
    for (const char *p = maps; next_region(&p, &r);)
        if (strstr(r.path, "tollgate-snapshot") != NULL) {
            write_to("snapshot", r.from);
            TRY("mprotect-snapshot", mprotect(r.from, (size_t)(r.to - r.from), PROT_READ | PROT_WRITE));
            break;
        }
    for (int fd = 3; fd < 64; fd++) { /* no descriptor left through which to map them for writing */
        void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        struct stat st;
        if (p == MAP_FAILED || fstat(fd, &st) != 0)
            continue;
        say("mapped %d %lu\n", fd, (unsigned long)st.st_ino);
        munmap(p, 4096);
    }
}

static uint32_t my_range(void) {
    for (uint32_t i = 0; i < shm.header->max_ranges; i++)
        if (atomic_load(&shm.ranges[i].pid) == (uint32_t)getpid())
            return i;
    return 0;
}

/* The last honest record of the ring, changed by the caller, as if it were the next. */
static struct shm_record *forge(uint32_t range) {
    uint64_t head = atomic_load(&shm.ranges[range].head);
    struct shm_record *r = shm_ring(&shm, range, head);
    *r = *shm_ring(&shm, range, head - 1);
    r->seq = head;
    r->usage.exchange_id += 1000000;
    return r;
}

static void push(uint32_t range, struct shm_record *r, bool sum) {
    if (sum)
        r->checksum = shm_record_checksum(r);
    atomic_fetch_add(&shm.ranges[range].head, 1);
}

/* Each a lie of another kind; then one that only costs this tenant, which nobody can tell from the truth. */
static void forge_records(void) {
    uint32_t range = my_range();
    struct shm_record *r = forge(range);
    uint32_t account = r->usage.account, other = account == 0 ? 1 : account - 1;
    if (!shm_account_read(&shm, other, &(struct shm_account){ 0 }))
        other = account + 1;
    r->usage.account = other; /* another account, whose key this is not */
    push(range, r, true);
    r = forge(range);
    struct shm_account victim;
    shm_account_read(&shm, other, &victim);
    r->usage.account = other;
    r->usage.account_id = victim.id;
    push(range, r, true);
    r = forge(range);
    r->charge = INT64_MAX;
    push(range, r, true);
    r = forge(range);
    r->charge = 1000000ll * 1000000000; /* a million dollars that nobody has */
    push(range, r, true);
    r = forge(range);
    r->charge = -5000000000; /* money to oneself */
    push(range, r, true);
    r = forge(range);
    r->charge = 1;
    push(range, r, false);
    r = forge(range);
    r->seq += 7;
    push(range, r, true);
    r = forge(range);
    r->usage.model_len = 60000;
    push(range, r, true);
    r = forge(range);
    r->usage.account = UINT32_MAX;
    push(range, r, true);
    r = forge(range);
    r->usage.key = UINT32_MAX;
    push(range, r, true);
    say("forged 10\n");
}

/* Calls that only an operator may make, through the worker's own channel, with an operator's origin written on them. */
static void foreign_calls(char *lines) {
    for (int fd = 3; fd < 64; fd++) {
        int type = 0;
        socklen_t n = sizeof type;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) != 0 || type != SOCK_SEQPACKET)
            continue;
        for (char *line = lines, *end; (end = strchr(line, '\n')) != NULL; line = end + 1)
            for (uint32_t origin = 0; origin < 3; origin++) {
                struct ipc_header h = { .type = IPC_CALL, .id = 0x70000000u + origin, .origin = origin };
                struct iovec iov[2] = { { &h, sizeof h }, { line, (size_t)(end - line) } };
                struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };
                sendmsg(fd, &m, 0);
            }
        say("sent %d\n", fd);
    }
}

static void act(uint32_t what) {
    static char asked[4096];
    memcpy(asked, page->text, sizeof asked - 1);
    page->text_len = 0;
    read_maps();
    if (what != ACT_LOOK && what != ACT_CALLS && !find_shm())
        say("no shared memory\n");
    else if (what == ACT_LOOK)
        look();
    else if (what == ACT_CALLS)
        calls();
    else if (what == ACT_WRITE)
        write_tables();
    else if (what == ACT_FORGE)
        forge_records();
    else if (what == ACT_CALL)
        foreign_calls(asked);
    else if (what == ACT_HEAD)
        atomic_fetch_add(&shm.ranges[my_range()].head, 1ull << 40);
    atomic_store(&page->go, ACT_NONE);
    atomic_store(&page->done, what);
}

/* ---- what the worker calls --------------------------------------------------------------------------------------- */

/* The first thing that only a process about to shut itself in does. */
#define VISIBLE __attribute__((visibility("default")))
VISIBLE int prctl(int option, ...) {
    va_list ap;
    va_start(ap, option);
    unsigned long a = va_arg(ap, unsigned long), b = va_arg(ap, unsigned long), c = va_arg(ap, unsigned long),
                  d = va_arg(ap, unsigned long);
    va_end(ap);
    char name[16] = "";
    if (option == PR_SET_NO_NEW_PRIVS && page != NULL && syscall(SYS_prctl, PR_GET_NAME, name) == 0 &&
        strncmp(name, "tg-worker-", 10) == 0) {
        in_worker = true;
        maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    }
    return (int)syscall(SYS_prctl, option, a, b, c, d);
}

VISIBLE int epoll_wait(int epfd, struct epoll_event *events, int max, int timeout_ms) {
    static int (*real)(int, struct epoll_event *, int, int);
    if (real == NULL)
        real = (int (*)(int, struct epoll_event *, int, int))dlsym(RTLD_NEXT, "epoll_wait");
    uint32_t what = in_worker ? atomic_load(&page->go) : 0;
    if (what != ACT_NONE)
        act(what);
    return real(epfd, events, max, timeout_ms);
}
