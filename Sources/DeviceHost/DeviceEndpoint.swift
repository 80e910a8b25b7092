// SPDX-License-Identifier: Apache-2.0

public import DeviceModel
public import DeviceProtocol

/// A device as the process around it sees it: models, their back ends, and the wiring.
///
/// All functions are called on one thread, one at a time. After each of them the state is
/// committed, so a function that fails half-way (because the process dies) is called again
/// in the next process, on the state of before.
public protocol DeviceEndpoint: DeviceState {
  /// What the device answers for.
  func claims() -> Claims

  /// Whether posted writes change no line and no mirrored register.
  ///
  /// They are committed together with the request that follows then.
  var hasQuietPosts: Bool { get }

  /// Whether what is due next comes from a worker, which needs the processor more than a spin.
  var awaitsWorkers: Bool { get }

  /// Answers a live read.
  mutating func read(
    region: UInt16, offset: UInt64, width: AccessWidth, services: HostServices
  ) -> UInt64

  /// Does a live or posted write.
  mutating func write(
    _ value: UInt64, region: UInt16, offset: UInt64, width: AccessWidth, services: HostServices)

  /// Answers a read of several items; the default reads them one by one.
  mutating func readBlock(
    region: UInt16, offset: UInt64, width: AccessWidth, items: Int, services: HostServices
  ) -> [UInt8]

  /// Does a write of several items; the default writes them one by one.
  mutating func writeBlock(
    _ bytes: [UInt8], region: UInt16, offset: UInt64, width: AccessWidth, services: HostServices)

  /// Takes what the guest's DMA descriptor said, just before the write that starts it.
  mutating func descriptorRead(_ content: [UInt8], window: UInt16, services: HostServices)

  /// The grant is there: mappings and lines can be used. Called once, before ``restored``.
  mutating func granted(_ services: HostServices) throws(ChannelError)

  /// The state was read back from a predecessor's page; bring the outside in line with it.
  mutating func restored(_ services: HostServices)

  /// A watched descriptor is ready, or a worker has finished (see ``HostServices``).
  mutating func ready(_ sources: UInt64, services: HostServices)

  /// When to call ``elapsed(_:)``, or `nil`.
  var deadline: VMTime? { get }

  /// The deadline has come.
  mutating func elapsed(_ services: HostServices)

  /// Brings lines, mirrored registers and back ends in line with the state.
  ///
  /// Called after each function above, once the state is committed.
  mutating func publish(_ services: HostServices)

  /// Moves output on to back ends, after replies were given.
  ///
  /// Returns whether the state has changed: it is committed then, and this is called again.
  mutating func pump(_ services: HostServices) -> Bool

  /// The machine is held: end what is under way on the host, within a second or two.
  ///
  /// No vCPU runs, so nothing new comes; afterwards guest memory stands still.
  mutating func pause(_ services: HostServices)

  /// The machine goes on after ``pause(_:)``.
  mutating func resume(_ services: HostServices)

  /// The machine is reset.
  mutating func reset(_ services: HostServices)

  /// The machine is about to stop for good: put everything on the host that is not there.
  mutating func flush(_ services: HostServices)

  /// Draws the screen into the memory that came along; only vga does.
  mutating func screendump(_ byteCount: Int, services: HostServices) throws(Refusal)
    -> ScreendumpReply

  /// Takes input from the operator; only piix does.
  mutating func input(_ request: InputRequest, services: HostServices)

  /// Moves the mouse or changes its buttons; only piix does.
  mutating func point(_ request: PointerRequest, services: HostServices)

  /// Tells what the drives hold and have done; only ide does.
  mutating func drives(_ services: HostServices) throws(Refusal) -> DrivesReply

  /// Changes the disc of a drive; ``HostServices/attached`` is the new one's image. Only ide does.
  mutating func changeMedium(_ request: MediumRequest, services: HostServices) throws(Refusal)

  /// Gives a disk another size; only ide does.
  mutating func resize(_ request: ResizeRequest, services: HostServices) throws(Refusal)

  /// Sends a break to a serial port's receiver; only serial does.
  mutating func sendBreak(_ request: BreakRequest, services: HostServices) throws(Refusal)

  /// Takes, applies, deletes or lists snapshots of the drives' images, or makes an overlay of
  /// ``HostServices/attached``. Only ide does; the machine stands.
  mutating func snapshot(
    _ request: DriveSnapshotRequest, services: HostServices
  ) throws(Refusal) -> DriveSnapshotReply

  /// The operator presses the power button; only piix has one.
  mutating func pressPowerButton(_ services: HostServices) throws(Refusal)
}

extension DeviceEndpoint {
  public var hasQuietPosts: Bool { false }
  public var awaitsWorkers: Bool { false }

  public mutating func readBlock(
    region: UInt16, offset: UInt64, width: AccessWidth, items: Int, services: HostServices
  ) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(items * width.byteCount)
    for _ in 0..<items {
      let value = read(region: region, offset: offset, width: width, services: services)
      for lane in 0..<width.byteCount {
        bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * lane)))
      }
    }
    return bytes
  }

  public mutating func writeBlock(
    _ bytes: [UInt8], region: UInt16, offset: UInt64, width: AccessWidth, services: HostServices
  ) {
    for start in stride(from: 0, to: bytes.count - width.byteCount + 1, by: width.byteCount) {
      var value: UInt64 = 0
      for lane in 0..<width.byteCount { value |= UInt64(bytes[start + lane]) << UInt64(8 * lane) }
      write(value, region: region, offset: offset, width: width, services: services)
    }
  }

  public mutating func descriptorRead(_ content: [UInt8], window: UInt16, services: HostServices) {}
  public mutating func granted(_ services: HostServices) throws(ChannelError) {}
  public mutating func restored(_ services: HostServices) {}
  public mutating func ready(_ sources: UInt64, services: HostServices) {}
  public var deadline: VMTime? { nil }
  public mutating func elapsed(_ services: HostServices) {}
  public mutating func publish(_ services: HostServices) {}
  public mutating func pump(_ services: HostServices) -> Bool { false }
  public mutating func pause(_ services: HostServices) {}
  public mutating func resume(_ services: HostServices) {}
  public mutating func flush(_ services: HostServices) {}
  public mutating func screendump(_ byteCount: Int, services: HostServices) throws(Refusal)
    -> ScreendumpReply
  { throw Refusal("this device has no screen") }
  public mutating func input(_ request: InputRequest, services: HostServices) {}
  public mutating func point(_ request: PointerRequest, services: HostServices) {}
  public mutating func drives(_ services: HostServices) throws(Refusal) -> DrivesReply {
    throw Refusal("this device has no drives")
  }
  public mutating func changeMedium(
    _ request: MediumRequest, services: HostServices
  ) throws(Refusal) { throw Refusal("this device has no drives") }
  public mutating func resize(
    _ request: ResizeRequest, services: HostServices
  ) throws(Refusal) { throw Refusal("this device has no drives") }
  public mutating func sendBreak(
    _ request: BreakRequest, services: HostServices
  ) throws(Refusal) { throw Refusal("this device has no serial ports") }
  public mutating func snapshot(
    _ request: DriveSnapshotRequest, services: HostServices
  ) throws(Refusal) -> DriveSnapshotReply { throw Refusal("this device has no drives") }
  public mutating func pressPowerButton(_ services: HostServices) throws(Refusal) {
    throw Refusal("this device has no power button")
  }
}
