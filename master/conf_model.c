/* The directives of a model that have a grammar of their own: route, price and tokens, budgets. */
#include "master/conf_tree.h"

#include <inttypes.h>

#define MAX_PRICE_MILLIONTHS \
    1000000000000ull /* a million dollars: 128 bits hold any sum, and pictures × 10^6 still fit 64 */
enum { MAX_WEIGHT = 1000000 };

const char *const conf_meter_names[METER_COUNT] = {
    [METER_INPUT] = "input",
    [METER_CACHED_INPUT] = "cached_input",
    [METER_CACHE_WRITE] = "cache_write",
    [METER_CACHE_WRITE_1H] = "cache_write_1h",
    [METER_AUDIO_INPUT] = "audio_input",
    [METER_IMAGE_INPUT] = "image_input",
    [METER_OUTPUT] = "output",
    [METER_REASONING] = "reasoning",
    [METER_AUDIO_OUTPUT] = "audio_output",
    [METER_IMAGE_OUTPUT] = "image_output",
    [METER_IMAGES] = "image",
};

/* ---- route UPSTREAM [as NAME] [weight N] [priority N] ---- */

static void route_option(struct conf_args *a, struct conf_route *r, const struct conf_word *key,
                         const struct conf_word *value) {
    const struct conf_model *m = (const void *)a->block;
    if (strcmp(key->text, "as") == 0) {
        const char *star = strchr(value->text, '*');
        if (r->as_pos.file) conf_error(a->conf, key->pos, "`as` stands twice");
        else if (!*value->text) conf_error(a->conf, value->pos, "a model name is expected behind `as`");
        else if (star && !m->family)
            conf_error(a->conf, value->pos, "`%s`: a * here passes what a family's * matched, and `%s` is no family",
                       value->text, a->block->name);
        else if (star && strchr(star + 1, '*')) conf_error(a->conf, value->pos, "`%s`: one * at most", value->text);
        else {
            r->as = value->text;
            r->as_pos = value->pos;
        }
        return;
    }
    uint64_t n;
    bool weight = strcmp(key->text, "weight") == 0;
    const char *bad = conf_number(value->text, &n);
    if (!bad && (n > MAX_WEIGHT || (weight && n == 0)))
        bad = weight ? "a weight is 1 to 1000000; leave the route out instead of 0" : "a priority is 0 to 1000000";
    if (bad) conf_error(a->conf, value->pos, "`%s`: %s", value->text, bad);
    else *(weight ? &r->weight : &r->priority) = (uint32_t)n;
}

void conf_set_route(struct conf_args *a) {
    struct conf_model *m = (struct conf_model *)a->block;
    struct conf_route *r = conf_alloc(a->conf, sizeof *r);
    r->upstream = a->at[0];
    r->weight = 1;
    bool seen[2] = { false, false };
    for (uint32_t i = 1; i < a->count; i += 2) {
        const struct conf_word *key = &a->at[i];
        bool weight = strcmp(key->text, "weight") == 0, priority = strcmp(key->text, "priority") == 0;
        if (!weight && !priority && strcmp(key->text, "as") != 0) {
            conf_error(a->conf, key->pos, "`%s`: as, weight or priority is expected", key->text);
            return;
        }
        if (i + 1 == a->count) {
            conf_error(a->conf, key->pos, "a value is missing behind `%s`", key->text);
            return;
        }
        if ((weight && seen[0]) || (priority && seen[1])) {
            conf_error(a->conf, key->pos, "`%s` stands twice", key->text);
            continue;
        }
        seen[0] |= weight;
        seen[1] |= priority;
        route_option(a, r, key, &a->at[i + 1]);
    }
    if (!r->as) r->as = m->family ? conf_format(a->conf, "%s*", a->block->name) : a->block->name;
    CONF_EACH(m->routes, struct conf_route, other)
        if (strcmp(other->upstream.text, r->upstream.text) == 0 && strcmp(other->as, r->as) == 0) {
            conf_error(a->conf, a->at[0].pos, "this route stands twice: `%s` as `%s`", r->upstream.text, r->as);
            return;
        }
    conf_add(a->conf, &m->routes, r);
}

void conf_print_route(const struct conf_directive *d, const void *block, FILE *out) {
    (void)d;
    CONF_EACH(((const struct conf_model *)block)->routes, const struct conf_route, r) {
        fputs("    route ", out);
        conf_put_word(out, r->upstream.text);
        fputs(" as ", out);
        conf_put_word(out, r->as);
        if (r->weight != 1) fprintf(out, " weight %u", r->weight);
        if (r->priority) fprintf(out, " priority %u", r->priority);
        fputs(";\n", out);
    }
}

/* ---- price and tokens: METER AMOUNT ..., image [SIZE] [QUALITY] AMOUNT, tool NAME AMOUNT, free ---- */

static bool is_amount(const char *s) {
    uint64_t n;
    return conf_decimal(s, 6, &n) == NULL;
}
static bool looks_like_amount(const char *s) { return *s == '-' || (*s && strspn(s, "0123456789.") == strlen(s)); }

static bool is_size(const char *s) { /* 1024x1792, or auto */
    size_t w = strspn(s, "0123456789"), h = s[w] == 'x' ? strspn(s + w + 1, "0123456789") : 0;
    return strcmp(s, "auto") == 0 || (w && h && !s[w + 1 + h]);
}

static bool amount(struct conf_args *a, const struct conf_word *w, uint64_t *out) {
    const char *bad = conf_decimal(w->text, 6, out);
    if (!bad && *out > MAX_PRICE_MILLIONTHS) bad = "this is too large";
    if (bad) conf_error(a->conf, w->pos, "`%s`: %s", w->text, bad);
    return !bad;
}

/* Behind `image`: up to two words and the amount. Returns how many words it took; 0: an error that ends the directive.
 */
static uint32_t image_price(struct conf_args *a, struct conf_prices *p, uint32_t i, bool plain_only) {
    struct conf_image_price price = { "", "", 0 };
    uint32_t begin = i;
    for (; i < a->count && !looks_like_amount(a->at[i].text); i++) {
        const struct conf_word *w = &a->at[i];
        bool size = is_size(w->text) && !(strcmp(w->text, "auto") == 0 && *price.size); /* `auto` is a word of both */
        const char **to = size ? &price.size : &price.quality;
        if (plain_only || **to || !*w->text || i > begin + 1) {
            conf_error(a->conf, w->pos, "`%s`: %s", w->text,
                       plain_only ? "an amount is expected behind `image`"
                                  : "`image [SIZE] [QUALITY] AMOUNT` is expected");
            return 0;
        }
        *to = w->text;
    }
    if (i == a->count) {
        conf_error(a->conf, a->at[begin - 1].pos, "an amount is missing behind `image`");
        return 0;
    }
    if (!amount(a, &a->at[i], &price.usd_millionths)) return i + 1 - begin;
    CONF_EACH(p->images, struct conf_image_price, other)
        if (strcmp(other->size, price.size) == 0 && strcmp(other->quality, price.quality) == 0) {
            conf_error(a->conf, a->at[begin - 1].pos, "a price for this kind of picture is already given");
            return i + 1 - begin;
        }
    struct conf_image_price *copy = conf_alloc(a->conf, sizeof *copy);
    *copy = price;
    conf_add(a->conf, &p->images, copy);
    p->given |= 1u << METER_IMAGES;
    if (!*price.size && !*price.quality) p->per_million[METER_IMAGES] = price.usd_millionths;
    return i + 1 - begin;
}

static uint32_t tool_price(struct conf_args *a, struct conf_prices *p, uint32_t i) {
    if (i + 1 >= a->count) {
        conf_error(a->conf, a->at[i - 1].pos, "`tool NAME AMOUNT` is expected");
        return 0;
    }
    const char *name = a->at[i].text;
    if (!*name || is_amount(name)) {
        conf_error(a->conf, a->at[i].pos, "`%s`: the tool's name is expected", name);
        return 0;
    }
    enum tool_kind kind = tool_named(slice_str(name));
    if (kind == TOOL_KINDS)
        conf_error(a->conf, a->at[i].pos, "uses of a tool `%s` are not counted; there are: web_search web_fetch "
                   "x_search file_search code_execution image_generation", name);
    else if (p->tools_given & 1u << kind)
        conf_error(a->conf, a->at[i].pos, "a price for the tool `%s` is already given", tool_names[kind]);
    else if (amount(a, &a->at[i + 1], &p->tools[kind])) p->tools_given |= 1u << kind;
    return 2;
}

static void unknown_meter(struct conf_args *a, const struct conf_word *w) {
    const char *nearest = NULL;
    unsigned least = 4;
    for (unsigned m = 0; m < METER_COUNT; m++) {
        unsigned distance = conf_distance(w->text, conf_meter_names[m]);
        if (distance < least && distance < strlen(conf_meter_names[m])) {
            least = distance;
            nearest = conf_meter_names[m];
        }
    }
    if (nearest) conf_error(a->conf, w->pos, "`%s` has no price; did you mean `%s`?", w->text, nearest);
    else
        conf_error(a->conf, w->pos,
                   "`%s` has no price; there are: input output cached_input cache_write cache_write_1h audio_input "
                   "audio_output image_input image_output reasoning image%s",
                   w->text, strcmp(a->directive->name, "price") == 0 ? ", tool NAME" : "");
}

void conf_set_price(struct conf_args *a) {
    struct conf_prices *p = (void *)((char *)a->block + a->directive->offset);
    bool dollars = strcmp(a->directive->name, "price") == 0;
    if (dollars && strcmp(a->at[0].text, "free") == 0) {
        if (a->count > 1) conf_error(a->conf, a->at[1].pos, "nothing follows `free`");
        else if (p->free || p->given || p->tools_given)
            conf_error(a->conf, a->at[0].pos, "this model already has a price");
        else p->free = true;
        return;
    }
    if (p->free) {
        conf_error(a->conf, a->at[0].pos, "this model is already `free`");
        return;
    }
    for (uint32_t i = 0, took; i < a->count; i += 1 + took) {
        const struct conf_word *w = &a->at[i];
        unsigned m = 0;
        while (m < METER_COUNT && strcmp(conf_meter_names[m], w->text) != 0) m++;
        if (m == METER_IMAGES) took = image_price(a, p, i + 1, !dollars);
        else if (dollars && strcmp(w->text, "tool") == 0) took = tool_price(a, p, i + 1);
        else if (m == METER_COUNT) {
            unknown_meter(a, w);
            return;
        } else if (i + 1 == a->count) {
            conf_error(a->conf, w->pos, "an amount is missing behind `%s`", w->text);
            return;
        } else {
            took = 1;
            if (p->given & 1u << m) conf_error(a->conf, w->pos, "`%s` is already given", w->text);
            else
                amount(a, &a->at[i + 1], &p->per_million[m]); /* given even if wrong: no second error for its absence */
            p->given |= 1u << m;
        }
        if (!took) return;
    }
}

void conf_print_price(const struct conf_directive *d, const void *block, FILE *out) {
    const struct conf_prices *p = (const void *)((const char *)block + d->offset);
    if (p->free) fprintf(out, "    %s free;\n", d->name);
    bool any = false;
    for (unsigned m = 0; m < METER_IMAGES; m++) {
        if (!(p->given & 1u << m)) continue;
        if (any) fprintf(out, " %s ", conf_meter_names[m]);
        else fprintf(out, "    %s %s ", d->name, conf_meter_names[m]);
        conf_put_decimal(out, p->per_million[m], 6);
        any = true;
    }
    if (any) fputs(";\n", out);
    CONF_EACH(p->images, const struct conf_image_price, i) {
        fprintf(out, "    %s image ", d->name);
        if (*i->size) {
            conf_put_word(out, i->size);
            fputc(' ', out);
        }
        if (*i->quality) {
            conf_put_word(out, i->quality);
            fputc(' ', out);
        }
        conf_put_decimal(out, i->usd_millionths, 6);
        fputs(";\n", out);
    }
    for (int k = 0; k < TOOL_KINDS; k++) {
        if (!(p->tools_given & 1u << k)) continue;
        fprintf(out, "    %s tool %s ", d->name, tool_names[k]);
        conf_put_decimal(out, p->tools[k], 6);
        fputs(";\n", out);
    }
}

/* ---- budgets EFFORT TOKENS ...: what a reasoning effort means for models that count tokens ---- */

void conf_set_budgets(struct conf_args *a) {
    struct conf_model *m = (struct conf_model *)a->block;
    static const char *const efforts[] = { "minimal", "low", "medium", "high", "xhigh", "max" };
    for (uint32_t i = 0; i < a->count; i += 2) {
        const struct conf_word *w = &a->at[i];
        bool known = false;
        for (size_t e = 0; e < ARRAY_LEN(efforts); e++) known |= strcmp(w->text, efforts[e]) == 0;
        if (!known) {
            conf_error(a->conf, w->pos, "`%s` is no effort; there are: minimal low medium high xhigh max", w->text);
            return;
        }
        if (i + 1 == a->count) {
            conf_error(a->conf, w->pos, "a number of tokens is missing behind `%s`", w->text);
            return;
        }
        uint64_t n;
        const char *bad = conf_number(a->at[i + 1].text, &n);
        if (!bad && (n == 0 || n > 10000000)) bad = "a budget is 1 to 10000000 tokens";
        CONF_EACH(m->budgets, struct conf_pair, other)
            if (!bad && strcmp(other->name, w->text) == 0) bad = "this effort already has a budget";
        if (bad) {
            conf_error(a->conf, a->at[i + 1].pos, "`%s`: %s", a->at[i + 1].text, bad);
            continue;
        }
        struct conf_pair *p = conf_alloc(a->conf, sizeof *p);
        *p = (struct conf_pair){ .pos = w->pos,
                                 .name = w->text,
                                 .value = { .value = conf_format(a->conf, "%" PRIu64, n) } };
        conf_add(a->conf, &m->budgets, p);
    }
}

void conf_print_budgets(const struct conf_directive *d, const void *block, FILE *out) {
    const struct conf_model *m = block;
    if (!m->budgets.count) return;
    fprintf(out, "    %s", d->name);
    CONF_EACH(m->budgets, const struct conf_pair, p) fprintf(out, " %s %s", p->name, p->value.value);
    fputs(";\n", out);
}
