# SPDX-License-Identifier: Apache-2.0
"""Gives a machine one QMP command, and prints the whole reply.

order.py QMP-SOCKET COMMAND [ARGUMENTS-IN-JSON]
"""

import asyncio
import json
import sys

from qemu.qmp import QMPClient


async def main(socket, command, arguments="{}"):
    client = QMPClient("order")
    await client.connect(socket)
    reply = await client._raw({"execute": command, "arguments": json.loads(arguments)})
    print(json.dumps(dict(reply)))
    await client.disconnect()


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 60))
