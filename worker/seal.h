/* Provider-side state belongs to the tenant who made it, though all tenants share the provider's account: an id that a
 * provider hands out for later use reaches the client sealed to account, upstream and provider key, and comes back only
 * from there. No table, no lookup. */
#ifndef TG_SEAL_H
#define TG_SEAL_H

#include "worker/exchange.h"

/* The id with its seal behind it (pass_answer.seal; arg: the exchange). An id that cannot be sealed (memory) becomes
 * empty, never naked. */
struct slice seal_id(void *arg, struct slice id, struct arena *arena);
/* Opens every sealed id of the request into ex->plain and pins the exchange to the upstream and key of its state. An id
 * of an item may have no seal: ex->unsealed is the first that a pass must not let through. false: a 400 was sent. */
bool seal_open_all(struct exchange *ex);
/* What a client is told of an id that is not his; in the arena. */
struct slice seal_unknown(struct exchange *ex, struct slice id);

#endif
