/* tollgate: the command line.
 *
 * Exit status: 0 done; 1 the configuration is wrong or the server could not start or end as it should; 2 usage. */
#include <getopt.h>
#include <stdlib.h>
#include <unistd.h>

#include "master/master.h"
#include "proto/base/version.h"
#include "worker/entry.h"

#ifndef TG_DEFAULT_CONF
#define TG_DEFAULT_CONF "/etc/tollgate/gateway.conf"
#endif

static struct master the_master; /* zeroed; too large for a stack */

static const char usage[] =
    "usage: tollgate [-c FILE] [-t | -T | -V]\n"
    "  -c FILE   the configuration (default " TG_DEFAULT_CONF ")\n"
    "  -t        test it: every error, or the size of the shared memory it will take\n"
    "  -T        print it normalised\n"
    "  -V        versions\n"
    "Signals: HUP reload, USR1 reopen logs, USR2 upgrade, TERM drain and stop, QUIT stop now.\n";

static int versions(void) {
    char libraries[256] = "";
    worker_versions(libraries, sizeof libraries);
#if defined(__clang__)
    printf("tollgate " TOLLGATE_VERSION "\ncompiler: %s\n", __VERSION__);
#else
    printf("tollgate " TOLLGATE_VERSION "\ncompiler: gcc %s\n", __VERSION__);
#endif
    printf("%s\n%s\n", libraries, ledger_version());
    return 0;
}

static int test(const char *path, const struct conf *conf) {
    const struct conf_server *s = conf_server(conf);
    size_t bytes = shm_bytes(&s->sizes);
    printf("%s: configuration ok; shared memory: %zu bytes (%zu MiB) in %s\n", path, bytes,
           (bytes + (1 << 20) - 1) >> 20, s->shm_file);
    return 0;
}

/* Would this binary serve what the running one left? */
static int probe(const struct conf *conf) {
    const struct conf_server *s = conf_server(conf);
    struct shm_sizes z;
    char err[512] = "";
    const char *why = the_master.upgrade.inherited ? master_cannot_follow(&the_master, conf) : NULL;
    if (why) {
        fprintf(stderr, "tollgate: %s\n", why);
        return 1;
    }
    if (!shm_peek(s->shm_file, &z)) {
        fprintf(stderr, "tollgate: %s has another layout: this needs a restart\n", s->shm_file);
        return 1;
    }
    if (ledger_probe(s->state_dir, err, sizeof err) != 0) {
        fprintf(stderr, "tollgate: %s\n", err);
        return 1;
    }
    printf("tollgate " TOLLGATE_VERSION ": layout %d, snapshot %d\n", SHM_LAYOUT, SNAP_LAYOUT);
    return 0;
}

/* The configuration. In an upgrade: one that can follow the running server's, else this goes back to the old binary. */
static struct conf *load(struct master *m, const char *path) {
    do {
        struct conf *conf = conf_load(path, stderr);
        const char *why = conf && m->upgrade.inherited ? master_cannot_follow(m, conf) : NULL;
        if (conf && !why) return conf;
        if (why) fprintf(stderr, "tollgate: %s\n", why);
        if (conf) conf_free(conf);
        upgrade_back(m);
    } while (upgrade_waits(m));
    return NULL;
}

int main(int argc, char **argv) {
    /* probe: the running server asks the next one; routes: the tests hold the documentation against it */
    static const struct option longs[] = { { "probe", no_argument, NULL, 'p' }, { "routes", no_argument, NULL, 'r' },
                                          { "help", no_argument, NULL, 'h' }, { 0 } };
    const char *path = TG_DEFAULT_CONF;
    int mode = 0;
    for (int c; (c = getopt_long(argc, argv, "c:tTVh", longs, NULL)) != -1;) {
        if (c == 'c') path = optarg;
        else if (c == '?') mode = 'u';
        else if (mode != 'u') mode = c;
    }
    if (mode == 'u' || optind < argc) {
        fputs(usage, stderr);
        return 2;
    }
    if (mode == 'h') return fputs(usage, stdout) < 0;
    if (mode == 'V') return versions();
    if (mode == 'r') {
        worker_routes(stdout);
        return 0;
    }
    the_master.conf_path = path;
    the_master.argc = argc;
    the_master.argv = argv;
    if (!mode || mode == 'p') {
        master_init(&the_master);
        upgrade_inherit(&the_master, mode == 'p');
    }
    struct conf *conf = mode ? conf_load(path, stderr) : load(&the_master, path);
    if (!conf) return 1;
    int rc = 0;
    if (mode == 't') rc = test(path, conf);
    else if (mode == 'p') rc = probe(conf);
    else if (mode == 'T') conf_print(conf, stdout);
    if (mode) {
        conf_free(conf);
        return rc;
    }
    return master_run(&the_master, conf);
}
