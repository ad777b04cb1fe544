/* gateway.conf from memory: any bytes either give errors or a configuration that prints to a text which parses to the same thing and prints
 * the same again, and a snapshot that is whole. Nothing outside the text is touched. */
#include <stdlib.h>
#include "master/conf_tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t id_of(void *arg, enum name_kind kind, const char *name) { (void)arg; return (uint32_t)(strlen(name) + kind) % 200 + 1; }
static uint32_t series_of(void *arg, uint32_t model_id, uint32_t upstream_id) { (void)arg; return (model_id + upstream_id) % SHM_MAX_SERIES; }

static struct conf *parse(const char *text, size_t n, bool must) {
    char *errors;
    size_t len;
    FILE *err = open_memstream(&errors, &len);
    CHECK(err);
    struct conf *c = conf_load_text("fuzz", slice_of(text, n), err);
    fclose(err);
    CHECK(c || len > 0);
    if (must && !c) fprintf(stderr, "%.*s\n%s", (int)n, text, errors);
    CHECK(c || !must);
    free(errors);
    return c;
}
static char *printed(const struct conf *c, size_t *n) {
    char *text;
    FILE *f = open_memstream(&text, n);
    CHECK(f);
    conf_print(c, f);
    fclose(f);
    return text;
}
static struct snap *snapshot(const struct conf *c, size_t *n) {
    static const struct conf_ids ids = { NULL, id_of, series_of };
    struct snap *s = conf_snapshot(c, &ids, 1, false, n);
    CHECK(s && snap_valid(s, *n));
    s->loaded_at_ms = 0;
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct conf *c = parse((const char *)data, size, false);
    if (!c) return 0;
    size_t n, n2, bytes, bytes2;
    char *text = printed(c, &n);
    struct conf *again = parse(text, n, true);
    char *text2 = printed(again, &n2);
    if (n != n2 || memcmp(text, text2, n) != 0) fprintf(stderr, "first\n%s\nthen\n%s\n", text, text2);
    CHECK(n == n2 && memcmp(text, text2, n) == 0);
    struct snap *s = snapshot(c, &bytes), *s2 = snapshot(again, &bytes2);
    if (!strstr(text, "********")) CHECK(bytes == bytes2 && memcmp(s, s2, bytes) == 0);
    SNAP_EACH(s, s->models, struct snap_model, m)
        if (!(m->flags & MODEL_FAMILY)) CHECK(snap_find_model(s, snap_text(s, m->name)) == m);
    free(text);
    free(text2);
    free(s);
    free(s2);
    conf_free(c);
    conf_free(again);
    return 0;
}
