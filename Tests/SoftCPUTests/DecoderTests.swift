// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import SoftCPU

/// The decoder against binutils' disassembler, on code that others have compiled.
@Suite("Instruction decoder")
struct DecoderTests {
  /// An instruction as objdump lists it.
  private struct Listed {
    var bytes: [UInt8]
    var text: String
  }

  /// What objdump makes of a file.
  private static func list(_ arguments: [String]) throws -> [Listed] {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/objdump")
    process.arguments = arguments + ["-w", "--insn-width=16"]
    let pipe = Pipe()
    process.standardOutput = pipe
    try process.run()
    let data = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    var found: [Listed] = []
    for line in String(decoding: data, as: UTF8.self).split(separator: "\n") {
      let fields = line.split(separator: "\t", omittingEmptySubsequences: false)
      guard fields.count >= 3, fields[0].hasSuffix(":") else { continue }
      let bytes = fields[1].split(separator: " ").compactMap { UInt8($0, radix: 16) }
      found.append(Listed(bytes: bytes, text: String(fields[2])))
    }
    return found
  }

  private static func decode(_ bytes: [UInt8], _ mode: CodeMode) -> Instruction? {
    var window = [16 of UInt8](repeating: 0x90)
    for (place, byte) in bytes.prefix(16).enumerated() { window[place] = byte }
    return try? Decoder.decode(window, count: 15, mode: mode)
  }

  /// What objdump knows and this processor does not have.
  private static func isForeign(_ text: String, _ bytes: [UInt8]) -> Bool {
    let words = [
      "(bad)", "data16", "addr32", "rex", "evex", "xbegin", "xend", "xabort", "xtest", "bnd ",
      "enqcmd", "umonitor", "umwait", "tpause", "ptwrite", "wbnoinvd", "cldemote", "movdir",
      "notrack",
    ]
    if words.contains(where: { text.contains($0) }) { return true }
    // EVEX, and TSX's prefixes.
    return bytes.contains(0x62) || text.contains("zmm") || text.contains("%k")
  }

  @Test("lengths agree with objdump on the C library's code")
  func library() throws {
    let listed = try Self.list(["-d", "/lib/x86_64-linux-gnu/libc.so.6"])
    var wrong: [String] = []
    var undefined: [String: Int] = [:]
    for one in listed.prefix(150_000) where !Self.isForeign(one.text, one.bytes) {
      guard let instruction = Self.decode(one.bytes, .bits64) else {
        wrong.append("\(one.text): not decoded")
        continue
      }
      if Int(instruction.length) != one.bytes.count {
        let text = one.bytes.map { String($0, radix: 16) }.joined(separator: " ")
        wrong.append("\(text) \(one.text): \(instruction.length)")
      }
      if instruction.op == .undefined, !one.text.hasPrefix("ud") {
        undefined[String(one.text.prefix { $0 != " " }), default: 0] += 1
      }
    }
    #expect(listed.count > 100_000)
    #expect(wrong.prefix(10) == [])
    #expect(undefined == [:])
  }

  @Test(
    "lengths agree with objdump on the firmware, in 16 and 32 bits",
    arguments: [("i8086", CodeMode.bits16), ("i386", CodeMode.bits32)])
  func firmware(machine: String, mode: CodeMode) throws {
    let listed = try Self.list(
      ["-D", "-b", "binary", "-m", machine, "/usr/share/seabios/bios.bin"])
    var wrong: [String] = []
    for one in listed where !Self.isForeign(one.text, one.bytes) {
      // Data taken for code: what objdump shows as prefixes alone is not looked at.
      guard !one.text.hasPrefix("rep"), !one.text.hasPrefix("lock"), !one.text.hasPrefix("fs"),
        !one.text.hasPrefix("gs"), !one.text.hasPrefix("cs"), !one.text.hasPrefix("ds"),
        !one.text.hasPrefix("es"), !one.text.hasPrefix("ss"), !one.text.hasPrefix("v"),
        !one.text.hasPrefix("."), let instruction = Self.decode(one.bytes, mode),
        instruction.op != .undefined
      else { continue }
      if Int(instruction.length) != one.bytes.count {
        let text = one.bytes.map { String($0, radix: 16) }.joined(separator: " ")
        wrong.append("\(text) \(one.text): \(instruction.length)")
      }
    }
    #expect(listed.count > 20_000)
    #expect(wrong.prefix(10) == [])
  }

  @Test("fifteen bytes of prefixes are too long")
  func tooLong() {
    let bytes = [16 of UInt8](repeating: 0x66)
    #expect(throws: Decoder.Stop.tooLong) {
      try Decoder.decode(bytes, count: 15, mode: .bits64)
    }
  }

  @Test("an instruction that is cut off asks for more", arguments: 1...9)
  func cut(count: Int) {
    let bytes: [16 of UInt8] = [
      0x48, 0xB8, 1, 2, 3, 4, 5, 6, 7, 8, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
    ]
    #expect(throws: Decoder.Stop.needsMore) {
      try Decoder.decode(bytes, count: count, mode: .bits64)
    }
  }
}
