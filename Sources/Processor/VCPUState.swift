// SPDX-License-Identifier: Apache-2.0

/// A vCPU's architectural state, in KVM's terms, for every accelerator.
public struct VCPUState: Equatable, Sendable {
  public var registers = GeneralRegisters()
  public var system = SystemRegisters()
  public var events = PendingEvents()
  public var debug = DebugRegisters()
  public var mode = RunState.runnable
  /// The XSAVE area in the standard format, 4096 bytes; the first 512 are FXSAVE's.
  public var xsave = [UInt8](repeating: 0, count: 4096)
  /// The extended control registers, by number; empty where there is no XSAVE.
  public var xcrs: [ExtendedControlRegister] = []
  /// The model-specific registers that could be read.
  public var msrs: [ModelSpecificRegister] = []
  /// The local APIC's registers, 1024 bytes; empty where it is not in the kernel.
  public var lapic: [UInt8] = []
  /// The frequency of the time-stamp counter in kHz; zero when unknown.
  public var tscKHz: UInt32 = 0

  public init() {}
}

/// The general registers, the instruction pointer and the flags.
public struct GeneralRegisters: Equatable, Sendable {
  public var rax: UInt64 = 0
  public var rbx: UInt64 = 0
  public var rcx: UInt64 = 0
  public var rdx: UInt64 = 0
  public var rsi: UInt64 = 0
  public var rdi: UInt64 = 0
  public var rsp: UInt64 = 0
  public var rbp: UInt64 = 0
  public var r8: UInt64 = 0
  public var r9: UInt64 = 0
  public var r10: UInt64 = 0
  public var r11: UInt64 = 0
  public var r12: UInt64 = 0
  public var r13: UInt64 = 0
  public var r14: UInt64 = 0
  public var r15: UInt64 = 0
  public var rip: UInt64 = 0
  public var rflags: UInt64 = 2

  public init() {}
}

/// A segment register with its hidden part.
public struct Segment: Equatable, Sendable {
  public var base: UInt64 = 0
  /// The last offset, in bytes whatever the granularity.
  public var limit: UInt32 = 0
  public var selector: UInt16 = 0
  /// The four type bits of the descriptor.
  public var type: UInt8 = 0
  public var isPresent = false
  public var privilege: UInt8 = 0
  /// D or B: 32-bit operands or stack.
  public var is32Bit = false
  /// S: code or data, not a system segment.
  public var isCodeOrData = false
  /// L: 64-bit code.
  public var isLong = false
  /// G: the descriptor's limit counts pages.
  public var isPageGranular = false
  public var available = false
  /// Loaded with a null selector.
  public var isUnusable = false

  public init() {}
}

/// The register of a descriptor table.
public struct DescriptorTable: Equatable, Sendable {
  public var base: UInt64 = 0
  public var limit: UInt16 = 0

  public init() {}
}

/// Segments, descriptor tables and control registers.
public struct SystemRegisters: Equatable, Sendable {
  public var cs = Segment()
  public var ds = Segment()
  public var es = Segment()
  public var fs = Segment()
  public var gs = Segment()
  public var ss = Segment()
  public var tr = Segment()
  public var ldt = Segment()
  public var gdt = DescriptorTable()
  public var idt = DescriptorTable()
  public var cr0: UInt64 = 0
  public var cr2: UInt64 = 0
  public var cr3: UInt64 = 0
  public var cr4: UInt64 = 0
  public var cr8: UInt64 = 0
  public var efer: UInt64 = 0
  /// The APIC base register, IA32_APIC_BASE.
  public var apicBase: UInt64 = 0
  /// The external interrupt being injected: at most one bit of 256.
  public var interruptBitmap = [UInt64](repeating: 0, count: 4)

  public init() {}
}

/// Exceptions and interrupts on their way to the guest.
public struct PendingEvents: Equatable, Sendable {
  public var exceptionIsInjected = false
  public var exceptionVector: UInt8 = 0
  public var exceptionHasErrorCode = false
  public var exceptionIsPending = false
  public var exceptionErrorCode: UInt32 = 0
  public var exceptionHasPayload = false
  public var exceptionPayload: UInt64 = 0
  public var interruptIsInjected = false
  public var interruptVector: UInt8 = 0
  public var interruptIsSoftware = false
  /// Bit 0: STI's shadow; bit 1: MOV SS's.
  public var interruptShadow: UInt8 = 0
  public var nmiIsInjected = false
  public var nmiIsPending: UInt8 = 0
  public var nmiIsMasked = false
  public var startupVector: UInt32 = 0
  public var isInSMM = false
  public var smiIsPending = false
  public var isInNMIInSMM = false
  public var initIsLatched: UInt8 = 0
  public var tripleFaultIsPending: UInt8 = 0
  /// Which fields count: the KVM_VCPUEVENT_VALID_ bits.
  public var validity: UInt32 = 0

  public init() {}
}

/// The debug registers.
public struct DebugRegisters: Equatable, Sendable {
  public var dr0: UInt64 = 0
  public var dr1: UInt64 = 0
  public var dr2: UInt64 = 0
  public var dr3: UInt64 = 0
  public var dr6: UInt64 = 0xFFFF_0FF0
  public var dr7: UInt64 = 0x400

  public init() {}
}

/// An extended control register and its value.
public struct ExtendedControlRegister: Equatable, Sendable {
  public var number: UInt32
  public var value: UInt64

  public init(number: UInt32, value: UInt64) {
    self.number = number
    self.value = value
  }
}

/// A model-specific register and its value.
public struct ModelSpecificRegister: Equatable, Sendable {
  public var index: UInt32
  public var value: UInt64

  public init(index: UInt32, value: UInt64) {
    self.index = index
    self.value = value
  }
}

/// Whether a vCPU runs or waits, and for what (KVM_GET_MP_STATE).
public enum RunState: UInt32, Sendable {
  case runnable = 0
  /// Waits for an INIT, as all but vCPU 0 do after a reset.
  case uninitialized = 1
  /// Has had the INIT and waits for the start-up message.
  case initReceived = 2
  case halted = 3
  case startupReceived = 4
}
