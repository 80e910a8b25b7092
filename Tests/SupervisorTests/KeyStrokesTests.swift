// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Monitor
import PS2
import Testing

@Suite("Key strokes of vmctl")
struct KeyStrokesTests {
  @Test("keys held together go down in order and up in reverse")
  func chord() {
    let events = KeyStrokes.chord("ctrl-alt-delete") ?? []
    #expect(events.map(\.name) == ["ctrl", "alt", "delete", "delete", "alt", "ctrl"])
    #expect(events.map(\.isDown) == [true, true, true, false, false, false])
  }

  @Test("nothing between dashes is no combination", arguments: ["", "ctrl-", "-a", "a--b"])
  func malformed(text: String) {
    #expect(KeyStrokes.chord(text) == nil)
  }

  @Test("every printable character of ASCII has keys that the keyboard knows")
  func ascii() {
    let characters = (0x20..<0x7F).map { Character(Unicode.Scalar(UInt8($0))) } + ["\n", "\t"]
    let missing = characters.filter { character in
      guard let stroke = KeyStrokes.character(character) else { return true }
      return !stroke.allSatisfy { Key(name: $0.name) != nil }
    }
    #expect(missing == [])
  }

  @Test("a capital letter holds shift, a letter of another alphabet has no key")
  func letters() {
    #expect(KeyStrokes.character("A")?.map(\.name) == ["shift", "a", "a", "shift"])
    #expect(KeyStrokes.character("ä") == nil)
  }
}
