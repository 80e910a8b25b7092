// SPDX-License-Identifier: Apache-2.0

internal import Monitor

/// A vCPU's page tables as `info mem` and `info tlb` show them.
struct PageTableText {
  /// One page, with the rights that all levels leave.
  private struct Page {
    var linear: UInt64
    var physical: UInt64
    var size: UInt64
    var entry: UInt64
    var isUser: Bool
    var isWritable: Bool
  }

  /// Tables read at most, so that a guest's nonsense has an end.
  private static let mostTables = 20000
  private static let mostText = 4 << 20

  private let machine: any MachineAccess
  private let cpu: VCPUReply
  private var digits: Int { cpu.efer & 0x400 != 0 ? 16 : 8 }

  init(_ machine: any MachineAccess, _ cpu: VCPUReply) throws(CommandError) {
    self.machine = machine
    self.cpu = cpu
  }

  /// Ranges of pages that have the same rights.
  func ranges() throws(CommandError) -> String {
    guard cpu.cr0 >> 31 & 1 == 1 else { return "PG disabled\n" }
    var text = ""
    var open: Page?
    func close() {
      guard let page = open else { return }
      text +=
        "\(hex(page.linear, digits))-\(hex(page.linear &+ page.size, digits)) "
        + "\(hex(page.size, digits)) \(page.isUser ? "u" : "-")r\(page.isWritable ? "w" : "-")\n"
    }
    try visit { page in
      if var last = open, last.linear &+ last.size == page.linear, last.isUser == page.isUser,
        last.isWritable == page.isWritable
      {
        last.size += page.size
        open = last
      } else {
        close()
        open = page
      }
      return text.utf8.count < Self.mostText
    }
    close()
    return text
  }

  /// Each page with the bits of its entry.
  func pages() throws(CommandError) -> String {
    guard cpu.cr0 >> 31 & 1 == 1 else { return "PG disabled\n" }
    var text = ""
    try visit { page in
      let letters = [
        (63, "X"), (8, "G"), (7, "P"), (6, "D"), (5, "A"), (4, "C"), (3, "T"), (2, "U"), (1, "W"),
      ].map { place, letter in
        place == 7
          ? (page.size > 4096 ? "P" : "-") : page.entry >> UInt64(place) & 1 == 1 ? letter : "-"
      }
      text +=
        "\(hex(page.linear, digits)): \(hex(page.physical, digits)) \(letters.joined())\n"
      return text.utf8.count < Self.mostText
    }
    return text
  }

  /// Calls `body` with each page's linear and physical address and size, until it returns false.
  func eachPage(_ body: (UInt64, UInt64, UInt64) -> Bool) throws(CommandError) {
    try visit { body($0.linear, $0.physical, $0.size) }
  }

  /// Calls `body` for each page in order of address, until it returns false.
  private func visit(_ body: (Page) -> Bool) throws(CommandError) {
    var tables = 0
    let isLong = cpu.efer & 0x400 != 0
    let isPAE = cpu.cr4 & 0x20 != 0
    let levels = isLong ? (cpu.cr4 & 0x1000 != 0 ? 5 : 4) : isPAE ? 3 : 2
    let entrySize = isPAE ? 8 : 4
    let frame: UInt64 = isPAE ? 0x000F_FFFF_FFFF_F000 : 0xFFFF_F000
    let bits = isPAE ? 9 : 10
    func walk(_ table: UInt64, _ level: Int, _ base: UInt64, _ rights: UInt64) -> Bool {
      tables += 1
      let isPointers = isPAE && !isLong && level == 3
      let count = isPointers ? 4 : 1 << bits
      guard tables <= Self.mostTables, let bytes = machine.physical(table, count * entrySize) else {
        return tables <= Self.mostTables
      }
      for index in 0..<count {
        let at = index * entrySize
        let entry = bytes[at..<at + entrySize].reversed().reduce(UInt64(0)) {
          $0 << 8 | UInt64($1)
        }
        guard entry & 1 != 0 else { continue }
        let shift = UInt64(12 + bits * (level - 1))
        var linear = base | UInt64(index) << shift
        if isLong, level == levels, linear >> (shift + 8) & 1 == 1 {
          linear |= UInt64.max << (shift + 9)
        }
        let rights = isPointers ? rights : rights & entry
        let isLarge =
          level > 1 && entry & 0x80 != 0 && !isPointers
          && (isPAE ? level <= 3 : cpu.cr4 & 0x10 != 0)
        if level == 1 || isLarge {
          let size = UInt64(1) << shift
          let page = Page(
            linear: linear, physical: entry & frame & ~(size - 1), size: size, entry: entry,
            isUser: rights & 4 != 0, isWritable: rights & 2 != 0)
          guard body(page) else { return false }
        } else {
          guard walk(entry & frame, level - 1, linear, rights) else { return false }
        }
      }
      return true
    }
    let root = isPAE && !isLong ? cpu.cr3 & 0xFFFF_FFE0 : cpu.cr3 & frame
    _ = walk(root, levels, 0, 6)
  }
}
