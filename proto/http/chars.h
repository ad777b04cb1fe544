/* Character classes of RFC 9110 §5.6.2 and §5.5. Internal to proto/http. */
#ifndef TG_HTTP_CHARS_H
#define TG_HTTP_CHARS_H

#include <stdbool.h>
#include <stdint.h>

enum { CHAR_TOKEN = 1, CHAR_VALUE = 2, CHAR_TARGET = 4, CHAR_HOST = 8 };
extern const uint8_t http_chars[256];

static inline bool http_is_token(uint8_t c) { return http_chars[c] & CHAR_TOKEN; }
static inline bool http_is_value(uint8_t c) {
    return http_chars[c] & CHAR_VALUE;
} /* tab, visible, obs-text: no other control */
static inline bool http_is_target(uint8_t c) { return http_chars[c] & CHAR_TARGET; } /* visible ASCII without '#' */
static inline bool http_is_host(uint8_t c) {
    return http_chars[c] & CHAR_HOST;
} /* RFC 3986 §3.2.2 reg-name, literals, port */

#endif
