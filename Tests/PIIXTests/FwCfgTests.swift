// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import ModelTestSupport
import Testing

@testable import PIIX

@Suite("FwCfg")
struct FwCfgTests {
  static func makeDevice() -> FwCfg {
    var items = FwCfgItems()
    items.setInteger(FwCfgItems.Key.ramSize, UInt64(64 << 20))
    items.addFile("etc/b", .bytes([1, 2, 3]))
    items.addFile("bootorder", .bytes([9]))
    items.addFile("etc/a", .blob(id: 7, size: 100))
    return FwCfg(items)
  }

  static func read(_ key: UInt32, _ count: Int, _ device: inout FwCfg) -> [UInt8] {
    _ = device.write(key, at: 0, width: .word)
    return (0..<count).map { _ in device.read(at: 1) }
  }

  static func descriptor(control: UInt32, length: UInt32) -> [16 of UInt8] {
    var bytes = [16 of UInt8](repeating: 0)
    for (index, byte) in (bigEndianBytes(control) + bigEndianBytes(length)).enumerated() {
      bytes[index] = byte
    }
    return bytes
  }

  @Test("signature and id read as the specification has them")
  func signature() {
    var device = Self.makeDevice()
    #expect(Self.read(0, 5, &device) == Array("QEMU".utf8) + [0])
    #expect(Self.read(1, 4, &device) == [3, 0, 0, 0])
    #expect(Self.read(3, 8, &device) == [0, 0, 0, 4, 0, 0, 0, 0])
  }

  @Test("the directory lists files by name, with keys from 20h")
  func directory() {
    var device = Self.makeDevice()
    let bytes = Self.read(0x19, 4 + 3 * 64, &device)
    #expect(bytes[0..<4] == [0, 0, 0, 3])
    let entries = (0..<3).map { Array(bytes[(4 + 64 * $0)..<(68 + 64 * $0)]) }
    #expect(
      entries.map { Array($0[0..<8]) } == [
        [0, 0, 0, 1, 0, 0x20, 0, 0], [0, 0, 0, 100, 0, 0x21, 0, 0], [0, 0, 0, 3, 0, 0x22, 0, 0],
      ])
    #expect(
      entries.map { String(decoding: $0[8...].prefix { $0 != 0 }, as: UTF8.self) }
        == ["bootorder", "etc/a", "etc/b"])
  }

  @Test("past an item's end, and where there is none, zeros are read")
  func ends() {
    var device = Self.makeDevice()
    #expect(Self.read(0x22, 5, &device) == [1, 2, 3, 0, 0])
    #expect(Self.read(0x23, 2, &device) == [0, 0])
    #expect(Self.read(0xFFFF, 2, &device) == [0, 0])
  }

  @Test("the data port asks for a blob's bytes one by one")
  func blobPort() {
    var device = Self.makeDevice()
    _ = device.write(0x21, at: 0, width: .word)
    #expect(device.blobAtCursor?.id == 7)
    #expect(device.read(at: 1, blobByte: 0xAB) == 0xAB)
    #expect(device.blobAtCursor?.offset == 1)
    for _ in 0..<99 { _ = device.read(at: 1, blobByte: 1) }
    #expect(device.blobAtCursor == nil)
    #expect(device.read(at: 1, blobByte: 1) == 0)
  }

  @Test("the DMA register reads as its signature")
  func dmaSignature() {
    var device = Self.makeDevice()
    #expect((4..<12).map { device.read(at: $0) } == Array("QEMU CFG".utf8))
  }

  @Test("the DMA address is big-endian and starts with its lower half")
  func dmaAddress() {
    var device = Self.makeDevice()
    #expect(device.write(0x0100_0000, at: 4, width: .long) == nil)
    #expect(
      device.write(0x7856_3412, at: 8, width: .long)
        == .transfer(descriptorAddress: 0x1_1234_5678))
    #expect(
      device.write(0x7856_3412, at: 8, width: .long) == .transfer(descriptorAddress: 0x1234_5678))
  }

  @Test("only words reach the selector, and the data port takes no writes")
  func selectorWidth() {
    var device = Self.makeDevice()
    _ = device.write(0x22, at: 0, width: .word)
    _ = device.write(0x20, at: 0, width: .byte)
    _ = device.write(0x55, at: 1, width: .byte)
    #expect(device.read(at: 1) == 1)
  }

  @Test("a read selects, copies and fills with zeros")
  func dmaRead() {
    var device = Self.makeDevice()
    let transfer = device.beginTransfer(Self.descriptor(control: 0x0022_000A, length: 8))
    #expect(
      transfer
        == FwCfg.Transfer(
          steps: [
            .copyItem(key: 0x22, offset: 0, window: 0, length: 3), .zero(window: 3, length: 5),
          ], control: 0))
    #expect(device.bytes(of: 0x22) == [1, 2, 3])
  }

  @Test("a read of a blob names the blob, and the next one goes on after it")
  func dmaBlob() {
    var device = Self.makeDevice()
    let first = device.beginTransfer(Self.descriptor(control: 0x0021_000A, length: 60))
    #expect(first.steps == [.copyBlob(id: 7, offset: 0, window: 0, length: 60)])
    let second = device.beginTransfer(Self.descriptor(control: 0x0000_0002, length: 60))
    #expect(
      second.steps == [
        .copyBlob(id: 7, offset: 60, window: 0, length: 40), .zero(window: 40, length: 20),
      ])
  }

  @Test("a skip moves on, a select alone does nothing else, a write fails")
  func dmaOthers() {
    var device = Self.makeDevice()
    let skip = device.beginTransfer(Self.descriptor(control: 0x0022_000C, length: 2))
    #expect(skip == FwCfg.Transfer(steps: [], control: 0))
    #expect(device.read(at: 1) == 3)
    let select = device.beginTransfer(Self.descriptor(control: 0x0022_0008, length: 99))
    #expect(select == FwCfg.Transfer(steps: [], control: 0))
    #expect(device.read(at: 1) == 1)
    let write = device.beginTransfer(Self.descriptor(control: 0x0022_0018, length: 3))
    #expect(write == FwCfg.Transfer(steps: [], control: FwCfg.errorControl))
  }

  @Test("a read of nothing gives zeros")
  func dmaNothing() {
    var device = Self.makeDevice()
    let transfer = device.beginTransfer(Self.descriptor(control: 0x3FFF_000A, length: .max))
    #expect(transfer.steps == [.zero(window: 0, length: .max)])
  }

  @Test("state survives a round trip")
  func state() {
    var device = Self.makeDevice()
    _ = Self.read(0x22, 1, &device)
    _ = device.write(0x0100_0000, at: 4, width: .long)
    var other = Self.makeDevice()
    restore(encoded(device), into: &other)
    #expect(encoded(other) == encoded(device))
    #expect(other.read(at: 1) == 2)
  }
}
