# SPDX-License-Identifier: Apache-2.0
"""Checks replies against a schema as query-qmp-schema gives it."""

import asyncio
import sys


class Schema:
    def __init__(self, entries):
        self.entries = {entry["name"]: entry for entry in entries}

    def check_reply(self, command, reply):
        self.check(reply, self.entries[command]["ret-type"], command)

    def check_event(self, event):
        entry = self.entries[event["event"]]
        self.check(event.get("data", {}), entry["arg-type"], event["event"])

    def check(self, value, type_name, path):
        entry = self.entries[type_name]
        kind = entry["meta-type"]
        if kind == "builtin":
            accepted = {
                "string": str, "int": int, "number": (int, float), "boolean": bool,
                "null": type(None), "value": object,
            }[entry["json-type"]]
            is_right = isinstance(value, accepted)
            if entry["json-type"] in ("int", "number"):
                is_right = is_right and not isinstance(value, bool)
            assert is_right, f"{path}: {value!r} is no {entry['json-type']}"
        elif kind == "enum":
            values = entry.get("values") or [m["name"] for m in entry["members"]]
            assert value in values, f"{path}: {value!r} is none of {values}"
        elif kind == "array":
            assert isinstance(value, list), f"{path}: {value!r} is no array"
            for index, one in enumerate(value):
                self.check(one, entry["element-type"], f"{path}[{index}]")
        elif kind == "alternate":
            errors = []
            for member in entry["members"]:
                try:
                    return self.check(value, member["type"], path)
                except AssertionError as error:
                    errors.append(str(error))
            raise AssertionError(f"{path}: {errors}")
        else:
            assert isinstance(value, dict), f"{path}: {value!r} is no object"
            members = list(entry["members"])
            for variant in entry.get("variants", []):
                if variant["case"] == value.get(entry["tag"]):
                    members += self.entries[variant["type"]]["members"]
            for member in members:
                name = member["name"]
                if name in value:
                    self.check(value[name], member["type"], f"{path}.{name}")
                else:
                    assert "default" in member, f"{path}: {name} is missing"
            extra = set(value) - {member["name"] for member in members}
            assert not extra, f"{path}: nobody knows {extra}"


def run(main):
    asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 120))
    print("all is well")
