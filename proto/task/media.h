/* What pictures and documents show of themselves in a request: their first bytes, read through base64. See media.c. */
#ifndef TG_MEDIA_H
#define TG_MEDIA_H

#include "proto/base/slice.h"

struct media_size {
    uint32_t width, height; /* 0: not seen */
};

/* Of a PNG, JPEG, GIF or WebP. base64: of either alphabet, as it stands in a JSON string. */
struct media_size media_size(struct slice base64);
/* Pages of a PDF, at least 1: those that its beginning names, the rest in proportion; by its length where it names none
 * (they are compressed then). *budget: how much of base64 may be searched; it is lowered by what was. */
uint64_t media_pages(struct slice base64, size_t *budget);

#endif
