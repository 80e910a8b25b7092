// SPDX-License-Identifier: Apache-2.0

/// The items of a fw_cfg device, before the machine runs.
public struct FwCfgItems: Sendable {
  /// Where an item's bytes are.
  public enum Content: Sendable, Equatable {
    case bytes([UInt8])
    /// Bytes that the endpoint holds elsewhere, such as a kernel's file.
    case blob(id: UInt32, size: UInt32)

    /// The item's size in bytes.
    public var size: UInt32 {
      switch self {
      case .bytes(let bytes): UInt32(truncatingIfNeeded: bytes.count)
      case .blob(_, let size): size
      }
    }
  }

  var items: [(key: UInt16, content: Content)] = []
  var files: [(name: String, content: Content)] = []

  /// The keys that have a fixed meaning.
  public enum Key {
    public static let signature: UInt16 = 0x00
    public static let id: UInt16 = 0x01
    public static let uuid: UInt16 = 0x02
    public static let ramSize: UInt16 = 0x03
    public static let noGraphic: UInt16 = 0x04
    public static let cpuCount: UInt16 = 0x05
    public static let kernelAddress: UInt16 = 0x07
    public static let kernelSize: UInt16 = 0x08
    public static let kernelCommandLine: UInt16 = 0x09
    public static let initrdAddress: UInt16 = 0x0A
    public static let initrdSize: UInt16 = 0x0B
    public static let bootDevice: UInt16 = 0x0C
    public static let numa: UInt16 = 0x0D
    public static let bootMenu: UInt16 = 0x0E
    public static let maxCPUs: UInt16 = 0x0F
    public static let kernelEntry: UInt16 = 0x10
    public static let kernelData: UInt16 = 0x11
    public static let initrdData: UInt16 = 0x12
    public static let commandLineAddress: UInt16 = 0x13
    public static let commandLineSize: UInt16 = 0x14
    public static let commandLineData: UInt16 = 0x15
    public static let setupAddress: UInt16 = 0x16
    public static let setupSize: UInt16 = 0x17
    public static let setupData: UInt16 = 0x18
    public static let fileDirectory: UInt16 = 0x19
    public static let firstFile: UInt16 = 0x20
    /// The PC's own: whether interrupt 0 arrives at I/O APIC input 2.
    public static let irq0Override: UInt16 = 0x8002
  }

  /// Makes the two items that every fw_cfg device has: signature, and id with the DMA bit.
  public init() {
    set(Key.signature, .bytes(Array("QEMU".utf8)))
    setInteger(Key.id, UInt32(3))
  }

  /// Sets an item that is found by its key; one with the same key is replaced.
  ///
  /// The keys from 20h to 3FFFh belong to files: they are ignored here.
  public mutating func set(_ key: UInt16, _ content: Content) {
    guard key & 0x3FFF < Key.firstFile, key != Key.fileDirectory else { return }
    items.removeAll { $0.key == key }
    items.append((key, content))
  }

  /// Sets an item to an integer, little-endian in its own width.
  public mutating func setInteger(_ key: UInt16, _ value: some FixedWidthInteger) {
    set(key, .bytes(littleEndianBytes(value)))
  }

  /// Adds a file, found through the directory by its name; one so named is replaced.
  ///
  /// Names are at most 55 bytes long; longer ones are cut.
  public mutating func addFile(_ name: String, _ content: Content) {
    let cut = String(decoding: name.utf8.prefix(55), as: UTF8.self)
    files.removeAll { $0.name == cut }
    files.append((cut, content))
  }

  /// Returns the content of the file called `name`.
  public func file(_ name: String) -> Content? { files.first { $0.name == name }?.content }

  /// Returns the content of the item with `key`.
  public func item(_ key: UInt16) -> Content? { items.first { $0.key == key }?.content }
}

/// Returns the bytes of an integer, the lowest first.
func littleEndianBytes(_ value: some FixedWidthInteger) -> [UInt8] {
  (0..<value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
}

/// Returns the bytes of an integer, the highest first.
func bigEndianBytes(_ value: some FixedWidthInteger) -> [UInt8] {
  littleEndianBytes(value).reversed()
}
