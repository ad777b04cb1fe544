/* The PROXY protocol, versions 1 and 2 (haproxy.org/download/2.8/doc/proxy-protocol.txt): who is behind the load
 * balancer. */
#ifndef TG_PROXY_H
#define TG_PROXY_H

#include "worker/conn.h"

/* Takes the header off conn->in. 1 taken (c->peer set if the sender is a trusted proxy), 0 more must come, -1 not one.
 */
int proxy_take(struct conn *c);
/* Whether that textual address is one of trusted_proxies. */
bool proxy_trusted(const struct worker *w, const char *peer);

#endif
