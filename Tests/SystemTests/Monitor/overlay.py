# SPDX-License-Identifier: Apache-2.0
"""Lets a disk go on in an overlay, with the refusals before it.

overlay.py QMP-SOCKET SCHEMA-FILE FILE
"""

import json

from qemu.qmp import ExecuteError, QMPClient

from common import Schema, run


async def main(socket, schema_file, path):
    client = QMPClient("overlay")
    with open(schema_file, encoding="utf-8") as file:
        own = Schema(json.load(file))
    await client.connect(socket)

    async def ask(**arguments):
        reply = await client.execute("blockdev-snapshot-sync", arguments)
        own.check_reply("blockdev-snapshot-sync", reply)
        return reply

    for words, arguments in [
        ("Cannot find device='ide1-hd0'", {"device": "ide1-hd0", "snapshot-file": path}),
        ("monitor.snapshots", {"device": "ide0-hd0", "snapshot-file": "/tmp/elsewhere"}),
        ("qcow2", {"device": "ide0-hd0", "snapshot-file": path, "format": "raw"}),
        ("mode", {"device": "ide0-hd0", "snapshot-file": path, "mode": "existing"}),
        ("is missing", {"snapshot-file": path}),
    ]:
        try:
            await ask(**arguments)
        except ExecuteError as error:
            assert words in str(error), error
        else:
            raise AssertionError(f"{arguments} did not fail")
    assert await ask(device="ide0-hd0", **{"snapshot-file": path, "format": "qcow2"}) == {}
    block = await client.execute("query-block")
    own.check_reply("query-block", block)
    assert block[0]["inserted"]["file"] == path and block[0]["inserted"]["drv"] == "qcow2", block
    assert (await client.execute("query-status"))["status"] == "running"
    await client.disconnect()


run(main)
