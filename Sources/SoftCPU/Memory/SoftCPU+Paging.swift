// SPDX-License-Identifier: Apache-2.0

internal import CHostCPU
internal import Synchronization

/// A page's translation, with what the code that runs may do there.
struct Translation: Sendable {
  /// The physical address of the byte asked for.
  var physical: UInt64
  var mayRead: Bool
  /// Also that the dirty bit is set already.
  var mayWrite: Bool
  var mayExecute: Bool
}

/// The two ranges of physical memory that were looked up last: with RAM below and above the hole
/// under 4 GiB, most accesses go to one or the other.
struct RangeCache: Sendable {
  struct Range: Sendable {
    var start: UInt64 = 1
    var byteCount: UInt64 = 0
    var page = PhysicalMemory.Page(host: 0, mark: 0, isReadOnly: false)

    /// The page that an address is in, if it is in the range.
    @inline(__always)
    func page(_ physical: UInt64) -> PhysicalMemory.Page? {
      guard physical &- start < byteCount else { return nil }
      let offset = UInt((physical &- start) & ~0xFFF)
      return PhysicalMemory.Page(
        host: page.host &+ offset,
        mark: page.mark &+ (offset >> 12) &* UInt(MemoryLayout<CodeMark>.size),
        isReadOnly: page.isReadOnly)
    }
  }

  var last = Range()
  var other = Range()
}

/// The page walk (SDM volume 3, chapter 4).
extension SoftCPU {
  /// Error code bits of a page fault.
  private enum PageError {
    static let present: UInt32 = 1
    static let write: UInt32 = 2
    static let user: UInt32 = 4
    static let reserved: UInt32 = 8
    static let fetch: UInt32 = 16
    static let key: UInt32 = 32
  }

  /// Bits of page table entries.
  private enum Entry {
    static let present: UInt64 = 1
    static let write: UInt64 = 2
    static let user: UInt64 = 4
    static let accessed: UInt64 = 0x20
    static let dirty: UInt64 = 0x40
    static let large: UInt64 = 0x80
    static let global: UInt64 = 0x100
    static let noExecute: UInt64 = 1 << 63
  }

  /// What a walk has found of a page.
  private struct Walk {
    var page = WalkedPage()
    /// The leaf entry as it was, where it lies, and its size.
    var entry: UInt64 = 0
    var place: UInt64 = 0
    var entrySize = 8
    /// The page is 2 to this power bytes large.
    var shift: UInt64 = 12
  }

  /// What the code that runs may do with a page.
  private struct PageRights {
    var mayRead = true
    var mayWrite = true
    var mayExecute = true
    /// The protection key forbids reads, and writes.
    var keyForbidsReads = false
    var keyForbidsWrites = false

    func allows(_ kind: AccessKind) -> Bool {
      switch kind {
      case .read: mayRead && !keyForbidsReads
      case .write: mayWrite && !keyForbidsWrites
      case .execute: mayExecute
      }
    }
  }

  var isPaging: Bool { cr0 & 1 << 31 != 0 }
  private var isLongPaging: Bool { efer & 0x400 != 0 }

  /// The memory behind a physical page, remembered by its range.
  mutating func physicalPage(_ physical: UInt64) -> PhysicalMemory.Page? {
    if let page = ranges.last.page(physical) { return page }
    if let page = ranges.other.page(physical) {
      swap(&ranges.last, &ranges.other)
      return page
    }
    guard let found = memory.range(physical) else { return nil }
    ranges.other = ranges.last
    ranges.last = found
    return found.page(physical)
  }

  /// Translates a linear address; throws #PF with CR2 set where the access is not allowed.
  mutating func translate(_ linear: UInt64, _ kind: AccessKind) throws(Fault) -> Translation {
    guard isPaging else {
      return Translation(
        physical: linear & a20Mask, mayRead: true, mayWrite: true, mayExecute: true)
    }
    if mode == .bits64, !Self.isCanonical(linear) { throw .address }
    if let known = tlb.findWalk(linear), kind != .write || known.isDirty {
      let rights = rights(known)
      // What is forbidden by a remembered entry may be allowed by the one in memory.
      if rights.allows(kind) { return translation(linear, known, rights) }
    }
    while true {
      var found = try walk(linear, kind)
      let rights = rights(found.page)
      guard rights.allows(kind) else {
        let isKey =
          kind == .read && rights.keyForbidsReads || kind == .write && rights.keyForbidsWrites
        throw pageFault(linear, kind, PageError.present | (isKey ? PageError.key : 0))
      }
      let bits = Entry.accessed | (kind == .write ? Entry.dirty : 0)
      if found.entry & bits != bits {
        // Somebody else may have changed the entry by now.
        guard setEntry(found.place, found.entry, found.entry | bits, found.entrySize) else {
          continue
        }
        if kind == .write { found.page.isDirty = true }
      }
      tlb.rememberWalk(linear, found.page, shift: found.shift)
      return translation(linear, found.page, rights)
    }
  }

  @inline(__always)
  static func isCanonical(_ linear: UInt64) -> Bool {
    Int64(bitPattern: linear << 16) >> 16 == Int64(bitPattern: linear)
  }

  private func translation(_ linear: UInt64, _ page: WalkedPage, _ rights: PageRights)
    -> Translation
  {
    Translation(
      physical: (page.physical | linear & 0xFFF) & a20Mask,
      mayRead: rights.allows(.read), mayWrite: rights.allows(.write) && page.isDirty,
      mayExecute: rights.allows(.execute))
  }

  /// What a page's entries allow at the privilege of the code that runs (4.6).
  ///
  /// `mutating` because a call that only reads `self` copies the whole of it first (Swift 6.3).
  private mutating func rights(_ page: WalkedPage) -> PageRights {
    let isUser = cpl == 3 && !isImplicitSupervisor
    let isProtected = cr0 & 1 << 16 != 0
    var rights = PageRights()
    rights.mayWrite = page.isWritable || !isUser && !isProtected
    rights.mayExecute = !page.noExecute
    if isUser {
      if !page.isUser {
        (rights.mayRead, rights.mayWrite, rights.mayExecute) = (false, false, false)
      }
    } else if page.isUser {
      if cr4 & 1 << 20 != 0 { rights.mayExecute = false }
      if cr4 & 1 << 21 != 0, isImplicitSupervisor || systemFlags & 1 << 18 == 0 {
        (rights.mayRead, rights.mayWrite) = (false, false)
      }
    }
    if page.isUser, cr4 & 1 << 22 != 0, isLongPaging {
      let key = pkru >> (2 * UInt32(page.key))
      rights.keyForbidsReads = key & 1 != 0
      rights.keyForbidsWrites = key & 1 != 0 || key & 2 != 0 && (isUser || isProtected)
    }
    return rights
  }

  private mutating func pageFault(_ linear: UInt64, _ kind: AccessKind, _ bits: UInt32) -> Fault {
    cr2 = linear
    var code = bits
    if kind == .write { code |= PageError.write }
    if cpl == 3, !isImplicitSupervisor { code |= PageError.user }
    let hasFetchBit = efer & 0x800 != 0 && cr4 & 0x20 != 0 || cr4 & 1 << 20 != 0
    if kind == .execute, hasFetchBit { code |= PageError.fetch }
    return .page(code)
  }

  // MARK: - Walks

  /// Walks the tables: all entries but the leaf get their accessed bit.
  private mutating func walk(_ linear: UInt64, _ kind: AccessKind) throws(Fault) -> Walk {
    if isLongPaging {
      return try walk64(linear, kind, table: cr3 & physicalMask & ~0xFFF, levels: 4)
    }
    if cr4 & 0x20 != 0 {
      let pointer = pdptrs[Int(linear >> 30 & 3)]
      guard pointer & Entry.present != 0 else { throw pageFault(linear, kind, 0) }
      return try walk64(linear, kind, table: pointer & physicalMask & ~0xFFF, levels: 2)
    }
    return try walk32(linear, kind)
  }

  private mutating func walk64(
    _ linear: UInt64, _ kind: AccessKind, table: UInt64, levels: Int
  ) throws(Fault) -> Walk {
    var walk = Walk()
    var table = table
    var level = levels
    let reserved =
      (~physicalMask & 0x000F_FFFF_FFFF_F000) | (efer & 0x800 == 0 ? Entry.noExecute : 0)
      | (isLongPaging ? 0 : 0x7FF0_0000_0000_0000)
    while true {
      let shift = UInt64(12 + 9 * (level - 1))
      let place = table &+ (linear >> shift & 511) &* 8
      let entry = loadEntry(place, 8)
      guard entry & Entry.present != 0 else { throw pageFault(linear, kind, 0) }
      let isLeaf = level == 1 || entry & Entry.large != 0 && level <= 3
      var bad = entry & reserved
      if level == 4, entry & Entry.large != 0 { bad |= 1 }
      if level == 3, entry & Entry.large != 0, !hasGigantic { bad |= 1 }
      if isLeaf, level > 1 { bad |= entry & ((1 << shift) &- 1) & ~0x1FFF }
      guard bad == 0 else {
        throw pageFault(linear, kind, PageError.present | PageError.reserved)
      }
      if entry & Entry.user == 0 { walk.page.isUser = false }
      if entry & Entry.write == 0 { walk.page.isWritable = false }
      if entry & Entry.noExecute != 0 { walk.page.noExecute = true }
      if isLeaf {
        let mask = (1 as UInt64) << shift &- 1
        let frame = entry & physicalMask & 0x000F_FFFF_FFFF_F000 & ~mask
        walk.page.physical = (frame | linear & mask) & ~0xFFF
        walk.page.isDirty = entry & Entry.dirty != 0
        walk.page.key = UInt8(truncatingIfNeeded: entry >> 59 & 15)
        walk.page.isGlobal = entry & Entry.global != 0 && cr4 & 0x80 != 0
        walk.entry = entry
        walk.place = place
        walk.shift = shift
        return walk
      }
      if entry & Entry.accessed == 0 {
        guard setEntry(place, entry, entry | Entry.accessed, 8) else { continue }
      }
      table = entry & physicalMask & 0x000F_FFFF_FFFF_F000
      level -= 1
    }
  }

  private mutating func walk32(_ linear: UInt64, _ kind: AccessKind) throws(Fault) -> Walk {
    while true {
      var walk = Walk()
      walk.entrySize = 4
      walk.place = (cr3 & 0xFFFF_F000) &+ (linear >> 22 & 1023) &* 4
      walk.entry = loadEntry(walk.place, 4)
      guard walk.entry & Entry.present != 0 else { throw pageFault(linear, kind, 0) }
      walk.page.isUser = walk.entry & Entry.user != 0
      walk.page.isWritable = walk.entry & Entry.write != 0
      if walk.entry & Entry.large != 0, cr4 & 0x10 != 0 {
        // Bits 13 to 20 are bits 32 to 39 of the address (PSE-36).
        guard walk.entry & 0x3F_E000 & ~((physicalMask >> 32 & 0xFF) << 13) == 0 else {
          throw pageFault(linear, kind, PageError.present | PageError.reserved)
        }
        walk.shift = 22
        walk.page.physical =
          walk.entry & 0xFFC0_0000 | (walk.entry >> 13 & 0xFF) << 32 | linear & 0x3F_F000
      } else {
        if walk.entry & Entry.accessed == 0,
          !setEntry(walk.place, walk.entry, walk.entry | Entry.accessed, 4)
        {
          // Somebody else has changed it: from the start.
          continue
        }
        walk.place = (walk.entry & 0xFFFF_F000) &+ (linear >> 12 & 1023) &* 4
        walk.entry = loadEntry(walk.place, 4)
        guard walk.entry & Entry.present != 0 else { throw pageFault(linear, kind, 0) }
        if walk.entry & Entry.user == 0 { walk.page.isUser = false }
        if walk.entry & Entry.write == 0 { walk.page.isWritable = false }
        walk.page.physical = walk.entry & 0xFFFF_F000
      }
      walk.page.isDirty = walk.entry & Entry.dirty != 0
      walk.page.isGlobal = walk.entry & Entry.global != 0 && cr4 & 0x80 != 0
      return walk
    }
  }

  /// Whether CPUID offers pages of 1 GiB.
  private var hasGigantic: Bool { has(.gigantic) }

  // MARK: - Entries

  private mutating func loadEntry(_ physical: UInt64, _ size: Int) -> UInt64 {
    let address = physical & a20Mask
    guard let page = physicalPage(address) else {
      return bus.readMemory(address, byteCount: size)
    }
    let host = page.host &+ UInt(address & 0xFFF)
    // SAFETY: the page is mapped, and an entry lies inside it.
    let pointer = unsafe UnsafeRawPointer(bitPattern: host).unsafelyUnwrapped
    return size == 8
      ? unsafe pointer.loadUnaligned(as: UInt64.self)
      : UInt64(unsafe pointer.loadUnaligned(as: UInt32.self))
  }

  /// Changes an entry if it still is `old`; `false` when somebody else was faster.
  private mutating func setEntry(_ physical: UInt64, _ old: UInt64, _ new: UInt64, _ size: Int)
    -> Bool
  {
    let address = physical & a20Mask
    guard let page = physicalPage(address), !page.isReadOnly else {
      // Tables in ROM or on the bus keep no accessed bits.
      return true
    }
    let host = page.host &+ UInt(address & 0xFFF)
    var expected = old
    // SAFETY: the page is mapped, and an entry lies inside it.
    let isDone =
      unsafe bh_compare_exchange(
        UnsafeMutableRawPointer(bitPattern: host).unsafelyUnwrapped, &expected, new, Int32(size))
      != 0
    let mark = CodeMark.Reference(address: page.mark)
    if isDone, mark.isMarked { mark.wasWritten(Int(address & 0xFFF), count: size) }
    return isDone
  }

  /// Loads the four pointers of PAE paging (4.4.1); throws #GP for reserved bits.
  mutating func loadPointers() throws(Fault) {
    var new = [4 of UInt64](repeating: 0)
    let reserved = ~physicalMask & ~Entry.present | 0x1E6
    for index in 0..<4 {
      new[index] = loadEntry((cr3 & 0xFFFF_FFE0) &+ UInt64(index) &* 8, 8)
      if new[index] & Entry.present != 0, new[index] & reserved != 0 { throw .protection() }
    }
    for index in 0..<4 { pdptrs[index] = new[index] }
  }
}
