/* Places: at which index of the shared tables an account or key stands, and which are free.
 *
 * A place is good for the life of a segment: slots and rings name accounts and keys by it. An account keeps its place
 * for ever; a key that was revoked long ago may lose it to a new one when the table is full, and is an unknown key from
 * then on. */
#include <stdlib.h>
#include "master/ledger/ledger.h"

uint32_t ledger_account_index(const struct ledger *l, uint32_t id) {
    return id < l->account_of_size ? l->account_of[id] : NO_INDEX;
}
uint32_t ledger_key_index(const struct ledger *l, uint32_t id) {
    return id < l->key_of_size ? l->key_of[id] : NO_INDEX;
}

static bool map_id(uint32_t **map, uint32_t *size, uint32_t id, uint32_t index) {
    if (id >= *size) {
        uint32_t n = id + id / 2 + 1024;
        uint32_t *grown = realloc(*map, n * sizeof *grown);
        if (!grown)
            return false;
        memset(grown + *size, 0xff, (n - *size) * sizeof *grown);
        *map = grown;
        *size = n;
    }
    (*map)[id] = index;
    return true;
}

static bool place_account(struct ledger *l, uint32_t id, uint32_t index) {
    if (!map_id(&l->account_of, &l->account_of_size, id, index))
        return false;
    l->accounts[index].id = id;
    l->account_count++;
    return true;
}
static bool place_key(struct ledger *l, uint32_t id, uint32_t index) {
    if (!map_id(&l->key_of, &l->key_of_size, id, index))
        return false;
    l->keys[index].id = id;
    l->key_count++;
    return true;
}

uint32_t ledger_account_place(struct ledger *l, uint32_t id) {
    uint32_t max = l->shm->header->max_accounts;
    while (l->next_account_place < max && l->accounts[l->next_account_place].id)
        l->next_account_place++;
    uint32_t index = l->next_account_place;
    if (index >= max || !place_account(l, id, index))
        return NO_INDEX;
    atomic_store(&l->shm->account_words[index].available, 0);
    return index;
}

void ledger_account_forget(struct ledger *l, uint32_t index) {
    l->account_of[l->accounts[index].id] = NO_INDEX;
    l->accounts[index] = (struct account_mem){ 0 };
    l->account_count--;
    if (index < l->next_account_place)
        l->next_account_place = index;
}

/* Keys whose places slots or uncommitted records name: they must stay. */
static uint8_t *keys_in_use(const struct ledger *l) {
    const struct shm *s = l->shm;
    uint8_t *used = calloc(s->header->max_keys, 1);
    if (!used)
        return NULL;
    for (uint32_t i = 0; i < s->header->max_ranges; i++) {
        for (uint32_t j = 0; j < s->header->max_active; j++) {
            const struct shm_slot *slot = shm_slot(s, i, j);
            uint32_t key = slot->usage.key;
            if (atomic_load(&((struct shm_slot *)(uintptr_t)slot)->state) != SLOT_FREE && key < s->header->max_keys)
                used[key] = 1;
        }
        uint64_t head = atomic_load(&s->ranges[i].head);
        for (uint64_t q = l->watermark[i]; q < head && q - l->watermark[i] < s->header->ring_size; q++)
            if (shm_ring(s, i, q)->usage.key < s->header->max_keys)
                used[shm_ring(s, i, q)->usage.key] = 1;
    }
    return used;
}

/* The table is full: the key that was revoked longest ago, at least an hour, makes room; from then on it is an unknown
 * key. */
static void evict_revoked(struct ledger *l) {
    int64_t before_s = ledger_wall_ms() / 1000 - 3600;
    if (l->checkpoint_ns && checkpoint_commit(l) != STORE_OK)
        return; /* its row in the database must be whole before the mirror forgets it */
    uint8_t *used = keys_in_use(l);
    uint32_t found = NO_INDEX;
    for (uint32_t i = 0; used && i < l->shm->header->max_keys; i++) {
        const struct key_mem *k = &l->keys[i];
        if (k->id && k->status == KEY_REVOKED && k->revoked_at_s <= before_s && !used[i] &&
            (found == NO_INDEX || k->revoked_at_s < l->keys[found].revoked_at_s))
            found = i;
    }
    free(used);
    if (found != NO_INDEX)
        ledger_key_forget(l, found);
}

void ledger_key_forget(struct ledger *l, uint32_t index) {
    CHECK(l->keys[index].id && !l->keys[index].dirty);
    struct account_mem *a = &l->accounts[l->keys[index].account];
    for (uint32_t i = 0; a->caps > 0 && i <= l->shm->cap_mask; i++)
        if (l->shm->caps[i].model_id && l->shm->caps[i].who == (index | SHM_CAP_KEY)) {
            shm_cap_publish(l->shm, index | SHM_CAP_KEY, l->shm->caps[i].model_id, -1);
            a->caps--;
        }
    shm_key_remove(l->shm, index);
    l->key_of[l->keys[index].id] = NO_INDEX;
    l->keys[index] = (struct key_mem){ 0 };
    l->key_count--;
    l->free_keys[l->free_key_count++] = index;
}

uint32_t ledger_key_place(struct ledger *l, uint32_t id) {
    if (l->free_key_count == 0)
        evict_revoked(l);
    if (l->free_key_count == 0)
        return NO_INDEX;
    uint32_t index = l->free_keys[--l->free_key_count];
    if (!place_key(l, id, index)) {
        l->free_keys[l->free_key_count++] = index;
        return NO_INDEX;
    }
    struct shm_key_words *w = &l->shm->key_words[index];
    atomic_store(&w->available, 0);
    atomic_store(&w->concurrency, 0);
    atomic_store(&w->rpm_tat, 0);
    atomic_store(&w->tpm_tat, 0);
    atomic_store(&w->images_tat, 0);
    atomic_store(&w->last_used_s, 0);
    return index;
}

bool ledger_places_keep(struct ledger *l) {
    const struct shm_header *h = l->shm->header;
    for (uint32_t i = 0; i < h->max_accounts; i++) {
        const struct shm_account *a = &l->shm->accounts[i];
        if (a->id == 0)
            continue;
        if (a->id < l->next_account_id && ledger_account_index(l, a->id) == NO_INDEX) {
            if (!place_account(l, a->id, i))
                return false;
        } else {
            shm_account_publish(l->shm, i, &(struct shm_account){ .status = ACCOUNT_NONE });
        }
    }
    for (uint32_t i = 0; i < h->max_keys; i++) {
        const struct shm_key *k = &l->shm->keys[i];
        if (k->id == 0)
            continue;
        if (k->status != KEY_NONE && k->id < l->next_key_id && ledger_key_index(l, k->id) == NO_INDEX) {
            if (!place_key(l, k->id, i))
                return false;
        } else {
            shm_key_remove(l->shm, i);
        }
    }
    return true;
}
