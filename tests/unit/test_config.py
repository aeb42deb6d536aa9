import math
import os
import pickle
import sysconfig
from pathlib import Path

import pytest

from pyprof.config import OPTIONS, Config, Option

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
SECRET = "hunter2-and-more"


def load(arguments=None, environ=None):
    warnings: list[str] = []
    return Config.load(arguments or {}, environ or {}, warnings.append), warnings


def option(name: str) -> Option:
    return next(o for o in OPTIONS if o.name == name)


def test_table_and_attributes_agree():
    assert [o.name for o in OPTIONS] == list(Config.__annotations__)
    assert len({o.name for o in OPTIONS}) == len(OPTIONS)
    for o in OPTIONS:
        assert o.help
        assert o.variable == "PYPROF_" + o.name.upper()
        assert o.flag == "--" + o.name.replace("_", "-")


def test_defaults_pass_their_own_checks():
    for o in OPTIONS:
        if o.default is not None:
            assert o.check(o.default) == o.default


def test_defaults():
    config, warnings = load()
    assert warnings == []
    assert (config.exporter, config.server_url) == ("pyroscope", "http://localhost:4040")
    assert (config.sample_rate, config.upload_interval, config.max_frames) == (100, 10, 256)
    assert config.max_overhead == 0.01
    assert (config.timeout, config.exit_timeout, config.ring_windows) == (10, 2, 6)
    assert (config.cpu, config.wall, config.memory, config.engine) == (True, True, "hook", "auto")
    assert config.gil is not FREE_THREADED
    assert (config.enabled, config.strict, config.output) == (False, False, None)
    assert config.flush_on_sigterm is False
    assert config.tags == {}
    assert config.headers == {}


VALID = {
    "service_name": ["checkout", "naïve-über"],
    "enabled": [True, False],
    "exporter": ["none", "pyroscope"],
    "server_url": ["https://example.org/base", "http://[::1]:4040", "HTTP://u:p@host:1"],
    "output": ["x.pb.gz", Path("profiles")],
    "sample_rate": [1, 10_000, 99.5],
    "upload_interval": [0.1, 10, 3600],
    "engine": ["auto", "gilfree", "current_frames"],
    "cpu": [True, False],
    "wall": [True, False],
    "gil": [True, False],
    "memory": ["off", False, "hook", True],
    "memory_period": [1, 524288, 1 << 40],
    "memory_oom_threshold": [0.01, 0.9, 1],
    "thread_labels": [True, False],
    "task_labels": [True, False],
    "task_wall": [True, False],
    "max_frames": [1, 1000],
    "max_overhead": [0.0001, 0.01, 1],
    "label_values_max": [1, 1000, 1_000_000],
    "ring_windows": [1, 1024],
    "tags": [{"region": "eu", "_x1": "ä"}, "region=eu,zone=a", {}],
    "auth_token": ["abc.def"],
    "basic_auth_user": ["user"],
    "basic_auth_password": ["pass:word"],
    "tenant_id": ["team-a"],
    "headers": [{"X-Extra": "1"}, "X-Extra=1"],
    "timeout": [0.1, 10],
    "exit_timeout": [0, 2.5],
    "flush_on_sigterm": [True, False],
    "strict": [True, False],
    "log_level": ["debug", "critical"],
}

# Wrong for every option that is not listed in ANY_TEXT.
WRONG_TYPES = [
    b"bytes",
    Ellipsis,  # stands for any object; its repr is the same in every process of pytest-xdist
    [],
    {1: 2},
    1j,
    math.nan,
    math.inf,
    -math.inf,
    10**400,
    -(10**400),
    "\ud800",
]
WRONG = {
    "service_name": ["", "   ", "a\nb", "x" * 3000, 1, True],
    "enabled": [1, 0, "on", "true"],
    "exporter": ["jaeger", "", True],
    "server_url": [
        "localhost:4040", "ftp://host", "http://", "http:///path", "http://:80", "http://host:0",
        "http://host:65536", "http://host:8o", "http://host:", "http://host/?q=1", "http://host/#f",
        "http://ho st", "http://[::1", "http://a\r\nb", 1,
    ],
    "output": ["", " ", "a\0b", 1],
    "sample_rate": [0, 0.99, 10_001, -1, "100", True, None],
    "upload_interval": [0, 3601, "10", True],
    "engine": ["gil-free", "AUTO", True],
    "cpu": [1, "off", None],
    "wall": [0, "on", None],
    "gil": [1, "on", None],
    "memory": ["hooks", "on", 1, None],
    "memory_period": [0, (1 << 40) + 1, 1.5, "1", True, None],
    "memory_oom_threshold": [0, 1.01, "0.9", True, None],
    "thread_labels": [1, "on", None],
    "task_labels": [1, "on", None],
    "task_wall": [1, "on", None],
    "max_frames": [0, 1001, 256.0, "256", True],
    "max_overhead": [0, 0.00009, 1.01, -0.01, "0.01", "1%", True, None],
    "label_values_max": [0, 1_000_001, 1000.0, "1000", True, None],
    "ring_windows": [0, 1025, 6.0, True],
    "tags": [
        {"a-b": "x"}, {"1a": "x"}, {"": "x"}, {"é": "x"}, {"__name__": "x"}, {"service_name": "x"},
        {"a": ""}, {"a": 1}, {"a": "x\ny"}, "a", "a=1,a=2", {f"t{i}": "x" for i in range(25)},
        {"a": "x" * 2049}, {"n" * 1025: "x"},
    ],
    "auth_token": ["", "a\r\nX-Evil: 1", "tökén", 1],
    "basic_auth_user": ["", "a:b", "a\nb", 1],
    "basic_auth_password": ["", "a\r\nb", 1],
    "tenant_id": ["", "a\nb", 1],
    "headers": [
        {"X-A": "a\r\nX-B: 1"}, {"X-A": "a\nb"}, {"X A": "1"}, {"X-A\r\n": "1"}, {"": "1"}, {"X-A": 1},
        {"Content-Type": "x"}, {"X-A": ""}, "X-A",
    ],
    "timeout": [0, 601, True, "10"],
    "exit_timeout": [-0.1, 301, True],
    "flush_on_sigterm": [1, "yes"],
    "strict": [1, "yes"],
    "log_level": ["loud", 10, None],
}  # fmt: skip


def test_every_option_has_cases():
    assert set(VALID) == set(WRONG) == {o.name for o in OPTIONS}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in VALID.items() for v in values], ids=repr)
def test_valid_arguments(name, value):
    config, warnings = load({name: value})
    assert warnings == []
    assert option(name).check(getattr(config, name)) == getattr(config, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [(n, v) for n, values in WRONG.items() for v in [*values, *WRONG_TYPES]],
    ids=lambda v: ascii(v)[:30] if not isinstance(v, int) or abs(v) < 10**20 else "huge",
)
def test_wrong_arguments_are_value_errors_that_name_the_option(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be ") as caught:
        load({name: value})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_value_with_a_broken_repr_or_fspath():
    class Broken(os.PathLike):
        def __fspath__(self):
            raise RuntimeError("no path")

        def __repr__(self):
            raise RuntimeError("no repr")

    with pytest.raises(ValueError, match=r"^output must be .*a value of type Broken"):
        load({"output": Broken()})


def test_none_means_not_given_where_the_default_is_nothing():
    config, _ = load({"service_name": None, "auth_token": None, "tags": None}, {"PYPROF_AUTH_TOKEN": "t"})
    assert config.auth_token == "t"


def test_unknown_option_from_code():
    with pytest.raises(ValueError, match=r"unknown option 'sample_rat' \(did you mean sample_rate\?\)"):
        load({"sample_rat": 1})


def test_no_kind_at_all():
    nothing = "cpu, wall and memory must not all be off"
    with pytest.raises(ValueError, match=nothing):
        Config(cpu=False, wall=False, memory="off")
    with pytest.raises(ValueError, match=nothing):
        load({"cpu": False}, {"PYPROF_WALL": "0", "PYPROF_MEMORY": "off"})
    config, [warning] = load(environ={"PYPROF_CPU": "0", "PYPROF_WALL": "0", "PYPROF_MEMORY": "0"})
    assert (config.cpu, config.wall, config.memory) == (True, True, "hook")
    assert warning.startswith("PYPROF_CPU, _WALL and _MEMORY are all off")
    assert Config(cpu=False, wall=False).memory == "hook"


@pytest.mark.parametrize("text", ["1", "true", "YES", " on "])
def test_boolean_words_on(text):
    assert load(environ={"PYPROF_STRICT": text})[0].strict is True


@pytest.mark.parametrize("text", ["0", "False", "no", "OFF"])
def test_boolean_words_off(text):
    config, warnings = load(environ={"PYPROF_CPU": text, "PYPROF_MEMORY": text})
    assert (config.cpu, config.memory, warnings) == (False, "off", [])


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("sample_rate", " 250 ", 250.0),
        ("sample_rate", "1e2", 100.0),
        ("max_frames", "12", 12),
        ("timeout", "0.5", 0.5),
        ("tags", "a=1, b = x=y ,", {"a": "1", "b": "x=y"}),
        ("headers", "X-A=1,X-B=two", {"X-A": "1", "X-B": "two"}),
        ("engine", "AUTO", "auto"),
        ("output", "/tmp/x", "/tmp/x"),
    ],
)
def test_environment_values(name, text, value):
    config, warnings = load(environ={option(name).variable: text})
    assert getattr(config, name) == value
    assert warnings == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sample_rate", "fast"), ("sample_rate", "nan"), ("sample_rate", "1_000"), ("sample_rate", "٣"),
        ("sample_rate", "1e999"), ("sample_rate", "-1"), ("max_frames", "1_0"), ("max_frames", "10.0"),
        ("max_frames", "9" * 5000), ("max_frames", "٣"), ("strict", "maybe"), ("strict", "2"),
        ("memory", "heap"), ("memory_period", "0"), ("memory_oom_threshold", "90"),
        ("tags", "a"), ("tags", "a=1,a=2"), ("server_url", "host"), ("exporter", "x"),
        ("service_name", "\udc80"), ("headers", "X-A=\udc80"), ("log_level", "loud"), ("timeout", "inf"),
        ("output", "\0"),
    ],
    ids=ascii,
)  # fmt: skip
def test_wrong_environment_is_one_warning_and_the_default(name, text):
    config, warnings = load(environ={option(name).variable: text})
    assert config == load()[0]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{option(name).variable}: {name} must be ")
    assert warnings[0].endswith("; the default is used")


def test_an_empty_variable_is_not_set():
    assert load(environ={"PYPROF_SAMPLE_RATE": "", "PYPROF_TAGS": " "}) == (load()[0], [])


def test_unknown_variable_is_one_warning_with_the_nearest_name():
    _, warnings = load(
        environ={"PYPROF_SAMPLERATE": "1", "PYPROF_PORTABLE": "1", "PYPROF__STATE": "1", "HOME": "/"}
    )
    assert warnings == ["unknown environment variable PYPROF_SAMPLERATE (did you mean PYPROF_SAMPLE_RATE?)"]


def test_code_wins_over_environment():
    environ = {"PYPROF_SAMPLE_RATE": "50", "PYPROF_MAX_FRAMES": "50"}
    config, _ = load({"sample_rate": 10}, environ)
    assert (config.sample_rate, config.max_frames) == (10, 50)


def test_output_alone_pushes_nothing():
    assert load({"output": "x"})[0].exporter == "none"
    assert load(environ={"PYPROF_OUTPUT": "x"})[0].exporter == "none"
    assert load({"output": "x", "exporter": "pyroscope"})[0].exporter == "pyroscope"
    assert load({"output": "x"}, {"PYPROF_EXPORTER": "pyroscope"})[0].exporter == "pyroscope"
    assert load({"output": "x"}, {"PYPROF_SERVER_URL": "http://h"})[0].exporter == "pyroscope"


def test_token_and_basic_auth_exclude_each_other():
    with pytest.raises(ValueError, match=r"^auth_token excludes basic_auth_user"):
        load({"auth_token": "t", "basic_auth_user": "u"})
    basic = {"PYPROF_BASIC_AUTH_USER": "u", "PYPROF_BASIC_AUTH_PASSWORD": "p"}
    config, warnings = load(environ={"PYPROF_AUTH_TOKEN": "t", **basic})
    assert (config.auth_token, config.basic_auth_user, len(warnings)) == ("t", None, 1)
    config, warnings = load({"auth_token": "code"}, basic)
    assert (config.auth_token, config.basic_auth_user, config.basic_auth_password, warnings) == (
        "code",
        None,
        None,
        [],
    )
    config, warnings = load({"basic_auth_user": "code"}, {"PYPROF_AUTH_TOKEN": "t"})
    assert (config.auth_token, config.basic_auth_user, warnings) == (None, "code", [])


def test_the_environment_wins_over_settings_and_code_over_both():
    """Seen to fail: with settings laid over the environment."""
    settings = {"sample_rate": 1, "max_frames": 1, "ring_windows": 1}
    environ = {"PYPROF_MAX_FRAMES": "2", "PYPROF_RING_WINDOWS": "2"}
    config = Config.load({"ring_windows": 3}, environ, settings=settings)
    assert (config.sample_rate, config.max_frames, config.ring_windows) == (1, 2, 3)


def test_settings_are_checked_like_code():
    for settings in ({"sample_rate": "fast"}, {"cpu": False, "wall": False, "memory": "off"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            Config.load({}, {}, settings=settings)
    with pytest.raises(ValueError, match=r"^settings must be a mapping"):
        Config.load({}, {}, settings=["sample_rate"])
    warnings: list[str] = []
    config = Config.load({}, {"PYPROF_CPU": "0", "PYPROF_MEMORY": "0"}, warnings.append, {"wall": False})
    assert ((config.cpu, config.wall, config.memory), len(warnings)) == ((True, False, "hook"), 1)


def test_one_way_of_authentication_excludes_the_other_of_settings():
    config = Config.load({}, {"PYPROF_AUTH_TOKEN": "t"}, settings={"basic_auth_user": "u"})
    assert (config.auth_token, config.basic_auth_user) == ("t", None)
    config = Config.load({"basic_auth_user": "u"}, {}, settings={"auth_token": "t"})
    assert (config.auth_token, config.basic_auth_user) == (None, "u")


def test_secrets_are_masked_everywhere():
    environ = {
        "PYPROF_BASIC_AUTH_PASSWORD": SECRET,
        "PYPROF_BASIC_AUTH_USER": "user",
        "PYPROF_SERVER_URL": f"http://user:{SECRET}@host/x",
        "PYPROF_HEADERS": f"X-Api-Key={SECRET}",
    }
    config, warnings = load(environ=environ)
    assert warnings == []
    assert SECRET not in repr(config)
    assert "'X-Api-Key': '****'" in repr(config)
    assert "'http://****@host/x'" in repr(config)
    assert SECRET not in repr(load({"auth_token": SECRET})[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("auth_token", SECRET + "\n"),
        ("auth_token", SECRET + "\nx"),
        ("basic_auth_password", SECRET + "\nx"),
        ("headers", {"X-A": SECRET + "\nx"}),
        ("headers", {"X-A": SECRET, "bad name": "x"}),
        ("server_url", f"ftp://u:{SECRET}@host"),
        ("server_url", f"u:{SECRET}@host"),
        ("server_url", f"http://u:{SECRET}@host:99999"),
    ],
)
def test_refusals_repeat_no_secret(name, value):
    if value != SECRET + "\n":  # whose end is stripped
        with pytest.raises(ValueError, match=rf"^{name} must be ") as caught:
            load({name: value})
        assert SECRET not in str(caught.value)
        assert SECRET not in repr(caught.value.__cause__)
        assert caught.value.__suppress_context__
    text = ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value
    _, warnings = load(environ={option(name).variable: text})
    assert SECRET not in "".join(warnings)


def test_config_is_immutable():
    tags = {"a": "b"}
    config, _ = load({"tags": tags})
    tags["a"] = "c"
    assert config.tags == {"a": "b"}
    with pytest.raises(AttributeError):
        config.sample_rate = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del config.sample_rate
    with pytest.raises(TypeError):
        config.tags["a"] = "c"  # type: ignore[index]
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(load({"tags": {"a": "b"}})[0])
    assert config != load({"tags": {"a": "c"}})[0]


def test_service_name_from_otel():
    environ = {"OTEL_SERVICE_NAME": "otel"}
    assert load(environ=environ)[0].service_name == "otel"
    assert load({"service_name": "code"}, environ)[0].service_name == "code"
    assert load(environ={**environ, "PYPROF_SERVICE_NAME": "own"})[0].service_name == "own"
