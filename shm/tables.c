/* The tables that the ledger (addresses: the master) publishes and every worker reads, without a lock.
 *
 * Each entry has one writer and a version, odd while it is written; a reader copies and compares. A writer that died in
 * the middle leaves an odd version: readers give up after READ_TRIES and treat the entry as not there (a key is then
 * unknown, never another's), until the ledger's successor publishes it again, which it does with all before it serves.
 * Hash tables are open-addressed with linear probing, without tombstones: what stands behind a removed entry moves up,
 * by a copy first, so that an entry is never nowhere. A reader can pass it by all the same, behind its back; so who
 * finds nothing looks whether `moves` changed meanwhile, and then looks again. */
#include "shm/shm.h"

#include "proto/base/check.h"
#include "proto/base/crypto.h"
#include "shm/steps.h"

enum { READ_TRIES = 2000, MISS_TRIES = 50, CAP_PROBES = 256 };
#define PLACE_EMPTY 0u

/* ---- versions ---------------------------------------------------------------------------------------------------- */

static void write_begin(_Atomic uint32_t *version) {
    uint32_t v = atomic_load_explicit(version, memory_order_relaxed);
    atomic_store_explicit(version, v | 1, memory_order_relaxed); /* odd already: a predecessor died here */
    atomic_thread_fence(memory_order_release);
    SHM_STEP("publish.begun");
}

static void write_end(_Atomic uint32_t *version) {
    uint32_t v = atomic_load_explicit(version, memory_order_relaxed);
    atomic_store_explicit(version, v + 1, memory_order_release);
    SHM_STEP("publish.ended");
}

static bool read_begin(_Atomic uint32_t *version, uint32_t *v) {
    *v = atomic_load_explicit(version, memory_order_acquire);
    return (*v & 1) == 0;
}

static bool read_end(_Atomic uint32_t *version, uint32_t v) {
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(version, memory_order_relaxed) == v;
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/* The hash is an HMAC under a secret pepper: its first bytes are as good as random, and no client can choose them. */
static uint32_t key_place(const struct shm *s, const uint8_t hash[32]) {
    uint64_t h;
    memcpy(&h, hash, sizeof h);
    return (uint32_t)h & s->key_mask;
}

/* Whether the entry is a live key with this hash. */
static bool key_is(const struct shm *s, uint32_t index, const uint8_t hash[32]) {
    struct shm_key *k = &s->keys[index];
    for (int i = 0; i < READ_TRIES; i++) {
        uint32_t v;
        if (!read_begin(&k->version, &v)) continue;
        bool same = k->status != KEY_NONE && memcmp(k->hash, hash, 32) == 0;
        if (read_end(&k->version, v)) return same;
    }
    return false;
}

static bool key_probe(const struct shm *s, const uint8_t hash[32], uint32_t *index) {
    uint32_t at = key_place(s, hash);
    for (uint32_t n = 0; n <= s->key_mask; n++, at = (at + 1) & s->key_mask) {
        uint32_t place = atomic_load_explicit(&s->key_index[at], memory_order_acquire);
        if (place == PLACE_EMPTY) return false;
        if (!key_is(s, place - 1, hash)) continue;
        *index = place - 1;
        return true;
    }
    return false;
}

bool shm_key_find(const struct shm *s, const uint8_t hash[32], uint32_t *index) {
    for (int i = 0; i < MISS_TRIES; i++) {
        uint32_t v;
        bool still = read_begin(&s->header->moves, &v);
        if (key_probe(s, hash, index)) return true;
        if (still && read_end(&s->header->moves, v)) return false;
    }
    return false;
}

bool shm_key_read(const struct shm *s, uint32_t index, struct shm_key *out) {
    if (index >= s->header->max_keys) return false;
    struct shm_key *k = &s->keys[index];
    for (int i = 0; i < READ_TRIES; i++) {
        uint32_t v;
        if (!read_begin(&k->version, &v)) continue;
        memcpy((void *)out, k, sizeof *out);
        if (read_end(&k->version, v)) return out->status != KEY_NONE;
    }
    return false;
}

/* The place in the index that leads to this key, by the hash that its entry has now. */
static bool place_of(const struct shm *s, uint32_t index, uint32_t *place) {
    uint32_t at = key_place(s, s->keys[index].hash);
    for (uint32_t n = 0; n <= s->key_mask; n++, at = (at + 1) & s->key_mask) {
        uint32_t p = atomic_load_explicit(&s->key_index[at], memory_order_relaxed);
        if (p == PLACE_EMPTY) return false;
        if (p == index + 1) { *place = at; return true; }
    }
    return false;
}

/* Whether an entry at `at` whose run begins at `home` may move to the hole: the run reaches it without a gap
 * (Knuth, 6.4, algorithm R). */
static bool may_move(uint32_t home, uint32_t hole, uint32_t at, uint32_t mask) {
    return ((at - home) & mask) >= ((at - hole) & mask);
}

static void place_clear(struct shm *s, uint32_t hole) {
    write_begin(&s->header->moves);
    for (uint32_t at = (hole + 1) & s->key_mask;; at = (at + 1) & s->key_mask) {
        uint32_t place = atomic_load_explicit(&s->key_index[at], memory_order_relaxed);
        if (place == PLACE_EMPTY) break;
        if (!may_move(key_place(s, s->keys[place - 1].hash), hole, at, s->key_mask)) continue;
        atomic_store_explicit(&s->key_index[hole], place, memory_order_release);
        hole = at;
    }
    atomic_store_explicit(&s->key_index[hole], PLACE_EMPTY, memory_order_release);
    write_end(&s->header->moves);
}

/* Every place that leads to this key: two, if a ledger died while it moved it. */
static void places_clear(struct shm *s, uint32_t index) {
    uint32_t at;
    while (place_of(s, index, &at)) place_clear(s, at);
}

static bool place_take(struct shm *s, uint32_t index) {
    uint32_t at = key_place(s, s->keys[index].hash);
    for (uint32_t n = 0; n <= s->key_mask; n++, at = (at + 1) & s->key_mask) {
        if (atomic_load_explicit(&s->key_index[at], memory_order_relaxed) != PLACE_EMPTY) continue;
        atomic_store_explicit(&s->key_index[at], index + 1, memory_order_release);
        return true;
    }
    return false;
}

bool shm_key_publish(struct shm *s, uint32_t index, const struct shm_key *k) {
    CHECK(index < s->header->max_keys && k->status != KEY_NONE);
    struct shm_key *to = &s->keys[index];
    uint32_t place;
    bool known = place_of(s, index, &place);
    if (known && memcmp(to->hash, k->hash, 32) != 0) { /* the place was another key's, or it got a new secret */
        places_clear(s, index);
        known = false;
    }
    write_begin(&to->version);
    memcpy((char *)to + sizeof to->version, (const char *)k + sizeof k->version, sizeof *to - sizeof to->version);
    write_end(&to->version);
    return known || place_take(s, index);
}

void shm_key_remove(struct shm *s, uint32_t index) {
    CHECK(index < s->header->max_keys);
    struct shm_key *k = &s->keys[index];
    places_clear(s, index);
    write_begin(&k->version);
    k->status = KEY_NONE;
    write_end(&k->version);
}

/* ---- accounts ---------------------------------------------------------------------------------------------------- */

bool shm_account_read(const struct shm *s, uint32_t index, struct shm_account *out) {
    if (index >= s->header->max_accounts) return false;
    struct shm_account *a = &s->accounts[index];
    for (int i = 0; i < READ_TRIES; i++) {
        uint32_t v;
        if (!read_begin(&a->version, &v)) continue;
        memcpy((void *)out, a, sizeof *out);
        if (read_end(&a->version, v)) return out->status != ACCOUNT_NONE;
    }
    return false;
}

void shm_account_publish(struct shm *s, uint32_t index, const struct shm_account *a) {
    CHECK(index < s->header->max_accounts);
    struct shm_account *to = &s->accounts[index];
    write_begin(&to->version);
    memcpy((char *)to + sizeof to->version, (const char *)a + sizeof a->version, sizeof *to - sizeof to->version);
    write_end(&to->version);
}

/* ---- caps -------------------------------------------------------------------------------------------------------- */

static uint32_t cap_place(const struct shm *s, uint32_t who, uint32_t model_id) {
    uint32_t w[2] = { who, model_id };
    return (uint32_t)hash64(w, sizeof w, 0) & s->cap_mask;
}

/* model_id 0: an empty place. A run is at most CAP_PROBES long. */
static bool cap_probe(const struct shm *s, uint32_t who, uint32_t model_id, int64_t *amount) {
    uint32_t at = cap_place(s, who, model_id);
    for (int n = 0; n < CAP_PROBES; n++, at = (at + 1) & s->cap_mask) {
        struct shm_cap *c = &s->caps[at];
        bool whole = false, ours = false;
        uint32_t v, model = 0;
        for (int i = 0; i < READ_TRIES && !whole; i++) {
            if (!read_begin(&c->version, &v)) continue;
            model = c->model_id;
            ours = model == model_id && c->who == who;
            if (ours) *amount = c->amount;
            whole = read_end(&c->version, v);
        }
        if (whole && model == PLACE_EMPTY) return false;
        if (whole && ours) return true;
    }
    return false;
}

bool shm_cap_find(const struct shm *s, uint32_t who, uint32_t model_id, int64_t *amount) {
    for (int i = 0; i < MISS_TRIES; i++) {
        uint32_t v;
        bool still = read_begin(&s->header->moves, &v);
        if (cap_probe(s, who, model_id, amount)) return true;
        if (still && read_end(&s->header->moves, v)) return false;
    }
    return false;
}

static void cap_write(struct shm_cap *c, uint32_t who, uint32_t model_id, int64_t amount) {
    write_begin(&c->version);
    c->model_id = model_id;
    c->who = who;
    c->amount = amount;
    write_end(&c->version);
}

static void cap_remove(struct shm *s, uint32_t hole) {
    write_begin(&s->header->moves);
    uint32_t at = hole;
    for (uint32_t n = 0; n < s->cap_mask; n++) { /* bounded: unlike the keys' index this table can be full */
        const struct shm_cap *c = &s->caps[at = (at + 1) & s->cap_mask];
        if (c->model_id == PLACE_EMPTY) break;
        if (!may_move(cap_place(s, c->who, c->model_id), hole, at, s->cap_mask)) continue;
        cap_write(&s->caps[hole], c->who, c->model_id, c->amount);
        hole = at;
    }
    cap_write(&s->caps[hole], 0, PLACE_EMPTY, 0);
    write_end(&s->header->moves);
}

bool shm_cap_publish(struct shm *s, uint32_t who, uint32_t model_id, int64_t amount) {
    CHECK(model_id != PLACE_EMPTY);
    uint32_t at = cap_place(s, who, model_id);
    for (int n = 0; n < CAP_PROBES; n++, at = (at + 1) & s->cap_mask) {
        struct shm_cap *c = &s->caps[at];
        bool ours = c->model_id == model_id && c->who == who;
        if (ours && amount < 0) {
            cap_remove(s, at); /* a double that a dying ledger left follows it: look again */
            return shm_cap_publish(s, who, model_id, amount);
        }
        if (ours || (c->model_id == PLACE_EMPTY && amount >= 0)) {
            cap_write(c, who, model_id, amount);
            return true;
        }
        if (c->model_id == PLACE_EMPTY) return true; /* none to remove */
    }
    return amount < 0;
}

/* ---- texts ------------------------------------------------------------------------------------------------------- */

/* In the pool a text stands behind the offset of the next of its chain; text_index has the chains' heads. Texts are
 * never freed one by one: when a half of the pool is full the other one is begun, and who publishes names his texts
 * anew; a reader with an offset into the old half finds there what he found before, until the next turn. */
static uint32_t text_end(const struct shm *s) {
    return s->header->text_used < s->text_bytes / 2 ? s->text_bytes / 2 : s->text_bytes;
}

void shm_text_turn(struct shm *s, uint64_t now_ns) {
    bool second = s->header->text_used >= s->text_bytes / 2;
    memset(s->text_index, 0, SHM_TEXT_BUCKETS * sizeof *s->text_index); /* first: no chain leads to the other half */
    atomic_thread_fence(memory_order_release);
    s->header->text_used = second ? 1 : s->text_bytes / 2;
    s->header->text_turned_ns = now_ns;
}

uint32_t shm_text_intern(struct shm *s, struct slice text) {
    if (text.len == 0 || memchr(text.ptr, 0, text.len)) return 0;
    uint32_t *head = &s->text_index[hash64(text.ptr, text.len, 0) % SHM_TEXT_BUCKETS], next;
    for (uint32_t at = *head; at; at = next) {
        if (slice_is(text, s->text + at)) return at;
        memcpy(&next, s->text + at - sizeof next, sizeof next);
    }
    uint32_t used = s->header->text_used;
    if (text.len > s->text_bytes || used + sizeof next + text.len + 1 > text_end(s)) return 0;
    uint32_t at = used + (uint32_t)sizeof next;
    memcpy(s->text + used, head, sizeof next);
    memcpy(s->text + at, text.ptr, text.len);
    s->text[at + text.len] = 0;
    s->header->text_used =
        at + (uint32_t)text.len + 1; /* before the chain leads there: a death between the two wastes the room */
    atomic_thread_fence(memory_order_release);
    *head = at;
    return at;
}

bool shm_globs_allow(const char *globs, struct slice name) {
    struct slice rest = slice_str(globs);
    if (slice_trim(rest).len == 0) return true;
    while (rest.len > 0) {
        const char *comma = memchr(rest.ptr, ',', rest.len);
        size_t n = comma ? (size_t)(comma - rest.ptr) : rest.len;
        struct slice glob = slice_trim(slice_of(rest.ptr, n));
        if (glob.len > 0 && slice_glob(glob, name)) return true;
        rest = slice_from(rest, n + 1);
    }
    return false;
}

/* ---- addresses --------------------------------------------------------------------------------------------------- */

void shm_addresses_publish(struct shm *s, uint32_t upstream_id, const struct shm_address *a, uint32_t n,
                           uint64_t now_ns) {
    CHECK(upstream_id < SHM_MAX_UPSTREAMS);
    struct shm_addresses *to = &s->addresses[upstream_id];
    if (n > SHM_MAX_ADDRESSES) n = SHM_MAX_ADDRESSES;
    write_begin(&to->version);
    to->count = n;
    to->resolved_at_ns = now_ns;
    memcpy(to->address, a, n * sizeof *a);
    write_end(&to->version);
}

bool shm_addresses_read(const struct shm *s, uint32_t upstream_id, struct shm_addresses *out) {
    if (upstream_id >= SHM_MAX_UPSTREAMS) return false;
    struct shm_addresses *from = &s->addresses[upstream_id];
    for (int i = 0; i < READ_TRIES; i++) {
        uint32_t v;
        if (!read_begin(&from->version, &v)) continue;
        memcpy((void *)out, from, sizeof *out);
        if (read_end(&from->version, v)) return out->count > 0 && out->count <= SHM_MAX_ADDRESSES;
    }
    return false;
}
