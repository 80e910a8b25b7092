// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import MachineFile
import Supervisor
import Testing

/// A folder of one test, removed at its end.
final class Scratch {
  let path: String

  init() throws {
    path = "/tmp/bulkhead-test-\(UUID().uuidString.prefix(8))"
    try FileManager.default.createDirectory(
      atPath: path, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o755])
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// Writes a file and returns its path.
  @discardableResult
  func write(_ name: String, _ bytes: [UInt8]) throws -> String {
    try Data(bytes).write(to: URL(fileURLWithPath: "\(path)/\(name)"))
    return "\(path)/\(name)"
  }

  @discardableResult
  func write(_ name: String, _ text: String) throws -> String {
    try write(name, Array(text.utf8))
  }

  /// Parses a machine file of this folder.
  func parse(_ text: String) throws -> ParsedMachine {
    try ParsedMachine.parse(text: text, fileName: "\(path)/machine.toml")
  }
}

/// The executables that SwiftPM has built beside the tests.
enum Built {
  static var folder: String {
    let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
    return (own as NSString).deletingLastPathComponent
  }

  static func path(_ name: String) -> String { "\(folder)/\(name)" }
}

/// A program that a test has started; killed at the test's end if it still runs.
final class Running {
  let process = Process()
  private let errors: String

  init(
    _ executable: String, _ arguments: [String], in scratch: Scratch,
    input: FileHandle = .nullDevice
  ) throws {
    let name = UUID().uuidString.prefix(8)
    errors = try scratch.write("stderr-\(name)", "")
    output = try scratch.write("stdout-\(name)", "")
    process.executableURL = URL(fileURLWithPath: executable)
    process.arguments = arguments
    process.standardInput = input
    process.standardError = FileHandle(forWritingAtPath: errors)
    process.standardOutput = FileHandle(forWritingAtPath: output)
    try process.run()
  }

  private let output: String

  deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }

  /// What it has written to standard error so far.
  var standardError: String { (try? String(contentsOfFile: errors, encoding: .utf8)) ?? "" }
  var standardOutput: String { (try? String(contentsOfFile: output, encoding: .utf8)) ?? "" }

  /// Waits for its end and returns the exit code; `nil` when it does not come.
  func wait(seconds: Double = 30) -> Int32? {
    let end = Date().addingTimeInterval(seconds)
    while process.isRunning {
      guard Date() < end else { return nil }
      usleep(10_000)
    }
    return process.terminationReason == .exit
      ? process.terminationStatus : -process.terminationStatus
  }

  /// Waits until standard error contains a text.
  func waitFor(_ text: String, times: Int = 1, seconds: Double = 30) -> Bool {
    let end = Date().addingTimeInterval(seconds)
    while standardError.components(separatedBy: text).count <= times {
      guard Date() < end else { return false }
      usleep(10_000)
    }
    return true
  }
}

/// The processes whose parent is `parent`.
func childProcesses(of parent: Int32) -> [Int32] {
  let text =
    (try? String(contentsOfFile: "/proc/\(parent)/task/\(parent)/children", encoding: .utf8)) ?? ""
  return text.split(separator: " ").compactMap { Int32($0) }
}

/// Waits until none of the processes exists.
func areGone(_ processes: [Int32], seconds: Double = 10) -> Bool {
  let end = Date().addingTimeInterval(seconds)
  while processes.contains(where: { FileManager.default.fileExists(atPath: "/proc/\($0)") }) {
    guard Date() < end else { return false }
    usleep(10_000)
  }
  return true
}

/// Waits until a condition holds; `false` when it does not in time.
func until(seconds: Double, _ condition: () -> Bool) -> Bool {
  let end = Date().addingTimeInterval(seconds)
  while !condition() {
    guard Date() < end else { return false }
    usleep(10_000)
  }
  return true
}

/// The processes that run an executable of a folder, with their command lines.
func processes(in folder: String) -> [Int32: [String]] {
  var found: [Int32: [String]] = [:]
  for name in (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? [] {
    guard let pid = Int32(name),
      let path = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(name)/exe"),
      path.hasPrefix(folder + "/")
    else { continue }
    let line = FileManager.default.contents(atPath: "/proc/\(name)/cmdline") ?? Data()
    found[pid] = line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
  }
  return found
}

/// Whether this host has a /dev/kvm that can be used.
let hasKVM = HostProbe().facts.kvm == .usable
/// Whether this host has SeaBIOS.
let hasSeaBIOS = HostProbe().facts.seaBIOS != nil
