// SPDX-License-Identifier: Apache-2.0

/// From RIP to decoded instructions.
///
/// SAFETY: code is read as other memory is (see SoftCPU+Access.swift): through a TLB entry whose
/// tag matches, inside its page.
extension SoftCPU {
  /// The linear address of the code at an offset in CS.
  @inline(__always)
  private func codeLinear(_ offset: UInt64) -> UInt64 {
    mode == .bits64 ? offset : (offset &+ segmentBase[1]) & 0xFFFF_FFFF
  }

  /// Finds or decodes the block at RIP and returns its first instruction's place; `nil` when
  /// the instruction there has to be executed by itself.
  @inline(__always)
  mutating func block() throws(Fault) -> Int? {
    let linear = codeLinear(rip)
    let slot = unsafe tlb.slot(linear)
    if unsafe slot.pointee.executeTag == tlb.tag(linear), rip <= codeLimit {
      let host = unsafe UInt(truncatingIfNeeded: linear) &+ slot.pointee.addend
      if let place = unsafe code.find(host, mark: slot.pointee.mark, mode: mode) {
        return place
      }
    }
    return try decodeBlock(linear)
  }

  /// The first bytes of the code in one page, and how many there are.
  private struct Window {
    var bytes: [16 of UInt8]
    var count: Int
  }

  private mutating func fetchPage(_ linear: UInt64) throws(Fault) -> Bool {
    let slot = unsafe tlb.slot(linear)
    if unsafe slot.pointee.executeTag == tlb.tag(linear) { return true }
    return try fill(linear, .execute).isMemory
  }

  @inline(never)
  private mutating func decodeBlock(_ linear: UInt64) throws(Fault) -> Int? {
    if rip > codeLimit { throw .protection() }
    guard try fetchPage(linear) else { return nil }
    let entry = unsafe tlb.slot(linear).pointee
    let mark = CodeMark.Reference(address: entry.mark)
    let host = UInt(truncatingIfNeeded: linear) &+ entry.addend
    // The translation alone may have been missing.
    if let place = code.find(host, mark: entry.mark, mode: mode) { return place }
    var room = 4096 - Int(linear & 0xFFF)
    room = min(room, Int(min(codeLimit - rip, 4095)) + 1)
    while true {
      let version = mark.version
      let first = code.begin()
      let length = decode(host, room)
      guard length > 0 else {
        code.truncate(to: first)
        return nil
      }
      if mark.mark(Int(linear & 0xFFF), count: length) {
        // What others wrote before they could see the marks is seen by decoding again.
        memory.fenceOthers()
        code.truncate(to: first)
        continue
      }
      code.add(host, mark: entry.mark, version: version, mode: mode, first: first)
      return first
    }
  }

  /// Decodes a block of at most `room` bytes; returns its length in bytes, zero when not even
  /// one instruction fits.
  private mutating func decode(_ host: UInt, _ room: Int) -> Int {
    var length = 0
    for _ in 0..<CodeCache.longestBlock {
      let window = Self.window(host &+ UInt(length), room - length)
      let instruction: Instruction
      do throws(Decoder.Stop) {
        instruction = try Decoder.decode(window.bytes, count: window.count, mode: mode)
      } catch {
        break
      }
      code.append(instruction)
      length += Int(instruction.length)
      if instruction.prefixes.contains(.endsBlock) { break }
    }
    code.append(Instruction())
    return length
  }

  private static func window(_ host: UInt, _ room: Int) -> Window {
    var window = Window(bytes: [16 of UInt8](repeating: 0), count: max(0, min(15, room)))
    for place in 0..<window.count {
      window.bytes[place] = unsafe UnsafePointer<UInt8>(bitPattern: host &+ UInt(place))
        .unsafelyUnwrapped.pointee
    }
    return window
  }

  /// Fetches and decodes the one instruction at RIP, wherever it lies.
  mutating func fetchOne() throws(Fault) -> Instruction {
    var bytes = [16 of UInt8](repeating: 0)
    var count = 0
    while count < 15 {
      let offset = rip &+ UInt64(count)
      do throws(Decoder.Stop) {
        if count > 0 { return try Decoder.decode(bytes, count: count, mode: mode) }
      } catch {
        if error == .tooLong { throw .protection() }
      }
      if offset > codeLimit { throw .protection() }
      let linear = codeLinear(offset)
      let isMemory = try fetchPage(linear)
      // The rest of the page, or what is left of an instruction.
      let room = min(15 - count, 4096 - Int(linear & 0xFFF))
      let end = min(room, Int(min(codeLimit - offset, 15)) + 1)
      let addend = unsafe tlb.slot(linear).pointee.addend
      let physical = isMemory ? 0 : try translate(linear, .execute).physical
      for place in 0..<end {
        if isMemory {
          let host = UInt(truncatingIfNeeded: linear) &+ addend &+ UInt(place)
          bytes[count] = unsafe UnsafePointer<UInt8>(bitPattern: host).unsafelyUnwrapped.pointee
        } else {
          bytes[count] = UInt8(
            truncatingIfNeeded: loadPhysical(physical &+ UInt64(place), 1))
        }
        count += 1
      }
    }
    do throws(Decoder.Stop) {
      return try Decoder.decode(bytes, count: count, mode: mode)
    } catch {
      throw .protection()
    }
  }
}
