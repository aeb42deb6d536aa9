/* pprof encoder: a window as an uncompressed profile.proto message.
 *
 * Reads plain C only and runs without the GIL; nobody may write the window meanwhile. All texts are
 * valid UTF-8, borrowed for the call.
 *
 * In the message: one sample a distinct stack of (function, line), leaf first, and labels, whatever number of
 * the window's samples have become equal by what is shown of them; none whose selected values are all zero;
 * only strings, functions and locations that are used; ids from 1 in order; one mapping, the main binary.
 */
#ifndef PYPROF_PPROF_ENCODER_H
#define PYPROF_PPROF_ENCODER_H

#include "windows/window.h"
#include "windows/wire.h"

typedef struct {
    const char *data;
    size_t size;
} pyprof_text;

typedef struct {
    pyprof_text type, unit;
} pyprof_value_type;

typedef struct {
    pyprof_value_type shown;
    pyprof_column column;
} pyprof_sample_type;

typedef struct {
    pyprof_text path;
    pyprof_text module; /* the prefix of its functions' names; empty: none */
} pyprof_file;

typedef struct {
    pyprof_text name;
    int64_t value;
    pyprof_text unit; /* may be empty */
} pyprof_numeric_label;

typedef struct {
    const pyprof_sample_type *sample_types;
    size_t sample_type_count;
    pyprof_value_type period_type;
    int64_t period;
    const pyprof_file *files; /* as "windows/window_files.h" numbers them; NULL: names as they are */
    size_t file_count;
    const pyprof_numeric_label *numeric_labels; /* on every sample */
    size_t numeric_label_count;
    /* What to show for the value of each of the window's labels ("windows/label_table.h"); data NULL: the
     * label is left out. NULL: all as they are. */
    const pyprof_text *label_values;
    size_t label_value_count;
    const pyprof_text *comments;
    size_t comment_count;
    pyprof_text default_sample_type; /* empty: none */
    pyprof_text mapping;             /* path of the main binary */
} pyprof_encoding;

typedef enum {
    PYPROF_ENCODED,
    PYPROF_ENCODE_NO_MEMORY,
    PYPROF_ENCODE_FILES_DIFFER,  /* the window has another number of files than were described */
    PYPROF_ENCODE_LABELS_DIFFER, /* or of labels */
} pyprof_encode_result;

/* `out` starts zeroed; the caller frees it, whatever the result. */
pyprof_encode_result pyprof_encode(pyprof_window *window, const pyprof_encoding *encoding, pyprof_wire *out);

#endif
