// SPDX-License-Identifier: Apache-2.0

/// A piece of ACPI machine language, built by value: a term, or a list of them.
///
/// ACPI 2.0, chapter 17 (AML encoding). Each factory makes one construct; terms nest and
/// add with `+`. Names are four characters of A to Z, 0 to 9 and `_`, padded with `_`.
struct AML: Equatable {
  var bytes: [UInt8]

  init(_ bytes: [UInt8] = []) { self.bytes = bytes }

  static func + (left: AML, right: AML) -> AML { AML(left.bytes + right.bytes) }

  /// Joins terms in order.
  static func list(_ terms: [AML]) -> AML { AML(terms.flatMap(\.bytes)) }

  // MARK: Encoding

  /// PkgLength: the count of `content` and of its own bytes (17.2.4).
  static func package(_ content: [UInt8]) -> [UInt8] {
    let count = content.count
    if count + 1 < 0x40 { return [UInt8(count + 1)] + content }
    for extra in 1...3 where count + 1 + extra < 1 << (4 + 8 * extra) {
      let length = count + 1 + extra
      var head = [UInt8(extra << 6 | length & 0x0F)]
      for index in 0..<extra {
        head.append(UInt8(truncatingIfNeeded: length >> (4 + 8 * index)))
      }
      return head + content
    }
    return content  // over 256 MiB: no table is
  }

  /// One name segment.
  static func segment(_ name: Substring) -> [UInt8] {
    let bytes = Array(name.utf8.prefix(4))
    return bytes + [UInt8](repeating: 0x5F, count: 4 - bytes.count)
  }

  /// NameString: `\` for the root, `^` for a parent, segments apart by dots (17.2.2).
  static func nameString(_ path: String) -> [UInt8] {
    var bytes: [UInt8] = []
    var rest = Substring(path)
    while let first = rest.first, first == "\\" || first == "^" {
      bytes += Array(String(first).utf8)
      rest = rest.dropFirst()
    }
    let segments = rest.split(separator: ".")
    switch segments.count {
    case 0: bytes.append(0x00)
    case 1: break
    case 2: bytes.append(0x2E)
    default: bytes += [0x2F, UInt8(truncatingIfNeeded: segments.count)]
    }
    return bytes + segments.flatMap(segment)
  }

  // MARK: Data

  /// A reference to a named object, or a call without arguments.
  static func path(_ path: String) -> AML { AML(nameString(path)) }

  /// An integer in its shortest form.
  static func integer(_ value: UInt64) -> AML {
    switch value {
    case 0: AML([0x00])
    case 1: AML([0x01])
    case 2...0xFF: AML([0x0A] + littleEndianBytes(UInt8(value)))
    case 0x100...0xFFFF: AML([0x0B] + littleEndianBytes(UInt16(value)))
    case 0x1_0000...0xFFFF_FFFF: AML([0x0C] + littleEndianBytes(UInt32(value)))
    default: AML([0x0E] + littleEndianBytes(value))
    }
  }

  /// A string of ASCII characters.
  static func string(_ text: String) -> AML { AML([0x0D] + Array(text.utf8) + [0x00]) }

  /// A compressed EISA id such as `PNP0A03` (ACPI 2.0, 16.2.3.1 `EISAID`).
  static func eisaID(_ id: String) -> AML {
    let text = Array(id.utf8)
    guard text.count == 7 else { return integer(0) }
    let vendor = text.prefix(3).reduce(UInt32(0)) { $0 << 5 | UInt32($1 & 0x1F) }
    let product = UInt32(id.suffix(4), radix: 16) ?? 0
    return integer(UInt64((vendor << 16 | product).byteSwapped))
  }

  /// A buffer with these bytes.
  static func buffer(_ content: [UInt8]) -> AML {
    AML([0x11] + package(integer(UInt64(content.count)).bytes + content))
  }

  /// A package of at most 255 elements.
  static func package(_ elements: [AML]) -> AML {
    AML([0x12] + package([UInt8(truncatingIfNeeded: elements.count)] + list(elements).bytes))
  }

  static func argument(_ index: UInt8) -> AML { AML([0x68 + min(index, 6)]) }
  static func local(_ index: UInt8) -> AML { AML([0x60 + min(index, 7)]) }

  // MARK: Objects

  static func name(_ path: String, _ value: AML) -> AML {
    AML([0x08] + nameString(path) + value.bytes)
  }

  static func scope(_ path: String, _ terms: [AML]) -> AML {
    AML([0x10] + package(nameString(path) + list(terms).bytes))
  }

  static func device(_ name: String, _ terms: [AML]) -> AML {
    AML([0x5B, 0x82] + package(nameString(name) + list(terms).bytes))
  }

  /// A processor object without a register block (ACPI 2.0, 16.2.3.3.1.17).
  static func processor(_ name: String, id: UInt8, _ terms: [AML]) -> AML {
    AML([0x5B, 0x83] + package(nameString(name) + [id, 0, 0, 0, 0, 0] + list(terms).bytes))
  }

  static func method(
    _ name: String, arguments: UInt8 = 0, isSerialized: Bool = false, _ terms: [AML]
  ) -> AML {
    let flags = arguments & 7 | (isSerialized ? 0x08 : 0)
    return AML([0x14] + package(nameString(name) + [flags] + list(terms).bytes))
  }

  /// The address spaces of operation regions.
  enum Space: UInt8 {
    case memory = 0
    case io = 1
    case pciConfiguration = 2
  }

  static func region(_ name: String, _ space: Space, offset: UInt64, length: UInt64) -> AML {
    AML(
      [0x5B, 0x80] + nameString(name) + [space.rawValue] + integer(offset).bytes
        + integer(length).bytes)
  }

  /// A field list with byte access, no lock, preserving what is not written.
  static func field(_ region: String, _ units: [(name: String, bits: UInt8)]) -> AML {
    var content = nameString(region) + [0x01]
    for unit in units {
      content += unit.name.isEmpty ? [0x00] : segment(Substring(unit.name))
      content.append(min(unit.bits, 0x3F))
    }
    return AML([0x5B, 0x81] + package(content))
  }

  static func createDWordField(_ source: AML, offset: UInt64, _ name: String) -> AML {
    AML([0x8A] + source.bytes + integer(offset).bytes + nameString(name))
  }

  // MARK: Statements and operators

  static func store(_ value: AML, _ target: AML) -> AML {
    AML([0x70] + value.bytes + target.bytes)
  }

  static func returning(_ value: AML) -> AML { AML([0xA4] + value.bytes) }

  static func ifTrue(_ condition: AML, _ terms: [AML]) -> AML {
    AML([0xA0] + package(condition.bytes + list(terms).bytes))
  }

  static func otherwise(_ terms: [AML]) -> AML { AML([0xA1] + package(list(terms).bytes)) }

  static func and(_ left: AML, _ right: AML, target: AML? = nil) -> AML {
    AML([0x7B] + left.bytes + right.bytes + (target?.bytes ?? [0x00]))
  }

  static func or(_ left: AML, _ right: AML, target: AML? = nil) -> AML {
    AML([0x7D] + left.bytes + right.bytes + (target?.bytes ?? [0x00]))
  }

  static func isLess(_ left: AML, _ right: AML) -> AML {
    AML([0x95] + left.bytes + right.bytes)
  }

  /// A call of a method with arguments.
  static func call(_ path: String, _ arguments: [AML]) -> AML {
    AML(nameString(path) + list(arguments).bytes)
  }
}
