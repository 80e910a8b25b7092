// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem
import Supervisor
import Testing

@Suite("The machine's log")
struct MachineLogTests {
  private func log(_ pipe: Descriptor, _ level: LogLevel = .info, journal: String? = nil)
    -> MachineLog
  {
    MachineLog(machine: "pc", level: level, output: pipe, journal: journal)
  }

  @Test("a line has the machine's name and the process's, and only lines of the level come")
  func levels() throws {
    let pipe = try Files.pipe()
    var log = log(pipe.writing, .notice)
    log.write("one", from: "vmcore", .error)
    log.write("two", from: "vmcore", .info)
    log.level = .debug
    log.write("three", from: "vmlaunch", .debug)
    let text = String(decoding: try pipe.reading.read(4096), as: UTF8.self)
    #expect(text == "pc vmcore: one\npc vmlaunch: three\n")
    #expect(log.lostLines == 0)
  }

  @Test("the journal gets priorities, and nobody else does")
  func journal() throws {
    let pipe = try Files.pipe()
    let identity = try pipe.writing.identity()
    var log = log(pipe.writing, journal: "\(identity.device):\(identity.inode)")
    log.write("full", from: "vmdev-ide", .warning)
    var other = self.log(pipe.writing, journal: "\(identity.device):\(identity.inode + 1)")
    other.write("full", from: "vmdev-ide", .warning)
    let text = String(decoding: try pipe.reading.read(4096), as: UTF8.self)
    #expect(text == "<4>pc vmdev-ide: full\npc vmdev-ide: full\n")
  }

  @Test("what nobody reads is lost in the end, and counted", .timeLimit(.minutes(1)))
  func lost() throws {
    let pipe = try Files.pipe()
    try pipe.writing.setNonBlocking(true)
    var log = log(pipe.writing)
    let text = String(repeating: "x", count: 1000)
    for _ in 0..<70 where log.lostLines < 2 { log.write(text, from: "vmcore", .info) }
    #expect(log.lostLines == 2)
    _ = try pipe.reading.read(65536)
    log.write("again", from: "vmcore", .info)
    #expect(log.lostLines == 2)
  }

  @Test(
    "a level comes off a line, and what has none is a warning",
    arguments: [
      ("<3>text", LogLevel.error, "text"), ("<7><4>text", .debug, "<4>text"),
      ("text", .warning, "text"), ("<2>text", .warning, "<2>text"),
      ("<8>text", .warning, "<8>text"), ("<6", .warning, "<6"), ("<66>x", .warning, "<66>x"),
      ("<6>", .info, ""), ("", .warning, ""), ("<\u{1}>x", .warning, "<\u{1}>x"),
    ])
  func split(line: String, level: LogLevel, text: String) {
    let found = LogLevel.split(Array(line.utf8))
    #expect(found.level == level)
    #expect(String(decoding: found.text, as: UTF8.self) == text)
    #expect(LogLevel(name: "\(level)") == level && LogLevel(name: "loud") == nil)
  }
}
