"""Labels that come and go as fast as can be, while the timer thread reads them: no crash, nothing that grows.

Seen to fail: with sets whose memory is never used again (it grows). A set that is taken for the one at its
place whatever its id is does not show here, where the epoch catches it, but in native/check_window.c.
"""

from pathlib import Path
from typing import Any

CHURN = """
import asyncio, contextvars, os, sys, threading, time
import pyprof
from pyprof import _native

pyprof.start(output=sys.argv[1], sample_rate=5000, max_overhead=1, memory_period=512, upload_interval=0.5,
             engine=os.environ.get("PYPROF_ENGINE", "gilfree"))
end = time.monotonic() + 4
shared = pyprof.labels(shared="1")

def churn(number):
    mine = str(number)
    while time.monotonic() < end:
        with pyprof.labels(thread=mine) as block, shared:
            pyprof.set_labels(job=os.urandom(1).hex())
            kept = [bytes(300) for _ in range(20)]
            block.add(status=mine)
            context = contextvars.copy_context()
        context.run(lambda: [bytes(300) for _ in range(20)])

async def task(number):
    with pyprof.labels(task=number):
        await asyncio.sleep(0)
        bytes(300)

async def tasks():
    while time.monotonic() < end:
        await asyncio.gather(*(task(i) for i in range(50)))

def forks():
    while time.monotonic() < end:
        child = os.fork()
        if child == 0:
            with pyprof.labels(child="1"):
                sum(range(1000))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        time.sleep(0.1)

threads = [threading.Thread(target=churn, args=(i,)) for i in range(4)]
threads.append(threading.Thread(target=lambda: asyncio.run(tasks())))
if "fork" in sys.argv:
    threads.append(threading.Thread(target=forks))
for thread in threads:
    thread.start()
time.sleep(2)
before = _native.stats()["bytes"]
for thread in threads:
    thread.join()
stats = pyprof.stats()
pyprof.stop()
assert stats.ticks > 100, stats
print(before, _native.stats()["bytes"])
"""

GROWTH = 4 << 20


def values_by_thread(directory: Path) -> set[tuple[str, str]]:
    """What `thread` and `status` say of one sample."""
    from pyprof.pprof import read

    found = set()
    for file in directory.glob("*.pb.gz"):
        for sample in read(file).samples:
            labels = {label.key: label.value for label in sample.labels}
            if "thread" in labels and "status" in labels:
                found.add((str(labels["thread"]), str(labels["status"])))
    return found


def test_churn_of_labels(run_python: Any, tmp_path: Path) -> None:
    result = run_python(CHURN, tmp_path, check=True, timeout=120)
    before, after = map(int, result.stdout.split())
    assert after < before + GROWTH
    found = values_by_thread(tmp_path)
    assert found, "no sample met a block"
    assert all(thread == status for thread, status in found), found


def test_churn_of_labels_beside_forks(run_python: Any, tmp_path: Path) -> None:
    run_python(CHURN, tmp_path, "fork", check=True, timeout=120, env={"PYTHONWARNINGS": "ignore"})
