"""A chip's serial loader, spoken to by esptool as a library: its protocol, its stub, its compression.

esptool prints to the terminal and raises errors of many kinds. Each call of it goes through `EsptoolChip._call`, which
drops what it prints and turns its errors into ours, so neither reaches the user. Nothing of this is safe for several
chips at once, because a process has only one stdout.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import partial
from typing import Any, TypeVar

import serial

from ..errors import EspDfuError, SerialLoaderError, SerialPortError
from ..image.esp_image import own_configuration
from ..loader.rom_loader import flash_size_of
from ..loader.watchdog import restart_writes
from ..target import Target
from ..usb.system_port import PORT_ERRORS, first_line, has_left, open_serial_port
from ..usb.trace import Trace

_ATTEMPTS = 7  # connections, each of several SYNCs, as esptool's own default
_SILENCE = 3.0  # seconds without an answer where esptool sets no other limit
_NO_FLASH = (0x000000, 0xFFFFFF, 0xFFFF3F)  # flash IDs if nothing answers; esptool, cmds.py
_Result = TypeVar("_Result")


class EsptoolChip:
    """The chip on a serial port; a context manager that closes the port.

    Args:
        target: The chip that must be there.
        port: Name of the serial port.
        path: USB port of its device, for the trace; empty if that is not known.
        trace: Takes what goes over the port.

    Raises:
        SerialPortError: The port cannot be opened.
        SerialLoaderError: esptool does not know the chip, or cannot be imported.
    """

    def __init__(self, target: Target, port: str, *, path: str = "", trace: Trace | None = None) -> None:
        self._target = target
        self._port_name = port
        self._compress = False
        self._esptool: Any = self._call("import esptool", _import_esptool)
        kind = self._esptool.targets.CHIP_DEFS.get(target.name)
        if kind is None:
            version = self._esptool.__version__
            raise SerialLoaderError(f"esptool {version} does not know the {target.chip}.", reason="esptool")
        # esptool waits for its stub without a limit of its own.
        self._port = open_serial_port(port, timeout=_SILENCE, path=path, trace=trace)
        try:
            self._loader: Any = self._call("open the port", lambda: kind(self._port))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> EsptoolChip:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the port."""
        with suppress(Exception):  # a port that left the bus cannot be closed in order
            self._port.close()

    def connect(self) -> None:
        """Find the chip in download mode; its lines are left alone, because RTS would reset it.

        Raises:
            SerialLoaderError: It does not answer, is another chip, or is in Secure Download Mode.
        """
        old = self._esptool.__version__.startswith("4.")
        mode = "no_reset" if old else "no-reset"
        self._call("connect", lambda: self._loader.connect(mode, attempts=_ATTEMPTS))
        if self._loader.secure_download_mode:
            raise SerialLoaderError(
                f"The chip on {self._port_name} is in Secure Download Mode, which hides its flash memory.",
                reason="secure",
            )

    def start_stub(self) -> None:
        """Upload esptool's stub, which compresses and is faster; without one for this chip, the ROM does the work."""

        def start() -> Any:
            try:
                return self._loader.run_stub()
            except (OSError, KeyError) as error:
                if isinstance(error, serial.SerialException):
                    raise
                return self._loader  # this esptool has no stub for the chip

        self._loader = self._call("start the stub", start)
        self._compress = bool(self._loader.IS_STUB)

    def attach_flash(self, image_end: int) -> int | None:
        """Make the flash memory accessible.

        Args:
            image_end: Address behind the last byte to write.

        Returns:
            Its size in bytes as the memory itself tells it, None if its ID does not.

        Raises:
            SerialLoaderError: No flash memory answers.
        """
        loader = self._loader
        if not loader.IS_STUB:
            self._call("attach the flash memory", lambda: loader.flash_spi_attach(0))
        flash_id = self._call("read the flash ID", lambda: loader.flash_id())
        if flash_id in _NO_FLASH:
            raise SerialLoaderError(f"No flash memory answers the chip on {self._port_name} (ID {flash_id:#08x}).")
        size = self._call("say how large that is", lambda: flash_size_of(flash_id))
        assumed = size or 1 << max(image_end - 1, 1).bit_length()
        if size is None or image_end <= size:
            self._call("set the flash size", lambda: loader.flash_set_parameters(assumed))
        return size

    def write(self, address: int, data: bytes, on_written: Callable[[int], None]) -> None:
        """Write data to flash memory; `on_written` is called with the number of bytes that each block held."""
        loader, size = self._loader, self._loader.FLASH_WRITE_SIZE
        packed = zlib.compress(data, 9) if self._compress else data
        compressed = len(packed) < len(data)
        inflate = zlib.decompressobj()
        if compressed:
            self._call("erase", lambda: loader.flash_defl_begin(len(data), len(packed), address))
        else:
            packed = data
            self._call("erase", lambda: loader.flash_begin(len(data), address))
        timeout = self._target.dfu.erase_timeout  # the stub erases while it takes the blocks
        for number, start in enumerate(range(0, len(packed), size)):
            block = packed[start : start + size]
            if compressed:
                self._call("write", partial(loader.flash_defl_block, block, number, timeout=timeout))
                on_written(len(inflate.decompress(block)))
            else:
                full = block.ljust(size, b"\xff")
                self._call("write", partial(loader.flash_block, full, number, timeout=timeout))
                on_written(len(block))
        if loader.IS_STUB:  # it writes each block after it has acknowledged it, but answers this only afterwards
            self._call("write", lambda: loader.read_reg(loader.CHIP_DETECT_MAGIC_REG_ADDR, timeout=timeout))

    def md5(self, address: int, size: int) -> str:
        """Return the MD5 of a range of flash memory in hexadecimal, as the chip computes it."""
        return str(self._call("compare", lambda: self._loader.flash_md5sum(address, size))).lower()

    def leave_stub(self) -> None:
        """Go back from the stub to the ROM, which serves DFU too."""
        if self._loader.IS_STUB:
            self._call("leave the stub", lambda: self._loader.soft_reset(True))

    def restart(self) -> None:
        """Restart the chip by the watchdog of its RTC, upon which its pins decide again what it starts.

        The chip may be gone before its last answer, so errors mean nothing here.
        """
        data = self._target.serial_loader
        if data is None:
            return
        with suppress(EspDfuError):
            for address, value, mask in restart_writes(data):
                self._call("restart", partial(self._loader.write_reg, address, value, mask))

    def _call(self, step: str, call: Callable[[], _Result]) -> _Result:
        """Call esptool; see the module's docstring."""
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                return call()
        except EspDfuError:
            raise
        except PORT_ERRORS as error:
            raise SerialPortError(
                f"The serial port {self._port_name} failed ({step}): {first_line(error)}",
                port=self._port_name,
                reason="gone" if has_left(self._port_name) else "failed",
            ) from error
        except Exception as error:  # FatalError and RuntimeError, or anything else if esptool's functions have changed
            kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
            raise SerialLoaderError(
                f"esptool failed on {self._port_name} ({step}): {kind}{first_line(error)}",
                reason="connect" if step == "connect" else "",
            ) from error


def _import_esptool() -> Any:
    with own_configuration():
        import esptool
        import esptool.cmds
        import esptool.targets
        import esptool.util
    return esptool
