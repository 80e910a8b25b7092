// SPDX-License-Identifier: Apache-2.0

/// What is where in the guest's physical address space, as a pure function of the machine's
/// registers.
///
/// Highest first: the VGA window, the PAM segments, firmware, RAM, and device memory in what
/// is left. Where nothing is, accesses leave the guest. ``slots`` is the list for KVM.
public struct MemoryMap: Equatable, Sendable {
  /// What a PAM register says of one segment (82441FX, 3.2.12).
  public struct Segment: Equatable, Sendable {
    /// Reads come from RAM; else from ROM, or from the bus.
    public var readsRAM: Bool
    /// Writes go to RAM; else to the bus, where they are lost.
    public var writesRAM: Bool

    public init(readsRAM: Bool, writesRAM: Bool) {
      self.readsRAM = readsRAM
      self.writesRAM = writesRAM
    }
  }

  /// Memory of a device that the guest may use without an exit.
  public struct DeviceRegion: Equatable, Sendable {
    /// Which memory, as in ``Backing/device(_:)``.
    public var device: UInt32
    public var start: UInt64
    public var byteCount: UInt64
    /// Where the region starts in the device's memory.
    public var offset: UInt64
    public var isReadOnly: Bool
    public var logsDirty: Bool

    public init(
      device: UInt32, start: UInt64, byteCount: UInt64, offset: UInt64 = 0,
      isReadOnly: Bool = false, logsDirty: Bool = false
    ) {
      self.device = device
      self.start = start
      self.byteCount = byteCount
      self.offset = offset
      self.isReadOnly = isReadOnly
      self.logsDirty = logsDirty
    }
  }

  /// The memory behind a slot.
  public enum Backing: Hashable, Sendable {
    case ram
    case firmware
    case device(UInt32)
  }

  /// A piece of the address space with one memory behind it.
  public struct Slot: Equatable, Sendable {
    public var start: UInt64
    public var byteCount: UInt64
    public var backing: Backing
    /// Where the slot starts in its memory.
    public var offset: UInt64
    public var isReadOnly: Bool
    public var logsDirty: Bool

    public init(
      start: UInt64, byteCount: UInt64, backing: Backing, offset: UInt64,
      isReadOnly: Bool = false, logsDirty: Bool = false
    ) {
      self.start = start
      self.byteCount = byteCount
      self.backing = backing
      self.offset = offset
      self.isReadOnly = isReadOnly
      self.logsDirty = logsDirty
    }

    /// The address after the last.
    public var end: UInt64 { start + byteCount }

    func overlaps(_ other: Slot) -> Bool { start < other.end && other.start < end }
  }

  /// Where a write that left the guest has to go.
  public enum WriteTarget: Equatable, Sendable {
    /// RAM under a ROM, at this offset in RAM.
    case ram(offset: UInt64)
    /// Nowhere: read-only memory.
    case dropped
    /// To whoever claims the address.
    case bus
  }

  public let ram: RAMLayout
  /// The size of the firmware in bytes; it ends at 4 GiB.
  public let firmwareByteCount: UInt64
  /// F0000h first (64 KiB), then C0000h to EFFFFh in steps of 16 KiB.
  public var segments: [Segment]
  /// Device memory that shows in the VGA window, over everything else.
  public var windows: [DeviceRegion] = []
  /// Device memory; later entries lie under earlier ones where they overlap.
  public var devices: [DeviceRegion] = []
  /// Whether the guest's writes to RAM are remembered.
  public var logsDirtyRAM = false

  /// The map after a reset: all segments read from ROM or the bus, no device memory.
  ///
  /// - Precondition: the firmware is whole pages, at most 16 MiB.
  public init(ram: RAMLayout, firmwareByteCount: UInt64) {
    precondition(
      firmwareByteCount & 0xFFF == 0 && firmwareByteCount <= 16 << 20, "bad firmware size")
    self.ram = ram
    self.firmwareByteCount = firmwareByteCount
    segments = [Segment](
      repeating: Segment(readsRAM: false, writesRAM: false), count: Self.segmentCount)
  }

  /// How many PAM segments there are.
  public static let segmentCount = 13

  /// The addresses of a PAM segment.
  public static func segmentRange(_ index: Int) -> Range<UInt64> {
    guard index > 0 else { return 0xF0000..<0x100000 }
    let start = 0xC0000 + 0x4000 * UInt64(index - 1)
    return start..<start + 0x4000
  }

  /// The PAM segment of an address, if it has one.
  public static func segmentIndex(of address: UInt64) -> Int? {
    switch address {
    case 0xC0000..<0xF0000: 1 + Int((address - 0xC0000) >> 14)
    case 0xF0000..<0x100000: 0
    default: nil
    }
  }

  /// Says where a write goes that left the guest as an exit.
  ///
  /// A write over several segments counts as one to its first byte's.
  public func writeTarget(at address: UInt64) -> WriteTarget {
    if let index = Self.segmentIndex(of: address) {
      guard segments[index].writesRAM, address < ram.low else { return .dropped }
      return .ram(offset: address)
    }
    let isReadOnly = slots.contains {
      $0.isReadOnly && $0.start <= address && address < $0.end
    }
    return isReadOnly ? .dropped : .bus
  }
}
