/* The one document that all who answer calls write alike (ipc.h). */
#include "proto/ipc.h"

void ipc_write_error(struct json_writer *w, struct slice code, struct slice message) {
    jw_object(w);
    jw_key(w, "error");
    jw_object(w);
    jw_key(w, "code");
    jw_str(w, code);
    jw_key(w, "message");
    jw_str(w, message);
    jw_end_object(w);
    jw_end_object(w);
}
