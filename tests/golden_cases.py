"""The commands whose screens are in tests/golden."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from esp_dfu_ext import build, load_target
from esp_dfu_ext.simulator.sample import write_sample_project

from .kit.files import edit_json, write_file, write_json
from .kit.machine import NODE, OURS, FolderMachine
from .kit.screens import PIPED, Command

NARROW, USUAL, WIDE = 60, 80, 160
DFU_BIN = "my_project/build/dfu.bin"
LARGE, ONE = "large/build/dfu.bin", "esp32s3+slow"
OTHER = "other_chip/build/dfu.bin"
BUILT = 1795435200  # 2026-11-23 12:00:00 UTC
FOUR = "esp32s3+slow,esp32s3+slow+vanish@400,esp32s3+slow,esp32s3+slow"
BRIDGE = "bridge=10c4:ea60"
BRIDGED = f"{ONE}+app=cafe:4000,{BRIDGE}"
LONG = "sensor_gateway_with_a_rather_long_name_for_production_line_number_two.bin"


def make_folder(folder: Path) -> None:
    """Write what the commands find: projects for three chips, one without an image, and images that are wrong."""
    _project(folder / "my_project")
    _project(folder / "other_chip", chip="esp32s2")
    _project(folder / "not_built", image=False)
    _project(folder / "long_names", name=LONG)
    _project(folder / "overlapping", move="0x8800", image=False)
    _project(folder / "large", app_size=900_000)
    _project(folder / "changed")
    os.utime(folder / "changed" / "build" / "hello_world.bin", (BUILT + 60, BUILT + 60))
    _project(folder / "my_app_for_a_c3", chip="esp32s3", target_name="esp32c3", image=False)
    _project(folder / "wrong_image")
    write_file(folder / "wrong_image" / "build" / "dfu.bin", (folder / "other_chip" / "build" / "dfu.bin").read_bytes())
    image = bytearray((folder / DFU_BIN).read_bytes())
    image[2000] ^= 1
    (folder / "damaged.bin").write_bytes(image)


def _project(
    folder: Path,
    *,
    chip: str = "esp32s3",
    app_size: int = 30_000,
    target_name: str | None = None,
    name: str = "hello_world.bin",
    move: str = "",
    image: bool = True,
) -> None:
    write_sample_project(folder, load_target(chip), app_size=app_size, bootloader_size=6_000)
    (folder / "CMakeLists.txt").touch()
    built, arguments = folder / "build", folder / "build" / "flasher_args.json"
    # Its path must not show: the folder is copied.
    edit_json(built / "project_description.json", project_path=None, build_dir=None, config_file=None)
    args = json.loads(arguments.read_text())
    if name != "hello_world.bin":
        (built / "hello_world.bin").rename(built / name)
        args["app"]["file"] = args["flash_files"]["0x10000"] = name
    if move:
        args["flash_files"][move] = args["flash_files"].pop("0x10000")
        args["app"]["offset"] = move
    write_json(arguments, args)
    if image:
        build(built)
    if target_name is not None:
        edit_json(built / "project_description.json", target=target_name)
    for file in folder.rglob("*"):
        os.utime(file, (BUILT, BUILT))


Linux = Callable[[FolderMachine], object]


def esp_dfu(line: str, *columns: int, **settings: Any) -> list[Command]:
    """Return a command of esp-dfu in terminals of these widths, or in pipes."""
    return [Command(["esp-dfu", *line.split()], width, **settings) for width in columns or (NARROW, USUAL, PIPED)]


def idf_py(line: str, *columns: int, project: str = "my_project", **settings: Any) -> list[Command]:
    """Return a command of idf.py in terminals of these widths."""
    return [
        Command(["idf.py", "-C", project, *line.split()], width, **settings) for width in columns or (NARROW, USUAL)
    ]


# --- machines ---------------------------------------------------------------------------------------------


def no_rule(machine: FolderMachine) -> None:
    """A machine without a udev rule."""
    machine.plug()


def not_in_group(machine: FolderMachine) -> None:
    """A machine with the rule, but its user is not in the group."""
    machine.plug(mode=0o660)
    machine.owner = ("root", "plugdev")
    machine.write("/etc/udev/rules.d/60-esp-dfu.rules", OURS)


def held(machine: FolderMachine) -> None:
    """A machine on which another program has the board open."""
    machine.open_to_all = True
    machine.plug(drivers=("cdc_acm", "cdc_acm", "usbfs"))
    machine.run_program(4711, "dfu-util", NODE)


def bridge(machine: FolderMachine) -> None:
    """A machine whose cable is in the board's other socket."""
    machine.open_to_all = True
    machine.plug("10c4:ea60", drivers=("cp210x",), terminals={0: "ttyUSB0"}, product="CP2102N USB to UART Bridge")


def in_a_container(machine: FolderMachine) -> None:
    """A Docker container without the USB bus."""
    machine.write("/.dockerenv")


def root(machine: FolderMachine) -> None:
    """A machine without udev, used as root."""
    machine.is_root = True
    machine.file("/run/udev/control").unlink()


# --- the commands -----------------------------------------------------------------------------------------

WORDS = (
    "build",
    "inspect",
    "list",
    "flash",
    "verify",
    "reset",
    "info",
    "doctor",
    "udev",
    "demo",
    "enable",
    "disable",
    "completion",
)
IDF_PY = ("dfu", "dfu-list", "dfu-flash", "dfu-doctor")
FAILED = (NARROW,)  # a log shows the same error with its lines unbroken: see flash-other-usb


def _failed(boards: str, line: str = f"flash {DFU_BIN}", **settings: Any) -> list[Command]:
    return esp_dfu(line, *FAILED, boards=boards, **settings)


CASES: dict[str, Sequence[Command]] = {
    # Help and usage.
    "help": esp_dfu("--help", NARROW, USUAL),
    **{f"help-{word}": esp_dfu(f"{word} --help", NARROW, lines=160) for word in WORDS},
    "help-idf-py": [command for word in IDF_PY for command in idf_py(f"{word} --help", USUAL)],
    "version": esp_dfu("--version", USUAL),
    "usage": [
        *esp_dfu("frob", NARROW, PIPED),
        *esp_dfu("flash", NARROW),
        *esp_dfu("flash dfu.bin --path 1-1 --all", NARROW),
        *esp_dfu("flash dfu.bin --count 3", NARROW),
        *esp_dfu("build my_project/build --part-size many", NARROW),
    ],
    # Images.
    "build-first": esp_dfu("build not_built/build", USUAL),
    "build": esp_dfu("build my_project/build", NARROW, USUAL, WIDE, PIPED),
    "build-long-names": esp_dfu("build long_names/build", NARROW, USUAL),
    "build-large": [
        *esp_dfu("build large/build", NARROW, USUAL, PIPED),
        *esp_dfu("build large/build", NARROW, encoding="cp437"),
    ],
    "build-parts": esp_dfu("build my_project/build --part-size 8K", USUAL),
    "build-no-folder": esp_dfu("build nowhere", *FAILED),
    "build-other-chip": esp_dfu("build my_app_for_a_c3/build", *FAILED),
    "build-overlapping": esp_dfu("build overlapping/build", *FAILED),
    "inspect": esp_dfu(f"inspect {DFU_BIN}", NARROW, USUAL, PIPED),
    "inspect-long-names": esp_dfu("inspect long_names/build/dfu.bin", NARROW),
    "inspect-damaged": esp_dfu("inspect damaged.bin", *FAILED),
    "quiet": [
        *esp_dfu("build my_project/build --quiet", USUAL),
        *esp_dfu(f"flash {DFU_BIN} --quiet", USUAL),
        *esp_dfu(f"flash {DFU_BIN} --quiet", USUAL, boards=""),
    ],
    # Lists of boards.
    "list-one": esp_dfu("list", NARROW, WIDE, PIPED),
    "list-none": esp_dfu("list", NARROW, USUAL, boards=""),
    "list-none-container": esp_dfu("list", NARROW, USUAL, boards="", linux=in_a_container),
    "list-several": esp_dfu(
        "list", NARROW, PIPED, boards="esp32s3,esp32s2+dfu,303a:1001,esp32p4+no-access", linux=no_rule
    ),
    "list-format": esp_dfu("list --format dfu-util", NARROW, boards="esp32s3,303a:1001")
    + esp_dfu("list --format table", PIPED, boards="esp32s3,303a:1001"),
    "list-probe": [
        *esp_dfu(
            "list --probe", NARROW, PIPED, boards="esp32s3+dfu,esp32s2+dfu,esp32s3+app,303a:1001,esp32p4+no-access"
        ),
        *esp_dfu("list --probe --json", PIPED, boards="esp32s2+dfu,esp32s3+app,303a:1001"),
        *idf_py("dfu-list --probe", NARROW, boards="esp32s2+dfu"),
    ],
    "list-json": esp_dfu("list --json", PIPED, boards="esp32s3,303a:1001"),
    # One board.
    "flash": esp_dfu(f"flash {DFU_BIN}", NARROW, USUAL, WIDE, PIPED),
    "flash-midway": esp_dfu(f"flash {DFU_BIN}", NARROW, USUAL, WIDE, stop=2.2),
    "flash-simulated": esp_dfu(f"flash {DFU_BIN} --simulate", NARROW, linux=None),
    "flash-reset": esp_dfu(f"flash {DFU_BIN} --reset", NARROW, boards="esp32s3+slow"),
    "flash-port": [
        *esp_dfu(f"flash {DFU_BIN} --port tty1-2", boards=BRIDGED),
        *idf_py("-p tty1-2 dfu-flash monitor", boards=BRIDGED),
    ],
    "flash-wait": esp_dfu(f"flash {DFU_BIN} --wait 60", NARROW, PIPED, plug=[12.0]),
    "flash-skip-flashed": [
        *esp_dfu(f"flash {DFU_BIN} --skip-flashed", NARROW, USUAL, PIPED, boards=f"esp32s3+slow+holds={DFU_BIN}"),
        *esp_dfu(f"flash {DFU_BIN} --skip-flashed", NARROW, PIPED, boards=f"esp32s3+slow+holds={LARGE}"),
        *esp_dfu(f"flash {DFU_BIN} --skip-flashed", NARROW, boards="esp32s3+slow"),
        *esp_dfu(f"flash {DFU_BIN} --skip-flashed --all", NARROW, PIPED, boards=f"esp32s3+slow+holds={DFU_BIN},{ONE}"),
        *esp_dfu(f"flash {DFU_BIN} --skip-flashed --no-loader", NARROW),
    ],
    "flash-mac": [
        *esp_dfu(f"flash {DFU_BIN} --mac 7c:df:a1:00:00:02", NARROW, boards=f"{ONE},{ONE}"),
        *_failed(f"{ONE},{ONE}+busy", f"flash {DFU_BIN} --mac 7c:df:a1:00:00:09"),
        *_failed(ONE, f"flash {DFU_BIN} --mac 7c"),
    ],
    "flash-verify": [
        *esp_dfu(f"flash {DFU_BIN} --verify", NARROW, PIPED),
        *esp_dfu(f"flash {DFU_BIN} --verify", NARROW, boards="esp32s3+slow+busy"),
    ],
    "verify": [
        *esp_dfu(f"verify {DFU_BIN}", NARROW, PIPED, boards=f"esp32s3+slow+holds={DFU_BIN}"),
        *esp_dfu(f"verify {DFU_BIN}", NARROW, PIPED, boards=f"esp32s3+slow+holds={LARGE}"),
        *esp_dfu(f"verify {DFU_BIN}", NARROW, boards=""),
        *esp_dfu(f"verify {DFU_BIN}", NARROW, boards="esp32s3+app"),
        *esp_dfu(f"verify {DFU_BIN} --path 1-1 --serial 1", NARROW),
    ],
    "info": [
        *esp_dfu("info", NARROW, PIPED, boards="esp32s3+slow,esp32s2+slow+dfu+flash-encryption"),
        *esp_dfu("info", NARROW, boards="esp32s3+app"),
        *esp_dfu("info", NARROW, boards=""),
        *esp_dfu("info --path 1-7", NARROW),
        *esp_dfu("info --json", PIPED, boards="esp32s3+slow,esp32s3+no-access"),
    ],
    "flash-restart": esp_dfu(f"flash {DFU_BIN}", NARROW, PIPED, boards="esp32s3+slow+hang@200"),
    "flash-strict": esp_dfu(f"flash {DFU_BIN}", NARROW, boards="esp32s3+slow+strict"),
    "flash-no-image": esp_dfu("flash not_built/build/dfu.bin", *FAILED),
    "flash-damaged": esp_dfu("flash damaged.bin", *FAILED),
    "flash-no-device": [*_failed(""), *_failed("", linux=bridge), *_failed("", linux=in_a_container)],
    "flash-other-usb": esp_dfu(f"flash {DFU_BIN}", NARROW, USUAL, WIDE, PIPED, boards="303a:1001"),
    "flash-other-chip": _failed("esp32s2"),
    "flash-several-devices": _failed("esp32s3,esp32s3"),
    "flash-other-path": _failed("esp32s3", f"flash {DFU_BIN} --path 1-7"),
    "flash-other-serial": _failed("esp32s3", f"flash {DFU_BIN} --serial 1234"),
    "flash-no-permission": [
        *_failed("esp32s3+no-access", linux=no_rule),
        *_failed("esp32s3+no-access", linux=not_in_group),
    ],
    "flash-device-busy": [*_failed("esp32s3+busy"), *_failed("esp32s3+busy", linux=held)],
    "flash-device-gone": _failed("esp32s3+slow+vanish@300"),
    "flash-no-return": _failed("esp32s3+no-return"),
    "flash-no-download-mode": [
        *_failed(f"esp32s3+no-usb,{BRIDGE}", f"flash {DFU_BIN} --port tty1-2"),
        *_failed(f"esp32s3+app=cafe:4000+no-strap,{BRIDGE}", f"flash {DFU_BIN} --port tty1-2"),
        *_failed(f"esp32s3,esp32s2+no-usb,{BRIDGE}", f"flash {DFU_BIN} --port tty1-3"),
        *_failed(f"esp32s2,{BRIDGE}", f"flash {DFU_BIN} --port tty1-2"),
        *_failed(f"esp32s3,{BRIDGE}", f"flash {DFU_BIN} --port tty1-9"),
    ],
    "flash-dfu-status": _failed("esp32s3+slow+error@300"),
    # Several boards.
    "all": esp_dfu(f"flash {DFU_BIN} --all", NARROW, USUAL, PIPED, boards=FOUR),
    "all-midway": esp_dfu(f"flash {DFU_BIN} --all", NARROW, WIDE, boards=FOUR, stop=2.4),
    "all-sixteen": esp_dfu(f"flash {DFU_BIN} --all", USUAL, boards=",".join(["esp32s3+slow"] * 16), stop=0.9, lines=24),
    "all-without-serial-numbers": [
        *esp_dfu(
            f"flash {OTHER} --all", NARROW, USUAL, boards="esp32s2+slow,esp32s2+slow+vanish@400,esp32s2+slow+busy"
        ),
        *esp_dfu(f"flash {OTHER} --all --no-loader", NARROW, boards="esp32s2+slow,esp32s2+slow"),
        *esp_dfu(
            f"flash {OTHER} --watch --count 2",
            NARROW,
            boards="esp32s2+slow,esp32s2+slow+vanish@400",
            plug=[1.0, 11.0],
        ),
    ],
    "watch": esp_dfu(
        f"flash {DFU_BIN} --watch --count 3",
        NARROW,
        PIPED,
        boards="esp32s3+slow,esp32s3+slow+vanish@400,esp32s3+slow",
        plug=[1.0, 11.0, 21.0],
    ),
    "watch-midway": esp_dfu(
        f"flash {DFU_BIN} --watch",
        NARROW,
        WIDE,
        boards="esp32s3+slow,esp32s3+slow+vanish@400,esp32s3+slow",
        plug=[1.0, 11.0, 21.0],
        stop=23.0,
    ),
    # The doctor and udev.
    "doctor": esp_dfu("doctor my_project/build", NARROW, PIPED, linux=None),
    "doctor-no-permission": esp_dfu("doctor my_project/build", *FAILED, boards="esp32s3+no-access", linux=no_rule),
    "doctor-no-device": esp_dfu("doctor my_project/build", *FAILED, boards="", linux=bridge),
    "doctor-no-image": esp_dfu("doctor not_built/build", NARROW, linux=None),
    "udev": [
        *esp_dfu("udev", NARROW, PIPED),
        *esp_dfu("udev --install", NARROW),
        *esp_dfu("udev --install", NARROW, linux=root),
    ],
    # The demo, and idf.py.
    "demo": esp_dfu("demo", USUAL, boards="esp32s2+slow", linux=None),
    "enable": [
        *esp_dfu("enable my_project", NARROW),
        *esp_dfu("enable", NARROW),
        *esp_dfu("disable my_project", NARROW),
    ],
    "idf-py-dfu": [*idf_py("dfu", NARROW), *idf_py("dfu", NARROW, project="my_app_for_a_c3")],
    "idf-py-dfu-list": [*idf_py("dfu-list", NARROW), *idf_py("dfu-list", NARROW, boards="")],
    "idf-py-dfu-flash": [
        *idf_py("dfu-flash", NARROW),
        *idf_py("dfu-flash", NARROW, project="changed"),
        *idf_py("dfu-flash", NARROW, project="not_built"),
        *idf_py("dfu-flash", NARROW, boards=""),
    ],
    "idf-py-wrong-target": idf_py("dfu-flash", NARROW, project="wrong_image"),
    "idf-py-dfu-doctor": idf_py("dfu-doctor", NARROW, linux=None),
    # Lesser terminals, and colours.
    "code-pages": [
        command
        for encoding in ("cp1252", "cp437", "ascii")
        for command in esp_dfu("flash long_names/build/dfu.bin", NARROW, stop=2.2, encoding=encoding)
    ],
    "dumb-terminal": esp_dfu(f"flash {DFU_BIN}", NARROW, env={"TERM": "dumb"}),
    "colours": [
        *esp_dfu("build large/build", NARROW, styles=True),
        *esp_dfu(f"flash {DFU_BIN}", NARROW, styles=True, stop=2.2),
        *esp_dfu(f"flash {DFU_BIN}", NARROW, styles=True, boards="303a:1001"),
        *esp_dfu(f"flash {DFU_BIN} --all", NARROW, styles=True, boards="esp32s3,esp32s3+vanish@9,esp32s3+vanish@9"),
        *esp_dfu(
            f"flash {DFU_BIN} --watch --count 2",
            NARROW,
            styles=True,
            boards="esp32s3,esp32s3+vanish@9",
            plug=[1.0, 11.0],
        ),
        *esp_dfu("doctor", NARROW, styles=True, boards="303a:1001", linux=None),
    ],
}
# The same without colours.
CASES["no-color"] = [
    Command(
        command.words, command.columns, command.boards, command.stop,
        env={"NO_COLOR": "1"}, linux=command.linux, plug=command.plug, styles=True,
    )
    for command in CASES["colours"]
]  # fmt: skip
