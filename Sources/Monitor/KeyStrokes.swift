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
