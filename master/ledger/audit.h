/* The audit of a database, live or a copy: everything that is a sum is added up again from what it is a sum of. */
#ifndef TG_LEDGER_AUDIT_H
#define TG_LEDGER_AUDIT_H

#include "master/ledger/reader.h"

enum { AUDIT_SHOWN = 100 };

struct audit {
    uint64_t accounts, keys, entries, usage_records, quarantined;
    uint64_t differences;     /* all of them; the first AUDIT_SHOWN are written to w */
    struct json_writer *w;    /* an open array; NULL: only count */
    int places;               /* of amounts */
    const struct ledger *l; /* compares with its mirrors too, where the database has not moved on since; NULL: a copy */
    char message[200];        /* why it could not be done */
};
/* Within a read. false: could not be done. */
bool audit_run(struct audit *a, struct store *s);
void audit_difference(struct audit *a, const char *kind, const char *who, int64_t stored, int64_t computed);

#endif
