// SPDX-License-Identifier: Apache-2.0

/// A JSON value with its members in order, written the way qemu-img does.
enum JSON {
  case string(String)
  case number(UInt64)
  case bool(Bool)
  case list([JSON])
  case object([(String, JSON)])

  func text(indent: Int = 0) -> String {
    let inner = String(repeating: " ", count: indent + 4)
    let outer = String(repeating: " ", count: indent)
    switch self {
    case .string(let text): return Self.quoted(text)
    case .number(let number): return "\(number)"
    case .bool(let bool): return bool ? "true" : "false"
    case .list(let items):
      if items.isEmpty { return "[\n\(outer)]" }
      return "[\n"
        + items.map { inner + $0.text(indent: indent + 4) }.joined(separator: ",\n")
        + "\n\(outer)]"
    case .object(let members):
      return "{\n"
        + members.map { "\(inner)\(Self.quoted($0.0)): \($0.1.text(indent: indent + 4))" }
        .joined(separator: ",\n") + "\n\(outer)}"
    }
  }

  static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case _ where scalar.value < 0x20 || scalar.value == 0x7F:
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}

/// Sizes and texts for people.
enum Words {
  /// A size with three significant digits, as qemu-img gives it.
  static func size(_ bytes: UInt64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    var value = Double(bytes)
    var unit = 0
    while value >= 999.5, unit < units.count - 1 {
      value /= 1024
      unit += 1
    }
    return "\(digits(value)) \(units[unit])"
  }

  private static func digits(_ value: Double) -> String {
    let scale = value < 9.995 ? 100.0 : value < 99.95 ? 10.0 : 1.0
    let rounded = Int((value * scale).rounded(.toNearestOrEven))
    let whole = rounded / Int(scale)
    var rest = rounded % Int(scale)
    guard rest > 0 else { return "\(whole)" }
    var places = scale == 100 ? 2 : 1
    if rest % 10 == 0, places == 2 {
      rest /= 10
      places = 1
    }
    let text = "\(rest)"
    return "\(whole)." + String(repeating: "0", count: places - text.utf8.count) + text
  }

  /// Two decimals of a ratio in percent.
  static func percent(_ part: UInt64, of whole: UInt64) -> String {
    guard whole > 0 else { return "0.00" }
    let value = Int((Double(part) * 10000 / Double(whole)).rounded())
    let rest = "\(value % 100)"
    return "\(value / 100)." + (rest.utf8.count == 1 ? "0" : "") + rest
  }

  /// A text of an image without what could steer a terminal.
  static func visible(_ text: String) -> String {
    String(
      String.UnicodeScalarView(
        text.unicodeScalars.map { $0.value < 0x20 || (0x7F..<0xA0).contains($0.value) ? "?" : $0 }))
  }

  static func padded(_ text: String, _ width: Int, right: Bool = false) -> String {
    let fill = String(repeating: " ", count: max(0, width - text.count))
    return right ? fill + text : text + fill
  }

  static func number(_ value: UInt64, _ width: Int) -> String {
    let text = "\(value)"
    return String(repeating: "0", count: max(0, width - text.utf8.count)) + text
  }

  /// A date in UTC (the civil calendar from days, as Howard Hinnant describes it).
  static func date(_ seconds: UInt64) -> String {
    let days = Int(seconds / 86400) + 719468
    let era = days / 146097
    let dayOfEra = days % 146097
    let year = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146096) / 365
    let dayOfYear = dayOfEra - (365 * year + year / 4 - year / 100)
    let shifted = (5 * dayOfYear + 2) / 153
    let day = dayOfYear - (153 * shifted + 2) / 5 + 1
    let month = shifted < 10 ? shifted + 3 : shifted - 9
    let fullYear = era * 400 + year + (month <= 2 ? 1 : 0)
    let second = seconds % 86400
    return "\(number(UInt64(fullYear), 4))-\(number(UInt64(month), 2))-\(number(UInt64(day), 2)) "
      + "\(number(second / 3600, 2)):\(number(second / 60 % 60, 2)):\(number(second % 60, 2))"
  }
}
