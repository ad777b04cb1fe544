/* Writes the contents of a generateContent request.
 *
 * Neighbours of one role are one content, and the responses to a turn's calls stand in one content in the order of
 * the calls. From generation 3 on the first call of each step needs a thoughtSignature: where the history has none of
 * this provider's own, the value that its documentation gives for such histories stands in. */
#include "proto/dialect/gemini.h"

static const char no_signature[] = "skip_thought_signature_validator";

static void write_text(struct json_writer *w, struct slice text) {
    if (text.len == 0)
        return;
    jw_object(w);
    common_member(w, "text", text);
    jw_end_object(w);
}

/* The media type by the end of a URL, where the client's dialect names none. */
static const char *type_of_url(const struct ir_part *p) {
    static const struct { const char *tail, *type; } types[] = {
        { ".png", "image/png" }, { ".gif", "image/gif" }, { ".webp", "image/webp" }, { ".pdf", "application/pdf" },
        { ".mp4", "video/mp4" }, { ".mp3", "audio/mpeg" }, { ".wav", "audio/wav" },
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (p->url.len > 0 && memmem(p->url.ptr, p->url.len, types[i].tail, strlen(types[i].tail)))
            return types[i].type;
    return p->kind == IR_FILE ? "application/pdf" : p->kind == IR_VIDEO ? "video/mp4" : "image/jpeg";
}

/* The client's own word for it; others' wishes are no more than hints, and not every version of the API takes them. */
static void write_resolution(struct json_writer *w, struct slice detail) {
    jw_key(w, "mediaResolution");
    jw_object(w);
    common_word(w, "level", slice_is(detail, "low")    ? "MEDIA_RESOLUTION_LOW"
                            : slice_is(detail, "high") ? "MEDIA_RESOLUTION_HIGH"
                            : slice_is(detail, "auto") ? "MEDIA_RESOLUTION_MEDIUM"
                                                       : "MEDIA_RESOLUTION_ULTRA_HIGH");
    jw_end_object(w);
}

static bool write_media(struct json_writer *w, const struct ir_request *r, const struct ir_part *p,
                        struct ir_fault *f) {
    bool web = slice_starts(p->url, SLICE("https://")) || slice_starts(p->url, SLICE("http://"));
    if (p->kind == IR_FILE)
        write_text(w, common_file_head(p, true, r->arena)); /* the API has no place for them */
    if (p->text.len > 0) {
        write_text(w, p->text);
        return true;
    }
    if (p->data.len == 0 && !web)
        return ir_refuse(f, "unsupported_parameter", ir_member(r, "turns"),
                         SLICE("A file or picture by this URL cannot be sent to this model's provider."));
    jw_object(w);
    jw_key(w, p->data.len > 0 ? "inlineData" : "fileData");
    jw_object(w);
    bool named = p->media_type.len > 0 && (p->data.len > 0 || r->from == IR_GEMINI);
    if (named || r->from != IR_GEMINI) /* a page of a video site needs none */
        common_member(w, "mimeType", named ? p->media_type : slice_str(type_of_url(p)));
    common_member(w, p->data.len > 0 ? "data" : "fileUri", p->data.len > 0 ? p->data : p->url);
    jw_end_object(w);
    if (p->detail.len > 0 && r->from == IR_GEMINI)
        write_resolution(w, p->detail);
    jw_end_object(w);
    return true;
}

static bool write_part(struct json_writer *w, const struct ir_request *r, const struct ir_part *p, struct ir_fault *f) {
    switch (p->kind) {
    case IR_TEXT: case IR_REFUSAL: write_text(w, p->text); return true;
    case IR_IMAGE: case IR_AUDIO: case IR_VIDEO: case IR_FILE: return write_media(w, r, p, f);
    default: return true;
    }
}

/* Ids that other providers or this gateway made mean nothing here; Gemini's own go back. */
static bool own_id(struct slice id) {
    return !slice_starts(id, SLICE("call_")) && !slice_starts(id, SLICE("toolu_")) && !slice_starts(id, SLICE("fc_")) &&
           !slice_starts(id, SLICE("chatcmpl-"));
}

/* The response object: the text where it is an object already (unless it would be read as a reference), else wrapped.
 */
static void write_response(struct json_writer *w, struct ir_request *r, const struct ir_part *p) {
    struct slice text = ir_join_text(r->arena, p->parts, "\n");
    struct json j;
    bool object = !p->is_error && text.len > 1 && json_parse(&j, r->arena, text.ptr, text.len) &&
                  json_is(&j, 0, JSON_OBJECT) && !memmem(text.ptr, text.len, "\"$ref\"", 6);
    jw_key(w, "response");
    if (object) {
        jw_raw(w, json_span(&j, 0));
        return;
    }
    jw_object(w);
    common_member(w, p->is_error ? "error" : "output", text);
    jw_end_object(w);
}

static void write_result(struct json_writer *w, struct ir_request *r, const struct ir_part *p) {
    jw_object(w);
    jw_key(w, "functionResponse");
    jw_object(w);
    if (own_id(p->id))
        common_member(w, "id", p->id);
    common_member(w, "name", ir_sent_name(r, p->name, 64, ".:"));
    write_response(w, r, p);
    jw_end_object(w);
    jw_end_object(w);
}

static const struct ir_part *result_of(const struct ir_turn *user, struct slice id) {
    for (const struct ir_part *p = user->parts; p; p = p->next)
        if (p->kind == IR_RESULT && slice_eq(p->id, id))
            return p;
    return NULL;
}

static bool write_user(struct json_writer *w, struct ir_request *r, const struct ir_turn *user,
                       const struct ir_turn *model, struct ir_fault *f) {
    for (const struct ir_part *c = model ? model->parts : NULL; c; c = c->next) {
        const struct ir_part *p = c->kind == IR_CALL ? result_of(user, c->id) : NULL;
        if (p)
            write_result(w, r, p);
    }
    for (const struct ir_part *p = user->parts; p; p = p->next) {
        for (const struct ir_part *q = p->kind == IR_RESULT ? p->parts : NULL; q; q = q->next)
            if (q->kind != IR_TEXT && q->kind != IR_REFUSAL && !write_part(w, r, q, f))
                return false;
        if (p->kind != IR_RESULT && !write_part(w, r, p, f))
            return false;
    }
    return true;
}

static bool write_call(struct json_writer *w, struct ir_request *r, const struct ir_target *t, const struct ir_part *p,
                       bool first, struct ir_fault *f) {
    struct slice args;
    bool fits = ir_blob_fits(&p->blob, IR_GEMINI, t->origin) && p->blob.data.len > 0;
    bool old = t->model.len > 0 && (memmem(t->model.ptr, t->model.len, "gemini-1", 8) ||
                                    memmem(t->model.ptr, t->model.len, "gemini-2", 8));
    if (!ir_call_object(r, p, &args, f))
        return false;
    jw_object(w);
    jw_key(w, "functionCall");
    jw_object(w);
    if (own_id(p->id))
        common_member(w, "id", p->id);
    common_member(w, "name", ir_sent_name(r, p->name, 64, ".:"));
    jw_key(w, "args");
    jw_raw(w, args);
    jw_end_object(w);
    if (fits)
        common_member(w, "thoughtSignature", p->blob.data);
    else if (first && !old)
        common_word(w, "thoughtSignature", no_signature);
    jw_end_object(w);
    return true;
}

/* A thought that this provider signed. */
static void write_thought(struct json_writer *w, const struct ir_target *t, const struct ir_part *p) {
    if (p->blob.data.len == 0 || !ir_blob_fits(&p->blob, IR_GEMINI, t->origin))
        return;
    jw_object(w);
    common_member(w, "text", p->text.ptr ? p->text : SLICE(""));
    jw_key(w, "thought");
    jw_bool(w, true);
    common_member(w, "thoughtSignature", p->blob.data);
    jw_end_object(w);
}

static bool write_model(struct json_writer *w, struct ir_request *r, const struct ir_target *t,
                        const struct ir_turn *turn, struct ir_fault *f) {
    bool first = true;
    for (const struct ir_part *p = turn->parts; p; p = p->next) {
        if (p->kind == IR_CALL) {
            if (!write_call(w, r, t, p, first, f))
                return false;
            first = false;
        } else if (p->kind == IR_REASONING) {
            write_thought(w, t, p);
        } else if (!write_part(w, r, p, f)) {
            return false;
        }
    }
    return true;
}

/* Whether a turn leaves any part: reasoning alone does not. */
static bool says_something(const struct ir_turn *turn) {
    for (const struct ir_part *p = turn->parts; p; p = p->next)
        if (p->kind != IR_REASONING)
            return true;
    return false;
}

bool gemini_write_contents(struct json_writer *w, struct ir_request *r, const struct ir_target *t, struct ir_fault *f) {
    const struct ir_turn *model = NULL;
    enum ir_role open = IR_SYSTEM; /* none yet */
    jw_key(w, "contents");
    jw_array(w);
    for (const struct ir_turn *turn = r->turns; turn; turn = turn->next) {
        if (turn->role == IR_SYSTEM || !says_something(turn))
            continue;
        if (turn->role != open) {
            if (open != IR_SYSTEM) {
                jw_end_array(w);
                jw_end_object(w);
            }
            open = turn->role;
            jw_object(w);
            common_word(w, "role", open == IR_USER ? "user" : "model");
            jw_key(w, "parts");
            jw_array(w);
        }
        if (turn->role == IR_USER ? !write_user(w, r, turn, model, f) : !write_model(w, r, t, turn, f))
            return false;
        if (turn->role == IR_ASSISTANT)
            model = turn;
    }
    if (open != IR_SYSTEM) {
        jw_end_array(w);
        jw_end_object(w);
    }
    jw_end_array(w);
    return true;
}
