/* What this is a version of: `tollgate -V`, /api/status, tollctl status. */
#ifndef TG_VERSION_H
#define TG_VERSION_H

#define TOLLGATE_VERSION "0.1.0"

#endif
