"""Numbers and structures of DFU 1.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp_dfu_ext.dfu.spec import FunctionalDescriptor, Mode, Request, State, Status, StatusResponse

ROM_FUNCTIONAL = bytes.fromhex("09210fbc0240001001")


def test_names_and_numbers_match_specification() -> None:
    states = (
        "appIDLE appDETACH dfuIDLE dfuDNLOAD-SYNC dfuDNBUSY dfuDNLOAD-IDLE dfuMANIFEST-SYNC dfuMANIFEST "
        "dfuMANIFEST-WAIT-RESET dfuUPLOAD-IDLE dfuERROR"
    )
    statuses = (
        "OK errTARGET errFILE errWRITE errERASE errCHECK_ERASED errPROG errVERIFY errADDRESS errNOTDONE "
        "errFIRMWARE errVENDOR errUSBR errPOR errUNKNOWN errSTALLEDPKT"
    )
    requests = "DFU_DETACH DFU_DNLOAD DFU_UPLOAD DFU_GETSTATUS DFU_CLRSTATUS DFU_GETSTATE DFU_ABORT"
    assert [str(State(n)) for n in range(11)] == states.split()
    assert [str(Status(n)) for n in range(16)] == statuses.split()
    assert [Request(n).name for n in range(7)] == requests.split()
    assert [str(Mode(n)) for n in (1, 2)] == ["run-time", "DFU"]


def test_status_response_is_decoded_and_encoded() -> None:
    answer = StatusResponse.decode(bytes.fromhex("0a 000100 0a 00"))
    assert (str(answer.status), answer.poll_timeout, str(answer.state)) == ("errFIRMWARE", 0.256, "dfuERROR")
    assert StatusResponse(Status.errFILE, 65.793, State.dfuIDLE).encode() == bytes.fromhex("02 010101 02 00")


@pytest.mark.parametrize("length", [0, 1, 5, 7, 64])
def test_status_response_of_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=str(length)):
        StatusResponse.decode(bytes(length))


def test_unknown_status_and_state_stay_numbers() -> None:
    answer = StatusResponse.decode(bytes([200, 0, 0, 0, 99, 0]))
    assert (answer.status, answer.state) == (200, 99)
    assert f"{answer.status} {answer.state}" == "200 99"


@given(st.integers(0, 15), st.integers(0, 0xFFFFFF), st.integers(0, 10))
def test_status_response_survives_round_trip(status: int, milliseconds: int, state: int) -> None:
    raw = bytes([status]) + milliseconds.to_bytes(3, "little") + bytes([state, 0])
    answer = StatusResponse.decode(raw)
    assert answer.encode() == raw
    assert answer.poll_timeout == pytest.approx(milliseconds / 1000)


def test_functional_descriptor_of_rom_is_decoded() -> None:
    found = FunctionalDescriptor.find(ROM_FUNCTIONAL)
    assert found == (0x0F, 700, 64, 0x0110)
    assert found.encode() == ROM_FUNCTIONAL
    assert (found.can_download, found.manifestation_tolerant, found.will_detach) == (True, True, True)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [(0x01, (True, False, False)), (0x04, (False, True, False)), (0x08, (False, False, True)), (0x02, (False,) * 3)],
)
def test_each_attribute_has_one_bit(attributes: int, expected: tuple[bool, ...]) -> None:
    found = FunctionalDescriptor(attributes, 1000, 64, 0x0110)
    assert (found.can_download, found.manifestation_tolerant, found.will_detach) == expected


@pytest.mark.parametrize(
    ("descriptors", "transfer_size"),
    [
        (bytes.fromhex("05240010 01") + ROM_FUNCTIONAL, 64),
        (bytes.fromhex("0224 05240010 01 0424 0102") + ROM_FUNCTIONAL, 64),
        (bytes.fromhex("0921") + bytes.fromhex("0bff000008 1a01"), 2048),
        (bytes.fromhex("0721 0b ff00 0008"), 2048),
        (bytes.fromhex("0b21 0f bc02 4000 1001 0000"), 64),
    ],
    ids=["behind another", "behind three others", "DFU 1.1a", "DFU 1.0, two bytes short", "longer than needed"],
)
def test_functional_descriptor_is_found(descriptors: bytes, transfer_size: int) -> None:
    found = FunctionalDescriptor.find(descriptors)
    assert found is not None
    assert found.transfer_size == transfer_size


@pytest.mark.parametrize("descriptor", ["0721 0b ff00 0008", "0821 0b ff00 0008 10"])
def test_dfu_1_0_has_version_1_00(descriptor: str) -> None:
    assert FunctionalDescriptor.find(bytes.fromhex(descriptor)) == (0x0B, 255, 2048, 0x0100)


@pytest.mark.parametrize(
    "descriptors",
    [
        b"",
        b"\x09",
        b"\x00\x21" + bytes(20),
        b"\x01\x21" + bytes(20),
        bytes.fromhex("0524001001"),
        b"\x09\x21\x0f",
        bytes.fromhex("0621 0b ff00 00"),
    ],
    ids=["nothing", "one byte", "length 0", "length 1", "another one", "cut", "shorter than any"],
)
def test_missing_functional_descriptor_gives_none(descriptors: bytes) -> None:
    assert FunctionalDescriptor.find(descriptors) is None


@given(st.binary(max_size=80))
def test_any_bytes_can_be_searched(descriptors: bytes) -> None:
    found = FunctionalDescriptor.find(descriptors)
    assert found is None or b"\x21" in descriptors
