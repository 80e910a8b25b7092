// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import DeviceProtocol
import LinuxSystem
import Processor
import Testing

@testable import MachineCore

/// The state file by itself; whole machines are saved and loaded in SystemTests.
@Suite struct StateFileTests {
  private func memory(_ pages: Int) throws -> Mapping {
    let count = pages * 4096
    return try Mapping(
      try MemoryFile.make("test", byteCount: count), byteCount: count, .readWrite)
  }

  /// A file without a name.
  private func emptyFile() throws -> Descriptor {
    let path = "/tmp/bulkhead-state-\(HostClock.monotonic())"
    let file = try Files.open(path, [.readWrite, .create, .exclusive])
    try Files.remove(path)
    return file
  }

  private func saved(_ memories: [(id: UInt32, mapping: Mapping)]) throws -> Descriptor {
    let file = try emptyFile()
    var writer = try StateFileWriter(file)
    var saver = MemorySaver(memories)
    while try !saver.step(&writer, budget: 1 << 20) {}
    try writer.add(.end, [])
    return file
  }

  private func load(_ file: Descriptor, _ memories: [(id: UInt32, mapping: Mapping)]) throws {
    var reader = try StateFileReader(file)
    var loader = MemoryLoader(memories, writes: true)
    while let (kind, content) = try reader.next() {
      #expect(kind == .memory)
      try loader.take(content)
    }
    loader.finish()
  }

  @Test func `Memory comes back, and pages of zeroes are not in the file`() throws {
    let (one, two) = (try memory(1000), try memory(3))
    for page in [0, 1, 255, 256, 257, 700, 999] {
      one.store(UInt8(page & 0x7F | 1), at: page * 4096 + page)
    }
    two.store(UInt64.max, at: 2 * 4096 + 4088)
    let file = try saved([(7, one), (9, two)])
    #expect(try file.size() < 9 * 4096 + 1000)
    let (first, second) = (try memory(1000), try memory(3))
    first.fill(0xAA, at: 0, count: first.byteCount)
    second.fill(0xAA, at: 0, count: second.byteCount)
    try load(file, [(7, first), (9, second)])
    #expect(first.bytes(at: 0, count: first.byteCount) == one.bytes(at: 0, count: one.byteCount))
    #expect(second.bytes(at: 0, count: 3 * 4096) == two.bytes(at: 0, count: 3 * 4096))
  }

  @Test func `Any changed byte and any length but the whole one is found`() throws {
    let one = try memory(2)
    one.store(UInt32(5), at: 4096)
    let file = try saved([(7, one)])
    let good = try file.read(Int(file.size()), at: 0)
    func isRefused(_ bytes: [UInt8]) throws -> Bool {
      let copy = try emptyFile()
      try copy.writeAll(bytes)
      do throws(Refusal) {
        var reader = try StateFileReader(copy)
        var loader = MemoryLoader([(7, one)], writes: false)
        while let (_, content) = try reader.next() { try loader.take(content) }
        return false
      } catch {
        return true
      }
    }
    #expect(try !isRefused(good))
    for place in good.indices where place < 100 || place % 97 == 0 || place > good.count - 40 {
      var bytes = good
      bytes[place] ^= 1 << UInt8(place % 8)
      #expect(try isRefused(bytes), "byte \(place)")
    }
    for count in stride(from: 0, to: good.count, by: 61) {
      #expect(try isRefused(Array(good.prefix(count))), "\(count) bytes")
    }
    #expect(try isRefused(good + [0]))
  }

  @Test func `Memory that is out of place is refused`() throws {
    let one = try memory(2)
    func section(_ id: UInt32, _ offset: UInt64, _ count: Int) -> [UInt8] {
      var writer = WireWriter()
      writer.put(id)
      writer.put(UInt32(0))
      writer.put(offset)
      return writer.bytes + [UInt8](repeating: 1, count: count)
    }
    for bad in [
      [section(8, 0, 4096)], [section(7, 4096, 4097)], [section(7, .max, 1)], [section(7, 0, 0)],
      [section(7, 4096, 4096), section(7, 0, 4096)], [[1, 2, 3]],
    ] {
      var loader = MemoryLoader([(7, one)], writes: true)
      #expect(throws: Refusal.self) { for content in bad { try loader.take(content) } }
    }
  }

  @Test func `A vCPU's record has every part of its state`() throws {
    var state = VCPUState()
    state.mode = .halted
    state.registers.r15 = 15
    state.system.ldt.limit = 77
    state.system.tr.isUnusable = true
    state.system.idt.limit = 0x3FF
    state.system.interruptBitmap[3] = 8
    state.debug.dr7 = 0x401
    state.events.nmiIsMasked = true
    state.events.exceptionPayload = 0x1234_5678_9ABC
    state.events.validity = 5
    state.xsave[4095] = 9
    state.lapic = [UInt8](repeating: 3, count: 1024)
    state.xcrs = [ExtendedControlRegister(number: 0, value: 7)]
    state.msrs = [ModelSpecificRegister(index: 0x10, value: 1 << 40)]
    state.tscKHz = 2_100_000
    let record = try VCPURecord(wireBytes: VCPURecord(state, pendingStart: 0x19A).wireBytes)
    #expect(record.state == state)
    #expect(record.pendingStart == 0x19A)
    state.xsave.removeLast()
    #expect(throws: ProtocolError.self) {
      try VCPURecord(wireBytes: VCPURecord(state).wireBytes)
    }
  }

  private struct Model: DeviceState {
    var kept: UInt32 = 0
    var other: UInt16 = 0
    var bytes: [UInt8] = []

    mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
      visitor.field("kept", &kept)
      visitor.field("bytes", &bytes, capacity: 16)
      visitor.field("other", &other)
    }
  }

  @Test func `Fields that belong to the host are kept as they are`() throws {
    let saved = StateRecord(of: Model(kept: 1, other: 2, bytes: [3, 4]))
    let present = StateRecord(of: Model(kept: 10, other: 20, bytes: [30]))
    var model = Model()
    try saved.keeping({ $0 == "kept" }, of: present).restore(&model)
    #expect(model.kept == 10 && model.other == 2 && model.bytes == [3, 4])
  }
}
