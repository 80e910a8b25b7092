// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The IDE function of the PIIX3 (8086:7010): two channels of two drives each, with the
/// bus master.
///
/// Accesses come in by region; disk and guest memory work goes out as ``IDERequest``s,
/// which the endpoint polls with ``request(channel:)`` after every access and ends with
/// ``complete(channel:tag:_:)``. While one is out the drive is busy. The model never sees
/// a guest address. Registers are those of ATA/ATAPI-6 (T13 1410D) and of the 82371SB.
public struct IDEController: DeviceState, Sendable {
  /// The PCI identity: vendor, device, class code (legacy mode, bus master), revision.
  public static let vendor: UInt16 = 0x8086
  public static let device: UInt16 = 0x7010
  public static let classCode: UInt32 = 0x01_01_80
  public static let revision: UInt8 = 0x00
  /// The interrupt lines of the two channels.
  public static let interruptLines: [UInt8] = [14, 15]
  /// Bytes in a channel's PIO buffer.
  public static let bufferByteCount = 65536

  /// The function's own configuration registers, 40h to FFh.
  public var configuration = IDEPCIConfiguration()
  var channels = [IDEChannel(index: 0), IDEChannel(index: 1)]

  /// Makes a controller with nothing plugged in.
  public init() {}

  /// Plugs a drive in, before the machine starts.
  ///
  /// - Parameters:
  ///   - kind: What it is.
  ///   - channel: 0 or 1.
  ///   - drive: 0 (master) or 1 (slave).
  ///   - serial: At most 20 ASCII characters.
  ///   - model: At most 40 ASCII characters.
  ///   - isWriteThrough: Whether it has no write cache: every write is durable.
  public mutating func attach(
    _ kind: IDEDriveKind, channel: Int, drive: Int, serial: String, model: String,
    isWriteThrough: Bool = false
  ) {
    precondition((0..<2).contains(channel) && (0..<2).contains(drive), "no such place")
    channels[channel].drives[drive].kind = kind
    channels[channel].drives[drive].serial = serial
    channels[channel].drives[drive].model = model
    channels[channel].drives[drive].isWriteThrough = isWriteThrough
    channels[channel].drives[drive].powerOn()
  }

  /// Why a disc was not changed.
  public enum DiscRefusal: Equatable, Sendable {
    /// There is no CD-ROM drive.
    case noDrive
    /// A command is under way on its channel.
    case busy
    /// The guest has locked the tray, and was asked to let it go.
    case locked
  }

  /// Takes the disc out of a CD-ROM drive and leaves the tray open, or puts one in and shuts it.
  ///
  /// The guest is told by a unit attention and by a media event (MMC-3, 6.7).
  ///
  /// - Parameters:
  ///   - channel: 0 or 1.
  ///   - drive: 0 or 1.
  ///   - sectorCount: The new disc's size in sectors of 2,048 bytes; `nil` for none.
  ///   - force: Opens a tray that is locked, too.
  /// - Returns: Why nothing was changed, or `nil`.
  public mutating func changeDisc(channel: Int, drive: Int, sectorCount: UInt64?, force: Bool)
    -> DiscRefusal?
  {
    guard (0..<2).contains(channel), (0..<2).contains(drive),
      channels[channel].drives[drive].isPacketDevice
    else { return .noDrive }
    let state = channels[channel].drives[drive]
    if state.isLocked, state.hasMedium, !force {
      channels[channel].drives[drive].wantsEject = true
      return .locked
    }
    guard channels[channel].phase == .idle else { return .busy }
    channels[channel].drives[drive].kind = .cdrom(sectorCount: sectorCount)
    channels[channel].drives[drive].isTrayOpen = sectorCount == nil
    channels[channel].drives[drive].hasNewMedium = sectorCount != nil
    channels[channel].drives[drive].hasMediaEvent = true
    channels[channel].drives[drive].wantsEject = false
    if force { channels[channel].drives[drive].isLocked = false }
    return nil
  }

  /// A drive's disc and tray.
  public struct DiscState: Equatable, Sendable {
    public var hasMedium: Bool
    public var isTrayOpen: Bool
    /// Whether the guest keeps the tray shut.
    public var isLocked: Bool
  }

  /// What is in a CD-ROM drive; `nil` where there is none.
  public func disc(channel: Int, drive: Int) -> DiscState? {
    guard (0..<2).contains(channel), (0..<2).contains(drive),
      channels[channel].drives[drive].isPacketDevice
    else { return nil }
    return DiscState(
      hasMedium: channels[channel].drives[drive].hasMedium,
      isTrayOpen: channels[channel].drives[drive].isTrayOpen,
      isLocked: channels[channel].drives[drive].isLocked)
  }

  /// Resets the function and its drives as the machine's reset line does.
  ///
  /// Requests that are out become stale: their completions will be ignored. If the machine wakes the
  /// timing registers stay, with the bits by which firmware lets the channels decode.
  public mutating func reset(isWaking: Bool = false) {
    if !isWaking { configuration = IDEPCIConfiguration() }
    for index in channels.indices {
      var fresh = IDEChannel(index: index)
      fresh.drives = channels[index].drives
      for drive in 0..<2 { fresh.drives[drive].powerOn() }
      fresh.tag = channels[index].tag &+ 1
      channels[index] = fresh
    }
  }

  // MARK: Outputs

  /// The level of IRQ 14 (channel 0) or IRQ 15 (channel 1).
  public func interrupt(channel: Int) -> Bool { channels[channel & 1].interrupt }

  /// What the alternate status port of a channel reads as: the mirrored value.
  public func alternateStatus(channel: Int) -> UInt8 {
    let channel = channel & 1
    return channels[channel].status(of: channels[channel].selected).rawValue
  }

  /// The request that a channel is waiting for; the same one until it is completed.
  ///
  /// The endpoint starts a request when it sees a new tag, and not before an earlier
  /// request of the channel, though stale, has really ended.
  public func request(channel: Int) -> IDERequest? { channels[channel & 1].request }

  /// Ends a request; a stale tag is ignored.
  ///
  /// For a read into the buffer, the endpoint has stored the data with
  /// ``withMutableBuffer(channel:_:)`` first.
  public mutating func complete(channel: Int, tag: UInt32, _ result: IDEResult) {
    let channel = channel & 1
    guard channels[channel].phase == .waiting, channels[channel].tag == tag else { return }
    if case .read = channels[channel].request?.kind,
      case .buffer(let range) = channels[channel].request?.transfer
    {
      channels[channel].markDirty(range)
    }
    channels[channel].complete(result)
    channels[channel].noteInterrupt()
  }

  /// Tells what the core found in the PRD table of a channel.
  ///
  /// It comes before the write that sets the start bit; stopping the bus master takes it
  /// back. Without it a start is an error of the bus.
  public mutating func setWindow(channel: Int, _ window: IDEWindow) {
    let channel = channel & 1
    guard channels[channel].busMasterCommand & 1 == 0 else { return }
    channels[channel].windowByteCount = window.byteCount
    channels[channel].isWindowValid = window.isValid
    channels[channel].windowPosition = 0
  }

  /// Where the guest's PRD table is, for the core (82371SB, 2.7.3).
  public func descriptorPointer(channel: Int) -> UInt32 {
    channels[channel & 1].descriptorPointer
  }

  // MARK: Accesses

  /// Reads from a region; ports outside it read as ones.
  public mutating func read(_ region: IDERegion, at offset: UInt16, width: AccessWidth) -> UInt64 {
    var result: UInt64 = 0
    for lane in 0..<width.byteCount {
      let port = offset == 0 && region.isCommand ? 0 : offset &+ UInt16(lane)
      result |= UInt64(readByte(region, port)) << UInt64(8 * lane)
    }
    return result
  }

  /// Writes to a region; ports outside it take nothing.
  public mutating func write(
    _ value: UInt64, _ region: IDERegion, at offset: UInt16, width: AccessWidth
  ) {
    for lane in 0..<width.byteCount {
      let port = offset == 0 && region.isCommand ? 0 : offset &+ UInt16(lane)
      writeByte(UInt8(truncatingIfNeeded: value >> UInt64(8 * lane)), region, port)
    }
  }

  /// Fills `span` from a channel's data port (`rep insw`); returns how much was data.
  public mutating func readData(channel: Int, into span: inout MutableSpan<UInt8>) -> Int {
    let count = channels[channel & 1].readData(into: &span)
    channels[channel & 1].noteInterrupt()
    return count
  }

  /// Writes `span` to a channel's data port (`rep outsw`); returns how much was taken.
  public mutating func writeData(channel: Int, _ span: Span<UInt8>) -> Int {
    let count = channels[channel & 1].writeData(span)
    channels[channel & 1].noteInterrupt()
    return count
  }

  private mutating func readByte(_ region: IDERegion, _ offset: UInt16) -> UInt8 {
    guard offset < region.length else { return 0xFF }
    let channel = region.channel(at: offset)
    switch region {
    case .primaryCommand, .secondaryCommand:
      defer { channels[channel].noteInterrupt() }
      return offset == 0
        ? channels[channel].readDataByte() : channels[channel].readRegister(offset)
    case .primaryControl, .secondaryControl: return alternateStatus(channel: channel)
    case .busMaster: return channels[channel].readBusMaster(offset & 7)
    }
  }

  private mutating func writeByte(_ value: UInt8, _ region: IDERegion, _ offset: UInt16) {
    guard offset < region.length else { return }
    let channel = region.channel(at: offset)
    switch region {
    case .primaryCommand, .secondaryCommand:
      if offset == 0 {
        channels[channel].writeDataByte(value)
      } else {
        channels[channel].writeRegister(value, offset)
      }
    case .primaryControl, .secondaryControl: channels[channel].writeControl(value)
    case .busMaster: channels[channel].writeBusMaster(value, offset & 7)
    }
    channels[channel].noteInterrupt()
  }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.part("configuration", &configuration)
    visitor.parts("channel", &channels)
  }
}

extension IDERegion {
  /// Whether it is a command block, whose port 0 is the wide data register.
  var isCommand: Bool { self == .primaryCommand || self == .secondaryCommand }

  /// The channel that the port at `offset` belongs to.
  func channel(at offset: UInt16) -> Int {
    switch self {
    case .primaryCommand, .primaryControl: 0
    case .secondaryCommand, .secondaryControl: 1
    case .busMaster: offset < 8 ? 0 : 1
    }
  }
}
