/* Between the files of an attempt; what others may call is in exchange.h. */
#ifndef TG_ATTEMPT_H
#define TG_ATTEMPT_H

#include "worker/exchange.h"

/* attempt_request.c. For the route in ex->try: the plan and the body it sends; false: the exchange was answered. */
bool attempt_body(struct exchange *ex);
/* The head, made anew, for the body that is there; false: it does not fit. */
bool attempt_head(struct exchange *ex);

/* attempt.c. The connection broke before the answer was whole; ex may be gone. */
void attempt_broken(struct exchange *ex, const char *text);

#endif
