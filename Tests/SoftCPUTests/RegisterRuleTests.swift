// SPDX-License-Identifier: Apache-2.0

import Processor
import Testing

@Suite struct RegisterRuleTests {
  /// 64-bit code with paging, as a kernel has it.
  private var long: SystemRegisters {
    var state = SystemRegisters()
    state.cs.isPresent = true
    state.cs.isLong = true
    state.cr0 = 0x8000_0011
    state.cr4 = 0x20
    state.efer = 0x500
    return state
  }

  @Test func `A state that a processor was in has no conflict`() {
    #expect(long.conflict(after: long) == nil)
    #expect(long.cr8 == 0)
  }

  private static let wrong: [(String, UInt64, String)] = [
    ("cr0", 0x8000_0010, "CR0.PG without CR0.PE"),
    ("cr0", 0xA000_0011, "CR0.NW without CR0.CD"),
    ("cr0", 1 << 40, "CR0 has bits above 31"),
    ("cr0", 0x11, "64-bit code outside of long mode"),
    ("cr3", 1 << 60, "CR3 has bits above 51"),
    ("cr4", 0x20 | 1 << 13, "CR4 has bits that are unknown"),
    ("cr4", 0, "long mode without CR4.PAE"),
    ("cr8", 16, "CR8 is above 15"),
    ("efer", 0x500 | 1 << 12, "EFER has bits that are unknown"),
    ("efer", 0, "64-bit code outside of long mode"),
  ]

  @Test(arguments: wrong)
  func `What no processor can be in is named`(
    register: String, value: UInt64, reason: String
  ) {
    var state = long
    switch register {
    case "cr0": state.cr0 = value
    case "cr3": state.cr3 = value
    case "cr4": state.cr4 = value
    case "cr8": state.cr8 = value
    default: state.efer = value
    }
    state.complete()
    #expect(state.conflict(after: long) == reason)
  }

  @Test func `Long mode is active as soon as it is enabled and paged`() {
    var state = long
    state.efer = 0x100
    state.complete()
    #expect(state.efer == 0x500)
    state.cr0 = 1
    state.complete()
    #expect(state.efer == 0x100 && state.cr0 == 0x11)
  }
}
