/* gateway.conf's bytes → words.
 *
 * A word is a run of bytes up to white space, `;`, `{` or `}`; a backslash takes the next byte as it is. A word that
 * begins with " or ' runs to the same quote on the same line, with the escapes \" \' \\ \n \r \t. `#` where a word
 * could begin starts a comment. Columns count characters, not bytes. Control characters and what is not UTF-8 are
 * errors: names and values end up in HTTP heads, JSON and logs. */
#include "master/conf_tree.h"

enum { MAX_WORD = 8192 };

void conf_lex_init(struct conf_lexer *l, struct conf *c, const struct conf_file *file, struct slice text) {
    *l = (struct conf_lexer){
        .conf = c, .file = file, .at = text.ptr, .end = text.ptr + text.len, .line = 1, .column = 1
    };
    if (slice_starts(text, SLICE("\xef\xbb\xbf"))) l->at += 3; /* a byte order mark */
}

static struct conf_pos here(const struct conf_lexer *l) { return (struct conf_pos){ l->file, l->line, l->column }; }

/* Bytes of the character at p (RFC 3629); 0: none. */
static size_t utf8_len(const char *p, const char *end) {
    const uint8_t *s = (const uint8_t *)p;
    size_t left = (size_t)(end - p), n = s[0] < 0x80   ? 1
                                         : s[0] < 0xc2 ? 0
                                         : s[0] < 0xe0 ? 2
                                         : s[0] < 0xf0 ? 3
                                         : s[0] < 0xf5 ? 4
                                                       : 0;
    if (n > left) return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if (n > 2 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
                  (s[0] == 0xf4 && s[1] > 0x8f)))
        return 0;
    return n;
}

static void step(struct conf_lexer *l, size_t n) {
    if (*l->at == '\n') {
        l->line++;
        l->column = 1;
    } else l->column++;
    l->at += n;
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

/* A character that may stand in a word; NULL or what is wrong. */
static const char *bad_character(const struct conf_lexer *l, size_t *n) {
    *n = utf8_len(l->at, l->end);
    if (*n == 0) {
        *n = 1;
        return "this is not UTF-8";
    }
    if ((uint8_t)*l->at < 0x20 || *l->at == 0x7f) return "a control character";
    return NULL;
}

static void skip_blank(struct conf_lexer *l) {
    while (l->at < l->end) {
        if (*l->at == '#')
            while (l->at < l->end && *l->at != '\n') {
                size_t n = utf8_len(l->at, l->end);
                step(l, n ? n : 1);
            }
        else if (is_space(*l->at)) step(l, 1);
        else break;
    }
}

/* One character of a quoted word; \ and what follows is one. NULL or what is wrong. */
static const char *quoted_character(struct conf_lexer *l, char *to, size_t *n) {
    if (*l->at != '\\') {
        const char *bad = bad_character(l, n);
        memcpy(to, l->at, *n);
        step(l, *n);
        return bad;
    }
    static const char escapes[] = "\"'\\nrt", meaning[] = "\"'\\\n\r\t";
    const char *e = l->at + 1 < l->end && l->at[1] ? strchr(escapes, l->at[1]) : NULL;
    *n = 1;
    step(l, 1);
    if (!e) return "this escape is unknown; there are \\\" \\' \\\\ \\n \\r \\t";
    *to = meaning[e - escapes];
    step(l, 1);
    return NULL;
}

/* Both readers take the word whole, whatever is wrong in it, so that one error does not make many. */
static bool read_quoted(struct conf_lexer *l, char *mem, size_t *len) {
    char quote = *l->at;
    struct conf_pos start = here(l);
    bool ok = true;
    for (step(l, 1); l->at < l->end && *l->at != quote;) {
        if (*l->at == '\n') break;
        struct conf_pos pos = here(l);
        char c[4];
        size_t n;
        const char *bad = quoted_character(l, c, &n);
        if (bad && ok) conf_error(l->conf, pos, "%s", bad);
        if (bad) {
            ok = false;
            continue;
        }
        if (*len + n <= MAX_WORD) memcpy(mem + *len, c, n);
        *len += n;
    }
    if (l->at == l->end || *l->at != quote) {
        if (ok) conf_error(l->conf, start, "the string that begins here does not end on its line");
        return false;
    }
    step(l, 1);
    if (l->at < l->end && !is_space(*l->at) && *l->at != ';' && *l->at != '{' && *l->at != '}') {
        if (ok) conf_error(l->conf, here(l), "a space or `;` is missing behind the string");
        return false;
    }
    return ok;
}

static bool read_bare(struct conf_lexer *l, char *mem, size_t *len) {
    bool ok = true;
    while (l->at < l->end && !is_space(*l->at) && *l->at != ';' && *l->at != '{' && *l->at != '}') {
        if (*l->at == '\\' && l->at + 1 < l->end && l->at[1] != '\n') step(l, 1);
        size_t n;
        const char *bad = bad_character(l, &n);
        if (bad && ok) conf_error(l->conf, here(l), "%s", bad);
        if (bad) ok = false;
        else if (*len + n <= MAX_WORD) memcpy(mem + *len, l->at, n);
        *len += n;
        step(l, n);
    }
    return ok;
}

enum conf_token conf_lex(struct conf_lexer *l, struct conf_word *out) {
    skip_blank(l);
    *out = (struct conf_word){ .pos = here(l), .text = "" };
    if (l->at == l->end) return TOKEN_END;
    enum conf_token one = *l->at == ';'   ? TOKEN_SEMICOLON
                          : *l->at == '{' ? TOKEN_OPEN
                          : *l->at == '}' ? TOKEN_CLOSE
                                          : TOKEN_WORD;
    if (one != TOKEN_WORD) {
        step(l, 1);
        return one;
    }
    char mem[MAX_WORD + 4];
    out->quoted = *l->at == '"' || *l->at == '\'';
    bool ok = out->quoted ? read_quoted(l, mem, &out->len) : read_bare(l, mem, &out->len);
    out->end_column = l->column;
    if (ok && out->len > MAX_WORD) {
        conf_error(l->conf, out->pos, "this word is longer than %d bytes", MAX_WORD);
        ok = false;
    }
    if (ok) out->text = conf_copy(l->conf, mem, out->len);
    wipe(mem, out->len < sizeof mem ? out->len : sizeof mem); /* it may be a secret */
    return ok ? TOKEN_WORD : TOKEN_BAD;
}
