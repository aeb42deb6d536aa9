/* See recording.h. */
#ifndef PYPROF_PORTABLE
#include "memory/recording.h"

#include "cpython/interpreter.h"
#include "cpython/traces.h"
#include "memory/allocator_hook.h"
#include "memory/counting.h"
#include "memory/track_hook.h"

static bool refuse(const char *reason) {
    PyErr_SetString(PyExc_RuntimeError, reason);
    return false;
}

static const char too_often[] = "other tools have hooked the allocators and cut pyprof out too often";

static bool install(const pyprof_heap_options *options, bool traced) {
    pyprof_counting_period_changed();
    if (traced) {
        return pyprof_allocator_hook_install_traced(options->max_frames);
    }
    return pyprof_allocator_hook_install() != PYPROF_HOOK_GIVES_UP || refuse(too_often);
}

bool pyprof_recording_start(const pyprof_heap_options *options, bool traced) {
    if (pyprof_heap_is_open()) {
        return true;
    }
    const char *obstacle = traced ? pyprof_tracking_obstacle() : pyprof_walk_positions_obstacle();
    if (obstacle != NULL) {
        return refuse(obstacle);
    }
    pyprof_heap_options wanted = *options;
    wanted.let_go = traced ? pyprof_untrack : NULL;
    if (!pyprof_heap_open(&wanted)) {
        PyErr_NoMemory();
        return false;
    }
    if (!install(options, traced) || !pyprof_track_hook_install()) {
        pyprof_recording_stop();
        return false;
    }
    return true;
}

/* An error that is set stays. */
void pyprof_recording_stop(void) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    pyprof_track_hook_uninstall();
    pyprof_allocator_hook_uninstall();
    pyprof_heap_close();
    PyErr_Restore(type, value, traceback);
}

void pyprof_recording_set_period(double period) {
    if (pyprof_heap_set_period(period)) {
        pyprof_counting_period_changed();
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
    pyprof_heap_stats stats;
    pyprof_heap_get_stats(&stats);
    pyprof_counting_look_after_gap(stats.period);
    return state != PYPROF_HOOK_GIVES_UP;
}

#endif
