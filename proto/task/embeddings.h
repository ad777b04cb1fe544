/* Embeddings: the halves of the module. Private to proto/task. */
#ifndef TG_TASK_EMBEDDINGS_H
#define TG_TASK_EMBEDDINGS_H

#include "proto/task/task.h"

enum task_result embeddings_read(const struct json *j, const struct task_call *c, enum ir_dialect from,
                                 struct arena *arena, struct task_figures *fig, struct ir_fault *f);
bool embeddings_write(const struct json *j, const struct task_call *c, enum ir_dialect from,
                      const struct task_figures *fig, const struct ir_cost *cost, struct arena *arena,
                      struct buf *out);
bool embeddings_echo(const struct json *j, const struct task_call *c, struct arena *arena, struct buf *out);

#endif
