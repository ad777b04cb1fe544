/* The tree → text that parses to the same tree. Only what the files say is printed, includes inlined, paths absolute,
 * defaults left out, in the table's order; so printing what was printed changes nothing. A secret is printed as where
 * it comes from; one that stood in the file itself as "********" with a comment, which is the one thing that does not
 * read back the same. */
#include "master/conf_tree.h"

#include <inttypes.h>

void conf_print_secret(FILE *out, const struct conf_secret *s) {
    if (s->source) {
        conf_put_word(out, s->source);
        fputs(";\n", out);
    } else fputs("\"********\"; # a literal secret, not shown\n", out);
}

static void put_words(FILE *out, const struct conf_list *words) {
    CONF_EACH(*words, const struct conf_word, w) {
        fputc(' ', out);
        conf_put_word(out, w->text);
    }
}

static void put_limit(FILE *out, const struct conf_limit *l) {
    fprintf(out, " %" PRIu64, l->limit);
    if (l->burst != l->limit) fprintf(out, " burst %" PRIu64, l->burst);
}

/* The value behind the name. */
static void put_value(FILE *out, const struct conf_directive *d, const void *at) {
    char word[32];
    const uint64_t *number = at;
    if (d->shape == SHAPE_GLOBS || d->shape == SHAPE_WORDS) {
        put_words(out, at);
        return;
    }
    if (d->shape == SHAPE_LIMIT) {
        put_limit(out, at);
        return;
    }
    fputc(' ', out);
    switch (d->shape) {
    case SHAPE_FLAG: fputs(*number ? "on" : "off", out); break;
    case SHAPE_COUNT: fprintf(out, "%" PRIu64, *number); break;
    case SHAPE_SIZE: conf_put_size(out, *number); break;
    case SHAPE_TIME: conf_put_time(out, *number); break;
    case SHAPE_RATIO: conf_put_decimal(out, *number, 6); break;
    case SHAPE_NANO: conf_put_decimal(out, *number, 9); break;
    case SHAPE_PER_H: fprintf(out, "%" PRIu64 "/h", *number); break;
    case SHAPE_ENUM: fputs(conf_enum_word(d, *number, word), out); break;
    case SHAPE_TEXT:
    case SHAPE_PATH: conf_put_word(out, *(const char *const *)at); break;
    default: CHECK(false);
    }
}

static void print_directive(const struct conf_directive *d, const struct conf_block *b, FILE *out) {
    const char *indent = b->kind == CONF_MAIN ? "" : "    ";
    const void *at = (const char *)b + d->offset;
    if (d->shape == SHAPE_OTHER) {
        d->print(d, b, out);
        return;
    }
    if (d->shape == SHAPE_SECRETS) {
        CONF_EACH(*(const struct conf_list *)at, const struct conf_secret, s) {
            fprintf(out, "%s%s ", indent, d->name);
            conf_print_secret(out, s);
        }
        return;
    }
    fprintf(out, "%s%s", indent, d->name);
    if (d->shape == SHAPE_SECRET) {
        fputc(' ', out);
        conf_print_secret(out, at);
        return;
    }
    put_value(out, d, at);
    fputs(";\n", out);
}

static void print_directives(const struct conf_block *b, FILE *out) {
    const struct conf_block_info *info = &conf_blocks[b->kind];
    for (uint32_t i = 0; i < info->count; i++)
        if (b->set[i].file) print_directive(&info->directives[i], b, out);
}

static void print_block(const struct conf_block *b, FILE *out) {
    if (b->implicit || !b->pos.file) return;
    fputs(conf_blocks[b->kind].name, out);
    if (conf_blocks[b->kind].named) {
        bool family = b->kind == CONF_MODEL && ((const struct conf_model *)b)->family;
        fprintf(out, " %s%s", b->name, family ? "*" : ""); /* names need no quotes */
    }
    fputs(" {\n", out);
    print_directives(b, out);
    fputs("}\n", out);
}

void conf_print(const struct conf *c, FILE *out) {
    print_directives(&c->main.block, out);
    print_block(&c->brand.block, out);
    print_block(&c->billing.block, out);
    const struct conf_list *lists[] = { &c->tiers, &c->groups, &c->upstreams, &c->models };
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        CONF_EACH(*lists[i], const struct conf_block, b) print_block(b, out);
}
