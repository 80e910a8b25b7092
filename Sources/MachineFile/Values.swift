// SPDX-License-Identifier: Apache-2.0

/// An amount of guest memory: a whole number of MiB.
public struct MemorySize: Hashable, Comparable, Sendable, CustomStringConvertible {
  public let mebibytes: UInt64

  public init(mebibytes: UInt64) { self.mebibytes = mebibytes }

  /// The size in bytes; parsing admits no size that does not fit.
  public var byteCount: UInt64 { mebibytes << 20 }

  /// The least memory a machine may have.
  public static let minimum = MemorySize(mebibytes: 4)
  /// The most memory a machine file may ask for.
  public static let maximum = MemorySize(mebibytes: 16 << 20)

  public static func < (left: MemorySize, right: MemorySize) -> Bool {
    left.mebibytes < right.mebibytes
  }

  /// The size with the largest suffix that leaves a whole number.
  public var description: String {
    if mebibytes > 0, mebibytes.isMultiple(of: 1 << 20) { return "\(mebibytes >> 20)TiB" }
    if mebibytes > 0, mebibytes.isMultiple(of: 1 << 10) { return "\(mebibytes >> 10)GiB" }
    return "\(mebibytes)MiB"
  }

  enum ParseFailure: Error { case form, multiple, range }

  /// Reads `512MiB`: digits and one of KiB, MiB, GiB, TiB, with nothing between or around.
  static func parse(_ text: String) throws(ParseFailure) -> MemorySize {
    let digits = text.prefix { $0.isASCII && $0.isWholeNumber }
    let shift: UInt64
    switch text.dropFirst(digits.count) {
    case "KiB": shift = 10
    case "MiB": shift = 20
    case "GiB": shift = 30
    case "TiB": shift = 40
    default: throw .form
    }
    guard !digits.isEmpty else { throw .form }
    guard let number = UInt64(digits), number <= UInt64.max >> shift else { throw .range }
    let bytes = number << shift
    guard bytes >= minimum.byteCount, bytes <= maximum.byteCount else { throw .range }
    guard bytes.isMultiple(of: 1 << 20) else { throw .multiple }
    return MemorySize(mebibytes: bytes >> 20)
  }
}

/// An address that a display listens on.
public enum ListenAddress: Hashable, Sendable, CustomStringConvertible {
  /// An IPv4 address, an IPv6 address without its brackets, or `localhost`.
  case tcp(host: String, port: UInt16)
  case unix(String)

  /// Whether only this host can reach the address.
  public var isLocal: Bool {
    switch self {
    case .tcp(let host, _): host == "localhost" || host == "::1" || host.hasPrefix("127.")
    case .unix: true
    }
  }

  public var description: String {
    switch self {
    case .tcp(let host, let port):
      host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    case .unix(let path): "unix:\(path)"
    }
  }

  /// Reads `HOST:PORT`; names other than `localhost` are refused, nothing is looked up.
  static func parseTCP(_ text: String) -> ListenAddress? {
    guard let colon = text.lastIndex(of: ":") else { return nil }
    let digits = text[text.index(after: colon)...]
    guard digits.allSatisfy({ $0.isASCII && $0.isWholeNumber }),
      let port = UInt16(digits), port > 0
    else { return nil }
    let host = String(text[..<colon])
    if host == "localhost" || isIPv4(host) { return .tcp(host: host, port: port) }
    guard host.hasPrefix("["), host.hasSuffix("]") else { return nil }
    let inner = String(host.dropFirst().dropLast())
    return isIPv6(inner) ? .tcp(host: inner, port: port) : nil
  }

  private static func isIPv4(_ text: String) -> Bool {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    return parts.count == 4
      && parts.allSatisfy { part in
        (1...3).contains(part.count) && part.allSatisfy { $0.isASCII && $0.isWholeNumber }
          && UInt8(part) != nil && (part.count == 1 || !part.hasPrefix("0"))
      }
  }

  private static func isIPv6(_ text: String) -> Bool {
    let halves = text.split(separator: "::", omittingEmptySubsequences: false)
    guard halves.count <= 2 else { return false }
    var count = 0
    for half in halves where !half.isEmpty {
      for group in half.split(separator: ":", omittingEmptySubsequences: false) {
        guard (1...4).contains(group.count),
          group.allSatisfy({ $0.isASCII && $0.isHexDigit })
        else { return false }
        count += 1
      }
    }
    return halves.count == 2 ? count <= 7 : count == 8
  }
}

/// A time, as machine files write it.
enum TimeSpan {
  static let shortest: UInt64 = 10_000_000
  static let longest: UInt64 = 600_000_000_000

  enum ParseFailure: Error { case form, range }

  /// Reads `2s` or `500ms` and returns nanoseconds.
  static func parse(_ text: String) throws(ParseFailure) -> UInt64 {
    let digits = text.prefix { $0.isASCII && $0.isWholeNumber }
    let unit: UInt64
    switch text.dropFirst(digits.count) {
    case "ms": unit = 1_000_000
    case "s": unit = 1_000_000_000
    default: throw .form
    }
    guard !digits.isEmpty else { throw .form }
    guard let number = UInt64(digits), number <= longest / unit else { throw .range }
    guard number * unit >= shortest else { throw .range }
    return number * unit
  }

  /// Writes nanoseconds as ``parse(_:)`` reads them.
  static func text(_ nanoseconds: UInt64) -> String {
    nanoseconds.isMultiple(of: 1_000_000_000)
      ? "\(nanoseconds / 1_000_000_000)s" : "\(nanoseconds / 1_000_000)ms"
  }
}

/// Ports of the PC that no debug exit may take.
enum FixedPorts {
  static let ranges: [(ports: ClosedRange<UInt16>, owner: String)] = [
    (0x000...0x00F, "the DMA controller"), (0x020...0x021, "the interrupt controller"),
    (0x040...0x043, "the timer"), (0x060...0x060, "the keyboard controller"),
    (0x061...0x061, "system control port B"), (0x064...0x064, "the keyboard controller"),
    (0x070...0x077, "the clock and CMOS"), (0x080...0x08F, "the DMA page registers"),
    (0x092...0x092, "system control port A"), (0x0A0...0x0A1, "the interrupt controller"),
    (0x0B2...0x0B3, "power management"), (0x0C0...0x0DF, "the DMA controller"),
    (0x0F0...0x0F1, "the coprocessor error latch"), (0x170...0x177, "the second IDE channel"),
    (0x1CE...0x1D0, "the display's VBE registers"), (0x1F0...0x1F7, "the first IDE channel"),
    (0x2E8...0x2EF, "COM4"), (0x2F8...0x2FF, "COM2"), (0x376...0x376, "the second IDE channel"),
    (0x3B0...0x3DF, "the display"), (0x3E8...0x3EF, "COM3"),
    (0x3F6...0x3F6, "the first IDE channel"), (0x3F8...0x3FF, "COM1"),
    (0x402...0x402, "the debug console"), (0x4D0...0x4D1, "the interrupt controller"),
    (0x505...0x505, "the panic port"), (0x510...0x51B, "fw_cfg"),
    (0x600...0x63F, "power management"),
    (0x700...0x70F, "the SMBus"), (0xCF8...0xCFF, "PCI configuration"),
  ]

  static func owner(of port: UInt16) -> String? {
    ranges.first { $0.ports.contains(port) }?.owner
  }
}
