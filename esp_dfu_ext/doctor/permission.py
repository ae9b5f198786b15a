"""Linux: who may open a board's device node, which rule says so, and who holds it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..linux import udev
from ..linux.machine import Machine, UsbNode
from ..target import Target
from .facts import Fact, not_applicable, ok, problem


def node_of(machine: Machine, path: str) -> UsbNode | None:
    """The device on a port as the kernel knows it; None where there is no such thing."""
    return next((node for node in machine.usb() if node.path == path), None)


def boards(machine: Machine, targets: Sequence[Target]) -> list[UsbNode]:
    """The devices that have a chip's IDs."""
    ids = {(target.usb.vid, target.usb.pid) for target in targets}
    return [node for node in machine.usb() if (node.vid, node.pid) in ids]


def refused(machine: Machine, node: UsbNode) -> list[Fact]:
    """Why this user may not open a device; nothing if he may."""
    access = machine.access(node.node)
    if access is None:
        text = f"its device node {node.node} is not there"
        return [problem(f"port {node.path}", "no-node", text, node=node.node)]
    if access.allowed:
        return []
    rules = udev.rules_for(machine, node.vid, node.pid)
    code, reason = udev.why_refused(machine, rules, access)
    group = next((rule.group for rule in reversed(rules) if rule.group), None)
    return [
        problem(
            f"port {node.path}",
            code,
            f"{machine.user} may not open {node.node}, which is {access}: {reason}",
            node=node.node,
            owner=access.owner,
            group=access.group,
            mode=f"{access.mode:04o}",
            rules=[str(rule) for rule in rules],
            rule_group=group,
            user=machine.user,
            where=_kind(machine),
        )
    ]


def without_udev(machine: Machine) -> list[Fact]:
    """That no udev runs here; nothing if one does."""
    if machine.file("/run/udev/control").exists():
        return []
    return [problem("udev", "no-udev", "it does not run here, so that no rule has any effect", where=_kind(machine))]


def _kind(machine: Machine) -> str:
    """What has its udev elsewhere, or none."""
    return "container" if machine.container else "wsl" if machine.wsl else ""


def held(machine: Machine, node: UsbNode, interface: int) -> list[Fact]:
    """Who holds a device's DFU interface; nothing if nobody is seen."""
    driver = node.drivers.get(interface)
    if driver is None:
        return []
    topic = f"port {node.path}"
    if driver != "usbfs":
        name = f"{node.path}:{machine.read(f'/sys/bus/usb/devices/{node.path}/bConfigurationValue')}.{interface}"
        text = f"the driver {driver} holds interface {interface}"
        return [problem(topic, "kernel-driver", text, driver=driver, interface=name)]
    programs = machine.holders(node.node)
    names = ", ".join(f"{name} (process {number})" for number, name in programs)
    who = (
        f"{names} {'has' if len(programs) == 1 else 'have'} {node.node} open"
        if programs
        else "which, this user cannot see"
    )
    text = f"a program has claimed interface {interface}; {who}"
    held_by = [{"process": number, "name": name} for number, name in programs]
    return [problem(topic, "device-busy", text, holders=held_by)]


def bridges(machine: Machine, targets: Sequence[Target]) -> list[Fact]:
    """Serial ports of other vendors: not what is looked for, but perhaps on the same board."""
    vids = {target.usb.vid for target in targets}
    return [
        not_applicable(
            f"port {node.path}",
            f"{node.usb_id}, {node.product or 'without a name'}, a serial port: "
            + ", ".join(f"/dev/{name}" for name in node.terminals),
            terminals=list(node.terminals),
        )
        for node in machine.usb()
        if node.terminals and node.vid not in vids
    ]


def rules(machine: Machine, targets: Sequence[Target]) -> Iterator[Fact]:
    """Whether there is a rule for the chips."""
    if machine.is_root:
        yield not_applicable("udev rule", "root needs none")
        return
    if not machine.file("/run/udev/control").exists():
        yield not_applicable("udev rule", "udev does not run here")
        return
    missing = []
    named: dict[str, None] = {}
    for target in targets:
        found = udev.rules_for(machine, target.usb.vid, target.usb.pid)
        named.update(dict.fromkeys(str(rule) for rule in found))
        missing += [] if found else [target.usb_id]
    if missing:
        number = len(udev.files(machine))
        yield problem("udev rule", "no-rule", f"none of {number} files names {', '.join(missing)}", missing=missing)
    else:
        yield ok("udev rule", "; ".join(named), rules=list(named))
