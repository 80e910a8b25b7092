// SPDX-License-Identifier: Apache-2.0

internal import Processor

// How the parts of the state lie in the kernel's structures.

extension GeneralRegisters {
  /// The size of `struct kvm_regs`.
  static let byteCount = 144

  init<S: ByteSource>(_ source: S, at offset: Int) {
    self.init()
    rax = source.load(UInt64.self, at: offset + 0)
    rbx = source.load(UInt64.self, at: offset + 8)
    rcx = source.load(UInt64.self, at: offset + 16)
    rdx = source.load(UInt64.self, at: offset + 24)
    rsi = source.load(UInt64.self, at: offset + 32)
    rdi = source.load(UInt64.self, at: offset + 40)
    rsp = source.load(UInt64.self, at: offset + 48)
    rbp = source.load(UInt64.self, at: offset + 56)
    r8 = source.load(UInt64.self, at: offset + 64)
    r9 = source.load(UInt64.self, at: offset + 72)
    r10 = source.load(UInt64.self, at: offset + 80)
    r11 = source.load(UInt64.self, at: offset + 88)
    r12 = source.load(UInt64.self, at: offset + 96)
    r13 = source.load(UInt64.self, at: offset + 104)
    r14 = source.load(UInt64.self, at: offset + 112)
    r15 = source.load(UInt64.self, at: offset + 120)
    rip = source.load(UInt64.self, at: offset + 128)
    rflags = source.load(UInt64.self, at: offset + 136)
  }

  var block: Block {
    var block = Block(byteCount: Self.byteCount)
    block.store(rax, at: 0)
    block.store(rbx, at: 8)
    block.store(rcx, at: 16)
    block.store(rdx, at: 24)
    block.store(rsi, at: 32)
    block.store(rdi, at: 40)
    block.store(rsp, at: 48)
    block.store(rbp, at: 56)
    block.store(r8, at: 64)
    block.store(r9, at: 72)
    block.store(r10, at: 80)
    block.store(r11, at: 88)
    block.store(r12, at: 96)
    block.store(r13, at: 104)
    block.store(r14, at: 112)
    block.store(r15, at: 120)
    block.store(rip, at: 128)
    block.store(rflags, at: 136)
    return block
  }
}

extension Segment {
  init<S: ByteSource>(_ source: S, at offset: Int) {
    self.init()
    base = source.load(UInt64.self, at: offset)
    limit = source.load(UInt32.self, at: offset + 8)
    selector = source.load(UInt16.self, at: offset + 12)
    type = source.load(UInt8.self, at: offset + 14)
    isPresent = source.load(UInt8.self, at: offset + 15) != 0
    privilege = source.load(UInt8.self, at: offset + 16)
    is32Bit = source.load(UInt8.self, at: offset + 17) != 0
    isCodeOrData = source.load(UInt8.self, at: offset + 18) != 0
    isLong = source.load(UInt8.self, at: offset + 19) != 0
    isPageGranular = source.load(UInt8.self, at: offset + 20) != 0
    available = source.load(UInt8.self, at: offset + 21) != 0
    isUnusable = source.load(UInt8.self, at: offset + 22) != 0
  }

  func store(in block: inout Block, at offset: Int) {
    block.store(base, at: offset)
    block.store(limit, at: offset + 8)
    block.store(selector, at: offset + 12)
    block.store(type, at: offset + 14)
    block.store(isPresent, at: offset + 15)
    block.store(privilege, at: offset + 16)
    block.store(is32Bit, at: offset + 17)
    block.store(isCodeOrData, at: offset + 18)
    block.store(isLong, at: offset + 19)
    block.store(isPageGranular, at: offset + 20)
    block.store(available, at: offset + 21)
    block.store(isUnusable, at: offset + 22)
  }
}

extension DescriptorTable {
  init<S: ByteSource>(_ source: S, at offset: Int) {
    self.init()
    base = source.load(UInt64.self, at: offset)
    limit = source.load(UInt16.self, at: offset + 8)
  }

  func store(in block: inout Block, at offset: Int) {
    block.store(base, at: offset)
    block.store(limit, at: offset + 8)
  }
}

extension SystemRegisters {
  /// The size of `struct kvm_sregs`.
  static let byteCount = 312

  init<S: ByteSource>(_ source: S, at offset: Int) {
    self.init()
    cs = Segment(source, at: offset + 0)
    ds = Segment(source, at: offset + 24)
    es = Segment(source, at: offset + 48)
    fs = Segment(source, at: offset + 72)
    gs = Segment(source, at: offset + 96)
    ss = Segment(source, at: offset + 120)
    tr = Segment(source, at: offset + 144)
    ldt = Segment(source, at: offset + 168)
    gdt = DescriptorTable(source, at: offset + 192)
    idt = DescriptorTable(source, at: offset + 208)
    cr0 = source.load(UInt64.self, at: offset + 224)
    cr2 = source.load(UInt64.self, at: offset + 232)
    cr3 = source.load(UInt64.self, at: offset + 240)
    cr4 = source.load(UInt64.self, at: offset + 248)
    cr8 = source.load(UInt64.self, at: offset + 256)
    efer = source.load(UInt64.self, at: offset + 264)
    apicBase = source.load(UInt64.self, at: offset + 272)
    interruptBitmap = (0..<4).map { source.load(UInt64.self, at: offset + 280 + 8 * $0) }
  }

  var block: Block {
    var block = Block(byteCount: Self.byteCount)
    cs.store(in: &block, at: 0)
    ds.store(in: &block, at: 24)
    es.store(in: &block, at: 48)
    fs.store(in: &block, at: 72)
    gs.store(in: &block, at: 96)
    ss.store(in: &block, at: 120)
    tr.store(in: &block, at: 144)
    ldt.store(in: &block, at: 168)
    gdt.store(in: &block, at: 192)
    idt.store(in: &block, at: 208)
    block.store(cr0, at: 224)
    block.store(cr2, at: 232)
    block.store(cr3, at: 240)
    block.store(cr4, at: 248)
    block.store(cr8, at: 256)
    block.store(efer, at: 264)
    block.store(apicBase, at: 272)
    for (index, word) in interruptBitmap.prefix(4).enumerated() {
      block.store(word, at: 280 + 8 * index)
    }
    return block
  }
}

extension PendingEvents {
  /// The size of `struct kvm_vcpu_events`.
  static let byteCount = 64

  init<S: ByteSource>(_ source: S, at offset: Int) {
    self.init()
    exceptionIsInjected = source.load(UInt8.self, at: offset + 0) != 0
    exceptionVector = source.load(UInt8.self, at: offset + 1)
    exceptionHasErrorCode = source.load(UInt8.self, at: offset + 2) != 0
    exceptionIsPending = source.load(UInt8.self, at: offset + 3) != 0
    exceptionErrorCode = source.load(UInt32.self, at: offset + 4)
    interruptIsInjected = source.load(UInt8.self, at: offset + 8) != 0
    interruptVector = source.load(UInt8.self, at: offset + 9)
    interruptIsSoftware = source.load(UInt8.self, at: offset + 10) != 0
    interruptShadow = source.load(UInt8.self, at: offset + 11)
    nmiIsInjected = source.load(UInt8.self, at: offset + 12) != 0
    nmiIsPending = source.load(UInt8.self, at: offset + 13)
    nmiIsMasked = source.load(UInt8.self, at: offset + 14) != 0
    startupVector = source.load(UInt32.self, at: offset + 16)
    validity = source.load(UInt32.self, at: offset + 20)
    isInSMM = source.load(UInt8.self, at: offset + 24) != 0
    smiIsPending = source.load(UInt8.self, at: offset + 25) != 0
    isInNMIInSMM = source.load(UInt8.self, at: offset + 26) != 0
    initIsLatched = source.load(UInt8.self, at: offset + 27)
    tripleFaultIsPending = source.load(UInt8.self, at: offset + 28)
    exceptionHasPayload = source.load(UInt8.self, at: offset + 55) != 0
    exceptionPayload = source.load(UInt64.self, at: offset + 56)
  }

  var block: Block {
    var block = Block(byteCount: Self.byteCount)
    block.store(exceptionIsInjected, at: 0)
    block.store(exceptionVector, at: 1)
    block.store(exceptionHasErrorCode, at: 2)
    block.store(exceptionIsPending, at: 3)
    block.store(exceptionErrorCode, at: 4)
    block.store(interruptIsInjected, at: 8)
    block.store(interruptVector, at: 9)
    block.store(interruptIsSoftware, at: 10)
    block.store(interruptShadow, at: 11)
    block.store(nmiIsInjected, at: 12)
    block.store(nmiIsPending, at: 13)
    block.store(nmiIsMasked, at: 14)
    block.store(startupVector, at: 16)
    block.store(validity, at: 20)
    block.store(isInSMM, at: 24)
    block.store(smiIsPending, at: 25)
    block.store(isInNMIInSMM, at: 26)
    block.store(initIsLatched, at: 27)
    block.store(tripleFaultIsPending, at: 28)
    block.store(exceptionHasPayload, at: 55)
    block.store(exceptionPayload, at: 56)
    return block
  }
}

extension DebugRegisters {
  /// The size of `struct kvm_debugregs`.
  static let byteCount = 128

  init<S: ByteSource>(_ source: S, at offset: Int) {
    self.init()
    dr0 = source.load(UInt64.self, at: offset + 0)
    dr1 = source.load(UInt64.self, at: offset + 8)
    dr2 = source.load(UInt64.self, at: offset + 16)
    dr3 = source.load(UInt64.self, at: offset + 24)
    dr6 = source.load(UInt64.self, at: offset + 32)
    dr7 = source.load(UInt64.self, at: offset + 40)
  }

  var block: Block {
    var block = Block(byteCount: Self.byteCount)
    block.store(dr0, at: 0)
    block.store(dr1, at: 8)
    block.store(dr2, at: 16)
    block.store(dr3, at: 24)
    block.store(dr6, at: 32)
    block.store(dr7, at: 40)
    return block
  }
}

extension Block {
  mutating func store(_ value: Bool, at offset: Int) { store(UInt8(value ? 1 : 0), at: offset) }
}
