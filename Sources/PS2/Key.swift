// SPDX-License-Identifier: Apache-2.0

/// A key of the 102-key PC keyboard, named as QMP's `send-key` and `input-send-event` do.
///
/// The name of a case is the name on the wire, but for digits (`0` is ``digit0``) and
/// words that Swift keeps for itself; ``init(name:)`` takes the wire's.
public enum Key: UInt8, Sendable, CaseIterable {
  case a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z
  case digit0, digit1, digit2, digit3, digit4, digit5, digit6, digit7, digit8, digit9
  case minus, equal, backspace, tab, bracketLeft, bracketRight, backslash, semicolon
  case apostrophe, graveAccent, comma, dot, slash, less, space, ret, escape, capsLock
  case shift, shiftRight, ctrl, ctrlRight, alt, altRight, metaLeft, metaRight, menu
  case f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12
  case print, scrollLock, pause
  case insert, delete, home, end, pageUp, pageDown, up, down, left, right
  case numLock, keypadDivide, keypadMultiply, keypadSubtract, keypadAdd, keypadEnter
  case keypadDecimal, keypad0, keypad1, keypad2, keypad3, keypad4
  case keypad5, keypad6, keypad7, keypad8, keypad9
  case power, sleep, wake

  /// Makes the key that QMP calls `name`, such as `ret`, `shift`, `1` or `kp_enter`.
  public init?(name: String) {
    for key in Key.allCases where key.name == name {
      self = key
      return
    }
    return nil
  }

  /// The name that QMP uses.
  public var name: String { Self.names[Int(rawValue)] }

  private static let names: [String] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m",
    "n", "o", "p", "q", "r", "s", "t", "u", "v", "w", "x", "y", "z",
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9",
    "minus", "equal", "backspace", "tab", "bracket_left", "bracket_right", "backslash",
    "semicolon", "apostrophe", "grave_accent", "comma", "dot", "slash", "less", "spc", "ret",
    "esc", "caps_lock",
    "shift", "shift_r", "ctrl", "ctrl_r", "alt", "alt_r", "meta_l", "meta_r", "menu",
    "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11", "f12",
    "print", "scroll_lock", "pause",
    "insert", "delete", "home", "end", "pgup", "pgdn", "up", "down", "left", "right",
    "num_lock", "kp_divide", "kp_multiply", "kp_subtract", "kp_add", "kp_enter",
    "kp_decimal", "kp_0", "kp_1", "kp_2", "kp_3", "kp_4",
    "kp_5", "kp_6", "kp_7", "kp_8", "kp_9",
    "power", "sleep", "wake",
  ]
}
