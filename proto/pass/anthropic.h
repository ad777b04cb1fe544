/* Anthropic Messages: the halves of the module. Private to proto/pass. */
#ifndef TG_PASS_ANTHROPIC_H
#define TG_PASS_ANTHROPIC_H

#include "proto/pass/scan.h"

extern const struct scan_state anthropic_state;

enum pass_result pass_anthropic_whole(struct pass_answer *a, const struct json *j, struct arena *arena,
                                      struct pieces *out, struct pass_fault *fault);
enum pass_result pass_anthropic_event(struct pass_answer *a, const struct sse_event *ev, struct arena *scratch,
                                      struct pieces *out, struct pass_fault *fault);
enum pass_result pass_anthropic_end(struct pass_answer *a, struct arena *scratch, struct pieces *out);
void pass_anthropic_error(const struct json *j, struct arena *arena, struct pass_fault *fault);
bool pass_anthropic_fail(struct pass_answer *a, int status, const char *code, struct slice message, struct slice error,
                         struct arena *arena, struct pieces *out);
struct slice pass_anthropic_ping(const struct pass_answer *a);

#endif
