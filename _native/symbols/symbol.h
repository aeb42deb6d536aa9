/* Symbols: what a profile says about one code object.
 *
 * A symbol is made once, at the first sight of a code object, and never changes afterwards: any
 * thread that holds a reference may read it without a lock and without the GIL. References are
 * counted atomically: the code cache holds one while the code object lives, every window holds one
 * for each symbol that its stacks use. The last release frees it, on whatever thread that happens;
 * a symbol owns plain malloc memory only, no Python object.
 */
#ifndef PYPROF_SYMBOL_H
#define PYPROF_SYMBOL_H

#include <stddef.h>
#include <stdint.h>

typedef struct pyprof_symbol {
    uint32_t refs; /* atomic */
    int32_t first_line;
    uint32_t qualname_size; /* bytes of UTF-8, without the NUL that follows them */
    uint32_t filename_size;
    uint32_t linetable_size; /* 0: `lasti` of a frame is its line */
    const char *qualname;
    const char *filename;
    const uint8_t *linetable;
    size_t bytes; /* memory held by this symbol, all in one block */
} pyprof_symbol;

/* A new symbol with one reference, everything copied; NULL without memory.
 * The strings must be valid UTF-8. */
pyprof_symbol *pyprof_symbol_new(const char *qualname, size_t qualname_size, const char *filename,
                                 size_t filename_size, int32_t first_line, const uint8_t *linetable,
                                 size_t linetable_size);
pyprof_symbol *pyprof_symbol_retain(pyprof_symbol *symbol);
void pyprof_symbol_release(pyprof_symbol *symbol);

/* The source line of the instruction at byte offset `lasti`; 0 where the code has no line for it. */
int32_t pyprof_symbol_line(const pyprof_symbol *symbol, int32_t lasti);

#endif
