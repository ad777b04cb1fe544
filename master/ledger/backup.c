/* backup FILE.
 *
 * A backup is one file: accounts, keys' hashes, the pepper, every entry and usage record. It is made by a forked
 * reader as FILE.tmp, compacted (a long read: what is committed meanwhile makes the file grow), given an id of its
 * own (a restored ledger must not be taken for the one whose charges may still lie in shared memory), synced, opened
 * again and audited in full, and only then renamed to FILE. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include "master/ledger/audit.h"

static enum store_err write_new_id(struct store *s, void *arg) {
    return store_put(s, DB_META, SLICE("ledger_id"), slice_of(arg, sizeof(uint64_t)));
}

static bool sync_path(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool sync_folder(const char *path) {
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = '\0';
    return sync_path(slash ? folder : ".");
}

/* Opens the copy, gives it its id, audits it. */
static bool verify(struct reader_job *job, const char *tmp, struct audit *a) {
    struct store copy;
    struct store_options o = { 0 };
    uint64_t id = 0;
    bool ok = false;
    if (getrandom(&id, sizeof id, 0) != (ssize_t)sizeof id || store_open(&copy, tmp, &o) != STORE_OK) {
        job_refuse(job, "internal", "the copy cannot be opened: %s", copy.message);
        return false;
    }
    if (store_write(&copy, write_new_id, &id) != STORE_OK || store_read_begin(&copy) != STORE_OK) {
        job_refuse(job, "internal", "the copy cannot be used: %s", copy.message);
    } else {
        ok = audit_run(a, &copy);
        store_read_end(&copy);
        if (!ok)
            job_refuse(job, "internal", "the copy cannot be audited: %s", a->message);
        else if (a->differences > 0)
            job_refuse(job, "differences",
                       "an audit of the copy finds %llu differences: run `tollctl audit`; no backup was made",
                       (unsigned long long)a->differences);
    }
    store_close(&copy);
    return ok && a->differences == 0;
}

static void backup_job(struct reader_job *job) {
    char tmp[4096 + 8], lock[4096 + 16];
    struct audit a = { .places = ledger_places(job->l) };
    struct json_writer w;
    struct stat st;
    snprintf(tmp, sizeof tmp, "%s.tmp", job->text);
    snprintf(lock, sizeof lock, "%s-lock", tmp);
    (void)unlink(tmp);
    umask(077);
    if (store_copy(&job->store, tmp) != STORE_OK) {
        job_refuse(job, "backup_failed", "%s (the ledger's user must be able to write there)", job->store.message);
    } else if (verify(job, tmp, &a)) {
        if (!sync_path(tmp) || rename(tmp, job->text) < 0 || !sync_folder(job->text) || stat(job->text, &st) < 0)
            job_refuse(job, "backup_failed", "%s: %s", job->text, strerror(errno));
    }
    (void)unlink(lock);
    if (job->refused) {
        (void)unlink(tmp);
        return;
    }
    jw_init(&w, &job->out);
    jw_object(&w);
    jw_key(&w, "file");
    jw_cstr(&w, job->text);
    jw_count(&w, "bytes", (uint64_t)st.st_size);
    jw_count(&w, "accounts", a.accounts);
    jw_count(&w, "keys", a.keys);
    jw_count(&w, "usage_records", a.usage_records);
    jw_end_object(&w);
}

/* Is it a file that the ledger lives on? A backup takes the place of what has its name, and the ledger would go on with
 * the file that has none any more, until it ends. */
static bool is_own(const struct ledger *l, const char *path) {
    static const char *const names[] = { "ledger.mdb", "ledger.mdb-lock", "pepper", "lock" };
    struct stat there, own;
    char name[4096];
    if (stat(path, &there) < 0)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (snprintf(name, sizeof name, "%s/%s", l->heritage->state_dir, names[i]) < (int)sizeof name &&
            stat(name, &own) == 0 && own.st_dev == there.st_dev && own.st_ino == there.st_ino)
            return true;
    return false;
}

/* Renaming over it would put a file in the place of a device (/dev/null), a pipe or a link (/dev/stdout). */
static bool is_special(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

void call_backup(struct call *c) {
    struct reader_job job = { .fn = backup_job };
    struct slice file;
    if (!call_need(c, call_text(c, "file", sizeof job.text - 16, &file), "file"))
        return;
    if (file.len == 0 || file.ptr[0] != '/') {
        call_refuse(c, "invalid_value", "file: an absolute path is expected");
        return;
    }
    memcpy(job.text, file.ptr, file.len);
    if (is_own(c->l, job.text)) {
        call_refuse(c, "invalid_value", "file: this is one of the ledger's own files");
        return;
    }
    if (is_special(job.text)) {
        call_refuse(c, "invalid_value", "file: %s exists and is no plain file: name another", job.text);
        return;
    }
    if (reader_runs(c->l, backup_job)) { /* two of the same FILE would write the same FILE.tmp */
        call_refuse(c, "busy", "a backup is under way; try again when it is done");
        return;
    }
    reader_start(c, &job);
}
