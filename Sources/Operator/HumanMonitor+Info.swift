// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import Monitor

/// What `info` shows.
extension HumanMonitor {
  func info(_ rest: Substring, _ cpu: Int) throws(CommandError) -> String {
    let words = rest.split(separator: " ").map(String.init)
    switch words.first {
    case nil: return try run("help info")
    case "status":
      let state = try QMPCommands.runState(machine)
      if state == "running" || state == "paused" { return "VM status: \(state)\n" }
      return "VM status: paused (\(state))\n"
    case "version": return "7.2.0 (bulkhead 0.1.0)\n"
    case "name": return "\(machine.settings.common.machine)\n"
    case "uuid": return "\(machine.settings.uuid)\n"
    case "kvm":
      let isKVM = try machine.status().accelerator.hasPrefix("kvm")
      return "kvm support: \(isKVM ? "enabled" : "disabled")\n"
    case "vnc": return "None\n"
    case "cpus": return try cpus(current: cpu)
    case "registers": return try registers(words, cpu)
    case "block":
      return Drives(machine: machine).entries().map { Drives.text($0) }.joined(separator: "\n")
    case "blockstats":
      return Drives(machine: machine).entries().map { Drives.statisticsText($0) }.joined()
    case "snapshots": return try Snapshots(machine: machine).table()
    case "irq": return try interruptCounts()
    case "pic": return try interruptControllers()
    case "mice": return "* Mouse #2: PS/2 Mouse\n"
    case "chardev":
      return machine.settings.ports.enumerated().map {
        "serial\($0): filename=\($1.backend)\n"
      }.joined()
    case "pci": return try pci()
    case "mtree": return try memoryTree()
    case "qtree": return try deviceTree()
    case "qom-tree": return try objectTree(words.count > 1 ? words[1] : nil)
    case "roms": return try roms()
    case "mem": return try PageTableText(machine, try machine.vcpu(cpu)).ranges()
    case "tlb": return try PageTableText(machine, try machine.vcpu(cpu)).pages()
    case .some(let other): return "unknown command: 'info \(other)'\n"
    }
  }

  /// One line for each vCPU.
  private func cpus(current: Int) throws(CommandError) -> String {
    let threads = try machine.threads()
    var text = ""
    for index in 0..<Int(try machine.status().cpus) {
      let cpu = try machine.vcpu(index)
      text += "\(index == current ? "*" : " ") CPU #\(index): pc=0x\(hex(cpu.programCounter, 16))"
      if cpu.isHalted || cpu.mode == 1 || cpu.mode == 2 { text += " (halted)" }
      text += " thread_id=\(machine.threadID(index, in: threads))\n"
    }
    return text
  }

  private func registers(_ words: [String], _ cpu: Int) throws(CommandError) -> String {
    let count = Int(try machine.status().cpus)
    var text = ""
    for index in 0..<count where index == cpu || words.contains("-a") {
      text += "\nCPU#\(index)\n" + RegisterText.text(try machine.vcpu(index))
    }
    return text
  }

  private func pci() throws(CommandError) -> String {
    let reply: FunctionsReply = try machine.ask(.functions, Empty())
    func padded(_ value: UInt8, _ width: Int) -> String {
      let text = String(value)
      return String(repeating: " ", count: max(0, width - text.count)) + text
    }
    return reply.functions.map { function in
      let header = PCIHeader(function)
      var text =
        "  Bus  0, device \(padded(function.devfn >> 3, 3)), function \(function.devfn & 7):\n"
        + "    \(header.className): PCI device "
        + "\(hex(UInt64(header.vendor), 4)):\(hex(UInt64(header.device), 4))\n"
      if header.subsystemVendor != 0 || header.subsystem != 0 {
        text +=
          "      PCI subsystem \(hex(UInt64(header.subsystemVendor), 4)):"
          + "\(hex(UInt64(header.subsystem), 4))\n"
      }
      if header.pin != 0 {
        text += "      IRQ \(header.line), pin \(["", "A", "B", "C", "D"][Int(header.pin & 3)])\n"
      }
      for region in header.regions {
        let start = region.address.map(UInt64.init) ?? .max
        let last = start &+ UInt64(region.size) &- 1
        let kind = region.isPrefetchable ? "32 bit prefetchable memory" : "32 bit memory"
        text +=
          region.isPort
          ? "      BAR\(region.bar): I/O at 0x\(hex(start, 4)) [0x\(hex(last, 4))].\n"
          : "      BAR\(region.bar): \(kind) at 0x\(hex(start, 8)) [0x\(hex(last, 8))].\n"
      }
      return text + "      id \"\"\n"
    }.joined()
  }

  private func memoryTree() throws(CommandError) -> String {
    let map: AddressMapReply = try machine.ask(.addressMap, Empty())
    var text = "address-space: memory\n"
    func line(_ range: AddressMapReply.Range, _ kind: String) -> String {
      "  \(hex(range.start, 16))-\(hex(range.start &+ range.byteCount &- 1, 16)) "
        + "(prio 0, \(kind)): \(range.name)\n"
    }
    for range in map.ranges where !range.isPort {
      let isDevice = range.name != "ram" && range.name != "rom"
      text += line(range, range.isReadOnly ? "rom" : isDevice ? "i/o" : range.name)
    }
    text += "\naddress-space: I/O\n"
    for range in map.ranges where range.isPort { text += line(range, "i/o") }
    return text + "\n"
  }

  private func deviceTree() throws(CommandError) -> String {
    let reply: FunctionsReply = try machine.ask(.functions, Empty())
    var text = "bus: main-system-bus\n  dev: i440FX-pcihost\n    bus: pci.0\n"
    for function in reply.functions {
      let header = PCIHeader(function)
      let place = hex(UInt64(function.devfn >> 3), 2) + "." + String(function.devfn & 7)
      let role = function.role.isEmpty ? "vmcore" : "vmdev-\(function.role)"
      text += "      dev: \(role)\n        addr = \(place)\n"
      text +=
        "        class \(header.className), addr 00:\(place), pci id "
        + "\(hex(UInt64(header.vendor), 4)):\(hex(UInt64(header.device), 4)) "
        + "(sub \(hex(UInt64(header.subsystemVendor), 4)):\(hex(UInt64(header.subsystem), 4)))\n"
      for drive in machine.settings.drives where function.role == "ide" && function.devfn & 7 == 1 {
        text +=
          "          dev: \(drive.isCDROM ? "ide-cd" : "ide-hd")\n"
          + "            drive = \"\(QMPCommands.name(drive))\"\n            unit = \(drive.slot & 1)\n"
      }
    }
    return text
  }

  private func roms() throws(CommandError) -> String {
    let map: AddressMapReply = try machine.ask(.addressMap, Empty())
    return map.ranges.filter { !$0.isPort && $0.name == "rom" }.map {
      "addr=\(hex($0.start, 16)) size=0x\(hex($0.byteCount, 6)) mem=rom name=\"firmware\"\n"
    }.joined()
  }
}
