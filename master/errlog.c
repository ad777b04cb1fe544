/* The error log: one line an event, written at once (it is rare), whole in one write so that lines of several processes
 * that append to the same file never mix. A failing write is ignored: there is nowhere left to say so. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "master/master.h"

static int log_fd = STDERR_FILENO;
static enum log_level log_level = LOG_INFO;

static bool errlog_mirrored;

void errlog_mirror(bool on) {
    errlog_mirrored = on;
}

void errlog_to(int fd, enum log_level level) {
    log_fd = fd;
    log_level = level;
}

size_t errlog_format(char *out, size_t cap, uint64_t wall_ms, enum log_level level, int pid, const char *text) {
    static const char *const names[] = { "error", "warn", "info", "debug" };
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm t;
    gmtime_r(&seconds, &t);
    int head = snprintf(out, cap, "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ [%s] master (%d): ", t.tm_year + 1900,
                        t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, (unsigned)(wall_ms % 1000),
                            names[level],
                        pid);
    if (head < 0 || (size_t)head + 2 > cap) return 0;
    size_t n = (size_t)head;
    for (; *text && n + 1 < cap; text++) {
        unsigned char c = (unsigned char)*text;
        out[n++] = c < 0x20 || c == 0x7f ? ' ' : (char)c;
    }
    while (n > (size_t)head && out[n - 1] == ' ') n--;
    out[n++] = '\n';
    return n;
}

void master_log(enum log_level level, const char *fmt, ...) {
    if (level > log_level) return;
    char text[4096], line[4224];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t n = errlog_format(line, sizeof line, events_wall_ms(), level, getpid(), text);
    ssize_t put = write(log_fd, line, n);
    if (errlog_mirrored && level == LOG_ERROR && log_fd != STDERR_FILENO) put = write(STDERR_FILENO, line, n);
    (void)put;
}

int errlog_open(const char *path, uid_t uid, gid_t gid) {
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);
    if (fd < 0) return -errno;
    struct stat st;
    /* Only a plain file of ours is given away: the path may be /dev/stderr or a pipe. */
    if (uid && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1 && fchown(fd, uid, gid) != 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}
