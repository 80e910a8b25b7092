// SPDX-License-Identifier: Apache-2.0

/// Text from a process that is not trusted, on its way to a terminal.
public enum VisibleText {
  /// Returns text with its control and formatting characters in a visible form.
  public static func escape(_ text: String, keepsLines: Bool = false) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      if keepsLines && scalar == "\n" {
        result.unicodeScalars.append(scalar)
        continue
      }
      switch scalar.properties.generalCategory {
      case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator,
        .paragraphSeparator:
        result += "\\u{" + String(scalar.value, radix: 16, uppercase: true) + "}"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}
