/* See pprof_tables.h. */
#include "windows/pprof_tables.h"

#include <stdlib.h>
#include <string.h>

#define UNKNOWN UINT32_MAX

void pyprof_pprof_tables_init(pyprof_pprof_tables *tables, const pyprof_window *window) {
    const pyprof_stack_table *stacks = pyprof_window_get_stacks(window);
    *tables = (pyprof_pprof_tables){
        .stacks = stacks,
        .budget.limit = SIZE_MAX,
        .strings.element_size = sizeof(pyprof_text),
        .functions.element_size = sizeof(pyprof_pprof_function),
        .locations.element_size = sizeof(pyprof_pprof_location),
        .function_ids = calloc(pyprof_stack_table_symbol_count(stacks), sizeof(uint32_t)),
        .location_ids = calloc(pyprof_stack_table_location_count(stacks), sizeof(uint32_t)),
    };
    tables->failed = tables->function_ids == NULL || tables->location_ids == NULL ||
                     !pyprof_window_files_init(&tables->window_files, window);
    pyprof_pprof_string(tables, (pyprof_text){"", 0}); /* number 0, by the format */
}

void pyprof_pprof_tables_free(pyprof_pprof_tables *tables) {
    pyprof_window_files_free(&tables->window_files);
    pyprof_arena_free(&tables->names, &tables->budget);
    pyprof_vector_free(&tables->strings, &tables->budget);
    pyprof_vector_free(&tables->functions, &tables->budget);
    pyprof_vector_free(&tables->locations, &tables->budget);
    pyprof_hash_index_free(&tables->string_index, &tables->budget);
    pyprof_hash_index_free(&tables->function_index, &tables->budget);
    pyprof_hash_index_free(&tables->location_index, &tables->budget);
    free(tables->function_ids);
    free(tables->location_ids);
}

/* Push a copy of the element and file it; its number. */
static uint32_t append(pyprof_pprof_tables *tables, pyprof_vector *vector, pyprof_hash_index *index,
                       uint32_t hash, const void *element) {
    if (tables->failed || !pyprof_vector_reserve(vector, &tables->budget) ||
        !pyprof_hash_index_reserve(index, &tables->budget)) {
        tables->failed = true;
        return 0;
    }
    uint32_t number = vector->count;
    memcpy(pyprof_vector_push(vector), element, vector->element_size);
    pyprof_hash_index_insert(index, hash, number);
    return number;
}

static uint32_t find_string(const pyprof_pprof_tables *tables, uint32_t hash, pyprof_text text) {
    uint32_t number;
    pyprof_probe probe = pyprof_hash_index_probe(&tables->string_index, hash);
    while (pyprof_hash_index_next(&tables->string_index, &probe, &number)) {
        const pyprof_text *other = pyprof_vector_at(&tables->strings, number);
        if (other->size == text.size && memcmp(other->data, text.data, text.size) == 0) {
            return number;
        }
    }
    return UNKNOWN;
}

uint32_t pyprof_pprof_string(pyprof_pprof_tables *tables, pyprof_text text) {
    uint32_t hash = pyprof_hash_bytes(text.data, text.size);
    uint32_t number = find_string(tables, hash, text);
    return number != UNKNOWN ? number : append(tables, &tables->strings, &tables->string_index, hash, &text);
}

/* The string `module.qualname`. */
static uint32_t joined_name(pyprof_pprof_tables *tables, pyprof_text module, pyprof_text qualname) {
    size_t size = module.size + 1 + qualname.size;
    if (!pyprof_arena_reserve(&tables->names, &tables->budget, size)) {
        tables->failed = true;
        return 0;
    }
    char *name = pyprof_arena_take(&tables->names, size);
    memcpy(name, module.data, module.size);
    name[module.size] = '.';
    memcpy(name + module.size + 1, qualname.data, qualname.size);
    return pyprof_pprof_string(tables, (pyprof_text){name, size});
}

static pyprof_pprof_function describe_symbol(pyprof_pprof_tables *tables, uint32_t number) {
    const pyprof_symbol *symbol = pyprof_stack_table_symbol(tables->stacks, number);
    pyprof_text qualname = {symbol->qualname, symbol->qualname_size};
    uint32_t file_number = tables->window_files.of_symbol[number];
    pyprof_file file = {.path = {symbol->filename, symbol->filename_size}};
    if (file_number != PYPROF_NO_FILE && tables->files != NULL) {
        file = tables->files[file_number];
    }
    return (pyprof_pprof_function){
        .name = file.module.size > 0 ? joined_name(tables, file.module, qualname)
                                     : pyprof_pprof_string(tables, qualname),
        .filename = pyprof_pprof_string(tables, file.path),
        .start_line = symbol->first_line,
    };
}

static uint32_t add_function(pyprof_pprof_tables *tables, uint32_t symbol) {
    pyprof_pprof_function function = describe_symbol(tables, symbol);
    uint32_t hash = pyprof_hash_words(
        (const uint32_t[]){function.name, function.filename, (uint32_t)function.start_line}, 3);
    uint32_t number;
    pyprof_probe probe = pyprof_hash_index_probe(&tables->function_index, hash);
    while (pyprof_hash_index_next(&tables->function_index, &probe, &number)) {
        const pyprof_pprof_function *other = pyprof_vector_at(&tables->functions, number);
        if (other->name == function.name && other->filename == function.filename &&
            other->start_line == function.start_line) {
            return number;
        }
    }
    return append(tables, &tables->functions, &tables->function_index, hash, &function);
}

static uint32_t function_number(pyprof_pprof_tables *tables, uint32_t symbol) {
    if (tables->function_ids[symbol] == 0) {
        tables->function_ids[symbol] = add_function(tables, symbol) + 1;
    }
    return tables->function_ids[symbol] - 1;
}

static uint32_t find_location(const pyprof_pprof_tables *tables, uint32_t hash,
                              pyprof_pprof_location location) {
    uint32_t number;
    pyprof_probe probe = pyprof_hash_index_probe(&tables->location_index, hash);
    while (pyprof_hash_index_next(&tables->location_index, &probe, &number)) {
        const pyprof_pprof_location *other = pyprof_vector_at(&tables->locations, number);
        if (other->function == location.function && other->line == location.line) {
            return number;
        }
    }
    return UNKNOWN;
}

uint32_t pyprof_pprof_add_location(pyprof_pprof_tables *tables, uint32_t location) {
    pyprof_location in_window = pyprof_stack_table_location(tables->stacks, location);
    pyprof_pprof_location named = {function_number(tables, in_window.symbol), in_window.line};
    uint32_t hash = pyprof_hash_words((const uint32_t[]){named.function, (uint32_t)named.line}, 2);
    uint32_t number = find_location(tables, hash, named);
    if (number == UNKNOWN) {
        number = append(tables, &tables->locations, &tables->location_index, hash, &named);
    }
    return tables->location_ids[location] = number + 1;
}
