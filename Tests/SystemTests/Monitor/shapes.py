# SPDX-License-Identifier: Apache-2.0
"""Sends every command that both have to a machine of ours and to Debian's QEMU, and compares.

shapes.py QMP-SOCKET SCHEMA-FILE OUTPUT-FOLDER MEDIA-FOLDER ACCELERATOR

Replies have to have the same members of the same types, errors the same class, events the same data,
files the same form. What of QEMU's optional members is not there is listed below.
"""

import asyncio
import json
import os
import re
import struct

from qemu.qmp import QMPClient

from common import Schema, run

# Optional members of QEMU's replies that ours do not have.
MISSING = {
    "query-block[].inserted.node-name", "query-block[].inserted.image.actual-size",
    "query-block[].inserted.image.dirty-flag",  # an image has no graph of nodes here
    "query-blockstats[].node-name", "query-blockstats[].parent",
    "query-machines[].default-cpu-type",  # it is the host's, which has no type's name
    "query-vnc.auth", "query-vnc.clients", "query-vnc.family", "query-vnc.host",
    "query-vnc.service",  # there is no VNC
}

# Compared elsewhere (snapshots and what belongs to them), or the connection's own.
LEFT_OUT = re.compile(r"snapshot|job|named-block-nodes|qmp_capabilities|quit|query-qmp-schema")

QUERIES = [
    ("query-status", {}), ("query-version", {}), ("query-commands", {}), ("query-cpus-fast", {}),
    ("query-kvm", {}), ("query-machines", {}), ("query-memory-size-summary", {}),
    ("query-block", {}), ("query-blockstats", {}), ("query-blockstats", {"query-nodes": False}),
    ("query-chardev", {}), ("query-vnc", {}), ("query-pci", {}), ("query-name", {}),
    ("query-uuid", {}), ("query-dump-guest-memory-capability", {}), ("query-current-machine", {}),
]

# Wrong arguments beyond wrong types: QEMU's class is ours; with True its words are, too.
WRONG = [
    ("eject", {}, True), ("eject", {"device": "ide1-cd0", "id": "x"}, True),
    ("eject", {"device": "nope"}, True), ("eject", {"device": "ide0-hd0"}, True),
    ("eject", {"id": "/machine/nope"}, True),
    ("blockdev-change-medium", {"device": "nope", "filename": "none.iso"}, True),
    ("blockdev-change-medium", {"filename": "none.iso"}, False),
    ("blockdev-change-medium", {"device": "ide1-cd0", "filename": "none.iso"}, True),
    ("block_resize", {"device": "nope", "size": 1}, True), ("block_resize", {"size": 1}, True),
    ("block_resize", {"node-name": "x", "size": 1}, True),
    ("block_resize", {"device": "ide0-hd0", "size": -1}, True),
    ("block_resize", {"device": "ide0-hd0", "size": (1 << 63) - 1}, False),
    ("block_resize", {"device": "ide1-cd0", "size": 4 << 20}, False),
    ("memsave", {"val": 0, "size": 1, "filename": "x", "cpu-index": 9}, True),
    ("memsave", {"val": 0, "size": 1, "filename": "/nowhere/x"}, False),
    ("pmemsave", {"val": 0, "size": 1, "filename": "/nowhere/x"}, False),
    ("human-monitor-command", {"command-line": "info cpus", "cpu-index": 9}, True),
    ("screendump", {"filename": "x", "device": "nope"}, True),
    ("screendump", {"filename": "x", "head": 1}, True),
    ("screendump", {"filename": "/nowhere/x"}, False),
    ("dump-guest-memory", {"paging": False, "protocol": "file"}, True),
    ("dump-guest-memory", {"paging": False, "protocol": "file:x", "begin": 5}, True),
    ("dump-guest-memory", {"paging": False, "protocol": "file:x", "length": 5}, True),
    ("dump-guest-memory", {"paging": False, "protocol": "file:/nowhere/x"}, False),
    ("send-key", {"keys": [{"type": "qcode", "data": "nope"}]}, True),
    ("send-key", {"keys": [{"type": "qcode"}]}, True),
    ("send-key", {"keys": [{"type": "nope", "data": 1}]}, True),
    ("input-send-event", {"device": "nope", "events": []}, False),
    ("input-send-event", {"events": [{"type": "nope", "data": {}}]}, True),
    ("input-send-event", {"events": [
        {"type": "rel", "data": {"axis": "z", "value": 1}}]}, True),
    ("system_wakeup", {}, True),
    ("qom-list", {"path": "/nowhere"}, True), ("qom-list", {"path": "nowhere"}, True),
    ("qom-list", {"path": ""}, True),
    ("qom-get", {"path": "/machine", "property": "nope"}, True),
    ("qom-get", {"path": "/nowhere", "property": "type"}, True),
]

# Only while the vCPUs stand.
WRONG_WHEN_STOPPED = [
    ("input-send-event", {"events": [
        {"type": "rel", "data": {"axis": "x", "value": 1}}]}, True),
]

# Lines of the human monitor that are answered alike, but for numbers and paths.
LINES = [
    "info status", "info uuid", "info name", "info cpus", "info block", "eject",
    "eject nope", "eject ide0-hd0", "change", "change ide1-cd0", "block_resize",
    "block_resize ide0-hd0 -1", "block_resize nope 1M", "block_resize ide0-hd0 4M",
    "gdbserver none", "help block_resize", "info qom-tree /nowhere", "",
]


class Side:
    """One of the two machines."""

    def __init__(self, name, client, folder, media, prefix):
        self.name, self.client, self.folder = name, client, folder
        self.media, self.prefix = media, prefix

    async def raw(self, command, arguments):
        return await self.client._raw({"execute": command, "arguments": dict(arguments)})

    def file(self, name):
        return f"{self.folder}/{self.prefix}{name}"


def shape(value):
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        merged = None
        for one in value:
            merged = shape(one) if merged is None else merge(merged, shape(one))
        return [merged]
    return type(value).__name__


def merge(first, second):
    if isinstance(first, dict) and isinstance(second, dict):
        return {key: merge(first[key], second[key]) if key in first and key in second
                else first.get(key, second.get(key)) for key in first | second}
    if isinstance(first, list) and isinstance(second, list):
        return [merge(first[0], second[0]) if first[0] and second[0] else first[0] or second[0]]
    return first


def differences(theirs, ours, path, found):
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in theirs | ours:
            place = f"{path}.{key}"
            if key not in ours:
                found.add(("missing", place))
            elif key not in theirs:
                found.add(("extra", place))
            else:
                differences(theirs[key], ours[key], place, found)
    elif isinstance(theirs, list) and isinstance(ours, list):
        if theirs[0] is not None and ours[0] is not None:
            differences(theirs[0], ours[0], path + "[]", found)
    elif theirs != ours:
        found.add(("type", f"{path}: {theirs} and {ours}"))


def wrong_types(schema, command):
    """Arguments that the schema does not allow."""
    yield {"bogus": 1}
    members = schema.entries[schema.entries[command]["arg-type"]]["members"]
    if any("default" not in member for member in members):
        yield {}
    for member in members:
        entry = schema.entries[member["type"]]
        kind = entry["meta-type"]
        if kind == "builtin":
            yield {member["name"]: {"string": 7, "int": "x", "number": "x", "boolean": 7}[
                entry["json-type"]]}
        elif kind == "enum":
            yield {member["name"]: "nope"}
            yield {member["name"]: 7}
        elif kind == "array":
            yield {member["name"]: {}}


async def start_qemu(accelerator, output, media):
    for name, size in (("q-disk", 4 << 20), ("q-cd.iso", 1 << 20)):
        with open(f"{output}/{name}", "wb") as file:
            file.truncate(size)
    path = output + "/qemu.sock"
    process = await asyncio.create_subprocess_exec(
        "qemu-system-x86_64", "-M", "pc,accel=" + ("kvm" if accelerator == "kvm" else "tcg"),
        "-cpu", "qemu64", "-S", "-smp", "2", "-m", "64", "-name", "theirs", "-nodefaults",
        "-display", "none", "-vga", "std", "-vnc", f"unix:{output}/vnc", "-serial", "null",
        "-drive", f"if=ide,index=0,format=raw,file={output}/q-disk",
        "-drive", f"if=ide,index=2,media=cdrom,format=raw,file={output}/q-cd.iso",
        "-qmp", f"unix:{path},server=on,wait=off", cwd=media)
    client = QMPClient("theirs")
    for _ in range(400):
        if os.path.exists(path):
            break
        await asyncio.sleep(0.05)
    await client.connect(path)
    return process, client


async def compare_queries(ours, theirs, own, qemu):
    found = set()
    for command, arguments in QUERIES:
        replies = []
        for side, schema in ((theirs, qemu), (ours, own)):
            reply = (await side.raw(command, arguments))["return"]
            schema.check_reply(command, reply)
            if command == "query-machines":
                reply = [one for one in reply if one.get("alias") == "pc"]
                assert len(reply) == 1, reply
                assert reply[0]["name"] == "pc-i440fx-7.2", reply
            replies.append(reply)
        qemu.check_reply(command, replies[1])
        differences(shape(replies[0]), shape(replies[1]), command, found)
    expected = {("missing", place) for place in MISSING}
    assert found == expected, f"more: {found - expected}, less: {expected - found}"
    # What lies on the bus is the same but for who made it.
    places = [
        [(device["slot"], device["function"], device["class_info"], device["irq_pin"],
          device["id"]["vendor"], device["id"]["device"],
          [(region["bar"], region["size"], region["type"]) for region in device["regions"]])
         for device in (await side.raw("query-pci", {}))["return"][0]["devices"]]
        for side in (theirs, ours)]
    assert places[0] == places[1], places
    paths = [[cpu["qom-path"] for cpu in (await side.raw("query-cpus-fast", {}))["return"]]
             for side in (theirs, ours)]
    assert paths[0] == paths[1], paths
    paths = [[drive["qdev"] for drive in (await side.raw("query-block", {}))["return"]]
             for side in (theirs, ours)]
    assert paths[0] == paths[1], paths


def check(failures):
    assert not failures, "\n".join(str(one) for one in failures)


async def compare_errors(ours, theirs, qemu, names):
    cases = [(command, arguments, True) for command in names
             for arguments in wrong_types(qemu, command)]
    await compare_wrong(ours, theirs, cases + WRONG)


async def compare_wrong(ours, theirs, cases):
    failures = []
    for command, arguments, has_words in cases:
        expected = (await theirs.raw(command, arguments))["error"]
        found = (await ours.raw(command, arguments)).get("error", {})
        if found != expected and (has_words or found.get("class") != expected["class"]):
            failures.append((command, arguments, found, expected))
    check(failures)


async def tree(side):
    """Every object with its properties: path to (type, name to type)."""
    found = {}

    async def walk(path, kind):
        properties = (await side.raw("qom-list", {"path": path or "/"}))["return"]
        found[path] = (kind, {one["name"]: one["type"] for one in properties})
        for one in properties:
            child = re.fullmatch(r"child<(.*)>", one["type"])
            if child:
                await walk(f"{path}/{one['name']}", child[1])

    await walk("", "container")
    return found


async def compare_trees(ours, theirs, own, qemu):
    """Our objects are where QEMU has the same, and their properties have its types."""
    all_ours, all_theirs = await tree(ours), await tree(theirs)
    assert len(all_ours) > 25, all_ours.keys()
    failures = []
    for path, (kind, properties) in all_ours.items():
        is_own = "__org.bulkhead" in path
        if not is_own:
            expected = all_theirs.get(path, ("nothing", {}))[0]
            if kind != expected and not kind.endswith("-x86_64-cpu"):
                failures.append((path, kind, expected))
                continue
        for name, type_name in properties.items():
            value = (await ours.raw("qom-get", {"path": path or "/", "property": name}))["return"]
            if type_name.startswith("child<"):
                if value != f"{path}/{name}":
                    failures.append((path, name, value))
                continue
            if type_name.startswith("link<") and value:
                if value not in all_ours and value != "/machine/unattached/sysbus":
                    failures.append((path, value))
            if is_own or name.startswith("__org.bulkhead"):
                continue
            their_type = all_theirs[path][1].get(name)
            if their_type != type_name:
                failures.append((path, name, type_name, their_type))
                continue
            reply = await theirs.raw("qom-get", {"path": path or "/", "property": name})
            if name in ("type", "smp") and not kind.endswith("-x86_64-cpu"):
                if value != reply["return"]:
                    failures.append((path, name, value, reply))
            elif "return" in reply and shape(value) != shape(reply["return"]):
                failures.append((path, name, value, reply))
    check(failures)
    # A part of a path that is the only one of its kind.
    for path in ("unattached", "i440fx", "device[0]/lapic"):
        found = [(await side.raw("qom-get", {"path": path, "property": "type"}))
                 for side in (theirs, ours)]
        assert "return" in found[0] and "return" in found[1], (path, found)
    # The human monitor draws the same tree.
    text = (await ours.raw(
        "human-monitor-command", {"command-line": "info qom-tree"}))["return"].splitlines()
    assert text[0] == "/machine (pc-i440fx-7.2-machine)", text[:3]
    assert len(text) == sum(path.startswith("/machine") for path in all_ours), text


async def compare_actions(ours, theirs, own, qemu):
    """Orders, what they answer, and the events that follow."""
    def paths(side):
        return {"ppm": side.file("a.ppm"), "png": side.file("a.png"), "rom": side.file("rom"),
                "low": side.file("low"), "dump": side.file("dump"),
                "disc": f"{side.media}/b.iso"}

    steps = [
        ("cont", {}, ["RESUME"]), ("cont", {}, []), ("stop", {}, ["STOP"]), ("stop", {}, []),
        # A reset forgets the NMI, which a firmware that has just begun could not take.
        ("inject-nmi", {}, []), ("system_reset", {}, ["RESET"]), ("cont", {}, ["RESUME"]),
        ("system_reset", {}, ["RESET"]),
        ("send-key", {"keys": [{"type": "qcode", "data": "a"}]}, []),
        ("send-key", {"keys": []}, []),
        ("send-key", {"keys": [{"type": "number", "data": 127}], "hold-time": 10}, []),
        ("input-send-event", {"events": [
            {"type": "rel", "data": {"axis": "x", "value": 5}},
            {"type": "btn", "data": {"button": "left", "down": False}},
            {"type": "key", "data": {"down": False, "key": {"type": "qcode", "data": "a"}}}]}, []),
        ("eject", {"device": "ide1-cd0"}, ["DEVICE_TRAY_MOVED"]),
        ("blockdev-change-medium", {"device": "ide1-cd0", "filename": "disc", "format": "raw"},
         ["DEVICE_TRAY_MOVED"]),
        ("block_resize", {"device": "ide0-hd0", "size": 6 << 20}, []),
        ("block_resize", {"device": "ide0-hd0", "size": 5 << 20}, []),
        ("system_powerdown", {}, ["POWERDOWN"]), ("stop", {}, ["STOP"]),
        ("screendump", {"filename": "ppm"}, []),
        ("screendump", {"filename": "png", "format": "png"}, []),
        ("pmemsave", {"val": 0xFFFC0000, "size": 0x40000, "filename": "rom"}, []),
        ("memsave", {"val": 0, "size": 4096, "filename": "low", "cpu-index": 1}, []),
        ("dump-guest-memory", {"paging": False, "protocol": "file:dump"}, []),
        ("human-monitor-command", {"command-line": "print 1"}, []),
    ]
    for command, arguments, events in steps:
        results = []
        for side, schema in ((theirs, qemu), (ours, own)):
            mine = dict(arguments)
            for key in ("filename", "protocol"):
                if key in mine:
                    word = mine[key].removeprefix("file:")
                    mine[key] = mine[key].replace(word, paths(side)[word])
            with side.client.listener() as listener:
                reply = await side.raw(command, mine)
                assert "return" in reply, (side.name, command, mine, reply)
                schema.check_reply(command, reply["return"])
                seen = []
                while len(seen) < len(events) or not listener.empty():
                    event = await asyncio.wait_for(listener.get(), 20)
                    # A firmware that is reset while it starts may reset the machine once more.
                    if event["event"] == "RESET" and event["data"]["guest"]:
                        continue
                    if event["event"] in qemu.entries and event["event"] in own.entries:
                        schema.check_event(event)
                        seen.append(event)
            results.append((shape(reply["return"]),
                            [(event["event"], event.get("data")) for event in seen]))
        assert [name for name, _ in results[0][1]] == events, (command, results)
        assert results[0] == results[1], (command, results)
    await compare_wrong(ours, theirs, WRONG_WHEN_STOPPED)
    sizes = [[(drive["device"], drive["inserted"]["image"]["virtual-size"])
              for drive in (await side.raw("query-block", {}))["return"]]
             for side in (theirs, ours)]
    assert sizes[0] == sizes[1] == [("ide0-hd0", 5 << 20), ("ide1-cd0", 1 << 20)], sizes
    compare_files(ours, theirs)


def compare_files(ours, theirs):
    def read(side, name):
        with open(side.file(name), "rb") as file:
            return file.read()

    forms = []
    for side in (theirs, ours):
        ppm = re.match(rb"P6\n(\d+) (\d+)\n255\n", read(side, "a.ppm"))
        width, height = int(ppm[1]), int(ppm[2])
        assert len(read(side, "a.ppm")) == len(ppm[0]) + 3 * width * height, side.name
        png = read(side, "a.png")
        assert png[:8] == b"\x89PNG\r\n\x1a\n" and png[12:16] == b"IHDR", png[:16]
        assert struct.unpack(">II", png[16:24]) == (width, height), (side.name, width, height)
        forms.append((png[24:29], len(read(side, "low")), elf(read(side, "dump"))))
    assert forms[0] == forms[1], forms
    assert read(theirs, "rom") == read(ours, "rom")


def elf(data):
    """What a core file says of itself: its kind, and the notes that it has.

    QEMU makes one for the i386 where the guest is not in long mode; ours is always for x86-64.
    """
    kind = data[:7], struct.unpack("<H", data[16:18])
    start, size, count = (struct.unpack("<Q", data[32:40])[0],
                          *struct.unpack("<HH", data[54:58]))
    notes, loads = [], 0
    for index in range(count):
        place = start + index * size
        segment, _, offset, _, physical, length, _, _ = struct.unpack(
            "<IIQQQQQQ", data[place:place + 56])
        if segment == 1 and physical == 0:
            loads += 1
        if segment != 4:
            continue
        while length > 0:
            name_size, size_of, note = struct.unpack("<III", data[offset:offset + 12])
            name = data[offset + 12:offset + 12 + name_size]
            notes.append((name, note, size_of if name == b"QEMU\0" else 0))
            step = 12 + (name_size + 3) // 4 * 4 + (size_of + 3) // 4 * 4
            offset, length = offset + step, length - step
    assert notes and loads == 1, (notes, loads)
    return kind, notes


async def compare_lines(ours, theirs):
    failures = []
    for line in LINES:
        texts = []
        for side in (theirs, ours):
            text = (await side.raw(
                "human-monitor-command", {"command-line": line}))["return"]
            text = re.sub(r" \(#block\d+\)", "", text)
            text = re.sub(r": /?\S+ \(raw", ": IMAGE (raw", text)
            # QEMU's do not say any more where a vCPU is, or whether it is halted.
            text = re.sub(r" pc=0x[0-9a-f]{16}", "", text)
            text = re.sub(r"thread_id=\d+", "thread_id=ID", text).replace(" (halted)", "")
            texts.append(re.sub(r"theirs|system-[0-9a-f]{8}", "NAME", text))
        if texts[0] != texts[1]:
            failures.append((line, texts))
    check(failures)


async def main(socket, schema_file, output, media, accelerator):
    process, client = await start_qemu(accelerator, output, media)
    try:
        theirs = Side("theirs", client, output, media, "q-")
        client = QMPClient("ours")
        await client.connect(socket)
        ours = Side("ours", client, output, media, "")
        qemu = Schema((await theirs.raw("query-qmp-schema", {}))["return"])
        with open(schema_file, encoding="utf-8") as file:
            own = Schema(json.load(file))

        async def names(side):
            return {one["name"] for one in (await side.raw("query-commands", {}))["return"]}

        both = sorted(name for name in await names(ours) & await names(theirs)
                      if not LEFT_OUT.search(name))
        tested = {"qom-list", "qom-get", "stop", "cont", "system_reset", "system_powerdown",
                  "system_wakeup", "inject-nmi", "send-key", "input-send-event", "eject", "block_resize",
                  "blockdev-change-medium", "screendump", "pmemsave", "memsave",
                  "dump-guest-memory", "human-monitor-command"} | {one for one, _ in QUERIES}
        assert set(both) == tested, set(both) ^ tested
        await compare_queries(ours, theirs, own, qemu)
        await compare_errors(ours, theirs, qemu, both)
        await compare_trees(ours, theirs, own, qemu)
        # Ours runs, theirs has not begun: both begin from a standstill.
        await ours.raw("stop", {})
        await compare_actions(ours, theirs, own, qemu)
        await compare_lines(ours, theirs)
        for side in (ours, theirs):
            await side.raw("quit", {})
            try:
                await side.client.disconnect()
            except EOFError:
                pass
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


run(main)
