"""The limit of memory that control groups set, told from copies of what kernels show.

Seen to fail: only the group itself looked at; a mount's root not taken off the path; "no limit"
of version 1 taken for one; `max` read as a number.
"""

from pathlib import Path

import pytest

from pyprof.collectors.memory_limit import cgroup_limit

GB = 1 << 30


class Kernel:
    """A directory that looks like /proc/self, and one where groups are mounted."""

    def __init__(self, path: Path) -> None:
        self.proc, self.groups = path / "proc", path / "cgroup"
        self.proc.mkdir()
        self.mounts: list[str] = []

    def mount(self, kind: str, options: str, root: str = "/", at: str = "") -> Path:
        point = self.groups / at
        point.mkdir(parents=True, exist_ok=True)
        self.mounts.append(f"31 23 0:28 {root} {point} rw,nosuid shared:9 - {kind} {kind} {options}")
        (self.proc / "mountinfo").write_text("\n".join(["1 2 0:3 / / rw - ext4 /dev/a rw", *self.mounts]))
        return point

    def limit(self) -> int:
        return cgroup_limit(str(self.proc))


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_version_2(kernel: Kernel) -> None:
    point = kernel.mount("cgroup2", "rw")
    (kernel.proc / "cgroup").write_text("0::/system.slice/shop.service\n")
    group = point / "system.slice" / "shop.service"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    assert kernel.limit() == 0
    (group / "memory.max").write_text(f"{2 * GB}\n")
    assert kernel.limit() == 2 * GB
    (group.parent / "memory.max").write_text(f"{GB}\n")  # the smaller one around it holds
    assert kernel.limit() == GB


def test_version_2_in_a_container(kernel: Kernel) -> None:
    """With a namespace of its own the path is `/`; without one it names what is not mounted there."""
    point = kernel.mount("cgroup2", "rw,nsdelegate")
    (point / "memory.max").write_text(f"{GB}\n")
    for path in ("/", "/kubepods.slice/pod1/container", "/../../other"):
        (kernel.proc / "cgroup").write_text(f"0::{path}\n")
        assert kernel.limit() == GB


def test_version_1(kernel: Kernel) -> None:
    """Beside it the hierarchy of version 2, without controllers."""
    kernel.mount("cgroup2", "rw", at="unified")
    kernel.mount("cgroup", "rw,cpu,cpuacct", at="cpu")
    point = kernel.mount("cgroup", "rw,memory", root="/docker/abc", at="memory")
    (kernel.proc / "cgroup").write_text("4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n")
    (point / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert kernel.limit() == 0
    (point / "memory.limit_in_bytes").write_text(f"{3 * GB}\n")
    assert kernel.limit() == 3 * GB
    (kernel.proc / "cgroup").write_text("4:memory:/docker/abc/inner\n")
    (point / "inner").mkdir()
    (point / "inner" / "memory.limit_in_bytes").write_text(f"{GB}\n")
    assert kernel.limit() == GB


@pytest.mark.parametrize("text", ["", "nonsense", "4:memory", "0::", "::::\n\n"])
def test_what_cannot_be_read_is_no_limit(text: str, kernel: Kernel) -> None:
    assert kernel.limit() == 0
    (kernel.proc / "cgroup").write_text(text)
    (kernel.proc / "mountinfo").write_text(text)
    assert kernel.limit() == 0
