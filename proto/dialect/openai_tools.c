/* Reads the tools of a Chat Completions request and the choice among them; legacy functions are tools without a
 * wrapper. */
#include "proto/dialect/openai.h"

static bool read_tool(const struct json *j, int t, int body, struct ir_request *r, uint32_t index, struct ir_fault *f) {
    struct slice type = json_str(j, json_get(j, t, "type"), r->arena),
                 name = json_str(j, json_get(j, body, "name"), r->arena);
    bool custom = slice_is(type, "custom"), hosted = body < 0 && type.len > 0 && !slice_is(type, "function");
    if (!name.ptr && !hosted)
        return common_wrong(r, f, arena_printf(r->arena, "tools[%u]", index), "a tool with a name");
    struct ir_tool *x = ir_add_tool(r, hosted ? IR_HOSTED : custom ? IR_CUSTOM : IR_FUNCTION);
    if (!x)
        return true;
    static const char *const outer[] = { "type", "function", "custom", "cache_control", "name",
                                         "description", "parameters", NULL };
    static const char *const inner[] = { "name", "description", "parameters", "strict", "format", NULL };
    static const char *const grammar[] = { "type", "grammar", "syntax", "definition", NULL };
    int schema = json_get(j, body, "parameters"), format = json_get(j, body, "format");
    if (!hosted) {
        common_others(r, j, t, "tools", outer);
        common_others(r, j, body != t ? body : -1, "tools", inner);
        common_others(r, j, format, "tools.custom.format", grammar);
    }
    x->grammar = custom && json_is(j, format, JSON_OBJECT) ? json_raw(j, format) : SLICE_NONE;
    x->index = index;
    x->name = !hosted ? name : slice_starts(type, SLICE("web_search")) ? SLICE("web_search") : type;
    x->raw = hosted ? json_raw(j, t) : SLICE_NONE;
    x->description = json_str(j, json_get(j, body, "description"), r->arena);
    x->schema = json_is(j, schema, JSON_OBJECT) ? json_raw(j, schema) : SLICE_NONE;
    json_bool(j, json_get(j, body, "strict"), &x->strict);
    x->cache = common_cache_mark(j, json_get(j, t, "cache_control"), r->arena);
    return true;
}

bool openai_read_tools(const struct json *j, int t, bool legacy, struct ir_request *r, struct ir_fault *f) {
    if (!json_is(j, t, JSON_ARRAY))
        return common_wrong(r, f, SLICE("tools"), "a list");
    uint32_t index = 0;
    for (int i = json_first(j, t); i >= 0; i = json_next(j, t, i), index++) {
        int body = json_get(j, i, "custom");
        if (!read_tool(j, i, legacy ? i : body >= 0 ? body : json_get(j, i, "function"), r, index, f))
            return false;
    }
    return true;
}

bool openai_read_choice(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    static const struct { const char *word; enum ir_choice choice;
    } words[] = {
        { "auto", IR_CHOICE_AUTO },
        { "none", IR_CHOICE_NONE },
        { "required", IR_CHOICE_REQUIRED },
        { "any", IR_CHOICE_REQUIRED },
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (json_str_is(j, t, words[i].word)) {
            r->choice = words[i].choice;
            return true;
        }
    static const char *const outer[] = { "type", "allowed_tools", "function", "custom", "name", NULL };
    static const char *const inner[] = { "mode", "tools", "name", NULL };
    int allowed = json_get(j, t, "allowed_tools"), list = json_get(j, allowed, "tools");
    common_others(r, j, t, "tool_choice", outer);
    common_others(r, j, allowed >= 0 ? allowed : json_get(j, t, "function"), "tool_choice", inner);
    if (json_is(j, list, JSON_ARRAY)) {
        r->choice = IR_CHOICE_SUBSET;
        r->choice_required = json_str_is(j, json_get(j, allowed, "mode"), "required");
        for (int i = json_first(j, list); i >= 0; i = json_next(j, list, i)) {
            int body = json_get(j, i, "custom");
            ir_add_text(r, &r->choice_names,
                        json_str(j, json_get(j, body >= 0 ? body : json_get(j, i, "function"), "name"), r->arena));
        }
        return true;
    }
    int body = json_get(j, t, "custom");
    body = body >= 0 ? body : json_get(j, t, "function");
    int name = json_get(j, body >= 0 ? body : t, "name");
    if (!json_is(j, name, JSON_STRING))
        return common_wrong(r, f, SLICE("tool_choice"), "none, auto, required, or a tool");
    r->choice = IR_CHOICE_ONE;
    ir_add_text(r, &r->choice_names, json_str(j, name, r->arena));
    return true;
}
