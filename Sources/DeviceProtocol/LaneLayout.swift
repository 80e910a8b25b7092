// SPDX-License-Identifier: Apache-2.0

/// Where things are in a lane: the shared memory that carries register accesses.
///
/// All offsets are in bytes (protocols/device.md, section 7).
public enum LaneLayout {
  /// "BHLN", little-endian, at offset 0.
  public static let magic: UInt32 = 0x4E4C_4842
  public static let version: UInt32 = 1

  public static let magicOffset = 0
  public static let versionOffset = 4
  /// How many request slots there are (one for each vCPU), 32 bits.
  public static let slotCountOffset = 8
  /// Incremented by whoever has work for the device; the device sleeps on it.
  public static let doorbellOffset = 64
  /// 1 while the device sleeps on the doorbell, or is about to.
  public static let sleepingOffset = 128
  /// How many posted writes the core has ever put into the ring, modulo 2^32.
  public static let headOffset = 192
  /// How many of them the device has taken.
  public static let tailOffset = 256

  /// What the device has done, for the operator: counters of 64 bits that only it writes.
  public static let countersOffset = 512
  public static let counters = 64

  /// The register table: 8 bytes an entry.
  public static let registersOffset = 1024
  public static let registerEntries = 128
  /// Entry, bit 0: the value in bits 63 to 32 may be given to the guest.
  public static let entryValid: UInt64 = 1 << 0
  /// Entry, bit 1: also while posted writes wait in the ring.
  public static let entryValidWithPosts: UInt64 = 1 << 1

  /// The ring of posted writes: 32 bytes an entry.
  public static let ringOffset = 4096
  public static let ringCapacity = 1024
  public static let ringEntryBytes = 32

  /// The request slots: 8192 bytes each, the second half for blocks.
  public static let slotsOffset = 4096 + 1024 * 32
  public static let slotBytes = 8192
  public static let mostSlots = 255

  /// In a slot: ``SlotState``, 32 bits; the core sleeps on it.
  public static let slotState = 0
  /// ``SlotOperation``, 8 bits.
  public static let slotOperation = 4
  /// Bytes of one item: 1, 2, 4 or 8; 8 bits.
  public static let slotWidth = 5
  /// The region, 16 bits.
  public static let slotRegion = 6
  /// The offset in the region, 64 bits.
  public static let slotRegisterOffset = 8
  /// The value of a write, 64 bits.
  public static let slotValue = 16
  /// Items in a block, 32 bits.
  public static let slotItems = 24
  /// Incremented with each request in this slot, 32 bits; 0 is never used.
  public static let slotSequence = 28
  /// Bytes of a DMA descriptor's content in the block, 32 bits; 0 for none.
  public static let slotDescriptorBytes = 32
  /// The window that the descriptor opened, 32 bits.
  public static let slotWindow = 36
  /// Reply: the value of a read, 64 bits.
  public static let slotReplyValue = 64
  /// Reply: how many items of the block were done, 32 bits.
  public static let slotReplyItems = 72
  /// 1 while the core sleeps on the state.
  public static let slotWaiting = 128
  /// Of a copy that the device asks for: the window, 32 bits.
  public static let slotCopyWindow = 192
  /// Its direction (``DMARequest/Direction``), 32 bits.
  public static let slotCopyDirection = 196
  /// Where in the window it begins, 64 bits.
  public static let slotCopyWindowOffset = 200
  /// Where in the bounce buffer, 32 bits.
  public static let slotCopyBounceOffset = 208
  /// Its length in bytes, 32 bits.
  public static let slotCopyByteCount = 212
  /// From the core: how many bytes were copied, all ones when the window is not open, 32 bits.
  public static let slotCopyDone = 216
  /// The block.
  public static let slotBlock = 4096
  public static let blockBytes = 4096

  /// The length of a lane with some number of slots.
  public static func byteCount(slots: Int) -> Int { slotsOffset + slots * slotBytes }

  /// Where a slot begins.
  @inlinable
  public static func slot(_ index: Int) -> Int { slotsOffset + index * slotBytes }
}

/// What a request slot is doing.
public enum SlotState {
  public static let idle: UInt32 = 0
  /// The core has put a request in.
  public static let requested: UInt32 = 1
  /// The device has put the reply in.
  public static let answered: UInt32 = 2
  /// The device asks for a copy before it answers; the core does it and goes back to requested.
  public static let copying: UInt32 = 3
}

/// What a request in a slot asks for.
public enum SlotOperation: UInt8, Sendable {
  case read = 1
  case write = 2
  /// Several items from one register, such as `rep insw`; they come in the block.
  case readBlock = 3
  /// Several items to one register; they are in the block.
  case writeBlock = 4
}

/// One register access, as it stands in a slot or a ring entry.
public struct LaneAccess: Equatable, Sendable {
  public var operation: SlotOperation
  /// Bytes of one item: 1, 2, 4 or 8.
  public var width: UInt8
  public var region: UInt16
  public var offset: UInt64
  public var value: UInt64
  public var items: UInt32
  /// Bytes of DMA descriptor content in the block.
  public var descriptorBytes: UInt32
  public var window: UInt32

  @inlinable
  public init(
    _ operation: SlotOperation, width: UInt8, region: UInt16, offset: UInt64, value: UInt64 = 0,
    items: UInt32 = 1, descriptorBytes: UInt32 = 0, window: UInt32 = 0
  ) {
    self.operation = operation
    self.width = width
    self.region = region
    self.offset = offset
    self.value = value
    self.items = items
    self.descriptorBytes = descriptorBytes
    self.window = window
  }
}
