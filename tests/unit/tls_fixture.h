/* Certificates for tests, made by openssl in a folder of their own: ca, other (authorities), ec, rsa (good), old
 * (expired). Names: good.test, *.wild.test, 127.0.0.1, ::1. */
#ifndef TG_TLS_FIXTURE_H
#define TG_TLS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/base/slice.h"

static char certificate_dir[] = "/tmp/tls_test.XXXXXX";

static const char *const make_certificates =
    "set -e; exec 2>/dev/null; cd %s\n"
    "EC='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'\n"
    "printf 'subjectAltName=DNS:good.test,DNS:*.wild.test,IP:127.0.0.1,IP:::1\\n' >ext\n"
    "openssl req -x509 $EC -keyout ca.key -out ca.pem -subj /CN=ca -days 30\n"
    "openssl req -x509 $EC -keyout other.key -out other.pem -subj /CN=other -days 30\n"
    "openssl req $EC -keyout ec.key -out ec.csr -subj /CN=good.test\n"
    "openssl req -newkey rsa:2048 -nodes -keyout rsa.key -out rsa.csr -subj /CN=good.test\n"
    "sign() { openssl x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -extfile ext \"$@\"; }\n"
    "sign -in ec.csr -days 30 -out ec.pem\n"
    "sign -in rsa.csr -days 30 -out rsa.pem\n"
    "sign -in ec.csr -days -1 -out old.pem ||\n" /* OpenSSL before 3.4 takes this, later ones take that */
    "sign -in ec.csr -not_before 20200101000000Z -not_after 20210101000000Z -out old.pem\n"
    "cp ec.key old.key\n"
    "cat ca.pem other.pem >both.pem\n";

static inline char *file_path(char *out, size_t n, const char *name) {
    snprintf(out, n, "%s/%s", certificate_dir, name);
    return out;
}

static inline struct slice load_file(const char *name) { /* the caller frees ptr */
    char path[100];
    FILE *f = fopen(file_path(path, sizeof path, name), "rb");
    assert_non_null(f);
    char *p = malloc(100000);
    size_t n = fread(p, 1, 100000, f);
    fclose(f);
    assert_true(n > 0 && n < 100000);
    return slice_of(p, n);
}

static inline int make_certificate_dir(void) {
    char script[4000];
    if (!mkdtemp(certificate_dir) || snprintf(script, sizeof script, make_certificates, certificate_dir) < 0)
        return -1;
    return system(script) == 0 ? 0 : -1;
}

static inline int drop_certificate_dir(void) {
    char script[100];
    snprintf(script, sizeof script, "rm -rf %s", certificate_dir);
    return system(script);
}

#endif
