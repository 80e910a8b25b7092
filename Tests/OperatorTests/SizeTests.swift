// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Operator

@Suite struct SizeTests {
  @Test(arguments: [
    ("4", 4 << 20), ("4M", 4 << 20), ("1G", 1 << 30), ("512k", 512 << 10), ("100B", 100),
    ("1.5K", 1536), ("0", 0), ("0x10k", 16 << 10), ("7E", 7 << 60),
  ])
  func `A size is in MiB, or has a letter`(text: String, bytes: Int64) {
    #expect(HumanMonitor.size(text) == bytes)
  }

  @Test(arguments: ["", "-1", "x", "1.2.3", "1X", "9E", "1 M", "B", ".", "0x", "1.B"])
  func `What is no size is none`(text: String) {
    #expect(HumanMonitor.size(text) == nil)
  }
}
