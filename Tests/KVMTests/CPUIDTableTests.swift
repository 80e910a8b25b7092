// SPDX-License-Identifier: Apache-2.0

import KVM
import Processor
import Testing

@Suite("The CPUID table of a guest")
struct CPUIDTableTests {
  private typealias Entry = CPUIDTable.Entry

  /// A made-up AMD host with everything that has to be changed.
  private let host = CPUIDTable(entries: [
    Entry(leaf: 0, eax: 0x10, ebx: 0x6874_7541, ecx: 0x444D_4163, edx: 0x6974_6E65),
    Entry(leaf: 1, eax: 0xA00F11, ebx: 0x0710_0800, ecx: 0x0800_2021, edx: 0x0178_BFFF),
    Entry(leaf: 0x0B, subleaf: 0, hasSubleaves: true, eax: 9, ebx: 9, ecx: 9, edx: 9),
    Entry(leaf: 0x4000_0000, eax: 0x4000_0001, ebx: 1, ecx: 2, edx: 3),
    Entry(leaf: 0x4000_0001, eax: 0x0100_FEFB, edx: 1),
    Entry(leaf: 0x4000_0010, eax: 5),
    Entry(leaf: 0x8000_0001, ecx: 0x4),
    Entry(leaf: 0x8000_0002, eax: 0x2044_4D41),
    Entry(leaf: 0x8000_0008, eax: 0x3030, ecx: 0x7FFF),
    Entry(leaf: 0x8000_000A, eax: 1, ebx: 2),
    Entry(
      leaf: 0x8000_001D, subleaf: 3, hasSubleaves: true, eax: 0x03FF_C163, ebx: 7, ecx: 8),
    Entry(leaf: 0x8000_001E, eax: 7, ebx: 0x0103, ecx: 1),
  ])

  @Test("leaf 1 has the vCPU's APIC id, the count, a hypervisor, and no nested VMX")
  func leafOne() throws {
    let leaf = try #require(host.guest(id: 2, count: 3).entry(1))
    #expect(leaf.ebx == 0x0204_0800)
    #expect(leaf.ecx == 0x8000_2001)
    #expect(leaf.edx & 1 << 28 != 0)
    #expect(try #require(host.guest(id: 0, count: 1).entry(1)).edx & 1 << 28 == 0)
  }

  @Test("hidden bits go away and the deadline timer comes when asked for")
  func bits() throws {
    let table = host.guest(id: 0, count: 1, hiding: [.cmpxchg16b], hasDeadlineTimer: true)
    #expect(try #require(table.entry(1)).ecx == 0x8100_0001)
  }

  @Test("KVM's leaves keep their name and offer nothing but the clock")
  func hypervisor() throws {
    let table = host.guest(id: 0, count: 1)
    let name = try #require(table.entry(0x4000_0000))
    #expect([name.ebx, name.ecx, name.edx] == [0x4B4D_564B, 0x564B_4D56, 0x4D])
    let features = try #require(table.entry(0x4000_0001))
    #expect(features.eax == 0x0100_000B && features.edx == 0)
    #expect(table.entry(0x4000_0010) == nil)
  }

  @Test("the extended topology has a level of threads, one of cores, and an end")
  func topology() throws {
    let table = host.guest(id: 2, count: 3)
    let threads = try #require(table.entry(0x0B, 0))
    let cores = try #require(table.entry(0x0B, 1))
    #expect([threads.eax, threads.ebx, threads.ecx, threads.edx] == [0, 1, 0x100, 2])
    #expect([cores.eax, cores.ebx, cores.ecx, cores.edx] == [2, 3, 0x201, 2])
    #expect(table.entries.filter { $0.leaf == 0x0B }.count == 3)
    #expect(table.entry(0x1F) == nil)
  }

  @Test("AMD's leaves tell the cores, the cache sharing and the id")
  func amd() throws {
    let table = host.guest(id: 2, count: 3)
    #expect(table.vendor == "AuthenticAMD")
    #expect(try #require(table.entry(0x8000_0001)).ecx == 2)
    #expect(try #require(table.entry(0x8000_0008)).ecx == 0x2F02)
    #expect(try #require(table.entry(0x8000_000A)).eax == 0)
    #expect(try #require(table.entry(0x8000_001D, 3)).eax == 0xC163)
    let identity = try #require(table.entry(0x8000_001E))
    #expect([identity.eax, identity.ebx, identity.ecx] == [2, 2, 0])
  }

  @Test("the brand string stays")
  func brand() {
    #expect(host.guest(id: 1, count: 2).entry(0x8000_0002) == host.entry(0x8000_0002))
  }

  @Test("Intel's cache leaf counts the cores and shares the last level among all")
  func intel() throws {
    let host = CPUIDTable(entries: [
      Entry(leaf: 0, eax: 4, ebx: 0x756E_6547, ecx: 0x6C65_746E, edx: 0x4965_6E69),
      Entry(leaf: 4, subleaf: 0, hasSubleaves: true, eax: 0xFC00_4121),
      Entry(leaf: 4, subleaf: 3, hasSubleaves: true, eax: 0xFC1F_C163),
      Entry(leaf: 4, subleaf: 4, hasSubleaves: true),
    ])
    let table = host.guest(id: 1, count: 4)
    #expect(try #require(table.entry(4, 0)).eax == 0x0C00_0121)
    #expect(try #require(table.entry(4, 3)).eax == 0x0C00_C163)
    #expect(try #require(table.entry(4, 4)).eax == 0)
  }
}
