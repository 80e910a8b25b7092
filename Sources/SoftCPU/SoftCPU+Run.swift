// SPDX-License-Identifier: Apache-2.0

extension SoftCPU {
  /// Runs the guest until something happens that the machine has to deal with.
  ///
  /// Interrupts, NMIs and the flush after a change of the memory map are taken here, between
  /// blocks; everything else that ``Attention`` asks for ends the run.
  public mutating func run() -> SoftExit {
    while true {
      leavesBlock = false
      if attention.pending & servable != 0 || needsCare {
        if let exit = serve() { return exit }
        if isHalted { return .halted }
        continue
      }
      if isHalted { return .halted }
      do throws(Fault) {
        try executeBlocks()
      } catch {
        guard deliver(error) else { return .shutdown }
      }
      if isHalted { return .halted }
    }
  }

  /// Executes blocks until somebody wants attention or an instruction asks for care.
  private mutating func executeBlocks() throws(Fault) {
    // What is asked for and cannot be done yet waits; all that changes this ends a block.
    let servable = servable
    if translator.isOn, mode == .bits64, checkedSegments == 0 {
      return try executeTranslated()
    }
    repeat {
      guard let place = try block() else { return try executeOne() }
      try executeBlock(place)
    } while !leavesBlock && attention.pending & servable == 0
  }

  /// Executes exactly one instruction at RIP, without the decoded blocks.
  mutating func executeOne() throws(Fault) {
    code.setScratch(try fetchOne())
    try executeBlock(CodeCache.scratch)
  }
}
