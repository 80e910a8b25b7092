// SPDX-License-Identifier: Apache-2.0

/// Why a vCPU left the guest.
public enum Exit: Equatable, Sendable {
  /// The guest accessed ports; see ``PortAccess``.
  case io(PortAccess)
  /// The guest accessed memory where no slot is, or wrote to a read-only slot.
  case mmio(MemoryAccess)
  /// HLT, only without the interrupt chips in the kernel.
  case halt
  /// A triple fault: the machine resets, or ends.
  case shutdown
  /// A kick, or another signal: look at what was asked of this thread.
  case interrupted
  /// The guest can take an interrupt now, as was asked for.
  case interruptWindowOpen
  /// The guest asked for power off, reset or something like it by a paravirtual way.
  case systemEvent(UInt32)
  /// KVM could not go on, for instance with an instruction that it cannot emulate
  /// (`suberror` 1); ``VCPU/failedInstruction`` may tell which.
  case internalError(suberror: UInt32)
  /// The processor refused to enter the guest.
  case failEntry(reason: UInt64)
  /// A breakpoint or single step of the debugger.
  /// `status` is what DR6 would say: bits 0 to 3 the registers that matched, bit 14 a step.
  case debug(exception: UInt32, pc: UInt64, status: UInt64)
  /// The I/O APIC's line with this vector was acknowledged.
  case endOfInterrupt(vector: UInt8)
  /// An exit that Bulkhead does not ask for, by its number in linux/kvm.h.
  case unknown(UInt32)

  /// An IN, OUT, INS or OUTS.
  public struct PortAccess: Equatable, Sendable {
    public var isWrite: Bool
    /// The width of one item in bytes: 1, 2 or 4.
    public var width: UInt8
    public var port: UInt16
    /// How many items; more than one only for string instructions.
    public var count: UInt32
    /// Where the first item lies in the pages shared with KVM.
    let dataOffset: Int

    /// The size of all items in bytes.
    public var byteCount: Int { Int(width) * Int(count) }
  }

  /// A load or store at a physical address.
  public struct MemoryAccess: Equatable, Sendable {
    public var address: UInt64
    /// The value written, in the low bytes; zero for a read.
    public var data: UInt64
    /// The width in bytes, 1 to 8; not always a power of two.
    public var byteCount: UInt8
    public var isWrite: Bool
  }
}

/// The layout of `struct kvm_run`: byte offsets.
enum RunPage {
  static let interruptWindow = 0
  static let immediateExit = 1
  static let exitReason = 8
  static let readyForInterrupt = 12
  static let cr8 = 16
  static let detail = 32
  static let validRegisters = 288
  static let dirtyRegisters = 296
  static let registers = 304
  static let systemRegisters = 448
  static let events = 760
}
