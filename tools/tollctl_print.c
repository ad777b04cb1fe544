/* How answers look to people: lines, tables, CSV. Text from outside (model names, request ids) cannot move the
 * terminal's cursor, nor turn other text around: such characters become question marks. A CSV that goes to a file has
 * the texts as they are. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "proto/base/check.h"
#include "proto/base/text.h"
#include "tools/tollctl.h"

enum { MAX_COLUMNS = 32, WIDEST = 48 };

/* A value as text: null is empty, an array its values with commas. */
static struct slice text_of(const struct json *j, int t, struct arena *arena) {
    if (t < 0 || json_is(j, t, JSON_NULL))
        return SLICE("");
    if (json_is(j, t, JSON_STRING))
        return json_str(j, t, arena);
    if (!json_is(j, t, JSON_ARRAY))
        return json_span(j, t);
    struct slice all = SLICE("");
    for (int v = json_first(j, t); v >= 0; v = json_next(j, t, v)) {
        struct slice one = text_of(j, v, arena);
        all = arena_printf(arena, "%.*s%s%.*s", SLICE_ARG(all), all.len ? "," : "", SLICE_ARG(one));
    }
    return all;
}

struct slice print_clean(struct slice s, struct arena *arena) {
    char *out = arena_alloc(arena, s.len + 1);
    size_t n = 0;
    for (uint32_t c; out && s.len > 0;) {
        size_t len = text_char(s, &c);
        if (text_hidden(c))
            out[n++] = '?';
        else
            for (size_t i = 0; i < len; i++)
                out[n++] = s.ptr[i];
        s = slice_from(s, len);
    }
    return slice_of(out, out ? n : 0);
}

/* Characters, not bytes: UTF-8's continuation bytes take no place. */
static int width_of(struct slice s) {
    int n = 0;
    for (size_t i = 0; i < s.len; i++)
        n += ((unsigned char)s.ptr[i] & 0xc0) != 0x80;
    return n;
}

static void pad(int n) {
    for (; n > 0; n--)
        putchar(' ');
}

void print_object(const struct json *j, int object, struct arena *arena) {
    int width = 0;
    for (int k = json_first(j, object); k >= 0; k = json_next(j, object, k)) {
        int n = width_of(json_raw(j, k));
        width = n > width ? n : width;
    }
    for (int k = json_first(j, object); k >= 0; k = json_next(j, object, k)) {
        struct slice name = json_raw(j, k), value = print_clean(text_of(j, k + 1, arena), arena);
        printf("%.*s", SLICE_ARG(name));
        pad(width + 2 - width_of(name));
        printf("%.*s\n", SLICE_ARG(value));
    }
}

static unsigned split(const char *columns, struct slice *out) {
    unsigned n = 0;
    while (*columns && n < MAX_COLUMNS) {
        size_t len = strcspn(columns, ",");
        out[n++] = slice_of(columns, len);
        columns += len + (columns[len] == ',');
    }
    return n;
}

static int member(const struct json *j, int object, struct slice name) {
    char text[64];
    CHECK(name.len < sizeof text);
    memcpy(text, name.ptr, name.len);
    text[name.len] = '\0';
    return json_get(j, object, text);
}

/* Amounts and counts stand at the right. */
static bool is_number(struct slice s) {
    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++)
        if ((s.ptr[i] < '0' || s.ptr[i] > '9') && s.ptr[i] != '.' && (s.ptr[i] != '-' || i > 0))
            return false;
    return true;
}

static void cell(struct slice value, int width, bool last) {
    int room = width - width_of(value);
    if (is_number(value))
        pad(room);
    printf("%.*s", SLICE_ARG(value));
    if (!is_number(value) && !last)
        pad(room);
    if (!last)
        printf("  ");
}

void print_table(const struct json *j, int array, const char *columns, bool head, struct arena *arena) {
    struct slice names[MAX_COLUMNS];
    int width[MAX_COLUMNS];
    unsigned n = split(columns, names);
    for (unsigned i = 0; i < n; i++)
        width[i] = (int)names[i].len;
    for (int row = json_first(j, array); row >= 0; row = json_next(j, array, row))
        for (unsigned i = 0; i < n; i++) {
            int w = width_of(text_of(j, member(j, row, names[i]), arena));
            width[i] = w > width[i] ? (w < WIDEST ? w : WIDEST) : width[i];
        }
    for (unsigned i = 0; i < n && head; i++) {
        printf("%.*s", SLICE_ARG(names[i]));
        if (i + 1 < n)
            pad(width[i] + 2 - (int)names[i].len);
    }
    if (head)
        putchar('\n');
    for (int row = json_first(j, array); row >= 0; row = json_next(j, array, row)) {
        for (unsigned i = 0; i < n; i++)
            cell(print_clean(text_of(j, member(j, row, names[i]), arena), arena), width[i], i + 1 == n);
        putchar('\n');
    }
}

/* RFC 4180; a text that a spreadsheet would take for a formula is made one that it does not. */
static void csv_cell(struct slice s, bool text) {
    bool formula = text && s.len > 0 && strchr("=+-@\t\r", s.ptr[0]);
    bool quote = formula;
    for (size_t i = 0; i < s.len; i++)
        quote |= s.ptr[i] == '"' || s.ptr[i] == ',' || s.ptr[i] == '\n' || s.ptr[i] == '\r';
    if (quote)
        putchar('"');
    if (formula)
        putchar('\'');
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '"')
            putchar('"');
        putchar(s.ptr[i]);
    }
    if (quote)
        putchar('"');
}

void print_csv(const struct json *j, int array, const char *columns, bool head, struct arena *arena) {
    struct slice names[MAX_COLUMNS];
    unsigned n = split(columns, names);
    bool terminal = isatty(STDOUT_FILENO);
    if (head)
        printf("%s\n", columns);
    for (int row = json_first(j, array); row >= 0; row = json_next(j, array, row)) {
        for (unsigned i = 0; i < n; i++) {
            struct slice value = text_of(j, member(j, row, names[i]), arena);
            if (i > 0)
                putchar(',');
            csv_cell(terminal ? print_clean(value, arena) : value, !is_number(value));
        }
        putchar('\n');
    }
}

static void columns_of(const struct json *j, int object, char *out, size_t n) {
    size_t at = 0;
    out[0] = '\0';
    for (int k = json_first(j, object); k >= 0; k = json_next(j, object, k)) {
        struct slice name = json_raw(j, k);
        if (at + name.len + 2 > n || json_is(j, k + 1, JSON_OBJECT))
            continue;
        at += (size_t)snprintf(out + at, n - at, "%s%.*s", at ? "," : "", SLICE_ARG(name));
    }
}

void print_status(const struct json *j, int object, struct arena *arena) {
    char columns[1024];
    for (int k = json_first(j, object); k >= 0; k = json_next(j, object, k)) {
        if (json_is(j, k + 1, JSON_OBJECT) || json_is(j, k + 1, JSON_ARRAY))
            continue;
        struct slice name = json_raw(j, k), value = print_clean(text_of(j, k + 1, arena), arena);
        printf("%-18.*s%.*s\n", SLICE_ARG(name), SLICE_ARG(value));
    }
    for (int k = json_first(j, object); k >= 0; k = json_next(j, object, k)) {
        struct slice name = json_raw(j, k);
        if (json_is(j, k + 1, JSON_OBJECT)) {
            printf("\n%.*s\n", SLICE_ARG(name));
            print_object(j, k + 1, arena);
        } else if (json_is(j, k + 1, JSON_ARRAY)) {
            int first = json_first(j, k + 1);
            printf("\n%.*s\n", SLICE_ARG(name));
            if (first < 0)
                continue;
            columns_of(j, first, columns, sizeof columns);
            print_table(j, k + 1, columns, true, arena);
        }
    }
}
