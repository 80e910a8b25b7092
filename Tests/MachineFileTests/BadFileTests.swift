// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MachineFile

@Suite("A bad machine file gives one exact error")
struct BadFileTests {
  @Test("the top level and [machine]", arguments: machineCases)
  func machine(bad: BadFile) {
    #expect(parseError(bad.text) == bad.error)
  }

  @Test("[boot], [[drive]] and [[serial]]", arguments: driveCases)
  func drive(bad: BadFile) {
    #expect(parseError(bad.text) == bad.error)
  }

  @Test("the other tables", arguments: otherCases)
  func other(bad: BadFile) {
    #expect(parseError(bad.text) == bad.error)
  }

  @Test("keys and values that this version does not support", arguments: unsupportedCases)
  func unsupported(bad: BadFile) {
    #expect(parseError(bad.text) == bad.error)
  }

  @Test("rules of keys that are not supported yet", arguments: futureCases)
  func future(bad: BadFile) {
    #expect(parseError(bad.text, unsupported: []) == bad.error)
  }

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
        + "monitor, debug, isolation, device"),
    .named(
      "machine = 1",
      "m.toml:2:11: machine: must be a table, not an integer; accepted: accelerator, cpus, "
        + "memory, cpu-model, firmware, vga-bios"),
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

  static let driveCases: [BadFile] = [
    .named(
      "[boot]\norder = \"disk\"",
      "m.toml:3:9: boot.order: must be a list, not a string; accepted: a list of disk, cdrom"),
    .named(
      "[boot]\norder = []",
      "m.toml:3:9: boot.order: the list is empty; accepted: a list of disk, cdrom"),
    .named(
      "[boot]\norder = [\n  \"disk\",\n  \"net\",\n]",
      "m.toml:5:3: boot.order[1]: \"net\" is not a boot medium; accepted: disk, cdrom"),
    .named(
      "[boot]\norder = [\"disk\", \"disk\"]",
      "m.toml:3:18: boot.order[1]: \"disk\" is listed twice; accepted: each once"),
    .named(
      "[boot]\norder = [1]",
      "m.toml:3:10: boot.order[0]: must be a string, not an integer; accepted: a list of disk, "
        + "cdrom"),
    .named(
      "[boot]\nmenu = \"yes\"",
      "m.toml:3:8: boot.menu: must be a boolean, not a string; accepted: true, false"),
    .named(
      "[drive]\nslot = \"ide0.0\"",
      "m.toml:2:2: drive: must be an array of tables, not a table; accepted: [[drive]] with "
        + "slot, image and format"),
    .named(
      "drive = [1]",
      "m.toml:2:10: drive[0]: must be a table, not an integer; accepted: slot, image, format, "
        + "media, readonly, backing"),
    .named(
      "[[drive]]\nimage = \"a\"\nformat = \"raw\"",
      "m.toml:2:3: drive[0].slot: required but missing; accepted: ide0.0, ide0.1, ide1.0, "
        + "ide1.1"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nformat = \"raw\"",
      "m.toml:2:3: drive[0].image: required but missing; accepted: the path of an image"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"",
      "m.toml:2:3: drive[0].format: required but missing; accepted: raw, qcow2"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"\nfromat = \"raw\"",
      "m.toml:5:1: drive[0].fromat: unknown key; did you mean format?"),
    .named(
      "[[drive]]\nslot = \"ide2.0\"\nimage = \"a\"\nformat = \"raw\"",
      "m.toml:3:8: drive[0].slot: \"ide2.0\" is not a slot; accepted: ide0.0, ide0.1, ide1.0, "
        + "ide1.1"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"\nformat = \"vmdk\"",
      "m.toml:5:10: drive[0].format: \"vmdk\" is not an image format; accepted: raw, qcow2"),
    .drive(
      "media = \"floppy\"",
      "m.toml:6:9: drive[0].media: \"floppy\" is not a medium; accepted: disk, cdrom"),
    .drive(
      "media = \"cdrom\"",
      "m.toml:5:10: drive[0].format: a cdrom's image cannot be qcow2; accepted: raw"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"\nmedia = \"cdrom\"\nreadonly = false",
      "m.toml:6:12: drive[0].readonly: a cdrom cannot be written; accepted: true"),
    .drive(
      "readonly = 0",
      "m.toml:6:12: drive[0].readonly: must be a boolean, not an integer; accepted: true, false"),
    .drive(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"b\"\nformat = \"raw\"",
      "m.toml:7:8: drive[1].slot: \"ide0.0\" is already taken by drive[0]; accepted: ide0.1, "
        + "ide1.0, ide1.1"),
    .drive(
      "[[drive]]\nslot = \"ide0.1\"\nimage = \".//a\"\nformat = \"raw\"",
      "m.toml:8:9: drive[1].image: \".//a\" is already used by drive[0].image; accepted: a path "
        + "that nothing else writes"),
    .drive(
      "[[drive]]\nslot = \"ide0.1\"\nimage = \"a\"\nformat = \"raw\"\nreadonly = true",
      "m.toml:8:9: drive[1].image: \"a\" is already used by drive[0].image; accepted: a path "
        + "that nothing else writes"),
    .named(
      String(repeating: "[[drive]]\nslot = 1\n", count: 5),
      "m.toml:2:3: drive[0].image: required but missing; accepted: the path of an image"),
    .drive(
      "backing = \"any\"",
      "m.toml:6:11: drive[0].backing: \"any\" is not a rule for backing files; accepted: "
        + "same-folder, or a list of paths"),
    .drive(
      "backing = true",
      "m.toml:6:11: drive[0].backing: must be a string or a list, not a boolean; accepted: "
        + "same-folder, or a list of paths"),
    .drive(
      "backing = [\"b\", 2]",
      "m.toml:6:17: drive[0].backing[1]: must be a string, not an integer; accepted: "
        + "same-folder, or a list of paths"),
    .drive(
      "backing = [\"b\", \"\"]",
      "m.toml:6:17: drive[0].backing[1]: the path is empty; accepted: a path"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"\nformat = \"raw\"\nbacking = [\"b\"]",
      "m.toml:6:1: drive[0].backing: a raw image has no backing file; accepted: with qcow2"),
    .named(
      "[[serial]]",
      "m.toml:2:3: serial[0].backend: required but missing; accepted: stdio, pty, file:PATH, "
        + "unix:PATH, null"),
    .named(
      "[[serial]]\nbackend = \"tty\"",
      "m.toml:3:11: serial[0].backend: \"tty\" is not a back end; accepted: stdio, pty, "
        + "file:PATH, unix:PATH, null"),
    .named(
      "[[serial]]\nbackend = \"file:\"",
      "m.toml:3:11: serial[0].backend: the path is empty; accepted: a path"),
    .named(
      "[[serial]]\nbackend = \"stdio\"\n[[serial]]\nbackend = \"stdio\"",
      "m.toml:5:11: serial[1].backend: \"stdio\" is already taken by serial[0].backend; "
        + "accepted: stdio in one place"),
    .named(
      "[[serial]]\nbackend = \"file:x\"\n[[serial]]\nbackend = \"file:./x\"",
      "m.toml:5:11: serial[1].backend: \"./x\" is already used by serial[0].backend; accepted: "
        + "a path that nothing else writes"),
    .named(
      String(repeating: "[[serial]]\nbackend = \"pty\"\n", count: 5),
      "m.toml:10:3: serial: 5 entries; accepted: at most 4"),
    .drive(
      "[[serial]]\nbackend = \"file:a\"",
      "m.toml:7:11: serial[0].backend: \"a\" is already used by drive[0].image; accepted: a "
        + "path that nothing else writes"),
  ]

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

  static let unsupportedCases: [BadFile] = [
    .named(
      "[machine]\naccelerator = \"soft\"",
      "m.toml:3:15: machine.accelerator: \"soft\" is not supported by this version; accepted: "
        + "auto, kvm"),
    .named(
      "[machine]\naccelerator = \"none\"",
      "m.toml:3:15: machine.accelerator: \"none\" is not supported by this version; accepted: "
        + "auto, kvm"),
    .named(
      "[machine]\ncpu-model = \"Nehalem\"",
      "m.toml:3:13: machine.cpu-model: \"Nehalem\" is not supported by this version; accepted: "
        + "host, base"),
    .named(
      "[boot]\nkernel = \"vmlinuz\"",
      "m.toml:3:1: boot.kernel: not supported by this version; accepted: boot.order with a "
        + "bootable drive"),
    .named(
      "[boot]\ninitrd = \"initrd\"",
      "m.toml:3:1: boot.initrd: not supported by this version; accepted: boot.order with a "
        + "bootable drive"),
    .named(
      "[boot]\ncmdline = \"quiet\"",
      "m.toml:3:1: boot.cmdline: not supported by this version; accepted: boot.order with a "
        + "bootable drive"),
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
      "[monitor]\nqmp = \"unix:q\"",
      "m.toml:3:1: monitor.qmp: not supported by this version; accepted: control"),
    .named(
      "[monitor]\nhmp = \"stdio\"",
      "m.toml:3:1: monitor.hmp: not supported by this version; accepted: control"),
    .named(
      "[[serial]]\nbackend = \"pty\"\n[[serial]]\nbackend = \"unix:s\"",
      "m.toml:5:11: serial[1].backend: \"unix:s\" is not supported by this version; accepted: "
        + "stdio, pty, file:PATH, null"),
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
      "[monitor]\nqmp = \"stdio\"",
      "m.toml:3:7: monitor.qmp: \"stdio\" is not a back end; accepted: unix:PATH"),
  ]

  static let long = String(repeating: "x", count: 64)
  static let nameRule =
    "1 to 63 of a-z, 0-9, \"_\", \".\" and \"-\", the first a letter or digit"
  static let sizeRule = "a whole number with KiB, MiB, GiB or TiB, such as 512MiB"
  static let addressRule = "ADDRESS:PORT such as 127.0.0.1:5900 or [::1]:5900, unix:PATH"
}
