"""Reading: files, directories, URLs, and one clear line for everything that is wrong with them."""

import gzip
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyprof.pprof import Profile, ProfileError, read, save, write
from pyprof.pprof import decode as decoding
from pyprof.pprof import fetch as fetching

from .profiles import MALFORMED, TOO_LARGE, VALID, gzip_bomb, profiles, talk

Respond = Callable[[BaseHTTPRequestHandler], None]


def refusal(source: str | bytes | Path) -> str:
    """The error line, which is one line."""
    with pytest.raises(ProfileError) as caught:
        read(source)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500
    return message


def read_or_refuse(source: bytes) -> None:
    """Anything but a profile or a ProfileError fails the test."""
    with suppress(ProfileError):
        read(source)


@pytest.mark.parametrize("kind", MALFORMED)
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
def test_malformed(tmp_path: Path, kind: str, compressed: bool) -> None:
    file = tmp_path / "bad.pb.gz"
    file.write_bytes(gzip.compress(MALFORMED[kind]) if compressed else MALFORMED[kind])
    message = refusal(file)
    assert message.startswith(f"{file}: not a pprof profile, or a damaged one (")
    assert message.endswith("is needed")


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_too_large_within(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a lower bound on memory, for speed; test_cli_hostile has the real one."""
    monkeypatch.setattr(decoding, "MAX_MODEL_BYTES", 16 << 20)
    assert refusal(TOO_LARGE[kind]()).startswith("the data: too large (")


def test_names_have_a_bound_of_their_own() -> None:
    assert "more than 32 MiB of names" in refusal(TOO_LARGE["names"]())


def test_the_valid_base_of_these_cases_is_valid() -> None:
    assert [function.name for function in read(VALID).functions()] == ["f"]


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_profile_or_an_error(data: bytes) -> None:
    for candidate in (data, VALID + data, b"\x1f\x8b" + data):
        read_or_refuse(candidate)


@given(profiles(), st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_profile_gives_a_profile_or_an_error(profile: Profile, data: st.DataObject) -> None:
    message = bytearray(write(profile))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    read_or_refuse(bytes(message))


def test_empty(tmp_path: Path) -> None:
    file = tmp_path / "empty.pb.gz"
    file.touch()
    assert refusal(file) == f"{file}: empty, not a pprof profile; record it again"
    file.write_bytes(gzip.compress(b""))
    assert "empty gzip data" in refusal(file)


def test_truncated_and_damaged_gzip(tmp_path: Path) -> None:
    file = tmp_path / "cut.pb.gz"
    whole = write(talk(), compress=True)
    for length in (2, 5, 11, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert refusal(file) == f"{file}: truncated gzip data; copy or record the profile again"
    for position in (len(whole) // 2, len(whole) - 6):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        assert refusal(file) == f"{file}: damaged gzip data; copy or record the profile again"
    file.write_bytes(whole + b"rubbish")
    assert "damaged gzip data" in refusal(file)


def test_gzip_in_several_members_is_one_stream() -> None:
    message = write(talk())
    assert read(gzip.compress(message[:50]) + gzip.compress(message[50:])) == talk()


def test_gzip_bomb() -> None:
    assert "too large (more than 128 MiB uncompressed)" in refusal(gzip_bomb())


def test_one_gigabyte_on_disk(tmp_path: Path) -> None:
    for name, start in (("zeros.pb.gz", b""), ("grown.pb.gz", VALID), ("gz.pb.gz", gzip.compress(VALID))):
        file = tmp_path / name
        file.write_bytes(start)
        os.truncate(file, 1 << 30)
        assert refusal(file).startswith(f"{file}: too large (the file has 1,024 MiB); record a shorter time")


def test_no_such_file_and_no_such_place(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone.pb.gz") == f"{tmp_path / 'gone.pb.gz'}: No such file or directory"
    (tmp_path / "file").touch()
    assert "Not a directory" in refusal(tmp_path / "file" / "x")
    assert "name too long" in refusal(str(tmp_path / ("x" * 300)))
    assert "null" in refusal("a\0b")


def test_a_name_with_control_characters_stays_one_line(tmp_path: Path) -> None:
    assert "two\\nlines\\x1b[2J" in refusal(tmp_path / "two\nlines\x1b[2J")


def test_pipes_devices_and_sockets_are_not_even_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pb")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket.pb"))
    with server:
        for path in (tmp_path / "pipe.pb", tmp_path / "socket.pb", Path("/dev/zero")):
            assert refusal(path) == f"{path}: a pipe, socket or device; write the profile to a file first"


def test_unreadable(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    code = (
        "import os, sys; from pyprof.pprof import ProfileError, read\n"
        "if os.geteuid() == 0: os.setuid(65534)  # root may read everything\n"
        "try: read(sys.argv[1])\n"
        "except ProfileError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        file = Path(directory, "secret.pb.gz")
        file.write_bytes(VALID)
        file.chmod(0)
        assert run_python(code, str(file), check=True).stdout == f"{file}: Permission denied\n"
        Path(directory).chmod(0o700)
        if os.geteuid() == 0:
            assert run_python(code, directory, check=True).stdout == f"{directory}: Permission denied\n"


class TestDirectory:
    def test_is_the_merge_of_its_profiles_in_the_order_of_names(self, tmp_path: Path) -> None:
        for name, pid in (("b.pb.gz", 2), ("a.pb", 1), ("c.pb.gz", 3)):
            profile = talk()
            profile.comments = [f"pid {pid}"]
            save(profile, tmp_path / name)
        (tmp_path / "readme.txt").write_text("not a profile")
        (tmp_path / ".being-written.pb.gz").write_text("not yet a profile")
        merged = read(tmp_path)
        assert merged.comments == ["pid 1", "pid 2", "pid 3"]
        assert merged.total("samples") == 3 * 38
        assert read(str(tmp_path) + "/") == merged

    def test_without_a_profile(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").touch()
        assert refusal(tmp_path) == f"{tmp_path}: no profile in this directory (no *.pb.gz, no *.pb)"

    def test_names_the_file_that_is_bad(self, tmp_path: Path) -> None:
        save(talk(), tmp_path / "a.pb.gz")
        (tmp_path / "b.pb.gz").write_bytes(b"\x1f\x8b\x08")
        assert refusal(tmp_path).startswith(f"{tmp_path / 'b.pb.gz'}: truncated gzip data")
        (tmp_path / "b.pb.gz").unlink()
        (tmp_path / "b.pb.gz").mkdir()
        assert refusal(tmp_path) == f"{tmp_path / 'b.pb.gz'}: a directory, not a profile"
        (tmp_path / "b.pb.gz").rmdir()
        (tmp_path / "b.pb.gz").symlink_to("nowhere")
        assert refusal(tmp_path) == f"{tmp_path / 'b.pb.gz'}: No such file or directory"

    def test_reports_progress(self, tmp_path: Path) -> None:
        for number in range(4):
            save(talk(), tmp_path / f"{number}.pb.gz")
        shares: list[float] = []
        read(tmp_path, progress=shares.append)
        assert shares == [0, 0.25, 0.5, 0.75]


@pytest.fixture
def serve() -> Iterator[Callable[[Respond], str]]:
    """Start a server that answers every GET by the given function; its URL."""
    servers = []

    def start(respond: Respond) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                respond(self)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://user:secret@127.0.0.1:{server.server_port}/debug/pprof/heap?token=secret"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answer(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    try:
        handler.wfile.write(body)
    except OSError:
        pass  # the reader has had enough


class TestUrl:
    def test_is_fetched(self, serve: Callable[[Respond], str]) -> None:
        seen = []

        def respond(handler: BaseHTTPRequestHandler) -> None:
            seen.append((handler.path, handler.headers["Authorization"]))
            answer(handler, write(talk(), compress=True))

        assert read(serve(respond)) == talk()
        assert seen == [("/debug/pprof/heap?token=secret", "Basic dXNlcjpzZWNyZXQ=")]

    def test_content_encoding(self, serve: Callable[[Respond], str]) -> None:
        body = gzip.compress(write(talk()))
        assert read(serve(lambda handler: answer(handler, body, Content_Encoding="gzip"))) == talk()

    @pytest.mark.parametrize(
        ("respond", "expected"),
        [
            (lambda h: answer(h, b"nope", 404), "the server answered 404 Not Found"),
            (lambda h: answer(h, b"<html>hello</html>"), "not a pprof profile"),
            (lambda h: answer(h, b""), "empty, not a pprof profile"),
            (lambda h: answer(h, bytes(129 << 20)), "too large (more than 128 MiB)"),
            (
                lambda h: answer(h, gzip.compress(bytes(300 << 20)), Content_Encoding="gzip"),
                "too large (more than 128 MiB)",
            ),
            (
                lambda h: answer(h, b"", 302, Location="ftp://127.0.0.1/x"),
                "cannot be fetched (InvalidSchema)",
            ),
            (lambda h: h.wfile.write(b"what?\r\n\r\n"), "no connection"),
        ],
        ids=["404", "html", "empty", "large", "bomb", "redirect", "no http"],
    )
    def test_bad_answers(self, serve: Callable[[Respond], str], respond: Respond, expected: str) -> None:
        url = serve(respond)
        message = refusal(url)
        assert expected in message
        assert "secret" not in message
        assert message.startswith(url.replace("user:secret@", "").partition("?")[0])

    def test_nobody_listening(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
        assert refusal(url) == f"{url}: no connection; is the server up and the address right?"

    @pytest.mark.parametrize("url", ["http://", "http://[", "https://:80/", "HTTP://\x1b[2J/"])
    def test_no_address(self, url: str) -> None:
        refusal(url)

    def test_a_server_that_trickles_is_left(
        self, serve: Callable[[Respond], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fetching, "_ANSWER_SECONDS", 0.5)
        left = threading.Event()

        def respond(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.end_headers()
            while not left.wait(0.05):
                try:
                    handler.wfile.write(b"\x0a")
                except OSError:
                    return

        url = serve(respond)
        try:
            assert "no complete answer within" in refusal(url) or "in time" in refusal(url)
        finally:
            left.set()

    def test_time_follows_what_the_url_asks_for(self) -> None:
        extra = fetching._ANSWER_SECONDS
        for query, seconds in (
            ("profile?seconds=90", 90),
            ("profile", 30),
            ("heap", 0),
            ("heap?seconds=x", 0),
            ("heap?seconds=nan", 0),
            ("heap?seconds=-5", 0),
            ("heap?seconds=1e9", 3600),
        ):
            assert fetching._time_limit(f"http://h/debug/pprof/{query}") == extra + seconds
