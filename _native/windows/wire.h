/* Protocol buffers' wire format, the part that a profile needs, into a buffer that grows.
 *
 * A failed allocation makes `failed` true and every later call do nothing; the caller asks once, at
 * the end. No lock: one thread at a time.
 */
#ifndef PYPROF_WIRE_H
#define PYPROF_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint8_t *data;
    size_t size;
    size_t capacity;
    bool failed;
} pyprof_wire;

#define PYPROF_WIRE_LARGEST_VARINT 10

void pyprof_wire_free(pyprof_wire *wire);

/* Room for `size` more bytes; where to write them, or NULL. The caller adds to `size` what it wrote. */
uint8_t *pyprof_wire_reserve(pyprof_wire *wire, size_t size);

/* Fields, of numbers below 16. Zero is left out, as proto3 has it; empty bytes are not. */
void pyprof_wire_integer(pyprof_wire *wire, unsigned field, int64_t value);
void pyprof_wire_bytes(pyprof_wire *wire, unsigned field, const void *bytes, size_t size);

static inline uint8_t *pyprof_put_varint(uint8_t *at, uint64_t value) {
    while (value >= 0x80) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *at++ = (uint8_t)value;
    return at;
}

static inline size_t pyprof_varint_size(uint64_t value) {
    size_t size = 1;
    while (value >= 0x80) {
        value >>= 7;
        size++;
    }
    return size;
}

/* An integer field of a small message; nothing for zero. At most PYPROF_WIRE_LARGEST_INTEGER bytes. */
#define PYPROF_WIRE_LARGEST_INTEGER (1 + PYPROF_WIRE_LARGEST_VARINT)
static inline uint8_t *pyprof_put_integer(uint8_t *at, unsigned field, int64_t value) {
    if (value == 0) {
        return at;
    }
    *at++ = (uint8_t)(field << 3);
    return pyprof_put_varint(at, (uint64_t)value);
}

/* Key and length of a length-delimited field. */
#define PYPROF_WIRE_LARGEST_HEADER (1 + PYPROF_WIRE_LARGEST_VARINT)
static inline uint8_t *pyprof_put_header(uint8_t *at, unsigned field, size_t length) {
    *at++ = (uint8_t)(field << 3 | 2);
    return pyprof_put_varint(at, length);
}

#endif
