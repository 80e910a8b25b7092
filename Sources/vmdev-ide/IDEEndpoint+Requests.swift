// SPDX-License-Identifier: Apache-2.0

import DeviceHost
import DeviceModel
import DeviceProtocol
import IDE
import LinuxSystem

/// The way of a request: guest memory, bounce buffer, worker, image, and back.
extension IDEEndpoint {
  /// Where a channel's half of the bounce buffer begins.
  static func bounceOffset(_ channel: Int) -> Int { channel * Drive.mostBytes }

  /// Where one of the two areas for a channel's buffer begins in the page's bulk data.
  static func bulkOffset(_ channel: Int, _ area: UInt8) -> Int {
    (channel * 2 + Int(area & 1)) * IDEController.bufferByteCount
  }

  /// Writes what changed in a channel's buffer to the page, before the commit.
  ///
  /// What begins at the buffer's start replaces it, and goes to the area that the last
  /// commit does not refer to; what is added behind goes beside what is there already.
  mutating func keepBuffer(_ channel: Int, _ services: HostServices) {
    let range = controller.takeDirtyRange(channel: channel)
    guard !range.isEmpty else { return }
    if range.lowerBound == 0 { sides[channel].bulkArea ^= 1 }
    services.setBulk(
      bytes(channel, range),
      at: Self.bulkOffset(channel, sides[channel].bulkArea) + range.lowerBound)
  }

  private func bytes(_ channel: Int, _ range: Range<Int>) -> [UInt8] {
    controller.withBuffer(channel: channel) { buffer in
      var bytes: [UInt8] = []
      bytes.reserveCapacity(range.count)
      for index in range { bytes.append(buffer[index]) }
      return bytes
    }
  }

  /// Starts what a channel waits for, unless its last request is still on the workers.
  mutating func start(_ channel: Int, _ services: HostServices) {
    guard sides[channel].isIdle, let request = controller.request(channel: channel),
      let bounce = services.bounce
    else { return }
    let place = Self.bounceOffset(channel)
    if case .copyBuffer(let range) = request.kind {
      bounce.copy(bytes(channel, range), to: place)
      end(request, move(request, .toGuest, services))
      return
    }
    guard let drive = drives[channel * 2 + request.drive & 3], request.fits else {
      end(request, .failed(sector: request.firstSector))
      return
    }
    if request.takesData {
      switch request.transfer {
      case .buffer(let range): bounce.copy(bytes(channel, range), to: place)
      case .window:
        let result = move(request, .fromGuest, services)
        guard result == .ok else { return end(request, result) }
      case .none: break
      }
    }
    sides[channel].started = HostClock.monotonic()
    if services.isWaitedFor, drive.readCached(request, bounce: bounce, at: place) {
      let outcome = Drive.Outcome(result: .ok)
      return finish(Completions.Completion(request: request, outcome: outcome), services)
    }
    sides[channel].running = request
    let completions = completions
    let watcher = services.watcher
    let isIgnoring = policies[channel * 2 + request.drive & 3].onRead == .ignore
    workers.submit {
      completions.add(
        request, drive.run(request, bounce: bounce, at: place, ignoringReadErrors: isIgnoring))
      watcher.notify(Self.finishedSource)
    }
  }

  /// Takes a request back from the workers and hands its data to the model or the guest.
  mutating func finish(_ completion: Completions.Completion, _ services: HostServices) {
    let request = completion.request
    let channel = request.channel & 1
    sides[channel].running = nil
    count(completion, services)
    // The guest may have given it up, or the machine may have been reset.
    guard controller.request(channel: channel) == request, let bounce = services.bounce else {
      return
    }
    guard var result = judge(completion, services) else { return }
    if case .read = request.kind, result == .ok {
      switch request.transfer {
      case .buffer(let range):
        let bytes = bounce.bytes(at: Self.bounceOffset(channel), count: range.count)
        controller.withMutableBuffer(channel: channel) { buffer in
          for index in range { buffer[index] = bytes[index - range.lowerBound] }
        }
      case .window: result = move(request, .toGuest, services)
      case .none: break
      }
    }
    end(request, result)
    keepBuffer(channel, services)
  }

  /// What the guest is told of a request's end; `nil` when it is held and done again later.
  private mutating func judge(
    _ completion: Completions.Completion, _ services: HostServices
  ) -> IDEResult? {
    let outcome = completion.outcome
    guard outcome.result != .ok else { return .ok }
    let request = completion.request
    let policies = policies[request.channel & 1 << 1 | request.drive & 1]
    let isWrite = request.takesData || request.kind == .flush
    let action: NoticeMessage.Action =
      switch isWrite ? policies.onWrite : policies.onRead {
      case .report: .report
      case .ignore: .ignore
      case .holdWhenFull: outcome.isFull ? .hold : .report
      case .hold: .hold
      }
    services.notify(
      NoticeMessage(
        .hostError, slot: UInt8(request.channel & 1 << 1 | request.drive & 1), isWrite: isWrite,
        isFull: outcome.isFull, action: action, reason: outcome.reason))
    switch action {
    case .report: return outcome.result
    case .ignore: return .ok
    case .hold:
      sides[request.channel & 1].isHeld = true
      services.hold(outcome.reason)
      return nil
    }
  }

  private mutating func end(_ request: IDERequest, _ result: IDEResult) {
    controller.complete(channel: request.channel, tag: request.tag, result)
  }

  /// Copies a request's data between the bounce buffer and the window.
  private func move(
    _ request: IDERequest, _ direction: DMARequest.Direction, _ services: HostServices
  ) -> IDEResult {
    guard case .window(let offset, let byteCount) = request.transfer,
      byteCount <= UInt32(Drive.mostBytes)
    else { return .refusedByBus }
    guard byteCount > 0 else { return .ok }
    let count = services.transfer(
      window: UInt16(request.channel), direction, windowOffset: UInt64(offset),
      bounceOffset: Self.bounceOffset(request.channel), byteCount: Int(byteCount))
    return count == Int(byteCount) ? .ok : .refusedByBus
  }

  /// How long a window stays open after its transfer, in nanoseconds.
  ///
  /// A driver stops the bus master when the interrupt has told it of the end, and with that the
  /// core closes the window: to ask for it takes as long as a small transfer.
  private static let closingDelay: UInt64 = 1_000_000

  /// Looks whether a transfer has ended whose window is still open.
  mutating func watchWindow(_ channel: Int, _ services: HostServices) {
    switch bus(channel) {
    case .stopped:
      sides[channel].isWindowOpen = false
      sides[channel].closingTime = nil
    case .moving: sides[channel].closingTime = nil
    case .finished where sides[channel].isWindowOpen:
      guard sides[channel].closingTime == nil else { return }
      sides[channel].closingTime = services.now.advanced(by: Self.closingDelay)
    case .finished: break
    }
  }

  /// Gives a window back whose transfer has ended.
  mutating func closeFinishedWindow(_ channel: Int, _ services: HostServices) {
    sides[channel].closingTime = nil
    guard sides[channel].isWindowOpen, bus(channel) == .finished else { return }
    sides[channel].isWindowOpen = false
    services.closeWindow(UInt16(channel))
  }

  private enum BusState {
    /// The guest has stopped the bus master, and the core has closed the window with that.
    case stopped
    case moving
    /// The transfer is over, and the guest has not yet stopped the bus master.
    case finished
  }

  private mutating func bus(_ channel: Int) -> BusState {
    let start = UInt16(channel) * 8
    guard controller.read(.busMaster, at: start + 2, width: .byte) & 1 == 0 else { return .moving }
    return controller.read(.busMaster, at: start, width: .byte) & 1 == 0 ? .stopped : .finished
  }
}

extension IDERequest {
  /// Whether data goes from the guest to the drive.
  var takesData: Bool {
    switch kind {
    case .write, .trim: true
    case .read, .verify, .flush, .copyBuffer: false
    }
  }

  /// The first sector, or 0 for what has none.
  var firstSector: UInt64 {
    switch kind {
    case .read(let sector, _), .verify(let sector, _), .write(let sector, _, _): sector
    case .trim, .flush, .copyBuffer: 0
    }
  }

  /// Whether the data fits the bounce buffer, and what is to move is what there is.
  ///
  /// Always so for requests of the model, but not for those of a damaged state page.
  var fits: Bool {
    let bytes: UInt64
    switch kind {
    case .read(_, let count), .verify(_, let count), .write(_, let count, _):
      bytes = UInt64(count) * UInt64(sectorSize)
    case .trim(let blocks): bytes = UInt64(blocks) * UInt64(sectorSize)
    case .flush, .copyBuffer: bytes = 0
    }
    guard bytes <= UInt64(Drive.mostBytes) else { return false }
    return switch transfer {
    case .none: true
    case .buffer(let range): UInt64(range.count) == bytes
    case .window(_, let byteCount): UInt64(byteCount) == bytes
    }
  }
}
