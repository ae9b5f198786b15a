"""Search for inputs that break a target, guided by coverage.

    python -m tests.fuzz.run TARGET [SECONDS] [libFuzzer options]

Without arguments it prints the names of the targets. The search starts from the saved corpus and the finds of earlier
runs (``.fuzz/TARGET``), and writes an input that breaks the target to ``.fuzz/crash-...``. Fix the package, and add
the input to the corpus.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
FOUND = HERE.parent.parent / ".fuzz"


def main(name: str, seconds: str = "60", *options: str) -> None:
    """Run libFuzzer; it ends the process."""
    import atheris

    with atheris.instrument_imports(include=["esp_dfu_ext", "usb", "esptool.bin_image"]):
        from .targets import TARGETS

        target = TARGETS[name]
        target((HERE / "corpus" / name / "good").read_bytes())  # for late imports; it must pass anyway
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    # In real time, on a machine that may be busy; `guard` limits the CPU time.
    settings = ["-timeout=120", "-report_slow_units=60"]
    settings += [f"-max_total_time={seconds}", "-rss_limit_mb=1024", "-max_len=8192"]
    settings += [f"-artifact_prefix={FOUND}/", "-print_final_stats=1", *options]
    atheris.Setup([sys.argv[0], str(found), str(HERE / "corpus" / name), *settings], target)
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(*sys.argv[1:])
    else:
        print(*sorted(path.name for path in (HERE / "corpus").iterdir()), sep="\n")
