// SPDX-License-Identifier: Apache-2.0

@testable import MachineFile

extension BadFileTests {
  static let otherCases: [BadFile] = [
    .named(
      "[monitor]\ncontrol = \"/run/x\"",
      "m.toml:3:11: monitor.control: \"/run/x\" is not a back end; accepted: unix:PATH"),
    .named(
      "[monitor]\ncontrol = \"unix:/\(String(repeating: "x", count: 107))\"",
      "m.toml:3:11: monitor.control: the socket's path has 108 bytes; accepted: at most 107 "
        + "bytes"),
    .named(
      "[debug]\nconsole = \"stdio\"\n[[serial]]\nbackend = \"stdio\"",
      "m.toml:3:11: debug.console: \"stdio\" is already taken by serial[0].backend; accepted: "
        + "stdio in one place"),
    .named(
      "[debug]\nexit-port = 0x10000",
      "m.toml:3:13: debug.exit-port: 65536 is out of range; accepted: 0 to 0xFFFF, such as 0xF4"),
    .named(
      "[debug]\nexit-port = \"0xf4\"",
      "m.toml:3:13: debug.exit-port: must be an integer, not a string; accepted: 0 to 0xFFFF, "
        + "such as 0xF4"),
    .named(
      "[debug]\nexit-port = 0x3f8",
      "m.toml:3:13: debug.exit-port: port 0x3F8 belongs to COM1; accepted: a free port, such as "
        + "0xF4"),
    .named(
      "[debug]\nexit-port = 1026",
      "m.toml:3:13: debug.exit-port: port 0x402 belongs to the debug console; accepted: a free "
        + "port, such as 0xF4"),
    .named(
      "[isolation]\nlevel = \"off\"",
      "m.toml:3:9: isolation.level: \"off\" is not an isolation level; accepted: strict, relaxed"),
    .named(
      "[log]\nlevel = \"loud\"",
      "m.toml:3:9: log.level: \"loud\" is not a log level; accepted: error, warning, notice, "
        + "info, debug"),
    .named(
      "[isolation]\nlevels = \"strict\"",
      "m.toml:3:1: isolation.levels: unknown key; did you mean level?"),
    .named(
      "[device.disk]", "m.toml:2:9: device.disk: unknown key; accepted: piix, ide, serial, vga"),
    .named("[device.Serial]", "m.toml:2:9: device.Serial: unknown key; did you mean serial?"),
    .named(
      "[device]\nide = 1",
      "m.toml:3:7: device.ide: must be a table, not an integer; accepted: dma, on-fault, socket, "
        + "deadline"),
    .named(
      "[device.serial]\ndma = \"mediated\"",
      "m.toml:3:1: device.serial.dma: serial does no DMA; accepted: in [device.ide]"),
    .named(
      "[device.ide]\ndma = \"none\"",
      "m.toml:3:7: device.ide.dma: \"none\" is not a kind of DMA; accepted: mediated, shared"),
    .named(
      "[device.vga]\non-fault = \"ignore\"",
      "m.toml:3:12: device.vga.on-fault: \"ignore\" is not an answer to a fault; accepted: "
        + "restart, pause, stop"),
    .named(
      "[device.vga]\ndeadline = \"5m\"",
      "m.toml:3:12: device.vga.deadline: \"5m\" is not a time; accepted: a whole number with ms "
        + "or s, such as 500ms"),
    .named(
      "[device.vga]\ndeadline = 5",
      "m.toml:3:12: device.vga.deadline: must be a string, not an integer; accepted: a whole "
        + "number with ms or s, such as 500ms"),
    .named(
      "[device.vga]\ndeadline = \"0s\"",
      "m.toml:3:12: device.vga.deadline: \"0s\" is out of range; accepted: 10ms to 600s"),
    .named(
      "[device.vga]\ndeadline = \"18446744073709552s\"",
      "m.toml:3:12: device.vga.deadline: \"18446744073709552s\" is out of range; accepted: 10ms "
        + "to 600s"),
    .named(
      "[device.vga]\nbinary = \"x\"",
      "m.toml:3:1: device.vga.binary: unknown key; accepted: dma, on-fault, socket, deadline"),
  ]
}
