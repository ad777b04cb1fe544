/* PROXY protocol headers: parsed strictly, believed only from trusted_proxies. */
#include "worker/proxy.h"

#include <arpa/inet.h>
#include <stdio.h>

static const char signature[12] = "\r\n\r\n\0\r\nQUIT\n";

bool proxy_trusted(const struct worker *w, const char *peer) {
    struct in6_addr a;
    const struct snap *s = worker_snap(w);
    if (inet_pton(AF_INET, peer, &a) == 1)
        return snap_cidr_match(s, s->trusted_proxies, 4, a.s6_addr);
    if (inet_pton(AF_INET6, peer, &a) == 1) /* ::ffff:1.2.3.4 is how a proxy before us may write an IPv4 address */
        return IN6_IS_ADDR_V4MAPPED(&a) ? snap_cidr_match(s, s->trusted_proxies, 4, a.s6_addr + 12)
                                        : snap_cidr_match(s, s->trusted_proxies, 6, a.s6_addr);
    return strcmp(peer, "unix") == 0; /* whoever can open our socket file is the operator's */
}

static void set_peer(struct conn *c, const char *address) {
    uint8_t bytes[16];
    if (proxy_trusted(c->worker, c->peer) &&
        (inet_pton(AF_INET, address, bytes) == 1 || inet_pton(AF_INET6, address, bytes) == 1))
        snprintf(c->peer, sizeof c->peer, "%s", address);
}

/* PROXY TCP4 SRC DST SPORT DPORT\r\n, at most 107 bytes. */
static int take_v1(struct conn *c) {
    struct slice in = buf_slice(&c->in);
    size_t n = in.len < 107 ? in.len : 107;
    const char *end = memchr(in.ptr, '\n', n);
    char line[108], family[8], source[46];
    if (end == NULL)
        return n == 107 ? -1 : 0;
    size_t len = (size_t)(end - in.ptr);
    memcpy(line, in.ptr, len);
    line[len] = 0;
    if (len == 0 || line[len - 1] != '\r')
        return -1;
    if (strncmp(line, "PROXY UNKNOWN", 13) != 0) {
        if (sscanf(line, "PROXY %7s %45s", family, source) != 2 ||
            (strcmp(family, "TCP4") != 0 && strcmp(family, "TCP6") != 0))
            return -1;
        set_peer(c, source);
    }
    buf_consume(&c->in, len + 1);
    return 1;
}

static int take_v2(struct conn *c) {
    struct slice in = buf_slice(&c->in);
    if (in.len < 16)
        return 0;
    const uint8_t *p = (const uint8_t *)in.ptr;
    size_t body = (size_t)p[14] << 8 | p[15];
    if (p[12] >> 4 != 2 || body > 4096)
        return -1;
    if (in.len < 16 + body)
        return 0;
    char text[48] = "";
    if ((p[12] & 15) == 1 && p[13] >> 4 == 1 && body >= 12)
        inet_ntop(AF_INET, p + 16, text, sizeof text);
    else if ((p[12] & 15) == 1 && p[13] >> 4 == 2 && body >= 36)
        inet_ntop(AF_INET6, p + 16, text, sizeof text);
    if (text[0] != 0)
        set_peer(c, text);
    buf_consume(&c->in, 16 + body);
    return 1;
}

int proxy_take(struct conn *c) {
    struct slice in = buf_slice(&c->in);
    size_t n = in.len < sizeof signature ? in.len : sizeof signature;
    if (memcmp(in.ptr, signature, n) == 0)
        return take_v2(c);
    n = in.len < 6 ? in.len : 6;
    if (memcmp(in.ptr, "PROXY ", n) != 0)
        return -1;
    return n < 6 ? 0 : take_v1(c);
}
