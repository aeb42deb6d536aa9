/* See linetable.h. */
#include "cpython/linetable.h"

typedef struct {
    const uint8_t *at, *end;
} cursor;

/* Six bits a byte, little-endian; bit 6 continues. */
static uint32_t read_varint(cursor *in) {
    uint32_t value = 0;
    for (unsigned shift = 0; in->at < in->end; shift += 6) {
        uint8_t byte = *in->at++;
        if (shift < 32) {
            value |= (uint32_t)(byte & 63) << shift;
        }
        if ((byte & 64) == 0) {
            break;
        }
    }
    return value;
}

static int32_t read_signed_varint(cursor *in) {
    uint32_t value = read_varint(in);
    return value & 1 ? -(int32_t)(value >> 1) : (int32_t)(value >> 1);
}

enum { ONE_LINE_FIRST = 10, ONE_LINE_LAST = 12, NO_COLUMNS = 13, LONG = 14, NO_LINE = 15 };

int32_t pyprof_linetable_line(const uint8_t *table, size_t size, int32_t first_line, int32_t lasti) {
    cursor in = {table, table + size};
    int32_t line = first_line;
    int32_t end = 0;
    while (in.at < in.end) {
        uint8_t head = *in.at++;
        int kind = head >> 3 & 15;
        if (kind >= ONE_LINE_FIRST && kind <= ONE_LINE_LAST) {
            line += kind - ONE_LINE_FIRST;
        } else if (kind == NO_COLUMNS || kind == LONG) {
            line = (int32_t)((uint32_t)line + (uint32_t)read_signed_varint(&in));
        }
        end += ((head & 7) + 1) * 2; /* length in code units of two bytes */
        if (lasti < end) {
            return kind == NO_LINE || line < 0 ? 0 : line;
        }
        /* The columns of this entry do not matter: the next entry is the next byte with bit 7 set. */
        while (in.at < in.end && (*in.at & 128) == 0) {
            in.at++;
        }
    }
    return 0;
}
