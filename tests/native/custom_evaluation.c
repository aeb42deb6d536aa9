/* A frame evaluation function as debuggers and compilers have them (PEP 523): it does what CPython's does. */
#include <Python.h>

static PyObject *evaluate(PyThreadState *tstate, struct _PyInterpreterFrame *frame, int throws) {
    return _PyEval_EvalFrameDefault(tstate, frame, throws);
}

void install(void) { _PyInterpreterState_SetEvalFrameFunc(PyInterpreterState_Get(), evaluate); }
