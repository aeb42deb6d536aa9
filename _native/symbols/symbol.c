/* See symbol.h. */
#include "symbols/symbol.h"

#include <stdlib.h>
#include <string.h>

#include "cpython/linetable.h"

static char *append(char *at, const void *bytes, size_t size) {
    if (size > 0) {
        memcpy(at, bytes, size);
    }
    at[size] = '\0';
    return at + size + 1;
}

pyprof_symbol *pyprof_symbol_new(const char *qualname, size_t qualname_size, const char *filename,
                                 size_t filename_size, int32_t first_line, const uint8_t *linetable,
                                 size_t linetable_size) {
    const size_t limit = UINT32_MAX / 4;
    if (qualname_size > limit || filename_size > limit || linetable_size > limit) {
        return NULL;
    }
    size_t bytes = sizeof(pyprof_symbol) + qualname_size + filename_size + linetable_size + 3;
    pyprof_symbol *symbol = malloc(bytes);
    if (symbol == NULL) {
        return NULL;
    }
    char *at = (char *)(symbol + 1);
    symbol->refs = 1;
    symbol->first_line = first_line;
    symbol->bytes = bytes;
    symbol->qualname_size = (uint32_t)qualname_size;
    symbol->qualname = at;
    at = append(at, qualname, qualname_size);
    symbol->filename_size = (uint32_t)filename_size;
    symbol->filename = at;
    at = append(at, filename, filename_size);
    symbol->linetable_size = (uint32_t)linetable_size;
    symbol->linetable = (const uint8_t *)at;
    append(at, linetable, linetable_size);
    return symbol;
}

pyprof_symbol *pyprof_symbol_retain(pyprof_symbol *symbol) {
    __atomic_add_fetch(&symbol->refs, 1, __ATOMIC_RELAXED);
    return symbol;
}

void pyprof_symbol_release(pyprof_symbol *symbol) {
    if (__atomic_sub_fetch(&symbol->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        free(symbol);
    }
}

int32_t pyprof_symbol_line(const pyprof_symbol *symbol, int32_t lasti) {
    if (symbol->linetable_size == 0) {
        return lasti;
    }
    return pyprof_linetable_line(symbol->linetable, symbol->linetable_size, symbol->first_line, lasti);
}
