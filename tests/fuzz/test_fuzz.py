"""Run the fuzz targets without a fuzzer: on every saved input, and on a few hundred mutations by hypothesis."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
SAVED = sorted(path for path in CORPUS.glob("*/*"))
SEEDS = {name: [path.read_bytes() for path in sorted((CORPUS / name).iterdir())] for name in TARGETS}
EXAMPLES = 25

# Likely troublemakers: misplaced syntax, paths, numbers at a limit, control characters.
WORDS = rb"""" } [ { : \u001b \ud800 ../ ..\ /etc/passwd //host/share/ 1e999 .inf *a <<: -1 0x 99999999
    00000000 ffffffff FFFFFFFF""".split()
CHARACTERS = [b"\n", b"\0", b"\x1b[31m", "\x9b2J\u202e\u2028".encode(), b"\xff" * 4, b"a" * 300]
FRAGMENTS = st.sampled_from([*WORDS, *CHARACTERS])
edits = st.tuples(st.floats(0, 1), st.integers(0, 12), FRAGMENTS | st.binary(max_size=8))


@st.composite
def mutations(draw: st.DrawFn, name: str) -> bytes:
    """Return a saved input with a few places changed, or random bytes."""
    data = bytearray(draw(st.sampled_from(SEEDS[name]) | st.binary(max_size=200)))
    for place, deleted, inserted in draw(st.lists(edits, max_size=4)):
        position = round(place * len(data))
        data[position : position + deleted] = inserted
    return bytes(data)


@pytest.mark.parametrize("path", SAVED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_saved_input_is_handled(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_corpus_has_folder_with_good_input_for_every_target() -> None:
    assert {path.parent.name for path in SAVED if path.name == "good"} == set(TARGETS)
    assert {path.parent.name for path in SAVED} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_input_is_handled(name: str) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,  # `guard` limits the CPU time
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutations(name))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()
