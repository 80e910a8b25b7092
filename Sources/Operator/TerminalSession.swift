// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import Monitor

/// A terminal that a serial port and the human monitor share, as with QEMU's `mon:stdio`.
///
/// What the port sends is always shown; keys go to one of the two, and ctrl-a c changes that.
/// It does no I/O of its own: bytes go in, and what is to be sent where comes out.
public struct TerminalSession {
  /// What is to be sent.
  public struct Output: Equatable {
    /// To the terminal.
    public var terminal: [UInt8] = []
    /// To the serial port.
    public var serial: [UInt8] = []
  }

  private let monitor: HumanMonitor
  private let hasSerial: Bool
  /// Whether keys go to the monitor.
  private var isMonitor: Bool
  private var hasGreeted = false
  private var isEscaped = false
  private var editor = LineEditor()
  /// When the machine began, while each line of the port is shown with its time.
  private var timeZero: UInt64?
  private var isLineStart = true

  private static let escape: UInt8 = 0x01
  private static let prompt = "(bulkhead) "

  public init(_ monitor: HumanMonitor, hasSerial: Bool) {
    self.monitor = monitor
    self.hasSerial = hasSerial
    isMonitor = !hasSerial
  }

  /// What is shown first.
  public mutating func begin() -> [UInt8] { isMonitor ? Array(greet().utf8) : [] }

  private mutating func greet() -> String {
    defer { hasGreeted = true }
    return hasGreeted ? Self.prompt + editor.text : HumanSession.banner + Self.prompt
  }

  /// What the serial port has sent, as it is shown; `now` in nanoseconds.
  public mutating func show(_ bytes: [UInt8], now: UInt64) -> [UInt8] {
    guard let zero = timeZero else { return bytes }
    var shown: [UInt8] = []
    for byte in bytes {
      if isLineStart { shown += Array(Self.stamp((now &- zero) / 1_000_000).utf8) }
      isLineStart = byte == 0x0A
      shown.append(byte)
    }
    return shown
  }

  private static func stamp(_ milliseconds: UInt64) -> String {
    func padded(_ value: UInt64, _ width: Int) -> String {
      let text = String(value)
      return String(repeating: "0", count: max(0, width - text.count)) + text
    }
    let seconds = milliseconds / 1000
    return "[\(padded(seconds / 3600, 2)):\(padded(seconds / 60 % 60, 2)):"
      + "\(padded(seconds % 60, 2)).\(padded(milliseconds % 1000, 3))] "
  }

  /// Takes what was typed.
  public mutating func take(_ bytes: [UInt8], now: UInt64) -> Output {
    var output = Output()
    for byte in bytes {
      if isEscaped {
        isEscaped = false
        command(byte, now, &output)
      } else if byte == Self.escape {
        isEscaped = true
      } else {
        pass(byte, &output)
      }
    }
    return output
  }

  private mutating func pass(_ byte: UInt8, _ output: inout Output) {
    guard isMonitor else {
      output.serial.append(byte)
      return
    }
    switch editor.take(byte, complete: { monitor.completion(of: $0) }) {
    case .echo(let text): output.terminal += Array(text.utf8)
    case .line(let line):
      let answer = (try? monitor.run(line)) ?? ""
      let text = "\r\n" + answer.replacing("\n", with: "\r\n") + Self.prompt
      output.terminal += Array(text.utf8)
    }
  }

  private mutating func command(_ byte: UInt8, _ now: UInt64, _ output: inout Output) {
    func say(_ text: String) { output.terminal += Array(text.utf8) }
    switch byte {
    case UInt8(ascii: "h"), UInt8(ascii: "?"): say(help)
    case UInt8(ascii: "x"):
      say("\r\nBulkhead: Terminated\r\n")
      try? monitor.machine.order(.stop)
    case UInt8(ascii: "t"):
      timeZero = timeZero == nil ? now : nil
      isLineStart = true
    case UInt8(ascii: "b") where hasSerial: sendBreak()
    case UInt8(ascii: "c") where hasSerial:
      isMonitor.toggle()
      say(isMonitor ? "\r\n" + greet() : "\r\n")
    case Self.escape, UInt8(ascii: "a"): pass(Self.escape, &output)
    default: break
    }
  }

  /// Sends the port a break; of its keys those that are on the way already come before or after it.
  private func sendBreak() {
    let port = monitor.machine.settings.ports.firstIndex { $0.backend == "stdio" } ?? 0
    _ = try? monitor.machine.ask(
      .sendBreak, BreakRequest(port: UInt8(clamping: port)), as: Empty.self)
  }

  private var help: String {
    var lines = ["C-a h    print this help", "C-a x    exit emulator"]
    if hasSerial {
      lines += [
        "C-a t    toggle console timestamps", "C-a b    send break (magic sysrq)",
        "C-a c    switch between console and monitor",
      ]
    }
    return "\r\n" + (lines + ["C-a C-a  sends C-a"]).joined(separator: "\r\n") + "\r\n"
  }
}
