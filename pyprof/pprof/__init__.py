"""The profile model: read, write, merge, filter, convert, tabulate pprof profiles.

It knows nothing of how profiles come about. Importing it loads neither protobuf nor requests; these
load with the first profile read or written, or URL fetched.
"""

from pyprof.pprof.convert import folded, speedscope
from pyprof.pprof.errors import ProfileError, printable
from pyprof.pprof.filter import focus, label_keys, with_label
from pyprof.pprof.merge import Merger, join, merge
from pyprof.pprof.model import Function, Label, Line, Location, Mapping, Profile, Sample, ValueType
from pyprof.pprof.output import replace_file
from pyprof.pprof.read import MAX_PROFILE_BYTES, read
from pyprof.pprof.save import save, save_flamegraph
from pyprof.pprof.table import LabelRow, Row, by_label, format_by_label, format_top, top
from pyprof.pprof.tree import Node, call_tree
from pyprof.pprof.write import write

__all__ = [
    "MAX_PROFILE_BYTES",
    "Function",
    "Label",
    "LabelRow",
    "Line",
    "Location",
    "Mapping",
    "Merger",
    "Node",
    "Profile",
    "ProfileError",
    "Row",
    "Sample",
    "ValueType",
    "by_label",
    "call_tree",
    "focus",
    "folded",
    "format_by_label",
    "format_top",
    "join",
    "label_keys",
    "merge",
    "printable",
    "read",
    "replace_file",
    "save",
    "save_flamegraph",
    "speedscope",
    "top",
    "with_label",
    "write",
]
