"""Messages of our own: nothing else in the process is touched by them, nor touches them."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from pyprof.pprof import proto

from .profiles import VALID

RunPython = Callable[..., CompletedProcess[str]]


def test_another_profile_proto_in_the_process_does_no_harm(run_python: RunPython) -> None:
    """Both in the default pool: theirs under our file's name and our messages' names, but different."""
    code = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

def theirs(package, file_name):
    file = descriptor_pb2.FileDescriptorProto(name=file_name, package=package, syntax="proto3")
    message = file.message_type.add(name="Profile")
    message.field.add(name="sample", number=2, type=9, label=1)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(
        descriptor_pool.Default().FindMessageTypeByName(package + ".Profile"))

before = theirs("pyprof.pprof", "pyprof.pprof.proto")
from pyprof.pprof import Location, Profile, Sample, ValueType, read, write
from pyprof.pprof.proto import profile_messages
profile = Profile([ValueType("cpu", "nanoseconds")], [Sample((Location(address=1),), (5,))])
assert read(write(profile)) == profile
after = theirs("perftools.profiles", "profile.proto")
assert read(write(profile)) == profile
for message in (before(sample="x"), after(sample="x")):
    assert message.SerializeToString() == b"\\x12\\x01x"
assert profile_messages()["Profile"] is not before
"""
    run_python(code, check=True)


def test_reading_the_model_loads_nothing_heavy(run_python: RunPython) -> None:
    code = """
import sys
import pyprof.pprof
from pyprof.pprof import Profile, Sample, ValueType, call_tree, folded, merge, top
profile = merge([Profile([ValueType("cpu", "nanoseconds")], [Sample((), (5,))])])
top(profile), folded(profile), call_tree(profile)
import json
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    loaded = set(json.loads(run_python(code, check=True).stdout))
    assert loaded.isdisjoint({"google", "requests", "urllib3", "ssl", "socket", "asyncio"})


def test_build_makes_any_messages() -> None:
    """As the exporter needs them: a package of its own, messages in messages, maps to nothing global."""
    definitions = {
        "Request": (("series", 1, "*Series"), ("tenant", 2, "string")),
        "Series": (("raw", 1, "bytes"), ("size", 2, "uint64"), ("final", 3, "bool"), ("delta", 4, "int64")),
    }
    first, second = proto.build("example", definitions), proto.build("example", definitions)
    assert first["Request"] is not second["Request"]
    request = first["Request"](tenant="ü")
    request.series.add(raw=b"\xff", size=(1 << 64) - 1, final=True, delta=-1)
    parsed = second["Request"].FromString(request.SerializeToString())
    assert parsed.tenant == "ü"
    assert (parsed.series[0].raw, parsed.series[0].size) == (b"\xff", (1 << 64) - 1)
    assert (parsed.series[0].final, parsed.series[0].delta) == (True, -1)


def test_threads_that_ask_at_once_get_the_same_classes(run_python: RunPython) -> None:
    """One that kept `Profile` of a set of its own made protobuf 4.22 crash. Seen to fail with `lru_cache`."""
    code = """
import threading, time
from pyprof.pprof import proto
build, results = proto.build, []
def build_slowly(*arguments):
    time.sleep(0.1)
    return build(*arguments)
proto.build = build_slowly
def ask():
    results.append(proto.profile_messages())
threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len({id(found["Sample"]) for found in results}) == 1 and len(results) == 8
"""
    run_python(code, check=True)


def test_a_protobuf_that_does_not_load_is_one_line(run_python: RunPython, tmp_path: Path) -> None:
    """As protobuf 5.26 does on Python 3.14: TypeError from the import."""
    (tmp_path / "google").mkdir()
    (tmp_path / "google" / "protobuf.py").write_text("raise TypeError('Metaclasses with custom tp_new')")
    (tmp_path / "p.pb").write_bytes(VALID)
    code = "import sys; from pyprof.cli.main import main; sys.exit(main(sys.argv[1:]))"
    result = run_python(code, "top", "p.pb", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode == 1
    reason = "TypeError: Metaclasses with custom tp_new"
    assert result.stderr == f"pyprof: the protobuf package cannot be loaded, upgrade it ({reason})\n"
    result = run_python(code, "info", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, check=True)
    assert "not usable (TypeError" in result.stdout


def test_implementation_is_named() -> None:
    import google.protobuf

    version, _, kind = proto.implementation().partition(" ")
    assert version == google.protobuf.__version__
    assert kind in ("(upb)", "(python)", "(cpp)")
