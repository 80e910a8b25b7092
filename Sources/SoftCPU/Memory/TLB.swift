// SPDX-License-Identifier: Apache-2.0

/// The translations that a vCPU remembers, direct-mapped, in four sets: for the user, for the
/// supervisor, for the supervisor where SMAP is suspended (RFLAGS.AC), and for the user whose
/// alignment is checked, where only those for code are kept.
///
/// Each set has entries for reads and code, and others for writes: who copies between two places at
/// equal indices would lose both otherwise.
///
/// A tag is the linear page with the epoch in its low twelve bits: a new epoch voids them all.
/// Behind the sets the results of page walks are remembered too, whatever the privilege; those of
/// global pages stay over a load of CR3.
@safe
struct TLB: ~Copyable {
  // SAFETY: `entries` is this struct's own memory, of `setCount * 2 * size` entries, and `walks` is
  // of `walkCount`; indices are masked to the size.

  struct Entry: BitwiseCopyable {
    var readTag: UInt64 = 0
    var writeTag: UInt64 = 0
    var executeTag: UInt64 = 0
    /// What to add to a linear address to get the host's.
    var addend: UInt = 0
    /// The physical address of the page.
    var physical: UInt64 = 0
    /// The address of the page's ``CodeMark``.
    var mark: UInt = 0
    /// So that an entry is a line of the host's cache.
    private var padding: (UInt64, UInt64) = (0, 0)

    init(addend: UInt = 0, physical: UInt64 = 0, mark: UInt = 0) {
      (self.addend, self.physical, self.mark) = (addend, physical, mark)
    }
  }

  static let size = 1024
  static let setCount = 4
  private static let entryCount = setCount * 2 * size

  private let entries: UnsafeMutablePointer<Entry>
  /// The set in use.
  private var set: UnsafeMutablePointer<Entry>
  /// 1 to 4095.
  private(set) var epoch: UInt64 = 1

  /// A remembered walk.
  private struct Walk: BitwiseCopyable {
    var tag: UInt64 = 0
    var page = WalkedPage()
  }

  static let walkCount = 4096
  private let walks: UnsafeMutablePointer<Walk>
  /// 1 to 2047.
  private var walkEpoch: UInt64 = 1
  /// That of global pages: 2048 to 4095.
  private var globalEpoch: UInt64 = 2048
  /// Regions of 2 MiB that may have pages of that size remembered, and regions of 1 GiB that may
  /// have larger ones: bits by the address.
  private let largeRegions = Words<16>()
  private let hugeRegions = Words<16>()

  init() {
    unsafe walks = .allocate(capacity: Self.walkCount)
    unsafe walks.initialize(repeating: Walk(), count: Self.walkCount)
    let memory = UnsafeMutableRawPointer.allocate(
      byteCount: Self.entryCount * MemoryLayout<Entry>.stride, alignment: 64)
    unsafe entries = memory.initializeMemory(
      as: Entry.self, repeating: Entry(), count: Self.entryCount)
    unsafe set = entries
  }

  deinit {
    unsafe entries.deallocate()
    unsafe walks.deallocate()
  }

  /// Chooses the set: 0 user, 1 supervisor, 2 supervisor that may touch user pages, 3 user with
  /// alignment checks.
  mutating func select(_ number: Int) { unsafe set = start(of: number) }

  private func start(of number: Int) -> UnsafeMutablePointer<Entry> {
    precondition(number >= 0 && number < Self.setCount, "no such set")
    return unsafe entries + number * 2 * Self.size
  }

  /// Where the set in use lies.
  var address: UInt { unsafe UInt(bitPattern: set) }

  /// Where a set lies.
  func address(of number: Int) -> UInt { unsafe UInt(bitPattern: start(of: number)) }

  @inline(__always)
  func slot(_ linear: UInt64) -> UnsafeMutablePointer<Entry> {
    unsafe set + Int(truncatingIfNeeded: linear >> 12) & (Self.size - 1)
  }

  /// The entry for writes.
  @inline(__always)
  func writeSlot(_ linear: UInt64) -> UnsafeMutablePointer<Entry> {
    unsafe set + (Self.size + Int(truncatingIfNeeded: linear >> 12) & (Self.size - 1))
  }

  /// The tag of a linear address.
  @inline(__always)
  func tag(_ linear: UInt64) -> UInt64 { linear & ~0xFFF | epoch }

  // MARK: - Flushes

  /// Voids all translations, of global pages too.
  mutating func flush() {
    flushLocal()
    for place in 0..<16 { (largeRegions[place], hugeRegions[place]) = (0, 0) }
    globalEpoch += 1
    guard globalEpoch == 4096 else { return }
    globalEpoch = 2048
    unsafe walks.update(repeating: Walk(), count: Self.walkCount)
  }

  /// Voids the translations of all pages that are not global, as a load of CR3 does.
  mutating func flushLocal() {
    flushRights()
    walkEpoch += 1
    guard walkEpoch == 2048 else { return }
    walkEpoch = 1
    unsafe walks.update(repeating: Walk(), count: Self.walkCount)
  }

  /// Has the rights to all pages looked at anew; what the page tables say stays remembered.
  mutating func flushRights() {
    epoch += 1
    guard epoch == 4096 else { return }
    epoch = 1
    unsafe entries.update(repeating: Entry(), count: Self.entryCount)
  }

  /// Voids the translation of one page, in all sets.
  ///
  /// A page of 2 MiB or more goes as a whole, whatever part of it `linear` is in.
  mutating func flush(page linear: UInt64) {
    if Self.has(hugeRegions, linear >> 30) { return flush() }
    let isLarge = Self.has(largeRegions, linear >> 21)
    let first =
      isLarge ? Int(truncatingIfNeeded: linear >> 12) & ~511 : Int(truncatingIfNeeded: linear >> 12)
    for index in first..<first + (isLarge ? 512 : 1) {
      for number in 0..<2 * Self.setCount {
        unsafe (entries + number * Self.size + index & (Self.size - 1)).pointee = Entry()
      }
      unsafe walks[index & (Self.walkCount - 1)] = Walk()
    }
  }

  private static func has(_ bits: borrowing Words<16>, _ region: UInt64) -> Bool {
    bits[Int(region >> 6 & 15)] >> (region & 63) & 1 != 0
  }

  // MARK: - Walks

  /// What a walk has found of the page of a linear address, if that is remembered.
  @inline(__always)
  func findWalk(_ linear: UInt64) -> WalkedPage? {
    let walk = unsafe walks[Int(truncatingIfNeeded: linear >> 12) & (Self.walkCount - 1)]
    let page = linear & ~0xFFF
    guard walk.tag == page | walkEpoch || walk.tag == page | globalEpoch else { return nil }
    return walk.page
  }

  /// Remembers what a walk has found; the page is 2 to the power `shift` bytes large.
  mutating func rememberWalk(_ linear: UInt64, _ page: WalkedPage, shift: UInt64) {
    let tag = linear & ~0xFFF | (page.isGlobal ? globalEpoch : walkEpoch)
    unsafe walks[Int(truncatingIfNeeded: linear >> 12) & (Self.walkCount - 1)] = Walk(
      tag: tag, page: page)
    if shift == 21 {
      largeRegions[Int(linear >> 27 & 15)] |= 1 << (linear >> 21 & 63)
    } else if shift > 21 {
      hugeRegions[Int(linear >> 36 & 15)] |= 1 << (linear >> 30 & 63)
    }
  }
}

/// What the page tables say of a page of 4 KiB, or of such a part of a larger one.
struct WalkedPage: BitwiseCopyable {
  /// The physical address.
  var physical: UInt64 = 0
  var isUser = true
  var isWritable = true
  var noExecute = false
  var isDirty = false
  var isGlobal = false
  /// The protection key.
  var key: UInt8 = 0
}
