/* Assertions guard what the program itself must keep true; they stay on in release builds.
 * They are never input validation: what the world does is an error, not an assertion. */
#ifndef TG_CHECK_H
#define TG_CHECK_H

#include <stdint.h>

_Noreturn void check_failed(const char *expr, const char *file, int line);

/* A hook that runs before abort(): a worker leaves its last words in shared memory. */
extern void (*check_last_words)(const char *text);

#define CHECK(e) ((e) ? (void)0 : check_failed(#e, __FILE__, __LINE__))

/* A magic number at the head of a long-lived struct, checked at each callback's entry. */
#define CHECK_MAGIC(p, m) CHECK((p) != NULL && (p)->magic == (m))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* The struct that contains this member. */
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

#endif
