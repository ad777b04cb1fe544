/* Words → statements → the tree. A statement is words up to `;` or `{`. What is wrong is reported and stepped over, so
 * that one run shows every error: an unknown block is skipped whole, a forgotten `;` splits where the next line begins
 * with a directive of the block.
 *
 * include GLOB; may stand anywhere, relative to the file it stands in, MAX_DEPTH deep; a file that includes itself,
 * however far round, is an error. A pattern with * ? [ may match nothing, a plain path must exist. */
#include "master/conf_tree.h"

#include <glob.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { MAX_DEPTH = 8, MAX_WORDS = 1024, MAX_FILES = 1000, MAX_FILE_BYTES = 16 << 20 };

/* The files being read, innermost first; in the pool, so that what a glob holds can be freed after a longjmp. */
struct conf_includes {
    struct conf_includes *outer;
    glob_t found;
    bool found_set;
    dev_t dev;
    ino_t ino;
    unsigned depth;
};

struct parser {
    struct conf *c;
    struct conf_lexer lexer;
    struct conf_word *words; /* the statement's; its first is the directive */
    uint32_t count;
    bool bad; /* a word of it was reported already */
};

static void read_block(struct parser *p, struct conf_block *b, bool inner, struct conf_pos opened);
static void simple(struct parser *p, struct conf_block *b, uint32_t from);

/* ---- suggestions ---- */

struct nearest {
    const char *name;
    unsigned distance;
    int score;
    enum conf_kind in;
};

/* A name that begins alike is what was meant, sooner than one that is as far away: retry is retries, not query. */
static void try_name(struct nearest *n, const char *candidate, const char *name, enum conf_kind in) {
    size_t a = strlen(candidate), b = strlen(name);
    if (n->name && 2 * (int)(a > b ? a - b : b - a) - 3 >= n->score)
        return; /* cannot be nearer: lengths alone differ by more */
    unsigned d = conf_distance(candidate, name), alike = 0;
    while (alike < 3 && name[alike] && name[alike] == candidate[alike]) alike++;
    int score = (int)(2 * d) - (int)alike;
    if (!n->name || score < n->score) *n = (struct nearest){ candidate, d, score, in };
}
static bool is_near(const struct nearest *n, const char *name) {
    return n->name && n->distance <= (strlen(name) + 1) / 2 && n->distance < strlen(n->name);
}

static enum conf_kind block_kind(const char *name) {
    enum conf_kind k = CONF_BRAND;
    while (k < CONF_KINDS && strcmp(conf_blocks[k].name, name) != 0) k++;
    return k;
}

static const char *where(struct conf *c, enum conf_kind k) {
    return k == CONF_MAIN ? "outside all blocks" : conf_format(c, "in block `%s`", conf_blocks[k].name);
}

/* All names that may stand in that kind of block. */
static void try_block(struct nearest *n, const char *name, enum conf_kind k) {
    for (uint32_t i = 0; i < conf_blocks[k].count; i++) try_name(n, conf_blocks[k].directives[i].name, name, k);
    if (k != CONF_MAIN) return;
    try_name(n, "include", name, k);
    for (enum conf_kind b = CONF_BRAND; b < CONF_KINDS; b++) try_name(n, conf_blocks[b].name, name, k);
}

/* Known elsewhere? Else near to a name of this block; of another; else whatever is nearest here. */
static void unknown(struct conf *c, const struct conf_word *w, enum conf_kind here) {
    const char *places = NULL;
    if (conf_errors_full(c)) {
        conf_error(c, w->pos, "unknown directive"); /* will not be shown: not worth the search */
        return;
    }
    for (enum conf_kind k = 0; k < CONF_KINDS; k++)
        if (conf_find(k, w->text)) places = places ? conf_format(c, "%s or %s", places, where(c, k)) : where(c, k);
    if (block_kind(w->text) != CONF_KINDS) places = where(c, CONF_MAIN);
    struct nearest inside = { 0 }, anywhere = { 0 };
    try_block(&inside, w->text, here);
    for (enum conf_kind k = 0; !places && !is_near(&inside, w->text) && k < CONF_KINDS; k++)
        try_block(&anywhere, w->text, k);
    if (places) conf_error(c, w->pos, "`%s` is misplaced: it belongs %s", w->text, places);
    else if (is_near(&inside, w->text))
        conf_error(c, w->pos, "unknown directive `%s`; did you mean `%s`?", w->text, inside.name);
    else if (is_near(&anywhere, w->text) && anywhere.distance <= strlen(w->text) / 3)
        conf_error(c, w->pos, "unknown directive `%s`; did you mean `%s`, which belongs %s?", w->text, anywhere.name,
                   where(c, anywhere.in));
    else conf_error(c, w->pos, "unknown directive `%s`; the nearest here is `%s`", w->text, inside.name);
}

/* ---- include ---- */

void conf_includes_close(struct conf *c) {
    for (struct conf_includes *i = c->outer; i; i = i->outer)
        if (i->found_set) globfree(&i->found);
    c->outer = NULL;
}

static void include_file(struct parser *outer, struct conf_block *b, const char *path, struct conf_pos pos) {
    struct conf *c = outer->c;
    struct conf_includes *chain = c->outer;
    struct stat st;
    if (stat(path, &st) == 0)
        for (struct conf_includes *i = chain; i; i = i->outer)
            if (i->ino == st.st_ino && i->dev == st.st_dev) {
                conf_error(c, pos, "%s includes itself", path);
                return;
            }
    const char *why;
    size_t len;
    char *text = conf_read_file(c, path, MAX_FILE_BYTES, &len, &why);
    if (!text) {
        conf_error(c, pos, "%s cannot be read: %s", path, why);
        return;
    }
    struct conf_file *file = conf_alloc(c, sizeof *file);
    file->path = path;
    const char *slash = strrchr(path, '/');
    file->folder = slash ? conf_path(c, NULL, conf_copy(c, path, (size_t)(slash - path) + 1))
                         : outer->lexer.file->folder;
    struct conf_includes *here = conf_alloc(c, sizeof *here);
    *here = (struct conf_includes){ .outer = chain, .dev = st.st_dev, .ino = st.st_ino, .depth = chain->depth + 1 };
    struct parser p = { .c = c, .words = conf_alloc(c, MAX_WORDS * sizeof(struct conf_word)) };
    c->outer = here;
    conf_lex_init(&p.lexer, c, file, slice_of(text, len));
    read_block(&p, b, false, pos);
    c->outer = chain;
}

static void include(struct parser *p, struct conf_block *b) {
    struct conf *c = p->c;
    const struct conf_word *w = &p->words[1];
    struct conf_includes *in = c->outer;
    if (p->count != 2) {
        conf_error(c, p->words[0].pos, "include takes one path or pattern");
        return;
    }
    if (c->offline) {
        conf_error(c, w->pos, "include is not possible here");
        return;
    }
    if (in->depth >= MAX_DEPTH) {
        conf_error(c, w->pos, "files include each other more than %d deep", MAX_DEPTH);
        return;
    }
    const char *pattern = conf_path(c, p->lexer.file, w->text);
    if (!strpbrk(w->text, "*?[")) {
        include_file(p, b, pattern, w->pos);
        return;
    }
    CHECK(!in->found_set);
    int rc = glob(pattern, 0, NULL, &in->found);
    in->found_set = rc == 0;
    if (rc == GLOB_NOMATCH) return;
    if (rc != 0) {
        conf_error(c, w->pos, "`%s` cannot be looked up", w->text);
        return;
    }
    for (size_t i = 0; i < in->found.gl_pathc; i++) {
        if (i == MAX_FILES) {
            conf_error(c, w->pos, "`%s` is more than %d files", w->text, MAX_FILES);
            break;
        }
        include_file(p, b, conf_copy(c, in->found.gl_pathv[i], strlen(in->found.gl_pathv[i])), w->pos);
    }
    globfree(&in->found);
    in->found_set = false;
}

/* ---- statements ---- */

/* How many arguments the shape takes. */
static void arity(const struct conf_directive *d, uint32_t *least, uint32_t *most) {
    *least = 1;
    *most = d->shape == SHAPE_WORDS || d->shape == SHAPE_GLOBS ? MAX_WORDS : d->shape == SHAPE_LIMIT ? 3 : 1;
    if (d->shape == SHAPE_OTHER) {
        *least = (uint32_t)d->min;
        *most = (uint32_t)d->max;
    }
}

/* A `;` was forgotten where a line begins with a directive of the block: what follows there is a statement of its own.
 * Not in lists of words, where anything may begin a line. */
static void split(struct parser *p, struct conf_block *b, uint32_t from) {
    for (uint32_t i = from + 1; i < p->count; i++) {
        const struct conf_word *before = &p->words[i - 1], *w = &p->words[i];
        if (w->pos.line == before->pos.line || w->quoted || !conf_find(b->kind, w->text)) continue;
        struct conf_pos end = { before->pos.file, before->pos.line, before->end_column };
        conf_error(p->c, end, "`;` is missing at the end of this line");
        simple(p, b, i);
        p->count = i;
    }
}

/* The statement words[from…]. */
static void simple(struct parser *p, struct conf_block *b, uint32_t from) {
    struct conf *c = p->c;
    const struct conf_word *name = &p->words[from];
    const struct conf_directive *d = conf_find(b->kind, name->text);
    uint32_t least = 0, most = 0;
    if (d) arity(d, &least, &most);
    if (!d || (d->shape != SHAPE_WORDS && d->shape != SHAPE_GLOBS)) split(p, b, from);
    if (!d && b->kind == CONF_MAIN && block_kind(name->text) != CONF_KINDS)
        conf_error(c, name->pos, "`%s` is a block: { is missing", name->text);
    else if (!d) unknown(c, name, b->kind);
    if (!d) return;
    struct conf_args a = {
        .conf = c, .block = b, .directive = d, .at = name + 1, .count = p->count - from - 1, .pos = name->pos
    };
    struct conf_pos *set = &b->set[d - conf_blocks[b->kind].directives];
    bool again = set->file != NULL;
    if (!again) *set = name->pos;
    if (again && !d->repeat)
        conf_error(c, name->pos, "`%s` stands twice; it is already set %s", d->name, conf_at(c, *set, name->pos.file));
    else if (a.count < least) conf_error(c, name->pos, "%s takes %s", d->name, d->args);
    else if (a.count > most)
        conf_error(c, a.at[most].pos, "too much: %s takes %s", d->name,
                   d->args); /* not the word: it may be of a secret */
    else conf_set(&a);
}

static struct conf_list *blocks_of(struct conf *c, enum conf_kind k) {
    return k == CONF_TIER ? &c->tiers : k == CONF_GROUP ? &c->groups : k == CONF_UPSTREAM ? &c->upstreams : &c->models;
}

/* The struct a block's directives go to. One with a wrong or doubled name is read too, into a struct that nothing
 * refers to. */
static struct conf_block *new_block(struct parser *p, enum conf_kind k) {
    struct conf *c = p->c;
    const struct conf_block_info *info = &conf_blocks[k];
    if (p->count > (info->named ? 2u : 1u)) {
        conf_error(c, p->words[info->named ? 2 : 1].pos, "`%s`: { is expected", p->words[info->named ? 2 : 1].text);
    }
    if (!info->named) {
        struct conf_block *b = k == CONF_BRAND ? &c->brand.block : &c->billing.block;
        if (b->pos.file)
            conf_error(c, p->words[0].pos, "`%s` stands twice; the first is %s", info->name,
                       conf_at(c, b->pos, p->words[0].pos.file));
        else b->pos = p->words[0].pos;
        return b;
    }
    const struct conf_word *name = p->count > 1 ? &p->words[1] : &p->words[0];
    const char *bad = p->count < 2 ? NULL : k == CONF_MODEL ? conf_model_name(name->text, true) : conf_name(name->text);
    struct conf_block *b = conf_alloc(c, info->bytes);
    bool family = k == CONF_MODEL && name->len && name->text[name->len - 1] == '*';
    conf_block_init(c, b, k, family ? conf_copy(c, name->text, name->len - 1) : name->text, name->pos);
    if (k == CONF_MODEL) ((struct conf_model *)b)->family = family;
    if (p->count < 2) {
        conf_error(c, p->words[0].pos, "a name is missing behind `%s`", info->name);
        return b;
    }
    if (bad) {
        conf_error(c, name->pos, "`%s`: %s", name->text, bad);
        return b;
    }
    conf_add(c, blocks_of(c, k), b); /* names that stand twice: conf_check.c */
    return b;
}

/* Behind an unknown {: to its }. */
static void skip_block(struct parser *p) {
    struct conf_word w;
    for (unsigned open = 1; open;) {
        enum conf_token t = conf_lex(&p->lexer, &w);
        if (t == TOKEN_END) return;
        if (t == TOKEN_OPEN) open++;
        if (t == TOKEN_CLOSE) open--;
    }
}

static void block(struct parser *p, struct conf_block *outer) {
    struct conf *c = p->c;
    const struct conf_word *name = &p->words[0];
    if (p->count == 0) {
        conf_error(c, (struct conf_pos){ p->lexer.file, p->lexer.line, p->lexer.column - 1 }, "a block needs a name");
        skip_block(p);
        return;
    }
    enum conf_kind k = block_kind(name->text);
    if (k == CONF_KINDS || outer->kind != CONF_MAIN) {
        if (conf_find(outer->kind, name->text))
            conf_error(c, name->pos, "`%s` takes no block; it takes %s", name->text,
                       conf_find(outer->kind, name->text)->args);
        else unknown(c, name, outer->kind);
        skip_block(p);
        return;
    }
    struct conf_pos opened = name->pos;
    read_block(p, new_block(p, k), true, opened);
}

static void end_statement(struct parser *p, struct conf_block *b, enum conf_token t) {
    if (p->bad) {
        if (t == TOKEN_OPEN) skip_block(p);
    } else if (t == TOKEN_OPEN) block(p, b);
    else if (p->count == 0) {
    } else if (strcmp(p->words[0].text, "include") == 0) include(p, b);
    else simple(p, b, 0);
    p->count = 0;
    p->bad = false;
}

/* Statements up to the block's } (inner) or the file's end. */
static void read_block(struct parser *p, struct conf_block *b, bool inner, struct conf_pos opened) {
    struct conf *c = p->c;
    struct conf_word w;
    p->count = 0;
    p->bad = false;
    for (;;) {
        enum conf_token t = conf_lex(&p->lexer, &w);
        if (t == TOKEN_BAD) p->bad = true;
        else if (t == TOKEN_WORD && p->count < MAX_WORDS) p->words[p->count++] = w;
        else if (t == TOKEN_WORD) {
            if (!p->bad) conf_error(c, w.pos, "more than %d words in one directive", MAX_WORDS);
            p->bad = true;
        } else if (t == TOKEN_SEMICOLON || t == TOKEN_OPEN) end_statement(p, b, t);
        else {
            if (p->count && !p->bad) {
                struct conf_pos end = p->words[p->count - 1].pos;
                end.column = p->words[p->count - 1].end_column;
                conf_error(c, end, "`;` is missing behind `%s`", p->words[0].text);
                end_statement(p, b, TOKEN_SEMICOLON);
            }
            p->count = 0;
            p->bad = false;
            if (t == TOKEN_END && inner) conf_error(c, opened, "this block is not closed: } is missing");
            if (t == TOKEN_END || inner) return;
            conf_error(c, w.pos, "this } closes nothing");
        }
    }
}

void conf_parse(struct conf *c, const struct conf_file *file, struct slice text) {
    struct stat st = { 0 };
    if (!c->offline) (void)!stat(file->path, &st);
    struct conf_includes *here = conf_alloc(c, sizeof *here);
    here->dev = st.st_dev;
    here->ino = st.st_ino;
    struct parser p = { .c = c, .words = conf_alloc(c, MAX_WORDS * sizeof(struct conf_word)) };
    c->outer = here;
    conf_lex_init(&p.lexer, c, file, text);
    read_block(&p, &c->main.block, false, (struct conf_pos){ 0 });
    c->outer = NULL;
}
