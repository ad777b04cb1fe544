/* A slice is a borrowed run of bytes: never owned, never NUL-terminated by contract. */
#ifndef TG_SLICE_H
#define TG_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const char *ptr;
    size_t len;
};

#define SLICE(lit) ((struct slice){ "" lit, sizeof(lit) - 1 })
#define SLICE_NONE ((struct slice){ NULL, 0 })
/* for printf's "%.*s" */
#define SLICE_ARG(s) (int)(s).len, (s).ptr

static inline struct slice slice_of(const char *ptr, size_t len) { return (struct slice){ ptr, len }; }
static inline struct slice slice_str(const char *s) { return (struct slice){ s, s ? strlen(s) : 0 }; }
static inline bool slice_eq(struct slice a, struct slice b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}
static inline bool slice_is(struct slice a, const char *s) { return slice_eq(a, slice_str(s)); }
static inline bool slice_starts(struct slice a, struct slice prefix) {
    return a.len >= prefix.len && memcmp(a.ptr, prefix.ptr, prefix.len) == 0;
}
static inline bool slice_ends(struct slice a, struct slice tail) {
    return a.len >= tail.len && memcmp(a.ptr + a.len - tail.len, tail.ptr, tail.len) == 0;
}
static inline struct slice slice_from(struct slice a, size_t n) {
    if (a.len == 0)
        return a; /* its pointer may be NULL */
    return n >= a.len ? (struct slice){ a.ptr + a.len, 0 } : (struct slice){ a.ptr + n, a.len - n };
}

/* ASCII case-insensitive equality (RFC 9110 field names, schemes, hosts). */
bool slice_ieq(struct slice a, struct slice b);
/* Strips spaces and tabs at both ends (RFC 9110 OWS). */
struct slice slice_trim(struct slice a);
/* Whole slice as an unsigned decimal; false on empty, a sign, any other byte or overflow. */
bool slice_to_u64(struct slice a, uint64_t *out);
/* Whether name matches a glob in which each `*` stands for any run of bytes, `/` included. */
bool slice_glob(struct slice glob, struct slice name);
/* Equality in time that depends on the lengths alone: for secrets. */
bool slice_eq_secret(struct slice a, struct slice b);
/* Overwrites memory in a way the compiler must not remove. */
void wipe(void *p, size_t n);

#endif
