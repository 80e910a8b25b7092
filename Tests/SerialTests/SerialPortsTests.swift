// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import ModelTestSupport
import Testing

@testable import Serial

@Suite("SerialPorts")
struct SerialPortsTests {
  @Test("the four ports sit where the PC has them")
  func claims() {
    #expect(SerialPorts.claims.map(\.base) == [0x3F8, 0x2F8, 0x3E8, 0x2E8])
    #expect(SerialPorts.claims.map(\.irq) == [4, 3, 4, 3])
    for (index, claim) in SerialPorts.claims.enumerated() {
      for offset in 0..<claim.portCount {
        let place = SerialPorts.decode(claim.base + offset)
        #expect(place?.index == index)
        #expect(place?.offset == offset)
      }
    }
    #expect(SerialPorts.decode(0x3F7) == nil)
    #expect(SerialPorts.decode(0x400) == nil)
  }

  @Test("each port is a chip of its own")
  func separate() {
    var ports = SerialPorts()
    for (index, claim) in SerialPorts.claims.enumerated() {
      ports.write(UInt64(index + 1), at: claim.base + 7, width: .byte, now: .zero)
    }
    for (index, claim) in SerialPorts.claims.enumerated() {
      #expect(ports.read(at: claim.base + 7, width: .byte, now: .zero) == UInt64(index + 1))
    }
    #expect(ports.read(at: 0x80, width: .word, now: .zero) == 0xFFFF)
  }

  @Test("COM1 and COM3 share line 4")
  func sharedLine() {
    var ports = SerialPorts()
    ports.uarts[2] = .ready(ier: 0x02)
    #expect(ports.interrupt(irq: 4))
    #expect(!ports.interrupt(irq: 3))
    #expect(!ports.interrupt(irq: 5))
    ports.uarts[2].put(0x41, 0)
    #expect(ports.takePulse(irq: 4) == true)
    #expect(ports.takePulse(irq: 4) == false)
  }

  @Test("the earliest timeout is the deadline")
  func deadline() {
    var ports = SerialPorts()
    #expect(ports.deadline == nil)
    ports.uarts[1] = .ready(ier: 1, fcr: 0xC1)
    ports.uarts[3] = .ready(ier: 1, fcr: 0xC1)
    ports.uarts[1].receive(0, now: VMTime(nanoseconds: 500))
    ports.uarts[3].receive(0, now: VMTime(nanoseconds: 100))
    #expect(ports.deadline == ports.uarts[3].deadline)
    ports.advance(to: VMTime(nanoseconds: 1_000_000_000))
    #expect(ports.interrupt(irq: 3))
    ports.reset()
    #expect(!ports.interrupt(irq: 3))
  }

  @Test("a reset keeps bytes that are on their way out")
  func resetKeepsQueue() {
    var ports = SerialPorts()
    ports.write(0x41, at: 0x3F8, width: .byte, now: .zero)
    ports.reset()
    #expect(ports.uarts[0].transmit() == 0x41)
  }

  @Test("state goes to bytes and back, whatever it was", arguments: 1...8)
  func roundTrip(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    var ports = SerialPorts()
    hammer(&ports, count: 3000, with: &generator)
    let encoded = StateBytes.encode(ports)
    #expect(Set(encoded.names).count == encoded.names.count)
    var restored = SerialPorts()
    #expect(StateBytes.decode(encoded.bytes, into: &restored) == 0)
    #expect(StateBytes.encode(restored).bytes == encoded.bytes)
    // Both go on alike.
    var other = generator
    hammer(&ports, count: 500, with: &generator)
    hammer(&restored, count: 500, with: &other)
    #expect(StateBytes.encode(restored).bytes == StateBytes.encode(ports).bytes)
  }

  @Test("damaged state is taken without a trap", arguments: 1...20)
  func damagedState(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    var ports = SerialPorts()
    let garbage = (0..<20_000).map { _ in UInt8.random(in: 0...255, using: &generator) }
    _ = StateBytes.decode(garbage, into: &ports)
    hammer(&ports, count: 1000, with: &generator)
    #expect(ports.uarts[0].outgoing(9999).count <= UART16550.queueCapacity)
  }

  @Test("random accesses never trap, and the mirror agrees with the registers")
  func fuzz() {
    var generator = SeededGenerator(seed: 0x16550)
    var ports = SerialPorts()
    hammer(&ports, count: 200_000, with: &generator)
    #expect(ports.uarts[0].outgoing(9999).count <= UART16550.queueCapacity)
  }

  /// Makes `count` random inputs and checks that side-effect-free peeks are what reads find.
  private func hammer(
    _ ports: inout SerialPorts, count: Int, with generator: inout SeededGenerator
  ) {
    var now = VMTime(nanoseconds: generator.next() >> 20)
    var mismatches = 0
    for _ in 0..<count {
      let random = generator.next()
      now = now.advanced(by: random >> 44)
      let port = SerialPorts.claims[Int(random & 3)].base + UInt16(random >> 2 & 7)
      let width = AccessWidth.allCases[Int(random >> 5 & 3)]
      let index = Int(random & 3)
      switch random >> 8 & 15 {
      case 0...5: ports.write(generator.next(), at: port, width: width, now: now)
      case 6...10:
        let peek = ports.uarts[index].peek(at: port & 7)
        let value = ports.read(at: port, width: .byte, now: now)
        if !peek.hasSideEffect, port & 7 != 2, value != UInt64(peek.value) { mismatches += 1 }
      case 11:
        ports.uarts[index].setModemInputs(.init(rawValue: UInt8(truncatingIfNeeded: random >> 16)))
      case 12:
        ports.uarts[index].receive(
          UInt8(truncatingIfNeeded: random >> 16),
          errors: .init(rawValue: UInt8(truncatingIfNeeded: random >> 24)), now: now)
      case 13: ports.uarts[index].dropOutgoing(Int(truncatingIfNeeded: generator.next() >> 1))
      case 14: _ = ports.uarts[index].transmit()
      default: _ = ports.read(at: port, width: width, now: now)
      }
    }
    #expect(mismatches == 0)
  }
}
