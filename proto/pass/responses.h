/* OpenAI Responses: the halves of the module. Private to proto/pass. */
#ifndef TG_PASS_RESPONSES_H
#define TG_PASS_RESPONSES_H

#include "proto/pass/pass.h"

enum pass_result pass_responses_whole(struct pass_answer *a, const struct json *j, struct arena *arena,
                                      struct pieces *out, struct pass_fault *fault);
enum pass_result pass_responses_event(struct pass_answer *a, const struct sse_event *ev, struct arena *scratch,
                                      struct pieces *out, struct pass_fault *fault);
enum pass_result pass_responses_end(struct pass_answer *a, struct arena *scratch, struct pieces *out);
void pass_responses_error(const struct json *j, struct arena *arena, struct pass_fault *fault);
bool pass_responses_fail(struct pass_answer *a, int status, const char *code, struct slice message, struct slice error,
                         struct arena *arena, struct pieces *out);

#endif
