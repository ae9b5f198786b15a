"""The fault matrix: a fault, a place in the flash operation, and the required outcome.

A cell is ``ok`` or the last word of the error code (``gone`` for device-gone; ``stopped`` for interrupted). ``+1``
counts announced restarts, ``lax/strict`` shows where a status check after every block makes a difference, and ``-x``
marks a combination that does not exist; `NO_CASE` says why.
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
    error_status,
    hang,
    stall,
    vanish,
)
from esp_dfu_ext.simulator.rom import ControlTimeout

from .kit.archives import CHIP_SIZE, File, content, image_of
from .kit.boards import Rig, make_rig
from .kit.chips import chip
from .kit.host import DNLOAD

FILES = (File(0x1000, "bootloader.bin", content(300, 1)), File(0x10000, "app.bin", content(2900, 2)))
IMAGE = image_of(FILES, chip(), CHIP_SIZE)
STREAM = bytes(IMAGE.stream)
BLOCKS = -(-len(STREAM) // 64)
FIRST_FILE = STREAM.index(FILES[0].data) // 64
APP = STREAM.index(FILES[1].data) // 64
OLD = content(CHIP_SIZE, 9)  # content of the flash memory before

TABLE = """
fault                     open       detach    wait       recover index       params      first       middle      last    zero    final   reset
stall                     ok         ok        -a         ok+1    ok+1        ok+1        ok+1        ok+1        ok+1    ok+1    ok+1    -r
no-answer                 ok         ok        -a         ok+1    ok+1        ok+1        ok+1        ok+1        ok+1    ok+1    ok+1    ok
late-answer               ok         -d        no-return  ok+1    ok+1        ok+1        ok+1        ok+1        ok+1    ok+1    ok+1    ok
io-error                  ok         ok        -a         ok+1    ok+1        ok+1        ok+1        ok+1        ok+1    ok+1    ok+1    -r
slow                      ok         ok        ok         ok      ok          ok          ok          ok          ok      ok      ok      ok
stall-always              ok         mode      -a         stall   stall+2     stall+2     stall+2     stall+2     stall+2 stall+2 stall   -r
dead                      mode       mode      -a         silent  silent      silent      silent      silent      silent  silent  silent  -r
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
bus-reset                 ok         ok        ok         gone    gone        gone        gone        gone        gone    gone    gone    ok
held                      busy       -o        busy       -o      -o          -o          -o          -o          -o      -o      -o      -o
no-access                 permission -o        permission -o      -o          -o          -o          -o          -o      -o      -o      -o
SIGINT                    stopped    stopped   stopped    stopped stopped     stopped     stopped     stopped     stopped stopped stopped stopped
SIGTERM                   stopped    stopped   stopped    stopped stopped     stopped     stopped     stopped     stopped stopped stopped stopped
SIGHUP                    stopped    stopped   stopped    stopped stopped     stopped     stopped     stopped     stopped stopped stopped stopped
"""  # noqa: E501

NO_CASE = {
    "-a": "esp-dfu sends no request while the board is away",
    "-d": "the ROM leaves the bus during DFU_DETACH: its answer is always lost",
    "-f": "the next DFU_GETSTATUS is the final one: see there",
    "-n": "esp-dfu does not ask for a DFU status in run-time mode",
    "-o": "the interface is open already",
    "-r": "a bus reset is not a request",
}


@dataclass(frozen=True)
class Place:
    """A place in the flash operation: a request, after a number of blocks."""

    name: str
    at: Request | Moment
    block: int = 0

    @property
    def in_download(self) -> bool:
        """True where a status check after every block can make a difference."""
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


# --- effects that the simulator itself does not need -------------------------------------------------------


def late(board: Board, answer: Answer) -> bytes:
    """Effect: the device handles the request, and its answer comes after the timeout."""
    answer()
    raise ControlTimeout


def io_error(board: Board, answer: Answer) -> bytes:
    """Effect: the transfer is lost, as many host controllers report it."""
    raise usb.core.USBError("Input/Output Error", -1, errno.EIO)


def vanish_io_error(board: Board, answer: Answer) -> bytes:
    """Effect: the device leaves during the transfer, as many host controllers report it."""
    board.unplug()
    raise usb.core.USBError("Input/Output Error", -1, errno.EIO)


def slow(board: Board, answer: Answer) -> bytes:
    """Effect: the device needs two seconds, which is shorter than every timeout."""
    board.clock.sleep(2.0)
    return answer()


def nothing_happens(board: Board, answer: Answer) -> bytes:
    """Effect: the bus reset does not reach the chip."""
    return b""


def answers(change: Callable[[bytes], bytes]) -> Effect:
    """Return an effect: the answer is changed."""
    return lambda board, answer: change(answer())


def in_state(state: int) -> Effect:
    """Return an effect: DFU_GETSTATUS reports another bState."""
    return answers(lambda status: status[:4] + bytes([state]) + status[5:])


def left_behind(status: Status) -> Effect:
    """Return an effect: the device is in dfuERROR already."""

    def effect(board: Board, answer: Answer) -> bytes:
        board.rom.fail(status)
        return answer()

    return effect


def always(effect: Effect, block: int, at: Request | Moment) -> Effect:
    """Return an effect that strikes again and again until the board is replugged."""

    def again(board: Board, answer: Answer) -> bytes:
        board.faults.plan(again, block, at)
        return effect(board, answer)

    return again


def die(board: Board, answer: Answer) -> bytes:
    """Effect: the device answers no more requests."""
    for request in (*Request, Moment.STRING):
        board.faults.plan(always(hang, 0, request), 0, request)
    raise ControlTimeout


def back(mode: Mode) -> Effect:
    """Return an effect: the board restarts and is back at once."""

    def effect(board: Board, answer: Answer) -> bytes:
        board.plug(mode)
        raise DeviceGone

    return effect


def back_on(path: str) -> Effect:
    """Return an effect: the board moves to another port."""

    def effect(board: Board, answer: Answer) -> bytes:
        board.unplug()
        board.path = path
        board.plug()
        raise DeviceGone

    return effect


def returns_after(seconds: float) -> Effect:
    """Return an effect: the board needs this long to return in DFU mode."""

    def effect(board: Board, answer: Answer) -> bytes:
        board.unplug()
        board.plug(Mode.DFU, after=seconds)
        raise DeviceGone

    return effect


# --- rows --------------------------------------------------------------------------------------------------


@dataclass
class Cell:
    """A case before it runs: a board and the faults planned for it.

    Attributes:
        rig: Rig with the board, and with one of another chip that can take its port.
        place: Place in the flash operation.
        says: Texts that the error must contain, whatever its code.
        lasting: The fault persists until the board is replugged.
        dead: The device answers no more requests.
    """

    rig: Rig
    place: Place
    says: tuple[str, ...] = ()
    lasting: bool = False
    dead: bool = False

    def __post_init__(self) -> None:
        self.first_address = self.rig.boards[0].address

    @property
    def struck(self) -> bool:
        """True if the fault has struck; a lasting one is always planned again."""
        return self.lasting or not self.rig.boards[0].faults.planned

    def plan(self, effect: Effect, at: Request | Moment | None = None, block: int | None = None) -> None:
        mode = Mode.DFU if self.place.name == "wait" and at is Moment.OPEN else None
        self.rig.boards[0].faults.plan(effect, self.place.block if block is None else block, at or self.place.at, mode)

    def set_up(self, fault: str) -> None:
        """Plan the fault of a row at this place."""
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
            self.plan(error_status(status))
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
    """Return a cell with a board as it is before the fault, and one of another chip that can take its port."""
    rig = make_rig("esp32s3", "esp32s2", start=100.0)
    board, other = rig.boards
    other.unplug()
    other.path = board.path
    board.rom.flash.program(0, OLD)
    if place.name == "recover":
        board.rom.restart(Mode.DFU)
        board.rom.control(0x21, DNLOAD, 0, STREAM[:64], 0)  # left over from another program
    return Cell(rig, place)


def rows() -> dict[str, dict[str, str]]:
    """Return the table: fault, place, expected outcome."""
    head, *lines = [line.split() for line in TABLE.strip().splitlines()]
    return {fault: dict(zip(head[1:], line[1:])) for line in lines for fault in _faults(line[0])}


def _faults(word: str) -> list[str]:
    """Expand a range such as ``errTARGET..errPOR``, thirteen statuses."""
    first, _, last = word.partition("..")
    return [status.name for status in Status if Status[first] <= status <= Status[last]] if last else [word]


def cells() -> list[tuple[str, str, bool, str]]:
    """Return fault, place, strict and expected outcome of each case."""
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
    """Return the matrix as it was seen, with equal statuses in one row, and the number of cells of each kind."""
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
