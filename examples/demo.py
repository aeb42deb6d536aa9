"""What `make demo` runs: profiles the talk's program, then a web shop under load, and shows what came out.

Usage: demo.py [--output DIR] [--talk-seconds S] [--shop-seconds S]
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent


class DemoError(Exception):
    """A step failed; the message says which and what it printed."""


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment without the caller's own pyprof settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYPROF_")}
    return {**kept, **extra}


def python(arguments: Sequence[str], *, timeout: float, cwd: Path = HERE) -> str:
    """Run this interpreter and return its stdout."""
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DemoError(f"{' '.join(arguments)}: no end within {timeout:.0f} s") from error
    if done.returncode != 0:
        raise DemoError(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr.strip()}")
    return done.stdout


def profile_talk(output: Path, seconds: float) -> Path:
    """The talk's program under `pyprof run`."""
    profile = output / "talk.pb.gz"
    program = [str(HERE / "talk.py"), str(seconds)]
    python(["-m", "pyprof", "run", "-o", str(profile), *program], timeout=seconds * 10 + 30)
    return profile


def profile_shop(output: Path, seconds: float) -> Path:
    """The shop, which only labels its requests, under PYPROF_ENABLED=1 and load."""
    profiles = output / "shop"
    environment = clean_environment(
        PYPROF_ENABLED="1", PYPROF_OUTPUT=str(profiles), PYPROF_SERVICE_NAME="shop"
    )
    server = subprocess.Popen(
        [sys.executable, "-m", "shop"],
        cwd=HERE,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        if not url:
            raise DemoError(f"the shop did not start\n{server.communicate(timeout=10)[1].strip()}")
        load = ["-m", "shop.load", url, "--seconds", str(seconds), "--requests", "1000000"]
        result = json.loads(python(load, timeout=seconds + 30))
        note(f"    {result['requests']} requests, median {result['median_ms']:.1f} ms")
        server.send_signal(signal.SIGTERM)
        errors = server.communicate(timeout=15)[1]
    finally:
        if server.poll() is None:
            server.kill()
            server.communicate()
    if server.returncode != 0:
        raise DemoError(f"the shop ended with exit code {server.returncode}\n{errors.strip()}")
    return profiles


def show(title: str, profile: Path, *options: str) -> None:
    """Print a table of a profile as `pyprof top` does."""
    table = python(["-m", "pyprof", "top", str(profile), *options], timeout=60)
    print(f"\n{title}\n\n{table}", flush=True)


def draw(profile: Path, page: Path) -> None:
    """Write the flame graph of a profile."""
    python(["-m", "pyprof", "flame", str(profile), "-o", str(page)], timeout=60)


def main() -> int:
    parser = argparse.ArgumentParser(description="Profile two programs and show what comes out.")
    parser.add_argument("--output", type=Path, default=HERE.parent / "demo-output")
    parser.add_argument("--talk-seconds", type=float, default=8.0, help="CPU seconds of the talk's program")
    parser.add_argument("--shop-seconds", type=float, default=6.0, help="seconds of load on the shop")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    begin = time.monotonic()
    try:
        for old in ("shop", "talk.pb.gz", "talk.html", "shop.html"):
            path = output / old
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        output.mkdir(parents=True, exist_ok=True)
        note(f"[1/2] the talk's program: {arguments.talk_seconds:g} s of CPU under `pyprof run`")
        talk = profile_talk(output, arguments.talk_seconds)
        note(f"[2/2] a web shop: {arguments.shop_seconds:g} s of load under PYPROF_ENABLED=1")
        shop = profile_shop(output, arguments.shop_seconds)
        show("The talk's program, CPU time", talk, "-n", "8")
        show("The shop under load, CPU time", shop, "-n", "20")
        show("The shop under load, CPU time by route", shop, "--by", "endpoint")
        draw(talk, output / "talk.html")
        draw(shop, output / "shop.html")
    except (DemoError, OSError) as error:
        note(f"demo: {error}")
        return 1
    print("Flame graphs, for any browser:")
    for page in ("talk.html", "shop.html"):
        print(f"    {output / page}")
    note(f"({time.monotonic() - begin:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
