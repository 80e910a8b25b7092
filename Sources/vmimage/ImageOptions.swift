// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockImage

/// How the space of a new image is reserved.
enum Preallocation: String {
  case off
  case metadata
  case falloc
  case full
}

/// The options of a new image, as `-o` gives them.
struct ImageOptions: ExpressibleByArgument {
  private(set) var values: [String: String] = [:]

  static let names = [
    "cluster_size", "refcount_bits", "compat", "lazy_refcounts", "extended_l2",
    "compression_type", "backing_file", "backing_fmt", "data_file", "data_file_raw",
    "preallocation",
  ]

  init() {}

  init?(argument: String) {
    for part in argument.split(separator: ",") {
      guard let sign = part.firstIndex(of: "=") else { return nil }
      let name = String(part[..<sign])
      guard Self.names.contains(name) else { return nil }
      values[name] = String(part[part.index(after: sign)...])
    }
  }

  mutating func set(_ name: String, _ value: String) { values[name] = value }

  /// Takes the values of another list on top of these.
  mutating func merge(_ others: [ImageOptions]) {
    for other in others { values.merge(other.values) { $1 } }
  }

  var dataFile: String? { values["data_file"] }
  var preallocation: Preallocation? { Preallocation(rawValue: values["preallocation"] ?? "off") }

  private func flag(_ name: String) throws(ToolError) -> Bool {
    switch values[name] {
    case nil, "off", "false", "no": return false
    case "on", "true", "yes": return true
    case let other?: throw ToolError("\(name) is \"\(other)\", but must be on or off")
    }
  }

  private func power(_ name: String, _ usual: UInt64) throws(ToolError) -> UInt32 {
    guard let text = values[name] else { return UInt32(usual.trailingZeroBitCount) }
    guard let size = ByteSize(argument: text)?.bytes, size.nonzeroBitCount == 1 else {
      throw ToolError("\(name) is \"\(text)\", but must be a power of two")
    }
    return UInt32(size.trailingZeroBitCount)
  }

  /// What a new qcow2 image is like.
  func creation(size: UInt64) throws(ToolError) -> QCOW2Creation {
    var creation = QCOW2Creation(virtualSize: size)
    switch values["compat"] {
    case nil, "1.1", "v3": break
    case "0.10", "v2": creation.version = 2
    case let other?: throw ToolError("compat is \"\(other)\", but must be 0.10 or 1.1")
    }
    creation.clusterBits = try power("cluster_size", 65536)
    creation.refcountOrder = try power("refcount_bits", 16)
    creation.hasLazyRefcounts = try flag("lazy_refcounts")
    creation.hasExtendedL2 = try flag("extended_l2")
    switch values["compression_type"] {
    case nil, "zlib": break
    case "zstd": creation.compression = .zstd
    case let other?: throw ToolError("compression_type is \"\(other)\", but must be zlib or zstd")
    }
    creation.backingFileName = values["backing_file"]
    creation.backingFormat = values["backing_fmt"]
    creation.dataFileName = dataFile
    creation.isDataFileRaw = try flag("data_file_raw")
    guard preallocation != nil else {
      throw ToolError("preallocation must be off, metadata, falloc or full")
    }
    do throws(BlockImageError) { try creation.check() } catch { throw ToolError("\(error)") }
    return creation
  }
}
