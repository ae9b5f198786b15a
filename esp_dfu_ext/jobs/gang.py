"""Several boards at once: one thread, one session, one event stream each; none waits for another."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ..bus import Bus
from ..clock import Clock, SystemClock
from ..dfu.discovery import Selector, find, select
from ..errors import EspDfuError
from ..events import DeviceFound, Event, EventSink, Failed, ignore
from ..image.image import DfuImage
from ..target import Target, load_targets
from .flashing import FlashResult, flash


@dataclass(frozen=True)
class FlashOutcome:
    """How it went with one of several boards; either `result` or `error` is there.

    Attributes:
        path: the port it is on.
        serial: its serial number, None if it has none or could not be asked.
    """

    path: str
    serial: str | None
    result: FlashResult | None
    error: EspDfuError | None


def flash_all(
    image: DfuImage,
    target: Target,
    *,
    bus: Bus | None = None,
    paths: Sequence[str] = (),
    targets: Sequence[Target] | None = None,
    wait: float = 0.0,
    strict: bool = False,
    reset: bool = False,
    clock: Clock | None = None,
    on_event: EventSink = ignore,
) -> list[FlashOutcome]:
    """Flash several boards of one chip together.

    Args:
        image: as `load_image` returns it.
        target: the chip.
        bus: where the boards are; None for this machine's USB.
        paths: their ports; all boards of this chip if empty.
        targets: the chips that are known, to name what was seen instead; None for all.
        wait: seconds to wait for each board.
        strict: ask the devices for their status after each block.
        reset: try to start the apps by a bus reset afterwards.
        clock: time; None for the real one.
        on_event: gets what happens; never from two threads at once.

    Returns:
        One outcome for each board, in the order of `paths`. An error on one board changes nothing for the
        others; after Ctrl-C those that were not finished have an InterruptedByUserError.

    Raises:
        DeviceNotFoundError: a board is not there; none was touched.
    """
    bus, clock = bus or Bus(), clock or SystemClock()
    known = load_targets() if targets is None else targets
    chosen = _paths(bus, target, paths, known, clock, wait)
    stop = _Stop()
    sink = _Sink(on_event, stop)
    stoppable = _StoppableClock(clock, stop)

    def one(path: str) -> FlashOutcome:
        try:
            result = flash(
                image,
                target,
                bus=bus,
                selector=Selector(path=path),
                targets=known,
                strict=strict,
                reset=reset,
                clock=stoppable,
                on_event=sink,
            )
        except EspDfuError as error:
            sink.tell(Failed(path, error.code, error.message))
            return FlashOutcome(path, sink.serials.get(path), None, error)
        return FlashOutcome(path, sink.serials.get(path), result, None)

    with ThreadPoolExecutor(len(chosen), thread_name_prefix="dfu") as pool:
        futures: list[Future[FlashOutcome]] = [pool.submit(one, path) for path in chosen]
        try:
            return [future.result() for future in futures]
        except KeyboardInterrupt as cause:
            stop.set(cause)  # each of them now ends soon, and says how
            return [future.result() for future in futures]


def _paths(
    bus: Bus, target: Target, paths: Sequence[str], targets: Sequence[Target], clock: Clock, wait: float
) -> list[str]:
    """The ports of the boards that are meant; every one of them is there."""
    if paths:
        unique = list(dict.fromkeys(paths))
        for path in unique:
            select(bus, target, Selector(path=path), targets, clock=clock, wait=wait)
        return unique
    found = [interface.path for interface in find(bus, target)]
    return found or [select(bus, target, Selector(), targets, clock=clock, wait=wait).path]


class _Stop:
    """Ends all boards' threads by what ended the main one."""

    def __init__(self) -> None:
        self._cause: KeyboardInterrupt | None = None

    def set(self, cause: KeyboardInterrupt) -> None:
        self._cause = cause

    def check(self) -> None:
        if self._cause is not None:
            raise type(self._cause)(*self._cause.args)


class _Sink:
    """Passes events on, one at a time; once `stop` is set it ends whoever reports."""

    def __init__(self, on_event: EventSink, stop: _Stop) -> None:
        self._on_event = on_event
        self._stop = stop
        self._lock = threading.Lock()
        self.serials: dict[str, str | None] = {}

    def __call__(self, event: Event) -> None:
        self._stop.check()
        self.tell(event)

    def tell(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, DeviceFound):
                self.serials[event.path] = event.serial
            self._on_event(event)


class _StoppableClock:
    """A clock whose sleepers wake up, and end, once `stop` is set."""

    def __init__(self, clock: Clock, stop: _Stop) -> None:
        self._clock = clock
        self._stop = stop

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)
        self._stop.check()
