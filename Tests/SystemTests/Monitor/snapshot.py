# SPDX-License-Identifier: Apache-2.0
"""Saves, loads and deletes a snapshot by QMP's jobs.

snapshot.py QMP-SOCKET SCHEMA-FILE
"""

import asyncio
import json

from qemu.qmp import ExecuteError, QMPClient

from common import Schema, run

DEVICES = {"vmstate": "ide0-hd0", "devices": ["ide0-hd0"]}


async def main(socket, schema_file):
    client = QMPClient("snapshot")
    with open(schema_file, encoding="utf-8") as file:
        own = Schema(json.load(file))
    with client.listener() as events:
        await client.connect(socket)

        async def ask(command, arguments=None):
            reply = await client.execute(command, arguments)
            own.check_reply(command, reply)
            return reply

        async def fails(command, arguments, words):
            try:
                await client.execute(command, arguments)
            except ExecuteError as error:
                assert words in str(error), error
            else:
                raise AssertionError(f"{command} {arguments} did not fail")

        async def concludes(job):
            """The states that a job goes through, and other events meanwhile."""
            states, others = [], []
            while not states or states[-1] != "concluded":
                event = await asyncio.wait_for(events.get(), 60)
                own.check_event(event)
                if event["event"] != "JOB_STATUS_CHANGE":
                    others.append(event["event"])
                    continue
                assert event["data"]["id"] == job, event
                states.append(event["data"]["status"])
            return states, others

        async def does(command, job, tag, **arguments):
            assert await ask(command, {"job-id": job, "tag": tag, **arguments}) == {}
            states, others = await concludes(job)
            jobs = await ask("query-jobs")
            assert [entry["id"] for entry in jobs] == [job], jobs
            assert jobs[0]["type"] == command and jobs[0]["status"] == "concluded", jobs
            assert await ask("job-dismiss", {"id": job}) == {}
            event = await asyncio.wait_for(events.get(), 10)
            assert event["data"] == {"id": job, "status": "null"}, event
            assert await ask("query-jobs") == []
            return states, others, jobs[0].get("error")

        good = ["created", "running", "waiting", "pending", "concluded"]
        bad = ["created", "running", "aborting", "concluded"]

        states, others, error = await does("snapshot-save", "save0", "qmp", **DEVICES)
        assert (states, error) == (good, None), (states, error)
        assert others == ["STOP", "RESUME"], others
        states, _, error = await does("snapshot-save", "save1", "qmp", **DEVICES)
        assert states == bad and "already" in error, (states, error)
        states, _, error = await does("snapshot-load", "load0", "other", **DEVICES)
        assert states == bad and "no snapshot" in error, (states, error)
        states, others, error = await does("snapshot-load", "load1", "qmp", **DEVICES)
        assert (states, error) == (good, None), (states, error)
        assert others[0] == "STOP" and others[-1] == "RESUME", others
        assert (await ask("query-status"))["status"] == "running"

        table = await ask("human-monitor-command", {"command-line": "info snapshots"})
        assert "present on all disks" in table and " qmp " in table, table
        states, _, error = await does("snapshot-delete", "delete0", "qmp", devices=["ide0-hd0"])
        assert (states, error) == (good, None), (states, error)
        states, _, error = await does("snapshot-delete", "delete1", "qmp", devices=["ide0-hd0"])
        assert states == bad and "no snapshot" in error, (states, error)
        table = await ask("human-monitor-command", {"command-line": "info snapshots"})
        assert "no snapshot available" in table, table

        await fails("snapshot-save", {"job-id": "1", "tag": "a", **DEVICES}, "Invalid job ID")
        await fails("snapshot-save", {"job-id": "a", "tag": "a", "vmstate": "ide0-hd0",
                                      "devices": []}, "ide0-hd0")
        await fails("snapshot-save", {"job-id": "a", "tag": "a", "vmstate": "x",
                                      "devices": ["ide0-hd0"]}, "No block device node 'x'")
        await fails("job-dismiss", {"id": "none"}, "Job not found")

        # Stopped before, stopped afterwards.
        await ask("stop")
        await ask("human-monitor-command", {"command-line": "savevm stopped"})
        assert (await ask("query-status"))["status"] == "paused"
        text = await ask("human-monitor-command", {"command-line": "loadvm stopped"})
        assert text == "", text
        assert (await ask("query-status"))["status"] == "paused"
        text = await ask("human-monitor-command", {"command-line": "loadvm nothing"})
        assert "Error: there is no snapshot 'nothing'" in text, text
        await ask("human-monitor-command", {"command-line": "delvm stopped"})
        await ask("cont")
        assert (await ask("query-status"))["status"] == "running"
    await client.disconnect()


run(main)
