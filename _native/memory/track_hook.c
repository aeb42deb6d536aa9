/* See track_hook.h. */
#ifndef PYPROF_PORTABLE
#include <Python.h> /* before all others: it says what the system's headers shall show */

#include "memory/track_hook.h"

#include <elf.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/counting.h"

/* ELF for the Linux ABI, and the System V ABI supplements of the two processors. */
#if defined(__x86_64__)
#define IS_FUNCTION_SLOT(type) ((type) == R_X86_64_JUMP_SLOT || (type) == R_X86_64_GLOB_DAT)
#elif defined(__aarch64__)
#define IS_FUNCTION_SLOT(type) ((type) == R_AARCH64_JUMP_SLOT || (type) == R_AARCH64_GLOB_DAT)
#else
#define IS_FUNCTION_SLOT(type) ((void)(type), 0)
#endif

static const struct {
    const char *name;
    void *original, *ours;
} functions[] = {
    {"PyTraceMalloc_Track", (void *)PyTraceMalloc_Track, (void *)pyprof_count_track},
    {"PyTraceMalloc_Untrack", (void *)PyTraceMalloc_Untrack, (void *)pyprof_count_untrack},
};
enum { FUNCTIONS = sizeof(functions) / sizeof(functions[0]) };

/* -- one library -- */

typedef struct {
    uintptr_t base;
    const ElfW(Sym) * symbols;
    const char *strings;
    const uint32_t *gnu_hash;
    const ElfW(Rela) * tables[2]; /* of functions called, of everything */
    size_t sizes[2];
    uintptr_t relro, relro_end; /* read only once it is filled in */
} library;

/* glibc adds the base to addresses in the dynamic section, musl leaves them. */
static const void *address_in(const library *lib, ElfW(Addr) value) {
    return (const void *)(value < lib->base ? lib->base + value : value);
}

static void read_dynamic(library *lib, const ElfW(Dyn) * dynamic) {
    for (; dynamic->d_tag != DT_NULL; dynamic++) {
        const ElfW(Addr) value = dynamic->d_un.d_ptr;
        switch (dynamic->d_tag) {
        case DT_SYMTAB:
            lib->symbols = address_in(lib, value);
            break;
        case DT_STRTAB:
            lib->strings = address_in(lib, value);
            break;
        case DT_GNU_HASH:
            lib->gnu_hash = address_in(lib, value);
            break;
        case DT_JMPREL:
            lib->tables[0] = address_in(lib, value);
            break;
        case DT_PLTRELSZ:
            lib->sizes[0] = value;
            break;
        case DT_RELA:
            lib->tables[1] = address_in(lib, value);
            break;
        case DT_RELASZ:
            lib->sizes[1] = value;
            break;
        default:
            break;
        }
    }
}

/* What a library calls of others stands before what it offers to them. */
static uint32_t imported_symbols(const library *lib) { return lib->gnu_hash[1]; }

static void write_slot(const library *lib, void **slot, void *value) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t start = (uintptr_t)slot & ~(page - 1);
    const bool sealed = (uintptr_t)slot >= lib->relro && (uintptr_t)slot < lib->relro_end;
    if (sealed && mprotect((void *)start, page, PROT_READ | PROT_WRITE) != 0) {
        return;
    }
    __atomic_store_n(slot, value, __ATOMIC_RELEASE);
    if (sealed) {
        mprotect((void *)start, page, PROT_READ);
    }
}

/* `ours` comes in, or the original back where ours is. */
static void exchange_slots(const library *lib, uint32_t symbol, void *original, void *ours, bool install) {
    for (int table = 0; table < 2; table++) {
        const size_t count = lib->tables[table] == NULL ? 0 : lib->sizes[table] / sizeof(ElfW(Rela));
        for (size_t i = 0; i < count; i++) {
            const ElfW(Rela) *entry = &lib->tables[table][i];
            if (ELF64_R_SYM(entry->r_info) == symbol && IS_FUNCTION_SLOT(ELF64_R_TYPE(entry->r_info))) {
                void **slot = (void **)(lib->base + entry->r_offset);
                if ((*slot == ours) != install) {
                    write_slot(lib, slot, install ? ours : original);
                }
            }
        }
    }
}

static void exchange_in(const library *lib, bool install) {
    for (uint32_t symbol = 1; symbol < imported_symbols(lib); symbol++) {
        const char *name = lib->strings + lib->symbols[symbol].st_name;
        for (int i = 0; i < FUNCTIONS; i++) {
            if (strcmp(name, functions[i].name) == 0) {
                exchange_slots(lib, symbol, functions[i].original, functions[i].ours, install);
            }
        }
    }
}

/* Libraries are visited in the order in which they were loaded. */
typedef struct {
    bool install;
    size_t number, skipped;
    unsigned long long unloaded;
} visit_state;

static size_t done;                /* libraries that have our functions */
static unsigned long long unloads; /* up to then */

static int visit(struct dl_phdr_info *info, size_t Py_UNUSED(size), void *argument) {
    visit_state *state = argument;
    if (state->number++ == 0) {
        state->unloaded = info->dlpi_subs;
        state->skipped = state->install && info->dlpi_subs == unloads ? done : 0;
    }
    if (state->number <= state->skipped) {
        return 0;
    }
    library lib = {.base = info->dlpi_addr};
    const ElfW(Dyn) *dynamic = NULL;
    bool is_ours = false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        const uintptr_t start = info->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_DYNAMIC) {
            dynamic = (const ElfW(Dyn) *)start;
        } else if (header->p_type == PT_GNU_RELRO) {
            lib.relro = start;
            /* As the dynamic linker does it: what shares the last page stays writable. */
            lib.relro_end = (start + header->p_memsz) & ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1);
        } else if (header->p_type == PT_LOAD) {
            is_ours |= (uintptr_t)functions >= start && (uintptr_t)functions < start + header->p_memsz;
        }
    }
    /* The program itself has no name, what the kernel brings along no path. */
    if (dynamic != NULL && !is_ours && info->dlpi_name != NULL && strchr(info->dlpi_name, '/') != NULL) {
        read_dynamic(&lib, dynamic);
        if (lib.symbols != NULL && lib.strings != NULL && lib.gnu_hash != NULL) {
            exchange_in(&lib, state->install);
        }
    }
    return 0;
}

static void exchange_everywhere(bool install) {
    visit_state state = {.install = install};
    dl_iterate_phdr(visit, &state);
    done = install ? state.number : 0;
    unloads = state.unloaded;
}

/* -- libraries to come -- */

/* Kept until the interpreter's end: somebody may have wrapped ours, or be in it. */
static PyObject *original_create, *our_create;
static bool watching; /* atomic */
static bool in_place; /* ours is called, by the interpreter or by who has wrapped it */

/* In a program that begins Python anew these would be objects of the interpreter before. */
static bool ends_with_python;

static void forget_create(void) {
    original_create = our_create = NULL;
    watching = in_place = ends_with_python = false;
}

static PyObject *create_dynamic(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs) {
    PyObject *module = PyObject_Call(original_create, args, kwargs);
    if (module != NULL && __atomic_load_n(&watching, __ATOMIC_ACQUIRE)) {
        exchange_everywhere(true);
    }
    return module;
}

static PyMethodDef create_definition = {"create_dynamic", (PyCFunction)(void (*)(void))create_dynamic,
                                        METH_VARARGS | METH_KEYWORDS, NULL};

/* Calls `exchange` with the module `_imp` and what it has under that name now. */
static bool with_create(bool (*exchange)(PyObject *imp, PyObject *found)) {
    PyObject *imp = PyImport_ImportModule("_imp");
    PyObject *found = imp == NULL ? NULL : PyObject_GetAttrString(imp, create_definition.ml_name);
    const bool exchanged = found != NULL && exchange(imp, found);
    Py_XDECREF(found);
    Py_XDECREF(imp);
    return exchanged;
}

static bool put_ours(PyObject *imp, PyObject *found) {
    ends_with_python = ends_with_python || Py_AtExit(forget_create) == 0;
    if (our_create == NULL) {
        our_create = PyCFunction_New(&create_definition, NULL);
        if (our_create == NULL) {
            return false;
        }
    }
    Py_XSETREF(original_create, Py_NewRef(found));
    return PyObject_SetAttrString(imp, create_definition.ml_name, our_create) == 0;
}

static bool put_back(PyObject *imp, PyObject *found) {
    return found == our_create &&
           PyObject_SetAttrString(imp, create_definition.ml_name, original_create) == 0;
}

bool pyprof_track_hook_install(void) {
    if (!in_place && !with_create(put_ours)) {
        return false;
    }
    in_place = true;
    __atomic_store_n(&watching, true, __ATOMIC_RELEASE);
    exchange_everywhere(true);
    return true;
}

void pyprof_track_hook_uninstall(void) {
    if (__atomic_exchange_n(&watching, false, __ATOMIC_ACQ_REL)) {
        exchange_everywhere(false);
        in_place = !with_create(put_back);
        PyErr_Clear();
    }
}

#endif
