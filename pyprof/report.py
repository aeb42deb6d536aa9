"""What can be done with a profile that was taken in this process."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pprof import Profile


class Report:
    """A profile, to be shown or kept."""

    def _profile(self) -> "Profile":
        raise NotImplementedError

    def pprof(self) -> bytes:
        """The profile as an uncompressed pprof message."""
        from .pprof import write

        return write(self._profile())

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write the profile to `path`: pprof (`.pb.gz`, or `.pb`, not compressed), or one of the formats of
        `pyprof convert`. Raises ValueError for a name that ends in none of them.
        """
        from .pprof import save

        save(self._profile(), path)

    def top(self, n: int = 20, *, sample_type: str | None = None) -> str:
        """The table of the `n` functions with the largest flat value, as `pyprof top` prints it."""
        from .pprof import format_top, top

        profile = self._profile()
        unit = profile.sample_types[profile.sample_type_index(sample_type)].unit
        return format_top(top(profile, sample_type, limit=n), unit)

    def flamegraph(self, path: "str | os.PathLike[str]", *, sample_type: str | None = None) -> None:
        """Write the profile as one self-contained HTML page."""
        from .pprof import flamegraph, replace_file

        page = flamegraph.render(self._profile(), sample_type)
        with replace_file(path) as file:
            file.write(page.encode())


class Moment(Report):
    """The profile of what there was at the moment at which it was made."""

    def __init__(self, message: bytes) -> None:
        """message: as pprof, not compressed."""
        self._message = message

    def pprof(self) -> bytes:
        """The profile as an uncompressed pprof message."""
        return self._message

    def _profile(self) -> "Profile":
        from .pprof import read

        return read(self._message)
