/* Forked readers: what takes long runs beside the ledger, on a snapshot of the database. */
#ifndef TG_LEDGER_READER_H
#define TG_LEDGER_READER_H

#include "master/ledger/call.h"

/* Runs fn in a forked child with a database of its own; what it writes is the call's answer. NULL job text: none. */
struct reader_job {
    void (*fn)(struct reader_job *job);
    struct ledger *l;         /* the parent's state at the fork: mirrors may be read, its store not */
    struct store store;       /* the child's, opened read-only (no transaction is open) */
    struct buf out;           /* the result's JSON, or a refusal's code and message */
    bool refused;
    char code[48], message[400];
    uint8_t args[512];
    char text[4096];          /* a path */
    bool verify_words;        /* afterwards, in the ledger: compare the words and add what differs to "differences" */
};
void reader_start(struct call *c, const struct reader_job *job);
bool reader_runs(const struct ledger *l, void (*fn)(struct reader_job *job)); /* does such a job run, or wait? */
bool reader_input(struct ledger *l, int fd); /* the loop: something came from that pipe; false: not a reader's */
void readers_end(struct ledger *l);          /* kills them */
void job_refuse(struct reader_job *job, const char *code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
