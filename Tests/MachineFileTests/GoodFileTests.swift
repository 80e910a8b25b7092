// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MachineFile

@Suite("A good machine file becomes a machine")
struct GoodFileTests {
  @Test("the least file has the defaults")
  func minimal() throws {
    let machine = try ParsedMachine.parse(text: "name = 'x'", fileName: "m.toml").machine

    #expect(machine == Machine(name: "x"))
    #expect(machine.memory.byteCount == 256 << 20)
    #expect(machine.devices.ide.deadline == 5_000_000_000)
  }

  @Test("a file with every key gives every value")
  func full() throws {
    let machine = try ParsedMachine.parse(
      Array(Self.everyKey.utf8), fileName: "/etc/vm/m.toml", unsupported: []
    ).machine

    #expect(machine.name == "full.1_x-y")
    #expect(machine.accelerator == .soft)
    #expect(machine.cpus == 255)
    #expect(machine.memory == MemorySize(mebibytes: 1536))
    #expect(machine.cpuModel == .named("Nehalem-v1"))
    #expect(!machine.translatesCode)
    #expect(machine.firmware == .path("/etc/vm/fw/bios.bin"))
    #expect(machine.vgaBIOS == "/usr/vgabios.bin")
    #expect(machine.uuid?.prefix(5) == [0x6F, 0x2A, 0x1C, 0x3E, 0x58])
    #expect(machine.onPanic == .pause)
    #expect(machine.monitor.media == "/etc/vm/discs")
    #expect(machine.monitor.snapshots == "/etc/vm/states")
    #expect(machine.boot.menu)
    #expect(machine.boot.kernel == "/etc/vm/vmlinuz")
    #expect(machine.boot.initrd == "/etc/vm/initrd")
    #expect(machine.boot.commandLine == "console=ttyS0")
    #expect(machine.display.vnc == .tcp(host: "::1", port: 5900))
    #expect(machine.display.web == .unix("/etc/vm/web"))
    #expect(machine.display.passwordFile == "/etc/vm/pw")
    #expect(machine.monitor.qmp == .unix("/etc/vm/qmp"))
    #expect(machine.monitor.hmp == .stdio)
    #expect(machine.monitor.control == "/run/control")
    #expect(machine.debug.console == .file("/etc/vm/log"))
    #expect(machine.debug.exitPort == 0xF4)
    #expect(machine.isolation == .relaxed)
    #expect(machine.logLevel == .warning)
  }

  @Test("drives, serial ports and devices of a full file")
  func fullDevices() throws {
    let machine = try ParsedMachine.parse(
      Array(Self.everyKey.utf8), fileName: "/etc/vm/m.toml", unsupported: []
    ).machine

    var disk = Machine.Drive(slot: .ide11, image: "/etc/vm/d.qcow2", format: .qcow2)
    disk.dataFile = "/etc/vm/d.data"
    disk.backing = .paths(["/etc/vm/b.qcow2", "/b"])
    var cdrom = Machine.Drive(slot: .ide00, image: "/iso", format: .raw)
    cdrom.media = .cdrom
    cdrom.isReadOnly = true
    #expect(machine.drives == [disk, cdrom])
    #expect(machine.serial == [.stdio, .pty, .unix("/etc/vm/s"), .null])
    #expect(machine.devices.ide.dma == .shared)
    #expect(machine.devices.ide.onFault == .stop)
    #expect(machine.devices.ide.socket == "/run/ide")
    #expect(machine.devices.piix.deadline == 250_000_000)
    #expect(machine.devices.vga == Machine.Device())
  }

  static let everyKey = """
    name = "full.1_x-y"
    [machine]
    accelerator = "soft"
    cpus = 0xff
    memory = "1536MiB"
    cpu-model = "Nehalem-v1"
    translator = false
    firmware = "fw/bios.bin"
    vga-bios = "/usr/vgabios.bin"
    uuid = "6F2a1c3e-58b4-4d0f-9a77-0c1d2e3f4a5b"
    on-panic = "pause"
    [boot]
    menu = true
    kernel = "vmlinuz"
    initrd = "initrd"
    cmdline = "console=ttyS0"
    [[drive]]
    slot = "ide1.1"
    image = "d.qcow2"
    format = "qcow2"
    media = "disk"
    readonly = false
    data-file = "d.data"
    backing = [
      "b.qcow2", # a comment
      '/b',
    ]
    [[drive]]
    slot = "ide0.0"
    image = "/iso"
    media = "cdrom"
    [[serial]]
    backend = "stdio"
    [[serial]]
    backend = "pty"
    [[serial]]
    backend = "unix:s"
    [[serial]]
    backend = "null"
    [display]
    vnc = "[::1]:5900"
    web = "unix:web"
    password-file = "pw"
    [monitor]
    qmp = "unix:qmp"
    hmp = "stdio"
    media = "discs"
    snapshots = "states"
    control = "unix:/run/control"
    [debug]
    console = "file:log"
    exit-port = 0xf4
    [log]
    level = "warning"

    [isolation]
    level = "relaxed"
    [device.ide]
    dma = "shared"
    on-fault = "stop"
    socket = "/run/ide"
    [device.piix]
    deadline = "250ms"
    """

  @Test(
    "other ways of TOML to say the same",
    arguments: [
      "name='a'\nmachine.cpus=2\nmachine.memory=\"1GiB\"",
      "name='a'\nmachine={cpus=2,memory='1GiB'}",
      "'name' = \"\\u0061\"\n[ \"machine\" ] # c\ncpus = 0b10\nmemory = \"\"\"1GiB\"\"\"",
      "name = 'a'\n[machine]\ncpus = +2\nmemory = '''\n1GiB'''\n[isolation]\n",
    ])
  func spellings(text: String) throws {
    let machine = try ParsedMachine.parse(text: text, fileName: "m.toml").machine

    #expect(machine.cpus == 2)
    #expect(machine.memory.description == "1GiB")
  }

  @Test("one image may be read twice")
  func sharedReaders() throws {
    let drive = "image = 'a'\nformat = 'raw'\nreadonly = true\n"
    let text = "name='a'\n[[drive]]\nslot='ide0.0'\n\(drive)[[drive]]\nslot='ide0.1'\n\(drive)"

    let machine = try ParsedMachine.parse(text: text, fileName: "m.toml").machine

    #expect(machine.drives.map(\.image) == ["a", "a"])
  }

  @Test(
    "memory sizes",
    arguments: [
      ("4MiB", 4), ("4096KiB", 4), ("5120KiB", 5), ("3GiB", 3072), ("16TiB", 16 << 20),
    ] as [(String, UInt64)])
  func sizes(text: String, mebibytes: UInt64) throws {
    #expect(try MemorySize.parse(text).mebibytes == mebibytes)
  }

  @Test(
    "addresses are read and written the same",
    arguments: [
      "127.0.0.1:5900", "localhost:1", "[::1]:65535", "[fe80::1]:2", "[1:2:3:4:5:6:7:8]:3",
    ])
  func addresses(text: String) {
    #expect(ListenAddress.parseTCP(text)?.description == text)
  }

  @Test(
    "what is not an address",
    arguments: [
      "", ":1", "1.2.3:1", "1.2.3.4", "1.2.3.4:65536", "01.2.3.4:1", "[::1:1", "[1::2::3]:1",
      "[12345::]:1", "[]:1", "1.2.3.4:+1",
    ])
  func notAddresses(text: String) {
    #expect(ListenAddress.parseTCP(text) == nil)
  }
}
