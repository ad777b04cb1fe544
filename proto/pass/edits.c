/* Collecting the splices of a text. A list that is full stays full: the caller asks once, when the pieces are made. */
#include "proto/pass/edits.h"

void edits_begin(struct edits *e, const struct json *j, struct arena *arena) {
    e->j = j;
    e->arena = arena;
    e->n = 0;
    e->room = EDITS_FIRST;
    e->at = e->first;
    e->full = false;
}

/* Room for so many more. */
static bool reserve(struct edits *e, uint32_t more) {
    uint32_t want = e->n + more, room = e->room;
    if (want <= room)
        return true;
    while (room < want)
        room *= 2;
    struct splice *moved = want <= EDITS_MAX ? arena_alloc(e->arena, room * sizeof *moved) : NULL;
    if (moved == NULL) {
        e->full = true;
        return false;
    }
    memcpy(moved, e->at, e->n * sizeof *moved);
    e->at = moved;
    e->room = room;
    return true;
}

static void add(struct edits *e, struct splice s) {
    if (reserve(e, 1))
        e->at[e->n++] = s;
}

void edits_insert(struct edits *e, uint32_t at, struct slice with) { add(e, (struct splice){ at, 0, with }); }

void edits_set(struct edits *e, int value, struct slice with) {
    struct slice span = json_span(e->j, value);
    add(e, (struct splice){ (uint32_t)(span.ptr - e->j->text), (uint32_t)span.len, with });
}

void edits_set_string(struct edits *e, int value, struct slice text) {
    struct splice s = pass_string(e->j, value, text, e->arena);
    if (s.with.ptr == NULL)
        e->full = true;
    else
        add(e, s);
}

void edits_set_number(struct edits *e, int value, uint64_t number) {
    edits_set(e, value, arena_printf(e->arena, "%llu", (unsigned long long)number));
}

void edits_cut(struct edits *e, int container, const int *values, uint32_t n) {
    if (reserve(e, n))
        e->n += pass_cut_members(e->j, container, values, n, e->at + e->n);
}

/* How many of an object's members the splices so far take out: a cut begins at a key or at the end of what is before
 * it. */
static bool leaves_some(const struct edits *e, int object) {
    for (int k = json_first(e->j, object); k >= 0; k = json_next(e->j, object, k)) {
        uint32_t at = e->j->tok[k].start;
        bool gone = false;
        for (uint32_t i = 0; i < e->n && !gone; i++)
            gone = e->at[i].len > 0 && e->at[i].at <= at && at < e->at[i].at + e->at[i].len;
        if (!gone)
            return true;
    }
    return false;
}

void edits_prepend(struct edits *e, int object, struct slice member) {
    edits_insert(e, e->j->tok[object].start + 1,
                 leaves_some(e, object) ? ARENA_JOIN(e->arena, member, SLICE(",")) : member);
}

void edits_append(struct edits *e, int object, struct slice member) {
    edits_insert(e, e->j->tok[object].end - 1,
                 leaves_some(e, object) ? ARENA_JOIN(e->arena, SLICE(","), member) : member);
}

void edits_strip(struct edits *e, int object, struct pass_edit *pe, const int *keep, uint32_t keeps, bool snake) {
    int cut[EDITS_STRIP];
    uint32_t cuts = 0;
    if (!json_is(e->j, object, JSON_OBJECT) || pe->strip_count == 0)
        return;
    for (int k = json_first(e->j, object); k >= 0; k = json_next(e->j, object, k)) {
        struct slice name = e->j->tok[k].escaped ? json_str(e->j, k, e->arena) : json_raw(e->j, k);
        bool kept = false;
        for (uint32_t i = 0; i < keeps; i++)
            kept |= keep[i] == k + 1;
        for (uint32_t i = 0; i < pe->strip_count && i < EDITS_STRIP && !kept; i++) {
            if (!(snake ? scan_same_word(name, pe->strip[i]) : slice_eq(name, pe->strip[i])))
                continue;
            if (cuts == EDITS_STRIP)
                e->full = true; /* the same member over and over */
            else
                cut[cuts++] = k + 1;
            pe->stripped |= 1u << i;
            break;
        }
    }
    edits_cut(e, object, cut, cuts);
}

void edits_drop(struct edits *e, int array, const struct pass_request *r) {
    int cut[PASS_DROPS];
    uint32_t cuts = 0;
    bool object = json_is(e->j, array, JSON_OBJECT);
    if (r->drops == 0)
        return;
    for (int t = json_first(e->j, array); t >= 0; t = json_next(e->j, array, t))
        for (uint32_t i = 0; i < r->drops; i++)
            if (r->drop[i] == (object ? t + 1 : t) && cuts < PASS_DROPS)
                cut[cuts++] = r->drop[i];
    edits_cut(e, array, cut, cuts);
}

void edits_unseal(struct edits *e, const struct pass_request *r, const struct pass_edit *pe) {
    for (uint32_t i = 0; i < r->sealed_count && pe->plain != NULL; i++)
        if (pe->plain[i].ptr != NULL)
            edits_set_string(e, r->sealed[i].value, pe->plain[i]);
}

void edits_request(struct edits *e, const struct json *j, const struct pass_request *r, struct pass_edit *pe,
                   const int *keep, uint32_t keeps, struct arena *arena) {
    edits_begin(e, j, arena);
    pe->stripped = 0;
    edits_strip(e, 0, pe, keep, keeps, false);
    if (r->drops > 0)
        edits_drop(e, json_get(j, 0, "tools"), r);
    edits_unseal(e, r, pe);
    if (pe->model.ptr != NULL)
        edits_set_string(e, r->t_model, pe->model);
}

void edits_limit(struct edits *e, int value, struct slice name, uint64_t limit) {
    if (value >= 0)
        edits_set_number(e, value, limit);
    else
        edits_prepend(e, 0, arena_printf(e->arena, "\"%.*s\":%llu", SLICE_ARG(name), (unsigned long long)limit));
}

void edits_ask_usage(struct edits *e, const struct pass_request *r) {
    if (r->t_include_usage >= 0) {
        if (!json_is(e->j, r->t_include_usage, JSON_TRUE))
            edits_set(e, r->t_include_usage, SLICE("true"));
    } else if (json_is(e->j, r->t_options, JSON_OBJECT)) {
        edits_prepend(e, r->t_options, SLICE("\"include_usage\":true"));
    } else if (r->t_options >= 0) {
        edits_set(e, r->t_options, SLICE("{\"include_usage\":true}"));
    } else {
        edits_prepend(e, 0, SLICE("\"stream_options\":{\"include_usage\":true}"));
    }
}

struct slice edits_cost_members(const struct ir_cost *c, bool camel, struct arena *arena) {
    char usd[32], tokens[32];
    if (!c->show)
        return SLICE("");
    struct slice name = camel ? SLICE("\"costUsd\":") : SLICE("\"cost_usd\":");
    struct slice figure = slice_of(usd, fixed_format(usd, c->usd_nano, 9));
    if (!c->tokens)
        return ARENA_JOIN(arena, name, figure);
    return ARENA_JOIN(arena, name, figure, camel ? SLICE(",\"costTokens\":") : SLICE(",\"cost_tokens\":"),
                      slice_of(tokens, fixed_format(tokens, c->cost_tokens, 0)));
}

void edits_cost(struct edits *e, const struct ir_cost *c, int usage, bool camel) {
    struct slice cost = edits_cost_members(c, camel, e->arena);
    int cut[4];
    uint32_t cuts = 0;
    if (cost.len == 0)
        return;
    for (int k = json_first(e->j, usage); k >= 0 && cuts < 4; k = json_next(e->j, usage, k)) {
        struct slice name =
            json_raw(e->j, k); /* a gateway behind us may have written the same member: ours stands alone */
        if (slice_is(name, camel ? "costUsd" : "cost_usd") || slice_is(name, camel ? "costTokens" : "cost_tokens"))
            cut[cuts++] = k + 1;
    }
    edits_cut(e, usage, cut, cuts);
    edits_append(e, usage, cost);
}

void edits_seal(struct edits *e, const struct pass_answer *a, int value) {
    if (a->seal == NULL || !json_is(e->j, value, JSON_STRING) || json_str_len(e->j, value) == 0)
        return;
    struct slice sealed = a->seal(a->arg, json_str(e->j, value, e->arena), e->arena);
    if (sealed.ptr == NULL)
        e->full = true; /* rather no answer than another's id */
    else
        edits_set_string(e, value, sealed);
}

struct sealing {
    struct edits *e;
    const struct pass_answer *a;
};

static void seal_found(void *arg, int value) {
    struct sealing *s = arg;
    edits_seal(s->e, s->a, value);
}

void edits_seal_all(struct edits *e, const struct pass_answer *a, int value, const struct scan_state *table) {
    struct sealing s = { e, a };
    if (a->seal != NULL)
        scan_walk(e->j, value, table, e->arena, seal_found, &s);
}

bool edits_put(struct edits *e, struct pieces *out) {
    struct slice text = slice_of(e->j->text, e->j->len);
    if (e->n >= EDITS_FLAT)
        pieces_add(out, pass_splice_text(text, e->at, e->n, e->arena));
    else
        pass_splice(text, e->at, e->n, out);
    return !e->full && !e->arena->overflow && !out->full;
}

/* Data that came in several lines is joined by LF, which in JSON can only stand between tokens. */
struct slice edits_line(struct edits *e) {
    struct slice text = pass_splice_text(slice_of(e->j->text, e->j->len), e->at, e->n, e->arena);
    if (text.ptr == NULL || e->full)
        return SLICE_NONE;
    char *line = (char *)(uintptr_t)text.ptr; /* our own copy */
    for (char *c = line; c < line + text.len; c++)
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    return text;
}

bool edits_put_event(struct edits *e, const struct sse_event *ev, struct slice name, struct pieces *out) {
    bool named = ev->name.len > 0 || name.len == 0;
    if (e->n == 0 && !e->full && named && ev->raw.len > 0) {
        pieces_add(out, ev->raw);
        return !out->full;
    }
    const char *end = ev->data.ptr + ev->data.len;
    bool ok, inside = ev->raw.len > 0 && ev->data.ptr >= ev->raw.ptr && end <= ev->raw.ptr + ev->raw.len;
    if (!named)
        pieces_add(out, arena_printf(e->arena, "event: %.*s\n", SLICE_ARG(name)));
    else if (!inside && ev->name.len > 0)
        pieces_add(out, arena_printf(e->arena, "event: %.*s\n", SLICE_ARG(ev->name)));
    if (inside) {
        pieces_add(out, slice_of(ev->raw.ptr, (size_t)(ev->data.ptr - ev->raw.ptr)));
        ok = edits_put(e, out);
        pieces_add(out, slice_of(end, (size_t)(ev->raw.ptr + ev->raw.len - end)));
    } else {
        struct slice line = edits_line(e);
        ok = line.ptr != NULL;
        pieces_add(out, SLICE("data: "));
        pieces_add(out, line);
        pieces_add(out, SLICE("\n\n"));
    }
    return ok && !out->full && !e->arena->overflow;
}

struct slice edits_made_usage(const struct pass_answer *a, edits_usage_writer *write, struct arena *arena) {
    struct buf b;
    struct json_writer w;
    buf_init(&b, arena->pages, 1024);
    jw_init(&w, &b);
    write(&w, &a->meters, &a->cost);
    struct slice made = w.failed ? SLICE_NONE : arena_copy(arena, buf_slice(&b));
    buf_release(&b);
    return made;
}

void edits_member(struct edits *e, int object, const char *name, int value, struct slice with) {
    if (with.ptr == NULL)
        e->full = true;
    else if (value >= 0)
        edits_set(e, value, with);
    else
        edits_append(e, object, arena_printf(e->arena, "\"%s\":%.*s", name, SLICE_ARG(with)));
}

bool edits_parse_event(struct json *j, struct json_tok *tape, const struct sse_event *ev, struct arena *scratch) {
    return (json_parse_into(j, tape, EDITS_TAPE, ev->data.ptr, ev->data.len) ||
            (j->err == JSON_TOO_MANY && json_parse(j, scratch, ev->data.ptr, ev->data.len))) &&
           json_is(j, 0, JSON_OBJECT);
}

void edits_take(struct pass_answer *a, const struct ir_usage *u) {
    a->meters = u->meters;
    a->tools = u->tools;
    a->usage_seen = u->seen;
}

void edits_settle(struct pass_answer *a) {
    if (a->usage_final)
        return;
    a->usage_final = true;
    a->on_usage(a->arg, a, &a->cost);
}
