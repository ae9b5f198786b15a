"""States in which commands are printed: what is typed there, and on which machine what is printed is run.

`CASES` has one or more for every code of `doctor.advice` that prints a command of ours; tests/test_printed_commands.py
runs the first command, then each command that it printed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from esp_dfu_ext import build, load_target
from esp_dfu_ext.simulator.sample import write_sample_project

from .kit.files import edit_json
from .kit.machine import OURS, FolderMachine

Prepare = Callable[[Path], object]
Linux = Callable[[FolderMachine], object]


@dataclass(frozen=True)
class Case:
    """A command that prints others.

    Attributes:
        words: The command line.
        boards: Simulated boards while it runs.
        then: Boards while the printed commands run, as after what the advice says to do first.
        prepare: Changes the projects before; `also` as well.
        linux: Makes the machine that the boards are on.
        prints: The commands that are printed, each of which works.
        ends: Exit code of the printed commands of ours.
    """

    words: str
    boards: str = ""
    then: str = "esp32s3"
    prepare: Prepare = lambda folder: None
    also: Prepare = lambda folder: None
    linux: Linux = lambda machine: None
    prints: Sequence[str] = ()
    ends: int = 0


DFU, FLASH = "'my project/build/dfu.bin'", "esp-dfu flash 'my project/build/dfu.bin'"
BUILD, IDF = "esp-dfu build 'my project/build'", "idf.py -C 'my project'"
TYPED = " --wait 2.5 --after no-reset --report 'the report.jsonl'"


def make_projects(folder: Path) -> None:
    """Write a project with an image, one of another chip, and one that is not built."""
    for name, chip in (("my project", "esp32s3"), ("other chip", "esp32s2"), ("not built", "esp32s3")):
        write_sample_project(folder / name, load_target(chip), app_size=9_000, bootloader_size=2_000)
        (folder / name / "CMakeLists.txt").touch()
        edit_json(folder / name / "build" / "project_description.json", project_path=None, build_dir=None)
        if name != "not built":
            build(folder / name / "build")


# --- what happens to a project ----------------------------------------------------------------------------


def built(folder: Path, name: str = "") -> Path:
    """Return a file of the build folder."""
    return folder / "my project" / "build" / name


def cut(name: str) -> Prepare:
    """Cut a file."""
    return lambda folder: built(folder, name).write_bytes(built(folder, name).read_bytes()[:-900])


def lost(*names: str) -> Prepare:
    """Remove files."""

    def remove(folder: Path) -> None:
        for name in names:
            built(folder, name).unlink()

    return remove


def replaced(name: str, text: bytes) -> Prepare:
    """Give a file another content."""
    return lambda folder: built(folder, name).write_bytes(text)


def edited(**changes: object) -> Prepare:
    """Edit flasher_args.json."""
    return lambda folder: edit_json(built(folder, "flasher_args.json"), **changes)


def copied(source: str, name: str) -> Prepare:
    """Copy a file to the current folder, or to one below."""
    return lambda folder: shutil.copy(folder / source, folder / name)


def nobody_names_the_chip(folder: Path) -> None:
    """Leave flasher_args.json and images whose header may be of any chip."""
    lost("project_description.json")(folder)
    (folder / "my project" / "sdkconfig").unlink()
    edited(extra_esptool_args=None)(folder)
    for name in ("hello_world.bin", "bootloader/bootloader.bin"):
        replaced(name, bytes(5000))(folder)


def two_builds(folder: Path) -> None:
    """Write a project that has two build folders."""
    for name in ("build a", "build b"):
        shutil.copytree(built(folder), folder / "two" / name)
    (folder / "two" / "CMakeLists.txt").touch()


def not_built(file: str) -> Prepare:
    """Write a project of another tool."""

    def write(folder: Path) -> None:
        (folder / "a sketch").mkdir()
        (folder / "a sketch" / file).touch()

    return write


def elf(folder: Path) -> None:
    """Write the beginning of an ELF file."""
    (folder / "a.elf").write_bytes(b"\x7fELF" + bytes(500))


def broken(name: str) -> Prepare:
    """Break a file of the current folder."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-900])


def app_changed(folder: Path) -> None:
    """Build a larger app, without its dfu.bin."""
    chip = load_target("esp32s3")
    write_sample_project(folder / "larger", chip, app_size=10_000)
    shutil.copy(folder / "larger" / "build" / "hello_world.bin", built(folder))


# --- machines ---------------------------------------------------------------------------------------------


def plugged() -> Linux:
    """Return a machine with a board."""
    return lambda machine: machine.plug()


def open_to_all(machine: FolderMachine) -> None:
    """A machine on which nothing is wrong."""
    machine.plug()
    machine.open_to_all = True
    machine.write("/etc/udev/rules.d/60-x.rules", OURS)


def root(machine: FolderMachine) -> None:
    """A machine used as root."""
    machine.is_root = True


def ruled(group: str = "root", rule: str = OURS, member: str = "") -> Linux:
    """Return a machine with a udev rule."""

    def make(machine: FolderMachine) -> None:
        machine.plug()
        machine.owner = ("root", group)
        machine.records["plugdev"] = frozenset({member} - {""})
        machine.write("/etc/udev/rules.d/60-x.rules", rule)

    return make


def without_udev(file: str = "/etc/hostname", text: str = "") -> Linux:
    """Return a machine that runs no udev, with a file that says what it is."""

    def make(machine: FolderMachine) -> None:
        machine.file("/run/udev/control").unlink()
        machine.write("/etc/udev/rules.d/60-x.rules", OURS)
        machine.write(file, text)
        machine.plug()

    return make


def without_node(machine: FolderMachine) -> None:
    """A container whose /dev does not show the board."""
    machine.write("/.dockerenv")
    machine.write("/etc/udev/rules.d/60-x.rules", OURS)
    machine.file(machine.plug()).unlink()


def driver_bound(machine: FolderMachine) -> None:
    """A machine whose kernel gave the DFU interface to a driver."""
    machine.plug(drivers=(None, None, "usbhid"))
    machine.open_to_all = True


def marked(file: str, text: str = "") -> Linux:
    """Return a machine with this file, as in containers and WSL."""
    return lambda machine: machine.write(file, text)


APP = "esp32s3+app=cafe:4000"
SHUT, TWO, HOLD = "esp32s3+no-access", "esp32s3,esp32s3", ",".join(["esp32s3+holds=my project/build/dfu.bin"] * 2)
LIST, DOCTOR, UDEV = "esp-dfu list", "esp-dfu doctor 'my project/build'", "sudo /opt/venv/bin/esp-dfu udev --install"
DOCKER = "docker run -v /dev/bus/usb:/dev/bus/usb --device-cgroup-rule='c 189:* rmw' IMAGE"
WSL, SYSTEMD = "/proc/sys/kernel/osrelease", "printf '[boot]\\nsystemd=true\\n' | sudo tee -a /etc/wsl.conf"
NO_GROUP, PYTHON = 'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", TAG+="uaccess"', "/opt/venv/bin/python"
OVERLAP = {"0x8800": "hello_world.bin", "0x8000": "partition_table/partition-table.bin"}

CASES: dict[str, Sequence[Case]] = {
    # No board, or several.
    "no-device": [
        Case(FLASH, prints=[LIST]),
        Case("esp-dfu reset", prints=[LIST]),
        Case(f"esp-dfu verify {DFU}", prints=[LIST]),
        Case(f"{IDF} dfu-flash", prints=["idf.py dfu-list"]),
        Case(FLASH + TYPED, APP, APP, prints=[f"{FLASH}{TYPED} --path 1-1", LIST]),
        Case(f"{IDF} dfu-flash", APP, APP, prints=[f"{IDF} dfu-flash --path 1-1", "idf.py dfu-list"]),
        Case(f"{FLASH} --before no-reset", APP, APP, prints=[LIST]),
        Case(FLASH, f"{APP},{APP}", APP, prints=[LIST]),
        Case(f"{FLASH} --serial 9", APP, APP, prints=[LIST]),
        Case(f"{FLASH} --all", APP, APP, prints=[LIST]),
    ],
    "other-usb": [Case(FLASH, "303a:1001", prints=[LIST])],
    "app-running": [
        Case(FLASH, "esp32s3+touch=303a:4001", prints=[LIST]),
        Case(f"{FLASH} --before no-reset", "esp32s3+app=303a:4002", prints=[LIST]),
    ],
    "no-handover": [Case(FLASH, "esp32s3+app=303a:4002+no-return", prints=[LIST])],
    "other-path": [Case(f"{FLASH} --path 1-7", "esp32s3", prints=[LIST])],
    "other-serial": [Case(f"{FLASH} --serial 9", "esp32s3", prints=[LIST])],
    "other-mac": [Case(f"{FLASH} --mac 7c:df:a1:00:00:09", "esp32s3,esp32s3", prints=["esp-dfu info"])],
    "several-devices": [
        Case(FLASH + TYPED, TWO, TWO, prints=[f"{FLASH}{TYPED} --path 1-1", f"{FLASH}{TYPED} --all"]),
        Case(f"{IDF} dfu-flash", TWO, TWO, prints=[f"{IDF} dfu-flash --path 1-1", f"{IDF} dfu-flash --all"]),
        Case("esp-dfu reset", TWO, TWO, prints=["esp-dfu reset --path 1-1"]),
        Case(f"esp-dfu verify {DFU} --wait 1", HOLD, HOLD, prints=[f"esp-dfu verify {DFU} --wait 1 --path 1-1"]),
        Case(
            DOCTOR,
            TWO,
            TWO,
            linux=open_to_all,
            prints=[f"{FLASH} --path 1-1 --trace trace.txt", f"{FLASH} --path 1-1", f"{FLASH} --all"],
        ),
    ],
    # A board that cannot be used, and this machine.
    "no-permission": [Case(FLASH, SHUT, prints=[UDEV]), Case("esp-dfu list", SHUT, prints=[UDEV])],
    "no-rule": [Case(FLASH, SHUT, linux=plugged(), prints=[UDEV])],
    "no-seat": [Case(FLASH, SHUT, linux=ruled(rule=NO_GROUP), prints=[UDEV])],
    "rule-not-applied": [
        Case(FLASH, SHUT, linux=ruled(), prints=["sudo udevadm control --reload && sudo udevadm trigger"])
    ],
    "not-in-group": [Case(FLASH, SHUT, linux=ruled("plugdev"), prints=["sudo usermod -aG plugdev ada"])],
    "old-session": [Case(FLASH, SHUT, linux=ruled("plugdev", member="ada"), prints=["newgrp plugdev"])],
    "no-group": [
        Case(
            FLASH,
            SHUT,
            linux=ruled(rule=OURS.replace("plugdev", "dfu")),
            prints=["sudo groupadd --system dfu && sudo usermod -aG dfu ada"],
        )
    ],
    "no-udev": [
        Case(FLASH, SHUT, linux=without_udev(), prints=["sudo /lib/systemd/systemd-udevd --daemon", UDEV]),
        Case(FLASH, SHUT, linux=without_udev("/.dockerenv"), prints=["esp-dfu udev --install"], ends=77),
        Case(FLASH, SHUT, linux=without_udev(WSL, "microsoft-standard-WSL2"), prints=[SYSTEMD, "wsl --shutdown"]),
    ],
    "kernel-driver": [
        Case(
            FLASH,
            "esp32s3+busy",
            linux=driver_bound,
            prints=["echo 1-1:1.2 | sudo tee /sys/bus/usb/drivers/usbhid/unbind"],
        )
    ],
    "container": [Case(FLASH, linux=marked("/.dockerenv"), prints=[DOCKER])],
    "no-node": [Case(DOCTOR, "esp32s3", linux=without_node, prints=[DOCKER])],
    "wsl": [
        Case(
            FLASH,
            linux=marked(WSL, "microsoft-standard-WSL2"),
            prints=[
                "usbipd list",
                "usbipd bind --busid BUSID",
                "usbipd attach --wsl --auto-attach --busid BUSID",
            ],
        )
    ],
    "udev": [Case("esp-dfu udev --install", linux=root, prints=["journalctl -u systemd-udevd"])],
    "needs-root": [Case("esp-dfu udev --install", prints=[UDEV])],
    # A board that failed.
    "dfu-status": [
        Case(FLASH, "esp32s3+error@5", prints=[BUILD]),
        Case(f"{IDF} dfu-flash", "esp32s3+error@5", prints=[f"{IDF} dfu"]),
    ],
    "flash-differs": [Case(f"esp-dfu verify {DFU}", "esp32s3", prints=[FLASH])],
    "secured-board": [Case(FLASH, "esp32s3+secure-boot", "esp32s3+secure-boot", prints=[f"{FLASH} --force"])],
    # Input.
    "input-missing": [
        Case("esp-dfu flash nowhere/dfu.bin", prints=["esp-dfu build --help"]),
        Case("esp-dfu flash 'not built/build/dfu.bin'", prints=["esp-dfu build 'not built/build'"]),
        Case("idf.py -C 'not built' dfu-flash", prints=["idf.py -C 'not built' dfu"]),
        Case("esp-dfu build nowhere", prints=["idf.py build"]),
        Case("esp-dfu build 'my project/build b'", prints=["idf.py -C 'my project' -B 'my project/build b' build"]),
        Case(BUILD, prepare=lost("hello_world.bin"), prints=[f"{IDF} build"]),
        Case("esp-dfu build 'my project'", prepare=lost("flasher_args.json"), prints=[f"{IDF} build"]),
        Case(f"{IDF} dfu-flash", prepare=lost("dfu.bin"), prints=[f"{IDF} dfu"]),
        Case(f"{DOCTOR}x", linux=open_to_all, prints=["idf.py -C 'my project' -B 'my project/buildx' build"]),
    ],
    "no-target": [
        Case(
            f"{BUILD} -o 'an image'",
            prepare=nobody_names_the_chip,
            prints=[f"{BUILD} --output 'an image' --target CHIP"],
            ends=65,
        ),
        Case(f"{IDF} dfu", prepare=nobody_names_the_chip, prints=[f"{IDF} set-target CHIP"]),
    ],
    "no-flash-size": [
        Case(
            f"{BUILD} --target esp32s3",
            prepare=nobody_names_the_chip,
            also=edited(flash_settings=None),
            prints=[f"{BUILD} --target esp32s3 --flash-size 4MB"],
            ends=65,
        )
    ],
    "no-build": [
        Case("esp-dfu build .", prints=["esp-dfu build --help"]),
        Case(
            "esp-dfu build two -o x.bin",
            prepare=two_builds,
            prints=["esp-dfu build 'two/build a' --output x.bin", "esp-dfu build 'two/build b' --output x.bin"],
        ),
        Case("esp-dfu build 'a sketch'", prepare=not_built("platformio.ini"), prints=["pio run -d 'a sketch'"]),
        Case(
            "esp-dfu build 'a sketch'",
            prepare=not_built("a.ino"),
            prints=["arduino-cli compile -b BOARD --output-dir 'a sketch/build' 'a sketch'"],
        ),
    ],
    "wrong-input": [
        Case(
            "esp-dfu flash 'my project/build/hello_world.bin' --no-loader",
            prints=["esp-dfu flash 'my project/build/hello_world.bin' --no-loader --at factory"],
        ),
        Case(
            "esp-dfu build app.bin",
            prepare=copied("my project/build/dfu.bin", "app.bin"),
            prints=["esp-dfu flash app.bin"],
        ),
        Case(
            "esp-dfu build 'my project/build/bootloader/bootloader.bin'",
            prints=["esp-dfu build ADDRESS 'my project/build/bootloader/bootloader.bin' ADDRESS APP.BIN"],
        ),
        Case("esp-dfu flash a.elf", prepare=elf, prints=[f"{PYTHON} -m esptool --chip CHIP elf2image a.elf"]),
        Case(
            "esp-dfu flash a.zip",
            prepare=lambda folder: (folder / "a.zip").write_bytes(b"PK\3\4" * 9),
            prints=["esp-dfu build --help"],
        ),
    ],
    "build-file": [Case(BUILD, prepare=replaced("flasher_args.json", b"{"), prints=[f"{IDF} reconfigure"])],
    "outside-project": [
        Case(
            f"{BUILD} --quiet",
            prepare=edited(flash_files={"0x10000": "../../other app.bin"}, app=None),
            also=copied("my project/build/hello_world.bin", "other app.bin"),
            prints=[f"{BUILD} --quiet --allow-outside"],
        )
    ],
    "target-not-supported": [Case(f"{BUILD} --target esp32c6", prints=[f"{IDF} flash"])],
    "layout": [Case(BUILD, prepare=edited(flash_files=OVERLAP), prints=[f"{IDF} menuconfig"])],
    "firmware": [
        Case(
            BUILD, prepare=cut("hello_world.bin"), prints=[f"{IDF} set-target CHIP", f"{IDF} build", f"{BUILD} --force"]
        )
    ],
    "image": [
        Case(FLASH, prepare=cut("dfu.bin"), prints=[BUILD]),
        Case(
            "esp-dfu flash a.bin",
            prepare=copied("my project/build/dfu.bin", "a.bin"),
            also=broken("a.bin"),
            prints=["esp-dfu build --help"],
        ),
        Case(f"{IDF} dfu-flash", prepare=cut("dfu.bin"), prints=[f"{IDF} dfu"]),
    ],
    "image-old": [Case(DOCTOR, "esp32s3", linux=open_to_all, prepare=app_changed, prints=[BUILD])],
    "wrong-target": [
        Case(
            "idf.py -C 'other chip' dfu-flash",
            prepare=copied("my project/build/dfu.bin", "other chip/build/dfu.bin"),
            prints=["idf.py -C 'other chip' dfu"],
        )
    ],
    "usage": [
        Case("esp-dfu frob", prints=["esp-dfu --help"]),
        Case("esp-dfu list --frob", prints=["esp-dfu list --help"]),
        Case("esp-dfu flash", prints=["esp-dfu flash --help"]),
    ],
    # Commands that go on.
    "": [
        Case(BUILD, prints=[FLASH]),
        Case(f"{BUILD} -o 'a b.bin'", prints=["esp-dfu flash 'a b.bin'"]),
        Case(f"{IDF} dfu", prints=[f"{IDF} dfu-flash"]),
        Case(FLASH, "esp32s3", prepare=app_changed, prints=[BUILD]),
        Case("esp-dfu doctor", "esp32s3", linux=open_to_all, prints=["esp-dfu flash DFU.BIN --trace trace.txt"]),
        Case(f"{FLASH} --after no-reset", "esp32s3", "esp32s3+dfu", prints=["esp-dfu reset"]),
        Case("esp-dfu enable 'my project'", prints=[f"{IDF} dfu-list"]),
    ],
}


@dataclass(frozen=True)
class Elsewhere:
    """Advice whose state cannot be made with `Case`; its commands are run on a good board.

    Attributes:
        reason: Why not, and which test makes it.
        typed: Options that were typed in that state.
        ends: Exit code of its commands of ours.
    """

    reason: str
    typed: str = ""
    ends: int = 0


NO_PORT = 69  # exit code
ELSEWHERE = {
    "no-driver": Elsewhere("Windows without WinUSB"),
    "serial-port-usable": Elsewhere("a serial port of the board: test_flash_serial flashes over one", ends=NO_PORT),
    "several-ports": Elsewhere("serial ports: test_flash_serial", " --over serial", NO_PORT),
    "serial-loader": Elsewhere("a serial port: test_flash_serial", " --over serial", NO_PORT),
    "no-download-mode": Elsewhere("a board that stays in its app: test_handover"),
    "no-dfu-mode": Elsewhere("a board that comes back as before: test_fault_matrix"),
    "other-board": Elsewhere("boards that swap their ports: test_flash"),
    "dfu-silent": Elsewhere("a chip that falls silent after SYNC: test_fault_matrix"),
    "flash-too-small": Elsewhere("flash memory smaller than the image: test_acquaint"),
    "interrupted": Elsewhere("Ctrl-C: test_interruptions"),
    "no-thread": Elsewhere("a limit of processes: test_gang"),
    "no-package": Elsewhere("a missing package: test_doctor_environment"),
    "actions-refused": Elsewhere("a later idf.py: test_idf_actions"),
    "unknown": Elsewhere("a defect: test_diagnosis"),
}
