"""Captures of a flash as Wireshark's dissectors for USB and DFU read them, through tshark."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from esp_dfu_ext.dfu.trace_file import TraceFile
from esp_dfu_ext.image.format import parse_image
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.target import load_target

from ..kit.boards import make_rig
from ..kit.chips import chip
from .umockdev.bench import ESP_DFU, UmockdevBench

pytestmark = pytest.mark.umockdev  # tshark comes with the packages of that bench

REQUESTS = {0: "Detach", 1: "Download", 3: "Get Status"}  # what Wireshark calls them


def column(capture: Path, shown: str, field: str, usb_id: str = "303a:0009") -> list[str]:
    """Return a field of the packets that match a display filter, with the device's requests decoded as DFU."""
    decode_as = f"usb.product==0x{usb_id.replace(':', '')},usbdfu"
    command = ["tshark", "-r", str(capture), "-d", decode_as, "-Y", shown, "-T", "fields", "-e", field]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def requests(capture: Path) -> Counter[str]:
    """Count the DFU requests in a capture by Wireshark's names."""
    info = column(capture, "usbdfu.command", "_ws.col.Info")
    found = (line.removeprefix("Sent Command: ") for line in info)
    return Counter(next(name for name in REQUESTS.values() if line.startswith(name)) for line in found)


@pytest.mark.parametrize("name", ["t.pcap", "t.pcapng"])
def test_wireshark_finds_every_request(tmp_path: Path, name: str) -> None:
    rig = make_rig()
    with TraceFile(tmp_path / name, rig.clock) as trace:
        rig.bus.trace = trace.trace
        rig.flash(strict=True)
    sent = [t for t in rig.log if t.is_dfu]
    assert requests(tmp_path / name) == Counter(REQUESTS[t.request] for t in sent)
    assert requests(tmp_path / name)["Get Status"] > 100
    blocks = column(tmp_path / name, "usbdfu.command == 1", "usbdfu.block_number")
    assert [int(block) for block in blocks] == [t.value for t in sent if t.request == 1]
    assert column(tmp_path / name, "usbdfu.response == 3", "usbdfu.state")[-1] == "2"


def test_wireshark_reads_descriptors(tmp_path: Path) -> None:
    rig = make_rig()
    with TraceFile(tmp_path / "t.pcapng", rig.clock) as trace:
        rig.bus.trace = trace.trace
        rig.flash()
    capture = tmp_path / "t.pcapng"
    assert set(column(capture, "usb.idVendor", "usb.idProduct")) == {f"0x{chip().usb.pid:04x}"}
    assert set(column(capture, "usbdfu.descriptor", "usbdfu.descriptor.wTransferSize")) == {"64"}
    # The dissector calls only the request that ends the download malformed, because it has no data.
    assert column(capture, "_ws.malformed", "usbdfu.length") == ["0"]


def test_wireshark_reads_trace_of_real_libusb(tmp_path: Path) -> None:
    build = write_sample_project(tmp_path, load_target("esp32s3"), app_size=6000)
    capture = tmp_path / "t.pcapng"
    with UmockdevBench("esp32s3") as usb:
        assert usb.run(*ESP_DFU, "build", build, "-q").returncode == 0
        done = usb.run(*ESP_DFU, "flash", build / "dfu.bin", "-q", "--trace", capture)
        assert (done.returncode, done.stderr) == (0, "")
    stream = parse_image((build / "dfu.bin").read_bytes()).stream
    blocks = -(-len(stream) // 64) + 1
    found = requests(capture)
    assert (found["Detach"], found["Download"]) == (1, blocks)
    assert found["Get Status"] >= blocks // 32
    assert column(capture, "usb.idVendor", "usb.idProduct")[0] == "0x0009"
    assert column(capture, "usbdfu.descriptor", "usbdfu.descriptor.wTransferSize")[0] == "64"
