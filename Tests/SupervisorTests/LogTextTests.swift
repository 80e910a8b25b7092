// SPDX-License-Identifier: Apache-2.0

import LinuxSystem
import Supervisor
import Testing

@Suite("Log lines of processes that are not trusted")
struct LogTextTests {
  @Test("a line comes out when it is complete, across writes")
  func completesLines() {
    var lines = LogLines()
    let first = lines.add(Array("one\ntw".utf8))
    let second = lines.add(Array("o\n".utf8))
    #expect(first == ["one"])
    #expect(second == ["two"])
    let rest = lines.finish()
    #expect(rest == nil)
  }

  @Test("an unfinished line comes out at the end")
  func finishes() {
    var lines = LogLines()
    _ = lines.add(Array("half".utf8))
    let rest = [lines.finish(), lines.finish()]
    #expect(rest == ["half", nil])
  }

  @Test(
    "what a terminal would act on is made visible",
    arguments: [
      ("a\u{1B}[2Jb", "a\\u{1B}[2Jb"), ("\rover", "\\u{D}over"), ("\u{202E}abc", "\\u{202E}abc"),
      ("\u{9B}31m", "\\u{9B}31m"), ("grün ☃", "grün ☃"), ("\u{2028}", "\\u{2028}"),
    ])
  func escapes(text: String, expected: String) {
    #expect(VisibleText.escape(text) == expected)
  }

  @Test("bytes that are not UTF-8 become replacement characters")
  func invalid() {
    var lines = LogLines()
    let result = lines.add([0xFF, 0x41, 0x0A])
    #expect(result == ["\u{FFFD}A"])
  }

  @Test("a long line is cut and says so, and the next one is whole")
  func cuts() {
    var lines = LogLines()
    let long = [UInt8](repeating: 0x61, count: 5000)
    let result = lines.add(long + Array("\nnext\n".utf8))
    #expect(result.count == 2)
    #expect(result[0].count == LogLines.longest + 1)
    #expect(result[0].hasSuffix("…"))
    #expect(result[1] == "next")
  }
}

@Suite("The restart budget")
struct RestartBudgetTests {
  @Test("five restarts within ten seconds are allowed, the sixth is not")
  func runsOut() {
    var budget = RestartBudget()
    let taken = (0..<6).map { budget.take(at: $0 * 1_000_000_000) }
    #expect(taken == [true, true, true, true, true, false])
  }

  @Test("restarts longer ago than the span do not count")
  func recovers() {
    var budget = RestartBudget(most: 1, span: 10)
    let taken = [budget.take(at: 100), budget.take(at: 109), budget.take(at: 110)]
    #expect(taken == [true, false, true])
  }
}
