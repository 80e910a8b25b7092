// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import Testing

@testable import Serial

@Suite("UART16550 transmitter, interrupts and modem")
struct UART16550TransmitterTests {
  @Test("bytes leave in order, whole even while LCR says five bits")
  func order() {
    var uart = UART16550()
    uart.put(0x41, 0)
    uart.put(0xC2, 0)
    #expect(uart.transmit() == 0x41)
    #expect(uart.transmit() == 0xC2)
    #expect(uart.transmit() == nil)
  }

  @Test("in loopback a character keeps only the bits of its length")
  func shortCharacter() {
    var uart = UART16550.ready()
    uart.put(0x02, 3)
    uart.put(0x1B, 4)
    uart.put(0xC2, 0)
    #expect(uart.get(0) == 0x42)
  }

  @Test("a stopped reader clears THRE with slack left, and no byte is lost")
  func backPressure() {
    var uart = UART16550.ready(ier: 0x02)
    var sent = 0
    while uart.get(5) & 0x20 != 0 {
      for _ in 0..<16 {
        uart.put(UInt8(truncatingIfNeeded: sent), 0)
        sent += 1
      }
    }
    #expect(sent == UART16550.throttleLevel + 16)
    #expect(uart.get(5) == 0x00)
    #expect(!uart.interrupt)
    // A whole ring of posted writes that were on their way.
    for _ in 0..<(UART16550.queueCapacity - sent) {
      uart.put(UInt8(truncatingIfNeeded: sent), 0)
      sent += 1
    }
    #expect(uart.lostCount == 0)
    #expect(!uart.interrupt)
    var taken: [UInt8] = []
    while uart.get(5) & 0x20 == 0, let byte = uart.transmit() { taken.append(byte) }
    #expect(taken.count == UART16550.queueCapacity - UART16550.resumeLevel)
    #expect(uart.interrupt)
    taken += uart.outgoing(UART16550.queueCapacity)
    #expect(taken == (0..<sent).map { UInt8(truncatingIfNeeded: $0) })
  }

  @Test("a guest that never looks at THRE loses bytes, and they are counted")
  func overflow() {
    var uart = UART16550.ready()
    for _ in 0..<5000 { uart.put(0, 0) }
    #expect(uart.lostCount == 5000 - 4096)
    #expect(uart.outgoing(5000).count == 4096)
  }

  @Test("a partial write of the back end drops only what was taken")
  func partialDrain() {
    var uart = UART16550.ready()
    for byte in UInt8(1)...5 { uart.put(byte, 0) }
    #expect(uart.outgoing(3) == [1, 2, 3])
    uart.dropOutgoing(2)
    #expect(uart.outgoing(10) == [3, 4, 5])
    uart.dropOutgoing(99)
    #expect(!uart.hasOutgoing)
  }

  @Test("enabling the THRE interrupt with an empty transmitter raises it at once")
  func emptyInterrupt() {
    var uart = UART16550.ready()
    #expect(!uart.interrupt)
    uart.put(0x02, 1)
    #expect(uart.interrupt)
    #expect(uart.interruptIdentification == UART16550.Peek(value: 0xC2, hasSideEffect: true))
    #expect(uart.get(2) == 0xC2)
    #expect(uart.get(2) == 0xC1)
    #expect(!uart.interrupt)
    uart.put(0x41, 0)
    #expect(uart.interrupt)
  }

  @Test("reading IIR leaves the THRE interrupt pending while another source is shown")
  func latchSurvivesOthers() {
    var uart = UART16550.ready(ier: 0x03)
    uart.receive(1, now: .zero)
    #expect(uart.get(2) == 0xC4)
    _ = uart.get(0)
    #expect(uart.get(2) == 0xC2)
    #expect(uart.get(2) == 0xC1)
  }

  @Test("writing THR while its interrupt is pending makes a new edge")
  func pulse() {
    var uart = UART16550.ready(ier: 0x02)
    #expect(uart.takePulse() == false)
    uart.put(0x41, 0)
    #expect(uart.interrupt)
    #expect(uart.takePulse() == true)
    #expect(uart.takePulse() == false)
  }

  @Test("sources are identified by priority: line, data, THRE, modem")
  func priorities() {
    var uart = UART16550.ready(ier: 0x0F)
    uart.setModemInputs([])
    uart.receive(1, errors: .framing, now: .zero)
    #expect(uart.get(2) == 0xC6)
    _ = uart.get(5)
    #expect(uart.get(2) == 0xC4)
    _ = uart.get(0)
    #expect(uart.get(2) == 0xC2)
    #expect(uart.get(2) == 0xC0)
    #expect(uart.get(6) == 0x0B)
    #expect(uart.get(2) == 0xC1)
  }

  @Test("OUT2 gates the interrupt line")
  func gate() {
    var uart = UART16550.ready(ier: 0x02)
    uart.put(0x03, 4)
    #expect(!uart.interrupt)
    #expect(uart.get(2) == 0xC2)
  }

  @Test("modem changes set their delta bits once; RI only when it falls")
  func modemDeltas() {
    var uart = UART16550.ready()
    #expect(uart.modemStatus == UART16550.Peek(value: 0xB0, hasSideEffect: false))
    uart.setModemInputs([.clearToSend, .ringIndicator])
    #expect(uart.modemStatus == UART16550.Peek(value: 0x5A, hasSideEffect: true))
    #expect(uart.get(6) == 0x5A)
    #expect(uart.get(6) == 0x50)
    uart.setModemInputs([.clearToSend])
    #expect(uart.get(6) == 0x14)
  }

  @Test(
    "loopback shows MCR's outputs as MSR's inputs",
    arguments: [
      (UInt8(0x10), UInt8(0x00)), (0x11, 0x20), (0x12, 0x10), (0x14, 0x40), (0x18, 0x80),
      (0x1A, 0x90), (0x1F, 0xF0),
    ])
  func loopbackLines(mcr: UInt8, msr: UInt8) {
    var uart = UART16550()
    uart.put(mcr, 4)
    #expect(uart.get(6) & 0xF0 == msr)
  }

  @Test("loopback returns sent bytes to the receiver and nothing reaches the wire")
  func loopbackData() {
    var uart = UART16550.ready(ier: 0x01)
    uart.put(0x1B, 4)
    #expect(!uart.canReceive)
    uart.put(0x5A, 0)
    uart.receive(0x99, now: .zero)
    #expect(uart.interrupt)
    #expect(uart.get(0) == 0x5A)
    #expect(uart.get(5) == 0x60)
    #expect(!uart.hasOutgoing)
    uart.put(0x43, 3)
    #expect(uart.get(5) & 0x11 == 0x11)
    #expect(!uart.isSendingBreak)
    #expect(!uart.dataTerminalReady && !uart.requestToSend)
  }

  @Test("LCR bit 6 and MCR's outputs show at the pins")
  func pins() {
    var uart = UART16550.ready()
    #expect(uart.dataTerminalReady && uart.requestToSend)
    uart.put(0x43, 3)
    #expect(uart.isSendingBreak)
    uart.put(0x03, 3)
    #expect(!uart.isSendingBreak)
  }

  @Test("only data writes are posted")
  func posted() {
    #expect((UInt16(0)..<8).filter(UART16550.isPostedWrite) == [0])
  }
}
