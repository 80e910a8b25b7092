// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Operator

@Suite struct LineEditorTests {
  /// Types bytes; what was shown, and the lines.
  private func type(_ text: String, _ editor: inout LineEditor) -> (echo: String, lines: [String]) {
    var echo = ""
    var lines: [String] = []
    for byte in text.utf8 {
      switch editor.take(byte, complete: { $0 == "inf" ? "o " : nil }) {
      case .echo(let text): echo += text
      case .line(let line): lines.append(line)
      }
    }
    return (echo, lines)
  }

  @Test func `What is typed is shown, and erased a character at a time`() {
    var editor = LineEditor()
    let result = type("st\u{e9}x\u{7f}\u{7f}op\r", &editor)
    #expect(result.echo == "st\u{e9}x\u{8} \u{8}\u{8} \u{8}op")
    #expect(result.lines == ["stop"])
  }

  @Test func `Arrows go through the history and back to an empty line`() {
    var editor = LineEditor()
    _ = type("one\rtwo\r", &editor)
    #expect(type("\u{1b}[A\u{1b}[A\r", &editor).lines == ["one"])
    #expect(type("\u{1b}[A\u{1b}[B\r", &editor).lines == [""])
  }

  @Test func `The tabulator completes, and other keys do nothing`() {
    var editor = LineEditor()
    #expect(type("inf\tcpus\u{1b}[5~\u{02}\r", &editor).lines == ["info cpus"])
  }

  @Test func `Bytes that are no text are passed over, and a line has an end`() {
    var editor = LineEditor()
    for byte: UInt8 in [0xFF, 0xFE, 0x80, 0xC3, 0xFF] {
      _ = editor.take(byte, complete: { _ in nil })
    }
    let long = String(repeating: "a", count: 10000)
    #expect(type(long + "\r", &editor).lines.first.map { $0.utf8.count <= 4096 } == true)
  }
}
