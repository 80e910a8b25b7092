// SPDX-License-Identifier: Apache-2.0

import MachineCore
import Testing

@Suite("The memory map")
struct MemoryMapTests {
  typealias Slot = MemoryMap.Slot

  private func map(_ megabytes: UInt64 = 64) -> MemoryMap {
    MemoryMap(ram: RAMLayout(byteCount: megabytes << 20), firmwareByteCount: 256 << 10)
  }

  private let lowRAM = Slot(start: 0, byteCount: 0xA0000, backing: .ram, offset: 0)
  private let mainRAM = Slot(
    start: 0x100000, byteCount: 63 << 20, backing: .ram, offset: 0x100000)
  private let alias = Slot(
    start: 0xE0000, byteCount: 0x20000, backing: .firmware, offset: 0x20000, isReadOnly: true)
  private let firmware = Slot(
    start: 0xFFFC_0000, byteCount: 0x40000, backing: .firmware, offset: 0, isReadOnly: true)

  private func set(_ map: inout MemoryMap, _ range: Range<UInt64>, reads: Bool, writes: Bool) {
    for index in map.segments.indices where range.overlaps(MemoryMap.segmentRange(index)) {
      map.segments[index] = .init(readsRAM: reads, writesRAM: writes)
    }
  }

  @Test("after a reset the firmware is at the top of 4 GiB and below 1 MiB, and ROMs are bus")
  func reset() {
    #expect(map().slots == [lowRAM, alias, mainRAM, firmware])
  }

  @Test("RAM of 4 GiB goes on above 4 GiB where the low part ends")
  func highRAM() {
    let slots = map(4096).slots
    #expect(
      slots.last
        == Slot(
          start: 1 << 32, byteCount: 1 << 30, backing: .ram, offset: 0xC000_0000))
    #expect(slots.map(\.end).contains(0xC000_0000))
  }

  @Test("segments with reads and writes in RAM are one slot of RAM")
  func shadowed() {
    var map = map()
    set(&map, 0xC0000..<0x100000, reads: true, writes: true)
    let shadow = Slot(start: 0xC0000, byteCount: 0x40000, backing: .ram, offset: 0xC0000)
    #expect(map.slots == [lowRAM, shadow, mainRAM, firmware])
    #expect(map.writeTarget(at: 0xF1234) == .ram(offset: 0xF1234))
  }

  @Test("a segment that only reads from RAM is read-only and its writes are dropped")
  func locked() {
    var map = map()
    set(&map, 0xC0000..<0xC8000, reads: true, writes: false)
    let shadow = Slot(
      start: 0xC0000, byteCount: 0x8000, backing: .ram, offset: 0xC0000, isReadOnly: true)
    #expect(map.slots == [lowRAM, shadow, alias, mainRAM, firmware])
    #expect(map.writeTarget(at: 0xC7FFF) == .dropped)
    #expect(map.writeTarget(at: 0xC8000) == .dropped)
  }

  @Test("a segment that only writes to RAM shows the ROM, and its writes go to RAM")
  func writeOnly() {
    var map = map()
    set(&map, 0xF0000..<0x100000, reads: false, writes: true)
    #expect(map.slots == [lowRAM, alias, mainRAM, firmware])
    #expect(map.writeTarget(at: 0xFFFF0) == .ram(offset: 0xFFFF0))
    #expect(map.writeTarget(at: 0xEFFF0) == .dropped)
  }

  @Test("writes outside go to the bus, and those to firmware nowhere")
  func writeTargets() {
    let map = map()
    #expect(map.writeTarget(at: 0xB8000) == .bus)
    #expect(map.writeTarget(at: 0xFEBF_0000) == .bus)
    #expect(map.writeTarget(at: 0xFFFF_FFF0) == .dropped)
  }

  @Test(
    "each segment has the addresses of the chip's data sheet",
    arguments: [
      (0, 0xF0000, 0x100000), (1, 0xC0000, 0xC4000), (8, 0xDC000, 0xE0000),
      (12, 0xEC000, 0xF0000),
    ] as [(Int, UInt64, UInt64)])
  func segments(index: Int, start: UInt64, end: UInt64) {
    #expect(MemoryMap.segmentRange(index) == start..<end)
    #expect(MemoryMap.segmentIndex(of: start) == index)
    #expect(MemoryMap.segmentIndex(of: end - 1) == index)
  }

  @Test("device memory lies under RAM and firmware, and is cut where they are")
  func overlaps() {
    var map = map()
    map.devices = [
      .init(device: 7, start: 0x3FF_F000, byteCount: 0x3000, logsDirty: true),
      .init(device: 8, start: 0xFFFB_F000, byteCount: 0x2000, isReadOnly: true),
    ]
    let slots = map.slots
    #expect(
      slots.contains(
        Slot(
          start: 0x400_0000, byteCount: 0x2000, backing: .device(7), offset: 0x1000,
          logsDirty: true)))
    #expect(
      slots.contains(
        Slot(
          start: 0xFFFB_F000, byteCount: 0x1000, backing: .device(8), offset: 0, isReadOnly: true)))
    #expect(slots.contains(firmware) && slots.contains(mainRAM))
  }

  @Test(
    "a base address that makes no sense gives no slot",
    arguments: [
      (0xE000_0800, 0x1000), (0xE000_0000, 0x800), (0xE000_0000, 0),
      (UInt64.max - 0xFFF, 0x2000),
    ] as [(UInt64, UInt64)])
  func nonsense(start: UInt64, byteCount: UInt64) {
    var map = map()
    map.devices = [.init(device: 1, start: start, byteCount: byteCount)]
    #expect(map.slots == self.map().slots)
  }
}

@Suite("The steps from one memory map to the next")
struct SlotPlanTests {
  private let map = MemoryMap(ram: RAMLayout(byteCount: 64 << 20), firmwareByteCount: 128 << 10)
  private let frameBuffer = MemoryMap.DeviceRegion(
    device: 1, start: 0xE000_0000, byteCount: 0x100_0000, logsDirty: true)

  @Test("the same map twice takes no step")
  func same() {
    var plan = SlotPlan()
    #expect(plan.steps(to: map).count == 4)
    #expect(plan.steps(to: map) == [])
  }

  @Test("a region appears, moves and disappears in one step each, with one number")
  func moves() throws {
    var plan = SlotPlan()
    _ = plan.steps(to: map)
    var next = map
    next.devices = [frameBuffer]
    let slot = try #require(next.slots.first { $0.backing == .device(1) })
    #expect(plan.steps(to: next) == [.set(4, slot)])

    next.devices[0].start = 0xD000_0000
    var moved = slot
    moved.start = 0xD000_0000
    #expect(plan.steps(to: next) == [.set(4, moved)])

    next.devices = []
    #expect(plan.steps(to: next) == [.delete(4)])
  }

  @Test("dirty logging is switched in place")
  func logging() {
    var plan = SlotPlan()
    var next = map
    next.devices = [frameBuffer]
    _ = plan.steps(to: next)
    next.devices[0].logsDirty = false
    let steps = plan.steps(to: next)
    #expect(steps.count == 1)
    #expect(
      steps
        == next.slots.filter { $0.backing == .device(1) }.map {
          .set(plan.slots.first { $0.value.backing == .device(1) }?.key ?? 99, $0)
        })
  }

  @Test("a PAM change touches neither the RAM below 640 KiB nor that above 1 MiB")
  func shadow() {
    var plan = SlotPlan()
    _ = plan.steps(to: map)
    var next = map
    next.segments[0] = .init(readsRAM: true, writesRAM: true)
    let steps = plan.steps(to: next)
    #expect(steps.count == 3)  // the alias goes; half of it and 64 KiB of RAM come
    #expect(steps.first == .delete(1))
    #expect(plan.slots[0]?.start == 0 && plan.slots[2]?.start == 0x100000)
    #expect(Set(plan.slots.values.map(\.start)) == Set(next.slots.map(\.start)))
  }

  @Test("two regions that change places never overlap on the way")
  func swap() {
    var plan = SlotPlan()
    var next = map
    next.devices = [
      .init(device: 1, start: 0xE000_0000, byteCount: 0x1000),
      .init(device: 2, start: 0xE000_1000, byteCount: 0x1000),
    ]
    _ = plan.steps(to: next)
    var live = plan.slots
    next.devices[0].start = 0xE000_1000
    next.devices[1].start = 0xE000_0000
    var overlaps = 0
    for step in plan.steps(to: next) {
      switch step {
      case .delete(let number): live[number] = nil
      case .set(let number, let slot):
        live[number] = nil
        overlaps += live.values.filter { $0.start < slot.end && slot.start < $0.end }.count
        live[number] = slot
      }
    }
    #expect(overlaps == 0)
    #expect(live == plan.slots)
    #expect(live.values.sorted { $0.start < $1.start } == next.slots)
  }
}
