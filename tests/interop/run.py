"""Interlock through other people's clients: grpcio, grpcio-status, grpcio-health-checking,
grpcio-reflection and buf; and with files in other people's store, a bucket that moto serves. Starts `interlock up` in a
folder of its own and ends it again.

    run.py [WORLD]

INTERLOCK_PROGRAMS is the folder with the program `interlock`, target/debug by default. With WORLD, a file as `up` writes it
(see world.py), nothing is started.

The last line is `N of N held`; the exit code is 0 only if all did.
"""

import pathlib
import sys
import tempfile

import wire

ROOT = pathlib.Path(__file__).resolve().parents[2]
GENERATED = ROOT / "target" / "check" / "interop"


def main() -> int:
    wire.generate(ROOT / "proto" / "proto", GENERATED)
    # They import the generated code.
    import bucket
    import story
    import world

    if len(sys.argv) > 1:
        return story.tell(world.read(pathlib.Path(sys.argv[1])))
    with (
        tempfile.TemporaryDirectory(prefix="interlock-interop-") as folder,
        bucket.serve(pathlib.Path(folder)) as files,
        world.up(pathlib.Path(folder), files.settings()) as running,
    ):
        return story.tell(running, files)


if __name__ == "__main__":
    sys.exit(main())
