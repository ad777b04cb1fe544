/* tollctl's grammar: one table of words, operands and options. What they mean is the server's to decide. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "proto/base/check.h"
#include "tools/tollctl.h"

#define KEY_OPTIONS "name models limit expires rpm tpm concurrency"
static const struct command commands[] = {
    { "account create", "account.create", "", "email! tier group credit", OBJECT, 0, 0, "make an account" },
    { "account list", "account.list", "", "", LIST, "accounts", "id,email,tier,group,status,balance,held,created_at",
      "all accounts" },
    { "account show", "account.show", "account", "", OBJECT, 0, 0, "one account" },
    { "account set", "account.set", "account", "tier group", OBJECT, 0, 0, "another tier or group" },
    { "account suspend", "account.suspend", "account", "", OBJECT, 0, 0, "refuse its keys" },
    { "account resume", "account.resume", "account", "", OBJECT, 0, 0, "take its keys again" },
    { "key create", "key.create", "", "account! " KEY_OPTIONS, OBJECT, 0, 0, "make a key; it is printed this once" },
    { "key set", "key.set", "key", KEY_OPTIONS, OBJECT, 0, 0, "change it; `none` takes a limit away" },
    { "key list", "key.list", "", "account", LIST, "keys",
      "id,account,name,prefix,status,models,limit,spent,expires_at,last_used_at", "keys" },
    { "key show", "key.show", "key", "", OBJECT, 0, 0, "one key" },
    { "key revoke", "key.revoke", "key", "", OBJECT, 0, 0, "from the next request on it is refused" },
    { "key import", "key.import", "file", "account!", IMPORT, 0, 0, "keys of another gateway, one a line" },
    { "cap set", "cap.set", "who model amount", "", OBJECT, 0, 0, "what one call may cost; who: an account or a key" },
    { "cap list", "cap.list", "who?", "", LIST, "caps", "who,model,amount", "all caps" },
    { "cap remove", "cap.remove", "who model", "", OBJECT, 0, 0, "take a cap away" },
    { "credit", "credit", "account amount", "reason idempotency-key", OBJECT, 0, 0, "add to a balance" },
    { "debit", "debit", "account amount", "reason idempotency-key force?", OBJECT, 0, 0, "take from a balance" },
    { "balance", "balance", "account", "", OBJECT, 0, 0, "what is there, held, available" },
    { "usage", "usage", "", "account key model since until limit by cursor csv?", USAGE, 0, 0,
      "calls, or sums --by day|model|account" },
    { "model list", "model.list", "", "", LIST, "models",
      "id,kind,owned_by,provider,context_length,max_output_tokens,call_cap", "models" },
    { "upstream list", "upstream.list", "", "", LIST, "upstreams",
      "name,dialect,state,host,keys,keys_cooling,failures,latency_ms", "upstreams" },
    { "upstream drain", "upstream.drain", "upstream", "", OBJECT, 0, 0, "no new calls to it" },
    { "upstream enable", "upstream.enable", "upstream", "", OBJECT, 0, 0, "calls to it again" },
    { "status", "status", "", "", STATUS, 0, 0, "processes, ledger, upstreams" },
    { "top", "status", "", "", TOP, 0, 0, "status, again and again" },
    { "reload", "reload", "", "", OBJECT, 0, 0, "read the configuration again" },
    { "upgrade", "upgrade", "", "", OBJECT, 0, 0, "to the binary now at the same path" },
    { "stop", "stop", "", "", OBJECT, 0, 0, "finish what is in flight and end" },
    { "audit", "audit", "", "file", AUDIT, 0, 0, "add everything up again; exit 1 on any difference" },
    { "backup", "backup", "file", "", BACKUP, 0, 0, "a consistent copy while running" },
};

_Noreturn void usage_error(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "tollctl: ");
    vfprintf(stderr, fmt, args);
    va_end(args);
    fprintf(stderr, "\nusage: tollctl [-s SOCKET] [--json] COMMAND; `tollctl help` lists the commands\n");
    exit(2);
}

const char *words_nth(const char *list, unsigned n, size_t *len, char *mark) {
    while (*list) {
        size_t l = strcspn(list, " ");
        if (n-- == 0) {
            *mark = list[l - 1] == '!' || list[l - 1] == '?' ? list[l - 1] : 0;
            *len = l - (*mark != 0);
            return list;
        }
        list += l + (list[l] == ' ');
    }
    return NULL;
}

static const struct command *find_command(struct words *w) {
    char two[64];
    if (w->left > 1 && snprintf(two, sizeof two, "%s %s", w->at[0], w->at[1]) < (int)sizeof two)
        for (size_t i = 0; i < ARRAY_LEN(commands); i++)
            if (strcmp(commands[i].words, two) == 0) {
                w->at += 2, w->left -= 2;
                return &commands[i];
            }
    for (size_t i = 0; w->left > 0 && i < ARRAY_LEN(commands); i++)
        if (strcmp(commands[i].words, w->at[0]) == 0) {
            w->at++, w->left--;
            return &commands[i];
        }
    if (w->left == 0)
        usage_error("a command is missing");
    usage_error("there is no command \"%s%s%s\"", w->at[0], w->left > 1 ? " " : "", w->left > 1 ? w->at[1] : "");
}

static void take_option(struct arguments *a, struct words *w) {
    const char *word = w->at[0] + 2, *equals = strchr(word, '='), *name;
    size_t len = equals ? (size_t)(equals - word) : strlen(word), n;
    char mark = 0;
    for (unsigned i = 0; (name = words_nth(a->command->options, i, &n, &mark)); i++)
        if (n == len && memcmp(name, word, len) == 0)
            break;
    if (!name)
        usage_error("%s: there is no option \"%s\"", a->command->words, w->at[0]);
    w->at++, w->left--;
    const char *value = mark == '?' ? "true" : equals ? equals + 1 : w->left > 0 ? w->at[0] : NULL;
    if (!value)
        usage_error("%s: --%.*s needs a value", a->command->words, (int)n, name);
    if (mark != '?' && !equals)
        w->at++, w->left--;
    for (unsigned i = 0; i < a->options; i++)
        if (a->option[i].name == name)
            usage_error("%s: --%.*s stands twice", a->command->words, (int)n, name);
    CHECK(a->options < ARRAY_LEN(a->option));
    a->option[a->options].name = name;
    a->option[a->options++].value = value;
}

const char *words_option(const struct arguments *a, const char *name) {
    size_t len = strlen(name);
    for (unsigned i = 0; i < a->options; i++)
        if (strcspn(a->option[i].name, " !?") == len && strncmp(a->option[i].name, name, len) == 0)
            return a->option[i].value;
    return NULL;
}

void words_parse(struct arguments *a, struct words *w) {
    unsigned operands = 0;
    size_t len;
    char mark;
    const char *name;
    a->command = find_command(w);
    while (w->left > 0) {
        if (strcmp(w->at[0], "--json") == 0) {
            ctl.json = true;
            w->at++, w->left--;
        } else if (strncmp(w->at[0], "--", 2) == 0 && w->at[0][2]) {
            take_option(a, w);
        } else {
            if (!words_nth(a->command->operands, operands, &len, &mark))
                usage_error("%s: \"%s\" is one too many", a->command->words, w->at[0]);
            a->operand[operands++] = w->at[0];
            w->at++, w->left--;
        }
    }
    name = words_nth(a->command->operands, operands, &len, &mark);
    if (name && mark != '?')
        usage_error("%s: %.*s is missing", a->command->words, (int)len, name);
    for (unsigned i = 0; (name = words_nth(a->command->options, i, &len, &mark)); i++) {
        char bare[32];
        snprintf(bare, sizeof bare, "%.*s", (int)len, name);
        if (mark == '!' && !words_option(a, bare))
            usage_error("%s: --%s is missing", a->command->words, bare);
    }
}

void words_help(void) {
    printf("usage: tollctl [-s SOCKET] [--json] COMMAND\n\n"
           "SOCKET is the server's `control` (default: $TOLLGATE_CONTROL, else ./run/control.sock).\n"
           "An account is its id or email, a key its id or its whole text; a time is 2026-01-31, 2026-01-31T12:00:00Z "
           "or an age as 30d.\n\n");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        const struct command *c = &commands[i];
        char text[256];
        size_t at = (size_t)snprintf(text, sizeof text, "%s", c->words), len;
        char mark;
        const char *name;
        for (unsigned n = 0; (name = words_nth(c->operands, n, &len, &mark)); n++)
            at += (size_t)snprintf(text + at, sizeof text - at, mark ? " [%.*s]" : " %.*s", (int)len, name);
        for (unsigned n = 0; (name = words_nth(c->options, n, &len, &mark)); n++)
            at += (size_t)snprintf(text + at, sizeof text - at,
                                   mark == '!' ? " --%.*s V"
                                   : mark      ? " [--%.*s]"
                                               : " [--%.*s V]",
                                   (int)len, name);
        printf("  %s\n        %s\n", text, c->help);
    }
}
