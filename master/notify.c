/* systemd's readiness protocol (sd_notify(3)), by hand: one datagram of NAME=value lines to the socket that
 * NOTIFY_SOCKET names; a leading @ means the abstract namespace. Without the variable nothing happens. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "master/master.h"

void notify(const char *fmt, ...) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof to.sun_path) return;
    memcpy(to.sun_path, path, strlen(path) + 1);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (path[0] == '@') to.sun_path[0] = '\0';
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n <= 0 || (size_t)n >= sizeof text) return;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return;
    sendto(fd, text, (size_t)n, MSG_NOSIGNAL, (struct sockaddr *)&to, len);
    close(fd);
}

void notify_reloading(void) {
    notify("RELOADING=1\nMONOTONIC_USEC=%llu\nSTATUS=Reading the configuration\n",
           (unsigned long long)(events_mono_ns() / 1000));
}

uint64_t notify_watchdog_ms(void) {
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    uint64_t us, who;
    if (!usec || !slice_to_u64(slice_str(usec), &us) || us < 2000) return 0;
    if (pid && (!slice_to_u64(slice_str(pid), &who) || who != (uint64_t)getpid())) return 0;
    return us / 2000;
}
