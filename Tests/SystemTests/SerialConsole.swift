// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Testing

/// A machine whose serial console a test reads and types on: ours, or one of QEMU's.
protocol SerialConsole: AnyObject {
  /// What the guest has sent so far.
  var serialBytes: [UInt8] { get }
  /// Types on the console.
  func type(_ text: String) throws
  /// Waits until something holds, at most `seconds`, and not beyond the machine's end.
  func waits(_ seconds: Double, _ condition: () -> Bool) -> Bool
}

extension RunningMachine: SerialConsole {}

/// What a test does on the serial console of the disk that deploy/make-debian-disk makes.
///
/// Its lines are read without the escape sequences of systemd and the shell.
struct DebianConsole {
  let machine: any SerialConsole
  private var seen = 0

  init(_ machine: any SerialConsole) { self.machine = machine }

  /// Waits for a text after what was seen already; returns all up to its end.
  private mutating func wait(_ text: String, _ seconds: Double) throws -> String {
    var count = 0
    var end: Int?
    let isThere = machine.waits(seconds) {
      let bytes = machine.serialBytes
      guard end == nil, bytes.count > count else { return end != nil }
      count = bytes.count
      let range = Data(bytes).range(of: Data(text.utf8), in: seen..<count)
      end = range?.upperBound
      return end != nil
    }
    let bytes = machine.serialBytes
    try #require(isThere, "no \(text): \(String(decoding: bytes.suffix(3000), as: UTF8.self))")
    defer { seen = end ?? seen }
    return String(decoding: bytes[seen..<(end ?? seen)], as: UTF8.self)
  }

  /// Waits for the prompt and logs in as root.
  mutating func logIn() throws {
    _ = try wait("guest login: ", 900)
    try machine.type("root\r")
    _ = try wait("Password: ", 120)
    try machine.type("bulkhead\r")
    _ = try wait("root@guest:~# ", 240)
    // No line that is typed wraps, and the kernel says nothing in between.
    _ = try run("stty cols 500; dmesg -n 1")
    // Nor does systemd, once all of the start is done.
    _ = try attempt("systemctl is-system-running --wait")
  }

  /// Runs a command, which must succeed; the lines that it wrote.
  mutating func run(_ command: String) throws -> [String] {
    let (code, lines) = try attempt(command)
    #expect(code == 0, "\(command): \(lines)")
    return lines
  }

  /// Runs a command; its exit code, and the lines that it wrote.
  mutating func attempt(_ command: String) throws -> (code: Int?, lines: [String]) {
    // The mark is written in two halves, so that the echo of the line is not taken for it.
    try machine.type("\(command); echo 'the-''end' $?\r")
    _ = try wait("$?\r\n", 120)
    let text = try wait("the-end ", 300)
    let code = try wait("\r\n", 60)
    _ = try wait("root@guest:~# ", 60)
    let lines = text.dropLast("the-end ".count)
      .replacing(#/\u{1b}\[[0-9;?]*[a-zA-Z]/#, with: "")
      .split(whereSeparator: \.isNewline).map(String.init)
    return (Int(code.dropLast()), lines)
  }
}

/// A machine of Debian's QEMU, with the serial port on its standard input and output.
///
/// Call ``end()`` before the test ends, in any case.
final class QEMUMachine: SerialConsole {
  static let program = "qemu-system-x86_64"

  private let process = Process()
  private let monitor: String
  private let input: FileHandle
  private let output: Descriptor
  private let pipes: [Pipe]
  private var received: [UInt8] = []

  /// Starts a PC without a network card, on TCG.
  init(_ arguments: [String], in scratch: Scratch) throws {
    monitor = scratch["qemu-monitor"]
    for end in ["in", "out"] { try Tool.run("mkfifo", ["\(monitor).\(end)"], in: scratch) }
    let down = Pipe()
    let up = Pipe()
    pipes = [down, up]
    input = down.fileHandleForWriting
    output = Descriptor(owning: dup(up.fileHandleForReading.fileDescriptor))
    process.executableURL = URL(fileURLWithPath: try #require(Tool.find(Self.program)))
    process.arguments =
      [
        "-accel", "tcg,thread=single", "-M", "pc", "-nic", "none", "-display", "none",
        "-serial", "stdio", "-chardev", "pipe,id=monitor,path=\(monitor)", "-mon", "monitor",
      ] + arguments
    process.standardInput = down
    process.standardOutput = up
    process.standardError = FileHandle(forWritingAtPath: try scratch.write("qemu.log", []))
    try process.run()
    try output.setNonBlocking(true)
  }

  deinit { end() }

  func end() {
    guard process.isRunning else { return }
    kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
  }

  var serialBytes: [UInt8] {
    while let bytes = try? output.read(65536), !bytes.isEmpty { received += bytes }
    return received
  }

  func type(_ text: String) throws { try input.write(contentsOf: Data(text.utf8)) }

  /// Writes a picture of the screen (PPM), and returns it.
  func screendump(_ name: String, in scratch: Scratch) throws -> Pixels {
    let pipe = try FileHandle(forWritingTo: URL(fileURLWithPath: "\(monitor).in"))
    try pipe.write(contentsOf: Data("screendump \(scratch[name])\n".utf8))
    var picture: Pixels?
    _ = eventually(20) {
      let bytes = scratch.bytes(name)
      picture = Pixels(complete: bytes)
      return picture != nil
    }
    return try #require(picture, "QEMU wrote no picture")
  }

  func waits(_ seconds: Double, _ condition: () -> Bool) -> Bool {
    eventually(seconds) { condition() || !process.isRunning } && condition()
  }
}
