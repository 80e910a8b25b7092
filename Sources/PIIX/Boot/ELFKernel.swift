// SPDX-License-Identifier: Apache-2.0

/// The parts of an ELF file that its loader needs (System V ABI, chapters 4 and 5).
struct ELFKernel {
  /// A segment that goes into memory.
  struct Segment {
    var address: UInt64
    var virtualAddress: UInt64
    var fileOffset: UInt64
    var fileByteCount: UInt64
    var memoryByteCount: UInt64
  }

  /// e_entry, mostly a virtual address.
  let entry: UInt64
  /// By their physical addresses.
  let segments: [Segment]
  /// Where PVH's entry is (Xen's note PHYS32_ENTRY), for a kernel that has one.
  let pvhEntry: UInt64?

  private static let loadable: UInt64 = 1
  private static let notes: UInt64 = 4
  /// XEN_ELFNOTE_PHYS32_ENTRY.
  private static let phys32Entry: UInt32 = 18
  /// Below are the firmware's data and the loader's.
  private static let lowest: UInt64 = 0x10_0000

  /// Whether a file says that it is ELF.
  static func isELF(_ start: [UInt8]) -> Bool { start.starts(with: [0x7F, 0x45, 0x4C, 0x46]) }

  /// Reads the headers.
  ///
  /// - Parameters:
  ///   - file: the kernel's file.
  ///   - limit: the end of the memory that the segments may use.
  /// - Throws: the field that is wrong, in words.
  init(_ file: BootFile, limit: UInt64) throws(BootProblem) {
    let ident = try file.read(0, 20, "the ELF header")
    let isWide = ident.bytes[4] == 2
    guard ident.bytes[4] == 1 || isWide, ident.bytes[5] == 1, ident.bytes[6] == 1 else {
      throw BootProblem("the ELF header's e_ident is not that of a little-endian x86 file")
    }
    let machine = ident.word(18, 2)
    guard machine == 3 || machine == 62 else {
      throw BootProblem("the ELF header's e_machine is \(machine), not that of x86")
    }
    let header = try file.read(0, isWide ? 64 : 52, "the ELF header's end")
    let kind = header.word(16, 2)
    guard kind == 2 || kind == 3 else {
      throw BootProblem("the ELF header's e_type is \(kind), not that of a program")
    }
    entry = header.word(24, isWide ? 8 : 4)
    let tableOffset = isWide ? header.word(32, 8) : header.word(28, 4)
    let entrySize = Int(header.word(isWide ? 54 : 42, 2))
    let entryCount = Int(header.word(isWide ? 56 : 44, 2))
    guard entrySize >= (isWide ? 56 : 32), entrySize <= 256 else {
      throw BootProblem("the ELF header's e_phentsize is \(entrySize)")
    }
    guard (1...128).contains(entryCount) else {
      throw BootProblem("the ELF header's e_phnum is \(entryCount), not 1 to 128")
    }
    let table = try file.read(tableOffset, entrySize * entryCount, "its program headers' end")
    var segments: [Segment] = []
    var pvhEntry: UInt64?
    for number in 0..<entryCount {
      let base = number * entrySize
      let type = table.word(base, 4)
      let offset = isWide ? table.word(base + 8, 8) : table.word(base + 4, 4)
      let size = isWide ? table.word(base + 32, 8) : table.word(base + 16, 4)
      if type == Self.notes, pvhEntry == nil {
        pvhEntry = try Self.findEntry(
          file, offset, size, alignment: isWide ? table.word(base + 48, 8) : 4)
      }
      guard type == Self.loadable else { continue }
      let segment = Segment(
        address: isWide ? table.word(base + 24, 8) : table.word(base + 12, 4),
        virtualAddress: isWide ? table.word(base + 16, 8) : table.word(base + 8, 4),
        fileOffset: offset, fileByteCount: size,
        memoryByteCount: isWide ? table.word(base + 40, 8) : table.word(base + 20, 4))
      guard segment.memoryByteCount > 0 else { continue }
      try Self.check(segment, number, file, limit)
      segments.append(segment)
    }
    segments.sort { $0.address < $1.address }
    for (one, next) in zip(segments, segments.dropFirst())
    where next.address - one.address < one.memoryByteCount {
      throw BootProblem(
        "the ELF file's segments at \(hex(one.address)) and \(hex(next.address)) overlap")
    }
    guard !segments.isEmpty else { throw BootProblem("the ELF file has no segment to load") }
    self.segments = segments
    self.pvhEntry = pvhEntry
  }

  private static func check(
    _ segment: Segment, _ number: Int, _ file: BootFile, _ limit: UInt64
  ) throws(BootProblem) {
    let name = "the ELF file's program header \(number)"
    guard segment.fileByteCount <= segment.memoryByteCount else {
      throw BootProblem("\(name) has a p_filesz above its p_memsz")
    }
    guard segment.fileOffset <= file.byteCount,
      segment.fileByteCount <= file.byteCount - segment.fileOffset
    else { throw BootProblem("\(name) has a p_offset or p_filesz past the file's end") }
    guard segment.address >= lowest else {
      throw BootProblem("\(name) has a p_paddr of \(hex(segment.address)), below 1 MiB")
    }
    guard segment.address <= limit, segment.memoryByteCount <= limit - segment.address else {
      throw BootProblem(
        "\(name) goes to \(hex(segment.address)) with \(segment.memoryByteCount) bytes, which is "
          + "more memory below 4 GiB than the machine has")
    }
  }

  /// Looks for PVH's entry in a segment of notes.
  private static func findEntry(
    _ file: BootFile, _ offset: UInt64, _ size: UInt64, alignment: UInt64
  ) throws(BootProblem) -> UInt64? {
    guard size <= 65536 else { return nil }
    let notes = try file.read(offset, Int(size), "its notes' end")
    let step = alignment == 8 ? 8 : 4
    func aligned(_ count: Int) -> Int { (count + step - 1) & ~(step - 1) }
    var place = 0
    while place + 12 <= notes.bytes.count {
      let nameSize = Int(notes.word32(place))
      let contentSize = Int(notes.word32(place + 4))
      let name = place + 12
      let content = name + aligned(nameSize)
      guard nameSize <= 256, content + contentSize <= notes.bytes.count else {
        throw BootProblem("a note of the ELF file is longer than its segment")
      }
      if notes.word32(place + 8) == phys32Entry, nameSize >= 4,
        Array(notes.bytes[name..<name + 4]) == Array("Xen\0".utf8),
        contentSize == 4 || contentSize == 8
      {
        return notes.word(content, contentSize)
      }
      place = content + aligned(contentSize)
    }
    return nil
  }

  /// The segments as a loader copies them.
  var image: LoadImage {
    var image = LoadImage(address: UInt32(segments[0].address))
    for segment in segments {
      image.append(
        at: segment.address, .kernel, segment.fileOffset, segment.fileByteCount,
        memoryByteCount: segment.memoryByteCount)
    }
    return image
  }

  /// The physical address of an entry; `nil` when it is in no segment.
  func physical(_ entry: UInt64) -> UInt64? {
    if segments.contains(where: { entry &- $0.address < $0.memoryByteCount }) { return entry }
    return segments.first { entry &- $0.virtualAddress < $0.memoryByteCount }
      .map { $0.address + (entry - $0.virtualAddress) }
  }
}

func hex(_ value: some FixedWidthInteger) -> String { "0x" + String(value, radix: 16) }
