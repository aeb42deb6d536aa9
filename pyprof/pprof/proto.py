"""Protocol buffer messages without generated code.

The messages are described here and built when first used, in a descriptor pool of our own and under
a package name of our own: another `profile.proto` in the process cannot collide with them, and no
generated code ties them to one version of protobuf. On the wire names do not matter, only numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyprof.pprof.errors import ProfileError, printable

__all__ = ["Field", "build", "implementation", "profile_messages"]

Field = tuple[str, int, str]
"""Name, number, type. The type is `int64`, `uint64`, `bool`, `string`, `bytes` or a message's name,
with a leading `*` if the field is repeated."""

_SCALARS = {"int64": 3, "uint64": 4, "bool": 8, "string": 9, "bytes": 12}
_MESSAGE, _OPTIONAL, _REPEATED = 11, 1, 3

# The published profile.proto; only its strings are bytes here, because producers in other languages
# write names that are not UTF-8, and such a profile can still be read.
_PROFILE: Mapping[str, Sequence[Field]] = {
    "Profile": (
        ("sample_type", 1, "*ValueType"),
        ("sample", 2, "*Sample"),
        ("mapping", 3, "*Mapping"),
        ("location", 4, "*Location"),
        ("function", 5, "*Function"),
        ("string_table", 6, "*bytes"),
        ("drop_frames", 7, "int64"),
        ("keep_frames", 8, "int64"),
        ("time_nanos", 9, "int64"),
        ("duration_nanos", 10, "int64"),
        ("period_type", 11, "ValueType"),
        ("period", 12, "int64"),
        ("comment", 13, "*int64"),
        ("default_sample_type", 14, "int64"),
        ("doc_url", 15, "int64"),
    ),
    "ValueType": (("type", 1, "int64"), ("unit", 2, "int64")),
    "Sample": (("location_id", 1, "*uint64"), ("value", 2, "*int64"), ("label", 3, "*Label")),
    "Label": (("key", 1, "int64"), ("str", 2, "int64"), ("num", 3, "int64"), ("num_unit", 4, "int64")),
    "Mapping": (
        ("id", 1, "uint64"),
        ("memory_start", 2, "uint64"),
        ("memory_limit", 3, "uint64"),
        ("file_offset", 4, "uint64"),
        ("filename", 5, "int64"),
        ("build_id", 6, "int64"),
        ("has_functions", 7, "bool"),
        ("has_filenames", 8, "bool"),
        ("has_line_numbers", 9, "bool"),
        ("has_inline_frames", 10, "bool"),
    ),
    "Location": (
        ("id", 1, "uint64"),
        ("mapping_id", 2, "uint64"),
        ("address", 3, "uint64"),
        ("line", 4, "*Line"),
        ("is_folded", 5, "bool"),
    ),
    "Line": (("function_id", 1, "uint64"), ("line", 2, "int64"), ("column", 3, "int64")),
    "Function": (
        ("id", 1, "uint64"),
        ("name", 2, "int64"),
        ("system_name", 3, "int64"),
        ("filename", 4, "int64"),
        ("start_line", 5, "int64"),
    ),
}


def build(package: str, definitions: Mapping[str, Sequence[Field]]) -> dict[str, Any]:
    """Message classes by name, in a pool that nothing else shares.

    Keep them all as long as one is used: protobuf 4.22 crashes when the class of a nested message has gone.
    Raises ProfileError when protobuf is missing or too old for this Python.
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except Exception as error:  # TypeError, for one, where its C part is older than the interpreter
        reason = printable(f"{type(error).__name__}: {error}")
        raise ProfileError(f"the protobuf package cannot be loaded, upgrade it ({reason})") from error

    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for message_name, fields in definitions.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind in fields:
            type_name = kind.removeprefix("*")
            field = message.field.add(name=name, number=number)
            field.label = _REPEATED if kind.startswith("*") else _OPTIONAL  # type: ignore[assignment]
            if type_name in _SCALARS:
                field.type = _SCALARS[type_name]  # type: ignore[assignment]
            else:
                field.type = _MESSAGE  # type: ignore[assignment]
                field.type_name = f".{package}.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    descriptors = {name: pool.FindMessageTypeByName(f"{package}.{name}") for name in definitions}
    return {name: message_factory.GetMessageClass(found) for name, found in descriptors.items()}


_built: dict[str, dict[str, Any]] = {}
"""By package. Never emptied: a class that was handed out needs its fellows."""


def profile_messages() -> dict[str, Any]:
    """The classes of profile.proto: Profile, ValueType, Sample, Label, Mapping, Location, Line, Function.

    The same for all threads, also for those that ask at once: what the others built is dropped unused.
    """
    package = "pyprof.pprof"
    return _built.get(package) or _built.setdefault(package, build(package, _PROFILE))


def implementation() -> str:
    """The protobuf version and what it runs on, such as "7.36.2 (upb)"."""
    import google.protobuf
    from google.protobuf.internal import api_implementation

    return f"{google.protobuf.__version__} ({api_implementation.Type()})"
