// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import Monitor

/// The registers as gdb knows them.
enum GDBTarget {
  /// gdb's own features for x86-64, and the control registers by a feature of ours.
  static let description: String = {
    var text =
      "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>"
      + "<architecture>i386:x86-64</architecture>"
      + "<feature name=\"org.gnu.gdb.i386.core\">"
      + "<flags id=\"x86_eflags\" size=\"4\">"
    for (name, bit) in [
      ("CF", 0), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9), ("DF", 10),
      ("OF", 11), ("NT", 14), ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19), ("VIP", 20),
      ("ID", 21),
    ] {
      text += "<field name=\"\(name)\" start=\"\(bit)\" end=\"\(bit)\"/>"
    }
    text += "</flags>"
    func register(_ name: String, _ bits: Int, _ type: String, _ group: String = "") {
      text += "<reg name=\"\(name)\" bitsize=\"\(bits)\" type=\"\(type)\"\(group)/>"
    }
    for name in ["rax", "rbx", "rcx", "rdx", "rsi", "rdi"] { register(name, 64, "int64") }
    for name in ["rbp", "rsp"] { register(name, 64, "data_ptr") }
    for number in 8...15 { register("r\(number)", 64, "int64") }
    register("rip", 64, "code_ptr")
    register("eflags", 32, "x86_eflags")
    for name in ["cs", "ss", "ds", "es", "fs", "gs"] { register(name, 32, "int32") }
    for number in 0..<8 { register("st\(number)", 80, "i387_ext") }
    for name in ["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"] {
      register(name, 32, "int", " group=\"float\"")
    }
    text += "</feature><feature name=\"org.gnu.gdb.i386.sse\">"
    text +=
      "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
      + "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
      + "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
      + "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
      + "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
      + "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
      + "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
      + "<field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>"
      + "<field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
      + "<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/>"
      + "</union>"
    for number in 0..<16 { register("xmm\(number)", 128, "vec128") }
    register("mxcsr", 32, "int", " group=\"vector\"")
    text += "</feature><feature name=\"org.gnu.gdb.i386.segments\">"
    for name in ["fs_base", "gs_base"] { register(name, 64, "int64") }
    text += "</feature><feature name=\"org.bulkhead.control\">"
    for name in ["cr0", "cr2", "cr3", "cr4", "cr8", "efer"] { register(name, 64, "int64") }
    return text + "</feature></target>"
  }()

  /// How many registers there are.
  static let count = 16 + 2 + 6 + 8 + 8 + 16 + 1 + 2 + 6

  /// The bytes of a register, little-endian; `nil` when there is none of that number.
  static func bytes(_ number: Int, _ cpu: VCPUReply) -> [UInt8]? {
    func word(_ value: UInt64, _ count: Int) -> [UInt8] {
      (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
    }
    func image(_ at: Int, _ count: Int) -> UInt64 {
      cpu.fxsave[at..<at + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    switch number {
    case 0..<16: return word(cpu.general[number], 8)
    // In real mode and others with a base, gdb wants a linear address.
    case 16: return word(cpu.programCounter, 8)
    case 17: return word(cpu.flags, 4)
    case 18..<24: return word(UInt64(cpu.segments[number - 18].selector), 4)
    case 24..<32: return Array(cpu.fxsave[32 + 16 * (number - 24)..<42 + 16 * (number - 24)])
    case 32: return word(image(0, 2), 4)
    case 33: return word(image(2, 2), 4)
    case 34: return word(fullTags(cpu), 4)
    case 35: return word(image(12, 2), 4)
    case 36: return word(image(8, 4), 4)
    case 37: return word(image(20, 2), 4)
    case 38: return word(image(16, 4), 4)
    case 39: return word(image(6, 2) & 0x7FF, 4)
    case 40..<56: return Array(cpu.fxsave[160 + 16 * (number - 40)..<176 + 16 * (number - 40)])
    case 56: return word(image(24, 4), 4)
    case 57, 58: return word(cpu.segments[number - 57 + 4].base, 8)
    case 59..<65: return word(cpu.control[number - 59], 8)
    default: return nil
    }
  }

  /// x87's tag word: FXSAVE keeps one bit of each (SDM volume 1, 10.5.1.1).
  private static func fullTags(_ cpu: VCPUReply) -> UInt64 {
    let top = Int(cpu.fxsave[3] >> 3 & 7)
    var tags: UInt64 = 0
    for register in 0..<8 {
      var tag: UInt64 = 3
      if cpu.fxsave[4] >> register & 1 == 1 {
        let at = 32 + 16 * ((register - top) & 7)
        let exponent = UInt16(cpu.fxsave[at + 8]) | UInt16(cpu.fxsave[at + 9] & 0x7F) << 8
        let isZero = cpu.fxsave[at..<at + 8].allSatisfy { $0 == 0 }
        let isNormal = cpu.fxsave[at + 7] & 0x80 != 0
        tag = exponent == 0 && isZero ? 1 : exponent == 0 || exponent == 0x7FFF || !isNormal ? 2 : 0
      }
      tags |= tag << UInt64(2 * register)
    }
    return tags
  }
}

extension GDBSession {
  func registers() -> String {
    guard let cpu = try? machine.vcpu(current) else { return "E01" }
    return (0..<GDBTarget.count).map { Self.text(GDBTarget.bytes($0, cpu) ?? []) }.joined()
  }

  func register(_ number: Int) -> String {
    guard let cpu = try? machine.vcpu(current), let bytes = GDBTarget.bytes(number, cpu) else {
      return "E01"
    }
    return Self.text(bytes)
  }

  /// Sets what can be set: all but the x87 unit's pointers.
  func setRegisters(_ rest: Substring) -> String {
    guard var cpu = try? machine.vcpu(current), let bytes = Self.bytes(rest) else { return "E01" }
    var at = 0
    for number in 0..<GDBTarget.count {
      let size = GDBTarget.bytes(number, cpu)?.count ?? 0
      guard at + size <= bytes.count else { break }
      set(number, Array(bytes[at..<at + size]), &cpu)
      at += size
    }
    guard at >= 140 else { return "E01" }
    return apply(cpu)
  }

  func setRegister(_ rest: Substring) -> String {
    let parts = rest.split(separator: "=")
    guard parts.count == 2, let number = Int(parts[0], radix: 16),
      let bytes = Self.bytes(parts[1]), var cpu = try? machine.vcpu(current),
      bytes.count == GDBTarget.bytes(number, cpu)?.count, set(number, bytes, &cpu)
    else { return "E01" }
    return apply(cpu)
  }

  /// Sets a register, if it can be set; returns whether it can.
  @discardableResult
  private func set(_ number: Int, _ bytes: [UInt8], _ cpu: inout VCPUReply) -> Bool {
    guard (18..<24).contains(number) else { return GDBTarget.set(number, bytes, &cpu) }
    let selector = UInt16(bytes[0]) | UInt16(bytes[1]) << 8
    guard selector != cpu.segments[number - 18].selector else { return true }
    guard bytes[2] | bytes[3] == 0,
      let segment = segment(selector, isCode: number == 18, cpu)
    else { return false }
    cpu.segments[number - 18] = segment
    return true
  }

  /// What a segment register holds when a selector is loaded (SDM volume 3, 3.4.5); `nil` when
  /// the descriptor is not one of its kind.
  private func segment(
    _ selector: UInt16, isCode: Bool, _ cpu: VCPUReply
  ) -> VCPUReply.Segment? {
    var segment = VCPUReply.Segment()
    segment.selector = selector
    let isVirtual8086 = cpu.flags >> 17 & 1 == 1
    guard cpu.cr0 & 1 == 1, !isVirtual8086 else {
      segment.base = UInt64(selector) << 4
      segment.limit = 0xFFFF
      segment.flags = (isCode ? 0x9B00 : 0x9300) | (isVirtual8086 ? 0x6000 : 0)
      return segment
    }
    guard selector & ~3 != 0 else { return isCode ? nil : segment }
    let isLocal = selector & 4 != 0
    let base = isLocal ? cpu.segments[6].base : cpu.tables[0]
    let limit = isLocal ? UInt64(cpu.segments[6].limit) : cpu.tables[1]
    let offset = UInt64(selector & ~7)
    guard offset + 7 <= limit, let bytes = machine.linear(base &+ offset, 8, cpu) else {
      return nil
    }
    let low = bytes[..<4].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    let high = bytes[4...].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    // Present, of code or data, and of the register's kind.
    guard high & 0x9000 == 0x9000, !isCode || high & 0x800 != 0 else { return nil }
    segment.base = UInt64(low >> 16 | (high & 0xFF) << 16 | high & 0xFF00_0000)
    segment.limit = low & 0xFFFF | high & 0xF_0000
    if high & 0x80_0000 != 0 { segment.limit = segment.limit << 12 | 0xFFF }
    // A segment that is loaded was accessed.
    segment.flags = high & 0xF0_FF00 | 0x100
    return segment
  }

  private func apply(_ cpu: VCPUReply) -> String {
    (try? machine.ask(.setVCPU, cpu, as: Empty.self)) != nil ? "OK" : "E01"
  }
}

extension GDBTarget {
  /// Sets a register, if it can be set; returns whether it can.
  @discardableResult
  static func set(_ number: Int, _ bytes: [UInt8], _ cpu: inout VCPUReply) -> Bool {
    let value = bytes.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    func image(_ at: Int, _ count: Int) {
      cpu.fxsave.replaceSubrange(at..<at + count, with: bytes.prefix(count))
    }
    switch number {
    case 0..<16, 17: cpu.general[number] = value
    case 16: cpu.general[16] = value &- cpu.segments[0].base
    case 24..<32: image(32 + 16 * (number - 24), 10)
    case 32: image(0, 2)
    case 33: image(2, 2)
    // One bit for each register that is not empty.
    case 34: cpu.fxsave[4] = (0..<8).reduce(0) { value >> (2 * $1) & 3 == 3 ? $0 : $0 | 1 << $1 }
    case 40..<56: image(160 + 16 * (number - 40), 16)
    case 56: image(24, 2)
    case 57, 58: cpu.segments[number - 57 + 4].base = value
    case 59..<65: cpu.control[number - 59] = value
    default: return false
    }
    return true
  }
}
