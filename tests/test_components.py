"""The ESP-IDF components in components/, built for this computer: what they call and which registers they change.

tests/components/ has the few names of ESP-IDF and TinyUSB that they use. No compiler for the chips is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import esp_dfu_ext
from esp_dfu_ext import load_targets
from esp_dfu_ext.dfu.spec import FunctionalDescriptor

ROOT = Path(__file__).resolve().parent.parent
COMPONENT = ROOT / "components" / "esp_dfu_runtime"
EXAMPLE = COMPONENT / "examples" / "dfu_runtime"
STAND_INS = Path(__file__).resolve().parent / "components"
TARGETS = {target.name: target for target in load_targets()}

# The pad overrides and the flag of the ROMs that have them: executed, and ESP-IDF's soc/usb_wrap_reg.h, usb_persist.h.
PAD_OVERRIDE = {"esp32s2": "0x3F439000", "esp32s3": "0x60039000"}
BOOT_DFU = "0x40000000"

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None and not os.environ.get("ESP_DFU_TEST_COMPILER"), reason="no C compiler"
)


def build(folder: Path, chip: str, *sources: Path) -> Path:
    """Build a program of C sources for this computer, as if for a chip; every warning is an error."""
    program = folder / "program"
    includes = [STAND_INS / "esp_idf", STAND_INS, COMPONENT / "include"]
    command = [
        "cc",
        "-std=gnu17",
        "-Wall",
        "-Wextra",
        "-Wno-unused-parameter",
        "-Werror",
        f"-DCONFIG_IDF_TARGET_{chip.upper()}=1",
    ]
    command += [f"-I{include}" for include in includes]
    command += [str(source) for source in (COMPONENT / "esp_dfu_runtime.c", STAND_INS / "esp_idf.c", *sources)]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program


def lines(program: Path, *arguments: str) -> list[str]:
    done = subprocess.run([str(program), *arguments], check=True, capture_output=True, text=True, cwd=program.parent)
    return done.stdout.splitlines()


def requested(chip: str, *, disconnected: bool = True) -> list[str]:
    """Return the lines of a request for download mode and the restart."""
    loader = TARGETS[chip].serial_loader
    assert loader is not None
    bits = loader.force_download_boot
    request = [f"register 0x{bits.address:08X} set 0x{bits.mask:X} cleared 0x0", "esp_restart"]
    if chip not in PAD_OVERRIDE:
        return request
    released = f"register {PAD_OVERRIDE[chip]} set 0x0 cleared {'0x1000' if disconnected else '0x0'}"
    return [released, "chip_usb_dw_prepare_persist", f"chip_usb_set_persist_flags {BOOT_DFU}", *request]


def left_the_bus(chip: str) -> list[str]:
    """Return the lines until the device has left the bus; on some chips TinyUSB's driver overrides the pads for it."""
    override = [f"register {PAD_OVERRIDE[chip]} set 0x1000 cleared 0x0"] if chip in PAD_OVERRIDE else []
    return ["delay 50 ms", "tud_disconnect", *override, "delay 100 ms"]


@pytest.fixture(params=list(TARGETS), scope="module")
def chip(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def scenarios(chip: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp(chip), chip, STAND_INS / "scenarios.c")


@needs_compiler
def test_detach_restarts_in_download_mode_after_its_status_stage(scenarios: Path, chip: str) -> None:
    """The callback returns first, so that TinyUSB can finish the request; a second DFU_DETACH starts nothing."""
    assert lines(scenarios, "detach") == ["callback returned", "task", *left_the_bus(chip), *requested(chip)]


@needs_compiler
def test_app_enters_download_mode_by_itself(scenarios: Path, chip: str) -> None:
    assert lines(scenarios, "enter") == ["returned 0x0", "task", *left_the_bus(chip), *requested(chip)]


@needs_compiler
def test_app_without_usb_enters_download_mode(scenarios: Path, chip: str) -> None:
    """TinyUSB is not installed: its driver must not be called."""
    expected = ["returned 0x0", "task", "delay 50 ms", *requested(chip, disconnected=False)]
    assert lines(scenarios, "without-usb") == expected


@needs_compiler
def test_no_memory_for_a_task_restarts_all_the_same(scenarios: Path, chip: str) -> None:
    assert lines(scenarios, "without-memory") == [*left_the_bus(chip), *requested(chip)]


@needs_compiler
@pytest.mark.parametrize("efuse", ["DIS_DOWNLOAD_MODE", "ENABLE_SECURITY_DOWNLOAD", "USB"])
def test_efuses_that_close_dfu_keep_the_app_running(scenarios: Path, chip: str, efuse: str) -> None:
    """With the request set, the ROM would not start the app again until somebody cuts the power."""
    if efuse == "USB":
        efuse = "DIS_USB_DOWNLOAD_MODE" if chip == "esp32s2" else "DIS_USB_OTG_DOWNLOAD_MODE"
    assert efuse in str(TARGETS[chip].closed_by)
    assert lines(scenarios, "enter", efuse) == ["returned 0x106"]
    assert lines(scenarios, "detach", efuse) == ["callback returned"]


@needs_compiler
def test_descriptor_promises_what_the_rom_does(scenarios: Path, chip: str) -> None:
    descriptor = subprocess.run([str(scenarios), "descriptor"], check=True, capture_output=True).stdout
    assert descriptor[:9] == bytes([9, 4, 2, 0, 0, 0xFE, 1, 1, 4])  # run-time mode: DFU 1.1, table 4.1
    transfer_size = TARGETS[chip].usb.transfer_size
    assert FunctionalDescriptor.find(descriptor[9:]) == FunctionalDescriptor(0x0F, 700, transfer_size, 0x0110)


@needs_compiler
def test_example_has_a_dfu_interface_and_hands_over(tmp_path: Path, chip: str) -> None:
    """Its configuration descriptors add up, and the letter d on its serial port is its own way into download mode."""
    program = build(tmp_path, chip, EXAMPLE / "main" / "main.c", STAND_INS / "example.c")
    assert lines(program, "no") == ["echo 0 no"]
    assert lines(program, "dfu") == ["echo 0 dfu", "task", *left_the_bus(chip), *requested(chip)]

    rest = (tmp_path / "descriptors").read_bytes()
    configurations = []
    while rest:
        length = int.from_bytes(rest[2:4], "little")
        configurations.append(parts(rest[:length]))
        rest = rest[length:]
    assert len(configurations) == (2 if chip in ("esp32p4", "esp32s31") else 1)  # one for high speed
    for configuration in configurations:
        numbers = [part[2] for part in configuration if part[1] == 4]
        assert numbers == list(range(configuration[0][4]))  # bNumInterfaces
        (dfu,) = [part for part in configuration if part[1] == 4 and part[5:8] == b"\xfe\x01\x01"]
        assert configuration[configuration.index(dfu) + 1][1] == 0x21


def parts(configuration: bytes) -> list[bytes]:
    """Cut a configuration descriptor into its descriptors."""
    found, position = [], 0
    while position < len(configuration):
        found.append(configuration[position : position + configuration[position]])
        position += configuration[position]
    assert b"".join(found) == configuration
    return found


def test_component_manifests_fit() -> None:
    manifest = yaml.safe_load((COMPONENT / "idf_component.yml").read_text(encoding="utf-8"))
    assert manifest["version"] == esp_dfu_ext.__version__
    assert "targets" not in manifest  # a component manager that does not know one of them would refuse the project
    main = EXAMPLE / "main"
    dependencies = yaml.safe_load((main / "idf_component.yml").read_text(encoding="utf-8"))["dependencies"]
    assert (main / dependencies[COMPONENT.name]["path"]).resolve() == COMPONENT


def test_component_of_the_repository_leaves_the_others_out() -> None:
    repository = yaml.safe_load((ROOT / "idf_component.yml").read_text(encoding="utf-8"))
    assert "components/**/*" in repository["files"]["exclude"]
