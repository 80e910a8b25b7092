// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem

/// Writes the machine's memory into a state file, piece by piece; pages of zeroes are left out.
struct MemorySaver {
  private let memories: [(id: UInt32, mapping: Mapping)]
  private var index = 0
  private var offset = 0

  static let pageByteCount = 4096

  init(_ memories: [(id: UInt32, mapping: Mapping)]) { self.memories = memories }

  /// Looks at the next `budget` bytes, or what is left; returns whether all is written.
  mutating func step(_ writer: inout StateFileWriter, budget: Int) throws(Refusal) -> Bool {
    var left = budget
    while index < memories.count {
      let (id, mapping) = memories[index]
      while offset < mapping.byteCount {
        guard left > 0 else { return false }
        let window = min(StateFile.mostMemory, mapping.byteCount - offset)
        try save(id, mapping, offset..<offset + window, &writer)
        offset += window
        left -= window
      }
      index += 1
      offset = 0
    }
    return true
  }

  private func save(
    _ id: UInt32, _ mapping: Mapping, _ range: Range<Int>, _ writer: inout StateFileWriter
  ) throws(Refusal) {
    guard !mapping.isZero(at: range.lowerBound, count: range.count) else { return }
    var start: Int?
    for page in stride(from: range.lowerBound, to: range.upperBound, by: Self.pageByteCount) {
      let isZero = mapping.isZero(at: page, count: min(Self.pageByteCount, range.upperBound - page))
      if !isZero, start == nil { start = page }
      if isZero, let first = start {
        try put(id, mapping, first..<page, &writer)
        start = nil
      }
    }
    if let first = start { try put(id, mapping, first..<range.upperBound, &writer) }
  }

  private func put(
    _ id: UInt32, _ mapping: Mapping, _ range: Range<Int>, _ writer: inout StateFileWriter
  ) throws(Refusal) {
    var head = WireWriter()
    head.put(id)
    head.put(UInt32(0))
    head.put(UInt64(range.lowerBound))
    try writer.add(.memory, head.bytes + mapping.bytes(at: range.lowerBound, count: range.count))
  }
}

/// Takes memory out of a state file, in its order; what is not in it is zero.
struct MemoryLoader {
  private let memories: [(id: UInt32, mapping: Mapping)]
  /// Whether memory is written, or only the file looked at.
  private let writes: Bool
  private var index = 0
  private var offset = 0

  init(_ memories: [(id: UInt32, mapping: Mapping)], writes: Bool) {
    self.memories = memories
    self.writes = writes
  }

  /// Takes one section.
  mutating func take(_ content: [UInt8]) throws(Refusal) {
    let malformed = Refusal("the state file is malformed: a part of memory is out of place")
    var reader = WireReader(Array(content.prefix(16)))
    let id: UInt32
    let start: UInt64
    do throws(ProtocolError) {
      id = try reader.get("memory")
      let _: UInt32 = try reader.get("nothing")
      start = try reader.get("offset")
    } catch {
      throw malformed
    }
    guard let place = memories.firstIndex(where: { $0.id == id }), place >= index else {
      throw malformed
    }
    while index < place { finishMemory() }
    let mapping = memories[index].mapping
    let count = content.count - 16
    guard count > 0, count <= StateFile.mostMemory, start <= UInt64(mapping.byteCount),
      Int(start) >= offset, count <= mapping.byteCount - Int(start)
    else { throw malformed }
    clear(upTo: Int(start))
    if writes { mapping.copy(Array(content[16...]), to: Int(start)) }
    offset = Int(start) + count
  }

  /// Clears what is left.
  mutating func finish() { while index < memories.count { finishMemory() } }

  private mutating func finishMemory() {
    clear(upTo: memories[index].mapping.byteCount)
    index += 1
    offset = 0
  }

  /// Pages that are zero already are not touched.
  private mutating func clear(upTo end: Int) {
    defer { offset = end }
    guard writes else { return }
    let mapping = memories[index].mapping
    while offset < end {
      let count = min(64 << 10, end - offset)
      if !mapping.isZero(at: offset, count: count) { mapping.fill(0, at: offset, count: count) }
      offset += count
    }
  }
}
