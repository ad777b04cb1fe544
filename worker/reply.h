/* Pieces of answers that are needed outside of an exchange too. */
#ifndef TG_REPLY_H
#define TG_REPLY_H

#include "proto/base/slice.h"

/* brand.error_code with its one %d replaced by the status. */
void branded_code(struct slice pattern, int status, char *out, size_t n);

#endif
