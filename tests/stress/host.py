"""What programs under stress begin with, to look at their own process, and how autostart profiles them."""

import pyprof.autostart

AUTOSTART = {
    "PYTHONPATH": str(pyprof.autostart.directory()),
    "PYPROF_ENABLED": "1",
    "PYPROF_SAMPLE_RATE": "1000",
    "PYPROF_MAX_OVERHEAD": "1",
    "PYPROF_EXPORTER": "none",
}

PRELUDE = """
import ctypes, faulthandler, gc, os, signal, sys, threading, time
import pyprof

def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(100))

def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, threads()
        time.sleep(0.001)

def threads():
    return len(os.listdir("/proc/self/task"))

def descriptors(thread="self"):
    found = []
    for n in os.listdir(f"/proc/{thread}/fd"):
        try:
            found.append(os.readlink(f"/proc/{thread}/fd/{n}"))
        except FileNotFoundError:
            pass  # closed meanwhile
    return sorted(found)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

def sampled(ticks=5, stacks=1):
    "Goes on until it has been, so many times more; others may want the CPU too."
    before, end = pyprof.stats(), time.monotonic() + 30
    while pyprof.stats().ticks < before.ticks + ticks or pyprof.stats().stacks < before.stacks + stacks:
        assert time.monotonic() < end, (before, pyprof.stats())
        burn(0.002)
"""
