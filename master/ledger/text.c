/* Texts of the outside: times, emails, what of a key is shown. Pure: no state, no failure but false. */
#include <stdio.h>
#include <time.h>
#include "master/ledger/text.h"
#include "proto/base/text.h"

void time_format(char out[40], int64_t time_ms, bool with_ms) {
    time_t s = (time_t)(time_ms / 1000);
    int ms = (int)(time_ms % 1000);
    if (ms < 0)
        ms += 1000, s--;
    struct tm tm;
    if (!gmtime_r(&s, &tm))
        memset(&tm, 0, sizeof tm), tm.tm_mday = 1;
    size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, 40 - n, with_ms ? ".%03dZ" : "Z", ms);
}

static bool digits(struct slice *t, unsigned n, int *out) {
    int v = 0;
    if (t->len < n)
        return false;
    for (unsigned i = 0; i < n; i++) {
        if (t->ptr[i] < '0' || t->ptr[i] > '9')
            return false;
        v = v * 10 + (t->ptr[i] - '0');
    }
    *t = slice_from(*t, n);
    *out = v;
    return true;
}
static bool one_of(struct slice *t, const char *set) {
    if (t->len == 0 || !strchr(set, t->ptr[0]))
        return false;
    *t = slice_from(*t, 1);
    return true;
}

/* "Z" or "+hh:mm" → seconds east of UTC. */
static bool zone(struct slice *t, int *east) {
    *east = 0;
    if (one_of(t, "Zz"))
        return true;
    if (t->len == 0 || (t->ptr[0] != '+' && t->ptr[0] != '-'))
        return false;
    int sign = t->ptr[0] == '-' ? -1 : 1, h, m;
    *t = slice_from(*t, 1);
    if (!digits(t, 2, &h) || !one_of(t, ":") || !digits(t, 2, &m) || h > 23 || m > 59)
        return false;
    *east = sign * (h * 3600 + m * 60);
    return true;
}

static bool age_parse(struct slice text, int64_t now_ms, int64_t *out_ms) {
    uint64_t n;
    if (text.len < 2 || !slice_to_u64(slice_of(text.ptr, text.len - 1), &n) || n > 1000000000)
        return false;
    int64_t unit;
    switch (text.ptr[text.len - 1]) {
    case 's': unit = 1; break;
    case 'm': unit = 60; break;
    case 'h': unit = 3600; break;
    case 'd': unit = 86400; break;
    case 'w': unit = 7 * 86400; break;
    default: return false;
    }
    *out_ms = now_ms - (int64_t)n * unit * 1000;
    return true;
}

bool time_parse(struct slice text, int64_t now_ms, int64_t *out_ms) {
    if (age_parse(text, now_ms, out_ms))
        return true;
    struct tm tm = { 0 };
    int year, ms = 0, east = 0;
    struct slice t = text;
    if (!digits(&t, 4, &year) || !one_of(&t, "-") || !digits(&t, 2, &tm.tm_mon) || !one_of(&t, "-") ||
        !digits(&t, 2, &tm.tm_mday))
        return false;
    if (t.len > 0) {
        if (!one_of(&t, "Tt ") || !digits(&t, 2, &tm.tm_hour) || !one_of(&t, ":") || !digits(&t, 2, &tm.tm_min) ||
            !one_of(&t, ":") || !digits(&t, 2, &tm.tm_sec))
            return false;
        if (one_of(&t, ".")) {
            int d, scale = 100;
            if (!digits(&t, 1, &d))
                return false;
            do
                ms += d * scale, scale /= 10;
            while (digits(&t, 1, &d));
        }
        if (!zone(&t, &east) || t.len > 0)
            return false;
    }
    if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 || tm.tm_min > 59 ||
        tm.tm_sec > 60)
        return false;
    tm.tm_mon--;
    tm.tm_year = year - 1900;
    int month = tm.tm_mon;
    time_t s = timegm(&tm);
    if (tm.tm_mon != month) /* 31 June became July */
        return false;
    *out_ms = ((int64_t)s - east) * 1000 + ms;
    return true;
}

static bool host_fits(const char *host) {
    size_t n = strlen(host);
    if (n == 0 || host[0] == '.' || host[n - 1] == '.' || strstr(host, ".."))
        return false;
    for (const char *p = host; *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '.' || *p == '-' ||
              (unsigned char)*p >= 0x80))
            return false;
    return true;
}

/* Trimmed, in lower case, one @ with something on both sides and a host of plain characters: what can be an address
 * at all. Whether it is someone's only a mail to it could tell. Letters beyond ASCII are letters (RFC 6532), what
 * cannot be seen is refused: two addresses that look the same are not to be two accounts for that reason. */
bool email_normalise(struct slice text, char out[STORE_EMAIL + 1]) {
    size_t n = 0, at = 0, ats = 0;
    char utf8[4];
    bool ended = false;
    for (uint32_t c; text.len > 0;) {
        text = slice_from(text, text_char(text, &c));
        if (text_space(c) || (c >= '\t' && c <= '\r')) { /* around it only */
            ended = n > 0;
            continue;
        }
        size_t len = text_put(utf8, text_lower(c));
        if (ended || text_hidden(c) || (c < 0x80 && strchr("()<>,;:\\\"[]", (int)c)) || n + len > STORE_EMAIL)
            return false;
        if (c == '@')
            at = n, ats++;
        memcpy(out + n, utf8, len);
        n += len;
    }
    out[n] = '\0';
    return ats == 1 && at > 0 && host_fits(out + at + 1);
}

void key_shown(struct slice key, struct slice prefix, struct slice *begin, struct slice *end) {
    size_t head = prefix.len > 0 && slice_starts(key, prefix) ? prefix.len : 0, tail = 4;
    if (head == 0) /* another gateway's: up to its last separator among the first characters */
        for (size_t i = 0; i < key.len && i < 12; i++)
            if (key.ptr[i] == '-' || key.ptr[i] == '_')
                head = i + 1;
    head += 4;
    if (head + tail + 12 > key.len) /* a short key keeps most of itself to itself */
        head = key.len / 8, tail = key.len / 8;
    *begin = slice_of(key.ptr, head);
    *end = slice_of(key.ptr + key.len - tail, tail);
}
