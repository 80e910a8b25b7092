// SPDX-License-Identifier: Apache-2.0

/// What a software vCPU asks of its machine: everything that is not memory.
///
/// All calls come from the vCPU's own thread.
public protocol SoftBus: AnyObject {
  /// Reads a port; `byteCount` is 1, 2 or 4.
  func readPort(_ port: UInt16, byteCount: Int) -> UInt32
  /// Writes a port; `byteCount` is 1, 2 or 4.
  func writePort(_ port: UInt16, _ value: UInt32, byteCount: Int)
  /// Reads `count` items of `byteCount` bytes each from one port (REP INS); fills `items` with
  /// them, little-endian, and returns how many there were at once: at least one.
  func readPort(_ port: UInt16, byteCount: Int, count: Int, into items: inout [UInt8]) -> Int
  /// Writes all items of `items`, `byteCount` bytes each, to one port (REP OUTS).
  func writePort(_ port: UInt16, byteCount: Int, items: [UInt8])
  /// Reads physical memory where there is neither RAM nor ROM; `byteCount` is 1, 2, 4 or 8.
  func readMemory(_ address: UInt64, byteCount: Int) -> UInt64
  /// Writes physical memory where there is no RAM; `byteCount` is 1, 2, 4 or 8.
  func writeMemory(_ address: UInt64, _ value: UInt64, byteCount: Int)
  /// The vector of the interrupt to take now, acknowledged; `nil` when there is none after all.
  func acknowledgeInterrupt() -> UInt8?
  /// Reads an MSR of the local APIC: 1Bh, 6E0h, 800h to 8FFh; `nil` means #GP.
  func readInterruptMSR(_ index: UInt32) -> UInt64?
  /// Writes an MSR of the local APIC; `false` means #GP.
  func writeInterruptMSR(_ index: UInt32, _ value: UInt64) -> Bool
  /// CR8: the high four bits of the task priority.
  var taskPriority: UInt8 { get set }
  /// The time-stamp counter.
  func timeStamp() -> UInt64
  /// What has to be added to the host's counter to get that, while the CPU runs; `nil` if the two do
  /// not count alike.
  var timeStampOffset: UInt64? { get }
  /// A write to one of the clock MSRs of KVM's interface (4B564D00h and on, 11h, 12h);
  /// `false` means #GP.
  func writeClockMSR(_ index: UInt32, _ value: UInt64) -> Bool
  /// Reads one of them; `nil` means #GP.
  func readClockMSR(_ index: UInt32) -> UInt64?
}

extension SoftBus {
  public var timeStampOffset: UInt64? { nil }
}

/// Why ``SoftCPU/run()`` came back.
public enum SoftExit: Equatable, Sendable {
  /// HLT (or MWAIT): sleep until there is an interrupt, NMI, INIT or something else to see to.
  case halted
  /// ``Attention`` asks for something that the CPU does not deal with itself.
  case attention
  /// A triple fault.
  case shutdown
  /// A breakpoint or single step of the debugger, before the instruction at RIP.
  case debug
}
