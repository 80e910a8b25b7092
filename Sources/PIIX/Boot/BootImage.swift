// SPDX-License-Identifier: Apache-2.0

/// A kernel that is started directly, of whichever kind its file is.
public enum BootImage: Sendable, Equatable {
  /// A bzImage.
  case linux(LinuxKernel)
  /// An ELF file with PVH's note, or a Multiboot kernel.
  case multiboot(MultibootKernel)

  /// The firmware's tables are at the end of RAM.
  static let firmwareByteCount: UInt64 = 0x28000

  /// Finds out what a file is, and reads its headers.
  ///
  /// - Parameters:
  ///   - file: the kernel's file.
  ///   - initrdByteCount: the initial RAM disk's size, zero for none.
  ///   - memoryBelow4G: RAM from address 0 on, in bytes.
  /// - Throws: what stands in the way, in words.
  public init(_ file: BootFile, initrdByteCount: UInt64, memoryBelow4G: UInt64)
    throws(BootProblem)
  {
    let start = file.start(max(LinuxKernel.startByteCount, MultibootKernel.headerSearchByteCount))
    if LinuxKernel.isBzImage(start) {
      self = .linux(
        try LinuxKernel(
          start: start, fileByteCount: file.byteCount, initrdByteCount: initrdByteCount,
          memoryBelow4G: memoryBelow4G))
      return
    }
    guard memoryBelow4G > Self.firmwareByteCount, memoryBelow4G <= 1 << 32 else {
      throw BootProblem("the machine has too little memory")
    }
    let limit = memoryBelow4G - Self.firmwareByteCount
    let header = MultibootKernel.header(
      Array(start.prefix(MultibootKernel.headerSearchByteCount)))
    if ELFKernel.isELF(start) {
      let kernel = try ELFKernel(file, limit: limit)
      if let entry = kernel.pvhEntry {
        self = .multiboot(
          try MultibootKernel(
            pvh: kernel, entry: entry, initrdByteCount: initrdByteCount, limit: limit))
        return
      }
      guard header != nil else {
        throw BootProblem("the kernel is an ELF file without PVH's note or a Multiboot header")
      }
    }
    guard let header else {
      throw BootProblem("the kernel is no bzImage, no ELF file and has no Multiboot header")
    }
    self = .multiboot(
      try MultibootKernel(
        file, header: header, initrdByteCount: initrdByteCount, limit: limit))
  }

  /// What a blob is made of: files, with zeroes between their parts.
  public func pieces(of blob: Blob, in range: Range<UInt64>) -> [LoadImage.Piece] {
    switch (self, blob) {
    case (.linux(let kernel), .kernel):
      [
        LoadImage.Piece(
          offset: range.lowerBound, source: .kernel,
          fileOffset: UInt64(kernel.kernelOffset) + range.lowerBound,
          byteCount: UInt64(range.count))
      ]
    case (.multiboot(let kernel), .kernel): kernel.image.pieces(in: range)
    case (_, .initrd):
      [
        LoadImage.Piece(
          offset: range.lowerBound, source: .initrd, fileOffset: range.lowerBound,
          byteCount: UInt64(range.count))
      ]
    }
  }

  /// The blobs of fw_cfg whose bytes are in the files.
  public enum Blob: UInt32, Sendable {
    case kernel = 0
    case initrd = 1
  }

  /// Offers everything by fw_cfg; `loader` is the option ROM of ``loaderName``.
  public func offer(
    in items: inout FwCfgItems, commandLine: String, initrdByteCount: UInt32, loader: [UInt8]
  ) {
    switch self {
    case .linux(let kernel):
      kernel.offer(
        in: &items, commandLine: commandLine, kernelBlob: Blob.kernel.rawValue,
        initrdBlob: Blob.initrd.rawValue, initrdByteCount: initrdByteCount)
    case .multiboot(let kernel): kernel.offer(in: &items, commandLine: commandLine)
    }
    items.addFile("genroms/\(loaderName)", .bytes(loader))
  }

  /// The option ROM that starts the kernel, as QEMU's package has it.
  public var loaderName: String {
    switch self {
    case .linux: Self.linuxLoader
    case .multiboot: Self.multibootLoader
    }
  }

  public static let linuxLoader = "linuxboot_dma.bin"
  public static let multibootLoader = "multiboot_dma.bin"

  /// How `bootorder` names the loader.
  public var bootPath: String { "/rom@genroms/\(loaderName)" }
}

extension MultibootKernel {
  /// Offers the parts: the information block is what the option ROM knows as the initial RAM disk.
  func offer(in items: inout FwCfgItems, commandLine: String) {
    typealias Key = FwCfgItems.Key
    let information = MultibootInformation(self, commandLine: commandLine)
    let size = UInt32(truncatingIfNeeded: image.byteCount)
    items.setInteger(Key.kernelAddress, image.address)
    items.setInteger(Key.kernelSize, size)
    items.set(Key.kernelData, .blob(id: BootImage.Blob.kernel.rawValue, size: size))
    items.setInteger(Key.kernelEntry, information.entry)
    items.setInteger(Key.initrdAddress, MultibootInformation.address)
    items.setInteger(Key.initrdSize, UInt32(information.bytes.count))
    items.set(Key.initrdData, .bytes(information.bytes))
  }
}
