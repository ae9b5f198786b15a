"""`python -m tests.fuzz.run TARGET [SECONDS] [libFuzzer options]`: a coverage-guided search for inputs that break it.

Without arguments: the targets' names.

Starts from the saved corpus and from what earlier runs found (``.fuzz/TARGET``). An input that breaks the target is
written to ``.fuzz/crash-...``; mend the product, and put the input into the corpus.
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
        target((HERE / "corpus" / name / "good").read_bytes())  # for what is imported late; it must pass anyway
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    # Real time, on a machine that may be busy: `guard` has the bound on CPU time.
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
