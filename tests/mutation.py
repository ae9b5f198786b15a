"""Mutation testing of a random sample, because all mutants take days: ``python -m tests.mutation [N] [SEED]``.

Has mutmut break each folder of the package in N places, one at a time, and counts how often a test notices. The same
seed takes the same places as long as the code is the same; `mutmut show NAME` shows one.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
from pathlib import Path

MUTANTS = Path("mutants")
MUTMUT = str(Path(sys.executable).with_name("mutmut"))
UNNOTICED = {0: "survived", 33: "no test"}  # exit codes of pytest, and of mutmut

Codes = dict[str, "int | None"]  # by mutant; None before it ran


def results() -> dict[str, Codes]:
    """Return what mutmut knows of each folder's mutants."""
    folders: dict[str, Codes] = {}
    for meta in sorted(MUTANTS.glob("esp_dfu_ext/**/*.meta")):
        folder = meta.parent.relative_to(MUTANTS).as_posix()
        folders.setdefault(folder, {}).update(json.loads(meta.read_text())["exit_code_by_key"])
    return {folder: codes for folder, codes in folders.items() if codes}


def show(known: dict[str, Codes], sample: dict[str, list[str]]) -> None:
    """Print what no test noticed, the share that tests noticed in each folder, and in all, with its 95 % interval."""
    total = sum(map(len, known.values()))
    share = variance = 0.0
    rows = []
    for folder, names in sample.items():
        codes = {name: known[folder][name] for name in names if known[folder][name] is not None}
        unnoticed = {name: UNNOTICED[code] for name, code in codes.items() if code in UNNOTICED}
        for name, what in unnoticed.items():
            print(f"{what:8} {name}")
        if not codes:
            continue
        late = sum(code not in (0, 1, 3, 33) for code in codes.values())
        noticed, weight = 1 - len(unnoticed) / len(codes), len(known[folder]) / total
        rows.append(f"{folder:24} {len(known[folder]):7} {len(codes):6} {late:8} {len(unnoticed):9} {noticed:5.0%}")
        guess = (noticed * len(codes) + 1) / (len(codes) + 2)  # Laplace: a small sample is never certain
        share, variance = share + weight * noticed, variance + weight**2 * guess * (1 - guess) / len(codes)
    print(f"\n{'folder':24} mutants sample time-out unnoticed score", *rows, sep="\n")
    print(f"All {total} mutants: {share:.1%} ± {1.96 * math.sqrt(variance):.1%} are noticed.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("n", type=int, nargs="?", default=20, help="mutants of each folder (20)")
    parser.add_argument("seed", type=int, nargs="?", default=1)
    chosen = parser.parse_args()
    subprocess.run([MUTMUT, "run", "esp_dfu_ext.clock.*"], check=True)  # makes all mutants, and maps tests to them
    sample = {
        folder: random.Random(f"{chosen.seed} {folder}").sample(sorted(codes), min(chosen.n, len(codes)))
        for folder, codes in results().items()
    }
    try:
        subprocess.run([MUTMUT, "run", *(name for names in sample.values() for name in names)], check=True)
    finally:
        show(results(), sample)


if __name__ == "__main__":
    main()
