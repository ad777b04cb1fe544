/* Rings → database: group commits.
 *
 * A group is everything that waits in the rings (up to GROUP_RECORDS): one transaction with the packed usage records
 * and each ring's watermark, one sync. The usage records ARE the charges: balances, keys' spending and roll-ups follow
 * at the next checkpoint (checkpoint.c). So a record costs its own bytes and no more, however many accounts
 * take part.
 *
 * A record is copied out of shared memory before it is looked at, and trusted in nothing (promise 7 of the design):
 * what does not fit goes to quarantine, and the words that it names are computed again after the commit (rule 11): its
 * amounts are no more to be believed than the rest of it. Mirrors are changed while a group is built and put back if
 * its commit fails; roll-ups are then made again from the records behind the last checkpoint. */
#include <stdlib.h>
#include "master/ledger/ledger.h"
#include "shm/steps.h"

enum { GROUP_RECORDS = 8192, GROUP_BLOCKS = 512, GROUP_NAMED = 8, MAX_QUARANTINED = 10000 };
#define GROUP_BYTES ((size_t)GROUP_BLOCKS * (PACK_BLOCK + 2048))
#define MAX_LATE_MS (24 * 3600 * 1000)

enum quarantine_why { BAD_SEQUENCE = 1, BAD_CHECKSUM, BAD_TEXT, BAD_OWNER, BAD_AMOUNT, BAD_OVERDRAW, BAD_HEAD };
static const char *const why_text[] = {
    "",
    "wrong sequence number",
    "wrong checksum",
    "impossible length",
    "key and account do not belong together",
    "impossible amount",
    "overdraws the account",
    "the ring's head is impossible",
};

struct undo_account { uint32_t index; struct account_mem was; };
struct undo_key { uint32_t index; struct key_mem was; };
struct fix { uint32_t account, key; int64_t key_add; }; /* words to correct after the commit */
struct quarantined { struct row_quarantine row; struct shm_record record; };

struct group {
    struct packer packer;
    uint8_t *out;                   /* GROUP_BYTES */
    struct { uint64_t first_id; size_t at, len; } blocks[GROUP_BLOCKS];
    unsigned block_count;
    size_t out_len;
    uint64_t next_id;               /* of the next record */
    int64_t now_ms, late_ms;
    uint64_t *next, *head;          /* by range: the watermark after this group; the end of what waits */
    uint32_t *active;               /* ranges that have records left */
    struct undo_account accounts[GROUP_RECORDS];
    struct undo_key keys[GROUP_RECORDS];
    uint32_t account_count, key_count;
    struct fix fixes[GROUP_NAMED];
    unsigned fix_count;
    struct quarantined bad[GROUP_NAMED];
    unsigned bad_count;             /* any: the words named in fixes are computed, not added to */
};

/* ---- building a group -------------------------------------------------------------------------------------------- */

static struct account_mem *touch_account(struct ledger *l, uint32_t index) {
    struct group *g = l->group;
    struct account_mem *a = &l->accounts[index];
    if (!a->touched) {
        g->accounts[g->account_count++] = (struct undo_account){ index, *a };
        a->touched = g->account_count;
    }
    return a;
}
static struct key_mem *touch_key(struct ledger *l, uint32_t index) {
    struct group *g = l->group;
    struct key_mem *k = &l->keys[index];
    if (!k->touched) {
        g->keys[g->key_count++] = (struct undo_key){ index, *k };
        k->touched = g->key_count;
    }
    return k;
}

static bool close_block(struct group *g) {
    if (g->packer.count == 0)
        return true;
    if (g->block_count == GROUP_BLOCKS)
        return false;
    size_t len = pack_end(&g->packer, g->out + g->out_len);
    g->blocks[g->block_count].first_id = g->packer.first_id;
    g->blocks[g->block_count].at = g->out_len;
    g->blocks[g->block_count++].len = len;
    g->out_len += len;
    pack_begin(&g->packer, g->next_id, g->now_ms);
    return true;
}

/* Why a record cannot be booked; 0: it can. r is our own copy. */
static enum quarantine_why inspect(const struct ledger *l, const struct shm_record *r, uint64_t seq) {
    const struct shm_usage *u = &r->usage;
    if (r->seq != seq)
        return BAD_SEQUENCE;
    if (u->request_id_len > SHM_REQUEST_ID || u->model_len > SHM_MODEL_NAME)
        return BAD_TEXT;
    if (r->checksum != shm_record_checksum(r))
        return BAD_CHECKSUM;
    if (u->account >= l->shm->header->max_accounts || u->key >= l->shm->header->max_keys || u->account_id == 0 ||
        u->key_id == 0)
        return BAD_OWNER;
    const struct account_mem *a = &l->accounts[u->account];
    const struct key_mem *k = &l->keys[u->key];
    if (a->id != u->account_id || k->id != u->key_id || k->account != u->account)
        return BAD_OWNER;
    int64_t cost, spent;
    if (r->charge < 0 || r->uncollected < 0 || __builtin_add_overflow(r->charge, r->uncollected, &cost) ||
        __builtin_add_overflow(k->spent, r->charge, &spent))
        return BAD_AMOUNT;
    int64_t left;
    if (__builtin_sub_overflow(a->balance, r->charge, &left) || (r->charge > 0 && left < a->floor))
        return BAD_OVERDRAW;
    return 0;
}

static void quarantine(struct ledger *l, const struct shm_record *r, uint32_t range, uint64_t seq,
                       enum quarantine_why why) {
    struct group *g = l->group;
    const struct shm_usage *u = &r->usage;
    g->bad[g->bad_count++] =
        (struct quarantined){ { .time_ms = g->now_ms, .range = range, .why = why, .seq = seq }, *r };
    g->fixes[g->fix_count++] = (struct fix){ u->account, u->key, 0 };
}

static int64_t sane_time(int64_t ended_ms, int64_t committed_ms) {
    if (ended_ms > committed_ms)
        return committed_ms;
    return ended_ms < committed_ms - MAX_LATE_MS ? committed_ms - MAX_LATE_MS : ended_ms;
}

static void book(struct ledger *l, const struct shm_record *r) {
    struct group *g = l->group;
    const struct shm_usage *u = &r->usage;
    struct account_mem *a = touch_account(l, u->account);
    struct key_mem *k = touch_key(l, u->key);
    struct usage_item item = {
        .id = g->next_id,
        .exchange_id = u->exchange_id,
        .prev_account = a->last_usage,
        .prev_key = k->last_usage,
        .account_id = u->account_id,
        .key_id = u->key_id,
        .model_id = u->model_id,
        .upstream_id = u->upstream_id,
        .charge = r->charge,
        .uncollected = r->uncollected,
        .cost_usd_nano = r->cost_usd_nano,
        .time_ms = sane_time(r->ended_at_us / 1000, g->now_ms),
        .meters = r->meters,
        .status = r->status,
        .flags = r->flags,
        .ttfb_ms = r->ttfb_ms,
        .duration_ms = r->duration_ms,
        .dialect = u->dialect,
        .stream = u->stream,
        .unit_tokens = u->unit_tokens,
        .request_id = slice_of(u->request_id, u->request_id_len),
        .model = slice_of(u->model, u->model_len),
    };
    CHECK(pack_add(&g->packer, &item));
    g->next_id++;
    if (g->now_ms - item.time_ms > g->late_ms)
        g->late_ms = g->now_ms - item.time_ms;
    a->balance -= r->charge;
    a->last_usage = k->last_usage = item.id;
    k->spent += r->charge;
    if (item.time_ms / 1000 > k->last_used_s)
        k->last_used_s = item.time_ms / 1000;
    if (k->capped && !u->capped &&
        r->charge > 0) /* admitted before the key was seen to have a limit: its word has not moved */
        g->fixes[g->fix_count++] = (struct fix){ NO_INDEX, u->key, -r->charge };
    CHECK(rollups_add(&l->rollups, &item)); /* no memory: of no use any more; a start reads the records again */
}

/* Room for one record more, whatever it is. */
static bool group_has_room(struct group *g) {
    if (g->packer.count == PACK_BLOCK_RECORDS || g->packer.bytes + PACK_MAX_RECORD > PACK_BLOCK)
        if (!close_block(g))
            return false;
    return g->block_count < GROUP_BLOCKS && g->account_count < GROUP_RECORDS && g->key_count < GROUP_RECORDS &&
           g->fix_count < GROUP_NAMED && g->bad_count < GROUP_NAMED;
}

static uint64_t head_of(const struct ledger *l, uint32_t range) {
    uint64_t from = l->watermark[range], to = atomic_load_explicit(&l->shm->ranges[range].head, memory_order_acquire);
    if (to < from)
        return from;
    return to - from > l->shm->header->ring_size ? from + l->shm->header->ring_size : to; /* as truth_pending does */
}

/* Which of the rings that have records left ended its next one first: so ids follow time as well as the clock can tell.
 * What stands in the ring may be a lie; it then only spoils the order. */
static uint32_t earliest(const struct ledger *l, uint32_t active) {
    const struct group *g = l->group;
    uint32_t found = 0;
    int64_t least = 0;
    for (uint32_t n = 0; active > 1 && n < active; n++) {
        const struct shm_record *r = shm_ring(l->shm, g->active[n], g->next[g->active[n]]);
        if (n == 0 || r->ended_at_us < least) {
            least = r->ended_at_us;
            found = n;
        }
    }
    return found;
}

static void take_next(struct ledger *l, uint32_t range) {
    struct group *g = l->group;
    struct shm_record r;
    uint64_t seq = g->next[range]++;
    memcpy(&r, shm_ring(l->shm, range, seq), sizeof r);
    __asm__ volatile("" : : : "memory"); /* a worker may still write there: from here on only the copy counts */
    enum quarantine_why why = inspect(l, &r, seq);
    uint64_t head = atomic_load_explicit(&l->shm->ranges[range].head, memory_order_acquire);
    if (why == BAD_SEQUENCE && head - l->watermark[range] > l->shm->header->ring_size) {
        why = BAD_HEAD; /* no ring holds that many: on to where it says that it is, and that worker must go */
        g->next[range] = g->head[range] = head;
        l->truth.hung(l, range);
    }
    if (why)
        quarantine(l, &r, range, seq, why);
    else
        book(l, &r);
}

static void build(struct ledger *l) {
    struct group *g = l->group;
    g->next_id = l->next_usage;
    g->now_ms = ledger_wall_ms();
    if (g->now_ms < l->last_committed_ms)
        g->now_ms = l->last_committed_ms;
    g->late_ms = l->late_ms;
    g->block_count = g->fix_count = g->bad_count = 0;
    g->account_count = g->key_count = 0;
    g->out_len = 0;
    pack_begin(&g->packer, g->next_id, g->now_ms);
    uint32_t active = 0;
    for (uint32_t i = 0; i < l->shm->header->max_ranges; i++) {
        g->next[i] = l->watermark[i];
        g->head[i] = head_of(l, i);
        if (g->next[i] < g->head[i])
            g->active[active++] = i;
    }
    while (active > 0 && group_has_room(g)) {
        uint32_t at = earliest(l, active), i = g->active[at];
        take_next(l, i);
        if (g->next[i] == g->head[i])
            g->active[at] = g->active[--active];
    }
    CHECK(close_block(g));
}

static void untouch(struct ledger *l, bool undo) {
    struct group *g = l->group;
    for (uint32_t i = 0; i < g->account_count; i++) {
        struct account_mem *a = &l->accounts[g->accounts[i].index];
        if (undo)
            *a = g->accounts[i].was;
        a->touched = 0;
        if (!undo)
            checkpoint_mark_account(l, g->accounts[i].index);
    }
    for (uint32_t i = 0; i < g->key_count; i++) {
        struct key_mem *k = &l->keys[g->keys[i].index];
        if (undo)
            *k = g->keys[i].was;
        k->touched = 0;
        if (!undo)
            checkpoint_mark_key(l, g->keys[i].index);
    }
}

/* ---- committing -------------------------------------------------------------------------------------------------- */

static enum store_err write_group(struct store *s, void *arg) {
    struct ledger *l = arg;
    struct group *g = l->group;
    enum store_err err = STORE_OK;
    for (unsigned i = 0; i < g->block_count && err == STORE_OK; i++) {
        struct id_key key = key64(g->blocks[i].first_id);
        err = store_append(s, DB_USAGE, ID_SLICE(key), slice_of((char *)g->out + g->blocks[i].at, g->blocks[i].len));
    }
    for (unsigned i = 0; i < g->bad_count && err == STORE_OK && l->next_quarantine + i <= MAX_QUARANTINED; i++) {
        struct id_key key = key64(l->next_quarantine + i);
        err = store_append(s, DB_QUARANTINE, ID_SLICE(key), ROW_SLICE(g->bad[i]));
    }
    struct id_key segment = key64(l->shm->header->segment_id);
    if (err == STORE_OK)
        err = store_put(s, DB_WATERMARK, ID_SLICE(segment),
                        slice_of((char *)g->next, l->shm->header->max_ranges * sizeof *g->next));
    return err;
}

static void name_fixes(struct ledger *l) {
    for (unsigned i = 0; i < l->group->fix_count; i++)
        recover_name(l->shm, l->group->fixes[i].account, l->group->fixes[i].key);
}

/* With the watermarks in place, for a computation starts from them. A ledger that is told to end meanwhile leaves
 * the names: the next one computes. */
static void apply_fixes(struct ledger *l) {
    struct group *g = l->group;
    if (g->bad_count > 0 && recover_named(l->shm, &l->truth, &l->recover) < 0)
        return;
    for (unsigned i = 0; i < g->fix_count && g->bad_count == 0; i++)
        recover_key_add(l->shm, g->fixes[i].key, g->fixes[i].key_add);
    if (g->fix_count > 0)
        recover_unname(l->shm);
}

static void report_bad(struct ledger *l) {
    struct group *g = l->group;
    if (g->bad_count == 0)
        return;
    l->count.quarantined += g->bad_count;
    l->next_quarantine += g->bad_count;
    if (!ledger_alert_due(l, ALERT_QUARANTINE))
        return;
    const struct quarantined *q = &g->bad[0];
    ledger_alert(l,
                 "a usage record from worker range %u was put into quarantine: %s (account id %u, key id %u, charge "
                 "%lld; %llu so far). "
                 "No honest worker writes such a record: look at that worker's log, and run `tollctl audit`",
                 q->row.range, why_text[q->row.why], q->record.usage.account_id, q->record.usage.key_id,
                 (long long)q->record.charge, (unsigned long long)l->count.quarantined);
}

static void publish(struct ledger *l, uint64_t took_ns) {
    struct group *g = l->group;
    struct shm_header *h = l->shm->header;
    for (uint32_t i = 0; i < h->max_ranges; i++) {
        if (g->next[i] == l->watermark[i])
            continue;
        l->count.records += g->next[i] - l->watermark[i];
        l->watermark[i] = g->next[i];
        atomic_store_explicit(&l->shm->ranges[i].tail, g->next[i], memory_order_release);
        SHM_STEP("drain.tail");
    }
    atomic_store_explicit(&h->commits, atomic_load_explicit(&h->commits, memory_order_relaxed) + 1,
                          memory_order_release);
    atomic_store_explicit(&h->commit_ns_last, took_ns, memory_order_relaxed);
    if (took_ns > atomic_load_explicit(&h->commit_ns_max, memory_order_relaxed))
        atomic_store_explicit(&h->commit_ns_max, took_ns, memory_order_relaxed);
}

enum store_err drain_commit(struct ledger *l) {
    struct group *g = l->group;
    build(l);
    name_fixes(l);
    SHM_STEP("drain.built");
    uint64_t start_ns = ledger_now_ns();
    enum store_err err = store_write_relaxed(&l->store, write_group, l); /* the loop syncs when nothing follows */
    if (err != STORE_OK) {
        recover_unname(l->shm);
        untouch(l, true);
        rollups_clear(&l->rollups);
        l->count.commit_failures++;
        enum store_err again = err == STORE_DISK_FULL ? checkpoint_replay(l, false) : STORE_OK;
        return again == STORE_OK ? err : again;
    }
    l->next_usage = g->next_id;
    if (g->block_count > 0)
        l->last_committed_ms = g->now_ms;
    l->late_ms = g->late_ms;
    untouch(l, false);
    publish(l, ledger_now_ns() - start_ns);
    apply_fixes(l);
    report_bad(l);
    checkpoint_if_much(l);
    return STORE_OK;
}

uint64_t drain_waiting(const struct ledger *l) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < l->shm->header->max_ranges; i++)
        n += head_of(l, i) - l->watermark[i];
    return n;
}

bool drain_init(struct ledger *l) {
    struct group *g = l->group = calloc(1, sizeof *g);
    if (!g)
        return false;
    g->out = malloc(GROUP_BYTES);
    g->next = calloc(l->shm->header->max_ranges, sizeof *g->next);
    g->head = calloc(l->shm->header->max_ranges, sizeof *g->head);
    g->active = calloc(l->shm->header->max_ranges, sizeof *g->active);
    return g->out && g->next && g->head && g->active;
}

void drain_free(struct ledger *l) {
    if (l->group) {
        free(l->group->out);
        free(l->group->next);
        free(l->group->head);
        free(l->group->active);
        free(l->group);
    }
    free(l->rollups.at);
    l->rollups = (struct rollups){ 0 };
    l->group = NULL;
}
