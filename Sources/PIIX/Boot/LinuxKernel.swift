// SPDX-License-Identifier: Apache-2.0

/// A Linux kernel in bzImage form, and where its parts go (the kernel's Documentation/arch/x86/
/// boot.rst).
///
/// The option ROM that SeaBIOS runs copies what fw_cfg offers to the addresses here and jumps to
/// the kernel's real-mode entry.
public struct LinuxKernel: Sendable, Equatable {
  /// The real-mode part, with the fields filled in that are the boot loader's.
  public let setup: [UInt8]
  /// Where the protected-mode part starts in the file, and how long it is.
  public let kernelOffset: UInt32
  public let kernelByteCount: UInt32
  /// Where the initial RAM disk goes.
  public let initrdAddress: UInt32

  static let setupAddress: UInt32 = 0x10000
  static let commandLineAddress: UInt32 = 0x20000
  static let kernelAddress: UInt32 = 0x10_0000

  /// How much of the file's start is looked at: the largest real-mode part.
  static let startByteCount = 65 * 512

  /// Whether a file starts as a bzImage does: with the boot sector's mark and the header's.
  static func isBzImage(_ start: [UInt8]) -> Bool {
    start.count >= 0x268 && start[0x1FE] == 0x55 && start[0x1FF] == 0xAA
      && Array(start[0x202..<0x206]) == Array("HdrS".utf8)
  }

  /// Reads the header.
  ///
  /// - Parameters:
  ///   - start: the first ``startByteCount`` bytes of the file, or all of a shorter one.
  ///   - fileByteCount: the file's size.
  ///   - initrdByteCount: the initial RAM disk's size, zero for none.
  ///   - memoryBelow4G: RAM from address 0 on, in bytes.
  /// - Throws: what stands in the way, in words.
  init(
    start: [UInt8], fileByteCount: UInt64, initrdByteCount: UInt64, memoryBelow4G: UInt64
  ) throws(BootProblem) {
    func word(_ offset: Int, _ count: Int) -> UInt32 {
      (0..<count).reduce(0) { $0 | UInt32(start[offset + $1]) << UInt32(8 * $1) }
    }
    guard Self.isBzImage(start) else { throw BootProblem("the kernel is no bzImage") }
    let version = word(0x206, 2)
    guard version >= 0x0202, word(0x211, 1) & 1 != 0 else {
      throw BootProblem(
        "the kernel is too old: boot protocol \(version >> 8).\(version & 0xFF)")
    }
    let sectors = word(0x1F1, 1) == 0 ? 4 : word(0x1F1, 1)
    let setupByteCount = (sectors + 1) * 512
    guard Int(setupByteCount) <= start.count, UInt64(setupByteCount) < fileByteCount,
      fileByteCount < 1 << 31
    else { throw BootProblem("the kernel ends in its real-mode part") }
    kernelOffset = setupByteCount
    kernelByteCount = UInt32(fileByteCount) - setupByteCount
    guard
      UInt64(Self.kernelAddress) + UInt64(kernelByteCount) + BootImage.firmwareByteCount
        < memoryBelow4G
    else {
      throw BootProblem("the kernel does not fit into memory")
    }
    // The firmware's tables are at the end of RAM.
    var highest: UInt64 = version >= 0x0203 ? UInt64(word(0x22C, 4)) : 0x37FF_FFFF
    if version >= 0x020C, word(0x236, 2) & 2 != 0 { highest = UInt64(UInt32.max) }
    highest = min(highest, memoryBelow4G - BootImage.firmwareByteCount - 1)
    guard initrdByteCount <= highest,
      highest - initrdByteCount > UInt64(Self.kernelAddress) + UInt64(kernelByteCount)
    else { throw BootProblem("the initial RAM disk does not fit into memory") }
    initrdAddress =
      initrdByteCount == 0
      ? 0 : UInt32(truncatingIfNeeded: (highest - initrdByteCount + 1) & ~0xFFF)
    var setup = Array(start[..<Int(setupByteCount)])
    func put(_ value: UInt32, _ offset: Int, _ count: Int) {
      for lane in 0..<count where offset + lane < setup.count {
        setup[offset + lane] = UInt8(truncatingIfNeeded: value >> UInt32(8 * lane))
      }
    }
    put(0xB0, 0x210, 1)  // type_of_loader: one that QEMU has registered
    put(word(0x211, 1) | 0x80, 0x211, 1)  // loadflags: CAN_USE_HEAP
    put(Self.commandLineAddress - Self.setupAddress - 0x200, 0x224, 2)  // heap_end_ptr
    put(Self.commandLineAddress, 0x228, 4)  // cmd_line_ptr
    put(initrdAddress, 0x218, 4)  // ramdisk_image
    put(UInt32(truncatingIfNeeded: initrdByteCount), 0x21C, 4)  // ramdisk_size
    self.setup = setup
  }

  /// Offers the kernel's parts by fw_cfg; the file's and the RAM disk's bytes are blobs of these
  /// numbers.
  func offer(
    in items: inout FwCfgItems, commandLine: String, kernelBlob: UInt32, initrdBlob: UInt32,
    initrdByteCount: UInt32
  ) {
    typealias Key = FwCfgItems.Key
    let line = Array(commandLine.utf8) + [0]
    items.setInteger(Key.commandLineAddress, Self.commandLineAddress)
    items.setInteger(Key.commandLineSize, UInt32(line.count))
    items.set(Key.commandLineData, .bytes(line))
    items.setInteger(Key.kernelAddress, Self.kernelAddress)
    items.setInteger(Key.kernelSize, kernelByteCount)
    items.set(Key.kernelData, .blob(id: kernelBlob, size: kernelByteCount))
    items.setInteger(Key.setupAddress, Self.setupAddress)
    items.setInteger(Key.setupSize, UInt32(setup.count))
    items.set(Key.setupData, .bytes(setup))
    if initrdByteCount > 0 {
      items.setInteger(Key.initrdAddress, initrdAddress)
      items.setInteger(Key.initrdSize, initrdByteCount)
      items.set(Key.initrdData, .blob(id: initrdBlob, size: initrdByteCount))
    }
  }
}
