"""`dfu-doctor`: everything that a flash depends on, and what to do first."""

from __future__ import annotations

from pathlib import Path

from ..doctor.advice import next_step
from ..doctor.environment import Plugin
from ..doctor.facts import State
from ..doctor.report import Report, diagnose
from ..errors import EspDfuError
from ..project import DFU_BIN
from ..target import builtin_folder, read_target
from ..ui import documents
from ..ui.text import Styled
from .session import Session

PROBLEM = 1  # exit code; sysexits.h has none for "something is wrong", and each problem has its own code in the report

_WORDS = {State.OK: ("ok", "green"), State.PROBLEM: ("PROBLEM", "bold red"), State.NOT_APPLICABLE: ("-", "")}


def doctor(
    session: Session,
    build_dir: Path,
    *,
    plugin: Plugin | None = None,
    as_json: bool = False,
) -> int:
    """Show the report; 0 when nothing is a problem, else 1."""
    session.name_image(build_dir / DFU_BIN)
    broken: list[EspDfuError] = []
    try:
        targets = session.targets(on_broken=broken.append)
    except EspDfuError as error:
        broken.append(error)
        targets = [read_target(path) for path in sorted(builtin_folder().glob("*.yaml"))]
    simulation = session.simulation(targets)
    report = diagnose(
        targets,
        build_dir=build_dir,
        project_dir=session.project_dir,
        plugin=plugin,
        broken=broken,
        bus=session.bus(simulation),
        simulated=simulation is not None,
        machine=session.machine,
    )
    steps = next_step(report.facts, session.names, report.target)
    if as_json:
        session.console.data(documents.to_json(_document(report, steps)))
    else:
        _show(session, report, steps)
    return PROBLEM if report.problems else 0


def _show(session: Session, report: Report, steps: list[str]) -> None:
    rows = []
    for fact in report.facts:
        word, style = _WORDS[fact.state]
        code = f" [{fact.code}]" if fact.code else ""
        rows.append((Styled(word, style), fact.topic, f"{fact.text}{code}"))
    session.console.table(["", "Looked at", "Seen"], rows)
    number = len(report.problems)
    if not number:
        session.console.result("Nothing stands in the way.")
    else:
        session.console.result(f"{number} {'problem' if number == 1 else 'problems'}.", good=False)
    for step in steps:
        session.console.advice(step)


def _document(report: Report, steps: list[str]) -> documents.Diagnosis:
    return documents.Diagnosis(
        ok=not report.problems,
        facts=[
            documents.Finding(
                topic=fact.topic,
                state=fact.state.value,
                code=fact.code or None,
                text=fact.text,
                data=dict(fact.data),
            )
            for fact in report.facts
        ],
        next=steps,
    )
