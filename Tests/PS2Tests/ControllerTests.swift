// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import PS2
import ModelTestSupport
import Testing

@Suite("I8042")
struct I8042Tests {
  static func status(_ controller: inout I8042) -> UInt32 {
    controller.read(at: 4, width: .byte)
  }

  static func command(_ byte: UInt32, _ controller: inout I8042) -> I8042.Request? {
    let request = controller.write(byte, at: 4, width: .byte)
    _ = controller.deliver()
    return request
  }

  static func data(_ byte: UInt32, _ controller: inout I8042) -> I8042.Request? {
    let request = controller.write(byte, at: 0, width: .byte)
    _ = controller.deliver()
    return request
  }

  static func take(_ controller: inout I8042) -> UInt32? {
    guard status(&controller) & 1 != 0 else { return nil }
    let byte = controller.read(at: 0, width: .byte)
    _ = controller.deliver()
    return byte
  }

  @Test("nothing waits after reset")
  func reset() {
    var controller = I8042()
    #expect(Self.status(&controller) == 0x18)
    #expect(!controller.keyboardInterrupt && !controller.mouseInterrupt)
    #expect(controller.isA20Enabled)
  }

  @Test(
    "test commands answer",
    arguments: [
      (UInt32(0xAA), UInt32(0x55)), (0xAB, 0x00), (0xA9, 0x00), (0xA4, 0xF1), (0xC0, 0xA0),
      (0x20, 0x03), (0xD0, 0xCF), (0xE0, 0x00),
    ] as [(UInt32, UInt32)])
  func tests(command: UInt32, reply: UInt32) {
    var controller = I8042()
    #expect(Self.command(command, &controller) == nil)
    #expect(Self.take(&controller) == reply)
    #expect(Self.take(&controller) == nil)
  }

  @Test("the self test sets the system flag and leaves both interfaces off")
  func selfTest() {
    var controller = I8042()
    _ = Self.command(0xAA, &controller)
    _ = Self.take(&controller)
    #expect(Self.status(&controller) & 0x04 != 0)
    _ = Self.command(0x20, &controller)
    #expect(Self.take(&controller) == 0x34)
  }

  @Test("interfaces are switched in the command byte")
  func interfaces() {
    var controller = I8042()
    for (command, byte) in [(UInt32(0xAD), UInt32(0x13)), (0xA7, 0x33), (0xAE, 0x23), (0xA8, 0x03)]
    {
      _ = Self.command(command, &controller)
      _ = Self.command(0x20, &controller)
      #expect(Self.take(&controller) == byte)
    }
  }

  @Test("the controller's memory is kept")
  func memory() {
    var controller = I8042()
    _ = Self.command(0x7F, &controller)
    _ = Self.data(0xA5, &controller)
    _ = Self.command(0x3F, &controller)
    #expect(Self.take(&controller) == 0xA5)
    #expect(Self.status(&controller) & 0x08 != 0)
    _ = Self.data(0xF4, &controller)
    #expect(Self.status(&controller) & 0x08 == 0)
  }

  @Test("a key raises IRQ 1 until it is read, once for each byte")
  func keyboardLine() {
    var controller = I8042()
    controller.keyboard.press(.a)
    controller.keyboard.press(.b)
    #expect(!controller.keyboardInterrupt)
    #expect(controller.deliver() == true)
    #expect(controller.keyboardInterrupt)
    #expect(controller.deliver() == false)
    #expect(controller.read(at: 0, width: .byte) == 0x1C)
    #expect(!controller.keyboardInterrupt)
    #expect(controller.deliver() == true)
    #expect(controller.keyboardInterrupt)
    #expect(controller.read(at: 0, width: .byte) == 0x32)
    #expect(controller.deliver() == false)
  }

  @Test("the mouse raises IRQ 12 and marks its bytes")
  func mouseLine() {
    var controller = I8042()
    _ = Self.command(0xD4, &controller)
    _ = Self.data(0xF4, &controller)
    #expect(Self.status(&controller) & 0x21 == 0x21)
    #expect(controller.mouseInterrupt && !controller.keyboardInterrupt)
    #expect(Self.take(&controller) == 0xFA)
    #expect(!controller.mouseInterrupt)
    controller.mouse.move(dx: 1, dy: 0)
    #expect(controller.deliver() == true)
    #expect([Self.take(&controller), Self.take(&controller), Self.take(&controller)] == [8, 1, 0])
  }

  @Test("no interrupt without its enable bit")
  func masked() {
    var controller = I8042()
    _ = Self.command(0x60, &controller)
    _ = Self.data(0x00, &controller)
    controller.keyboard.press(.a)
    _ = controller.deliver()
    #expect(Self.status(&controller) & 1 != 0)
    #expect(!controller.keyboardInterrupt)
  }

  @Test("translation gives set 1 to the host, make and break")
  func translation() {
    var controller = I8042()
    _ = Self.command(0x60, &controller)
    _ = Self.data(0x43, &controller)
    controller.keyboard.press(.up)
    controller.keyboard.release(.up)
    _ = controller.deliver()
    var codes: [UInt32] = []
    while let byte = Self.take(&controller) { codes.append(byte) }
    #expect(codes == [0xE0, 0x48, 0xE0, 0xC8])
    _ = Self.data(0xF2, &controller)
    var replies: [UInt32] = []
    while let byte = Self.take(&controller) { replies.append(byte) }
    #expect(replies == [0xFA, 0xAB, 0x41])
  }

  @Test("D2h and D3h put bytes into the output buffer as from each device")
  func loopback() {
    var controller = I8042()
    _ = Self.command(0xD2, &controller)
    _ = Self.data(0x5A, &controller)
    #expect(controller.keyboardInterrupt)
    #expect(Self.take(&controller) == 0x5A)
    _ = Self.command(0xD3, &controller)
    _ = Self.data(0xA5, &controller)
    #expect(controller.mouseInterrupt)
    #expect(Self.take(&controller) == 0xA5)
  }

  @Test("the output port opens and closes A20")
  func gate() {
    var controller = I8042()
    _ = Self.command(0xD1, &controller)
    #expect(Self.data(0xDD, &controller) == nil)
    #expect(!controller.isA20Enabled)
    _ = Self.command(0xDF, &controller)
    #expect(controller.isA20Enabled)
    _ = Self.command(0xDD, &controller)
    #expect(!controller.isA20Enabled)
  }

  @Test("reset is pulsed by FEh and by output port bit 0, and by no other pulse")
  func resetLine() {
    var controller = I8042()
    #expect(Self.command(0xFE, &controller) == .reset)
    #expect(Self.command(0xF0, &controller) == .reset)
    #expect(Self.command(0xFF, &controller) == nil)
    #expect(Self.command(0xFD, &controller) == nil)
    _ = Self.command(0xD1, &controller)
    #expect(Self.data(0x02, &controller) == .reset)
  }

  @Test("a disabled keyboard's codes wait")
  func disabledKeyboard() {
    var controller = I8042()
    _ = Self.command(0xAD, &controller)
    controller.keyboard.press(.a)
    #expect(controller.deliver() == false)
    _ = controller.write(0xAE, at: 4, width: .byte)
    #expect(controller.deliver() == true)
    #expect(Self.take(&controller) == 0x1C)
  }

  @Test("state survives a round trip in the middle of things")
  func state() {
    var controller = I8042()
    _ = Self.command(0x60, &controller)
    _ = Self.data(0x43, &controller)
    controller.keyboard.press(.up)
    controller.keyboard.press(.print)
    _ = Self.command(0xD4, &controller)
    _ = Self.data(0xF3, &controller)
    controller.mouse.move(dx: 7, dy: -7, wheel: 2)
    controller.mouse.setButtons(.left)
    var other = I8042()
    restore(encoded(controller), into: &other)
    #expect(encoded(other) == encoded(controller))
    for _ in 0..<40 {
      #expect(Self.take(&other) == Self.take(&controller))
    }
  }

  @Test("no access, input or restored state traps", arguments: [UInt64(60), 64] as [UInt64])
  func hostile(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var controller = I8042()
    let keys = Key.allCases
    for round in 0..<200_000 {
      let word = random.next()
      let width = AccessWidth.allCases[Int(word >> 8 & 3)]
      let offset = UInt16(truncatingIfNeeded: word >> 16) & (word & 1 == 0 ? 4 : 0xFFFF)
      switch word >> 1 & 7 {
      case 0: controller.keyboard.press(keys[Int(word >> 32) % keys.count])
      case 1: controller.keyboard.release(keys[Int(word >> 32) % keys.count])
      case 2:
        controller.mouse.move(
          dx: Int32(truncatingIfNeeded: word >> 20), dy: Int32(truncatingIfNeeded: word >> 32),
          wheel: Int32(truncatingIfNeeded: word))
      case 3...5:
        _ = controller.write(UInt32(truncatingIfNeeded: word >> 32), at: offset, width: width)
      default: _ = controller.read(at: offset, width: width)
      }
      _ = controller.deliver()
      if round % 1000 == 0 {
        restore((0..<300).map { _ in UInt8(truncatingIfNeeded: random.next()) }, into: &controller)
      }
    }
    controller.reset()
    #expect(Self.status(&controller) == 0x18)
  }
}
