"""Mutation testing of a random sample: ``python -m tests.mutation [N] [SEED] [--minutes M] [--only PART]``.

Works in a copy of the checkout. First it runs the suite once and notes which lines each test runs, and how long it
takes. Then it breaks the package (all but ui/) in N random places, one at a time, and runs the tests of that line,
those that are most about it first, until one fails. The same seed takes the same places as long as the code is the
same. A changed wording is not a mutant. Needs Python 3.12 or newer.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import itertools
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("esp_dfu_ext", "tests", "targets", "docs", "components", "benchmarks")
SUITE = ["tests", "--ignore=tests/fuzz", "--ignore=tests/real_usb"]  # without random searches
PRELOADED = ("esptool", "hypothesis", "jsonschema", "pyte", "rich.progress", "rich.table", "usb.core", "yaml")
ALREADY_IMPORTED = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
FIRST = 30  # tests; most mutants do not survive them
ENOUGH = 30.0  # seconds of further tests for one mutant
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


# --- what each test runs: a plugin for the first run of the suite -----------------------------------------------


@dataclass
class Coverage:
    """What each test runs.

    Attributes:
        lines: Lines of the package, as ``module.py:12``, by test.
        seconds: How long each test took; only those that passed.
        processes: Tests that start other programs, whose lines are not seen.
    """

    lines: dict[str, list[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    processes: list[str] = field(default_factory=list)


class Recorder:
    """Plugin for pytest that writes a `Coverage` to a file."""

    def __init__(self, package: Path, file: Path) -> None:
        self._prefix, self._file, self._coverage = f"{package}/", file, Coverage()
        self._lines: set[str] = set()
        self._forked = False
        monitoring: Any = getattr(sys, "monitoring")  # noqa: B009 (of Python 3.12)
        self._monitoring = monitoring
        monitoring.use_tool_id(monitoring.COVERAGE_ID, "tests.mutation")
        monitoring.register_callback(monitoring.COVERAGE_ID, monitoring.events.LINE, self._line)
        monitoring.set_events(monitoring.COVERAGE_ID, monitoring.events.LINE)
        sys.addaudithook(self._audit)

    def _line(self, code: object, line: int) -> object:
        name: str = code.co_filename  # type: ignore[attr-defined]
        if name.startswith(self._prefix):
            self._lines.add(f"{name[len(self._prefix) :]}:{line}")
        return self._monitoring.DISABLE  # once a test is enough

    def _audit(self, event: str, arguments: object) -> None:
        self._forked |= event in ("subprocess.Popen", "os.fork", "os.posix_spawn")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._lines, self._forked, began = set(), False, time.monotonic()
        self._monitoring.restart_events()
        result = yield
        self._coverage.lines[item.nodeid] = sorted(self._lines)
        self._coverage.processes += [item.nodeid] if self._forked else []
        self._coverage.seconds.setdefault(item.nodeid, time.monotonic() - began)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self._coverage.seconds[report.nodeid] = math.inf

    def pytest_sessionfinish(self) -> None:
        passed = {test: seconds for test, seconds in self._coverage.seconds.items() if seconds < math.inf}
        self._coverage.seconds = passed
        self._file.write_text(json.dumps(vars(self._coverage)))


# --- mutants ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """One place of the package that is broken.

    Attributes:
        module: Path of the file within the package.
        line: Its line; 0 for what runs at import.
        start: First byte that is replaced; `end`: the one after the last.
        text: What replaces it.
    """

    module: str
    line: int
    start: int
    end: int
    text: str

    def apply(self, source: bytes) -> bytes:
        """Return the broken file."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def show(self, source: bytes) -> str:
        """Return what was replaced, in one line."""
        number = source.count(b"\n", 0, self.start) + 1
        was = " ".join(source[self.start : self.end].decode().split())
        return f"{self.module}:{number}: {was[:70]} -> {' '.join(self.text.split())[:70]}"


def mutants_of(module: str, source: bytes) -> list[Mutant]:
    """Return all mutants of a file."""
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []

    def visit(node: ast.AST, line: int, annotation: bool = False) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            for child in ast.iter_child_nodes(node):
                is_body = child in (node.body if isinstance(node.body, list) else [node.body])
                visit(child, child.lineno if is_body else 0, annotation=not is_body)  # type: ignore[attr-defined]
            return
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.stmt) and line:
            line = node.lineno
        if not annotation and isinstance(node, (ast.stmt, ast.expr)):
            for at, text in broken(node):
                begin = starts[at.lineno - 1] + at.col_offset
                end = starts[at.end_lineno - 1] + at.end_col_offset  # type: ignore[operator]
                found.append(Mutant(module, line, begin, end, text))
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not isinstance(node, ast.JoinedStr):
                    visit(child, line, annotation or name in ("annotation", "returns", "decorator_list"))

    visit(tree, 0)
    return found


def broken(node: ast.stmt | ast.expr) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
    """Yield what to replace at a node, and by what."""
    if isinstance(node, (ast.BoolOp, ast.BinOp)) and type(node.op) in SWAPS:
        yield node, f"({ast.unparse(_with(node, op=SWAPS[type(node.op)]()))})"
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield node, f"({ast.unparse(_with(node, ops=[SWAPS[type(node.ops[0])](), *node.ops[1:]]))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Constant):
        yield from ((node, text) for text in _other(node.value))
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield node.test, f"(not ({ast.unparse(node.test)}))"
    elif isinstance(node, ast.Return) and node.value is not None and not _is(node.value, None):
        yield node, "return None"
    elif isinstance(node, (ast.Break, ast.Continue)):
        yield node, "continue" if isinstance(node, ast.Break) else "break"
    elif _has_effect(node):
        yield node, "pass"
    elif isinstance(node, ast.Call) and node.keywords and node.keywords[-1].arg:
        yield node, ast.unparse(_with(node, keywords=node.keywords[:-1]))


def _has_effect(node: ast.stmt | ast.expr) -> bool:
    """Return whether a statement does something, other than to give a name to a value."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, (ast.Call, ast.Yield))
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], (ast.Attribute, ast.Subscript))
    return isinstance(node, (ast.Raise, ast.AugAssign))


def _with(node: ast.expr, **changed: object) -> ast.expr:
    return type(node)(**{**dict(ast.iter_fields(node)), **changed})


def _is(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _other(value: object) -> list[str]:
    if isinstance(value, bool):
        return [str(not value)]
    if isinstance(value, (int, float)):
        return [repr(value + 1)]
    if isinstance(value, str) and value and not any(c.isspace() for c in value):  # a name, not a wording
        return [repr(f"X{value}")]
    return []


# --- the run ----------------------------------------------------------------------------------------------------


class Copy:
    """A copy of the checkout to break."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.package = folder, folder / "esp_dfu_ext"
        self._changes = 1_000_000_000
        ignored = shutil.ignore_patterns("__pycache__", "_build", "*.so")
        for name in COPIED:
            shutil.copytree(ROOT / name, folder / name, ignore=ignored, symlinks=True)
        for path in ROOT.iterdir():
            if path.is_file() and not path.name.startswith("."):
                shutil.copy2(path, folder)
        shutil.copytree(ROOT / ".ci", folder / ".ci")

    def pytest(self, arguments: list[str], limit: float) -> int | None:
        """Run pytest in the copy and return its exit code, or None if it took too long."""
        process = os.fork()
        if not process:
            self._become_pytest(arguments)
        end = time.monotonic() + limit
        while time.monotonic() < end:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return None

    def _become_pytest(self, arguments: list[str]) -> NoReturn:
        """End this fork as pytest; what it imports was imported before, but for the package and its tests."""
        try:
            os.setsid()
            os.chdir(self.folder)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(nowhere, number)
            os.environ["PYTHONPATH"] = str(self.folder)
            sys.path.insert(0, str(self.folder))
            for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "esp_dfu_ext")]:
                del sys.modules[name]
            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *ALREADY_IMPORTED, *arguments]))
        except BaseException:
            code = 1
        os._exit(code)

    @contextmanager
    def broken(self, mutant: Mutant, source: bytes) -> Iterator[None]:
        """Have a file broken for a while; its time of change tells Python that its bytecode is outdated."""
        file = self.package / mutant.module
        before = file.stat()
        self._changes += 1
        file.write_bytes(mutant.apply(source))
        os.utime(file, (self._changes, self._changes))
        try:
            yield
        finally:
            file.write_bytes(source)
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    def coverage(self) -> Coverage:
        """Run the whole suite once and return what each test runs."""
        file = self.folder / "coverage.json"
        code = (
            "import sys, pathlib, pytest; from tests.mutation import Recorder; "
            f"sys.exit(pytest.main(sys.argv[1:], [Recorder(pathlib.Path({str(self.package)!r}), "
            f"pathlib.Path({str(file)!r}))]))"
        )
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        with (self.folder / "suite.log").open("w") as log:
            subprocess.run(
                [sys.executable, "-c", code, *SUITE, "-p", "no:cacheprovider"],
                cwd=self.folder, env=environment, check=False, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        return Coverage(**json.loads(file.read_text()))


def tests_of(mutant: Mutant, known: Coverage) -> Iterator[list[str]]:
    """Yield the tests of a mutant's line, in two runs: a few that are most about it, then more, within `ENOUGH`.

    Tests that start programs may run the line there, so they come last.
    """
    place, stem = f"{mutant.module}:{mutant.line or ''}", Path(mutant.module).stem
    direct = {
        test
        for test, lines in known.lines.items()
        if (place in lines if mutant.line else any(line.startswith(place) for line in lines))
    }
    order = [
        *sorted(direct & set(known.seconds), key=lambda test: (f"test_{stem}" not in test, len(known.lines[test]))),
        *sorted(set(known.processes) & set(known.seconds) - direct, key=known.seconds.__getitem__),
    ]
    for run in (order[:FIRST], order[FIRST:]):
        total = itertools.accumulate(known.seconds[test] for test in run)
        chosen = [test for test, seconds in zip(run, total) if seconds <= ENOUGH]
        if chosen:
            yield chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("n", type=int, nargs="?", default=200, help="mutants (200)")
    parser.add_argument("seed", type=int, nargs="?", default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many")
    parser.add_argument("--only", default="", help="modules whose path within the package begins with this")
    parser.add_argument("--coverage", type=Path, help="file to take the coverage from, or to write it to")
    chosen = parser.parse_args()
    end = time.monotonic() + 60 * chosen.minutes
    for module in PRELOADED:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        copy = Copy(Path(name))
        sources = {
            module: path.read_bytes()
            for path in sorted(copy.package.rglob("*.py"))
            if not (module := path.relative_to(copy.package).as_posix()).startswith(("ui/", "extra_actions/"))
        }
        everything = [m for module in sources for m in mutants_of(module, sources[module])]
        possible = [mutant for mutant in everything if mutant.module.startswith(chosen.only)]
        sample = random.Random(chosen.seed).sample(possible, min(chosen.n, len(possible)))
        if chosen.coverage is not None and chosen.coverage.is_file():
            known = Coverage(**json.loads(chosen.coverage.read_text()))
        else:
            known = copy.coverage()
            if chosen.coverage is not None:
                chosen.coverage.write_text(json.dumps(vars(known)))
        (copy.folder / "tests.txt").write_text("\n".join(sorted(known.seconds, key=known.seconds.__getitem__)[:FIRST]))
        if copy.pytest([f"@{copy.folder / 'tests.txt'}"], 300):
            raise RuntimeError("tests fail that passed before anything was broken")
        skipped = len(known.lines) - len(known.seconds)
        print(f"{len(known.seconds)} tests, {skipped} skipped or failed; {len(possible)} mutants", flush=True)
        outcomes: dict[str, int] = dict.fromkeys(("failed", "time-out", "survived", "no test"), 0)
        for number, mutant in enumerate(sample, 1):
            if time.monotonic() > end:
                break
            outcome = run(mutant, sources[mutant.module], copy, known)
            outcomes[outcome] += 1
            print(f"{number:4} {outcome:8} {mutant.show(sources[mutant.module])}", flush=True)
    total = sum(outcomes.values())
    noticed = outcomes["failed"] + outcomes["time-out"]
    share = (noticed + 1) / (total + 2)  # Laplace: a small sample is never certain
    error = 1.96 * math.sqrt(share * (1 - share) / total)
    print(f"\n{outcomes}\n{noticed} of {total} are noticed: {noticed / total:.1%} ± {error:.1%}")


def run(mutant: Mutant, source: bytes, copy: Copy, known: Coverage) -> str:
    """Run a mutant's tests and return what came of it."""
    listed, outcome = copy.folder / "tests.txt", "no test"
    for tests in tests_of(mutant, known):
        listed.write_text("\n".join(tests))
        with copy.broken(mutant, source):
            code = copy.pytest([f"@{listed}"], 60 + 10 * sum(known.seconds[test] for test in tests))
        if code not in (None, 0, 1) and copy.pytest(["--collect-only", f"@{listed}"], 300):  # not because of the mutant
            raise RuntimeError(f"pytest cannot collect the tests in {listed}")
        outcome = "time-out" if code is None else "survived" if code == 0 else "failed"
        if outcome != "survived":
            break
    return outcome


if __name__ == "__main__":
    main()
