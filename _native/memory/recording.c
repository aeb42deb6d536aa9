/* See recording.h. */
#ifndef PYPROF_PORTABLE
#include "memory/recording.h"

#include "cpython/interpreter.h"
#include "memory/allocator_hook.h"
#include "memory/track_hook.h"

static bool refuse(const char *reason) {
    PyErr_SetString(PyExc_RuntimeError, reason);
    return false;
}

static const char too_often[] = "other tools have hooked the allocators and cut pyprof out too often";

bool pyprof_recording_start(const pyprof_heap_options *options) {
    if (pyprof_heap_is_open()) {
        return true;
    }
    const char *obstacle = pyprof_walk_positions_obstacle();
    if (obstacle != NULL) {
        return refuse(obstacle);
    }
    if (!pyprof_heap_open(options)) {
        PyErr_NoMemory();
        return false;
    }
    pyprof_allocator_hook_period_changed();
    const bool hooked = pyprof_allocator_hook_install() != PYPROF_HOOK_GIVES_UP;
    if (!hooked) {
        PyErr_SetString(PyExc_RuntimeError, too_often);
    }
    if (!hooked || !pyprof_track_hook_install()) {
        pyprof_recording_stop();
        return false;
    }
    return true;
}

void pyprof_recording_stop(void) {
    pyprof_track_hook_uninstall();
    pyprof_allocator_hook_uninstall();
    pyprof_heap_close();
}

void pyprof_recording_set_period(double period) {
    if (pyprof_heap_set_period(period)) {
        pyprof_allocator_hook_period_changed();
    }
}

bool pyprof_recording_check(void) {
    if (!pyprof_heap_is_open()) {
        return true;
    }
    const pyprof_hook_state state = pyprof_allocator_hook_install();
    if (state != PYPROF_HOOK_SEES) {
        pyprof_heap_forget();
    }
    return state != PYPROF_HOOK_GIVES_UP;
}

#endif
