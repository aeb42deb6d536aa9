/* The distinct file names of a window's symbols, in the order in which they were first seen. */
#ifndef PYPROF_WINDOW_FILES_H
#define PYPROF_WINDOW_FILES_H

#include "windows/window.h"

#define PYPROF_NO_FILE UINT32_MAX /* of a pseudo-frame */

typedef struct {
    uint32_t *of_symbol;    /* by symbol number: the file's number */
    uint32_t *first_symbol; /* by file number: a symbol that bears the name */
    uint32_t count;
} pyprof_window_files;

/* False without memory. The numbers of files stay the same while a window is only added to. */
bool pyprof_window_files_init(pyprof_window_files *files, const pyprof_window *window);
void pyprof_window_files_free(pyprof_window_files *files);

#endif
