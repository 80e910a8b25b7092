// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The PIIX4's power management function, 01.3: ACPI fixed registers, GPE0, APM and SMBus.
///
/// Intel 82371AB data sheet (order number 290562), chapter 7; ACPI 1.0b, 4.7. The machine
/// has no system management mode: an SMI source raises nothing, and APMC_EN reads as set so
/// that firmware takes its handler for installed. Suspended, only ``timerToggles`` and what
/// wakes goes on; the reset that follows leaves WAK_STS and the cause behind (ACPI 1.0b, 9.3.2).
/// GPE0 is where the `pc` machine has it, at AFE0h, not the chip's own GPSTS.
public struct PIIX4PowerManagement: DeviceState, Sendable {
  var registers = ConfigRegisters(Self.layout)
  var status: PM1Status = []
  var enable: UInt16 = 0
  var control: UInt16 = 0
  var gpeStatus: UInt16 = 0
  var gpeEnable: UInt16 = 0
  /// The chip's other I/O registers, 0Ch to 37h of its range, as plain storage.
  var storage = [64 of UInt8](repeating: 0)
  var apmControl: UInt8 = 0
  var apmStatus: UInt8 = 0
  /// How often bit 23 of the timer had toggled when that was last looked at.
  var timerToggles: UInt64 = 0
  public internal(set) var smbus = SMBusHost()
  /// Whether the machine is suspended to RAM.
  public internal(set) var isSuspended = false
  /// What wakes the suspended machine; empty while nothing has.
  var wakeCause: PM1Status = []

  /// The PM timer counts at 3.579545 MHz and is 24 bits wide (ACPI 1.0b, 4.7.2.1).
  public static let timerFrequency: UInt64 = 3_579_545
  public static let timerWidth: UInt8 = 24
  /// The timer's offset in the power management range.
  public static let timerOffset: UInt16 = 0x08

  /// What APMC (B2h) is told to switch ACPI mode on and off, as the FADT says.
  public static let acpiEnable: UInt8 = 0xF1
  public static let acpiDisable: UInt8 = 0xF0

  /// What SUS_TYP selects (7.2.3), with the values that the `pc` machine's tables give.
  public enum SleepingState: UInt8, Sendable {
    /// S5.
    case softOff = 0
    /// S3: RAM stays, everything else is reset when it wakes.
    case suspendToRAM = 1
    /// S4: the system has saved itself to a disk; for the machine it is soft off.
    case suspendToDisk = 2
  }

  struct PM1Status: OptionSet, Sendable {
    let rawValue: UInt16
    static let timer = Self(rawValue: 1 << 0)
    static let busMaster = Self(rawValue: 1 << 4)
    static let global = Self(rawValue: 1 << 5)
    static let powerButton = Self(rawValue: 1 << 8)
    static let clock = Self(rawValue: 1 << 10)
    static let override = Self(rawValue: 1 << 11)
    static let resume = Self(rawValue: 1 << 15)
    static let all: Self = [.timer, .busMaster, .global, .powerButton, .clock, .override, .resume]
  }

  /// The enable bits of PM1_EN: timer, global, power button, clock.
  static let enableMask: UInt16 = 0x0521

  public init() {}

  // MARK: Lines and time

  /// The level of IRQ 9: the SCI, or the SMBus host's interrupt where it is routed there.
  public var interrupt: Bool { systemControlInterrupt || smbusInterrupt }

  /// The SCI: an enabled event while SCI_EN is set (7.2.1).
  public var systemControlInterrupt: Bool {
    isACPIEnabled
      && (status.rawValue & enable & Self.enableMask != 0 || gpeStatus & gpeEnable != 0)
  }

  /// SMBHSTCFG (D2h): bit 0 enables the host, bits 3:1 = 100b route it to IRQ 9.
  private var smbusInterrupt: Bool { registers[0xD2] & 0x0F == 0x09 && smbus.interrupt }

  /// SCI_EN: whether events raise the SCI instead of an SMI.
  public var isACPIEnabled: Bool { control & 1 != 0 }

  /// The PM timer.
  public static func timer(at now: VMTime) -> UInt32 {
    UInt32(truncatingIfNeeded: now.ticks(frequency: timerFrequency)) & 0xFF_FFFF
  }

  /// Latches what time has brought: the timer's overflow status, set as bit 23 toggles.
  public mutating func advance(to now: VMTime) {
    let toggles = now.ticks(frequency: Self.timerFrequency) >> 23
    if toggles > timerToggles { status.insert(.timer) }
    timerToggles = toggles
  }

  /// When ``interrupt`` may rise by itself next, or `nil` if only an access can raise it.
  public var nextDeadline: VMTime? {
    guard isACPIEnabled, enable & 1 != 0, !status.contains(.timer) else { return nil }
    let ticks = (timerToggles &+ 1) << 23
    let product = ticks.multipliedFullWidth(by: 1_000_000_000)
    guard product.high < Self.timerFrequency else { return nil }
    let (time, rest) = Self.timerFrequency.dividingFullWidth(product)
    return VMTime(nanoseconds: rest == 0 ? time : time &+ 1)
  }

  // MARK: Events

  /// Reports that the power button was pressed; it wakes, enabled or not (ACPI 1.0b, 4.7.2.2.1.1).
  public mutating func pressPowerButton() {
    status.insert(.powerButton)
    wake(.powerButton)
  }

  /// Reports that the real-time clock's interrupt rose (RTC_STS); enabled it wakes.
  public mutating func reportClockInterrupt() {
    status.insert(.clock)
    if enable & PM1Status.clock.rawValue != 0 { wake(.clock) }
  }

  /// Reports a key or the mouse, which wake; there is no status bit but the button's for them.
  public mutating func reportInput() { wake(.powerButton) }

  /// Whether the suspended machine has been woken, and is to be reset.
  public var isWoken: Bool { isSuspended && !wakeCause.isEmpty }

  private mutating func wake(_ cause: PM1Status) {
    if isSuspended { wakeCause.insert(cause) }
  }

  /// Enters a sleeping state; one that is enabled to wake already has does so at once.
  mutating func enter(_ state: SleepingState?) -> SleepingState? {
    guard state == .suspendToRAM else { return state }
    isSuspended = true
    wakeCause = status.intersection(PM1Status(rawValue: enable)).intersection([
      .powerButton, .clock,
    ])
    return state
  }

  /// Raises general purpose event `index`, 0 to 15.
  public mutating func raiseEvent(_ index: Int) {
    guard (0..<16).contains(index) else { return }
    gpeStatus |= 1 << UInt16(index)
  }

  // MARK: Configuration space

  public func readConfig(at offset: UInt8, width: AccessWidth) -> UInt32 {
    registers.read(at: offset, width: width)
  }

  /// Writes configuration registers; returns whether a port range moved or was switched.
  public mutating func writeConfig(_ value: UInt32, at offset: UInt8, width: AccessWidth) -> Bool {
    let before = (ioBase, smbusBase)
    registers.write(value, at: offset, width: width)
    return before != (ioBase, smbusBase)
  }

  /// The first of the 64 power management ports, or `nil` while they are off.
  ///
  /// PMBA (40h) and PMIOSE in PMREGMISC (80h). The function's I/O space enable does not
  /// govern them (7.1.3).
  public var ioBase: UInt16? {
    let base = UInt16(registers[0x40] & 0xC0) | UInt16(registers[0x41]) << 8
    return registers[0x80] & 1 != 0 && base != 0 ? base : nil
  }

  /// The first of the 16 SMBus ports, or `nil` while they are off.
  ///
  /// SMBBA (90h) and SMB_HST_EN in SMBHSTCFG (D2h).
  public var smbusBase: UInt16? {
    let base = UInt16(registers[0x90] & 0xF0) | UInt16(registers[0x91]) << 8
    return registers[0xD2] & 1 != 0 && base != 0 ? base : nil
  }

  /// Puts everything into the state after RST#; the timer goes on.
  ///
  /// After a suspended machine was woken the status bits say so.
  public mutating func reset() {
    let toggles = timerToggles
    let cause = isWoken ? wakeCause.union(.resume) : []
    self = PIIX4PowerManagement()
    timerToggles = toggles
    status = cause
  }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.part("registers", &registers)
    var bits = status.rawValue
    visitor.field("status", &bits)
    status = PM1Status(rawValue: bits).intersection(.all)
    visitor.field("enable", &enable)
    visitor.field("control", &control)
    visitor.field("gpeStatus", &gpeStatus)
    visitor.field("gpeEnable", &gpeEnable)
    visitor.bytes("storage", &storage)
    visitor.field("apmControl", &apmControl)
    visitor.field("apmStatus", &apmStatus)
    visitor.field("timerToggles", &timerToggles)
    visitor.part("smbus", &smbus)
    visitor.field("isSuspended", &isSuspended)
    bits = wakeCause.rawValue
    visitor.field("wakeCause", &bits)
    wakeCause = PM1Status(rawValue: bits).intersection(.all)
  }

  private static let layout: [ConfigRegisters.Byte] = {
    var bytes: [ConfigRegisters.Byte] = [
      .init(0x40, 0x01, 0xC0), .init(0x41, 0x00, 0xFF),  // PMBA
      .init(0x90, 0x01, 0xF0), .init(0x91, 0x00, 0xFF),  // SMBBA
      .init(0x80, 0x00, 0x01),  // PMREGMISC
      .init(0xD2, 0x00, 0x0F),  // SMBHSTCFG
      .init(0xD3, 0x00, 0xFF), .init(0xD4, 0x00, 0xFF), .init(0xD5, 0x00, 0xFF),  // SMBus slave
    ]
    // CNTA, CNTB, GPICTL and DEVRESD to DEVRESJ: device monitors, without effect.
    for offset in UInt8(0x44)...0x7F where offset != 0x5B {
      bytes.append(.init(offset, 0x00, 0xFF))
    }
    // DEVACTB's upper byte; bit 1 is APMC_EN.
    bytes.append(.init(0x5B, 0x02, 0xFF))
    return bytes
  }()
}
