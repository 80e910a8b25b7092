// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import PIIX
import ModelTestSupport
import Testing

@Suite("PIIX4PowerManagement")
struct PIIX4PowerManagementTests {
  static func word(_ power: inout PIIX4PowerManagement, _ offset: UInt16, _ now: VMTime = .zero)
    -> UInt16
  {
    let low = UInt16(power.readPort(at: offset, now: now))
    return low | UInt16(power.readPort(at: offset + 1, now: now)) << 8
  }

  static func set(
    _ power: inout PIIX4PowerManagement, _ offset: UInt16, _ value: UInt16, _ now: VMTime = .zero
  ) -> PIIX4PowerManagement.SleepingState? {
    let low = power.writePort(UInt8(value & 0xFF), at: offset, now: now)
    return power.writePort(UInt8(value >> 8), at: offset + 1, now: now) ?? low
  }

  @Test(
    "configuration registers after reset",
    arguments: [
      (UInt8(0x40), UInt32(0x0000_0001)), (0x58, 0x0200_0000), (0x80, 0), (0x90, 1), (0xD0, 0),
    ] as [(UInt8, UInt32)])
  func reset(offset: UInt8, value: UInt32) {
    #expect(PIIX4PowerManagement().readConfig(at: offset, width: .long) == value)
  }

  @Test("the ports appear where PMBA says once PMREGMISC lets them")
  func ports() {
    var power = PIIX4PowerManagement()
    #expect(power.ioBase == nil)
    #expect(power.writeConfig(0x0601, at: 0x40, width: .long) == false)
    #expect(power.ioBase == nil)
    #expect(power.writeConfig(0x01, at: 0x80, width: .byte) == true)
    #expect(power.ioBase == 0x600)
    #expect(power.writeConfig(0xFFFF_FFFF, at: 0x40, width: .long) == true)
    #expect(power.readConfig(at: 0x40, width: .long) == 0x0000_FFC1)
    #expect(power.ioBase == 0xFFC0)
    #expect(power.writeConfig(0x00, at: 0x80, width: .byte) == true)
    #expect(power.ioBase == nil)
  }

  @Test("the SMBus ports appear where SMBBA says once SMBHSTCFG lets them")
  func smbusPorts() {
    var power = PIIX4PowerManagement()
    _ = power.writeConfig(0x0701, at: 0x90, width: .long)
    #expect(power.smbusBase == nil)
    #expect(power.writeConfig(0x09, at: 0xD2, width: .byte) == true)
    #expect(power.smbusBase == 0x700)
  }

  @Test(
    "the timer counts at 3.579545 MHz in 24 bits",
    arguments: [
      (UInt64(0), UInt32(0)), (1_000_000_000, 3_579_545), (4_000_000_000, 14_318_180),
      (5_000_000_000, 17_897_725 - 0x100_0000),
    ] as [(UInt64, UInt32)])
  func timer(nanoseconds: UInt64, ticks: UInt32) {
    var power = PIIX4PowerManagement()
    let now = VMTime(nanoseconds: nanoseconds)
    let low = UInt32(Self.word(&power, 8, now))
    #expect(low | UInt32(Self.word(&power, 10, now)) << 16 == ticks)
    #expect(PIIX4PowerManagement.timer(at: now) == ticks)
  }

  @Test("the timer's overflow raises the SCI every 2.34 s")
  func timerOverflow() {
    var power = PIIX4PowerManagement()
    _ = Self.set(&power, 4, 0x0001)
    _ = Self.set(&power, 2, 0x0001)
    let deadline = power.nextDeadline
    #expect(deadline == VMTime(nanoseconds: 2_343_484_438))
    power.advance(to: VMTime(nanoseconds: 2_343_484_437))
    #expect(!power.interrupt)
    power.advance(to: VMTime(nanoseconds: 2_343_484_438))
    #expect(power.interrupt)
    let later = VMTime(nanoseconds: 2_400_000_000)
    _ = Self.set(&power, 0, 0x0001, later)
    #expect(!power.interrupt)
    #expect(power.nextDeadline == VMTime(nanoseconds: 4_686_968_875))
  }

  @Test(
    "SUS_EN enters the state of the sleep type, if that is one",
    arguments: [
      (UInt16(0x2000), .softOff), (0x2001, .softOff), (0x2400, .suspendToRAM),
      (0x2800, .suspendToDisk), (0x3400, nil), (0x0000, nil), (0x1C00, nil), (0x0400, nil),
    ] as [(UInt16, PIIX4PowerManagement.SleepingState?)])
  func sleepingStates(value: UInt16, state: PIIX4PowerManagement.SleepingState?) {
    var power = PIIX4PowerManagement()
    #expect(Self.set(&power, 4, value) == state)
    #expect(Self.word(&power, 4) & 0x2000 == 0)
    #expect(power.isSuspended == (state == .suspendToRAM))
  }

  @Test("what wakes the suspended machine is in the status after the reset, with WAK_STS")
  func wake() {
    var power = PIIX4PowerManagement()
    _ = Self.set(&power, 4, 0x2401)
    #expect(power.isSuspended && !power.isWoken)
    // The clock wakes only where RTC_EN is set; the button always does.
    power.reportClockInterrupt()
    #expect(!power.isWoken)
    _ = Self.set(&power, 2, 0x0400)
    power.reportClockInterrupt()
    #expect(power.isWoken)
    power.reset()
    #expect(Self.word(&power, 0) == 0x8400)
    #expect(!power.isSuspended && !power.isWoken && Self.word(&power, 2) == 0)
    _ = Self.set(&power, 0, 0x8400)
    #expect(Self.word(&power, 0) == 0)

    _ = Self.set(&power, 4, 0x2401)
    power.pressPowerButton()
    #expect(power.isWoken)
    power.reset()
    #expect(Self.word(&power, 0) == 0x8100)

    // A key has no bit of its own; awake it does nothing.
    power.reset()
    power.reportInput()
    #expect(!power.isWoken && Self.word(&power, 0) == 0)
    _ = Self.set(&power, 4, 0x2401)
    power.reportInput()
    #expect(power.isWoken)
    power.reset()
    #expect(Self.word(&power, 0) == 0x8100)
  }

  @Test("an event that is enabled and there already wakes at once; a reset by others wakes nothing")
  func wakesAtOnce() {
    var power = PIIX4PowerManagement()
    power.reportClockInterrupt()
    _ = Self.set(&power, 2, 0x0400)
    _ = Self.set(&power, 4, 0x2401)
    #expect(power.isWoken)

    power.reset()
    _ = Self.set(&power, 0, 0xFFFF)
    _ = Self.set(&power, 4, 0x2401)
    power.reset()
    #expect(Self.word(&power, 0) == 0 && !power.isSuspended)
  }

  @Test("the power button raises the SCI where enabled, and a one clears it")
  func powerButton() {
    var power = PIIX4PowerManagement()
    power.pressPowerButton()
    #expect(Self.word(&power, 0) == 0x0100)
    #expect(!power.interrupt)
    _ = Self.set(&power, 2, 0x0100)
    #expect(!power.interrupt)
    _ = Self.set(&power, 4, 0x0001)
    #expect(power.interrupt)
    _ = Self.set(&power, 0, 0x0100)
    #expect(!power.interrupt)
    #expect(Self.word(&power, 0) == 0)
  }

  @Test("PM1 enable and control keep only their bits")
  func masks() {
    var power = PIIX4PowerManagement()
    _ = Self.set(&power, 2, 0xFFFF)
    #expect(Self.word(&power, 2) == 0x0521)
    _ = Self.set(&power, 4, 0xDFFF)
    #expect(Self.word(&power, 4) == 0x1C03)
  }

  @Test("general purpose events raise the SCI")
  func events() {
    var power = PIIX4PowerManagement()
    power.writeAPM(0xF1, at: 0)
    power.raiseEvent(9)
    power.raiseEvent(16)
    power.raiseEvent(-1)
    #expect((0..<4).map { power.readEvents(at: $0) } == [0, 2, 0, 0])
    #expect(!power.interrupt)
    power.writeEvents(0x02, at: 3)
    #expect(power.interrupt)
    power.writeEvents(0x02, at: 1)
    #expect(!power.interrupt)
    #expect(power.readEvents(at: 3) == 2)
  }

  @Test("APMC switches ACPI mode, and both APM ports read back")
  func apm() {
    var power = PIIX4PowerManagement()
    power.writeAPM(0xF1, at: 0)
    #expect(power.isACPIEnabled)
    #expect(Self.word(&power, 4) == 1)
    power.writeAPM(0xF0, at: 0)
    #expect(!power.isACPIEnabled)
    power.writeAPM(0x5A, at: 1)
    #expect(power.readAPM(at: 0) == 0xF0)
    #expect(power.readAPM(at: 1) == 0x5A)
    #expect(power.readAPM(at: 2) == 0xFF)
  }

  @Test("an SMBus transaction ends with a device error and its interrupt")
  func smbus() {
    var host = SMBusHost()
    host.write(0xA1, at: 4)
    host.write(0x49, at: 2)
    #expect(host.read(at: 0) == 0x04)
    #expect(host.read(at: 2) == 0x09)
    #expect(host.interrupt)
    host.write(0x04, at: 0)
    #expect(host.read(at: 0) == 0)
    #expect(!host.interrupt)
  }

  @Test("state survives a round trip")
  func state() {
    var power = PIIX4PowerManagement()
    _ = power.writeConfig(0x0601, at: 0x40, width: .long)
    _ = power.writeConfig(1, at: 0x80, width: .byte)
    _ = Self.set(&power, 2, 0x0101)
    _ = Self.set(&power, 4, 0x0401, VMTime(nanoseconds: 9_000_000_000))
    power.pressPowerButton()
    power.raiseEvent(3)
    _ = Self.set(&power, 4, 0x2401, VMTime(nanoseconds: 9_000_000_000))
    power.pressPowerButton()
    var other = PIIX4PowerManagement()
    restore(encoded(power), into: &other)
    #expect(encoded(other) == encoded(power))
    #expect(other.interrupt && other.ioBase == 0x600 && other.isWoken)
  }
}
