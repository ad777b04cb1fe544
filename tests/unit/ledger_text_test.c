/* Texts of the outside: ids, times, emails, what of a key is shown. */
#include "tests/unit/ledger_asserts.h"

static void times_and_ids(void **state) {
    (void)state;
    static const struct { const char *text; int64_t ms;
    } good[] = {
        { "1970-01-01", 0 },
        { "2026-01-31T12:00:00Z", 1769860800000 },
        { "2026-01-31T12:00:00.25+02:00", 1769853600250 },
        { "2024-02-29", 1709164800000 },
        { "30s", 1000000000000 - 30000 },
        { "2w", 1000000000000 - 14 * 86400000ll },
    };
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        int64_t ms;
        assert_true(time_parse(slice_str(good[i].text), 1000000000000, &ms));
        assert_int_equal(ms, good[i].ms);
    }
    static const char *const bad[] = { "",
                                       "d",
                                       "30",
                                       "30x",
                                       "2026",
                                       "2026-13-01",
                                       "2026-02-30",
                                       "2026-01-01T",
                                       "2026-01-01T25:00:00Z",
                                       "2026-01-01T00:00:00",
                                       "2026-01-01T00:00:00Zx",
                                       "-3d",
                                       "99999999999d" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int64_t ms;
        if (time_parse(slice_str(bad[i]), 0, &ms)) fail_msg("%s is taken for a time", bad[i]);
    }
    char id[ID_TEXT];
    uint64_t back;
    for (uint64_t v = 1; v < 1ull << 60; v = v * 7 + 3) {
        size_t len = id_write(id, ID_KEY, v);
        assert_int_equal(len, strlen(id));
        assert_true(id_read(slice_str(id), ID_KEY, &back) && back == v);
        assert_false(id_read(slice_str(id), ID_USAGE, &back));
    }
    assert_false(id_read(SLICE("key_"), ID_KEY, &back) || id_read(SLICE("key_A"), ID_KEY, &back) ||
                 id_read(SLICE("key_zzzzzzzzzzzzz"), ID_KEY, &back));
    id_write(id, ID_ENTRY, 36);
    assert_string_equal(id, "ent_0000000010");
    struct slice begin, end;
    key_shown(SLICE("sk-abcdefghijklmnopqrstuvwxyz012345"), SLICE("sk-"), &begin, &end);
    assert_true(slice_is(begin, "sk-abcd") && slice_is(end, "2345"));
    key_shown(SLICE("short-key-1"), SLICE("sk-"), &begin, &end);
    assert_true(begin.len + end.len <= 3);
}

static void emails(void **state) {
    (void)state;
    static const struct { const char *text, *normal; /* NULL: refused */
    } cases[] = {
        { "a@b.c", "a@b.c" },
        { "  Dev+Tag@Example.COM\t\n", "dev+tag@example.com" },
        { "\u00a0\u3000x@y\u2003", "x@y" },
        { "M\u00dcLLER@B\u00dcCHER.DE", "m\u00fcller@b\u00fccher.de" },
        { "\u0418\u0412\u0410\u041d@\u041f\u041e\u0427\u0422\u0410.\u0420\u0424",
          "\u0438\u0432\u0430\u043d@\u043f\u043e\u0447\u0442\u0430.\u0440\u0444" },
        { "\u0130@x.y", "\u0130@x.y" },
        { "", NULL },
        { "   ", NULL },
        { "a b@c.d", NULL },
        { "a\u00a0b@c.d", NULL },
        { "a\u202eb@c.d", NULL },
        { "a\u200bb@c.d", NULL },
        { "\ufeffa@c.d", NULL },
        { "a\x01@c.d", NULL },
        { "a\xff@c.d", NULL },
        { "a\xc0\x80@c.d", NULL },
        { "a@b@c", NULL },
        { "@b.c", NULL },
        { "a@", NULL },
        { "a@.b", NULL },
        { "a@b.", NULL },
        { "a@b..c", NULL },
        { "a@b_c", NULL },
        { "\"a\"@b.c", NULL },
        { "<a@b.c>", NULL },
    };
    char out[STORE_EMAIL + 1], longest[300];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        bool ok = email_normalise(slice_str(cases[i].text), out);
        if (ok != !!cases[i].normal || (ok && strcmp(out, cases[i].normal) != 0))
            fail_msg("case %zu, \"%s\": %s", i, cases[i].text, ok ? out : "refused");
    }
    memset(longest, 'x', sizeof longest);
    longest[250] = '@';
    assert_true(email_normalise(slice_of(longest, 254), out) && strlen(out) == 254);
    assert_false(email_normalise(slice_of(longest, 255), out));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_and_ids),
        cmocka_unit_test(emails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
