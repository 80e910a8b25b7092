// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import Testing

@testable import PS2

@Suite("Key")
struct KeyTests {
  @Test("every key has a name of its own that makes it")
  func names() {
    #expect(Set(Key.allCases.map(\.name)).count == Key.allCases.count)
    for key in Key.allCases { #expect(Key(name: key.name) == key) }
    #expect(Key(name: "kp_enter") == .keypadEnter)
    #expect(Key(name: "no such key") == nil)
  }

  @Test("every key has codes of its own")
  func codes() {
    #expect(Set(Key.allCases.map(\.set2)).count == Key.allCases.count)
    let set3 = Key.allCases.map(\.set3).filter { $0 != 0 }
    #expect(Set(set3).count == set3.count)
  }

  @Test(
    "translation gives the PC's make codes",
    arguments: [
      (Key.escape, UInt8(0x01)), (.digit1, 0x02), (.digit0, 0x0B), (.backspace, 0x0E), (.tab, 0x0F),
      (.q, 0x10), (.p, 0x19), (.ret, 0x1C), (.ctrl, 0x1D), (.a, 0x1E), (.l, 0x26), (.shift, 0x2A),
      (.backslash, 0x2B), (.z, 0x2C), (.m, 0x32), (.slash, 0x35), (.shiftRight, 0x36),
      (.keypadMultiply, 0x37), (.alt, 0x38), (.space, 0x39), (.capsLock, 0x3A), (.f1, 0x3B),
      (.f7, 0x41), (.f10, 0x44), (.numLock, 0x45), (.scrollLock, 0x46), (.keypad7, 0x47),
      (.keypadSubtract, 0x4A), (.keypadAdd, 0x4E), (.keypad0, 0x52), (.keypadDecimal, 0x53),
      (.less, 0x56), (.f11, 0x57), (.f12, 0x58), (.up, 0x48), (.left, 0x4B), (.right, 0x4D),
      (.down, 0x50), (.home, 0x47), (.delete, 0x53), (.metaLeft, 0x5B), (.menu, 0x5D),
    ] as [(Key, UInt8)])
  func translation(key: Key, code: UInt8) {
    #expect(Key.translate(UInt8(truncatingIfNeeded: key.set2)) == code)
  }
}

@Suite("PS2Keyboard")
struct PS2KeyboardTests {
  static func drain(_ keyboard: inout PS2Keyboard) -> [UInt8] {
    var bytes: [UInt8] = []
    while let byte = keyboard.next() { bytes.append(byte) }
    return bytes
  }

  static func send(_ bytes: [UInt8], to keyboard: inout PS2Keyboard) -> [UInt8] {
    var replies: [UInt8] = []
    for byte in bytes {
      keyboard.receive(byte)
      replies += drain(&keyboard)
    }
    return replies
  }

  @Test(
    "commands answer as IBM's keyboard does",
    arguments: [
      ([UInt8(0xFF)], [UInt8(0xFA), 0xAA]), ([0xF2], [0xFA, 0xAB, 0x83]), ([0xEE], [0xEE]),
      ([0xF4], [0xFA]), ([0xF5], [0xFA]), ([0xF6], [0xFA]), ([0xED, 0x07], [0xFA, 0xFA]),
      ([0xF3, 0x20], [0xFA, 0xFA]), ([0xF0, 0x00], [0xFA, 0xFA, 0x02]),
      ([0xF0, 0x01, 0xF0, 0x00], [0xFA, 0xFA, 0xFA, 0xFA, 0x01]), ([0xF0, 0x04], [0xFA, 0xFE]),
      ([0x00], [0xFE]), ([0xF2, 0xFE], [0xFA, 0xAB, 0x83, 0x83]), ([0xF9], [0xFA]),
    ] as [([UInt8], [UInt8])])
  func commands(bytes: [UInt8], replies: [UInt8]) {
    var keyboard = PS2Keyboard()
    #expect(Self.send(bytes, to: &keyboard) == replies)
  }

  @Test("LEDs and typematic rate are kept")
  func settings() {
    var keyboard = PS2Keyboard()
    _ = Self.send([0xED, 0x05, 0xF3, 0x7F], to: &keyboard)
    #expect(keyboard.leds == 5)
    #expect(keyboard.typematic == 0x7F)
    _ = Self.send([0xF6], to: &keyboard)
    #expect(keyboard.typematic == 0x2B)
  }

  @Test("a command in place of an argument is obeyed")
  func commandAsArgument() {
    var keyboard = PS2Keyboard()
    #expect(Self.send([0xED, 0xF4], to: &keyboard) == [0xFA, 0xFA])
    #expect(keyboard.leds == 0)
  }

  @Test(
    "keys send make and break codes of set 2",
    arguments: [
      (Key.a, [UInt8(0x1C), 0xF0, 0x1C]), (.up, [0xE0, 0x75, 0xE0, 0xF0, 0x75]),
      (.pause, [0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77]),
      (.print, [0xE0, 0x12, 0xE0, 0x7C, 0xE0, 0xF0, 0x7C, 0xE0, 0xF0, 0x12]),
    ] as [(Key, [UInt8])])
  func setTwo(key: Key, codes: [UInt8]) {
    var keyboard = PS2Keyboard()
    keyboard.press(key)
    keyboard.release(key)
    #expect(Self.drain(&keyboard) == codes)
  }

  @Test(
    "keys send codes of set 1 when told to",
    arguments: [
      (Key.a, [UInt8(0x1E), 0x9E]), (.up, [0xE0, 0x48, 0xE0, 0xC8]),
      (.pause, [0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5]),
      (.print, [0xE0, 0x2A, 0xE0, 0x37, 0xE0, 0xB7, 0xE0, 0xAA]),
    ] as [(Key, [UInt8])])
  func setOne(key: Key, codes: [UInt8]) {
    var keyboard = PS2Keyboard()
    _ = Self.send([0xF0, 0x01], to: &keyboard)
    keyboard.press(key)
    keyboard.release(key)
    #expect(Self.drain(&keyboard) == codes)
  }

  @Test("keys send codes of set 3 when told to")
  func setThree() {
    var keyboard = PS2Keyboard()
    _ = Self.send([0xF0, 0x03], to: &keyboard)
    keyboard.press(.ctrl)
    keyboard.release(.ctrl)
    #expect(Self.drain(&keyboard) == [0x11, 0xF0, 0x11])
  }

  @Test("alt with print screen is system request, ctrl with pause is break")
  func modified() {
    var keyboard = PS2Keyboard()
    keyboard.press(.alt)
    keyboard.press(.print)
    #expect(Self.drain(&keyboard) == [0x11, 0x84])
    keyboard.release(.alt)
    keyboard.press(.ctrl)
    _ = Self.drain(&keyboard)
    keyboard.press(.pause)
    #expect(Self.drain(&keyboard) == [0xE0, 0x7E, 0xE0, 0xF0, 0x7E])
  }

  @Test("nothing is scanned while disabled")
  func disabled() {
    var keyboard = PS2Keyboard()
    _ = Self.send([0xF5], to: &keyboard)
    keyboard.press(.a)
    #expect(!keyboard.hasOutput)
    _ = Self.send([0xF4], to: &keyboard)
    keyboard.press(.a)
    #expect(Self.drain(&keyboard) == [0x1C])
  }

  @Test("sixteen bytes fit, then comes one overrun code and nothing more")
  func overrun() {
    var keyboard = PS2Keyboard()
    for _ in 0..<20 { keyboard.press(.a) }
    #expect(Self.drain(&keyboard) == [UInt8](repeating: 0x1C, count: 16) + [0x00])
    keyboard.press(.b)
    #expect(Self.drain(&keyboard) == [0x32])
  }

  @Test("a sequence that does not fit is lost whole")
  func wholeSequences() {
    var keyboard = PS2Keyboard()
    for _ in 0..<15 { keyboard.press(.a) }
    keyboard.press(.up)
    keyboard.press(.a)
    #expect(Self.drain(&keyboard) == [UInt8](repeating: 0x1C, count: 15) + [0x00])
  }
}
