#include "base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

enum { GROUP = 4, NOT_A_DIGIT = 64 };

void base64_encode(struct bytes bytes, struct writer *writer)
{
    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t left = bytes.len - i;
        uint32_t word = (uint32_t)bytes.data[i] << 16;
        word |= left > 1 ? (uint32_t)bytes.data[i + 1] << 8 : 0;
        word |= left > 2 ? bytes.data[i + 2] : 0U;
        writer_u8(writer, (uint8_t)alphabet[word >> 18]);
        writer_u8(writer, (uint8_t)alphabet[word >> 12 & 63]);
        writer_u8(writer, left > 1 ? (uint8_t)alphabet[word >> 6 & 63] : '=');
        writer_u8(writer, left > 2 ? (uint8_t)alphabet[word & 63] : '=');
    }
}

static uint32_t digit_of(uint8_t character)
{
    if (character >= 'A' && character <= 'Z') {
        return character - 'A';
    }
    if (character >= 'a' && character <= 'z') {
        return character - 'a' + 26U;
    }
    if (character >= '0' && character <= '9') {
        return character - '0' + 52U;
    }
    return character == '+' ? 62 : character == '/' ? 63 : NOT_A_DIGIT;
}

bool base64_decode(struct bytes text, struct writer *writer)
{
    if (text.len % GROUP == 0) {
        for (unsigned i = 0; i < 2 && text.len != 0 && text.data[text.len - 1] == '='; i++) {
            text.len--;
        }
    }
    if (text.len % GROUP == 1) {
        return false;
    }
    uint32_t word = 0;
    unsigned bits = 0;
    for (size_t i = 0; i < text.len; i++) {
        uint32_t digit = digit_of(text.data[i]);
        if (digit == NOT_A_DIGIT) {
            return false;
        }
        word = (word << 6 | digit) & 0xFFFF;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            writer_u8(writer, (uint8_t)(word >> bits));
        }
    }
    return (word & ((1U << bits) - 1)) == 0 && writer_ok(writer);
}
