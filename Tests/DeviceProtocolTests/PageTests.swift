// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import DeviceProtocol
import LinuxSystem
import TestSupport
import Testing

@Suite struct ClockTests {
  @Test func `The clock stands at zero, runs, and stands again where it was stopped`() throws {
    let writer = try ClockWriter()
    let reader = try ClockReader(writer.file)
    #expect(reader.now() == .zero && !reader.isRunning)
    writer.start()
    let first = reader.now()
    HostClock.sleep(2_000_000)
    #expect(reader.isRunning && reader.now().nanoseconds >= first.nanoseconds + 2_000_000)
    writer.stop()
    let stood = reader.now()
    HostClock.sleep(2_000_000)
    #expect(reader.now() == stood && writer.now() == stood)
    writer.start()
    #expect(reader.now() >= stood)
    #expect(reader.now().nanoseconds - stood.nanoseconds < 1_000_000_000)
  }

  @Test func `A device cannot write the page`() throws {
    let writer = try ClockWriter()
    #expect(throws: SystemError.self) {
      try Mapping(writer.file, byteCount: ClockLayout.byteCount, .readWrite)
    }
    #expect(throws: SystemError.self) { try writer.file.write([1], at: 0) }
    #expect(writer.now() == .zero)
  }

  @Test func `Memory that is no clock page is refused`() throws {
    let short = try MemoryFile.make("short", byteCount: 100)
    #expect(throws: ChannelError.self) { try ClockReader(short) }
    #expect(throws: ChannelError.self) { try ClockReader(try EventFile.make()) }
  }
}

@Suite struct StatePageTests {
  static let byteCount = StateLayoutInPage.byteCount(bulk: 4096)
  let file: Descriptor
  let page: StatePage
  init() throws {
    file = try MemoryFile.make("state", byteCount: Self.byteCount)
    page = try StatePage(file, byteCount: Self.byteCount)
  }

  @Test func `What was committed last is what a successor finds`() throws {
    #expect(try page.committed(slots: 2) == nil)
    try page.begin(layout: [1, 1, 65])
    #expect(try page.committed(slots: 2) == nil)
    for number in 1...UInt64(5) {
      let value = UInt8(number)
      page.commit(number: number, tail: UInt32(value) * 3, sequences: [7, 8], values: [value])
      let found = try #require(try StatePage(file, byteCount: Self.byteCount).committed(slots: 2))
      #expect(found.number == number && found.tail == UInt32(value) * 3)
      #expect(found.sequences == [7, 8] && found.values == [value] && found.layout == [1, 1, 65])
    }
  }

  @Test func `A new layout leaves the old record whole until the first commit`() throws {
    try page.begin(layout: [1, 1, 65])
    page.commit(number: 1, tail: 0, sequences: [0], values: [9])
    try page.begin(layout: [2, 1, 66])
    var found = try #require(try page.committed(slots: 1))
    #expect(found.layout == [1, 1, 65] && found.values == [9])
    page.commit(number: 2, tail: 0, sequences: [0], values: [1, 2])
    found = try #require(try page.committed(slots: 1))
    #expect(found.layout == [2, 1, 66] && found.values == [1, 2])
  }

  @Test func `A commit cut off after any of its bytes leaves the record before it`() throws {
    try page.begin(layout: [1, 1, 65])
    page.commit(number: 1, tail: 10, sequences: [1], values: [11])
    page.commit(number: 2, tail: 20, sequences: [2], values: [22])
    let memory = try Mapping(file, byteCount: Self.byteCount, .readWrite)
    let before = memory.bytes(at: 0, count: Self.byteCount)
    page.commit(number: 3, tail: 30, sequences: [3], values: [33])
    let after = memory.bytes(at: 0, count: Self.byteCount)
    let changed = before.indices.filter { before[$0] != after[$0] }
    let active = StateLayoutInPage.activeOffset
    #expect(changed.contains(active) && changed.count > 4)
    memory.copy(before, to: 0)
    for index in changed where index != active {
      memory.store(after[index], at: index)
      let found = try #require(try page.committed(slots: 1))
      #expect(found.number == 2 && found.tail == 20)
      #expect(found.sequences == [2] && found.values == [22])
    }
    memory.store(after[active], at: active)
    #expect(try page.committed(slots: 1)?.number == 3)
  }

  @Test func `Bulk data stays where it was put`() {
    page.setBulk([1, 2, 3], at: 4093)
    #expect(page.bulk(at: 4092, count: 4) == [0, 1, 2, 3])
    #expect(page.bulkByteCount >= 4096)
  }

  static let broken: [(Int, UInt32)] = [
    (StateLayoutInPage.magicOffset, UInt32(0)), (StateLayoutInPage.versionOffset, 2),
    (StateLayoutInPage.activeOffset, 3),
    (StateLayoutInPage.recordsOffset + StateLayoutInPage.recordCount, 0xFFFF_FFFF),
    (StateLayoutInPage.recordsOffset + StateLayoutInPage.recordLayoutWord, 0xFFFF_FFFF),
  ]

  @Test(arguments: Self.broken)
  func `A broken page is refused`(offset: Int, word: UInt32) throws {
    try page.begin(layout: [1, 1, 65])
    page.commit(number: 1, tail: 0, sequences: [0], values: [1])
    try Mapping(file, byteCount: Self.byteCount, .readWrite).store(word, at: offset)
    #expect(throws: ProtocolError.self) { try page.committed(slots: 1) }
  }
}
