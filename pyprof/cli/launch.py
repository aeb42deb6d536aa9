"""Starting a program and standing in for it: its signals, its exit code, its death."""

import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

NOT_FOUND = 127
NOT_EXECUTABLE = 126

# Left alone: what cannot be caught, what stops and continues a job (the shell sends it to the whole job),
# what our own faults raise, and SIGCHLD, which tells us of the child.
_NOT_FORWARDED = frozenset(
    {
        signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT,
        signal.SIGCHLD, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP,
        signal.SIGSYS, signal.SIGPIPE,
    }
)  # fmt: skip
# Python ignores these, and ignored signals stay ignored in a new program.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def replace(path: str, arguments: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Become the program; OSError where it cannot be executed."""
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(path, list(arguments), dict(environ))


def run(path: str, arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the program to its end, passing signals on; its wait status. OSError where it cannot be executed.

    Signals stay blocked in the caller afterwards, so that nothing interrupts what it does with the result:
    `leave` unblocks them.
    """
    forwarded = signal.valid_signals() - _NOT_FORWARDED
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would never come
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, forwarded | {signal.SIGCHLD})
    try:
        child = os.posix_spawn(
            path, list(arguments), dict(environ), setsigmask=previous, setsigdef=_IGNORED_BY_PYTHON
        )
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        raise
    while True:
        event = signal.sigwaitinfo(forwarded | {signal.SIGCHLD})
        if event.si_signo == signal.SIGCHLD:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                _forget_pending(forwarded)
                return status
        elif event.si_code <= 0:
            # Sent by a process. What the kernel sends (the terminal's Ctrl-C) has reached the child as well.
            os.kill(child, event.si_signo)


def _forget_pending(signals: set[signal.Signals]) -> None:
    """Drop what was meant for the child and came too late for it, as the terminal's Ctrl-C that ended it."""
    while signal.sigtimedwait(signals, 0) is not None:
        pass


def leave(status: int) -> int:
    """The exit code of a child with this wait status; if a signal ended it, this process dies of the same."""
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    sys.stdout.flush()
    sys.stderr.flush()
    number = os.WTERMSIG(status)
    # The child has left its core already; ours would overwrite it.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number
