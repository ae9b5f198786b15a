"""Checks on Linux: who may open a board's device node, which udev rule applies, which program holds it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..dfu.spec import INTERFACE_CLASS, INTERFACE_SUBCLASS
from ..linux import udev
from ..linux.machine import Machine, UsbNode
from ..target import Target
from ..usb.serial_ports import of_device
from .findings import Finding, another_way, not_applicable, ok, problem


def node_of(machine: Machine, path: str) -> UsbNode | None:
    """Return the device on a port as the kernel knows it, or None."""
    return next((node for node in machine.usb() if node.path == path), None)


def boards(machine: Machine, targets: Sequence[Target]) -> list[UsbNode]:
    """Return the devices with the IDs of a chip, and the apps of its vendor that have a DFU interface."""
    ids = {(target.usb.vid, target.usb.pid) for target in targets}
    vids = {target.usb.vid for target in targets}
    return [node for node in machine.usb() if (node.vid, node.pid) in ids or (node.vid in vids and _is_app(node))]


def _is_app(node: UsbNode) -> bool:
    return (INTERFACE_CLASS, INTERFACE_SUBCLASS) in node.classes.values()


def refused(machine: Machine, node: UsbNode) -> list[Finding]:
    """Return why this user cannot open a device; nothing if they can."""
    access = machine.access(node.device_file)
    if access is None:
        text = f"its device node {node.device_file} does not exist"
        return [problem(f"port {node.path}", "no-node", text, node=node.device_file, where=_where(machine))]
    if access.allowed:
        return []
    rules = udev.rules_for(machine, node.vid, node.pid, is_app=_is_app(node))
    code, reason = udev.why_refused(machine, rules, access)
    return [
        problem(
            f"port {node.path}",
            code,
            f"{machine.user} cannot open {node.device_file} ({access}): {reason}",
            node=node.device_file,
            owner=access.owner,
            group=access.group,
            mode=f"{access.mode:04o}",
            rules=[str(rule) for rule in rules],
            rule_group=udev.group_of(rules),
            user=machine.user,
            where=_where(machine),
        )
    ]


def without_udev(machine: Machine) -> list[Finding]:
    """Return the problem that udev is not running; nothing if it is."""
    if machine.udev_running:
        return []
    return [problem("udev", "no-udev", "no rule takes effect, because udev is not running", where=_where(machine))]


def _where(machine: Machine) -> str:
    """Return where this is if its udev is elsewhere or missing: ``container``, ``wsl`` or empty."""
    return "container" if machine.container else "wsl" if machine.wsl else ""


def held(machine: Machine, node: UsbNode, interface: int) -> list[Finding]:
    """Return who holds an interface of a device; nothing if the kernel shows no holder."""
    driver = node.drivers.get(interface)
    if driver is None:
        return []
    topic = f"port {node.path}"
    if driver != "usbfs":
        name = f"{node.path}:{machine.read(f'/sys/bus/usb/devices/{node.path}/bConfigurationValue')}.{interface}"
        text = f"the Linux driver {driver} is bound to interface {interface}"
        return [problem(topic, "kernel-driver", text, driver=driver, interface=name)]
    programs = machine.holders(node.device_file)
    names = ", ".join(f"{name} (process {number})" for number, name in programs)
    opened = f"open in {names}" if programs else "open in a program that this user cannot see"
    text = f"interface {interface} is claimed; {node.device_file} is {opened}"
    held_by = [{"process": number, "name": name} for number, name in programs]
    return [problem(topic, "device-busy", text, holders=held_by)]


def port_held(machine: Machine, port: str) -> list[Finding]:
    """Return which programs have a serial port open; nothing if this user can see none."""
    programs = machine.holders(os.path.realpath(port))
    if not programs:
        return []
    names = ", ".join(f"{name} (process {number})" for number, name in programs)
    held_by = [{"process": number, "name": name} for number, name in programs]
    return [problem(port, "serial-port-busy", f"{port} is open in {names}", holders=held_by)]


def bridges(machine: Machine, targets: Sequence[Target]) -> list[Finding]:
    """Report serial ports of other vendors: not the chip, but perhaps on the same board."""
    vids = {target.usb.vid for target in targets}
    return [
        not_applicable(
            f"port {node.path}",
            f"the kernel sees {node.usb_id}, {node.product or 'unnamed'}, serial port "
            + ", ".join(f"/dev/{name}" for name in node.ttys),
            terminals=list(node.ttys),
        )
        for node in machine.usb()
        if node.ttys and node.vid not in vids
    ]


def serial_port(machine: Machine, targets: Sequence[Target], path: str) -> list[Finding]:
    """Return the serial port of the chip on a USB port, if this user can open it: it needs neither driver nor rule."""
    ports, same_buses = machine.serial_ports(), machine.platform != "win32"
    ids = [(target.usb.vid, target.usb.pid) for target in targets]
    found = [port for each in ids if (port := of_device(ports, *each, path, same_buses=same_buses)) is not None]
    if len(found) != 1 or (machine.linux and not machine.may_open(found[0].name)):
        return []
    text = f"the same board has the serial port {found[0].name}"
    return [another_way("serial port", "serial-port-usable", text, port=found[0].name)]


def rules(machine: Machine, targets: Sequence[Target]) -> list[Finding]:
    """Check that there is a udev rule for each chip."""
    if machine.is_root:
        return [not_applicable("udev rule", "not needed: you are root")]
    if not machine.udev_running:
        return [not_applicable("udev rule", "udev is not running")]
    by_target = {target.usb_id: udev.rules_for(machine, target.usb.vid, target.usb.pid) for target in targets}
    missing = [usb_id for usb_id, found in by_target.items() if not found]
    if missing:
        text = f"none matches {', '.join(missing)} (rule files: {len(udev.files(machine))})"
        return [problem("udev rule", "no-rule", text, missing=missing)]
    named = list(dict.fromkeys(str(rule) for found in by_target.values() for rule in found))
    return [ok("udev rule", "; ".join(named), rules=named)]
