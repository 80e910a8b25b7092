// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// What a program left behind.
struct Outcome {
  var code: Int32
  var output: String
  var errors: String
}

/// A folder for one test, and the programs that work in it.
final class Scratch {
  let path: String

  init() throws {
    path = FileManager.default.temporaryDirectory.path + "/vmimage-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// The program under test, beside the test bundle.
  static let tool: String = {
    let bundle =
      Bundle.allBundles.map(\.bundlePath).first { $0.hasSuffix(".xctest") }
      ?? CommandLine.arguments[0]
    return URL(fileURLWithPath: bundle).deletingLastPathComponent().path + "/vmimage"
  }()

  func start(_ program: String, _ arguments: [String]) throws -> (Process, Pipe, Pipe) {
    let process = Process()
    process.executableURL = URL(
      fileURLWithPath: program.hasPrefix("/") ? program : "/usr/bin/\(program)")
    process.arguments = arguments
    process.currentDirectoryURL = URL(fileURLWithPath: path)
    let output = Pipe()
    let errors = Pipe()
    process.standardOutput = output
    process.standardError = errors
    process.standardInput = FileHandle.nullDevice
    try process.run()
    return (process, output, errors)
  }

  @discardableResult
  func run(_ program: String, _ arguments: [String]) throws -> Outcome {
    // Bounded: what hangs is killed.
    let (process, output, errors) = try start(
      "timeout", ["-k", "5", "120", program] + arguments)
    let text = output.fileHandleForReading.readDataToEndOfFile()
    let words = errors.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return Outcome(
      code: process.terminationStatus, output: String(decoding: text, as: UTF8.self),
      errors: String(decoding: words, as: UTF8.self))
  }

  /// Runs the tool and expects an exit code.
  @discardableResult
  func vmimage(
    _ arguments: [String], code: Int32 = 0, _ location: SourceLocation = #_sourceLocation
  ) throws -> String {
    let outcome = try run(Self.tool, arguments)
    #expect(
      outcome.code == code, "vmimage \(arguments): \(outcome.errors)\(outcome.output.suffix(500))",
      sourceLocation: location)
    return outcome.output
  }

  /// Runs one of QEMU's programs and expects success.
  @discardableResult
  func qemu(
    _ program: String, _ arguments: [String], _ location: SourceLocation = #_sourceLocation
  ) throws -> String {
    let outcome = try run(program, arguments)
    #expect(
      outcome.code == 0, "\(program) \(arguments): \(outcome.errors)\(outcome.output)",
      sourceLocation: location)
    return outcome.output
  }

  func io(_ image: String, _ commands: [String], _ location: SourceLocation = #_sourceLocation)
    throws
  {
    let format = image.hasSuffix(".raw") ? "raw" : "qcow2"
    try qemu("qemu-io", ["-f", format] + commands.flatMap { ["-c", $0] } + [image], location)
  }

  /// Expects that qemu-img finds nothing wrong, and that two disks are the same.
  func expectSound(
    _ image: String, like other: String? = nil, _ location: SourceLocation = #_sourceLocation
  ) throws {
    try qemu("qemu-img", ["check", image], location)
    if let other { try qemu("qemu-img", ["compare", image, other], location) }
  }

  func bytes(_ file: String) throws -> Data {
    try Data(contentsOf: URL(fileURLWithPath: "\(path)/\(file)"))
  }

  /// Changes a file of the folder.
  func edit(_ file: String, _ change: (inout [UInt8]) -> Void) throws {
    var content = [UInt8](try bytes(file))
    change(&content)
    try Data(content).write(to: URL(fileURLWithPath: "\(path)/\(file)"))
  }

  /// Makes a raw disk with data, repeated bytes, zeros and an end inside a cluster.
  func makeSource(_ name: String = "source.raw") throws {
    try qemu("qemu-img", ["create", "-q", "-f", "raw", name, "12000256"])
    try io(
      name,
      [
        "write -P 1 0 1M", "write -P 2 3000000 2000000", "write -P 3 9M 77k",
        "write -P 4 12000000 256",
      ])
    var seed: UInt64 = 0x9E37_79B9_7F4A_7C15
    try edit(name) { bytes in
      for index in 6_000_000..<7_500_000 {
        seed ^= seed << 13
        seed ^= seed >> 7
        seed ^= seed << 17
        bytes[index] = UInt8(truncatingIfNeeded: seed)
      }
    }
  }

  /// Compares the JSON of the tool with that of qemu-img, member by member.
  func expectSameJSON(
    _ command: String, _ image: String, _ location: SourceLocation = #_sourceLocation
  ) throws {
    let ours = try run(Self.tool, [command, "--json", image])
    let theirs = try run("qemu-img", [command, "--output=json", image])
    #expect(ours.code == theirs.code, "\(command) \(ours.errors)", sourceLocation: location)
    let left = try JSONSerialization.jsonObject(with: Data(ours.output.utf8)) as? NSObject
    let right = try JSONSerialization.jsonObject(with: Data(theirs.output.utf8)) as? NSObject
    #expect(
      left == right, "\(command): \(ours.output)\n\(theirs.output)", sourceLocation: location)
  }
}

extension [UInt8] {
  func number(_ position: Int) -> Int {
    self[position..<position + 8].reduce(0) { $0 << 8 | Int($1) }
  }

  /// Where the first refcount block and the first L2 table of an image are.
  var tables: (refcounts: Int, l2: Int) {
    let l1 = number(40)
    return (number(number(48)), number(l1) & 0x00FF_FFFF_FFFF_FE00)
  }
}
