// SPDX-License-Identifier: Apache-2.0

internal import Processor

/// For who runs a vCPU: single steps, and what a halted one waits for.
extension SoftCPU {
  /// Delivers what is on its way to the guest, then executes one instruction, or delivers the
  /// exception that it raises.
  ///
  /// With `deliversAlone` the delivery of an interrupt is a step of its own. Returns `nil` when
  /// the next one could be executed.
  public mutating func step(deliversAlone: Bool = false) -> SoftExit? {
    leavesBlock = false
    // Where care is needed, that executes one or delivers its exception.
    let isCareful = needsCare
    let before = rip
    if attention.pending & servable != 0 || isCareful, let exit = serve() { return exit }
    if deliversAlone, rip != before { return nil }
    if isHalted { return .halted }
    if isCareful { return nil }
    do throws(Fault) {
      try executeOne()
    } catch {
      return deliver(error) ? nil : .shutdown
    }
    return isHalted ? .halted : nil
  }

  /// What kind of instruction is at RIP: equal numbers for the same opcode, whatever its
  /// operands; `nil` when it cannot be fetched.
  public mutating func nextInstructionKind() -> UInt32? {
    do throws(Fault) {
      let next = try fetchOne()
      return UInt32(next.opNumber) << 16 | UInt32(next.map & 0x3F) << 8 | UInt32(next.opcode)
    } catch {
      return nil
    }
  }

  /// The linear address of the next instruction.
  public var programCounter: UInt64 { segments[1].base &+ rip }

  /// Whether an interrupt would be taken, were there one (RFLAGS.IF).
  public var isInterruptible: Bool { systemFlags & 0x200 != 0 }

  /// Whether an NMI is being handled, which holds off the next.
  public var isNMIMasked: Bool { nmiIsMasked }
}
