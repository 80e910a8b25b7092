// SPDX-License-Identifier: Apache-2.0

import DeviceHost
import DeviceModel
import DeviceProtocol
import IDE
import LinuxSystem

/// The IDE function with its images: what the core and the guest see of this process.
///
/// The model says what it waits for (``IDEController/request(channel:)``), which is part of
/// the state: after a restart it is started again. A channel has one request at a time on
/// the workers, also when the model has given it up.
struct IDEEndpoint: DeviceEndpoint {
  var controller: IDEController
  /// What is in flight, and beside the model.
  var sides = [ChannelSide(), ChannelSide()]

  var drives: [Drive?]
  /// What is done when the host fails a request, for each drive.
  let policies: [ErrorPolicies]
  /// Where the trays were last, for each slot; `nil` before the first look, and without a tray.
  var trays = [Bool?](repeating: nil, count: 4)
  let hasTrays: Bool
  let workers: WorkerPool
  let completions: Completions

  /// The source that a worker reports when it has finished.
  static let finishedSource = 48
  /// The source that starts work which has to wait for the vCPU to be answered.
  static let startSource = 49
  /// How long ``flush(_:)`` waits for what is in flight, in nanoseconds.
  static let patience: UInt64 = 5_000_000_000

  /// How long a pause waits for requests; the core waits two seconds.
  static let pausePatience: UInt64 = 1_500_000_000

  /// Makes an endpoint with the images of ide0.0, ide0.1, ide1.0 and ide1.1.
  init(
    controller: IDEController, drives: [Drive?],
    policies: [ErrorPolicies] = Array(repeating: ErrorPolicies(), count: 4), workers: WorkerPool,
    completions: Completions
  ) {
    self.controller = controller
    hasTrays = (0..<4).contains { controller.disc(channel: $0 / 2, drive: $0 % 2) != nil }
    self.drives = drives
    self.policies = policies
    self.workers = workers
    self.completions = completions
  }

  @specialized(where V == StateEncoder)
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.part("controller", &controller)
    visitor.parts("side", &sides)
  }

  // MARK: - Accesses

  var hasQuietPosts: Bool { true }
  var awaitsWorkers: Bool { sides.contains { $0.running != nil } }

  mutating func read(
    region: UInt16, offset: UInt64, width: AccessWidth, services: HostServices
  ) -> UInt64 {
    let offset = UInt16(truncatingIfNeeded: offset)
    if region == Self.configurationRegion {
      var result: UInt64 = 0
      for lane in 0..<width.byteCount {
        let byte = controller.configuration.read(
          at: UInt8(truncatingIfNeeded: offset) &+ UInt8(lane))
        result |= UInt64(byte) << UInt64(8 * lane)
      }
      return result
    }
    guard let place = IDERegion(region) else { return .max }
    defer { if place.isCommand { keepBuffer(place.channel, services) } }
    return controller.read(place, at: offset, width: width)
  }

  mutating func write(
    _ value: UInt64, region: UInt16, offset: UInt64, width: AccessWidth, services: HostServices
  ) {
    let offset = UInt16(truncatingIfNeeded: offset)
    if region == Self.configurationRegion {
      for lane in 0..<width.byteCount {
        controller.configuration.write(
          UInt8(truncatingIfNeeded: value >> UInt64(8 * lane)),
          at: UInt8(truncatingIfNeeded: offset) &+ UInt8(lane))
      }
      return
    }
    guard let place = IDERegion(region) else { return }
    controller.write(value, place, at: offset, width: width)
    if place.isCommand { keepBuffer(place.channel, services) }
    // While a vCPU waits it copies, and what the host has at hand is read at once.
    if services.isWaitedFor { for channel in 0..<2 { start(channel, services) } }
  }

  mutating func readBlock(
    region: UInt16, offset: UInt64, width: AccessWidth, items: Int, services: HostServices
  ) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xFF, count: items * width.byteCount)
    if let place = IDERegion(region), place.isCommand, offset == 0 {
      var span = bytes.mutableSpan
      _ = controller.readData(channel: place.channel, into: &span)
      keepBuffer(place.channel, services)
      return bytes
    }
    for start in stride(from: 0, to: bytes.count, by: width.byteCount) {
      let value = read(region: region, offset: offset, width: width, services: services)
      for lane in 0..<width.byteCount {
        bytes[start + lane] = UInt8(truncatingIfNeeded: value >> UInt64(8 * lane))
      }
    }
    return bytes
  }

  mutating func writeBlock(
    _ bytes: [UInt8], region: UInt16, offset: UInt64, width: AccessWidth, services: HostServices
  ) {
    if let place = IDERegion(region), place.isCommand, offset == 0 {
      _ = controller.writeData(channel: place.channel, bytes.span)
      keepBuffer(place.channel, services)
      return
    }
    for start in stride(from: 0, to: bytes.count, by: width.byteCount) {
      var value: UInt64 = 0
      for lane in 0..<min(width.byteCount, bytes.count - start) {
        value |= UInt64(bytes[start + lane]) << UInt64(8 * lane)
      }
      write(value, region: region, offset: offset, width: width, services: services)
    }
  }

  mutating func descriptorRead(_ content: [UInt8], window: UInt16, services: HostServices) {
    guard window < 2, content.count >= 12 else { return }
    func number(_ range: Range<Int>) -> UInt64 {
      range.reversed().reduce(0) { $0 << 8 | UInt64(content[$1]) }
    }
    let isValid = number(8..<12) == 1
    controller.setWindow(
      channel: Int(window),
      IDEWindow(byteCount: UInt32(clamping: number(0..<8)), isValid: isValid))
    sides[Int(window)].isWindowOpen = isValid
  }

  // MARK: - The rest of its life

  mutating func granted(_ services: HostServices) throws(ChannelError) {
    guard services.bulkByteCount >= Self.bulkOffset(2, 0) else {
      throw .broken(ProtocolError("the state page has no room for the drives' buffers"))
    }
  }

  mutating func restored(_ services: HostServices) {
    for channel in 0..<2 {
      let bytes = services.bulk(
        at: Self.bulkOffset(channel, sides[channel].bulkArea), count: IDEController.bufferByteCount)
      controller.withMutableBuffer(channel: channel) { buffer in
        for index in 0..<min(buffer.count, bytes.count) { buffer[index] = bytes[index] }
      }
    }
  }

  mutating func ready(_ sources: UInt64, services: HostServices) {
    if sources & 1 << UInt64(Self.finishedSource) != 0 {
      for completion in completions.take() { finish(completion, services) }
    }
    if sources & 1 << UInt64(Self.startSource) != 0 {
      for channel in 0..<2 { start(channel, services) }
    }
  }

  mutating func publish(_ services: HostServices) {
    for channel in 0..<2 {
      services.mirror(
        channel, UInt32(controller.alternateStatus(channel: channel)), withPosts: true)
      services.setLine(channel, controller.interrupt(channel: channel))
      if sides[channel].isIdle, controller.request(channel: channel) != nil {
        // The vCPU is answered first; a copy from the guest takes a while.
        services.watcher.notify(Self.startSource)
      }
      watchWindow(channel, services)
    }
    if hasTrays { watchTrays(services) }
  }

  var deadline: VMTime? { sides.compactMap(\.closingTime).min() }

  mutating func elapsed(_ services: HostServices) {
    for channel in 0..<2 {
      guard let time = sides[channel].closingTime, time <= services.now else { continue }
      closeFinishedWindow(channel, services)
    }
  }

  mutating func reset(_ services: HostServices) {
    // What is in flight comes back with an old tag; a new request waits for it.
    controller.reset(isWaking: services.isWaking)
    for channel in 0..<2 {
      sides[channel].isWindowOpen = false
      sides[channel].isHeld = false
      keepBuffer(channel, services)
    }
  }

  mutating func resume(_ services: HostServices) {
    // What the host has failed is done again.
    for channel in 0..<2 { sides[channel].isHeld = false }
    services.watcher.notify(Self.startSource)
  }

  mutating func pause(_ services: HostServices) {
    let end = HostClock.monotonic() + Self.pausePatience
    repeat {
      settle(by: end, services)
      // A long command is many requests, one after the other.
      for channel in 0..<2 { start(channel, services) }
    } while sides.contains { $0.running != nil } && HostClock.monotonic() < end
    for channel in 0..<2 { closeFinishedWindow(channel, services) }
  }

  /// Waits for what is on the workers.
  mutating func settle(by end: UInt64, _ services: HostServices) {
    while sides.contains(where: { $0.running != nil }) {
      let now = HostClock.monotonic()
      guard now < end else { break }
      completions.wait(timeout: end - now)
      for completion in completions.take() { finish(completion, services) }
    }
  }

  mutating func flush(_ services: HostServices) {
    settle(by: HostClock.monotonic() + Self.patience, services)
    for (slot, drive) in drives.enumerated() {
      guard let drive else { continue }
      guard sides[slot / 2].running?.drive != slot & 1 else {
        Log.line("\(drive.name): a request does not end; the image is left as it is", .warning)
        continue
      }
      _ = drive.flush()
    }
  }
}

/// What a drive does when the host fails a request.
struct ErrorPolicies: Sendable {
  var onRead = IDESettings.Drive.ErrorPolicy.report
  var onWrite = IDESettings.Drive.ErrorPolicy.holdWhenFull
}

/// What the endpoint keeps for a channel beside the model.
struct ChannelSide: DeviceState, Sendable {
  /// Which of the channel's two areas in the page holds its buffer.
  var bulkArea: UInt8 = 0
  /// Whether the core has a window open for the channel's bus master.
  var isWindowOpen = false
  /// When a window is closed whose transfer has ended, if the guest does not do so before.
  var closingTime: VMTime?
  /// What is on the workers; a process begins with nothing there.
  var running: IDERequest?
  /// When that was begun, on the host's clock.
  var started: UInt64 = 0
  /// Whether its request waits until the machine goes on; a new process tries it once more.
  var isHeld = false

  /// Whether a request can be started.
  var isIdle: Bool { running == nil && !isHeld }

  @specialized(where V == StateEncoder)
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("bulk-area", &bulkArea)
    visitor.field("window-open", &isWindowOpen)
    bulkArea &= 1
  }
}
