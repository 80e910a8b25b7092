// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem
internal import Synchronization

/// Mediated DMA: windows out of what the guest programmed, and the copies in them.
extension DeviceLink {
  /// Copies; `nil` when the window is not open in this direction.
  func transfer(_ request: DMARequest, _ machine: Machine) throws(ChannelError) -> UInt32? {
    if request.direction == .close {
      state.withLock { $0.windows[request.window] = nil }
      return 0
    }
    let (window, bounce) = state.withLock { ($0.windows[request.window], $0.bounce?.mapping) }
    guard let bounce else { throw .broken(ProtocolError("DMA without a bounce buffer")) }
    let end = UInt64(request.bounceOffset) + UInt64(request.byteCount)
    guard end <= UInt64(bounce.byteCount) else {
      throw .broken(ProtocolError("DMA outside the bounce buffer"))
    }
    guard let window, window.pieces.contains(where: { $0.direction == request.direction }) else {
      return nil
    }
    var at = Int(request.bounceOffset)
    var done: UInt32 = 0
    for piece in window.ranges(
      offset: request.windowOffset, byteCount: UInt64(request.byteCount), request.direction)
    {
      let count = Int(piece.byteCount)
      do throws(GuestMemoryError) {
        if request.direction == .toGuest {
          try machine.memory.copy(from: bounce, at: at, count: count, toGuest: piece.address)
          machine.wasWritten(piece.address, count: count)
        } else {
          try machine.memory.copy(fromGuest: piece.address, count: count, to: bounce, at: at)
        }
      } catch {
        // The pieces were checked when the window was opened.
        return done
      }
      at += count
      done += UInt32(count)
    }
    return done
  }

  /// Looks at a write for the start or the end of a DMA transfer, before the device gets it.
  ///
  /// Returns what the guest's descriptor said, for the device, when the write starts one.
  func snoop(
    _ value: UInt64, _ region: RegionTarget, _ offset: UInt64, _ width: AccessWidth,
    _ machine: Machine
  ) -> (bytes: [UInt8], window: UInt16)? {
    var result: (bytes: [UInt8], window: UInt16)?
    for claim in region.descriptors {
      let start = UInt64(claim.offset)
      guard offset < start + 8, offset + UInt64(width.rawValue) > start else { continue }
      let (before, registers) = note(value, claim, offset, width)
      switch claim.kind {
      case .prd:
        if let content = startPRD(claim, before: before[0], registers, machine) {
          result = (content, claim.window)
        }
      case .fwCfg:
        guard offset + UInt64(width.rawValue) == start + 8 else { continue }
        let block = registers.reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        let found = DMAWindow.fwCfg(
          block: block, memory: machine.memory, isReachable: machine.isReachable)
        state.withLock { $0.windows[claim.window] = found?.window }
        // Without a block in RAM there is nowhere to put a result: the device sees no start.
        if let found { result = (found.content, claim.window) }
      }
    }
    return result
  }

  /// Remembers what a write puts into a descriptor's registers; returns them before and after.
  private func note(
    _ value: UInt64, _ claim: DescriptorClaim, _ offset: UInt64, _ width: AccessWidth
  ) -> (before: [UInt8], after: [UInt8]) {
    state.withLock { state in
      let before = state.descriptors[claim.window] ?? [UInt8](repeating: 0, count: 8)
      var registers = before
      for lane in 0..<width.byteCount {
        let at = Int(offset) + lane - Int(claim.offset)
        if (0..<8).contains(at) {
          registers[at] = UInt8(truncatingIfNeeded: value >> UInt64(8 * lane))
        }
      }
      state.descriptors[claim.window] = registers
      return (before, registers)
    }
  }

  /// Does what ``snoop(_:_:_:_:_:)`` does for a write that starts and ends no transfer.
  func note(_ value: UInt64, _ region: RegionTarget, _ offset: UInt64, _ width: AccessWidth) {
    for claim in region.descriptors
    where offset < UInt64(claim.offset) + 8
      && offset + UInt64(width.rawValue) > UInt64(claim.offset)
    {
      _ = note(value, claim, offset, width)
    }
  }

  private func startPRD(
    _ claim: DescriptorClaim, before: UInt8, _ registers: [UInt8], _ machine: Machine
  ) -> [UInt8]? {
    let command = registers[0]
    guard command & 1 != before & 1 else { return nil }
    guard command & 1 != 0 else {
      state.withLock { $0.windows[claim.window] = nil }
      return nil
    }
    // Bit 3 of the command: the bus master writes to memory (82371AB, 5.1).
    let direction: DMARequest.Direction = command & 8 != 0 ? .toGuest : .fromGuest
    let table = registers[4..<8].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    var window: DMAWindow?
    if machine.isBusMaster(claim.devfn) {
      window = DMAWindow.prd(
        table: table, direction: direction, memory: machine.memory,
        isReachable: machine.isReachable)
    }
    state.withLock { $0.windows[claim.window] = window }
    var writer = WireWriter()
    writer.put(window?.byteCount ?? 0)
    writer.put(UInt32(window == nil ? 0 : 1))
    return writer.bytes
  }

  /// Closes the windows of a function that is no bus master any more.
  func closeWindows(of devfn: UInt8) {
    state.withLock { state in
      for claim in state.claims?.descriptors ?? [] where claim.devfn == devfn {
        state.windows[claim.window] = nil
      }
    }
  }

  /// Tells the device that the machine is reset; `nil` when its successor is to be told.
  func beginReset(isWaking: Bool) -> (process: UInt32, ask: Ask?)? {
    let process = state.withLock { state -> UInt32? in
      state.isWaking = isWaking
      state.windows = [:]
      state.descriptors = [:]
      guard status != .up else { return state.process }
      state.isResetDue = state.claims != nil
      return nil
    }
    return process.map { ($0, begin(isWaking ? .wake : .reset, Empty())) }
  }

  /// Waits until the device is reset; one that is not by `end` is at fault.
  func finishReset(
    _ begun: (process: UInt32, ask: Ask?)?, by end: UInt64, _ machine: Machine
  ) {
    var begun = begun
    var end = end
    while let (process, ask) = begun {
      if ask?.finish(by: end) != nil { break }
      machine.fault(self, process, .deadline, "no reply to a reset")
      // A successor that is up already has not had its time yet.
      end = max(end, HostClock.monotonic() + 1_000_000_000)
      begun = beginReset(isWaking: state.withLock(\.isWaking))
    }
    state.withLock { isResetDue.store($0.isResetDue, ordering: .releasing) }
    clearSlots()
  }
}
