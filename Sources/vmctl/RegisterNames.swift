// SPDX-License-Identifier: Apache-2.0

import Monitor

/// What the PC's registers are called, by who answers for them and where they are.
enum RegisterNames {
  /// The name of the register of an access; `nil` where there is none to tell.
  static func name(_ record: TraceReply.Record, _ role: String) -> String? {
    guard record.space == .ports else { return nil }
    let port = record.address
    switch role {
    case "serial": return serial(port, isRead: record.isRead)
    case "ide": return ide(port, isRead: record.isRead)
    case "piix": return piix[port]
    case "vga": return vga(port, isRead: record.isRead)
    default: return nil
    }
  }

  private static func serial(_ port: UInt64, isRead: Bool) -> String? {
    let bases: [UInt64] = [0x3F8, 0x2F8, 0x3E8, 0x2E8]
    guard let index = bases.firstIndex(where: { port & ~7 == $0 }) else { return nil }
    let name =
      switch port & 7 {
      case 0: isRead ? "RBR" : "THR"
      case 1: "IER"
      case 2: isRead ? "IIR" : "FCR"
      case 3: "LCR"
      case 4: "MCR"
      case 5: "LSR"
      case 6: "MSR"
      default: "SCR"
      }
    return "COM\(index + 1) \(name)"
  }

  private static func ide(_ port: UInt64, isRead: Bool) -> String? {
    let block: [String] = [
      "data", isRead ? "error" : "features", "sector count", "LBA low", "LBA mid", "LBA high",
      "device", isRead ? "status" : "command",
    ]
    switch port {
    case 0x1F0...0x1F7: return "primary " + block[Int(port & 7)]
    case 0x170...0x177: return "secondary " + block[Int(port & 7)]
    case 0x3F6: return "primary " + (isRead ? "alternate status" : "device control")
    case 0x376: return "secondary " + (isRead ? "alternate status" : "device control")
    default:
      // The bus master is where the guest has put it, at a multiple of 16.
      let channel = port & 8 == 0 ? "primary" : "secondary"
      switch port & 7 {
      case 0: return "\(channel) bus master command"
      case 2: return "\(channel) bus master status"
      case 4: return "\(channel) PRD table"
      default: return nil
      }
    }
  }

  private static let piix: [UInt64: String] = [
    0x60: "keyboard data", 0x61: "port B", 0x64: "keyboard status and command",
    0x70: "CMOS index", 0x71: "CMOS data", 0x80: "POST code", 0x92: "port A",
    0xB2: "APM control", 0xB3: "APM status", 0x402: "debug console", 0x510: "fw_cfg selector",
    0x511: "fw_cfg data", 0x514: "fw_cfg DMA high", 0x518: "fw_cfg DMA low",
    0xCF9: "reset control",
  ]

  private static func vga(_ port: UInt64, isRead: Bool) -> String? {
    switch port {
    case 0x1CE: "VBE index"
    case 0x1CF, 0x1D0: "VBE data"
    case 0x3B4, 0x3D4: "CRTC index"
    case 0x3B5, 0x3D5: "CRTC data"
    case 0x3BA, 0x3DA: isRead ? "input status 1" : "feature control"
    case 0x3C0: "attribute index and data"
    case 0x3C1: "attribute data"
    case 0x3C2: isRead ? "input status 0" : "miscellaneous output"
    case 0x3C4: "sequencer index"
    case 0x3C5: "sequencer data"
    case 0x3C6: "DAC mask"
    case 0x3C7: isRead ? "DAC state" : "DAC read index"
    case 0x3C8: "DAC write index"
    case 0x3C9: "DAC data"
    case 0x3CA: "feature control"
    case 0x3CC: "miscellaneous output"
    case 0x3CE: "graphics index"
    case 0x3CF: "graphics data"
    default: nil
    }
  }
}
