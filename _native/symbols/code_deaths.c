/* See code_deaths.h. */
#include "symbols/code_deaths.h"

#include <string.h>

enum { MOST_DEATHS = 4096 };

/* A slot is empty until its death is noted, and again once that is settled. */
static const char is_settled; /* its address marks one that is, while an older one is still to be noted */

static struct {
    pyprof_death_mark count;        /* atomic */
    const void *slots[MOST_DEATHS]; /* atomic */
} deaths;

void pyprof_note_death(PyCodeObject *code) {
    pyprof_death_mark at = __atomic_fetch_add(&deaths.count, 1, __ATOMIC_ACQ_REL);
    __atomic_store_n(&deaths.slots[at % MOST_DEATHS], code, __ATOMIC_RELEASE);
}

pyprof_death_mark pyprof_deaths_so_far(void) { return __atomic_load_n(&deaths.count, __ATOMIC_ACQUIRE); }

static const void *slot_at(pyprof_death_mark at) {
    return __atomic_load_n(&deaths.slots[at % MOST_DEATHS], __ATOMIC_ACQUIRE);
}

static void set_slot(pyprof_death_mark at, const void *value) {
    __atomic_store_n(&deaths.slots[at % MOST_DEATHS], value, __ATOMIC_RELEASE);
}

bool pyprof_death_at(pyprof_death_mark settled, pyprof_death_mark at, const void **code) {
    *code = slot_at(at);
    return *code != NULL && pyprof_deaths_so_far() - settled <= MOST_DEATHS;
}

bool pyprof_settle_deaths(pyprof_death_mark *settled, void (*forget)(const void *code)) {
    const pyprof_death_mark begin = *settled, end = pyprof_deaths_so_far();
    for (pyprof_death_mark at = begin; at != end && end - begin <= MOST_DEATHS; at++) {
        const void *code = slot_at(at);
        if (code != NULL && code != &is_settled) {
            forget(code);
            set_slot(at, &is_settled);
        }
    }
    if (pyprof_deaths_so_far() - begin > MOST_DEATHS) {
        memset(deaths.slots, 0, sizeof(deaths.slots));
        *settled = pyprof_deaths_so_far();
        return false;
    }
    for (; *settled != end && slot_at(*settled) == &is_settled; ++*settled) {
        set_slot(*settled, NULL);
    }
    return true;
}
