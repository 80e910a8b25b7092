// SPDX-License-Identifier: Apache-2.0

import Foundation

/// The direction of imports, as a table and a checker that works on texts alone.
enum Rules {
  /// Libraries of ours that do no I/O at all.
  static let pure: Set<String> = [
    "DeviceModel", "PCI", "Serial", "PS2", "PIIX", "IDE", "VGA", "BlockImage",
    "InterruptControllers",
  ]

  /// What each module may import at most, besides Synchronization.
  static let allowed: [String: Set<String>] = [
    "LinuxSystem": ["CLinux", "CCapNG", "CSeccomp", "Glibc"],
    "DeviceModel": [], "PCI": ["DeviceModel"], "Serial": ["DeviceModel"], "PS2": ["DeviceModel"],
    "PIIX": ["DeviceModel"], "IDE": ["DeviceModel"], "VGA": ["DeviceModel"], "BlockImage": [],
    "InterruptControllers": ["DeviceModel"], "Picture": ["CZlib"],
    "Compression": ["CZlib", "CZstd"],
    "DiskEncryption": ["BlockImage", "CCrypto"],
    "ImageFiles": ["BlockImage", "Compression", "DiskEncryption", "LinuxSystem"],
    "DeviceProtocol": ["DeviceModel", "LinuxSystem"], "Sandbox": ["LinuxSystem", "Glibc"],
    "DeviceHost": ["DeviceModel", "DeviceProtocol", "LinuxSystem", "Sandbox"],
    "Processor": [],
    "SoftCPU": ["LinuxSystem", "Processor", "CHostCPU", "Glibc"],
    "KVM": ["LinuxSystem", "Processor"], "Monitor": ["DeviceProtocol", "LinuxSystem"],
    "MachineCore": [
      "DeviceModel", "DeviceProtocol", "InterruptControllers", "LinuxSystem", "PCI", "KVM",
      "Monitor", "Processor", "SoftCPU",
    ],
    "MachineFile": ["TOMLKit", "Glibc"],
    "Supervisor": ["LinuxSystem", "DeviceProtocol", "MachineFile", "Sandbox", "KVM", "Logging"],
    "Operator": ["DeviceProtocol", "FoundationEssentials", "LinuxSystem", "Monitor", "Picture"],
    "vmmonitor": ["DeviceHost", "DeviceProtocol", "LinuxSystem", "Monitor", "Operator", "Sandbox"],
    "vmlaunch": ["Supervisor", "MachineFile", "LinuxSystem", "ArgumentParser"],
    "vmctl": [
      "Monitor", "Picture", "PS2", "DeviceProtocol", "LinuxSystem", "Sandbox", "ArgumentParser",
    ],
    "vmimage": [
      "BlockImage", "ImageFiles", "Compression", "LinuxSystem", "Sandbox", "ArgumentParser",
    ],
    "vmcore": ["MachineCore", "DeviceHost", "Sandbox", "DeviceProtocol", "LinuxSystem"],
    "vmdev-piix": device(["PIIX", "PS2"]), "vmdev-serial": device(["Serial"]),
    "vmdev-ide": device(["IDE", "BlockImage", "ImageFiles"]), "vmdev-vga": device(["VGA"]),
  ]

  private static func device(_ models: Set<String>) -> Set<String> {
    models.union(["DeviceHost", "DeviceModel", "DeviceProtocol", "LinuxSystem", "Sandbox"])
  }

  /// Where unsafe code may be; a name that ends in `/` is a folder.
  static let unsafePlaces = [
    "LinuxSystem/", "SoftCPU/Memory/", "SoftCPU/Host/",
    "SoftCPU/Translator/", "Picture/PNG.swift",
    "Compression/RawInflater.swift", "Compression/ClusterCompressor.swift",
    "Compression/ZstdFrames.swift", "DiskEncryption/LibCrypto.swift",
    "MachineFile/HostFileInspector.swift",
  ]

  /// Modules of the toolchain that belong to the language.
  static let language: Set<String> = ["Swift", "Synchronization"]

  /// The modules that a source file imports.
  static func imports(_ text: String) -> Set<String> {
    var found: Set<String> = []
    for line in code(text) {
      let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
      guard let place = words.firstIndex(of: "import"),
        words[..<place].allSatisfy({
          $0.hasPrefix("@")
            || ["public", "internal", "private", "fileprivate", "package"].contains($0)
        })
      else { continue }
      var rest = words[(place + 1)...]
      let kinds = ["struct", "class", "enum", "func", "protocol", "typealias", "let", "var"]
      if let kind = rest.first, kinds.contains(String(kind)) { rest = rest.dropFirst() }
      if let name = rest.first?.split(separator: ".").first { found.insert(String(name)) }
    }
    return found
  }

  /// The lines of a text without comments and texts in quotes.
  static func code(_ text: String) -> [String] {
    text.split(separator: "\n").map { line in
      var result = ""
      var isQuoted = false
      var before: Character = " "
      for character in line {
        if character == "\"", before != "\\" { isQuoted.toggle() }
        if !isQuoted, character == "/", before == "/" {
          result.removeLast()
          break
        }
        if !isQuoted { result.append(character) }
        before = character
      }
      return result
    }
  }

  /// Whether a source file has unsafe code, or declares some as safe.
  static func isUnsafe(_ text: String) -> Bool {
    code(text).contains { line in
      line.split { !$0.isLetter && !$0.isNumber && $0 != "_" && $0 != "@" }
        .contains { $0 == "unsafe" || $0 == "@unsafe" || $0 == "@safe" }
    }
  }

  /// What is wrong with one source file; `path` is its place under Sources.
  static func violations(_ path: String, _ text: String) -> [String] {
    var found: [String] = []
    if path.hasSuffix(".modulemap") || path.hasSuffix(".json") { return [] }
    if !text.hasPrefix("// SPDX-License-Identifier: Apache-2.0\n") {
      found.append("\(path): the first line is not the licence's")
    }
    guard path.hasSuffix(".swift") else { return found }
    let module = String(path.prefix { $0 != "/" })
    guard let allowed = allowed[module] else { return found + ["\(module): not in the table"] }
    for name in imports(text).subtracting(allowed).subtracting(language).sorted() {
      found.append("\(path): \(module) may not import \(name)")
    }
    if isUnsafe(text),
      !unsafePlaces.contains(where: { $0.hasSuffix("/") ? path.hasPrefix($0) : path == $0 })
    {
      found.append("\(path): unsafe code")
    }
    return found
  }

  /// The dependencies of each target that Package.swift declares.
  static func dependencies(_ manifest: String) -> [String: Set<String>] {
    let text = manifest.split(separator: "\n").filter {
      !$0.drop { $0 == " " }.hasPrefix("//")
    }.joined(separator: "\n")
    guard let start = text.range(of: "targets: [\n    .")?.lowerBound else { return [:] }
    var result: [String: Set<String>] = [:]
    let heads = text[start...].matches(
      of:
        /(?:library|tool|tests|\.target|\.executableTarget|\.systemLibrary)\(\s*(?:name: )?"([^"]+)"/
    )
    for (index, head) in heads.enumerated() {
      let end = index + 1 < heads.count ? heads[index + 1].range.lowerBound : text.endIndex
      var body = text[head.range.upperBound..<end]
      if let extra = body.range(of: "exclude:") { body = body[..<extra.lowerBound] }
      if let extra = body.range(of: "path:") { body = body[..<extra.lowerBound] }
      if let extra = body.range(of: "pkgConfig:") { body = body[..<extra.lowerBound] }
      // A product is named by its package, which it shares the name of its module with.
      body = Substring(
        body.replacing(/\.product\(name: "([^"]+)", package: "[^"]+"\)/) { "\"\($0.1)\"" })
      var names = Set(body.matches(of: /"([^"]+)"/).map { String($0.1) })
      if body.contains("argumentParser") { names.insert("ArgumentParser") }
      result[String(head.1), default: []].formUnion(names)
    }
    return result
  }

  /// Where a target's declared dependencies and its imports differ.
  ///
  /// A target without any import is a place kept free, and may declare what it will use.
  static func differences(
    _ module: String, imports: Set<String>, dependencies: Set<String>, own: Set<String>
  ) -> [String] {
    let imported = imports.subtracting(language).subtracting([
      "Glibc", "Foundation", "FoundationEssentials",
    ])
    guard !imported.isEmpty else { return [] }
    let missing = imported.subtracting(dependencies).sorted().map {
      "\(module) imports \($0) without declaring it"
    }
    return missing
      + dependencies.subtracting(imported).intersection(own).sorted().map {
        "\(module) declares \($0) without importing it"
      }
  }
}
