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
      fd     guest memory: memfd, 256MiB
      fd     firmware: seabios (read-only)
      fd     control: listening socket
      fd     device piix: socket to vmdev-piix
      fd     device ide: socket to vmdev-ide
      fd     device serial: socket to vmdev-serial
      fd     device vga: socket to vmdev-vga
    process vmdev-piix (sandbox profile piix)
      deadline 5s, on fault restart
      fd     core: socket to vmcore
      fd     state page: memfd
      fd     debug console: file /d/log
      claim  PCI 00:01.0 ISA bridge
      claim  PCI 00:01.3 power management
      claim  ports 60h, 64h keyboard
      claim  ports 61h, 92h system control
      claim  ports 70h-71h clock
      claim  port CF9h reset
      claim  ports 510h-51Bh fw_cfg
      claim  IRQ 1, 8, 9, 12
      claim  port 402h debug console
      claim  port F4h debug exit
    process vmdev-ide (sandbox profile ide)
      deadline 1500ms, on fault pause
      fd     core: socket to vmcore
      fd     state page: memfd
      fd     drive ide0.0: /d/a.qcow2 (qcow2, read-write)
      claim  PCI 00:01.1 IDE
      claim  ports 1F0h-1F7h, 3F6h
      claim  ports 170h-177h, 376h
      claim  IRQ 14, 15
      claim  mediated DMA
    process vmdev-serial (sandbox profile serial)
      deadline 5s, on fault restart
      fd     core: socket to vmcore
      fd     state page: memfd
      fd     COM1: stdio
      fd     COM2: nothing
      claim  ports 3F8h, 2F8h, 3E8h, 2E8h (8 each)
      claim  IRQ 4, 3
    process vmdev-vga (sandbox profile vga)
      deadline 5s, on fault restart
      fd     core: socket to vmcore
      fd     state page: memfd
      fd     video memory: memfd, 16MiB
      fd     VGA BIOS: seabios (read-only)
      claim  PCI 00:02.0 VGA
      claim  ports 3B0h-3DFh
      claim  ports 1CEh-1D0h
      claim  memory A0000h-BFFFFh

    """

  @Test("the control socket is the file's, or named after the machine")
  func controlPath() {
    var machine = Machine(name: "a")

    #expect(machine.controlPath(inRuntimeFolder: "/run/b") == "/run/b/a.sock")
    machine.monitor.control = "/c"
    #expect(machine.controlPath(inRuntimeFolder: "/run/b") == "/c")
  }
}
