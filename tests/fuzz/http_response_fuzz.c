/* Any bytes as a response head; the first chooses the size of the pieces and whether it answers a HEAD. */
#include "tests/fuzz/head_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool to_head;

static enum http_result parse(struct http_head *h, struct slice text, size_t *scanned) {
    enum http_result r = http_parse_response(h, text, scanned, to_head);
    if (r == HTTP_OK) {
        CHECK(h->status >= 100 && h->status <= 599);
        CHECK(h->body != HTTP_BODY_TO_EOF || !h->keep_alive);
        CHECK(h->body == HTTP_BODY_NONE || (!to_head && h->status >= 200 && h->status != 204 && h->status != 304));
    }
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    to_head = size > 0 && (data[0] & 0x80);
    return head_fuzz(parse, data, size);
}
