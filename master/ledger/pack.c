/* Packing of usage records: varints (LEB128), signed ones in zigzag, in the order of pack_add. What a reader finds
 * malformed is reported, never followed: offsets and lengths are checked against the block. */
#include "master/ledger/pack.h"

#include "proto/base/check.h"

struct head { uint32_t count, bytes; int64_t committed_ms; };
enum { HAS_COST_USD = 1, UNIT_TOKENS = 2, STREAM = 4 };

static uint8_t *put(uint8_t *p, uint64_t v) {
    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}
static uint8_t *put_signed(uint8_t *p, int64_t v) {
    return put(p, ((uint64_t)v << 1) ^ (uint64_t)(v >> 63));
}

void pack_begin(struct packer *p, uint64_t first_id, int64_t committed_ms) {
    p->first_id = first_id;
    p->count = 0;
    p->bytes = 0;
    p->committed_ms = committed_ms;
}

static uint64_t back(uint64_t id, uint64_t prev) {
    return prev ? id - prev : 0;
}

bool pack_add(struct packer *p, const struct usage_item *u) {
    CHECK(u->id == p->first_id + p->count && u->charge >= 0 && u->uncollected >= 0);
    CHECK(u->request_id.len <= SHM_REQUEST_ID && u->model.len <= SHM_MODEL_NAME);
    if (p->count == PACK_BLOCK_RECORDS || p->bytes + PACK_MAX_RECORD > PACK_BLOCK)
        return false;
    p->offset[p->count++] = (uint16_t)p->bytes;
    uint8_t *at = p->data + p->bytes, *start = at;
    bool cost_differs = u->cost_usd_nano != (int64_t)((uint64_t)u->charge + (uint64_t)u->uncollected);
    *at++ =
        (uint8_t)((cost_differs ? HAS_COST_USD : 0) | (u->unit_tokens ? UNIT_TOKENS : 0) | (u->stream ? STREAM : 0));
    *at++ = u->dialect;
    memcpy(at, &u->exchange_id, 8);
    at = put(at + 8, back(u->id, u->prev_account));
    at = put(at, back(u->id, u->prev_key));
    at = put(put(put(put(at, u->account_id), u->key_id), u->model_id), u->upstream_id);
    at = put(put(at, (uint64_t)u->charge), (uint64_t)u->uncollected);
    if (cost_differs)
        at = put_signed(at, u->cost_usd_nano);
    at = put_signed(at, p->committed_ms - u->time_ms);
    at = put(put(put(put(at, u->status), u->flags), u->ttfb_ms), u->duration_ms);
    uint64_t used = 0;
    for (unsigned i = 0; i < METER_COUNT; i++)
        used |= (uint64_t)(u->meters.n[i] != 0) << i;
    at = put(at, used);
    for (unsigned i = 0; i < METER_COUNT; i++)
        if (u->meters.n[i])
            at = put(at, u->meters.n[i]);
    *at++ = (uint8_t)u->request_id.len;
    *at++ = (uint8_t)u->model.len;
    if (u->request_id.len)
        memcpy(at, u->request_id.ptr, u->request_id.len);
    at += u->request_id.len;
    if (u->model.len)
        memcpy(at, u->model.ptr, u->model.len);
    at += u->model.len;
    CHECK(at - start <= PACK_MAX_RECORD);
    p->bytes += (size_t)(at - start);
    return true;
}

size_t pack_end(struct packer *p, uint8_t *out) {
    struct head h = { .count = p->count, .bytes = (uint32_t)p->bytes, .committed_ms = p->committed_ms };
    size_t offsets = p->count * sizeof p->offset[0];
    memcpy(out, &h, sizeof h);
    memcpy(out + sizeof h, p->offset, offsets);
    memcpy(out + sizeof h + offsets, p->data, p->bytes);
    return sizeof h + offsets + p->bytes;
}

bool block_open(struct block *b, struct slice key, struct slice value) {
    struct head h;
    if (key.len != 8 || !row_read(value, &h, sizeof h, NULL))
        return false;
    if (h.count == 0 || h.count > PACK_BLOCK_RECORDS || sizeof h + h.count * 2ul + h.bytes != value.len)
        return false;
    *b = (struct block){
        .first_id = be64_get(key.ptr), .count = h.count, .committed_ms = h.committed_ms, .value = value
    };
    return true;
}

struct in { const uint8_t *at, *end; bool bad; };
static uint64_t get(struct in *in) {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (in->at >= in->end)
            break;
        uint8_t c = *in->at++;
        v |= (uint64_t)(c & 0x7f) << shift;
        if (!(c & 0x80))
            return v;
    }
    in->bad = true;
    return 0;
}
static int64_t get_signed(struct in *in) {
    uint64_t v = get(in);
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}
static struct slice get_text(struct in *in, size_t n) {
    if ((size_t)(in->end - in->at) < n) {
        in->bad = true;
        return SLICE_NONE;
    }
    in->at += n;
    return slice_of((const char *)in->at - n, n);
}

bool block_get(const struct block *b, uint32_t i, struct usage_item *u) {
    if (i >= b->count)
        return false;
    const uint8_t *base = (const uint8_t *)b->value.ptr, *data = base + sizeof(struct head) + b->count * 2ul;
    uint16_t offset;
    memcpy(&offset, base + sizeof(struct head) + i * 2ul, 2);
    struct in in = { data + offset, base + b->value.len, false };
    if (in.at > in.end || in.end - in.at < 10)
        return false;
    uint8_t bits = *in.at++;
    *u = (struct usage_item){ .id = b->first_id + i, .committed_ms = b->committed_ms };
    u->unit_tokens = (bits & UNIT_TOKENS) != 0;
    u->stream = (bits & STREAM) != 0;
    u->dialect = *in.at++;
    memcpy(&u->exchange_id, in.at, 8);
    in.at += 8;
    uint64_t prev = get(&in);
    u->prev_account = prev && prev < u->id ? u->id - prev : 0;
    prev = get(&in);
    u->prev_key = prev && prev < u->id ? u->id - prev : 0;
    u->account_id = (uint32_t)get(&in);
    u->key_id = (uint32_t)get(&in);
    u->model_id = (uint32_t)get(&in);
    u->upstream_id = (uint32_t)get(&in);
    u->charge = (int64_t)get(&in);
    u->uncollected = (int64_t)get(&in);
    u->cost_usd_nano = (int64_t)((uint64_t)u->charge + (uint64_t)u->uncollected);
    if (bits & HAS_COST_USD)
        u->cost_usd_nano = get_signed(&in);
    u->time_ms = (int64_t)((uint64_t)b->committed_ms - (uint64_t)get_signed(&in));
    u->status = (uint32_t)get(&in);
    u->flags = (uint32_t)get(&in);
    u->ttfb_ms = (uint32_t)get(&in);
    u->duration_ms = (uint32_t)get(&in);
    uint64_t used = get(&in);
    for (unsigned m = 0; m < METER_COUNT; m++)
        if (used >> m & 1)
            u->meters.n[m] = get(&in);
    if (in.end - in.at < 2)
        return false;
    size_t request_len = *in.at++, model_len = *in.at++;
    u->request_id = get_text(&in, request_len);
    u->model = get_text(&in, model_len);
    return !in.bad && u->charge >= 0 && u->uncollected >= 0;
}

enum store_err usage_open(struct usage_reader *r, struct store *s) {
    r->open = false;
    return store_cursor_open(s, DB_USAGE, &r->cursor);
}
void usage_close(struct usage_reader *r) {
    store_cursor_close(&r->cursor);
}

/* Takes the block under the cursor. */
static enum store_err take_block(struct usage_reader *r) {
    r->open = block_open(&r->block, r->cursor.key, r->cursor.value);
    return r->open ? STORE_OK : STORE_BROKEN;
}

enum store_err usage_get(struct usage_reader *r, uint64_t id, struct usage_item *u) {
    if (!r->open || id < r->block.first_id || id >= r->block.first_id + r->block.count) {
        struct id_key key = key64(id);
        enum store_err err = store_seek(&r->cursor, ID_SLICE(key));
        if (err == STORE_NONE)
            err = store_last(&r->cursor);
        else if (err == STORE_OK && be64_get(r->cursor.key.ptr) != id)
            err = store_prev(&r->cursor);
        if (err == STORE_OK)
            err = take_block(r);
        if (err != STORE_OK)
            return err;
    }
    if (id < r->block.first_id || id >= r->block.first_id + r->block.count)
        return STORE_NONE;
    return block_get(&r->block, (uint32_t)(id - r->block.first_id), u) ? STORE_OK : STORE_BROKEN;
}

uint64_t usage_last_id(struct usage_reader *r) {
    if (store_last(&r->cursor) != STORE_OK || take_block(r) != STORE_OK)
        return 0;
    return r->block.first_id + r->block.count - 1;
}

uint64_t usage_first_committed(struct usage_reader *r, int64_t time_ms) {
    uint64_t low = 1, high = usage_last_id(r) + 1; /* the answer is in [low, high] */
    struct usage_item u;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (usage_get(r, middle, &u) != STORE_OK)
            return low;
        if (r->block.committed_ms >= time_ms)
            high = r->block.first_id < low ? low : r->block.first_id;
        else
            low = r->block.first_id + r->block.count;
        if (high < low)
            high = low;
    }
    return low;
}
