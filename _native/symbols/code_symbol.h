/* The symbol of a code object, from a view of it: plain C, whatever thread and lock; allocates by malloc
 * only. */
#ifndef PYPROF_CODE_SYMBOL_H
#define PYPROF_CODE_SYMBOL_H

#include "cpython/code_view.h"
#include "symbols/symbol.h"

/* With one reference; NULL without memory. Lone surrogates, which UTF-8 cannot say, are escapes in it. */
pyprof_symbol *pyprof_symbol_of_code(const pyprof_code_view *code);

#endif
