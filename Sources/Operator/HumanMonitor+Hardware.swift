// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import Monitor

/// Ports, interrupt controllers, discs and the mouse.
extension HumanMonitor {
  /// Does `i /fmt addr`.
  func readPort(_ rest: Substring, _ cpu: Int) throws(CommandError) -> String {
    var rest = rest
    let format = try DumpFormat(&rest)
    let port = UInt16(truncatingIfNeeded: try onlyValue(rest, cpu))
    let size = min(format.size, 4)
    let reply = try machine.ask(
      .port, PortRequest(port: port, width: UInt8(size)), as: PortReply.self)
    let letter = size == 1 ? "b" : size == 2 ? "w" : "l"
    return "port\(letter)[0x\(hex(UInt64(port), 4))] = 0x\(hex(UInt64(reply.value), 2 * size))\n"
  }

  /// Does `o /fmt addr value`.
  func writePort(_ rest: Substring, _ cpu: Int) throws(CommandError) {
    var rest = rest
    let format = try DumpFormat(&rest)
    let (port, more) = try value(rest, cpu)
    let value = try onlyValue(more, cpu)
    let size = min(format.size, 4)
    let mask = size == 4 ? UInt64(UInt32.max) : (1 << UInt64(8 * size)) - 1
    _ = try machine.ask(
      .port,
      PortRequest(
        port: UInt16(truncatingIfNeeded: port), width: UInt8(size), isWrite: true,
        value: UInt32(truncatingIfNeeded: value & mask)), as: PortReply.self)
  }

  // MARK: - Interrupt controllers

  func interruptControllers() throws(CommandError) -> String {
    let chips: InterruptChipsReply = try machine.ask(.interruptChips, Empty())
    var text = "ioapic0: ver=0x20 id=0x\(hex(UInt64(chips.ioAPICID), 2)) "
    text += "sel=0x\(hex(UInt64(chips.selected), 2))\n"
    let modes = ["fixed", "lowest", "SMI", "...", "NMI", "INIT", "...", "ExtINT"]
    for (pin, entry) in chips.redirections.enumerated() {
      func bit(_ place: UInt64, _ set: String, _ clear: String) -> String {
        entry >> place & 1 == 1 ? set : clear
      }
      func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
      }
      let mode = modes[Int(entry >> 8 & 7)]
      text +=
        "  pin \(padded("\(pin)", 2)) 0x\(hex(entry, 16)) dest=\(entry >> 56 & 0xFF) "
        + "vec=\(padded("\(entry & 0xFF)", 3)) active-\(bit(13, "lo", "hi")) "
        + "\(bit(15, "level", "edge ")) \(bit(16, "masked", "      ")) \(padded(mode, 6)) "
        + "\(bit(11, "logical", "physical"))\n"
    }
    func list(_ bits: [Int]) -> String {
      bits.isEmpty ? "(none)" : bits.map { "\($0)" }.joined(separator: " ")
    }
    let pins = chips.redirections.indices
    text += "  IRR      \(list(pins.filter { chips.lines >> UInt32($0) & 1 == 1 }))\n"
    text += "  Remote IRR \(list(pins.filter { chips.redirections[$0] >> 14 & 1 == 1 }))\n"
    for (index, chip) in chips.controllers.enumerated().reversed() {
      func two(_ value: UInt8) -> String { hex(UInt64(value), 2) }
      text +=
        "pic\(index): irr=\(two(chip.requests)) imr=\(two(chip.mask)) isr=\(two(chip.inService)) "
        + "hprio=\(chip.first) irq_base=\(two(chip.vectorBase)) "
        + "rr_sel=\(chip.readsInService ? 1 : 0) elcr=\(two(chip.levels)) "
        + "fnm=\(chip.isFullyNested ? 1 : 0)\n"
    }
    return text
  }

  func interruptCounts() throws(CommandError) -> String {
    let chips: InterruptChipsReply = try machine.ask(.interruptChips, Empty())
    guard !chips.counts.isEmpty else {
      return "IRQ statistics not available for kvm-ioapic.\n"
        + "IRQ statistics not available for kvm-i8259.\n"
    }
    func list(_ counts: ArraySlice<UInt64>) -> String {
      counts.enumerated().filter { $0.element > 0 }.map { index, count in
        "\(index < 10 ? " " : "")\(index): \(count)\n"
      }.joined()
    }
    return "IRQ statistics for ioapic:\n" + list(chips.counts[...])
      + "IRQ statistics for isa-i8259:\n" + list(chips.counts.prefix(16))
  }

  // MARK: - Discs and the mouse

  func eject(_ rest: Substring) throws(CommandError) -> String {
    var words = rest.split(separator: " ").map(String.init)
    let force = words.first == "-f"
    if force { words.removeFirst() }
    guard words.count == 1 else { return Self.usage("eject", "block device name expected") }
    try Drives(machine: machine).eject(device: words[0], id: nil, force: force)
    return ""
  }

  func change(_ rest: Substring) throws(CommandError) -> String {
    var words = rest.split(separator: " ").map(String.init)
    let force = words.count > 1 && words[1] == "-f"
    if force { words.remove(at: 1) }
    guard let device = words.first else {
      return Self.usage("change", "block device name expected")
    }
    guard (2...4).contains(words.count) else {
      return Self.usage("change", "filename expected")
    }
    try Drives(machine: machine).change(
      device: device, id: nil, file: words[1], format: words.count > 2 ? words[2] : nil,
      mode: words.count > 3 ? words[3] : nil, force: force)
    return ""
  }

  /// `mouse_move dx dy [dz]`, `mouse_button state`: 1 left, 2 middle, 4 right.
  func moveMouse(_ rest: Substring) throws(CommandError) {
    let numbers = rest.split(separator: " ").compactMap { Int32($0) }
    guard (2...3).contains(numbers.count), numbers.allSatisfy({ abs($0) <= 1 << 20 }) else {
      throw CommandError("mouse_move: two or three numbers expected")
    }
    try InputEvents(machine: machine).point(
      PointerRequest(
        dx: numbers[0], dy: numbers[1], wheel: numbers.count > 2 ? -numbers[2] : 0))
  }

  func setMouseButtons(_ rest: Substring) throws(CommandError) {
    guard let state = UInt8(rest.trimmed), state < 8 else {
      throw CommandError("mouse_button: a number from 0 to 7 expected")
    }
    let pressed = state & 1 | (state & 2) << 1 | (state & 4) >> 1
    try InputEvents(machine: machine).point(
      PointerRequest(pressed: pressed, released: ~pressed & 7))
  }

  func dumpMemory(_ rest: Substring, _ cpu: Int) throws(CommandError) {
    var words = rest.split(separator: " ").map(String.init)
    var paging = false
    while let flag = words.first, flag.hasPrefix("-") {
      guard flag == "-p" else { throw CommandError("dump-guest-memory: only -p is supported") }
      paging = true
      words.removeFirst()
    }
    guard words.count == 1 || words.count == 3 else {
      throw CommandError("dump-guest-memory: a file name, or it and begin and length expected")
    }
    let begin = words.count == 3 ? Int64(bitPattern: try onlyValue(words[1][...], cpu)) : nil
    let length = words.count == 3 ? Int64(bitPattern: try onlyValue(words[2][...], cpu)) : nil
    try MemoryDump(machine: machine).write(words[0], paging: paging, begin: begin, length: length)
  }
}
