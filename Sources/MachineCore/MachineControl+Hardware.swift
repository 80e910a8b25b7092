// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import InterruptControllers
internal import KVM
internal import LinuxSystem
internal import Monitor
internal import Synchronization

/// What the operator is told of the hardware and of the guest's own words.
extension MachineControl {
  static let panicReason = "the guest has panicked"

  /// Passes on what a device has told, and does what a panic asks for.
  func tell(of notice: NoticeMessage) {
    func bit(_ value: Bool) -> String { value ? "1" : "0" }
    switch notice.kind {
    case .hostError:
      announce(
        EventMessage(
          .hostError,
          detail: "\(notice.slot) \(bit(notice.isWrite)) \(notice.action) "
            + "\(bit(notice.isFull)) \(notice.reason)"))
    case .trayMoved:
      announce(EventMessage(.trayMoved, detail: "\(notice.slot) \(bit(notice.isOpen))"))
    case .crashLoaded:
      CoreLog.line("the guest has panicked and starts its crash kernel")
      announce(EventMessage(.crashLoaded, byGuest: true, detail: "run"))
    case .panicked:
      let policy = machine.settings.onPanic
      CoreLog.line(Self.panicReason)
      announce(EventMessage(.panicked, byGuest: true, detail: "\(policy)"))
      if policy == .stop { end(2, Self.panicReason, byGuest: true) }
      guard policy == .pause, machine.progress.withLock({ $0.state == "running" }) else { return }
      isHeldByOperator = true
      machine.pause(Self.panicReason)
      announce(EventMessage(.stop, detail: Self.panicReason))
    }
  }

  /// The registers of the interrupt controllers.
  func interruptChips() throws(Refusal) -> InterruptChipsReply {
    switch machine.accelerator {
    case .soft(let soft, _): return InterruptChipsReply(soft.hub.registers)
    case .kvm(let kvm, _):
      do throws(KVMError) {
        return InterruptChipsReply(try kvm.vm.chipState())
      } catch {
        throw Refusal("\(error)")
      }
    }
  }
}

extension InterruptChipsReply {
  fileprivate init(_ registers: ChipRegisters) {
    self.init(
      controllers: registers.controllers.map { chip in
        var controller = Controller()
        controller.requests = chip.requests
        controller.mask = chip.mask
        controller.inService = chip.inService
        controller.first = chip.first
        controller.vectorBase = chip.vectorBase
        controller.readsInService = chip.readsInService
        controller.levels = chip.levels
        controller.isFullyNested = chip.isFullyNested
        return controller
      }, ioAPICID: registers.ioAPICID, selected: registers.selected, lines: registers.lines,
      redirections: registers.redirections, counts: registers.counts)
  }

  /// Reads the kernel's structures (struct kvm_pic_state, struct kvm_ioapic_state).
  fileprivate init(_ state: ChipState) {
    let union = 8
    let controllers = state.interruptChips.prefix(2).map { bytes in
      var controller = Controller()
      controller.requests = bytes[union + 1]
      controller.mask = bytes[union + 2]
      controller.inService = bytes[union + 3]
      controller.first = bytes[union + 4]
      controller.vectorBase = bytes[union + 5]
      controller.readsInService = bytes[union + 6] != 0
      controller.isFullyNested = bytes[union + 12] != 0
      controller.levels = bytes[union + 14]
      return controller
    }
    let bytes = state.interruptChips[2]
    func number(_ at: Int, _ count: Int) -> UInt64 {
      bytes[union + at..<union + at + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    self.init(
      controllers: Array(controllers), ioAPICID: UInt8(truncatingIfNeeded: number(12, 4) & 0xF),
      selected: UInt8(truncatingIfNeeded: number(8, 4)),
      lines: UInt32(truncatingIfNeeded: number(16, 4)),
      redirections: (0..<24).map { number(24 + 8 * $0, 8) })
  }
}
