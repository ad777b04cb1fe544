/* What the processes of the stress test share besides the segment: the facts that no recovery may lose, and what is to
 * die when. */
#ifndef TG_STRESS_WORLD_H
#define TG_STRESS_WORLD_H

#include "shm/money.h"
#include "shm/recover.h"
#include "shm/steps.h"

enum {
    WORKERS = 4,
    ACCOUNTS = 6,
    KEYS = 12,
    SLOTS = 32,
    MAX_EXCHANGES = 1 << 24,
    SAMPLES = 1 << 15,
    MAX_STEPS = 64,
    START = 5000,
    KEY_LIMIT = 3000
};
enum sample { DRILL, DEATH, RESTART, SAMPLE_KINDS };

struct world {
    /* facts: INTENDED is stored before the slot says delivered, RECEIVED when the client has it */
    _Atomic uint8_t fact[WORKERS][MAX_EXCHANGES];
    uint64_t first_id[WORKERS];
    _Atomic int64_t credited[ACCOUNTS];         /* acknowledged to the customer, so never to be lost */
    /* orders */
    _Atomic int64_t die_after[WORKERS + 1];     /* steps to go; 0: none. WORKERS: the ledger */
    _Atomic uint32_t die_at[WORKERS + 1];       /* only steps of this name count: its number + 1; 0: all do */
    _Atomic uint32_t died_at[MAX_STEPS];
    _Atomic uint32_t kill_me[WORKERS];          /* the ledger found it hung */
    _Atomic uint32_t stop, finish;
    /* what was seen */
    _Atomic uint64_t exchanges, commits, records, negative, drift_words, drills, recoveries, settled, repaired, hung,
        no_room, torn, unpaired;
    _Atomic uint32_t samples[SAMPLE_KINDS];
    uint32_t sample_ns[SAMPLE_KINDS][SAMPLES];
    _Atomic uint32_t ready;                     /* the first ledger has computed the words */
};
enum { INTENDED = 1, RECEIVED = 2 };

/* What an exchange is follows from its number alone, so that it can be checked afterwards. */
struct exchange { uint32_t account, key; int64_t price, hold; };
struct exchange exchange_of(uint64_t id);

extern struct world *world;
extern struct shm shm;
extern char store_path[];
extern int wake_fd;              /* the ledger's */
uint64_t rnd(void);
void rnd_seed(uint64_t seed);
void die_on_order(const char *step);
extern int self;                 /* which process: 0 to WORKERS - 1, WORKERS: the ledger */

_Noreturn void worker_main(int range);
_Noreturn void ledger_main(void);

/* The ledger's store, read by the master at the end. */
struct account_row { int64_t balance, credits, debits, charges; };
struct key_row { int64_t limit, spent; uint32_t capped, pad; };
struct usage_row { uint32_t times; int64_t charge; };
struct store { struct account_row account[ACCOUNTS]; struct key_row key[KEYS]; uint64_t watermark[WORKERS]; };
void store_open(void);
void store_make(void);
bool store_usage(uint64_t id, struct usage_row *row);
extern struct store store;

#endif
