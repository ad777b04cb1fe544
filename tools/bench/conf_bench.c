/* A reload's parse: 500 models with two routes, prices and aliases each, 20 upstreams, from a file; then its snapshot.
 * usage: conf_bench [MODELS] */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "master/conf_tree.h"

static uint32_t id_of(void *arg, enum name_kind kind, const char *name) {
    (void)arg;
    return (uint32_t)(strlen(name) + kind) % 200 + 1;
}
static uint32_t series_of(void *arg, uint32_t model_id, uint32_t upstream_id) {
    (void)arg;
    return (model_id + upstream_id) % SHM_MAX_SERIES;
}
static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void write_conf(FILE *f, unsigned models) {
    for (unsigned i = 0; i < 20; i++)
        fprintf(f, "upstream u%u { dialect openai; base_url http://10.0.0.%u:8000/v1; api_key k%u; }\n", i, i, i);
    for (unsigned i = 0; i < models; i++)
        fprintf(f,
                "model vendor/model-%u {\n    owned_by vendor; provider \"A vendor\"; kind chat;\n"
                "    route u%u as m%u weight 10; route u%u priority 1;\n"
                "    price input 2.75 output 11.00 cached_input 1.375;\n"
                "    max_output 16384; context 128000; capabilities tools vision; created 1715367049;\n"
                "    alias a%u b%u;\n}\n",
                i, i % 20, i, (i + 7) % 20, i, i);
}

int main(int argc, char **argv) {
    enum { ROUNDS = 20 };
    unsigned models = argc > 1 ? (unsigned)atoi(argv[1]) : 500;
    static const struct conf_ids ids = { NULL, id_of, series_of };
    char path[] = "/tmp/tollgate-bench-XXXXXX";
    int fd = mkstemp(path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    if (!f) return 1;
    write_conf(f, models);
    long size = ftell(f);
    fclose(f);
    uint64_t load = UINT64_MAX, snapshot = UINT64_MAX;
    size_t bytes = 0;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t start = now_us();
        struct conf *c = conf_load(path, stderr);
        uint64_t loaded = now_us();
        void *s = c ? conf_snapshot(c, &ids, 1, false, &bytes) : NULL;
        uint64_t built = now_us();
        if (!s) return 1;
        if (loaded - start < load) load = loaded - start;
        if (built - loaded < snapshot) snapshot = built - loaded;
        free(s);
        conf_free(c);
    }
    unlink(path);
    printf("%u models, %ld bytes: parse and check %llu us, snapshot %llu us (%zu bytes); the best of %d\n", models,
           size, (unsigned long long)load, (unsigned long long)snapshot, bytes, ROUNDS);
    return 0;
}
