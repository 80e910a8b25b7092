// SPDX-License-Identifier: Apache-2.0

import Processor
import Testing

@testable import SoftCPU

/// Page tables in all their forms (SDM volume 3, chapter 4).
@Suite("Paging")
struct PagingTests {
  /// The linear address that the tests map with 4 KiB pages, and where its entry lies.
  private static let linear: UInt64 = 0x40_0000
  private static let table: UInt64 = 0x13_000

  private let bench: SystemBench

  init() throws { bench = try SystemBench() }

  /// A vCPU in long mode whose address ``linear`` has an entry of its own.
  private func makeLong(_ entry: UInt64) -> SoftCPU {
    let cpu = bench.makeLong()
    bench.put(Self.table | 7, at: 0x12_010)
    bench.put(entry, at: Self.table)
    return cpu
  }

  /// What a translation gives: the physical address, or the fault.
  private static func result(
    _ cpu: inout SoftCPU, _ linear: UInt64, _ kind: SoftCPU.AccessKind
  ) -> String {
    do throws(Fault) {
      return String(try cpu.translate(linear, kind).physical, radix: 16)
    } catch {
      return "#\(error.vector)(\(error.errorCode))"
    }
  }

  // MARK: - Rights

  /// One page and one access to it.
  struct Case {
    var isUserPage: Bool
    var isWritable: Bool
    var noExecute: Bool
    var isUser: Bool
    var kind: SoftCPU.AccessKind
    var wp: Bool
    var smep: Bool
    var smap: Bool
    var ac: Bool

    init(_ number: Int) {
      func bit(_ place: Int) -> Bool { number >> place & 1 != 0 }
      (isUserPage, isWritable, noExecute, isUser) = (bit(0), bit(1), bit(2), bit(3))
      (wp, smep, smap, ac) = (bit(4), bit(5), bit(6), bit(7))
      kind = [.read, .write, .execute][number >> 8]
    }

    /// The rules of section 4.6.1, one after the other.
    var isAllowed: Bool {
      if isUser {
        guard isUserPage else { return false }
        return kind == .write ? isWritable : kind == .execute ? !noExecute : true
      }
      switch kind {
      case .read: return !(isUserPage && smap && !ac)
      case .write:
        if isUserPage, smap, !ac { return false }
        return isWritable || !wp
      case .execute: return !(isUserPage && smep) && !noExecute
      }
    }
  }

  @Test("every combination of page and access is allowed or gives the right error code")
  func rights() {
    var wrong: [String] = []
    var cpu = makeLong(0)
    for number in 0..<768 {
      let one = Case(number)
      bench.put(
        0x5001 | (one.isUserPage ? 4 : 0) | (one.isWritable ? 2 : 0)
          | (one.noExecute ? 1 << 63 : 0), at: Self.table)
      cpu.cr0 = 0x8000_0011 | (one.wp ? 1 << 16 : 0)
      cpu.cr4 = 0x20 | (one.smep ? 1 << 20 : 0) | (one.smap ? 1 << 21 : 0)
      cpu.systemFlags = 2 | (one.ac ? 1 << 18 : 0)
      cpu.cpl = one.isUser ? 3 : 0
      cpu.tlb.flush()
      cpu.updateAccessRights()
      let code =
        1 + (one.kind == .write ? 2 : 0) + (one.isUser ? 4 : 0) + (one.kind == .execute ? 16 : 0)
      let expected = one.isAllowed ? "5123" : "#14(\(code))"
      let found = Self.result(&cpu, Self.linear + 0x123, one.kind)
      if found != expected { wrong.append("\(one): \(found), not \(expected)") }
    }
    #expect(wrong == [])
  }

  @Test("a level above takes rights away", arguments: [0x10_000, 0x11_000, 0x12_010] as [UInt64])
  func levels(place: UInt64) {
    var cpu = makeLong(0x5007)
    bench.put(bench.get(place) & ~4, at: place)
    cpu.cpl = 3
    let found = Self.result(&cpu, Self.linear, .read)
    #expect(found == "#14(5)")
  }

  @Test(
    "protection keys forbid reads or writes of user pages",
    arguments: [
      (0, SoftCPU.AccessKind.read, 3, "5000"), (1, .read, 3, "#14(37)"),
      (1, .write, 3, "#14(39)"), (2, .read, 3, "5000"), (2, .write, 3, "#14(39)"),
      (1, .execute, 3, "5000"), (1, .read, 0, "#14(33)"), (2, .write, 0, "#14(35)"),
    ])
  func keys(rights: UInt32, kind: SoftCPU.AccessKind, cpl: UInt8, expected: String) {
    var cpu = makeLong(0x5007 | 5 << 59)
    cpu.cr4 |= 1 << 22
    cpu.pkru = rights << 10
    cpu.cpl = cpl
    let found = Self.result(&cpu, Self.linear, kind)
    #expect(found == expected)
  }

  @Test("without WP the supervisor writes where the key forbids it only for reads")
  func keysWithoutWP() {
    var cpu = makeLong(0x5007 | 5 << 59)
    cpu.cr4 |= 1 << 22
    cpu.cr0 &= ~(1 << 16)
    cpu.pkru = 2 << 10
    let found = Self.result(&cpu, Self.linear, .write)
    #expect(found == "5000")
  }

  // MARK: - Forms

  @Test("a page of 1 GiB and one of 2 MiB are translated in long mode")
  func large() {
    var cpu = makeLong(0)
    bench.put(0x4000_0087, at: 0x11_008)
    let gigantic = Self.result(&cpu, 0x4123_4567, .read)
    let large = Self.result(&cpu, 0x23_4567, .read)
    #expect(gigantic == "41234567")
    #expect(large == "234567")
  }

  @Test("the two levels of 32-bit paging are walked; PSE gives 4 MiB and 40 address bits")
  func twoLevels() {
    var cpu = bench.makeProtected()
    cpu.cr3 = 0x10_000
    bench.put32(0x11_007, at: 0x10_004)
    bench.put32(0x7007, at: 0x11_008)
    bench.put32(0x0080_0087 | 0x12 << 13, at: 0x10_008)
    cpu.cr0 |= 1 << 31
    cpu.cr4 = 0x10
    let small = Self.result(&cpu, 0x40_2345, .read)
    let large = Self.result(&cpu, 0x92_3456, .read)
    cpu.cr4 = 0
    cpu.tlb.flush()
    bench.put32(0x11_087, at: 0x10_00C)
    let ignored = Self.result(&cpu, 0xC0_2345, .write)
    #expect(small == "7345")
    #expect(large == "1200923456")
    #expect(ignored == "7345")
  }

  @Test("PAE paging goes by the pointers that a load of CR3 has read")
  func pae() {
    var cpu = bench.makeProtected()
    bench.put(0x11_001, at: 0x10_020)
    bench.put(0x12_007, at: 0x11_010)
    bench.put(0x60_0087, at: 0x11_018)
    bench.put(0x7007 | 1 << 36, at: 0x12_028)
    cpu.cr4 = 0x20
    cpu.cr0 |= 1 << 31
    cpu.cr3 = 0x10_020
    let isLoaded = (try? cpu.loadPointers()) != nil
    bench.put(0, at: 0x10_020)
    let small = Self.result(&cpu, 0x40_5123, .read)
    let large = Self.result(&cpu, 0x7A_BCDE, .write)
    let absent = Self.result(&cpu, 0x4000_0000, .read)
    #expect(isLoaded)
    #expect(small == "1000007123")
    #expect(large == "7abcde")
    #expect(absent == "#14(0)")
  }

  @Test("reserved bits of a PAE pointer are a general protection fault")
  func pointerBits() {
    var cpu = bench.makeProtected()
    bench.put(0x11_003, at: 0x10_000)
    cpu.cr3 = 0x10_000
    #expect(throws: Fault.protection()) { try cpu.loadPointers() }
  }

  @Test(
    "reserved bits give error code 9",
    arguments: [
      (0x13_000, 0x5007 | 1 << 45), (0x12_010, 0x20_0087 | 1 << 13), (0x10_000, 0x11_087),
      (0x11_000, 0x4000_0087 | 1 << 29),
    ] as [(UInt64, UInt64)])
  func reserved(place: UInt64, entry: UInt64) {
    var cpu = makeLong(0x5007)
    bench.put(entry, at: place)
    let found = Self.result(&cpu, Self.linear, .read)
    #expect(found == "#14(9)")
  }

  @Test("the no-execute bit is reserved without EFER.NXE")
  func noExecuteReserved() {
    var cpu = makeLong(0x5007 | 1 << 63)
    cpu.efer &= ~0x800
    let found = Self.result(&cpu, Self.linear, .read)
    let fetch = Self.result(&cpu, Self.linear, .execute)
    #expect(found == "#14(9)")
    #expect(fetch == "#14(9)")
  }

  @Test(
    "an absent entry of any level is a page fault with its address in CR2",
    arguments: [0x10_000, 0x11_000, 0x12_010, 0x13_000] as [UInt64])
  func absent(place: UInt64) {
    var cpu = makeLong(0x5007)
    bench.put(0, at: place)
    let found = Self.result(&cpu, Self.linear + 0x456, .write)
    #expect(found == "#14(2)")
    #expect(cpu.cr2 == Self.linear + 0x456)
  }

  @Test("an address that is not canonical is a general protection fault")
  func canonical() {
    var cpu = makeLong(0x5007)
    let found = Self.result(&cpu, 0x0000_8000_0000_0000, .read)
    #expect(found == "#13(0)")
  }

  @Test("a closed A20 gate clears bit 20 of what is accessed")
  func a20() throws {
    var cpu = makeLong(0x10_5007)
    bench.put(0xAAAA, at: 0x5000)
    bench.put(0xBBBB, at: 0x10_5000)
    let open = try cpu.load(UInt64.self, Self.linear)
    bench.memory.setA20(false)
    bench.attention.raise(Attention.mapChanged | Attention.leave)
    let exit = cpu.run()
    let closed = try cpu.load(UInt64.self, Self.linear)
    #expect(exit == .attention)
    #expect(open == 0xBBBB)
    #expect(closed == 0xAAAA)
  }

  // MARK: - Accessed and dirty

  @Test("a read sets the accessed bits of all levels, a write also the dirty bit")
  func accessed() {
    var cpu = makeLong(0x5007)
    let places: [UInt64] = [0x10_000, 0x11_000, 0x12_010, Self.table]
    _ = Self.result(&cpu, Self.linear, .read)
    let afterRead = places.map { bench.get($0) & 0x60 }
    _ = Self.result(&cpu, Self.linear, .write)
    let afterWrite = places.map { bench.get($0) & 0x60 }
    #expect(afterRead == [0x20, 0x20, 0x20, 0x20])
    #expect(afterWrite == [0x20, 0x20, 0x20, 0x60])
  }

  @Test("an access that is not allowed leaves the page's entry as it is")
  func untouched() {
    var cpu = makeLong(0x5003)
    cpu.cpl = 3
    let found = Self.result(&cpu, Self.linear, .write)
    #expect(found == "#14(7)")
    #expect(bench.get(Self.table) == 0x5003)
  }

  @Test("a store after a load sets the dirty bit")
  func dirtyAfterLoad() throws {
    var cpu = makeLong(0x5007)
    _ = try cpu.load(UInt32.self, Self.linear)
    let before = bench.get(Self.table) & 0x40
    try cpu.store(UInt32(0x1234), Self.linear)
    let after = bench.get(Self.table) & 0x40
    #expect(before == 0)
    #expect(after == 0x40)
    #expect(bench.get32(0x5000) == 0x1234)
  }

  // MARK: - Translations that are remembered

  /// MOV CR3, RAX with the value that is there already.
  private func reloadCR3(_ cpu: inout SoftCPU) {
    cpu.gpr[0] = cpu.cr3
    bench.run(&cpu, [0x0F, 0x22, 0xD8])
  }

  @Test("a load of CR3 voids translations, but for global pages", arguments: [false, true])
  func global(isGlobal: Bool) throws {
    var cpu = makeLong(0x5007 | (isGlobal ? 0x100 : 0))
    cpu.cr4 |= 0x80
    bench.put(0xAAAA, at: 0x5000)
    bench.put(0xBBBB, at: 0x7000)
    let first = try cpu.load(UInt64.self, Self.linear)
    bench.put(0x7007, at: Self.table)
    reloadCR3(&cpu)
    let second = try cpu.load(UInt64.self, Self.linear)
    bench.run(&cpu, [0x0F, 0x01, 0x3C, 0x25, 0x00, 0x00, 0x40, 0x00])  // invlpg [400000h]
    let third = try cpu.load(UInt64.self, Self.linear)
    #expect(first == 0xAAAA)
    #expect(second == (isGlobal ? 0xAAAA : 0xBBBB))
    #expect(third == 0xBBBB)
  }

  @Test("a change of CR4.PGE voids global pages too")
  func globalEnd() throws {
    var cpu = makeLong(0x5107)
    cpu.cr4 |= 0x80
    _ = try cpu.load(UInt64.self, Self.linear)
    bench.put(0x7007, at: Self.table)
    bench.put(0xBBBB, at: 0x7000)
    cpu.gpr[0] = cpu.cr4 & ~0x80
    bench.run(&cpu, [0x0F, 0x22, 0xE0])
    let found = try cpu.load(UInt64.self, Self.linear)
    #expect(cpu.cr4 & 0x80 == 0)
    #expect(found == 0xBBBB)
  }

  @Test("INVLPG voids a large page as a whole")
  func largeInvalidation() throws {
    var cpu = makeLong(0)
    bench.put(0x20_0087, at: 0x12_010)
    bench.put(0xAAAA, at: 0x20_3000)
    bench.put(0xBBBB, at: 0x3000)
    let first = try cpu.load(UInt64.self, 0x40_3000)
    bench.put(0x87, at: 0x12_010)
    bench.run(&cpu, [0x0F, 0x01, 0x3C, 0x25, 0x00, 0x80, 0x40, 0x00])  // invlpg [408000h]
    let second = try cpu.load(UInt64.self, 0x40_3000)
    #expect(first == 0xAAAA)
    #expect(second == 0xBBBB)
  }

  @Test("a fault looks at the entry that is in memory now")
  func stale() {
    var cpu = makeLong(0x5005)
    cpu.cpl = 3
    let read = Self.result(&cpu, Self.linear, .read)
    bench.put(0x5007, at: Self.table)
    let write = Self.result(&cpu, Self.linear, .write)
    #expect(read == "5000")
    #expect(write == "5000")
  }

  @Test("every epoch that is used again starts with nothing remembered")
  func epochs() throws {
    var cpu = makeLong(0x5007)
    bench.put(0xAAAA, at: 0x5000)
    _ = try cpu.load(UInt64.self, Self.linear)
    bench.put(0x7007, at: Self.table)
    bench.put(0xBBBB, at: 0x7000)
    var wrong = 0
    for number in 0..<4200 {
      if number % 2 == 0 { cpu.tlb.flush() } else { cpu.tlb.flushLocal() }
      if try cpu.load(UInt64.self, Self.linear) != 0xBBBB { wrong += 1 }
    }
    #expect(wrong == 0)
  }

  // MARK: - Accesses

  @Test("a store across pages writes nothing when the second page faults")
  func acrossPages() {
    var cpu = makeLong(0x5007)
    #expect(throws: Fault.page(2)) { try cpu.store(UInt64.max, Self.linear + 0xFFC) }
    #expect(cpu.cr2 == Self.linear + 0x1000)
    #expect(bench.get32(0x5FFC) == 0)
  }

  @Test("a load across pages takes its bytes from both")
  func loadAcrossPages() throws {
    var cpu = makeLong(0x5007)
    bench.put(0x7007, at: Self.table + 8)
    bench.put32(0x4433_2211, at: 0x5FFC)
    bench.put32(0x8877_6655, at: 0x7000)
    let found = try cpu.load(UInt64.self, Self.linear + 0xFFC)
    #expect(found == 0x8877_6655_4433_2211)
  }

  @Test("descriptors are read with the supervisor's rights in the user's code")
  func implicit() throws {
    var cpu = makeLong(0x1003)
    bench.enterUser(&cpu, SystemBench.Selector.userCode64)
    cpu.gdtr.base = Self.linear
    cpu.gpr[0] = UInt64(SystemBench.Selector.userData)
    bench.run(&cpu, [0x8E, 0xD8])  // mov ds, eax
    #expect(cpu.rip == SystemBench.code + 2)
    #expect(throws: Fault.page(5)) { try cpu.load(UInt8.self, Self.linear) }
  }

  @Test("SMAP holds for descriptors that lie in the user's pages, whatever AC is")
  func implicitSMAP() {
    var cpu = makeLong(0x1007)
    cpu.cr4 |= 1 << 21
    cpu.systemFlags |= 1 << 18
    cpu.gdtr.base = Self.linear
    cpu.updateMode()
    #expect(throws: Fault.page(1)) { try cpu.loadSegment(3, SystemBench.Selector.data) }
  }

  @Test("compatibility mode finds descriptors above 4 GiB")
  func highTables() {
    var cpu = makeLong(0x1003)
    bench.put(0x11_007, at: 0x10_FF8)
    cpu.gdtr.base = 0xFFFF_FF80_0000_0000 + Self.linear
    bench.enterUser(&cpu, SystemBench.Selector.userCode32)
    cpu.gpr[0] = UInt64(SystemBench.Selector.userData)
    bench.run(&cpu, [0x8E, 0xC0])  // mov es, eax
    #expect(cpu.mode == .bits32)
    #expect(cpu.rip == SystemBench.code + 2)
    #expect(cpu.segments[0].selector == SystemBench.Selector.userData)
  }
}
