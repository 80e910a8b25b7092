// SPDX-License-Identifier: Apache-2.0

public import Processor

/// A vCPU in software: a complete x86-64 processor as an interpreter of decoded blocks.
///
/// One thread uses it. Its state is public as ``state`` only; inside the module the parts are
/// fields, so that instructions work on them directly.
public struct SoftCPU: ~Copyable {
  // MARK: Registers

  /// The general registers by number; slot 16 is always zero, slot 17 is RIP.
  ///
  /// While an instruction is executed RIP is already that of the next one.
  let gpr = Words<64>()
  var flags = LazyFlags()
  /// RFLAGS without the six arithmetic flags: TF, IF, DF, IOPL, NT, RF, VM, AC, VIF, VIP, ID
  /// and the bit that is always one.
  var systemFlags: UInt64 = 2

  /// ES, CS, SS, DS, FS, GS with their hidden parts.
  var segments = [8 of Segment](repeating: Segment())
  var ldtr = Segment()
  var tr = Segment()
  var gdtr = DescriptorTable()
  var idtr = DescriptorTable()

  /// The last offset of each segment, and of what it allows: ``SegmentRights``.
  let segmentLimit = Words<8>()
  let segmentRights = Words<8>()
  /// The last offset of CS; all ones in 64-bit mode.
  var codeLimit: UInt64 = 0xFFFF
  /// What is added to an offset in each segment: zero for ES, CS, SS, DS in 64-bit mode.
  let segmentBase = Words<8>()
  /// A bit for each segment whose accesses need a check of limit and rights.
  var checkedSegments: UInt8 = 0xFF
  var cpl: UInt8 = 0

  var cr0: UInt64 = 0
  var cr2: UInt64 = 0
  var cr3: UInt64 = 0
  var cr4: UInt64 = 0
  var efer: UInt64 = 0
  var xcr0: UInt64 = 1
  var pkru: UInt32 = 0
  /// The page directory pointers of PAE paging.
  let pdptrs = Words<4>()
  /// The bits of physical addresses that there are.
  let physicalMask: UInt64
  /// All ones, or without bit 20.
  var a20Mask = UInt64.max
  /// Memory is accessed for the processor itself (descriptors, the TSS): as the supervisor.
  var isImplicitSupervisor = false
  var debug = DebugRegisters()

  /// The mode that code is decoded in.
  var mode = CodeMode.bits16
  /// The width of the stack pointer, from SS.B or the mode: 2, 4 or 8 bytes.
  var stackSize: UInt8 = 2

  /// 16 vector registers of four words each, the lowest first.
  let vectors = Words<64>()
  var mxcsr: UInt32 = 0x1F80
  var x87 = X87State()
  var msrs = SystemMSRs()

  // MARK: Events

  /// Interrupts are held off until after the next instruction: bit 0 after STI, bit 1 after
  /// MOV SS or POP SS (as KVM's interrupt shadow).
  var interruptShadow: UInt8 = 0
  var nmiIsMasked = false
  var isHalted = false
  /// An instruction's own event ended in a triple fault.
  var isShutdown = false
  /// Bits of DR6 for a #DB after the instruction under way.
  var pendingTrap: UInt64 = 0
  /// What a debugger wants to be told of, and the first of it that the last instruction did.
  var dataWatches: [DataWatch] = []
  var hasDataWatches = false
  var dataWatchHit: Int?
  /// What the CPU was about to deliver when its state was taken or set.
  var events = PendingEvents()
  /// The block under way must end after this instruction: code or the mode has changed.
  var leavesBlock = false

  // MARK: The world

  let cpuid: CPUIDTable
  let bus: any SoftBus
  public let attention: Attention
  let memory: PhysicalMemory
  var ranges = RangeCache()
  var tlb: TLB
  var code: CodeCache
  /// Translated code, where there is to be some.
  var translator: Translator
  /// The instruction sets that the guest has, a bit for each ``Feature``.
  let instructionSets: UInt32
  /// The vector extensions that the guest has beyond SSE2.
  let vectorFeatures: VectorFeatures
  /// How many instructions were executed, counted in blocks.
  public internal(set) var instructionCount: UInt64 = 0

  /// Makes a vCPU in its state after a reset.
  ///
  /// `cpuid` is what the guest is told, which decides about the instructions that it may use. With
  /// `codeMemory`, which no other vCPU may have, frequent code becomes host code.
  public init(
    cpuid: CPUIDTable, memory: PhysicalMemory, bus: any SoftBus, attention: Attention,
    codeMemory: CodeMemory? = nil
  ) {
    self.cpuid = cpuid
    let width = UInt64((cpuid.entry(0x8000_0008)?.eax ?? 36) & 0xFF)
    physicalMask = (1 << min(max(width, 32), 52)) &- 1
    vectorFeatures = VectorFeatures(of: cpuid)
    instructionSets = Self.instructionSets(of: cpuid)
    self.memory = memory
    self.bus = bus
    self.attention = attention
    tlb = TLB()
    code = CodeCache()
    translator = Translator(
      codeMemory, Translator.Abilities(instructionSets: instructionSets))
    reset()
  }
}

/// How code is decoded.
enum CodeMode: UInt8, Sendable {
  /// Real mode, virtual-8086 mode, and 16-bit segments.
  case bits16
  case bits32
  case bits64
}
