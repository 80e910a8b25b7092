# SPDX-License-Identifier: Apache-2.0
"""A hundred clients that send what they should not, and vanish.

garbage.py QMP-SOCKET HUMAN-SOCKET
"""

import json
import random
import socket
import sys
import threading
import time


def connect(path):
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    client.settimeout(60)
    return client


def lines(reader, count):
    return [json.loads(reader.readline()) for _ in range(count)]


def send(client, data):
    try:
        client.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass  # It was turned away.


def answer_while_flooded(qmp, human):
    """How long `info status` takes at most while others send nothing but errors, and read the answers."""
    is_over = threading.Event()

    def drain(client):
        try:
            while client.recv(1 << 20):
                pass
        except OSError:
            pass

    def flood(client):
        try:
            while not is_over.is_set():
                client.sendall(b"}" * 65536)
        except OSError:
            pass

    operator = connect(human)
    reader = operator.makefile("rb")
    clients = [connect(qmp) for _ in range(8)]
    for client in clients:
        for work in [drain, flood]:
            threading.Thread(target=work, args=[client], daemon=True).start()
    took = 0
    end = time.monotonic() + 4
    while time.monotonic() < end:
        time.sleep(0.1)
        start = time.monotonic()
        operator.sendall(b"info status\n")
        while b"VM status: running" not in reader.readline():
            pass
        took = max(took, time.monotonic() - start)
    is_over.set()
    for client in clients:
        client.shutdown(socket.SHUT_RDWR)
        client.close()
    operator.close()
    return took


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
    # One reader for the whole connection: it reads ahead.
    reader = client.makefile("rb")
    greeting = lines(reader, 1)[0]
    assert "QMP" in greeting, greeting
    block = b"a" * (1 << 20)
    for _ in range(100):
        client.sendall(block)
    client.sendall(b'\n{"execute": "qmp_capabilities", "id": 1}\n')
    error, reply = lines(reader, 2)
    assert error["error"]["class"] == "GenericError", error
    assert reply == {"return": {}, "id": 1}, reply
    # So is who sends brackets without end, or no JSON at all.
    for data in [b"[" * (1 << 20), b"{]", b'{"a" 1}', b"nonsense", b'{"execute": 1e999}']:
        client.sendall(data + b'\n{"execute": "query-name", "id": 2}\n')
        answers = []
        while not answers or answers[-1].get("id") != 2:
            answers += lines(reader, 1)
        assert "error" in answers[0], (data[:20], answers)
        assert "return" in answers[-1], answers
    client.close()

    # Clients that say nothing do not keep an operator out, and the one that works stays.
    working = connect(qmp)
    reader = working.makefile("rb")
    working.sendall(b'{"execute": "qmp_capabilities"}')
    lines(reader, 2)
    idle = [connect(human if number % 2 else qmp) for number in range(40)]
    for _ in range(3):
        late = connect(qmp)
        late_reader = late.makefile("rb")
        late.sendall(b'{"execute": "qmp_capabilities"}{"execute": "query-name"}')
        assert "return" in lines(late_reader, 3)[2]
        late.close()
    working.sendall(b'{"execute": "query-name"}')
    assert "return" in lines(reader, 1)[0]
    for client in idle + [working]:
        client.close()

    took = answer_while_flooded(qmp, human)
    assert took < 10, f"an operator waited {took:.1f} s"
    print(f"all is well; an operator waited {took:.2f} s")


main(*sys.argv[1:])
