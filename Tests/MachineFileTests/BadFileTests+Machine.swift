// SPDX-License-Identifier: Apache-2.0

@testable import MachineFile

extension BadFileTests {
  static let machineCases: [BadFile] = [
    BadFile("", "m.toml:1:1: name: required but missing; accepted: \(nameRule)"),
    BadFile(
      "name = 3", "m.toml:1:8: name: must be a string, not an integer; accepted: \(nameRule)"),
    BadFile("name = \"\"", "m.toml:1:8: name: \"\" is not a name; accepted: \(nameRule)"),
    BadFile("name = \"A\"", "m.toml:1:8: name: \"A\" is not a name; accepted: \(nameRule)"),
    BadFile("name = \"-a\"", "m.toml:1:8: name: \"-a\" is not a name; accepted: \(nameRule)"),
    BadFile("name = \"a/b\"", "m.toml:1:8: name: \"a/b\" is not a name; accepted: \(nameRule)"),
    BadFile(
      "name = \"\(long)\"",
      "m.toml:1:8: name: \"\(long.prefix(60))…\" is not a name; accepted: \(nameRule)"),
    BadFile("nmae = \"a\"", "m.toml:1:1: nmae: unknown key; did you mean name?"),
    .named(
      "colour = 1",
      "m.toml:2:1: colour: unknown key; accepted: name, machine, boot, drive, serial, display, "
        + "monitor, debug, isolation, log, device"),
    .named(
      "machine = 1",
      "m.toml:2:11: machine: must be a table, not an integer; accepted: accelerator, cpus, "
        + "memory, cpu-model, translator, firmware, vga-bios, uuid, on-panic"),
    .named("[machine]\ncpu = 2", "m.toml:3:1: machine.cpu: unknown key; did you mean cpus?"),
    .named(
      "[machine]\ncpu_model = \"host\"",
      "m.toml:3:1: machine.cpu_model: unknown key; did you mean cpu-model?"),
    .named(
      "[machine]\naccelerator = \"xen\"",
      "m.toml:3:15: machine.accelerator: \"xen\" is not an accelerator; accepted: auto, kvm, "
        + "soft, none"),
    .named(
      "[machine]\ncpus = 0",
      "m.toml:3:8: machine.cpus: 0 is out of range; accepted: 1 to 255"),
    .named(
      "machine.cpus = 256",
      "m.toml:2:16: machine.cpus: 256 is out of range; accepted: 1 to 255"),
    .named(
      "machine = { cpus = -1 }",
      "m.toml:2:20: machine.cpus: -1 is out of range; accepted: 1 to 255"),
    .named(
      "[machine]\ncpus = 2.0",
      "m.toml:3:8: machine.cpus: must be an integer, not a float; accepted: 1 to 255"),
    .named(
      "[machine]\ncpus = 2026-01-01",
      "m.toml:3:8: machine.cpus: must be an integer, not a date; accepted: 1 to 255"),
    .named(
      "[machine]\nmemory = 512",
      "m.toml:3:10: machine.memory: must be a string, not an integer; accepted: \(sizeRule)"),
    .named(
      "[machine]\nmemory = \"512MB\"",
      "m.toml:3:10: machine.memory: \"512MB\" is not a memory size; accepted: \(sizeRule)"),
    .named(
      "[machine]\nmemory = \"512 MiB\"",
      "m.toml:3:10: machine.memory: \"512 MiB\" is not a memory size; accepted: \(sizeRule)"),
    .named(
      "[machine]\nmemory = \"MiB\"",
      "m.toml:3:10: machine.memory: \"MiB\" is not a memory size; accepted: \(sizeRule)"),
    .named(
      "[machine]\nmemory = \"٣GiB\"",
      "m.toml:3:10: machine.memory: \"٣GiB\" is not a memory size; accepted: \(sizeRule)"),
    .named(
      "[machine]\nmemory = \"0MiB\"",
      "m.toml:3:10: machine.memory: \"0MiB\" is out of range; accepted: 4MiB to 16TiB"),
    .named(
      "[machine]\nmemory = \"4095KiB\"",
      "m.toml:3:10: machine.memory: \"4095KiB\" is out of range; accepted: 4MiB to 16TiB"),
    .named(
      "[machine]\nmemory = \"99999999999999999999GiB\"",
      "m.toml:3:10: machine.memory: \"99999999999999999999GiB\" is out of range; accepted: "
        + "4MiB to 16TiB"),
    .named(
      "[machine]\nmemory = \"18014398509481985KiB\"",
      "m.toml:3:10: machine.memory: \"18014398509481985KiB\" is out of range; accepted: "
        + "4MiB to 16TiB"),
    .named(
      "[machine]\nmemory = \"4097KiB\"",
      "m.toml:3:10: machine.memory: \"4097KiB\" is not a whole number of MiB; accepted: a "
        + "multiple of 1MiB"),
    .named(
      "[machine]\ncpu-model = \"\"",
      "m.toml:3:13: machine.cpu-model: \"\" is not a CPU model; accepted: host, base, or the "
        + "name of a CPU model"),
    .named(
      "[machine]\nfirmware = \"\"",
      "m.toml:3:12: machine.firmware: the path is empty; accepted: a path"),
    .named(
      "[machine]\nvga-bios = \"a\\u0001\"",
      "m.toml:3:12: machine.vga-bios: \"a\\u{1}\" has a control character; accepted: a path "
        + "without one"),
    .named(
      "[machine]\nfirmware = \"\(String(repeating: "x", count: 4096))\"",
      "m.toml:3:12: machine.firmware: the path has 4096 bytes; accepted: at most 4095 bytes"),
  ]
}
