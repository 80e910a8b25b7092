// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem

/// The layout of a file with a machine's state (protocols/state-file.md).
///
/// A header of 16 bytes, then sections: kind (32 bits), number (32), byte count (64), checksum of
/// these and the content (64), content. The last is ``Section/end``, and nothing follows it.
enum StateFile {
  static let magic: [UInt8] = Array("BHVMSTAT".utf8)
  static let version: UInt32 = 1
  static let headerByteCount = 16
  static let sectionByteCount = 24

  enum Section: UInt32 {
    case machine = 1
    case core = 2
    case chips = 3
    case vcpu = 4
    case device = 5
    case memory = 6
    case end = 7
  }

  /// The most memory in one section.
  static let mostMemory = 1 << 20
  /// The longest content.
  static let mostContent = mostMemory + 16

  static var header: [UInt8] {
    var writer = WireWriter()
    writer.put(version)
    writer.put(UInt32(0))
    return magic + writer.bytes
  }

  static func sectionHeader(_ kind: UInt32, _ number: UInt32, _ content: [UInt8]) -> [UInt8] {
    var writer = WireWriter()
    writer.put(kind)
    writer.put(number)
    writer.put(UInt64(content.count))
    let sum = Checksum.of(content, seed: Checksum.of(writer.bytes))
    writer.put(sum)
    return writer.bytes
  }
}

/// Writes a state file from front to back.
struct StateFileWriter {
  private let file: Descriptor
  private var number: UInt32 = 0

  init(_ file: Descriptor) throws(Refusal) {
    self.file = file
    try put(StateFile.header)
  }

  mutating func add(_ kind: StateFile.Section, _ content: [UInt8]) throws(Refusal) {
    precondition(content.count <= StateFile.mostContent, "a section that nobody would read")
    try put(StateFile.sectionHeader(kind.rawValue, number, content) + content)
    number += 1
  }

  private func put(_ bytes: [UInt8]) throws(Refusal) {
    do throws(SystemError) { try file.writeAll(bytes) } catch {
      throw Refusal("the state file cannot be written: \(SystemError.text(error.number))")
    }
  }
}

/// Reads a state file section by section; nothing in it is believed.
struct StateFileReader {
  private let file: Descriptor
  private var position = UInt64(StateFile.headerByteCount)
  private var number: UInt32 = 0
  private let byteCount: UInt64

  /// How far it has come, in bytes.
  var done: UInt64 { position }

  init(_ file: Descriptor) throws(Refusal) {
    self.file = file
    do throws(SystemError) { byteCount = try file.size() } catch {
      throw Refusal("the state file cannot be read: \(SystemError.text(error.number))")
    }
    let header = try Self.bytes(file, StateFile.headerByteCount, at: 0)
    guard header.count == StateFile.headerByteCount,
      Array(header.prefix(8)) == StateFile.magic
    else { throw Refusal("it is no file with a machine's state") }
    guard header == StateFile.header else {
      throw Refusal("the state file has another version than \(StateFile.version)")
    }
  }

  private static func bytes(_ file: Descriptor, _ count: Int, at offset: UInt64) throws(Refusal)
    -> [UInt8]
  {
    do throws(SystemError) { return try file.read(count, at: offset) } catch {
      throw Refusal("the state file cannot be read: \(SystemError.text(error.number))")
    }
  }

  /// The next section; `nil` after the end.
  mutating func next() throws(Refusal) -> (kind: StateFile.Section, content: [UInt8])? {
    let place = "section \(number) at byte \(position)"
    let header = try Self.bytes(file, StateFile.sectionByteCount, at: position)
    guard header.count == StateFile.sectionByteCount else {
      throw Refusal("the state file is cut short: \(place) is missing")
    }
    var fields = WireReader(header)
    let kind: UInt32
    let count: UInt64
    do throws(ProtocolError) {
      kind = try fields.get("kind")
      let index: UInt32 = try fields.get("number")
      count = try fields.get("byte count")
      guard index == number, count <= UInt64(StateFile.mostContent) else {
        throw ProtocolError("")
      }
    } catch {
      throw Refusal("the state file is damaged: \(place) has a bad header")
    }
    guard count <= byteCount, position + UInt64(StateFile.sectionByteCount) <= byteCount - count
    else { throw Refusal("the state file is cut short: \(place) has \(count) bytes") }
    let content = try Self.bytes(
      file, Int(count), at: position + UInt64(StateFile.sectionByteCount))
    guard content.count == Int(count) else {
      throw Refusal("the state file is cut short: \(place) has \(count) bytes")
    }
    guard StateFile.sectionHeader(kind, number, content) == header else {
      throw Refusal("the state file is damaged: \(place) does not have its checksum")
    }
    guard let section = StateFile.Section(rawValue: kind) else {
      throw Refusal("the state file is of a newer program: \(place) is of kind \(kind)")
    }
    position += UInt64(StateFile.sectionByteCount) + count
    number += 1
    guard section != .end else {
      guard content.isEmpty, position == byteCount else {
        throw Refusal("the state file has something behind its end")
      }
      return nil
    }
    return (section, content)
  }
}
