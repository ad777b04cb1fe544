/* Passwords: yescrypt by the system's crypt(3), in helper processes, for one hash takes as long as hundreds of charges.
 *
 * The password itself goes no further than this process: what is hashed is its HMAC under the pepper, in base64. So
 * its length and bytes do not matter to crypt, and a stolen copy of the hashes alone is of no use. A helper is forked
 * at the first need, holds one socket and nothing else, works for one caller at a time, and goes when the ledger
 * closes its end or dies. A few work, a few more wait, the rest is told to come again. A helper that died fails its
 * job and is replaced by the next one. */
#include <crypt.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "master/ledger/http.h"

enum { HELPERS = 4, WAITING = 64, NICE = 5 };
_Static_assert(PASSWORD_HASH >= CRYPT_OUTPUT_SIZE && PASSWORD_HASH >= CRYPT_GENSALT_OUTPUT_SIZE, "a hash fits");

struct question { char setting[PASSWORD_HASH]; char phrase[PASSWORD_PHRASE]; };

struct waiting {
    struct waiting *next;
    struct password_job job;
    struct question question;
    uint32_t id, origin; /* of the call */
};
struct helper { pid_t pid; int fd; struct waiting *work; /* NULL: idle */ };
struct passwords {
    struct helper helper[HELPERS];
    struct waiting *first, **last;
    uint32_t count;
    char dummy[PASSWORD_HASH];
};

/* ---- the helper -------------------------------------------------------------------------------------------------- */

static _Noreturn void help(int fd, pid_t parent) {
    static struct crypt_data data;
    struct question q;
    char hash[PASSWORD_HASH];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "tg-password");
    if (getppid() != parent)
        _exit(1);
    if (fd != 3)
        dup2(fd, 3);
    if (close_range(4, ~0u, 0) < 0)
        for (int i = 4; i < 4096; i++)
            close(i);
    (void)setpriority(PRIO_PROCESS, 0, NICE);
    for (;;) {
        ssize_t n = recv(3, &q, sizeof q, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n != (ssize_t)sizeof q)
            _exit(0);
        const char *got = crypt_r(q.phrase, q.setting, &data);
        memset(hash, 0, sizeof hash);
        if (got && got[0] != '*')
            memcpy(hash, got, strnlen(got, sizeof hash - 1));
        n = send(3, hash, sizeof hash, MSG_NOSIGNAL);
        wipe(&q, sizeof q);
        wipe(&data, sizeof data);
        if (n != (ssize_t)sizeof hash)
            _exit(1);
    }
}

static bool spawn(struct ledger *l, struct helper *h) {
    int fds[2];
    pid_t parent = getpid();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return false;
    (void)fcntl(fds[0], F_SETFL, O_NONBLOCK);
    struct epoll_event e = { .events = EPOLLIN, .data.fd = fds[0] };
    pid_t pid = epoll_ctl(l->epfd, EPOLL_CTL_ADD, fds[0], &e) == 0 ? fork() : -1;
    if (pid == 0)
        help(fds[1], parent);
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        return false;
    }
    h->pid = pid;
    h->fd = fds[0];
    return true;
}

static void bury(struct helper *h) {
    close(h->fd);
    kill(h->pid, SIGKILL);
    while (waitpid(h->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    *h = (struct helper){ 0 };
}

/* ---- jobs -------------------------------------------------------------------------------------------------------- */

static struct passwords *state(struct ledger *l) {
    if (!l->passwords && (l->passwords = calloc(1, sizeof *l->passwords)))
        l->passwords->last = &l->passwords->first;
    return l->passwords;
}

static void forget(struct waiting *w) {
    wipe(w, sizeof *w);
    free(w);
}

struct outcome { const struct waiting *w; const char *got; bool failed; };
static void conclude(struct call *c, void *arg) {
    struct outcome *o = arg;
    c->http = true;
    o->w->job.done(c, &o->w->job, o->got, o->failed);
}

/* hash: what crypt made of the password; "": it failed. */
static void finish(struct ledger *l, struct waiting *w, const char *hash) {
    struct outcome o = { .w = w, .failed = hash[0] == '\0' };
    struct slice stored = slice_str(w->job.hash), made = slice_str(hash);
    if (!o.failed && (stored.len == 0 || slice_eq_secret(stored, made)))
        o.got = hash;
    call_perform(l, w->id, w->origin, conclude, &o);
    forget(w);
}

static bool give(struct ledger *l, struct helper *h, struct waiting *w) {
    if (h->pid == 0 && !spawn(l, h))
        return false;
    if (send(h->fd, &w->question, sizeof w->question, MSG_NOSIGNAL) != (ssize_t)sizeof w->question) {
        bury(h);
        return false;
    }
    wipe(&w->question, sizeof w->question);
    h->work = w;
    return true;
}

/* Hands out what waits to helpers that are idle. A job that no helper can be had for fails. */
static void hand_out(struct ledger *l) {
    struct passwords *p = l->passwords;
    for (unsigned i = 0; i < HELPERS && p->first; i++) {
        if (p->helper[i].work)
            continue;
        struct waiting *w = p->first;
        p->first = w->next;
        if (!p->first)
            p->last = &p->first;
        p->count--;
        if (!give(l, &p->helper[i], w))
            finish(l, w, "");
    }
}

static bool new_setting(char out[PASSWORD_HASH]) {
    char random[32];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return false;
    bool ok = crypt_gensalt_rn("$y$", 0, random, sizeof random, out, PASSWORD_HASH) != NULL;
    wipe(random, sizeof random);
    return ok;
}

/* Domain-separated from API keys' hashes, which are made with the same pepper. */
static bool phrase_of(struct ledger *l, struct slice password, char out[PASSWORD_PHRASE]) {
    static const char domain[] = "password:";
    char text[sizeof domain - 1 + PASSWORD_MAX];
    uint8_t mac[32];
    struct buf b;
    memcpy(text, domain, sizeof domain - 1);
    memcpy(text + sizeof domain - 1, password.ptr, password.len);
    hmac_sign(&l->pepper, text, sizeof domain - 1 + password.len, mac);
    buf_init(&b, &l->pages, PASSWORD_PHRASE - 1);
    bool ok = base64_encode(&b, mac, sizeof mac, true);
    memset(out, 0, PASSWORD_PHRASE);
    if (ok)
        memcpy(out, buf_ptr(&b), b.len);
    if (b.len > 0)
        wipe(buf_ptr(&b), b.len);
    buf_release(&b);
    wipe(text, sizeof text);
    wipe(mac, sizeof mac);
    return ok;
}

bool password_fits(struct slice password) {
    size_t characters = 0;
    for (size_t i = 0; i < password.len; i++)
        characters += ((unsigned char)password.ptr[i] & 0xc0) != 0x80; /* UTF-8's continuation bytes do not count */
    return characters >= PASSWORD_MIN && password.len <= PASSWORD_MAX;
}

const char *password_dummy(struct ledger *l) {
    struct passwords *p = state(l);
    if (p && !p->dummy[0] && !new_setting(p->dummy))
        return NULL;
    return p ? p->dummy : NULL;
}

bool password_start(struct call *c, const struct password_job *job, struct slice password) {
    struct passwords *p = state(c->l);
    struct waiting *w = p && p->count < WAITING ? calloc(1, sizeof *w) : NULL;
    if (!w)
        return false;
    w->job = *job;
    w->id = c->id;
    w->origin = c->origin;
    if (job->hash[0])
        memcpy(w->question.setting, job->hash, sizeof job->hash);
    if ((!job->hash[0] && !new_setting(w->question.setting)) || password.len > PASSWORD_MAX ||
        !phrase_of(c->l, password, w->question.phrase)) {
        forget(w);
        return false;
    }
    *p->last = w;
    p->last = &w->next;
    p->count++;
    c->later = true;
    hand_out(c->l);
    return true;
}

bool password_input(struct ledger *l, int fd) {
    char hash[PASSWORD_HASH];
    for (unsigned i = 0; l->passwords && i < HELPERS; i++) {
        struct helper *h = &l->passwords->helper[i];
        if (h->pid == 0 || h->fd != fd)
            continue;
        ssize_t n = recv(fd, hash, sizeof hash, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        struct waiting *w = h->work;
        h->work = NULL;
        bool whole = n == (ssize_t)sizeof hash && hash[sizeof hash - 1] == '\0';
        if (!whole)
            bury(h);
        if (w)
            finish(l, w, whole ? hash : "");
        wipe(hash, sizeof hash);
        hand_out(l);
        return true;
    }
    return false;
}

void passwords_end(struct ledger *l) {
    struct passwords *p = l->passwords;
    if (!p)
        return;
    l->passwords = NULL;
    for (unsigned i = 0; i < HELPERS; i++) {
        if (p->helper[i].work)
            forget(p->helper[i].work);
        if (p->helper[i].pid)
            bury(&p->helper[i]);
    }
    for (struct waiting *w = p->first, *next; w; w = next) {
        next = w->next;
        forget(w);
    }
    free(p);
}
