// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor

/// A file of the guest's memory and vCPUs in ELF's core format, as `dump-guest-memory` makes it.
///
/// Each vCPU has a note NT_PRSTATUS with Linux's layout, which gdb reads, and one called QEMU
/// with its segment and control registers, which crash reads; both have QEMU's layout.
struct MemoryDump {
  private struct Segment {
    var virtual: UInt64
    var physical: UInt64
    var byteCount: UInt64
  }

  let machine: any MachineAccess

  private static let mostSegments = 60000
  private static let headerByteCount = 64
  private static let entryByteCount = 56

  /// Does the command; the machine stands meanwhile.
  func run(_ arguments: [String: JSONValue]) throws(CommandError) {
    let format = arguments["format"]?.string ?? "elf"
    guard format == "elf" else { throw CommandError("only the format elf is supported") }
    guard arguments["detach"]?.bool != true else {
      throw CommandError("dumping in the background is not supported")
    }
    let place = arguments["protocol"]?.string ?? ""
    guard place.hasPrefix("file:") else {
      throw CommandError("Invalid parameter 'protocol'")
    }
    try write(
      String(place.dropFirst(5)), paging: arguments["paging"]?.bool ?? false,
      begin: arguments["begin"]?.integer, length: arguments["length"]?.integer)
  }

  func write(
    _ path: String, paging: Bool, begin: Int64? = nil, length: Int64? = nil
  ) throws(CommandError) {
    guard (begin == nil) == (length == nil) else {
      throw CommandError("Parameter '\(begin == nil ? "begin" : "length")' is missing")
    }
    guard !paging || begin == nil else {
      throw CommandError("Invalid parameter 'paging' with a filter")
    }
    let isRunning = try machine.status().state == "running"
    if isRunning { try machine.order(.pause) }
    defer { if isRunning { try? machine.order(.resume) } }
    var cpus: [VCPUReply] = []
    for index in 0..<Int(try machine.status().cpus) { cpus.append(try machine.vcpu(index)) }
    var ranges = memory(try machine.status().memoryByteCount)
    if let begin, let length {
      ranges = try Self.clip(ranges, UInt64(bitPattern: begin), UInt64(bitPattern: length))
    }
    let segments = try paging ? mapped(ranges, cpus) : ranges
    let notes =
      cpus.flatMap { Self.note("CORE", 1, Self.processStatus($0)) }
      + cpus.flatMap { Self.note("QEMU", 0, Self.machineState($0)) }
    let file = try machine.makeFile(path)
    try Self.write(Self.header(segments, ranges, notes) + notes, file)
    for range in ranges { try copy(range, file) }
  }

  // MARK: - What is dumped

  /// RAM: all of it below 3.5 GiB, else 3 GiB and the rest from 4 GiB on.
  private func memory(_ byteCount: UInt64) -> [Segment] {
    let low = byteCount < 0xE000_0000 ? byteCount : 0xC000_0000
    var ranges = [Segment(virtual: 0, physical: 0, byteCount: low)]
    if byteCount > low {
      ranges.append(Segment(virtual: 1 << 32, physical: 1 << 32, byteCount: byteCount - low))
    }
    return ranges
  }

  private static func clip(
    _ ranges: [Segment], _ begin: UInt64, _ length: UInt64
  ) throws(CommandError) -> [Segment] {
    let (end, overflow) = begin.addingReportingOverflow(length)
    let clipped =
      overflow
      ? []
      : ranges.compactMap { range -> Segment? in
        let start = max(begin, range.physical)
        let last = min(end, range.physical + range.byteCount)
        guard start < last else { return nil }
        return Segment(virtual: start, physical: start, byteCount: last - start)
      }
    guard !clipped.isEmpty else { throw CommandError("Invalid parameter 'begin'") }
    return clipped
  }

  /// What the vCPUs' page tables map, as far as it is RAM; then RAM itself.
  private func mapped(_ ranges: [Segment], _ cpus: [VCPUReply]) throws(CommandError) -> [Segment] {
    var segments: [Segment] = []
    var roots: Set<UInt64> = []
    for cpu in cpus where cpu.cr0 >> 31 & 1 == 1 && roots.insert(cpu.cr3).inserted {
      try PageTableText(machine, cpu).eachPage { linear, physical, size in
        guard
          ranges.contains(where: {
            physical >= $0.physical && physical + size <= $0.physical + $0.byteCount
          })
        else { return true }
        if let last = segments.indices.last,
          segments[last].virtual &+ segments[last].byteCount == linear,
          segments[last].physical + segments[last].byteCount == physical
        {
          segments[last].byteCount += size
        } else {
          segments.append(Segment(virtual: linear, physical: physical, byteCount: size))
        }
        return segments.count < Self.mostSegments
      }
    }
    return segments.isEmpty ? ranges : segments
  }

  /// Copies RAM; what cannot be read, such as the screen's window, is zeroes.
  private func copy(_ range: Segment, _ file: Descriptor) throws(CommandError) {
    var done: UInt64 = 0
    while done < range.byteCount {
      let count = Int(min(range.byteCount - done, UInt64(MemoryRequest.most)))
      let address = range.physical + done
      if let bytes = machine.physical(address, count) {
        try Self.write(bytes, file)
      } else {
        for at in stride(from: 0, to: count, by: 4096) {
          let piece = min(4096, count - at)
          try Self.write(
            machine.physical(address + UInt64(at), piece) ?? [UInt8](repeating: 0, count: piece),
            file)
        }
      }
      done += UInt64(count)
    }
  }

  private static func write(_ bytes: [UInt8], _ file: Descriptor) throws(CommandError) {
    guard (try? file.writeAll(bytes)) != nil else {
      throw CommandError("the file cannot be written")
    }
  }

  // MARK: - ELF

  private static func word<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> T(8 * $0)) }
  }

  /// The header and the program headers (System V ABI, chapters 4 and 5).
  private static func header(
    _ segments: [Segment], _ ranges: [Segment], _ notes: [UInt8]
  ) -> [UInt8] {
    let count = segments.count + 1
    let start = UInt64(headerByteCount + entryByteCount * count)
    var bytes: [UInt8] = [0x7F, 0x45, 0x4C, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 9)
    bytes += word(UInt16(4)) + word(UInt16(62)) + word(UInt32(1)) + word(UInt64(0))
    bytes += word(UInt64(headerByteCount)) + word(UInt64(0)) + word(UInt32(0))
    bytes += word(UInt16(headerByteCount)) + word(UInt16(entryByteCount)) + word(UInt16(count))
    bytes += word(UInt16(0)) + word(UInt16(0)) + word(UInt16(0))
    func entry(
      _ type: UInt32, _ offset: UInt64, _ virtual: UInt64, _ physical: UInt64, _ size: UInt64
    ) {
      bytes += word(type) + word(UInt32(0)) + word(offset) + word(virtual) + word(physical)
      bytes += word(size) + word(type == 4 ? 0 : size) + word(UInt64(0))
    }
    entry(4, start, 0, 0, UInt64(notes.count))
    for segment in segments {
      var place = start + UInt64(notes.count)
      for range in ranges {
        if segment.physical >= range.physical, segment.physical < range.physical + range.byteCount {
          place += segment.physical - range.physical
          break
        }
        place += range.byteCount
      }
      entry(1, place, segment.virtual, segment.physical, segment.byteCount)
    }
    return bytes
  }

  private static func note(_ name: String, _ type: UInt32, _ content: [UInt8]) -> [UInt8] {
    func padded(_ bytes: [UInt8]) -> [UInt8] {
      bytes + [UInt8](repeating: 0, count: (4 - bytes.count % 4) % 4)
    }
    let name = Array(name.utf8) + [0]
    return word(UInt32(name.count)) + word(UInt32(content.count)) + word(type) + padded(name)
      + padded(content)
  }

  /// struct elf_prstatus of an x86-64 Linux.
  private static func processStatus(_ cpu: VCPUReply) -> [UInt8] {
    let g = cpu.general
    let s = cpu.segments
    var status = [UInt8](repeating: 0, count: 32) + word(UInt32(cpu.index) + 1)
    status += [UInt8](repeating: 0, count: 76)
    // struct user_regs_struct: r15 to rbp, rbx, r11 to r8, rax, rcx, rdx, rsi, rdi, orig_rax.
    for value in [
      g[15], g[14], g[13], g[12], g[6], g[1], g[11], g[10], g[9], g[8], g[0], g[2], g[3], g[4],
      g[5], 0, g[16], UInt64(s[0].selector), g[17], g[7], UInt64(s[1].selector), s[4].base,
      s[5].base, UInt64(s[2].selector), UInt64(s[3].selector), UInt64(s[4].selector),
      UInt64(s[5].selector),
    ] {
      status += word(value)
    }
    return status + [UInt8](repeating: 0, count: 8)
  }

  /// QEMU's structure of a vCPU, version 1.
  private static func machineState(_ cpu: VCPUReply) -> [UInt8] {
    let g = cpu.general
    var body: [UInt8] = []
    // RAX RBX RCX RDX RSI RDI RSP RBP, R8 to R15, RIP, RFLAGS.
    for value in [g[0], g[1], g[2], g[3], g[4], g[5], g[7], g[6]] + g[8..<18] {
      body += word(value)
    }
    func segment(_ selector: UInt16, _ limit: UInt32, _ flags: UInt32, _ base: UInt64) {
      body += word(UInt32(selector)) + word(limit) + word(flags) + word(UInt32(0)) + word(base)
    }
    // CS DS ES FS GS SS, LDT TR, GDT IDT.
    for place in [0, 2, 3, 4, 5, 1, 6, 7] {
      let entry = cpu.segments[place]
      segment(entry.selector, entry.limit, entry.flags, entry.base)
    }
    segment(0, UInt32(truncatingIfNeeded: cpu.tables[1]), 0, cpu.tables[0])
    segment(0, UInt32(truncatingIfNeeded: cpu.tables[3]), 0, cpu.tables[2])
    for value in [cpu.cr0, 0, cpu.control[1], cpu.cr3, cpu.cr4] { body += word(value) }
    body += word(UInt64(0))
    return word(UInt32(1)) + word(UInt32(body.count + 8)) + body
  }
}
