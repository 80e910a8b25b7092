// SPDX-License-Identifier: Apache-2.0

extension VGAController {
  /// What the device claims from the machine; the PCI identity is that of QEMU's stdvga.
  public enum Claims {
    /// The PCI vendor ID.
    public static let vendor: UInt16 = 0x1234
    /// The PCI device ID.
    public static let device: UInt16 = 0x1111
    /// The PCI revision.
    public static let revision: UInt8 = 2
    /// The PCI class: display, VGA compatible.
    public static let classCode: UInt32 = 0x03_00_00
    /// The base address register of the linear frame buffer; it is prefetchable memory.
    public static let frameBufferBar = 0
    /// The base address register of the register region.
    public static let regionBar = 2
    /// The size of the register region in bytes.
    public static let regionByteCount = 4096
    /// The I/O port ranges, first and last.
    public static let ports: [ClosedRange<UInt16>] = [0x1CE...0x1D1, 0x3B0...0x3DF]
    /// The legacy memory window, first and last guest-physical address.
    public static let window: ClosedRange<UInt64> = 0xA0000...0xBFFFF
  }

  /// Whether a write to `port` may be posted.
  ///
  /// The effect of all VGA register writes is seen only through reads of this device, through
  /// its window and in the picture; accesses to one device stay in order, so these may run
  /// late. VBE's data ports are live: a mode switch clears video memory, which the guest then
  /// writes without an exit through the linear frame buffer, in no order with the ring.
  public static func isPostedWrite(to port: UInt16) -> Bool {
    switch port {
    case 0x3B0...0x3DF, 0x1CE: true
    default: false
    }
  }

  /// Whether writes to the legacy window may be posted: always, because the window is read
  /// back through this device or, where ``linearWindow`` is in use, not sent to it.
  public static let isWindowPosted = true

  /// A part of the legacy window that is plain memory; all in bytes.
  public struct LinearWindow: Equatable, Sendable {
    /// From A0000h.
    public var offset: Int
    public var byteCount: Int
    /// From the start of video memory.
    public var memoryOffset: Int
  }

  /// The part of the legacy window that is plain memory in the present mode, if any.
  ///
  /// With chain-4 addressing and all planes enabled a byte of the window is a byte of video
  /// memory: the core may map it. It must drop the mapping when this changes, so while it is in
  /// force writes to ``windowRegisters`` and the VBE data port are live. Reads through the mapping
  /// leave the latches alone; these count only in other modes, after reads there.
  public var linearWindow: LinearWindow? {
    guard miscellaneous & 0x02 != 0, sequencer[4] & 0x08 != 0, sequencer[2] & 0x0F == 0x0F
    else { return nil }
    return switch graphics[6] >> 2 & 3 {
    case 0: LinearWindow(offset: 0, byteCount: 0x20000, memoryOffset: 0)
    case 1 where Int(bankOffset) + 0x10000 <= memoryByteCount:
      LinearWindow(offset: 0, byteCount: 0x10000, memoryOffset: Int(bankOffset))
    case 2: LinearWindow(offset: 0x10000, byteCount: 0x8000, memoryOffset: 0)
    case 3: LinearWindow(offset: 0x18000, byteCount: 0x8000, memoryOffset: 0)
    default: nil
    }
  }

  /// The posted registers that ``linearWindow`` depends on: the miscellaneous output register, and
  /// the data ports of the sequencer and the graphics controller.
  public static let windowRegisters: [UInt16] = [0x3C2, 0x3C5, 0x3CF]

  /// Indices and bits of the Bochs VBE registers.
  enum VBE {
    static let id = 0
    static let width = 1
    static let height = 2
    static let bitsPerPixel = 3
    static let enable = 4
    static let bank = 5
    static let virtualWidth = 6
    static let virtualHeight = 7
    static let x = 8
    static let y = 9
    static let memory64K = 10

    static let oldestID: UInt16 = 0xB0C0
    static let newestID: UInt16 = 0xB0C5
    static let enabled: UInt16 = 0x01
    static let getCapabilities: UInt16 = 0x02
    static let wideDAC: UInt16 = 0x20
    static let linear: UInt16 = 0x40
    static let keepMemory: UInt16 = 0x80

    static let maximumWidth = 16000
    static let maximumHeight = 12000
    static let maximumBitsPerPixel = 32
  }
}
