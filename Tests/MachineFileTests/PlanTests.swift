// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MachineFile

@Suite("The plan of a machine")
struct PlanTests {
  @Test("the plan of a machine with a drive, a console and an exit port")
  func rendering() {
    var machine = Machine(name: "demo")
    machine.cpus = 2
    machine.drives = [Machine.Drive(slot: .ide00, image: "/d/a.qcow2", format: .qcow2)]
    machine.serial = [.stdio, .null]
    machine.debug.console = .file("/d/log")
    machine.debug.exitPort = 0xF4
    machine.devices.ide.onFault = .pause
    machine.devices.ide.deadline = 1_500_000_000

    #expect(Plan(machine).description == Self.expected)
  }

  static let expected = """
    machine demo
      accelerator auto
      2 CPUs, model host
      memory 256MiB
      firmware seabios
      boot disk, then cdrom
      isolation strict
      control socket in the runtime folder
    process vmcore (sandbox profile core)
      2 vCPU threads
      fd     accelerator: /dev/kvm
      fd     guest memory: memfd of its own, 256MiB
      fd     firmware: seabios (read-only)
      fd     control: listening socket
      fd     state page piix: memfd
      fd     device piix: socket to vmdev-piix
      fd     state page ide: memfd
      fd     device ide: socket to vmdev-ide
      fd     state page serial: memfd
      fd     device serial: socket to vmdev-serial
      fd     state page vga: memfd
      fd     device vga: socket to vmdev-vga
    process vmdev-piix (sandbox profile piix)
      deadline 5s, on fault restart
      fd     core: socket to vmcore
      fd     state page: memfd from vmcore
      fd     debug console: file /d/log
      claim  PCI 00:01.0 ISA bridge
      claim  PCI 00:01.3 power management
      claim  ports 00h-0Fh DMA controller
      claim  port 60h keyboard data
      claim  port 61h system control B
      claim  port 64h keyboard command
      claim  ports 70h-71h clock
      claim  port 80h POST code
      claim  ports 81h-8Fh DMA pages
      claim  port 92h system control A
      claim  ports B2h-B3h advanced power management
      claim  ports C0h-DFh second DMA controller
      claim  ports 4D0h-4D1h edge or level of interrupts
      claim  ports 510h-51Bh fw_cfg
      claim  movable ports 600h-63Fh power management
      claim  movable ports 700h-70Fh SMBus
      claim  port CF9h reset
      claim  ports AFE0h-AFE3h general events
      claim  port 402h debug console
      claim  ports F4h-F7h debug exit
      claim  IRQ 1 keyboard
      claim  IRQ 8 clock
      claim  IRQ 9 system control
      claim  IRQ 12 mouse
      claim  mediated DMA fw_cfg
    process vmdev-ide (sandbox profile ide)
      deadline 1500ms, on fault pause
      fd     core: socket to vmcore
      fd     state page: memfd from vmcore
      fd     drive ide0.0: /d/a.qcow2 (qcow2, read-write)
      claim  PCI 00:01.1 IDE, with 16 ports for the bus master
      claim  ports 1F0h-1F7h first channel
      claim  port 3F6h first channel's control
      claim  ports 170h-177h second channel
      claim  port 376h second channel's control
      claim  IRQ 14 first channel
      claim  IRQ 15 second channel
      claim  mediated DMA bus master
    process vmdev-serial (sandbox profile serial)
      deadline 5s, on fault restart
      fd     core: socket to vmcore
      fd     state page: memfd from vmcore
      fd     COM1: stdio
      fd     COM2: nothing
      claim  ports 3F8h-3FFh COM1
      claim  ports 2F8h-2FFh COM2
      claim  IRQ 4
      claim  IRQ 3
    process vmdev-vga (sandbox profile vga)
      deadline 5s, on fault restart
      fd     core: socket to vmcore
      fd     state page: memfd from vmcore
      fd     video memory: memfd from vmcore, 16MiB
      fd     VGA BIOS: seabios (read-only)
      claim  PCI 00:02.0 VGA, with video memory, registers and ROM
      claim  ports 3B0h-3DFh
      claim  ports 1CEh-1D1h VBE
      claim  memory A0000h-BFFFFh

    """

  @Test("ports that a machine does not have are not in its plan", arguments: 0...4)
  func serialPorts(count: Int) {
    var machine = Machine(name: "a")
    machine.serial = Array(repeating: .null, count: count)

    let serial = Plan(machine).processes.first { $0.name == "vmdev-serial" }

    let ports = [
      "ports 3F8h-3FFh COM1", "ports 2F8h-2FFh COM2", "ports 3E8h-3EFh COM3",
      "ports 2E8h-2EFh COM4",
    ]
    #expect(
      serial?.claims.map(\.description)
        == Array(ports.prefix(count)) + Array(["IRQ 4", "IRQ 3"].prefix(count)))
  }

  @Test(
    "the debug exit has four ports, or one at the end of the port space",
    arguments: [(0xFFFC, "ports FFFCh-FFFFh"), (0xFFFD, "port FFFDh"), (0xFFFF, "port FFFFh")])
  func exitPort(port: UInt16, text: String) {
    var machine = Machine(name: "a")
    machine.debug.exitPort = port

    #expect(Plan(machine).description.contains("  claim  \(text) debug exit\n"))
  }

  @Test("the control socket is the file's, or named after the machine")
  func controlPath() {
    var machine = Machine(name: "a")

    #expect(machine.controlPath(inRuntimeFolder: "/run/b") == "/run/b/a.sock")
    machine.monitor.control = "/c"
    #expect(machine.controlPath(inRuntimeFolder: "/run/b") == "/c")
  }
}
