/* A request as a reader left it made into what writers may rely on: turns alternate, results come first in theirs,
 * every call has its one result, and blobs stand where they belong. The only failures are conversations that no
 * provider would take. */
#include "proto/ir.h"

/* A blob of kind IR_BLOB_CALL that stood before a call as reasoning of its own (clients whose calls can hold none)
 * goes back on the call. The emptied reasoning part disappears with the other empty ones. */
static void place_call_blobs(struct ir_turn *t) {
    struct ir_part *waiting = NULL;
    for (struct ir_part *p = t->parts; p; p = p->next) {
        if (p->kind == IR_REASONING && p->blob.kind == IR_BLOB_CALL)
            waiting = p;
        else if (p->kind == IR_CALL && waiting) {
            if (p->blob.kind == IR_BLOB_NONE)
                p->blob = waiting->blob;
            waiting->blob = (struct ir_blob){ 0 };
            waiting = NULL;
        }
    }
}

static bool is_empty(const struct ir_part *p) {
    switch (p->kind) {
    case IR_TEXT: case IR_REFUSAL: return p->text.len == 0;
    case IR_REASONING: return p->text.len == 0 && p->blob.kind == IR_BLOB_NONE;
    default: return false;
    }
}

static void drop_empty(struct ir_turn *t) {
    struct ir_part **at = &t->parts;
    while (*at) {
        if (is_empty(*at))
            *at = (*at)->next;
        else
            at = &(*at)->next;
    }
}

static void results_first(struct ir_turn *t) {
    struct ir_part *results = NULL, **rt = &results, *others = NULL, **ot = &others;
    for (struct ir_part *p = t->parts; p; p = p->next) {
        struct ir_part ***to = p->kind == IR_RESULT ? &rt : &ot;
        **to = p;
        *to = &p->next;
    }
    *ot = NULL;
    *rt = others;
    t->parts = results;
}

/* Joins a turn with those of its role that follow, and drops turns with nothing in them. */
static void join_turns(struct ir_request *r) {
    struct ir_turn **at = &r->turns;
    while (*at) {
        struct ir_turn *t = *at;
        struct ir_part **tail = &t->parts;
        while (*tail)
            tail = &(*tail)->next;
        while (t->next && t->next->role == t->role) {
            *tail = t->next->parts;
            while (*tail)
                tail = &(*tail)->next;
            t->next = t->next->next;
        }
        place_call_blobs(t);
        drop_empty(t);
        if (t->role == IR_USER)
            results_first(t);
        if (!t->parts)
            *at = t->next;
        else
            at = &t->next;
    }
}

/* In one turn, and in one request: OpenAI takes 128 tools. They bound lookups that cost a product. */
enum { MAX_CALLS = 256, MAX_TOOLS = 1024 };

/* The part of that kind and id; the search begins at *from, because calls and results mostly come in one order. */
static struct ir_part *find(const struct ir_turn *t, enum ir_part_kind kind, struct slice id, struct ir_part **from) {
    struct ir_part *start = *from ? *from : t ? t->parts : NULL;
    for (struct ir_part *p = start; p; p = p->next)
        if (p->kind == kind && slice_eq(p->id, id)) {
            *from = p->next;
            return p;
        }
    for (struct ir_part *p = t ? t->parts : NULL; p && p != start; p = p->next)
        if (p->kind == kind && slice_eq(p->id, id)) {
            *from = p->next;
            return p;
        }
    return NULL;
}

static bool match_turn(struct ir_request *r, struct ir_turn *t, const struct ir_turn *before,
                       const struct ir_turn *after, struct ir_fault *f) {
    struct ir_part *at_result = NULL, *at_call = NULL;
    for (struct ir_part *p = t->parts; p; p = p->next) {
        if (p->kind != IR_CALL && p->kind != IR_RESULT)
            continue;
        if (p->kind == IR_CALL) {
            if (!find(after, IR_RESULT, p->id, &at_result))
                return ir_refuse(f, "invalid_value", p->id,
                                 arena_printf(r->arena,
                                              "The tool call %.*s has no result in the message that follows it.",
                                              SLICE_ARG(p->id)));
            continue;
        }
        struct ir_part *call = find(before, IR_CALL, p->id, &at_call);
        if (!call)
            return ir_refuse(f, "invalid_value", p->id,
                             arena_printf(r->arena, "The tool result %.*s answers no call of the message before it.",
                                          SLICE_ARG(p->id)));
        if (p->name.len == 0)
            p->name = call->name;
        p->custom = call->custom;
    }
    return true;
}

/* Every call needs its result in the next turn but system ones, and the other way round. */
static bool match_calls(struct ir_request *r, struct ir_fault *f) {
    const struct ir_turn *before = NULL;
    for (struct ir_turn *t = r->turns; t; t = t->next) {
        uint32_t count = 0;
        for (struct ir_part *p = t->parts; p; p = p->next)
            if ((p->kind == IR_CALL || p->kind == IR_RESULT) && ++count > MAX_CALLS)
                return ir_refuse(f, "invalid_value", p->id, SLICE("Too many tool calls in one message."));
    }
    for (struct ir_turn *t = r->turns; t; t = t->next) {
        if (t->role == IR_SYSTEM)
            continue;
        const struct ir_turn *after = t->next;
        while (after && after->role == IR_SYSTEM)
            after = after->next;
        if (!match_turn(r, t, before, after, f))
            return false;
        before = t;
    }
    return true;
}

/* Whether anything was said. OpenAI's APIs answer instructions alone, the others do not: the last of them is taken for
 * what the user says. */
static bool anything_said(struct ir_request *r) {
    struct ir_turn *last = NULL;
    for (struct ir_turn *t = r->turns; t; t = t->next) {
        if (t->role != IR_SYSTEM)
            return true;
        last = t->parts ? t : last;
    }
    if (!last || (r->from != IR_OPENAI && r->from != IR_RESPONSES))
        return false;
    last->role = IR_USER;
    return true;
}

/* Instructions are words: no API but Responses takes pictures or files there. */
static bool system_is_text(const struct ir_request *r, struct ir_fault *f) {
    for (const struct ir_turn *t = r->turns; t; t = t->next)
        for (const struct ir_part *p = t->role == IR_SYSTEM ? t->parts : NULL; p; p = p->next)
            if (p->kind != IR_TEXT && p->kind != IR_REFUSAL)
                return ir_refuse(f, "unsupported_parameter", ir_member(r, "turns"),
                                 SLICE("System messages of this model can hold text alone."));
    return true;
}

/* Tools that a search found and that are offered anyway. */
static void join_tools(struct ir_request *r) {
    struct ir_tool **at = &r->tools;
    while (*at) {
        if ((*at)->found && ir_tool_named(r, (*at)->name) != *at)
            *at = (*at)->next;
        else
            at = &(*at)->next;
    }
}

/* System turns in the middle would part a call from its result: joined neighbours see through them, so nothing moves.
 * But two user turns around a system turn stay two. */
bool ir_settle(struct ir_request *r, struct ir_fault *f) {
    static const char *const empty_names[] = { "messages", "input", "messages", "contents" };
    uint32_t tools = 0, names = 0;
    for (const struct ir_tool *t = r->tools; t && tools <= MAX_TOOLS; t = t->next)
        tools++;
    for (const struct ir_text *t = r->choice_names; t && names <= MAX_TOOLS; t = t->next)
        names++;
    if (tools > MAX_TOOLS || names > MAX_TOOLS)
        return ir_refuse(f, "invalid_value", ir_member(r, "tools"), SLICE("Too many tools."));
    if (r->n == 0)
        r->n = 1;
    join_tools(r);
    join_turns(r);
    r->newest = NULL;
    if (!system_is_text(r, f))
        return false;
    if (!anything_said(r))
        return ir_refuse(f, "missing_field", slice_str(empty_names[r->from]), SLICE("The conversation is empty."));
    return match_calls(r, f);
}
