# SPDX-License-Identifier: Apache-2.0
"""Runs a program on a terminal of its own, as a person would.

terminal.py STEP... -- PROGRAM ARGUMENT...

A step is `expect:TEXT`, `send:TEXT` (with Python's escapes) or `wait:SECONDS`. The program has to end
after the last one, and the terminal has to be as it was. Prints what the program wrote.
"""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

split = sys.argv.index("--")
steps, program = sys.argv[1:split], sys.argv[split + 1 :]
controller, terminal = pty.openpty()
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 160, 0, 0))
before = termios.tcgetattr(terminal)
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(terminal, number)
    os.closerange(3, 100)
    os.execv(program[0], program)

seen = b""
start = 0


def read(until):
    global seen
    if select.select([controller], [], [], max(0, until - time.monotonic()))[0]:
        seen += os.read(controller, 65536)


def fail(text):
    print(seen.decode(errors="replace"))
    os.kill(pid, 9)
    sys.exit(text)


for step in steps:
    kind, _, text = step.partition(":")
    if kind == "expect":
        end = time.monotonic() + 60
        while (place := seen.find(text.encode(), start)) < 0:
            if time.monotonic() > end:
                fail(f"{text!r} does not come")
            read(end)
        start = place + len(text)
    elif kind == "send":
        os.write(controller, text.encode().decode("unicode_escape").encode("latin-1"))
    else:
        end = time.monotonic() + float(text)
        while time.monotonic() < end:
            read(end)

end = time.monotonic() + 20
while (status := os.waitpid(pid, os.WNOHANG))[0] == 0:
    if time.monotonic() > end:
        fail("the program does not end")
    read(time.monotonic() + 0.05)
read(time.monotonic() + 0.1)
print(seen.decode(errors="replace"))
if termios.tcgetattr(terminal) != before:
    sys.exit("the terminal is not as it was")
sys.exit(os.waitstatus_to_exitcode(status[1]))
