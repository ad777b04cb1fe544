/* The ledger's part of `tollctl status`. */
#include <unistd.h>
#include "master/ledger/call.h"

void call_ledger_status(struct call *c) {
    static const char *const shed_names[] = { "no", "ledger stuck", "disk full", "ledger failed", "starting" };
    const struct ledger *l = c->l;
    const struct shm_header *h = l->shm->header;
    uint32_t shed = atomic_load(&h->shed);
    jw_object(c->w);
    jw_count(c->w, "pid", (uint64_t)getpid());
    jw_count(c->w, "accounts", l->account_count);
    jw_count(c->w, "keys", l->key_count);
    jw_count(c->w, "usage_records", l->next_usage - 1);
    jw_count(c->w, "entries", l->next_entry - 1);
    jw_count(c->w, "pending", drain_waiting(l));
    jw_count(c->w, "commits", atomic_load(&h->commits));
    jw_count(c->w, "commit_us_last", atomic_load(&h->commit_ns_last) / 1000);
    jw_count(c->w, "commit_us_max", atomic_load(&h->commit_ns_max) / 1000);
    jw_count(c->w, "checkpoints", l->count.checkpoints);
    jw_count(c->w, "commit_failures", l->count.commit_failures);
    jw_count(c->w, "quarantined", l->count.quarantined);
    jw_count(c->w, "readers", l->reader_count);
    jw_count(c->w, "pauses", l->recover.pauses);
    jw_count(c->w, "pause_us_max", l->recover.max_ns / 1000);
    jw_count(c->w, "settled", l->recover.settled);
    jw_count(c->w, "repaired_words", l->recover.repaired_words);
    jw_count(c->w, "hung_workers", l->recover.hung);
    jw_count(c->w, "file_bytes", store_file_bytes(&c->l->store));
    jw_key(c->w, "shed");
    jw_cstr(c->w, shed < ARRAY_LEN(shed_names) ? shed_names[shed] : "");
    jw_key(c->w, "unit");
    jw_cstr(c->w, l->unit_tokens ? "tokens" : "usd");
    jw_end_object(c->w);
}
