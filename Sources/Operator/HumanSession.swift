// SPDX-License-Identifier: Apache-2.0

/// One client of the human monitor's socket: lines in, answers and prompts out.
public struct HumanSession {
  private let monitor: HumanMonitor
  private var line: [UInt8] = []
  private var isSkipping = false

  /// The longest line; what is longer is thrown away.
  static let longest = 4096

  public init(_ monitor: HumanMonitor) { self.monitor = monitor }

  private static let prompt = "(bulkhead) "

  static let banner = "Bulkhead 0.1.0 monitor - type 'help' for more information\r\n"

  /// What a client is sent first.
  public var greeting: String { Self.banner + Self.prompt }

  /// Takes what the client has sent; returns what it is to be sent.
  public mutating func take(_ bytes: [UInt8]) -> String {
    var answer = ""
    for byte in bytes {
      guard byte == 0x0A || byte == 0x0D else {
        if line.count < Self.longest { line.append(byte) } else { isSkipping = true }
        continue
      }
      // A carriage return and a line feed are one end.
      if line.isEmpty, byte == 0x0A, !isSkipping { continue }
      let text = String(decoding: line, as: UTF8.self)
      answer += isSkipping ? "the line is too long\r\n" : Self.terminal(run(text))
      answer += Self.prompt
      line = []
      isSkipping = false
    }
    return answer
  }

  private func run(_ text: String) -> String {
    do throws(CommandError) {
      return try monitor.run(text)
    } catch {
      return "Error: \(error)\n"
    }
  }

  private static func terminal(_ text: String) -> String { text.replacing("\n", with: "\r\n") }
}
