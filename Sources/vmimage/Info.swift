// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockImage
import LinuxSystem

struct Info: ImageCommand {
  static let configuration = CommandConfiguration(abstract: "Show what an image is.")
  @OptionGroup var common: CommonOptions
  @Option(name: [.short, .long], help: "raw or qcow2; otherwise the first bytes tell.")
  var format: Format?
  @Flag(help: "Write JSON.") var json = false
  @Flag(help: "Show the files behind it, too.") var backingChain = false
  @Argument(help: "The image.") var image: String

  var operands: [Operand] { [Operand(path: image, access: .read)] }

  func work(_ worker: Worker) throws(ToolError) -> Int32 {
    var facts: [ImageFacts] = []
    var next: HeldFile? = worker.file(0)
    var said = format
    while let file = next {
      guard facts.count <= 64 else {
        throw ToolError("the chain of backing files has more than 64 images")
      }
      let one = try ImageFacts(file, said, worker)
      facts.append(one)
      next = nil
      if backingChain, let header = one.header, let name = header.backingFileName {
        said = try worker.backingFormat(header, file)
        next = try worker.request(.backing, name, of: file)
      }
    }
    if json {
      let values = facts.map(\.json)
      Worker.print((backingChain ? JSON.list(values) : values[0]).text() + "\n")
    } else {
      Worker.print(facts.map(\.text).joined(separator: "\n"))
    }
    return 0
  }
}

/// What is shown about an image.
struct ImageFacts {
  var path: String
  var format: Format
  var virtualSize: UInt64
  var space: UInt64
  var header: QCOW2Header?
  var encryption: LUKSHeader?
  var snapshots: [QCOW2Snapshot] = []

  init(_ file: HeldFile, _ said: Format?, _ worker: Worker) throws(ToolError) {
    path = file.path
    format = try worker.format(file, said)
    do throws(SystemError) { space = try file.descriptor.usedSpace() } catch {
      throw ToolError("\(file.path): \(error)")
    }
    var storage = try worker.storage(file, isWritable: false)
    virtualSize = storage.byteCount
    guard format == .qcow2 else { return }
    let header = try worker.naming(file) { () throws(BlockImageError) in
      try QCOW2Header.read(from: &storage)
    }
    self.header = header
    virtualSize = header.virtualSize
    if header.isEncrypted {
      encryption = try worker.naming(file) { () throws(BlockImageError) in
        try header.encryptionHeader(on: &storage)
      }
    }
    snapshots = try worker.naming(file) { () throws(BlockImageError) in
      try header.snapshots(on: &storage)
    }
  }

  private var fullBackingName: String? {
    header?.backingFileName.map { Front.path(of: $0, beside: path) }
  }

  var json: JSON {
    var members: [(String, JSON)] = []
    if !snapshots.isEmpty { members.append(("snapshots", .list(snapshots.map(\.json)))) }
    if let format = header?.backingFormat {
      members.append(("backing-filename-format", .string(format)))
    }
    members.append(("virtual-size", .number(virtualSize)))
    members.append(("filename", .string(path)))
    if let header { members.append(("cluster-size", .number(header.clusterSize))) }
    members.append(("format", .string(format.rawValue)))
    members.append(("actual-size", .number(space)))
    if encryption != nil { members.append(("encrypted", .bool(true))) }
    if let header {
      members.append(
        (
          "format-specific",
          .object([("type", .string("qcow2")), ("data", .object(specific(header)))])
        ))
    }
    if let name = header?.backingFileName, let full = fullBackingName {
      members.append(("full-backing-filename", .string(full)))
      members.append(("backing-filename", .string(name)))
    }
    members.append(("dirty-flag", .bool(header?.isDirty ?? false)))
    return .object(members)
  }

  private func specific(_ header: QCOW2Header) -> [(String, JSON)] {
    var data: [(String, JSON)] = [("compat", .string(header.version == 2 ? "0.10" : "1.1"))]
    data.append(
      ("compression-type", .string(header.compression == .zstd ? "zstd" : "zlib")))
    if header.version == 3 {
      data.append(("lazy-refcounts", .bool(header.compatibleFeatures & 1 != 0)))
    }
    data.append(("refcount-bits", .number(1 << UInt64(header.refcountOrder))))
    if let encryption { data.append(("encrypt", .object(encryption.facts))) }
    if header.version == 3 {
      if let name = header.dataFileName { data.append(("data-file", .string(name))) }
      if header.hasDataFile { data.append(("data-file-raw", .bool(header.isDataFileRaw))) }
      data.append(("corrupt", .bool(header.isCorrupt)))
      data.append(("extended-l2", .bool(header.hasExtendedL2)))
    }
    return data
  }

  var text: String {
    var lines = ["image: \(path)", "file format: \(format.rawValue)"]
    lines.append("virtual size: \(Words.size(virtualSize)) (\(virtualSize) bytes)")
    lines.append("disk size: \(Words.size(space))")
    guard let header else { return lines.joined(separator: "\n") + "\n" }
    if encryption != nil { lines.append("encrypted: yes") }
    lines.append("cluster_size: \(header.clusterSize)")
    if header.isDirty { lines.append("cleanly shut down: no") }
    if let name = header.backingFileName, let full = fullBackingName {
      let actual = name == full ? "" : " (actual path: \(Words.visible(full)))"
      lines.append("backing file: \(Words.visible(name))\(actual)")
      if let format = header.backingFormat {
        lines.append("backing file format: \(Words.visible(format))")
      }
    }
    if !snapshots.isEmpty {
      lines.append("Snapshot list:")
      lines.append(QCOW2Snapshot.heading)
      lines += snapshots.map(\.line)
    }
    lines.append("Format specific information:")
    for (name, value) in specific(header) {
      let words = name.split(separator: "-").joined(separator: " ")
      if case .string(let text) = value {
        lines.append("    \(words): \(Words.visible(text))")
      } else if case .object(let members) = value {
        lines.append("    \(words):")
        for case (let name, .string(let text)) in members {
          let words = name.split(separator: "-").joined(separator: " ")
          lines.append("        \(words): \(text)")
        }
      } else {
        lines.append("    \(words): \(value.text())")
      }
    }
    return lines.joined(separator: "\n") + "\n"
  }
}

extension LUKSHeader {
  /// What is shown about it, in qemu-img's names.
  var facts: [(String, JSON)] {
    [
      ("ivgen-alg", .string(hasNarrowSectors ? "plain" : "plain64")),
      ("hash-alg", .string(hash.rawValue)),
      ("cipher-alg", .string(keyByteCount == 64 ? "aes-256" : "aes-128")),
      ("cipher-mode", .string("xts")), ("format", .string("luks")),
      ("master-key-iters", .number(UInt64(digestIterations))),
    ]
  }
}

extension QCOW2Snapshot {
  static let heading =
    "ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT"

  var json: JSON {
    var members: [(String, JSON)] = []
    if extra.count >= 24 {
      let count = extra[16..<24].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      if count != .max { members.append(("icount", .number(count))) }
    }
    members += [
      ("vm-clock-nsec", .number(guestNanoseconds % 1_000_000_000)), ("name", .string(name)),
      ("date-sec", .number(UInt64(seconds))), ("date-nsec", .number(UInt64(nanoseconds))),
      ("vm-clock-sec", .number(guestNanoseconds / 1_000_000_000)), ("id", .string(id)),
      ("vm-state-size", .number(stateSize)),
    ]
    return .object(members)
  }

  /// A line of the list, with the time in UTC.
  var line: String {
    let clock = guestNanoseconds / 1_000_000
    let time =
      "\(Words.number(clock / 3_600_000, 2)):\(Words.number(clock / 60_000 % 60, 2)):"
      + "\(Words.number(clock / 1000 % 60, 2)).\(Words.number(clock % 1000, 3))"
    let size = Words.padded(Words.size(stateSize), 9, right: true)
    return Words.padded(Words.visible(id), 10) + Words.padded(Words.visible(name), 14) + " "
      + size + " " + Words.padded(Words.date(UInt64(seconds)), 20, right: true) + " "
      + Words.padded(time, 12, right: true) + "          0"
  }
}
