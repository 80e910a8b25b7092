// SPDX-License-Identifier: Apache-2.0

@testable import MachineFile

extension BadFileTests {
  static let unsupportedCases: [BadFile] = [
    .named(
      "[machine]\naccelerator = \"none\"",
      "m.toml:3:15: machine.accelerator: \"none\" is not supported by this version; accepted: "
        + "auto, kvm, soft"),
    .named(
      "[machine]\ncpu-model = \"Nehalem\"",
      "m.toml:3:13: machine.cpu-model: \"Nehalem\" is not supported by this version; accepted: "
        + "host, base, v2"),
    .named(
      "[machine]\naccelerator = \"soft\"\ncpu-model = \"v3\"",
      "m.toml:4:13: machine.cpu-model: \"v3\" is not supported by this version; accepted: "
        + "host, base, v2"),
    .named(
      "[display]\nvnc = \"127.0.0.1:5900\"",
      "m.toml:3:1: display.vnc: not supported by this version; accepted: no display key"),
    .named(
      "[display]\nweb = \"127.0.0.1:5900\"",
      "m.toml:3:1: display.web: not supported by this version; accepted: no display key"),
    .named(
      "[display]\npassword-file = \"p\"",
      "m.toml:3:1: display.password-file: not supported by this version; accepted: no display "
        + "key"),
    .named(
      "[debug]\nconsole = \"unix:s\"",
      "m.toml:3:11: debug.console: \"unix:s\" is not supported by this version; accepted: "
        + "stdio, pty, file:PATH, null"),
    .named(
      "[device.ide]\nsocket = \"/run/s\"",
      "m.toml:3:1: device.ide.socket: not supported by this version; accepted: no socket key"),
    .named(
      "[device.ide]\ndma = \"shared\"",
      "m.toml:3:7: device.ide.dma: \"shared\" is not supported by this version; accepted: "
        + "mediated"),
  ]

  static let futureCases: [BadFile] = [
    .named(
      "[boot]\ninitrd = \"i\"",
      "m.toml:3:1: boot.initrd: needs boot.kernel; accepted: initrd with kernel"),
    .named(
      "[boot]\nkernel = \"k\"\norder = [\"disk\"]",
      "m.toml:4:1: boot.order: boot.kernel and boot.order exclude each other; accepted: one of "
        + "the two"),
    .named(
      "[display]\nvnc = \"5900\"",
      "m.toml:3:7: display.vnc: \"5900\" is not an address; accepted: \(addressRule)"),
    .named(
      "[display]\nvnc = \"example.com:5900\"",
      "m.toml:3:7: display.vnc: \"example.com:5900\" is not an address; accepted: "
        + addressRule),
    .named(
      "[display]\nvnc = \"127.0.0.1:0\"",
      "m.toml:3:7: display.vnc: \"127.0.0.1:0\" is not an address; accepted: \(addressRule)"),
    .named(
      "[display]\nweb = \"127.0.0.256:1\"",
      "m.toml:3:7: display.web: \"127.0.0.256:1\" is not an address; accepted: \(addressRule)"),
    .named(
      "[display]\nvnc = \"0.0.0.0:5900\"",
      "m.toml:3:7: display.vnc: \"0.0.0.0:5900\" is open to other hosts; accepted: a loopback "
        + "address or unix:PATH, or display.password-file with it"),
    .named(
      "[display]\nvnc = \"[::]:5900\"",
      "m.toml:3:7: display.vnc: \"[::]:5900\" is open to other hosts; accepted: a loopback "
        + "address or unix:PATH, or display.password-file with it"),
    .named(
      "[display]\nvnc = \"127.0.0.1:1\"\nweb = \"127.0.0.1:1\"",
      "m.toml:4:7: display.web: \"127.0.0.1:1\" is already used by display.vnc; accepted: an "
        + "address of its own"),
    .named(
      "[display]\npassword-file = \"p\"",
      "m.toml:3:1: display.password-file: needs display.vnc or display.web; accepted: "
        + "password-file with one of them"),
    .named(
      "[monitor]\nqmp = \"unix:s\"\ncontrol = \"unix:s\"",
      "m.toml:4:11: monitor.control: \"s\" is already used by monitor.qmp; accepted: a path that "
        + "nothing else writes"),
    .named(
      "[monitor]\nqmp = \"pty\"",
      "m.toml:3:7: monitor.qmp: \"pty\" is not a back end; accepted: stdio, unix:PATH"),
    .named(
      "[monitor]\nqmp = \"stdio\"\nhmp = \"stdio\"",
      "m.toml:4:7: monitor.hmp: \"stdio\" is already taken by monitor.qmp; accepted: stdio in one "
        + "place"),
    .named(
      "[monitor]\nhmp = \"stdio\"\n[debug]\nconsole = \"stdio\"",
      "m.toml:5:11: debug.console: \"stdio\" is already taken by monitor.hmp; accepted: stdio in one "
        + "place"),
    .named(
      "[machine]\nuuid = \"6f2a1c3e58b44d0f9a770c1d2e3f4a5b\"",
      "m.toml:3:8: machine.uuid: \"6f2a1c3e58b44d0f9a770c1d2e3f4a5b\" is not a UUID; accepted: a UUID "
        + "such as 6f2a1c3e-58b4-4d0f-9a77-0c1d2e3f4a5b"),
    .named(
      "[machine]\non-panic = \"reboot\"",
      "m.toml:3:12: machine.on-panic: \"reboot\" is not an answer to a panic; accepted: run, pause, "
        + "stop"),
  ]
}
