// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// A standard VGA with the Bochs VBE extensions: registers, DAC and latches.
///
/// Ports go through ``read(at:width:now:)`` and ``write(_:at:width:now:)``, BAR 2 through
/// ``readRegion(at:width:now:)`` and ``writeRegion(_:at:width:now:)``, the legacy window
/// A0000h–BFFFFh through ``readWindow(at:width:memory:)`` and
/// ``writeWindow(_:at:width:memory:)``. ``frame(now:)`` describes the picture. Video memory is
/// not part of the model's state: it outlives the process. Register names are those of the
/// IBM VGA technical reference and the FreeVGA project; VBE indices those of Bochs.
public struct VGAController: Sendable {
  /// The size of the video memory in bytes, as VBE reports it.
  public let memoryByteCount: Int

  // Sequencer (3C4h/3C5h).
  var sequencerIndex: UInt8 = 0
  @usableFromInline var sequencer = [8 of UInt8](repeating: 0)
  // Graphics controller (3CEh/3CFh).
  var graphicsIndex: UInt8 = 0
  @usableFromInline var graphics = [16 of UInt8](repeating: 0)
  @usableFromInline var latches: UInt32 = 0  // plane 0 in the lowest byte
  // CRT controller (3x4h/3x5h).
  var crtcIndex: UInt8 = 0
  var crtc = [UInt8](repeating: 0, count: 32)
  // Attribute controller (3C0h/3C1h).
  var attributeIndex: UInt8 = 0  // with PAS, bit 5
  var attributeExpectsData = false
  var attribute = [UInt8](repeating: 0, count: 32)
  // DAC (3C6h–3C9h).
  var palette = [UInt8](repeating: 0, count: 768)
  var dacMask: UInt8 = 0xFF
  var dacReadIndex: UInt8 = 0
  var dacWriteIndex: UInt8 = 0
  var dacComponent: UInt8 = 0  // 0 to 2
  var dacState: UInt8 = 0  // 3 after a read index, 0 after a write index
  var dacPending = [2 of UInt8](repeating: 0)
  // External registers.
  @usableFromInline var miscellaneous: UInt8 = 0
  var featureControl: UInt8 = 0
  var enable: UInt8 = 1
  // Bochs VBE (1CEh–1D1h).
  var vbeIndex: UInt16 = 0
  var vbe = [16 of UInt16](repeating: 0)
  @usableFromInline var bankOffset: UInt32 = 0
  var isBigEndian = false

  /// Makes a controller after a reset for `memoryByteCount` bytes of video memory.
  ///
  /// - Precondition: `memoryByteCount` is 256 KiB to 256 MiB and a multiple of 64 KiB.
  public init(memoryByteCount: Int) {
    precondition(
      (256 << 10...256 << 20).contains(memoryByteCount) && memoryByteCount % 65536 == 0,
      "unsupported size of video memory")
    self.memoryByteCount = memoryByteCount
    vbe[VBE.id] = VBE.newestID
  }

  /// Resets all registers; video memory stays as it is.
  public mutating func reset() { self = VGAController(memoryByteCount: memoryByteCount) }

  /// What VBE's BPP, XRES and the rest amount to while VBE is enabled.
  var isVBEEnabled: Bool { vbe[VBE.enable] & VBE.enabled != 0 }
  /// Whether palette entries have eight bits instead of six.
  var hasWideDAC: Bool { vbe[VBE.enable] & VBE.wideDAC != 0 }
  /// Whether the CRT controller is at 3Dxh (colour) and not at 3Bxh (monochrome).
  var isColor: Bool { miscellaneous & 0x01 != 0 }
}

extension VGAController: DeviceState {
  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("sequencerIndex", &sequencerIndex)
    visitor.bytes("sequencer", &sequencer, from: 0)
    visitor.field("graphicsIndex", &graphicsIndex)
    visitor.bytes("graphics", &graphics, from: 0)
    visitor.bytes("graphicsFrom8", &graphics, from: 8)
    visitor.field("latches", &latches)
    visitor.field("crtcIndex", &crtcIndex)
    visitor.bytes("crtc", &crtc)
    visitor.field("attributeIndex", &attributeIndex)
    visitor.field("attributeExpectsData", &attributeExpectsData)
    visitor.bytes("attribute", &attribute)
    visitor.bytes("palette", &palette)
    visitor.field("dacMask", &dacMask)
    visitor.field("dacReadIndex", &dacReadIndex)
    visitor.field("dacWriteIndex", &dacWriteIndex)
    visitor.field("dacComponent", &dacComponent)
    visitor.field("dacState", &dacState)
    visitor.field("dacPendingRed", &dacPending[0])
    visitor.field("dacPendingGreen", &dacPending[1])
    visitor.field("miscellaneous", &miscellaneous)
    visitor.field("featureControl", &featureControl)
    visitor.field("enable", &enable)
    visitor.field("vbeIndex", &vbeIndex)
    visitor.field("vbeID", &vbe[VBE.id])
    visitor.field("vbeWidth", &vbe[VBE.width])
    visitor.field("vbeHeight", &vbe[VBE.height])
    visitor.field("vbeBitsPerPixel", &vbe[VBE.bitsPerPixel])
    visitor.field("vbeEnable", &vbe[VBE.enable])
    visitor.field("vbeBank", &vbe[VBE.bank])
    visitor.field("vbeVirtualWidth", &vbe[VBE.virtualWidth])
    visitor.field("vbeVirtualHeight", &vbe[VBE.virtualHeight])
    visitor.field("vbeX", &vbe[VBE.x])
    visitor.field("vbeY", &vbe[VBE.y])
    visitor.field("bankOffset", &bankOffset)
    visitor.field("isBigEndian", &isBigEndian)
    dacComponent %= 3  // an index: damaged state must not reach it
  }
}

extension StateVisitor {
  /// Visits an array whose count never changes; damaged state is cut or filled up.
  mutating func bytes(_ name: StaticString, _ value: inout [UInt8]) {
    let count = value.count
    field(name, &value, capacity: count)
    guard value.count != count else { return }
    value = Array(value.prefix(count))
    value += [UInt8](repeating: 0, count: count - value.count)
  }

  /// Visits eight bytes as one integer, the first in the lowest bits.
  ///
  /// The state is written after each access, so it takes no allocation.
  mutating func bytes<let count: Int>(
    _ name: StaticString, _ value: inout [count of UInt8], from first: Int
  ) {
    var word: UInt64 = 0
    for index in 0..<8 { word |= UInt64(value[first + index]) << UInt64(8 * index) }
    field(name, &word)
    for index in 0..<8 {
      value[first + index] = UInt8(truncatingIfNeeded: word >> UInt64(8 * index))
    }
  }
}
