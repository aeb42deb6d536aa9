"""What programs under stress begin with that look at their own memory profile."""

from .host import PRELUDE as HOST

PRELUDE = (
    HOST
    + """
from pyprof import _native
from pyprof.pprof import read

MB = 1 << 20

def start(**options):
    global profiler
    profiler = pyprof.start(**dict(exporter="none", sample_rate=50, memory_period=64) | options)
    return profiler

def values(kind, report=None):
    "By function, of all that it called."
    profile = read((report or profiler.heap()).pprof())
    column = [one.type for one in profile.sample_types].index(kind)
    found = {}
    for sample in profile.samples:
        names = {line.function.name.rpartition(".")[2] for place in sample.locations for line in place.lines}
        for name in names:
            found[name] = found.get(name, 0) + sample.values[column]
        assert min(sample.values) >= 0, sample
    return found

def in_use():
    return _native.memory_stats()["inuse_bytes"]

def allocator(domain):
    "Its malloc and free, by the GIL's holder."
    api = ctypes.PyDLL(None)
    allocate, free = getattr(api, domain + "Malloc"), getattr(api, domain + "Free")
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    free.restype, free.argtypes = None, [ctypes.c_void_p]
    return allocate, free

def deep(depth, work):
    return deep(depth - 1, work) if depth else work()

def join(workers, seconds=60):
    for worker in workers:
        worker.join(seconds)
        assert not worker.is_alive(), "it hangs"
"""
)
