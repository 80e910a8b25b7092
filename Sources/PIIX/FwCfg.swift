// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The firmware configuration device at ports 510h to 51Bh.
///
/// After QEMU's specification `fw_cfg.rst`. The items are the machine's shape and never
/// change; the state is only what the guest selected. The data port reads one byte at a
/// time; everything big goes through the DMA interface, for which the core copies.
public struct FwCfg: DeviceState, Sendable {
  private var keys: [UInt16] = []
  private var contents: [FwCfgItems.Content] = []
  private var selector: UInt16 = 0
  private var offset: UInt32 = 0
  /// Where `selector` lies in `contents`, or -1; worked out, not state.
  private var selected = -1
  private var addressHigh: UInt32 = 0

  /// What a write asks of the endpoint.
  public enum Request: Sendable, Equatable {
    /// The guest wrote the DMA address: the core is to fetch the 16-byte descriptor there
    /// and hand it to ``beginTransfer(_:)``.
    case transfer(descriptorAddress: UInt64)
  }

  /// How many ports there are from 510h.
  public static let portCount: UInt16 = 12

  public init(_ items: FwCfgItems) {
    // Files are numbered in the order of their names.
    let files = items.files.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
    var directory = bigEndianBytes(UInt32(files.count))
    var all = items.items
    var key = FwCfgItems.Key.firstFile
    for file in files {
      directory += bigEndianBytes(file.content.size) + bigEndianBytes(key) + [0, 0]
      let name = Array(file.name.utf8.prefix(55))
      directory += name + [UInt8](repeating: 0, count: 56 - name.count)
      all.append((key, file.content))
      key &+= 1
    }
    all.append((FwCfgItems.Key.fileDirectory, .bytes(directory)))
    for item in all.sorted(by: { $0.key < $1.key }) {
      keys.append(item.key)
      contents.append(item.content)
    }
    select(0)
  }

  /// Returns the bytes of the item with `key`: `nil` for a blob or where there is none.
  public func bytes(of key: UInt16) -> [UInt8]? {
    let index = index(of: key)
    guard index >= 0, case .bytes(let bytes) = contents[index] else { return nil }
    return bytes
  }

  // MARK: Ports

  /// The byte of a blob that the next read of the data port gives, or `nil` if it is not one.
  ///
  /// The endpoint asks before such a read, fetches the byte and passes it on.
  public var blobAtCursor: (id: UInt32, offset: UInt32)? {
    guard selected >= 0, case .blob(let id, let size) = contents[selected], offset < size
    else { return nil }
    return (id, offset)
  }

  /// Reads port 510h + `port`; `blobByte` is given for one at ``blobAtCursor``.
  public mutating func read(at port: UInt16, blobByte: UInt8 = 0) -> UInt8 {
    switch port {
    case 0: return 0  // the selector is write-only
    case 1: return readData(blobByte: blobByte)
    case 4..<12: return Self.dmaSignature[Int(port) - 4]
    default: return 0xFF
    }
  }

  /// Writes 510h + `port`: the selector takes words, the DMA address big-endian longs.
  public mutating func write(_ value: UInt32, at port: UInt16, width: AccessWidth) -> Request? {
    switch (port, width) {
    case (0, .word): select(UInt16(truncatingIfNeeded: value))
    case (4, .long): addressHigh = value.byteSwapped
    case (8, .long):
      let address = UInt64(addressHigh) << 32 | UInt64(value.byteSwapped)
      addressHigh = 0
      return .transfer(descriptorAddress: address)
    default: break  // the data port takes no writes
    }
    return nil
  }

  private static let dmaSignature: [8 of UInt8] = [
    0x51, 0x45, 0x4D, 0x55, 0x20, 0x43, 0x46, 0x47,  // "QEMU CFG"
  ]

  private mutating func select(_ key: UInt16) {
    selector = key
    offset = 0
    // Bit 14, the write channel, has meant nothing since the device lost it.
    selected = index(of: key & ~0x4000)
  }

  private func index(of key: UInt16) -> Int {
    var (low, high) = (0, keys.count)
    while low < high {
      let middle = (low + high) / 2
      if keys[middle] < key { low = middle + 1 } else { high = middle }
    }
    return low < keys.count && keys[low] == key ? low : -1
  }

  private mutating func readData(blobByte: UInt8) -> UInt8 {
    guard selected >= 0 else { return 0 }
    let byte: UInt8
    switch contents[selected] {
    case .bytes(let bytes):
      guard offset < bytes.count else { return 0 }
      byte = bytes[Int(offset)]
    case .blob(_, let size):
      guard offset < size else { return 0 }
      byte = blobByte
    }
    offset += 1
    return byte
  }

  // MARK: DMA

  /// One step of a transfer, within the window that the descriptor names.
  public enum Step: Sendable, Equatable {
    /// Copy `length` bytes of the item with `key`, from `offset`, to the window.
    case copyItem(key: UInt16, offset: UInt32, window: UInt32, length: UInt32)
    /// Copy `length` bytes of blob `id`, from `offset`, to the window.
    case copyBlob(id: UInt32, offset: UInt32, window: UInt32, length: UInt32)
    /// Fill `length` bytes of the window with zeros: the item ended.
    case zero(window: UInt32, length: UInt32)
  }

  /// What the core does for one descriptor: at most two steps, then the control word.
  public struct Transfer: Sendable, Equatable {
    public var steps: [Step]
    /// Written big-endian over the descriptor's control word when all steps succeeded; where
    /// one failed, ``errorControl`` is.
    public var control: UInt32
  }

  /// The control word that reports a failed transfer.
  public static let errorControl: UInt32 = 1

  /// Takes a descriptor, as it lies in guest memory: control, length and address, big-endian.
  ///
  /// Control bits: 0 error, 1 read, 2 skip, 3 select (key in the upper half), 4 write. No
  /// item can be written, so a write fails. The address is the core's business alone.
  public mutating func beginTransfer(_ descriptor: [16 of UInt8]) -> Transfer {
    let control = Self.bigEndian(descriptor, at: 0)
    let length = Self.bigEndian(descriptor, at: 4)
    if control & 0x08 != 0 { select(UInt16(control >> 16)) }
    var steps: [Step] = []
    if control & 0x02 != 0 {
      let available = selected >= 0 ? contents[selected].size : 0
      let count = min(length, available - min(offset, available))
      if count > 0 {
        switch contents[selected] {
        case .bytes:
          steps.append(
            .copyItem(key: keys[selected], offset: offset, window: 0, length: count))
        case .blob(let id, _):
          steps.append(.copyBlob(id: id, offset: offset, window: 0, length: count))
        }
        offset += count
      }
      if count < length { steps.append(.zero(window: count, length: length - count)) }
    } else if control & 0x10 != 0 {
      return Transfer(steps: [], control: length > 0 ? Self.errorControl : 0)
    } else if control & 0x04 != 0, selected >= 0 {
      let available = contents[selected].size
      offset += min(length, available - min(offset, available))
    }
    return Transfer(steps: steps, control: 0)
  }

  private static func bigEndian(_ bytes: [16 of UInt8], at offset: Int) -> UInt32 {
    var word: UInt32 = 0
    for index in 0..<4 { word = word << 8 | UInt32(bytes[offset + index]) }
    return word
  }

  /// Forgets what was selected.
  public mutating func reset() {
    select(0)
    addressHigh = 0
  }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    var (key, cursor) = (selector, offset)
    visitor.field("selector", &key)
    visitor.field("offset", &cursor)
    visitor.field("addressHigh", &addressHigh)
    select(key)
    offset = cursor
  }
}
