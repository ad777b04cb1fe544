/* Calls to the ledger: what a worker cannot know goes as JSON over the channel; the answer comes in a later turn. */
#ifndef TG_CALL_H
#define TG_CALL_H

#include "worker/exchange.h"

/* Sends the call; on_answer gets the document {"result":…} or {"error":{"code","message"}} parsed (valid during the
 * call only), or NULL when the ledger did not answer in time. The exchange waits; when it ends first the answer is
 * dropped. false: it cannot be sent (an error was sent to the client). */
bool call_ledger(struct exchange *ex, struct slice json, void (*on_answer)(struct exchange *ex, const struct json *j));
void call_forget(struct exchange *ex);                       /* from exchange_finish */
void call_answered(struct worker *w, uint32_t id, struct slice payload); /* from the channel */

#endif
