// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// Everything that the board's process holds but the keyboard controller, behind one door.
///
/// Accesses name a region and an offset in it. The chips are eight bits wide: a wider access
/// is one access a byte, lowest first, as the ISA bus makes it; fw_cfg and the debug exit
/// port take whole words. After each access, and at ``nextDeadline`` after
/// ``advance(to:)``, the endpoint reports the interrupt lines.
public struct PIIXBoard: DeviceState, Sendable {
  public var bridge = PIIX3ISABridge()
  public var power = PIIX4PowerManagement()
  public var clock: MC146818
  public var firmware: FwCfg
  public var dma1 = I8237()
  public var dma2 = I8237()
  public var pages = DMAPages()
  public var port92 = Port92()
  public var port61 = Port61()
  public var resetControl = ResetControl()
  public var postPort = POSTPort()
  public var levels = EdgeLevelControl()
  private var wasClockInterrupt = false

  /// What a write asks of the machine.
  public enum Request: Sendable, Equatable {
    /// Soft off.
    case powerOff
    /// Suspend to RAM, until ``PIIX4PowerManagement/isWoken``.
    case suspend
    case reset(ResetKind)
    /// The debug exit port was written: end with this code.
    case exit(code: UInt32)
    /// A character for the debug console.
    case print(UInt8)
    /// The guest has panicked, or starts its crash kernel after it has.
    case panicked(isCrashLoaded: Bool)
    /// fw_cfg's DMA address was written; the core fetches the descriptor.
    case firmwareTransfer(descriptorAddress: UInt64)
  }

  /// The board's PCI functions that have registers of their own here.
  public enum Function: UInt8, Sendable, CaseIterable {
    case isaBridge = 0
    case powerManagement = 3
  }

  /// What a configuration write changed.
  public struct ConfigurationChange: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The routes of PIRQA# to PIRQD#: see ``PIIX3ISABridge/interrupt(forLink:)``.
    public static let routes = Self(rawValue: 1 << 0)
    /// Where the power management or SMBus ports are: see ``base(of:)``.
    public static let ports = Self(rawValue: 1 << 1)
  }

  public init(clock: MC146818, items: FwCfgItems) {
    self.clock = clock
    firmware = FwCfg(items)
  }

  // MARK: Lines and time

  /// The level of IRQ 8.
  public var clockInterrupt: Bool { clock.interrupt }
  /// The level of IRQ 9.
  public var systemControlInterrupt: Bool { power.interrupt }
  /// Port 92h's half of the A20 gate.
  public var isA20Enabled: Bool { port92.isA20Enabled }

  /// When a line may change by itself next.
  public var nextDeadline: VMTime? {
    switch (clock.nextDeadline, power.nextDeadline) {
    case (let first?, let second?): min(first, second)
    case (let first?, nil): first
    case (nil, let second): second
    }
  }

  /// Lets time pass for everything that depends on it.
  public mutating func advance(to now: VMTime) {
    clock.advance(to: now)
    power.advance(to: now)
    noteClockInterrupt()
  }

  /// Returns a region's first port now, or `nil` while the guest has it off.
  ///
  /// The debug exit port's place is the machine file's business: `nil` here.
  public func base(of region: Region) -> UInt16? {
    switch region {
    case .powerManagement: power.ioBase
    case .smbus: power.smbusBase
    default: region.fixedBase
    }
  }

  // MARK: Ports

  /// Reads from a region; `blobByte` is given where ``FwCfg/blobAtCursor`` asks for one.
  public mutating func read(
    _ region: Region, at offset: UInt16, width: AccessWidth, now: VMTime, blobByte: UInt8 = 0
  ) -> UInt32 {
    var value: UInt32 = 0
    for lane in 0..<UInt16(min(width.byteCount, 4)) {
      let byte = readByte(region, at: offset &+ lane, now: now, blobByte: blobByte)
      value |= UInt32(byte) << (8 * UInt32(lane))
    }
    noteClockInterrupt()
    return value
  }

  /// Writes to a region.
  public mutating func write(
    _ region: Region, _ value: UInt32, at offset: UInt16, width: AccessWidth, now: VMTime
  ) -> Request? {
    switch region {
    case .firmwareConfiguration:
      guard case .transfer(let address) = firmware.write(value, at: offset, width: width) else {
        return nil
      }
      return .firmwareTransfer(descriptorAddress: address)
    case .debugExit:
      let code = DebugExit.code(for: value & UInt32(truncatingIfNeeded: width.mask))
      return offset == 0 ? .exit(code: code) : nil
    default: break
    }
    var request: Request?
    for lane in 0..<UInt16(min(width.byteCount, 4)) {
      let byte = UInt8(truncatingIfNeeded: value >> (8 * UInt32(lane)))
      let new = writeByte(region, byte, at: offset &+ lane, now: now)
      request = request ?? new
    }
    noteClockInterrupt()
    return request
  }

  private mutating func readByte(
    _ region: Region, at offset: UInt16, now: VMTime, blobByte: UInt8
  ) -> UInt8 {
    guard offset < region.portCount else { return 0xFF }
    let low = UInt8(truncatingIfNeeded: offset)
    switch region {
    case .dma1: return dma1.read(low)
    case .dma2: return low & 1 == 0 ? dma2.read(low >> 1) : 0xFF
    case .dmaPages: return pages.read(low + 1)
    case .systemControlA: return port92.read()
    case .systemControlB: return port61.read(now: now)
    case .clock: return clock.read(at: offset, now: now)
    case .postCode: return postPort.code
    case .advancedPowerManagement: return power.readAPM(at: offset)
    case .debugExit: return 0xFF
    case .debugConsole: return DebugConsole.signature
    case .edgeLevelControl: return levels.read(at: offset)
    case .firmwareConfiguration: return firmware.read(at: offset, blobByte: blobByte)
    case .resetControl: return resetControl.read()
    case .powerManagement: return power.readPort(at: offset, now: now)
    case .smbus: return power.smbus.read(at: offset)
    case .generalEvents: return power.readEvents(at: offset)
    case .panic: return PanicPort.events
    }
  }

  private mutating func writeByte(
    _ region: Region, _ byte: UInt8, at offset: UInt16, now: VMTime
  ) -> Request? {
    guard offset < region.portCount else { return nil }
    let low = UInt8(truncatingIfNeeded: offset)
    switch region {
    case .dma1: dma1.write(byte, to: low)
    case .dma2: if low & 1 == 0 { dma2.write(byte, to: low >> 1) }
    case .dmaPages: pages.write(byte, to: low + 1)
    case .systemControlA: return port92.write(byte) ? .reset(.cpu) : nil
    case .systemControlB: port61.write(byte)
    case .clock: clock.write(byte, at: offset, now: now)
    case .postCode: postPort.write(byte)
    case .advancedPowerManagement: power.writeAPM(byte, at: offset)
    case .debugConsole: return .print(byte)
    case .edgeLevelControl: levels.write(byte, at: offset)
    case .resetControl: return resetControl.write(byte).map { .reset($0) }
    case .powerManagement:
      return power.writePort(byte, at: offset, now: now).map { sleep($0) }
    case .smbus: power.smbus.write(byte, at: offset)
    case .generalEvents: power.writeEvents(byte, at: offset)
    case .panic: return PanicPort.request(for: byte)
    case .debugExit, .firmwareConfiguration: break  // taken whole
    }
    return nil
  }

  // MARK: Configuration space, 40h to FFh

  /// Reads a function's own configuration registers; below 40h the core answers.
  public func readConfig(_ function: Function, at offset: UInt8, width: AccessWidth) -> UInt32 {
    switch function {
    case .isaBridge: bridge.readConfig(at: offset, width: width)
    case .powerManagement: power.readConfig(at: offset, width: width)
    }
  }

  /// Writes a function's own configuration registers.
  public mutating func writeConfig(
    _ function: Function, _ value: UInt32, at offset: UInt8, width: AccessWidth
  ) -> ConfigurationChange {
    switch function {
    case .isaBridge:
      bridge.writeConfig(value, at: offset, width: width) ? .routes : []
    case .powerManagement:
      power.writeConfig(value, at: offset, width: width) ? .ports : []
    }
  }

  /// A hard reset: every chip but the clock's time and memory.
  public mutating func reset() {
    bridge.reset()
    power.reset()
    clock.reset()
    firmware.reset()
    dma1.reset()
    dma2.reset()
    pages.reset()
    port92.reset()
    port61.reset()
    resetControl.reset()
    postPort.reset()
    levels.reset()
    wasClockInterrupt = false
  }

  /// What a sleeping state means for the board; firmware looks at the clock's memory as it wakes.
  private mutating func sleep(_ state: PIIX4PowerManagement.SleepingState) -> Request {
    guard state == .suspendToRAM else { return .powerOff }
    clock.noteSuspend()
    return .suspend
  }

  /// A rising IRQ 8 sets RTC_STS.
  private mutating func noteClockInterrupt() {
    if clock.interrupt, !wasClockInterrupt { power.reportClockInterrupt() }
    wasClockInterrupt = clock.interrupt
  }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.part("bridge", &bridge)
    visitor.part("power", &power)
    visitor.part("clock", &clock)
    visitor.part("firmware", &firmware)
    visitor.part("dma1", &dma1)
    visitor.part("dma2", &dma2)
    visitor.part("pages", &pages)
    visitor.part("port92", &port92)
    visitor.part("port61", &port61)
    visitor.part("resetControl", &resetControl)
    visitor.part("postPort", &postPort)
    visitor.part("levels", &levels)
    visitor.field("wasClockInterrupt", &wasClockInterrupt)
  }
}
