/* See window_files.h. */
#include "windows/window_files.h"

#include <stdlib.h>
#include <string.h>

#include "windows/stack_table.h"

static uint32_t find_file(const pyprof_window_files *files, const pyprof_hash_index *index, uint32_t hash,
                          const pyprof_stack_table *stacks, const pyprof_symbol *symbol) {
    uint32_t number;
    pyprof_probe probe = pyprof_hash_index_probe(index, hash);
    while (pyprof_hash_index_next(index, &probe, &number)) {
        const pyprof_symbol *other = pyprof_stack_table_symbol(stacks, files->first_symbol[number]);
        if (other->filename_size == symbol->filename_size &&
            memcmp(other->filename, symbol->filename, symbol->filename_size) == 0) {
            return number;
        }
    }
    return PYPROF_NO_FILE;
}

bool pyprof_window_files_init(pyprof_window_files *files, const pyprof_window *window) {
    const pyprof_stack_table *stacks = pyprof_window_get_stacks(window);
    uint32_t symbol_count = pyprof_stack_table_symbol_count(stacks);
    *files = (pyprof_window_files){
        .of_symbol = calloc(symbol_count, sizeof *files->of_symbol),
        .first_symbol = calloc(symbol_count, sizeof *files->first_symbol),
    };
    pyprof_budget budget = {.limit = SIZE_MAX};
    pyprof_hash_index index = {0};
    bool done = files->of_symbol != NULL && files->first_symbol != NULL;
    for (uint32_t i = 0; done && i < symbol_count; i++) {
        if (i < PYPROF_PSEUDO_SYMBOLS) {
            files->of_symbol[i] = PYPROF_NO_FILE;
            continue;
        }
        const pyprof_symbol *symbol = pyprof_stack_table_symbol(stacks, i);
        uint32_t hash = pyprof_hash_bytes(symbol->filename, symbol->filename_size);
        uint32_t file = find_file(files, &index, hash, stacks, symbol);
        if (file == PYPROF_NO_FILE) {
            done = pyprof_hash_index_reserve(&index, &budget);
            if (!done) {
                break;
            }
            file = files->count++;
            files->first_symbol[file] = i;
            pyprof_hash_index_insert(&index, hash, file);
        }
        files->of_symbol[i] = file;
    }
    pyprof_hash_index_free(&index, &budget);
    if (!done) {
        pyprof_window_files_free(files);
    }
    return done;
}

void pyprof_window_files_free(pyprof_window_files *files) {
    free(files->of_symbol);
    free(files->first_symbol);
    *files = (pyprof_window_files){0};
}
