// SPDX-License-Identifier: Apache-2.0

/// What the machine's builder leaves in CMOS memory for the firmware.
///
/// SeaBIOS on a machine with fw_cfg takes memory from `etc/e820`, and CPUs and most of the
/// boot choice from fw_cfg; it still reads the memory bytes as a fall-back, the boot order
/// (3Dh, 38h), the floppy types (10h) and the disk translations (39h, 3Ah). The drive types
/// (12h) and their geometries are left zero: nothing reads them here.
public struct CMOSSetup: Sendable {
  /// Bytes of RAM from address 0 up to the hole below 4 GiB.
  public var memoryBelow4G: UInt64
  /// Bytes of RAM from 4 GiB up.
  public var memoryAbove4G: UInt64
  public var cpuCount: Int
  /// At most three are used.
  public var bootOrder: [BootDevice]
  /// How BIOS disk services number sectors of the four IDE drives, in slot order.
  public var translations: [DiskTranslation]
  /// Whether a floppy's boot sector must bear the boot signature.
  public var checksFloppySignature: Bool

  /// Boot devices as the firmware numbers them.
  public enum BootDevice: UInt8, Sendable {
    case floppy = 1
    case disk = 2
    case cdrom = 3
    case network = 4
  }

  /// Cylinder, head and sector translations as the firmware numbers them.
  public enum DiskTranslation: UInt8, Sendable {
    case none = 0
    case lba = 1
    case large = 2
    case revisedECHS = 3
  }

  public init(
    memoryBelow4G: UInt64, memoryAbove4G: UInt64 = 0, cpuCount: Int = 1,
    bootOrder: [BootDevice] = [.disk, .cdrom], translations: [DiskTranslation] = [],
    checksFloppySignature: Bool = true
  ) {
    self.memoryBelow4G = memoryBelow4G
    self.memoryAbove4G = memoryAbove4G
    self.cpuCount = cpuCount
    self.bootOrder = bootOrder
    self.translations = translations
    self.checksFloppySignature = checksFloppySignature
  }
}

extension MC146818 {
  /// Fills the memory as `setup` says.
  public mutating func apply(_ setup: CMOSSetup) {
    let kibibytes = setup.memoryBelow4G / 1024
    setWord(min(640, kibibytes), at: 0x15)
    let extended = min(kibibytes > 1024 ? kibibytes - 1024 : 0, 0xFFFF)
    setWord(extended, at: 0x17)
    setWord(extended, at: 0x30)
    let above16M = setup.memoryBelow4G > 16 << 20 ? setup.memoryBelow4G - 16 << 20 : 0
    setWord(min(above16M / 65_536, 0xFFFF), at: 0x34)
    let above4G = min(setup.memoryAbove4G / 65_536, 0xFF_FFFF)
    setWord(above4G & 0xFFFF, at: 0x5B)
    poke(UInt8(truncatingIfNeeded: above4G >> 16), at: 0x5D)
    poke(UInt8(max(1, min(setup.cpuCount, 256)) - 1), at: 0x5F)
    poke(0x00, at: 0x10)  // no floppy drives
    poke(0x06, at: 0x14)  // equipment: coprocessor, PS/2 mouse, VGA
    let order = setup.bootOrder.map(\.rawValue) + [0, 0, 0]
    poke(order[1] << 4 | order[0], at: 0x3D)
    poke(order[2] << 4 | (setup.checksFloppySignature ? 0 : 1), at: 0x38)
    var translations: UInt8 = 0
    for (drive, translation) in setup.translations.prefix(4).enumerated() {
      translations |= translation.rawValue << UInt8(2 * drive)
    }
    poke(translations, at: 0x39)
  }

  private mutating func setWord(_ word: UInt64, at address: UInt8) {
    poke(UInt8(truncatingIfNeeded: word), at: address)
    poke(UInt8(truncatingIfNeeded: word >> 8), at: address + 1)
  }
}
