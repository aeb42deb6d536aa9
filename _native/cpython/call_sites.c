/* See call_sites.h. */
#define Py_BUILD_CORE 1 /* which instruction a specialised one stands for, and its caches, are internal */
#include "cpython/version.h"

#if PYPROF_KNOWN_LAYOUT
#if PYPROF_HAS_OPCODE_METADATA
#define NEED_OPCODE_METADATA
#include "internal/pycore_opcode_metadata.h"
#else
#define NEED_OPCODE_TABLES
#include "internal/pycore_opcode.h"
#endif
#include "opcode.h"
#endif
#undef Py_BUILD_CORE

#include "cpython/call_sites.h"
#include "cpython/guarded_read.h"

#include <stdbool.h>
#include <stdlib.h>

static size_t all_bytes; /* atomic */

static size_t bytes_of(size_t count) { return sizeof(pyprof_call_sites) + count * sizeof(pyprof_call_site); }

void pyprof_free_call_sites(pyprof_call_sites *sites) {
    if (sites != NULL) {
        __atomic_sub_fetch(&all_bytes, bytes_of(sites->count), __ATOMIC_RELAXED);
        free(sites);
    }
}

size_t pyprof_call_sites_bytes(void) { return __atomic_load_n(&all_bytes, __ATOMIC_RELAXED); }

#if PYPROF_KNOWN_LAYOUT

typedef struct {
    uint8_t opcode, argument;
} code_unit;

enum { UNKNOWN_DEPTH = -1, MOST_UNITS = UINT16_MAX, MOST_HANDLER_BYTES = 1 << 20, MOST_PASSES = 8 };

typedef struct {
    const code_unit *units;
    int count;
    int *depths; /* before each instruction */
    bool changed, failed;
} stack_depths;

static void set_depth(stack_depths *of, int unit, int depth) {
    if (unit < 0 || unit >= of->count || depth < 0 ||
        (of->depths[unit] != UNKNOWN_DEPTH && of->depths[unit] != depth)) {
        of->failed = true;
    } else if (of->depths[unit] == UNKNOWN_DEPTH) {
        of->depths[unit] = depth;
        of->changed = true;
    }
}

/* -- instructions -- */

typedef struct {
    int at; /* its first unit, without the EXTENDED_ARGs before it */
    int opcode, argument;
    int next;
} instruction;

/* Specialised instructions stand for what the compiler wrote; instrumented ones and traces hide that. */
static bool is_hidden(int opcode) {
    (void)opcode; /* 3.11 has none of them */
#ifdef MIN_INSTRUMENTED_OPCODE
    if (opcode >= MIN_INSTRUMENTED_OPCODE) {
        return true;
    }
#endif
#ifdef ENTER_EXECUTOR
    if (opcode == ENTER_EXECUTOR) {
        return true;
    }
#endif
    return false;
}

static bool decode(const stack_depths *of, int unit, instruction *found) {
    int argument = 0, opcode = EXTENDED_ARG;
    for (; unit < of->count; unit++) {
        opcode = _PyOpcode_Deopt[of->units[unit].opcode];
        argument = argument << 8 | of->units[unit].argument;
        if (opcode != EXTENDED_ARG) {
            break;
        }
    }
    if (unit == of->count || argument > UINT16_MAX || is_hidden(opcode)) {
        return false;
    }
    *found = (instruction){unit, opcode, argument, unit + 1 + _PyOpcode_Caches[opcode]};
    return found->next <= of->count;
}

static bool ends_path(int opcode) {
    switch (opcode) {
    case RETURN_VALUE:
#ifdef RETURN_CONST
    case RETURN_CONST:
#endif
    case RAISE_VARARGS:
    case RERAISE:
    case JUMP_FORWARD:
    case JUMP_BACKWARD:
    case JUMP_BACKWARD_NO_INTERRUPT:
        return true;
    }
    return false;
}

typedef enum { NO_JUMP, FORWARD, BACKWARD } jump_direction;

static jump_direction direction_of(int opcode) {
    switch (opcode) {
    case JUMP_FORWARD:
    case FOR_ITER:
    case SEND:
#ifdef POP_JUMP_FORWARD_IF_FALSE
    case POP_JUMP_FORWARD_IF_FALSE:
    case POP_JUMP_FORWARD_IF_TRUE:
    case POP_JUMP_FORWARD_IF_NONE:
    case POP_JUMP_FORWARD_IF_NOT_NONE:
    case JUMP_IF_FALSE_OR_POP:
    case JUMP_IF_TRUE_OR_POP:
#else
    case POP_JUMP_IF_FALSE:
    case POP_JUMP_IF_TRUE:
    case POP_JUMP_IF_NONE:
    case POP_JUMP_IF_NOT_NONE:
#endif
        return FORWARD;
    case JUMP_BACKWARD:
    case JUMP_BACKWARD_NO_INTERRUPT:
#ifdef POP_JUMP_BACKWARD_IF_FALSE
    case POP_JUMP_BACKWARD_IF_FALSE:
    case POP_JUMP_BACKWARD_IF_TRUE:
    case POP_JUMP_BACKWARD_IF_NONE:
    case POP_JUMP_BACKWARD_IF_NOT_NONE:
#endif
        return BACKWARD;
    }
    return NO_JUMP;
}

/* A pure function of its arguments: no thread state is needed. */
static int effect_of(stack_depths *of, const instruction *one, bool jumps) {
    enum { SENT_VALUE = 1 }; /* what the generator is resumed with; not counted until 3.12 */
    const int effect = one->opcode == RETURN_GENERATOR
                           ? SENT_VALUE
                           : PyCompile_OpcodeStackEffectWithJump(one->opcode, one->argument, jumps);
    of->failed |= effect == PY_INVALID_STACK_EFFECT;
    return effect;
}

static void follow(stack_depths *of, const instruction *one) {
    const int depth = of->depths[one->at];
    const jump_direction direction = direction_of(one->opcode);
    if (direction != NO_JUMP) {
        const int distance = direction == FORWARD ? one->argument : -one->argument;
        set_depth(of, one->next + distance, depth + effect_of(of, one, true));
    }
    if (!ends_path(one->opcode)) {
        set_depth(of, one->next, depth + effect_of(of, one, false));
    }
}

/* Code comes after what jumps to it, but for the odd block that only a jump backward reaches. */
static void find_depths(stack_depths *of) {
    for (int pass = 0; pass < MOST_PASSES && of->changed && !of->failed; pass++) {
        of->changed = false;
        instruction one;
        for (int unit = 0; unit < of->count && !of->failed; unit = one.next) {
            if (!decode(of, unit, &one)) {
                of->failed = true;
                break;
            }
            const int depth = of->depths[unit];
            if (depth != UNKNOWN_DEPTH) {
                for (int i = unit + 1; i <= one.at; i++) {
                    set_depth(of, i, depth);
                }
                follow(of, &one);
            }
        }
    }
}

/* -- exception handlers: Objects/exception_handling_notes.txt of CPython -- */

static const uint8_t *parse_number(const uint8_t *at, const uint8_t *end, int *number) {
    enum { CONTINUES = 64, PAYLOAD = 63, BITS = 6 };
    *number = 0;
    while (at < end) {
        *number = *number << BITS | (*at & PAYLOAD);
        if ((*at++ & CONTINUES) == 0) {
            return at;
        }
    }
    return NULL;
}

static void enter_handlers(stack_depths *of, const uint8_t *at, size_t size) {
    const uint8_t *end = at + size;
    while (at != NULL && at < end && !of->failed) {
        int start, length, target, depth;
        at = parse_number(at, end, &start);
        at = at == NULL ? NULL : parse_number(at, end, &length);
        at = at == NULL ? NULL : parse_number(at, end, &target);
        at = at == NULL ? NULL : parse_number(at, end, &depth);
        if (at != NULL) {
            const int pushes_instruction = depth & 1, exception = 1;
            set_depth(of, target, (depth >> 1) + pushes_instruction + exception);
        }
    }
}

/* -- calls -- */

/* How far below the top what is called stands; 0: the instruction calls nothing. */
static int callable_below_top(int opcode, int argument) {
    enum { CALLABLE_AND_SELF = 2, NAMES = 1 };
    switch (opcode) {
#ifdef PRECALL
    case PRECALL: /* specialised, it does the work of both */
        return CALLABLE_AND_SELF + argument;
    case CALL: /* what it takes from the stack is in PRECALL's effect already */
        return CALLABLE_AND_SELF;
#else
    case CALL:
        return CALLABLE_AND_SELF + argument;
#endif
#ifdef CALL_KW
    case CALL_KW:
        return CALLABLE_AND_SELF + argument + NAMES;
#endif
    case CALL_FUNCTION_EX:
        return PYPROF_EX_CALLABLE_BELOW_TOP(argument);
    }
    return 0;
}

/* Their count; fills `sites` if that is not NULL. */
static size_t collect_calls(const stack_depths *of, pyprof_call_site *sites) {
    size_t count = 0;
    instruction one;
    for (int unit = 0; unit < of->count && decode(of, unit, &one); unit = one.next) {
        const int depth = of->depths[one.at], below = callable_below_top(one.opcode, one.argument);
        if (below > 0 && depth >= below && depth <= UINT16_MAX) {
            if (sites != NULL) {
                sites[count] =
                    (pyprof_call_site){(uint16_t)one.at, (uint16_t)(depth - below), (uint16_t)depth};
            }
            count++;
        }
    }
    return count;
}

static pyprof_call_sites *new_sites(size_t count) {
    pyprof_call_sites *sites = malloc(bytes_of(count));
    if (sites != NULL) {
        sites->count = count;
        __atomic_add_fetch(&all_bytes, bytes_of(count), __ATOMIC_RELAXED);
    }
    return sites;
}

static pyprof_call_sites *list_calls(const stack_depths *of) {
    pyprof_call_sites *sites = new_sites(collect_calls(of, NULL));
    if (sites != NULL) {
        collect_calls(of, sites->sites);
    }
    return sites;
}

static pyprof_call_sites *find_calls(const code_unit *units, int count, const uint8_t *handlers,
                                     size_t handlers_size) {
    stack_depths depths = {.units = units, .count = count, .depths = malloc((size_t)count * sizeof(int))};
    if (depths.depths == NULL) {
        return NULL;
    }
    for (int i = 0; i < count; i++) {
        depths.depths[i] = UNKNOWN_DEPTH;
    }
    set_depth(&depths, 0, 0);
    enter_handlers(&depths, handlers, handlers_size);
    find_depths(&depths);
    pyprof_call_sites *sites = depths.failed ? new_sites(0) : list_calls(&depths);
    free(depths.depths);
    return sites;
}

pyprof_call_sites *pyprof_read_call_sites(const void *address) {
    PyCodeObject code;
    PyVarObject handlers;
    const pyprof_read fixed_part = {&code, address, offsetof(PyCodeObject, co_code_adaptive)};
    if (!pyprof_read_memory(&fixed_part, 1)) {
        return NULL;
    }
    const pyprof_read header = {&handlers, code.co_exceptiontable, sizeof(handlers)};
    if (!pyprof_read_memory(&header, 1) || handlers.ob_base.ob_type != &PyBytes_Type) {
        return NULL;
    }
    if (Py_SIZE(&code) <= 0 || Py_SIZE(&code) > MOST_UNITS || handlers.ob_size < 0 ||
        handlers.ob_size > MOST_HANDLER_BYTES) {
        return new_sites(0);
    }
    const size_t units_size = (size_t)Py_SIZE(&code) * sizeof(code_unit);
    const size_t handlers_size = (size_t)handlers.ob_size;
    char *copy = malloc(units_size + handlers_size);
    const pyprof_read contents[] = {
        {copy, (const char *)address + offsetof(PyCodeObject, co_code_adaptive), units_size},
        {copy + units_size, (const char *)code.co_exceptiontable + offsetof(PyBytesObject, ob_sval),
         handlers_size},
    };
    pyprof_call_sites *sites = NULL;
    if (copy != NULL && pyprof_read_memory(contents, handlers_size > 0 ? 2 : 1)) {
        sites = find_calls((const code_unit *)copy, (int)Py_SIZE(&code), (const uint8_t *)copy + units_size,
                           handlers_size);
    }
    free(copy);
    return sites;
}

const pyprof_call_site *pyprof_find_call_site(const pyprof_call_sites *sites, int32_t lasti) {
    size_t low = 0, high = sites->count;
    const int32_t unit = lasti / (int32_t)sizeof(code_unit);
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (sites->sites[middle].instruction < unit) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < sites->count && sites->sites[low].instruction == unit ? &sites->sites[low] : NULL;
}

#else

pyprof_call_sites *pyprof_read_call_sites(const void *code) { return (void)code, NULL; }

const pyprof_call_site *pyprof_find_call_site(const pyprof_call_sites *sites, int32_t lasti) {
    return (void)sites, (void)lasti, NULL;
}

#endif
