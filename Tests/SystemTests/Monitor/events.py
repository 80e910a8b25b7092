# SPDX-License-Identifier: Apache-2.0
"""Waits for an event, after a command if there is one.

events.py QMP-SOCKET SCHEMA-FILE COMMAND-OR-NOTHING EVENT KEY=VALUE...
"""

import asyncio
import json

from qemu.qmp import QMPClient

from common import Schema, run


async def main(socket, schema_file, command, name, *wanted):
    client = QMPClient("events")
    with open(schema_file, encoding="utf-8") as file:
        own = Schema(json.load(file))
    with client.listener() as events:
        await client.connect(socket)
        if command:
            await client.execute(command)
        while True:
            event = await asyncio.wait_for(events.get(), 100)
            if event["event"] == name:
                break
        own.check_event(event)
        for pair in wanted:
            key, value = pair.split("=", 1)
            assert json.dumps(event["data"].get(key)).strip('"') == value, event
    print(json.dumps(dict(event)))
    try:
        await client.disconnect()
    except EOFError:
        pass


run(main)
