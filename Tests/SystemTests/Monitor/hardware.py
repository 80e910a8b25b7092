# SPDX-License-Identifier: Apache-2.0
"""Ports, interrupt controllers, drives, discs, keys, the mouse and a dump, by QMP.

hardware.py QMP-SOCKET SCHEMA-FILE OUTPUT-FOLDER MEDIA-FOLDER ACCELERATOR UUID
"""

import asyncio
import json
import os
import re
import subprocess

from qemu.qmp import QMPClient

from common import Schema, run


async def main(socket, schema_file, output, media, accelerator, uuid):
    client = QMPClient("hardware")
    await client.connect(socket)
    with open(schema_file, encoding="utf-8") as file:
        own = Schema(json.load(file))

    async def ask(command, arguments=None):
        reply = await client.execute(command, arguments)
        own.check_reply(command, reply)
        return reply

    async def human(line):
        return (await ask("human-monitor-command", {"command-line": line})).replace("\r\n", "\n")

    async def fails(command, arguments, words, error_class="GenericError"):
        reply = await client._raw({"execute": command, "arguments": arguments})
        assert reply["error"]["class"] == error_class, reply
        assert words in reply["error"]["desc"], reply

    with client.listener() as events:
        async def happens(name, **data):
            event = await asyncio.wait_for(events.get(), 20)
            assert event["event"] == name, event
            own.check_event(event)
            for key, value in data.items():
                assert event["data"][key.replace("_", "-")] == value, event

        assert (await ask("query-uuid"))["UUID"] == uuid
        assert await human("info uuid") == uuid + "\n"

        await ports(human, accelerator)
        await ask("stop")
        await happens("STOP")
        await ports(human, accelerator)
        await ask("cont")
        await happens("RESUME")
        await chips(human, accelerator)
        await drives(ask, human)

        # Discs: from one folder, and with QEMU's events.
        block = {entry["device"]: entry for entry in await ask("query-block")}
        tray = {"device": "ide1-cd0", "id": block["ide1-cd0"]["qdev"]}
        await ask("blockdev-change-medium", {"device": "ide1-cd0", "filename": "a.iso"})
        await happens("DEVICE_TRAY_MOVED", tray_open=True, **tray)
        await happens("DEVICE_TRAY_MOVED", tray_open=False, **tray)
        block = {entry["device"]: entry for entry in await ask("query-block")}
        assert block["ide1-cd0"]["inserted"]["file"] == "a.iso", block
        assert block["ide1-cd0"]["inserted"]["image"]["virtual-size"] == 1 << 20, block
        assert block["ide1-cd0"]["tray_open"] is False, block
        await ask("eject", {"id": tray["id"]})
        await happens("DEVICE_TRAY_MOVED", tray_open=True, **tray)
        block = {entry["device"]: entry for entry in await ask("query-block")}
        assert "inserted" not in block["ide1-cd0"] and block["ide1-cd0"]["tray_open"], block
        text = await human("info block")
        assert "ide1-cd0: [not inserted]\n" in text and "tray open" in text, text
        assert await human(f"change ide1-cd0 {media}/a.iso raw") == ""
        await happens("DEVICE_TRAY_MOVED", tray_open=False, **tray)
        assert f"ide1-cd0: {media}/a.iso (raw, read-only)\n" in await human("info block")
        assert await human("eject ide1-cd0") == ""
        await happens("DEVICE_TRAY_MOVED", tray_open=True, **tray)
        for path in ["/etc/passwd", media + "/../a.iso", "b/c", "..", "", media]:
            await fails("blockdev-change-medium", {"device": "ide1-cd0", "filename": path},
                        "monitor.media")
        for path in ["none.iso", "link.iso"]:
            await fails("blockdev-change-medium", {"device": "ide1-cd0", "filename": path},
                        "Could not open")
        await fails("blockdev-change-medium", {"device": "ide1-cd0", "filename": "short"}, "2048")
        await fails("eject", {"device": "ide0-hd0"}, "Device 'ide0-hd0' is not removable")
        await fails("eject", {"device": "nope"}, "Device 'nope' not found", "DeviceNotFound")
        assert await human("eject nope") == "Error: Device 'nope' not found\n"
        assert await human("eject ide0-hd0") == "Error: Device 'ide0-hd0' is not removable\n"

        # Keys by number, and the mouse.
        await ask("send-key", {"keys": [{"type": "number", "data": 0x1D},
                                        {"type": "number", "data": 0xD3}]})
        await ask("send-key", {"keys": [{"type": "number", "data": 0x7F}]})
        await ask("input-send-event", {"events": [
            {"type": "rel", "data": {"axis": "x", "value": 5}},
            {"type": "rel", "data": {"axis": "y", "value": -5}},
            {"type": "btn", "data": {"button": "left", "down": True}},
            {"type": "btn", "data": {"button": "left", "down": False}},
            {"type": "btn", "data": {"button": "wheel-up", "down": True}}]})
        await fails("input-send-event", {"events": [
            {"type": "abs", "data": {"axis": "x", "value": 5}}]},
            "Input handler not found for event type abs")
        assert await human("mouse_move 3 -4") == ""
        assert await human("mouse_button 7") == ""
        assert await human("mouse_button 0") == ""
        assert await human("sendkey 0x1e-0x30") == ""

        await ask("stop")
        await happens("STOP")
        await dump(ask, human, output)
        await fails("dump-guest-memory", {"paging": False, "protocol": "fd:x"}, "protocol")
        await fails("dump-guest-memory", {"paging": False, "protocol": "file:/etc/x"},
                    "monitor.output")
        await ask("cont")
        await happens("RESUME")
        # A machine that runs is held for the time of the dump.
        await ask("dump-guest-memory", {"paging": True, "protocol": "file:running"})
        await happens("STOP")
        await happens("RESUME")
        await ask("quit")
    try:
        await client.disconnect()
    except EOFError:
        pass


async def ports(human, accelerator):
    # fw_cfg's first item.
    assert await human("o /h 0x510 0") == ""
    found = [await human("i /b 0x511") for _ in range(4)]
    assert found == [f"portb[0x0511] = 0x{byte:02x}\n" for byte in b"QEMU"], found
    # A port that nobody has.
    assert await human("i /h 0x7f0") == "portw[0x07f0] = 0xffff\n"
    # PCI configuration: the host bridge.
    assert await human("o 0xcf8 0x80000000") == ""
    assert await human("i 0xcfc") == "portl[0x0cfc] = 0x12378086\n"
    # The first controller's mask.
    mask = await human("i /b 0x21")
    assert re.fullmatch(r"portb\[0x0021\] = 0x[0-9a-f]{2}\n", mask) if accelerator == "soft" \
        else mask.startswith("Error: port 0x21 belongs to KVM"), mask


async def chips(human, accelerator):
    text = await human("info pic")
    lines = text.splitlines()
    assert lines[0].startswith("ioapic0: ver=0x20 id=0x00 sel=0x"), text
    for pin in range(24):
        pattern = rf"  pin {pin:<2} 0x[0-9a-f]{{16}} dest=\d+ vec=\d+ +active-(hi|lo) (edge |level) "
        assert re.match(pattern, lines[1 + pin]), lines[1 + pin]
    assert lines[25].startswith("  IRR      ") and lines[26].startswith("  Remote IRR "), text
    for line, chip in zip(lines[27:], ["pic1", "pic0"]):
        assert re.fullmatch(
            rf"{chip}: irr=.. imr=.. isr=.. hprio=0 irq_base={'08' if chip == 'pic0' else '70'} "
            r"rr_sel=0 elcr=.. fnm=0", line), line
    text = await human("info irq")
    if accelerator == "soft":
        assert re.search(r"IRQ statistics for isa-i8259:\n 0: [1-9]\d*\n", text), text
    else:
        assert "IRQ statistics not available for kvm-i8259.\n" in text, text


async def drives(ask, human):
    block = {entry["device"]: entry for entry in await ask("query-block")}
    assert block["ide0-hd0"]["inserted"]["cache"] == {
        "writeback": False, "direct": False, "no-flush": False}, block
    assert block["ide1-cd0"]["removable"] and "inserted" not in block["ide1-cd0"], block
    # The firmware has looked for something to boot.
    stats = {entry["device"]: entry["stats"] for entry in await ask("query-blockstats")}
    assert stats["ide0-hd0"]["rd_operations"] > 0, stats
    assert stats["ide0-hd0"]["rd_bytes"] >= 512, stats
    assert stats["ide0-hd0"]["rd_total_time_ns"] > 0, stats
    assert stats["ide0-hd0"]["wr_bytes"] == stats["ide1-cd0"]["rd_bytes"] == 0, stats
    text = await human("info blockstats")
    bytes_read = stats["ide0-hd0"]["rd_bytes"]
    assert f"ide0-hd0: rd_bytes={bytes_read} wr_bytes=0 " in text, text
    assert "    Cache mode:       writethrough\n" in await human("info block")


async def dump(ask, human, output):
    await ask("dump-guest-memory", {"paging": False, "protocol": "file:dump"})
    await ask("pmemsave", {"val": 0, "size": 0x1000, "filename": "first"})
    registers = await human("info registers")
    result = subprocess.run(
        ["gdb", "-nx", "-batch", "-ex", f"core-file {output}/dump", "-ex", "info registers",
         "-ex", f"dump binary memory {output}/by-gdb 0 0x1000", "-ex", "info threads"],
        capture_output=True, text=True, timeout=60, check=False)
    text = result.stdout + result.stderr
    with open(output + "/first", "rb") as first, open(output + "/by-gdb", "rb") as second:
        assert first.read() == second.read(), text
    word = "RIP" if "RIP=" in registers else "EIP"
    expected = int(re.search(word + r"=([0-9a-f]+)", registers)[1], 16)
    found = int(re.search(r"rip +0x([0-9a-f]+)", text)[1], 16)
    assert found == expected, (text, registers)
    size = os.path.getsize(output + "/dump")
    assert size > 64 << 20 and size < (64 << 20) + 65536, size


run(main)
