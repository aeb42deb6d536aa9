/* Windows from C: real memory against the limit, allocations that fail one after the other, references.
 * The linker sends every malloc of the code under test here (-Wl,--wrap). */
#include "check.h"
#include "windows/pprof_encoder.h"

#include <malloc.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);

static size_t live_bytes;
static long allocations_left = -1; /* -1: as many as wanted */
static long refusals;

static void *counted(void *block) {
    live_bytes += block == NULL ? 0 : malloc_usable_size(block);
    return block;
}

static bool refused(void) {
    if (allocations_left == 0) {
        refusals++;
        return true;
    }
    allocations_left -= allocations_left > 0;
    return false;
}

void *__wrap_malloc(size_t size) { return refused() ? NULL : counted(__real_malloc(size)); }
void *__wrap_calloc(size_t count, size_t size) {
    return refused() ? NULL : counted(__real_calloc(count, size));
}

void __wrap_free(void *block) {
    live_bytes -= block == NULL ? 0 : malloc_usable_size(block);
    __real_free(block);
}

void *__wrap_realloc(void *block, size_t size) {
    if (refused()) {
        return NULL;
    }
    live_bytes -= block == NULL ? 0 : malloc_usable_size(block);
    return counted(__real_realloc(block, size));
}

/* None, two that say the same, one within another, and one that takes a label away. */
static pyprof_label_set *label_sets[5];

static pyprof_label_set *make_labels(const char *name, const char *value, pyprof_label_set *parent) {
    const pyprof_label label = {name, value, (uint32_t)strlen(name), (uint32_t)strlen(value)};
    pyprof_label_list *list = pyprof_label_list_new(&label, 1);
    pyprof_label_set *set = pyprof_label_set_new(list, parent);
    CHECK(list != NULL && set != NULL);
    pyprof_label_list_release(list);
    return set;
}

static size_t slab_bytes; /* where sets lie, which stays */

static void make_label_sets(void) {
    pyprof_label_set_release(make_labels("first", "of all", NULL));
    slab_bytes = live_bytes;
    label_sets[1] = make_labels("endpoint", "/a", NULL);
    label_sets[2] = make_labels("endpoint", "/a", NULL);
    label_sets[3] = make_labels("plan", "pro", label_sets[1]);
    label_sets[4] = make_labels("plan", "", label_sets[3]);
}

/* Sets are found as long as somebody holds them, whatever the reference says. */
static void check_label_references(void) {
    pyprof_label_set *set = make_labels("a", "b", NULL);
    const pyprof_label_reference reference = pyprof_label_set_reference(set);
    CHECK(pyprof_label_set_find(reference) == set);
    pyprof_label_set_release(set);
    CHECK(pyprof_label_set_find((pyprof_label_reference){reference.id + 1, reference.index}) == NULL);
    CHECK(pyprof_label_set_find((pyprof_label_reference){reference.id, UINT32_MAX}) == NULL);
    CHECK(pyprof_label_set_find((pyprof_label_reference){reference.id, 1 << 20}) == NULL);
    pyprof_label_set_release(set);
    CHECK(pyprof_label_set_find(reference) == NULL);
    pyprof_label_set *next = make_labels("c", "d", NULL);
    CHECK(next == set && pyprof_label_set_find(reference) == NULL);
    pyprof_label_set_release(next);
}

#define SYMBOLS 300
static pyprof_symbol *symbols[SYMBOLS];

static void make_symbols(void) {
    for (int i = 0; i < SYMBOLS; i++) {
        symbols[i] = make_symbol("function", i);
    }
}

/* Nobody but us holds them any more. */
static void release_symbols(void) {
    for (int i = 0; i < SYMBOLS; i++) {
        CHECK(symbols[i]->refs == 1);
        pyprof_symbol_release(symbols[i]);
    }
}

/* Two million distinct stacks, whose memory as the allocator sees it stays below the limit all the time. */
static void check_limit(size_t limit) {
    enum { STACKS = 2000000, DEPTH = 12 };
    make_symbols();
    size_t before = live_bytes, peak = 0;
    pyprof_window *window = pyprof_window_new(limit);
    uint64_t random = 1;
    for (int i = 0; i < STACKS; i++) {
        pyprof_frame frames[DEPTH];
        for (int j = 0; j < DEPTH; j++) {
            frames[j] = (pyprof_frame){symbols[next_random(&random) % SYMBOLS],
                                       (int32_t)(next_random(&random) % 1000)};
        }
        frames[0].lasti = i; /* distinct for certain */
        pyprof_sample_id stack = pyprof_window_intern(window, frames, DEPTH, false, NULL);
        pyprof_window_add(window, stack, &(pyprof_values){{1, 0, 1000 + i, 0}});
        peak = live_bytes - before > peak ? live_bytes - before : peak;
        CHECK(pyprof_window_bytes(window) <= limit);
    }
    CHECK(peak <= limit);
    CHECK(column_total(window, PYPROF_SAMPLES) == STACKS);
    CHECK(column_total(window, PYPROF_CPU_NS) == (int64_t)STACKS * 1000 + (int64_t)STACKS * (STACKS - 1) / 2);
    size_t kept = pyprof_window_sample_count(window) - 1;
    CHECK(kept > 0 && kept < STACKS);
    CHECK(pyprof_window_get_info(window)->overflowed == STACKS - kept);
    CHECK(pyprof_window_get_sample(window, PYPROF_OVERFLOW_SAMPLE)->values.column[PYPROF_SAMPLES] ==
          (int64_t)(STACKS - kept));
    printf("limit %zu: peak %zu, kept %zu stacks\n", limit, peak, kept);
    pyprof_window_free(window);
    CHECK(live_bytes == before);
    release_symbols();
}

/* A stack that was there before the window filled up is still found. */
static void check_known_stack_when_full(void) {
    make_symbols();
    pyprof_window *window = pyprof_window_new(64 * 1024);
    pyprof_frame known[] = {{symbols[0], 1}, {symbols[1], 2}};
    pyprof_sample_id stack = pyprof_window_intern(window, known, 2, true, NULL);
    CHECK(stack != PYPROF_OVERFLOW_SAMPLE);
    pyprof_sample_id last = stack;
    for (int32_t line = 10; last != PYPROF_OVERFLOW_SAMPLE; line++) {
        last = pyprof_window_intern(window, (pyprof_frame[]){{symbols[2], line}}, 1, false, NULL);
    }
    CHECK(pyprof_window_intern(window, known, 2, true, NULL) == stack);
    CHECK(pyprof_window_intern(window, (pyprof_frame[]){{symbols[0], 99}, {symbols[3], 1}}, 2, true, NULL) ==
          PYPROF_OVERFLOW_SAMPLE);
    CHECK(symbols[3]->refs == 1);
    pyprof_window_free(window);
    release_symbols();
}

/* A refused stack leaves no symbol behind: two million of code that runs once must not pile up. */
static void check_refused_symbols(void) {
    make_symbols();
    pyprof_window *window = pyprof_window_new(0);
    size_t bytes = pyprof_window_bytes(window);
    for (int i = 0; i < SYMBOLS; i++) {
        CHECK(pyprof_window_intern(window, (pyprof_frame[]){{symbols[i], 1}}, 1, false, NULL) ==
              PYPROF_OVERFLOW_SAMPLE);
        CHECK(symbols[i]->refs == 1);
    }
    CHECK(pyprof_window_bytes(window) == bytes);
    pyprof_window_free(window);
    release_symbols();
}

static void check_saturation(void) {
    pyprof_window *window = pyprof_window_new(0);
    for (int i = 0; i < 3; i++) {
        pyprof_window_add(window, PYPROF_OVERFLOW_SAMPLE, &(pyprof_values){{INT64_MAX - 1, 1, 0, INT64_MAX}});
    }
    const pyprof_values *sums = &pyprof_window_get_sample(window, PYPROF_OVERFLOW_SAMPLE)->values;
    CHECK(sums->column[PYPROF_SAMPLES] == INT64_MAX && sums->column[PYPROF_CPU_SAMPLES] == 3);
    CHECK(sums->column[PYPROF_CPU_NS] == 0 && sums->column[PYPROF_WALL_NS] == INT64_MAX);
    pyprof_window_free(window);
}

static void fill(pyprof_window *window, int stacks) {
    uint64_t random = 7;
    for (int i = 0; i < stacks; i++) {
        pyprof_frame frames[300];
        size_t depth = next_random(&random) % (i % 10 == 0 ? 300 : 8);
        for (size_t j = 0; j < depth; j++) {
            frames[j] =
                (pyprof_frame){symbols[next_random(&random) % SYMBOLS], (int32_t)(next_random(&random) % 40)};
        }
        pyprof_sample_id stack = pyprof_window_intern(window, frames, depth, i % 3 == 0, label_sets[i % 5]);
        pyprof_window_add(window, stack, &(pyprof_values){{1, 0, 10, 0}});
    }
}

static pyprof_encode_result encode(pyprof_window *window, pyprof_wire *message) {
    const pyprof_sample_type types[] = {{{{"samples", 7}, {"count", 5}}, PYPROF_SAMPLES}};
    const pyprof_file files[] = {{{"/x.py", 5}, {"module", 6}}};
    const pyprof_numeric_label labels[] = {{{"pid", 3}, 17, {"", 0}}};
    const pyprof_text comments[] = {{"a comment", 9}};
    const pyprof_text empty = {"", 0};
    pyprof_encoding encoding = {
        .sample_types = types,
        .sample_type_count = 1,
        .period_type = types[0].shown,
        .period = 1,
        .files = files,
        .file_count = 1,
        .numeric_labels = labels,
        .numeric_label_count = 1,
        .comments = comments,
        .comment_count = 1,
        .default_sample_type = empty,
        .mapping = empty,
    };
    return pyprof_encode(window, &encoding, message);
}

/* How often each field of the message occurs; all that `encode` writes have numbers below 16. */
static void count_fields(const pyprof_wire *message, size_t counts[16]) {
    memset(counts, 0, 16 * sizeof *counts);
    for (const uint8_t *at = message->data, *end = at + message->size; at < end;) {
        uint8_t key = *at++;
        uint64_t number = 0;
        int shift = 0;
        do {
            number |= (uint64_t)(*at & 0x7F) << shift;
            shift += 7;
        } while (*at++ & 0x80);
        counts[key >> 3]++;
        at += (key & 7) == 2 ? number : 0;
    }
}

/* So many that the 32 bits of some hashes are equal: what is not the same stays apart nevertheless. */
static void check_equal_hashes(void) {
    enum { MANY = 300000 };
    make_symbols();
    for (int kind = 0; kind < 2; kind++) { /* many lines; many functions */
        pyprof_window *window = pyprof_window_new(SIZE_MAX / 2);
        for (int i = 0; i < MANY; i++) {
            pyprof_symbol *own = pyprof_symbol_new("f", 1, "x.py", 4, i, NULL, 0);
            pyprof_frame frame = kind == 0 ? (pyprof_frame){symbols[0], i} : (pyprof_frame){own, 1};
            pyprof_sample_id stack = pyprof_window_intern(window, &frame, 1, false, NULL);
            CHECK(stack == (pyprof_sample_id)i + 1);
            pyprof_window_add(window, stack, &(pyprof_values){{1, 1, 1, 1}});
            pyprof_symbol_release(own);
        }
        pyprof_wire message = {0};
        CHECK(encode(window, &message) == PYPROF_ENCODED);
        size_t counts[16];
        count_fields(&message, counts);
        CHECK(counts[2] == MANY && counts[4] == MANY && counts[5] == (kind == 0 ? 1 : MANY));
        pyprof_wire_free(&message);
        pyprof_window_free(window);
    }
    pyprof_window *window = pyprof_window_new(SIZE_MAX / 2);
    pyprof_sample_id last = PYPROF_OVERFLOW_SAMPLE;
    for (int i = 0; i < MANY; i++) { /* many stacks of few lines */
        pyprof_frame frames[] = {{symbols[1], i % 600}, {symbols[2], i / 600}};
        CHECK(pyprof_window_intern(window, frames, 2, false, NULL) == ++last);
    }
    pyprof_window_free(window);
    release_symbols();
}

/* Whichever allocation is the first to fail: no crash, no leak, no value lost. */
static void check_failing_allocations(void) {
    enum { STACKS = 400 };
    make_symbols();
    size_t before = live_bytes;
    long fails = 0;
    for (bool done = false; !done; fails++) {
        allocations_left = fails;
        refusals = 0;
        pyprof_window *window = pyprof_window_new(SIZE_MAX / 2);
        if (window != NULL) {
            fill(window, STACKS);
            CHECK(column_total(window, PYPROF_SAMPLES) == STACKS);
            CHECK(column_total(window, PYPROF_CPU_NS) == STACKS * 10);
            CHECK(refusals > 0 || pyprof_window_get_info(window)->overflowed == 0);
        }
        done = refusals == 0;
        allocations_left = -1;
        pyprof_window_free(window);
        CHECK(live_bytes == before);
    }
    long encode_fails = 0;
    for (bool done = false; !done; encode_fails++) {
        pyprof_window *window = pyprof_window_new(SIZE_MAX / 2);
        fill(window, STACKS);
        allocations_left = encode_fails;
        refusals = 0;
        pyprof_wire message = {0};
        pyprof_encode_result result = encode(window, &message);
        pyprof_wire_free(&message);
        done = refusals == 0;
        CHECK(result == (done ? PYPROF_ENCODED : PYPROF_ENCODE_NO_MEMORY));
        allocations_left = -1;
        pyprof_window_free(window);
        CHECK(live_bytes == before);
    }
    printf("failed at each of %ld + %ld allocations\n", fails, encode_fails);
    release_symbols();
}

static void check_small_footprint(void) {
    make_symbols();
    size_t before = live_bytes;
    pyprof_window *window = pyprof_window_new(1 << 20);
    CHECK(live_bytes - before < 1024);
    for (int i = 0; i < 5; i++) {
        pyprof_frame frames[] = {{symbols[i], 1}, {symbols[5], i}, {symbols[6], 1}};
        pyprof_window_add(window, pyprof_window_intern(window, frames, 3, false, NULL),
                          &(pyprof_values){{1, 1, 1, 1}});
    }
    CHECK(pyprof_window_stack_count(window) == 5);
    CHECK(live_bytes - before < 14 * 1024);
    pyprof_window_free(window);
    release_symbols();
}

int main(void) {
    make_label_sets();
    check_label_references();
    check_saturation();
    check_small_footprint();
    check_known_stack_when_full();
    check_refused_symbols();
    check_failing_allocations();
    check_equal_hashes();
    check_limit((size_t)1 << 20);
    check_limit((size_t)32 << 20);
    for (int i = 1; i < 5; i++) {
        pyprof_label_set_release(label_sets[i]);
    }
    CHECK(live_bytes == slab_bytes);
    return 0;
}
