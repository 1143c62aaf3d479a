#!/usr/bin/env python3
"""Mutants: small wrong versions of this tree, each of which one named test must catch.

    tests/mutants/run.py             all of them
    tests/mutants/run.py NAME...     some of them
    tests/mutants/run.py --check     only: does each patch still apply?

Each `NAME.patch` here begins with a header, then a diff:

    Mutant: what it does wrong, in a sentence
    Invariant: of RELIABILITY's table, by number
    Killed-by: TEST TARGET and the test's whole name in it

The tree's files are copied to `target/mutants/src`, which is built into `target/mutants/target`; both stay
for the next run, so that a mutant costs the crates that it touches. First each named test must pass there
unmutated; then each mutant is built and its one test must fail. A patch that does not apply, a mutant that
does not build and a test that hangs are failures, too: none of them shows anything. A layer of tests that
kills no mutant is no evidence; the table says which test killed which.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "mutants"
COPY = WORK / "src"
# A build of everything is minutes; the longest test is one.
BUILD_SECONDS, TEST_SECONDS = 3600, 300


class Mutant:
    """One patch and what its header says."""

    def __init__(self, path):
        self.path, self.name = path, path.stem
        said = {}
        for line in path.read_text().splitlines():
            if line.startswith("--- "):
                break
            key, colon, value = line.partition(": ")
            if colon:
                said[key] = value.strip()
        try:
            self.wrong, self.invariant = said["Mutant"], said["Invariant"]
            self.target, self.test = said["Killed-by"].split()
        except (KeyError, ValueError):
            sys.exit(f"{path.name}: its header needs Mutant, Invariant and Killed-by: TARGET TEST")

    def apply(self, *flags):
        """Applies it to the copy. What git says where it does not apply, else nothing."""
        return git_apply(self.path, COPY, *flags)


def git_apply(patch, folder, *flags):
    # Not the repository around the copy: its index knows nothing of these files.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    command = ["git", "apply", *flags, str(patch)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def copy_tree():
    """Makes the copy what the tree is. Files that are the same keep their times: cargo goes by them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode().split("\0")
    wanted = {name for name in listed if name and (ROOT / name).is_file()}
    for name in wanted:
        source, copy = ROOT / name, COPY / name
        contents = source.read_bytes()
        if copy.is_file() and copy.read_bytes() == contents:
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(contents)
        copy.chmod(source.stat().st_mode)
    for copy in COPY.rglob("*"):
        if copy.is_file() and str(copy.relative_to(COPY)) not in wanted:
            copy.unlink()


def build(target):
    """Builds a test target. Its path, or what the compiler said."""
    # Always of the whole workspace: so features stay the same, and dependencies are built once.
    command = ["cargo", "build", "--workspace", "--locked", "--message-format", "json", "--test", target]
    if (COPY / "tests" / "tests" / target).exists() or (COPY / "tests" / "tests" / f"{target}.rs").exists():
        # These start the real programs.
        command.append("--bins")
    environment = {**os.environ, "CARGO_TARGET_DIR": str(WORK / "target")}
    environment.pop("INTERLOCK_PROGRAMS", None)
    done = subprocess.run(
        command, cwd=COPY, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        said = [m["message"]["rendered"] for m in messages if m["reason"] == "compiler-message"]
        return None, None, "".join(said) + done.stderr
    for message in messages:
        if message["reason"] == "compiler-artifact" and message["target"]["name"] == target:
            if message.get("executable") and "test" in message["target"]["kind"]:
                return message["executable"], pathlib.Path(message["manifest_path"]).parent, ""
    return None, None, f"no test target {target}"


def run(executable, folder, test):
    """Runs one test: 'passes', 'fails', 'hangs' or 'is not there'; and what it said."""
    environment = {**os.environ, "RUST_BACKTRACE": "0"}
    environment.pop("INTERLOCK_PROGRAMS", None)
    command = [executable, "--exact", test, "--test-threads", "1"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    ) as process:
        try:
            said, _ = process.communicate(timeout=TEST_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            return "hangs", said
    if "running 1 test" not in said:
        return "is not there", said
    return ("passes" if process.returncode == 0 else "fails"), said


def why(said):
    """The line that says what a failed test saw."""
    lines = [line.strip() for line in said.splitlines()]
    for at, line in enumerate(lines):
        if " panicked at " in line:
            return next((text for text in lines[at + 1 :] if text), line)[:160]
    return "it ended in another way"


def clean_tests(mutants):
    """Each named test on the tree as it is. Those that do not pass there."""
    bad = {}
    for target in sorted({mutant.target for mutant in mutants}):
        executable, folder, said = build(target)
        for test in sorted({mutant.test for mutant in mutants if mutant.target == target}):
            outcome, text = run(executable, folder, test) if executable else ("does not build", said)
            print(f"unmutated  {target} {test}: {outcome}", flush=True)
            if outcome != "passes":
                print(text[-4000:], flush=True)
                bad[target, test] = outcome
    return bad


def judge(mutant):
    """Whether its test kills it, and what to say."""
    said = mutant.apply()
    if said:
        return False, f"does not apply: {said.splitlines()[0]}"
    try:
        executable, folder, said = build(mutant.target)
        if not executable:
            return False, "does not build: " + "\n".join(said.splitlines()[-12:])
        outcome, said = run(executable, folder, mutant.test)
    finally:
        mutant.apply("--reverse")
    if outcome == "fails":
        return True, why(said)
    return False, "survives" if outcome == "passes" else f"its test {outcome}"


def check(mutants):
    """Whether each applies to the tree, and does nothing else."""
    bad = 0
    for mutant in mutants:
        if said := git_apply(mutant.path, ROOT, "--check"):
            print(f"{mutant.name}: {said}")
            bad += 1
    print(f"{len(mutants) - bad} of {len(mutants)} mutants apply")
    return bad == 0


def main():
    asked = argparse.ArgumentParser(description="Mutants that tests must kill.")
    asked.add_argument("names", nargs="*", metavar="NAME")
    asked.add_argument("--check", action="store_true", help="only whether each patch applies")
    arguments = asked.parse_args()
    mutants = [Mutant(path) for path in sorted(HERE.glob("*.patch"))]
    if unknown := set(arguments.names) - {mutant.name for mutant in mutants}:
        sys.exit(f"no such mutant: {', '.join(sorted(unknown))}")
    mutants = [m for m in mutants if not arguments.names or m.name in arguments.names]
    if arguments.check:
        sys.exit(not check(mutants))
    COPY.mkdir(parents=True, exist_ok=True)
    copy_tree()
    bad = clean_tests(mutants)
    rows, killed = [], 0
    for mutant in mutants:
        began = time.monotonic()
        if state := bad.get((mutant.target, mutant.test)):
            dead, said = False, f"its test {state} unmutated"
        else:
            dead, said = judge(mutant)
        killed += dead
        rows.append((mutant, "killed" if dead else "ALIVE", said))
        print(f"{rows[-1][1]:7} {mutant.name} ({time.monotonic() - began:.0f} s): {said}", flush=True)
    print(f"\n{'mutant':34} {'invariant':10} {'':7} by")
    for mutant, state, _ in rows:
        print(f"{mutant.name:34} {mutant.invariant:10} {state:7} {mutant.target} {mutant.test}")
    print(f"\n{killed} of {len(mutants)} mutants killed")
    sys.exit(killed != len(mutants))


if __name__ == "__main__":
    main()
