"""A device that insists on every step of DFU 1.1, the opposite of Espressif's ROM.

It accepts 4096-byte blocks, is busy after each for the time that it reports, demands DFU_GETSTATUS before the next,
leaves run-time mode only by a bus reset, and does not answer after manifestation until the next bus reset
(bitWillDetach and bitManifestationTolerant are 0).
"""

from __future__ import annotations

from esp_dfu_ext.clock import Clock
from esp_dfu_ext.dfu.spec import FunctionalDescriptor, Mode, Request, State, Status, StatusResponse
from esp_dfu_ext.simulator.nor import NorFlash
from esp_dfu_ext.simulator.rom import ControlStall, ControlTimeout, Rom
from esp_dfu_ext.target import Target

FUNCTIONAL = FunctionalDescriptor(attributes=0x01, detach_timeout=1000, transfer_size=4096, bcd_dfu=0x0110)


class StrictDevice(Rom):
    """A device that follows DFU 1.1, appendix A, to the letter.

    Args:
        target: Chip whose IDs and strings the device shows.
        clock: Clock by which the device is busy.
        block_time: Seconds per block.
        manifest_time: Seconds for manifestation.
    """

    will_detach = False

    def __init__(self, target: Target, clock: Clock, *, block_time: float = 0.02, manifest_time: float = 0.05) -> None:
        super().__init__(target, NorFlash(target.flash.sector, target.flash.sector), "strict")
        self._clock = clock
        self._block_time = block_time
        self._manifest_time = manifest_time
        self._busy_until = 0.0
        self.received = bytearray()

    @property
    def configuration_descriptor(self) -> bytes:
        """The ROM's descriptor with another DFU functional descriptor."""
        functional = FUNCTIONAL.encode()
        return super().configuration_descriptor[: -len(functional)] + functional

    @property
    def transfer_size(self) -> int:
        """As the functional descriptor says."""
        return FUNCTIONAL.transfer_size

    def mode_after_reset(self) -> Mode | None:
        """Return DFU mode from appDETACH, and run-time mode from DFU mode (figure A.1)."""
        if self.mode is Mode.RUN_TIME:
            return Mode.DFU if self.state is State.appDETACH else None
        return Mode.RUN_TIME

    def _dfu(self, request: Request, value: int, data: bytes, length: int) -> bytes:
        if self.state is State.dfuMANIFEST_WAIT_RESET:
            raise ControlTimeout
        if request is Request.DFU_GETSTATUS:
            return self._status_now()
        if request is Request.DFU_GETSTATE:
            return bytes([self.state])
        if self.mode is Mode.RUN_TIME:
            if request is not Request.DFU_DETACH:
                raise ControlStall
            self.state = State.appDETACH
        elif request is Request.DFU_CLRSTATUS and self.state is State.dfuERROR:
            self.state, self.status = State.dfuIDLE, Status.OK
        elif request is Request.DFU_ABORT and self.state in (State.dfuIDLE, State.dfuDNLOAD_IDLE):
            self.state = State.dfuIDLE
        elif request is Request.DFU_DNLOAD:
            self._download(data)
        else:
            self._refuse()
        return b""

    def _download(self, data: bytes) -> None:
        if len(data) > FUNCTIONAL.transfer_size:
            self._refuse()
        if self.state is State.dfuIDLE and data:
            self.received.clear()
        elif self.state is not State.dfuDNLOAD_IDLE:
            self._refuse()
        self.received += data
        self.state = State.dfuDNLOAD_SYNC if data else State.dfuMANIFEST_SYNC
        self._busy_until = self._clock.monotonic() + (self._block_time if data else self._manifest_time)

    def _status_now(self) -> bytes:
        left = max(0.0, self._busy_until - self._clock.monotonic())
        if self.state in (State.dfuDNLOAD_SYNC, State.dfuDNBUSY):
            self.state = State.dfuDNBUSY if left else State.dfuDNLOAD_IDLE
        elif self.state is State.dfuMANIFEST_SYNC:
            self.state = State.dfuMANIFEST
        answer = StatusResponse(self.status, left, self.state).encode()
        if self.state is State.dfuMANIFEST:
            self.state = State.dfuMANIFEST_WAIT_RESET
        elif self.state is State.dfuDNBUSY:
            self.state = State.dfuDNLOAD_SYNC  # the host waits for bwPollTimeout
        return answer

    def _refuse(self) -> None:
        self.state, self.status = State.dfuERROR, Status.errSTALLEDPKT
        raise ControlStall
