/* getaddrinfo with a hosts file of the test's own (TG_HOSTS, lines "NAME ADDRESS"), preloaded by
 * tests/e2e/providers.test.mjs: names that resolve to nothing, to the wrong place, and change. Other names are looked up
 * as ever. */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char path[256]; /* children lose the environment */

__attribute__((constructor)) static void begin(void) {
    const char *p = getenv("TG_HOSTS");
    snprintf(path, sizeof path, "%s", p ? p : "");
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **list) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    char line[300], host[200], address[64];
    FILE *f = fopen(path, "r");
    if (real == NULL)
        real = (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT,
                                                                                                    "getaddrinfo");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "%199s %63s", host, address) == 2 && name != NULL && strcmp(name, host) == 0) {
            fclose(f);
            return strcmp(address, "nothing") == 0 ? EAI_NONAME : real(address, service, hints, list);
        }
    if (f != NULL)
        fclose(f);
    return real(name, service, hints, list);
}
