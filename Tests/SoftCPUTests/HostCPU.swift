// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import TestSupport

/// A user program's registers, as the host's CPU and the software CPU are given them and leave
/// them.
struct UserRegisters: Equatable {
  /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
  var gpr = [UInt64](repeating: 0, count: 16)
  var rip: UInt64 = 0
  var rflags: UInt64 = 0x202
  var cs: UInt64 = 0x33
  var ss: UInt64 = 0x2B
  var ds: UInt64 = 0x2B
  var es: UInt64 = 0x2B
  var fs: UInt64 = 0
  var gs: UInt64 = 0
  var fsBase: UInt64 = 0
  var gsBase: UInt64 = 0
  /// What ended the program: an exception's vector, its error code, and CR2 for a page fault.
  var vector: UInt64 = 0
  var errorCode: UInt64 = 0
  var cr2: UInt64 = 0
  /// The x87 and vector registers, as FXSAVE64 stores them.
  var fxsave = [UInt8](repeating: 0, count: 512)
}

/// One instruction with all that it can see.
struct UserCase {
  var registers = UserRegisters()
  /// At most 16 bytes; INT3 follows.
  var code: [UInt8] = []
  /// 64 bytes that go into memory before.
  var data: [UInt8] = []
  var dataAddress: UInt64 = 0
  /// What the instruction's memory operand was aimed at.
  var target: UInt64 = 0
}

/// The host's own CPU: a process that executes instructions of user mode (Guests/hostcpu.c).
final class HostCPU {
  static let code: UInt64 = 0x1000_0000
  static let data: UInt64 = 0x2000_0000
  static let dataByteCount = 0x2000
  /// What the data holds at first, and always in the read-only page after it.
  static let filling: UInt8 = 0x5A
  /// The ``UserRegisters/vector`` of a case that does not end.
  static let noEnd: UInt64 = 0x100

  private static let registerBytes = 1024
  private static let caseBytes = 2560 + dataByteCount

  private let process = Process()
  private let input = Pipe()
  private let output = Pipe()
  private let folder: URL
  private let shared: Mapping
  let capacity: Int

  /// Builds the program and starts it for batches of up to `capacity` cases.
  init(capacity: Int) throws {
    self.capacity = capacity
    folder = try temporaryFolder()
    let binary = folder.appending(path: "hostcpu").path()
    let source = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "Guests/hostcpu.c").path()
    let built = try run([
      "gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-ffreestanding",
      "-fno-stack-protector", "-fcf-protection=none", "-fpie", "-static-pie", "-nostdlib",
      "-mgeneral-regs-only", source, "-o", binary,
    ])
    guard built.code == 0 else { throw Failure(reason: built.output) }
    let path = folder.appending(path: "cases").path()
    let file = try Descriptor.open(path, O_RDWR | O_CREAT)
    try file.truncate(to: UInt64(Self.caseBytes * capacity))
    shared = try Mapping(file, byteCount: Self.caseBytes * capacity, .readWrite)
    process.executableURL = URL(filePath: binary)
    process.arguments = [path]
    process.standardInput = input
    process.standardOutput = output
    try process.run()
  }

  deinit {
    try? input.fileHandleForWriting.close()
    process.waitUntilExit()
    try? FileManager.default.removeItem(at: folder)
  }

  /// Executes cases one after the other, on memory as the last has left it.
  func execute(_ cases: [UserCase]) throws {
    precondition(cases.count <= capacity)
    for (place, one) in cases.enumerated() {
      let base = place * Self.caseBytes
      put(one.registers, at: base)
      let extra = base + 2 * Self.registerBytes
      shared.store(one.registers.rip, at: extra)
      shared.store(one.dataAddress, at: extra + 8)
      shared.copy(
        (one.code + [UInt8](repeating: 0xCC, count: 16)).dropLast(one.code.count),
        to: extra + 16)
      shared.copy(one.data, to: extra + 32)
    }
    let count = UInt32(cases.count)
    try input.fileHandleForWriting.write(
      contentsOf: (0..<4).map { UInt8(truncatingIfNeeded: count >> (8 * $0)) })
    guard try output.fileHandleForReading.read(upToCount: 4)?.count == 4 else {
      process.waitUntilExit()
      throw Failure(reason: "hostcpu ended with \(process.terminationStatus)")
    }
  }

  /// What a case of the last batch has left in the registers.
  func registers(after place: Int) -> UserRegisters {
    let base = place * Self.caseBytes + Self.registerBytes
    func word(_ number: Int) -> UInt64 { shared.load(UInt64.self, at: base + 8 * number) }
    var r = UserRegisters()
    for number in 0..<16 { r.gpr[number] = word(number) }
    (r.rip, r.rflags, r.cs, r.ss) = (word(16), word(17), word(18), word(19))
    (r.ds, r.es, r.fs, r.gs) = (word(20), word(21), word(22), word(23))
    (r.fsBase, r.gsBase) = (word(24), word(25))
    (r.vector, r.errorCode, r.cr2) = (word(26), word(27), word(28))
    r.fxsave = shared.bytes(at: base + 512, count: 512)
    return r
  }

  /// The data after a case of the last batch.
  func memory(after place: Int) -> [UInt8] {
    shared.bytes(at: place * Self.caseBytes + 2560, count: Self.dataByteCount)
  }

  private func put(_ r: UserRegisters, at base: Int) {
    for number in 0..<16 { shared.store(r.gpr[number], at: base + 8 * number) }
    for (number, value) in [r.rip, r.rflags, r.cs, r.ss].enumerated() {
      shared.store(value, at: base + 128 + 8 * number)
    }
    shared.copy(r.fxsave, to: base + 512)
  }
}
