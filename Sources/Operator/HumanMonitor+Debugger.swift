// SPDX-License-Identifier: Apache-2.0

/// `gdbserver` and `block_resize`.
extension HumanMonitor {
  /// What QEMU says where a command's arguments are not what it takes.
  static func usage(_ command: String, _ expected: String) -> String {
    "\(command): \(expected)\nTry \"help \(command)\" for more information\n"
  }

  /// Does `gdbserver [device]`: serves gdb at a Unix socket, or with `none` no more.
  func serveDebugger(_ rest: Substring) -> String {
    let device = rest.trimmed
    do throws(CommandError) {
      guard device != "none" else {
        _ = try machine.setDebuggerSocket(isWanted: false, at: "")
        return "Disabled gdbserver\n"
      }
      guard device.isEmpty || device.hasPrefix("unix:") else {
        throw CommandError("accepted: unix:PATH, none")
      }
      // QEMU's options of a socket say what holds here anyway.
      let path = device.dropFirst(5).prefix { $0 != "," }
      let place = try machine.setDebuggerSocket(isWanted: true, at: String(path))
      return "Waiting for gdb connection on device 'unix:\(place)'\n"
    } catch {
      return "\(error)\nCould not open gdbserver on device '\(device)'\n"
    }
  }

  /// Does `block_resize device size`; a size without a letter is in MiB.
  func resizeDisk(_ rest: Substring) throws(CommandError) -> String {
    let words = rest.split(separator: " ").map(String.init)
    guard let device = words.first else {
      return Self.usage("block_resize", "block device name expected")
    }
    guard words.count > 1, let size = Self.size(words[1]) else {
      return "invalid size\nTry \"help block_resize\" for more information\n"
    }
    guard words.count == 2 else {
      return Self.usage("block_resize", "extraneous characters at the end of line")
    }
    try Drives(machine: machine).resize(device: device, node: nil, to: size)
    return ""
  }

  /// A size as QEMU's monitor takes it: a number, also with a fraction, and a letter from B to E.
  static func size(_ text: String) -> Int64? {
    let letters: [Character: Int64] = [
      "B": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60,
    ]
    var digits = text[...]
    var shift: Int64 = 20
    if let last = text.uppercased().last, let known = letters[last] {
      shift = known
      digits.removeLast()
    }
    let parts = digits.split(separator: ".", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), let whole = UInt64(parts[0]), whole <= 1 << 62 else {
      if digits.hasPrefix("0x"), let value = UInt64(digits.dropFirst(2), radix: 16) {
        return value <= UInt64(Int64.max) >> UInt64(shift) ? Int64(value) << shift : nil
      }
      return nil
    }
    let unit = UInt64(1) << UInt64(shift)
    let (bytes, overflow) = whole.multipliedReportingOverflow(by: unit)
    guard !overflow, bytes <= UInt64(Int64.max) else { return nil }
    guard parts.count == 2 else { return Int64(bytes) }
    // Nothing smaller than a byte has a meaning.
    guard shift > 0, let fraction = Double("0." + parts[1]), fraction < 1 else { return nil }
    return Int64(bytes) + Int64(fraction * Double(unit))
  }
}
