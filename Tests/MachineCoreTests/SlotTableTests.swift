// SPDX-License-Identifier: Apache-2.0

import Glibc
import KVM
import LinuxSystem
import MachineCore
import Testing

/// Whether this host has a KVM that the tests can use.
private let hasKVM = (try? Descriptor.open("/dev/kvm", O_RDWR)) != nil

@Suite(
  "Memory slots on /dev/kvm",
  .enabled(
    if: hasKVM, "needs a /dev/kvm that can be read and written"),
  .serialized, .timeLimit(.minutes(1)))
struct SlotTableTests {
  @Test("KVM takes every step of shadowing the firmware and moving a frame buffer")
  func apply() throws {
    let system = try KVMSystem(descriptor: try Descriptor.open("/dev/kvm", O_RDWR))
    let memory = try GuestMemory(byteCount: 16 << 20)
    let firmware = try Mapping(
      try MemoryFile.make("rom", byteCount: 128 << 10), byteCount: 128 << 10, .readOnly)
    let video = try Mapping(
      try MemoryFile.make("video", byteCount: 1 << 20), byteCount: 1 << 20, .readWrite)
    let table = SlotTable(
      machine: try system.createVM(), memory: memory, firmware: firmware)
    table.addDeviceMemory(1, video)
    var map = MemoryMap(ram: memory.layout, firmwareByteCount: 128 << 10)

    try table.apply(map)
    for index in map.segments.indices {
      map.segments[index] = .init(readsRAM: index % 2 == 0, writesRAM: index % 3 == 0)
      try table.apply(map)
    }
    for start: UInt64 in [0xE000_0000, 0xE008_0000, 0xFD00_0000] {
      map.devices = [
        .init(device: 1, start: start, byteCount: 1 << 20, logsDirty: true),
        .init(device: 2, start: 0xD000_0000, byteCount: 0x1000),
      ]
      try table.apply(map)
      #expect(try table.takeDirtyPages(.device(1)) == [])
    }
    map.devices = []
    try table.apply(map)
    #expect(throws: Never.self) { try table.apply(map) }
  }
}
