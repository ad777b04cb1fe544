/* Chat Completions: the halves of the module. Private to proto/pass. */
#ifndef TG_PASS_OPENAI_H
#define TG_PASS_OPENAI_H

#include "proto/pass/pass.h"

enum pass_result pass_chat_whole(struct pass_answer *a, const struct json *j, struct arena *arena, struct pieces *out,
                                 struct pass_fault *fault);
enum pass_result pass_chat_event(struct pass_answer *a, const struct sse_event *ev, struct arena *scratch,
                                 struct pieces *out, struct pass_fault *fault);
enum pass_result pass_chat_end(struct pass_answer *a, struct arena *scratch, struct pieces *out);
bool pass_chat_fail(struct pass_answer *a, int status, const char *code, struct slice message, struct slice error,
                    struct arena *arena, struct pieces *out);

#endif
