/* See wire.h. */
#include "windows/wire.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 4096

void pyprof_wire_free(pyprof_wire *wire) {
    free(wire->data);
    *wire = (pyprof_wire){0};
}

uint8_t *pyprof_wire_reserve(pyprof_wire *wire, size_t size) {
    if (wire->failed) {
        return NULL;
    }
    if (size > wire->capacity - wire->size) {
        size_t capacity = wire->capacity == 0 ? FIRST_CAPACITY : wire->capacity;
        while (capacity <= SIZE_MAX / 4 && size > capacity - wire->size) {
            capacity *= 2;
        }
        uint8_t *data = size <= capacity - wire->size ? realloc(wire->data, capacity) : NULL;
        if (data == NULL) {
            wire->failed = true;
            return NULL;
        }
        wire->data = data;
        wire->capacity = capacity;
    }
    return wire->data + wire->size;
}

void pyprof_wire_integer(pyprof_wire *wire, unsigned field, int64_t value) {
    uint8_t *at = pyprof_wire_reserve(wire, PYPROF_WIRE_LARGEST_INTEGER);
    if (at != NULL) {
        wire->size = (size_t)(pyprof_put_integer(at, field, value) - wire->data);
    }
}

void pyprof_wire_bytes(pyprof_wire *wire, unsigned field, const void *bytes, size_t size) {
    uint8_t *at = pyprof_wire_reserve(wire, PYPROF_WIRE_LARGEST_HEADER + size);
    if (at != NULL) {
        at = pyprof_put_header(at, field, size);
        if (size > 0) {
            memcpy(at, bytes, size);
        }
        wire->size = (size_t)(at - wire->data) + size;
    }
}
