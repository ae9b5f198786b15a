"""`esp-dfu dfu-util`: dfu-util's options, the devices that they match, what arrives, exit codes and lines."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from esp_dfu_ext import build
from esp_dfu_ext.commands.dfu_util import exit_code
from esp_dfu_ext.commands.dfu_util_options import Action, parse
from esp_dfu_ext.commands.host import Host
from esp_dfu_ext.dfu.matching import ANY, NOTHING, UsbIds
from esp_dfu_ext.dfu.spec import Mode, State, Status
from esp_dfu_ext.errors import UsageError, all_errors
from esp_dfu_ext.image.suffix import Suffix, encode
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.board import error_status, stall
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.target import load_target, read_target

from .kit.archives import CHIP_SIZE, MIB
from .kit.boards import Rig, Transfer, make_rig
from .kit.chips import chip
from .kit.commands import run
from .kit.host import ABORT, DETACH, DNLOAD, UPLOAD
from .kit.plain_device import BLOCK, PlainDevice, plain_board

Capture = pytest.CaptureFixture[str]
BANNER = "dfu-util 0.11\n\n"
IDLE = "DFU state(2) = dfuIDLE, status(0) = No error condition is present\n"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a dfu.bin for each of two chips."""
    made = {}
    for name in ("esp32s2", "esp32s3"):
        folder = tmp_path_factory.mktemp(name)
        project = write_sample_project(folder, load_target(name), app_size=8_000, bootloader_size=4_000)
        made[name] = build(project).path
    return made


class Bench:
    """A rig of simulated boards on which the command runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.rig = make_rig()
        self.out = self.err = ""

    def boards(self, *names: str, mode: Mode = Mode.RUN_TIME, more: Sequence[Board] = ()) -> Rig:
        self.rig = make_rig(*names, mode=mode) if names else Rig(clock=self.rig.clock)
        for board in more:
            board.clock = self.rig.clock
            self.rig.add(board)
        return self.rig

    def plain(self, mode: Mode = Mode.RUN_TIME, *, bcd_dfu: int = 0x0110) -> PlainDevice:
        """Put one device on the bus that is not a chip of ours."""
        board = plain_board("1-1", self.rig.clock, mode, bcd_dfu=bcd_dfu)
        self.boards(more=[board])
        assert isinstance(board.rom, PlainDevice)
        return board.rom

    def run(self, *words: object) -> int:
        host = Host(self.rig.clock, open_usb=lambda: self.rig.bus)
        self._monkeypatch.setattr("esp_dfu_ext.commands.session.this_host", lambda: host)
        code = run("dfu-util", *words)
        self.out, self.err = self._capsys.readouterr()
        return code

    @property
    def listed(self) -> list[str]:
        """The paths of the listed interfaces."""
        return re.findall(r'^Found .*path="(.*?)"', self.out, re.MULTILINE)

    @property
    def written(self) -> list[str]:
        """The ports of the boards that received a block."""
        return sorted({transfer.path for transfer in self.rig.dfu(DNLOAD)})


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Bench:
    return Bench(monkeypatch, capsys)


# --- the command line -------------------------------------------------------------------------------------


def test_options_may_be_combined_permuted_and_shortened() -> None:
    options = parse(["-vRp1-2", "--down", "a.bin", "-vD", "b.bin", "--alt=1", "-E", "3", "-t0x40"])
    assert (options.action, options.file, options.verbose, options.reset) == (Action.DOWNLOAD, "b.bin", 2, True)
    assert (options.match.path, options.match.alternate) == ("1-2", 1)
    assert (options.detach_delay, options.transfer_size) == (3.0, 64)


def test_last_action_counts() -> None:
    assert parse(["-D", "a", "-l"]).action is Action.LIST
    assert parse(["-l", "-U", "a"]).action is Action.UPLOAD
    assert parse([]).action is None


@pytest.mark.parametrize(
    ("text", "run_time", "dfu"),
    [
        ("303a:2", (0x303A, 2), None),
        ("303a", (0x303A, ANY), None),
        ("303a:", (0x303A, ANY), None),
        (":2", (ANY, 2), None),
        ("*", (ANY, ANY), None),
        ("0x1457:51ab,951:26", (0x1457, 0x51AB), (0x951, 0x26)),
        ("1457:51ab,:2bc", (0x1457, 0x51AB), (0x1457, 0x2BC)),
        ("1457:51ab,951", (0x1457, 0x51AB), (0x951, 0x51AB)),
        ("1457:51ab,", (0x1457, 0x51AB), (0x1457, 0x51AB)),
        (",951:26", (NOTHING, NOTHING), (0x951, 0x26)),
        (",", (NOTHING, NOTHING), (ANY, ANY)),
        ("*,-", (ANY, ANY), (NOTHING, ANY)),
    ],
)
def test_device_ids(text: str, run_time: tuple[int, int], dfu: tuple[int, int] | None) -> None:
    match = parse(["-d", text]).match
    assert match.run_time == UsbIds(*run_time)
    assert match.dfu == (None if dfu is None else UsbIds(*dfu))


@pytest.mark.parametrize(
    ("text", "run_time", "dfu"), [("a", "a", "a"), ("a,b", "a", "b"), ("a,", "a", None), (",b", None, "b")]
)
def test_serial_numbers(text: str, run_time: str | None, dfu: str | None) -> None:
    match = parse(["-S", text]).match
    assert (match.serial, match.dfu_serial) == (run_time, dfu)


@pytest.mark.parametrize(("text", "number"), [("0x10", 16), ("010", 8), ("08", 8), ("7", 7), ("0", 0)])
def test_numbers_are_those_of_c(text: str, number: int) -> None:
    assert parse(["-i", text]).match.interface == number


def test_configuration_0_matches_any_and_alternate_may_be_name() -> None:
    match = parse(["-c", "0", "-a", "rootfs"]).match
    assert (match.configuration, match.alternate) == (None, "rootfs")


@pytest.mark.parametrize(
    "words",
    [
        ["-Q"],
        ["--frob"],
        ["--d", "x"],
        ["-D"],
        ["--list=1"],
        ["-i", "x"],
        ["-n", "-1"],
        ["-t", "99999999999"],
        ["-E", "1.5"],
        ["-d", "303a:xyz"],
        ["-d", "12345:1"],
        ["-l", "extra"],
    ],
)
def test_wrong_command_line_is_exit_64_without_banner(words: list[str], bench: Bench) -> None:
    with pytest.raises(UsageError):
        parse(words)
    assert (bench.run(*words), bench.out) == (64, "")
    assert "[usage]" in bench.err


def test_help_and_version(bench: Bench) -> None:
    assert bench.run("-D", "none", "--help", "extra") == 0
    assert bench.out == ""
    assert "-D, --download FILE" in bench.err
    assert bench.run("-V") == 0
    assert bench.out.startswith(BANNER)
    assert bench.err == ""


def test_nothing_to_do_is_exit_64(bench: Bench) -> None:
    assert bench.run("-d", "303a:2") == 64
    assert bench.out.startswith(BANNER)


def test_every_error_has_an_exit_code_of_dfu_util() -> None:
    made = [kind.restore("x", (), {}) for kind in all_errors()]
    assert {exit_code(error) for error in made} == {64, 65, 66, 73, 74, 130}


# --- which device -----------------------------------------------------------------------------------------


def test_list_has_a_line_for_each_interface(bench: Bench) -> None:
    bench.boards("esp32s2", more=[plain_board("1-2", bench.rig.clock, Mode.DFU)])
    assert bench.run("-l") == 0
    assert bench.out.startswith(BANNER)
    assert bench.out.splitlines()[-3:] == [
        'Found Runtime: [303a:0002] ver=0723, devnum=2, cfg=1, intf=2, path="1-1", alt=0, name="UNKNOWN", serial="0"',
        'Found DFU: [1209:0002] ver=0200, devnum=3, cfg=1, intf=0, path="1-2", alt=0, name="internal", serial="plain"',
        'Found DFU: [1209:0002] ver=0200, devnum=3, cfg=1, intf=0, path="1-2", alt=1, name="external", serial="plain"',
    ]


def test_list_without_device_is_banner_and_exit_0(bench: Bench) -> None:
    bench.boards()
    assert bench.run("--list") == 0
    assert (bench.listed, bench.err) == ([], "")


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        ([], ["1-1", "1-2", "1-3", "1-3"]),
        (["-d", "303a:2"], ["1-1"]),
        (["-d", "303a:9"], ["1-2"]),
        (["-d", "303a"], ["1-1", "1-2"]),
        (["-d", "*"], ["1-1", "1-2", "1-3", "1-3"]),
        (["-d", "-"], ["1-2", "1-3", "1-3"]),
        (["-d", "*,-"], ["1-1"]),
        (["-d", ","], ["1-2", "1-3", "1-3"]),
        (["-d,303a:9"], ["1-2"]),
        (["-d", "303a:2,303a:9"], ["1-1", "1-2"]),
        (["-d", "1209:1"], ["1-3", "1-3"]),
        (["-p", "1-2"], ["1-2"]),
        (["-p", "1-"], []),
        (["-n", "3"], ["1-2"]),
        (["-c", "1"], ["1-1", "1-2", "1-3", "1-3"]),
        (["-c", "2"], []),
        (["-i", "0"], ["1-3", "1-3"]),
        (["-a", "1"], ["1-1", "1-3"]),
        (["-a", "external"], ["1-1", "1-3"]),
        (["-S", "0"], ["1-1"]),
        (["-S", "0,plain"], ["1-1", "1-3", "1-3"]),
        (["-S", ",plain"], ["1-1", "1-3", "1-3"]),
    ],
)
def test_matching(words: list[str], paths: list[str], bench: Bench) -> None:
    bench.boards("esp32s2", "esp32s3", more=[plain_board("1-3", bench.rig.clock, Mode.DFU)])
    bench.rig.boards[1].rom.restart(Mode.DFU)
    assert bench.run("-l", *words) == 0
    assert bench.listed == paths


def test_foreign_device_in_dfu_mode_is_not_taken(bench: Bench, images: dict[str, Path]) -> None:
    """dfu-util takes any device in DFU mode if only run-time IDs are given."""
    device = bench.plain(Mode.DFU)
    assert bench.run("-d", "303a:2", "-D", images["esp32s2"]) == 74
    assert "dfu-util: No DFU capable USB device available\n" in bench.err
    assert "[no-device]" in bench.err
    assert (device.memories[0], bench.written) == (b"", [])


def test_file_names_the_device(bench: Bench, images: dict[str, Path]) -> None:
    bench.boards("esp32s2", "esp32s3")
    assert bench.run("-D", images["esp32s3"]) == 0
    assert bench.written == ["1-2"]


def test_two_boards_are_exit_74(bench: Bench, images: dict[str, Path]) -> None:
    bench.boards("esp32s3", "esp32s3")
    assert bench.run("-D", images["esp32s3"]) == 74
    assert "1-1, 1-2" in bench.err
    assert bench.rig.dfu(DETACH) == []
    assert bench.run("-D", images["esp32s3"], "-S", "7c:df:a1:00:00:02") == 0
    assert bench.written == ["1-2"]


def test_board_without_permission_is_named(bench: Bench, images: dict[str, Path]) -> None:
    bench.boards("esp32s3").board.faults.no_access = True
    assert bench.run("-D", images["esp32s3"], "-S", "7c:df:a1:00:00:01") == 74
    assert "[no-permission]" in bench.err
    assert bench.run("-l") == 0
    assert bench.listed == ["1-1"]
    assert "[no-permission]" in bench.err


def test_wait_takes_board_that_comes_later(bench: Bench, images: dict[str, Path]) -> None:
    board = bench.boards("esp32s3").board
    board.unplug()
    board.plug(after=60)
    assert bench.run("-w", "-D", images["esp32s3"]) == 0
    assert "Waiting for device, exit with ctrl-C\n" in bench.out


def test_wait_gives_the_system_time_for_access(bench: Bench, images: dict[str, Path]) -> None:
    rig = bench.boards("esp32s3")
    rig.board.faults.no_access = True
    began = rig.clock.monotonic()

    scans = rig.scans
    assert bench.run("-w", "-D", images["esp32s3"]) == 74
    assert 2 <= rig.clock.monotonic() - began < 3
    assert rig.scans - scans > 20


def test_chip_of_the_project_is_known(bench: Bench, images: dict[str, Path], tmp_path: Path) -> None:
    """Without its file in the project, the image would go to an unknown device as it is."""
    ours = (Path(load_target("esp32s2").source or "")).read_text(encoding="utf-8")
    own = ours.replace("name: esp32s2", "name: esp32x1").replace("pid: 0x0002", "pid: 0x7777")
    (tmp_path / "build").mkdir()
    (tmp_path / "dfu_targets").mkdir()
    (tmp_path / "dfu_targets" / "esp32x1.yaml").write_text(own, encoding="utf-8")
    (tmp_path / "CMakeLists.txt").touch()
    content = images["esp32s2"].read_bytes()[:-16]
    (tmp_path / "build" / "dfu.bin").write_bytes(suffixed(content, 0x303A, 0x7777))
    board = Board.make(read_target(tmp_path / "dfu_targets" / "esp32x1.yaml"), "1-1", bench.rig.clock)
    bench.boards(more=[board])
    assert bench.run("-D", tmp_path / "build" / "dfu.bin") == 0, bench.err
    assert (bench.written, bench.err) == (["1-1"], "")


# --- download ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(Mode))
def test_image_is_flashed(mode: Mode, bench: Bench, images: dict[str, Path]) -> None:
    board = Board.make(chip("esp32s2"), "1-1", bench.rig.clock, flash_size=4 * MIB)
    rig = bench.boards(more=[board])
    board.rom.restart(mode)
    assert bench.run("-d", "303a:2", "-a", "0", "-D", images["esp32s2"]) == 0
    assert bench.err == ""
    assert "\nDevice ID 303a:0002\n" in bench.out
    assert bench.out.endswith(f"Download done.\n{IDLE}Done!\n")
    assert rig.board.rom.flash.read(0x10000, 1) == b"\xe9"
    assert rig.resets == []


def test_bar_has_the_form_that_programs_read(bench: Bench, images: dict[str, Path]) -> None:
    bench.boards("esp32s3")
    bench.run("-D", images["esp32s3"])
    bars = re.findall(r"\rDownload\t\[(=* *)\] +(\d+)% +(\d+) bytes", bench.out)
    assert {len(bar) for bar, _, _ in bars} == {25}
    assert [int(percent) for _, percent, _ in bars] == sorted(int(percent) for _, percent, _ in bars)
    assert bars[-1][:2] == ("=" * 25, "100")
    assert bench.out.count("100%") == 1


def test_download_starts_without_the_five_seconds(bench: Bench, images: dict[str, Path]) -> None:
    rig = bench.boards("esp32s3")
    bench.run("-D", images["esp32s3"])
    assert rig.dfu(DNLOAD)[0].when - rig.dfu(DETACH)[0].when < 2


def test_failed_verification_is_not_done(bench: Bench, images: dict[str, Path]) -> None:
    """dfu-util ends with 0 and "Done!" if the chip reports an error for the last block."""
    rig = bench.boards("esp32s3", mode=Mode.DFU)

    def differ(transfer: Transfer) -> None:
        if transfer.request == DNLOAD and not transfer.data:
            rig.board.rom.fail(Status.errFIRMWARE)

    rig.after = differ
    assert bench.run("-D", images["esp32s3"]) == 74
    assert "errFIRMWARE" in bench.err
    assert "done" not in bench.out.lower()


def test_damaged_image_is_not_sent(bench: Bench, images: dict[str, Path], tmp_path: Path) -> None:
    bench.boards("esp32s3")
    damaged = tmp_path / "dfu.bin"
    content = bytearray(images["esp32s3"].read_bytes())
    content[5000] ^= 1
    damaged.write_bytes(content)
    assert bench.run("-d", "303a:9", "-D", damaged) == 65
    damaged.write_bytes(images["esp32s3"].read_bytes()[:-1] + b"x")
    assert bench.run("-d", "303a:9", "-D", damaged) == 65
    assert "dfu.bin is damaged" in bench.err
    damaged.write_bytes(content[:-16])
    assert bench.run("-d", "303a:9", "-D", damaged) == 65
    assert (bench.rig.dfu(DETACH), bench.written) == ([], [])


def test_image_for_another_chip_is_exit_64(bench: Bench, images: dict[str, Path]) -> None:
    bench.boards("esp32s3")
    assert bench.run("-d", "303a:9", "-D", images["esp32s2"]) == 64
    assert "is for 303a:0002" in bench.err
    assert bench.rig.dfu(DETACH) == []


def test_missing_file_is_exit_66_and_empty_one_65(bench: Bench, tmp_path: Path) -> None:
    assert bench.run("-D", tmp_path / "none.bin") == 66
    (tmp_path / "empty.bin").touch()
    assert bench.run("-D", tmp_path / "empty.bin") == 65


def test_image_from_stdin(bench: Bench, images: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    bench.boards("esp32s3")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(images["esp32s3"].read_bytes())))
    assert bench.run("-D", "-") == 0
    assert bench.written == ["1-1"]


def test_wrong_alternate_is_found_before_detach(bench: Bench, images: dict[str, Path]) -> None:
    bench.boards("esp32s3")
    assert bench.run("-a", "1", "-D", images["esp32s3"]) == 74
    assert "Found ESP32-S3, but no board that matches all options." in bench.err
    assert "esp-dfu list" in bench.err
    assert bench.rig.dfu(DETACH) == []


def test_larger_blocks_than_the_rom_takes_are_not_sent(bench: Bench, images: dict[str, Path]) -> None:
    bench.boards("esp32s3")
    assert bench.run("-t", "4096", "-D", images["esp32s3"]) == 0
    assert {len(transfer.data) for transfer in bench.rig.dfu(DNLOAD)} <= set(range(65))
    assert "-t 4096 has no effect" in bench.err


def test_detach_delay_is_the_longest_wait(bench: Bench, images: dict[str, Path]) -> None:
    rig = bench.boards("esp32s3")
    rig.board.faults.no_return = True
    began = rig.clock.monotonic()
    assert bench.run("-E", "2", "-D", images["esp32s3"]) == 74
    assert "within 2 s" in bench.err
    assert rig.clock.monotonic() - began < 5


def test_reset_afterwards(bench: Bench, images: dict[str, Path]) -> None:
    rig = bench.boards("esp32s3")
    assert bench.run("-R", "-D", images["esp32s3"]) == 0
    assert rig.resets == ["1-1"]
    assert "after the bus reset" in bench.err


# --- other devices ----------------------------------------------------------------------------------------

PAYLOAD = bytes(range(256)) * 10


def suffixed(payload: bytes, vid: int, pid: int, bcd_dfu: int = 0x0100) -> bytes:
    return payload + encode(Suffix(vid, pid, 0xFFFF, bcd_dfu), zlib.crc32(payload))


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("with_suffix", [True, False])
def test_any_file_goes_to_a_foreign_device(mode: Mode, with_suffix: bool, bench: Bench, tmp_path: Path) -> None:
    device = bench.plain(mode)
    file = tmp_path / "any.bin"
    file.write_bytes(suffixed(PAYLOAD, 0x1209, 1) if with_suffix else PAYLOAD)
    assert bench.run("-d", "1209:1", "-a", "external", "-D", file) == 0, bench.err
    assert device.memories == [b"", PAYLOAD]
    assert "is sent as it is" in bench.err
    assert ("has no DFU suffix" in bench.err) is not with_suffix
    assert bench.out.endswith(f"Download done.\n{IDLE}Done!\n")
    assert {len(t.data) for t in bench.rig.dfu(DNLOAD)} == {BLOCK, len(PAYLOAD) % BLOCK, 0}


def test_file_with_run_time_ids_goes_to_device_in_dfu_mode(bench: Bench, tmp_path: Path) -> None:
    device = bench.plain(Mode.DFU)
    (tmp_path / "any.bin").write_bytes(suffixed(PAYLOAD, 0x1209, 1))
    assert bench.run("-a0", "-D", tmp_path / "any.bin") == 0
    assert device.memories[0] == PAYLOAD


def test_several_alternate_settings_need_a_choice(bench: Bench, tmp_path: Path) -> None:
    device = bench.plain(Mode.DFU)
    (tmp_path / "any.bin").write_bytes(PAYLOAD)
    assert bench.run("-d", "1209:1", "-D", tmp_path / "any.bin") == 74
    assert "several alternate settings: 0, 1" in bench.err
    assert device.memories == [b"", b""]


@pytest.mark.parametrize(("size", "sent"), [("128", 128), ("32", 64), ("100000", BLOCK)])
def test_transfer_size_of_foreign_device(size: str, sent: int, bench: Bench, tmp_path: Path) -> None:
    device = bench.plain(Mode.DFU)
    (tmp_path / "any.bin").write_bytes(PAYLOAD)
    assert bench.run("-d", "1209:1", "-a0", "-t", size, "-D", tmp_path / "any.bin") == 0
    assert device.memories[0] == PAYLOAD
    assert max(len(t.data) for t in bench.rig.dfu(DNLOAD)) == sent


def test_file_for_another_foreign_device_is_exit_64(bench: Bench, tmp_path: Path) -> None:
    device = bench.plain(Mode.DFU)
    (tmp_path / "any.bin").write_bytes(suffixed(PAYLOAD, 0x1234, 5))
    assert bench.run("-d", "1209:1", "-a0", "-D", tmp_path / "any.bin") == 64
    assert device.memories == [b"", b""]


def test_plain_file_does_not_go_to_a_chip(bench: Bench, tmp_path: Path) -> None:
    bench.boards("esp32s3")
    for content in (PAYLOAD, b"\xe9" + bytes(500), suffixed(PAYLOAD, 0xFFFF, 0xFFFF)):
        (tmp_path / "any.bin").write_bytes(content)
        assert bench.run("-d", "303a:9", "-D", tmp_path / "any.bin") == 65
    assert (bench.rig.dfu(DETACH), bench.written) == ([], [])


def test_dfuse_is_exit_64(bench: Bench, tmp_path: Path) -> None:
    device = bench.plain(Mode.DFU, bcd_dfu=0x011A)
    file = tmp_path / "any.bin"
    file.write_bytes(PAYLOAD)
    for words in (["-D", file], ["-U", tmp_path / "new"], ["-s", "0x08000000:leave", "-D", file], ["-s", ":leave"]):
        assert bench.run("-d", "1209:2", "-a0", *words) == 64
        assert "DfuSe" in bench.err
    file.write_bytes(suffixed(b"DfuSe" + PAYLOAD, 0x1209, 2, 0x011A))
    assert bench.run("-D", file) == 64
    assert device.memories == [b"", b""]
    assert not (tmp_path / "new").exists()


def test_error_of_foreign_device_is_exit_74(bench: Bench, tmp_path: Path) -> None:
    bench.plain(Mode.DFU)
    bench.rig.board.faults.plan(error_status(Status.errADDRESS), 1)
    (tmp_path / "any.bin").write_bytes(PAYLOAD)
    assert bench.run("-d", "1209:2", "-a0", "-D", tmp_path / "any.bin") == 74
    assert "errADDRESS" in bench.err
    assert "is in dfuIDLE" in bench.err
    assert len([t for t in bench.rig.dfu(DNLOAD) if t.data]) <= 2


def test_failed_transfer_to_foreign_device_is_not_repeated(bench: Bench, tmp_path: Path) -> None:
    device = bench.plain(Mode.DFU)
    bench.rig.board.faults.plan(stall, 2)
    (tmp_path / "any.bin").write_bytes(PAYLOAD)
    assert bench.run("-d", "1209:2", "-a0", "-D", tmp_path / "any.bin") == 74
    assert device.memories == [b"", b""]


# --- upload -----------------------------------------------------------------------------------------------


def fill(board: Board, size: int = CHIP_SIZE) -> bytes:
    """Fill flash memory with bytes that differ from block to block."""
    content = b"".join(n.to_bytes(4, "little") for n in range(size // 4))
    for address in range(0, size, 4096):
        board.rom.flash.erase(address, 4096)
        board.rom.flash.program(address, content[address : address + 4096])
    return content


@pytest.mark.parametrize("mode", list(Mode))
def test_upload_of_a_chip(mode: Mode, bench: Bench, tmp_path: Path) -> None:
    rig = bench.boards("esp32s3", mode=mode)
    content = fill(rig.board)
    before = rig.board.rom.flash.read(0, CHIP_SIZE)
    size = CHIP_SIZE + 100  # what is beyond flash memory repeats it
    assert bench.run("-U", tmp_path / "new.bin", "-Z", size) == 0
    assert (tmp_path / "new.bin").read_bytes() == (content * 2)[:size]
    assert f"Upload done.\nReceived a total of {size} bytes\n" in bench.out
    assert rig.board.rom.flash.read(0, CHIP_SIZE) == before
    assert rig.board.rom.state is State.dfuIDLE
    assert [path.name for path in tmp_path.iterdir()] == ["new.bin"]


def test_upload_beyond_the_size_that_the_rom_assumes(bench: Bench, tmp_path: Path) -> None:
    """dfu-util's file has arbitrary bytes beyond 2 MiB."""
    board = Board.make(chip("esp32s2"), "1-1", bench.rig.clock, flash_size=4 * MIB)
    board.rom.restart(Mode.DFU)
    bench.boards(more=[board])
    content = fill(board, 4 * MIB)
    size = 2 * MIB + 4096
    assert bench.run("-U", tmp_path / "new.bin", "-Z", size) == 0
    assert (tmp_path / "new.bin").read_bytes() == content[:size]


@pytest.mark.parametrize(
    ("words", "chip_size", "ranges"), [([], 4 * MIB, []), (["-Z", 100], 65536, []), (["-Z", 5 * MIB], 5 * MIB, [5])]
)
def test_what_the_rom_is_told_before_an_upload(
    words: list[object], chip_size: int, ranges: list[int], bench: Bench, tmp_path: Path
) -> None:
    rig = bench.boards("esp32s2", mode=Mode.DFU)

    def stop(transfer: Transfer) -> None:
        if transfer.request == UPLOAD:
            raise KeyboardInterrupt

    rig.before = stop
    assert bench.run("-U", tmp_path / "new.bin", *words) == 130
    archive = b"".join(transfer.data for transfer in rig.dfu(DNLOAD))
    assert chip_size.to_bytes(4, "little") + (65536).to_bytes(4, "little") in archive
    assert [t.value for t in rig.log if (t.request_type, t.request) == (0x01, 0x0B)] == ranges
    assert ("Reading 4 MiB from address 0" in bench.err) is (not words)


def test_upload_of_more_than_the_chip_can_address_is_exit_64(bench: Bench, tmp_path: Path) -> None:
    bench.boards("esp32s2", mode=Mode.DFU)
    assert bench.run("-U", tmp_path / "new.bin", "-Z", 17 * MIB) == 64
    assert list(tmp_path.iterdir()) == []


def test_existing_file_is_kept_and_nothing_sent(bench: Bench, tmp_path: Path) -> None:
    bench.boards("esp32s3")
    (tmp_path / "old.bin").write_text("old")
    assert bench.run("-U", tmp_path / "old.bin") == 73
    assert bench.run("-U", tmp_path / "none" / "new.bin") == 73
    assert (tmp_path / "old.bin").read_text() == "old"
    assert bench.rig.log == []


@pytest.mark.parametrize("at", [40, 1000])  # after the last block no other stalls
@pytest.mark.parametrize("fault", ["wrong block", "short", "error", "vanish", "ctrl-c"])
def test_bad_upload_leaves_no_file(fault: str, at: int, bench: Bench, tmp_path: Path) -> None:
    rig = bench.boards("esp32s3", mode=Mode.DFU)

    def disturb(transfer: Transfer) -> None:
        if len(rig.dfu(UPLOAD)) == at and transfer.request == UPLOAD:
            if fault == "ctrl-c":
                raise KeyboardInterrupt
            if fault == "vanish":
                rig.board.unplug()
            elif fault == "short":
                rig.board.rom._upload_left = 10
            elif fault == "wrong block":
                rig.board.rom._upload_block += 1
            else:
                rig.board.rom.fail(Status.errVENDOR)

    rig.before = disturb
    code = 130 if fault == "ctrl-c" else 74
    assert bench.run("-U", tmp_path / "new.bin", "-Z", 64_000) == code, bench.err
    assert list(tmp_path.iterdir()) == []
    assert len(rig.dfu(UPLOAD)) <= at + 1
    if fault != "vanish":
        assert rig.board.rom.state is State.dfuIDLE


def test_upload_of_foreign_device_ends_with_a_short_block(bench: Bench, tmp_path: Path) -> None:
    device = bench.plain(Mode.DFU)
    for memory in (PAYLOAD, PAYLOAD[:BLOCK], b""):
        device.memories[1] = memory
        file = tmp_path / f"{len(memory)}.bin"
        assert bench.run("-d", "1209:2", "-a", "1", "-U", file) == 0
        assert file.read_bytes() == memory
    assert bench.run("-a", "1", "-U", tmp_path / "x", "-Z", "99") == 0
    assert "not 99" in bench.err


# --- detach -----------------------------------------------------------------------------------------------


def test_detach_sends_one_request_and_does_not_wait(bench: Bench) -> None:
    rig = bench.boards("esp32s3")
    began = rig.clock.monotonic()
    assert bench.run("-e") == 0
    assert len(rig.dfu(DETACH)) == 1
    assert rig.clock.monotonic() - began < 0.1
    rig.clock.sleep(1)
    rig.board.update()
    assert rig.board.rom.mode is Mode.DFU


def test_detach_in_dfu_mode_sends_nothing(bench: Bench) -> None:
    """The ROM refuses DFU_DETACH there, and is in appIDLE afterwards."""
    rig = bench.boards("esp32s3", mode=Mode.DFU)
    assert bench.run("-e") == 0
    assert "in DFU mode already" in bench.err
    assert rig.dfu(DETACH) + rig.dfu(ABORT) == []
    assert bench.run("-e", "-R") == 0
    assert rig.resets == ["1-1"]
