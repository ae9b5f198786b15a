"""Send an image to a device in DFU mode, and have the chip check it.

Espressif's ROM takes block after block without DFU_GETSTATUS in between, and always asks for 256 ms that it does not
need. A device that follows DFU 1.1 more strictly gets a DFU_GETSTATUS after every block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..clock import Clock, Deadline
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
from ..image.format import ROM_BUFFER_SIZE, DfuImage
from ..target import Dfu
from ..units import MIB
from .device import SHORTEST_POLL, TIMEOUT, DfuDevice
from .recovery import is_idle_again, recover
from .spec import State, Status, StatusResponse

# States in which bwPollTimeout counts, sections 6.1.2 and A.2.
_BUSY_STATES = (State.dfuDNLOAD_SYNC, State.dfuDNBUSY, State.dfuMANIFEST_SYNC, State.dfuMANIFEST)
_NEXT_BLOCK = (State.dfuDNLOAD_IDLE,)
# States in which a device waits for a bus reset; only one that is not manifestation tolerant stays in dfuMANIFEST.
RESET_STATES = (State.dfuMANIFEST, State.dfuMANIFEST_WAIT_RESET)
# How a device shows that it expected DFU_GETSTATUS first.
_WANTS_STATUS_STATES = (State.dfuDNLOAD_SYNC, State.dfuDNBUSY)
_WANTS_STATUS_ERRORS = (Status.errSTALLEDPKT, Status.errUNKNOWN)
RETRIES = 2
# Seconds that a block may take on average: twice the bwPollTimeout that the ROM reports and nobody waits for. A device
# that answers each request just before its time-out would otherwise keep a flash busy for days.
BLOCK_TIME = 0.5
# After these errors the download may be tried again. DfuStatusError is not one of them: it is the chip's verdict.
_RETRIABLE = (UsbError, DfuAnswerError, DfuStateError)


class _Span(NamedTuple):
    """The blocks of the file `name`: from `first` up to, but not including, `last`.

    Up to block `erase_until` each may take `erase_timeout` seconds.
    """

    first: int
    last: int
    name: str
    erase_until: int = 0
    erase_timeout: float = 0.0


class _WantsStatusError(Exception):
    """The device stalled because it expects DFU_GETSTATUS after every block; does not leave this module."""


def download(
    device: DfuDevice,
    image: DfuImage,
    limits: Dfu,
    *,
    transfer_size: int,
    path: str,
    clock: Clock,
    strict: bool,
    tolerant: bool,
    retries: int = RETRIES,
    on_event: EventSink = ignore,
) -> StatusResponse:
    """Bring the device to dfuIDLE, send the image and have the chip check it.

    If a request fails but the device still answers and returns to dfuIDLE, the whole image is sent again, at most
    `retries` times and with DFU_GETSTATUS after every block. That is safe because DFU_ABORT leaves nothing of a
    download behind in the ROM, and the next one erases, writes and compares everything again.

    Args:
        device: Open device in DFU mode.
        image: Image that has passed its checks.
        limits: Limits and time-outs of the device.
        transfer_size: Bytes per block.
        path: Port of the device, for events and errors.
        clock: Time.
        strict: Send DFU_GETSTATUS after every block, not only after every `limits.status_interval` blocks.
        tolerant: bitManifestationTolerant; without it, the device is silent from dfuMANIFEST until a bus reset.
        retries: How often to send the image again.
        on_event: Receives phases, progress, and a notice of each retry, which ends the phase that is open.

    Returns:
        The device's last answer: state dfuIDLE, or dfuMANIFEST or dfuMANIFEST-WAIT-RESET if it waits for a bus reset.

    Raises:
        DfuStatusError: The device reported an error.
        DfuStateError: The device is in a wrong state.
        DfuAnswerError: Its answer is malformed.
        UsbError: A transfer failed.
    """
    run = _Run(device, image, limits, transfer_size, path, clock, tolerant, on_event)
    interval = 1 if strict else limits.status_interval
    for left in range(retries, 0, -1):
        try:
            return run.send(interval)
        except _WantsStatusError:
            reason, code = "the device expects more status checks", "strict-restart"
            recover(device, clock)
        except _RETRIABLE as error:
            if run.is_late or not is_idle_again(device, clock):
                raise
            reason, code = f"{error.message} The chip is back in dfuIDLE", "restart"
        where = "" if path in reason else f"Port {path}: "
        left_over = f"{left} {'retries' if left > 1 else 'retry'} left"
        on_event(
            Notice(code, f"{where}{reason}; restarting with a status check after every block ({left_over}).", path)
        )
        interval = 1
    return run.send(interval)


@dataclass
class _Run:
    _device: DfuDevice
    _image: DfuImage
    _limits: Dfu
    _transfer_size: int
    _path: str
    _clock: Clock
    _tolerant: bool
    _on_event: EventSink

    def __post_init__(self) -> None:
        # A device that is not tolerant stays in dfuMANIFEST, silent, until the bus reset; do not wait for it.
        manifest = () if self._tolerant else (State.dfuMANIFEST,)
        spans = list(self._spans())
        self._patience = spans[-1].last * BLOCK_TIME + sum(span.erase_timeout for span in spans)
        self._deadline = Deadline(self._clock, self._patience)
        self._ends = (State.dfuIDLE, State.dfuMANIFEST_WAIT_RESET, *manifest)
        self._busy = tuple(state for state in _BUSY_STATES if state not in manifest)

    @property
    def is_late(self) -> bool:
        """The attempt takes longer than the slowest device needs."""
        return self._deadline.left <= 0

    def send(self, status_interval: int) -> StatusResponse:
        """Make one attempt, from whatever state the device is in to its last answer."""
        self._deadline = Deadline(self._clock, self._patience)
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
            when = f"while writing {span.name or 'the index'}"
            self._progress(span.first * size, span.name)
            for block in range(span.first, span.last):
                timeout = span.erase_timeout if block < span.erase_until else TIMEOUT
                position = block * size
                try:
                    send(block, stream[position : position + size], timeout)
                except StallError as error:
                    raise self._explain(error, position, when, status_interval) from error
                except TransferTimeoutError as error:
                    raise self._late(f"to the block at stream offset {position:#x}", timeout) from error
                if (block + 1) % status_interval == 0:
                    self._settle(_NEXT_BLOCK, when, self._limits.erase_timeout)
                if (block + 1) % self._limits.status_interval == 0:
                    if self.is_late:
                        raise TransferTimeoutError(
                            f"Port {self._path}: the device is too slow: it took {position + size} of {total} bytes in "
                            f"{self._patience:.0f} s."
                        )
                    self._progress(min(position + size, total), span.name)
        self._progress(total, "")

    def _spans(self) -> Iterator[_Span]:
        """Yield the blocks of the stream file by file."""
        size = self._transfer_size
        total = -(-len(self._image.stream) // size)
        members = self._image.flash_members
        ends = [member.offset // size for member in members] + [total]
        span = _Span(0, ends[0], "")
        due, timeout = -ROM_BUFFER_SIZE, 0.0
        yield span
        for member, first, last in zip(members, ends, ends[1:]):
            # The ROM erases once it has the file's first bytes, and it processes them when its buffer is full.
            before, due = due, member.offset + min(len(member.data), ROM_BUFFER_SIZE) - 1
            own = self._limits.erase_timeout * max(1.0, len(member.data) / self._limits.part_size)
            timeout = own + (timeout if due - before < ROM_BUFFER_SIZE else 0.0)  # maybe both in one block
            # The previous file may still be erasing.
            longest = max(timeout, span.erase_timeout if first < span.erase_until else 0.0)
            span = _Span(first, last, member.name, (due + ROM_BUFFER_SIZE - 1) // size + 1, longest)
            yield span

    def _progress(self, done: int, name: str) -> None:
        self._on_event(Progress(self._path, Phase.DOWNLOAD, done, len(self._image.stream), name))

    def _verify(self) -> StatusResponse:
        """Send the zero-length block; before it answers, the ROM compares each file's MD5 with flash memory."""
        timeout = self._limits.verify_timeout
        timeout += self._limits.verify_timeout_per_mib * self._image.payload_size / MIB
        blocks = -(-len(self._image.stream) // self._transfer_size)
        try:
            self._device.download(blocks, b"", timeout)
        except StallError as error:
            raise self._explain(error, len(self._image.stream), "while ending the download", 1) from error
        except TransferTimeoutError as error:
            raise self._late("to the zero-length block, for which the chip compares every MD5", timeout) from error
        answer = self._settle(self._ends, "after the last block", timeout)
        if answer.state == State.dfuMANIFEST:
            self._clock.sleep(min(answer.poll_timeout, timeout))
        return answer

    def _settle(self, expected: tuple[State, ...], when: str, timeout: float) -> StatusResponse:
        """Send DFU_GETSTATUS until the device is no longer busy, at the interval it asks for."""
        deadline: Deadline | None = None  # made once the device is busy, because reading the clock takes time
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
            deadline = deadline or Deadline(self._clock, timeout)
            if not deadline.sleep(max(answer.poll_timeout, SHORTEST_POLL)):
                raise TransferTimeoutError(
                    f"Port {self._path}: the device stayed in state {answer.state} for {timeout:.0f} s {when}."
                )

    def _late(self, what: str, timeout: float) -> TransferTimeoutError:
        return TransferTimeoutError(f"Port {self._path}: no answer within {timeout:.0f} s {what}.")

    def _explain(self, stall: StallError, position: int, when: str, status_interval: int) -> Exception:
        """Ask the device why it stalled, and return the error that says so."""
        try:
            answer = self._device.get_status()
        except (UsbError, DfuError):
            return stall
        wants_status = answer.state in _WANTS_STATUS_STATES or answer.status in _WANTS_STATUS_ERRORS
        if status_interval > 1 and wants_status:
            return _WantsStatusError()
        if answer.status == Status.OK:
            return StallError(
                f"Port {self._path}: the device refused the block at offset {position:#x} of the stream without "
                f"giving a reason (state {answer.state})."
            )
        return self._status_error(answer, f"at offset {position:#x} of the stream, {when}")

    def _status_error(self, answer: StatusResponse, when: str) -> DfuStatusError:
        return DfuStatusError(
            f"Port {self._path}: the device reported {answer.status} in state {answer.state} {when}.",
            status=str(answer.status),
            state=str(answer.state),
        )
