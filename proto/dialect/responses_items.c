/* Reads the items of `input`. Each becomes a turn of its own; settling joins those of one role, so a run of function
 * calls and the message before it are one assistant turn.
 *
 * What the provider's own tools did (web_search_call and its like) is left out and reported; what only the provider
 * can resolve (item_reference, compaction, file ids) is refused. */
#include "proto/dialect/responses.h"

static struct slice str(const struct json *j, int obj, const char *name, struct ir_request *r) {
    return json_str(j, json_get(j, obj, name), r->arena);
}

static struct slice where(struct ir_request *r, uint32_t index, const char *member) {
    return arena_printf(r->arena, "input[%u]%s%s", index, *member ? "." : "", member);
}

static bool read_file(const struct json *j, int t, struct ir_request *r, struct ir_part **list, uint32_t index,
                      struct ir_fault *f) {
    struct slice data = str(j, t, "file_data", r), url = str(j, t, "file_url", r);
    if (json_is(j, json_get(j, t, "file_id"), JSON_STRING))
        return ir_refuse(f, "unsupported_parameter", where(r, index, "file_id"),
                         SLICE("A file of another provider cannot be used with this model."));
    if (!data.ptr && !url.ptr)
        return common_wrong(r, f, where(r, index, "content"), "an input_file with file_data or file_url");
    struct ir_part *p = ir_add_part(r, list, IR_FILE);
    if (!p)
        return true;
    p->name = str(j, t, "filename", r);
    p->detail = str(j, t, "detail", r);
    p->cache = common_mark_of(j, t, r->arena);
    p->media_type = SLICE("application/pdf");
    if (url.ptr)
        common_set_url(r, p, url);
    else if (!ir_data_url(r->arena, data, &p->media_type, &p->data))
        p->data = data;
    return true;
}

static bool read_part(const struct json *j, int t, struct ir_request *r, struct ir_part **list, uint32_t index,
                      struct ir_fault *f) {
    static const char *const known[] = { "type",     "text",      "refusal",  "image_url",
                                         "detail",   "file_data", "file_url", "file_id",
                                         "filename", "input_audio", "prompt_cache_breakpoint", NULL };
    struct slice type = str(j, t, "type", r);
    struct ir_part *p;
    common_others(r, j, t, "input.content", known);
    if (slice_is(type, "input_text") || slice_is(type, "output_text") || slice_is(type, "text") ||
        slice_is(type, "refusal")) {
        bool refusal = slice_is(type, "refusal");
        if ((p = ir_add_part(r, list, refusal ? IR_REFUSAL : IR_TEXT))) {
            p->text = str(j, t, refusal ? "refusal" : "text", r);
            p->cache = common_mark_of(j, t, r->arena);
        }
        return true;
    }
    if (slice_is(type, "input_image")) {
        int image = json_get(j, t, "image_url");
        struct slice url = json_str(j, json_is(j, image, JSON_OBJECT) ? json_get(j, image, "url") : image, r->arena);
        if (!url.ptr)
            return ir_refuse(f, "unsupported_parameter", where(r, index, "content"),
                             SLICE("An image must come as a URL or as data, not by a provider's file id."));
        if ((p = ir_add_part(r, list, IR_IMAGE))) {
            common_set_url(r, p, url);
            p->detail = str(j, t, "detail", r);
            p->cache = common_mark_of(j, t, r->arena);
        }
        return true;
    }
    if (slice_is(type, "input_file"))
        return read_file(j, t, r, list, index, f);
    if (slice_is(type, "input_audio")) {
        int body = json_get(j, t, "input_audio");
        if ((p = ir_add_part(r, list, IR_AUDIO))) {
            p->data = str(j, body, "data", r);
            p->media_type = slice_str(common_audio_type(str(j, body, "format", r)));
        }
        return true;
    }
    return ir_refuse(f, "invalid_value", where(r, index, "content"),
                     arena_printf(r->arena, "Unknown content part type: %.*s.", SLICE_ARG(type)));
}

static bool read_content(const struct json *j, int t, struct ir_request *r, struct ir_part **list, uint32_t index,
                         struct ir_fault *f) {
    if (json_is(j, t, JSON_STRING)) {
        struct ir_part *p = ir_add_part(r, list, IR_TEXT);
        if (p)
            p->text = json_str(j, t, r->arena);
        return true;
    }
    if (t < 0 || json_is(j, t, JSON_NULL))
        return true;
    if (!json_is(j, t, JSON_ARRAY))
        return common_wrong(r, f, where(r, index, "content"), "a string or a list of parts");
    for (int i = json_first(j, t); i >= 0; i = json_next(j, t, i))
        if (!read_part(j, i, r, list, index, f))
            return false;
    return true;
}

static bool read_message(const struct json *j, int t, uint32_t index, struct ir_request *r, struct ir_fault *f) {
    int role = json_get(j, t, "role");
    bool system = json_str_is(j, role, "system") || json_str_is(j, role, "developer");
    bool assistant = json_str_is(j, role, "assistant");
    if (!system && !assistant && !json_str_is(j, role, "user"))
        return common_wrong(r, f, where(r, index, "role"), "user, assistant, system or developer");
    static const char *const known[] = { "type", "role", "content", "id", "status", "phase", NULL };
    struct ir_turn *turn = ir_add_turn(r, system ? IR_SYSTEM : assistant ? IR_ASSISTANT : IR_USER);
    common_others(r, j, t, "input", known);
    if (turn && !read_content(j, json_get(j, t, "content"), r, &turn->parts, index, f))
        return false;
    for (struct ir_part *p = turn ? turn->parts : NULL; p; p = p->next)
        p->phase = str(j, t, "phase", r);
    return true;
}

static bool read_call(const struct json *j, int t, bool custom, uint32_t index, struct ir_request *r,
                      struct ir_fault *f) {
    static const char *const known[] = { "type", "id",        "call_id", "name",   "namespace",
                                         "arguments", "input", "status",  NULL };
    struct slice id = str(j, t, "call_id", r), name = responses_full_name(j, t, r->arena);
    common_others(r, j, t, "input", known);
    if (!id.ptr || !name.ptr)
        return common_wrong(r, f, where(r, index, ""), "a call with call_id, name and arguments");
    struct ir_turn *turn = ir_add_turn(r, IR_ASSISTANT);
    struct ir_part *p = turn ? ir_add_part(r, &turn->parts, IR_CALL) : NULL;
    if (!p)
        return true;
    p->id = id;
    p->name = name;
    p->custom = custom;
    p->text = str(j, t, custom ? "input" : "arguments", r);
    return true;
}

static bool read_output(const struct json *j, int t, uint32_t index, struct ir_request *r, struct ir_fault *f) {
    static const char *const known[] = { "type", "id", "call_id", "output", "status", "name", "namespace", NULL };
    struct slice id = str(j, t, "call_id", r);
    common_others(r, j, t, "input", known);
    if (!id.ptr)
        return common_wrong(r, f, where(r, index, ""), "an output with call_id");
    struct ir_turn *turn = ir_add_turn(r, IR_USER);
    struct ir_part *p = turn ? ir_add_part(r, &turn->parts, IR_RESULT) : NULL;
    if (!p)
        return true;
    p->id = id;
    return read_content(j, json_get(j, t, "output"), r, &p->parts, index, f);
}

/* Texts of a list ({text}), joined as they stood. */
static struct slice texts_of(const struct json *j, int list, struct ir_request *r) {
    struct ir_part *parts = NULL;
    if (json_is(j, list, JSON_ARRAY))
        for (int i = json_first(j, list); i >= 0; i = json_next(j, list, i)) {
            struct ir_part *p = ir_add_part(r, &parts, IR_TEXT);
            if (p)
                p->text = str(j, i, "text", r);
        }
    return ir_join_text(r->arena, parts, "");
}

static bool read_reasoning(const struct json *j, int t, struct ir_request *r) {
    struct slice blob = str(j, t, "encrypted_content", r);
    struct ir_turn *turn = ir_add_turn(r, IR_ASSISTANT);
    struct ir_part *p = turn ? ir_add_part(r, &turn->parts, IR_REASONING) : NULL;
    if (!p)
        return true;
    p->text = texts_of(j, json_get(j, t, "summary"), r);
    if (p->text.len == 0)
        p->text = texts_of(j, json_get(j, t, "content"), r);
    if (blob.len > 0)
        p->blob = ir_blob_of(blob, IR_BLOB_SIGNATURE, IR_RESPONSES);
    return true;
}

/* Calls of tools that the client runs itself, and what it answered: as functions of the same name, whose arguments and
 * result are the item's own JSON. The tools are not offered to another provider's model, which may still read what
 * was done. */
struct client_item { const char *type, *name, *what; bool call; };
static const struct client_item client_items[] = {
    { "local_shell_call", "local_shell", "action", true },
    { "shell_call", "shell", "action", true },
    { "apply_patch_call", "apply_patch", "operation", true },
    { "computer_call", "computer", "actions", true },
    { "local_shell_call_output", "local_shell", "output", false },
    { "shell_call_output", "shell", "output", false },
    { "apply_patch_call_output", "apply_patch", "output", false },
    { "computer_call_output", "computer", "output", false },
};

static const struct client_item *client_item(struct slice type) {
    for (size_t i = 0; i < sizeof client_items / sizeof *client_items; i++)
        if (slice_is(type, client_items[i].type))
            return &client_items[i];
    return NULL;
}

static bool read_client_result(const struct json *j, int output, struct ir_request *r, struct ir_part *p) {
    struct slice url = str(j, output, "image_url", r);
    struct ir_part *q = ir_add_part(r, &p->parts, url.ptr ? IR_IMAGE : IR_TEXT);
    if (!q)
        return true;
    if (url.ptr)
        common_set_url(r, q, url); /* a screenshot */
    else
        q->text = json_is(j, output, JSON_STRING) ? json_str(j, output, r->arena)
                  : output >= 0                   ? json_span(j, output)
                                                  : SLICE("");
    return true;
}

static bool read_client_item(const struct json *j, int t, const struct client_item *item, uint32_t index,
                             struct ir_request *r, struct ir_fault *f) {
    static const char *const known[] = { "type", "id", "call_id", "status", "action", "actions", "operation", "output",
                                         NULL };
    int what = json_get(j, t, item->what);
    struct slice id = str(j, t, "call_id", r);
    common_others(r, j, t, "input", known);
    if (!id.ptr)
        id = str(j, t, "id", r); /* of a local shell's output */
    if (!id.ptr)
        return common_wrong(r, f, where(r, index, ""), "an item with call_id");
    struct ir_turn *turn = ir_add_turn(r, item->call ? IR_ASSISTANT : IR_USER);
    struct ir_part *p = turn ? ir_add_part(r, &turn->parts, item->call ? IR_CALL : IR_RESULT) : NULL;
    if (!p)
        return true;
    p->id = id;
    p->name = slice_str(item->name);
    if (!item->call)
        return read_client_result(j, what, r, p);
    if (what < 0)
        what = json_get(j, t, "action"); /* of a computer, as its preview had it */
    p->text = json_is(j, what, JSON_OBJECT) ? json_raw(j, what)
              : what >= 0 ? arena_printf(r->arena, "{\"%s\":%.*s}", item->what, SLICE_ARG(json_span(j, what)))
                          : SLICE("{}");
    return true;
}

/* What a search among tools found is offered from there on. */
static bool read_found(const struct json *j, int tools, struct ir_request *r, struct ir_fault *f) {
    struct ir_tool *last = r->tools ? r->tools->tail : NULL;
    if (tools >= 0 && !responses_read_tools(j, tools, SLICE_NONE, r, f))
        return false;
    for (struct ir_tool *x = last ? last->next : r->tools; x; x = x->next)
        x->found = true;
    return true;
}

bool responses_read_item(const struct json *j, int t, uint32_t index, struct ir_request *r, struct ir_fault *f) {
    struct slice type = str(j, t, "type", r);
    static const char *const found[] = { "type", "id", "call_id", "execution", "status", "tools", NULL };
    bool custom = slice_is(type, "custom_tool_call");
    if (slice_is(type, "message") || (type.len == 0 && json_get(j, t, "role") >= 0))
        return read_message(j, t, index, r, f);
    if (slice_is(type, "function_call") || custom)
        return read_call(j, t, custom, index, r, f);
    if (slice_is(type, "function_call_output") || slice_is(type, "custom_tool_call_output"))
        return read_output(j, t, index, r, f);
    if (slice_is(type, "reasoning"))
        return read_reasoning(j, t, r);
    if (slice_is(type, "additional_tools"))
        return responses_read_tools(j, json_get(j, t, "tools"), SLICE_NONE, r, f);
    if (slice_is(type, "configuration_update"))
        return true; /* read when all members are */
    if (client_item(type))
        return read_client_item(j, t, client_item(type), index, r, f);
    if (slice_is(type, "tool_search_output")) {
        common_others(r, j, t, "input", found);
        return read_found(j, json_get(j, t, "tools"), r, f);
    }
    if (slice_is(type, "item_reference") || (type.len == 0 && json_get(j, t, "id") >= 0) ||
        slice_starts(type, SLICE("compaction")))
        return ir_refuse(f, "unsupported_parameter", where(r, index, ""),
                         SLICE("This model's provider cannot resolve an item that only its maker can read."));
    if (slice_ends(type, SLICE("_call")) || slice_ends(type, SLICE("_output")) || slice_starts(type, SLICE("mcp_")) ||
        slice_starts(type, SLICE("program")) || slice_starts(type, SLICE("tool_search"))) {
        ir_note(r, arena_printf(r->arena, "input.%.*s", SLICE_ARG(type)));
        return true;
    }
    return ir_refuse(f, "invalid_value", where(r, index, "type"),
                     arena_printf(r->arena, "Unknown item type: %.*s.", SLICE_ARG(type)));
}
