/* The segment: how large it is, where its parts lie, how it is made, attached and, in a worker, mapped read-only.
 *
 * The file's first part is the read-only region (header and the tables that master and ledger publish), the second, on
 * a page of its own, is written by all; so a worker can map the first through a read-only descriptor and nothing in the
 * second reaches back into it. A segment is whole only when its magic number is there, and that is written last: a
 * maker that died leaves a file that is made anew. Failures are what the world does (no room on the tmpfs, another
 * owner's file, a file of other sizes): -errno and a sentence. */
#include "shm/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/check.h"
#include "proto/base/crypto.h"
#include "shm/counters.h"
#include "shm/steps.h"

#define SHM_MAGIC 0x316d68736c6c6f74ull /* "tollshm1" */

/* The layout is a contract between binaries (an upgrade keeps the segment): a change here needs another SHM_LAYOUT. */
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "atomics between processes must be lock-free");
_Static_assert(offsetof(struct shm_header, boot_id) == 40 && offsetof(struct shm_header, settled) == 104, "layout");
_Static_assert(offsetof(struct shm_header, pause) == 128, "layout");
_Static_assert(offsetof(struct shm_header, commits) == 192, "layout");
_Static_assert(offsetof(struct shm_header, touched_count) == 256, "layout");
_Static_assert(offsetof(struct shm_header, text_used) == 384, "layout");
_Static_assert(sizeof(struct shm_header) == 448, "layout");
_Static_assert(sizeof(struct shm_key) == 88 && offsetof(struct shm_key, expires_at_s) == 48, "layout");
_Static_assert(sizeof(struct shm_account) == 24, "layout");
_Static_assert(sizeof(struct shm_cap) == 24, "layout");
_Static_assert(sizeof(struct shm_account_words) == 64, "layout");
_Static_assert(sizeof(struct shm_key_words) == 64, "layout");
_Static_assert(offsetof(struct shm_usage, request_id) == 80, "layout");
_Static_assert(sizeof(struct shm_usage) == 304, "layout");
_Static_assert(sizeof(struct shm_slot) == 384 && offsetof(struct shm_slot, usage) == 64, "layout");
_Static_assert(offsetof(struct shm_record, checksum) == 144 && offsetof(struct shm_record, usage) == 152, "layout");
_Static_assert(sizeof(struct shm_record) == 512, "layout");
_Static_assert(offsetof(struct shm_range, ack) == 64 && offsetof(struct shm_range, head) == 128, "layout");
_Static_assert(offsetof(struct shm_range, tail) == 192 && sizeof(struct shm_range) == 512, "layout");
_Static_assert(sizeof(struct shm_upstream) == 192, "layout");
_Static_assert(sizeof(struct counters) % 64 == 0 && sizeof(struct series) == 640, "layout");

/* Where every part of the file lies, from the sizes alone. */
struct layout {
    size_t keys, key_index, accounts, caps, text_index, text, addresses, ro_bytes;
    size_t shared, account_words, key_words, ranges, upstreams, counters, slots, records, series, bytes;
    uint32_t key_places, cap_places, text_bytes, ring_size;
};

static uint32_t power_of_two(uint64_t at_least) {
    uint64_t n = 1;
    while (n < at_least) n *= 2;
    return (uint32_t)n;
}

/* The next part of n things of `size` bytes; each part starts on a cache line. */
static size_t part(size_t *end, size_t n, size_t size) {
    size_t at = (*end + 63) & ~(size_t)63;
    *end = at + n * size;
    return at;
}

static struct layout layout_of(const struct shm_sizes *z) {
    struct layout l = { 0 };
    const size_t page = 4095; /* mmap offsets; a larger page size would be met by rounding the region up to 64 KiB */
    size_t end = sizeof(struct shm_header);
    l.key_places = power_of_two((uint64_t)z->max_keys * 2);
    l.cap_places =
        power_of_two((uint64_t)z->max_keys + z->max_accounts < 1024 ? 1024 : (uint64_t)z->max_keys + z->max_accounts);
    l.text_bytes = z->max_keys < 16384 ? 1 << 20 : z->max_keys * 64; /* two halves */
    l.ring_size = power_of_two((uint64_t)z->max_active * 2 < 1024 ? 1024 : (uint64_t)z->max_active * 2);
    l.keys = part(&end, z->max_keys, sizeof(struct shm_key));
    l.key_index = part(&end, l.key_places, sizeof(uint32_t));
    l.accounts = part(&end, z->max_accounts, sizeof(struct shm_account));
    l.caps = part(&end, l.cap_places, sizeof(struct shm_cap));
    l.text_index = part(&end, SHM_TEXT_BUCKETS, sizeof(uint32_t));
    l.text = part(&end, l.text_bytes, 1);
    l.addresses = part(&end, SHM_MAX_UPSTREAMS, sizeof(struct shm_addresses));
    end = l.ro_bytes = (end + (page | 0xffff)) & ~(page | 0xffff);
    l.shared = part(&end, 1, sizeof(struct shm_shared));
    l.account_words = part(&end, z->max_accounts, sizeof(struct shm_account_words));
    l.key_words = part(&end, z->max_keys, sizeof(struct shm_key_words));
    l.ranges = part(&end, z->max_ranges, sizeof(struct shm_range));
    l.upstreams = part(&end, SHM_MAX_UPSTREAMS, sizeof(struct shm_upstream));
    l.counters = part(&end, z->max_ranges, sizeof(struct counters));
    l.slots = part(&end, (size_t)z->max_ranges * z->max_active, sizeof(struct shm_slot));
    l.records = part(&end, (size_t)z->max_ranges * l.ring_size, sizeof(struct shm_record));
    l.series = part(&end, (size_t)z->max_ranges * SHM_MAX_SERIES, sizeof(struct series));
    l.bytes = (end + page) & ~page;
    return l;
}

size_t shm_bytes(const struct shm_sizes *sizes) { return layout_of(sizes).bytes; }

static void boot_id(char out[40]) {
    memset(out, 0, 40);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t n = read(fd, out, 36);
    if (n != 36) memset(out, 0, 40);
    close(fd);
}

/* A whole segment of this boot? Of another boot can only be a file that was put there. */
static bool of_this_boot(const struct shm_header *h) {
    char boot[40];
    boot_id(boot);
    return h->magic == SHM_MAGIC && memcmp(h->boot_id, boot, sizeof boot) == 0;
}
static bool header_ok(const struct shm_header *h) { return of_this_boot(h) && h->layout == SHM_LAYOUT; }

static bool sizes_sane(const struct shm_sizes *z) {
    return z->max_accounts >= 1 && z->max_accounts <= 1u << 26 && z->max_keys >= 1 && z->max_keys <= 1u << 26 &&
           z->max_active >= 1 && z->max_active <= SHM_MAX_ACTIVE && z->max_ranges >= 1 &&
           z->max_ranges <= SHM_MAX_RANGES;
}

static void set_pointers(struct shm *s, const struct layout *l) {
    char *ro = s->ro_map, *rw = (char *)s->rw_map - l->ro_bytes;
    s->header = (void *)ro;
    s->keys = (void *)(ro + l->keys);
    s->key_index = (void *)(ro + l->key_index);
    s->key_mask = l->key_places - 1;
    s->accounts = (void *)(ro + l->accounts);
    s->caps = (void *)(ro + l->caps);
    s->cap_mask = l->cap_places - 1;
    s->text_index = (void *)(ro + l->text_index);
    s->text = ro + l->text;
    s->text_bytes = l->text_bytes;
    s->addresses = (void *)(ro + l->addresses);
    s->shared = (void *)(rw + l->shared);
    s->account_words = (void *)(rw + l->account_words);
    s->key_words = (void *)(rw + l->key_words);
    s->ranges = (void *)(rw + l->ranges);
    s->upstreams = (void *)(rw + l->upstreams);
    s->counters = (void *)(rw + l->counters);
    s->slots = (void *)(rw + l->slots);
    s->records = (void *)(rw + l->records);
    s->series = (void *)(rw + l->series);
}

static int map_segment(struct shm *s, int fd, const struct layout *l) {
    memset(s, 0, sizeof *s);
    s->ro_bytes = l->ro_bytes;
    s->rw_bytes = l->bytes - l->ro_bytes;
    s->ro_map = mmap(NULL, s->ro_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (s->ro_map == MAP_FAILED) return -errno;
    s->rw_map = mmap(NULL, s->rw_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)l->ro_bytes);
    if (s->rw_map == MAP_FAILED) {
        int e = errno;
        munmap(s->ro_map, s->ro_bytes);
        return -e;
    }
    set_pointers(s, l);
    return 0;
}

/* A new, zeroed segment becomes whole. Exchange ids start at a place that no earlier segment has reached (it would have
 * needed 16384 calls a second and worker since it was made), so they are unique across segments too. */
static void first_contents(struct shm *s, const struct shm_sizes *z, const struct layout *l) {
    struct shm_header *h = s->header;
    h->layout = SHM_LAYOUT;
    h->max_accounts = z->max_accounts;
    h->max_keys = z->max_keys;
    h->max_active = z->max_active;
    h->max_ranges = z->max_ranges;
    h->ring_size = l->ring_size;
    h->bytes = l->bytes;
    boot_id(h->boot_id);
    h->mono_base_ns = shm_clock_ns();
    if (getrandom(&h->segment_id, sizeof h->segment_id, 0) != (ssize_t)sizeof h->segment_id)
        h->segment_id = h->mono_base_ns;
    h->text_used = 1;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    for (uint32_t i = 0; i < z->max_ranges; i++) {
        uint64_t first = ((uint64_t)now.tv_sec << 14) & 0xffffffffffffull;
        atomic_store(&s->ranges[i].next_exchange_id, (uint64_t)i << 48 | first);
    }
    atomic_thread_fence(memory_order_release);
    h->magic = SHM_MAGIC;
}

/* Opens what is there if it can be kept. *fd: -1 when it cannot. 0, or -errno when the path must not be touched. */
static int open_existing(const char *path, const struct shm_sizes *z, const struct layout *l, int *fd, char *err,
                         size_t err_len) {
    struct shm_header h;
    struct stat st;
    *fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (*fd < 0) {
        int e = errno;
        if (e == ENOENT) return 0;
        snprintf(err, err_len, "%s: %s", path, strerror(e));
        return -e;
    }
    if (fstat(*fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid()) {
        snprintf(err, err_len, "%s: is not a plain file of this user", path);
        close(*fd);
        *fd = -1;
        return -EPERM;
    }
    bool whole = pread(*fd, &h, sizeof h, 0) == (ssize_t)sizeof h;
    bool keep = whole && header_ok(&h) &&
                h.max_accounts == z->max_accounts && h.max_keys == z->max_keys && h.max_active == z->max_active &&
                h.max_ranges == z->max_ranges && h.bytes == l->bytes && (uint64_t)st.st_size == l->bytes;
    if (keep) return 0;
    close(*fd);
    *fd = -1;
    if (whole && of_this_boot(&h) && h.layout != SHM_LAYOUT && !atomic_load(&h.settled)) {
        snprintf(err, err_len,
                 "%s: holds calls that only the version that made it can book (layout %u, this is %u): start that "
                 "version, end it with SIGTERM, then start this one", path, h.layout, SHM_LAYOUT);
        return -EBUSY;
    }
    if (unlink(path) < 0 && errno != ENOENT) {
        int e = errno;
        snprintf(err, err_len, "%s: cannot replace it: %s", path, strerror(e));
        return -e;
    }
    return 0;
}

/* Allocates all of it now: a full tmpfs is an error at start-up, not a SIGBUS later. */
static int create(const char *path, const struct layout *l, char *err, size_t err_len) {
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        int e = errno;
        snprintf(err, err_len, "%s: cannot create it: %s", path, strerror(e));
        return -e;
    }
    int e = fchmod(fd, 0600) < 0 ? errno : posix_fallocate(fd, 0, (off_t)l->bytes);
    if (e == 0) return fd;
    snprintf(err, err_len, "%s: %zu bytes of shared memory: %s", path, l->bytes, strerror(e));
    unlink(path);
    close(fd);
    return -e;
}

/* The same file once more, for reading only. */
static int open_read_only(const char *path, int rw_fd, char *err, size_t err_len) {
    struct stat a, b;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && fstat(fd, &a) == 0 && fstat(rw_fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return fd;
    int e = fd < 0 ? errno : EBUSY;
    if (fd >= 0) close(fd);
    snprintf(err, err_len, "%s: cannot open it for reading: %s", path, strerror(e));
    return -e;
}

int shm_open_segment(struct shm *s, const char *path, const struct shm_sizes *z, int *rw_fd, int *ro_fd, bool *fresh,
                     char *err, size_t err_len) {
    *rw_fd = *ro_fd = -1;
    if (!sizes_sane(z)) {
        snprintf(err, err_len, "%s: a size is zero or too large", path);
        return -EINVAL;
    }
    struct layout l = layout_of(z);
    int r = open_existing(path, z, &l, rw_fd, err, err_len);
    if (r < 0) return r;
    *fresh = *rw_fd < 0;
    if (*fresh && (*rw_fd = create(path, &l, err, err_len)) < 0) return *rw_fd;
    *ro_fd = r = open_read_only(path, *rw_fd, err, err_len);
    if (r >= 0 && (r = map_segment(s, *rw_fd, &l)) < 0)
        snprintf(err, err_len, "%s: cannot map it: %s", path, strerror(-r));
    if (r < 0) {
        if (*ro_fd >= 0) close(*ro_fd);
        close(*rw_fd);
        *rw_fd = *ro_fd = -1;
        return r;
    }
    if (*fresh) first_contents(s, z, &l);
    atomic_store(&s->header->shed, SHED_STARTING);
    atomic_store(&s->header->settled, 0);
    return 0;
}

void shm_note_settled(struct shm *s) {
    bool settled = true;
    for (uint32_t i = 0; i < s->header->max_ranges; i++) {
        settled = settled && atomic_load(&s->ranges[i].head) == atomic_load(&s->ranges[i].tail);
        for (uint32_t j = 0; j < shm_slots_used(s, i); j++)
            settled = settled && atomic_load(&shm_slot(s, i, j)->state) == SLOT_FREE;
    }
    atomic_store(&s->header->settled, settled);
}

bool shm_peek(const char *path, struct shm_sizes *sizes) {
    struct shm_header h;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return false;
    struct stat st;
    bool ok = pread(fd, &h, sizeof h, 0) == (ssize_t)sizeof h && header_ok(&h) && fstat(fd, &st) == 0 &&
              (uint64_t)st.st_size == h.bytes;
    close(fd);
    *sizes = (struct shm_sizes){ h.max_accounts, h.max_keys, h.max_active, h.max_ranges };
    return ok && sizes_sane(sizes) && shm_bytes(sizes) == h.bytes;
}

int shm_attach(struct shm *s, int rw_fd) {
    struct shm_header h;
    if (pread(rw_fd, &h, sizeof h, 0) != (ssize_t)sizeof h || !header_ok(&h)) return -EINVAL;
    struct shm_sizes z = { h.max_accounts, h.max_keys, h.max_active, h.max_ranges };
    if (!sizes_sane(&z) || shm_bytes(&z) != h.bytes) return -EINVAL;
    struct layout l = layout_of(&z);
    return map_segment(s, rw_fd, &l);
}

int shm_drop_writable(struct shm *s, int ro_fd) {
    /* MAP_FIXED replaces the writable pages in one step: no moment without, no second address, and every pointer stays
     * right. */
    void *p = mmap(s->ro_map, s->ro_bytes, PROT_READ, MAP_SHARED | MAP_FIXED, ro_fd, 0);
    return p == MAP_FAILED ? -errno : 0;
}

void shm_close(struct shm *s) {
    if (s->ro_map) munmap(s->ro_map, s->ro_bytes);
    if (s->rw_map) munmap(s->rw_map, s->rw_bytes);
    memset(s, 0, sizeof *s);
}

static size_t used(size_t len, size_t max) { return len < max ? len : max; }

uint32_t shm_record_checksum(const struct shm_record *r) {
    uint32_t c = crc32c(0, r, offsetof(struct shm_record, checksum));
    c = crc32c(c, &r->usage, offsetof(struct shm_usage, request_id));
    c = crc32c(c, r->usage.request_id, used(r->usage.request_id_len, SHM_REQUEST_ID));
    return crc32c(c, r->usage.model, used(r->usage.model_len, SHM_MODEL_NAME));
}

void shm_usage_copy(struct shm_usage *to, const struct shm_usage *from) {
    memcpy(to, from, offsetof(struct shm_usage, request_id));
    memcpy(to->request_id, from->request_id, used(from->request_id_len, SHM_REQUEST_ID));
    memcpy(to->model, from->model, used(from->model_len, SHM_MODEL_NAME));
}
