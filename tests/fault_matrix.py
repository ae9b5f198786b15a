"""The fault matrix: what goes wrong, where in a flash, and what must come of it.

A cell is written as the last word of the error's code (``gone`` for device-gone; ``stopped`` for interrupted), as
``ok``; ``+1`` after it is a restart that was said aloud; ``lax/strict`` where asking after each block makes a
difference; ``-x`` is no case, and `NO_CASE` says why.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable
from dataclasses import dataclass

import usb.core

from esp_dfu_ext.dfu.spec import Mode, Request, State, Status
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.board import (
    DETACH_TIME,
    Answer,
    DeviceGone,
    Effect,
    Moment,
    bus_reset,
    hang,
    report,
    stall,
    vanish,
)
from esp_dfu_ext.simulator.rom import ControlTimeout

from .kit.archives import CHIP_SIZE, File, content, image_of
from .kit.boards import Bench, bench
from .kit.chips import chip
from .kit.host import DNLOAD

FILES = (File(0x1000, "bootloader.bin", content(300, 1)), File(0x10000, "app.bin", content(2900, 2)))
IMAGE = image_of(FILES, chip(), CHIP_SIZE)
STREAM = bytes(IMAGE.stream)
BLOCKS = -(-len(STREAM) // 64)
FIRST_FILE = STREAM.index(FILES[0].data) // 64
APP = STREAM.index(FILES[1].data) // 64
OLD = content(CHIP_SIZE, 9)  # what is in the flash before

TABLE = """
fault                     open       detach    wait       recover index       params      first       middle      last    zero    final   reset
stall                     ok         ok        -a         ok+1    ok+1        ok+1        ok+1        ok+1        ok+1    ok+1    ok+1    -r
no-answer                 ok         ok        -a         ok+1    ok+1        ok+1        ok+1        ok+1        ok+1    ok+1    ok+1    ok
late-answer               ok         -d        no-return  ok+1    ok+1        ok+1        ok+1        ok+1        ok+1    ok+1    ok+1    ok
io-error                  ok         ok        -a         ok+1    ok+1        ok+1        ok+1        ok+1        ok+1    ok+1    ok+1    -r
slow                      ok         ok        ok         ok      ok          ok          ok          ok          ok      ok      ok      ok
stall-always              ok         mode      -a         stall   stall+2     stall+2     stall+2     stall+2     stall+2 stall+2 stall   -r
dead                      mode       mode      -a         timeout timeout     timeout     timeout     timeout     timeout timeout timeout -r
short-status              -n         -n        -a         ok+1    ok+1        ok+1        ok+1        ok+1        ok+1    -f      ok+1    -r
short-always              -n         -n        -a         answer  answer      answer      answer      answer      answer  -f      answer  -r
state-9                   -n         -n        -a         ok      ok+1        ok+1        ok+1        ok+1        ok+1    -f      ok+1    -r
state-77                  -n         -n        -a         ok      ok+1        ok+1        ok+1        ok+1        ok+1    -f      ok+1    -r
state-9-always            -n         -n        -a         state   state       state       state       state       state   -f      state   -r
errTARGET..errPOR         -n         -n        -a         ok      status      status      status      status      status  status  status  -r
errUNKNOWN..errSTALLEDPKT -n         -n        -a         ok      ok+1/status ok+1/status ok+1/status ok+1/status status  status  status  -r
vanish                    gone       no-return no-return  gone    gone        gone        gone        gone        gone    gone    gone    ok
vanish-io-error           gone       no-return no-return  gone    gone        gone        gone        gone        gone    gone    gone    ok
back-run-time             gone       ok        ok         gone    gone        gone        gone        gone        gone    gone    gone    ok
back-dfu                  gone       ok        ok         gone    gone        gone        gone        gone        gone    gone    gone    ok
back-other-chip           gone       mode      mode       gone    gone        gone        gone        gone        gone    gone    gone    ok
back-other-port           gone       no-return no-return  gone    gone        gone        gone        gone        gone    gone    gone    ok
bus-reset                 ok         ok        gone       gone    gone        gone        gone        gone        gone    gone    gone    ok
held                      busy       -o        busy       -o      -o          -o          -o          -o          -o      -o      -o      -o
no-access                 permission -o        permission -o      -o          -o          -o          -o          -o      -o      -o      -o
SIGINT                    stopped    stopped   stopped    stopped stopped     stopped     stopped     stopped     stopped stopped stopped stopped
SIGTERM                   stopped    stopped   stopped    stopped stopped     stopped     stopped     stopped     stopped stopped stopped stopped
SIGHUP                    stopped    stopped   stopped    stopped stopped     stopped     stopped     stopped     stopped stopped stopped stopped
"""  # noqa: E501

NO_CASE = {
    "-a": "nothing is asked while the board is away",
    "-d": "the ROM leaves the bus inside DFU_DETACH: its answer is always lost",
    "-f": "the next DFU_GETSTATUS is the final one: see there",
    "-n": "nobody asks for a DFU status in run-time mode",
    "-o": "the interface is open already",
    "-r": "a bus reset is no request",
}


@dataclass(frozen=True)
class Place:
    """Where in a flash: the request at which it happens, after so many blocks."""

    name: str
    at: Request | Moment
    block: int = 0

    @property
    def in_download(self) -> bool:
        """Asking after each block may make a difference."""
        return self.block > 0


PLACES = {
    place.name: place
    for place in (
        Place("open", Moment.STRING),
        Place("detach", Request.DFU_DETACH),
        Place("wait", Request.DFU_DETACH),
        Place("recover", Request.DFU_ABORT),
        Place("index", Request.DFU_DNLOAD, 1),
        Place("params", Request.DFU_DNLOAD, FIRST_FILE - 2),
        Place("first", Request.DFU_DNLOAD, APP),
        Place("middle", Request.DFU_DNLOAD, APP + 20),
        Place("last", Request.DFU_DNLOAD, BLOCKS - 1),
        Place("zero", Request.DFU_DNLOAD, BLOCKS),
        Place("final", Request.DFU_GETSTATUS, BLOCKS + 1),
        Place("reset", Moment.RESET),
    )
}


# --- effects that the simulator does not need itself -------------------------------------------------------


def late(board: Board, answer: Answer) -> bytes:
    """The device takes the request, but nobody waits for its answer any more."""
    answer()
    raise ControlTimeout


def io_error(board: Board, answer: Answer) -> bytes:
    """What many host controllers say of a transfer that is lost."""
    raise usb.core.USBError("Input/Output Error", -1, errno.EIO)


def vanish_io_error(board: Board, answer: Answer) -> bytes:
    """And of one during which the device leaves."""
    board.unplug()
    raise usb.core.USBError("Input/Output Error", -1, errno.EIO)


def slow(board: Board, answer: Answer) -> bytes:
    """It takes two seconds, which is less than anybody waits."""
    board.clock.sleep(2.0)
    return answer()


def nothing_happens(board: Board, answer: Answer) -> bytes:
    """What a bus reset does that does not reach the chip."""
    return b""


def answers(change: Callable[[bytes], bytes]) -> Effect:
    """The answer comes changed."""
    return lambda board, answer: change(answer())


def in_state(state: int) -> Effect:
    """DFU_GETSTATUS tells another bState."""
    return answers(lambda status: status[:4] + bytes([state]) + status[5:])


def left_behind(status: Status) -> Effect:
    """It was in dfuERROR already."""

    def effect(board: Board, answer: Answer) -> bytes:
        board.rom.fail(status)
        return answer()

    return effect


def always(effect: Effect, block: int, at: Request | Moment) -> Effect:
    """Again and again, until somebody replugs the board."""

    def again(board: Board, answer: Answer) -> bytes:
        board.faults.plan(again, block, at)
        return effect(board, answer)

    return again


def die(board: Board, answer: Answer) -> bytes:
    """From now on it answers nothing."""
    for request in (*Request, Moment.STRING):
        board.faults.plan(always(hang, 0, request), 0, request)
    raise ControlTimeout


def back(mode: Mode) -> Effect:
    """It restarts, and is back at once."""

    def effect(board: Board, answer: Answer) -> bytes:
        board.plug(mode)
        raise DeviceGone

    return effect


def back_on(path: str) -> Effect:
    """Somebody moves it to another port."""

    def effect(board: Board, answer: Answer) -> bytes:
        board.unplug()
        board.path = path
        board.plug()
        raise DeviceGone

    return effect


def returns_after(seconds: float) -> Effect:
    """It needs longer than others to be back in DFU mode."""

    def effect(board: Board, answer: Answer) -> bytes:
        board.unplug()
        board._schedule = [(board.clock.monotonic() + seconds, Mode.DFU)]
        raise DeviceGone

    return effect


# --- rows --------------------------------------------------------------------------------------------------


@dataclass
class Cell:
    """One case, before it is run: a board, and what is planned for it.

    Attributes:
        says: what the error must say, whatever its code.
        lasting: it does not go away by itself.
        dead: it answers nothing any more.
    """

    rig: Bench
    place: Place
    says: tuple[str, ...] = ()
    lasting: bool = False
    dead: bool = False

    def __post_init__(self) -> None:
        self.first_address = self.rig.boards[0].address

    @property
    def struck(self) -> bool:
        """It has happened; one that happens again and again was planned anew."""
        return self.lasting or not self.rig.boards[0].faults.planned

    def plan(self, effect: Effect, at: Request | Moment | None = None, block: int | None = None) -> None:
        mode = Mode.DFU if self.place.name == "wait" and at is Moment.OPEN else None
        self.rig.boards[0].faults.plan(effect, self.place.block if block is None else block, at or self.place.at, mode)

    def set_up(self, fault: str) -> None:
        """Plan a row's fault at this column's place."""
        if fault in Status.__members__:
            self._status(Status[fault])
        elif fault.startswith(("short", "state")):
            self._odd_status(fault)
        elif fault in ("vanish", "vanish-io-error", "bus-reset") or fault.startswith("back"):
            self._leaves(fault)
        elif fault.startswith("SIG"):
            self._signal(signal.Signals[fault])
        elif fault in ("held", "no-access"):
            self._refused(fault)
        else:
            self._transfer(fault)

    def _transfer(self, fault: str) -> None:
        effects: dict[str, Effect] = {"stall": stall, "no-answer": hang, "late-answer": late, "slow": slow, "dead": die}
        effects["io-error"] = io_error
        if self.place.name == "wait":
            effects = {"slow": returns_after(6.0), "late-answer": returns_after(20.0)}
        elif self.place.name == "reset" and fault != "slow":
            effects = dict.fromkeys(effects, nothing_happens)
        effects["stall-always"] = always(stall, self.place.block, self.place.at)
        self.lasting, self.dead = fault in ("dead", "stall-always"), fault == "dead"
        self.plan(effects[fault])

    def _status(self, status: Status) -> None:
        self.says = (status.name,)
        if self.place.at is Request.DFU_DNLOAD:
            self.plan(report(status))
        else:
            self.plan(left_behind(status), Request.DFU_GETSTATUS)

    def _odd_status(self, fault: str) -> None:
        word, *rest = fault.split("-")
        effect = answers(lambda status: status[:3]) if word == "short" else in_state(int(rest[0]))
        self.says = ("3 bytes instead of 6",) if word == "short" else (str(State(9)),)
        block = self.place.block + (self.place.at is Request.DFU_DNLOAD)
        if fault.endswith("always"):
            self.lasting = True
            effect = always(effect, block, Request.DFU_GETSTATUS)
        self.plan(effect, Request.DFU_GETSTATUS, block)

    def _leaves(self, fault: str) -> None:
        effects: dict[str, Effect] = {
            "vanish": vanish,
            "vanish-io-error": vanish_io_error,
            "back-run-time": back(Mode.RUN_TIME),
            "back-dfu": back(Mode.DFU),
            "back-other-chip": self._other_chip,
            "back-other-port": back_on("1-2"),
            "bus-reset": bus_reset,
        }
        at = {"open": Moment.OPEN}.get(self.place.name)
        if self.place.name == "wait" and fault == "bus-reset":
            at = Moment.OPEN
        elif self.place.name == "wait" and fault == "back-dfu":
            effects[fault] = returns_after(DETACH_TIME)
        self.plan(effects[fault], at)

    def _other_chip(self, board: Board, answer: Answer) -> bytes:
        board.unplug()
        self.rig.boards[1].plug()
        raise DeviceGone

    def _signal(self, number: signal.Signals) -> None:
        self.says = (f"Stopped by {number.name}" if number is not signal.SIGINT else "Stopped",)
        clock = self.rig.clock
        sleep = clock.sleep

        def at_once(board: Board, answer: Answer) -> bytes:
            signal.raise_signal(number)
            return answer()

        def in_the_next_sleep(seconds: float) -> None:
            clock.sleep = sleep  # type: ignore[method-assign]
            signal.raise_signal(number)

        def while_away(board: Board, answer: Answer) -> bytes:
            clock.sleep = in_the_next_sleep  # type: ignore[method-assign]
            return answer()

        self.plan(while_away if self.place.name == "wait" else at_once)

    def _refused(self, fault: str) -> None:
        board = self.rig.boards[0]
        self.lasting = True

        def refuse(board: Board, answer: Answer) -> bytes:
            if fault == "held":
                board.holder = object()
            else:
                board.faults.no_access = True
                board.check_access()
            return answer()

        mode = Mode.DFU if self.place.name == "wait" else None
        board.faults.plan(refuse, 0, Moment.OPEN, mode)


def new_cell(place: Place) -> Cell:
    """A board with something in its flash, as it is when a flash begins; another chip that could take its port."""
    rig = bench("esp32s3", "esp32s2", start=100.0)
    board, other = rig.boards
    other.unplug()
    other.path = board.path
    board.rom.flash.program(0, OLD)
    if place.name == "recover":
        board.rom.restart(Mode.DFU)
        board.rom.control(0x21, DNLOAD, 0, STREAM[:64], 0)  # left behind by somebody
    return Cell(rig, place)


def rows() -> dict[str, dict[str, str]]:
    """The table: fault, place, expected cell."""
    head, *lines = [line.split() for line in TABLE.strip().splitlines()]
    return {fault: dict(zip(head[1:], line[1:])) for line in lines for fault in _faults(line[0])}


def _faults(word: str) -> list[str]:
    """``errTARGET..errPOR`` are thirteen."""
    first, _, last = word.partition("..")
    return [status.name for status in Status if Status[first] <= status <= Status[last]] if last else [word]


def cells() -> list[tuple[str, str, bool, str]]:
    """Fault, place, strict, expected; those that are a case."""
    found = []
    for fault, row in rows().items():
        for place, expected in row.items():
            lax, _, strict = expected.partition("/")
            if not expected.startswith("-"):
                found.append((fault, place, False, lax))
                if PLACES[place].in_download:
                    found.append((fault, place, True, strict or lax))
    return found


def report_lines(seen: dict[tuple[str, str, bool], str]) -> list[str]:
    """The matrix as it was seen, equal statuses in one row, and how many cells there are of each kind."""
    names = list(PLACES)
    body: list[tuple[str, ...]] = []
    counts: dict[str, int] = {}
    for fault, row in rows().items():
        texts = []
        for place, expected in row.items():
            lax, strict = seen.get((fault, place, False)), seen.get((fault, place, True))
            text = expected if expected.startswith("-") else lax or "?"
            texts.append(text if strict in (None, lax) else f"{text}/{strict}")
            for cell in (lax, strict):
                if cell is not None:
                    counts[cell] = counts.get(cell, 0) + 1
        same = bool(body) and fault in Status.__members__ and body[-1][1:] == tuple(texts)
        body[-1:] = [(f"{body[-1][0].partition('..')[0]}..{fault}", *texts)] if same else [*body[-1:], (fault, *texts)]
    table = [("fault", *names), *body]
    widths = [max(len(row[column]) for row in table) for column in range(len(names) + 1)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in table]
    lines += [f"{mark} {why}" for mark, why in NO_CASE.items()]
    total = sum(counts.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda item: -item[1]))
    return [*lines, f"{total} cells: {kinds}"]
