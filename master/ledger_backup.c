/* backup FILE, and the ledger's part of status.
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
#include "master/ledger_audit.h"

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
    jw_key(&w, "bytes");
    jw_u64(&w, (uint64_t)st.st_size);
    jw_key(&w, "accounts");
    jw_u64(&w, a.accounts);
    jw_key(&w, "keys");
    jw_u64(&w, a.keys);
    jw_key(&w, "usage_records");
    jw_u64(&w, a.usage_records);
    jw_end_object(&w);
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
    reader_start(c, &job);
}

static void number(struct call *c, const char *name, uint64_t v) {
    jw_key(c->w, name);
    jw_u64(c->w, v);
}

void call_ledger_status(struct call *c) {
    static const char *const shed_names[] = { "no", "ledger stuck", "disk full", "ledger failed", "starting" };
    const struct ledger *l = c->l;
    const struct shm_header *h = l->shm->header;
    uint32_t shed = atomic_load(&h->shed);
    jw_object(c->w);
    number(c, "pid", (uint64_t)getpid());
    number(c, "accounts", l->account_count);
    number(c, "keys", l->key_count);
    number(c, "usage_records", l->next_usage - 1);
    number(c, "entries", l->next_entry - 1);
    number(c, "pending", drain_waiting(l));
    number(c, "commits", atomic_load(&h->commits));
    number(c, "commit_us_last", atomic_load(&h->commit_ns_last) / 1000);
    number(c, "commit_us_max", atomic_load(&h->commit_ns_max) / 1000);
    number(c, "checkpoints", l->count.checkpoints);
    number(c, "commit_failures", l->count.commit_failures);
    number(c, "quarantined", l->count.quarantined);
    number(c, "readers", l->reader_count);
    number(c, "pauses", l->recover.pauses);
    number(c, "pause_us_max", l->recover.max_ns / 1000);
    number(c, "settled", l->recover.settled);
    number(c, "repaired_words", l->recover.repaired_words);
    number(c, "hung_workers", l->recover.hung);
    number(c, "file_bytes", store_file_bytes(&c->l->store));
    jw_key(c->w, "shed");
    jw_cstr(c->w, shed < ARRAY_LEN(shed_names) ? shed_names[shed] : "");
    jw_key(c->w, "unit");
    jw_cstr(c->w, l->unit_tokens ? "tokens" : "usd");
    jw_end_object(c->w);
}
