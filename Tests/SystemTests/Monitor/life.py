# SPDX-License-Identifier: Apache-2.0
"""Drives a machine through its life with the qemu.qmp package.

life.py QMP-SOCKET SCHEMA-FILE OUTPUT-FOLDER THREADS
"""

import asyncio
import json
import os
import re
import tempfile
import time

from qemu.qmp import ExecuteError, QMPClient

from common import Schema, run

# What both machines have, with arguments that both take.
QUERIES = [
    ("query-status", None), ("query-version", None), ("query-commands", None),
    ("query-cpus-fast", None), ("query-kvm", None), ("query-machines", None),
    ("query-memory-size-summary", None), ("query-block", None), ("query-blockstats", None),
    ("query-chardev", None), ("query-vnc", None), ("query-pci", None), ("query-name", None),
    ("query-uuid", None), ("qom-list", {"path": "/machine"}),
    ("qom-list", {"path": "/machine/unattached"}),
]


async def fails(client, message, error_class, words=""):
    """The message is answered by an error of a class, with some words in it."""
    reply = await client._raw(message)
    assert reply["error"]["class"] == error_class, reply
    assert words in reply["error"]["desc"], reply


async def leave(client):
    """Disconnects from a machine that may have ended first."""
    try:
        await client.disconnect()
    except EOFError:
        pass


async def theirs():
    """The schema of Debian's QEMU, and its answers to wrong messages."""
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/qmp"
        process = await asyncio.create_subprocess_exec(
            "qemu-system-x86_64", "-M", "pc,accel=tcg", "-S", "-display", "none", "-nodefaults",
            "-qmp", f"unix:{path},server=on,wait=off")
        client = QMPClient("qemu")
        for _ in range(200):
            if os.path.exists(path):
                break
            await asyncio.sleep(0.05)
        await client.connect(path)
        schema = Schema(await client.execute("query-qmp-schema"))
        errors = [await client._raw(message) for message in WRONG]
        texts = [await client.execute("human-monitor-command", {"command-line": line})
                 for line in SAME_TEXT]
        await client.execute("quit")
        await leave(client)
        await process.wait()
        return schema, errors, texts


# Each gets an error, and the same one from both.
WRONG = [
    {"execute": "nope"}, {"exec": "x"}, {"execute": 5}, {},
    {"execute": "stop", "arguments": 7}, {"execute": "stop", "arguments": {"bogus": 1}},
    {"execute": "pmemsave", "arguments": {"val": "x", "size": 1, "filename": "y"}},
    {"execute": "pmemsave", "arguments": {"val": 1, "size": 1}},
    {"execute": "send-key", "arguments": {"keys": {}}},
    {"execute": "screendump", "arguments": {"filename": "x", "format": "bmp"}},
    {"execute": "qom-list", "arguments": {"path": "/nowhere"}},
    {"execute": "qmp_capabilities"},
]

# What both say word for word.
SAME_TEXT = [
    "print 1 + 2*3", "print/x 0x10 + 8", "p/d -1", "p/u -1", "print /o 64", "print/x ~0 & 0xff",
    "p/d (1+2)*4/3 - 010", "xp /4xb 0xfffffff0", "xp/2xw 0xfffffff0", "xp/1xg 0xfffffff0",
    "xp/3dh 0xfffffff0", "xp/2uw 0xfffffff0", "xp/3ob 0xfffffff0", "xp/3cb 0xfffffff0",
    "sum 0xfffc0000 4096", "foo", "info foo",
]


async def main(socket, schema_file, output, threads):
    client = QMPClient("life")
    await client.connect(socket)
    with open(schema_file, encoding="utf-8") as file:
        written = json.load(file)
    assert await client.execute("query-qmp-schema") == written
    own = Schema(written)
    qemu, errors, texts = await theirs()

    async def ask(command, arguments=None):
        reply = await client.execute(command, arguments)
        own.check_reply(command, reply)
        if command in qemu.entries:
            qemu.check_reply(command, reply)
        return reply

    for command, arguments in QUERIES:
        await ask(command, arguments)
    names = [entry["name"] for entry in await ask("query-commands")]
    assert set(QUERIES[0]) - {None} <= set(names), names

    # Threads have the numbers that the host knows them by.
    cpus = await ask("query-cpus-fast")
    assert {str(cpu["thread-id"]) for cpu in cpus} == set(threads.split(",")), (cpus, threads)
    human = await ask("human-monitor-command", {"command-line": "info cpus"})
    lines = human.splitlines()
    assert len(lines) == len(cpus) == 2, human
    for index, line in enumerate(lines):
        mark = "*" if index == 0 else " "
        pattern = rf"\{mark} CPU #{index}: pc=0x[0-9a-f]{{16}}( \(halted\))? thread_id=(\d+)$"
        found = re.match(pattern, line)
        assert found and int(found[2]) == cpus[index]["thread-id"], human

    with client.listener() as events:
        async def happens(name):
            event = await asyncio.wait_for(events.get(), 20)
            assert event["event"] == name, event
            own.check_event(event)
            if name in qemu.entries:
                qemu.check_event(event)
            seconds = event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6
            assert abs(seconds - time.time()) < 30, event
            return event

        await ask("stop")
        await happens("STOP")
        assert (await ask("query-status"))["status"] == "paused"
        registers = await ask("human-monitor-command", {"command-line": "info registers"})
        again = await ask("human-monitor-command", {"command-line": "info registers"})
        assert registers == again, "a machine that stands has changed its registers"
        await ask("cont")
        await happens("RESUME")
        assert (await ask("query-status")) == {
            "running": True, "singlestep": False, "status": "running"}
        await ask("system_reset")
        event = await happens("RESET")
        assert event["data"]["guest"] is False, event
        await ask("__org.bulkhead_device-restart", {"role": "serial"})
        event = await happens("__org.bulkhead_DEVICE_RESTARTED")
        assert event["data"] == {"role": "serial"}, event

        # Files, in the folder that the machine file names and nowhere else.
        await ask("screendump", {"filename": output + "/a.ppm"})
        await ask("screendump", {"filename": "a.png", "format": "png"})
        assert open(output + "/a.ppm", "rb").read(2) == b"P6"
        assert open(output + "/a.png", "rb").read(8) == b"\x89PNG\r\n\x1a\n"
        await ask("stop")
        await happens("STOP")
        await ask("pmemsave", {"val": 0xFFFC0000, "size": 0x40000, "filename": "rom"})
        rom = open(output + "/rom", "rb").read()
        assert rom == open("/usr/share/seabios/bios-256k.bin", "rb").read()
        await ask("pmemsave", {"val": 0, "size": 1 << 16, "filename": "low"})
        text = await ask("human-monitor-command", {"command-line": "xp /64xb 0x400"})
        dumped = bytes(int(word, 16) for line in text.splitlines() for word in line.split()[1:])
        assert dumped == open(output + "/low", "rb").read()[0x400:0x440], text
        for path in ["/etc/x", output + "/../x", "a/b", "..", output, ""]:
            await fails(client, {"execute": "screendump", "arguments": {"filename": path}},
                        "GenericError", "monitor.output")
        os.symlink("/etc/passwd", output + "/link")
        await fails(client, {"execute": "screendump", "arguments": {"filename": "link"}},
                    "GenericError")
        await ask("cont")
        await happens("RESUME")

        # What is wrong gets the answer that QEMU gives.
        for message, error in zip(WRONG, errors):
            reply = await client._raw(dict(message))
            assert reply["error"] == error["error"], (message, reply, error)
        for line, expected in zip(SAME_TEXT, texts):
            reply = await ask("human-monitor-command", {"command-line": line})
            assert reply == expected, (line, reply, expected)

        await ask("send-key", {"keys": [{"type": "qcode", "data": "ctrl"},
                                        {"type": "qcode", "data": "a"}]})
        await ask("input-send-event", {"events": [
            {"type": "key", "data": {"key": {"type": "qcode", "data": "a"}, "down": down}}
            for down in (True, False)]})
        await ask("system_powerdown")
        await happens("POWERDOWN")
        await ask("quit")
        await happens("SHUTDOWN")
    await leave(client)


run(main)
