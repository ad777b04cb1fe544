/* Every frame between the processes: master ↔ worker, master ↔ ledger, tollctl → master.
 *
 * Between our own processes frames travel over SOCK_SEQPACKET pairs (one frame a packet, descriptors beside it); a
 * payload longer than IPC_CHUNK goes as several packets, all but the last flagged MORE, with the same type, id and
 * origin. tollctl speaks to the control socket (SOCK_STREAM, mode 0600) in lines: one JSON document each way, ended by
 * LF. All sockets are non-blocking. Nobody waits for an answer: answers come as frames with the request's id. */
#ifndef TG_IPC_H
#define TG_IPC_H

#include "proto/json.h"

enum { IPC_CHUNK = 61440, IPC_MAX_PAYLOAD = 32 << 20, IPC_MAX_FDS = 32 };

enum ipc_type {
    /* master → worker */
    IPC_SNAPSHOT = 1, /* payload: u64 bytes of the blob; fd: the sealed memfd */
    IPC_LISTENERS, /* payload: u64 listener id each; fds: in that order. Replaces the whole set: absent ones are left */
    IPC_DRAIN,     /* payload: u32 deadline in ms: stop accepting, finish, exit 0 */
    IPC_QUIT,      /* end now; what was delivered is billed */
    IPC_REOPEN_LOGS, /* fds: access log (or none), error log; the master opened them */
    /* worker → master */
    IPC_READY = 20,    /* the worker serves */
    IPC_SNAPSHOT_DONE, /* payload: u64 generation it now uses */
    IPC_RESOLVE_NOW,   /* payload: u32 upstream id: all its addresses failed */
    /* either way between worker and master, and master and ledger; tollctl's lines become these too */
    IPC_CALL = 40, /* payload: JSON {"cmd":…, …}; origin says whose call it is */
    IPC_ANSWER,    /* payload: JSON {"result":…} or {"error":{"code","message"}}; same id and origin */
    /* master → ledger */
    IPC_LEDGER_CONF = 60, /* payload: u64 bytes; fd: memfd with the ledger's own snapshot */
    IPC_WORKER_DEAD,      /* payload: u32 range: reaped; its state is already RANGE_DEAD */
    IPC_STOP,             /* commit all, then exit 0 */
    /* ledger → master */
    IPC_LEDGER_READY = 80, /* tables published, words computed: workers may start */
    IPC_WORKER_HUNG,       /* payload: u32 range: kill it */
    IPC_ALERT              /* payload: text for the error log: what an operator must do */
};

enum ipc_origin { IPC_FROM_CONTROL = 0, IPC_FROM_MASTER = 1, IPC_FROM_WORKER = 2 /* + range */ };

struct ipc_header {
    uint32_t type;   /* enum ipc_type */
    uint32_t id;     /* of the call, chosen by its sender; 0 where there is no answer */
    uint32_t origin; /* stamped by the master on what it relays: a worker cannot choose it */
    uint32_t flags;  /* IPC_MORE */
};
enum { IPC_MORE = 1 };

/* One end of a pair: a bounded queue of frames to send, and the parts of a frame that is coming in. */
struct ipc {
    int fd;
    struct pages *pages;
    struct ipc_out *out_first, *out_last;
    size_t out_bytes, out_max;  /* past out_max ipc_send fails: the peer is stuck */
    struct ipc_in *partial;     /* frames with MORE, by (type, id, origin) */
};

struct ipc_frame {
    struct ipc_header h;
    struct slice payload;       /* valid until the next ipc_recv or ipc_close */
    int fds[IPC_MAX_FDS];
    unsigned fd_count;          /* the receiver owns them */
};

/* The document of an IPC_ANSWER that refuses: {"error":{"code","message"}}. */
void ipc_write_error(struct json_writer *w, struct slice code, struct slice message);

#endif
