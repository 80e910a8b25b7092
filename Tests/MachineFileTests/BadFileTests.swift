// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MachineFile

@Suite("A bad machine file gives one exact error")
struct BadFileTests {
  @Test("the top level and [machine]", arguments: machineCases)
  func machine(bad: BadFile) {
    #expect(parseError(bad.text) == bad.error)
  }

  @Test("[boot], [[drive]] and [[serial]]", arguments: driveCases)
  func drive(bad: BadFile) {
    #expect(parseError(bad.text) == bad.error)
  }

  @Test("the other tables", arguments: otherCases)
  func other(bad: BadFile) {
    #expect(parseError(bad.text) == bad.error)
  }

  @Test("keys and values that this version does not support", arguments: unsupportedCases)
  func unsupported(bad: BadFile) {
    #expect(parseError(bad.text) == bad.error)
  }

  @Test("rules of keys that are not supported yet", arguments: futureCases)
  func future(bad: BadFile) {
    #expect(parseError(bad.text, unsupported: []) == bad.error)
  }

  static let long = String(repeating: "x", count: 64)
  static let nameRule =
    "1 to 63 of a-z, 0-9, \"_\", \".\" and \"-\", the first a letter or digit"
  static let sizeRule = "a whole number with KiB, MiB, GiB or TiB, such as 512MiB"
  static let addressRule = "ADDRESS:PORT such as 127.0.0.1:5900 or [::1]:5900, unix:PATH"
}
