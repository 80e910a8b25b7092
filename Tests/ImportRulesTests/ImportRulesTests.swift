// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@Suite struct ImportRulesTests {
  static let root = URL(filePath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent()

  /// Every source file with its place under a folder.
  static func sources(_ folder: String) throws -> [(path: String, text: String)] {
    let top = root.appending(path: folder)
    return try FileManager.default.subpathsOfDirectory(atPath: top.path()).sorted()
      .filter { path in [".swift", ".c", ".h", ".asm", ".inc"].contains { path.hasSuffix($0) } }
      .map { ($0, try String(contentsOf: top.appending(path: $0), encoding: .utf8)) }
  }

  @Test func `Every source keeps the rules`() throws {
    let sources = try Self.sources("Sources")
    #expect(sources.count > 100)
    #expect(sources.flatMap { Rules.violations($0.path, $0.text) } == [])
  }

  @Test func `Every test begins with the licence's line`() throws {
    for (path, text) in try Self.sources("Tests") {
      #expect(text.contains(/^(\/\/|;) SPDX-License-Identifier: Apache-2\.0\n/), "\(path)")
    }
  }

  @Test func `Every target declares what it imports, and nothing more`() throws {
    let manifest = try String(
      contentsOf: Self.root.appending(path: "Package.swift"), encoding: .utf8)
    let declared = Rules.dependencies(manifest)
    var imports: [String: Set<String>] = [:]
    for (path, text) in try Self.sources("Sources") {
      imports[String(path.prefix { $0 != "/" }), default: []].formUnion(Rules.imports(text))
    }
    let own = Set(Rules.allowed.keys)
    #expect(Set(declared.keys).isSuperset(of: own.filter { imports[$0] != nil }))
    for (module, imported) in imports where own.contains(module) {
      #expect(
        Rules.differences(
          module, imports: imported, dependencies: declared[module] ?? [], own: own) == [])
    }
  }

  @Test func `Every place for unsafe code has some`() throws {
    let sources = try Self.sources("Sources")
    for place in Rules.unsafePlaces {
      let texts = sources.filter {
        $0.path == place || place.hasSuffix("/") && $0.path.hasPrefix(place)
      }
      #expect(texts.contains { Rules.isUnsafe($0.text) }, "\(place)")
    }
  }

  @Test func `The table allows only what is imported`() throws {
    var imports: [String: Set<String>] = [:]
    for (path, text) in try Self.sources("Sources") {
      imports[String(path.prefix { $0 != "/" }), default: []].formUnion(Rules.imports(text))
    }
    for (module, allowed) in Rules.allowed {
      #expect(allowed.subtracting(imports[module] ?? []) == [], "\(module)")
    }
  }

  @Test func `The table points downwards only`() {
    // A module whose imports are all settled is settled; in a circle none ever is.
    var settled: Set<String> = []
    let own = Set(Rules.allowed.keys)
    while true {
      let next = Rules.allowed.filter { name, imports in
        !settled.contains(name) && imports.intersection(own).isSubset(of: settled)
      }
      guard !next.isEmpty else { break }
      settled.formUnion(next.keys)
    }
    #expect(settled == own)
    for module in Rules.pure {
      #expect(Rules.allowed[module]?.isSubset(of: Rules.pure) == true, "\(module)")
    }
  }

  @Test func `Nothing that a device or the core links may use Foundation`() {
    func closure(_ module: String) -> Set<String> {
      (Rules.allowed[module] ?? []).reduce(into: [module]) { $0.formUnion(closure($1)) }
    }
    let sealed = Rules.allowed.keys.filter { $0 == "vmcore" || $0.hasPrefix("vmdev-") }
    #expect(sealed.count == 5)
    for module in sealed { #expect(!closure(module).contains("Foundation"), "\(module)") }
  }

  static let head = "// SPDX-License-Identifier: Apache-2.0\n\n"

  @Test(
    arguments: [
      ("IDE/A.swift", "internal import Glibc"), ("IDE/A.swift", "import Foundation"),
      ("PCI/A.swift", "public import LinuxSystem"), ("Sandbox/A.swift", "import Foundation"),
      ("PS2/A.swift", "@preconcurrency import Glibc"), ("KVM/A.swift", "import CLinux"),
      ("VGA/A.swift", "private import func Glibc.time"), ("Novel/A.swift", "let a = 1"),
      ("DeviceModel/A.swift", "  import LinuxSystem"), ("KVM/A.swift", "let a = unsafe b"),
      ("MachineCore/A.swift", "@safe struct A {}"), ("vmcore/A.swift", "import KVM"),
      ("MachineCore/GuestMemory.swift", "let a = unsafe b"),
      ("DeviceProtocol/CoreLane.swift", "let a = unsafe b"),
      ("DeviceProtocol/DeviceLane.swift", "let a = unsafe b"),
      ("Supervisor/A.swift", "import Foundation"), ("vmctl/A.swift", "import Foundation"),
      ("MachineFile/A.swift", "import Foundation"), ("vmlaunch/A.swift", "import Glibc"),
    ])
  func `A source against the rules is found`(path: String, line: String) {
    #expect(Rules.violations(path, Self.head + line + "\n").count == 1)
  }

  @Test(
    arguments: [
      ("IDE/A.swift", "public import DeviceModel"), ("KVM/A.swift", "// unsafe import Glibc"),
      ("KVM/A.swift", "let a = \"unsafe\""), ("LinuxSystem/A.swift", "let a = unsafe b"),
      ("MachineCore/A.swift", "internal import Synchronization"),
    ])
  func `A source within the rules is not`(path: String, line: String) {
    #expect(Rules.violations(path, Self.head + line + "\n") == [])
  }

  @Test func `A source without the licence is found`() {
    #expect(Rules.violations("IDE/A.swift", "let a = 1\n").count == 1)
    #expect(Rules.violations("CLinux/a.c", "int a;\n").count == 1)
  }

  @Test func `A manifest that differs from the imports is found`() {
    let manifest = """
      targets: [
          .target(name: "CLinux"),
          library("A", ["B", .product(name: "TOMLKit", package: "TOMLKit")]),
          tool("D", ["C", argumentParser]),
      """
    let found = Rules.dependencies(manifest)
    #expect(found == ["CLinux": [], "A": ["B", "TOMLKit"], "D": ["C", "ArgumentParser"]])
    func differences(_ imports: Set<String>) -> Int {
      Rules.differences("A", imports: imports, dependencies: ["B", "C"], own: ["A", "B", "C"]).count
    }
    #expect(differences(["B", "C", "Glibc"]) == 0)
    #expect(differences(["B"]) == 1)
    #expect(differences(["B", "C", "D"]) == 1)
  }
}
