/* The JSON parser: text in, a tape of tokens out, one pass, nothing copied.
 *
 * The grammar is a loop over labels with the open containers on an explicit stack of JSON_MAX_DEPTH entries, so hostile
 * nesting costs a refusal and no machine stack. Each step knows what may follow, so there is no second validation. Text
 * is untrusted: every read is bounded by s->end, nothing needs a NUL behind it. Failures are told apart in enum
 * json_err with the byte they were seen at. */
#include "proto/json.h"

#include "proto/base/check.h"
#include "proto/base/cpu.h"
#include "proto/json_scan.h"

#ifdef __SSE2__
#include <immintrin.h>
#endif

struct scan {
    const uint8_t *text, *end;
    struct json_tok *tok;
    uint32_t count, cap;
    struct arena *arena; /* where the tape grows; NULL: it does not */
    enum json_err err;
    const uint8_t *err_at;
};

static const uint8_t *fail(struct scan *s, enum json_err err, const uint8_t *at) {
    s->err = err;
    s->err_at = at;
    return NULL;
}

static inline const uint8_t *skip_space(const uint8_t *p, const uint8_t *end) {
    while (p < end && *p <= ' ' && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) /* mostly one comparison */
        p++;
    return p;
}

/* The four digits of a \u escape, or -1. */
static int hex4(const uint8_t *p, const uint8_t *end) {
    int v = 0;
    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        uint8_t c = p[i], l = c | 0x20;
        if (c >= '0' && c <= '9')
            v = v << 4 | (c - '0');
        else if (l >= 'a' && l <= 'f')
            v = v << 4 | (l - 'a' + 10);
        else
            return -1;
    }
    return v;
}

/* p at a backslash; returns what is behind the escape. */
static const uint8_t *scan_escape(struct scan *s, const uint8_t *p) {
    const uint8_t *end = s->end;
    if (end - p < 2)
        return fail(s, JSON_SYNTAX, end);
    switch (p[1]) {
    case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
        return p + 2;
    case 'u':
        break;
    default:
        return fail(s, JSON_BAD_ESCAPE, p);
    }
    int hi = hex4(p + 2, end);
    if (hi < 0)
        return fail(s, JSON_BAD_ESCAPE, p);
    if (hi < 0xd800 || hi > 0xdfff)
        return p + 6;
    /* a surrogate: only high and low together make a character */
    int lo = hi < 0xdc00 && end - p >= 8 && p[6] == '\\' && p[7] == 'u' ? hex4(p + 8, end) : -1;
    if (lo < 0xdc00 || lo > 0xdfff)
        return fail(s, JSON_BAD_ESCAPE, p);
    return p + 12;
}

#ifdef __SSE2__
/* Steps over plain text beyond ASCII, 16 bytes at a time, as far as it is proven well-formed, and stops before the
 * first block that has anything else: a quote, an escape, a control byte, a fault, the end. What it stopped at is
 * looked at again byte by byte, so this only ever saves time. The method is Keiser and Lemire's ("Validating UTF-8 in
 * less than one instruction per byte", 2020): three lookups by half bytes name the faults that two neighbours can have;
 * one comparison finds missing third and fourth bytes. */
__attribute__((target("ssse3"))) static const uint8_t *skip_utf8(const uint8_t *p, const uint8_t *end) {
    enum { SHORT = 1, LONG = 2, OVER3 = 4, SURROGATE = 16, OVER2 = 32, TWO = 128, LARGE = 8, LARGE1000 = 64, OVER4 = 64,
           CARRY = SHORT | LONG | TWO };
    const __m128i first_high =
        _mm_setr_epi8(LONG, LONG, LONG, LONG, LONG, LONG, LONG, LONG, (char)TWO, (char)TWO, (char)TWO, (char)TWO,
                      SHORT | OVER2, SHORT, SHORT | OVER3 | SURROGATE, SHORT | LARGE | LARGE1000 | OVER4);
    const __m128i first_low = _mm_setr_epi8(
        (char)(CARRY | OVER3 | OVER2 | OVER4), (char)(CARRY | OVER2), (char)CARRY, (char)CARRY, (char)(CARRY | LARGE),
        (char)(CARRY | LARGE | LARGE1000), (char)(CARRY | LARGE | LARGE1000), (char)(CARRY | LARGE | LARGE1000),
        (char)(CARRY | LARGE | LARGE1000), (char)(CARRY | LARGE | LARGE1000), (char)(CARRY | LARGE | LARGE1000),
        (char)(CARRY | LARGE | LARGE1000), (char)(CARRY | LARGE | LARGE1000),
        (char)(CARRY | LARGE | LARGE1000 | SURROGATE), (char)(CARRY | LARGE | LARGE1000),
        (char)(CARRY | LARGE | LARGE1000));
    const __m128i second_high = _mm_setr_epi8(
        SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, (char)(LONG | OVER2 | TWO | OVER3 | LARGE1000 | OVER4),
        (char)(LONG | OVER2 | TWO | OVER3 | LARGE), (char)(LONG | OVER2 | TWO | SURROGATE | LARGE),
        (char)(LONG | OVER2 | TWO | SURROGATE | LARGE), SHORT, SHORT, SHORT, SHORT);
    const __m128i low4 = _mm_set1_epi8(15), high = _mm_set1_epi8((char)0x80);
    const uint8_t *start = p;
    __m128i before = _mm_setzero_si128();
    for (; end - p >= 16; p += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i stop =
            _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(x, _mm_set1_epi8('"')), _mm_cmpeq_epi8(x, _mm_set1_epi8('\\'))),
                         _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x));
        __m128i prev1 = _mm_alignr_epi8(x, before, 15), prev2 = _mm_alignr_epi8(x, before, 14),
                prev3 = _mm_alignr_epi8(x, before, 13);
        __m128i pairs = _mm_and_si128(
            _mm_and_si128(_mm_shuffle_epi8(first_high, _mm_and_si128(_mm_srli_epi16(prev1, 4), low4)),
                          _mm_shuffle_epi8(first_low, _mm_and_si128(prev1, low4))),
            _mm_shuffle_epi8(second_high, _mm_and_si128(_mm_srli_epi16(x, 4), low4)));
        __m128i third = _mm_subs_epu8(prev2, _mm_set1_epi8((char)(0xe0 - 0x80)));
        __m128i fourth = _mm_subs_epu8(prev3, _mm_set1_epi8((char)(0xf0 - 0x80)));
        __m128i fault = _mm_xor_si128(_mm_and_si128(_mm_or_si128(third, fourth), high), pairs);
        if (_mm_movemask_epi8(_mm_cmpeq_epi8(fault, _mm_setzero_si128())) != 0xffff || _mm_movemask_epi8(stop))
            break;
        before = x;
    }
    for (int back = 1; back <= 3 && p - start >= back; back++) /* a sequence that goes on behind p is not proven yet */
        if ((p[-back] & 0xc0) == 0xc0)
            return p - back;
        else if (p[-back] < 0x80)
            break;
    return p;
}
#endif

#ifdef __SSE2__
/* Over whole blocks of 64 bytes of plain text; stops before the first that has anything else, or that is not whole. */
__attribute__((target("avx2"))) static const uint8_t *skip_plain_avx2(const uint8_t *p, const uint8_t *end) {
    const __m256i quote = _mm256_set1_epi8('"'), slash = _mm256_set1_epi8('\\'), space = _mm256_set1_epi8(0x20);
    for (; end - p >= 64; p += 64) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)p);
        __m256i y = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32));
        __m256i stop = _mm256_or_si256(_mm256_cmpeq_epi8(x, quote), _mm256_cmpeq_epi8(y, quote));
        stop = _mm256_or_si256(stop, _mm256_or_si256(_mm256_cmpeq_epi8(x, slash), _mm256_cmpeq_epi8(y, slash)));
        /* as signed numbers control bytes and all beyond ASCII are below a space */
        stop = _mm256_or_si256(stop, _mm256_cmpgt_epi8(space, _mm256_min_epi8(x, y)));
        if (_mm256_movemask_epi8(stop))
            break;
    }
    return p;
}
#endif

/* json_plain_end for what is likely long. */
static const uint8_t *plain_end(const uint8_t *p, const uint8_t *end) {
#ifdef __SSE2__
    if (end - p >= 64 && (cpu_features() & CPU_AVX2))
        p = skip_plain_avx2(p, end);
#endif
    return json_plain_end(p, end);
}

/* p within a string, all before it plain; returns the closing quote. */
static const uint8_t *scan_string(struct scan *s, const uint8_t *p, uint8_t *escaped) {
    const uint8_t *end = s->end;
    *escaped = 0;
    for (;;) {
        p = plain_end(p, end);
        if (p == end)
            return fail(s, JSON_SYNTAX, end);
        if (*p == '"')
            return p;
        if (*p == '\\') {
            *escaped = 1;
            if (!(p = scan_escape(s, p)))
                return NULL;
        } else if (*p < 0x20) {
            return fail(s, JSON_SYNTAX, p);
        }
#ifdef __SSE2__
        if (end - p >= 32 && *p >= 0x80 && (cpu_features() & CPU_SSSE3))
            p = skip_utf8(p, end);
#endif
        /* text beyond ASCII: stay here while it goes on, for the wide search would stop at every letter */
        while (p < end && *p >= 0x80) {
            unsigned n = json_utf8_sequence(p, end);
            if (n == 0)
                return fail(s, JSON_BAD_UTF8, p);
            p += n;
            if (end - p >= 2 && p[1] >= 0x80 && !json_is_special(*p))
                p++; /* a lone space or comma between words */
        }
    }
}

const char *json_string_end(const char *text, const char *text_end, size_t *decoded) {
    const uint8_t *start = (const uint8_t *)text, *p = start, *end = (const uint8_t *)text_end;
    size_t slashes = 0;
    while ((p = json_plain_end(p, end)) < end) {
        if (*p == '"') {
            *decoded = (size_t)(p - start) - slashes;
            return (const char *)p;
        }
        if (*p >= 0x80) {
            unsigned n = json_utf8_sequence(p, end);
            if (n == 0)
                return NULL;
            p += n;
        } else if (*p == '\\' && end - p >= 2 && memchr("\"\\/bfnrt", p[1], 8) != NULL) {
            p += 2;
            slashes++;
        } else {
            return NULL;
        }
    }
    return NULL;
}

static inline const uint8_t *skip_digits(const uint8_t *p, const uint8_t *end) {
    while (p < end && (unsigned)(*p - '0') <= 9)
        p++;
    return p;
}

/* p at a minus or a digit; returns what is behind the number. */
static const uint8_t *scan_number(struct scan *s, const uint8_t *p) {
    const uint8_t *end = s->end, *q;
    p += *p == '-';
    if (p < end && *p == '0')
        q = p + 1;
    else if ((q = skip_digits(p, end)) == p)
        return fail(s, JSON_SYNTAX, p);
    if (q < end && *q == '.') {
        p = q + 1;
        if ((q = skip_digits(p, end)) == p)
            return fail(s, JSON_SYNTAX, p);
    }
    if (q < end && (*q | 0x20) == 'e') {
        p = q + 1;
        p += p < end && (*p == '+' || *p == '-');
        if ((q = skip_digits(p, end)) == p)
            return fail(s, JSON_SYNTAX, p);
    }
    return q;
}

static const uint8_t *scan_word(struct scan *s, const uint8_t *p, const char *word, size_t n) {
    size_t i = 0, room = (size_t)(s->end - p);
    while (i < n && i < room && p[i] == (uint8_t)word[i])
        i++;
    return i == n ? p + n : fail(s, JSON_SYNTAX, p + i);
}

/* Doubles the tape. */
static bool grow(struct scan *s, const uint8_t *at) {
    if (!s->arena || s->cap >= JSON_MAX_TOKENS) {
        fail(s, JSON_TOO_MANY, at);
        return false;
    }
    uint32_t cap = s->cap * 2 < JSON_MAX_TOKENS ? s->cap * 2 : JSON_MAX_TOKENS;
    struct json_tok *tok = arena_resize(s->arena, s->tok, s->cap * sizeof *tok, cap * sizeof *tok);
    if (!tok) {
        fail(s, JSON_NO_MEMORY, at);
        return false;
    }
    s->tok = tok;
    s->cap = cap;
    return true;
}

/* The string whose opening quote is at p into token t; returns what is behind it. Most are short and plain. */
static inline const uint8_t *scan_text(struct scan *s, const uint8_t *p, struct json_tok *t) {
    enum { SHORT = 64 };
    const uint8_t *start = p + 1, *behind = json_plain_end(start, s->end - start > SHORT ? start + SHORT : s->end);
    uint8_t escaped = 0;
    if (__builtin_expect(behind == s->end || *behind != '"', 0) && !(behind = scan_string(s, behind, &escaped)))
        return NULL;
    t->start = (uint32_t)(start - s->text);
    t->end = (uint32_t)(behind - s->text);
    t->type = JSON_STRING;
    t->escaped = escaped;
    return behind + 1;
}

/* The value at p, not a container or string, into token t; returns what is behind it. */
static const uint8_t *scan_scalar(struct scan *s, const uint8_t *p, struct json_tok *t) {
    const uint8_t *behind;
    t->escaped = 0;
    t->start = (uint32_t)(p - s->text);
    switch (*p) {
    case 't':
        t->type = JSON_TRUE;
        behind = scan_word(s, p, "true", 4);
        break;
    case 'f':
        t->type = JSON_FALSE;
        behind = scan_word(s, p, "false", 5);
        break;
    case 'n':
        t->type = JSON_NULL;
        behind = scan_word(s, p, "null", 4);
        break;
    case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        t->type = JSON_NUMBER;
        behind = scan_number(s, p);
        break;
    default:
        return fail(s, JSON_SYNTAX, p);
    }
    t->end = behind ? (uint32_t)(behind - s->text) : t->start;
    return behind;
}

/* The next token of the tape; NULL: it cannot grow. */
static inline struct json_tok *next_token(struct scan *s, const uint8_t *p) {
    return s->count == s->cap && !grow(s, p) ? NULL : &s->tok[s->count++];
}

/* One value and the space around it: the grammar's positions are labels; long because they jump to each other. The
 * state is a copy on the stack, for else each token written could have changed it. */
static const uint8_t *scan_value(struct scan *out) {
    uint32_t open[JSON_MAX_DEPTH]; /* the open containers' tokens */
    unsigned depth = 0;
    struct scan scan = *out, *s = &scan;
    const uint8_t *end = s->end, *p = skip_space(s->text, end);
    struct json_tok *t;
    bool in_object = false;
    if (p == end) {
        fail(s, JSON_EMPTY, p);
        goto failed;
    }
value:
    p = skip_space(p, end);
first_value:
    if (p == end)
        goto syntax;
    if (!(t = next_token(s, p)))
        goto failed;
    if (*p != '{' && *p != '[') {
        t->next = s->count;
        if (!(p = *p == '"' ? scan_text(s, p, t) : scan_scalar(s, p, t)))
            goto failed;
        goto behind_value;
    }
    if (depth == JSON_MAX_DEPTH) {
        fail(s, JSON_TOO_DEEP, p);
        goto failed;
    }
    in_object = *p == '{';
    *t = (struct json_tok){ .start = (uint32_t)(p - s->text), .type = in_object ? JSON_OBJECT : JSON_ARRAY };
    open[depth++] = s->count - 1;
    p = skip_space(p + 1, end);
    if (p < end && *p == (in_object ? '}' : ']'))
        goto close;
    if (!in_object)
        goto first_value;
key:
    if (p == end || *p != '"')
        goto syntax;
    if (!(t = next_token(s, p)))
        goto failed;
    t->next = s->count;
    if (!(p = scan_text(s, p, t)))
        goto failed;
    p = skip_space(p, end);
    if (p == end || *p != ':')
        goto syntax;
    p++;
    goto value;
behind_value:
    p = skip_space(p, end);
    if (depth == 0) {
        *out = scan;
        return p;
    }
    if (p == end)
        goto syntax;
    if (*p == ',') {
        p++;
        if (!in_object)
            goto value;
        p = skip_space(p, end);
        goto key;
    }
    if (*p != (in_object ? '}' : ']'))
        goto syntax;
close:
    p++;
    t = &s->tok[open[--depth]];
    t->end = (uint32_t)(p - s->text);
    t->next = s->count;
    in_object = depth > 0 && s->tok[open[depth - 1]].type == JSON_OBJECT;
    goto behind_value;
syntax:
    fail(s, JSON_SYNTAX, p);
failed:
    *out = scan;
    return NULL;
}

static bool run(struct json *j, struct scan *s, const char *text, size_t len) {
    *j = (struct json){ .text = text, .len = len };
    if (len == 0 || len > UINT32_MAX) {
        j->err = len ? JSON_TOO_LONG : JSON_EMPTY;
        return false;
    }
    s->text = (const uint8_t *)text;
    s->end = s->text + len;
    const uint8_t *behind = scan_value(s);
    if (behind && behind != s->end)
        fail(s, JSON_TRAILING, behind);
    if (s->err != JSON_OK) {
        j->err = s->err;
        j->err_at = (size_t)(s->err_at - s->text);
        return false;
    }
    j->tok = s->tok;
    j->count = s->count;
    CHECK(j->count > 0 && j->tok[0].next == j->count);
    return true;
}

bool json_parse(struct json *j, struct arena *arena, const char *text, size_t len) {
    /* A token for 16 bytes of text suits chat bodies; a first tape within one page, for a long body is mostly one long
     * string. */
    uint32_t cap = len / 16 < 900 ? (uint32_t)(len / 16) + 24 : 924;
    struct json_tok *tok = arena_alloc(arena, cap * sizeof *tok);
    if (!tok) {
        *j = (struct json){ .text = text, .len = len, .err = JSON_NO_MEMORY };
        return false;
    }
    struct scan s = { .tok = tok, .cap = cap, .arena = arena };
    bool ok = run(j, &s, text, len);
    void *kept = arena_resize(arena, s.tok, s.cap * sizeof *tok, (ok ? s.count : 0) * sizeof *tok);
    CHECK(kept == s.tok);
    return ok;
}

bool json_parse_into(struct json *j, struct json_tok *tape, uint32_t cap, const char *text, size_t len) {
    struct scan s = { .tok = tape, .cap = cap };
    return run(j, &s, text, len);
}

const char *json_err_text(enum json_err err) {
    static const char *const texts[] = {
        [JSON_OK] = "no error",
        [JSON_SYNTAX] = "unexpected character or end",
        [JSON_BAD_UTF8] = "invalid UTF-8",
        [JSON_BAD_ESCAPE] = "invalid escape in a string",
        [JSON_TOO_DEEP] = "nested too deeply",
        [JSON_TOO_MANY] = "too many values",
        [JSON_TRAILING] = "something follows the value",
        [JSON_EMPTY] = "empty",
        [JSON_NO_MEMORY] = "too large to parse",
        [JSON_TOO_LONG] = "longer than 4 GiB",
    };
    return (unsigned)err < ARRAY_LEN(texts) ? texts[err] : "unknown error";
}
