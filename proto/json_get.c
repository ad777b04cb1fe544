/* Finding one's way on the tape: members, iteration, decoded strings. The interface is in json.h.
 *
 * The text was validated by the parse, so decoding cannot fail; what can fail is the arena, and then the slice's ptr is
 * NULL. */
#include "proto/json.h"

#include "proto/base/check.h"
#include "proto/base/text.h"

uint32_t json_size(const struct json *j, int container) {
    uint32_t n = 0;
    for (int t = json_first(j, container); t >= 0; t = json_next(j, container, t))
        n++;
    return n;
}

static unsigned hex4(const char *p) {
    unsigned v = 0;
    for (int i = 0; i < 4; i++) {
        unsigned c = (unsigned char)p[i];
        v = v << 4 | (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return v;
}

/* Decodes the escape at p (a backslash) into out (4 bytes); *n: bytes written. Returns what is behind it. */
static const char *decode_escape(const char *p, char out[4], size_t *n) {
    *n = 1;
    switch (p[1]) {
    case 'b': out[0] = '\b'; return p + 2;
    case 'f': out[0] = '\f'; return p + 2;
    case 'n': out[0] = '\n'; return p + 2;
    case 'r': out[0] = '\r'; return p + 2;
    case 't': out[0] = '\t'; return p + 2;
    case 'u': break;
    default: out[0] = p[1]; return p + 2;
    }
    unsigned c = hex4(p + 2);
    p += 6;
    if (c >= 0xd800 && c < 0xdc00) {
        c = 0x10000 + ((c - 0xd800) << 10) + (hex4(p + 2) - 0xdc00);
        p += 6;
    }
    *n = text_put(out, c);
    return p;
}

/* Whether the raw text of a string with escapes decodes to want. */
static bool decodes_to(struct slice raw, struct slice want) {
    const char *p = raw.ptr, *end = raw.ptr + raw.len;
    size_t at = 0, n;
    char c[4];
    while (p < end) {
        if (*p == '\\') {
            p = decode_escape(p, c, &n);
        } else {
            c[0] = *p++;
            n = 1;
        }
        if (n > want.len - at || memcmp(c, want.ptr + at, n) != 0)
            return false;
        at += n;
    }
    return at == want.len;
}

static inline bool string_is(const struct json *j, uint32_t t, struct slice s) {
    const struct json_tok *tok = &j->tok[t];
    size_t len = tok->end - tok->start;
    if (__builtin_expect(!tok->escaped, 1))
        return len == s.len && memcmp(j->text + tok->start, s.ptr, len) == 0;
    return len >= s.len && decodes_to(slice_of(j->text + tok->start, len), s);
}

bool json_str_is(const struct json *j, int t, const char *s) {
    return json_is(j, t, JSON_STRING) && string_is(j, (uint32_t)t, slice_str(s));
}

/* The last member of that name, and how many there are of it. */
static int find(const struct json *j, int obj, struct slice s, unsigned *times) {
    int found = -1;
    *times = 0;
    if (!json_is(j, obj, JSON_OBJECT))
        return -1;
    uint32_t end = j->tok[obj].next;
    for (uint32_t key = (uint32_t)obj + 1; key < end; key = j->tok[key + 1].next)
        if (string_is(j, key, s)) {
            found = (int)key + 1;
            ++*times;
        }
    return found;
}

int json_member(const struct json *j, int obj, struct slice name) {
    unsigned times;
    return find(j, obj, name, &times);
}

bool json_duplicate(const struct json *j, int obj, const char *name) {
    unsigned times;
    find(j, obj, slice_str(name), &times);
    return times > 1;
}

struct slice json_span(const struct json *j, int t) {
    const struct json_tok *tok = &j->tok[t];
    uint32_t quote = tok->type == JSON_STRING;
    return slice_of(j->text + tok->start - quote, tok->end - tok->start + 2 * quote);
}

struct slice json_decoded(const struct json *j, int t, struct arena *arena) {
    struct slice raw = json_raw(j, t);
    char *out = arena_alloc(arena, raw.len), *to = out; /* no escape is shorter than what it means */
    if (!out)
        return SLICE_NONE;
    const char *p = raw.ptr, *end = raw.ptr + raw.len;
    while (p < end) {
        const char *esc = memchr(p, '\\', (size_t)(end - p));
        size_t plain = (size_t)((esc ? esc : end) - p), n;
        memcpy(to, p, plain);
        to += plain;
        p += plain;
        if (esc) {
            char c[4];
            p = decode_escape(p, c, &n);
            memcpy(to, c, n);
            to += n;
        }
    }
    size_t len = (size_t)(to - out);
    CHECK(len <= raw.len);
    return slice_of(arena_resize(arena, out, raw.len, len), len);
}

size_t json_str_len(const struct json *j, int t) {
    if (!json_is(j, t, JSON_STRING))
        return 0;
    struct slice raw = json_raw(j, t);
    if (!j->tok[t].escaped)
        return raw.len;
    size_t len = 0, n;
    char c[4];
    for (const char *p = raw.ptr, *end = raw.ptr + raw.len; p < end; len += n) {
        if (*p == '\\') {
            p = decode_escape(p, c, &n);
        } else {
            const char *esc = memchr(p, '\\', (size_t)(end - p));
            n = (size_t)((esc ? esc : end) - p);
            p += n;
        }
    }
    return len;
}

bool json_bool(const struct json *j, int t, bool *out) {
    if (!json_is(j, t, JSON_TRUE) && !json_is(j, t, JSON_FALSE))
        return false;
    *out = j->tok[t].type == JSON_TRUE;
    return true;
}
