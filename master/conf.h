/* gateway.conf: text → struct conf → normalised text or snapshot.
 * Every error as FILE:LINE:COLUMN: message, all of them in one run; warnings too, which refuse nothing. */
#ifndef TG_CONF_H
#define TG_CONF_H

#include <stdio.h>
#include "shm/shm.h"
#include "shm/snapshot.h"

enum name_kind { NAME_MODEL, NAME_UPSTREAM, NAME_TIER, NAME_GROUP };

struct conf; /* master/conf_*.c */

/* Reads path and what it includes. NULL: errors were written to err, a line each. Secrets (env:, file:) and certificate
 * files are read here. */
struct conf *conf_load(const char *path, FILE *err);
void conf_free(struct conf *c);
/* Prints it normalised: parses to the same thing; secrets as where they come from. */
void conf_print(const struct conf *c, FILE *out);

/* What only the master and the ledger need. Paths absolute. */
struct conf_server {
    uint32_t workers;              /* auto resolved */
    const char *control, *state_dir, *shm_file, *user; /* user NULL: none */
    const char *error_log, *access_log;                /* NULL: stderr / off */
    struct shm_sizes sizes;        /* max_ranges: at least 2 × workers + 2 */
    uint32_t drain_timeout_ms;
};
const struct conf_server *conf_server(const struct conf *c);
/* Settings that cannot change while running (shm_file, state_dir, max_accounts, max_keys, max_active, user, control,
 * the unit of billing): a line each that differs, "NAME needs a restart". false if any. Whether the segment has ranges
 * for more workers is the caller's to see. */
bool conf_can_follow(const struct conf *running, const struct conf *next, FILE *err);

/* Every name that needs a permanent id, in order of appearance. */
void conf_each_name(const struct conf *c, void (*fn)(void *arg, enum name_kind kind, const char *name), void *arg);
/* Builds the blob (malloc'd). id_of answers each name's permanent id (> 0); series_of a stable index below
 * SHM_MAX_SERIES for (model id, upstream id). for_ledger: with jwt_secret, without provider keys, CA and TLS keys; else
 * the other way round. It holds secrets: wipe it before it is freed. NULL: out of memory. */
struct conf_ids {
    void *arg;
    uint32_t (*id_of)(void *arg, enum name_kind kind, const char *name);
    uint32_t (*series_of)(void *arg, uint32_t model_id, uint32_t upstream_id);
};
void *conf_snapshot(const struct conf *c, const struct conf_ids *ids, uint64_t generation, bool for_ledger,
                    size_t *bytes);

#endif
