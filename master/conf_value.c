/* Values of gateway.conf: numbers with units, exact decimals, addresses, URLs; and how they are written again, so that
 * what is written reads back the same. Each reader returns NULL, or a phrase that says what is wrong with the text. */
#include "master/conf_tree.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <strings.h>
#include <sys/un.h>

const char *conf_number(const char *s, uint64_t *out) {
    if (slice_to_u64(slice_str(s), out)) return NULL;
    return *s && strspn(s, "0123456789") == strlen(s) ? "this is too large" : "a whole number is expected";
}

struct unit {
    const char *name;
    uint64_t factor;
};

/* Digits and then one of the units; the first unit is what a bare number means. */
static const char *with_unit(const char *s, const struct unit *units, size_t count, const char *what, uint64_t *out) {
    size_t digits = strspn(s, "0123456789");
    uint64_t n;
    if (!slice_to_u64(slice_of(s, digits), &n)) return what;
    for (size_t i = 0; i < count; i++) {
        if (strcasecmp(s + digits, units[i].name) != 0) continue;
        return __builtin_mul_overflow(n, units[i].factor, out) ? "this is too large" : NULL;
    }
    return what;
}

static const struct unit sizes[] = { { "", 1 }, { "k", 1u << 10 }, { "m", 1u << 20 }, { "g", 1u << 30 } };
static const struct unit times[] = { { "", 1000 },   { "ms", 1 },      { "s", 1000 },
                                     { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 } };
static const struct unit rates[] = { { "/h", 1 }, { "/m", 60 }, { "/s", 3600 } };

const char *conf_size(const char *s, uint64_t *bytes) {
    return with_unit(s, sizes, ARRAY_LEN(sizes), "a size is expected, like 64k, 32m or 1g", bytes);
}
const char *conf_time(const char *s, uint64_t *ms) {
    return with_unit(s, times, ARRAY_LEN(times), "a time is expected, like 500ms, 5s, 2m, 24h or 30d", ms);
}
const char *conf_rate_per_h(const char *s, uint64_t *per_h) {
    return with_unit(s, rates, ARRAY_LEN(rates), "a rate is expected, like 5/h or 10/m", per_h);
}

const char *conf_decimal(const char *s, unsigned decimals, uint64_t *scaled) {
    size_t whole = strspn(s, "0123456789"), fraction = s[whole] == '.' ? strspn(s + whole + 1, "0123456789") : 0;
    if (whole == 0 || (s[whole] == '.' ? fraction == 0 || s[whole + 1 + fraction] : s[whole] != 0))
        return "a decimal number is expected, like 0.15 or 11";
    if (fraction > decimals)
        return decimals == 6   ? "at most 6 digits may stand behind the point"
               : decimals == 9 ? "at most 9 digits may stand behind the point"
                               : "too many digits behind the point";
    uint64_t n = 0;
    for (size_t i = 0; i < whole + decimals; i++) {
        char d = i < whole ? s[i] : i - whole < fraction ? s[i + 1] : '0';
        if (__builtin_mul_overflow(n, 10u, &n) || __builtin_add_overflow(n, (unsigned)(d - '0'), &n))
            return "this is too large";
    }
    *scaled = n;
    return NULL;
}

/* The largest unit that divides it. */
static void put_unit(FILE *out, uint64_t n, const struct unit *units, size_t count) {
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
        if (n % units[i].factor == 0 && (n % units[best].factor || units[i].factor >= units[best].factor)) best = i;
    fprintf(out, "%" PRIu64 "%s", n / units[best].factor, units[best].name);
}
void conf_put_size(FILE *out, uint64_t bytes) {
    if (bytes) put_unit(out, bytes, sizes, ARRAY_LEN(sizes));
    else fputc('0', out);
}
void conf_put_time(FILE *out, uint64_t ms) {
    if (ms) put_unit(out, ms, times + 1, ARRAY_LEN(times) - 1);
    else fputc('0', out);
}
void conf_put_decimal(FILE *out, uint64_t scaled, unsigned decimals) {
    uint64_t one = 1;
    for (unsigned i = 0; i < decimals; i++) one *= 10;
    fprintf(out, "%" PRIu64, scaled / one);
    uint64_t rest = scaled % one;
    if (!rest) return;
    fputc('.', out);
    for (one /= 10; rest; one /= 10) {
        fputc((int)('0' + rest / one), out);
        rest %= one;
    }
}

void conf_put_word(FILE *out, const char *s) {
    bool bare = *s && *s != '#' && *s != '"' && *s != '\'';
    for (const char *p = s; *p && bare; p++) bare = (uint8_t)*p > 0x20 && !strchr(";{}\\\"'", *p) && *p != 0x7f;
    if (bare) {
        fputs(s, out);
        return;
    }
    fputc('"', out);
    for (; *s; s++) {
        if (*s == '\n') fputs("\\n", out);
        else if (*s == '\r') fputs("\\r", out);
        else if (*s == '\t') fputs("\\t", out);
        else {
            if (*s == '"' || *s == '\\') fputc('\\', out);
            fputc(*s, out);
        }
    }
    fputc('"', out);
}

/* ---- addresses ---- */

static bool port_number(const char *s, uint32_t *port) {
    uint64_t n;
    if (!slice_to_u64(slice_str(s), &n) || n == 0 || n > 65535) return false;
    *port = (uint32_t)n;
    return true;
}

static const char *unix_address(struct conf *c, const struct conf_file *in, const char *path, const char **out) {
    if (!*path) return "a path is missing behind unix:";
    const char *full = conf_path(c, in, path);
    if (strlen(full) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return "the socket's path is too long (107 bytes at most)";
    *out = conf_format(c, "unix:%s", full);
    return NULL;
}

const char *conf_address(struct conf *c, const struct conf_file *in, const char *s, const char **out) {
    static const char *const expected = "an address is expected, like 127.0.0.1:8080, [::]:8080, 8080 or unix:/path";
    if (strncmp(s, "unix:", 5) == 0) return unix_address(c, in, s + 5, out);
    const char *colon = strrchr(s, ':'), *port_text = colon ? colon + 1 : s;
    uint32_t port;
    if (!port_number(port_text, &port))
        return strspn(port_text, "0123456789") == strlen(port_text) && *port_text ? "a port is a number from 1 to 65535"
                                                                                  : expected;
    size_t n = colon ? (size_t)(colon - s) : 0;
    const char *host = conf_copy(c, s, n);
    uint8_t bytes[16];
    char text[INET6_ADDRSTRLEN];
    if (!colon || strcmp(host, "*") == 0) host = "0.0.0.0";
    if (strcmp(host, "localhost") == 0) host = "127.0.0.1";
    if (host[0] == '[' && host[n - 1] == ']') {
        const char *inner = conf_copy(c, host + 1, n - 2);
        if (inet_pton(AF_INET6, inner, bytes) != 1) return expected;
        inet_ntop(AF_INET6, bytes, text, sizeof text);
        *out = conf_format(c, "[%s]:%u", text, port);
        return NULL;
    }
    if (inet_pton(AF_INET, host, bytes) != 1) return expected;
    inet_ntop(AF_INET, bytes, text, sizeof text);
    *out = conf_format(c, "%s:%u", text, port);
    return NULL;
}

const char *conf_cidr(const char *s, struct snap_cidr *out) {
    static const char *const expected = "an address or a network is expected, like 10.0.0.0/8 or fd00::/8";
    const char *slash = strchr(s, '/');
    size_t n = slash ? (size_t)(slash - s) : strlen(s);
    char host[INET6_ADDRSTRLEN];
    if (n >= sizeof host) return expected;
    memcpy(host, s, n);
    host[n] = 0;
    *out = (struct snap_cidr){ .family = strchr(host, ':') ? 6 : 4 };
    if (inet_pton(out->family == 6 ? AF_INET6 : AF_INET, host, out->bytes) != 1) return expected;
    uint64_t most = out->family == 6 ? 128 : 32, bits = most;
    if (slash && (!slice_to_u64(slice_str(slash + 1), &bits) || bits > most))
        return "the number of bits behind / is not one";
    out->bits = (uint8_t)bits;
    for (unsigned i = 0; i < 16; i++) /* what the mask does not cover counts for nothing */
        if (i * 8 + 8 > bits) out->bytes[i] &= i * 8 >= bits ? 0 : (uint8_t)(0xff << (8 - bits % 8));
    return NULL;
}

/* ---- URLs ---- */

/* Host and port of an authority (RFC 3986, 3.2), as far as an upstream has them. */
static const char *url_authority(struct conf *c, char *text, struct conf_url *out) {
    uint8_t bytes[16];
    if (strchr(text, '@')) return "a URL here may hold no user name or password; use `api_key` or `header`";
    out->port = out->tls ? 443 : 80;
    char *port = NULL, *end = text;
    if (*text == '[') {
        end = strchr(text, ']');
        if (!end) return "] is missing in the URL's host";
        *end = 0;
        if (inet_pton(AF_INET6, text + 1, bytes) != 1) return "the URL's host is no IPv6 address";
        if (end[1] && end[1] != ':') return "only a port may follow ] in a URL";
        if (end[1] == ':') port = end + 2;
        out->host = conf_copy(c, text + 1, strlen(text + 1));
        out->is_address = true;
    } else {
        char *colon = strchr(text, ':');
        if (colon) {
            *colon = 0;
            port = colon + 1;
        }
        size_t n = strlen(text);
        if (n == 0) return "the URL has no host";
        if (n > 253 || strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-._") != n || *text == '.' || *text == '-' ||
            strstr(text, ".."))
            return "the URL's host is no host name";
        out->host = conf_copy(c, text, n);
        out->is_address = inet_pton(AF_INET, text, bytes) == 1;
        if (!out->is_address && strspn(text, "0123456789.") == n) return "the URL's host is no IPv4 address";
    }
    if (port && !port_number(port, &out->port)) return "the URL's port is not a number from 1 to 65535";
    return NULL;
}

const char *conf_url(struct conf *c, const char *s, struct conf_url *out) {
    *out = (struct conf_url){ 0 };
    size_t scheme = strncasecmp(s, "https://", 8) == 0 ? 8 : strncasecmp(s, "http://", 7) == 0 ? 7 : 0;
    if (!scheme) return "a URL is expected, like https://api.example.com/v1";
    out->tls = scheme == 8;
    if (strchr(s, '?')) return "a URL here may hold no query; use `query NAME VALUE`";
    if (strchr(s, '#')) return "a URL here may hold no fragment";
    size_t n = strcspn(s + scheme, "/");
    char *authority = conf_copy(c, s + scheme, n);
    for (char *p = authority; *p; p++)
        if (*p >= 'A' && *p <= 'Z') *p = (char)(*p | 0x20);
    const char *path = s + scheme + n, *bad = url_authority(c, authority, out);
    if (bad) return bad;
    size_t len = strlen(path);
    while (len && path[len - 1] == '/') len--;
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)path[i] <= 0x20 || (uint8_t)path[i] >= 0x7f || strchr("\"<>\\^`{|}", path[i]))
            return "the URL's path holds a character that must be percent-encoded";
    out->path = conf_copy(c, path, len);
    bool v6 = strchr(out->host, ':');
    const char *port = out->port == (out->tls ? 443u : 80u) ? "" : conf_format(c, ":%u", out->port);
    out->text = conf_format(c, "%s://%s%s%s%s%s", out->tls ? "https" : "http", v6 ? "[" : "", out->host, v6 ? "]" : "",
                            port, out->path);
    return NULL;
}

/* ---- headers to upstreams ---- */

static bool is_token(const char *s) { /* RFC 9110, 5.6.2 */
    for (const char *p = s; *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
              strchr("!#$%&'*+-.^_`|~", *p)))
            return false;
    return *s;
}

const char *conf_header_name(const char *s) {
    static const char *const ours[] = {
        "host",   "content-length",  "content-type", "content-encoding", "transfer-encoding",
        "expect", "accept-encoding", "date"
    };
    static const char *const hops[] = {
        "connection",     "keep-alive",         "proxy-connection",   "te", "trailer", "upgrade",
        "http2-settings", "proxy-authenticate", "proxy-authorization"
    };
    static const char *const credentials[] = { "authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie" };
    if (!is_token(s)) return "this is not the name of a header";
    for (size_t i = 0; i < ARRAY_LEN(ours); i++)
        if (strcasecmp(s, ours[i]) == 0) return "this header is the gateway's own to write";
    for (size_t i = 0; i < ARRAY_LEN(hops); i++)
        if (strcasecmp(s, hops[i]) == 0) return "this header belongs to a connection, not to a request";
    for (size_t i = 0; i < ARRAY_LEN(credentials); i++)
        if (strcasecmp(s, credentials[i]) == 0) return "credentials are given by `api_key` (and `auth`)";
    return NULL;
}

const char *conf_header_value(const char *s) {
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)s[i] < 0x20 || s[i] == 0x7f) return "a header's value may hold no control character";
    if (n && (s[0] == ' ' || s[n - 1] == ' ')) return "a header's value may not begin or end with a space";
    return NULL;
}
