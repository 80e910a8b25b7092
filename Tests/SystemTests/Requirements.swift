// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Testing

/// What these tests need of the host.
enum Requirements {
  /// Whether /dev/kvm may be used.
  static let hasKVM = (try? Files.open("/dev/kvm", .readWrite)) != nil

  /// Whether KVM has a processor under it that runs guests; else it emulates their kernels.
  static let hasHardwareVirtualisation =
    ((try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? "")
    .firstMatch(of: /flags\s*:.*\b(vmx|svm)\b/) != nil

  /// What can run a machine here.
  static let accelerators = hasKVM ? ["kvm", "soft"] : ["soft"]

  /// Programs and files that are not there, with the packages that have them.
  static let missing: [String] = {
    var result: [String] = []
    let programs = [
      ("nasm", "nasm"), ("qemu-img", "qemu-utils"), ("qemu-io", "qemu-utils"),
      ("convert", "imagemagick"), ("mke2fs", "e2fsprogs"), ("sfdisk", "fdisk"),
      ("grub-mkimage", "grub-common"), ("grub-mkrescue", "grub-common"),
      ("xorriso", "xorriso"), ("mformat", "mtools"),
    ]
    for (program, package) in programs where Tool.find(program) == nil {
      result.append("\(program) (package \(package))")
    }
    let files = [
      ("/usr/share/seabios/bios-256k.bin", "seabios"),
      ("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin"),
    ]
    for (file, package) in files where !FileManager.default.fileExists(atPath: file) {
      result.append("\(file) (package \(package))")
    }
    return result
  }()

  static let isRoot = getuid() == 0

  /// The project's folder.
  static let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().path
}

/// Everything that starts whole machines; one test at a time, because each loads the host.
@Suite(
  "Whole machines", .serialized,
  .enabled(
    if: Requirements.missing.isEmpty,
    "missing: \(Requirements.missing.joined(separator: ", "))"))
enum SystemTests {}

/// Programs of the host that tests use.
enum Tool {
  struct Failure: Error, CustomStringConvertible {
    var description: String
  }

  /// The path of a program.
  static func find(_ name: String) -> String? {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
    let folders = path.split(separator: ":").map(String.init) + ["/usr/sbin", "/sbin"]
    return folders.map { "\($0)/\(name)" }.first { Files.isExecutable($0) }
  }

  /// Runs a program to its end, at most `seconds`; returns its exit code and all it wrote.
  static func result(
    _ program: String, _ arguments: [String], in scratch: Scratch, seconds: Double = 60
  ) throws -> (code: Int32, output: String) {
    guard let path = program.contains("/") ? program : find(program) else {
      throw Failure(description: "\(program) is not installed")
    }
    let log = try scratch.write("tool-\(UUID().uuidString.prefix(8))", [])
    defer { try? FileManager.default.removeItem(atPath: log) }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = arguments
    process.standardInput = FileHandle.nullDevice
    let output = FileHandle(forWritingAtPath: log)
    process.standardOutput = output
    process.standardError = output
    try process.run()
    guard eventually(seconds, { !process.isRunning }) else {
      kill(process.processIdentifier, SIGKILL)
      process.waitUntilExit()
      throw Failure(description: "\(program) did not end within \(seconds) seconds")
    }
    process.waitUntilExit()
    let text = String(
      decoding: (try? Data(contentsOf: URL(fileURLWithPath: log))) ?? Data(), as: UTF8.self)
    return (process.terminationStatus, text)
  }

  /// Runs a program that must succeed, and returns all it wrote.
  @discardableResult
  static func run(_ program: String, _ arguments: [String], in scratch: Scratch) throws -> String {
    let (code, output) = try result(program, arguments, in: scratch)
    guard code == 0 else {
      throw Failure(description: "\(program) ended with \(code): \(output)")
    }
    return output
  }
}

/// Waits until something holds, at most `seconds`; returns whether it does.
func eventually(_ seconds: Double, _ condition: () throws -> Bool) rethrows -> Bool {
  let end = HostClock.monotonic() &+ UInt64(seconds * 1_000_000_000)
  while true {
    if try condition() { return true }
    guard HostClock.monotonic() < end else { return false }
    HostClock.sleep(5_000_000)
  }
}

/// A folder of one test, removed at its end.
final class Scratch {
  let path: String

  init() throws {
    path = "/tmp/bulkhead-system-\(UUID().uuidString.prefix(8))"
    try FileManager.default.createDirectory(
      atPath: path, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o755])
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  subscript(name: String) -> String { "\(path)/\(name)" }

  /// Sets the permissions of a file.
  func allow(_ permissions: Int, _ path: String) throws {
    try FileManager.default.setAttributes([.posixPermissions: permissions], ofItemAtPath: path)
  }

  /// Writes a file and returns its path.
  @discardableResult
  func write(_ name: String, _ bytes: [UInt8]) throws -> String {
    try Data(bytes).write(to: URL(fileURLWithPath: self[name]))
    return self[name]
  }

  @discardableResult
  func write(_ name: String, _ text: String) throws -> String {
    try write(name, Array(text.utf8))
  }

  func bytes(_ name: String) -> [UInt8] {
    [UInt8]((try? Data(contentsOf: URL(fileURLWithPath: self[name]))) ?? Data())
  }

  func text(_ name: String) -> String { String(decoding: bytes(name), as: UTF8.self) }

  func exists(_ name: String) -> Bool { FileManager.default.fileExists(atPath: self[name]) }

  /// Assembles `Guests/<name>.asm` into this folder, and returns the path.
  func assemble(_ name: String, _ definitions: String...) throws -> String {
    let guests = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("Guests").path
    let output = self["\(name).bin"]
    try Tool.run(
      "nasm",
      ["-Wall", "-Werror", "-f", "bin", "-I", guests + "/", "-o", output]
        + definitions.map { "-D\($0)" } + ["\(guests)/\(name).asm"], in: self)
    return output
  }

  /// Makes a raw disk of some MiB that starts with a guest.
  func disk(_ name: String, _ guest: String, megabytes: Int = 16) throws {
    try FileManager.default.copyItem(atPath: guest, toPath: self[name])
    let file = try Files.open(self[name], .readWrite)
    try file.truncate(to: UInt64(megabytes) << 20)
  }
}
