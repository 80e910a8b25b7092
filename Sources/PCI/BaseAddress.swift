// SPDX-License-Identifier: Apache-2.0

/// What a base address register decodes, and where (PCI 2.2, 6.2.5).
public struct DecodedRegion: Sendable, Equatable {
  /// The address space and its attributes.
  public enum Kind: Sendable, Equatable {
    case port
    case memory
    case prefetchableMemory
    case rom
  }
  public var kind: Kind
  /// The first port or byte; a multiple of `size`.
  public var base: UInt32
  /// Bytes; a power of two.
  public var size: UInt32

  public init(kind: Kind, base: UInt32, size: UInt32) {
    self.kind = kind
    self.base = base
    self.size = size
  }
}

extension ConfigSpace {
  /// The offset of the expansion ROM's base address register (6.2.5.2).
  static let romOffset = 0x30

  /// Adds a base address register that decodes `size` ports.
  ///
  /// - Precondition: `index` is 0 to 5; `size` is a power of two, 4 to 256 (6.2.5.1).
  public mutating func addPortRegion(_ index: Int, size: UInt32) {
    precondition((0..<6).contains(index), "no such base address register")
    precondition(size.nonzeroBitCount == 1 && (4...256).contains(size), "bad region size")
    setLong(0x0000_0001, at: 0x10 + 4 * index)
    setWritable(~(size - 1), at: 0x10 + 4 * index)
  }

  /// Adds a base address register that decodes `size` bytes anywhere in 32-bit space.
  ///
  /// - Precondition: `index` is 0 to 5; `size` is a power of two from 16 to 2 GiB.
  public mutating func addMemoryRegion(_ index: Int, size: UInt32, isPrefetchable: Bool = false) {
    precondition((0..<6).contains(index), "no such base address register")
    precondition(size.nonzeroBitCount == 1 && size >= 16, "bad region size")
    setLong(isPrefetchable ? 0x0000_0008 : 0, at: 0x10 + 4 * index)
    setWritable(~(size - 1), at: 0x10 + 4 * index)
  }

  /// Adds the expansion ROM's base address register, decoding `size` bytes.
  ///
  /// - Precondition: `size` is a power of two from 2 KiB to 16 MiB (6.2.5.2).
  public mutating func addROM(size: UInt32) {
    precondition(size.nonzeroBitCount == 1 && (0x800...0x100_0000).contains(size), "bad ROM size")
    setLong(0, at: Self.romOffset)
    setWritable(~(size - 1) | 1, at: Self.romOffset)
  }

  /// Returns what base address register `index` decodes now.
  ///
  /// `nil` when there is no such register, its space is not enabled in the command
  /// register, or it holds no address: zero, or all ones as while being sized. A region
  /// that would end at the very top of its space counts as having none.
  public func region(_ index: Int) -> DecodedRegion? {
    guard let shape = regionShape(index) else { return nil }
    let isPort = shape.kind == .port
    guard isPort ? decodesPorts : decodesMemory else { return nil }
    let base = long(0x10 + 4 * index) & ~(shape.size - 1)
    let (last, overflow) = base.addingReportingOverflow(shape.size - 1)
    guard base != 0, !overflow, last < (isPort ? 0xFFFF : 0xFFFF_FFFF) else { return nil }
    return DecodedRegion(kind: shape.kind, base: base, size: shape.size)
  }

  /// Returns kind and size of base address register `index`, with a base of zero.
  ///
  /// This is the machine's shape: it does not depend on what the guest wrote.
  public func regionShape(_ index: Int) -> DecodedRegion? {
    guard (0..<6).contains(index) else { return nil }
    let offset = 0x10 + 4 * index
    let mask = writableLong(offset)
    guard mask != 0 else { return nil }
    let size = UInt32(1) << UInt32(mask.trailingZeroBitCount)
    switch initial[offset] & 0x0F {
    case let low where low & 1 != 0: return DecodedRegion(kind: .port, base: 0, size: size)
    case let low where low & 8 != 0:
      return DecodedRegion(kind: .prefetchableMemory, base: 0, size: size)
    default: return DecodedRegion(kind: .memory, base: 0, size: size)
    }
  }

  /// Returns where the expansion ROM is decoded, or `nil` while it is not.
  ///
  /// Both its own enable bit and memory space must be on (6.2.5.2).
  public var rom: DecodedRegion? {
    let mask = writableLong(Self.romOffset) & ~1
    guard mask != 0, decodesMemory, value[Self.romOffset] & 1 != 0 else { return nil }
    let size = UInt32(1) << UInt32(mask.trailingZeroBitCount)
    let base = long(Self.romOffset) & mask
    let (last, overflow) = base.addingReportingOverflow(size - 1)
    guard base != 0, !overflow, last < 0xFFFF_FFFF else { return nil }
    return DecodedRegion(kind: .rom, base: base, size: size)
  }

  private func long(_ offset: Int) -> UInt32 {
    var word: UInt32 = 0
    for lane in 0..<4 { word |= UInt32(value[offset + lane]) << (8 * lane) }
    return word
  }

  private func writableLong(_ offset: Int) -> UInt32 {
    var word: UInt32 = 0
    for lane in 0..<4 { word |= UInt32(writable[offset + lane]) << (8 * lane) }
    return word
  }
}
