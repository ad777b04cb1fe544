/* A key: its row in the database, its mirror, its entry in the shared table, and how they change together. */
#ifndef TG_LEDGER_KEY_H
#define TG_LEDGER_KEY_H

#include "master/ledger/call.h"

/* As it is read, edited, written and published. */
struct key_draft {
    struct row_key row;
    struct slice name, models, shown, last;
    uint32_t id, index; /* index: NO_INDEX: it has no place */
    struct shm_key shape;
};
enum { KEY_TEXT_MIN = 8, KEY_TEXT_MAX = 256 };
/* Its row and texts alone; false: it is no row of DB_KEY. */
bool key_draft_read(struct slice value, struct key_draft *d);
/* The same of a key by its id, with its place; its texts are copied to the call's arena. false: refused. */
bool key_draft_load(struct call *c, uint32_t id, struct key_draft *d);
/* What the shared table is to have. false: no room for its list of models. */
bool ledger_key_shape(struct ledger *l, const struct row_key *row, struct slice models, uint32_t id, uint32_t account,
                      struct shm_key *out);

/* A new text, prefix and all, in the call's arena (the caller wipes it); a draft for it. */
bool key_text_new(struct call *c, struct slice *out); /* false: refused */
void key_draft_new(struct ledger *l, uint32_t account, struct slice key, struct slice name, struct key_draft *d);
/* Places, commits and publishes n keys: all of them in one transaction, or none. false: refused. */
bool key_create(struct call *c, uint32_t account, struct key_draft *drafts, size_t n);
/* The first key of an account that is being made: begin takes a place (false: refused), write belongs into the
 * account's transaction; then done, or undo. *secret: the whole key. */
bool key_first_begin(struct call *c, uint32_t account, struct key_draft *d, struct slice *secret);
enum store_err key_first_write(struct store *s, const struct key_draft *d);
void key_first_done(struct ledger *l, const struct key_draft *d);
void key_first_undo(struct ledger *l, const struct key_draft *d);
/* Commits an edited draft and publishes it; the key's own word follows a limit that came, went or changed (recover.h
 * tells the order). Nothing is written to the call, but it may be refused. */
void key_change(struct call *c, struct key_draft *d);
void key_revoke(struct call *c, struct key_draft *d); /* the same; once more changes nothing */

/* ---- key_show.c ---- */
/* As the call's result; secret: the whole key, at its creation; else ptr NULL. */
void key_answer(struct call *c, const struct key_draft *d, struct slice secret);
/* {"keys":[…]} of one account as its owner sees them, from the key behind `after` on. */
void key_list_own(struct call *c, uint32_t account_id, uint32_t after, uint32_t limit);

#endif
