"""The JSON documents that `build`, `inspect`, `dfu-list`, `info`, `verify` and `dfu-doctor` print with `--json`.

docs/schemas.py generates the JSON Schemas from these classes and their docstrings.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Optional

import msgspec

from ..image.esp_image import AppDescription
from ..versions import CONTENTS_DOCUMENT, DOCTOR_DOCUMENT, INFO_DOCUMENT, LIST_DOCUMENT, VERIFY_DOCUMENT

Hex4 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{4}$")]


class Problem(msgspec.Struct, kw_only=True):
    """Why a device cannot be used.

    Attributes:
        code: Error code, as in docs/errors.md.
        message: The problem, for people.
    """

    code: str
    message: str


class Interface(msgspec.Struct, kw_only=True):
    """A DFU interface of a device.

    Attributes:
        mode: Mode that DFU 1.1 defines for the interface.
        configuration: bConfigurationValue.
        interface: bInterfaceNumber.
        alternate: bAlternateSetting.
        name: String descriptor of the interface; null if it has none or could not be read.
    """

    mode: Literal["dfu", "run-time"]
    configuration: int
    interface: int
    alternate: int
    name: Optional[str]


class KnownBoard(msgspec.Struct, kw_only=True):
    """What is known of a board; keys are null where its serial loader cannot be asked.

    Attributes:
        path: USB port, bus-port.port; it stays the same when the board is unplugged and plugged in again.
        target: Chip, as idf.py set-target names it.
        mode: Mode that DFU 1.1 defines, which the board is in.
        serial: Serial number; null if it has none or could not be read. Some chips all have the same one.
        mac: MAC address, which no other board has.
        revision: Chip revision, such as v0.2.
        flash_manufacturer: Manufacturer of the flash memory by its JEDEC ID, hexadecimal.
        flash_device: Device of the flash memory by its JEDEC ID, hexadecimal.
        flash_size: Size of the flash memory in bytes by its JEDEC ID; null if the ID is unknown.
        secure_boot: Secure Boot is enabled.
        flash_encryption: Flash encryption is enabled.
        problem: Why the board or its serial loader cannot be asked; null if it was.
    """

    path: str
    target: str
    mode: Literal["dfu", "run-time"]
    serial: Optional[str]
    mac: Optional[str]
    revision: Optional[str]
    flash_manufacturer: Optional[str]
    flash_device: Optional[Hex4]
    flash_size: Optional[int]
    secure_boot: Optional[bool]
    flash_encryption: Optional[bool]
    problem: Optional[Problem]


class Device(msgspec.Struct, kw_only=True):
    """A USB device.

    Attributes:
        path: USB port, bus-port.port; it stays the same when the board is unplugged and plugged in again.
        vid: idVendor, hexadecimal.
        pid: idProduct, hexadecimal.
        bcd_device: bcdDevice, hexadecimal.
        devnum: Device number on the bus; it changes with each re-enumeration.
        serial: Serial number; null if it has none or could not be read.
        product: Product string; null for the ROM of a chip, and if it has none or could not be read.
        target: Chip, as idf.py set-target names it; null without a DFU interface or if the chip is unknown.
        description: What the device is, for people.
        problem: Why it cannot be opened; null if it can.
        interfaces: Its DFU interfaces.
        board: What its serial loader says of it; null without --probe, and for what is not a board of a known chip.
    """

    path: str
    vid: Hex4
    pid: Hex4
    bcd_device: Hex4
    devnum: int
    serial: Optional[str]
    product: Optional[str]
    target: Optional[str]
    description: str
    problem: Optional[Problem]
    interfaces: list[Interface]
    board: Optional[KnownBoard] = None


class DeviceList(msgspec.Struct, kw_only=True):
    """Connected devices of the chips' vendors.

    Attributes:
        version: Version of this format; new keys do not change it.
        devices: The devices, by port.
    """

    version: Annotated[int, msgspec.Meta(extra_json_schema={"const": LIST_DOCUMENT})] = LIST_DOCUMENT
    devices: list[Device]


class BoardList(msgspec.Struct, kw_only=True):
    """Connected boards of known chips, asked one by one.

    Attributes:
        version: Version of this format; new keys do not change it.
        boards: The boards, by port.
    """

    version: Annotated[int, msgspec.Meta(extra_json_schema={"const": INFO_DOCUMENT})] = INFO_DOCUMENT
    boards: list[KnownBoard]


class Comparison(msgspec.Struct, kw_only=True):
    """Flash memory of a board, compared with an image by the MD5s of the chip's serial loader.

    Attributes:
        version: Version of this format; new keys do not change it.
        image: The dfu.bin, or what else was named.
        path: USB port of the board, bus-port.port.
        target: Chip, as idf.py set-target names it.
        serial: Serial number; null if the board has none or it could not be read. Some chips all have the same one.
        mac: MAC address, which no other board has.
        size: Bytes that were compared.
        ok: True if flash memory holds all of them.
        different: Files that flash memory does not hold, in their order; empty if it holds all.
        problem: What flash memory does not hold, for people; null if it holds all.
    """

    version: Annotated[int, msgspec.Meta(extra_json_schema={"const": VERIFY_DOCUMENT})] = VERIFY_DOCUMENT
    image: str
    path: str
    target: str
    serial: Optional[str]
    mac: str
    size: int
    ok: bool
    different: list[str]
    problem: Optional[Problem]


class Finding(msgspec.Struct, kw_only=True):
    """One thing that the doctor checked.

    Attributes:
        topic: What was checked.
        state: Result of the check.
        code: Code of the problem, as in docs/errors.md; null if there is none.
        text: What was found, for people.
        data: What was found, for programs; the keys depend on the topic.
    """

    topic: str
    state: Literal["ok", "problem", "not-applicable"]
    code: Optional[str]
    text: str
    data: dict[str, Any]


class Diagnosis(msgspec.Struct, kw_only=True):
    """What the doctor found, and what to do next.

    Attributes:
        version: Version of this format; new keys do not change it.
        ok: True if no check found a problem.
        facts: The checks, in order.
        next: The shortest next step, for people; empty if there is nothing to do.
    """

    version: Annotated[int, msgspec.Meta(extra_json_schema={"const": DOCTOR_DOCUMENT})] = DOCTOR_DOCUMENT
    ok: bool
    facts: list[Finding]
    next: list[str]


class App(msgspec.Struct, kw_only=True):
    """What an app says about itself (esp_app_desc_t).

    Attributes:
        project: Name of the project.
        version: Version of the app.
        idf_version: Version of ESP-IDF.
        built: Date and time of the build, as the compiler writes them; empty if the app does not say it.
    """

    project: str
    version: str
    idf_version: str
    built: str


def app_document(description: AppDescription | None) -> App | None:
    """Return what an app says about itself, as part of a document."""
    if description is None:
        return None
    return App(
        project=description.project,
        version=description.version,
        idf_version=description.idf_version,
        built=description.built,
    )


class File(msgspec.Struct, kw_only=True):
    """A file in the image; a large one is several of them.

    Attributes:
        name: Its name in the archive.
        address: Where it goes in flash memory; null if the index does not name it, and the ROM skips it.
        size: Its size in bytes.
        md5: MD5 that the ROM compares with flash memory, hexadecimal; null without an address.
    """

    name: str
    address: Optional[int]
    size: int
    md5: Optional[str]


class Contents(msgspec.Struct, kw_only=True):
    """An image for DFU, and whether the ROM would accept it.

    Attributes:
        version: Version of this format; new keys do not change it.
        path: The dfu.bin that was written or inspected, or what else was inspected.
        vid: idVendor that the image is for, hexadecimal.
        pid: idProduct that the image is for, hexadecimal.
        target: Chip, as idf.py set-target names it; null if none has these IDs.
        flash_size: Bytes of flash memory that the image is for; null if it does not say it.
        app: What the app says about itself; null if there is none.
        files: The files in it, in their order.
        problems: What the ROM would flash wrongly or the chip could not run, for people; empty if nothing.
        rom_status: Status that the simulated ROM reports for it; null if it stops answering or the chip is unknown.
    """

    version: Annotated[int, msgspec.Meta(extra_json_schema={"const": CONTENTS_DOCUMENT})] = CONTENTS_DOCUMENT
    path: str
    vid: Hex4
    pid: Hex4
    target: Optional[str]
    flash_size: Optional[int]
    app: Optional[App]
    files: list[File]
    problems: list[str]
    rom_status: Optional[str]


def to_json(document: Contents | DeviceList | BoardList | Comparison | Diagnosis) -> str:
    """Return the document as indented ASCII JSON."""
    return json.dumps(msgspec.to_builtins(document), indent=2)
