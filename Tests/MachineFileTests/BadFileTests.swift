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

  @Test("of several errors the first in the file is thrown, whatever is read first")
  func firstInFile() {
    let drive = "[[drive]]\nslot = \"ide9\"\nimage = \"a\"\nformat = \"raw\"\n"
    let debug = "[debug]\nexit-port = 96\n"

    let driveFirst = parseError("name = \"a\"\n" + drive + debug)
    let debugFirst = parseError("name = \"a\"\n" + debug + drive)

    #expect(driveFirst.hasPrefix("m.toml:3:8: drive[0].slot: "))
    #expect(debugFirst.hasPrefix("m.toml:3:13: debug.exit-port: "))
  }

  static let long = String(repeating: "x", count: 64)
  static let nameRule =
    "1 to 63 of a-z, 0-9, \"_\", \".\" and \"-\", the first a letter or digit"
  static let sizeRule = "a whole number with KiB, MiB, GiB or TiB, such as 512MiB"
  static let addressRule = "ADDRESS:PORT such as 127.0.0.1:5900 or [::1]:5900, unix:PATH"
}
