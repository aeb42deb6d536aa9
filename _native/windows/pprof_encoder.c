/* See pprof_encoder.h. */
#include "windows/pprof_encoder.h"

#include <stdlib.h>
#include <string.h>

#include "windows/label_table.h"
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
    LABEL_STR = 2,
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

/* Labels as they stand in a sample. */
typedef struct {
    const uint8_t *data;
    size_t size;
} label_fields;

/* A sample to be: one of the window's that stands for all equal ones. */
typedef struct {
    pyprof_stack stack;
    uint32_t labels; /* number of fields */
} shown_sample;

typedef struct {
    pyprof_window *window;
    const pyprof_label_table *labels;
    const pyprof_encoding *encoding;
    pyprof_pprof_tables tables;
    pyprof_wire *out;

    /* Distinct label fields, the first of which are empty, and which ones a label set of the window has. */
    pyprof_vector fields;
    pyprof_hash_index field_index;
    pyprof_arena field_bytes;
    uint32_t *fields_of_set;

    shown_sample *samples;
    int64_t *values; /* the selected sums: `sample_type_count` a sample */
    uint32_t sample_count;
    pyprof_hash_index sample_index;
} encoder;

/* ---- Labels ---- */

static uint32_t intern_fields(encoder *e, const uint8_t *data, size_t size) {
    const uint32_t hash = pyprof_hash_bytes((const char *)data, size);
    uint32_t number;
    pyprof_probe probe = pyprof_hash_index_probe(&e->field_index, hash);
    while (pyprof_hash_index_next(&e->field_index, &probe, &number)) {
        const label_fields *fields = pyprof_vector_at(&e->fields, number);
        if (fields->size == size && memcmp(fields->data, data, size) == 0) {
            return number;
        }
    }
    if (!pyprof_vector_reserve(&e->fields, &e->tables.budget) ||
        !pyprof_hash_index_reserve(&e->field_index, &e->tables.budget) ||
        !pyprof_arena_reserve(&e->field_bytes, &e->tables.budget, size + 1)) {
        e->tables.failed = true;
        return 0;
    }
    uint8_t *copy = pyprof_arena_take(&e->field_bytes, size + 1);
    memcpy(copy, data, size);
    number = e->fields.count;
    *(label_fields *)pyprof_vector_push(&e->fields) = (label_fields){copy, size};
    pyprof_hash_index_insert(&e->field_index, hash, number);
    return number;
}

static pyprof_text shown_value(const encoder *e, uint32_t label) {
    const pyprof_label *of_window = pyprof_label_table_label(e->labels, label);
    return e->encoding->label_values == NULL ? (pyprof_text){of_window->value, of_window->value_size}
                                             : e->encoding->label_values[label];
}

static void encode_labels(encoder *e) {
    const uint32_t sets = pyprof_label_table_set_count(e->labels);
    uint8_t buffer[PYPROF_MOST_LABELS * 2 * SMALL_MESSAGE];
    e->fields.element_size = sizeof(label_fields);
    e->fields_of_set = calloc(sets, sizeof *e->fields_of_set);
    e->tables.failed = e->tables.failed || e->fields_of_set == NULL;
    for (uint32_t set = 0; set < sets && !e->tables.failed; set++) {
        const pyprof_label_run run = pyprof_label_table_run(e->labels, set);
        uint8_t *at = buffer;
        for (uint32_t i = 0; i < run.count; i++) {
            const pyprof_label *label = pyprof_label_table_label(e->labels, run.labels[i]);
            const pyprof_text value = shown_value(e, run.labels[i]);
            if (value.data != NULL) {
                const pyprof_text name = {label->name, label->name_size};
                uint8_t message[SMALL_MESSAGE], *end = message;
                end = pyprof_put_integer(end, LABEL_KEY, pyprof_pprof_string(&e->tables, name));
                end = pyprof_put_integer(end, LABEL_STR, pyprof_pprof_string(&e->tables, value));
                at = pyprof_put_header(at, SAMPLE_LABEL, (size_t)(end - message));
                memcpy(at, message, (size_t)(end - message));
                at += end - message;
            }
        }
        e->fields_of_set[set] = intern_fields(e, buffer, (size_t)(at - buffer));
    }
}

/* ---- Aggregation ---- */

static uint32_t hash_sample(encoder *e, const shown_sample *sample) {
    uint64_t hash = pyprof_mix(sample->stack.depth, sample->labels);
    for (uint32_t i = 0; i < sample->stack.depth; i++) {
        hash = pyprof_mix(hash, pyprof_pprof_location_id(&e->tables, sample->stack.locations[i]));
    }
    return (uint32_t)hash;
}

/* Both have been hashed: their locations have ids. */
static bool are_equal(const encoder *e, const shown_sample *a, const shown_sample *b) {
    if (a->labels != b->labels || a->stack.depth != b->stack.depth) {
        return false;
    }
    const uint32_t *ids = e->tables.location_ids;
    for (uint32_t i = 0; i < a->stack.depth; i++) {
        if (ids[a->stack.locations[i]] != ids[b->stack.locations[i]]) {
            return false;
        }
    }
    return true;
}

/* The selected values of a sample; whether any is not zero. */
static bool select_values(const encoder *e, const pyprof_sample *sample, int64_t *values) {
    bool any = false;
    for (size_t i = 0; i < e->encoding->sample_type_count; i++) {
        values[i] = sample->values.column[e->encoding->sample_types[i].column];
        any = any || values[i] != 0;
    }
    return any;
}

/* Make the next sample, whose values are set already; or add them to an equal one's. */
static void aggregate(encoder *e, const shown_sample *shown) {
    size_t types = e->encoding->sample_type_count;
    const int64_t *values = e->values + e->sample_count * types;
    uint32_t hash = hash_sample(e, shown), number;
    pyprof_probe probe = pyprof_hash_index_probe(&e->sample_index, hash);
    while (pyprof_hash_index_next(&e->sample_index, &probe, &number)) {
        if (are_equal(e, shown, &e->samples[number])) {
            int64_t *sums = e->values + number * types;
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
    e->samples[e->sample_count] = *shown;
    pyprof_hash_index_insert(&e->sample_index, hash, e->sample_count++);
}

static void aggregate_samples(encoder *e) {
    const uint32_t count = pyprof_window_sample_count(e->window);
    size_t types = e->encoding->sample_type_count;
    e->samples = calloc(count, sizeof *e->samples);
    e->values = calloc(count, (types == 0 ? 1 : types) * sizeof *e->values);
    e->tables.failed = e->tables.failed || e->samples == NULL || e->values == NULL;
    for (pyprof_sample_id i = 0; i < count && !e->tables.failed; i++) {
        const pyprof_sample *sample = pyprof_window_get_sample(e->window, i);
        if (select_values(e, sample, e->values + e->sample_count * types)) {
            const shown_sample shown = {pyprof_stack_table_stack(e->tables.stacks, sample->stack),
                                        e->fields_of_set[sample->labels]};
            aggregate(e, &shown);
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

/* The labels that stand in every sample. */
static void write_numeric_labels(encoder *e, pyprof_wire *labels) {
    for (size_t i = 0; i < e->encoding->numeric_label_count; i++) {
        const pyprof_numeric_label *label = &e->encoding->numeric_labels[i];
        uint8_t message[SMALL_MESSAGE], *at = message;
        at = pyprof_put_integer(at, LABEL_KEY, pyprof_pprof_string(&e->tables, label->name));
        at = pyprof_put_integer(at, LABEL_NUM, label->value);
        at = pyprof_put_integer(at, LABEL_NUM_UNIT, pyprof_pprof_string(&e->tables, label->unit));
        pyprof_wire_bytes(labels, SAMPLE_LABEL, message, (size_t)(at - message));
    }
}

static uint8_t *put_bytes(uint8_t *at, const uint8_t *bytes, size_t size) {
    if (size > 0) {
        memcpy(at, bytes, size);
    }
    return at + size;
}

static size_t field_size(size_t length) { return length == 0 ? 0 : 1 + pyprof_varint_size(length) + length; }

static void write_sample(encoder *e, const shown_sample *sample, const int64_t *values,
                         const pyprof_wire *numeric) {
    const pyprof_stack stack = sample->stack;
    const label_fields *labels = pyprof_vector_at(&e->fields, sample->labels);
    const uint32_t *ids = e->tables.location_ids;
    size_t types = e->encoding->sample_type_count, ids_size = 0, values_size = 0;
    for (uint32_t i = 0; i < stack.depth; i++) {
        ids_size += pyprof_varint_size(ids[stack.locations[i]]);
    }
    for (size_t i = 0; i < types; i++) {
        values_size += pyprof_varint_size((uint64_t)values[i]);
    }
    size_t size = field_size(ids_size) + field_size(values_size) + labels->size + numeric->size;
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
    at = put_bytes(at, labels->data, labels->size);
    at = put_bytes(at, numeric->data, numeric->size);
    e->out->size = (size_t)(at - e->out->data);
}

static void write_samples(encoder *e) {
    pyprof_wire numeric = {0};
    if (e->sample_count > 0) {
        write_numeric_labels(e, &numeric);
    }
    e->out->failed = e->out->failed || numeric.failed;
    for (uint32_t i = 0; i < e->sample_count; i++) {
        write_sample(e, &e->samples[i], e->values + i * e->encoding->sample_type_count, &numeric);
    }
    pyprof_wire_free(&numeric);
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

/* What is described must be what the window has. */
static pyprof_encode_result check_descriptions(const encoder *e) {
    const pyprof_encoding *encoding = e->encoding;
    if (encoding->files != NULL && encoding->file_count != e->tables.window_files.count) {
        return PYPROF_ENCODE_FILES_DIFFER;
    }
    if (encoding->label_values != NULL &&
        encoding->label_value_count != pyprof_label_table_label_count(e->labels)) {
        return PYPROF_ENCODE_LABELS_DIFFER;
    }
    return PYPROF_ENCODED;
}

pyprof_encode_result pyprof_encode(pyprof_window *window, const pyprof_encoding *encoding, pyprof_wire *out) {
    pyprof_label_table *labels = pyprof_window_get_labels(window);
    encoder e = {.window = window, .labels = labels, .encoding = encoding, .out = out};
    pyprof_encode_result result = PYPROF_ENCODED;
    pyprof_pprof_tables_init(&e.tables, window);
    e.tables.files = encoding->files;
    e.tables.failed = e.tables.failed || !pyprof_label_table_resolve(labels);
    if (!e.tables.failed) {
        result = check_descriptions(&e);
    }
    if (result == PYPROF_ENCODED) {
        encode_labels(&e);
        aggregate_samples(&e);
        if (!e.tables.failed) {
            write_profile(&e, pyprof_window_get_info(window));
        }
        if (e.tables.failed || out->failed) {
            result = PYPROF_ENCODE_NO_MEMORY;
        }
    }
    pyprof_hash_index_free(&e.sample_index, &e.tables.budget);
    pyprof_hash_index_free(&e.field_index, &e.tables.budget);
    pyprof_vector_free(&e.fields, &e.tables.budget);
    pyprof_arena_free(&e.field_bytes, &e.tables.budget);
    pyprof_pprof_tables_free(&e.tables);
    free(e.fields_of_set);
    free(e.samples);
    free(e.values);
    return result;
}
