"""What to do about an error or a finding: one table, from the code to the lines to show below it.

Errors and findings say what was seen; advice depends on who asks, and lives only here. An error and a finding with the
same code get the same advice. Longer texts are in `advice_board` and `advice_machine`. A line is a sentence, or a
command alone, or a purpose, ``: `` and a command; see `Console.advice`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import DeviceNotFoundError, EspDfuError, SeveralDevicesError
from ..target import Target
from ..units import quoted
from . import advice_board as board
from . import advice_inputs as inputs
from . import advice_machine as machine
from .findings import Finding


@dataclass(frozen=True)
class CommandNames:
    """The commands as the user types them, for advice to name.

    Attributes:
        build: Makes dfu.bin.
        list: Lists boards.
        flash: Flashes dfu.bin; while it runs, with all options that were typed.
        set_target: Chooses the chip of a project.
        compile: Builds a project.
        this: The one that runs, with its input and all options that were typed; empty in idf.py, and where nothing
            follows from it.
        again: Makes or flashes dfu.bin with all options that were typed; empty while another command runs.
    """

    build: str
    list: str
    flash: str
    set_target: str
    compile: str
    this: str = ""
    again: str = ""

    def for_image(self, dfu_bin: str, build_dir: str | None = None) -> CommandNames:
        """Return the same commands for this image, and for its build folder; without one, `build` shows what it takes.

        Args:
            dfu_bin: Path of the image.
            build_dir: Build folder, None if it is not known.
        """
        flash = self.flash.replace("DFU.BIN", quoted([dfu_bin]))
        folder = _UNKNOWN if build_dir is None else quoted([build_dir])
        return replace(self, flash=flash, build=self.build.replace("BUILD_DIR", folder))

    def idf_py(self, action: str) -> str:
        """Return the command for an action of idf.py in the project."""
        return f"{self.compile.rpartition(' ')[0]} {action}"

    def in_project(self, project_dir: str, build_dir: str) -> CommandNames:
        """Return the same commands, those of idf.py for a project in another folder than the current one."""
        here, project, build = map(os.path.realpath, (".", project_dir, build_dir))
        other = [] if project == here else ["-C", _from(here, project)]
        if build != os.path.join(project, "build"):  # noqa: PTH118
            other += ["-B", _from(here, build)]
        idf_py = quoted(["idf.py", *other])
        before = {name: getattr(self, name) for name in _OF_PROJECT}
        changed = {
            name: text.replace("idf.py", idf_py, 1) for name, text in before.items() if text.startswith("idf.py")
        }
        return replace(self, **changed)


def _from(folder: str, path: str) -> str:
    """Return a path relative to a folder if it is in it: shorter to read and to type."""
    return os.path.relpath(path, folder) if path.startswith(os.path.join(folder, "")) else path  # noqa: PTH118


_UNKNOWN = "--help"  # in place of a build folder
_OF_PROJECT = ("build", "flash", "set_target", "compile")
IDF_PY = CommandNames("idf.py dfu", "idf.py dfu-list", "idf.py dfu-flash", "idf.py set-target", "idf.py build")
ESP_DFU = CommandNames(
    "esp-dfu build BUILD_DIR", "esp-dfu list", "esp-dfu flash DFU.BIN", "idf.py set-target", "idf.py build"
)


@dataclass(frozen=True)
class Context:
    """What advice depends on besides the code.

    Attributes:
        names: The commands to name.
        target: The chip, or None if it is not known.
        targets: The chips that it may be if it is not known.
        data: What the error or finding knows: an error's notes and facts, a finding's data.
    """

    names: CommandNames
    target: Target | None = None
    targets: Sequence[Target] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


def advice_for(
    error: EspDfuError,
    names: CommandNames,
    target: Target | None = None,
    findings: Sequence[Finding] = (),
    targets: Sequence[Target] = (),
) -> list[str]:
    """Return the lines to show below an error; none if there is nothing sensible to say.

    What was found on this machine is more exact than the error, so its advice goes first, and stands alone.

    Args:
        error: What happened.
        names: The commands to name.
        target: The chip, or None if it is not known.
        findings: What this machine shows about the error.
        targets: The chips that it may be if it is not known.
    """
    context = Context(names, target, targets)
    ways = [finding for finding in findings if finding.code == "serial-port-usable"]  # no cause: another way
    causes = [finding for finding in findings if finding not in ways]
    said = [line for finding in causes for line in _advice(finding.code, context, finding.data)]
    lines = said or _advice(error.code, context, {"notes": error.notes, **error.facts})
    lines += [line for way in ways for line in _advice(way.code, context, way.data)]
    if isinstance(error, DeviceNotFoundError):
        lines = [*_from_app(names, error.apps), *lines, *_through_bridge(names, findings)]
    return list(dict.fromkeys(lines))


@dataclass(frozen=True)
class Step:
    """What to do about one problem, or about several that have the same cause.

    Attributes:
        topic: What was checked.
        lines: The advice.
    """

    topic: str
    lines: tuple[str, ...]


def next_steps(
    findings: Sequence[Finding], names: CommandNames, target: Target | None = None, targets: Sequence[Target] = ()
) -> list[str]:
    """Return the lines of `steps_after`."""
    return [line for step in steps_after(findings, names, target, targets) for line in step.lines]


def steps_after(
    findings: Sequence[Finding], names: CommandNames, target: Target | None = None, targets: Sequence[Target] = ()
) -> list[Step]:
    """Return what to do after a diagnosis, in an order that works; none if no problem has advice.

    Findings come in the order in which they depend on each other: packages, machine, permissions, boards, project.

    Args:
        findings: All of the diagnosis.
        names: The commands to name.
        target: The project's chip, or None without a project.
        targets: All known chips.
    """
    context = Context(names, target, targets)
    problems = [finding for finding in findings if finding.code]
    codes = {finding.code for finding in problems}
    if codes & {"wsl", "container"}:  # they are why libusb sees nothing
        problems = [finding for finding in problems if finding.code != "no-usb"]
    steps: dict[tuple[str, ...], Step] = {}
    for finding in sorted(problems, key=lambda finding: finding.code == "unknown"):  # a defect of ours comes last
        lines = tuple(_advice(finding.code, context, finding.data))
        if lines:
            steps.setdefault(lines, Step(finding.topic, lines))
    if not problems and target is not None:
        paths = next((finding.data["paths"] for finding in findings if finding.topic == "board"), ())
        if len(paths) > 1:
            return [Step("board", tuple(_advice(SeveralDevicesError.code, context, {"paths": paths})))]
    return list(steps.values())


def _advice(code: str, context: Context, data: Mapping[str, Any]) -> list[str]:
    advise = ADVICE.get(code)
    return list(advise(replace(context, data=data))) if advise is not None else []


_Advise = Callable[[Context], Sequence[str]]


def _text(*lines: str) -> _Advise:
    """Advice that needs no more than the names of commands: ``{names.flash}``."""
    return lambda c: [line.format(names=c.names) for line in lines]


def _no_device(c: Context) -> list[str]:
    if c.target is None and c.targets:
        return [*board.download_modes(c.targets), *board.closed_by_any(c.targets)]
    return [*board.cable(c.target), *_download_mode(c), *board.closed_by(c.target)]


def _download_mode(c: Context) -> list[str]:
    return [board.download_mode(c.target), f"Then list the boards: {c.names.list}"]


def _other_chip(c: Context) -> list[str]:
    lines = ["Connect the right board, or flash an image that was built for the connected one."]
    if c.data.get("handed_over"):
        return [*lines, f"Start the app of the other board again: esp-dfu reset --path {c.data['handed_over']}"]
    if c.target is None:
        return lines
    return [*lines, board.download_mode(c.target).replace("the chip", f"the {c.target.chip}", 1)]


def _no_handover(c: Context) -> list[str]:
    return board.no_handover(c.target, c.data["outcome"], c.names.list)


def _input_missing(c: Context) -> list[str]:
    reason, role = c.data.get("reason", "missing"), c.data.get("role")
    if reason == "unreadable":
        return ["Check its permissions."]
    if role == "project folder":
        return ["Check the folder after -C."]
    if reason == "missing":
        if role == "build folder":
            return ["Check its name.", f"If it is right, build the project first: {c.names.compile}"]
        if role != "dfu.bin":
            return [f"Build the project first: {c.names.compile}"]
        if c.names.build.endswith(_UNKNOWN):
            return ["Check its name.", f"If it has not been built yet: {c.names.build}"]
        return [f"Create it: {c.names.build}"]
    if reason == "no-file" and role == "dfu.bin":
        return ["Give the file itself, such as build/dfu.bin."]
    return ["Give a folder, such as build."] if reason == "no-file" and role == "build folder" else []


def _typed(c: Context) -> str:
    """Return the command that runs, with its options if they are known; empty for one of idf.py."""
    return c.names.again or c.names.this


def _several_devices(c: Context) -> list[str]:
    """Return how to choose a board; a command that only looks at one is never answered with a flash."""
    reads = c.names.this and not c.names.again
    lines = [f"Choose one, for example: {c.names.this if reads else c.names.flash} --path {c.data['paths'][0]}"]
    return lines if reads else [*lines, f"Or flash all of them: {_without(c.names.flash, ['--port'])} --all"]


_OF_LOADER = ("--skip-flashed", "--verify", "--mac")  # options that ask the chip's serial loader
_OF_SEVERAL_BOARDS = ("--all", "--watch", "--path", "--count")
_WITH_VALUE = ("--path", "--count", "--mac", "--port")


def _without(command: str, options: Sequence[str]) -> str:
    """Return a command line without these options and their values."""
    words = command.split(" ")
    valued = [option for option in options if option in _WITH_VALUE]
    kept = [w for before, w in zip(["", *words], words) if w not in options and before not in valued]
    return " ".join(kept)


def _without_loader(flash: str, path: str | None) -> str:
    """Return the command that flashes the same board by DFU alone."""
    port = f" --path {path}" if path and "--mac" in flash.split(" ") else ""
    return f"{_without(flash, _OF_LOADER)}{port} --no-loader"


def _over_serial(names: CommandNames, port: str) -> str:
    """Return the command that flashes the board through a serial port, as idf.py and esp-dfu spell it."""
    if names.list == IDF_PY.list:
        return f"{names.flash.partition(' dfu-flash')[0]} -p {port} flash"
    return f"{_without(names.flash, (*_OF_LOADER, *_OF_SEVERAL_BOARDS))} --over serial --port {port}"


def _flashes_any_board(names: CommandNames) -> bool:
    """Return whether the command is a flash that leaves the choice of the board to us."""
    words = set(names.again.split(" "))
    return bool({"flash", "dfu-flash"} & words) and not {"--port", *_OF_SEVERAL_BOARDS} & words


def _from_app(names: CommandNames, apps: Sequence[str]) -> list[str]:
    """Return how to ask the only other vendor's app to hand over to the ROM."""
    if len(apps) != 1 or not _flashes_any_board(names):
        return []
    return [f"If the app on port {apps[0]} runs on this board: {names.again} --path {apps[0]}"]


def _through_bridge(names: CommandNames, findings: Sequence[Finding]) -> list[str]:
    """Return how to reset the board through the only USB-UART bridge of this computer, if a flash may do so."""
    ports = [port for finding in findings for port in finding.data.get("terminals", ())]
    if len(ports) != 1 or not _flashes_any_board(names):
        return []
    port = f"/dev/{ports[0]}"
    flash = f"{names.again} --port {port}"
    if names.list == IDF_PY.list:
        flash = names.again.replace(" dfu-flash", f" -p {port} dfu-flash", 1)
    return [f"If {port} is a serial port of this board: {flash}"]


_LIST_BOARDS = _text("List the connected boards: {names.list}")
_BUILD_AGAIN = _text("Build it again: {names.build}")


def _try_again(c: Context) -> list[str]:
    return ["Try again. If that does not help, unplug the board and plug it in again.", board.download_mode(c.target)]


ADVICE: Mapping[str, _Advise] = {
    # No board, or several.
    "no-device": _no_device,
    "other-usb": lambda c: [
        *board.cable_past_own_pins(c.target),
        *_download_mode(c),
        *board.closed_by(c.target),
    ],
    "app-running": lambda c: [*_download_mode(c), *board.closed_by(c.target)],
    "other-chip": _other_chip,
    "unreadable": lambda c: [board.REPLUG, board.download_mode(c.target)],
    "other-path": _LIST_BOARDS,
    "other-serial": _LIST_BOARDS,
    "other-mac": _text("Show the boards with their MAC addresses: esp-dfu info"),
    "several-devices": _several_devices,
    # A board that cannot be used.
    "no-permission": lambda c: machine.access(),
    "no-driver": lambda c: [board.driver(c.target)],
    "serial-port-usable": lambda c: [
        f"Or flash now through the board's serial port: {_over_serial(c.names, c.data['port'])}"
    ],
    "device-busy": lambda c: machine.close_programs(c.data.get("holders", ())),
    "kernel-driver": lambda c: [
        f"Detach the driver: echo {c.data['interface']} | sudo tee /sys/bus/usb/drivers/{c.data['driver']}/unbind"
    ],
    # A board that failed.
    "device-gone": lambda c: board.left_the_bus(c.target, c.names.list, restarted=c.data.get("restarted", False)),
    "no-return": lambda c: [
        board.REPLUG,
        board.download_mode(c.target),
        "In a virtual machine or container, pass the whole port through: the board comes back as a new device.",
    ],
    "no-dfu-mode": lambda c: [*board.taken_by_lines(c.target, c.data.get("seen")), *_download_mode(c)],
    "no-handover": _no_handover,
    "other-board": _LIST_BOARDS,
    "dfu-status": lambda c: [board.status(c.data["status"], c.names.build, c.names.flash)],
    "dfu-silent": lambda c: [
        board.download_mode(c.target),
        f"Then flash without the serial loader: {_without_loader(c.names.flash, c.data.get('path'))}",
        *([] if "--trace" in c.names.flash else [f"Please report this, with a trace of: {c.names.flash} --trace FILE"]),
    ],
    "flash-differs": lambda c: [
        f"Flash the image: {c.names.flash}",
        "If it differs again after a flash, check the power supply; the flash memory may be defective.",
    ],
    "flash-too-small": lambda c: [
        "In menuconfig, choose the board's flash size (Serial flasher config) and a partition table that fits into it.",
        f"Then build again: {c.names.compile}",
    ],
    "secured-board": lambda c: [
        "Sign or encrypt the firmware with this board's keys: such a board boots nothing else.",
        *([f"To override this check: {c.names.again} --force"] if c.names.again else []),
    ],
    **dict.fromkeys(("usb-io", "usb-stall", "usb-timeout", "dfu-state", "dfu-answer"), _try_again),
    "simulation": _text("Report this: it is a defect of esp-dfu."),
    "interrupted": lambda c: [f"Flash again: {c.names.flash}"] if c.data.get("incomplete") else [],
    # A board that is flashed over serial.
    "several-ports": lambda c: [f"Choose one, for example: {c.names.flash} --port {c.data['ports'][0]}"],
    "no-serial-port": lambda c: (
        ["Correct the name of the serial port, or plug in its cable."]
        if c.data.get("port")
        else [*board.cable(c.target), board.download_mode(c.target)]
    ),
    "no-download-mode": lambda c: [
        *board.not_in_download_mode(c.target, c.data, c.names.flash),
        *(
            f"To flash the board on port {path} instead: {_without(c.names.flash, ['--port', '--path'])} --path {path}"
            for path in c.data.get("stayed", ())
        ),
    ],
    "serial-port": lambda c: [
        *(machine.free_serial_port(c.data) or [board.REPLUG]),
        *([] if c.data.get("reason") in ("busy", "permission") else [board.download_mode(c.target)]),
    ],
    "serial-port-busy": lambda c: machine.close_users_of_port(c.data.get("holders", ())),
    "serial-loader": lambda c: board.serial_loader(c.target, c.data.get("reason", ""), c.names.flash),
    # This machine.
    "usb-unavailable": lambda c: machine.usb_library(c.data.get("missing", "")),
    "no-usb": lambda c: machine.usb_library(""),
    "wsl": lambda c: machine.attach_to_wsl(),
    "container": lambda c: machine.start_container(),
    "no-thread": _text("Flash fewer boards at once, with --path, or raise the limit of processes: ulimit -u"),
    "needs-root": lambda c: [f"Run it as root: {machine.own_command('udev --install', root=True)}"],
    "udev": lambda c: [
        "Change or remove the rule that overrides it."
        if c.data.get("notes")
        else "Read what udev says: journalctl -u systemd-udevd"
    ],
    "no-udev": lambda c: machine.start_udev(c.data["where"]),
    "no-rule": lambda c: [machine.install_rule()],
    "no-seat": lambda c: [machine.install_rule()],
    "rule-not-applied": _text(
        "Unplug the board and plug it in again, or: sudo udevadm control --reload && sudo udevadm trigger"
    ),
    "no-group": lambda c: machine.join_group(c.data["rule_group"], c.data["user"], create=True),
    "not-in-group": lambda c: machine.join_group(c.data["rule_group"], c.data["user"]),
    "old-session": lambda c: [f"Log out and log in again, or, for this shell only: newgrp {c.data['rule_group']}"],
    "no-node": lambda c: machine.missing_node(c.data["where"]),
    "no-package": lambda c: [machine.pip_install(c.data["missing"])],
    "no-esp-idf": _text("Run ESP-IDF's export script in this shell."),
    "actions-refused": lambda c: [f"export IDF_EXTRA_ACTIONS_PATH={shlex.quote(c.data['extra_path'])}"],
    "unknown": _text("Report this, with the output of: esp-dfu doctor --json"),
    # Project and image.
    "input-missing": _input_missing,
    "no-target": lambda c: inputs.name_chip(_typed(c), c.names.set_target),
    "no-flash-size": lambda c: inputs.name_flash_size(_typed(c), c.names.idf_py("menuconfig")),
    "no-build": lambda c: inputs.find_build(_typed(c), c.data),
    "wrong-input": lambda c: inputs.instead(_typed(c), c.data),
    "build-file": lambda c: inputs.build_again(c.data.get("tool", ""), c.names.idf_py("reconfigure")),
    "outside-project": lambda c: inputs.allow_outside(_typed(c)),
    "target-not-supported": lambda c: inputs.other_chip(c.data, c.names.idf_py("flash")),
    "layout": lambda c: [
        f"Change the addresses in the partition table, or the size of the flash memory: {c.names.idf_py('menuconfig')}"
    ],
    "firmware": lambda c: [
        f"If the project is for another chip (this empties its build folder): {c.names.set_target} CHIP",
        f"If one is damaged: {c.names.compile}",
        *([f"To override this check: {c.names.again} --force"] if c.names.again else []),
    ],
    "image": lambda c: (
        [f"Build a dfu.bin, and flash that: {c.names.build}"] if c.data.get("esp_image") else _BUILD_AGAIN(c)
    ),
    "image-old": _BUILD_AGAIN,
    "wrong-target": _text("Build it for this chip: {names.build}"),
}
