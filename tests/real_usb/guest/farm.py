"""Run docs/farm.md word for word: coordinator, exporter and client of labgrid, with the virtual machine's boards.

The exporter runs on this machine too, but ssh enters a mount namespace that does not see the client's files, so that
labgrid must copy them.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from esp_dfu_ext import events
from esp_dfu_ext.dfu.spec import Mode, Status
from esp_dfu_ext.errors import (
    DeviceGoneError,
    DeviceNotFoundError,
    DfuStatusError,
    InputMissingError,
    RemoteError,
    UsageError,
)
from esp_dfu_ext.launcher import write_launcher
from esp_dfu_ext.simulator.board import error_status, vanish

from ..usbip import wait_until
from .conftest import Image, MakeImage, VmBench, run, settle

pytestmark = [pytest.mark.vm, pytest.mark.filterwarnings("default")]

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = (REPOSITORY / "docs" / "farm.md").read_text(encoding="utf-8")
CLIENT = Path("/run/client")  # hidden from ssh
TOOL = Path("/opt/esp-dfu/bin/esp-dfu")
CACHE = Path("/var/cache/labgrid")
SSHD = """
ListenAddress 127.0.0.1
HostKey /root/.ssh/id_ed25519
AuthorizedKeysFile /root/.ssh/id_ed25519.pub
PermitRootLogin yes
StrictModes no
UsePAM no
PidFile none
"""


def file_of_page(name: str) -> str:
    """Return the code block that follows the first mention of a file."""
    found = re.search(rf"`{re.escape(name)}`.*?```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, name
    return found[1]


def commands_of_page(section: str) -> list[str]:
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    commands = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    assert commands, section
    return commands


class Farm:
    """The page's farm; everything runs in the client's folder."""

    def __init__(self) -> None:
        bin_folder = Path(sys.executable).parent
        self.environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "USER": "root"}
        self._servers: list[subprocess.Popen[bytes]] = []

    def client(self, command: str) -> None:
        """Run a command of the page."""
        done = subprocess.run(command, shell=True, cwd=CLIENT, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, (command, done)

    def serve(self, command: str, ready: Callable[[], bool]) -> None:
        """Start a command of the page, or a server that the page requires."""
        with (CLIENT / "servers.log").open("ab") as log:
            self._servers.append(
                subprocess.Popen(command.split(), cwd=CLIENT, env=self.environment, stdout=log, stderr=log)
            )
        wait_until(ready, command, deadline=30)

    def log(self) -> str:
        return (CLIENT / "servers.log").read_text(encoding="utf-8")

    def stop(self) -> None:
        for server in reversed(self._servers):
            server.send_signal(signal.SIGTERM)
            server.wait(20)


def answers(command: str) -> Callable[[], bool]:
    return lambda: subprocess.run(command, shell=True, capture_output=True).returncode == 0


def start_ssh(farm: Farm) -> None:
    """Start an ssh server in a mount namespace in which the client's folder is empty."""
    Path("/root/.ssh").mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519"], check=True)
    Path("/root/.ssh/config").write_text("StrictHostKeyChecking accept-new\n")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    Path("/run/sshd_config").write_text(SSHD)
    script = Path("/run/start_sshd")
    script.write_text(f"mount -t tmpfs none {CLIENT} && exec /usr/sbin/sshd -D -e -f /run/sshd_config\n")
    farm.serve(f"unshare --mount sh {script}", answers("ssh 127.0.0.1 true"))
    assert run("ssh", "127.0.0.1", "ls", str(CLIENT)).out == ""


STOCK_EXPORTER = """
left:
  DFUDevice:
    match: {ID_PATH: platform-vhci_hcd.0-usb-0:1}
"""
STOCK_ENVIRONMENT = """
targets:
  main:
    resources:
      RemotePlace: {{name: stock}}
    drivers:
      DFUDriver: {{}}
tools: {{dfu-util: {tool}}}
options: {{coordinator_address: "127.0.0.1:20408"}}
"""


def add_stock_place(farm: Farm) -> None:
    """Export a port as labgrid's own DFUDevice; before the first session, which would not learn of a new place."""
    (CLIENT / "stock-exporter.yaml").write_text(STOCK_EXPORTER)
    (CLIENT / "stock.yaml").write_text(STOCK_ENVIRONMENT.format(tool=write_launcher(TOOL.parent)))
    farm.serve(
        "labgrid-exporter --coordinator 127.0.0.1:20408 --name stock --hostname 127.0.0.1 stock-exporter.yaml",
        lambda: farm.log().count("Exporter ready") == 2,
    )
    for words in ("create", "add-match stock/left/*", "acquire"):
        farm.client(f"labgrid-client --place stock {words}")


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    if not os.environ.get("ESP_DFU_VM"):
        pytest.fail("this runs in the virtual machine only: tests/real_usb/vm/boot.py")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    (CLIENT / "build").mkdir(parents=True)
    farm = Farm()
    # Installed as on the page, from this checkout.
    assert str(TOOL) in PAGE
    assert str(CACHE) in PAGE
    TOOL.parent.mkdir(parents=True)
    TOOL.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m esp_dfu_ext "$@"\n')
    TOOL.chmod(0o755)
    farm.client(commands_of_page("The machine with the boards")[1])
    # Only the name of the USB controller is specific to this machine.
    assert "pci-0000:00:14.0" in file_of_page("exporter.yaml")
    exporter = file_of_page("exporter.yaml").replace("pci-0000:00:14.0", "platform-vhci_hcd.0")
    (CLIENT / "exporter.yaml").write_text(exporter)
    for name in ("environment.yaml", "flash.py"):
        (CLIENT / name).write_text(file_of_page(name))
    try:
        start_ssh(farm)
        coordinator, exporter = commands_of_page("Coordinator and exporter")
        farm.serve(coordinator, lambda: "Coordinator ready" in farm.log())
        farm.serve(exporter, lambda: "Exporter ready" in farm.log())
        for command in commands_of_page("Places")[:4]:
            farm.client(command)
        add_stock_place(farm)
        yield farm
    finally:
        farm.stop()


@pytest.fixture
def image(image_for: MakeImage) -> Image:
    image = image_for("esp32s3")
    (CLIENT / "build").mkdir(parents=True, exist_ok=True)
    (CLIENT / "build" / "dfu.bin").write_bytes(image.path.read_bytes())
    return image


@pytest.fixture(scope="module")
def acquired(farm: Farm) -> Iterator[None]:
    """Acquire both places for the tests that follow; their resources appear and disappear with each test's boards."""
    acquire, release = commands_of_page("Places")[4:]
    for place in ("left", "right"):
        farm.client(acquire.replace("left", place))
    yield
    for place in ("left", "right"):
        farm.client(release.replace("left", place))


def driver(place: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the driver of a place, in this process, once labgrid has seen the board."""
    from labgrid import Environment

    monkeypatch.setenv("USER", "root")
    target = Environment(str(CLIENT / "environment.yaml")).get_target(place)
    assert target is not None
    found = target.get_driver("EspDfuDriver")

    def seen() -> bool:
        target.update_resources()
        return found.board.path is not None

    wait_until(seen, "labgrid sees the board")
    return found


def test_page_flashes_board_from_run_time_mode(bench: VmBench, image: Image, farm: Farm) -> None:
    left, right = bench.add("esp32s3", "1-1"), bench.add("esp32s3", "1-2")
    acquire, release = commands_of_page("Places")[4:]
    farm.client(acquire)
    done = subprocess.run(
        [sys.executable, "flash.py"], cwd=CLIENT, env=farm.environment, capture_output=True, text=True
    )
    farm.client(release)
    assert done.returncode == 0, (done, farm.log())
    assert f"{image.parsed.payload_size} bytes on port 1-1: OK in dfuIDLE" in done.stdout
    image.assert_in(left)
    assert right.rom.flash.read(0, 4096) == b"\xff" * 4096
    # labgrid copied the file, because the other side does not see the client's.
    assert [path.read_bytes() for path in CACHE.rglob("dfu.bin")] == [image.path.read_bytes()]


def test_events_and_second_place(bench: VmBench, image: Image, acquired: None, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = bench.add("esp32s3", "1-1"), bench.add("esp32s3", "1-2", Mode.DFU)
    seen: list[events.Event] = []
    board = driver("right", monkeypatch)
    with pytest.raises(UsageError):
        board.flash()
    result = board.flash(str(image.path), on_event=seen.append)
    assert (result.path, result.size, result.status) == ("1-2", image.parsed.payload_size, "OK")
    image.assert_in(right)
    assert left.rom.flash.read(0, 4096) == b"\xff" * 4096
    assert seen[0] == events.DeviceFound("1-2", "DFU", "7c:df:a1:00:00:02")
    assert isinstance(seen[-1], events.Flashed)
    total = len(image.parsed.stream)
    done = [event.done for event in seen if isinstance(event, events.Progress)]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, total)
    assert [device["path"] for device in board.list()] == ["1-1", "1-2"]


def test_remote_errors_keep_their_type_and_facts(
    bench: VmBench, image: Image, acquired: None, image_for: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = bench.add("esp32s3", "1-1")
    board = driver("left", monkeypatch)
    with pytest.raises(InputMissingError):
        board.flash("/run/client/no-such.bin")
    with pytest.raises(DeviceNotFoundError) as other_chip:
        board.flash(str(image_for("esp32s2").path))
    assert other_chip.value.code == "other-chip"
    assert "ESP32-S3 with DFU" in other_chip.value.notes[0]
    left.faults.plan(error_status(Status.errWRITE), 200)
    with pytest.raises(DfuStatusError) as refused:
        board.flash()
    assert (refused.value.code, refused.value.exit_code, refused.value.state) == ("dfu-status", 74, "dfuERROR")
    assert refused.value.status == "errWRITE"
    # The next flash succeeds with the same driver and place.
    board.flash()
    image.assert_in(left)


def test_unplugged_board_can_be_flashed_after_replug(
    bench: VmBench, image: Image, acquired: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = bench.add("esp32s3", "1-1")
    board = driver("left", monkeypatch)
    left.faults.plan(vanish, 200)
    with pytest.raises(DeviceGoneError) as gone:
        board.flash()
    assert gone.value.code == "device-gone"
    assert "The image in flash memory may be incomplete." in gone.value.notes
    with pytest.raises(DeviceNotFoundError):  # from labgrid or esp-dfu, whichever notices first
        board.flash()
    bench.hub.plug(left)
    board = driver("left", monkeypatch)
    board.flash()
    image.assert_in(left)


def stop(event: events.Event) -> None:
    """Raise KeyboardInterrupt in mid-download."""
    if isinstance(event, events.Progress) and event.done > 4096:
        raise KeyboardInterrupt


LOCAL = f"""
targets:
  main:
    resources:
      {{kind}}:
        match: {{{{ID_PATH: platform-vhci_hcd.0-usb-0:1}}}}
    drivers:
      EspDfuDriver: {{{{}}}}
tools: {{{{esp-dfu: {TOOL}}}}}
imports: [esp_dfu_ext.labgrid]
"""


@pytest.mark.parametrize("kind", ["USBFlashableDevice", "DFUDevice"])
def test_local_resource_flashes_board(bench: VmBench, image: Image, farm: Farm, tmp_path: Path, kind: str) -> None:
    """Without coordinator and ssh. A DFUDevice exists in DFU mode only, as the page says."""
    from labgrid import Environment
    from labgrid.exceptions import NoResourceFoundError

    left = bench.add("esp32s3", "1-1")
    settle()
    (tmp_path / "environment.yaml").write_text(LOCAL.format(kind=kind))
    target = Environment(str(tmp_path / "environment.yaml")).get_target("main")
    assert target is not None
    if kind == "DFUDevice":
        with pytest.raises(NoResourceFoundError):
            target.get_driver("EspDfuDriver")
        bench.hub.unplug(left)
        bench.hub.plug(left, Mode.DFU)
    board = target.get_driver("EspDfuDriver")
    left.faults.block_time = 0.05
    with pytest.raises(KeyboardInterrupt):
        board.flash(str(image.path), on_event=stop)
    left.faults.block_time = 0.0
    assert run("pgrep", "-f", "esp_dfu_ext flash").code == 1  # it has ended
    assert board.flash(str(image.path)).path == "1-1"
    image.assert_in(left)
    assert [device["path"] for device in board.list()] == ["1-1"]


def test_missing_remote_tool_is_reported(
    bench: VmBench, image: Image, acquired: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = bench.add("esp32s3", "1-1")
    board = driver("left", monkeypatch)
    board.tool = "/nowhere/esp-dfu"
    with pytest.raises(RemoteError) as missing:
        board.flash()
    assert "exit code 127" in str(missing.value)
    assert "/nowhere/esp-dfu" in missing.value.notes[-1]
    assert left.rom.flash.read(0, 4096) == b"\xff" * 4096


def test_ctrl_c_ends_remote_flash(
    bench: VmBench, image: Image, acquired: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = bench.add("esp32s3", "1-1", Mode.DFU)
    board = driver("left", monkeypatch)
    left.faults.block_time = 0.02
    with pytest.raises(KeyboardInterrupt):
        board.flash(on_event=stop)
    wait_until(lambda: run("pgrep", "-f", "esp_dfu_ext flash").code == 1, "esp-dfu has ended", deadline=20)
    left.faults.block_time = 0.0
    assert bytes(left.rom.flash.read(0x10000, 16)) == b"\xff" * 16  # stopped before the app
    board.flash()
    image.assert_in(left)


def test_labgrids_own_dfu_driver_uses_our_dfu_util(
    bench: VmBench, image: Image, farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """labgrid's driver, unchanged, with esp-dfu in the place of dfu-util on the board's machine."""
    from labgrid import Environment
    from labgrid.util.helper import processwrapper

    monkeypatch.setenv("USER", "root")
    left, right = bench.add("esp32s3", "1-1", Mode.DFU), bench.add("esp32s3", "1-2", Mode.DFU)
    settle()
    said: list[str] = []

    def listen(part: bytes, process: Any) -> None:
        said.append(part.decode())

    processwrapper.register(listen)
    try:
        target = Environment(str(CLIENT / "stock.yaml")).get_target("main")
        assert target is not None
        board = target.get_driver("DFUDriver")
        board.list()
        board.download(0, str(image.path))
        board.detach(0)
        image.assert_in(left)
        with pytest.raises(subprocess.CalledProcessError) as missing:
            board.download(1, str(image.path))
        assert missing.value.returncode == 74
        assert b"No DFU capable USB device available" in missing.value.output
        with pytest.raises(subprocess.CalledProcessError) as damaged:
            board.download(0, str(CLIENT / "stock.yaml"))
        assert damaged.value.returncode == 65
    finally:
        processwrapper.unregister(listen)
    print("\n".join(part.strip("\n") for part in said))  # pytest -rP shows it
    assert right.rom.flash.read(0, 4096) == b"\xff" * 4096
    assert sum("Found DFU: [303a:0009]" in part and 'path="1-1"' in part for part in said) == 1
    assert sum("Download done." in part for part in said) == 1
    image.assert_in(left)
