// SPDX-License-Identifier: Apache-2.0

/// The script `etc/table-loader`, by which firmware places and links tables from fw_cfg.
///
/// Each command is 128 bytes; file names are zero-padded to 56 (QEMU's `bios-linker-loader`).
struct TableLoader {
  private(set) var bytes: [UInt8] = []

  /// Where a file is to be placed.
  enum Zone: UInt8 {
    /// Anywhere in RAM below 4 GiB.
    case high = 1
    /// In the BIOS segment at F0000h, where pointers are searched for.
    case biosSegment = 2
  }

  /// Allocates memory for `file`, aligned to a power of two, and loads it there.
  mutating func allocate(_ file: String, alignment: UInt32, zone: Zone) {
    append(1, Self.name(file) + littleEndianBytes(alignment) + [zone.rawValue])
  }

  /// Adds the address of `target` to the `size`-byte pointer at `offset` in `file`.
  mutating func addPointer(in file: String, at offset: UInt32, size: UInt8, to target: String) {
    append(2, Self.name(file) + Self.name(target) + littleEndianBytes(offset) + [size])
  }

  /// Makes the bytes of a range in `file` sum to zero by its checksum byte at `offset`.
  mutating func addChecksum(in file: String, at offset: UInt32, start: UInt32, length: UInt32) {
    append(
      3,
      Self.name(file) + littleEndianBytes(offset) + littleEndianBytes(start)
        + littleEndianBytes(length))
  }

  private mutating func append(_ command: UInt32, _ fields: [UInt8]) {
    let used = littleEndianBytes(command) + fields
    bytes += used + [UInt8](repeating: 0, count: 128 - used.count)
  }

  private static func name(_ file: String) -> [UInt8] {
    let name = Array(file.utf8.prefix(55))
    return name + [UInt8](repeating: 0, count: 56 - name.count)
  }
}
