/* Texts of the outside: times, emails, what of a key is shown. */
#ifndef TG_LEDGER_TEXT_H
#define TG_LEDGER_TEXT_H

#include "master/ledger/store.h"

void time_format(char out[40], int64_t time_ms, bool with_ms); /* RFC 3339, UTC */
/* RFC 3339, a date (midnight UTC), or an age before now: 90s 15m 12h 30d 2w. */
bool time_parse(struct slice text, int64_t now_ms, int64_t *out_ms);
bool email_normalise(struct slice text, char out[STORE_EMAIL + 1]);
/* What of a key may be shown: its beginning and its last characters. */
void key_shown(struct slice key, struct slice prefix, struct slice *begin, struct slice *end);

#endif
