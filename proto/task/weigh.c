/* Text into tokens, nearly. A tokenizer's vocabulary holds the words, the indents and the runs of signs that are
 * common, and cuts what is rare; so a text is taken apart at the same places (letters, digits, signs, blanks, scripts)
 * and each piece weighs what pieces of its kind weighed on average: a word so much and each further letter a little, a
 * piece of an identifier or of base64 more than a word that stands alone, an ideograph by itself.
 *
 * The weights are a least-squares fit to counts of real tokenizers over some 3,200 texts of up to 4,000 characters:
 * prose, code, JSON, HTML, logs, requests, tool declarations, some 70 human languages (the Universal Declaration of
 * Human Rights, programs' messages), random base64, hexadecimal and numbers. docs/counting.md has its error on texts
 * that were kept out of it. */
#include "proto/task/weigh.h"

#include "proto/base/check.h"

enum script { GREEK, CYRILLIC, HEBREW, ARABIC, INDIC, THAI, HANGUL, KANA, HAN, SYMBOL, EMOJI, OTHER, SCRIPTS };

/* What is weighed. Of a script: each run, and each character in it. */
enum unit {
    WORD,             /* of Latin letters; its first letter may be a capital */
    WORD_LETTER,      /* each of its letters from the second to the tenth */
    WORD_LETTER_LONG, /* each further one */
    PIECE,            /* up to three letters amid others or digits: of camelCase, an id, base64 */
    CAPITAL,          /* one alone */
    CAPITALS,         /* two and more */
    CAPITALS_LETTER,  /* each letter of them from the third */
    ACCENTED,         /* a word with a letter beyond ASCII */
    ACCENTED_LETTER,
    NUMBER,
    NUMBER_DIGIT,
    NUMBER_SPACED, /* a number behind a space */
    SIGN,          /* a run of one ASCII sign */
    SIGN_MORE,     /* the same right behind another sign */
    SIGN_FOUR,     /* each further four of them */
    LINE,          /* a run of line ends */
    LINE_MORE,     /* one of two and more */
    SPACES,        /* a run of two and more; a single space belongs to its word */
    TAB,
    SCRIPT,
    UNITS = SCRIPT + 2 * SCRIPTS
};
#define RUN(script) (SCRIPT + 2 * (script))
#define CHARACTER(script) (SCRIPT + 2 * (script) + 1)
enum { WORD_LETTERS = 10, PIECE_LETTERS = 3, SPACES_STEP = 16, SIGN_STEP = 4 };

/* In hundredths of a token, by enum weigh_by: OpenAI, Claude, new Claude, Gemini. */
static const uint16_t weights[UNITS][WEIGH_KINDS] = {
    [WORD] = { 75, 71, 40, 89 },
    [WORD_LETTER] = { 8, 9, 32, 3 },
    [WORD_LETTER_LONG] = { 32, 81, 115, 38 },
    [PIECE] = { 120, 168, 197, 122 },
    [CAPITAL] = { 90, 87, 80, 97 },
    [CAPITALS] = { 55, 91, 283, 66 },
    [CAPITALS_LETTER] = { 18, 18, 40, 18 },
    [ACCENTED] = { 175, 20, 20, 26 },
    [ACCENTED_LETTER] = { 21, 60, 72, 39 },
    [NUMBER] = { 85, 66, 58, 30 },
    [NUMBER_DIGIT] = { 25, 25, 25, 92 },
    [NUMBER_SPACED] = { 101, 165, 192, 92 },
    [SIGN] = { 75, 99, 104, 98 },
    [SIGN_MORE] = { 21, 10, 10, 10 },
    [SIGN_FOUR] = { 15, 15, 49, 22 },
    [LINE] = { 46, 114, 133, 98 },
    [LINE_MORE] = { 50, 121, 103, 87 },
    [SPACES] = { 86, 116, 110, 107 },
    [TAB] = { 117, 204, 132, 151 },
    [RUN(GREEK)] = { 27, 35, 34, 28 },
    [CHARACTER(GREEK)] = { 38, 72, 73, 37 },
    [RUN(CYRILLIC)] = { 95, 38, 37, 87 },
    [CHARACTER(CYRILLIC)] = { 15, 37, 37, 15 },
    [RUN(ARABIC)] = { 49, 102, 101, 8 },
    [CHARACTER(ARABIC)] = { 26, 60, 60, 36 },
    [RUN(HEBREW)] = { 37, 42, 42, 32 },
    [CHARACTER(HEBREW)] = { 38, 75, 75, 49 },
    [RUN(INDIC)] = { 6, 6, 6, 6 },
    [CHARACTER(INDIC)] = { 36, 92, 92, 29 },
    [RUN(THAI)] = { 26, 43, 43, 21 },
    [CHARACTER(THAI)] = { 41, 87, 87, 33 },
    [RUN(HAN)] = { 6, 12, 12, 6 },
    [CHARACTER(HAN)] = { 87, 113, 113, 73 },
    [RUN(KANA)] = { 46, 6, 6, 6 },
    [CHARACTER(KANA)] = { 65, 69, 70, 37 },
    [RUN(HANGUL)] = { 21, 45, 46, 19 },
    [CHARACTER(HANGUL)] = { 68, 121, 120, 64 },
    [RUN(SYMBOL)] = { 0, 12, 37, 14 },
    [CHARACTER(SYMBOL)] = { 84, 50, 50, 152 },
    [RUN(EMOJI)] = { 31, 37, 39, 28 },
    [CHARACTER(EMOJI)] = { 201, 207, 209, 198 },
    [RUN(OTHER)] = { 6, 6, 6, 6 },
    [CHARACTER(OTHER)] = { 46, 93, 95, 51 },
};

/* ---- characters -------------------------------------------------------------------------------------------------- */

enum kind { END, SMALL, LARGE, LATIN, DIGIT, BLANK, BREAK, TABULATOR, PUNCTUATION, FOREIGN };

static const struct range {
    uint32_t last;
    uint8_t kind, script;
} ranges[] = {
    /* Unicode's blocks, by the last character of each stretch of one kind */
    { 0xbf, FOREIGN, SYMBOL },     { 0x2ff, LATIN, 0 },           { 0x36f, FOREIGN, OTHER },
    { 0x3ff, FOREIGN, GREEK },     { 0x52f, FOREIGN, CYRILLIC },  { 0x58f, FOREIGN, OTHER },
    { 0x5ff, FOREIGN, HEBREW },    { 0x6ff, FOREIGN, ARABIC },    { 0x74f, FOREIGN, OTHER },
    { 0x77f, FOREIGN, ARABIC },    { 0x8ff, FOREIGN, OTHER },     { 0xdff, FOREIGN, INDIC },
    { 0xe7f, FOREIGN, THAI },      { 0x10ff, FOREIGN, OTHER },    { 0x11ff, FOREIGN, HAN },
    { 0x1dff, FOREIGN, OTHER },    { 0x1eff, LATIN, 0 },          { 0x1fff, FOREIGN, GREEK },
    { 0x2e7f, FOREIGN, SYMBOL },   { 0x303f, FOREIGN, HAN },      { 0x30ff, FOREIGN, KANA },
    { 0x9fff, FOREIGN, HAN },      { 0xabff, FOREIGN, OTHER },    { 0xd7af, FOREIGN, HANGUL },
    { 0xf8ff, FOREIGN, OTHER },    { 0xfaff, FOREIGN, HAN },      { 0xfb4f, FOREIGN, OTHER },
    { 0xfdff, FOREIGN, ARABIC },   { 0xfe6f, FOREIGN, OTHER },    { 0xfefe, FOREIGN, ARABIC },
    { 0xff65, FOREIGN, HAN },      { 0xffff, FOREIGN, OTHER },    { UINT32_MAX, FOREIGN, EMOJI },
};

/* The place in the text: the character there, and its kind. */
struct scan {
    const unsigned char *p, *end;
    uint32_t c;
    uint8_t bytes, kind, script;
};

static uint32_t hex4(const unsigned char *p) {
    uint32_t v = 0;
    for (int i = 0; i < 4; i++)
        v = v << 4 | (p[i] <= '9' ? p[i] - (uint32_t)'0' : (p[i] | 32u) - 'a' + 10);
    return v;
}

/* A JSON escape; half of a pair counts as the whole, for both lie beyond the basic plane. */
static uint32_t escaped(const unsigned char *p, size_t left, uint8_t *bytes) {
    *bytes = left >= 6 && p[1] == 'u' ? 6 : left >= 2 ? 2 : 1;
    if (*bytes == 6) {
        uint32_t c = hex4(p + 2);
        if (c < 0xd800 || c > 0xdbff || left < 12)
            return c;
        *bytes = 12;
        return 0x10000 + ((c & 0x3ff) << 10);
    }
    switch (*bytes == 2 ? p[1] : 0) {
    case 'n':
    case 'r': return '\n';
    case 't': return '\t';
    case 0: return '\\';
    default: return p[1];
    }
}

static uint8_t ascii_kind(uint32_t c) {
    if (c >= 'a' && c <= 'z')
        return SMALL;
    if (c >= 'A' && c <= 'Z')
        return LARGE;
    if (c >= '0' && c <= '9')
        return DIGIT;
    return c == ' ' ? BLANK : c == '\n' || c == '\r' ? BREAK : c == '\t' ? TABULATOR : PUNCTUATION;
}

static void look(struct scan *s) {
    size_t left = (size_t)(s->end - s->p);
    s->kind = END;
    s->bytes = 1;
    if (left == 0)
        return;
    s->c = s->p[0];
    if (s->c == '\\')
        s->c = escaped(s->p, left, &s->bytes);
    else if (s->c >= 0xf0 && left >= 4)
        s->c = 0x10000, s->bytes = 4; /* which one does not matter */
    else if (s->c >= 0xe0 && left >= 3)
        s->c = (s->c & 15u) << 12 | (s->p[1] & 63u) << 6 | (s->p[2] & 63u), s->bytes = 3;
    else if (s->c >= 0xc0 && left >= 2)
        s->c = (s->c & 31u) << 6 | (s->p[1] & 63u), s->bytes = 2;
    if (s->c < 0x80) {
        s->kind = ascii_kind(s->c);
        return;
    }
    const struct range *r = ranges;
    while (r->last < s->c)
        r++;
    s->kind = r->kind;
    s->script = r->script;
}

static void step(struct scan *s) {
    s->p += s->bytes;
    look(s);
}

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

static bool is_letter(uint8_t kind) { return kind == SMALL || kind == LARGE || kind == LATIN; }
static bool in_word(uint8_t kind) { return is_letter(kind) || kind == DIGIT; }

static uint64_t w(enum unit u, enum weigh_by by) { return weights[u][by]; }

/* Letters up to where a tokenizer cuts them: behind capitals, and before one (getHTTPServer: get, HTTP, Server). */
static uint64_t weigh_word(struct scan *s, uint8_t before, enum weigh_by by) {
    size_t n = 0;
    bool capitals = s->kind == LARGE, accented = false;
    struct scan last = *s;
    for (; s->kind == LARGE; n++) {
        last = *s;
        step(s);
    }
    if (n > 1 && is_letter(s->kind)) {
        *s = last; /* the word behind begins with it */
        n--;
    } else {
        for (; s->kind == SMALL || s->kind == LATIN; n++) {
            capitals = false;
            accented |= s->kind == LATIN;
            step(s);
        }
    }
    if (accented)
        return w(ACCENTED, by) + n * w(ACCENTED_LETTER, by);
    if (n <= PIECE_LETTERS && (in_word(before) || in_word(s->kind)))
        return w(PIECE, by);
    if (capitals)
        return n == 1 ? w(CAPITAL, by) : w(CAPITALS, by) + (n - 2) * w(CAPITALS_LETTER, by);
    size_t near = n < WORD_LETTERS ? n : WORD_LETTERS;
    return w(WORD, by) + (near - 1) * w(WORD_LETTER, by) + (n - near) * w(WORD_LETTER_LONG, by);
}

static size_t run(struct scan *s) {
    struct scan first = *s;
    size_t n = 0;
    do {
        step(s);
        n++;
    } while (s->kind == first.kind && (s->kind != PUNCTUATION || s->c == first.c) &&
             (s->kind != FOREIGN || s->script == first.script));
    return n;
}

uint64_t weigh_text(struct slice text, enum weigh_by by) {
    struct scan s = { .p = (const unsigned char *)text.ptr, .end = (const unsigned char *)text.ptr + text.len };
    uint64_t sum = 0;
    uint8_t before = END;
    CHECK(by < WEIGH_KINDS);
    look(&s);
    while (s.kind != END) {
        uint8_t kind = s.kind, script = s.script;
        if (is_letter(kind)) {
            sum += weigh_word(&s, before, by);
            before = SMALL;
            continue;
        }
        size_t n = run(&s);
        switch (kind) {
        case DIGIT:
            sum += w(NUMBER, by) + n * w(NUMBER_DIGIT, by) + (before == BLANK ? w(NUMBER_SPACED, by) : 0);
            break;
        case BLANK: sum += n > 1 ? (1 + (n - 1) / SPACES_STEP) * w(SPACES, by) : 0; break;
        case BREAK: sum += w(LINE, by) + (n > 1 ? w(LINE_MORE, by) : 0); break;
        case TABULATOR: sum += w(TAB, by); break;
        case PUNCTUATION:
            sum += w(before == PUNCTUATION ? SIGN_MORE : SIGN, by) + (n - 1) / SIGN_STEP * w(SIGN_FOUR, by);
            break;
        default: sum += w(RUN(script), by) + n * w(CHARACTER(script), by);
        }
        before = kind;
    }
    return sum;
}
