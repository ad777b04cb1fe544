/* Answers in the neutral form: folding events into a whole answer, and usage with its containment resolved.
 *
 * A fold's memory is its arena's: a full arena makes ir_fold return false, which ends the answer. */
#include "proto/ir.h"

void ir_fold_init(struct ir_answer *a, struct arena *arena, bool copy) {
    *a = (struct ir_answer){ .arena = arena, .copy = copy };
}

static struct slice keep(struct ir_answer *a, struct slice s) {
    return a->copy && s.len > 0 ? arena_copy(a->arena, s) : s;
}

static struct ir_choice_answer *choice_of(struct ir_answer *a, uint32_t i) {
    if (i >= IR_CHOICES_MAX)
        return NULL;
    if (!a->choices && !(a->choices = arena_zalloc(a->arena, sizeof *a->choices * IR_CHOICES_MAX)))
        return NULL;
    if (i >= a->count)
        a->count = i + 1;
    return &a->choices[i];
}

static struct ir_block *add_block(struct ir_answer *a, struct ir_choice_answer *c, enum ir_block_kind kind) {
    struct ir_block *b = arena_zalloc(a->arena, sizeof *b);
    if (!b)
        return NULL;
    b->kind = kind;
    b->text = SLICE("");
    if (c->last) {
        c->last->closed = true;
        c->last->next = b;
    } else
        c->blocks = b;
    return c->last = b;
}

/* Appends, growing by doubling. A first piece that outlives the fold is only borrowed. */
static bool append(struct ir_answer *a, struct ir_block *b, struct slice s) {
    if (s.len == 0)
        return true;
    if (b->text.len == 0 && !a->copy) {
        b->text = s;
        return true;
    }
    return ir_append(a->arena, &b->text, &b->cap, s);
}

static bool add_run(struct ir_answer *a, struct ir_choice_answer *c, enum ir_block_kind kind,
                    const struct ir_event *ev) {
    struct ir_block *b = c->last;
    if (!b || b->kind != kind || b->closed)
        b = add_block(a, c, kind);
    if (!b)
        return false;
    b->bound = b->bound || ev->bound;
    return append(a, b, ev->text);
}

/* Characters (not bytes) of UTF-8 text: what OpenAI's citations count in. */
static size_t characters(struct slice s) {
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++)
        n += ((unsigned char)s.ptr[i] & 0xc0) != 0x80;
    return n;
}

/* The text that sources and probabilities are about: mostly the last block; Gemini names them behind calls too. */
static struct ir_block *text_before(const struct ir_choice_answer *c) {
    struct ir_block *text = NULL;
    if (c->last && c->last->kind == IR_BLOCK_TEXT)
        return c->last;
    for (struct ir_block *b = c->blocks; b; b = b->next)
        if (b->kind == IR_BLOCK_TEXT)
            text = b;
    return text;
}

static bool add_citation(struct ir_answer *a, struct ir_choice_answer *c, const struct ir_event *ev) {
    struct ir_block *text = text_before(c);
    if (!text)
        return true;
    struct ir_citation *x = arena_zalloc(a->arena, sizeof *x), **at = &text->citations;
    if (!x)
        return false;
    *x = (struct ir_citation){ .url = keep(a, ev->id), .title = keep(a, ev->name), .text = keep(a, ev->text),
                               .end = characters(text->text) };
    while (*at)
        at = &(*at)->next;
    *at = x;
    return true;
}

static bool add_logprobs(struct ir_answer *a, struct ir_choice_answer *c, struct slice list) {
    struct ir_block *b = text_before(c);
    if (!b || list.len < 2)
        return true;
    return (b->logprobs.len == 0 || ir_append(a->arena, &b->logprobs, &b->logprobs_cap, SLICE(","))) &&
           ir_append(a->arena, &b->logprobs, &b->logprobs_cap, slice_of(list.ptr + 1, list.len - 2));
}

struct slice ir_logprobs(const struct ir_block *b, struct arena *arena) {
    return b->logprobs.len > 0 ? arena_printf(arena, "[%.*s]", SLICE_ARG(b->logprobs)) : SLICE_NONE;
}

static bool fold_block(struct ir_answer *a, struct ir_choice_answer *c, const struct ir_event *ev) {
    struct ir_block *b;
    switch (ev->kind) {
    case IR_EV_REASONING_END:
        b = c->last && c->last->kind == IR_BLOCK_REASONING && !c->last->closed ? c->last : NULL;
        if (!b && ev->blob.kind == IR_BLOB_NONE)
            return true;
        if (!b && !(b = add_block(a, c, IR_BLOCK_REASONING)))
            return false;
        b->blob = ev->blob;
        b->blob.data = keep(a, ev->blob.data);
        b->closed = true;
        return true;
    case IR_EV_CALL:
        if (!(b = add_block(a, c, IR_BLOCK_CALL)))
            return false;
        b->id = keep(a, ev->id);
        b->name = keep(a, ev->name);
        b->custom = ev->custom;
        b->blob = ev->blob;
        b->blob.data = keep(a, ev->blob.data);
        return true;
    case IR_EV_ARGS:
        return !c->last || c->last->kind != IR_BLOCK_CALL || append(a, c->last, ev->text);
    case IR_EV_CALL_END:
        if (c->last)
            c->last->closed = true;
        return true;
    case IR_EV_IMAGE:
        if (!(b = add_block(a, c, IR_BLOCK_IMAGE)))
            return false;
        b->media_type = keep(a, ev->media_type);
        b->text = keep(a, ev->data);
        b->closed = true;
        return true;
    default:
        return true;
    }
}

bool ir_fold(void *answer, const struct ir_event *ev) {
    struct ir_answer *a = answer;
    struct ir_choice_answer *c = choice_of(a, ev->choice);
    if (!c)
        return a->arena->overflow ? false : true; /* a choice beyond all limits is left out */
    switch (ev->kind) {
    case IR_EV_START:
        a->id = keep(a, ev->id);
        a->model = keep(a, ev->name);
        a->created_s = ev->created_s;
        return !a->arena->overflow;
    case IR_EV_TEXT: return add_run(a, c, IR_BLOCK_TEXT, ev);
    case IR_EV_REFUSAL: return add_run(a, c, IR_BLOCK_REFUSAL, ev);
    case IR_EV_REASONING: return add_run(a, c, IR_BLOCK_REASONING, ev);
    case IR_EV_CITATION: return add_citation(a, c, ev);
    case IR_EV_LOGPROBS: return add_logprobs(a, c, ev->text);
    case IR_EV_FINISH:
        c->finished = true;
        c->stop = ev->stop;
        c->stop_string = keep(a, ev->text);
        c->stop_text = keep(a, ev->stop_text);
        return !a->arena->overflow;
    default: return fold_block(a, c, ev);
    }
}

/* ---- usage ---- */

static uint64_t part(uint64_t count, uint64_t *whole, bool *conflict) {
    if (count == IR_ABSENT)
        return 0;
    if (count > *whole) {
        *conflict = true;
        count = *whole;
    }
    *whole -= count;
    return count;
}

void ir_usage_from(struct ir_usage *u, const struct ir_counts *c) {
    uint64_t in = c->input == IR_ABSENT ? 0 : c->input, out = c->output == IR_ABSENT ? 0 : c->output;
    uint64_t writes = c->cache_write == IR_ABSENT ? 0 : c->cache_write,
             long_writes = c->cache_write_1h == IR_ABSENT ? 0 : c->cache_write_1h;
    struct meters *m = &u->meters;
    u->seen = true;
    u->conflict = false;
    *m = (struct meters){ 0 };
    if (long_writes > writes)
        long_writes = writes;
    m->n[METER_CACHED_INPUT] = part(c->cached, &in, &u->conflict);
    writes = part(writes, &in, &u->conflict);
    m->n[METER_CACHE_WRITE_1H] = long_writes < writes ? long_writes : writes;
    m->n[METER_CACHE_WRITE] = writes - m->n[METER_CACHE_WRITE_1H];
    m->n[METER_AUDIO_INPUT] = part(c->audio_in, &in, &u->conflict);
    m->n[METER_IMAGE_INPUT] = part(c->image_in, &in, &u->conflict);
    m->n[METER_INPUT] = in;
    m->n[METER_REASONING] = part(c->reasoning, &out, &u->conflict);
    m->n[METER_AUDIO_OUTPUT] = part(c->audio_out, &out, &u->conflict);
    m->n[METER_IMAGE_OUTPUT] = part(c->image_out, &out, &u->conflict);
    m->n[METER_OUTPUT] = out;
}

void ir_write_cost(struct json_writer *w, const struct ir_cost *cost, bool camel) {
    if (!cost || !cost->show)
        return;
    jw_key(w, camel ? "costUsd" : "cost_usd");
    jw_fixed(w, cost->usd_nano, 9, false);
    if (cost->tokens) {
        jw_key(w, camel ? "costTokens" : "cost_tokens");
        jw_i64(w, cost->cost_tokens);
    }
}
