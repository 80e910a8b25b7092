// SPDX-License-Identifier: Apache-2.0

extension IDEChannel {
  /// Reads a byte of the channel's eight bus master ports (82371SB, 2.7).
  func readBusMaster(_ offset: UInt16) -> UInt8 {
    switch offset {
    case 0: busMasterCommand
    case 2: busMasterStatus
    case 4...7: UInt8(truncatingIfNeeded: descriptorPointer >> (8 * UInt32(offset - 4)))
    default: 0
    }
  }

  /// Writes a byte of the bus master ports; `window` goes with a set start bit.
  mutating func writeBusMaster(_ value: UInt8, _ offset: UInt16) {
    switch offset {
    case 0: writeBusMasterCommand(value & 0x09)
    case 2:
      // Active is read-only, error and interrupt are cleared by ones, 5 and 6 are plain.
      busMasterStatus = busMasterStatus & ~(value & 0x06) & ~0x60 | value & 0x60
    case 4...7:
      let shift = 8 * UInt32(offset - 4)
      descriptorPointer =
        descriptorPointer & ~(0xFF << shift) | UInt32(value) << shift
      descriptorPointer &= ~3
    default: break
    }
  }

  private mutating func writeBusMasterCommand(_ value: UInt8) {
    let wasStarted = busMasterCommand & 1 != 0
    busMasterCommand = value
    if value & 1 == 0 {
      guard wasStarted else { return }
      stopBusMaster()
    } else if !wasStarted {
      busMasterStatus |= 1
      windowPosition = 0
      if phase == .dmaReady { continueDMA() }
    }
  }

  /// The guest stopped the bus master; a transfer under way never ends (2.7.1).
  private mutating func stopBusMaster() {
    busMasterStatus &= ~1
    isWindowValid = false
    windowByteCount = 0
    windowPosition = 0
    let isTransfer = [.readDMA, .writeDMA, .trim, .reply].contains(operation)
    guard phase == .waiting, isTransfer else { return }
    abandonRequest()
    phase = .dmaReady
  }
}
