// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem
internal import PCI
internal import Synchronization

/// The PCI configuration mechanism #1 (PCI 2.2, 3.2.2.3.2).
extension GuestBus {
  private enum Configured {
    case value(UInt64)
    case device(RegionTarget, UInt8)
    case nobody
  }

  /// Answers a read of the configuration mechanism's ports; `nil` when it is none.
  func readConfiguration(_ offset: UInt16, _ width: AccessWidth) -> UInt64? {
    let found = machine.board.withLock { board -> Configured? in
      if ConfigurationMechanism1.isAddress(at: offset, width: width) {
        return .value(UInt64(board.mechanism.address))
      }
      guard offset >= 4 else { return nil }
      guard let target = board.mechanism.target(at: offset, width: width), target.bus == 0 else {
        return .nobody
      }
      let devfn = target.device << 3 | target.function
      if devfn == 0 { return .value(UInt64(board.bridge.read(at: target.offset, width: width))) }
      guard let function = board.functions.first(where: { $0.devfn == devfn }) else {
        return .nobody
      }
      guard target.offset >= 0x40 else {
        return .value(UInt64(function.space.read(at: target.offset, width: width)))
      }
      return .device(function.target, target.offset)
    }
    switch found {
    case .value(let value): return value
    case .device(let target, let offset):
      catchUp(target.link)
      return target.link.read(target, UInt64(offset), width, &cpu)
    case .nobody: return width.floating
    case nil: return nil
    }
  }

  /// Does a write to the configuration mechanism's ports; `false` when it is none.
  func writeConfiguration(
    _ value: UInt64, _ offset: UInt16, _ width: AccessWidth
  ) -> Bool {
    if ConfigurationMechanism1.isAddress(at: offset, width: width) {
      machine.board.withLock { $0.mechanism.writeAddress(UInt32(truncatingIfNeeded: value)) }
      return true
    }
    guard offset >= 4 else { return false }
    var device: (RegionTarget, UInt8)?
    var needsRebuild = false
    var reset = false
    var stopped: (DeviceLink, UInt8)?
    machine.board.withLock { board in
      guard let target = board.mechanism.target(at: offset, width: width), target.bus == 0 else {
        return
      }
      let devfn = target.device << 3 | target.function
      let word = UInt32(truncatingIfNeeded: value)
      if devfn == 0 {
        let change = board.bridge.write(word, at: target.offset, width: width)
        needsRebuild = change.contains(.segments)
        reset = change.contains(.hardReset)
        return
      }
      guard let index = board.functions.firstIndex(where: { $0.devfn == devfn }) else { return }
      guard target.offset < 0x40 else {
        device = (board.functions[index].target, target.offset)
        return
      }
      let change = board.functions[index].space.write(word, at: target.offset, width: width)
      if change.contains(.command), !board.functions[index].space.isBusMaster {
        stopped = (board.functions[index].link, devfn)
      }
      needsRebuild = !change.isDisjoint(with: [.command, .baseAddress])
    }
    if let (link, devfn) = stopped { link.closeWindows(of: devfn) }
    if needsRebuild {
      do throws(ProtocolError) {
        try machine.change { _ throws(ProtocolError) in }
      } catch {
        machine.post(.end(code: 2, reason: error.reason))
      }
      refresh()
    }
    if reset { machine.post(.reset("the guest wrote to the host bridge's reset register")) }
    if let (target, offset) = device { write(value, target, UInt64(offset), width) }
    return true
  }
}
