/* Any bytes as a request head; the first chooses the size of the pieces. The query is looked through for a key as well.
 */
#include "tests/fuzz/head_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum http_result parse(struct http_head *h, struct slice text, size_t *scanned) {
    enum http_result r = http_parse_request(h, text, scanned);
    if (r == HTTP_OK) {
        char value[16];
        size_t n = 0;
        CHECK(h->path.len > 0 && h->path.ptr[0] == '/' && h->target.len <= HTTP_MAX_TARGET &&
              h->body != HTTP_BODY_TO_EOF);
        CHECK(h->minor == 0 || h->host.len > 0);
        CHECK(!http_query_get(h->query, SLICE("key"), value, sizeof value, &n) || n <= sizeof value);
        CHECK(!http_percent_decode(h->path, false, value, sizeof value, &n) ||
              (n <= sizeof value && !memchr(value, 0, n)));
    }
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    return head_fuzz(parse, data, size);
}
