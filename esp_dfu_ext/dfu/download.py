"""The download: sends an image's stream to a device in DFU mode and reads its verdict.

Made for Espressif's ROM, which takes block after block without a DFU_GETSTATUS in between and always
asks for 256 ms that it does not need; any device that follows DFU 1.1 more strictly gets what it wants.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from ..clock import Clock
from ..errors import (
    DfuAnswerError,
    DfuError,
    DfuStateError,
    DfuStatusError,
    StallError,
    TransferTimeoutError,
    UsbError,
)
from ..events import EventSink, Notice, Phase, PhaseFinished, PhaseStarted, Progress, ignore
from ..image.format import DfuImage
from ..target import Target
from ..units import MIB
from .device import SHORTEST_POLL, TIMEOUT, DfuDevice
from .recovery import idle_again, recover
from .spec import State, Status, StatusResponse

# The ROM acts on bytes when its buffer is full, up to so many bytes later.
_LATE_BYTES = 256
# States in which bwPollTimeout means something, sections 6.1.2 and A.2.
_BUSY_STATES = (State.dfuDNLOAD_SYNC, State.dfuDNBUSY, State.dfuMANIFEST_SYNC, State.dfuMANIFEST)
_NEXT_BLOCK = (State.dfuDNLOAD_IDLE,)
# States in which a device waits for a bus reset; of dfuMANIFEST only a device that is not tolerant stays in it.
RESET_STATES = (State.dfuMANIFEST, State.dfuMANIFEST_WAIT_RESET)
# How a device says that it wanted a DFU_GETSTATUS first.
_WANTS_STATUS_STATES = (State.dfuDNLOAD_SYNC, State.dfuDNBUSY)
_WANTS_STATUS_ERRORS = (Status.errSTALLEDPKT, Status.errUNKNOWN)
RESTARTS = 2
# After these the device may be asked whether it is well; what it reports itself (DfuStatusError) is its verdict.
_RESTARTABLE = (UsbError, DfuAnswerError, DfuStateError)


class _Span(NamedTuple):
    """Blocks `first` to before `last` carry the file `name`; before `erase_until` they may take `erase_timeout`."""

    first: int
    last: int
    name: str
    erase_until: int = 0
    erase_timeout: float = 0.0


class _WantsStatusError(Exception):
    """The device stalled because it wants a DFU_GETSTATUS after each block; only `download` sees it."""


def download(
    device: DfuDevice,
    image: DfuImage,
    target: Target,
    *,
    transfer_size: int,
    path: str,
    clock: Clock,
    strict: bool,
    tolerant: bool,
    on_event: EventSink = ignore,
) -> StatusResponse:
    """Bring the device to dfuIDLE, send the image and have the chip check it.

    When a request fails, and the device then answers and goes to dfuIDLE, all of it is sent again, at most
    `RESTARTS` times and with DFU_GETSTATUS after each block: a download that ABORT ended leaves nothing behind
    in the ROM, and the next one erases, writes and compares everything anew.

    Args:
        device: open, in DFU mode.
        image: checked.
        target: whose limits and time-outs hold.
        transfer_size: bytes per block.
        path: of the device, for the events.
        clock: time.
        strict: ask DFU_GETSTATUS after each block instead of after each `target.dfu.status_interval`.
        tolerant: bitManifestationTolerant; without it the device is silent from dfuMANIFEST to a bus reset.
        on_event: gets phases and progress, and a notice of each restart, which ends the phase that is open.

    Returns:
        The device's last answer: dfuIDLE, or for a device that wants a bus reset dfuMANIFEST or
        dfuMANIFEST-WAIT-RESET.

    Raises:
        DfuStatusError: the device reported an error.
        DfuStateError, DfuAnswerError: it is in a wrong state, or its answer is malformed.
        UsbError: a transfer failed.
    """
    run = _Run(device, image, target, transfer_size, path, clock, tolerant, on_event)
    interval = 1 if strict else target.dfu.status_interval
    for left in range(RESTARTS, 0, -1):
        try:
            return run.send(interval)
        except _WantsStatusError:
            reason, code = "The device wants DFU_GETSTATUS after each block", "strict-restart"
            recover(device, clock)
        except _RESTARTABLE as error:
            if not idle_again(device, clock):
                raise
            reason, code = f"{error.message} It is in dfuIDLE again", "restart"
        where = "" if path in reason else f"Port {path}: "
        on_event(Notice(code, f"{where}{reason}; starting again, asking after each block ({left} left).", path))
        interval = 1
    return run.send(interval)


class _Run:
    def __init__(
        self,
        device: DfuDevice,
        image: DfuImage,
        target: Target,
        transfer_size: int,
        path: str,
        clock: Clock,
        tolerant: bool,
        on_event: EventSink,
    ) -> None:
        # One that is not tolerant stays in dfuMANIFEST, silent, until the bus reset: an end, and nothing to wait for.
        manifest = () if tolerant else (State.dfuMANIFEST,)
        self._ends = (State.dfuIDLE, State.dfuMANIFEST_WAIT_RESET, *manifest)
        self._busy = tuple(state for state in _BUSY_STATES if state not in manifest)
        self._device = device
        self._image = image
        self._limits = target.dfu
        self._transfer_size = transfer_size
        self._path = path
        self._clock = clock
        self._on_event = on_event

    def send(self, status_interval: int) -> StatusResponse:
        """One attempt, from the state that the device is in to its verdict."""
        started = self._clock.monotonic()
        if recover(self._device, self._clock):
            self._on_event(PhaseStarted(self._path, Phase.RECOVER))
            self._on_event(PhaseFinished(self._path, Phase.RECOVER, self._clock.monotonic() - started))
        started = self._clock.monotonic()
        self._on_event(PhaseStarted(self._path, Phase.DOWNLOAD, len(self._image.stream)))
        self._send_stream(status_interval)
        sent = self._clock.monotonic()
        self._on_event(PhaseFinished(self._path, Phase.DOWNLOAD, sent - started))
        self._on_event(PhaseStarted(self._path, Phase.VERIFY))
        answer = self._verify()
        self._on_event(PhaseFinished(self._path, Phase.VERIFY, self._clock.monotonic() - sent))
        return answer

    def _send_stream(self, status_interval: int) -> None:
        stream, size = self._image.stream, self._transfer_size
        total = len(stream)
        send = self._device.download
        for span in self._spans():
            when = f"while {span.name or 'the index'} was being written"
            self._progress(span.first * size, span.name)
            for block in range(span.first, span.last):
                timeout = span.erase_timeout if block < span.erase_until else TIMEOUT
                position = block * size
                try:
                    send(block, stream[position : position + size], timeout)
                except StallError as error:
                    raise self._explain(error, position, when, status_interval) from error
                except TransferTimeoutError as error:
                    raise self._late(f"to the block at offset {position:#x} of the stream", timeout) from error
                if (block + 1) % status_interval == 0:
                    self._settle(_NEXT_BLOCK, when, self._limits.erase_timeout)
                if (block + 1) % self._limits.status_interval == 0:
                    self._progress(min(position + size, total), span.name)
        self._progress(total, "")

    def _spans(self) -> Iterator[_Span]:
        """Cut the stream, in blocks, at the beginnings of its files."""
        size = self._transfer_size
        total = -(-len(self._image.stream) // size)
        late = -(-_LATE_BYTES // size) + 2
        members = self._image.flash_members
        ends = [member.offset // size for member in members] + [total]
        span = _Span(0, ends[0], "")
        yield span
        for member, first, last in zip(members, ends, ends[1:]):
            parts = max(1.0, len(member.data) / self._limits.part_size)
            # What the file before may still need of its time counts too.
            left = span.erase_timeout if first < span.erase_until else 0.0
            span = _Span(first, last, member.name, first + late, self._limits.erase_timeout * parts + left)
            yield span

    def _progress(self, done: int, name: str) -> None:
        self._on_event(Progress(self._path, Phase.DOWNLOAD, done, len(self._image.stream), name))

    def _verify(self) -> StatusResponse:
        """The zero-length block: the ROM compares each file's MD5 with the flash before it answers."""
        timeout = self._limits.verify_timeout
        timeout += self._limits.verify_timeout_per_mib * self._image.flash_size / MIB
        blocks = -(-len(self._image.stream) // self._transfer_size)
        try:
            self._device.download(blocks, b"", timeout)
        except StallError as error:
            raise self._explain(error, len(self._image.stream), "while the stream was being ended", 1) from error
        except TransferTimeoutError as error:
            raise self._late("to the zero-length block, upon which the chip compares every MD5", timeout) from error
        answer = self._settle(self._ends, "after the last block", timeout)
        if answer.state == State.dfuMANIFEST:
            self._clock.sleep(min(answer.poll_timeout, timeout))
        return answer

    def _settle(self, expected: tuple[State, ...], when: str, timeout: float) -> StatusResponse:
        """DFU_GETSTATUS until the device is no longer busy; it says itself how long that takes."""
        deadline = math.inf  # known once it is busy: a look at the clock is not free
        while True:
            answer = self._device.get_status()
            if answer.status != Status.OK or answer.state == State.dfuERROR:
                raise self._status_error(answer, when)
            if answer.state in expected:
                return answer
            if answer.state not in self._busy:
                message = (
                    f"Port {self._path}: the device reported state {answer.state} {when}, instead of {expected[0]}."
                )
                raise DfuStateError(message, state=str(answer.state))
            now = self._clock.monotonic()
            deadline = min(deadline, now + timeout)
            left = deadline - now
            if left <= 0:
                raise TransferTimeoutError(
                    f"Port {self._path}: the device stayed in state {answer.state} for {timeout:.0f} s {when}."
                )
            self._clock.sleep(min(max(answer.poll_timeout, SHORTEST_POLL), left))

    def _late(self, what: str, timeout: float) -> TransferTimeoutError:
        return TransferTimeoutError(f"Port {self._path}: no answer in time {what} ({timeout:.0f} s).")

    def _explain(self, stall: StallError, position: int, when: str, status_interval: int) -> Exception:
        """Ask the device why it stalled."""
        try:
            answer = self._device.get_status()
        except (UsbError, DfuError):
            return stall
        wants_status = answer.state in _WANTS_STATUS_STATES or answer.status in _WANTS_STATUS_ERRORS
        if status_interval > 1 and wants_status:
            return _WantsStatusError()
        if answer.status == Status.OK:
            return StallError(
                f"Port {self._path}: the device refused the block at offset {position:#x} of the stream and does not "
                f"say why (it is in state {answer.state})."
            )
        return self._status_error(answer, f"at offset {position:#x} of the stream, {when}")

    def _status_error(self, answer: StatusResponse, when: str) -> DfuStatusError:
        return DfuStatusError(
            f"Port {self._path}: the device reported {answer.status} in state {answer.state} {when}.",
            status=str(answer.status),
            state=str(answer.state),
        )
