// SPDX-License-Identifier: Apache-2.0

extension UART16550 {
  /// The offsets of the eight registers (PC16550D, table II).
  enum Register {
    static let data: UInt16 = 0  // RBR, THR; DLL with DLAB
    static let interruptEnable: UInt16 = 1  // IER; DLM with DLAB
    static let interruptIdentification: UInt16 = 2  // IIR; FCR when written
    static let lineControl: UInt16 = 3  // LCR
    static let modemControl: UInt16 = 4  // MCR
    static let lineStatus: UInt16 = 5  // LSR
    static let modemStatus: UInt16 = 6  // MSR
    static let scratch: UInt16 = 7  // SCR
  }

  /// IER: which sources may interrupt (8.7).
  struct InterruptEnable: OptionSet, Sendable {
    let rawValue: UInt8
    static let received = Self(rawValue: 1 << 0)
    static let transmitterEmpty = Self(rawValue: 1 << 1)
    static let lineStatus = Self(rawValue: 1 << 2)
    static let modemStatus = Self(rawValue: 1 << 3)
  }

  /// IIR: the source of the highest priority (8.6, table IV).
  enum InterruptSource: UInt8, Sendable {
    case lineStatus = 0b0110
    case received = 0b0100
    case receiveTimeout = 0b1100
    case transmitterEmpty = 0b0010
    case modemStatus = 0b0000
    case none = 0b0001
  }

  /// FCR: the FIFOs (8.5).
  struct FIFOControl: OptionSet, Sendable {
    let rawValue: UInt8
    static let enable = Self(rawValue: 1 << 0)
    static let clearReceiver = Self(rawValue: 1 << 1)
    static let clearTransmitter = Self(rawValue: 1 << 2)
    static let dmaMode = Self(rawValue: 1 << 3)

    /// The number of bytes that raises the received-data interrupt.
    var trigger: Int {
      switch rawValue >> 6 {
      case 0: 1
      case 1: 4
      case 2: 8
      default: 14
      }
    }
  }

  /// LCR: the shape of a character, break, and the divisor latch (8.1).
  struct LineControl: OptionSet, Sendable {
    let rawValue: UInt8
    static let twoStopBits = Self(rawValue: 1 << 2)
    static let parity = Self(rawValue: 1 << 3)
    static let breakControl = Self(rawValue: 1 << 6)
    static let divisorLatch = Self(rawValue: 1 << 7)

    /// The data bits of a character, 5 to 8.
    var dataBits: UInt64 { 5 + UInt64(rawValue & 3) }

    /// The length of a character with start, parity and stop bits, in half bits.
    var halfBits: UInt64 {
      let stop: UInt64 = !contains(.twoStopBits) ? 2 : dataBits == 5 ? 3 : 4
      return 2 + 2 * dataBits + (contains(.parity) ? 2 : 0) + stop
    }

    /// The bits of a byte that a character of this length carries.
    var dataMask: UInt8 { UInt8(truncatingIfNeeded: (1 << dataBits) - 1) }
  }

  /// MCR: the modem outputs and loopback (8.8).
  struct ModemControl: OptionSet, Sendable {
    let rawValue: UInt8
    static let dataTerminalReady = Self(rawValue: 1 << 0)
    static let requestToSend = Self(rawValue: 1 << 1)
    static let out1 = Self(rawValue: 1 << 2)
    static let out2 = Self(rawValue: 1 << 3)
    static let loopback = Self(rawValue: 1 << 4)

    /// The modem inputs that these outputs drive in loopback (8.8).
    var looped: ModemLines {
      var lines: ModemLines = []
      if contains(.requestToSend) { lines.insert(.clearToSend) }
      if contains(.dataTerminalReady) { lines.insert(.dataSetReady) }
      if contains(.out1) { lines.insert(.ringIndicator) }
      if contains(.out2) { lines.insert(.dataCarrierDetect) }
      return lines
    }
  }

  /// LSR: the receiver's errors and the transmitter's state (8.4).
  struct LineStatus: OptionSet, Sendable {
    let rawValue: UInt8
    static let dataReady = Self(rawValue: 1 << 0)
    static let overrun = Self(rawValue: 1 << 1)
    static let parity = Self(rawValue: 1 << 2)
    static let framing = Self(rawValue: 1 << 3)
    static let breakInterrupt = Self(rawValue: 1 << 4)
    static let holdingEmpty = Self(rawValue: 1 << 5)  // THRE
    static let transmitterEmpty = Self(rawValue: 1 << 6)  // TEMT
    static let errorInFIFO = Self(rawValue: 1 << 7)

    /// The bits that raise the line status interrupt and that a read clears.
    static let errors: Self = [.overrun, .parity, .framing, .breakInterrupt]
  }

  /// The modem inputs, in the places they have in MSR (8.9).
  public struct ModemLines: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue & 0xF0 }
    public static let clearToSend = Self(rawValue: 1 << 4)
    public static let dataSetReady = Self(rawValue: 1 << 5)
    public static let ringIndicator = Self(rawValue: 1 << 6)
    public static let dataCarrierDetect = Self(rawValue: 1 << 7)

    /// A peer that is there and ready: what a back end without modem lines shows.
    public static let connected: Self = [.clearToSend, .dataSetReady, .dataCarrierDetect]
  }

  /// What may be wrong with a received character (8.4, bits 2 to 4).
  public struct ReceiveError: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue & 0x1C }
    public static let parity = Self(rawValue: 1 << 2)
    public static let framing = Self(rawValue: 1 << 3)
    public static let breakInterrupt = Self(rawValue: 1 << 4)
  }

  /// A register as a read would find it now.
  public struct Peek: Equatable, Sendable {
    /// What the read would return.
    public var value: UInt8
    /// Whether the read would change the chip, so that it may not be mirrored now.
    public var hasSideEffect: Bool
  }
}
