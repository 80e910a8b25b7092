// SPDX-License-Identifier: Apache-2.0

public import Foundation
public import LinuxSystem

/// Why a test cannot go on.
public struct Failure: Error {
  public var reason: String
  public init(reason: String) { self.reason = reason }
}

/// Runs a program to its end; returns its exit code and what it wrote.
public func run(_ arguments: [String]) throws -> (code: Int32, output: String) {
  let process = Process()
  let pipe = Pipe()
  process.executableURL = URL(filePath: "/usr/bin/env")
  process.arguments = arguments
  process.standardOutput = pipe
  process.standardError = pipe
  try process.run()
  let output = try pipe.fileHandleForReading.readToEnd() ?? Data()
  process.waitUntilExit()
  return (process.terminationStatus, String(decoding: output, as: UTF8.self))
}

/// A folder of its own for what a test builds.
public func temporaryFolder() throws -> URL {
  let folder = FileManager.default.temporaryDirectory.appending(
    path: "bulkhead-\(UUID().uuidString)")
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  return folder
}

/// The example device of Tests/ExampleDevice.
public enum ExampleBinary {
  /// Builds the device once for all tests.
  public static let path: Result<String, any Error> = Result {
    let binary = try temporaryFolder().appending(path: "example-device").path()
    let source = root.appending(path: "Tests/ExampleDevice/example-device.c").path()
    let built = try run(
      ["gcc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", source, "-o", binary, "-pthread"])
    guard built.code == 0 else { throw Failure(reason: built.output) }
    return binary
  }

  /// Starts the process with its channel as descriptor 3; returns the channel's other end.
  public static func spawn() throws -> (PacketSocket, Process) {
    let (ours, theirs) = try PacketSocket.pair()
    let process = Process()
    process.executableURL = URL(filePath: "/bin/sh")
    process.arguments = ["-c", "exec 3<&0 </dev/null; exec \(try path.get()) 2>/dev/null"]
    process.standardInput = FileHandle(fileDescriptor: theirs.descriptor.raw, closeOnDealloc: false)
    try process.run()
    withExtendedLifetime(theirs) {}
    return (ours, process)
  }
}
