#include "tls_names.h"

#include <mbedtls/oid.h>
#include <stdio.h>
#include <strings.h>

enum { DNS_NAME_TAG = MBEDTLS_ASN1_CONTEXT_SPECIFIC | 2, ATTRIBUTES_MAX = 64 };

static bool same_host(struct bytes a, struct bytes b)
{
    return a.len == b.len &&
           (a.len == 0 || strncasecmp((const char *)a.data, (const char *)b.data, a.len) == 0);
}

static bool pattern_matches(struct bytes pattern, struct bytes host)
{
    if (pattern.len > 2 && pattern.data[0] == '*' && pattern.data[1] == '.') {
        const uint8_t *dot = host.len == 0 ? NULL : memchr(host.data, '.', host.len);
        return dot != NULL && dot != host.data &&
               same_host(bytes_from(pattern, 1), bytes_from(host, (size_t)(dot - host.data)));
    }
    return same_host(pattern, host);
}

static bool is_common_name(const mbedtls_x509_name *name)
{
    return MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &name->oid) == 0;
}

bool tls_certificate_names(const mbedtls_x509_crt *certificate, struct bytes host)
{
    bool has_dns_name = false;
    const mbedtls_x509_sequence *alternative = &certificate->subject_alt_names;
    for (; alternative != NULL; alternative = alternative->next) {
        const mbedtls_x509_buf *buf = &alternative->buf;
        if ((buf->tag & (MBEDTLS_ASN1_TAG_CLASS_MASK | MBEDTLS_ASN1_TAG_VALUE_MASK)) ==
                DNS_NAME_TAG &&
            buf->p != NULL) {
            has_dns_name = true;
            if (pattern_matches(bytes_of(buf->p, buf->len), host)) {
                return true;
            }
        }
    }
    const mbedtls_x509_name *name = &certificate->subject;
    for (; name != NULL && !has_dns_name; name = name->next) {
        if (is_common_name(name) && pattern_matches(bytes_of(name->val.p, name->val.len), host)) {
            return true;
        }
    }
    return false;
}

static void write_text(struct writer *writer, const char *text)
{
    writer_bytes(writer, bytes_of_string(text));
}

static void write_hex(struct writer *writer, const char *prefix, uint8_t byte)
{
    static const char digits[] = "0123456789ABCDEF";
    write_text(writer, prefix);
    writer_u8(writer, (uint8_t)digits[byte >> 4]);
    writer_u8(writer, (uint8_t)digits[byte & 15]);
}

/* RFC 2253, 2.4. */
static void write_value(struct writer *writer, struct bytes value)
{
    for (size_t i = 0; i < value.len; i++) {
        uint8_t c = value.data[i];
        bool at_edge = i == 0 || i + 1 == value.len;
        if (c < 0x20 || c >= 0x7f) {
            write_hex(writer, "\\", c);
            continue;
        }
        if (strchr(",+\"\\<>;", c) != NULL || (c == ' ' && at_edge) || (c == '#' && i == 0)) {
            writer_u8(writer, '\\');
        }
        writer_u8(writer, c);
    }
}

/* An attribute type without a short name is written as its OID, with the value in hex (2.4). */
static void write_attribute(struct writer *writer, const mbedtls_x509_name *name)
{
    const char *type;
    char oid[128];
    struct bytes value = bytes_of(name->val.p, name->val.len);
    if (mbedtls_oid_get_attr_short_name(&name->oid, &type) == 0) {
        write_text(writer, type);
        writer_u8(writer, '=');
        write_value(writer, value);
        return;
    }
    if (mbedtls_oid_get_numeric_string(oid, sizeof oid, &name->oid) < 0) {
        writer->failed = true;
        return;
    }
    write_text(writer, oid);
    write_text(writer, "=#");
    write_hex(writer, "", (uint8_t)name->val.tag);
    if (value.len > 127) {
        writer->failed = true; /* longer DER lengths are not worth their code here */
        return;
    }
    write_hex(writer, "", (uint8_t)value.len);
    for (size_t i = 0; i < value.len; i++) {
        write_hex(writer, "", value.data[i]);
    }
}

bool tls_subject_write(const mbedtls_x509_name *subject, char *out, size_t out_size)
{
    const mbedtls_x509_name *attributes[ATTRIBUTES_MAX];
    struct writer writer = writer_of(out, out_size);
    size_t count = 0;
    for (const mbedtls_x509_name *name = subject; name != NULL; name = name->next) {
        if (name->oid.p == NULL) {
            continue; /* the library's head of an empty list */
        }
        if (count == ATTRIBUTES_MAX) {
            writer.failed = true;
            break;
        }
        attributes[count++] = name;
    }
    for (size_t i = count; i-- > 0;) {
        if (i + 1 != count) {
            writer_u8(&writer, tls_name_is_merged(attributes[i]) ? '+' : ',');
        }
        write_attribute(&writer, attributes[i]);
    }
    writer_u8(&writer, 0);
    if (!writer_ok(&writer)) {
        out[0] = 0;
    }
    return writer_ok(&writer);
}

bool tls_common_name_write(const mbedtls_x509_name *subject, char *out, size_t out_size)
{
    out[0] = 0;
    for (const mbedtls_x509_name *name = subject; name != NULL; name = name->next) {
        if (name->oid.p != NULL && is_common_name(name)) {
            struct bytes value = bytes_of(name->val.p, name->val.len);
            if (value.len == 0 || value.len >= out_size ||
                memchr(value.data, 0, value.len) != NULL) {
                return false;
            }
            bytes_copy(out, value);
            out[value.len] = 0;
            return true;
        }
    }
    return false;
}
