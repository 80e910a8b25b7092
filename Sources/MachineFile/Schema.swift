// SPDX-License-Identifier: Apache-2.0

/// The keys that a machine file may hold; protocols/machine-file.schema.toml says the same.
enum Schema {
  struct Section: Sendable {
    /// The path: empty for the top level, `drive[]` for each element, `device.*` for each name.
    var path: String
    var keys: [String]
  }

  static let sections: [Section] = [
    Section(
      path: "",
      keys: [
        "name", "machine", "boot", "drive", "serial", "display", "monitor", "debug", "isolation",
        "log", "device",
      ]),
    Section(
      path: "machine",
      keys: [
        "accelerator", "cpus", "memory", "cpu-model", "translator", "firmware", "vga-bios", "uuid",
        "on-panic",
      ]),
    Section(path: "boot", keys: ["order", "menu", "kernel", "initrd", "cmdline"]),
    Section(
      path: "drive[]",
      keys: [
        "slot", "image", "format", "media", "readonly", "cache", "backing", "data-file", "key",
        "rerror",
        "werror",
      ]),
    Section(path: "serial[]", keys: ["backend"]),
    Section(path: "display", keys: ["vnc", "web", "password-file"]),
    Section(
      path: "monitor",
      keys: ["qmp", "hmp", "gdb", "metrics", "output", "media", "snapshots", "control"]),
    Section(path: "debug", keys: ["console", "exit-port"]),
    Section(path: "isolation", keys: ["level"]),
    Section(path: "log", keys: ["level"]),
    Section(path: "device", keys: Machine.DeviceName.allCases.map(\.rawValue)),
    Section(path: "device.*", keys: ["dma", "on-fault", "socket", "deadline"]),
  ]

  /// Returns the keys of the section that a table's path belongs to.
  static func keys(of path: String) -> [String] {
    let pattern = pattern(of: path)
    return sections.first { $0.path == pattern }?.keys ?? []
  }

  /// Turns a path into the form of the schema: `drive[1].slot` into `drive[].slot`.
  static func pattern(of path: String) -> String {
    var result = ""
    var isInIndex = false
    for character in path {
      if character == "]" { isInIndex = false }
      if !isInIndex { result.append(character) }
      if character == "[" { isInIndex = true }
    }
    let parts = result.split(separator: ".")
    guard parts.first == "device", parts.count > 1 else { return result }
    return (["device", "*"] + parts.dropFirst(2)).joined(separator: ".")
  }

  /// Returns the known key that `key` most likely means.
  static func suggestion(for key: String, in known: [String]) -> String? {
    let plain = normalized(key)
    let scored = known.map { (key: $0, distance: distance(plain, normalized($0))) }
    guard let best = scored.min(by: { $0.distance < $1.distance }) else { return nil }
    return best.distance <= max(1, best.key.utf8.count / 3) ? best.key : nil
  }

  private static func normalized(_ key: String) -> [UInt8] {
    key.lowercased().utf8.prefix(32).map { $0 == UInt8(ascii: "_") ? UInt8(ascii: "-") : $0 }
  }

  /// The edit distance with neighbouring transpositions counted as one.
  private static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
    var before: [Int] = []
    var previous = Array(0...right.count)
    for i in 0..<left.count {
      var current = [i + 1]
      for j in 0..<right.count {
        var best = min(
          previous[j + 1] + 1, current[j] + 1, previous[j] + (left[i] == right[j] ? 0 : 1))
        if i > 0, j > 0, left[i] == right[j - 1], left[i - 1] == right[j] {
          best = min(best, before[j - 1] + 1)
        }
        current.append(best)
      }
      before = previous
      previous = current
    }
    return previous.last ?? 0
  }
}
