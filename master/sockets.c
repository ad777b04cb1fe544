/* Listening sockets. The master opens them (ports below 1024 need root), keeps them open for as long as the
 * configuration names them, and hands copies to the workers, which share each.
 *
 * A reload is two-phase: sockets_prepare opens what is new without touching what is there; only then is the old set
 * closed (sockets_close). A listener whose options changed has another id but the same address, so its socket is
 * taken over: no connection that waits in its queue is lost. A unix socket's path is replaced only if nobody answers
 * there. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "master/master.h"
#include "proto/base/check.h"

enum { BACKLOG = 4096 };

/* Whether some process answers at this path; a socket file that nobody listens on is left behind by a dead process. */
static bool unix_alive(const struct sockaddr_un *a) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return true;
    bool alive = connect(fd, (const struct sockaddr *)a, sizeof *a) == 0 || errno == EAGAIN;
    close(fd);
    return alive;
}

static int open_unix(const char *path, unsigned mode, char *err, size_t err_len) {
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    if (path[0] == '\0' || strlen(path) >= sizeof a.sun_path) {
        snprintf(err, err_len, "%s: a unix socket's path has 1 to %zu bytes", path, sizeof a.sun_path - 1);
        return -EINVAL;
    }
    memcpy(a.sun_path, path, strlen(path) + 1);
    struct stat st;
    if (lstat(path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode)) {
            snprintf(err, err_len, "%s exists and is no socket: remove it, or name another path", path);
            return -EEXIST;
        }
        if (unix_alive(&a)) {
            snprintf(err, err_len, "%s: another process listens there", path);
            return -EADDRINUSE;
        }
        unlink(path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) goto failed;
    mode_t mask = umask(0777 & ~mode); /* so that there is no moment with a wider mode */
    int rc = bind(fd, (struct sockaddr *)&a, sizeof a);
    umask(mask);
    if (rc == 0 && chmod(path, mode) == 0 && listen(fd, BACKLOG) == 0) return fd;
failed:;
    int error = errno;
    snprintf(err, err_len, "cannot listen on %s: %s", path, strerror(error));
    if (fd >= 0) close(fd);
    return -error;
}

/* Splits "host:port" or "port"; false: neither. */
static bool split_address(const char *address, char *host, size_t host_len, char *port, size_t port_len) {
    const char *colon = strrchr(address, ':'), *h = address;
    size_t n = colon ? (size_t)(colon - address) : 0;
    const char *p = colon ? colon + 1 : address;
    if (n >= 2 && h[0] == '[' && h[n - 1] == ']') {
        h++;
        n -= 2;
    } else if (memchr(h, ':', n) || memchr(h, '[', n)) {
        return false;
    }
    uint64_t number;
    if (n >= host_len || !slice_to_u64(slice_str(p), &number) || number == 0 || number > 65535) return false;
    memcpy(host, h, n);
    host[n] = '\0';
    snprintf(port, port_len, "%u", (unsigned)number);
    if (n == 0 || strcmp(host, "*") == 0) snprintf(host, host_len, "0.0.0.0");
    if (strcmp(host, "localhost") == 0) snprintf(host, host_len, "127.0.0.1");
    return true;
}

static int open_tcp(const char *address, char *err, size_t err_len) {
    char host[128], port[8];
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE },
        *ai = NULL;
    if (!split_address(address, host, sizeof host, port, sizeof port) || getaddrinfo(host, port, &hints, &ai) != 0) {
        snprintf(err, err_len, "listen %s: expected ADDRESS:PORT with a numeric address, or unix:PATH", address);
        return -EINVAL;
    }
    int on = 1, fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
              (ai->ai_family != AF_INET6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0) &&
              bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0;
    int error = errno;
    freeaddrinfo(ai);
    if (ok) return fd;
    snprintf(err, err_len, "cannot listen on %s: %s%s", address, strerror(error),
             error == EADDRINUSE ? " (another process has the port)" : error == EACCES
                 ? " (a port below 1024 needs root)" : "");
    if (fd >= 0) close(fd);
    return -error;
}

int sockets_open(const char *address, unsigned unix_mode, char *err, size_t err_len) {
    if (strncmp(address, "unix:", 5) == 0) return open_unix(address + 5, unix_mode, err, err_len);
    return open_tcp(address, err, err_len);
}

static const struct listener *find_old(const struct listener *old, uint64_t id, const char *address) {
    for (const struct listener *l = old; l; l = l->next) {
        if (l->id == id || strcmp(l->address, address) == 0) return l;
    }
    return NULL;
}

/* One more listener, opened or taken over from old (with a descriptor of its own). */
static struct listener *make(uint64_t id, struct slice address, const struct listener *old, char *err, size_t err_len) {
    struct listener *l = calloc(1, sizeof *l);
    CHECK(l);
    *l = (struct listener){ .id = id, .fd = -1 };
    snprintf(l->address, sizeof l->address, "%.*s", SLICE_ARG(address));
    if (address.len >= sizeof l->address) {
        snprintf(err, err_len, "listen %s…: too long", l->address);
    } else {
        const struct listener *o = find_old(old, id, l->address);
        l->fd = o ? dup(o->fd) : sockets_open(l->address, 0666, err, err_len);
        if (o && l->fd < 0) snprintf(err, err_len, "listen %s: %s", l->address, strerror(errno));
    }
    if (l->fd >= 0) return l;
    free(l);
    return NULL;
}

bool sockets_prepare(const struct snap *snap, const struct listener *old, struct listener **out, char *err,
                     size_t err_len) {
    struct listener *list = NULL, **last = &list;
    *out = NULL;
    if (snap->listens.count > IPC_MAX_FDS) {
        snprintf(err, err_len, "%u listen and admin_listen directives, at most %u are possible", snap->listens.count,
                 (unsigned)IPC_MAX_FDS);
        return false;
    }
    SNAP_EACH(snap, snap->listens, struct snap_listen, s) {
        struct listener *l = make(s->id, snap_text(snap, s->address), old, err, err_len);
        if (!l) {
            sockets_close(list, old);
            return false;
        }
        *last = l;
        last = &l->next;
    }
    *out = list;
    return true;
}

void sockets_close(struct listener *list, const struct listener *kept) {
    while (list) {
        struct listener *l = list;
        list = l->next;
        bool stays = false;
        for (const struct listener *k = kept; k; k = k->next) stays = stays || strcmp(k->address, l->address) == 0;
        close(l->fd);
        if (!stays && strncmp(l->address, "unix:", 5) == 0) unlink(l->address + 5);
        free(l);
    }
}
