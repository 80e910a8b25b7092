// SPDX-License-Identifier: Apache-2.0

/// One resource descriptor of a `_CRS` or `_PRS` buffer (ACPI 2.0, 6.4).
struct Resource: Equatable {
  var bytes: [UInt8]

  /// A fixed range of I/O ports decoded in 16 bits (6.4.2.5).
  static func ports(_ base: UInt16, _ count: UInt8) -> Resource {
    Resource(
      bytes: [0x47, 0x01] + littleEndianBytes(base) + littleEndianBytes(base) + [0x01, count])
  }

  /// An edge-triggered, active-high ISA interrupt (6.4.2.1).
  static func interrupt(_ line: UInt8) -> Resource {
    Resource(bytes: [0x22] + littleEndianBytes(UInt16(1) << UInt16(line & 15)))
  }

  /// DMA channel 4, the cascade: compatibility mode, not a bus master, 16 bits (6.4.2.2).
  static let dmaCascade = Resource(bytes: [0x2A, 0x10, 0x02])

  /// Level-triggered, active-high, shared interrupts to choose from (6.4.3.6).
  static func sharedInterrupts(_ lines: [UInt32]) -> Resource {
    let content: [UInt8] =
      [0x09, UInt8(truncatingIfNeeded: lines.count)] + lines.flatMap { littleEndianBytes($0) }
    return Resource(bytes: [0x89] + littleEndianBytes(UInt16(content.count)) + content)
  }

  /// The buses below a root (6.4.3.5.3).
  static func buses(_ range: ClosedRange<UInt16>) -> Resource {
    word(kind: 2, flags: 0, range)
  }

  /// Ports that a root passes on, whole range (6.4.3.5.3).
  static func portWindow(_ range: ClosedRange<UInt16>) -> Resource {
    word(kind: 1, flags: 0x03, range)
  }

  private static func word(kind: UInt8, flags: UInt8, _ range: ClosedRange<UInt16>) -> Resource {
    // Minimum and maximum fixed, positively decoded, produced.
    var content: [UInt8] = [kind, 0x0C, flags]
    content += littleEndianBytes(UInt16(0)) + littleEndianBytes(range.lowerBound)
    content += littleEndianBytes(range.upperBound) + littleEndianBytes(UInt16(0))
    content += littleEndianBytes((range.upperBound - range.lowerBound) &+ 1)
    return Resource(bytes: [0x88] + littleEndianBytes(UInt16(content.count)) + content)
  }

  /// Memory that a root passes on (6.4.3.5.2).
  static func memoryWindow(_ range: ClosedRange<UInt32>, isCacheable: Bool) -> Resource {
    var content: [UInt8] = [0, 0x0C, isCacheable ? 0x03 : 0x01]
    content += littleEndianBytes(UInt32(0)) + littleEndianBytes(range.lowerBound)
    content += littleEndianBytes(range.upperBound) + littleEndianBytes(UInt32(0))
    content += littleEndianBytes((range.upperBound - range.lowerBound) &+ 1)
    return Resource(bytes: [0x87] + littleEndianBytes(UInt16(content.count)) + content)
  }
}

extension AML {
  /// A resource template: the descriptors and the end tag (6.4.2.8).
  static func resources(_ resources: [Resource]) -> AML {
    buffer(resources.flatMap(\.bytes) + [0x79, 0x00])
  }
}
