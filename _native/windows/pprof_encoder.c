/* See pprof_encoder.h. */
#include "windows/pprof_encoder.h"

#include <stdlib.h>
#include <string.h>

#include "windows/pprof_tables.h"
#include "windows/saturating.h"

/* Field numbers of profile.proto. */
enum {
    PROFILE_SAMPLE_TYPE = 1,
    PROFILE_SAMPLE = 2,
    PROFILE_MAPPING = 3,
    PROFILE_LOCATION = 4,
    PROFILE_FUNCTION = 5,
    PROFILE_STRING_TABLE = 6,
    PROFILE_TIME_NANOS = 9,
    PROFILE_DURATION_NANOS = 10,
    PROFILE_PERIOD_TYPE = 11,
    PROFILE_PERIOD = 12,
    PROFILE_COMMENT = 13,
    PROFILE_DEFAULT_SAMPLE_TYPE = 14,

    VALUE_TYPE_TYPE = 1,
    VALUE_TYPE_UNIT = 2,

    SAMPLE_LOCATION_ID = 1,
    SAMPLE_VALUE = 2,
    SAMPLE_LABEL = 3,

    LABEL_KEY = 1,
    LABEL_NUM = 3,
    LABEL_NUM_UNIT = 4,

    MAPPING_ID = 1,
    MAPPING_FILENAME = 5,
    MAPPING_HAS_FUNCTIONS = 7,
    MAPPING_HAS_FILENAMES = 8,
    MAPPING_HAS_LINE_NUMBERS = 9,

    LOCATION_ID = 1,
    LOCATION_MAPPING_ID = 2,
    LOCATION_LINE = 4,

    LINE_FUNCTION_ID = 1,
    LINE_LINE = 2,

    FUNCTION_ID = 1,
    FUNCTION_NAME = 2,
    FUNCTION_FILENAME = 4,
    FUNCTION_START_LINE = 5,
};

#define MAIN_MAPPING 1

/* Room for the integer fields of any message but Sample. */
#define SMALL_MESSAGE (8 * PYPROF_WIRE_LARGEST_INTEGER)

typedef struct {
    const pyprof_window *window;
    const pyprof_encoding *encoding;
    pyprof_pprof_tables tables;
    pyprof_wire *out;

    /* Samples to be: a stack of the window that stands for all equal ones, and the selected sums. */
    uint32_t *samples;
    int64_t *values; /* `sample_type_count` a sample */
    uint32_t sample_count;
    pyprof_hash_index sample_index;
} encoder;

/* ---- Aggregation ---- */

static uint32_t hash_stack(encoder *e, pyprof_stack stack) {
    uint64_t hash = stack.depth;
    for (uint32_t i = 0; i < stack.depth; i++) {
        hash = pyprof_mix(hash, pyprof_pprof_location_id(&e->tables, stack.locations[i]));
    }
    return (uint32_t)hash;
}

/* Both stacks have been hashed: their locations have ids. */
static bool equal_stacks(const encoder *e, pyprof_stack a, pyprof_stack b) {
    if (a.depth != b.depth) {
        return false;
    }
    const uint32_t *ids = e->tables.location_ids;
    for (uint32_t i = 0; i < a.depth; i++) {
        if (ids[a.locations[i]] != ids[b.locations[i]]) {
            return false;
        }
    }
    return true;
}

/* The selected values of a stack; whether any is not zero. */
static bool select_values(const encoder *e, pyprof_stack_id stack, int64_t *values) {
    const pyprof_values *row = pyprof_window_get_values(e->window, stack);
    bool any = false;
    for (size_t i = 0; i < e->encoding->sample_type_count; i++) {
        values[i] = row->column[e->encoding->sample_types[i].column];
        any = any || values[i] != 0;
    }
    return any;
}

/* Make the next sample, whose values are set already, of the stack; or add them to an equal one's. */
static void aggregate(encoder *e, pyprof_stack_id number) {
    size_t types = e->encoding->sample_type_count;
    const int64_t *values = e->values + e->sample_count * types;
    pyprof_stack stack = pyprof_stack_table_stack(e->tables.stacks, number);
    uint32_t hash = hash_stack(e, stack), sample;
    pyprof_probe probe = pyprof_hash_index_probe(&e->sample_index, hash);
    while (pyprof_hash_index_next(&e->sample_index, &probe, &sample)) {
        if (equal_stacks(e, stack, pyprof_stack_table_stack(e->tables.stacks, e->samples[sample]))) {
            int64_t *sums = e->values + sample * types;
            for (size_t i = 0; i < types; i++) {
                sums[i] = pyprof_add_saturating(sums[i], values[i]);
            }
            return;
        }
    }
    if (!pyprof_hash_index_reserve(&e->sample_index, &e->tables.budget)) {
        e->tables.failed = true;
        return;
    }
    e->samples[e->sample_count] = number;
    pyprof_hash_index_insert(&e->sample_index, hash, e->sample_count++);
}

static void aggregate_stacks(encoder *e) {
    uint32_t stacks = pyprof_stack_table_stack_count(e->tables.stacks);
    size_t types = e->encoding->sample_type_count;
    e->samples = calloc(stacks, sizeof *e->samples);
    e->values = calloc(stacks, (types == 0 ? 1 : types) * sizeof *e->values);
    e->tables.failed = e->tables.failed || e->samples == NULL || e->values == NULL;
    for (pyprof_stack_id stack = 0; stack < stacks && !e->tables.failed; stack++) {
        if (select_values(e, stack, e->values + e->sample_count * types)) {
            aggregate(e, stack);
        }
    }
}

/* ---- Messages ---- */

static void write_value_type(encoder *e, unsigned field, pyprof_value_type value_type) {
    uint8_t message[SMALL_MESSAGE], *at = message;
    at = pyprof_put_integer(at, VALUE_TYPE_TYPE, pyprof_pprof_string(&e->tables, value_type.type));
    at = pyprof_put_integer(at, VALUE_TYPE_UNIT, pyprof_pprof_string(&e->tables, value_type.unit));
    pyprof_wire_bytes(e->out, field, message, (size_t)(at - message));
}

/* The labels as they stand in every sample. */
static void write_labels(encoder *e, pyprof_wire *labels) {
    for (size_t i = 0; i < e->encoding->label_count; i++) {
        const pyprof_numeric_label *label = &e->encoding->labels[i];
        uint8_t message[SMALL_MESSAGE], *at = message;
        at = pyprof_put_integer(at, LABEL_KEY, pyprof_pprof_string(&e->tables, label->name));
        at = pyprof_put_integer(at, LABEL_NUM, label->value);
        at = pyprof_put_integer(at, LABEL_NUM_UNIT, pyprof_pprof_string(&e->tables, label->unit));
        pyprof_wire_bytes(labels, SAMPLE_LABEL, message, (size_t)(at - message));
    }
}

static size_t field_size(size_t length) { return length == 0 ? 0 : 1 + pyprof_varint_size(length) + length; }

static void write_sample(encoder *e, pyprof_stack stack, const int64_t *values, const pyprof_wire *labels) {
    const uint32_t *ids = e->tables.location_ids;
    size_t types = e->encoding->sample_type_count, ids_size = 0, values_size = 0;
    for (uint32_t i = 0; i < stack.depth; i++) {
        ids_size += pyprof_varint_size(ids[stack.locations[i]]);
    }
    for (size_t i = 0; i < types; i++) {
        values_size += pyprof_varint_size((uint64_t)values[i]);
    }
    size_t size = field_size(ids_size) + field_size(values_size) + labels->size;
    uint8_t *at = pyprof_wire_reserve(e->out, PYPROF_WIRE_LARGEST_HEADER + size);
    if (at == NULL) {
        return;
    }
    at = pyprof_put_header(at, PROFILE_SAMPLE, size);
    if (ids_size > 0) {
        at = pyprof_put_header(at, SAMPLE_LOCATION_ID, ids_size);
        for (uint32_t i = 0; i < stack.depth; i++) {
            at = pyprof_put_varint(at, ids[stack.locations[i]]);
        }
    }
    at = pyprof_put_header(at, SAMPLE_VALUE, values_size);
    for (size_t i = 0; i < types; i++) {
        at = pyprof_put_varint(at, (uint64_t)values[i]);
    }
    if (labels->size > 0) {
        memcpy(at, labels->data, labels->size);
    }
    e->out->size = (size_t)(at - e->out->data) + labels->size;
}

static void write_samples(encoder *e) {
    pyprof_wire labels = {0};
    if (e->sample_count > 0) {
        write_labels(e, &labels);
    }
    e->out->failed = e->out->failed || labels.failed;
    for (uint32_t i = 0; i < e->sample_count; i++) {
        write_sample(e, pyprof_stack_table_stack(e->tables.stacks, e->samples[i]),
                     e->values + i * e->encoding->sample_type_count, &labels);
    }
    pyprof_wire_free(&labels);
}

static void write_mapping(encoder *e) {
    uint8_t message[SMALL_MESSAGE], *at = message;
    at = pyprof_put_integer(at, MAPPING_ID, MAIN_MAPPING);
    at = pyprof_put_integer(at, MAPPING_FILENAME, pyprof_pprof_string(&e->tables, e->encoding->mapping));
    at = pyprof_put_integer(at, MAPPING_HAS_FUNCTIONS, true);
    at = pyprof_put_integer(at, MAPPING_HAS_FILENAMES, true);
    at = pyprof_put_integer(at, MAPPING_HAS_LINE_NUMBERS, true);
    pyprof_wire_bytes(e->out, PROFILE_MAPPING, message, (size_t)(at - message));
}

static void write_locations(encoder *e) {
    for (uint32_t i = 0; i < e->tables.locations.count; i++) {
        const pyprof_pprof_location *location = pyprof_vector_at(&e->tables.locations, i);
        uint8_t line[SMALL_MESSAGE], *line_at = line;
        line_at = pyprof_put_integer(line_at, LINE_FUNCTION_ID, (int64_t)location->function + 1);
        line_at = pyprof_put_integer(line_at, LINE_LINE, location->line);
        size_t line_size = (size_t)(line_at - line);

        uint8_t message[2 * SMALL_MESSAGE], *at = message;
        at = pyprof_put_integer(at, LOCATION_ID, (int64_t)i + 1);
        at = pyprof_put_integer(at, LOCATION_MAPPING_ID, MAIN_MAPPING);
        at = pyprof_put_header(at, LOCATION_LINE, line_size);
        memcpy(at, line, line_size);
        at += line_size;
        pyprof_wire_bytes(e->out, PROFILE_LOCATION, message, (size_t)(at - message));
    }
}

static void write_functions(encoder *e) {
    for (uint32_t i = 0; i < e->tables.functions.count; i++) {
        const pyprof_pprof_function *function = pyprof_vector_at(&e->tables.functions, i);
        uint8_t message[SMALL_MESSAGE], *at = message;
        /* No system_name: go tool pprof would demangle it as C++, `m.<lambda>` to `m.`. */
        at = pyprof_put_integer(at, FUNCTION_ID, (int64_t)i + 1);
        at = pyprof_put_integer(at, FUNCTION_NAME, function->name);
        at = pyprof_put_integer(at, FUNCTION_FILENAME, function->filename);
        at = pyprof_put_integer(at, FUNCTION_START_LINE, function->start_line);
        pyprof_wire_bytes(e->out, PROFILE_FUNCTION, message, (size_t)(at - message));
    }
}

static void write_comments(encoder *e) {
    pyprof_wire numbers = {0};
    for (size_t i = 0; i < e->encoding->comment_count; i++) {
        uint8_t *at = pyprof_wire_reserve(&numbers, PYPROF_WIRE_LARGEST_VARINT);
        if (at != NULL) {
            uint32_t string = pyprof_pprof_string(&e->tables, e->encoding->comments[i]);
            numbers.size = (size_t)(pyprof_put_varint(at, string) - numbers.data);
        }
    }
    e->out->failed = e->out->failed || numbers.failed;
    if (numbers.size > 0) {
        pyprof_wire_bytes(e->out, PROFILE_COMMENT, numbers.data, numbers.size);
    }
    pyprof_wire_free(&numbers);
}

static void write_profile(encoder *e, const pyprof_window_info *info) {
    for (size_t i = 0; i < e->encoding->sample_type_count; i++) {
        write_value_type(e, PROFILE_SAMPLE_TYPE, e->encoding->sample_types[i].shown);
    }
    write_samples(e);
    write_mapping(e);
    write_locations(e);
    write_functions(e);
    pyprof_wire_integer(e->out, PROFILE_TIME_NANOS, info->start_ns);
    pyprof_wire_integer(e->out, PROFILE_DURATION_NANOS, info->duration_ns);
    write_value_type(e, PROFILE_PERIOD_TYPE, e->encoding->period_type);
    pyprof_wire_integer(e->out, PROFILE_PERIOD, e->encoding->period);
    write_comments(e);
    pyprof_wire_integer(e->out, PROFILE_DEFAULT_SAMPLE_TYPE,
                        pyprof_pprof_string(&e->tables, e->encoding->default_sample_type));
    /* Last: everything above adds to it. */
    for (uint32_t i = 0; i < e->tables.strings.count; i++) {
        const pyprof_text *text = pyprof_vector_at(&e->tables.strings, i);
        pyprof_wire_bytes(e->out, PROFILE_STRING_TABLE, text->data, text->size);
    }
}

pyprof_encode_result pyprof_encode(pyprof_window *window, const pyprof_encoding *encoding, pyprof_wire *out) {
    encoder e = {.window = window, .encoding = encoding, .out = out};
    pyprof_encode_result result = PYPROF_ENCODED;
    pyprof_pprof_tables_init(&e.tables, window);
    e.tables.files = encoding->files;
    if (!e.tables.failed && encoding->files != NULL && encoding->file_count != e.tables.window_files.count) {
        result = PYPROF_ENCODE_FILES_DIFFER;
    } else {
        aggregate_stacks(&e);
        if (!e.tables.failed) {
            write_profile(&e, pyprof_window_get_info(window));
        }
        if (e.tables.failed || out->failed) {
            result = PYPROF_ENCODE_NO_MEMORY;
        }
    }
    pyprof_hash_index_free(&e.sample_index, &e.tables.budget);
    pyprof_pprof_tables_free(&e.tables);
    free(e.samples);
    free(e.values);
    return result;
}
