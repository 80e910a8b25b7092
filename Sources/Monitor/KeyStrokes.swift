// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol

/// Key events out of what an operator types.
public enum KeyStrokes {
  /// The events of keys that are held together, such as `ctrl-alt-delete`.
  ///
  /// They go down in order and up in the reverse order. Names are QMP's.
  /// - Returns: `nil` when there is nothing between two dashes.
  public static func chord(_ text: String) -> [InputRequest.Key]? {
    let names = text.split(separator: "-", omittingEmptySubsequences: false).map(String.init)
    guard !names.contains("") else { return nil }
    return names.map { InputRequest.Key(name: $0, isDown: true) }
      + names.reversed().map { InputRequest.Key(name: $0, isDown: false) }
  }

  /// The name of a key by its number in QMP: the PC's scan code of set 1, plus 80h for those that
  /// have a prefix.
  public static func name(number: Int) -> String? { numbers[number] }

  private static let numbers: [Int: String] = {
    var names: [Int: String] = [:]
    func row(_ first: Int, _ keys: String) {
      for (index, key) in keys.split(separator: " ").enumerated() {
        names[first + index] = String(key)
      }
    }
    row(0x01, "esc 1 2 3 4 5 6 7 8 9 0 minus equal backspace tab")
    row(0x10, "q w e r t y u i o p bracket_left bracket_right ret ctrl")
    row(0x1E, "a s d f g h j k l semicolon apostrophe grave_accent shift backslash")
    row(0x2C, "z x c v b n m comma dot slash shift_r kp_multiply alt spc caps_lock")
    row(0x3B, "f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 num_lock scroll_lock")
    row(0x47, "kp_7 kp_8 kp_9 kp_subtract kp_4 kp_5 kp_6 kp_add kp_1 kp_2 kp_3 kp_0 kp_decimal")
    row(0x56, "less f11 f12")
    row(0x9C, "kp_enter ctrl_r")
    names[0xB5] = "kp_divide"
    row(0xB7, "print alt_r")
    row(0xC6, "pause home up pgup")
    names[0xCB] = "left"
    names[0xCD] = "right"
    row(0xCF, "end down pgdn insert delete")
    row(0xDB, "meta_l meta_r menu power sleep")
    names[0xE3] = "wake"
    return names
  }()

  /// The events that type a character on a US keyboard; `nil` when it has none.
  public static func character(_ character: Character) -> [InputRequest.Key]? {
    if character.isASCII, character.isLetter {
      let name = character.lowercased()
      return chord(character.isUppercase ? "shift-\(name)" : name)
    }
    if character.isASCII, character.isNumber { return chord(String(character)) }
    if let name = plain[character] { return chord(name) }
    if let name = shifted[character] { return chord("shift-\(name)") }
    return nil
  }

  private static let plain: [Character: String] = [
    " ": "spc", "\n": "ret", "\t": "tab", "-": "minus", "=": "equal", "[": "bracket_left",
    "]": "bracket_right", "\\": "backslash", ";": "semicolon", "'": "apostrophe",
    "`": "grave_accent", ",": "comma", ".": "dot", "/": "slash",
  ]

  private static let shifted: [Character: String] = [
    "!": "1", "@": "2", "#": "3", "$": "4", "%": "5", "^": "6", "&": "7", "*": "8", "(": "9",
    ")": "0", "_": "minus", "+": "equal", "{": "bracket_left", "}": "bracket_right",
    "|": "backslash", ":": "semicolon", "\"": "apostrophe", "~": "grave_accent", "<": "comma",
    ">": "dot", "?": "slash",
  ]
}
