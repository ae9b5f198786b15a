"""`dfu-doctor`: check everything needed for flashing, and say what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..doctor.advice import Step, steps_after
from ..doctor.diagnosis import Diagnosis, diagnose
from ..doctor.environment import Plugin
from ..doctor.findings import Level
from ..errors import EspDfuError
from ..inputs.build_files import has_file
from ..inputs.esp_idf import DFU_BIN, FLASHER_ARGS
from ..target import builtin_folder, read_target
from ..ui import documents
from ..ui.text import Styled
from .session import Session

PROBLEM = 1  # exit code; sysexits.h has none for "some check failed"

_WORDS = {Level.OK: ("ok", "green"), Level.PROBLEM: ("PROBLEM", "bold red"), Level.NOT_APPLICABLE: ("-", "")}


def doctor(
    session: Session,
    build_dir: Path,
    *,
    named: bool = False,
    plugin: Plugin | None = None,
    as_json: bool = False,
) -> int:
    """Show the diagnosis; return 0 without problems, else 1. A build folder that was `named` must exist.

    The project's folder will do in place of its build folder, as for `build`.
    """
    if named and not has_file(build_dir / FLASHER_ARGS) and has_file(build_dir / "build" / FLASHER_ARGS):
        build_dir = build_dir / "build"
    broken: list[EspDfuError] = []
    try:
        targets = session.targets(on_broken=broken.append)
    except EspDfuError as error:
        broken.append(error)
        targets = [read_target(path) for path in sorted(builtin_folder().glob("*.yaml"))]
    simulation = session.make_simulation(targets)
    diagnosis = diagnose(
        targets,
        build_dir=build_dir,
        named=named,
        project_dir=session.project_dir,
        plugin=plugin,
        broken=broken,
        bus=session.open_bus(simulation),
        simulated=simulation is not None,
        machine=session.machine,
    )
    session.name_project(build_dir)
    if diagnosis.target is not None:
        session.name_image(build_dir / DFU_BIN)
    steps = steps_after(diagnosis.findings, session.names, diagnosis.target, targets)
    if as_json:
        session.console.data(documents.to_json(_document(diagnosis, steps)))
    else:
        _show(session, diagnosis, steps)
    return PROBLEM if diagnosis.problems else 0


def _show(session: Session, diagnosis: Diagnosis, steps: list[Step]) -> None:
    rows = []
    for finding in diagnosis.findings:
        word, style = _WORDS[finding.level]
        code = f" [{finding.code}]" if finding.code else ""
        rows.append((Styled(word, style), finding.topic, f"{finding.text}{code}"))
    session.console.table(["", "Check", "Result"], rows)
    number = len(diagnosis.problems)
    if number:
        session.console.result(f"{number} {'problem' if number == 1 else 'problems'} found.", good=False)
    elif diagnosis.target is None:
        session.console.result("Ready to flash; no project was checked.")
    else:
        session.console.result("Ready to flash, but choose a board:" if steps else "Ready to flash.")
    for step in steps:
        if len(steps) > 1:
            session.console.on_stderr().info(f"{step.topic}:")
        for line in step.lines:
            session.console.advice(line)
    if not number:
        paths: Sequence[str] = next(
            (finding.data["paths"] for finding in diagnosis.findings if finding.topic == "board"), ()
        )
        one = f" --path {paths[0]}" if len(paths) > 1 else ""
        record = f"{session.names.flash}{one} --trace trace.txt"
        session.console.info("If flashing still fails, record the USB traffic", command=record)


def _document(diagnosis: Diagnosis, steps: list[Step]) -> documents.Diagnosis:
    return documents.Diagnosis(
        ok=not diagnosis.problems,
        facts=[
            documents.Finding(
                topic=finding.topic,
                state=finding.level.value,
                code=finding.code or None,
                text=finding.text,
                data=dict(finding.data),
            )
            for finding in diagnosis.findings
        ],
        next=[line for step in steps for line in step.lines],
    )
