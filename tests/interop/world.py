"""A running pair of services and what a client needs to know of it."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import time
import typing

PROGRAMS = pathlib.Path(
    os.environ.get("INTERLOCK_PROGRAMS") or pathlib.Path(__file__).resolve().parents[2] / "target" / "debug"
)
READY_WITHIN_S = 60
DRAINED_WITHIN_S = 30
# Of each log, the last so many characters.
LOG_SHOWN = 8000


@dataclasses.dataclass(frozen=True)
class World:
    """As `interlock up --ready-file` writes it, one JSON object; further keys are ignored."""

    # `https://host:port` of the public listeners.
    auth: str
    gateway: str
    # The certificate of the development CA, PEM.
    ca_file: pathlib.Path
    # Who signs in, and the file that holds the password alone.
    owner: str
    password_file: pathlib.Path
    # A project that the owner may enter, and an agent that it may attach to.
    project_id: str
    agent_id: str

    def password(self) -> str:
        return self.password_file.read_text().strip()


def read(path: pathlib.Path) -> World:
    found = json.loads(path.read_text())
    missing = [f.name for f in dataclasses.fields(World) if f.name not in found]
    if missing:
        raise SystemExit(f"{path} lacks {', '.join(missing)}; it has {', '.join(sorted(found))}")
    world = {f.name: found[f.name] for f in dataclasses.fields(World)}
    for file in ("ca_file", "password_file"):
        world[file] = pathlib.Path(world[file])
    return World(**world)


@contextlib.contextmanager
def up(folder: pathlib.Path, settings: dict[str, str]) -> typing.Iterator[World]:
    """Runs `interlock up` in `folder`, with these settings in its environment, until the block ends; then it must drain
    and exit with 0."""
    program = PROGRAMS / "interlock"
    if not program.exists():
        raise SystemExit(f"no {program}: `cargo build --bins` first, or name its folder in INTERLOCK_PROGRAMS")
    ready, log = folder / "ready.json", folder / "up.log"
    # The user's own configuration stays as it is.
    own = {k: v for k, v in os.environ.items() if not k.startswith("INTERLOCK_")}
    own |= {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config"), **settings}
    command = [program, "up", "--dir", folder / "up", "--ready-file", ready]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        wait_for(ready, process)
        yield read(ready)
    except BaseException:
        for said in (log, folder / "up" / "auth.log", folder / "up" / "gateway.log"):
            if said.exists():
                print(f"--- {said.name}:\n{said.read_text(errors='replace')[-LOG_SHOWN:]}")
        raise
    finally:
        drained = end(process)
    if drained != 0:
        raise SystemExit(f"interlock up ended with {drained} at Ctrl-C:\n{log.read_text(errors='replace')}")


def wait_for(ready: pathlib.Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not ready.exists():
        if process.poll() is not None:
            raise SystemExit(f"interlock up ended with {process.returncode} before it was ready")
        if time.monotonic() > deadline:
            raise SystemExit(f"interlock up wrote no ready file within {READY_WITHIN_S} s")
        time.sleep(0.02)


def end(process: subprocess.Popen) -> int:
    """As Ctrl-C does; by force where it does not drain in time."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(timeout=DRAINED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
