"""Opening a device to which its user gets access only after a moment."""

from __future__ import annotations

import pytest

from esp_dfu_ext.dfu.access import open_interface
from esp_dfu_ext.dfu.discovery import find
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import AccessDeniedError, DeviceBusyError

from .kit.boards import Rig, make_rig
from .kit.chips import chip


def _open_after(rig: Rig, after: float | None, patience: float) -> float:
    rig.board.plug(Mode.DFU)
    rig.board.faults.no_access = True
    rig.board.faults.access_after = after
    started = rig.clock.monotonic()
    (interface,) = find(rig.bus, chip())
    try:
        open_interface(interface, clock=rig.clock, patience=patience).close()
    except AccessDeniedError:
        return started - rig.clock.monotonic()
    return rig.clock.monotonic() - started


@pytest.mark.parametrize(
    ("after", "patience", "low", "high"),
    [(1.0, 2.0, 1.0, 1.1), (0.0, 2.0, 0.0, 0.0), (None, 2.0, -2.1, -2.0), (1.0, 0.0, 0.0, 0.0), (3.0, 2.0, -2.1, -2.0)],
)
def test_access_is_awaited(after: float | None, patience: float, low: float, high: float) -> None:
    # Seconds until it was open; negative for those until it was given up.
    assert low - 1e-9 <= _open_after(make_rig(), after, patience) <= high + 1e-9


def test_other_errors_end_wait() -> None:
    rig = make_rig(mode=Mode.DFU, start=0)
    rig.board.faults.busy = True
    (interface,) = find(rig.bus, chip())
    with pytest.raises(DeviceBusyError):
        open_interface(interface, clock=rig.clock, patience=2.0)
    assert rig.clock.monotonic() == 0
