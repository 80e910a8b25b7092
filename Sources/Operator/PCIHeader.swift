// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import Monitor

/// A PCI function's configuration header, taken apart (PCI 2.2, 6.1).
struct PCIHeader {
  struct Region {
    var bar: Int
    var isPort: Bool
    var isPrefetchable: Bool
    /// Where it is decoded; `nil` while the guest has not switched that on.
    var address: UInt32?
    var size: UInt32
  }

  var vendor: UInt16
  var device: UInt16
  var classCode: UInt16
  var subsystemVendor: UInt16
  var subsystem: UInt16
  var pin: UInt8
  var line: UInt8
  var regions: [Region] = []

  init(_ function: FunctionsReply.Function) {
    let bytes = function.header
    func word(_ at: Int) -> UInt16 { UInt16(bytes[at]) | UInt16(bytes[at + 1]) << 8 }
    func long(_ at: Int) -> UInt32 { UInt32(word(at)) | UInt32(word(at + 2)) << 16 }
    vendor = word(0)
    device = word(2)
    classCode = word(0x0A)
    subsystemVendor = word(0x2C)
    subsystem = word(0x2E)
    line = bytes[0x3C]
    pin = bytes[0x3D]
    let command = word(4)
    for (bar, size) in function.sizes.enumerated() where size > 0 {
      let value = long(bar == 6 ? 0x30 : 0x10 + 4 * bar)
      let isPort = bar < 6 && value & 1 != 0
      let isOn =
        isPort ? command & 1 != 0 : command & 2 != 0 && (bar != 6 || value & 1 != 0)
      let base = bar == 6 ? value & ~0x7FF : isPort ? value & ~3 : value & ~0xF
      regions.append(
        Region(
          bar: bar, isPort: isPort, isPrefetchable: !isPort && bar < 6 && value & 8 != 0,
          address: isOn ? base : nil, size: size))
    }
  }

  /// QEMU's words for the classes that this machine has.
  var className: String {
    switch classCode {
    case 0x0101: "IDE controller"
    case 0x0200: "Ethernet controller"
    case 0x0300: "VGA controller"
    case 0x0600: "Host bridge"
    case 0x0601: "ISA bridge"
    case 0x0680: "Bridge"
    default: "Class \(hex(UInt64(classCode), 4))"
    }
  }
}
