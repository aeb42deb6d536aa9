"""The options: one table, from which arguments, environment variables, help and flags are derived.

An option is an argument of `pyprof.start()` and the environment variable `PYPROF_<NAME>`. Adding one
means an entry in `OPTIONS` and an annotation in `Config` (a test compares the two).

Written without `dataclasses`, `pathlib`, `re` and `urllib`: each of them costs as much as all the rest
of `import pyprof`.
"""

import os
import sys
from collections.abc import Callable, Mapping

from .option_kinds import (
    HEADERS,
    MASK,
    TAGS,
    Boolean,
    Choice,
    FilePath,
    FrozenPairs,
    HeaderText,
    Integer,
    Kind,
    Number,
    Pairs,
    Text,
    Url,
    mask_url,
)

PREFIX = "PYPROF_"

# Variables that are not options: read by the build, or passed between processes of ours.
NOT_OPTIONS = frozenset({"PYPROF_PORTABLE"})
INTERNAL_PREFIX = "PYPROF__"


class Option:
    """One row of the table."""

    __slots__ = ("default", "help", "kind", "name", "secret")

    def __init__(self, name: str, kind: Kind, default: object, help: str, *, secret: bool = False) -> None:
        self.name, self.kind, self.default, self.help, self.secret = name, kind, default, help, secret

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """Its command line flag."""
        return "--" + self.name.replace("_", "-")

    def parse(self, text: str) -> object:
        """The value that `text`, from the environment or a command line, stands for; ValueError."""
        return self._checked(text, self.kind.parse)

    def check(self, value: object) -> object:
        """The value of an argument in its final type; ValueError with the option's name."""
        return self._checked(value, self.kind.check)

    def _checked(self, value: object, by: Callable[..., object]) -> object:
        try:
            return by(value)
        except Exception as error:
            # A hostile __fspath__ or mapping may raise anything; the caller is promised ValueError.
            raise ValueError(self.refusal(value)) from (None if isinstance(error, ValueError) else error)

    def refusal(self, value: object) -> str:
        """Why a value is refused; never shows a secret."""
        return f"{self.name} {self.kind.allowed}, not {self.shown(value)}"

    def shown(self, value: object) -> str:
        """The value for logs and reprs: one line, bounded, whatever its own repr is."""
        if value is None:
            return "None"
        if isinstance(self.kind, Pairs) and self.secret and isinstance(value, FrozenPairs):
            return repr(dict.fromkeys(value, MASK))
        if self.secret:
            return MASK
        try:
            text = mask_url(value) if isinstance(self.kind, Url) and isinstance(value, str) else repr(value)
        except Exception:  # a huge int, or a broken __repr__
            text = f"a value of type {type(value).__name__}"
        text = text if len(text) <= 100 else text[:100] + "…"
        return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


TRACEMALLOC_NEEDS_GIL = "tracemalloc crashes where there is no GIL: python/cpython#126315"
MEMORY = Choice("hook", "tracemalloc", "off", aliases={True: "hook", False: "off"})
if "t" in sys.abiflags:
    MEMORY = Choice("hook", "off", aliases=MEMORY.aliases)
    MEMORY.allowed += f" ({TRACEMALLOC_NEEDS_GIL})"
LEVELS = Choice("debug", "info", "warning", "error", "critical")

OPTIONS: tuple[Option, ...] = (
    Option("service_name", Text(), None, "name of the service (else OTEL_SERVICE_NAME, else the program's)"),
    Option("enabled", Boolean(), False, "start with the interpreter; off: integrations do not start it"),
    Option("exporter", Choice("pyroscope", "none"), "pyroscope", "where profiles are pushed"),
    Option("server_url", Url(), "http://localhost:4040", "URL of the profiling server"),
    Option("output", FilePath(), None, "directory or file for pprof files; set alone, nothing is pushed"),
    Option("sample_rate", Number(1, 10_000, "Hz"), 100.0, "samples a second"),
    Option("upload_interval", Number(0.1, 3600, "seconds"), 10.0, "seconds that one profile covers"),
    Option("engine", Choice("auto", "gilfree", "current_frames"), "auto", "how stacks are read"),
    Option("cpu", Boolean(), True, "CPU profile"),
    Option("wall", Boolean(), True, "wall profile"),
    Option("gil", Boolean(), True, "wall time with the GIL and waiting for it (free-threaded builds: off)"),
    Option("memory", MEMORY, "hook", "memory profile"),
    Option("memory_period", Integer(1, 1 << 40), 524288,
           "bytes allocated between two samples of the memory profile, on average"),
    Option("memory_oom_threshold", Number(0.01, 1, "share of the limit"), 0.9,
           "share of the cgroup's limit of memory, or of RLIMIT_AS, at which what is in use is reported"),
    Option("thread_labels", Boolean(), False, "label `thread`: the name of each new thread"),
    Option("task_labels", Boolean(), False,
           "label `task`: the name of each new asyncio task, else that of its function"),
    Option("task_wall", Boolean(), False, "wall time of asyncio tasks that await, beside that of threads"),
    Option("max_frames", Integer(1, 1000), 256, "frames kept of a stack, from the leaf"),
    Option("max_overhead", Number(0.0001, 1, "share of one core"), 0.01,
           "CPU time of pyprof itself, share of one core; the rate gives way to it (1: no limit)"),
    Option("label_values_max", Integer(1, 1_000_000), 1000,
           "values of one label that profiles tell apart; the rest is __other__ (not of span_id, trace_id)"),
    Option("ring_windows", Integer(1, 1024), 6, "profiles that wait in memory for a slow server, at most"),
    Option("tags", TAGS, None, "labels on every profile: name=value,name=value"),
    Option("auth_token", HeaderText(), None, "bearer token for the server", secret=True),
    Option("basic_auth_user", Text(without=":"), None, "user for HTTP basic authentication"),
    Option("basic_auth_password", Text(), None, "password for HTTP basic authentication", secret=True),
    Option("tenant_id", HeaderText(), None, "tenant (X-Scope-OrgID)"),
    Option("headers", HEADERS, None, "further HTTP headers: name=value,name=value", secret=True),
    Option("timeout", Number(0.1, 600, "seconds"), 10.0, "bound of one upload, answers and pauses included"),
    Option("exit_timeout", Number(0, 300, "seconds"), 2.0, "bound of the last upload when the program ends"),
    Option("flush_on_sigterm", Boolean(), False, "deliver before dying of SIGTERM (autostart: on)"),
    Option("strict", Boolean(), False, "raise where profiling is impossible, instead of one warning"),
    Option("log_level", LEVELS, "warning", "level of pyprof's log"),
)  # fmt: skip
_BY_NAME = {option.name: option for option in OPTIONS}
_KINDS = frozenset({"cpu", "wall", "memory"})
_BASIC = frozenset({"basic_auth_user", "basic_auth_password"})
_AUTHENTICATION = _BASIC | {"auth_token"}


class Config:
    """The options of one profiler, checked and complete. Immutable; its repr masks secrets."""

    service_name: str
    enabled: bool
    exporter: str
    server_url: str
    output: str | None
    sample_rate: float
    upload_interval: float
    engine: str
    cpu: bool
    wall: bool
    gil: bool
    memory: str
    memory_period: int
    memory_oom_threshold: float
    thread_labels: bool
    task_labels: bool
    task_wall: bool
    max_frames: int
    max_overhead: float
    label_values_max: int
    ring_windows: int
    tags: Mapping[str, str]
    auth_token: str | None
    basic_auth_user: str | None
    basic_auth_password: str | None
    tenant_id: str | None
    headers: Mapping[str, str]
    timeout: float
    exit_timeout: float
    flush_on_sigterm: bool
    strict: bool
    log_level: str

    @property
    def tick_rate(self) -> float:
        """Hz at which threads are looked at: hardly ever where neither CPU nor wall time is wanted."""
        return self.sample_rate if self.cpu or self.wall else min(self.sample_rate, 1.0)

    def __init__(self, **values: object) -> None:
        """Arguments are checked like those of `load`; the environment is not looked at."""
        given = _check_arguments(values)
        _check_kinds(given)
        self.__dict__.update(_complete(given, environ={}))

    @classmethod
    def load(
        cls,
        arguments: Mapping[str, object],
        environ: Mapping[str, str] | None = None,
        warn: Callable[[str], object] = lambda message: None,
        settings: Mapping[str, object] | None = None,
    ) -> "Config":
        """Options from code, then the environment, then a framework's settings, then the defaults.

        arguments: option name → value; None stands for "not given" where the default is nothing.
        environ: os.environ if None.
        warn: called with one line for each variable that is wrong or unknown.
        settings: like arguments.
        Raises ValueError with the option's name for what is wrong in `arguments` or `settings`.
        """
        if settings is not None and not isinstance(settings, Mapping):
            raise ValueError(f"settings must be a mapping of options, not {type(settings).__name__}")
        environ = os.environ if environ is None else environ
        variables = _read_environment(environ, warn)
        arguments, settings = _check_arguments(arguments), _check_arguments(settings or {})
        if "auth_token" in variables and variables.keys() & _BASIC and not arguments.keys() & _AUTHENTICATION:
            warn("PYPROF_AUTH_TOKEN and PYPROF_BASIC_AUTH_… exclude each other: the token is used")
            _drop(variables, _BASIC)
        _check_kinds(settings)
        given = dict(settings)
        for layer in (variables, arguments):
            if layer.keys() & _AUTHENTICATION:  # one way of it excludes the other of those below
                _drop(given, _BASIC if "auth_token" in layer else {"auth_token"})
            given.update(layer)
        try:
            _check_kinds(given)
        except ValueError:
            if arguments.keys() & _KINDS:
                raise
            warn(
                "PYPROF_CPU, _WALL and _MEMORY are all off: nothing would be profiled; the defaults are used"
            )
            _drop(given, _KINDS)
            given.update({kind: settings[kind] for kind in _KINDS & settings.keys()})
        config = cls.__new__(cls)
        config.__dict__.update(_complete(given, environ))
        return config

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"the configuration cannot be changed ({name})")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"the configuration cannot be changed ({name})")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if isinstance(other, Config) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(tuple(v.items()) if isinstance(v, dict) else v for v in self.__dict__.values()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{option.name}={option.shown(getattr(self, option.name))}" for option in OPTIONS)
        return f"Config({shown})"


def _check_arguments(arguments: Mapping[str, object]) -> dict[str, object]:
    checked: dict[str, object] = {}
    for name, value in arguments.items():
        option = _BY_NAME.get(name)
        if option is None:
            raise ValueError(f"unknown option {name!r}{_hint(str(name), _BY_NAME)}")
        if value is None and option.default is None:
            continue
        checked[name] = option.check(value)
    if "auth_token" in checked and checked.keys() & _BASIC:
        raise ValueError("auth_token excludes basic_auth_user and basic_auth_password: one of the two")
    return checked


def _drop(given: dict[str, object], names: "frozenset[str] | set[str]") -> None:
    for name in names:
        given.pop(name, None)


def _check_kinds(given: Mapping[str, object]) -> None:
    if given.get("cpu", True) or given.get("wall", True):
        return
    if given.get("memory", _BY_NAME["memory"].default) == "off":
        raise ValueError("cpu, wall and memory must not all be off: there is nothing else to profile")


def _read_environment(environ: Mapping[str, str], warn: Callable[[str], object]) -> dict[str, object]:
    given: dict[str, object] = {}
    variables = {option.variable: option for option in OPTIONS}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable.startswith(INTERNAL_PREFIX) or variable in NOT_OPTIONS:
            continue
        option = variables.get(variable)
        if option is None:
            warn(f"unknown environment variable {variable}{_hint(variable, variables)}")
        elif text.strip():  # set but empty is how many tools say "not set"
            try:
                given[option.name] = option.parse(text)
            except ValueError:
                warn(f"{variable}: {option.refusal(text)}; the default is used")
    return given


def _hint(name: str, known: Mapping[str, object]) -> str:
    try:
        from difflib import get_close_matches  # only on this path: a mistake was made
    except Exception:  # what the caller has to say is more than the hint
        return ""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def _complete(given: dict[str, object], environ: Mapping[str, str]) -> dict[str, object]:
    values = {option.name: given.get(option.name, option.default) for option in OPTIONS}
    for name in ("tags", "headers"):
        if values[name] is None:
            values[name] = FrozenPairs()
    if "gil" not in given:
        values["gil"] = "t" not in sys.abiflags
    if values["output"] is not None and not given.keys() & {"exporter", "server_url"}:
        values["exporter"] = "none"
    if values["service_name"] is None:
        values["service_name"] = _default_service_name(environ)
    return values


def _default_service_name(environ: Mapping[str, str]) -> str:
    option = _BY_NAME["service_name"]
    for candidate in (environ.get("OTEL_SERVICE_NAME", ""), program_name()):
        try:
            return str(option.check(candidate))
        except ValueError:
            continue
    return "python"


def program_name() -> str:
    """The script's stem, the module's name under `-m`, else `python`."""
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if isinstance(name, str) and name != "__main__":
        return name.removesuffix(".__main__")
    argv = getattr(sys, "argv", None) or [""]
    if argv[0] == "-m":  # autostart: the module has not been looked for yet
        return _module_of(getattr(sys, "orig_argv", [])).removesuffix(".__main__") or "python"
    if argv[0] in ("", "-", "-c"):
        return "python"
    path = os.path.normpath(argv[0])
    stem = os.path.splitext(os.path.basename(path))[0]
    if stem == "__main__":
        stem = os.path.basename(os.path.dirname(os.path.abspath(path)))
    return stem or "python"


def _module_of(argv: list[str]) -> str:
    """The module that an interpreter's command line runs with `-m`."""
    words = iter(argv[1:])
    for word in words:
        if word.startswith("--"):
            if word == "--check-hash-based-pycs":
                next(words, None)
            continue
        if not word.startswith("-"):
            return ""
        for position, letter in enumerate(word[1:], start=2):
            if letter == "m":
                return word[position:] or next(words, "")
            if letter in "WXc":  # takes the rest of the word, or the next one
                if not word[position:]:
                    next(words, None)
                break
    return ""
