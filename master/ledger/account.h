/* Accounts, and the cost caps that they may set for themselves. */
#ifndef TG_LEDGER_ACCOUNT_H
#define TG_LEDGER_ACCOUNT_H

#include "master/ledger/call.h"

void ledger_account_publish(struct ledger *l, uint32_t index); /* in the shared table, if it differs there */
bool account_row(struct ledger *l, uint32_t index, struct row_account *row, struct slice *email); /* within a read */

/* An account that signs up: the account, its opening credit, its password and its first key are one transaction. */
struct account_opening {
    char email[STORE_EMAIL + 1]; /* normalised, not taken */
    uint32_t tier_id, group_id;
    int64_t credit;
    struct slice password_hash;
    uint32_t index;              /* out */
    struct slice secret;         /* out: the whole key, in the call's arena */
};
bool account_open(struct call *c, struct account_opening *o); /* false: refused */

/* cap.c: amount < 0 removes it; nothing is written to the call. */
void cap_put_account(struct call *c, uint32_t account, uint32_t model_id, int64_t amount);

#endif
