/* gateway.conf: golden files (tests/conf), round trips, every directive, the example, includes, secrets, what needs a restart, and every
 * allocation failing in turn. CONF_GOLDEN=write makes the expected files anew: read the difference before it is committed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>
#include "master/conf_tree.h"

/* ---- helpers ---- */

static uint32_t id_of(void *arg, enum name_kind kind, const char *name) {
    (void)arg;
    uint32_t h = kind;
    for (; *name; name++) h = h * 31 + (uint8_t)*name;
    return h % 200 + 1;
}
static uint32_t series_of(void *arg, uint32_t model_id, uint32_t upstream_id) { (void)arg; return (model_id * 7 + upstream_id) % SHM_MAX_SERIES; }
static const struct conf_ids ids = { NULL, id_of, series_of };

/* errors: malloc'd, also when there are none. */
static struct conf *load(const char *path, char **errors) {
    size_t len;
    FILE *f = open_memstream(errors, &len);
    assert_non_null(f);
    struct conf *c = conf_load(path, f);
    fclose(f);
    return c;
}
static struct conf *load_text(const char *text, char **errors) {
    size_t len;
    FILE *f = open_memstream(errors, &len);
    assert_non_null(f);
    struct conf *c = conf_load_text("text", slice_str(text), f);
    fclose(f);
    return c;
}
static struct conf *must_load(const char *path) {
    char *errors;
    struct conf *c = load(path, &errors);
    if (!c) fail_msg("%s: %s", path, errors);
    free(errors);
    return c;
}
static char *printed(const struct conf *c) {
    char *text;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    assert_non_null(f);
    conf_print(c, f);
    fclose(f);
    return text;
}
static char *read_text(const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) return NULL;
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, f) < (1 << 20) - 1);
    fclose(f);
    return text;
}
static void write_text(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}
/* The folder of the tree → @, so that expected files hold everywhere. Takes text, returns malloc'd. */
static char *without_root(char *text) {
    char root[4096];
    assert_non_null(getcwd(root, sizeof root));
    size_t n = strlen(root);
    char *out = malloc(strlen(text) + 1), *to = out;
    assert_non_null(out);
    for (const char *at = text; *at;) {
        if (strncmp(at, root, n) == 0 && at[n] == '/') { *to++ = '@'; at += n; }
        else *to++ = *at++;
    }
    *to = 0;
    free(text);
    return out;
}

static char scratch[64];
static const char *in_scratch(const char *name, char buf[128]) { snprintf(buf, 128, "%s/%s", scratch, name); return buf; }

static int set_up(void **state) {
    (void)state;
    setenv("CONF_TEST_TOKEN", "token-hunter3", 1);
    setenv("CONF_TEST_KEY", "sk-hunter3", 1);
    setenv("CONF_TEST_EMPTY", "", 1);
    unsetenv("CONF_TEST_UNSET");
    static const char *const keys[] = { "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "DEEPSEEK_API_KEY", "FIREWORKS_API_KEY" };
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) setenv(keys[i], "sk-test", 1);
    strcpy(scratch, "/tmp/tollgate-conf-XXXXXX");
    if (access("tests/conf/good", R_OK) != 0) { fprintf(stderr, "run this from the root of the tree\n"); return -1; }
    return mkdtemp(scratch) ? 0 : -1;
}
static int tear_down(void **state) {
    (void)state;
    DIR *d = opendir(scratch);
    if (!d) return -1;
    for (struct dirent *e; (e = readdir(d));) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", scratch, e->d_name);
        if (e->d_name[0] != '.') unlink(path);
    }
    closedir(d);
    return rmdir(scratch);
}

/* Every .conf of a folder, in order. */
static void each_conf(const char *folder, void (*fn)(const char *path, const char *expected)) {
    struct dirent **names;
    int n = scandir(folder, &names, NULL, alphasort), seen = 0;
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        size_t len = strlen(names[i]->d_name);
        char path[600], expected[600];
        if (len > 5 && strcmp(names[i]->d_name + len - 5, ".conf") == 0) {
            snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
            snprintf(expected, sizeof expected, "%.*s.expected", (int)strlen(path) - 5, path);
            fn(path, expected);
            seen++;
        }
        free(names[i]);
    }
    free(names);
    assert_true(seen > 0);
}

static void compare(const char *path, const char *expected_path, const char *actual) {
    const char *mode = getenv("CONF_GOLDEN");
    if (mode && strcmp(mode, "write") == 0) write_text(expected_path, actual);
    char *expected = read_text(expected_path);
    if (!expected) fail_msg("%s is missing", expected_path);
    if (strcmp(expected, actual) != 0) fail_msg("%s: expected\n%s\ngot\n%s", path, expected, actual);
    free(expected);
}

/* ---- golden files ---- */

static bool seen[CONF_KINDS][CONF_MAX_DIRECTIVES]; /* directives that a good file set */

static void note_block(const struct conf_block *b) {
    for (uint32_t i = 0; i < conf_blocks[b->kind].count; i++) seen[b->kind][i] |= b->set[i].file != NULL;
}
static void note_directives(const struct conf *c) {
    note_block(&c->main.block);
    note_block(&c->brand.block);
    note_block(&c->billing.block);
    const struct conf_list *lists[] = { &c->tiers, &c->groups, &c->upstreams, &c->models };
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) CONF_EACH(*lists[i], const struct conf_block, b) note_block(b);
}
static void all_seen(const char *where) {
    for (enum conf_kind k = 0; k < CONF_KINDS; k++)
        for (uint32_t i = 0; i < conf_blocks[k].count; i++)
            if (!seen[k][i]) fail_msg("%s never sets `%s` of block `%s`", where, conf_blocks[k].directives[i].name, conf_blocks[k].name);
}

/* The same settings make the same blob, but for the time it was made at. */
static void same_snapshot(const struct conf *a, const struct conf *b) {
    for (int ledger = 0; ledger < 2; ledger++) {
        size_t na, nb;
        struct snap *sa = conf_snapshot(a, &ids, 7, ledger, &na), *sb = conf_snapshot(b, &ids, 7, ledger, &nb);
        assert_non_null(sa);
        assert_non_null(sb);
        assert_true(snap_valid(sa, na));
        sa->loaded_at_ms = sb->loaded_at_ms;
        assert_int_equal(na, nb);
        assert_memory_equal(sa, sb, na);
        free(sa);
        free(sb);
    }
}

static void good(const char *path, const char *expected) {
    char again_path[128];
    struct conf *c = must_load(path);
    note_directives(c);
    char *text = printed(c);
    write_text(in_scratch("again.conf", again_path), text);
    struct conf *again = must_load(again_path);
    char *second = printed(again);
    assert_string_equal(text, second);
    if (!strstr(text, "********")) same_snapshot(c, again);
    assert_null(strstr(text, "hunter"));
    text = without_root(text);
    compare(path, expected, text);
    free(text);
    free(second);
    conf_free(c);
    conf_free(again);
}

static void bad(const char *path, const char *expected) {
    char *errors;
    struct conf *c = load(path, &errors);
    if (c) fail_msg("%s was taken", path);
    if (strstr(errors, "hunter")) fail_msg("%s: a secret is in the errors", path);
    errors = without_root(errors);
    compare(path, expected, errors);
    free(errors);
}

static void test_good_files(void **state) {
    (void)state;
    memset(seen, 0, sizeof seen);
    each_conf("tests/conf/good", good);
    all_seen("tests/conf/good");
}
static void test_bad_files(void **state) {
    (void)state;
    each_conf("tests/conf/bad", bad);
}

/* Each error that is alone in its file: nothing else is reported beside it. Text, place, words of the message. */
static void test_each_error(void **state) {
    (void)state;
    static const struct { const char *text, *place, *words; } cases[] = {
        { "nonsuch;", "text:1:1: ", "unknown directive `nonsuch`" },
        { "\n  max_bdy 1m;", "text:2:3: ", "did you mean `max_body`?" },
        { "brand { unit usd; }", "text:1:9: ", "belongs in block `billing`" },
        { "workers 1;\n\tworkers 2;", "text:2:2: ", "already set on line 1" },
        { "upstream e { dialect echo; } model m { price free; route f; }", "text:1:58: ", "unknown upstream `f`" },
        { "upstream e { dialect echo; } model m { price free; }", "text:1:36: ", "has no `route`" },
        { "upstream e { dialect echo; } model m { route e; }", "text:1:36: ", "has no price" },
        { "upstream e { dialect echo; } model m { route e weight 0; price free; }", "text:1:55: ", "a weight is 1 to" },
        { "upstream e { dialect echo; } model m { route e; price input 1.0000001 output 1; context 9; max_output 9; }", "text:1:61: ", "at most 6 digits" },
        { "upstream e { dialect echo; } model m { route e; price input 1 output 1; max_output 9; }", "text:1:36: ", "needs `context`" },
        { "upstream e { dialect echo; } model m { route e; price input 1 output 1; context 9; }", "text:1:36: ", "needs `max_output`" },
        { "upstream e { dialect echo; } model m { route e; price free; } model n { route e; price free; alias m; }", "text:1:100: ", "alias `m` clashes" },
        { "billing { signup_tier gold; }", "text:1:11: ", "unknown tier `gold`" },
        { "tier t { rpm 5 burst 6; }", "text:1:22: ", "more than the limit" },
        { "listen 80 tls;", "text:1:8: ", "needs `certificate`" },
        { "workers 1", "text:1:10: ", "`;` is missing behind `workers`" },
        { "tier t {", "text:1:1: ", "is not closed" },
        { "upstream u { dialect openai; base_url http://u:p@h; }", "text:1:39: ", "no user name or password" },
        { "include x;", "text:1:9: ", "include is not possible" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *errors;
        struct conf *c = load_text(cases[i].text, &errors);
        if (c) fail_msg("taken: %s", cases[i].text);
        const char *words = cases[i].words;
        if (strncmp(errors, cases[i].place, strlen(cases[i].place)) != 0 || !strstr(errors, words) || strchr(errors, '\n')[1])
            fail_msg("%s\nexpected %s...%s\ngot %s", cases[i].text, cases[i].place, words, errors);
        free(errors);
    }
}

/* ---- the example ---- */

static const struct conf_model *model_named(const struct conf *c, const char *name) {
    CONF_EACH(c->models, const struct conf_model, m) if (strcmp(m->block.name, name) == 0) return m;
    fail_msg("no model %s", name);
    return NULL;
}

static void test_example(void **state) {
    (void)state;
    static const struct { const char *name, *provider; uint64_t input, output; } models[] = { /* micro-dollars per million tokens */
        { "gpt-4o", "OpenAI", 2750000, 11000000 }, { "gpt-4o-mini", "OpenAI", 165000, 660000 }, { "gpt-4.1", "OpenAI", 2200000, 8800000 },
        { "gpt-4.1-mini", "OpenAI", 440000, 1760000 }, { "gpt-4.1-nano", "OpenAI", 110000, 440000 }, { "o3", "OpenAI", 11000000, 44000000 },
        { "o4-mini", "OpenAI", 1210000, 4840000 }, { "claude-sonnet-4-20250514", "Anthropic", 3300000, 16500000 },
        { "claude-3-5-haiku-20241022", "Anthropic", 880000, 4400000 }, { "claude-opus-4-20250514", "Anthropic", 16500000, 82500000 },
        { "gemini-2.5-pro", "Google", 1380000, 11000000 }, { "gemini-2.5-flash", "Google", 83000, 330000 },
        { "deepseek-chat", "DeepSeek", 150000, 330000 }, { "deepseek-reasoner", "DeepSeek", 600000, 2420000 },
        { "llama-3.1-405b", "Meta / Fireworks", 3300000, 3300000 },
    };
    static const struct { const char *name; uint64_t rpm, tpm, concurrency; } tiers[] = {
        { "free", 20, 40000, 5 }, { "standard", 120, 200000, 20 }, { "pro", 600, 1000000, 50 } };
    struct conf *c = must_load("gateway.conf.example");
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        const struct conf_model *m = model_named(c, models[i].name);
        assert_string_equal(m->provider, models[i].provider);
        assert_int_equal(m->price.per_million[METER_INPUT], models[i].input);
        assert_int_equal(m->price.per_million[METER_OUTPUT], models[i].output);
    }
    for (size_t i = 0; i < ARRAY_LEN(tiers); i++) {
        const struct conf_tier *found = NULL;
        CONF_EACH(c->tiers, const struct conf_tier, t) if (strcmp(t->block.name, tiers[i].name) == 0) found = t;
        assert_non_null(found);
        assert_int_equal(found->rpm.limit, tiers[i].rpm);
        assert_int_equal(found->tpm.limit, tiers[i].tpm);
        assert_int_equal(found->concurrency, tiers[i].concurrency);
    }
    conf_free(c);
}

/* With what is commented out ("#name") switched on it is still right, and then holds every directive there is. */
static void test_example_is_complete(void **state) {
    (void)state;
    char *text = read_text("gateway.conf.example"), *errors;
    assert_non_null(text);
    for (char *line = text; line;) {
        char *at = line + strspn(line, " ");
        if (at[0] == '#' && at[1] != ' ' && at[1] != '\n' && strncmp(at, "#include", 8) != 0) at[0] = ' ';
        line = strchr(line, '\n');
        if (line) line++;
    }
    struct conf *c = load_text(text, &errors);
    if (!c) fail_msg("gateway.conf.example: %s", errors);
    memset(seen, 0, sizeof seen);
    note_directives(c);
    all_seen("gateway.conf.example");
    free(errors);
    free(text);
    conf_free(c);
}

/* Where the example says that a directive's absence means what it shows, it shows the default. */
static void test_defaults(void **state) {
    (void)state;
    char *errors;
    struct conf *c = load_text("upstream u { dialect openai; base_url http://h; } tier t { }", &errors);
    assert_non_null(c);
    free(errors);
    const struct conf_upstream *u = c->upstreams.items[0];
    assert_int_equal(u->connect_timeout_ms, 5000);
    assert_int_equal(u->first_byte_timeout_ms, 120000);
    assert_int_equal(u->idle_timeout_ms, 120000);
    assert_int_equal(u->max_connections, 512);
    assert_int_equal(u->keepalive, 64);
    assert_int_equal(u->retries, 2);
    assert_int_equal(u->cooldown_ms, 30000);
    assert_int_equal(u->probe_ms, 10000);
    assert_int_equal(u->tls_max, 1);
    assert_int_equal(c->main.max_body, 32 << 20);
    assert_int_equal(c->main.drain_timeout_ms, 600000);
    assert_int_equal(c->main.stream_ping_ms, 15000);
    assert_int_equal(c->main.max_connections, 10000);
    assert_int_equal(c->billing.hold_share, 500000);
    assert_int_equal(c->billing.signup, 0);
    assert_int_equal(c->billing.models_public, 0);
    assert_int_equal(c->brand.usage_cost, 1);
    assert_string_equal(c->brand.key_prefix, "sk-");
    const struct conf_server *s = conf_server(c);
    assert_int_equal(s->sizes.max_accounts, 100000);
    assert_int_equal(s->sizes.max_keys, 200000);
    assert_int_equal(s->sizes.max_active, 4096);
    assert_true(s->sizes.max_ranges >= 2 * s->workers + 2);
    assert_string_equal(s->state_dir, "/state");
    assert_string_equal(s->control, "/run/control.sock");
    assert_memory_equal(s->shm_file, "/dev/shm/tollgate-", 18);
    assert_null(s->access_log);
    assert_null(s->error_log);
    assert_null(s->user);
    const struct conf_tier *t = c->tiers.items[0];
    assert_true(t->rpm.limit == SNAP_NO_LIMIT && t->concurrency == SNAP_NO_LIMIT);
    assert_int_equal(c->tiers.count, 2);
    conf_free(c);
}

/* The reference page's list is the table's. */
static void test_reference(void **state) {
    (void)state;
    static const char begins[] = "<!-- the table begins -->\n", ends[] = "<!-- the table ends -->";
    char *page = read_text("docs/configuration.md"), *text;
    size_t len;
    assert_non_null(page);
    const char *from = strstr(page, begins), *to = strstr(page, ends);
    assert_true(from && to);
    FILE *f = open_memstream(&text, &len);
    fwrite(page, 1, (size_t)(from - page) + strlen(begins), f);
    for (enum conf_kind k = 0; k < CONF_KINDS; k++) {
        const struct conf_block_info *b = &conf_blocks[k];
        if (k == CONF_MAIN) fputs("\n## Outside all blocks\n", f);
        else fprintf(f, "\n## %s%s { }\n", b->name, b->named ? " NAME" : "");
        fputs("\n| directive | takes | default | may repeat |\n|---|---|---|---|\n", f);
        for (uint32_t i = 0; i < b->count; i++) {
            const struct conf_directive *d = &b->directives[i];
            fprintf(f, "| `%s` | ", d->name);
            if (d->shape == SHAPE_ENUM) for (const char *w = d->words; *w; w++) *w == ' ' ? fputs(", ", f) : fputc(*w, f);
            else for (const char *a = d->args; *a; a++) *a == '|' ? fputs("\\|", f) : fputc(*a, f);
            bool flag_off = d->shape == SHAPE_FLAG && !d->initial;
            fprintf(f, " | %s | %s |\n", d->initial ? *d->initial ? d->initial : "empty" : flag_off ? "off" : "", d->repeat ? "yes" : "");
        }
    }
    fprintf(f, "\n%s", to);
    fclose(f);
    compare("docs/configuration.md", "docs/configuration.md", text);
    free(page);
    free(text);
}

/* ---- values ---- */

static void test_decimals(void **state) {
    (void)state;
    static const struct { const char *text; unsigned decimals; uint64_t value; bool ok; const char *back; } cases[] = {
        { "0", 6, 0, true, "0" }, { "0.083", 6, 83000, true, "0.083" }, { "11.00", 6, 11000000, true, "11" }, { "0.000001", 6, 1, true, "0.000001" },
        { "18446744073709.551615", 6, UINT64_MAX, true, "18446744073709.551615" }, { "18446744073709.551616", 6, 0, false, NULL },
        { "1.1234567", 6, 0, false, NULL }, { "1.", 6, 0, false, NULL }, { ".5", 6, 0, false, NULL }, { "", 6, 0, false, NULL },
        { "+1", 6, 0, false, NULL }, { "1e3", 6, 0, false, NULL }, { "1.5.5", 6, 0, false, NULL }, { "0x1", 6, 0, false, NULL }, { "1 ", 6, 0, false, NULL },
        { "0.123456789", 9, 123456789, true, "0.123456789" }, { "007.50", 6, 7500000, true, "7.5" }, { "10", 0, 10, true, "10" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t n = 0;
        const char *bad_text = conf_decimal(cases[i].text, cases[i].decimals, &n);
        if ((bad_text == NULL) != cases[i].ok) fail_msg("`%s`: %s", cases[i].text, bad_text ? bad_text : "taken");
        if (bad_text) continue;
        assert_true(n == cases[i].value);
        char back[64] = "";
        FILE *f = fmemopen(back, sizeof back, "w");
        conf_put_decimal(f, n, cases[i].decimals);
        fclose(f);
        assert_string_equal(back, cases[i].back);
    }
}

static void test_units(void **state) {
    (void)state;
    static const struct { const char *text; uint64_t value; const char *back; } times[] = {
        { "0", 0, "0" }, { "5", 5000, "5s" }, { "500ms", 500, "500ms" }, { "60s", 60000, "1m" }, { "90s", 90000, "90s" }, { "24h", 86400000, "1d" }, { "30d", 2592000000, "30d" } };
    static const struct { const char *text; uint64_t value; const char *back; } sizes[] = {
        { "0", 0, "0" }, { "1", 1, "1" }, { "64k", 65536, "64k" }, { "1024K", 1 << 20, "1m" }, { "32m", 32 << 20, "32m" }, { "1g", 1 << 30, "1g" }, { "1025", 1025, "1025" } };
    for (size_t i = 0; i < ARRAY_LEN(times) + ARRAY_LEN(sizes); i++) {
        bool time = i < ARRAY_LEN(times);
        size_t at = time ? i : i - ARRAY_LEN(times);
        uint64_t n;
        assert_null(time ? conf_time(times[at].text, &n) : conf_size(sizes[at].text, &n));
        assert_true(n == (time ? times[at].value : sizes[at].value));
        char back[64] = "";
        FILE *f = fmemopen(back, sizeof back, "w");
        if (time) conf_put_time(f, n); else conf_put_size(f, n);
        fclose(f);
        assert_string_equal(back, time ? times[at].back : sizes[at].back);
    }
    uint64_t n;
    assert_non_null(conf_time("99999999999999999999d", &n));
    assert_non_null(conf_time("18446744073709551615d", &n));
    assert_non_null(conf_size("-1k", &n));
    assert_non_null(conf_rate_per_h("5", &n));
    assert_null(conf_rate_per_h("10/m", &n));
    assert_int_equal(n, 600);
}

static void test_distance(void **state) {
    (void)state;
    assert_int_equal(conf_distance("listen", "listen"), 0);
    assert_int_equal(conf_distance("listen", "lisen"), 1);
    assert_int_equal(conf_distance("rpm", "rmp"), 1); /* a swap is one */
    assert_int_equal(conf_distance("", "abc"), 3);
    assert_int_equal(conf_distance("kitten", "sitting"), 3);
}

/* ---- secrets ---- */

static void test_secrets(void **state) {
    (void)state;
    struct conf *c = must_load("tests/conf/good/everything.conf");
    assert_string_equal(c->main.admin_token.value, "token-hunter3");
    assert_string_equal(c->billing.jwt_secret.value, "sk-from-file"); /* without the line's end */
    const struct conf_upstream *u = c->upstreams.items[0];
    assert_string_equal(((struct conf_secret *)u->keys.items[0])->value, "sk-hunter3");
    assert_string_equal(((struct conf_pair *)u->headers.items[1])->value.value, "token-hunter3");
    conf_free(c);
    /* A literal that is printed can be read, with a warning, and prints the same. */
    char *errors, path[128];
    c = must_load("tests/conf/good/literal_secrets.conf");
    char *text = printed(c);
    conf_free(c);
    write_text(in_scratch("masked.conf", path), text);
    c = load(path, &errors);
    assert_non_null(c);
    assert_non_null(strstr(errors, "warning: this is what -T prints for a secret"));
    free(errors);
    free(text);
    conf_free(c);
}

/* ---- include ---- */

static void test_include_depth(void **state) {
    (void)state;
    char path[128], name[32], text[64], *errors;
    for (int i = 0; i < 12; i++) {
        snprintf(name, sizeof name, "depth%d.conf", i);
        snprintf(text, sizeof text, i == 11 ? "max_body 2m;\n" : "include depth%d.conf;\n", i + 1);
        write_text(in_scratch(name, path), text);
    }
    struct conf *c = load(in_scratch("depth0.conf", path), &errors);
    assert_null(c);
    assert_non_null(strstr(errors, "depth8.conf:1:9: files include each other more than 8 deep"));
    free(errors);
    c = must_load(in_scratch("depth4.conf", path));
    assert_int_equal(c->main.max_body, 2 << 20);
    conf_free(c);
}

static void test_missing_file(void **state) {
    (void)state;
    char *errors;
    assert_null(load("/nonexistent/gateway.conf", &errors));
    assert_string_equal(errors, "/nonexistent/gateway.conf cannot be read: No such file or directory\n");
    free(errors);
}

/* ---- what the master asks ---- */

static void test_can_follow(void **state) {
    (void)state;
    static const struct { const char *text, *refused; } cases[] = {
        { "workers 200; max_body 1m; listen 81; tier x { rpm 1; }", "" },
        { "state_dir /b;", "state_dir needs a restart\nshm_file needs a restart\n" }, /* the default name follows it */
        { "shm_file /b;", "shm_file needs a restart\n" }, { "control /b;", "control needs a restart\n" }, { "user b;", "user needs a restart\n" },
        { "max_accounts 7;", "max_accounts needs a restart\n" }, { "max_keys 7;", "max_keys needs a restart\n" },
        { "max_active 7;", "max_active needs a restart\n" }, { "billing { unit tokens; }", "unit needs a restart\n" },
    };
    char *errors;
    struct conf *running = load_text("", &errors);
    assert_non_null(running);
    free(errors);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conf *next = load_text(cases[i].text, &errors);
        assert_non_null(next);
        free(errors);
        size_t len;
        FILE *f = open_memstream(&errors, &len);
        bool ok = conf_can_follow(running, next, f);
        fclose(f);
        assert_string_equal(errors, cases[i].refused);
        assert_int_equal(ok, !*cases[i].refused);
        free(errors);
        conf_free(next);
    }
    conf_free(running);
}

static void note_name(void *arg, enum name_kind kind, const char *name) {
    char *all = arg;
    sprintf(all + strlen(all), "%d:%s ", kind, name);
}
static void test_each_name(void **state) {
    (void)state;
    char all[4096] = "";
    struct conf *c = must_load("tests/conf/good/families.conf");
    conf_each_name(c, note_name, all);
    assert_string_equal(all, "2:bench 2:default 3:default 1:mock 1:router 0:* 0:openrouter/* 0:vendor/* ");
    conf_free(c);
}

/* ---- memory ---- */

/* Every allocation fails once (every 37th of the many in the middle): an error is reported, nothing leaks, nothing is touched after. */
static void test_out_of_memory(void **state) {
    (void)state;
    static const char *const paths[] = { "tests/conf/good/everything.conf", "tests/conf/good/include.conf", "tests/conf/bad/upstreams.conf" };
    for (size_t p = 0; p < ARRAY_LEN(paths); p++) {
        bool done = false;
        uint64_t failures = 0;
        for (uint64_t budget = 0; !done; budget += budget < 100 ? 1 : 37) {
            char *errors;
            size_t len;
            FILE *f = open_memstream(&errors, &len);
            struct conf *c = conf_load_budget(paths[p], f, budget);
            fclose(f);
            bool failed = strstr(errors, "out of memory") != NULL;
            assert_true(c ? !failed : *errors != 0);
            failures += failed;
            done = !failed;
            conf_free(c);
            free(errors);
        }
        assert_true(failures > 20);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_files), cmocka_unit_test(test_bad_files), cmocka_unit_test(test_each_error), cmocka_unit_test(test_example),
        cmocka_unit_test(test_example_is_complete), cmocka_unit_test(test_defaults), cmocka_unit_test(test_reference), cmocka_unit_test(test_decimals), cmocka_unit_test(test_units),
        cmocka_unit_test(test_distance), cmocka_unit_test(test_secrets), cmocka_unit_test(test_include_depth), cmocka_unit_test(test_missing_file),
        cmocka_unit_test(test_can_follow), cmocka_unit_test(test_each_name), cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
