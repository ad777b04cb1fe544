/* Sizes of pictures and pages of documents, for what providers charge by them. Nothing is decoded but base64: the
 * figures stand in headers. Bounded: some kilobytes of a picture, of documents what the caller allows. */
#include "proto/task/media.h"

#include "proto/base/crypto.h"

enum {
    HEAD_BYTES = 16 << 10,        /* a JPEG's frame header comes behind its metadata */
    PDF_BYTES_PER_PAGE = 50 << 10 /* where none is named */
};

/* Up to n bytes; what is no base64 (a JSON escape, a line end, padding) is passed over. *text is what is left. */
static size_t decode(struct slice *text, uint8_t *out, size_t n) {
    uint32_t bits = 0;
    size_t have = 0, i = 0;
    unsigned group = 0;
    for (; i < text->len && have + 3 <= n; i++) {
        unsigned v = base64_sextet((unsigned char)text->ptr[i]);
        if (v > 63)
            continue;
        bits = bits << 6 | v;
        if (++group < 4)
            continue;
        out[have++] = (uint8_t)(bits >> 16);
        out[have++] = (uint8_t)(bits >> 8);
        out[have++] = (uint8_t)bits;
        group = 0;
    }
    *text = slice_from(*text, i);
    return have;
}

static uint32_t big(const uint8_t *p, int n) {
    uint32_t v = 0;
    for (int i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}
static uint32_t little(const uint8_t *p, int n) {
    uint32_t v = 0;
    for (int i = n - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

/* ITU T.81, annex B: segments up to a frame header. */
static struct media_size jpeg_size(const uint8_t *p, size_t n) {
    for (size_t at = 2; at + 9 <= n && p[at] == 0xff;) {
        uint8_t marker = p[at + 1];
        if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc)
            return (struct media_size){ big(p + at + 7, 2), big(p + at + 5, 2) };
        at += 2 + big(p + at + 2, 2);
    }
    return (struct media_size){ 0, 0 };
}

/* RFC 9649: a lossy, a lossless or an extended file. */
static struct media_size webp_size(const uint8_t *p) {
    if (memcmp(p + 12, "VP8 ", 4) == 0)
        return (struct media_size){ little(p + 26, 2) & 0x3fff, little(p + 28, 2) & 0x3fff };
    if (memcmp(p + 12, "VP8L", 4) == 0)
        return (struct media_size){ (little(p + 21, 4) & 0x3fff) + 1, (little(p + 21, 4) >> 14 & 0x3fff) + 1 };
    if (memcmp(p + 12, "VP8X", 4) == 0)
        return (struct media_size){ little(p + 24, 3) + 1, little(p + 27, 3) + 1 };
    return (struct media_size){ 0, 0 };
}

struct media_size media_size(struct slice base64) {
    uint8_t head[HEAD_BYTES];
    size_t n = decode(&base64, head, sizeof head);
    if (n < 30)
        return (struct media_size){ 0, 0 };
    if (memcmp(head, "\x89PNG", 4) == 0) /* RFC 2083: IHDR comes first */
        return (struct media_size){ big(head + 16, 4), big(head + 20, 4) };
    if (memcmp(head, "GIF8", 4) == 0)
        return (struct media_size){ little(head + 6, 2), little(head + 8, 2) };
    if (memcmp(head, "RIFF", 4) == 0 && memcmp(head + 8, "WEBP", 4) == 0)
        return webp_size(head);
    return head[0] == 0xff && head[1] == 0xd8 ? jpeg_size(head, n) : (struct media_size){ 0, 0 };
}

/* How often p has "/Type" and, behind blanks, "/Page", but not "/Pages" (ISO 32000-1, 7.7.3). One that lies across the
 * end of p may be missed. */
static uint64_t count_pages(const uint8_t *p, size_t n) {
    static const char type[] = "/Type", page[] = "/Page";
    const uint8_t *end = p + n;
    uint64_t found = 0;
    while ((p = memmem(p, (size_t)(end - p), type, sizeof type - 1)) != NULL) {
        p += sizeof type - 1;
        while (p < end && (*p == ' ' || *p == '\r' || *p == '\n'))
            p++;
        if ((size_t)(end - p) >= sizeof page && memcmp(p, page, sizeof page - 1) == 0 && p[sizeof page - 1] != 's')
            found++;
    }
    return found;
}

uint64_t media_pages(struct slice base64, size_t *budget) {
    uint8_t part[HEAD_BYTES];
    struct slice rest = slice_of(base64.ptr, base64.len < *budget ? base64.len : *budget);
    size_t searched = rest.len;
    uint64_t found = 0;
    *budget -= searched;
    for (size_t n; (n = decode(&rest, part, sizeof part)) > 0;)
        found += count_pages(part, n);
    if (found == 0)
        return base64.len / 4 * 3 / PDF_BYTES_PER_PAGE + 1;
    return found * base64.len / searched;
}
