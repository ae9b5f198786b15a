"""Boot a virtual machine for each file of guest/ and run the file's tests on its Linux USB stack."""

from __future__ import annotations

import pytest

from .vm.boot import boot

DEADLINE = 3000.0  # real seconds, on a machine with ten times as much to do as it has processors


@pytest.mark.vm
@pytest.mark.time_limit(DEADLINE + 300)
@pytest.mark.parametrize(
    "checks", ["app_start.py", "checks.py", "enter.py", "farm.py", "handover.py", "loader.py", "remote_usb.py"]
)
def test_passes_on_linux_usb_stack(capfd: pytest.CaptureFixture[str], checks: str) -> None:
    """Run many tests as one, and show their report."""
    command = ["-m", "pytest", "-m", "vm", "-p", "no:cacheprovider", "-rA", "--durations=5", "--tb=short"]
    with capfd.disabled():
        exit_code = boot([*command, f"tests/real_usb/guest/{checks}"], DEADLINE)
    assert exit_code == 0, "see the report of the guest above"
