# SPDX-License-Identifier: Apache-2.0
"""A hundred clients that send what they should not, and vanish.

garbage.py QMP-SOCKET HUMAN-SOCKET
"""

import asyncio
import json
import random
import socket
import sys
import time


def connect(path):
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    client.settimeout(60)
    return client


def lines(client, count):
    file = client.makefile("rb")
    return [json.loads(file.readline()) for _ in range(count)]


def send(client, data):
    try:
        client.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass  # It was turned away.


def main(qmp, human):
    chance = random.Random(7)
    half = b'{"execute": "qmp_capabilities"}{"execute": "quer'
    kinds = [
        lambda: chance.randbytes(20000), lambda: half, lambda: b"[" * 5000, lambda: b'{"a":' * 5000,
        lambda: b'"' + b"x" * 30000, lambda: b"\0" * 10000, lambda: b"}{][" * 3000,
        lambda: b'{"execute":"\\ud800"}\n' * 100, lambda: b"\xff\xfe" * 5000 + b"\n", lambda: b"",
    ]
    open_ones = []
    for number in range(100):
        client = connect(human if number % 5 == 4 else qmp)
        send(client, kinds[number % len(kinds)]())
        if number % 3:
            client.close()
        else:
            open_ones.append(client)
    for client in open_ones:
        client.close()
    time.sleep(0.5)

    # A hundred megabytes without the end of a line: one error, and then it is heard again.
    client = connect(qmp)
    greeting = lines(client, 1)[0]
    assert "QMP" in greeting, greeting
    block = b"a" * (1 << 20)
    for _ in range(100):
        client.sendall(block)
    client.sendall(b'\n{"execute": "qmp_capabilities", "id": 1}\n')
    error, reply = lines(client, 2)
    assert error["error"]["class"] == "GenericError", error
    assert reply == {"return": {}, "id": 1}, reply
    # So is who sends brackets without end, or no JSON at all.
    for data in [b"[" * (1 << 20), b"{]", b'{"a" 1}', b"nonsense", b'{"execute": 1e999}']:
        client.sendall(data + b'\n{"execute": "query-name", "id": 2}\n')
        answers = []
        while not answers or answers[-1].get("id") != 2:
            answers += lines(client, 1)
        assert "error" in answers[0], (data[:20], answers)
        assert "return" in answers[-1], answers
    print("all is well")


main(*sys.argv[1:])
