/*
 * tls_names: names in certificates: does a certificate name this host, and who is its subject.
 */
#ifndef TRANSPORT_TLS_NAMES_H
#define TRANSPORT_TLS_NAMES_H

#include <mbedtls/x509_crt.h>
#include <stdbool.h>
#include <stddef.h>

#include "bytes.h"

/* RFC 6125: a DNS subject alternative name equals `host`, or is a wildcard for its first label;
 * without any such name the common name counts. Case does not. */
bool tls_certificate_names(const mbedtls_x509_crt *certificate, struct bytes host);

/*
 * Writes the subject as RFC 2253 has it: last attribute first, "CN=device\, one,O=Acme". Bytes
 * outside printable ASCII are \XX. False, and an empty string, when it does not fit.
 */
bool tls_subject_write(const mbedtls_x509_name *subject, char *out, size_t out_size);

/* Writes the first common name. False, and an empty string, when there is none, it holds a NUL
 * (which would make another name of it), or does not fit. */
bool tls_common_name_write(const mbedtls_x509_name *subject, char *out, size_t out_size);

/* True when the attribute and the one behind it belong together (a multi-valued RDN). In tls.c,
 * where the library's versions differ. */
bool tls_name_is_merged(const mbedtls_x509_name *name);

#endif
