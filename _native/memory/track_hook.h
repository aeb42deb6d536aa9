/* Track hook: memory that libraries allocate by other means and report through PyTraceMalloc_Track, as numpy
 * does.
 *
 * Those calls go through a slot of each library's own, which the dynamic linker has filled in; the slots get
 * our functions, which tell the heap and pass on. Libraries that are loaded later get theirs when the
 * interpreter has loaded an extension module (`_imp.create_dynamic`). All of it is called attached, in the
 * main interpreter, by one thread at a time; our functions are called from any thread, attached or not.
 */
#ifndef PYPROF_TRACK_HOOK_H
#define PYPROF_TRACK_HOOK_H

#include <Python.h>
#include <stdbool.h>

/* False with an error set. */
bool pyprof_track_hook_install(void);
void pyprof_track_hook_uninstall(void);

#endif
