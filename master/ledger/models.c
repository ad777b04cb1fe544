/* Lists of models that keys bring: their texts in shared memory.
 *
 * The pool (shm/tables.c) takes texts until its half is full. Keys come, change and go, so that then most of it belongs
 * to nobody any more: the other half is begun, and every key that has a list gets it named anew there. A worker may
 * hold on to what it has read of a key while the request comes in; so this is done at most every ten minutes, and
 * only if what is alive leaves room. The texts are copied from the half that was in use: nothing reads the database. */
#include <stdlib.h>
#include "master/ledger/ledger.h"

#define TURN_EVERY_NS 600000000000u

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Bytes that the lists of active keys take, each list once; SIZE_MAX: no memory to find out. */
static size_t alive(const struct shm *s) {
    uint32_t *at = malloc(s->header->max_keys * sizeof *at), n = 0;
    size_t bytes = 0;
    struct shm_key k;
    if (!at)
        return SIZE_MAX;
    for (uint32_t i = 0; i < s->header->max_keys; i++)
        if (shm_key_read(s, i, &k) && k.status == KEY_ACTIVE && k.models)
            at[n++] = k.models;
    if (n > 1)
        qsort(at, n, sizeof *at, by_value);
    for (uint32_t i = 0; i < n; i++)
        if (i == 0 || at[i] != at[i - 1])
            bytes += strlen(shm_text(s, at[i])) + sizeof *at + 1;
    free(at);
    return bytes;
}

static bool may_turn(const struct ledger *l, size_t more) {
    const struct shm_header *h = l->shm->header;
    size_t half = l->shm->text_bytes / 2, used = alive(l->shm);
    if (l->ready && h->text_turned_ns && ledger_now_ns() - h->text_turned_ns < TURN_EVERY_NS)
        return false;
    return used < half - half / 8 && used + more + 64 < half;
}

static void turn(struct ledger *l) {
    struct shm *s = l->shm;
    struct shm_key k;
    shm_text_turn(s, ledger_now_ns());
    for (uint32_t i = 0; i < s->header->max_keys; i++) {
        if (!shm_key_read(s, i, &k) || !k.models)
            continue;
        k.models = k.status == KEY_ACTIVE ? shm_text_intern(s, slice_str(shm_text(s, k.models))) : 0;
        CHECK(k.status != KEY_ACTIVE || k.models); /* may_turn counted them */
        CHECK(shm_key_publish(s, i, &k));
    }
}

uint32_t models_place(struct ledger *l, struct slice models) {
    uint32_t at = shm_text_intern(l->shm, models);
    if (at || !may_turn(l, models.len))
        return at;
    turn(l);
    return shm_text_intern(l->shm, models);
}
