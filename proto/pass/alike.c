/* Events that differ from the one before in their words only (alike.h). */
#include "proto/pass/alike.h"

void alike_add(struct alike_holes *h, int value, enum alike_hole is) {
    uint32_t at = h->n++;
    if (at >= ALIKE_HOLES)
        return;
    for (; at > 0 && h->value[at - 1] > value; at--) {
        h->value[at] = h->value[at - 1];
        h->is[at] = h->is[at - 1];
    }
    h->value[at] = value;
    h->is[at] = (uint8_t)is;
}

/* The event's text without the holes' content, and where the holes were in it. false: too long. */
static bool keep_in(struct alike *k, struct slice raw, const struct json *j, const struct alike_holes *h) {
    const char *from = raw.ptr;
    for (uint32_t i = 0; i <= h->n; i++) {
        struct slice hole = i < h->n ? json_raw(j, h->value[i]) : slice_of(raw.ptr + raw.len, 0);
        size_t n = (size_t)(hole.ptr - from);
        if (n > sizeof k->text - k->in)
            return false;
        memcpy(k->text + k->in, from, n);
        k->in = (uint16_t)(k->in + n);
        if (i < h->n)
            k->hole[i] = (struct alike_at){ .in = k->in, .is = h->is[i] };
        from = hole.ptr + hole.len;
    }
    return true;
}

/* The same of what was put out for it. Each hole lies whole in a piece of the event itself. */
static bool keep_out(struct alike *k, const struct json *j, const struct alike_holes *h, const struct pieces *out,
                     uint32_t first) {
    uint32_t i = 0;
    for (uint32_t p = first; p < out->count; p++) {
        const char *from = out->at[p].ptr, *end = from + out->at[p].len;
        for (;; i++) {
            struct slice hole = i < h->n ? json_raw(j, h->value[i]) : SLICE_NONE;
            bool here = i < h->n && hole.ptr >= from && hole.ptr + hole.len < end;
            size_t n = (size_t)((here ? hole.ptr : end) - from);
            if (n > sizeof k->text - k->in - k->out)
                return false;
            memcpy(k->text + k->in + k->out, from, n);
            k->out = (uint16_t)(k->out + n);
            if (!here)
                break;
            k->hole[i].out = k->out;
            from = hole.ptr + hole.len;
        }
    }
    return i == h->n;
}

void alike_keep(struct alike *k, const struct sse_event *ev, const struct json *j, const struct alike_holes *h,
                const struct pieces *out, uint32_t first) {
    const char *end = ev->data.ptr + ev->data.len;
    bool inside = ev->data.ptr >= ev->raw.ptr && end <= ev->raw.ptr + ev->raw.len;
    bool as_it_came = out->count == first + 1 && out->at[first].ptr == ev->raw.ptr && out->at[first].len == ev->raw.len;
    k->in = k->out = 0;
    k->holes = (uint8_t)h->n;
    if (!inside || h->n == 0 || h->n > ALIKE_HOLES || out->full || out->count == first ||
        !keep_in(k, ev->raw, j, h) || (!as_it_came && !keep_out(k, j, h, out, first)))
        k->in = k->out = 0;
}

/* The end of a plain integer at p; NULL: none, or one too long. */
static const char *number_end(const char *p, const char *end, uint64_t *number) {
    const char *start = p;
    for (*number = 0; p < end && *p >= '0' && *p <= '9' && p - start < 19; p++)
        *number = *number * 10 + (uint64_t)(*p - '0');
    return p == start || p - start > 18 || (*start == '0' && p - start > 1) ? NULL : p;
}

/* What a kept event's output is with these words in its holes. */
static bool put_out(const struct alike *k, const struct slice *words, struct arena *scratch, struct pieces *out) {
    struct slice parts[2 * ALIKE_HOLES + 1];
    const char *text = k->text + k->in;
    size_t from = 0;
    for (uint32_t i = 0; i < k->holes; i++) {
        parts[2 * i] = slice_of(text + from, k->hole[i].out - from);
        parts[2 * i + 1] = words[i];
        from = k->hole[i].out;
    }
    parts[2 * k->holes] = slice_of(text + from, k->out - from);
    struct slice whole = arena_join(scratch, parts, 2 * (size_t)k->holes + 1);
    pieces_add(out, whole);
    return whole.ptr != NULL && !out->full;
}

bool alike_take(const struct alike *k, const struct sse_event *ev, struct arena *scratch, struct pieces *out,
                struct alike_found *found) {
    struct slice words[ALIKE_HOLES];
    const char *p = ev->raw.ptr, *end = p + ev->raw.len;
    size_t from = 0;
    *found = (struct alike_found){ 0 };
    if (k->in == 0)
        return false;
    for (uint32_t i = 0;; i++) {
        size_t n = (i < k->holes ? k->hole[i].in : k->in) - from, decoded;
        if ((size_t)(end - p) < n || memcmp(p, k->text + from, n) != 0)
            return false;
        p += n;
        from += n;
        if (i == k->holes)
            break;
        const char *behind = k->hole[i].is == ALIKE_NUMBER ? number_end(p, end, &found->number)
                                                           : json_string_end(p, end, &decoded);
        if (behind == NULL)
            return false;
        if (k->hole[i].is == ALIKE_TEXT)
            found->text_bytes += decoded;
        words[i] = slice_of(p, (size_t)(behind - p));
        p = behind;
    }
    if (p != end)
        return false;
    if (k->out > 0)
        return put_out(k, words, scratch, out);
    pieces_add(out, ev->raw);
    return !out->full;
}
