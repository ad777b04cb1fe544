/* What the master needs of the ledger before and beside its process: the pepper, the version, the probe.
 *
 * The pepper is a file, because the workers need it before any database is open, and is in the database too, so that
 * a backup of that one file is a whole backup: where the file is missing, a short-lived child reads it out of the
 * database. The master itself never opens it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "master/ledger/ledger.h"

enum { PEPPER = 32 };

const char *ledger_version(void) { return store_version(); }

static bool read_all(int fd, void *out, size_t n) {
    size_t got = 0;
    while (got < n) {
        ssize_t r = read(fd, (char *)out + got, n - got);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return false;
        got += (size_t)r;
    }
    return true;
}
static bool write_all(int fd, const void *p, size_t n) {
    size_t put = 0;
    while (put < n) {
        ssize_t r = write(fd, (const char *)p + put, n - put);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return false;
        put += (size_t)r;
    }
    return true;
}

/* In the child: exit 0 with answer bytes on out; 1: there is nothing; 2: a sentence on out. */
static _Noreturn void look_into(const char *state_dir, int out, bool pepper) {
    struct store s;
    struct store_options o = { .read_only = true };
    int rc = 2;
    if (store_open(&s, state_dir, &o) != STORE_OK || store_read_begin(&s) != STORE_OK) {
        (void)write_all(out, s.message, strlen(s.message));
        _exit(2);
    }
    if (pepper) {
        uint8_t stored[PEPPER];
        rc = store_meta(&s, "pepper", stored, PEPPER) == STORE_OK && write_all(out, stored, PEPPER) ? 0 : 1;
    } else {
        uint32_t format = 0;
        char text[100];
        (void)store_meta(&s, "format", &format, sizeof format);
        int n = snprintf(text, sizeof text, "the database has format %u, this program knows %u", format,
                         (unsigned)STORE_FORMAT);
        rc = format == STORE_FORMAT ? 0 : 2;
        if (rc)
            (void)write_all(out, text, (size_t)n);
    }
    _exit(rc);
}

/* Forks the child and takes its answer (cut at n). Returns its exit status, or -errno. */
static int ask_child(const char *state_dir, bool pepper, char *out, size_t n, size_t *len) {
    int fds[2];
    *len = 0;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0) {
        close(fds[0]);
        look_into(state_dir, fds[1], pepper);
    }
    close(fds[1]);
    if (pid > 0)
        while (*len < n && read_all(fds[0], out + *len, 1))
            ++*len;
    close(fds[0]);
    int status = 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return pid < 0 ? -EAGAIN : WIFEXITED(status) ? WEXITSTATUS(status) : -EIO;
}

static int pepper_path(const char *dir, char *out, size_t n, const char *suffix) {
    return snprintf(out, n, "%s/pepper%s", dir, suffix) < (int)n ? 0 : -ENAMETOOLONG;
}

/* Written beside, synced, renamed: the file is whole or not there. */
static int write_pepper(const char *state_dir, const uint8_t pepper[PEPPER]) {
    char tmp[4096], path[4096];
    if (pepper_path(state_dir, tmp, sizeof tmp, ".tmp") || pepper_path(state_dir, path, sizeof path, ""))
        return -ENAMETOOLONG;
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    int rc = write_all(fd, pepper, PEPPER) && fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    if (rc == 0 && rename(tmp, path) < 0)
        rc = -errno;
    int dir = rc == 0 ? open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (dir >= 0) {
        (void)fsync(dir);
        close(dir);
    }
    return rc;
}

/* The database's own, if there is one that has it: 1; there is none: 0; else -errno (and a sentence, if there is
 * one). */
static int pepper_from_database(const char *state_dir, uint8_t out[PEPPER], char *err, size_t err_len) {
    char path[4096], text[256];
    struct stat st;
    size_t len;
    if (snprintf(path, sizeof path, "%s/ledger.mdb", state_dir) >= (int)sizeof path)
        return -ENAMETOOLONG;
    if (stat(path, &st) < 0)
        return 0;
    int rc = ask_child(state_dir, true, text, sizeof text - 1, &len);
    if (rc == 0 && len == PEPPER) {
        memcpy(out, text, PEPPER);
        wipe(text, sizeof text);
        return 1;
    }
    text[len] = '\0';
    if (rc == 2)
        snprintf(err, err_len, "the pepper cannot be read from the database: %.150s", text);
    return rc == 2 ? -EIO : rc < 0 ? rc : 0;
}

/* 1: read; 0: there is no such file; else -errno. */
static int pepper_from_file(const char *path, uint8_t out[PEPPER], char *err, size_t err_len) {
    char more;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    bool ok = read_all(fd, out, PEPPER) && !read_all(fd, &more, 1);
    close(fd);
    if (!ok)
        snprintf(err, err_len,
                 "%s: does not hold %d bytes; if it is damaged, remove it, and it is made again from the database",
                 path, PEPPER);
    return ok ? 1 : -EINVAL;
}

/* The database decides, where there is one: its keys' hashes were made with its pepper, and it may have been restored
 * from a backup into a folder that has another. */
int ledger_pepper(const char *state_dir, uint8_t out[PEPPER], char *err, size_t err_len) {
    char path[4096], why[256] = "";
    uint8_t stored[PEPPER];
    err[0] = '\0';
    int rc = pepper_path(state_dir, path, sizeof path, "");
    int file = rc == 0 ? pepper_from_file(path, out, err, err_len) : rc;
    int database = rc == 0 ? pepper_from_database(state_dir, stored, why, sizeof why) : rc;
    if (database == 1 &&
        (file != 1 || !slice_eq_secret(slice_of((char *)stored, PEPPER), slice_of((char *)out, PEPPER)))) {
        memcpy(out, stored, PEPPER);
        rc = write_pepper(state_dir, out);
    } else if (file == 0 && database == 0) {
        rc = getrandom(out, PEPPER, 0) == PEPPER ? write_pepper(state_dir, out) : -EIO;
    } else if (file !=
               1) { /* a database that cannot be read is the ledger's to complain about, as long as there is the file */
        rc = file < 0 ? file : database;
        if (!err[0])
            snprintf(err, err_len, "%s", why);
    }
    wipe(stored, sizeof stored);
    if (rc < 0 && !err[0])
        snprintf(err, err_len, "%s: %s", path, strerror(-rc));
    return rc < 0 ? rc : 0;
}

int ledger_probe(const char *state_dir, char *err, size_t err_len) {
    char path[4096], text[256];
    struct stat st;
    size_t len;
    if (snprintf(path, sizeof path, "%s/ledger.mdb", state_dir) >= (int)sizeof path || stat(path, &st) < 0)
        return 0; /* a new one will be made */
    int rc = ask_child(state_dir, false, text, sizeof text - 1, &len);
    text[len] = '\0';
    if (rc != 0)
        snprintf(err, err_len, "%s: %s", path, len ? text : "cannot be read");
    return rc == 0 ? 0 : -EIO;
}
