/* Reads contents and their parts.
 *
 * Calls often have no id: one is made, and a response without id answers the oldest open call of its name. A response
 * is an object:
 * {"output": …} and {"error": …} are read as what they say, any other as its JSON text. A thoughtSignature is what
 * this gateway put there: a carrier. Files by the provider's own URI are refused. */
#include "proto/dialect/gemini.h"

#include "proto/base/crypto.h"

enum { MAX_OPEN = 256 };

struct open_call { struct open_call *next; struct slice id, name; };
struct state {
    struct ir_request *r;
    struct open_call *open, **tail;
    uint32_t open_count, calls;
    uint32_t content;
    size_t thought_cap; /* of the reasoning that is being joined */
};

int gemini_get(const struct json *j, int obj, const char *name) {
    char snake[64];
    size_t n = 0;
    int t = json_get(j, obj, name);
    for (const char *p = name; *p && n < sizeof snake - 2; p++) {
        if (*p >= 'A' && *p <= 'Z') {
            snake[n++] = '_';
            snake[n++] = (char)(*p - 'A' + 'a');
        } else {
            snake[n++] = *p;
        }
    }
    snake[n] = 0;
    return t >= 0 ? t : json_get(j, obj, snake);
}

bool gemini_is(const struct json *j, int key, const char *name) {
    char snake[64];
    size_t n = 0;
    for (const char *p = name; *p && n < sizeof snake - 2; p++) {
        if (*p >= 'A' && *p <= 'Z') {
            snake[n++] = '_';
            snake[n++] = (char)(*p - 'A' + 'a');
        } else {
            snake[n++] = *p;
        }
    }
    snake[n] = 0;
    return json_str_is(j, key, name) || json_str_is(j, key, snake);
}

static struct slice str(const struct state *s, const struct json *j, int obj, const char *name) {
    return json_str(j, gemini_get(j, obj, name), s->r->arena);
}

static struct slice where(const struct state *s) {
    return arena_printf(s->r->arena, "contents[%u].parts", s->content);
}

/* What this gateway put there, base64 of either alphabet; or the provider's own. */
static struct ir_blob blob_of(const struct state *s, struct slice signature, enum ir_blob_kind kind) {
    struct buf b;
    struct slice carrier = SLICE_NONE;
    if (!slice_starts(signature, SLICE(IR_CARRIER_BASE64)))
        return ir_blob_of(signature, kind, IR_GEMINI);
    buf_init(&b, s->r->arena->pages, signature.len + 8);
    if (base64_decode(&b, signature, true))
        carrier = arena_copy(s->r->arena, buf_slice(&b));
    buf_release(&b);
    return ir_blob_of(carrier.ptr ? carrier : signature, kind, IR_GEMINI);
}

/* How finely a picture is looked at, in OpenAI's words. */
static struct slice detail_of(const struct state *s, const struct json *j, int part) {
    static const struct { const char *level, *detail; } levels[] = { { "MEDIA_RESOLUTION_LOW", "low" },
                                                                      { "MEDIA_RESOLUTION_MEDIUM", "auto" },
                                                                      { "MEDIA_RESOLUTION_HIGH", "high" },
                                                                      { "MEDIA_RESOLUTION_ULTRA_HIGH", "original" } };
    int level = gemini_get(j, gemini_get(j, part, "mediaResolution"), "level");
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (json_str_is(j, level, levels[i].level))
            return slice_str(levels[i].detail);
    if (json_str_len(j, level) > 0 && !json_str_is(j, level, "MEDIA_RESOLUTION_UNSPECIFIED"))
        ir_note(s->r, SLICE("contents.parts.mediaResolution"));
    return SLICE_NONE;
}

static bool is_youtube(struct slice url) {
    static const char *const hosts[] = { "https://www.youtube.com/", "https://youtube.com/", "https://youtu.be/" };
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
        if (slice_starts(url, slice_str(hosts[i])))
            return true;
    return false;
}

static enum ir_part_kind kind_of(struct slice type) {
    if (slice_starts(type, SLICE("image/")))
        return IR_IMAGE;
    if (slice_starts(type, SLICE("audio/")))
        return IR_AUDIO;
    return slice_starts(type, SLICE("video/")) ? IR_VIDEO : IR_FILE;
}

static bool read_inline(const struct state *s, const struct json *j, int t, struct ir_part **list, struct ir_fault *f) {
    struct slice type = str(s, j, t, "mimeType"), data = str(s, j, t, "data");
    static const char *const known[] = { "mimeType", "data", "displayName", NULL };
    gemini_others(s->r, j, t, "contents.parts.inlineData", known);
    if (!type.ptr || !data.ptr)
        return common_wrong(s->r, f, where(s), "an inlineData with mimeType and data");
    struct ir_part *p = ir_add_part(s->r, list, kind_of(type));
    if (!p)
        return true;
    p->media_type = slice_ieq(type, SLICE("image/jpg")) ? SLICE("image/jpeg") : type;
    p->data = data;
    p->name = str(s, j, t, "displayName");
    return true;
}

static bool read_file(const struct state *s, const struct json *j, int t, struct ir_part **list, struct ir_fault *f) {
    static const char *const known[] = { "fileUri", "mimeType", "displayName", NULL };
    struct slice uri = str(s, j, t, "fileUri"), type = str(s, j, t, "mimeType");
    gemini_others(s->r, j, t, "contents.parts.fileData", known);
    bool own = uri.len > 0 && memmem(uri.ptr, uri.len, "generativelanguage.googleapis.com", 33) != NULL;
    if (own || (!slice_starts(uri, SLICE("https://")) && !slice_starts(uri, SLICE("http://"))))
        return ir_refuse(f, "unsupported_parameter", where(s),
                         SLICE("A file of another provider cannot be used with this model."));
    struct ir_part *p = ir_add_part(s->r, list, type.len == 0 && is_youtube(uri) ? IR_VIDEO : kind_of(type));
    if (p) {
        p->media_type = type;
        p->url = uri;
        p->name = str(s, j, t, "displayName");
    }
    return true;
}

static bool read_call(struct state *s, const struct json *j, int t, struct slice signature, struct ir_part **list,
                      struct ir_fault *f) {
    static const char *const known[] = { "name", "id", "args", NULL };
    struct slice name = str(s, j, t, "name"), id = str(s, j, t, "id");
    int args = gemini_get(j, t, "args");
    gemini_others(s->r, j, t, "contents.parts.functionCall", known);
    if (name.len == 0)
        return common_wrong(s->r, f, where(s), "a functionCall with a name");
    struct ir_part *p = ir_add_part(s->r, list, IR_CALL);
    struct open_call *open = arena_zalloc(s->r->arena, sizeof *open);
    if (!p || !open)
        return true;
    if (++s->open_count > MAX_OPEN)
        return ir_refuse(f, "invalid_value", where(s), SLICE("Too many function calls without a response."));
    p->name = name;
    p->id = id.len > 0 ? id : arena_printf(s->r->arena, "call_%u", s->calls);
    s->calls++;
    p->text = json_is(j, args, JSON_OBJECT) ? json_raw(j, args) : SLICE("{}");
    if (signature.len > 0)
        p->blob = blob_of(s, signature, IR_BLOB_CALL);
    open->id = p->id;
    open->name = name;
    *s->tail = open;
    s->tail = &open->next;
    return true;
}

/* Takes the call that a response answers off the open ones: by id, else the oldest of that name. */
static struct slice close_call(struct state *s, struct slice id, struct slice name) {
    for (struct open_call **at = &s->open; *at; at = &(*at)->next) {
        struct open_call *c = *at;
        if (id.len > 0 ? !slice_eq(c->id, id) : !slice_eq(c->name, name))
            continue;
        *at = c->next;
        if (!*at)
            s->tail = at;
        s->open_count--;
        return c->id;
    }
    return id.len > 0 ? id : name;
}

static bool read_parts(struct state *s, const struct json *j, int parts, struct ir_part **list, struct ir_fault *f);

static bool read_response(struct state *s, const struct json *j, int t, struct ir_part **list, struct ir_fault *f) {
    static const char *const known[] = { "name", "id", "response", "parts", NULL };
    struct slice name = str(s, j, t, "name"), id = str(s, j, t, "id");
    int response = gemini_get(j, t, "response");
    gemini_others(s->r, j, t, "contents.parts.functionResponse", known);
    struct ir_part *p = ir_add_part(s->r, list, IR_RESULT), *text = p ? ir_add_part(s->r, &p->parts, IR_TEXT) : NULL;
    if (!text)
        return true;
    int error = json_get(j, response, "error"), output = json_get(j, response, "output");
    bool alone = json_is(j, response, JSON_OBJECT) && json_size(j, response) == 1;
    int said = alone && error >= 0 ? error : alone && output >= 0 ? output : response;
    p->name = name;
    p->id = close_call(s, id, name);
    p->is_error = alone && error >= 0;
    text->text = json_is(j, said, JSON_STRING) ? json_str(j, said, s->r->arena)
                 : said >= 0                   ? json_span(j, said)
                                               : SLICE("");
    return read_parts(s, j, gemini_get(j, t, "parts"), &p->parts, f);
}

/* Reasoning: thoughts in a row are one block until a signature ends it. */
static void read_thought(struct state *s, struct slice text, struct slice signature, struct ir_part **list) {
    struct ir_part *p = *list ? (*list)->tail : NULL;
    if (!p || p->kind != IR_REASONING || p->blob.kind != IR_BLOB_NONE)
        p = ir_add_part(s->r, list, IR_REASONING);
    if (!p)
        return;
    if (p->text.len == 0) {
        p->text = text;
        s->thought_cap = 0;
    } else {
        ir_append(s->r->arena, &p->text, &s->thought_cap, text);
    }
    if (signature.len > 0)
        p->blob = blob_of(s, signature, IR_BLOB_SIGNATURE);
}

static bool read_part(struct state *s, const struct json *j, int t, struct ir_part **list, struct ir_fault *f) {
    static const char *const hosted[] = { "executableCode", "codeExecutionResult", "toolCall", "toolResponse" };
    static const char *const known[] = { "text",         "thought",       "thoughtSignature",    "functionCall",
                                         "functionResponse", "inlineData", "fileData",           "mediaResolution",
                                         "executableCode", "codeExecutionResult", "toolCall",    "toolResponse",
                                         NULL };
    int text = gemini_get(j, t, "text"), body;
    struct slice signature = str(s, j, t, "thoughtSignature");
    bool thought = false;
    json_bool(j, gemini_get(j, t, "thought"), &thought);
    gemini_others(s->r, j, t, "contents.parts", known);
    if (json_is(j, body = gemini_get(j, t, "functionCall"), JSON_OBJECT))
        return read_call(s, j, body, signature, list, f);
    if (json_is(j, body = gemini_get(j, t, "functionResponse"), JSON_OBJECT))
        return read_response(s, j, body, list, f);
    bool data = json_is(j, body = gemini_get(j, t, "inlineData"), JSON_OBJECT);
    if (data || json_is(j, body = gemini_get(j, t, "fileData"), JSON_OBJECT)) {
        if (!(data ? read_inline : read_file)(s, j, body, list, f))
            return false;
        if (*list)
            (*list)->tail->detail = detail_of(s, j, t);
        return true;
    }
    for (size_t i = 0; i < sizeof hosted / sizeof *hosted; i++)
        if (json_is(j, gemini_get(j, t, hosted[i]), JSON_OBJECT)) {
            ir_note(s->r, arena_printf(s->r->arena, "contents.%s", hosted[i]));
            return true;
        }
    if (thought || (signature.len > 0 && json_str_len(j, text) == 0)) {
        read_thought(s, json_str(j, text, s->r->arena), signature, list);
        return true;
    }
    if (json_is(j, text, JSON_STRING)) {
        struct ir_part *p = ir_add_part(s->r, list, IR_TEXT);
        if (p)
            p->text = json_str(j, text, s->r->arena);
        return true;
    }
    return json_size(j, t) == 0 || common_wrong(s->r, f, where(s), "a list of parts of known kinds");
}

static bool read_parts(struct state *s, const struct json *j, int parts, struct ir_part **list, struct ir_fault *f) {
    if (json_is(j, parts, JSON_OBJECT)) /* some clients send one part alone */
        return read_part(s, j, parts, list, f);
    if (!json_is(j, parts, JSON_ARRAY))
        return parts < 0 || json_is(j, parts, JSON_NULL) || common_wrong(s->r, f, where(s), "a list");
    for (int p = json_first(j, parts); p >= 0; p = json_next(j, parts, p)) {
        if (!json_is(j, p, JSON_OBJECT))
            return common_wrong(s->r, f, where(s), "a list of objects");
        if (!read_part(s, j, p, list, f))
            return false;
    }
    return true;
}

static const char *const content_members[] = { "role", "parts", NULL };

static bool read_content(struct state *s, const struct json *j, int c, struct ir_fault *f) {
    struct ir_request *r = s->r;
    int role = gemini_get(j, c, "role");
    bool model = json_str_is(j, role, "model"),
         user = role < 0 || json_str_is(j, role, "user") || json_str_len(j, role) == 0;
    if (!model && !user && !json_str_is(j, role, "function") && !json_str_is(j, role, "tool"))
        return common_wrong(r, f, arena_printf(r->arena, "contents[%u].role", s->content), "user or model");
    gemini_others(s->r, j, c, "contents", content_members);
    struct ir_turn *turn = ir_add_turn(r, model ? IR_ASSISTANT : IR_USER);
    return !turn || read_parts(s, j, gemini_get(j, c, "parts"), &turn->parts, f);
}

bool gemini_read_contents(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    struct state s = { .r = r };
    s.tail = &s.open;
    if (json_is(j, t, JSON_OBJECT)) /* proto3 readers take one for a list of one */
        return read_content(&s, j, t, f);
    if (!json_is(j, t, JSON_ARRAY) || json_size(j, t) == 0)
        return common_wrong(r, f, SLICE("contents"), "a list of at least one content");
    for (int c = json_first(j, t); c >= 0; c = json_next(j, t, c), s.content++)
        if (!read_content(&s, j, c, f))
            return false;
    return true;
}

/* A content, or a plain string as some clients send it. */
bool gemini_read_system(const struct json *j, int t, struct ir_request *r, struct ir_fault *f) {
    struct state s = { .r = r };
    struct ir_turn *turn = ir_add_first_turn(r, IR_SYSTEM);
    s.tail = &s.open;
    gemini_others(r, j, t, "systemInstruction", content_members);
    if (!turn)
        return true;
    if (json_is(j, t, JSON_STRING)) {
        struct ir_part *p = ir_add_part(r, &turn->parts, IR_TEXT);
        if (p)
            p->text = json_str(j, t, r->arena);
        return true;
    }
    return read_parts(&s, j, gemini_get(j, t, "parts"), &turn->parts, f);
}
