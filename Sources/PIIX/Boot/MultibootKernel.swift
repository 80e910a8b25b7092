// SPDX-License-Identifier: Apache-2.0

/// A kernel that is entered in 32-bit protected mode, without paging: by Multiboot (version
/// 0.6.96), or by PVH (Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h).
///
/// The option ROM that SeaBIOS runs copies the information block and the image, fills in what
/// the firmware says of memory, and jumps to the entry. For PVH that is ``PVHStart``.
public struct MultibootKernel: Sendable, Equatable {
  enum StartProtocol: Sendable, Equatable {
    case multiboot
    case pvh
  }

  let startProtocol: StartProtocol
  /// The kernel, and the initial RAM disk as its module.
  public let image: LoadImage
  let entry: UInt32
  /// Where the module is; empty for none.
  let module: Range<UInt64>

  /// How much of a file's start a Multiboot header may be in (3.1).
  public static let headerSearchByteCount = 8192
  private static let magic: UInt32 = 0x1BAD_B002

  /// Where the header is in the start of a file (3.1.1).
  static func header(_ start: [UInt8]) -> Int? {
    let start = BootBytes(bytes: start)
    return stride(from: 0, through: start.bytes.count - 12, by: 4).first { place in
      start.word32(place) == magic
        && start.word32(place) &+ start.word32(place + 4) &+ start.word32(place + 8) == 0
    }
  }

  /// Reads a Multiboot kernel whose header is at an offset.
  ///
  /// - Parameters:
  ///   - file: the kernel's file.
  ///   - header: where the Multiboot header starts.
  ///   - initrdByteCount: the module's size, zero for none.
  ///   - limit: the end of the memory that kernel and module may use.
  /// - Throws: the field that is wrong, in words.
  init(_ file: BootFile, header: Int, initrdByteCount: UInt64, limit: UInt64) throws(BootProblem) {
    let fields = try file.read(UInt64(header), 12, "its Multiboot header")
    let flags = fields.word32(4)
    // Bit 0 asks for page-aligned modules, bit 1 for the memory's size: always so. A video mode
    // (bit 2) is the kernel's to set.
    guard flags & 0xFFF8 == 0 else {
      throw BootProblem("the Multiboot header's flags \(hex(flags)) ask for what is not known")
    }
    if flags & 1 << 16 != 0 {
      let place = try file.read(UInt64(header), 32, "its Multiboot header's addresses")
      let found = try Self.addressed(file, header, place, limit)
      self.init(.multiboot, found.image, found.entry, initrdByteCount)
    } else {
      let kernel = try ELFKernel(file, limit: limit)
      guard let entry = kernel.physical(kernel.entry) else {
        throw BootProblem("the ELF header's e_entry \(hex(kernel.entry)) is in no segment")
      }
      self.init(.multiboot, kernel.image, UInt32(entry), initrdByteCount)
    }
    try checkEnd(limit)
  }

  /// Takes an ELF kernel with PVH's note.
  init(pvh kernel: ELFKernel, entry: UInt64, initrdByteCount: UInt64, limit: UInt64)
    throws(BootProblem)
  {
    guard kernel.segments.contains(where: { entry &- $0.address < $0.memoryByteCount }) else {
      throw BootProblem("the entry of the PVH note, \(hex(entry)), is in no segment")
    }
    self.init(.pvh, kernel.image, UInt32(entry), initrdByteCount)
    try checkEnd(limit)
  }

  private init(
    _ startProtocol: StartProtocol, _ image: LoadImage, _ entry: UInt32, _ initrdByteCount: UInt64
  ) {
    self.startProtocol = startProtocol
    self.entry = entry
    var image = image
    if initrdByteCount > 0 {
      let place = (image.end + 0x1F_FFFF) & ~0x1F_FFFF
      image.append(at: place, .initrd, 0, initrdByteCount)
      module = place..<place + initrdByteCount
    } else {
      module = 0..<0
    }
    self.image = image
  }

  private func checkEnd(_ limit: UInt64) throws(BootProblem) {
    guard image.end <= limit else {
      throw BootProblem("kernel and initial RAM disk need more memory below 4 GiB than there is")
    }
  }

  /// The image of a kernel that says itself where it goes (3.1.3).
  private static func addressed(
    _ file: BootFile, _ header: Int, _ fields: BootBytes, _ limit: UInt64
  ) throws(BootProblem) -> (image: LoadImage, entry: UInt32) {
    let headerAddress = UInt64(fields.word32(12))
    let load = UInt64(fields.word32(16))
    var loadEnd = UInt64(fields.word32(20))
    var bssEnd = UInt64(fields.word32(24))
    let entry = fields.word32(28)
    guard load >= 0x10_0000 else {
      throw BootProblem("the Multiboot header's load_addr \(hex(load)) is below 1 MiB")
    }
    guard headerAddress >= load, headerAddress - load <= UInt64(header) else {
      throw BootProblem(
        "the Multiboot header's header_addr \(hex(headerAddress)) does not fit its load_addr "
          + "\(hex(load))")
    }
    let offset = UInt64(header) - (headerAddress - load)
    if loadEnd == 0 { loadEnd = load + (file.byteCount - offset) }
    if bssEnd == 0 { bssEnd = loadEnd }
    guard loadEnd >= load, loadEnd - load <= file.byteCount - offset else {
      throw BootProblem(
        "the Multiboot header's load_end_addr \(hex(loadEnd)) is past the file's end")
    }
    guard bssEnd >= loadEnd, bssEnd <= limit else {
      throw BootProblem(
        "the Multiboot header's bss_end_addr \(hex(bssEnd)) is before its load_end_addr, or more "
          + "memory below 4 GiB than the machine has")
    }
    guard UInt64(entry) >= load, UInt64(entry) < bssEnd else {
      throw BootProblem("the Multiboot header's entry_addr \(hex(entry)) is outside the kernel")
    }
    var image = LoadImage(address: UInt32(load))
    image.append(at: load, .kernel, offset, loadEnd - load, memoryByteCount: bssEnd - load)
    return (image, entry)
  }
}
