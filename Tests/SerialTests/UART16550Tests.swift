// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import Testing

@testable import Serial

extension UART16550 {
  /// Reads a byte register at time zero.
  mutating func get(_ offset: UInt16, now: VMTime = .zero) -> UInt8 {
    UInt8(truncatingIfNeeded: read(at: offset, width: .byte, now: now))
  }

  /// Writes a byte register at time zero.
  mutating func put(_ value: UInt8, _ offset: UInt16, now: VMTime = .zero) {
    write(UInt64(value), at: offset, width: .byte, now: now)
  }

  /// A chip at 115200 baud, 8N1, with OUT2 set, FIFOs on with `fcr`, and `ier` enabled.
  static func ready(ier: UInt8 = 0, fcr: UInt8 = 0x01) -> UART16550 {
    var uart = UART16550()
    uart.put(0x83, 3)
    uart.put(1, 0)
    uart.put(0, 1)
    uart.put(0x03, 3)
    uart.put(fcr, 2)
    uart.put(0x0B, 4)
    uart.put(ier, 1)
    return uart
  }
}

@Suite("UART16550 registers")
struct UART16550RegisterTests {
  @Test("a reset chip reads as in table III of the data sheet")
  func resetValues() {
    var uart = UART16550.ready(ier: 0x0F)
    uart.put(0x55, 7)
    uart.reset()
    #expect(uart.get(1) == 0x00)
    #expect(uart.get(2) == 0x01)
    #expect(uart.get(3) == 0x00)
    #expect(uart.get(4) == 0x00)
    #expect(uart.get(5) == 0x60)
    #expect(uart.get(6) == 0xB0)
    #expect(!uart.interrupt)
  }

  @Test("the scratch register holds what was written")
  func scratch() {
    var uart = UART16550()
    uart.put(0xA5, 7)
    #expect(uart.get(7) == 0xA5)
    uart.put(0x5A, 7)
    #expect(uart.get(7) == 0x5A)
  }

  @Test("DLAB puts the divisor in place of data and IER")
  func divisorLatch() {
    var uart = UART16550()
    uart.put(0x05, 1)
    uart.put(0x80, 3)
    uart.put(0x34, 0)
    uart.put(0x12, 1)
    #expect(uart.get(0) == 0x34)
    #expect(uart.get(1) == 0x12)
    uart.put(0x00, 3)
    #expect(uart.get(1) == 0x05)
    #expect(!uart.hasOutgoing)
    #expect(uart.baudRate == 1_843_200 / 16 / 0x1234)
  }

  @Test("IER keeps its low four bits, MCR its low five")
  func reservedBits() {
    var uart = UART16550()
    uart.put(0xFF, 1)
    uart.put(0xEF, 4)
    #expect(uart.get(1) == 0x0F)
    #expect(uart.get(4) == 0x0F)
  }

  @Test("LSR and MSR ignore writes")
  func readOnly() {
    var uart = UART16550()
    uart.put(0x00, 5)
    uart.put(0x00, 6)
    #expect(uart.get(5) == 0x60)
    #expect(uart.get(6) == 0xB0)
  }

  @Test("a wide read takes one register per byte and floats past the last")
  func wideAccess() {
    var uart = UART16550()
    uart.put(0x42, 7)
    #expect(uart.read(at: 7, width: .word, now: .zero) == 0xFF42)
    uart.write(0x0300, at: 2, width: .word, now: .zero)
    #expect(uart.get(3) == 0x03)
    #expect(uart.read(at: 65535, width: .quad, now: .zero) & 0xFF == 0xFF)
  }

  @Test(
    "IIR shows the FIFO bits only while the FIFOs are on",
    arguments: [(UInt8(0x00), UInt8(0x01)), (0x01, 0xC1), (0xC6, 0x01)])
  func fifoBits(fcr: UInt8, iir: UInt8) {
    var uart = UART16550()
    uart.put(fcr, 2)
    #expect(uart.get(2) == iir)
  }

  @Test(
    "a character lasts start, data, parity and stop bits",
    arguments: [
      (UInt8(0x03), UInt64(20)), (0x00, 14), (0x04, 15), (0x07, 22), (0x0B, 22), (0x1F, 24),
    ])
  func characterTime(lcr: UInt8, halfBits: UInt64) {
    var uart = UART16550.ready()
    uart.put(lcr, 3)
    #expect(uart.characterNanoseconds == halfBits * 1_000_000_000 / (2 * 115_200))
  }

  @Test("a divisor of zero counts as one and the largest does not overflow")
  func extremeDivisors() {
    var uart = UART16550.ready()
    uart.put(0x83, 3)
    uart.put(0, 0)
    #expect(uart.baudRate == 115_200)
    uart.put(0xFF, 0)
    uart.put(0xFF, 1)
    #expect(uart.baudRate == 1)
    #expect(uart.characterNanoseconds == 20 * 65535 * 16 * 1_000_000_000 / 3_686_400)
  }
}

@Suite("UART16550 receiver")
struct UART16550ReceiverTests {
  @Test("bytes come out in order and DR follows")
  func order() {
    var uart = UART16550.ready()
    uart.receive(0x41, now: .zero)
    uart.receive(0x42, now: .zero)
    #expect(uart.get(5) == 0x61)
    #expect(uart.get(0) == 0x41)
    #expect(uart.get(0) == 0x42)
    #expect(uart.get(5) == 0x60)
  }

  @Test("without FIFOs a second byte overwrites the first and sets overrun")
  func holdingRegister() {
    var uart = UART16550.ready(fcr: 0)
    uart.receive(0x41, now: .zero)
    #expect(!uart.canReceive)
    uart.receive(0x42, now: .zero)
    #expect(uart.get(5) == 0x63)
    #expect(uart.get(5) == 0x61)
    #expect(uart.get(0) == 0x42)
    #expect(uart.canReceive)
  }

  @Test("a full FIFO keeps its sixteen bytes and sets overrun")
  func overrun() {
    var uart = UART16550.ready()
    for byte in UInt8(0)..<16 {
      #expect(uart.canReceive)
      uart.receive(byte, now: .zero)
    }
    #expect(!uart.canReceive)
    uart.receive(99, now: .zero)
    #expect(uart.get(5) & 0x02 == 0x02)
    #expect((0..<17).map { _ in uart.get(0) } == Array(0..<16) + [0])
  }

  @Test(
    "the received-data interrupt waits for the trigger level",
    arguments: [(UInt8(0x01), 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
  func trigger(fcr: UInt8, level: Int) {
    var uart = UART16550.ready(ier: 0x01, fcr: fcr)
    for _ in 0..<(level - 1) { uart.receive(0, now: .zero) }
    #expect(!uart.interrupt)
    uart.receive(0, now: .zero)
    #expect(uart.interrupt)
    #expect(uart.get(2) == 0xC4)
    _ = uart.get(0)
    #expect(!uart.interrupt)
  }

  @Test("four character times without traffic raise the timeout interrupt")
  func timeout() {
    var uart = UART16550.ready(ier: 0x01, fcr: 0x81)
    let character = uart.characterNanoseconds
    uart.receive(0x41, now: VMTime(nanoseconds: 1000))
    uart.receive(0x42, now: VMTime(nanoseconds: 2000))
    let due = VMTime(nanoseconds: 2000 + 4 * character)
    #expect(uart.deadline == due)
    uart.advance(to: VMTime(nanoseconds: due.nanoseconds - 1))
    #expect(!uart.interrupt)
    uart.advance(to: due)
    #expect(uart.interrupt)
    #expect(uart.deadline == nil)
    #expect(uart.get(2, now: due) == 0xCC)
    // Reading one byte ends it and starts the time again for the next.
    #expect(uart.get(0, now: due) == 0x41)
    #expect(!uart.interrupt)
    #expect(uart.deadline == due.advanced(by: 4 * character))
  }

  @Test("there is no timeout without FIFOs, without data or without its interrupt enabled")
  func noTimeout() {
    var plain = UART16550.ready(ier: 0x01, fcr: 0)
    plain.receive(1, now: .zero)
    #expect(plain.deadline == nil)
    let idle = UART16550.ready(ier: 0x01, fcr: 0xC1)
    #expect(idle.deadline == nil)
    var masked = UART16550.ready(ier: 0x00, fcr: 0xC1)
    masked.receive(1, now: .zero)
    #expect(masked.deadline == nil)
  }

  @Test("FCR bit 1 empties the FIFO, and so does turning the FIFOs off")
  func clear() {
    var uart = UART16550.ready()
    uart.receive(1, now: .zero)
    uart.put(0x03, 2)
    #expect(uart.get(5) == 0x60)
    uart.receive(2, now: .zero)
    uart.put(0x01, 2)
    #expect(uart.get(5) == 0x61)
    uart.put(0x00, 2)
    #expect(uart.get(5) == 0x60)
  }

  @Test("an error shows when its character reaches the top, and reading LSR clears it")
  func errorAtTop() {
    var uart = UART16550.ready(ier: 0x04)
    uart.receive(1, now: .zero)
    uart.receive(2, errors: .parity, now: .zero)
    uart.receive(3, errors: .framing, now: .zero)
    #expect(uart.get(5) == 0xE1)
    #expect(!uart.interrupt)
    _ = uart.get(0)
    #expect(uart.interrupt)
    #expect(uart.get(2) == 0xC6)
    #expect(uart.lineStatus == UART16550.Peek(value: 0xE5, hasSideEffect: true))
    #expect(uart.get(5) == 0xE5)
    #expect(!uart.interrupt)
    _ = uart.get(0)
    #expect(uart.get(5) == 0xE9)
    #expect(uart.get(5) == 0x61)
  }

  @Test("a break is one zero character with BI")
  func receivedBreak() {
    var uart = UART16550.ready()
    uart.receiveBreak(now: .zero)
    #expect(uart.get(5) == 0xF1)
    #expect(uart.get(5) == 0x61)
    #expect(uart.get(0) == 0)
  }
}
